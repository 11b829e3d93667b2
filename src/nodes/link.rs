//! The two threads that talk to Redis, and how it is reached.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::streams::StreamReadReply;
use redis::{Client, Connection, ErrorKind, RedisError, Value, cmd, from_redis_value, pipe};

use super::news::{Entry, Torrents, count, forget, word};
use super::{Node, Nodes, Status, Way};
use crate::books::journal::RECORD;
use crate::config::Config;
use crate::log::log;
use crate::sync::{join, lock};
use crate::tracker::Tracker;

/// How long Redis may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// From one publication to the next, and how long a reader waits for one.
const TURN: Duration = Duration::from_secs(1);
const BLOCK: u64 = 500;
/// The most bytes of records in an entry, and entries that are read together.
const ENTRY: usize = (1 << 20) / RECORD * RECORD;
const TOGETHER: u32 = 8;
/// Milliseconds for which the stream keeps an entry.
const KEPT: u64 = 60_000;
/// Bytes of records that are kept while Redis is away, about: who misses some asks the database.
const PENDING: usize = 64 << 20;
/// From one reading of the database to the next while Redis is away, and how long another node may take to write.
const READ: Duration = Duration::from_secs(60);
const UNWRITTEN: u32 = 45;
/// How long nothing may be read of what this node has published: the stream was replaced by another.
const DEAF: Duration = Duration::from_secs(5);
/// Seconds between two looks at what can be forgotten, and after which a node that is silent is.
const TIDY: u32 = 10;
const GONE: u32 = 3_600;
/// The version of what entries hold.
const VERSION: &str = "1";

/// Why Redis cannot be used: it is away, or it never will.
pub enum Trouble {
    Away(String),
    Wrong(String),
}

impl Trouble {
    pub fn words(self) -> String {
        match self {
            Trouble::Away(words) | Trouble::Wrong(words) => words,
        }
    }
}

impl From<RedisError> for Trouble {
    fn from(e: RedisError) -> Trouble {
        let wrong = matches!(e.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig)
            || matches!(e.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
            || e.to_string().contains("DB index");
        if wrong { Trouble::Wrong(e.to_string()) } else { Trouble::Away(e.to_string()) }
    }
}

/// The URL as the library reads it: what may stand in a password is escaped.
fn url(config: &Config) -> String {
    let url = config.redis.as_deref().unwrap_or_default();
    let Some((login, place)) = url.rsplit_once('@') else { return url.into() };
    let (scheme, login) = login.split_once("://").unwrap_or(("redis", login));
    let (user, password) = login.split_once(':').unwrap_or((login, ""));
    let escape = |text: &str| -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"%-._~".contains(&byte);
        text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
    };
    format!("{scheme}://{}:{}@{place}", escape(user), escape(password))
}

/// Connects, and sees to it that this is of use.
pub fn connect(config: &Config) -> Result<Connection, Trouble> {
    let mut connection = Client::open(url(config))?.get_connection_with_timeout(PATIENCE)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.set_write_timeout(Some(PATIENCE))?;
    cmd("PING").exec(&mut connection)?;
    Ok(connection)
}

/// The keys of the stream and of the table of nodes.
fn keys(identity: u64) -> (String, String) {
    (format!("goat:{identity:016x}:log"), format!("goat:{identity:016x}:nodes"))
}

/// What the nodes on a database said of themselves last.
pub fn list(config: &Config, identity: u64) -> Result<Vec<Status>, Trouble> {
    let found: HashMap<String, String> = cmd("HGETALL").arg(keys(identity).1).query(&mut connect(config)?)?;
    let all: Vec<Status> = found.values().filter_map(|text| serde_json::from_str(text).ok()).collect();
    let last = |node: &&Status| !all.iter().any(|other| other.is_after(node));
    let mut nodes: Vec<Status> = all.iter().filter(last).cloned().collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(nodes)
}

/// The two threads.
pub struct Link {
    stops: [Sender<()>; 2],
    threads: [JoinHandle<()>; 2],
}

