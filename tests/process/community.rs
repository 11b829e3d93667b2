//! A whole community from one binary: the README, command by command, with real clients;
//! and every command that changes something, on both databases, with the tracker running and not.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::common::{
    Announce, Database, Folder, Goat, Lab, Lock, PATIENCE, Process, hex, http_get, info_hash, installed,
    nothing_may_be_skipped, peer_id, skip, wait_for, wait_until,
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
    every_change_of_a_member_counts_whether_the_tracker_runs_or_not
    every_change_of_a_torrent_counts_whether_the_tracker_runs_or_not
    what_is_credited_is_the_delta_times_the_factor_of_the_torrent
    a_removed_member_leaves_the_totals_of_torrents_true
    an_import_is_all_or_nothing_and_its_members_need_no_new_torrents
    a_backup_made_while_the_tracker_runs_restores_the_same_numbers
    lists_are_sorted_and_filtered
    a_second_ban_without_a_reason_keeps_the_first
    the_last_administrator_stays_one
    members_and_torrents_can_be_renamed_but_nobody_is_called_as_anothers_id
    passkey_and_urls_are_shown_where_they_are_asked_for
    whatever_a_command_says_it_says_as_json_too
    things_are_found_by_name_id_and_prefix
    names_are_the_same_that_differ_in_the_case_of_ascii_letters_alone
    pending_torrents_and_clients_say_who_suggested_them_and_are_few_for_one_member
    what_an_operator_has_judged_waits_no_more
}

// ---- The README.

/// A command of the README, and what it prints there.
struct Step {
    command: String,
    output: Vec<String>,
}

/// All that the README shows in a terminal. Lines that begin with `#` are root's, for a real machine.
fn tour() -> Vec<Step> {
    let readme = include_str!("../../README.md");
    let mut steps: Vec<Step> = Vec::new();
    for block in readme.split("```console\n").skip(1) {
        let (block, _) = block.split_once("```").unwrap();
        let mut ours = false;
        for line in block.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                ours = true;
                steps.push(Step { command: command.into(), output: Vec::new() });
            } else if line.starts_with("# ") {
                ours = false;
            } else if ours {
                steps.last_mut().unwrap().output.push(line.into());
            }
        }
    }
    steps
}

/// Text without what differs from run to run: secrets and hashes, numbers, the width of columns. The root of all paths,
/// and the tracker's name, are those of the README.
fn shape(text: &str, root: &Path) -> Vec<String> {
    let text = text.replace(root.to_str().unwrap(), "").replace("localhost", "tracker.example.org").replace('\r', "");
    let line = |line: &str| {
        let mut out = String::new();
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            let hex = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (taken, shown) = match (hex, digits) {
                (16.., _) => (hex, "HEX".to_string()),
                (_, 1..) => (digits, "0".to_string()),
                _ => (c.len_utf8(), c.to_string()),
            };
            out += &shown;
            rest = &rest[taken..];
        }
        // A minute more or less of seeding.
        let out = out.replace("0m 0s", "0s");
        // Whether a machine's clock is kept right is not goat's affair.
        let out = out.split_once("the clock, ").map_or(out.clone(), |_| "the clock".into());
        out.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    text.lines().map(line).filter(|line| !line.is_empty()).collect()
}

/// A shell that lives through the tour, as the reader's does.
struct Shell {
    child: Child,
    home: PathBuf,
    steps: u32,
}

impl Shell {
    /// `service` is the folder of the configurations of services, for one who has none of their own.
    fn new(home: PathBuf, service: Option<&Path>) -> Shell {
        let bin = Path::new(env!("CARGO_BIN_EXE_goat")).parent().unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("bash");
        command
            .env("HOME", &home)
            .env("PATH", path)
            .env_remove("XDG_CONFIG_HOME")
            .envs(service.map(|folder| ("XDG_CONFIG_HOME", folder)));
        command.current_dir(&home).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"set -m\n").unwrap();
        Shell { child, home, steps: 0 }
    }

    /// Runs a command and gives what it printed. One that ends in & is left running.
    fn run(&mut self, command: &str) -> String {
        self.steps += 1;
        let (out, status) =
            (self.home.join(format!("out.{}", self.steps)), self.home.join(format!("status.{}", self.steps)));
        // A job in the background keeps the name that it has for the reader.
        let command = match command.strip_suffix('&') {
            Some(command) => format!("{command} </dev/null >{} 2>&1 &", out.display()),
            None => format!("{{ {command} </dev/null; }} >{} 2>&1", out.display()),
        };
        let line = format!("{command}\n echo $? >{}\n", status.display());
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
        let status = wait_for(&command, || fs::read_to_string(&status).ok().filter(|status| status.ends_with('\n')));
        let said = fs::read_to_string(&out).unwrap_or_default();
        assert_eq!(status.trim(), "0", "{command}: {said}");
        said
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.child.stdin.take() {
            // Where the tour ended early, what it left running ends too; the shell ends with its input.
            let _ = stdin.write_all(b"kill -KILL $(jobs -p) 2>/dev/null\n");
        }
        let _ = self.child.wait();
    }
}

#[test]
fn what_the_readme_shows_in_a_terminal_is_true() {
    let test = "the README's tour";
    if let Some(program) = ["bash", "script", "mktorrent", "aria2c"].iter().find(|program| !installed(program)) {
        return skip(test, &format!("no {program}"));
    }
    Lab::run(test, |_| take_the_tour());
}

