//! The JSON API: its calls, who may make them, and what they are told. Every rule that touches the database
//! holds on SQLite and on MariaDB.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::UNIX_EPOCH;

use crate::common::{AGENT, Announce, Database, Goat, PATIENCE, User, basic, hex, info_hash, wait_until};
use ring::hmac;
use serde_json::{Value, json};

macro_rules! on_each_database {
    ($($rule:ident)*) => {
        mod sqlite {
            use super::Database;
            $(#[test] fn $rule() { super::$rule(Database::sqlite()); })*
        }
        mod mariadb {
            use super::Database;
            $(#[test] fn $rule() {
                if let Some(database) = Database::mariadb(stringify!($rule)) {
                    super::$rule(database);
                }
            })*
        }
    };
}

on_each_database! {
    the_examples_of_the_original_are_answered_field_by_field
    each_call_is_for_those_who_may_make_it
    members_see_themselves_and_of_others_only_counts
    a_signed_call_works_once_and_only_as_it_was_signed
    a_key_to_sign_with_lives_for_a_week_without_use_and_as_long_as_its_api_key
    a_stolen_database_opens_nothing
    lists_are_sorted_cut_and_continued
    hours_and_minutes_are_written_and_go_on_after_a_restart
    names_of_every_kind_come_through_json_unharmed
    text_from_outside_is_never_sql
}

/// An answer as it came.
pub(super) struct Answer {
    pub(super) status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.text()))
    }

    pub(super) fn error(&self) -> String {
        let error = self.json();
        assert_eq!(error.as_object().unwrap().len(), 1, "{error}");
        error["error"].as_str().unwrap().into()
    }
}

/// One request on a connection of its own, with "Connection: close".
fn ask(goat: &Goat, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    raw(goat, &format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n"))
}

fn raw(goat: &Goat, request: &str) -> Answer {
    let mut stream = TcpStream::connect(goat.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer to {request}"));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let headers: BTreeMap<String, String> = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.into()))
        .collect();
    let body = bytes[end + 4..].to_vec();
    if !request.starts_with("HEAD ") {
        assert_eq!(headers["content-length"], body.len().to_string());
    } else {
        assert_eq!(body, b"", "{request}");
    }
    Answer { status: status.parse().unwrap(), headers, body }
}

pub(super) fn get(goat: &Goat, user: &User, path: &str) -> Answer {
    let credentials = basic(&user.name, &user.api_key);
    ask(goat, "GET", path, &[("Authorization", &credentials)])
}

/// A GET with wrong credentials, each from an address of its own: twenty failures from one are too many.
fn stranger(goat: &Goat, path: &str, credentials: &str) -> Answer {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let address = Ipv4Addr::from(0xc000_0000 + NEXT.fetch_add(1, Relaxed)).to_string();
    let headers = [("Authorization", credentials), ("X-Forwarded-For", &address)];
    ask(goat, "GET", path, &headers)
}

/// A 200 and what it says.
fn good(goat: &Goat, user: &User, path: &str) -> Value {
    let answer = get(goat, user, path);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    assert_eq!(answer.header("content-type"), "application/json");
    answer.json()
}

pub fn add_admin(goat: &Goat, name: &str) -> User {
    let user = goat.json(&["user", "add", name, "--admin"]);
    let text = |key: &str| user[key].as_str().unwrap().to_string();
    User { id: user["id"].as_i64().unwrap(), name: name.into(), passkey: text("passkey"), api_key: text("apiKey") }
}

/// An administrator and two members.
fn start(database: &Database) -> (Goat, User, User, User) {
    let goat = Goat::start(database, json!({ "API": true, "SlowDown": 0, "TrustedProxies": ["127.0.0.1"] }));
    let admin = add_admin(&goat, "ana");
    let (berta, caro) = (goat.add_user("berta"), goat.add_user("caro"));
    (goat, admin, berta, caro)
}

fn now() -> u64 {
    UNIX_EPOCH.elapsed().unwrap().as_secs()
}

/// The names in an object's text, in order, those of objects in it left out.
fn names(text: &str) -> Vec<String> {
    let (mut depth, mut names, mut rest) = (0, Vec::new(), text.chars().peekable());
    while let Some(c) = rest.next() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            '"' => {
                let mut word = String::new();
                while let Some(c) = rest.next_if(|c| *c != '"') {
                    word.push(c);
                }
                rest.next();
                if rest.peek() == Some(&':') && depth == 1 {
                    names.push(word);
                }
            }
            _ => {}
        }
    }
    names
}

/// The examples of the original's documentation, as printed there.
const FILES: &str = r#"[
	{
		"id":1,
		"infoHash":"abcdef0123456789",
		"verified":true,
		"createTime":1389737644,
		"updateTime":1389737644
	}
]"#;
const FILE: &str = r#"{
	"id":1,
	"infoHash":"abcdef0123456789",
	"verified":true,
	"createTime":1389737644,
	"updateTime":1389737644,
	"completed":0,
	"seeders":0,
	"leechers":0,
	"fileUsers": [
		{
			"fileId":1,
			"userId":1,
			"ip":"8.8.8.8",
			"active":true,
			"completed":false,
			"announced":1,
			"uploaded":0,
			"downloaded":0,
			"left":0,
			"time":1389983002
		}
	]
}"#;
const STATUS: &str = r#"{
	"pid":27796,
	"hostname":"goat",
	"platform":"linux",
	"architecture":"amd64",
	"numCpu":4,
	"numGoroutine":14,
	"memoryMb":1.03678,
	"http": {
		"current":1,
		"total":11
	},
	"udp": {
		"current":1,
		"total":2
	}
}"#;

