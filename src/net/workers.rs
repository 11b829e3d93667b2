//! The blocking threads: they answer the requests that have to wait for the database.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crate::auth::Failure;
use crate::log::log;
use crate::net::connection::Connection;
use crate::net::http::{self, Pages, Scratch};
use crate::net::message::{self, MAX_HEADERS, Parsed, Request, parse};
use crate::sync::{join, lock};
use crate::tracker::Tracker;

/// The most requests that wait for a worker.
const MAX_WAITING: usize = 1_024;
/// Many workers should cost little memory: of this only what is used becomes real, by a request little, by
/// compression a few hundred KiB.
const STACK: usize = 1024 * 1024;
/// How long a client may take for an answer, which may be a list of many torrents.
const ANSWER: Duration = Duration::from_secs(60);

const BUSY: &str = "Too busy: try again in a minute";

/// A request that waits for a worker: the first bytes of a connection's input.
struct Job {
    connection: Connection,
    request: usize,
}

/// Takes requests for the workers. They end when the last of these is gone.
#[derive(Clone)]
pub struct Desk {
    jobs: SyncSender<Job>,
    workers: Arc<Workers>,
}

/// The threads, started as they are needed.
pub struct Workers {
    tracker: Arc<Tracker>,
    pages: Pages,
    waiting: Mutex<Receiver<Job>>,
    queued: AtomicUsize,
    idle: AtomicUsize,
    /// How many answer the API.
    api: AtomicUsize,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Desk {
    /// A desk whose workers have not been started yet.
    pub fn new(tracker: Arc<Tracker>, pages: Pages) -> Desk {
        let (jobs, waiting) = sync_channel(MAX_WAITING);
        let (queued, idle, api) = Default::default();
        let workers =
            Workers { tracker, pages, waiting: Mutex::new(waiting), queued, idle, api, threads: Mutex::default() };
        Desk { jobs, workers: Arc::new(workers) }
    }

    /// Those who will do the work.
    pub fn workers(&self) -> Arc<Workers> {
        self.workers.clone()
    }

    /// Has a worker answer the request that is the first `request` bytes of the connection's input, and
    /// close the connection.
    pub fn hand_over(&self, connection: Connection, request: usize) {
        self.workers.queued.fetch_add(1, Relaxed);
        match self.jobs.try_send(Job { connection, request }) {
            Ok(()) => self.workers.staff(),
            Err(TrySendError::Full(mut job) | TrySendError::Disconnected(mut job)) => {
                self.workers.queued.fetch_sub(1, Relaxed);
                let busy = message::error(&job.connection.input, 503, BUSY);
                let _ = job.connection.stream.send(&busy, true);
            }
        }
    }
}

impl Workers {
    /// Starts one more, unless one is idle for each request that waits, or there are enough.
    fn staff(self: &Arc<Workers>) {
        let mut threads = lock(&self.threads);
        if self.idle.load(Relaxed) >= self.queued.load(Relaxed) || threads.len() >= self.tracker.config.workers {
            return;
        }
        let workers = self.clone();
        match Builder::new().name("worker".into()).stack_size(STACK).spawn(move || workers.work()) {
            Ok(thread) => threads.push(thread),
            Err(e) => log(format!("cannot start a worker, {} have to do: {e}", threads.len())),
        }
    }

    /// Answers requests until there is no desk any more.
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
            let input = connection.input.get(..request).unwrap_or_default();
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            if let Parsed::Whole { request, .. } = parse(input, connection.peer, &mut headers) {
                let secure = connection.stream.is_tls();
                let request = Request { keep_alive: false, secure, ..request };
                let client = connection.stream.patient(Instant::now() + ANSWER);
                // Who reads the API slowly must leave half of the workers to those who want to announce.
                let api = usize::from((self.pages.serves)(&self.tracker, request.target));
                let crowded = self.api.fetch_add(api, Relaxed) >= self.tracker.config.workers.div_ceil(2);
                // Who does not read their answer does not get it.
                let _ = client.and_then(|mut client| {
                    client.write_all(&connection.output)?;
                    if api == 1 && crowded {
                        let mut out = Vec::new();
                        (self.pages.fail)(&self.tracker, &request, &Failure(503, BUSY.into()), &mut out);
                        return client.write_all(&out);
                    }
                    http::answer_slowly(&self.tracker, &self.pages, &request, &mut scratch, &mut client)
                });
                self.api.fetch_sub(api, Relaxed);
            }
            self.tracker.stats.busy.fetch_sub(1, Relaxed);
        }
    }

    /// Waits for the threads to end, once there is no desk any more; see [`join`].
    pub fn join(&self, deadline: Instant) -> usize {
        join(std::mem::take(&mut *lock(&self.threads)), deadline)
    }
}
