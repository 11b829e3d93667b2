//! THE RULES: who may announce and scrape, and what they are told. Plain functions without I/O or a clock of
//! their own, shared by HTTP and UDP.
//!
//! A listener first asks [`admit`] who is there, then reads the rest of the request into an [`Announce`] and calls
//! [`announce`], whose stages follow one another: what is the session now, may it announce, what does the announce
//! make of it, who is in the swarm then, what must the books hold, which peers are sent.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ring::digest::{Context, SHA256};

use crate::books::session::LATE;
use crate::books::{Known, Ledger, Session, SessionKey, State, hear};
use crate::config::Config;
use crate::protocol::{Addresses, Announce, Event, Peers, Refusal, Reply, Scrape, ip4, ip6, network};
use crate::random::Rng;
use crate::rules::access::{Access, User};
use crate::rules::swarm::{Pace, Shard, Swarm, Swarms, Torrent};
use crate::torrent::{InfoHash, PeerId};

/// The interval of leechers, and how far those of seeders are spread, in seconds.
const SHORT_INTERVAL: u32 = 600;
/// The most addresses that sessions of one shard have left and whose pace is remembered.
const MAX_PATHS: usize = 1_024;
/// The bytes of a peer id that name the client's program and its version (BEP 20).
const PROGRAM: usize = 8;

#[derive(Clone, Copy)]
pub struct Visitor<'a> {
    /// Over UDP there is none.
    pub agent: Option<&'a [u8]>,
    pub peer_id: Option<&'a [u8]>,
    pub passkey: Option<&'a str>,
    pub stopping: bool,
}

/// Who is there, and what speaks against it, unless it ends a session that is there: that is never refused.
pub struct Admitted {
    pub user: Arc<User>,
    pub refusal: Option<Refusal>,
}

pub struct Buffers {
    pub rng: Rng,
    pub peers: Peers,
    /// For the journal, to be written before the answer leaves.
    pub records: Vec<u8>,
}

impl Buffers {
    pub fn new(rng: Rng) -> Buffers {
        Buffers { rng, peers: Peers::default(), records: Vec::new() }
    }
}

/// The first checks, which need no more of a request than its [`Visitor`].
pub fn admit(config: &Config, access: &Access, visitor: &Visitor) -> Result<Admitted, Refusal> {
    let user = || match visitor.passkey {
        _ if !config.passkey => Ok(access.anonymous()),
        None => Err(Refusal::NoPasskey),
        Some(passkey) => access.user(passkey),
    };
    let approved = !config.whitelist || access.approves(visitor.agent, visitor.peer_id);
    if !approved && !visitor.stopping {
        // A client that names its member's passkey there would bring that into the log.
        let secret = |agent: &[u8]| visitor.passkey.is_some_and(|key| String::from_utf8_lossy(agent).contains(key));
        // Only members may suggest clients, or anybody could fill the operator's list.
        if let (Some(agent), Ok(user)) = (visitor.agent.filter(|agent| !secret(agent)), user())
            && !user.banned()
        {
            access.suggest_client(agent, user.id);
        }
        return Err(Refusal::NotWhitelisted);
    }
    let user = user()?;
    let refusal = if approved { user.banned().then_some(Refusal::Banned) } else { Some(Refusal::NotWhitelisted) };
    match refusal {
        Some(refusal) if !visitor.stopping => Err(refusal),
        refusal => Ok(Admitted { user, refusal }),
    }
}

