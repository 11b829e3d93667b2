//! The thread that talks to Redis: once a second it tells what happened here, and meanwhile it hears what others tell.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant, UNIX_EPOCH};

use redis::streams::StreamReadReply;
use redis::{cmd, from_redis_value};

use super::connection::{Connection, PATIENCE};
use super::entry::{Head, Seal};
use super::news::Torrents;
use super::{Nodes, Status};
use crate::books::journal::RECORD;
use crate::log::log;
use crate::sync::{join, lock};
use crate::tracker::Tracker;

/// From one publication to the next, and how long to wait at most for something to hear.
const TURN: Duration = Duration::from_secs(1);
const BLOCK: Duration = Duration::from_millis(500);
/// The most bytes of records in an entry, and entries that are read together.
const ENTRY: usize = (1 << 20) / RECORD * RECORD;
const TOGETHER: u32 = 4;
/// Milliseconds for which the stream keeps an entry, and seconds for which Redis keeps what no goat writes to.
const KEPT: u64 = 60_000;
const DAY: u32 = 86_400;
/// From one reading of the database to the next while something may be missed, and how long others may take to write.
const ASK: Duration = Duration::from_secs(60);
const UNWRITTEN: Duration = Duration::from_secs(45);
/// Seconds for which what was told is in doubt where Redis went away, or what it says cannot be read.
const DOUBT: u32 = 105;
/// Seconds after which a node that is silent is forgotten.
const GONE: u32 = 3_600;
/// The version of what entries hold.
const VERSION: &[u8] = b"2";

/// The keys of the stream and of the table of nodes.
fn keys(identity: u64) -> [String; 2] {
    ["log", "nodes"].map(|what| format!("goat:{identity:016x}:{what}"))
}

/// What the nodes on a database said of themselves last, by the Redis of a URL.
pub fn list(url: &str, identity: u64) -> io::Result<Vec<Status>> {
    nodes(&mut Connection::open(url)?, identity)
}

/// Reads the table of nodes, and takes out of it who is gone, and what no goat has written.
fn nodes(connection: &mut Connection, identity: u64) -> io::Result<Vec<Status>> {
    let ([_, table], since) = (keys(identity), crate::clock::now().saturating_sub(GONE.into()));
    let (mut nodes, mut gone) = (Vec::new(), Vec::new());
    for (name, text) in connection.query::<HashMap<Vec<u8>, Vec<u8>>>(cmd("HGETALL").arg(&table))? {
        match serde_json::from_slice::<Status>(&text) {
            Ok(node) if node.name.as_bytes() == name && u64::from(node.time) > since => nodes.push(node),
            _ => gone.push(name),
        }
    }
    if !gone.is_empty() {
        connection.query::<()>(cmd("HDEL").arg(&table).arg(gone))?;
    }
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(nodes)
}

pub struct Link {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Link {
    /// Starts it. An error where Redis says that it cannot be used so; one that is away is not waited for.
    pub fn start(tracker: &Arc<Tracker>) -> Result<Link, String> {
        let mut talk = Talk {
            tracker: tracker.clone(),
            seal: Seal::new(&tracker.config, tracker.nodes.identity)?,
            connection: None,
            published: None,
            sequence: 0,
            pending: VecDeque::new(),
            newest: 0,
            last: String::new(),
            runs: HashMap::new(),
            torrents: Torrents::of(tracker),
            missed: None,
            asked: Some(Instant::now()),
        };
        match talk.connect() {
            Err(e) if e.kind() == ErrorKind::PermissionDenied => {
                return Err(format!("Redis cannot be used: {e}. Look at Redis in {}", tracker.config.file.display()));
            }
            done => tracker.nodes.report(done),
        }
        let (stop, stopped) = channel();
        let thread = Builder::new().name("redis".into()).spawn(move || talk.run(&stopped));
        Ok(Link { stop, thread: thread.map_err(|e| format!("cannot start a thread: {e}"))? })
    }

