//! A web site beside goat: what anyone writes into the database by plain SQL takes effect, and what goat
//! writes can be read there. Every rule holds on SQLite and on MariaDB.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Announce, Database, Goat, hex, http_get, info_hash, scrape, wait_until};
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
    a_new_user_and_a_new_torrent_are_known_at_once
    what_is_changed_of_a_user_counts_within_5_seconds
    what_is_changed_of_a_torrent_counts_within_5_seconds
    a_ban_counts_within_5_seconds_while_accounts_cannot_be_written
    what_is_changed_of_the_whitelist_counts_within_5_seconds
    two_thousand_bans_count_within_5_seconds
    a_ban_counts_within_5_seconds_while_200_000_torrents_are_taken_over
    a_row_that_replaces_another_counts_within_5_seconds
    an_unknown_client_of_a_member_is_recorded_once
    an_unknown_torrent_of_a_member_is_recorded_once
    at_most_1000_clients_wait_for_approval_and_who_clears_them_makes_room
    at_most_1000_torrents_wait_for_approval_and_who_clears_them_makes_room
    what_members_move_is_in_the_database
    counters_too_large_for_the_database_do_not_keep_others_from_being_written
    tables_imported_by_hand_are_those_that_goat_makes
    rows_that_make_no_sense_are_refused
}

fn a_new_user_and_a_new_torrent_are_known_at_once(database: &Database) {
    let site = Site::start(database);
    for number in 1..=20 {
        let passkey = site.insert_user(&format!("user {number}"));
        let announce = Announce::new(&passkey, info_hash(number), 1);
        let hash = hex(&info_hash(number));
        // By hand, a hash may come in capital letters.
        let hash = if number % 2 == 0 { hash } else { hash.to_uppercase() };
        site.sql(&format!("INSERT INTO files (info_hash, verified) VALUES ('{hash}', 1)"));
        announce.accepted(&site.goat);
        assert_eq!(scrape(&site.goat, &passkey, info_hash(number)), Some([0, 0, 1, 1]));
    }
    // One by one, too, and by a scrape first.
    let passkey = site.insert_user("late");
    assert_eq!(scrape(&site.goat, &passkey, info_hash(1)), Some([0, 0, 1, 1]));
}

fn what_is_changed_of_a_user_counts_within_5_seconds(database: &Database) {
    let site = Site::start(database);
    site.insert_torrent(info_hash(1));
    site.insert_torrent(info_hash(2));
    let names = ["anna", "bert", "carl", "dora", "emil"];
    let members: Vec<Announce> =
        (1..).zip(names).map(|(number, name)| Announce::new(&site.insert_user(name), info_hash(1), number)).collect();
    let [banned, renewed, limited, removed, other] = &members[..] else { panic!("five members") };
    members.iter().for_each(|announce| _ = announce.accepted(&site.goat));
    let seen_by_other = || other.accepted(&site.goat).peers().len();
    assert_eq!(seen_by_other(), 4);
    let second = Announce { info_hash: info_hash(2), ..limited.clone() };
    // Whether a second torrent is too much; tried, and undone.
    let too_much = || {
        let refusal = second.refusal(&site.goat);
        if refusal.is_empty() {
            let stopped = Announce { event: "stopped", ..second.clone() };
            stopped.accepted(&site.goat);
        }
        refusal == "Exceeded active torrent limit: 2 > 1"
    };
    let invalid = |announce: &Announce| announce.refusal(&site.goat) == "Invalid passkey";
    site.settle();

    let passkey = "f".repeat(40);
    site.sql("UPDATE users SET banned = 1 WHERE username = 'anna'");
    site.sql(&format!("UPDATE users SET passkey = '{passkey}' WHERE username = 'bert'"));
    site.sql("UPDATE users SET torrent_limit = 1 WHERE username = 'carl'");
    site.sql("DELETE FROM users WHERE username = 'dora'");
    let renewed_passkey = Announce { passkey: Some(passkey), ..renewed.clone() };
    within_5_seconds("a ban, a passkey, a limit or a removal", || {
        // Not so often that it counts as guessing.
        std::thread::sleep(Duration::from_millis(400));
        let takes_new = renewed_passkey.refusal(&site.goat).is_empty();
        takes_new && invalid(banned) && invalid(renewed) && invalid(removed) && too_much()
    });
    // Who is on a torrent may stay.
    limited.accepted(&site.goat);
    renewed_passkey.accepted(&site.goat);
    assert_eq!(seen_by_other(), 2, "who is banned or removed is still handed out");

    site.sql("UPDATE users SET banned = 0 WHERE username = 'anna'");
    site.sql("UPDATE users SET torrent_limit = 2 WHERE username = 'carl'");
    within_5_seconds("a pardon or a higher limit", || banned.refusal(&site.goat).is_empty() && !too_much());
    assert_eq!(seen_by_other(), 3);
    wait_until("the sessions in the database to be the same", || {
        site.sql("SELECT DISTINCT port4 FROM peers WHERE active = 1 ORDER BY port4").concat()
            == ["10001", "10002", "10003", "10005"]
    });
}

