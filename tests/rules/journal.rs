//! The journal: what was answered and not written when goat was killed is found by the next start, wherever its
//! folder went meanwhile, and counted in the database that it belongs to alone. What keeps it from being written or
//! read is said, with the file and what to do.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Announce, Database, Folder, Goat, Lock, free_port, hex, info_hash, skip, wait_until};
use goat::books::journal::RECORD;
use serde_json::{Value, json};

/// The user nobody, who owns nothing.
const NOBODY: u32 = 65_534;
/// Bytes of a segment's head.
const HEAD: usize = 28;

fn folder(database: &Database) -> &Folder {
    match database {
        Database::Sqlite(folder) => folder,
        Database::MariaDb(_) => unreachable!("this is about a file"),
    }
}

fn prepare(database: &Database) -> (Goat, String) {
    let goat = Goat::prepare(database, json!({ "SlowDown": 0, "Verified": false }));
    let passkey = goat.add_user("anna").passkey;
    goat.add_torrent(hex(&info_hash(1)));
    (goat, passkey)
}

/// A client of a member, whose session the database has.
fn written(database: &Database, goat: &Goat, passkey: &str) -> Announce {
    let mut announce = Announce::new(passkey, info_hash(1), 1);
    announce.accepted(goat);
    wait_until("the session", || database.number("SELECT COUNT(*) FROM peers") == 1);
    announce.event = "";
    announce
}

/// Kills goat when a member's client has said 500 bytes, in five announces, of which none is written.
fn kill_with_500_unwritten_bytes(database: &Database, goat: &mut Goat, passkey: &str) {
    let mut announce = written(database, goat, passkey);
    let lock = Lock::new(database);
    for uploaded in [100, 200, 300, 400, 500] {
        announce.uploaded = uploaded;
        announce.accepted(goat);
    }
    goat.kill();
    lock.release();
    assert_eq!(uploaded(database), 0);
}

fn uploaded(database: &Database) -> i64 {
    database.number("SELECT SUM(uploaded) FROM users")
}

/// The lines of the log that have these words.
fn lines(goat: &Goat, words: &str) -> usize {
    goat.log().lines().filter(|line| line.contains(words)).count()
}

/// The segment that was appended to last.
fn last_segment(goat: &Goat) -> PathBuf {
    goat.segments().pop().expect("a segment")
}

/// The parts of a database that is a file.
const PARTS: [&str; 3] = ["goat.db", "goat.db-wal", "goat.db-shm"];

fn move_parts(from: &Path, to: &Path, parts: &[&str]) {
    for part in parts {
        if from.join(part).exists() {
            fs::rename(from.join(part), to.join(part)).unwrap();
        }
    }
}

// ---- What a crash or a disk did to it.

#[test]
fn a_torn_tail_of_a_segment_is_its_end() {
    // What was cut off or never finished, and what of the 500 bytes must be there.
    type Change = fn(&mut Vec<u8>);
    let cases: [(&str, Change, i64); 5] = [
        ("nothing", |_| (), 500),
        ("half a record more", |bytes| bytes.extend([7; RECORD / 2]), 500),
        ("a record of nonsense more", |bytes| bytes.extend([7; RECORD]), 500),
        ("blocks of zeros more", |bytes| bytes.extend([0; 3 * RECORD + 5]), 500),
        ("the last record cut", |bytes| bytes.truncate(bytes.len() - 1), 400),
    ];
    for (what, change, expected) in cases {
        let database = Database::sqlite();
        let (mut goat, passkey) = prepare(&database);
        goat.launch();
        kill_with_500_unwritten_bytes(&database, &mut goat, &passkey);
        let segment = last_segment(&goat);
        let mut bytes = fs::read(&segment).unwrap();
        assert_eq!((bytes.len() - HEAD) % RECORD, 0, "{what}");
        change(&mut bytes);
        fs::write(&segment, bytes).unwrap();
        let (status, stdout, stderr) = goat.cli(&["check"]);
        assert!(status.success(), "{what}: {stdout}{stderr}");
        goat.launch();
        assert_eq!(uploaded(&database), expected, "{what}");
        assert_eq!(lines(&goat, "damaged"), 0, "{what}: {}", goat.log());
    }
}

#[test]
fn a_segment_that_was_made_a_moment_before_a_crash_is_empty() {
    let database = Database::sqlite();
    let (mut goat, passkey) = prepare(&database);
    goat.launch();
    kill_with_500_unwritten_bytes(&database, &mut goat, &passkey);
    fs::write(goat.journal().join("00000077.log"), [0; HEAD / 2]).unwrap();
    fs::write(goat.journal().join("00000078.log"), "").unwrap();
    goat.launch();
    assert_eq!(uploaded(&database), 500);
}

