//! What the command line and the keeper change and list: users, torrents, clients.

use super::load::{FILE_COLUMNS, FileRow, file};
use super::pool::Store;
use super::sql::{Connection, Error, Kind, Value, big};
use crate::random::{hex, secret};
use crate::torrent::InfoHash;

/// Something that the database does not have and that an operator may want to approve.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Suggestion {
    /// The User-Agent of a member's client.
    Client(String),
    /// A torrent that a member's client announced.
    Torrent(InfoHash),
}

/// The most suggestions that wait for an operator, of each kind.
pub const MAX_PENDING: usize = 1000;
/// The most of them that one member may have.
pub const MAX_PENDING_BY_ONE: usize = 20;

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
    /// Seconds, of all torrents.
    pub seed_time: u64,
    /// The last announce, in seconds since 1970; 0 is never.
    pub last_seen: u32,
    /// `users.ban_reason`.
    pub ban_reason: String,
    /// Seconds since 1970.
    pub created: u32,
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
    /// Those that are not approved and that no operator has refused.
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
    ("completed", "f.completed DESC, f.id"),
    ("last-active", "COALESCE(t.seen, 0) DESC, f.id"),
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
    /// Seconds since 1970.
    pub created: u32,
    /// When a member first announced it, in seconds since 1970; 0: others registered it.
    pub suggested: u32,
    /// The name of that member, if they are still one.
    pub suggested_by: String,
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

