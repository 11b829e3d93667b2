//! The SQL that SQLite and MySQL do not share.

use crate::config::Driver;

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

    /// Whether a member has a name, whatever the case of its ASCII letters.
    pub fn has_name(&self) -> &'static str {
        match self.driver {
            Driver::Sqlite => "username = ?",
            Driver::Mysql => "name_key = LOWER(CONVERT(CAST(? AS BINARY) USING latin1))",
        }
    }

    /// Adds to what so many users are credited: an id, bytes uploaded and bytes downloaded of each.
    pub fn add_to_users(&self, users: usize) -> String {
        let more = " UNION ALL SELECT ?, ?, ?".repeat(users.saturating_sub(1));
        let rows = format!("(SELECT ? AS id, ? AS up, ? AS down{more}) t");
        let add = |least| {
            format!(
                "SET uploaded = uploaded + {least}(t.up, 9223372036854775807 - uploaded),
                 downloaded = downloaded + {least}(t.down, 9223372036854775807 - downloaded)"
            )
        };
        match self.driver {
            Driver::Sqlite => format!("UPDATE users {} FROM {rows} WHERE users.id = t.id", add("MIN")),
            Driver::Mysql => format!("UPDATE users JOIN {rows} ON users.id = t.id {}", add("LEAST")),
        }
    }

    /// Begins a transaction.
    pub fn begin(&self) -> &'static str {
        match self.driver {
            // Take the write lock at once: a transaction that begins by reading could not get it later.
            Driver::Sqlite => "BEGIN IMMEDIATE",
            Driver::Mysql => "START TRANSACTION",
        }
    }
}
