//! Limits in memory of a fixed size: on failures by address, so that who guesses secrets is refused for a
//! while before anything is looked up; and on new sessions, so that no member can fill the database.

use std::collections::HashMap;
use std::fmt::Write;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::protocol::network;
use crate::sync::lock;

/// A minute, in seconds.
const MINUTE: u32 = 60;
/// Sets of addresses, and addresses in each: the 8,192 that failed last, about, in 140 KB.
const SETS: usize = 1_024;
const WAYS: usize = 8;
/// The most addresses that one line of the log names.
const NAMED: usize = 8;

/// Counts failures by IPv4 address and by IPv6 network of 64 bits. Its size is fixed: an address that fails
/// takes the place of the one in its set whose failures are oldest.
pub struct Failures {
    /// This many failures within a minute, and an address is refused for a minute; 0: it never is.
    most: u32,
    /// Until when somebody is refused, in seconds since 1970.
    until: AtomicU32,
    /// Requests refused since the last report.
    refused: AtomicU64,
    /// Who was shut out since the last report: the first of them, and how many.
    news: Mutex<(Vec<IpAddr>, usize)>,
    /// Keyed at random, so that nobody can choose who shares a set.
    hasher: RandomState,
    sets: Vec<Mutex<[Failing; WAYS]>>,
}

#[derive(Clone, Copy, Default)]
struct Failing {
    /// The hash of the address.
    who: u64,
    count: u32,
    /// The first failure that counts; from the last that is allowed on, that one. Seconds since 1970.
    since: u32,
}

impl Failing {
    fn fresh(&self, now: u32) -> bool {
        now.saturating_sub(self.since) < MINUTE
    }
}

impl Failures {
    /// Shuts an address out after `most` failures within a minute; 0: never.
    pub fn new(most: u32) -> Failures {
        let (hasher, sets) = (RandomState::new(), (0..SETS).map(|_| Mutex::default()).collect());
        let (until, refused, news) = (AtomicU32::new(0), AtomicU64::new(0), Mutex::default());
        Failures { most, until, refused, news, hasher, sets }
    }

    /// Whether an address may try, at a time in seconds since 1970.
    pub fn allowed(&self, ip: IpAddr, now: u32) -> bool {
        // Nearly always nobody is refused.
        if now >= self.until.load(Relaxed) {
            return true;
        }
        let shut = |failing: &Failing| failing.count >= self.most && failing.fresh(now);
        let allowed = !self.with(ip, |who, set| set.iter().any(|failing| failing.who == who && shut(failing)));
        self.refused.fetch_add(u64::from(!allowed), Relaxed);
        allowed
    }

    /// Counts a failure.
    pub fn failed(&self, ip: IpAddr, now: u32) {
        if self.most == 0 {
            return;
        }
        let shut = self.with(ip, |who, set| {
            let known = set.iter().position(|failing| failing.who == who);
            let oldest = || (0..WAYS).min_by_key(|&i| set.get(i).map(|failing| failing.since));
            let Some(failing) = known.or_else(oldest).and_then(|i| set.get_mut(i)) else { return false };
            if failing.who != who || !failing.fresh(now) {
                *failing = Failing { who, count: 0, since: now };
            }
            failing.count = failing.count.saturating_add(1);
            if failing.count == self.most {
                failing.since = now;
            }
            failing.count == self.most
        });
        if shut {
            self.until.fetch_max(now.saturating_add(MINUTE), Relaxed);
            let mut news = lock(&self.news);
            news.1 += 1;
            if news.0.len() < NAMED && !news.0.contains(&ip) {
                news.0.push(ip);
            }
        }
    }

    /// What happened since the last report, as the rest of a sentence; `None` if nobody was shut out.
    pub fn report(&self) -> Option<String> {
        let (named, count) = std::mem::take(&mut *lock(&self.news));
        let refused = self.refused.swap(0, Relaxed);
        let mut text: String = named.iter().map(|ip| format!("{ip}, ")).collect();
        text.truncate(text.len().saturating_sub(2));
        if count > named.len() {
            let _ = write!(text, " and others ({count} times)");
        }
        (count > 0).then(|| format!("from {text}: shut out for a minute ({refused} requests refused meanwhile)"))
    }

    fn with<T>(&self, ip: IpAddr, f: impl FnOnce(u64, &mut [Failing; WAYS]) -> T) -> T {
        let who = self.hasher.hash_one(network(ip));
        f(who, &mut lock(&self.sets[who as usize % SETS]))
    }
}

/// The most keys that a [`Quota`] counts at a time.
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

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn fail(failures: &Failures, ip: IpAddr, times: u32, now: u32) {
        (0..times).for_each(|_| failures.failed(ip, now));
    }

    #[test]
    fn the_twentieth_failure_in_a_minute_shuts_an_address_out_for_a_minute() {
        let (failures, guesser) = (Failures::new(20), ip("192.0.2.1"));
        fail(&failures, guesser, 19, 1_000);
        assert!(failures.allowed(guesser, 1_030));
        failures.failed(guesser, 1_050);
        assert!(!failures.allowed(guesser, 1_050));
        assert!(!failures.allowed(guesser, 1_109));
        assert!(failures.allowed(guesser, 1_110));
        assert!(failures.allowed(ip("192.0.2.2"), 1_050), "somebody else");
        failures.failed(guesser, 1_110);
        assert!(failures.allowed(guesser, 1_110), "counted anew");
    }

    #[test]
    fn failures_of_different_minutes_are_not_added() {
        let (failures, member) = (Failures::new(20), ip("192.0.2.1"));
        for minute in 0..10 {
            fail(&failures, member, 19, 1_000 + minute * 60);
            assert!(failures.allowed(member, 1_000 + minute * 60));
        }
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_address() {
        let failures = Failures::new(20);
        fail(&failures, ip("2001:db8:0:1::1"), 10, 1_000);
        fail(&failures, ip("2001:db8:0:1:ffff::2"), 10, 1_000);
        assert!(!failures.allowed(ip("2001:db8:0:1::3"), 1_000));
        assert!(failures.allowed(ip("2001:db8:0:2::1"), 1_000));
    }

    #[test]
    fn a_million_addresses_take_no_more_room_and_the_last_one_is_still_known() {
        let failures = Failures::new(20);
        (0..1_000_000u32).for_each(|i| failures.failed(IpAddr::V4(i.into()), 1_000 + i / 100_000));
        fail(&failures, ip("192.0.2.1"), 20, 1_010);
        assert!(!failures.allowed(ip("192.0.2.1"), 1_011));
        assert_eq!(failures.sets.len() * WAYS, 8_192);
    }

    #[test]
    fn the_past_before_the_first_minute_is_no_failure() {
        let failures = Failures::new(20);
        assert!(failures.allowed(ip("192.0.2.1"), 0));
    }
}
