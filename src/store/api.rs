//! What the API reads, the keys by which it is signed in to, and the hours of the history.

use std::collections::HashMap;
use std::sync::Mutex;

use serde::Serialize;

use super::pool::Store;
use super::sql::{Error, Value, big};
use crate::random::secret;
use crate::sync::lock;

/// A member, as far as the API must know one.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// `users.id`.
    pub id: u32,
    /// Sees everything.
    pub admin: bool,
    /// Sees nothing.
    pub banned: bool,
}

/// A torrent, as the API shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiFile {
    pub id: u32,
    pub info_hash: String,
    pub verified: bool,
    /// Seconds since 1970.
    pub create_time: i64,
    /// Seconds since 1970.
    pub update_time: i64,
    /// Snatches.
    pub completed: u32,
    /// Sessions in the swarm.
    pub seeders: usize,
    pub leechers: usize,
    /// What the original did not have. By itself a torrent has the list of its users before it.
    #[serde(flatten)]
    pub more: Option<MoreOfFile>,
}

/// What the API shows of a torrent after the fields of the original.
#[derive(Clone, Debug, Serialize)]
pub struct MoreOfFile {
    pub name: String,
    /// Bytes.
    pub size: u64,
}

/// A row of `files_users`, as the API shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileUser {
    pub file_id: u32,
    pub user_id: u32,
    pub ip: String,
    pub active: bool,
    pub completed: bool,
    /// How often.
    pub announced: u64,
    /// Bytes.
    pub uploaded: u64,
    /// Bytes.
    pub downloaded: u64,
    /// Bytes.
    pub left: u64,
    /// The last announce, in seconds since 1970.
    pub time: i64,
    /// Seconds.
    pub seed_time: u64,
}

/// A member, as the API shows one.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiUser {
    pub id: u32,
    pub username: String,
    pub admin: bool,
    pub banned: bool,
    pub torrent_limit: u32,
    /// Bytes.
    pub uploaded: u64,
    /// Bytes.
    pub downloaded: u64,
    /// Seconds since 1970.
    pub create_time: i64,
    /// Torrents active on now.
    pub active: u32,
}

/// What a member has done on all torrents together.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Activity {
    /// Torrents seeded now.
    pub seeding: u32,
    /// Torrents leeched now.
    pub leeching: u32,
    /// Torrents downloaded completely.
    pub snatches: u32,
    /// Seconds, all torrents added up.
    pub seed_time: u64,
    /// The last announce, in seconds since 1970; 0 is never.
    pub last_seen: i64,
}

/// What a member has done on one torrent, from all addresses.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UserFile {
    pub file_id: u32,
    pub name: String,
    pub info_hash: String,
    /// Bytes.
    pub size: u64,
    pub active: bool,
    pub completed: bool,
    /// Bytes.
    pub uploaded: u64,
    /// Bytes.
    pub downloaded: u64,
    /// Bytes that the last announce still wanted.
    pub left: u64,
    /// Seconds.
    pub seed_time: u64,
    /// The last announce, in seconds since 1970.
    pub time: i64,
}

/// A list in an order: the ids of its rows, which are then read a piece at a time.
#[derive(Clone, Copy)]
pub enum List {
    Files {
        /// Only verified ones.
        verified: bool,
        /// Only those that are not.
        pending: bool,
    },
    Users,
    /// Torrents of a member.
    FilesOf(u32),
}

/// What happened in one step or one hour, as a row of numbers: time, announces answered, announces and
/// scrapes refused, seeders, leechers, bytes uploaded, bytes downloaded.
pub type HistoryRow = [u64; 7];

/// How many rows are read at once.
pub const PIECE: usize = 128;
/// A key that was not used for so many seconds opens nothing: a week.
pub const KEY_LIFE: u32 = 7 * 86_400;
/// The most keys of one member; the oldest makes room.
const MAX_KEYS: u32 = 10;
/// How often a key may be used: that bounds how many nonces are remembered.
const MAX_CALLS: i64 = 100_000;
/// Held while the database sorts a long list, for SQLite has what it sorts by in memory.
static SORTING: Mutex<()> = Mutex::new(());
/// How long the hours are kept, in seconds: 400 days.
const KEEP_HOURS: u64 = 400 * 86_400;

