//! Real clients and a real browser, in networks of their own.

#[path = "../common/mod.rs"]
mod common;

mod clients;
mod page;
mod udp_clients;
