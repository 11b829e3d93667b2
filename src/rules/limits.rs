//! Every bound on what others can make goat hold or do: for one address, one network and in all. What is shared is
//! counted here, so that nobody's part of it can become everybody's.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::protocol::network;
use crate::sync::lock;

/// How much at a time, or in a period: for one IPv4 address or IPv6 /64, for one IPv6 /48, and in all.
#[derive(Clone, Copy)]
pub struct Bound {
    pub address: usize,
    pub network: usize,
    pub all: usize,
}

const fn bound(address: usize, network: usize, all: usize) -> Bound {
    Bound { address, network, all }
}

const KIB: usize = 1024;
const NO_SHARES: usize = usize::MAX;

const CONNECTIONS: Bound = bound(128, 512, 4_096);
/// TCP connections of this machine and of trusted proxies, who speak for many.
const TRUSTED: Bound = bound(NO_SHARES, NO_SHARES, 8_192);
const HANDSHAKES: Bound = bound(128, 256, 1_536);
/// Bytes of handshakes that are not done, without the [`FREE_BYTES`] of each.
const HANDSHAKE_BYTES: Bound = bound(256 * KIB, 512 * KIB, 8 * KIB * KIB);
/// Bytes of requests that are not whole or not begun, without the [`FREE_BYTES`] of each connection.
const REQUEST_BYTES: Bound = bound(512 * KIB, 1_024 * KIB, 16 * KIB * KIB);
/// What a connection may hold whatever others hold: more than most requests.
pub const FREE_BYTES: usize = 2 * KIB;
/// Threads that wait for the database or for a slow reader; of these in all `Workers`.
const BUSY: Bound = bound(16, 32, 0);
/// Threads that send an answer which may be long; of these in all half of `Workers`.
const LONG: Bound = bound(4, 8, 0);
/// Requests that wait for such a thread; in all half of the connections, so that others can be closed for new ones.
const QUEUED: Bound = bound(128, 256, 0);
/// Passwords that are tried or made, of which one is in work.
const PASSWORDS: Bound = bound(2, 4, 8);
/// Wrong passwords for a name, a minute.
const GUESSES: u32 = 10;
const UPLOADS: Bound = bound(8 * KIB * KIB, 16 * KIB * KIB, 64 * KIB * KIB);
const DATAGRAMS: Bound = bound(32, 64, 256);
/// Look-ups in the database for what memory does not know, in a tenth of a second. What goes beyond waits its turn.
const LOOKUPS: Bound = bound(5, 7, 10);
/// Look-ups in vain for passkeys, a minute.
const PASSKEYS: Bound = bound(20, 80, 3_000);
/// Failed sign-ins, a minute; in all, as many as are remembered.
const LOGINS: Bound = bound(20, 80, 8_192);
const MINUTE: u32 = 60;
/// Descriptors that are not connections: databases, certificates, the log.
const OTHER_FILES: usize = 128;

#[derive(Default)]
struct Held {
    all: usize,
    /// By address or network, and the length of its prefix.
    by: HashMap<(IpAddr, u8), usize>,
}

/// What one customer of a provider has: an IPv4 address, or an IPv6 /48.
pub fn site(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) >> 80 << 80).into(),
    }
}

/// An address and its /48, if it has one.
fn holders(who: IpAddr) -> impl Iterator<Item = (IpAddr, u8)> {
    let network = [(network(who), 64)].into_iter();
    network.chain(who.is_ipv6().then(|| (site(who), 48)))
}

impl Held {
    fn room(&self, bound: &Bound, who: Option<IpAddr>, amount: usize) -> Result<(), Reason> {
        let parts = [(bound.address, Reason::Address), (bound.network, Reason::Network)];
        for (holder, (most, full)) in who.into_iter().flat_map(holders).zip(parts) {
            if self.by.get(&holder).copied().unwrap_or(0).saturating_add(amount) > most {
                return Err(full);
            }
        }
        if self.all.saturating_add(amount) > bound.all { Err(Reason::Full) } else { Ok(()) }
    }

    fn take(&mut self, bound: &Bound, who: Option<IpAddr>, amount: usize) -> Result<(), Reason> {
        self.room(bound, who, amount)?;
        self.change(who, |held| held.saturating_add(amount));
        Ok(())
    }

