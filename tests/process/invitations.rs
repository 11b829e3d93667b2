//! Invitations: who may give them, what they make of those who follow them, and that each works once. Every rule holds
//! on SQLite and on MariaDB.

use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::{Announce, Database, Goat, User, basic, wait_until};
use crate::library::{Answer, ask, get, post, refused, start};
use serde_json::{Value, json};

const GONE: &str = "This invitation is used up, has expired or never was";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn allow(goat: &Goat, admin: &User, whom: &User, count: u32) {
    let path = format!("/api/users/{}/invitations?count={count}", whom.id);
    let answer = post(goat, admin, &path, b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Invites somebody; returns the code.
fn invite(goat: &Goat, by: &User) -> String {
    let answer = post(goat, by, "/api/me/invite", b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["code"].as_str().unwrap().into()
}

fn look(goat: &Goat, code: &str) -> Answer {
    ask(goat, "GET", &format!("/api/invite/{code}"), "", b"")
}

fn join(goat: &Goat, code: &str, name: &str, password: &[u8]) -> Answer {
    ask(goat, "POST", &format!("/api/invite/{code}?name={name}"), "", password)
}

/// How many a member may give, and how many are open.
fn left(goat: &Goat, of: &User) -> (u64, usize) {
    let me = get(goat, of, "/api/me").json();
    (me["invitations"].as_u64().unwrap(), me["invites"].as_array().unwrap().len())
}

fn member(answer: &Answer) -> User {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let new = answer.json();
    let text = |key: &str| new[key].as_str().unwrap().to_string();
    assert!(new["announce"][0].as_str().unwrap().contains(&text("passkey")), "{new}");
    User { id: new["id"].as_i64().unwrap(), name: text("username"), passkey: text("passkey"), api_key: text("apiKey") }
}

#[test]
fn an_invitation_makes_one_member_of_whom_it_is_known_who_invited_them() {
    for database in Database::each("invitations") {
        let (goat, admin, berta, caro) = start(&database);
        goat.add_torrent("aa".repeat(20));
        assert_eq!(left(&goat, &berta), (0, 0));
        let said = refused(&post(&goat, &berta, "/api/me/invite", b""), 409);
        assert_eq!(said, "you have no invitation left to give");
        let path = format!("/api/users/{}/invitations?count=9", berta.id);
        refused(&post(&goat, &berta, &path, b""), 403);
        refused(&ask(&goat, "POST", &path, "", b""), 401);
        refused(&post(&goat, &admin, &path.replace('9', "many"), b""), 400);
        allow(&goat, &admin, &berta, 2);
        assert_eq!(left(&goat, &berta), (2, 0));
        // Given from an open page, not from another site nor by a stranger.
        let key = post(&goat, &berta, "/api/login", b"").json();
        let token = format!("Authorization: Bearer {}:{}\r\n", key["pubkey"], key["secret"]).replace('"', "");
        let elsewhere = format!("{token}Origin: http://elsewhere\r\n");
        refused(&ask(&goat, "POST", "/api/me/invite", &elsewhere, b""), 403);
        refused(&ask(&goat, "POST", "/api/me/invite", "", b""), 401);
        let given = ask(&goat, "POST", "/api/me/invite", &token, b"").json();
        let code = given["code"].as_str().unwrap();
        assert!(code.len() == 40 && code.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(given["link"], format!("http://127.0.0.1:{}/#join={code}", goat.port));
        let expire = given["expire"].as_u64().unwrap();
        assert!((now() + 7 * 86_400 - 60..=now() + 7 * 86_400).contains(&expire));
        assert_eq!(look(&goat, code).json(), json!({ "by": "berta", "name": "", "expire": expire }));
        assert_eq!(left(&goat, &berta), (1, 1));
        assert_eq!(get(&goat, &berta, "/api/me").json()["invites"][0]["expire"], expire);
        let rows = database.sql("SELECT * FROM invitations").concat().join("|");
        assert!(!rows.contains(code), "{rows}");
        // What is wrong with a name or a password leaves it as it was.
        for name in ["", "BERTA", "a%3Ab", "a%0Ab", "%20a", &berta.id.to_string(), &"x".repeat(65)] {
            refused(&join(&goat, code, name, b""), 409);
        }
        refused(&join(&goat, code, "dora", b"too short"), 400);
        assert_eq!(join(&goat, code, "dora", &[b'x'; 1025]).status, 413);
        let path = format!("/api/invite/{code}?name=dora");
        refused(&ask(&goat, "POST", &path, "Origin: http://elsewhere\r\n", b""), 403);
        refused(&ask(&goat, "POST", &path, "Sec-Fetch-Site: cross-site\r\n", b""), 403);
        assert_eq!(ask(&goat, "DELETE", &path, "", b"").status, 405);
        assert_eq!(left(&goat, &berta), (1, 1));
        let name = "<b>d'Or\"a; DROP TABLE users</b> \u{1f431}";
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let dora = member(&join(&goat, code, &encoded, "ein langes Paßwort".as_bytes()));
        assert_eq!(dora.name, name);
        assert_eq!(get(&goat, &dora, "/api/me").json()["name"], name);
        let by_password = format!("Authorization: {}\r\n", basic(name, "ein langes Paßwort"));
        assert_eq!(ask(&goat, "POST", "/api/login", &by_password, b"").status, 200);
        assert_eq!(Announce::new(&dora.passkey, [0xaa; 20], 1).refusal(&goat), "");
        // It is used up, and the one who gave it has one less.
        assert_eq!(refused(&look(&goat, code), 404), GONE);
        assert_eq!(refused(&join(&goat, code, "emma", b""), 404), GONE);
        assert_eq!(left(&goat, &berta), (1, 0));
        let path = format!("/api/users/{}", dora.id);
        assert_eq!(get(&goat, &admin, &path).json()["invitedBy"], berta.id);
        assert_eq!(get(&goat, &dora, "/api/me").json().get("invitedBy"), None);
        assert_eq!(goat.json(&["user", "show", name])["invitedBy"], berta.id);
        let log = get(&goat, &admin, "/api/log").json();
        let row = |number: usize| ["who", "what", "whom", "detail"].map(|key| log[number][key].clone());
        assert_eq!(row(0), ["berta", "invite", name, ""].map(Value::from));
        assert_eq!(row(1), ["ana", "user invitations", "berta", "2"].map(Value::from));
        // An expired one comes back.
        let code = invite(&goat, &berta);
        assert_eq!(left(&goat, &berta), (0, 1));
        refused(&post(&goat, &berta, "/api/me/invite", b""), 409);
        database.sql(&format!("UPDATE invitations SET expire = {}", now() - 60));
        assert_eq!(refused(&look(&goat, &code), 404), GONE);
        assert_eq!(refused(&join(&goat, &code, "emma", b""), 404), GONE);
        assert_eq!(left(&goat, &berta), (1, 0));
        // What is allowed counts beside what is open; a command allows it, too.
        invite(&goat, &berta);
        assert_eq!(database.number("SELECT COUNT(*) FROM invitations"), 1);
        goat.json(&["user", "invitations", "berta", "3"]);
        assert_eq!(left(&goat, &berta), (3, 1));
        // Who is banned gives none.
        post(&goat, &admin, &format!("/api/users/{}/ban", caro.id), b"");
        refused(&post(&goat, &caro, "/api/me/invite", b""), 403);
    }
}

#[test]
fn the_invitations_of_who_is_banned_or_gone_are_dead() {
    for database in Database::each("dead invitations") {
        let (goat, admin, berta, caro) = start(&database);
        allow(&goat, &admin, &berta, 5);
        allow(&goat, &admin, &caro, 5);
        let (of_berta, of_caro) = (invite(&goat, &berta), invite(&goat, &caro));
        post(&goat, &admin, &format!("/api/users/{}/ban", berta.id), b"");
        assert_eq!(refused(&look(&goat, &of_berta), 404), GONE);
        assert_eq!(refused(&join(&goat, &of_berta, "dora", b""), 404), GONE);
        goat.cli(&["user", "remove", "caro"]);
        assert_eq!(refused(&join(&goat, &of_caro, "dora", b""), 404), GONE);
        assert_eq!(database.number("SELECT COUNT(*) FROM users"), 2);
    }
}

#[test]
fn of_many_who_follow_an_invitation_at_once_one_becomes_a_member() {
    for database in Database::each("invitations at once") {
        let (goat, admin, berta, _) = start(&database);
        allow(&goat, &admin, &berta, 1);
        let statuses = at_once(|_| post(&goat, &berta, "/api/me/invite", b"").status);
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
        assert_eq!(left(&goat, &berta), (0, 1));
        let code = invite(&goat, &admin);
        let statuses = at_once(|n| join(&goat, &code, &format!("new{n}"), b"").status);
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
        assert!(statuses.iter().all(|status| [200, 404].contains(status)), "{statuses:?}");
        assert_eq!(database.number("SELECT COUNT(*) FROM users"), 4);
    }
}

/// What four at once are answered: as many as one address may have of answers that take long.
fn at_once(f: impl Fn(usize) -> u16 + Sync) -> Vec<u16> {
    let f = &f;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || f(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn who_guesses_invitations_is_shut_out_and_an_administrator_has_100_open_ones() {
    let database = Database::sqlite();
    let (goat, admin, _, _) = start(&database);
    let code = invite(&goat, &admin);
    let from = |n: u32| format!("X-Forwarded-For: 192.0.2.{n}\r\n");
    let guess = |n: u32| ask(&goat, "GET", &format!("/api/invite/{n:040}"), &from(1), b"").status;
    let statuses: Vec<u16> = (0..40).map(guess).collect();
    assert!(statuses[0] == 404 && statuses.contains(&429), "{statuses:?}");
    let path = format!("/api/invite/{code}");
    wait_until("too many guesses", || {
        (0..20).map(guess).for_each(|status| assert!([200, 404, 429].contains(&status)));
        ask(&goat, "GET", &path, &from(1), b"").status == 429
    });
    assert_eq!(ask(&goat, "GET", &path, &from(2), b"").status, 200);
    (1..100).for_each(|_| drop(invite(&goat, &admin)));
    assert_eq!(left(&goat, &admin), (0, 100));
    refused(&post(&goat, &admin, "/api/me/invite", b""), 409);
    for path in ["/api/invite", "/api/invite/", "/api/invite/x/y"] {
        assert!([401, 404].contains(&ask(&goat, "GET", path, "", b"").status), "{path}");
    }
}

#[test]
fn a_member_made_by_a_command_signs_in_by_a_link_once() {
    for database in Database::each("sign-in links") {
        let (goat, ..) = start(&database);
        let made = goat.json(&["user", "add", "dora", "--admin"]);
        let link = made["link"].as_str().unwrap();
        let code = link.strip_prefix(&format!("http://127.0.0.1:{}/#join=", goat.port)).unwrap();
        let found = look(&goat, code).json();
        assert_eq!((&found["by"], &found["name"]), (&json!(""), &json!("dora")));
        let key = |name: &str| made[name].as_str().unwrap().to_string();
        let old = User {
            id: made["id"].as_i64().unwrap(),
            name: "dora".into(),
            passkey: key("passkey"),
            api_key: key("apiKey"),
        };
        assert_eq!(get(&goat, &old, "/api/me").status, 200);
        // A name that is sent along is nobody's.
        let dora = member(&join(&goat, code, "emma", b"a long password"));
        assert_eq!((dora.id, &dora.name, &dora.passkey), (old.id, &old.name, &old.passkey));
        assert_eq!(get(&goat, &dora, "/api/me").json()["admin"], true);
        refused(&get(&goat, &old, "/api/me"), 401);
        assert_eq!(refused(&join(&goat, code, "", b""), 404), GONE);
        let by_password = format!("Authorization: {}\r\n", basic("dora", "a long password"));
        assert_eq!(ask(&goat, "POST", "/api/login", &by_password, b"").status, 200);
        // It is no way around a ban.
        let link = goat.json(&["user", "add", "emma"])["link"].as_str().unwrap().to_string();
        goat.cli(&["user", "ban", "emma"]);
        assert_eq!(refused(&look(&goat, link.split('=').next_back().unwrap()), 404), GONE);
        let (_, said, _) = goat.cli(&["user", "add", "fred"]);
        assert!(said.contains("/#join=") && said.contains("within 7 days"), "{said}");
        assert!(!goat.log().contains("#join="), "{}", goat.log());
    }
    // Without a page there is no link.
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({ "API": false }));
    assert_eq!(goat.json(&["user", "add", "dora"]).get("link"), None);
}
