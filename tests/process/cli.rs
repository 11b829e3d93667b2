//! The command line, as an operator meets it: every command on both databases, with the tracker running and
//! not; what is printed where, with which exit status; and the first start.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::common::{
    AGENT, Announce, Bencode, Database, Folder, Goat, Lab, Process, escape, hex, http_get, info_hash, wait_for,
    wait_until,
};
use serde_json::{Value, json};

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
    every_command_works_with_and_without_a_running_tracker
    what_cannot_be_done_is_an_error_with_status_1
    no_secret_is_ever_logged
}

fn every_command_works_with_and_without_a_running_tracker(database: &Database) {
    let mut goat = Goat::prepare(database, json!({ "SlowDown": 0 }));
    check_help_and_version(&goat);
    for round in [0, 100] {
        let running = round > 0;
        if running {
            goat.launch();
        }
        let cli = |words: &[&str]| succeed(goat.cli(words), words);
        let checked = cli(&["check"]);
        assert!(checked.lines().all(|line| !line.contains(": wrong")), "{checked}");
        let port = format!("TCP port {}: good", goat.port);
        for start in [goat.config_path().to_str().unwrap(), database_name(database), &port] {
            let line = checked.lines().find(|line| line.starts_with(start));
            assert!(line.is_some_and(|line| line.contains(": good")), "{start}: {checked}");
        }
        assert_eq!(checked.contains("goat listens (process"), running, "{checked}");

        check_users(&goat, round);
        check_files(&goat, round);
        check_clients(&goat, round);
        if running {
            check_what_they_do(&goat);
        }
    }
    // What members do is shown also when nobody tracks it any more.
    goat.stop();
    check_seeding(&goat);
}

/// Every command that exists is one that the tests know.
fn check_help_and_version(goat: &Goat) {
    let help = succeed(goat.cli(&["help"]), &["help"]);
    let commands = help.lines().filter_map(|line| line.strip_prefix("  goat "));
    let words = |line: &str| {
        let lower = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
        let usage = line.split("  ").next().unwrap();
        let words = usage.split(' ').take_while(lower);
        words.collect::<Vec<_>>().join(" ")
    };
    let commands: Vec<String> = commands.map(words).collect();
    let known = "run, check, stats, user add, user list, user show, user ban, user admin, user rename, user unban, user remove, \
         user passkey, user key, user limit, user invitations, user credit, file add, file list, file show, file approve, \
         file rename, file revoke, file remove, file free, client list, client approve, client deny, client remove, node list, \
         torrent, log, backup, restore, import, help";
    assert_eq!(commands.join(", "), known, "{help}");
    // Each is explained, by `help` and by its own --help alike.
    for command in &commands {
        let words: Vec<&str> = command.split(' ').collect();
        let explained = succeed(goat.cli(&[&["help"], &words[..]].concat()), &words);
        assert!(explained.contains(&format!("\nUsage: goat {command}")), "{explained}");
        for option in ["--help", "-h"] {
            let own = succeed(goat.cli(&[&words[..], &[option]].concat()), &words);
            assert_eq!(own, explained);
        }
    }
    for words in [&["--help"][..], &["-h"]] {
        assert_eq!(succeed(goat.cli(words), words), help);
    }
    for word in ["--version", "-V"] {
        let output = self::goat(&goat.folder, &[word]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let rest = said.strip_prefix(concat!("goat ", env!("CARGO_PKG_VERSION")));
        let commit = rest.unwrap().trim_end_matches('\n');
        if commit.is_empty() {
            assert!(!is_clone(), "the commit is missing in {said}");
            continue;
        }
        let commit = commit.strip_prefix(" (").unwrap().strip_suffix(')');
        let commit = commit.unwrap().trim_end_matches("-dirty");
        let hex = commit.bytes().all(|b| b.is_ascii_hexdigit());
        assert!(hex && commit.len() >= 7, "{said}");
    }
    // Each of these is what the repository has.
    for (option, file) in [
        ("--man", "goat.1"),
        ("--bash", "completions/goat.bash"),
        ("--zsh", "completions/_goat"),
        ("--fish", "completions/goat.fish"),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("res").join(file);
        let said = succeed(goat.cli(&["help", option]), &["help", option]);
        assert_eq!(said, fs::read_to_string(path).unwrap(), "{option}");
    }
}

/// Whether git can tell which commit the source is of.
fn is_clone() -> bool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut git = Command::new("git");
    let git = git.args(["rev-parse", "HEAD"]).current_dir(root);
    root.join(".git").exists() && git.output().is_ok_and(|output| output.status.success())
}

fn database_name(database: &Database) -> &'static str {
    match database {
        Database::Sqlite(_) => "SQLite ",
        Database::MariaDb(_) => "MySQL database goat",
    }
}

