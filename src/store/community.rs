//! What operators do to members and torrents, and what they ask about the community as a whole.
//!
//! Sessions are closed too, for where no tracker runs; one that runs follows the triggers and writes
//! its own.

use super::admin::{check_name, close_sessions, insert_key, not_an_id, remove_file, taken};
use super::load::{FILE_COLUMNS, FileRow, file};
use super::pool::Store;
use super::sql::{Connection, Error, Kind, Value, big};
use crate::protocol::Factors;
use crate::random::secret;
use crate::torrent::InfoHash;

/// What moved in all, of a member or of a torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes that moved.
    pub uploaded: u64,
    /// Bytes that moved.
    pub downloaded: u64,
    /// Seconds.
    pub seed_time: u64,
    /// Complete downloads.
    pub snatches: u32,
}

/// A client or an address of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The address, or how the client's peer ids begin.
    pub what: String,
    /// Seconds since 1970.
    pub last_seen: u32,
}

/// A row to import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Import {
    /// A member with their passkey.
    User { name: String, passkey: String, uploaded: u64, downloaded: u64, torrent_limit: u32 },
    /// A torrent, which counts as verified.
    Torrent { info_hash: InfoHash, name: String, size: u64 },
}

/// How many mistakes of an import are listed.
const MISTAKES: usize = 20;

impl Store {
    /// The id of the user with a name, or else with an id.
    pub fn find_user(&self, text: &str) -> Result<Option<u32>, Error> {
        let id = |row: &[Value]| row.first().map(Value::small);
        let sql = format!("SELECT id FROM users WHERE {}", self.dialect.has_name());
        let by_name = self.one(&sql, &[Value::Text(text)], id)?;
        match text.parse::<u32>() {
            Ok(number) if by_name.is_none() => {
                self.one("SELECT id FROM users WHERE id = ?", &[Value::Int(number.into())], id)
            }
            _ => Ok(by_name),
        }
    }

    /// The torrents that a text may stand for, three at most: an id, a name, or the beginning of an info hash.
    pub fn find_files(&self, text: &str) -> Result<Vec<FileRow>, Error> {
        if text.is_empty() {
            return Ok(Vec::new()); // Many may have no name.
        }
        let id = text.parse::<u32>().unwrap_or(0);
        let hex = text.len() >= 4 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let prefix = if hex { format!("{text}%") } else { "-".into() };
        let sql = format!(
            "SELECT {FILE_COLUMNS} FROM files WHERE id = ? OR info_hash LIKE ? OR name = ? ORDER BY id LIMIT 3"
        );
        let mut found = Vec::new();
        self.with(|c| {
            found.clear();
            let values = [Value::Int(id.into()), Value::Text(&prefix), Value::Text(text)];
            c.query(&sql, &values, &mut |row| found.extend(file(row)))
        })?;
        Ok(found)
    }

    /// Shuts a user out. Without a reason the one that was given before stays.
    pub fn ban(&self, id: u32, reason: Option<&str>) -> Result<(), Error> {
        self.transaction(|c| {
            self.keep_an_admin(c, id)?;
            c.execute("UPDATE users SET banned = 1 WHERE id = ?", &[id.into()])?;
            if let Some(reason) = reason {
                c.execute("UPDATE users SET ban_reason = ? WHERE id = ?", &[Value::Text(reason), id.into()])?;
            }
            close_sessions(c, "user_id", id)
        })
    }

    /// Lets a user in again.
    pub fn unban(&self, id: u32) -> Result<(), Error> {
        let sql = "UPDATE users SET banned = 0, ban_reason = '' WHERE id = ?";
        self.transaction(|c| c.execute(sql, &[id.into()]).map(drop))
    }

    /// Makes a user an administrator, or takes that back.
    pub fn set_admin(&self, id: u32, admin: bool) -> Result<(), Error> {
        self.transaction(|c| {
            if !admin {
                self.keep_an_admin(c, id)?;
            }
            c.execute("UPDATE users SET admin = ? WHERE id = ?", &[Value::Int(admin.into()), id.into()]).map(drop)
        })
    }

    /// Refuses to take away the last administrator who is not banned.
    fn keep_an_admin(&self, c: &mut dyn Connection, id: u32) -> Result<(), Error> {
        let (mut admins, mut is_one) = (0_u32, false);
        let sql = format!("SELECT id FROM users WHERE admin = 1 AND banned = 0{}", self.dialect.for_update());
        c.query(&sql, &[], &mut |row| {
            admins = admins.saturating_add(1);
            is_one |= row.first().map(Value::small) == Some(id);
        })?;
        let message = "this is the last administrator: first make another one with `goat user admin NAME on`";
        if is_one && admins == 1 { Err(Error::other(message)) } else { Ok(()) }
    }

