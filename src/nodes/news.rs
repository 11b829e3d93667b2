//! What is made of what other goats say: of their records, and of what the database knows where some were missed.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use crate::books::journal::{RECORD, decode};
use crate::books::session::LATE;
use crate::books::{Known, SessionKey, State};
use crate::rules::announce::silence;
use crate::rules::heard::take_over;
use crate::store::Error;
use crate::torrent::InfoHash;
use crate::tracker::Tracker;

/// The most members and torrents that are looked up for one entry: what is missed is in the next change that is
/// followed, or in the next announce.
const LOOKS: usize = 200;

/// The torrents by the numbers that records have.
pub struct Torrents(HashMap<u32, InfoHash>);

impl Torrents {
    /// Those that memory knows.
    pub fn of(tracker: &Tracker) -> Torrents {
        let mut known = HashMap::new();
        for shard in tracker.swarms.each() {
            known.extend(shard.torrents.iter().map(|(hash, torrent)| (torrent.id, *hash)));
        }
        Torrents(known)
    }

    /// Takes over the records of another goat; returns how many there were. A member or torrent that is new to memory
    /// is looked up in the database.
    pub fn hear(&mut self, tracker: &Tracker, records: &[u8]) -> u64 {
        let (now, mut looks, mut heard) = (tracker.clock.now(), LOOKS, 0);
        for (_, key, state) in records.chunks_exact(RECORD).filter_map(decode) {
            heard += 1;
            let mut may_look = || {
                let may = looks > 0 && tracker.metrics.database_up.load(Relaxed);
                looks -= usize::from(may);
                may
            };
            let known = self.0.get(&key.file).copied();
            let hash = known.or_else(|| if may_look() { self.look_up(tracker, key.file) } else { None });
            if let Some(hash) = hash
                && !self.merge(tracker, &hash, &key, &state, now)
                && may_look()
                && tracker.look_up_user(|| tracker.store.user_by_id(key.user))
            {
                self.merge(tracker, &hash, &key, &state, now);
            }
        }
        heard
    }

    fn look_up(&mut self, tracker: &Tracker, id: u32) -> Option<InfoHash> {
        let changes = tracker.access.changes();
        let file = tracker.store.file_by_id(id).ok()??;
        tracker.learn_torrent(&file, Some(changes));
        self.0.insert(id, file.info_hash);
        Some(file.info_hash)
    }

    /// Returns false where the member is not known here.
    fn merge(&self, tracker: &Tracker, hash: &InfoHash, key: &SessionKey, state: &State, now: u32) -> bool {
        let mut shard = tracker.swarms.shard(hash);
        take_over(&tracker.config, &tracker.access, &mut shard, hash, key, state, now)
    }

    /// Takes over what the database knows of sessions that were heard of since a time in seconds since 1970.
    pub fn read(&mut self, tracker: &Tracker, since: u32) -> Result<(), Error> {
        *self = Torrents::of(tracker);
        let now = tracker.clock.now();
        let since = since.max(now.saturating_sub(silence(&tracker.config)));
        tracker.store.sessions(now.saturating_sub(LATE), since, |key, row| {
            let (file, user, peer_id) = key;
            let state = State { known: Known::of(key, &row), ..State::default() };
            if let Some(hash) = self.0.get(&file) {
                self.merge(tracker, hash, &SessionKey { file, user, peer_id }, &state, now);
            }
        })
    }
}
