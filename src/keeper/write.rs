//! Writing the books: when ledgers are taken, how they are settled, and what the journal must hold meanwhile.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crate::books::ledger::Waiting;
use crate::books::settle::{MOST_ROWS, settle, sort};
use crate::log::log;
use crate::rules::announce::silence;
use crate::store::Error;
use crate::tracker::Tracker;

/// States a second below which all are written each second.
const FEW: usize = 1_000;
/// Seconds from one writing to the next where there are more, and at most where the database is slow: what changes
/// again meanwhile is written once.
const PACE: u32 = 10;
const SLOWEST: u32 = 30;
/// How long a transaction may take before the next one is smaller: half of what others may be kept waiting.
const LOCKED: Duration = Duration::from_millis(250);
/// The fewest states of a transaction, and those of the first: how fast the database is must be seen.
const LEAST_ROWS: usize = 500;
const FIRST_ROWS: usize = 2_000;
/// How long others are let in between two transactions, at least and at most: SQLite's waiters look at most 100 ms
/// apart.
const GAP: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(110));
/// How long the last writing may take: goat is to end within 10 seconds, of which listeners may take 3.
const LAST: Duration = Duration::from_secs(5);
/// Bytes of a segment after which another begins.
const SHORT: u64 = 256 << 10;
/// Bytes of a journal that is worth writing anew, if it has more than twice what waits.
const LONG: u64 = 64 << 20;

pub struct Writer {
    /// When everything was written last, in seconds since 1970.
    pub written: u32,
    took: u32,
    rows: usize,
    /// How long others are let in before the next.
    gap: Duration,
    /// States written since the database was away.
    pub caught_up: usize,
    /// The journal could not be written when it was looked at last.
    fails: bool,
}

impl Writer {
    /// A writer that has nothing to write yet, at a time in seconds since 1970.
    pub fn new(now: u32) -> Writer {
        Writer { written: now, took: 0, rows: FIRST_ROWS, gap: GAP.0, caught_up: 0, fails: false }
    }

    pub fn waiting(tracker: &Tracker) -> usize {
        tracker.swarms.each().map(|shard| shard.ledger.waiting()).sum()
    }

    /// Takes all that waits, sorted.
    pub fn take(tracker: &Tracker) -> Vec<Waiting> {
        let mut batch = Vec::new();
        tracker.swarms.each().for_each(|mut shard| shard.ledger.take(&mut batch));
        sort(&mut batch);
        batch
    }

    /// Has what was taken and could not be settled wait on.
    pub fn put_back(tracker: &Tracker, states: &[Waiting]) {
        for waiting in states {
            tracker.swarms.shard(&waiting.0).ledger.put_back(*waiting);
        }
    }

    /// Whether it is time to write: each second while little happens.
    pub fn due(&self, tracker: &Tracker, now: u32) -> bool {
        let passed = now.saturating_sub(self.written).max(1);
        let pace = self.took.saturating_mul(3).clamp(PACE, SLOWEST);
        Writer::waiting(tracker) < FEW.saturating_mul(passed as usize) || passed >= pace
    }

    /// Settles everything that waits. What cannot be settled waits on. Between two transactions others are let in for as
    /// long as `between` is told; where that returns true, the rest waits on, too.
    pub fn write(
        &mut self,
        tracker: &Tracker,
        now: u32,
        mut between: impl FnMut(Duration) -> bool,
    ) -> Result<(), Error> {
        // First: what is noted from here on is in a later segment than what is settled. A short one goes on, for to
        // settle it again costs little, until nothing happens for a while.
        let short = if Writer::waiting(tracker) == 0 { 0 } else { SHORT };
        let segment = if tracker.journal.length() > short { tracker.journal.turn().ok() } else { None };
        let batch = Writer::take(tracker);
        let begin = Instant::now();
        let mut rest = &batch[..];
        while !rest.is_empty() {
            let (part, later) = rest.split_at(self.rows.min(rest.len()));
            self.settle(tracker, part).inspect_err(|_| Writer::put_back(tracker, rest))?;
            if !later.is_empty() && between(self.gap) {
                Writer::put_back(tracker, later);
                return Ok(());
            }
            rest = later;
        }
        if !batch.is_empty() {
            tracker.metrics.wrote(batch.len(), begin.elapsed());
        }
        if let Some(segment) = segment {
            tracker.journal.settled(segment);
        }
        self.written = now;
        self.took = begin.elapsed().as_secs() as u32;
        tracker.metrics.saved.store(now, Relaxed);
        Ok(())
    }

