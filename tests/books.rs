//! The books: what is credited, and that it is in the database exactly once.
//!
//! Each rule is a test on SQLite; all of them together are one on MariaDB, whose server takes long to
//! start. What the database holds is asked by SQL, past goat.

mod common;
mod world;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use common::{Database, Folder, hex};
use goat::books::recovery::replay;
use goat::keeper::{Keeper, gather};
use goat::protocol::{Announce, Event, Peers, Reply};
use goat::random::Rng;
use goat::rules::access::User;
use goat::rules::announce;
use goat::store::{Batch, Change, Store, Suggestion, credit};
use goat::torrent::PeerId;
use goat::tracker::Tracker;
use serde_json::{Value, json};
use world::*;

/// Makes a test of each rule.
macro_rules! on_each_database {
    ($($rule:ident)*) => {
        $(#[test]
        fn $rule() {
            rules::$rule(&Database::sqlite());
        })*

        #[test]
        fn mariadb_keeps_the_same_books() {
            let Some(server) = Database::mariadb("the books on MariaDB") else { return };
            let all: &[(&str, fn(&Database))] = &[$((stringify!($rule), rules::$rule)),*];
            let mut broken = Vec::new();
            for (name, rule) in all {
                server.sql("DROP DATABASE goat; CREATE DATABASE goat CHARACTER SET utf8mb4");
                println!("--- {name}");
                if catch_unwind(AssertUnwindSafe(|| rule(&server))).is_err() {
                    broken.push(name);
                }
            }
            assert!(broken.is_empty(), "broken on MariaDB: {broken:#?}");
        }
    };
}

on_each_database! {
    an_unknown_session_that_says_started_is_credited_its_counters
    an_unknown_session_that_does_not_say_started_is_credited_nothing
    a_known_session_is_credited_the_difference
    a_counter_that_fell_is_credited_as_sent
    a_repeated_announce_is_credited_nothing
    the_second_address_family_is_credited_nothing
    a_session_that_stopped_and_comes_back_is_credited_the_difference
    a_session_that_fell_silent_and_comes_back_is_credited_the_difference
    a_session_that_comes_back_from_the_database_with_lower_counters_is_credited_them
    the_same_client_on_two_torrents_is_two_sessions
    totals_are_kept_by_torrent_user_and_address
    totals_of_a_user_are_the_sum_of_all
    what_others_add_to_a_users_total_stays
    the_anonymous_user_is_credited_nothing
    a_row_of_totals_tells_of_the_last_announce
    who_is_in_the_swarm_is_active_in_the_books
    an_address_that_a_session_left_is_not_active
    an_address_that_fell_silent_is_not_active
    the_last_announce_stays_the_last_when_another_client_falls_silent
    a_completed_download_is_one_snatch
    completed_without_everything_is_no_snatch
    completed_sent_twice_is_one_snatch
    completed_over_both_address_families_is_one_snatch
    completed_again_after_a_restart_is_no_second_snatch
    each_member_who_completes_is_a_snatch
    a_seeder_is_credited_the_time_between_its_announces
    between_two_announces_at_most_two_intervals_are_seeded
    who_leaves_and_comes_back_has_not_seeded_meanwhile
    a_seeder_with_two_address_families_is_credited_its_time_once
    rows_that_change_again_before_they_are_written_cost_one_row
    a_batch_with_the_same_number_counts_once
    a_batch_that_fails_anywhere_leaves_nothing_behind
    a_batch_of_any_size_is_written
    counters_above_what_the_database_holds_do_not_break_the_books
    users_and_torrents_that_are_gone_do_not_break_the_books
    a_peer_id_may_be_any_bytes
    addresses_are_kept_whole
    after_a_restart_counters_go_on
    after_a_kill_nothing_is_missing
    a_lost_journal_costs_what_was_not_written
    sessions_that_fell_silent_while_no_tracker_ran_are_over_at_its_start
    a_restart_finds_the_users_that_are_active
    a_shell_on_the_database_while_goat_runs_disturbs_nothing
    what_cannot_be_written_at_the_end_is_written_at_the_next_start
    a_damaged_file_of_unwritten_batches_is_left_alone_and_named
    suggestions_are_recorded_unapproved_and_at_most_a_thousand_of_each_kind
    what_is_changed_by_hand_is_noticed
    whatever_happens_the_books_add_up
}

#[test]
fn what_is_credited_is_this_table() {
    let last = Some((100, 10));
    let cases = [
        (None, true, (70, 7), (70, 7)),
        (None, false, (70, 7), (0, 0)),
        (last, false, (100, 10), (0, 0)),
        (last, false, (150, 11), (50, 1)),
        (last, true, (150, 11), (50, 1)),
        (last, false, (99, 9), (99, 9)),
        (last, true, (0, 0), (0, 0)),
        (last, false, (30, 15), (30, 5)),
        (
            Some((0, 0)),
            false,
            (u64::MAX, u64::MAX),
            (u64::MAX, u64::MAX),
        ),
    ];
    for (last, started, now, expected) in cases {
        assert_eq!(
            credit(last, started, now),
            expected,
            "{last:?} {started} {now:?}"
        );
    }
}

mod rules {
    use super::*;

