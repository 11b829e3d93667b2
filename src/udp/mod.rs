//! UDP (BEP 15) with passkeys (BEP 41): datagrams become plain data, replies become datagrams, on one
//! thread of its own, which takes from the kernel as many as wait and gives it their answers at once. Packets
//! are read and written by functions that know neither sockets nor clocks.

pub mod connection_id;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::auth::derived_key;
use crate::metrics::{self, Asked, Transport};
use crate::net::jobs::Kind;
use crate::net::pool::Pool;
use crate::protocol::{
    Announce, Event, MAX_PEERS, MAX_SCRAPE, Peers, Refusal, Reply, Scrape, Want, peers_wanted, take,
};
use crate::random::Rng;
use crate::rules::announce::{Buffers, Visitor, admit, announce, scrape};
use crate::rules::limits::{sharer, site};
use crate::serve::{Call, serve};
use crate::sync::lock;
use crate::sys::{BATCH, Datagram, receive, send_all};
use crate::torrent::{InfoHash, PeerId};
use crate::tracker::Tracker;
use crate::udp::connection_id::ConnectionIds;

const PROTOCOL_ID: u64 = 0x417_2710_1980;
const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;
/// The most peers of an IPv6 answer: 1,400 bytes with its headers fit the packets of nearly every network.
const MAX_PEERS6: usize = 74;
/// How often it is looked whether this is the end.
const LOOK_UP: Duration = Duration::from_millis(400);
/// The most sites whose scrapes are answered while passkeys are asked for.
const MAX_SCRAPERS: usize = 1 << 17;

#[derive(Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// From the answer to a connect; what begins a connect itself.
    pub connection: u64,
    pub transaction: u32,
    pub action: Action<'a>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Action<'a> {
    Connect,
    /// An announce, and what follows it: options (BEP 41).
    Announce(Announce, &'a [u8]),
    /// Counts of these torrents, 20 bytes each.
    Scrape(&'a [[u8; 20]]),
}

fn take_u32(data: &mut &[u8]) -> Option<u32> {
    take(data).map(u32::from_be_bytes)
}

fn take_u64(data: &mut &[u8]) -> Option<u64> {
    take(data).map(u64::from_be_bytes)
}

/// Reads a datagram of an address. `None` for whatever is no request: it is not answered.
pub fn read(mut data: &[u8], ip: IpAddr) -> Option<Packet<'_>> {
    let data = &mut data;
    let connection = take_u64(data)?;
    let action = take_u32(data)?;
    let transaction = take_u32(data)?;
    let action = match action {
        CONNECT if connection == PROTOCOL_ID => Action::Connect,
        ANNOUNCE => {
            let announce = announcement(data, ip)?;
            Action::Announce(announce, data)
        }
        SCRAPE => {
            // Bytes after the last whole hash are for extensions to come: "clients and trackers should not
            // assume packets to be of a certain size".
            let hashes = data.as_chunks().0;
            let hashes = hashes.get(..MAX_SCRAPE).unwrap_or(hashes);
            (!hashes.is_empty()).then_some(Action::Scrape(hashes))?
        }
        _ => return None,
    };
    Some(Packet { connection, transaction, action })
}

/// Takes what an announce says behind its transaction, in the order of BEP 15.
fn announcement(data: &mut &[u8], ip: IpAddr) -> Option<Announce> {
    let (info_hash, peer_id) = (InfoHash(take(data)?), PeerId(take(data)?));
    let (downloaded, left, uploaded) = (take_u64(data)?, take_u64(data)?, take_u64(data)?);
    let event = match take_u32(data)? {
        1 => Event::Completed,
        2 => Event::Started,
        3 => Event::Stopped,
        _ => Event::None,
    };
    // The sender's address counts.
    let (_ip, _key) = (take_u32(data)?, take_u32(data)?);
    let numwant = take(data).map(i32::from_be_bytes)?;
    let port = take(data).map(u16::from_be_bytes)?;
    let (v4, most) = if ip.is_ipv4() { (true, MAX_PEERS) } else { (false, MAX_PEERS6) };
    let want = Want { count: peers_wanted(Some(numwant.into()), most), v4, v6: !v4, list: false };
    Some(Announce { info_hash, peer_id, ip, port, uploaded, downloaded, left, event, udp: true, want })
}

/// The path and query that the options carry (BEP 41), joined if they are split. What cannot be read ends
/// them; a URL longer than `url` has room for is none of the tracker's.
pub fn url_data<'a>(mut options: &[u8], url: &'a mut [u8; 512]) -> &'a [u8] {
    let mut len = 0;
    while let Some((&kind, rest)) = options.split_first() {
        options = rest;
        match kind {
            0 => break,
            1 => continue,
            _ => {}
        }
        let Some((&size, rest)) = options.split_first() else { break };
        let Some((value, rest)) = rest.split_at_checked(size.into()) else { break };
        options = rest;
        if kind == 2 {
            let Some(room) = url.get_mut(len..len + value.len()) else { break };
            room.copy_from_slice(value);
            len += value.len();
        }
    }
    url.get(..len).unwrap_or_default()
}

