//! What a session is, and what an announce makes of it: the lives of a client, by the table in docs/reference.md, "Accounts".
//!
//! Memory keeps states, never debts. A session has lives; of a life the highest counters ever announced are
//! kept. Which life an announce belongs to is decided here, by plain functions without a clock; what a life is
//! worth is decided by [`credit`](super::credit) when it is written.

use std::net::IpAddr;

use crate::protocol::{Addresses, Announce, Event, Factors, Moved};
use crate::store::sessions::{Key, Row};
use crate::torrent::PeerId;

/// Seconds after a close within which a fall of the counters may be an announce that comes late.
pub const LATE: u32 = 600;
/// Seconds after a close within which only `started` brings a session back, over a path on which it was open.
const BACK: u32 = 60;
/// Marks the number of a life that memory has begun without knowing what the database has of the session. The
/// row gives it its number when it is written.
const PROVISIONAL: u32 = 1 << 31;

/// Seconds by which the clocks of two goats are apart at most, or else which of their words is the later is left to them.
const APART: u32 = 5;

/// The database's numbers end here, and nobody moves that many bytes.
const MOST: Moved = Moved { uploaded: i64::MAX as u64, downloaded: i64::MAX as u64 };

/// What makes a session: (torrent, user, peer_id).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// `files.id` of the torrent.
    pub file: u32,
    /// `users.id`, or 0.
    pub user: u32,
    pub peer_id: PeerId,
}

/// The lives of a session are numbered from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Life(pub u32);

impl Life {
    /// Whether only the row can tell which life this is.
    pub fn is_provisional(self) -> bool {
        self.0 & PROVISIONAL != 0
    }

    pub(super) fn next(self) -> Life {
        Life(self.0.saturating_add(1))
    }
}

/// The ways on which announces come, as a set: address family, and TCP or UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Paths(pub u8);

impl Paths {
    pub fn of(ip: IpAddr, udp: bool) -> Paths {
        Paths(1 << (u8::from(ip.is_ipv6()) | u8::from(udp) << 1))
    }

    /// Kept beside the paths: the life began in doubt.
    const IN_DOUBT: Paths = Paths(1 << 4);

    fn contains(self, path: Paths) -> bool {
        self.0 & path.0 != 0
    }

    pub(super) fn with(self, path: Paths) -> Paths {
        Paths(self.0 | path.0)
    }

    /// What is left of them when a session of the same life opens again over one.
    fn reopened(self, path: Paths) -> Paths {
        Paths(self.0 & Paths::IN_DOUBT.0).with(path)
    }
}

/// One client of one user on one torrent, apart from its addresses. Kept small: there may be a million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The highest counters announced in this life.
    pub top: Moved,
    /// Bytes that the client still wants; 0 makes it a seeder.
    pub left: u64,
    /// When it announced last over IPv4 and over IPv6, in seconds since 1970; 0 is never.
    pub seen: [u32; 2],
    /// 0 is the anonymous user.
    pub user: u32,
    pub life: Life,
    /// When this life began, in seconds since 1970.
    pub began: u32,
    /// Since when it has seeded by the word of another goat, which may not have written that; 0: it has not.
    pub seeds: u32,
    pub announced: u32,
    pub peer_id: PeerId,
    /// The paths that announced since it opened, and whether its life began in doubt.
    pub paths: Paths,
    /// A partial seed (BEP 21).
    pub paused: bool,
    /// Has reported `left` = 0.
    pub complete: bool,
    /// Became complete by downloading.
    pub snatched: bool,
}

impl Session {
    /// When it announced last, in seconds since 1970.
    pub fn last_seen(&self) -> u32 {
        self.seen[0].max(self.seen[1])
    }
}

/// A session with its addresses, open or closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub session: Session,
    pub at: Addresses,
    /// When it was closed, in seconds since 1970; 0 while it is open.
    pub closed: u32,
}