    pub fn an_unknown_session_that_says_started_is_credited_its_counters(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1).moved(70, 7));
        assert_eq!(books.credited(ALICE), (70, 7));
    }

    pub fn an_unknown_session_that_does_not_say_started_is_credited_nothing(database: &Database) {
        let books = Books::open(database);
        let events = [Event::None, Event::Completed, Event::Paused, Event::Stopped];
        for (n, event) in (1..).zip(events) {
            books.announce(ALICE, client(n).says(event).moved(70, 7));
            assert_eq!(books.credited(ALICE), (0, 0), "{event:?}");
        }
        // The counters become the baseline, whether or not they were written meanwhile.
        books.announce(ALICE, client(1).completed().moved(80, 8));
        assert_eq!(books.credited(ALICE), (10, 1));
        books.announce(ALICE, client(9).regular().moved(70, 7));
        books.announce(ALICE, client(9).completed().moved(80, 8));
        assert_eq!(books.credited(ALICE), (20, 2));
    }

    pub fn a_known_session_is_credited_the_difference(database: &Database) {
        let books = Books::open(database);
        let mut expected = 0;
        for (event, uploaded) in [
            (Event::Started, 5),
            (Event::Completed, 9),
            (Event::Paused, 9),
        ] {
            books.announce(ALICE, client(1).says(event).moved(uploaded, 3 * uploaded));
            books.wait(1000);
            expected = uploaded as i64;
            assert_eq!(books.credited(ALICE), (expected, 3 * expected));
        }
        for more in 1..=10 {
            books.announce(ALICE, client(1).regular().moved(9 + more, 27 + more));
            books.wait(1000);
            if more % 3 == 0 {
                books.write();
            }
        }
        books.announce(ALICE, client(1).stopped().moved(30, 40));
        assert!(expected < 30);
        assert_eq!(books.credited(ALICE), (30, 40));
    }

    pub fn a_counter_that_fell_is_credited_as_sent(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1).moved(100, 100));
        books.announce(ALICE, client(1).moved(30, 130));
        assert_eq!(books.credited(ALICE), (130, 130), "each counter for itself");
        books.announce(ALICE, client(1).completed().moved(40, 5));
        assert_eq!(books.credited(ALICE), (140, 135));
        books.announce(ALICE, client(1).stopped().moved(0, 0));
        books.announce(ALICE, client(1).moved(7, 7));
        assert_eq!(books.credited(ALICE), (147, 142));
    }

    pub fn a_repeated_announce_is_credited_nothing(database: &Database) {
        let books = Books::open(database);
        for write in [false, true] {
            for event in [
                Event::Started,
                Event::Completed,
                Event::Stopped,
                Event::Stopped,
            ] {
                for _ in 0..3 {
                    books.announce(ALICE, client(1).says(event).moved(70, 7));
                    if write {
                        books.write();
                    }
                }
            }
        }
        assert_eq!(books.credited(ALICE), (70, 7));
    }

    pub fn the_second_address_family_is_credited_nothing(database: &Database) {
        let books = Books::open(database);
        for n in [1, 2] {
            books.announce(ALICE, client(n).moved(70, 7));
            books.announce(ALICE, client(n).over_v6().moved(70, 7));
            books.wait(1000);
            books.announce(ALICE, client(n).over_v6().regular().moved(90, 9));
            books.announce(ALICE, client(n).regular().moved(90, 9));
            books.announce(ALICE, client(n).stopped().moved(90, 9));
            books.announce(ALICE, client(n).over_v6().stopped().moved(90, 9));
        }
        assert_eq!(books.credited(ALICE), (180, 18));
        assert_eq!(
            books.number("SELECT COUNT(*) FROM peers"),
            2,
            "a session is one row"
        );
    }

    pub fn a_session_that_stopped_and_comes_back_is_credited_the_difference(database: &Database) {
        let books = Books::open(database);
        for (n, event) in (1..).zip([Event::Started, Event::None, Event::Completed]) {
            for write in [true, false] {
                let a = client(n + if write { 100 } else { 0 });
                books.announce(ALICE, a.clone().moved(70, 7));
                books.announce(ALICE, a.clone().stopped().moved(80, 8));
                let before = if write {
                    Some(books.credited(ALICE))
                } else {
                    None
                };
                books.announce(ALICE, a.says(event).moved(100, 10));
                let after = books.credited(ALICE);
                if let Some((uploaded, downloaded)) = before {
                    assert_eq!(after, (uploaded + 20, downloaded + 2), "{event:?}");
                }
            }
        }
        assert_eq!(books.credited(ALICE), (600, 60));
    }

    pub fn a_session_that_fell_silent_and_comes_back_is_credited_the_difference(
        database: &Database,
    ) {
        let books = Books::open(database);
        for write in [true, false] {
            let a = client(1 + u16::from(write));
            books.announce(ALICE, a.clone().moved(70, 7));
            books.wait(2 * INTERVAL + 1);
            books.expire();
            if write {
                books.write();
                assert_eq!(
                    books.number("SELECT COUNT(*) FROM peers WHERE active = 1"),
                    0
                );
            }
            books.announce(ALICE, a.moved(100, 10));
        }
        assert_eq!(books.credited(ALICE), (200, 20));
    }

    pub fn a_session_that_comes_back_from_the_database_with_lower_counters_is_credited_them(
        database: &Database,
    ) {
        let books = Books::open(database);
        books.announce(ALICE, client(1).moved(70, 7));
        books.announce(ALICE, client(1).stopped().moved(70, 7));
        books.write();
        books.announce(ALICE, client(1).moved(30, 9));
        assert_eq!(books.credited(ALICE), (100, 9));
    }

    pub fn the_same_client_on_two_torrents_is_two_sessions(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1).moved(70, 7));
        books.announce(ALICE, client(1).on(2).moved(50, 5));
        books.announce(BOB, client(1).moved(20, 2));
        assert_eq!(
            (books.credited(ALICE), books.credited(BOB)),
            ((120, 12), (20, 2))
        );
        assert_eq!(books.number("SELECT COUNT(*) FROM peers"), 3);
    }

    pub fn totals_are_kept_by_torrent_user_and_address(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1).moved(1, 100));
        books.announce(ALICE, client(2).at(client(1).ip).moved(2, 200));
        books.announce(ALICE, client(3).moved(4, 400));
        books.announce(ALICE, client(1).on(2).moved(8, 800));
        books.announce(BOB, client(1).moved(16, 1600));
        // What a session moves is credited to the address that it says so from.
        books.announce(ALICE, client(3).over_v6().moved(36, 3600));
        books.write();
        let sql = "SELECT file_id, user_id, ip, uploaded, downloaded FROM files_users
                   ORDER BY file_id, user_id, ip";
        let expected = [
            "1 1 10.1.0.1 3 300",
            "1 1 10.1.0.3 4 400",
            "1 1 2001:db8::3 32 3200",
            "1 2 10.1.0.1 16 1600",
            "2 1 10.1.0.1 8 800",
        ];
        assert_eq!(books.rows(sql), expected);
    }

    pub fn totals_of_a_user_are_the_sum_of_all(database: &Database) {
        let books = Books::open(database);
        for n in 1..=20 {
            books.announce(
                ALICE,
                client(n).on(1 + u32::from(n) % 3).moved(1 << n, 3 << n),
            );
            if n % 7 == 0 {
                books.write();
            }
        }
        let sum = (1 << 21) - 2;
        assert_eq!(books.credited(ALICE), (sum, 3 * sum));
    }

    pub fn what_others_add_to_a_users_total_stays(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1).moved(70, 7));
        books.write();
        database.sql("UPDATE users SET uploaded = uploaded + 1000000, downloaded = 0 WHERE id = 1");
        books.announce(ALICE, client(1).moved(80, 8));
        books.write();
        let sql = "SELECT uploaded, downloaded FROM users WHERE id = 1";
        assert_eq!(books.rows(sql), ["1000080 1"]);
    }

    pub fn the_anonymous_user_is_credited_nothing(database: &Database) {
        let books = Books::with(database, json!({ "Passkey": false }));
        books.announce(0, client(1).moved(70, 7));
        books.announce(0, client(1).completed().moved(90, 9));
        books.write();
        books.announce(0, client(1).stopped().moved(100, 10));
        books.write();
        books.announce(0, client(1).moved(200, 20));
        books.write();
        assert_eq!(
            books.rows("SELECT SUM(uploaded), SUM(downloaded) FROM files_users"),
            ["0 0"]
        );
        assert_eq!(
            books.rows("SELECT SUM(uploaded), SUM(downloaded) FROM users"),
            ["0 0"]
        );
    }

    pub fn a_row_of_totals_tells_of_the_last_announce(database: &Database) {
        let books = Books::open(database);
        let sql = "SELECT announced, `left`, time, active, completed FROM files_users";
        books.announce(ALICE, client(1).left(500));
        let first = books.now.get();
        books.write();
        assert_eq!(books.rows(sql), [format!("1 500 {first} 1 0")]);
        books.wait(1000);
        books.announce(ALICE, client(1).left(100).regular());
        books.wait(1000);
        books.announce(ALICE, client(1).seeding().completed());
        books.write();
        assert_eq!(books.rows(sql), [format!("3 0 {} 1 1", first + 2000)]);
        books.wait(1000);
        books.announce(ALICE, client(1).seeding().stopped());
        books.write();
        assert_eq!(books.rows(sql), [format!("4 0 {} 0 1", first + 3000)]);
    }

    pub fn who_is_in_the_swarm_is_active_in_the_books(database: &Database) {
        let books = Books::open(database);
        let active = || {
            books.write();
            let peers = books.number("SELECT COUNT(*) FROM peers WHERE active = 1");
            (
                peers,
                books.rows("SELECT ip FROM files_users WHERE active = 1 ORDER BY ip"),
            )
        };
        let texts = |ips: &[&str]| ips.iter().map(|ip| ip.to_string()).collect::<Vec<_>>();
        books.announce(ALICE, client(1));
        books.announce(ALICE, client(1).over_v6());
        books.announce(ALICE, client(2).at(client(1).ip));
        assert_eq!(active(), (2, texts(&["10.1.0.1", "2001:db8::1"])));
        books.announce(ALICE, client(1).stopped());
        assert_eq!(
            active(),
            (1, texts(&["10.1.0.1"])),
            "the second client is still there"
        );
        books.announce(ALICE, client(2).at(client(1).ip).stopped());
        assert_eq!(active(), (0, texts(&[])));
        books.announce(ALICE, client(3));
        assert_eq!(active(), (1, texts(&["10.1.0.3"])));
        books.wait(2 * INTERVAL + 1);
        books.expire();
        assert_eq!(active(), (0, texts(&[])));
        books.announce(ALICE, client(3));
        books.write();
        books.drop_user(ALICE);
        assert_eq!(active(), (0, texts(&[])));
    }

    pub fn an_address_that_a_session_left_is_not_active(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1));
        books.write();
        books.wait(1000);
        books.announce(ALICE, client(1).at(client(9).ip).regular());
        books.write();
        let active = "SELECT ip FROM files_users WHERE active = 1";
        assert_eq!(
            books.rows(active),
            ["10.1.0.9"],
            "nobody is at 10.1.0.1 any more"
        );
        books.announce(ALICE, client(1).at(client(9).ip).stopped());
        books.write();
        assert_eq!(books.rows(active).len(), 0, "nobody is anywhere any more");
    }

    pub fn an_address_that_fell_silent_is_not_active(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1));
        books.announce(ALICE, client(1).over_v6());
        books.write();
        books.wait(2 * INTERVAL);
        books.announce(ALICE, client(1).over_v6().regular());
        books.wait(1);
        books.expire();
        books.write();
        assert_eq!(books.rows("SELECT ipv4, ipv6 FROM peers"), [" 2001:db8::1"]);
        let active = "SELECT ip FROM files_users WHERE active = 1";
        assert_eq!(books.rows(active), ["2001:db8::1"]);
    }

    /// "`left` and `time` are of the last announce", says the schema.
    pub fn the_last_announce_stays_the_last_when_another_client_falls_silent(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1).left(500));
        books.wait(2 * INTERVAL);
        books.announce(ALICE, client(2).at(client(1).ip).left(100));
        let last = books.now.get();
        books.wait(1);
        books.expire();
        books.write();
        let sql = "SELECT `left`, time, active FROM files_users";
        assert_eq!(books.rows(sql), [format!("100 {last} 1")]);
    }

    pub fn a_completed_download_is_one_snatch(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1));
        books.write();
        assert_eq!(books.snatches(), (0, 0));
        books.announce(ALICE, client(1).seeding().completed());
        books.write();
        assert_eq!(books.snatches(), (1, 1));
        // Whoever asks is told, too.
        assert_eq!(books.announce(BOB, client(2)).downloaded, 1);
    }

    pub fn completed_without_everything_is_no_snatch(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1).completed());
        books.wait(1000);
        books.announce(ALICE, client(1).seeding().regular());
        books.announce(BOB, client(2).seeding());
        books.write();
        assert_eq!(books.snatches(), (0, 0));
    }

    pub fn completed_sent_twice_is_one_snatch(database: &Database) {
        let books = Books::open(database);
        let completed = client(1).seeding().completed();
        books.announce(ALICE, client(1));
        books.announce(ALICE, completed.clone());
        books.announce(ALICE, completed.clone());
        books.write();
        books.announce(ALICE, completed.clone());
        books.write();
        books.announce(ALICE, client(1).seeding().stopped());
        books.announce(ALICE, completed.clone());
        books.write();
        books.announce(ALICE, client(1).seeding().stopped());
        books.write();
        books.announce(ALICE, completed);
        books.write();
        assert_eq!(books.snatches(), (1, 1));
    }

    pub fn completed_over_both_address_families_is_one_snatch(database: &Database) {
        let books = Books::open(database);
        for (n, write) in [(1, false), (2, true)] {
            books.announce(ALICE, client(n));
            books.announce(ALICE, client(n).over_v6());
            books.announce(ALICE, client(n).seeding().completed());
            if write {
                books.write();
            }
            books.announce(ALICE, client(n).over_v6().seeding().completed());
            books.write();
            assert_eq!(books.snatches(), (n.into(), n.into()));
        }
    }

    pub fn completed_again_after_a_restart_is_no_second_snatch(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1));
        books.announce(ALICE, client(1).seeding().completed());
        let books = books.restart();
        books.announce(ALICE, client(1).seeding().completed());
        books.announce(ALICE, client(1).over_v6().seeding().completed());
        books.write();
        assert_eq!(books.snatches(), (1, 1));
        // Nor after another client has completed it at the same address.
        books.announce(ALICE, client(7).at(client(1).ip).seeding().completed());
        books.write();
        assert_eq!(books.snatches(), (1, 1));
    }

    pub fn each_member_who_completes_is_a_snatch(database: &Database) {
        let books = Books::open(database);
        for user in [ALICE, BOB] {
            books.announce(user, client(1).seeding().completed());
            books.announce(user, client(1).on(2).seeding().completed());
        }
        books.write();
        assert_eq!(
            books.rows("SELECT completed FROM files ORDER BY id"),
            ["2", "2", "0"]
        );
        assert_eq!(books.number("SELECT SUM(completed) FROM files_users"), 4);
    }

    pub fn a_seeder_is_credited_the_time_between_its_announces(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1));
        books.wait(1000);
        books.announce(ALICE, client(1).seeding().completed());
        assert_eq!(books.seed_time(), 0, "until now it was a leecher");
        for expected in [700, 1400] {
            books.wait(700);
            books.announce(ALICE, client(1).seeding().regular());
            assert_eq!(books.seed_time(), expected);
        }
        books.wait(100);
        books.announce(ALICE, client(1).seeding().stopped());
        assert_eq!(books.seed_time(), 1500);
    }

    pub fn between_two_announces_at_most_two_intervals_are_seeded(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1).seeding());
        books.wait(2 * INTERVAL);
        books.announce(ALICE, client(1).seeding().regular());
        assert_eq!(books.seed_time(), i64::from(2 * INTERVAL));
        // So long that it would have left, had anybody looked.
        books.wait(10 * INTERVAL);
        books.announce(ALICE, client(1).seeding().regular());
        assert_eq!(books.seed_time(), i64::from(4 * INTERVAL));
    }

    pub fn who_leaves_and_comes_back_has_not_seeded_meanwhile(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1).seeding());
        books.announce(ALICE, client(1).seeding().stopped());
        books.wait(1000);
        books.announce(ALICE, client(1).seeding());
        assert_eq!(books.seed_time(), 0);
        books.wait(2 * INTERVAL + 1);
        books.expire();
        books.announce(ALICE, client(1).seeding());
        assert_eq!(books.seed_time(), 0);
    }

    pub fn a_seeder_with_two_address_families_is_credited_its_time_once(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1).seeding());
        books.announce(ALICE, client(1).over_v6().seeding());
        for _ in 0..5 {
            books.wait(1000);
            books.announce(ALICE, client(1).seeding().regular());
            books.announce(ALICE, client(1).over_v6().seeding().regular());
        }
        assert_eq!(books.seed_time(), 5000);
    }

    pub fn rows_that_change_again_before_they_are_written_cost_one_row(database: &Database) {
        let books = Books::open(database);
        for n in 0..1000 {
            books.announce(ALICE, client(1).moved(n, n));
        }
        let batch = books.batch();
        assert_eq!(
            (batch.sessions.len(), batch.totals.len(), batch.rows()),
            (1, 1, 2)
        );
        books.write_batch(&batch);
        assert_eq!(
            books.rows("SELECT announced, uploaded FROM files_users"),
            ["1000 999"]
        );
        // And one that came and went is not forgotten.
        for _ in 0..1000 {
            books.announce(ALICE, client(2).moved(5, 5));
            books.announce(ALICE, client(2).moved(5, 5).stopped());
        }
        assert_eq!(books.batch().rows(), 2);
    }

    pub fn a_batch_with_the_same_number_counts_once(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1).moved(70, 7));
        books.announce(ALICE, client(1).seeding().completed().moved(80, 8));
        let batch = books.batch();
        for _ in 0..3 {
            books.write_batch(&batch);
            assert_eq!((books.credited(ALICE), books.snatches()), ((80, 8), (1, 1)));
        }
        // Also if another tracker has begun meanwhile; but the same rows under another number count.
        books.announce(ALICE, client(1).moved(90, 9));
        books.write();
        books.write_batch(&batch);
        assert_eq!(books.credited(ALICE), (90, 9));
        assert_eq!(books.number("SELECT COUNT(*) FROM batches"), 2);
        books.tracker.store.forget_batches(u32::MAX).unwrap();
        assert_eq!(books.number("SELECT COUNT(*) FROM batches"), 0);
    }

    pub fn a_batch_that_fails_anywhere_leaves_nothing_behind(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1).moved(10, 1));
        books.write();
        let before = books.dump();
        books.announce(ALICE, client(1).seeding().completed().moved(70, 7));
        books.announce(BOB, client(2).moved(50, 5));
        let batch = books.batch();
        let places = [
            ("INSERT", "peers"),
            ("INSERT", "files_users"),
            ("UPDATE", "files_users"),
            ("UPDATE", "users"),
            ("UPDATE", "files"),
            ("INSERT", "batches"),
        ];
        for (what, table) in places {
            books.break_table(what, table);
            let failed = books.tracker.store.write(&batch, books.now.get());
            assert!(failed.is_err(), "{what} {table}");
            books.mend_table();
            assert_eq!(books.dump(), before, "{what} {table}");
        }
        books.write_batch(&batch);
        assert_eq!(
            (books.credited(ALICE), books.credited(BOB)),
            ((70, 7), (50, 5))
        );
        assert_eq!(books.snatches(), (1, 1));
    }

    pub fn a_batch_of_any_size_is_written(database: &Database) {
        let books = Books::open(database);
        // More than two statements of the largest size and one of each other.
        let count = 2 * 512 + 64 + 8 + 1;
        let come = |uploaded: u64| {
            for n in 0..count {
                let user = User::new(1000 + n, "", 0, false);
                let a = client(n as u16).moved(uploaded + u64::from(n), uploaded);
                books.announce_as(&user, a);
            }
            let batch = books.batch();
            assert_eq!(batch.rows(), 2 * count as usize);
            books.write_batch(&batch);
        };
        let sums =
            || books.rows("SELECT COUNT(*), SUM(uploaded), SUM(downloaded) FROM files_users");
        let (all, each) = (i64::from(count), (0..count).map(i64::from).sum::<i64>());
        come(5);
        assert_eq!(sums(), [format!("{all} {} {}", 5 * all + each, 5 * all)]);
        // All of them come back unknown to memory, and are looked up.
        (0..count).for_each(|n| books.drop_user(1000 + n));
        books.write();
        come(9);
        assert_eq!(sums(), [format!("{all} {} {}", 9 * all + each, 9 * all)]);
        assert_eq!(
            books.number("SELECT COUNT(*) FROM peers WHERE active = 1"),
            all
        );
    }

    pub fn counters_above_what_the_database_holds_do_not_break_the_books(database: &Database) {
        let books = Books::open(database);
        let most = i64::MAX;
        books.announce(ALICE, client(1).moved(u64::MAX, 1 << 63).left(u64::MAX));
        books.write();
        let both = (books.user(ALICE), books.sum(ALICE));
        assert_eq!(both, ((most, most), (most, most)));
        // Whatever is added now: the total stays what it is, and nothing fails.
        books.announce(ALICE, client(1).moved(0, 0));
        books.announce(ALICE, client(1).completed().moved(u64::MAX, u64::MAX));
        books.announce(ALICE, client(2).at(client(1).ip).moved(u64::MAX, 5));
        books.write();
        books.announce(ALICE, client(1).stopped().moved(3, u64::MAX));
        books.write();
        books.announce(ALICE, client(1).moved(u64::MAX, u64::MAX));
        books.write();
        let both = (books.user(ALICE), books.sum(ALICE));
        assert_eq!(both, ((most, most), (most, most)));
        // Two addresses that hold so much are still one user who does.
        books.announce(ALICE, client(3).moved(u64::MAX, u64::MAX));
        books.write();
        assert_eq!(books.user(ALICE), (most, most));
        // Nobody else is affected.
        books.announce(BOB, client(4).moved(70, 7));
        assert_eq!(books.credited(BOB), (70, 7));
    }

    pub fn users_and_torrents_that_are_gone_do_not_break_the_books(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1).moved(70, 7));
        books.announce(ALICE, client(1).seeding().completed().moved(80, 8));
        books.announce(BOB, client(2).moved(50, 5));
        books.announce(BOB, client(2).on(2).moved(10, 1));
        books.announce(BOB, client(2).on(2).seeding().completed().moved(20, 2));
        database.sql("DELETE FROM users WHERE id = 1; DELETE FROM files WHERE id = 2");
        books.write();
        assert_eq!(books.user(BOB), (70, 7));
        let books = books.restart();
        assert!(books.tracker.access.by_id(ALICE).is_none());
        assert_eq!(
            books.announce(BOB, client(9)).incomplete,
            2,
            "those of a user who is gone left"
        );
    }

    pub fn a_peer_id_may_be_any_bytes(database: &Database) {
        let books = Books::open(database);
        let ids = [
            [0; 20],
            [255; 20],
            *b"'); DROP TABLE users",
            *b"-qB4670-          \0\0",
            *b"-qB4670-            ",
            *b"-qB4670-AAAAAAAAAAAA",
            *b"-qB4670-aaaaaaaaaaaa",
            *b"\xc3\xa4\xc3\x84\xe2\x82\xac\xf0\x9f\x90\x90\xc3\x28\xff\xfe\x00\\\"%_",
        ];
        let say = |id, bytes| {
            client(1)
                .moved(bytes, bytes)
                .change(|a| a.peer_id = PeerId(id))
        };
        let everybody = |books: &Books, bytes| {
            for id in ids {
                books.announce(ALICE, say(id, bytes));
            }
        };
        everybody(&books, 10);
        books.write();
        let held: BTreeSet<String> = books
            .rows("SELECT LOWER(HEX(peer_id)) FROM peers")
            .into_iter()
            .collect();
        assert_eq!(held, ids.iter().map(|id| hex(id)).collect());
        // Each is found again: by the swarm after a restart, and by its row after it left memory.
        let books = books.restart();
        assert_eq!(books.announce(BOB, client(2)).incomplete, 9);
        everybody(&books, 12);
        books.drop_user(ALICE);
        books.write();
        everybody(&books, 15);
        assert_eq!(books.credited(ALICE), (15 * 8, 15 * 8));
        assert_eq!(
            books.number("SELECT COUNT(*) FROM peers WHERE user_id = 1"),
            8
        );
    }

    pub fn addresses_are_kept_whole(database: &Database) {
        let books = Books::open(database);
        let addresses = [
            "0.0.0.1",
            "255.255.255.255",
            "::1",
            "2001:db8::",
            "ffff:eeee:dddd:cccc:bbbb:aaaa:9999:8888",
            "64:ff9b::192.0.2.33",
        ];
        let addresses = addresses.map(|ip| ip.parse().unwrap());
        for (n, ip) in (1..).zip(addresses) {
            books.announce(ALICE, client(n).at(ip).change(|a| a.port = 65535));
        }
        books.write();
        let held = books
            .rows("SELECT ip FROM files_users")
            .iter()
            .map(|ip| ip.parse().unwrap())
            .collect();
        assert_eq!(
            addresses
                .into_iter()
                .collect::<BTreeSet<std::net::IpAddr>>(),
            held
        );
        let books = books.restart();
        let peers = books.peers(BOB, client(99));
        assert_eq!(peers, sorted(addresses.map(|ip| (ip, 65535).into())));
    }

    pub fn after_a_restart_counters_go_on(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1).seeding().moved(70, 7));
        books.announce(BOB, client(2).moved(50, 5));
        books.announce(BOB, client(2).stopped().moved(50, 5));
        books.wait(1000);
        let books = books.restart();
        books.announce(ALICE, client(1).seeding().regular().moved(100, 10));
        books.announce(BOB, client(2).moved(60, 6));
        assert_eq!(
            (books.credited(ALICE), books.credited(BOB)),
            ((100, 10), (60, 6))
        );
        assert_eq!(books.seed_time(), 1000);
    }

    pub fn after_a_kill_nothing_is_missing(database: &Database) {
        let books = Books::with(database, json!({ "SlowDown": 0 }));
        books.announce(ALICE, client(1).moved(10, 1));
        books.write();
        // Known and unknown sessions, one that stops, a client that began anew, a snatch.
        books.announce(ALICE, client(1).regular().moved(70, 7));
        books.announce(ALICE, client(1).moved(5, 0));
        books.announce(ALICE, client(2).moved(100, 10));
        books.announce(ALICE, client(2).seeding().completed().moved(200, 20));
        books.announce(BOB, client(3).over_v6().moved(50, 5));
        books.announce(BOB, client(3).stopped().over_v6().moved(60, 6));
        let books = books.kill();
        assert_eq!(books.user(ALICE), (70 + 5 + 200, 7 + 20));
        assert_eq!(books.user(BOB), (60, 6));
        assert_eq!(books.snatches(), (1, 1));
        let announced = "SELECT SUM(announced) FROM files_users";
        assert_eq!(books.number(announced), 7);
        // And once: also where the next start is killed before it can clear the journal.
        let books = books.kill().restart();
        assert_eq!(books.credited(ALICE), (275, 27));
        assert_eq!(books.number(announced), 7);
    }

    pub fn a_lost_journal_costs_what_was_not_written(database: &Database) {
        let books = Books::with(database, json!({ "SlowDown": 0 }));
        books.announce(ALICE, client(1));
        books.write();
        books.wait(1000);
        books.announce(ALICE, client(1).regular().moved(70, 7));
        books.announce(ALICE, client(2).moved(30, 3));
        // As after a loss of power.
        let journal = books.tracker.journal.as_ref().unwrap().path().to_owned();
        std::fs::remove_file(journal).unwrap();
        let books = books.kill();
        assert_eq!(books.credited(ALICE), (0, 0));
        // The next announce of a session that the database knows brings it back; of another, from there on.
        books.announce(ALICE, client(1).regular().moved(100, 10));
        books.announce(ALICE, client(2).regular().moved(40, 4));
        assert_eq!(books.credited(ALICE), (100, 10));
        books.announce(ALICE, client(2).regular().moved(45, 4));
        assert_eq!(books.credited(ALICE), (105, 10));
    }

    pub fn sessions_that_fell_silent_while_no_tracker_ran_are_over_at_its_start(
        database: &Database,
    ) {
        let books = Books::open(database);
        let present = books.now.get();
        books.now.set(present - 2 * INTERVAL - 100);
        books.announce(ALICE, client(1).moved(70, 7));
        books.now.set(present - 2 * INTERVAL + 100);
        books.announce(ALICE, client(2));
        books.write();
        let books = books.restart();
        books.now.set(present);
        assert_eq!(
            books.rows("SELECT active, ipv4 FROM peers ORDER BY ipv4"),
            ["0 10.1.0.1", "1 10.1.0.2"]
        );
        assert_eq!(
            books.rows("SELECT active, ip FROM files_users ORDER BY ip"),
            ["0 10.1.0.1", "1 10.1.0.2"]
        );
        assert_eq!(books.announce(BOB, client(3)).incomplete, 2);
        // Its counters are still known.
        books.announce(ALICE, client(1).moved(100, 10));
        assert_eq!(books.credited(ALICE), (100, 10));
    }

    pub fn a_restart_finds_the_users_that_are_active(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1));
        books.announce(ALICE, client(1).over_v6());
        books.announce(ALICE, client(2));
        books.announce(ALICE, client(1).on(2));
        books.announce(ALICE, client(1).on(3));
        books.announce(ALICE, client(1).on(3).stopped());
        let books = books.restart();
        let active = |user| books.tracker.access.by_id(user).unwrap().active();
        assert_eq!((active(ALICE), active(BOB)), (2, 0));
    }

    /// SQLite's locks belong to a process and a file: a process that closes any descriptor of the file
    /// loses all of them, and the next program that uses the database takes itself for the only one.
    pub fn a_shell_on_the_database_while_goat_runs_disturbs_nothing(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1).moved(70, 7));
        books.write();
        // A second connection is opened while the first is busy, as when a passkey is looked up while a
        // batch is written.
        let store = &books.tracker.store;
        store
            .users(goat::store::Who::Everybody, "u.id", 0, |_| {
                assert!(store.user_by_passkey("nobody").unwrap().is_none())
            })
            .unwrap();
        assert_eq!(books.user(ALICE), (70, 7), "what the shell sees");
        for bytes in [80, 90] {
            books.announce(ALICE, client(1).moved(bytes, bytes / 10));
            books.write();
            let bytes = bytes as i64;
            assert_eq!(
                books.user(ALICE),
                (bytes, bytes / 10),
                "what the shell sees"
            );
        }
        assert_eq!(
            books.kill().user(ALICE),
            (90, 9),
            "what is there after a restart"
        );
    }

    pub fn what_cannot_be_written_at_the_end_is_written_at_the_next_start(database: &Database) {
        let books = Books::open(database);
        books.announce(ALICE, client(1).moved(10, 1));
        books.write();
        books.announce(ALICE, client(1).seeding().completed().moved(70, 7));
        books.announce(BOB, client(2).moved(50, 5));
        books.break_table("INSERT", "batches");
        Keeper::new(books.tracker.clone()).finish().unwrap();
        let file = books.folder.join("config.unwritten.json");
        let unwritten = std::fs::read(&file).expect("a file beside the configuration");
        let text = String::from_utf8_lossy(&unwritten);
        assert!(!text.contains(&passkey(ALICE)), "no secret is in it");
        assert_eq!((books.credited(ALICE), books.user(BOB)), ((10, 1), (0, 0)));

        // A start that cannot write it either leaves it where it is.
        assert!(Tracker::load(books.tracker.config.clone()).is_err());
        assert_eq!(std::fs::read(&file).unwrap(), unwritten);
        books.mend_table();
        let books = books.kill();
        assert_eq!(
            (books.credited(ALICE), books.credited(BOB)),
            ((70, 7), (50, 5))
        );
        assert_eq!(books.snatches(), (1, 1));
        assert!(!file.exists());
        assert_eq!(
            books.announce(BOB, client(3)).complete,
            1,
            "and it is known who was there"
        );

        // It counts once, though the last start may have ended before it could remove the file.
        std::fs::write(&file, &unwritten).unwrap();
        replay(&books.tracker.config, &books.tracker.store, books.now.get()).unwrap();
        assert_eq!(
            (books.credited(ALICE), books.credited(BOB)),
            ((70, 7), (50, 5))
        );
    }

    pub fn a_damaged_file_of_unwritten_batches_is_left_alone_and_named(database: &Database) {
        let books = Books::open(database);
        let file = books.folder.join("config.unwritten.json");
        for damaged in ["", "[", "{}", "[{\"number\":1}]", "\0"] {
            std::fs::write(&file, damaged).unwrap();
            let Tracker { config, store, .. } = &*books.tracker;
            let error = replay(config, store, books.now.get()).expect_err(damaged);
            assert!(error.contains("config.unwritten.json"), "{error}");
            assert_eq!(std::fs::read_to_string(&file).unwrap(), damaged);
        }
        std::fs::write(&file, "[]").unwrap();
        books.kill();
    }

    pub fn suggestions_are_recorded_unapproved_and_at_most_a_thousand_of_each_kind(
        database: &Database,
    ) {
        let books = Books::open(database);
        let store = &books.tracker.store;
        let clients = |range: std::ops::Range<u32>| {
            range
                .map(|n| Suggestion::Client(format!("Client/{n} µ'\\")))
                .collect::<Vec<_>>()
        };
        let torrents = |range: std::ops::Range<u32>| {
            range
                .map(|n| Suggestion::Torrent(hash(n)))
                .collect::<Vec<_>>()
        };
        let pending = || {
            let clients = books.number("SELECT COUNT(*) FROM whitelist WHERE approved = 0");
            (
                clients,
                books.number("SELECT COUNT(*) FROM files WHERE verified = 0"),
            )
        };
        assert_eq!(store.suggest(&clients(0..3), 1).unwrap(), clients(0..3));
        assert_eq!(
            store.suggest(&clients(0..4), 1).unwrap(),
            clients(3..4),
            "each is news once"
        );
        assert_eq!(
            store.suggest(&torrents(100..102), 1).unwrap(),
            torrents(100..102)
        );
        assert_eq!(pending(), (4, 2));
        // What is known already stays as it is.
        assert_eq!(store.suggest(&torrents(1..2), 1).unwrap(), []);
        assert_eq!(
            store
                .suggest(&[Suggestion::Client("qBittorrent/".into())], 1)
                .unwrap(),
            []
        );
        assert_eq!(pending(), (4, 2));
        store.suggest(&clients(0..1100), 1).unwrap();
        store.suggest(&torrents(100..1200), 1).unwrap();
        assert_eq!(pending(), (1000, 1000));
        // Where the operator has made room, there is room.
        store.approve_pending().unwrap();
        database.sql("UPDATE whitelist SET approved = 1 WHERE approved = 0");
        assert_eq!(store.suggest(&torrents(5000..5001), 1).unwrap().len(), 1);
        assert_eq!(store.suggest(&clients(5000..5001), 1).unwrap().len(), 1);
    }

    pub fn what_is_changed_by_hand_is_noticed(database: &Database) {
        let books = Books::open(database);
        let store = &books.tracker.store;
        let changes = |sql: &str| {
            if !sql.is_empty() {
                database.sql(sql);
            }
            let (seen, ids) = store.changes().unwrap();
            store.forget_changes(&ids).unwrap();
            let seen = seen.into_iter().map(|change| match change {
                Change::User(u) => format!(
                    "user {} {} {} {}",
                    u.id, u.passkey, u.torrent_limit, u.banned
                ),
                Change::UserGone(id) => format!("no user {id}"),
                Change::File(f) => format!("file {} {} {}", f.id, f.info_hash, f.verified),
                Change::FileGone(hash) => format!("no file {hash}"),
                Change::Clients(prefixes) => format!("{} clients", prefixes.len()),
            });
            seen.collect::<Vec<_>>()
        };
        changes("");
        let key = "k".repeat(40);
        let sql = format!("INSERT INTO users (id, username, passkey) VALUES (7, 'x', '{key}')");
        assert_eq!(changes(&sql), [format!("user 7 {key} 0 false")]);
        let sql = "UPDATE users SET banned = 1, torrent_limit = 5 WHERE id = 7";
        assert_eq!(changes(sql), [format!("user 7 {key} 5 true")]);
        assert_eq!(changes("DELETE FROM users WHERE id = 7"), ["no user 7"]);
        let new = hash(50);
        let sql = format!(
            "INSERT INTO files (id, info_hash) VALUES (50, '{}')",
            new.to_string().to_uppercase()
        );
        assert_eq!(changes(&sql), [format!("file 50 {new} false")]);
        assert_eq!(
            changes("UPDATE files SET verified = 1 WHERE id = 50"),
            [format!("file 50 {new} true")]
        );
        assert_eq!(
            changes("DELETE FROM files WHERE id = 50"),
            [format!("no file {new}")]
        );
        let approved = books.number("SELECT COUNT(*) FROM whitelist WHERE approved = 1");
        let sql = "INSERT INTO whitelist (client, approved) VALUES ('New/', 1)";
        assert_eq!(changes(sql), [format!("{} clients", approved + 1)]);
        let sql = "UPDATE whitelist SET approved = 0 WHERE client IN ('New/', 'WebTorrent')";
        assert_eq!(changes(sql), [format!("{} clients", approved - 1)]);
        assert_eq!(changes("DELETE FROM whitelist"), ["0 clients"]);
        assert_eq!(changes(""), [""; 0], "each change is told once");
        // The books themselves are no change, but for the snatches.
        books.announce(ALICE, client(1).moved(70, 7));
        books.write();
        assert_eq!(changes(""), [""; 0]);
        books.announce(ALICE, client(1).seeding().completed().moved(70, 7));
        books.write();
        assert_eq!(changes(""), [format!("file 1 {} true", hash(1))]);
    }

    /// Everything at once in random order, against a model that never forgets anything.
    pub fn whatever_happens_the_books_add_up(database: &Database) {
        let mut books = Books::with(database, json!({ "SlowDown": 0 }));
        let (mut rng, mut model) = (Rng::new(20), Model::default());
        for step in 1..=3000 {
            books.wait(rng.below(600) as u32);
            match rng.below(100) {
                0 => {
                    books.wait(INTERVAL);
                    books.expire();
                    let oldest = books.now.get() - 2 * INTERVAL;
                    model.there.retain(|_, (_, seen)| *seen >= oldest);
                }
                1 => books = books.restart(),
                2..=7 => {
                    // The connection may have died after the commit.
                    let batch = books.batch();
                    (0..=rng.below(2)).for_each(|_| books.write_batch(&batch));
                }
                _ => {
                    let (user, a) = model.next(books.now.get(), &mut rng);
                    books.announce(user, a);
                }
            }
            if step % 500 == 0 {
                books.write();
                model.compare(&books);
            }
        }
    }
}