/// Fails unless `answer` begins with the fields of `example`, in that order, of the same type, and where
/// `by_nature` does not name them, of the same value.
fn compare(answer: &str, example: &str, by_nature: &[&str]) {
    let wanted = names(example);
    let found = names(answer);
    assert_eq!(found[..wanted.len()], wanted, "{answer}");
    let (answer, example): (Value, Value) =
        (serde_json::from_str(answer).unwrap(), serde_json::from_str(example).unwrap());
    for name in wanted {
        let (found, wanted) = (&answer[&name], &example[&name]);
        if by_nature.contains(&name.as_str()) {
            assert_eq!(std::mem::discriminant(found), std::mem::discriminant(wanted), "{name}");
            assert!(found.is_number() || found.is_string(), "{name}: {found}");
        } else if !found.is_array() && !found.is_object() {
            assert_eq!(found, wanted, "{name}");
        }
    }
}

/// The text between the first and the last of two brackets.
fn inner(text: &str, open: char, close: char) -> &str {
    &text[text.find(open).unwrap()..=text.rfind(close).unwrap()]
}

fn the_examples_of_the_original_are_answered_field_by_field(database: Database) {
    let (goat, admin, ..) = start(&database);
    // The example's hash is cut short: ours begins so.
    database.sql(
        "INSERT INTO files (id, info_hash, verified, create_time, update_time)
         VALUES (1, 'abcdef0123456789abcdef0123456789abcdef01', 1, 1389737644, 1389737644);
         INSERT INTO sessions (file_id, user_id, peer_id, closed, flags, uploaded, downloaded, `left`, seed_time, time4,
             time6, state)
         VALUES (1, 1, '-qB5020-000000000001', 0, 65536, 0, 0, 0, 0, 1389983002, 0, X'080808081AE1');
         INSERT INTO totals VALUES (1, 1, '', 0, 0, 0, 0, 0, 0, 0, 0, 0)",
    );
    let files = get(&goat, &admin, "/api/files");
    compare(inner(files.text(), '{', '}'), inner(FILES, '{', '}'), &["infoHash"]);
    assert_eq!(files.json().as_array().unwrap().len(), 1);
    let file = get(&goat, &admin, "/api/files/1");
    compare(file.text(), FILE, &["infoHash"]);
    assert!(file.json()["infoHash"].as_str().unwrap().starts_with("abcdef0123456789"));
    let users = inner(file.text(), '[', ']');
    compare(inner(users, '{', '}'), inner(inner(FILE, '[', ']'), '{', '}'), &[]);
    let status = get(&goat, &admin, "/api/status");
    let by_nature = ["pid", "hostname", "architecture", "numCpu", "numGoroutine", "memoryMb"];
    compare(status.text(), STATUS, &by_nature);
    let status = status.json();
    for listener in ["http", "udp"] {
        let object = status[listener].as_object().unwrap();
        assert_eq!(object.keys().collect::<Vec<_>>(), ["current", "total"]);
    }
    // Two before it, and itself.
    assert_eq!(status["http"], json!({ "current": 3, "total": 3 }));
    assert_eq!(status["udp"], json!({ "current": 0, "total": 0 }));
    let pid = std::fs::read_dir(format!("/proc/{}", status["pid"]));
    assert!(pid.is_ok(), "a running process");
    let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(status["hostname"], hostname.trim());
}

const CALLS: [&str; 11] = [
    "/api/files",
    "/api/files/1",
    "/api/files?pending=true",
    "/api/status",
    "/api/history",
    "/api/me",
    "/api/clients",
    "/api/users",
    "/api/users/1",
    "/api/users/2",
    "/api/nothing",
];