/// A folder that is the root of a machine, with the service that the package would have installed there.
fn service(root: &Folder) -> Process {
    for folder in ["home/ana", "etc/goat", "var/lib/goat"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let (config, state) = (root.join("etc/goat/config.json"), root.join("var/lib/goat"));
    let state = state.display();
    let text = include_str!("../../config.json5")
        .replace(r#""Path": "goat.db""#, &format!(r#""Path": "{state}/goat.db""#))
        .replace(r#""State": """#, &format!(r#""State": "{state}""#))
        .replace(r#""URL": """#, r#""URL": "http://localhost:8080""#);
    fs::write(&config, text).unwrap();
    fs::set_permissions(&config, Permissions::from_mode(0o640)).unwrap();
    let mut goat = Command::new(env!("CARGO_BIN_EXE_goat"));
    goat.arg("--config").arg(config).env("HOME", root.path());
    let service = Process::start("goat", &mut goat, root.join("service.log"));
    wait_until("goat to listen", || service.output().contains("listening for HTTP"));
    service
}

/// The trial, from its start in a terminal to the backup that the service is given.
fn take_the_trial(start: Step, rest: impl Iterator<Item = Step>, service: &Path) {
    let root = Folder::new();
    let home = root.join("home/ana");
    fs::create_dir_all(&home).unwrap();
    let mut terminal = Command::new("script");
    terminal
        .args(["--quiet", "--flush", "--return", "--command"])
        // Without a shell between them goat notices when the terminal goes.
        .args([concat!("exec ", env!("CARGO_BIN_EXE_goat")), "/dev/null"]);
    terminal.env("HOME", &home).env_remove("XDG_CONFIG_HOME").env("SHELL", "/bin/sh");
    let terminal = Process::start("goat", &mut terminal, root.join("terminal.log"));
    wait_until("goat to listen", || terminal.output().contains("listening for HTTP"));
    let shown = start.output.join("\n");
    assert_eq!(shape(&terminal.output(), root.path()), shape(&shown, Path::new("/nowhere")));
    fs::create_dir_all(home.join("target/release")).unwrap();
    let program = home.join("target/release/goat");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_goat"), program).unwrap();
    let mut shell = Shell::new(home.clone(), None);
    for step in rest {
        let said = shell.run(&step.command);
        let expected = shape(&step.output.join("\n"), Path::new("/nowhere"));
        assert_eq!(shape(&said, root.path()), expected, "{}", step.command);
    }
    assert!(home.join("trial.db").exists());
    // What the service's operators do with it.
    let restored = Command::new(env!("CARGO_BIN_EXE_goat"))
        .args(["restore", "trial.db", "--config"])
        .arg(service)
        .current_dir(home)
        .output()
        .unwrap();
    assert!(restored.status.success(), "{restored:?}");
    let said = String::from_utf8_lossy(&restored.stdout);
    assert!(said.ends_with("goat.db: 1 member\n"), "{said}");
}

fn take_the_tour() {
    let steps = tour();
    let trial = |step: &Step| step.command == "cargo run --release";
    let trial = steps.iter().position(trial).unwrap();
    let mut steps = steps.into_iter();
    let root = Folder::new();
    let mut service = service(&root);
    let mut shell = Shell::new(root.join("home/ana"), Some(&root.join("etc")));
    let (mut passkeys, mut torrent) = (Vec::new(), String::new());
    let (mut banned, mut seen) = (false, 0);
    for step in steps.by_ref().take(trial) {
        let expected = shape(&step.output.join("\n"), Path::new("/nowhere"));
        let deadline = Instant::now() + PATIENCE;
        let said = loop {
            let said = shell.run(&step.command);
            let shape = shape(&said, root.path());
            // What is only read may be about to change.
            let reads = [" list", " check"].iter().any(|word| step.command.contains(word));
            if shape == expected || !reads || Instant::now() > deadline {
                assert_eq!(shape, expected, "{}", step.command);
                break said;
            }
        };
        let passkey = said.lines().find_map(|line| line.strip_prefix("passkey   "));
        passkeys.extend(passkey.map(str::to_string));
        if step.command.ends_with('&') {
            let database = root.join("var/lib/goat/goat.db");
            wait_until("the seeder", || {
                let mut sqlite = Command::new("sqlite3");
                let sql = "SELECT count(*) FROM peers WHERE active = 1 AND `left` = 0";
                sqlite.arg(&database).arg(sql).output().unwrap().stdout == b"1\n"
            });
        }
        match step.command.split(' ').collect::<Vec<_>>()[..] {
            ["goat", "file", "add", ..] => torrent = said[..40].to_string(),
            ["goat", "user", "ban", ..] => {
                wait_until("the ban", || asked(&passkeys[1], &torrent) == "Invalid passkey: never seeds");
                banned = true;
                // A real client is told the same.
                let said =
                    shell.run("aria2c --bt-stop-timeout=5 --dir=other --console-log-level=info berta.torrent || true");
                assert!(said.contains("failure reason: Invalid passkey"), "{said}");
            }
            ["goat", "user", "unban", ..] => {
                wait_until("the end of the ban", || asked(&passkeys[1], &torrent).is_empty());
            }
            ["goat", "user", "passkey", ..] => {
                assert_eq!(passkeys.len(), 3);
                wait_until("the old passkey to die", || asked(&passkeys[1], &torrent) == "Invalid passkey");
                assert_eq!(asked(&passkeys[2], &torrent), "");
            }
            _ => {}
        }
        seen += 1;
    }
    assert!(banned && seen > 15, "{seen} steps");

    // The accounts are what was moved, here and in a community that is restored elsewhere.
    let elsewhere = r#"mkdir elsewhere
        echo '{"Passkey": true, "DB": {"Driver": "sqlite", "Path": "goat.db"}}' >elsewhere/config.json
        goat restore backup.db --config elsewhere/config.json"#;
    let restored = shell.run(elsewhere);
    assert!(restored.ends_with("goat.db: 2 members\n"), "{restored}");
    let mut read =
        |words: &str| -> Value { serde_json::from_str(&shell.run(&format!("goat {words} --json"))).unwrap() };
    wait_until("all to be written", || read("stats")["unsaved"] == 0);
    for list in ["user list", "file list", "stats", "user show berta"] {
        let here = read(list);
        let there = read(&format!("{list} --config elsewhere/config.json"));
        assert_eq!(without_times(here), without_times(there), "{list}");
    }
    let users = read("user list");
    assert_eq!(users[0]["uploaded"], 30_000_000);
    assert_eq!(users[1]["downloaded"], 30_000_000);
    service.terminate();
    let config = root.join("etc/goat/config.json");
    take_the_trial(steps.next().unwrap(), steps, &config);
}

/// What changes while nobody asks.
fn without_times(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|key, _| {
                !["lastWritten", "lastSeen", "lastActive", "createTime", "seeding", "leeching"].contains(&key.as_str())
                    && !["swarms", "seeders", "leechers", "clients", "addresses"].contains(&key.as_str())
            });
            fields.values_mut().for_each(|field| *field = without_times(field.take()));
        }
        Value::Array(list) => list.iter_mut().for_each(|item| *item = without_times(item.take())),
        _ => {}
    }
    value
}

/// Why goat on port 8080 refuses the goodbye of whoever has a passkey; "" if it does not.
fn asked(passkey: &str, torrent: &str) -> String {
    let hash: String =
        torrent.as_bytes().chunks(2).map(|digits| format!("%{}", std::str::from_utf8(digits).unwrap())).collect();
    // A session that is there may always say that it stops; a scrape is nobody's session.
    let target = format!("/{passkey}/scrape?info_hash={hash}");
    let address = "127.0.0.1:8080".parse().unwrap();
    let (_, _, body) = http_get(address, &target, &[("User-Agent", crate::common::AGENT)]);
    let answer = crate::common::Bencode::parse(&body);
    match answer.get("failure reason") {
        Some(_) => answer.text("failure reason").into(),
        None => String::new(),
    }
}

// ---- Every command.

/// What a command printed, which must have succeeded without a word on stderr.
pub fn cli(goat: &Goat, words: &[&str]) -> String {
    let (status, stdout, stderr) = goat.cli(words);
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""), "{words:?}: {stdout}");
    stdout
}

/// Why a command could not.
pub fn refused(goat: &Goat, words: &[&str]) -> String {
    let (status, stdout, stderr) = goat.cli(words);
    assert_eq!((status.code(), stdout.as_str()), (Some(1), ""), "{words:?}: {stderr}");
    assert!(stderr.starts_with("goat: "), "{stderr}");
    stderr
}

fn seeder(goat: &Goat, passkey: &str, torrent: u32, number: u16) -> Announce {
    let mut announce = Announce::new(passkey, info_hash(torrent), number);
    announce.left = 0;
    announce.accepted(goat);
    announce
}

fn every_change_of_a_member_counts_whether_the_tracker_runs_or_not(database: &Database) {
    let mut goat = Goat::prepare(database, json!({ "SlowDown": 0 }));
    for number in [1, 2] {
        cli(&goat, &["file", "add", &hex(&info_hash(number))]);
    }
    for running in [false, true] {
        let (name, watcher) = (format!("anna {running}"), format!("bert {running}"));
        let (anna, bert) = (goat.add_user(&name), goat.add_user(&watcher));
        if running {
            goat.launch();
        }
        // Announces are tried with the tracker running: in the first round it is started for each try.
        let refusal = |goat: &mut Goat, passkey: &str, expected: &str| {
            if !running {
                goat.launch();
            }
            let mut announce = Announce::new(passkey, info_hash(1), 1);
            announce.left = 0;
            wait_until(&format!("{expected:?}"), || announce.refusal(goat) == expected);
            if !running {
                goat.stop();
            }
        };
        let shown = |goat: &Goat| goat.json(&["user", "show", &name]);
        refusal(&mut goat, &anna.passkey, "");

        let said = cli(&goat, &["user", "ban", &name, "--reason", "a \"reason\" \u{2665}"]);
        assert_eq!(said, format!("{name} is banned\n"));
        assert_eq!(shown(&goat)["banReason"], "a \"reason\" \u{2665}");
        assert_eq!((&shown(&goat)["banned"], &shown(&goat)["seeding"]), (&json!(true), &json!(0)));
        assert!(cli(&goat, &["user", "list", "--banned"]).contains(&name));
        let told = "Invalid passkey: a \"reason\" \u{2665}";
        refusal(&mut goat, &anna.passkey, told);
        if running {
            // Nobody is sent to a banned member any more.
            let mut announce = Announce::new(&bert.passkey, info_hash(1), 2);
            announce.downloaded = 1;
            assert_eq!(announce.accepted(&goat).integer("complete"), 0);
        }
        cli(&goat, &["user", "unban", &name]);
        assert_eq!((&shown(&goat)["banned"], &shown(&goat)["banReason"]), (&json!(false), &json!("")));
        assert_eq!(goat.json(&["user", "list", "--banned"]), json!([]));
        refusal(&mut goat, &anna.passkey, "");

        let new = goat.json(&["user", "passkey", &name]);
        assert_eq!((&new["id"], &new["name"], &new["apiKey"]), (&json!(anna.id), &json!(name), &Value::Null));
        let passkey = new["passkey"].as_str().unwrap().to_string();
        let url = new["announce"][0].as_str().unwrap();
        assert!(url.ends_with(&format!("/{passkey}/announce")) && passkey != anna.passkey);
        refusal(&mut goat, &anna.passkey, "Invalid passkey");
        refusal(&mut goat, &passkey, "");

        let new = goat.json(&["user", "key", &name]);
        assert_eq!(new["passkey"], passkey.as_str());
        assert_ne!(new["apiKey"], anna.api_key.as_str());
        let keys = format!("SELECT count(*) FROM api_keys WHERE user_id = {}", anna.id);
        assert_eq!(database.number(&keys), 1);

        let said = cli(&goat, &["user", "limit", &name, "1"]);
        assert_eq!(said, format!("{name} may be active on at most 1 torrent\n"));
        assert_eq!(shown(&goat)["torrentLimit"], 1);
        if running {
            wait_until("the limit", || {
                let mut second = Announce::new(&passkey, info_hash(2), 3);
                let refusal = second.refusal(&goat);
                second.event = "stopped";
                second.send(&goat);
                refusal == "Exceeded active torrent limit: 2 > 1"
            });
        }
        cli(&goat, &["user", "limit", &name, "0"]);

        cli(&goat, &["user", "credit", &name, "--uploaded", "10GiB", "--downloaded=1.5kB"]);
        let said = cli(&goat, &["user", "credit", &name, "--uploaded", "-1GiB"]);
        let sums = format!("{} bytes uploaded, 1500 downloaded", 9_u64 << 30);
        assert_eq!(said, format!("{name} has {sums}\n"));
        assert_eq!((&shown(&goat)["uploaded"], &shown(&goat)["downloaded"]), (&json!(9_u64 << 30), &json!(1500)));
        // What takes away more than is there leaves nothing, and says so.
        let said = cli(&goat, &["user", "credit", &name, "--downloaded", "-1501"]);
        assert!(said.contains("0 downloaded: there was less than you took away"), "{said}");
        assert_eq!((&shown(&goat)["uploaded"], &shown(&goat)["downloaded"]), (&json!(9_u64 << 30), &json!(0)));
        let words = ["user", "credit", &name, "--uploaded", "7EiB"];
        cli(&goat, &words);
        let said = refused(&goat, &words);
        assert!(said.contains("would exceed 9223372036854775807"), "{said}");

        cli(&goat, &["user", "remove", &name]);
        refusal(&mut goat, &passkey, "Invalid passkey");
        let said = refused(&goat, &["user", "show", &name]);
        assert!(said.contains(" user list`"), "{said}");
        assert_eq!(database.number(&keys), 0);
    }
}