    fn give(&mut self, who: Option<IpAddr>, amount: usize) {
        self.change(who, |held| held.saturating_sub(amount));
    }

    fn change(&mut self, who: Option<IpAddr>, to: impl Fn(usize) -> usize) {
        self.all = to(self.all);
        for holder in who.into_iter().flat_map(holders) {
            let held = self.by.entry(holder).or_default();
            *held = to(*held);
            if *held == 0 {
                self.by.remove(&holder);
            }
        }
    }
}

/// Counts what is held at a time against a [`Bound`].
pub struct Shares {
    bound: Bound,
    held: Mutex<Held>,
}

/// So much of what is shared, given back when this is dropped.
pub struct Permit {
    shares: Arc<Shares>,
    /// Absent for those who have no share of their own to keep within.
    who: Option<IpAddr>,
    amount: usize,
}

impl Shares {
    pub fn new(bound: Bound) -> Arc<Shares> {
        Arc::new(Shares { bound, held: Mutex::default() })
    }

    pub fn acquire(self: &Arc<Shares>, who: Option<IpAddr>, amount: usize) -> Result<Permit, Reason> {
        let mut permit = self.nothing(who);
        permit.resize(amount)?;
        Ok(permit)
    }

    /// A permit for nothing yet.
    pub fn nothing(self: &Arc<Shares>, who: Option<IpAddr>) -> Permit {
        Permit { shares: self.clone(), who, amount: 0 }
    }

    pub fn held(&self) -> usize {
        lock(&self.held).all
    }
}

impl Permit {
    pub fn resize(&mut self, amount: usize) -> Result<(), Reason> {
        if amount != self.amount {
            let mut held = lock(&self.shares.held);
            held.give(self.who, std::mem::take(&mut self.amount));
            held.take(&self.shares.bound, self.who, amount)?;
            self.amount = amount;
        }
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.amount > 0 {
            lock(&self.shares.held).give(self.who, self.amount);
        }
    }
}

/// Counts what is done in a period against a [`Bound`], which also bounds whom it remembers. The unit of time is the
/// caller's.
pub struct Rate {
    bound: Bound,
    period: u32,
    done: Mutex<(u32, Held)>,
}

impl Rate {
    pub fn new(bound: Bound, period: u32) -> Rate {
        Rate { bound, period, done: Mutex::default() }
    }

    pub fn take(&self, who: Option<IpAddr>, now: u32) -> bool {
        self.with(now, |held| held.take(&self.bound, who, 1)).is_ok()
    }

    pub fn room(&self, who: Option<IpAddr>, now: u32) -> Result<(), Reason> {
        self.with(now, |held| held.room(&self.bound, who, 1))
    }

    fn with<T>(&self, now: u32, f: impl FnOnce(&mut Held) -> T) -> T {
        let mut done = lock(&self.done);
        if now.saturating_sub(done.0) >= self.period {
            *done = (now, Held::default());
        }
        f(&mut done.1)
    }
}

const NAMED: usize = 8;

/// Who was refused something since the last report: the first of them, and how often in all.
#[derive(Default)]
pub struct Refused(Mutex<(Vec<IpAddr>, u64)>);

impl Refused {
    pub fn note(&self, ip: IpAddr) {
        let mut refused = lock(&self.0);
        refused.1 = refused.1.saturating_add(1);
        if refused.0.len() < NAMED && !refused.0.contains(&ip) {
            refused.0.push(ip);
        }
    }

    /// "3 of 192.0.2.1, 192.0.2.2"; `None` if there was nobody.
    pub fn report(&self) -> Option<String> {
        let (named, count) = std::mem::take(&mut *lock(&self.0));
        let named: Vec<String> = named.iter().map(IpAddr::to_string).collect();
        let others = if named.len() == NAMED { " and perhaps others" } else { "" };
        (count > 0).then(|| format!("{count}, of {}{others}", named.join(", ")))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Address,
    Network,
    /// There are enough in all.
    Full,
    Handshakes,
    Bytes,
    Descriptors,
    Evicted,
    Unread,
}

pub const REASONS: [&str; 8] =
    ["address", "network", "full", "handshakes", "bytes", "descriptors", "evicted", "unread"];

/// What was done in vain that every goat counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    Passkey,
    Login,
}

