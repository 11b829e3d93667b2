//! What a state is worth: the rule of the books, as one pure function.
//!
//! **No byte is credited twice**, for all that is ever credited is the rise of a life's highest counters above
//! what its row holds as credited already. A state that is written again, late, or by two goats finds a row that
//! has it, and is worth nothing.

use super::session::{Paths, State, is_later};
use crate::protocol::{Factors, Moved};
use crate::store::sessions::{LifeRow, Row};

/// Seconds after a close before which nothing of a life in doubt is credited.
const DOUBT: u32 = 120;

/// What a member is to get for a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rise {
    pub moved: Moved,
    /// What of them is credited, by the torrent's factors.
    pub credited: Moved,
    pub seconds: u32,
    /// A download was completed that the row did not have as completed.
    pub snatch: bool,
}

/// Which life of a row a state speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    /// One that the row does not have yet, and the close after which that is in doubt (0: none).
    New(u32),
    Current,
    Former,
    /// One before these: it is over, and was settled.
    Older,
}

/// Settles a state: what its row is to be, and what the member gets. A session that has no row yet comes with
/// one whose life is 0. `silence` is how many seconds of silence close a session.
pub fn credit(row: &Row, state: &State, silence: u32) -> (Row, Rise) {
    let session = &state.known.session;
    let earlier = begun_earlier(row, state);
    let row = earlier.as_ref().unwrap_or(row);
    let (mut new, mut rise) = (*row, Rise::default());
    let which = which(row, state, silence);
    match which {
        Which::New(doubt) => {
            let next = row.life.saturating_add(1);
            new.life = if session.life.is_provisional() { next } else { session.life.0 };
            new.former = if new.life == next { row.current } else { LifeRow::default() };
            new.current = begin(state, doubt, row.life != 0);
        }
        Which::Current => new.current.top = row.current.top.max(session.top),
        Which::Former => {
            if row.former.began == 0 {
                // Heard of for the first time after the one that follows.
                new.former = begin(state, state.birth.map_or(0, |birth| birth.doubt), false);
            }
            new.former.top = new.former.top.max(session.top);
            rise.moved = pay(&mut new.former, session.last_seen());
        }
        Which::Older => {}
    }
    if matches!(which, Which::New(_) | Which::Current) {
        rise.snatch = take_over(&mut new, row, state);
        let heard = new.last_seen();
        rise.moved = pay(&mut new.current, heard);
    }
    if session.user == 0 {
        rise.moved = Moved::default(); // everybody is nobody's account
    }
    rise.credited = share(rise.moved, state.factors);
    rise.seconds = seed(&mut new, state.seeded);
    new.moved = new.moved.plus(rise.moved);
    new.credited = new.credited.plus(rise.credited);
    (new, rise)
}

fn which(row: &Row, state: &State, silence: u32) -> Which {
    let life = state.known.session.life;
    let new = Which::New(state.birth.map_or(0, |birth| birth.doubt));
    if row.life == 0 {
        return new;
    }
    if !life.is_provisional() {
        return match life.0 {
            number if number > row.life => new,
            number if number == row.life => Which::Current,
            number if number.saturating_add(1) == row.life => Which::Former,
            _ => Which::Older,
        };
    }
    if let Some(birth) = state.birth.filter(|_| is_news(row, state)) {
        let silent = row.last_seen().saturating_add(silence);
        let closed = if row.closed == 0 && silent < birth.at { silent } else { row.closed };
        let doubt = birth.begins(row.current.top, closed, Paths(row.paths));
        return doubt.filter(|_| closed != 0).map_or(Which::Current, Which::New);
    }
    // The row has heard of it before, and perhaps of later things: the state is a later one, was written already, or
    // elsewhere.
    match state.birth.map_or(state.known.session.last_seen(), |birth| birth.at) {
        at if at >= row.current.began => Which::Current,
        at if row.former.began != 0 && at >= row.former.began => Which::Former,
        _ => Which::Older,
    }
}

