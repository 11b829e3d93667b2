//! What an earlier run answered and did not write: its journal is settled before anything new is answered.

use super::journal::{Head, Journal, read_all};
use super::ledger::Waiting;
use super::session::SessionKey;
use super::settle::{MOST_ROWS, settle};
use crate::config::Config;
use crate::log::log;
use crate::store::Store;
use crate::torrent::InfoHash;

/// Settles what was left, and begins the journal of this run; returns also which sessions that was of. `silence` is how
/// many seconds of silence close a session.
pub fn recover(config: &Config, store: &Store, silence: u32) -> Result<(Journal, Vec<SessionKey>), String> {
    let mut journal = Journal::open(config)?;
    let failed = |e| format!("{}: {e}", config.database_name());
    let identity = store.identity().map_err(failed)?;
    let left = read_all(journal.path())?;
    let mut settled = Vec::new();
    for (head, states) in left.iter().filter(|(_, states)| !states.is_empty()) {
        let known = head.identity == identity && store.has_run(head.run).map_err(failed)?;
        if !known {
            let (states, folder) = (states.len(), journal.path().display());
            log(format!(
                "{states} states of sessions in {folder} belong to another database, or to a later time than the one that was restored: they were discarded"
            ));
            continue;
        }
        // Torrents are told what their rows say when they are loaded.
        let batch = states.iter().map(|((key, _), (_, state))| (InfoHash::default(), *key, *state));
        let batch: Vec<Waiting> = batch.collect();
        settled.extend(batch.iter().map(|(_, key, _)| *key));
        for part in batch.chunks(MOST_ROWS) {
            settle(store, part, silence)
                .map_err(|e| format!("cannot write the accounts in {}: {e}", journal.path().display()))?;
        }
        log(format!(
            "{} states of sessions that were unwritten when the last run ended have been written",
            batch.len()
        ));
    }
    let run = store.begin_run().map_err(failed)?;
    journal.begin(Head { identity, run });
    left.keys().try_for_each(|head| store.end_run(head.run)).map_err(failed)?;
    Ok((journal, settled))
}
