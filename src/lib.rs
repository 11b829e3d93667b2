//! goat is a BitTorrent tracker for small private communities.
//!
//! **The tour.** An announce comes through [`net`] (TCP, with [`tls`] for HTTPS), which reads a whole request ([`message`]) and hands it to
//! [`http`], or as a datagram to [`udp`]. These make plain data of it, ask [`announce`] (the rules), and write what
//! comes back as bencode or bytes. The rules know [`access`] (who may) and [`swarm`] (who is there), and note in the
//! [`ledger`] what the books must hold, which keeps a copy in the [`journal`]; none of them waits for anything. The [`keeper`] writes the ledger into the
//! [`store`] (SQLite or MySQL) once a second and follows what others change there. [`server`] builds all this from
//! the [`config`] and stops it; [`cli`] is the command line.
//!
//! Everything else over HTTP goes to [`web`], which sends the status page, and the answers of the [`api`] to those
//! whom [`auth`] knows, within [`limits`]. [`metrics`] and [`history`] count, at next to no cost for an announce.

#![deny(unsafe_code)]

#[cfg(not(any(feature = "sqlite", feature = "mysql")))]
compile_error!("goat needs a database: build it with the feature sqlite, mysql or both");

pub mod access;
pub mod announce;
pub mod api;
pub mod auth;
pub mod bencode;
pub mod cli;
pub mod config;
pub mod connection;
pub mod connection_id;
pub mod gate;
pub mod history;
pub mod http;
pub mod journal;
pub mod keeper;
pub mod ledger;
pub mod limits;
pub mod log;
pub mod message;
pub mod metrics;
pub mod net;
pub mod random;
pub mod server;
pub mod store;
pub mod stream;
pub mod swarm;
mod sys;
pub mod tls;
pub mod torrent;
pub mod udp;
pub mod web;
pub mod workers;
