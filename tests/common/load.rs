//! Clients that announce all the time, over HTTP and UDP, and what the books must hold of what they said: at least
//! what was answered, at most what was sent.
//!
//! A client's counters never fall, and who is restarted has a new peer id, so that what must be credited is plain:
//! all that every session has ever reported.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{AGENT, Database, Goat, PATIENCE, Random, escape, hex, info_hash, wait_for, wait_until};

pub const USERS: u32 = 40;
pub const TORRENTS: u32 = 10;
const THREADS: u32 = 4;
/// Clients of each thread.
const CLIENTS: usize = 60;

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What of the bytes moved of a torrent is credited, in percent: (uploaded, downloaded).
fn factors(torrent: u32) -> (u64, u64) {
    [(100, 100), (200, 0), (50, 50), (0, 200)][torrent as usize % 4]
}

fn insert(columns: &str, count: u32, row: impl Fn(u32) -> String) -> String {
    let rows: Vec<String> = (1..=count).map(row).collect();
    format!("INSERT INTO {columns} VALUES {}", rows.join(", "))
}

/// Makes the users and the torrents. The passkey of a user is their id.
pub fn populate(database: &Database) {
    let row = |id| format!("({id}, 'user{id}', '{id:040x}')");
    database.sql(&insert("users (id, username, passkey)", USERS, row));
    let row = |id| {
        let ((up, down), hash) = (factors(id), hex(&info_hash(id)));
        format!("({id}, '{hash}', 1, {up}, {down})")
    };
    let columns = "files (id, info_hash, verified, upload_percent, download_percent)";
    database.sql(&insert(columns, TORRENTS, row));
}

/// One announce.
#[derive(Clone, Debug)]
pub struct Said {
    pub user: u32,
    pub torrent: u32,
    pub peer_id: [u8; 20],
    pub ip: IpAddr,
    pub port: u16,
    pub uploaded: u64,
    pub downloaded: u64,
    pub left: u64,
    /// "" is no event.
    pub event: &'static str,
}

/// Torrent, user, peer id.
type Key = (u32, u32, [u8; 20]);

/// How far a session has come.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Point {
    uploaded: u64,
    downloaded: u64,
    complete: bool,
    /// Became complete by downloading.
    snatched: bool,
    /// It has announced before.
    known: bool,
}

impl Point {
    fn after(mut self, a: &Said) -> Point {
        (self.uploaded, self.downloaded) = (self.uploaded.max(a.uploaded), self.downloaded.max(a.downloaded));
        self.snatched |= self.known && !self.complete && a.left == 0;
        self.complete |= a.left == 0;
        self.known = true;
        self
    }

    fn reaches(&self, other: &Point) -> bool {
        self.uploaded >= other.uploaded && self.downloaded >= other.downloaded && self.snatched >= other.snatched
    }
}

/// What one thread of clients said.
#[derive(Default)]
struct Spoken {
    sent: BTreeMap<Key, Point>,
    answered: BTreeMap<Key, Point>,
    /// When each answer came.
    history: Vec<(Instant, Key, Point)>,
}

/// What must be in the books at least, or at most.
#[derive(Clone, Default)]
pub struct Points(BTreeMap<Key, Point>);