fn every_change_of_a_torrent_counts_whether_the_tracker_runs_or_not(database: &Database) {
    let mut goat = Goat::prepare(database, json!({ "SlowDown": 0 }));
    let anna = goat.add_user("anna");
    for running in [false, true] {
        let number = 1 + u32::from(running);
        let hash = hex(&info_hash(number));
        cli(&goat, &["file", "add", &hash]);
        if running {
            goat.launch();
        }
        let refusal = |goat: &mut Goat, expected: &str| {
            if !running {
                goat.launch();
            }
            let announce = Announce::new(&anna.passkey, info_hash(number), 1);
            wait_until(&format!("{expected:?}"), || announce.refusal(goat) == expected);
            if !running {
                goat.stop();
            }
        };
        refusal(&mut goat, "");
        let said = cli(&goat, &["file", "revoke", &hash]);
        assert!(said.contains("no longer verified"), "{said}");
        refusal(&mut goat, "Unverified torrent");
        assert_eq!(goat.json(&["file", "list"])[0]["verified"], false);
        assert_eq!(cli(&goat, &["file", "approve", &hash]), "1 torrent approved\n");
        refusal(&mut goat, "");

        let free = goat.json(&["file", "free", &hash, "--upload", "200", "--download", "50"]);
        assert_eq!((&free["uploadPercent"], &free["downloadPercent"]), (&json!(200), &json!(50)));
        // And who is there, as `file show` says it.
        let shown = goat.json(&["file", "show", &hash]);
        let added = goat.json(&["file", "add", &hash]);
        for (key, value) in free.as_object().unwrap() {
            assert_eq!((value, &shown[key]), (&shown[key], &added[key]), "{key}");
        }
        assert_eq!(free["leechers"], 1);
        let said = cli(&goat, &["file", "free", &hash]);
        assert!(said.contains("0 % of downloads, 100 % of uploads"), "{said}");
        let shown = goat.json(&["file", "show", &hash]);
        assert_eq!(
            (&shown["uploadPercent"], &shown["downloadPercent"], &shown["leechers"]),
            (&json!(100), &json!(0), &json!(1))
        );
        assert!(shown["lastActive"].as_i64() > Some(1_700_000_000), "{shown}");

        cli(&goat, &["file", "remove", &hash]);
        refusal(&mut goat, "Unregistered torrent");
        if running {
            // It is now one that a member suggests, and can be removed again.
            wait_until("the removed torrent to wait again", || goat.json(&["file", "list"])[0]["verified"] == false);
            cli(&goat, &["file", "remove", &hash]);
        }
        assert_eq!(goat.json(&["file", "list"]), json!([]));

        let prefix = format!("Tried/{running}");
        cli(&goat, &["client", "approve", &prefix]);
        let longer = format!("{prefix}.1");
        let said = cli(&goat, &["client", "deny", &longer]);
        assert!(said.contains(&format!("by the shorter {prefix}")), "{said}");
        let denied =
            json!({ "approved": false, "pending": false, "client": longer, "suggested": null, "suggestedBy": "" });
        let clients = goat.json(&["client", "list"]);
        assert!(clients.as_array().unwrap().contains(&denied), "{clients}");
        cli(&goat, &["client", "remove", &longer]);
        cli(&goat, &["client", "remove", &prefix]);
        assert!(!cli(&goat, &["client", "list"]).contains("Tried/"));
        assert!(refused(&goat, &["client", "remove", &prefix]).contains(&prefix));
    }
}

fn what_is_credited_is_the_delta_times_the_factor_of_the_torrent(database: &Database) {
    let mut goat = Goat::start(database, json!({ "SlowDown": 0 }));
    let anna = goat.add_user("anna");
    let hash = hex(&info_hash(1));
    cli(&goat, &["file", "add", &hash]);
    let mut announce = Announce::new(&anna.passkey, info_hash(1), 1);
    announce.accepted(&goat);
    let books = |expected: [u64; 4]| {
        wait_until(&format!("{expected:?}"), || {
            let shown = goat.json(&["user", "show", "anna"]);
            let fields = ["uploaded", "downloaded", "rawUploaded", "rawDownloaded"];
            fields.map(|field| shown[field].as_u64().unwrap()) == expected
        });
    };
    let factors = |download: &str, upload: &str| {
        cli(&goat, &["file", "free", &hash, "--download", download, "--upload", upload]);
        // When goat has followed, another torrent registered later is known without a look-up of its own.
        wait_until("the tracker to follow", || database.number("SELECT count(*) FROM changes") == 0);
    };
    (announce.event, announce.uploaded, announce.downloaded) = ("", 100, 1000);
    announce.accepted(&goat);
    books([100, 1000, 100, 1000]);
    factors("0", "250");
    (announce.uploaded, announce.downloaded) = (201, 2000);
    announce.accepted(&goat);
    books([100 + 252, 1000, 201, 2000]); // 250 % of 101, rounded down
    // The greatest counter that there is, times ten: as much as the books can hold, and no more.
    factors("33", "1000");
    (announce.uploaded, announce.downloaded) = (u64::MAX, 2100);
    announce.accepted(&goat);
    let most = i64::MAX as u64;
    books([most, 1033, most, 2100]);

    // A session that only the database knows is credited by the factors of its next announce.
    let bert = goat.add_user("bert");
    let mut announce = Announce::new(&bert.passkey, info_hash(1), 2);
    announce.accepted(&goat);
    announce.event = "stopped";
    announce.accepted(&goat);
    goat.restart();
    cli(&goat, &["file", "free", &hash, "--download", "10", "--upload", "20"]);
    wait_until("the tracker to follow", || database.number("SELECT count(*) FROM changes") == 0);
    (announce.event, announce.uploaded, announce.downloaded) = ("started", 1000, 1000);
    announce.accepted(&goat);
    wait_until("the books", || {
        let shown = goat.json(&["user", "show", "bert"]);
        [&shown["uploaded"], &shown["downloaded"], &shown["rawUploaded"]] == [&json!(200), &json!(100), &json!(1000)]
    });
}

fn a_removed_member_leaves_the_totals_of_torrents_true(database: &Database) {
    let mut goat = Goat::start(database, json!({ "SlowDown": 0 }));
    let (anna, bert) = (goat.add_user("anna"), goat.add_user("bert"));
    let hash = hex(&info_hash(1));
    cli(&goat, &["file", "add", &hash]);
    let mut seeder = seeder(&goat, &anna.passkey, 1, 1);
    let mut leecher = Announce::new(&bert.passkey, info_hash(1), 2);
    leecher.accepted(&goat);
    (seeder.event, seeder.uploaded) = ("", 5000);
    (leecher.event, leecher.downloaded, leecher.left) = ("completed", 5000, 0);
    seeder.accepted(&goat);
    leecher.accepted(&goat);
    let totals = |goat: &Goat| {
        let shown = goat.json(&["file", "show", &hash]);
        ["uploaded", "downloaded", "completed"].map(|field| shown[field].as_u64().unwrap())
    };
    wait_until("the books", || totals(&goat) == [5000, 5000, 1]);
    for user in ["anna", "bert"] {
        cli(&goat, &["user", "remove", user]);
    }
    wait_until("the swarm to be empty", || {
        let shown = goat.json(&["file", "show", &hash]);
        shown["seeders"] == 0 && database.number("SELECT count(*) FROM changes") == 0
    });
    goat.restart();
    assert_eq!(totals(&goat), [5000, 5000, 1]);
    // Nobody inherits it.
    let carl = goat.add_user("carl");
    assert!(carl.id > bert.id);
    assert_eq!(goat.json(&["user", "show", "carl"])["rawUploaded"], 0);
    assert_eq!(goat.json(&["stats"])["members"], 1);
}