fn check_users(goat: &Goat, round: i64) {
    let cli = |words: &[&str]| succeed(goat.cli(words), words);
    let (first, second) = (format!("anna{round}"), format!("Größe {round}"));
    let user = goat.json(&["user", "add", &first, "--torrent-limit", "7", "--admin"]);
    assert_eq!(keys(&user), ["announce", "apiKey", "id", "name", "passkey"]);
    let secret = |key: &str| {
        let text = user[key].as_str().unwrap();
        assert!(text.len() == 40 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{user}");
        text
    };
    assert_ne!(secret("passkey"), secret("apiKey"));
    let url = format!("http://{}/{}/announce", goat.address(), secret("passkey"));
    assert_eq!((&user["name"], &user["announce"]), (&json!(first), &json!([url])));

    let plain = cli(&["user", "add", &second]);
    let fields: Vec<(&str, &str)> = plain.lines().take(5).map(|line| line.split_at(10)).collect();
    let [("id        ", id), ("name      ", name), ("passkey   ", passkey), ("API key   ", _), ("announce  ", url)] =
        fields[..]
    else {
        panic!("{plain}")
    };
    assert_eq!(name, second);
    assert_eq!(url, format!("http://{}/{passkey}/announce", goat.address()));
    assert!(plain.contains("not shown again"), "{plain}");

    let list = goat.json(&["user", "list"]);
    let [.., a, b] = &list.as_array().unwrap()[..] else { panic!("{list}") };
    let expected = |id: i64, name: &str, admin: bool, limit: i64| {
        json!({ "id": id, "name": name, "admin": admin, "banned": false, "banReason": "",
                "torrentLimit": limit, "uploaded": 0, "downloaded": 0, "ratio": null,
                "seeding": 0, "leeching": 0, "seedTime": 0, "lastSeen": null, "createTime": "now",
                "snatches": 0, "rawUploaded": 0, "rawDownloaded": 0 })
    };
    let (a, b) = (created_now(a), created_now(b));
    assert_eq!(a, expected(user["id"].as_i64().unwrap(), &first, true, 7));
    assert_eq!(b, expected(id.parse().unwrap(), &second, false, 0));
    let plain = cli(&["user", "list"]);
    assert_eq!(plain.lines().count(), 1 + list.as_array().unwrap().len(), "{plain}");
    let row = plain.lines().find(|line| line.ends_with(&first)).unwrap();
    assert!(row.contains(" yes "), "{plain}");
    assert!(!plain.contains(secret("passkey")) && !plain.contains(secret("apiKey")));
}

fn check_files(goat: &Goat, round: i64) {
    let cli = |words: &[&str]| succeed(goat.cli(words), words);
    let sample = |name: &str| samples().join(name).to_str().unwrap().to_string();
    let (torrent, hash, name) = match round {
        0 => ("mktorrent-private.torrent", "aa6afcccbca29891a78a28fefdb135b9b4e264af", "album"),
        _ => ("libtorrent-v1.torrent", "4f328feb0aeda4b84f9b41cfce918b722b6c76bc", "Größe"),
    };
    let file = goat.json(&["file", "add", "--public", &sample(torrent)]);
    let id = file["id"].as_i64().unwrap();
    let expected = |verified: bool| {
        json!({ "id": id, "infoHash": hash, "name": name, "verified": verified,
                "size": file["size"], "seeders": 0, "leechers": 0, "completed": 0, "lastActive": null,
                "uploadPercent": 100, "downloadPercent": 100, "suggested": null, "suggestedBy": "",
                "uploaded": 0, "downloaded": 0, "seedTime": 0, "createTime": "now", "updateTime": file["updateTime"],
                "fileCount": file["fileCount"] })
    };
    assert_eq!(created_now(&file), expected(true));
    assert!(file["fileCount"].as_i64() > Some(0), "{file}");
    let other = hex(&info_hash(round as u32));
    let plain = cli(&["file", "add", &other]);
    assert!(plain.lines().count() == 1 && plain.contains(&other), "{plain}");

    // A pending one, as an announce would leave it.
    let list = || goat.json(&["file", "list"]);
    let find =
        |list: &Value, hash: &str| list.as_array().unwrap().iter().find(|row| row["infoHash"] == hash).map(created_now);
    assert_eq!(find(&list(), hash), Some(expected(true)));
    assert_eq!(goat.json(&["file", "list", "--pending"]), json!([]));
    let plain = cli(&["file", "list"]);
    assert_eq!(plain.lines().count(), 1 + list().as_array().unwrap().len(), "{plain}");
    assert!(plain.lines().any(|line| line.contains(hash) && line.contains(" yes ") && line.ends_with(name)), "{plain}");
    assert_eq!(cli(&["file", "list", "--pending"]).lines().count(), 1);
}

fn check_clients(goat: &Goat, round: i64) {
    let cli = |words: &[&str]| succeed(goat.cli(words), words);
    let approved = |client: &str| {
        let list = goat.json(&["client", "list"]);
        let rows = list.as_array().unwrap();
        assert!(
            rows.iter().all(|row| keys(row) == ["approved", "client", "pending", "suggested", "suggestedBy"]),
            "{list}"
        );
        let found: Vec<&Value> = rows.iter().filter(|row| row["client"] == client).collect();
        assert!(found.len() < 2, "{list}");
        found.first().map(|row| row["approved"].as_bool().unwrap())
    };
    let client = format!("Ünknown Client/{round}");
    assert_eq!((approved("qBittorrent/"), approved(&client)), (Some(true), None));
    for (word, value) in [("deny", false), ("deny", false), ("approve", true), ("approve", true), ("deny", false)] {
        cli(&["client", word, &client]);
        assert_eq!(approved(&client), Some(value), "{word}");
        let plain = cli(&["client", "list"]);
        let row = format!("{}  {client}", if value { "yes     " } else { "no      " });
        assert!(plain.lines().any(|line| line == row), "{plain}");
    }
}

/// What operators do counts for members, and what members do is shown to operators.
fn check_what_they_do(goat: &Goat) {
    let cli = |words: &[&str]| succeed(goat.cli(words), words);
    let user = goat.add_user("bert");
    let hash = hex(&info_hash(7));
    let mut announce = Announce::new(&user.passkey, info_hash(7), 1);
    announce.left = 0;
    assert_eq!(announce.refusal(goat), "Unregistered torrent");
    wait_until("the torrent to wait for approval", || {
        goat.json(&["file", "list", "--pending"])[0]["infoHash"] == hash.as_str()
    });
    assert!(cli(&["file", "list", "--pending"]).contains(&hash));
    assert_eq!(cli(&["file", "approve", &hash]), "1 torrent approved\n");
    assert_eq!(cli(&["file", "approve", &hash]), "0 torrents approved\n");
    wait_until("the torrent to be approved", || announce.refusal(goat).is_empty());

    for number in [8, 9] {
        Announce::new(&user.passkey, info_hash(number), 1).send(goat);
    }
    wait_until("two torrents to wait", || goat.json(&["file", "list", "--pending"]).as_array().unwrap().len() == 2);
    assert_eq!(cli(&["file", "approve", "--all"]), "2 torrents approved\n");

    announce.uploaded = 12_345;
    announce.accepted(goat);
    wait_for("what members do", || {
        let bert = row(goat, "user", "name", "bert");
        (bert["uploaded"] == 12_345 && bert["seeding"] == 1).then_some(())
    });
    check_seeding(goat);

    announce.agent = "Strange/1.0".into();
    announce.peer_id = *b"?-------------------";
    assert_eq!(announce.refusal(goat), "Your client is not whitelisted");
    wait_until("the client to wait for approval", || cli(&["client", "list"]).contains("no        Strange/1.0\n"));
    cli(&["client", "approve", "Strange/"]);
    wait_until("the client to be approved", || announce.refusal(goat).is_empty());
}

fn check_seeding(goat: &Goat) {
    let bert = row(goat, "user", "name", "bert");
    assert_eq!((&bert["seeding"], &bert["leeching"]), (&json!(1), &json!(0)));
    let file = row(goat, "file", "infoHash", &hex(&info_hash(7)));
    assert!(file["seeders"].as_i64() >= Some(1) && file["leechers"] == 0, "{file}");
}

fn what_cannot_be_done_is_an_error_with_status_1(database: &Database) {
    let goat = Goat::prepare(database, json!({}));
    succeed(goat.cli(&["user", "add", "anna"]), &["user add anna"]);
    let long = "n".repeat(65);
    let absent = goat.folder.join("absent.torrent");
    let broken = goat.folder.join("broken.torrent");
    fs::write(&broken, "d4:infod4:name1:aee").unwrap();
    let empty = goat.folder.join("empty.torrent");
    fs::write(&empty, "").unwrap();
    let [absent, broken, empty] = [&absent, &broken, &empty].map(|path| path.to_str().unwrap());
    let folder = goat.folder.path().to_str().unwrap();
    let hash = "0".repeat(40);
    let cases: [(&[&str], &str); 16] = [
        (&["user", "add", "anna"], "anna"),
        (&["user", "add", "ANNA"], "ANNA"),
        (&["user", "add", ""], "name"),
        (&["user", "add", " anna"], "name"),
        (&["user", "add", "anna "], "name"),
        (&["user", "add", "a:b"], "name"),
        (&["user", "add", "a\nb"], "name"),
        (&["user", "add", "a\u{1b}[2Jb"], "name"),
        (&["user", "add", &long], "name"),
        (&["file", "add", absent], absent),
        (&["file", "add", broken], broken),
        (&["file", "add", empty], empty),
        (&["file", "add", folder], folder),
        (&["file", "add", "123"], "123"),
        (&["file", "approve", &hash], &hash),
        (&["file", "add", ""], "info hash"),
    ];
    for (words, named) in cases {
        for words in [words.to_vec(), [words, &["--json"]].concat()] {
            let (status, stdout, stderr) = goat.cli(&words);
            assert_eq!((status.code(), stdout.as_str()), (Some(1), ""), "{words:?}: {stderr}");
            assert!(stderr.starts_with("goat: ") && stderr.contains(named), "{words:?}: {stderr}");
            assert!(!stderr.trim_end().contains(char::is_control), "{words:?}: {stderr:?}");
        }
    }
    assert_eq!(goat.json(&["user", "list"]).as_array().unwrap().len(), 1);
    assert_eq!(goat.json(&["file", "list"]), json!([]));
}

fn no_secret_is_ever_logged(database: &Database) {
    const PASSWORD: &str = "Pa55word-of-the-database";
    let mut config = database.config();
    if let Database::MariaDb(server) = database {
        // Over TCP the user goat is another one than over the socket: it gets a password of its own.
        let (host, port) = server.address().split_once(':').map(|(h, p)| (h.to_string(), p.to_string())).unwrap();
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--user=goat", "--password=goat", "--host", &host, "--port", &port]);
        command.arg(format!("--execute=SET PASSWORD = PASSWORD('{PASSWORD}')"));
        assert!(command.status().unwrap().success());
        config = json!({ "Driver": "mysql", "Host": server.address(), "Database": "goat",
                         "Username": "goat", "Password": PASSWORD });
    }
    let mut goat = Goat::prepare(database, json!({ "SlowDown": 0, "DB": config }));
    let mut secrets = vec![PASSWORD.to_string()];
    let mut said = String::new();
    let anna = goat.add_user("anna");
    let bert = goat.add_user("bert");
    secrets.extend([&anna, &bert].iter().flat_map(|user| [user.passkey.clone(), user.api_key.clone()]));
    goat.add_torrent(hex(&info_hash(1)));
    goat.launch();
    let late = goat.add_user("late");
    secrets.extend([late.passkey.clone(), late.api_key.clone()]);

    // Everything that goes well, and everything that does not.
    for passkey in [&anna.passkey, &late.passkey, &"0".repeat(40)] {
        for agent in [AGENT, "Strange/1.0"] {
            for hash in [info_hash(1), info_hash(2)] {
                let mut announce = Announce::new(passkey, hash, 1);
                announce.agent = agent.into();
                if agent != AGENT {
                    announce.peer_id = *b"?-------------------";
                }
                announce.send(&goat);
                announce.left = 0;
                announce.event = "completed";
                announce.send(&goat);
            }
        }
        let mut bad = std::net::TcpStream::connect(goat.address()).unwrap();
        bad.write_all(
            format!("GET /{passkey}/announce HTTP/9\r\nAuthorization: Basic {}\r\n\r\n", anna.api_key).as_bytes(),
        )
        .unwrap();
        http_get(goat.address(), &format!("/{passkey}/nonsense/announce"), &[("User-Agent", AGENT)]);
    }
    database.sql("UPDATE users SET banned = 1 WHERE username = 'bert'");
    wait_until("the ban", || Announce::new(&bert.passkey, info_hash(1), 2).refusal(&goat) == "Invalid passkey");
    wait_until("suggestions in the log", || goat.log().contains("Strange/1.0"));
    goat.stop();
    said += &goat.log();
    for words in [&["user", "list"][..], &["check"], &["user", "add", "anna"], &["file", "list", "--json"]] {
        let (_, stdout, stderr) = goat.cli(words);
        said += &(stdout + &stderr);
    }
    let wrong = Goat::prepare(
        database,
        json!({ "DB": {
        "Driver": "mysql", "Host": "127.0.0.1:1", "Database": "goat", "Username": "goat", "Password": PASSWORD } }),
    );
    let (status, stdout, stderr) = wrong.cli(&["check"]);
    assert_eq!(status.code(), Some(1), "{stderr}");
    said += &(stdout + &stderr);
    if let Database::MariaDb(server) = database {
        // The right server, and a wrong password.
        let denied = Goat::prepare(
            database,
            json!({ "DB": {
            "Driver": "mysql", "Host": server.address(), "Database": "goat", "Username": "goat",
            "Password": format!("not {PASSWORD}") } }),
        );
        let (status, stdout, stderr) = denied.cli(&["run"]);
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("Access denied"), "{stderr}");
        said += &(stdout + &stderr);
    }
    for secret in secrets {
        assert!(!said.contains(&secret), "{secret} in\n{said}");
    }
    // The database keeps no API key, only a hash.
    for user in [anna, bert, late] {
        let found = database.number(&format!("SELECT count(*) FROM api_keys WHERE key_hash LIKE '%{}%'", user.api_key));
        assert_eq!(found, 0);
        let found = database
            .number(&format!("SELECT count(*) FROM api_keys WHERE user_id = {} AND length(key_hash) = 64", user.id));
        assert_eq!(found, 1);
    }
}