impl Points {
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// What a comparison has found.
#[derive(Debug, Default)]
pub struct Verdict {
    pub rows: usize,
    /// What is wrong, in words.
    pub wrong: Vec<String>,
}

impl Verdict {
    /// Fails the test if anything is wrong.
    pub fn demand(&self, what: &str) {
        let some = &self.wrong[..self.wrong.len().min(10)];
        assert!(self.wrong.is_empty(), "{what}: {} rows are wrong: {some:#?}", self.wrong.len());
    }
}

/// Compares what a database holds with what must be there at least and at most; its sums must agree in any case.
pub fn compare(database: &Database, least: &Points, most: &Points) -> Verdict {
    let rows = database.sql(
        "BEGIN; SELECT 'session', file_id, user_id, lower(hex(peer_id)), uploaded, downloaded, credited_uploaded,
             credited_downloaded, completed FROM peers;
         SELECT 'user', id, uploaded, downloaded FROM users; SELECT 'file', id, completed FROM files; COMMIT",
    );
    let mut verdict = Verdict { rows: rows.len(), wrong: Vec::new() };
    let mut credited: BTreeMap<u32, [u64; 2]> = BTreeMap::new();
    let mut snatches: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
    let mut held = BTreeMap::new();
    let number = |text: &String| text.parse::<u64>().unwrap();
    for row in rows.iter().filter(|row| row[0] == "session") {
        let (torrent, user) = (number(&row[1]) as u32, number(&row[2]) as u32);
        let bytes = |at: usize| u8::from_str_radix(&row[3][at * 2..at * 2 + 2], 16).unwrap();
        let key: Key = (torrent, user, std::array::from_fn(bytes));
        let [up, down, credited_up, credited_down] = [4, 5, 6, 7].map(|at: usize| number(&row[at]));
        let (up_percent, down_percent) = factors(torrent);
        if [credited_up, credited_down] != [up * up_percent / 100, down * down_percent / 100] {
            verdict.wrong.push(format!("credited is not what moved: {row:?}"));
        }
        let sums = credited.entry(user).or_default();
        *sums = [sums[0] + credited_up, sums[1] + credited_down];
        let snatched = row[8] == "1";
        if snatched {
            snatches.entry(torrent).or_default().insert(user);
        }
        let point = Point { uploaded: up, downloaded: down, snatched, ..Point::default() };
        held.insert(key, point);
    }
    for (key, point) in &least.0 {
        let is = held.get(key).copied().unwrap_or_default();
        if !is.reaches(point) {
            verdict.wrong.push(format!("{key:?} is {is:?}, must be at least {point:?}"));
        }
    }
    for (key, is) in &held {
        let point = most.0.get(key).copied().unwrap_or_default();
        if !point.reaches(is) {
            verdict.wrong.push(format!("{key:?} is {is:?}, must be at most {point:?}"));
        }
    }
    for row in rows.iter().filter(|row| row[0] == "user") {
        let sums = credited.get(&(number(&row[1]) as u32)).copied().unwrap_or_default();
        if sums != [number(&row[2]), number(&row[3])] {
            verdict.wrong.push(format!("{row:?}, but the sessions' sums are {sums:?}"));
        }
    }
    for row in rows.iter().filter(|row| row[0] == "file") {
        let count = snatches.get(&(number(&row[1]) as u32)).map_or(0, BTreeSet::len);
        if count as u64 != number(&row[2]) {
            verdict.wrong.push(format!("{row:?}, but {count} members have it"));
        }
    }
    verdict
}

// ---- The clients.

#[derive(Clone)]
struct Client {
    said: Said,
    v6: Option<IpAddr>,
    running: bool,
}

struct Clients {
    random: Random,
    clients: Vec<Client>,
    born: u64,
}

impl Clients {
    fn new(seed: u64, users: std::ops::Range<u32>) -> Clients {
        let mut all = Clients { random: Random(seed), clients: Vec::new(), born: u64::from(users.start) << 32 };
        for n in 0..CLIENTS {
            let user = users.start + n as u32 % (users.end - users.start);
            let [a, b] = (user as u16).to_be_bytes();
            let v6 = IpAddr::from([0x20, 1, 0xd, 0xb8, a, b, 0, 0, 0, 0, 0, 0, 0, 0, 0, n as u8 + 1]);
            let said = Said {
                user,
                torrent: 1 + all.random.below(TORRENTS.into()) as u32,
                peer_id: [0; 20],
                ip: IpAddr::from([10, a, b, 1]),
                port: 10_000 + n as u16,
                uploaded: 0,
                downloaded: 0,
                left: 0,
                event: "",
            };
            let v6 = all.random.once_in(3).then_some(v6);
            let mut client = Client { said, v6, running: false };
            all.restart(&mut client);
            all.clients.push(client);
        }
        all
    }

