//! What all threads share: the configuration, the members, the swarms, the database, what is counted, and the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

use crate::auth::Auth;
use crate::books::journal::Journal;
use crate::books::recovery::recover;
use crate::clock::Clock;
use crate::config::Config;
use crate::history::History;
use crate::metrics::Metrics;
use crate::protocol::Refusal;
use crate::rules::access::Access;
use crate::rules::announce::drop_torrent;
use crate::rules::limits::Failures;
use crate::rules::swarm::{Swarms, Torrent};
use crate::store::{FileRow, Loaded, Store, Suggestion};
use crate::torrent::InfoHash;

/// What is counted while the tracker runs.
#[derive(Default)]
pub struct Stats {
    /// TCP connections accepted.
    pub connections: AtomicU64,
    /// TCP connections open now.
    pub open: Arc<AtomicUsize>,
    /// Workers that answer a request now.
    pub busy: AtomicUsize,
    /// Rows that the database does not have yet.
    pub unsaved: AtomicU64,
}

/// Everything that the threads share.
pub struct Tracker {
    /// How it is to behave.
    pub config: Config,
    /// Who is let in.
    pub access: Access,
    /// Who has what.
    pub swarms: Swarms,
    /// The database.
    pub store: Store,
    /// What the database does not have yet, where a kill cannot reach it.
    pub journal: Option<Arc<Journal>>,
    /// Who calls the API.
    pub auth: Auth,
    /// What was counted.
    pub stats: Stats,
    /// What else was counted, for Prometheus and the status page.
    pub metrics: Metrics,
    /// How it went, for the status page.
    pub history: History,
    /// The time.
    pub clock: Clock,
    /// Who guesses passkeys.
    pub wrong_passkeys: Failures,
}

impl Tracker {
    /// Connects to the database, writes what an earlier run could not, and loads what it holds.
    pub fn load(config: Config) -> Result<Tracker, String> {
        let whose = config.database_name();
        let failed = |e: crate::store::Error| format!("{whose}: {e}");
        let store = Store::open(&config).map_err(failed)?;
        let clock = Clock::start();
        let journal = recover(&config, &store, clock.now())?;
        let (access, swarms) = (Access::default(), Swarms::default());
        let since = clock.now().saturating_sub(config.interval.saturating_mul(2));
        if let Some(journal) = &journal {
            swarms.each().for_each(|mut shard| shard.ledger.keep_in(journal));
        }
        let (auth, stats, metrics) = (Auth::new(config.wrong_logins), Stats::default(), Metrics::default());
        let wrong_passkeys = Failures::new(config.wrong_passkeys);
        let tracker = Tracker {
            config,
            access,
            swarms,
            store,
            journal,
            auth,
            stats,
            metrics,
            history: History::default(),
            clock,
            wrong_passkeys,
        };
        let mut hashes = std::collections::HashMap::new();
        let loading = |row: Loaded| match row {
            Loaded::User(user) => tracker.access.put_user(user.into()),
            Loaded::File(file) => {
                hashes.insert(file.id, file.info_hash);
                tracker.put_torrent(&file);
            }
            Loaded::Session(file, session, at) => {
                let Some(hash) = hashes.get(&file) else {
                    return;
                };
                let mut shard = tracker.swarms.shard(hash);
                let Some(torrent) = shard.torrents.get_mut(hash) else {
                    return;
                };
                let user = tracker.access.by_id(session.user);
                if session.user != 0 && user.as_ref().is_none_or(|user| user.banned) {
                    return;
                }
                let swarm = torrent.swarm.get_or_insert_default();
                if let Some(user) = user.filter(|user| swarm.of_user(user.id, &session.peer_id).next().is_none()) {
                    user.come_back();
                }
                // Where the connection is lost meanwhile, all are read once more.
                swarm.put(swarm.find(session.user, &session.peer_id), session, at);
            }
        };
        tracker.store.close_sessions(since).map_err(failed)?;
        tracker.store.load(since, loading).map_err(failed)?;
        tracker.access.set_clients(tracker.store.approved_clients().map_err(failed)?);
        tracker.store.hurry();
        Ok(tracker)
    }

