//! What an announce costs goat and other trackers, in one run with the same load: a table in Markdown.
//!
//!     cargo bench --bench compare -- --others FOLDER
//!     cargo bench --bench compare -- --only sqlite,floor --torrents 1000 --seconds 3 --rounds 1
//!
//! --others FOLDER  trackers that are started by FOLDER/NAME/start: docs/development.md says how
//! --only NAMES     of sqlite, mariadb (goat on these), opentracker, floor and the names in FOLDER
//! --torrents N     with 100 peers each (10,000), of 1,000 members
//! --seconds N      how long each measurement takes (20): goat writes its tables each ten
//! --rounds N       how often all take their turn (3)
//!
//! All are filled by announces of every session once. Then each answers, in turn: over 50 kept connections, over a
//! connection each, over UDP with 64 datagrams under way, and with a connect before each announce, which counts as an answer
//! of its own. Every announce reports more bytes than the one before it, numwant is 50, and an answer is wrong that has not
//! 50 peers of this torrent, or one of them twice. What a tracker still has to write after that is part of what it used. CPU
//! is the kernel's account of the server's process and of its database's. The floor does the system calls alone: it reads
//! whatever comes, and writes as many bytes as goat does.

mod common;
#[path = "../tests/common/mod.rs"]
mod fixtures;

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::http::{self, Requests};
use common::udp::{self, Packets};
use common::{
    Answers, Check, Cpu, Order, Server, Shape, TempDir, argument, ask, free_port, hex, info_hash, median, megabytes,
    number, passkey, percentile, rss,
};
use fixtures::Database;

const OPENTRACKER: &str = "/usr/bin/opentracker";
/// Bytes of goat's answer with 50 peers, over HTTP.
const ANSWER: usize = 480;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Kept,
    Each,
    Udp,
    Connects,
}

/// In the order in which a tracker is filled by the first that it has, and with what they are called.
const MODES: [(Mode, &str); 4] = [
    (Mode::Udp, "UDP"),
    (Mode::Kept, "HTTP, kept connections"),
    (Mode::Each, "HTTP, a connection each"),
    (Mode::Connects, "UDP, a connect before each"),
];

/// What one measurement came to, in microseconds.
struct Round {
    mode: Mode,
    /// CPU for each answer: of the server, of it the main thread, which is the one that writes goat's tables, and of the
    /// database.
    server: f64,
    main: f64,
    database: f64,
    per_second: f64,
    p99: f64,
}

impl Round {
    fn cpu(&self) -> f64 {
        self.server + self.database
    }
}

struct Contender {
    name: String,
    server: Server,
    modes: Vec<Mode>,
    passkeys: bool,
    /// goat's, and that of others who asked for one.
    database: Option<Database>,
    goat: bool,
    /// Memory when it was empty, and when it was full.
    memory: [u64; 2],
    order: Order,
    announced: u64,
    lost: u64,
    wrong: u64,
    rounds: Vec<Round>,
}

fn main() {
    if let Some(mode) = argument("--floor") {
        let port = number("--port", 0) as u16;
        return match mode.as_str() {
            "udp" => udp::floor(port),
            mode => http::floor(ANSWER, mode == "kept", port),
        };
    }
    let shape = Shape { users: 1_000, torrents: number("--torrents", 10_000), per_torrent: 100 };
    let (seconds, rounds) = (number("--seconds", 20), number("--rounds", 3));
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?");
    let folder = TempDir::new("compare");
    let mut contenders = start(&folder.0, shape);
    assert!(!contenders.is_empty(), "nothing to measure");
    for _ in 0..rounds {
        for contender in &mut contenders {
            for mode in contender.modes.clone() {
                // A second that does not count, after which everything is warm.
                contender.measure(shape, mode, Duration::from_secs(1));
                let round = contender.measure(shape, mode, Duration::from_secs(seconds));
                println!("{}, {mode:?}: {:.1} us", contender.name, round.cpu());
                contender.rounds.push(round);
            }
        }
    }
    println!(
        "\n{} torrents with 100 peers each, {rounds} rounds of {seconds} s, load average before: {load}\n",
        shape.torrents
    );
    print_table(&contenders);
    print_memory(&contenders, shape);
    for contender in contenders {
        contender.end();
    }
}

