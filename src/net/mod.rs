//! TCP: sockets, limits and deadlines. Reads whole requests, has `http` answer them, and sends the answers.
//!
//! **Why not tiny_http's server.** Its messages are used (`tiny_http::Response`), its listener is not, for
//! one request can take it down (version 0.12.0, the newest, release build, four workers): a
//! `Content-Length` of 4611686018427387904 aborts the process, because the body reader allocates it when
//! it is dropped; eight requests that announce a body and send none block every worker for good; reaching
//! the limit on open files once ends the accepting thread for good; a header line of 100 MB is kept in
//! memory; idle connections are never closed; each connection costs a thread without bound; and its TLS is
//! rustls 0.20 (RUSTSEC-2024-0336).
//!
//! **How it works here.** One thread for each processor waits with epoll for its own connections, and all
//! of them for new ones. A request is answered by the thread that read it, from memory, in microseconds;
//! so a slow or silent client costs its socket and a few bytes, never a thread. A request that must wait
//! for the database is handed, with its connection, to one of the `Workers`, blocking threads that answer
//! it and close. A connection that sends its request at once is answered and closed without ever being
//! registered with epoll: that is accept, read, write, close, the same calls as a bare responder makes.
//! Of connections that are open already, all requests that wait are answered before the answers are sent.

pub mod connection;
mod forwarded;
pub mod gate;
pub mod http;
pub mod message;
pub mod stream;
pub mod tls;
pub mod workers;

use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::log::log;
use crate::net::connection::{Connection, DEADLINE, End, Next, Slots, State, waits};
use crate::net::gate::Gate;
use crate::net::http::{Answer, Pages, Scratch};
use crate::net::message::{MAX_HEADERS, Parsed, parse};
use crate::net::stream::Stream;
use crate::net::tls::Certificates;
use crate::net::workers::{Desk, Workers};
use crate::sync::join;
use crate::sys::{Events, Interest, Poll};
use crate::tracker::Tracker;

/// How long a connection may stay open between two requests.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long open connections are served after the order to stop.
const STOP: Duration = Duration::from_secs(2);
/// The most connections at a time, if the limit on open files allows as many.
const MAX_CONNECTIONS: usize = 16_384;
/// Files that are not connections: databases, certificates, the log.
const OTHER_FILES: usize = 128;
/// Seconds after which the kernel hands over a connection that says nothing.
const DEFER: u32 = 5;
/// The connections that may wait for accept().
const BACKLOG: u32 = 4_096;
/// The most connections accepted in a round: those that are open want to be answered too.
const MAX_ACCEPTS: usize = 16;
/// What one read can take.
const READ_SIZE: usize = 16 * 1024;
/// With more bytes of answers, these are sent before more requests are read.
const MAX_OUT: usize = 64 * 1024;

/// A socket that waits for connections.
pub struct Door {
    /// The socket.
    pub listener: TcpListener,
    /// Whether its connections are HTTPS.
    pub tls: bool,
}

/// The threads that serve HTTP.
pub struct Listeners {
    threads: Vec<JoinHandle<()>>,
    workers: Arc<Workers>,
    wake: UnixStream,
    stopping: Arc<AtomicBool>,
}