    /// Publishes what is left, and ends.
    pub fn stop(self) {
        let _ = self.stop.send(()); // A thread that has ended needs none.
        if join([self.thread], Instant::now() + PATIENCE) > 0 {
            log("the thread that talks to Redis had ended by a defect of goat: please report it");
        }
    }
}

struct Talk {
    tracker: Arc<Tracker>,
    seal: Seal,
    connection: Option<Connection>,
    /// When it published last, the number of its last entry, and those that Redis does not have yet.
    published: Option<Instant>,
    sequence: u64,
    pending: VecDeque<Vec<u8>>,
    /// When Redis got the last, in milliseconds since 1970 by its clock.
    newest: u64,
    /// The last entry that was read; of each run of goat the number of its last, and when that was heard, in seconds
    /// since 1970.
    last: String,
    runs: HashMap<u64, (u64, u32)>,
    torrents: Torrents,
    /// Since when something may have been missed, in seconds since 1970, and until when the database may not have it.
    missed: Option<(u32, Instant)>,
    asked: Option<Instant>,
}

impl Talk {
    fn run(mut self, stop: &Receiver<()>) {
        let mut pause = Duration::ZERO;
        loop {
            let stopped = stop.recv_timeout(pause) != Err(RecvTimeoutError::Timeout);
            let done = self.turn(stopped);
            pause = if done.is_ok() { Duration::ZERO } else { TURN };
            if done.is_err() {
                self.connection = None;
                self.miss(self.tracker.clock.now().saturating_sub(DOUBT));
            }
            self.tracker.nodes.report(done);
            if stopped {
                return;
            }
            self.ask();
        }
    }

    fn connect(&mut self) -> io::Result<()> {
        self.connection = Some(Connection::open(self.tracker.config.redis.as_deref().unwrap_or_default())?);
        // It may be another Redis than before: what it has is read from the start.
        self.last = "0".into();
        Ok(())
    }

    /// Publishes if it is time, and reads.
    fn turn(&mut self, stopped: bool) -> io::Result<()> {
        if self.connection.is_none() {
            self.connect()?;
        }
        if stopped || self.published.is_none_or(|last| last.elapsed() >= TURN) {
            self.published = Some(Instant::now());
            self.publish(stopped)?;
        }
        if stopped { Ok(()) } else { self.read() }
    }

    /// Tells what was journaled since the last time, and how this node is.
    fn publish(&mut self, last: bool) -> io::Result<()> {
        if self.pending.is_empty() {
            self.gather();
        }
        let (status, nodes) = (self.status(), &self.tracker.nodes);
        let (Some(connection), [log, table]) = (&mut self.connection, keys(nodes.identity)) else { return Ok(()) };
        while let Some(entry) = self.pending.front() {
            let mut add = cmd("XADD");
            add.arg(&log).arg("MINID").arg("~").arg(self.newest.saturating_sub(KEPT)).arg("*");
            // To try it again is harmless: an entry is known by its number.
            let id: String = connection.query(add.arg("v").arg(VERSION).arg("d").arg(entry))?;
            self.newest = id.split('-').next().and_then(|text| text.parse().ok()).unwrap_or(0);
            self.pending.pop_front();
        }
        match last {
            true => connection.query::<()>(cmd("HDEL").arg(&table).arg(&status.name))?,
            false => {
                let said = serde_json::to_string(&status).unwrap_or_default();
                connection.query::<()>(cmd("HSET").arg(&table).arg(&status.name).arg(said))?;
            }
        }
        connection.query::<()>(cmd("EXPIRE").arg(&log).arg(DAY))?;
        connection.query::<()>(cmd("EXPIRE").arg(&table).arg(DAY))?;
        *lock(&nodes.known) = self::nodes(connection, nodes.identity)?;
        Ok(())
    }

    /// Makes entries of what was journaled: one at least, so that others see that this node is there.
    fn gather(&mut self) {
        let Tracker { journal, limits, nodes, .. } = &*self.tracker;
        let (records, lost) = journal.take_told();
        // A number that nobody gets tells others that they miss something.
        self.sequence = self.sequence.saturating_add(u64::from(lost));
        let mut failures = limits.take_failures();
        let parts = if records.is_empty() { vec![&[][..]] } else { records.chunks(ENTRY).collect() };
        for part in parts {
            self.sequence = self.sequence.saturating_add(1);
            let (run, failures) = (nodes.run, std::mem::take(&mut failures));
            let head = Head { run, sequence: self.sequence, time: milliseconds(), failures };
            self.pending.extend(self.seal.seal(&head, part));
        }
        nodes.published.fetch_add((records.len() / RECORD) as u64, Relaxed);
    }