impl Link {
    /// Starts them. An error where Redis says that it cannot be used so; one that is away is not waited for.
    pub fn start(tracker: &Arc<Tracker>) -> Result<Link, String> {
        let found = connect(&tracker.config);
        if let Err(Trouble::Wrong(why)) = &found {
            return Err(format!("Redis cannot be used: {why}. Look at Redis in {}", tracker.config.file.display()));
        }
        tracker.nodes.report(Way::Write, found.map(drop).map_err(Trouble::words));
        let ((stop_writer, writer), (stop_reader, reader)) = (channel(), channel());
        let failed = |e| format!("cannot start a thread: {e}");
        let (ours, theirs) = (tracker.clone(), tracker.clone());
        let write = move || Publisher::new(ours).run(&writer);
        let read = move || Reader::new(theirs).run(&reader);
        let threads = [
            Builder::new().name("redis-out".into()).spawn(write).map_err(failed)?,
            Builder::new().name("redis-in".into()).spawn(read).map_err(failed)?,
        ];
        Ok(Link { stops: [stop_writer, stop_reader], threads })
    }

    /// Publishes what is left, and ends.
    pub fn stop(self) {
        for stop in &self.stops {
            let _ = stop.send(()); // A thread that has ended needs none.
        }
        if join(self.threads, Instant::now() + PATIENCE) > 0 {
            log("a thread that talks to Redis had ended by a defect of goat: please report it");
        }
    }
}

/// Tells others what this node journals.
struct Publisher {
    tracker: Arc<Tracker>,
    connection: Option<Connection>,
    sequence: u64,
    /// Entries that Redis does not have yet: their numbers, failures and records.
    pending: VecDeque<(u64, String, Vec<u8>)>,
    /// Announces at the last turn.
    announces: u64,
    /// When the last entry was made, in milliseconds since 1970 by the clock of Redis.
    last: u64,
    /// Whether it is in the table of nodes.
    listed: bool,
}

impl Publisher {
    fn new(tracker: Arc<Tracker>) -> Publisher {
        Publisher {
            tracker,
            connection: None,
            sequence: 0,
            pending: VecDeque::new(),
            announces: 0,
            last: 0,
            listed: false,
        }
    }

    fn run(mut self, stop: &Receiver<()>) {
        let mut pause = TURN;
        loop {
            let stopped = stop.recv_timeout(pause) != Err(RecvTimeoutError::Timeout);
            let begin = Instant::now();
            self.gather();
            let sent = self.send(stopped);
            if sent.is_err() {
                self.connection = None;
            }
            self.tracker.nodes.report(Way::Write, sent.map_err(Trouble::words));
            if stopped {
                return;
            }
            pause = TURN.saturating_sub(begin.elapsed());
        }
    }

    /// Makes entries of what was journaled: one at least, so that others see that this node is there.
    fn gather(&mut self) {
        let (records, lost) = self.tracker.journal.outbox().map(|outbox| outbox.take()).unwrap_or_default();
        let mut failures = word(&self.tracker.limits.take_failures());
        if records.len() <= ENTRY {
            self.push(std::mem::take(&mut failures), records);
        } else {
            records.chunks(ENTRY).for_each(|part| self.push(std::mem::take(&mut failures), part.to_vec()));
        }
        // A number that nobody gets tells others that they miss something.
        self.sequence = self.sequence.saturating_add(u64::from(lost));
        while self.pending.iter().map(|(.., records)| records.len()).sum::<usize>() > PENDING {
            self.pending.pop_front();
        }
    }

    fn push(&mut self, failures: String, records: Vec<u8>) {
        let idle = |(_, failures, records): &(u64, String, Vec<u8>)| failures.is_empty() && records.is_empty();
        if self.pending.back().is_some_and(idle) {
            self.pending.pop_back();
            self.sequence = self.sequence.saturating_sub(1);
        }
        self.sequence = self.sequence.saturating_add(1);
        self.pending.push_back((self.sequence, failures, records));
    }