fn what_is_changed_of_a_torrent_counts_within_5_seconds(database: &Database) {
    let site = Site::start(database);
    for number in [1, 2, 4] {
        site.insert_torrent(info_hash(number));
    }
    let (anna, bert) = (site.insert_user("anna"), site.insert_user("bert"));
    let on = |number: u32| Announce::new(&anna, info_hash(number), number as u16);
    for number in [1, 2, 4] {
        on(number).accepted(&site.goat);
        Announce::new(&bert, info_hash(number), 100).accepted(&site.goat);
    }
    site.settle();

    let [one, two, three, four] = [1, 2, 3, 4].map(|number| hex(&info_hash(number)));
    site.sql(&format!("UPDATE files SET verified = 0 WHERE info_hash = '{one}'"));
    site.sql(&format!("UPDATE files SET info_hash = '{three}' WHERE info_hash = '{two}'"));
    site.sql(&format!("DELETE FROM files WHERE info_hash = '{four}'"));
    // What is unknown is recorded when it is announced, and then waits for approval: so each is to be
    // refused for its own reason once.
    let reasons = [(1, "Unverified torrent"), (2, "Unregistered torrent"), (4, "Unregistered torrent")];
    let mut seen = [false; 3];
    within_5_seconds("a doubt, another hash or a removal", || {
        for ((number, reason), seen) in reasons.iter().zip(&mut seen) {
            *seen = *seen || on(*number).refusal(&site.goat) == *reason;
        }
        seen == [true; 3]
    });
    on(3).accepted(&site.goat);
    for (number, counts) in [(1, None), (2, None), (3, Some([0, 0, 1, 1])), (4, None)] {
        assert_eq!(scrape(&site.goat, &anna, info_hash(number)), counts, "torrent {number}");
    }

    // Approved again, its swarm is still there; registered again, it begins with an empty one.
    site.sql(&format!("UPDATE files SET verified = 1 WHERE info_hash = '{one}'"));
    site.sql(&format!("DELETE FROM files WHERE info_hash = '{four}'"));
    site.sql(&format!("INSERT INTO files (id, info_hash, verified) VALUES (77, '{four}', 1)"));
    within_5_seconds("an approval or a new torrent", || {
        on(1).refusal(&site.goat).is_empty() && on(4).refusal(&site.goat).is_empty()
    });
    assert_eq!(scrape(&site.goat, &anna, info_hash(1)), Some([0, 0, 2, 2]));
    assert_eq!(scrape(&site.goat, &anna, info_hash(4)), Some([0, 0, 1, 1]));
    wait_until("its session", || site.number("SELECT count(*) FROM peers WHERE file_id = 77") == 1);
}

fn what_is_changed_of_the_whitelist_counts_within_5_seconds(database: &Database) {
    let site = Site::start(database);
    site.insert_torrent(info_hash(1));
    let usual = Announce::new(&site.insert_user("anna"), info_hash(1), 1);
    usual.accepted(&site.goat);
    let mut new = Announce::new(usual.passkey.as_ref().unwrap(), info_hash(1), 2);
    new.peer_id = *b"-XX1000-123456789012";
    new.agent = "NewClient/1.2.3".into();
    let refused = |client: &Announce| client.refusal(&site.goat) == "Your client is not whitelisted";
    let accepted = |client: &Announce| client.refusal(&site.goat).is_empty();
    assert!(refused(&new));
    let recorded = "SELECT count(*) FROM whitelist WHERE client = 'NewClient/1.2.3' AND approved = 0";
    wait_until("the client to be recorded", || site.number(recorded) == 1);
    site.settle();

    site.sql("UPDATE whitelist SET approved = 1 WHERE client = 'NewClient/1.2.3'");
    within_5_seconds("the approval", || accepted(&new));
    site.sql("DELETE FROM whitelist WHERE client = 'NewClient/1.2.3'");
    within_5_seconds("the removal", || refused(&new));
    site.sql("INSERT INTO whitelist (client, approved) VALUES ('-XX1', 1)");
    within_5_seconds("the new prefix of peer ids", || accepted(&new));
    site.sql("UPDATE whitelist SET client = '-XX2' WHERE client = '-XX1'");
    // Also a client that goat itself came with.
    site.sql("UPDATE whitelist SET approved = 0 WHERE client IN ('qBittorrent/', '-qB')");
    within_5_seconds("the denials", || refused(&new) && refused(&usual));
}

fn two_thousand_bans_count_within_5_seconds(database: &Database) {
    let site = Site::start(database);
    site.insert_torrent(info_hash(1));
    let rows: Vec<String> = (1..=2_000).map(|i| format!("('user {i}', '{i:040}')")).collect();
    for rows in rows.chunks(500) {
        site.sql(&format!("INSERT INTO users (username, passkey) VALUES {}", rows.join(", ")));
    }
    // Everybody is known, and goat is done with the news.
    let announce = |i: u32| Announce::new(&format!("{i:040}"), info_hash(1), 1);
    let some = (1..=2_000).step_by(50).chain([2_000]).map(announce);
    let some: Vec<Announce> = some.collect();
    site.settle();
    assert!(some.iter().all(|announce| announce.refusal(&site.goat).is_empty()));

    site.sql("UPDATE users SET banned = 1");
    within_5_seconds("2,000 bans", || {
        let banned = some.iter().map(|announce| announce.refusal(&site.goat) == "Invalid passkey");
        banned.filter(|banned| *banned).count() == some.len()
    });
}