fn an_import_is_all_or_nothing_and_its_members_need_no_new_torrents(database: &Database) {
    let mut goat = Goat::prepare(database, json!({ "SlowDown": 0 }));
    goat.add_user("anna");
    let write = |goat: &Goat, text: &str| {
        let path = goat.folder.join("import.csv");
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    // The mistakes of the database, too, are named with their lines, and nothing is left behind.
    let text = "name,passkey,uploaded\nbert,bertbertbertbert,1\nANNA,annaannaannaanna,2\ncarl,bertbertbertbert,3\n\n\
        a:b,1234567812345678,4\nd,123456781234567,5\ne,1234567812345678,x\n";
    let said = refused(&goat, &["import", &write(&goat, text)]);
    let lines: Vec<&str> = said
        .lines()
        .map(|line| line.split("import.csv: ").nth(1).unwrap())
        .map(|line| line.split(':').next().unwrap())
        .collect();
    assert_eq!(lines, ["line 3", "line 4", "line 6", "line 7", "line 8"], "{said}");
    assert_eq!(goat.json(&["stats"])["members"], 1);
    // Rows are not hidden in a quote, nor control characters in a name.
    let hash = hex(&info_hash(9));
    for text in [
        "name,passkey\nbert,\"bertbertbertbert\ncarl,carlcarlcarlcarl\n",
        &format!("info_hash,name\n{hash},\"a\u{1b}[2J\"\n"),
    ] {
        let said = refused(&goat, &["import", &write(&goat, text)]);
        assert!(said.contains("import.csv: line 2: "), "{said}");
    }
    assert_eq!(goat.json(&["file", "list"]), json!([]));

    for running in [false, true] {
        if running {
            goat.launch();
        }
        let prefix = format!("member-{running}-");
        let mut text = "\u{feff}name,passkey,uploaded,downloaded,torrent_limit\r\n".to_string();
        for n in 0..3000 {
            text += &format!("\"{prefix}{n}\",{prefix}passkey-{n},{n},{},7\r\n", 2 * n);
        }
        let said = cli(&goat, &["import", &write(&goat, &text)]);
        assert_eq!(said, "3000 rows imported\n");
        let number = u32::from(running);
        let text = format!("info_hash,name,size\n{},\"A, b\",77\n", hex(&info_hash(number)));
        assert_eq!(cli(&goat, &["import", &write(&goat, &text)]), "1 row imported\n");
        assert!(refused(&goat, &["import", &write(&goat, &text)]).contains("line 2"));

        let user = goat.json(&["user", "show", &format!("{prefix}2999")]);
        assert_eq!(
            [&user["uploaded"], &user["downloaded"], &user["torrentLimit"]],
            [&json!(2999), &json!(5998), &json!(7)]
        );
        if !running {
            goat.launch();
        }
        // Nobody needs a new torrent file.
        seeder(&goat, &format!("{prefix}passkey-17"), number, 1);
        let file = goat.json(&["file", "show", "A, b"]);
        assert_eq!((&file["size"], &file["verified"]), (&json!(77), &json!(true)));
        cli(&goat, &["file", "remove", "A, b"]);
        goat.stop();
    }
}

fn a_backup_made_while_the_tracker_runs_restores_the_same_numbers(database: &Database) {
    let mut goat = Goat::start(database, json!({ "SlowDown": 0 }));
    let anna = goat.add_user("anna");
    cli(&goat, &["file", "add", &hex(&info_hash(1))]);
    let mut announce = seeder(&goat, &anna.passkey, 1, 1);
    (announce.event, announce.uploaded) = ("", 4321);
    announce.accepted(&goat);
    wait_until("the books", || goat.json(&["stats"])["uploaded"] == 4321);
    let backup = goat.folder.join("a backup's file.db");
    let backup = backup.to_str().unwrap();
    match database {
        Database::Sqlite(folder) => {
            cli(&goat, &["backup", backup]);
            // Neither goes over, or comes from, the database itself.
            let itself = folder.join("goat.db");
            for word in ["backup", "restore"] {
                let said = refused(&goat, &[word, itself.to_str().unwrap()]);
                assert!(said.contains("the database itself"), "{said}");
            }
            // Restoring under a running tracker would pull the books from under it.
            let said = refused(&goat, &["restore", backup]);
            assert!(said.contains("stop goat first"), "{said}");
            let elsewhere = Database::sqlite();
            let other = Goat::prepare(&elsewhere, json!({}));
            assert!(cli(&other, &["restore", backup]).contains(": 1 member\n"));
            for list in [["user", "list"], ["file", "list"]] {
                assert_eq!(goat.json(&list), other.json(&list));
            }
            assert_eq!(settled_stats(&goat), settled_stats(&other));
            // Once it is stopped, over what is there, which is kept.
            goat.stop();
            goat.add_user("bert");
            let said = cli(&goat, &["restore", backup]);
            assert!(said.contains("goat.db.before-restore"), "{said}");
            assert!(folder.join("goat.db.before-restore").exists());
            assert_eq!(goat.json(&["stats"])["members"], 1);
            goat.launch();
            announce.accepted(&goat);
            // What is no backup changes nothing.
            goat.stop();
            for text in ["", "no database", "SQLite format 3\0"] {
                let bad = goat.folder.join("bad.db");
                fs::write(&bad, text).unwrap();
                let said = refused(&goat, &["restore", bad.to_str().unwrap()]);
                assert!(said.contains("bad.db"), "{said}");
            }
            let said = refused(&goat, &["restore", "/absent"]);
            assert!(said.contains("/absent"), "{said}");
            assert_eq!(goat.json(&["stats"])["members"], 1);
            // A database that is damaged can be replaced.
            fs::write(folder.join("goat.db"), "damaged").unwrap();
            cli(&goat, &["restore", backup]);
            assert_eq!(goat.json(&["stats"])["uploaded"], 4321);
        }
        Database::MariaDb(_) => {
            let printed = |words: &[&str]| {
                let (status, stdout, stderr) = goat.cli(words);
                assert_eq!(status.code(), Some(1), "{stderr}");
                assert!(stderr.contains("run the command above"), "{stderr}");
                stdout.replace("--password", "--password=goat")
            };
            let sh = |command: String| {
                let output = Command::new("sh").args(["-c", &command]).output().unwrap();
                assert!(output.status.success(), "{command}: {output:?}");
            };
            sh(printed(&["backup", backup]));
            // With addresses in it, which are bytes.
            let dump = fs::read(backup).unwrap();
            assert!(String::from_utf8_lossy(&dump).contains("anna"));
            let before = settled_stats(&goat);
            goat.add_user("bert");
            sh(printed(&["restore", backup]));
            assert_eq!(settled_stats(&goat), before);
        }
    }
}

/// The statistics when all is written.
fn settled_stats(goat: &Goat) -> Value {
    wait_for("all to be written", || Some(goat.json(&["stats"])).filter(|stats| stats["unsaved"] == 0))
}

#[test]
fn a_restored_database_gets_nothing_that_an_earlier_run_left_unwritten() {
    let database = Database::sqlite();
    let mut goat = Goat::prepare(&database, json!({ "SlowDown": 0 }));
    cli(&goat, &["file", "add", &hex(&info_hash(1))]);
    let backup = goat.folder.join("backup.db");
    let backup = backup.to_str().unwrap();
    cli(&goat, &["backup", backup]);
    for killed in [true, false] {
        let anna = goat.add_user("anna");
        goat.launch();
        database.sql("ALTER TABLE sessions RENAME TO gone");
        let mut announce = Announce::new(&anna.passkey, info_hash(1), 1);
        (announce.event, announce.uploaded) = ("started", 1000);
        announce.accepted(&goat);
        if killed {
            goat.kill();
        } else {
            assert!(goat.stop().success());
        }
        assert!(!goat.segments().is_empty());
        let said = cli(&goat, &["restore", backup]);
        let discarded = "1 states of sessions that the last run had not written were discarded";
        assert!(said.contains(discarded), "{said}");
        assert_eq!(goat.segments(), [] as [PathBuf; 0]);
        // Somebody else has her id now.
        assert_eq!(goat.add_user("bert").id, anna.id);
        goat.launch();
        assert_eq!(goat.json(&["user", "show", "bert"])["uploaded"], 0);
        goat.stop();
        cli(&goat, &["restore", backup]);
    }
}

#[test]
fn a_restore_keeps_every_former_database_and_leaves_nothing_behind() {
    let database = Database::sqlite();
    let Database::Sqlite(folder) = &database else { unreachable!() };
    let mut goat = Goat::prepare(&database, json!({}));
    let backup = goat.folder.join("backup.db");
    let backup = backup.to_str().unwrap();
    cli(&goat, &["backup", backup]);
    // The database is a link, which stays one.
    let (file, elsewhere) = (folder.join("goat.db"), Folder::new());
    let target = elsewhere.join("books.db");
    fs::rename(&file, &target).unwrap();
    std::os::unix::fs::symlink(&target, &file).unwrap();
    for (name, kept) in [("anna", ""), ("bert", "-2"), ("carl", "-3")] {
        goat.add_user(name);
        cli(&goat, &["restore", backup]);
        assert!(file.is_symlink());
        assert_eq!(goat.json(&["stats"])["members"], 0);
        let kept = elsewhere.join(&format!("books.db.before-restore{kept}"));
        assert!(fs::read(&kept).unwrap().windows(4).any(|word| word == name.as_bytes()));
    }
    goat.launch();
    let said = refused(&goat, &["restore", backup]);
    assert!(said.contains("stop goat first"), "{said}");
    goat.stop();
    let names = fs::read_dir(elsewhere.path()).unwrap().map(|file| file.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| !name.contains("before-restore"));
    names.sort();
    assert_eq!(names, ["books.db", "books.journal"]);
}

#[test]
fn what_is_credited_while_somebody_else_credits_is_added_to_that() {
    let test = "credited at the same time";
    let Some(database) = Database::mariadb(test) else { return };
    let Database::MariaDb(server) = &database else { unreachable!() };
    let goat = Goat::prepare(&database, json!({}));
    goat.add_user("anna");
    let other = Lock::after(&database, "UPDATE users SET uploaded = uploaded + 500");
    let mut credit = goat.command(&["user", "credit", "anna", "--uploaded", "1000"]).spawn().unwrap();
    let waiting = "SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'";
    wait_until("the command to wait", || server.root(waiting)[0][1] == "1");
    other.commit();
    assert!(credit.wait().unwrap().success());
    assert_eq!(database.number("SELECT uploaded FROM users"), 1500);
}

fn a_second_ban_without_a_reason_keeps_the_first(database: &Database) {
    let goat = Goat::prepare(database, json!({}));
    goat.add_user("bert");
    let reason = |words: &[&str]| {
        let bert = goat.json(&[&["user", "ban", "bert"], words].concat());
        assert_eq!(bert["banned"], true);
        bert["banReason"].as_str().unwrap().to_string()
    };
    assert_eq!(reason(&[]), "");
    assert_eq!(reason(&["--reason", "cheats"]), "cheats");
    assert_eq!(reason(&[]), "cheats");
    assert_eq!(reason(&["--reason", "lies"]), "lies");
    assert_eq!(reason(&["--reason", ""]), "");
}

fn the_last_administrator_stays_one(database: &Database) {
    let goat = Goat::prepare(database, json!({}));
    let anna = goat.json(&["user", "add", "anna", "--admin"]);
    goat.add_user("bert");
    let last = |name: &str| {
        for words in [&["user", "ban", name][..], &["user", "remove", name], &["user", "admin", name, "off"]] {
            let said = refused(&goat, words);
            assert!(said.contains("the last administrator"), "{words:?}: {said}");
        }
        let shown = goat.json(&["user", "show", name]);
        assert_eq!((&shown["admin"], &shown["banned"]), (&json!(true), &json!(false)));
    };
    last("anna");
    // Who is no administrator may go, and one who is banned does not count.
    cli(&goat, &["user", "ban", "bert"]);
    let bert = goat.json(&["user", "admin", "bert", "on"]);
    assert_eq!(bert["admin"], true);
    last("anna");
    cli(&goat, &["user", "unban", "bert"]);
    let said = cli(&goat, &["user", "admin", "anna", "off"]);
    assert_eq!(said, "anna is no longer an administrator\n");
    last("bert");
    assert_eq!(cli(&goat, &["user", "admin", "anna", "on"]), "anna is an administrator\n");
    cli(&goat, &["user", "remove", "bert"]);
    last(&anna["id"].to_string());
}

fn members_and_torrents_can_be_renamed_but_nobody_is_called_as_anothers_id(database: &Database) {
    let goat = Goat::prepare(database, json!({}));
    let (anna, bert) = (goat.add_user("anna"), goat.add_user("bert"));
    let said = cli(&goat, &["user", "rename", "anna", "Ännchen"]);
    assert_eq!(said, "Ännchen was called anna until now\n");
    let shown = goat.json(&["user", "show", "Ännchen", "--secrets"]);
    assert_eq!((&shown["id"], &shown["passkey"]), (&json!(anna.id), &json!(anna.passkey)));
    refused(&goat, &["user", "show", "anna"]);
    for (new, why) in
        [("bert", "already"), ("a:b", "name"), ("", "name"), (&bert.id.to_string(), "the id of another member")]
    {
        let said = refused(&goat, &["user", "rename", "Ännchen", new]);
        assert!(said.contains(why), "{new}: {said}");
    }
    // One's own id, in another case, and a number that is nobody's are no trouble.
    for new in ["BERT", &bert.id.to_string(), "4000000000"] {
        cli(&goat, &["user", "rename", &bert.id.to_string(), new]);
    }
    let said = refused(&goat, &["user", "add", &anna.id.to_string()]);
    assert!(said.contains("the id of another member"), "{said}");
    let csv = goat.folder.join("members.csv");
    let id = format!("0{}", anna.id);
    fs::write(&csv, format!("name,passkey\n{id},abcdefghabcdefgh\n")).unwrap();
    let said = refused(&goat, &["import", csv.to_str().unwrap()]);
    assert!(said.contains("line 2") && said.contains("the id of another member"), "{said}");

    let hash = hex(&info_hash(1));
    cli(&goat, &["file", "add", &hash]);
    let said = cli(&goat, &["file", "rename", &hash[..8], "a new \u{1f431}"]);
    assert_eq!(said, format!("{hash}  a new \u{1f431}  is its new name\n"));
    assert_eq!(goat.json(&["file", "show", "a new \u{1f431}"])["infoHash"], hash.as_str());
    refused(&goat, &["file", "rename", &hash, "two\nlines"]);
    let log = goat.json(&["log"]);
    for (what, detail) in [("user rename", "NEW Ännchen"), ("file rename", "NEW a new \u{1f431}")] {
        let written = |action: &Value| action["what"] == what && action["detail"] == detail;
        assert!(log.as_array().unwrap().iter().any(written), "{what}: {log}");
    }
    // A time for people, and each word under its title.
    let log = cli(&goat, &["log"]);
    let lines: Vec<&str> = log.lines().collect();
    let at = lines[0].find("what").unwrap();
    assert!(lines[1].starts_with("20") && lines[1][at..].starts_with("user add"), "{log}");
}

fn passkey_and_urls_are_shown_where_they_are_asked_for(database: &Database) {
    let goat = Goat::prepare(database, json!({}));
    let anna = goat.add_user("anna");
    let url = format!("http://{}/{}/announce", goat.address(), anna.passkey);
    for words in [&["user", "show", "anna"][..], &["user", "list"]] {
        let said = cli(&goat, words) + &goat.json(words).to_string();
        assert!(!said.contains(&anna.passkey), "{said}");
    }
    let said = cli(&goat, &["user", "show", "anna", "--secrets"]);
    assert!(said.lines().any(|line| line.starts_with("announce ") && line.ends_with(&url)), "{said}");
    let shown = goat.json(&["user", "show", "anna", "--secrets"]);
    assert_eq!((&shown["passkey"], &shown["announce"]), (&json!(anna.passkey), &json!([url])));
}

fn whatever_a_command_says_it_says_as_json_too(database: &Database) {
    let goat = Goat::prepare(database, json!({}));
    goat.add_user("anna");
    let (hash, other) = (hex(&info_hash(1)), hex(&info_hash(2)));
    goat.add_torrent(&hash);
    goat.add_torrent(&other);
    let csv = goat.folder.join("members.csv");
    fs::write(&csv, "name,passkey\nbert,abcdefghabcdefgh\n").unwrap();
    let csv = csv.to_str().unwrap();
    for (words, key, value) in [
        (&["user", "limit", "anna", "3"][..], "torrentLimit", json!(3)),
        (&["user", "ban", "anna"], "banned", json!(true)),
        (&["user", "unban", "anna"], "banned", json!(false)),
        (&["user", "admin", "anna", "on"], "admin", json!(true)),
        (&["user", "rename", "anna", "dora"], "name", json!("dora")),
        (&["user", "credit", "dora", "--uploaded", "1k"], "uploaded", json!(1024)),
        (&["file", "revoke", &hash], "verified", json!(false)),
        (&["file", "approve", &hash], "approved", json!(1)),
        (&["file", "approve", "--all"], "approved", json!(0)),
        (&["file", "rename", &hash, "x"], "name", json!("x")),
        (&["file", "free", &hash], "downloadPercent", json!(0)),
        (&["file", "remove", &other], "infoHash", json!(other)),
        (&["file", "remove", "--pending"], "removed", json!(0)),
        (&["client", "approve", "New/"], "approved", json!(true)),
        (&["client", "deny", "New/"], "approved", json!(false)),
        (&["client", "remove", "New/"], "client", json!("New/")),
        (&["import", csv], "imported", json!(1)),
        (&["user", "remove", "bert"], "name", json!("bert")),
    ] {
        assert_eq!(goat.json(words)[key], value, "{words:?}");
    }
    let said = refused(&goat, &["client", "remove", "New/"]);
    assert!(said.contains("there is no client New/"), "{said}");
}

fn lists_are_sorted_and_filtered(database: &Database) {
    let goat = Goat::prepare(database, json!({}));
    for (name, up, down) in [("anna", 10, 10), ("bert", 5, 0), ("carl", 30, 60), ("dora", 0, 0)] {
        goat.add_user(name);
        database.sql(&format!("UPDATE users SET uploaded = {up}, downloaded = {down} WHERE username = '{name}'"));
    }
    let names = |list: &str, words: &[&str]| -> String {
        let rows = goat.json(&[&[list, "list"], words].concat());
        let names = rows.as_array().unwrap().iter().map(|row| &row["name"]);
        names.map(|name| &name.as_str().unwrap()[..1]).collect()
    };
    for (sort, order) in
        [("id", "abcd"), ("name", "abcd"), ("uploaded", "cabd"), ("downloaded", "cadb"), ("ratio", "bacd")]
    {
        assert_eq!(names("user", &["--sort", sort]), order, "{sort}");
    }
    for (number, (name, size, completed)) in (1..).zip([("x", 7, 1), ("w", 9, 3), ("y", 8, 2)]) {
        cli(&goat, &["file", "add", &hex(&info_hash(number))]);
        database.sql(&format!(
            "UPDATE files SET name = '{name}', size = {size}, completed = {completed} WHERE id = {number}"
        ));
    }
    let start = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    for (file, left, active, time) in [(1, 0, 1, 3), (2, 1, 1, 1), (2, 1, 1, 1), (3, 0, 0, 2)] {
        let now = start + time;
        let user = database.number("SELECT count(*) FROM peers") + 1;
        let closed = if active == 1 { 0 } else { now };
        database.sql(&format!(
            "INSERT INTO sessions (file_id, user_id, peer_id, closed, flags, uploaded, downloaded, `left`, seed_time, time4,
                time6, state)
             VALUES ({file}, {user}, X'{}', {closed}, 65536, 0, 0, {left}, 7, {now}, 0, X'000000000000');
             INSERT INTO totals VALUES ({file}, {user}, '', 0, 0, 0, 0, 0, 0, 0, 0, 0)",
            hex(&peer_id(1))
        ));
    }
    for (sort, order) in [
        ("name", "wxy"),
        ("size", "wyx"),
        ("seeders", "xyw"),
        ("leechers", "wyx"),
        ("completed", "wyx"),
        ("snatches", "wyx"),
        ("last-active", "xyw"),
        ("activity", "xyw"),
    ] {
        assert_eq!(names("file", &["--sort", sort]), order, "{sort}");
    }
    let anna = goat.json(&["user", "list"])[0].clone();
    assert_eq!(anna["seedTime"], 7);
    let seen = database.number("SELECT time FROM files_users WHERE user_id = 1");
    assert_eq!(anna["lastSeen"], seen);
    assert_eq!(names("file", &["--dead"]), "wy");
    assert_eq!(names("file", &["--pending"]), "");
    let stats = goat.json(&["stats"]);
    let expected = json!({ "members": 4, "banned": 0, "torrents": 3, "pending": 0, "size": 24,
        "swarms": 2, "seeders": 1, "leechers": 2, "snatches": 6, "uploaded": 45, "downloaded": 70,
        "unsaved": 0 });
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&stats[key], value, "{key}: {stats}");
    }
    assert_eq!(stats["topMembers"][0]["name"], "carl");
    assert_eq!(stats["topTorrents"][0]["name"], "w");
}

