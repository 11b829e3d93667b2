//! The end and the beginning: what goat knows survives a restart, a kill and the loss of its database, and
//! nothing is counted twice or forgotten.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::common::{
    AGENT, Announce, Bencode, Database, Goat, Lock, MariaDb, PATIENCE, basic, connect_from, hex, info_hash, peer_id,
    scrape, wait_for, wait_until,
};
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
    the_swarm_and_the_counters_survive_a_restart
    the_swarm_and_the_counters_survive_a_kill
    a_stop_leaves_nothing_unwritten_that_was_answered
    totals_are_exact_however_often_goat_is_killed
    what_somebody_elses_lock_keeps_from_being_written_waits_in_the_journal
}

fn the_swarm_and_the_counters_survive_a_restart(database: &Database) {
    survive(database, Goat::restart);
}

fn the_swarm_and_the_counters_survive_a_kill(database: &Database) {
    survive(database, |goat| {
        goat.kill();
        goat.launch();
    });
}

fn survive(database: &Database, restart: impl Fn(&mut Goat)) {
    let mut goat = prepare(database);
    let member = |name: &str| goat.add_user(name).passkey;
    let [anna, bert, carl, dora, emil] = ["anna", "bert", "carl", "dora", "emil"].map(member);
    let limited = goat.json(&["user", "add", "fred", "--torrent-limit", "1"]);
    let fred = limited["passkey"].as_str().unwrap().to_string();
    goat.launch();

    // A seeder; a leecher with two addresses; a partial seed; one who has just become a seeder; one who
    // has gone; a leecher who may not be on a second torrent.
    let announce = |passkey: &str, number: u16| {
        let mut announce = Announce::new(passkey, info_hash(1), number);
        announce.forwarded_for = Some(format!("203.0.113.{number}"));
        announce
    };
    let mut seeder = announce(&anna, 1);
    (seeder.left, seeder.uploaded) = (0, 100);
    seeder.accepted(&goat);
    let mut leecher = announce(&bert, 2);
    (leecher.uploaded, leecher.downloaded) = (2_000, 3_000);
    leecher.accepted(&goat);
    leecher.forwarded_for = Some("2001:db8::2".into());
    leecher.accepted(&goat);
    leecher.forwarded_for = Some("203.0.113.2".into());
    let mut paused = announce(&carl, 3);
    paused.event = "paused";
    paused.accepted(&goat);
    let mut done = announce(&dora, 4);
    done.accepted(&goat);
    (done.left, done.downloaded, done.event) = (0, 1_000_000, "completed");
    done.accepted(&goat);
    let mut gone = announce(&emil, 5);
    gone.accepted(&goat);
    (gone.uploaded, gone.event) = (1_000, "stopped");
    gone.accepted(&goat);
    let one = announce(&fred, 6);
    one.accepted(&goat);

    let counts = Some([2, 1, 2, 3]);
    wait_until("the snatch", || scrape(&goat, &anna, info_hash(1)) == counts);
    let uploaded = |name: &str| database.number(&format!("SELECT uploaded FROM users WHERE username = '{name}'"));
    wait_until("the books", || {
        database.number("SELECT count(*) FROM peers WHERE active = 1") == 5
            && (uploaded("anna"), uploaded("bert"), uploaded("emil")) == (100, 2_000, 1_000)
    });

    restart(&mut goat);

    assert_eq!(scrape(&goat, &anna, info_hash(1)), counts);
    // The first announce, of somebody new.
    let new = announce(&emil, 7);
    let peers = new.accepted(&goat).peers();
    let at = |ip: &str, number: u16| SocketAddr::new(ip.parse::<IpAddr>().unwrap(), 10_000 + number);
    let mut expected = vec![at("2001:db8::2", 2)];
    expected.extend([1, 2, 3, 4, 6].map(|number| at(&format!("203.0.113.{number}"), number)));
    expected.sort();
    assert_eq!(peers, expected);

    let mut second = one.clone();
    second.info_hash = info_hash(2);
    assert_eq!(second.refusal(&goat), "Exceeded active torrent limit: 2 > 1");
    // Each is credited the difference to the last announce before; who has gone, too.
    (seeder.uploaded, seeder.event) = (150, "");
    seeder.accepted(&goat);
    (leecher.uploaded, leecher.downloaded, leecher.event) = (2_007, 3_011, "");
    leecher.accepted(&goat);
    (gone.uploaded, gone.event) = (1_500, "started");
    gone.accepted(&goat);
    // A snatch is counted once.
    done.accepted(&goat);
    wait_until("the books", || (uploaded("anna"), uploaded("bert"), uploaded("emil")) == (150, 2_007, 1_500));
    assert_eq!(database.number("SELECT downloaded FROM users WHERE username = 'bert'"), 3_011);
    assert_eq!(database.number("SELECT downloaded FROM users WHERE username = 'dora'"), 1_000_000);
    assert_eq!(database.number("SELECT completed FROM files WHERE id = 1"), 1);
}