fn a_row_that_replaces_another_counts_within_5_seconds(database: &Database) {
    let site = Site::start(database);
    site.insert_torrent(info_hash(1));
    let old = Announce::new(&site.insert_user("anna"), info_hash(1), 1);
    old.accepted(&site.goat);
    site.settle();

    // REPLACE removes the row of the same name, whose id is another.
    let new = Announce { passkey: Some("f".repeat(40)), ..old.clone() };
    site.sql(&format!("REPLACE INTO users (id, username, passkey) VALUES (777, 'anna', '{}')", "f".repeat(40)));
    new.accepted(&site.goat);
    within_5_seconds("the end of the row that was replaced", || old.refusal(&site.goat) == "Invalid passkey");

    site.sql(&format!("REPLACE INTO files (info_hash, verified) VALUES ('{}', 0)", hex(&info_hash(1))));
    within_5_seconds("the torrent that was replaced", || new.refusal(&site.goat) == "Unverified torrent");
    site.sql("REPLACE INTO whitelist (client, approved) VALUES ('qBittorrent/', 0), ('-qB', 0)");
    within_5_seconds("the clients that were replaced", || new.refusal(&site.goat) == "Your client is not whitelisted");
}

fn an_unknown_client_of_a_member_is_recorded_once(database: &Database) {
    let site = Site::start(database);
    site.insert_torrent(info_hash(1));
    let (anna, bert) = (site.insert_user("anna"), site.insert_user("bert"));
    site.sql("UPDATE users SET banned = 1 WHERE username = 'bert'");
    let refused = "Your client is not whitelisted";
    let announce = |passkey: &str, agent: &str| {
        let mut announce = Announce::new(passkey, info_hash(1), 1);
        announce.agent = agent.into();
        announce.peer_id = *b"?-------------------";
        announce.refusal(&site.goat)
    };
    within_5_seconds("goat to know both", || {
        Announce::new(&anna, info_hash(1), 1).refusal(&site.goat).is_empty()
            && Announce::new(&bert, info_hash(1), 2).refusal(&site.goat) == "Invalid passkey"
    });

    // Neither strangers nor browsers and crawlers.
    for (passkey, agent) in [
        ("0".repeat(40).as_str(), "Stranger/1.0"),
        (&bert, "Banned/1.0"),
        (&anna, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        (&anna, "Mozilla/5.0 (Macintosh) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/605.1.15"),
        (&anna, "Opera/9.80 (Windows NT 6.1) Presto/2.12.388 Version/12.18"),
        (&anna, "Googlebot/2.1 (+http://www.google.com/bot.html)"),
        (&anna, "SomeSpider/1.0"),
    ] {
        assert_eq!(announce(passkey, agent), refused, "{agent}");
    }
    for agent in ["New Client/1.2 (x; y) \u{f6}\u{1f410}", "New Client/1.2 (x; y) \u{f6}\u{1f410}", "It's/2"] {
        assert_eq!(announce(&anna, agent), refused, "{agent}");
    }
    let waiting = || site.sql("SELECT client FROM whitelist WHERE approved = 0 ORDER BY client DESC").concat();
    wait_until("both clients", || waiting().len() >= 2);
    assert_eq!(announce(&anna, "It's/2"), refused);
    assert_eq!(announce(&anna, "The last/3"), refused);
    wait_until("the last client", || waiting().len() >= 3);
    assert_eq!(waiting(), ["The last/3", "New Client/1.2 (x; y) \u{f6}\u{1f410}", "It's/2"]);
    for words in ["New Client/1.2", "It's/2", "The last/3"] {
        assert_eq!(site.goat.log().matches(words).count(), 1, "{words}: {}", site.goat.log());
    }

    site.sql("UPDATE whitelist SET approved = 1 WHERE client LIKE 'It%'");
    within_5_seconds("the approval", || announce(&anna, "It's/2").is_empty());
}

fn an_unknown_torrent_of_a_member_is_recorded_once(database: &Database) {
    let site = Site::start(database);
    let (anna, bert) = (site.insert_user("anna"), site.insert_user("bert"));
    site.sql("UPDATE users SET banned = 1 WHERE username = 'bert'");
    let announce = |passkey: &str, number: u32| Announce::new(passkey, info_hash(number), 1);
    within_5_seconds("goat to know both", || {
        announce(&anna, 1).refusal(&site.goat) == "Unregistered torrent"
            && announce(&bert, 2).refusal(&site.goat) == "Invalid passkey"
    });
    assert_eq!(announce(&"0".repeat(40), 3).refusal(&site.goat), "Invalid passkey");
    let mut foreign = announce(&anna, 4);
    (foreign.agent, foreign.peer_id) = ("Mozilla/5.0".into(), [b'?'; 20]);
    assert_eq!(foreign.refusal(&site.goat), "Your client is not whitelisted");
    assert_eq!(scrape(&site.goat, &anna, info_hash(5)), None);

    let waiting = || site.sql("SELECT info_hash FROM files WHERE verified = 0 ORDER BY id").concat();
    wait_until("the torrent", || !waiting().is_empty());
    // From then on it waits for an operator.
    within_5_seconds("goat to know it", || announce(&anna, 1).refusal(&site.goat) == "Unverified torrent");
    announce(&anna, 6).send(&site.goat);
    wait_until("the last torrent", || waiting().len() >= 2);
    let [first, last] = [1, 6].map(|number| hex(&info_hash(number)));
    assert_eq!(waiting(), [first.clone(), last]);
    let lines = site.goat.log();
    let lines: Vec<&str> = lines.lines().filter(|line| line.contains(&first)).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");

    site.sql(&format!("UPDATE files SET verified = 1 WHERE info_hash = '{first}'"));
    within_5_seconds("the approval", || announce(&anna, 1).refusal(&site.goat).is_empty());
}

fn at_most_1000_clients_wait_for_approval_and_who_clears_them_makes_room(database: &Database) {
    let site = Site::start(database);
    site.insert_torrent(info_hash(1));
    let anna = site.insert_user("anna");
    let rows: Vec<String> = (1..=999).map(|i| format!("('Client {i}')")).collect();
    site.sql(&format!("INSERT INTO whitelist (client) VALUES {}", rows.join(", ")));
    let suggest = |number: u32| {
        let mut announce = Announce::new(&anna, info_hash(1), 1);
        announce.agent = format!("New/{number}");
        announce.peer_id = *b"?-------------------";
        assert_eq!(announce.refusal(&site.goat), "Your client is not whitelisted");
    };
    let waiting = || site.number("SELECT count(*) FROM whitelist WHERE approved = 0");
    Announce::new(&anna, info_hash(1), 1).accepted(&site.goat);
    (1..=20).for_each(suggest);
    wait_until("one more", || waiting() == 1_000);
    site.let_pass(&Announce::new(&anna, info_hash(1), 1));
    assert_eq!(waiting(), 1_000);

    site.sql("DELETE FROM whitelist WHERE approved = 0");
    wait_until("a client to be recorded that found no room before", || {
        suggest(20);
        waiting() > 0
    });
}

fn at_most_1000_torrents_wait_for_approval_and_who_clears_them_makes_room(database: &Database) {
    let site = Site::start(database);
    site.insert_torrent(info_hash(0));
    let anna = site.insert_user("anna");
    let rows: Vec<String> = (1..=999).map(|i| format!("('{}')", hex(&info_hash(5_000 + i)))).collect();
    site.sql(&format!("INSERT INTO files (info_hash) VALUES {}", rows.join(", ")));
    let suggest = |number: u32| Announce::new(&anna, info_hash(number), 1).refusal(&site.goat);
    let waiting = || site.number("SELECT count(*) FROM files WHERE verified = 0");
    (1..=20).for_each(|number| assert_eq!(suggest(number), "Unregistered torrent"));
    wait_until("one more", || waiting() == 1_000);
    site.let_pass(&Announce::new(&anna, info_hash(0), 1));
    assert_eq!(waiting(), 1_000);

    site.sql("DELETE FROM files WHERE verified = 0");
    wait_for_a_while("a torrent to be recorded that found no room before", || {
        suggest(20);
        waiting() > 0
    });
}

fn what_members_move_is_in_the_database(database: &Database) {
    let site = Site::start(database);
    site.insert_torrent(info_hash(1));
    let file = site.number("SELECT id FROM files");
    let (anna, bert) = (site.insert_user("anna"), site.insert_user("bert"));
    let mut seeder = Announce::new(&anna, info_hash(1), 1);
    seeder.left = 0;
    seeder.accepted(&site.goat);
    let mut leecher = Announce::new(&bert, info_hash(1), 2);
    (leecher.uploaded, leecher.downloaded, leecher.left) = (11, 22, 3_000_000_000);
    leecher.accepted(&site.goat);
    (leecher.uploaded, leecher.downloaded, leecher.event) = (5_000_000_000, 6_000_000_000, "");
    leecher.accepted(&site.goat);
    // Others may come and go meanwhile.
    (seeder.uploaded, seeder.event) = (7_000_000_000, "");
    seeder.accepted(&site.goat);
    (leecher.downloaded, leecher.left, leecher.event) = (9_000_000_000, 0, "completed");
    leecher.accepted(&site.goat);
    leecher.accepted(&site.goat);
    seeder.event = "stopped";
    seeder.accepted(&site.goat);

    let user = |name: &str| format!("SELECT uploaded, downloaded FROM users WHERE username = '{name}'");
    wait_until("anna's totals", || site.sql(&user("anna")) == [["7000000000", "0"]]);
    wait_until("bert's totals", || site.sql(&user("bert")) == [["5000000000", "9000000000"]]);
    let totals = |name: &str| {
        site.sql(&format!(
            "SELECT t.file_id, t.ip, t.active, t.completed, t.announced, t.uploaded, t.downloaded, t.`left`
             FROM files_users t, users u WHERE t.user_id = u.id AND u.username = '{name}'"
        ))
    };
    let row = |text: &str| vec![format!("{file} 127.0.0.1 {text}").split(' ').map(String::from).collect::<Vec<_>>()];
    assert_eq!(totals("anna"), row("0 0 3 7000000000 0 0"));
    assert_eq!(totals("bert"), row("1 1 4 5000000000 9000000000 0"));
    assert_eq!(site.number("SELECT completed FROM files"), 1);
    let sessions = site.sql(
        "SELECT hex(peer_id), ipv4, port4, ipv6, port6, active, paused, completed, uploaded, downloaded, `left`
         FROM peers ORDER BY port4",
    );
    let session = |announce: &Announce, rest: &str| {
        let id = hex(&announce.peer_id).to_uppercase();
        let row = format!("{id}|127.0.0.1|{}||0|{rest}", announce.port);
        row.split('|').map(String::from).collect::<Vec<_>>()
    };
    let expected = [session(&seeder, "0|0|0|7000000000|0|0"), session(&leecher, "1|0|1|5000000000|9000000000|0")];
    assert_eq!(sessions, expected);
}

fn a_ban_counts_within_5_seconds_while_accounts_cannot_be_written(database: &Database) {
    let site = Site::start(database);
    site.insert_torrent(info_hash(1));
    let [anna, bert] =
        [("anna", 1), ("bert", 2)].map(|(name, n)| Announce::new(&site.insert_user(name), info_hash(1), n));
    anna.accepted(&site.goat);
    site.settle();
    site.sql("ALTER TABLE sessions RENAME TO gone");
    bert.accepted(&site.goat);
    wait_until("goat to notice", || site.goat.log().contains("cannot be written"));
    site.sql("UPDATE users SET banned = 1 WHERE username = 'anna'");
    within_5_seconds("the ban", || anna.refusal(&site.goat) == "Invalid passkey");
}

fn counters_too_large_for_the_database_do_not_keep_others_from_being_written(database: &Database) {
    let mut site = Site::start(database);
    site.insert_torrent(info_hash(1));
    let (anna, bert) = (site.insert_user("anna"), site.insert_user("bert"));
    // Two sessions of anna that together are too much, each by itself on the edge.
    for (number, counter) in [(1, i64::MAX as u64), (2, u64::MAX), (3, i64::MAX as u64 - 1)] {
        let mut announce = Announce::new(&anna, info_hash(1), number);
        (announce.uploaded, announce.downloaded, announce.left) = (counter, counter, u64::MAX);
        announce.accepted(&site.goat);
    }
    let mut announce = Announce::new(&bert, info_hash(1), 4);
    announce.uploaded = 1_234;
    announce.accepted(&site.goat);
    wait_until("bert's totals", || site.number("SELECT uploaded FROM users WHERE username = 'bert'") == 1_234);
    let most = i64::MAX.to_string();
    let rows = site.sql("SELECT uploaded, downloaded FROM users WHERE username = 'anna'");
    assert_eq!(rows, [[most.clone(), most.clone()]]);
    let rows = site.sql("SELECT DISTINCT `left` FROM peers ORDER BY 1");
    assert_eq!(rows.concat(), ["1000000", &most]);
    assert!(!site.goat.log().contains("cannot"), "{}", site.goat.log());
    // Nor from reading and adding them up, in lists and hours.
    assert!(site.goat.stop().success());
    site.goat.launch();
    announce.uploaded += 1;
    announce.accepted(&site.goat);
    assert!(site.goat.stop().success());
    assert_eq!(site.number("SELECT SUM(announces) FROM hours"), 5);
    assert_eq!(site.number("SELECT COUNT(*) FROM hours WHERE uploaded > 1235"), 1);
    for (of, field) in [("user", "rawUploaded"), ("file", "uploaded")] {
        let moved = &site.goat.json(&[of, "list"])[0][field];
        assert_eq!(moved.as_u64(), Some(i64::MAX as u64), "{of}: {moved}");
    }
    assert_eq!(site.goat.json(&["stats"])["uploaded"].as_u64(), Some(i64::MAX as u64));
    assert_eq!(site.sql("SELECT COUNT(*) FROM files_users WHERE uploaded > 1235").concat(), ["1"]);
}

fn tables_imported_by_hand_are_those_that_goat_makes(database: &Database) {
    files(database).iter().for_each(|sql| import(database, sql));
    let by_hand = tables(database);
    database.sql(&format!("INSERT INTO users (username, passkey) VALUES ('anna', '{}')", "a".repeat(40)));
    database.sql(&format!("INSERT INTO files (info_hash, verified) VALUES ('{}', 1)", hex(&info_hash(1))));
    let mut goat = Goat::start(database, json!({ "SlowDown": 0 }));
    let announce = Announce::new(&"a".repeat(40), info_hash(1), 1);
    announce.accepted(&goat);
    assert_eq!(tables(database), by_hand, "goat has changed the tables");
    // The triggers are there.
    database.sql("UPDATE users SET banned = 1");
    within_5_seconds("the ban", || announce.refusal(&goat) == "Invalid passkey");
    goat.stop();

    empty(database);
    goat.launch();
    assert!(goat.stop().success());
    assert_eq!(tables(database), by_hand, "goat makes other tables");
}

fn rows_that_make_no_sense_are_refused(database: &Database) {
    let site = Site::start(database);
    site.insert_torrent(info_hash(0xabcdef));
    site.insert_user("anna");
    let long = |length: usize| "a".repeat(length);
    let hash = |text: &str| format!("INSERT INTO files (info_hash) VALUES ({text})");
    let file = |column: &str, value: &str| {
        let hash = hex(&info_hash(9));
        format!("INSERT INTO files (info_hash, {column}) VALUES ('{hash}', {value})")
    };
    let name = |text: &str| format!("INSERT INTO users (username, passkey) VALUES ({text}, '{}')", long(40));
    let passkey = |text: &str| format!("INSERT INTO users (username, passkey) VALUES ('bert', {text})");
    let user = |column: &str, value: &str| {
        format!("INSERT INTO users (username, passkey, {column}) VALUES ('bert', '{}', {value})", long(40))
    };
    let client = |text: &str| format!("INSERT INTO whitelist (client) VALUES ({text})");
    let quoted = |text: &str| format!("'{text}'");
    let same_hash = hex(&info_hash(0xabcdef)).to_uppercase();
    let statements = [
        hash("''"),
        hash("NULL"),
        hash(&quoted(&long(39))),
        hash(&quoted(&long(41))),
        hash(&quoted(&long(64))),
        hash(&quoted(&("g".to_string() + &long(39)))),
        hash(&quoted(&(long(39) + " "))),
        hash(&quoted(&"\u{e4}".repeat(20))),
        hash(&quoted(&same_hash)),
        file("verified", "2"),
        file("verified", "-1"),
        file("verified", "NULL"),
        file("completed", "-1"),
        file("id", "-1"),
        name("''"),
        name("NULL"),
        name("'anna'"),
        name(&quoted(&long(65))),
        passkey("''"),
        passkey("NULL"),
        passkey(&quoted(&long(15))),
        passkey(&quoted(&long(65))),
        passkey(&quoted(&format!("{:040}", 1))),
        user("banned", "2"),
        user("admin", "2"),
        user("torrent_limit", "-1"),
        user("torrent_limit", "4294967296"),
        user("uploaded", "-1"),
        user("downloaded", "-1"),
        user("id", "-1"),
        client("''"),
        client("NULL"),
        client("'qBittorrent/'"),
        client(&quoted(&long(129))),
        "INSERT INTO whitelist (client, approved) VALUES ('x', 2)".into(),
        "UPDATE files SET info_hash = 'x'".into(),
        "UPDATE files SET verified = 7".into(),
        "UPDATE users SET banned = 7".into(),
        "UPDATE users SET passkey = NULL".into(),
        "UPDATE whitelist SET approved = NULL".into(),
        "UPDATE whitelist SET client = ''  WHERE client = 'TIX'".into(),
    ];
    let taken = statements.iter().filter(|sql| by_hand(database, sql).status.success());
    let taken: Vec<&String> = taken.collect();
    assert!(taken.is_empty(), "the database took {taken:#?}");
    assert_eq!(site.number("SELECT count(*) FROM users"), 1);
    assert_eq!(site.number("SELECT count(*) FROM files"), 1);
}

#[test]
fn mariadb_takes_goats_tables_in_its_strictest_mode() {
    let Some(database) = Database::mariadb("the strictest mode") else {
        return;
    };
    let strict = |sql: &str| {
        let mode = "TRADITIONAL,ONLY_FULL_GROUP_BY,ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES";
        import(&database, &format!("SET SESSION sql_mode = '{mode}';\n{sql}"));
    };
    files(&database).iter().for_each(|sql| strict(sql));
    let (passkey, hash) = ("a".repeat(40), hex(&info_hash(1)));
    strict(&format!("INSERT INTO users (username, passkey) VALUES ('anna', '{passkey}')"));
    strict(&format!("INSERT INTO files (info_hash, verified) VALUES ('{hash}', 1)"));
    let goat = Goat::start(&database, json!({ "SlowDown": 0 }));
    let mut announce = Announce::new(&passkey, info_hash(1), 1);
    announce.uploaded = 99;
    announce.accepted(&goat);
    wait_until("the totals", || database.number("SELECT uploaded FROM users") == 99);
    strict("UPDATE users SET banned = 1, torrent_limit = 5");
    within_5_seconds("the ban", || announce.refusal(&goat) == "Invalid passkey");
    strict("DELETE FROM users");
}

#[test]
fn on_mariadb_too_a_passkey_of_strange_characters_is_an_unknown_one() {
    let Some(database) = Database::mariadb("strange passkeys") else {
        return;
    };
    let site = Site::start(&database);
    site.insert_torrent(info_hash(1));
    let anna = site.insert_user("anna");
    for passkey in ["Größe", "\u{1f410}", "\u{ff}", &format!("{anna}\u{a0}"), &format!("{anna}%20")] {
        let announce = Announce::new(passkey, info_hash(1), 1);
        let target = announce.target();
        let (status, _, body) = http_get(site.goat.address(), &target, &[("User-Agent", crate::common::AGENT)]);
        assert_eq!(status, 200, "{target}");
        assert!(String::from_utf8_lossy(&body).contains("Invalid passkey"), "{target}");
    }
    Announce::new(&anna, info_hash(1), 1).accepted(&site.goat);
    assert!(!site.goat.log().contains("could not"), "{}", site.goat.log());
}

// What the rules use.

/// A running goat, and the database beside it.
struct Site<'a> {
    goat: Goat,
    database: &'a Database,
}

