//! What the books cost, on SQLite and on a MariaDB of the bench's own, over a million sessions.
//!
//!     cargo bench --bench books
//!     cargo bench --bench books -- --only sqlite --sessions 100000 --seconds 20 --rate 10000
//!
//! First the start with that many users, torrents and sessions. Then announces at a steady rate of random sessions,
//! with the keeper writing as in a running goat, beside the same without books: no journal, and what is unwritten is
//! thrown away. What the books cost is the difference of the two in CPU, and the server's. Answers are made without
//! sockets: over those an announce takes longer, and the books' part in it is smaller. At last what an announce takes
//! to be noted in the journal, alone and with others of its round.

mod common;
#[path = "../tests/common/mod.rs"]
mod fixtures;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use common::{Cpu, TempDir, argument, number, percentile, rss};
use fixtures::Database;
use goat::config;
use goat::keeper::{Keeper, Writer, follow_changes};
use goat::protocol::{Announce, Event};
use goat::random::Rng;
use goat::rules::access::User;
use goat::rules::announce::{Admitted, Buffers, announce};
use goat::store::Store;
use goat::torrent::InfoHash;
use goat::tracker::Tracker;
use serde_json::json;

/// Announces that a listener answers in one round.
const ROUND: u64 = 16;

fn hash(torrent: u64) -> InfoHash {
    InfoHash(common::info_hash(torrent))
}

/// How much there is.
#[derive(Clone, Copy)]
struct Size {
    users: u64,
    /// Of them those who announce.
    active: u64,
    torrents: u64,
    sessions: u64,
}

/// A tracker on a database that holds all sessions, and what is announced to it.
struct Bench {
    tracker: Arc<Tracker>,
    size: Size,
    users: Vec<Admitted>,
    rng: Rng,
    buffers: Buffers,
    rounds: u64,
}

impl Bench {
    /// Fills a database with sessions, as they come from announces, and starts anew on it. Says what that takes.
    fn new(database: &Database, dir: &TempDir, size: Size) -> Bench {
        let settings = json!({ "DB": database.config(), "SlowDown": 0, "Clients": 100 }).to_string();
        let config = || config::parse(&dir.0.join("config.json"), &settings).unwrap();
        drop(Store::open(&config()).unwrap());
        fill(database, size);
        let mut bench = Bench::load(config(), size);
        for session in 0..size.sessions {
            bench.announce(session, 1, Event::Started);
            bench.buffers.records.clear();
        }
        bench.write();
        bench.tracker.journal.settled(u64::MAX);
        drop(bench);
        let (begin, before) = (Instant::now(), rss(std::process::id()));
        let bench = Bench::load(config(), size);
        println!(
            "  start with {} users, {} torrents, {} sessions: {:.1} s, {:.0} MB",
            size.users,
            size.torrents,
            size.sessions,
            begin.elapsed().as_secs_f64(),
            (rss(std::process::id()) - before) as f64 / 1e6,
        );
        bench
    }

    fn load(config: config::Config, size: Size) -> Bench {
        let user = |i: u64| Admitted { user: User::new(i as u32 + 1, "", 0, false).into(), refusal: None };
        Bench {
            tracker: Arc::new(Tracker::load(config).unwrap()),
            size,
            users: (0..size.active).map(user).collect(),
            rng: Rng::new(1),
            buffers: Buffers::new(Rng::new(2)),
            rounds: 1,
        }
    }

    fn announce(&mut self, session: u64, round: u64, event: Event) {
        let mut peer_id = [b'x'; 20];
        peer_id[..8].copy_from_slice(b"-qB4600-");
        peer_id[12..].copy_from_slice(&session.to_be_bytes());
        let user = session % self.size.active;
        let a = Announce {
            port: 1024 + (session / self.size.active) as u16,
            uploaded: common::FIRST_COUNTER + 1_000_000 * round,
            downloaded: common::FIRST_COUNTER + 2_000_000 * round,
            left: session % 2,
            ..common::announce(session % self.size.torrents, user, peer_id, event)
        };
        let Tracker { config, swarms, clock, .. } = &*self.tracker;
        let user = &self.users[user as usize];
        announce(config, swarms, user, &a, clock.now(), &mut self.buffers).unwrap();
    }

    fn random(&mut self) {
        let session = self.rng.below(self.size.sessions as usize) as u64;
        self.rounds += 1;
        self.announce(session, self.rounds, Event::None);
    }

    fn write(&self) {
        let now = self.tracker.clock.now();
        Writer::new(now).write(&self.tracker, now, |_| false).unwrap();
    }

    /// Announces so many times a second, and returns how long each took, sorted, in microseconds. With `journal` each
    /// round is written there, and without it what is unwritten is thrown away each ten seconds.
    fn steadily(&mut self, rate: u64, seconds: u64, journal: bool) -> Vec<f64> {
        let mut took = Vec::with_capacity((rate * seconds) as usize);
        let (begin, mut thrown) = (Instant::now(), 0);
        while took.len() < (rate * seconds) as usize {
            let due = (begin.elapsed().as_secs_f64() * rate as f64) as usize;
            while took.len() < due {
                let start = Instant::now();
                let round = ROUND.min((due - took.len()) as u64);
                (0..round).for_each(|_| self.random());
                if journal {
                    self.tracker.journal.write(&mut self.buffers.records);
                }
                self.buffers.records.clear();
                let each = start.elapsed().as_secs_f64() * 1e6 / round as f64;
                took.extend((0..round).map(|_| each));
            }
            if !journal && begin.elapsed().as_secs() / 10 > thrown {
                thrown += 1;
                self.throw_away();
            }
            thread::sleep(Duration::from_micros(500));
        }
        took.sort_by(f64::total_cmp);
        took
    }

