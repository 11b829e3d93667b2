//! What the tests of the rules share: a tracker without sockets, in two sizes.
//!
//! `World` is the rules alone: no database, and a clock that the test sets. `Site` is a tracker on
//! SQLite that is asked as HTTP asks it, and read with the tests' own bencode reader.
#![allow(dead_code)] // every test binary uses its own part of this

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Cursor;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use goat::config::Config;
use goat::keeper::Writer;
use goat::net::http::{self, Answer, Scratch};
use goat::net::message::Request;
use goat::protocol::{Announce, Event, Peers, Refusal, Reply, Scrape, Want};
use goat::random::Rng;
use goat::rules::access::{Access, User};
use goat::rules::announce::{self, Admitted, Buffers, Visitor};
use goat::rules::swarm::Swarms;
use goat::store::{NewUser, Torrent};
use goat::torrent::{InfoHash, PeerId};
use goat::tracker::Tracker;
use goat::web::PAGES;
use proptest::prelude::{ProptestConfig, Strategy};
use proptest::test_runner::{RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use serde_json::{Value, json};

use crate::common::{Bencode, Database, Folder, escape};

pub const ALICE: u32 = 1;
pub const BOB: u32 = 2;
/// Any time will do.
pub const NOW: u32 = 1_800_000_000;
/// The default `Interval`.
pub const INTERVAL: u32 = 3600;

/// The `n`th torrent.
pub fn hash(n: u32) -> InfoHash {
    let mut bytes = [0xa5; 20];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    InfoHash(bytes)
}

/// The `n`th torrent as a row of `files`, verified.
pub fn file(n: u32) -> Torrent {
    let name = String::new();
    Torrent {
        id: n,
        info_hash: hash(n),
        name,
        size: 0,
        verified: true,
        completed: 0,
        upload_percent: 100,
        download_percent: 100,
        ..Torrent::default()
    }
}

/// The `n`th client, which comes to the first torrent as a leecher from an address of its own.
pub fn client(n: u16) -> Announce {
    let [high, low] = n.to_be_bytes();
    let mut peer_id = *b"-qB4670-............";
    peer_id[18..].copy_from_slice(&[high, low]);
    Announce {
        info_hash: hash(1),
        peer_id: PeerId(peer_id),
        ip: Ipv4Addr::new(10, 1, high, low).into(),
        port: 6881,
        uploaded: 0,
        downloaded: 0,
        left: 1,
        event: Event::Started,
        udp: false,
        want: Want { count: 50, v4: true, v6: true, list: false },
    }
}

/// What else a client may say: `client(1).on(2).seeding().stopped()`.
pub trait Say: Sized {
    fn change(self, change: impl FnOnce(&mut Announce)) -> Self;

    fn says(self, event: Event) -> Self {
        self.change(|a| a.event = event)
    }

    /// Without an event.
    fn regular(self) -> Self {
        self.says(Event::None)
    }

    fn stopped(self) -> Self {
        self.says(Event::Stopped)
    }

    fn completed(self) -> Self {
        self.says(Event::Completed)
    }

    fn paused(self) -> Self {
        self.says(Event::Paused)
    }

    /// On another torrent than the first.
    fn on(self, torrent: u32) -> Self {
        self.change(|a| a.info_hash = hash(torrent))
    }

    fn left(self, bytes: u64) -> Self {
        self.change(|a| a.left = bytes)
    }

    fn seeding(self) -> Self {
        self.left(0)
    }

    fn moved(self, uploaded: u64, downloaded: u64) -> Self {
        self.change(|a| (a.uploaded, a.downloaded) = (uploaded, downloaded))
    }

    fn at(self, ip: IpAddr) -> Self {
        self.change(|a| a.ip = ip)
    }

    /// From the client's IPv6 address.
    fn over_v6(self) -> Self {
        self.change(|a| {
            let IpAddr::V4(ip) = a.ip else { panic!("{a:?} is there already") };
            let [.., high, low] = ip.octets();
            a.ip = Ipv6Addr::from([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, low]).into();
        })
    }
}

impl Say for Announce {
    fn change(mut self, change: impl FnOnce(&mut Announce)) -> Announce {
        change(&mut self);
        self
    }
}

/// Where a client can be reached.
pub fn address(a: &Announce) -> SocketAddr {
    (a.ip, a.port).into()
}

pub fn sorted(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut sorted: Vec<SocketAddr> = addresses.into_iter().collect();
    sorted.sort();
    sorted
}

/// A configuration: the defaults, with `settings` instead of some.
pub fn config(file: &Path, settings: &Value) -> Config {
    let mut keys = json!({ "DB": { "Driver": "sqlite" } });
    for (key, value) in settings.as_object().unwrap() {
        keys[key] = value.clone();
    }
    goat::config::parse(file, &keys.to_string()).unwrap()
}

/// Tries a property on so many values, the same each time.
pub fn check<S: Strategy>(cases: u32, values: S, property: impl Fn(S::Value) -> TestCaseResult) {
    let config = ProptestConfig::with_cases(cases);
    let config = ProptestConfig { failure_persistence: None, ..config };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config, rng).run(&values, property).unwrap();
}

