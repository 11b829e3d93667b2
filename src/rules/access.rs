//! Users and clients that are known, and what is asked of the database when somebody is not. Filled by the
//! keeper from the database; asked by every announce.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::protocol::Refusal;
use crate::rules::limits::Quota;
use crate::store::{self, MAX_PENDING, MAX_PENDING_BY_ONE, Suggestion};
use crate::sync::lock;

#[derive(Clone, Debug, Default)]
pub struct User {
    /// `users.id`, or 0 for the anonymous user.
    pub id: u32,
    pub passkey: Box<str>,
    /// The most torrents to be active on at a time; 0 is no limit.
    pub torrent_limit: u32,
    pub ban_reason: Box<str>,
    /// Whether they are banned or removed, and the torrents active on now. Shared by all versions of a user that changes
    /// in the database.
    banned: Arc<AtomicBool>,
    active: Arc<AtomicU32>,
}

impl User {
    pub fn new(id: u32, passkey: &str, torrent_limit: u32, banned: bool) -> User {
        let banned = Arc::new(banned.into());
        User { id, passkey: passkey.into(), torrent_limit, ban_reason: "".into(), banned, active: Arc::default() }
    }

    pub fn banned(&self) -> bool {
        self.banned.load(Acquire)
    }

    /// Counts one more active torrent, where there may be one more.
    pub fn enter(&self) -> Result<(), Refusal> {
        let limit = self.torrent_limit;
        let room = |active: u32| (limit == 0 || active < limit).then(|| active.saturating_add(1));
        let entered = self.active.fetch_update(Relaxed, Relaxed, room);
        entered.map(drop).map_err(|active| Refusal::Limit { active: active.saturating_add(1), limit })
    }

    /// Counts one more active torrent that was there before a restart, whatever the limit is now.
    pub fn come_back(&self) {
        self.active.fetch_add(1, Relaxed);
    }

    pub fn leave(&self) {
        // `None` only where a user was removed and came back while a session lived: then it is 0 already.
        let _ = self.active.fetch_update(Relaxed, Relaxed, |active| active.checked_sub(1));
    }

    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }
}

impl From<store::User> for User {
    fn from(row: store::User) -> User {
        let ban_reason = if row.banned { row.ban_reason.into() } else { "".into() };
        User { ban_reason, ..User::new(row.id, &row.passkey, row.torrent_limit, row.banned) }
    }
}

/// How many torrents a member, and where passkeys are off everybody together, may register by announcing in an
/// hour.
const MAX_REGISTERED_BY_ONE: u32 = 100;
const MAX_REGISTERED: u32 = 1_000;
const HOUR: u32 = 3_600;
/// The longest client prefix, in characters: the width of `whitelist.client`.
const MAX_CLIENT: usize = 128;

#[derive(Default)]
struct Users {
    by_id: HashMap<u32, Arc<User>>,
    by_passkey: HashMap<Box<str>, Arc<User>>,
}

impl Users {
    fn put(&mut self, mut user: User) {
        if let Some(old) = self.by_id.get(&user.id).cloned() {
            old.banned.store(user.banned(), Release);
            (user.banned, user.active) = (old.banned.clone(), old.active.clone());
            self.free_passkey(&old);
        }
        let user = Arc::new(user);
        self.by_passkey.insert(user.passkey.clone(), user.clone());
        self.by_id.insert(user.id, user);
    }

    /// Forgets a user's passkey, unless another user has got it meanwhile.
    fn free_passkey(&mut self, old: &User) {
        if self.by_passkey.get(&old.passkey).is_some_and(|user| user.id == old.id) {
            self.by_passkey.remove(&old.passkey);
        }
    }
}

