//! What it costs to be one tracker with others, on a MariaDB and a Redis of the bench's own.
//!
//!     cargo bench --bench nodes
//!     cargo bench --bench nodes -- --seconds 20 --rate 5000 --sessions 100000
//!     cargo bench --bench nodes -- --hear 1000000
//!
//! One node without Redis, then one, two and three with it, each of which is announced to at that rate: CPU for each
//! announce of a node, made without sockets, of which the keeper and the two threads that talk to Redis are a part; the
//! CPU of Redis, MariaDB and the memory of Redis; and how long it takes until another node has a new peer. With `--hear`
//! only what it costs to take over so many announces of another node, without Redis and MariaDB.

mod common;
#[path = "../tests/common/mod.rs"]
mod fixtures;

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{Cpu, TempDir, argument, number, percentile, rss};
use fixtures::Database;
use fixtures::redis::Redis;
use goat::config;
use goat::keeper::Keeper;
use goat::nodes::link::Link;
use goat::nodes::news::Torrents;
use goat::protocol::{Announce, Event};
use goat::random::Rng;
use goat::rules::announce::{Admitted, Buffers, announce};
use goat::torrent::{InfoHash, PeerId};
use goat::tracker::Tracker;
use serde_json::json;

const USERS: u64 = 1_000;
const TORRENTS: u64 = 10_000;
/// The torrent whose new peers are waited for, and from one of them to the next.
const PROBE: u64 = 0;
const PROBES: Duration = Duration::from_millis(37);
/// Announces that a listener answers in one round.
const ROUND: u64 = 16;

fn hash(torrent: u64) -> InfoHash {
    InfoHash(common::info_hash(torrent))
}

fn microseconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// Microseconds of CPU that a process has used.
fn cpu(id: u32) -> f64 {
    let cpu = Cpu::of(id);
    (cpu.user + cpu.system) * 1e4
}

/// One node: announces for a while, and prints what that took.
struct Node {
    tracker: Arc<Tracker>,
    number: u64,
    rng: Rng,
    buffers: Buffers,
    rounds: u64,
}

impl Node {
    fn new(tracker: Arc<Tracker>, number: u64) -> Node {
        let (rng, buffers) = (Rng::new(number), Buffers::new(Rng::new(2)));
        Node { tracker, number, rng, buffers, rounds: 0 }
    }

    fn announce(&mut self, torrent: u64, user: u64, peer_id: [u8; 20], left: u64, event: Event) {
        self.rounds += 1;
        let a = Announce {
            port: 1024 + (self.rounds % 60_000) as u16,
            uploaded: self.rounds * 1_000,
            downloaded: self.rounds * 10,
            left,
            ..common::announce(torrent, user, peer_id, event)
        };
        let Tracker { config, swarms, clock, access, journal, .. } = &*self.tracker;
        let who = Admitted { user: access.by_id(user as u32 + 1).unwrap(), refusal: None };
        announce(config, swarms, &who, &a, clock.now(), &mut self.buffers).unwrap();
        if self.rounds.is_multiple_of(ROUND) || torrent == PROBE {
            journal.write(&mut self.buffers.records);
        }
    }

    fn random(&mut self, sessions: u64) {
        let session = self.rng.below(sessions as usize) as u64;
        let mut peer_id = *b"-qB5020-............";
        peer_id[12..].copy_from_slice(&(session << 8 | self.number).to_be_bytes());
        self.announce(
            1 + session % (TORRENTS - 1),
            // A member's clients stay at one node, as behind a proxy that sees to that.
            session % (USERS / 4) * 4 + self.number,
            peer_id,
            session % 2 * 1_000,
            Event::None,
        );
    }

    /// A new peer whose id says when it came.
    fn probe(&mut self) {
        let mut peer_id = *b"-qB5020-prob........";
        peer_id[12..].copy_from_slice(&microseconds().to_be_bytes());
        self.announce(PROBE, self.rounds % USERS, peer_id, 1_000, Event::Started);
    }

    /// How long it took for new peers of the first node to be here, in seconds.
    fn look(&self, known: &mut HashSet<PeerId>, late: &mut Vec<f64>) {
        let now = microseconds();
        let shard = self.tracker.swarms.shard(&hash(PROBE));
        let swarm = shard.torrents.get(&hash(PROBE)).and_then(|torrent| torrent.swarm.as_deref());
        for (session, _) in swarm.into_iter().flat_map(|swarm| swarm.iter()) {
            if known.insert(session.peer_id) {
                let came = u64::from_be_bytes(session.peer_id.0[12..].try_into().unwrap());
                late.push(now.saturating_sub(came) as f64 / 1e6);
            }
        }
    }
}

fn node(file: &str) {
    let (number, rate, seconds, sessions) =
        (number("--node", 0), number("--rate", 5_000), number("--seconds", 30), number("--sessions", 100_000));
    let config = config::load(file.as_ref()).unwrap();
    let shared = config.redis.is_some();
    let tracker = Arc::new(Tracker::load(config).unwrap());
    let link = shared.then(|| Link::start(&tracker).unwrap());
    let (stop, stopped) = channel();
    let mut keeper = Keeper::new(tracker.clone());
    let keeping = thread::spawn(move || {
        keeper.run(&stopped, || ()).unwrap();
        keeper
    });
    let mut node = Node::new(tracker, number);
    (0..sessions / 4).for_each(|_| node.random(sessions));
    thread::sleep(Duration::from_secs(12)); // all of them have loaded, and what that left is written
    let (begin, before) = (Instant::now(), cpu(std::process::id()));
    let (mut done, mut probed, mut known, mut late) = (0, begin, HashSet::new(), Vec::new());
    while begin.elapsed().as_secs() < seconds {
        let due = (begin.elapsed().as_secs_f64() * rate as f64) as u64;
        (done..due).for_each(|_| node.random(sessions));
        done = due;
        if number == 0 && probed.elapsed() > PROBES {
            probed = Instant::now();
            node.probe();
        } else if number > 0 && probed.elapsed() > Duration::from_millis(5) {
            probed = Instant::now();
            node.look(&mut known, &mut late);
        }
        thread::sleep(Duration::from_millis(1));
    }
    let used = cpu(std::process::id()) - before;
    late.sort_by(f64::total_cmp);
    println!("{} {} {}", used / done as f64, percentile(&late, 0.5), percentile(&late, 0.99));
    stop.send(()).unwrap();
    link.into_iter().for_each(Link::stop);
    keeping.join().unwrap().finish().unwrap();
}

