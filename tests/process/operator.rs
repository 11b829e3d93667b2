//! What operators stumbled over: messages that no person understands, hints that name another community, moving
//! in, backups of MariaDB with the rights that the documentation grants, and a configuration that is read-only.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::json;

use crate::common::{
    AGENT, Announce, Database, Folder, Goat, basic, hex, http_get, http_post, info_hash, skip, wait_until,
};
use crate::community::{cli, refused};

fn write(goat: &Goat, name: &str, text: &str) -> String {
    let file = goat.folder.join(name);
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().into()
}

/// Whether a text has something in it that Rust words for programmers.
fn is_for_programmers(text: &str) -> bool {
    let marks = ["os error", "Error {", "Custom {", "kind:", "Os {", "Some(", "Err(", "unwrap", "panicked"];
    marks.iter().any(|mark| text.contains(mark))
}

#[test]
fn no_command_that_fails_shows_how_rust_words_its_errors() {
    let mut said = Vec::new();
    for database in Database::each("failing commands") {
        let goat = Goat::prepare(&database, json!({ "API": true }));
        let csv = write(&goat, "members.csv", "name,passkey\nanna,abcdefghabcdefgh\n");
        let source = write(&goat, "a.torrent", "no torrent");
        let folder = goat.folder.path().to_str().unwrap();
        for words in [
            &["file", "add", "/nowhere/a.torrent"][..],
            &["file", "add", folder],
            &["file", "add", &source],
            &["file", "add", "/etc/passwd/x"],
            &["torrent", "/nowhere/a.torrent", "--for", "anna"],
            &["torrent", &source, "--for-all", "/proc/x"],
            &["import", "/nowhere/members.csv"],
            &["import", folder],
            &["import", "/bin/true"],
            &["import", &csv, "--keys", "/nowhere/keys.csv"],
            &["import", &csv, "--keys", folder],
            &["backup", "/nowhere/backup"],
            &["backup", folder],
            &["backup", "/etc/passwd/x"],
            &["restore", "/nowhere/backup"],
            &["restore", &csv],
            &["restore", folder],
            &["user", "show", "nobody"],
            &["user", "rename", "nobody", "x"],
            &["file", "show", "nothing"],
            &["client", "remove", "nothing"],
        ] {
            let (status, stdout, stderr) = goat.cli(words);
            assert!(!status.success(), "{words:?}: {stdout}");
            assert!(stderr.starts_with("goat: "), "{words:?}: {stderr}");
            said.push((format!("{words:?}"), stdout + &stderr));
        }
    }
    // Databases that cannot be reached, or are none.
    let sqlite = Database::sqlite();
    let garbage = Folder::new();
    fs::write(garbage.join("goat.db"), "garbage ".repeat(1000)).unwrap();
    let mut databases = vec![
        json!({ "Driver": "sqlite", "Path": "/nowhere/goat.db" }),
        json!({ "Driver": "sqlite", "Path": garbage.join("goat.db") }),
        json!({ "Driver": "sqlite", "Path": garbage.path() }),
        json!({ "Driver": "mysql", "Host": "127.0.0.1:1" }),
        json!({ "Driver": "mysql", "Host": "/nowhere/mysqld.sock" }),
        json!({ "Driver": "mysql", "Host": "no.such.host.invalid" }),
    ];
    let mariadb = Database::mariadb("failing connections");
    if let Some(Database::MariaDb(server)) = &mariadb {
        for (key, value) in [("Password", "wrong"), ("Username", "nobody"), ("Database", "nothing")] {
            let mut db = server.config();
            db[key] = value.into();
            databases.push(db);
        }
    }
    for db in databases {
        let goat = Goat::configure(&sqlite, json!({ "DB": db }));
        for words in [&["stats"][..], &["check"], &["run"], &["user", "add", "anna"]] {
            let (status, stdout, stderr) = goat.cli(words);
            assert!(!status.success() || words == ["check"], "{db} {words:?}: {stdout}");
            said.push((format!("{db} {words:?}"), stdout + &stderr));
        }
    }
    // Configurations that cannot be read, and certificates, ports and folders that cannot be used.
    let https = |file: &Path| json!({ "HTTPS": true, "SSL": { "Certificate": file, "Key": file } });
    for (settings, words) in [
        (https(Path::new("/nowhere/goat.crt")), "run"),
        (https(Path::new("/etc/passwd")), "run"),
        (https(Path::new("/dev/null")), "check"),
        (https(Path::new("/tmp")), "stats"),
        (json!({ "Host": "192.0.2.1" }), "run"),
        (json!({ "Host": "no.such.host.invalid" }), "run"),
        (json!({ "Host": "no.such.host.invalid" }), "check"),
        (json!({ "State": "/nowhere", "API": true }), "check"),
        (json!({ "Port": "x" }), "check"),
    ] {
        let goat = Goat::configure(&sqlite, settings.clone());
        let (_, stdout, stderr) = goat.cli(&[words]);
        said.push((format!("{settings} {words}"), stdout + &stderr));
    }
    for file in ["/nowhere/config.json", "/tmp", "/etc/passwd/x", "/bin/true"] {
        let output = goat_with(file, &["stats"]);
        assert_eq!(output.status.code(), Some(2), "{file}");
        said.push((file.into(), String::from_utf8(output.stderr).unwrap()));
    }
    for (what, text) in said {
        assert!(!is_for_programmers(&text), "{what}: {text}");
        assert!(text.lines().count() > 0, "{what}");
    }
}