#[derive(Default)]
pub struct Access {
    users: RwLock<Users>,
    clients: RwLock<Vec<Box<[u8]>>>,
    anonymous: Arc<User>,
    /// What was suggested, by whom (`users.id`), and whether it was taken to be recorded.
    suggested: Mutex<HashMap<Suggestion, (u32, bool)>>,
    registered: Mutex<Quota<u32>>,
    /// How often the keeper took over what the database said.
    changes: AtomicU64,
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Access {
    pub fn anonymous(&self) -> Arc<User> {
        self.anonymous.clone()
    }

    /// The user with a passkey, who may be banned.
    pub fn user(&self, passkey: &str) -> Result<Arc<User>, Refusal> {
        read(&self.users).by_passkey.get(passkey).cloned().ok_or(Refusal::UnknownPasskey)
    }

    pub fn users(&self) -> usize {
        read(&self.users).by_id.len()
    }

    pub fn put_user(&self, user: User) {
        write(&self.users).put(user);
    }

    /// Whose number tells whether the keeper took over anything since: a look-up must not undo that.
    pub fn changes(&self) -> u64 {
        self.changes.load(Acquire)
    }

    /// Notes that the keeper is about to take over what the database says.
    pub fn changing(&self) {
        self.changes.fetch_add(1, AcqRel);
    }

    /// Stores a user whom a look-up has found that began at `changes`. Returns false where the keeper took over
    /// something meanwhile: it may know better.
    pub fn learn_user(&self, user: User, changes: u64) -> bool {
        let mut users = write(&self.users);
        if self.changes() != changes {
            return false;
        }
        if users.by_id.get(&user.id).is_none_or(|known| known.passkey != user.passkey) {
            users.put(user);
        }
        true
    }

    /// The words for why a member's client is refused: who is banned is told why.
    pub fn words(&self, refusal: &Refusal, passkey: Option<&str>) -> String {
        let banned = passkey.filter(|_| *refusal == Refusal::Banned).and_then(|passkey| self.user(passkey).ok());
        match banned.filter(|user| !user.ban_reason.is_empty()) {
            Some(user) => format!("{refusal}: {}", user.ban_reason),
            None => refusal.to_string(),
        }
    }

    /// Whether a member, or with 0 anybody, may register one more torrent by announcing it.
    pub fn may_register(&self, user: u32, now: u32) -> bool {
        let most = if user == 0 { MAX_REGISTERED } else { MAX_REGISTERED_BY_ONE };
        lock(&self.registered).take(user, most, HOUR, now)
    }

    pub fn ids(&self) -> Vec<u32> {
        read(&self.users).by_id.keys().copied().collect()
    }

    pub fn remove_user(&self, id: u32) {
        let mut users = write(&self.users);
        if let Some(old) = users.by_id.remove(&id) {
            old.banned.store(true, Release);
            users.free_passkey(&old);
        }
    }

    pub fn by_id(&self, id: u32) -> Option<Arc<User>> {
        read(&self.users).by_id.get(&id).cloned()
    }

    pub fn set_clients(&self, prefixes: Vec<Box<[u8]>>) {
        *write(&self.clients) = prefixes;
    }

    /// Whether a client may announce: an approved prefix fits its User-Agent or its peer id.
    pub fn approves(&self, agent: Option<&[u8]>, peer_id: Option<&[u8]>) -> bool {
        let fits = |name: Option<&[u8]>, prefix: &[u8]| name.is_some_and(|name| name.starts_with(prefix));
        read(&self.clients).iter().any(|prefix| fits(agent, prefix) || fits(peer_id, prefix))
    }

    /// Suggests a member's client to the operator, unless it is a browser or a crawler.
    pub fn suggest_client(&self, agent: &[u8], user: u32) {
        let name: String =
            String::from_utf8_lossy(agent).chars().filter(|c| !c.is_control()).take(MAX_CLIENT).collect();
        let lower = name.to_lowercase();
        let foreign = ["mozilla", "opera/", "bot", "crawl", "spider"];
        if !name.is_empty() && !foreign.iter().any(|word| lower.contains(word)) {
            self.suggest(Suggestion::Client(name), user);
        }
    }

    /// Suggests something that a user needs to the operator, unless enough was suggested already.
    pub fn suggest(&self, suggestion: Suggestion, user: u32) {
        let mut suggested = lock(&self.suggested);
        if suggested.contains_key(&suggestion) {
            return;
        }
        let same = |s: &Suggestion| std::mem::discriminant(s) == std::mem::discriminant(&suggestion);
        let by = suggested.iter().filter(|(s, _)| same(s)).map(|(_, (by, _))| *by);
        let own = by.clone().filter(|by| *by == user).count();
        if by.count() < MAX_PENDING && (user == 0 || own < MAX_PENDING_BY_ONE) {
            suggested.insert(suggestion, (user, false));
        }
    }

    /// Takes what was suggested since the last time, and by whom.
    pub fn take_suggestions(&self) -> Vec<(Suggestion, u32)> {
        let mut suggested = lock(&self.suggested);
        let new = suggested.iter_mut().filter(|(_, (_, taken))| !*taken);
        new.map(|(suggestion, (by, taken))| {
            *taken = true;
            (suggestion.clone(), *by)
        })
        .collect()
    }

    /// Lets things be suggested again, after the operator has changed what is approved.
    pub fn forget_suggestions(&self) {
        lock(&self.suggested).retain(|_, (_, taken)| !*taken);
    }
}
