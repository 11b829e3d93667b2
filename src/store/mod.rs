//! The database: what goat asks of it, in SQL that SQLite and MySQL share. `sqlite` and `mysql` each turn
//! statements and values into their library's calls; the other files have the statements, by what they are about.
//!
//! Every function may wait for the disk or the network, so none is called while an announce is answered,
//! but for the look-up of a user or torrent that memory does not have.

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "sqlite")]
mod restore;
#[cfg(feature = "sqlite")]
mod sqlite;

mod actions;
mod changes;
mod check;
mod clients;
mod community;
mod dialect;
mod history;
mod invitations;
mod keys;
mod list;
mod metainfo;
mod pool;
mod row;
mod run;
mod schema;
mod search;
pub mod sessions;
mod sql;
mod torrents;
mod users;

pub use changes::{Changes, Found};
pub use clients::Suggestion;
pub use pool::Store;
pub use sql::{Error, Kind, Value};
pub use torrents::Torrent;
pub use users::{NewUser, User};

pub(crate) use actions::Action;
pub(crate) use clients::{MAX_PENDING, MAX_PENDING_BY_ONE};
pub(crate) use community::Import;
pub(crate) use history::{HISTORY, HistoryRow};
pub(crate) use keys::{KEY_LIFE, MAX_CALLS, Password, hash_key};
pub(crate) use list::{Order, Page};
#[cfg(feature = "sqlite")]
pub(crate) use restore::{open_backup, restore};
pub(crate) use torrents::{BY_TIME, FILE_ORDERS, NOT_REFUSED, SWARM_ORDERS, VERIFIED, Which};
pub(crate) use users::{USER_ORDERS, Who};
