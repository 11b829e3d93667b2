//! What an announce over HTTPS costs, next to nginx that does the TLS in front of goat's HTTP port.
//!
//!     cargo bench --bench https
//!     cargo bench --bench https -- --seconds 3 --rounds 1 --tls 1.2
//!
//! --seconds N     how long each measurement takes (4)
//! --rounds N      how often each is repeated (3); medians are printed
//! --tls VERSION   1.3 or 1.2 (1.3)
//!
//! The certificate has an ECDSA P-256 key. Announces are made with a full handshake each, with a resumed one
//! each, or on kept connections, spread evenly over 1,000 torrents x 100 peers of 1,000 users, numwant 50,
//! compact; every announce reports more bytes than the one before it. One goat answers both: its own HTTPS
//! port and, on its HTTP port, nginx (one process, kept connections to goat). CPU is the kernel's account of
//! the two processes; "books" is the part of it that goat's thread which writes to the database used. Every
//! answer is checked, and so is which kind of handshake it was.
//!
//! The generator has two threads with 25 connections each, and takes them in turns: it sends on all of them
//! before it reads from the first. It checks certificates as clients do, and so takes more of the machine
//! than the servers; requests/s and times say little about a server that has the machine to itself, CPU
//! says more.

mod common;

use common::{Cpu, FIRST_COUNTER, Server, Shape, TempDir, argument, median, number, percentile};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const SHAPE: Shape = Shape { users: 1_000, torrents: 1_000, per_torrent: 100 };
const THREADS: usize = 2;
const CONNECTIONS: usize = 25;
const NAME: &str = "tracker.example.org";

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Full,
    Resumed,
    Keep,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Full => "full handshakes",
            Mode::Resumed => "resumed",
            Mode::Keep => "keep-alive",
        }
    }
}

/// One way to one goat.
struct Contender<'a> {
    name: &'static str,
    port: u16,
    mode: Mode,
    /// The processes that do the work: goat, and nginx where it takes part.
    goat: &'a Server,
    nginx: Option<&'a Server>,
    rounds: Vec<Round>,
}

/// One measurement, times in microseconds.
struct Round {
    per_second: f64,
    goat: Cpu,
    nginx: Cpu,
    p50: f64,
    p99: f64,
    failures: u64,
}

fn main() {
    let (seconds, rounds) = (number("--seconds", 4), number("--rounds", 3));
    let busy = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load average before: {}; figures of a busy machine are too high", busy.split(' ').next().unwrap_or("?"));
    let dir = TempDir::new("https");
    make_certificate(&dir.0);
    common::populate(&dir.0.join("goat.db"), Some(SHAPE));
    let (goat, tls_port) = start_goat(&dir.0);
    let nginx = start_nginx(&dir.0, goat.port);
    let mut contenders = Vec::new();
    for mode in [Mode::Full, Mode::Resumed, Mode::Keep] {
        let ways = [("goat", tls_port, None)].into_iter();
        let ways = ways.chain(nginx.iter().map(|n| ("nginx + goat", n.port, Some(n))));
        contenders.extend(ways.map(|(name, port, nginx)| Contender {
            name,
            port,
            mode,
            goat: &goat,
            nginx,
            rounds: Vec::new(),
        }));
    }
    let settings = Settings::new(&dir.0);
    println!("{rounds} rounds of {seconds} s, TLS {}", settings.version_name);
    for _ in 0..rounds {
        for contender in &mut contenders {
            // Each begins with a second that does not count, when everything is warm.
            contender.round(&settings, Duration::from_secs(1));
            let round = contender.round(&settings, Duration::from_secs(seconds));
            contender.rounds.push(round);
        }
    }
    print_table(&contenders);
    drop(contenders);
    if let Some(nginx) = nginx {
        nginx.stop();
    }
    goat.stop();
}

