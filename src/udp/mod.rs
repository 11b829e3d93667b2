//! UDP (BEP 15) with passkeys (BEP 41): datagrams become plain data, replies become datagrams, on one
//! thread of its own, which takes from the kernel as many as wait and gives it their answers at once. Packets
//! are read and written by functions that know neither sockets nor clocks.

pub mod connection_id;

use std::collections::HashMap;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use crate::log::log;
use crate::metrics::{Asked, Fate, Transport};
use crate::protocol::{
    Announce, Event, MAX_PEERS, MAX_SCRAPE, Peers, Refusal, Reply, Scrape, Want, peers_wanted, take,
};
use crate::random::Rng;
use crate::rules::announce::{Buffers, Visitor, admit, announce, scrape};
use crate::sync::{join, lock};
use crate::sys::{BATCH, Datagram, receive, send_all};
use crate::torrent::{InfoHash, PeerId};
use crate::tracker::Tracker;
use crate::udp::connection_id::ConnectionIds;

/// What begins a connect request (BEP 15).
const PROTOCOL_ID: u64 = 0x417_2710_1980;
const CONNECT: u32 = 0;
const ANNOUNCE: u32 = 1;
const SCRAPE: u32 = 2;
const ERROR: u32 = 3;
/// The most peers of an IPv6 answer: 1,400 bytes with its headers fit the packets of nearly every network.
const MAX_PEERS6: usize = 74;
/// How often the thread looks whether it is to end.
const LOOK_UP: Duration = Duration::from_millis(500);
/// The most datagrams that wait for the database.
const MAX_WAITING: usize = 256;
/// The most addresses whose scrapes are answered while passkeys are asked for.
const MAX_SCRAPERS: usize = 1 << 20;

/// A request, as it came.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// From the answer to a connect; what begins a connect itself.
    pub connection: u64,
    /// Repeated in the answer.
    pub transaction: u32,
    /// What it asks for.
    pub action: Action<'a>,
}

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// A connection id.
    Connect,
    /// Peers.
    Announce(Fields<'a>),
    /// Counts of these torrents, 20 bytes each.
    Scrape(&'a [[u8; 20]]),
}

/// What an announce says. Its IP address is left out: the sender's counts.
#[derive(Debug, PartialEq, Eq)]
pub struct Fields<'a> {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The client's own id.
    pub peer_id: PeerId,
    /// Bytes.
    pub downloaded: u64,
    /// Bytes.
    pub left: u64,
    /// Bytes.
    pub uploaded: u64,
    /// 0 none, 1 completed, 2 started, 3 stopped.
    pub event: u32,
    /// How many peers; negative for the tracker's choice.
    pub numwant: i32,
    /// Where the client listens.
    pub port: u16,
    /// What follows the announce: options (BEP 41).
    pub options: &'a [u8],
}

impl Fields<'_> {
    fn event(&self) -> Event {
        match self.event {
            1 => Event::Completed,
            2 => Event::Started,
            3 => Event::Stopped,
            _ => Event::None,
        }
    }
}

fn take_u32(data: &mut &[u8]) -> Option<u32> {
    take(data).map(u32::from_be_bytes)
}

fn take_u64(data: &mut &[u8]) -> Option<u64> {
    take(data).map(u64::from_be_bytes)
}

