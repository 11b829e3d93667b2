//! What an announce over UDP costs, next to what it cannot cost less than and to opentracker.
//!
//!     cargo bench --bench udp
//!     cargo bench --bench udp -- --only goat --seconds 3 --rounds 1
//!
//! --only NAME     goat, opentracker or floor
//! --seconds N     how long each measurement takes (8)
//! --rounds N      how often each is repeated (3); medians are printed
//!
//! The announces are spread evenly over 10,000 torrents x 100 peers of 1,000 users, numwant 50, with
//! the passkey in URL data (BEP 41); every announce reports more bytes than the one before it, so goat
//! writes to its database all the time. 64 datagrams are under way: either announces only, for which
//! a connection id is fetched once a minute, or a connect before each announce, which counts as an
//! answer of its own. CPU is the kernel's account of the server's process; "books" is the part of it
//! that the thread which writes to the database used. Every answer is checked.
//!
//! opentracker is measured if it is installed (Debian has a package); it keeps no accounts and is sent
//! no passkeys. The floor is what the kernel takes: a process that reads the same datagrams and sends
//! answers of the same sizes, without looking at anything. The answer times are those of a server that
//! always has 64 to answer, next to a generator on the same machine: compare them, no more.

mod common;

use common::{
    Cpu, FIRST_COUNTER, Server, Shape, TempDir, argument, median, megabytes, number, percentile,
    rss,
};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, io, thread};

const SHAPE: Shape = Shape {
    users: 1_000,
    torrents: 10_000,
    per_torrent: 100,
};
const UNDER_WAY: usize = 64;
/// What is not answered by then is lost, and sent again.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How long a client uses a connection id (BEP 15).
const CONNECTION: Duration = Duration::from_secs(60);
/// Of an answer to an announce: 20 bytes, and 6 for each of 50 peers.
const ANSWER: usize = 320;
const OPENTRACKER: &str = "/usr/bin/opentracker";

fn main() {
    if argument("--floor").is_some() {
        return floor(number("--floor", 0) as u16);
    }
    let busy = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "load average before: {}; figures of a busy machine are too high",
        busy.split(' ').next().unwrap_or("?")
    );
    load();
}

fn wanted(name: &str) -> bool {
    argument("--only").is_none_or(|only| only == name)
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Announces,
    Connects,
}

const MODES: [Mode; 2] = [Mode::Announces, Mode::Connects];

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Announces => "announces",
            Mode::Connects => "connects too",
        }
    }
}

// ---------------------------------------------------------------------------------------------
// The load, contender by contender, round by round.

struct Contender {
    name: &'static str,
    mode: Mode,
    port: u16,
    pid: u32,
    packets: Packets,
    rounds: Vec<Round>,
    /// Announces of all rounds, and of what does not count as one.
    announced: u64,
    lost: u64,
}

/// One measurement, times in microseconds.
struct Round {
    per_second: f64,
    used: Cpu,
    p50: f64,
    p99: f64,
    /// Of an answer, in bytes.
    size: f64,
    /// How much of a core the generator took.
    generator: f64,
    lost: u64,
    failures: u64,
}

fn load() {
    let (seconds, rounds) = (number("--seconds", 8), number("--rounds", 3));
    let dir = TempDir::new("udp");
    let mut contenders: Vec<Contender> = Vec::new();
    let (mut goat, mut others) = (None, Vec::new());
    let mut add = |name, server: &Server| {
        contenders.extend(MODES.map(|mode| Contender::new(name, mode, server)));
    };
    if wanted("goat") {
        common::populate(&dir.0.join("goat.db"), Some(SHAPE));
        let mut server = Server::goat(&dir.0, true);
        server.wait_for(&dir.0.join("log"), connect);
        add("goat", &server);
        goat = Some(server);
    }
    if wanted("opentracker") {
        if let Some(server) = opentracker(&dir.0) {
            add("opentracker", &server);
            others.push(server);
        } else {
            println!("opentracker: not installed");
        }
    }
    if wanted("floor") {
        let server = start_floor(&dir.0);
        add("floor", &server);
        others.push(server);
    }

    println!("{rounds} rounds of {seconds} s");
    for _ in 0..rounds {
        for contender in &mut contenders {
            // Each begins with a second that does not count, when everything is warm and the one
            // before has written what it owed.
            contender.round(Duration::from_secs(1));
            let round = contender.round(Duration::from_secs(seconds));
            contender.rounds.push(round);
        }
    }
    print_table(&contenders);
    if let Some(goat) = goat {
        goat.stop();
        let goats = || contenders.iter().filter(|c| c.name == "goat");
        let announced = goats().map(|c| c.announced).sum();
        let lost = goats().map(|c| c.lost).sum();
        check_books(&dir.0.join("goat.db"), announced, lost);
    }
}

