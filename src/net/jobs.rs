//! What waits for a thread that may wait: by address, so that each address has its turn however much others ask for.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::protocol::network;
use crate::rules::limits::{Limits, Permit};

/// How soon it is looked again where nothing might be done, but for a job that came or ended.
pub const AGAIN: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Lookup,
    /// A look-up for a datagram.
    Datagram,
    Long,
}

/// A job of somebody; who has no share of their own is `None`.
pub struct Job<T> {
    pub who: Option<IpAddr>,
    pub kind: Kind,
    pub work: T,
}

type Key = (Option<IpAddr>, Kind);

/// The jobs that wait. There is room for all, for each has a permit already: of those that are queued, or as a datagram.
pub struct Jobs<T> {
    /// Of each address and kind. None is empty, and the first has its turn.
    queues: VecDeque<(Key, VecDeque<Job<T>>)>,
    /// Until when nothing can be done unless something changes.
    stuck: Option<Instant>,
}

impl<T> Default for Jobs<T> {
    fn default() -> Self {
        Jobs { queues: VecDeque::new(), stuck: None }
    }
}

impl<T> Jobs<T> {
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    pub fn push(&mut self, job: Job<T>) {
        let key = (job.who.map(network), job.kind);
        match self.queues.iter_mut().find(|(other, _)| *other == key) {
            Some((_, queue)) => queue.push_back(job),
            None => self.queues.push_back((key, [job].into())),
        }
        self.stuck = None;
    }

    /// Takes the newest job of whom most wait for, those of datagrams apart; `None` where nobody has two.
    pub fn evict(&mut self) -> Option<Job<T>> {
        let queues = self.queues.iter_mut().filter(|((_, kind), queue)| *kind != Kind::Datagram && queue.len() > 1);
        queues.max_by_key(|(_, queue)| queue.len())?.1.pop_back()
    }

    pub fn changed(&mut self) {
        self.stuck = None;
    }

    /// The next job that `limits` allow, with what it holds of them.
    pub fn next(&mut self, limits: &Limits, now: Instant) -> Option<(Job<T>, [Option<Permit>; 2])> {
        if self.stuck.is_some_and(|until| now < until) {
            return None;
        }
        for _ in 0..self.queues.len() {
            let (key, mut queue) = self.queues.pop_front()?;
            let permits = queue.front().and_then(|job| permits(limits, job));
            let job = permits.and_then(|permits| Some((queue.pop_front()?, permits)));
            if !queue.is_empty() {
                self.queues.push_back((key, queue));
            }
            if job.is_some() {
                return job;
            }
        }
        self.stuck = Some(now + AGAIN);
        None
    }
}

fn permits<T>(limits: &Limits, job: &Job<T>) -> Option<[Option<Permit>; 2]> {
    let is_long = job.kind == Kind::Long;
    let long = if is_long { Some(limits.long.acquire(job.who, 1).ok()?) } else { None };
    let busy = limits.busy.acquire(job.who, 1).ok()?;
    (is_long || limits.look_up(job.who)).then_some([Some(busy), long])
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::path::Path;

    use super::*;
    use crate::config;

    #[test]
    fn of_many_look_ups_at_most_10_begin_in_a_tenth_of_a_second_and_5_of_one_address() {
        let config = config::parse(Path::new("/goat/config.json"), "{}").unwrap();
        let limits = Limits::new(&config, 1_024);
        let mut jobs = Jobs::default();
        let start = Instant::now();
        for n in 0..300_u16 {
            let [high, low] = n.to_be_bytes();
            let who = if n < 100 { Ipv4Addr::LOCALHOST } else { Ipv4Addr::new(10, 0, high, low) };
            jobs.push(Job { who: Some(who.into()), kind: Kind::Lookup, work: who });
        }
        let begun: Vec<Ipv4Addr> =
            std::iter::from_fn(|| jobs.next(&limits, Instant::now())).map(|(job, _)| job.work).collect();
        // One more for the tenth in which the limits were made.
        let tenths = 2 + start.elapsed().as_millis() as usize / 100;
        assert!(!begun.is_empty() && begun.len() <= 10 * tenths, "{} in {tenths} tenths", begun.len());
        let of_one = begun.iter().filter(|who| **who == Ipv4Addr::LOCALHOST).count();
        assert!(of_one <= 5 * tenths, "{of_one} of one address");
        assert!(!jobs.is_empty(), "the others wait");
    }

    #[test]
    fn who_has_most_requests_waiting_loses_the_newest_and_who_has_one_keeps_it() {
        let [few, many, one] = [1, 2, 3].map(|host| Some(IpAddr::from([192, 0, 2, host])));
        let mut jobs = Jobs::default();
        for (work, who) in [few, many, many, one, few, many].into_iter().enumerate() {
            jobs.push(Job { who, kind: Kind::Long, work });
        }
        (6..16).for_each(|work| jobs.push(Job { who: one, kind: Kind::Datagram, work }));
        let mut evicted: Vec<usize> = std::iter::from_fn(|| jobs.evict()).map(|job| job.work).collect();
        assert_eq!(evicted[0], 5);
        evicted.sort();
        assert_eq!(evicted, [2, 4, 5], "nor does a datagram make room");
    }
}