    /// Gives a user another name.
    pub fn rename_user(&self, id: u32, name: &str) -> Result<(), Error> {
        check_name(name).map_err(Error::other)?;
        self.transaction(|c| {
            not_an_id(c, name, id)?;
            let done = c.execute("UPDATE users SET username = ? WHERE id = ?", &[Value::Text(name), id.into()]);
            done.map(drop).map_err(|e| taken(e, name))
        })
    }

    /// Gives a torrent another name.
    pub fn rename_file(&self, id: u32, name: &str) -> Result<(), Error> {
        check_title(name).map_err(Error::other)?;
        let name: String = name.chars().take(255).collect();
        let values = [Value::Text(&name), id.into()];
        self.transaction(|c| c.execute("UPDATE files SET name = ? WHERE id = ?", &values).map(drop))
    }

    /// Removes a user. What they moved stays on the torrents' accounts, under an id that nobody gets again.
    pub fn remove_user(&self, id: u32) -> Result<(), Error> {
        self.transaction(|c| {
            self.keep_an_admin(c, id)?;
            c.execute("DELETE FROM api_keys WHERE user_id = ?", &[id.into()])?;
            c.execute("DELETE FROM users WHERE id = ?", &[id.into()])?;
            close_sessions(c, "user_id", id)
        })
    }

    /// Gives a user a new passkey, and returns it.
    pub fn new_passkey(&self, id: u32) -> Result<String, Error> {
        let passkey = secret::<20>().map_err(Error::other)?;
        let values = [Value::Text(&passkey), Value::Int(id.into())];
        self.transaction(|c| c.execute("UPDATE users SET passkey = ? WHERE id = ?", &values))?;
        Ok(passkey)
    }

    /// Gives a user a new API key in place of all that they have, and returns it.
    pub fn new_api_key(&self, id: u32) -> Result<String, Error> {
        let api_key = secret::<20>().map_err(Error::other)?;
        self.transaction(|c| {
            c.execute("DELETE FROM api_keys WHERE user_id = ?", &[Value::Int(id.into())])?;
            insert_key(c, id, &api_key)
        })?;
        Ok(api_key)
    }

    /// A user's passkey.
    pub fn passkey(&self, id: u32) -> Result<String, Error> {
        let passkey = |row: &[Value]| row.first().map(Value::text);
        let found = self.one("SELECT passkey FROM users WHERE id = ?", &[Value::Int(id.into())], passkey)?;
        found.ok_or_else(|| Error::other("the user was removed meanwhile"))
    }

    /// Sets how many torrents a user may be active on; 0 is no limit.
    pub fn set_limit(&self, id: u32, limit: u32) -> Result<(), Error> {
        let values = [Value::Int(limit.into()), Value::Int(id.into())];
        self.transaction(|c| c.execute("UPDATE users SET torrent_limit = ? WHERE id = ?", &values).map(drop))
    }

    /// Adds bytes to what a user was credited; negative ones take away, down to 0. Whether more was to be taken away
    /// than was there.
    pub fn credit(&self, id: u32, uploaded: i64, downloaded: i64) -> Result<bool, Error> {
        self.transaction(|c| {
            let (mut up, mut down) = (0, 0);
            c.query("SELECT uploaded, downloaded FROM users WHERE id = ?", &[id.into()], &mut |row| {
                if let [uploaded, downloaded, ..] = row {
                    (up, down) = (uploaded.int(), downloaded.int());
                }
            })?;
            let mut cut = false;
            let mut sum = |what: &str, has: i64, more: i64| match has.checked_add(more) {
                Some(sum) => {
                    cut |= sum < 0;
                    Ok(sum.max(0))
                }
                None => Err(Error::other(format!("{what} is {has}: with {more} it is more than {}", i64::MAX))),
            };
            let (up, down) = (sum("uploaded", up, uploaded)?, sum("downloaded", down, downloaded)?);
            let values = [Value::Int(up), Value::Int(down), id.into()];
            c.execute("UPDATE users SET uploaded = ?, downloaded = ? WHERE id = ?", &values)?;
            Ok(cut)
        })
    }

    /// What a user moved of all torrents.
    pub fn user_totals(&self, id: u32) -> Result<Totals, Error> {
        self.totals("user_id", "file_id", id)
    }

    /// What members moved of a torrent, those among them who are gone.
    pub fn file_totals(&self, id: u32) -> Result<Totals, Error> {
        self.totals("file_id", "user_id", id)
    }

