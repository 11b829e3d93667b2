//! Several goats on one MariaDB, which hear of each other through Redis.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, UNIX_EPOCH};

use goat::nodes::entry::{Head, Seal};
use goat::rules::limits::Failure;
use serde_json::{Value, json};

use crate::common::redis::Redis;
use crate::common::tls::{Authority, P256};
use crate::common::{
    AGENT, Announce, Database, Folder, Goat, Lock, MariaDb, PATIENCE, Random, User, faketime, free_port, hex,
    info_hash, peer_id, scrape, wait_for, wait_until,
};

/// Several nodes of one tracker, and what they share.
struct Nodes {
    goats: Vec<Goat>,
    redis: Redis,
    database: Database,
}

/// What all nodes share.
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n";

impl Nodes {
    fn start(test: &str, count: usize, settings: Value) -> Option<Nodes> {
        Nodes::on(test, Database::mariadb(test)?, count, settings)
    }

    fn on(test: &str, database: Database, count: usize, settings: Value) -> Option<Nodes> {
        let redis = Redis::start(test, &[])?;
        let mut nodes = Nodes { goats: Vec::new(), redis, database };
        for _ in 0..count {
            nodes.add(settings.clone());
        }
        nodes.goats.iter_mut().for_each(Goat::launch);
        nodes.meet();
        Some(nodes)
    }

    /// One more, which does not run yet.
    fn add(&mut self, mut settings: Value) -> usize {
        if settings["Redis"].is_null() {
            settings["Redis"] = json!(self.redis.url());
        }
        let goat = Goat::configure(&self.database, settings);
        fs::write(goat.folder.join("config.secret"), SECRET).unwrap();
        self.goats.push(goat);
        self.goats.len() - 1
    }

    /// Waits until all are there.
    fn meet(&self) {
        wait_until("the nodes to meet", || {
            let list = self.goats[0].json(&["node", "list"]);
            list.as_array().unwrap().len() == self.goats.len()
        });
    }

    fn member(&self, name: &str) -> User {
        self.goats[0].add_user(name)
    }

    /// Registers a torrent.
    fn torrent(&self, number: u32) -> [u8; 20] {
        let hash = info_hash(number);
        self.goats[0].add_torrent(hex(&hash));
        hash
    }

    /// How many peers each node knows of a torrent.
    fn peers(&self, member: &User, hash: [u8; 20]) -> Vec<i64> {
        let peers =
            |goat| scrape(goat, &member.passkey, hash).map_or(-1, |[seeders, _, _, leechers]| seeders + leechers);
        self.goats.iter().map(peers).collect()
    }

    fn credited(&self, member: &User) -> [i64; 2] {
        let of = |column: &str| self.database.number(&format!("SELECT {column} FROM users WHERE id = {}", member.id));
        [of("uploaded"), of("downloaded")]
    }

    /// Waits until nothing waits to be written at any node.
    fn settled(&self) {
        wait_until("everything to be written", || {
            self.goats[0].json(&["node", "list"]).as_array().unwrap().iter().all(|node| node["unsavedRows"] == 0)
        });
    }
}

fn ports(answer: &crate::common::Bencode) -> BTreeSet<u16> {
    answer.peers().iter().map(|peer| peer.port()).collect()
}

#[test]
fn a_peer_of_one_node_is_handed_out_by_the_others_and_leaves_them_when_it_stops_is_banned_or_falls_silent() {
    let Some(nodes) = Nodes::start("peers of other nodes", 3, json!({ "Interval": 2, "SlowDown": 0 })) else {
        return;
    };
    let (anna, berta, hash) = (nodes.member("anna"), nodes.member("berta"), nodes.torrent(1));
    let [a, b, c] = &nodes.goats[..] else { unreachable!() };
    let mut first = Announce::new(&anna.passkey, hash, 1);
    wait_until("the torrent and its member at A", || first.refusal(a).is_empty());
    let begin = Instant::now();
    wait_until("the peer at all nodes", || nodes.peers(&anna, hash) == [1, 1, 1]);
    crate::say!("seen at three nodes after {:?}", begin.elapsed());
    let mut second = Announce::new(&berta.passkey, hash, 2);
    assert_eq!(ports(&second.accepted(b)), BTreeSet::from([10_001]), "B hands out the peer of A");
    wait_until("the second at all nodes", || nodes.peers(&anna, hash) == [2, 2, 2]);

    first.event = "stopped";
    first.accepted(c);
    wait_until("stopped at C, gone everywhere", || nodes.peers(&anna, hash) == [1, 1, 1]);
    // Silence: of two Intervals.
    wait_until("silent at B, gone everywhere", || nodes.peers(&anna, hash) == [0, 0, 0]);

    second.event = "started";
    second.accepted(a);
    wait_until("back everywhere", || nodes.peers(&anna, hash) == [1, 1, 1]);
    a.json(&["user", "ban", "berta"]);
    second.event = "";
    wait_until("banned at all", || nodes.goats.iter().all(|goat| second.refusal(goat) == "Invalid passkey"));
    wait_until("a ban takes the peers out everywhere", || nodes.peers(&anna, hash) == [0, 0, 0]);
    wait_until("all rows to be closed", || {
        nodes.database.number("SELECT COUNT(*) FROM sessions WHERE closed = 0") == 0
    });
}

#[test]
fn bytes_announced_to_several_nodes_are_credited_once() {
    let Some(nodes) = Nodes::start("books of several nodes", 2, json!({ "SlowDown": 0 })) else {
        return;
    };
    let (anna, hash) = (nodes.member("anna"), nodes.torrent(1));
    let mut announce = Announce::new(&anna.passkey, hash, 1);
    wait_until("the torrent at both", || nodes.peers(&anna, hash).iter().all(|peers| *peers >= 0));
    for step in 0..20 {
        announce.uploaded += 1_000;
        announce.downloaded += 10;
        announce.left -= 10;
        announce.accepted(&nodes.goats[step % 2]);
        announce.event = "";
    }
    announce.left = 0;
    announce.event = "completed";
    announce.accepted(&nodes.goats[0]);
    announce.event = "stopped";
    announce.accepted(&nodes.goats[1]);
    wait_until("the books", || nodes.credited(&anna) == [20_000, 200]);
    nodes.settled();
    assert_eq!(nodes.credited(&anna), [20_000, 200]);
    assert_eq!(
        nodes.database.sql("SELECT completed, uploaded, downloaded, active FROM files_users"),
        [["1", "20000", "200", "0"]]
    );
    assert_eq!(nodes.database.number("SELECT completed FROM files"), 1);
}