/// The most failures that wait to be told to other goats.
const MAX_TOLD: usize = 10_000;

pub struct Limits {
    pub connections: Arc<Shares>,
    pub trusted: Arc<Shares>,
    pub handshakes: Arc<Shares>,
    pub handshake_bytes: Arc<Shares>,
    pub request_bytes: Arc<Shares>,
    pub busy: Arc<Shares>,
    pub long: Arc<Shares>,
    pub queued: Arc<Shares>,
    pub passwords: Arc<Shares>,
    guesses: Mutex<Quota<String>>,
    pub uploads: Arc<Shares>,
    pub datagrams: Arc<Shares>,
    lookups: Rate,
    pub passkeys: Rate,
    pub logins: Rate,
    /// Failures that other goats are to hear of; absent where there are none.
    told: Option<Mutex<Vec<(Failure, IpAddr)>>>,
    pub refused_connections: Refused,
    pub refused_passkeys: Refused,
    pub refused_logins: Refused,
    counts: [AtomicU64; REASONS.len()],
    start: Instant,
}

impl Limits {
    pub fn new(config: &Config, files: usize) -> Limits {
        let sockets = files.saturating_sub(OTHER_FILES).max(16);
        let of = |bound: Bound, all| Shares::new(Bound { all, ..bound });
        Limits {
            connections: of(CONNECTIONS, CONNECTIONS.all.min(sockets)),
            trusted: of(TRUSTED, TRUSTED.all.min(sockets)),
            handshakes: Shares::new(HANDSHAKES),
            handshake_bytes: Shares::new(HANDSHAKE_BYTES),
            request_bytes: Shares::new(REQUEST_BYTES),
            busy: of(BUSY, config.workers),
            long: of(LONG, config.workers.div_ceil(2)),
            queued: of(QUEUED, CONNECTIONS.all.min(sockets) / 2),
            passwords: Shares::new(PASSWORDS),
            guesses: Mutex::default(),
            uploads: Shares::new(UPLOADS),
            datagrams: Shares::new(DATAGRAMS),
            lookups: Rate::new(LOOKUPS, 1),
            passkeys: Rate::new(PASSKEYS, MINUTE),
            logins: Rate::new(LOGINS, MINUTE),
            told: config.redis.is_some().then(Mutex::default),
            refused_connections: Refused::default(),
            refused_passkeys: Refused::default(),
            refused_logins: Refused::default(),
            counts: Default::default(),
            start: Instant::now(),
        }
    }

    pub fn open(&self) -> usize {
        self.connections.held() + self.trusted.held()
    }

    pub fn look_up(&self, who: Option<IpAddr>) -> bool {
        let tenths = u32::try_from(self.start.elapsed().as_millis() / 100);
        self.lookups.take(who, tenths.unwrap_or(u32::MAX))
    }

    /// Counts one more try of a name's password, if there may be one.
    pub fn may_guess(&self, name: &str, now: u32) -> bool {
        lock(&self.guesses).take(name.to_ascii_lowercase(), GUESSES, MINUTE, now)
    }

    /// Counts anew for a name whose password was right.
    pub fn forget_guesses(&self, name: &str) {
        lock(&self.guesses).counts.remove(&name.to_ascii_lowercase());
    }

    /// Counts a failure of an address here, and has other goats count it.
    pub fn fail(&self, what: Failure, ip: IpAddr, now: u32) {
        self.count(what, ip, now);
        let mut told = self.told.as_ref().map(lock);
        told.iter_mut().filter(|told| told.len() < MAX_TOLD).for_each(|told| told.push((what, ip)));
    }

    /// Counts a failure of an address, here or at another goat.
    pub fn count(&self, what: Failure, ip: IpAddr, now: u32) {
        let rate = if what == Failure::Passkey { &self.passkeys } else { &self.logins };
        rate.take(Some(ip), now);
    }

    pub fn take_failures(&self) -> Vec<(Failure, IpAddr)> {
        self.told.as_ref().map(|told| std::mem::take(&mut *lock(told))).unwrap_or_default()
    }

    pub fn refuse(&self, reason: Reason, ip: IpAddr) {
        if let Some(count) = self.counts.get(reason as usize) {
            count.fetch_add(1, Relaxed);
        }
        self.refused_connections.note(ip);
    }

