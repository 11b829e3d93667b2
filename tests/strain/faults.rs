//! Faults, made for real against the binary while clients announce over HTTP and UDP: after each the database must
//! hold what was answered, to the byte, and nothing that was never sent. Prints what was tried.
//!
//! Environment: GOAT_KILLS is how often goat is killed on each database instead of 100 times, a tenth of it how often
//! power is cut; GOAT_SEED is the seed of the clients, which is printed.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::beside_others;
use crate::common::load::{Rig, compare, lock};
use crate::common::{Database, Folder, Goat, Lock, MariaDb, Random};
use crate::common::{faketime, free_port, hex, info_hash, skip, tidy, wait_until};
use serde_json::json;

fn number(name: &str, default: u64) -> u64 {
    let parse = |text: String| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}"));
    std::env::var(name).map_or(default, parse)
}

fn kills() -> u64 {
    number("GOAT_KILLS", 100)
}

fn seed() -> u64 {
    number("GOAT_SEED", 20_140_126)
}

fn head(title: &str, seed: u64) {
    crate::say!("\n{title}, GOAT_SEED={seed}");
    let words = ["fault", "tried", "rows", "unanswered", "longest ms"];
    crate::say!("{:<62} {:>5} {:>8} {:>10} {:>10}", words[0], words[1], words[2], words[3], words[4]);
}

fn sqlite(seed: u64) -> Rig {
    let database = Database::sqlite();
    let config = database.config();
    Rig::new(database, config, seed)
}

fn folder(database: &Database) -> &Folder {
    match database {
        Database::Sqlite(folder) => folder,
        Database::MariaDb(_) => unreachable!("this is about a file"),
    }
}

// ---- Kills.

fn kill_again_and_again(rig: &mut Rig, what: &str, times: u64) {
    let mut random = Random(rig.seed);
    for _ in 0..times {
        rig.announces(1);
        thread::sleep(Duration::from_micros(random.below(60_000)));
        rig.kill(what);
    }
    rig.verify(what, times);
}

#[test]
fn kills_under_load_lose_nothing_that_was_answered_on_sqlite() {
    let _beside = beside_others();
    let seed = seed();
    head("goat is killed at random moments, on SQLite", seed);
    let mut rig = sqlite(seed);
    kill_again_and_again(&mut rig, "kill -9 of goat (SQLite)", kills());
    crate::say!("{} announces answered", rig.count());
}

#[test]
fn kills_under_load_lose_nothing_that_was_answered_on_mariadb() {
    let _beside = beside_others();
    let Some(server) = MariaDb::start("kills on MariaDB") else {
        return;
    };
    let seed = seed();
    head("goat is killed at random moments, on MariaDB", seed);
    let config = server.config();
    let mut rig = Rig::new(Database::MariaDb(server), config, seed);
    kill_again_and_again(&mut rig, "kill -9 of goat (MariaDB)", kills());
    crate::say!("{} announces answered", rig.count());
}

// ---- Power.

/// A file system in a file, on a device of its own.
struct Image {
    /// Where the file is.
    file: PathBuf,
    /// Where it is mounted.
    folder: Folder,
}

impl Image {
    /// Makes one of ext4; None where that cannot be mounted.
    fn make(file: PathBuf, megabytes: u64) -> Option<Image> {
        fs::File::create(&file).unwrap().set_len(megabytes << 20).unwrap();
        let mut make = Command::new("mkfs.ext4");
        make.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(["-q", "-F"]).arg(&file);
        if !make.status().is_ok_and(|status| status.success()) {
            return None;
        }
        Image::mount(file)
    }

    fn mount(file: PathBuf) -> Option<Image> {
        let folder = Folder::new();
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(&file).arg(folder.path());
        let done = mount.stderr(Stdio::null()).status();
        done.is_ok_and(|status| status.success()).then_some(Image { file, folder })
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        unmount(self.folder.path());
        let _ = fs::remove_file(&self.file);
    }
}

/// What a loss of power may cost: a second, and what it takes to see that it is over.
const LOST: Duration = Duration::from_millis(1500);

