//! Torrents and their sessions in memory. Owns who is in which swarm and hands out random peers; knows
//! nothing of rules, credits, sockets or databases.
//!
//! A swarm keeps its peers in parallel columns, seeders first, so that a choice of peers reads only the
//! few bytes it sends: 6 bytes of IPv4 address and port each. A table of slots finds a session by user.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, MutexGuard};

use hashbrown::HashTable;

use crate::books::settle::Resolved;
use crate::books::{Known, Ledger, Life, Session, SessionKey};
use crate::protocol::{
    Addr4, Addr6, Addresses, Factors, Free, NO_ADDR4, NO_ADDR6, Peers, Scrape, Want, ip4, ip6, port,
};
use crate::random::Rng;
use crate::rules::limits::Quota;
use crate::sync::lock;
use crate::torrent::{InfoHash, PeerId};

/// The sessions of one torrent. Slots `0..seeders` seed, the others do not.
#[derive(Default)]
pub struct Swarm {
    sessions: Vec<Session>,
    v4: Vec<Addr4>,
    /// Empty until the first IPv6 address comes, then as long as `sessions`.
    v6: Vec<Addr6>,
    /// Slots by the hash of their user (of their peer id, for the anonymous user).
    index: HashTable<u32>,
    seeders: usize,
    paused: usize,
}

/// Hashes an index key under a secret drawn at start, so that nobody can choose peer ids that collide.
fn hash(user: u32, peer_id: &PeerId) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    if user == 0 { KEY.hash_one(peer_id) } else { KEY.hash_one(user) }
}

/// Makes room for one more without doubling: a million sessions should not pay for two.
fn push<T>(column: &mut Vec<T>, value: T) {
    if column.len() == column.capacity() {
        column.reserve_exact(column.len() / 8 + 1);
    }
    column.push(value);
}

impl Swarm {
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    pub fn seeders(&self) -> usize {
        self.seeders
    }

    /// Sessions that have not, partial seeds among them.
    pub fn leechers(&self) -> usize {
        self.len() - self.seeders
    }

    pub fn downloaders(&self) -> usize {
        self.leechers() - self.paused
    }

    /// The slot of a session, valid until the swarm is changed.
    pub fn find(&self, user: u32, peer_id: &PeerId) -> Option<usize> {
        let same =
            |&slot: &u32| self.sessions.get(slot as usize).is_some_and(|s| s.user == user && s.peer_id == *peer_id);
        self.index.find(hash(user, peer_id), same).map(|&slot| slot as usize)
    }

