//! The memory of an idle goat, and what a large database costs at the start and while nothing happens.
//!
//!     cargo bench --bench memory

mod common;

use common::{Cpu, Server, Shape, TempDir, megabytes, populate, rss};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

const LARGE: Shape = Shape { users: 100_000, torrents: 1_000_000, per_torrent: 1 };

fn main() {
    println!("{:.1} MB with an empty database", megabytes(idle_rss()));
    large();
}

/// goat with an empty database.
fn idle_rss() -> u64 {
    let dir = TempDir::new("idle");
    populate(&dir.0.join("goat.db"), None);
    let server = start_goat(&dir.0);
    // All threads are there, and every regular job of the first seconds was done.
    thread::sleep(Duration::from_secs(7));
    rss(server.pid())
}

/// Starts goat, and returns when it answers.
fn start_goat(dir: &Path) -> Server {
    let mut server = Server::goat(dir, false);
    let request = b"GET /announce HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    server.wait_for_answer(request, &dir.join("log"));
    server
}
/// Start, and idleness, with a large database.
fn large() {
    let dir = TempDir::new("large");
    populate(&dir.0.join("goat.db"), Some(LARGE));
    let begin = Instant::now();
    let server = start_goat(&dir.0);
    let start = begin.elapsed().as_secs_f64();
    println!(
        "start with {} users, {} torrents, {} sessions: {start:.1} s, {:.1} MB",
        LARGE.users,
        LARGE.torrents,
        LARGE.sessions(),
        megabytes(rss(server.pid()))
    );
    thread::sleep(Duration::from_secs(7));
    let before = Cpu::of(server.pid());
    thread::sleep(Duration::from_secs(30));
    let used = Cpu::of(server.pid()).since(&before);
    println!(
        "with nothing to do: {:.1} ms CPU a minute, {:.1} MB",
        used.total / 1e3 * 2.0,
        megabytes(rss(server.pid()))
    );
    println!("stopped after {:.1} s", server.stop().as_secs_f64());
}
