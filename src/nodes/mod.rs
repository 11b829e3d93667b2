//! Other goats on the same database: together they are one tracker. MySQL holds the truth, and one Redis or Valkey
//! carries news: a stream to which each goat (a node) adds once a second what it journaled in that second, and which all
//! read. What a node hears it merges into its swarms, and writes nothing of it: that the one does who was announced to.
//!
//! Announces never wait for Redis, nor does the keeper: a thread of its own tells and hears. While Redis is away each
//! node goes on with what it knows and, every minute, with what the database knows.
//!
//! This file holds what is known of the nodes; [`link`] has the thread, [`connection`] its way to Redis, [`entry`] what
//! is told, and [`news`] what is made of that.

#[cfg(feature = "redis")]
mod connection;
#[cfg(feature = "redis")]
pub mod entry;
#[cfg(feature = "redis")]
pub mod link;
#[cfg(feature = "redis")]
pub mod news;

use std::io;
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
    /// The machine, where it listens at one address that too, and the port: no two are called the same.
    pub name: String,
    pub version: String,
    /// Its clock, in seconds since 1970.
    pub time: u32,
    /// Milliseconds that its news took last until they came back to it.
    pub lag: u64,
    pub database: bool,
    pub unsaved_rows: u64,
    /// Announces answered since its start, and in the last second.
    pub announces: u64,
    pub announces_per_second: u64,
    /// By which those who share the secret beside the configuration are known.
    pub secret: String,
}

#[derive(Default)]
pub struct Nodes {
    /// What this node is, and the run of it that the others know.
    own: Status,
    run: u64,
    /// The stream and the table of the nodes are named after the database.
    identity: u64,
    known: Mutex<Vec<Status>>,
    /// Redis could not be used when it was last.
    away: AtomicBool,
    /// Records published and heard, times that entries were lost, and the milliseconds that this node's news took last
    /// until they came back to it.
    pub published: AtomicU64,
    pub heard: AtomicU64,
    pub gaps: AtomicU64,
    pub lag: AtomicU64,
}

impl Nodes {
    /// Nobody but this goat, whose journal begins so.
    pub fn new(config: &Config, head: Option<Head>) -> Result<Nodes, String> {
        let Some(head) = head.filter(|_| config.redis.is_some()) else { return Ok(Nodes::default()) };
        let host = if config.everywhere() { String::new() } else { format!(" {}", config.host) };
        let own = Status {
            name: format!("{}{host}:{}", crate::sys::hostname(), config.port),
            version: env!("CARGO_PKG_VERSION").into(),
            secret: fingerprint(config)?,
            ..Status::default()
        };
        Ok(Nodes { own, run: head.run, identity: head.identity, ..Nodes::default() })
    }

    /// Whether Redis could be used when it was last.
    pub fn up(&self) -> bool {
        !self.away.load(Relaxed)
    }

    /// The nodes that were there lately, this one among them.
    pub fn all(&self) -> Vec<Status> {
        lock(&self.known).clone()
    }

    /// Notes how Redis was found, and says so where that is news.
    pub fn report(&self, found: io::Result<()>) {
        match (self.away.swap(found.is_err(), Relaxed), found) {
            (false, Err(why)) => log(format!(
                "Redis is away ({why}): this goat goes on with what it knows, and once a minute with what the database knows"
            )),
            (true, Ok(())) => log("Redis is back: catching up with the other goats"),
            _ => {}
        }
    }
}

/// By which those who share the secret are known, without the secret.
pub fn fingerprint(config: &Config) -> Result<String, String> {
    let key = derived_key(config, "fingerprint of the secret")?;
    Ok(hex(key.get(..4).unwrap_or_default()))
}