#[test]
fn no_secret_is_logged_when_the_database_goes_away() {
    let Some(mut database) = Database::mariadb("secrets without a database") else {
        return;
    };
    let mut goat = Goat::prepare(&database, json!({ "SlowDown": 0 }));
    let anna = goat.add_user("anna");
    goat.add_torrent(hex(&info_hash(1)));
    goat.launch();
    let announce = Announce::new(&anna.passkey, info_hash(1), 1);
    announce.accepted(&goat);
    let Database::MariaDb(server) = &mut database else { unreachable!() };
    server.kill();
    announce.accepted(&goat);
    wait_until("goat to notice", || goat.log().contains("cannot be written"));
    let strange = "abcdef".repeat(6);
    Announce::new(&strange, info_hash(1), 1).send(&goat);
    goat.stop();
    let mut said = goat.log();
    for words in [&["run"][..], &["check"], &["user", "add", "bert"], &["user", "list", "--json"]] {
        let (status, stdout, stderr) = goat.cli(words);
        assert_eq!(status.code(), Some(1), "{words:?}: {stderr}");
        said += &stdout;
        said += &stderr;
    }
    for secret in [&anna.passkey, &anna.api_key, &strange] {
        assert!(!said.contains(secret), "{secret} in\n{said}");
    }
}

