//! What is counted, in the text that Prometheus reads. No text from outside is ever a label: names, torrents and
//! clients cannot forge a line.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

use crate::metrics::{BATCHES, BOUNDS, LISTENERS, Metrics};
use crate::snapshot::Snapshot;
use crate::tracker::Tracker;

/// The text that is being written. Writing to a String cannot fail.
struct Text(String);

impl Text {
    /// The name of a metric and what it is; its type is seen by its name, as is usual.
    fn head(&mut self, name: &str, help: &str) {
        let kind = match name {
            _ if name.ends_with("_total") => "counter",
            _ if name.ends_with("_duration_seconds") => "histogram",
            _ => "gauge",
        };
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A metric that has a value for each value of a label.
    fn family<T: Display>(&mut self, name: &str, help: &str, label: &str, values: impl IntoIterator<Item = (T, u64)>) {
        self.head(name, help);
        values.into_iter().for_each(|(of, value)| self.sample(name, &format!("{label}=\"{of}\""), value));
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            _ => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    /// Metrics that have one value each.
    fn values(&mut self, values: &[(&str, &str, &dyn Display)]) {
        for (name, help, value) in values {
            self.head(name, help);
            self.sample(name, "", value);
        }
    }

    /// A histogram of seconds, whose head is written.
    fn histogram(&mut self, name: &str, label: &str, (counts, nanos): (Vec<u64>, u64)) {
        let comma = if label.is_empty() { "" } else { "," };
        let mut sum = 0;
        let bounds = BOUNDS.iter().map(|micros| seconds(micros * 1_000).to_string()).chain(["+Inf".to_string()]);
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

/// Everything, in the text format of Prometheus 0.0.4.
pub(crate) fn render(tracker: &Tracker) -> String {
    let mut text = Text(String::with_capacity(16 * 1024));
    requests(&mut text, &tracker.metrics);
    let now = Snapshot::take(tracker);
    let Snapshot { sample, database, .. } = &now;
    let peers = [("seeding", sample.seeders), ("leeching", sample.leechers)];
    text.family("goat_peers", "Peers in all swarms, as of the last five seconds.", "state", peers);
    let moved = [("uploaded", sample.uploaded), ("downloaded", sample.downloaded)];
    let help = "Bytes that members reported and that are accounted for.";
    text.family("goat_transferred_bytes_total", help, "direction", moved);
    let help = "TCP connections refused, or closed to make room for others, by reason.";
    text.family("goat_connections_refused_total", help, "reason", tracker.limits.refused());
    text.head("goat_batch_duration_seconds", "Time to write a batch into the database.");
    text.histogram("goat_batch_duration_seconds", "", tracker.metrics.times(BATCHES));
    let version = [(env!("CARGO_PKG_VERSION"), 1)];
    text.family("goat_build_info", "The version of goat; always 1.", "version", version);
    let (open, busy) = (tracker.limits.open(), tracker.limits.busy.held());
    text.values(&[
        ("goat_torrents", "Torrents known.", &sample.torrents),
        ("goat_torrents_active", "Torrents with at least one peer.", &sample.active_torrents),
        ("goat_users", "Members.", &now.users),
        ("goat_database_up", "1 if the database answers, 0 if not.", &u8::from(database.up)),
        ("goat_unsaved_rows", "Rows that the database does not have yet.", &database.unsaved_rows),
        ("goat_unsaved_age_seconds", "Time since nothing was unsaved.", &database.unsaved_age),
        ("goat_batch_rows_total", "Rows written in batches.", &tracker.metrics.rows.load(Relaxed)),
        ("goat_connections_open", "TCP connections that are open.", &open),
        ("goat_connections_total", "TCP connections accepted.", &now.connections),
        ("goat_workers_busy", "Threads that wait for the database or send a long answer.", &busy),
        ("goat_workers_limit", "The most such threads.", &tracker.config.workers),
        ("process_resident_memory_bytes", "Resident memory.", &now.resident),
        ("process_open_fds", "Files and sockets that are open.", &now.descriptors),
        ("process_threads", "Threads.", &now.num_goroutine),
        ("process_cpu_seconds_total", "Time on a processor.", &now.cpu),
        ("process_start_time_seconds", "When goat started, since 1970.", &now.start_time),
    ]);
    if tracker.config.redis.is_some() {
        redis(tracker, &mut text);
    }
    text.0
}

/// What is known of Redis and of the goats that are one tracker by it.
fn redis(tracker: &Tracker, text: &mut Text) {
    let (nodes, now) = (&tracker.nodes, tracker.clock.now());
    let there = nodes.all().iter().filter(|node| now.saturating_sub(node.time) < 10).count();
    let lag = nodes.lag.load(Relaxed) as f64 / 1e3;
    let [published, heard, gaps] = [&nodes.published, &nodes.heard, &nodes.gaps].map(|count| count.load(Relaxed));
    text.values(&[
        ("goat_redis_up", "1 if Redis can be written and read, 0 if not.", &u8::from(nodes.up())),
        ("goat_nodes", "Goats that were there in the last 10 seconds, this one among them.", &there),
        ("goat_nodes_lag_seconds", "Time from telling the other goats something to hearing it.", &lag),
        ("goat_nodes_published_total", "Records of announces told to other goats.", &published),
        ("goat_nodes_heard_total", "Records of announces heard from other goats.", &heard),
        ("goat_nodes_gaps_total", "Times that something was missed and asked of the database.", &gaps),
    ]);
}

/// What clients and browsers asked for, and what became of it.
fn requests(text: &mut Text, metrics: &Metrics) {
    let (mut announces, mut scrapes) = (Vec::new(), Vec::new());
    // Of all combinations only those that happen, and the good ones from the start.
    let seen = |event, result, count| count > 0 || result == "answered" && event != "unknown";
    for ([listener, event, result], count) in metrics.requests().filter(|([_, e, r], count)| seen(*e, *r, *count)) {
        match event {
            "scrape" => scrapes.push((format!("listener=\"{listener}\",result=\"{result}\""), count)),
            _ => announces.push((format!("listener=\"{listener}\",event=\"{event}\",result=\"{result}\""), count)),
        }
    }
    text.head("goat_announces_total", "Announces by listener, event and result.");
    announces.iter().for_each(|(labels, value)| text.sample("goat_announces_total", labels, value));
    text.head("goat_scrapes_total", "Scrapes by listener and result.");
    scrapes.iter().for_each(|(labels, value)| text.sample("goat_scrapes_total", labels, value));
    let name = "goat_answer_duration_seconds";
    text.head(name, "Time to answer an announce or scrape, by listener.");
    for (at, listener) in LISTENERS.iter().enumerate() {
        text.histogram(name, &format!("listener=\"{listener}\""), metrics.times(at));
    }
    text.family("goat_udp_packets_total", "UDP packets received, by result.", "fate", metrics.datagrams());
    let help = "Requests of the API, the metrics and the page, by status.";
    text.family("goat_api_requests_total", help, "code", metrics.statuses());
}
