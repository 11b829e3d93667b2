//! The keeper: the one thread that writes the books, follows changes in the database, lets silent peers go
//! and says how things are.

mod follow;
mod write;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

pub use self::follow::{compare, follow_changes};
pub use self::write::Writer;
use crate::log::log;
use crate::rules::announce::expire;
use crate::snapshot::Snapshot;
use crate::store::{Error, Kind};
use crate::tracker::Tracker;

/// From one turn to the next, and the least between them.
const TURN: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);
/// Seconds between two looks for changes: half of what is promised, for a look may take a while.
const CHANGES: u32 = 2;
/// Seconds from one comparison of memory with the database to the next: half of what is promised.
const COMPARE: u32 = 300;
/// The most seconds between two searches for silent peers.
const EXPIRE: u32 = 60;
/// Seconds between two looks at the certificate's files: a third of what is promised.
const CERTIFICATES: u32 = 20;
/// Seconds between two reports on who was refused what.
const REFUSED: u32 = 60;
const STATUS: u32 = 300;
/// Seconds between two searches for old rows.
const FORGET: u32 = 3_600;
/// How long a session may be silent, and a suggestion wait, before its row is removed, in seconds.
const RETENTION: u32 = 30 * 86_400;
/// How long it may be busy with that in one turn, where there is something to remove.
const SWEEP: Duration = Duration::from_millis(300);

/// Does everything that takes time, apart from answering.
pub struct Keeper {
    tracker: Arc<Tracker>,
    pub writer: Writer,
    /// Since when the database has been away, in seconds since 1970.
    away_since: Option<u32>,
    /// The torrent from which on old rows are looked for; `None` until the next search.
    sweep: Option<u32>,
    /// It did not answer in time when it was asked last.
    hangs: bool,
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

struct Times {
    changes: Every,
    compare: Every,
    silent: Every,
    certificates: Every,
    refused: Every,
    status: Every,
    forget: Every,
}

impl Keeper {
    pub fn new(tracker: Arc<Tracker>) -> Keeper {
        let writer = Writer::new(tracker.clock.now());
        Keeper { tracker, writer, away_since: None, sweep: None, hangs: false, announces: 0 }
    }

    /// Keeps until something comes through `stop`; calls `refresh` when it is time to look at the certificate. Ends
    /// with an error where the database is not the one any more that it wrote.
    pub fn run(&mut self, stop: &Receiver<()>, refresh: impl Fn()) -> Result<(), String> {
        let now = self.tracker.clock.now();
        let every = |seconds| Every::new(seconds, now);
        let mut times = Times {
            changes: every(CHANGES),
            compare: every(COMPARE),
            silent: every(EXPIRE.min(self.tracker.config.interval)),
            certificates: every(CERTIFICATES),
            refused: every(REFUSED),
            status: every(STATUS),
            forget: every(FORGET),
        };
        let mut pause = TURN;
        while stop.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            let begin = Instant::now();
            self.turn(&mut times, &refresh)?;
            // From begin to begin: where writing takes long, the next must not wait as well.
            pause = TURN.saturating_sub(begin.elapsed()).max(PAUSE);
        }
        Ok(())
    }

    fn turn(&mut self, times: &mut Times, refresh: &impl Fn()) -> Result<(), String> {
        if let Some(ahead) = self.tracker.clock.follow(crate::clock::now()) {
            log(format!("the system's clock was set forward by {ahead} seconds: following it"));
        }
        let now = self.tracker.clock.now();
        self.tracker.history.tick(&self.tracker.metrics, &self.tracker.swarms, &self.tracker.store, now);
        if times.silent.due(now) {
            self.expire(now);
        }
        if times.certificates.due(now) {
            refresh();
        }
        self.writer.tend_journal(&self.tracker);
        let done = self.use_database(times, now);
        self.tracker.metrics.unsaved.store(Writer::waiting(&self.tracker) as u64, Relaxed);
        if let Err(e) = &done
            && e.kind == Kind::Replaced
        {
            return Err(format!("{}: {e}", self.tracker.config.database_name()));
        }
        self.report(done, now);
        if times.refused.due(now) {
            let limits = &self.tracker.limits;
            for (what, refused) in [
                ("connections refused or closed to make room", &limits.refused_connections),
                ("unknown passkeys not looked up", &limits.refused_passkeys),
                ("API calls refused after too many failed sign-ins", &limits.refused_logins),
            ] {
                refused.report().into_iter().for_each(|report| log(format!("{what}: {report}")));
            }
        }
        if times.status.due(now) {
            self.status();
        }
        Ok(())
    }

