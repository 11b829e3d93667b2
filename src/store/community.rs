//! The community as a whole: its statistics, copies of it, and moving in.

use serde::{Deserialize, Serialize};

use super::keys::insert_key;
use super::pool::Store;
use super::sql::{Connection, Error, Kind, big};
use super::torrents::title;
use super::users::{User, insert_user};
use crate::torrent::InfoHash;

/// The community at a glance.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stats {
    pub members: u64,
    /// Of them, those who may not announce.
    pub banned: u64,
    /// Those that are approved, and those that wait for it.
    pub torrents: u64,
    pub pending: u64,
    /// Bytes of all that are approved.
    pub size: u64,
    /// Torrents that somebody is on, and their sessions.
    pub swarms: u64,
    pub seeders: u64,
    pub leechers: u64,
    pub snatches: u64,
    /// Bytes credited.
    pub uploaded: u64,
    pub downloaded: u64,
    /// When the books were written last, in seconds since 1970.
    pub last_written: Option<u32>,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Import {
    /// A member, who gets this API key, or none.
    User { user: User, api_key: Option<String> },
    /// A torrent, which counts as verified.
    Torrent { info_hash: InfoHash, name: String, size: u64 },
}

/// How many mistakes of an import are listed.
const MISTAKES: usize = 20;

impl Store {
    /// The community at a glance; sessions count that announced since `since`.
    pub(crate) fn stats(&self, since: u32) -> Result<Stats, Error> {
        let sql = "SELECT members, banned, torrents, pending, size, swarms, seeders, peers - seeders, snatches,
                uploaded, downloaded, last FROM
            (SELECT COUNT(*) AS members, COALESCE(SUM(banned), 0) AS banned, COALESCE(SUM(uploaded + 0.0), 0) AS uploaded,
                COALESCE(SUM(downloaded + 0.0), 0) AS downloaded FROM users) u,
            (SELECT COUNT(CASE WHEN verified = 1 THEN 1 END) AS torrents,
                COUNT(CASE WHEN verified = 0 AND suggested >= 0 THEN 1 END) AS pending,
                COALESCE(SUM(CASE WHEN verified = 1 THEN size + 0.0 END), 0) AS size, COALESCE(SUM(completed), 0) AS snatches FROM files) f,
            (SELECT COUNT(DISTINCT file_id) AS swarms, COUNT(CASE WHEN `left` = 0 THEN 1 END) AS seeders,
                COUNT(*) AS peers FROM peers WHERE active = 1 AND time >= ?) p,
            (SELECT MAX(value) AS last FROM goat WHERE name = 'written') b";
        Ok(self.row(sql, &[since.into()])?.unwrap_or_default())
    }

    /// When the books were written last, in seconds since 1970; 0 is never.
    pub(crate) fn last_written(&self) -> Result<u32, Error> {
        Ok(self.number("written")?.map_or(0, |time| time.try_into().unwrap_or(u32::MAX)))
    }

    /// Copies the whole SQLite database, as it is at this moment, into a file that is empty or missing. A
    /// tracker may run meanwhile.
    pub(crate) fn backup(&self, file: &str) -> Result<(), Error> {
        self.with(|c| c.execute("VACUUM INTO ?", &[file.into()]).map(drop))
    }

    /// Inserts all rows, each of which comes with its line, or none and says what is wrong in which line.
    pub(crate) fn import(&self, rows: &[(usize, Result<Import, String>)]) -> Result<(), Error> {
        self.transaction(|c| {
            let mut mistakes = Vec::new();
            for (line, row) in rows {
                match row.as_ref().map_err(Error::wrong).and_then(|row| insert(c, row)) {
                    Err(e) if e.kind != Kind::Wrong => return Err(e),
                    Err(e) if mistakes.len() < MISTAKES => mistakes.push(format!("line {line}: {e}")),
                    Err(_) => {
                        mistakes.push("and more".into());
                        break;
                    }
                    Ok(()) => {}
                }
            }
            if mistakes.is_empty() { Ok(()) } else { Err(Error::other(mistakes.join("\n"))) }
        })
    }
}

fn insert(c: &mut dyn Connection, row: &Import) -> Result<(), Error> {
    match row {
        Import::User { user, api_key } => {
            let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
            if !(16..=64).contains(&user.passkey.len()) || !user.passkey.bytes().all(unreserved) {
                return Err(Error::wrong("a passkey has 16 to 64 letters, digits and -._~"));
            }
            let taken = || format!("there is a user named {}, or with the same passkey, already", user.name);
            let id = insert_user(c, user).map_err(|e| e.if_exists(Kind::Wrong, taken()))?;
            api_key.iter().try_for_each(|key| insert_key(c, id, key))
        }
        Import::Torrent { info_hash, name, size } => {
            let (name, hash) = (title(name)?, info_hash.to_string());
            let sql = "INSERT INTO files (info_hash, name, size, verified) VALUES (?, ?, ?, 1)";
            let done = c.execute(sql, &[hash.as_str().into(), name.as_str().into(), big(*size)]).map(drop);
            done.map_err(|e| e.if_exists(Kind::Wrong, format!("the torrent {hash} is registered already")))
        }
    }
}
