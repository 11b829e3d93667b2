//! The tables through the years: a newer goat's are left alone, broken ones are named, and what is long silent is removed while announces go on.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Announce, Database, Goat, MariaDb, hex, info_hash, wait_until};
use goat::store::Store;
use serde_json::json;

macro_rules! on_each_database {
    ($($rule:ident)*) => {
        mod sqlite {
            use super::Database;
            $(#[test] fn $rule() { super::$rule(&Database::sqlite()); })*
        }
        mod mariadb {
            use super::Database;
            $(#[test] fn $rule() {
                Database::mariadb(stringify!($rule)).iter().for_each(super::$rule);
            })*
        }
    };
}

on_each_database! {
    tables_of_a_newer_goat_are_refused_and_left_alone
    many_at_once_find_or_make_whole_tables
    check_names_what_is_missing_and_how_to_mend_it
    a_million_silent_sessions_go_while_announces_are_answered
    what_nobody_approved_in_thirty_days_goes
}

fn prepare(database: &Database) -> Goat {
    Goat::prepare(database, json!({ "SlowDown": 0 }))
}

/// The database of a goat, for this process.
fn open(goat: &Goat) -> Store {
    Store::open(&goat::config::load(&goat.config_path()).unwrap()).unwrap()
}

/// The columns of all tables, sorted.
fn columns(database: &Database) -> Vec<String> {
    let sql = match database {
        Database::Sqlite(_) => {
            "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table'"
        }
        Database::MariaDb(_) => {
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'goat'"
        }
    };
    let mut columns: Vec<String> = database.sql(sql).iter().map(|row| row.join(".")).collect();
    columns.sort();
    columns
}

fn many_at_once_find_or_make_whole_tables(database: &Database) {
    let goat = prepare(database);
    std::thread::scope(|scope| {
        for n in 0..8 {
            let goat = &goat;
            scope.spawn(move || goat.add_user(&format!("member{n}")));
        }
    });
    assert_eq!(database.number("SELECT COUNT(*) FROM users"), 8);
    assert_eq!(goat.json(&["user", "list"]).as_array().unwrap().len(), 8);
}

fn tables_of_a_newer_goat_are_refused_and_left_alone(database: &Database) {
    let goat = prepare(database);
    goat.json(&["user", "list"]);
    database.sql("UPDATE goat SET value = 99 WHERE name = 'schema'; DROP TABLE whitelist");
    let before = columns(database);
    for words in [&["run"][..], &["user", "list"], &["check"]] {
        let (status, stdout, stderr) = goat.cli(words);
        let said = stdout + &stderr;
        assert_eq!(status.code(), Some(1), "{words:?}: {said}");
        assert!(said.contains("version 99") && said.contains("newer"), "{words:?}: {said}");
        assert!(!said.contains("missing"), "{words:?}: {said}");
    }
    assert_eq!(columns(database), before);
}

fn check_names_what_is_missing_and_how_to_mend_it(database: &Database) {
    let goat = prepare(database);
    let check = || {
        let (status, stdout, stderr) = goat.cli(&["check"]);
        (status.code() == Some(0), stdout + &stderr)
    };
    assert!(check().0, "an empty database is good: {}", check().1);
    // Whatever torrents there are.
    database.sql("INSERT INTO files (info_hash) VALUES ('676f617420636865636b7320612077726974652e')");
    assert!(check().0, "{}", check().1);
    let complains = |break_it: &str, words: &[&str], mend: &str| {
        database.sql(break_it);
        let (good, said) = check();
        assert!(!good, "{break_it}: {said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{break_it}: {word} in {said}"));
        database.sql(mend);
        let (good, said) = check();
        assert!(good, "{mend}: {said}");
    };
    let (away, back) = ("ALTER TABLE hours RENAME TO gone", "ALTER TABLE gone RENAME TO hours");
    complains(away, &["missing tables: hours", "schema.sql"], back);
    let (away, back) =
        ("ALTER TABLE api_logins RENAME COLUMN calls TO x", "ALTER TABLE api_logins RENAME COLUMN x TO calls");
    complains(away, &["the table api_logins was changed", "calls"], back);
    database.sql("DROP TRIGGER users_delete");
    let (good, said) = check();
    assert!(!good && said.contains("missing triggers: users_delete"), "{said}");
    goat.json(&["user", "list"]); // makes it again
    assert!(check().0, "{}", check().1);
    if let Database::MariaDb(server) = database {
        check_of_a_server(server, &check);
    }
}

