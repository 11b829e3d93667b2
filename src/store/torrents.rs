//! Torrents: what is listed of them, and what operators do to them.

use std::collections::HashSet;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};

use super::clients::decision;
use super::list::{OF_FILE, Order, Page, Source, joined};
use super::pool::Store;
use super::search::Search;
use super::sql::{Error, Value, big};
use super::users::close_sessions;
use crate::protocol::{Factors, Free};
use crate::torrent::InfoHash;
use crate::torrent::metainfo::File;

/// A row of `files`. The order is that of the original's API.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Torrent {
    pub id: u32,
    pub info_hash: InfoHash,
    /// An operator has approved it.
    pub verified: bool,
    /// Seconds since 1970.
    pub create_time: u32,
    pub update_time: u32,
    /// Snatches.
    pub completed: u32,
    /// Sessions in the swarm.
    #[serde(skip_deserializing)]
    pub seeders: u32,
    #[serde(skip_deserializing)]
    pub leechers: u32,
    /// Where one torrent alone is shown: its members.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub file_users: Option<Vec<FileUser>>,
    /// Nothing where only the hash is known.
    pub name: String,
    /// Bytes, or 0 where only the hash is known.
    pub size: u64,
    /// What is credited of the bytes that move.
    pub upload_percent: u16,
    pub download_percent: u16,
    /// When a member first announced it, in seconds since 1970; `None`: others registered it.
    pub suggested: Option<u32>,
    /// The name of that member, if they are still one; `None` for whom it is none of their business.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggested_by: Option<String>,
    /// An operator has refused it.
    #[serde(skip_serializing)]
    pub refused: bool,
    /// The other hash of a hybrid (BEP 52).
    #[serde(skip_serializing, deserialize_with = "perhaps")]
    pub second: Option<InfoHash>,
    /// How many files it has, and who gave it, where goat was given it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uploader: Option<String>,
    /// Why an operator has refused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
    /// The member who asks has announced it, or has given it.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub mine: Option<bool>,
    /// Where one torrent alone is shown.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<File>>,
    #[serde(flatten, skip_deserializing)]
    pub activity: Option<FileActivity>,
}

/// What members have done on a torrent, those among them who are gone.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileActivity {
    /// The last announce, in seconds since 1970.
    pub last_active: Option<u32>,
    /// Bytes that moved.
    pub uploaded: u64,
    pub downloaded: u64,
    /// Seconds.
    pub seed_time: u64,
}

/// A row of `files_users`: what a member has done on a torrent.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileUser {
    pub file_id: u32,
    pub user_id: u32,
    #[serde(deserialize_with = "address")]
    pub ip: String,
    pub active: bool,
    pub completed: bool,
    /// How often.
    pub announced: u64,
    /// Bytes that moved, and those that the last announce still wanted.
    pub uploaded: u64,
    pub downloaded: u64,
    pub left: u64,
    /// The last announce, in seconds since 1970.
    pub time: u32,
    /// Seconds.
    pub seed_time: u64,
    /// Who it is, where a torrent's members are listed for administrators.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
    /// Of the torrent, where a member's torrents are listed.
    #[serde(flatten, skip_deserializing)]
    pub file: Option<FileName>,
}

/// By what people know a torrent.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileName {
    pub name: String,
    pub info_hash: InfoHash,
    /// Bytes.
    pub size: u64,
}

pub(super) const FILE_COLUMNS: &str = "id, info_hash, verified, create_time, update_time, completed, name, size, \
    upload_percent, download_percent, CASE WHEN suggested > 0 THEN suggested END, \
    COALESCE(CASE WHEN suggested_by > 0 THEN (SELECT username FROM users WHERE users.id = suggested_by) END, ''), verified = 0 AND suggested < 0, info_hash_v2, \
    (SELECT files FROM torrents WHERE file_id = files.id), \
    (SELECT username FROM torrents t JOIN users u ON u.id = t.user_id WHERE t.file_id = files.id), \
    NULLIF(refusal, '')";
const FILE_USER_COLUMNS: &str = "t.file_id, t.user_id, t.ip, t.active, t.completed, t.announced, t.uploaded, \
    t.downloaded, t.`left`, t.time, t.seed_time";
/// The columns of a torrent without those that memory is not asked for.
pub(super) const LOADED: &str = "id, info_hash, verified, 0, 0, completed, '', 0, upload_percent, download_percent, \
    NULL, NULL, verified = 0 AND suggested < 0, info_hash_v2";