#[test]
fn a_command_without_a_database_prints_an_error_and_no_half_a_list() {
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({ "DB": { "Driver": "mysql", "Host": "127.0.0.1:1" } }));
    for words in [
        &["run"][..],
        &["user", "add", "anna"],
        &["user", "list"],
        &["user", "list", "--json"],
        &["file", "add", "0123456789012345678901234567890123456789"],
        &["file", "list"],
        &["file", "list", "--json"],
        &["file", "approve", "--all"],
        &["client", "list"],
        &["client", "list", "--json"],
        &["client", "approve", "x"],
    ] {
        let (status, stdout, stderr) = goat.cli(words);
        assert_eq!((status.code(), stdout.as_str()), (Some(1), ""), "{words:?}: {stderr}");
        assert!(stderr.contains("127.0.0.1:1") && stderr.contains("goat"), "{words:?}: {stderr}");
    }
}

#[test]
fn wrong_words_are_an_error_with_status_2_and_nothing_is_opened() {
    let database = Database::sqlite();
    let goat = Goat::configure(&database, json!({}));
    let prefix = "p".repeat(129);
    let cases: &[&[&str]] = &[
        &["nonsense"],
        &[""],
        &["user"],
        &["user", "nonsense"],
        &["user", "add"],
        &["user", "add", "anna", "bert"],
        &["user", "add", "anna", "--torrent-limit"],
        &["user", "add", "anna", "--torrent-limit", "many"],
        &["user", "add", "anna", "--torrent-limit", "-1"],
        &["user", "add", "anna", "--torrent-limit", "4294967296"],
        &["user", "add", "anna", "--nonsense"],
        &["user", "add", "--admin"],
        &["user", "list", "anna"],
        &["user", "list", "--pending"],
        &["file"],
        &["file", "add"],
        &["file", "list", "x"],
        &["file", "approve"],
        &["file", "approve", "0123456789", "--all"],
        &["client"],
        &["client", "approve"],
        &["client", "approve", ""],
        &["client", "approve", &prefix],
        &["client", "deny", "a", "b"],
        &["client", "list", "x"],
        &["run", "x"],
        &["check", "x"],
        &["help", "x"],
        &["user", "list", "--sort", "size"],
        &["user", "limit", "anna"],
        &["user", "limit", "anna", "x"],
        &["user", "credit", "anna"],
        &["user", "credit", "anna", "--uploaded", "1 zebibyte"],
        &["user", "ban", "anna", "--reason"],
        &["file", "free", "0123", "--download", "1001"],
        &["file", "free", "0123", "--upload", "-1"],
        &["file", "list", "--pending", "--dead"],
        &["file", "add", "a", "b", "--private", "c"],
        &["file", "add", "a", "--private", "b", "--public"],
        &["file", "add", &"0".repeat(40), "--private", "c"],
        &["user", "list", "--json", "--json"],
        &["user", "ban", "anna", "--reason", "a", "--reason=b"],
        &["user", "list", "--config", "/dev/null"],
        &["--config=/dev/null", "user", "list"],
        &["torrent", "a"],
        &["torrent", "a", "--for", "anna", "--out", "-", "--json"],
        &["file", "add", "a", "--force"],
        &["torrent", "a", "--out", "b"],
        &["torrent", "a", "--for", "anna", "--out", "b", "--for-all", "c"],
        &["backup"],
        &["restore", "a", "b"],
        &["import"],
        &["stats", "--json=yes"],
        &["--nonsense"],
        &["add", "user"],
    ];
    for words in cases {
        let (status, stdout, stderr) = goat.cli(words);
        assert_eq!((status.code(), stdout.as_str()), (Some(2), ""), "{words:?}: {stderr}");
        assert!(
            stderr.starts_with("goat: ") && stderr.contains("goat help") && stderr.lines().count() == 1,
            "{words:?}: {stderr}"
        );
    }
    let Database::Sqlite(folder) = &database else { unreachable!() };
    assert!(!folder.join("goat.db").exists());
}