    /// Somebody new in the same place.
    fn restart(&mut self, client: &mut Client) {
        self.born += 1;
        let mut id = *b"-qB5020-............";
        id[12..].copy_from_slice(&self.born.to_be_bytes());
        // Some say bytes that are no text.
        id[8..12].copy_from_slice(&(self.random.bits() as u32).to_be_bytes());
        let said = &mut client.said;
        (said.peer_id, said.uploaded, said.downloaded) = (id, 0, 0);
        said.left = if self.random.once_in(4) { 0 } else { 1 << 30 };
    }

    /// What one of them says next: one announce, or several where both address families are used, an answer is
    /// lost, or an older one arrives last.
    fn next(&mut self) -> Vec<Said> {
        let at = self.random.below(self.clients.len() as u64) as usize;
        let mut client = self.clients[at].clone();
        let r = &mut self.random;
        // Even numbers, so that half of them is whole.
        let (up, down) = (2 * r.below(2_500_000_000), 2 * r.below(1 << 27));
        let fate = r.below(40);
        let before = client.said.clone();
        if !client.running || fate == 4 {
            // One that was paused goes on; the others begin anew, also where nobody said goodbye.
            if client.running || fate < 30 {
                self.restart(&mut client);
            }
            (client.running, client.said.event) = (true, "started");
        } else {
            let said = &mut client.said;
            let down = down.min(said.left);
            said.uploaded += up;
            said.downloaded += down;
            said.left -= down;
            said.event = match fate {
                0..=3 => "stopped",
                5 if said.left > 0 => "paused",
                _ if said.left == 0 && down > 0 => "completed",
                _ => "",
            };
            client.running = said.event != "stopped";
        }
        let mut said = vec![client.said.clone()];
        if let Some(ip) = client.v6 {
            said.push(Said { ip, ..client.said.clone() });
        } else if self.random.once_in(10) {
            (0..=self.random.below(3)).for_each(|_| said.push(said[0].clone()));
        }
        if client.running && client.said.event != "started" && self.random.once_in(10) {
            said.push(Said { event: "", ..before });
        }
        self.clients[at] = client;
        said
    }
}

// ---- How they reach goat.

enum Line {
    /// A connection that is kept.
    Http(Option<TcpStream>),
    /// A socket, and the connection id, if there is one.
    Udp(UdpSocket, Option<[u8; 8]>),
}

impl Line {
    fn udp(address: SocketAddr) -> Line {
        let socket = UdpSocket::bind((address.ip(), 0)).unwrap();
        socket.connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        Line::Udp(socket, None)
    }

    /// Whether an announce was answered; it must not be refused.
    fn ask(&mut self, address: SocketAddr, a: &Said) -> std::io::Result<()> {
        match self {
            Line::Http(stream) => {
                let answer = ask_http(stream, address, a);
                if answer.is_err() {
                    *stream = None;
                }
                answer
            }
            Line::Udp(socket, id) => {
                let answer = ask_udp(socket, id, a);
                if answer.is_err() {
                    *id = None;
                }
                answer
            }
        }
    }
}

fn ask_http(line: &mut Option<TcpStream>, address: SocketAddr, a: &Said) -> std::io::Result<()> {
    let event = if a.event.is_empty() { String::new() } else { format!("&event={}", a.event) };
    let request = format!(
        "GET /{:040x}/announce?info_hash={}&peer_id={}&port={}&uploaded={}&downloaded={}&left={}&numwant=0{event} HTTP/1.1\r\n\
         User-Agent: {AGENT}\r\nX-Forwarded-For: {}\r\n\r\n",
        a.user,
        escape(&info_hash(a.torrent)),
        escape(&a.peer_id),
        a.port,
        a.uploaded,
        a.downloaded,
        a.left,
        a.ip
    );
    if line.is_none() {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        *line = Some(stream);
    }
    let stream = line.as_mut().unwrap();
    stream.write_all(request.as_bytes())?;
    let (body, keep) = read_answer(stream)?;
    if !keep {
        *line = None;
    }
    let refused = body.windows(14).any(|part| part == b"failure reason");
    assert!(!refused, "{a:?}: {}", String::from_utf8_lossy(&body));
    Ok(())
}

/// The body of an answer, and whether the connection goes on.
fn read_answer(stream: &mut TcpStream) -> std::io::Result<(Vec<u8>, bool)> {
    let (mut answer, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let head = answer.windows(4).position(|four| four == b"\r\n\r\n").map(|end| end + 4);
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&answer[..head]).to_lowercase();
            let length = text.split("content-length: ").nth(1);
            let length = length.and_then(|rest| rest.split("\r\n").next());
            let end = head + length.expect("a length").parse::<usize>().unwrap();
            if answer.len() >= end {
                return Ok((answer[head..end].to_vec(), !text.contains("connection: close")));
            }
        }
        match stream.read(&mut part)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&part[..read]),
        }
    }
}