/// Whether the database counts as many announces as were answered. Of those that were lost, some had
/// come and only their answers had not.
fn check_books(path: &Path, answered: u64, lost: u64) {
    let db = rusqlite::Connection::open(path).unwrap();
    let sum = |row: &rusqlite::Row| row.get::<_, i64>(0);
    let counted = db
        .query_row("SELECT SUM(announced) FROM files_users", (), sum)
        .unwrap() as u64;
    // The sessions began with one announce each.
    let written = counted - SHAPE.sessions();
    let right = (answered..=answered + lost).contains(&written);
    let loud = if right { "" } else { "!!! " };
    println!("{loud}goat's books: {answered} announces answered, {written} written");
}

impl Contender {
    fn new(name: &'static str, mode: Mode, server: &Server) -> Contender {
        Contender {
            name,
            mode,
            port: server.port,
            pid: server.pid(),
            packets: Packets::new(name != "opentracker"),
            rounds: Vec::new(),
            announced: 0,
            lost: 0,
        }
    }

    fn round(&mut self, time: Duration) -> Round {
        let mut generator = Generator::new(self.port, self.mode);
        let (before, own_before) = (Cpu::of(self.pid), Cpu::of(std::process::id()));
        let begin = Instant::now();
        generator.run(&mut self.packets, begin + time, u64::MAX);
        let elapsed = begin.elapsed().as_secs_f64();
        let used = Cpu::of(self.pid).since(&before);
        let own = Cpu::of(std::process::id()).since(&own_before);
        self.announced += generator.announced;
        self.lost += generator.lost;
        let count = generator.times.len() as f64;
        generator.times.sort_unstable();
        Round {
            per_second: count / elapsed,
            used: used.each(count),
            p50: f64::from(percentile(&generator.times, 0.50)) / 1e3,
            p99: f64::from(percentile(&generator.times, 0.99)) / 1e3,
            size: generator.bytes as f64 / count,
            generator: own.total / elapsed / 1e4,
            lost: generator.lost,
            failures: generator.failures,
        }
    }

    fn median(&self, value: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(value))
    }

    /// The share of the thread that writes to the database. The others have none.
    fn books(&self) -> f64 {
        if self.name == "goat" {
            self.median(|r| r.used.main)
        } else {
            0.0
        }
    }
}

fn print_table(contenders: &[Contender]) {
    println!("\n                                    CPU us an answer               answer time");
    println!(
        "                        answers/s    all   user system  books   p50 us   p99 us  bytes  generator   lost"
    );
    for c in contenders {
        println!(
            "{:<11} {:<12} {:>8.0} {:>6.2} {:>6.2} {:>6.2} {:>6.2} {:>8.0} {:>8.0} {:>6.0} {:>8.0} % {:>6}",
            c.name,
            c.mode.name(),
            c.median(|r| r.per_second),
            c.median(|r| r.used.total),
            c.median(|r| r.used.user),
            c.median(|r| r.used.system),
            c.books(),
            c.median(|r| r.p50),
            c.median(|r| r.p99),
            c.median(|r| r.size),
            c.median(|r| r.generator),
            c.rounds.iter().map(|r| r.lost).sum::<u64>()
        );
    }
    println!();
    for c in contenders {
        let failures: u64 = c.rounds.iter().map(|r| r.failures).sum();
        if failures > 0 {
            println!(
                "!!! {}, {}: {failures} ANSWERS WERE WRONG, these figures mean nothing",
                c.name,
                c.mode.name()
            );
        }
    }
    // With the books, and without. Rounds of the same number were measured one after the other.
    for mode in MODES {
        let find = |name| contenders.iter().find(|c| c.name == name && c.mode == mode);
        for (other, goal) in [("floor", 1.3), ("opentracker", 0.8)] {
            let (Some(goat), Some(theirs)) = (find("goat"), find(other)) else {
                continue;
            };
            let all = theirs.median(|r| r.used.total);
            println!(
                "CPU, {}: goat / {other} = {:.2}, without the books {:.2} (goal {goal})",
                mode.name(),
                goat.median(|r| r.used.total) / all,
                goat.median(|r| r.used.total - r.used.main) / all
            );
        }
    }
}