/// How a life began. Memory forgets it once the row has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Birth {
    pub at: u32,
    /// What of the counters is not credited.
    pub base: Moved,
    /// The close after which the life is in doubt, in seconds since 1970; 0: it is not.
    pub doubt: u32,
    /// The announce that began it, for the row to judge where memory did not know the session.
    pub first: Moved,
    pub started: bool,
    pub path: Paths,
}

/// What is to be written of a session. To write it twice, or late, changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub known: Known,
    /// Absent in later states of a life.
    pub birth: Option<Birth>,
    /// The time that it seeded and that may not be written yet, from and to, in seconds since 1970.
    pub seeded: (u32, u32),
    /// Those of the torrent.
    pub factors: Factors,
}

impl Birth {
    /// The better of two words on how a life began: who was told that knows better than who heard of the life in the
    /// middle.
    pub fn better(&self, other: &Birth) -> Birth {
        if other.started && !self.started && other.at <= self.at { *other } else { *self }
    }

    /// Whether a closed session begins a new life so, and then the close that puts it in doubt (0: none).
    pub fn begins(&self, top: Moved, closed: u32, paths: Paths) -> Option<u32> {
        if !self.started || self.first.max(top) == self.first {
            None
        } else if self.at.saturating_sub(closed) > LATE {
            Some(0)
        } else {
            (self.first == Moved::default() && paths.contains(self.path)).then_some(closed)
        }
    }
}

impl State {
    /// Takes over from an earlier state of the same life what only that one knows.
    pub fn follow(&mut self, earlier: &State) {
        self.birth = self.birth.or(earlier.birth);
        // What moved until then was promised those.
        self.factors = self.factors.better(earlier.factors);
        self.known.session.snatched |= earlier.known.session.snatched;
        let ((from, to), (start, end)) = (earlier.seeded, self.seeded);
        self.seeded = if start <= to && from <= end {
            (from.min(start), end.max(to))
        } else {
            // Of times that lie apart the longer: to move them together would be to count twice what another client
            // of the member seeded as well.
            if to.saturating_sub(from) > end.saturating_sub(start) { earlier.seeded } else { self.seeded }
        };
    }
}

/// When something was said of a session and how often it had announced: (closed, last seen, announced).
pub type Word = (u32, u32, u32);

/// Whether a word on a session is not older than another. Of two goats that did not know of each other's, the one that
/// heard that it is over is right, though its clock may be behind.
pub fn is_later(word: Word, other: Word) -> bool {
    let [(mine, said), (theirs, heard)] = [word, other].map(|(closed, seen, said)| (closed.max(seen), said));
    let close = mine.abs_diff(theirs) <= APART;
    match (word.0 != 0, other.0 != 0) {
        (true, false) if close && said >= heard => true,
        (false, true) if close && said <= heard => false,
        _ => (mine, said) >= (theirs, heard),
    }
}

