//! The rows of the books, as memory gathers them and the database keeps them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::protocol::{Addresses, Factors};
use crate::torrent::PeerId;

/// One client of one user on one torrent, apart from its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Bytes uploaded, as the client sent last.
    pub uploaded: u64,
    /// Bytes downloaded, as the client sent last.
    pub downloaded: u64,
    /// Bytes that the client still wants; 0 makes it a seeder.
    pub left: u64,
    /// When it announced last over IPv4 and over IPv6, in seconds since 1970; 0 is never.
    pub seen: [u32; 2],
    /// Whose it is; 0 is the anonymous user.
    pub user: u32,
    /// The id that the client gave itself.
    pub peer_id: PeerId,
    /// A partial seed (BEP 21).
    pub paused: bool,
    /// Has sent `completed`.
    pub completed: bool,
}

impl Session {
    /// When it announced last, in seconds since 1970.
    pub fn last_seen(&self) -> u32 {
        self.seen[0].max(self.seen[1])
    }
}

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

/// So many percent of `bytes`, rounded down to whole bytes.
fn percent(bytes: u64, percent: u16) -> u64 {
    u64::try_from(u128::from(bytes) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

/// What one transaction writes.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Its number, drawn at random below 2^63. Written with it, so that nobody writes it twice.
    pub number: u64,
    /// The [identity](super::Store::identity) of the database that it is for; 0 where that is unknown.
    #[serde(default)]
    pub database: u64,
    /// Rows of `peers`.
    pub sessions: Vec<(SessionKey, SessionRow)>,
    /// Additions to `files_users` and `users`.
    pub totals: Vec<(TotalKey, Total)>,
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

impl Batch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// How many rows it writes.
    pub fn rows(&self) -> usize {
        self.sessions.len() + self.totals.len()
    }
}
