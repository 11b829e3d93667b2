//! Clients whose moved bytes are known, and the rule of the books once more, by itself: what each member, torrent and
//! session must hold after what the clients announced.
//!
//! The truth is what a client moved, not what a rule says of its announces: the books are never above it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use super::{Database, Random, hex, info_hash};

/// (uploaded, downloaded)
pub type Bytes = [u64; 2];

fn each(a: Bytes, b: Bytes, f: impl Fn(u64, u64) -> u64) -> Bytes {
    [f(a[0], b[0]), f(a[1], b[1])]
}

pub fn plus(a: Bytes, b: Bytes) -> Bytes {
    each(a, b, u64::saturating_add)
}

/// By how much each is above the other's.
pub fn above(a: Bytes, b: Bytes) -> Bytes {
    each(a, b, u64::saturating_sub)
}

/// One announce.
#[derive(Clone, Debug)]
pub struct Said {
    pub user: u32,
    pub torrent: u32,
    pub peer_id: [u8; 20],
    pub ip: IpAddr,
    pub port: u16,
    pub udp: bool,
    pub uploaded: u64,
    pub downloaded: u64,
    pub left: u64,
    /// "" is no event.
    pub event: &'static str,
}

impl Said {
    /// Address family, and TCP or UDP, as a bit.
    pub fn path(&self) -> u8 {
        1 << (u8::from(self.ip.is_ipv6()) + 2 * u8::from(self.udp))
    }

    pub fn counters(&self) -> Bytes {
        [self.uploaded, self.downloaded]
    }

    fn key(&self) -> Key {
        (self.torrent, self.user, self.peer_id)
    }
}

/// What of the bytes moved of a torrent is credited, in percent: (uploaded, downloaded). Without remainders, for
/// each settling rounds down.
fn factors(torrent: u32) -> Bytes {
    [[100, 100], [200, 0], [300, 100], [0, 200]][torrent as usize % 4]
}

/// Makes the users 1 to `count`; the passkey of each is their id.
pub fn users(count: u32) -> String {
    let row = |id| format!("({id}, 'user{id}', '{id:040x}')");
    insert("users (id, username, passkey)", count, row)
}

/// Makes the torrents 1 to `count`.
pub fn files(count: u32) -> String {
    let row = |id| {
        let ([up, down], hash) = (factors(id), hex(&info_hash(id)));
        format!("({id}, '{hash}', 1, {up}, {down})")
    };
    let columns = "files (id, info_hash, verified, upload_percent, download_percent)";
    insert(columns, count, row)
}

fn insert(columns: &str, count: u32, row: impl Fn(u32) -> String) -> String {
    let rows: Vec<String> = (1..=count).map(row).collect();
    format!("INSERT INTO {columns} VALUES {}", rows.join(", "))
}

// ---- The rule -------------------------------------------------------------------------------------------------

/// Seconds after the close before it within which nothing of a life in doubt is credited.
const DOUBT: u32 = 120;
/// Seconds after a close from which on nothing is late any more.
const LATE: u32 = 600;
/// Seconds after a close within which only `started` puts a session back.
const BACK: u32 = 60;
/// The longest that is counted as seeding between two announces, and that a silent session is open.
pub const SILENCE: u32 = 2 * 3600;

/// One session by the rule of the books: `credit` is what it is worth.
#[derive(Clone, Debug, Default)]
pub struct Lives {
    known: bool,
    pub open: bool,
    /// The highest counters of the life, and what of them is credited.
    top: Bytes,
    done: Bytes,
    pub credit: Bytes,
    /// What was said in lives in doubt that ended before they were credited, and of the life before while one is.
    pub lost: Bytes,
    closed: u32,
    /// The close after which the life is in doubt.
    doubt: Option<u32>,
    /// When the life began, and whether it was in doubt then.
    began: u32,
    doubtful: bool,
    last: u32,
    paths: u8,
}

