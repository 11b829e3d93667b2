//! Builds the tracker from its configuration, starts its threads, and stops them.
//!
//! Locks: a shard of the swarms, the tables of `access`, the idle connections of the store, the counts of
//! connections in `gate`, the workers in `net`, the scrapers in `udp`, the room in `journal`. While a shard is
//! locked the tables of `access` may be asked for, and more room in the journal, never the other way round; all
//! others are taken alone, and none is held across I/O. So no two threads can wait for each other.

use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::access::{Access, Suggestion};
use crate::announce::Refusal;
use crate::config::{Config, Driver};
use crate::journal::Journal;
use crate::keeper::Keeper;
use crate::log::log;
use crate::net::Listeners;
use crate::store::{FileRow, Loaded, Store};
use crate::swarm::{Swarms, Torrent};
use crate::torrent::InfoHash;
use crate::udp;

/// The time of day, which never jumps while goat runs: it is read once and then counted on.
pub struct Clock {
    since: u64,
    start: Instant,
}

impl Clock {
    fn new() -> Clock {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs());
        Clock { since, start: Instant::now() }
    }

    /// Seconds since 1970.
    pub fn now(&self) -> u32 {
        u32::try_from(self.since + self.start.elapsed().as_secs()).unwrap_or(u32::MAX)
    }
}

/// What is counted while the tracker runs.
#[derive(Default)]
pub struct Stats {
    /// TCP connections accepted.
    pub connections: AtomicU64,
    /// Announces answered.
    pub announces: AtomicU64,
    /// Announces and scrapes refused.
    pub refusals: AtomicU64,
    /// Rows that the database does not have yet.
    pub unsaved: AtomicU64,
    /// When everything was written last, in seconds since 1970: none of them waits for longer.
    pub unsaved_since: AtomicU32,
}

impl Stats {
    /// Counts an announce that was answered.
    pub fn announced(&self) {
        self.announces.fetch_add(1, Relaxed);
    }

    /// Counts an announce or scrape that was refused.
    pub fn refused(&self) {
        self.refusals.fetch_add(1, Relaxed);
    }
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
    /// What was counted.
    pub stats: Stats,
    /// The time.
    pub clock: Clock,
}

impl Tracker {
    /// Connects to the database, writes what an earlier run could not, and loads what it holds.
    pub fn load(config: Config) -> Result<Tracker, String> {
        let whose = database(&config);
        let failed = |e: crate::store::Error| format!("{whose}: {e}");
        let store = Store::open(&config).map_err(failed)?;
        let clock = Clock::new();
        crate::keeper::replay(&config, &store, clock.now())?;
        let journal = crate::keeper::recover(&config, &store, clock.now())?;
        let (access, swarms) = (Access::default(), Swarms::default());
        let since = clock.now().saturating_sub(config.interval.saturating_mul(2));
        if let Some(journal) = &journal {
            swarms.each().for_each(|mut shard| shard.ledger.keep_in(journal));
        }
        let tracker = Tracker { config, access, swarms, store, journal, stats: Stats::default(), clock };
        let mut hashes = std::collections::HashMap::new();
        let loading = |row: Loaded| match row {
            Loaded::User(user) => tracker.access.put_user(user),
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
                let swarm = torrent.swarm.get_or_insert_default();
                let user = tracker.access.by_id(session.user);
                if session.user != 0 && user.as_ref().is_none_or(|user| user.banned) {
                    return;
                }
                if let Some(user) = user.filter(|user| swarm.of_user(user.id, &session.peer_id).next().is_none()) {
                    user.come_back();
                }
                swarm.put(None, session, at);
            }
        };
        tracker.store.close_sessions(since).map_err(failed)?;
        tracker.store.load(since, loading).map_err(failed)?;
        tracker.access.set_clients(tracker.store.approved_clients().map_err(failed)?);
        tracker.store.hurry();
        Ok(tracker)
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
        found.map(|user| self.access.put_user(user)).is_some()
    }

    /// Looks a torrent up in the database. Returns whether it is there.
    fn look_up_torrent(&self, info_hash: &InfoHash) -> bool {
        let found = self.store.file_by_hash(info_hash).ok().flatten();
        found.map(|file| self.put_torrent(&file)).is_some()
    }

    /// Forgets a torrent and its swarm. What was moved until now is still written.
    pub fn remove_torrent(&self, info_hash: &InfoHash) {
        let gone = self.swarms.shard(info_hash).torrents.remove(info_hash);
        let swarm = gone.and_then(|torrent| torrent.swarm).unwrap_or_default();
        let mut users: Vec<u32> = swarm.iter().map(|(session, _)| session.user).collect();
        users.sort_unstable();
        users.dedup();
        users.into_iter().for_each(|user| self.access.left(user));
    }

    /// Stores a torrent as the database has it; its swarm stays.
    pub fn put_torrent(&self, file: &FileRow) {
        let mut shard = self.swarms.shard(&file.info_hash);
        let torrent: &mut Torrent = shard.torrents.entry(file.info_hash).or_default();
        (torrent.id, torrent.snatches, torrent.verified) = (file.id, file.completed, file.verified);
        torrent.factors = file.factors;
    }
}