impl Contender<'_> {
    fn round(&self, settings: &Settings, time: Duration) -> Round {
        let cpu = || {
            let nginx = self.nginx.map(|nginx| Cpu::of(nginx.pid()));
            (Cpu::of(self.goat.pid()), nginx.unwrap_or_default())
        };
        // The threads have made their connections before the clock starts.
        let ready = std::sync::Barrier::new(THREADS + 1);
        let work = || {
            let mut generator = Generator::new(settings, self.port, self.mode);
            ready.wait();
            generator.run(Instant::now() + time);
            generator
        };
        let (mut times, mut failures) = (Vec::new(), 0);
        let (elapsed, before, after) = std::thread::scope(|scope| {
            let threads = [(); THREADS].map(|()| scope.spawn(work));
            ready.wait();
            let (begin, before) = (Instant::now(), cpu());
            for thread in threads {
                let generator = thread.join().unwrap();
                times.extend(generator.times);
                failures += generator.failures;
            }
            (begin.elapsed().as_secs_f64(), before, cpu())
        });
        times.sort_unstable();
        let count = times.len() as f64;
        Round {
            per_second: count / elapsed,
            goat: after.0.since(&before.0).each(count),
            nginx: after.1.since(&before.1).each(count),
            p50: f64::from(percentile(&times, 0.50)),
            p99: f64::from(percentile(&times, 0.99)),
            failures,
        }
    }

    fn median(&self, value: impl Fn(&Round) -> f64) -> f64 {
        median(self.rounds.iter().map(value))
    }

    fn cpu(&self) -> f64 {
        self.median(|r| r.goat.total + r.nginx.total)
    }

    fn books(&self) -> f64 {
        self.median(|r| r.goat.main)
    }
}

fn print_table(contenders: &[Contender]) {
    println!("\n                                         CPU us an announce");
    println!("                                 req/s     all    goat   nginx   books   p50 us   p99 us");
    for c in contenders {
        println!(
            "{:<13} {:<15} {:>8.0} {:>7.1} {:>7.1} {:>7.1} {:>7.1} {:>8.0} {:>8.0}",
            c.name,
            c.mode.name(),
            c.median(|r| r.per_second),
            c.cpu(),
            c.median(|r| r.goat.total),
            c.median(|r| r.nginx.total),
            c.books(),
            c.median(|r| r.p50),
            c.median(|r| r.p99),
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
    let find = |name: &str, mode: Mode| {
        let mut all = contenders.iter();
        all.find(|c| c.name == name && c.mode == mode)
    };
    for mode in [Mode::Full, Mode::Resumed, Mode::Keep] {
        if let (Some(goat), Some(both)) = (find("goat", mode), find("nginx + goat", mode)) {
            let goal = if mode == Mode::Full { " (goal: less than 1)" } else { "" };
            let ratio = goat.cpu() / both.cpu();
            println!("CPU, {}: goat / nginx + goat = {ratio:.2}{goal}", mode.name());
        }
    }
    if let Some(goat) = find("goat", Mode::Keep) {
        let (all, answers) = (goat.cpu(), goat.cpu() - goat.books());
        println!("CPU, keep-alive: {all:.1} us, without the books {answers:.1} us (goal: at most 25)");
    }
}

// ---------------------------------------------------------------------------------------------
// The servers.

fn make_certificate(dir: &Path) {
    let arguments = format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout goat.key \
         -out goat.crt -subj /CN={NAME} -addext subjectAltName=DNS:{NAME} \
         -addext basicConstraints=CA:FALSE"
    );
    let mut command = Command::new("openssl");
    let command = command.args(arguments.split_whitespace()).current_dir(dir);
    let output = command.output().expect("openssl is installed");
    assert!(output.status.success(), "{output:?}");
}

/// goat on HTTP and HTTPS; the latter's port.
fn start_goat(dir: &Path) -> (Server, u16) {
    let port = common::free_port();
    let tls_port = port + 1;
    let config = format!(
        r#"{{
            "Host": "127.0.0.1", "Port": {port}, "HTTP": true, "HTTPS": true, "UDP": false,
            "SSL": {{ "Port": {tls_port}, "Certificate": "goat.crt", "Key": "goat.key" }},
            "API": false, "Redis": false, "Passkey": true, "Whitelist": true, "Verified": true,
            "Interval": 3600, "SlowDown": 0, "TrustedProxies": ["127.0.0.1"],
            "DB": {{ "Driver": "sqlite", "Path": "goat.db" }}
        }}"#
    );
    fs::write(dir.join("config.json"), config).unwrap();
    let (mut command, log) = (Command::new(env!("CARGO_BIN_EXE_goat")), dir.join("goat.log"));
    let command = command.arg("--config").arg(dir.join("config.json"));
    let mut server = Server::start(command, port, &log);
    server.wait_for(&log, |_| TcpStream::connect(("127.0.0.1", tls_port)).ok());
    (server, tls_port)
}