#[test]
fn a_limit_of_torrents_and_of_clients_counts_what_is_at_other_nodes() {
    let Some(nodes) = Nodes::start("limits", 2, json!({ "Clients": 2 })) else {
        return;
    };
    let (anna, first, second) = (nodes.member("anna"), nodes.torrent(1), nodes.torrent(2));
    let [a, b] = &nodes.goats[..] else { unreachable!() };
    a.json(&["user", "limit", "anna", "1"]);
    wait_until("the limit at both", || {
        let refused = |goat| Announce::new(&anna.passkey, info_hash(9), 1).refusal(goat);
        [a, b].iter().all(|goat| refused(goat) == "Unregistered torrent")
    });
    wait_until("the torrents at both", || {
        [first, second].iter().all(|hash| nodes.peers(&anna, *hash).iter().all(|peers| *peers >= 0))
    });
    let one = Announce::new(&anna.passkey, first, 1);
    one.accepted(a);
    wait_until("known to both", || nodes.peers(&anna, first) == [1, 1]);
    wait_until("the limit to hold at B", || {
        Announce::new(&anna.passkey, second, 2).refusal(b) == "Exceeded active torrent limit: 2 > 1"
    });
    Announce::new(&anna.passkey, first, 3).accepted(a);
    wait_until("both clients at both", || nodes.peers(&anna, first) == [2, 2]);
    assert_eq!(Announce::new(&anna.passkey, first, 4).refusal(b), "Slow down", "a third client");
    let again = Announce { event: "", ..one };
    assert_eq!(again.refusal(b), "Slow down", "it was at A a moment ago");
}

#[test]
fn redis_that_is_away_slows_nobody_and_loses_nothing() {
    let Some(mut nodes) = Nodes::start("Redis away", 2, json!({ "SlowDown": 0 })) else {
        return;
    };
    let (anna, hash) = (nodes.member("anna"), nodes.torrent(1));
    wait_until("the torrent at both", || nodes.peers(&anna, hash).iter().all(|peers| *peers >= 0));
    let announce = |number| Announce::new(&anna.passkey, hash, number);
    let away = |nodes: &Nodes, count: usize| {
        let said = |goat: &Goat, words: &str| goat.log().matches(words).count();
        wait_until("both nodes to say so", || nodes.goats.iter().all(|goat| said(goat, "Redis is away") == count));
    };
    for (round, how) in ["killed", "stopped", "full", "flushed"].into_iter().enumerate() {
        let first = 2 * round as u16 + 1;
        match how {
            "killed" => nodes.redis.kill(),
            "stopped" => nodes.redis.process().signal(libc::SIGSTOP),
            "full" => drop(nodes.redis.cli(&["CONFIG", "SET", "maxmemory", "1"])),
            _ => drop(nodes.redis.cli(&["FLUSHALL"])),
        }
        let begin = Instant::now();
        // They are answered though Redis comes back only later.
        announce(first).accepted(&nodes.goats[0]);
        announce(first + 1).accepted(&nodes.goats[1]);
        if how != "flushed" {
            away(&nodes, round + 1);
        }
        match how {
            "killed" => nodes.redis.launch(),
            "stopped" => nodes.redis.process().signal(libc::SIGCONT),
            "full" => drop(nodes.redis.cli(&["CONFIG", "SET", "maxmemory", "0"])),
            _ => {}
        }
        let all = i64::from(first) + 1;
        wait_until("all peers at both", || nodes.peers(&anna, hash) == [all, all]);
        crate::say!("Redis {how}: all is known {:?} after", begin.elapsed());
    }
}

#[test]
fn a_node_that_starts_without_redis_is_a_tracker_and_one_with_a_wrong_password_ends() {
    let Some(mut nodes) = Nodes::start("no Redis", 1, json!({})) else {
        return;
    };
    nodes.redis.kill();
    nodes.goats[0].restart();
    let (anna, hash) = (nodes.member("anna"), nodes.torrent(1));
    wait_until("an answer", || Announce::new(&anna.passkey, hash, 1).refusal(&nodes.goats[0]).is_empty());
    assert!(nodes.goats[0].log().contains("Redis is away"), "{}", nodes.goats[0].log());

    let secured = Redis::start("a password", &["--requirepass", "s3cret@/:"]).unwrap();
    for (login, good) in [("", false), (":wrong@", false), (":s3cret@/:@", true)] {
        let url = format!("redis://{login}127.0.0.1:{}", secured.port);
        let node = nodes.add(json!({ "Redis": url }));
        let goat = &mut nodes.goats[node];
        goat.spawn();
        if good {
            wait_until("goat to listen", || goat.log().contains("listening for HTTP"));
            assert!(goat.stop().success());
        } else {
            assert_eq!(goat.process().wait().code(), Some(1), "{}", goat.log());
            assert!(goat.log().contains("Redis cannot be used: "), "{}", goat.log());
        }
        assert!(!goat.log().contains("s3cret"), "{}", goat.log());
        let (status, stdout, _) = goat.cli(&["check"]);
        assert_eq!(status.success(), good, "{stdout}");
    }

    // One that does not know the command says with what it was called.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://:s3cret@/:@{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"-ERR unknown command 'AUTH', with args beginning with: 's3cret@/:'\r\n");
        }
    });
    let node = nodes.add(json!({ "Redis": url }));
    let goat = &mut nodes.goats[node];
    goat.spawn();
    wait_until("that to be said", || goat.log().contains("with args beginning with: '***'"));
    assert!(!goat.log().contains("s3cret"), "{}", goat.log());
}

