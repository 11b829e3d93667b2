//! The rules and the books, without a process of goat.

#[path = "../common/mod.rs"]
mod common;
#[path = "../world/mod.rs"]
mod world;

mod books;
mod config;
mod journal;
mod model;
#[cfg(feature = "redis")]
mod nodes;
mod rules;
mod swarm;
