//! Members: what is listed of them, and what operators do to them.
//!
//! Sessions are closed too, for where no tracker runs; one that runs follows the triggers and writes its own.

use serde::{Deserialize, Serialize};

use super::keys::replace_key;
use super::list::{OF_USER, Order, Page, Source, joined};
use super::pool::Store;
use super::row::rows;
use super::sql::{Connection, Error, Kind, Value, big};
use super::torrents::usual;
use crate::config::command;
use crate::random::{secret, unhex};

/// A row of `users`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    pub id: u32,
    pub name: String,
    /// The name once more, as the API has always called it.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// What the announce URLs contain.
    #[serde(skip_serializing)]
    pub passkey: String,
    /// Sees everything through the API.
    pub admin: bool,
    /// May not announce.
    pub banned: bool,
    /// The most torrents to be active on; 0 is no limit.
    pub torrent_limit: u32,
    /// Bytes credited.
    pub uploaded: u64,
    pub downloaded: u64,
    /// Seconds since 1970.
    pub create_time: u32,
    pub ban_reason: String,
    /// Whose invitation they have followed, by `users.id`, as far as that is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invited_by: Option<u32>,
    /// How many invitations they may give, with those that are open.
    #[serde(skip_serializing)]
    pub invitations: u32,
    /// `uploaded` to `downloaded`, where there is something downloaded.
    #[serde(skip_deserializing)]
    pub ratio: Option<f64>,
    /// Torrents active on now, if memory was asked.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub active: Option<u32>,
    #[serde(flatten, skip_deserializing)]
    pub activity: Option<Activity>,
}

/// What a member has done on all torrents together.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Activity {
    /// Torrents seeded and leeched now.
    pub seeding: u32,
    pub leeching: u32,
    /// Torrents downloaded completely.
    pub snatches: u32,
    /// Seconds, all torrents added up.
    pub seed_time: u64,
    /// The last announce, in seconds since 1970.
    pub last_seen: Option<u32>,
    /// Bytes that moved.
    pub raw_uploaded: u64,
    pub raw_downloaded: u64,
}

pub(super) const USER_COLUMNS: &str = "id, username, passkey, admin, banned, torrent_limit, uploaded, downloaded, create_time, ban_reason, \
    NULLIF(invited_by, 0), invitations";
/// The columns of [`Activity`].
const ACTIVITY: &str =
    "COALESCE(seeding, 0), COALESCE(leeching, 0), COALESCE(snatches, 0), COALESCE(seed_time, 0), seen,
    COALESCE(moved_up, 0), COALESCE(moved_down, 0)";

pub(crate) const USER_ORDERS: [Order; 6] = [
    Order::new("id", "id", false),
    Order::new("name", "username", false),
    Order::new("uploaded", "uploaded", true),
    Order::new("downloaded", "downloaded", true),
    // Who has downloaded nothing has an infinite ratio, or none.
    Order::new(
        "ratio",
        "CASE WHEN downloaded > 0 THEN 1.0 * uploaded / downloaded WHEN uploaded > 0 THEN 1e300 ELSE -1.0 END",
        true,
    ),
    Order::new("createTime", "create_time", false),
];

#[derive(Clone, Copy)]
pub(crate) enum Who<'a> {
    Everybody,
    /// Those in whose name this stands.
    Called(&'a str),
    Banned,
    /// One, by `users.id`.
    Id(u32),
}

/// A user just made, with the secrets that are shown once.
#[derive(Clone, Debug)]
pub struct NewUser {
    pub id: u32,
    /// What the announce URLs contain: 40 hex digits.
    pub passkey: String,
    /// The key to the API: 40 hex digits, or nothing where it is not known. The database keeps only its hash.
    pub api_key: String,
}

/// The longest user name, in characters.
const MAX_NAME: usize = 64;

impl Store {
    pub(crate) fn has_users(&self) -> Result<bool, Error> {
        Ok(self.row::<u32>("SELECT id FROM users LIMIT 1", &[])?.is_some())
    }

    /// Makes a user with a new passkey and API key.
    pub fn add_user(&self, name: &str, torrent_limit: u32, admin: bool) -> Result<NewUser, Error> {
        let user = User { name: name.into(), torrent_limit, admin, ..User::default() };
        self.transaction(|c| new_user(c, &user))
    }

    /// Calls `sink` for some users; with what they do, if that is asked for, according to sessions that announced since
    /// a time in seconds since 1970.
    pub(crate) fn users(
        &self,
        who: Who,
        page: &Page,
        since: Option<u32>,
        mut sink: impl FnMut(User),
    ) -> Result<(), Error> {
        let (filter, one) = match who {
            Who::Everybody => ("1 = 1", None),
            Who::Called(_) => ("INSTR(LOWER(username), LOWER(?)) > 0", None),
            Who::Banned => ("banned = 1", None),
            Who::Id(id) => ("users.id = ?", Some(id)),
        };
        let (columns, tables, mut values): (_, _, Vec<Value>) = joined("users", (USER_COLUMNS, ACTIVITY), one, since);
        values.extend(one.map(Value::from));
        values.extend(if let Who::Called(text) = who { Some(Value::Text(text)) } else { None });
        let from = format!("{tables} WHERE {filter}");
        let source = Source { columns: &columns, from: &from, values: &values, id: "users.id" };
        self.list(&source, page, |(user, activity): (User, _)| {
            sink(User { ratio: ratio(user.uploaded, user.downloaded), activity, ..user });
        })
    }