#[test]
fn wrong_keys_are_counted_over_all_nodes_and_over_a_restart() {
    let settings = json!({ "API": true });
    let Some(mut nodes) = Nodes::start("shared limits", 2, settings.clone()) else {
        return;
    };
    let anna = nodes.member("anna");
    let status = |goat: &Goat| super::api::get(goat, &anna, "/api/me").status;
    let guess = |goat: &Goat, n: u32| super::library::ask(goat, "GET", &format!("/{n:040}/rss"), "", b"").status;
    for n in 0..20 {
        assert_eq!(guess(&nodes.goats[0], n), 403);
    }
    let wrong = User { api_key: "wrong".into(), ..anna.clone() };
    for step in 0..20 {
        assert_eq!(super::api::get(&nodes.goats[step % 2], &wrong, "/api/me").status, 401);
    }
    wait_until("both to shut the address out", || nodes.goats.iter().all(|goat| status(goat) == 429));
    assert_eq!(guess(&nodes.goats[1], 20), 429, "passkeys that were tried before count as well");
    nodes.goats[0].restart();
    wait_until("that to outlive a restart", || status(&nodes.goats[0]) == 429);

    // Alone, too.
    let database = Database::sqlite();
    let alone = json!({ "API": true, "Redis": nodes.redis.url() });
    let mut goat = Goat::start(&database, alone);
    let berta = goat.add_user("berta");
    let wrong = User { api_key: "wrong".into(), ..berta.clone() };
    for _ in 0..20 {
        assert_eq!(super::api::get(&goat, &wrong, "/api/me").status, 401);
    }
    assert_eq!(super::api::get(&goat, &berta, "/api/me").status, 429);
    assert!(goat.log().contains("with SQLite this goat is alone"), "{}", goat.log());
    goat.restart();
    wait_until("the limit after a restart", || super::api::get(&goat, &berta, "/api/me").status == 429);
}

#[test]
fn a_signed_call_and_a_connection_id_work_at_any_node_and_a_nonce_once_at_all() {
    let settings = json!({ "API": true, "UDP": true, "SlowDown": 0 });
    let Some(nodes) = Nodes::start("one tracker", 2, settings) else {
        return;
    };
    let (anna, hash) = (nodes.member("anna"), nodes.torrent(1));
    let [a, b] = &nodes.goats[..] else { unreachable!() };
    let key = super::api::log_in(a, &anna);
    assert_eq!(key.call(a, "nonce-1").json()["username"], "anna");
    let again = key.call(b, "nonce-1");
    assert_eq!((again.status, again.error().as_str()), (401, "This nonce was used before"));
    assert_eq!(key.call(b, "nonce-2").json()["username"], "anna");

    wait_until("the torrent and the member at B", || Announce::new(&anna.passkey, hash, 1).refusal(b).is_empty());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let ask = |goat: &Goat, packet: &[u8]| {
        let mut answer = [0; 512];
        socket.send_to(packet, goat.address()).unwrap();
        let length = socket.recv(&mut answer).unwrap();
        answer[..length].to_vec()
    };
    let connected = ask(a, &[&0x0417_2710_1980_u64.to_be_bytes()[..], &[0; 4], &[7; 4]].concat());
    assert_eq!(connected.len(), 16);
    let path = format!("/{}/announce", anna.passkey);
    let mut packet = [&connected[8..], &[0, 0, 0, 1], &[8; 4], &hash, &peer_id(2)].concat();
    packet.extend([0; 24]); // counters: it seeds
    packet.extend([&[0, 0, 0, 2][..], &[0; 4], &[0; 4], &[255; 4], &10_002_u16.to_be_bytes()].concat());
    packet.extend([&[2, path.len() as u8], path.as_bytes()].concat());
    let answer = ask(b, &packet);
    assert_eq!(answer[..4], [0, 0, 0, 1], "{}", String::from_utf8_lossy(&answer));
    // One byte of it forged.
    packet[7] ^= 1;
    assert_eq!(ask(b, &packet)[..4], [0, 0, 0, 3]);
}

#[test]
fn nodes_are_listed_and_a_secret_that_differs_is_found() {
    let Some(mut nodes) = Nodes::start("the list of nodes", 2, json!({ "API": true })) else {
        return;
    };
    let anna = nodes.member("anna");
    let list = nodes.goats[0].json(&["node", "list"]);
    assert!(
        list.as_array().unwrap().iter().all(|node| node["sameSecret"] == true && node["database"] == true),
        "{list}"
    );
    let (status, stdout, _) = nodes.goats[1].cli(&["check"]);
    assert!(status.success() && stdout.contains("\nRedis: good\n"), "{stdout}");
    wait_until("the status of both at A", || {
        let status = super::api::get(&nodes.goats[0], &anna, "/api/status").json();
        status["redis"] == true && status["nodes"].as_array().is_some_and(|nodes| nodes.len() == 2)
    });
    // Where the secret is that counts.
    let folder = Folder::new();
    let third = nodes.add(json!({ "State": folder.path() }));
    fs::remove_file(nodes.goats[third].folder.join("config.secret")).unwrap();
    fs::write(folder.join("config.secret"), SECRET.replace('0', "1")).unwrap();
    nodes.goats[third].launch();
    nodes.meet();
    let (status, stdout, _) = nodes.goats[0].cli(&["check"]);
    let port = nodes.goats[third].port;
    assert!(!status.success() && stdout.contains(&format!(":{port}: another secret than ")), "{stdout}");
    let (_, stdout, _) = nodes.goats[third].cli(&["check"]);
    let line = stdout.lines().find(|line| line.contains("another secret than")).unwrap();
    assert!(line.contains(folder.path().to_str().unwrap()) && !line.contains(&port.to_string()), "{stdout}");
    let list = nodes.goats[third].json(&["node", "list"]);
    let same = list.as_array().unwrap().iter().filter(|node| node["sameSecret"] == true);
    assert_eq!(same.count(), 1, "{list}");
    assert!(nodes.goats[third].stop().success());
    wait_until("one that ended in good order to be gone", || {
        nodes.goats[0].json(&["node", "list"]).as_array().unwrap().len() == 2
    });
}

// ---- What is in Redis, and the way there --------------------------------------------------------------------------

