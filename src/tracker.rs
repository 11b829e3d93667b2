//! What all threads share: the configuration, the members, the swarms, the database, what is counted, and the time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::MutexGuard;
use std::sync::atomic::Ordering::Relaxed;

use crate::books::journal::encode;
use crate::books::recovery::recover;
use crate::books::session::LATE;
use crate::books::{Journal, Known, SessionKey, State};
use crate::clock::Clock;
use crate::config::Config;
use crate::history::History;
use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::protocol::{Factors, Refusal};
use crate::rules::access::Access;
use crate::rules::announce::{drop_torrent, silence};
use crate::rules::heard;
use crate::rules::limits::{Failure, Limits};
use crate::rules::swarm::{Shard, Swarms};
use crate::store::sessions::{Key, Row};
use crate::store::{Error, Store, Suggestion, Torrent, User};
use crate::torrent::InfoHash;

/// How often somebody is looked up, while the keeper takes over changes.
const LOOKS: u32 = 3;

pub struct Tracker {
    pub config: Config,
    pub access: Access,
    pub swarms: Swarms,
    pub store: Store,
    /// What the database does not have yet, where a kill cannot reach it.
    pub journal: Journal,
    pub metrics: Metrics,
    pub(crate) history: History,
    pub nodes: Nodes,
    pub clock: Clock,
    pub limits: Limits,
}

impl Tracker {
    /// Connects to the database, settles what an earlier run could not, and loads what there is.
    pub fn load(config: Config) -> Result<Tracker, String> {
        let whose = config.database_name();
        let failed = |e: Error| format!("{whose}: {e}");
        let store = Store::open(&config).map_err(failed)?;
        let clock = Clock::start();
        let silence = silence(&config);
        let (journal, settled) = recover(&config, &store, silence)?;
        let nodes = Nodes::new(&config, journal.head)?;
        store.close_sessions(clock.now(), silence).map_err(failed)?;
        let limits = Limits::new(&config, crate::sys::file_limit());
        let tracker = Tracker {
            history: History::load(&store, clock.now()).map_err(failed)?,
            config,
            access: Access::default(),
            swarms: Swarms::default(),
            store,
            journal,
            metrics: Metrics::default(),
            nodes,
            clock,
            limits,
        };
        let hashes = tracker.read().map_err(failed)?;
        // Others do not know what only this goat's journal had.
        for key in settled {
            hashes.get(&key.file).into_iter().for_each(|hash| tracker.publish(hash, &key));
        }
        tracker.history.tick(&tracker.metrics, &tracker.swarms, &tracker.store, tracker.clock.now());
        tracker.metrics.database_up.store(true, Relaxed);
        tracker.store.set_serving();
        Ok(tracker)
    }

    /// Reads users, torrents, sessions and clients. Where the connection is lost meanwhile, all are read once more.
    fn read(&self) -> Result<HashMap<u32, InfoHash>, Error> {
        let mut hashes = HashMap::new();
        self.store.skip_changes()?;
        self.store.load(
            |user| self.access.put_user(user.into()),
            |file| {
                hashes.insert(file.id, file.info_hash);
                self.put_torrent(&file);
            },
        )?;
        let lately = self.clock.now().saturating_sub(LATE);
        self.store.sessions(lately, 0, |key, row| {
            if let Some(info_hash) = hashes.get(&key.0) {
                self.put_session(info_hash, key, &row);
            }
        })?;
        self.access.set_clients(self.store.approved_clients()?);
        self.swarms.set_free(self.store.free()?);
        Ok(hashes)
    }

    /// Tells other goats, if there are some, what a session is here.
    pub fn publish(&self, info_hash: &InfoHash, key: &SessionKey) {
        if self.config.redis.is_none() {
            return;
        }
        let Some(known) = self.swarms.shard(info_hash).known(info_hash, key) else { return };
        let mut record = Vec::new();
        encode(0, key.file, &State { known, ..State::default() }, &mut record);
        self.journal.tell(&record);
    }

    fn put_session(&self, info_hash: &InfoHash, key: Key, row: &Row) {
        let mut known = Known::of(key, row);
        let (file, user, peer_id) = key;
        let member = self.access.by_id(user);
        // Banned while goat was away: the session may still be ended.
        if known.closed == 0 && user != 0 && member.as_ref().is_none_or(|member| member.banned()) {
            known.closed = self.clock.now();
        }
        let mut shard = self.swarms.shard(info_hash);
        let Shard { torrents, closed, .. } = &mut *shard;
        if let Some(torrent) = torrents.get_mut(info_hash) {
            heard::put(torrent, closed, member.as_deref(), &SessionKey { file, user, peer_id }, &known);
        }
    }

    /// Asks the database about what memory did not know: a user or a torrent may have been made a moment ago.
    /// Returns whether memory knows more now.
    pub fn look_up(
        &self,
        unknown: &Refusal,
        from: IpAddr,
        passkey: Option<&str>,
        info_hash: Option<&InfoHash>,
    ) -> bool {
        match (unknown, passkey, info_hash) {
            (Refusal::UnknownPasskey, Some(passkey), _) => {
                let found = self.look_up_user(|| self.store.user_by_passkey(passkey));
                if !found {
                    self.limits.fail(Failure::Passkey, from, self.clock.now());
                }
                found
            }
            (Refusal::Unregistered, _, Some(info_hash)) => self.look_up_torrent(info_hash, passkey),
            _ => false,
        }
    }