fn wanted(name: &str) -> bool {
    argument("--only").is_none_or(|only| only.split(',').any(|wanted| wanted == name))
}

/// Starts all who are wanted and there, and fills them.
fn start(folder: &Path, shape: Shape) -> Vec<Contender> {
    let mut contenders = Vec::new();
    let mut add = |name: &str, start: &dyn Fn(&Path) -> Option<Contender>| {
        if !wanted(name) {
            return;
        }
        let dir = folder.join(name);
        fs::create_dir(&dir).unwrap();
        match start(&dir) {
            Some(mut contender) => {
                contender.fill(shape);
                contenders.push(contender);
            }
            None => println!("{name}: not there"),
        }
    };
    add("sqlite", &|dir| Some(goat("goat, SQLite", Database::sqlite(), dir, shape)));
    add("mariadb", &|dir| {
        let database = mariadb()?;
        Some(goat("goat, MariaDB", database, dir, shape))
    });
    add("opentracker", &|dir| opentracker(dir, shape));
    let others = argument("--others").map(|folder| fs::read_dir(folder).unwrap());
    let others = others.into_iter().flatten().map(|entry| entry.unwrap());
    let mut others: Vec<PathBuf> = others.map(|entry| entry.path()).collect();
    others.sort();
    for other in others.iter().filter(|other| other.join("start").exists()) {
        let name = other.file_name().unwrap().to_str().unwrap();
        add(name, &|dir| Some(another(name, other, dir, shape)));
    }
    if wanted("floor") {
        contenders.extend(["kept", "each", "udp"].map(|mode| floor(mode, folder)));
    }
    contenders
}

/// MariaDB with its own defaults, where the tests' servers are small.
fn mariadb() -> Option<Database> {
    let database = Database::mariadb("the bench on MariaDB")?;
    if let Database::MariaDb(server) = &database {
        server.root("SET GLOBAL innodb_log_file_size = 100663296");
        server.root("SET GLOBAL innodb_buffer_pool_size = 134217728");
    }
    Some(database)
}

fn goat(name: &str, database: Database, dir: &Path, shape: Shape) -> Contender {
    let mut server = Server::goat_on(dir, &database.config().to_string(), true);
    let log = dir.join("log");
    let request = b"GET /announce HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    server.wait_for_answer(request, &log);
    let empty = rss(server.pid());
    let insert = |table: &str, count: u64, row: &dyn Fn(u64) -> String| {
        for first in (0..count).step_by(1_000) {
            let rows: Vec<String> = (first..count.min(first + 1_000)).map(row).collect();
            database.sql(&format!("INSERT INTO {table} VALUES {}", rows.join(", ")));
        }
    };
    insert("users (id, username, passkey)", shape.users, &|user| {
        format!("({}, 'user{user}', '{}')", user + 1, passkey(user))
    });
    insert("files (id, info_hash, verified)", shape.torrents, &|torrent| {
        format!("({}, '{}', 1)", torrent + 1, hex(&info_hash(torrent)))
    });
    let mut contender = Contender::new(name, server, shape, &log);
    (contender.goat, contender.database) = (true, Some(database));
    contender.memory[0] = empty;
    contender
}

/// Debian's serves only torrents that are listed; it gives up root and takes `dir` for its root directory.
fn opentracker(dir: &Path, shape: Shape) -> Option<Contender> {
    if !Path::new(OPENTRACKER).exists() {
        return None;
    }
    write_lists(dir, shape);
    let (port, log) = (free_port(), dir.join("log"));
    let mut command = Command::new(OPENTRACKER);
    let text = port.to_string();
    command.args(["-i", "127.0.0.1", "-p", &text, "-P", &text]);
    command.args(["-w", "torrents", "-d"]).arg(dir);
    let server = Server::start(&mut command, port, &log);
    Some(Contender::new("opentracker", server, shape, &log))
}

