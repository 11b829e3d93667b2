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

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Http,
    Https,
    Udp,
}

/// The words for the [`Transport`]s, in their order.
pub const LISTENERS: [&str; 3] = ["http", "https", "udp"];

/// What a request of a client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// It was refused before that was read.
    #[default]
    Unknown,
    Announce(Event),
    Scrape,
}

/// The words for what was [`Asked`].
pub const EVENTS: [&str; 6] = ["none", "started", "stopped", "completed", "paused", "unknown"];

impl Asked {
    /// The place among [`EVENTS`]; `None` for a scrape.
    fn event(self) -> Option<usize> {
        Some(match self {
            Asked::Announce(Event::None) => 0,
            Asked::Announce(Event::Started) => 1,
            Asked::Announce(Event::Stopped) => 2,
            Asked::Announce(Event::Completed) => 3,
            Asked::Announce(Event::Paused) => 4,
            Asked::Unknown => 5,
            Asked::Scrape => return None,
        })
    }
}

/// The words for what became of it: an answer, or why there was none.
pub const RESULTS: [&str; 11] = [
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

/// The place among [`RESULTS`].
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

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A connect, answered with an id.
    Connect,
    /// An announce or scrape, answered.
    Answered,
    /// An announce or scrape, refused.
    Refused,
    /// Its connection id was wrong or old.
    InvalidId,
    /// It was no request: it got no answer.
    Ignored,
    /// Too many waited for the database: it got no answer.
    Dropped,
}

/// The words for the [`Fate`]s, in their order.
pub const FATES: [&str; 6] = ["connect", "answered", "refused", "invalid_id", "ignored", "dropped"];

/// How long something took: how often at most so many nanoseconds, and the sum.
struct Histogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

/// How long something may take to be counted in each place, in nanoseconds; what takes longer is in one more.
pub const BOUNDS: [u64; 14] = [
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
    /// By listener, event and result.
    announces: [AtomicU64; LISTENERS.len() * PER_LISTENER],
    /// By listener and result.
    scrapes: [AtomicU64; LISTENERS.len() * RESULTS.len()],
    times: [Histogram; LISTENERS.len()],
    datagrams: [AtomicU64; FATES.len()],
}

impl Slot {
    const fn new() -> Slot {
        Slot {
            announces: [const { AtomicU64::new(0) }; LISTENERS.len() * PER_LISTENER],
            scrapes: [const { AtomicU64::new(0) }; LISTENERS.len() * RESULTS.len()],
            times: [const { Histogram::new() }; LISTENERS.len()],
            datagrams: [const { AtomicU64::new(0) }; FATES.len()],
        }
    }
}

/// Everything that is counted.
pub struct Metrics {
    slots: [Slot; SLOTS],
    /// Answers of the API, the metrics and the page, by status.
    api: Mutex<BTreeMap<u16, u64>>,
    batches: Histogram,
    rows: AtomicU64,
    /// When nothing was unwritten last, in seconds since 1970.
    saved: AtomicU32,
    /// The last attempt to write or read the database did not fail.
    database_up: AtomicBool,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            slots: [const { Slot::new() }; SLOTS],
            api: Mutex::default(),
            batches: Histogram::new(),
            rows: AtomicU64::new(0),
            saved: AtomicU32::new(0),
            database_up: AtomicBool::new(true),
        }
    }
}

impl Metrics {
    /// The slot of this thread.
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

    /// Counts a request of a client that came at `start`.
    pub fn answered(&self, listener: Transport, asked: Asked, refusal: Option<&Refusal>, start: Instant) {
        let (slot, listener, result) = (self.slot(), listener as usize, result(refusal));
        match asked.event() {
            Some(event) => count(&slot.announces, listener * PER_LISTENER + event * RESULTS.len() + result),
            None => count(&slot.scrapes, listener * RESULTS.len() + result),
        }
        if let Some(times) = slot.times.get(listener) {
            times.add(start.elapsed());
        }
    }

    /// Counts a datagram.
    pub fn datagram(&self, fate: Fate) {
        count(&self.slot().datagrams, fate as usize);
    }

    /// Counts an answer of the API.
    pub fn api(&self, status: u16) {
        *lock(&self.api).entry(status).or_default() += 1;
    }

