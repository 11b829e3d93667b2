//! What an earlier run answered and did not write: in a file where the database was away when it stopped, in the
//! journal where it was killed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;

use crate::books::journal::Journal;
use crate::config::Config;
use crate::log::log;
use crate::random::Rng;
use crate::store::{Batch, Store};

/// Where batches wait that could not be written before goat had to stop.
pub fn unwritten(config: &Config) -> PathBuf {
    config.file.with_extension("unwritten.json")
}

/// The batches that wait in a file, none where it is missing.
fn waiting(file: &Path) -> Result<Vec<Batch>, String> {
    let advice = "To start without them, move it away";
    match fs::read(file) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        read => read.and_then(|text| Ok(serde_json::from_slice(&text)?)).map_err(|e| {
            format!("{} holds accounts not yet written, but cannot be read: {e}. {advice}", file.display())
        }),
    }
}

/// How many rows wait there.
pub fn unwritten_rows(config: &Config) -> Result<usize, String> {
    Ok(waiting(&unwritten(config))?.iter().map(Batch::rows).sum())
}

/// Writes the batches that the last run could not write. Each is written once, however often this is
/// interrupted: the database knows their numbers.
pub fn replay(config: &Config, store: &Store, now: u32) -> Result<(), String> {
    let file = unwritten(config);
    let batches = waiting(&file)?;
    if batches.is_empty() {
        return Ok(());
    }
    write_rest(&batches, &file, store, now)?;
    fs::remove_file(&file).map_err(|e| format!("cannot remove {}, which has been written: {e}", file.display()))?;
    let rows: usize = batches.iter().map(Batch::rows).sum();
    log(format!("{rows} rows of the last run were written from {}", file.display()));
    Ok(())
}

/// Writes batches of an earlier run that a file holds; none where that is of another database.
fn write_rest(batches: &[Batch], file: &Path, store: &Store, now: u32) -> Result<(), String> {
    let failed = |e| format!("cannot write the accounts in {}: {e}", file.display());
    let identity = store.identity().map_err(failed)?;
    if batches.iter().any(|batch| ![0, identity].contains(&batch.database)) {
        let file = file.display();
        return Err(format!(
            "{file} holds accounts not yet written, of another database than this one: put that back, or move the file away to start without them"
        ));
    }
    batches.iter().try_for_each(|batch| store.write(batch, now).map_err(failed))
}

/// Writes what the last run had answered and not written, and opens the journal for this one.
pub fn recover(config: &Config, store: &Store, now: u32) -> Result<Option<Arc<Journal>>, String> {
    let journal = match Journal::open(config) {
        Ok(journal) => Some(journal),
        Err(e) => {
            log(format!("there is no journal in /dev/shm, so a kill would lose what was not yet written: {e}"));
            None
        }
    };
    // Only now has the run before surely ended, and left its file.
    replay(config, store, now)?;
    let Some(journal) = journal else { return Ok(None) };
    let batches = journal.batches();
    write_rest(&batches, journal.path(), store, now)?;
    let identity = store.identity().map_err(|e| format!("{}: {e}", config.database_name()))?;
    journal.database().store(identity, Release);
    journal.forget(None);
    // The first segment gets a number of its own.
    journal.turn(&mut Rng::from_system(), false);
    let rows: usize = batches.iter().map(Batch::rows).sum();
    if rows > 0 {
        log(format!("{rows} rows that were unwritten when the last run was killed have been written"));
    }
    Ok(Some(Arc::new(journal)))
}
