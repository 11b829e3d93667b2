//! How it went: the last half hour in memory, a sample every five seconds, and in the database by the minute, and
//! the last year by the hour. The keeper fills it, the status page draws it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use serde::Serialize;

use crate::metrics::Metrics;
use crate::rules::swarm::Swarms;
use crate::store::{Error, HistoryRow, Kind, Store};
use crate::sync::lock;

/// Seconds between two samples.
pub(crate) const STEP: u32 = 5;
/// Samples kept: half an hour.
const SAMPLES: usize = 361;
const HALF_HOUR: u32 = 1_800;
/// How often it is written down, in seconds: in each minute once, so that the rows of several goats add up.
const SAVE: u32 = 60;
pub(crate) const HOUR: u32 = 3_600;

/// Torrents and peers at one time, and what was counted from the start until then.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sample {
    /// Seconds since 1970.
    pub time: u32,
    /// Those that an operator has approved, or that need no approval, and those that somebody is on.
    pub torrents: u64,
    pub active_torrents: u64,
    pub seeders: u64,
    pub leechers: u64,
    /// Announces answered, and announces and scrapes refused.
    pub announces: u64,
    pub refused: u64,
    /// Bytes that were written into the books.
    pub uploaded: u64,
    pub downloaded: u64,
    #[serde(skip)]
    pub http: u64,
    #[serde(skip)]
    pub udp: u64,
}

impl Sample {
    /// What was counted, with the torrents and peers of another sample.
    fn counted(self, metrics: &Metrics, store: &Store, time: u32) -> Sample {
        let (announces, refused) = metrics.announces();
        let [uploaded, downloaded] = store.moved();
        let (http, udp) = metrics.totals();
        Sample { time, announces, refused, uploaded, downloaded, http, udp, ..self }
    }

    /// Counts torrents and peers. Locks one shard after the other, each for as long as it takes to walk its torrents.
    fn walk(swarms: &Swarms) -> Sample {
        let mut sample = Sample::default();
        for shard in swarms.each() {
            sample.torrents += shard.torrents.values().filter(|torrent| torrent.verified).count() as u64;
            for swarm in shard.torrents.values().filter_map(|torrent| torrent.swarm.as_deref()) {
                sample.active_torrents += 1;
                sample.seeders += swarm.seeders() as u64;
                sample.leechers += swarm.leechers() as u64;
            }
        }
        sample
    }

    fn since(&self, earlier: &Sample) -> HistoryRow {
        [
            self.time.into(),
            self.announces.saturating_sub(earlier.announces),
            self.refused.saturating_sub(earlier.refused),
            self.seeders,
            self.leechers,
            // These may be anything that clients claim.
            self.uploaded.wrapping_sub(earlier.uploaded),
            self.downloaded.wrapping_sub(earlier.downloaded),
        ]
    }
}

#[derive(Default)]
pub(crate) struct History {
    /// The minutes of earlier runs.
    earlier: Vec<HistoryRow>,
    samples: Mutex<VecDeque<Sample>>,
    /// Up to here the database holds what happened.
    saved: Mutex<Sample>,
    clients: Mutex<(u32, Arc<Heads>)>,
}

/// How many peers there are whose ids begin with these bytes.
type Heads = HashMap<[u8; 8], u64>;
const MAX_HEADS: usize = 10_000;
/// Peers looked at under one lock: well below a millisecond.
const WALK: usize = 4_096;

impl History {
    pub(crate) fn load(store: &Store, now: u32) -> Result<History, Error> {
        let earlier = store.history("minutes", now.saturating_sub(HALF_HOUR), now)?;
        Ok(History { earlier, ..History::default() })
    }

    pub(crate) fn tick(&self, metrics: &Metrics, swarms: &Swarms, store: &Store, now: u32) {
        if lock(&self.samples).back().is_some_and(|last| now < last.time.saturating_add(STEP)) {
            return;
        }
        let sample = Sample::walk(swarms).counted(metrics, store, now);
        let mut samples = lock(&self.samples);
        samples.push_back(sample);
        if samples.len() > SAMPLES {
            samples.pop_front();
        }
    }

    /// Writes down what happened, if it is time for that or for the last time.
    pub(crate) fn save(&self, metrics: &Metrics, store: &Store, now: u32, at_last: bool) -> Result<(), Error> {
        let saved = *lock(&self.saved);
        let last = lock(&self.samples).back().copied().filter(|_| at_last || now / SAVE != saved.time / SAVE);
        let Some(last) = last else { return Ok(()) };
        let sample = last.counted(metrics, store, now);
        let done = store.add_to_history(&sample.since(&saved));
        // What may have been written is not written again: nothing shall count twice.
        if done.as_ref().err().is_none_or(|e| e.kind == Kind::Unsure) {
            *lock(&self.saved) = sample;
        }
        done
    }

    /// What is counted now, with the torrents and peers of the last sample; and the sample of a minute ago.
    pub(crate) fn now(&self, metrics: &Metrics, store: &Store, now: u32) -> (Sample, Sample) {
        let samples = lock(&self.samples);
        let before = samples.iter().rev().find(|sample| sample.time.saturating_add(60) <= now);
        let last = samples.back().copied().unwrap_or_default();
        (last.counted(metrics, store, now), before.copied().unwrap_or_default())
    }

    /// What happened in each minute of earlier runs and in each step that ended after `after`, in order.
    pub(crate) fn rows(&self, after: u32) -> Vec<HistoryRow> {
        let samples = lock(&self.samples);
        let since = samples.back().map_or(0, |last| last.time.saturating_sub(HALF_HOUR)).max(after);
        let steps = samples.iter().zip(samples.iter().skip(1)).map(|(then, now)| now.since(then));
        self.earlier.iter().copied().chain(steps).filter(|row| row[0] > since.into()).collect()
    }

    /// Peers by the beginnings of their ids, counted at most once a minute.
    pub(crate) fn peers_by_client(&self, swarms: &Swarms, now: u32) -> Arc<Heads> {
        // One at a time: who comes meanwhile waits for the same numbers.
        let mut kept = lock(&self.clients);
        if kept.0 == 0 || now >= kept.0.saturating_add(60) {
            *kept = (now, Arc::new(heads(swarms)));
        }
        kept.1.clone()
    }
}

/// Counts peers by the beginnings of their ids. A large swarm is walked in parts, its lock given back
/// between them; a peer that moves meanwhile may be missed.
fn heads(swarms: &Swarms) -> Heads {
    let (mut heads, mut hashes) = (Heads::new(), Vec::new());
    for shard in swarms.each() {
        hashes.extend(shard.torrents.iter().filter(|(_, torrent)| torrent.swarm.is_some()).map(|(hash, _)| *hash));
    }
    for hash in hashes {
        for from in (0..).step_by(WALK) {
            let shard = swarms.shard(&hash);
            let swarm = shard.torrents.get(&hash).and_then(|torrent| torrent.swarm.as_deref());
            let Some(swarm) = swarm.filter(|swarm| from < swarm.len()) else { break };
            for (session, _) in (from..swarm.len().min(from + WALK)).filter_map(|slot| swarm.get(slot)) {
                let head = session.peer_id.0.first_chunk().copied().unwrap_or_default();
                if heads.len() < MAX_HEADS || heads.contains_key(&head) {
                    *heads.entry(head).or_default() += 1;
                }
            }
        }
    }
    heads
}