#[test]
fn redis_is_reached_over_tls_by_a_user_with_a_password_and_in_another_database() {
    let (authority, port) = (Authority::new(), free_port());
    let issued = authority.issue("redis", P256);
    let show = |path: &std::path::Path| path.to_str().unwrap().to_string();
    let (port_text, root) = (port.to_string(), show(&authority.root()));
    let (certificate, key) = (show(&issued.certificate), show(&issued.key));
    let options = [
        ["--tls-port", &port_text],
        ["--tls-cert-file", &certificate],
        ["--tls-key-file", &key],
        ["--tls-ca-cert-file", &root],
        ["--tls-auth-clients", "no"],
    ];
    let user = ["--user", "goat", "on", ">s3cret", "~goat:*", "+@all"];
    let options = [&options.concat()[..], &user].concat();
    let Some(redis) = Redis::start("Redis with TLS", &options) else {
        return;
    };
    let Some(database) = Database::mariadb("Redis with TLS") else {
        return;
    };
    let url = format!("rediss://goat:s3cret@127.0.0.1:{port}/3");
    let mut nodes = Nodes { goats: Vec::new(), redis, database };
    for _ in 0..2 {
        let node = nodes.add(json!({ "Redis": url }));
        nodes.goats[node].environment = vec![("SSL_CERT_FILE".into(), root.clone())];
        nodes.goats[node].launch();
    }
    nodes.meet();
    let (anna, hash) = (nodes.member("anna"), nodes.torrent(1));
    wait_until("the torrent and its member at A", || {
        Announce::new(&anna.passkey, hash, 1).refusal(&nodes.goats[0]).is_empty()
    });
    wait_until("the peer at both", || nodes.peers(&anna, hash) == [1, 1]);
    let (status, stdout, _) = nodes.goats[0].cli(&["check"]);
    assert!(status.success() && stdout.contains("\nRedis: good\n"), "{stdout}");
    // The server's other port is without TLS: what it holds is in the database that the URL names.
    assert_eq!(nodes.redis.cli(&["-n", "0", "DBSIZE"]), "0");
    assert_eq!(nodes.redis.cli(&["-n", "3", "DBSIZE"]), "2");

    let wrong = [
        (&url[..], "/nowhere", "invalid peer certificate"),
        (&url.replace("s3cret", "guess"), &root, "WRONGPASS"),
        (&url.replace("/3", "/99"), &root, "DB index is out of range"),
    ];
    for (url, trusted, why) in wrong {
        let node = nodes.add(json!({ "Redis": url }));
        let goat = &mut nodes.goats[node];
        goat.environment = vec![("SSL_CERT_FILE".into(), trusted.into())];
        let (status, stdout, _) = goat.cli(&["check"]);
        assert!(!status.success(), "{stdout}");
        goat.spawn();
        wait_until("goat to say why", || goat.log().contains(why));
        assert!(!goat.log().contains("s3cret"), "{}", goat.log());
    }
}

#[test]
fn what_was_lost_with_a_redis_that_failed_over_to_an_empty_one_is_caught_up_from_the_database() {
    let settings = json!({ "SlowDown": 0, "API": true });
    let Some(mut nodes) = Nodes::start("a failover", 2, settings) else {
        return;
    };
    let (anna, hash) = (nodes.member("anna"), nodes.torrent(1));
    wait_until("the torrent at both", || nodes.peers(&anna, hash).iter().all(|peers| *peers >= 0));
    let entries = |nodes: &Nodes| {
        let log = nodes.redis.cli(&["KEYS", "goat:*:log"]);
        nodes.redis.cli(&["XLEN", &log]).parse::<u64>().unwrap()
    };
    // B does not hear of it, and Redis forgets it.
    nodes.goats[1].process().signal(libc::SIGSTOP);
    Announce::new(&anna.passkey, hash, 1).accepted(&nodes.goats[0]);
    wait_until("the session in the database", || nodes.database.number("SELECT COUNT(*) FROM sessions") == 1);
    let told = entries(&nodes) + 3;
    wait_until("A to tell it", || entries(&nodes) >= told);
    nodes.redis.kill();
    nodes.redis.launch();
    nodes.goats[1].process().signal(libc::SIGCONT);
    wait_until("the peer at both", || nodes.peers(&anna, hash) == [1, 1]);
    let metrics = super::metrics::metrics(&nodes.goats[1]);
    assert!(!metrics.contains("goat_nodes_gaps_total 0\n"), "B knows that it missed something");
}

#[test]
fn the_hours_of_the_history_are_sums_over_all_nodes() {
    let Some(nodes) = Nodes::start("hours", 2, json!({ "SlowDown": 0 })) else {
        return;
    };
    let (anna, hash) = (nodes.member("anna"), nodes.torrent(1));
    wait_until("the torrent at both", || nodes.peers(&anna, hash).iter().all(|peers| *peers >= 0));
    for (number, goat) in [1, 2].into_iter().zip(&nodes.goats) {
        for step in 0..10 {
            Announce {
                uploaded: 1_000 * u64::from(number) * step,
                event: if step == 0 { "started" } else { "" },
                ..Announce::new(&anna.passkey, hash, number)
            }
            .accepted(goat);
        }
    }
    let sums = || nodes.database.sql("SELECT SUM(announces), SUM(uploaded) FROM hours");
    wait_until("both nodes to add to the hour", || sums() == [["20", "27000"]]);
    nodes.goats.into_iter().for_each(|mut goat| {
        assert!(goat.stop().success());
    });
    let hours = "SELECT SUM(announces), SUM(uploaded) FROM hours";
    assert_eq!(nodes.database.sql(hours), [["20", "27000"]]);
}

/// How often rows of a table were read since the server counts that.
fn rows_read(server: &MariaDb, table: &str) -> u64 {
    let sql = format!(
        "SELECT ROWS_READ FROM information_schema.TABLE_STATISTICS WHERE TABLE_SCHEMA = 'goat' AND TABLE_NAME = '{table}'"
    );
    server.root(&sql).concat().first().map_or(0, |text| text.parse().unwrap())
}