impl Site<'_> {
    fn start(database: &Database) -> Site<'_> {
        let goat = Goat::start(database, json!({ "SlowDown": 0 }));
        // It takes its port first, and makes its tables then.
        wait_until("goat's tables", || goat.log().contains("listening for HTTP"));
        Site { goat, database }
    }

    fn sql(&self, sql: &str) -> Vec<Vec<String>> {
        self.database.sql(sql)
    }

    fn number(&self, sql: &str) -> i64 {
        self.database.number(sql)
    }

    /// Makes a user and returns the passkey.
    fn insert_user(&self, name: &str) -> String {
        let passkey = format!("{:040}", 1 + self.number("SELECT count(*) FROM users"));
        self.sql(&format!("INSERT INTO users (username, passkey) VALUES ('{name}', '{passkey}')"));
        passkey
    }

    fn insert_torrent(&self, hash: [u8; 20]) {
        self.sql(&format!("INSERT INTO files (info_hash, verified) VALUES ('{}', 1)", hex(&hash)));
    }

    /// Waits until goat has taken over all that was changed so far, so that what comes next is alone.
    fn settle(&self) {
        wait_until("goat to follow", || self.number("SELECT count(*) FROM changes") == 0);
    }

    /// Waits until goat has written two batches, and so has done all that it had to do before.
    fn let_pass(&self, announce: &Announce) {
        for uploaded in [1_001, 2_002] {
            let announce = Announce { uploaded, ..announce.clone() };
            announce.accepted(&self.goat);
            wait_until("a batch", || {
                self.number(&format!("SELECT count(*) FROM peers WHERE uploaded = {uploaded}")) == 1
            });
        }
    }
}