fn a_stop_leaves_nothing_unwritten_that_was_answered(database: &Database) {
    let mut goat = prepare(database);
    let passkeys: Vec<String> = (0..4).map(|i| goat.add_user(&format!("user {i}")).passkey).collect();
    goat.launch();
    let address = goat.address();
    let answered = std::thread::scope(|scope| {
        let members = passkeys.iter().enumerate().map(|(i, passkey)| {
            scope.spawn(move || {
                let mut announce = Announce::new(passkey, info_hash(1), i as u16);
                while announced(address, &announce) {
                    announce.uploaded += 1_000;
                }
                // The last was not answered; whether it was taken nobody knows.
                announce.uploaded
            })
        });
        let members: Vec<_> = members.collect();
        wait_until("announces to be written", || {
            database.number("SELECT count(*) FROM peers WHERE uploaded > 100000") == 4
        });
        let status = goat.stop();
        assert_eq!(status.code(), Some(0), "{}", goat.log());
        let counters = members.into_iter().map(|member| member.join().unwrap() as i64);
        counters.collect::<Vec<i64>>()
    });
    let rows = database.sql("SELECT p.uploaded, u.uploaded FROM peers p, users u WHERE p.user_id = u.id ORDER BY u.id");
    assert_eq!(rows.len(), 4);
    for (row, next) in rows.iter().zip(answered) {
        assert_eq!(row[0], row[1], "sessions and totals disagree");
        let written: i64 = row[0].parse().unwrap();
        assert!(written == next || written == next - 1_000, "{written} written, {} answered", next - 1_000);
    }
    assert!(goat.log().trim_end().ends_with("stopped"), "{}", goat.log());
}

fn totals_are_exact_however_often_goat_is_killed(database: &Database) {
    let mut goat = prepare(database);
    let passkeys: Vec<String> = (0..4).map(|i| goat.add_user(&format!("user {i}")).passkey).collect();
    goat.launch();
    let address = goat.address();
    let mut members: Vec<Announce> = passkeys.iter().map(|passkey| Announce::new(passkey, info_hash(1), 1)).collect();
    members.iter().for_each(|announce| _ = announce.accepted(&goat));
    wait_until("the sessions", || database.number("SELECT count(*) FROM peers") == 4);

    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stopping = SetOnDrop(&stop);
        for announce in &mut members {
            scope.spawn(|| {
                announce.event = "";
                while !stop.load(Relaxed) {
                    // Where goat is away the next announce makes up for it.
                    announce.uploaded += 1_000;
                    announced(address, announce);
                }
            });
        }
        let mut before = 0;
        for _ in 0..5 {
            wait_until("more announces to be written", || {
                let now = database.number("SELECT sum(uploaded) FROM users");
                now > before && std::mem::replace(&mut before, now) < now
            });
            goat.kill();
            goat.launch();
        }
    });
    members.iter().for_each(|announce| _ = announce.accepted(&goat));
    let expected: Vec<String> = members.iter().map(|announce| announce.uploaded.to_string()).collect();
    for table in ["users ORDER BY id", "peers ORDER BY user_id", "files_users ORDER BY user_id"] {
        let sql = format!("SELECT uploaded FROM {table}");
        wait_until(&format!("{table}: {expected:?}"), || database.sql(&sql).concat() == expected);
    }
}

fn what_somebody_elses_lock_keeps_from_being_written_waits_in_the_journal(database: &Database) {
    let mut goat = prepare(database);
    let passkey = goat.add_user("anna").passkey;
    goat.launch();
    let mut announce = Announce::new(&passkey, info_hash(1), 1);
    announce.accepted(&goat);
    wait_until("the session", || database.number("SELECT count(*) FROM peers") == 1);
    let lock = Lock::new(database);
    announce.uploaded = 500;
    announce.accepted(&goat);
    // Far less than a server lets others wait for a lock.
    stop_in_time(&mut goat);
    let said = format!("from {}", goat.journal().display());
    assert!(goat.log().contains(&said), "{}", goat.log());
    assert!(!goat.segments().is_empty());
    lock.release();
    goat.launch();
    // It is settled before anybody is answered.
    assert_eq!(database.number("SELECT uploaded FROM users"), 500);
    assert_eq!(database.number("SELECT uploaded FROM peers"), 500);
}

