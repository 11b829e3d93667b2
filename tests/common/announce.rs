//! Announces and scrapes over HTTP, as a client sends them.

use super::{Bencode, Goat, escape, http_get};

/// A client that goat's own list of clients lets in.
pub const AGENT: &str = "qBittorrent/5.0.2";

/// What a client announces: a leecher's first words, unless a test changes them.
#[derive(Clone, Debug)]
pub struct Announce {
    /// None leaves it out of the URL.
    pub passkey: Option<String>,
    pub agent: String,
    pub info_hash: [u8; 20],
    pub peer_id: [u8; 20],
    pub port: u16,
    pub uploaded: u64,
    pub downloaded: u64,
    pub left: u64,
    /// "" is no event.
    pub event: &'static str,
    /// The value of `X-Forwarded-For`, if it is sent.
    pub forwarded_for: Option<String>,
}

impl Announce {
    /// Peer number `number` on a torrent. It listens on port 10,000 + `number`.
    pub fn new(passkey: &str, info_hash: [u8; 20], number: u16) -> Announce {
        Announce {
            passkey: Some(passkey.into()),
            agent: AGENT.into(),
            info_hash,
            peer_id: peer_id(number),
            port: 10_000 + number,
            uploaded: 0,
            downloaded: 0,
            left: 1_000_000,
            event: "started",
            forwarded_for: None,
        }
    }

    /// The path and the query.
    pub fn target(&self) -> String {
        let passkey = self.passkey.iter().map(|passkey| format!("/{passkey}"));
        let event = match self.event {
            "" => String::new(),
            event => format!("&event={event}"),
        };
        format!(
            "{}/announce?info_hash={}&peer_id={}&port={}&uploaded={}&downloaded={}&left={}{event}",
            passkey.collect::<String>(),
            escape(&self.info_hash),
            escape(&self.peer_id),
            self.port,
            self.uploaded,
            self.downloaded,
            self.left,
        )
    }

    /// What goat answers.
    pub fn send(&self, goat: &Goat) -> Bencode {
        let mut headers = vec![("User-Agent", self.agent.as_str())];
        if let Some(addresses) = &self.forwarded_for {
            headers.push(("X-Forwarded-For", addresses));
        }
        let (status, _, body) = http_get(goat.address(), &self.target(), &headers);
        assert_eq!(status, 200, "{}", self.target());
        Bencode::parse(&body)
    }

    /// Why goat refuses it, or "" if it does not.
    pub fn refusal(&self, goat: &Goat) -> String {
        let answer = self.send(goat);
        match answer.get("failure reason") {
            Some(_) => answer.text("failure reason").into(),
            None => String::new(),
        }
    }

    /// What goat answers; fails the test if that is a refusal.
    pub fn accepted(&self, goat: &Goat) -> Bencode {
        let answer = self.send(goat);
        assert!(answer.get("failure reason").is_none(), "{self:?}: {answer:?}");
        answer
    }
}

/// 20 bytes, different for each number, that begin as a client's on goat's own list.
pub fn peer_id(number: u16) -> [u8; 20] {
    format!("-qB5020-{number:012}").into_bytes().try_into().unwrap()
}

/// 20 bytes, different for each number, of every kind: NUL, ASCII and not.
pub fn info_hash(number: u32) -> [u8; 20] {
    let mut hash = *b"\x00\x0a\x0d%&+=\xff torrent\0\0\0\0";
    hash[16..].copy_from_slice(&number.to_be_bytes());
    hash
}

/// What a scrape says of one torrent: (complete, downloaded, downloaders, incomplete); None if nothing.
pub fn scrape(goat: &Goat, passkey: &str, info_hash: [u8; 20]) -> Option<[i64; 4]> {
    let target = format!("/{passkey}/scrape?info_hash={}", escape(&info_hash));
    let (status, _, body) = http_get(goat.address(), &target, &[("User-Agent", AGENT)]);
    assert_eq!(status, 200, "{target}");
    let answer = Bencode::parse(&body);
    let Some(Bencode::Dictionary(files)) = answer.get("files") else { panic!("no files: {answer:?}") };
    let file = files.get(&info_hash[..])?;
    Some(["complete", "downloaded", "downloaders", "incomplete"].map(|key| file.integer(key)))
}
