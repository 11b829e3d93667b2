//! What is counted, in the text that Prometheus reads. No text from outside is ever a label: names, torrents and
//! clients cannot forge a line.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

use crate::metrics::{BOUNDS, EVENTS, FATES, LISTENERS, RESULTS};
use crate::tracker::Tracker;

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
                let value = metrics.announces_of(l, e, r);
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
            let value = metrics.scrapes_of(l, r);
            if value > 0 || r == 0 {
                text.sample("goat_scrapes_total", &format!("listener=\"{listener}\",result=\"{result}\""), value);
            }
        }
    }
    let name = "goat_answer_duration_seconds";
    text.family(name, "histogram", "Time to answer an announce or scrape, by listener.");
    for (l, listener) in LISTENERS.iter().enumerate() {
        let (counts, nanos) = metrics.answer_times(l);
        text.histogram(name, &format!("listener=\"{listener}\""), &counts, nanos);
    }
    text.family("goat_udp_packets_total", "counter", "UDP packets received, by what became of them.");
    for (f, fate) in FATES.iter().enumerate() {
        text.sample("goat_udp_packets_total", &format!("fate=\"{fate}\""), metrics.datagrams_of(f));
    }
    text.family("goat_api_requests_total", "counter", "Requests of the API, the metrics and the page, by status.");
    for (code, value) in metrics.statuses() {
        text.sample("goat_api_requests_total", &format!("code=\"{code}\""), value);
    }

    let counts = tracker.history.counts();
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
    let (counts, nanos) = metrics.batch_times();
    text.histogram(name, "", &counts, nanos);
    text.one("goat_batch_rows_total", "counter", "Rows written in batches.", metrics.batch_rows());

    text.one("goat_connections_open", "gauge", "TCP connections that are open.", tracker.limits.open());
    let connections = stats.connections.load(Relaxed);
    text.one("goat_connections_total", "counter", "TCP connections accepted.", connections);
    let name = "goat_connections_refused_total";
    text.family(name, "counter", "TCP connections refused, or closed to make room for others, by reason.");
    for (reason, value) in tracker.limits.refused() {
        text.sample(name, &format!("reason=\"{reason}\""), value);
    }
    let help = "Threads that wait for the database or send a long answer.";
    text.one("goat_workers_busy", "gauge", help, tracker.limits.busy.held());
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