fn check_of_a_server(server: &MariaDb, check: &dyn Fn() -> (bool, String)) {
    let complains = |sql: &str, words: &[&str]| {
        server.root(sql);
        let (good, said) = check();
        assert!(!good, "{sql}: {said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{sql}: {word} in {said}"));
    };
    complains("ALTER DATABASE goat CHARACTER SET latin1", &["latin1", "ALTER DATABASE goat CHARACTER SET utf8mb4"]);
    server.root("ALTER DATABASE goat CHARACTER SET utf8mb4");
    complains("ALTER TABLE goat.hours DEFAULT CHARACTER SET latin1", &["the table hours", "ALTER TABLE hours"]);
    server.root("ALTER TABLE goat.hours DEFAULT CHARACTER SET utf8mb4");
    complains(
        "REVOKE ALL ON goat.* FROM goat@localhost; GRANT SELECT, INSERT, UPDATE, DELETE ON goat.* TO goat@localhost",
        &["may not CREATE, CREATE VIEW, TRIGGER", "GRANT CREATE, CREATE VIEW, TRIGGER ON goat.*"],
    );
    complains("REVOKE ALL ON goat.* FROM goat@localhost", &["cannot connect", "goat", "GRANT"]);
    complains("ALTER USER goat@localhost IDENTIFIED BY 'other'", &["Access denied", "DB.Password"]);
    server.root("ALTER USER goat@localhost IDENTIFIED BY 'goat'; GRANT ALL ON goat.* TO goat@localhost");
    complains("DROP DATABASE goat", &["Unknown database", "CREATE DATABASE"]);
    server.root("CREATE DATABASE goat CHARACTER SET utf8mb4");
    assert!(check().0, "{}", check().1);
}

fn a_million_silent_sessions_go_while_announces_are_answered(database: &Database) {
    let mut goat = prepare(database);
    assert_eq!(goat.add_torrent(hex(&info_hash(1))), 1);
    let passkey = goat.add_user("anna").passkey;
    // One torrent with very many, and many with a few; a tenth was heard of a moment ago.
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let values = |id: &str, peer_id: &str| {
        format!(
            "INSERT INTO sessions (file_id, user_id, peer_id, closed, flags, uploaded, downloaded, `left`, seed_time, time4,
                time6, state)
             SELECT CASE WHEN n % 3 = 0 THEN 2 ELSE 3 + n / 100 END, {id}, {peer_id}, 1, 65536, n, n, 1, 0,
                {now} - CASE WHEN n % 10 = 0 THEN 86400 * 29 ELSE 86400 * 31 END, 0, X'0A0000010000'"
        )
    };
    match database {
        Database::Sqlite(_) => database.sql(&format!(
            "WITH RECURSIVE seq (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM seq WHERE n < 1000000)
             {} FROM seq",
            values("n", "CAST(printf('%020d', n) AS BLOB)")
        )),
        Database::MariaDb(_) => {
            database.sql(&format!("{} FROM (SELECT seq AS n FROM seq_1_to_1000000) s", values("n", "LPAD(n, 20, '0')")))
        }
    };
    goat.launch();
    let mut announce = Announce::new(&passkey, info_hash(1), 1);
    announce.accepted(&goat);
    announce.event = "";
    // As goat does it when it has run for a day.
    let store = open(&goat);
    let sweeping = std::thread::spawn(move || {
        let (mut from, mut longest) = (Some(0), Duration::ZERO);
        while let Some(torrent) = from {
            let begin = Instant::now();
            (from, _) = store.sweep(torrent, (now - 86400 * 30) as u32).unwrap();
            longest = longest.max(begin.elapsed());
            std::thread::sleep(Duration::from_millis(10)); // others write, too
        }
        longest
    });
    let old = || database.number(&format!("SELECT COUNT(*) FROM sessions WHERE time4 < {now} - 86400 * 30"));
    let (begin, mut count, mut longest, mut late) = (Instant::now(), 0, Duration::ZERO, Duration::ZERO);
    let mut look = Instant::now();
    loop {
        announce.uploaded += 1000;
        let asked = Instant::now();
        announce.accepted(&goat);
        longest = longest.max(asked.elapsed());
        count += 1;
        if look.elapsed() > Duration::from_millis(700) {
            look = Instant::now();
            if old() == 0 {
                break;
            }
            // And the books are not behind: what was said is written with the next batch or two.
            let said = announce.uploaded as i64;
            let since = Instant::now();
            wait_until("the announce", || database.number("SELECT uploaded FROM users") >= said);
            late = late.max(since.elapsed());
        }
        assert!(begin.elapsed() < Duration::from_secs(300), "{} are left", old());
    }
    let held = sweeping.join().unwrap();
    println!(
        "900,000 of 1,000,000 sessions removed in {:.1} s, {count} announces answered meanwhile, the slowest in {:.1} ms, in the books after {:.1} s at most, the longest step {:.1} ms",
        begin.elapsed().as_secs_f64(),
        longest.as_secs_f64() * 1e3,
        late.as_secs_f64(),
        held.as_secs_f64() * 1e3
    );
    // So long most libraries wait for a lock.
    assert!(held < Duration::from_secs(5), "others waited {held:?}, in vain");
    assert_eq!(database.number("SELECT COUNT(*) FROM sessions"), 100_001);
    // What they moved stays: the others are of nobody here.
    let moved = "SELECT SUM(uploaded) FROM files_users WHERE file_id > 1";
    assert_eq!(database.number(moved), 450_000_000_000);
    assert!(goat.stop().success());
    assert_eq!(database.number("SELECT uploaded FROM users"), announce.uploaded as i64);
}

