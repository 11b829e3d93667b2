//! Announce and scrape over HTTP: a request line and headers become plain data, the reply becomes bencode.
//! Knows no sockets: `net` hands it whole requests and sends what it writes.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::time::Instant;

use crate::metrics::{Asked, Transport};
use crate::net::message::{HSTS, Request, decoded, pairs, split};
use crate::protocol::{Announce, Event, MAX_PEERS, MAX_SCRAPE, Peers, Refusal, Reply, Want, peers_wanted};
use crate::random::Rng;
use crate::rules::announce::{Buffers, Visitor, admit, announce, scrape};
use crate::serve::{Call, serve};
use crate::torrent::{InfoHash, PeerId, bencode};
use crate::tracker::{Tracker, page_url};

/// What a thread needs to answer requests, and uses again for the next.
pub struct Scratch {
    pub buffers: Buffers,
    body: Vec<u8>,
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch { buffers: Buffers::new(Rng::from_system()), body: Vec::new() }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Written,
    Slow,
}

/// What answers the requests that are neither announce nor scrape.
#[derive(Clone, Copy)]
pub struct Pages {
    /// Whether a target is one of theirs.
    pub serves: fn(&Tracker, &str) -> bool,
    /// Appends the answer to a request that needs no database, and is short. Returns whether there was one.
    pub answer_at_once: fn(&Tracker, &Request, &mut Vec<u8>) -> bool,
    /// Answers a request that may ask the database, or whose answer may be long; reads what it uploads.
    pub answer: fn(&Tracker, &Request, &mut dyn ReadWrite) -> io::Result<()>,
}

pub trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