    /// Has `learn` take over what `find` sees in the database, once more where the keeper takes over changes at the time.
    /// Returns whether there was something. An error is not logged: the keeper says when the database is away.
    fn learn<T>(&self, find: impl Fn() -> Result<Option<T>, Error>, learn: impl Fn(T, u64) -> bool) -> bool {
        let look = |_| {
            let changes = self.access.changes();
            find().ok().flatten().map(|found| learn(found, changes))
        };
        (0..LOOKS).map_while(look).any(|learnt| learnt)
    }

    /// Looks a user up in the database. Returns whether there is one.
    pub fn look_up_user(&self, find: impl Fn() -> Result<Option<User>, Error>) -> bool {
        self.learn(find, |user, changes| self.access.learn_user(user.into(), changes))
    }

    /// Looks a torrent up in the database, or registers it where no operator is asked. Returns whether it is there.
    fn look_up_torrent(&self, info_hash: &InfoHash, passkey: Option<&str>) -> bool {
        let user = passkey.filter(|_| self.config.passkey).and_then(|passkey| self.access.user(passkey).ok());
        let user = user.map_or(0, |user| user.id);
        let find = || {
            let (found, now) = (self.store.file_by_either_hash(info_hash)?, self.clock.now());
            if found.is_none() && self.config.verified {
                self.access.suggest(Suggestion::Torrent(*info_hash), user);
            } else if found.is_none() && self.access.may_register(user, now) {
                self.store.register(info_hash, user, now)?;
                return self.store.file_by_hash(info_hash);
            }
            Ok(found)
        };
        self.learn(find, |file, changes| self.learn_torrent(&file, Some(changes)))
    }

    /// Changes a part of the swarms, and has the journal hold what the books must.
    pub fn change(&self, mut shard: MutexGuard<'_, Shard>, change: impl FnOnce(&mut Shard, &mut Vec<u8>)) {
        let mut records = Vec::new();
        change(&mut shard, &mut records);
        drop(shard);
        self.journal.write(&mut records);
    }

    /// Forgets a torrent and its swarm. What was moved until now is still written.
    pub fn remove_torrent(&self, info_hash: &InfoHash) {
        let (shard, now) = (self.swarms.shard(info_hash), self.clock.now());
        self.change(shard, |shard, records| drop_torrent(&self.access, shard, info_hash, now, records));
    }

    pub fn put_torrent(&self, file: &Torrent) {
        self.learn_torrent(file, None);
    }

    /// Stores a torrent; what a look-up has found, only where the keeper took over nothing since it began at `changes`.
    pub fn learn_torrent(&self, file: &Torrent, changes: Option<u64>) -> bool {
        let mut shard = self.swarms.shard(&file.info_hash);
        if changes.is_some_and(|changes| self.access.changes() != changes) {
            return false;
        }
        let torrent = shard.torrents.entry(file.info_hash).or_default();
        torrent.id = file.id;
        torrent.snatches = file.completed;
        torrent.verified = file.verified;
        torrent.refused = file.refused;
        torrent.factors = Factors { upload: file.upload_percent, download: file.download_percent };
        drop(shard);
        if let Some(second) = file.second {
            self.swarms.shard(&second).seconds.insert(second, file.info_hash);
        }
        true
    }
}

/// Where the status page is, if there is one: at the best URL of the tracker over HTTP or HTTPS.
pub fn page_url(config: &Config) -> Option<String> {
    let urls = announce_urls(&Config { passkey: false, ..config.clone() }, "");
    let url = urls.into_iter().find(|url| config.api && url.starts_with("http"))?;
    url.strip_suffix("announce").map(String::from)
}

/// Where somebody follows an invitation: its code is not sent with a request for the page.
pub fn invitation_url(config: &Config, code: &str) -> Option<String> {
    Some(format!("{}#join={code}", page_url(config)?))
}

/// The URLs for a member's torrents and client, the best first.
pub fn announce_urls(config: &Config, passkey: &str) -> Vec<String> {
    let path = if config.passkey { format!("/{passkey}/announce") } else { "/announce".into() };
    let host = announced_host(config);
    let direct = config.https && config.url.starts_with("https:") || config.http && config.url.starts_with("http:");
    // A proxy may speak HTTPS for a goat that listens for HTTP only.
    let by_proxy = !config.url.is_empty() && !direct;
    let url = |scheme: &str, port| match config.url.split_once("://") {
        Some((public, _)) if public == scheme || by_proxy => format!("{}{path}", config.url.trim_end_matches('/')),
        _ => format!("{scheme}://{host}:{port}{path}"),
    };
    let schemes = [(config.https, "https", config.ssl.port), (config.http, "http", config.port)];
    let schemes = schemes.into_iter().filter(|(on, ..)| *on);
    let mut urls: Vec<String> = schemes.map(|(_, scheme, port)| url(scheme, port)).collect();
    // A client that fails once over HTTPS would send its passkey in clear. Who has an old copy is still answered.
    if urls.iter().any(|url| url.starts_with("https:")) {
        urls.retain(|url| !url.starts_with("http:"));
    }
    if config.udp {
        urls.push(format!("udp://{host}:{}{path}", config.port));
    }
    urls
}

/// The host in announce URLs: an IPv6 address in brackets, and no port.
fn announced_host(config: &Config) -> String {
    let Some((_, rest)) = config.url.split_once("://") else {
        return match config.host.as_str() {
            _ if config.everywhere() => "localhost".into(),
            ipv6 if ipv6.contains(':') => format!("[{ipv6}]"),
            host => host.into(),
        };
    };
    let place = rest.split('/').next().unwrap_or_default();
    let port = if place.ends_with(']') { None } else { place.rsplit_once(':') };
    port.map_or(place, |(host, _)| host).to_string()
}