// ---------------------------------------------------------------------------------------------------

/// Two members, Alice and Bob, one verified torrent, and no database.
pub struct World {
    pub config: Config,
    pub access: Access,
    pub swarms: Swarms,
    pub now: Cell<u32>,
    pub buffers: RefCell<Buffers>,
}

impl World {
    pub fn new(settings: Value) -> World {
        let config = config("goat.json".as_ref(), &settings);
        let (access, swarms) = (Access::default(), Swarms::default());
        let (now, buffers) = (Cell::new(NOW), RefCell::new(Buffers::new(Rng::new(1))));
        let world = World { config, access, swarms, now, buffers };
        world.put_user(ALICE, "alice", 0);
        world.put_user(BOB, "bob", 0);
        world.put_torrent(1, true);
        world
    }

    /// Alice may be on so many torrents; there are three.
    pub fn limited(torrent_limit: u32) -> World {
        let world = World::new(json!({}));
        world.put_user(ALICE, "alice", torrent_limit);
        (2..=3).for_each(|n| world.put_torrent(n, true));
        world
    }

    pub fn put_user(&self, id: u32, passkey: &str, torrent_limit: u32) {
        self.access.put_user(User::new(id, passkey, torrent_limit, false));
    }

    pub fn put_torrent(&self, n: u32, verified: bool) {
        let mut shard = self.swarms.shard(&hash(n));
        let torrent = shard.torrents.entry(hash(n)).or_default();
        (torrent.id, torrent.verified) = (n, verified);
    }

    pub fn approve(&self, prefixes: &[&[u8]]) {
        self.access.set_clients(prefixes.iter().map(|prefix| (*prefix).into()).collect());
    }

    pub fn wait(&self, seconds: u32) {
        self.now.set(self.now.get() + seconds);
    }

    /// Lets the silent go.
    pub fn expire(&self) {
        for mut shard in self.swarms.each() {
            announce::expire(&self.config, &self.access, &mut shard, self.now.get(), &mut Vec::new());
        }
    }

    /// Lets a user go.
    pub fn drop_user(&self, user: u32) {
        for mut shard in self.swarms.each() {
            announce::drop_users(&self.access, &mut shard, &[user].into(), self.now.get(), &mut Vec::new());
        }
    }

