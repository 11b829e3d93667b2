//! What a goat makes of another's word on a session: a later life is believed, and of the same one the maxima are. To
//! hear a state twice, late or out of order so changes nothing.

use super::session::{Known, Life, Session, State, is_later};

/// The time of the last that is known of a session, in seconds since 1970.
fn word(known: &Known) -> u32 {
    known.closed.max(known.session.last_seen())
}

/// What a session is by what this goat knows and what another says.
pub fn merge(mine: &Known, other: &State) -> Known {
    let (theirs, session) = (&other.known, &mine.session);
    let (own, life) = (session.life, theirs.session.life);
    match (own.is_provisional(), life.is_provisional()) {
        // It ended before this life began: the row will tell.
        (begun, told) if begun != told && word(theirs) < session.began => *mine,
        // The other knows the row.
        (true, false) => same(mine, theirs, life),
        // This goat knows it: the life that the other began gets the number that the row will give it.
        (false, true) => {
            let birth = other.birth.filter(|birth| birth.at > word(mine) && mine.closed != 0);
            match birth.and_then(|birth| birth.begins(session.top, mine.closed, session.paths)) {
                Some(_) => Known { session: Session { life: own.next(), ..theirs.session }, ..*theirs },
                None => same(mine, theirs, own),
            }
        }
        _ if life > own => *theirs,
        _ if life < own => *mine,
        _ => same(mine, theirs, own),
    }
}

/// Two words on the same life, and its number.
fn same(mine: &Known, theirs: &Known, life: Life) -> Known {
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
    next.session.life = life;
    next.session.top = a.top.max(b.top);
    next.session.began = a.began.min(b.began);
    next.session.announced = a.announced.max(b.announced);
    next.session.complete = a.complete || b.complete;
    next.session.snatched = a.snatched || b.snatched;
    next
}
