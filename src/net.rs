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

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::gate::{Gate, Place};
use crate::http::{self, Answer, Scratch};
use crate::log::log;
use crate::message::{self, MAX_HEADERS, Parsed, Request, parse};
use crate::server::Tracker;
use crate::swarm::lock;
use crate::sys::{Events, Interest, Poll};

/// A request must be whole this long after its first byte, and an answer taken this long after it was
/// made.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection may stay open between two requests.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long bytes that nobody asked for are read and thrown away after an error, so that the client gets
/// to read why (closing at once would reset the connection).
const DRAIN: Duration = Duration::from_secs(2);
/// How long open connections are served after the order to stop.
const STOP: Duration = Duration::from_secs(3);
/// The most connections at a time, if the limit on open files allows as many.
const MAX_CONNECTIONS: usize = 16_384;
/// Files that are not connections: databases, certificates, the log.
const OTHER_FILES: usize = 128;
/// The most requests that wait for a worker.
const MAX_WAITING: usize = 1_024;
/// Seconds after which the kernel hands over a connection that says nothing.
const DEFER: u32 = 5;
/// The connections that may wait for accept().
const BACKLOG: u32 = 4_096;
/// Many workers should cost little memory: of this only what is used becomes real, by a request little, by
/// compression a few hundred KiB.
const WORKER_STACK: usize = 1024 * 1024;
/// What one read can take.
const READ_SIZE: usize = 16 * 1024;

/// One connection.
struct Connection {
    stream: TcpStream,
    peer: IpAddr,
    _place: Place,
    /// What was read and is not a whole request yet.
    input: Vec<u8>,
    /// What could not be written yet.
    output: Vec<u8>,
    state: State,
    deadline: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between two requests.
    Idle,
    /// In a request.
    Reading,
    /// An answer waits to be written; then the connection is closed, or not.
    Writing { close: bool },
    /// Everything was said; what still comes is thrown away.
    Draining,
}

/// What becomes of a connection after its turn.
enum Next {
    Keep,
    Close,
    /// Give it to a worker, with the request that ends after this many bytes of its input.
    Work(usize),
}

/// A request that waits for a worker.
struct Job {
    connection: Connection,
    request: usize,
}

/// The blocking threads, started as they are needed.
struct Workers {
    tracker: Arc<Tracker>,
    waiting: Mutex<Receiver<Job>>,
    queued: AtomicUsize,
    idle: AtomicUsize,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    /// Starts one more, unless one is idle for each request that waits, or there are enough.
    fn staff(self: &Arc<Workers>) {
        let mut threads = lock(&self.threads);
        if self.idle.load(Relaxed) >= self.queued.load(Relaxed) || threads.len() >= self.tracker.config.workers {
            return;
        }
        let workers = self.clone();
        let thread = std::thread::Builder::new().name("worker".into()).stack_size(WORKER_STACK);
        match thread.spawn(move || workers.work()) {
            Ok(thread) => threads.push(thread),
            Err(e) => log(format!("cannot start a worker, {} have to do: {e}", threads.len())),
        }
    }

    /// Answers requests that wait for the database, until no thread hands over any more.
    fn work(&self) {
        let mut scratch = Scratch::default();
        loop {
            self.idle.fetch_add(1, Relaxed);
            let job = lock(&self.waiting).recv();
            self.idle.fetch_sub(1, Relaxed);
            self.queued.fetch_sub(usize::from(job.is_ok()), Relaxed);
            let Ok(Job { mut connection, request }) = job else {
                return;
            };
            self.tracker.stats.busy.fetch_add(1, Relaxed);
            let stream = &mut connection.stream;
            let ready = stream.set_nonblocking(false).and_then(|()| stream.set_write_timeout(Some(DEADLINE)));
            let ready = ready.and_then(|()| stream.write_all(&connection.output));
            let input = connection.input.get(..request).unwrap_or_default();
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            if let (Ok(()), Parsed::Whole { request, .. }) = (ready, parse(input, connection.peer, &mut headers)) {
                let request = Request { keep_alive: false, ..request };
                // Who does not read their answer does not get it.
                let _ = http::answer_slowly(&self.tracker, &request, &mut scratch, stream);
            }
            self.tracker.stats.busy.fetch_sub(1, Relaxed);
        }
    }
}

