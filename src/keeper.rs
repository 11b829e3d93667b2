//! The keeper: the one thread that writes the books, follows changes in the database, lets silent peers go
//! and says how things are.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::books::recovery::unwritten;
use crate::history::Counts;
use crate::log::log;
use crate::random::Rng;
use crate::rules::announce::{drop_users, expire};
use crate::store::{Batch, Change, Error, Kind, Suggestion};
use crate::tracker::Tracker;

/// From one batch to the next, and the least between them.
const WRITE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);
/// Seconds between two looks for changes: half of what is promised, for a look may take a while.
const CHANGES: u32 = 2;
/// The most seconds between two searches for silent peers.
const EXPIRE: u32 = 60;
/// Seconds between two looks at the certificate's files: a third of what is promised.
const CERTIFICATES: u32 = 20;
/// Seconds between two reports on who guesses passkeys.
const GUESSES: u32 = 60;
/// Seconds between two status lines.
const STATUS: u32 = 300;
/// Seconds between two clean-ups of batch numbers, and how old those may get.
const FORGET: u32 = 3_600;
const MAX_BATCH_AGE: u32 = 86_400;
/// How long a session may be silent, and a suggestion wait, before its row is removed, in seconds.
const RETENTION: u32 = 30 * 86_400;
/// How long it may be busy with that between two batches, where there is something to remove.
const SWEEP: Duration = Duration::from_millis(300);

/// Does everything that takes time, apart from answering.
pub struct Keeper {
    tracker: Arc<Tracker>,
    rng: Rng,
    /// A batch whose fate is unknown: it must be settled before the next.
    unsettled: Option<Batch>,
    /// Since when the database has been away, in seconds since 1970.
    away_since: Option<u32>,
    /// Rows written since it was away.
    caught_up: usize,
    /// The torrent from which on silent sessions are looked for; `None` until the next clean-up.
    sweep: Option<u32>,
    /// When everything was written last, in seconds since 1970.
    written: u32,
    /// It did not answer in time when it was asked last.
    hangs: bool,
    /// The journal had no room when something was kept last, or was not where the next start looks for it.
    journal_fails: bool,
    /// Announces at the last status line.
    announces: u64,
}

/// Something done every so many seconds.
struct Every {
    seconds: u32,
    next: u32,
}

impl Every {
    fn new(seconds: u32, now: u32) -> Every {
        Every { seconds, next: now.saturating_add(seconds) }
    }

    fn due(&mut self, now: u32) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now.saturating_add(self.seconds);
        }
        due
    }
}

impl Keeper {
    /// A keeper that has nothing to write yet.
    pub fn new(tracker: Arc<Tracker>) -> Keeper {
        let written = tracker.clock.now();
        let rng = Rng::from_system();
        Keeper {
            tracker,
            rng,
            unsettled: None,
            away_since: None,
            caught_up: 0,
            sweep: Some(0),
            written,
            hangs: false,
            journal_fails: false,
            announces: 0,
        }
    }

