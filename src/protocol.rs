//! What a client says and what it is told, as plain data that HTTP and UDP, the rules and the books share.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use crate::torrent::{InfoHash, PeerId};

/// What an announce wants to say beside its numbers (BEP 3, BEP 21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A regular announce, or an event that nobody knows.
    None,
    Started,
    Stopped,
    Completed,
    /// A partial seed: wants nothing more, though it has not everything.
    Paused,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    pub info_hash: InfoHash,
    pub peer_id: PeerId,
    /// Where it comes from; never an IPv4-mapped IPv6 address.
    pub ip: IpAddr,
    /// Where it listens; 0 only where it stops.
    pub port: u16,
    pub uploaded: u64,
    pub downloaded: u64,
    /// Bytes still wanted.
    pub left: u64,
    pub event: Event,
    pub udp: bool,
    pub want: Want,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Seeders.
    pub complete: usize,
    /// Leechers.
    pub incomplete: usize,
    /// Snatches.
    pub downloaded: u32,
    /// Seconds until the next announce.
    pub interval: u32,
    /// Seconds that must pass before the next announce.
    pub min_interval: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scrape {
    /// Seeders.
    pub complete: usize,
    /// Snatches.
    pub downloaded: u32,
    /// Leechers that are not partial seeds.
    pub downloaders: usize,
    /// Leechers.
    pub incomplete: usize,
}

/// Why a request is refused. [`fmt::Display`] gives the words that the member's client shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Malformed,
    NoAgent,
    NotWhitelisted,
    NoPasskey,
    Banned,
    /// Nobody in memory has the passkey: the database may know more. Worded like [`Refusal::Banned`].
    UnknownPasskey,
    Missing(&'static str),
    Integer(&'static str),
    Parameter(&'static str),
    /// More torrents in one scrape than [`MAX_SCRAPE`].
    TooMany,
    /// Memory does not have the torrent: the database may know more.
    Unregistered,
    Unverified,
    Limit {
        active: u32,
        limit: u32,
    },
    /// Too soon after the last announce, or too many clients on one torrent.
    SlowDown,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Malformed => f.write_str("Malformed announce"),
            Refusal::NoAgent => f.write_str("Your client is not identifying itself"),
            Refusal::NotWhitelisted => f.write_str("Your client is not whitelisted"),
            Refusal::NoPasskey => f.write_str("No passkey found in announce URL"),
            Refusal::Banned | Refusal::UnknownPasskey => f.write_str("Invalid passkey"),
            Refusal::Missing(name) => write!(f, "Missing required parameter: {name}"),
            Refusal::Integer(name) => write!(f, "Invalid integer parameter: {name}"),
            Refusal::Parameter(name) => write!(f, "Invalid parameter: {name}"),
            Refusal::TooMany => write!(f, "Invalid parameter: info_hash (more than {MAX_SCRAPE})"),
            Refusal::Unregistered => f.write_str("Unregistered torrent"),
            Refusal::Unverified => f.write_str("Unverified torrent"),
            Refusal::Limit { active, limit } => write!(f, "Exceeded active torrent limit: {active} > {limit}"),
            Refusal::SlowDown => f.write_str("Slow down"),
        }
    }
}

impl Refusal {
    /// Minutes after which another try makes sense (BEP 31), `None` for never.
    pub fn retry_in(&self) -> Option<u32> {
        match self {
            Refusal::Unregistered | Refusal::Unverified | Refusal::Limit { .. } => Some(5),
            Refusal::SlowDown => Some(1),
            _ => None,
        }
    }
}

/// Peers sent to those who do not say how many they want.
const NUMWANT: usize = 50;
/// The most peers sent, over HTTP and over UDP with IPv4.
pub const MAX_PEERS: usize = 200;
/// The most torrents in one scrape: what fits a UDP packet (BEP 15).
pub const MAX_SCRAPE: usize = 74;

/// How many peers to send to one who asks for `numwant`, where `most` fit.
pub fn peers_wanted(numwant: Option<i64>, most: usize) -> usize {
    numwant.filter(|n| *n >= 0).map_or(NUMWANT, |n| usize::try_from(n).unwrap_or(most)).min(most)
}

/// The peers that an announce is answered with. Reused from answer to answer.
#[derive(Default)]
pub struct Peers {
    /// Compact IPv4 peers, 6 bytes each (BEP 23).
    pub v4: Vec<u8>,
    /// Compact IPv6 peers, 18 bytes each (BEP 7).
    pub v6: Vec<u8>,
    /// With [`Want::list`], the same peers one by one, with their ids.
    pub list: Vec<(PeerId, IpAddr, u16)>,
}