impl Listeners {
    /// Starts the threads that serve all `doors`, those of HTTPS with `certificates`. The process may have `files`
    /// open files.
    pub fn start(
        tracker: &Arc<Tracker>,
        pages: Pages,
        doors: Vec<Door>,
        certificates: Option<Arc<Certificates>>,
        files: libc::rlim_t,
    ) -> io::Result<Listeners> {
        for door in &doors {
            crate::sys::tune_listener(&door.listener, DEFER, BACKLOG)?;
            door.listener.set_nonblocking(true)?;
        }
        let doors: Arc<[Door]> = doors.into();
        let (wake, woken) = UnixStream::pair()?;
        let woken = Arc::new(woken);
        let stopping = Arc::new(AtomicBool::new(false));
        let most = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(OTHER_FILES).clamp(16, MAX_CONNECTIONS);
        let gate = Arc::new(Gate::new(most, tracker.stats.open.clone()));
        let desk = Desk::new(tracker.clone(), pages);
        let workers = desk.workers();
        let mut threads = Vec::new();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        for i in 0..processors {
            let poll = Poll::new()?;
            poll.add(&*woken, Interest::Read, WAKE)?;
            let mut serving = Serving {
                tracker: tracker.clone(),
                pages,
                certificates: certificates.clone(),
                doors: doors.clone(),
                listening: false,
                gate: gate.clone(),
                desk: desk.clone(),
                poll,
                slots: Slots::default(),
                scratch: Scratch::default(),
                buffer: vec![0; READ_SIZE],
                out: Vec::new(),
                answered: Vec::new(),
                stopping: stopping.clone(),
                woken: woken.clone(),
            };
            serving.listen()?;
            threads.push(Builder::new().name(format!("http {i}")).spawn(move || serving.run())?);
        }
        Ok(Listeners { threads, workers, wake, stopping })
    }

    /// Stops accepting, and answers what is in flight.
    pub fn stop(mut self) {
        self.stopping.store(true, Relaxed);
        // Nobody reads this byte: it wakes every thread, however often they look.
        let _ = self.wake.write_all(&[0]);
        // The workers end when those are gone who hand requests over.
        let deadline = Instant::now() + STOP + Duration::from_millis(500);
        let ended = join(self.threads.drain(..), deadline) + self.workers.join(deadline);
        if ended > 0 {
            log(format!("{ended} threads had ended by a defect of goat: please report it"));
        }
    }
}

/// The tokens of a [`Poll`]: the call to stop, the doors, and from there on the slots of connections.
const WAKE: u64 = 0;
const DOORS: u64 = 1;
const SLOTS: u64 = 8;

/// One thread that serves connections.
struct Serving {
    tracker: Arc<Tracker>,
    pages: Pages,
    certificates: Option<Arc<Certificates>>,
    doors: Arc<[Door]>,
    /// Whether the doors are open to this thread.
    listening: bool,
    gate: Arc<Gate>,
    desk: Desk,
    poll: Poll,
    slots: Slots,
    scratch: Scratch,
    buffer: Vec<u8>,
    /// Answers to be sent: of these connections, so many bytes to each.
    out: Vec<u8>,
    answered: Vec<(Connection, usize, End)>,
    stopping: Arc<AtomicBool>,
    woken: Arc<UnixStream>,
}

impl Serving {
    fn run(&mut self) {
        let mut events = Events::new(64);
        let mut ready = Vec::new();
        let mut swept = Instant::now();
        let mut stop_at = None;
        loop {
            let resting = self.listening && self.slots.are_free();
            ready.extend(self.poll.wait(&mut events, if resting { -1 } else { 250 }));
            let now = Instant::now();
            let share = ready.len().min(MAX_ACCEPTS);
            for token in ready.drain(..) {
                match token {
                    WAKE => {}
                    DOORS..SLOTS => self.accept((token - DOORS) as usize, share, now),
                    SLOTS.. => self.turn((token - SLOTS) as usize, now),
                }
            }
            self.send_answers(now);
            if now.duration_since(swept) > Duration::from_millis(200) {
                swept = now;
                self.sweep(now);
                if !self.listening && stop_at.is_none() {
                    // Where it fails, the next sweep tries again.
                    let _ = self.listen();
                }
            }
            if self.stopping.load(Relaxed) {
                let stop_at = *stop_at.get_or_insert_with(|| {
                    self.stop_listening();
                    let _ = self.poll.remove(&*self.woken);
                    now + STOP
                });
                self.slots.end_where(|connection| connection.rests());
                if self.slots.are_free() || now > stop_at {
                    return;
                }
            }
        }
    }

