//! The books on their way to the database: what is not written yet, and the copy that outlives a kill.

pub mod journal;
pub mod ledger;
pub mod recovery;