    fn status(&self) -> Status {
        let Tracker { metrics, clock, nodes, .. } = &*self.tracker;
        let (time, announces) = (clock.now(), metrics.announces().0);
        let before = lock(&nodes.known).iter().find(|node| node.name == nodes.own.name).cloned().unwrap_or_default();
        let passed = u64::from(time.saturating_sub(before.time)).max(1);
        Status {
            time,
            lag: nodes.lag.load(Relaxed),
            database: metrics.database_up.load(Relaxed),
            unsaved_rows: metrics.unsaved.load(Relaxed),
            announces,
            announces_per_second: announces.saturating_sub(before.announces) / passed,
            ..nodes.own.clone()
        }
    }

    /// Takes over what others tell; waits for it until it is time to publish.
    fn read(&mut self) -> io::Result<()> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let rest = TURN.saturating_sub(self.published.map_or(TURN, |last| last.elapsed())).min(BLOCK);
        let mut read = cmd("XREAD");
        read.arg("COUNT").arg(TOGETHER).arg("BLOCK").arg((rest.as_millis() as u64).max(1)).arg("STREAMS");
        let [log, _] = keys(self.tracker.nodes.identity);
        let found: Option<StreamReadReply> = connection.query(read.arg(log).arg(&self.last))?;
        for mut entry in found.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids) {
            let mut field = |name: &str| from_redis_value::<Vec<u8>>(entry.map.remove(name)?).ok();
            let ours = field("v").is_some_and(|version| version == VERSION);
            let mut sealed = field("d").filter(|_| ours).unwrap_or_default();
            match self.seal.open(&mut sealed) {
                Some((head, records)) => self.hear(head, records),
                // Of another version, or of a goat with another secret.
                None => self.miss(self.tracker.clock.now().saturating_sub(DOUBT)),
            }
            self.last = entry.id;
        }
        Ok(())
    }

    fn hear(&mut self, head: Head, records: &[u8]) {
        let tracker = self.tracker.clone();
        let Nodes { run: own, lag, heard, gaps, .. } = &tracker.nodes;
        let (known, now) = (self.runs.get(&head.run).map_or(0, |(sequence, _)| *sequence), tracker.clock.now());
        if head.sequence <= known {
            return;
        }
        // Told long ago: what came of it the database knows, and somebody may have told it again.
        if head.time.abs_diff(milliseconds()) > 2 * KEPT {
            return self.miss(0);
        }
        if head.run == *own {
            lag.store(milliseconds().saturating_sub(head.time), Relaxed);
        } else {
            if known != 0 && head.sequence > known.saturating_add(1) {
                gaps.fetch_add(1, Relaxed);
                self.miss(0);
                self.asked = None;
            }
            head.failures.iter().for_each(|(what, ip)| tracker.limits.count(*what, *ip, now));
            heard.fetch_add(self.torrents.hear(&tracker, records), Relaxed);
        }
        if self.runs.insert(head.run, (head.sequence, now)).is_none() {
            self.runs.retain(|_, (_, heard)| heard.saturating_add(GONE) > now);
        }
    }

    /// Notes that what others told since a time may have been missed.
    fn miss(&mut self, since: u32) {
        let since = self.missed.map_or(since, |(before, _)| since.min(before));
        self.missed = Some((since, Instant::now() + UNWRITTEN));
    }

    /// Takes over what the database knows, while something may be missed, and a last time when others have written that.
    fn ask(&mut self) {
        let due = self.asked.is_none_or(|last| last.elapsed() >= ASK);
        if let Some((since, until)) = self.missed.filter(|_| due) {
            let now = Instant::now();
            self.asked = Some(now);
            // Where it is away as well, the keeper has said so.
            if self.torrents.read(&self.tracker, since).is_ok() {
                self.missed = self.missed.filter(|_| now < until);
            }
        }
    }
}

fn milliseconds() -> u64 {
    UNIX_EPOCH.elapsed().map_or(0, |passed| passed.as_millis() as u64)
}