impl Lives {
    /// Returns whether what is said beside the counters counts, too.
    pub fn announce(&mut self, now: u32, path: u8, event: &str, counters: Bytes) -> bool {
        self.fall_silent(now);
        let lower = counters[0] < self.top[0] || counters[1] < self.top[1];
        let (started, stopped) = (event == "started", event == "stopped");
        if !self.known {
            (self.known, self.open, self.paths, self.top) = (true, !stopped, path, counters);
            self.done = if started { [0, 0] } else { counters };
            self.closed = now;
        } else if self.open {
            let young = self.doubtful && now - self.began <= LATE;
            if young && !started && self.paths & path == 0 {
                // It may be of the life before.
                self.lost = plus(self.lost, counters);
                return false;
            }
            self.top = each(self.top, counters, u64::max);
            if stopped && self.paths & path == 0 {
                self.settle();
                return false;
            }
            if stopped {
                self.close(now);
            } else {
                self.paths |= path;
            }
        } else if !lower {
            self.top = counters;
            self.reopen(now, path, event);
        } else if started && (now - self.closed > LATE || counters == [0, 0] && self.paths & path != 0) {
            self.lost = plus(self.lost, self.in_doubt());
            self.doubt = (now - self.closed <= LATE).then_some(self.closed);
            (self.began, self.doubtful) = (now, self.doubt.is_some());
            (self.top, self.done) = (counters, [0, 0]);
            (self.open, self.paths) = (true, path);
        } else {
            self.reopen(now, path, if started { "" } else { event });
            if !self.open {
                return false;
            }
        }
        self.last = now;
        self.settle();
        true
    }

    /// What is not credited, and may never be.
    pub fn in_doubt(&self) -> Bytes {
        above(self.top, self.done)
    }

    fn reopen(&mut self, now: u32, path: u8, event: &str) {
        let here = event == "started" && self.paths & path != 0;
        if event != "stopped" && (here || now - self.closed > BACK) {
            (self.open, self.paths, self.last) = (true, path, now);
        }
    }

    fn close(&mut self, now: u32) {
        (self.open, self.closed) = (false, now);
    }

    fn fall_silent(&mut self, now: u32) {
        if self.open && self.last + SILENCE < now {
            self.close(self.last + SILENCE);
        }
    }

    fn settle(&mut self) {
        if self.doubt.is_none_or(|close| self.last.saturating_sub(close) > DOUBT) {
            self.credit = plus(self.credit, self.in_doubt());
            self.done = each(self.done, self.top, u64::max);
        }
    }
}

// ---- What the database must hold ------------------------------------------------------------------------------

/// (torrent, user, peer id)
type Key = (u32, u32, [u8; 20]);

/// One client of one member on one torrent.
#[derive(Clone, Debug, Default)]
struct Session {
    lives: Lives,
    left: u64,
    announced: u64,
    /// Has reported `left` = 0; did so after it was leeching.
    complete: bool,
    snatched: bool,
    /// Where it is, and when it announced last over each family.
    at: [Option<(IpAddr, u16, u32)>; 2],
}

/// What must be in the database.
#[derive(Clone, Debug, Default)]
pub struct Model {
    sessions: BTreeMap<Key, Session>,
    /// From and to, by torrent and user: when a session of theirs seeded.
    seeded: BTreeMap<(u32, u32), Vec<(u32, u32)>>,
}

impl Model {
    /// An announce was answered, at a time in seconds.
    pub fn answered(&mut self, a: &Said, now: u32) {
        let session = self.sessions.entry(a.key()).or_default();
        session.lives.fall_silent(now);
        let (before, was) = (session.lives.last, session.lives.open);
        if was && session.left == 0 {
            self.seeded.entry((a.torrent, a.user)).or_default().push((before, now));
        }
        let first = session.announced == 0;
        session.announced += 1;
        if session.lives.announce(now, a.path(), a.event, a.counters()) {
            if first {
                session.snatched = a.event == "completed" && a.left == 0 && a.downloaded > 0;
            } else {
                session.snatched |= !session.complete && a.left == 0;
            }
            session.complete |= a.left == 0;
            session.left = a.left;
            if session.lives.open && !was {
                session.at = [None; 2];
            }
            let moved = session.at.map(|at| at.map(|(ip, port, _)| (ip, port)));
            session.at[usize::from(a.ip.is_ipv6())] = Some((a.ip, a.port, now));
            let moves = !was || moved != session.at.map(|at| at.map(|(ip, port, _)| (ip, port)));
            if session.lives.open && moves {
                self.oust(a.key(), now);
            }
        }
    }