#[test]
fn a_wrong_command_is_answered_with_the_nearest_one_that_destroys_nothing() {
    let folder = Folder::new();
    for (words, said) in [
        (&["users"][..], "did you mean `goat user`?"),
        (&["usr"], "did you mean `goat user`?"),
        (&["lst"], "did you mean `goat user list`?"),
        (&["user", "lst"], "did you mean `goat user list`?"),
        (&["users", "list"], "did you mean `goat user list`?"),
        (&["stat"], "did you mean `goat stats`?"),
        (&["help", "stat"], "did you mean `goat stats`?"),
        (&["help", "run", "x"], "there is no command `run x` (`goat help` lists the commands)"),
        (&["user"], "`user`; the commands of user are add, list"),
        (&["user", "nonsense"], "`user nonsense`; the commands of user are add, list"),
        // A word that lacks its family: what there is.
        (&["ban", "berta"], "`ban`; usage: goat user ban ("),
        (&["remove", "berta"], "`remove`; usage: goat user remove, goat file remove, goat client remove ("),
        (&["add", "user"], "`add`; usage: goat user add, goat file add ("),
        (&["user", "add"], "; usage: goat user add [OPTIONS] <NAME> (`goat help user add` explains it)"),
    ] {
        let stderr = wrong(&folder, words);
        assert!(stderr.contains(said), "{words:?}: {stderr}");
    }
    let destructive = ["remove", "ban", "restore", "revoke", "deny"];
    let slips = |word: &str| {
        let without = |at: usize| [&word[..at], &word[at + 1..]].concat();
        let twice = |at: usize| [&word[..at], &word[at - 1..]].concat();
        let slips = (0..word.len()).map(without);
        slips.chain((1..=word.len()).map(twice)).collect::<Vec<String>>()
    };
    for word in destructive {
        for slip in slips(word).iter().filter(|slip| *slip != word) {
            for family in [&[][..], &["user"], &["file"], &["client"], &["usr"]] {
                let words = [family, &[slip, "x"]].concat();
                let stderr = wrong(&folder, &words);
                let meant = stderr.split("did you mean").nth(1).unwrap_or_default();
                let meant = meant.split('`').nth(1).unwrap_or_default();
                let last = meant.split(' ').next_back().unwrap();
                assert!(!destructive.contains(&last), "{words:?}: {stderr}");
            }
        }
    }
}

/// What goat says of words that are wrong.
fn wrong(home: &Folder, words: &[&str]) -> String {
    let output = goat(home, words).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{words:?}: {stderr}");
    stderr
}

#[test]
fn a_word_that_is_not_utf_8_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::new();
    let word = std::ffi::OsStr::from_bytes(b"a\xff.torrent");
    fs::write(folder.path().join(word), "").unwrap();
    let mut command = goat(&folder, &["file", "add"]);
    let output = command.arg(word).current_dir(folder.path()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("a\\xFF.torrent") && stderr.contains("not UTF-8"), "{stderr}");
}