fn things_are_found_by_name_id_and_prefix(database: &Database) {
    let goat = Goat::prepare(database, json!({}));
    let (_, second) = (goat.add_user("anna"), goat.add_user("bert"));
    // goat calls nobody so, but others may write into the database.
    goat.add_user("dora");
    database.sql("UPDATE users SET username = '1' WHERE username = 'dora'");
    let name = |text: &str| goat.json(&["user", "show", text])["name"].clone();
    assert_eq!(name("ANNA"), "anna");
    assert_eq!(name(&second.id.to_string()), "bert");
    assert_eq!(name("1"), "1"); // a name goes before an id
    for text in ["99", "an", "", "' OR 1 = 1 --", "%"] {
        refused(&goat, &["user", "show", text]);
    }
    let hashes = ["abcd0", "abcd1", "12340"].map(|start| format!("{start:0<40}"));
    for hash in &hashes {
        cli(&goat, &["file", "add", hash]);
    }
    let hash = |text: &str| goat.json(&["file", "show", text])["infoHash"].clone();
    let whole = format!("{}{}", hashes[1], "f".repeat(24));
    for text in ["abcd1", "ABCD1", "2", &hashes[1], &whole] {
        assert_eq!(hash(text), hashes[1].as_str(), "{text}");
    }
    assert_eq!(hash("1234"), hashes[2].as_str());
    assert!(refused(&goat, &["file", "show", "abcd"]).contains("several"));
    let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/torrents/libtorrent-hybrid.torrent");
    cli(&goat, &["file", "add", sample]);
    let v2 = database.sql("SELECT info_hash_v2 FROM files WHERE info_hash_v2 IS NOT NULL")[0][0].clone();
    for text in [&v2, &format!("{v2}{}", "0".repeat(24))] {
        assert_eq!(hash(text), "f2b8e8d82e954478026cf4ba7f6df17b639ccf4c");
    }
    for text in ["abc", "abcd2", "%", "_", "", "abcd%"] {
        let said = refused(&goat, &["file", "show", text]);
        assert!(said.contains("not registered"), "{text}: {said}");
    }
}

