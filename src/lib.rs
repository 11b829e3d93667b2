//! goat is a BitTorrent tracker for small private communities.
//!
//! **The tour.** An announce comes through [`net`] (TCP, with [`net::tls`] for HTTPS), which reads a whole request
//! ([`net::message`]) and hands it to [`net::http`], or as a datagram to [`udp`]. These make plain data of it
//! ([`protocol`]), ask [`rules::announce`], and write what comes back as bencode or bytes. The rules know
//! [`rules::access`] (who may) and [`rules::swarm`] (who is there), and note in the [`books::ledger`] what the books
//! must hold, of which the [`books::journal`] has a copy on the disk; none of them waits for anything else. The
//! [`keeper`] has the ledgers settled into the [`store`] (SQLite or MySQL) and follows what others change
//! there. All of them share one [`tracker`]. [`server`] builds it from the [`config`], starts the threads and stops
//! them; [`cli`] is the command line.
//!
//! Everything else over HTTP is for [`web`], which sends the status page, and the answers of the [`web::api`] to those
//! whom `web::signin` knows, by keys that are made with that of [`auth`]. It waits for the database on a thread of the [`net::pool`] that may, as does an announce whose
//! member or torrent memory does not know ([`serve`]). [`rules::limits`] bounds what others can make goat hold or do.
//! Several goats on one database are one tracker: they hear of each other through [`nodes`].
//! [`metrics`] and [`history`] count, at next to no cost for an announce; a `snapshot` is what the log, the API and
//! [`web::metrics`] show of it.
//!
//! **The floors.** Each of these imports only from those that follow: `cli` and `server`; `web`; `udp`; `net`;
//! `keeper`, `serve`, `nodes::link` and `nodes::news`; `snapshot`; `tracker`; `nodes`; `auth` and `history`, `metrics`; `rules`; `books`; `store`; `protocol`; `torrent`; `config`;
//! `log`, `clock`, `random`, `sync`, `sys`. Nor do the files of one room import each other in a circle.
//!
//! **Why no two threads race.** All that threads share is behind a lock or is an atomic number, or the compiler
//! would not have it: the only unsafe code is in `sys::raw`, and shares no memory.
//!
//! **Why no two threads wait for each other.** There are these locks: a shard of the swarms, the tables of `access`,
//! the idle connections of the store and the changes that it followed, the shares, rates and failures of `limits`, the outbox
//! of `books`, what is known in `nodes`, the certificate in `tls`, the jobs, the slots
//! of connections and the threads in `pool`, the scrapers in `udp`, the segment of the journal, the samples in
//! `history`, the statuses in `metrics`, the file of the server key in `auth`, the turn of passwords in `web::signin`, the making of words in
//! `store::search`, the reading of a torrent in `web::api`. While a shard is locked the tables of `access` may be
//! asked for, never the other way round; while clients are counted for `history`, the shards one by one; while
//! words are made, the idle connections; while the jobs are locked, the shares and the threads; while a slot is locked,
//! the shares, for what is in it may end. All others are taken alone. None is held across I/O but the journal's, for
//! one write to a file; that of the server key's file, for that; the turn of passwords, for the database's answer; that of words, for which nobody waits; and a slot's, for
//! calls that do not wait.

#![deny(unsafe_code)]

#[cfg(not(any(feature = "sqlite", feature = "mysql")))]
compile_error!("goat needs a database: build it with the feature sqlite, mysql or both");

mod auth;
pub mod books;
pub mod cli;
pub mod clock;
pub mod config;
mod history;
pub mod keeper;
mod log;
pub mod metrics;
pub mod net;
#[cfg_attr(not(feature = "redis"), allow(dead_code))]
pub mod nodes;
pub mod protocol;
pub mod random;
pub mod rules;
mod serve;
mod server;
mod snapshot;
pub mod store;
mod sync;
mod sys;
pub mod torrent;
pub mod tracker;
pub mod udp;
pub mod web;
