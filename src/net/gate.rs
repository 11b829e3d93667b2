//! Who may connect: how many connections are open, in all and from one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use crate::config::Config;
use crate::protocol::network;
use crate::sync::lock;

/// The most connections from one IPv4 address or IPv6 network at a time.
const MAX_PER_ADDRESS: u32 = 32;
/// The most bytes that all connections together may hold, of requests that are not whole and answers that
/// are not taken.
const MAX_HELD: usize = 24 << 20;
/// What each connection may hold of them, whatever others do: more than most requests.
const FAIR_SHARE: usize = 1024;

/// Connections open now: in all, and by address.
pub struct Gate {
    most: usize,
    open: Arc<AtomicUsize>,
    held: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, u32>>,
}

/// A connection's place among those of its address; gives it back when dropped.
pub struct Place {
    gate: Arc<Gate>,
    held: usize,
    /// Absent for addresses that may have any number.
    address: Option<IpAddr>,
}

impl Gate {
    /// Lets in at most so many connections in all, and counts those that are open.
    pub fn new(most: usize, open: Arc<AtomicUsize>) -> Gate {
        Gate { most, open, held: AtomicUsize::new(0), by_address: Mutex::default() }
    }

    /// Counts a connection in, or says no.
    pub fn enter(self: &Arc<Gate>, config: &Config, ip: IpAddr) -> Option<Place> {
        let exempt = ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST || config.trusts(ip);
        let address = (!exempt).then(|| network(ip));
        if let Some(address) = address {
            let mut by_address = lock(&self.by_address);
            let count = by_address.entry(address).or_insert(0);
            if *count >= MAX_PER_ADDRESS {
                return None;
            }
            *count += 1;
        }
        self.open.fetch_add(1, Relaxed);
        Some(Place { gate: self.clone(), held: 0, address })
    }

    /// So many connections that none should be kept without need.
    pub fn crowded(&self) -> bool {
        self.open.load(Relaxed) > self.most / 4 * 3
    }

    /// No room for another.
    pub fn full(&self) -> bool {
        self.open.load(Relaxed) >= self.most
    }
}

impl Place {
    /// Notes how many bytes the connection holds now. Returns false if it has to let go: it holds more than
    /// its share, and all connections together too much.
    pub fn hold(&mut self, bytes: usize) -> bool {
        if bytes != self.held {
            self.gate.held.fetch_add(bytes, Relaxed);
            self.gate.held.fetch_sub(self.held, Relaxed);
            self.held = bytes;
        }
        bytes <= FAIR_SHARE || self.gate.held.load(Relaxed) <= MAX_HELD
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.held.fetch_sub(self.held, Relaxed);
        self.gate.open.fetch_sub(1, Relaxed);
        let Some(address) = self.address else { return };
        let mut by_address = lock(&self.gate.by_address);
        if let Some(count) = by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&address);
            }
        }
    }
}