    /// Everything that may wait for the database.
    fn use_database(&mut self, times: &mut Times, now: u32) -> Result<(), Error> {
        let tracker = self.tracker.clone();
        // While it is away it is asked each time, before anything is prepared for it.
        let due = times.changes.due(now) || self.away_since.is_some();
        if due {
            tracker.store.is_same()?;
        }
        if self.writer.due(&tracker, now) {
            self.writer.write(&tracker, now)?;
        }
        if due {
            follow_changes(&tracker)?;
        }
        follow::record_suggestions(&tracker)?;
        if times.compare.due(now) {
            compare(&tracker)?;
        }
        if times.forget.due(now) && tracker.clock.is_steady() {
            self.sweep = self.sweep.or(Some(0));
        }
        let (start, mut more) = (Instant::now(), true);
        while let (Some(from), true) = (self.sweep, more && start.elapsed() < SWEEP) {
            (self.sweep, more) = tracker.store.sweep(from, now.saturating_sub(RETENTION))?;
        }
        Ok(())
    }

    fn expire(&self, now: u32) {
        let (tracker, mut records) = (&self.tracker, Vec::new());
        for mut shard in tracker.swarms.each() {
            expire(&tracker.config, &tracker.access, &mut shard, now, &mut records);
            drop(shard);
            tracker.journal.write(&mut records);
        }
    }

    /// Says once that the database is away, and once that it is back.
    fn report(&mut self, done: Result<(), Error>, now: u32) {
        self.tracker.metrics.database_up.store(done.is_ok(), Relaxed);
        self.hangs = matches!(&done, Err(e) if e.kind == Kind::Silent);
        match done {
            Ok(()) => self.came_back(now),
            Err(e) if self.away_since.is_none() => {
                self.away_since = Some(now);
                self.writer.caught_up = 0;
                log(format!(
                    "{} cannot be written: {e}. Announces are answered, {} rows are kept in memory until it can",
                    self.tracker.config.database_name(),
                    self.tracker.metrics.unsaved.load(Relaxed)
                ));
            }
            Err(_) => {}
        }
    }

    fn came_back(&mut self, now: u32) {
        if let Some(since) = self.away_since.take() {
            let name = self.tracker.config.database_name();
            let (seconds, rows) = (now.saturating_sub(since), self.writer.caught_up);
            log(format!("{name} can be written again, after {seconds} seconds: {rows} rows were written late"));
        }
    }

    fn status(&mut self) {
        let now = Snapshot::take(&self.tracker);
        log(format!(
            "status: {}, {} announces (+{}), {} refused, {} connections, {} unsaved rows{}",
            now.counts(),
            now.sample.announces,
            now.sample.announces.saturating_sub(self.announces),
            now.sample.refused,
            now.connections,
            now.database.unsaved_rows,
            self.away_since.map_or(String::new(), |_| format!(
                ", the oldest {} seconds old, because {} cannot be written",
                self.tracker.clock.now().saturating_sub(self.writer.written),
                self.tracker.config.database_name()
            )),
        ));
        self.announces = now.sample.announces;
    }

    /// Writes everything for the last time.
    pub fn finish(mut self) -> Result<(), String> {
        let now = self.tracker.clock.now();
        if !self.hangs {
            self.tracker.history.tick(&self.tracker.metrics, &self.tracker.swarms, &self.tracker.store, now);
        }
        self.writer.finish(&self.tracker, self.hangs)
    }
}