#[test]
fn an_option_that_a_command_does_not_have_is_a_wrong_word() {
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({}));
    let hash = "0".repeat(40);
    for words in [
        &["check", "--banned"][..],
        &["help", "--json"],
        &["run", "--json"],
        &["client", "approve", "x", "--pending"],
        &["file", "approve", &hash, "--by", "anna"],
        &["--version", "x"],
    ] {
        let (status, stdout, stderr) = goat.cli(words);
        assert_eq!((status.code(), stdout.as_str()), (Some(2), ""), "{words:?}: {stderr}");
    }
}

#[test]
fn a_configuration_that_is_not_there_is_an_error_with_status_2() {
    let folder = Folder::new();
    let absent = folder.join("absent.json");
    for words in
        [&["--config"][..], &["run", "--config"], &["--config", absent.to_str().unwrap()], &["check", "--config", "/"]]
    {
        let output = goat(&folder, words).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{words:?}: {stderr}");
        assert!(!stderr.is_empty() && !stderr.contains("panicked"), "{words:?}: {stderr}");
    }
    assert!(!absent.exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something was made");
}

#[test]
fn output_that_cannot_be_written_is_no_panic() {
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({}));
    goat.add_user("anna");
    let (hash, other) = ("0".repeat(40), "1".repeat(40));
    // Without a line end, after which it would be written at once.
    let torrent = goat.folder.join("a.torrent").to_str().unwrap().to_string();
    fs::write(&torrent, crate::library::torrent("a", 20)).unwrap();
    let commands: [&[&str]; 14] = [
        &["torrent", &torrent, "--for", "anna", "--out", "-"],
        &["help"],
        &["--version"],
        &["check"],
        &["user", "list"],
        &["user", "list", "--json"],
        &["user", "add", "bert"],
        &["user", "add", "carl", "--json"],
        &["file", "add", &hash],
        &["file", "add", &other, "--json"],
        &["file", "list"],
        &["file", "list", "--json"],
        &["file", "approve", "--all"],
        &["client", "list"],
    ];
    let mut wrong = Vec::new();
    for words in commands {
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        let full = File::options().write(true).open("/dev/full").unwrap();
        for (stdout, what, expected) in
            [(Stdio::from(full), "a full disk", &[1][..]), (Stdio::from(closed), "nobody who reads", &[0, 1])]
        {
            let output = goat.command(words).stdout(stdout).stderr(Stdio::piped()).output().unwrap();
            if !output.status.code().is_some_and(|code| expected.contains(&code)) {
                let stderr = String::from_utf8_lossy(&output.stderr);
                wrong.push(format!(
                    "{words:?} with {what}: {}, {}",
                    output.status,
                    stderr.lines().next().unwrap_or_default()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn torrents_of_every_kind_can_be_added() {
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({}));
    let expected = fs::read_to_string(samples().join("expected.txt")).unwrap();
    let lines: Vec<&str> = expected.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(lines.len(), 9);
    for line in lines {
        let [file, v1, v2, _private, size, name] = line.splitn(6, ' ').collect::<Vec<_>>().try_into().unwrap();
        // A torrent that is both is known by its v1 hash; one that is v2 by the first 20 bytes of its hash.
        let hash = if v1 == "-" { &v2[..40] } else { v1 };
        let path = samples().join(file);
        let added = goat.json(&["file", "add", "--public", path.to_str().unwrap()]);
        assert_eq!(
            (&added["infoHash"], &added["name"], &added["verified"]),
            (&json!(hash), &json!(name), &json!(true)),
            "{file}"
        );
        let stored = database.sql(&format!("SELECT size, name FROM files WHERE info_hash = '{hash}'"));
        assert_eq!(stored, [[size, name]], "{file}");
        // Again, by its file or its hash in either form, it is the same torrent.
        let whole = if v1 == "-" { v2 } else { v1 };
        for what in [path.to_str().unwrap(), hash, &hash.to_uppercase(), whole] {
            assert_eq!(goat.json(&["file", "add", "--public", what]), added, "{file}: {what}");
        }
    }
    assert_eq!(goat.json(&["file", "list"]).as_array().unwrap().len(), 9);

    // A torrent of which only the hash is known gets its name from the file, later.
    database.sql("UPDATE files SET name = '', size = 0, verified = 0, suggested = 1");
    let path = samples().join("libtorrent-v1.torrent");
    assert_eq!(goat.json(&["file", "add", "--public", path.to_str().unwrap()])["name"], "Größe");
    assert_eq!(goat.json(&["file", "list", "--pending"]).as_array().unwrap().len(), 8);
}

#[test]
fn a_second_goat_on_the_same_port_ends_with_status_1() {
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({}));
    let empty = Database::sqlite();
    // On the same configuration, and on one of its own with another database.
    let second = Goat::configure(&empty, json!({ "Port": goat.port }));
    for other in [&goat, &second] {
        let (status, stdout, stderr) = other.cli(&["run"]);
        assert_eq!((status.code(), stdout.as_str()), (Some(1), ""), "{stderr}");
        assert!(stderr.contains(&goat.port.to_string()) && stderr.contains("in use"), "{stderr}");
    }
    let Database::Sqlite(folder) = &empty else { unreachable!() };
    assert!(!folder.join("goat.db").exists(), "it made a database before it had the port");
    let anna = goat.add_user("anna").passkey;
    assert_eq!(Announce::new(&anna, info_hash(1), 1).refusal(&goat), "Unregistered torrent");
}

#[test]
fn the_first_start_makes_the_configuration_and_the_database() {
    Lab::run("the first start", |_| {
        let home = Folder::new();
        let mut process = Process::start("goat", &mut goat(&home, &[]), home.join("goat.log"));
        wait_until("goat to listen", || {
            process.assert_running();
            process.output().contains("listening for HTTP")
        });
        let config = home.join(".config/goat/config.json");
        let shipped = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.json5")).unwrap();
        assert_eq!(fs::read_to_string(&config).unwrap(), shipped);
        let database = config.with_file_name("goat.db");
        for file in [&config, &database] {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600, "{}", file.display());
        }
        let log = process.output();
        for words in [
            config.to_str().unwrap(),
            database.to_str().unwrap(),
            "goat user add",
            "status page, to sign in with a name and an API key: http://localhost:8080/",
        ] {
            assert!(log.contains(words), "{words}: {log}");
        }
        // No terminal, no first user: none can have been shown to anybody.
        assert!(!log.contains("passkey") && !log.contains("/announce"), "{log}");

        let output = goat(&home, &["user", "add", "anna", "--admin", "--json"]).output().unwrap();
        let user: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        assert_eq!((&user["id"], announces(user["announce"][0].as_str().unwrap())), (&json!(1), true));
        assert_eq!(process.terminate().code(), Some(0));
    });
}

#[test]
fn a_first_configuration_that_cannot_be_written_whole_is_not_left_behind() {
    let home = Folder::new();
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" run", env!("CARGO_BIN_EXE_goat")]);
    let output = limited.env("HOME", home.path()).env_remove("XDG_CONFIG_HOME").output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && stderr.contains("File too large"), "{stderr}");
    assert!(!home.join(".config/goat/config.json").exists());
}

