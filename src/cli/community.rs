//! The community as a whole: running the tracker, statistics, backup, restore, and moving in.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use serde_json::json;

use super::call::{Call, Done, Failure, live_since, replace_file, store};
use super::output::{count, done, print, show};
#[cfg(feature = "sqlite")]
use crate::books::Journal;
use crate::books::journal;
use crate::config::{Config, Driver, PEM, Problem};
use crate::net::tls::{Certificates, Defect};
#[cfg(feature = "sqlite")]
use crate::store::Error;
use crate::store::{FILE_ORDERS, Import, Page, USER_ORDERS, Which, Who};

pub fn run(call: &Call) -> Done {
    let config = call.config()?;
    // Other commands do their work whether the certificate is good or not.
    if config.https
        && let Err(Defect { key, found }) = Certificates::load(&config.ssl)
    {
        let (file, key, allowed) = (config.file, key.into(), PEM.into());
        return Err(Failure::Config(vec![Problem { file, line: 0, key, found, allowed }]));
    }
    crate::server::run(config).map_err(Failure::Failed)
}

/// How many members and torrents `goat stats` names.
const TOP: usize = 5;

pub fn stats(call: &Call) -> Done {
    let (config, store) = call.open()?;
    let since = live_since(&config);
    let (mut members, mut torrents) = (Vec::new(), Vec::new());
    let top = |page: Page| Page { limit: TOP, ..page };
    store.users(Who::Everybody, &top(Page::named(&USER_ORDERS, "uploaded")), None, |user| members.push(user))?;
    let most = top(Page::named(&FILE_ORDERS, "completed"));
    store.files(Which::All, &most, Some(since), |file| torrents.push(file))?;
    let mut shown = serde_json::to_value(store.stats(since)?)?;
    shown["unsaved"] = journal::left(&config).map_err(Failure::Failed)?.into();
    shown["topMembers"] = serde_json::to_value(members)?;
    shown["topTorrents"] = serde_json::to_value(torrents)?;
    let keys = "members banned torrents pending size swarms seeders leechers snatches uploaded downloaded lastWritten \
        unsaved topMembers:uploaded,downloaded,ratio,name topTorrents:completed,seeders,leechers,infoHash,name";
    show(&shown, keys, call.json())
}

/// A word for a shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if word.chars().all(plain) && !word.is_empty() { word.into() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// Prints how a MySQL database is copied, which is the business of its own programs.
fn by_hand(config: &Config, program: &str, options: &str, direction: char, file: &str) -> Done {
    let server = match config.db.host.as_str() {
        host if host.starts_with('/') => format!("--socket={}", quoted(host)),
        _ => {
            let (host, port) = config.db.host_and_port();
            format!("--host={} --port={port}", quoted(host))
        }
    };
    let user = format!("--user={} --password", quoted(&config.db.username));
    let (database, file) = (quoted(&config.db.database), quoted(file));
    print(&format!("{program} {server} {user} {options}{database} {direction} {file}\n"))?;
    let done = "nothing was done yet: with MySQL and MariaDB use the command above";
    let first = "; first stop goat and move away what it could not write, as docs/database.md says under \"Backup and restore\"";
    Err(Failure::Failed(format!("{done}{}", if direction == '<' { first } else { "" })))
}

pub fn backup(call: &Call) -> Done {
    let config = call.config()?;
    let file = call.argument("FILE");
    if config.db.driver == Driver::Mysql {
        let options = "--single-transaction --default-character-set=utf8mb4 ";
        return by_hand(&config, "mariadb-dump", options, '>', file);
    }
    not_itself(&config, file)?;
    let taken = |why: &str| Err(Failure::Failed(format!("{file} {why}: name another file")));
    if std::fs::metadata(file).is_ok_and(|found| !found.is_file()) {
        return taken("is there, and is no file");
    }
    let mut start = Vec::new();
    match File::open(file).and_then(|file| file.take(16).read_to_end(&mut start)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return taken(&format!("cannot be read ({e})")),
        _ if start.is_empty() || start == *b"SQLite format 3\0" => {}
        _ => return taken("is there, and is no backup"),
    }
    let store = store(&config)?;
    // A link is the operator's own way to say where backups are.
    let place = Path::new(file).canonicalize().unwrap_or(file.into());
    replace_file(&place, |new| store.backup(&new.to_string_lossy()))
}

