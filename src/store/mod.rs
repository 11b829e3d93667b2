//! The database: what goat asks of it, in SQL that SQLite and MySQL share. `sqlite` and `mysql` each turn
//! statements and values into their library's calls; here are the statements.
//!
//! Every function may wait for the disk or the network, so none is called while an announce is answered,
//! but for the look-up of a user or torrent that memory does not have.

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "sqlite")]
mod sqlite;

mod admin;
mod api;
mod books;
mod check;
mod community;
mod dialect;
mod rows;

pub use admin::{
    ClientRow, FILE_ORDERS, FileRow, MAX_PENDING, NewUser, Suggestion, SwarmRow, USER_ORDERS, UserRow, Which, Who,
};
pub use api::{Activity, ApiFile, ApiUser, FileUser, HistoryRow, KEY_LIFE, List, Member, MoreOfFile, PIECE, UserFile};
pub use community::{Import, Seen, Totals};
pub use rows::{Batch, First, Session, SessionKey, SessionRow, Total, TotalKey, credit};
#[cfg(feature = "sqlite")]
pub use sqlite::{aside, restore};

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use self::dialect::Dialect;
use crate::config::{Config, Driver};
use crate::log::log;
use crate::protocol::{Addresses, Factors, addr4, addr6};
use crate::random::Rng;
use crate::sync::lock;
use crate::torrent::{InfoHash, PeerId};

/// A value that goes into a statement or comes out of a row.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// NULL, or something that goat never stores.
    Null,
    /// A number. Counters are cut at 2^63 - 1 before they come here.
    Int(i64),
    /// Text.
    Text(&'a str),
    /// Bytes.
    Blob(&'a [u8]),
}

impl Value<'_> {
    fn int(&self) -> i64 {
        match self {
            Value::Int(n) => *n,
            Value::Text(text) => text.parse().unwrap_or(0), // MySQL's sums are decimals.
            _ => 0,
        }
    }

    /// A number that must fit: 0 is no id, port or time of anything.
    fn small<T: TryFrom<i64> + Default>(&self) -> T {
        T::try_from(self.int()).unwrap_or_default()
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Value::Text(text) => text.as_bytes(),
            Value::Blob(bytes) => bytes,
            _ => &[],
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes()).into_owned()
    }

    fn parse<T: std::str::FromStr>(&self) -> Option<T> {
        std::str::from_utf8(self.bytes()).ok()?.parse().ok()
    }
}

/// A counter as the database can hold it.
fn big(n: u64) -> Value<'static> {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

/// What went wrong with a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There is no connection: whether the last statement took effect is unknown.
    Lost,
    /// It did not answer in time: the same, and another try would only take as long.
    Silent,
    /// Somebody else holds a lock: the same again will succeed.
    Busy,
    /// A row with the same unique key exists.
    Exists,
    /// Anything else.
    Other,
}

/// An error of a database, with its own words.
#[derive(Clone, Debug)]
pub struct Error {
    /// What kind.
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
    fn broken(&self) -> bool {
        matches!(self.kind, Kind::Lost | Kind::Silent)
    }

    /// One that goat words itself.
    pub fn other(message: impl Into<String>) -> Error {
        Error { kind: Kind::Other, message: message.into() }
    }
}

/// One connection to a database.
trait Connection: Send {
    /// Runs a statement and returns how many rows it changed.
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, Error>;
    /// Runs a query and calls `row` for each row of its result.
    fn query(&mut self, sql: &str, values: &[Value], row: &mut dyn FnMut(&[Value])) -> Result<(), Error>;
    /// Creates tables, triggers and clients where they are missing.
    fn create_schema(&mut self) -> Result<(), Error>;
    /// The names of the tables there are.
    fn tables(&mut self) -> Result<Vec<String>, Error>;
    /// Applies a file that brings the tables from the version before to this one; where the database can, whole
    /// or not at all, and else so that it can be repeated.
    fn upgrade(&mut self, to: i64) -> Result<(), Error>;
    /// Whether another database is now where this one was.
    fn stale(&self) -> bool {
        false
    }
    /// The id of the row that was inserted last.
    fn last_id(&mut self) -> u32;
}

/// How often a transaction is tried that others are in the way of: deadlocks and lock timeouts.
const TRIES: usize = 2;
/// The most connections open at a time; who finds none free opens one and closes it again.
const MAX_IDLE: usize = 8;

