//! What is counted, in the text that Prometheus reads. No text from outside is ever a label: names, torrents and
//! clients cannot forge a line.

use std::fmt::{Display, Write};
use std::sync::atomic::Ordering::Relaxed;

use crate::metrics::{BOUNDS, DATAGRAMS, EVENTS, LISTENERS, Metrics, RESULTS};
use crate::snapshot::Snapshot;
use crate::tracker::Tracker;

/// The text that is being written. Writing to a String cannot fail.
struct Text(String);

impl Text {
    /// A metric: its name, its type, what it is, and its values with their labels.
    fn family(&mut self, name: &str, kind: &str, help: &str, samples: impl IntoIterator<Item = (String, u64)>) {
        self.head(name, kind, help);
        samples.into_iter().for_each(|(labels, value)| self.sample(name, &labels, value));
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            _ => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    /// A histogram of seconds, whose head is written.
    fn histogram(&mut self, name: &str, label: &str, (counts, nanos): (Vec<u64>, u64)) {
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

/// Everything, in the text format of Prometheus 0.0.4.
pub(crate) fn render(tracker: &Tracker) -> String {
    let mut text = Text(String::with_capacity(16 * 1024));
    requests(&mut text, &tracker.metrics);
    let Snapshot { users, sample, database, connections, process, start_time, .. } = Snapshot::take(tracker);
    let peers = [("seeding", sample.seeders), ("leeching", sample.leechers)];
    text.family("goat_peers", "gauge", "Peers in all swarms, as of the last five seconds.", labelled("state", peers));
    let help = "Bytes that members reported and that are accounted for.";
    let moved = [("uploaded", sample.uploaded), ("downloaded", sample.downloaded)];
    text.family("goat_transferred_bytes_total", "counter", help, labelled("direction", moved));
    let help = "TCP connections refused, or closed to make room for others, by reason.";
    let refused = labelled("reason", tracker.limits.refused());
    text.family("goat_connections_refused_total", "counter", help, refused);
    text.head("goat_batch_duration_seconds", "histogram", "Time to write a batch into the database.");
    text.histogram("goat_batch_duration_seconds", "", tracker.metrics.batch_times());
    let version = [(env!("CARGO_PKG_VERSION"), 1)];
    text.family("goat_build_info", "gauge", "The version of goat; always 1.", labelled("version", version));
    let (open, busy) = (tracker.limits.open(), tracker.limits.busy.held());
    let values: [(&str, &str, &str, &dyn Display); 16] = [
        ("goat_torrents", "gauge", "Torrents known.", &sample.torrents),
        ("goat_torrents_active", "gauge", "Torrents with at least one peer.", &sample.active_torrents),
        ("goat_users", "gauge", "Members.", &users),
        ("goat_database_up", "gauge", "1 if the database answers, 0 if not.", &u8::from(database.up)),
        ("goat_unsaved_rows", "gauge", "Rows that the database does not have yet.", &database.unsaved_rows),
        ("goat_unsaved_age_seconds", "gauge", "Time since nothing was unsaved.", &database.unsaved_age),
        ("goat_batch_rows_total", "counter", "Rows written in batches.", &tracker.metrics.rows.load(Relaxed)),
        ("goat_connections_open", "gauge", "TCP connections that are open.", &open),
        ("goat_connections_total", "counter", "TCP connections accepted.", &connections),
        ("goat_workers_busy", "gauge", "Threads that wait for the database or send a long answer.", &busy),
        ("goat_workers_limit", "gauge", "The most such threads.", &tracker.config.workers),
        ("process_resident_memory_bytes", "gauge", "Resident memory.", &process.resident),
        ("process_open_fds", "gauge", "Files and sockets that are open.", &process.descriptors),
        ("process_threads", "gauge", "Threads.", &process.threads),
        ("process_cpu_seconds_total", "counter", "Time on a processor.", &process.cpu),
        ("process_start_time_seconds", "gauge", "When goat started, since 1970.", &start_time),
    ];
    for (name, kind, help, value) in values {
        text.head(name, kind, help);
        text.sample(name, "", value);
    }
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
    let values: [(&str, &str, &str, &dyn Display); 6] = [
        ("goat_redis_up", "gauge", "1 if Redis can be written and read, 0 if not.", &u8::from(nodes.up())),
        ("goat_nodes", "gauge", "Goats that were there in the last 10 seconds, this one among them.", &there),
        ("goat_nodes_lag_seconds", "gauge", "Time from telling the other goats something to hearing it.", &lag),
        ("goat_nodes_published_total", "counter", "Records of announces told to other goats.", &published),
        ("goat_nodes_heard_total", "counter", "Records of announces heard from other goats.", &heard),
        ("goat_nodes_gaps_total", "counter", "Times that something was missed and asked of the database.", &gaps),
    ];
    for (name, kind, help, value) in values {
        text.head(name, kind, help);
        text.sample(name, "", value);
    }
}

fn labelled<T: Display>(
    name: &str,
    samples: impl IntoIterator<Item = (T, u64)>,
) -> impl Iterator<Item = (String, u64)> {
    samples.into_iter().map(move |(label, value)| (format!("{name}=\"{label}\""), value))
}

/// What clients and browsers asked for, and what became of it.
fn requests(text: &mut Text, metrics: &Metrics) {
    let each = |labels: &'static [&str]| labels.iter().enumerate();
    let mut samples = Vec::new();
    for (l, listener) in each(&LISTENERS) {
        for (e, event) in each(&EVENTS) {
            for (r, result) in each(&RESULTS) {
                samples.push((*listener, *event, *result, r == 0, metrics.requests_of(l, e, r)));
            }
        }
    }
    // Of all combinations only those that happen, and the good ones from the start.
    samples.retain(|(_, event, _, good, value)| *value > 0 || *good && *event != "unknown");
    let (scrapes, announces): (Vec<_>, Vec<_>) = samples.into_iter().partition(|(_, event, ..)| *event == "scrape");
    let announces = announces.into_iter().map(|(listener, event, result, _, value)| {
        (format!("listener=\"{listener}\",event=\"{event}\",result=\"{result}\""), value)
    });
    let help = "Announces by listener, event and result.";
    text.family("goat_announces_total", "counter", help, announces);
    let scrapes = scrapes
        .into_iter()
        .map(|(listener, _, result, _, value)| (format!("listener=\"{listener}\",result=\"{result}\""), value));
    text.family("goat_scrapes_total", "counter", "Scrapes by listener and result.", scrapes);
    let name = "goat_answer_duration_seconds";
    text.head(name, "histogram", "Time to answer an announce or scrape, by listener.");
    for (l, listener) in each(&LISTENERS) {
        text.histogram(name, &format!("listener=\"{listener}\""), metrics.answer_times(l));
    }
    let datagrams = each(&DATAGRAMS).map(|(d, result)| (result, metrics.datagrams_of(d)));
    let help = "UDP packets received, by result.";
    text.family("goat_udp_packets_total", "counter", help, labelled("fate", datagrams));
    let help = "Requests of the API, the metrics and the page, by status.";
    text.family("goat_api_requests_total", "counter", help, labelled("code", metrics.statuses()));
}