    fn totals(&self, whose: &str, other: &str, id: u32) -> Result<Totals, Error> {
        let sql = format!(
            "SELECT COALESCE(SUM(uploaded), 0), COALESCE(SUM(downloaded), 0), COALESCE(SUM(seed_time), 0),
            COUNT(DISTINCT CASE WHEN completed = 1 THEN {other} END) FROM files_users WHERE {whose} = ?"
        );
        let totals = self.one(&sql, &[Value::Int(id.into())], |row| {
            let [uploaded, downloaded, seed_time, snatches, ..] = row else { return None };
            Some(Totals {
                uploaded: uploaded.small(),
                downloaded: downloaded.small(),
                seed_time: seed_time.small(),
                snatches: snatches.small(),
            })
        })?;
        Ok(totals.unwrap_or_default())
    }

    /// The addresses that a user announced from, the newest first.
    pub fn user_addresses(&self, id: u32) -> Result<Vec<Seen>, Error> {
        let sql = "SELECT ip, MAX(time) FROM (
            SELECT ipv4 AS ip, time4 AS time FROM peers WHERE user_id = ? AND file_id IN (SELECT file_id FROM totals WHERE user_id = ?)
            UNION ALL SELECT ipv6, time6 FROM peers WHERE user_id = ? AND file_id IN (SELECT file_id FROM totals WHERE user_id = ?)
            ) a WHERE ip <> '' GROUP BY ip ORDER BY MAX(time) DESC, ip";
        self.seen(sql, &[id; 4], |ip| ip.address())
    }

    /// The clients that a user announced with, by the first 8 bytes of their peer ids, the newest first.
    pub fn user_clients(&self, id: u32) -> Result<Vec<Seen>, Error> {
        let sql = "SELECT SUBSTR(peer_id, 1, 8), MAX(time) FROM peers
            WHERE user_id = ? AND file_id IN (SELECT file_id FROM totals WHERE user_id = ?)
            GROUP BY SUBSTR(peer_id, 1, 8) ORDER BY MAX(time) DESC";
        self.seen(sql, &[id; 2], |id| id.bytes().escape_ascii().to_string())
    }

    fn seen(&self, sql: &str, ids: &[u32], what: impl Fn(&Value) -> String) -> Result<Vec<Seen>, Error> {
        let mut seen = Vec::new();
        self.with(|c| {
            seen.clear();
            let ids: Vec<Value> = ids.iter().map(|id| Value::from(*id)).collect();
            c.query(sql, &ids, &mut |row| {
                if let [id, time, ..] = row {
                    seen.push(Seen { what: what(id), last_seen: time.small() });
                }
            })
        })?;
        Ok(seen)
    }

    /// Removes a torrent. What members moved of it stays theirs.
    pub fn remove_file(&self, id: u32) -> Result<(), Error> {
        self.transaction(|c| remove_file(c, id))
    }

    /// Sets what is credited of the bytes that move from now on.
    pub fn set_factors(&self, id: u32, factors: Factors) -> Result<(), Error> {
        let values = [Value::Int(factors.upload.into()), Value::Int(factors.download.into()), Value::Int(id.into())];
        let sql = "UPDATE files SET upload_percent = ?, download_percent = ? WHERE id = ?";
        self.transaction(|c| c.execute(sql, &values).map(drop))
    }

    /// Forgets a client; returns whether it was there.
    pub fn remove_client(&self, prefix: &str) -> Result<bool, Error> {
        Ok(self.transaction(|c| c.execute("DELETE FROM whitelist WHERE client = ?", &[Value::Text(prefix)]))? > 0)
    }

    /// The passkey of every member who may announce, with their id and name.
    pub fn passkeys(&self) -> Result<Vec<(u32, String, String)>, Error> {
        let mut users = Vec::new();
        self.with(|c| {
            users.clear();
            c.query("SELECT id, username, passkey FROM users WHERE banned = 0 ORDER BY id", &[], &mut |row| {
                if let [id, name, passkey, ..] = row {
                    users.push((id.small(), name.text(), passkey.text()));
                }
            })
        })?;
        Ok(users)
    }

    /// The community at a glance, each number by its name; sessions count that announced since `since`.
    pub fn stats(&self, since: u32) -> Result<Vec<(&'static str, u64)>, Error> {
        const NAMES: [&str; 12] = [
            "members",
            "banned",
            "torrents",
            "pending",
            "size",
            "swarms",
            "seeders",
            "leechers",
            "snatches",
            "uploaded",
            "downloaded",
            "lastWritten",
        ];
        let sql = "SELECT members, banned, torrents, pending, size, swarms, seeders, peers - seeders, snatches,
                uploaded, downloaded, last FROM
            (SELECT COUNT(*) AS members, COALESCE(SUM(banned), 0) AS banned, COALESCE(SUM(uploaded), 0) AS uploaded,
                COALESCE(SUM(downloaded), 0) AS downloaded FROM users) u,
            (SELECT COUNT(CASE WHEN verified = 1 THEN 1 END) AS torrents,
                COUNT(CASE WHEN verified = 0 AND suggested >= 0 THEN 1 END) AS pending,
                COALESCE(SUM(CASE WHEN verified = 1 THEN size END), 0) AS size, COALESCE(SUM(completed), 0) AS snatches FROM files) f,
            (SELECT COUNT(DISTINCT file_id) AS swarms, COUNT(CASE WHEN `left` = 0 THEN 1 END) AS seeders,
                COUNT(*) AS peers FROM peers WHERE active = 1 AND time >= ?) p,
            (SELECT COALESCE(MAX(value), 0) AS last FROM goat WHERE name = 'written') b";
        let named = |row: &[Value]| Some(NAMES.into_iter().zip(row.iter().map(Value::small)).collect());
        Ok(self.one(sql, &[Value::Int(since.into())], named)?.unwrap_or_default())
    }

    /// When the books were written last, in seconds since 1970; 0 is never.
    pub fn last_written(&self) -> Result<u32, Error> {
        let time = |row: &[Value]| row.first().map(Value::small);
        Ok(self.one("SELECT value FROM goat WHERE name = 'written'", &[], time)?.unwrap_or(0))
    }

    /// Copies the whole SQLite database, as it is at this moment, into a file that is empty or missing. A
    /// tracker may run meanwhile.
    pub fn backup(&self, file: &str) -> Result<(), Error> {
        self.with(|c| c.execute("VACUUM INTO ?", &[Value::Text(file)]).map(drop))
    }

    /// Inserts all rows, each of which comes with its line, or none and says what is wrong in which line. Calls
    /// `progress` with the number of rows done.
    pub fn import(
        &self,
        rows: &[(usize, Result<Import, String>)],
        mut progress: impl FnMut(usize),
    ) -> Result<(), Error> {
        self.transaction(|c| {
            let mut mistakes = Vec::new();
            for (done, (line, row)) in rows.iter().enumerate() {
                progress(done);
                match row.as_ref().map_err(String::clone).and_then(|row| insert(c, row)) {
                    Err(message) if mistakes.len() < MISTAKES => mistakes.push(format!("line {line}: {message}")),
                    Err(_) => {
                        mistakes.push("and more".into());
                        break;
                    }
                    Ok(done) => done?,
                }
            }
            progress(rows.len());
            if mistakes.is_empty() { Ok(()) } else { Err(Error::other(mistakes.join("\n"))) }
        })
    }
}

