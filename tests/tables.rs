//! The tables through the years: an older goat's are upgraded, a newer one's are left alone, broken ones are
//! named, and what is long silent is removed while announces go on.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Announce, Database, Goat, MariaDb, hex, info_hash, wait_until};
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
    tables_of_version_1_are_upgraded_and_keep_what_they_hold
    tables_of_a_newer_goat_are_refused_and_left_alone
    many_at_once_find_or_make_whole_tables
    check_names_what_is_missing_and_how_to_mend_it
    a_million_silent_sessions_go_while_announces_are_answered
    what_nobody_approved_in_thirty_days_goes
}

fn prepare(database: &Database) -> Goat {
    Goat::prepare(database, json!({ "SlowDown": 0 }))
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

/// An empty database as version 1 made it.
fn first_version(database: &Database) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/schema-1");
    let name = match database {
        Database::Sqlite(_) => "sqlite.sql",
        Database::MariaDb(_) => "mysql.sql",
    };
    // A shell takes what begins with "--" for an option.
    database.sql(&format!(
        "\n{}",
        fs::read_to_string(folder.join(name)).unwrap()
    ));
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

fn tables_of_version_1_are_upgraded_and_keep_what_they_hold(database: &Database) {
    prepare(database).json(&["user", "list"]);
    let expected = columns(database);
    match database {
        Database::Sqlite(folder) => {
            for part in ["goat.db", "goat.db-wal", "goat.db-shm"] {
                let _ = fs::remove_file(folder.join(part));
            }
        }
        Database::MariaDb(_) => {
            database.sql("DROP DATABASE goat; CREATE DATABASE goat CHARACTER SET utf8mb4");
        }
    }
    first_version(database);
    let (passkey, hash) = ("a".repeat(40), hex(&info_hash(1)));
    let id = hex(&common::peer_id(1));
    database.sql(&format!(
        "INSERT INTO users (id, username, passkey, uploaded, downloaded) VALUES (7, 'anna', '{passkey}', 1000, 10);
         INSERT INTO files (id, info_hash, name, verified, completed) VALUES (5, '{hash}', 'holiday', 1, 3);
         INSERT INTO files_users VALUES (5, 7, '127.0.0.1', 1, 0, 4, 1000, 10, 9, 1700000000, 77);
         INSERT INTO peers VALUES (5, 7, X'{id}', '127.0.0.1', 6881, 1700000000, '', 0, 0, 1, 0, 0, 1000, 10, 9, 1700000000);
         INSERT INTO whitelist (client, approved) VALUES ('qB', 1);"
    ));
    if let Database::MariaDb(_) = database {
        // An upgrade that was interrupted in the middle.
        database.sql("ALTER TABLE files ADD COLUMN suggested BIGINT NOT NULL DEFAULT 0");
    }
    let mut goat = prepare(database);
    goat.launch();
    wait_until("goat to be ready", || {
        goat.log().contains("listening for HTTP")
    });
    let log = goat.log();
    assert!(log.contains("upgraded its tables to version 2"), "{log}");
    assert_eq!(columns(database), expected);
    let credited =
        "SELECT uploaded, credited_uploaded, credited_downloaded, seed_time FROM files_users";
    assert_eq!(
        database.sql(credited).concat(),
        ["1000", "1000", "10", "77"]
    );
    let mut announce = Announce::new(&passkey, info_hash(1), 1);
    (announce.uploaded, announce.event) = (1500, "");
    announce.accepted(&goat);
    wait_until("the difference", || {
        database.number("SELECT uploaded FROM users") == 1500
    });
    goat.restart();
    assert!(!goat.log().contains("upgraded"), "{}", goat.log());
    let (status, stdout, stderr) = goat.cli(&["check"]);
    assert!(status.success(), "{stdout}{stderr}");
}

fn tables_of_a_newer_goat_are_refused_and_left_alone(database: &Database) {
    let goat = prepare(database);
    goat.json(&["user", "list"]);
    database.sql("UPDATE goat SET value = 99; DROP TABLE whitelist");
    let before = columns(database);
    for words in [&["run"][..], &["user", "list"], &["check"]] {
        let (status, stdout, stderr) = goat.cli(words);
        let said = stdout + &stderr;
        assert_eq!(status.code(), Some(1), "{words:?}: {said}");
        assert!(
            said.contains("version 99") && said.contains("newer"),
            "{words:?}: {said}"
        );
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
    let complains = |break_it: &str, words: &[&str], mend: &str| {
        database.sql(break_it);
        let (good, said) = check();
        assert!(!good, "{break_it}: {said}");
        words
            .iter()
            .for_each(|word| assert!(said.contains(word), "{break_it}: {word} in {said}"));
        database.sql(mend);
        let (good, said) = check();
        assert!(good, "{mend}: {said}");
    };
    let (away, back) = (
        "ALTER TABLE batches RENAME TO gone",
        "ALTER TABLE gone RENAME TO batches",
    );
    complains(away, &["missing tables: batches", "schema.sql"], back);
    let (away, back) = (
        "ALTER TABLE peers RENAME COLUMN paused TO x",
        "ALTER TABLE peers RENAME COLUMN x TO paused",
    );
    complains(away, &["the table peers was changed", "paused"], back);
    database.sql("DROP TRIGGER users_delete");
    let (good, said) = check();
    assert!(
        !good && said.contains("missing triggers: users_delete"),
        "{said}"
    );
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
        words
            .iter()
            .for_each(|word| assert!(said.contains(word), "{sql}: {word} in {said}"));
    };
    complains(
        "ALTER DATABASE goat CHARACTER SET latin1",
        &["latin1", "ALTER DATABASE goat CHARACTER SET utf8mb4"],
    );
    server.root("ALTER DATABASE goat CHARACTER SET utf8mb4");
    complains(
        "ALTER TABLE goat.batches DEFAULT CHARACTER SET latin1",
        &["the table batches", "ALTER TABLE batches"],
    );
    server.root("ALTER TABLE goat.batches DEFAULT CHARACTER SET utf8mb4");
    complains(
        "REVOKE ALL ON goat.* FROM goat@localhost; GRANT SELECT, INSERT, UPDATE, DELETE ON goat.* TO goat@localhost",
        &[
            "may not CREATE, ALTER, TRIGGER",
            "GRANT CREATE, ALTER, TRIGGER ON goat.*",
        ],
    );
    complains(
        "REVOKE ALL ON goat.* FROM goat@localhost",
        &["cannot connect", "goat", "GRANT"],
    );
    complains(
        "ALTER USER goat@localhost IDENTIFIED BY 'other'",
        &["Access denied", "DB.Password"],
    );
    server.root(
        "ALTER USER goat@localhost IDENTIFIED BY 'goat'; GRANT ALL ON goat.* TO goat@localhost",
    );
    complains(
        "DROP DATABASE goat",
        &["Unknown database", "CREATE DATABASE"],
    );
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
            "CASE WHEN n % 3 = 0 THEN 2 ELSE 3 + n / 100 END, {id}, {peer_id}, '10.0.0.1', 6881, 0, '', 0, 0, 0, 0, 0, n, n, 1,
             {now} - CASE WHEN n % 10 = 0 THEN 86400 * 29 ELSE 86400 * 31 END"
        )
    };
    match database {
        Database::Sqlite(_) => database.sql(&format!(
            "WITH RECURSIVE seq (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM seq WHERE n < 1000000)
             INSERT INTO peers SELECT {} FROM seq",
            values("n", "CAST(printf('%020d', n) AS BLOB)")
        )),
        Database::MariaDb(_) => database.sql(&format!(
            "INSERT INTO peers SELECT {} FROM (SELECT seq AS n FROM seq_1_to_1000000) s",
            values("n", "LPAD(n, 20, '0')")
        )),
    };
    goat.launch();
    let mut announce = Announce::new(&passkey, info_hash(1), 1);
    announce.accepted(&goat);
    announce.event = "";
    let old = || {
        database.number(&format!(
            "SELECT COUNT(*) FROM peers WHERE time < {now} - 86400 * 30"
        ))
    };
    let (begin, mut count, mut longest, mut late) =
        (Instant::now(), 0, Duration::ZERO, Duration::ZERO);
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
            wait_until("the announce", || {
                database.number("SELECT uploaded FROM users") >= said
            });
            late = late.max(since.elapsed());
        }
        assert!(
            begin.elapsed() < Duration::from_secs(300),
            "{} are left",
            old()
        );
    }
    println!(
        "900,000 of 1,000,000 sessions removed in {:.1} s, {count} announces answered meanwhile, the slowest in {:.1} ms, in the books after {:.1} s at most",
        begin.elapsed().as_secs_f64(),
        longest.as_secs_f64() * 1e3,
        late.as_secs_f64()
    );
    assert_eq!(database.number("SELECT COUNT(*) FROM peers"), 100_001);
    assert!(goat.stop().success());
    assert_eq!(
        database.number("SELECT uploaded FROM users"),
        announce.uploaded as i64
    );
}