/// A database, and connections to it that wait to be used again.
pub struct Store {
    config: Config,
    dialect: Dialect,
    idle: Mutex<Vec<Box<dyn Connection>>>,
    /// Set while members wait for answers.
    hurried: AtomicBool,
    /// Bytes uploaded and downloaded that were written since the start.
    moved: [AtomicU64; 2],
}

/// A row of `users`, as far as announces need to know it.
#[derive(Clone, Debug)]
pub struct AccountRow {
    /// `users.id`.
    pub id: u32,
    /// What the member's announce URLs contain.
    pub passkey: String,
    /// The most torrents to be active on at a time; 0 is no limit.
    pub torrent_limit: u32,
    /// May not announce.
    pub banned: bool,
}

/// Something that changed in the database.
#[derive(Debug)]
pub enum Change {
    /// A user is new or different.
    User(AccountRow),
    /// A user is gone.
    UserGone(u32),
    /// A torrent is new or different.
    File(FileRow),
    /// A torrent is gone.
    FileGone(InfoHash),
    /// The approved clients are these.
    Clients(Vec<Box<[u8]>>),
}

/// What is read when the tracker starts, in this order.
pub enum Loaded {
    /// A user.
    User(AccountRow),
    /// A torrent.
    File(FileRow),
    /// A live session of the torrent with this id.
    Session(u32, Session, Addresses),
}

const USER_COLUMNS: &str = "id, passkey, torrent_limit, banned";
const FILE_COLUMNS: &str = "id, info_hash, name, size, verified, completed, upload_percent, download_percent";

fn user(row: &[Value]) -> Option<AccountRow> {
    let [id, passkey, limit, banned, ..] = row else {
        return None;
    };
    let id: u32 = id.small();
    let (passkey, banned) = (passkey.text(), banned.int() != 0);
    (id != 0).then(|| AccountRow { id, passkey, torrent_limit: limit.small(), banned })
}

fn file(row: &[Value]) -> Option<FileRow> {
    let [id, info_hash, name, size, verified, completed, upload, download, ..] = row else {
        return None;
    };
    let (id, info_hash) = (id.small(), info_hash.parse()?);
    let verified = verified.int() != 0;
    (id != 0).then(|| FileRow {
        id,
        info_hash,
        name: name.text(),
        size: size.small(),
        verified,
        completed: completed.small(),
        factors: Factors { upload: upload.small(), download: download.small() },
    })
}

fn session(row: &[Value]) -> Option<Loaded> {
    let [
        file,
        user,
        peer_id,
        ipv4,
        port4,
        time4,
        ipv6,
        port6,
        time6,
        paused,
        completed,
        uploaded,
        downloaded,
        left,
        ..,
    ] = row
    else {
        return None;
    };
    let mut at = Addresses::NONE;
    if let (Some(ip), port @ 1..) = (ipv4.parse::<Ipv4Addr>(), port4.small()) {
        at.v4 = addr4(ip, port);
    }
    if let (Some(ip), port @ 1..) = (ipv6.parse::<Ipv6Addr>(), port6.small()) {
        at.v6 = addr6(ip, port);
    }
    let session = Session {
        uploaded: uploaded.small(),
        downloaded: downloaded.small(),
        left: left.small(),
        seen: [time4.small(), time6.small()],
        user: user.small(),
        peer_id: PeerId(peer_id.bytes().try_into().ok()?),
        paused: paused.int() != 0,
        completed: completed.int() != 0,
    };
    Some(Loaded::Session(file.small(), session, at))
}

impl Store {
    /// Connects to the configured database, and creates what is missing in it.
    pub fn open(config: &Config) -> Result<Store, Error> {
        let store = Store::unopened(config);
        // Another goat may be at it, too.
        again(|| store.with(|c| check::make_tables(c, config)))?;
        Ok(store)
    }

    fn unopened(config: &Config) -> Store {
        Store {
            config: config.clone(),
            dialect: Dialect { driver: config.db.driver },
            idle: Mutex::default(),
            hurried: AtomicBool::new(false),
            moved: Default::default(),
        }
    }

    fn connect(&self) -> Result<Box<dyn Connection>, Error> {
        match self.config.db.driver {
            #[cfg(feature = "sqlite")]
            // A running tracker waits for its file to come back, rather than make an empty one.
            Driver::Sqlite if self.hurried.load(Relaxed) && !self.config.db.path.exists() => {
                Err(Error::other("the file is gone: put it back, or stop goat"))
            }
            #[cfg(feature = "sqlite")]
            Driver::Sqlite => Ok(Box::new(sqlite::Sqlite::open(&self.config.db.path, self.hurried.load(Relaxed))?)),
            #[cfg(feature = "mysql")]
            Driver::Mysql => Ok(Box::new(mysql::Mysql::open(&self.config.db, self.hurried.load(Relaxed))?)),
            #[allow(unreachable_patterns)] // Reached where one of the two is not compiled in.
            driver => Err(Error::other(format!("this goat was built without {driver:?}"))),
        }
    }