    fn settle(&mut self, tracker: &Tracker, part: &[Waiting]) -> Result<(), Error> {
        let begin = Instant::now();
        let told = settle(&tracker.store, part, silence(&tracker.config))?;
        for told in &told {
            tracker.change(tracker.swarms.shard(&told.info_hash), |shard, records| shard.resolve(told, records));
            // Others have the session without its number.
            tracker.publish(&told.info_hash, &told.key);
        }
        self.caught_up += part.len();
        let took = begin.elapsed();
        // Others write, too: a command must not wait long for its turn, nor in vain.
        if took > LOCKED {
            self.rows = (self.rows / 2).max(LEAST_ROWS);
        } else if took < LOCKED / 2 {
            self.rows = (self.rows * 2).min(MOST_ROWS);
        }
        self.gap = took.clamp(GAP.0, GAP.1);
        Ok(())
    }

    /// Sees to it that the journal is on the disk, holds all that waits, and is not much longer than that; says once
    /// where it cannot.
    pub fn tend_journal(&mut self, tracker: &Tracker) {
        let journal = &tracker.journal;
        let failed = journal.failed();
        if !self.fails && !failed && !is_long(tracker) {
            return;
        }
        let renewed = renew_journal(tracker);
        let path = journal.path().display();
        match (&renewed, std::mem::replace(&mut self.fails, renewed.is_err())) {
            (Ok(()), true) => log(format!("{path} can be written again")),
            (Ok(()), false) if failed => log(format!("{path} was rewritten: part of it was missing")),
            (Err(e), false) => log(format!(
                "{path} cannot be written ({e}): until it can, a kill would lose what is not yet in the database"
            )),
            _ => {}
        }
    }

    /// Writes everything for the last time. What cannot be written stays in the journal, for the next start.
    pub fn finish(&mut self, tracker: &Tracker, hangs: bool) -> Result<(), String> {
        // A database that hangs is not waited for again: goat is to end within 10 seconds.
        let done = if hangs { Err(Error::other("it does not answer")) } else { self.write_all(tracker) };
        let Err(e) = done.and_then(|()| tracker.store.end_run(tracker.store.run())) else {
            tracker.journal.settled(u64::MAX);
            return Ok(());
        };
        let (waiting, journal) = (Writer::waiting(tracker), &tracker.journal);
        if waiting == 0 {
            return Ok(());
        }
        let kept = journal.sync().is_ok() && !journal.failed() && !self.fails;
        let (name, path) = (tracker.config.database_name(), journal.path().display());
        if !kept && renew_journal(tracker).is_err() {
            return Err(format!(
                "{name} cannot be written: {e}; nor can {path}: {waiting} states of sessions are lost"
            ));
        }
        log(format!("{name} cannot be written: {e}. The next start writes {waiting} states of sessions from {path}"));
        Ok(())
    }

    fn write_all(&mut self, tracker: &Tracker) -> Result<(), Error> {
        let (now, until) = (tracker.clock.now(), Instant::now() + LAST);
        // Asked before anything is prepared for it.
        tracker.store.is_same()?;
        // Whoever waited for the database was answered meanwhile.
        while Writer::waiting(tracker) > 0 {
            if Instant::now() > until {
                return Err(Error::other("there is too much"));
            }
            self.write(tracker, now, |_| Instant::now() > until)?;
        }
        // A few minutes of a graph are no reason to end with an error.
        let _ = tracker.history.save(&tracker.metrics, &tracker.store, now, true);
        Ok(())
    }
}

fn is_long(tracker: &Tracker) -> bool {
    let size = tracker.journal.size();
    size > LONG && size > (Writer::waiting(tracker) * crate::books::journal::RECORD * 2) as u64
}

/// Writes all that waits into a new segment, and removes the older ones.
fn renew_journal(tracker: &Tracker) -> std::io::Result<()> {
    let journal = &tracker.journal;
    let segment = journal.turn()?;
    let mut records = Vec::new();
    for shard in tracker.swarms.each() {
        shard.ledger.records(&mut records);
        drop(shard);
        journal.append(&mut records);
    }
    journal.sync()?;
    if journal.failed() {
        return Err(std::io::Error::other("there is no room for all of it"));
    }
    journal.settled(segment);
    Ok(())
}