fn goat_with(config: &str, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_goat"));
    command.args(words).args(["--config", config]).output().unwrap()
}

/// The commands between backticks.
fn hints(text: &str) -> Vec<String> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|words| words.starts_with("goat")).map(String::from).collect()
}

#[test]
fn hints_name_the_configuration_that_goat_was_given_and_can_be_run_as_they_are() {
    let database = Database::sqlite();
    let mut goat = Goat::prepare(&database, json!({}));
    let file = goat.config_path().display().to_string();
    let option = format!("goat --config {file} ");
    let anna = goat.json(&["user", "add", "anna", "--admin"])["passkey"].as_str().unwrap().to_string();
    for words in [
        &["user", "show", "nobody"][..],
        &["file", "show", "nothing"],
        &["client", "remove", "nothing"],
        &["user", "ban", "anna"],
    ] {
        let said = refused(&goat, words);
        let found = hints(&said);
        assert!(!found.is_empty(), "{said}");
        assert!(found.iter().all(|hint| hint.starts_with(&option)), "{said}");
        for hint in found.iter().filter(|hint| hint.ends_with(" list")) {
            let path = Path::new(env!("CARGO_BIN_EXE_goat")).parent().unwrap();
            let run = Command::new("/bin/sh").args(["-c", hint]).env("PATH", path).output().unwrap();
            assert!(run.status.success(), "{hint}: {run:?}");
        }
    }
    // So does the log, where something is to be approved.
    goat.launch();
    assert_eq!(Announce::new(&anna, info_hash(1), 1).refusal(&goat), "Unregistered torrent");
    let command = format!("`{option}file approve {}`", hex(&info_hash(1)));
    wait_until("the hint", || goat.log().contains(&command));
    goat.stop();
    // Who uses the default one need not name it.
    let home = Folder::new();
    let folder = home.join(".config/goat");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(goat.config_path(), folder.join("config.json")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_goat"));
    command.args(["user", "show", "nobody"]).env("HOME", home.path()).env_remove("XDG_CONFIG_HOME");
    let said = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert_eq!(hints(&said), ["goat user list"], "{said}");
}

#[test]
fn an_import_takes_every_column_and_units_and_names_what_it_does_not_know() {
    for database in Database::each("columns of an import") {
        let goat = Goat::prepare(&database, json!({}));
        let text = "Admin,name,passkey,uploaded,downloaded,torrent_limit,banned\n\
            yes,anna,annaannaannaanna,10G,1.5 GiB,20,no\n\
            false,bert,bertbertbertbert,7,,,TRUE\n,carl,carlcarlcarlcarl,0,10gb,0,0\n";
        assert_eq!(cli(&goat, &["import", &write(&goat, "m.csv", text)]), "3 rows imported\n");
        let member = |name: &str| {
            let user = goat.json(&["user", "show", name]);
            ["uploaded", "downloaded", "torrentLimit", "admin", "banned"].map(|key| user[key].clone())
        };
        let gib = |n: u64| json!(n << 30);
        assert_eq!(member("anna"), [gib(10), json!(3_u64 << 29), json!(20), json!(true), json!(false)]);
        assert_eq!(member("bert"), [json!(7), json!(0), json!(0), json!(false), json!(true)]);
        assert_eq!(member("carl"), [json!(0), json!(10_000_000_000_u64), json!(0), json!(false), json!(false)]);
        let text = format!("info_hash,name,size\n{},a,30MB\n", hex(&info_hash(1)));
        cli(&goat, &["import", &write(&goat, "t.csv", &text)]);
        assert_eq!(goat.json(&["file", "show", "a"])["size"], 30_000_000);
        for (header, said) in [
            ("name,passkey,ratio", "line 1: unknown column \"ratio\""),
            ("name,uploaded", "line 1: no column passkey"),
            ("info_hash,passkey", "line 1: unknown column \"passkey\""),
            ("name,passkey,name", "line 1: a column is named twice"),
        ] {
            let error = refused(&goat, &["import", &write(&goat, "x.csv", header)]);
            assert!(error.contains(said), "{error}");
            let columns = "name, passkey, uploaded, downloaded, torrent_limit, admin, banned";
            assert!(error.contains(columns) && error.contains("info_hash, name, size"), "{error}");
        }
        for (field, said) in [
            ("-1,,,", "line 2: uploaded is \"-1\", but must be a number of bytes"),
            ("1X,,,", "line 2: uploaded is \"1X\""),
            (",4294967296,,", "line 2: torrent_limit is \"4294967296\", but must be 0 to 4294967295"),
            (",,perhaps,", "line 2: admin is \"perhaps\", but must be yes or no"),
        ] {
            let text = format!("name,passkey,uploaded,torrent_limit,admin,banned\nx,xxxxxxxxxxxxxxxx,{field}\n");
            let error = refused(&goat, &["import", &write(&goat, "x.csv", &text)]);
            assert!(error.contains(said), "{error}");
        }
        assert_eq!(goat.json(&["stats"])["members"], 3);
    }
}

#[test]
fn an_import_with_keys_makes_one_for_each_member_and_writes_them_once() {
    for database in Database::each("keys of an import") {
        let goat = Goat::start(&database, json!({ "API": true }));
        let out = goat.folder.join("keys.csv");
        let keys = out.to_str().unwrap();
        // Where nothing is imported there are no keys.
        let wrong = write(&goat, "wrong.csv", "name,passkey\nanna,annaannaannaanna\nANNA,otherkeyotherkey\n");
        refused(&goat, &["import", &wrong, "--keys", keys]);
        assert!(!out.exists());
        let torrents = write(&goat, "t.csv", &format!("info_hash\n{}\n", hex(&info_hash(1))));
        assert!(refused(&goat, &["import", &torrents, "--keys", keys]).contains("for members"));
        assert!(!out.exists());

        let members = write(&goat, "m.csv", "name,passkey\nanna,annaannaannaanna\n\"b, \"\"c\"\"\",bertbertbertbert\n");
        let said = cli(&goat, &["import", &members, "--keys", keys]);
        assert_eq!(said, format!("2 rows imported; their API keys are in {keys}, and are not shown again\n"));
        assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600);
        let table = fs::read_to_string(&out).unwrap();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!((lines.len(), lines[0]), (3, "name,api_key"));
        for (line, name, start) in [(lines[1], "anna", "\"anna\","), (lines[2], "b, \"c\"", "\"b, \"\"c\"\"\",")] {
            let key = line.strip_prefix(start).unwrap();
            let authorization = basic(name, key);
            let headers = [("User-Agent", AGENT), ("Authorization", authorization.as_str())];
            assert_eq!(http_get(goat.address(), "/api/me", &headers).0, 200, "{line}");
        }
        // The file is not written over.
        let more = write(&goat, "more.csv", "name,passkey\ndora,doradoradoradora\n");
        let said = refused(&goat, &["import", &more, "--keys", keys]);
        assert!(said.contains("keys.csv: File exists"), "{said}");
        assert_eq!(fs::read_to_string(&out).unwrap(), table);
        refused(&goat, &["user", "show", "dora"]);
    }
}