    /// Two sessions of a member on a torrent cannot live at the same address: the newer closes the older.
    fn oust(&mut self, own: Key, now: u32) {
        let at = self.sessions[&own].at;
        let meets = |there: &[Option<(IpAddr, u16, u32)>; 2]| {
            let place = |at: Option<(IpAddr, u16, u32)>| at.map(|(ip, port, _)| (ip, port));
            (0..2).any(|family| place(at[family]).is_some() && place(at[family]) == place(there[family]))
        };
        let (from, to) = ((own.0, own.1, [0; 20]), (own.0, own.1, [255; 20]));
        for (key, session) in self.sessions.range_mut(from..=to) {
            if *key != own && session.lives.open && meets(&session.at) {
                session.lives.close(now);
            }
        }
    }

    /// goat looks for who is silent.
    pub fn expire(&mut self, now: u32) {
        for session in self.sessions.values_mut().filter(|session| session.lives.open) {
            session.lives.fall_silent(now);
            for at in &mut session.at {
                *at = at.filter(|(.., seen)| seen + SILENCE >= now);
            }
        }
    }

    /// All sessions of a user are closed.
    pub fn leave(&mut self, user: u32, now: u32) {
        let open = self.sessions.iter_mut().filter(|((_, of, _), session)| *of == user && session.lives.open);
        open.for_each(|(_, session)| session.lives.close(now));
    }

    /// Takes over what another model knows of other users.
    pub fn join(&mut self, other: Model) {
        self.sessions.extend(other.sessions);
        self.seeded.extend(other.seeded);
    }

    /// A session, by torrent, user and peer id.
    pub fn lives(&self, a: &Said) -> Option<&Lives> {
        self.sessions.get(&a.key()).map(|session| &session.lives)
    }

    /// Seconds in which any session of a member seeded a torrent, of all of them.
    pub fn seeded(&self) -> u64 {
        let union = |spans: &Vec<(u32, u32)>| {
            let (mut spans, mut until, mut sum) = (spans.clone(), 0, 0);
            spans.sort_unstable();
            for (from, to) in spans {
                sum += u64::from(to.saturating_sub(from.max(until)));
                until = until.max(to);
            }
            sum
        };
        self.seeded.values().map(union).sum()
    }

    /// Compares with what the database holds of the users that are still there; with `whole` also what depends
    /// on how often and when each announce came.
    pub fn compare(&self, database: &Database, whole: bool) -> Verdict {
        let (mut verdict, mut sessions) = (Verdict::default(), BTreeMap::new());
        let (mut totals, mut users, mut snatches) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for ((torrent, user, peer_id), session) in &self.sessions {
            let moved = session.lives.credit;
            let credited = each(moved, factors(*torrent), |bytes, percent| bytes * percent / 100);
            let [open, snatched] = [session.lives.open, session.snatched].map(u64::from);
            let mut row = [moved, credited].concat();
            row.extend([open, session.left, snatched, session.announced]);
            let total = totals.entry(format!("{torrent} {user}")).or_insert(vec![0; 7]);
            (0..4).for_each(|i| total[i] += row[i]);
            (total[4], total[5]) = (total[4] | open, total[5] | snatched);
            total[6] += session.announced;
            let sums = users.entry(user.to_string()).or_insert(vec![0, 0]);
            (0..2).for_each(|i| sums[i] += credited[i]);
            row.truncate(if whole { 8 } else { 7 });
            sessions.insert(format!("{torrent} {user} {}", hex(peer_id)), row);
        }
        for (key, total) in &mut totals {
            let torrent = key.split(' ').next().unwrap().to_string();
            snatches.entry(torrent).or_insert(vec![0])[0] += total[5];
            total.truncate(if whole { 7 } else { 6 });
        }
        let there: BTreeSet<String> = database.sql("SELECT id FROM users").concat().into_iter().collect();
        users.retain(|user, _| there.contains(user));
        let from = "users WHERE uploaded + downloaded > 0 OR id IN (SELECT user_id FROM totals)";
        verdict.table(database, "id", "uploaded, downloaded", from, users);
        let from = "files WHERE id IN (SELECT file_id FROM totals)";
        verdict.table(database, "id", "completed", from, snatches);
        let sums = "uploaded, downloaded, credited_uploaded, credited_downloaded, active";
        let more = if whole { ", announced" } else { "" };
        let columns = format!("{sums}, `left`, completed{more}");
        verdict.table(database, "file_id, user_id, lower(hex(peer_id))", &columns, "peers", sessions);
        let columns = format!("{sums}, completed{more}");
        verdict.table(database, "file_id, user_id", &columns, "files_users", totals);
        verdict
    }
}

