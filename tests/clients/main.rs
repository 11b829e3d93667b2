//! Real clients and a real browser, in networks of their own.

#[path = "../common/mod.rs"]
mod common;

mod acting;
mod browser;
mod clients;
mod page;
mod tour;
mod udp_clients;