/// What the documents have an administrator grant.
fn documented_grant() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [root.to_path_buf(), root.join("docs")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    let documents = files.map(|file| file.path()).filter(|file| file.extension().is_some_and(|end| end == "md"));
    let text: String = documents.map(|file| fs::read_to_string(file).unwrap()).collect();
    let grant = text.lines().find(|line| line.starts_with("GRANT SELECT, INSERT"));
    grant.expect("a GRANT in the documents").into()
}

#[test]
fn on_mariadb_the_documented_rights_are_enough_for_goat_its_backup_and_its_restore() {
    let Some(database) = Database::mariadb("backup and restore with few rights") else {
        return;
    };
    let Database::MariaDb(server) = &database else { unreachable!() };
    server.root("REVOKE ALL PRIVILEGES ON goat.* FROM goat@localhost");
    server.root(&documented_grant());
    let mut goat = Goat::prepare(&database, json!({ "SlowDown": 0 }));
    let anna = goat.add_user("anna");
    goat.add_torrent(hex(&info_hash(1)));
    goat.launch();
    let mut announce = Announce::new(&anna.passkey, info_hash(1), 1);
    announce.uploaded = 100;
    announce.accepted(&goat);
    wait_until("the books", || database.number("SELECT uploaded FROM users") == 100);
    // The printed command, with the password where it asks for one.
    let run = |goat: &Goat, words: &[&str]| {
        let (status, stdout, stderr) = goat.cli(words);
        assert_eq!(status.code(), Some(1), "{stderr}");
        let command = stdout.trim().replace("--password", "--password=goat");
        let mut shell = Command::new("sh");
        let output = shell.args(["-c", &command]).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{command}: {output:?}");
        stderr
    };
    let file = goat.folder.join("goat.sql");
    run(&goat, &["backup", file.to_str().unwrap()]);
    assert!(goat.stop().success());
    let tables = || {
        let sql = "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'goat' ORDER BY 1";
        let triggers = "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = 'goat' ORDER BY 1";
        (database.sql(sql), database.sql(triggers))
    };
    let before = tables();
    for empty in [false, true] {
        goat.add_user(&format!("later-{empty}"));
        if empty {
            server.root("DROP DATABASE goat; CREATE DATABASE goat CHARACTER SET utf8mb4");
        }
        let said = run(&goat, &["restore", file.to_str().unwrap()]);
        assert!(said.contains(goat.journal().to_str().unwrap()), "{said}");
        assert_eq!(tables(), before);
        assert_eq!(database.sql("SELECT username, uploaded FROM users"), [["anna", "100"]]);
    }
    let (status, stdout, _) = goat.cli(&["check"]);
    assert!(status.success() && !stdout.contains("wrong"), "{stdout}");
    goat.launch();
    announce.uploaded = 250;
    announce.event = "";
    announce.accepted(&goat);
    wait_until("the books", || database.number("SELECT uploaded FROM users") == 250);
}