    /// The slots of all sessions of a user. For the anonymous user, only those with this peer id.
    pub fn of_user<'a>(&'a self, user: u32, peer_id: &PeerId) -> impl Iterator<Item = usize> + 'a {
        let slots = self.index.iter_hash(hash(user, peer_id)).map(|&slot| slot as usize);
        slots.filter(move |&slot| self.sessions.get(slot).is_some_and(|s| s.user == user))
    }

    pub fn get(&self, slot: usize) -> Option<(&Session, Addresses)> {
        let v4 = *self.v4.get(slot)?;
        let v6 = self.v6.get(slot).copied().unwrap_or(NO_ADDR6);
        Some((self.sessions.get(slot)?, Addresses { v4, v6 }))
    }

    /// Whether a user has any session here; the anonymous user, one with this peer id.
    pub fn has(&self, user: u32, peer_id: &PeerId) -> bool {
        self.of_user(user, peer_id).next().is_some()
    }

    /// Stores a session, in the given slot if it has one, and returns its slot.
    pub fn put(&mut self, slot: Option<usize>, session: Session, at: Addresses) -> usize {
        let slot = match slot {
            Some(slot) => {
                self.paused -= usize::from(self.sessions[slot].paused);
                self.sessions[slot] = session;
                self.v4[slot] = at.v4;
                slot
            }
            None => {
                push(&mut self.sessions, session);
                push(&mut self.v4, at.v4);
                if !self.v6.is_empty() {
                    push(&mut self.v6, NO_ADDR6);
                }
                let slot = self.sessions.len() - 1;
                let sessions = &self.sessions;
                self.index.insert_unique(hash(session.user, &session.peer_id), slot as u32, |&other| {
                    hash(sessions[other as usize].user, &sessions[other as usize].peer_id)
                });
                slot
            }
        };
        if at.v6 != NO_ADDR6 && self.v6.is_empty() {
            self.v6.resize(self.sessions.len(), NO_ADDR6);
        }
        if let Some(v6) = self.v6.get_mut(slot) {
            *v6 = at.v6;
        }
        self.paused += usize::from(session.paused);
        self.sort(slot, session.left == 0)
    }

    /// Brings a slot among those of seeders, or of the others, and returns where it is then.
    fn sort(&mut self, slot: usize, seeds: bool) -> usize {
        let seeders = self.seeders;
        let to = match (slot < seeders, seeds) {
            (true, false) => seeders - 1,
            (false, true) => seeders,
            _ => return slot,
        };
        self.seeders = if seeds { seeders + 1 } else { seeders - 1 };
        self.swap(slot, to);
        to
    }

    pub fn remove(&mut self, slot: usize) -> (Session, Addresses) {
        let (slot, last) = (self.sort(slot, false), self.len() - 1);
        self.swap(slot, last);
        let (session, v4) = (self.sessions.swap_remove(last), self.v4.swap_remove(last));
        let at = Addresses { v4, v6: self.v6.pop().unwrap_or(NO_ADDR6) };
        let entry = self.index.find_entry(hash(session.user, &session.peer_id), |&other| other as usize == last);
        entry.map(|entry| entry.remove()).ok();
        self.paused -= usize::from(session.paused);
        (session, at)
    }

    fn swap(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        let slots = [a as u32, b as u32];
        let hashes = [&self.sessions[a], &self.sessions[b]].map(|session| hash(session.user, &session.peer_id));
        let entries = self.index.get_disjoint_mut(hashes, |i, slot| slots.get(i) == Some(slot));
        if let [Some(entry_a), Some(entry_b)] = entries {
            std::mem::swap(entry_a, entry_b);
        }
        self.sessions.swap(a, b);
        self.v4.swap(a, b);
        if !self.v6.is_empty() {
            self.v6.swap(a, b);
        }
    }

    /// Adds random peers to `peers`: leechers only where `slot`, the asker, is a seeder; never the asker,
    /// nor anyone at the asker's own address. Takes time in proportion to `want.count`.
    pub fn choose(&self, slot: usize, want: Want, rng: &mut Rng, peers: &mut Peers) {
        let Some((me, at)) = self.get(slot) else { return };
        let among = if me.left == 0 { self.seeders..self.len() } else { 0..self.len() };
        let (want4, want6) = (want.v4, want.v6 && !self.v6.is_empty());
        // Where some lack an address of the one family that is wanted.
        let mixed = !self.v6.is_empty() && want.v4 != want.v6;
        let has = |slot: usize| {
            let (v4, v6) = (self.v4.get(slot), self.v6.get(slot));
            want4 && v4.is_some_and(|a| *a != NO_ADDR4) || want6 && v6.is_some_and(|a| *a != NO_ADDR6)
        };
        let chosen = if mixed { sample_where(among.clone(), slot, want.count, rng, has) } else { Vec::new() };
        let count = if mixed { 0 } else { want.count };
        for slot in sample(among, slot, count, rng).chain(chosen) {
            let v4 = self.v4.get(slot).filter(|a| want4 && **a != NO_ADDR4 && **a != at.v4);
            let v6 = if want6 { self.v6.get(slot) } else { None };
            let v6 = v6.filter(|a| **a != NO_ADDR6 && **a != at.v6);
            if !want.list {
                peers.v4.extend_from_slice(v4.map_or(&[], |a| a));
                peers.v6.extend_from_slice(v6.map_or(&[], |a| a));
            } else if let Some(session) = self.sessions.get(slot) {
                let id = session.peer_id;
                peers.list.extend(v4.map(|a| (id, ip4(a).into(), port(a))));
                peers.list.extend(v6.map(|a| (id, ip6(a).into(), port(a))));
            }
        }
    }

    /// Forgets addresses and sessions that have not announced since the `deadline` of each session (seconds since 1970).
    /// Returns each session that left or lost an address, as it was.
    pub fn expire(&mut self, deadline: impl Fn(&Session) -> u32) -> Vec<(Session, Addresses)> {
        let mut gone = Vec::new();
        for slot in (0..self.len()).rev() {
            let Some((session, mut at)) = self.get(slot) else { continue };
            let deadline = deadline(session);
            if session.last_seen() < deadline {
                gone.push(self.remove(slot));
            } else if session.seen.iter().any(|&seen| seen != 0 && seen < deadline) {
                let mut session = *session;
                gone.push((session, at));
                if session.seen[0] < deadline {
                    session.seen[0] = 0;
                    at.v4 = NO_ADDR4;
                } else {
                    session.seen[1] = 0;
                    at.v6 = NO_ADDR6;
                }
                self.put(Some(slot), session, at);
            }
        }
        gone
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Session, Addresses)> {
        (0..self.len()).filter_map(|slot| self.get(slot))
    }
}