/// What the books must say.
#[derive(Default)]
struct Model {
    /// The last counters of every session there ever was, by torrent, user and peer id.
    sessions: BTreeMap<(u32, u32, PeerId), (u64, u64)>,
    /// Those in the swarm: what they want, and when they announced last.
    there: BTreeMap<(u32, u32, PeerId), (u64, u32)>,
    /// By user.
    credited: BTreeMap<u32, (u64, u64)>,
    seed_time: u64,
    announced: u64,
}

impl Model {
    /// One of two users says something, of one of three torrents, from one of three clients.
    fn next(&mut self, now: u32, rng: &mut Rng) -> (u32, Announce) {
        let (user, torrent) = (1 + rng.below(2) as u32, 1 + rng.below(3) as u32);
        let mut a = client(10 * user as u16 + rng.below(3) as u16).on(torrent);
        let key = (torrent, user, a.peer_id);
        let known = self.sessions.get(&key).copied();
        let (uploaded, downloaded) = known.unwrap_or_default();
        let (up, down) = (rng.below(1000) as u64, rng.below(1000) as u64);
        a = match rng.below(12) {
            0 => a.moved(up, down), // the client was started anew
            1 => a.moved(uploaded, downloaded),
            _ => a.moved(uploaded + up, downloaded + down),
        };
        a.left = rng.below(3) as u64;
        a = if rng.below(3) == 0 { a.over_v6() } else { a };
        let events = [
            Event::Started,
            Event::Stopped,
            Event::Completed,
            Event::Paused,
        ];
        a.event = events.get(rng.below(12)).copied().unwrap_or(Event::None);

        let fell = |last: u64, now: u64| if now < last { now } else { now - last };
        let credit = match known {
            Some(last) => (fell(last.0, a.uploaded), fell(last.1, a.downloaded)),
            None if a.event == Event::Started => (a.uploaded, a.downloaded),
            None => (0, 0),
        };
        let total = self.credited.entry(user).or_default();
        *total = (total.0 + credit.0, total.1 + credit.1);
        self.sessions.insert(key, (a.uploaded, a.downloaded));
        if let Some((0, seen)) = self.there.remove(&key) {
            self.seed_time += u64::from((now - seen).min(2 * INTERVAL));
        }
        if a.event != Event::Stopped {
            self.there.insert(key, (a.left, now));
        }
        self.announced += 1;
        (user, a)
    }