fn each_call_is_for_those_who_may_make_it(database: Database) {
    let (goat, admin, berta, caro) = start(&database);
    goat.add_torrent(hex(&info_hash(1)));
    // For berta (2), caro (3) and ana (1, an administrator).
    let expected = [
        [200, 200, 200],
        [200, 200, 200],
        [403, 403, 200],
        [200, 200, 200],
        [200, 200, 200],
        [200, 200, 200],
        [200, 200, 200],
        [403, 403, 200],
        [403, 403, 200],
        [200, 403, 200],
        [404, 404, 404],
    ];
    for (call, expected) in CALLS.into_iter().zip(expected) {
        for method in ["GET", "HEAD"] {
            let none = ask(&goat, method, call, &[]);
            assert_eq!(none.status, 401, "{call}");
            assert_eq!(none.header("www-authenticate"), "Basic realm=\"goat\", charset=\"UTF-8\"");
            for (user, status) in [&berta, &caro, &admin].into_iter().zip(expected) {
                let credentials = basic(&user.name, &user.api_key);
                let answer = ask(&goat, method, call, &[("Authorization", &credentials)]);
                assert_eq!(answer.status, status, "{method} {call} by {}", user.name);
                if status != 200 && method == "GET" {
                    assert_ne!(answer.error(), "");
                }
            }
        }
        // Somebody else's key, an unknown user, and what is no authentication at all.
        for credentials in [
            basic("berta", &caro.api_key),
            basic("nobody", &caro.api_key),
            "Bearer abc".into(),
            "Basic ####".into(),
            "Basic".into(),
            String::new(),
        ] {
            let answer = stranger(&goat, call, &credentials);
            assert_eq!(answer.status, 401, "{credentials}");
        }
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let credentials = basic(&admin.name, &admin.api_key);
        for path in ["/api/status", "/api", "/api?x=1", "http://goat/api/status"] {
            let answer = ask(&goat, method, path, &[("Authorization", &credentials)]);
            assert_eq!((answer.status, answer.error().as_str()), (405, "Method not allowed"), "{method} {path}");
            assert_eq!(answer.header("allow"), "GET, HEAD");
        }
    }
    for (path, methods) in [("/api/login", "POST, DELETE"), ("/api/login/", "POST, DELETE"), ("/api/free", "POST")] {
        let answer = get(&goat, &admin, path);
        assert_eq!((answer.status, answer.header("allow")), (405, methods), "{path}");
    }
    for id in ["x", "-1", "1.0", "4294967296", "0x1", "+1", "%31", "1'"] {
        for list in ["files", "users"] {
            let answer = get(&goat, &admin, &format!("/api/{list}/{id}"));
            assert_eq!((answer.status, answer.error().as_str()), (400, "Invalid integer ID"), "{id}");
        }
    }
    for call in ["/api", "/api/", "/api/files/1/2", "/api/login/1", "/api/x"] {
        let answer = get(&goat, &admin, call);
        assert_eq!((answer.status, answer.error().as_str()), (404, "Undefined API call"), "{call}");
    }
    assert_eq!(get(&goat, &admin, "/api/files/77").status, 404);
    assert_eq!(get(&goat, &admin, "/api/users/77").status, 404);
    database.sql("UPDATE users SET banned = 1 WHERE username = 'caro'");
    assert_eq!(get(&goat, &caro, "/api/me").status, 403);
}

fn members_see_themselves_and_of_others_only_counts(database: Database) {
    let (goat, admin, berta, caro) = start(&database);
    let hash = info_hash(1);
    let file = goat.add_torrent(hex(&hash));
    for (user, number) in [(&berta, 1), (&caro, 2)] {
        let mut announce = Announce::new(&user.passkey, hash, number);
        (announce.left, announce.uploaded) = (0, 1000 + u64::from(number));
        announce.accepted(&goat);
    }
    // Unknown so far, so it awaits approval.
    Announce::new(&caro.passkey, info_hash(2), 3).refusal(&goat);
    let mut stranger = Announce::new(&caro.passkey, hash, 4);
    stranger.agent = "Unknown/1".into();
    stranger.peer_id = *b"-XX0000-000000000000";
    stranger.refusal(&goat);
    wait_until("the books and what awaits approval", || {
        database.number("SELECT COUNT(*) FROM files_users") == 2
            && database.number("SELECT COUNT(*) FROM files") == 2
            && database.number("SELECT COUNT(*) FROM whitelist WHERE approved = 0") == 1
    });
    let path = format!("/api/files/{file}");
    let ids = |file: &Value| -> Vec<i64> {
        let rows = file["fileUsers"].as_array().unwrap().iter();
        rows.map(|row| row["userId"].as_i64().unwrap()).collect()
    };
    let (seen_by_berta, seen_by_admin) = (good(&goat, &berta, &path), good(&goat, &admin, &path));
    assert_eq!(ids(&seen_by_berta), [berta.id]);
    assert_eq!(ids(&seen_by_admin), [berta.id, caro.id]);
    for seen in [&seen_by_berta, &seen_by_admin] {
        assert_eq!((&seen["seeders"], &seen["leechers"]), (&json!(2), &json!(0)));
        assert_eq!(seen["fileUsers"][0]["uploaded"], 1001);
    }
    assert_eq!(good(&goat, &berta, "/api/files").as_array().unwrap().len(), 1);
    assert_eq!(good(&goat, &admin, "/api/files").as_array().unwrap().len(), 2);
    let pending = good(&goat, &admin, "/api/files?pending=true");
    assert_eq!(pending[0]["infoHash"], hex(&info_hash(2)));
    let id = &pending[0]["id"];
    assert_eq!(get(&goat, &berta, &format!("/api/files/{id}")).status, 404);
    assert!(get(&goat, &admin, "/api/clients").text().contains("Unknown/1"));
    assert!(!get(&goat, &berta, "/api/clients").text().contains("Unknown/1"));

    let me = good(&goat, &berta, "/api/me");
    assert_eq!(me["name"], "berta");
    assert_eq!(me["username"], "berta");
    assert_eq!(me["passkey"], berta.passkey);
    assert!(me["announce"][0].as_str().unwrap().contains(&berta.passkey));
    assert_eq!((&me["uploaded"], &me["seeding"], &me["active"]), (&json!(1001), &json!(1), &json!(1)));
    assert_eq!(me["torrents"].as_array().unwrap().len(), 1);
    assert_eq!(me["torrents"][0]["fileId"], file);
    // An administrator sees a member, but never a passkey.
    let other = get(&goat, &admin, &format!("/api/users/{}", berta.id));
    assert_eq!(other.json()["uploaded"], 1001);
    assert!(other.json().get("passkey").is_none());
    for call in CALLS {
        let seen = get(&goat, &berta, call);
        let text = seen.text();
        for secret in ["caro", &caro.passkey, &admin.passkey, &admin.api_key, &berta.api_key] {
            assert!(!text.contains(secret), "{secret} in {call}");
        }
    }
}