fn names_are_the_same_that_differ_in_the_case_of_ascii_letters_alone(database: &Database) {
    let mut goat = Goat::prepare(database, json!({ "SlowDown": 0, "API": true }));
    cli(&goat, &["file", "add", &hex(&info_hash(1))]);
    // All of these are different, whatever a collation thinks of them.
    let names = [
        "🐱",
        "🐶",
        "jose",
        "josé",
        "jose\u{301}",
        "straße",
        "strasse",
        "ÉCOLE",
        "école",
        "ΑΒΓ",
        "αβγ",
        "Ærø",
        "ı",
        "i",
        "ﬁ",
        "fi",
        "a",
        "ａ",
        "ª",
        "а",
        "anna",
        "anna_",
        "ann",
        "Ю",
        "ю",
        "Š",
        "š",
        "À",
        "à",
        "Ø",
        "ø",
        "½",
        "\u{1f431}\u{fe0f}",
    ];
    for name in names {
        goat.add_user(name);
    }
    assert_eq!(goat.json(&["user", "list"]).as_array().unwrap().len(), names.len());
    for (taken, name) in [("ANNA", "anna"), ("Anna", "anna"), ("JOSé", "josé"), ("STRAßE", "straße")] {
        let said = refused(&goat, &["user", "add", taken]);
        assert!(said.contains("already"), "{taken}: {said}");
        assert_eq!(goat.json(&["user", "show", taken])["name"], name);
    }
    for name in names {
        assert_eq!(goat.json(&["user", "show", name])["name"], name);
        refused(&goat, &["user", "show", &format!("{name} ")]);
    }
    // A ban hits the one who is named, and nobody else.
    goat.launch();
    for (ban, stays) in [("🐱", "🐶"), ("jose", "josé"), ("straße", "strasse")] {
        cli(&goat, &["user", "ban", ban]);
        let banned = |name: &str| goat.json(&["user", "show", name])["banned"] == true;
        assert!(banned(ban) && !banned(stays), "{ban}, {stays}");
    }
    let all = goat.json(&["user", "list", "--banned"]);
    assert_eq!(all.as_array().unwrap().len(), 3, "{all}");
}