#[test]
fn an_import_is_followed_once_by_each_node_and_a_change_that_is_committed_late_as_well() {
    const TORRENTS: u64 = 50_000;
    let Some(nodes) = Nodes::start("an import", 2, json!({})) else {
        return;
    };
    let Database::MariaDb(server) = &nodes.database else { unreachable!() };
    let anna = nodes.member("anna");
    let known = |hash: [u8; 20]| {
        let peers = |goat| scrape(goat, &anna.passkey, hash);
        nodes.goats.iter().all(|goat| peers(goat).is_some())
    };
    let first = nodes.torrent(1_000_000);
    wait_until("the member at both", || {
        let announce = Announce::new(&anna.passkey, first, 1);
        nodes.goats.iter().all(|goat| announce.refusal(goat).is_empty())
    });
    wait_until("nothing to be left to follow", || nodes.database.number("SELECT COUNT(*) FROM changes") == 0);
    server.root("SET GLOBAL userstat = 1");
    let row = |number: u64| format!("('{}', 1)", hex(&info_hash(number as u32)));
    let insert = |numbers: std::ops::Range<u64>| {
        let rows: Vec<String> = numbers.map(row).collect();
        format!("INSERT INTO files (info_hash, verified) VALUES {}", rows.join(", "))
    };
    // Its change has a lower id than all others, and is committed after they were followed.
    let late = Lock::after(&nodes.database, &insert(TORRENTS..TORRENTS + 1));
    for from in (0..TORRENTS).step_by(2_500) {
        server.sql(&insert(from..from + 2_500));
    }
    wait_until("all of them at both nodes", || {
        (0..TORRENTS).step_by(1_249).all(|number| known(info_hash(number as u32)))
    });
    assert!(!known(info_hash(TORRENTS as u32)));
    late.commit();
    wait_until("the late one at both nodes", || known(info_hash(TORRENTS as u32)));
    wait_until("all changes to be removed", || {
        // To count them would be to read them.
        let some = "SELECT EXISTS (SELECT * FROM changes)";
        nodes.database.number(some) == 0
    });
    let (files, changes) = (rows_read(server, "files"), rows_read(server, "changes"));
    crate::say!("{TORRENTS} torrents: {files} rows of files were read, {changes} of changes");
    let each = 2 * (TORRENTS + 1);
    assert!((each..each + TORRENTS / 10).contains(&files), "{files} rows of files read by two nodes");
    // Each node numbers, follows and removes them, and reads none of them again meanwhile.
    assert!(changes < 30 * TORRENTS, "{changes} rows of changes read");
}

/// The most bytes that a goat ever had in memory.
fn peak(goat: &mut Goat) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", goat.process().id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.unwrap().split_whitespace().next().unwrap();
    1024 * kilobytes.parse::<u64>().unwrap()
}

/// More than a goat has in these tests, with two answers of the most bytes.
const MUCH: u64 = 100 << 20;

#[test]
fn what_somebody_else_writes_into_redis_is_not_believed_and_takes_little_memory() {
    let Some(mut nodes) = Nodes::start("a hostile tenant", 2, json!({ "SlowDown": 0 })) else {
        return;
    };
    let (anna, hash) = (nodes.member("anna"), nodes.torrent(1));
    wait_until("the torrent at both", || nodes.peers(&anna, hash).iter().all(|peers| *peers >= 0));
    let (redis, goats) = (&nodes.redis, &nodes.goats);
    let [log, table] = ["log", "nodes"].map(|what| redis.cli(&["KEYS", &format!("goat:*:{what}")]));
    let add = |fields: &[&[u8]]| {
        let words = [&[&b"XADD"[..], log.as_bytes(), b"*"], fields].concat();
        assert!(redis.raw(&words).starts_with('$'));
    };
    // What the nodes tell is not to be read, nor to be changed and told again.
    let genuine = redis.cli(&["XREVRANGE", &log, "+", "-", "COUNT", "1"]);
    assert!(!genuine.contains("failures"), "{genuine}");
    let (many, large) = (vec![b"x"; 20_000], vec![b'x'; 1 << 20]);
    let many: Vec<&[u8]> = many.iter().map(|word| &word[..]).collect();
    for fields in [
        &[&b"v"[..], b"2"][..],
        &[b"v", b"2", b"d", b""],
        &[b"v", b"2", b"d", &large],
        &[b"v", b"3", b"d", &large],
        &[b"v", &large, b"d", b"\xff"],
        &[&large, &large],
        &many,
    ] {
        add(fields);
    }
    // Nodes that are none: the goats take them out of the table.
    for (name, text) in [
        ("no JSON", "x"),
        ("another", "{\"name\":\"other\",\"time\":4000000000}"),
        ("old", "{\"name\":\"old\",\"time\":1}"),
        ("deep", &"[".repeat(100_000)),
    ] {
        redis.raw(&[b"HSET", table.as_bytes(), name.as_bytes(), text.as_bytes()]);
    }
    wait_until("the table to hold the nodes alone", || redis.cli(&["HLEN", &table]) == "2");
    Announce::new(&anna.passkey, hash, 1).accepted(&goats[0]);
    wait_until("the peer at both", || nodes.peers(&anna, hash) == [1, 1]);
    for goat in goats {
        assert!(!goat.log().contains("Redis is away"), "{}", goat.log());
    }

    // What is too large, or no stream: it is said, and they go on without Redis.
    let huge = vec![b'x'; 64 << 20];
    type Harm<'a> = (&'a str, &'a dyn Fn(), &'a dyn Fn());
    let heal = || drop(redis.cli(&["DEL", &log, &table]));
    let harms: [Harm; 3] = [
        ("too long", &|| add(&[b"v", b"2", b"d", &huge]), &heal),
        ("too long", &|| drop(redis.raw(&[b"HSET", table.as_bytes(), b"huge", &huge])), &heal),
        (
            "WRONGTYPE",
            &|| {
                heal();
                assert_eq!(redis.cli(&["SET", &log, "x"]), "OK");
            },
            &heal,
        ),
    ];
    let said = |words: &str, times: usize| {
        wait_until(words, || goats.iter().all(|goat| goat.log().matches(words).count() >= times));
    };
    for (round, (why, harm, heal)) in (1_u16..).zip(harms) {
        harm();
        said("Redis is away", round.into());
        assert!(goats[0].log().contains(why), "{}", goats[0].log());
        Announce::new(&anna.passkey, hash, 1 + round).accepted(&goats[0]);
        heal();
        said("Redis is back", round.into());
        let all = 1 + i64::from(round);
        wait_until("all peers at both", || nodes.peers(&anna, hash) == [all, all]);
    }
    for goat in &mut nodes.goats {
        let peak = peak(goat);
        assert!(peak < MUCH, "{peak} bytes");
        goat.process().assert_running();
    }
}