/// A row of `whitelist`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientRow {
    /// The prefix of User-Agents or peer ids.
    pub client: String,
    /// Whether it is let in.
    pub approved: bool,
    /// Whether it is not let in, and no operator has said no.
    pub pending: bool,
    /// When a member first used it, in seconds since 1970; 0: others named it.
    pub suggested: u32,
    /// The name of that member, if they are still one.
    pub suggested_by: String,
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
            not_an_id(c, name, 0)?;
            let sql = "INSERT INTO users (username, passkey, torrent_limit, admin) VALUES (?, ?, ?, ?)";
            let values =
                [Value::Text(name), Value::Text(&passkey), Value::Int(torrent_limit.into()), Value::Int(admin.into())];
            c.execute(sql, &values).map_err(|e| taken(e, name))?;
            let id = c.last_id();
            insert_key(c, id, &api_key)?;
            Ok(id)
        })?;
        Ok(NewUser { id, passkey, api_key })
    }

    /// Users, in the order of [`USER_ORDERS`], with what they do now according to sessions that announced
    /// since `since`.
    pub fn users(&self, who: Who, order: &str, since: u32, mut sink: impl FnMut(UserRow)) -> Result<(), Error> {
        let all = || "1 = 1".to_string();
        let (who, whose) = match who {
            Who::Everybody => (all(), all()),
            Who::Banned => ("u.banned = 1".into(), all()),
            Who::Id(id) => (format!("u.id = {id}"), format!("user_id = {id}")),
        };
        // The sessions of one member are found by the torrents that they were on.
        let theirs = whose
            .replace("user_id =", "file_id IN (SELECT file_id FROM totals WHERE USER) AND user_id =")
            .replace("USER", &whose);
        let sql = format!(
            "SELECT u.id, u.username, u.admin, u.banned, u.torrent_limit, u.uploaded, u.downloaded,
                COALESCE(p.seeding, 0), COALESCE(p.leeching, 0), COALESCE(t.seed_time, 0), COALESCE(t.seen, 0),
                u.ban_reason, u.create_time FROM users u LEFT JOIN (
                SELECT user_id, COUNT(DISTINCT CASE WHEN `left` = 0 THEN file_id END) AS seeding,
                    COUNT(DISTINCT CASE WHEN `left` > 0 THEN file_id END) AS leeching
                FROM peers WHERE active = 1 AND time >= ? AND {theirs} GROUP BY user_id
            ) p ON p.user_id = u.id LEFT JOIN (
                SELECT user_id, SUM(seed_time) AS seed_time, MAX(time) AS seen FROM (
                    SELECT user_id, seed_time, time FROM peers WHERE {theirs}
                    UNION ALL SELECT user_id, seed_time, time FROM totals WHERE {whose}
                ) a GROUP BY user_id
            ) t ON t.user_id = u.id WHERE {who} ORDER BY {order}"
        );
        self.with(|c| {
            c.query(&sql, &[Value::Int(since.into())], &mut |row| {
                user_row(row).into_iter().for_each(&mut sink);
            })
        })
    }

    /// Registers a torrent as verified, or verifies it where it is there already. A known name and size are
    /// not overwritten by nothing. What was taken for a torrent by the second hash of a hybrid is removed.
    pub fn add_file(
        &self,
        info_hash: &InfoHash,
        second: Option<&InfoHash>,
        name: &str,
        size: u64,
    ) -> Result<FileRow, Error> {
        let (hash, second) = (info_hash.to_string(), second.map(InfoHash::to_string));
        let name: String = name.chars().take(255).collect();
        let insert = self.dialect.insert_ignore();
        self.transaction(|c| {
            let sql = format!("{insert} INTO files (info_hash, name, size, verified) VALUES (?, ?, ?, 1)");
            c.execute(&sql, &[Value::Text(&hash), Value::Text(&name), big(size)])?;
            if !name.is_empty() {
                let sql = "UPDATE files SET name = ?, size = ? WHERE info_hash = ?";
                c.execute(sql, &[Value::Text(&name), big(size), Value::Text(&hash)])?;
            }
            c.execute("UPDATE files SET verified = 1 WHERE info_hash = ? AND verified = 0", &[Value::Text(&hash)])?;
            let Some(second) = &second else { return Ok(()) };
            c.execute("DELETE FROM files WHERE info_hash = ?", &[Value::Text(second)])?;
            let values = [Value::Text(second), Value::Text(&hash)];
            c.execute("UPDATE files SET info_hash_v2 = ? WHERE info_hash = ?", &values).map(drop)
        })?;
        self.file_by_hash(info_hash)?.ok_or_else(|| Error::other("the torrent was removed while it was added"))
    }

    /// Torrents, in the order of [`FILE_ORDERS`], with their swarms according to sessions that announced since
    /// `since`.
    pub fn files(&self, which: Which, order: &str, since: u32, mut sink: impl FnMut(SwarmRow)) -> Result<(), Error> {
        let columns = FILE_COLUMNS.split(", ").map(|column| format!("f.{column}")).collect::<Vec<_>>().join(", ");
        let all = || "1 = 1".to_string();
        let (which, whose) = match which {
            Which::All => (all(), all()),
            Which::Pending => ("f.verified = 0 AND f.suggested >= 0".into(), all()),
            Which::Dead => ("f.verified = 1 AND COALESCE(p.seeders, 0) = 0".into(), all()),
            Which::Id(id) => (format!("f.id = {id}"), format!("file_id = {id}")),
        };
        let sql = format!(
            "SELECT {columns}, COALESCE(p.seeders, 0), COALESCE(p.leechers, 0), COALESCE(t.seen, 0), f.create_time,
                s.username FROM files f
            LEFT JOIN (
                SELECT file_id, SUM(CASE WHEN `left` = 0 THEN 1 ELSE 0 END) AS seeders,
                    SUM(CASE WHEN `left` > 0 THEN 1 ELSE 0 END) AS leechers
                FROM peers WHERE active = 1 AND time >= ? AND {whose} GROUP BY file_id
            ) p ON p.file_id = f.id LEFT JOIN (
                SELECT file_id, MAX(time) AS seen FROM (
                    SELECT file_id, time FROM peers WHERE {whose} UNION ALL SELECT file_id, time FROM totals WHERE {whose}
                ) a GROUP BY file_id
            ) t ON t.file_id = f.id LEFT JOIN users s ON s.id = f.suggested_by WHERE {which} ORDER BY {order}"
        );
        self.with(|c| {
            c.query(&sql, &[Value::Int(since.into())], &mut |row| {
                if let (Some(file), [.., suggested, _, seeders, leechers, seen, created, by]) = (file(row), row) {
                    let (seeders, leechers, last_active) = (seeders.small(), leechers.small(), seen.small());
                    let (created, suggested, suggested_by) = (created.small(), suggested.small(), by.text());
                    sink(SwarmRow { file, seeders, leechers, last_active, created, suggested, suggested_by });
                }
            })
        })
    }

    /// Approves a torrent, or refuses it. It is no suggestion any more.
    pub fn set_verified(&self, id: u32, verified: bool) -> Result<(), Error> {
        let values = [Value::Int(verified.into()), judged(verified), Value::Int(id.into())];
        let sql = "UPDATE files SET verified = ?, suggested = ? WHERE id = ?";
        self.transaction(|c| c.execute(sql, &values).map(drop))
    }

    /// Removes the torrents that wait for approval, all or those that one member announced; returns how many.
    pub fn remove_pending(&self, by: Option<u32>) -> Result<u64, Error> {
        let whose = by.map_or(String::new(), |id| format!(" AND suggested_by = {id}"));
        self.transaction(|c| c.execute(&format!("DELETE FROM files WHERE verified = 0 AND suggested >= 0{whose}"), &[]))
    }

    /// Approves all torrents that wait; returns how many.
    pub fn approve_pending(&self) -> Result<u64, Error> {
        let sql = "UPDATE files SET verified = 1, suggested = 0 WHERE verified = 0 AND suggested >= 0";
        self.transaction(|c| c.execute(sql, &[]))
    }

    /// All clients, by prefix.
    pub fn clients(&self) -> Result<Vec<ClientRow>, Error> {
        let mut clients = Vec::new();
        self.with(|c| {
            clients.clear();
            let sql = "SELECT client, approved, suggested, username FROM whitelist w
                LEFT JOIN users u ON u.id = w.suggested_by ORDER BY client";
            c.query(sql, &[], &mut |row| {
                if let [client, approved, suggested, by, ..] = row {
                    let approved = approved.int() != 0;
                    let pending = !approved && suggested.int() >= 0;
                    let (suggested, suggested_by) = (suggested.small(), by.text());
                    clients.push(ClientRow { client: client.text(), approved, pending, suggested, suggested_by });
                }
            })
        })?;
        Ok(clients)
    }

    /// Approves or denies a client, known so far or not. It is no suggestion any more, nor are those that an
    /// approved one covers.
    pub fn set_client(&self, prefix: &str, approved: bool) -> Result<(), Error> {
        let insert = self.dialect.insert_ignore();
        let values = [Value::Int(approved.into()), Value::Text(prefix)];
        self.transaction(|c| {
            c.execute(&format!("{insert} INTO whitelist (approved, client) VALUES (?, ?)"), &values)?;
            let values = [Value::Int(approved.into()), judged(approved), Value::Text(prefix)];
            c.execute("UPDATE whitelist SET approved = ?, suggested = ? WHERE client = ?", &values)?;
            if approved {
                let sql = "DELETE FROM whitelist WHERE approved = 0 AND suggested > 0 AND SUBSTR(client, 1, ?) = ?";
                c.execute(sql, &[big(prefix.chars().count() as u64), Value::Text(prefix)])?;
            }
            Ok(())
        })
    }

    /// Registers a torrent that a member announced where no operator is asked, unless it is there.
    pub fn register(&self, info_hash: &InfoHash, user: u32, now: u32) -> Result<(), Error> {
        let insert = self.dialect.insert_ignore();
        let sql = format!("{insert} INTO files (info_hash, verified, suggested, suggested_by) VALUES (?, 1, ?, ?)");
        self.with(|c| c.execute(&sql, &[Value::Text(&info_hash.to_string()), now.into(), user.into()]).map(drop))
    }

    /// Writes down what members suggested, unapproved, while fewer than [`MAX_PENDING`] of the kind wait, and fewer
    /// than [`MAX_PENDING_BY_ONE`] of the member. Returns what was not there already.
    pub fn suggest(&self, suggestions: &[(Suggestion, u32)], now: u32) -> Result<Vec<Suggestion>, Error> {
        let insert = self.dialect.insert_ignore();
        let mut new = Vec::new();
        for (suggestion, user) in suggestions {
            let (table, column, unapproved, key) = match suggestion {
                Suggestion::Client(agent) => ("whitelist", "client", "approved", agent.clone()),
                Suggestion::Torrent(hash) => ("files", "info_hash", "verified", hash.to_string()),
            };
            let (mut pending, mut own) = (0, 0);
            let inserted = self.with(|c| {
                let sql = format!(
                    "SELECT COUNT(*), COUNT(CASE WHEN suggested_by = ? THEN 1 END) FROM {table}
                     WHERE {unapproved} = 0 AND suggested >= 0"
                );
                c.query(&sql, &[(*user).into()], &mut |row| {
                    if let [all, by, ..] = row {
                        (pending, own) = (all.small::<usize>(), by.small::<usize>());
                    }
                })?;
                if pending >= MAX_PENDING || *user != 0 && own >= MAX_PENDING_BY_ONE {
                    return Ok(0);
                }
                let sql = format!("{insert} INTO {table} ({column}, suggested, suggested_by) VALUES (?, ?, ?)");
                c.execute(&sql, &[Value::Text(&key), now.into(), (*user).into()])
            })?;
            if inserted > 0 {
                new.push(suggestion.clone());
            }
        }
        Ok(new)
    }
}