/// The threads that serve HTTP.
pub struct Listeners {
    threads: Vec<JoinHandle<()>>,
    workers: Arc<Workers>,
    wake: UnixStream,
    stopping: Arc<AtomicBool>,
}

impl Listeners {
    /// Starts the threads that serve `listener`.
    pub fn start(tracker: &Arc<Tracker>, listener: TcpListener, files: libc::rlim_t) -> io::Result<Listeners> {
        crate::sys::tune_listener(&listener, DEFER, BACKLOG)?;
        listener.set_nonblocking(true)?;
        let listener = Arc::new(listener);
        let (wake, woken) = UnixStream::pair()?;
        let woken = Arc::new(woken);
        let stopping = Arc::new(AtomicBool::new(false));
        let most = usize::try_from(files).unwrap_or(usize::MAX).saturating_sub(OTHER_FILES).clamp(16, MAX_CONNECTIONS);
        let gate = Arc::new(Gate::new(most, tracker.stats.open.clone()));
        let (jobs, waiting) = sync_channel(MAX_WAITING);
        let mut threads = Vec::new();
        let workers = Arc::new(Workers {
            tracker: tracker.clone(),
            waiting: Mutex::new(waiting),
            queued: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            threads: Mutex::default(),
        });
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        for i in 0..processors {
            let poll = Poll::new()?;
            poll.add(&*listener, Interest::Accept, LISTENER)?;
            poll.add(&*woken, Interest::Read, WAKE)?;
            let mut serving = Serving {
                tracker: tracker.clone(),
                listener: listener.clone(),
                listening: true,
                gate: gate.clone(),
                jobs: jobs.clone(),
                workers: workers.clone(),
                poll,
                connections: Vec::new(),
                free: Vec::new(),
                scratch: Scratch::default(),
                buffer: vec![0; READ_SIZE],
                out: Vec::new(),
                stopping: stopping.clone(),
                _woken: woken.clone(),
            };
            threads.push(std::thread::Builder::new().name(format!("http {i}")).spawn(move || serving.run())?);
        }
        Ok(Listeners { threads, workers, wake, stopping })
    }

    /// Stops accepting, answers what is in flight, and waits for the threads to end.
    pub fn stop(mut self) {
        self.stopping.store(true, Relaxed);
        // Nobody reads this byte: it wakes every thread, however often they look.
        let _ = self.wake.write_all(&[0]);
        // The workers end when those are gone who hand requests over.
        let serving = self.threads.drain(..);
        let ended = serving.map(JoinHandle::join).filter(Result::is_err).count();
        let workers = std::mem::take(&mut *lock(&self.workers.threads));
        let ended = ended + workers.into_iter().map(JoinHandle::join).filter(Result::is_err).count();
        if ended > 0 {
            log(format!("{ended} threads had ended by a defect of goat: please report it"));
        }
    }
}

const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;

/// One thread that serves connections.
struct Serving {
    tracker: Arc<Tracker>,
    listener: Arc<TcpListener>,
    listening: bool,
    gate: Arc<Gate>,
    jobs: SyncSender<Job>,
    workers: Arc<Workers>,
    poll: Poll,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    scratch: Scratch,
    buffer: Vec<u8>,
    out: Vec<u8>,
    stopping: Arc<AtomicBool>,
    _woken: Arc<UnixStream>,
}

impl Serving {
    fn run(&mut self) {
        let mut events = Events::new(64);
        let mut ready = Vec::new();
        let mut swept = Instant::now();
        let mut stop_at = None;
        loop {
            let resting = self.listening && self.free.len() == self.connections.len();
            ready.extend(self.poll.wait(&mut events, if resting { -1 } else { 250 }));
            let now = Instant::now();
            for token in ready.drain(..) {
                match token {
                    LISTENER => self.accept(now),
                    WAKE => {}
                    token => self.turn(token as usize, now),
                }
            }
            if now.duration_since(swept) > Duration::from_millis(200) {
                swept = now;
                self.sweep(now);
                if !self.listening && stop_at.is_none() {
                    self.listening = self.poll.add(&*self.listener, Interest::Accept, LISTENER).is_ok();
                }
            }
            if self.stopping.load(Relaxed) {
                let stop_at = *stop_at.get_or_insert_with(|| {
                    let _ = self.poll.remove(&*self.listener);
                    let _ = self.poll.remove(&*self._woken);
                    self.listening = false;
                    now + STOP
                });
                let idle = |c: &Connection| matches!(c.state, State::Idle | State::Draining);
                for slot in 0..self.connections.len() {
                    if self.connections.get(slot).and_then(Option::as_ref).is_some_and(idle) {
                        self.close(slot);
                    }
                }
                if self.free.len() == self.connections.len() || now > stop_at {
                    return;
                }
            }
        }
    }