/// What a session is after an announce. `silence` is how many seconds of silence close a session.
pub fn hear(known: Option<&Known>, user: u32, a: &Announce, now: u32, silence: u32) -> State {
    let path = Paths::of(a.ip, a.udp);
    let counters = Moved { uploaded: a.uploaded, downloaded: a.downloaded }.min(MOST);
    let (started, stopped) = (a.event == Event::Started, a.event == Event::Stopped);
    let base = if started { Moved::default() } else { counters };
    let mut birth = Birth { at: now, base, doubt: 0, first: counters, started, path };
    let Some(before) = known else {
        return State { known: unknown(user, a, &birth), birth: Some(birth), ..State::default() };
    };
    let mut next = *before;
    let last = before.session.last_seen();
    if next.closed == 0 && last.saturating_add(silence) < now {
        next.closed = last.saturating_add(silence);
    }
    let since = if before.session.seeds == 0 { last } else { before.session.seeds };
    let seeded = if next.closed == 0 && before.session.left == 0 { (since, now.max(last)) } else { (0, 0) };
    next.session.seeds = 0;
    next.session.announced = next.session.announced.saturating_add(1);
    if next.closed == 0 {
        next.stay(a, counters, path, now);
        return State { known: next, seeded, ..State::default() };
    }
    let top = next.session.top;
    let doubt = birth.begins(top, next.closed, next.session.paths);
    let late = doubt.is_none() && top.max(counters) != counters;
    if !late {
        next.session.top = counters;
    }
    if let Some(doubt) = doubt {
        // One life may end and the next begin within a second: the row tells by the time which came first.
        (birth.at, birth.doubt) = (now.max(last.saturating_add(1)), doubt);
        (next.session.life, next.session.began) = (next.session.life.next(), birth.at);
        if next.session.life.is_provisional() {
            next.session.announced = 1; // each is added to what the row has
        }
        next.session.paths = if doubt == 0 { Paths::default() } else { Paths::IN_DOUBT };
    }
    // Who has left may have said `started` before, over a path that is slower.
    let returns = started && !late && next.session.paths.contains(path) || doubt.is_some();
    if !stopped && (returns || now.saturating_sub(next.closed) > BACK) {
        next.session.paths = next.session.paths.reopened(path);
        (next.closed, next.session.seen, next.at) = (0, [0, 0], Addresses::NONE);
    }
    if next.closed == 0 || !late {
        next.say(a, birth.at);
    }
    State { known: next, birth: doubt.map(|_| birth), ..State::default() }
}

/// A session of which nothing was known before this announce.
fn unknown(user: u32, a: &Announce, birth: &Birth) -> Known {
    let session = Session {
        top: birth.first,
        user,
        life: Life(PROVISIONAL | 1),
        began: birth.at,
        announced: 1,
        peer_id: a.peer_id,
        paths: birth.path,
        // One that was leeching somewhere where goat did not hear it.
        snatched: a.event == Event::Completed && a.left == 0 && a.downloaded > 0,
        ..Session::default()
    };
    let closed = if a.event == Event::Stopped { birth.at } else { 0 };
    let mut known = Known { session, closed, ..Known::default() };
    known.say(a, birth.at);
    known
}

impl Known {
    pub fn of((_, user, peer_id): Key, row: &Row) -> Known {
        let session = Session {
            top: row.current.top,
            left: row.left,
            seen: row.seen,
            user,
            life: Life(row.life),
            began: row.current.began,
            seeds: 0,
            announced: row.announced,
            peer_id,
            paths: Paths(row.paths),
            paused: row.paused,
            complete: row.complete,
            snatched: row.snatched,
        };
        Known { session, at: row.at, closed: row.closed }
    }

    /// Takes over an announce of a session that is open.
    fn stay(&mut self, a: &Announce, counters: Moved, path: Paths, now: u32) {
        let (session, event) = (&mut self.session, a.event);
        let known = session.paths.contains(path);
        let young = session.paths.contains(Paths::IN_DOUBT) && now.saturating_sub(session.began) <= LATE;
        if young && event != Event::Started && !known {
            // It may be of the life before, over a path that is slower: its counters would be credited once more.
            return;
        }
        session.top = session.top.max(counters);
        if event != Event::Stopped {
            session.paths = session.paths.with(path);
        } else if known {
            self.closed = now;
        } else {
            return; // an old one: only its counters count
        }
        self.say(a, now);
    }

    /// Takes over what an announce says beside its counters.
    fn say(&mut self, a: &Announce, now: u32) {
        let session = &mut self.session;
        session.snatched |= session.announced > 1 && !session.complete && a.left == 0;
        session.complete |= a.left == 0;
        session.left = a.left.min(MOST.uploaded);
        session.paused = a.event == Event::Paused && a.left > 0;
        // A clock that was set back before a restart does not make it the older word.
        let now = now.max(session.last_seen());
        let [v4, v6] = &mut session.seen;
        *(if a.ip.is_ipv6() { v6 } else { v4 }) = now;
        self.at.set(a.ip, a.port);
    }
}