/// The columns of a swarm, and of [`FileActivity`].
const ACTIVITY: &str =
    "COALESCE(seeding, 0), COALESCE(leeching, 0), seen, COALESCE(moved_up, 0), COALESCE(moved_down, 0),
    COALESCE(seed_time, 0)";

/// The order of a member's torrents: the one announced last comes first.
pub(crate) const BY_TIME: Order = Order::new("time", "t.time", true);
pub(crate) const FILE_ORDERS: [Order; 7] = [
    Order::new("id", "id", false),
    Order::new("name", "name", false),
    Order::new("size", "size", true),
    Order::new("completed", "completed", true),
    Order::new("createTime", "create_time", false),
    Order::new("updateTime", "update_time", false),
    // Memory knows these; the database has no such order.
    Order::new("peers", "id", true),
];
/// By what else, where the swarms are asked for.
pub(crate) const SWARM_ORDERS: [Order; 3] = [
    Order::new("seeders", "COALESCE(seeding, 0)", true),
    Order::new("leechers", "COALESCE(leeching, 0)", true),
    Order::new("last-active", "COALESCE(seen, 0)", true),
];

#[derive(Clone, Copy)]
pub(crate) enum Which<'a> {
    All,
    Found(&'a Search),
    /// Those that are not approved and that no operator has refused.
    Pending,
    /// The approved ones that nobody seeds now.
    Dead,
    /// Some, by `files.id`.
    Ids(&'a [u32]),
}

/// So many ids are looked up together, so that few different statements are made.
const IDS: usize = 1_000;

impl Store {
    /// Calls `sink` for some torrents; with their swarms, if that is asked for, according to sessions that announced
    /// since a time in seconds since 1970.
    pub(crate) fn files(
        &self,
        which: Which,
        page: &Page,
        since: Option<u32>,
        mut sink: impl FnMut(Torrent),
    ) -> Result<(), Error> {
        let (filter, wanted) = filter(which);
        let one = if let Which::Ids([id]) = which { Some(*id) } else { None };
        let (columns, tables, mut values) = joined("files", (FILE_COLUMNS, ACTIVITY), one, since);
        values.extend(wanted);
        let from = format!("{tables} WHERE {filter}");
        let source = Source { columns: &columns, from: &from, values: &values, id: "files.id" };
        self.list(&source, page, |(torrent, swarm): (Torrent, Option<(u32, u32, FileActivity)>)| {
            sink(match swarm {
                Some((seeders, leechers, done)) => Torrent { seeders, leechers, activity: Some(done), ..torrent },
                None => torrent,
            })
        })
    }

    /// The ids of some torrents. Few of many are found faster by these than with all columns.
    pub(crate) fn file_ids(&self, which: Which, page: &Page) -> Result<Vec<u32>, Error> {
        let (filter, values) = filter(which);
        let from = format!("files WHERE {filter}");
        let source = Source { columns: "files.id", from: &from, values: &values, id: "files.id" };
        let mut ids = Vec::new();
        self.list(&source, page, |id| ids.push(id))?;
        Ok(ids)
    }

    /// Which of some torrents a member has announced or given.
    pub(crate) fn theirs(&self, user: u32, ids: &[u32]) -> Result<HashSet<u32>, Error> {
        let (filter, mut values) = filter(Which::Ids(ids));
        let search = Search { mine: Some(user), ..Search::default() };
        let (mine, whose) = search.condition();
        values.extend(whose);
        let found = self.rows(&format!("SELECT id FROM files WHERE {filter} AND {mine}"), &values)?;
        Ok(found.into_iter().collect())
    }

    pub(crate) fn file_by_hash(&self, info_hash: &InfoHash) -> Result<Option<Torrent>, Error> {
        let sql = format!("SELECT {FILE_COLUMNS} FROM files WHERE info_hash = ?");
        self.row(&sql, &[Value::Text(&info_hash.to_string())])
    }

    #[cfg(feature = "redis")]
    pub(crate) fn file_by_id(&self, id: u32) -> Result<Option<Torrent>, Error> {
        self.row(&format!("SELECT {FILE_COLUMNS} FROM files WHERE id = ?"), &[id.into()])
    }

    /// The torrent with an info hash, be it the second one.
    pub(crate) fn file_by_either_hash(&self, info_hash: &InfoHash) -> Result<Option<Torrent>, Error> {
        let sql = format!("SELECT {FILE_COLUMNS} FROM files WHERE info_hash_v2 = ?");
        Ok(self.file_by_hash(info_hash)?.or(self.row(&sql, &[Value::Text(&info_hash.to_string())])?))
    }

    /// The torrents that a text may stand for, three at most: an id, a name, or the beginning of an info hash.
    pub(crate) fn find_files(&self, text: &str) -> Result<Vec<Torrent>, Error> {
        if text.is_empty() {
            return Ok(Vec::new()); // Many may have no name.
        }
        let hex = text.len() >= 4 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let prefix = if hex { format!("{text}%") } else { "-".into() };
        let sql = format!(
            "SELECT {FILE_COLUMNS} FROM files WHERE id = ? OR info_hash LIKE ? OR name = ? ORDER BY id LIMIT 3"
        );
        self.rows(&sql, &[text.parse().unwrap_or(0).into(), prefix.as_str().into(), text.into()])
    }

    /// The members of a torrent, or one of them.
    pub(crate) fn file_users(&self, file: u32, only: Option<u32>, page: &Page) -> Result<Vec<FileUser>, Error> {
        let from = match only {
            None => "files_users t WHERE t.file_id = ?",
            Some(_) => "files_users t WHERE t.file_id = ? AND t.user_id = ?",
        };
        let values: Vec<Value> = std::iter::once(file).chain(only).map(Value::from).collect();
        let columns = format!("{FILE_USER_COLUMNS}, (SELECT username FROM users WHERE users.id = t.user_id)");
        let source = Source { columns: &columns, from, values: &values, id: "t.user_id" };
        let mut found = Vec::new();
        self.list(&source, page, |(row, user_name): (FileUser, _)| found.push(FileUser { user_name, ..row }))?;
        Ok(found)
    }

    pub(crate) fn user_files(&self, user: u32, page: &Page) -> Result<Vec<FileUser>, Error> {
        let columns = format!("{FILE_USER_COLUMNS}, f.name, f.info_hash, f.size");
        let from = "files_users t JOIN files f ON f.id = t.file_id WHERE t.user_id = ?";
        let source = Source { columns: &columns, from, values: &[user.into()], id: "t.file_id" };
        let mut found = Vec::new();
        self.list(&source, page, |(row, file): (FileUser, _)| found.push(FileUser { file, ..row }))?;
        Ok(found)
    }

    /// Registers a torrent as verified, or verifies it where it is there already. A known name and size are
    /// not overwritten by nothing. What was taken for a torrent by the second hash of a hybrid is removed.
    pub fn add_file(
        &self,
        info_hash: &InfoHash,
        second: Option<&InfoHash>,
        name: &str,
        size: u64,
    ) -> Result<Torrent, Error> {
        let hash = info_hash.to_string();
        let second = second.map(InfoHash::to_string);
        let name: String = name.chars().take(MAX_TITLE).collect();
        let insert = self.dialect.insert_ignore();
        self.transaction(|c| {
            let hash = Value::Text(&hash);
            let sql = format!("{insert} INTO files (info_hash, name, size, verified) VALUES (?, ?, ?, 1)");
            c.execute(&sql, &[hash, name.as_str().into(), big(size)])?;
            if !name.is_empty() {
                let sql = "UPDATE files SET name = ?, size = ? WHERE info_hash = ?";
                c.execute(sql, &[name.as_str().into(), big(size), hash])?;
            }
            let sql = "UPDATE files SET verified = 1, refusal = '', suggested = CASE WHEN suggested > 0 THEN suggested ELSE 0 END
                WHERE info_hash = ? AND verified = 0";
            c.execute(sql, &[hash])?;
            let Some(second) = &second else { return Ok(()) };
            c.execute("DELETE FROM files WHERE info_hash = ?", &[Value::Text(second)])?;
            let sql = "UPDATE files SET info_hash_v2 = ? WHERE info_hash = ?";
            c.execute(sql, &[Value::Text(second), hash]).map(drop)
        })?;
        self.file_by_hash(info_hash)?.ok_or_else(|| Error::other("the torrent was removed while it was added"))
    }

    /// Registers a torrent that a member announced where no operator is asked, unless it is there.
    pub(crate) fn register(&self, info_hash: &InfoHash, user: u32, now: u32) -> Result<(), Error> {
        let insert = self.dialect.insert_ignore();
        let sql = format!("{insert} INTO files (info_hash, verified, suggested, suggested_by) VALUES (?, 1, ?, ?)");
        self.with(|c| c.execute(&sql, &[Value::Text(&info_hash.to_string()), now.into(), user.into()]).map(drop))
    }

    /// Approves a torrent, or refuses it for a reason. It is no suggestion any more.
    pub(crate) fn set_verified(&self, id: u32, verified: bool, reason: &str) -> Result<(), Error> {
        let values = [verified.into(), decision(verified), reason.into(), id.into()];
        self.write("UPDATE files SET verified = ?, suggested = ?, refusal = ? WHERE id = ?", &values).map(drop)
    }

    /// Removes the torrents that wait for approval, all or those that one member announced; returns how many.
    pub(crate) fn remove_pending(&self, by: Option<u32>) -> Result<u64, Error> {
        let whose = by.map_or(String::new(), |id| format!(" AND suggested_by = {id}"));
        self.write(&format!("DELETE FROM files WHERE {PENDING}{whose}"), &[])
    }

    /// Approves all torrents that wait; returns how many.
    pub fn approve_pending(&self) -> Result<u64, Error> {
        self.write(&format!("UPDATE files SET verified = 1, suggested = 0 WHERE {PENDING}"), &[])
    }

    pub(crate) fn rename_file(&self, id: u32, name: &str) -> Result<(), Error> {
        let name = title(name)?;
        self.write("UPDATE files SET name = ? WHERE id = ?", &[name.as_str().into(), id.into()]).map(drop)
    }

    /// Removes a torrent. What members moved of it stays theirs.
    pub(crate) fn remove_file(&self, id: u32) -> Result<(), Error> {
        self.transaction(|c| {
            c.execute("DELETE FROM files WHERE id = ?", &[id.into()])?;
            close_sessions(c, OF_FILE, id)
        })
    }

    /// Sets what is credited of the bytes that move from now on.
    pub(crate) fn set_factors(&self, id: u32, factors: Factors) -> Result<(), Error> {
        let values = [u32::from(factors.upload).into(), u32::from(factors.download).into(), id.into()];
        self.write("UPDATE files SET upload_percent = ?, download_percent = ? WHERE id = ?", &values).map(drop)
    }

    /// What is credited of all torrents, as [`Free::pack`] gives it.
    pub fn free(&self) -> Result<u64, Error> {
        Ok(self.number("free")?.unwrap_or(0))
    }

    /// Sets what is credited of all torrents from now on.
    pub(crate) fn set_free(&self, free: Free) -> Result<(), Error> {
        self.write("REPLACE INTO goat (name, value) VALUES ('free', ?)", &[big(free.pack())]).map(drop)
    }
}

impl Torrent {
    /// Has the percentages say what is credited while all torrents are credited more.
    pub(crate) fn improve(&mut self, free: Option<Free>) {
        let own = Factors { upload: self.upload_percent, download: self.download_percent };
        let Factors { upload, download } = free.map_or(own, |free| own.better(free.factors));
        (self.upload_percent, self.download_percent) = (upload, download);
    }
}

/// Which torrents wait for approval, which an operator has approved, and which none has refused.
const PENDING: &str = "verified = 0 AND suggested >= 0";
pub(crate) const VERIFIED: &str = "verified = 1";
pub(crate) const NOT_REFUSED: &str = "(verified = 1 OR suggested >= 0)";
/// The longest name that is kept, in characters.
pub(super) const MAX_TITLE: usize = 255;

/// A condition, and the values for which it asks.
fn filter(which: Which<'_>) -> (String, Vec<Value<'_>>) {
    let condition = match which {
        Which::All => "1 = 1",
        Which::Found(search) => return search.condition(),
        Which::Pending => PENDING,
        Which::Dead => "verified = 1 AND COALESCE(seeding, 0) = 0",
        Which::Ids([id]) => return ("files.id = ?".into(), vec![(*id).into()]),
        Which::Ids(ids) => {
            let padding = std::iter::repeat_n(0, IDS.saturating_sub(ids.len()));
            let ids: Vec<Value> = ids.iter().copied().chain(padding).map(Value::from).collect();
            return (format!("files.id IN ({})", vec!["?"; ids.len()].join(", ")), ids);
        }
    };
    (condition.into(), Vec::new())
}

/// What is kept of a torrent's name, if that can be one.
pub(super) fn title(name: &str) -> Result<String, Error> {
    if name.contains(char::is_control) {
        return Err(Error::wrong("the name of a torrent cannot have control characters"));
    }
    Ok(name.chars().take(MAX_TITLE).collect())
}

/// An IP address as it is usually written.
pub(super) fn usual(address: String) -> String {
    address.parse::<IpAddr>().map_or(address, |ip| ip.to_string())
}

/// The same for a field of a struct.
fn address<'de, D: Deserializer<'de>>(column: D) -> Result<String, D::Error> {
    String::deserialize(column).map(usual)
}

/// Something that may be missing or wrong, for a field of a struct.
fn perhaps<'de, D: Deserializer<'de>, T: std::str::FromStr>(column: D) -> Result<Option<T>, D::Error> {
    Ok(String::deserialize(column)?.parse().ok())
}