/// A key made by POST /api/login.
pub(super) struct Key {
    user: i64,
    public: String,
    secret: String,
}

pub(super) fn log_in(goat: &Goat, user: &User) -> Key {
    let credentials = basic(&user.name, &user.api_key);
    let answer = ask(goat, "POST", "/api/login", &[("Authorization", &credentials)]);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(names(answer.text()), ["expire", "pubkey", "secret", "userId"]);
    let key = answer.json();
    assert_eq!(key["userId"], user.id);
    let expire = key["expire"].as_u64().unwrap();
    assert!((7 * 86_400 - 60..=7 * 86_400 + 60).contains(&expire.saturating_sub(now())));
    Key {
        user: user.id,
        public: key["pubkey"].as_str().unwrap().into(),
        secret: key["secret"].as_str().unwrap().into(),
    }
}

impl Key {
    fn sign(&self, nonce: &str, method: &str, resource: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, self.secret.as_bytes());
        let text = format!("{}-{nonce}-{method}-{resource}", self.user);
        let signature = hex(hmac::sign(&key, text.as_bytes()).as_ref());
        basic(&self.public, &format!("{nonce}/{signature}"))
    }

    pub(super) fn call(&self, goat: &Goat, nonce: &str) -> Answer {
        let signed = self.sign(nonce, "GET", "/api/me");
        ask(goat, "GET", "/api/me", &[("Authorization", &signed)])
    }
}

fn a_signed_call_works_once_and_only_as_it_was_signed(database: Database) {
    let (mut goat, _, berta, caro) = start(&database);
    let key = log_in(&goat, &berta);
    let other = log_in(&goat, &caro);
    assert_eq!(key.call(&goat, "nonce-1").json()["name"], "berta");
    let again = key.call(&goat, "nonce-1");
    assert_eq!((again.status, again.error().as_str()), (401, "This nonce was used before"));
    assert_eq!(key.call(&goat, "nonce-2").status, 200);
    // A nonce is the key's own.
    assert_eq!(other.call(&goat, "nonce-1").json()["name"], "caro");

    let send = |goat: &Goat, method, path, signed: &str| ask(goat, method, path, &[("Authorization", signed)]).status;
    let signed = key.sign("n3", "GET", "/api/me");
    assert_eq!(send(&goat, "HEAD", "/api/me", &signed), 401, "another method");
    assert_eq!(send(&goat, "GET", "/api/status", &signed), 401, "another path");
    assert_eq!(send(&goat, "GET", "/api/me?limit=1", &signed), 401, "a query");
    assert_eq!(send(&goat, "GET", "/api/me", &key.sign("n3", "GET", "/api/me?limit=1")), 401);
    let mut stranger = log_in(&goat, &berta);
    stranger.secret = other.secret.clone();
    assert_eq!(stranger.call(&goat, "n3").status, 401, "another's secret");
    let right = key.sign("n3", "GET", "/api/me");
    let plain = basic(&key.public, "n3/00112233445566778899aabbccddeeff00112233");
    assert_eq!(send(&goat, "GET", "/api/me", &plain), 401, "another signature");
    for broken in ["n3/", "n3/zz", "/abc", "n 3/abc", &format!("{}/abc", "n".repeat(65))] {
        assert_eq!(send(&goat, "GET", "/api/me", &basic(&key.public, broken)), 401, "{broken}");
    }
    // None of these has used up the nonce.
    assert_eq!(send(&goat, "GET", "/api/me", &right), 200);
    assert_eq!(send(&goat, "GET", "/api/files?limit=1", &key.sign("n4", "GET", "/api/files?limit=1")), 200);
    assert_eq!(send(&goat, "HEAD", "/api/me", &key.sign("n5", "HEAD", "/api/me")), 200);
    // Only who knows the API key makes another key.
    assert_eq!(send(&goat, "POST", "/api/login", &key.sign("n6", "POST", "/api/login")), 403);
    // Of twenty at the same time with one nonce, one gets through.
    let signed = key.sign("race", "GET", "/api/me");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| send(&goat, "GET", "/api/me", &signed))).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    // Nonces outlive a restart.
    goat.restart();
    assert_eq!(key.call(&goat, "nonce-1").status, 401);
    assert_eq!(key.call(&goat, "nonce-7").status, 200);
}