/// Answers an announce: changes the swarm, notes what the books must hold, and chooses peers.
pub fn announce(
    config: &Config,
    swarms: &Swarms,
    who: &Admitted,
    a: &Announce,
    now: u32,
    buffers: &mut Buffers,
) -> Result<Reply, Refusal> {
    if a.port == 0 && a.event != Event::Stopped {
        return Err(Refusal::Integer("port"));
    }
    let mut a = a.clone();
    if who.user.id == 0 {
        a.peer_id = anonymous_id(&a.peer_id, a.ip);
    }
    let mut shard = swarms.shard(&a.info_hash);
    let Shard { torrents, ledger, closed, pace, .. } = &mut *shard;
    buffers.peers.clear();
    let Some(torrent) = torrents.get_mut(&a.info_hash) else {
        drop(shard);
        // No session is there that could end.
        who.refusal.map_or(Ok(()), Err)?;
        // Of the second hash of a hybrid torrent there are counts and no peers, and nothing is booked.
        return Ok(reply(config, &counts(config, swarms, &a.info_hash)?, &a, &mut buffers.rng));
    };
    let key = SessionKey { file: torrent.id, user: who.user.id, peer_id: a.peer_id };
    let known = torrent.find(&key).or_else(|| closed.get(&key).copied());
    let entered = may(config, torrent, who, &a, known.as_ref(), pace, now)?;

    let mut state = hear(known.as_ref(), who.user.id, &a, now, silence(config));
    state.factors = swarms.credited(torrent.factors, now);
    let swarm = torrent.swarm.get_or_insert_default();
    let moved = known.is_none_or(|known| known.closed != 0 || known.at != state.known.at);
    if state.known.closed == 0 && moved {
        for known in close_replaced(swarm, &key, &state.known.at, now) {
            closed.insert(SessionKey { peer_id: known.session.peer_id, ..key }, known);
            let state = State { known, factors: torrent.factors, ..State::default() };
            ledger.note(&a.info_hash, key.file, state, &mut buffers.records);
        }
    }
    let slot = place(swarm, closed, &key, &state.known);
    let counted = entered || known.is_some_and(|known| known.closed == 0);
    if slot.is_none() && counted && !swarm.has(key.user, &a.peer_id) {
        who.user.leave();
    }
    ledger.note(&a.info_hash, key.file, state, &mut buffers.records);

    if let Some(slot) = slot.filter(|_| a.event != Event::Stopped) {
        swarm.choose(slot, a.want, &mut buffers.rng, &mut buffers.peers);
    }
    torrent.swarm.take_if(|swarm| swarm.is_empty());
    Ok(reply(config, &torrent.counts(), &a, &mut buffers.rng))
}

/// What stands for the peer id of an anonymous client, in memory and in the books: so that nobody can close or move the
/// session of another address by naming its peer id, the address is in it. Without a key, to be the same after a
/// restart. The first 8 bytes, which name the program, stay.
fn anonymous_id(peer_id: &PeerId, ip: IpAddr) -> PeerId {
    let mut context = Context::new(&SHA256);
    context.update(&peer_id.0);
    match ip {
        IpAddr::V4(ip) => context.update(&ip.octets()),
        IpAddr::V6(ip) => context.update(&ip.octets()),
    }
    let mut id = *peer_id;
    id.0.iter_mut().skip(PROGRAM).zip(context.finish().as_ref()).for_each(|(byte, hash)| *byte = *hash);
    id
}

/// Whether a session may announce. Returns whether its user was counted in on one more torrent.
fn may(
    config: &Config,
    torrent: &Torrent,
    who: &Admitted,
    a: &Announce,
    known: Option<&Known>,
    pace: &mut Pace,
    now: u32,
) -> Result<bool, Refusal> {
    let user = &who.user;
    let stopped = a.event == Event::Stopped;
    if stopped && known.is_some() {
        return Ok(false);
    }
    // Of who is banned since they were admitted the sessions may have left this swarm already.
    who.refusal.or(user.banned().then_some(Refusal::Banned)).map_or(Ok(()), Err)?;
    if !is_good(config, torrent) {
        return Err(Refusal::Unverified);
    }
    if let Some(known) = known.filter(|known| known.closed == 0) {
        let soon = too_fast(config, torrent.id, known, a, &mut pace.paths, now);
        return if soon { Err(Refusal::SlowDown) } else { Ok(false) };
    }
    let clients = torrent.swarm.as_ref().map_or(0, |swarm| swarm.of_user(user.id, &a.peer_id).count());
    let entered = !stopped && clients == 0;
    if entered {
        user.enter()?;
    } else if !stopped && clients >= config.clients as usize {
        return Err(Refusal::SlowDown);
    }
    // Each session costs the database a row, and memory until it is written. Each client may be restarted once.
    let most = config.clients.saturating_mul(2);
    let whose = if user.id == 0 { network(a.ip) } else { Ipv4Addr::UNSPECIFIED.into() };
    if known.is_none() && !pace.begun.take((torrent.id, user.id, whose), most, config.interval, now) {
        if entered {
            user.leave();
        }
        return Err(Refusal::SlowDown);
    }
    Ok(entered)
}

