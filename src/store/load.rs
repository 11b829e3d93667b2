//! What the tracker reads: everything at its start, later what others have changed and whom it does not know.

use std::collections::HashSet;

use super::pool::{Store, again};
use super::sessions::pieces;
use super::sql::{Connection, Error, Value, big};
use crate::protocol::Factors;
use crate::random::Rng;
use crate::torrent::InfoHash;

/// A row of `users`, as far as announces need to know it.
#[derive(Clone, Debug)]
pub struct Account {
    /// `users.id`.
    pub id: u32,
    /// What the member's announce URLs contain.
    pub passkey: String,
    /// The most torrents to be active on at a time; 0 is no limit.
    pub torrent_limit: u32,
    /// May not announce.
    pub banned: bool,
}

/// A row of `files`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileRow {
    /// `files.id`.
    pub id: u32,
    /// The torrent.
    pub info_hash: InfoHash,
    /// Its name, or nothing where only the hash is known.
    pub name: String,
    /// Bytes, or 0 where only the hash is known.
    pub size: u64,
    /// An operator has approved it.
    pub verified: bool,
    /// An operator has refused it.
    pub refused: bool,
    /// Snatches.
    pub completed: u32,
    /// What is credited of the bytes that move.
    pub factors: Factors,
    /// The other hash of a hybrid (BEP 52).
    pub second: Option<InfoHash>,
}

/// What is to be found in the database by a key.
#[derive(Clone, Debug)]
pub enum Found<K, T> {
    There(T),
    Gone(K),
}

/// What has changed in the database.
#[derive(Debug, Default)]
pub struct Changes {
    pub users: Vec<Found<u32, Account>>,
    pub files: Vec<Found<InfoHash, FileRow>>,
    /// The approved clients, if they have changed.
    pub clients: Option<Vec<Box<[u8]>>>,
    /// By which to forget it.
    pub ids: Vec<i64>,
}

/// How many changes are looked at together.
const TOGETHER: usize = 5_000;

pub(super) const USER_COLUMNS: &str = "id, passkey, torrent_limit, banned";
pub(super) const FILE_COLUMNS: &str =
    "id, info_hash, name, size, verified, completed, upload_percent, download_percent, suggested, info_hash_v2";

fn user(row: &[Value]) -> Option<Account> {
    let [id, passkey, limit, banned, ..] = row else {
        return None;
    };
    let id: u32 = id.small();
    let (passkey, banned) = (passkey.text(), banned.int() != 0);
    (id != 0).then(|| Account { id, passkey, torrent_limit: limit.small(), banned })
}

pub(super) fn file(row: &[Value]) -> Option<FileRow> {
    let [id, info_hash, name, size, verified, completed, upload, download, suggested, second, ..] = row else {
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
        refused: !verified && suggested.int() < 0,
        completed: completed.small(),
        factors: Factors { upload: upload.small(), download: download.small() },
        second: second.parse(),
    })
}