    /// Keeps until something comes through `stop`; calls `refresh` when it is time to look at the certificate.
    pub fn run(&mut self, stop: &Receiver<()>, refresh: impl Fn()) {
        let now = self.tracker.clock.now();
        let mut changes = Every::new(CHANGES, now);
        let mut silent = Every::new(EXPIRE.min(self.tracker.config.interval), now);
        let mut certificates = Every::new(CERTIFICATES, now);
        let mut guesses = Every::new(GUESSES, now);
        let mut status = Every::new(STATUS, now);
        let mut forget = Every::new(FORGET, now);
        let mut pause = WRITE;
        while stop.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            let (begin, now) = (Instant::now(), self.tracker.clock.now());
            self.tracker.history.tick(&self.tracker.metrics, &self.tracker.swarms, &self.tracker.store, now);
            if silent.due(now) {
                for mut shard in self.tracker.swarms.each() {
                    expire(&self.tracker.config, &self.tracker.access, &mut shard, now);
                }
            }
            if certificates.due(now) {
                refresh();
            }
            self.watch_journal();
            let mut done = self.write(now);
            // While the database is away it is asked each time, or an idle tracker would think it back.
            if done.is_ok() && (changes.due(now) || self.away_since.is_some()) {
                done = self.follow_changes();
            }
            if done.is_ok() {
                done = self.record_suggestions();
            }
            if done.is_ok() && forget.due(now) {
                done = self.tracker.store.forget_batches(now.saturating_sub(MAX_BATCH_AGE));
                self.sweep = self.sweep.or(Some(0));
            }
            let (start, mut more) = (Instant::now(), true);
            while let (Ok(()), Some(from), true) = (&done, self.sweep, more && start.elapsed() < SWEEP) {
                let swept = self.tracker.store.sweep(from, now.saturating_sub(RETENTION));
                done = swept.map(|swept| (self.sweep, more) = swept);
            }
            if done.is_ok() {
                done = self.tracker.history.save(&self.tracker.store, now, false);
            }
            self.report(done, now);
            if guesses.due(now) {
                let kinds = [("passkeys", &self.tracker.wrong_passkeys), ("API keys", &self.tracker.auth.failures)];
                for (kind, failures) in kinds {
                    failures.report().into_iter().for_each(|report| log(format!("too many wrong {kind} {report}")));
                }
            }
            if status.due(now) {
                self.status();
            }
            // From begin to begin: where a batch takes long, the next must not wait as well.
            pause = WRITE.saturating_sub(begin.elapsed()).max(PAUSE);
        }
    }

    /// Writes everything that is unwritten, one batch after the other.
    fn write(&mut self, now: u32) -> Result<(), Error> {
        let again = self.away_since.is_some();
        // After an outage also what has gathered meanwhile.
        for _ in 0..=usize::from(again) {
            let batch = self.unsettled.take().unwrap_or_else(|| gather(&self.tracker, &mut self.rng));
            let begin = Instant::now();
            let done = if batch.is_empty() { Ok(()) } else { self.tracker.store.write(&batch, now) };
            match done {
                Ok(()) => {
                    if !batch.is_empty() {
                        self.tracker.metrics.wrote(batch.rows(), begin.elapsed());
                    }
                    self.caught_up += if again { batch.rows() } else { 0 };
                    self.tracker.journal.iter().for_each(|journal| journal.forget(Some(batch.number)));
                }
                Err(e) => {
                    self.unsettled = Some(batch);
                    self.shorten_journal();
                    self.count_unsaved();
                    return Err(e);
                }
            }
        }
        self.written = now;
        self.tracker.metrics.saved(now);
        self.count_unsaved();
        Ok(())
    }

    /// Says once that a kill would lose something, and returns whether the journal has overflowed.
    fn watch_journal(&mut self) -> bool {
        let Some(journal) = &self.tracker.journal else { return false };
        let (full, lost) = (journal.overflowed(), !journal.is_there());
        if !self.journal_fails && (full || lost) {
            let (file, what) = (journal.path().display(), if lost { "was removed" } else { "has no more room" });
            log(format!("{file} {what}: a kill would lose part of what is unwritten"));
        }
        self.journal_fails = full || lost;
        full
    }

    /// Where the database has been away so long that the journal is, keeps each row in it once.
    fn shorten_journal(&mut self) {
        let Some(journal) = self.tracker.journal.clone() else { return };
        let rows = self.tracker.swarms.each().map(|shard| shard.ledger.rows()).sum();
        if journal.long(rows) {
            let old = journal.current();
            journal.turn(&mut self.rng, true);
            if journal.current() != old {
                self.tracker.swarms.each().for_each(|mut shard| shard.ledger.keep_all());
                if !self.watch_journal() {
                    journal.clear(old);
                }
            }
        }
    }

    fn count_unsaved(&self) {
        let unsettled = self.unsettled.as_ref().map_or(0, Batch::rows);
        let ledgers: usize = self.tracker.swarms.each().map(|shard| shard.ledger.rows()).sum();
        self.tracker.stats.unsaved.store((unsettled + ledgers) as u64, Relaxed);
    }

    /// Takes over what others have changed in the database.
    fn follow_changes(&self) -> Result<(), Error> {
        let start = Instant::now();
        // A second for changes, a second for the books: while somebody imports a million torrents too.
        while self.follow_some()? && start.elapsed() < WRITE {}
        Ok(())
    }

    /// Takes over some, and says whether there may be more.
    fn follow_some(&self) -> Result<bool, Error> {
        let tracker = &self.tracker;
        let (changes, ids) = tracker.store.changes()?;
        if changes.iter().any(|change| !matches!(change, Change::User(_) | Change::UserGone(_))) {
            tracker.access.forget_suggestions();
        }
        let mut gone = HashSet::new();
        for change in changes {
            match change {
                Change::User(user) => {
                    gone.extend(user.banned.then_some(user.id));
                    tracker.access.put_user(user.into());
                }
                Change::UserGone(id) => {
                    gone.insert(id);
                    tracker.access.remove_user(id);
                }
                Change::File(file) => tracker.put_torrent(&file),
                Change::FileGone(hash) => tracker.remove_torrent(&hash),
                Change::Clients(prefixes) => tracker.access.set_clients(prefixes),
            }
        }
        // When nobody can come back, and all in one walk.
        if !gone.is_empty() {
            tracker.swarms.each().for_each(|mut shard| drop_users(&tracker.access, &mut shard, &gone));
        }
        tracker.store.forget_changes(&ids)?;
        Ok(!ids.is_empty())
    }

    fn record_suggestions(&self) -> Result<(), Error> {
        let suggestions = self.tracker.access.take_suggestions();
        if suggestions.is_empty() {
            return Ok(());
        }
        // What could not be written is suggested again by the next announce.
        let written = self.tracker.store.suggest(&suggestions, self.tracker.clock.now());
        let written = written.inspect_err(|_| self.tracker.access.forget_suggestions());
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

    /// Says once that the database is away, and once that it is back.
    fn report(&mut self, done: Result<(), Error>, now: u32) {
        self.tracker.metrics.database(done.is_ok());
        self.hangs = matches!(&done, Err(e) if e.kind == Kind::Silent);
        match done {
            Ok(()) => self.came_back(now),
            Err(e) if self.away_since.is_none() => {
                self.away_since = Some(now);
                log(format!(
                    "{} cannot be written: {e}. Announces are answered, {} rows are kept in memory until it can",
                    self.tracker.config.database_name(),
                    self.tracker.stats.unsaved.load(Relaxed)
                ));
            }
            Err(_) => {}
        }
    }

    fn came_back(&mut self, now: u32) {
        if let Some(since) = self.away_since.take() {
            let name = self.tracker.config.database_name();
            let (seconds, rows) = (now.saturating_sub(since), std::mem::take(&mut self.caught_up));
            log(format!("{name} can be written again, after {seconds} seconds: {rows} rows were caught up"));
        }
    }

    fn status(&mut self) {
        let stats = &self.tracker.stats;
        let (announces, refused) = self.tracker.metrics.announces();
        log(format!(
            "status: {}, {} announces (+{}), {} refused, {} connections, {} unsaved rows{}",
            counts(&self.tracker),
            announces,
            announces.saturating_sub(self.announces),
            refused,
            stats.connections.load(Relaxed),
            stats.unsaved.load(Relaxed),
            self.away_since.map_or(String::new(), |_| format!(
                ", the oldest {} seconds old, for {} cannot be written",
                self.tracker.clock.now().saturating_sub(self.written),
                self.tracker.config.database_name()
            )),
        ));
        self.announces = announces;
    }

    /// Writes what is unwritten for the last time: into the database, or else into a file that the next
    /// start reads.
    pub fn finish(mut self) -> Result<(), String> {
        let now = self.tracker.clock.now();
        // A database that hangs is not waited for again: goat is to end within 10 seconds.
        let done = match self.hangs {
            true => Err("it does not answer".to_string()),
            false => self.write(now).map_err(|e| e.to_string()),
        };
        if done.is_ok() {
            self.tracker.history.tick(&self.tracker.metrics, &self.tracker.swarms, &self.tracker.store, now);
            // A few minutes of a graph are no reason to end with an error.
            let _ = self.tracker.history.save(&self.tracker.store, now, true);
        }
        let Err(e) = done else { return Ok(()) };
        let rest = gather(&self.tracker, &mut self.rng);
        let batches: Vec<Batch> = self.unsettled.take().into_iter().chain((!rest.is_empty()).then_some(rest)).collect();
        let rows: usize = batches.iter().map(Batch::rows).sum();
        if rows == 0 {
            return Ok(());
        }
        let file = unwritten(&self.tracker.config);
        // Whole or not at all: half of it would keep the next start from using the journal.
        let new = file.with_extension("new");
        let saved = serde_json::to_vec(&batches).map_err(std::io::Error::from).and_then(|json| {
            let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            out.write_all(&json)?;
            out.sync_all()?;
            fs::rename(&new, &file)?;
            File::open(file.parent().unwrap_or(&file))?.sync_all()
        });
        if saved.is_err() {
            let _ = fs::remove_file(&new);
        }
        let name = self.tracker.config.database_name();
        match saved {
            Ok(()) => {
                self.tracker.journal.iter().for_each(|journal| journal.forget(None));
                log(format!(
                    "{name} cannot be written: {e}. The next start writes {rows} rows from {}",
                    file.display()
                ));
                Ok(())
            }
            Err(e2) => {
                let kept = self.tracker.journal.as_ref().map_or("are lost".to_string(), |journal| {
                    format!("are in {}: start goat again before the machine", journal.path().display())
                });
                Err(format!("{name} cannot be written: {e}; nor can {}: {e2}. {rows} rows {kept}", file.display()))
            }
        }
    }
}

/// Takes what is unwritten as one batch.
pub fn gather(tracker: &Tracker, rng: &mut Rng) -> Batch {
    let number = tracker.journal.as_ref().map(|journal| journal.turn(rng, false));
    let database = tracker.journal.as_ref().map_or(0, |journal| journal.database().load(Acquire));
    let mut batch = Batch { number: number.unwrap_or_else(|| rng.bits() >> 1), database, ..Batch::default() };
    tracker.swarms.each().for_each(|mut shard| batch.add(shard.ledger.take()));
    batch.sessions.sort_unstable_by_key(|(key, _)| *key);
    batch
}

/// Users, torrents and peers, in words.
pub fn counts(tracker: &Tracker) -> String {
    let Counts { torrents, seeders, leechers, .. } = Counts::now(&tracker.swarms);
    format!("{} users, {torrents} torrents, {seeders} seeders, {leechers} leechers", tracker.access.users())
}