/// Reads a datagram. `None` for whatever is no request: it is not answered.
pub fn read(mut data: &[u8]) -> Option<Packet<'_>> {
    let data = &mut data;
    let connection = take_u64(data)?;
    let (action, transaction) = (take_u32(data)?, take_u32(data)?);
    let action = match action {
        CONNECT if connection == PROTOCOL_ID => Action::Connect,
        ANNOUNCE => {
            let (info_hash, peer_id) = (InfoHash(take(data)?), PeerId(take(data)?));
            let (downloaded, left, uploaded) = (take_u64(data)?, take_u64(data)?, take_u64(data)?);
            let (event, _ip, _key) = (take_u32(data)?, take_u32(data)?, take_u32(data)?);
            let (numwant, port) = (take(data).map(i32::from_be_bytes)?, take(data).map(u16::from_be_bytes)?);
            Action::Announce(Fields {
                info_hash,
                peer_id,
                downloaded,
                left,
                uploaded,
                event,
                numwant,
                port,
                options: data,
            })
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

/// Writes the answer to a connect.
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

/// Writes an error.
pub fn write_error(out: &mut Vec<u8>, transaction: u32, message: &str) {
    head(out, ERROR, transaction);
    out.extend_from_slice(message.as_bytes());
}

/// What becomes of a datagram.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer was written.
    Answer,
    /// It gets none.
    Silence,
    /// The database must be asked first.
    Slow,
}

/// Answers datagrams, one after the other.
pub struct Responder {
    tracker: Arc<Tracker>,
    ids: Arc<ConnectionIds>,
    buffers: Buffers,
    scrapers: Arc<Mutex<Scrapers>>,
}

/// When an address announced last, for scrapes: they carry no passkey.
#[derive(Default)]
struct Scrapers {
    announced: HashMap<IpAddr, u32>,
    cleaned: u32,
}

impl Scrapers {
    /// Notes that an address may scrape for an Interval.
    fn remember(&mut self, ip: IpAddr, now: u32, interval: u32) {
        if now.saturating_sub(self.cleaned) > interval {
            self.cleaned = now;
            self.announced.retain(|_, announced| now.saturating_sub(*announced) <= interval);
        }
        if self.announced.len() < MAX_SCRAPERS || self.announced.contains_key(&ip) {
            self.announced.insert(ip, now);
        }
    }

    fn may_scrape(&self, ip: IpAddr, now: u32, interval: u32) -> bool {
        self.announced.get(&ip).is_some_and(|&at| now.saturating_sub(at) <= interval)
    }
}

impl Responder {
    /// A responder that has seen nobody yet.
    pub fn new(tracker: Arc<Tracker>, ids: Arc<ConnectionIds>) -> Responder {
        let buffers = Buffers::new(Rng::from_system());
        Responder { tracker, ids, buffers, scrapers: Arc::default() }
    }

    /// Another responder that knows the same addresses and makes the same connection ids.
    pub fn twin(&self) -> Responder {
        let scrapers = self.scrapers.clone();
        Responder { scrapers, ..Responder::new(self.tracker.clone(), self.ids.clone()) }
    }

    /// Writes into the journal what the answers made so far speak of: before they leave.
    pub fn keep(&mut self) {
        self.tracker.journal.write(&mut self.buffers.records);
    }

    /// Answers a datagram from `ip` (never an IPv4-mapped address) into `out`. With `wait` it may ask the
    /// database.
    pub fn answer(&mut self, datagram: &[u8], ip: IpAddr, wait: bool, out: &mut Vec<u8>) -> Outcome {
        let start = Instant::now();
        let now = self.tracker.clock.at(start);
        let Some(Packet { connection, transaction, action }) = read(datagram) else {
            self.tracker.metrics.datagram(Fate::Ignored);
            return Outcome::Silence;
        };
        let (asked, done) = match &action {
            Action::Connect => {
                write_connect(out, transaction, self.ids.make(ip, now));
                self.tracker.metrics.datagram(Fate::Connect);
                return Outcome::Answer;
            }
            _ if !self.ids.check(connection, ip, now) => {
                // Shorter than the shortest scrape: whoever it is sent to gets no more than was sent.
                write_error(out, transaction, "Invalid connection id");
                self.tracker.metrics.datagram(Fate::InvalidId);
                return Outcome::Answer;
            }
            Action::Announce(fields) => {
                (Asked::Announce(fields.event()), self.announce(transaction, fields, ip, now, wait, out))
            }
            Action::Scrape(hashes) => (Asked::Scrape, self.scrape(transaction, hashes, ip, now, out)),
        };
        if let Err(refusal) = &done {
            let unknown = matches!(refusal, Refusal::UnknownPasskey | Refusal::Unregistered);
            if unknown && !wait && self.tracker.may_look_up(now) {
                return Outcome::Slow;
            }
            if *refusal == Refusal::UnknownPasskey {
                self.tracker.wrong_passkeys.failed(ip, now);
            }
            write_error(out, transaction, &refusal.to_string());
        }
        let metrics = &self.tracker.metrics;
        metrics.datagram(if done.is_ok() { Fate::Answered } else { Fate::Refused });
        metrics.answered(Transport::Udp, asked, done.err().as_ref(), start);
        Outcome::Answer
    }

    fn announce(
        &mut self,
        transaction: u32,
        fields: &Fields,
        ip: IpAddr,
        now: u32,
        wait: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let (tracker, mut url) = (self.tracker.clone(), [0; 512]);
        let config = &tracker.config;
        let passkey = if config.passkey { passkey(url_data(fields.options, &mut url))? } else { None };
        let (v4, most) = if ip.is_ipv4() { (true, MAX_PEERS) } else { (false, MAX_PEERS6) };
        let a = Announce {
            info_hash: fields.info_hash,
            peer_id: fields.peer_id,
            ip,
            port: fields.port,
            uploaded: fields.uploaded,
            downloaded: fields.downloaded,
            left: fields.left,
            event: fields.event(),
            udp: true,
            want: Want { count: peers_wanted(Some(fields.numwant.into()), most), v4, v6: !v4, list: false },
        };
        let allowed = tracker.wrong_passkeys.allowed(ip, now);
        let mut attempt = || {
            let stopping = a.event == Event::Stopped;
            let visitor = Visitor { agent: None, peer_id: Some(&a.peer_id.0), passkey, allowed, stopping };
            let who = admit(config, &tracker.access, &visitor)?;
            announce(config, &tracker.swarms, &who, &a, now, &mut self.buffers)
        };
        let reply = if wait { tracker.learning(passkey, Some(&a.info_hash), attempt) } else { attempt() }?;
        write_announce(out, transaction, &reply, &self.buffers.peers);
        if config.passkey {
            lock(&self.scrapers).remember(ip, now, config.interval);
        }
        Ok(())
    }

    fn scrape(
        &mut self,
        transaction: u32,
        hashes: &[[u8; 20]],
        ip: IpAddr,
        now: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let tracker = &self.tracker;
        let config = &tracker.config;
        if config.passkey && !lock(&self.scrapers).may_scrape(ip, now, config.interval) {
            return Err(Refusal::NoPasskey);
        }
        let counts = |hash: &[u8; 20]| scrape(&tracker.config, &tracker.swarms, &InfoHash(*hash)).unwrap_or_default();
        write_scrape(out, transaction, hashes.iter().map(counts));
        Ok(())
    }
}

/// The threads that serve UDP.
pub struct Listener {
    threads: Vec<JoinHandle<()>>,
    stopping: Arc<AtomicBool>,
}

impl Listener {
    /// Starts the thread that serves `socket`, and one that asks the database for it.
    pub fn start(tracker: &Arc<Tracker>, socket: UdpSocket) -> io::Result<Listener> {
        crate::sys::tune_udp(&socket)?;
        socket.set_read_timeout(Some(LOOK_UP))?;
        let socket = Arc::new(socket);
        let ids = Arc::new(ConnectionIds::new().map_err(io::Error::other)?);
        let stopping = Arc::new(AtomicBool::new(false));
        let (jobs, waiting) = sync_channel(MAX_WAITING);
        let fast = (Responder::new(tracker.clone(), ids), socket.clone());
        let slow = (fast.0.twin(), socket);
        let stop = stopping.clone();
        let threads = vec![
            thread::Builder::new().name("udp".into()).spawn(move || serve(fast.0, &fast.1, &jobs, &stop))?,
            thread::Builder::new().name("udp look-ups".into()).spawn(move || look_up(slow.0, &slow.1, &waiting))?,
        ];
        Ok(Listener { threads, stopping })
    }

    /// Stops receiving, and answers what is in hand.
    pub fn stop(self) {
        self.stopping.store(true, Relaxed);
        if join(self.threads, Instant::now() + LOOK_UP * 2) > 0 {
            log("a thread of the UDP listener had ended by a defect of goat: please report it");
        }
    }
}

fn serve(mut responder: Responder, socket: &UdpSocket, jobs: &SyncSender<Datagram>, stop: &AtomicBool) {
    let (mut asked, mut answers) = (vec![Datagram::empty(); BATCH], vec![Datagram::empty(); BATCH]);
    while !stop.load(Relaxed) {
        // An error is a timeout, or news of an earlier answer that could not be delivered: the next one.
        let Ok(received) = receive(socket, &mut asked) else { continue };
        let mut answered = 0;
        for datagram in asked.iter_mut().take(received) {
            let Some(answer) = answers.get_mut(answered) else { break };
            answer.path = datagram.path;
            match responder.answer(&datagram.bytes, datagram.path.ip(), false, &mut answer.bytes) {
                Outcome::Answer => answered += 1,
                Outcome::Slow => {
                    if jobs.try_send(std::mem::replace(datagram, Datagram::empty())).is_err() {
                        responder.tracker.metrics.datagram(Fate::Dropped);
                    }
                }
                Outcome::Silence => {}
            }
        }
        responder.keep();
        send_all(socket, answers.get_mut(..answered).unwrap_or_default());
    }
}

fn look_up(mut responder: Responder, socket: &UdpSocket, waiting: &Receiver<Datagram>) {
    let mut answer = Datagram::empty();
    while let Ok(datagram) = waiting.recv() {
        answer.path = datagram.path;
        if responder.answer(&datagram.bytes, datagram.path.ip(), true, &mut answer.bytes) == Outcome::Answer {
            responder.keep();
            send_all(socket, std::slice::from_mut(&mut answer));
        }
    }
}