/// What a comparison has found.
#[derive(Debug, Default)]
pub struct Verdict {
    pub rows: usize,
    /// By how many bytes the database is off, in all its rows.
    pub bytes: u64,
    /// What is wrong, in words.
    pub wrong: Vec<String>,
}

impl Verdict {
    /// Compares columns of a table, by key.
    fn table(
        &mut self,
        database: &Database,
        key: &str,
        columns: &str,
        from: &str,
        expected: BTreeMap<String, Vec<u64>>,
    ) {
        let split = key.split(", ").count();
        let rows = database.sql(&format!("SELECT {key}, {columns} FROM {from}"));
        let held = rows.iter().map(|row| {
            let numbers = row[split..].iter().map(|text| text.parse().unwrap());
            (row[..split].join(" "), numbers.collect())
        });
        let mut held: BTreeMap<String, Vec<u64>> = held.collect();
        let nothing = Vec::new();
        for (key, must) in &expected {
            self.rows += 1;
            let is = held.remove(key).unwrap_or_default();
            if is != *must {
                self.differ(from, columns, key, &is, must);
            }
        }
        for (key, is) in &held {
            self.differ(from, columns, key, is, &nothing);
        }
    }

    fn differ(&mut self, table: &str, columns: &str, key: &str, is: &[u64], must: &[u64]) {
        let bytes = |row: &[u64], at: usize| row.get(at).copied().unwrap_or_default();
        self.bytes += (0..2).map(|at| bytes(is, at).abs_diff(bytes(must, at))).sum::<u64>();
        self.wrong.push(format!("{table} {key} is {is:?}, must be {must:?} ({columns})"));
    }

    /// Fails the test if anything is wrong.
    pub fn demand(&self, what: &str) {
        let some = &self.wrong[..self.wrong.len().min(10)];
        assert!(
            self.wrong.is_empty(),
            "{what}: {} rows are wrong, by {} bytes: {some:#?}",
            self.wrong.len(),
            self.bytes
        );
    }
}

// ---- Clients --------------------------------------------------------------------------------------------------

/// How a client counts, and over which ways it announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One counter, told over several paths; it goes on when the torrent is paused and resumed.
    OneCounter,
    /// A counter for each of two URLs, over one path; all are 0 again when the torrent is resumed (Transmission).
    TwoUrls,
    /// The same, where the URLs are HTTP and UDP.
    TwoUrlsTwoPaths,
    /// One counter, told over IPv4 and IPv6, that is 0 again when the torrent is resumed (libtorrent).
    FromZero,
    /// The same over one path.
    OnePath,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::OneCounter, Kind::TwoUrls, Kind::TwoUrlsTwoPaths, Kind::FromZero, Kind::OnePath];

    /// The most seconds that an announce may take on its way for nothing to be missing but lives in doubt.
    pub fn patience(self) -> u64 {
        match self {
            Kind::OneCounter | Kind::OnePath => 600,
            Kind::TwoUrls | Kind::TwoUrlsTwoPaths | Kind::FromZero => 30,
        }
    }
}

/// How a history is made.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub kind: Kind,
    /// The most milliseconds that an announce takes.
    pub delay: u64,
    /// An announce that overtakes none on its path is delayed once more: delays add up without bound.
    pub queued: bool,
    /// A life lasts until all URLs have announced in it: what is shorter than the delays themselves nobody can tell.
    pub whole_lives: bool,
    /// The most bytes between two announces.
    pub most: u64,
    /// Lost answers: announces come twice or thrice, and the last life may end without a word.
    pub rough: bool,
    /// The fewest milliseconds from the end of a life to the next.
    pub apart: u64,
}

impl Way {
    /// A client whose announces all arrive at once, and whose lives are whole.
    pub const PLAIN: Way =
        Way { kind: Kind::OneCounter, delay: 0, queued: false, whole_lives: true, most: 1000, rough: false, apart: 0 };
}

/// What a client moved under one peer id, and its announces in the order of arrival, in milliseconds.
pub struct History {
    /// Until its last announce.
    pub moved: Bytes,
    /// What a counter said of it that was not begun anew meanwhile.
    pub told: Bytes,
    pub said: Vec<(u64, Said)>,
    pub end: u64,
}

