//! How it went: the last half hour in memory, a sample every five seconds, and the last year by the hour in
//! the database. The keeper fills it, the status page draws it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use crate::metrics::Metrics;
use crate::rules::swarm::Swarms;
use crate::store::{Error, HistoryRow, Store};
use crate::sync::lock;

/// Seconds between two samples.
pub const STEP: u32 = 5;
/// Samples kept: half an hour.
const SAMPLES: usize = 361;
/// Seconds between two updates of the current hour's row.
const SAVE: u32 = 60;
/// Seconds of an hour.
pub const HOUR: u32 = 3_600;

/// Torrents and peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Torrents that an operator has approved, or that need no approval.
    pub torrents: u64,
    /// Torrents that somebody is on.
    pub active: u64,
    pub seeders: u64,
    pub leechers: u64,
}

impl Counts {
    /// Counts anew. Locks one shard after the other, each for as long as it takes to walk its torrents.
    pub fn now(swarms: &Swarms) -> Counts {
        let mut counts = Counts::default();
        for shard in swarms.each() {
            counts.torrents += shard.torrents.values().filter(|torrent| torrent.verified).count() as u64;
            for swarm in shard.torrents.values().filter_map(|torrent| torrent.swarm.as_deref()) {
                counts.active += 1;
                counts.seeders += swarm.seeders() as u64;
                counts.leechers += swarm.leechers() as u64;
            }
        }
        counts
    }
}

/// The counters at one time.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    /// Seconds since 1970.
    time: u32,
    counts: Counts,
    announces: u64,
    refused: u64,
    moved: [u64; 2],
    requests: (u64, u64),
}

/// The names of the columns of [`HistoryRow`].
pub const COLUMNS: [&str; 7] = ["time", "announces", "refused", "seeders", "leechers", "uploaded", "downloaded"];

impl Sample {
    fn since(&self, earlier: &Sample) -> HistoryRow {
        let grown = |now: u64, then: u64| now.saturating_sub(then);
        [
            u64::from(self.time),
            grown(self.announces, earlier.announces),
            grown(self.refused, earlier.refused),
            self.counts.seeders,
            self.counts.leechers,
            grown(self.moved[0], earlier.moved[0]),
            grown(self.moved[1], earlier.moved[1]),
        ]
    }
}

/// The last half hour.
#[derive(Default)]
pub struct History {
    samples: Mutex<VecDeque<Sample>>,
    /// When the hour's row was last written, and what it is to hold: all up to a sample.
    saved: Mutex<(u32, Sample, HistoryRow)>,
    clients: Mutex<(u32, Arc<Heads>)>,
}

/// How many peers there are whose ids begin with these bytes.
type Heads = HashMap<[u8; 8], u64>;
/// The most different beginnings of peer ids that are counted.
const MAX_HEADS: usize = 10_000;
/// Peers looked at under one lock: well below a millisecond.
const WALK: usize = 4_096;

impl History {
    /// Takes a sample, if it is time for one.
    pub fn tick(&self, metrics: &Metrics, swarms: &Swarms, store: &Store, now: u32) {
        let last = lock(&self.samples).back().map(|sample| sample.time);
        if last.is_some_and(|last| now < last.saturating_add(STEP)) {
            return;
        }
        let (announces, refused) = metrics.announces();
        let (counts, moved, requests) = (Counts::now(swarms), store.moved(), metrics.requests());
        let sample = Sample { time: now, counts, announces, refused, moved, requests };
        let mut samples = lock(&self.samples);
        samples.push_back(sample);
        if samples.len() > SAMPLES {
            samples.pop_front();
        }
    }

    /// Writes the row of this hour, each minute and `at_last`: all that it holds, so that nothing counts twice
    /// where the database does not say whether it was written.
    pub fn save(&self, store: &Store, now: u32, at_last: bool) -> Result<(), Error> {
        let (written, last, mut row) = *lock(&self.saved);
        let Some(sample) = lock(&self.samples).back().copied() else { return Ok(()) };
        if !at_last && now < written.saturating_add(SAVE) {
            return Ok(());
        }
        let hour = now - now % HOUR;
        if row[0] != u64::from(hour) {
            if row[0] != 0 {
                store.save_hour(&row)?;
            }
            // A run before this one may have begun it.
            let begun = store.hours(hour.saturating_sub(1))?.into_iter().find(|row| row[0] == u64::from(hour));
            row = begun.unwrap_or_default();
        }
        let [_, announces, refused, seeders, leechers, uploaded, downloaded] = sample.since(&last);
        row = [
            u64::from(hour),
            row[1].saturating_add(announces),
            row[2].saturating_add(refused),
            seeders,
            leechers,
            row[5].saturating_add(uploaded),
            row[6].saturating_add(downloaded),
        ];
        *lock(&self.saved) = (written, sample, row);
        store.save_hour(&row)?;
        lock(&self.saved).0 = now;
        Ok(())
    }

    /// Torrents and peers at the last sample.
    pub fn counts(&self) -> Counts {
        lock(&self.samples).back().map(|sample| sample.counts).unwrap_or_default()
    }

    /// Requests over HTTP (and HTTPS) and over UDP that had come a minute ago.
    pub fn requests_a_minute_ago(&self, now: u32) -> (u64, u64) {
        let samples = lock(&self.samples);
        let before = samples.iter().rev().find(|sample| sample.time.saturating_add(60) <= now);
        before.map(|sample| sample.requests).unwrap_or_default()
    }

    /// What happened in each step that ended after `after`, in order.
    pub fn rows(&self, after: u32) -> Vec<HistoryRow> {
        let samples = lock(&self.samples);
        let pairs = samples.iter().zip(samples.iter().skip(1));
        pairs.filter(|(_, now)| now.time > after).map(|(then, now)| now.since(then)).collect()
    }

    /// Peers by the beginnings of their ids, counted at most once a minute.
    pub fn peers_by_client(&self, swarms: &Swarms, now: u32) -> Arc<Heads> {
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
            let Some(swarm) = shard.torrents.get(&hash).and_then(|torrent| torrent.swarm.as_deref()) else { break };
            for (session, _) in (from..swarm.len().min(from + WALK)).filter_map(|slot| swarm.get(slot)) {
                let head = session.peer_id.0.first_chunk().copied().unwrap_or_default();
                if heads.len() < MAX_HEADS || heads.contains_key(&head) {
                    *heads.entry(head).or_default() += 1;
                }
            }
            if from + WALK >= swarm.len() {
                break;
            }
        }
    }
    heads
}
