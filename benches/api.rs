//! What the API costs, and whether it is in the way of announces.
//!
//!     cargo bench --bench api
//!     cargo bench --bench api -- --seconds 3 --rounds 1
//!
//! --seconds N     how long each measurement takes (8)
//! --rounds N      how often each is repeated (3); medians are printed
//!
//! A million sessions (10,000 torrents x 100 peers) of 1,000 users. First calls of the API as fast as two
//! clients can make them, a connection each, with an API key. Then announces at a steady rate on one kept
//! connection, each timed: alone, and while /metrics is scraped each second and the calls of an
//! administrator's status page are made each second too (the page makes them each 5 and 15 seconds).

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use common::{
    Cpu, FIRST_COUNTER, Server, Shape, TempDir, ask, hex, info_hash, median, number, passkey, peer_id, percentile,
    populate, scramble,
};
use goat::metrics::{Asked, Metrics, Transport};
use goat::protocol::Event;
use ring::digest::{SHA256, digest};

const SHAPE: Shape = Shape { users: 1_000, torrents: 10_000, per_torrent: 100 };
/// Announces a second while their times are taken.
const RATE: u64 = 2_000;
/// base64 of "user0:key".
const AUTHORIZATION: &str = "Basic dXNlcjA6a2V5";

fn main() {
    let (seconds, rounds) = (number("--seconds", 8), number("--rounds", 3));
    counting();
    let time = Duration::from_secs(seconds);
    let dir = TempDir::new("api");
    let database = dir.0.join("goat.db");
    populate(&database, Some(SHAPE));
    give_key(&database);
    let mut server = Server::goat(&dir.0, false);
    let metrics = call("/metrics");
    server.wait_for_answer(metrics.as_bytes(), &dir.0.join("log"));
    println!("{rounds} rounds of {seconds} s");

    println!("\n{:34} {:>10} {:>12} {:>10}", "call", "a second", "CPU us each", "bytes");
    for path in ["/", "/api/status", "/api/files?limit=100", "/api/files", "/api/me", "/metrics"] {
        let request = call(path);
        let results: Vec<[f64; 3]> = (0..rounds).map(|_| calls(&server, &request, time)).collect();
        let of = |at: usize| median(results.iter().map(|result| result[at]));
        println!("{:34} {:10.0} {:12.1} {:10.0}", path, of(0), of(1), of(2));
    }

    println!("\n{RATE} announces a second, time of each in us");
    println!("{:34} {:>8} {:>8} {:>8} {:>8}", "", "50 %", "99 %", "99.9 %", "longest");
    for round in 0..rounds {
        for watched in [false, true] {
            let mut times = announces(&server, time, watched, round);
            times.sort_by(f64::total_cmp);
            let of = |share: f64| percentile(&times, share);
            let name = if watched { "scraped and watched each second" } else { "alone" };
            println!("{name:34} {:8.0} {:8.0} {:8.0} {:8.0}", of(0.5), of(0.99), of(0.999), of(1.0));
        }
    }
    server.stop();
}

/// What the counters cost an announce, the clock read at its end among it.
fn counting() {
    const TIMES: u32 = 5_000_000;
    let metrics = Metrics::default();
    let asked = Asked::Announce(Event::None);
    let (before, begin) = (Cpu::of(std::process::id()), Instant::now());
    for _ in 0..TIMES {
        metrics.answered(Transport::Http, asked, None, begin);
    }
    let used = Cpu::of(std::process::id()).since(&before);
    let nanos = used.total * 1000.0 / f64::from(TIMES);
    assert_eq!(metrics.announces().0, u64::from(TIMES));
    println!("counting an announce: {nanos:.0} ns of CPU");
}

/// Makes the first user an administrator with a key.
fn give_key(database: &Path) {
    let db = rusqlite::Connection::open(database).unwrap();
    db.execute("UPDATE users SET admin = 1 WHERE id = 1", ()).unwrap();
    let hash = hex(digest(&SHA256, b"key").as_ref());
    db.execute("INSERT INTO api_keys (user_id, key_hash) VALUES (1, ?)", [hash]).unwrap();
}

fn call(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: goat\r\nAuthorization: {AUTHORIZATION}\r\nConnection: close\r\n\r\n")
}

/// Calls a second, CPU of the server for each, and bytes of an answer.
fn calls(server: &Server, request: &str, time: Duration) -> [f64; 3] {
    let (count, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let (before, begin) = (Cpu::of(server.pid()), Instant::now());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while begin.elapsed() < time {
                    let answer = ask(server.port, request.as_bytes()).unwrap();
                    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
                    count.fetch_add(1, Relaxed);
                    bytes.fetch_add(answer.len() as u64, Relaxed);
                }
            });
        }
    });
    let count = count.into_inner() as f64;
    let used = Cpu::of(server.pid()).since(&before);
    [count / begin.elapsed().as_secs_f64(), used.total / count, bytes.into_inner() as f64 / count]
}

/// The times of announces in microseconds.
fn announces(server: &Server, time: Duration, watched: bool, round: u64) -> Vec<f64> {
    let stop = AtomicBool::new(false);
    let mut times = Vec::new();
    thread::scope(|scope| {
        if watched {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    let begin = Instant::now();
                    for path in [
                        "/metrics",
                        "/api/status",
                        "/api/history",
                        "/api/clients",
                        "/api/files?pending=true&limit=20",
                        "/api/files?sort=-peers&limit=10",
                        "/api/users?sort=-uploaded&limit=10",
                    ] {
                        ask(server.port, call(path).as_bytes()).unwrap();
                    }
                    thread::sleep(Duration::from_secs(1).saturating_sub(begin.elapsed()));
                }
            });
        }
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.set_nodelay(true).unwrap();
        let (begin, mut answer) = (Instant::now(), [0; 4096]);
        for n in 0.. {
            let due = Duration::from_micros(n * 1_000_000 / RATE);
            if due > time {
                break;
            }
            thread::sleep(due.saturating_sub(begin.elapsed()));
            let request = announce(scramble(n ^ round << 40) % SHAPE.sessions(), FIRST_COUNTER + round * 1000 + n);
            let sent = Instant::now();
            stream.write_all(request.as_bytes()).unwrap();
            let size = stream.read(&mut answer).unwrap();
            times.push(sent.elapsed().as_secs_f64() * 1e6);
            assert!(answer[..size].ends_with(b"e"), "{}", String::from_utf8_lossy(&answer[..size]));
        }
        stop.store(true, Relaxed);
    });
    times
}

fn announce(session: u64, counter: u64) -> String {
    let escaped: String = info_hash(SHAPE.torrent(session)).iter().map(|byte| format!("%{byte:02X}")).collect();
    format!(
        "GET /{}/announce?info_hash={escaped}&peer_id={}&port={}&uploaded={counter}&downloaded={FIRST_COUNTER}&left={} HTTP/1.1\r\nHost: goat\r\nUser-Agent: qBittorrent/4.6.0\r\n\r\n",
        passkey(SHAPE.user(session)),
        peer_id(session),
        SHAPE.port(session),
        SHAPE.left(session),
    )
}
