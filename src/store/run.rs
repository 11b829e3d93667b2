//! By what a goat that runs knows that the database is still the one that it wrote last: a row of the table `goat`,
//! which each settling counts up. A backup that is put in its place, in whatever way, has another number or none.

use std::sync::atomic::Ordering::Relaxed;

use super::pool::Store;
use super::row::rows;
use super::sql::{Connection, Error, Value, big, replaced};
use crate::random::Rng;

/// Seconds between two times at which it is noted when the books were written: all goats on a database write that row.
const STAMP: u64 = 60;

fn name(run: u64) -> String {
    format!("run {run:016x}")
}

impl Store {
    /// Whether a run has a row here: it wrote into this database, and did not end in good order.
    pub(crate) fn has_run(&self, run: u64) -> Result<bool, Error> {
        Ok(self.number(&name(run))?.is_some())
    }

    /// Begins a run, and returns what it is called by.
    pub(crate) fn begin_run(&self) -> Result<u64, Error> {
        let run = Rng::from_system().bits().max(1);
        self.write("INSERT INTO goat (name, value) VALUES (?, 0)", &[Value::Text(&name(run))])?;
        self.run.written.store(0, Relaxed);
        self.run.id.store(run, Relaxed);
        Ok(run)
    }

    /// What the run that has begun is called by; 0: none has.
    pub(crate) fn run(&self) -> u64 {
        self.run.id.load(Relaxed)
    }

    /// Forgets a run of which nothing is left to write.
    pub(crate) fn end_run(&self, run: u64) -> Result<(), Error> {
        self.write("DELETE FROM goat WHERE name = ?", &[Value::Text(&name(run))]).map(drop)
    }

    /// Counts a settling, in its transaction. An error if the row of this run is gone.
    pub(super) fn stamp(&self, c: &mut dyn Connection) -> Result<(), Error> {
        let (run, next) = (self.run.id.load(Relaxed), self.run.written.load(Relaxed).saturating_add(1));
        let sql = "UPDATE goat SET value = ? WHERE name = ?";
        if run != 0 && c.execute(sql, &[big(next), Value::Text(&name(run))])? == 0 {
            return Err(replaced());
        }
        let now = crate::clock::now();
        let noted = rows::<u64>(c, "SELECT value FROM goat WHERE name = 'written'", &[])?.pop().unwrap_or(0);
        if now.abs_diff(noted) >= STAMP {
            c.execute("REPLACE INTO goat (name, value) VALUES ('written', ?)", &[big(now)])?;
        }
        Ok(())
    }

    /// Notes that the last settling is written.
    pub(super) fn stamped(&self) {
        self.run.written.fetch_add(1, Relaxed);
    }

    /// Whether the database is still the one that was written last.
    pub(crate) fn is_same(&self) -> Result<(), Error> {
        let (run, written) = (self.run.id.load(Relaxed), self.run.written.load(Relaxed));
        if run == 0 {
            return Ok(());
        }
        // The last one may have been written without an answer.
        let expected = written..=written.saturating_add(1);
        let found = self.number(&name(run))?.filter(|found| expected.contains(found)).ok_or_else(replaced)?;
        self.run.written.fetch_max(found, Relaxed);
        Ok(())
    }
}
