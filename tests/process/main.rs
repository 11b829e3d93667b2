//! What goat does as its users meet it: each test starts goat itself, on a database of its own.

#[path = "../common/mod.rs"]
mod common;

mod addresses;
mod administering;
mod api;
mod cli;
mod community;
mod documents;
mod feeds;
mod https;
mod invitations;
mod library;
mod metrics;
mod network;
#[cfg(all(feature = "mysql", feature = "redis"))]
mod nodes;
mod operator;
mod package;
mod proxies;
mod restart;
mod signin;
mod tables;
mod torrents;
mod udp;
mod website;
