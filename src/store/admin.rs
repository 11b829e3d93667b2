//! What the command line and the keeper change and list: users, torrents, clients.

use super::{Connection, Error, FILE_COLUMNS, Kind, Store, Value, big, file};
use crate::access::{MAX_PENDING, Suggestion};
use crate::ledger::Factors;
use crate::random::{hex, secret};
use crate::torrent::InfoHash;

/// A row of `users` and what the member does now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserRow {
    /// `users.id`.
    pub id: u32,
    /// `users.username`.
    pub name: String,
    /// May use the API as an administrator.
    pub admin: bool,
    /// May not announce.
    pub banned: bool,
    /// The most torrents to be active on; 0 is no limit.
    pub torrent_limit: u32,
    /// Bytes.
    pub uploaded: u64,
    /// Bytes.
    pub downloaded: u64,
    /// Torrents seeded now.
    pub seeding: u32,
    /// Torrents leeched now.
    pub leeching: u32,
    /// `users.ban_reason`.
    pub ban_reason: String,
}

/// Which users to list.
#[derive(Clone, Copy)]
pub enum Who {
    /// All of them.
    Everybody,
    /// Those who may not announce.
    Banned,
    /// One, by `users.id`.
    Id(u32),
}

/// The words by which users can be sorted, and how; the first is the default.
pub const USER_ORDERS: [(&str, &str); 5] = [
    ("id", "u.id"),
    ("name", "u.username, u.id"),
    ("uploaded", "u.uploaded DESC, u.id"),
    ("downloaded", "u.downloaded DESC, u.id"),
    // Who has downloaded nothing has an infinite ratio, or none.
    (
        "ratio",
        "CASE WHEN u.downloaded > 0 THEN 1 WHEN u.uploaded > 0 THEN 2 ELSE 0 END DESC,
         CASE WHEN u.downloaded > 0 THEN 1.0 * u.uploaded / u.downloaded ELSE 0 END DESC, u.id",
    ),
];

/// Which torrents to list.
#[derive(Clone, Copy)]
pub enum Which {
    /// All of them.
    All,
    /// Those that await approval.
    Pending,
    /// The approved ones that nobody seeds now.
    Dead,
    /// One, by `files.id`.
    Id(u32),
}

/// The words by which torrents can be sorted, and how; the first is the default.
pub const FILE_ORDERS: [(&str, &str); 7] = [
    ("id", "f.id"),
    ("name", "f.name, f.id"),
    ("size", "f.size DESC, f.id"),
    ("seeders", "COALESCE(p.seeders, 0) DESC, f.id"),
    ("leechers", "COALESCE(p.leechers, 0) DESC, f.id"),
    ("snatches", "f.completed DESC, f.id"),
    ("activity", "COALESCE(t.seen, 0) DESC, f.id"),
];

/// A torrent and who is on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwarmRow {
    /// The torrent.
    pub file: FileRow,
    /// Sessions that have all of it now.
    pub seeders: u32,
    /// Sessions that have not.
    pub leechers: u32,
    /// The last announce, in seconds since 1970; 0 is never.
    pub last_active: u32,
}

/// A user just made, with the secrets that are shown once.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// `users.id`.
    pub id: u32,
    /// What the announce URLs contain: 40 hex digits.
    pub passkey: String,
    /// The password of the API: 40 hex digits. The database keeps only its hash.
    pub api_key: String,
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
    /// Snatches.
    pub completed: u32,
    /// What is credited of the bytes that move.
    pub factors: Factors,
}

/// A row of `whitelist`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRow {
    /// The prefix of User-Agents or peer ids.
    pub client: String,
    /// Whether it is let in.
    pub approved: bool,
}

/// The longest user name, in characters.
const MAX_NAME: usize = 64;

impl Store {
    /// Whether there is any user.
    pub fn has_users(&self) -> Result<bool, Error> {
        Ok(self.one("SELECT id FROM users LIMIT 1", &[], |_| Some(()))?.is_some())
    }

    /// Makes a user with a new passkey and API key.
    pub fn add_user(&self, name: &str, torrent_limit: u32, admin: bool) -> Result<NewUser, Error> {
        check_name(name).map_err(Error::other)?;
        let passkey = secret::<20>().map_err(Error::other)?;
        let api_key = secret::<20>().map_err(Error::other)?;
        let id = self.transaction(|c| {
            let sql = "INSERT INTO users (username, passkey, torrent_limit, admin) VALUES (?, ?, ?, ?)";
            let values =
                [Value::Text(name), Value::Text(&passkey), Value::Int(torrent_limit.into()), Value::Int(admin.into())];
            c.execute(sql, &values).map_err(|e| match e.kind {
                Kind::Exists => Error { kind: Kind::Exists, message: format!("there is a user named {name} already") },
                _ => e,
            })?;
            let id = c.last_id();
            insert_key(c, id, &api_key)?;
            Ok(id)
        })?;
        Ok(NewUser { id, passkey, api_key })
    }