#[test]
fn damage_in_the_middle_is_named_and_set_aside_by_check() {
    // A byte of the head, and one of the third record of six.
    for (at, named) in [(3, 0), (HEAD + 2 * RECORD + 50, HEAD + 2 * RECORD)] {
        let database = Database::sqlite();
        let (mut goat, passkey) = prepare(&database);
        goat.launch();
        kill_with_500_unwritten_bytes(&database, &mut goat, &passkey);
        let segment = last_segment(&goat);
        let mut bytes = fs::read(&segment).unwrap();
        assert!(bytes.len() > at + RECORD);
        bytes[at] ^= 0x40;
        fs::write(&segment, &bytes).unwrap();

        let (name, place) = (segment.display().to_string(), format!("byte {named} is damaged"));
        let (status, _, stderr) = goat.cli(&["run"]);
        assert_eq!(status.code(), Some(1), "{stderr}");
        let said = [&name, place.as_str().trim_end_matches("is damaged"), "check --fix`"];
        assert!(said.iter().all(|words| stderr.contains(*words)), "{stderr}");
        let (status, stdout, _) = goat.cli(&["check"]);
        assert_eq!(status.code(), Some(1), "{stdout}");
        assert!(stdout.contains(&name) && stdout.contains("--fix sets it aside"), "{stdout}");
        assert_eq!(fs::read(&segment).unwrap(), bytes, "it stays as it was");
        let (status, stdout, stderr) = goat.cli(&["check", "--fix"]);
        assert!(status.success(), "{stdout}{stderr}");
        let aside = segment.with_extension("damaged");
        assert!(stdout.contains(&aside.display().to_string()), "{stdout}");
        assert_eq!(fs::read(&aside).unwrap(), bytes);
        goat.launch();
        assert!(goat.stop().success());
        assert_eq!(fs::read(&aside).unwrap(), bytes, "nobody but the operator removes it");
    }
}

// ---- Which database it belongs to.

#[test]
fn a_journal_of_another_database_is_discarded_and_spoken_of() {
    let database = Database::sqlite();
    let (mut goat, passkey) = prepare(&database);
    goat.launch();
    kill_with_500_unwritten_bytes(&database, &mut goat, &passkey);
    // The first member of the new database must not be credited what the first of the old one moved.
    let elsewhere = Folder::new();
    move_parts(folder(&database).path(), elsewhere.path(), &PARTS);
    goat.make_database();
    goat.add_user("bert");
    goat.launch();
    assert_eq!(uploaded(&database), 0);
    assert_eq!(lines(&goat, "were discarded"), 1, "{}", goat.log());
    assert!(goat.log().contains(&goat.journal().display().to_string()));
    assert!(goat.stop().success());
    goat.launch();
    assert_eq!(lines(&goat, "were discarded"), 0, "{}", goat.log());
}

#[test]
fn an_older_database_that_is_put_back_after_a_kill_gets_nothing_of_a_run_that_it_does_not_know() {
    let database = Database::sqlite();
    let (mut goat, passkey) = prepare(&database);
    let (home, backup) = (folder(&database).path(), Folder::new());
    let sql = format!("VACUUM INTO '{}'", backup.join("goat.db").display());
    database.sql(&sql);
    goat.launch();
    kill_with_500_unwritten_bytes(&database, &mut goat, &passkey);
    move_parts(home, Folder::new().path(), &PARTS[1..]);
    fs::copy(backup.join("goat.db"), home.join("goat.db")).unwrap();
    goat.launch();
    assert_eq!(lines(&goat, "were discarded"), 1, "{}", goat.log());
    assert_eq!(database.number("SELECT COUNT(*) FROM peers"), 0);
    assert_eq!(uploaded(&database), 0);
}

#[test]
fn a_copy_that_was_made_while_goat_ran_is_credited_each_byte_once() {
    let database = Database::sqlite();
    let (mut goat, passkey) = prepare(&database);
    let (home, backup) = (folder(&database).path(), Folder::new());
    goat.launch();
    let mut announce = written(&database, &goat, &passkey);
    announce.uploaded = 300;
    announce.accepted(&goat);
    wait_until("the books", || uploaded(&database) == 300);
    database.sql(&format!("VACUUM INTO '{}'", backup.join("goat.db").display()));
    // Of this some is written, and some is not.
    announce.uploaded = 1000;
    announce.accepted(&goat);
    wait_until("the books", || uploaded(&database) == 1000);
    let lock = Lock::new(&database);
    announce.uploaded = 1500;
    announce.accepted(&goat);
    goat.kill();
    lock.release();
    move_parts(home, Folder::new().path(), &PARTS[1..]);
    fs::copy(backup.join("goat.db"), home.join("goat.db")).unwrap();
    goat.launch();
    assert_eq!(uploaded(&database), 1500, "{}", goat.log());
}