/// A tracker that is started by a program in a folder.
fn another(name: &str, folder: &Path, dir: &Path, shape: Shape) -> Contender {
    write_lists(dir, shape);
    let (port, log) = (free_port(), dir.join("log"));
    let mut command = Command::new(fs::canonicalize(folder.join("start")).unwrap());
    command.current_dir(dir).env("PORT", port.to_string());
    let tables = fs::read_to_string(folder.join("mariadb.sql")).ok();
    let database = tables.map(|tables| {
        let database = mariadb().expect("a MariaDB");
        database.sql(&tables);
        database
    });
    if let Some(Database::MariaDb(server)) = &database {
        command.env("MARIADB", server.address());
    }
    let server = Server::start(&mut command, port, &log);
    let mut contender = Contender::new(name, server, shape, &log);
    contender.database = database;
    contender
}

/// The members' passkeys, and the torrents: one a line.
fn write_lists(dir: &Path, shape: Shape) {
    let lines = |lines: &mut dyn Iterator<Item = String>| lines.map(|line| line + "\n").collect();
    let passkeys: String = lines(&mut (0..shape.users).map(passkey));
    let torrents: String = lines(&mut (0..shape.torrents).map(|torrent| hex(&info_hash(torrent))));
    fs::write(dir.join("passkeys"), passkeys).unwrap();
    fs::write(dir.join("torrents"), torrents).unwrap();
}

fn floor(mode: &str, dir: &Path) -> Contender {
    let port = free_port();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--floor", mode, "--port", &port.to_string()]);
    let log = dir.join(mode);
    let mut server = Server::start(&mut command, port, &log);
    let modes = match mode {
        "kept" => vec![Mode::Kept],
        "each" => vec![Mode::Each],
        _ => vec![Mode::Udp, Mode::Connects],
    };
    server.wait_for(&log, |port| match mode {
        "udp" => udp::connect(port).map(drop),
        _ => TcpStream::connect(("127.0.0.1", port)).ok().map(drop),
    });
    let memory = [rss(server.pid()); 2];
    Contender {
        name: "the system calls alone".into(),
        server,
        modes,
        passkeys: true,
        database: None,
        goat: false,
        memory,
        order: Order { sessions: 100, made: 0 },
        announced: 0,
        lost: 0,
        wrong: 0,
        rounds: Vec::new(),
    }
}

impl Contender {
    /// Waits until a server gives peers, and finds out how it may be asked, and whether it has passkeys.
    fn new(name: &str, mut server: Server, shape: Shape, log: &Path) -> Contender {
        let passkeys = server.wait_for(log, |port| {
            // Over UDP one without passkeys does not mind them, so HTTP tells more.
            let ways = [(true, true), (true, false), (false, true), (false, false)];
            let asked = |(http, passkeys): (bool, bool)| answers(port, shape, http, passkeys).then_some(passkeys);
            ways.into_iter().find_map(asked)
        });
        let memory = [rss(server.pid()); 2];
        let mut contender = Contender {
            name: name.into(),
            server,
            modes: MODES.map(|(mode, _)| mode).to_vec(),
            passkeys,
            database: None,
            goat: false,
            memory,
            order: Order { sessions: shape.sessions(), made: 0 },
            announced: 1,
            lost: 0,
            wrong: 0,
            rounds: Vec::new(),
        };
        let there = |contender: &mut Contender, mode| match mode {
            Mode::Udp | Mode::Connects if udp::connect(contender.server.port).is_none() => false,
            Mode::Kept | Mode::Each if TcpStream::connect(("127.0.0.1", contender.server.port)).is_err() => false,
            mode => {
                let answers = contender.run(shape, mode, Check::Any, Duration::from_secs(5), 100);
                answers.wrong == 0 && !answers.times.is_empty()
            }
        };
        let modes = contender.modes.clone();
        contender.modes = modes.into_iter().filter(|mode| there(&mut contender, *mode)).collect();
        assert!(!contender.modes.is_empty(), "{name} answers in no way");
        contender
    }

