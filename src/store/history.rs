//! What moved, and the history: its minutes and hours.

use std::sync::atomic::Ordering::Relaxed;

use super::dialect::Dialect;
use super::pool::Store;
use super::sql::{Error, big};

/// What happened in a step, a minute or an hour, as a row of numbers: time, announces answered, announces and
/// scrapes refused, seeders, leechers, bytes uploaded, bytes downloaded.
pub(crate) type HistoryRow = [u64; 7];

/// The columns of its tables.
pub(crate) const HISTORY: &str = "time, announces, refused, seeders, leechers, uploaded, downloaded";
/// The tables, for how many seconds a row of them stands, and for how many it is kept: half an hour, and 400 days.
const TABLES: [(&str, u64, u64); 2] = [("minutes", 60, 1_800), ("hours", 3_600, 400 * 86_400)];

impl Store {
    /// Bytes that were written into the books since the start: uploaded and downloaded.
    pub(crate) fn moved(&self) -> [u64; 2] {
        self.moved.each_ref().map(|bytes| bytes.load(Relaxed))
    }

    /// Adds what happened until its time to the minutes and to that hour; seeders and leechers are those of now.
    pub(crate) fn add_to_history(&self, row: &HistoryRow) -> Result<(), Error> {
        self.transaction(|c| {
            for (table, seconds, kept) in TABLES {
                let sums = ["announces", "refused", "uploaded", "downloaded"].map(|column| Dialect::add(table, column));
                let set = format!("seeders = NEW(seeders), leechers = NEW(leechers), {}", sums.join(", "));
                let add = self.dialect.upsert("time", &set);
                let mut row = *row;
                row[0] -= row[0] % seconds;
                c.execute(&format!("DELETE FROM {table} WHERE time < ?"), &[big(row[0].saturating_sub(kept))])?;
                let sql = format!("INSERT INTO {table} ({HISTORY}) VALUES (?, ?, ?, ?, ?, ?, ?) {add}");
                c.execute(&sql, &row.map(big))?;
            }
            // Also where nothing is settled it is known by this that a backup was put in the database's place.
            self.stamp(c)
        })?;
        self.stamped();
        Ok(())
    }

    /// The rows of a table of the history after one time and up to another (seconds since 1970), in order.
    pub(crate) fn history(&self, table: &str, after: u32, until: u32) -> Result<Vec<HistoryRow>, Error> {
        let sql = format!("SELECT {HISTORY} FROM {table} WHERE time > ? AND time <= ? ORDER BY time");
        self.rows(&sql, &[after.into(), until.into()])
    }
}
