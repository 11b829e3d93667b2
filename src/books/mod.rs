//! The books: what a session is ([`session`]), what of it is not written yet ([`ledger`], and [`journal`] on the
//! disk), what it is worth ([`credit`]), and how that is written ([`settle`]).
//!
//! Data flows one way: an announce makes a [`State`], the state waits in ledger and journal, and settling reads
//! the session's row, credits the rise against it, and stores the new row, in one transaction.

pub mod credit;
pub mod journal;
pub mod ledger;
pub mod merge;
pub mod recovery;
pub mod session;
pub mod settle;

pub use credit::{Rise, credit};
pub use journal::Journal;
pub use ledger::Ledger;
pub use merge::merge;
pub use session::{Birth, Known, Life, Paths, Session, SessionKey, State, hear};
