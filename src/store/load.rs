//! What the tracker reads: everything at its start, later what others have changed and whom it does not know.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::pool::{Store, again};
use super::rows::Session;
use super::sql::{Error, Value, big};
use crate::protocol::{Addresses, Factors, addr4, addr6};
use crate::random::Rng;
use crate::torrent::{InfoHash, PeerId};

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

pub(super) const USER_COLUMNS: &str = "id, passkey, torrent_limit, banned";
pub(super) const FILE_COLUMNS: &str =
    "id, info_hash, name, size, verified, completed, upload_percent, download_percent";

fn user(row: &[Value]) -> Option<AccountRow> {
    let [id, passkey, limit, banned, ..] = row else {
        return None;
    };
    let id: u32 = id.small();
    let (passkey, banned) = (passkey.text(), banned.int() != 0);
    (id != 0).then(|| AccountRow { id, passkey, torrent_limit: limit.small(), banned })
}

pub(super) fn file(row: &[Value]) -> Option<FileRow> {
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