#[test]
fn sigterm_and_ctrl_c_end_goat_with_status_0() {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let database = Database::sqlite();
        let mut goat = prepare(&database);
        let passkey = goat.add_user("anna").passkey;
        goat.launch();
        Announce::new(&passkey, info_hash(1), 1).accepted(&goat);
        // Connections on which nothing is going on keep nobody.
        let _silent = TcpStream::connect(goat.address()).unwrap();
        let mut idle = TcpStream::connect(goat.address()).unwrap();
        idle.set_read_timeout(Some(crate::common::PATIENCE)).unwrap();
        idle.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        assert!(idle.read(&mut [0; 1000]).unwrap() > 0);
        goat.process().signal(signal);
        assert_eq!(goat.process().wait().code(), Some(0), "{}", goat.log());
        assert_eq!(database.number("SELECT count(*) FROM peers"), 1);
        while !matches!(idle.read(&mut [0; 1000]), Ok(0) | Err(_)) {}
    }
}

#[test]
fn a_request_in_flight_is_answered_before_goat_stops() {
    let (database, mut goat, passkey) = sqlite();
    let request = request(&Announce::new(&passkey, info_hash(1), 1));
    let mut client = TcpStream::connect(goat.address()).unwrap();
    client.write_all(&request[..100]).unwrap();
    wait_for_connections(&goat, 1);
    goat.process().signal(libc::SIGTERM);
    wait_until("goat to stop", || goat.log().contains("stopping"));
    client.write_all(&request[100..]).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("incomplete"), "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
    assert_eq!(goat.process().wait().code(), Some(0));
    assert_eq!(database.number("SELECT count(*) FROM peers"), 1);
}