/// One path or URL that a client announces over.
#[derive(Clone, Debug)]
struct Teller {
    ip: IpAddr,
    udp: bool,
    /// What had moved when its counters began, and when its last announce arrives.
    base: Bytes,
    free: u64,
}

/// A client of a member on a torrent.
#[derive(Clone, Debug)]
pub struct Client {
    pub user: u32,
    pub torrent: u32,
    pub port: u16,
    pub left: u64,
    /// Its last peer id.
    born: u64,
}

impl Client {
    pub fn new(user: u32, torrent: u32, number: usize, left: u64) -> Client {
        Client { user, torrent, port: 10_000 + (number % 50_000) as u16, left, born: (number as u64) << 32 }
    }

    fn tellers(&self, kind: Kind, random: &mut Random) -> Vec<Teller> {
        let ([a, b], place) = ((self.user as u16).to_be_bytes(), random.below(3) as u8);
        let v4 = IpAddr::from([10, a, b, place]);
        let v6 = IpAddr::from([0x20, 1, 0xd, 0xb8, a, b, 0, place, 0, 0, 0, 0, 0, 0, 0, 1]);
        let ways: &[(IpAddr, bool)] = match (kind, random.below(3)) {
            (Kind::OneCounter, 0) => &[(v4, false), (v6, false)],
            (Kind::OneCounter, 1) => &[(v4, true), (v4, false)],
            (Kind::OneCounter, _) => &[(v6, true), (v4, false), (v6, false)],
            (Kind::TwoUrls, _) => &[(v4, false), (v4, false)],
            (Kind::TwoUrlsTwoPaths, _) => &[(v4, false), (v4, true)],
            (Kind::FromZero, _) => &[(v4, false), (v6, false)],
            (Kind::OnePath, _) => &[(v4, false)],
        };
        ways.iter().map(|(ip, udp)| Teller { ip: *ip, udp: *udp, base: [0, 0], free: 0 }).collect()
    }

    /// A few lives under a new peer id, from a time on. Lives and pauses are absurdly short, to provoke every order of
    /// arrival.
    pub fn history(&mut self, way: &Way, start: u64, random: &mut Random) -> History {
        self.born += 1;
        let mut peer_id = *b"-qB5020-............";
        peer_id[12..].copy_from_slice(&self.born.to_be_bytes());
        // Some say bytes that are no text.
        peer_id[8..12].copy_from_slice(&(random.bits() as u32).to_be_bytes());
        let tellers = self.tellers(way.kind, random);
        let (nothing, said) = ([0, 0], Vec::new());
        let mut life = Telling {
            client: self,
            way,
            peer_id,
            tellers,
            now: start,
            moved: nothing,
            until: nothing,
            told: nothing,
            said,
        };
        let lives = 1 + random.below(4);
        for n in 1..=lives {
            let killed = way.rough && n == lives && random.once_in(3);
            life.live(killed, random);
        }
        let Telling { until: moved, told, mut said, now: end, .. } = life;
        said.sort_by_key(|(arrival, _)| *arrival);
        History { moved, told, said, end }
    }
}

/// A history that is being made.
struct Telling<'a> {
    client: &'a mut Client,
    way: &'a Way,
    peer_id: [u8; 20],
    tellers: Vec<Teller>,
    now: u64,
    moved: Bytes,
    /// What of it had moved at the last announce, and what was told of it.
    until: Bytes,
    told: Bytes,
    said: Vec<(u64, Said)>,
}