/// Whether a torrent may be announced: an operator has approved it, or need not, and has not refused it.
fn is_good(config: &Config, torrent: &Torrent) -> bool {
    torrent.verified || !config.verified && !torrent.refused
}

/// Whether a regular announce comes sooner than the shortest time that its session may have been told. Each path, an
/// address of either family, has a pace of its own.
fn too_fast(
    config: &Config,
    file: u32,
    known: &Known,
    a: &Announce,
    paths: &mut HashMap<(SessionKey, IpAddr), u32>,
    now: u32,
) -> bool {
    let session = &known.session;
    let told = shortest(config.interval, session.left == 0) / 2;
    let pause = u64::from(told) * u64::from(config.slow_down) / 100;
    // Absent where the clock was set back before a restart.
    let recent = |seen: u32| seen != 0 && now.checked_sub(seen).is_some_and(|since| u64::from(since) < pause);
    let [seen4, seen6] = session.seen;
    let (seen, last) = match a.ip {
        IpAddr::V4(_) => (seen4, ip4(&known.at.v4).into()),
        IpAddr::V6(_) => (seen6, ip6(&known.at.v6).into()),
    };
    let path = |ip| (SessionKey { file, user: session.user, peer_id: session.peer_id }, ip);
    let soon = if last == a.ip { recent(seen) } else { paths.get(&path(a.ip)).is_some_and(|seen| recent(*seen)) };
    let refused = soon && matches!(a.event, Event::None | Event::Paused);
    if last != a.ip && recent(seen) && !refused {
        // To forget all when there are too many keeps it small, and spares a few clients a refusal.
        if paths.len() >= MAX_PATHS {
            paths.clear();
        }
        paths.insert(path(last), seen);
    }
    refused
}

/// Closes the other sessions of a user at the addresses of one that has come there: a client that was killed, and
/// is back under another peer id.
fn close_replaced(swarm: &mut Swarm, own: &SessionKey, at: &Addresses, now: u32) -> Vec<Known> {
    let others = swarm.of_user(own.user, &own.peer_id).filter_map(|slot| swarm.get(slot));
    let others = others.filter(|(session, there)| session.peer_id != own.peer_id && there.meets(at));
    let others: Vec<PeerId> = others.map(|(session, _)| session.peer_id).collect();
    let gone = others.iter().filter_map(|peer_id| Some(swarm.remove(swarm.find(own.user, peer_id)?)));
    gone.map(|(session, at)| Known { session, at, closed: now.max(1) }).collect()
}

/// Brings a session to where it belongs: into the swarm, whose slot is returned, or among the closed ones.
pub(super) fn place(
    swarm: &mut Swarm,
    closed: &mut HashMap<SessionKey, Known>,
    key: &SessionKey,
    known: &Known,
) -> Option<usize> {
    let slot = swarm.find(key.user, &key.peer_id);
    if known.closed == 0 {
        if slot.is_none() {
            closed.remove(key);
        }
        return Some(swarm.put(slot, known.session, known.at));
    }
    slot.map(|slot| swarm.remove(slot));
    closed.insert(*key, *known);
    None
}

/// Seeders are spread so that they do not all come at once.
fn reply(config: &Config, counts: &Scrape, a: &Announce, rng: &mut Rng) -> Reply {
    let Scrape { complete, incomplete, downloaded, .. } = *counts;
    let shortest = shortest(config.interval, a.left == 0);
    let later = if a.left == 0 { rng.below((config.interval - shortest) as usize + 1) as u32 } else { 0 };
    let interval = shortest + later;
    Reply { complete, incomplete, downloaded, interval, min_interval: interval / 2 }
}

/// Seconds of silence after which a session is over.
pub fn silence(config: &Config) -> u32 {
    config.interval.saturating_mul(2)
}

/// The shortest interval that a peer is told, in seconds. A seeder's is half the configured one at least: an
/// Interval of 600 must not give 0.
fn shortest(interval: u32, seeder: bool) -> u32 {
    if seeder { interval.saturating_sub(SHORT_INTERVAL).max(interval / 2) } else { interval.min(SHORT_INTERVAL) }
}