#[test]
fn what_has_come_on_kept_connections_before_the_order_to_stop_is_answered() {
    let (_database, mut goat, passkey) = sqlite();
    let keep = |_| {
        let mut stream = TcpStream::connect(goat.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET /announce HTTP/1.1\r\n\r\n").unwrap();
        assert!(stream.read(&mut [0; 1000]).unwrap() > 0);
        stream
    };
    let mut kept: Vec<TcpStream> = (0..2_000).map(keep).collect();
    // All of it is there before goat is told anything.
    goat.process().signal(libc::SIGSTOP);
    for (number, stream) in (1..).zip(&mut kept) {
        stream.write_all(&request(&Announce::new(&passkey, info_hash(1), number))).unwrap();
    }
    goat.process().signal(libc::SIGTERM);
    goat.process().signal(libc::SIGCONT);
    for (number, mut stream) in (1..).zip(kept) {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{number}: {}", answer.escape_ascii());
    }
    assert_eq!(goat.process().wait().code(), Some(0));
}

#[test]
fn who_does_not_read_a_long_list_does_not_keep_goat_from_stopping() {
    let database = Database::sqlite();
    let mut goat = prepare(&database);
    let anna = goat.add_user("anna");
    database.add_long_list();
    goat.launch();
    let mut deaf = connect_from(Ipv4Addr::LOCALHOST, goat.address(), 4096, PATIENCE).unwrap();
    let key = basic("anna", &anna.api_key);
    let request = format!("GET /api/files HTTP/1.1\r\nHost: goat\r\nAuthorization: {key}\r\n\r\n");
    deaf.write_all(request.as_bytes()).unwrap();
    let mut status = [0; 13];
    deaf.read_exact(&mut status).unwrap();
    assert_eq!(&status, b"HTTP/1.1 200 ");
    Announce::new(&anna.passkey, info_hash(1), 1).accepted(&goat);
    stop_in_time(&mut goat);
    assert_eq!(database.number("SELECT count(*) FROM peers"), 1);
}

#[test]
fn a_second_signal_ends_goat_at_once() {
    let (_database, mut goat, _) = sqlite();
    // Half a request would be waited for.
    let mut client = TcpStream::connect(goat.address()).unwrap();
    client.write_all(b"GET /").unwrap();
    wait_for_connections(&goat, 1);
    goat.process().signal(libc::SIGTERM);
    wait_until("goat to stop", || goat.log().contains("stopping"));
    goat.process().signal(libc::SIGTERM);
    let status = goat.process().wait();
    assert_eq!(status.code(), Some(1), "{status}");
    assert!(!goat.log().trim_end().ends_with("stopped"), "{}", goat.log());
}

#[test]
fn what_came_while_the_database_was_locked_is_written_before_goat_stops() {
    let (database, mut goat, passkey) = sqlite();
    let anna = Announce::new(&passkey, info_hash(1), 1);
    anna.accepted(&goat);
    wait_until("the session", || database.number("SELECT count(*) FROM peers") == 1);
    let lock = Lock::new(&database);
    // One announce that goat tries to write, and, when it is at that, another.
    Announce::new(&passkey, info_hash(1), 2).accepted(&goat);
    wait_for_writer(&mut goat);
    Announce::new(&passkey, info_hash(1), 3).accepted(&goat);
    goat.process().signal(libc::SIGTERM);
    wait_until("goat to stop", || goat.log().contains("stopping"));
    lock.release();
    assert_eq!(goat.process().wait().code(), Some(0));
    let written = database.sql("SELECT port4 FROM peers ORDER BY port4").concat();
    assert_eq!(written, ["10001", "10002", "10003"], "{}", goat.log());
    assert_eq!(goat.segments(), [] as [PathBuf; 0]);
}

/// Until goat has taken what is to be written, and waits for the lock on the database: SQLite sleeps between two looks at
/// it, and the thread that writes, which is the first, sleeps for nothing else.
fn wait_for_writer(goat: &mut Goat) {
    let id = goat.process().id();
    let sleeps = [libc::SYS_nanosleep, libc::SYS_clock_nanosleep].map(|number| format!("{number} "));
    wait_until("goat to wait for the lock", || {
        let call = fs::read_to_string(format!("/proc/{id}/task/{id}/syscall")).unwrap();
        sleeps.iter().any(|sleep| call.starts_with(sleep))
    });
}

#[test]
fn what_a_new_session_says_while_its_first_announce_is_written_is_kept() {
    for killed in [false, true] {
        let (database, mut goat, passkey) = sqlite();
        let lock = Lock::new(&database);
        let mut announce = Announce::new(&passkey, info_hash(1), 1);
        announce.accepted(&goat);
        wait_for_writer(&mut goat);
        (announce.uploaded, announce.event) = (500, "");
        announce.accepted(&goat);
        lock.release();
        wait_until("the session", || database.number("SELECT count(*) FROM peers") == 1);
        if killed {
            goat.kill();
            goat.launch();
            assert_eq!(database.number("SELECT uploaded FROM users"), 500);
        }
        wait_until("the books", || database.number("SELECT uploaded FROM users") == 500);
    }
}

#[test]
fn announces_are_answered_while_the_database_is_away_and_written_when_it_is_back() {
    let Some((mut server, goat, [anna, bert, carl])) = mariadb("the database goes and comes back") else {
        return;
    };
    let mut seeder = Announce::new(&anna, info_hash(1), 1);
    seeder.left = 0;
    seeder.accepted(&goat);
    wait_until("the session", || server.number("SELECT count(*) FROM peers") == 1);

    server.kill();
    let mut leecher = Announce::new(&bert, info_hash(1), 2);
    assert_eq!(leecher.accepted(&goat).peers().len(), 1);
    wait_until("goat to notice", || goat.log().contains("cannot be written"));
    seeder.event = "";
    for uploaded in 1..=50 {
        seeder.uploaded = uploaded * 1_000;
        seeder.accepted(&goat);
    }
    (leecher.downloaded, leecher.left, leecher.event) = (1_000_000, 0, "completed");
    leecher.accepted(&goat);
    let third = Announce::new(&carl, info_hash(1), 3);
    assert_eq!(third.accepted(&goat).peers().len(), 2);
    assert_eq!(scrape(&goat, &anna, info_hash(1)).map(|counts| counts[0]), Some(2));
    server.launch();

    wait_until("the books", || server.users("uploaded, downloaded") == ["50000 0", "0 1000000", "0 0"]);
    assert_eq!(server.number("SELECT completed FROM files WHERE id = 1"), 1);
    assert_eq!(server.number("SELECT sum(announced) FROM files_users"), 54);
    wait_until("goat to say so", || goat.log().contains("can be written again"));
    assert_eq!(database_lines(&goat).len(), 2, "{}", goat.log());
}

#[test]
fn a_database_that_is_away_while_nobody_announces_is_one_line_in_the_log() {
    let Some((mut server, goat, [anna, ..])) = mariadb("the database goes while goat is idle") else {
        return;
    };
    server.kill();
    wait_until("goat to notice", || goat.log().contains("cannot be written"));
    // Several rounds of the keeper: that nothing happens cannot be awaited.
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(database_lines(&goat).len(), 1, "{}", goat.log());
    server.launch();
    wait_until("goat to notice", || goat.log().contains("can be written again"));
    Announce::new(&anna, info_hash(1), 1).accepted(&goat);
    wait_until("the session", || server.number("SELECT count(*) FROM peers") == 1);
    assert_eq!(database_lines(&goat).len(), 2, "{}", goat.log());
}

#[test]
fn strangers_write_nothing_into_the_log_while_the_database_is_away() {
    let Some((mut server, goat, [anna, ..])) = mariadb("strangers while the database is away") else {
        return;
    };
    server.kill();
    Announce::new(&anna, info_hash(1), 1).accepted(&goat);
    wait_until("goat to notice", || goat.log().contains("cannot be written"));
    let before = goat.log().lines().count();
    for number in 0..19 {
        let stranger = Announce::new(&format!("{number:040}"), info_hash(1), 1);
        assert_eq!(stranger.refusal(&goat), "Invalid passkey");
        let unknown = Announce::new(&anna, info_hash(100 + number), 1);
        assert_eq!(unknown.refusal(&goat), "Unregistered torrent");
    }
    let log = goat.log();
    let more: Vec<&str> = log.lines().skip(before).collect();
    assert!(more.len() <= 2, "{} more lines, such as {}", more.len(), more[0]);
}

#[test]
fn a_database_server_that_hangs_keeps_goat_neither_from_answering_nor_from_stopping() {
    let Some((server, mut goat, [anna, ..])) = mariadb("the database server hangs") else {
        return;
    };
    let mut announce = Announce::new(&anna, info_hash(1), 1);
    announce.accepted(&goat);
    wait_until("the session", || server.number("SELECT count(*) FROM peers") == 1);
    let hanging = server.pause();
    announce.uploaded = 500;
    announce.accepted(&goat);
    stop_in_time(&mut goat);
    drop(hanging);
    goat.launch();
    assert_eq!(server.users("uploaded"), ["500", "0", "0"]);
    assert_eq!(server.number("SELECT uploaded FROM peers"), 500);
}

#[test]
fn announces_that_wait_for_a_database_that_hangs_do_not_keep_goat_from_stopping() {
    let Some(database) = Database::mariadb("announces over UDP wait for the database") else {
        return;
    };
    let mut goat = Goat::start(&database, json!({ "UDP": true, "Passkey": false }));
    let server = Server(database);
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(goat.address()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let connect = [0, 0, 4, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0, 7, 7, 7, 7];
    let mut answer = [0; 16];
    client.send(&connect).unwrap();
    client.recv(&mut answer).unwrap();
    let _hanging = server.pause();
    for number in 1..=40 {
        let head = [&answer[8..], &[0, 0, 0, 1, 0, 0, 0, number as u8]].concat();
        let who = [info_hash(number), peer_id(1)].concat();
        let numbers = [0, 0, 0, 0, 0, 0, 0, 0, 0, u32::MAX].map(u32::to_be_bytes);
        let announce = [head, who, numbers.concat(), vec![0x1a, 0xe1]].concat();
        assert_eq!(client.send(&announce).unwrap(), 98);
    }
    // What is asked last is answered first: goat has them all, and they wait.
    client.send(&connect).unwrap();
    client.recv(&mut answer).unwrap();
    assert_eq!(answer[..8], [0, 0, 0, 0, 7, 7, 7, 7]);
    stop_in_time(&mut goat);
}

#[test]
fn totals_are_exact_however_often_the_database_dies() {
    let Some((mut server, goat, passkeys)) = mariadb("the database dies again and again") else {
        return;
    };
    let address = goat.address();
    let mut members: Vec<Announce> = passkeys.iter().map(|passkey| Announce::new(passkey, info_hash(1), 1)).collect();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stopping = SetOnDrop(&stop);
        for announce in &mut members {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    assert!(announced(address, announce), "an announce was not answered");
                    announce.event = "";
                    announce.uploaded += 1_000;
                }
                announce.uploaded -= 1_000;
            });
        }
        let mut before = 0;
        for _ in 0..4 {
            wait_until("more announces to be written", || {
                let now = server.number("SELECT sum(uploaded) FROM users");
                now > before && std::mem::replace(&mut before, now) < now
            });
            server.kill();
            server.launch();
        }
    });
    let expected: Vec<String> = members.iter().map(|announce| format!("{}", announce.uploaded)).collect();
    wait_until(&format!("the books: {expected:?}"), || server.users("uploaded") == expected);
    let sessions = server.0.sql("SELECT uploaded FROM peers ORDER BY user_id").concat();
    assert_eq!(sessions, expected);
}

