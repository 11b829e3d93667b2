//! Clients that are let in, and what members' clients suggest for approval: clients and torrents.

use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::pool::Store;
use super::sql::{Error, Value, big};
use crate::sync::lock;
use crate::torrent::InfoHash;

/// A row of `whitelist`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Client {
    /// The prefix of User-Agents or peer ids.
    pub client: String,
    pub approved: bool,
    /// Whether it is not let in, and no operator has said no.
    pub pending: bool,
    /// When a member first used it, in seconds since 1970; `None`: others named it.
    pub suggested: Option<u32>,
    /// The name of that member, if they are still one; `None` for whom it is none of their business.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggested_by: Option<String>,
    /// Peers with such a peer id, if memory was asked.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub peers: Option<u64>,
}

/// Something that the database does not have and that an operator may want to approve.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Suggestion {
    /// The User-Agent of a member's client.
    Client(String),
    /// A torrent that a member's client announced.
    Torrent(InfoHash),
}

/// The most suggestions that wait for an operator, of each kind.
pub(crate) const MAX_PENDING: usize = 1000;
/// The most of them that one member may have.
pub(crate) const MAX_PENDING_BY_ONE: usize = 20;
/// Held while they are counted and one is added: several at once would find room for each.
static SUGGESTING: Mutex<()> = Mutex::new(());

impl Store {
    pub(crate) fn clients(&self) -> Result<Vec<Client>, Error> {
        let sql =
            "SELECT client, approved, approved = 0 AND suggested >= 0, CASE WHEN suggested > 0 THEN suggested END,
            COALESCE(username, '') FROM whitelist w LEFT JOIN users u ON u.id = w.suggested_by ORDER BY client";
        self.rows(sql, &[])
    }

    /// The approved prefixes of User-Agents and peer ids.
    pub(crate) fn approved_clients(&self) -> Result<Vec<Box<[u8]>>, Error> {
        let sql = "SELECT client FROM whitelist WHERE approved = 1 AND client <> ''";
        Ok(self.rows::<String>(sql, &[])?.into_iter().map(|client| client.into_bytes().into()).collect())
    }

    /// Approves or denies a client, known so far or not. It is no suggestion any more, nor are those that an
    /// approved one covers.
    pub(crate) fn set_client(&self, prefix: &str, approved: bool) -> Result<(), Error> {
        let update = self.dialect.upsert("client", "approved = NEW(approved), suggested = NEW(suggested)");
        self.transaction(|c| {
            let sql = format!("INSERT INTO whitelist (client, approved, suggested) VALUES (?, ?, ?) {update}");
            c.execute(&sql, &[prefix.into(), approved.into(), decision(approved)])?;
            if approved {
                let sql = "DELETE FROM whitelist WHERE approved = 0 AND suggested > 0 AND SUBSTR(client, 1, ?) = ?";
                c.execute(sql, &[big(prefix.chars().count() as u64), prefix.into()])?;
            }
            Ok(())
        })
    }

    /// Forgets a client; returns whether it was there.
    pub(crate) fn remove_client(&self, prefix: &str) -> Result<bool, Error> {
        Ok(self.write("DELETE FROM whitelist WHERE client = ?", &[prefix.into()])? > 0)
    }

    /// Writes down what members suggested, unapproved, while fewer than [`MAX_PENDING`] of the kind wait, and fewer
    /// than [`MAX_PENDING_BY_ONE`] of the member. Returns what was not there already.
    pub fn suggest(&self, suggestions: &[(Suggestion, u32)], now: u32) -> Result<Vec<Suggestion>, Error> {
        let insert = self.dialect.insert_ignore();
        let mut new = Vec::new();
        let _turn = lock(&SUGGESTING);
        for (suggestion, user) in suggestions {
            let (table, column, unapproved, key) = match suggestion {
                Suggestion::Client(agent) => ("whitelist", "client", "approved", agent.clone()),
                Suggestion::Torrent(hash) => ("files", "info_hash", "verified", hash.to_string()),
            };
            let sql = format!(
                "{insert} INTO {table} ({column}, suggested, suggested_by) SELECT ?, ?, ? FROM
                 (SELECT COUNT(*) AS pending, COUNT(CASE WHEN suggested_by = ? AND suggested_by > 0 THEN 1 END) AS own
                  FROM {table} WHERE {unapproved} = 0 AND suggested >= 0) waiting
                 WHERE pending < {MAX_PENDING} AND own < {MAX_PENDING_BY_ONE}"
            );
            let user = Value::from(*user);
            if self.with(|c| c.execute(&sql, &[key.as_str().into(), now.into(), user, user]))? > 0 {
                new.push(suggestion.clone());
            }
        }
        Ok(new)
    }
}

/// What `suggested` says of what an operator has approved or refused.
pub(super) fn decision(approved: bool) -> Value<'static> {
    Value::Int(i64::from(approved) - 1)
}
