//! Settling: states become rows, and their rises credits, in transactions of the [`Store`].

use super::credit::credit;
use super::ledger::Waiting;
use super::session::{Life, SessionKey, State};
use crate::store::sessions::{Changes, Key, Row};
use crate::store::{Error, Store};
use crate::torrent::InfoHash;

/// What the database says of a session that memory did not know: its row.
pub struct Resolved {
    pub info_hash: InfoHash,
    pub key: SessionKey,
    /// The life that memory began, how often it had announced, and the row that it became.
    pub life: Life,
    pub announced: u32,
    pub row: Row,
}

/// The most states that one transaction settles: a third of a second, during which others wait.
pub const MOST_ROWS: usize = 20_000;

/// Sorts states as their rows lie, the lives of a session in their order.
pub fn sort(batch: &mut [Waiting]) {
    batch.sort_unstable_by_key(|(_, key, state)| (*key, state.known.session.life));
}

/// Settles sorted states in one transaction. `silence` is how many seconds of silence close a session.
pub fn settle(store: &Store, batch: &[Waiting], silence: u32) -> Result<Vec<Resolved>, Error> {
    store.settle(batch, |(_, key, _)| (key.file, key.user, key.peer_id), |states, rows| changes(states, rows, silence))
}

/// What a batch makes of the rows of its members, both sorted.
fn changes(batch: &[Waiting], rows: &[(Key, Row)], silence: u32) -> (Changes, Vec<Resolved>) {
    let (mut changes, mut told) = (Changes::default(), Vec::new());
    for states in batch.chunk_by(|(_, a, _), (_, b, _)| (a.file, a.user) == (b.file, b.user)) {
        let Some((_, SessionKey { file, user, .. }, _)) = states.first() else { continue };
        let from = rows.partition_point(|((f, u, _), _)| (f, u) < (file, user));
        let to = rows.partition_point(|((f, u, _), _)| (f, u) <= (file, user));
        member(states, rows.get(from..to).unwrap_or_default(), silence, &mut changes, &mut told);
    }
    (changes, told)
}

/// Settles the states of one member on one torrent.
fn member(states: &[Waiting], own: &[(Key, Row)], silence: u32, changes: &mut Changes, told: &mut Vec<Resolved>) {
    let seeded = seeded(states, own.iter().map(|(_, row)| row.seeded_until).max().unwrap_or(0));
    for ((info_hash, key, state), seeded) in states.iter().zip(seeded) {
        let id = (key.file, key.user, key.peer_id);
        let before =
            own.binary_search_by_key(&id, |(key, _)| *key).ok().and_then(|at| own.get(at)).map(|(_, row)| *row);
        let (row, rise) = credit(&changes.row(id).or(before).unwrap_or_default(), &State { seeded, ..*state }, silence);
        changes.put(id, row, before.is_none());
        changes.credit(key.user, rise.credited, rise.moved);
        if rise.snatch {
            changes.snatches.push((key.file, key.user));
        }
        let (life, announced) = (state.known.session.life, state.known.session.announced);
        if life.is_provisional() {
            told.push(Resolved { info_hash: *info_hash, key: *key, life, announced, row });
        }
    }
}

/// The time that each state seeded and that nothing before it has, be it another client of the member: what begins
/// first counts first.
fn seeded(states: &[Waiting], mut until: u32) -> Vec<(u32, u32)> {
    let mut seeded: Vec<(u32, u32)> = states.iter().map(|(.., state)| state.seeded).collect();
    let mut order: Vec<&mut (u32, u32)> = seeded.iter_mut().collect();
    order.sort_by_key(|(from, _)| *from);
    for (from, to) in order {
        *from = (*from).max(until).min(*to);
        if from < to {
            until = *to;
        }
    }
    seeded
}