#[test]
fn what_could_not_be_written_is_written_once_by_the_next_start() {
    let Some((mut server, mut goat, [anna, bert, carl])) = mariadb("the rest of a run") else {
        return;
    };
    let mut first = Announce::new(&anna, info_hash(1), 1);
    first.accepted(&goat);
    let second = Announce::new(&bert, info_hash(1), 2);
    second.accepted(&goat);
    wait_until("the sessions", || server.number("SELECT count(*) FROM peers") == 2);

    server.kill();
    (first.uploaded, first.event) = (1_000, "");
    first.accepted(&goat);
    wait_until("goat to notice", || goat.log().contains("cannot be written"));
    first.uploaded = 1_500;
    first.accepted(&goat);
    let mut third = Announce::new(&carl, info_hash(1), 3);
    (third.downloaded, third.left, third.event) = (77, 0, "completed");
    third.accepted(&goat);
    let status = goat.stop();
    assert_eq!(status.code(), Some(0), "{}", goat.log());

    let journal = goat.journal();
    assert!(goat.log().contains(journal.to_str().unwrap()), "the log must say where the rest is: {}", goat.log());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&journal), 0o700);
    let rest = contents(&goat);
    assert!(!rest.is_empty());
    for (file, bytes) in &rest {
        assert_eq!(mode(file), 0o600);
        let holds = |passkey: &&String| bytes.windows(40).any(|part| part == passkey.as_bytes());
        assert!(![&anna, &bert, &carl].iter().any(holds));
    }

    // A start without the database fails, and leaves it there.
    let (status, _, stderr) = goat.cli(&["run"]);
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert_eq!(contents(&goat), rest);

    // Starts that are killed, each a bit later than the one before.
    server.launch();
    for milliseconds in (0..200).step_by(10) {
        let mut start = goat.command(&["run"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        start.kill().unwrap();
        start.wait().unwrap();
    }
    goat.launch();
    let books = || {
        let users = server.users("uploaded, downloaded");
        let announced = server.0.sql("SELECT announced FROM files_users ORDER BY user_id").concat();
        (users, announced, server.number("SELECT completed FROM files WHERE id = 1"))
    };
    let strings = |texts: [&str; 3]| texts.map(String::from).to_vec();
    // `completed` as the first word of a session is not credited: its counters are the baseline.
    let expected = (strings(["1500 0", "0 0", "0 0"]), strings(["3", "1", "1"]), 1);
    assert_eq!(books(), expected);

    // A start that was killed after it had written everything, but before it had removed the files.
    goat.stop();
    assert_eq!(goat.segments(), [] as [PathBuf; 0]);
    rest.iter().for_each(|(file, bytes)| fs::write(file, bytes).unwrap());
    goat.launch();
    assert_eq!(books(), expected);
    assert_eq!(scrape(&goat, &anna, info_hash(1)), Some([1, 1, 2, 2]));
    first.uploaded = 1_600;
    first.accepted(&goat);
    wait_until("the next announce", || server.users("uploaded") == ["1600", "0", "0"]);
}

/// Waits until goat ends by itself, and says why.
fn ends_because_it_was_replaced(goat: &mut Goat) {
    let begin = Instant::now();
    let status = goat.process().wait();
    let took = begin.elapsed();
    assert_eq!(status.code(), Some(1), "{}", goat.log());
    let said = "it was replaced, restored or removed while goat was running";
    assert!(goat.log().contains(said), "{}", goat.log());
    assert!(took < Duration::from_secs(15), "goat noticed it after {took:?}");
}

#[test]
fn a_file_of_sqlite_that_is_replaced_or_removed_ends_goat() {
    for busy in [false, true] {
        for remove in [false, true] {
            let (database, mut goat, passkey) = sqlite();
            let Database::Sqlite(folder) = &database else { unreachable!() };
            let mut announce = Announce::new(&passkey, info_hash(1), 1);
            announce.uploaded = 100;
            announce.accepted(&goat);
            wait_until("the books", || database.number("SELECT uploaded FROM users") == 100);
            let copy = folder.join("copy.db");
            database.sql(&format!("VACUUM INTO '{}'", copy.display()));
            if busy {
                announce.uploaded = 200;
                announce.accepted(&goat);
            }
            for part in ["goat.db-wal", "goat.db-shm", "goat.db"] {
                let _ = fs::remove_file(folder.join(part));
            }
            if !remove {
                fs::rename(&copy, folder.join("goat.db")).unwrap();
            }
            ends_because_it_was_replaced(&mut goat);
            if !remove {
                // What is there now is another time of the same books: nothing is counted twice.
                goat.launch();
                announce.uploaded = 300;
                announce.event = "";
                announce.accepted(&goat);
                wait_until("the books", || database.number("SELECT uploaded FROM users") == 300);
            } else {
                assert!(!folder.join("goat.db").exists(), "goat made a database");
            }
        }
    }
}

#[test]
fn a_file_of_sqlite_that_is_restored_in_its_place_ends_goat() {
    let (database, mut goat, passkey) = sqlite();
    let Database::Sqlite(folder) = &database else { unreachable!() };
    let backup = folder.join("backup.db");
    let backup = backup.display();
    let shell = |words: &str| {
        let mut shell = std::process::Command::new("sqlite3");
        shell.args(["-cmd", ".timeout 30000"]).arg(folder.join("goat.db")).arg(words);
        let output = shell.output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    };
    let bert = goat.add_user("bert");
    shell(&format!(".backup '{backup}'"));
    let mut announce = Announce::new(&passkey, info_hash(1), 1);
    announce.uploaded = 100;
    announce.accepted(&goat);
    wait_until("the books", || database.number("SELECT sum(uploaded) FROM users") == 100);
    shell(&format!(".restore '{backup}'"));
    ends_because_it_was_replaced(&mut goat);
    goat.launch();
    // What was moved meanwhile is there again only if the journal still held it.
    let mut announce = Announce::new(&bert.passkey, info_hash(1), 2);
    announce.uploaded = 50;
    announce.accepted(&goat);
    wait_until("the books", || database.number("SELECT uploaded FROM users WHERE username = 'bert'") == 50);
}

#[test]
fn a_dump_that_is_imported_into_mariadb_again_ends_goat() {
    let Some((server, mut goat, [anna, bert, _])) = mariadb("a dump imported again") else {
        return;
    };
    let Database::MariaDb(mariadb) = &server.0 else { unreachable!("made by mariadb()") };
    let run = |program: &str, words: &[&str], input: Vec<u8>| -> Vec<u8> {
        let mut command = std::process::Command::new(program);
        command.arg("--no-defaults").arg("--socket").arg(mariadb.socket());
        command.args(["--user=goat", "--password=goat"]).args(words);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&input).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{program}");
        output.stdout
    };
    let dump = run("mariadb-dump", &["--single-transaction", "goat"], Vec::new());
    let mut announce = Announce::new(&anna, info_hash(1), 1);
    announce.uploaded = 100;
    announce.accepted(&goat);
    wait_until("the books", || server.users("uploaded") == ["100", "0", "0"]);
    run("mariadb", &["goat"], dump);
    ends_because_it_was_replaced(&mut goat);
    goat.launch();
    // What anna has moved is there again only if the journal still held it.
    let mut announce = Announce::new(&bert, info_hash(1), 2);
    announce.uploaded = 50;
    announce.accepted(&goat);
    wait_until("the books", || server.users("uploaded")[1] == "50");
}

