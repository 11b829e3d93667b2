//! The database: what goat asks of it, in SQL that SQLite and MySQL share. `sqlite` and `mysql` each turn
//! statements and values into their library's calls; the other files have the statements, by what they are about.
//!
//! Every function may wait for the disk or the network, so none is called while an announce is answered,
//! but for the look-up of a user or torrent that memory does not have.

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "sqlite")]
mod sqlite;

mod changes;
mod check;
mod clients;
mod community;
mod dialect;
mod history;
mod keys;
mod list;
mod pool;
mod row;
mod run;
mod schema;
pub mod sessions;
mod sql;
mod torrents;
mod users;

pub use changes::Found;
pub use clients::{Client, MAX_PENDING, MAX_PENDING_BY_ONE, Suggestion};
pub use community::{Import, Stats};
pub use history::HistoryRow;
pub use keys::{KEY_LIFE, hash_key};
pub use list::{Order, Page};
pub use pool::Store;
pub use sql::{Error, Kind, Value};
#[cfg(feature = "sqlite")]
pub use sqlite::{aside, restore};
pub use torrents::{BY_TIME, FILE_ORDERS, FileActivity, FileUser, SWARM_ORDERS, Torrent, Which};
pub use users::{Activity, NewUser, USER_ORDERS, User, Who};