    /// Whether the database may be asked about somebody unknown: while it is away that would only take long.
    pub fn may_look_up(&self, now: u32) -> bool {
        self.metrics.database_up() && self.access.may_look_up(now)
    }

    /// Does what may be about a user or a torrent made a moment ago, which only the database knows so far.
    pub fn learning<T>(
        &self,
        passkey: Option<&str>,
        info_hash: Option<&InfoHash>,
        mut attempt: impl FnMut() -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let mut done = attempt();
        if let (Err(Refusal::UnknownPasskey), Some(passkey)) = (&done, passkey)
            && self.access.look_up(self.clock.now())
            && self.look_up_user(passkey)
        {
            done = attempt();
        }
        if let (Err(Refusal::Unregistered), Some(info_hash)) = (&done, info_hash)
            && self.access.look_up(self.clock.now())
        {
            if self.look_up_torrent(info_hash) {
                done = attempt();
            } else {
                self.access.suggest(Suggestion::Torrent(*info_hash));
            }
        }
        done
    }

    /// Looks a passkey up in the database. Returns whether there is a user with it. An error is not logged:
    /// the keeper says when the database is away.
    fn look_up_user(&self, passkey: &str) -> bool {
        let found = self.store.user_by_passkey(passkey).ok().flatten();
        found.map(|user| self.access.put_user(user.into())).is_some()
    }

    /// Looks a torrent up in the database. Returns whether it is there.
    fn look_up_torrent(&self, info_hash: &InfoHash) -> bool {
        let found = self.store.file_by_hash(info_hash).ok().flatten();
        found.map(|file| self.put_torrent(&file)).is_some()
    }

    /// Forgets a torrent and its swarm. What was moved until now is still written.
    pub fn remove_torrent(&self, info_hash: &InfoHash) {
        drop_torrent(&self.access, &mut self.swarms.shard(info_hash), info_hash);
    }

    /// Stores a torrent as the database has it; its swarm stays.
    pub fn put_torrent(&self, file: &FileRow) {
        let mut shard = self.swarms.shard(&file.info_hash);
        let torrent: &mut Torrent = shard.torrents.entry(file.info_hash).or_default();
        (torrent.id, torrent.snatches, torrent.verified) = (file.id, file.completed, file.verified);
        torrent.factors = file.factors;
    }
}

/// The URLs for a member's torrents and client, the best first.
pub fn announce_urls(config: &Config, passkey: &str) -> Vec<String> {
    let path = if config.passkey { format!("/{passkey}/announce") } else { "/announce".into() };
    let (public, place) = config.url.split_once("://").unwrap_or(("", &config.host));
    let host = match place.split('/').next().unwrap_or_default() {
        _ if config.url.is_empty() && config.everywhere() => "localhost".to_string(),
        host if config.url.is_empty() && host.contains(':') => format!("[{host}]"),
        host if config.url.is_empty() || host.ends_with(']') => host.to_string(),
        host => host.rsplit_once(':').map_or(host, |(host, _)| host).to_string(),
    };
    let listeners = [
        (config.https, "https", config.ssl.port),
        (config.http, "http", config.port),
        (config.udp, "udp", config.port),
    ];
    let on = listeners.iter().filter(|(on, ..)| *on);
    // A proxy may speak HTTPS for a goat that listens for HTTP only.
    let direct = on.clone().any(|(_, scheme, _)| *scheme == public);
    on.map(|(_, scheme, port)| match *scheme {
        "udp" => format!("udp://{host}:{port}{path}"),
        scheme if scheme == public || !public.is_empty() && !direct => {
            format!("{}{path}", config.url.trim_end_matches('/'))
        }
        scheme => format!("{scheme}://{host}:{port}{path}"),
    })
    .collect()
}