#[test]
fn a_power_cut_loses_at_most_the_last_second() {
    let _beside = beside_others();
    // In memory, so that a copy takes no time.
    let Some(memory) = Disk::new(400) else {
        return skip("a power cut", "no tmpfs can be mounted");
    };
    let Some(image) = Image::make(memory.folder().join("disk"), 64) else {
        return skip("a power cut", "no ext4 can be made and mounted");
    };
    let seed = seed();
    head("Power is cut at random moments, on SQLite", seed);
    // The folder is the image's, and stays when this is over.
    let database = Database::sqlite();
    let path = image.folder.join("goat.db");
    std::os::unix::fs::symlink(&path, folder(&database).join("goat.db")).unwrap();
    let config = database.config();
    let mut rig = Rig::new(database, config, seed);
    rig.remember();
    let (mut random, mut longest) = (Random(seed), Duration::ZERO);
    let cuts = (kills() / 10).max(5);
    for cut in 1..=cuts {
        rig.announces(100);
        let member = format!("late{cut}");
        rig.goat.add_user(&member);
        // The disk has it as soon where the database cannot be written.
        let lock = (cut % 2 == 0).then(|| Lock::new(&rig.database));
        thread::sleep(Duration::from_micros(random.below(2_500_000)));
        // The device as it is at this moment: nothing is written to it meanwhile.
        let begin = Instant::now();
        rig.goat.process().signal(libc::SIGSTOP);
        let copy = memory.folder().join("copy");
        fs::copy(&image.file, &copy).unwrap();
        rig.goat.process().signal(libc::SIGCONT);
        let (least, most) = (rig.answered_until(begin - LOST), rig.sent());
        lock.into_iter().for_each(Lock::release);
        longest = longest.max(begin.elapsed());
        let after = Image::mount(copy).expect("its journal is replayed");
        let found = Database::Sqlite(Folder::new());
        let name = folder(&found).join("goat.db");
        std::os::unix::fs::symlink(after.folder.join("goat.db"), &name).unwrap();
        let mut goat = Goat::start(&found, json!({}));
        compare(&found, &least, &most).demand(&format!("cut {cut}, GOAT_SEED={seed}\n{}", goat.log()));
        for n in 1..=cut {
            let sql = format!("SELECT COUNT(*) FROM users WHERE username = 'late{n}'");
            assert_eq!(found.number(&sql), 1, "cut {cut}: late{n}");
        }
        goat.kill();
    }
    rig.verify("the power is cut", cuts);
    crate::say!("copies took {longest:?} at most");
    rig.goat.process().signal(libc::SIGCONT);
    drop(rig);
}