    fn throw_away(&self) {
        let shards = self.tracker.swarms.each();
        shards.for_each(|mut shard| shard.ledger.take(&mut Vec::new()));
    }
}

/// Makes users and torrents.
fn fill(database: &Database, size: Size) {
    for from in (0..size.users).step_by(1_000) {
        let row = |i| format!("({}, 'user{i}', '{}')", i + 1, common::passkey(i));
        let rows: Vec<String> = (from..size.users.min(from + 1_000)).map(row).collect();
        let rows = rows.join(", ");
        database.sql(&format!("INSERT INTO users (id, username, passkey) VALUES {rows}"));
    }
    for from in (0..size.torrents).step_by(1_000) {
        let row = |i| format!("({}, '{}', 1)", i + 1, hash(i));
        let rows: Vec<String> = (from..size.torrents.min(from + 1_000)).map(row).collect();
        let rows = rows.join(", ");
        database.sql(&format!("INSERT INTO files (id, info_hash, verified) VALUES {rows}"));
    }
}

/// Microseconds of CPU of this process and of a server, threads that have ended with them: counted in ticks of 10 ms.
fn cpu(server: Option<u32>) -> (f64, f64) {
    let used = |id| {
        let cpu = Cpu::of(id);
        (cpu.user + cpu.system) * 1e4
    };
    (used(std::process::id()), server.map_or(0.0, used))
}

/// Does something, and returns the microseconds of CPU that it took here and in a server.
fn used<T>(server: Option<u32>, what: impl FnOnce() -> T) -> (T, f64, f64) {
    let before = cpu(server);
    let done = what();
    let after = cpu(server);
    (done, after.0 - before.0, after.1 - before.1)
}

fn measure(name: &str, database: &Database, server: Option<u32>, size: Size) {
    println!("{name}:");
    let seconds = number("--seconds", 60);
    let dir = TempDir::new(&format!("books-{name}"));
    let memory = rss(std::process::id());
    let mut bench = Bench::new(database, &dir, size);
    println!(
        "{:>13} {:>14} {:>9} {:>9} {:>9} {:>12} {:>12} {:>9}",
        "announces/s", "books, CPU us", "server", "p50 us", "p99 us", "p50 without", "p99 without", "behind"
    );
    let rates = argument("--rate").map_or(vec![1_000, 10_000, 50_000], |rate| vec![rate.parse().unwrap()]);
    for rate in rates {
        let announces = (rate * seconds) as f64;
        let (without, own_without, _) = used(server, || bench.steadily(rate, seconds, false));
        bench.throw_away();
        let tracker = bench.tracker.clone();
        // A goat that has not looked for so long compares all torrents first; one that runs has looked.
        follow_changes(&tracker).unwrap();
        let (with, own, others) = used(server, || {
            let (stop, stopped) = channel();
            let over = Arc::new(AtomicBool::new(false));
            let mut keeper = Keeper::new(tracker.clone());
            let keeping = thread::spawn(move || {
                keeper.run(&stopped, || ()).unwrap();
                keeper
            });
            let with = bench.steadily(rate, seconds, true);
            over.store(true, Relaxed);
            stop.send(()).unwrap();
            (with, keeping.join().unwrap())
        });
        let (with, keeper) = with;
        let behind = tracker.clock.now() - keeper.writer.written;
        let (_, rest, rest_others) = used(server, || bench.write());
        println!(
            "{rate:>13} {:>14.2} {:>9.2} {:>9.2} {:>9.2} {:>12.2} {:>12.2} {behind:>7} s",
            (own + rest - own_without) / announces,
            (others + rest_others) / announces,
            percentile(&with, 0.5),
            percentile(&with, 0.99),
            percentile(&without, 0.5),
            percentile(&without, 0.99)
        );
    }
    println!(
        "  memory: {:.0} bytes a session after the load, users and torrents with it",
        (rss(std::process::id()) - memory) as f64 / size.sessions as f64
    );
}

/// What a record takes on its way into the journal.
fn journal() {
    let (database, dir) = (Database::sqlite(), TempDir::new("journal"));
    let size = Size { users: 100, active: 100, torrents: 100, sessions: 10_000 };
    let mut bench = Bench::new(&database, &dir, size);
    for round in [1, 16, 32] {
        let mut spent = Duration::ZERO;
        for _ in 0..200_000 / round {
            (0..round).for_each(|_| bench.random());
            let start = Instant::now();
            bench.tracker.journal.write(&mut bench.buffers.records);
            spent += start.elapsed();
        }
        println!(
            "journal: {:.2} us an announce where {round} are answered together",
            spent.as_secs_f64() * 1e6 / 200_000.0
        );
        bench.write();
    }
}

fn main() {
    let wanted = |name| argument("--only").is_none_or(|only| only == name);
    let sessions = number("--sessions", 1_000_000);
    let size = Size {
        users: number("--users", 100_000).min(sessions),
        active: number("--active", 10_000).min(sessions),
        torrents: number("--torrents", 1_000_000).min(sessions),
        sessions,
    };
    if wanted("journal") {
        journal();
    }
    if wanted("sqlite") {
        measure("SQLite", &Database::sqlite(), None, size);
    }
    if wanted("mariadb")
        && let Some(database) = Database::mariadb("the bench on MariaDB")
    {
        if let Database::MariaDb(server) = &database {
            // The tests' servers are small; these are MariaDB's own defaults.
            server.root("SET GLOBAL innodb_log_file_size = 100663296");
            server.root("SET GLOBAL innodb_buffer_pool_size = 134217728");
        }
        let id = database.sql("SELECT @@pid_file").concat().concat();
        let id = std::fs::read_to_string(id).unwrap();
        measure("MariaDB", &database, Some(id.trim().parse().unwrap()), size);
    }
}