fn ask_udp(socket: &UdpSocket, id: &mut Option<[u8; 8]>, a: &Said) -> std::io::Result<()> {
    // A number of its own for each question.
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let ask = |packet: &mut Vec<u8>| -> std::io::Result<Vec<u8>> {
        let number = (ASKED.fetch_add(1, SeqCst) as u32).to_be_bytes();
        packet[12..16].copy_from_slice(&number);
        socket.send(packet)?;
        let mut answer = [0; 2048];
        loop {
            let size = socket.recv(&mut answer)?;
            if size >= 8 && answer[4..8] == number {
                return Ok(answer[..size].to_vec());
            }
        }
    };
    let connection = match *id {
        Some(id) => id,
        None => {
            let mut connect = 0x417_2710_1980_u64.to_be_bytes().to_vec();
            connect.extend([0; 8]);
            let answer = ask(&mut connect)?;
            assert_eq!((answer.len(), answer[3]), (16, 0), "{answer:?}");
            *id.insert(answer[8..16].try_into().unwrap())
        }
    };
    let event: u32 = match a.event {
        "completed" => 1,
        "started" => 2,
        "stopped" => 3,
        _ => 0,
    };
    let url = format!("/{:040x}/announce", a.user);
    let mut packet = [&connection[..], &[0, 0, 0, 1, 0, 0, 0, 0]].concat();
    packet.extend([info_hash(a.torrent), a.peer_id].concat());
    packet.extend([a.downloaded, a.left, a.uploaded].map(u64::to_be_bytes).concat());
    packet.extend([event, 0, 0, 0].map(u32::to_be_bytes).concat());
    packet.extend(a.port.to_be_bytes());
    packet.extend([2, url.len() as u8]);
    packet.extend(url.as_bytes());
    let answer = ask(&mut packet)?;
    let words = String::from_utf8_lossy(&answer[8..]).into_owned();
    match answer[3] {
        1 => Ok(()),
        // goat was started again.
        _ if words.to_lowercase().contains("connection id") => Err(ErrorKind::ConnectionReset.into()),
        _ => panic!("{a:?}: {words}"),
    }
}

// ---- A goat under load.

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
    /// The least time from one announce to the next of a thread, in microseconds.
    gap: AtomicU64,
    /// Remember when answers came.
    history: AtomicBool,
}

/// A goat, its database, and clients that announce all the time.
pub struct Rig {
    pub database: Database,
    pub goat: Goat,
    shared: Arc<Shared>,
    spoken: Vec<Arc<Mutex<Spoken>>>,
    threads: Vec<JoinHandle<()>>,
    pub seed: u64,
    /// The lines of the table.
    tried: Vec<String>,
}

impl Rig {
    pub fn new(database: Database, db: Value, seed: u64) -> Rig {
        Rig::with(database, json!({ "DB": db }), seed, |_| ())
    }

    /// The same with other settings; `prepare` is called before goat starts.
    pub fn with(database: Database, mut settings: Value, seed: u64, prepare: impl FnOnce(&mut Goat)) -> Rig {
        let common = json!({ "SlowDown": 0, "Clients": 1_000_000, "TrustedProxies": ["127.0.0.1"], "UDP": true });
        let keys = settings.as_object_mut().unwrap();
        common.as_object().unwrap().iter().for_each(|(key, value)| {
            keys.insert(key.clone(), value.clone());
        });
        let mut goat = Goat::prepare(&database, settings);
        goat.json(&["user", "list"]); // makes the tables
        populate(&database);
        prepare(&mut goat);
        goat.launch();
        let mut rig = Rig {
            database,
            goat,
            shared: Arc::default(),
            spoken: Vec::new(),
            threads: Vec::new(),
            seed,
            tried: Vec::new(),
        };
        rig.shared.gap.store(1000, SeqCst);
        (0..THREADS).for_each(|i| rig.begin(i));
        rig
    }

