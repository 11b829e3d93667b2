//! What moved, and the hours of the history.

use std::sync::atomic::Ordering::Relaxed;

use super::dialect::Dialect;
use super::pool::Store;
use super::sql::{Error, big};

/// What happened in one step or one hour, as a row of numbers: time, announces answered, announces and
/// scrapes refused, seeders, leechers, bytes uploaded, bytes downloaded.
pub(crate) type HistoryRow = [u64; 7];

/// How long the hours are kept, in seconds: 400 days.
const KEEP_HOURS: u64 = 400 * 86_400;

impl Store {
    /// Bytes that were written into the books since the start: uploaded and downloaded.
    pub(crate) fn moved(&self) -> [u64; 2] {
        self.moved.each_ref().map(|bytes| bytes.load(Relaxed))
    }

    /// Adds what happened to the hour that began at its time; seeders and leechers are those of now.
    pub(crate) fn add_to_hour(&self, row: &HistoryRow) -> Result<(), Error> {
        let add = self.dialect.upsert(
            "time",
            &format!(
                "announces = hours.announces + NEW(announces), refused = hours.refused + NEW(refused),
                 seeders = NEW(seeders), leechers = NEW(leechers), {}, {}",
                Dialect::add("hours", "uploaded"),
                Dialect::add("hours", "downloaded")
            ),
        );
        let sql = format!(
            "INSERT INTO hours (time, announces, refused, seeders, leechers, uploaded, downloaded)
             VALUES (?, ?, ?, ?, ?, ?, ?) {add}"
        );
        self.transaction(|c| {
            c.execute("DELETE FROM hours WHERE time < ?", &[big(row[0].saturating_sub(KEEP_HOURS))])?;
            c.execute(&sql, &row.map(big))?;
            // Also where nothing is settled it is known by this that a backup was put in the database's place.
            self.stamp(c)
        })?;
        self.stamped();
        Ok(())
    }

    /// The hours that began after `after` (seconds since 1970), in order.
    pub(crate) fn hours(&self, after: u32) -> Result<Vec<HistoryRow>, Error> {
        let sql = "SELECT time, announces, refused, seeders, leechers, uploaded, downloaded
            FROM hours WHERE time > ? ORDER BY time";
        self.rows(sql, &[after.into()])
    }
}