fn a_key_to_sign_with_lives_for_a_week_without_use_and_as_long_as_its_api_key(database: Database) {
    let (goat, _, berta, caro) = start(&database);
    let key = log_in(&goat, &berta);
    let age = |seconds: u64| {
        database.sql(&format!("UPDATE api_logins SET use_time = {}", now() - seconds));
    };
    age(7 * 86_400 - 60);
    assert_eq!(key.call(&goat, "1").status, 200);
    // That was a use: the week begins anew.
    assert!(database.number("SELECT MAX(use_time) FROM api_logins") >= now() as i64 - 60);
    age(7 * 86_400 + 60);
    let answer = key.call(&goat, "2");
    assert_eq!(answer.status, 401);
    assert!(answer.error().contains("POST /api/login"));
    // The next login clears what has expired away.
    let key = log_in(&goat, &berta);
    assert_eq!(database.number("SELECT COUNT(*) FROM api_logins"), 1);
    assert_eq!(database.number("SELECT COUNT(*) FROM api_nonces"), 0);
    assert_eq!(key.call(&goat, "1").status, 200);
    // At most ten keys at a time; a hundred thousand calls with each.
    let keys: Vec<Key> = (0..11).map(|_| log_in(&goat, &caro)).collect();
    assert_eq!(database.number(&format!("SELECT COUNT(*) FROM api_logins WHERE user_id = {}", caro.id)), 10);
    assert_eq!(keys[10].call(&goat, "1").status, 200);
    database.sql("UPDATE api_logins SET calls = 100000");
    assert_eq!(keys[10].call(&goat, "2").status, 401);
    let key = log_in(&goat, &berta);
    assert_eq!(key.call(&goat, "1").status, 200);
    database.sql(&format!("DELETE FROM api_keys WHERE user_id = {}", berta.id));
    assert_eq!(key.call(&goat, "2").status, 401);
}

fn a_stolen_database_opens_nothing(database: Database) {
    let (mut goat, admin, ..) = start(&database);
    let key = log_in(&goat, &admin);
    assert_eq!(key.call(&goat, "1").status, 200);
    let tables = ["api_keys", "api_logins", "api_nonces", "users", "goat"];
    let held: Vec<String> =
        tables.iter().flat_map(|table| database.sql(&format!("SELECT * FROM {table}"))).flatten().collect();
    for secret in [&admin.api_key, &key.secret] {
        assert!(!held.iter().any(|value| value.contains(secret.as_str())));
    }
    // Nothing in it is a secret that signs, nor a key that opens.
    let opens_nothing = |goat: &Goat| {
        for value in held.iter().filter(|value| value.len() >= 20) {
            let forged = Key { user: key.user, public: key.public.clone(), secret: value.clone() };
            let signed = forged.sign("forged", "GET", "/api/me");
            assert_eq!(stranger(goat, "/api/me", &signed).status, 401);
            assert_eq!(stranger(goat, "/api/me", &basic("ana", value)).status, 401);
        }
        let file = std::fs::metadata(goat.folder.join("config.secret")).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
    };
    opens_nothing(&goat);
    assert_eq!(key.call(&goat, "2").status, 200);
    // A file of SQLite has one goat.
    goat.stop();
    let elsewhere = Goat::start(&database, json!({ "API": true, "TrustedProxies": ["127.0.0.1"] }));
    opens_nothing(&elsewhere);
    // Where the server's own file is not, the true secret is none.
    assert_eq!(key.call(&elsewhere, "elsewhere").status, 401);
    for text in [goat.log(), held.join(" ")] {
        assert!(!text.contains(&admin.api_key) && !text.contains(&key.secret));
    }
}

fn lists_are_sorted_cut_and_continued(database: Database) {
    let (goat, admin, berta, _) = start(&database);
    for (number, name) in ["delta", "alpha", "charlie", "bravo"].into_iter().enumerate() {
        let number = number as u32;
        goat.add_torrent(hex(&info_hash(number)));
        database.sql(&format!(
            "UPDATE files SET name = '{name}', size = {} WHERE info_hash = '{}'",
            number % 2,
            hex(&info_hash(number))
        ));
    }
    for (torrent, peers) in [(0, 1), (2, 3), (3, 2)] {
        (0..peers).for_each(|peer| drop(Announce::new(&berta.passkey, info_hash(torrent), peer).accepted(&goat)));
    }
    let list = |path: &str| -> Vec<String> {
        let list = good(&goat, &admin, path);
        let rows = list.as_array().unwrap().iter();
        rows.map(|row| row["name"].as_str().unwrap().into()).collect()
    };
    let cases: [(&str, &[&str]); 18] = [
        ("/api/files", &["delta", "alpha", "charlie", "bravo"]),
        ("/api/files?limit=2", &["delta", "alpha"]),
        ("/api/files?limit=2&after=2", &["charlie", "bravo"]),
        ("/api/files?after=4", &[]),
        ("/api/files?limit=0", &[]),
        ("/api/files?sort=-id", &["bravo", "charlie", "alpha", "delta"]),
        ("/api/files?sort=-id&after=3&limit=1", &["alpha"]),
        ("/api/files?sort=name", &["alpha", "bravo", "charlie", "delta"]),
        ("/api/files?sort=-name&limit=3", &["delta", "charlie", "bravo"]),
        ("/api/files?sort=name&after=4&limit=1", &["charlie"]),
        // Equal ones by their ids.
        ("/api/files?sort=size", &["delta", "charlie", "alpha", "bravo"]),
        ("/api/files?sort=-size", &["bravo", "alpha", "charlie", "delta"]),
        ("/api/files?sort=-peers", &["charlie", "bravo", "delta", "alpha"]),
        ("/api/files?sort=peers&limit=2", &["alpha", "delta"]),
        ("/api/files?unknown=1", &["delta", "alpha", "charlie", "bravo"]),
        ("/api/users?sort=-name", &["caro", "berta", "ana"]),
        ("/api/users?sort=-username", &["caro", "berta", "ana"]),
        ("/api/users?sort=createTime&limit=1", &["ana"]),
    ];
    for (path, expected) in cases {
        assert_eq!(list(path), expected, "{path}");
    }
    // A member's own torrents too.
    wait_until("the books", || database.number("SELECT COUNT(*) FROM files_users") == 3);
    let torrents = |query: &str| -> Vec<Value> {
        let me = good(&goat, &berta, &format!("/api/me{query}"));
        let torrents = me["torrents"].as_array().unwrap().iter();
        torrents.map(|torrent| torrent["fileId"].clone()).collect()
    };
    let all = torrents("");
    assert_eq!(all.len(), 3);
    assert_eq!(torrents("?limit=2"), all[..2]);
    assert_eq!(torrents(&format!("?limit=1&after={}", all[0])), all[1..2]);
    for path in [
        "?sort=passkey",
        "?sort=",
        "?sort=-",
        "?limit=-1",
        "?limit=x",
        "?limit=1001",
        "?after=x",
        "?after=-1",
        "?sort=name&after=9",
    ] {
        let answer = get(&goat, &admin, &format!("/api/files{path}"));
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.error().starts_with("Invalid "), "{}", answer.error());
    }
}