    /// Announces until some time has passed or a number was answered.
    fn run(&mut self, shape: Shape, mode: Mode, check: Check, time: Duration, count: u64) -> Answers {
        let (port, end) = (self.server.port, Instant::now() + time);
        let keep = mode == Mode::Kept;
        let answers = match mode {
            Mode::Kept | Mode::Each => {
                let mut requests = Requests::new(shape, port, keep, self.passkeys);
                let mut generator = http::Generator::new(port, keep, check);
                generator.run(&mut requests, &mut self.order, end, count);
                std::mem::take(&mut generator.answers)
            }
            Mode::Udp | Mode::Connects => {
                let packets = Packets::new(shape, self.passkeys);
                let mut generator = udp::Generator::new(port, mode == Mode::Connects, check);
                generator.run(&packets, &mut self.order, end, count);
                generator.answers
            }
        };
        self.announced += answers.announced;
        self.lost += answers.lost;
        answers
    }

    /// Every session announces once.
    fn fill(&mut self, shape: Shape) {
        let begin = Instant::now();
        let (mode, hour) = (self.modes[0], Duration::from_secs(3_600));
        let answers = self.run(shape, mode, Check::Any, hour, shape.sessions());
        self.report(&answers);
        self.settle();
        self.memory[1] = rss(self.server.pid());
        println!("{}: filled in {} s", self.name, begin.elapsed().as_secs());
    }

    fn measure(&mut self, shape: Shape, mode: Mode, time: Duration) -> Round {
        let check = match self.order.sessions == shape.sessions() {
            true => Check::Full(shape),
            false => Check::Any,
        };
        let database = self.database_pid();
        let used = |pid: u32| Cpu::of(pid);
        let (before, database_before) = (used(self.server.pid()), database.map(used));
        let begin = Instant::now();
        let mut answers = self.run(shape, mode, check, time, u64::MAX);
        let elapsed = begin.elapsed().as_secs_f64();
        self.settle();
        self.report(&answers);
        let count = answers.times.len() as f64;
        let server = used(self.server.pid()).since(&before).each(count);
        let database = database.zip(database_before);
        let database = database.map(|(pid, before)| used(pid).since(&before).each(count).total);
        answers.times.sort_unstable();
        Round {
            mode,
            server: server.total,
            main: server.main,
            database: database.unwrap_or_default(),
            per_second: count / elapsed,
            p99: f64::from(percentile(&answers.times, 0.99)) / 1e3,
        }
    }

    fn database_pid(&self) -> Option<u32> {
        let Some(database @ Database::MariaDb(_)) = &self.database else {
            return None;
        };
        let file = database.sql("SELECT @@pid_file").concat().concat();
        let id = fs::read_to_string(file).unwrap();
        Some(id.trim().parse().unwrap())
    }

    fn report(&mut self, answers: &Answers) {
        if self.wrong == 0 && answers.wrong > 0 {
            println!("!!! {}: a wrong answer: {}", self.name, answers.first_wrong);
        }
        self.wrong += answers.wrong;
    }

    /// Waits until everything is written that will be.
    fn settle(&self) {
        if self.database.is_none() {
            return;
        }
        let (begin, limit) = (Instant::now(), Duration::from_secs(90));
        if self.goat {
            // What is unsaved is counted each second.
            thread::sleep(Duration::from_secs(2));
            while unsaved(self.server.port) > 0 && begin.elapsed() < limit {
                thread::sleep(Duration::from_millis(200));
            }
            return;
        }
        // Of others it is not known how long they wait: they are done when they have used next to nothing for a while.
        let used = || Cpu::of(self.server.pid()).total + self.database_pid().map_or(0.0, |pid| Cpu::of(pid).total);
        loop {
            let before = used();
            thread::sleep(Duration::from_secs(11));
            if used() - before < 50_000.0 || begin.elapsed() > limit {
                return;
            }
        }
    }