    fn close(&mut self, slot: usize) {
        if self.connections.get_mut(slot).and_then(Option::take).is_some() {
            self.free.push(slot);
        }
    }

    /// Accepts what waits, but not for ever: those that are connected want to be answered too.
    fn accept(&mut self, now: Instant) {
        for _ in 0..16 {
            match self.listener.accept() {
                Ok((stream, from)) => self.welcome(stream, from.ip().to_canonical(), now),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e)
                    if [Some(libc::EMFILE), Some(libc::ENFILE), Some(libc::ENOBUFS), Some(libc::ENOMEM)]
                        .contains(&e.raw_os_error()) =>
                {
                    // No descriptor to be had: close the connection that is needed least, else look away
                    // until the next sweep. The client waits in the kernel meanwhile.
                    if !self.close_idle() {
                        let _ = self.poll.remove(&*self.listener);
                        self.listening = false;
                        return;
                    }
                }
                // The client has gone before it was its turn, or the network says so: the next one.
                Err(_) => {}
            }
        }
    }

    /// Closes the idle connection that would end first. Returns whether there was one.
    fn close_idle(&mut self) -> bool {
        let open = self.connections.iter().enumerate().filter_map(|(slot, c)| Some((slot, c.as_ref()?)));
        let idle = open.filter(|(_, c)| matches!(c.state, State::Idle | State::Draining));
        let Some((slot, _)) = idle.min_by_key(|(_, c)| c.deadline) else {
            return false;
        };
        self.close(slot);
        true
    }

    /// Serves a new connection, and keeps it only if it has not said everything yet.
    fn welcome(&mut self, stream: TcpStream, peer: IpAddr, now: Instant) {
        if self.gate.full() && !self.close_idle() {
            return;
        }
        let Some(place) = self.gate.enter(&self.tracker.config, peer) else {
            return;
        };
        if stream.set_nonblocking(true).is_err() {
            return;
        }
        self.tracker.stats.connections.fetch_add(1, Relaxed);
        let mut connection = Connection {
            stream,
            peer,
            _place: place,
            input: Vec::new(),
            output: Vec::new(),
            state: State::Idle,
            deadline: now + DEADLINE,
        };
        match self.read(&mut connection, now) {
            Next::Close => {}
            Next::Work(request) => self.hand_over(connection, request),
            Next::Keep => {
                let slot = self.free.pop().unwrap_or(self.connections.len());
                let interest =
                    if matches!(connection.state, State::Writing { .. }) { Interest::Write } else { Interest::Read };
                if self.poll.add(&connection.stream, interest, slot as u64).is_err() {
                    self.free.push(slot);
                    self.connections.resize_with(self.connections.len().max(slot + 1), || None);
                    return;
                }
                match self.connections.get_mut(slot) {
                    Some(place) => *place = Some(connection),
                    None => self.connections.push(Some(connection)),
                }
            }
        }
    }

    /// Lets a connection do what it is ready for.
    fn turn(&mut self, slot: usize, now: Instant) {
        // Out of its place while it is used, so that the rest of `self` is free.
        let Some(mut connection) = self.connections.get_mut(slot).and_then(Option::take) else {
            return;
        };
        let writing = matches!(connection.state, State::Writing { .. });
        let mut next = match connection.state {
            State::Idle | State::Reading => self.read(&mut connection, now),
            State::Writing { .. } => self.flush(&mut connection, now),
            State::Draining => drain(&mut connection, &mut self.buffer),
        };
        if matches!(next, Next::Keep) && writing != matches!(connection.state, State::Writing { .. }) {
            let interest = if writing { Interest::Read } else { Interest::Write };
            if self.poll.change(&connection.stream, interest, slot as u64).is_err() {
                next = Next::Close;
            }
        }
        match next {
            Next::Keep => {
                if let Some(place) = self.connections.get_mut(slot) {
                    *place = Some(connection);
                }
            }
            Next::Close => self.free.push(slot),
            Next::Work(request) => {
                self.free.push(slot);
                let _ = self.poll.remove(&connection.stream);
                self.hand_over(connection, request);
            }
        }
    }

    fn hand_over(&mut self, connection: Connection, request: usize) {
        self.workers.queued.fetch_add(1, Relaxed);
        match self.jobs.try_send(Job { connection, request }) {
            Ok(()) => self.workers.staff(),
            Err(TrySendError::Full(mut job) | TrySendError::Disconnected(mut job)) => {
                self.workers.queued.fetch_sub(1, Relaxed);
                let busy = message::error(&job.connection.input, 503, "Too busy: try again in a minute");
                let _ = job.connection.stream.write(&busy);
            }
        }
    }

    /// Reads what there is, answers every whole request in it, and writes the answers at once.
    fn read(&mut self, connection: &mut Connection, now: Instant) -> Next {
        let read = match connection.stream.read(&mut self.buffer) {
            Ok(0) => return Next::Close,
            Ok(read) => read,
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Next::Keep,
            Err(e) if e.kind() == ErrorKind::Interrupted => return Next::Keep,
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
        if !rest.is_empty() && !matches!(next, Next::Close) {
            connection.input = rest.to_vec();
        }
        self.buffer = buffer;
        next
    }

    /// Answers the whole requests at the start of `data`; returns how many bytes they were.
    fn answer(&mut self, connection: &mut Connection, data: &[u8], now: Instant) -> (usize, Next) {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
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
                    request.keep_alive &= !self.gate.crowded() && !self.stopping.load(Relaxed);
                    match http::answer(&self.tracker, &request, &mut self.scratch, &mut out) {
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
        let next = match work {
            Some(size) => {
                connection.output.extend_from_slice(&out);
                Next::Work(size)
            }
            None => send(connection, &out, close, failed.is_some(), now),
        };
        self.out = out;
        (used, next)
    }

    /// Writes what could not be written before.
    fn flush(&mut self, connection: &mut Connection, now: Instant) -> Next {
        let State::Writing { close } = connection.state else {
            return Next::Keep;
        };
        let output = std::mem::take(&mut connection.output);
        match send(connection, &output, close, false, now) {
            Next::Keep if connection.output.is_empty() => {
                // Requests may have come meanwhile, which no event will tell of again.
                connection.state = if connection.input.is_empty() { State::Idle } else { State::Reading };
                let input = std::mem::take(&mut connection.input);
                let (used, next) = self.answer(connection, &input, now);
                connection.input = input.get(used..).unwrap_or_default().to_vec();
                next
            }
            next => next,
        }
    }

    /// Ends the connections whose time is up; who is in the middle of a request is told why.
    fn sweep(&mut self, now: Instant) {
        for slot in 0..self.connections.len() {
            let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_mut) else {
                continue;
            };
            if connection.deadline <= now {
                if connection.state == State::Reading {
                    let _ = connection.stream.write(&message::error(
                        &connection.input,
                        408,
                        "The request was not whole after 10 seconds",
                    ));
                }
                self.close(slot);
            }
        }
    }
}

/// Writes `out` as far as the socket takes it, and keeps the rest for later.
fn send(connection: &mut Connection, mut out: &[u8], close: bool, failed: bool, now: Instant) -> Next {
    while !out.is_empty() {
        match crate::sys::send(&connection.stream, out, close && !failed) {
            Ok(written @ 1..) => out = out.get(written..).unwrap_or_default(),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                connection.output = out.to_vec();
                connection.state = State::Writing { close };
                connection.deadline = now + DEADLINE;
                return Next::Keep;
            }
            _ => return Next::Close,
        }
    }
    if failed && connection.stream.shutdown(Shutdown::Write).is_ok() {
        connection.state = State::Draining;
        connection.deadline = now + DRAIN;
        return Next::Keep;
    }
    if close { Next::Close } else { Next::Keep }
}

/// Throws away what still comes.
fn drain(connection: &mut Connection, buffer: &mut [u8]) -> Next {
    match connection.stream.read(buffer) {
        Ok(1..) => Next::Keep,
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Next::Keep,
        _ => Next::Close,
    }
}