/// Announces that are heard together: those of a second.
const SECOND: u64 = 5_000;

/// What it costs to take over announces of another node, and nothing else.
fn hear(announces: u64) {
    let sessions = number("--sessions", 100_000);
    let dir = TempDir::new("hear");
    let databases = [Database::sqlite(), Database::sqlite()];
    let [speaker, listener] = [0, 1].map(|i| {
        let file = dir.0.join(format!("{i}.json"));
        let settings = json!({ "DB": databases[i].config(), "SlowDown": 0, "Clients": 1_000_000 });
        std::fs::write(&file, settings.to_string()).unwrap();
        let config = config::load(&file).unwrap();
        drop(goat::store::Store::open(&config).unwrap());
        fill(&databases[i]);
        Arc::new(Tracker::load(config).unwrap())
    });
    let mut node = Node::new(speaker, 0);
    let mut torrents = Torrents::of(&listener);
    let (mut heard, mut used) = (0, 0.0);
    while heard < announces {
        let mut records = Vec::new();
        for _ in 0..SECOND {
            node.random(sessions);
            records.append(&mut node.buffers.records);
        }
        let before = cpu(std::process::id());
        heard += torrents.hear(&listener, &records);
        used += cpu(std::process::id()) - before;
    }
    println!("{:.2} us/announce of another node", used / heard as f64);
}

fn main() {
    if let Some(count) = argument("--hear") {
        return hear(count.parse().unwrap());
    }
    if let Some(file) = argument("--config") {
        return node(&file);
    }
    let rate = number("--rate", 5_000);
    println!(
        "{:>5} {:>6} {:>16} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "nodes", "Redis", "CPU us/announce", "Redis", "MariaDB", "Redis MB", "seen p50", "p99 s", "deadlocks"
    );
    let most = number("--nodes", 3);
    let worlds = [(1, false), (1, true), (2, true), (3, true)];
    for (nodes, shared) in worlds.into_iter().filter(|(nodes, _)| *nodes <= most) {
        let database = Database::mariadb("the bench of nodes").expect("mariadbd");
        let redis = Redis::start("the bench of nodes", &[]).expect("redis-server");
        let dir = TempDir::new("nodes");
        let file = |node: u64| dir.0.join(format!("{node}.json"));
        for node in 0..nodes {
            let url = if shared { json!(redis.url()) } else { json!(false) };
            let settings = json!({ "DB": database.config(), "SlowDown": 0, "Clients": 1_000_000, "Redis": url });
            std::fs::write(file(node), settings.to_string()).unwrap();
            std::fs::write(file(node).with_extension("secret"), "0f".repeat(32)).unwrap();
        }
        drop(goat::store::Store::open(&config::load(&file(0)).unwrap()).unwrap());
        fill(&database);
        let id = std::fs::read_to_string(database.sql("SELECT @@pid_file").concat().concat()).unwrap();
        let servers = [redis.id(), id.trim().parse().unwrap()];
        let before = servers.map(cpu);
        let start = |node: u64| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--config", file(node).to_str().unwrap(), "--node", &node.to_string()]);
            for name in ["--rate", "--seconds", "--sessions"] {
                if let Some(value) = argument(name) {
                    command.args([name, &value]);
                }
            }
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
        };
        let children: Vec<_> = (0..nodes).map(start).collect();
        let outputs = children.into_iter().map(|child| child.wait_with_output().unwrap().stdout);
        let results: Vec<Vec<f64>> = outputs
            .map(|out| String::from_utf8(out).unwrap().split_whitespace().map(|n| n.parse().unwrap()).collect())
            .collect();
        let announces = (nodes * (rate * number("--seconds", 30) + number("--sessions", 100_000) / 4)) as f64;
        let servers = [0, 1].map(|i| (cpu(servers[i]) - before[i]) / announces);
        let mean = results.iter().map(|result| result[0]).sum::<f64>() / nodes as f64;
        let late = results.last().unwrap();
        let deadlocks = database.sql("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'").concat();
        println!(
            "{nodes:>5} {:>6} {mean:>16.2} {:>9.2} {:>9.2} {:>9.0} {:>9.2} {:>9.2} {:>9}",
            if shared { "yes" } else { "no" },
            servers[0],
            servers[1],
            rss(redis.id()) as f64 / 1e6,
            late[1],
            late[2],
            deadlocks.last().unwrap()
        );
    }
}

/// Makes users and torrents.
fn fill(database: &Database) {
    let users: Vec<String> = (0..USERS).map(|i| format!("({}, 'user{i}', '{}')", i + 1, common::passkey(i))).collect();
    database.sql(&format!("INSERT INTO users (id, username, passkey) VALUES {}", users.join(", ")));
    for from in (0..TORRENTS).step_by(1_000) {
        let rows: Vec<String> = (from..from + 1_000).map(|i| format!("({}, '{}', 1)", i + 1, hash(i))).collect();
        database.sql(&format!("INSERT INTO files (id, info_hash, verified) VALUES {}", rows.join(", ")));
    }
}