    fn of(&self, mode: Mode, value: impl Fn(&Round) -> f64) -> Vec<f64> {
        let rounds = self.rounds.iter().filter(|round| round.mode == mode);
        rounds.map(value).collect()
    }

    /// Whether goat's tables count as many announces as were answered. Of those that were lost, some had come and only their
    /// answers had not.
    fn end(self) {
        self.server.stop();
        if let (true, Some(database)) = (self.goat, &self.database) {
            let written = database.number("SELECT SUM(announced) FROM files_users") as u64;
            let loud = match (self.announced..=self.announced + self.lost).contains(&written) {
                true => "",
                false => "!!! ",
            };
            println!("{loud}{}: {} announces answered, {written} written", self.name, self.announced);
        }
    }
}

/// Whether a server answers the announce of a session with peers, over HTTP or UDP.
fn answers(port: u16, shape: Shape, http: bool, passkeys: bool) -> bool {
    if http {
        let request = Requests::new(shape, port, false, passkeys).build(0).to_vec();
        let answer = ask(port, &request).unwrap_or_default();
        return answer.windows(7).any(|part| part == b"5:peers");
    }
    let Some(connection) = udp::connect(port) else {
        return false;
    };
    let (packets, mut packet) = (Packets::new(shape, passkeys), Vec::new());
    // The second is given the first, unless the torrent is not known yet.
    [1, 0].into_iter().any(|session| {
        packets.write(&mut packet, connection, 0, session);
        let answer = udp::ask(port, &packet).unwrap_or_default();
        answer.starts_with(&[0, 0, 0, 1]) && answer.len() > 20
    })
}

/// How many rows goat has not written.
fn unsaved(port: u16) -> u64 {
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = ask(port, request).unwrap();
    let text = String::from_utf8_lossy(&answer);
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("goat_unsaved_rows "));
    line.expect("goat's metrics").parse().unwrap()
}

fn print_table(contenders: &[Contender]) {
    println!(
        "| | CPU us an answer | from, to | of it accounts | database | times goat's | answers/s | 99 % within us | wrong |\n\
         |---|---|---|---|---|---|---|---|---|"
    );
    for (mode, title) in MODES {
        println!("| **{title}** | | | | | | | | |");
        let first = median(contenders[0].of(mode, Round::cpu).into_iter());
        for contender in contenders.iter().filter(|contender| contender.modes.contains(&mode)) {
            let mut cpu = contender.of(mode, Round::cpu);
            cpu.sort_by(f64::total_cmp);
            let median_of = |value: fn(&Round) -> f64| median(contender.of(mode, value).into_iter());
            let (main, database) = (median_of(|round| round.main), median_of(|round| round.database));
            let shown = |there: bool, value: f64| {
                if there { format!("{value:.1}") } else { String::new() }
            };
            let all = median(cpu.iter().copied());
            println!(
                "| {} | {all:.1} | {:.1}, {:.1} | {} | {} | {} | {:.0} | {:.0} | {} |",
                contender.name,
                cpu[0],
                cpu[cpu.len() - 1],
                shown(contender.goat, main),
                shown(database > 0.0, database),
                if contenders[0].goat { format!("{:.2}", all / first) } else { String::new() },
                median_of(|round| round.per_second),
                median_of(|round| round.p99),
                contender.wrong,
            );
        }
    }
}

fn print_memory(contenders: &[Contender], shape: Shape) {
    println!("\n| | MiB empty | bytes a peer |\n|---|---|---|");
    for Contender { name, memory: [empty, full], order, .. } in contenders {
        if order.sessions == shape.sessions() {
            let each = full.saturating_sub(*empty) / shape.sessions();
            println!("| {name} | {:.1} | {each} |", megabytes(*empty));
        }
    }
    println!();
}