/// The database in words, without secrets.
pub fn database(config: &Config) -> String {
    match config.db.driver {
        Driver::Sqlite => format!("SQLite {}", config.db.path.display()),
        Driver::Mysql => format!("MySQL database {} at {}", config.db.database, config.db.host),
    }
}

/// The URLs for a member's torrents and client.
pub fn announce_urls(config: &Config, passkey: &str) -> Vec<String> {
    let host = match config.host.as_str() {
        "" => "localhost".to_string(),
        host if host.contains(':') => format!("[{host}]"),
        host => host.to_string(),
    };
    let path = if config.passkey { format!("/{passkey}/announce") } else { "/announce".into() };
    let listeners = [
        (config.https, "https", config.ssl.port),
        (config.http, "http", config.port),
        (config.udp, "udp", config.port),
    ];
    let on = listeners.into_iter().filter(|(on, ..)| *on);
    on.map(|(_, scheme, port)| format!("{scheme}://{host}:{port}{path}")).collect()
}

/// Opens a socket with `bind`: on the configured host, or on every address, IPv6 and IPv4 on one socket.
fn listen<T>(host: &str, port: u16, bind: impl Fn(&[SocketAddr]) -> io::Result<T>) -> Result<T, String> {
    let addresses: Vec<SocketAddr> = if host.is_empty() {
        vec![(IpAddr::from(Ipv6Addr::UNSPECIFIED), port).into(), (IpAddr::from(Ipv4Addr::UNSPECIFIED), port).into()]
    } else {
        let found = (host, port).to_socket_addrs().map_err(|e| format!("cannot find Host {host}: {e}"))?;
        found.collect()
    };
    // The second is for machines without IPv6.
    let shown = if host.is_empty() { "every address" } else { host };
    bind(&addresses).map_err(|e| format!("cannot listen on port {port} of {shown}: {e}"))
}

/// Says, once and only to a person, who the first user is; makes that user.
fn first_user(tracker: &Tracker) -> Result<(), String> {
    let failed = |e| format!("{}: {e}", database(&tracker.config));
    if !tracker.config.passkey || tracker.store.has_users().map_err(failed)? {
        return Ok(());
    }
    if !std::io::stdout().is_terminal() {
        log("there are no users yet: make the first with `goat user add NAME --admin`");
        return Ok(());
    }
    let user = tracker.store.add_user("admin", 0, true).map_err(failed)?;
    let urls = announce_urls(&tracker.config, &user.passkey).into_iter();
    let urls: String = urls.map(|url| format!("  announce URL  {url}\n")).collect();
    let key = &user.api_key;
    let shown = format!("\nThe first user, admin, was made. This is shown once:\n{urls}  API key       {key}\n\n");
    io::stdout().write_all(shown.as_bytes()).map_err(|e| format!("cannot show the first user: {e}"))?;
    Ok(())
}

/// Runs the tracker until Ctrl-C or SIGTERM.
pub fn run(config: Config) -> Result<(), String> {
    let stop = signals()?;
    log(format!("goat {} with {}", env!("CARGO_PKG_VERSION"), config.file.display()));
    crate::sys::share_one_heap();
    let files = crate::sys::raise_file_limit().map_err(|e| format!("cannot raise the limit on open files: {e}"))?;
    // First the ports, so that a second goat stops before it touches the database.
    let tcp = config.http.then(|| listen(&config.host, config.port, |at| TcpListener::bind(at))).transpose()?;
    let udp = config.udp.then(|| listen(&config.host, config.port, |at| UdpSocket::bind(at))).transpose()?;
    let tracker = Arc::new(Tracker::load(config)?);
    log(format!("{}: {}", database(&tracker.config), crate::keeper::counts(&tracker)));
    first_user(&tracker)?;
    let failed = |e: io::Error| format!("cannot start to listen: {e}");
    let (mut http, mut datagrams) = (None, None);
    if let Some(listener) = tcp {
        let at = listener.local_addr().map_err(failed)?;
        http = Some(Listeners::start(&tracker, listener, files).map_err(failed)?);
        log(format!("listening for HTTP on {at}"));
    }
    if let Some(socket) = udp {
        let at = socket.local_addr().map_err(failed)?;
        datagrams = Some(udp::Listener::start(&tracker, socket).map_err(failed)?);
        log(format!("listening for UDP on {at}"));
    }
    let mut keeper = Keeper::new(tracker.clone());
    keeper.run(&stop);
    log("stopping");
    datagrams.into_iter().for_each(udp::Listener::stop);
    http.into_iter().for_each(Listeners::stop);
    keeper.finish()?;
    log("stopped");
    Ok(())
}

/// Receives something at the first Ctrl-C or SIGTERM; the second ends the process.
fn signals() -> Result<Receiver<()>, String> {
    let (sender, receiver) = channel();
    let mut seen = false;
    let handler = move || {
        if std::mem::replace(&mut seen, true) {
            log("stopped at once by a second signal");
            std::process::exit(1);
        }
        // The receiver is gone only where goat is about to end anyway.
        let _ = sender.send(());
    };
    ctrlc::set_handler(handler).map_err(|e| format!("cannot handle signals: {e}"))?;
    Ok(receiver)
}