impl Store {
    /// Reads all users and torrents.
    pub fn load(&self, mut users: impl FnMut(Account), mut files: impl FnMut(FileRow)) -> Result<(), Error> {
        self.with(|c| {
            c.query(&format!("SELECT {USER_COLUMNS} FROM users"), &[], &mut |row| {
                user(row).into_iter().for_each(&mut users);
            })?;
            // Nobody asks memory for their names.
            let columns = FILE_COLUMNS.replace(" name,", " '',");
            c.query(&format!("SELECT {columns} FROM files"), &[], &mut |row| {
                file(row).into_iter().for_each(&mut files);
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
    pub fn user_by_passkey(&self, passkey: &str) -> Result<Option<Account>, Error> {
        let sql = format!("SELECT {USER_COLUMNS} FROM users WHERE passkey = ?");
        self.one(&sql, &[Value::Text(passkey)], user)
    }

    /// The torrent with an info hash.
    pub fn file_by_hash(&self, info_hash: &InfoHash) -> Result<Option<FileRow>, Error> {
        let sql = format!("SELECT {FILE_COLUMNS} FROM files WHERE info_hash = ?");
        self.one(&sql, &[Value::Text(&info_hash.to_string())], file)
    }

    /// The torrent with an info hash, be it the second one.
    pub fn file_by_either_hash(&self, info_hash: &InfoHash) -> Result<Option<FileRow>, Error> {
        let (sql, hash) = (format!("SELECT {FILE_COLUMNS} FROM files WHERE info_hash_v2 = ?"), info_hash.to_string());
        Ok(self.file_by_hash(info_hash)?.or(self.one(&sql, &[Value::Text(&hash)], file)?))
    }

    /// The user with an id.
    pub fn user_by_id(&self, id: u32) -> Result<Option<Account>, Error> {
        self.one(&format!("SELECT {USER_COLUMNS} FROM users WHERE id = ?"), &[id.into()], user)
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
            changes.users = look_up(c, "users", USER_COLUMNS, "id", &users, user, |user| user.id)?;
            changes.files = look_up(c, "files", FILE_COLUMNS, "info_hash", &files.1, file, |file| file.info_hash)?;
            Ok(())
        })?;
        if !clients.0.is_empty() {
            changes.clients = Some(self.approved_clients()?);
        }
        Ok(changes)
    }

    /// The first changes of a kind: their ids, and of what they are, each once.
    fn changed(&self, what: &str) -> Result<(Vec<i64>, Vec<String>), Error> {
        let (mut ids, mut which) = (Vec::new(), Vec::new());
        self.with(|c| {
            (ids, which) = Default::default();
            let sql = format!("SELECT id, which FROM changes WHERE what = ? ORDER BY id LIMIT {TOGETHER}");
            c.query(&sql, &[Value::Text(what)], &mut |row| {
                if let [id, of, ..] = row {
                    ids.push(id.int());
                    which.push(of.text());
                }
            })
        })?;
        which.sort_unstable();
        which.dedup();
        Ok((ids, which))
    }

    /// Forgets all changes, before everything is read.
    pub fn forget_all_changes(&self) -> Result<(), Error> {
        again(|| self.with(|c| c.execute("DELETE FROM changes", &[]).map(drop)))
    }

    /// Forgets changes that were followed. By their ids, not up to the last: a transaction that began earlier may
    /// still bring a lower one.
    pub fn forget_changes(&self, ids: &[i64]) -> Result<(), Error> {
        for piece in pieces(ids) {
            let sql = format!("DELETE FROM changes WHERE id IN ({})", vec!["?"; piece.len()].join(", "));
            let values: Vec<Value> = piece.iter().map(|id| Value::Int(*id)).collect();
            self.with(|c| c.execute(&sql, &values))?;
        }
        Ok(())
    }
}

/// The rows of a table by a key, and the keys that have none.
fn look_up<K: std::str::FromStr + Copy + Eq + std::hash::Hash, T>(
    c: &mut dyn Connection,
    table: &str,
    columns: &str,
    key: &str,
    which: &[String],
    read: fn(&[Value]) -> Option<T>,
    of: fn(&T) -> K,
) -> Result<Vec<Found<K, T>>, Error> {
    let (mut rows, mut missing) =
        (Vec::new(), which.iter().filter_map(|text| text.parse().ok()).collect::<HashSet<K>>());
    for piece in pieces(which) {
        let sql = format!("SELECT {columns} FROM {table} WHERE {key} IN ({})", vec!["?"; piece.len()].join(", "));
        let values: Vec<Value> = piece.iter().map(|text| Value::Text(text)).collect();
        c.query(&sql, &values, &mut |row| rows.extend(read(row)))?;
    }
    for row in &rows {
        missing.remove(&of(row));
    }
    Ok(rows.into_iter().map(Found::There).chain(missing.into_iter().map(Found::Gone)).collect())
}
