//! The community as a whole: running the tracker, statistics, backup, restore, and moving in.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde_json::json;

use super::call::{Call, Done, Failure, cannot_write, is_same, live_since, replace_file, store};
use super::output::{bytes, count, done, print, show, show_all};
#[cfg(feature = "sqlite")]
use crate::books::Journal;
use crate::books::journal;
use crate::config::{Config, Driver, PEM, Problem, quoted};
use crate::net::tls::{Certificates, Defect};
use crate::random::secret;
#[cfg(feature = "sqlite")]
use crate::store::Error;
use crate::store::{FILE_ORDERS, Import, Kind, Page, USER_ORDERS, User, Which, Who};
use crate::sys::{read_text, write_new_file};

pub fn run(call: &Call) -> Done {
    let config = call.config()?;
    let is_root = || fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    // Who works on it without naming it is one of its group.
    if config.is_service() && (call.config.is_none() || is_root()) {
        let message = "is the configuration of the service, which systemd runs: `systemctl start goat`";
        return Err(format!("{} {message}", config.file.display()).into());
    }
    // Other commands do their work whether the certificate is good or not.
    if config.https
        && let Err(Defect { key, found }) = Certificates::load(&config.ssl)
    {
        let (file, key, allowed) = (config.file, key.into(), PEM.into());
        return Err(Failure::Config(vec![Problem { file, line: 0, key, found, allowed }]));
    }
    Ok(crate::server::run(config)?)
}

const TOP: usize = 5;

pub fn stats(call: &Call) -> Done {
    let (config, store) = call.open()?;
    let since = live_since(&config);
    let (mut members, mut torrents) = (Vec::new(), Vec::new());
    let most_uploaded = Page { limit: TOP, ..Page::named(&USER_ORDERS, "uploaded") };
    store.users(Who::Everybody, &most_uploaded, None, |user| members.push(user))?;
    let most_completed = Page { limit: TOP, ..Page::named(&FILE_ORDERS, "completed") };
    store.files(Which::All, &most_completed, Some(since), |file| torrents.push(file))?;
    let mut shown = serde_json::to_value(store.stats(since)?)?;
    shown["unsaved"] = journal::left(&config)?.into();
    shown["topMembers"] = serde_json::to_value(members)?;
    shown["topTorrents"] = serde_json::to_value(torrents)?;
    let keys = "members banned torrents pending size swarms seeders leechers snatches uploaded downloaded lastWritten \
        unsaved topMembers:uploaded,downloaded,ratio,name topTorrents:completed,seeders,leechers,infoHash,name";
    show(&shown, keys, call.json())
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
    print(format!("{program} {server} {user} {options}{database} {direction} {file}\n"))?;
    let done = "nothing has been done yet: with MySQL and MariaDB, run the command above";
    let journal = journal::path(config);
    let first = format!("; first stop goat and move {} away: it belongs to the former database", journal.display());
    Err(format!("{done}{}", if direction == '<' { &first } else { "" }).into())
}

pub fn backup(call: &Call) -> Done {
    let config = call.config()?;
    let file = call.argument("FILE");
    if config.db.driver == Driver::Mysql {
        // What the database's user need not have rights for is left out: locks, and keys that are switched off.
        let options = "--single-transaction --skip-add-locks --skip-disable-keys --no-tablespaces \
            --default-character-set=utf8mb4 ";
        return by_hand(&config, "mariadb-dump", options, '>', file);
    }
    not_itself(&config, file)?;
    let taken = |why: &str| Err(format!("{file} {why}: name another file").into());
    if fs::metadata(file).is_ok_and(|found| !found.is_file()) {
        return taken("exists, and is not a file");
    }
    let mut start = Vec::new();
    match File::open(file).and_then(|file| file.take(19).read_to_end(&mut start)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return taken(&format!("cannot be read ({e})")),
        _ if start.is_empty() => {}
        // By byte 18 (SQLite's "file format write version") a database that a goat has opened has a write-ahead log.
        #[cfg(feature = "sqlite")]
        _ if start.get(18) == Some(&1) && crate::store::open_backup(Path::new(file)).is_ok() => {}
        _ => return taken("exists, and is not a backup"),
    }
    let store = store(&config)?;
    // A link is the operator's own way to say where backups are.
    let place = Path::new(file).canonicalize().unwrap_or(file.into());
    replace_file(&place, |new| store.backup(&new.to_string_lossy()))
}

fn not_itself(config: &Config, file: &str) -> Done {
    if is_same(Path::new(file), &config.db.path) {
        return Err(format!("{} is the database itself: name another file", config.db.path.display()).into());
    }
    Ok(())
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
            text += &format!("{discarded} states of sessions that the last run had not written were discarded\n");
        }
        let former = old.map(|old| old.display().to_string());
        let thing = json!({ "members": members, "former": former, "discarded": discarded });
        done(&format!("{text}{}: {}", config.database_name(), count(members, "member")), &thing, call.json())?;
    }
    Ok(())
}

const MAX_IMPORT: u64 = 256 << 20;

pub fn log(call: &Call) -> Done {
    let (_, store) = call.open()?;
    let mut actions = Vec::new();
    store.actions(&Page::ALL, |action| actions.push(action))?;
    show_all(&actions, "time who what whom detail", call.json())
}