fn what_nobody_approved_in_thirty_days_goes(database: &Database) {
    let mut goat = prepare(database);
    goat.json(&["user", "list"]);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let (old, new) = (now - 86400 * 31, now - 86400 * 29);
    let hash = |n: u32| hex(&info_hash(n));
    database.sql(&format!(
        "INSERT INTO whitelist (client, approved, suggested) VALUES ('Old/', 0, {old}), ('New/', 0, {new}),
            ('Denied/', 0, 0), ('Approved/', 1, {old});
         INSERT INTO files (id, info_hash, verified, suggested) VALUES (1, '{}', 0, {old}), (2, '{}', 0, {new}),
            (3, '{}', 0, 0), (4, '{}', 1, {old}), (5, '{}', 0, {old});
         INSERT INTO files_users (file_id, user_id, ip, active, completed, announced, uploaded, downloaded, `left`,
            time, seed_time) VALUES (5, 1, '10.0.0.1', 0, 0, 1, 1, 1, 1, 1, 1);",
        hash(1), hash(2), hash(3), hash(4), hash(5)
    ));
    goat.launch();
    wait_until("the old ones to go", || {
        database.number("SELECT COUNT(*) FROM whitelist WHERE client = 'Old/'") == 0
    });
    let clients = "SELECT client FROM whitelist WHERE client IN ('New/', 'Denied/', 'Approved/')";
    assert_eq!(database.sql(clients).len(), 3);
    // 5 was a torrent once: somebody has totals of it.
    assert_eq!(
        database.sql("SELECT id FROM files ORDER BY id").concat(),
        ["2", "3", "4", "5"]
    );
}