fn pending_torrents_and_clients_say_who_suggested_them_and_are_few_for_one_member(database: &Database) {
    let mut goat = Goat::prepare(database, json!({ "SlowDown": 0 }));
    let [anna, bert] = ["anna", "bert"].map(|name| goat.add_user(name).passkey);
    cli(&goat, &["file", "add", &hex(&info_hash(1000))]);
    goat.launch();
    let suggest = |passkey: &str, numbers: std::ops::Range<u32>| {
        for number in numbers {
            let announce = Announce::new(passkey, info_hash(number), 1);
            let refusal = announce.refusal(&goat);
            assert!(["Unregistered torrent", "Unverified torrent"].contains(&refusal.as_str()));
            let mut client = Announce::new(passkey, info_hash(1000), 1);
            client.agent = format!("Strange/{number}");
            client.peer_id = [b'?'; 20];
            assert_eq!(client.refusal(&goat), "Your client is not whitelisted");
        }
    };
    let pending = |what: &str, by: &str| -> usize {
        let list = goat.json(&[what, "list", "--pending"]);
        let rows = list.as_array().unwrap().iter();
        rows.filter(|row| row["suggestedBy"] == by).count()
    };
    let counts = || ["file", "client"].map(|what| ["anna", "bert"].map(|by| pending(what, by)));
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    suggest(&bert, 1..4);
    wait_until("what bert suggests", || counts() == [[0, 3], [0, 3]]);
    suggest(&anna, 100..130);
    wait_until("what anna suggests", || counts() == [[20, 3], [20, 3]]);
    // Who suggests more than that waits until something is judged; others do not.
    suggest(&anna, 130..140);
    suggest(&bert, 4..6);
    wait_until("what bert suggests", || counts() == [[20, 5], [20, 5]]);
    let list = goat.json(&["file", "list", "--pending"]);
    for row in list.as_array().unwrap() {
        let when = row["suggested"].as_i64().unwrap();
        assert!((now..now + 120).contains(&when), "{row}");
    }
    let text = cli(&goat, &["file", "list", "--pending"]);
    assert!(text.lines().next().is_some_and(|head| head.contains("suggested by")), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains("anna")).count(), 20, "{text}");

    assert_eq!(cli(&goat, &["file", "remove", "--pending", "--by", "ANNA"]), "20 torrents removed\n");
    assert_eq!(counts()[0], [0, 5]);
    assert!(refused(&goat, &["file", "remove", "--pending", "--by", "carl"]).contains("carl"));
    assert_eq!(cli(&goat, &["file", "remove", "--pending"]), "5 torrents removed\n");
    assert_eq!(counts()[0], [0, 0]);
    let all = goat.json(&["file", "list"]);
    assert_eq!(all.as_array().unwrap().len(), 1, "what is approved stays: {all}");
    // There is room again.
    wait_until("another suggestion", || {
        suggest(&anna, 200..201);
        pending("file", "anna") == 1
    });
}

fn what_an_operator_has_judged_waits_no_more(database: &Database) {
    let goat = Goat::prepare(database, json!({}));
    let pending = |what: &str, key: &str| -> Vec<String> {
        let list = goat.json(&[what, "list", "--pending"]);
        let rows = list.as_array().unwrap().iter();
        rows.map(|row| row[key].as_str().unwrap().into()).collect()
    };
    // As announces leave them, and torrents that an operator registered and revoked.
    let hashes = [1, 2, 3, 4].map(|number| hex(&info_hash(number)));
    cli(&goat, &["file", "add", &hashes[0]]);
    cli(&goat, &["file", "revoke", &hashes[0]]);
    for hash in &hashes[1..] {
        database.sql(&format!("INSERT INTO files (info_hash, suggested) VALUES ('{hash}', 1)"));
    }
    assert_eq!(pending("file", "infoHash"), hashes[1..]);
    cli(&goat, &["file", "approve", &hashes[1]]);
    cli(&goat, &["file", "revoke", &hashes[1]]);
    assert_eq!(pending("file", "infoHash"), hashes[2..]);
    assert_eq!(goat.json(&["stats"])["pending"], 2);
    let said = cli(&goat, &["file", "approve", "--all"]);
    assert_eq!(said, "2 torrents approved\n");
    assert_eq!(goat.json(&["stats"])["pending"], 0);
    let rows = goat.json(&["file", "list"]);
    let verified = rows.as_array().unwrap().iter().map(|row| &row["verified"]);
    assert_eq!(json!(verified.collect::<Vec<_>>()), json!([false, false, true, true]));

    for client in ["Denied/1", "Covered/1.0", "Covered/1.1", "covered/1", "Covere", "C%/1"] {
        database.sql(&format!("INSERT INTO whitelist (client, suggested) VALUES ('{client}', 1)"));
    }
    cli(&goat, &["client", "deny", "Covered/1.2"]);
    assert_eq!(cli(&goat, &["client", "deny", "Denied/1"]), "Denied/1 is not allowed\n");
    assert_eq!(cli(&goat, &["client", "approve", "Covered/"]), "Covered/ is allowed\n");
    cli(&goat, &["client", "approve", "C%/"]);
    assert_eq!(pending("client", "client"), ["Covere", "covered/1"]);
    // What an operator denied stays denied.
    let clients = goat.json(&["client", "list"]);
    for client in ["Denied/1", "Covered/1.2"] {
        let judged = |row: &&Value| row["client"] == client && row["approved"] == false;
        assert_eq!(clients.as_array().unwrap().iter().filter(judged).count(), 1, "{client}: {clients}");
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn a_backup_overwrites_nothing_but_a_backup() {
    use std::os::unix::fs::PermissionsExt;
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({}));
    goat.add_user("anna");
    let path = |name: &str| goat.folder.join(name).to_str().unwrap().to_string();
    fs::write(path("letter"), "Dear Anna").unwrap();
    fs::write(path("empty"), "").unwrap();
    assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
    // Databases: of another goat, and of somebody else.
    let other = Database::sqlite();
    let live = Goat::start(&other, json!({}));
    let Database::Sqlite(folder) = &other else { unreachable!() };
    let of_another = folder.join("goat.db").to_str().unwrap().to_string();
    let foreign = rusqlite::Connection::open(path("foreign.db")).unwrap();
    foreign.execute_batch("CREATE TABLE goat (name TEXT, value INTEGER)").unwrap();
    for name in ["letter", "pipe", ".", "foreign.db", &of_another] {
        let said = refused(&goat, &["backup", &path(name)]);
        assert!(said.contains("name another file"), "{said}");
    }
    assert_eq!(live.json(&["stats"])["members"], 0);
    assert_eq!(fs::read_to_string(path("letter")).unwrap(), "Dear Anna");
    std::os::unix::fs::symlink(path("target.db"), path("link.db")).unwrap();
    fs::write(path("target.db"), "").unwrap();
    for name in ["empty", "new.db", "new.db", "link.db", &"n".repeat(255)] {
        cli(&goat, &["backup", &path(name)]);
        let start = fs::read(path(name)).unwrap();
        assert!(start.starts_with(b"SQLite format 3\0"), "{name}");
        let mode = fs::metadata(path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert!(goat.folder.join("link.db").is_symlink());
    // A name that SQLite alone would take for a URL.
    let within = |words: &[&str]| {
        let mut command = goat.command(words);
        assert!(command.current_dir(goat.folder.path()).status().unwrap().success());
    };
    within(&["backup", "file:odd.db"]);
    assert!(goat.folder.join("file:odd.db").exists() && !goat.folder.join("odd.db").exists());
    goat.add_user("bert");
    within(&["restore", "file:odd.db"]);
    assert_eq!(goat.json(&["stats"])["members"], 1);
}

#[cfg(feature = "sqlite")]
#[test]
fn what_only_reads_waits_for_nobody_who_writes() {
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({}));
    goat.add_user("anna");
    let Database::Sqlite(folder) = &database else { unreachable!() };
    let writer = rusqlite::Connection::open(folder.join("goat.db")).unwrap();
    writer.execute_batch("BEGIN IMMEDIATE").unwrap();
    for words in [&["user", "list"][..], &["file", "list"], &["stats"], &["user", "show", "anna"]] {
        cli(&goat, words);
    }
    writer.execute_batch("ROLLBACK").unwrap();
    // What is missing is still made.
    for missing in ["TRIGGER users_replace", "INDEX files_verified", "TABLE hours"] {
        writer.execute_batch(&format!("DROP {missing}")).unwrap();
        cli(&goat, &["stats"]);
        let name = missing.split(' ').nth(1).unwrap();
        let sql = format!("SELECT count(*) FROM sqlite_master WHERE name = '{name}'");
        assert_eq!(database.number(&sql), 1, "{missing}");
    }
    writer.execute_batch("DELETE FROM whitelist").unwrap();
    assert!(goat.json(&["client", "list"]).as_array().unwrap().len() > 5);
}

#[test]
fn check_says_what_is_wrong_and_mends_what_it_can() {
    use std::os::unix::fs::PermissionsExt;
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({}));
    let state = |goat: &Goat, words: &[&str], what: &str| -> (Option<i32>, String) {
        let (status, stdout, _) = goat.cli(&[&["check", "--json"], words].concat());
        let found: Value = serde_json::from_str(&stdout).unwrap();
        let mut found = found.as_array().unwrap().iter();
        let found =
            found.find(|finding| finding["what"].as_str().unwrap().ends_with(what) && finding["state"] != "good");
        let state = found.map_or("good", |finding| finding["state"].as_str().unwrap());
        (status.code(), state.to_string())
    };
    let ok = |word: &str| (Some(0), word.to_string());
    assert_eq!(state(&goat, &[], "goat.db"), ok("good"));
    let Database::Sqlite(folder) = &database else { unreachable!() };
    let file = folder.join("goat.db");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(state(&goat, &[], "goat.db"), ok("warning"));
    assert_eq!(state(&goat, &["--fix"], "goat.db"), ok("mended"));
    assert_eq!(state(&goat, &[], "goat.db"), ok("good"));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);

    // A port that another program has, which is named; for both protocols.
    let tcp = std::net::TcpListener::bind(("127.0.0.1", goat.port)).unwrap();
    let (status, stdout, stderr) = goat.cli(&["check"]);
    let line = stdout.lines().find(|line| line.starts_with("TCP port")).unwrap();
    let id = format!("(process {}) is using it", std::process::id());
    assert!(line.contains(": wrong: ") && line.contains(&id), "{stdout}");
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("1 of these must be fixed"), "{stderr}");
    drop(tcp);
    let udp = Goat::prepare(&database, json!({ "UDP": true }));
    let socket = std::net::UdpSocket::bind(("127.0.0.1", udp.port)).unwrap();
    let what = format!("UDP port {}", udp.port);
    assert_eq!(state(&udp, &[], &what), (Some(1), "wrong".into()));
    drop(socket);

    // Its own goat may have the port; that of another community may not.
    let other = Database::sqlite();
    let mut running = Goat::prepare(&other, json!({}));
    running.launch();
    let what = format!("TCP port {}", running.port);
    assert_eq!(state(&running, &[], &what), ok("good"));
    let second = Goat::prepare(&database, json!({ "Port": running.port, "Host": "0.0.0.0" }));
    assert_eq!(state(&second, &[], &what), (Some(1), "wrong".into()));
    let (_, stdout, _) = second.cli(&["check"]);
    assert!(stdout.contains("a goat with another configuration"), "{stdout}");
    assert!(stdout.contains("URL: warning: "), "{stdout}");

    // Files that goat leaves beside its own.
    let kept = [goat.folder.join("config.secret"), folder.join("goat.db.before-restore-2")];
    for file in &kept {
        fs::write(file, "").unwrap();
        fs::set_permissions(file, PermissionsExt::from_mode(0o644)).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        assert_eq!(state(&goat, &[], name), ok("warning"), "{name}");
        assert_eq!(state(&goat, &["--fix"], name), ok("mended"), "{name}");
        fs::remove_file(file).unwrap();
    }

    // Who may write the folder leads it to no other file.
    let (other, planted) = (goat.folder.join("other"), goat.folder.join("config.secret"));
    fs::write(&other, "").unwrap();
    fs::set_permissions(&other, PermissionsExt::from_mode(0o644)).unwrap();
    for plant in [std::os::unix::fs::symlink::<&Path, &Path>, fs::hard_link] {
        plant(&other, &planted).unwrap();
        assert_eq!(state(&goat, &["--fix"], "config.secret"), ok("warning"));
        assert_eq!(fs::metadata(&other).unwrap().permissions().mode() & 0o777, 0o644);
        fs::remove_file(&planted).unwrap();
    }
    std::os::unix::fs::symlink(&other, folder.join("goat.db.before-restore-3")).unwrap();
    assert_eq!(state(&goat, &[], "goat.db.before-restore-3"), ok("good"));

    // A database with a page that is none.
    let text: String = (0..3000).map(|n| format!("user{n},passkey-{n:08}\n")).collect();
    fs::write(goat.folder.join("users.csv"), format!("name,passkey\n{text}")).unwrap();
    cli(&goat, &["import", goat.folder.join("users.csv").to_str().unwrap()]);
    let good = fs::read(&file).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2 / 4096 * 4096;
    bad[middle..middle + 4096].fill(0xff);
    fs::write(&file, bad).unwrap();
    assert_eq!(state(&goat, &[], "goat.db"), (Some(1), "wrong".into()));
    fs::write(&file, good).unwrap();
    assert_eq!(state(&goat, &[], "goat.db"), ok("good"));

    // A database that is not there does not hide what else is wrong.
    let away = json!({ "URL": "", "DB": { "Driver": "mysql", "Host": "127.0.0.1:1" } });
    let away = Goat::prepare(&database, away);
    let name = "MySQL database goat at 127.0.0.1:1";
    assert_eq!(state(&away, &[], name), (Some(1), "wrong".into()));
    let warning = (Some(1), "warning".to_string());
    assert_eq!(state(&away, &[], "config.json"), warning, "everybody may read a password");

    // Books from the future.
    database.sql("REPLACE INTO goat (name, value) VALUES ('written', 4000000000)");
    let (_, stdout, _) = goat.cli(&["check"]);
    assert!(stdout.contains("the database was last written at 2096-10-02"), "{stdout}");
}