/// The most slots that are looked at in a row for peers of one address family where these are rare: a few
/// microseconds.
const ROW: usize = 4_096;

/// `count` different numbers of `among` without `skip`, each as likely as any other.
///
/// The range is laid out as a ring, turned by a random angle and cut into `count` arcs of (almost) equal
/// length; each arc gives one. That needs no memory of what was given already, and walks forward.
fn sample(among: Range<usize>, skip: usize, count: usize, rng: &mut Rng) -> impl Iterator<Item = usize> {
    let skips = among.contains(&skip);
    let size = among.len() - usize::from(skips);
    let count = count.min(size);
    let short = size / count.max(1);
    let longer = size % count.max(1);
    let mut from = rng.below(size);
    (0..count).map(move |i| {
        let arc = short + usize::from(i < longer);
        let at = from + rng.below(arc);
        from += arc;
        let at = among.start + if at >= size { at - size } else { at };
        if skips && at >= skip { at + 1 } else { at }
    })
}

/// The same among those that `fits` says yes to; where these are few among very many, perhaps less than `count`.
/// However large the swarm is, looks up eight times as many as are wanted, and then at most [`ROW`] in a row.
fn sample_where(
    among: Range<usize>,
    skip: usize,
    count: usize,
    rng: &mut Rng,
    fits: impl Fn(usize) -> bool,
) -> Vec<usize> {
    let looks = count.saturating_mul(8);
    let mut chosen: Vec<usize> = sample(among.clone(), skip, looks, rng).filter(|slot| fits(*slot)).collect();
    if chosen.len() < count && among.len() > looks {
        let start = rng.below(among.len());
        let row = (0..among.len().min(ROW)).map(|i| among.start + (start + i) % among.len());
        chosen = row.filter(|slot| *slot != skip && fits(*slot)).collect();
    }
    for i in 0..count.min(chosen.len()) {
        let other = i + rng.below(chosen.len() - i);
        chosen.swap(i, other);
    }
    chosen.truncate(count);
    chosen
}

#[derive(Default)]
pub struct Torrent {
    /// Its `files.id`.
    pub id: u32,
    pub snatches: u32,
    pub verified: bool,
    pub refused: bool,
    pub factors: Factors,
    /// Who has it; boxed and absent for the many torrents that nobody is on at the moment.
    pub swarm: Option<Box<Swarm>>,
}

impl Torrent {
    pub fn find(&self, key: &SessionKey) -> Option<Known> {
        let swarm = self.swarm.as_deref()?;
        let (session, at) = swarm.get(swarm.find(key.user, &key.peer_id)?)?;
        Some(Known { session: *session, at, closed: 0 })
    }

    pub fn counts(&self) -> Scrape {
        let counts = |swarm: &Swarm| (swarm.seeders(), swarm.downloaders(), swarm.leechers());
        let (complete, downloaders, incomplete) = self.swarm.as_deref().map_or((0, 0, 0), counts);
        Scrape { complete, downloaded: self.snatches, downloaders, incomplete }
    }
}