// What the rules use.

/// A goat that is not started yet, with two torrents, and this machine as a proxy that can play any host.
fn prepare(database: &Database) -> Goat {
    let goat = Goat::prepare(database, json!({ "SlowDown": 0, "API": true, "TrustedProxies": ["127.0.0.1"] }));
    for number in [1, 2] {
        assert_eq!(goat.add_torrent(hex(&info_hash(number))), i64::from(number));
    }
    goat
}

/// Ends goat as it promises: within 10 seconds, and with status 0.
fn stop_in_time(goat: &mut Goat) {
    let start = Instant::now();
    let status = goat.stop();
    let took = start.elapsed();
    assert_eq!(status.code(), Some(0), "{}", goat.log());
    let late = took > Duration::from_secs(10);
    assert!(!late, "goat took {took:?} to end:\n{}", goat.log());
}

/// A running goat on SQLite with one member.
fn sqlite() -> (Database, Goat, String) {
    let database = Database::sqlite();
    let mut goat = prepare(&database);
    let passkey = goat.add_user("anna").passkey;
    goat.launch();
    (database, goat, passkey)
}

/// A running goat on MariaDB with three members; None where there is no MariaDB.
fn mariadb(test: &str) -> Option<(Server, Goat, [String; 3])> {
    let database = Database::mariadb(test)?;
    let mut goat = prepare(&database);
    let passkeys = ["anna", "bert", "carl"].map(|name| goat.add_user(name).passkey);
    goat.launch();
    wait_until("goat to be ready", || goat.log().contains("listening for HTTP"));
    Some((Server(database), goat, passkeys))
}

