//! The keeper: the one thread that writes the books, follows changes in the database, lets silent peers go
//! and says how things are.

mod follow;
mod write;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
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
    /// Goat is to end.
    stopped: bool,
    /// Announces at the last status line.
    announces: u64,
    /// Its beginning, in seconds since 1970; and in seconds from then on the last turn, and the last in which the
    /// database could be used.
    begun: u32,
    last: u32,
    kept: u32,
}

/// Whether it was time, between two turns, for what is done every so many seconds.
fn is_due(seconds: u32, last: u32, now: u32) -> bool {
    now / seconds > last / seconds
}

impl Keeper {
    pub fn new(tracker: Arc<Tracker>) -> Keeper {
        let begun = tracker.clock.now();
        let (writer, away_since, sweep, hangs, stopped) = (Writer::new(begun), None, None, false, false);
        Keeper { tracker, writer, away_since, sweep, hangs, stopped, announces: 0, begun, last: 0, kept: 0 }
    }

    /// Keeps until something comes through `stop`; calls `refresh` when it is time to look at the certificate. Ends
    /// with an error where the database is not the one any more that it wrote.
    pub fn run(&mut self, stop: &Receiver<()>, refresh: impl Fn()) -> Result<(), String> {
        let (_end, ended) = channel::<()>();
        let tracker = self.tracker.clone();
        // By itself: a turn may take longer than answers may be lost for.
        let sync = move || {
            while ended.recv_timeout(TURN) == Err(RecvTimeoutError::Timeout) {
                let _ = tracker.journal.sync(); // which `tend_journal` learns
            }
        };
        std::thread::Builder::new().spawn(sync).map_err(|e| format!("cannot start a thread: {e}"))?;
        let mut pause = TURN;
        while !self.stopped && stop.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            let begin = Instant::now();
            self.turn(stop, &refresh)?;
            // From begin to begin: where writing takes long, the next must not wait as well.
            pause = TURN.saturating_sub(begin.elapsed()).max(PAUSE);
        }
        Ok(())
    }

    fn turn(&mut self, stop: &Receiver<()>, refresh: &impl Fn()) -> Result<(), String> {
        if let Some(ahead) = self.tracker.clock.follow(crate::clock::now()) {
            log(format!("the system's clock was set forward by {ahead} seconds: following it"));
        }
        let now = self.tracker.clock.now();
        let passed = now.saturating_sub(self.begun);
        let last = std::mem::replace(&mut self.last, passed);
        let due = |seconds| is_due(seconds, last, passed);
        self.tracker.history.tick(&self.tracker.metrics, &self.tracker.swarms, &self.tracker.store, now);
        if due(EXPIRE.min(self.tracker.config.interval)) {
            self.expire(now);
        }
        if due(CERTIFICATES) {
            refresh();
        }
        self.writer.tend_journal(&self.tracker);
        let done = self.use_database(now, stop);
        if done.is_ok() {
            self.kept = passed;
        }
        self.tracker.metrics.unsaved.store(Writer::waiting(&self.tracker) as u64, Relaxed);
        if let Err(e) = &done
            && e.kind == Kind::Replaced
        {
            return Err(format!("{}: {e}", self.tracker.config.database_name()));
        }
        self.report(done, now);
        if due(REFUSED) {
            let limits = &self.tracker.limits;
            for (what, refused) in [
                ("connections refused or closed to make room", &limits.refused_connections),
                ("unknown passkeys not looked up", &limits.refused_passkeys),
                ("API calls refused after too many failed sign-ins", &limits.refused_logins),
            ] {
                refused.report().into_iter().for_each(|report| log(format!("{what}: {report}")));
            }
        }
        if due(STATUS) {
            self.status();
        }
        Ok(())
    }

    /// Everything that may wait for the database; the longest lets others in between, and ends where goat is to stop.
    fn use_database(&mut self, now: u32, stop: &Receiver<()>) -> Result<(), Error> {
        let (tracker, begun, kept) = (self.tracker.clone(), self.begun, self.kept);
        let (mut looked, mut followed) = (kept, Ok(()));
        let mut follow = || {
            let passed = tracker.clock.now().saturating_sub(begun);
            if is_due(CHANGES, looked, passed) {
                (looked, followed) = (passed, follow_changes(&tracker));
            }
        };
        let due = |seconds| is_due(seconds, kept, now.saturating_sub(begun));
        // While it is away it is asked each time, before anything is prepared for it.
        if due(CHANGES) {
            tracker.store.is_same()?;
        }
        // First, for the books may be what cannot be written.
        follow();
        if self.writer.due(&tracker, now) {
            let between = |gap| {
                self.stopped |= stop.recv_timeout(gap) != Err(RecvTimeoutError::Timeout);
                follow();
                self.stopped
            };
            self.writer.write(&tracker, now, between)?;
            tracker.history.save(&tracker.metrics, &tracker.store, now, false)?;
        }
        if self.stopped {
            return Ok(());
        }
        followed?;
        follow::record_suggestions(&tracker)?;
        if due(COMPARE) {
            compare(&tracker)?;
        }
        if due(FORGET) && tracker.clock.is_steady() {
            self.sweep = self.sweep.or(Some(0));
        }
        let (start, mut more) = (Instant::now(), true);
        while let (Some(from), true) = (self.sweep, more && start.elapsed() < SWEEP) {
            (self.sweep, more) = tracker.store.sweep(from, now.saturating_sub(RETENTION))?;
        }
        Ok(())
    }

    fn expire(&self, now: u32) {
        let Tracker { config, access, swarms, .. } = &*self.tracker;
        for shard in swarms.each() {
            self.tracker.change(shard, |shard, records| expire(config, access, shard, now, records));
        }
    }

    /// Says once that the database is away, and once that it is back.
    fn report(&mut self, done: Result<(), Error>, now: u32) {
        self.tracker.metrics.database_up.store(done.is_ok(), Relaxed);
        self.hangs = matches!(&done, Err(e) if e.kind == Kind::Silent);
        let name = self.tracker.config.database_name();
        match (done, self.away_since) {
            (Ok(()), Some(since)) => {
                self.away_since = None;
                let (seconds, rows) = (now.saturating_sub(since), self.writer.caught_up);
                log(format!("{name} can be written again, after {seconds} seconds: {rows} rows were written late"));
            }
            (Err(e), None) => {
                (self.away_since, self.writer.caught_up) = (Some(now), 0);
                let kept = self.tracker.metrics.unsaved.load(Relaxed);
                log(format!(
                    "{name} cannot be written: {e}. Announces are answered, {kept} rows are kept in memory until it can"
                ));
            }
            _ => {}
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
        self.writer.finish(&self.tracker, self.hangs)
    }
}