#[test]
fn the_first_start_follows_xdg_config_home() {
    Lab::run("the first start elsewhere", |_| {
        let (home, xdg) = (Folder::new(), Folder::new());
        let mut command = goat(&home, &["run"]);
        command.env("XDG_CONFIG_HOME", xdg.path());
        let mut process = Process::start("goat", &mut command, home.join("goat.log"));
        wait_until("goat to listen", || {
            process.assert_running();
            process.output().contains("listening for HTTP")
        });
        let config = xdg.join("goat/config.json");
        assert!(process.output().contains(config.to_str().unwrap()));
        assert!(config.exists() && xdg.join("goat/goat.db").exists());
        assert!(!home.join(".config").exists());
        // Who looks elsewhere is told of it.
        let stderr = wrong(&home, &["user", "list"]);
        let advice = format!("use --config {}", config.display());
        assert!(stderr.contains(&advice), "{stderr}");
        assert_eq!(process.terminate().code(), Some(0));
    });
}

/// Every command but `run` and `help`, with what it wants.
const COMMANDS: [&[&str]; 29] = [
    &["check"],
    &["stats"],
    &["user", "add", "anna", "--admin"],
    &["user", "list"],
    &["user", "show", "anna"],
    &["user", "ban", "anna"],
    &["user", "admin", "anna", "on"],
    &["user", "rename", "anna", "bert"],
    &["user", "unban", "anna"],
    &["user", "remove", "anna"],
    &["user", "passkey", "anna"],
    &["user", "key", "anna"],
    &["user", "limit", "anna", "1"],
    &["user", "credit", "anna", "--uploaded", "1"],
    &["file", "add", "0123456789012345678901234567890123456789"],
    &["file", "list"],
    &["file", "show", "0123"],
    &["file", "approve", "--all"],
    &["file", "rename", "0123", "x"],
    &["file", "revoke", "0123"],
    &["file", "remove", "--pending"],
    &["file", "free", "0123"],
    &["client", "list"],
    &["client", "approve", "x"],
    &["client", "deny", "x"],
    &["client", "remove", "x"],
    &["log"],
    &["backup", "backup"],
    &["import", "members.csv"],
];