fn hours_and_minutes_are_written_and_go_on_after_a_restart(database: Database) {
    let (mut goat, _, berta, _) = start(&database);
    goat.add_torrent(hex(&info_hash(1)));
    let mut announce = Announce::new(&berta.passkey, info_hash(1), 1);
    let sum = |rows: &Value, column: usize| -> u64 {
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row[column].as_u64().unwrap()).sum()
    };
    let hour = now() / 3600 * 3600;
    for run in 1..=2 {
        for _ in 0..5 {
            announce.uploaded += 1000;
            announce.accepted(&goat);
            announce.event = "";
        }
        Announce::new(&berta.passkey, info_hash(9), 1).refusal(&goat);
        wait_until("the books", || database.number("SELECT SUM(uploaded) FROM users") as u64 == 5000 * run);
        let done = now();
        wait_until("a sample with all of it", || {
            let history = good(&goat, &berta, &format!("/api/history?after={done}"));
            history["recent"] != json!([])
        });
        goat.restart();
        let history = good(&goat, &berta, &format!("/api/history?after={}", hour - 1));
        assert_eq!(
            history["columns"],
            json!(["time", "announces", "refused", "seeders", "leechers", "uploaded", "downloaded"])
        );
        let hours = &history["hours"];
        for rows in [hours, &history["recent"]] {
            assert_eq!([1, 2, 5, 6].map(|column| sum(rows, column)), [5 * run, run, 5000 * run, 0]);
        }
        // Peers are not added up.
        assert_eq!(hours.as_array().unwrap().last().unwrap()[4], 1);
        assert_eq!(hours[0][0], hour);
    }
}

/// What somebody may call a torrent, a member or a client.
const NAMES: [&str; 6] = [
    "\"},{\"admin\":true,\"x\":\"",
    "line\\nbreak \\u0000 \\\\",
    "</script><script>alert(1)</script>",
    "µ ∞ 𝄞 \u{202e}gpj.exe",
    "'; DROP TABLE users; --",
    "goat_up 1\\n# TYPE goat_up gauge",
];

fn names_of_every_kind_come_through_json_unharmed(database: Database) {
    let (goat, admin, ..) = start(&database);
    for (number, name) in NAMES.into_iter().enumerate() {
        goat.add_torrent(hex(&info_hash(number as u32)));
        let stored: String = name.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
        let hash = hex(&info_hash(number as u32));
        let text = match &database {
            Database::Sqlite(_) => format!("CAST(X'{stored}' AS TEXT)"),
            Database::MariaDb(_) => format!("CONVERT(X'{stored}' USING utf8mb4)"),
        };
        database.sql(&format!("UPDATE files SET name = {text} WHERE info_hash = '{hash}'"));
        database.sql(&format!("INSERT INTO whitelist (client, approved) VALUES ({text}, 0)"));
        let member = format!("{name}{number}").replace(':', ";");
        database.sql(&format!(
            "INSERT INTO users (username, passkey) VALUES ({}, 'passkey-{number:08}')",
            text.replace(&stored, &member.bytes().map(|byte| format!("{byte:02X}")).collect::<String>())
        ));
    }
    let files = good(&goat, &admin, "/api/files");
    let users = good(&goat, &admin, "/api/users");
    let clients = good(&goat, &admin, "/api/clients");
    for (number, name) in NAMES.into_iter().enumerate() {
        assert_eq!(files[number]["name"], name);
        assert_eq!(users[number + 3]["name"], format!("{name}{number}").replace(':', ";"));
        assert_eq!(users[number + 3]["admin"], false);
        assert!(clients.as_array().unwrap().iter().any(|client| client["client"] == name));
    }
    // Nothing of them gets into the metrics, whose lines they could forge.
    let metrics = ask(&goat, "GET", "/metrics", &[]);
    assert_eq!(metrics.status, 200);
    for name in ["alert", "DROP", "goat_up", "𝄞"] {
        assert!(!metrics.text().contains(name));
    }
}

