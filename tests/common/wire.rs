//! HTTP and bencode, written by hand and as strict as the standards, to check goat's answers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};

use super::PATIENCE;

/// Status, headers (names in lower case) and body.
pub type HttpAnswer = (u16, Vec<(String, String)>, Vec<u8>);

/// One GET on a connection of its own. Only the given headers are sent, "Host" and "Connection" apart.
pub fn http_get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> HttpAnswer {
    exchange(address, "GET", path, headers, b"").unwrap_or_else(|error| panic!("GET {path}: {error}"))
}

/// The same with a body; an error if the server is not there (yet).
pub fn http_post(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<HttpAnswer> {
    exchange(address, "POST", path, headers, body)
}

fn exchange(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> std::io::Result<HttpAnswer> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    if !body.is_empty() {
        request += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    let mut bytes = (request + "\r\n").into_bytes();
    bytes.extend_from_slice(body);

    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&bytes)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(parse_answer(&answer))
}

/// An answer that is whole.
pub fn parse_answer(answer: &[u8]) -> HttpAnswer {
    let shown = || String::from_utf8_lossy(answer).into_owned();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {}", shown()));
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: Vec<(String, String)> = lines
        .map(|line| line.split_once(':').unwrap_or_else(|| panic!("a header without a colon: {}", shown())))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string()))
        .collect();
    let body = answer[end + 4..].to_vec();
    if let Some((_, length)) = headers.iter().find(|(name, _)| name == "content-length") {
        assert_eq!(length.parse(), Ok(body.len()), "Content-Length and body disagree: {}", shown());
    }
    (status, headers, body)
}

/// Bytes for use in a query: every byte as %XX.
pub fn escape(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
}

/// Bytes as hexadecimal digits, in lower case.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The value of an Authorization header: HTTP Basic.
pub fn basic(name: &str, key: &str) -> String {
    let mut bits = 0u32;
    let mut out = String::from("Basic ");
    let text = format!("{name}:{key}");
    for group in text.as_bytes().chunks(3) {
        for i in 0..3 {
            bits = bits << 8 | u32::from(*group.get(i).unwrap_or(&0));
        }
        for i in 0..4 {
            let digit = (bits >> (18 - 6 * i) & 63) as usize;
            let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
            out.push(if i > group.len() { '=' } else { alphabet[digit] as char });
        }
    }
    out
}

/// A bencoded value.
#[derive(Clone, Debug, PartialEq)]
pub enum Bencode {
    Integer(i64),
    Bytes(Vec<u8>),
    List(Vec<Bencode>),
    Dictionary(BTreeMap<Vec<u8>, Bencode>),
}

impl Bencode {
    /// Reads one value that fills `bytes`; fails the test if it is not exactly as BEP 3 wants it
    /// (sorted keys, each once; no leading zeros; nothing behind it).
    pub fn parse(bytes: &[u8]) -> Bencode {
        let mut rest = bytes;
        match read(&mut rest) {
            Some(value) if rest.is_empty() => value,
            _ => panic!("not bencoded: {}", String::from_utf8_lossy(bytes)),
        }
    }

    /// The value of a key, if this is a dictionary that has it.
    pub fn get(&self, key: &str) -> Option<&Bencode> {
        match self {
            Bencode::Dictionary(entries) => entries.get(key.as_bytes()),
            _ => panic!("not a dictionary: {self:?}"),
        }
    }

    /// The keys of a dictionary, in order.
    pub fn keys(&self) -> Vec<String> {
        match self {
            Bencode::Dictionary(entries) => {
                entries.keys().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
            }
            _ => panic!("not a dictionary: {self:?}"),
        }
    }

    /// The number under a key.
    pub fn integer(&self, key: &str) -> i64 {
        match self.get(key) {
            Some(Bencode::Integer(number)) => *number,
            _ => panic!("no number {key} in {self:?}"),
        }
    }

    /// The bytes under a key.
    pub fn bytes(&self, key: &str) -> &[u8] {
        match self.get(key) {
            Some(Bencode::Bytes(bytes)) => bytes,
            _ => panic!("no bytes {key} in {self:?}"),
        }
    }

    /// The text under a key.
    pub fn text(&self, key: &str) -> &str {
        std::str::from_utf8(self.bytes(key)).unwrap()
    }

    /// The compact peers of an announce's answer, "peers" and "peers6", sorted.
    pub fn peers(&self) -> Vec<SocketAddr> {
        let peers = self.bytes("peers");
        let peers6 = if self.get("peers6").is_some() { self.bytes("peers6") } else { &[] };
        assert!(peers.len().is_multiple_of(6) && peers6.len().is_multiple_of(18), "cut peers: {self:?}");
        let port = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
        let four = peers.chunks(6).map(|peer| {
            let address: [u8; 4] = peer[..4].try_into().unwrap();
            SocketAddr::from((Ipv4Addr::from(address), port(&peer[4..])))
        });
        let six = peers6.chunks(18).map(|peer| {
            let address: [u8; 16] = peer[..16].try_into().unwrap();
            SocketAddr::from((Ipv6Addr::from(address), port(&peer[16..])))
        });
        let mut all: Vec<SocketAddr> = four.chain(six).collect();
        all.sort();
        all
    }
}

/// Takes one value from the front of `rest`; None if there is none.
fn read(rest: &mut &[u8]) -> Option<Bencode> {
    match *rest.first()? {
        b'i' => {
            *rest = &rest[1..];
            let digits = until(rest, b'e')?;
            let number: i64 = digits.parse().ok()?;
            (number.to_string() == digits).then_some(Bencode::Integer(number))
        }
        b'l' => {
            *rest = &rest[1..];
            let mut list = Vec::new();
            while *rest.first()? != b'e' {
                list.push(read(rest)?);
            }
            *rest = &rest[1..];
            Some(Bencode::List(list))
        }
        b'd' => {
            *rest = &rest[1..];
            let mut entries = BTreeMap::new();
            while *rest.first()? != b'e' {
                let key = read_bytes(rest)?;
                if entries.last_key_value().is_some_and(|(last, _)| *last >= key) {
                    return None;
                }
                entries.insert(key, read(rest)?);
            }
            *rest = &rest[1..];
            Some(Bencode::Dictionary(entries))
        }
        _ => read_bytes(rest).map(Bencode::Bytes),
    }
}

fn read_bytes(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let digits = until(rest, b':')?;
    let length: usize = digits.parse().ok()?;
    if length.to_string() != digits || length > rest.len() {
        return None;
    }
    let (bytes, after) = rest.split_at(length);
    *rest = after;
    Some(bytes.to_vec())
}

/// Takes the text before the next `end`, and `end` itself.
fn until<'a>(rest: &mut &'a [u8], end: u8) -> Option<&'a str> {
    let length = rest.iter().position(|byte| *byte == end)?;
    let text = std::str::from_utf8(&rest[..length]).ok()?;
    *rest = &rest[length + 1..];
    Some(text)
}
