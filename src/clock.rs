//! The time of day.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The time of day, which never jumps while goat runs: it is read once and then counted on.
pub struct Clock {
    since: u64,
    start: Instant,
}

impl Clock {
    /// A clock that starts now.
    pub fn start() -> Clock {
        Clock { since: now(), start: Instant::now() }
    }

    /// Seconds since 1970.
    pub fn now(&self) -> u32 {
        self.at(Instant::now())
    }

    /// The time of day at an instant, in seconds since 1970.
    pub fn at(&self, instant: Instant) -> u32 {
        let passed = instant.saturating_duration_since(self.start).as_secs();
        u32::try_from(self.since.saturating_add(passed)).unwrap_or(u32::MAX)
    }

    /// When goat started, in seconds since 1970.
    pub fn started(&self) -> u32 {
        self.at(self.start)
    }
}

/// Seconds since 1970, by a clock that may be set.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}