    /// From now on waits seconds for an answer where it waited a minute: loading is done, and goat must be
    /// able to stop in time though the database hangs.
    pub fn hurry(&self) {
        self.hurried.store(true, Relaxed);
        lock(&self.idle).clear();
    }

    /// Runs `f` on a connection, and keeps that for later unless it is lost. Where a kept connection turns
    /// out to be lost, tries once more on a new one: `f` must not mind.
    fn with<T>(&self, mut f: impl FnMut(&mut dyn Connection) -> Result<T, Error>) -> Result<T, Error> {
        let mut kept = lock(&self.idle).pop();
        if kept.as_ref().is_some_and(|connection| connection.stale()) {
            // All are closed before one is opened: the last to close a SQLite file removes its write-ahead log.
            kept = None;
            lock(&self.idle).clear();
            if self.config.db.path.exists() {
                log(format!("{} was replaced: using what is there now", self.config.database_name()));
            }
        }
        if let Some(mut connection) = kept {
            match f(connection.as_mut()) {
                Err(e) if e.kind == Kind::Lost => lock(&self.idle).clear(),
                Err(e) if e.kind == Kind::Silent => return Err(e),
                done => {
                    self.keep(connection);
                    return done;
                }
            }
        }
        let mut connection = self.connect()?;
        let done = f(connection.as_mut());
        if !done.as_ref().is_err_and(Error::broken) {
            self.keep(connection);
        }
        done
    }

    fn keep(&self, connection: Box<dyn Connection>) {
        let mut idle = lock(&self.idle);
        if idle.len() < MAX_IDLE {
            idle.push(connection);
        }
    }

    /// Runs `f` in one transaction; again where another transaction was in the way.
    fn transaction<T>(&self, mut f: impl FnMut(&mut dyn Connection) -> Result<T, Error>) -> Result<T, Error> {
        again(|| {
            self.with(|c| {
                c.execute(self.dialect.begin(), &[])?;
                let done = f(c).and_then(|done| c.execute("COMMIT", &[]).map(|_| done));
                match done {
                    // Whatever the connection still holds, the next transaction on it must not commit it.
                    Err(e) if !e.broken() && c.execute("ROLLBACK", &[]).is_err() => {
                        Err(Error { kind: Kind::Lost, ..e })
                    }
                    done => done,
                }
            })
        })
    }

    /// Reads users, torrents, and the sessions that announced since `since` (seconds since 1970).
    pub fn load(&self, since: u32, mut sink: impl FnMut(Loaded)) -> Result<(), Error> {
        // What changed before this moment is about to be read.
        again(|| self.with(|c| c.execute("DELETE FROM changes", &[])))?;
        self.with(|c| {
            c.query(&format!("SELECT {USER_COLUMNS} FROM users"), &[], &mut |row| {
                user(row).map(Loaded::User).into_iter().for_each(&mut sink);
            })?;
            c.query(&format!("SELECT {FILE_COLUMNS} FROM files"), &[], &mut |row| {
                file(row).map(Loaded::File).into_iter().for_each(&mut sink);
            })?;
            let sql = "SELECT file_id, user_id, peer_id, ipv4, port4, time4, ipv6, port6, time6, paused, completed,
                       uploaded, downloaded, `left` FROM peers WHERE active = 1 AND time >= ?";
            c.query(sql, &[Value::Int(since.into())], &mut |row| session(row).into_iter().for_each(&mut sink))
        })
    }

    /// Marks as inactive the sessions that were silent for too long while no tracker ran, and those of users
    /// that were banned or removed meanwhile.
    pub fn close_sessions(&self, before: u32) -> Result<(), Error> {
        let old =
            "active = 1 AND (time < ? OR user_id <> 0 AND user_id NOT IN (SELECT id FROM users WHERE banned = 0))";
        self.with(|c| {
            ["peers", "files_users"].into_iter().try_for_each(|table| {
                c.execute(&format!("UPDATE {table} SET active = 0 WHERE {old}"), &[Value::Int(before.into())]).map(drop)
            })
        })
    }

