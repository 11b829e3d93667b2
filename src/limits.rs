//! Failures by address: who guesses secrets is refused for a while, before anything is looked up.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Mutex;

use crate::gate::network;
use crate::swarm::lock;

/// This many failures within a minute, and an address is refused for a minute.
const MOST: u32 = 20;
/// A minute, in seconds.
const MINUTE: u32 = 60;
/// Sets of addresses, and addresses in each: the 8,192 that failed last, about, in 140 KB.
const SETS: usize = 1_024;
const WAYS: usize = 8;

/// Counts failures by IPv4 address and by IPv6 network of 64 bits. Its size is fixed: an address that fails
/// takes the place of the one in its set whose failures are oldest.
pub struct Failures {
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

impl Default for Failures {
    fn default() -> Self {
        Failures { hasher: RandomState::new(), sets: (0..SETS).map(|_| Mutex::default()).collect() }
    }
}

impl Failures {
    /// Whether an address may try, at a time in seconds since 1970.
    pub fn allowed(&self, ip: IpAddr, now: u32) -> bool {
        let refused = |failing: &Failing| failing.count >= MOST && failing.fresh(now);
        !self.with(ip, |who, set| set.iter().any(|failing| failing.who == who && refused(failing)))
    }

    /// Counts a failure.
    pub fn failed(&self, ip: IpAddr, now: u32) {
        self.with(ip, |who, set| {
            let known = set.iter().position(|failing| failing.who == who);
            let oldest = || (0..WAYS).min_by_key(|&i| set.get(i).map(|failing| failing.since));
            let Some(failing) = known.or_else(oldest).and_then(|i| set.get_mut(i)) else { return };
            if failing.who != who || !failing.fresh(now) {
                *failing = Failing { who, count: 0, since: now };
            }
            failing.count = failing.count.saturating_add(1);
            if failing.count == MOST {
                failing.since = now;
            }
        });
    }

    fn with<T>(&self, ip: IpAddr, f: impl FnOnce(u64, &mut [Failing; WAYS]) -> T) -> T {
        let who = self.hasher.hash_one(network(ip));
        f(who, &mut lock(&self.sets[who as usize % SETS]))
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
        let (failures, guesser) = (Failures::default(), ip("192.0.2.1"));
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
        let (failures, member) = (Failures::default(), ip("192.0.2.1"));
        for minute in 0..10 {
            fail(&failures, member, 19, 1_000 + minute * 60);
            assert!(failures.allowed(member, 1_000 + minute * 60));
        }
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_address() {
        let failures = Failures::default();
        fail(&failures, ip("2001:db8:0:1::1"), 10, 1_000);
        fail(&failures, ip("2001:db8:0:1:ffff::2"), 10, 1_000);
        assert!(!failures.allowed(ip("2001:db8:0:1::3"), 1_000));
        assert!(failures.allowed(ip("2001:db8:0:2::1"), 1_000));
    }

    #[test]
    fn a_million_addresses_take_no_more_room_and_the_last_one_is_still_known() {
        let failures = Failures::default();
        (0..1_000_000u32).for_each(|i| failures.failed(IpAddr::V4(i.into()), 1_000 + i / 100_000));
        fail(&failures, ip("192.0.2.1"), 20, 1_010);
        assert!(!failures.allowed(ip("192.0.2.1"), 1_011));
        assert_eq!(failures.sets.len() * WAYS, 8_192);
    }

    #[test]
    fn the_past_before_the_first_minute_is_no_failure() {
        let failures = Failures::default();
        assert!(failures.allowed(ip("192.0.2.1"), 0));
    }
}
