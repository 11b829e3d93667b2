//! What memory knows and the database does not yet: the last state of each life, in a ledger for each shard,
//! filled while announces are answered. The keeper takes all of them at a pace, and settles them.
//!
//! A session that changes again before it is written stays one state, so that a ledger is bounded by the number
//! of sessions, however long the database is away.

use std::collections::HashMap;

use super::journal::encode;
use super::session::{Birth, Life, Session, SessionKey, State};
use crate::torrent::InfoHash;

/// A state that waits to be settled, and the torrent that it is of.
pub type Waiting = (InfoHash, SessionKey, State);

/// Everything unwritten of one shard.
#[derive(Default)]
pub struct Ledger {
    states: HashMap<(SessionKey, Life), (InfoHash, State)>,
    /// How lives began of which other goats told, for what is noted here of the same may be written first.
    heard: HashMap<(SessionKey, Life), Birth>,
    /// The place of the last record in the order of the shard's records.
    order: u64,
}

impl Ledger {
    /// Notes a state, and appends the record of it that the journal must have before an answer leaves.
    pub fn note(&mut self, info_hash: &InfoHash, file: u32, mut state: State, records: &mut Vec<u8>) {
        let session = &state.known.session;
        let (life, key) = (session.life, SessionKey { file, user: session.user, peer_id: session.peer_id });
        let (_, kept) = self.states.entry((key, life)).or_insert((*info_hash, state));
        state.follow(kept);
        if let Some(birth) = self.heard.get(&(key, life)) {
            state.birth = Some(state.birth.map_or(*birth, |own| own.better(birth)));
        }
        self.order += 1;
        encode(self.order, file, &state, records);
        *kept = state;
    }

    pub fn waiting(&self) -> usize {
        self.states.len()
    }

    pub fn has(&self, key: &SessionKey, life: Life) -> bool {
        self.states.contains_key(&(*key, life))
    }

    pub fn take(&mut self, batch: &mut Vec<Waiting>) {
        // No room is kept: it would be that of the busiest second.
        let states = std::mem::take(&mut self.states);
        batch.extend(states.into_iter().map(|((key, _), (info_hash, state))| (info_hash, key, state)));
    }

    /// Has a state that came while the first of its life was written learn what the row is; on its own it would say
    /// nothing of where its life begins. Appends the record of it.
    pub fn learn(&mut self, key: &SessionKey, life: Life, learn: impl Fn(&mut Session), records: &mut Vec<u8>) {
        let Some((info_hash, mut state)) = self.states.remove(&(*key, life)) else { return };
        learn(&mut state.known.session);
        self.note(&info_hash, key.file, state, records);
    }

    /// Takes back a state that could not be written.
    pub fn put_back(&mut self, (info_hash, key, state): Waiting) {
        let (_, kept) = self.states.entry((key, state.known.session.life)).or_insert((info_hash, state));
        kept.follow(&state);
    }

    /// Keeps how a life began by the word of another goat.
    pub fn hear(&mut self, key: SessionKey, life: Life, birth: Option<Birth>) {
        let Some(birth) = birth else { return };
        self.heard.entry((key, life)).and_modify(|own| *own = own.better(&birth)).or_insert(birth);
    }

    /// Forgets how lives began before a time in seconds since 1970: it is written.
    pub fn forget_heard(&mut self, before: u32) {
        self.heard.retain(|_, birth| birth.at >= before);
    }

    /// Appends the records of all states, for a journal that is written anew.
    pub fn records(&self, records: &mut Vec<u8>) {
        self.states.iter().for_each(|((key, _), (_, state))| encode(self.order, key.file, state, records));
    }
}