impl Store {
    /// Bytes that were written into the books since the start: uploaded and downloaded.
    pub fn moved(&self) -> [u64; 2] {
        [0, 1].map(|i: usize| self.moved[i].load(std::sync::atomic::Ordering::Relaxed))
    }

    /// The member of a name and the SHA-256 of each of their API keys.
    pub fn member(&self, name: &str) -> Result<Option<(Member, Vec<String>)>, Error> {
        let sql = format!(
            "SELECT u.id, u.admin, u.banned, k.key_hash FROM users u LEFT JOIN api_keys k ON k.user_id = u.id WHERE {}",
            self.dialect.has_name()
        );
        let mut found: Option<(Member, Vec<String>)> = None;
        self.with(|c| {
            found = None;
            c.query(&sql, &[Value::Text(name)], &mut |row| {
                let Some(member) = member(row) else { return };
                let (_, keys) = found.get_or_insert((member, Vec::new()));
                keys.extend(row.get(3).map(Value::text).filter(|key| !key.is_empty()));
            })
        })?;
        Ok(found)
    }

    /// Makes a key to sign with, for whoever has the API key with this hash, and returns its public part.
    pub fn add_login(&self, user: u32, key_hash: &str, now: u32) -> Result<String, Error> {
        let public = secret::<20>().map_err(Error::other)?;
        let (time, user) = (Value::Int(now.into()), Value::Int(user.into()));
        self.transaction(|c| {
            c.execute("DELETE FROM api_logins WHERE use_time < ?", &[Value::Int(now.saturating_sub(KEY_LIFE).into())])?;
            let mut keys = Vec::new();
            let sql = "SELECT pubkey FROM api_logins WHERE user_id = ? ORDER BY use_time DESC";
            c.query(sql, &[user], &mut |row| keys.extend(row.first().map(Value::text)))?;
            for old in keys.iter().skip(MAX_KEYS as usize - 1) {
                c.execute("DELETE FROM api_logins WHERE pubkey = ?", &[Value::Text(old)])?;
            }
            c.execute("DELETE FROM api_nonces WHERE pubkey NOT IN (SELECT pubkey FROM api_logins)", &[])?;
            let sql = "INSERT INTO api_logins (pubkey, user_id, key_hash, use_time) VALUES (?, ?, ?, ?)";
            c.execute(sql, &[Value::Text(&public), user, Value::Text(key_hash), time]).map(drop)
        })?;
        Ok(public)
    }

    /// The member who has a key to sign with, unless it has expired, was used too often, or the API key is
    /// gone that it was made with.
    pub fn login(&self, public: &str, now: u32) -> Result<Option<Member>, Error> {
        let sql = "SELECT u.id, u.admin, u.banned FROM api_logins l
            JOIN users u ON u.id = l.user_id JOIN api_keys k ON k.key_hash = l.key_hash AND k.user_id = l.user_id
            WHERE l.pubkey = ? AND l.use_time >= ? AND l.calls < ?";
        let since = Value::Int(now.saturating_sub(KEY_LIFE).into());
        self.one(sql, &[Value::Text(public), since, Value::Int(MAX_CALLS)], member)
    }

    /// Uses a key once more, with a nonce. Returns false where that was used before.
    pub fn use_login(&self, public: &str, nonce: &str, now: u32) -> Result<bool, Error> {
        let insert = format!("{} INTO api_nonces (pubkey, nonce) VALUES (?, ?)", self.dialect.insert_ignore());
        self.transaction(|c| {
            let new = c.execute(&insert, &[Value::Text(public), Value::Text(nonce)])? > 0;
            if new {
                let sql = "UPDATE api_logins SET use_time = ?, calls = calls + 1 WHERE pubkey = ?";
                c.execute(sql, &[Value::Int(now.into()), Value::Text(public)])?;
            }
            Ok(new)
        })
    }