#[test]
fn a_command_waits_for_a_file_that_somebody_has_locked_for_seconds() {
    let database = Database::sqlite();
    let Database::Sqlite(folder) = &database else {
        unreachable!()
    };
    let mut shell = Command::new("sqlite3")
        .arg(folder.join("goat.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut say = shell.stdin.take().unwrap();
    say.write_all(b"BEGIN EXCLUSIVE; CREATE TABLE other (x); SELECT 'locked';\n")
        .unwrap();
    let mut line = String::new();
    BufReader::new(shell.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "locked\n");
    let goat = prepare(&database);
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

#[test]
fn the_files_of_an_upgrade_can_be_imported_by_hand() {
    let database = Database::sqlite();
    first_version(&database);
    let Database::Sqlite(folder) = &database else {
        unreachable!()
    };
    let upgrade = Path::new(env!("CARGO_MANIFEST_DIR")).join("res/sqlite/upgrade-2.sql");
    let done = Command::new("sqlite3")
        .arg(folder.join("goat.db"))
        .stdin(fs::File::open(upgrade).unwrap())
        .output();
    assert!(done.unwrap().status.success());
    let goat = prepare(&database);
    let (status, _, stderr) = goat.cli(&["check"]);
    assert!(status.success(), "{stderr}");
}
