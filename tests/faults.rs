//! Faults, made for real against the binary while clients announce: after each the clients say once more where
//! they are, and the database must equal the model of the books to the byte. Prints what was tried.
//!
//! Environment: GOAT_KILLS is how often goat is killed instead of 1,000 times, GOAT_SEED the seed of the clients,
//! which is printed.

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use common::{AGENT, Clients, Database, Folder, Goat, MariaDb, Model, PATIENCE, Random, Said};
use common::{escape, faketime, files, free_port, info_hash, skip, tidy, users, wait_until};
use serde_json::json;

const USERS: u32 = 40;
const TORRENTS: u32 = 10;
const THREADS: u32 = 4;
/// Clients of each thread.
const CLIENTS: usize = 60;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}"))
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A kept connection to goat.
struct Line {
    address: SocketAddr,
    stream: Option<TcpStream>,
    /// How often goat had been down when it was made.
    downs: u64,
}

impl Line {
    /// Whether an announce was answered; it must not be refused.
    fn ask(&mut self, a: &Said) -> std::io::Result<()> {
        let event = if a.event.is_empty() {
            String::new()
        } else {
            format!("&event={}", a.event)
        };
        let request = format!(
            "GET /{:040x}/announce?info_hash={}&peer_id={}&port=6881&uploaded={}&downloaded={}&left={}&numwant=0{event} HTTP/1.1\r\n\
             User-Agent: {AGENT}\r\nX-Forwarded-For: {}\r\n\r\n",
            a.user,
            escape(&info_hash(a.torrent)),
            escape(&a.peer_id),
            a.uploaded,
            a.downloaded,
            a.left,
            a.ip
        );
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                none.insert(stream)
            }
        };
        let answer = stream
            .write_all(request.as_bytes())
            .and_then(|()| read_answer(stream));
        match answer {
            Ok((body, keep)) => {
                if !keep {
                    self.stream = None;
                }
                let refused = body.windows(14).any(|part| part == b"failure reason");
                assert!(!refused, "{a:?}: {}", String::from_utf8_lossy(&body));
                Ok(())
            }
            Err(error) => {
                self.stream = None;
                Err(error)
            }
        }
    }
}

/// The body of an answer, and whether the connection goes on.
fn read_answer(stream: &mut TcpStream) -> std::io::Result<(Vec<u8>, bool)> {
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let head = answer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .map(|end| end + 4);
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&answer[..head]).to_lowercase();
            let length = text
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.split("\r\n").next());
            let end = head + length.expect("a length").parse::<usize>().unwrap();
            if answer.len() >= end {
                return Ok((
                    answer[head..end].to_vec(),
                    !text.contains("connection: close"),
                ));
            }
        }
        match stream.read(&mut part)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&part[..read]),
        }
    }
}

/// What one thread of clients knows.
struct Crowd {
    clients: Clients,
    model: Model,
    line: Line,
}

/// What the threads share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    pause: AtomicBool,
    /// goat is down because the test made it so; and how often it was.
    down: AtomicBool,
    downs: AtomicU64,
    answered: AtomicU64,
    /// Not answered though goat was there.
    unanswered: AtomicU64,
    /// The longest answer while goat was there, in microseconds.
    longest: AtomicU64,
}

