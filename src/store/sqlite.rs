//! SQLite: the embedded database, one file beside the configuration.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::ffi::ErrorCode;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{ToSql, params_from_iter};

use super::sql::{Connection, Error, Kind, Value};

pub struct Sqlite(rusqlite::Connection, File);

/// A file by what it is, not by its name.
type File = Option<(PathBuf, u64, u64)>;

fn identify(path: &Path) -> File {
    std::fs::metadata(path).ok().map(|meta| (path.to_owned(), meta.dev(), meta.ino()))
}

/// How long to wait for somebody else's write, each of `TRIES` times, while members wait for answers and else.
const TIMEOUT_SERVING: Duration = Duration::from_millis(1_500);
const TIMEOUT: Duration = Duration::from_secs(10);
/// Statements kept prepared: a batch uses about a dozen, in a few sizes.
const STATEMENTS: usize = 64;

/// The cache of one connection: negative is KiB.
const CACHE_KIB: i64 = -4_000;
/// How many pages of 4 KiB the write-ahead log may have.
const CHECKPOINT_PAGES: i64 = 20_000;

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match *self {
            Value::Null => ValueRef::Null,
            Value::Int(n) => ValueRef::Integer(n),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        let kind = match error.sqlite_error() {
            Some(e) if matches!(e.code, ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Kind::Busy,
            Some(e) if e.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE => Kind::Exists,
            Some(e) if e.extended_code == rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY => Kind::Exists,
            _ => Kind::Other,
        };
        Error { kind, message: error.to_string() }
    }
}

impl Sqlite {
    /// Opens the file, and creates it where it is missing.
    pub fn open(path: &Path, serving: bool) -> Result<Sqlite, Error> {
        let whose =
            || crate::sys::stranger(path).map(|owner| format!(". It belongs to {owner}: run goat as that user"));
        let in_words = |e: Error| {
            let message = format!("cannot open {}: {e}{}", path.display(), whose().unwrap_or_default());
            Error { message, ..e }
        };
        // It holds passkeys: for nobody else (`cli::call` says who may). Its journal gets the same mode. A file that
        // exists is not opened here: closing it again would drop the locks of this process's other connections.
        match OpenOptions::new().write(true).create_new(true).mode(0o660).open(path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            created => drop(created.map_err(|e| in_words(Error::other(e.to_string())))?),
        }
        let connection = rusqlite::Connection::open(path).map_err(|e| in_words(e.into()))?;
        connection.busy_timeout(if serving { TIMEOUT_SERVING } else { TIMEOUT })?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        // WAL: readers and one writer do not wait for each other. FULL: what is committed survives a power cut.
        connection.pragma_update(None, "journal_mode", "WAL").map_err(|e| in_words(e.into()))?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        // Measured with 25,000 announces a second over a million sessions: 20 us of CPU an announce with
        // SQLite's defaults, 8 with these. The journal of a statement of many rows stays in memory, and pages
        // are copied less often from the write-ahead log to the database. More cache saves nothing.
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        connection.pragma_update(None, "cache_size", CACHE_KIB)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        let file = identify(path);
        Ok(Sqlite(connection, file))
    }
}

/// Calls `row` for each row of a result.
fn read(mut rows: rusqlite::Rows, columns: usize, row: &mut dyn FnMut(&[Value])) -> Result<(), Error> {
    while let Some(found) = rows.next()? {
        let mut values = [Value::Null; MAX_COLUMNS];
        for (i, value) in values.iter_mut().enumerate().take(columns) {
            *value = match found.get_ref(i)? {
                ValueRef::Integer(n) => Value::Int(n),
                ValueRef::Text(bytes) => std::str::from_utf8(bytes).map_or(Value::Blob(bytes), Value::Text),
                ValueRef::Blob(bytes) => Value::Blob(bytes),
                ValueRef::Real(n) => Value::Int(n as i64), // a sum, which may be too large for an integer
                ValueRef::Null => Value::Null,
            };
        }
        row(values.get(..columns).unwrap_or(&values));
    }
    Ok(())
}

impl Connection for Sqlite {
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, Error> {
        let mut statement = self.0.prepare_cached(sql)?;
        if values.is_empty() {
            return Ok(statement.execute([])? as u64);
        }
        let mut changed = 0;
        for values in values.chunks(statement.parameter_count().max(1)) {
            changed += statement.execute(params_from_iter(values))?;
        }
        Ok(changed as u64)
    }

    fn query(&mut self, sql: &str, values: &[Value], row: &mut dyn FnMut(&[Value])) -> Result<(), Error> {
        let mut statement = self.0.prepare_cached(sql)?;
        let columns = statement.column_count();
        let parameters = statement.parameter_count();
        if parameters == 0 {
            return read(statement.query([])?, columns, row);
        }
        values.chunks(parameters).try_for_each(|values| read(statement.query(params_from_iter(values))?, columns, row))
    }

    fn create_schema(&mut self) -> Result<(), Error> {
        const SCHEMA: &str = include_str!("../../res/sqlite/schema.sql");
        let present = self.tables()?;
        let mut names = SCHEMA.split("IF NOT EXISTS ").skip(1).filter_map(|rest| rest.split_whitespace().next());
        let clients = "SELECT EXISTS (SELECT 1 FROM whitelist)";
        // Who makes nothing need not wait for others to write.
        if names.all(|name| present.iter().any(|found| found == name))
            && self.0.query_row(clients, [], |row| row.get(0))?
        {
            return Ok(());
        }
        self.0.execute_batch("BEGIN IMMEDIATE")?;
        let done = self.0.execute_batch(SCHEMA).and_then(|()| {
            let clients: bool = self.0.query_row(clients, [], |row| row.get(0))?;
            if !clients { self.0.execute_batch(include_str!("../../res/sqlite/clients.sql")) } else { Ok(()) }
        });
        self.0.execute_batch(if done.is_ok() { "COMMIT" } else { "ROLLBACK" })?;
        Ok(done?)
    }

    fn tables(&mut self) -> Result<Vec<String>, Error> {
        let mut statement = self.0.prepare("SELECT name FROM sqlite_master")?;
        let names = statement.query_map([], |row| row.get(0))?;
        Ok(names.collect::<Result<_, _>>()?)
    }

    fn stale(&self) -> bool {
        self.1.as_ref().is_some_and(|(path, ..)| identify(path) != self.1)
    }

    fn last_id(&mut self) -> u32 {
        u32::try_from(self.0.last_insert_rowid()).unwrap_or_default()
    }
}

/// The most columns that a query of ours has.
const MAX_COLUMNS: usize = 24;
