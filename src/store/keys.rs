//! The keys and passwords by which members sign in to the API, and the keys by which they call it then.

use serde::Deserialize;

use super::pool::Store;
use super::row::rows;
use super::sql::{Connection, Error, Value};
use super::users::{USER_COLUMNS, User};
use crate::random::{hex, secret};

/// A key that was not used for so many seconds opens nothing: a week.
pub(crate) const KEY_LIFE: u32 = 7 * 86_400;
/// The most keys of one member; the oldest makes room.
const MAX_KEYS: usize = 10;
/// How often a key may sign: that bounds how many nonces are remembered.
pub(crate) const MAX_CALLS: i64 = 100_000;

/// What the database has of a password.
#[derive(Clone, Deserialize)]
pub(crate) struct Password {
    /// Hex digits of PBKDF2-HMAC-SHA256, and of 16 random bytes.
    pub hash: String,
    pub salt: String,
    pub rounds: u32,
}

impl Store {
    /// The member of a name who has an API key with this SHA-256, in hex.
    pub(crate) fn user_with_key(&self, name: &str, key_hash: &str) -> Result<Option<User>, Error> {
        let sql = format!(
            "SELECT {USER_COLUMNS} FROM users WHERE {}
             AND EXISTS (SELECT 1 FROM api_keys k WHERE k.user_id = users.id AND k.key_hash = ?)",
            self.dialect.has_name()
        );
        self.row(&sql, &[name.into(), key_hash.into()])
    }

    pub(crate) fn new_api_key(&self, id: u32) -> Result<String, Error> {
        self.transaction(|c| replace_key(c, id))
    }

    /// The member of a name who has a password, and that.
    pub(crate) fn password(&self, name: &str) -> Result<Option<(User, Password)>, Error> {
        let sql = format!(
            "SELECT {USER_COLUMNS}, hash, salt, rounds FROM users JOIN passwords ON user_id = id WHERE {}",
            self.dialect.has_name()
        );
        self.row(&sql, &[name.into()])
    }

    pub(crate) fn has_password(&self, id: u32) -> Result<bool, Error> {
        Ok(self.row::<u32>("SELECT rounds FROM passwords WHERE user_id = ?", &[id.into()])?.is_some())
    }

    pub(crate) fn set_password(&self, id: u32, password: Option<&Password>) -> Result<(), Error> {
        self.transaction(|c| put_password(c, id, password))
    }

    /// Makes a key to call with, for whoever has the API key or password with this hash, and returns its public part.
    pub(crate) fn add_login(&self, user: u32, key_hash: &str, now: u32) -> Result<String, Error> {
        let public = secret::<20>().map_err(Error::other)?;
        self.transaction(|c| {
            c.execute("DELETE FROM api_logins WHERE use_time < ?", &[now.saturating_sub(KEY_LIFE).into()])?;
            let sql = "SELECT pubkey FROM api_logins WHERE user_id = ? ORDER BY use_time DESC";
            for old in rows::<String>(c, sql, &[user.into()])?.iter().skip(MAX_KEYS - 1) {
                c.execute("DELETE FROM api_logins WHERE pubkey = ?", &[old.as_str().into()])?;
            }
            c.execute("DELETE FROM api_nonces WHERE pubkey NOT IN (SELECT pubkey FROM api_logins)", &[])?;
            let sql = "INSERT INTO api_logins (pubkey, user_id, key_hash, use_time) VALUES (?, ?, ?, ?)";
            c.execute(sql, &[public.as_str().into(), user.into(), key_hash.into(), now.into()]).map(drop)
        })?;
        Ok(public)
    }

    /// The member who has a key to call with, and when it was used last, in seconds since 1970; unless it has expired,
    /// has signed so many calls, or the API key or password is gone that it was made with.
    pub(crate) fn login(&self, public: &str, calls: i64, now: u32) -> Result<Option<(User, u32)>, Error> {
        let sql = format!(
            "SELECT {USER_COLUMNS}, use_time FROM users JOIN api_logins l ON l.user_id = id
             WHERE pubkey = ? AND use_time >= ? AND calls < ?
             AND (EXISTS (SELECT 1 FROM api_keys k WHERE k.user_id = l.user_id AND k.key_hash = l.key_hash)
             OR EXISTS (SELECT 1 FROM passwords p WHERE p.user_id = l.user_id AND p.hash = l.key_hash))"
        );
        self.row(&sql, &[public.into(), now.saturating_sub(KEY_LIFE).into(), Value::Int(calls)])
    }

    /// Notes that a key was used without a signature.
    pub(crate) fn use_token(&self, public: &str, now: u32) -> Result<(), Error> {
        self.write("UPDATE api_logins SET use_time = ? WHERE pubkey = ?", &[now.into(), public.into()]).map(drop)
    }

    pub(crate) fn remove_login(&self, public: &str) -> Result<(), Error> {
        self.write("DELETE FROM api_logins WHERE pubkey = ?", &[public.into()]).map(drop)
    }

    /// Uses a key once more to sign, with a nonce. Returns false where that was used before.
    pub(crate) fn use_login(&self, public: &str, nonce: &str, now: u32) -> Result<bool, Error> {
        let insert = format!("{} INTO api_nonces (pubkey, nonce) VALUES (?, ?)", self.dialect.insert_ignore());
        self.transaction(|c| {
            let new = c.execute(&insert, &[public.into(), nonce.into()])? > 0;
            if new {
                let sql = "UPDATE api_logins SET use_time = ?, calls = calls + 1 WHERE pubkey = ?";
                c.execute(sql, &[now.into(), public.into()])?;
            }
            Ok(new)
        })
    }
}

/// Gives a member a password in place of any other, or takes it away.
pub(super) fn put_password(c: &mut dyn Connection, id: u32, password: Option<&Password>) -> Result<(), Error> {
    c.execute("DELETE FROM passwords WHERE user_id = ?", &[id.into()])?;
    let Some(Password { hash, salt, rounds }) = password else { return Ok(()) };
    let values = [id.into(), hash.as_str().into(), salt.as_str().into(), (*rounds).into()];
    c.execute("INSERT INTO passwords (user_id, hash, salt, rounds) VALUES (?, ?, ?, ?)", &values).map(drop)
}

/// Gives a user a new API key in place of all that they have, and returns it.
pub(super) fn replace_key(c: &mut dyn Connection, id: u32) -> Result<String, Error> {
    let api_key = secret::<20>().map_err(Error::other)?;
    c.execute("DELETE FROM api_keys WHERE user_id = ?", &[id.into()])?;
    insert_key(c, id, &api_key)?;
    Ok(api_key)
}

pub(super) fn insert_key(c: &mut dyn Connection, user: u32, api_key: &str) -> Result<(), Error> {
    let values = [user.into(), Value::Text(&hash_key(api_key))];
    c.execute("INSERT INTO api_keys (user_id, key_hash) VALUES (?, ?)", &values).map(drop)
}

/// What `api_keys` holds of a key. The key is 160 random bits, so a plain hash cannot be searched.
pub(crate) fn hash_key(key: &str) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, key.as_bytes()).as_ref())
}
