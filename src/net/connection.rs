//! One connection between two turns: what was read and not answered yet, and until when it may stay.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::net::message;
use crate::net::stream::Stream;
use crate::rules::limits::{FREE_BYTES, Limits, Permit, Reason};

/// A request must be whole this long after its first byte, the TLS handshake before it included.
pub const DEADLINE: Duration = Duration::from_secs(10);
pub const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long bytes that nobody asked for are read and thrown away after an error, so that the client gets
/// to read why (closing at once would reset the connection).
const DRAIN: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    Idle,
    Reading,
    /// There is something to do without reading the socket: it waits only for room to answer.
    Pending,
    /// The end: everything was said, and what still comes is thrown away.
    Draining,
}

pub struct Connection {
    pub stream: Stream,
    pub peer: IpAddr,
    pub who: Option<IpAddr>,
    /// What was read and not answered.
    pub input: Vec<u8>,
    pub state: State,
    pub deadline: Instant,
    pub registered: bool,
    /// Until that is done.
    pub handshake: Option<Permit>,
    pub bytes: Option<Permit>,
    pub _place: Permit,
}

impl Connection {
    /// Whether nothing is lost if it ends now.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle | State::Draining)
    }

    /// Counts what it holds against its share. An error where there is no room for that.
    pub fn account(&mut self, limits: &Limits) -> Result<(), Reason> {
        if self.handshake.take_if(|_| !self.stream.is_handshaking()).is_some() {
            self.bytes = None;
        }
        let held = self.input.capacity().saturating_add(self.stream.held()).saturating_sub(FREE_BYTES);
        let shares = if self.handshake.is_some() { &limits.handshake_bytes } else { &limits.request_bytes };
        self.bytes.get_or_insert_with(|| shares.nothing(self.who)).resize(held).map_err(|_| Reason::Bytes)
    }

    /// Keeps the beginning of a request of which more is to come.
    pub fn wait_for_more(&mut self, begun: &[u8]) {
        self.input = begun.to_vec();
        self.state = if self.stream.has_more() { State::Pending } else { State::Reading };
    }

    /// Notes that a request was answered, of which `rest` came after it.
    pub fn answered(&mut self, rest: &[u8], now: Instant) {
        self.input = rest.to_vec();
        let pending = !rest.is_empty() || self.stream.has_more();
        (self.state, self.deadline) =
            if pending { (State::Pending, now + DEADLINE) } else { (State::Idle, now + KEEP_ALIVE) };
    }

    /// Says why nothing more is answered, and only reads from then on. Returns whether the client may still hear it.
    pub fn fail(&mut self, answer: &[u8], now: Instant) -> bool {
        self.stream.send(answer, false).is_ok() && self.drain(now)
    }

    /// Only reads from now on, as all is said. Returns whether the client may still hear it.
    pub fn drain(&mut self, now: Instant) -> bool {
        self.input = Vec::new();
        self.state = State::Draining;
        self.deadline = now + DRAIN;
        self.stream.finish().is_ok()
    }

    /// Whether it ends now, for its time is up; who is in the middle of a request is told why first.
    pub fn is_over(&mut self, now: Instant) -> bool {
        if now < self.deadline {
            return false;
        }
        if self.is_idle() || self.state == State::Pending || self.stream.is_handshaking() {
            return true;
        }
        let late = "The request was not complete after 10 seconds";
        let late = message::error(&self.input, 408, late, self.stream.is_tls());
        !self.fail(&late, now)
    }
}