    fn send(&mut self, last: bool) -> Result<(), Trouble> {
        let status = self.status();
        let said = serde_json::to_string(&status).unwrap_or_default();
        let (log, nodes) = keys(self.tracker.nodes.identity);
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(&self.tracker.config)?),
        };
        while let Some((sequence, failures, records)) = self.pending.front() {
            let mut entry = cmd("XADD");
            entry.arg(&log).arg("MINID").arg("~").arg(self.last.saturating_sub(KEPT)).arg("*");
            entry.arg("v").arg(VERSION).arg("n").arg(&status.run).arg("s").arg(*sequence).arg("i").arg(&said);
            // To try it again is harmless: an entry is known by its number.
            let id: String = entry.arg("f").arg(failures).arg("d").arg(records).query(connection)?;
            self.last = milliseconds(&id);
            self.tracker.nodes.published.fetch_add((records.len() / RECORD) as u64, Relaxed);
            self.pending.pop_front();
        }
        let mut table = pipe();
        if !std::mem::replace(&mut self.listed, true) {
            // What is left of this goat's last run.
            let found: HashMap<String, String> = cmd("HGETALL").arg(&nodes).query(connection)?;
            let same = |text: &str| serde_json::from_str(text).is_ok_and(|old: Status| status.is_after(&old));
            for (run, _) in found.iter().filter(|(_, text)| same(text)) {
                table.cmd("HDEL").arg(&nodes).arg(run).ignore();
            }
        }
        match last {
            true => table.cmd("HDEL").arg(&nodes).arg(&status.run).ignore(),
            false => table.cmd("HSET").arg(&nodes).arg(&status.run).arg(&said).ignore(),
        };
        table.cmd("EXPIRE").arg(&nodes).arg(86_400).ignore();
        table.cmd("EXPIRE").arg(&log).arg(86_400).ignore().exec(connection)?;
        Ok(())
    }

    fn status(&mut self) -> Status {
        let (tracker, now) = (&self.tracker, self.tracker.clock.now());
        let announces = tracker.metrics.announces().0;
        let saved = tracker.metrics.saved.load(Relaxed);
        let written = if saved == 0 { now } else { saved };
        let since = std::mem::replace(&mut self.announces, announces);
        Status {
            time: now,
            written,
            database: tracker.metrics.database_up.load(Relaxed),
            unsaved_rows: tracker.metrics.unsaved.load(Relaxed),
            announces,
            announces_per_second: announces.saturating_sub(since),
            ..tracker.nodes.own.clone()
        }
    }
}