    /// The first `limit` ids of a list, sorted by a column (one of ours, never text from outside).
    pub fn ids(&self, list: List, column: &'static str, descending: bool, limit: usize) -> Result<Vec<u32>, Error> {
        let (from, values) = match list {
            List::Files { pending: true, .. } => ("SELECT id FROM files WHERE verified = 0 AND suggested >= 0", vec![]),
            List::Files { verified: true, .. } => ("SELECT id FROM files WHERE verified = 1", vec![]),
            List::Files { .. } => ("SELECT id FROM files", vec![]),
            List::Users => ("SELECT id FROM users", vec![]),
            List::FilesOf(user) => {
                ("SELECT file_id AS id, time FROM files_users WHERE user_id = ?", vec![Value::Int(user.into())])
            }
        };
        let order = if descending { "DESC" } else { "ASC" };
        let values: Vec<Value> = values.into_iter().chain([big(limit as u64)]).collect();
        let sql = format!("{from} ORDER BY {column} {order}, id {order} LIMIT ?");
        let mut ids = Vec::new();
        let large = column != "id" && !matches!(list, List::FilesOf(_));
        let _sorting = large.then(|| lock(&SORTING));
        self.with(|c| {
            ids.clear();
            c.query(&sql, &values, &mut |row| ids.extend(row.first().map(Value::small::<u32>)))
        })?;
        Ok(ids)
    }

    /// At most [`PIECE`] rows in the order of their ids; who has gone meanwhile is left out. `sql` names
    /// the ids as `(IDS)`, after all of `values`.
    fn piece<T>(
        &self,
        sql: &str,
        values: &[Value],
        ids: &[u32],
        read: impl Fn(&[Value]) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        // Always as many placeholders, so that the statement is prepared once.
        let last = ids.last().copied().unwrap_or(0);
        let padded = ids.iter().copied().chain(std::iter::repeat(last)).take(PIECE).map(|id| Value::Int(id.into()));
        let values: Vec<Value> = values.iter().copied().chain(padded).collect();
        let sql = sql.replace("(IDS)", &format!("({})", vec!["?"; PIECE].join(", ")));
        let mut found = HashMap::new();
        self.with(|c| {
            found.clear();
            c.query(&sql, &values, &mut |row| {
                found.extend(row.first().map(Value::small::<u32>).zip(read(row)));
            })
        })?;
        Ok(ids.iter().filter_map(|id| found.remove(id)).collect())
    }

    /// Torrents by their ids, at most [`PIECE`]. Who is on them is not known here.
    pub fn api_files(&self, ids: &[u32]) -> Result<Vec<ApiFile>, Error> {
        let sql = "SELECT id, info_hash, verified, create_time, update_time, completed, name, size
            FROM files WHERE id IN (IDS)";
        self.piece(sql, &[], ids, |row| {
            let [id, info_hash, verified, create_time, update_time, completed, name, size, ..] = row else {
                return None;
            };
            Some(ApiFile {
                id: id.small(),
                info_hash: info_hash.text().to_lowercase(),
                verified: verified.int() != 0,
                create_time: create_time.int(),
                update_time: update_time.int(),
                completed: completed.small(),
                seeders: 0,
                leechers: 0,
                more: Some(MoreOfFile { name: name.text(), size: size.small() }),
            })
        })
    }

    /// Members by their ids, at most [`PIECE`]. What they are active on is not known here.
    pub fn api_users(&self, ids: &[u32]) -> Result<Vec<ApiUser>, Error> {
        let sql = "SELECT id, username, admin, banned, torrent_limit, uploaded, downloaded, create_time
            FROM users WHERE id IN (IDS)";
        self.piece(sql, &[], ids, |row| {
            let [id, username, admin, banned, torrent_limit, uploaded, downloaded, create_time, ..] = row else {
                return None;
            };
            Some(ApiUser {
                id: id.small(),
                username: username.text(),
                admin: admin.int() != 0,
                banned: banned.int() != 0,
                torrent_limit: torrent_limit.small(),
                uploaded: uploaded.small(),
                downloaded: downloaded.small(),
                create_time: create_time.int(),
                active: 0,
            })
        })
    }

    /// What a member did on torrents, at most [`PIECE`] of them.
    pub fn user_files(&self, user: u32, ids: &[u32]) -> Result<Vec<UserFile>, Error> {
        let sql = "SELECT t.file_id, f.name, f.info_hash, f.size, t.active, t.completed, t.uploaded, t.downloaded,
            t.`left`, t.seed_time, t.time FROM files_users t JOIN files f ON f.id = t.file_id
            WHERE t.user_id = ? AND t.file_id IN (IDS)";
        self.piece(sql, &[Value::Int(user.into())], ids, |row| {
            let [file, name, hash, size, active, completed, uploaded, downloaded, left, seed_time, time, ..] = row
            else {
                return None;
            };
            Some(UserFile {
                file_id: file.small(),
                name: name.text(),
                info_hash: hash.text().to_lowercase(),
                size: size.small(),
                active: active.int() != 0,
                completed: completed.int() != 0,
                uploaded: uploaded.small(),
                downloaded: downloaded.small(),
                left: left.small(),
                seed_time: seed_time.small(),
                time: time.int(),
            })
        })
    }

