//! What a thread of the pool does with the connections that are ready: accepts them, reads requests, has them answered
//! and sends the answers.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::EpollEvent;

use crate::net::connection::{Connection, DEADLINE, State};
use crate::net::http::{self, Answer};
use crate::net::jobs::Kind;
use crate::net::message::{self, MAX_HEADERS, Request, parse};
use crate::net::pool::{CALL, LISTENERS, Listener, Pool, Worker};
use crate::net::stream::{Stream, waits};
use crate::rules::limits::{Permit, Reason, Shares, sharer};
use crate::sync::lock;

/// How long a client may take for an answer, which may be a list of many torrents.
const ANSWER: Duration = Duration::from_secs(60);
/// More room than this is not kept for the answers of the next round.
const MAX_OUT: usize = 64 * 1024;
/// What the kernel says where it has no descriptor, or no memory for one.
const LACKING: [Errno; 4] = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM];

impl Pool {
    /// Serves what is ready, each once, and answers from memory.
    pub(super) fn round(&self, events: &[EpollEvent], buffer: &mut [u8], now: Instant, worker: &mut Worker) {
        for event in events {
            match event.data() {
                CALL => {}
                token @ LISTENERS.. => self.accept((token - LISTENERS) as usize, events.len(), buffer, now, worker),
                descriptor => {
                    let slot = self.slots.get(descriptor as usize);
                    // It may be gone, or be another by now, for which there is nothing to do.
                    if let Some(connection) = slot.and_then(|slot| lock(slot).take()) {
                        self.turn(connection, buffer, now, worker);
                    }
                }
            }
        }
        self.send_answers(worker);
    }

    /// Accepts as many connections as others have their turn in this round.
    fn accept(&self, number: usize, most: usize, buffer: &mut [u8], now: Instant, worker: &mut Worker) {
        let Some(listener) = self.listeners.get(number) else { return };
        let mut accepted = Vec::new();
        while accepted.len() < most {
            match listener.socket.accept() {
                Ok((socket, from)) => accepted.push((socket, from.ip().to_canonical())),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                // No descriptor is to be had: where none can be made free, the client waits for the next sweep.
                Err(e) if LACKING.map(|errno| Some(errno as i32)).contains(&e.raw_os_error()) => {
                    if !self.evict(Reason::Descriptors, |_| true) {
                        return;
                    }
                    break;
                }
                // The client has gone before it was its turn, or the network says so: the next one.
                Err(_) => {}
            }
        }
        // While this thread serves these, another may accept.
        self.listen(number);
        for (socket, ip) in accepted {
            match self.admit(listener, socket, ip, now) {
                Ok(connection) => {
                    self.tracker.metrics.connections.fetch_add(1, Relaxed);
                    self.turn(Box::new(connection), buffer, now, worker);
                }
                Err(reason) => self.tracker.limits.refuse(reason, ip),
            }
        }
    }

    fn admit(&self, listener: &Listener, socket: TcpStream, peer: IpAddr, now: Instant) -> Result<Connection, Reason> {
        let limits = &self.tracker.limits;
        let who = sharer(&self.tracker.config, peer);
        let places = if who.is_some() { &limits.connections } else { &limits.trusted };
        let place = acquire(places, who, || self.evict(Reason::Evicted, |c| c.who.is_some() == who.is_some()))?;
        let certificate = listener.certificates.as_ref().map(|certificates| certificates.in_use());
        let make_room = || self.evict(Reason::Evicted, |c| c.stream.is_handshaking());
        let handshake = certificate.as_ref().map(|_| acquire(&limits.handshakes, who, make_room));
        let handshake = handshake.transpose().map_err(|_| Reason::Handshakes)?;
        let stream = Stream::new(socket, certificate).map_err(|_| Reason::Handshakes)?;
        Ok(Connection {
            // With TLS the handshake counts into the first request.
            state: if stream.is_tls() { State::Reading } else { State::Idle },
            stream,
            peer,
            who,
            input: Vec::new(),
            deadline: now + DEADLINE,
            registered: false,
            handshake,
            bytes: None,
            _place: place,
        })
    }

    /// Answers at most one request, of what was read before or is there now.
    fn turn(&self, mut c: Box<Connection>, buffer: &mut [u8], now: Instant, worker: &mut Worker) {
        if c.state == State::Pending && !c.input.is_empty() && !c.stream.has_more() {
            let input = std::mem::take(&mut c.input);
            return self.answer(c, &input, false, now, worker);
        }
        let data = match c.stream.read(buffer) {
            Ok(0) => return,
            Ok(read) => buffer.get(..read).unwrap_or_default(),
            Err(e) if waits(&e) => return self.keep(c),
            Err(_) => return,
        };
        match c.state {
            State::Draining => return self.keep(c),
            State::Idle => c.deadline = now + DEADLINE,
            State::Reading | State::Pending => {}
        }
        c.state = State::Reading;
        // Most requests come in one piece, and are answered from where they were read.
        let mut input = std::mem::take(&mut c.input);
        if input.is_empty() {
            return self.answer(c, data, false, now, worker);
        }
        input.extend_from_slice(data);
        self.answer(c, &input, false, now, worker);
    }