    /// Users, in the order of [`USER_ORDERS`], with what they do now according to sessions that announced
    /// since `since`.
    pub fn users(&self, who: Who, order: &str, since: u32, mut sink: impl FnMut(UserRow)) -> Result<(), Error> {
        let who = match who {
            Who::Everybody => String::new(),
            Who::Banned => "WHERE u.banned = 1".into(),
            Who::Id(id) => format!("WHERE u.id = {id}"),
        };
        let sql = format!(
            "SELECT u.id, u.username, u.admin, u.banned, u.torrent_limit, u.uploaded, u.downloaded,
                COALESCE(p.seeding, 0), COALESCE(p.leeching, 0), u.ban_reason FROM users u LEFT JOIN (
                SELECT user_id, COUNT(DISTINCT CASE WHEN `left` = 0 THEN file_id END) AS seeding,
                    COUNT(DISTINCT CASE WHEN `left` > 0 THEN file_id END) AS leeching
                FROM peers WHERE active = 1 AND time >= ? GROUP BY user_id
            ) p ON p.user_id = u.id {who} ORDER BY {order}"
        );
        self.with(|c| {
            c.query(&sql, &[Value::Int(since.into())], &mut |row| {
                if let [id, name, admin, banned, limit, uploaded, downloaded, seeding, leeching, reason, ..] = row {
                    sink(UserRow {
                        id: id.small(),
                        name: name.text(),
                        admin: admin.int() != 0,
                        banned: banned.int() != 0,
                        torrent_limit: limit.small(),
                        uploaded: uploaded.small(),
                        downloaded: downloaded.small(),
                        seeding: seeding.small(),
                        leeching: leeching.small(),
                        ban_reason: reason.text(),
                    });
                }
            })
        })
    }

    /// Registers a torrent as verified, or verifies it where it is there already. A known name and size are
    /// not overwritten by nothing.
    pub fn add_file(&self, info_hash: &InfoHash, name: &str, size: u64) -> Result<FileRow, Error> {
        let hash = info_hash.to_string();
        let name: String = name.chars().take(255).collect();
        let sql = format!(
            "{} INTO files (info_hash, name, size, verified) VALUES (?, ?, ?, 1)",
            self.dialect.insert_ignore()
        );
        self.with(|c| {
            c.execute(&sql, &[Value::Text(&hash), Value::Text(&name), big(size)])?;
            if !name.is_empty() {
                let sql = "UPDATE files SET name = ?, size = ? WHERE info_hash = ?";
                c.execute(sql, &[Value::Text(&name), big(size), Value::Text(&hash)])?;
            }
            c.execute("UPDATE files SET verified = 1 WHERE info_hash = ? AND verified = 0", &[Value::Text(&hash)])
        })?;
        self.file_by_hash(info_hash)?.ok_or_else(|| Error::other("the torrent was removed while it was added"))
    }

    /// Torrents, in the order of [`FILE_ORDERS`], with their swarms according to sessions that announced since
    /// `since`.
    pub fn files(&self, which: Which, order: &str, since: u32, mut sink: impl FnMut(SwarmRow)) -> Result<(), Error> {
        let columns = FILE_COLUMNS.split(", ").map(|column| format!("f.{column}")).collect::<Vec<_>>().join(", ");
        let which = match which {
            Which::All => String::new(),
            Which::Pending => "WHERE f.verified = 0".into(),
            Which::Dead => "WHERE f.verified = 1 AND COALESCE(p.seeders, 0) = 0".into(),
            Which::Id(id) => format!("WHERE f.id = {id}"),
        };
        let sql = format!(
            "SELECT {columns}, COALESCE(p.seeders, 0), COALESCE(p.leechers, 0), COALESCE(t.seen, 0) FROM files f
            LEFT JOIN (
                SELECT file_id, SUM(CASE WHEN `left` = 0 THEN 1 ELSE 0 END) AS seeders,
                    SUM(CASE WHEN `left` > 0 THEN 1 ELSE 0 END) AS leechers
                FROM peers WHERE active = 1 AND time >= ? GROUP BY file_id
            ) p ON p.file_id = f.id
            LEFT JOIN (SELECT file_id, MAX(time) AS seen FROM files_users GROUP BY file_id) t ON t.file_id = f.id
            {which} ORDER BY {order}"
        );
        self.with(|c| {
            c.query(&sql, &[Value::Int(since.into())], &mut |row| {
                if let (Some(file), [.., seeders, leechers, seen]) = (file(row), row) {
                    let (seeders, leechers, last_active) = (seeders.small(), leechers.small(), seen.small());
                    sink(SwarmRow { file, seeders, leechers, last_active });
                }
            })
        })
    }

