//! What memory knows and the database does not yet. Each shard has a ledger, filled while announces are
//! answered; once a second the keeper takes all of them as one batch, which the store writes in one
//! transaction.
//!
//! A row that changes again before it is written stays one row, so that a ledger is bounded by the number
//! of sessions and their addresses, however long the database is away.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::books::journal::{Entry, Journal};
use crate::rules::swarm::{Addresses, Session};
use crate::torrent::PeerId;

/// What makes a session: (torrent, user, peer_id).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionKey {
    /// `files.id` of the torrent.
    pub file: u32,
    /// `users.id`, or 0.
    pub user: u32,
    /// The client's own id.
    pub peer_id: PeerId,
}

/// A row of `peers` as it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The counters and flags of the last announce.
    pub session: Session,
    /// Where it can be reached.
    pub at: Addresses,
    /// Whether it is in the swarm.
    pub active: bool,
    /// Set where memory did not know the session when it came.
    pub first: Option<First>,
}

/// The first announce of a session that memory does not know. Whether the database knows it, and so what
/// is to be credited, is found out when the batch is written: an announce never waits for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct First {
    /// Its event was `started`.
    pub started: bool,
    /// Bytes uploaded, as sent.
    pub uploaded: u64,
    /// Bytes downloaded, as sent.
    pub downloaded: u64,
    /// Where it came from.
    pub ip: IpAddr,
    /// Those of the torrent.
    pub factors: Factors,
}

/// What makes a row of `files_users`: (torrent, user, IP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TotalKey {
    /// `files.id` of the torrent.
    pub file: u32,
    /// `users.id`, or 0.
    pub user: u32,
    /// The address announced from.
    pub ip: IpAddr,
}

/// What is to be added to a row of `files_users`, and the state of its last announce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// Bytes that moved, to add.
    pub uploaded: u64,
    /// Bytes that moved, to add.
    pub downloaded: u64,
    /// What of them is credited to the user, to add.
    pub credited_uploaded: u64,
    /// What of them is credited to the user, to add.
    pub credited_downloaded: u64,
    /// Seconds of seeding to add.
    pub seed_time: u64,
    /// Bytes that the last announce still wanted.
    pub left: u64,
    /// Announces to add.
    pub announced: u32,
    /// The last announce, in seconds since 1970.
    pub time: u32,
    /// A session of this user is in the swarm from this address.
    pub active: bool,
    /// The download was completed.
    pub completed: bool,
}

impl Total {
    /// Adds bytes, (uploaded, downloaded), that moved.
    pub fn add(&mut self, moved: (u64, u64), factors: Factors) {
        self.uploaded = self.uploaded.saturating_add(moved.0);
        self.downloaded = self.downloaded.saturating_add(moved.1);
        self.credited_uploaded = self.credited_uploaded.saturating_add(percent(moved.0, factors.upload));
        self.credited_downloaded = self.credited_downloaded.saturating_add(percent(moved.1, factors.download));
    }
}

/// What of the bytes moved of a torrent is credited, in percent. 0 for downloads is "freeleech".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Factors {
    /// Of bytes uploaded.
    pub upload: u16,
    /// Of bytes downloaded.
    pub download: u16,
}

impl Default for Factors {
    fn default() -> Factors {
        Factors { upload: 100, download: 100 }
    }
}

/// So many percent of `bytes`, rounded down to whole bytes.
fn percent(bytes: u64, percent: u16) -> u64 {
    u64::try_from(u128::from(bytes) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

/// Everything unwritten of one shard.
#[derive(Default)]
pub struct Ledger {
    sessions: HashMap<SessionKey, SessionRow>,
    totals: HashMap<TotalKey, Total>,
    /// What keeps it through a kill, and the segment of its batch there. Absent where rules are tested alone.
    journal: Option<Arc<Journal>>,
    segment: usize,
}

impl Ledger {
    /// From now on keeps what is noted in a journal too.
    pub fn keep_in(&mut self, journal: &Arc<Journal>) {
        (self.journal, self.segment) = (Some(journal.clone()), journal.current());
    }

    /// Keeps what a change has left.
    pub fn keep(&self, entry: &Entry) {
        if let Some(journal) = &self.journal {
            journal.append(self.segment, entry);
        }
    }

    /// Keeps everything once more, in the current segment of the journal.
    pub fn keep_all(&mut self) {
        self.segment = self.journal.as_ref().map_or(0, |journal| journal.current());
        self.sessions.iter().for_each(|(key, row)| self.keep(&(Some((*key, *row)), None)));
        self.totals.iter().for_each(|(key, total)| self.keep(&(None, Some((*key, *total)))));
    }

    /// An unwritten session: it may have left the swarm already.
    pub fn session(&self, key: &SessionKey) -> Option<(Session, Addresses)> {
        self.sessions.get(key).map(|row| (row.session, row.at))
    }

    /// Notes the state of a session, and returns it as it is to be written.
    pub fn note(&mut self, file: u32, mut row: SessionRow) -> (SessionKey, SessionRow) {
        let key = SessionKey { file, user: row.session.user, peer_id: row.session.peer_id };
        let unwritten = self.sessions.entry(key).or_insert(row);
        row.first = unwritten.first;
        *unwritten = row;
        (key, row)
    }

    /// The total to which an announce adds.
    pub fn total(&mut self, key: TotalKey) -> &mut Total {
        self.totals.entry(key).or_default()
    }

    /// How many rows are unwritten.
    pub fn rows(&self) -> usize {
        self.sessions.len() + self.totals.len()
    }

    /// Leaves an empty ledger with room for as much again, which is of the journal's current segment.
    pub fn take(&mut self) -> Ledger {
        let room = |len: usize| len.min(1 << 16);
        let empty = Ledger {
            sessions: HashMap::with_capacity(room(self.sessions.len())),
            totals: HashMap::with_capacity(room(self.totals.len())),
            segment: self.journal.as_ref().map_or(0, |journal| journal.current()),
            journal: self.journal.clone(),
        };
        std::mem::replace(self, empty)
    }
}

/// What one transaction writes.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Its number, drawn at random below 2^63. Written with it, so that nobody writes it twice.
    pub number: u64,
    /// The [identity](crate::store::Store::identity) of the database that it is for; 0 where that is unknown.
    #[serde(default)]
    pub database: u64,
    /// Rows of `peers`.
    pub sessions: Vec<(SessionKey, SessionRow)>,
    /// Additions to `files_users` and `users`.
    pub totals: Vec<(TotalKey, Total)>,
}

impl Batch {
    /// Adds all of a ledger.
    pub fn add(&mut self, ledger: Ledger) {
        self.sessions.extend(ledger.sessions);
        self.totals.extend(ledger.totals);
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// How many rows it writes.
    pub fn rows(&self) -> usize {
        self.sessions.len() + self.totals.len()
    }
}

/// What a session has moved and is to be credited for, (uploaded, downloaded) in bytes.
///
/// `last` are the counters known of it. A counter that fell was started anew by the client. A session
/// unknown so far is credited only if it says that it has just begun; else its counters are the baseline.
pub fn credit(last: Option<(u64, u64)>, started: bool, now: (u64, u64)) -> (u64, u64) {
    let grown = |last: u64, now: u64| now.checked_sub(last).unwrap_or(now);
    match last {
        Some(last) => (grown(last.0, now.0), grown(last.1, now.1)),
        None if started => now,
        None => (0, 0),
    }
}
