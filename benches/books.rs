//! What writing the books costs, into SQLite and into a MariaDB of the bench's own, over 100,000 sessions.
//!
//!     cargo bench --bench books
//!     cargo bench --bench books -- --only sqlite --seconds 5 --batch 25000 --batches 20
//!
//! First batches of random sessions alone: rows a second, the time of a batch, and the CPU of this process and of
//! the server. Then announces at a steady rate, with the keeper writing as in a running goat: how long after an
//! announce the database has it (a marker is announced each 100 ms, and looked for with a connection of its own),
//! and how long an announce takes, beside the same without writing. Answers are made without sockets: over those
//! an announce takes longer, and the difference is smaller.

mod common;
#[path = "../tests/common/mod.rs"]
mod fixtures;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use common::{Cpu, TempDir, argument, number, percentile};
use fixtures::Database;
use goat::config;
use goat::keeper::{Keeper, gather};
use goat::protocol::{Announce, Event, Peers, Want};
use goat::random::Rng;
use goat::rules::access::User;
use goat::rules::announce::announce;
use goat::store::{Batch, Store};
use goat::torrent::{InfoHash, PeerId};
use goat::tracker::Tracker;
use mysql::prelude::Queryable;
use serde_json::json;

const TORRENTS: u64 = 1_000;
const PEERS: u64 = 100;
const USERS: u64 = 1_000;
const SESSIONS: u64 = TORRENTS * PEERS;
/// The session whose way into the database is watched.
const MARKER: u64 = 0;

fn hash(torrent: u64) -> InfoHash {
    InfoHash(common::info_hash(torrent))
}

/// A tracker on a database that holds all sessions, and what is announced to it.
struct Bench {
    tracker: Arc<Tracker>,
    users: Vec<User>,
    rng: Rng,
    rounds: u64,
}

impl Bench {
    fn new(database: &Database, dir: &TempDir) -> Bench {
        let settings = json!({ "DB": database.config(), "SlowDown": 0 });
        let config = config::parse(&dir.0.join("config.json"), &settings.to_string()).unwrap();
        drop(Store::open(&config).unwrap());
        let rows = |count: u64, row: &dyn Fn(u64) -> String| {
            (0..count).map(row).collect::<Vec<_>>().join(", ")
        };
        let users = rows(USERS, &|i| {
            format!("({}, 'user{i}', '{}')", i + 1, common::passkey(i))
        });
        database.sql(&format!(
            "INSERT INTO users (id, username, passkey) VALUES {users}"
        ));
        let files = rows(TORRENTS, &|i| format!("({}, '{}', 1)", i + 1, hash(i)));
        database.sql(&format!(
            "INSERT INTO files (id, info_hash, verified) VALUES {files}"
        ));
        let tracker = Arc::new(Tracker::load(config).unwrap());
        let user = |i: u64| User::new(i as u32 + 1, "", 0, false);
        let users = (0..USERS).map(user).collect();
        let mut bench = Bench {
            tracker,
            users,
            rng: Rng::new(1),
            rounds: 1,
        };
        (0..SESSIONS).for_each(|session| bench.announce(session, 1, Event::Started));
        bench.write(&bench.tracker.store);
        bench
    }

    fn announce(&mut self, session: u64, round: u64, event: Event) {
        let mut peer_id = PeerId([b'x'; 20]);
        peer_id.0[..8].copy_from_slice(b"-qB4600-");
        peer_id.0[12..].copy_from_slice(&session.to_be_bytes());
        let user = session % USERS;
        let a = Announce {
            info_hash: hash(session / PEERS),
            peer_id,
            ip: IpAddr::from(Ipv4Addr::from(0x0a00_0000 + user as u32)),
            port: 6881,
            uploaded: 1_000_000 * round,
            downloaded: 2_000_000 * round,
            left: session % 2,
            event,
            want: Want {
                count: 50,
                v4: true,
                v6: false,
                list: false,
            },
        };
        let Tracker {
            config,
            swarms,
            clock,
            ..
        } = &*self.tracker;
        let user = &self.users[user as usize];
        let mut peers = Peers::default();
        announce(
            config,
            swarms,
            user,
            &a,
            clock.now(),
            &mut self.rng,
            &mut peers,
        )
        .unwrap();
    }

    fn random(&mut self) {
        let session = 1 + self.rng.below(SESSIONS as usize - 1) as u64;
        self.rounds += 1;
        self.announce(session, self.rounds, Event::None);
    }

    /// Takes what is unwritten, as the keeper does.
    fn take(&self) -> Batch {
        let batch = gather(&self.tracker, &mut Rng::from_system());
        self.tracker
            .journal
            .iter()
            .for_each(|journal| journal.forget(Some(batch.number)));
        batch
    }

    fn write(&self, store: &Store) -> Batch {
        let batch = self.take();
        store.write(&batch, self.tracker.clock.now()).unwrap();
        batch
    }

    /// Announces so many times a second, and returns how long each took, sorted, in microseconds. Each 100 ms it
    /// sends a marker; returns with it how long ago the last ones were sent.
    fn steadily(
        &mut self,
        rate: u64,
        seconds: u64,
        mut each_tenth: impl FnMut(&mut Bench, u64),
    ) -> Vec<f64> {
        let mut took = Vec::with_capacity((rate * seconds) as usize);
        let (begin, mut tenth) = (Instant::now(), 0);
        while took.len() < (rate * seconds) as usize {
            let due = (begin.elapsed().as_secs_f64() * rate as f64) as usize;
            while took.len() < due {
                let start = Instant::now();
                self.random();
                took.push(start.elapsed().as_secs_f64() * 1e6);
            }
            if begin.elapsed().as_millis() / 100 > tenth {
                tenth += 1;
                each_tenth(self, tenth as u64);
            }
            thread::sleep(Duration::from_micros(500));
        }
        took.sort_by(f64::total_cmp);
        took
    }
}

