//! What goat bears: attacks, and faults of everything that it stands on. Apart from the others, which would disturb it.

#[path = "../common/mod.rs"]
mod common;

mod abuse;
mod faults;