impl Telling<'_> {
    fn live(&mut self, killed: bool, random: &mut Random) {
        let two_urls = matches!(self.way.kind, Kind::TwoUrls | Kind::TwoUrlsTwoPaths);
        for teller in 0..self.tellers.len() {
            if self.way.kind != Kind::OneCounter {
                self.tellers[teller].base = self.moved;
            }
            self.tell(teller, "started", random);
        }
        let whole = self.way.whole_lives;
        let regular = if whole { 1 + random.below(5) } else { random.below(6) };
        let mut new = true;
        for n in 0..regular {
            let pauses = [2, 30, 300, 900, 1700].map(|seconds| seconds * 1000);
            let least = if whole && new { self.way.delay } else { 0 };
            let long: Vec<u64> = pauses.into_iter().filter(|pause| *pause >= least).collect();
            let pause = if long.is_empty() { least } else { random.one_of(&long) };
            let completes = self.go(pause, true, random);
            new = two_urls && n == 2 && (!whole || regular > 3) && random.once_in(2);
            if new {
                // The second URL is taken out and added again.
                self.tellers[1].base = self.moved;
                self.tell(1, "started", random);
            }
            // Some clients say only when they stop that they have everything.
            let event = if completes && !random.once_in(4) { "completed" } else { "" };
            for teller in 0..self.tellers.len() {
                if !random.once_in(10) {
                    self.tell(teller, event, random);
                }
            }
        }
        if !killed {
            let pause = random.one_of(&[500, 2_000, 30_000]);
            self.go(pause, false, random);
            (0..self.tellers.len()).for_each(|teller| self.tell(teller, "stopped", random));
        }
        let pause = 1000 * random.one_of(&[1, 5, 30, 300, 700, 5_000, 100_000]);
        self.now += pause.max(self.way.apart);
    }

    /// Moves bytes for a while. Returns whether the download is complete with that.
    fn go(&mut self, milliseconds: u64, down: bool, random: &mut Random) -> bool {
        self.now += milliseconds;
        let (most, left) = (self.way.most, self.client.left);
        let down = if down { random.below(most).min(left) } else { 0 };
        self.moved = plus(self.moved, [random.below(most), down]);
        self.client.left -= down;
        down > 0 && self.client.left == 0
    }

    fn tell(&mut self, teller: usize, event: &'static str, random: &mut Random) {
        let whole = self.tellers[teller].base == self.tellers[0].base;
        let Telling { client, way, peer_id, tellers, now, moved, .. } = self;
        let teller = &mut tellers[teller];
        let delay = (random.below(1 << 20) * way.delay) >> 20;
        teller.free = if way.queued { teller.free.max(*now) + delay } else { teller.free.max(*now + delay) };
        let [uploaded, downloaded] = above(*moved, teller.base);
        let said = Said {
            user: client.user,
            torrent: client.torrent,
            peer_id: *peer_id,
            ip: teller.ip,
            port: client.port,
            udp: teller.udp,
            uploaded,
            downloaded,
            left: client.left,
            event,
        };
        let times = if way.rough && random.once_in(20) { 1 + random.below(2) } else { 0 };
        (0..=times).for_each(|_| self.said.push((teller.free, said.clone())));
        self.until = self.moved;
        if whole {
            self.told = self.moved;
        }
    }
}

/// Clients that announce to a goat whose clock nobody can turn: in order, and nothing of what they say depends on the
/// time at which it comes.
#[derive(Clone, Debug)]
pub struct Clients {
    pub random: Random,
    clients: Vec<(Client, VecDeque<Said>, Option<Said>)>,
}

impl Clients {
    /// `count` clients of the users in the range, on torrents 1 to `torrents`.
    pub fn new(seed: u64, count: usize, users: std::ops::Range<u32>, torrents: u32) -> Clients {
        let (mut random, first) = (Random(seed), users.start as usize * 1_000);
        let users: Vec<u32> = users.collect();
        let client = |n: usize| {
            let (user, torrent) = (users[n % users.len()], 1 + random.below(torrents.into()) as u32);
            let left = random.one_of(&[0, 1 << 30, 1 << 34]);
            (Client::new(user, torrent, first + n, left), VecDeque::new(), None)
        };
        Clients { clients: (0..count).map(client).collect(), random }
    }

    /// What one of them says next: one announce, or the same several times where answers are lost.
    pub fn next(&mut self) -> Vec<Said> {
        let at = self.random.below(self.clients.len() as u64) as usize;
        let (client, queue, last) = &mut self.clients[at];
        if queue.is_empty() {
            let way = Way { most: 1 << 32, rough: true, ..Way::PLAIN };
            queue.extend(client.history(&way, 0, &mut self.random).said.into_iter().map(|(_, said)| said));
        }
        let said = queue.pop_front().into_iter().collect::<Vec<_>>();
        *last = said.last().filter(|said| said.event != "stopped").cloned();
        said
    }

    /// All that run say once more where they are.
    pub fn once_more(&mut self) -> Vec<Said> {
        let running = self.clients.iter().filter_map(|(.., last)| last.clone());
        running.map(|last| Said { event: "", ..last }).collect()
    }
}