#[test]
fn a_database_under_another_name_has_the_same_journal() {
    let database = Database::sqlite();
    let (mut goat, passkey) = prepare(&database);
    let (home, elsewhere) = (folder(&database).path(), Folder::new());
    std::os::unix::fs::symlink(home, elsewhere.join("link")).unwrap();
    goat.launch();
    kill_with_500_unwritten_bytes(&database, &mut goat, &passkey);
    let settings = |path: PathBuf| json!({ "Verified": false, "DB": { "Driver": "sqlite", "Path": path } });
    let mut other = Goat::prepare(&database, settings(elsewhere.join("link/goat.db")));
    other.launch();
    assert_eq!(uploaded(&database), 500);
    // Nor can two use it at a time.
    let (status, _, stderr) = goat.cli(&["run"]);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("another goat is using"), "{stderr}");
    drop(other);

    // A name of the file alone, in another folder.
    std::os::unix::fs::symlink(home.join("goat.db"), elsewhere.join("books.db")).unwrap();
    let mut third = Goat::prepare(&database, settings(elsewhere.join("books.db")));
    third.launch();
    assert!(!elsewhere.join("books.journal").exists());
    assert!(third.stop().success());
}

#[test]
fn a_database_that_is_moved_with_its_journal_loses_nothing() {
    let database = Database::sqlite();
    let (mut goat, passkey) = prepare(&database);
    goat.launch();
    kill_with_500_unwritten_bytes(&database, &mut goat, &passkey);
    let moved = Database::sqlite();
    let parts = [&PARTS[..], &["goat.journal"]].concat();
    move_parts(folder(&database).path(), folder(&moved).path(), &parts);
    let mut other = Goat::prepare(&moved, json!({ "Verified": false }));
    other.launch();
    assert_eq!(uploaded(&moved), 500);
    assert!(other.stop().success());
    assert_eq!(other.segments(), [] as [PathBuf; 0]);
}

#[test]
fn on_mariadb_the_journal_is_beside_the_configuration_and_goes_with_it() {
    let Some(database) = Database::mariadb("the journal of MariaDB") else {
        return;
    };
    let (mut goat, passkey) = prepare(&database);
    goat.launch();
    kill_with_500_unwritten_bytes(&database, &mut goat, &passkey);
    let other = Goat::prepare(&database, json!({ "Verified": false }));
    assert_eq!(other.journal(), other.folder.join("config.journal"));
    fs::rename(goat.journal(), other.journal()).unwrap();
    let mut goat = other;
    goat.launch();
    assert_eq!(uploaded(&database), 500);
}