// ---- Disks.

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
fn faults_of_sqlite_cost_nothing() {
    let _beside = beside_others();
    let seed = seed();
    head("Faults of SQLite", seed);
    let mut rig = sqlite(seed);
    let path = folder(&rig.database).join("goat.db");
    rig.announces(500);
    rig.verify("none", 1);

    for time in 1..=3 {
        let mut shell = rig.notices(|_| {
            let mut sqlite3 = Command::new("sqlite3");
            let sqlite3 = sqlite3.arg(&path).stdin(Stdio::piped()).stdout(Stdio::null());
            let mut shell = sqlite3.spawn().unwrap();
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
        rig.notices(|rig| rig.database.sql("ALTER TABLE totals RENAME TO gone"));
        rig.announces(500);
        rig.database.sql("ALTER TABLE gone RENAME TO totals");
        rig.verify("a table is away", time);
    }
    for time in 1..=3 {
        rig.database.sql("ALTER TABLE sessions ADD COLUMN more INTEGER");
        rig.announces(500);
        rig.database.sql("ALTER TABLE sessions DROP COLUMN more");
        rig.verify("a table is altered and altered back", time);
    }
    assert!(rig.goat.log().contains("were written late"), "{}", rig.goat.log());
}

#[test]
fn a_full_disk_costs_nothing() {
    let _beside = beside_others();
    let Some(disk) = Disk::new(12) else {
        return skip("a full disk", "no tmpfs can be mounted");
    };
    let seed = seed();
    head("The disk of SQLite and of its journal is full", seed);
    let database = Database::sqlite();
    disk.take(folder(&database).path());
    let config = database.config();
    let mut rig = Rig::new(database, config, seed);
    for time in 1..=3 {
        rig.announces(500);
        let file = rig.notices(|_| fill(disk.folder()));
        rig.announces(1000);
        fs::remove_file(file).unwrap();
        rig.verify("the disk is full (SQLite and journal)", time);
        rig.kill("kill -9 after the disk was full");
    }
}

#[test]
fn a_full_disk_of_the_database_costs_nothing_though_goat_ends() {
    let _beside = beside_others();
    let (Some(disk), Some(other)) = (Disk::new(12), Disk::new(8)) else {
        return skip("a full disk", "no tmpfs can be mounted");
    };
    let seed = seed();
    head("The disk of SQLite is full, that of its journal is not", seed);
    let database = Database::sqlite();
    disk.take(folder(&database).path());
    let journal = folder(&database).join("goat.journal");
    std::os::unix::fs::symlink(other.folder(), &journal).unwrap();
    let config = database.config();
    let mut rig = Rig::new(database, config, seed);
    for time in 1..=6 {
        rig.announces(500);
        let file = rig.notices(|_| fill(disk.folder()));
        rig.announces(500);
        let lines = rig.goat.log().matches("goat.db cannot be written").count();
        assert_eq!(lines, 1, "{}", rig.goat.log());
        rig.goes_down();
        if time % 2 == 0 {
            rig.goat.kill();
        } else {
            assert!(rig.goat.stop().success(), "{}", rig.goat.log());
        }
        fs::remove_file(file).unwrap();
        rig.pause();
        let least = rig.answered();
        fs::remove_file(rig.goat.folder.join("goat.log")).unwrap();
        rig.start();
        let verdict = compare(&rig.database, &least, &rig.sent());
        verdict.demand(&format!("the next start, GOAT_SEED={seed}\n{}", rig.goat.log()));
        rig.comes_up();
        rig.verify("the disk is full (SQLite), and goat is stopped or killed", time);
    }
}

#[test]
fn a_journal_without_room_is_spoken_of_once_and_costs_nothing() {
    let _beside = beside_others();
    let Some(disk) = Disk::new(1) else {
        return skip("a full disk of the journal", "no tmpfs can be mounted");
    };
    let seed = seed();
    head("The disk of the journal is full, that of SQLite is not", seed);
    let database = Database::sqlite();
    std::os::unix::fs::symlink(disk.folder(), folder(&database).join("goat.journal")).unwrap();
    let config = database.config();
    let mut rig = Rig::new(database, config, seed);
    let lines = |rig: &Rig, words: &str| {
        let lines = rig.goat.log();
        lines.lines().filter(|line| line.contains("goat.journal") && line.contains(words)).count()
    };
    for time in 1..=3 {
        rig.announces(500);
        let file = rig.notices(|_| fill(disk.folder()));
        rig.announces(2000);
        assert_eq!(lines(&rig, "cannot be written"), 1, "{}", rig.goat.log());
        fs::remove_file(file).unwrap();
        wait_until("goat to say that it can", || lines(&rig, "can be written again") == 1);
        rig.verify("the disk is full (journal)", time);
        fs::remove_file(rig.goat.folder.join("goat.log")).unwrap();
        rig.kill("kill -9 after the journal had no room");
    }
}

#[test]
fn a_clock_that_is_set_back_costs_nothing() {
    let _beside = beside_others();
    let Some(library) = faketime("the clock is set back") else {
        return;
    };
    let seed = seed();
    head("The clock is set back, on SQLite", seed);
    let mut rig = sqlite(seed);
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
            rig.goes_down();
            assert!(rig.goat.stop().success());
            rig.start();
            rig.comes_up();
        } else {
            rig.kill("kill -9, and the clock is set");
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
    let _beside = beside_others();
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
const LOSE_COMMIT: u8 = 4;
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
        let proxy = Proxy { port: free_port(), mode: Arc::default(), open: Arc::default(), cuts: Arc::default() };
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
        lock(&self.open).drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
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
        if asks && bytes.ends_with(COMMIT) && mode.compare_exchange(CUT_COMMIT, PASS, SeqCst, SeqCst).is_ok() {
            swallow.store(true, SeqCst);
        }
        let lost = || mode.compare_exchange(LOSE_COMMIT, PASS, SeqCst, SeqCst).is_ok();
        if asks && bytes.ends_with(COMMIT) && lost() {
            cuts.fetch_add(1, SeqCst);
            break;
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
    let _beside = beside_others();
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
                    UPDATE totals SET completed = completed; UPDATE sessions SET closed = closed; COMMIT;";
    for _ in 0..20 {
        // Either of the two loses.
        let words = attack(&mut rig, opposite);
        assert!(words.is_empty() || words.contains("ERROR 1213"), "{words}");
    }
    let found = deadlocks(&mut rig);
    assert!(found > 0, "no deadlock came of it");
    rig.verify("deadlocks with another connection", found);

    for time in 1..=2 {
        let lock = "START TRANSACTION; SELECT COUNT(*) FROM sessions FOR UPDATE; DO SLEEP(6); ROLLBACK";
        assert_eq!(rig.notices(|rig| attack(rig, lock)), "");
        rig.verify("locks are held longer than goat waits", time);
    }

    for time in 1..=2 {
        rig.notices(|rig| rig.database.sql("RENAME TABLE totals TO gone"));
        rig.announces(500);
        rig.database.sql("RENAME TABLE gone TO totals");
        rig.verify("a table is away", time);
    }
    for time in 1..=2 {
        rig.database.sql("ALTER TABLE sessions ADD COLUMN more INT");
        rig.announces(500);
        rig.database.sql("ALTER TABLE sessions DROP COLUMN more");
        rig.verify("a table is altered and altered back", time);
    }
    for time in 1..=2 {
        rig.notices(|rig| server(rig).root("SET GLOBAL read_only = 1"));
        rig.announces(500);
        server(&mut rig).root("SET GLOBAL read_only = 0");
        rig.verify("the server is read-only", time);
    }

    let mut random = Random(seed);
    for time in 1..=5 {
        proxy.set(REFUSE);
        proxy.cut();
        rig.announces(300);
        rig.goes_down();
        assert!(rig.goat.stop().success());
        assert!(!rig.goat.segments().is_empty(), "{}", rig.goat.log());
        proxy.set(PASS);
        for _ in 0..5 {
            rig.goat.spawn();
            thread::sleep(Duration::from_micros(random.below(30_000)));
            rig.goat.kill();
        }
        rig.start();
        rig.comes_up();
        rig.verify("goat stops without its database, five starts are killed", time);
    }

    for time in 1..=10 {
        // Both die, goat in the middle of what it had to catch up with, or before.
        server(&mut rig).kill();
        rig.announces(100);
        rig.goes_down();
        rig.goat.kill();
        server(&mut rig).launch();
        for _ in 0..5 {
            rig.goat.spawn();
            thread::sleep(Duration::from_micros(random.below(30_000)));
            rig.goat.kill();
        }
        rig.start();
        rig.comes_up();
        rig.verify("MariaDB and goat are killed, and the next five starts", time);
    }
}

#[test]
fn a_credit_whose_commit_is_not_answered_is_an_error_and_is_given_once_or_not_at_all() {
    let _beside = beside_others();
    let Some(server) = MariaDb::start("a lost answer to COMMIT") else {
        return;
    };
    let proxy = Proxy::start(&server);
    let mut config = server.config();
    config["Host"] = format!("127.0.0.1:{}", proxy.port).into();
    let database = Database::MariaDb(server);
    let goat = Goat::prepare(&database, json!({ "DB": config }));
    goat.add_user("anna");
    let uploaded = || database.number("SELECT uploaded FROM users");
    let credit = || goat.cli(&["user", "credit", "anna", "--uploaded", "1000"]);
    let mut expected = 0;
    for time in 1..=6 {
        // The answer is lost, or the question.
        let answer = time % 2 == 0;
        proxy.set(if answer { CUT_COMMIT } else { LOSE_COMMIT });
        let (status, stdout, stderr) = credit();
        assert_eq!(proxy.cuts.load(SeqCst), time);
        assert_eq!((status.code(), stdout.as_str()), (Some(1), ""), "{stderr}");
        assert!(stderr.contains("check before you repeat it"), "{stderr}");
        expected += if answer { 1000 } else { 0 };
        wait_until("the server to be done", || uploaded() == expected);
        thread::sleep(Duration::from_millis(200));
        assert_eq!(uploaded(), expected);
    }
    assert!(credit().0.success());
    assert_eq!(uploaded(), expected + 1000);
}

// ---- Many sessions.

/// Members and torrents for many sessions; the passkey of a member is their id.
const MEMBERS: u32 = 1000;
const MANY: u32 = 100;

fn populate(database: &Database) {
    let rows = |count: u32, row: &dyn Fn(u32) -> String| (1..=count).map(row).collect::<Vec<_>>().join(", ");
    let users = rows(MEMBERS, &|id| format!("({id}, 'user{id}', '{id:040x}')"));
    let files = rows(MANY, &|id| format!("({id}, '{}', 1)", hex(&info_hash(id))));
    database.sql(&format!("INSERT INTO users (id, username, passkey) VALUES {users}"));
    database.sql(&format!("INSERT INTO files (id, info_hash, verified) VALUES {files}"));
}

/// Sends announces over UDP, of another session each, as fast as they are answered, or at a pace: the numbers of the
/// sessions come from `next`, until that ends.
fn announce_many(address: SocketAddr, each: Duration, mut next: impl FnMut() -> Option<u32>) -> u64 {
    let socket = UdpSocket::bind((address.ip(), 0)).unwrap();
    socket.connect(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (mut answer, mut answered, mut round) = ([0; 4096], 0, 0u64);
    let (begin, mut connected, mut id) = (Instant::now(), None::<Instant>, [0; 8]);
    loop {
        if connected.is_none_or(|at| at.elapsed() > Duration::from_secs(60)) {
            let connect = [0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 7, 7, 7, 7];
            socket.send(&connect).unwrap();
            socket.recv(&mut answer).unwrap();
            assert_eq!(answer[..8], [0, 0, 0, 0, 7, 7, 7, 7]);
            id = answer[8..16].try_into().unwrap();
            connected = Some(Instant::now());
        }
        let numbers: Vec<u32> = std::iter::from_fn(&mut next).take(32).collect();
        if numbers.is_empty() {
            return answered;
        }
        round += 1;
        for number in &numbers {
            let (user, torrent) = (1 + number % MEMBERS, 1 + number / MEMBERS % MANY);
            let url = format!("/{user:040x}/announce");
            let mut packet = [&id[..], &[0, 0, 0, 1], &number.to_be_bytes()].concat();
            packet.extend(info_hash(torrent));
            packet.extend(format!("-qB5020-{number:012}").into_bytes());
            packet.extend([round * 1000, 1, round * 1000].map(u64::to_be_bytes).concat());
            packet.extend([0, 0, 0, 0].map(u32::to_be_bytes).concat());
            packet.extend([0x1a, 0xe1, 2, url.len() as u8]);
            packet.extend(url.into_bytes());
            socket.send(&packet).unwrap();
        }
        for _ in &numbers {
            let size = socket.recv(&mut answer).unwrap();
            assert_eq!(answer[3], 1, "{}", String::from_utf8_lossy(&answer[8..size]));
            answered += 1;
        }
        let due = begin + each * u32::try_from(answered).unwrap();
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

fn many(database: &Database, config: serde_json::Value) -> Goat {
    let settings = json!({ "SlowDown": 0, "Clients": 1_000_000, "UDP": true, "DB": config });
    let mut goat = Goat::prepare(database, settings);
    goat.json(&["user", "list"]); // makes the tables
    populate(database);
    goat.launch();
    goat
}

/// The most memory that a process ever had, in MiB; None if it has ended.
fn most_memory(id: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

#[test]
fn memory_does_not_double_where_goat_stops_with_100_000_unwritten_sessions() {
    let _beside = beside_others();
    let Some(mut server) = MariaDb::start("memory at the end") else {
        return;
    };
    let config = server.config();
    server.stop();
    server.launch();
    let mut database = Database::MariaDb(server);
    let mut goat = many(&database, config);
    let Database::MariaDb(server) = &mut database else { unreachable!() };
    server.kill();
    let mut numbers = 0..MEMBERS * MANY;
    announce_many(goat.address(), Duration::ZERO, || numbers.next());
    wait_until("goat to notice", || goat.log().contains("cannot be written"));
    let id = goat.process().id();
    let before = most_memory(id).unwrap();
    goat.process().signal(libc::SIGTERM);
    let (begin, mut after) = (Instant::now(), before);
    while let Some(now) = most_memory(id) {
        after = after.max(now);
        thread::sleep(Duration::from_millis(2));
    }
    let took = begin.elapsed();
    assert!(goat.process().wait().success(), "{}", goat.log());
    crate::say!(
        "memory with {} unwritten sessions: {before:.0} MiB, at the end {after:.0} MiB, {took:?}",
        MEMBERS * MANY
    );
    assert!(after < before * 1.15 + 4.0, "{before} MiB became {after} MiB");
    assert!(took < Duration::from_secs(10), "goat took {took:?} to end");
    // And all of them are written by the next start.
    server.launch();
    goat.launch();
    assert_eq!(database.number("SELECT COUNT(*) FROM sessions"), i64::from(MEMBERS * MANY));
}

#[test]
fn others_write_while_5_000_announces_a_second_are_written_and_none_waits_in_vain() {
    let _beside = beside_others();
    let mut databases = vec![Database::sqlite()];
    databases.extend(Database::mariadb("others write meanwhile"));
    for database in databases {
        let mut goat = many(&database, database.config());
        let (stop, begin) = (AtomicBool::new(false), Instant::now());
        let path = match &database {
            Database::Sqlite(folder) => Some(folder.join("goat.db")),
            Database::MariaDb(_) => None,
        };
        let (mut slowest, mut longest, mut count) = (Duration::ZERO, Duration::ZERO, 0);
        let answered = thread::scope(|scope| {
            let (stop, address) = (&stop, goat.address());
            let announcing = scope.spawn(move || {
                let mut random = Random(seed());
                let sessions = u64::from(MEMBERS * MANY);
                let next = || (!stop.load(SeqCst)).then(|| random.below(sessions) as u32);
                announce_many(address, Duration::from_micros(200), next)
            });
            // A web site that waits at most as long as most libraries do.
            let locks = path.map(|path| {
                scope.spawn(move || {
                    let sql = "BEGIN IMMEDIATE; UPDATE files SET size = size; ROLLBACK";
                    let mut site = Command::new("sqlite3");
                    site.args(["-batch", "-cmd", ".timeout 5000"]).arg(path).arg(sql);
                    let mut longest = Duration::ZERO;
                    while !stop.load(SeqCst) {
                        let asked = Instant::now();
                        assert!(site.status().unwrap().success());
                        longest = longest.max(asked.elapsed());
                        thread::sleep(Duration::from_millis(5));
                    }
                    longest
                })
            });
            while begin.elapsed() < Duration::from_secs(25) {
                let asked = Instant::now();
                count += 1;
                goat.add_user(&format!("new{count}"));
                slowest = slowest.max(asked.elapsed());
                database
                    .sql(&format!("INSERT INTO users (username, passkey) VALUES ('site{count}', 'site-{count:011}')"));
                thread::sleep(Duration::from_millis(100));
            }
            stop.store(true, SeqCst);
            longest = locks.map_or(longest, |thread| thread.join().unwrap());
            announcing.join().unwrap()
        });
        let rate = answered as f64 / begin.elapsed().as_secs_f64();
        crate::say!("{rate:.0} announces a second meanwhile: {count} times `goat user add`, {slowest:?} at most");
        if longest > Duration::ZERO {
            crate::say!("a lock of SQLite was had after {longest:?} at most");
        }
        assert!(!goat.log().contains("cannot be written"), "{}", goat.log());
        assert!(goat.stop().success());
        let sums = "SELECT COUNT(*) FROM users WHERE username LIKE 'new%' OR username LIKE 'site%'";
        assert_eq!(database.number(sums), 2 * count);
    }
}

#[test]
fn a_full_disk_of_mariadb_costs_nothing() {
    let _beside = beside_others();
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