fn text_from_outside_is_never_sql(database: Database) {
    let (goat, admin, ..) = start(&database);
    let users = database.number("SELECT COUNT(*) FROM users");
    for evil in ["' OR '1'='1", "ana' --", "\" OR \"\"=\"", "ana\\", "%", "_na", "ana\0"] {
        for (name, key) in [(evil, admin.api_key.as_str()), ("ana", evil), (evil, evil)] {
            assert_eq!(stranger(&goat, "/api/me", &basic(name, key)).status, 401, "{name} {key}");
        }
    }
    assert_eq!(database.number("SELECT COUNT(*) FROM users"), users);
}

#[test]
fn twenty_failures_in_a_minute_shut_an_address_out_and_nobody_else() {
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "API": true, "TrustedProxies": ["127.0.0.1"] }));
    let user = goat.add_user("berta");
    let from = |address: &str, key: &str| {
        let credentials = basic("berta", key);
        ask(&goat, "GET", "/api/me", &[("Authorization", &credentials), ("X-Forwarded-For", address)])
    };
    for guess in 0..20 {
        assert_eq!(from("192.0.2.1", &format!("guess {guess}")).status, 401);
    }
    let refused = from("192.0.2.1", &user.api_key);
    assert_eq!((refused.status, refused.header("retry-after")), (429, "60"));
    assert_eq!(refused.error(), "Too many failures from this address: wait a minute");
    assert_eq!(from("192.0.2.2", &user.api_key).status, 200);
    // An IPv6 network of 64 bits is one address.
    for guess in 0..20 {
        assert_eq!(from(&format!("2001:db8::{guess}"), "wrong").status, 401);
    }
    assert_eq!(from("2001:db8::ffff", &user.api_key).status, 429);
    assert_eq!(from("2001:db8:0:1::1", &user.api_key).status, 200);
    // Who sends no key at all has not failed.
    for _ in 0..30 {
        let none = ask(&goat, "GET", "/api/me", &[("X-Forwarded-For", "192.0.2.3")]);
        assert_eq!(none.status, 401);
    }
    assert_eq!(from("192.0.2.3", &user.api_key).status, 200);
}

#[test]
fn an_api_that_is_off_says_so_and_tells_nothing() {
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "API": false }));
    let admin = add_admin(&goat, "ana");
    for path in ["/api", "/api/status", "/api/files", "/api/nothing"] {
        let answer = get(&goat, &admin, path);
        assert_eq!((answer.status, answer.error().as_str()), (503, "API is currently disabled"), "{path}");
    }
    // The page and the metrics are not there, and announces go on.
    for path in ["/", "/metrics", "/nonsense"] {
        let answer = ask(&goat, "GET", path, &[("User-Agent", AGENT)]);
        assert!(answer.text().contains("Malformed announce"), "{path}");
    }
}

#[test]
fn while_the_database_is_away_the_api_says_503_and_the_page_comes() {
    let test = "while_the_database_is_away_the_api_says_503_and_the_page_comes";
    let Some(Database::MariaDb(mut server)) = Database::mariadb(test) else {
        return;
    };
    server.stop();
    server.launch();
    let mut database = Database::MariaDb(server);
    let (goat, admin, ..) = start(&database);
    if let Database::MariaDb(server) = &mut database {
        server.kill();
    }
    let answer = get(&goat, &admin, "/api/me");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.error(), "The database does not answer: try again in a minute");
    assert_eq!(ask(&goat, "GET", "/", &[]).status, 200);
    wait_until("the metrics to tell", || ask(&goat, "GET", "/metrics", &[]).text().contains("\ngoat_database_up 0\n"));
    if let Database::MariaDb(server) = &mut database {
        server.launch();
    }
    wait_until("the API to answer again", || get(&goat, &admin, "/api/me").status == 200);
    wait_until("the metrics to tell", || ask(&goat, "GET", "/metrics", &[]).text().contains("\ngoat_database_up 1\n"));
}

#[test]
fn other_sites_get_nothing_and_no_answer_is_kept() {
    let database = Database::sqlite();
    let (goat, admin, ..) = start(&database);
    let credentials = basic(&admin.name, &admin.api_key);
    const EVIL: &str = "https://evil.example";
    for (site, origin, status) in [
        ("same-origin", EVIL, 200),
        ("none", EVIL, 200),
        ("cross-site", EVIL, 403),
        ("same-site", EVIL, 403),
        // What browsers send to other machines over HTTP: the page's own origin is this host.
        ("", "", 200),
        ("", EVIL, 403),
        ("", "http://localhost", 200),
        ("", "https://localhost", 200),
        ("", "http://localhost:8080", 403),
        ("", "http://evil-localhost", 403),
        ("", "localhost", 403),
        ("", "null", 403),
    ] {
        let mut headers = vec![("Authorization", credentials.as_str()), ("Sec-Fetch-Site", site), ("Origin", origin)];
        headers.retain(|(_, value)| !value.is_empty());
        let answer = ask(&goat, "GET", "/api/me", &headers);
        assert_eq!(answer.status, status, "{site} {origin}");
        assert!(!answer.headers.keys().any(|name| name.starts_with("access-control")));
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    let page = ask(&goat, "GET", "/", &[]);
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"));
}

/// 120 MB of torrents with long names.
fn add_many(database: &Database) {
    database.sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
         INSERT INTO files (info_hash, name, size, verified) SELECT printf('%040x', i), replace(printf('%0250d', i), '0', '🐐'), i, 1 FROM n;
         DELETE FROM changes",
    );
}