/// A MariaDB that is killed and started again.
struct Server(Database);

impl Server {
    fn server(&mut self) -> &mut MariaDb {
        match &mut self.0 {
            Database::MariaDb(server) => server,
            Database::Sqlite(_) => unreachable!("made by mariadb()"),
        }
    }

    fn kill(&mut self) {
        self.server().kill();
    }

    fn launch(&mut self) {
        self.server().launch();
    }

    /// Stops the server without ending it: it answers nothing until the result is dropped.
    fn pause(&self) -> Paused {
        let id = self.0.sql("SELECT @@pid_file").concat().concat();
        let id = fs::read_to_string(id).unwrap();
        let paused = Paused(id.trim().parse().unwrap());
        paused.signal(libc::SIGSTOP);
        paused
    }

    fn number(&self, sql: &str) -> i64 {
        self.0.number(sql)
    }

    /// These columns of all users, in one text each.
    fn users(&self, columns: &str) -> Vec<String> {
        let rows = self.0.sql(&format!("SELECT {columns} FROM users ORDER BY id"));
        rows.iter().map(|row| row.join(" ")).collect()
    }
}

/// A process of this test that was stopped, and goes on when this goes out of scope.
struct Paused(i32);

impl Paused {
    fn signal(&self, signal: i32) {
        // SAFETY: no memory is passed. The server is ended by the test alone, so the id is its own.
        assert_eq!(unsafe { libc::kill(self.0, signal) }, 0);
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        self.signal(libc::SIGCONT);
    }
}