/// Appends the answer to a request. Only where it may `wait` is the database asked for a user or a torrent that
/// memory does not know; what is for `pages` and not answered at once never is answered here.
pub fn answer(
    tracker: &Tracker,
    pages: &Pages,
    request: &Request,
    wait: bool,
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> Answer {
    let start = Instant::now();
    let route = route(request.target);
    if route.is_none() && (pages.serves)(tracker, request.target) {
        return if (pages.answer_at_once)(tracker, request, out) { Answer::Written } else { Answer::Slow };
    }
    let agent = request.header("User-Agent").filter(|agent| !agent.is_empty() || !tracker.config.whitelist);
    let params = Params::read(split(request.target).1);
    let from = request.client(tracker);
    let call = Call {
        transport: if request.secure { Transport::Https } else { Transport::Http },
        asked: match route {
            Some((_, Action::Announce)) if agent.is_some() => Asked::Announce(params.event()),
            Some((_, Action::Scrape)) if agent.is_some() => Asked::Scrape,
            _ => Asked::Unknown,
        },
        from,
        start,
        passkey: route.and_then(|(passkey, _)| passkey),
        // For a look-up.
        info_hash: params.info_hash.filter(|_| wait).and_then(|hash| bytes20("info_hash", hash).ok()).map(InfoHash),
    };
    let done = serve(tracker, &call, wait, |now| {
        scratch.body.clear();
        let (passkey, action) = route.ok_or(Refusal::Malformed)?;
        let visitor = Visitor { agent: Some(agent.ok_or(Refusal::NoAgent)?), peer_id: None, passkey, stopping: false };
        match action {
            Action::Announce => announced(tracker, &params, visitor, from, now, scratch),
            Action::Scrape => scraped(tracker, &visitor, split(request.target).1, scratch),
        }
    });
    let Some(done) = done else { return Answer::Slow };
    if let Err(refusal) = &done {
        scratch.body.clear();
        let words = tracker.access.words(refusal, call.passkey);
        write_refusal(&mut scratch.body, refusal, &words, tracker.config.interval);
    }
    if route.is_none() && request.wants_html() {
        write_no_such_page(request, tracker, out);
    } else {
        write_response(request, "200 OK", "text/plain", &scratch.body, out);
    }
    Answer::Written
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Announce,
    Scrape,
}

fn route(target: &str) -> Option<(Option<&str>, Action)> {
    let path = split(target).0.strip_prefix('/')?;
    // Empty segments do not count: URLs are put together by hand.
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    let (passkey, last) = match (segments.next()?, segments.next(), segments.next()) {
        (last, None, _) => (None, last),
        (passkey, Some(last), None) => (Some(passkey), last),
        _ => return None,
    };
    let action = match last {
        "announce" => Action::Announce,
        "scrape" => Action::Scrape,
        _ => return None,
    };
    // No passkey is as short as "api".
    (passkey != Some("api")).then_some((passkey, action))
}

fn announced(
    tracker: &Tracker,
    params: &Params,
    visitor: Visitor,
    from: IpAddr,
    now: u32,
    scratch: &mut Scratch,
) -> Result<(), Refusal> {
    let peer_id = params.peer_id.filter(|_| tracker.config.whitelist).and_then(|id| bytes20("peer_id", id).ok());
    let peer_id = peer_id.as_ref().map(<[u8; 20]>::as_slice);
    let visitor = Visitor { peer_id, stopping: params.event() == Event::Stopped, ..visitor };
    let who = admit(&tracker.config, &tracker.access, &visitor)?;
    let a = params.announce(from)?;
    let reply = announce(&tracker.config, &tracker.swarms, &who, &a, now, &mut scratch.buffers)?;
    // What strangers may know of a client must not let them speak for it: the sessions of anonymous ones are
    // told apart by peer id and address. Clients that are given no peer id do not compare it (BEP 23 has none).
    let no_peer_id = !tracker.config.passkey || params.no_peer_id.is_some_and(|value| word(value) == "1");
    write_reply(&mut scratch.body, &reply, &a, &scratch.buffers.peers, no_peer_id);
    Ok(())
}

fn scraped(tracker: &Tracker, visitor: &Visitor, query: &str, scratch: &mut Scratch) -> Result<(), Refusal> {
    admit(&tracker.config, &tracker.access, visitor)?;
    let hashes = scrape_hashes(query)?;
    let counts = |hash| Some((hash, scrape(&tracker.config, &tracker.swarms, hash)?));
    bencode_scrape(&mut scratch.body, hashes.iter().filter_map(counts));
    Ok(())
}

/// The parameters of an announce (BEP 3, 7, 23), as they were sent: of each its first appearance, as in the original.
#[derive(Default)]
struct Params<'a> {
    info_hash: Option<&'a str>,
    peer_id: Option<&'a str>,
    port: Option<&'a str>,
    uploaded: Option<&'a str>,
    downloaded: Option<&'a str>,
    left: Option<&'a str>,
    numwant: Option<&'a str>,
    event: Option<&'a str>,
    compact: Option<&'a str>,
    no_peer_id: Option<&'a str>,
}

