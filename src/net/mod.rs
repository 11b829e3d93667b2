//! TCP: sockets, threads and deadlines. Reads whole requests, has `http` answer them, and sends the answers.
//!
//! **Why not tiny_http's server.** Its messages are used (`tiny_http::Response`), its listener is not, for
//! one request can take it down (version 0.12.0, the newest, release build, four workers): a
//! `Content-Length` of 4611686018427387904 aborts the process, because the body reader allocates it when
//! it is dropped; eight requests that announce a body and send none block every worker for good; reaching
//! the limit on open files once ends the accepting thread for good; a header line of 100 MB is kept in
//! memory; idle connections are never closed; each connection costs a thread without bound; and its TLS is
//! rustls 0.20 (RUSTSEC-2024-0336).
//!
//! **How it works here.** The kernel is the queue: one epoll has all connections, each for one event
//! (EPOLLONESHOT), and the [`pool::Pool`] of threads waits for it. Whichever thread wakes owns that connection until it
//! puts it back: it answers at most one request, mostly from memory; one that is not whole stays with its connection as
//! bytes. What must wait for the database, or may be a long answer, is done by a thread that first sees to it that
//! another waits: as many wait as there are processors, others exist only while some are held up. A small answer is
//! given to the kernel in one write; if that does not take it, the client does not read, and is closed. A connection
//! that sends its request at once is answered and closed without ever being registered: that is accept, read, write,
//! close, the same calls as a bare responder makes.

mod connection;
mod forwarded;
pub mod http;
pub(crate) mod jobs;
pub mod message;
pub(crate) mod pool;
mod serving;
mod stream;
pub(crate) mod tls;