    pub fn refused(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.into_iter().zip(self.counts.iter().map(|count| count.load(Relaxed)))
    }

    /// Most descriptors that connections and all else may need.
    pub fn descriptors(files: usize) -> usize {
        files.min(CONNECTIONS.all + TRUSTED.all + 8 * OTHER_FILES)
    }
}

/// Whose shares an address counts against: its own, but for this machine's and those of trusted proxies.
pub fn sharer(config: &Config, ip: IpAddr) -> Option<IpAddr> {
    let exempt = ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST || config.trusts(ip);
    (!exempt).then_some(ip)
}

const MAX_KEYS: usize = 1_024;

/// Counts how often each of some did something within a period.
pub struct Quota<K> {
    since: u32,
    counts: HashMap<K, u32>,
}

impl<K> Default for Quota<K> {
    fn default() -> Self {
        Quota { since: 0, counts: HashMap::new() }
    }
}

impl<K: Eq + Hash> Quota<K> {
    /// Counts one more, at a time in seconds since 1970, unless there were `most` within `period` seconds.
    pub fn take(&mut self, key: K, most: u32, period: u32, now: u32) -> bool {
        // To forget all when there are too many keeps it small, and costs an attacker as many keys.
        if now.saturating_sub(self.since) >= period || self.counts.len() >= MAX_KEYS {
            self.since = now;
            self.counts.clear();
        }
        let count = self.counts.entry(key).or_insert(0);
        let may = *count < most;
        *count += u32::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn an_address_a_network_and_all_have_a_share_each_that_is_given_back() {
        let shares = Shares::new(bound(2, 3, 4));
        let take = |text| shares.acquire(ip(text), 1);
        let first = take("2001:db8:0:1::1");
        let _second = take("2001:db8:0:1:ffff::2").unwrap();
        assert_eq!(take("2001:db8:0:1::3").err(), Some(Reason::Address), "a /64 is one address");
        let _third = take("2001:db8:0:2::1").unwrap();
        assert_eq!(take("2001:db8:0:3::1").err(), Some(Reason::Network));
        let _fourth = take("192.0.2.1").unwrap();
        assert_eq!(take("192.0.2.2").err(), Some(Reason::Full));
        drop(first);
        assert!(take("2001:db8:0:1::3").is_ok());
        assert_eq!(shares.held(), 3);
    }

    #[test]
    fn nothing_is_remembered_of_who_holds_nothing() {
        let shares = Shares::new(bound(10, 10, 10));
        let mut permit = shares.acquire(ip("2001:db8::1"), 3).unwrap();
        permit.resize(10).unwrap();
        assert_eq!(permit.resize(11), Err(Reason::Address));
        assert_eq!(shares.held(), 0, "what is refused more than it may is given nothing");
        permit.resize(2).unwrap();
        drop(permit);
        assert!(lock(&shares.held).by.is_empty());
    }

    #[test]
    fn a_rate_counts_anew_in_each_period() {
        let rate = Rate::new(bound(20, 80, 100), 60);
        assert!((0..20).all(|i| rate.take(ip("192.0.2.1"), 1_000 + i)));
        assert!(!rate.take(ip("192.0.2.1"), 1_059));
        assert_eq!(rate.room(ip("192.0.2.1"), 1_059), Err(Reason::Address));
        assert!(rate.take(ip("192.0.2.2"), 1_059), "somebody else");
        assert!(rate.take(ip("192.0.2.1"), 1_060));
    }

    #[test]
    fn a_million_addresses_are_remembered_only_as_far_as_all_may() {
        let rate = Rate::new(bound(20, 80, 100), 60);
        assert_eq!((0..1_000_000u32).filter(|i| rate.take(Some(IpAddr::V4((*i).into())), 1_000)).count(), 100);
        assert_eq!(lock(&rate.done).1.by.len(), 100);
    }

    #[test]
    fn a_report_names_eight_and_counts_all() {
        let refused = Refused::default();
        assert_eq!(refused.report(), None);
        (0..20u32).for_each(|i| refused.note(IpAddr::V4((0xc000_0200 + i % 9).into())));
        let report = refused.report().unwrap();
        assert!(report.starts_with("20, of 192.0.2.0, ") && report.ends_with("192.0.2.7 and perhaps others"));
        assert_eq!(refused.report(), None);
    }
}