#[test]
fn no_command_but_run_makes_a_configuration() {
    let home = Folder::new();
    let config = home.join(".config/goat/config.json");
    for words in COMMANDS {
        let stderr = wrong(&home, words);
        let start = format!("goat: there is no configuration {}: `goat run`", config.display());
        assert!(stderr.starts_with(&start), "{words:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn no_command_but_run_makes_a_database() {
    for database in Database::each("no database") {
        let goat = Goat::configure(&database, json!({}));
        let csv = goat.folder.join("members.csv");
        fs::write(&csv, "name,passkey\nanna,abcdefghabcdefgh\n").unwrap();
        for words in COMMANDS {
            let mut command = goat.command(words);
            let output = command.current_dir(goat.folder.path()).output().unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            let mariadb = matches!(database, Database::MariaDb(_));
            if words == ["check"] {
                assert_eq!(output.status.code(), Some(0), "{said}{stderr}");
                assert!(said.contains(": warning: it has no tables of goat yet"), "{said}");
            } else if words != ["backup", "backup"] || !mariadb {
                let failed = (output.status.code(), said.as_str());
                assert_eq!(failed, (Some(1), ""), "{words:?}: {stderr}");
                let (file, start) = (goat.config_path(), "it has no tables of goat yet");
                let said = format!("{start}: `goat --config {} run` creates them", file.display());
                assert!(stderr.contains(&said), "{words:?}: {stderr}");
            }
        }
        match &database {
            Database::Sqlite(folder) => {
                assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
            }
            Database::MariaDb(_) => assert_eq!(database.sql("SHOW TABLES"), [[""; 0]; 0]),
        }
    }
}

#[test]
fn in_a_terminal_the_first_start_makes_an_admin_and_shows_the_secrets_once() {
    Lab::run("the first start in a terminal", |_| {
        let home = Folder::new();
        let first = Terminal::start(&home);
        wait_until("goat to listen", || first.process.output().contains("listening for HTTP"));
        let output = first.process.output();
        let after = |words: &str| {
            let found: Vec<&str> = output.lines().filter_map(|line| line.trim().strip_prefix(words)).collect();
            assert_eq!(found.len(), 1, "{words}: {output}");
            found[0].trim().to_string()
        };
        let (url, key) = (after("announce URL"), after("API key"));
        assert!(announces(&url), "{output}");
        assert_eq!(key.len(), 40, "{output}");
        assert!(output.contains("admin"), "{output}");
        assert_eq!(after("status page"), "http://localhost:8080/");
        let passkey = url.split('/').nth(3).unwrap().to_string();
        // What was shown is not part of the log.
        for line in output.lines().filter(|line| line.contains(&passkey) || line.contains(&key)) {
            assert!(line.starts_with("  "), "{line}");
        }
        first.end();

        let users = goat(&home, &["user", "list", "--json"]).output().unwrap();
        let users: Value = serde_json::from_slice(&users.stdout).unwrap();
        assert_eq!(
            (&users[0]["name"], &users[0]["admin"], users.as_array().unwrap().len()),
            (&json!("admin"), &json!(true), 1)
        );

        let second = Terminal::start(&home);
        wait_until("goat to listen", || second.process.output().contains("listening for HTTP"));
        let output = second.process.output();
        assert!(!output.contains(&passkey) && !output.contains(&key) && !output.contains("API key"), "{output}");
        assert!(announces(&url));
        second.end();
    });
}

#[test]
fn where_no_passkeys_are_asked_for_nobody_needs_a_first_user() {
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "Passkey": false }));
    wait_until("goat to listen", || goat.log().contains("listening for HTTP"));
    assert!(!goat.log().contains("user add NAME"), "{}", goat.log());
    let mut announce = Announce::new("", info_hash(1), 1);
    announce.passkey = None;
    goat.add_torrent(hex(&info_hash(1)));
    announce.accepted(&goat);
}

// What the tests use.

/// What a command printed, which must have succeeded without a word on stderr.
fn succeed((status, stdout, stderr): (ExitStatus, String, String), words: &[&str]) -> String {
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""), "{words:?}: {stdout}");
    stdout
}

/// The keys of a JSON object, sorted.
fn keys(object: &Value) -> Vec<&str> {
    let keys: BTreeSet<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    keys.into_iter().collect()
}

/// An object with "now" for the time of its creation, which must be of this test.
fn created_now(object: &Value) -> Value {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let created = object["createTime"].as_u64().unwrap();
    assert!(created <= now + 1 && created + 600 > now, "{object}");
    let mut object = object.clone();
    object["createTime"] = json!("now");
    object
}

/// The row of a list whose `key` is `value`.
fn row(goat: &Goat, list: &str, key: &str, value: &str) -> Value {
    let rows = goat.json(&[list, "list"]);
    let found = rows.as_array().unwrap().iter().find(|row| row[key] == value);
    found.unwrap_or_else(|| panic!("no {value} in {rows}")).clone()
}

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torrents")
}

/// goat as somebody starts it whose home this is.
fn goat(home: &Folder, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_goat"));
    command.args(words).env("HOME", home.path()).env_remove("XDG_CONFIG_HOME");
    command
}

/// Whether goat knows the passkey in an announce URL on port 8080 of this machine.
fn announces(url: &str) -> bool {
    let path = url.strip_prefix("http://localhost:8080").unwrap_or_else(|| panic!("{url}"));
    let target = format!(
        "{path}?info_hash={}&peer_id={}&port=1&uploaded=0&downloaded=0&left=0",
        escape(&info_hash(1)),
        escape(&crate::common::peer_id(1))
    );
    let address = SocketAddr::from(([127, 0, 0, 1], 8080));
    let (_, _, body) = http_get(address, &target, &[("User-Agent", AGENT)]);
    let answer = Bencode::parse(&body);
    ["Unregistered torrent", "Unverified torrent"].contains(&answer.text("failure reason"))
}

/// goat in a terminal of its own.
struct Terminal {
    process: Process,
    id: i32,
}

impl Terminal {
    fn start(home: &Folder) -> Terminal {
        let (output, id) = (home.join("terminal.log"), home.join("goat.pid"));
        let _ = fs::remove_file(&output);
        let _ = fs::remove_file(&id);
        let mut command = Command::new("script");
        let inside = format!("echo $$ >{} && exec {}", id.display(), env!("CARGO_BIN_EXE_goat"));
        command.args(["--quiet", "--flush", "--return", "--command", &inside, "/dev/null"]);
        command.env("HOME", home.path()).env_remove("XDG_CONFIG_HOME").env("SHELL", "/bin/sh");
        let process = Process::start("script", &mut command, output);
        let id = wait_for("goat's process id", || fs::read_to_string(&id).ok()?.trim().parse().ok());
        Terminal { process, id }
    }

    /// Ends goat by SIGTERM, and the terminal with it.
    fn end(mut self) {
        // SAFETY: no memory is passed. The terminal still runs, so the id is still goat's.
        assert_eq!(unsafe { libc::kill(self.id, libc::SIGTERM) }, 0);
        assert_eq!(self.process.wait().code(), Some(0), "{}", self.process.output());
    }
}