/// The row of a session that another goat took for one that begins in the middle of its life, where it turns out where
/// that began: the goat that was told had told nobody yet.
fn begun_earlier(row: &Row, state: &State) -> Option<Row> {
    let known = &state.known;
    let birth = state.birth.filter(|birth| birth.started && birth.at <= row.current.began)?;
    // In the first life all that is not credited is what it began at.
    let base = row.current.done.above(row.moved);
    let first = row.life == 1 && row.former == LifeRow::default() && known.session.life.is_provisional();
    let before = known.session.top.max(base) == base && known.closed == 0;
    let done = row.current.done.above(base).plus(birth.base);
    let current = LifeRow { began: birth.at, done, ..row.current };
    (first && before && base != Moved::default()).then_some(Row { current, ..*row })
}

/// Whether a life that memory has begun without knowing the row began after all that the row has heard of.
fn is_news(row: &Row, state: &State) -> bool {
    state.known.session.life.is_provisional() && state.birth.is_some_and(|birth| birth.at > row.last_seen())
}

/// What the row is to have of a life that it does not know. `later`: it knows the one before.
fn begin(state: &State, doubt: u32, later: bool) -> LifeRow {
    let top = state.known.session.top;
    let done = match state.birth {
        Some(birth) => birth.base,
        // A later life begins at 0, or it would be none.
        None if later => Moved::default(),
        // Of a session whose row is gone nobody knows what was credited.
        None => top,
    };
    LifeRow { began: state.birth.map_or(state.known.session.last_seen(), |birth| birth.at), doubt, top, done }
}

/// Credits what a life has risen, unless it is in doubt at the time when something was heard of it last.
fn pay(life: &mut LifeRow, heard: u32) -> Moved {
    if life.doubt != 0 && heard.saturating_sub(life.doubt) <= DOUBT {
        return Moved::default();
    }
    let rise = life.top.above(life.done);
    life.done = life.done.max(life.top);
    rise
}

/// Takes over what a state says beside its counters, if it is a newer word than the row had before. Returns whether
/// that is a snatch.
fn take_over(new: &mut Row, before: &Row, state: &State) -> bool {
    let session = &state.known.session;
    let news = is_news(before, state);
    let announced = if news { new.announced.saturating_add(session.announced) } else { session.announced };
    let completed = news && new.announced > 0 && !new.complete && session.complete;
    let snatch = (session.snatched || completed) && !new.snatched;
    new.snatched |= snatch;
    new.complete |= session.complete;
    // A later state of a life that memory began does not know how much the row had before.
    let later = session.life.is_provisional() && (news || state.birth.is_none());
    let mine = (new.closed, new.last_seen(), if later { 0 } else { new.announced });
    if is_later((state.known.closed, session.last_seen(), announced), mine) {
        (new.left, new.seen, new.at) = (session.left, session.seen, state.known.at);
        (new.closed, new.paths, new.paused) = (state.known.closed, session.paths.0, session.paused);
    }
    new.announced = new.announced.max(announced);
    snatch
}

/// Credits the time of seeding that the member has not been credited yet. Returns the seconds.
fn seed(new: &mut Row, (from, to): (u32, u32)) -> u32 {
    let seconds = to.saturating_sub(from.max(new.seeded_until));
    // No time at all, as from one address family to the other, is no reason to count less for another client.
    if seconds > 0 {
        new.seeded_until = to;
    }
    new.seed_time = new.seed_time.saturating_add(seconds.into());
    seconds
}

/// What of the bytes moved is credited, rounded down to whole bytes.
fn share(moved: Moved, factors: Factors) -> Moved {
    let percent =
        |bytes: u64, percent: u16| u64::try_from(u128::from(bytes) * u128::from(percent) / 100).unwrap_or(u64::MAX);
    Moved { uploaded: percent(moved.uploaded, factors.upload), downloaded: percent(moved.downloaded, factors.download) }
}