fn what_nobody_approved_in_thirty_days_goes(database: &Database) {
    let goat = prepare(database);
    goat.json(&["user", "list"]);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let (old, new) = (now - 86400 * 31, now - 86400 * 29);
    let hash = |n: u32| hex(&info_hash(n));
    database.sql(&format!(
        "INSERT INTO whitelist (client, approved, suggested) VALUES ('Old/', 0, {old}), ('New/', 0, {new}),
            ('Denied/', 0, 0), ('Approved/', 1, {old});
         INSERT INTO files (id, info_hash, verified, suggested) VALUES (1, '{}', 0, {old}), (2, '{}', 0, {new}),
            (3, '{}', 0, 0), (4, '{}', 1, {old}), (5, '{}', 0, {old});
         INSERT INTO totals VALUES (5, 1, '10.0.0.1', 0, 1, 1, 1, 1, 1, 1, 1, 1);",
        hash(1),
        hash(2),
        hash(3),
        hash(4),
        hash(5)
    ));
    // As goat does it when it has run for a day.
    let (store, before) = (open(&goat), (now - 86400 * 30) as u32);
    let mut from = Some(0);
    while let Some(torrent) = from {
        (from, _) = store.sweep(torrent, before).unwrap();
    }
    let gone = "SELECT COUNT(*) FROM whitelist WHERE client = 'Old/'";
    assert_eq!(database.number(gone), 0);
    let clients = "SELECT client FROM whitelist WHERE client IN ('New/', 'Denied/', 'Approved/')";
    assert_eq!(database.sql(clients).len(), 3);
    // 5 was a torrent once: somebody has totals of it.
    assert_eq!(database.sql("SELECT id FROM files ORDER BY id").concat(), ["2", "3", "4", "5"]);
}

#[test]
fn check_says_that_a_database_is_read_only() {
    // SAFETY: no memory is passed.
    if unsafe { libc::geteuid() } != 0 {
        return crate::common::skip("a read-only file", "only root can be another user");
    }
    let database = Database::sqlite();
    let Database::Sqlite(folder) = &database else { unreachable!() };
    let mut goat = prepare(&database);
    goat.add_user("anna");
    goat.user = Some(65_534);
    let check = |mode: u32| {
        for (path, mode) in [(folder.path().to_owned(), mode), (folder.join("goat.db"), mode & 0o666)] {
            std::os::unix::fs::chown(&path, Some(65_534), Some(65_534)).unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        }
        let (status, stdout, _) = goat.cli(&["check"]);
        (status.code(), stdout)
    };
    let (code, said) = check(0o700);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = check(0o500);
    assert_eq!(code, Some(1), "{said}");
    let line = said.lines().find(|line| line.contains("goat.db: wrong"));
    assert!(line.is_some_and(|line| line.contains("readonly")), "{said}");
    assert_eq!(check(0o700).0, Some(0));
}

#[test]
fn check_says_that_a_server_is_read_only_or_that_a_right_is_missing() {
    let Some(database) = Database::mariadb("a read-only server") else {
        return;
    };
    let Database::MariaDb(server) = &database else { unreachable!() };
    let goat = prepare(&database);
    goat.add_user("anna");
    let check = |sql: &str| {
        server.root(sql);
        let (status, stdout, _) = goat.cli(&["check"]);
        (status.code(), stdout)
    };
    let (code, said) = check("SET GLOBAL read_only = 1");
    assert!(code == Some(1) && said.contains("cannot be written") && said.contains("read-only"), "{said}");
    let (code, said) = check("SET GLOBAL read_only = 0");
    assert_eq!(code, Some(0), "{said}");
    // Rights to single tables are rights as well, and one of them is missing.
    let rights = "REVOKE ALL ON goat.* FROM goat@localhost; GRANT SELECT, UPDATE, DELETE, CREATE, CREATE VIEW, TRIGGER ON goat.* TO goat@localhost";
    let (code, said) = check(rights);
    assert!(code == Some(1) && said.contains("may not INSERT"), "{said}");
    // Nothing of what was tried stays.
    assert_eq!(database.number("SELECT COUNT(*) FROM files"), 0);
    assert_eq!(database.number("SELECT COUNT(*) FROM changes WHERE what = 'file'"), 0);
}

#[test]
fn a_command_waits_for_a_file_that_somebody_has_locked_for_seconds() {
    let database = Database::sqlite();
    let Database::Sqlite(folder) = &database else { unreachable!() };
    let goat = prepare(&database);
    let mut shell = Command::new("sqlite3")
        .arg(folder.join("goat.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut say = shell.stdin.take().unwrap();
    say.write_all(b"BEGIN EXCLUSIVE; CREATE TABLE other (x); SELECT 'locked';\n").unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "locked\n");
    let begin = Instant::now();
    let mut command = goat.command(&["user", "add", "anna"]).spawn().unwrap();
    wait_until("goat to have waited", || {
        assert!(command.try_wait().unwrap().is_none(), "goat gave up");
        begin.elapsed() > Duration::from_secs(4)
    });
    say.write_all(b"COMMIT;\n").unwrap();
    drop(say);
    assert!(command.wait().unwrap().success());
    assert!(shell.wait().unwrap().success());
}