/// Keeps the database from being overwritten with itself.
fn not_itself(config: &Config, file: &str) -> Done {
    match (Path::new(file).canonicalize(), config.db.path.canonicalize()) {
        (Ok(file), Ok(path)) if file == path => {
            Err(Failure::Failed(format!("{} is the database itself: name another file", file.display())))
        }
        _ => Ok(()),
    }
}

pub fn restore(call: &Call) -> Done {
    let config = call.config()?;
    let file = call.argument("FILE");
    if config.db.driver == Driver::Mysql {
        return by_hand(&config, "mariadb", "--default-character-set=utf8mb4 ", '<', file);
    }
    not_itself(&config, file)?;
    #[cfg(feature = "sqlite")]
    {
        // The next start must not write what the run before left: a restored database knows nothing of it, and may
        // have given its ids to others.
        let discard = || Journal::open(&config).and_then(|journal| journal.discard()).map_err(Error::other);
        let (old, discarded) = crate::store::restore(Path::new(file), &config.db.path, discard)?;
        // Opened for its own checks.
        let members = store(&config)?.stats(0)?.members;
        let mut text = String::new();
        if let Some(old) = &old {
            text += &format!("the former database is kept as {}\n", old.display());
        }
        if discarded > 0 {
            text += &format!("{discarded} states of sessions that the last run had not written are discarded\n");
        }
        let former = old.map(|old| old.display().to_string());
        let thing = json!({ "members": members, "former": former, "discarded": discarded });
        done(&format!("{text}{}: {}", config.database_name(), count(members, "member")), &thing, call.json())?;
    }
    Ok(())
}

/// Bytes of a file to import, at most.
const MAX_IMPORT: u64 = 256 << 20;

pub fn import(call: &Call) -> Done {
    let (config, file) = (call.config()?, call.argument("FILE.csv"));
    let wrong = |e: String| Failure::Failed(e.lines().map(|line| format!("{file}: {line}\n")).collect());
    let mut text = String::new();
    let read = File::open(file).and_then(|file| file.take(MAX_IMPORT + 1).read_to_string(&mut text));
    read.map_err(|e| wrong(e.to_string()))?;
    if text.len() as u64 > MAX_IMPORT {
        return Err(wrong("larger than 256 MiB".into()));
    }
    let rows = rows(&text).map_err(wrong)?;
    let on_terminal = io::stderr().is_terminal();
    let progress = |done: usize| {
        if on_terminal && (done.is_multiple_of(1000) || done == rows.len()) {
            let end = if done == rows.len() { "\n" } else { "" };
            let _ = write!(io::stderr(), "\r{done} of {} rows{end}", rows.len()); // It is only for looking at.
        }
    };
    store(&config)?.import(&rows, progress).map_err(|e| wrong(e.to_string()))?;
    let imported = rows.len() as u64;
    done(&format!("{} imported", count(imported, "row")), &json!({ "imported": imported }), call.json())
}

/// A row to import with the number of its line, or what is wrong with it.
type Row = (usize, Result<Import, String>);

/// Reads the rows under a header that names the columns.
fn rows(text: &str) -> Result<Vec<Row>, String> {
    let mut records = records(text.strip_prefix('\u{feff}').unwrap_or(text))?.into_iter();
    let users = ["name", "passkey", "uploaded", "downloaded", "torrent_limit"];
    let torrents = ["info_hash", "name", "size"];
    let (_, header) = records.next().unwrap_or_default();
    let names: Vec<String> = header.iter().map(|name| name.trim().to_lowercase()).collect();
    let known = if names.iter().any(|name| name == "info_hash") { &torrents[..] } else { &users[..] };
    let required = if known.len() == users.len() { 2 } else { 1 };
    let columns: HashMap<&str, usize> = names.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
    if !known.iter().take(required).all(|name| columns.contains_key(name))
        || columns.len() != names.len()
        || !names.iter().all(|name| known.contains(&name.as_str()))
    {
        let (users, torrents) = (users.join(","), torrents.join(","));
        return Err(format!(
            "line 1: it must name the columns, {users} (name and passkey must be there) or {torrents} (info_hash must)"
        ));
    }
    let row = |record: Vec<String>| {
        let field = |name: &str| columns.get(name).and_then(|at| record.get(*at)).map_or("", |text| text.as_str());
        let number = |name: &str, most: u64| match field(name).trim() {
            "" => Ok(0),
            text => text
                .parse::<u64>()
                .ok()
                .filter(|n| *n <= most)
                .ok_or(format!("{name} is {text:?}, but must be 0 to {most}")),
        };
        if record.len() != names.len() {
            return Err(format!("{} fields, but must be {}", record.len(), names.len()));
        }
        let name = field("name").to_string();
        if required == 1 {
            let info_hash = field("info_hash").trim().parse()?;
            return Ok(Import::Torrent { info_hash, name, size: number("size", i64::MAX as u64)? });
        }
        Ok(Import::User {
            name,
            passkey: field("passkey").into(),
            uploaded: number("uploaded", i64::MAX as u64)?,
            downloaded: number("downloaded", i64::MAX as u64)?,
            torrent_limit: u32::try_from(number("torrent_limit", u32::MAX.into())?).unwrap_or_default(),
        })
    };
    Ok(records.map(|(line, record)| (line, row(record))).collect())
}

