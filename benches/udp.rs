//! What an announce over UDP costs, next to what it cannot cost less than and to opentracker.
//!
//!     cargo bench --bench udp
//!     cargo bench --bench udp -- --only goat --seconds 3 --rounds 1
//!
//! --only NAME     goat, opentracker or floor
//! --seconds N     how long each measurement takes (20): the tables are written each ten
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
//! answers of the same sizes, one by one and without looking at anything; goat takes up to 32 at once.
//! The answer times are those of a server that always has 64 to answer, next to a generator on the same
//! machine: compare them, no more.

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
use std::{fs, thread};

const SHAPE: Shape = Shape {
    users: 1_000,
    torrents: 10_000,
    per_torrent: 100,
};
const UNDER_WAY: usize = 64;
/// What is not answered by then is lost, and sent again.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Where there is no answer, the generator looks again so much later. It does not wait for one: to wake
/// it would be the server's work, which it is spared where the clients are on other machines.
const NAP: Duration = Duration::from_micros(20);
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
    let (seconds, rounds) = (number("--seconds", 20), number("--rounds", 3));
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
            // Each begins with a second that does not count, after which everything is warm.
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
        let own = Cpu::of(std::process::id()).since(&own_before);
        if self.name == "goat" {
            wait_for_books(self.pid);
        }
        let used = Cpu::of(self.pid).since(&before);
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

    fn sum(&self, value: impl Fn(&Round) -> u64) -> u64 {
        self.rounds.iter().map(value).sum()
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

/// Waits until goat has written what it still owes: that is part of what the announces cost.
fn wait_for_books(pid: u32) {
    let (begin, mut last) = (Instant::now(), f64::NEG_INFINITY);
    while begin.elapsed() < Duration::from_secs(60) {
        let now = Cpu::of(pid).main;
        // Less than 10 ms in more than the second between two batches.
        if now - last < 10_000.0 {
            return;
        }
        last = now;
        thread::sleep(Duration::from_millis(1_500));
    }
    println!("!!! goat has still not written everything after a minute");
}

fn print_table(contenders: &[Contender]) {
    println!("\n                                    CPU us an answer               answer time");
    println!(
        "                        answers/s    all   user system  books   p50 us   p99 us  bytes  generator   lost  wrong"
    );
    for c in contenders {
        println!(
            "{:<11} {:<12} {:>8.0} {:>6.2} {:>6.2} {:>6.2} {:>6.2} {:>8.0} {:>8.0} {:>6.0} {:>8.0} % {:>6} {:>6}",
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
            c.sum(|r| r.lost),
            c.sum(|r| r.failures)
        );
    }
    println!();
    if contenders.iter().any(|c| c.sum(|r| r.failures) > 0) {
        println!("!!! ANSWERS WERE WRONG, these figures mean nothing");
    }
    // With the books, and without.
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
    let mut packets = Packets::new(false);
    // Until it has read its list, the answer has no peers.
    server.wait_for(&log, |port| {
        let mut packet = Vec::new();
        packets.write_announce(&mut packet, connect(port)?, 0);
        ask(port, &packet).filter(|answer| answer.len() > 20)
    });
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

/// The answer to a packet, if one comes soon.
fn ask(port: u16, packet: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    let soon = Some(Duration::from_millis(100));
    socket.set_read_timeout(soon).unwrap();
    socket.send(packet).ok()?;
    let mut answer = vec![0; 2048];
    let size = socket.recv(&mut answer).ok()?;
    answer.truncate(size);
    Some(answer)
}

/// A connection id.
fn connect(port: u16) -> Option<u64> {
    let mut packet = Vec::new();
    write_connect(&mut packet, 0);
    Some(u64::from_be_bytes(*ask(port, &packet)?.last_chunk()?))
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
        let mut answers = vec![[0; 2048]; UNDER_WAY];
        let (mut to_send, mut under_way) = (count, 0);
        let mut free: Vec<usize> = (0..UNDER_WAY).collect();
        let mut looked = Instant::now();
        loop {
            let now = Instant::now();
            if now >= end || self.failures > 1_000 {
                to_send = 0;
            }
            free.truncate(to_send.min(UNDER_WAY as u64) as usize);
            to_send -= free.len() as u64;
            under_way += free.len();
            for &slot in &free {
                self.fill(slot, packets, now);
            }
            self.send(&free);
            free.clear();
            if under_way == 0 {
                return;
            }
            let sizes = self.receive(&mut answers);
            let now = Instant::now();
            for (answer, &size) in answers.iter().zip(&sizes) {
                free.extend(self.take(&answer[..size], now));
            }
            under_way -= free.len();
            if now - looked > TIMEOUT / 10 {
                looked = now;
                under_way -= self.give_up(now, now >= end);
            }
            if free.is_empty() {
                thread::sleep(NAP);
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
        let packet = |&slot: &usize| &self.slots[slot].packet;
        let parts = slots.iter().map(packet).map(|packet| libc::iovec {
            iov_base: packet.as_ptr().cast_mut().cast(),
            iov_len: packet.len(),
        });
        let (socket, mut parts) = (self.socket.as_raw_fd(), parts.collect::<Vec<_>>());
        // SAFETY: the pointers are to as many messages as are said, whose bytes are only read.
        each_a_message(&mut parts, |m, count| unsafe {
            libc::sendmmsg(socket, m, count, 0)
        });
    }

    /// Receives what is there, one datagram into each buffer, and returns their sizes.
    fn receive(&mut self, buffers: &mut [[u8; 2048]]) -> Vec<usize> {
        let parts = buffers.iter_mut().map(|buffer| libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        });
        let (socket, mut parts) = (self.socket.as_raw_fd(), parts.collect::<Vec<_>>());
        // SAFETY: the pointers are to as many messages as are said, with a buffer each.
        each_a_message(&mut parts, |m, count| unsafe {
            let none = std::ptr::null_mut();
            libc::recvmmsg(socket, m, count, libc::MSG_DONTWAIT, none)
        })
    }

    /// Counts what was lost, and sends it again unless this is the end. Returns how many it gives up.
    fn give_up(&mut self, now: Instant, end: bool) -> usize {
        let lost = |slot: &Slot| slot.transaction.is_some() && now - slot.last_sent > TIMEOUT;
        let slots: Vec<usize> = (0..UNDER_WAY).filter(|&s| lost(&self.slots[s])).collect();
        self.lost += slots.len() as u64;
        for &slot in &slots {
            self.slots[slot].last_sent = now;
            self.slots[slot].transaction.take_if(|_| end);
        }
        if end {
            return slots.len();
        }
        self.send(&slots);
        0
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
            false => action == 1 && answer.len() > 20 && (answer.len() - 20).is_multiple_of(6),
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
        let time = (now - slot.first_sent).as_nanos();
        self.times.push(time.try_into().unwrap_or(u32::MAX));
        self.bytes += answer.len() as u64;
        Some(number)
    }
}

/// Makes a message of each part, calls a function that sends or receives them, and returns the sizes of
/// those that were.
fn each_a_message(
    parts: &mut [libc::iovec],
    call: impl Fn(*mut libc::mmsghdr, u32) -> i32,
) -> Vec<usize> {
    // SAFETY: zero is a valid mmsghdr, of a message with neither address nor parts.
    let mut messages = [unsafe { std::mem::zeroed::<libc::mmsghdr>() }; UNDER_WAY];
    for (message, part) in messages.iter_mut().zip(&mut *parts) {
        (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (part, 1);
    }
    let done = call(messages.as_mut_ptr(), parts.len() as u32);
    // Less than none is an error: that nothing is there, or the news that nobody listens.
    let done = &messages[..done.max(0) as usize];
    done.iter()
        .map(|message| message.msg_len as usize)
        .collect()
}

// ---------------------------------------------------------------------------------------------
// The floor.

fn start_floor(dir: &Path) -> Server {
    let port = common::free_port();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--floor", &port.to_string()]);
    let log = dir.join("floor.log");
    let mut server = Server::start(&mut command, port, &log);
    server.wait_for(&log, connect);
    server
}

/// Answers whatever is sent with the same bytes until it is killed.
fn floor(port: u16) {
    let socket = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let (mut packet, mut answer) = ([0; 2048], [7; ANSWER]);
    loop {
        let Ok((size, from)) = socket.recv_from(&mut packet) else {
            continue;
        };
        // Action and transaction id, by which the generator knows its own.
        answer[..8].copy_from_slice(&packet[8..16]);
        let end = if size == 16 { 16 } else { ANSWER };
        let _ = socket.send_to(&answer[..end], from);
    }
}
