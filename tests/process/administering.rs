//! What administrators do through the API, by whom it can be done, and what is written down of it. Every rule holds on
//! SQLite and on MariaDB.

use crate::common::{Announce, Database, Goat, User, hex, info_hash, wait_until};
use crate::library::{ask, found, get, post, refused, sent, sign, start, torrent};
use serde_json::{Value, json};

/// Does something as an administrator.
fn done(goat: &Goat, admin: &User, path: &str) -> Value {
    let answer = post(goat, admin, path, b"");
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// What is written down, the newest first: who, what, on whom and how.
fn log(goat: &Goat, admin: &User) -> Vec<[String; 4]> {
    let rows = get(goat, admin, "/api/log").json();
    let text = |row: &Value, key: &str| row[key].as_str().unwrap().to_string();
    let rows = rows.as_array().unwrap().iter();
    rows.map(|row| ["who", "what", "whom", "detail"].map(|key| text(row, key))).collect()
}

#[test]
fn each_deed_is_for_administrators_of_this_site_and_by_post_alone() {
    let database = Database::sqlite();
    let (goat, admin, berta, caro) = start(&database);
    let id = sent(&goat, &admin, &torrent("one", 20))["id"].clone();
    let user = format!("/api/users/{}", caro.id);
    let file = format!("/api/files/{id}");
    let deeds: Vec<String> =
        ["ban", "unban", "limit?torrents=1", "credit?uploaded=9", "admin?on=true", "rename?name=x"]
            .iter()
            .chain(&["passkey", "key", "invitations?count=1", "remove"])
            .map(|verb| format!("{user}/{verb}"))
            .chain(["approve", "revoke", "free", "rename?name=x", "remove"].map(|verb| format!("{file}/{verb}")))
            .chain(["approve", "deny", "remove"].map(|verb| format!("/api/clients/{verb}?client=-TR")))
            .chain(["/api/users?name=new".to_string()])
            .chain(["/api/free?until=4000000000".to_string()])
            .collect();
    let dump = || {
        database
            .sql("SELECT id, username, passkey, admin, banned, torrent_limit, uploaded, invitations FROM users")
            .concat()
            .join("|")
            + &database.sql("SELECT id, name, verified, download_percent FROM files").concat().join("|")
            + &database.sql("SELECT client, approved FROM whitelist ORDER BY client").concat().join("|")
            + &database.sql("SELECT value FROM goat WHERE name = 'free'").concat().join("|")
    };
    let before = dump();
    goat.cli(&["user", "add", "gone"]);
    for path in &deeds {
        refused(&post(&goat, &berta, path, b""), 403);
        refused(&ask(&goat, "POST", path, "", b""), 401);
        let elsewhere = format!("{}Origin: http://elsewhere\r\n", sign(&admin));
        refused(&ask(&goat, "POST", path, &elsewhere, b""), 403);
        let elsewhere = format!("{}Sec-Fetch-Site: cross-site\r\n", sign(&admin));
        refused(&ask(&goat, "POST", path, &elsewhere, b""), 403);
        if !path.starts_with("/api/users?") {
            let got = get(&goat, &admin, path);
            assert!(got.status == 405 && got.head.contains("Allow: POST"), "{path}: {}", got.text());
        }
    }
    refused(&get(&goat, &berta, "/api/log"), 403);
    goat.cli(&["user", "remove", "gone"]);
    assert_eq!(dump(), before);
    // An administrator who is banned, or is one no longer, does nothing either.
    let second = done(&goat, &admin, "/api/users?name=zoe&admin=true");
    let zoe = User {
        id: second["id"].as_i64().unwrap(),
        name: "zoe".into(),
        passkey: second["passkey"].as_str().unwrap().into(),
        api_key: second["apiKey"].as_str().unwrap().into(),
    };
    goat.cli(&["user", "ban", "zoe", "--reason", "left the team"]);
    let said = refused(&post(&goat, &zoe, &deeds[0], b""), 403);
    assert_eq!(said, "This user is banned: left the team");
    goat.cli(&["user", "unban", "zoe"]);
    done(&goat, &admin, &format!("/api/users/{}/admin?on=false", zoe.id));
    refused(&post(&goat, &zoe, &deeds[0], b""), 403);
}

#[test]
fn members_are_administered_and_each_deed_is_written_down() {
    for database in Database::each("administering members") {
        let (goat, admin, berta, _) = start(&database);
        goat.add_torrent("aa".repeat(20));
        let announce = |passkey: &str| Announce::new(passkey, [0xaa; 20], 1).refusal(&goat);
        assert_eq!(announce(&berta.passkey), "");
        let user = format!("/api/users/{}", berta.id);
        let banned = done(&goat, &admin, &format!("{user}/ban?reason=sold%20invites+%26%20more"));
        assert_eq!((&banned["banned"], &banned["banReason"]), (&json!(true), &json!("sold invites & more")));
        // A second ban keeps the reason of the first, and the member is told it where they sign in and in their client.
        done(&goat, &admin, &format!("{user}/ban"));
        let said = refused(&get(&goat, &berta, "/api/me"), 403);
        assert_eq!(said, "This user is banned: sold invites & more");
        wait_until("the ban", || announce(&berta.passkey) == "Invalid passkey: sold invites & more");
        database.sql("UPDATE users SET ban_reason = 'other words' WHERE banned = 1");
        wait_until("the other reason", || announce(&berta.passkey) == "Invalid passkey: other words");
        assert_eq!(done(&goat, &admin, &format!("{user}/unban"))["banned"], false);
        wait_until("the end of the ban", || announce(&berta.passkey).is_empty());
        assert_eq!(done(&goat, &admin, &format!("{user}/limit?torrents=7"))["torrentLimit"], 7);
        let credited = done(&goat, &admin, &format!("{user}/credit?uploaded=5000&downloaded=10"));
        assert_eq!((&credited["uploaded"], &credited["downloaded"]), (&json!(5000), &json!(10)));
        assert_eq!(done(&goat, &admin, &format!("{user}/credit?uploaded=-4000"))["uploaded"], 1000);
        assert_eq!(done(&goat, &admin, &format!("{user}/rename?name=Bertha"))["name"], "Bertha");
        let passkey = done(&goat, &admin, &format!("{user}/passkey"))["passkey"].as_str().unwrap().to_string();
        wait_until("the new passkey", || {
            announce(&passkey).is_empty() && announce(&berta.passkey) == "Invalid passkey"
        });
        let key = done(&goat, &admin, &format!("{user}/key"))["apiKey"].as_str().unwrap().to_string();
        let bertha = User { name: "Bertha".into(), api_key: key, ..berta.clone() };
        assert_eq!(get(&goat, &bertha, "/api/me").status, 200);
        assert_eq!(get(&goat, &User { name: "Bertha".into(), ..berta.clone() }, "/api/me").status, 401);
        assert_eq!(done(&goat, &admin, &format!("{user}/admin?on=true"))["admin"], true);
        assert_eq!(
            refused(&post(&goat, &admin, &format!("{user}/admin?on=yes"), b""), 400),
            "Invalid on: true or false"
        );
        // The last administrator stays one, and what is wrong is said.
        done(&goat, &admin, &format!("{user}/admin?on=false"));
        let own = format!("/api/users/{}", admin.id);
        for deed in ["admin?on=false", "ban", "remove"] {
            assert!(refused(&post(&goat, &admin, &format!("{own}/{deed}"), b""), 409).contains("last administrator"));
        }
        assert!(refused(&post(&goat, &admin, "/api/users?name=CARO", b""), 409).contains("already"));
        refused(&post(&goat, &admin, "/api/users?name=a%3Ab", b""), 409);
        refused(&post(&goat, &admin, "/api/users", b""), 400);
        refused(&post(&goat, &admin, &format!("{user}/limit?torrents=many"), b""), 400);
        refused(&post(&goat, &admin, &format!("{user}/ban?reason=a%0Ab"), b""), 400);
        refused(&post(&goat, &admin, "/api/users/999/ban", b""), 404);
        refused(&post(&goat, &admin, &format!("{user}/praise"), b""), 405);
        done(&goat, &admin, &format!("{user}/remove"));
        assert_eq!(get(&goat, &bertha, "/api/me").status, 401);
        goat.cli(&["user", "limit", "caro", "3"]);
        let written = log(&goat, &admin);
        let row = |who: &str, what: &str, whom: &str, detail: &str| [who, what, whom, detail].map(String::from);
        assert_eq!(written[0], row("", "user limit", "caro", "N 3"));
        assert_eq!(written[1], row("ana", "user remove", "Bertha", ""));
        let first = written.iter().position(|row| row[0] == "ana").unwrap();
        let all: Vec<&str> = written[first..].iter().filter(|row| row[0] == "ana").map(|row| row[1].as_str()).collect();
        assert_eq!(
            all,
            [
                "user remove",
                "user admin",
                "user admin",
                "user key",
                "user passkey",
                "user rename",
                "user credit",
                "user credit",
                "user limit",
                "user unban",
                "user ban",
                "user ban"
            ],
            "what was refused is not there"
        );
        assert!(written.contains(&row("ana", "user ban", "berta", "sold invites & more")));
        assert!(written.contains(&row("ana", "user credit", "berta", "uploaded -4000 downloaded 0")));
        // No secret is written down, and the command shows the same.
        let table = database.sql("SELECT who, what, whom, detail FROM actions").concat().join("|");
        assert!(
            ![&passkey, &berta.passkey, &berta.api_key, &bertha.api_key].iter().any(|secret| table.contains(*secret))
        );
        let command = goat.json(&["log"]);
        let command: Vec<&Value> = command.as_array().unwrap().iter().rev().map(|row| &row["what"]).collect();
        assert_eq!(command, written.iter().map(|row| &row[1]).collect::<Vec<_>>());
    }
}

#[test]
fn torrents_and_clients_are_administered_and_each_deed_is_written_down() {
    for database in Database::each("administering torrents") {
        let (goat, admin, berta, caro) = start(&database);
        let file = torrent("song", 20);
        let bytes = goat::torrent::read(&file).unwrap().info_hash.0;
        let announce = || Announce::new(&caro.passkey, bytes, 1).refusal(&goat);
        let id = sent(&goat, &berta, &file)["id"].clone();
        let path = format!("/api/files/{id}");
        assert_eq!(done(&goat, &admin, &format!("{path}/approve"))["verified"], true);
        wait_until("the approval", || announce().is_empty());
        let free = done(&goat, &admin, &format!("{path}/free"));
        assert_eq!((&free["downloadPercent"], &free["uploadPercent"]), (&json!(0), &json!(100)));
        assert_eq!(found(&goat, &caro, "free=true"), ["song"]);
        assert_eq!(done(&goat, &admin, &format!("{path}/free?download=50&upload=200"))["uploadPercent"], 200);
        refused(&post(&goat, &admin, &format!("{path}/free?download=1001"), b""), 400);
        assert_eq!(done(&goat, &admin, &format!("{path}/rename?name=Best%20song"))["name"], "Best song");
        refused(&post(&goat, &admin, &format!("{path}/rename?name=a%0Ab"), b""), 409);
        let revoked = done(&goat, &admin, &format!("{path}/revoke?reason=wrong+tags"));
        assert_eq!((&revoked["verified"], &revoked["refusal"]), (&json!(false), &json!("wrong tags")));
        wait_until("the revocation", || announce() == "Unverified torrent");
        // Who sent it is told why, others nothing.
        assert_eq!(get(&goat, &berta, &path).json()["refusal"], "wrong tags");
        refused(&get(&goat, &caro, &path), 404);
        let said = refused(&post(&goat, &berta, "/api/files", &file), 403);
        assert_eq!(said, "An administrator has refused this torrent: wrong tags");
        assert_eq!(done(&goat, &admin, &format!("{path}/approve")).get("refusal"), None);
        done(&goat, &admin, &format!("{path}/remove"));
        refused(&post(&goat, &admin, &format!("{path}/approve"), b""), 404);
        done(&goat, &admin, "/api/clients/approve?client=Mine%2F1");
        done(&goat, &admin, "/api/clients/deny?client=Mine%2F1");
        done(&goat, &admin, "/api/clients/remove?client=Mine%2F1");
        refused(&post(&goat, &admin, "/api/clients/remove?client=Mine%2F1", b""), 404);
        refused(&post(&goat, &admin, "/api/clients/approve", b""), 400);
        goat.add_torrent("bb".repeat(20));
        goat.cli(&["file", "revoke", &"bb".repeat(20), "--reason", "a mistake"]);
        assert_eq!(goat.json(&["file", "show", &"bb".repeat(20)])["refusal"], "a mistake");
        let written = log(&goat, &admin);
        let row = |who: &str, what: &str, whom: &str, detail: &str| [who, what, whom, detail].map(String::from);
        assert_eq!(written[0], row("", "file revoke", &"bb".repeat(20), "reason a mistake"));
        assert_eq!(written[2], row("ana", "client remove", "Mine/1", ""));
        assert_eq!(written[5], row("ana", "file remove", "Best song", ""));
        assert_eq!(written[7], row("ana", "file revoke", "Best song", "wrong tags"));
        assert_eq!(written[8], row("ana", "file rename", "song", "Best song"));
        assert_eq!(written[9], row("ana", "file free", "song", "download 50 upload 200"));
        // Who sends the file of one that was refused approves it.
        let file = torrent("tune", 20);
        let path = format!("/api/files/{}", sent(&goat, &berta, &file)["id"]);
        done(&goat, &admin, &format!("{path}/revoke?reason=wrong+tags"));
        sent(&goat, &admin, &file);
        assert_eq!(log(&goat, &admin)[0], row("ana", "file add", "tune", ""));
        let shown = get(&goat, &berta, &path).json();
        assert_eq!((&shown["verified"], shown.get("refusal")), (&json!(true), None));
        assert_eq!(database.number("SELECT suggested FROM files WHERE name = 'tune'"), 0);
    }
}

#[test]
fn members_are_found_by_a_part_of_their_name_and_named_where_a_torrent_lists_them() {
    for database in Database::each("members by a part of their name") {
        let (goat, admin, berta, _) = start(&database);
        goat.add_user("al_bert%");
        let found = |q: &str| {
            let rows = get(&goat, &admin, &format!("/api/users?q={q}&sort=name")).json();
            let rows = rows.as_array().unwrap().iter();
            rows.map(|row| row["name"].as_str().unwrap().to_string()).collect::<Vec<String>>()
        };
        assert_eq!(found("BERT"), ["al_bert%", "berta"]);
        assert_eq!(found("rta"), ["berta"]);
        assert_eq!(found("%25"), ["al_bert%"], "no pattern");
        assert_eq!(found("_"), ["al_bert%"], "no pattern");
        assert_eq!(found("nobody"), [""; 0]);
        assert_eq!(found("").len(), 4);
        let next = get(&goat, &admin, "/api/users?q=bert&limit=1");
        assert!(next.head.contains("<?q=bert&limit=1&after="), "{}", next.head);
        assert_eq!(refused(&get(&goat, &berta, "/api/users?q=b"), 403), "This is for administrators");

        let hash = info_hash(1);
        let id = goat.add_torrent(hex(&hash));
        Announce::new(&berta.passkey, hash, 1).accepted(&goat);
        wait_until("the books", || {
            let file = get(&goat, &admin, &format!("/api/files/{id}")).json();
            file["fileUsers"][0]["userName"] == "berta"
        });
    }
}

#[test]
fn two_administrators_at_once_leave_one_of_them() {
    let database = Database::sqlite();
    let (goat, ana, berta, _) = start(&database);
    done(&goat, &ana, &format!("/api/users/{}/admin?on=true", berta.id));
    for _ in 0..10 {
        let answers = std::thread::scope(|scope| {
            let demote = |who: &User, whom: &User| {
                post(&goat, who, &format!("/api/users/{}/admin?on=false", whom.id), b"").status
            };
            let (ana, berta) = (&ana, &berta);
            let other = scope.spawn(move || demote(berta, ana));
            [demote(ana, berta), other.join().unwrap()]
        });
        assert!(answers.contains(&200), "{answers:?}");
        assert_eq!(database.number("SELECT COUNT(*) FROM users WHERE admin = 1"), 1, "{answers:?}");
        database.sql("UPDATE users SET admin = 1 WHERE username IN ('ana', 'berta')");
    }
}

#[test]
fn all_torrents_are_free_until_a_time_and_credited_by_their_own_percentages_after_it() {
    for database in Database::each("freeleech for all") {
        let (goat, admin, berta, caro) = start(&database);
        let file = torrent("song", 20);
        let bytes = goat::torrent::read(&file).unwrap().info_hash.0;
        let id = sent(&goat, &admin, &file)["id"].clone();
        let status = || get(&goat, &berta, "/api/status").json()["free"].clone();
        assert_eq!((status(), found(&goat, &berta, "free=true").len()), (Value::Null, 0));
        for wrong in ["", "?until=soon", "?until=4294967296", "?until=1&download=1001", "?until=1&upload=-1"] {
            refused(&post(&goat, &admin, &format!("/api/free{wrong}"), b""), 400);
        }
        let mut announce = Announce::new(&caro.passkey, bytes, 1);
        announce.accepted(&goat);
        let until = 4_000_000_000_u32;
        let free = done(&goat, &admin, &format!("/api/free?download=0&upload=200&until={until}"));
        let now = json!({ "uploadPercent": 200, "downloadPercent": 0, "until": until });
        assert_eq!((&free["free"], &status()), (&now, &now));
        let credited = |uploaded: u64, downloaded: u64| {
            wait_until(&format!("{uploaded} and {downloaded}"), || {
                let me = get(&goat, &caro, "/api/me").json();
                (&me["uploaded"], &me["downloaded"]) == (&json!(uploaded), &json!(downloaded))
            });
        };
        (announce.event, announce.uploaded, announce.downloaded) = ("completed", 50, 1000);
        announce.accepted(&goat);
        credited(100, 0);
        // It is to be seen wherever torrents are.
        assert_eq!(found(&goat, &berta, "free=true"), ["song"]);
        let shown = get(&goat, &berta, &format!("/api/files/{id}")).json();
        assert_eq!((&shown["uploadPercent"], &shown["downloadPercent"]), (&json!(200), &json!(0)));
        assert_eq!(goat.json(&["file", "list"])[0]["downloadPercent"], 0);
        let feed = ask(&goat, "GET", &format!("/{}/rss?free=true", berta.passkey), "", b"").text();
        assert!(feed.contains("name=\"downloadvolumefactor\" value=\"0\""), "{feed}");
        done(&goat, &admin, "/api/free?until=0");
        assert_eq!((status(), found(&goat, &berta, "free=true").len()), (Value::Null, 0));
        (announce.event, announce.uploaded, announce.downloaded) = ("stopped", 60, 1500);
        announce.accepted(&goat);
        credited(110, 500);
        // By command it is for hours; a tracker that runs follows, and one that starts knows.
        let shown = goat.json(&["file", "free", "--all", "2", "--download", "50"]);
        assert_eq!((&shown["uploadPercent"], &shown["downloadPercent"]), (&json!(100), &json!(50)));
        wait_until("the command", || status() == shown);
        assert_eq!(found(&goat, &berta, "free=true").len(), 0, "half of it is not free");
        let mut goat = goat;
        goat.restart();
        assert_eq!(get(&goat, &berta, "/api/status").json()["free"], shown);
        goat.json(&["file", "free", "--all", "0"]);
        wait_until("the end", || get(&goat, &berta, "/api/status").json()["free"].is_null());
        let written = log(&goat, &admin);
        let row = |who: &str, detail: &str| [who, "file free", "all torrents", detail].map(String::from);
        assert_eq!(written[0], row("", "all 0"));
        assert_eq!(written[3], row("ana", &format!("download 0 upload 200 until {until}")));
        let (status, ..) = goat.cli(&["file", "free", "song", "--all", "2"]);
        assert_eq!(status.code(), Some(2));
    }
}