    fn compare(&self, books: &Books) {
        for (user, (uploaded, downloaded)) in &self.credited {
            assert_eq!(
                books.credited(*user),
                (*uploaded as i64, *downloaded as i64)
            );
        }
        let sessions =
            "SELECT file_id, user_id, LOWER(HEX(peer_id)), uploaded, downloaded, active FROM peers";
        let held: BTreeSet<String> = books.rows(sessions).into_iter().collect();
        let expected = self
            .sessions
            .iter()
            .map(|(key @ (file, user, peer_id), (up, down))| {
                let active = u8::from(self.there.contains_key(key));
                format!("{file} {user} {peer_id} {up} {down} {active}")
            });
        assert_eq!(held, expected.collect());
        assert_eq!(books.seed_time(), self.seed_time as i64);
        assert_eq!(
            books.number("SELECT SUM(announced) FROM files_users"),
            self.announced as i64
        );
        let snatches = "SELECT SUM(completed) FROM";
        let (files, rows) = (
            format!("{snatches} files"),
            format!("{snatches} files_users"),
        );
        assert_eq!(books.number(&files), books.number(&rows));
    }
}

// ---------------------------------------------------------------------------------------------------

fn passkey(user: u32) -> String {
    format!("{user:040x}")
}

/// A tracker with its database: two members, three verified torrents, and a clock that the test sets.
struct Books<'a> {
    database: &'a Database,
    tracker: Arc<Tracker>,
    now: Cell<u32>,
    rng: RefCell<Rng>,
    folder: Folder,
}