/// opentracker with all peers of the swarms announced to it. Debian's serves only torrents that are
/// listed; it gives up root and takes `dir` for its root directory.
fn opentracker(dir: &Path) -> Option<Server> {
    if !Path::new(OPENTRACKER).exists() {
        return None;
    }
    let hashes: Vec<String> = (0..SHAPE.torrents)
        .map(|t| common::hex(&common::info_hash(t)))
        .collect();
    fs::write(dir.join("whitelist.txt"), hashes.join("\n") + "\n").unwrap();
    let (port, log) = (common::free_port(), dir.join("opentracker.log"));
    let mut command = Command::new(OPENTRACKER);
    command
        .args(["-i", "127.0.0.1", "-P", &port.to_string()])
        .args(["-w", "whitelist.txt", "-d"])
        .arg(dir);
    let mut server = Server::start(&mut command, port, &log);
    server.wait_for(&log, connect);
    // One round through all sessions.
    let mut generator = Generator::new(port, Mode::Announces);
    generator.run(
        &mut Packets::new(false),
        Instant::now() + Duration::from_secs(300),
        SHAPE.sessions(),
    );
    println!(
        "opentracker: filled with {} peers, {:.1} MB",
        generator.announced,
        megabytes(rss(server.pid()))
    );
    Some(server)
}

// ---------------------------------------------------------------------------------------------
// The generator.

/// A connection id, if one comes soon.
fn connect(port: u16) -> Option<u64> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let mut packet = Vec::new();
    write_connect(&mut packet, 0);
    socket.send(&packet).ok()?;
    let mut answer = [0; 16];
    socket.recv(&mut answer).ok()?;
    Some(u64::from_be_bytes(*answer.last_chunk().unwrap()))
}

fn write_connect(out: &mut Vec<u8>, transaction: u32) {
    out.clear();
    out.extend_from_slice(&0x417_2710_1980u64.to_be_bytes());
    out.extend_from_slice(&0u32.to_be_bytes());
    out.extend_from_slice(&transaction.to_be_bytes());
}

/// Announces, made from parts that were written beforehand.
struct Packets {
    hashes: Vec<[u8; 20]>,
    /// What follows the announce, by user; empty for trackers without passkeys.
    options: Vec<Vec<u8>>,
    /// How many were made; none is made twice.
    made: u64,
}

impl Packets {
    fn new(accounts: bool) -> Packets {
        let options = |user| {
            let url = format!("/{}/announce", common::passkey(user));
            let mut options = vec![2, url.len() as u8];
            options.extend_from_slice(url.as_bytes());
            if accounts { options } else { Vec::new() }
        };
        Packets {
            hashes: (0..SHAPE.torrents).map(common::info_hash).collect(),
            options: (0..SHAPE.users).map(options).collect(),
            made: 0,
        }
    }

    /// The next announce. The step has no factor in common with the number of sessions, so it comes to
    /// each once before it comes to one again, and neighbours are far from each other.
    fn write_announce(&mut self, out: &mut Vec<u8>, connection: u64, transaction: u32) {
        let session = self.made % SHAPE.sessions() * 618_033 % SHAPE.sessions();
        self.made += 1;
        // Counts up for everybody and so for each session, from run to run as well.
        let counter = (FIRST_COUNTER + (microseconds() << 4)).to_be_bytes();
        let mut id = *b"-qB4600-000000000000";
        let mut rest = session;
        for digit in id.iter_mut().rev().take(12) {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        out.clear();
        out.extend_from_slice(&connection.to_be_bytes());
        out.extend_from_slice(&1u32.to_be_bytes());
        out.extend_from_slice(&transaction.to_be_bytes());
        out.extend_from_slice(&self.hashes[SHAPE.torrent(session) as usize]);
        out.extend_from_slice(&id);
        out.extend_from_slice(&counter); // downloaded
        out.extend_from_slice(&SHAPE.left(session).to_be_bytes());
        out.extend_from_slice(&counter); // uploaded
        out.extend_from_slice(&[0; 12]); // no event, no other address, key
        out.extend_from_slice(&50u32.to_be_bytes());
        out.extend_from_slice(&SHAPE.port(session).to_be_bytes());
        out.extend_from_slice(&self.options[SHAPE.user(session) as usize]);
    }
}

/// Since the start of the bench.
fn microseconds() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

/// One thread that keeps `UNDER_WAY` datagrams under way.
struct Generator {
    socket: UdpSocket,
    mode: Mode,
    connection: u64,
    /// When that was asked for.
    connected: Instant,
    slots: Vec<Slot>,
    /// How many were sent; makes every transaction id different.
    sent: u32,
    /// Of every good answer, in nanoseconds.
    times: Vec<u32>,
    /// Announces that were answered.
    announced: u64,
    /// In good answers.
    bytes: u64,
    lost: u64,
    failures: u64,
}

/// A datagram that waits for its answer.
struct Slot {
    packet: Vec<u8>,
    connects: bool,
    /// `None` where nothing is waited for.
    transaction: Option<u32>,
    first_sent: Instant,
    last_sent: Instant,
}

impl Generator {
    fn new(port: u16, mode: Mode) -> Generator {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(("127.0.0.1", port)).unwrap();
        let now = Instant::now();
        let slot = |_| Slot {
            packet: Vec::with_capacity(256),
            connects: false,
            transaction: None,
            first_sent: now,
            last_sent: now,
        };
        Generator {
            socket,
            mode,
            connection: connect(port).expect("the server still answers"),
            connected: now,
            slots: (0..UNDER_WAY).map(slot).collect(),
            sent: 0,
            times: Vec::with_capacity(1 << 22),
            announced: 0,
            bytes: 0,
            lost: 0,
            failures: 0,
        }
    }

