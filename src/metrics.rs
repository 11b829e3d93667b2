//! What is counted while the tracker runs, and the text in which Prometheus reads it.
//!
//! Counting must cost an announce next to nothing: each thread adds to a slot of its own, so that no two
//! processors write the same cache line, and who reads adds the slots up. No text from outside is ever a
//! label: names, torrents and clients cannot forge a line.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::history::History;
use crate::protocol::{Event, Refusal};
use crate::server::Tracker;
use crate::sync::lock;

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Http,
    Https,
    Udp,
}

const LISTENERS: [&str; 3] = ["http", "https", "udp"];

/// What a request of a client asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asked {
    /// It was refused before that was read.
    #[default]
    Unknown,
    Announce(Event),
    Scrape,
}

const EVENTS: [&str; 6] = ["none", "started", "stopped", "completed", "paused", "unknown"];

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

const FATES: [&str; 6] = ["connect", "answered", "refused", "invalid_id", "ignored", "dropped"];

/// How long something took: how often at most so many nanoseconds, and the sum.
struct Histogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    nanos: AtomicU64,
}

const BOUNDS: [u64; 14] = [
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
    /// The last minutes.
    pub history: History,
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
            history: History::default(),
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

/// The text that is being written. Writing to a String cannot fail.
struct Text(String);

impl Text {
    /// Begins a metric: its name, its type and what it is.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            _ => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    /// A metric without labels.
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, "", value);
    }

    /// A histogram of seconds, whose family was begun.
    fn histogram(&mut self, name: &str, label: &str, counts: &[u64], nanos: u64) {
        let comma = if label.is_empty() { "" } else { "," };
        let mut sum = 0;
        let bounds = BOUNDS.iter().map(|nanos| seconds(*nanos).to_string()).chain(["+Inf".to_string()]);
        for (bound, count) in bounds.zip(counts) {
            sum += count;
            self.sample(&format!("{name}_bucket"), &format!("{label}{comma}le=\"{bound}\""), sum);
        }
        self.sample(&format!("{name}_sum"), label, seconds(nanos));
        self.sample(&format!("{name}_count"), label, sum);
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// What the kernel says of this process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Process {
    /// Bytes of memory that are resident.
    pub resident: u64,
    pub threads: u64,
    /// Files and sockets that are open.
    pub descriptors: usize,
    /// Seconds on a processor.
    pub cpu: f64,
}

impl Process {
    /// Asks the kernel; what it does not say is 0.
    pub fn now() -> Process {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        // After the name, which may hold anything but ends with the last parenthesis: the 12th and 13th of
        // the fields, in hundredths of a second.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        Process {
            resident: number("VmRSS:").saturating_mul(1024),
            threads: number("Threads:"),
            descriptors: std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1)),
            cpu: fields.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0,
        }
    }
}

