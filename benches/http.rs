//! What an announce over HTTP costs, next to what it cannot cost less than and to opentracker.
//!
//!     cargo bench --bench http
//!     cargo bench --bench http -- --only goat --part load --seconds 3 --rounds 1
//!
//! --only NAME     goat, opentracker or floor
//! --part NAME     load (announces) or memory (memory, start and idle time)
//! --seconds N     how long each measurement takes (20): the tables are written each ten
//! --rounds N      how often each is repeated (3); medians are printed
//!
//! The announces are spread evenly over 10,000 torrents x 100 peers of 1,000 users, numwant 50,
//! compact; every announce reports more bytes than the one before it, so goat writes to its database
//! all the time. 50 are in flight, on 50 kept connections or on a connection each. CPU is the
//! kernel's account of the server's process; "books" is the part of it that the thread which writes
//! to the database used. Every answer is checked.
//!
//! opentracker is measured if it is installed (Debian has a package); it keeps no accounts and always
//! closes. The floor is what the kernel takes: a process that reads whatever comes and writes the
//! same bytes of the size of goat's answer, without looking at anything. The generator is one thread
//! on the same machine, so requests/s say little about a server that has the machine to itself; CPU
//! per request says more.

mod common;

use common::{
    Cpu, FIRST_COUNTER, Server, Shape, TempDir, argument, median, megabytes, number, percentile,
    rss,
};
use std::net::{TcpListener, TcpStream};
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
const IN_FLIGHT: usize = 50;
const OPENTRACKER: &str = "/usr/bin/opentracker";

fn main() {
    if let Some(size) = argument("--floor") {
        return floor(
            size.parse().unwrap(),
            argument("--mode").as_deref() == Some("keep"),
            number("--port", 0) as u16,
        );
    }
    let busy = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "load average before: {}; figures of a busy machine are too high",
        busy.split(' ').next().unwrap_or("?")
    );
    let part = |name| argument("--part").is_none_or(|part| part == name);
    let mut idle = 0;
    if wanted("goat") {
        idle = idle_rss();
        println!(
            "goat: {:.1} MB with an empty database (goal 8)",
            megabytes(idle)
        );
    }
    if part("load") {
        load(idle);
    }
    if part("memory") && wanted("goat") {
        large();
    }
}

fn wanted(name: &str) -> bool {
    argument("--only").is_none_or(|only| only == name)
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Keep,
    Close,
}

impl Mode {
    fn name(self) -> &'static str {
        if self == Mode::Keep {
            "keep-alive"
        } else {
            "one each"
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
    requests: Requests,
    rounds: Vec<Round>,
    /// Good answers of all rounds, and of what does not count as one.
    answered: u64,
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
    failures: u64,
}

fn load(idle: u64) {
    let (seconds, rounds) = (number("--seconds", 20), number("--rounds", 3));
    let dir = TempDir::new("load");
    let mut contenders: Vec<Contender> = Vec::new();
    let (mut goat, mut others) = (None, Vec::new());
    let mut loaded = 0;
    // Of goat's answer; without goat, what it is expected to be.
    let mut size = 500;

    if wanted("goat") {
        common::populate(&dir.0.join("goat.db"), Some(SHAPE));
        let (server, answer) = start_goat(&dir.0);
        loaded = rss(server.pid());
        size = answer.len();
        for mode in [Mode::Keep, Mode::Close] {
            contenders.push(Contender::new("goat", mode, &server, true));
        }
        goat = Some(server);
    }
    if wanted("opentracker") {
        if let Some(server) = opentracker(&dir.0) {
            contenders.push(Contender::new("opentracker", Mode::Close, &server, false));
            others.push(server);
        } else {
            println!("opentracker: not installed");
        }
    }
    if wanted("floor") {
        for mode in [Mode::Keep, Mode::Close] {
            let server = start_floor(&dir.0, mode, size);
            contenders.push(Contender::new("floor", mode, &server, false));
            others.push(server);
        }
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
        let answered: u64 = contenders
            .iter()
            .filter(|c| c.name == "goat")
            .map(|c| c.answered)
            .sum();
        wait_until_written(&dir.0.join("goat.db"), answered + 1);
        for (when, rss) in [("start", loaded), ("load", rss(goat.pid()))] {
            let each = rss.saturating_sub(idle) / SHAPE.sessions();
            println!(
                "goat after the {when}: {:.1} MB, {each} bytes a session (goal 96)",
                megabytes(rss)
            );
        }
        goat.stop();
        check_books(&dir.0.join("goat.db"), answered + 1);
    }
}

/// How many announces the database counts, beside the one with which each session began.
fn written(path: &Path) -> u64 {
    let db = rusqlite::Connection::open(path).unwrap();
    let sum = |row: &rusqlite::Row| row.get::<_, i64>(0);
    let counted = db.query_row("SELECT SUM(announced) FROM sessions", (), sum);
    counted.unwrap() as u64 - SHAPE.sessions()
}

/// Waits until what was answered is written: at this load goat writes each ten seconds.
fn wait_until_written(path: &Path, answered: u64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while written(path) < answered && Instant::now() < deadline {
        thread::sleep(Duration::from_secs(1));
    }
}

/// Whether the database counts as many announces as were answered.
fn check_books(path: &Path, answered: u64) {
    let written = written(path);
    let loud = if written == answered { "" } else { "!!! " };
    println!("{loud}goat's books: {answered} announces answered, {written} written");
}

impl Contender {
    fn new(name: &'static str, mode: Mode, server: &Server, accounts: bool) -> Contender {
        let requests = Requests::new(server.port, mode, accounts);
        Contender {
            name,
            mode,
            port: server.port,
            pid: server.pid(),
            requests,
            rounds: Vec::new(),
            answered: 0,
        }
    }