    /// Until `end`, or until `count` requests were sent; then waits for the answers under way.
    fn run(&mut self, packets: &mut Packets, end: Instant, count: u64) {
        let mut to_send = count;
        let mut answers = Batch::new();
        let mut looked = Instant::now();
        let mut next: Vec<usize> = (0..UNDER_WAY).collect();
        let mut again: Vec<usize> = Vec::new();
        loop {
            let now = Instant::now();
            if now >= end || self.failures > 1_000 {
                to_send = 0;
            }
            next.truncate(to_send.min(UNDER_WAY as u64) as usize);
            to_send -= next.len() as u64;
            for &slot in &next {
                self.fill(slot, packets, now);
            }
            next.extend_from_slice(&again);
            self.send(&next);
            next.clear();
            again.clear();

            let received = answers.receive(&self.socket);
            let now = Instant::now();
            for answer in answers.iter(received) {
                next.extend(self.take(answer, now));
            }
            if now - looked > TIMEOUT / 10 {
                looked = now;
                again = self.timed_out(now);
                if now >= end {
                    again
                        .drain(..)
                        .for_each(|s| self.slots[s].transaction = None);
                }
                if to_send == 0 && self.slots.iter().all(|s| s.transaction.is_none()) {
                    return;
                }
            }
            if received == 0 {
                wait(&self.socket);
            }
        }
    }

    /// Writes a slot's next packet.
    fn fill(&mut self, slot: usize, packets: &mut Packets, now: Instant) {
        let transaction = self.sent * UNDER_WAY as u32 + slot as u32;
        self.sent = (self.sent + 1) % (u32::MAX / UNDER_WAY as u32);
        let slot = &mut self.slots[slot];
        slot.connects = match self.mode {
            Mode::Connects => !slot.connects,
            Mode::Announces => now - self.connected > CONNECTION,
        };
        if slot.connects {
            self.connected = now;
            write_connect(&mut slot.packet, transaction);
        } else {
            packets.write_announce(&mut slot.packet, self.connection, transaction);
        }
        slot.transaction = Some(transaction);
        (slot.first_sent, slot.last_sent) = (now, now);
    }

    /// Sends the packets of some slots. What cannot be sent is not answered, and so is counted.
    fn send(&mut self, slots: &[usize]) {
        let mut batch = Batch::new_for(slots.iter().map(|&s| &mut self.slots[s].packet));
        batch.send(&self.socket);
    }

    /// Takes an answer, and returns the slot it has set free.
    fn take(&mut self, answer: &[u8], now: Instant) -> Option<usize> {
        let word = |at| Some(u32::from_be_bytes(*answer.get(at..)?.first_chunk()?));
        let (action, transaction) = (word(0)?, word(4)?);
        let number = transaction as usize % UNDER_WAY;
        let slot = &mut self.slots[number];
        // Of another transaction: the answer comes after it was given up.
        slot.transaction.take_if(|t| *t == transaction)?;
        let good = match slot.connects {
            true => action == 0 && answer.len() == 16,
            false => action == 1 && answer.len() > 20 && (answer.len() - 20) % 6 == 0,
        };
        if !good {
            // Shows the first one.
            if self.failures == 0 {
                println!("!!! a wrong answer: {:?}", String::from_utf8_lossy(answer));
            }
            self.failures += 1;
            return Some(number);
        }
        if slot.connects {
            self.connection = u64::from_be_bytes(*answer.last_chunk()?);
        } else {
            self.announced += 1;
        }
        self.times.push((now - slot.first_sent).as_nanos() as u32);
        self.bytes += answer.len() as u64;
        Some(number)
    }
}