/// nginx as docs/https.md configures it, if it is installed.
fn start_nginx(dir: &Path, goat: u16) -> Option<Server> {
    let port = goat + 2;
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind}; ", dir.display()));
    let dir_name = dir.display();
    let config = format!(
        "daemon off; master_process off; pid {dir_name}/nginx.pid;
        events {{ worker_connections 1024; }}
        http {{
            {}
            upstream goat {{ server 127.0.0.1:{goat}; keepalive 64; keepalive_requests 100000000; }}
            server {{
                listen 127.0.0.1:{port} ssl;
                keepalive_requests 100000000;
                ssl_certificate {dir_name}/goat.crt;
                ssl_certificate_key {dir_name}/goat.key;
                ssl_protocols TLSv1.2 TLSv1.3;
                access_log off;
                location / {{
                    proxy_pass http://goat;
                    proxy_http_version 1.1;
                    proxy_set_header Connection \"\";
                    proxy_set_header X-Forwarded-For $remote_addr;
                }}
            }}
        }}",
        temporary.concat()
    );
    fs::write(dir.join("nginx.conf"), config).unwrap();
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|program| Path::new(program).exists());
    let Some(program) = program else {
        println!("nginx: not installed");
        return None;
    };
    let (mut command, log) = (Command::new(program), dir.join("nginx.log"));
    let command = command.args(["-e", "stderr", "-p"]).arg(dir);
    let command = command.arg("-c").arg(dir.join("nginx.conf"));
    let mut server = Server::start(command, port, &log);
    server.wait_for(&log, |port| TcpStream::connect(("127.0.0.1", port)).ok());
    Some(server)
}

// ---------------------------------------------------------------------------------------------
// The generator.

/// What all clients have in common.
struct Settings {
    client: ClientConfig,
    version_name: &'static str,
    /// Announces, counted over all threads.
    made: AtomicU64,
    start: Instant,
}

impl Settings {
    fn new(dir: &Path) -> Settings {
        let (version, version_name) = match argument("--tls").as_deref() {
            Some("1.2") => (&rustls::version::TLS12, "1.2"),
            _ => (&rustls::version::TLS13, "1.3"),
        };
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_file(dir.join("goat.crt")).unwrap();
        roots.add(certificate).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider);
        let client = client.with_protocol_versions(&[version]).unwrap();
        Settings {
            client: client.with_root_certificates(roots).with_no_client_auth(),
            version_name,
            made: AtomicU64::new(0),
            start: Instant::now(),
        }
    }

    /// The next announce. The step has no factor in common with the number of sessions, so it comes to
    /// each once before it comes to one again, and neighbours are far from each other.
    fn announce(&self, out: &mut Vec<u8>, mode: Mode) {
        let made = self.made.fetch_add(1, Relaxed);
        let session = made % SHAPE.sessions() * 61_803 % SHAPE.sessions();
        let counter = FIRST_COUNTER + ((self.start.elapsed().as_micros() as u64) << 4);
        let hash = common::info_hash(SHAPE.torrent(session)).map(|byte| format!("%{byte:02x}"));
        let connection = match mode {
            Mode::Keep => "keep-alive",
            _ => "close",
        };
        out.clear();
        write!(
            out,
            "GET /{}/announce?info_hash={}&peer_id={}&port={}&uploaded={counter}&downloaded={counter}\
             &left={}&corrupt=0&key=1A2B3C4D&numwant=50&compact=1&no_peer_id=1&supportcrypto=1\
             &redundant=0 HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: qBittorrent/4.6.0\r\n\
             Accept-Encoding: gzip\r\nConnection: {connection}\r\n\r\n",
            common::passkey(SHAPE.user(session)),
            hash.concat(),
            common::peer_id(session),
            SHAPE.port(session),
            SHAPE.left(session),
        )
        .unwrap();
    }
}

/// One thread, with connections that it takes in turns.
struct Generator<'a> {
    settings: &'a Settings,
    mode: Mode,
    port: u16,
    slots: Vec<Slot>,
    /// Of every good answer, in microseconds.
    times: Vec<u32>,
    failures: u64,
}

struct Slot {
    /// With sessions of its own to resume.
    client: Arc<ClientConfig>,
    open: Option<(ClientConnection, TcpStream)>,
    sent: Instant,
}