    pub(crate) fn user_by_id(&self, id: u32) -> Result<Option<User>, Error> {
        self.row(&format!("SELECT {USER_COLUMNS} FROM users WHERE id = ?"), &[id.into()])
    }

    pub fn user_by_passkey(&self, passkey: &str) -> Result<Option<User>, Error> {
        self.row(&format!("SELECT {USER_COLUMNS} FROM users WHERE passkey = ?"), &[passkey.into()])
    }

    /// The id of the user with a name, or else with an id.
    pub(crate) fn find_user(&self, text: &str) -> Result<Option<u32>, Error> {
        let sql = format!("SELECT id FROM users WHERE {}", self.dialect.has_name());
        let by_name = self.row(&sql, &[text.into()])?;
        match text.parse() {
            Ok(id) if by_name.is_none() => Ok(self.user_by_id(id)?.map(|user| user.id)),
            _ => Ok(by_name),
        }
    }

    /// The addresses that a user announced from and when they did last, in seconds since 1970; the newest first.
    pub(crate) fn user_addresses(&self, id: u32) -> Result<Vec<(u32, String)>, Error> {
        let sql = format!(
            "SELECT MAX(time), ip FROM (SELECT ipv4 AS ip, time4 AS time FROM peers WHERE {OF_USER}
             UNION ALL SELECT ipv6, time6 FROM peers WHERE {OF_USER}) a
             WHERE ip <> '' GROUP BY ip ORDER BY MAX(time) DESC, ip"
        );
        let seen: Vec<(u32, String)> = self.rows(&sql, &[id.into(); 4])?;
        Ok(seen.into_iter().map(|(time, ip)| (time, usual(ip))).collect())
    }

    /// The clients that a user announced with, by the first 8 bytes of their peer ids, likewise.
    pub(crate) fn user_clients(&self, id: u32) -> Result<Vec<(u32, String)>, Error> {
        let sql = format!(
            "SELECT MAX(time), HEX(SUBSTR(peer_id, 1, 8)) FROM peers WHERE {OF_USER}
             GROUP BY SUBSTR(peer_id, 1, 8) ORDER BY MAX(time) DESC"
        );
        let seen: Vec<(u32, String)> = self.rows(&sql, &[id.into(); 2])?;
        let client = |hex: String| unhex(&hex).unwrap_or_default().escape_ascii().to_string();
        Ok(seen.into_iter().map(|(time, hex)| (time, client(hex))).collect())
    }

    /// Shuts a user out. Without a reason the one that was given before stays.
    pub(crate) fn ban(&self, id: u32, reason: Option<&str>) -> Result<(), Error> {
        self.transaction(|c| {
            self.keep_an_admin(c, id)?;
            let sql = "UPDATE users SET banned = 1, ban_reason = COALESCE(?, ban_reason) WHERE id = ?";
            c.execute(sql, &[reason.map_or(Value::Null, Value::Text), id.into()])?;
            close_sessions(c, OF_USER, id)
        })
    }

    pub(crate) fn unban(&self, id: u32) -> Result<(), Error> {
        self.write("UPDATE users SET banned = 0, ban_reason = '' WHERE id = ?", &[id.into()]).map(drop)
    }

    pub(crate) fn set_admin(&self, id: u32, admin: bool) -> Result<(), Error> {
        self.transaction(|c| {
            if !admin {
                self.keep_an_admin(c, id)?;
            }
            c.execute("UPDATE users SET admin = ? WHERE id = ?", &[admin.into(), id.into()]).map(drop)
        })
    }

    /// Refuses to take away the last administrator who is not banned.
    fn keep_an_admin(&self, c: &mut dyn Connection, id: u32) -> Result<(), Error> {
        let sql = format!("SELECT id FROM users WHERE admin = 1 AND banned = 0{}", self.dialect.for_update());
        if rows::<u32>(c, &sql, &[])? != [id] {
            return Ok(());
        }
        let advice = format!("first make another one with `{}`", command("user admin NAME on"));
        Err(Error::wrong(format!("this is the last administrator: {advice}")))
    }

    pub(crate) fn rename_user(&self, id: u32, name: &str) -> Result<(), Error> {
        self.transaction(|c| {
            check_name(c, name, id)?;
            let done = c.execute("UPDATE users SET username = ? WHERE id = ?", &[name.into(), id.into()]);
            done.map(drop).map_err(|e| taken(e, name))
        })
    }

    /// Removes a user. What they moved stays on the torrents' accounts, under an id that nobody gets again.
    pub(crate) fn remove_user(&self, id: u32) -> Result<(), Error> {
        self.transaction(|c| {
            self.keep_an_admin(c, id)?;
            c.execute("DELETE FROM api_keys WHERE user_id = ?", &[id.into()])?;
            c.execute("DELETE FROM passwords WHERE user_id = ?", &[id.into()])?;
            c.execute("DELETE FROM invitations WHERE by_id = ? OR user_id = ?", &[id.into(); 2])?;
            c.execute("DELETE FROM users WHERE id = ?", &[id.into()])?;
            close_sessions(c, OF_USER, id)
        })
    }

    pub(crate) fn new_passkey(&self, id: u32) -> Result<String, Error> {
        let passkey = secret::<20>().map_err(Error::other)?;
        self.write("UPDATE users SET passkey = ? WHERE id = ?", &[passkey.as_str().into(), id.into()])?;
        Ok(passkey)
    }

    pub(crate) fn set_limit(&self, id: u32, limit: u32) -> Result<(), Error> {
        self.write("UPDATE users SET torrent_limit = ? WHERE id = ?", &[limit.into(), id.into()]).map(drop)
    }

    /// Adds bytes to what a user was credited; negative ones take away, down to 0. Whether more was to be taken away
    /// than was there.
    pub(crate) fn credit(&self, id: u32, uploaded: i64, downloaded: i64) -> Result<bool, Error> {
        self.transaction(|c| {
            let sql = format!("SELECT uploaded, downloaded FROM users WHERE id = ?{}", self.dialect.for_update());
            let (up, down) = rows::<(i64, i64)>(c, &sql, &[id.into()])?.pop().unwrap_or_default();
            let sum = |what: &str, has: i64, more: i64| {
                let much = || Error::wrong(format!("{what} is {has}: {more} more would exceed {}", i64::MAX));
                has.checked_add(more).ok_or_else(much)
            };
            let up = sum("uploaded", up, uploaded)?;
            let down = sum("downloaded", down, downloaded)?;
            let values = [Value::Int(up.max(0)), Value::Int(down.max(0)), id.into()];
            c.execute("UPDATE users SET uploaded = ?, downloaded = ? WHERE id = ?", &values)?;
            Ok(up < 0 || down < 0)
        })
    }
}