/// The passkey in the path of an announce URL, whose empty segments do not count.
fn passkey(url: &[u8]) -> Result<Option<&str>, Refusal> {
    let url = std::str::from_utf8(url).map_err(|_| Refusal::Malformed)?;
    let path = url.split_once('?').map_or(url, |(path, _)| path);
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    match (segments.next(), segments.next(), segments.next()) {
        (None | Some("announce"), None, _) => Ok(None),
        (passkey, Some("announce"), None) => Ok(passkey),
        _ => Err(Refusal::Malformed),
    }
}

fn head(out: &mut Vec<u8>, action: u32, transaction: u32) {
    out.clear();
    out.extend_from_slice(&action.to_be_bytes());
    out.extend_from_slice(&transaction.to_be_bytes());
}

pub fn write_connect(out: &mut Vec<u8>, transaction: u32, connection: u64) {
    head(out, CONNECT, transaction);
    out.extend_from_slice(&connection.to_be_bytes());
}

/// Writes the answer to an announce; only one of the kinds of peers is filled.
pub fn write_announce(out: &mut Vec<u8>, transaction: u32, reply: &Reply, peers: &Peers) {
    head(out, ANNOUNCE, transaction);
    out.extend_from_slice(&reply.interval.to_be_bytes());
    out.extend_from_slice(&(reply.incomplete as u32).to_be_bytes());
    out.extend_from_slice(&(reply.complete as u32).to_be_bytes());
    out.extend_from_slice(&peers.v4);
    out.extend_from_slice(&peers.v6);
}

/// Writes the answer to a scrape: unknown torrents are zero.
pub fn write_scrape(out: &mut Vec<u8>, transaction: u32, torrents: impl Iterator<Item = Scrape>) {
    head(out, SCRAPE, transaction);
    for counts in torrents {
        out.extend_from_slice(&(counts.complete as u32).to_be_bytes());
        out.extend_from_slice(&counts.downloaded.to_be_bytes());
        out.extend_from_slice(&(counts.incomplete as u32).to_be_bytes());
    }
}

pub fn write_error(out: &mut Vec<u8>, transaction: u32, message: &str) {
    head(out, ERROR, transaction);
    out.extend_from_slice(message.as_bytes());
}

#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Answer,
    Silence,
    Slow,
}

pub struct Responder {
    tracker: Arc<Tracker>,
    ids: Arc<ConnectionIds>,
    scrapers: Mutex<Scrapers>,
}

/// When somebody announced last, for scrapes: they carry no passkey. By [`site`], of which no member has many.
#[derive(Default)]
struct Scrapers {
    announced: HashMap<IpAddr, u32>,
    cleaned: u32,
}

impl Scrapers {
    fn remember(&mut self, ip: IpAddr, now: u32, interval: u32) {
        if now.saturating_sub(self.cleaned) > interval {
            self.cleaned = now;
            self.announced.retain(|_, announced| now.saturating_sub(*announced) <= interval);
            self.announced.shrink_to_fit();
        }
        if self.announced.len() < MAX_SCRAPERS || self.announced.contains_key(&site(ip)) {
            self.announced.insert(site(ip), now);
        }
    }

    fn may_scrape(&self, ip: IpAddr, now: u32, interval: u32) -> bool {
        self.announced.get(&site(ip)).is_some_and(|&at| now.saturating_sub(at) <= interval)
    }
}

impl Responder {
    pub fn new(tracker: Arc<Tracker>, ids: Arc<ConnectionIds>) -> Responder {
        Responder { tracker, ids, scrapers: Mutex::default() }
    }

    /// Answers a datagram from `ip` (never an IPv4-mapped address) into `out`. With `wait` it may ask the
    /// database.
    pub fn answer(&self, datagram: &[u8], ip: IpAddr, wait: bool, buffers: &mut Buffers, out: &mut Vec<u8>) -> Outcome {
        let start = Instant::now();
        let tracker = &*self.tracker;
        let Tracker { config, metrics, .. } = tracker;
        let now = tracker.clock.at(start);
        let Some(Packet { connection, transaction, action }) = read(datagram, ip) else {
            metrics.datagram(metrics::Datagram::Ignored);
            return Outcome::Silence;
        };
        if action != Action::Connect && !self.ids.check(connection, ip, now) {
            // Shorter than the shortest scrape: whoever it is sent to gets no more than was sent.
            write_error(out, transaction, "Invalid connection id");
            metrics.datagram(metrics::Datagram::InvalidId);
            return Outcome::Answer;
        }
        let (mut url, mut passkey) = ([0; 512], Ok(None));
        let mut call =
            Call { transport: Transport::Udp, asked: Asked::Scrape, from: ip, start, passkey: None, info_hash: None };
        let done = match &action {
            Action::Connect => {
                write_connect(out, transaction, self.ids.make(ip, now));
                metrics.datagram(metrics::Datagram::Connect);
                return Outcome::Answer;
            }
            Action::Announce(a, options) => {
                if config.passkey {
                    passkey = self::passkey(url_data(options, &mut url));
                }
                call.asked = Asked::Announce(a.event);
                call.passkey = passkey.unwrap_or(None);
                call.info_hash = Some(a.info_hash);
                serve(tracker, &call, wait, |now| self.announce(transaction, a, passkey?, now, buffers, out))
            }
            Action::Scrape(hashes) => serve(tracker, &call, wait, |now| {
                if config.passkey && !lock(&self.scrapers).may_scrape(ip, now, config.interval) {
                    return Err(Refusal::NoPasskey);
                }
                let counts = |hash: &[u8; 20]| scrape(config, &tracker.swarms, &InfoHash(*hash)).unwrap_or_default();
                write_scrape(out, transaction, hashes.iter().map(counts));
                Ok(())
            }),
        };
        let Some(done) = done else { return Outcome::Slow };
        if let Err(refusal) = &done {
            write_error(out, transaction, &tracker.access.words(refusal, call.passkey));
        }
        metrics.datagram(if done.is_ok() { metrics::Datagram::Answered } else { metrics::Datagram::Refused });
        Outcome::Answer
    }

