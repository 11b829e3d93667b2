//! Connection ids of UDP (BEP 15): proof that a sender reads what is sent to its address.
//!
//! **The attack.** Anybody can send UDP with somebody else's source address. Without proof, one small
//! announce with a forged source would send a packet of peers to the victim (amplification), or put the
//! victim into swarms and spoil the books of a member. So an announce or scrape must carry an id that the
//! tracker has sent to that same address a moment ago.
//!
//! **The id**, 64 bits, big-endian: the time it was made at (seconds, 16 bits), then the first 48 bits of
//! HMAC-SHA-256 over address and time, under a key that is drawn at start and never leaves the process; with Redis it
//! is derived from the secret that all goats of a tracker share.
//! Nothing is stored for it: whatever an attacker sends, there is no table to fill. An id is good for two
//! minutes; one from before a restart, for another address or from the future is not.
//!
//! **What it costs the attacker.** Who cannot read the victim's traffic has to guess 48 bits within two
//! minutes: with a million packets a second, one chance in two million. Who can read it does not need to.
//! The port is left out: behind some routers it changes from packet to packet.

use std::net::IpAddr;

use ring::hmac;
use ring::rand::SystemRandom;

/// How long an id is good, in seconds (BEP 15: "until two minutes after it has been sent").
const LIFETIME: u16 = 120;
/// How far the clocks of goats that are one tracker may be apart, in seconds.
const AHEAD: u16 = 10;

pub struct ConnectionIds {
    key: hmac::Key,
    /// Seconds by which the clock of who made an id may be ahead.
    ahead: u16,
}

impl ConnectionIds {
    pub fn new() -> Result<ConnectionIds, String> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        Ok(ConnectionIds { key: key.map_err(|_| "the operating system provides no random numbers")?, ahead: 0 })
    }

    /// With the key of all goats that are one tracker: the ids of each are good at all of them.
    pub fn shared(key: &[u8]) -> ConnectionIds {
        ConnectionIds { key: hmac::Key::new(hmac::HMAC_SHA256, key), ahead: AHEAD }
    }

    /// The id for an address (never an IPv4-mapped one) at a time in seconds since 1970.
    pub fn make(&self, ip: IpAddr, now: u32) -> u64 {
        let mut message = [0; 21];
        match ip {
            IpAddr::V4(ip) => message[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => message[..16].copy_from_slice(&ip.octets()),
        }
        message[16] = u8::from(ip.is_ipv6());
        message[17..].copy_from_slice(&now.to_be_bytes());
        let tag = hmac::sign(&self.key, &message);
        let mac = tag.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        u64::from(now as u16) << 48 | mac >> 16
    }

    pub fn check(&self, id: u64, ip: IpAddr, now: u32) -> bool {
        let latest = now.wrapping_add(self.ahead.into());
        let age = (latest as u16).wrapping_sub((id >> 48) as u16);
        // Both are one machine word: comparing them takes the same time wherever they differ.
        age <= LIFETIME + self.ahead && self.make(ip, latest.wrapping_sub(u32::from(age))) == id
    }
}