    /// What a member did on all torrents together.
    pub fn activity(&self, user: u32) -> Result<Activity, Error> {
        let sql = "SELECT COUNT(CASE WHEN active = 1 AND `left` = 0 THEN 1 END),
            COUNT(CASE WHEN active = 1 AND `left` > 0 THEN 1 END), COUNT(CASE WHEN completed = 1 THEN 1 END), COALESCE(SUM(seed_time), 0),
            COALESCE(MAX(time), 0) FROM files_users WHERE user_id = ?";
        let found = self.one(sql, &[Value::Int(user.into())], |row| match row {
            [seeding, leeching, snatches, seed_time, last_seen, ..] => Some(Activity {
                seeding: seeding.small(),
                leeching: leeching.small(),
                snatches: snatches.small(),
                seed_time: seed_time.small(),
                last_seen: last_seen.int(),
            }),
            _ => None,
        })?;
        Ok(found.unwrap_or_default())
    }

    /// At most `limit` rows of `files_users` of a torrent, in the order of users from one on, or that of one member
    /// alone.
    pub fn file_users(&self, file: u32, only: Option<u32>, from: u32, limit: usize) -> Result<Vec<FileUser>, Error> {
        let sql =
            "SELECT file_id, user_id, ip, active, completed, announced, uploaded, downloaded, `left`, time, seed_time
            FROM files_users WHERE file_id = ? AND user_id >= ? AND user_id <= ? ORDER BY user_id LIMIT ?";
        let (from, to) = only.map_or((from, u32::MAX), |id| (id, id));
        let mut rows = Vec::new();
        self.with(|c| {
            rows.clear();
            c.query(sql, &[file.into(), from.into(), to.into(), big(limit as u64)], &mut |row| {
                let [file, user, ip, active, completed, announced, uploaded, downloaded, left, time, seed_time, ..] =
                    row
                else {
                    return;
                };
                rows.push(FileUser {
                    file_id: file.small(),
                    user_id: user.small(),
                    ip: ip.address(),
                    active: active.int() != 0,
                    completed: completed.int() != 0,
                    announced: announced.small(),
                    uploaded: uploaded.small(),
                    downloaded: downloaded.small(),
                    left: left.small(),
                    time: time.int(),
                    seed_time: seed_time.small(),
                });
            })
        })?;
        Ok(rows)
    }

    /// Writes the row of an hour, whose time is its beginning, in the place of the one before.
    pub fn save_hour(&self, row: &HistoryRow) -> Result<(), Error> {
        let sql = "REPLACE INTO hours (time, announces, refused, seeders, leechers, uploaded, downloaded)
            VALUES (?, ?, ?, ?, ?, ?, ?)";
        let old = big(row[0].saturating_sub(KEEP_HOURS));
        self.with(|c| {
            c.execute("DELETE FROM hours WHERE time < ?", &[old])?;
            c.execute(sql, &row.map(big)).map(drop)
        })
    }

    /// The hours that began after `after` (seconds since 1970), in order.
    pub fn hours(&self, after: u32) -> Result<Vec<HistoryRow>, Error> {
        let sql = "SELECT time, announces, refused, seeders, leechers, uploaded, downloaded
            FROM hours WHERE time > ? ORDER BY time";
        let mut rows = Vec::new();
        self.with(|c| {
            rows.clear();
            c.query(sql, &[Value::Int(after.into())], &mut |row| {
                rows.push(std::array::from_fn(|column| row.get(column).map_or(0, Value::small)));
            })
        })?;
        Ok(rows)
    }
}

fn member(row: &[Value]) -> Option<Member> {
    let [id, admin, banned, ..] = row else { return None };
    Some(Member { id: id.small(), admin: admin.int() != 0, banned: banned.int() != 0 })
}
