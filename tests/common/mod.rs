//! What the tests share: the real `goat` binary, its databases, and a plain client for its answers.
//!
//! Nothing here uses goat's own code, so that a mistake in it cannot hide itself.
#![allow(dead_code, unused_imports)] // every test binary uses its own part of this

mod announce;
mod database;
mod goat;
mod lab;
pub mod load;
mod model;
mod process;
mod random;
pub mod redis;
mod socket;
pub mod tls;
mod wire;

pub use announce::{AGENT, Announce, info_hash, peer_id, scrape};
pub use database::{Database, Lock, MariaDb};
pub use goat::{Goat, User};
pub use lab::{Host, Lab};
pub use model::{
    Bytes, Client, Clients, History, Kind, Lives, Model, SILENCE, Said, Verdict, Way, above, files, plus, users,
};
pub use process::{Process, faketime, tidy};
pub use random::Random;
pub use socket::{connect_from, connect_from_ipv6, end_by_reset};
pub use wire::{Bencode, HttpAnswer, basic, escape, hex, http_get, http_post, parse_answer};

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a condition may take before the test gives up: far more than it needs anywhere.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `condition` gives something, and fails with the name of what was waited for.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until `condition` is true.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}

/// True where everything a test needs must be there: a missing program is a failure then.
pub fn nothing_may_be_skipped() -> bool {
    std::env::var("CI").is_ok_and(|ci| ci == "true")
}

/// Says that a test cannot run here; fails instead where nothing may be skipped.
pub fn skip(test: &str, reason: &str) {
    assert!(!nothing_may_be_skipped(), "{test} cannot run: {reason}");
    println!("skipped {test}: {reason}");
}

/// True if a program of this name can be run.
pub fn installed(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    path.split(':').any(|folder| Path::new(folder).join(program).is_file())
}

/// A temporary folder, removed with everything in it when it goes out of scope.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Folder {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("goat-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Prints also where the test passes: what was tried and measured is worth reading.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => {{
        let _ = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", format_args!($($words)*)));
    }};
}

/// A port that nobody listens on, neither TCP nor UDP. It lies below the range from which the system
/// takes ports for outgoing connections, so that none of those takes it meanwhile.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let offset = std::process::id() * 101 + NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (offset % 20_000) as u16;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() && UdpSocket::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}