#[test]
fn announce_urls_are_built_from_the_public_url_and_are_not_plain_http_where_there_is_https() {
    let database = Database::sqlite();
    let authority = crate::common::tls::Authority::new();
    let certificate = authority.issue("goat", crate::common::tls::P256);
    let https = |mut settings: Value| {
        settings["HTTPS"] = json!(true);
        settings["SSL"] = json!({
            "Certificate": certificate.certificate, "Key": certificate.key,
        });
        settings
    };
    let cases = [
        (json!({}), "http://127.0.0.1:PORT"),
        (json!({ "Host": "0.0.0.0" }), "http://localhost:PORT"),
        (json!({ "Host": "::" }), "http://localhost:PORT"),
        (json!({ "URL": "https://tracker.example.org" }), "https://tracker.example.org"),
        (json!({ "URL": "http://tracker.example.org:80/x/" }), "http://tracker.example.org:80/x"),
        (
            json!({ "URL": "https://[2001:db8::1]:443", "UDP": true }),
            "https://[2001:db8::1]:443 udp://[2001:db8::1]:PORT",
        ),
        // Who fails once over HTTPS must not send a passkey in clear.
        (https(json!({})), "https://127.0.0.1:8443"),
        (https(json!({ "UDP": true })), "https://127.0.0.1:8443 udp://127.0.0.1:PORT"),
        (https(json!({ "URL": "https://tracker.example.org/x/" })), "https://tracker.example.org/x"),
        (https(json!({ "URL": "http://tracker.example.org/x" })), "https://tracker.example.org:8443"),
        (
            json!({ "URL": "https://tracker.example.org:443", "UDP": true, "HTTP": false }),
            "udp://tracker.example.org:PORT",
        ),
    ];
    for (number, (config, expected)) in cases.into_iter().enumerate() {
        let goat = Goat::prepare(&database, config);
        let user = goat.json(&["user", "add", &format!("user{number}")]);
        let end = format!("/{}/announce", user["passkey"].as_str().unwrap());
        let expected = expected.replace("PORT", &goat.port.to_string());
        let expected: Vec<String> = expected.split(' ').map(|url| format!("{url}{end}")).collect();
        assert_eq!(user["announce"], json!(expected));
    }
    for url in
        ["tracker.example.org", "ftp://x", "https://", "https://a b", "https://u:p@x", "http://x:0", "http://x?y"]
    {
        let goat = Goat::prepare(&database, json!({ "URL": url }));
        let (status, _, stderr) = goat.cli(&["stats"]);
        assert_eq!(status.code(), Some(2), "{url}");
        assert!(stderr.contains("URL: found") && stderr.contains("https://tracker.example.org"), "{stderr}");
    }
}

#[test]
fn shells_complete_commands_options_and_values() {
    let res = Path::new(env!("CARGO_MANIFEST_DIR")).join("res/completions");
    // With what bash itself completes where the function offers nothing: files.
    let script = format!(
        r#"cd {}; . {}
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); word=${{@: -1}}
        _goat goat "$word" "${{@: -2:1}}"
        [ ${{#COMPREPLY[@]}} != 0 ] || [[ $(complete -p goat) != *"-o default"* ]] || COMPREPLY=($(compgen -f -- "$word"))
        printf '%s\n' "${{COMPREPLY[@]}}""#,
        env!("CARGO_MANIFEST_DIR"),
        res.join("goat.bash").display()
    );
    for (words, expected) in [
        (&["goat", "us"][..], "user"),
        (&["goat", "user", "p"], "passkey"),
        (&["goat", "user", "list", "--b"], "--banned"),
        (&["goat", "user", "list", "--sort", "r"], "ratio"),
        (&["goat", "stats", "--"], "--json\n--config\n--help"),
        (&["goat", "torrent", "config.j"], "config.json5"),
        (&["goat", "torrent", "x", "--out", "config.j"], "config.json5"),
    ] {
        let output = Command::new("bash").args(["-c", &script, "bash"]).args(words).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said.trim(), expected, "{words:?}: {:?}", String::from_utf8(output.stderr));
    }
    let fish = |line: &str| format!("source {}; complete -C '{line}'", res.join("goat.fish").display());
    let zsh = res.join("_goat");
    let man = Path::new(env!("CARGO_MANIFEST_DIR")).join("res/goat.1");
    let checks: [(&str, Vec<PathBuf>, &str); 4] = [
        ("zsh", vec!["-n".into(), zsh], ""),
        ("fish", vec!["-c".into(), fish("goat user pa").into()], "passkey\t"),
        ("fish", vec!["-c".into(), fish("goat user list --sort ra").into()], "ratio"),
        ("groff", vec!["-man".into(), "-ww".into(), "-z".into(), man], ""),
    ];
    for (program, arguments, expected) in checks {
        if !installed(program) {
            skip("completions", &format!("no {program}"));
            continue;
        }
        let output = Command::new(program).args(&arguments).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{program}: {:?}",
            String::from_utf8(output.stderr)
        );
        assert!(said.starts_with(expected), "{program} {arguments:?}: {said}");
    }
    assert!(!nothing_may_be_skipped() || installed("fish"));
}