    fn round(&mut self, time: Duration) -> Round {
        let mut generator = Generator::new(self.port, self.mode);
        let (before, own_before) = (Cpu::of(self.pid), Cpu::of(std::process::id()));
        let begin = Instant::now();
        generator.run(&mut self.requests, begin + time, u64::MAX);
        let elapsed = begin.elapsed().as_secs_f64();
        let used = Cpu::of(self.pid).since(&before);
        let own = Cpu::of(std::process::id()).since(&own_before);
        self.answered += generator.times.len() as u64;
        let count = generator.times.len() as f64;
        generator.times.sort_unstable();
        Round {
            per_second: count / elapsed,
            used: used.each(count),
            p50: f64::from(percentile(&generator.times, 0.50)) / 1e3,
            p99: f64::from(percentile(&generator.times, 0.99)) / 1e3,
            size: generator.bytes as f64 / count,
            generator: own.total / elapsed / 1e4,
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
    println!("\n                                 CPU us a request                answer");
    println!(
        "                           req/s    all   user system  books   p50 us   p99 us  bytes  generator"
    );
    for c in contenders {
        println!(
            "{:<11} {:<10} {:>9.0} {:>6.1} {:>6.1} {:>6.1} {:>6.1} {:>8.0} {:>8.0} {:>6.0} {:>8.0} %",
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
            c.median(|r| r.generator)
        );
    }
    println!();
    for c in contenders {
        let failures: u64 = c.rounds.iter().map(|r| r.failures).sum();
        if failures > 0 {
            println!(
                "!!! {} {}: {failures} ANSWERS WERE WRONG OR MISSING, these figures mean nothing",
                c.name,
                c.mode.name()
            );
        }
    }
    // With the books, and without.
    let cpu = |name: &str, mode: Mode| {
        let c = contenders
            .iter()
            .find(|c| c.name == name && c.mode == mode)?;
        Some((
            c.median(|r| r.used.total),
            c.median(|r| r.used.total) - c.books(),
        ))
    };
    for (of, other, goal) in [
        (Mode::Keep, "floor", 2.0),
        (Mode::Close, "floor", 1.15),
        (Mode::Close, "opentracker", 1.0),
    ] {
        if let (Some((all, answers)), Some((theirs, _))) = (cpu("goat", of), cpu(other, of)) {
            let (all, answers) = (all / theirs, answers / theirs);
            println!(
                "CPU, {}: goat / {other} = {all:.2}, without the books {answers:.2} (goal {goal})",
                of.name()
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
        .args([
            "-i",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-w",
            "whitelist.txt",
            "-d",
        ])
        .arg(dir);
    let mut server = Server::start(&mut command, port, &log);
    let mut requests = Requests::new(port, Mode::Close, false);
    server.wait_for_answer(requests.build(0), &log);
    // One round through all sessions.
    let mut generator = Generator::new(port, Mode::Close);
    generator.run(
        &mut requests,
        Instant::now() + Duration::from_secs(300),
        SHAPE.sessions(),
    );
    println!(
        "opentracker: filled with {} peers, {:.1} MB",
        generator.times.len(),
        megabytes(rss(server.pid()))
    );
    Some(server)
}

// ---------------------------------------------------------------------------------------------
// The generator.

/// Announces, made from parts that were encoded beforehand.
struct Requests {
    /// `GET /PASSKEY/announce?info_hash=`, by user.
    starts: Vec<String>,
    /// The info_hash, escaped, and the `peer_id` parameter up to its number, by torrent.
    hashes: Vec<String>,
    end: String,
    /// How many were made; none is made twice.
    made: u64,
    buffer: Vec<u8>,
}

impl Requests {
    fn new(port: u16, mode: Mode, accounts: bool) -> Requests {
        let start = |user| match accounts {
            true => format!("GET /{}/announce?info_hash=", common::passkey(user)),
            false => "GET /announce?info_hash=".to_string(),
        };
        let hash = |torrent| {
            let mut text = String::new();
            for byte in common::info_hash(torrent) {
                match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => text.push(byte as char),
                    _ => text += &format!("%{byte:02x}"),
                }
            }
            text + "&peer_id=-qB4600-"
        };
        let connection = if mode == Mode::Keep {
            "keep-alive"
        } else {
            "close"
        };
        Requests {
            starts: (0..SHAPE.users).map(start).collect(),
            hashes: (0..SHAPE.torrents).map(hash).collect(),
            end: format!(
                "&corrupt=0&key=1A2B3C4D&numwant=50&compact=1&no_peer_id=1&supportcrypto=1&redundant=0 HTTP/1.1\r\n\
                 Host: 127.0.0.1:{port}\r\nUser-Agent: qBittorrent/4.6.0\r\nAccept-Encoding: gzip\r\n\
                 Connection: {connection}\r\n\r\n"
            ),
            made: 0,
            buffer: Vec::with_capacity(1024),
        }
    }

    /// The next announce. The step has no factor in common with the number of sessions, so it comes to
    /// each once before it comes to one again, and neighbours are far from each other.
    fn next(&mut self) -> &[u8] {
        self.build(self.made % SHAPE.sessions() * 618_033 % SHAPE.sessions())
    }

    fn build(&mut self, session: u64) -> &[u8] {
        self.made += 1;
        // Counts up for everybody and so for each session, from run to run as well.
        let counter = FIRST_COUNTER + (microseconds() << 4);
        let out = &mut self.buffer;
        out.clear();
        out.extend_from_slice(self.starts[SHAPE.user(session) as usize].as_bytes());
        out.extend_from_slice(self.hashes[SHAPE.torrent(session) as usize].as_bytes());
        digits(out, session, 12);
        out.extend_from_slice(b"&port=");
        digits(out, SHAPE.port(session).into(), 5);
        out.extend_from_slice(b"&uploaded=");
        digits(out, counter, 13);
        out.extend_from_slice(b"&downloaded=");
        digits(out, counter, 13);
        out.extend_from_slice(b"&left=");
        digits(
            out,
            SHAPE.left(session),
            if SHAPE.left(session) == 0 { 1 } else { 9 },
        );
        out.extend_from_slice(self.end.as_bytes());
        out
    }
}

/// Since the start of the bench.
fn microseconds() -> u64 {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

fn digits(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let begin = out.len();
    out.resize(begin + width, b'0');
    for digit in out[begin..].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// One thread that keeps `IN_FLIGHT` requests under way.
struct Generator {
    epoll: i32,
    address: libc::sockaddr_in,
    mode: Mode,
    slots: Vec<Slot>,
    /// Of every good answer, in nanoseconds.
    times: Vec<u32>,
    /// In good answers.
    bytes: u64,
    failures: u64,
}

struct Slot {
    socket: i32,
    sent: Instant,
    buffer: Box<[u8; 4096]>,
    filled: usize,
}

impl Generator {
    fn new(port: u16, mode: Mode) -> Generator {
        // SAFETY: no pointers; zero is a valid sockaddr_in.
        let (epoll, mut address) = unsafe {
            (
                libc::epoll_create1(0),
                std::mem::zeroed::<libc::sockaddr_in>(),
            )
        };
        address.sin_family = libc::AF_INET as u16;
        address.sin_port = port.to_be();
        address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
        let slot = |_| Slot {
            socket: -1,
            sent: Instant::now(),
            buffer: Box::new([0; 4096]),
            filled: 0,
        };
        let slots = (0..IN_FLIGHT).map(slot).collect();
        Generator {
            epoll,
            address,
            mode,
            slots,
            times: Vec::with_capacity(1 << 21),
            bytes: 0,
            failures: 0,
        }
    }

    /// Until `end`, or until `count` requests were sent; then waits for the answers under way.
    fn run(&mut self, requests: &mut Requests, end: Instant, count: u64) {
        let (mut to_send, mut under_way) = (count, 0);
        for slot in 0..IN_FLIGHT {
            self.send(slot, requests);
            to_send -= 1;
            under_way += 1;
        }
        // SAFETY: an epoll_event is plain data.
        let mut events = [unsafe { std::mem::zeroed::<libc::epoll_event>() }; IN_FLIGHT];
        while under_way > 0 {
            // SAFETY: the array has room for that many.
            let ready = unsafe {
                libc::epoll_wait(self.epoll, events.as_mut_ptr(), IN_FLIGHT as i32, 5_000)
            };
            if ready <= 0 {
                // Nothing for five seconds: what is under way will not come.
                self.failures += under_way;
                break;
            }
            for event in &events[..ready as usize] {
                let slot = event.u64 as usize;
                let ended = event.events & libc::EPOLLRDHUP as u32 != 0;
                let Some(good) = self.receive(slot, ended) else {
                    continue;
                };
                let now = Instant::now();
                if good {
                    self.times
                        .push((now - self.slots[slot].sent).as_nanos() as u32);
                    self.bytes += self.slots[slot].filled as u64;
                } else {
                    self.fail(slot);
                }
                if self.mode == Mode::Close || !good {
                    self.close(slot);
                }
                if to_send > 0 && now < end && self.failures < 1_000 {
                    self.send(slot, requests);
                    to_send -= 1;
                } else {
                    under_way -= 1;
                }
            }
        }
    }

    fn send(&mut self, slot: usize, requests: &mut Requests) {
        let request = requests.next();
        let slot_number = slot as u64;
        let slot = &mut self.slots[slot];
        (slot.sent, slot.filled) = (Instant::now(), 0);
        // SAFETY: all pointers are to live values of the sizes that are given.
        unsafe {
            if slot.socket < 0 {
                slot.socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
                // A connect over loopback is done when it returns, unless the server's queue is full.
                let (address, size) = (
                    &raw const self.address,
                    size_of::<libc::sockaddr_in>() as u32,
                );
                assert_eq!(
                    libc::connect(slot.socket, address.cast(), size),
                    0,
                    "{}",
                    io::Error::last_os_error()
                );
                let mut event = libc::epoll_event {
                    events: (libc::EPOLLIN | libc::EPOLLRDHUP) as u32,
                    u64: slot_number,
                };
                libc::epoll_ctl(self.epoll, libc::EPOLL_CTL_ADD, slot.socket, &mut event);
            }
            // What cannot be sent is not answered, and so is counted.
            libc::send(
                slot.socket,
                request.as_ptr().cast(),
                request.len(),
                libc::MSG_NOSIGNAL,
            );
        }
    }

    /// Whether the answer was good, once there is one. With a connection each it is not there before
    /// the server has closed.
    fn receive(&mut self, slot: usize, ended: bool) -> Option<bool> {
        let slot = &mut self.slots[slot];
        let free = &mut slot.buffer[slot.filled..];
        // SAFETY: the kernel writes into `free` only.
        let read = unsafe {
            libc::recv(
                slot.socket,
                free.as_mut_ptr().cast(),
                free.len(),
                libc::MSG_DONTWAIT,
            )
        };
        let ended = ended
            || read == 0
            || read < 0 && io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock;
        slot.filled += read.max(0) as usize;
        match check(&slot.buffer[..slot.filled]) {
            Some(good) if ended || self.mode == Mode::Keep => Some(good),
            None if ended => Some(false),
            _ => None,
        }
    }

    /// Counts a bad answer, and shows the first one.
    fn fail(&mut self, slot: usize) {
        if self.failures == 0 {
            let slot = &self.slots[slot];
            println!(
                "!!! a wrong answer: {:?}",
                String::from_utf8_lossy(&slot.buffer[..slot.filled])
            );
        }
        self.failures += 1;
    }

    fn close(&mut self, slot: usize) {
        // SAFETY: the socket is ours and open.
        unsafe { libc::close(self.slots[slot].socket) };
        self.slots[slot].socket = -1;
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        for slot in 0..IN_FLIGHT {
            if self.slots[slot].socket >= 0 {
                self.close(slot);
            }
        }
        // SAFETY: ours, and closed once.
        unsafe { libc::close(self.epoll) };
    }
}

/// Once the answer is whole: whether its status is 200 and it has peers and no failure.
fn check(answer: &[u8]) -> Option<bool> {
    let (head, body) = answer.split_at(find(answer, b"\r\n\r\n")? + 4);
    let length = &head[find(head, b"\r\nContent-Length: ")? + 18..];
    let length = length
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .fold(0, |n, b| n * 10 + usize::from(b - b'0'));
    let good = || {
        head.starts_with(b"HTTP/1.1 200 ") && body[0] == b'd' && find(body, b"5:peers").is_some()
    };
    (body.len() >= length)
        .then(|| body.len() == length && good() && !body.starts_with(b"d14:failure reason"))
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    // SAFETY: both slices are live; the result is null or within `text`.
    let at = unsafe {
        libc::memmem(
            text.as_ptr().cast(),
            text.len(),
            what.as_ptr().cast(),
            what.len(),
        )
    };
    (!at.is_null()).then(|| at as usize - text.as_ptr() as usize)
}

// ---------------------------------------------------------------------------------------------
// The floor.

fn start_floor(dir: &Path, mode: Mode, size: usize) -> Server {
    let port = common::free_port();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--floor", &size.to_string(), "--port", &port.to_string()]);
    command.args(["--mode", if mode == Mode::Keep { "keep" } else { "close" }]);
    let server = Server::start(&mut command, port, &dir.join("floor.log"));
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        thread::sleep(Duration::from_millis(5));
    }
    server
}

/// Answers whatever is sent with the same `size` bytes until it is killed.
fn floor(size: usize, keep: bool, port: u16) {
    let head = |length| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nd5:peers");
    let mut answer = head(size - (head(100).len() - 8));
    answer.push_str(&"x".repeat(size - answer.len()));
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let listener = listener.as_raw_fd();
    let mut buffer = [0u8; 4096];
    // SAFETY, for all of them: the pointers are to live values of the sizes that are given.
    let mut respond = |socket| unsafe {
        let read = libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), 0);
        if read > 0 {
            libc::send(
                socket,
                answer.as_ptr().cast(),
                answer.len(),
                libc::MSG_NOSIGNAL,
            );
        }
        if read <= 0 || !keep {
            libc::close(socket);
        }
    };
    let accept = || unsafe {
        libc::accept4(
            listener,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            libc::SOCK_CLOEXEC,
        )
    };
    if !keep {
        loop {
            respond(accept());
        }
    }
    let epoll = unsafe { libc::epoll_create1(0) };
    let watch = |socket| {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: socket as u64,
        };
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, socket, &mut event) };
    };
    watch(listener);
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
    loop {
        let ready = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), 64, -1) };
        for event in &events[..ready.max(0) as usize] {
            match event.u64 as i32 {
                socket if socket == listener => watch(accept()),
                socket => respond(socket),
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Memory and time.

/// goat with an empty database.
fn idle_rss() -> u64 {
    let dir = TempDir::new("idle");
    common::populate(&dir.0.join("goat.db"), None);
    let (server, _) = start_goat(&dir.0);
    // All threads are there, and every regular job of the first seconds was done.
    thread::sleep(Duration::from_secs(7));
    rss(server.pid())
}

/// Starts goat and returns when it answers an announce, be it with a failure; returns that, too.
fn start_goat(dir: &Path) -> (Server, Vec<u8>) {
    let mut server = Server::goat(dir, false);
    let mut requests = Requests::new(server.port, Mode::Close, true);
    let answer = server.wait_for_answer(requests.build(1), &dir.join("log"));
    (server, answer)
}

/// Start, and idleness, with a large database.
fn large() {
    let dir = TempDir::new("large");
    let shape = Shape {
        users: 100_000,
        torrents: 1_000_000,
        per_torrent: 1,
    };
    common::populate(&dir.0.join("goat.db"), Some(shape));
    let begin = Instant::now();
    let (server, _) = start_goat(&dir.0);
    let start = begin.elapsed().as_secs_f64();
    println!(
        "start with {} users, {} torrents, {} sessions: {start:.1} s (goal 10), {:.1} MB",
        shape.users,
        shape.torrents,
        shape.sessions(),
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
