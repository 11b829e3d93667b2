//! What is counted while the tracker runs.
//!
//! Counting must cost an announce next to nothing: each thread adds to a slot of its own, so that no two
//! processors write the same cache line, and who reads adds the slots up.

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
const EVENTS: [&str; 7] = ["none", "started", "stopped", "completed", "paused", "unknown", "scrape"];

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
const RESULTS: [&str; 11] = [
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

const DATAGRAMS: [&str; 6] = ["connect", "answered", "refused", "invalid_id", "ignored", "dropped"];

/// How long something may take to be counted in each place, in microseconds; what takes longer is in one more.
pub(crate) const BOUNDS: [u64; 14] =
    [10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 1_000_000, 10_000_000];

/// So many threads can count without sharing a slot; more share.
const SLOTS: usize = 8;

// Where what is counted stands in a slot: requests by listener, event and result, then datagrams by result, then the
// histograms of the listeners and that of batches, each with its places by [`BOUNDS`] and nanoseconds in all.
const PER_LISTENER: usize = EVENTS.len() * RESULTS.len();
const FIRST_DATAGRAM: usize = LISTENERS.len() * PER_LISTENER;
const FIRST_TIME: usize = FIRST_DATAGRAM + DATAGRAMS.len();
const PER_HISTOGRAM: usize = BOUNDS.len() + 2;
const COUNTERS: usize = FIRST_TIME + (LISTENERS.len() + 1) * PER_HISTOGRAM;

/// The histogram after those of the listeners: how long it takes to write a batch.
pub(crate) const BATCHES: usize = LISTENERS.len();

/// The counters of one thread. Aligned so that no other slot is in its cache lines, nor in those that a
/// processor fetches along with them.
#[repr(align(128))]
struct Slot([AtomicU64; COUNTERS]);

impl Default for Slot {
    fn default() -> Slot {
        Slot([const { AtomicU64::new(0) }; COUNTERS])
    }
}

impl Slot {
    fn add(&self, at: usize, amount: u64) {
        if let Some(counter) = self.0.get(at) {
            counter.fetch_add(amount, Relaxed);
        }
    }

    fn took(&self, histogram: usize, took: Duration) {
        let (first, nanos) = (FIRST_TIME + histogram * PER_HISTOGRAM, took.as_nanos() as u64);
        let place = BOUNDS.iter().position(|bound| nanos <= *bound * 1_000).unwrap_or(BOUNDS.len());
        self.add(first + place, 1);
        self.add(first + BOUNDS.len() + 1, nanos);
    }
}

#[derive(Default)]
pub struct Metrics {
    slots: [Slot; SLOTS],
    /// Answers of the API, the metrics and the page, by status.
    api: Mutex<BTreeMap<u16, u64>>,
    pub(crate) rows: AtomicU64,
    pub(crate) unsaved: AtomicU64,
    /// When nothing was unsaved last, in seconds since 1970.
    pub(crate) saved: AtomicU32,
    /// The last attempt to write or read the database did not fail.
    pub(crate) database_up: AtomicBool,
    pub(crate) connections: AtomicU64,
}

impl Metrics {
    fn slot(&self) -> &Slot {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local!(static SLOT: usize = NEXT.fetch_add(1, Relaxed) % SLOTS);
        &self.slots[SLOT.with(|slot| *slot) % SLOTS]
    }

    pub fn answered(&self, listener: Transport, asked: Asked, refusal: Option<&Refusal>, start: Instant) {
        let (slot, listener) = (self.slot(), listener as usize);
        slot.add(listener * PER_LISTENER + asked.event() * RESULTS.len() + result(refusal), 1);
        slot.took(listener, start.elapsed());
    }

    pub(crate) fn datagram(&self, result: Datagram) {
        self.slot().add(FIRST_DATAGRAM + result as usize, 1);
    }

    pub(crate) fn api(&self, status: u16) {
        *lock(&self.api).entry(status).or_default() += 1;
    }

    pub(crate) fn wrote(&self, rows: usize, took: Duration) {
        self.slot().took(BATCHES, took);
        self.rows.fetch_add(rows as u64, Relaxed);
    }

    fn sum(&self, at: usize) -> u64 {
        self.slots.iter().filter_map(|slot| slot.0.get(at)).map(|counter| counter.load(Relaxed)).sum()
    }

    /// How many requests came to which end: by the words for listener, event and result.
    pub(crate) fn requests(&self) -> impl Iterator<Item = ([&'static str; 3], u64)> {
        let events =
            |listener| EVENTS.iter().flat_map(move |event| RESULTS.iter().map(move |end| [listener, *event, *end]));
        LISTENERS.into_iter().flat_map(events).zip(0..).map(|(words, at)| (words, self.sum(at)))
    }

    fn requests_where(&self, wanted: impl Fn([&str; 3]) -> bool) -> u64 {
        self.requests().filter(|(words, _)| wanted(*words)).map(|(_, count)| count).sum()
    }

    pub(crate) fn datagrams(&self) -> impl Iterator<Item = (&'static str, u64)> {
        DATAGRAMS.into_iter().zip(FIRST_DATAGRAM..).map(|(result, at)| (result, self.sum(at)))
    }

    pub(crate) fn statuses(&self) -> BTreeMap<u16, u64> {
        lock(&self.api).clone()
    }

    /// How many answers of a listener, or [`BATCHES`], took how long, by [`BOUNDS`]; and nanoseconds in all.
    pub(crate) fn times(&self, histogram: usize) -> (Vec<u64>, u64) {
        let first = FIRST_TIME + histogram * PER_HISTOGRAM;
        let counts = (0..=BOUNDS.len()).map(|place| self.sum(first + place)).collect();
        (counts, self.sum(first + BOUNDS.len() + 1))
    }

    /// Announces answered, and announces and scrapes refused.
    pub fn announces(&self) -> (u64, u64) {
        let answered = self.requests_where(|[_, event, result]| event != "scrape" && result == "answered");
        (answered, self.requests_where(|[.., result]| result != "answered"))
    }

    /// Requests over HTTP and HTTPS, those of the API among them, and over UDP.
    pub(crate) fn totals(&self) -> (u64, u64) {
        let [tcp, udp] = [false, true].map(|udp| self.requests_where(|[listener, ..]| (listener == "udp") == udp));
        (tcp + lock(&self.api).values().sum::<u64>(), udp)
    }
}