impl Shared {
    /// Says it until it is answered, as clients do.
    fn say(&self, crowd: &mut Crowd, a: &Said) -> bool {
        loop {
            let (begin, downs) = (Instant::now(), self.downs.load(SeqCst));
            if crowd.line.downs != downs {
                // The connection ended with the goat that it was to.
                (crowd.line.downs, crowd.line.stream) = (downs, None);
            }
            let answer = crowd.line.ask(a);
            let was_up = !self.down.load(SeqCst) && self.downs.load(SeqCst) == downs;
            match answer {
                Ok(()) => {
                    if was_up {
                        let took = begin.elapsed().as_micros() as u64;
                        self.longest.fetch_max(took, SeqCst);
                    }
                    self.answered.fetch_add(1, SeqCst);
                    crowd.model.answered(a, 0);
                    return true;
                }
                Err(_) if self.stop.load(SeqCst) => return false,
                Err(_) => {
                    if was_up {
                        self.unanswered.fetch_add(1, SeqCst);
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }

    /// From now on goat is down.
    fn goes_down(&self) {
        self.down.store(true, SeqCst);
        self.downs.fetch_add(1, SeqCst);
    }

    /// It is up again. What was asked before may still fail.
    fn comes_up(&self) {
        self.downs.fetch_add(1, SeqCst);
        self.down.store(false, SeqCst);
    }
}

/// A goat, its database, and clients that announce all the time.
struct Rig {
    database: Database,
    goat: Goat,
    shared: Arc<Shared>,
    crowds: Vec<Arc<Mutex<Crowd>>>,
    threads: Vec<JoinHandle<()>>,
    seed: u64,
    /// The lines of the table.
    tried: Vec<String>,
}

impl Rig {
    fn new(database: Database, db: serde_json::Value, seed: u64) -> Rig {
        let settings = json!({ "SlowDown": 0, "Clients": 1_000_000, "TrustedProxies": ["127.0.0.1"], "DB": db });
        let mut goat = Goat::prepare(&database, settings);
        goat.json(&["user", "list"]); // makes the tables
        database.sql(&users(USERS));
        database.sql(&files(TORRENTS));
        goat.launch();
        let shared = Arc::new(Shared::default());
        let each = USERS / THREADS;
        let crowds = (0..THREADS).map(|i| {
            let clients = Clients::new(
                seed + u64::from(i),
                CLIENTS,
                1 + i * each..1 + (i + 1) * each,
                TORRENTS,
            );
            let line = Line {
                address: goat.address(),
                stream: None,
                downs: 0,
            };
            Arc::new(Mutex::new(Crowd {
                clients,
                model: Model::default(),
                line,
            }))
        });
        let crowds: Vec<_> = crowds.collect();
        let talk = |crowd: &Arc<Mutex<Crowd>>| {
            let (crowd, shared) = (crowd.clone(), shared.clone());
            thread::spawn(move || {
                while !shared.stop.load(SeqCst) {
                    if !shared.pause.load(SeqCst) {
                        let mut crowd = lock(&crowd);
                        for a in crowd.clients.next() {
                            if !shared.say(&mut crowd, &a) {
                                return;
                            }
                        }
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            })
        };
        let threads = crowds.iter().map(talk).collect();
        Rig {
            database,
            goat,
            shared,
            crowds,
            threads,
            seed,
            tried: Vec::new(),
        }
    }

    /// Waits until so many more announces were answered.
    fn announces(&self, more: u64) {
        let from = self.shared.answered.load(SeqCst);
        wait_until("announces to be answered", || {
            self.shared.answered.load(SeqCst) >= from + more
        });
    }

    /// Does what keeps the database from being written, and waits until goat says so.
    fn notices<T>(&mut self, fault: impl FnOnce(&mut Rig) -> T) -> T {
        let lines = |rig: &Rig| rig.goat.log().matches("cannot be written").count();
        let before = lines(self);
        let done = fault(self);
        wait_until("goat to notice", || lines(self) > before);
        done
    }

    /// Whether goat, since its start, last said that the database can be written.
    fn can_write(&self) -> bool {
        let log = self.goat.log();
        let words = [
            "listening for HTTP",
            "cannot be written",
            "can be written again",
        ];
        let last = words.map(|words| log.rfind(words));
        last[1] <= last[0].max(last[2])
    }

    /// Kills goat at this moment, and starts it again.
    fn kill(&mut self) {
        self.shared.goes_down();
        self.goat.kill();
        self.goat.spawn();
        let address = self.goat.address();
        let process = &mut self.goat;
        common::wait_for("goat", || {
            process.process().assert_running();
            TcpStream::connect(address).ok()
        });
        self.shared.comes_up();
    }

    /// All clients say once more where they are; then the database must equal the model. Adds a line to the
    /// table.
    fn verify(&mut self, fault: &str, times: u64) {
        self.shared.pause.store(true, SeqCst);
        let mut crowds: Vec<_> = self.crowds.iter().map(|crowd| lock(crowd)).collect();
        let mut model = Model::default();
        for crowd in &mut crowds {
            for a in crowd.clients.once_more() {
                assert!(self.shared.say(crowd, &a));
            }
            model.join(crowd.model.clone());
        }
        let begin = Instant::now();
        let verdict = loop {
            let verdict = model.compare(&self.database, false);
            if verdict.wrong.is_empty() || begin.elapsed() > Duration::from_secs(40) {
                break verdict;
            }
            thread::sleep(Duration::from_millis(100));
        };
        drop(crowds);
        let Shared {
            unanswered,
            longest,
            ..
        } = &*self.shared;
        let (unanswered, longest) = (unanswered.swap(0, SeqCst), longest.swap(0, SeqCst));
        self.tried.push(format!(
            "{fault:<58} {times:>5} {:>8} {:>6} {unanswered:>10} {:>10.1}",
            verdict.rows,
            verdict.bytes,
            longest as f64 / 1e3
        ));
        crate::say!("{}", self.tried.last().unwrap());
        verdict.demand(&format!("{fault}, GOAT_SEED={}", self.seed));
        assert_eq!(unanswered, 0, "{fault}: announces were not answered");
        wait_until("goat to notice", || self.can_write());
        self.shared.pause.store(false, SeqCst);
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        if !self.shared.down.load(SeqCst) {
            self.goat.kill();
        }
        self.threads
            .drain(..)
            .for_each(|thread| drop(thread.join()));
    }
}

fn head(title: &str, seed: u64) {
    crate::say!("\n{title}, GOAT_SEED={seed}");
    crate::say!(
        "{:<58} {:>5} {:>8} {:>6} {:>10} {:>10}",
        "fault",
        "tried",
        "rows",
        "wrong",
        "unanswered",
        "longest ms"
    );
}

fn seed() -> u64 {
    number("GOAT_SEED", 20_140_126)
}

/// A file system of its own in memory, which can be filled.
struct Disk(Folder);

impl Disk {
    fn new(megabytes: u32) -> Option<Disk> {
        let folder = Folder::new();
        mount(&format!("{megabytes}m"), folder.path()).then_some(Disk(folder))
    }

    /// Moves a folder to this disk.
    fn take(&self, folder: &Path) {
        for file in fs::read_dir(folder).unwrap().flatten() {
            fs::copy(file.path(), self.folder().join(file.file_name())).unwrap();
        }
        fs::remove_dir_all(folder).unwrap();
        std::os::unix::fs::symlink(self.folder(), folder).unwrap();
    }

    /// The folder, for somebody who thinks that it is theirs.
    fn folder(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(self.0.path());
    }
}

/// Whether a file system in memory could be mounted.
fn mount(size: &str, folder: &Path) -> bool {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]);
    let done = mount.arg(folder).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

fn unmount(path: &Path) {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the pointer is to a live string. Still open files keep their own reference.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
}

/// Fills the disk that a folder is on.
fn fill(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("fill");
    let mut file = fs::File::create(&path).unwrap();
    for size in [1 << 20, 4096] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
    path
}

#[test]
fn a_thousand_kills_under_load_lose_nothing_that_was_answered() {
    let (kills, rigs, seed) = (number("GOAT_KILLS", 1000), 4, seed());
    head("goat is killed at random moments, on SQLite", seed);
    let total = Mutex::new((0, 0));
    thread::scope(|scope| {
        for i in 0..rigs {
            let total = &total;
            scope.spawn(move || {
                let database = Database::sqlite();
                let config = database.config();
                let mut rig = Rig::new(database, config, seed + i * 100);
                let mut random = Random(seed + i);
                for kill in 1..=kills / rigs {
                    rig.announces(1);
                    thread::sleep(Duration::from_micros(random.below(60_000)));
                    rig.kill();
                    if kill % 50 == 0 || kill == kills / rigs {
                        rig.verify("kill -9 of goat (SQLite), so far on one of four", kill);
                    }
                }
                let mut total = lock(total);
                *total = (
                    total.0 + kills / rigs,
                    total.1 + rig.shared.answered.load(SeqCst),
                );
            });
        }
    });
    let (kills, answered) = *lock(&total);
    crate::say!("{kills} kills, {answered} announces answered, 0 bytes wrong");
}

#[test]
fn faults_of_sqlite_cost_nothing() {
    let seed = seed();
    head("Faults of SQLite", seed);
    let database = Database::sqlite();
    let config = database.config();
    let mut rig = Rig::new(database, config, seed);
    let Database::Sqlite(folder) = &rig.database else {
        unreachable!()
    };
    let path = folder.join("goat.db");
    rig.announces(500);
    rig.verify("none", 1);

    for time in 1..=3 {
        let mut shell = rig.notices(|_| {
            let mut sqlite3 = Command::new("sqlite3");
            let mut shell = sqlite3
                .arg(&path)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            let sql = b".timeout 30000\nBEGIN EXCLUSIVE;\n";
            shell.stdin.as_mut().unwrap().write_all(sql).unwrap();
            shell
        });
        rig.announces(500);
        shell.kill().unwrap();
        shell.wait().unwrap();
        rig.verify("the file is locked by another process", time);
    }
    for time in 1..=3 {
        rig.notices(|rig| rig.database.sql("ALTER TABLE peers RENAME TO gone"));
        rig.announces(500);
        rig.database.sql("ALTER TABLE gone RENAME TO peers");
        rig.verify("a table is away", time);
    }
    for time in 1..=3 {
        rig.database
            .sql("ALTER TABLE files_users ADD COLUMN more INTEGER");
        rig.announces(500);
        rig.database.sql("ALTER TABLE files_users DROP COLUMN more");
        rig.verify("a table is altered and altered back", time);
    }
    for time in 1..=3 {
        // Nobody announces while the copy is made: what is written after it would be in the old file.
        rig.verify("(before the file is replaced)", time);
        rig.shared.pause.store(true, SeqCst);
        thread::sleep(Duration::from_millis(50));
        {
            let crowds: Vec<_> = rig.crowds.iter().map(|crowd| lock(crowd)).collect();
            let settled = |rig: &Rig| {
                let mut model = Model::default();
                crowds
                    .iter()
                    .for_each(|crowd| model.join(crowd.model.clone()));
                model.compare(&rig.database, false).wrong.is_empty()
            };
            wait_until("everything to be written", || settled(&rig));
            let copy = path.with_extension("copy");
            rig.database
                .sql(&format!("VACUUM INTO '{}'", copy.display()));
            for part in ["goat.db", "goat.db-wal", "goat.db-shm"] {
                let _ = fs::remove_file(path.with_file_name(part));
            }
            fs::rename(copy, &path).unwrap();
        }
        rig.shared.pause.store(false, SeqCst);
        rig.announces(500);
        rig.verify("the file is replaced by a copy", time);
    }
    let log = rig.goat.log();
    assert!(log.contains("was replaced"), "{log}");
    assert!(log.contains("rows were caught up"), "{log}");
}

#[test]
fn a_full_disk_costs_nothing() {
    let Some(disk) = Disk::new(12) else {
        return skip("a full disk", "no tmpfs can be mounted");
    };
    let seed = seed();
    head("The disk of SQLite is full", seed);
    let database = Database::sqlite();
    let Database::Sqlite(folder) = &database else {
        unreachable!()
    };
    disk.take(folder.path());
    let config = database.config();
    let mut rig = Rig::new(database, config, seed);
    for time in 1..=5 {
        rig.announces(500);
        let file = rig.notices(|_| fill(disk.folder()));
        rig.announces(1000);
        fs::remove_file(file).unwrap();
        rig.verify("the disk is full (SQLite)", time);
        if time == 3 {
            // And goat dies of it.
            let file = fill(disk.folder());
            rig.announces(500);
            rig.shared.goes_down();
            rig.goat.kill();
            fs::remove_file(file).unwrap();
            rig.goat.spawn();
            let address = rig.goat.address();
            wait_until("goat", || TcpStream::connect(address).is_ok());
            rig.shared.comes_up();
            rig.verify("the disk is full, and goat is killed", 1);
        }
    }
}

#[test]
fn a_full_disk_that_the_configuration_is_on_too_costs_nothing() {
    let Some(disk) = Disk::new(12) else {
        return skip("a full disk", "no tmpfs can be mounted");
    };
    let seed = seed();
    head("The disk of SQLite and of the configuration is full", seed);
    let database = Database::sqlite();
    let Database::Sqlite(folder) = &database else {
        unreachable!()
    };
    disk.take(folder.path());
    let config = database.config();
    let mut rig = Rig::new(database, config, seed);
    rig.shared.goes_down();
    assert!(rig.goat.stop().success());
    let folder = rig.goat.folder.path();
    fs::remove_file(folder.join("goat.log")).unwrap();
    disk.take(folder);
    // Its log is somewhere else.
    let elsewhere = Folder::new();
    std::os::unix::fs::symlink(elsewhere.join("log"), folder.join("goat.log")).unwrap();
    rig.goat.launch();
    rig.shared.comes_up();
    for time in 1..=3 {
        rig.announces(500);
        let file = rig.notices(|_| fill(disk.folder()));
        rig.announces(500);
        rig.shared.goes_down();
        rig.goat.stop();
        fs::remove_file(file).unwrap();
        rig.goat.launch();
        rig.shared.comes_up();
        rig.verify("the disk is full, and goat stops", time);
    }
}

#[test]
fn a_journal_without_room_costs_nothing_and_is_spoken_of() {
    // What this thread mounts is there for it and for what it starts, and for nobody else.
    let mounting = thread::spawn(|| {
        // SAFETY: no memory is passed.
        let apart = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
        let mut private = Command::new("mount");
        let private = private.args(["--make-rprivate", "/"]).stderr(Stdio::null());
        let apart = apart && private.status().is_ok_and(|status| status.success());
        if !apart || !mount("64k", Path::new("/dev/shm")) {
            return skip("a full /dev/shm", "no tmpfs can be mounted");
        }
        let seed = seed();
        head("The journal has no room, on SQLite", seed);
        let database = Database::sqlite();
        let config = database.config();
        let mut rig = Rig::new(database, config, seed);
        rig.announces(500);
        wait_until("goat to say so", || {
            rig.goat.log().contains("has no more room")
        });
        rig.verify("/dev/shm is full", 1);
    });
    if let Err(panic) = mounting.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn a_clock_that_is_set_back_costs_nothing() {
    let Some(library) = faketime("the clock is set back") else {
        return;
    };
    let seed = seed();
    head("The clock is set back, on SQLite", seed);
    let database = Database::sqlite();
    let config = database.config();
    let mut rig = Rig::new(database, config, seed);
    rig.announces(500);
    let mut ids = Vec::new();
    for time in 1..=4 {
        // An hour back, and forth again; in the middle goat is killed, or stops in good order.
        let hours = if time % 2 == 0 { "+0" } else { "-3600" };
        rig.goat.environment = vec![
            ("LD_PRELOAD".into(), library.clone()),
            ("FAKETIME".into(), hours.into()),
            ("DONT_FAKE_MONOTONIC".into(), "1".into()),
        ];
        if time > 2 {
            rig.shared.goes_down();
            assert!(rig.goat.stop().success());
            rig.goat.launch();
            rig.shared.comes_up();
        } else {
            rig.kill();
        }
        ids.push(rig.goat.process().id());
        rig.announces(500);
        rig.verify("the clock is set back an hour, or forth", time);
    }
    drop(rig);
    ids.into_iter().for_each(tidy);
}

#[test]
fn after_five_minutes_goat_says_how_things_are() {
    let Some(library) = faketime("five minutes pass") else {
        return;
    };
    let database = Database::sqlite();
    let mut goat = Goat::prepare(&database, json!({}));
    goat.add_user("anna");
    // Ten seconds after its start the time jumps ahead.
    goat.environment = vec![
        ("LD_PRELOAD".into(), library),
        ("FAKETIME".into(), "+301".into()),
        ("FAKETIME_START_AFTER_SECONDS".into(), "10".into()),
    ];
    goat.launch();
    let status = "status: 1 users, 0 torrents, 0 seeders, 0 leechers, 0 announces (+0), 0 refused";
    wait_until("the status", || goat.log().contains(status));
    let id = goat.process().id();
    drop(goat);
    tidy(id);
}

// ---------------------------------------------------------------------------------------------------

const PASS: u8 = 0;
const REFUSE: u8 = 1;
const DELAY: u8 = 2;
const CUT_COMMIT: u8 = 3;
/// How a statement of its own looks on the wire: a length, a number, what it is, and the text.
const COMMIT: &[u8] = b"\x07\0\0\0\x03COMMIT";

/// Between goat and MariaDB.
struct Proxy {
    port: u16,
    mode: Arc<AtomicU8>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    cuts: Arc<AtomicU64>,
}

impl Proxy {
    fn start(server: &MariaDb) -> Proxy {
        let proxy = Proxy {
            port: free_port(),
            mode: Arc::default(),
            open: Arc::default(),
            cuts: Arc::default(),
        };
        let listener = TcpListener::bind(("127.0.0.1", proxy.port)).unwrap();
        let (mode, open, cuts) = (proxy.mode.clone(), proxy.open.clone(), proxy.cuts.clone());
        let server: SocketAddr = server.address().parse().unwrap();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else {
                    continue;
                };
                if mode.load(SeqCst) == REFUSE {
                    continue;
                }
                for stream in [&client, &server] {
                    stream.set_nodelay(true).unwrap();
                    lock(&open).push(stream.try_clone().unwrap());
                }
                let swallow = Arc::new(AtomicBool::new(false));
                let (to, from) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let shared = (mode.clone(), cuts.clone(), swallow.clone());
                thread::spawn(move || pump(client, to, shared, true));
                let shared = (mode.clone(), cuts.clone(), swallow);
                thread::spawn(move || pump(server, from, shared, false));
            }
        });
        proxy
    }

    fn set(&self, mode: u8) {
        self.mode.store(mode, SeqCst);
    }

    fn cut(&self) {
        lock(&self.open)
            .drain(..)
            .for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

type Pump = (Arc<AtomicU8>, Arc<AtomicU64>, Arc<AtomicBool>);

fn pump(mut from: TcpStream, mut to: TcpStream, (mode, cuts, swallow): Pump, asks: bool) {
    let mut part = [0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut part) {
        let bytes = &part[..read];
        if mode.load(SeqCst) == DELAY {
            thread::sleep(Duration::from_millis(20));
        }
        if asks
            && bytes.ends_with(COMMIT)
            && mode
                .compare_exchange(CUT_COMMIT, PASS, SeqCst, SeqCst)
                .is_ok()
        {
            swallow.store(true, SeqCst);
        }
        if !asks && swallow.load(SeqCst) {
            cuts.fetch_add(1, SeqCst);
            break;
        }
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// A server on a folder, with a rig that reaches it through a proxy.
fn mariadb(test: &str, folder: Folder, seed: u64) -> Option<(Rig, Proxy)> {
    let server = MariaDb::start_on(test, folder)?;
    let proxy = Proxy::start(&server);
    let mut config = server.config();
    config["Host"] = format!("127.0.0.1:{}", proxy.port).into();
    Some((Rig::new(Database::MariaDb(server), config, seed), proxy))
}

fn server(rig: &mut Rig) -> &mut MariaDb {
    match &mut rig.database {
        Database::MariaDb(server) => server,
        Database::Sqlite(_) => unreachable!("made by mariadb()"),
    }
}

#[test]
fn faults_of_mariadb_cost_nothing() {
    let seed = seed();
    let Some((mut rig, proxy)) = mariadb("faults of MariaDB", Folder::new(), seed) else {
        return;
    };
    head("Faults of MariaDB and of the network to it", seed);
    rig.announces(500);
    rig.verify("none", 1);

    for _ in 0..20 {
        rig.announces(50);
        proxy.cut();
    }
    rig.verify("the connection is cut", 20);

    for time in 1..=30 {
        proxy.set(CUT_COMMIT);
        rig.announces(20);
        wait_until("a cut", || proxy.cuts.load(SeqCst) >= time);
    }
    rig.verify("the connection is cut between COMMIT and its answer", 30);

    for time in 1..=3 {
        rig.notices(|_| {
            proxy.set(REFUSE);
            proxy.cut();
        });
        rig.announces(500);
        proxy.set(PASS);
        rig.verify("there is no way to the server", time);
    }

    proxy.set(DELAY);
    rig.announces(4000);
    proxy.set(PASS);
    rig.verify("each packet takes 20 ms longer", 1);

    for time in 1..=3 {
        rig.announces(300);
        server(&mut rig).kill();
        rig.announces(500);
        server(&mut rig).launch();
        rig.verify("MariaDB is killed and started again", time);
    }

    // What the shell has to complain of.
    let attack = |rig: &mut Rig, sql: &str| -> String {
        let mut shell = Command::new("mariadb");
        shell.args(["--no-defaults", "--user=goat", "--password=goat", "goat"]);
        shell.arg("--socket").arg(server(rig).socket());
        let output = shell.args(["--execute", sql]).output().unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.success(), words.is_empty(), "{words}");
        words
    };
    let deadlocks = |rig: &mut Rig| -> u64 {
        let status = server(rig).root("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'");
        status[0][1].parse().unwrap()
    };
    // goat locks sessions, totals, users: this is the other way round.
    let opposite = "START TRANSACTION; UPDATE users SET torrent_limit = torrent_limit; DO SLEEP(0.3);
                    UPDATE peers SET paused = paused; UPDATE files_users SET active = active; COMMIT;";
    for _ in 0..20 {
        // Either of the two loses.
        let words = attack(&mut rig, opposite);
        assert!(words.is_empty() || words.contains("ERROR 1213"), "{words}");
    }
    let found = deadlocks(&mut rig);
    assert!(found > 0, "no deadlock came of it");
    rig.verify("deadlocks with another connection", found);

    for time in 1..=2 {
        let lock =
            "START TRANSACTION; SELECT COUNT(*) FROM peers FOR UPDATE; DO SLEEP(6); ROLLBACK";
        assert_eq!(rig.notices(|rig| attack(rig, lock)), "");
        rig.verify("locks are held longer than goat waits", time);
    }

    for time in 1..=2 {
        rig.notices(|rig| rig.database.sql("RENAME TABLE files_users TO gone"));
        rig.announces(500);
        rig.database.sql("RENAME TABLE gone TO files_users");
        rig.verify("a table is away", time);
    }
    for time in 1..=2 {
        rig.database.sql("ALTER TABLE peers ADD COLUMN more INT");
        rig.announces(500);
        rig.database.sql("ALTER TABLE peers DROP COLUMN more");
        rig.verify("a table is altered and altered back", time);
    }
    for time in 1..=2 {
        rig.notices(|rig| server(rig).root("SET GLOBAL read_only = 1"));
        rig.announces(500);
        server(&mut rig).root("SET GLOBAL read_only = 0");
        rig.verify("the server is read-only", time);
    }

    let kills = number("GOAT_KILLS", 1000) / 10;
    let mut random = Random(seed);
    for _ in 0..kills {
        rig.announces(1);
        thread::sleep(Duration::from_micros(random.below(60_000)));
        rig.kill();
    }
    rig.verify("kill -9 of goat (MariaDB)", kills);

    for time in 1..=5 {
        proxy.set(REFUSE);
        proxy.cut();
        rig.announces(300);
        rig.shared.goes_down();
        assert!(rig.goat.stop().success());
        let rest = rig.goat.folder.join("config.unwritten.json");
        assert!(rest.exists(), "{}", rig.goat.log());
        proxy.set(PASS);
        for _ in 0..5 {
            rig.goat.spawn();
            thread::sleep(Duration::from_micros(random.below(30_000)));
            rig.goat.kill();
        }
        rig.goat.launch();
        rig.shared.comes_up();
        rig.verify(
            "goat stops without its database, five starts are killed",
            time,
        );
        assert!(!rest.exists());
    }

    for time in 1..=10 {
        // Both die, goat in the middle of what it had to catch up with, or before.
        server(&mut rig).kill();
        rig.announces(100);
        rig.shared.goes_down();
        rig.goat.kill();
        server(&mut rig).launch();
        for _ in 0..5 {
            rig.goat.spawn();
            thread::sleep(Duration::from_micros(random.below(30_000)));
            rig.goat.kill();
        }
        rig.goat.launch();
        rig.shared.comes_up();
        rig.verify(
            "MariaDB and goat are killed, and the next five starts",
            time,
        );
    }
}

#[test]
fn a_full_disk_of_mariadb_costs_nothing() {
    let Some(disk) = Disk::new(160) else {
        return skip("a full disk", "no tmpfs can be mounted");
    };
    let seed = seed();
    let folder = Folder::new();
    disk.take(folder.path());
    let Some((mut rig, _proxy)) = mariadb("a full disk of MariaDB", folder, seed) else {
        return;
    };
    head("The disk of MariaDB is full", seed);
    for time in 1..=3 {
        rig.announces(500);
        let file = rig.notices(|_| fill(disk.folder()));
        rig.announces(500);
        fs::remove_file(file).unwrap();
        // Some servers die of it, and somebody starts them again.
        wait_until("goat to catch up", || {
            let server = server(&mut rig);
            if UnixStream::connect(server.socket()).is_err() {
                server.launch();
            }
            rig.can_write()
        });
        rig.verify("the disk is full (MariaDB)", time);
    }
}
