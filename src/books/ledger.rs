//! What memory knows and the database does not yet. Each shard has a ledger, filled while announces are
//! answered; once a second the keeper takes all of them as one batch, which the store writes in one
//! transaction.
//!
//! A row that changes again before it is written stays one row, so that a ledger is bounded by the number
//! of sessions and their addresses, however long the database is away.

use std::collections::HashMap;
use std::sync::Arc;

use crate::books::journal::{Entry, Journal};
use crate::protocol::Addresses;
use crate::store::{Batch, Session, SessionKey, SessionRow, Total, TotalKey};

/// Everything unwritten of one shard.
#[derive(Default)]
pub struct Ledger {
    sessions: HashMap<SessionKey, SessionRow>,
    totals: HashMap<TotalKey, Total>,
    /// What keeps it through a kill, and the segment of its batch there. Absent where rules are tested alone.
    journal: Option<Arc<Journal>>,
    segment: usize,
}

impl Ledger {
    /// From now on keeps what is noted in a journal too.
    pub fn keep_in(&mut self, journal: &Arc<Journal>) {
        (self.journal, self.segment) = (Some(journal.clone()), journal.current());
    }

    /// Keeps what a change has left.
    pub fn keep(&self, entry: &Entry) {
        if let Some(journal) = &self.journal {
            journal.append(self.segment, entry);
        }
    }

    /// Keeps everything once more, in the current segment of the journal.
    pub fn keep_all(&mut self) {
        self.segment = self.journal.as_ref().map_or(0, |journal| journal.current());
        self.sessions.iter().for_each(|(key, row)| self.keep(&(Some((*key, *row)), None)));
        self.totals.iter().for_each(|(key, total)| self.keep(&(None, Some((*key, *total)))));
    }

    /// An unwritten session: it may have left the swarm already.
    pub fn session(&self, key: &SessionKey) -> Option<(Session, Addresses)> {
        self.sessions.get(key).map(|row| (row.session, row.at))
    }

    /// Notes the state of a session, and returns it as it is to be written.
    pub fn note(&mut self, file: u32, mut row: SessionRow) -> (SessionKey, SessionRow) {
        let key = SessionKey { file, user: row.session.user, peer_id: row.session.peer_id };
        let unwritten = self.sessions.entry(key).or_insert(row);
        row.first = unwritten.first;
        *unwritten = row;
        (key, row)
    }

    /// The total to which an announce adds.
    pub fn total(&mut self, key: TotalKey) -> &mut Total {
        self.totals.entry(key).or_default()
    }

    /// How many rows are unwritten.
    pub fn rows(&self) -> usize {
        self.sessions.len() + self.totals.len()
    }

    /// Leaves an empty ledger with room for as much again, which is of the journal's current segment.
    pub fn take(&mut self) -> Ledger {
        let room = |len: usize| len.min(1 << 16);
        let empty = Ledger {
            sessions: HashMap::with_capacity(room(self.sessions.len())),
            totals: HashMap::with_capacity(room(self.totals.len())),
            segment: self.journal.as_ref().map_or(0, |journal| journal.current()),
            journal: self.journal.clone(),
        };
        std::mem::replace(self, empty)
    }
}

impl Batch {
    /// Adds all of a ledger.
    pub fn add(&mut self, ledger: Ledger) {
        self.sessions.extend(ledger.sessions);
        self.totals.extend(ledger.totals);
    }
}
