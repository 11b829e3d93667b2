//! The journal: what was answered and not written when goat was killed is found by the next start, wherever its
//! file went meanwhile, and counted in the database that it belongs to alone.

mod common;

use std::fs;
use std::path::PathBuf;

use common::{Announce, Database, Folder, Goat, Lock, free_port, info_hash, wait_until};
use serde_json::{Value, json};

fn folder(database: &Database) -> &Folder {
    match database {
        Database::Sqlite(folder) => folder,
        Database::MariaDb(_) => unreachable!(),
    }
}

/// A member's client whose session is written, and whose 500 bytes are not.
fn kill_with_500_unwritten_bytes(database: &Database, goat: &mut Goat, passkey: &str) {
    let mut announce = Announce::new(passkey, info_hash(1), 1);
    announce.accepted(goat);
    wait_until("the session", || {
        database.number("SELECT COUNT(*) FROM peers") == 1
    });
    let lock = Lock::new(database);
    (announce.uploaded, announce.event) = (500, "");
    announce.accepted(goat);
    goat.kill();
    lock.release();
    assert_eq!(database.number("SELECT SUM(uploaded) FROM users"), 0);
}

fn prepare(database: &Database) -> (Goat, String) {
    let goat = Goat::prepare(database, json!({ "SlowDown": 0, "Verified": false }));
    let passkey = goat.add_user("anna").passkey;
    goat.add_torrent(common::hex(&info_hash(1)));
    (goat, passkey)
}

/// The files in the system's memory that belong to a configuration.
fn journals(goat: &Goat) -> Vec<PathBuf> {
    let name = goat.folder.path().file_name().unwrap().to_string_lossy();
    let files = fs::read_dir("/dev/shm").unwrap().map(|file| file.unwrap());
    let ours = files.filter(|file| {
        file.file_name()
            .to_string_lossy()
            .contains(&format!("{name}-"))
    });
    ours.map(|file| file.path()).collect()
}

#[test]
fn a_journal_of_another_database_is_refused_and_named() {
    let database = Database::sqlite();
    let (mut goat, passkey) = prepare(&database);
    goat.launch();
    kill_with_500_unwritten_bytes(&database, &mut goat, &passkey);
    // The first member of the new database must not be credited what the first of the old one moved.
    let folder = folder(&database);
    let parts = ["goat.db", "goat.db-wal", "goat.db-shm"];
    for part in parts {
        let _ = fs::rename(folder.join(part), folder.join(&format!("old-{part}")));
    }
    goat.add_user("bert");
    let (status, _, stderr) = goat.cli(&["run"]);
    assert_eq!(status.code(), Some(1));
    let files = journals(&goat);
    let [file] = &files[..] else {
        panic!("{files:?}")
    };
    assert!(
        stderr.contains("another database") && stderr.contains(&file.display().to_string()),
        "{stderr}"
    );
    assert_eq!(database.number("SELECT SUM(uploaded) FROM users"), 0);
    for part in parts {
        let _ = fs::remove_file(folder.join(part));
        let _ = fs::rename(folder.join(&format!("old-{part}")), folder.join(part));
    }
    goat.launch();
    assert_eq!(database.number("SELECT SUM(uploaded) FROM users"), 500);
}

#[test]
fn a_goat_that_waited_for_the_one_before_keeps_its_journal_where_the_next_start_looks() {
    let database = Database::sqlite();
    let (mut before, passkey) = prepare(&database);
    before.launch();
    // The same configuration file, but for the port: one that is being replaced has closed its own already.
    let text = fs::read_to_string(before.config_path()).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    before.port = free_port();
    config["Port"] = json!(before.port);
    fs::write(before.config_path(), config.to_string()).unwrap();
    wait_until("the first to have its journal", || {
        before.log().contains("listening for HTTP")
    });
    let journal = journals(&before);
    let mut process = before.command(&["run"]);
    let mut after = common::Process::start("goat", &mut process, before.folder.join("after.log"));
    // It waits for the journal when it has opened it.
    wait_until("the next one to open the journal", || {
        after.assert_running();
        let open = fs::read_dir(format!("/proc/{}/fd", after.id())).unwrap();
        let mut open = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        open.any(|file| file == journal[0])
    });
    assert!(before.stop().success());
    wait_until("the next one to listen", || {
        after.assert_running();
        after.output().contains("listening for HTTP")
    });
    let mut goat = before;
    let mut announce = Announce::new(&passkey, info_hash(1), 1);
    announce.accepted(&goat);
    wait_until("the session", || {
        database.number("SELECT COUNT(*) FROM peers") == 1
    });
    let lock = Lock::new(&database);
    (announce.uploaded, announce.event) = (500, "");
    announce.accepted(&goat);
    after.kill();
    lock.release();
    goat.launch();
    assert_eq!(database.number("SELECT SUM(uploaded) FROM users"), 500);
}

#[test]
fn a_journal_that_somebody_removed_is_one_line_in_the_log() {
    let database = Database::sqlite();
    let (mut goat, _) = prepare(&database);
    goat.launch();
    wait_until("goat to have a journal", || !journals(&goat).is_empty());
    fs::remove_file(&journals(&goat)[0]).unwrap();
    wait_until("goat to notice", || goat.log().contains("was removed"));
    let lines = || {
        goat.log()
            .lines()
            .filter(|line| line.contains("/dev/shm"))
            .count()
    };
    // Another look for changes has passed.
    goat.add_user("bert");
    wait_until("another second", || {
        database.number("SELECT COUNT(*) FROM changes") == 0
    });
    assert_eq!(lines(), 1);
    drop(goat);
}
