//! Invitations: by each of them one person, once, becomes a member, or signs in as the member that it is for.

use serde::{Deserialize, Serialize};

use super::keys::{Password, hash_key, put_password, replace_key};
use super::pool::Store;
use super::row::rows;
use super::sql::{Connection, Error};
use super::users::{NewUser, User, new_user};
use crate::random::secret;

/// For so many seconds an invitation is good: a week.
const LIFE: u32 = 7 * 86_400;
/// The most open ones of an administrator, who may give any number.
const MAX_OPEN: u32 = 100;

/// A row of `invitations`.
#[derive(Deserialize, Serialize)]
pub(crate) struct Invitation {
    /// The name of who gave it; nothing for the command line.
    pub by: String,
    /// The name of the member that it is for; nothing where it makes one.
    pub name: String,
    /// Seconds since 1970.
    pub expire: u32,
    #[serde(skip_serializing)]
    by_id: u32,
    #[serde(skip_serializing)]
    user_id: u32,
}

const SELECT: &str = "SELECT COALESCE(b.username, ''), COALESCE(m.username, ''), expire, by_id, user_id
    FROM invitations LEFT JOIN users b ON b.id = by_id LEFT JOIN users m ON m.id = user_id WHERE expire > ?";

/// How many more a member may give, of whom so many are open.
fn left(by: &User, open: u32) -> u32 {
    if by.admin { MAX_OPEN } else { by.invitations }.saturating_sub(open)
}

impl Store {
    /// Makes an invitation by a member, or by the command line for the member with an id; returns its code, which is
    /// not kept, and when it expires, in seconds since 1970.
    pub(crate) fn invite(&self, by: Option<&User>, whom: u32, now: u32) -> Result<(String, u32), Error> {
        let (code, expire) = (secret::<20>().map_err(Error::other)?, now.saturating_add(LIFE));
        let lock = format!("SELECT id FROM users WHERE id = ?{}", self.dialect.for_update());
        self.transaction(|c| {
            c.execute("DELETE FROM invitations WHERE expire <= ?", &[now.into()])?;
            if let Some(by) = by {
                rows::<u32>(c, &lock, &[by.id.into()])?;
                let sql =
                    "SELECT invitations, (SELECT COUNT(*) FROM invitations WHERE by_id = id) FROM users WHERE id = ?";
                let (invitations, open) = rows(c, sql, &[by.id.into()])?.pop().unwrap_or_default();
                if left(&User { invitations, ..by.clone() }, open) == 0 {
                    return Err(Error::wrong("you have no invitation left to give"));
                }
            }
            let sql = "INSERT INTO invitations (code_hash, by_id, user_id, expire) VALUES (?, ?, ?, ?)";
            let (hash, by) = (hash_key(&code), by.map_or(0, |by| by.id));
            c.execute(sql, &[hash.as_str().into(), by.into(), whom.into(), expire.into()]).map(drop)
        })?;
        Ok((code, expire))
    }

    /// How many invitations a member may give, and those that are open.
    pub(crate) fn invitations(&self, by: &User, now: u32) -> Result<(u32, Vec<Invitation>), Error> {
        let open: Vec<Invitation> = self.rows(&format!("{SELECT} AND by_id = ?"), &[now.into(), by.id.into()])?;
        Ok((left(by, open.len() as u32), open))
    }

    /// Sets how many invitations a member may give, beside those that are open.
    pub(crate) fn set_invitations(&self, id: u32, count: u16, now: u32) -> Result<(), Error> {
        let sql = "UPDATE users SET invitations = ? + (SELECT COUNT(*) FROM invitations WHERE by_id = ? AND expire > ?)
            WHERE id = ?";
        self.write(sql, &[u32::from(count).into(), id.into(), now.into(), id.into()]).map(drop)
    }

    /// The invitation with a code, unless it was used or has expired, or who is in it is banned or gone.
    pub(crate) fn invitation(&self, code: &str, now: u32) -> Result<Option<Invitation>, Error> {
        self.with(|c| find(c, code, now))
    }

    /// Uses the invitation with a code, if there is one: makes a member of this name, or gives the one that it is for a
    /// new API key in place of all others; with a password, if there is one.
    pub(crate) fn join(
        &self,
        code: &str,
        name: &str,
        password: Option<&Password>,
        now: u32,
    ) -> Result<Option<(NewUser, Invitation)>, Error> {
        self.transaction(|c| {
            let Some(invitation) = find(c, code, now)? else { return Ok(None) };
            // Of two at once one removes it.
            if c.execute("DELETE FROM invitations WHERE code_hash = ?", &[hash_key(code).as_str().into()])? == 0 {
                return Ok(None);
            }
            let new = match invitation.user_id {
                0 => {
                    let sql = "UPDATE users SET invitations = invitations - 1 WHERE id = ? AND invitations > 0";
                    c.execute(sql, &[invitation.by_id.into()])?;
                    new_user(c, &User { name: name.into(), invited_by: Some(invitation.by_id), ..User::default() })?
                }
                id => {
                    let passkey = rows(c, "SELECT passkey FROM users WHERE id = ?", &[id.into()])?.pop();
                    NewUser { id, passkey: passkey.unwrap_or_default(), api_key: replace_key(c, id)? }
                }
            };
            if password.is_some() {
                put_password(c, new.id, password)?;
            }
            Ok(Some((new, invitation)))
        })
    }
}

fn find(c: &mut dyn Connection, code: &str, now: u32) -> Result<Option<Invitation>, Error> {
    let sql = format!("{SELECT} AND code_hash = ? AND (by_id = 0 OR b.banned = 0) AND (user_id = 0 OR m.banned = 0)");
    Ok(rows(c, &sql, &[now.into(), hash_key(code).as_str().into()])?.pop())
}