    /// Counts a batch that was written.
    pub fn wrote(&self, rows: usize, took: Duration) {
        self.batches.add(took);
        self.rows.fetch_add(rows as u64, Relaxed);
    }

    /// Notes that nothing was unwritten at a time in seconds since 1970.
    pub fn saved(&self, now: u32) {
        self.saved.store(now, Relaxed);
    }

    /// For how many seconds something has been unwritten.
    pub fn unsaved_age(&self, now: u32) -> u32 {
        match self.saved.load(Relaxed) {
            0 => 0,
            saved => now.saturating_sub(saved),
        }
    }

    /// Notes whether the database answers.
    pub fn database(&self, up: bool) {
        self.database_up.store(up, Relaxed);
    }

    /// Whether the database answers.
    pub fn database_up(&self) -> bool {
        self.database_up.load(Relaxed)
    }

    /// The sum of all slots' counters at a place.
    fn sum(&self, counters: impl Fn(&Slot) -> &[AtomicU64], at: usize) -> u64 {
        self.slots.iter().filter_map(|slot| counters(slot).get(at)).map(|counter| counter.load(Relaxed)).sum()
    }

    /// Announces by the places of their listener, event and result.
    pub fn announces_of(&self, listener: usize, event: usize, result: usize) -> u64 {
        self.sum(|s| &s.announces, listener * PER_LISTENER + event * RESULTS.len() + result)
    }

    /// Scrapes by the places of their listener and result.
    pub fn scrapes_of(&self, listener: usize, result: usize) -> u64 {
        self.sum(|s| &s.scrapes, listener * RESULTS.len() + result)
    }

    /// Datagrams by the place of their fate.
    pub fn datagrams_of(&self, fate: usize) -> u64 {
        self.sum(|s| &s.datagrams, fate)
    }

    /// Answers of the API by status.
    pub fn statuses(&self) -> BTreeMap<u16, u64> {
        lock(&self.api).clone()
    }

    /// How many answers of a listener took how long, by [`BOUNDS`]; and nanoseconds in all.
    pub fn answer_times(&self, listener: usize) -> (Vec<u64>, u64) {
        let times: Vec<&Histogram> = self.slots.iter().filter_map(|slot| slot.times.get(listener)).collect();
        let count = |at: usize| times.iter().filter_map(|h| h.counts.get(at)).map(|c| c.load(Relaxed)).sum();
        let counts = (0..=BOUNDS.len()).map(count).collect();
        (counts, times.iter().map(|h| h.nanos.load(Relaxed)).sum())
    }

    /// The same of the batches that were written.
    pub fn batch_times(&self) -> (Vec<u64>, u64) {
        let counts = self.batches.counts.iter().map(|count| count.load(Relaxed)).collect();
        (counts, self.batches.nanos.load(Relaxed))
    }

    /// Rows written in batches.
    pub fn batch_rows(&self) -> u64 {
        self.rows.load(Relaxed)
    }

    /// Announces answered, and announces and scrapes refused.
    pub fn announces(&self) -> (u64, u64) {
        let (mut answered, mut refused) = (0, 0);
        for slot in &self.slots {
            for results in slot.announces.chunks(RESULTS.len()).chain(slot.scrapes.chunks(RESULTS.len())) {
                refused += results.iter().skip(1).map(|counter| counter.load(Relaxed)).sum::<u64>();
            }
            let first = slot.announces.iter().step_by(RESULTS.len());
            answered += first.map(|counter| counter.load(Relaxed)).sum::<u64>();
        }
        (answered, refused)
    }

    /// Requests over HTTP and HTTPS, those of the API among them, and over UDP.
    pub fn requests(&self) -> (u64, u64) {
        let of = |listener: usize| {
            let announces = (0..PER_LISTENER).map(|at| self.sum(|s| &s.announces, listener * PER_LISTENER + at));
            let scrapes = (0..RESULTS.len()).map(|at| self.sum(|s| &s.scrapes, listener * RESULTS.len() + at));
            announces.chain(scrapes).sum::<u64>()
        };
        (of(0) + of(1) + lock(&self.api).values().sum::<u64>(), of(2))
    }
}
