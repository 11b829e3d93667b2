//! One connection between two turns: what was read and not answered, what was answered and not taken.

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::net::gate::Place;
use crate::net::stream::Stream;
use crate::sys::Interest;

/// A request must be whole this long after its first byte, the TLS handshake before it included; and an
/// answer taken this long after it was made.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// How long TLS may take to agree, before it is in the way of others.
const HANDSHAKE: Duration = Duration::from_secs(1);
/// How long bytes that nobody asked for are read and thrown away after an error, so that the client gets
/// to read why (closing at once would reset the connection).
const DRAIN: Duration = Duration::from_secs(2);

/// One connection.
pub struct Connection {
    /// Its socket.
    pub stream: Stream,
    /// Where it comes from.
    pub peer: IpAddr,
    /// Its place among those of its address.
    pub place: Place,
    /// What was read and is not a whole request yet.
    pub input: Vec<u8>,
    /// What could not be written yet.
    pub output: Vec<u8>,
    /// What it is waiting for.
    pub state: State,
    /// When it is closed unless something happens.
    pub deadline: Instant,
    /// Its slot, and what it waits for there; absent until it has to wait.
    pub waits_at: Option<(usize, Interest)>,
}

/// What a connection is waiting for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The next request.
    Idle,
    /// The rest of a request.
    Reading,
    /// The client to take an answer; then the connection is closed, or not.
    Writing {
        /// Nothing follows.
        close: bool,
    },
    /// The end: everything was said, and what still comes is thrown away.
    Draining,
}

/// What becomes of a connection after its turn.
pub enum Next {
    /// It waits for more.
    Keep,
    /// So many bytes of answers were made for it.
    Send(usize, End),
    /// It ends.
    Close,
    /// A worker gets it, with the request that ends after this many bytes of its input.
    Work(usize),
}

/// How an answer ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The connection stays open.
    Open,
    /// It is closed.
    Close,
    /// It is closed, for what came was no request; the client may still be sending.
    Failed,
}

impl Connection {
    /// A connection that says its first word now. With TLS the handshake counts into its first request.
    pub fn new(stream: Stream, peer: IpAddr, place: Place, tls: bool, now: Instant) -> Connection {
        let state = if tls { State::Reading } else { State::Idle };
        let (input, output, deadline) = (Vec::new(), Vec::new(), now + DEADLINE);
        Connection { stream, peer, place, input, output, state, deadline, waits_at: None }
    }

    /// Whether it waits for room to write, not for something to read.
    pub fn writes(&self) -> bool {
        matches!(self.state, State::Writing { .. })
    }

    /// Whether nothing is lost if it ends now.
    pub fn rests(&self) -> bool {
        matches!(self.state, State::Idle | State::Draining)
    }

    /// Whether it is in the middle of a handshake that can not have been done yet.
    pub fn is_new(&self, now: Instant) -> bool {
        self.stream.is_tls() && !self.rests() && self.deadline > now + DEADLINE - HANDSHAKE
    }

    /// Whether it may stay open, for what it holds in memory.
    pub fn fits(&mut self) -> bool {
        self.place.hold(self.input.capacity() + self.output.capacity() + self.stream.held())
    }

    /// Writes `out` as far as the socket takes it, and keeps the rest for later.
    pub fn send(&mut self, mut out: &[u8], end: End, now: Instant) -> Next {
        while !out.is_empty() {
            match self.stream.send(out, end == End::Close) {
                Ok(written @ 1..) => out = out.get(written..).unwrap_or_default(),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return self.wait(out.to_vec(), end, now),
                _ => return Next::Close,
            }
        }
        match self.stream.flush() {
            Err(e) if e.kind() == ErrorKind::WouldBlock => return self.wait(Vec::new(), end, now),
            Err(_) => return Next::Close,
            Ok(()) => {}
        }
        if end == End::Failed && self.stream.finish().is_ok() {
            self.state = State::Draining;
            self.deadline = now + DRAIN;
            return Next::Keep;
        }
        if end == End::Open { Next::Keep } else { Next::Close }
    }

    fn wait(&mut self, rest: Vec<u8>, end: End, now: Instant) -> Next {
        self.output = rest;
        self.state = State::Writing { close: end != End::Open };
        self.deadline = now + DEADLINE;
        Next::Keep
    }

    /// Throws away what still comes.
    pub fn drain(&mut self, buffer: &mut [u8]) -> Next {
        match self.stream.read(buffer) {
            Ok(1..) => Next::Keep,
            Err(e) if waits(&e) => Next::Keep,
            _ => Next::Close,
        }
    }
}

/// The connections that wait, each in a slot with a number.
#[derive(Default)]
pub struct Slots {
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
}

impl Slots {
    /// A slot for nobody else, until it is released.
    pub fn claim(&mut self) -> usize {
        self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        })
    }

    /// Puts a connection into a slot that was claimed.
    pub fn put(&mut self, slot: usize, connection: Connection) {
        if let Some(place) = self.connections.get_mut(slot) {
            *place = Some(connection);
        }
    }

    /// Takes the connection out of a slot, which stays claimed.
    pub fn take(&mut self, slot: usize) -> Option<Connection> {
        self.connections.get_mut(slot).and_then(Option::take)
    }

    /// Gives a slot that was claimed back, and ends the connection in it.
    pub fn release(&mut self, slot: usize) {
        self.take(slot);
        self.free.push(slot);
    }

    /// Ends the connections that `over` says yes to.
    pub fn end_where(&mut self, mut over: impl FnMut(&mut Connection) -> bool) {
        for (slot, place) in self.connections.iter_mut().enumerate() {
            if place.as_mut().is_some_and(&mut over) {
                *place = None;
                self.free.push(slot);
            }
        }
    }

    /// The connections and their slots.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &Connection)> {
        self.connections.iter().enumerate().filter_map(|(slot, connection)| Some((slot, connection.as_ref()?)))
    }

    /// Whether nobody has one.
    pub fn are_free(&self) -> bool {
        self.free.len() == self.connections.len()
    }
}

/// Whether a read or write only has to be tried again.
pub fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
