//! What threads do with each other: lock, and wait for the end.

use std::sync::{Mutex, MutexGuard};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(10);

/// Locks, also after a panic elsewhere: a shard is consistent between any two statements that can panic.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Waits for threads to end, but not beyond a deadline: who then still waits for the database or for a slow
/// client ends with the process. Returns how many ended by a panic.
pub fn join(threads: impl IntoIterator<Item = JoinHandle<()>>, deadline: Instant) -> usize {
    let ended = |thread: &JoinHandle<()>| {
        while !thread.is_finished() && Instant::now() < deadline {
            sleep(LOOK);
        }
        thread.is_finished()
    };
    threads.into_iter().filter(ended).map(JoinHandle::join).filter(Result::is_err).count()
}