impl<'a> Params<'a> {
    fn read(query: &'a str) -> Params<'a> {
        let mut params = Params::default();
        for (name, value) in pairs(query) {
            let place = match &*word(name) {
                "info_hash" => &mut params.info_hash,
                "peer_id" => &mut params.peer_id,
                "port" => &mut params.port,
                "uploaded" => &mut params.uploaded,
                "downloaded" => &mut params.downloaded,
                "left" => &mut params.left,
                "numwant" => &mut params.numwant,
                "event" => &mut params.event,
                "compact" => &mut params.compact,
                "no_peer_id" => &mut params.no_peer_id,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        params
    }

    fn event(&self) -> Event {
        match self.event.map(word).as_deref() {
            Some("started") => Event::Started,
            Some("stopped") => Event::Stopped,
            Some("completed") => Event::Completed,
            Some("paused") => Event::Paused,
            _ => Event::None,
        }
    }

    fn announce(&self, ip: IpAddr) -> Result<Announce, Refusal> {
        // What is missing is said before what is wrong: the order of the rules.
        let info_hash = self.info_hash.ok_or(Refusal::Missing("info_hash"))?;
        let peer_id = self.peer_id.ok_or(Refusal::Missing("peer_id"))?;
        let port = self.port.ok_or(Refusal::Missing("port"))?;
        let uploaded = self.uploaded.ok_or(Refusal::Missing("uploaded"))?;
        let downloaded = self.downloaded.ok_or(Refusal::Missing("downloaded"))?;
        let left = self.left.ok_or(Refusal::Missing("left"))?;
        // An empty one is as many as the tracker likes.
        let numwant = self.numwant.filter(|numwant| !word(numwant).is_empty());
        Ok(Announce {
            udp: false,
            info_hash: InfoHash(bytes20("info_hash", info_hash)?),
            peer_id: PeerId(bytes20("peer_id", peer_id)?),
            ip,
            // The rules refuse 0, and so what is no port; who stops needs none.
            port: u16::try_from(integer::<u64>("port", port)?).unwrap_or(0),
            uploaded: integer("uploaded", uploaded)?,
            downloaded: integer("downloaded", downloaded)?,
            left: integer("left", left)?,
            event: self.event(),
            want: Want {
                count: peers_wanted(numwant.map(|numwant| integer("numwant", numwant)).transpose()?, MAX_PEERS),
                v4: true,
                v6: true,
                list: self.compact.is_some_and(|compact| word(compact) == "0"),
            },
        })
    }
}

/// A name or a value as a word: itself, unless something in it is encoded. What cannot be decoded is "%", which is no
/// word and no number. Spaces behind it do not count: URLs are put together by hand.
fn word(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte == b'%' || byte == b'+') {
        return text.into();
    }
    let bytes: Result<Vec<u8>, u8> = decoded(text).collect();
    let word = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    word.map_or("%".into(), |word| word.trim_end_matches(' ').to_string().into())
}

/// Decodes 20 bytes, behind which may be spaces.
fn bytes20(name: &'static str, value: &str) -> Result<[u8; 20], Refusal> {
    let (mut out, mut bytes) = ([0; 20], decoded(value));
    let filled = out.iter_mut().all(|place| bytes.next().is_some_and(|byte| byte.map(|byte| *place = byte).is_ok()));
    let whole = filled && bytes.all(|byte| byte == Ok(b' '));
    whole.then_some(out).ok_or(Refusal::Parameter(name))
}

fn integer<T: std::str::FromStr>(name: &'static str, value: &str) -> Result<T, Refusal> {
    let word = word(value);
    let digits = Some(&*word).filter(|word| !word.starts_with('+'));
    digits.and_then(|digits| digits.parse().ok()).ok_or(Refusal::Integer(name))
}

/// The torrents that a scrape asks for, sorted, each once.
fn scrape_hashes(query: &str) -> Result<BTreeSet<InfoHash>, Refusal> {
    let values = pairs(query).filter(|(name, _)| word(name) == "info_hash").map(|(_, value)| value);
    let hashes = values.map(|value| Ok(InfoHash(bytes20("info_hash", value)?))).collect::<Result<Vec<_>, _>>()?;
    match hashes.len() {
        0 => Err(Refusal::Missing("info_hash")),
        1..=MAX_SCRAPE => Ok(hashes.into_iter().collect()),
        _ => Err(Refusal::TooMany),
    }
}

/// Bencodes the answer to an announce, keys sorted (BEP 3, 7, 23, 24).
fn write_reply(out: &mut Vec<u8>, reply: &Reply, a: &Announce, peers: &Peers, no_peer_id: bool) {
    out.push(b'd');
    bencode::entry(out, "complete", reply.complete as u64);
    bencode::entry(out, "downloaded", u64::from(reply.downloaded));
    bencode::bytes(out, b"external ip");
    match a.ip {
        IpAddr::V4(ip) => bencode::bytes(out, &ip.octets()),
        IpAddr::V6(ip) => bencode::bytes(out, &ip.octets()),
    }
    bencode::entry(out, "incomplete", reply.incomplete as u64);
    bencode::entry(out, "interval", u64::from(reply.interval));
    bencode::entry(out, "min interval", u64::from(reply.min_interval));
    bencode::bytes(out, b"peers");
    if a.want.list {
        out.push(b'l');
        for (id, ip, port) in &peers.list {
            out.push(b'd');
            bencode::bytes(out, b"ip");
            bencode::bytes(out, ip.to_string().as_bytes());
            if !no_peer_id {
                bencode::bytes(out, b"peer id");
                bencode::bytes(out, &id.0);
            }
            bencode::entry(out, "port", u64::from(*port));
            out.push(b'e');
        }
        out.push(b'e');
    } else {
        bencode::bytes(out, &peers.v4);
        if !peers.v6.is_empty() {
            bencode::bytes(out, b"peers6");
            bencode::bytes(out, &peers.v6);
        }
    }
    out.push(b'e');
}

/// Bencodes the answer to a scrape (BEP 48, BEP 21).
fn bencode_scrape<'a>(out: &mut Vec<u8>, files: impl Iterator<Item = (&'a InfoHash, crate::protocol::Scrape)>) {
    out.push(b'd');
    bencode::bytes(out, b"files");
    out.push(b'd');
    for (hash, counts) in files {
        bencode::bytes(out, &hash.0);
        out.push(b'd');
        bencode::entry(out, "complete", counts.complete as u64);
        bencode::entry(out, "downloaded", u64::from(counts.downloaded));
        bencode::entry(out, "downloaders", counts.downloaders as u64);
        bencode::entry(out, "incomplete", counts.incomplete as u64);
        out.push(b'e');
    }
    out.extend_from_slice(b"ee");
}