/// The columns that [`Store::users`] asks for.
fn user_row(row: &[Value]) -> Option<UserRow> {
    let [id, name, admin, banned, limit, uploaded, downloaded, seeding, leeching, seed_time, seen, reason, created, ..] =
        row
    else {
        return None;
    };
    Some(UserRow {
        id: id.small(),
        name: name.text(),
        admin: admin.int() != 0,
        banned: banned.int() != 0,
        torrent_limit: limit.small(),
        uploaded: uploaded.small(),
        downloaded: downloaded.small(),
        seeding: seeding.small(),
        leeching: leeching.small(),
        seed_time: seed_time.small(),
        last_seen: seen.small(),
        ban_reason: reason.text(),
        created: created.small(),
    })
}

/// What `suggested` says of what an operator has approved or refused.
fn judged(approved: bool) -> Value<'static> {
    Value::Int(i64::from(approved) - 1)
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

/// Says of a name that exists that it does.
pub(super) fn taken(e: Error, name: &str) -> Error {
    match e.kind {
        Kind::Exists => Error { kind: Kind::Exists, message: format!("there is a user named {name} already") },
        _ => e,
    }
}

/// Keeps a user other than `own` from being called what another one is meant by: their id.
pub(super) fn not_an_id(c: &mut dyn Connection, name: &str, own: u32) -> Result<(), Error> {
    let Some(id) = name.parse::<u32>().ok().filter(|id| *id != own) else { return Ok(()) };
    let mut taken = false;
    c.query("SELECT id FROM users WHERE id = ?", &[id.into()], &mut |_| taken = true)?;
    if taken { Err(Error::other(format!("{name} is the id of another member: choose another name"))) } else { Ok(()) }
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

/// Removes a torrent, within a transaction.
pub(super) fn remove_file(c: &mut dyn Connection, id: u32) -> Result<(), Error> {
    c.execute("DELETE FROM files WHERE id = ?", &[Value::Int(id.into())])?;
    close_sessions(c, "file_id", id)
}

/// Closes the sessions of one user or torrent, by the name of the column.
pub(super) fn close_sessions(c: &mut dyn Connection, column: &str, id: u32) -> Result<(), Error> {
    let on = if column == "user_id" {
        "AND file_id IN (SELECT file_id FROM totals WHERE user_id = ?)"
    } else {
        "AND file_id = ?"
    };
    let sql = format!("UPDATE sessions SET closed = ? WHERE {column} = ? {on} AND closed = 0");
    let now = u32::try_from(crate::clock::now()).unwrap_or(u32::MAX);
    c.execute(&sql, &[now.into(), id.into(), id.into()]).map(drop)
}
