//! THE RULES: who may announce and scrape, what they are told, and what is credited. Plain functions
//! without I/O or a clock of their own, shared by HTTP and UDP.
//!
//! A listener first asks [`admit`] who is there, then reads the rest of the request into an [`Announce`]
//! and calls [`announce`]. The order of the checks is the order in which an announce meets them.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::books::ledger::Ledger;
use crate::config::Config;
use crate::protocol::{Addresses, Announce, Event, Peers, Refusal, Reply, Scrape, network};
use crate::random::Rng;
use crate::rules::access::{Access, User};
use crate::rules::swarm::{Shard, Swarm, Swarms, Torrent};
use crate::store::{First, Session, SessionKey, SessionRow, TotalKey, credit};
use crate::torrent::InfoHash;

/// The interval of leechers, and how far those of seeders are spread, in seconds.
const SHORT_INTERVAL: u32 = 600;

/// Who is there: the first checks, which need nothing of the request but its path, its User-Agent (over
/// UDP there is none) and its peer id. `allowed` says whether its address may try passkeys.
pub fn admit(
    config: &Config,
    access: &Access,
    agent: Option<&[u8]>,
    peer_id: Option<&[u8]>,
    passkey: Option<&str>,
    allowed: bool,
) -> Result<Arc<User>, Refusal> {
    let user = || match passkey {
        _ if !config.passkey => Ok(access.anonymous()),
        None => Err(Refusal::NoPasskey),
        Some(_) if !allowed => Err(Refusal::SlowDown),
        Some(passkey) => access.user(passkey),
    };
    if config.whitelist && !access.approves(agent, peer_id) {
        // Only members may suggest clients, or anybody could fill the operator's list.
        // A client that names its member's passkey there would bring that into the log.
        let secret = |agent: &[u8]| passkey.is_some_and(|key| String::from_utf8_lossy(agent).contains(key));
        if let (Some(agent), Ok(_)) = (agent.filter(|agent| !secret(agent)), user()) {
            access.suggest_client(agent);
        }
        return Err(Refusal::NotWhitelisted);
    }
    user()
}