/// Microseconds of CPU of this process and of a server.
fn cpu(server: Option<u32>) -> (f64, f64) {
    let own = Cpu::of(std::process::id()).total;
    (own, server.map_or(0.0, |id| Cpu::of(id).total))
}

/// Reads the counter of the marker from the database, as the number of its announce.
fn reader(database: &Database) -> Box<dyn FnMut() -> u64 + Send> {
    let sql =
        "SELECT uploaded FROM peers WHERE file_id = 1 AND user_id = 1 ORDER BY peer_id LIMIT 1";
    match database {
        Database::Sqlite(folder) => {
            let db = rusqlite::Connection::open(folder.join("goat.db")).unwrap();
            Box::new(move || {
                db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() as u64 / 1_000_000
            })
        }
        Database::MariaDb(server) => {
            let options = mysql::OptsBuilder::new()
                .socket(server.socket().to_str())
                .user(Some("goat"));
            let mut db =
                mysql::Conn::new(options.pass(Some("goat")).db_name(Some("goat"))).unwrap();
            Box::new(move || db.query_first::<u64, _>(sql).unwrap().unwrap() / 1_000_000)
        }
    }
}

fn measure(name: &str, database: &Database, server: Option<u32>) {
    let size = number("--batch", 25_000) as usize;
    let batches = number("--batches", 20);
    let seconds = number("--seconds", 10);
    let dir = TempDir::new(&format!("books-{name}"));
    let mut bench = Bench::new(database, &dir);

    let (mut time, mut used, mut rows) = (0.0, (0.0, 0.0), 0);
    for _ in 0..batches {
        (0..size).for_each(|_| bench.random());
        let batch = bench.take();
        rows += batch.rows();
        let (start, before) = (Instant::now(), cpu(server));
        bench.tracker.store.write(&batch, 1).unwrap();
        time += start.elapsed().as_secs_f64();
        let after = cpu(server);
        used = (used.0 + after.0 - before.0, used.1 + after.1 - before.1);
    }
    println!(
        "{name}: {:.0} rows/s; a batch has {} rows of {size} announces and takes {:.0} ms; CPU {:.1} us a row here, {:.1} us in the server",
        rows as f64 / time,
        rows / batches as usize,
        time / batches as f64 * 1e3,
        used.0 / rows as f64,
        used.1 / rows as f64
    );

    println!(
        "{:>12} {:>11} {:>11} {:>9} {:>9} {:>13} {:>13}",
        "announces/s",
        "behind p50",
        "behind max",
        "p50 us",
        "p99 us",
        "p50 no books",
        "p99 no books"
    );
    for rate in [10_000, 20_000, 50_000] {
        // Without: what is unwritten is thrown away once a second.
        let without = bench.steadily(rate, seconds, |bench, tenth| {
            if tenth % 10 == 0 {
                drop(bench.take());
            }
        });
        drop(bench.take());
        let (stop, stopped) = channel();
        let mut keeper = Keeper::new(bench.tracker.clone());
        let keeping = thread::spawn(move || keeper.run(&stopped, || ()));
        // The marker's counter is the number of its announce.
        let sent: Arc<std::sync::Mutex<Vec<Instant>>> = Arc::default();
        let first = bench.rounds + 1;
        let done = Arc::new(AtomicBool::new(false));
        let (times, over, mut marker) = (sent.clone(), done.clone(), reader(database));
        let watching = thread::spawn(move || {
            let (mut behind, mut next) = (Vec::new(), 0);
            while !over.load(Relaxed) || next < times.lock().unwrap().len() {
                let seen = marker();
                let times = times.lock().unwrap();
                while next < times.len() && first + next as u64 <= seen {
                    behind.push(times[next].elapsed().as_secs_f64());
                    next += 1;
                }
                drop(times);
                thread::sleep(Duration::from_millis(10));
            }
            behind.sort_by(f64::total_cmp);
            behind
        });
        let mut markers = 0;
        let with = bench.steadily(rate, seconds, |bench, _| {
            bench.announce(MARKER, first + markers, Event::None);
            markers += 1;
            sent.lock().unwrap().push(Instant::now());
        });
        done.store(true, Relaxed);
        let behind = watching.join().unwrap();
        stop.send(()).unwrap();
        keeping.join().unwrap();
        println!(
            "{rate:>12} {:>9.2} s {:>9.2} s {:>9.2} {:>9.2} {:>13.2} {:>13.2}",
            percentile(&behind, 0.5),
            percentile(&behind, 1.0),
            percentile(&with, 0.5),
            percentile(&with, 0.99),
            percentile(&without, 0.5),
            percentile(&without, 0.99)
        );
        bench.rounds = bench.rounds.max(first + markers);
        bench.write(&bench.tracker.store);
    }
}

fn main() {
    let wanted = |name| argument("--only").is_none_or(|only| only == name);
    if wanted("sqlite") {
        measure("SQLite", &Database::sqlite(), None);
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
        measure("MariaDB", &database, Some(id.trim().parse().unwrap()));
    }
}