    /// The id of who is let in.
    pub fn admit<'a>(
        &self,
        agent: impl Into<Option<&'a str>>,
        peer_id: impl Into<Option<&'a [u8; 20]>>,
        passkey: impl Into<Option<&'a str>>,
    ) -> Result<u32, Refusal> {
        let agent = agent.into().map(str::as_bytes);
        let peer_id = peer_id.into().map(|id| &id[..]);
        let visitor = Visitor { agent, peer_id, passkey: passkey.into(), stopping: false };
        let who = announce::admit(&self.config, &self.access, &visitor)?;
        Ok(who.user.id)
    }

    /// What a user's client is told, and which peers it is sent.
    pub fn announce(&self, user: u32, a: Announce) -> Result<(Reply, Vec<SocketAddr>), Refusal> {
        let user = self.access.by_id(user).unwrap_or_else(|| self.access.anonymous());
        let refusal = user.banned().then_some(Refusal::Banned);
        let who = Admitted { user, refusal };
        let mut buffers = self.buffers.borrow_mut();
        let (config, swarms, now) = (&self.config, &self.swarms, self.now.get());
        let reply = announce::announce(config, swarms, &who, &a, now, &mut buffers)?;
        Ok((reply, addresses(std::mem::take(&mut buffers.peers))))
    }

    pub fn reply(&self, user: u32, a: Announce) -> Reply {
        self.announce(user, a).unwrap().0
    }

    pub fn peers(&self, user: u32, a: Announce) -> Vec<SocketAddr> {
        self.announce(user, a).unwrap().1
    }

    /// Why an announce is refused, in words; "" if it is not.
    pub fn refusal(&self, user: u32, a: Announce) -> String {
        self.announce(user, a).map_or_else(|refusal| refusal.to_string(), |_| String::new())
    }

    pub fn scrape(&self, torrent: u32) -> Option<Scrape> {
        announce::scrape(&self.config, &self.swarms, &hash(torrent))
    }

    /// Seeders, leechers, and those of the latter that are not partial seeds.
    pub fn counts(&self, torrent: u32) -> (usize, usize, usize) {
        let scrape = self.scrape(torrent).unwrap();
        (scrape.complete, scrape.incomplete, scrape.downloaders)
    }

    /// Torrents that a user is active on.
    pub fn active(&self, user: u32) -> u32 {
        self.access.by_id(user).unwrap().active()
    }

    /// The sessions of a torrent, in words.
    pub fn members(&self, torrent: u32) -> Vec<String> {
        let shard = self.swarms.shard(&hash(torrent));
        let Some(swarm) = &shard.torrents[&hash(torrent)].swarm else {
            return Vec::new();
        };
        let mut members: Vec<String> = swarm.iter().map(|member| format!("{member:?}")).collect();
        members.sort();
        members
    }

    /// How many rows the database does not have.
    pub fn unwritten(&self) -> usize {
        self.swarms.each().map(|shard| shard.ledger.waiting()).sum()
    }
}

/// Compact peers as addresses, sorted.
pub fn addresses(peers: Peers) -> Vec<SocketAddr> {
    let lists = [("peers", peers.v4), ("peers6", peers.v6)];
    let lists = lists.map(|(key, list)| (key.into(), Bencode::Bytes(list)));
    Bencode::Dictionary(BTreeMap::from(lists)).peers()
}

// ---------------------------------------------------------------------------------------------------

/// A client that goat's own list lets in.
pub const AGENT: &str = "qBittorrent/4.6.7";
pub const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub const HOME6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
pub const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
/// What an announce must say, in the order in which it is missed.
pub const REQUIRED: [&str; 6] = ["info_hash", "peer_id", "port", "uploaded", "downloaded", "left"];

