//! What is made of what other goats say: their records, their failures, and what the database knows where some of that
//! was missed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;

use super::Status;
use crate::books::journal::{RECORD, decode};
use crate::books::session::LATE;
use crate::books::{Known, SessionKey, State};
use crate::protocol::Factors;
use crate::rules::announce::silence;
use crate::rules::heard::take_over;
use crate::rules::limits::Failure;
use crate::store::Error;
use crate::torrent::InfoHash;
use crate::tracker::Tracker;

/// The most members and torrents that are looked up for one entry: what is missed is in the next change that is
/// followed, or in the next announce.
const LOOKS: usize = 200;
/// Seconds by which the clocks of nodes may be apart.
const APART: u32 = 10;

/// An entry of the stream.
#[derive(Default)]
pub struct Entry {
    pub sequence: u64,
    pub status: Status,
    pub failures: String,
    pub records: Vec<u8>,
}

/// Failures as an entry has them.
pub fn word(failures: &[(Failure, IpAddr)]) -> String {
    let word = |(what, ip): &(Failure, IpAddr)| format!("{}{ip} ", if *what == Failure::Passkey { 'p' } else { 'l' });
    failures.iter().map(word).collect()
}

/// Counts the failures of an entry.
pub fn count(tracker: &Tracker, failures: &str) {
    let now = tracker.clock.now();
    for word in failures.split_ascii_whitespace() {
        let what = if word.starts_with('p') { Failure::Passkey } else { Failure::Login };
        word.get(1..).and_then(|ip| ip.parse().ok()).into_iter().for_each(|ip| tracker.limits.count(what, ip, now));
    }
}

/// The torrents by the numbers that records have.
#[derive(Default)]
pub struct Torrents(HashMap<u32, InfoHash>);

impl Torrents {
    /// Reads what memory knows.
    pub fn refresh(&mut self, tracker: &Tracker) {
        self.0.clear();
        for shard in tracker.swarms.each() {
            self.0.extend(shard.torrents.iter().map(|(hash, torrent)| (torrent.id, *hash)));
        }
    }

    /// A torrent, which is looked up in the database where nobody knows it, if there is a look left.
    fn find(&mut self, tracker: &Tracker, id: u32, looks: &mut usize) -> Option<InfoHash> {
        if let Some(hash) = self.0.get(&id) {
            return Some(*hash);
        }
        *looks = looks.checked_sub(1).filter(|_| tracker.metrics.database_up.load(Relaxed))?;
        let changes = tracker.access.changes();
        let file = tracker.store.file_by_id(id).ok()??;
        tracker.learn_torrent(&file, changes);
        self.0.insert(id, file.info_hash);
        Some(file.info_hash)
    }

    /// Takes over the records of another goat; returns how many there were.
    pub fn hear(&mut self, tracker: &Tracker, records: &[u8]) -> u64 {
        let (now, mut looks, mut heard) = (tracker.clock.now(), LOOKS, 0);
        for record in records.chunks_exact(RECORD) {
            let Some((_, key, state)) = decode(record) else { continue };
            heard += 1;
            if key.user != 0
                && looks > 0
                && tracker.access.by_id(key.user).is_none()
                && tracker.metrics.database_up.load(Relaxed)
            {
                looks -= 1;
                let changes = tracker.access.changes();
                if let Ok(Some(user)) = tracker.store.user_by_id(key.user) {
                    tracker.access.learn_user(user.into(), changes);
                }
            }
            if let Some(hash) = self.find(tracker, key.file, &mut looks) {
                self.merge(tracker, &hash, &key, state, now);
            }
        }
        heard
    }

    fn merge(&self, tracker: &Tracker, hash: &InfoHash, key: &SessionKey, state: State, now: u32) {
        let mut shard = tracker.swarms.shard(hash);
        take_over(&tracker.config, &tracker.access, &mut shard, hash, key, state, now);
    }

    /// Takes over what the database knows of sessions that were heard of since a time in seconds since 1970.
    pub fn read(&mut self, tracker: &Tracker, since: u32) -> Result<(), Error> {
        self.refresh(tracker);
        let now = tracker.clock.now();
        let since = since.max(now.saturating_sub(silence(&tracker.config)));
        tracker.store.sessions(now.saturating_sub(LATE), since, |key, row| {
            let (file, user, peer_id) = key;
            let known = Known::of(key, &row);
            let state = State { known, birth: None, seeded: (0, 0), factors: Factors::default() };
            if let Some(hash) = self.0.get(&file) {
                self.merge(tracker, hash, &SessionKey { file, user, peer_id }, state, now);
            }
        })
    }
}

/// Forgets what was kept of other goats' states and is written by all of them: `written` is since when by the slowest.
pub fn forget(tracker: &Tracker, written: u32) {
    let kept = tracker.clock.now().saturating_sub(silence(&tracker.config));
    let before = written.saturating_sub(APART).max(kept);
    tracker.swarms.each().for_each(|mut shard| shard.ledger.forget_heard(before));
}
