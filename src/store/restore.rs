//! Backups of SQLite: which files are some, and how one is put in the place of the database.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::schema::SCHEMA;
use super::sql::{Error, Kind};

/// Opens a backup to read it, if it is one that this goat knows.
pub fn open_backup(backup: &Path) -> Result<Connection, Error> {
    // SQLite would take a name such as `file:x` for a URL.
    let file = std::path::absolute(backup).unwrap_or_else(|_| backup.into());
    let source = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let source = source.map_err(|e| Error::other(format!("cannot open {}: {e}", backup.display())))?;
    let why = match source.query_row("SELECT value FROM goat WHERE name = 'schema'", [], |row| row.get(0)) {
        Ok(1..=SCHEMA) => return Ok(source),
        Ok(version) => format!("its tables have version {version}, this goat knows {SCHEMA}"),
        Err(e) => e.to_string(),
    };
    Err(Error::other(format!("{} is not a backup of goat: {why}", backup.display())))
}

/// Puts a backup in the place of a database that nobody has open, and keeps that one beside it: returns where,
/// if there was one, and what `before` returned, which is called when the copy is made and nothing is changed yet.
pub fn restore<T>(
    backup: &Path,
    path: &Path,
    before: impl FnOnce() -> Result<T, Error>,
) -> Result<(Option<PathBuf>, T), Error> {
    let source = open_backup(backup)?;
    let quick = source.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).unwrap_or_else(|e| e.to_string());
    if quick != "ok" {
        return Err(Error::other(format!("{} is damaged: {quick}", backup.display())));
    }
    // What a symbolic link stands for is replaced, not the link.
    let path = &path.canonicalize().unwrap_or_else(|_| path.into());
    let present = path.exists();
    let held = hold(path)?;
    let new = beside(path, ".restoring");
    let cannot = |e: std::io::Error| Error::other(format!("cannot write {}: {e}", new.display()));
    let old = aside(path);
    let _ = std::fs::remove_file(&new); // Of a restore that was killed.
    OpenOptions::new().write(true).create_new(true).mode(0o660).open(&new).map_err(cannot)?;
    let copied = source.execute("VACUUM INTO ?", [new.to_string_lossy()]).map_err(Error::from);
    let done = copied.and_then(|_| before()).and_then(|said| {
        // Nothing of the former one, such as what a crash left beside it, may be taken for a part of the new one.
        for part in PARTS {
            match std::fs::rename(beside(path, part), beside(&old, part)) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(cannot(e)),
                _ => {}
            }
        }
        std::fs::rename(&new, path).map_err(cannot)?;
        Ok(said)
    });
    if done.is_err() {
        let _ = std::fs::remove_file(&new); // What went wrong is said already.
    }
    drop(held);
    done.map(|said| (present.then_some(old), said))
}

/// The files of a database, by what follows its name.
const PARTS: [&str; 3] = ["", "-wal", "-shm"];

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Where a restore keeps a file: a name beside it that nothing has.
fn aside(path: &Path) -> PathBuf {
    let mut name = beside(path, ".before-restore");
    let mut number = 1;
    while PARTS.iter().any(|part| beside(&name, part).exists()) {
        number += 1;
        name = beside(path, &format!(".before-restore-{number}"));
    }
    name
}

/// Makes sure that nobody has a database open, or opens it while the result lives, and writes its write-ahead
/// log into it. One that is missing or damaged nobody can have open.
fn hold(path: &Path) -> Result<Option<Connection>, Error> {
    if !path.exists() {
        return Ok(None);
    }
    let held = Connection::open(path)?;
    held.busy_timeout(Duration::from_secs(1))?;
    // The mode can be changed only where nobody else has the database open.
    let mode = held.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get::<_, String>(0));
    match mode.and_then(|mode| held.execute_batch("BEGIN EXCLUSIVE").map(|()| mode)).map_err(Error::from) {
        Ok(mode) if mode == "delete" => Ok(Some(held)),
        Err(e) if e.kind != Kind::Busy => Ok(None),
        _ => Err(Error::other(format!("{} is in use: stop goat first", path.display()))),
    }
}