/// Makes a user with a new passkey and API key.
pub(super) fn new_user(c: &mut dyn Connection, user: &User) -> Result<NewUser, Error> {
    let passkey = secret::<20>().map_err(Error::other)?;
    let id = insert_user(c, &User { passkey: passkey.clone(), ..user.clone() })?;
    Ok(NewUser { id, passkey, api_key: replace_key(c, id)? })
}

pub(super) fn insert_user(c: &mut dyn Connection, user: &User) -> Result<u32, Error> {
    let User { name, passkey, admin, banned, torrent_limit, uploaded, downloaded, invited_by, .. } = user;
    check_name(c, name, 0)?;
    let texts = [name.as_str().into(), passkey.as_str().into()];
    let rules = [(*admin).into(), (*banned).into(), (*torrent_limit).into(), invited_by.unwrap_or(0).into()];
    let sql = "INSERT INTO users (username, passkey, admin, banned, torrent_limit, invited_by, uploaded, downloaded)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    c.execute(sql, &[&texts[..], &rules, &[big(*uploaded), big(*downloaded)]].concat()).map_err(|e| taken(e, name))?;
    Ok(c.last_id())
}

/// To three places; `None` where nothing was downloaded.
fn ratio(uploaded: u64, downloaded: u64) -> Option<f64> {
    (downloaded > 0).then(|| (uploaded as f64 / downloaded as f64 * 1000.0).round() / 1000.0)
}

/// Whether somebody, or the one with an id, can be called so: not what another one is meant by, their id.
pub(super) fn check_name(c: &mut dyn Connection, name: &str, own: u32) -> Result<(), Error> {
    let length = name.chars().count();
    if length == 0 || length > MAX_NAME || name.chars().any(|c| c.is_control() || c == ':') || name.trim() != name {
        return Err(Error::wrong(format!(
            "a user name has 1 to {MAX_NAME} characters, no control characters, no colon, and no space at either end"
        )));
    }
    let Some(id) = name.parse::<u32>().ok().filter(|id| *id != own) else { return Ok(()) };
    let found: Vec<u32> = rows(c, "SELECT id FROM users WHERE id = ?", &[id.into()])?;
    let message = format!("{name} is the id of another member: choose another name");
    if found.is_empty() { Ok(()) } else { Err(Error::wrong(message)) }
}

/// Says of a name that exists that it does.
fn taken(e: Error, name: &str) -> Error {
    e.if_exists(Kind::Exists, format!("there is a user named {name} already"))
}

/// Closes the sessions of a user or torrent: [`OF_USER`] or [`OF_FILE`].
pub(super) fn close_sessions(c: &mut dyn Connection, whose: &str, id: u32) -> Result<(), Error> {
    let now = u32::try_from(crate::clock::now()).unwrap_or(u32::MAX);
    let sql = format!("UPDATE sessions SET closed = ? WHERE {whose} AND closed = 0");
    c.execute(&sql, &[now.into(), id.into(), id.into()]).map(drop)
}