/// The parameters of a request, encoded.
#[derive(Clone)]
pub struct Query(pub Vec<(&'static str, String)>);

impl Query {
    /// The `n`th client's first words. Its port is 10,000 + `n`.
    pub fn new(n: u16) -> Query {
        let hash = escape(&hash(1).0);
        let query = Query(Vec::new()).set("info_hash", hash).set("peer_id", peer_id(n));
        let query = query.set("port", 10_000 + n).set("uploaded", 0).set("downloaded", 0);
        query.set("left", 1).set("event", "started")
    }

    pub fn scrape(hashes: &[InfoHash]) -> Query {
        Query(hashes.iter().map(|hash| ("info_hash", escape(&hash.0))).collect())
    }

    /// Says something else, or something more.
    pub fn set(mut self, name: &'static str, value: impl Display) -> Query {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value.to_string(),
            None => self.0.push((name, value.to_string())),
        }
        self
    }

    /// Says something more, though it was said already.
    pub fn and(mut self, name: &'static str, value: impl Display) -> Query {
        self.0.push((name, value.to_string()));
        self
    }

    pub fn without(mut self, name: &str) -> Query {
        self.0.retain(|(known, _)| *known != name);
        self
    }

    pub fn on(self, torrent: u32) -> Query {
        self.set("info_hash", escape(&hash(torrent).0))
    }

    /// The target of the request.
    pub fn to(&self, path: &str) -> String {
        let pairs = self.0.iter().map(|(name, value)| format!("{name}={value}"));
        format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
    }
}

/// The `n`th client's, encoded.
pub fn peer_id(n: u16) -> String {
    escape(&client(n).peer_id.0)
}

/// A tracker with one member, Alice, and one verified torrent.
pub struct Site {
    pub tracker: Tracker,
    pub alice: NewUser,
    pub database: Database,
    scratch: RefCell<Scratch>,
    folder: Folder,
    settings: Value,
}

impl Site {
    pub fn new(mut settings: Value) -> Site {
        let (folder, database) = (Folder::new(), Database::sqlite());
        settings["DB"] = database.config();
        // Without it every path is the tracker's.
        settings["API"] = false.into();
        let tracker = Tracker::load(config(&folder.join("config.json"), &settings)).unwrap();
        tracker.put_torrent(&tracker.store.add_file(&hash(1), None, "", 0).unwrap());
        let alice = add_user(&tracker, "alice", 0);
        Site { tracker, alice, database, scratch: RefCell::default(), folder, settings }
    }

    pub fn add_user(&self, name: &str, torrent_limit: u32) -> NewUser {
        add_user(&self.tracker, name, torrent_limit)
    }

    /// A user whom only memory knows.
    pub fn ban(&self, passkey: &str) {
        self.tracker.access.put_user(User::new(9999, passkey, 0, true));
    }

    /// So many leechers come to the first torrent, each another member's.
    pub fn fill(&self, count: u16) {
        let Tracker { config, swarms, clock, .. } = &self.tracker;
        let (mut buffers, now) = (Buffers::new(Rng::new(1)), clock.now());
        for n in 1..=count {
            let user = User::new(1000 + u32::from(n), "", 0, false);
            let a = client(n);
            let (user, refusal) = (user.into(), None);
            let who = Admitted { user, refusal };
            announce::announce(config, swarms, &who, &a, now, &mut buffers).unwrap();
        }
    }

    /// The whole answer, and how many turns it took of threads that may ask the database.
    pub fn answer(&self, request: &Request) -> (Vec<u8>, usize) {
        let (mut scratch, mut out) = (self.scratch.borrow_mut(), Vec::new());
        let mut answer = |wait, out: &mut Vec<u8>| {
            let tracker = &self.tracker;
            http::answer(tracker, &PAGES, request, wait, &mut scratch, out) == Answer::Slow
        };
        let mut turns = 0;
        let page = (PAGES.serves)(&self.tracker, request.target);
        while answer(turns > 0 && !page, &mut out) {
            assert!(out.is_empty(), "what is not answered yet is not begun");
            turns += 1;
            if page {
                (PAGES.answer)(&self.tracker, request, &mut Cursor::new(&mut out)).unwrap();
                break;
            }
        }
        self.tracker.journal.write(&mut scratch.buffers.records);
        (out, turns)
    }

    /// The same, of a request with these headers from this address.
    pub fn respond(&self, target: &str, headers: &[(&str, &str)], peer: IpAddr) -> (Vec<u8>, usize) {
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        let headers: Vec<_> = headers.map(|(name, value)| httparse::Header { name, value }).collect();
        let headers = &headers;
        self.answer(&Request {
            method: "GET",
            target,
            headers,
            peer,
            keep_alive: true,
            old: false,
            secure: false,
            length: 0,
            begun: b"",
        })
    }

    /// What a request is answered, read.
    pub fn ask(&self, target: &str, headers: &[(&str, &str)], peer: IpAddr) -> Bencode {
        body(&self.respond(target, headers, peer).0)
    }

    /// The same, of an ordinary client's request.
    pub fn get(&self, target: &str) -> Bencode {
        self.get_from(HOME, target)
    }

    pub fn get_from(&self, peer: IpAddr, target: &str) -> Bencode {
        self.ask(target, &[("User-Agent", AGENT)], peer)
    }

    /// Alice's path.
    pub fn path(&self, last: &str) -> String {
        format!("/{}/{last}", self.alice.passkey)
    }

    /// What Alice's client is told.
    pub fn announce(&self, query: Query) -> Bencode {
        self.announce_from(HOME, query)
    }

    pub fn announce_from(&self, peer: IpAddr, query: Query) -> Bencode {
        self.get_from(peer, &query.to(&self.path("announce")))
    }

    /// What another user's client is told.
    pub fn announce_of(&self, user: &NewUser, query: Query) -> Bencode {
        self.get(&query.to(&format!("/{}/announce", user.passkey)))
    }

    /// Why Alice's announce is refused; "" if it is not.
    pub fn refusal(&self, query: Query) -> String {
        reason(&self.announce(query)).to_string()
    }

    pub fn scrape(&self, hashes: &[InfoHash]) -> Bencode {
        self.get(&Query::scrape(hashes).to(&self.path("scrape")))
    }

    /// Writes the books.
    pub fn save(&self) {
        let now = self.tracker.clock.now();
        Writer::new(now).write(&self.tracker, now, |_| false).unwrap();
    }

    /// Writes the books, ends, and starts anew from the database.
    pub fn restart(self) -> Site {
        self.save();
        let Site { tracker, alice, database, scratch, folder, settings } = self;
        drop(tracker);
        let tracker = Tracker::load(config(&folder.join("config.json"), &settings)).unwrap();
        Site { tracker, alice, database, scratch, folder, settings }
    }
}

/// A user whom the database knows, and memory.
fn add_user(tracker: &Tracker, name: &str, torrent_limit: u32) -> NewUser {
    let user = tracker.store.add_user(name, torrent_limit, false).unwrap();
    tracker.access.put_user(User::new(user.id, &user.passkey, torrent_limit, false));
    user
}

/// The body of an answer: one bencoded dictionary, with status 200 and its length.
pub fn body(answer: &[u8]) -> Bencode {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("an end of the head");
    let (head, body) = answer.split_at(end);
    let mut lines = std::str::from_utf8(head).unwrap().split("\r\n");
    assert_eq!(lines.next(), Some("HTTP/1.1 200 OK"));
    let length: Vec<&str> = lines.filter_map(|l| l.strip_prefix("Content-Length: ")).collect();
    assert_eq!(length, [(body.len() - 4).to_string()]);
    let body = Bencode::parse(&body[4..]);
    assert!(matches!(body, Bencode::Dictionary(_)), "{body:?}");
    body
}

/// Why it is a refusal; "" if it is none.
pub fn reason(answer: &Bencode) -> &str {
    answer.get("failure reason").map_or("", |_| answer.text("failure reason"))
}

/// Minutes, or "never".
pub fn retry_in(answer: &Bencode) -> String {
    match answer.get("retry in") {
        Some(Bencode::Integer(minutes)) => minutes.to_string(),
        _ => answer.text("retry in").to_string(),
    }
}

/// The peers of an answer to `compact=0`, by address.
pub fn list(answer: &Bencode) -> Vec<Bencode> {
    let Some(Bencode::List(peers)) = answer.get("peers") else { panic!("no list in {answer:?}") };
    let mut peers = peers.clone();
    peers.sort_by_key(|peer| (peer.text("ip").to_string(), peer.integer("port")));
    peers
}

/// What a scrape says, by hash.
pub fn files(answer: &Bencode) -> BTreeMap<Vec<u8>, Bencode> {
    match answer.get("files") {
        Some(Bencode::Dictionary(files)) => files.clone(),
        _ => panic!("no files in {answer:?}"),
    }
}

/// The address under "external ip".
pub fn external_ip(answer: &Bencode) -> IpAddr {
    let bytes = answer.bytes("external ip");
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.unwrap_or_else(|_| <[u8; 16]>::try_from(bytes).expect("4 or 16 bytes").into())
}