/// Answers an announce: changes the swarm, notes what the books must hold, and chooses peers.
pub fn announce(
    config: &Config,
    swarms: &Swarms,
    user: &User,
    a: &Announce,
    now: u32,
    rng: &mut Rng,
    peers: &mut Peers,
) -> Result<Reply, Refusal> {
    let mut shard = swarms.shard(&a.info_hash);
    let Shard { torrents, ledger, begun } = &mut *shard;
    let torrent = torrents.get_mut(&a.info_hash).ok_or(Refusal::Unregistered)?;
    if config.verified && !torrent.verified {
        return Err(Refusal::Unverified);
    }
    let swarm = torrent.swarm.get_or_insert_default();
    let slot = swarm.find(user.id, &a.peer_id);
    let known = slot.and_then(|slot| swarm.get(slot)).map(|(session, at)| (*session, at));
    let (interval, min_interval) = intervals(config.interval, a.left == 0, rng);
    let family = usize::from(a.ip.is_ipv6());
    let mut entered = false;
    match &known {
        Some((last, _)) if matches!(a.event, Event::None | Event::Paused) => {
            // The shortest that it may have been told.
            let told = shortest(config.interval, last.left == 0) / 2;
            let pause = u64::from(told) * u64::from(config.slow_down) / 100;
            // Absent where the clock was set back before a restart.
            let since = now.checked_sub(last.seen[family]).map(u64::from);
            if last.seen[family] != 0 && since.is_some_and(|since| since < pause) {
                return Err(Refusal::SlowDown);
            }
        }
        None if a.event != Event::Stopped => match swarm.of_user(user.id, &a.peer_id).count() {
            0 => {
                user.enter().map_err(|(active, limit)| Refusal::Limit { active, limit })?;
                entered = true;
            }
            clients if clients >= config.clients as usize => return Err(Refusal::SlowDown),
            _ => {}
        },
        _ => {}
    }

    let key = SessionKey { file: torrent.id, user: user.id, peer_id: a.peer_id };
    let started = a.event == Event::Started;
    let before = known.map(|(session, _)| session);
    let before_at = known.map_or(Addresses::NONE, |(_, at)| at);
    let last = known.or_else(|| ledger.session(&key));
    // Each session costs the database a row, and memory until it is written. So does each address of one.
    let whose = match last {
        _ if user.id == 0 => network(a.ip),
        None => Ipv4Addr::UNSPECIFIED.into(),
        Some(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let new = last.is_none_or(|(_, at)| at.ips().all(|ip| ip != a.ip));
    if new && !begun.another(TotalKey { file: torrent.id, user: user.id, ip: whose }, config, now) {
        if entered {
            user.leave();
        }
        return Err(Refusal::SlowDown);
    }
    let last = last.map(|(session, _)| session);
    // The database's numbers end at 2^63 - 1, and nobody moves that many bytes.
    let bytes = |n: u64| n.min(i64::MAX as u64);
    let (counters, left) = ((bytes(a.uploaded), bytes(a.downloaded)), bytes(a.left));
    let moved = match last {
        _ if user.id == 0 => (0, 0),
        Some(last) => credit(Some((last.uploaded, last.downloaded)), started, counters),
        None => (0, 0), // See `First`.
    };
    let snatched = a.event == Event::Completed && a.left == 0 && !last.is_some_and(|s| s.completed);
    let mut session = Session {
        uploaded: counters.0,
        downloaded: counters.1,
        left,
        seen: before.map_or([0, 0], |s| s.seen),
        user: user.id,
        peer_id: a.peer_id,
        paused: a.event == Event::Paused && a.left > 0,
        completed: snatched || last.is_some_and(|s| s.completed),
    };
    session.seen[family] = now;
    let mut at = before_at;
    at.set(a.ip, a.port);

    let stopped = a.event == Event::Stopped;
    let slot = if stopped {
        if let Some(slot) = slot {
            swarm.remove(slot);
            if swarm.of_user(user.id, &a.peer_id).next().is_none() {
                user.leave();
            }
        }
        None
    } else {
        Some(swarm.put(slot, session, at))
    };

    let factors = torrent.factors;
    let first = First { started, uploaded: counters.0, downloaded: counters.1, ip: a.ip, factors };
    let first = (last.is_none() && user.id != 0).then_some(first);
    let noted = ledger.note(torrent.id, SessionRow { session, at, active: !stopped, first });
    let total_key = TotalKey { file: torrent.id, user: user.id, ip: a.ip };
    let total = ledger.total(total_key);
    total.add(moved, factors);
    total.announced = total.announced.saturating_add(1);
    total.completed |= snatched;
    if let Some(before) = before.filter(|before| before.left == 0) {
        let seconds = now.saturating_sub(before.last_seen());
        total.seed_time += u64::from(seconds.min(config.interval.saturating_mul(2)));
    }
    (total.left, total.time, total.active) = (left, now, true);
    let mut total = *total;
    let moved_away = before_at.ips().any(|ip| ip.is_ipv4() == a.ip.is_ipv4() && ip != a.ip);
    for (_, gone_from) in [(stopped, at), (moved_away, before_at)].into_iter().filter(|(gone, _)| *gone) {
        close_totals(ledger, torrent.id, swarm, &session, gone_from, Some(a.ip));
        total = *ledger.total(total_key);
    }
    // Both in one: a session without its credit would lose that. And last: where goat is killed before this, the
    // announce that is repeated closes the other totals again.
    let entry = (Some(noted), Some((total_key, total)));
    ledger.keep(&entry);

    peers.clear();
    if let Some(slot) = slot {
        swarm.choose(slot, a.want, rng, peers);
    }
    let reply = Reply {
        complete: swarm.seeders(),
        incomplete: swarm.leechers(),
        downloaded: torrent.snatches,
        interval,
        min_interval,
    };
    if swarm.is_empty() {
        torrent.swarm = None;
    }
    Ok(reply)
}

/// The shortest interval that a peer is told, in seconds. A seeder's is half the configured one at least: an
/// Interval of 600 must not give 0.
fn shortest(interval: u32, seeder: bool) -> u32 {
    if seeder { interval.saturating_sub(SHORT_INTERVAL).max(interval / 2) } else { interval.min(SHORT_INTERVAL) }
}

/// (interval, min interval) in seconds. Seeders are spread so that they do not all come at once.
fn intervals(interval: u32, seeder: bool, rng: &mut Rng) -> (u32, u32) {
    let shortest = shortest(interval, seeder);
    let chosen = if seeder { shortest + rng.below((interval - shortest) as usize + 1) as u32 } else { shortest };
    (chosen, chosen / 2)
}

/// Marks as inactive the totals of the addresses that a session has left, unless a session of the same user
/// is still at one of them. The journal gets them, but for that at `own`, which follows with the session.
fn close_totals(ledger: &mut Ledger, file: u32, swarm: &Swarm, gone: &Session, at: Addresses, own: Option<IpAddr>) {
    for ip in at.ips() {
        let here = swarm.of_user(gone.user, &gone.peer_id).filter_map(|slot| swarm.get(slot));
        let active = here.map(|(_, at)| at).any(|at| at.ips().any(|other| other == ip));
        let key = TotalKey { file, user: gone.user, ip };
        let total = ledger.total(key);
        total.active = active;
        if gone.last_seen() >= total.time {
            (total.left, total.time) = (gone.left, gone.last_seen());
        }
        let entry = (None, Some((key, *total)));
        if own != Some(ip) {
            ledger.keep(&entry);
        }
    }
}

/// Takes the sessions that have been silent for two Intervals out of one shard.
pub fn expire(config: &Config, access: &Access, shard: &mut Shard, now: u32) {
    let deadline = now.saturating_sub(config.interval.saturating_mul(2));
    remove_where(access, shard, |swarm, gone| swarm.expire(deadline, gone));
}

/// Takes the sessions of some users out of one shard, as a ban or a removal demands.
pub fn drop_users(access: &Access, shard: &mut Shard, users: &HashSet<u32>) {
    remove_where(access, shard, |swarm, gone| swarm.remove_users(|user| users.contains(&user), gone));
}

/// Forgets a torrent and its sessions.
pub fn drop_torrent(access: &Access, shard: &mut Shard, info_hash: &InfoHash) {
    if let Some(mut torrent) = shard.torrents.remove(info_hash) {
        remove(access, &mut shard.ledger, &mut torrent, |swarm, gone| swarm.remove_users(|_| true, gone));
    }
}

fn remove_where(access: &Access, shard: &mut Shard, which: impl Fn(&mut Swarm, &mut dyn FnMut(Session, Addresses))) {
    let Shard { torrents, ledger, .. } = shard;
    torrents.values_mut().for_each(|torrent| remove(access, ledger, torrent, &which));
}

/// Takes sessions out of a torrent's swarm, and notes what the books must hold of it.
fn remove(
    access: &Access,
    ledger: &mut Ledger,
    torrent: &mut Torrent,
    which: impl Fn(&mut Swarm, &mut dyn FnMut(Session, Addresses)),
) {
    let Some(swarm) = &mut torrent.swarm else {
        return;
    };
    let mut gone = Vec::new();
    which(swarm, &mut |session, at| gone.push((session, at)));
    for (session, at) in &gone {
        // It may only have lost one of its two addresses.
        let still = swarm.find(session.user, &session.peer_id).and_then(|slot| swarm.get(slot));
        let (now, now_at, active) = still.map_or((session, *at, false), |(now, at)| (now, at, true));
        let noted = ledger.note(torrent.id, SessionRow { session: *now, at: now_at, active, first: None });
        ledger.keep(&(Some(noted), None));
        close_totals(ledger, torrent.id, swarm, session, *at, None);
    }
    // A user who had several clients here has left one torrent.
    gone.sort_unstable_by_key(|(session, _)| session.user);
    gone.dedup_by_key(|(session, _)| session.user);
    for (session, _) in gone {
        if swarm.of_user(session.user, &session.peer_id).next().is_none() {
            access.left(session.user);
        }
    }
    if swarm.is_empty() {
        torrent.swarm = None;
    }
}

/// What a scrape says of one torrent; `None` where it may not be known.
pub fn scrape(config: &Config, swarms: &Swarms, info_hash: &InfoHash) -> Option<Scrape> {
    let shard = swarms.shard(info_hash);
    let torrent = shard.torrents.get(info_hash).filter(|t| t.verified || !config.verified)?;
    let counts = |swarm: &Swarm| (swarm.seeders(), swarm.downloaders(), swarm.leechers());
    let (complete, downloaders, incomplete) = torrent.swarm.as_deref().map_or((0, 0, 0), counts);
    Some(Scrape { complete, downloaded: torrent.snatches, downloaders, incomplete })
}