/// The records of a CSV file (RFC 4180), each with the number of its first line. Empty lines are skipped. What is
/// wrong with a quote is an error, for it might hide other records.
fn records(text: &str) -> Result<Vec<(usize, Vec<String>)>, String> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut first, mut quoted, mut closed) = (1, 1, false, false);
    let mut chars = text.chars().peekable();
    loop {
        let c = chars.next();
        line += usize::from(c == Some('\n'));
        match c {
            Some('"') if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            Some('"') if quoted => (quoted, closed) = (false, true),
            Some(c) if quoted => field.push(c),
            None if quoted => return Err(format!("line {first}: a quote is opened and never closed")),
            Some('"') if field.is_empty() && !closed => quoted = true,
            Some(',') => {
                closed = false;
                record.push(std::mem::take(&mut field));
            }
            Some('\r') if chars.peek() == Some(&'\n') => {}
            None | Some('\n') => {
                closed = false;
                record.push(std::mem::take(&mut field));
                let record = std::mem::take(&mut record);
                if record.iter().any(|field| !field.is_empty()) {
                    records.push((first, record));
                }
                first = line;
                if c.is_none() {
                    return Ok(records);
                }
            }
            Some(_) if closed => {
                return Err(format!("line {line}: after a closing quote comes a comma or the line's end"));
            }
            Some(c) => field.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_is_read_with_quotes_and_the_numbers_of_its_lines() {
        let text = "name,passkey\r\n\"a, \"\"b\"\"\",12345678\n\n\"two\nlines\",x\nlast,y";
        let expected =
            [(1, ["name", "passkey"]), (2, ["a, \"b\"", "12345678"]), (4, ["two\nlines", "x"]), (6, ["last", "y"])];
        let read = records(text).unwrap();
        assert_eq!(read.len(), expected.len());
        for ((line, fields), (expected_line, expected)) in read.iter().zip(expected) {
            assert_eq!((*line, &fields[..]), (expected_line, &expected.map(String::from)[..]));
        }
        assert_eq!(records(""), Ok(vec![]));
        assert_eq!(records("\n\n"), Ok(vec![]));
        assert_eq!(records("\"\"\n"), Ok(vec![]));
    }

    #[test]
    fn a_quote_that_hides_records_is_an_error() {
        for (text, line) in [
            ("a,b\nc,\"d\ne,f\n", 2),
            ("a\n\"", 2),
            ("\"a\"b\n", 1),
            ("\"a\nb\" ,c", 2),
            ("a,\"b\"\"\n", 1),
            ("\"\" \"a\"", 1),
        ] {
            let said = records(text).unwrap_err();
            assert!(said.starts_with(&format!("line {line}: ")), "{text:?}: {said}");
        }
    }

    #[test]
    fn every_mistake_of_an_import_is_named_with_its_line() {
        let text = "passkey,name,uploaded\nabcdefgh,anna,1\nabcdefgh,bert,-1\nx\nabcdefgh,carl,9223372036854775808";
        let lines = rows(text).unwrap().into_iter().filter_map(|(line, row)| row.is_err().then_some(line));
        assert_eq!(lines.collect::<Vec<_>>(), [3, 4, 5]);
        for header in ["", "name", "name,passkey,name", "name,passkey,ratio", "info_hash,passkey", "size"] {
            assert!(rows(header).unwrap_err().starts_with("line 1: "), "{header}");
        }
        assert_eq!(rows("\u{feff}Name, Passkey").unwrap(), []);
    }
}
