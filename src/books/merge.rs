//! What a goat makes of another's word on a session: a later life is believed, and of the same one the maxima are. To
//! hear a state twice, late or out of order so changes nothing.

use super::session::{Known, State, begins, is_later};

/// The time of the last that is known of a session, in seconds since 1970.
fn word(known: &Known) -> u32 {
    known.closed.max(known.session.last_seen())
}

/// What a session is by what this goat knows and what another says.
pub fn merge(mine: &Known, other: &State) -> Known {
    let theirs = &other.known;
    let (own, life) = (mine.session.life, theirs.session.life);
    match (own.is_provisional(), life.is_provisional()) {
        // The other knows the row. What it says is of this life, unless it ended before this began: the row will tell.
        (true, false) if word(theirs) < mine.session.began => *mine,
        (true, false) => {
            let mut next = same(mine, theirs);
            next.session.life = life;
            next
        }
        // This goat knows it: the life that the other began gets the number that the row will give it.
        (false, true) if word(theirs) < mine.session.began => *mine,
        (false, true) => {
            let birth = other.birth.filter(|birth| birth.at > word(mine) && mine.closed != 0);
            let new = birth.and_then(|b| {
                begins(mine.session.top, mine.closed, mine.session.paths, b.at, b.path, b.started, b.first)
            });
            let mut next = if new.is_some() { *theirs } else { same(mine, theirs) };
            next.session.life = if new.is_some() { own.next() } else { own };
            next
        }
        _ if life > own => *theirs,
        _ if life < own => *mine,
        _ => same(mine, theirs),
    }
}

/// Two words on the same life.
fn same(mine: &Known, theirs: &Known) -> Known {
    let (a, b) = (&mine.session, &theirs.session);
    let said = |known: &Known| (known.closed, known.session.last_seen(), known.session.announced);
    let news = is_later(said(theirs), said(mine));
    let mut next = if news { *theirs } else { *mine };
    // What was seeded meanwhile goes on where this goat knows of no pause, nor may have missed one.
    let on = mine.closed == 0 && a.left == 0 && (1..=a.last_seen()).contains(&b.seeds);
    next.session.seeds = if news && (a.seeds == 0 || !on) && said(theirs) != said(mine) { b.seeds } else { a.seeds };
    if mine.closed == 0 && theirs.closed == 0 {
        next.session.paths = a.paths.with(b.paths);
        let [mine4, mine6] = a.seen;
        let [theirs4, theirs6] = b.seen;
        next.session.seen = [mine4.max(theirs4), mine6.max(theirs6)];
        next.at.v4 = if theirs4 > mine4 { theirs.at.v4 } else { mine.at.v4 };
        next.at.v6 = if theirs6 > mine6 { theirs.at.v6 } else { mine.at.v6 };
    }
    next.session.life = a.life;
    next.session.top = a.top.max(b.top);
    next.session.began = a.began.min(b.began);
    next.session.announced = a.announced.max(b.announced);
    next.session.complete = a.complete || b.complete;
    next.session.snatched = a.snatched || b.snatched;
    next
}
