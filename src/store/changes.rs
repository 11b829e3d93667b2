//! What the tracker reads: everything at its start, later what others have changed.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::dialect::Dialect;
use super::pool::Store;
use super::row::{read, rows};
use super::sql::{Connection, Error, Value, big};
use super::torrents::{FILE_COLUMNS, LOADED, Torrent};
use super::users::{USER_COLUMNS, User};
use crate::random::Rng;
use crate::sync::lock;
use crate::torrent::InfoHash;

/// What is to be found in the database by a key.
#[derive(Clone, Debug)]
pub enum Found<K, T> {
    There(T),
    Gone(K),
}

/// What has changed in the database.
#[derive(Debug, Default)]
pub struct Changes {
    pub users: Vec<Found<u32, User>>,
    pub files: Vec<Found<InfoHash, Torrent>>,
    /// The approved clients, if they have changed.
    pub clients: Option<Vec<Box<[u8]>>>,
    /// By which to forget it.
    pub batch: Batch,
}

/// Changes that are followed together: their number, and their rows.
#[derive(Debug, Default)]
pub struct Batch(i64, Vec<Value<'static>>);

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.1.is_empty()
    }
}

/// How far changes were followed.
#[derive(Default)]
pub(super) struct Followed {
    /// The last batch.
    last: i64,
    /// Rows that are still there for other goats, since when they need not be for this one, and when it looked last.
    there: VecDeque<(Vec<Value<'static>>, Instant)>,
    looked: Option<Instant>,
}

/// How many changes are looked at together.
const TOGETHER: usize = 5_000;
/// How long a change that was followed stays for other goats on the same database, each of which looks every few seconds.
const FOLLOWED: Duration = Duration::from_secs(30);

impl Store {
    /// Reads all users and torrents; of torrents, what memory needs.
    pub fn load(&self, mut users: impl FnMut(User), mut files: impl FnMut(Torrent)) -> Result<(), Error> {
        self.with(|c| {
            c.query(&format!("SELECT {USER_COLUMNS} FROM users"), &[], &mut |row| {
                read(row).into_iter().for_each(&mut users);
            })?;
            c.query(&format!("SELECT {LOADED} FROM files"), &[], &mut |row| {
                read(row).into_iter().for_each(&mut files);
            })
        })
    }

    /// A number that was drawn when the database was new. Its backups and copies have the same.
    pub(crate) fn identity(&self) -> Result<u64, Error> {
        let drawn = big(Rng::from_system().bits() >> 1);
        let sql = format!("{} INTO goat (name, value) VALUES ('identity', ?)", self.dialect.insert_ignore());
        self.write(&sql, &[drawn])?;
        Ok(self.number("identity")?.unwrap_or(0))
    }

    /// What has changed and was not followed: one batch. It asks for the rows of a table that is empty if nothing has
    /// changed, so it costs the same however many torrents there are.
    pub fn changes(&self) -> Result<Changes, Error> {
        self.number_changes()?;
        let (mut changes, mut users, mut files) = (Changes::default(), Vec::new(), Vec::new());
        let last = Value::Int(lock(&self.followed).last);
        let next = "SELECT MIN(batch) FROM changes WHERE batch > ?";
        let sql = format!("SELECT id, batch, what, which FROM changes WHERE batch = ({next})");
        for (id, batch, what, which) in self.rows::<(i64, i64, String, String)>(&sql, &[last])? {
            changes.batch.0 = batch;
            changes.batch.1.push(Value::Int(id));
            match &*what {
                "user" => users.push(which),
                "file" => files.push(which),
                _ => changes.clients = Some(Vec::new()),
            }
        }
        self.with(|c| {
            let by_id = format!("SELECT {USER_COLUMNS} FROM users WHERE id");
            changes.users = look_up(c, &self.dialect, &by_id, &mut users, |user: &User| user.id)?;
            let by_hash = format!("SELECT {FILE_COLUMNS} FROM files WHERE info_hash");
            changes.files = look_up(c, &self.dialect, &by_hash, &mut files, |file: &Torrent| file.info_hash)?;
            Ok(())
        })?;
        if changes.clients.is_some() {
            changes.clients = Some(self.approved_clients()?);
        }
        lock(&self.followed).looked = Some(Instant::now());
        Ok(changes)
    }