impl Peers {
    /// Leaves none, and room for as many again.
    pub fn clear(&mut self) {
        self.v4.clear();
        self.v6.clear();
        self.list.clear();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    pub count: usize,
    pub v4: bool,
    pub v6: bool,
    /// Fill [`Peers::list`] and not the compact forms.
    pub list: bool,
}

/// An IPv4 address and a port as they travel in `peers` (BEP 23). Port 0 stands for "none".
pub type Addr4 = [u8; 6];
/// An IPv6 address and a port as they travel in `peers6` (BEP 7). Port 0 stands for "none".
pub type Addr6 = [u8; 18];
pub const NO_ADDR4: Addr4 = [0; 6];
pub const NO_ADDR6: Addr6 = [0; 18];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    pub v4: Addr4,
    pub v6: Addr6,
}

impl Addresses {
    pub const NONE: Addresses = Addresses { v4: NO_ADDR4, v6: NO_ADDR6 };

    /// Sets the address of one family and leaves the other.
    pub fn set(&mut self, ip: IpAddr, port: u16) {
        match ip {
            IpAddr::V4(ip) => self.v4 = addr4(ip, port),
            IpAddr::V6(ip) => self.v6 = addr6(ip, port),
        }
    }

    pub fn meets(&self, other: &Addresses) -> bool {
        self.v4 != NO_ADDR4 && self.v4 == other.v4 || self.v6 != NO_ADDR6 && self.v6 == other.v6
    }
}

pub fn addr4(ip: Ipv4Addr, port: u16) -> Addr4 {
    let ([a, b, c, d], [p, q]) = (ip.octets(), port.to_be_bytes());
    [a, b, c, d, p, q]
}

pub fn addr6(ip: Ipv6Addr, port: u16) -> Addr6 {
    let mut out = NO_ADDR6;
    out[..16].copy_from_slice(&ip.octets());
    out[16..].copy_from_slice(&port.to_be_bytes());
    out
}

pub fn ip4(&[a, b, c, d, ..]: &Addr4) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

pub fn ip6(addr: &Addr6) -> Ipv6Addr {
    addr.first_chunk::<16>().map_or(Ipv6Addr::UNSPECIFIED, |octets| Ipv6Addr::from(*octets))
}

pub fn port(addr: &[u8]) -> u16 {
    addr.last_chunk().map_or(0, |p| u16::from_be_bytes(*p))
}

/// What one client can choose addresses from: an IPv4 address, or an IPv6 network of 64 bits.
pub fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 64 << 64).into(),
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    pub uploaded: u64,
    pub downloaded: u64,
}

impl Moved {
    fn each(self, other: Moved, f: impl Fn(u64, u64) -> u64) -> Moved {
        Moved { uploaded: f(self.uploaded, other.uploaded), downloaded: f(self.downloaded, other.downloaded) }
    }

    pub fn max(self, other: Moved) -> Moved {
        self.each(other, u64::max)
    }

    pub fn min(self, other: Moved) -> Moved {
        self.each(other, u64::min)
    }

    pub fn plus(self, other: Moved) -> Moved {
        self.each(other, u64::saturating_add)
    }

    /// By how much each is above the other's.
    pub fn above(self, other: Moved) -> Moved {
        self.each(other, u64::saturating_sub)
    }
}

pub fn take<const N: usize>(data: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = data.split_first_chunk()?;
    *data = rest;
    Some(*first)
}

/// What of the bytes moved of a torrent is credited, in percent. 0 for downloads is "freeleech".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Factors {
    #[serde(rename = "uploadPercent")]
    pub upload: u16,
    #[serde(rename = "downloadPercent")]
    pub download: u16,
}

impl Default for Factors {
    fn default() -> Factors {
        Factors { upload: 100, download: 100 }
    }
}

impl Factors {
    /// The better of each for a member.
    pub fn better(self, other: Factors) -> Factors {
        Factors { upload: self.upload.max(other.upload), download: self.download.min(other.download) }
    }
}

/// What is credited of all torrents, where it is better for the member than a torrent's own, until a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Free {
    #[serde(flatten)]
    pub factors: Factors,
    /// Seconds since 1970.
    pub until: u32,
}

impl Free {
    /// As one number, which the database and memory hold: percentages have 11 bits each.
    pub fn pack(self) -> u64 {
        let Factors { upload, download } = self.factors;
        u64::from(self.until) << 22 | u64::from(upload & 0x7ff) << 11 | u64::from(download & 0x7ff)
    }

    /// What a number stands for, if that goes on at a time in seconds since 1970.
    pub fn unpack(packed: u64, now: u32) -> Option<Free> {
        let percent = |bits: u64| (bits & 0x7ff) as u16;
        let factors = Factors { upload: percent(packed >> 11), download: percent(packed) };
        Some(Free { factors, until: (packed >> 22) as u32 }).filter(|free| now < free.until)
    }
}
