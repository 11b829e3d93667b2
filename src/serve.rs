//! What HTTP and UDP share of an announce or a scrape: it is answered from memory, looked up where memory does not
//! know, and counted.

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crate::metrics::{Asked, Transport};
use crate::protocol::Refusal;
use crate::torrent::InfoHash;
use crate::tracker::Tracker;

pub struct Call<'a> {
    pub transport: Transport,
    pub asked: Asked,
    pub from: IpAddr,
    pub start: Instant,
    pub passkey: Option<&'a str>,
    pub info_hash: Option<InfoHash>,
}

/// Has `attempt` admit and answer at a time in seconds since 1970, again where the database knows a user or a torrent
/// that memory does not: it was made a moment ago. `None` if the database must be asked and this thread may not `wait`,
/// or has asked once: somebody new on a new torrent takes two turns.
pub fn serve(
    tracker: &Tracker,
    call: &Call,
    wait: bool,
    mut attempt: impl FnMut(u32) -> Result<(), Refusal>,
) -> Option<Result<(), Refusal>> {
    let now = tracker.clock.at(call.start);
    let mut done = attempt(now);
    if let Some(unknown) = to_look_up(tracker, call, &done, now) {
        if !wait {
            return None;
        }
        if tracker.look_up(&unknown, call.from, call.passkey, call.info_hash.as_ref()) {
            done = attempt(now);
            if to_look_up(tracker, call, &done, now).is_some_and(|second| second != unknown) {
                return None;
            }
        }
    }
    tracker.metrics.answered(call.transport, call.asked, done.as_ref().err(), call.start);
    Some(done)
}

/// What memory does not know and the database may be asked about: while it is away that would only take long, and nobody
/// may try many passkeys.
fn to_look_up(tracker: &Tracker, call: &Call, done: &Result<(), Refusal>, now: u32) -> Option<Refusal> {
    let unknown = done.err().filter(|refusal| matches!(refusal, Refusal::UnknownPasskey | Refusal::Unregistered))?;
    let passkey = unknown == Refusal::UnknownPasskey;
    let room = !passkey || tracker.limits.passkeys.room(Some(call.from), now).is_ok();
    let may = tracker.metrics.database_up.load(Relaxed) && room;
    if passkey && !may {
        tracker.limits.refused_passkeys.note(call.from);
    }
    may.then_some(unknown)
}
