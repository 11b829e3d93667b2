//! What the benches share: servers as processes of their own, the kernel's account of what they
//! used, and a database filled with as many users, torrents and sessions as a bench asks for.

#![allow(dead_code)] // Each bench uses a part of it.

pub mod http;
pub mod udp;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use goat::protocol::{Announce, Event, Want};
use goat::torrent::{InfoHash, PeerId};

/// `--name value` after `--`; cargo adds a `--bench` of its own, which has no value.
pub fn argument(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    arguments.find(|a| a == name)?;
    let value = arguments.next();
    Some(value.unwrap_or_else(|| panic!("{name} needs a value")))
}

pub fn number(name: &str, default: u64) -> u64 {
    argument(name).map_or(default, |v| v.parse().unwrap_or_else(|_| panic!("{name} needs a number, not {v}")))
}

/// A directory that goes when the bench ends.
pub struct TempDir(pub PathBuf);

impl TempDir {
    pub fn new(name: &str) -> TempDir {
        let path = std::env::temp_dir().join(format!("goat-bench-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        TempDir(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

// ---------------------------------------------------------------------------------------------
// What everybody announces: torrent i has the slots 0 to per_torrent - 1, and session number
// s = i * per_torrent + slot belongs to user s % users. All of it follows from the number, so that
// the generator needs no table of sessions.

#[derive(Clone, Copy)]
pub struct Shape {
    pub users: u64,
    pub torrents: u64,
    pub per_torrent: u64,
}

impl Shape {
    pub fn sessions(&self) -> u64 {
        self.torrents * self.per_torrent
    }
    pub fn user(&self, session: u64) -> u64 {
        session % self.users
    }
    pub fn torrent(&self, session: u64) -> u64 {
        session / self.per_torrent
    }
    /// Every slot has a port of its own: some trackers tell peers apart by address and port alone. Neighbouring torrents
    /// have others, so that peers of another torrent are noticed.
    pub fn port(&self, session: u64) -> u16 {
        10_000 + (session % 50_000) as u16
    }
    /// Every other slot seeds, so that a seeder and a leecher both find 50 peers among 100.
    pub fn left(&self, session: u64) -> u64 {
        (session % 2) * 700_000_000
    }
}

/// The counters of all sessions begin here, so that they keep their number of digits.
pub const FIRST_COUNTER: u64 = 1_000_000_000_000;

/// splitmix64: well spread bytes out of a number.
pub fn scramble(number: u64) -> u64 {
    let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub fn info_hash(torrent: u64) -> [u8; 20] {
    let mut hash = [0; 20];
    for (i, part) in hash.chunks_mut(8).enumerate() {
        part.copy_from_slice(&scramble(torrent * 3 + i as u64).to_be_bytes()[..part.len()]);
    }
    hash
}

pub fn passkey(user: u64) -> String {
    format!("{:016x}{:016x}{:08x}", scramble(user ^ 0xaa55), scramble(user ^ 0x55aa), user)
}

/// What one of a member's clients announces of a torrent over IPv4, and wants 50 peers for.
pub fn announce(torrent: u64, user: u64, peer_id: [u8; 20], event: Event) -> Announce {
    Announce {
        info_hash: InfoHash(info_hash(torrent)),
        peer_id: PeerId(peer_id),
        ip: IpAddr::from(Ipv4Addr::from(0x0a00_0000 + user as u32)),
        port: 6881,
        uploaded: FIRST_COUNTER,
        downloaded: FIRST_COUNTER,
        left: 0,
        event,
        udp: false,
        want: Want { count: 50, v4: true, v6: false, list: false },
    }
}

pub fn peer_id(session: u64) -> String {
    format!("-qB4600-{session:012}")
}

/// What a session has moved: it rises for all of them all the time.
pub fn counter() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed();
    FIRST_COUNTER + ((since.as_micros() as u64) << 4)
}

/// The sessions in the order in which they announce: each once before one comes again, and neighbours far from each other.
pub struct Order {
    pub sessions: u64,
    pub made: u64,
}

impl Order {
    pub fn next(&mut self) -> u64 {
        let session = self.made % self.sessions * PRIME % self.sessions;
        self.made += 1;
        session
    }
}

/// Has no factor in common with the number of sessions.
const PRIME: u64 = 618_041;

/// How many peers are asked for.
pub const NUMWANT: usize = 50;

/// Which peers an answer must hold.
#[derive(Clone, Copy)]
pub enum Check {
    /// Any number of any.
    Any,
    /// As many as were asked for, all of the torrent, and none twice.
    Full(Shape),
}

impl Check {
    pub fn holds(&self, session: u64, peers: &[u8]) -> bool {
        let Check::Full(shape) = self else {
            return peers.len().is_multiple_of(6);
        };
        let first = shape.port(shape.torrent(session) * shape.per_torrent);
        let (mut seen, mut count) = (0u128, 0);
        for peer in peers.chunks(6) {
            let [127, 0, 0, 1, high, low] = *peer else {
                return false;
            };
            let slot = u16::from_be_bytes([high, low]).wrapping_sub(first);
            if u64::from(slot) >= shape.per_torrent || seen & 1 << slot != 0 {
                return false;
            }
            seen |= 1 << slot;
            count += 1;
        }
        count == NUMWANT
    }
}

/// What came back.
#[derive(Default)]
pub struct Answers {
    /// Of every good answer, in nanoseconds.
    pub times: Vec<u32>,
    /// Of the good ones, those to announces.
    pub announced: u64,
    /// Datagrams that were sent again.
    pub lost: u64,
    pub wrong: u64,
    pub first_wrong: String,
}

impl Answers {
    pub fn good(&mut self, time: Duration, announced: bool) {
        self.times.push(time.as_nanos().try_into().unwrap_or(u32::MAX));
        self.announced += u64::from(announced);
    }

    pub fn fail(&mut self, answer: &[u8]) {
        if self.wrong == 0 {
            self.first_wrong = format!("{:?}", String::from_utf8_lossy(answer));
        }
        self.wrong += 1;
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A new database as a running tracker would have left it. `None` makes an empty one.
pub fn populate(path: &Path, shape: Option<Shape>) {
    let mut db = rusqlite::Connection::open(path).unwrap();
    // Nobody mourns this file if the machine dies meanwhile.
    db.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -262144;").unwrap();
    db.execute_batch(include_str!("../../res/sqlite/schema.sql")).unwrap();
    db.execute_batch(include_str!("../../res/sqlite/clients.sql")).unwrap();
    let Some(shape) = shape else { return };
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    let rows = db.transaction().unwrap();
    {
        let mut user = rows.prepare("INSERT INTO users (id, username, passkey) VALUES (?, ?, ?)").unwrap();
        for id in 0..shape.users {
            // Nobody has id 0.
            user.execute((id as i64 + 1, format!("user{id}"), passkey(id))).unwrap();
        }
        let mut file = rows.prepare("INSERT INTO files (id, info_hash, name, verified) VALUES (?, ?, ?, 1)").unwrap();
        for id in 0..shape.torrents {
            file.execute((id as i64 + 1, hex(&info_hash(id)), format!("torrent {id}"))).unwrap();
        }
        let mut peer = rows
            .prepare(
                "INSERT INTO sessions (file_id, user_id, peer_id, closed, flags, uploaded, downloaded, `left`, seed_time,
                    time4, time6, state)
                 VALUES (?1, ?2, ?3, 0, ?5, ?6, ?6, ?7, 0, ?8, 0, ?4)",
            )
            .unwrap();
        let mut total =
            rows.prepare("INSERT OR IGNORE INTO totals VALUES (?1, ?2, '', 0, 0, 0, 0, 0, 0, 0, 0, 0)").unwrap();
        for session in 0..shape.sessions() {
            let (file, user) = (shape.torrent(session) as i64 + 1, shape.user(session) as i64 + 1);
            let (left, counter) = (shape.left(session) as i64, FIRST_COUNTER as i64);
            // Came over IPv4 and TCP; who has everything has had it from the start.
            let flags = 65536 + 16 + if left == 0 { 2 } else { 0 };
            let [high, low] = shape.port(session).to_be_bytes();
            peer.execute((
                file,
                user,
                peer_id(session).as_bytes(),
                [127, 0, 0, 1, high, low],
                flags,
                counter,
                left,
                now,
            ))
            .unwrap();
            total.execute((file, user)).unwrap();
        }
    }
    // A running tracker has long seen all this.
    rows.execute("DELETE FROM changes", ()).unwrap();
    rows.commit().unwrap();
}

// ---------------------------------------------------------------------------------------------
// Servers.

/// A server in a process of its own; it ends with this value.
pub struct Server {
    child: Child,
    pub port: u16,
}

/// A port nobody listens on, below those the kernel gives to outgoing connections.
pub fn free_port() -> u16 {
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    (first..32_000)
        .find(|&port| {
            let at = ("127.0.0.1", port);
            TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok()
        })
        .expect("a free port")
}

impl Server {
    /// What the server prints goes to `log`.
    pub fn start(command: &mut Command, port: u16, log: &Path) -> Server {
        let output = File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output);
        // SAFETY: prctl is async-signal-safe. The server ends if the bench is killed.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                Ok(())
            })
        };
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        Server { child, port }
    }

    /// The built goat with a configuration and its SQLite in `dir`. It serves HTTP in any case.
    pub fn goat(dir: &Path, udp: bool) -> Server {
        Server::goat_on(dir, r#"{ "Driver": "sqlite", "Path": "goat.db" }"#, udp)
    }

    /// The same with another database.
    pub fn goat_on(dir: &Path, database: &str, udp: bool) -> Server {
        let port = free_port();
        let config = format!(
            r#"{{
                "Host": "127.0.0.1", "Port": {port}, "HTTP": true, "UDP": {udp}, "HTTPS": false, "API": true,
                "Passkey": true, "Whitelist": true, "Verified": true, "Redis": false,
                "Interval": 3600, "SlowDown": 0, "Workers": 256,
                "DB": {database}
            }}"#
        );
        fs::write(dir.join("config.json"), config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_goat"));
        Server::start(command.arg("--config").arg(dir.join("config.json")), port, &dir.join("log"))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks until the server answers with 200; returns that answer.
    pub fn wait_for_answer(&mut self, request: &[u8], log: &Path) -> Vec<u8> {
        self.wait_for(log, |port| {
            let answer = ask(port, request).ok()?;
            answer.starts_with(b"HTTP/1.1 200").then_some(answer)
        })
    }

    /// Tries something with the server's port until that succeeds.
    pub fn wait_for<T>(&mut self, log: &Path, mut attempt: impl FnMut(u16) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            if let Some(done) = attempt(self.port) {
                return done;
            }
            if self.child.try_wait().unwrap().is_some() || begin.elapsed() > Duration::from_secs(120) {
                panic!("the server does not answer: {}", fs::read_to_string(log).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM, and the time until the process has gone.
    pub fn stop(mut self) -> Duration {
        let begin = Instant::now();
        // SAFETY: our own child, not waited for yet.
        unsafe { libc::kill(self.pid() as i32, libc::SIGTERM) };
        while self.child.try_wait().unwrap().is_none() && begin.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(5));
        }
        begin.elapsed()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request over a connection of its own; everything up to the end of the connection.
pub fn ask(port: u16, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut connection = TcpStream::connect(("127.0.0.1", port))?;
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    connection.write_all(request)?;
    let mut answer = Vec::new();
    match connection.read_to_end(&mut answer) {
        // Some keep a connection that they were asked to close.
        Err(e) if answer.is_empty() => Err(e),
        _ => Ok(answer),
    }
}

// ---------------------------------------------------------------------------------------------
// The kernel's account.

/// What a process used up to now, in microseconds.
#[derive(Clone, Copy, Default)]
pub struct Cpu {
    /// All threads, those that have ended with them, exact.
    pub total: f64,
    /// The main thread, exact: goat's is the one that writes to the database.
    pub main: f64,
    /// Counted in ticks of 10 ms, which are only good for the proportion of the two.
    pub user: f64,
    pub system: f64,
}

impl Cpu {
    pub fn of(pid: u32) -> Cpu {
        let mut cpu = Cpu::default();
        // The first of three numbers: nanoseconds on a processor.
        let schedstat = fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat"));
        let time = schedstat.unwrap().split(' ').next().unwrap().parse::<f64>();
        cpu.main = time.unwrap() / 1e3;
        // SAFETY: both write into the values that are given.
        unsafe {
            let (mut clock, mut time) = (0, std::mem::zeroed::<libc::timespec>());
            assert_eq!(libc::clock_getcpuclockid(pid as i32, &mut clock), 0);
            assert_eq!(libc::clock_gettime(clock, &mut time), 0);
            cpu.total = time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3;
        }
        // The second field, the name, may hold spaces but ends with the last parenthesis.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        (cpu.user, cpu.system) = (fields[11].parse().unwrap(), fields[12].parse().unwrap());
        cpu
    }

    pub fn since(&self, earlier: &Cpu) -> Cpu {
        let (user, system) = (self.user - earlier.user, self.system - earlier.system);
        let total = self.total - earlier.total;
        let tick = total / (user + system).max(1.0);
        Cpu { total, main: self.main - earlier.main, user: user * tick, system: system * tick }
    }

    /// Of this use, what each of `count` requests caused.
    pub fn each(&self, count: f64) -> Cpu {
        Cpu { total: self.total / count, main: self.main / count, user: self.user / count, system: self.system / count }
    }
}

/// The memory a process has, in bytes.
pub fn rss(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

pub fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

/// The value that `share` (0 to 1) of the sorted values do not exceed.
pub fn percentile<T: Copy + Default>(sorted: &[T], share: f64) -> T {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
}

pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    percentile(&values, 0.5)
}
