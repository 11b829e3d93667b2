//! The state of the tracker at one time: what its log, `/api/status`, the page and the metrics say.

use std::env::consts::{ARCH, OS};
use std::sync::atomic::Ordering::Relaxed;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;

use crate::history::Sample;
use crate::nodes::Status;
use crate::protocol::Free;
use crate::sys::hostname;
use crate::tracker::Tracker;

/// The fields of `/api/status`, first those of the original, in its order and words.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    pid: u32,
    hostname: String,
    platform: &'static str,
    architecture: &'static str,
    num_cpu: usize,
    /// Threads, of which the kernel tells; this and the like are 0 where it does not.
    pub num_goroutine: u64,
    /// Resident, in millions of bytes.
    memory_mb: f64,
    pub http: Requests,
    udp: Requests,
    version: &'static str,
    /// Seconds since 1970.
    pub start_time: u32,
    pub users: usize,
    #[serde(flatten)]
    pub sample: Sample,
    pub database: Database,
    /// Whether Redis answers; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Status>,
    free: Option<Free>,
    #[serde(skip)]
    pub connections: u64,
    /// Bytes of memory that are resident.
    #[serde(skip)]
    pub resident: u64,
    #[serde(skip)]
    pub descriptors: usize,
    /// Seconds on a processor.
    #[serde(skip)]
    pub cpu: f64,
}

/// Requests that came in: in the last minute, and since the start.
#[derive(Serialize)]
pub struct Requests {
    pub current: u64,
    pub total: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// It answered when it was asked last.
    pub up: bool,
    pub unsaved_rows: u64,
    /// Seconds.
    pub unsaved_age: u32,
}

impl Snapshot {
    /// What is known now. Torrents and peers are as of the last five seconds.
    pub fn take(tracker: &Tracker) -> Snapshot {
        let (now, metrics) = (tracker.clock.now(), &tracker.metrics);
        let saved = metrics.saved.load(Relaxed);
        let (sample, before) = tracker.history.now(metrics, &tracker.store, now);
        let requests = |total: u64, before: u64| Requests { current: total.saturating_sub(before), total };
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        let resident = number("VmRSS:").saturating_mul(1024);
        let used = getrusage(UsageWho::RUSAGE_SELF);
        Snapshot {
            pid: std::process::id(),
            hostname: hostname(),
            platform: OS,
            // Go's words.
            architecture: match ARCH {
                "x86_64" => "amd64",
                "x86" => "386",
                "aarch64" => "arm64",
                other => other,
            },
            num_cpu: std::thread::available_parallelism().map_or(1, usize::from),
            num_goroutine: number("Threads:"),
            memory_mb: resident as f64 / 1e6,
            http: requests(sample.http, before.http),
            udp: requests(sample.udp, before.udp),
            version: env!("CARGO_PKG_VERSION"),
            start_time: tracker.clock.started(),
            users: tracker.access.users(),
            sample,
            database: Database {
                up: metrics.database_up.load(Relaxed),
                unsaved_rows: metrics.unsaved.load(Relaxed),
                unsaved_age: if saved == 0 { 0 } else { now.saturating_sub(saved) },
            },
            redis: tracker.config.redis.is_some().then(|| tracker.nodes.up()),
            nodes: tracker.nodes.all(),
            free: tracker.swarms.free(now),
            connections: metrics.connections.load(Relaxed),
            resident,
            descriptors: std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1)),
            cpu: used.map_or(0, |used| (used.user_time() + used.system_time()).num_microseconds()) as f64 / 1e6,
        }
    }

    pub fn counts(&self) -> String {
        let Sample { torrents, seeders, leechers, .. } = self.sample;
        format!("{} users, {torrents} torrents, {seeders} seeders, {leechers} leechers", self.users)
    }
}
