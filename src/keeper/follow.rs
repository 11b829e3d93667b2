//! Following what others change in the database: by what its triggers write down, and by comparing.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::config::command;
use crate::log::log;
use crate::rules::announce::drop_users;
use crate::store::{Error, Found, Suggestion, User};
use crate::torrent::InfoHash;
use crate::tracker::Tracker;

/// How long changes are followed before the books have their turn: while somebody imports a million torrents, too.
const TURN: Duration = Duration::from_secs(1);

pub fn follow_changes(tracker: &Tracker) -> Result<(), Error> {
    if tracker.store.missed_changes() {
        tracker.store.skip_changes()?;
        compare(tracker)?;
    }
    tracker.swarms.set_free(tracker.store.free()?);
    let start = Instant::now();
    while follow_some(tracker)? && start.elapsed() < TURN {}
    Ok(())
}

/// Takes over some, members before torrents, and says whether there may be more.
fn follow_some(tracker: &Tracker) -> Result<bool, Error> {
    let changes = tracker.store.changes()?;
    tracker.access.changing();
    let banned = changes.users.into_iter().filter_map(|found| put_user(tracker, found)).collect();
    drop_sessions(tracker, banned);
    if !changes.files.is_empty() || changes.clients.is_some() {
        tracker.access.forget_suggestions();
    }
    for found in changes.files {
        match found {
            Found::There(file) => tracker.put_torrent(&file),
            Found::Gone(info_hash) => tracker.remove_torrent(&info_hash),
        }
    }
    changes.clients.into_iter().for_each(|prefixes| tracker.access.set_clients(prefixes));
    let more = !changes.batch.is_empty();
    tracker.store.forget_changes(changes.batch)?;
    Ok(more)
}

/// Takes over a member; returns the id of one who may not announce any more.
fn put_user(tracker: &Tracker, found: Found<u32, User>) -> Option<u32> {
    match found {
        Found::There(user) => {
            let (id, banned) = (user.id, user.banned);
            tracker.access.put_user(user.into());
            banned.then_some(id)
        }
        Found::Gone(id) => {
            tracker.access.remove_user(id);
            Some(id)
        }
    }
}

/// Takes members' sessions out of all swarms, in one walk, when nobody of them can come back.
fn drop_sessions(tracker: &Tracker, users: HashSet<u32>) {
    if users.is_empty() {
        return;
    }
    let now = tracker.clock.now();
    for shard in tracker.swarms.each() {
        tracker.change(shard, |shard, records| drop_users(&tracker.access, shard, &users, now, records));
    }
}

pub fn record_suggestions(tracker: &Tracker) -> Result<(), Error> {
    let suggestions = tracker.access.take_suggestions();
    if suggestions.is_empty() {
        return Ok(());
    }
    // What could not be written is suggested again by the next announce.
    let written = tracker.store.suggest(&suggestions, tracker.clock.now());
    let written = written.inspect_err(|_| tracker.access.forget_suggestions());
    for suggestion in written? {
        let (what, approve) = match suggestion {
            Suggestion::Client(agent) => (format!("uses the unknown client {agent:?}"), "client approve PREFIX".into()),
            Suggestion::Torrent(hash) => {
                (format!("announced the unknown torrent {hash}"), format!("file approve {hash}"))
            }
        };
        log(format!("a member {what}: `{}` allows it", command(&approve)));
    }
    Ok(())
}

/// Compares memory with all members, torrents and clients of the database: it finds what triggers do not see. A
/// million torrents take two seconds.
pub fn compare(tracker: &Tracker) -> Result<(), Error> {
    let mut gone: HashSet<u32> = tracker.access.ids().into_iter().collect();
    let (mut banned, mut seen) = (HashSet::new(), Vec::new());
    tracker.access.changing();
    tracker.store.load(
        |user| {
            gone.remove(&user.id);
            banned.extend(put_user(tracker, Found::There(user)));
        },
        |file| {
            seen.push(fingerprint(&file.info_hash));
            tracker.put_torrent(&file);
        },
    )?;
    tracker.access.set_clients(tracker.store.approved_clients()?);
    // Who came while the rows were read was looked up, and is looked up once more.
    for id in gone {
        if tracker.store.user_by_id(id)?.is_none() {
            banned.extend(put_user(tracker, Found::Gone(id)));
        }
    }
    drop_sessions(tracker, banned);
    seen.sort_unstable();
    let unseen = |hash: &InfoHash| seen.binary_search(&fingerprint(hash)).is_err();
    let shards = tracker.swarms.each();
    let hashes: Vec<InfoHash> =
        shards.flat_map(|shard| shard.torrents.keys().copied().filter(unseen).collect::<Vec<_>>()).collect();
    for hash in hashes {
        if tracker.store.file_by_hash(&hash)?.is_none() {
            tracker.remove_torrent(&hash);
        }
    }
    Ok(())
}

/// By which a torrent is known among many in little memory.
fn fingerprint(info_hash: &InfoHash) -> u64 {
    info_hash.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
