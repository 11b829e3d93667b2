//! What the tracker reads: everything at its start, later what others have changed.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use super::pool::{Store, again};
use super::row::{read, rows};
use super::sessions::pieces;
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
    pub ids: Vec<i64>,
}

/// How many changes are looked at together.
const TOGETHER: usize = 5_000;
/// How long a change that was followed stays for other goats on the same database, each of which looks every few seconds.
const FOLLOWED: Duration = Duration::from_secs(60);

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
        again(|| self.with(|c| c.execute(&sql, &[drawn])))?;
        Ok(self.row("SELECT value FROM goat WHERE name = 'identity'", &[])?.map_or(0, |(id,)| id))
    }

    /// What has changed: some members, or else clients and some torrents. It asks for the rows of a table that is empty
    /// if nothing has changed, so it costs the same however many torrents there are.
    pub fn changes(&self) -> Result<Changes, Error> {
        let (mut ids, users) = self.changed("user")?;
        let (clients, files) =
            if ids.is_empty() { (self.changed("client")?, self.changed("file")?) } else { Default::default() };
        ids.extend(clients.0.iter().chain(&files.0));
        let mut changes = Changes { ids, ..Changes::default() };
        self.with(|c| {
            let by_id = format!("SELECT {USER_COLUMNS} FROM users WHERE id");
            changes.users = look_up(c, &by_id, &users, |user: &User| user.id)?;
            let by_hash = format!("SELECT {FILE_COLUMNS} FROM files WHERE info_hash");
            changes.files = look_up(c, &by_hash, &files.1, |file: &Torrent| file.info_hash)?;
            Ok(())
        })?;
        if !clients.0.is_empty() {
            changes.clients = Some(self.approved_clients()?);
        }
        Ok(changes)
    }

    /// The first changes of a kind that were not followed: their ids, and of what they are, each once.
    fn changed(&self, what: &str) -> Result<(Vec<i64>, Vec<String>), Error> {
        let sql = format!("SELECT id, which FROM changes WHERE what = ? AND id > ? ORDER BY id LIMIT {TOGETHER}");
        let mut from = 0;
        let rows = loop {
            let mut rows: Vec<(i64, String)> = self.rows(&sql, &[what.into(), Value::Int(from)])?;
            let last = rows.last().map(|(id, _)| *id);
            let followed = lock(&self.followed);
            rows.retain(|(id, _)| !followed.contains_key(id));
            match last {
                Some(last) if rows.is_empty() => from = last,
                _ => break rows,
            }
        };
        let (ids, mut which): (Vec<i64>, Vec<String>) = rows.into_iter().unzip();
        which.sort_unstable();
        which.dedup();
        Ok((ids, which))
    }

    /// Takes all changes for followed, before everything is read.
    pub fn forget_all_changes(&self) -> Result<(), Error> {
        let mut ids = Vec::new();
        self.with(|c| {
            ids.clear();
            c.query("SELECT id FROM changes", &[], &mut |row| ids.extend(row.first().map(Value::int)))
        })?;
        self.forget_changes(&ids)
    }

    /// Notes that changes were followed, and removes them: at once where no other goat is at this database, else when
    /// the others have had the time. By their ids, not up to the last: a transaction that began earlier may still bring
    /// a lower one.
    pub fn forget_changes(&self, ids: &[i64]) -> Result<(), Error> {
        let now = Instant::now();
        *lock(&self.looked) = Some(now);
        lock(&self.followed).extend(ids.iter().map(|id| (*id, now)));
        let alone = "(SELECT COUNT(*) FROM goat WHERE name LIKE 'run %') <= 1";
        self.remove_changes(ids, &format!(" AND {alone}"))?;
        let followed = lock(&self.followed).clone();
        let old = followed.into_iter().filter(|(_, since)| since.elapsed() >= FOLLOWED);
        self.remove_changes(&old.map(|(id, _)| id).collect::<Vec<_>>(), "")
    }

    fn remove_changes(&self, ids: &[i64], and: &str) -> Result<(), Error> {
        for piece in pieces(ids) {
            let sql = format!("DELETE FROM changes WHERE id IN ({}){and}", vec!["?"; piece.len()].join(", "));
            let values: Vec<Value> = piece.iter().map(|id| Value::Int(*id)).collect();
            let removed = again(|| self.with(|c| c.execute(&sql, &values)))?;
            if removed == piece.len() as u64 || and.is_empty() {
                let mut followed = lock(&self.followed);
                followed.retain(|id, _| !piece.contains(id));
            }
        }
        Ok(())
    }

    /// Whether this goat may have missed changes, for it has not looked for so long that others may have removed them.
    pub fn missed_changes(&self) -> bool {
        lock(&self.looked).is_some_and(|last| last.elapsed() >= FOLLOWED / 2)
    }
}

/// The rows whose key, with which the statement ends, is one of `which`; and the keys that have none.
fn look_up<K: std::str::FromStr + Copy + Eq + std::hash::Hash, T: DeserializeOwned>(
    c: &mut dyn Connection,
    select: &str,
    which: &[String],
    key: fn(&T) -> K,
) -> Result<Vec<Found<K, T>>, Error> {
    let mut missing: HashSet<K> = which.iter().filter_map(|text| text.parse().ok()).collect();
    let mut found = Vec::new();
    for piece in pieces(which) {
        let sql = format!("{select} IN ({})", vec!["?"; piece.len()].join(", "));
        let values: Vec<Value> = piece.iter().map(|text| Value::Text(text)).collect();
        found.extend(rows(c, &sql, &values)?);
    }
    for row in &found {
        missing.remove(&key(row));
    }
    Ok(found.into_iter().map(Found::There).chain(missing.into_iter().map(Found::Gone)).collect())
}