#[test]
fn what_goats_told_long_ago_is_not_believed_if_somebody_tells_it_again() {
    let Some(nodes) = Nodes::start("told again", 2, json!({ "API": true, "SlowDown": 0 })) else {
        return;
    };
    let (anna, hash) = (nodes.member("anna"), nodes.torrent(1));
    wait_until("the torrent at both", || nodes.peers(&anna, hash).iter().all(|peers| *peers >= 0));
    let node = &nodes.goats[0];
    let log = nodes.redis.cli(&["KEYS", "goat:*:log"]);
    let identity = u64::from_str_radix(log.split(':').nth(1).unwrap(), 16).unwrap();
    let seal = Seal::new(&goat::config::load(&node.config_path()).unwrap(), identity).unwrap();
    let tell = |run: u64, age: u64| {
        let time = UNIX_EPOCH.elapsed().unwrap().as_millis() as u64 - age;
        let failures = vec![(Failure::Login, [127, 0, 0, 1].into()); 20];
        let entry = seal.seal(&Head { run, sequence: 1, time, failures }, b"").unwrap();
        assert!(nodes.redis.raw(&[b"XADD", log.as_bytes(), b"*", b"v", b"2", b"d", &entry]).starts_with('$'));
    };
    let status = || super::api::get(node, &anna, "/api/me").status;
    tell(1, 600_000);
    Announce::new(&anna.passkey, hash, 1).accepted(&nodes.goats[1]);
    wait_until("what was told after it", || nodes.peers(&anna, hash) == [1, 1]);
    assert_eq!(status(), 200);
    tell(2, 0);
    wait_until("the address to be shut out", || status() == 429);
}

#[test]
fn a_redis_that_lies_neither_stops_a_goat_nor_fills_its_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let told = Arc::new(AtomicUsize::new(0));
    const LIES: [&[u8]; 9] = [
        b"$999999999999\r\nx",
        b"*999999999\r\n+x\r\n",
        b"*1\r\n",
        b"%99999999999999\r\n$0\r\n\r\n",
        b"+",
        b"\0\xff\r\n",
        b"+OK\r\n",
        b"-MOVED 1 127.0.0.1:1\r\n",
        b":-9223372036854775808\r\n",
    ];
    let count = told.clone();
    std::thread::spawn(move || {
        for (mut stream, lie) in listener.incoming().flatten().zip(LIES.iter().cycle()) {
            let count = count.clone();
            std::thread::spawn(move || {
                // As much as is read of it, until the goat has enough.
                while stream.write_all(&lie.repeat(1_000)).is_ok() {}
                count.fetch_add(1, Relaxed);
            });
        }
    });
    let Some(database) = Database::mariadb("a lying Redis") else {
        return;
    };
    let url = format!("redis://127.0.0.1:{port}");
    let mut goat = Goat::start(&database, json!({ "SlowDown": 0, "Redis": url }));
    let (anna, hash) = (goat.add_user("anna"), info_hash(1));
    goat.add_torrent(hex(&hash));
    wait_until("all lies to be told twice", || told.load(Relaxed) >= 2 * LIES.len());
    wait_until("an answer", || Announce::new(&anna.passkey, hash, 1).refusal(&goat).is_empty());
    let peak = peak(&mut goat);
    assert!(peak < 4 * MUCH, "{peak} bytes");
    assert!(goat.log().contains("Redis is away"), "{}", goat.log());
    assert!(goat.stop().success());
    assert!(!goat.log().contains("panicked"), "{}", goat.log());
}

// ---- Everything at once -------------------------------------------------------------------------------------------

/// A way to a server that can be cut off.
struct Way {
    port: u16,
    open: Arc<AtomicBool>,
}

impl Way {
    fn to(server: String) -> Way {
        let way = Way { port: free_port(), open: Arc::new(AtomicBool::new(true)) };
        let listener = TcpListener::bind(("127.0.0.1", way.port)).unwrap();
        let open = way.open.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&server) else {
                    continue;
                };
                if open.load(Relaxed) {
                    pass(&stream, &server, &open);
                    pass(&server, &stream, &open);
                }
            }
        });
        way
    }
}

/// Passes on what comes, until one of them ends or the way is cut.
fn pass(from: &TcpStream, to: &TcpStream, open: &Arc<AtomicBool>) {
    let (mut from, mut to, open) = (from.try_clone().unwrap(), to.try_clone().unwrap(), open.clone());
    from.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 16_384];
        while open.load(Relaxed) {
            match from.read(&mut bytes) {
                Ok(0) => break,
                Ok(length) if to.write_all(&bytes[..length]).is_err() => break,
                Err(error) if error.kind() != ErrorKind::WouldBlock => break,
                _ => {}
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}

/// How a client counts, and where it announces.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Counts {
    /// On while it is paused; each announce to another node.
    On,
    /// From 0 again at each start; a counter for each of two URLs, which are two nodes, under one peer id.
    FromZero,
}

/// A client whose moved bytes are known.
struct Client {
    announce: Announce,
    counts: Counts,
    /// When it did what it did, and what its counters were at its start.
    moved: [u64; 2],
    base: [u64; 2],
    starts: u32,
    /// When it may announce next; when its life is to end.
    next: Instant,
    until: Instant,
    runs: bool,
    /// When it seeded: in all lives, in seconds.
    seeds: Option<Instant>,
    seeded: f64,
    completed: bool,
}

/// One announce at an address; whether it was answered with peers.
fn tell(at: SocketAddr, announce: &Announce) -> Option<()> {
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let head =
        format!("GET {} HTTP/1.1\r\nHost: goat\r\nUser-Agent: {AGENT}\r\nConnection: close\r\n\r\n", announce.target());
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8_lossy(&answer);
    assert!(!text.contains("failure reason"), "{announce:?}: {text}");
    text.contains("8:complete").then_some(())
}