    /// Gives changes that have no number one, as a batch, members before all else. A transaction may bring ids lower
    /// than those that are there; numbers are there in their order, for who gives one waits for the row that counts them.
    fn number_changes(&self) -> Result<(), Error> {
        let sql = format!("SELECT id FROM changes WHERE batch = 0 ORDER BY what DESC LIMIT {TOGETHER}");
        let ids = self.ids(&sql, &[])?;
        if ids.is_empty() {
            return Ok(());
        }
        self.transaction(|c| {
            c.execute("UPDATE goat SET value = value + 1 WHERE name = 'changes'", &[])?;
            // Another goat may have numbered them meanwhile.
            let number = "CASE batch WHEN 0 THEN (SELECT value FROM goat WHERE name = 'changes') ELSE batch END";
            self.dialect.execute(c, &ids, 1, one_of(&format!("UPDATE changes SET batch = {number} WHERE id")))
        })
    }

    fn ids(&self, sql: &str, values: &[Value]) -> Result<Vec<Value<'static>>, Error> {
        Ok(self.rows(sql, values)?.into_iter().map(Value::Int).collect())
    }

    /// Takes all changes for followed, before everything is read.
    pub fn skip_changes(&self) -> Result<(), Error> {
        let last = self.number("changes")?.unwrap_or(0).cast_signed();
        // Where there are others, they are yet to follow what has no number.
        let least = Value::Int(i64::from(!self.is_alone()?));
        let ids = self.ids("SELECT id FROM changes WHERE batch >= ?", &[least])?;
        lock(&self.followed).last = last;
        self.remove_when_followed(ids)
    }

    /// Notes that changes were followed.
    pub fn forget_changes(&self, Batch(number, ids): Batch) -> Result<(), Error> {
        let mut followed = lock(&self.followed);
        followed.last = followed.last.max(number);
        drop(followed);
        self.remove_when_followed(ids)
    }

    /// Removes rows that this goat has followed: at once where it is the only one at this database, else when the others
    /// have had the time.
    fn remove_when_followed(&self, ids: Vec<Value<'static>>) -> Result<(), Error> {
        let now = Instant::now();
        lock(&self.followed).looked.get_or_insert(now);
        lock(&self.followed).there.extend((!ids.is_empty()).then_some((ids, now)));
        let there = !lock(&self.followed).there.is_empty();
        let wait = if there && self.is_alone()? { Duration::ZERO } else { FOLLOWED };
        let old = || lock(&self.followed).there.front().filter(|(_, since)| since.elapsed() >= wait).cloned();
        while let Some((ids, _)) = old() {
            let delete = one_of("DELETE FROM changes WHERE id");
            self.dialect.in_pieces(&ids, 1, delete, |sql, ids| self.write(sql, ids).map(drop))?;
            lock(&self.followed).there.pop_front();
        }
        Ok(())
    }

    /// Whether no other goat is at this database.
    fn is_alone(&self) -> Result<bool, Error> {
        let goats = self.row::<u32>("SELECT COUNT(*) FROM goat WHERE name LIKE 'run %'", &[])?;
        Ok(goats.is_none_or(|goats| goats <= 1))
    }

    /// Whether this goat may have missed changes, for it has not looked for so long that others may have removed them.
    pub fn missed_changes(&self) -> bool {
        lock(&self.followed).looked.is_some_and(|last| last.elapsed() >= FOLLOWED / 2)
    }
}

/// A statement that ends with a column, for rows in which this has one of so many values.
fn one_of(sql: &str) -> impl Fn(usize) -> String {
    move |values| format!("{sql} IN ({})", vec!["?"; values].join(", "))
}

/// The rows whose key, with which the statement ends, is one of `which`; and the keys that have none.
fn look_up<K: std::str::FromStr + Copy + Eq + std::hash::Hash, T: DeserializeOwned>(
    c: &mut dyn Connection,
    dialect: &Dialect,
    select: &str,
    which: &mut Vec<String>,
    key: fn(&T) -> K,
) -> Result<Vec<Found<K, T>>, Error> {
    which.sort_unstable();
    which.dedup();
    let mut missing: HashSet<K> = which.iter().filter_map(|text| text.parse().ok()).collect();
    let (mut found, values): (Vec<T>, Vec<_>) = (Vec::new(), which.iter().map(|text| Value::Text(text)).collect());
    dialect.in_pieces(&values, 1, one_of(select), |sql, values| rows(c, sql, values).map(|rows| found.extend(rows)))?;
    for row in &found {
        missing.remove(&key(row));
    }
    Ok(found.into_iter().map(Found::There).chain(missing.into_iter().map(Found::Gone)).collect())
}