    /// A number that was drawn when the database was new. Its backups and copies have the same.
    pub fn identity(&self) -> Result<u64, Error> {
        let drawn = big(Rng::from_system().bits() >> 1);
        let sql = format!("{} INTO goat (name, value) VALUES ('identity', ?)", self.dialect.insert_ignore());
        again(|| self.with(|c| c.execute(&sql, &[drawn])))?;
        Ok(self
            .one("SELECT value FROM goat WHERE name = 'identity'", &[], |row| Some(row.first()?.small()))?
            .unwrap_or(0))
    }

    /// The approved prefixes of User-Agents and peer ids.
    pub fn approved_clients(&self) -> Result<Vec<Box<[u8]>>, Error> {
        let mut prefixes = Vec::new();
        self.with(|c| {
            prefixes.clear();
            let sql = "SELECT client FROM whitelist WHERE approved = 1";
            c.query(sql, &[], &mut |row| {
                prefixes.extend(row.first().map(Value::bytes).filter(|p| !p.is_empty()).map(Box::from))
            })
        })?;
        Ok(prefixes)
    }

    /// The user with a passkey.
    pub fn user_by_passkey(&self, passkey: &str) -> Result<Option<AccountRow>, Error> {
        let sql = format!("SELECT {USER_COLUMNS} FROM users WHERE passkey = ?");
        self.one(&sql, &[Value::Text(passkey)], user)
    }

    /// The torrent with an info hash.
    pub fn file_by_hash(&self, info_hash: &InfoHash) -> Result<Option<FileRow>, Error> {
        let sql = format!("SELECT {FILE_COLUMNS} FROM files WHERE info_hash = ?");
        self.one(&sql, &[Value::Text(&info_hash.to_string())], file)
    }

    /// The torrent with an id.
    pub fn file_by_id(&self, id: u32) -> Result<Option<FileRow>, Error> {
        let sql = format!("SELECT {FILE_COLUMNS} FROM files WHERE id = ?");
        self.one(&sql, &[Value::Int(id.into())], file)
    }

    fn one<T>(&self, sql: &str, values: &[Value], read: impl Fn(&[Value]) -> Option<T>) -> Result<Option<T>, Error> {
        let mut found = None;
        self.with(|c| c.query(sql, values, &mut |row| found = read(row)))?;
        Ok(found)
    }

    /// What has changed, at most about a thousand things, and the ids by which to forget that. It asks for the rows
    /// of a table that is empty if nothing has changed, so it costs the same however many torrents there are.
    pub fn changes(&self) -> Result<(Vec<Change>, Vec<i64>), Error> {
        let mut rows: Vec<(i64, String, String)> = Vec::new();
        self.with(|c| {
            rows.clear();
            c.query("SELECT id, what, which FROM changes ORDER BY id LIMIT 1000", &[], &mut |row| {
                if let [id, what, which, ..] = row {
                    rows.push((id.int(), what.text(), which.text()));
                }
            })
        })?;
        let mut keys: Vec<(&str, &str)> = rows.iter().map(|(_, what, which)| (what.as_str(), which.as_str())).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut changes = Vec::new();
        for (what, which) in keys {
            match (what, which.parse::<u32>(), which.parse::<InfoHash>()) {
                ("user", Ok(id), _) => {
                    let sql = format!("SELECT {USER_COLUMNS} FROM users WHERE id = ?");
                    let found = self.one(&sql, &[Value::Int(id.into())], user)?;
                    changes.push(found.map_or(Change::UserGone(id), Change::User));
                }
                ("file", _, Ok(hash)) => {
                    changes.push(self.file_by_hash(&hash)?.map_or(Change::FileGone(hash), Change::File));
                }
                ("client", ..) => changes.push(Change::Clients(self.approved_clients()?)),
                _ => {}
            }
        }
        Ok((changes, rows.into_iter().map(|(id, ..)| id).collect()))
    }

    /// Forgets changes that were followed. By their ids, not up to the last: a transaction that began earlier may
    /// still bring a lower one.
    pub fn forget_changes(&self, ids: &[i64]) -> Result<(), Error> {
        for chunk in ids.chunks(100) {
            let ids: Vec<String> = chunk.iter().map(i64::to_string).collect();
            self.with(|c| c.execute(&format!("DELETE FROM changes WHERE id IN ({})", ids.join(", ")), &[]))?;
        }
        Ok(())
    }
}

/// Does something again where somebody else's lock was in the way.
fn again<T>(mut once: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let mut done = once();
    for _ in 1..TRIES {
        if !matches!(&done, Err(e) if e.kind == Kind::Busy) {
            break;
        }
        done = once();
    }
    done
}

/// The version of the tables in `res/`.
const SCHEMA: i64 = 2;