#[test]
fn a_browser_at_a_wrong_path_gets_a_page_and_a_client_bencode() {
    let database = Database::sqlite();
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for (settings, link) in [
        (json!({ "API": true }), Some("href=\"/\"")),
        (json!({ "API": true, "URL": "https://t.example/x" }), Some("href=\"https://t.example/x/\"")),
        (json!({ "API": false }), None),
    ] {
        let goat = Goat::start(&database, settings);
        for path in ["/nothing", "/a/b/c", "/index.html?x=<y>"] {
            let headers = [("User-Agent", "Mozilla/5.0"), ("Accept", browser)];
            let answer = http_get(goat.address(), path, &headers);
            let text = String::from_utf8(answer.2).unwrap();
            assert_eq!(answer.0, 404, "{text}");
            assert!(text.starts_with("<!doctype html>") && text.contains("No such page"), "{text}");
            assert_eq!(text.split("href=").count() - 1, usize::from(link.is_some()), "{text}");
            assert!(link.is_none_or(|link| text.contains(link)), "{text}");
            assert!(!text.contains("<y>"), "{text}");
            for accept in [&[][..], &[("Accept", "*/*")]] {
                let headers = [&[("User-Agent", AGENT)], accept].concat();
                let answer = http_get(goat.address(), path, &headers);
                let text = String::from_utf8(answer.2).unwrap();
                assert!(answer.0 == 200 && text.starts_with("d14:failure reason"), "{text}");
            }
        }
        // A path of the tracker is one for browsers, too.
        let headers = [("User-Agent", "Mozilla/5.0"), ("Accept", browser)];
        assert_eq!(http_get(goat.address(), "/announce", &headers).0, 200);
    }
}