    /// Answers the request that `data` begins with, if that is whole and, unless this thread may `wait`, if memory
    /// knows the answer.
    fn answer(&self, mut c: Box<Connection>, data: &[u8], wait: bool, now: Instant, worker: &mut Worker) {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let (request, head) = match parse(data, c.peer, &mut headers) {
            Ok(Some(found)) => found,
            Ok(None) => {
                c.wait_for_more(data);
                return self.keep(c);
            }
            Err((status, why)) => {
                let why = message::error(data, status, why, c.stream.is_tls());
                return self.fail(c, &why, now);
            }
        };
        let unread = request.length > request.begun.len();
        if unread && !request.uploads() {
            c.wait_for_more(data);
            let asked = request.begun.is_empty() && request.expects_to_continue();
            if !asked || c.stream.send(b"HTTP/1.1 100 Continue\r\n\r\n", false).is_ok() {
                self.keep(c);
            }
            return;
        }
        let used = head.saturating_add(request.begun.len());
        let keep_alive = request.keep_alive && !unread && !self.is_stopping();
        let request = Request { keep_alive, secure: c.stream.is_tls(), ..request };
        let tracker = &self.tracker;
        let before = worker.out.len();
        match http::answer(tracker, &self.pages, &request, wait, &mut worker.scratch, &mut worker.out) {
            // Nobody may send this.
            Answer::Written if unread => self.fail(c, &worker.out.split_off(before), now),
            Answer::Written => {
                c.answered(data.get(used..).unwrap_or_default(), now);
                worker.answered.push((c, worker.out.len().saturating_sub(before), keep_alive));
            }
            Answer::Slow => {
                c.input = data.to_vec();
                let kind = if (self.pages.serves)(tracker, request.target) { Kind::Long } else { Kind::Lookup };
                self.queue(c, sharer(&tracker.config, request.client(tracker)), kind);
            }
        }
    }

    /// Says why nothing more is answered.
    fn fail(&self, mut c: Box<Connection>, why: &[u8], now: Instant) {
        if c.fail(why, now) {
            self.keep(c);
        }
    }

    /// Lets a request wait for a thread that may wait.
    fn queue(&self, mut c: Box<Connection>, who: Option<IpAddr>, kind: Kind) {
        let limits = &self.tracker.limits;
        let counted = c.account(limits);
        match counted.and_then(|()| acquire(&limits.queued, who, || self.evict_queued())) {
            Ok(place) => self.submit(who, kind, move |pool, worker| {
                drop(place);
                pool.answer_waiting(c, kind, worker);
            }),
            Err(reason) => limits.refuse(reason, c.peer),
        }
    }

    /// Answers a request on a thread that may wait: one that memory does not know the answer to, or one whose answer
    /// may be long, after which the connection is closed.
    fn answer_waiting(&self, mut c: Box<Connection>, kind: Kind, worker: &mut Worker) {
        let now = Instant::now();
        let input = std::mem::take(&mut c.input);
        if kind == Kind::Lookup {
            self.answer(c, &input, true, now, worker);
            return self.send_answers(worker);
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        if let Ok(Some((request, _))) = parse(&input, c.peer, &mut headers) {
            let request = Request { keep_alive: false, secure: c.stream.is_tls(), ..request };
            // Who does not read their answer does not get it.
            let unread = request.length > request.begun.len();
            c.stream.wait_until(Some(now + ANSWER));
            let sent = (self.pages.answer)(&self.tracker, &request, &mut c.stream);
            c.stream.wait_until(None);
            match sent {
                Ok(()) if unread && c.drain(Instant::now()) => self.keep(c),
                Err(e) if waits(&e) || matches!(e.kind(), ErrorKind::TimedOut | ErrorKind::WriteZero) => {
                    self.tracker.limits.refuse(Reason::Unread, c.peer);
                }
                _ => {}
            }
        }
    }

    /// Sends the answers made since the last time. One after the other they cost less than each after its request.
    fn send_answers(&self, worker: &mut Worker) {
        self.tracker.journal.write(&mut worker.scratch.buffers.records);
        let mut answers = worker.out.as_slice();
        for (mut connection, size, stays) in worker.answered.drain(..) {
            let (answer, later) = answers.split_at_checked(size).unwrap_or_default();
            answers = later;
            match connection.stream.send(answer, !stays) {
                Ok(()) if stays => self.keep(connection),
                Err(e) if e.kind() == ErrorKind::WriteZero => {
                    self.tracker.limits.refuse(Reason::Unread, connection.peer);
                }
                _ => {}
            }
        }
        worker.out.clear();
        worker.out.shrink_to(MAX_OUT);
    }
}

/// Takes one of what is shared; where nothing is left, after `make_room` if that closes a connection.
fn acquire(shares: &Arc<Shares>, who: Option<IpAddr>, make_room: impl FnOnce() -> bool) -> Result<Permit, Reason> {
    match shares.acquire(who, 1) {
        Err(Reason::Full) if make_room() => shares.acquire(who, 1),
        done => done,
    }
}