/// The time in the id of an entry, in milliseconds since 1970.
fn milliseconds(id: &str) -> u64 {
    id.split('-').next().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Takes over what others tell.
struct Reader {
    tracker: Arc<Tracker>,
    connection: Option<Connection>,
    torrents: Torrents,
    /// The last entry that was read.
    last: String,
    /// Whether all that the stream had at the start was read.
    begun: bool,
    /// When something was read last, of the stream and of the database.
    heard: Instant,
    asked: Instant,
    /// When all was known that the database does not have, in seconds since 1970; and when to ask it once more after
    /// something was missed, for it may lag behind.
    complete: u32,
    once_more: Option<Instant>,
    /// The least difference seen between this clock and that of Redis, in milliseconds.
    offset: i64,
    tidy: u32,
}

impl Reader {
    fn new(tracker: Arc<Tracker>) -> Reader {
        let (now, start) = (tracker.clock.now(), Instant::now());
        let mut torrents = Torrents::default();
        torrents.refresh(&tracker);
        Reader {
            tracker,
            connection: None,
            torrents,
            last: "0".into(),
            begun: false,
            heard: start,
            asked: start,
            complete: now,
            once_more: None,
            offset: i64::MAX,
            tidy: now,
        }
    }

    fn run(mut self, stop: &Receiver<()>) {
        while matches!(stop.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
            let done = self.read();
            let failed = done.is_err();
            self.tracker.nodes.report(Way::Read, done.map_err(Trouble::words));
            if failed {
                self.connection = None;
            } else {
                self.complete = self.tracker.clock.now();
            }
            let late = self.once_more.is_some_and(|at| Instant::now() >= at);
            if late || failed && self.asked.elapsed() >= READ {
                self.ask(self.complete.saturating_sub(UNWRITTEN + 60));
            }
            if failed && stop.recv_timeout(TURN) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            self.tidy();
        }
    }

    /// Takes over what the database knows of sessions heard of since a time.
    fn ask(&mut self, since: u32) {
        (self.asked, self.once_more) = (Instant::now(), None);
        // Where it is away as well, the keeper has said so.
        let _ = self.torrents.read(&self.tracker, since);
    }

    fn read(&mut self) -> Result<(), Trouble> {
        let log = keys(self.tracker.nodes.identity).0;
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connect(&self.tracker.config)?),
        };
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(TOGETHER).arg("BLOCK").arg(BLOCK).arg("STREAMS").arg(&log).arg(&self.last);
        let entries: Option<StreamReadReply> = read.query(connection)?;
        let entries = entries.map(|reply| reply.keys).unwrap_or_default().into_iter().flat_map(|key| key.ids);
        let (mut some, mut missed) = (false, false);
        for found in entries {
            some = true;
            let lag = self.lag(&found.id);
            if let Some(entry) = parse(found.map) {
                missed |= self.hear(entry, lag);
            }
            self.last = found.id;
        }
        if some {
            self.heard = Instant::now();
        } else if self.heard.elapsed() > DEAF {
            // Another Redis took over whose clock is behind, or everything was removed.
            (self.last, self.heard) = ("0".into(), Instant::now());
        }
        self.begun |= !some;
        if missed {
            self.tracker.nodes.gaps.fetch_add(1, Relaxed);
            self.ask(0);
            self.once_more = Some(Instant::now() + Duration::from_secs(UNWRITTEN.into()));
        }
        Ok(())
    }

    /// Milliseconds since an entry was made, in as far as the clocks ran alike since the first.
    fn lag(&mut self, id: &str) -> u64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as i64);
        let since = now.saturating_sub_unsigned(milliseconds(id));
        self.offset = self.offset.min(since);
        since.saturating_sub(self.offset).unsigned_abs()
    }

    /// Takes over an entry. Returns whether there were others before it that are lost.
    fn hear(&mut self, entry: Entry, lag: u64) -> bool {
        let (tracker, Nodes { own, known, .. }) = (&self.tracker, &self.tracker.nodes);
        let sequence = lock(known).get(&entry.status.run).map(|node| node.sequence);
        if sequence.is_some_and(|last| entry.sequence <= last) {
            return false;
        }
        let next = sequence.unwrap_or(0).saturating_add(1);
        let missed = entry.sequence > next && (sequence.is_some() || self.begun);
        if entry.status.run != own.run {
            count(tracker, &entry.failures);
            let heard = self.torrents.hear(tracker, &entry.records);
            tracker.nodes.heard.fetch_add(heard, Relaxed);
        }
        let Entry { status, sequence, .. } = entry;
        let (mut known, heard) = (lock(known), tracker.clock.now());
        if !known.contains_key(&status.run) {
            // The same goat, started again; or another on a machine that calls itself the same.
            known.retain(|_, node| node.status.name != status.name || node.heard.saturating_add(TIDY) > heard);
        }
        known.insert(status.run.clone(), Node { status, heard, lag, sequence });
        missed
    }

    /// Forgets nodes that are gone, and what was kept of the others' states until they had written them.
    fn tidy(&mut self) {
        let (nodes, now) = (&self.tracker.nodes, self.tracker.clock.now());
        if now < self.tidy.saturating_add(TIDY) {
            return;
        }
        self.tidy = now;
        let mut known = lock(&nodes.known);
        known.retain(|_, node| node.heard.saturating_add(GONE) > now);
        let others = known.values().filter(|node| node.status.run != nodes.own.run);
        let written = others.map(|node| node.status.written).min().unwrap_or(now);
        drop(known);
        forget(&self.tracker, written);
    }
}

/// An entry, if it is one that this version knows.
fn parse(mut fields: HashMap<String, Value>) -> Option<Entry> {
    let mut text = |name: &str| from_redis_value::<String>(fields.remove(name)?).ok();
    (text("v")? == VERSION).then_some(())?;
    let (run, sequence) = (text("n")?, text("s")?.parse().ok()?);
    let status: Status = serde_json::from_str(&text("i")?).ok()?;
    let failures = text("f").unwrap_or_default();
    let records = from_redis_value(fields.remove("d")?).ok()?;
    Some(Entry { sequence, status: Status { run, ..status }, failures, records })
}