/// What one lock guards: the torrents of one part of all info hashes, and what is not yet written of them.
#[derive(Default)]
pub struct Shard {
    pub torrents: HashMap<InfoHash, Torrent>,
    /// The second hashes of hybrid torrents (BEP 52), and the first.
    pub seconds: HashMap<InfoHash, InfoHash>,
    pub ledger: Ledger,
    /// Sessions that were closed a while ago: what is heard of them may be late.
    pub closed: HashMap<SessionKey, Known>,
    pub pace: Pace,
}

/// What sessions did in the last Interval, as far as it limits what they may do.
#[derive(Default)]
pub struct Pace {
    /// Who began how many sessions: by torrent, user, and where passkeys are off address.
    pub begun: Quota<(u32, u32, IpAddr)>,
    /// When sessions announced last from addresses that they have left for others of the same family, in seconds since
    /// 1970: of the last address they know it themselves.
    pub paths: HashMap<(SessionKey, IpAddr), u32>,
}

impl Shard {
    /// What is known of a session, be it open or not.
    pub fn known(&self, info_hash: &InfoHash, key: &SessionKey) -> Option<Known> {
        let torrent = self.torrents.get(info_hash).filter(|torrent| torrent.id == key.file);
        torrent.and_then(|torrent| torrent.find(key)).or_else(|| self.closed.get(key).copied())
    }

    /// Takes over what the database knows of a session that memory has begun without knowing it. Appends the records
    /// that the journal must have of what it announced meanwhile.
    pub fn resolve(&mut self, told: &Resolved, records: &mut Vec<u8>) {
        let learn = |session: &mut Session| {
            // Unless it has begun another life since.
            if session.life == told.life {
                session.life = Life(told.row.life);
                session.began = told.row.current.began;
                session.top = session.top.max(told.row.current.top);
                session.announced = told.row.announced.saturating_add(session.announced.saturating_sub(told.announced));
                session.complete |= told.row.complete;
                session.snatched |= told.row.snatched;
            }
        };
        self.ledger.learn(&told.key, told.life, learn, records);
        if let Some(known) = self.closed.get_mut(&told.key) {
            return learn(&mut known.session);
        }
        let torrent = self.torrents.get_mut(&told.info_hash).filter(|torrent| torrent.id == told.key.file);
        if let Some(swarm) = torrent.and_then(|torrent| torrent.swarm.as_deref_mut())
            && let Some(slot) = swarm.find(told.key.user, &told.key.peer_id)
        {
            swarm.sessions.get_mut(slot).into_iter().for_each(learn);
        }
    }
}

/// How many parts there are. At a million sessions a walk through one of them takes less than 1 ms.
const SHARDS: usize = 256;

pub struct Swarms {
    shards: Vec<Mutex<Shard>>,
    /// What all torrents are credited at least, packed.
    free: AtomicU64,
}

impl Default for Swarms {
    fn default() -> Self {
        Swarms { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), free: AtomicU64::default() }
    }
}

impl Swarms {
    /// Locks the part that a torrent belongs to. Of all other locks only those of `access` may be asked for while it is
    /// held.
    pub fn shard(&self, info_hash: &InfoHash) -> MutexGuard<'_, Shard> {
        // Not the first byte: v2 hashes and SHA-1 are random anywhere, but tests like to count there.
        let part = info_hash.0.iter().fold(0u8, |sum, byte| sum.rotate_left(1) ^ byte);
        lock(&self.shards[usize::from(part) % SHARDS])
    }

    /// What is credited of all torrents at a time in seconds since 1970, if something is.
    pub fn free(&self, now: u32) -> Option<Free> {
        Free::unpack(self.free.load(Relaxed), now)
    }

    /// What is credited of a torrent with factors of its own: as promised now, whenever it is written.
    pub fn credited(&self, factors: Factors, now: u32) -> Factors {
        self.free(now).map_or(factors, |free| factors.better(free.factors))
    }

    /// Takes over what is credited of all torrents, as [`Free::pack`] gives it.
    pub fn set_free(&self, packed: u64) {
        self.free.store(packed, Relaxed);
    }

    pub fn each(&self) -> impl Iterator<Item = MutexGuard<'_, Shard>> {
        self.shards.iter().map(lock)
    }
}