    fn listen(&mut self) -> io::Result<()> {
        for (door, token) in self.doors.iter().zip(DOORS..SLOTS) {
            // One may be open already, if it was another that failed.
            match self.poll.add(&door.listener, Interest::Accept, token) {
                Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
        }
        self.listening = true;
        Ok(())
    }

    fn stop_listening(&mut self) {
        for door in &*self.doors {
            let _ = self.poll.remove(&door.listener);
        }
        self.listening = false;
    }

    /// Accepts at most so many that wait: as many as others have their turn in this round. To try once more
    /// than connections wait costs more than to hear of the next from epoll.
    fn accept(&mut self, door: usize, most: usize, now: Instant) {
        let doors = self.doors.clone();
        let Some(door) = doors.get(door) else { return };
        // Those that end with their answer make room.
        self.send_answers(now);
        for turn in 0..most {
            if self.gate.full() && !self.make_room(turn, now) {
                return;
            }
            match door.listener.accept() {
                Ok((socket, from)) => self.welcome(socket, door.tls, from.ip().to_canonical(), now),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                // No descriptor to be had, which the kernel says also where nobody waits.
                Err(e)
                    if [Some(libc::EMFILE), Some(libc::ENFILE), Some(libc::ENOBUFS), Some(libc::ENOMEM)]
                        .contains(&e.raw_os_error()) =>
                {
                    if !self.make_room(turn, now) {
                        return;
                    }
                }
                // The client has gone before it was its turn, or the network says so: the next one.
                Err(_) => {}
            }
        }
    }

    /// Closes a connection for one that waits. That one does is certain only in the first turn; of the next
    /// epoll will tell.
    fn make_room(&mut self, turn: usize, now: Instant) -> bool {
        let made = turn == 0 && self.close_one(now);
        if turn == 0 && !made {
            // A thread that has nobody to close leaves it to the others until its next sweep; the client waits
            // in the kernel.
            self.stop_listening();
        }
        made
    }

    /// Closes the connection that is needed least: one that is idle, else one that has been at its request
    /// for the longest. Most clients send theirs in one piece, and are never found here. Returns whether
    /// there was one.
    fn close_one(&mut self, now: Instant) -> bool {
        let oldest = self.slots.iter().filter(|(_, c)| !c.is_new(now)).min_by_key(|(_, c)| (!c.rests(), c.deadline));
        let Some(slot) = oldest.map(|(slot, _)| slot) else { return false };
        self.slots.release(slot);
        true
    }

    /// Serves a new connection, and keeps it only if it has not said everything yet.
    fn welcome(&mut self, socket: TcpStream, tls: bool, peer: IpAddr, now: Instant) {
        let Some(place) = self.gate.enter(&self.tracker.config, peer) else {
            return;
        };
        let certificate = self.certificates.as_ref().filter(|_| tls).map(|certificates| certificates.in_use());
        let Ok(stream) = Stream::new(socket, certificate) else {
            return;
        };
        self.tracker.stats.connections.fetch_add(1, Relaxed);
        let mut connection = Connection::new(stream, peer, place, tls, now);
        let next = self.read(&mut connection, now);
        self.follow(connection, next, now);
        // Who comes alone mostly goes after it.
        self.send_answers(now);
    }

    /// Lets a connection do what it is ready for.
    fn turn(&mut self, slot: usize, now: Instant) {
        // Out of its place while it is used, so that the rest of `self` is free.
        let Some(mut connection) = self.slots.take(slot) else { return };
        let next = match connection.state {
            State::Idle | State::Reading => self.read(&mut connection, now),
            State::Writing { .. } => self.flush(&mut connection, now),
            State::Draining => connection.drain(&mut self.buffer),
        };
        self.follow(connection, next, now);
    }

    /// Does what follows from a connection's turn.
    fn follow(&mut self, mut connection: Connection, next: Next, now: Instant) {
        match next {
            Next::Keep if connection.fits() => return self.keep(connection),
            Next::Send(size, end) => {
                self.answered.push((connection, size, end));
                if self.out.len() > MAX_OUT {
                    self.send_answers(now);
                }
                return;
            }
            _ => {}
        }
        if let Some((slot, _)) = connection.waits_at {
            self.slots.release(slot);
        }
        if let Next::Work(request) = next {
            if connection.waits_at.is_some() {
                let _ = self.poll.remove(&connection.stream);
            }
            self.desk.hand_over(connection, request);
        }
    }

    /// Lets a connection wait for what comes next; where that cannot be had, it ends.
    fn keep(&mut self, mut connection: Connection) {
        let interest = if connection.writes() { Interest::Write } else { Interest::Read };
        let slot = connection.waits_at.map_or_else(|| self.slots.claim(), |(slot, _)| slot);
        let token = slot as u64 + SLOTS;
        let done = match connection.waits_at.replace((slot, interest)) {
            Some((_, before)) if before == interest => Ok(()),
            Some(_) => self.poll.change(&connection.stream, interest, token),
            None => self.poll.add(&connection.stream, interest, token),
        };
        match done {
            Ok(()) => self.slots.put(slot, connection),
            Err(_) => self.slots.release(slot),
        }
    }

    /// Sends the answers made in this round. One after the other they cost less than each after its request.
    fn send_answers(&mut self, now: Instant) {
        self.tracker.journal.write(&mut self.scratch.buffers.records);
        let (mut out, mut answered) = (std::mem::take(&mut self.out), std::mem::take(&mut self.answered));
        let mut rest = out.as_slice();
        for (mut connection, size, end) in answered.drain(..) {
            let (answer, later) = rest.split_at_checked(size).unwrap_or_default();
            rest = later;
            let next = connection.send(answer, end, now);
            self.follow(connection, next, now);
        }
        out.clear();
        out.shrink_to(2 * MAX_OUT);
        (self.out, self.answered) = (out, answered);
    }

    /// Reads and answers what there is.
    fn read(&mut self, connection: &mut Connection, now: Instant) -> Next {
        loop {
            let next = self.read_some(connection, now);
            if !matches!(next, Next::Keep) || connection.writes() || !connection.stream.has_more() {
                return next;
            }
        }
    }

    /// Reads once, answers every whole request in it, and writes the answers at once.
    fn read_some(&mut self, connection: &mut Connection, now: Instant) -> Next {
        let read = match connection.stream.read(&mut self.buffer) {
            Ok(0) => return Next::Close,
            Ok(read) => read,
            Err(e) if waits(&e) => {
                if connection.stream.wants_write() {
                    // In the middle of a handshake.
                    connection.state = State::Writing { close: false };
                }
                return Next::Keep;
            }
            Err(_) => return Next::Close,
        };
        if connection.state == State::Idle {
            connection.deadline = now + DEADLINE;
        }
        // Most requests come in one piece, and are answered from where they were read.
        let mut input = std::mem::take(&mut connection.input);
        let kept = !input.is_empty();
        let buffer = std::mem::take(&mut self.buffer);
        let data = buffer.get(..read).unwrap_or_default();
        let next = if kept {
            input.extend_from_slice(data);
            self.answer(connection, &input, now)
        } else {
            self.answer(connection, data, now)
        };
        let data = if kept { &input } else { data };
        let (used, next) = next;
        let rest = data.get(used..).unwrap_or_default();
        if !rest.is_empty() && !matches!(next, Next::Close | Next::Send(_, End::Close)) {
            connection.input = rest.to_vec();
        }
        self.buffer = buffer;
        next
    }

    /// Answers the whole requests at the start of `data`; returns how many bytes they were.
    fn answer(&mut self, connection: &mut Connection, data: &[u8], now: Instant) -> (usize, Next) {
        let mut out = std::mem::take(&mut self.out);
        let before = out.len();
        let (mut used, mut close, mut work) = (0, false, None);
        let mut failed = None;
        while !close && work.is_none() && used < data.len() {
            let rest = data.get(used..).unwrap_or_default();
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            match parse(rest, connection.peer, &mut headers) {
                Parsed::Partial => break,
                Parsed::Bad(status, message) => {
                    failed = Some(message::error(rest, status, message));
                    close = true;
                }
                Parsed::Whole { mut request, size } => {
                    request.secure = connection.stream.is_tls();
                    request.keep_alive &= !self.gate.crowded() && !self.stopping.load(Relaxed);
                    match http::answer(&self.tracker, &self.pages, &request, &mut self.scratch, &mut out) {
                        Answer::Written => {
                            close = !request.keep_alive;
                            used += size;
                        }
                        Answer::Slow => work = Some(size),
                    }
                }
            }
        }
        if let Some(error) = &failed {
            out.extend_from_slice(error);
        }
        let partial = used < data.len();
        connection.state = if partial { State::Reading } else { State::Idle };
        if used > 0 {
            connection.deadline = now + if partial { DEADLINE } else { KEEP_ALIVE };
        }
        let answers = out.get(before..).unwrap_or_default();
        let end = match (&failed, close) {
            (Some(_), _) => End::Failed,
            (None, true) => End::Close,
            (None, false) => End::Open,
        };
        if work.is_some() || connection.stream.is_tls() {
            self.tracker.journal.write(&mut self.scratch.buffers.records);
        }
        let next = match work {
            Some(size) => {
                connection.output.extend_from_slice(answers);
                Next::Work(size)
            }
            // TLS may have to say more before it can go on.
            None if connection.stream.is_tls() => connection.send(answers, end, now),
            None if answers.is_empty() => Next::Keep,
            None => Next::Send(answers.len(), end),
        };
        if !matches!(next, Next::Send(..)) {
            out.truncate(before);
        }
        self.out = out;
        (used, next)
    }

    /// Writes what could not be written before.
    fn flush(&mut self, connection: &mut Connection, now: Instant) -> Next {
        let State::Writing { close } = connection.state else {
            return Next::Keep;
        };
        let output = std::mem::take(&mut connection.output);
        let end = if close { End::Close } else { End::Open };
        let made = connection.deadline;
        match connection.send(&output, end, now) {
            Next::Keep if connection.stream.wants_write() || !connection.output.is_empty() => {
                // Its time runs from when the answer was made, not from the last byte that was taken.
                connection.deadline = made;
                Next::Keep
            }
            Next::Keep if connection.state != State::Draining => {
                let shaking = connection.stream.is_handshaking();
                let partial = shaking || !connection.input.is_empty();
                connection.state = if partial { State::Reading } else { State::Idle };
                connection.deadline = if shaking { made } else { now + if partial { DEADLINE } else { KEEP_ALIVE } };
                // Requests may have come meanwhile, which no event will tell of again.
                let input = std::mem::take(&mut connection.input);
                let (used, next) = self.answer(connection, &input, now);
                connection.input = input.get(used..).unwrap_or_default().to_vec();
                let more = matches!(next, Next::Keep) && !connection.writes() && connection.stream.has_more();
                if more { self.read(connection, now) } else { next }
            }
            next => next,
        }
    }

    /// Ends the connections whose time is up; who is in the middle of a request is told why.
    fn sweep(&mut self, now: Instant) {
        self.slots.end_where(|connection| {
            if connection.deadline > now {
                return false;
            }
            if connection.state == State::Reading {
                let late = message::error(&connection.input, 408, "The request was not whole after 10 seconds");
                connection.send(&late, End::Failed, now);
            }
            // A byte that comes at this moment would reset the connection, and 408 be lost.
            connection.state != State::Draining || connection.deadline <= now
        });
    }
}
