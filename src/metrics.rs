//! What is counted while the tracker runs.
//!
//! Counting must cost an announce next to nothing: each thread adds to a slot of its own, so that no two
//! processors write the same cache line, and who reads adds the slots up.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::protocol::{Event, Refusal};
use crate::sync::lock;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Http,
    Https,
    Udp,
}

pub(crate) const LISTENERS: [&str; 3] = ["http", "https", "udp"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Announce(Event),
    /// It was refused before that was read.
    Unknown,
    Scrape,
}

/// The words for what was [`Asked`]: the [`Event`]s in their order, and the others.
pub(crate) const EVENTS: [&str; 7] = ["none", "started", "stopped", "completed", "paused", "unknown", "scrape"];

impl Asked {
    fn event(self) -> usize {
        match self {
            Asked::Announce(event) => event as usize,
            Asked::Unknown => 5,
            Asked::Scrape => 6,
        }
    }
}

/// The words for what became of it: an answer, or why there was none.
pub(crate) const RESULTS: [&str; 11] = [
    "answered",
    "malformed",
    "no_user_agent",
    "client_not_whitelisted",
    "no_passkey",
    "invalid_passkey",
    "invalid_parameter",
    "unregistered_torrent",
    "unverified_torrent",
    "torrent_limit",
    "slow_down",
];

fn result(refusal: Option<&Refusal>) -> usize {
    match refusal {
        None => 0,
        Some(Refusal::Malformed) => 1,
        Some(Refusal::NoAgent) => 2,
        Some(Refusal::NotWhitelisted) => 3,
        Some(Refusal::NoPasskey) => 4,
        Some(Refusal::Banned | Refusal::UnknownPasskey) => 5,
        Some(Refusal::Missing(_) | Refusal::Integer(_) | Refusal::Parameter(_) | Refusal::TooMany) => 6,
        Some(Refusal::Unregistered) => 7,
        Some(Refusal::Unverified) => 8,
        Some(Refusal::Limit { .. }) => 9,
        Some(Refusal::SlowDown) => 10,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Datagram {
    Connect,
    Answered,
    Refused,
    InvalidId,
    /// It was no request: it got no answer.
    Ignored,
    /// Too many waited for the database: it got no answer.
    Dropped,
}

pub(crate) const DATAGRAMS: [&str; 6] = ["connect", "answered", "refused", "invalid_id", "ignored", "dropped"];

/// How long something took: how often at most so many nanoseconds, and the sum.
struct Histogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// How long something may take to be counted in each place, in nanoseconds; what takes longer is in one more.
pub(crate) const BOUNDS: [u64; 14] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
];

impl Histogram {
    const fn new() -> Histogram {
        Histogram { counts: [const { AtomicU64::new(0) }; BOUNDS.len() + 1], nanos: AtomicU64::new(0) }
    }

    fn add(&self, took: Duration) {
        let nanos = took.as_nanos() as u64;
        let bucket = BOUNDS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS.len());
        count(&self.counts, bucket);
        self.nanos.fetch_add(nanos, Relaxed);
    }
}

fn count(counters: &[AtomicU64], at: usize) {
    if let Some(counter) = counters.get(at) {
        counter.fetch_add(1, Relaxed);
    }
}

/// So many threads can count without sharing a slot; more share.
const SLOTS: usize = 8;
const PER_LISTENER: usize = EVENTS.len() * RESULTS.len();

/// The counters of one thread. Aligned so that no other slot is in its cache lines, nor in those that a
/// processor fetches along with them.
#[repr(align(128))]
struct Slot {
    requests: [AtomicU64; LISTENERS.len() * PER_LISTENER],
    times: [Histogram; LISTENERS.len()],
    datagrams: [AtomicU64; DATAGRAMS.len()],
}

impl Slot {
    const fn new() -> Slot {
        Slot {
            requests: [const { AtomicU64::new(0) }; LISTENERS.len() * PER_LISTENER],
            times: [const { Histogram::new() }; LISTENERS.len()],
            datagrams: [const { AtomicU64::new(0) }; DATAGRAMS.len()],
        }
    }
}

