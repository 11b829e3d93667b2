//! Following what others change in the database: by what its triggers write down, and by comparing.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::log::log;
use crate::rules::access::User;
use crate::rules::announce::drop_users;
use crate::store::{Account, Error, FileRow, Found, Suggestion};
use crate::torrent::InfoHash;
use crate::tracker::Tracker;

/// How long changes are followed before the books have their turn: while somebody imports a million torrents, too.
const TURN: Duration = Duration::from_secs(1);

/// Takes over what others have changed in the database.
pub fn follow_changes(tracker: &Tracker) -> Result<(), Error> {
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
    changes.files.into_iter().for_each(|found| put_file(tracker, found));
    changes.clients.into_iter().for_each(|prefixes| tracker.access.set_clients(prefixes));
    tracker.store.forget_changes(&changes.ids)?;
    Ok(!changes.ids.is_empty())
}

/// Takes over a member; returns the id of one who may not announce any more.
fn put_user(tracker: &Tracker, found: Found<u32, Account>) -> Option<u32> {
    match found {
        Found::There(user) => {
            let (id, banned) = (user.id, user.banned);
            tracker.access.put_user(User::from(user));
            banned.then_some(id)
        }
        Found::Gone(id) => {
            tracker.access.remove_user(id);
            Some(id)
        }
    }
}

fn put_file(tracker: &Tracker, found: Found<InfoHash, FileRow>) {
    match found {
        Found::There(file) => tracker.put_torrent(&file),
        Found::Gone(info_hash) => tracker.remove_torrent(&info_hash),
    }
}

/// Takes members' sessions out of all swarms, in one walk, when nobody of them can come back.
fn drop_sessions(tracker: &Tracker, users: HashSet<u32>) {
    if users.is_empty() {
        return;
    }
    let (now, mut records) = (tracker.clock.now(), Vec::new());
    for mut shard in tracker.swarms.each() {
        drop_users(&tracker.access, &mut shard, &users, now, &mut records);
        drop(shard);
        tracker.journal.write(&mut records);
    }
}

/// Records what members' clients suggest.
pub fn record_suggestions(tracker: &Tracker) -> Result<(), Error> {
    let suggestions = tracker.access.take_suggestions();
    if suggestions.is_empty() {
        return Ok(());
    }
    // What could not be written is suggested again by the next announce.
    let written = tracker.store.suggest(&suggestions, tracker.clock.now());
    let written = written.inspect_err(|_| tracker.access.forget_suggestions());
    for suggestion in written? {
        log(match suggestion {
            Suggestion::Client(agent) => {
                format!("a member uses the unknown client {agent:?}: `goat client approve PREFIX` lets it in")
            }
            Suggestion::Torrent(hash) => {
                format!("a member announced the unknown torrent {hash}: `goat file approve {hash}` lets it in")
            }
        });
    }
    Ok(())
}

/// Rows compared at a time.
const PIECE: u32 = 10_000;

/// A comparison of memory with all members and torrents of the database, a piece at a time: it finds what triggers do
/// not see.
#[derive(Default)]
pub struct Comparison {
    /// The last id compared, of members and then of torrents.
    users: Option<u32>,
    files: Option<u32>,
    /// Whom the database has: ids of members, beginnings of info hashes.
    seen_users: HashSet<u32>,
    seen_files: Vec<u64>,
}

fn fingerprint(info_hash: &InfoHash) -> u64 {
    info_hash.0.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

impl Comparison {
    /// Compares some more, and returns whether all is compared.
    pub fn go_on(&mut self, tracker: &Tracker) -> Result<bool, Error> {
        if let Some(from) = self.users.or(self.files.is_none().then_some(0)) {
            let users = tracker.store.users_after(from, PIECE)?;
            self.users = users.last().map(|user| user.id);
            self.compare_users(tracker, users)?;
            if self.users.is_none() {
                self.files = Some(0);
            }
            return Ok(false);
        }
        let files = tracker.store.files_after(self.files.unwrap_or(0), PIECE)?;
        let last = files.last().map(|file| file.id);
        for file in files {
            self.seen_files.push(fingerprint(&file.info_hash));
            tracker.put_torrent(&file);
        }
        self.files = last;
        match last {
            Some(_) => Ok(false),
            None => self.forget_files(tracker).map(|()| true),
        }
    }

    fn compare_users(&mut self, tracker: &Tracker, users: Vec<Account>) -> Result<(), Error> {
        let last = users.is_empty();
        self.seen_users.extend(users.iter().map(|user| user.id));
        let mut banned: HashSet<u32> = users
            .into_iter()
            .filter_map(|user| {
                let same = tracker.access.by_id(user.id).is_some_and(|known| known.is(&user));
                if same { None } else { put_user(tracker, Found::There(user)) }
            })
            .collect();
        if last {
            for id in tracker.access.ids().into_iter().filter(|id| !self.seen_users.contains(id)) {
                // One may have come meanwhile.
                if tracker.store.user_by_id(id)?.is_none() {
                    banned.extend(put_user(tracker, Found::Gone(id)));
                }
            }
            tracker.access.set_clients(tracker.store.approved_clients()?);
        }
        drop_sessions(tracker, banned);
        Ok(())
    }

    fn forget_files(&mut self, tracker: &Tracker) -> Result<(), Error> {
        self.seen_files.sort_unstable();
        let mut unseen = Vec::new();
        for shard in tracker.swarms.each() {
            let hashes = shard.torrents.keys().copied();
            unseen.extend(hashes.filter(|hash| self.seen_files.binary_search(&fingerprint(hash)).is_err()));
        }
        for hash in unseen {
            if tracker.store.file_by_hash(&hash)?.is_none() {
                tracker.remove_torrent(&hash);
            }
        }
        Ok(())
    }
}
