//! The time of day.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// How far, in seconds, the system's clock may be ahead before goat follows it.
const AHEAD: u64 = 10;
/// How many seconds without a step make a clock that old rows may be removed by: a day.
const STEADY: u64 = 86_400;

/// The time of day, which never goes back while goat runs: the system's clock is read once and then counted on, but
/// followed where it is set forward.
pub struct Clock {
    /// The time of day at `start`, as far as it is known now.
    since: AtomicU64,
    start: Instant,
    /// When it was set forward last, in seconds after `start`.
    stepped: AtomicU64,
}

impl Clock {
    pub fn start() -> Clock {
        Clock { since: AtomicU64::new(now()), start: Instant::now(), stepped: AtomicU64::new(0) }
    }

    pub fn now(&self) -> u32 {
        self.at(Instant::now())
    }

    /// The time of day at an instant, in seconds since 1970.
    pub fn at(&self, instant: Instant) -> u32 {
        u32::try_from(self.since.load(Relaxed).saturating_add(self.passed(instant))).unwrap_or(u32::MAX)
    }

    /// When goat started, in seconds since 1970.
    pub fn started(&self) -> u32 {
        self.at(self.start)
    }

    /// Follows the system's clock, whose time is `wall`, where that is ahead: it was set right, or the machine slept.
    /// Returns by how many seconds.
    pub fn follow(&self, wall: u64) -> Option<u64> {
        let passed = self.passed(Instant::now());
        let ahead = wall.saturating_sub(self.since.load(Relaxed).saturating_add(passed));
        (ahead > AHEAD).then(|| {
            self.stepped.store(passed, Relaxed);
            self.since.fetch_add(ahead, Relaxed);
            ahead
        })
    }

    /// Whether it ran a day without a step: a wrong clock at the start must not make rows look old.
    pub fn is_steady(&self) -> bool {
        self.passed(Instant::now()).saturating_sub(self.stepped.load(Relaxed)) >= STEADY
    }

    fn passed(&self, instant: Instant) -> u64 {
        instant.saturating_duration_since(self.start).as_secs()
    }
}

/// Seconds since 1970, by a clock that may be set.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_forward_is_followed_and_one_that_is_set_back_is_not() {
        let clock = Clock::start();
        let before = clock.now();
        assert_eq!(clock.follow(u64::from(before) + 5), None, "less than ten seconds");
        assert_eq!(clock.follow(u64::from(before) - 3_600), None, "back");
        assert!(clock.now() - before <= 1);
        assert!(clock.follow(u64::from(before) + 3_600).is_some_and(|ahead| ahead >= 3_599));
        assert!((3_600..3_602).contains(&(clock.now() - before)));
        assert!(!clock.is_steady());
    }
}