pub struct Metrics {
    slots: [Slot; SLOTS],
    /// Answers of the API, the metrics and the page, by status.
    api: Mutex<BTreeMap<u16, u64>>,
    batches: Histogram,
    pub(crate) rows: AtomicU64,
    pub(crate) unsaved: AtomicU64,
    /// When nothing was unsaved last, in seconds since 1970.
    pub(crate) saved: AtomicU32,
    /// The last attempt to write or read the database did not fail.
    pub(crate) database_up: AtomicBool,
    pub(crate) connections: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            slots: [const { Slot::new() }; SLOTS],
            api: Mutex::default(),
            batches: Histogram::new(),
            rows: AtomicU64::default(),
            unsaved: AtomicU64::default(),
            saved: AtomicU32::default(),
            database_up: AtomicBool::new(true),
            connections: AtomicU64::default(),
        }
    }
}

impl Metrics {
    fn slot(&self) -> &Slot {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static SLOT: Cell<usize> = const { Cell::new(usize::MAX) });
        let mut at = SLOT.get();
        if at == usize::MAX {
            at = NEXT.fetch_add(1, Relaxed) % SLOTS;
            SLOT.set(at);
        }
        &self.slots[at % SLOTS]
    }

    pub fn answered(&self, listener: Transport, asked: Asked, refusal: Option<&Refusal>, start: Instant) {
        let slot = self.slot();
        let listener = listener as usize;
        count(&slot.requests, listener * PER_LISTENER + asked.event() * RESULTS.len() + result(refusal));
        if let Some(times) = slot.times.get(listener) {
            times.add(start.elapsed());
        }
    }

    pub(crate) fn datagram(&self, result: Datagram) {
        count(&self.slot().datagrams, result as usize);
    }

    pub(crate) fn api(&self, status: u16) {
        *lock(&self.api).entry(status).or_default() += 1;
    }

    pub(crate) fn wrote(&self, rows: usize, took: Duration) {
        self.batches.add(took);
        self.rows.fetch_add(rows as u64, Relaxed);
    }

    fn sum(&self, counters: impl Fn(&Slot) -> &[AtomicU64], at: usize) -> u64 {
        self.slots.iter().filter_map(|slot| counters(slot).get(at)).map(|counter| counter.load(Relaxed)).sum()
    }

    pub(crate) fn requests_of(&self, listener: usize, event: usize, result: usize) -> u64 {
        self.sum(|s| &s.requests, listener * PER_LISTENER + event * RESULTS.len() + result)
    }

    pub(crate) fn datagrams_of(&self, result: usize) -> u64 {
        self.sum(|s| &s.datagrams, result)
    }

    pub(crate) fn statuses(&self) -> BTreeMap<u16, u64> {
        lock(&self.api).clone()
    }

    /// How many answers of a listener took how long, by [`BOUNDS`]; and nanoseconds in all.
    pub(crate) fn answer_times(&self, listener: usize) -> (Vec<u64>, u64) {
        let times: Vec<&Histogram> = self.slots.iter().filter_map(|slot| slot.times.get(listener)).collect();
        let count = |at: usize| times.iter().filter_map(|h| h.counts.get(at)).map(|c| c.load(Relaxed)).sum();
        let counts = (0..=BOUNDS.len()).map(count).collect();
        (counts, times.iter().map(|h| h.nanos.load(Relaxed)).sum())
    }

    pub(crate) fn batch_times(&self) -> (Vec<u64>, u64) {
        let counts = self.batches.counts.iter().map(|count| count.load(Relaxed)).collect();
        (counts, self.batches.nanos.load(Relaxed))
    }

    /// Announces answered, and announces and scrapes refused.
    pub fn announces(&self) -> (u64, u64) {
        let (mut answered, mut refused) = (0, 0);
        for slot in &self.slots {
            for (event, results) in slot.requests.chunks(RESULTS.len()).enumerate() {
                let mut counts = results.iter().map(|counter| counter.load(Relaxed));
                let good = counts.next().unwrap_or(0);
                answered += if event % EVENTS.len() == Asked::Scrape.event() { 0 } else { good };
                refused += counts.sum::<u64>();
            }
        }
        (answered, refused)
    }

    /// Requests over HTTP and HTTPS, those of the API among them, and over UDP.
    pub(crate) fn requests(&self) -> (u64, u64) {
        let sum = |at| self.sum(|s| &s.requests, at);
        let of = |listener: usize| (0..PER_LISTENER).map(|at| sum(listener * PER_LISTENER + at)).sum::<u64>();
        (of(0) + of(1) + lock(&self.api).values().sum::<u64>(), of(2))
    }
}
