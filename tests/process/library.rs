//! Torrents that goat keeps: registered from a file, sent by members, and fetched with each member's own URLs. Every
//! rule that touches the database holds on SQLite and on MariaDB.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::thread;

use crate::api::add_admin;
use crate::common::{Announce, Bencode, Database, Goat, PATIENCE, User, basic, installed, skip, wait_until};
use goat::torrent::InfoHash;
use serde_json::{Value, json};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/torrents");

/// An answer: its status, the lines of its head, and its body.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {}", self.text()))
    }

    pub fn text(&self) -> String {
        format!("{}\n{}", self.head, String::from_utf8_lossy(&self.body))
    }
}

/// One request on a connection of its own. What the server does not want to read need not arrive.
pub fn ask(goat: &Goat, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(goat.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let length = if method == "POST" { format!("Content-Length: {}\r\n", body.len()) } else { String::new() };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{length}{headers}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let _ = stream.write_all(body);
    read(&mut stream)
}

fn read(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {ended:?}"));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

pub fn sign(user: &User) -> String {
    format!("Authorization: {}\r\n", basic(&user.name, &user.api_key))
}

pub fn get(goat: &Goat, user: &User, path: &str) -> Answer {
    ask(goat, "GET", path, &sign(user), b"")
}

pub fn post(goat: &Goat, user: &User, path: &str, body: &[u8]) -> Answer {
    ask(goat, "POST", path, &sign(user), body)
}

/// What a torrent that was sent has become.
pub fn sent(goat: &Goat, user: &User, torrent: &[u8]) -> Value {
    let answer = post(goat, user, "/api/files", torrent);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// What is wrong with a call, by its status.
pub fn refused(answer: &Answer, status: u16) -> String {
    assert_eq!(answer.status, status, "{}", answer.text());
    answer.json()["error"].as_str().unwrap().into()
}

/// A goat with the API, an administrator and two members.
pub fn start(database: &Database) -> (Goat, User, User, User) {
    let goat = Goat::start(database, json!({ "API": true, "TrustedProxies": ["127.0.0.1"] }));
    let admin = add_admin(&goat, "ana");
    let (berta, caro) = (goat.add_user("berta"), goat.add_user("caro"));
    (goat, admin, berta, caro)
}

/// A private torrent of one file, with so many bytes of hashes.
pub fn torrent(name: &str, bytes: usize) -> Vec<u8> {
    let pieces = bytes - bytes % 20;
    let head = format!("d8:announce9:http://x/4:infod6:lengthi{pieces}e4:name{}:{name}", name.len());
    let middle = format!("12:piece lengthi20e6:pieces{pieces}:");
    [head.as_bytes(), middle.as_bytes(), &vec![7; pieces], b"7:privatei1eee"].concat()
}

/// The info dictionary of a torrent, to the byte.
fn info(torrent: &[u8]) -> Vec<u8> {
    goat::torrent::read(torrent).unwrap().info.to_vec()
}

#[test]
fn a_torrent_that_was_registered_from_its_file_is_copied_for_members_without_it() {
    for database in Database::each("copies without the file") {
        let (mut goat, _, berta, _) = start(&database);
        let mut torrents = Vec::new();
        for entry in fs::read_dir(SAMPLES).unwrap() {
            let path = entry.unwrap().path();
            let Some(path) = path.to_str().filter(|path| path.ends_with(".torrent")) else {
                continue;
            };
            let added = goat.json(&["file", "add", "--public", path]);
            torrents.push((
                added["id"].as_i64().unwrap(),
                path.to_string(),
                added["infoHash"].as_str().unwrap().to_string(),
            ));
        }
        assert_eq!(torrents.len(), 9);
        for round in ["at once", "after a restart"] {
            for (id, path, hash) in &torrents {
                let command = |torrent: &str| {
                    let copy = goat.command(&["torrent", torrent, "--for", "berta", "--out", "-"]).output().unwrap();
                    assert!(copy.status.success(), "{torrent}: {copy:?}");
                    copy.stdout
                };
                let file = fs::read(path).unwrap();
                let copy = command(hash);
                assert_eq!(info(&copy), info(&file), "{path} {round}");
                assert_eq!(
                    Bencode::parse(&copy).get("piece layers"),
                    Bencode::parse(&file).get("piece layers"),
                    "{path} {round}"
                );
                assert_eq!(Bencode::parse(&copy).get("announce"), Bencode::parse(&command(path)).get("announce"));
                let fetched = get(&goat, &berta, &format!("/api/files/{id}/torrent"));
                assert_eq!((fetched.status, &fetched.body), (200, &copy), "{path} {round}");
                assert!(fetched.head.contains("Content-Type: application/x-bittorrent"), "{}", fetched.head);
                assert!(fetched.head.contains("Cache-Control: no-store"), "{}", fetched.head);
                assert!(String::from_utf8_lossy(&fetched.body).contains(&berta.passkey));
            }
            goat.restart();
        }
        // What its file does not match is not given out, whoever wrote it.
        database.sql("UPDATE torrents SET info = 'd4:name1:xe'");
        let path = format!("/api/files/{}/torrent", torrents[0].0);
        refused(&get(&goat, &berta, &path), 404);
        // Who registers it again mends that.
        goat.json(&["file", "add", "--public", &torrents[0].1]);
        assert_eq!(get(&goat, &berta, &path).status, 200);
        // With the torrent goes what was kept of it.
        goat.cli(&["file", "remove", &torrents[1].2]);
        assert_eq!(database.number("SELECT COUNT(*) FROM torrents"), 8);
    }
}

#[test]
fn of_a_hash_alone_there_are_no_copies_until_its_file_is_registered() {
    for database in Database::each("copies of a hash") {
        let (goat, _, berta, _) = start(&database);
        let file = torrent("later", 20);
        let hash = goat::torrent::read(&file).unwrap().info_hash.to_string();
        let id = goat.add_torrent(&hash);
        let said = refused(&get(&goat, &berta, &format!("/api/files/{id}/torrent")), 404);
        assert!(said.contains("Only the hash"), "{said}");
        let (status, _, said) = goat.cli(&["torrent", &hash, "--for", "berta", "--out", "-"]);
        assert!(status.code() == Some(1) && said.contains("goat has the hash alone"), "{said}");
        let path = goat.folder.join("later.torrent");
        fs::write(&path, &file).unwrap();
        assert_eq!(goat.add_torrent(&path), id);
        assert_eq!(get(&goat, &berta, &format!("/api/files/{id}/torrent")).status, 200);
        // A torrent above the limit is registered, and needs its file.
        fs::write(&path, torrent("large", 9 << 20)).unwrap();
        let (status, said, _) = goat.cli(&["file", "add", path.to_str().unwrap()]);
        assert!(status.success() && said.contains("larger than 8 MiB"), "{said}");
    }
}

#[test]
fn a_backup_holds_the_torrents() {
    let database = Database::sqlite();
    let (mut goat, admin, berta, _) = start(&database);
    let id = sent(&goat, &admin, &torrent("kept", 20))["id"].as_i64().unwrap();
    let path = format!("/api/files/{id}/torrent");
    let before = get(&goat, &berta, &path).body;
    let backup = goat.folder.join("backup.db");
    let backup = backup.to_str().unwrap();
    assert!(goat.cli(&["backup", backup]).0.success());
    goat.cli(&["file", "remove", "kept"]);
    assert_eq!(get(&goat, &berta, &path).status, 404);
    goat.stop();
    let (status, _, said) = goat.cli(&["restore", backup]);
    assert!(status.success(), "{said}");
    goat.launch();
    assert_eq!(get(&goat, &berta, &path).body, before);
}

#[test]
fn what_a_member_sends_waits_for_approval_and_what_an_administrator_sends_is_there_at_once() {
    for database in Database::each("uploads") {
        let (goat, admin, berta, caro) = start(&database);
        let file = torrent("Ä song", 20);
        let offered = sent(&goat, &berta, &file);
        let hash = goat::torrent::read(&file).unwrap().info_hash.to_string();
        let id = offered["id"].as_i64().unwrap();
        let said = json!({ "id": id, "infoHash": hash, "name": "Ä song", "size": 20, "verified": false, "new": true,
            "changed": false });
        assert_eq!(offered, said);
        let bytes = goat::torrent::read(&file).unwrap().info_hash.0;
        let announce = |user: &User| Announce::new(&user.passkey, bytes, 1).refusal(&goat);
        assert_eq!(announce(&caro), "Unverified torrent");
        // The member who sent it sees it; others do not.
        let (one, copy) = (format!("/api/files/{id}"), format!("/api/files/{id}/torrent"));
        for path in [&one, &copy] {
            assert_eq!(get(&goat, &berta, path).status, 200, "{path}");
            assert_eq!(get(&goat, &admin, path).status, 200, "{path}");
            refused(&get(&goat, &caro, path), 404);
        }
        let pending = get(&goat, &admin, "/api/files?pending=true").json();
        assert_eq!(
            (&pending[0]["id"], &pending[0]["name"], &pending[0]["size"]),
            (&json!(id), &json!("Ä song"), &json!(20))
        );
        // What is there is no error, whoever sends it.
        for user in [&berta, &caro] {
            assert_eq!(sent(&goat, user, &file)["new"], false);
        }
        // An administrator who sends it approves it.
        let again = sent(&goat, &admin, &file);
        assert_eq!((&again["id"], &again["verified"], &again["new"]), (&json!(id), &json!(true), &json!(false)));
        wait_until("the approval", || announce(&caro).is_empty());
        assert_eq!(get(&goat, &caro, &copy).status, 200);
        let new = sent(&goat, &admin, &torrent("another", 20));
        assert_eq!((&new["verified"], &new["new"]), (&json!(true), &json!(true)));
        // A hash that was known alone gets its name.
        let late = torrent("late", 40);
        goat.add_torrent(goat::torrent::read(&late).unwrap().info_hash.to_string());
        let named = sent(&goat, &berta, &late);
        assert_eq!((&named["verified"], &named["new"]), (&json!(true), &json!(false)));
        assert_eq!(goat.json(&["file", "show", "late"])["size"], 40);
        // What an operator has refused stays refused.
        goat.cli(&["file", "revoke", "late"]);
        refused(&post(&goat, &caro, "/api/files", &late), 403);
    }
}

#[test]
fn a_hybrid_that_a_member_sends_is_one_torrent_whichever_of_its_hashes_were_announced_before() {
    let sample = fs::read(format!("{SAMPLES}/libtorrent-hybrid.torrent")).unwrap();
    let file = goat::torrent::private_copy(&sample).unwrap();
    let torrent = goat::torrent::read(&file).unwrap();
    let (first, second) = (torrent.info_hash, torrent.info_hash_v2.unwrap());
    for database in Database::each("hybrids that are sent") {
        let (goat, _, berta, _) = start(&database);
        let announce = |hash: &InfoHash| Announce::new(&berta.passkey, hash.0, 1).refusal(&goat);
        let pending = || goat.json(&["file", "list", "--pending"]).as_array().unwrap().len();
        for (announced, approved) in [(vec![first, second], false), (vec![second], false), (vec![first, second], true)]
        {
            for hash in &announced {
                wait_until("no torrent", || announce(hash) == "Unregistered torrent");
            }
            wait_until("the hashes to be suggested", || pending() == announced.len());
            if approved {
                goat.cli(&["file", "approve", &second.to_string()]);
            }
            sent(&goat, &berta, &file);
            assert_eq!(goat.json(&["file", "list"]).as_array().unwrap().len(), 1);
            assert_eq!(pending(), usize::from(!approved), "what was approved by one hash is");
            goat.cli(&["file", "approve", "--all"]);
            for hash in [first, second] {
                wait_until("the torrent", || announce(&hash).is_empty());
            }
            wait_until("the session", || goat.json(&["stats"])["leechers"] == 1);
            assert!(goat.cli(&["file", "remove", &torrent.name]).0.success());
        }
    }
}

#[test]
fn a_torrent_without_the_private_flag_gets_it_and_the_member_is_told_to_fetch_it() {
    let database = Database::sqlite();
    let (goat, admin, ..) = start(&database);
    let sample = String::from_utf8(torrent("open", 20)).unwrap().replace("7:privatei1e", "").into_bytes();
    let private = goat::torrent::private_copy(&sample).unwrap();
    let before = goat::torrent::read(&sample).unwrap();
    let after = goat::torrent::read(&private).unwrap();
    if before.private {
        panic!("this sample is to have no private flag");
    }
    let said = sent(&goat, &admin, &sample);
    assert_eq!(
        (&said["changed"], said["infoHash"].as_str()),
        (&json!(true), Some(after.info_hash.to_string().as_str()))
    );
    let copy = get(&goat, &admin, &format!("/api/files/{}/torrent", said["id"])).body;
    assert_eq!(goat::torrent::read(&copy).unwrap().info, after.info);
    assert_eq!(sent(&goat, &admin, &copy)["changed"], false);
}

#[test]
fn twenty_torrents_of_one_member_wait_at_a_time_and_others_do_not_notice() {
    let database = Database::sqlite();
    let (goat, _, berta, caro) = start(&database);
    for n in 0..20 {
        sent(&goat, &berta, &torrent(&format!("offer {n}"), 20));
    }
    let said = refused(&post(&goat, &berta, "/api/files", &torrent("one more", 20)), 429);
    assert!(said.contains("20 of your torrents"), "{said}");
    sent(&goat, &caro, &torrent("one more", 20));
    goat.cli(&["file", "approve", "offer 7"]);
    sent(&goat, &berta, &torrent("the next", 20));
    // Nor do more where they come at once.
    let dora = goat.add_user("dora");
    let waiting = thread::scope(|scope| {
        let send = |n| post(&goat, &dora, "/api/files", &torrent(&format!("at once {n}"), 20)).status;
        let senders: Vec<_> = (0..30).map(|n| scope.spawn(move || send(n))).collect();
        senders.into_iter().map(|sender| sender.join().unwrap()).filter(|status| *status == 200).count()
    });
    assert_eq!(waiting, 20);
}

#[test]
fn where_no_operator_is_asked_what_one_has_refused_is_seen_by_who_sent_it_alone() {
    for database in Database::each("refused without approval") {
        let goat = Goat::start(&database, json!({ "API": true, "Verified": false }));
        let admin = add_admin(&goat, "ana");
        let (berta, caro) = (goat.add_user("berta"), goat.add_user("caro"));
        let id = sent(&goat, &berta, &torrent("refused", 20))["id"].clone();
        sent(&goat, &berta, &torrent("good", 20));
        // Since the time when operators were asked.
        let hash = "ab".repeat(20);
        database.sql(&format!("INSERT INTO files (info_hash, name, suggested) VALUES ('{hash}', 'waiting', 1)"));
        let path = format!("/api/files/{id}");
        assert_eq!(post(&goat, &admin, &format!("{path}/revoke?reason=why"), b"").status, 200);
        assert_eq!(found(&goat, &caro, ""), ["good", "waiting"]);
        assert_eq!(found(&goat, &admin, ""), ["refused", "good", "waiting"]);
        assert_eq!(found(&goat, &berta, "mine=true"), ["refused", "good"]);
        for path in [&path, &format!("{path}/torrent")] {
            refused(&get(&goat, &caro, path), 404);
            assert_eq!(get(&goat, &berta, path).status, 200, "{path}");
        }
        assert_eq!(get(&goat, &berta, &path).json()["refusal"], "why");
    }
}

#[test]
fn what_is_no_torrent_of_8_mib_from_a_member_is_refused_before_anything_is_stored() {
    let database = Database::sqlite();
    let (goat, _, berta, _) = start(&database);
    let good = torrent("good", 20);
    let bad = |body: &[u8]| refused(&post(&goat, &berta, "/api/files", body), 400);
    assert!(bad(b"").contains("as the body"));
    assert!(bad(b"<html>").contains("not a torrent"));
    assert!(bad(&good[..good.len() - 1]).contains("not a torrent"));
    assert!(bad(&[&good[..], b"x"].concat()).contains("not a torrent"));
    // Many values in few bytes, which would take a hundred times their memory.
    let many = [&b"d4:infol"[..], &b"le".repeat(1 << 20), b"ee"].concat();
    assert!(bad(&many).contains("more values"));
    let deep = [&b"d4:info"[..], &b"l".repeat(1 << 20), &b"e".repeat(1 << 20), b"e"].concat();
    assert!(bad(&deep).contains("nesting"));
    let large = vec![b'x'; (8 << 20) + 1];
    let answer = post(&goat, &berta, "/api/files", &large);
    assert!(answer.status == 413 && answer.text().contains("8 MiB"), "{}", answer.text());
    // Strangers, other sites and other calls are refused though they send no body.
    let head = |path: &str, headers: &str, length: usize| {
        let mut stream = TcpStream::connect(goat.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        read(&mut stream).status
    };
    assert_eq!(head("/api/files", "", 8 << 20), 401);
    let wrong = format!("Authorization: {}\r\n", basic("berta", "wrong"));
    assert_eq!(head("/api/files", &wrong, 8 << 20), 401);
    let foreign = format!("{}Origin: http://elsewhere\r\n", sign(&berta));
    assert_eq!(head("/api/files", &foreign, 8 << 20), 403);
    goat.cli(&["user", "ban", "berta"]);
    assert_eq!(head("/api/files", &sign(&berta), 8 << 20), 403);
    goat.cli(&["user", "unban", "berta"]);
    assert_eq!(head("/api/me", &sign(&berta), (64 << 10) + 1), 413);
    assert_eq!(post(&goat, &berta, "/api/me", b"{}").status, 405);
    assert_eq!(database.number("SELECT COUNT(*) FROM files"), 0);
}

#[test]
fn the_rest_of_a_body_that_is_not_read_is_no_request() {
    let database = Database::sqlite();
    let (goat, ..) = start(&database);
    let smuggled = "GET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3);
    let answer = ask(&goat, "POST", "/api/files", "", smuggled.as_bytes());
    assert_eq!(answer.status, 401);
    assert!(!answer.text()[20..].contains("HTTP/1.1 "), "{}", answer.text());
}

#[test]
fn curl_uploads_8_mib_with_and_without_tls() {
    let test = "curl uploads";
    if !installed("curl") || !installed("openssl") {
        return skip(test, "no curl or openssl");
    }
    let folder = crate::common::Folder::new();
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let port = crate::common::free_port();
    let ssl = json!({ "Port": port, "Certificate": certificate, "Key": key });
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "API": true, "HTTPS": true, "SSL": ssl }));
    let admin = add_admin(&goat, "ana");
    let body = torrent("large", (8 << 20) - 200);
    let file = goat.folder.join("large.torrent");
    fs::write(&file, &body).unwrap();
    for address in [format!("http://{}", goat.address()), format!("https://127.0.0.1:{port}")] {
        let output = Command::new("curl")
            .args(["-sk", "-u", &format!("{}:{}", admin.name, admin.api_key), "--data-binary"])
            .arg(format!("@{}", file.display()))
            .arg(format!("{address}/api/files"))
            .output()
            .unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        assert_eq!((&said["name"], &said["verified"]), (&json!("large"), &json!(true)), "{address}");
    }
    let copy = get(&goat, &admin, "/api/files/1/torrent").body;
    assert_eq!(info(&copy), info(&body));
}

#[test]
fn twenty_members_who_send_8_mib_at_a_time_take_bounded_memory_and_nobody_waits_for_them() {
    let database = Database::sqlite();
    let (mut goat, _, berta, _) = start(&database);
    goat.add_torrent("aa".repeat(20));
    let members: Vec<User> = (0..20).map(|n| goat.add_user(&format!("member {n}"))).collect();
    let bodies: Vec<Vec<u8>> = (0..20).map(|n| torrent(&format!("large {n}"), (8 << 20) - 200)).collect();
    let mut stored = 0;
    thread::scope(|scope| {
        // They begin, and go on when all have.
        let halves: Vec<_> = members.iter().zip(&bodies).enumerate().map(|(n, (user, body))| {
            let mut stream = TcpStream::connect(goat.address()).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let head = format!(
                "POST /api/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nX-Forwarded-For: 192.0.2.{n}\r\n{}\r\n",
                body.len(),
                sign(user)
            );
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body[..1_000]).unwrap();
            stream
        }).collect();
        Announce::new(&berta.passkey, [0xaa; 20], 1).accepted(&goat);
        let answers: Vec<_> = halves
            .into_iter()
            .zip(&bodies)
            .map(|(mut stream, body)| {
                scope.spawn(move || {
                    let _ = stream.write_all(&body[1_000..]);
                    read(&mut stream)
                })
            })
            .collect();
        Announce::new(&berta.passkey, [0xaa; 20], 1).accepted(&goat);
        for answer in answers {
            let answer = answer.join().unwrap();
            match answer.status {
                200 => stored += 1,
                status => assert_eq!(status, 503, "{}", answer.text()),
            }
        }
    });
    assert!(stored >= 8, "{stored}");
    let status = fs::read_to_string(format!("/proc/{}/status", goat.process().id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    crate::say!("twenty uploads of 8 MiB: {stored} stored, peak {} MiB", peak / 1024);
    assert!(peak < 320 * 1024, "{peak} KiB");
    for (user, body) in members.iter().zip(&bodies) {
        sent(&goat, user, body);
    }
}

/// The names that a search finds, in its order.
pub fn found(goat: &Goat, user: &User, query: &str) -> Vec<String> {
    let answer = get(goat, user, &format!("/api/files?{query}"));
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    let names = answer.json();
    let names = names.as_array().unwrap().iter();
    names.map(|file| file["name"].as_str().unwrap().to_string()).collect()
}

/// A private torrent of two files in a folder.
fn folder(name: &str, files: [&str; 2]) -> Vec<u8> {
    let file = |name: &str, size| format!("d6:lengthi{size}e4:pathl3:sub{}:{name}ee", name.len());
    let list = file(files[0], 1) + &file(files[1], 2);
    format!(
        "d4:infod5:filesl{list}e4:name{}:{name}12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaa7:privatei1eee",
        name.len()
    )
    .into_bytes()
}

#[test]
fn torrents_are_found_by_words_in_their_names_and_file_names() {
    for database in Database::each("search") {
        let (goat, admin, berta, _) = start(&database);
        sent(&goat, &admin, &folder("Ubuntu.24.04-Desktop", ["Größe.iso", "README.txt"]));
        sent(&goat, &admin, &folder("debian 12", ["netinst.iso", "O'Hara%_.txt"]));
        let waiting = sent(&goat, &berta, &folder("ubuntu waiting", ["a.iso", "b"]));
        let both = ["Ubuntu.24.04-Desktop", "debian 12"];
        for (q, names) in [
            ("ubuntu", &both[..1]),
            ("desktop+24+UBUNTU", &both[..1]),
            ("deskt", &both[..1]),
            ("iso", &both[..]),
            ("iso+debian", &both[1..]),
            ("gr%C3%B6%C3%9Fe", &both[..1]),
            ("o%27hara", &both[1..]),
            ("sub", &both[..]),
            ("ISO,%20README", &both[..1]),
            ("de", &[]), // too short to stand for more than itself
            ("%25", &both[..]),
            ("iso+windows", &[]),
            ("%27%20OR%201=1--", &[]),
        ] {
            assert_eq!(found(&goat, &berta, &format!("q={q}")), names, "{q}");
        }
        assert_eq!(found(&goat, &admin, "q=ubuntu&sort=-id"), ["ubuntu waiting", both[0]]);
        assert_eq!(found(&goat, &berta, "mine=true"), ["ubuntu waiting"], "what waits is theirs");
        goat.cli(&["file", "remove", waiting["infoHash"].as_str().unwrap()]);
        // Who renames, and by what, makes no difference.
        goat.cli(&["file", "rename", "debian 12", "Bookworm"]);
        assert_eq!(found(&goat, &berta, "q=debian"), [""; 0]);
        assert_eq!(found(&goat, &berta, "q=bookworm+netinst"), ["Bookworm"]);
        database.sql("UPDATE files SET name = 'by hand' WHERE name = 'Bookworm'");
        database.sql(&format!(
            "INSERT INTO files (info_hash, name, verified) VALUES ('{}', 'handmade', 1)",
            "ab".repeat(20)
        ));
        assert_eq!(found(&goat, &berta, "q=hand&sort=-name"), ["handmade", "by hand"]);
        database.sql("DELETE FROM files WHERE name = 'by hand'");
        assert_eq!(found(&goat, &berta, "q=netinst"), [""; 0]);
        // A list goes on where it was cut, with the same words, encoded or not.
        let cut = get(&goat, &berta, "/api/files?q=hand+&limit=0");
        assert_eq!(cut.json(), json!([]));
        for n in 0..5 {
            sent(&goat, &admin, &torrent(&format!("Série {n}"), 20));
        }
        let first = get(&goat, &berta, "/api/files?q=série&sort=-name&limit=2");
        let next =
            first.head.lines().find_map(|line| line.strip_prefix("Link: <?")).unwrap().split('>').next().unwrap();
        assert_eq!(found(&goat, &berta, next), ["Série 2", "Série 1"], "{next}");
    }
}

#[test]
fn a_torrent_is_shown_with_what_a_member_wants_to_know_of_it() {
    for database in Database::each("fields of torrents") {
        let (goat, admin, berta, caro) = start(&database);
        let file = folder("album", ["1.flac", "2.flac"]);
        let id = sent(&goat, &berta, &file)["id"].clone();
        sent(&goat, &admin, &torrent("other", 20));
        goat.cli(&["file", "approve", "album"]);
        goat.cli(&["file", "free", "album"]);
        let bytes = goat::torrent::read(&file).unwrap().info_hash.0;
        wait_until("the approval", || Announce::new(&caro.passkey, bytes, 1).refusal(&goat).is_empty());
        let shown = |user: &User| get(&goat, user, &format!("/api/files/{id}")).json();
        let wanted = [
            ("name", json!("album")),
            ("size", json!(3)),
            ("fileCount", json!(2)),
            ("uploader", json!("berta")),
            ("downloadPercent", json!(0)),
            ("uploadPercent", json!(100)),
            ("leechers", json!(1)),
            ("seeders", json!(0)),
            ("completed", json!(0)),
            ("files", json!([{ "path": "sub/1.flac", "size": 1 }, { "path": "sub/2.flac", "size": 2 }])),
        ];
        for (key, value) in &wanted {
            assert_eq!(&shown(&admin)[key], value, "{key}");
        }
        let listed = get(&goat, &berta, "/api/files?q=album").json();
        for (key, value) in wanted.iter().filter(|(key, _)| *key != "files") {
            assert_eq!(&listed[0][key], value, "{key}");
        }
        assert!(listed[0].get("files").is_none());
        assert_eq!(found(&goat, &caro, "free=true"), ["album"]);
        // Theirs is what they sent, and what they announced, which is written within seconds.
        assert_eq!(found(&goat, &admin, "mine=true"), ["other"]);
        wait_until("the announce", || found(&goat, &caro, "mine=true") == ["album"]);
        assert_eq!(
            (&shown(&berta)["mine"], &shown(&caro)["mine"], &shown(&admin)["mine"]),
            (&json!(true), &json!(true), &json!(false))
        );
    }
}