/// Bencodes a refusal, keys sorted (BEP 3, BEP 31). Clients obey `interval`, and most know nothing of `retry in`.
fn write_refusal(out: &mut Vec<u8>, refusal: &Refusal, words: &str, interval: u32) {
    let interval = refusal.retry_in().map_or(interval, |minutes| minutes * 60);
    out.push(b'd');
    bencode::bytes(out, b"failure reason");
    bencode::bytes(out, words.as_bytes());
    bencode::entry(out, "interval", u64::from(interval));
    bencode::entry(out, "min interval", u64::from(interval));
    bencode::bytes(out, b"retry in");
    match refusal.retry_in() {
        Some(minutes) => bencode::int(out, minutes.into()),
        None => bencode::bytes(out, b"never"),
    }
    out.push(b'e');
}

fn write_no_such_page(request: &Request, tracker: &Tracker, out: &mut Vec<u8>) {
    let start = page_url(&tracker.config).map_or(String::new(), |url| {
        let url = if tracker.config.url.is_empty() { "/" } else { &url };
        format!("<p><a href=\"{url}\">To the start page</a></p>")
    });
    let body = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>No such page</title></head>\
         <body><h1>No such page</h1><p>This is a BitTorrent tracker.</p>{start}</body></html>\n"
    );
    write_response(request, "404 Not Found", "text/html; charset=utf-8", body.as_bytes(), out);
}

/// Appends the whole response. Announces and scrapes are status 200 even where they fail (BEP 3).
fn write_response(request: &Request, status: &str, media: &str, body: &[u8], out: &mut Vec<u8>) {
    for part in ["HTTP/1.1 ", status, "\r\nContent-Type: ", media, "\r\nContent-Length: "] {
        out.extend_from_slice(part.as_bytes());
    }
    bencode::decimal(out, body.len() as u64);
    let secure = request.secure.then_some(HSTS);
    let connection = Some(("Connection", request.connection())).filter(|(_, value)| !value.is_empty());
    for (name, value) in secure.into_iter().chain(connection) {
        for part in ["\r\n", name, ": ", value] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n\r\n");
    if request.method != "HEAD" {
        out.extend_from_slice(body);
    }
}