/// Takes the sessions that have been silent for two Intervals out of one shard, and forgets those that were closed
/// so long ago that their rows tell as much: not while these are unwritten, for two lives without a number would be
/// one.
pub fn expire(config: &Config, access: &Access, shard: &mut Shard, now: u32, records: &mut Vec<u8>) {
    let silence = silence(config);
    let Shard { torrents, ledger, closed, .. } = shard;
    let closing = |session: &Session| session.last_seen().saturating_add(silence);
    let deadline = now.saturating_sub(silence);
    remove(access, torrents, closed, ledger, (|_: &Session| deadline, closing), records);
    closed.retain(|key, known| now.saturating_sub(known.closed) <= LATE || ledger.has(key, known.session.life));
    ledger.forget_heard(deadline);
}

pub fn drop_users(access: &Access, shard: &mut Shard, users: &HashSet<u32>, now: u32, records: &mut Vec<u8>) {
    let Shard { torrents, ledger, closed, .. } = shard;
    let deadline = |session: &Session| if users.contains(&session.user) { u32::MAX } else { 0 };
    remove(access, torrents, closed, ledger, (deadline, |_: &Session| now), records);
}

pub fn drop_torrent(access: &Access, shard: &mut Shard, info_hash: &InfoHash, now: u32, records: &mut Vec<u8>) {
    let Shard { torrents, ledger, closed, .. } = shard;
    let mut torrent = torrents.remove_entry(info_hash);
    let torrent = torrent.iter_mut().map(|(info_hash, torrent)| (&*info_hash, torrent));
    remove(access, torrent, closed, ledger, (|_: &Session| u32::MAX, |_: &Session| now), records);
}

/// Takes sessions out of the swarms of torrents, and notes what the books must hold of them: those that have not
/// announced since their deadline, and are then closed at another time, both in seconds since 1970.
fn remove<'a>(
    access: &Access,
    torrents: impl IntoIterator<Item = (&'a InfoHash, &'a mut Torrent)>,
    closed: &mut HashMap<SessionKey, Known>,
    ledger: &mut Ledger,
    (deadline, closing): (impl Fn(&Session) -> u32, impl Fn(&Session) -> u32),
    records: &mut Vec<u8>,
) {
    for (info_hash, torrent) in torrents {
        let Some(swarm) = &mut torrent.swarm else { continue };
        let mut gone = swarm.expire(&deadline);
        // A user who had several clients here has left one torrent.
        gone.sort_unstable_by_key(|(session, _)| session.user);
        for same in gone.chunk_by(|(a, _), (b, _)| a.user == b.user) {
            let left = same.first().filter(|(session, _)| !swarm.has(session.user, &session.peer_id));
            left.and_then(|(session, _)| access.by_id(session.user)).iter().for_each(|user| user.leave());
        }
        for (session, at) in gone {
            let key = SessionKey { file: torrent.id, user: session.user, peer_id: session.peer_id };
            // It may only have lost one of its two addresses.
            let known = torrent.find(&key).unwrap_or(Known { session, at, closed: closing(&session).max(1) });
            if known.closed != 0 {
                closed.insert(key, known);
            }
            ledger.note(info_hash, key.file, State { known, factors: torrent.factors, ..State::default() }, records);
        }
        torrent.swarm.take_if(|swarm| swarm.is_empty());
    }
}

/// What a scrape says of one torrent; `None` where it may not be known.
pub fn scrape(config: &Config, swarms: &Swarms, info_hash: &InfoHash) -> Option<Scrape> {
    counts(config, swarms, info_hash).ok()
}

/// The counts of a torrent, by either hash of a hybrid one (BEP 52).
fn counts(config: &Config, swarms: &Swarms, info_hash: &InfoHash) -> Result<Scrape, Refusal> {
    let unknown = Some(swarms.shard(info_hash)).filter(|shard| !shard.torrents.contains_key(info_hash));
    let first = unknown.and_then(|shard| shard.seconds.get(info_hash).copied());
    let info_hash = first.as_ref().unwrap_or(info_hash);
    let shard = swarms.shard(info_hash);
    let torrent = shard.torrents.get(info_hash).ok_or(Refusal::Unregistered)?;
    if is_good(config, torrent) { Ok(torrent.counts()) } else { Err(Refusal::Unverified) }
}
