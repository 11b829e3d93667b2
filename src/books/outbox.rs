//! Records of the journal that other goats have not heard of yet. Filled where announces are answered, at the cost of a
//! copy; emptied each second by the thread that publishes.

use std::sync::Mutex;

use crate::sync::lock;

/// Bytes that may wait, about: ten seconds of the busiest tracker.
const MOST: usize = 64 << 20;

/// See the head of this file.
#[derive(Default)]
pub struct Outbox(Mutex<(Vec<u8>, bool)>);

impl Outbox {
    /// Adds records, unless there are too many.
    pub fn push(&self, records: &[u8]) {
        if records.is_empty() {
            return;
        }
        let mut waiting = lock(&self.0);
        if waiting.0.len().saturating_add(records.len()) > MOST {
            waiting.1 = true;
        } else {
            waiting.0.extend_from_slice(records);
        }
    }

    /// Takes all records, and whether there were others for which there was no room.
    pub fn take(&self) -> (Vec<u8>, bool) {
        let mut waiting = lock(&self.0);
        // As much room as was needed: it will be needed again.
        let room = Vec::with_capacity(waiting.0.len());
        (std::mem::replace(&mut waiting.0, room), std::mem::take(&mut waiting.1))
    }
}