/// Whether a torrent can be called so.
fn check_title(name: &str) -> Result<(), String> {
    if name.contains(char::is_control) { Err("the name of a torrent has no control characters".into()) } else { Ok(()) }
}

/// Inserts one row. The outer error is a mistake in a line, the inner one trouble with the database.
fn insert(c: &mut dyn Connection, row: &Import) -> Result<Result<(), Error>, String> {
    let (done, taken) = match row {
        Import::User { name, passkey, uploaded, downloaded, torrent_limit } => {
            check_name(name)?;
            if let Err(e) = not_an_id(c, name, 0) {
                return Err(e.message);
            }
            let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
            if !(8..=64).contains(&passkey.len()) || !passkey.bytes().all(unreserved) {
                return Err("a passkey has 8 to 64 letters, digits and -._~".into());
            }
            let sql =
                "INSERT INTO users (username, passkey, uploaded, downloaded, torrent_limit) VALUES (?, ?, ?, ?, ?)";
            let (uploaded, downloaded) = (big(*uploaded), big(*downloaded));
            let limit = Value::Int((*torrent_limit).into());
            let done = c.execute(sql, &[Value::Text(name), Value::Text(passkey), uploaded, downloaded, limit]);
            (done, format!("there is a user named {name}, or with the same passkey, already"))
        }
        Import::Torrent { info_hash, name, size } => {
            check_title(name)?;
            let name: String = name.chars().take(255).collect();
            let hash = info_hash.to_string();
            let sql = "INSERT INTO files (info_hash, name, size, verified) VALUES (?, ?, ?, 1)";
            let done = c.execute(sql, &[Value::Text(&hash), Value::Text(&name), big(*size)]);
            (done, format!("the torrent {hash} is registered already"))
        }
    };
    match done {
        Err(e) if e.kind == Kind::Exists => Err(taken),
        done => Ok(done.map(drop)),
    }
}
