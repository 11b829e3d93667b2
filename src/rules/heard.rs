//! What other goats say of sessions, taken over into the swarms. Nothing of it is noted in ledger or journal: it is in
//! theirs.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use crate::books::session::LATE;
use crate::books::{Known, Session, SessionKey, State, merge};
use crate::config::Config;
use crate::protocol::{ip4, ip6, network};
use crate::rules::access::{Access, User};
use crate::rules::announce::{place, silence};
use crate::rules::swarm::{Shard, Torrent};
use crate::torrent::InfoHash;

/// Takes over what another goat, or the database, says of a session of a torrent, at a time in seconds since 1970.
/// Returns false where that is of a member who is not known here.
pub fn take_over(
    config: &Config,
    access: &Access,
    shard: &mut Shard,
    info_hash: &InfoHash,
    key: &SessionKey,
    state: &State,
    now: u32,
) -> bool {
    let Shard { torrents, ledger, closed, pace, .. } = shard;
    let Some(torrent) = torrents.get_mut(info_hash).filter(|torrent| torrent.id == key.file) else { return true };
    let known = torrent.find(key).or_else(|| closed.get(key).copied());
    let next = known.as_ref().map_or(state.known, |mine| merge(mine, state));
    let over = |known: &Known| match known.closed {
        0 => known.session.last_seen().saturating_add(silence(config)) < now,
        closed => closed.saturating_add(LATE) < now,
    };
    let member = access.by_id(key.user);
    let gone = key.user != 0 && member.as_ref().is_none_or(|member| member.banned());
    if known.is_none() && (over(&next) || gone) || gone && next.closed == 0 {
        return key.user == 0 || member.is_some();
    }
    if known.is_none() {
        let Session { seen: [v4, v6], .. } = next.session;
        let at = if v4 >= v6 { ip4(&next.at.v4).into() } else { ip6(&next.at.v6).into() };
        let whose = if key.user == 0 { network(at) } else { Ipv4Addr::UNSPECIFIED.into() };
        pace.begun.take((key.file, key.user, whose), u32::MAX, config.interval, now);
    }
    ledger.hear(*key, next.session.life, state.birth);
    put(torrent, closed, member.as_deref(), key, &next);
    true
}

/// Brings a session to where it belongs, and counts its member in or out.
pub fn put(
    torrent: &mut Torrent,
    closed: &mut HashMap<SessionKey, Known>,
    member: Option<&User>,
    key: &SessionKey,
    known: &Known,
) {
    let swarm = torrent.swarm.get_or_insert_default();
    let was = swarm.has(key.user, &key.peer_id);
    let is = place(swarm, closed, key, known).is_some() || swarm.has(key.user, &key.peer_id);
    torrent.swarm.take_if(|swarm| swarm.is_empty());
    match member {
        Some(member) if is && !was => member.come_back(),
        Some(member) if was && !is => member.leave(),
        _ => {}
    }
}
