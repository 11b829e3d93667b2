//! Signing in: tokens that a page calls with, passwords, and what members renew by themselves. Every rule holds on SQLite
//! and on MariaDB.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::common::{Announce, Database, Goat, PATIENCE, User, basic, wait_until};
use crate::library::{Answer, ask, get, post, refused, sign, start};
use serde_json::json;

const PASSWORD: &str = "größer: \"als\" <12>/zeichen";

fn by(name: &str, secret: &str) -> String {
    format!("Authorization: {}\r\n", basic(name, secret))
}

/// A token that signing in has given, as a header.
fn log_in(goat: &Goat, headers: &str) -> String {
    let answer = ask(goat, "POST", "/api/login", headers, b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let key = answer.json();
    let text = |name: &str| key[name].as_str().unwrap().to_string();
    format!("Authorization: Bearer {}:{}\r\n", text("pubkey"), text("secret"))
}

fn set_password(goat: &Goat, headers: &str, password: &[u8]) -> Answer {
    ask(goat, "POST", "/api/me/password", headers, password)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn a_token_calls_as_its_member_until_it_is_ended() {
    for database in Database::each("tokens") {
        let (goat, admin, berta, caro) = start(&database);
        let me = |token: &str| ask(&goat, "GET", "/api/me", token, b"");
        let token = log_in(&goat, &sign(&berta));
        assert_eq!(me(&token).json()["name"], "berta");
        assert_eq!(ask(&goat, "GET", "/api/status", &token, b"").status, 200);
        assert_eq!(ask(&goat, "GET", "/api/users", &token, b"").status, 403);
        // What is signed is counted, this is not.
        database.sql("UPDATE api_logins SET calls = 100000");
        assert_eq!(me(&token).status, 200);
        // It is no other member's, and its public part alone opens nothing.
        let other = log_in(&goat, &sign(&caro));
        let part = |token: &str, number: usize| token.trim_end().split([' ', ':']).nth(number).unwrap().to_string();
        let mixed = format!("Authorization: Bearer {}:{}\r\n", part(&token, 3), part(&other, 4));
        refused(&me(&mixed), 401);
        refused(&me(&format!("Authorization: Bearer {}:\r\n", part(&token, 3))), 401);
        for broken in ["Bearer", "Bearer ", "Bearer x", "Bearer '--:x", "bearer \u{e4}:\u{e4}"] {
            refused(&me(&format!("Authorization: {broken}\r\n")), 401);
        }
        refused(&me(&format!("{token}Origin: http://elsewhere\r\n")), 403);
        refused(&me(&format!("{token}Sec-Fetch-Site: same-site\r\n")), 403);
        // It makes no other tokens.
        refused(&ask(&goat, "POST", "/api/login", &token, b""), 403);
        // Unused for a week it is dead; an hour after its last use the next is written down.
        database.sql(&format!("UPDATE api_logins SET use_time = {}", now() - 6 * 86_400));
        assert_eq!(me(&token).status, 200);
        assert!(database.number("SELECT MAX(use_time) FROM api_logins") >= now() as i64 - 60);
        database.sql(&format!("UPDATE api_logins SET use_time = {}", now() - 8 * 86_400));
        refused(&me(&token), 401);
        let token = log_in(&goat, &sign(&berta));
        post(&goat, &admin, &format!("/api/users/{}/ban?reason=why", berta.id), b"");
        assert_eq!(refused(&me(&token), 403), "This user is banned: why");
        post(&goat, &admin, &format!("/api/users/{}/unban", berta.id), b"");
        // It ends by itself alone, and for good.
        refused(&ask(&goat, "DELETE", "/api/login", &sign(&berta), b""), 403);
        refused(&ask(&goat, "DELETE", "/api/login", "", b""), 401);
        assert_eq!(me(&token).status, 200);
        assert_eq!(ask(&goat, "DELETE", "/api/login", &token, b"").status, 200);
        refused(&me(&token), 401);
        refused(&ask(&goat, "DELETE", "/api/login", &token, b""), 401);
        assert_eq!(ask(&goat, "GET", "/api/login", &sign(&berta), b"").status, 405);
    }
}

#[test]
fn a_password_signs_in_and_makes_another_and_opens_nothing_else() {
    for database in Database::each("passwords") {
        let (goat, admin, berta, caro) = start(&database);
        let by_password = by("berta", PASSWORD);
        refused(&ask(&goat, "POST", "/api/login", &by_password, b""), 401);
        assert_eq!(get(&goat, &berta, "/api/me").json()["password"], false);
        let by_key = log_in(&goat, &sign(&berta));
        let set = set_password(&goat, &sign(&berta), PASSWORD.as_bytes());
        assert_eq!(set.json(), json!({ "password": true }), "{}", set.text());
        assert_eq!(get(&goat, &berta, "/api/me").json()["password"], true);
        let token = log_in(&goat, &by("BERTA", PASSWORD));
        assert_eq!(ask(&goat, "GET", "/api/me", &token, b"").json()["name"], "berta");
        for other in ["caro", "berta ", " berta"] {
            refused(&ask(&goat, "POST", "/api/login", &by(other, PASSWORD), b""), 401);
        }
        for (method, path) in [("GET", "/api/me"), ("GET", "/api/files"), ("POST", "/api/me/passkey")] {
            refused(&ask(&goat, method, path, &by_password, b""), 401);
        }
        // An open page cannot take the account, nor can another site.
        refused(&set_password(&goat, &token, b"a password of another"), 403);
        refused(&ask(&goat, "POST", "/api/me/key", &token, b""), 403);
        let elsewhere = format!("{by_password}Origin: http://elsewhere\r\n");
        refused(&set_password(&goat, &elsewhere, b"a password of another"), 403);
        refused(&set_password(&goat, "", b"a password of another"), 401);
        refused(&set_password(&goat, &by("berta", "not the password"), b"a password of another"), 401);
        let wrong: [&[u8]; 4] = [b"eleven char", b"two lines of\ntext", &[0xff; 12], berta.api_key.as_bytes()];
        for wrong in wrong {
            refused(&set_password(&goat, &sign(&berta), wrong), 400);
        }
        assert_eq!(set_password(&goat, &sign(&berta), &[b'x'; 1025]).status, 413);
        // A database that is stolen has neither password nor token.
        let rows = database.sql("SELECT hash, salt, rounds FROM passwords").concat();
        assert_eq!((rows[0].len(), rows[1].len(), rows[2].as_str()), (64, 32, "600000"));
        // The longest one, by the one before, which ends with its tokens.
        let longest = "ü".repeat(512);
        assert_eq!(set_password(&goat, &by_password, longest.as_bytes()).status, 200);
        refused(&ask(&goat, "GET", "/api/me", &token, b""), 401);
        refused(&ask(&goat, "POST", "/api/login", &by_password, b""), 401);
        assert_eq!(ask(&goat, "GET", "/api/me", &by_key, b"").status, 200);
        let by_password = by("berta", &longest);
        let token = log_in(&goat, &by_password);
        // Members renew their keys: what was made with the old API key ends.
        let key = ask(&goat, "POST", "/api/me/key", &by_password, b"").json();
        let renewed = User { api_key: key["apiKey"].as_str().unwrap().into(), ..berta.clone() };
        assert_eq!(key.as_object().unwrap().len(), 1);
        refused(&get(&goat, &berta, "/api/me"), 401);
        refused(&ask(&goat, "GET", "/api/me", &by_key, b""), 401);
        assert_eq!(get(&goat, &renewed, "/api/me").status, 200);
        assert_eq!(ask(&goat, "GET", "/api/me", &token, b"").status, 200);
        post(&goat, &admin, &format!("/api/users/{}/ban?reason=why", berta.id), b"");
        let banned = ask(&goat, "POST", "/api/login", &by_password, b"");
        assert_eq!(refused(&banned, 403), "This user is banned: why");
        refused(&set_password(&goat, &sign(&renewed), b""), 403);
        post(&goat, &admin, &format!("/api/users/{}/unban", berta.id), b"");
        let removed = set_password(&goat, &by_password, b"");
        assert_eq!(removed.json(), json!({ "password": false }), "{}", removed.text());
        refused(&ask(&goat, "GET", "/api/me", &token, b""), 401);
        refused(&ask(&goat, "POST", "/api/login", &by_password, b""), 401);
        // A removed member leaves none.
        assert_eq!(set_password(&goat, &sign(&caro), b"another password").status, 200);
        post(&goat, &admin, &format!("/api/users/{}/remove", caro.id), b"");
        assert_eq!(database.number("SELECT COUNT(*) FROM passwords"), 0);
        for path in ["/api/me/password", "/api/me/key", "/api/me/passkey"] {
            assert_eq!(get(&goat, &renewed, path).status, 405, "{path}");
        }
        refused(&post(&goat, &renewed, "/api/me/praise", b""), 405);
    }
}

#[test]
fn a_password_that_comes_in_pieces_is_waited_for() {
    let database = Database::sqlite();
    let (goat, _, berta, _) = start(&database);
    for path in ["/api/me/password", "/api/me/password/"] {
        let mut stream = TcpStream::connect(goat.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = PASSWORD.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n{}\r\n",
            sign(&berta)
        );
        stream.write_all(head.as_bytes()).unwrap();
        let asked = b"HTTP/1.1 100 Continue\r\n\r\n";
        let mut answer = vec![0; asked.len()];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer, asked);
        for byte in PASSWORD.as_bytes() {
            stream.write_all(&[*byte]).unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("{\"password\":true}\n"), "{answer}");
    }
    log_in(&goat, &by("berta", PASSWORD));
}

#[test]
fn a_new_passkey_ends_the_old_one() {
    for database in Database::each("own passkeys") {
        let (goat, _, berta, _) = start(&database);
        goat.add_torrent("aa".repeat(20));
        let announce = |passkey: &str| Announce::new(passkey, [0xaa; 20], 1).refusal(&goat);
        assert_eq!(announce(&berta.passkey), "");
        let token = log_in(&goat, &sign(&berta));
        refused(&ask(&goat, "POST", "/api/me/passkey", "", b""), 401);
        let elsewhere = format!("{token}Sec-Fetch-Site: cross-site\r\n");
        refused(&ask(&goat, "POST", "/api/me/passkey", &elsewhere, b""), 403);
        let new = ask(&goat, "POST", "/api/me/passkey", &token, b"").json();
        let passkey = new["passkey"].as_str().unwrap();
        assert!(new["announce"][0].as_str().unwrap().contains(passkey));
        wait_until("the new passkey", || announce(passkey).is_empty() && announce(&berta.passkey) == "Invalid passkey");
        assert_eq!(get(&goat, &berta, "/api/me").json()["passkey"], passkey);
    }
}

#[test]
fn a_password_cannot_be_guessed_from_many_addresses_and_nobody_learns_who_is_a_member() {
    let database = Database::sqlite();
    let (goat, admin, berta, _) = start(&database);
    assert_eq!(set_password(&goat, &sign(&berta), PASSWORD.as_bytes()).status, 200);
    // Who has the password is not counted.
    (0..12).for_each(|_| drop(log_in(&goat, &by("berta", PASSWORD))));
    let guess = |name: &str, n: u32| {
        let from = format!("{}X-Forwarded-For: 192.0.2.{n}\r\n", by(name, "a wrong password"));
        ask(&goat, "POST", "/api/login", &from, b"")
    };
    for name in ["Berta", "nobody", "o'Neil\"; DROP TABLE users; --", "<b>\u{1f431}</b>"] {
        let answers: Vec<Answer> = (1..=20).map(|n| guess(name, n)).collect();
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        // A minute may end meanwhile.
        let tried = statuses.iter().filter(|status| **status == 401).count();
        assert!((10..20).contains(&tried) && statuses.contains(&429), "{name}: {statuses:?}");
        let why: Vec<String> = answers.iter().map(|answer| refused(answer, answer.status)).collect();
        assert_eq!(why[0], "Wrong user name, API key or password");
    }
    // Not even the right one, from anywhere; by the API key and for others there is no limit.
    let right = format!("{}X-Forwarded-For: 198.51.100.1\r\n", by("berta", PASSWORD));
    wait_until("too many guesses", || {
        (1..=10).for_each(|n| drop(guess("berta", n)));
        ask(&goat, "POST", "/api/login", &right, b"").status == 429
    });
    log_in(&goat, &sign(&berta));
    assert_eq!(set_password(&goat, &sign(&admin), PASSWORD.as_bytes()).status, 200);
    log_in(&goat, &by("ana", PASSWORD));
    assert_eq!(database.number("SELECT COUNT(*) FROM users"), 3);
}

#[test]
fn announces_are_answered_while_many_try_passwords() {
    let database = Database::sqlite();
    let (goat, _, berta, _) = start(&database);
    goat.add_torrent("aa".repeat(20));
    let statuses = thread::scope(|scope| {
        let goat = &goat;
        let guess = move |n: usize| {
            let headers = format!("{}X-Forwarded-For: 192.0.2.{n}\r\n", by(&format!("name{n}"), "a wrong password"));
            ask(goat, "POST", "/api/login", &headers, b"").status
        };
        let guessers: Vec<_> = (1..=40).map(|n| scope.spawn(move || guess(n))).collect();
        for n in 0..200 {
            assert_eq!(Announce::new(&berta.passkey, [0xaa; 20], n % 3).refusal(goat), "");
        }
        guessers.into_iter().map(|guesser| guesser.join().unwrap()).collect::<Vec<u16>>()
    });
    // Eight may wait for their turn.
    assert!(statuses.iter().all(|status| [401, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&401), "{statuses:?}");
}