impl Client {
    fn new(passkey: &str, number: u16, torrent: u32, now: Instant, random: &mut Random) -> Client {
        let mut announce = Announce::new(passkey, info_hash(torrent), number);
        announce.left = if random.once_in(2) { 0 } else { 1_000_000 };
        Client {
            completed: announce.left == 0,
            announce,
            counts: if random.once_in(2) { Counts::On } else { Counts::FromZero },
            moved: [0, 0],
            base: [0, 0],
            starts: 0,
            next: now + Duration::from_millis(random.below(10_000)),
            until: now,
            runs: false,
            seeds: None,
            seeded: 0.0,
        }
    }

    /// Announces to a node of which there is one, however often it takes: to another where one is away.
    fn tell(&self, nodes: &[SocketAddr], random: &mut Random) -> u64 {
        let mut at = random.below(nodes.len() as u64) as usize;
        // Two counters are told to two nodes, and one over two families as well.
        let times = if self.counts == Counts::FromZero || random.once_in(3) { 2 } else { 1 };
        for _ in 0..times {
            wait_for("an answer of any node", || {
                at = (at + 1) % nodes.len();
                tell(nodes[at], &self.announce)
            });
        }
        times
    }

    /// Does what is to be done now; `end` is when everybody stops. Returns how often it announced.
    fn act(&mut self, nodes: &[SocketAddr], end: Instant, last: bool, random: &mut Random) -> u64 {
        let now = Instant::now();
        let event = match self.runs {
            _ if last && self.runs => "stopped",
            true if now >= self.until && end > now + Duration::from_secs(150) => "stopped",
            true if !self.completed && random.once_in(10) => "completed",
            true => "",
            false => "started",
        };
        if last && !self.runs {
            return 0;
        }
        if event == "started" {
            self.starts += 1;
            self.runs = true;
            self.base = if self.counts == Counts::On { [0, 0] } else { self.moved };
            // What follows a restart is credited once it is two minutes old.
            let life = if self.starts == 1 { 5 + random.below(30) } else { 140 };
            self.until = now + Duration::from_secs(life);
        } else {
            let downloads = if self.announce.left > 0 { random.below(1_000) } else { 0 };
            self.moved = [self.moved[0] + random.below(1_000_000), self.moved[1] + downloads];
        }
        if event == "completed" {
            (self.announce.left, self.completed) = (0, true);
        }
        self.announce.event = event;
        [self.announce.uploaded, self.announce.downloaded] =
            [self.moved[0] - self.base[0], self.moved[1] - self.base[1]];
        let begin = Instant::now();
        let times = self.tell(nodes, random);
        if let Some(since) = self.seeds.filter(|_| event == "stopped") {
            self.seeded += since.elapsed().as_secs_f64();
            self.seeds = None;
        } else if self.announce.left == 0 && self.seeds.is_none() {
            self.seeds = Some(begin);
        }
        let pause = if event == "stopped" {
            self.runs = false;
            10_000 + random.below(5_000)
        } else {
            // Whoever stops has been quiet for a moment, as clocks and news are behind by seconds.
            2_000 + random.below(6_000)
        };
        self.next = Instant::now() + Duration::from_millis(pause);
        times
    }
}

/// Has clients announce to all nodes for a time, while `trouble` does what it does; then compares with what they moved.
fn live(nodes: &mut Nodes, clients: usize, seconds: u64, mut trouble: impl FnMut(&mut Nodes, u64)) {
    const THREADS: usize = 8;
    const TORRENTS: u32 = 50;
    let sql = |rows: String, into: &str| format!("INSERT INTO {into} VALUES {rows}");
    let members: Vec<String> = (1..=50).map(|id| format!("({id}, 'user{id}', '{id:040x}')")).collect();
    let torrents: Vec<String> = (1..=TORRENTS).map(|id| format!("({id}, '{}', 1)", hex(&info_hash(id)))).collect();
    nodes.database.sql(&sql(members.join(", "), "users (id, username, passkey)"));
    nodes.database.sql(&sql(torrents.join(", "), "files (id, info_hash, verified)"));
    let addresses: Vec<SocketAddr> = nodes.goats.iter().map(Goat::address).collect();
    let first = Announce::new(&format!("{:040x}", 50), info_hash(TORRENTS), 0);
    wait_until("members and torrents at all nodes", || nodes.goats.iter().all(|goat| first.refusal(goat).is_empty()));
    let (start, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
    let end = start + Duration::from_secs(seconds);
    let (done, told) = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (addresses, stop) = (addresses.clone(), stop.clone());
                scope.spawn(move || {
                    let mut random = Random(thread as u64);
                    let mut own: Vec<Client> = (thread..clients)
                        .step_by(THREADS)
                        .map(|n| {
                            let passkey = format!("{:040x}", 1 + n % 50);
                            Client::new(&passkey, 1 + n as u16, 1 + n as u32 / 50 % TORRENTS, start, &mut random)
                        })
                        .collect();
                    let mut told = 0;
                    while !stop.load(Relaxed) {
                        let due = own.iter_mut().filter(|client| client.next <= Instant::now());
                        told += due.map(|client| client.act(&addresses, end, false, &mut random)).sum::<u64>();
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    while own.iter().any(|client| client.runs) {
                        let due = own.iter_mut().filter(|client| client.next <= Instant::now());
                        told += due.map(|client| client.act(&addresses, end, true, &mut random)).sum::<u64>();
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    (own, told)
                })
            })
            .collect();
        while Instant::now() < end {
            trouble(nodes, start.elapsed().as_secs());
            std::thread::sleep(Duration::from_millis(500));
        }
        trouble(nodes, u64::MAX);
        stop.store(true, Relaxed);
        let parts: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let told = parts.iter().map(|(_, told)| told).sum::<u64>();
        (parts.into_iter().flat_map(|(own, _)| own).collect::<Vec<_>>(), told)
    });
    nodes.settled();
    wait_until("all sessions to be closed", || {
        nodes.database.number("SELECT COUNT(*) FROM sessions WHERE closed = 0 AND peer_id NOT LIKE '%000000000000'")
            == 0
    });
    compare(nodes, &done, told);
}

