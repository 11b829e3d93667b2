//! Users and clients that are known, and what is asked of the database when somebody is not. Filled by the
//! keeper from the database; asked by every announce.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::protocol::Refusal;
use crate::store::{AccountRow, MAX_PENDING, Suggestion};
use crate::sync::lock;

/// A member, as far as announces need to know one.
#[derive(Clone, Debug, Default)]
pub struct User {
    /// `users.id`, or 0 for the anonymous user.
    pub id: u32,
    /// What the member's announce URLs contain.
    pub passkey: Box<str>,
    /// The most torrents to be active on at a time; 0 is no limit.
    pub torrent_limit: u32,
    /// May not announce.
    pub banned: bool,
    /// Torrents active on now. Shared by all versions of a user that changes in the database.
    active: Arc<AtomicU32>,
}

impl User {
    /// A member with no active torrents.
    pub fn new(id: u32, passkey: &str, torrent_limit: u32, banned: bool) -> User {
        User { id, passkey: passkey.into(), torrent_limit, banned, active: Arc::default() }
    }

    /// Counts one more active torrent, or says (how many it would be, how many it may be).
    pub fn enter(&self) -> Result<(), (u32, u32)> {
        let room =
            |active: u32| (self.torrent_limit == 0 || active < self.torrent_limit).then(|| active.saturating_add(1));
        let entered = self.active.fetch_update(Relaxed, Relaxed, room);
        entered.map(drop).map_err(|active| (active.saturating_add(1), self.torrent_limit))
    }

    /// Counts one more active torrent that was there before a restart, whatever the limit is now.
    pub fn come_back(&self) {
        self.active.fetch_add(1, Relaxed);
    }

    /// Counts one active torrent less.
    pub fn leave(&self) {
        // `None` only where a user was removed and came back while a session lived: then it is 0 already.
        let _ = self.active.fetch_update(Relaxed, Relaxed, |active| active.checked_sub(1));
    }

    /// Torrents active on now.
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }
}

impl From<AccountRow> for User {
    fn from(row: AccountRow) -> User {
        User::new(row.id, &row.passkey, row.torrent_limit, row.banned)
    }
}

/// The most look-ups a second for passkeys and torrents that memory does not have, so that guessing
/// cannot load the database.
const MAX_LOOKUPS: u32 = 100;
/// The longest client prefix, in characters: the width of `whitelist.client`.
const MAX_CLIENT: usize = 128;

#[derive(Default)]
struct Users {
    by_id: HashMap<u32, Arc<User>>,
    by_passkey: HashMap<Box<str>, Arc<User>>,
}

impl Users {
    /// Forgets a user's passkey, unless another user has got it meanwhile.
    fn free_passkey(&mut self, old: &User) {
        if self.by_passkey.get(&old.passkey).is_some_and(|user| user.id == old.id) {
            self.by_passkey.remove(&old.passkey);
        }
    }
}

/// Everyone and every client that is let in.
#[derive(Default)]
pub struct Access {
    users: RwLock<Users>,
    clients: RwLock<Vec<Box<[u8]>>>,
    anonymous: Arc<User>,
    suggested: Mutex<(HashSet<Suggestion>, Vec<Suggestion>)>,
    lookups: Mutex<(u32, u32)>,
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Access {
    /// Everybody, where no passkeys are asked for.
    pub fn anonymous(&self) -> Arc<User> {
        self.anonymous.clone()
    }

    /// The user with a passkey, unless banned.
    pub fn user(&self, passkey: &str) -> Result<Arc<User>, Refusal> {
        let user = read(&self.users).by_passkey.get(passkey).cloned().ok_or(Refusal::UnknownPasskey)?;
        if user.banned { Err(Refusal::Banned) } else { Ok(user) }
    }

    /// How many users there are.
    pub fn users(&self) -> usize {
        read(&self.users).by_id.len()
    }

    /// Stores a user as the database has it.
    pub fn put_user(&self, mut user: User) {
        let mut users = write(&self.users);
        if let Some(old) = users.by_id.get(&user.id).cloned() {
            user.active = old.active.clone();
            users.free_passkey(&old);
        }
        let user = Arc::new(user);
        users.by_passkey.insert(user.passkey.clone(), user.clone());
        users.by_id.insert(user.id, user);
    }

    /// Forgets a user.
    pub fn remove_user(&self, id: u32) {
        let mut users = write(&self.users);
        if let Some(old) = users.by_id.remove(&id) {
            users.free_passkey(&old);
        }
    }

    /// A user by id.
    pub fn by_id(&self, id: u32) -> Option<Arc<User>> {
        read(&self.users).by_id.get(&id).cloned()
    }

    /// Counts one active torrent less for a user.
    pub fn left(&self, id: u32) {
        if let Some(user) = self.by_id(id) {
            user.leave();
        }
    }

    /// Replaces the approved prefixes of User-Agents and peer ids.
    pub fn set_clients(&self, prefixes: Vec<Box<[u8]>>) {
        *write(&self.clients) = prefixes;
    }

    /// Whether a client may announce: an approved prefix fits its User-Agent or its peer id.
    pub fn approves(&self, agent: Option<&[u8]>, peer_id: Option<&[u8]>) -> bool {
        let fits = |name: Option<&[u8]>, prefix: &[u8]| name.is_some_and(|name| name.starts_with(prefix));
        read(&self.clients).iter().any(|prefix| fits(agent, prefix) || fits(peer_id, prefix))
    }

    /// Suggests a member's client to the operator, unless it is a browser or a crawler.
    pub fn suggest_client(&self, agent: &[u8]) {
        let name: String =
            String::from_utf8_lossy(agent).chars().filter(|c| !c.is_control()).take(MAX_CLIENT).collect();
        let lower = name.to_lowercase();
        let foreign = ["mozilla", "opera/", "bot", "crawl", "spider"];
        if !name.is_empty() && !foreign.iter().any(|word| lower.contains(word)) {
            self.suggest(Suggestion::Client(name));
        }
    }

    /// Suggests something to the operator, unless enough was suggested already.
    pub fn suggest(&self, suggestion: Suggestion) {
        let mut suggested = lock(&self.suggested);
        let (seen, queue) = &mut *suggested;
        let same = |s: &&Suggestion| std::mem::discriminant(*s) == std::mem::discriminant(&suggestion);
        if !seen.contains(&suggestion) && seen.iter().filter(same).count() < MAX_PENDING {
            seen.insert(suggestion.clone());
            queue.push(suggestion);
        }
    }

    /// Takes what was suggested since the last time.
    pub fn take_suggestions(&self) -> Vec<Suggestion> {
        std::mem::take(&mut lock(&self.suggested).1)
    }

    /// Lets things be suggested again, after the operator has changed what is approved.
    pub fn forget_suggestions(&self) {
        let mut suggested = lock(&self.suggested);
        let (seen, queue) = &mut *suggested;
        seen.retain(|suggestion| queue.contains(suggestion));
    }

    /// Whether the database may be asked for something more in this second.
    pub fn may_look_up(&self, now: u32) -> bool {
        let lookups = lock(&self.lookups);
        lookups.0 != now || lookups.1 < MAX_LOOKUPS
    }

    /// Counts one look-up in the database, unless there were enough in this second.
    pub fn look_up(&self, now: u32) -> bool {
        let mut lookups = lock(&self.lookups);
        if lookups.0 != now {
            *lookups = (now, 0);
        }
        let may = lookups.1 < MAX_LOOKUPS;
        lookups.1 += u32::from(may);
        may
    }
}
