//! Statements, their values and their errors, as SQLite and MySQL both have them.

use std::fmt;

/// A value that goes into a statement or comes out of a row.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// NULL, or something that goat never stores.
    Null,
    /// A number. Counters are cut at 2^63 - 1 before they come here.
    Int(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

impl From<u32> for Value<'_> {
    fn from(n: u32) -> Self {
        Value::Int(n.into())
    }
}

impl From<bool> for Value<'_> {
    fn from(on: bool) -> Self {
        Value::Int(on.into())
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Value::Text(text)
    }
}

impl Value<'_> {
    pub(super) fn int(&self) -> i64 {
        match self {
            Value::Int(n) => *n,
            // MySQL's sums are decimals, of any size.
            Value::Text(text) => {
                let whole = text.split('.').next().and_then(|n| n.parse::<i128>().ok());
                whole.map_or(0, |n| i64::try_from(n).unwrap_or(i64::MAX))
            }
            _ => 0,
        }
    }

    /// A number that must fit: 0 is no id, port or time of anything.
    pub(super) fn small<T: TryFrom<i64> + Default>(&self) -> T {
        T::try_from(self.int()).unwrap_or_default()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Value::Text(text) => text.as_bytes(),
            Value::Blob(bytes) => bytes,
            _ => &[],
        }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }
}

/// A counter as the database can hold it.
pub(super) fn big(n: u64) -> Value<'static> {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

/// What went wrong with a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is no connection: whether the last statement took effect is unknown.
    Lost,
    /// It did not answer in time: the same, and another try would only take as long.
    Silent,
    /// Somebody else holds a lock, which was waited for: the same again will succeed.
    Busy,
    /// Somebody else changed the same at the same time: the same again will succeed, at once.
    Conflict,
    /// A row with the same unique key exists.
    Exists,
    /// The database did not say whether it committed: to do the same again may do it twice.
    Unsure,
    /// Another database is where this one was, or an earlier state of it.
    Replaced,
    /// A list was to go on after a row that it does not have.
    NoRow,
    /// What was asked for cannot be, whatever database there is.
    Wrong,
    /// Anything else.
    Other,
}

/// An error of a database.
#[derive(Clone, Debug)]
pub struct Error {
    pub kind: Kind,
    /// The database's words.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error {
    /// Whether the connection is of no use any more.
    pub(super) fn broken(&self) -> bool {
        matches!(self.kind, Kind::Lost | Kind::Silent | Kind::Unsure)
    }

    /// Says of a row that exists what that means.
    pub(super) fn if_exists(self, kind: Kind, message: impl Into<String>) -> Error {
        if self.kind == Kind::Exists { Error { kind, message: message.into() } } else { self }
    }

    /// What is wrong with what was asked for, for whoever asked.
    pub fn wrong(message: impl Into<String>) -> Error {
        Error { kind: Kind::Wrong, message: message.into() }
    }

    /// One that goat words itself.
    pub fn other(message: impl Into<String>) -> Error {
        Error { kind: Kind::Other, message: message.into() }
    }
}

/// What goat says of a database that is not the one that it began with.
pub(super) fn replaced() -> Error {
    let message = "it was replaced, restored or removed while goat was running: goat stops. Start it again to use what is there now";
    Error { kind: Kind::Replaced, message: message.into() }
}

pub(super) trait Connection: Send {
    /// Runs a statement and returns how many rows it changed. SQLite, which is as fast one row at a time, runs it
    /// again for all values that are left over.
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, Error>;
    /// Runs a query, SQLite likewise again, and calls `row` for each row of its result.
    fn query(&mut self, sql: &str, values: &[Value], row: &mut dyn FnMut(&[Value])) -> Result<(), Error>;
    /// Creates tables, triggers and clients where they are missing.
    fn create_schema(&mut self) -> Result<(), Error>;
    /// The names of the tables, views and triggers there are.
    fn tables(&mut self) -> Result<Vec<String>, Error>;
    /// Whether another database is now where this one was.
    fn stale(&self) -> bool {
        false
    }
    /// The id of the row that was inserted last.
    fn last_id(&mut self) -> u32;
}