fn compare(nodes: &Nodes, clients: &[Client], told: u64) {
    let rows = nodes.database.sql("SELECT hex(peer_id), uploaded, downloaded, seed_time, completed FROM peers");
    let held: HashMap<String, Vec<u64>> = rows
        .iter()
        .map(|row| (row[0].to_lowercase(), row[1..].iter().map(|text| text.parse().unwrap()).collect()))
        .collect();
    let (mut moved, mut over, mut under, mut wrong) = (0, 0, 0, Vec::new());
    let (mut seeded, mut longer, mut shorter, mut snatched, mut completed) = (0.0, 0.0_f64, 0.0, 0, 0);
    for client in clients.iter().filter(|client| client.starts > 0) {
        let row = held.get(&hex(&client.announce.peer_id)).cloned().unwrap_or(vec![0; 4]);
        let sum = |bytes: [u64; 2]| bytes[0] + bytes[1];
        let credited = [row[0], row[1]];
        moved += sum(client.moved);
        over += (0..2).map(|i| credited[i].saturating_sub(client.moved[i])).sum::<u64>();
        under += (0..2).map(|i| client.moved[i].saturating_sub(credited[i])).sum::<u64>();
        if credited != client.moved && wrong.len() < 5 {
            wrong.push(format!(
                "{:?} {:?} {credited:?} {}",
                client.counts,
                client.moved,
                hex(&client.announce.peer_id)
            ));
        }
        seeded += client.seeded;
        longer = longer.max(row[2] as f64 - client.seeded);
        shorter += (client.seeded - row[2] as f64).max(0.0);
        snatched += row[3];
        completed += u64::from(client.completed && client.moved[1] > 0);
    }
    crate::say!(
        "{told} announces of {} clients: {moved} bytes moved, {over} credited above, {under} below; seeded {seeded:.0} s, \
         at most {longer:.1} s too long, {shorter:.0} s too short in all; {snatched} snatches of about {completed}",
        clients.len()
    );
    let sum = nodes.database.number("SELECT SUM(uploaded + downloaded) FROM users");
    assert_eq!(sum, nodes.database.number("SELECT SUM(uploaded + downloaded) FROM peers"), "members and sessions");
    assert_eq!((over, under), (0, 0), "{wrong:#?}");
    let snatches = nodes.database.number("SELECT SUM(completed) FROM files");
    assert_eq!(snatches, nodes.database.number("SELECT COUNT(*) FROM totals WHERE completed = 1"));
}

/// The two nodes of the trials below, on two servers if these are one cluster: B has another clock, and reaches its
/// server on a way that can be cut.
fn two_nodes(test: &str, first: MariaDb, second: Option<&MariaDb>) -> Option<(Nodes, Way)> {
    let library = faketime(test)?;
    let server = second.unwrap_or(&first);
    let (way, mut settings) = (Way::to(server.address()), trial());
    settings["DB"] = server.config();
    settings["DB"]["Host"] = json!(format!("127.0.0.1:{}", way.port));
    let mut nodes = Nodes::on(test, Database::MariaDb(first), 1, trial())?;
    let b = nodes.add(settings);
    let clock = [("LD_PRELOAD", library.as_str()), ("FAKETIME", "+2s"), ("DONT_FAKE_MONOTONIC", "1")];
    let clock = clock.map(|(name, value)| (name.into(), value.into()));
    nodes.goats[b].environment = clock.to_vec();
    nodes.goats[b].launch();
    nodes.meet();
    Some((nodes, way))
}

fn trial() -> Value {
    json!({ "SlowDown": 0, "Clients": 1_000, "Interval": 3600 })
}

/// GOAT_NODES is for how many seconds clients announce, about 700 a second, instead of 40.
#[test]
fn clients_of_two_nodes_are_credited_what_they_moved_whatever_is_killed() {
    let test = "two nodes in trouble";
    let Some((mut nodes, way)) = MariaDb::start(test).and_then(|server| two_nodes(test, server, None)) else {
        return;
    };
    let seconds = std::env::var("GOAT_NODES").map_or(40, |text| text.parse().unwrap());
    let (clients, lasts, mut step) = if seconds > 100 { (2_400, 8, 0) } else { (400, 3, 0) };
    live(&mut nodes, clients, seconds, |nodes, passed| {
        // What was ended comes back before the next trouble, and everything at the end.
        while if passed == u64::MAX { step % STEPS != 0 } else { step < passed / lasts } {
            step += 1;
            disturb(nodes, &way, step % STEPS);
            if passed != u64::MAX {
                break;
            }
        }
    });
}

/// GOAT_GALERA is for how many seconds; without it this is not tried, for it takes minutes.
#[test]
fn clients_of_two_nodes_on_a_galera_cluster_are_credited_what_they_moved() {
    let Ok(seconds) = std::env::var("GOAT_GALERA") else {
        return;
    };
    let (test, seconds) = ("a Galera cluster", seconds.parse().unwrap());
    let Some([first, second]) = MariaDb::cluster(test) else {
        return;
    };
    let Some((mut nodes, way)) = two_nodes(test, first, Some(&second)) else {
        return;
    };
    let mut step = 0;
    live(&mut nodes, 600, seconds, |nodes, passed| {
        // Of a cluster of two none may be killed: the other would not go on.
        while if passed == u64::MAX { step % STEPS != 0 } else { step < passed / 5 } {
            step += 1;
            if ![5, 6].contains(&(step % STEPS)) {
                disturb(nodes, &way, step % STEPS);
            }
            if passed != u64::MAX {
                break;
            }
        }
    });
}

const STEPS: u64 = 13;

fn disturb(nodes: &mut Nodes, way: &Way, step: u64) {
    match step {
        1 => nodes.goats[0].kill(),
        2 => nodes.goats[0].launch(),
        3 => nodes.redis.kill(),
        4 => nodes.redis.launch(),
        5 => server(nodes).kill(),
        6 => server(nodes).launch(),
        7 => nodes.goats[1].kill(),
        8 => nodes.goats[1].launch(),
        9 => way.open.store(false, Relaxed),
        10 => nodes.goats[1].kill(), // its journal has what the database has not
        11 => way.open.store(true, Relaxed),
        12 => nodes.goats[1].launch(),
        _ => {}
    }
}

fn server(nodes: &mut Nodes) -> &mut MariaDb {
    match &mut nodes.database {
        Database::MariaDb(server) => server,
        Database::Sqlite(_) => unreachable!(),
    }
}
