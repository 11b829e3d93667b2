//! The database as the rest of goat knows it, and the connections to it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::sleep;
use std::time::Duration;

use super::changes::Followed;
use super::dialect::Dialect;
use super::schema::make_tables;
use super::sql::{Connection, Error, Kind, replaced};
use crate::config::{Config, Driver};
use crate::random::Rng;
use crate::sync::lock;

/// How often a transaction is tried that others are in the way of: deadlocks and lock timeouts.
const TRIES: usize = 2;
/// How often where another one changed the same, and how long one more try waits for that one, at most.
const CONFLICTS: u64 = 10;
const APART: u64 = 20;
/// The most connections open at a time; who finds none free opens one and closes it again.
const MAX_IDLE: usize = 8;

/// By what a run knows its database: see `run`.
#[derive(Default)]
pub(super) struct Run {
    /// What it is called by; 0 before it begins.
    pub(super) id: AtomicU64,
    /// The number of settlings that are known to be written.
    pub(super) written: AtomicU64,
}

/// A database, and connections to it that wait to be used again.
pub struct Store {
    config: Config,
    pub(super) dialect: Dialect,
    idle: Mutex<Vec<Box<dyn Connection>>>,
    /// Set while members wait for answers.
    serving: AtomicBool,
    /// Bytes uploaded and downloaded that were written since the start.
    pub(super) moved: [AtomicU64; 2],
    pub(super) run: Run,
    pub(super) followed: Mutex<Followed>,
}

impl Store {
    /// Connects to the configured database, and creates what is missing in it.
    pub fn open(config: &Config) -> Result<Store, Error> {
        let store = Store::unopened(config);
        // Another goat may be at it, too.
        again(|| store.with(|c| make_tables(c, config)))?;
        Ok(store)
    }

    /// Connects to the configured database if a goat has made it.
    pub fn existing(config: &Config) -> Result<Option<Store>, Error> {
        if Store::is_made(config)? { Store::open(config).map(Some) } else { Ok(None) }
    }

    /// Whether the configured database has goat's tables. Makes nothing.
    pub fn is_made(config: &Config) -> Result<bool, Error> {
        if config.db.driver == Driver::Sqlite && !config.db.path.exists() {
            return Ok(false);
        }
        Store::unopened(config).with(|c| Ok(c.tables()?.iter().any(|table| table == "goat")))
    }

    pub(super) fn unopened(config: &Config) -> Store {
        Store {
            config: config.clone(),
            dialect: Dialect { driver: config.db.driver },
            idle: Mutex::default(),
            serving: AtomicBool::new(false),
            moved: Default::default(),
            run: Run::default(),
            followed: Mutex::default(),
        }
    }

    fn connect(&self) -> Result<Box<dyn Connection>, Error> {
        match self.config.db.driver {
            #[cfg(feature = "sqlite")]
            // A running tracker makes no empty file in the place of its own.
            Driver::Sqlite if self.serving.load(Relaxed) && !self.config.db.path.exists() => Err(replaced()),
            #[cfg(feature = "sqlite")]
            Driver::Sqlite => {
                Ok(Box::new(super::sqlite::Sqlite::open(&self.config.db.path, self.serving.load(Relaxed))?))
            }
            #[cfg(feature = "mysql")]
            Driver::Mysql => Ok(Box::new(super::mysql::Mysql::open(&self.config.db, self.serving.load(Relaxed))?)),
            #[allow(unreachable_patterns)] // Reached where one of the two is not compiled in.
            _ => Err(Error::other("this goat was built without the driver that DB.Driver names")),
        }
    }

    /// From now on waits seconds for an answer where it waited a minute: loading is done, and goat must be
    /// able to stop in time though the database hangs.
    pub fn set_serving(&self) {
        self.serving.store(true, Relaxed);
        lock(&self.idle).clear();
    }

    /// Runs `f` on a connection, and keeps that for later unless it is lost. Where a kept connection turns
    /// out to be lost, tries once more on a new one: `f` must not mind.
    pub(super) fn with<T>(&self, mut f: impl FnMut(&mut dyn Connection) -> Result<T, Error>) -> Result<T, Error> {
        loop {
            let kept = lock(&self.idle).pop();
            let was_kept = kept.is_some();
            let mut connection = kept.map_or_else(|| self.connect(), Ok)?;
            if connection.stale() {
                return Err(replaced());
            }
            match f(connection.as_mut()) {
                Err(e) if e.kind == Kind::Lost && was_kept => lock(&self.idle).clear(),
                Err(e) if e.broken() => return Err(e),
                done => {
                    let mut idle = lock(&self.idle);
                    if idle.len() < MAX_IDLE {
                        idle.push(connection);
                    }
                    return done;
                }
            }
        }
    }

    /// Runs `f` in one transaction; again where another transaction was in the way.
    pub(super) fn transaction<T>(
        &self,
        mut f: impl FnMut(&mut dyn Connection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        again(|| {
            self.with(|c| {
                c.execute(self.dialect.begin(), &[])?;
                let done = f(c).and_then(|done| c.execute("COMMIT", &[]).map(|_| done).map_err(unsure));
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
}

/// What it means that a COMMIT was not answered.
fn unsure(e: Error) -> Error {
    if !e.broken() {
        return e;
    }
    Error {
        kind: Kind::Unsure,
        message: format!("{}: it may or may not have been written: check before you repeat it", e.message),
    }
}

/// Does something again where somebody else's lock was in the way.
pub(super) fn again<T>(mut once: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let (mut waits, mut conflicts, mut rng) = (1, 1, Rng::from_system());
    loop {
        match once() {
            Err(e) if e.kind == Kind::Busy && waits < TRIES => waits += 1,
            Err(e) if e.kind == Kind::Conflict && conflicts < CONFLICTS => {
                // Not in step with the other.
                sleep(Duration::from_millis(rng.bits() % (conflicts * APART)));
                conflicts += 1;
            }
            done => return done,
        }
    }
}