impl<'a> Books<'a> {
    fn open(database: &'a Database) -> Books<'a> {
        Books::with(database, json!({}))
    }

    fn with(database: &'a Database, mut settings: Value) -> Books<'a> {
        let folder = Folder::new();
        settings["DB"] = database.config();
        let config = config(&folder.join("config.json"), &settings);
        drop(Store::open(&config).unwrap());
        for (id, name) in [(ALICE, "alice"), (BOB, "bob")] {
            let key = passkey(id);
            let values = format!("VALUES ({id}, '{name}', '{key}')");
            database.sql(&format!(
                "INSERT INTO users (id, username, passkey) {values}"
            ));
        }
        for n in 1..=3 {
            let values = format!("VALUES ({n}, '{}', 1)", hash(n));
            database.sql(&format!(
                "INSERT INTO files (id, info_hash, verified) {values}"
            ));
        }
        let tracker = Tracker::load(config).unwrap();
        let now = Cell::new(tracker.clock.now());
        let (tracker, rng) = (Arc::new(tracker), RefCell::new(Rng::new(1)));
        Books {
            database,
            tracker,
            now,
            rng,
            folder,
        }
    }

    fn wait(&self, seconds: u32) {
        self.now.set(self.now.get() + seconds);
    }

    fn announce(&self, user: u32, a: Announce) -> Reply {
        let access = &self.tracker.access;
        let user = if user == 0 {
            access.anonymous()
        } else {
            access.by_id(user).unwrap()
        };
        self.announce_as(&user, a)
    }

    fn announce_as(&self, user: &User, a: Announce) -> Reply {
        self.answer(user, a).0
    }

    fn peers(&self, user: u32, a: Announce) -> Vec<std::net::SocketAddr> {
        addresses(self.answer(&self.tracker.access.by_id(user).unwrap(), a).1)
    }

    fn answer(&self, user: &User, a: Announce) -> (Reply, Peers) {
        let Tracker { config, swarms, .. } = &*self.tracker;
        let (mut rng, mut peers) = (self.rng.borrow_mut(), Peers::default());
        let now = self.now.get();
        let reply = announce::announce(config, swarms, user, &a, now, &mut rng, &mut peers);
        (
            reply.unwrap_or_else(|refusal| panic!("{a:?}: {refusal}")),
            peers,
        )
    }

    fn expire(&self) {
        let Tracker {
            config,
            access,
            swarms,
            ..
        } = &*self.tracker;
        swarms
            .each()
            .for_each(|mut shard| announce::expire(config, access, &mut shard, self.now.get()));
    }

    fn drop_user(&self, user: u32) {
        let Tracker { access, swarms, .. } = &*self.tracker;
        swarms
            .each()
            .for_each(|mut shard| announce::drop_users(access, &mut shard, &[user].into()));
    }

    /// What is unwritten.
    fn batch(&self) -> Batch {
        gather(&self.tracker, &mut self.rng.borrow_mut())
    }

    /// Writes a batch as the keeper does.
    fn write_batch(&self, batch: &Batch) {
        let store = &self.tracker.store;
        store.write(batch, self.now.get()).unwrap();
        if let Some(journal) = &self.tracker.journal {
            journal.forget(Some(batch.number));
        }
        for change in store.changes().unwrap().0 {
            if let Change::File(file) = change {
                self.tracker.put_torrent(&file);
            }
        }
    }

    fn write(&self) {
        let batch = self.batch();
        if !batch.is_empty() {
            self.write_batch(&batch);
        }
    }

    /// Ends in good order and starts again.
    fn restart(self) -> Books<'a> {
        self.write();
        self.kill()
    }

    /// Forgets what is not written, and starts again.
    fn kill(self) -> Books<'a> {
        let config = self.tracker.config.clone();
        let Books {
            database,
            tracker,
            now,
            rng,
            folder,
        } = self;
        drop(tracker);
        let tracker = Arc::new(Tracker::load(config).unwrap());
        Books {
            database,
            tracker,
            now,
            rng,
            folder,
        }
    }