pub fn import(call: &Call) -> Done {
    let (config, file) = (call.config()?, call.argument("FILE.csv"));
    let wrong = |e: String| e.lines().map(|line| format!("{file}: {line}\n")).collect::<String>();
    let text = read_text(Path::new(file), MAX_IMPORT).map_err(|e| wrong(e.to_string()))?;
    let mut rows = rows(&text).map_err(wrong)?;
    let store = store(&config)?;
    let keys = call.value("keys").map(|out| new_keys(&mut rows, out)).transpose()?;
    store.import(&rows).map_err(|e| {
        // Where it may have been written, these are the only copies.
        if let Some(out) = keys.filter(|_| e.kind != Kind::Unsure) {
            let _ = fs::remove_file(out);
        }
        wrong(e.to_string())
    })?;
    let imported = rows.len() as u64;
    call.note(&store, &count(imported, "row"));
    let mut text = format!("{} imported", count(imported, "row"));
    if let Some(out) = keys {
        text += &format!("; their API keys are in {out}, and are not shown again");
    }
    done(&text, &json!({ "imported": imported, "keys": keys }), call.json())
}

/// Gives each member who is to be imported an API key, and writes them into a new file, which it returns.
fn new_keys<'a>(rows: &mut [Row], out: &'a str) -> Result<&'a str, Failure> {
    let mut table = "name,api_key\n".to_string();
    for (_, row) in rows {
        match row {
            Ok(Import::User { user, api_key }) => {
                let key = secret::<20>()?;
                table += &format!("\"{}\",{key}\n", user.name.replace('"', "\"\""));
                *api_key = Some(key);
            }
            Ok(Import::Torrent { .. }) => return Err("--keys is for members, not for torrents".into()),
            Err(_) => {} // It is said by the import, which then does nothing.
        }
    }
    let written = write_new_file(Path::new(out), 0o600, table.as_bytes());
    written.map(|()| out).map_err(|e| cannot_write(Path::new(out), e))
}

/// A row to import with the number of its line, or what is wrong with it.
type Row = (usize, Result<Import, String>);

/// Whether a header names the columns of torrents, or else those of members.
fn of_torrents(header: &[String]) -> Result<bool, String> {
    const USERS: [&str; 7] = ["name", "passkey", "uploaded", "downloaded", "torrent_limit", "admin", "banned"];
    const TORRENTS: [&str; 3] = ["info_hash", "name", "size"];
    let has = |column: &str| header.iter().any(|name| name == column);
    let of_torrents = has("info_hash");
    let (known, required) = if of_torrents { (&TORRENTS[..], 1) } else { (&USERS[..], 2) };
    let unknown = header.iter().find(|name| !known.contains(&name.as_str()));
    let missing = known.iter().take(required).find(|column| !has(column));
    let wrong = match (unknown, missing) {
        (Some(unknown), _) => format!("unknown column {unknown:?}"),
        (None, Some(missing)) => format!("no column {missing}"),
        (None, None) if header.len() != known.iter().filter(|column| has(column)).count() => {
            "a column is named twice".into()
        }
        (None, None) => return Ok(of_torrents),
    };
    let (users, torrents) = (USERS.join(", "), TORRENTS.join(", "));
    Err(format!(
        "line 1: {wrong}. It names the columns: of members {users} (name and passkey are required), \
         of torrents {torrents} (info_hash is required)"
    ))
}

fn rows(text: &str) -> Result<Vec<Row>, String> {
    let mut records = records(text.strip_prefix('\u{feff}').unwrap_or(text))?.into_iter();
    let (_, header) = records.next().unwrap_or_default();
    let header: Vec<String> = header.iter().map(|name| name.trim().to_lowercase()).collect();
    let of_torrents = of_torrents(&header)?;
    let row = |record: Vec<String>| {
        if record.len() != header.len() {
            return Err(format!("{} fields instead of {}", record.len(), header.len()));
        }
        let field = |name: &str| {
            let mut fields = header.iter().zip(&record);
            fields.find(|(column, _)| *column == name).map_or("", |(_, text)| text)
        };
        let wrong = |name, allowed: &str| format!("{name} is {:?}, but must be {allowed}", field(name));
        let size = |name| match field(name).trim() {
            "" => Ok(0),
            text => bytes(text)
                .ok()
                .and_then(|size| u64::try_from(size).ok())
                .ok_or_else(|| wrong(name, "a number of bytes from 0 to 2^63 - 1, perhaps with a unit, such as 10GiB")),
        };
        let flag = |name| match field(name).trim().to_lowercase().as_str() {
            "1" | "yes" | "true" => Ok(true),
            "" | "0" | "no" | "false" => Ok(false),
            _ => Err(wrong(name, "yes or no")),
        };
        let name = field("name").to_string();
        if of_torrents {
            let info_hash = field("info_hash").trim().parse()?;
            return Ok(Import::Torrent { info_hash, name, size: size("size")? });
        }
        let torrent_limit = match field("torrent_limit").trim() {
            "" => 0,
            limit => limit.parse().map_err(|_| wrong("torrent_limit", &format!("0 to {}", u32::MAX)))?,
        };
        let user = User {
            name,
            passkey: field("passkey").into(),
            uploaded: size("uploaded")?,
            downloaded: size("downloaded")?,
            torrent_limit,
            admin: flag("admin")?,
            banned: flag("banned")?,
            ..User::default()
        };
        Ok(Import::User { user, api_key: None })
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
            None if quoted => return Err(format!("line {first}: a quote is opened but never closed")),
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
                return Err(format!("line {line}: a closing quote must be followed by a comma or the end of the line"));
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