impl Generator<'_> {
    fn new(settings: &Settings, port: u16, mode: Mode) -> Generator<'_> {
        let slot = || {
            let mut client = settings.client.clone();
            client.resumption = match mode {
                Mode::Resumed => Resumption::in_memory_sessions(8),
                _ => Resumption::disabled(),
            };
            Slot { client: Arc::new(client), open: None, sent: Instant::now() }
        };
        let mut generator = Generator {
            settings,
            mode,
            port,
            slots: std::iter::repeat_with(slot).take(CONNECTIONS).collect(),
            times: Vec::with_capacity(1 << 20),
            failures: 0,
        };
        // Kept connections, and sessions to be resumed, are made by a first announce.
        if mode != Mode::Full {
            generator.turn(HandshakeKind::Full);
            generator.times.clear();
        }
        generator
    }

    fn run(&mut self, end: Instant) {
        let kind = match self.mode {
            Mode::Resumed => HandshakeKind::Resumed,
            _ => HandshakeKind::Full,
        };
        while Instant::now() < end && self.failures == 0 {
            self.turn(kind);
        }
    }

    /// One announce on each connection, which begins with such a handshake.
    fn turn(&mut self, kind: HandshakeKind) {
        let name = ServerName::try_from(NAME).unwrap();
        for slot in &mut self.slots {
            slot.sent = Instant::now();
            if slot.open.is_none() {
                let connection = ClientConnection::new(slot.client.clone(), name.clone()).unwrap();
                let socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
                socket.set_nodelay(true).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                let (connection, socket) = slot.open.insert((connection, socket));
                let _ = connection.write_tls(socket);
            }
        }
        let mut request = Vec::with_capacity(1024);
        for slot in &mut self.slots {
            let (connection, socket) = slot.open.as_mut().unwrap();
            // With TLS 1.2 the server has the last word.
            while connection.is_handshaking() {
                let sent = !connection.wants_write() || connection.write_tls(socket).is_ok();
                // What cannot be read shows when the answer is missing.
                let read = connection.is_handshaking() && matches!(connection.read_tls(socket), Ok(1..));
                if !sent || !read || connection.process_new_packets().is_err() {
                    break;
                }
            }
            self.settings.announce(&mut request, self.mode);
            let _ = connection.writer().write_all(&request);
            while connection.wants_write() && connection.write_tls(socket).is_ok() {}
        }
        for slot in &mut self.slots {
            let (connection, socket) = slot.open.as_mut().unwrap();
            let answer = read_answer(connection, socket, self.mode);
            let good = check(&answer) && connection.handshake_kind() == Some(kind);
            if good {
                self.times.push(slot.sent.elapsed().as_micros() as u32);
            } else {
                if self.failures == 0 {
                    let text = String::from_utf8_lossy(&answer);
                    println!("!!! a wrong answer ({:?}): {text:?}", connection.handshake_kind());
                }
                self.failures += 1;
            }
            if self.mode != Mode::Keep || !good {
                slot.open = None;
            }
        }
    }
}

/// Until the answer is whole; with a connection each until the server has closed.
fn read_answer(connection: &mut ClientConnection, socket: &mut TcpStream, mode: Mode) -> Vec<u8> {
    let mut answer = Vec::with_capacity(2048);
    let mut buffer = [0; 4096];
    loop {
        match connection.reader().read(&mut buffer) {
            Ok(0) => return answer,
            Ok(read) => {
                answer.extend_from_slice(&buffer[..read]);
                if mode == Mode::Keep && check(&answer) {
                    return answer;
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                let read = connection.read_tls(socket);
                if read.is_err() || connection.process_new_packets().is_err() {
                    return answer;
                }
            }
            Err(_) => return answer,
        }
    }
}

/// Whether an answer is whole, has status 200, peers and no failure.
fn check(answer: &[u8]) -> bool {
    let Some(end) = find(answer, b"\r\n\r\n") else {
        return false;
    };
    let (head, body) = answer.split_at(end + 4);
    let Some(length) = find(head, b"\r\nContent-Length: ") else {
        return false;
    };
    let digits = head[length + 18..].iter().take_while(|b| b.is_ascii_digit());
    let length = digits.fold(0, |n, b| n * 10 + usize::from(b - b'0'));
    body.len() == length
        && head.starts_with(b"HTTP/1.1 200 ")
        && find(body, b"5:peers").is_some()
        && !body.starts_with(b"d14:failure reason")
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}