/// Waits until `condition` is true, but no longer than the rule allows.
fn within_5_seconds(what: &str, condition: impl FnMut() -> bool) {
    within(what, Duration::from_secs(5), condition);
}

/// Waits a bit longer than that for something that may need several rounds.
fn wait_for_a_while(what: &str, condition: impl FnMut() -> bool) {
    within(what, Duration::from_secs(20), condition);
}

fn within(what: &str, time: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    loop {
        let asked = Instant::now();
        if condition() {
            return;
        }
        assert!(asked - start < time, "{what} is not in effect after {time:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn a_ban_counts_within_5_seconds_while_200_000_torrents_are_taken_over(database: &Database) {
    let site = Site::start(database);
    site.insert_torrent(info_hash(1));
    let [banned, other] = ["anna", "bert"].map(|name| {
        let number = 1 + site.number("SELECT count(*) FROM users") as u16;
        Announce::new(&site.insert_user(name), info_hash(1), number)
    });
    banned.accepted(&site.goat);
    other.accepted(&site.goat);
    site.settle();
    // One transaction.
    site.sql(match database {
        Database::Sqlite(_) => {
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000)
             INSERT INTO files (info_hash, verified) SELECT printf('%040x', i), 1 FROM n"
        }
        Database::MariaDb(_) => {
            "INSERT INTO files (info_hash, verified) SELECT LPAD(HEX(seq), 40, '0'), 1 FROM seq_1_to_200000"
        }
    });
    site.sql("UPDATE users SET banned = 1 WHERE username = 'anna'");
    let begin = Instant::now();
    let left = site.number("SELECT count(*) FROM changes");
    within_5_seconds("a ban", || banned.refusal(&site.goat) == "Invalid passkey");
    println!("{left} changes waited; the ban counted after {:?}", begin.elapsed());
    assert_eq!(other.accepted(&site.goat).peers().len(), 0);
    // And the torrents come.
    wait_until("all to be taken over", || site.number("SELECT count(*) FROM changes") == 0);
    let mut last = [0; 20];
    last[17..].copy_from_slice(&200_000_u32.to_be_bytes()[1..]);
    let announce = Announce { info_hash: last, ..other };
    announce.accepted(&site.goat);
}

#[test]
fn triggers_of_a_user_who_is_gone_are_made_anew() {
    let Some(database) = Database::mariadb("triggers of another user") else {
        return;
    };
    let Database::MariaDb(server) = &database else { unreachable!("made by mariadb()") };
    // A web site's own user has imported goat's files, and is removed later.
    server.root("CREATE USER site@localhost; GRANT ALL ON goat.* TO site@localhost");
    for sql in files(&database) {
        let mut shell = Command::new("mariadb");
        shell.args(["--no-defaults", "--user=site", "goat", "--socket"]);
        let mut shell = shell.arg(server.socket()).stdin(Stdio::piped()).spawn().unwrap();
        shell.stdin.take().unwrap().write_all(sql.as_bytes()).unwrap();
        assert!(shell.wait().unwrap().success());
    }
    server.root("DROP USER site@localhost");
    let insert = "INSERT INTO users (username, passkey) VALUES ('anna', '1234567812345678')";
    let output = by_hand(&database, insert);
    assert!(!output.status.success(), "the definer is gone, and nothing fails");
    let goat = Goat::configure(&database, json!({}));
    let (status, stdout, _) = goat.cli(&["check"]);
    assert_eq!(status.code(), Some(1), "{stdout}");
    assert!(stdout.contains("cannot be written") && stdout.contains("definer"), "{stdout}");
    let site = Site::start(&database);
    import(&database, insert);
    site.insert_torrent(info_hash(1));
    Announce::new("1234567812345678", info_hash(1), 1).accepted(&site.goat);
    let definers = "SELECT DISTINCT definer FROM information_schema.triggers WHERE trigger_schema = 'goat'";
    assert_eq!(server.root(definers).concat(), ["goat@localhost"]);
    let (status, stdout, _) = site.goat.cli(&["check"]);
    assert!(status.success(), "{stdout}");
}

/// What the database's own shell says to this SQL.
fn by_hand(database: &Database, sql: &str) -> Output {
    let mut command = match database {
        Database::Sqlite(folder) => {
            let mut command = Command::new("sqlite3");
            command.args(["-bail", "-cmd", ".timeout 30000"]).arg(folder.join("goat.db"));
            command
        }
        Database::MariaDb(server) => {
            let mut command = Command::new("mariadb");
            command.args(["--no-defaults", "--default-character-set=utf8mb4"]);
            command.arg("--socket").arg(server.socket());
            command.args(["--user=goat", "--password=goat", "goat"]);
            command
        }
    };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut shell = command.spawn().unwrap();
    // It may have ended over an error already.
    let _ = shell.stdin.take().unwrap().write_all(sql.as_bytes());
    shell.wait_with_output().unwrap()
}

/// The same, of SQL that must succeed.
fn import(database: &Database, sql: &str) {
    let output = by_hand(database, sql);
    assert!(output.status.success(), "{sql}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// goat's own files for a database, in the order in which they are to be imported.
fn files(database: &Database) -> Vec<String> {
    let files: &[&str] = match database {
        Database::Sqlite(_) => &["sqlite/schema.sql", "sqlite/clients.sql"],
        Database::MariaDb(_) => &["mysql/schema.sql", "mysql/triggers.sql", "mysql/clients.sql"],
    };
    let path = |file: &&str| format!("{}/res/{file}", env!("CARGO_MANIFEST_DIR"));
    files.iter().map(|file| std::fs::read_to_string(path(file)).unwrap()).collect()
}

/// Everything that the database says of its tables, and the clients in them.
fn tables(database: &Database) -> Vec<Vec<String>> {
    let queries: &[&str] = match database {
        Database::Sqlite(_) => &["SELECT type, name, replace(sql, char(10), ' ') FROM sqlite_master ORDER BY 1, 2"],
        Database::MariaDb(_) => &[
            "SELECT table_name, engine, table_collation FROM information_schema.tables WHERE table_schema = 'goat' ORDER BY 1",
            "SELECT table_name, column_name, column_type, is_nullable, column_default, collation_name, extra
             FROM information_schema.columns WHERE table_schema = 'goat' ORDER BY 1, ordinal_position",
            "SELECT table_name, index_name, non_unique, seq_in_index, column_name
             FROM information_schema.statistics WHERE table_schema = 'goat' ORDER BY 1, 2, 4",
            "SELECT table_name, constraint_name, check_clause
             FROM information_schema.check_constraints WHERE constraint_schema = 'goat' ORDER BY 1, 2",
            "SELECT trigger_name, event_manipulation, event_object_table, action_timing, action_statement
             FROM information_schema.triggers WHERE trigger_schema = 'goat' ORDER BY 1",
        ],
    };
    let clients = [
        "SELECT client, approved FROM whitelist ORDER BY client",
        // What goat keeps for itself is of its own.
        "SELECT * FROM goat WHERE name = 'schema'",
    ];
    queries.iter().chain(&clients).flat_map(|query| database.sql(query)).collect()
}

/// Removes all tables.
fn empty(database: &Database) {
    match database {
        Database::Sqlite(folder) => {
            for file in ["goat.db", "goat.db-wal", "goat.db-shm"] {
                let _ = std::fs::remove_file(folder.join(file));
            }
        }
        Database::MariaDb(_) => {
            database.sql("DROP DATABASE goat; CREATE DATABASE goat CHARACTER SET utf8mb4");
        }
    }
}