    /// Writes what is unwritten. Gives what a user has in all, which must be the sum of what it has of
    /// each torrent.
    fn credited(&self, user: u32) -> (i64, i64) {
        if !self.broken() {
            self.write();
        }
        assert_eq!(
            self.user(user),
            self.sum(user),
            "users, and the sum of files_users"
        );
        self.user(user)
    }

    fn user(&self, user: u32) -> (i64, i64) {
        self.pair(&format!(
            "SELECT uploaded, downloaded FROM users WHERE id = {user}"
        ))
    }

    fn sum(&self, user: u32) -> (i64, i64) {
        let sums = "COALESCE(SUM(uploaded), 0), COALESCE(SUM(downloaded), 0)";
        self.pair(&format!(
            "SELECT {sums} FROM files_users WHERE user_id = {user}"
        ))
    }

    fn pair(&self, sql: &str) -> (i64, i64) {
        let rows = self.database.sql(sql);
        let [row] = &rows[..] else {
            panic!("{sql}: {rows:?}")
        };
        (row[0].parse().unwrap(), row[1].parse().unwrap())
    }

    /// Seconds of all seeders.
    fn seed_time(&self) -> i64 {
        self.write();
        self.number("SELECT SUM(seed_time) FROM files_users")
    }

    /// Snatches of the first torrent, and how many rows of totals say so.
    fn snatches(&self) -> (i64, i64) {
        let rows = "SELECT COALESCE(SUM(completed), 0) FROM files_users WHERE file_id = 1";
        (
            self.number("SELECT completed FROM files WHERE id = 1"),
            self.number(rows),
        )
    }