const NOBODY: u32 = 65_534;

#[test]
fn a_folder_that_is_read_only_is_said_and_state_names_another() {
    // SAFETY: no memory is passed.
    if unsafe { libc::geteuid() } != 0 {
        return skip("a read-only folder", "only root can be another user");
    }
    for database in Database::each("a read-only folder") {
        let mut goat = Goat::prepare(&database, json!({ "API": true, "SlowDown": 0 }));
        let anna = goat.add_user("anna");
        goat.add_torrent(hex(&info_hash(1)));
        if let Database::Sqlite(folder) = &database {
            for file in fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path()) {
                chown(file, Some(NOBODY), Some(NOBODY)).unwrap();
            }
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        goat.user = Some(NOBODY);
        let mariadb = matches!(database, Database::MariaDb(_));
        let state = Folder::new();
        chown(state.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        let config = fs::read_to_string(goat.config_path()).unwrap();
        // Others may look, only root may write.
        fs::set_permissions(goat.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let log = goat.folder.join("goat.log");
        fs::write(&log, "").unwrap();
        let folders = [goat.folder.path().to_owned(), state.path().to_owned()];
        let there = |name: &str| folders.each_ref().map(|folder| folder.join(name).exists());
        let login = |goat: &Goat| {
            let authorization = basic("anna", &anna.api_key);
            let headers = [("User-Agent", AGENT), ("Authorization", authorization.as_str())];
            http_post(goat.address(), "/api/login", &headers, b"").unwrap().0
        };

        let effects = ["nobody can log in for signed calls of the API", "there is no journal"];
        let expected = &effects[..if mariadb { 2 } else { 1 }];
        let (_, checked, _) = goat.cli(&["check"]);
        goat.launch();
        for text in [&checked, &goat.log()] {
            for effect in effects {
                assert_eq!(text.contains(effect), expected.contains(&effect), "{effect}: {text}");
            }
            assert!(text.contains("cannot be written (Permission denied)") && text.contains("`State`"), "{text}");
        }
        assert_eq!(login(&goat), 503);
        goat.stop();
        assert_eq!(there("config.secret"), [false, false]);

        let with_state = config.replacen('{', &format!("{{\"State\": {:?},", state.path()), 1);
        fs::write(goat.config_path(), with_state).unwrap();
        let (_, checked, _) = goat.cli(&["check"]);
        goat.launch();
        for text in [&checked, &goat.log()] {
            assert!(!text.contains("cannot be written"), "{text}");
        }
        assert_eq!(login(&goat), 200);
        Announce::new(&anna.passkey, info_hash(1), 1).accepted(&goat);
        assert_eq!(there("config.secret"), [false, true]);
        assert_eq!(there("config.journal"), [false, mariadb]);
        goat.stop();
    }
}
