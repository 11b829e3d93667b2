//! Other goats on the same database: together they are one tracker. MySQL holds the truth, and one Redis or Valkey
//! carries news: a stream to which each goat (a node) adds once a second what it journaled in that second, and which all
//! read. What a node hears it merges into its swarms, and writes nothing of it: that the one does who was announced to.
//!
//! Announces never wait for Redis, nor does the keeper: one thread publishes, one reads. While Redis is away each node
//! goes on with what it knows and, every minute, with what the database knows.
//!
//! This file holds what is known of the nodes; [`link`] has the two threads, [`news`] what is made of what is heard.

#[cfg(feature = "redis")]
pub mod link;
#[cfg(feature = "redis")]
mod news;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

use crate::auth::derived_key;
use crate::books::journal::Head;
use crate::config::Config;
use crate::log::log;
use crate::random::hex;
use crate::sync::lock;

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// The machine and the port.
    pub name: String,
    /// Its run, which has a row in the table `goat`.
    pub run: String,
    pub version: String,
    /// Its clock, in seconds since 1970.
    pub time: u32,
    /// When all that it had journaled was in the database, in seconds since 1970.
    pub written: u32,
    pub database: bool,
    pub unsaved_rows: u64,
    /// Announces answered since its start, and in the last second.
    pub announces: u64,
    pub announces_per_second: u64,
    /// By which those who share the secret beside the configuration are known.
    pub secret: String,
}

impl Status {
    /// Whether another status is of an earlier run of the same goat.
    fn is_after(&self, other: &Status) -> bool {
        self.name == other.name && self.time > other.time.saturating_add(10)
    }
}

/// Another node, or this one, as the stream shows it.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    #[serde(flatten)]
    pub status: Status,
    /// When it was heard last, in seconds since 1970 by the clock of the one who heard.
    pub heard: u32,
    /// Milliseconds from its last entry in the stream until it was taken over here.
    pub lag: u64,
    /// The number of its last entry.
    #[serde(skip)]
    sequence: u64,
}

/// See the head of this file.
#[derive(Default)]
pub struct Nodes {
    /// What this node is.
    own: Status,
    /// The stream and the table of the nodes are named after the database.
    identity: u64,
    /// By run.
    known: Mutex<BTreeMap<String, Node>>,
    /// Why it cannot be written, and why it cannot be read.
    trouble: Mutex<[Option<String>; 2]>,
    up: AtomicBool,
    /// Records published and heard, and entries that were lost.
    pub published: AtomicU64,
    pub heard: AtomicU64,
    pub gaps: AtomicU64,
}

/// What a thread does with Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Write,
    Read,
}

impl Nodes {
    /// Nobody but this goat, whose journal begins so.
    pub fn new(config: &Config, head: Option<Head>) -> Result<Nodes, String> {
        let Some(head) = head.filter(|_| config.redis.is_some()) else { return Ok(Nodes::default()) };
        let own = Status {
            name: format!("{}:{}", crate::sys::hostname(), config.port),
            run: format!("{:016x}", head.run),
            version: env!("CARGO_PKG_VERSION").into(),
            secret: fingerprint(config)?,
            ..Status::default()
        };
        Ok(Nodes { own, identity: head.identity, ..Nodes::default() })
    }

    /// Whether Redis can be written and read.
    pub fn up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// The nodes that are known, this one among them.
    pub fn all(&self) -> Vec<Node> {
        lock(&self.known).values().cloned().collect()
    }

    /// Notes how Redis was found, and says so where that is news.
    pub fn report(&self, way: Way, found: Result<(), String>) {
        let mut trouble = lock(&self.trouble);
        let before = trouble.iter().flatten().next().cloned();
        let index = usize::from(way == Way::Read);
        trouble.iter_mut().skip(index).take(1).for_each(|trouble| *trouble = found.clone().err());
        let after = trouble.iter().flatten().next().cloned();
        let was_up = self.up.swap(after.is_none(), Relaxed);
        match (before, after) {
            (None, Some(why)) => log(format!(
                "Redis is away ({why}): this goat goes on with what it knows, and once a minute with what the database knows"
            )),
            (Some(_), None) if !was_up => log("Redis is back: catching up with the other goats"),
            _ => {}
        }
    }
}

/// By which those who share the secret are known, without the secret.
pub fn fingerprint(config: &Config) -> Result<String, String> {
    let key = derived_key(config, "fingerprint of the secret")?;
    Ok(hex(key.get(..4).unwrap_or_default()))
}
