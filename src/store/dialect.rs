//! The SQL that SQLite and MySQL do not share.

use super::sql::{Connection, Error, Value};
use crate::config::Driver;

/// How many rows one statement writes or reads: the largest that fits, so that few different statements are made
/// and each is prepared once.
pub(super) const ROWS: [usize; 4] = [512, 64, 8, 1];

/// Places in a statement for the values of so many rows.
pub(super) fn places(rows: usize, width: usize) -> String {
    let row = format!("({})", vec!["?"; width].join(", "));
    vec![row; rows].join(", ")
}

/// The words in which the two databases differ. Statements are written as for MySQL, with `NEW(column)` for
/// the value that an upsert brings.
pub(super) struct Dialect {
    pub driver: Driver,
}

impl Dialect {
    /// Begins an INSERT that leaves a row whose key exists as it is.
    pub fn insert_ignore(&self) -> &'static str {
        match self.driver {
            Driver::Sqlite => "INSERT OR IGNORE",
            Driver::Mysql => "INSERT IGNORE",
        }
    }

    /// The end of an INSERT that updates the row if its `key` exists.
    pub fn upsert(&self, key: &str, set: &str) -> String {
        match self.driver {
            Driver::Sqlite => {
                let set = set.replace("NEW(", "(excluded.").replace("LEAST(", "MIN(").replace("GREATEST(", "MAX(");
                format!("ON CONFLICT ({key}) DO UPDATE SET {set}")
            }
            Driver::Mysql => format!("ON DUPLICATE KEY UPDATE {}", set.replace("NEW(", "VALUES(")),
        }
    }

    /// Sets a column in an [`Dialect::upsert`] to the sum, at most the largest number that the database holds.
    pub fn add(table: &str, column: &str) -> String {
        format!("{column} = LEAST({table}.{column}, 9223372036854775807 - NEW({column})) + NEW({column})")
    }

    /// Whether a member has a name, whatever the case of its ASCII letters.
    pub fn has_name(&self) -> &'static str {
        match self.driver {
            Driver::Sqlite => "username = ?",
            Driver::Mysql => "name_key = LOWER(CONVERT(CAST(? AS BINARY) USING latin1))",
        }
    }

    /// Adds to what so many users are credited, in SQLite one: an id, bytes uploaded and bytes downloaded of each.
    pub fn add_to_users(&self, users: usize) -> String {
        if self.driver == Driver::Sqlite {
            return "UPDATE users SET uploaded = uploaded + MIN(?2, 9223372036854775807 - uploaded),
                downloaded = downloaded + MIN(?3, 9223372036854775807 - downloaded) WHERE id = ?1"
                .into();
        }
        let more = " UNION ALL SELECT ?, ?, ?".repeat(users.saturating_sub(1));
        format!(
            "UPDATE (SELECT ? AS id, ? AS up, ? AS down{more}) t STRAIGHT_JOIN users{} ON users.id = t.id
             SET uploaded = uploaded + LEAST(t.up, 9223372036854775807 - uploaded),
             downloaded = downloaded + LEAST(t.down, 9223372036854775807 - downloaded)",
            self.by_key()
        )
    }

    /// Runs a statement for rows of `width` values each; `word` says it for so many rows at once. MySQL takes five times
    /// as long one by one.
    pub fn in_pieces(
        &self,
        mut values: &[Value],
        width: usize,
        word: impl Fn(usize) -> String,
        mut run: impl FnMut(&str, &[Value]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for rows in ROWS {
            let sql = word(if self.driver == Driver::Sqlite { 1 } else { rows });
            while let Some((piece, rest)) = values.split_at_checked(rows * width) {
                run(&sql, piece)?;
                values = rest;
            }
        }
        Ok(())
    }

    /// The same for a statement that writes.
    pub fn execute(
        &self,
        c: &mut dyn Connection,
        values: &[Value],
        width: usize,
        word: impl Fn(usize) -> String,
    ) -> Result<(), Error> {
        self.in_pieces(values, width, word, |sql, values| c.execute(sql, values).map(drop))
    }

    /// After a table's name: find rows by the primary key. A server that believes the table to be nearly empty, as it
    /// does for seconds after much was written, would read and lock all of it.
    pub fn by_key(&self) -> &'static str {
        if self.driver == Driver::Sqlite { "" } else { " FORCE INDEX (PRIMARY)" }
    }

    /// The end of a SELECT whose rows nobody else may change until the transaction ends.
    pub fn for_update(&self) -> &'static str {
        if self.driver == Driver::Sqlite { "" } else { " FOR UPDATE" }
    }

    pub fn begin(&self) -> &'static str {
        match self.driver {
            // Take the write lock at once: a transaction that begins by reading could not get it later.
            Driver::Sqlite => "BEGIN IMMEDIATE",
            Driver::Mysql => "START TRANSACTION",
        }
    }
}
