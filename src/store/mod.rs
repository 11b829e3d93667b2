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
mod books;
mod check;
mod community;
mod dialect;
mod load;
mod pool;
mod rows;
mod schema;
mod sql;

pub use admin::{ClientRow, FILE_ORDERS, MAX_PENDING, NewUser, Suggestion, SwarmRow, USER_ORDERS, UserRow, Which, Who};
pub use api::{Activity, ApiFile, ApiUser, FileUser, HistoryRow, KEY_LIFE, List, Member, MoreOfFile, PIECE, UserFile};
pub use community::{Import, Seen, Totals};
pub use load::{AccountRow, Change, FileRow, Loaded};
pub use pool::Store;
pub use rows::{Batch, First, Session, SessionKey, SessionRow, Total, TotalKey, credit};
pub use sql::{Error, Kind, Value};
#[cfg(feature = "sqlite")]
pub use sqlite::{aside, restore};