    /// Approves a torrent, or all that wait; returns how many changed.
    pub fn approve_files(&self, info_hash: Option<&InfoHash>) -> Result<u64, Error> {
        self.with(|c| match info_hash {
            None => c.execute("UPDATE files SET verified = 1 WHERE verified = 0", &[]),
            Some(hash) => {
                let values = [Value::Text(&hash.to_string())];
                c.execute("UPDATE files SET verified = 1 WHERE info_hash = ? AND verified = 0", &values)
            }
        })
    }

    /// All clients, by prefix.
    pub fn clients(&self) -> Result<Vec<ClientRow>, Error> {
        let mut clients = Vec::new();
        self.with(|c| {
            clients.clear();
            c.query("SELECT client, approved FROM whitelist ORDER BY client", &[], &mut |row| {
                if let [client, approved, ..] = row {
                    clients.push(ClientRow { client: client.text(), approved: approved.int() != 0 });
                }
            })
        })?;
        Ok(clients)
    }

    /// Approves or denies a client, known so far or not.
    pub fn set_client(&self, prefix: &str, approved: bool) -> Result<(), Error> {
        let insert = self.dialect.insert_ignore();
        let values = [Value::Int(approved.into()), Value::Text(prefix)];
        self.transaction(|c| {
            c.execute(&format!("{insert} INTO whitelist (approved, client) VALUES (?, ?)"), &values)?;
            c.execute("UPDATE whitelist SET approved = ? WHERE client = ?", &values).map(drop)
        })
    }

    /// Writes down what members suggested, unapproved, while fewer than [`MAX_PENDING`] of the kind wait.
    /// Returns what was not there already.
    pub fn suggest(&self, suggestions: &[Suggestion], now: u32) -> Result<Vec<Suggestion>, Error> {
        let insert = self.dialect.insert_ignore();
        let mut new = Vec::new();
        for suggestion in suggestions {
            let (table, column, unapproved, key) = match suggestion {
                Suggestion::Client(agent) => ("whitelist", "client", "approved", agent.clone()),
                Suggestion::Torrent(hash) => ("files", "info_hash", "verified", hash.to_string()),
            };
            let mut pending = 0;
            let inserted = self.with(|c| {
                let sql = format!("SELECT COUNT(*) FROM {table} WHERE {unapproved} = 0");
                c.query(&sql, &[], &mut |row| pending = row.first().map_or(0, |count| count.small::<usize>()))?;
                if let Suggestion::Torrent(_) = suggestion {
                    // The second hash of a hybrid is not a torrent of its own.
                    let sql = "SELECT file_id FROM hybrids WHERE info_hash_v2 = ?";
                    c.query(sql, &[Value::Text(&key)], &mut |_| pending = MAX_PENDING)?;
                }
                if pending >= MAX_PENDING {
                    return Ok(0);
                }
                let sql = format!("{insert} INTO {table} ({column}, suggested) VALUES (?, ?)");
                c.execute(&sql, &[Value::Text(&key), Value::Int(now.into())])
            })?;
            if inserted > 0 {
                new.push(suggestion.clone());
            }
        }
        Ok(new)
    }
}

/// Whether somebody can be called so.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let length = name.chars().count();
    if length == 0 || length > MAX_NAME || name.chars().any(|c| c.is_control() || c == ':') || name.trim() != name {
        return Err(format!(
            "a user name has 1 to {MAX_NAME} characters, no control characters, no colon, and no space at its ends"
        ));
    }
    Ok(())
}

/// Stores a user's API key.
pub(super) fn insert_key(c: &mut dyn Connection, user: u32, api_key: &str) -> Result<(), Error> {
    let values = [Value::Int(user.into()), Value::Text(&hash_key(api_key))];
    c.execute("INSERT INTO api_keys (user_id, key_hash) VALUES (?, ?)", &values).map(drop)
}

/// What `api_keys` holds of a key. The key is 160 random bits, so a plain hash cannot be searched.
fn hash_key(key: &str) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, key.as_bytes()).as_ref())
}