/// The most memory that goat has had so far, in KB.
fn peak(goat: &mut Goat) -> u64 {
    let pid = goat.process().id();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mut lines = status.lines();
    let line = lines.find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Asks for a list that fits no buffer: goat waits for its reader. Small segments keep the kernel's buffers small.
fn ask_for_many(goat: &Goat, user: &User) -> TcpStream {
    use nix::sys::socket::*;
    let SocketAddr::V4(to) = goat.address() else {
        panic!("goat listens on IPv4");
    };
    let client = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&client, sockopt::TcpMaxSeg, &536).unwrap();
    setsockopt(&client, sockopt::RcvBuf, &4096).unwrap();
    connect(client.as_raw_fd(), &SockaddrIn::from(to)).unwrap();
    let mut stream = TcpStream::from(client);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "GET /api/files?sort=-name HTTP/1.1\r\nHost: goat";
    let credentials = basic(&user.name, &user.api_key);
    write!(stream, "{head}\r\nAuthorization: {credentials}\r\n\r\n").unwrap();
    stream
}

/// Waits until such a list has begun to come.
fn begun(mut stream: TcpStream) -> TcpStream {
    let mut begin = [0; 15];
    stream.read_exact(&mut begin).unwrap();
    assert_eq!(&begin, b"HTTP/1.1 200 OK");
    stream
}

#[test]
fn who_does_not_take_a_list_leaves_half_of_the_workers_to_announces() {
    let database = Database::sqlite();
    let mut goat = Goat::prepare(&database, json!({ "API": true, "Workers": 2 }));
    let admin = add_admin(&goat, "ana");
    let berta = goat.add_user("berta");
    add_many(&database);
    goat.launch();
    let list = begun(ask_for_many(&goat, &berta));
    std::thread::scope(|scope| {
        // Another call waits its turn.
        let waiting = scope.spawn(|| get(&goat, &admin, "/api/status").status);
        // Whom only the database knows.
        let (caro, hash) = (goat.add_user("caro"), info_hash(7));
        goat.add_torrent(hex(&hash));
        Announce::new(&caro.passkey, hash, 1).accepted(&goat);
        assert!(!waiting.is_finished(), "there was no turn to wait for");
        drop(list);
        assert_eq!(waiting.join().unwrap(), 200);
    });
}

#[test]
fn of_a_hundred_thousand_torrents_a_thousand_come_at_a_time_with_a_link_to_the_next() {
    let database = Database::sqlite();
    let mut goat = Goat::prepare(&database, json!({ "API": true }));
    let admin = add_admin(&goat, "ana");
    add_many(&database);
    goat.launch();
    get(&goat, &admin, "/api/files?limit=100");
    let before = peak(&mut goat);
    for (sort, first) in [("id", 1), ("-size", 100_000), ("-peers", 100_000)] {
        let answer = get(&goat, &admin, &format!("/api/files?sort={sort}"));
        let list = answer.json();
        let list = list.as_array().unwrap();
        assert_eq!((list.len(), &list[0]["id"]), (1_000, &json!(first)), "{sort}");
        let last = &list[999]["id"];
        let query = format!("sort={sort}&limit=1000&after={last}");
        assert_eq!(answer.header("link"), format!("<?{query}>; rel=\"next\""));
        let next = good(&goat, &admin, &format!("/api/files?{query}"));
        let step = if first == 1 { 1 } else { -1 };
        assert_eq!(next[0]["id"], last.as_i64().unwrap() + step, "{sort}");
    }
    let grown = peak(&mut goat) - before;
    assert!(grown < 24_000, "a list of 100,000, {grown} KB of memory");
}

#[test]
fn every_list_is_read_to_its_end_by_its_links() {
    let database = Database::sqlite();
    let (goat, admin, berta, caro) = start(&database);
    for torrent in 0..5 {
        goat.add_torrent(hex(&info_hash(torrent)));
        for user in [&admin, &berta, &caro] {
            Announce::new(&user.passkey, info_hash(torrent), 1).accepted(&goat);
        }
    }
    wait_until("the books", || database.number("SELECT COUNT(*) FROM files_users") == 15);
    let walk = |path: &str, list: &str| -> Vec<Value> {
        let (mut rows, mut query) = (Vec::new(), "limit=2".to_string());
        loop {
            let answer = get(&goat, &admin, &format!("{path}?{query}"));
            let body = answer.json();
            let part = if list.is_empty() { &body } else { &body[list] };
            rows.extend(part.as_array().unwrap().iter().cloned());
            let Some(next) = answer.header("link").strip_prefix("<?") else {
                return rows;
            };
            query = next.strip_suffix(">; rel=\"next\"").unwrap().into();
        }
    };
    for (path, list) in [("/api/files", ""), ("/api/users", ""), ("/api/me", "torrents"), ("/api/files/1", "fileUsers")]
    {
        let body = good(&goat, &admin, path);
        let whole = if list.is_empty() { &body } else { &body[list] };
        assert_eq!(&walk(path, list), whole.as_array().unwrap(), "{path}");
    }
    assert_eq!(walk("/api/files", "").len(), 5);
    assert_eq!(walk("/api/files/1", "fileUsers").len(), 3);
}