/// Everything, in the text format of Prometheus 0.0.4.
pub fn render(tracker: &Tracker) -> String {
    let (metrics, mut text) = (&tracker.metrics, Text(String::with_capacity(16 * 1024)));
    let now = tracker.clock.now();

    text.family("goat_announces_total", "counter", "Announces by listener, event and result.");
    for (l, listener) in LISTENERS.iter().enumerate() {
        for (e, event) in EVENTS.iter().enumerate() {
            for (r, result) in RESULTS.iter().enumerate() {
                let value = metrics.sum(|s| &s.announces, l * PER_LISTENER + e * RESULTS.len() + r);
                // Of all combinations only those that happen, and the good ones from the start.
                if value > 0 || r == 0 && *event != "unknown" {
                    let labels = format!("listener=\"{listener}\",event=\"{event}\",result=\"{result}\"");
                    text.sample("goat_announces_total", &labels, value);
                }
            }
        }
    }
    text.family("goat_scrapes_total", "counter", "Scrapes by listener and result.");
    for (l, listener) in LISTENERS.iter().enumerate() {
        for (r, result) in RESULTS.iter().enumerate() {
            let value = metrics.sum(|s| &s.scrapes, l * RESULTS.len() + r);
            if value > 0 || r == 0 {
                text.sample("goat_scrapes_total", &format!("listener=\"{listener}\",result=\"{result}\""), value);
            }
        }
    }
    let name = "goat_answer_duration_seconds";
    text.family(name, "histogram", "Time to answer an announce or scrape, by listener.");
    for (l, listener) in LISTENERS.iter().enumerate() {
        let times: Vec<&Histogram> = metrics.slots.iter().filter_map(|slot| slot.times.get(l)).collect();
        let count = |at: usize| times.iter().filter_map(|h| h.counts.get(at)).map(|c| c.load(Relaxed)).sum();
        let counts: Vec<u64> = (0..=BOUNDS.len()).map(count).collect();
        let nanos = times.iter().map(|h| h.nanos.load(Relaxed)).sum();
        text.histogram(name, &format!("listener=\"{listener}\""), &counts, nanos);
    }
    text.family("goat_udp_packets_total", "counter", "UDP packets received, by what became of them.");
    for (f, fate) in FATES.iter().enumerate() {
        text.sample("goat_udp_packets_total", &format!("fate=\"{fate}\""), metrics.sum(|s| &s.datagrams, f));
    }
    text.family("goat_api_requests_total", "counter", "Requests of the API, the metrics and the page, by status.");
    for (code, value) in &*lock(&metrics.api) {
        text.sample("goat_api_requests_total", &format!("code=\"{code}\""), value);
    }

    let counts = metrics.history.counts();
    text.family("goat_peers", "gauge", "Peers in all swarms, as of the last five seconds.");
    text.sample("goat_peers", "state=\"seeding\"", counts.seeders);
    text.sample("goat_peers", "state=\"leeching\"", counts.leechers);
    text.one("goat_torrents", "gauge", "Torrents that are known.", counts.torrents);
    text.one("goat_torrents_active", "gauge", "Torrents that somebody is on.", counts.active);
    text.one("goat_users", "gauge", "Members.", tracker.access.users());
    let [uploaded, downloaded] = tracker.store.moved();
    text.family("goat_transferred_bytes_total", "counter", "Bytes that members reported and the books hold.");
    text.sample("goat_transferred_bytes_total", "direction=\"uploaded\"", uploaded);
    text.sample("goat_transferred_bytes_total", "direction=\"downloaded\"", downloaded);

    let stats = &tracker.stats;
    let up = u8::from(metrics.database_up());
    text.one("goat_database_up", "gauge", "1 if the database answers, 0 if not.", up);
    let unsaved = stats.unsaved.load(Relaxed);
    text.one("goat_unsaved_rows", "gauge", "Rows that the database does not have yet.", unsaved);
    let age = metrics.unsaved_age(now);
    text.one("goat_unsaved_age_seconds", "gauge", "Time since nothing was unsaved.", age);
    let name = "goat_batch_duration_seconds";
    text.family(name, "histogram", "Time to write a batch of the books.");
    let counts: Vec<u64> = metrics.batches.counts.iter().map(|count| count.load(Relaxed)).collect();
    text.histogram(name, "", &counts, metrics.batches.nanos.load(Relaxed));
    text.one("goat_batch_rows_total", "counter", "Rows written in batches.", metrics.rows.load(Relaxed));

    text.one("goat_connections_open", "gauge", "TCP connections that are open.", stats.open.load(Relaxed));
    let connections = stats.connections.load(Relaxed);
    text.one("goat_connections_total", "counter", "TCP connections accepted.", connections);
    let help = "Threads that wait for the database or send a long answer.";
    text.one("goat_workers_busy", "gauge", help, stats.busy.load(Relaxed));
    text.one("goat_workers_limit", "gauge", "The most such threads.", tracker.config.workers);

    let process = Process::now();
    text.one("process_resident_memory_bytes", "gauge", "Resident memory.", process.resident);
    text.one("process_open_fds", "gauge", "Files and sockets that are open.", process.descriptors);
    text.one("process_threads", "gauge", "Threads.", process.threads);
    text.one("process_cpu_seconds_total", "counter", "Time on a processor.", process.cpu);
    let started = tracker.clock.started();
    text.one("process_start_time_seconds", "gauge", "When goat started, since 1970.", started);
    text.family("goat_build_info", "gauge", "The version of goat; always 1.");
    text.sample("goat_build_info", concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1);
    text.0
}
