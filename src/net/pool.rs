//! The pool of threads: how they wait for events and for jobs, and the connections that wait meanwhile.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{setsockopt, sockopt::TcpNoDelay};

use crate::log::log;
use crate::net::connection::{Connection, State};
use crate::net::http::{Pages, Scratch};
use crate::net::jobs::{AGAIN, Job, Jobs, Kind};
use crate::net::message::MAX_HEAD;
use crate::net::tls::Certificates;
use crate::rules::limits::{Limits, Permit, Reason, site};
use crate::sync::{join, lock};
use crate::tracker::Tracker;

/// How long open connections are served after the order to stop.
const STOP: Duration = Duration::from_secs(2);
/// How long then those are waited for who have an answer to send, but no connection; longer than a thread of datagrams
/// waits for one.
const EXTRA: Duration = Duration::from_millis(500);
/// Seconds after which the kernel hands over a connection that says nothing.
const DEFER: i32 = 5;
const ROUND: usize = 16;
/// How many connections are closed at a time to make room: to find them costs more than to close them.
const EVICT: usize = 16;
/// How often it is looked whose time is up, and how long a thread waits where there is nobody.
const SWEEP: u16 = 250;
const IDLE_WAIT: u16 = 5_000;
/// When half of so many connections have ended, what they held is given back, at most so often.
const MANY: usize = 128;
const TRIM: Duration = Duration::from_secs(5);
/// Many threads should cost little memory: of this only what is used becomes real.
const STACK: usize = 1024 * 1024;

/// What epoll says of an event: that a thread is called, of a listener, or of the descriptor of a connection.
pub(super) const CALL: u64 = u64::MAX;
pub(super) const LISTENERS: u64 = 1 << 40;

pub struct Listener {
    pub socket: TcpListener,
    /// Those of HTTPS.
    pub certificates: Option<Arc<Certificates>>,
}

type Work = Box<dyn FnOnce(&Arc<Pool>, &mut Worker) + Send>;

pub struct Pool {
    pub(super) tracker: Arc<Tracker>,
    pub(super) pages: Pages,
    pub(super) listeners: Vec<Listener>,
    epoll: Epoll,
    call: EventFd,
    /// The connections that wait, by their descriptors. Who serves one has taken it out.
    pub(super) slots: Vec<Mutex<Option<Box<Connection>>>>,
    /// No connection has had a higher descriptor.
    highest: AtomicUsize,
    jobs: Mutex<Jobs<Work>>,
    processors: usize,
    /// How many threads wait for events, or are about to.
    waiting: AtomicUsize,
    /// The last thread could not be started, which is said once.
    starved: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
    swept: Mutex<Swept>,
    /// By when everything ends; set by the order to stop.
    stopping: OnceLock<Instant>,
}

struct Swept {
    at: Instant,
    /// When memory was given back last, and the most connections that were open since.
    trimmed: Instant,
    most: usize,
}

#[derive(Default)]
pub struct Worker {
    pub scratch: Scratch,
    /// The answers of this round: so many bytes for each of these, and whether its connection stays open.
    pub(super) out: Vec<u8>,
    pub(super) answered: Vec<(Box<Connection>, usize, bool)>,
}