    /// Starts a thread of clients; every other one speaks over UDP.
    fn begin(&mut self, i: u32) {
        let each = USERS / THREADS;
        let mut clients = Clients::new(self.seed + u64::from(i), 1 + i * each..1 + (i + 1) * each);
        let address = self.goat.address();
        let udp = i % 2 == 1;
        let mut line = if udp { Line::udp(address) } else { Line::Http(None) };
        let (shared, spoken) = (self.shared.clone(), Arc::<Mutex<Spoken>>::default());
        self.spoken.push(spoken.clone());
        self.threads.push(thread::spawn(move || {
            let mut downs = 0;
            while !shared.stop.load(SeqCst) {
                if shared.pause.load(SeqCst) {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                for mut a in clients.next() {
                    if udp {
                        // Everybody comes from the test's own address.
                        a.ip = address.ip();
                        a.event = if a.event == "paused" { "" } else { a.event };
                    }
                    if !shared.say(&mut line, &mut downs, address, &spoken, &a) {
                        return;
                    }
                }
                thread::sleep(Duration::from_micros(shared.gap.load(SeqCst)));
            }
        }));
    }

    /// The least time from one announce to the next of each of the four threads.
    pub fn set_gap(&self, gap: Duration) {
        self.shared.gap.store(gap.as_micros() as u64, SeqCst);
    }

    /// From now on it is remembered when answers came.
    pub fn remember(&self) {
        self.shared.history.store(true, SeqCst);
    }

    /// What was answered until then.
    pub fn answered_until(&self, time: Instant) -> Points {
        let mut points = BTreeMap::new();
        for spoken in &self.spoken {
            let spoken = lock(spoken);
            let until = spoken.history.iter().filter(|(at, ..)| *at <= time);
            points.extend(until.map(|(_, key, point)| (*key, *point)));
        }
        Points(points)
    }

    /// What was answered so far.
    pub fn answered(&self) -> Points {
        let all = self.spoken.iter().flat_map(|spoken| lock(spoken).answered.clone());
        Points(all.collect())
    }

    /// What was sent so far.
    pub fn sent(&self) -> Points {
        Points(self.spoken.iter().flat_map(|spoken| lock(spoken).sent.clone()).collect())
    }

    /// How many announces were answered.
    pub fn count(&self) -> u64 {
        self.shared.answered.load(SeqCst)
    }

    /// Waits until so many more announces were answered.
    pub fn announces(&self, more: u64) {
        let from = self.count();
        wait_until("announces to be answered", || self.count() >= from + more);
    }

    /// Does what keeps the database from being written, and waits until goat says so.
    pub fn notices<T>(&mut self, fault: impl FnOnce(&mut Rig) -> T) -> T {
        let lines = |rig: &Rig| rig.goat.log().matches("cannot be written").count();
        let before = lines(self);
        let done = fault(self);
        wait_until("goat to notice", || lines(self) > before);
        done
    }

    /// Whether goat, since its start, last said that all can be written.
    pub fn can_write(&self) -> bool {
        let log = self.goat.log();
        let words = ["listening for HTTP", "cannot be written", "can be written again"];
        let last = words.map(|words| log.rfind(words));
        last[1] <= last[0].max(last[2])
    }

    /// From now on goat is down.
    pub fn goes_down(&self) {
        self.shared.down.store(true, SeqCst);
        self.shared.downs.fetch_add(1, SeqCst);
    }

    /// It is up again. What was asked before may still fail.
    pub fn comes_up(&self) {
        self.shared.downs.fetch_add(1, SeqCst);
        self.shared.down.store(false, SeqCst);
    }

    /// From now on nobody asks anything new.
    pub fn pause(&self) {
        self.shared.pause.store(true, SeqCst);
    }

    pub fn go_on(&self) {
        self.shared.pause.store(false, SeqCst);
    }

    /// Starts goat again, and waits until it answers.
    pub fn start(&mut self) {
        let before = self.goat.log().matches("listening for UDP").count();
        self.goat.spawn();
        let goat = &mut self.goat;
        wait_for("goat to listen", || {
            goat.process().assert_running();
            (goat.log().matches("listening for UDP").count() > before).then_some(())
        });
    }

    /// Kills goat at this moment and starts it again: what was answered must be in the database before anybody says
    /// anything more.
    pub fn kill(&mut self, what: &str) {
        self.goes_down();
        self.goat.kill();
        self.pause();
        let least = self.answered();
        self.start();
        let verdict = compare(&self.database, &least, &self.sent());
        verdict.demand(&format!("{what}, GOAT_SEED={}\n{}", self.seed, self.goat.log()));
        self.comes_up();
        self.go_on();
    }

    /// Nobody speaks for a while, and the database must come to hold what was said. Adds a line to the table.
    pub fn verify(&mut self, fault: &str, times: u64) {
        self.pause();
        let verdict = self.settled();
        let Shared { unanswered, longest, .. } = &*self.shared;
        let (unanswered, longest) = (unanswered.swap(0, SeqCst), longest.swap(0, SeqCst));
        self.tried.push(format!(
            "{fault:<62} {times:>5} {:>8} {unanswered:>10} {:>10.1}",
            verdict.rows,
            longest as f64 / 1e3
        ));
        crate::say!("{}", self.tried.last().unwrap());
        verdict.demand(&format!("{fault}, GOAT_SEED={}", self.seed));
        assert_eq!(unanswered, 0, "{fault}: announces were not answered");
        wait_until("goat to notice", || self.can_write());
        self.go_on();
    }

    /// Waits until all that is under way is answered and written.
    pub fn settled(&self) -> Verdict {
        let begin = Instant::now();
        loop {
            let (least, most) = (self.answered(), self.sent());
            let quiet = least.0 == most.0;
            let verdict = compare(&self.database, &least, &most);
            let over = begin.elapsed() > Duration::from_secs(60);
            if quiet && verdict.wrong.is_empty() || over {
                assert!(quiet, "announces were not answered:\n{}", self.goat.log());
                return verdict;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Shared {
    /// Says it until it is answered, as clients do.
    fn say(&self, line: &mut Line, downs: &mut u64, address: SocketAddr, spoken: &Mutex<Spoken>, a: &Said) -> bool {
        let key = (a.torrent, a.user, a.peer_id);
        let mut waited = Instant::now();
        let point = {
            let mut spoken = lock(spoken);
            let sent = spoken.sent.entry(key).or_default();
            *sent = sent.after(a);
            *sent
        };
        loop {
            let (begin, now) = (Instant::now(), self.downs.load(SeqCst));
            if *downs != now {
                // The connection ended with the goat that it was to.
                *downs = now;
                waited = begin;
                if let Line::Http(stream) = line {
                    *stream = None;
                }
            }
            if self.down.load(SeqCst) {
                if self.stop.load(SeqCst) {
                    return false;
                }
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            let answer = line.ask(address, a);
            let was_up = !self.down.load(SeqCst) && self.downs.load(SeqCst) == now;
            match answer {
                Ok(()) => {
                    if was_up {
                        self.longest.fetch_max(begin.elapsed().as_micros() as u64, SeqCst);
                    }
                    self.answered.fetch_add(1, SeqCst);
                    let mut spoken = lock(spoken);
                    spoken.answered.insert(key, point);
                    if self.history.load(SeqCst) {
                        spoken.history.push((Instant::now(), key, point));
                    }
                    return true;
                }
                Err(_) if self.stop.load(SeqCst) => return false,
                Err(_) => {
                    // A datagram may be lost, and the first to a new goat has an old id.
                    let lost = matches!(line, Line::Udp(..)) && waited.elapsed() < Duration::from_secs(5);
                    if was_up && !lost {
                        self.unanswered.fetch_add(1, SeqCst);
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        if !self.shared.down.load(SeqCst) {
            self.goat.kill();
        }
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}