    fn announce(
        &self,
        transaction: u32,
        a: &Announce,
        passkey: Option<&str>,
        now: u32,
        buffers: &mut Buffers,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let Tracker { config, access, swarms, .. } = &*self.tracker;
        let stopping = a.event == Event::Stopped;
        let who = admit(config, access, &Visitor { agent: None, peer_id: Some(&a.peer_id.0), passkey, stopping })?;
        let reply = announce(config, swarms, &who, a, now, buffers)?;
        write_announce(out, transaction, &reply, &buffers.peers);
        if config.passkey {
            lock(&self.scrapers).remember(a.ip, now, config.interval);
        }
        Ok(())
    }
}

struct Server {
    responder: Responder,
    socket: UdpSocket,
}

/// Starts the thread that serves `socket`, one of `pool`; what must wait for the database others of it do.
pub fn start(tracker: &Arc<Tracker>, pool: &Arc<Pool>, socket: UdpSocket) -> io::Result<()> {
    crate::sys::tune_udp(&socket)?;
    socket.set_read_timeout(Some(LOOK_UP))?;
    let ids = match &tracker.config.redis {
        None => ConnectionIds::new(),
        Some(_) => derived_key(&tracker.config, "UDP connection ids").map(|key| ConnectionIds::shared(&key)),
    };
    let responder = Responder::new(tracker.clone(), Arc::new(ids.map_err(io::Error::other)?));
    let (server, own) = (Arc::new(Server { responder, socket }), pool.clone());
    pool.start_thread("udp", move || server.run(&own))
}

impl Server {
    fn run(self: &Arc<Server>, pool: &Pool) {
        let tracker = &self.responder.tracker;
        let mut buffers = Buffers::new(Rng::from_system());
        let (mut asked, mut answers) = (vec![Datagram::empty(); BATCH], vec![Datagram::empty(); BATCH]);
        while !pool.is_stopping() {
            // An error is a timeout, or news of an earlier answer that could not be delivered: the next one.
            let Ok(received) = receive(&self.socket, &mut asked) else { continue };
            let mut answered = 0;
            for datagram in asked.iter_mut().take(received) {
                let Some(answer) = answers.get_mut(answered) else { break };
                answer.path = datagram.path;
                let ip = datagram.path.ip();
                match self.responder.answer(&datagram.bytes, ip, false, &mut buffers, &mut answer.bytes) {
                    Outcome::Answer => answered += 1,
                    Outcome::Slow => self.ask_database(pool, std::mem::replace(datagram, Datagram::empty())),
                    Outcome::Silence => {}
                }
            }
            tracker.journal.write(&mut buffers.records);
            send_all(&self.socket, answers.get_mut(..answered).unwrap_or_default());
        }
    }

    /// Has a thread that may wait answer a datagram, unless too many of its network wait already.
    fn ask_database(self: &Arc<Server>, pool: &Pool, datagram: Datagram) {
        let server = self.clone();
        let tracker = &self.responder.tracker;
        let ip = datagram.path.ip();
        let who = sharer(&tracker.config, ip);
        let Ok(permit) = tracker.limits.datagrams.acquire(who, 1) else {
            return tracker.metrics.datagram(metrics::Datagram::Dropped);
        };
        pool.submit(who, Kind::Datagram, move |pool, worker| {
            let buffers = &mut worker.scratch.buffers;
            let mut answer = Datagram { path: datagram.path, bytes: Vec::new() };
            match server.responder.answer(&datagram.bytes, ip, true, buffers, &mut answer.bytes) {
                Outcome::Answer => {
                    server.responder.tracker.journal.write(&mut buffers.records);
                    send_all(&server.socket, std::slice::from_mut(&mut answer));
                }
                Outcome::Slow => {
                    drop(permit);
                    server.ask_database(pool, datagram);
                }
                Outcome::Silence => {}
            }
        });
    }
}