#[test]
fn a_goat_that_waited_for_the_one_before_begins_where_that_ended() {
    let database = Database::sqlite();
    let (mut before, passkey) = prepare(&database);
    before.launch();
    // The same configuration file, but for the port: one that is being replaced has closed its own already.
    let text = fs::read_to_string(before.config_path()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    before.port = free_port();
    config["Port"] = json!(before.port);
    fs::write(before.config_path(), config.to_string()).unwrap();
    let mut process = before.command(&["run"]);
    let mut after = crate::common::Process::start("goat", &mut process, before.folder.join("after.log"));
    let lock = before.journal().join("lock");
    wait_until("the next one to wait", || {
        after.assert_running();
        let open = fs::read_dir(format!("/proc/{}/fd", after.id())).unwrap();
        let mut open = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        open.any(|file| file == lock)
    });
    assert!(before.stop().success());
    wait_until("the next one to listen", || {
        after.assert_running();
        after.output().contains("listening for HTTP")
    });
    let mut goat = before;
    let mut announce = written(&database, &goat, &passkey);
    let lock = Lock::new(&database);
    announce.uploaded = 500;
    announce.accepted(&goat);
    after.kill();
    lock.release();
    goat.launch();
    assert_eq!(uploaded(&database), 500);
}

// ---- What keeps it from being written or read.

#[test]
fn a_journal_that_somebody_removes_is_written_anew_and_that_is_one_line_in_the_log() {
    for whole in [true, false] {
        let database = Database::sqlite();
        let (mut goat, passkey) = prepare(&database);
        goat.launch();
        let mut announce = written(&database, &goat, &passkey);
        let lock = Lock::new(&database);
        announce.uploaded = 400;
        announce.accepted(&goat);
        if whole {
            fs::remove_dir_all(goat.journal()).unwrap();
        } else {
            fs::remove_file(last_segment(&goat)).unwrap();
        }
        wait_until("goat to notice", || lines(&goat, "goat.journal was rewritten") > 0);
        // Both what was in it and what comes now.
        let mut other = Announce::new(&passkey, info_hash(1), 2);
        other.uploaded = 100;
        other.accepted(&goat);
        goat.kill();
        lock.release();
        assert_eq!(uploaded(&database), 0);
        assert_eq!(lines(&goat, "goat.journal"), 1, "{}", goat.log());
        goat.launch();
        assert_eq!(uploaded(&database), 500);
    }
}

/// Gives a folder and all in it to a user.
fn give(path: &Path, user: u32) {
    let mut command = Command::new("chown");
    let done = command.args(["-R", &format!("{user}:{user}")]).arg(path).status();
    assert!(done.unwrap().success());
}

/// A goat that nobody runs, on a database of nobody's.
fn of_nobody(test: &str) -> Option<(Database, Goat, String)> {
    // SAFETY: no memory is passed.
    if unsafe { libc::geteuid() } != 0 {
        skip(test, "only root can be another user");
        return None;
    }
    let database = Database::sqlite();
    let (mut goat, passkey) = prepare(&database);
    goat.stop_being_root();
    give(folder(&database).path(), NOBODY);
    Some((database, goat, passkey))
}

trait Nobody {
    fn stop_being_root(&mut self);
}

impl Nobody for Goat {
    fn stop_being_root(&mut self) {
        give(self.folder.path(), NOBODY);
        self.user = Some(NOBODY);
    }
}

#[test]
fn a_journal_that_is_read_only_is_spoken_of_once_and_goat_goes_on() {
    let Some((database, mut goat, passkey)) = of_nobody("a read-only journal") else {
        return;
    };
    let (journal, log) = (goat.journal(), |goat: &Goat| goat.log());
    let mode = |mode| fs::set_permissions(&journal, PermissionsExt::from_mode(mode)).unwrap();
    // From the start on.
    fs::create_dir(&journal).unwrap();
    chown(&journal, Some(NOBODY), Some(NOBODY)).unwrap();
    mode(0o500);
    goat.launch();
    let mut announce = written(&database, &goat, &passkey);
    wait_until("goat to say so", || lines(&goat, "goat.journal cannot be written") > 0);
    announce.uploaded = 100;
    announce.accepted(&goat);
    wait_until("the books", || uploaded(&database) == 100);
    // Until it can be written.
    mode(0o700);
    wait_until("goat to say so", || lines(&goat, "goat.journal can be written again") > 0);
    assert_eq!(lines(&goat, "goat.journal"), 2, "{}", log(&goat));
    let lock = Lock::new(&database);
    announce.uploaded = 200;
    announce.accepted(&goat);
    goat.kill();
    lock.release();
    goat.launch();
    assert_eq!(uploaded(&database), 200);

    // From some time on: the file that is open can still be appended to.
    mode(0o500);
    let lock = Lock::new(&database);
    announce.uploaded = 300;
    announce.accepted(&goat);
    goat.kill();
    lock.release();
    goat.launch();
    assert_eq!(uploaded(&database), 300);
    assert!(goat.stop().success(), "{}", log(&goat));
    mode(0o700);
}

#[test]
fn a_journal_of_another_user_is_an_error_that_says_whose_it_is() {
    let Some((database, mut goat, passkey)) = of_nobody("a journal of another user") else {
        return;
    };
    // Somebody started goat as root once.
    goat.user = None;
    goat.launch();
    kill_with_500_unwritten_bytes(&database, &mut goat, &passkey);
    goat.user = Some(NOBODY);
    let journal = goat.journal();
    let refused = |goat: &Goat, path: &Path| {
        let (status, _, stderr) = goat.cli(&["run"]);
        assert_eq!(status.code(), Some(1), "{stderr}");
        let said = [path.to_str().unwrap(), "belongs to the user root", "run goat as that user"];
        assert!(said.iter().all(|words| stderr.contains(words)), "{stderr}");
    };
    for part in PARTS {
        let part = folder(&database).join(part);
        if part.exists() {
            chown(part, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }
    refused(&goat, &journal);
    // The folder is right, the file is not.
    chown(&journal, Some(NOBODY), Some(NOBODY)).unwrap();
    refused(&goat, &last_segment(&goat));
    give(&journal, NOBODY);
    goat.launch();
    assert_eq!(uploaded(&database), 500);
    assert!(goat.stop().success());
    // The same of the database.
    give(folder(&database).path(), 0);
    refused(&goat, &folder(&database).join("goat.db"));
}