    fn number(&self, sql: &str) -> i64 {
        self.database.number(sql)
    }

    /// The rows of a query, each as one text.
    fn rows(&self, sql: &str) -> Vec<String> {
        self.database
            .sql(sql)
            .into_iter()
            .map(|row| row.join(" "))
            .collect()
    }

    /// Everything that a batch may change.
    fn dump(&self) -> Vec<String> {
        let tables = ["users", "files", "files_users", "batches", "changes"];
        let dump = tables.map(|table| self.rows(&format!("SELECT * FROM {table}")));
        let peers = "SELECT hex(peer_id), active, uploaded, downloaded, `left`, time FROM peers";
        dump.into_iter().flatten().chain(self.rows(peers)).collect()
    }

    /// Makes a table refuse something, until it is mended.
    fn break_table(&self, what: &str, table: &str) {
        let refuse = match self.database {
            Database::Sqlite(_) => "BEGIN SELECT RAISE(ABORT, 'broken by the test'); END",
            Database::MariaDb(_) => {
                "FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'broken'"
            }
        };
        self.database.sql(&format!(
            "CREATE TRIGGER broken BEFORE {what} ON {table} {refuse}"
        ));
    }

    fn mend_table(&self) {
        self.database.sql("DROP TRIGGER broken");
    }

    fn broken(&self) -> bool {
        let sql = match self.database {
            Database::Sqlite(_) => "SELECT COUNT(*) FROM sqlite_master WHERE name = 'broken'",
            Database::MariaDb(_) => {
                "SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_name = 'broken'"
            }
        };
        self.number(sql) > 0
    }
}
