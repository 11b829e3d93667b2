//! The database: what goat asks of it, in SQL that SQLite and MySQL share. `sqlite` and `mysql` each turn
//! statements and values into their library's calls; the other files have the statements, by who asks.
//!
//! Every function may wait for the disk or the network, so none is called while an announce is answered,
//! but for the look-up of a user or torrent that memory does not have.

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "sqlite")]
mod sqlite;

mod admin;
mod api;
mod check;
mod community;
mod dialect;
mod load;
mod pool;
mod run;
mod schema;
pub mod sessions;
mod sql;

pub use admin::{
    ClientRow, FILE_ORDERS, MAX_PENDING, MAX_PENDING_BY_ONE, NewUser, Suggestion, SwarmRow, USER_ORDERS, UserRow,
    Which, Who,
};
pub use api::{Activity, ApiFile, ApiUser, FileUser, HistoryRow, KEY_LIFE, List, Member, MoreOfFile, PIECE, UserFile};
pub use community::{Import, Seen, Totals};
pub use load::{Account, FileRow, Found};
pub use pool::Store;
pub use sql::{Error, Kind, Value};
#[cfg(feature = "sqlite")]
pub use sqlite::{aside, restore};