/// Sets a flag at the end of a block, however it ends.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn request(announce: &Announce) -> Vec<u8> {
    let target = announce.target();
    format!("GET {target} HTTP/1.1\r\nUser-Agent: {AGENT}\r\nConnection: close\r\n\r\n").into_bytes()
}

/// Whether goat, which may be about to end, has answered an announce; it must not refuse it.
fn announced(address: SocketAddr, announce: &Announce) -> bool {
    let mut answer = Vec::new();
    let exchange = TcpStream::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(crate::common::PATIENCE))?;
        stream.write_all(&request(announce))?;
        stream.read_to_end(&mut answer)
    });
    let body = answer.windows(4).position(|four| four == b"\r\n\r\n").map(|end| &answer[end + 4..]);
    let (Ok(_), Some(body)) = (exchange, body) else {
        return false;
    };
    let answer = Bencode::parse(body);
    assert!(answer.get("failure reason").is_none(), "{announce:?}: {answer:?}");
    true
}

/// Waits until goat has taken so many connections of clients.
fn wait_for_connections(goat: &Goat, count: usize) {
    let port = format!(":{:04X}", goat.port);
    wait_for("goat to take the connection", || {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        // Established, with nothing unread, and with a file: accepted.
        let taken = rows
            .filter(|row| row[1].ends_with(&port) && row[3] == "01" && row[4].ends_with(":00000000") && row[9] != "0");
        (taken.count() >= count).then_some(())
    });
}

/// The files of the journal.
fn contents(goat: &Goat) -> Vec<(PathBuf, Vec<u8>)> {
    let files = goat.segments().into_iter();
    files.map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

/// The lines of the log that say that the database cannot be written, or can again.
fn database_lines(goat: &Goat) -> Vec<String> {
    let log = goat.log();
    let lines =
        log.lines().filter(|line| line.contains("cannot") || line.contains("can be") || line.contains("could not"));
    lines.map(String::from).collect()
}