impl Pool {
    pub fn start(tracker: &Arc<Tracker>, pages: Pages, listeners: Vec<Listener>) -> io::Result<Arc<Pool>> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let call = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        // Each write to it wakes one thread, though nobody reads it.
        epoll.add(&call, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, CALL))?;
        for (listener, token) in listeners.iter().zip(LISTENERS..) {
            let socket = &listener.socket;
            // Connections inherit it.
            setsockopt(socket, TcpNoDelay, &true)?;
            crate::sys::defer_accept(socket, DEFER)?;
            socket.set_nonblocking(true)?;
            epoll.add(socket, once(EpollFlags::EPOLLIN, token))?;
        }
        let pool = Arc::new(Pool {
            tracker: tracker.clone(),
            pages,
            listeners,
            epoll,
            call,
            slots: (0..Limits::descriptors(crate::sys::file_limit())).map(|_| Mutex::default()).collect(),
            highest: AtomicUsize::new(0),
            jobs: Mutex::default(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            waiting: AtomicUsize::new(0),
            starved: AtomicBool::new(false),
            threads: Mutex::default(),
            swept: Mutex::new(Swept { at: Instant::now(), trimmed: Instant::now(), most: 0 }),
            stopping: OnceLock::new(),
        });
        while pool.claim() {
            pool.spawn()?;
        }
        Ok(pool)
    }

    /// Stops accepting, and answers what is in flight. Threads that still wait for the database end with the process.
    pub fn stop(&self) {
        let begin = Instant::now();
        let _ = self.stopping.set(begin + STOP);
        for listener in &self.listeners {
            let _ = self.epoll.delete(&listener.socket);
        }
        self.call();
        let ended = || lock(&self.threads).iter().all(JoinHandle::is_finished);
        let patience = || if self.tracker.limits.open() == 0 { EXTRA } else { STOP + EXTRA };
        while !ended() && begin.elapsed() < patience() {
            sleep(AGAIN);
        }
        let threads = std::mem::take(&mut *lock(&self.threads));
        let defects = join(threads, begin);
        if defects > 0 {
            log(format!("{defects} threads ended because of a bug in goat: please report it"));
        }
    }

    pub fn submit(&self, who: Option<IpAddr>, kind: Kind, work: impl FnOnce(&Arc<Pool>, &mut Worker) + Send + 'static) {
        lock(&self.jobs).push(Job { who, kind, work: Box::new(work) });
        self.call();
    }

    fn call(&self) {
        let _ = self.call.write(1);
    }

    /// Takes a place among the threads that wait, of which there are as many as processors.
    fn claim(&self) -> bool {
        let one_more = |waiting: usize| (waiting < self.processors).then_some(waiting + 1);
        self.waiting.fetch_update(AcqRel, Acquire, one_more).is_ok()
    }

    fn spawn(self: &Arc<Pool>) -> io::Result<()> {
        let pool = self.clone();
        self.start_thread("http", move || pool.work())
    }

    /// Starts a thread that ends after the order to stop, which is waited for.
    pub fn start_thread(&self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut threads = lock(&self.threads);
        threads.retain(|thread| !thread.is_finished());
        threads.push(Builder::new().name(name.into()).stack_size(STACK).spawn(work)?);
        Ok(())
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.get().is_some()
    }

    /// Sees to it that another thread waits while this one cannot. Returns false where none can be had.
    fn leave_a_waiter(self: &Arc<Pool>) -> bool {
        if !self.claim() {
            return true;
        }
        let started = self.spawn();
        let said = self.starved.swap(started.is_err(), Relaxed);
        let Err(e) = started else { return true };
        if !said {
            log(format!("cannot start a thread, so requests have to wait: {e}"));
        }
        self.waiting.fetch_sub(1, AcqRel) > 1
    }

    /// What a thread does, which begins with a place among those that wait.
    fn work(self: &Arc<Pool>) {
        let (mut worker, mut buffer) = (Worker::default(), vec![0; MAX_HEAD]);
        let mut events = [EpollEvent::empty(); ROUND];
        loop {
            let count = self.epoll.wait(&mut events, self.timeout()).unwrap_or(0);
            self.waiting.fetch_sub(1, AcqRel);
            let now = Instant::now();
            self.round(events.get(..count).unwrap_or_default(), &mut buffer, now, &mut worker);
            self.sweep(now);
            while let Some((work, permits)) = self.next_job() {
                work(self, &mut worker);
                drop(permits);
                lock(&self.jobs).changed();
            }
            if self.stopping.get().is_some_and(|end| now > *end || self.tracker.limits.open() == 0) {
                // The next one looks, too.
                self.call();
                return;
            }
            if !self.claim() {
                return;
            }
        }
    }

    /// How long a thread waits for events, in milliseconds.
    fn timeout(&self) -> u16 {
        if self.is_stopping() || !lock(&self.jobs).is_empty() {
            return AGAIN.as_millis() as u16;
        }
        if self.tracker.limits.open() == 0 { IDLE_WAIT } else { SWEEP }
    }

    /// The next job, and what it holds of its shares; not if no other thread would wait meanwhile.
    fn next_job(self: &Arc<Pool>) -> Option<(Work, [Option<Permit>; 2])> {
        let mut jobs = lock(&self.jobs);
        let (job, permits) = jobs.next(&self.tracker.limits, Instant::now())?;
        if !self.leave_a_waiter() {
            jobs.push(job);
            return None;
        }
        if !jobs.is_empty() {
            self.call();
        }
        Some((job.work, permits))
    }

    pub(super) fn listen(&self, number: usize) {
        if let Some(listener) = self.listeners.get(number) {
            // Where it fails, the next sweep tries again.
            let _ = self.epoll.modify(&listener.socket, &mut once(EpollFlags::EPOLLIN, LISTENERS + number as u64));
        }
    }

    /// Closes a few connections, of those that `which` says yes to: of the network that has most of them first such as
    /// are idle, then such as have been at their request for the longest. Returns whether there were any.
    pub(super) fn evict(&self, reason: Reason, which: impl Fn(&Connection) -> bool) -> bool {
        let mut found = Vec::new();
        let mut counts: HashMap<Option<IpAddr>, usize> = HashMap::new();
        for slot in self.used_slots() {
            if let Some(connection) = lock(slot).as_ref().filter(|c| which(c)) {
                let whose = connection.who.map(site);
                *counts.entry(whose).or_default() += 1;
                found.push((whose, !connection.is_idle(), connection.deadline, slot));
            }
        }
        found.sort_unstable_by_key(|(whose, busy, deadline, _)| (Reverse(counts.get(whose)), *busy, *deadline));
        for (_, _, deadline, slot) in found.iter().take(EVICT) {
            let closed = lock(slot).take_if(|connection| connection.deadline == *deadline);
            if let Some(connection) = closed {
                self.tracker.limits.refuse(reason, connection.peer);
            }
        }
        !found.is_empty()
    }

    /// Closes a connection whose request waits for a thread, of whom has most of them. Returns whether there was one.
    pub(super) fn evict_queued(&self) -> bool {
        let evicted = lock(&self.jobs).evict();
        let whose = evicted.as_ref().map(|job| job.who.unwrap_or(Ipv4Addr::LOCALHOST.into()));
        whose.inspect(|ip| self.tracker.limits.refuse(Reason::Evicted, *ip)).is_some()
    }

    fn used_slots(&self) -> &[Mutex<Option<Box<Connection>>>] {
        self.slots.get(..=self.highest.load(Relaxed)).unwrap_or(&self.slots)
    }

    /// Lets a connection wait for what comes next; where there is no room for it, it ends.
    pub(super) fn keep(&self, mut connection: Box<Connection>) {
        let descriptor = connection.stream.socket().as_raw_fd() as usize;
        let Some(slot) = self.slots.get(descriptor) else {
            return self.tracker.limits.refuse(Reason::Descriptors, connection.peer);
        };
        if let Err(reason) = connection.account(&self.tracker.limits) {
            return self.tracker.limits.refuse(reason, connection.peer);
        }
        let interest = if connection.state == State::Pending { EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
        let mut event = once(interest, descriptor as u64);
        self.highest.fetch_max(descriptor, Relaxed);
        // Whom the event wakes finds the connection in its place.
        let mut slot = lock(slot);
        let armed = match std::mem::replace(&mut connection.registered, true) {
            true => self.epoll.modify(connection.stream.socket(), &mut event),
            false => self.epoll.add(connection.stream.socket(), event),
        };
        *slot = armed.is_ok().then_some(connection);
    }

    /// Ends the connections whose time is up, unless somebody did so lately. Gives memory back where many have ended.
    fn sweep(&self, now: Instant) {
        let stopping = self.is_stopping();
        let Ok(mut swept) = self.swept.try_lock() else { return };
        if !stopping && now.saturating_duration_since(swept.at) < Duration::from_millis(SWEEP.into()) {
            return;
        }
        swept.at = now;
        let open = self.tracker.limits.open();
        swept.most = swept.most.max(open);
        if swept.most >= MANY && open < swept.most / 2 && now.saturating_duration_since(swept.trimmed) > TRIM {
            crate::sys::give_memory_back();
            swept.trimmed = now;
            swept.most = open;
        }
        for slot in self.used_slots() {
            let ends = |c: &mut Box<Connection>| c.is_over(now) || stopping && c.is_idle() && !c.stream.has_unread();
            let ended = lock(slot).take_if(ends);
            if let Some(connection) = ended.filter(|connection| connection.state == State::Pending) {
                self.tracker.limits.refuse(Reason::Unread, connection.peer);
            }
        }
        if !stopping {
            // One that found no descriptor was left alone since.
            (0..self.listeners.len()).for_each(|number| self.listen(number));
        }
    }
}

fn once(interest: EpollFlags, token: u64) -> EpollEvent {
    EpollEvent::new(interest | EpollFlags::EPOLLONESHOT, token)
}
