//! The books: what is credited, and that it is in the database exactly once.
//!
//! Each rule is a test on SQLite; all of them together are one on MariaDB, whose server takes long to
//! start. What the database holds is asked by SQL, past goat.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Barrier};
use std::thread;

use crate::common::{Database, Folder, hex};
use crate::world::*;
use goat::books::ledger::Waiting;
use goat::books::settle::settle;
use goat::keeper::{Writer, compare, follow_changes};
use goat::protocol::{Addresses, Announce, Event, Factors, Free, Moved, Peers, Refusal, Reply};
use goat::random::Rng;
use goat::rules::access::User;
use goat::rules::announce::{self, Admitted, Buffers};
use goat::store::sessions::{Changes, Key, LifeRow, Row};
use goat::store::{Found, Store, Suggestion};
use goat::torrent::PeerId;
use goat::tracker::Tracker;
use serde_json::{Value, json};

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
    // Lives.
    an_unknown_session_that_says_started_is_credited_all_that_it_reports
    an_unknown_session_that_says_anything_else_is_credited_nothing_yet
    an_open_session_is_credited_what_its_highest_counters_rise
    a_stop_over_a_path_that_has_not_announced_counts_its_counters_and_ends_nothing
    a_closed_session_whose_counters_did_not_fall_goes_on
    what_is_started_at_lower_counters_ten_minutes_after_the_close_is_a_new_life
    a_life_in_doubt_is_credited_whole_when_it_is_heard_of_two_minutes_after_the_close
    a_life_that_begins_and_ends_within_two_minutes_of_the_one_before_is_worth_nothing
    what_a_slower_path_says_of_the_life_before_is_not_credited_to_a_life_in_doubt
    what_comes_late_is_worth_nothing
    within_a_minute_of_the_close_only_started_brings_a_session_back
    silence_of_two_intervals_closes_a_session_two_intervals_after_its_last_announce
    a_client_with_a_counter_for_each_url_is_credited_what_it_moved
    the_second_address_family_is_credited_nothing
    the_same_client_on_two_torrents_or_of_two_members_is_two_sessions
    a_client_that_was_killed_and_comes_back_as_another_closes_the_one_before
    the_row_says_what_a_session_is_that_memory_does_not_know
    what_is_announced_while_the_row_is_asked_is_credited_too
    two_lives_in_one_batch_are_both_credited
    counters_above_what_the_database_holds_do_not_break_the_books
    // What is kept of it.
    factors_are_rounded_down_for_each_settling_and_raw_bytes_are_kept_beside
    what_was_announced_while_all_was_free_is_free_whenever_it_is_written
    what_others_add_to_a_users_total_stays
    the_anonymous_user_is_credited_nothing
    anonymous_sessions_of_one_torrent_are_settled_each_by_its_own_row
    a_member_on_a_torrent_is_one_row_of_the_last_announce_wherever_it_came_from
    no_table_grows_with_changes_of_address
    who_is_in_the_swarm_is_active_in_the_books
    an_address_that_a_session_left_or_that_fell_silent_is_not_in_its_row
    old_sessions_are_folded_into_the_totals_of_their_members
    old_sessions_that_moved_more_than_a_number_holds_are_folded_as_well
    peers_are_words_and_numbers_that_sql_can_read
    announces_that_were_answered_are_counted
    a_peer_id_may_be_any_bytes
    addresses_are_kept_whole
    a_row_is_read_as_it_was_written_and_the_view_says_the_same
    // Snatches.
    a_snatch_is_a_leecher_that_first_wants_nothing_more_whatever_it_says
    a_snatch_is_counted_once_for_a_member_and_a_torrent
    each_member_who_completes_is_a_snatch
    completed_of_an_unknown_session_is_a_snatch_if_it_downloaded
    // Time of seeding.
    a_seeder_is_credited_the_time_between_its_announces
    between_two_announces_at_most_two_intervals_are_seeded
    who_leaves_and_comes_back_has_not_seeded_meanwhile
    two_clients_of_a_member_seed_the_time_in_which_any_of_them_did
    // Writing.
    a_session_that_changes_again_before_it_is_written_is_one_state
    a_batch_that_is_written_again_changes_nothing
    a_batch_that_fails_anywhere_leaves_nothing_behind_and_is_settled_when_it_can_be
    a_batch_of_any_size_is_written
    users_and_torrents_that_are_gone_do_not_break_the_books
    two_writers_settle_the_same_sessions_in_either_order
    two_writers_at_once_credit_nothing_twice
    two_trackers_that_hear_the_same_session_credit_nothing_twice
    // Restarts.
    after_a_restart_counters_go_on
    after_a_kill_nothing_is_missing
    a_journal_that_is_settled_twice_or_a_day_later_changes_nothing
    a_journal_of_another_database_is_discarded
    a_journal_of_a_time_that_the_database_does_not_know_is_discarded
    a_lost_journal_costs_what_was_not_written
    what_cannot_be_written_at_the_end_is_settled_by_the_next_start
    a_damaged_journal_is_left_alone_and_named
    sessions_that_fell_silent_while_no_tracker_ran_are_over_at_its_start
    a_restart_finds_the_users_that_are_active
    a_shell_on_the_database_while_goat_runs_disturbs_nothing
    // What others change.
    suggestions_are_recorded_unapproved_with_who_made_them_and_only_so_many
    what_is_changed_by_hand_is_noticed
    a_ban_comes_before_all_else_that_changed
    each_of_two_goats_follows_each_change_once_whenever_it_was_committed
    a_look_up_never_undoes_what_was_learned_meanwhile
    what_triggers_do_not_see_is_found_by_comparing
    // What is never refused, and what is not booked.
    a_stop_of_a_session_that_is_there_is_never_refused
    the_second_hash_of_a_hybrid_is_answered_with_counts_and_nothing_is_booked
}

mod rules {
    use super::*;

    /// What an announce is made of another one.
    type Change = fn(Announce) -> Announce;
    /// Bytes uploaded and downloaded.
    type Counters = (u64, u64);

    pub fn an_unknown_session_that_says_started_is_credited_all_that_it_reports(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1).moved(70, 7));
        assert_eq!(books.credited(ALICE), (70, 7));
    }

    pub fn an_unknown_session_that_says_anything_else_is_credited_nothing_yet(db: &Database) {
        let books = Books::open(db);
        for (n, event) in (1..).zip([Event::None, Event::Completed, Event::Paused, Event::Stopped]) {
            books.announce(ALICE, client(n).says(event).moved(70, 7));
            assert_eq!(books.credited(ALICE), (0, 0), "{event:?}");
        }
        // Its life began at what it reported, whether or not that was written meanwhile.
        books.announce(ALICE, client(1).completed().moved(80, 8));
        assert_eq!(books.credited(ALICE), (10, 1));
        books.announce(ALICE, client(9).regular().moved(70, 7));
        books.announce(ALICE, client(9).completed().moved(80, 8));
        assert_eq!(books.credited(ALICE), (20, 2));
    }

    pub fn an_open_session_is_credited_what_its_highest_counters_rise(db: &Database) {
        let books = Books::open(db);
        let says = [
            (Event::Started, (100, 100), (100, 100)),
            (Event::Started, (100, 100), (100, 100)),
            (Event::Completed, (150, 90), (150, 100)),
            (Event::Started, (0, 0), (150, 100)),
            (Event::None, (30, 130), (150, 130)),
            (Event::Paused, (149, 131), (150, 131)),
            (Event::None, (151, 1), (151, 131)),
            (Event::Stopped, (160, 132), (160, 132)),
            (Event::Stopped, (160, 132), (160, 132)),
        ];
        for (n, write) in [(1, false), (2, true)] {
            let before = books.credited(ALICE);
            for (event, (up, down), (all_up, all_down)) in says {
                books.wait(2000);
                books.announce(ALICE, client(n).says(event).moved(up, down));
                if write {
                    let credited = (before.0 + all_up, before.1 + all_down);
                    assert_eq!(books.credited(ALICE), credited, "{event:?} {up} {down}");
                }
            }
        }
        assert_eq!(books.credited(ALICE), (320, 264));
    }

    pub fn a_stop_over_a_path_that_has_not_announced_counts_its_counters_and_ends_nothing(db: &Database) {
        let books = Books::open(db);
        let over: [fn(Announce) -> Announce; 3] =
            [|a| a.over_v6(), |a| a.change(|a| a.udp = true), |a| a.over_v6().change(|a| a.udp = true)];
        for (n, over) in (1..).zip(over) {
            let before = books.credited(ALICE).0;
            books.announce(ALICE, client(n).moved(100, 0));
            books.announce(ALICE, over(client(n)).stopped().moved(120, 0));
            assert_eq!((books.credited(ALICE).0, books.active()), (before + 120, 1), "path {n}");
            // Now that it has announced over that path, it may end over it.
            books.announce(ALICE, over(client(n)).says(Event::Completed).moved(120, 0));
            books.announce(ALICE, over(client(n)).stopped().moved(130, 0));
            assert_eq!((books.credited(ALICE).0, books.active()), (before + 130, 0), "path {n}");
        }
    }

    pub fn a_closed_session_whose_counters_did_not_fall_goes_on(db: &Database) {
        let books = Books::open(db);
        let mut credited = 0;
        let events = [Event::Started, Event::None, Event::Completed, Event::Paused, Event::Stopped];
        for (n, event) in (1..).zip(events) {
            for (write, seconds) in [(false, 61), (true, 100_000)] {
                let a = client(n + if write { 100 } else { 0 });
                books.announce(ALICE, a.clone().moved(70, 70));
                books.announce(ALICE, a.clone().stopped().moved(80, 80));
                if write {
                    books.write();
                }
                books.wait(seconds);
                books.announce(ALICE, a.clone().says(event).moved(100, 80));
                books.announce(ALICE, a.stopped().moved(110, 90));
                credited += 110;
                assert_eq!(books.credited(ALICE).0, credited, "{event:?}");
            }
        }
        assert_eq!(books.active(), 0);
    }

    pub fn what_is_started_at_lower_counters_ten_minutes_after_the_close_is_a_new_life(db: &Database) {
        let books = Books::open(db);
        for (n, (up, down)) in (1..).zip([(0, 0), (30, 3), (69, 100), (100, 6)]) {
            for (seconds, write) in [(600, false), (601, false), (601, true), (100_000, true)] {
                let a = client(10 * n + if write { 5 } else { 0 } + (seconds % 5) as u16);
                let (up_before, down_before) = books.credited(ALICE);
                books.announce(ALICE, a.clone().moved(70, 7));
                books.announce(ALICE, a.clone().stopped().moved(70, 7));
                if write {
                    books.write();
                    books.expire();
                }
                books.wait(seconds);
                books.announce(ALICE, a.clone().moved(up, down));
                books.wait(130);
                books.announce(ALICE, a.clone().regular().moved(up, down));
                let begins = seconds > 600 || (up, down) == (0, 0);
                let (up, down) = (up as i64, down as i64);
                // What was late has opened the session again, and then a counter rises.
                let (up, down) = if begins { (70 + up, 7 + down) } else { (up.max(70), down.max(7)) };
                let expected = (up_before + up, down_before + down);
                assert_eq!(books.credited(ALICE), expected, "{up} {down} after {seconds} seconds");
                books.announce(ALICE, a.stopped().moved(200, 200));
                books.wait(1000);
            }
        }
    }

    pub fn a_life_in_doubt_is_credited_whole_when_it_is_heard_of_two_minutes_after_the_close(db: &Database) {
        let books = Books::open(db);
        for (n, write) in [(1, false), (2, true)] {
            let before = books.credited(ALICE).0;
            let says = [
                (0, client(n).moved(0, 0), 0),
                (1000, client(n).stopped().moved(70, 0), 70),
                (5, client(n).moved(0, 0), 70),
                (115, client(n).regular().moved(50, 0), 70),
                (1, client(n).regular().moved(50, 0), 120),
                (0, client(n).regular().moved(60, 0), 130),
            ];
            for (seconds, a, credited) in says {
                books.wait(seconds);
                books.announce(ALICE, a);
                if write {
                    assert_eq!(books.credited(ALICE).0, before + credited);
                }
            }
            assert_eq!(books.credited(ALICE).0, before + 130);
        }
    }

    pub fn a_life_that_begins_and_ends_within_two_minutes_of_the_one_before_is_worth_nothing(db: &Database) {
        let books = Books::open(db);
        for (n, write) in [(1, false), (2, true)] {
            let before = books.credited(ALICE);
            let says = [
                (0, client(n).moved(0, 0)),
                (0, client(n).stopped().moved(70, 7)),
                (5, client(n).moved(0, 0)),
                (50, client(n).stopped().moved(50, 5)),
                (700, client(n).moved(0, 0)),
                (130, client(n).regular().moved(10, 1)),
            ];
            for (seconds, a) in says {
                books.wait(seconds);
                books.announce(ALICE, a);
                if write {
                    books.write();
                }
            }
            assert_eq!(books.credited(ALICE), (before.0 + 80, before.1 + 8));
        }
    }

    /// A client with an HTTP and a UDP URL, or with two address families: the slower one is still at the life before
    /// when the faster one begins the next.
    pub fn what_a_slower_path_says_of_the_life_before_is_not_credited_to_a_life_in_doubt(db: &Database) {
        let books = Books::open(db);
        let paths: [fn(Announce) -> Announce; 2] = [|a| a.over_v6(), |a| a.change(|a| a.udp = true)];
        for (n, over) in (1..).zip(paths) {
            let before = books.credited(ALICE).0;
            let says = [
                (0, client(n).moved(0, 0)),
                (0, over(client(n)).moved(0, 0)),
                (1000, client(n).regular().moved(90, 0)),
                (0, client(n).stopped().moved(100, 0)),
                (1, client(n).moved(0, 0)),
                (1, over(client(n)).regular().moved(90, 0)),
                (0, over(client(n)).stopped().moved(100, 0)),
                (0, over(client(n)).moved(0, 0)),
                (1000, client(n).regular().moved(10, 0)),
            ];
            for (seconds, a) in says {
                books.wait(seconds);
                books.announce(ALICE, a);
            }
            assert_eq!(books.credited(ALICE).0, before + 110, "path {n}");
        }
    }

    pub fn what_comes_late_is_worth_nothing(db: &Database) {
        let books = Books::open(db);
        let v6 = |a: Announce| a.over_v6();
        let v4 = |a: Announce| a;
        let cases: [(Change, Event, Counters, u32, bool); 9] = [
            // The second family's first word; counters that are not 0; regular ones.
            (v6, Event::Started, (0, 0), 5, false),
            (v6, Event::Started, (0, 0), 100, true),
            (v4, Event::Started, (30, 0), 5, false),
            (v4, Event::Started, (30, 3), 600, true),
            (v4, Event::None, (30, 3), 60, false),
            (v4, Event::None, (30, 3), 100_000, true),
            (v4, Event::Stopped, (0, 0), 5, false),
            (v4, Event::Completed, (69, 7), 61, true),
            (v6, Event::Paused, (70, 6), 61, true),
        ];
        for (n, (over, event, (up, down), seconds, back)) in (1..).zip(cases) {
            let before = books.credited(ALICE);
            books.announce(ALICE, client(n).moved(70, 7));
            books.announce(ALICE, client(n).stopped().moved(70, 7));
            books.wait(seconds);
            books.announce(ALICE, over(client(n)).says(event).moved(up, down));
            let name = format!("{event:?} {up} {down} after {seconds} seconds");
            assert_eq!(books.credited(ALICE), (before.0 + 70, before.1 + 7), "{name}");
            assert_eq!(books.active(), i64::from(back), "{name}");
            // The maxima stay what they were.
            books.wait(100);
            books.announce(ALICE, client(n).regular().moved(71, 9));
            assert_eq!(books.credited(ALICE), (before.0 + 71, before.1 + 9), "{name}");
            books.announce(ALICE, client(n).stopped().moved(71, 9));
        }
    }

    pub fn within_a_minute_of_the_close_only_started_brings_a_session_back(db: &Database) {
        let books = Books::open(db);
        let v6 = |a: Announce| a.over_v6();
        let v4 = |a: Announce| a;
        let cases: [(Change, Event, u32, bool); 9] = [
            (v4, Event::Started, 0, true),
            (v4, Event::Started, 60, true),
            // Who has left may have said so before, over a family that is slower.
            (v6, Event::Started, 60, false),
            (v6, Event::Started, 61, true),
            (v4, Event::None, 60, false),
            (v4, Event::None, 61, true),
            (v4, Event::Completed, 60, false),
            (v4, Event::Paused, 61, true),
            (v4, Event::Stopped, 61, false),
        ];
        for (n, (over, event, seconds, back)) in (1..).zip(cases) {
            books.announce(ALICE, client(n).moved(70, 7));
            books.announce(ALICE, client(n).stopped().moved(70, 7));
            books.wait(seconds);
            books.announce(ALICE, over(client(n)).says(event).moved(70, 7));
            assert_eq!(books.active(), i64::from(back), "{event:?} after {seconds} seconds");
            books.announce(ALICE, over(client(n)).stopped().moved(70, 7));
            assert_eq!(books.active(), 0);
        }
    }

    pub fn silence_of_two_intervals_closes_a_session_two_intervals_after_its_last_announce(db: &Database) {
        let books = Books::open(db);
        for (n, looked) in [(1, false), (2, true)] {
            for (m, seconds, begins) in [(0, 600, false), (10, 601, true)] {
                let before = books.credited(ALICE).0;
                let last = books.now.get();
                books.announce(ALICE, client(n + m).moved(70, 7));
                books.wait(2 * INTERVAL);
                if looked {
                    books.expire();
                    assert_eq!(books.active(), 1);
                }
                books.wait(seconds);
                if looked {
                    books.expire();
                    assert_eq!(books.active(), 0);
                    let closed = "SELECT MAX(closed) FROM sessions WHERE uploaded = 70";
                    assert_eq!(books.number(closed), i64::from(last + 2 * INTERVAL));
                }
                books.announce(ALICE, client(n + m).moved(30, 3));
                let expected = before + if begins { 100 } else { 70 };
                assert_eq!(books.credited(ALICE).0, expected, "looked for: {looked}, {seconds} seconds later");
                books.announce(ALICE, client(n + m).stopped().moved(200, 20));
            }
        }
    }

    pub fn a_client_with_a_counter_for_each_url_is_credited_what_it_moved(db: &Database) {
        let books = Books::open(db);
        // Both URLs on one path; the second one by UDP.
        for (n, udp) in [(1, false), (2, true)] {
            let before = books.credited(ALICE).0;
            let second = |a: Announce| a.change(|a| a.udp = udp);
            let says = [
                (0, client(n).moved(0, 0), 0),
                (0, second(client(n)).moved(0, 0), 0),
                (1800, client(n).regular().moved(10, 0), 10),
                (1, second(client(n)).regular().moved(10, 0), 10),
                // The second URL is taken out and added again: its counter begins anew.
                (600, second(client(n)).moved(0, 0), 10),
                (1200, client(n).regular().moved(20, 0), 20),
                (1, second(client(n)).regular().moved(7, 0), 20),
                (1, second(client(n)).stopped().moved(8, 0), 20),
                (1, client(n).stopped().moved(21, 0), 21),
                // The torrent is resumed: both begin anew.
                (900, client(n).moved(0, 0), 21),
                (0, second(client(n)).moved(0, 0), 21),
                (1800, second(client(n)).regular().moved(5, 0), 26),
                (1, client(n).regular().moved(5, 0), 26),
            ];
            for (seconds, a, credited) in says {
                books.wait(seconds);
                books.announce(ALICE, a);
                assert_eq!(books.credited(ALICE).0, before + credited);
            }
        }
    }

    pub fn the_second_address_family_is_credited_nothing(db: &Database) {
        let books = Books::open(db);
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
        assert_eq!(books.number("SELECT COUNT(*) FROM sessions"), 2, "a session is one row");
    }

    pub fn the_same_client_on_two_torrents_or_of_two_members_is_two_sessions(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1).moved(70, 7));
        books.announce(ALICE, client(1).on(2).moved(50, 5));
        books.announce(BOB, client(1).moved(20, 2));
        assert_eq!((books.credited(ALICE), books.credited(BOB)), ((120, 12), (20, 2)));
        assert_eq!(books.number("SELECT COUNT(*) FROM sessions"), 3);
    }

    pub fn a_client_that_was_killed_and_comes_back_as_another_closes_the_one_before(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1).moved(70, 7));
        books.announce(ALICE, client(2).at(client(1).ip).moved(5, 0));
        assert_eq!((books.credited(ALICE), books.active()), ((75, 7), 1));
        // A last word of the one before comes late.
        books.announce(ALICE, client(1).stopped().moved(80, 8));
        assert_eq!((books.credited(ALICE), books.active()), ((85, 8), 1));
    }

    pub fn the_row_says_what_a_session_is_that_memory_does_not_know(db: &Database) {
        let books = Books::open(db);
        // What it says first, what that is credited, and what is credited of (110, 10) after it.
        let cases = [
            (Event::Started, (100, 9), (30, 2), (10, 1)),
            (Event::None, (100, 9), (30, 2), (10, 1)),
            (Event::Completed, (71, 7), (1, 0), (39, 3)),
            (Event::Stopped, (100, 9), (30, 2), (10, 1)),
            // A new life.
            (Event::Started, (30, 3), (30, 3), (80, 7)),
            (Event::Started, (0, 0), (0, 0), (110, 10)),
            // Late.
            (Event::None, (30, 3), (0, 0), (40, 3)),
            (Event::Stopped, (30, 3), (0, 0), (40, 3)),
        ];
        for (n, (event, (up, down), credited, then)) in (1..).zip(cases) {
            for told in [true, false] {
                let a = client(10 * n + u16::from(told));
                let before = books.credited(ALICE);
                books.announce(ALICE, a.clone().moved(70, 7));
                books.announce(ALICE, a.clone().stopped().moved(70, 7));
                books.write();
                books.wait(100_000);
                books.expire();
                assert!(books.tracker.swarms.each().all(|shard| shard.closed.is_empty()), "memory has forgotten it");

                books.announce(ALICE, a.clone().says(event).moved(up, down));
                let sum = (before.0 + 70 + credited.0, before.1 + 7 + credited.1);
                if told {
                    assert_eq!(books.credited(ALICE), sum, "{event:?} {up} {down}");
                }
                books.wait(100);
                books.announce(ALICE, a.clone().regular().moved(110, 10));
                let sum = (sum.0 + then.0, sum.1 + then.1);
                // Where it was not told meanwhile, one that was late and rose is one state, and as credited.
                assert_eq!(books.credited(ALICE), sum, "{event:?} {up} {down}, told: {told}");
                books.announce(ALICE, a.stopped().moved(110, 10));
            }
        }
    }

    pub fn what_is_announced_while_the_row_is_asked_is_credited_too(db: &Database) {
        let books = Books::open(db);
        for (n, known) in [(1, false), (2, true)] {
            let before = books.credited(ALICE).0;
            if known {
                books.announce(ALICE, client(n).moved(0, 0));
                books.announce(ALICE, client(n).stopped().moved(0, 0));
                books.write();
                books.wait(100_000);
                books.expire();
            }
            books.announce(ALICE, client(n).moved(70, 0));
            let batch = books.take();
            books.announce(ALICE, client(n).stopped().moved(90, 0));
            books.settle_taken(&batch);
            assert_eq!(books.user(ALICE).0, before + 70);
            assert_eq!(books.credited(ALICE).0, before + 90);
            assert_eq!(books.active(), 0);
            // And memory goes on by the number that it was told.
            books.announce(ALICE, client(n).moved(100, 0));
            assert_eq!(books.credited(ALICE).0, before + 100);
            books.announce(ALICE, client(n).stopped().moved(100, 0));
        }
        let lives: Vec<u32> = books.sessions().iter().map(|row| row.life).collect();
        assert_eq!(lives, [1, 1]);
    }

    pub fn two_lives_in_one_batch_are_both_credited(db: &Database) {
        let books = Books::open(db);
        for (n, fresh) in [(1, true), (2, false)] {
            let before = books.credited(ALICE);
            books.announce(ALICE, client(n).moved(0, 0));
            if !fresh {
                books.write();
            }
            for life in 1..=3 {
                books.announce(ALICE, client(n).moved(0, 0));
                books.wait(1000);
                books.announce(ALICE, client(n).stopped().moved(100 * life, life));
                books.wait(601);
            }
            assert_eq!(books.credited(ALICE), (before.0 + 600, before.1 + 6));
        }
        let rows = books.sessions();
        let lives: Vec<_> = rows.iter().map(|row| (row.life, row.announced)).collect();
        assert_eq!(lives, [(3, 7), (3, 7)]);
    }

    pub fn counters_above_what_the_database_holds_do_not_break_the_books(db: &Database) {
        let books = Books::open(db);
        let most = i64::MAX;
        books.announce(ALICE, client(1).moved(u64::MAX, 1 << 63).left(u64::MAX));
        books.write();
        assert_eq!((books.user(ALICE), books.sum(ALICE)), ((most, most), (most, most)));
        // Whatever is added now: the total stays what it is, and nothing fails.
        books.announce(ALICE, client(1).regular().moved(0, 0));
        books.announce(ALICE, client(1).completed().moved(u64::MAX, u64::MAX));
        books.write();
        books.announce(ALICE, client(1).stopped().moved(u64::MAX, u64::MAX));
        books.wait(1000);
        books.announce(ALICE, client(1).moved(3, u64::MAX));
        books.write();
        assert_eq!((books.user(ALICE), books.sum(ALICE)), ((most, most), (most, most)));
        // Two clients that hold so much are still one user who does.
        books.announce(ALICE, client(2).moved(u64::MAX, u64::MAX));
        books.write();
        assert_eq!(books.user(ALICE), (most, most));
        // Nobody else is affected.
        books.announce(BOB, client(4).moved(70, 7));
        assert_eq!(books.credited(BOB), (70, 7));
    }

    pub fn factors_are_rounded_down_for_each_settling_and_raw_bytes_are_kept_beside(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1).moved(0, 0));
        db.sql("UPDATE files SET upload_percent = 150, download_percent = 50 WHERE id = 1");
        books.follow();
        // Counters, and what of them is credited in all.
        let says = [((1, 1), (1, 0)), ((2, 2), (2, 0)), ((5, 5), (6, 1)), ((5, 6), (6, 1)), ((105, 8), (156, 2))];
        for ((up, down), credited) in says {
            books.announce(ALICE, client(1).regular().moved(up, down));
            books.write();
            assert_eq!(books.user(ALICE), credited);
            for table in ["peers", "files_users"] {
                let columns = "uploaded, downloaded, credited_uploaded, credited_downloaded";
                let row = format!("{up} {down} {} {}", credited.0, credited.1);
                assert_eq!(books.rows(&format!("SELECT {columns} FROM {table}")), [row]);
            }
        }
        // Freeleech counts from the next announce on.
        db.sql("UPDATE files SET upload_percent = 100, download_percent = 0 WHERE id = 1");
        books.follow();
        books.announce(ALICE, client(1).regular().moved(106, 1000));
        books.write();
        assert_eq!(books.user(ALICE), (157, 2));
    }

    pub fn what_was_announced_while_all_was_free_is_free_whenever_it_is_written(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1).moved(0, 0));
        books.announce(BOB, client(2).moved(0, 0));
        books.write();
        let factors = Factors { upload: 200, download: 0 };
        let end = books.now.get() + 100;
        books.tracker.swarms.set_free(Free { factors, until: end }.pack());
        books.announce(ALICE, client(1).regular().moved(10, 1000));
        books.announce(BOB, client(2).regular().moved(10, 1000));
        // It ends, one of them announces again, and goat is killed before anything is written.
        books.now.set(end);
        books.announce(ALICE, client(1).regular().moved(10, 1000));
        let books = books.kill();
        books.write();
        assert_eq!((books.user(ALICE), books.user(BOB)), ((20, 0), (20, 0)));
        books.announce(ALICE, client(1).regular().moved(15, 1005));
        books.write();
        assert_eq!(books.user(ALICE), (25, 5));
        // A torrent that credits better itself goes on doing so.
        db.sql("UPDATE files SET upload_percent = 300, download_percent = 50 WHERE id = 1");
        books.follow();
        books.tracker.swarms.set_free(Free { factors, until: end + 1 }.pack());
        books.announce(ALICE, client(1).regular().moved(25, 1015));
        books.write();
        assert_eq!(books.user(ALICE), (55, 5));
        books.now.set(end + 1);
        books.announce(ALICE, client(1).regular().moved(35, 1025));
        books.write();
        assert_eq!(books.user(ALICE), (85, 10));
    }

    pub fn what_others_add_to_a_users_total_stays(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1).moved(70, 7));
        books.write();
        db.sql("UPDATE users SET uploaded = uploaded + 1000000, downloaded = 0 WHERE id = 1");
        books.announce(ALICE, client(1).moved(80, 8));
        books.write();
        assert_eq!(books.rows("SELECT uploaded, downloaded FROM users WHERE id = 1"), ["1000080 1"]);
    }

    pub fn the_anonymous_user_is_credited_nothing(db: &Database) {
        let books = Books::with(db, json!({ "Passkey": false }));
        books.announce(0, client(1).moved(70, 7));
        books.announce(0, client(1).completed().moved(90, 9));
        books.write();
        books.announce(0, client(1).stopped().moved(100, 10));
        books.write();
        books.announce(0, client(1).moved(200, 20));
        books.write();
        for table in ["files_users", "users"] {
            assert_eq!(books.rows(&format!("SELECT SUM(uploaded), SUM(downloaded) FROM {table}")), ["0 0"]);
        }
    }

    pub fn anonymous_sessions_of_one_torrent_are_settled_each_by_its_own_row(db: &Database) {
        let books = Books::with(db, json!({ "Passkey": false }));
        // More than are settled together; of every third a life that ends and the next in one batch.
        let count: u16 = 2 * 512 + 8 + 1;
        // Rows, announces, lives, bytes in the current lives, and how many are closed.
        let sums = || {
            books.write();
            let each = |row: &Row| {
                let (announced, life) = (row.announced.into(), row.life.into());
                [1, announced, life, row.current.top.uploaded, u64::from(row.closed > 0)]
            };
            let rows = books.sessions();
            rows.iter().map(each).fold([0; 5], |sums: [u64; 5], row| std::array::from_fn(|n| sums[n] + row[n]))
        };
        let (each, all) = ((0..count).map(u64::from).sum::<u64>(), u64::from(count));
        for n in 0..count {
            books.announce(0, client(n).moved(u64::from(n) + 1, 0));
        }
        assert_eq!(sums(), [all, all, all, each + all, 0]);
        for n in 0..count {
            books.announce(0, client(n).stopped().moved(u64::from(n) + 2, 0));
        }
        books.wait(700);
        let again = (0..count).filter(|n| n % 3 == 0);
        let (began, lost) = again.fold((0, 0), |(began, lost), n| {
            books.announce(0, client(n).moved(1, 0));
            (began + 1, lost + u64::from(n) + 1)
        });
        let top = each + 2 * all - lost;
        let expected = [all, 2 * all + began, all + began, top, all - began];
        assert_eq!(sums(), expected);
    }

    pub fn a_member_on_a_torrent_is_one_row_of_the_last_announce_wherever_it_came_from(db: &Database) {
        let books = Books::open(db);
        let row = || {
            books.write();
            let columns = "ip, announced, `left`, time, active, completed, uploaded, downloaded";
            let mut rows = db.sql(&format!("SELECT {columns} FROM files_users"));
            assert_eq!(rows.len(), 1);
            let ip: std::net::IpAddr = rows[0][0].parse().unwrap();
            rows[0][0] = ip.to_string();
            rows[0].join(" ")
        };
        let start = books.now.get();
        books.announce(ALICE, client(1).left(500).moved(1, 100));
        assert_eq!(row(), format!("10.1.0.1 1 500 {start} 1 0 1 100"));
        books.wait(1000);
        books.announce(ALICE, client(2).left(300).moved(2, 200));
        assert_eq!(row(), format!("10.1.0.2 2 300 {} 1 0 3 300", start + 1000));
        books.wait(1000);
        books.announce(ALICE, client(1).over_v6().regular().left(100).moved(4, 400));
        assert_eq!(row(), format!("2001:db8::1 3 100 {} 1 0 6 600", start + 2000));
        books.wait(1000);
        books.announce(ALICE, client(2).seeding().completed().moved(2, 500));
        assert_eq!(row(), format!("10.1.0.2 4 0 {} 1 1 6 900", start + 3000));
        books.announce(ALICE, client(1).stopped().left(100).moved(4, 400));
        books.wait(1000);
        books.announce(ALICE, client(2).seeding().stopped().moved(2, 500));
        assert_eq!(row(), format!("10.1.0.2 6 0 {} 0 1 6 900", start + 4000));
        // Who is silent is not the last for that.
        books.announce(BOB, client(3).on(2).left(7));
        books.wait(2 * INTERVAL);
        books.announce(BOB, client(4).on(2).left(8));
        let last = books.now.get();
        books.wait(1);
        books.expire();
        books.write();
        let sql = "SELECT `left`, time, active FROM files_users WHERE user_id = 2";
        assert_eq!(books.rows(sql), [format!("8 {last} 1")]);
    }

    pub fn no_table_grows_with_changes_of_address(db: &Database) {
        let books = Books::open(db);
        let sizes = || {
            books.write();
            ["sessions", "totals", "users", "files", "goat", "changes"]
                .map(|table| books.number(&format!("SELECT COUNT(*) FROM {table}")))
        };
        books.announce(ALICE, client(1));
        let before = sizes();
        for n in 1..=100 {
            books.wait(1000);
            let a = client(1).at(client(1000 + n).ip).regular().moved(n.into(), 0);
            books.announce(ALICE, if n % 2 == 0 { a.over_v6() } else { a });
            books.write();
        }
        assert_eq!(sizes(), before);
        // Of the 28 hours that passed there is a row for each that was touched, and of minutes half an hour.
        assert!(books.number("SELECT COUNT(*) FROM hours") <= 29);
        assert!(books.number("SELECT COUNT(*) FROM minutes") <= 3);
        assert_eq!(books.credited(ALICE), (100, 0));
    }

    pub fn who_is_in_the_swarm_is_active_in_the_books(db: &Database) {
        let books = Books::open(db);
        let active = || (books.active(), books.number("SELECT COUNT(*) FROM files_users WHERE active = 1"));
        books.announce(ALICE, client(1));
        books.announce(ALICE, client(1).over_v6());
        books.announce(ALICE, client(2));
        assert_eq!(active(), (2, 1));
        books.announce(ALICE, client(1).stopped());
        assert_eq!(active(), (1, 1), "the second client is still there");
        books.announce(ALICE, client(2).stopped());
        assert_eq!(active(), (0, 0));
        books.announce(ALICE, client(3));
        books.announce(BOB, client(4));
        assert_eq!(active(), (2, 2));
        books.wait(2 * INTERVAL + 1);
        books.expire();
        assert_eq!(active(), (0, 0));
        books.announce(ALICE, client(3));
        books.announce(BOB, client(4));
        books.write();
        books.drop_user(ALICE);
        assert_eq!(active(), (1, 1));
    }

    pub fn an_address_that_a_session_left_or_that_fell_silent_is_not_in_its_row(db: &Database) {
        let books = Books::open(db);
        let row = || {
            books.write();
            let rows = db.sql("SELECT ipv4, port4, ipv6 <> '', port6 FROM peers");
            rows[0].join(" ")
        };
        books.announce(ALICE, client(1));
        assert_eq!(row(), "10.1.0.1 6881 0 0");
        books.wait(1000);
        books.announce(ALICE, client(1).at(client(9).ip).regular());
        books.announce(ALICE, client(1).over_v6().regular());
        assert_eq!(row(), "10.1.0.9 6881 1 6881", "nobody is at 10.1.0.1 any more");
        books.wait(2 * INTERVAL);
        books.announce(ALICE, client(1).over_v6().regular());
        books.wait(1);
        books.expire();
        assert_eq!(row(), " 0 1 6881", "from 10.1.0.9 it was not heard of for two Intervals");
        books.announce(ALICE, client(1).over_v6().stopped());
        books.announce(ALICE, client(1));
        assert_eq!(row(), "10.1.0.1 6881 0 0", "it is where it opened again");
    }

    pub fn old_sessions_that_moved_more_than_a_number_holds_are_folded_as_well(db: &Database) {
        let books = Books::open(db);
        for n in 1..3 {
            books.announce(ALICE, client(n).moved(i64::MAX as u64, 5));
            books.announce(ALICE, client(n).stopped().moved(i64::MAX as u64, 5));
        }
        books.write();
        let mut from = Some(0);
        while let Some(next) = from {
            from = books.tracker.store.sweep(next, books.now.get() + 1).unwrap().0;
        }
        assert_eq!(books.number("SELECT COUNT(*) FROM sessions"), 0);
        let sums = "SELECT uploaded, downloaded FROM totals";
        assert_eq!(books.rows(sums), [format!("{} 10", i64::MAX)]);
    }

    pub fn old_sessions_are_folded_into_the_totals_of_their_members(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1).left(9).moved(70, 7));
        books.wait(1000);
        books.announce(ALICE, client(1).seeding().completed().moved(80, 8));
        books.wait(1000);
        books.announce(ALICE, client(2).seeding().moved(5, 0));
        books.announce(ALICE, client(1).seeding().stopped().moved(90, 8));
        books.announce(BOB, client(3).moved(50, 5));
        books.announce(BOB, client(3).stopped().moved(50, 5));
        books.wait(1);
        books.announce(ALICE, client(2).seeding().stopped().moved(6, 0));
        books.write();
        let all =
            "SELECT file_id, user_id, active, completed, announced, uploaded, downloaded, `left`, time, seed_time,
                   credited_uploaded, credited_downloaded FROM files_users ORDER BY user_id";
        let before = (books.rows(all), books.credited(ALICE), books.credited(BOB));
        let sweep = |before: u32| {
            let mut from = Some(0);
            while let Some(next) = from {
                from = books.tracker.store.sweep(next, before).unwrap().0;
            }
            books.number("SELECT COUNT(*) FROM sessions")
        };
        let last = books.now.get();
        assert_eq!(sweep(last), 1, "what was heard of a second ago stays");
        assert_eq!((books.rows(all), books.credited(ALICE), books.credited(BOB)), before);
        assert_eq!(sweep(last + 1), 0);
        assert_eq!((books.rows(all), books.credited(ALICE), books.credited(BOB)), before);
        // One that comes back is a session as any that is unknown; its member has completed the torrent already.
        books.wait(100_000);
        books.expire();
        books.announce(ALICE, client(1).regular().moved(100, 10));
        books.announce(ALICE, client(1).seeding().completed().moved(110, 10));
        assert_eq!(books.credited(ALICE), (96 + 10, 8));
        assert_eq!(books.snatches(), (1, 1));
    }

    pub fn peers_are_words_and_numbers_that_sql_can_read(db: &Database) {
        let books = Books::open(db);
        let start = books.now.get();
        books.announce(ALICE, client(1).left(9).moved(70, 7).change(|a| a.port = 65535));
        books.wait(10);
        books.announce(ALICE, client(1).over_v6().paused().left(9).moved(80, 8).change(|a| a.port = 258));
        books.write();
        let columns = "file_id, user_id, LOWER(HEX(peer_id)), ipv4, port4, time4, port6, time6, active, paused, completed,
                       uploaded, downloaded, credited_uploaded, credited_downloaded, `left`, announced, seed_time, time";
        let (id, later) = (client(1).peer_id, start + 10);
        let words = format!("1 1 {id:?} 10.1.0.1 65535 {start} 258 {later} 1 1 0 80 8 80 8 9 2 0 {later}");
        assert_eq!(books.rows(&format!("SELECT {columns} FROM peers")), [words]);
        let ip: std::net::IpAddr = db.sql("SELECT ipv6 FROM peers")[0][0].parse().unwrap();
        assert_eq!(ip, client(1).over_v6().ip);
    }

    pub fn announces_that_were_answered_are_counted(db: &Database) {
        let books = Books::open(db);
        for write in [false, true] {
            let n = 1 + u16::from(write);
            let says = [
                client(n).moved(70, 7),
                client(n).moved(70, 7),
                client(n).over_v6().stopped().moved(70, 7),
                client(n).regular().moved(0, 0),
                client(n).stopped().moved(70, 7),
                client(n).regular().moved(0, 0),
                client(n).moved(0, 0),
            ];
            for (count, a) in (1..).zip(says) {
                books.announce(ALICE, a);
                if write {
                    books.write();
                    let sql =
                        format!("SELECT announced FROM peers WHERE peer_id = {}", books.bytes(&client(n).peer_id));
                    assert_eq!(books.number(&sql), count);
                }
            }
        }
        // One of which memory knows nothing any more.
        books.announce(ALICE, client(1).stopped());
        books.wait(100_000);
        books.write();
        books.expire();
        books.announce(ALICE, client(1).regular());
        books.write();
        books.announce(ALICE, client(1).regular());
        books.write();
        assert_eq!(books.number("SELECT SUM(announced) FROM files_users"), 7 + 7 + 3);
    }

    pub fn a_peer_id_may_be_any_bytes(db: &Database) {
        let books = Books::open(db);
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
        let everybody = |books: &Books, bytes| {
            for (port, id) in (6881..).zip(ids) {
                let a = client(1).moved(bytes, bytes);
                books.announce(ALICE, a.change(|a| (a.peer_id, a.port) = (PeerId(id), port)));
            }
        };
        everybody(&books, 10);
        books.write();
        let held: BTreeSet<String> = books.rows("SELECT LOWER(HEX(peer_id)) FROM peers").into_iter().collect();
        assert_eq!(held, ids.iter().map(|id| hex(id)).collect());
        // Each is found again: by the swarm after a restart, and by its row after it left memory.
        let books = books.restart();
        assert_eq!(books.announce(BOB, client(2)).incomplete, 9);
        everybody(&books, 12);
        books.drop_user(ALICE);
        books.write();
        books.wait(100_000);
        books.expire();
        everybody(&books, 15);
        assert_eq!(books.credited(ALICE), (15 * 8, 15 * 8));
        assert_eq!(books.number("SELECT COUNT(*) FROM peers WHERE user_id = 1"), 8);
    }

    pub fn a_row_is_read_as_it_was_written_and_the_view_says_the_same(db: &Database) {
        let books = Books::open(db);
        let mut rng = Rng::new(7);
        // As small and as large as the database holds them.
        let mut number = |most: u64| match rng.bits() % 4 {
            0 => 0,
            1 => most,
            2 => rng.bits() % most.min(1_000),
            _ => rng.bits() % most,
        };
        let mut row = |n: u16| {
            let mut small = || number(u32::MAX.into()) as u32;
            let [life, announced, closed, v4, v6, flags] = std::array::from_fn(|_| small());
            let [began, doubt, seeded_until, seen4, seen6, seed_time] = std::array::from_fn(|_| small());
            let mut moved = || Moved { uploaded: number(i64::MAX as u64), downloaded: number(i64::MAX as u64) };
            let mut life_row = || LifeRow { began, doubt, top: moved(), done: moved() };
            let (current, former) = (life_row(), life_row());
            let counters = moved();
            let row = Row {
                life: life.max(1),
                current,
                former,
                closed,
                paths: (flags >> 8) as u8,
                paused: flags & 1 != 0,
                complete: flags & 2 != 0,
                snatched: flags & 4 != 0,
                moved: counters,
                credited: if n.is_multiple_of(3) { counters } else { moved() },
                left: number(i64::MAX as u64),
                announced,
                seed_time: seed_time.into(),
                seeded_until,
                seen: [seen4, seen6],
                at: Addresses {
                    v4: [v4.to_be_bytes().as_slice(), &[1, 2]].concat().try_into().unwrap(),
                    v6: if v6 == 0 { [0; 18] } else { [v6 as u8; 18] },
                },
            };
            ((n.into(), ALICE, client(n).peer_id), row)
        };
        let rows: Vec<(Key, Row)> = (1..=700).map(&mut row).collect();
        let put = |rows: &[(Key, Row)], _: &[(Key, Row)]| {
            let mut changes = Changes::default();
            rows.iter().for_each(|(key, row)| changes.put(*key, *row, true));
            (changes, Vec::<()>::new())
        };
        books.second.settle(&rows, |(key, _)| *key, put).unwrap();
        let mut found = Vec::new();
        let sink = |key, row| found.push((key, row));
        books.second.sessions(0, 0, sink).unwrap();
        found.sort_by_key(|(key, _)| *key);
        for (written, read) in rows.iter().zip(&found) {
            assert_eq!(read, written);
        }
        assert_eq!(found.len(), rows.len());
        let said = rows.iter().map(|(_, row)| {
            let Row { moved, credited, .. } = row;
            let port6 = u16::from_be_bytes([row.at.v6[16], row.at.v6[17]]);
            format!(
                "{} {} {} {} {} {} {} 258 {port6}",
                moved.uploaded,
                moved.downloaded,
                credited.uploaded,
                credited.downloaded,
                row.announced,
                u8::from(row.paused),
                u8::from(row.snatched),
            )
        });
        let sql = "SELECT uploaded, downloaded, credited_uploaded, credited_downloaded, announced, paused, completed,
                   port4, port6 FROM peers ORDER BY file_id";
        assert_eq!(books.rows(sql), said.collect::<Vec<_>>());
    }

    pub fn addresses_are_kept_whole(db: &Database) {
        let books = Books::open(db);
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
        let held =
            books.rows("SELECT CASE WHEN port4 = 65535 THEN ipv4 ELSE ipv6 END FROM peers WHERE port4 + port6 = 65535");
        let held = held.iter().map(|ip| ip.parse().unwrap()).collect();
        assert_eq!(addresses.into_iter().collect::<BTreeSet<std::net::IpAddr>>(), held);
        let books = books.restart();
        let peers = books.peers(BOB, client(99));
        assert_eq!(peers, sorted(addresses.map(|ip| (ip, 65535).into())));
    }

    pub fn a_snatch_is_a_leecher_that_first_wants_nothing_more_whatever_it_says(db: &Database) {
        let books = Books::open(db);
        let events = [Event::None, Event::Completed, Event::Stopped, Event::Paused, Event::Started];
        for (n, event) in (1..).zip(events) {
            // Known to memory, known to the row alone.
            for forgotten in [false, true] {
                let (user, a) = (if forgotten { BOB } else { ALICE }, client(n).on(n.into()));
                books.announce(user, a.clone());
                if forgotten {
                    books.announce(user, a.clone().stopped());
                    books.write();
                    books.wait(100_000);
                    books.expire();
                }
                books.write();
                let count = |books: &Books| {
                    let totals = format!("SELECT SUM(completed) FROM files_users WHERE file_id = {n}");
                    (books.number(&format!("SELECT completed FROM files WHERE id = {n}")), books.number(&totals))
                };
                let before = if forgotten { 1 } else { 0 };
                assert_eq!(count(&books), (before, before));
                books.announce(user, a.seeding().says(event));
                books.write();
                assert_eq!(count(&books), (before + 1, before + 1), "{event:?}, forgotten: {forgotten}");
            }
        }
        // Whoever asks is told, too.
        books.follow();
        assert_eq!(books.announce(BOB, client(99)).downloaded, 2);
    }

    pub fn a_snatch_is_counted_once_for_a_member_and_a_torrent(db: &Database) {
        let mut books = Books::open(db);
        let done = || client(1).seeding().completed().moved(0, 9);
        books.announce(ALICE, client(1));
        books.announce(ALICE, client(1).over_v6());
        let again = [
            done(),
            done(),
            done().over_v6(),
            done().stopped(),
            done(),
            // Its files are gone, and it downloads them once more; so does another client.
            client(1).regular().moved(0, 9),
            client(1).seeding().completed().moved(0, 18),
            client(7).moved(0, 0),
            client(7).seeding().completed().moved(0, 9),
        ];
        for (n, a) in (0..).zip(again) {
            books.announce(ALICE, a);
            books.write();
            assert_eq!(books.snatches(), (1, 1));
            if n % 3 == 0 {
                books = books.restart();
            }
        }
    }

    pub fn each_member_who_completes_is_a_snatch(db: &Database) {
        let books = Books::open(db);
        for user in [ALICE, BOB] {
            books.announce(user, client(1).seeding().completed().moved(0, 9));
            books.announce(user, client(1).on(2).seeding().completed().moved(0, 9));
        }
        books.write();
        assert_eq!(books.rows("SELECT completed FROM files WHERE id <= 3 ORDER BY id"), ["2", "2", "0"]);
        assert_eq!(books.number("SELECT SUM(completed) FROM files_users"), 4);
    }

    pub fn completed_of_an_unknown_session_is_a_snatch_if_it_downloaded(db: &Database) {
        let books = Books::open(db);
        let cases = [
            (client(1).seeding().completed().moved(9, 0), 0),
            (client(2).completed().moved(0, 9), 0),
            (client(3).seeding().regular().moved(0, 9), 0),
            (client(4).seeding().moved(0, 9), 0),
            (client(5).seeding().stopped().moved(0, 9), 0),
            (client(6).seeding().completed().moved(0, 9), 1),
        ];
        for (a, snatches) in cases {
            books.announce(ALICE, a.clone());
            books.write();
            assert_eq!(books.snatches(), (snatches, snatches), "{a:?}");
        }
    }

    pub fn a_seeder_is_credited_the_time_between_its_announces(db: &Database) {
        let books = Books::open(db);
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

    pub fn between_two_announces_at_most_two_intervals_are_seeded(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1).seeding());
        books.wait(2 * INTERVAL);
        books.announce(ALICE, client(1).seeding().regular());
        assert_eq!(books.seed_time(), i64::from(2 * INTERVAL));
        // So long that it would have left, had anybody looked.
        books.wait(10 * INTERVAL);
        books.announce(ALICE, client(1).seeding().regular());
        assert!(books.seed_time() <= i64::from(4 * INTERVAL));
    }

    pub fn who_leaves_and_comes_back_has_not_seeded_meanwhile(db: &Database) {
        let books = Books::open(db);
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

    pub fn two_clients_of_a_member_seed_the_time_in_which_any_of_them_did(db: &Database) {
        let books = Books::open(db);
        // Who announces after so many seconds; and the time in which any of them seeded.
        type Says = &'static [(u32, u16, Event)];
        const START: Event = Event::Started;
        const GO: Event = Event::None;
        const STOP: Event = Event::Stopped;
        let cases: &[(&str, Says, i64)] = &[
            ("at once", &[(0, 1, START), (0, 2, START), (900, 1, GO), (0, 2, GO), (900, 2, STOP), (0, 1, STOP)], 1800),
            (
                "by turns",
                &[(0, 1, START), (500, 2, START), (500, 1, GO), (500, 2, GO), (500, 1, STOP), (500, 2, STOP)],
                2500,
            ),
            ("one after the other", &[(0, 1, START), (700, 1, STOP), (100, 2, START), (700, 2, STOP)], 1400),
            ("one short within", &[(0, 1, START), (0, 2, START), (100, 2, STOP), (900, 1, STOP)], 1000),
            ("one alone that pauses", &[(0, 1, START), (700, 1, STOP), (0, 1, START), (300, 1, STOP)], 1000),
        ];
        for (write, family) in [(true, false), (false, false), (true, true), (false, true)] {
            for (m, (name, says, seconds)) in (0..).zip(cases) {
                let before = books.seed_time();
                for (wait, n, event) in *says {
                    books.wait(*wait);
                    let a = client(10 * m + n + if write { 100 } else { 0 } + if family { 200 } else { 0 });
                    books.announce(ALICE, a.clone().seeding().says(*event));
                    if family {
                        books.announce(ALICE, a.over_v6().seeding().says(*event));
                    }
                    if write {
                        books.write();
                    }
                }
                assert_eq!(books.seed_time() - before, *seconds, "{name}, written each time: {write}");
                books.wait(1);
            }
        }
    }

    pub fn a_session_that_changes_again_before_it_is_written_is_one_state(db: &Database) {
        let books = Books::open(db);
        let waiting = || Writer::waiting(&books.tracker);
        for n in 0..1000 {
            books.announce(ALICE, client(1).moved(n, n));
        }
        assert_eq!(waiting(), 1);
        books.write();
        assert_eq!(
            (waiting(), books.rows("SELECT announced, uploaded FROM files_users")),
            (0, vec!["1000 999".into()])
        );
        // And one that came and went is not forgotten.
        for _ in 0..1000 {
            books.announce(ALICE, client(2).moved(5, 5));
            books.announce(ALICE, client(2).moved(5, 5).stopped());
        }
        assert_eq!(waiting(), 1);
        assert_eq!(books.credited(ALICE), (1004, 1004));
    }

    pub fn a_batch_that_is_written_again_changes_nothing(db: &Database) {
        let books = Books::open(db);
        let mut past: Vec<Vec<Waiting>> = Vec::new();
        let says = [
            (0, client(1).moved(0, 0)),
            (10, client(1).over_v6().moved(0, 0)),
            (1000, client(1).regular().moved(70, 7)),
            (0, client(2).moved(5, 0)),
            (10, client(1).seeding().completed().moved(80, 8)),
            (1000, client(1).seeding().stopped().moved(90, 8)),
            // A life in doubt, and one that is none.
            (5, client(1).seeding().moved(0, 0)),
            (1000, client(1).seeding().regular().moved(30, 0)),
            (0, client(1).seeding().stopped().moved(40, 0)),
            (700, client(1).seeding().moved(0, 0)),
            (700, client(1).seeding().regular().moved(1, 0)),
        ];
        for (seconds, a) in says {
            books.wait(seconds);
            books.announce(ALICE, a);
            past.push(books.batch());
            books.write();
            let before = books.dump();
            // Also by another goat, and those of long ago.
            for (n, batch) in past.iter().enumerate().rev() {
                let store = if n % 2 == 0 { &books.second } else { &books.tracker.store };
                settle(store, batch, 2 * INTERVAL).unwrap();
            }
            assert_eq!(books.dump(), before);
        }
        assert_eq!(books.credited(ALICE), (90 + 40 + 1 + 5, 8));
        assert_eq!((books.snatches(), books.seed_time()), ((1, 1), 1000 + 1000 + 700));
    }

    pub fn a_batch_that_fails_anywhere_leaves_nothing_behind_and_is_settled_when_it_can_be(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1).moved(10, 1));
        books.write();
        let before = books.dump();
        let places = [
            ("INSERT", "sessions"),
            ("INSERT", "totals"),
            ("UPDATE", "totals"),
            ("UPDATE", "users"),
            ("UPDATE", "files"),
            ("UPDATE", "goat"),
        ];
        books.announce(ALICE, client(1).seeding().completed().moved(70, 7));
        books.announce(BOB, client(2).moved(50, 5));
        for (bytes, (what, table)) in (51..).zip(places) {
            books.break_table(what, table);
            assert!(books.try_write().is_err(), "{what} {table}");
            // What is announced meanwhile is of the same session.
            books.announce(BOB, client(2).regular().moved(bytes, 5));
            assert!(books.try_write().is_err(), "{what} {table}");
            books.mend_table();
            assert_eq!(books.dump(), before, "{what} {table}");
        }
        assert_eq!(Writer::waiting(&books.tracker), 2);
        books.write();
        assert_eq!((books.credited(ALICE), books.credited(BOB)), ((70, 7), (56, 5)));
        assert_eq!(books.snatches(), (1, 1));
    }

    pub fn a_batch_of_any_size_is_written(db: &Database) {
        let books = Books::open(db);
        // More than two statements of the largest size and one of each other.
        let count = 2 * 512 + 64 + 8 + 1;
        let come = |uploaded: u64| {
            for n in 0..count {
                let user = User::new(1000 + n, "", 0, false);
                let a = client(n as u16).moved(uploaded + u64::from(n), uploaded);
                books.announce_as(user, a);
            }
            books.write();
        };
        let sums = || books.rows("SELECT COUNT(*), SUM(uploaded), SUM(downloaded) FROM files_users");
        let (all, each) = (i64::from(count), (0..count).map(i64::from).sum::<i64>());
        come(5);
        assert_eq!(sums(), [format!("{all} {} {}", 5 * all + each, 5 * all)]);
        // All of them come back unknown to memory.
        (0..count).for_each(|n| books.drop_user(1000 + n));
        books.write();
        books.wait(100_000);
        books.expire();
        come(9);
        assert_eq!(sums(), [format!("{all} {} {}", 9 * all + each, 9 * all)]);
        assert_eq!(books.active(), all);
    }

    pub fn users_and_torrents_that_are_gone_do_not_break_the_books(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1).moved(70, 7));
        books.announce(ALICE, client(1).seeding().completed().moved(80, 8));
        books.announce(BOB, client(2).moved(50, 5));
        books.announce(BOB, client(2).on(2).moved(10, 1));
        books.announce(BOB, client(2).on(2).seeding().completed().moved(20, 2));
        db.sql("DELETE FROM users WHERE id = 1; DELETE FROM files WHERE id = 2");
        books.write();
        assert_eq!(books.user(BOB), (70, 7));
        let books = books.restart();
        assert!(books.tracker.access.by_id(ALICE).is_none());
        assert_eq!(books.announce(BOB, client(9)).incomplete, 2, "those of a user who is gone left");
    }

    pub fn two_writers_settle_the_same_sessions_in_either_order(db: &Database) {
        let books = Books::open(db);
        let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        for (n, order) in (1..).zip(orders) {
            let before = books.user(ALICE);
            books.announce(ALICE, client(n).moved(0, 0));
            books.announce(ALICE, client(n).regular().moved(70, 7));
            let mut batches = vec![books.batch()];
            books.announce(ALICE, client(n).stopped().moved(100, 10));
            batches.push(books.batch());
            books.wait(601);
            books.announce(ALICE, client(n).moved(0, 0));
            books.announce(ALICE, client(n).regular().moved(20, 2));
            batches.push(books.batch());
            for (i, store) in order.into_iter().zip([&books.second, &books.tracker.store, &books.second]) {
                settle(store, &batches[i], 2 * INTERVAL).unwrap();
            }
            assert_eq!(books.user(ALICE), (before.0 + 120, before.1 + 12), "{order:?}");
            assert_eq!(books.credited(ALICE), (before.0 + 120, before.1 + 12), "{order:?}");
            books.announce(ALICE, client(n).stopped().moved(20, 2));
            books.write();
            assert_eq!(books.active(), 0);
        }
    }

    pub fn two_writers_at_once_credit_nothing_twice(db: &Database) {
        let books = Books::open(db);
        let everybody = |bytes: u64| {
            for n in 0..300 {
                let user = if n % 2 == 0 { ALICE } else { BOB };
                books.announce(user, client(n).on(1 + u32::from(n) % 3).moved(bytes, 1));
            }
            books.batch()
        };
        // Rows that both are to make, and rows that are there.
        for round in 1..=4 {
            let batches = [everybody(10 * round), everybody(10 * round + 5)];
            let barrier = Barrier::new(2);
            thread::scope(|scope| {
                for (store, first) in [(&books.second, 0), (&books.tracker.store, 1)] {
                    let (batches, barrier) = (&batches, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        for batch in [&batches[first], &batches[1 - first]] {
                            settle(store, batch, 2 * INTERVAL).unwrap();
                        }
                    });
                }
            });
            let all = 150 * (10 * round as i64 + 5);
            assert_eq!((books.user(ALICE), books.user(BOB)), ((all, 150), (all, 150)));
            assert_eq!((books.credited(ALICE), books.credited(BOB)), ((all, 150), (all, 150)));
        }
        assert_eq!(books.number("SELECT COUNT(*) FROM sessions"), 300);
    }

    /// They share nothing but the database: what only one of them has heard may be missing, but nothing is credited
    /// twice. On SQLite a second goat waits for the first to end.
    pub fn two_trackers_that_hear_the_same_session_credit_nothing_twice(db: &Database) {
        if matches!(db, Database::Sqlite(_)) {
            return;
        }
        let books = Books::open(db);
        for (n, first) in [(1, 0), (2, 1)] {
            let other = books.beside();
            let before = books.credited(ALICE).0;
            let both = [&books, &other];
            for (i, bytes) in (0..10).zip([0, 10, 20, 30, 40, 50, 60, 70, 80, 100]) {
                let event = if i < 2 { Event::Started } else { Event::None };
                both[i % 2].announce(ALICE, client(n).says(event).moved(bytes, 0));
                if i % 3 == 2 {
                    both[first].write();
                    both[1 - first].write();
                }
            }
            both.iter().for_each(|tracker| tracker.write());
            let credited = books.user(ALICE).0 - before;
            assert!((80..=100).contains(&credited), "{credited} of 100");
            // Each hears of it once more, and says what the other said.
            for tracker in both {
                tracker.announce(ALICE, client(n).regular().moved(100, 0));
                tracker.write();
            }
            assert_eq!(books.user(ALICE).0 - before, 100);
        }
    }

    pub fn after_a_restart_counters_go_on(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1).seeding().moved(70, 7));
        books.announce(BOB, client(2).moved(50, 5));
        books.announce(BOB, client(2).stopped().moved(50, 5));
        books.wait(1000);
        let books = books.restart();
        books.announce(ALICE, client(1).seeding().regular().moved(100, 10));
        books.announce(BOB, client(2).moved(60, 6));
        assert_eq!((books.credited(ALICE), books.credited(BOB)), ((100, 10), (60, 6)));
        assert_eq!(books.seed_time(), 1000);
        // What is closed is known, too: for a while what is heard of it may be late.
        books.announce(ALICE, client(1).seeding().stopped().moved(100, 10));
        let books = books.restart();
        books.announce(ALICE, client(1).regular().moved(90, 9));
        assert_eq!((books.credited(ALICE), books.active()), ((100, 10), 1));
    }

    pub fn after_a_kill_nothing_is_missing(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1).moved(10, 1));
        books.write();
        // Known and unknown sessions, one that stops, one that begins anew, a snatch, a life in doubt.
        books.announce(ALICE, client(1).moved(70, 7));
        books.announce(ALICE, client(2).moved(100, 10));
        books.announce(ALICE, client(2).seeding().completed().moved(200, 20));
        books.announce(BOB, client(3).over_v6().moved(50, 5));
        books.announce(BOB, client(3).stopped().over_v6().moved(60, 6));
        books.announce(BOB, client(3).over_v6().moved(0, 0));
        let books = books.kill();
        assert_eq!((books.user(ALICE), books.user(BOB)), ((270, 27), (60, 6)));
        assert_eq!(books.snatches(), (1, 1));
        let announced = "SELECT SUM(announced) FROM files_users";
        assert_eq!(books.number(announced), 7);
        assert_eq!(books.announce(BOB, client(9)).incomplete, 3, "and it is known who was there");
        // And once: also where the next start is killed before anything is announced.
        let books = books.kill().kill().restart();
        assert_eq!(books.credited(ALICE), (270, 27));
        assert_eq!(books.number(announced), 8);
        books.wait(1000);
        books.announce(BOB, client(3).over_v6().regular().moved(5, 0));
        assert_eq!(books.credited(BOB), (65, 6));
    }

    pub fn a_journal_that_is_settled_twice_or_a_day_later_changes_nothing(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1).moved(0, 0));
        books.announce(ALICE, client(2).moved(0, 0));
        books.write();
        books.wait(1000);
        books.announce(ALICE, client(1).regular().moved(70, 7));
        books.announce(ALICE, client(2).seeding().completed().moved(30, 3));
        books.announce(BOB, client(3).regular().moved(50, 5));
        books.announce(BOB, client(3).stopped().moved(60, 6));
        let (journal, run) = (books.journal(), books.run());
        let mut books = books.kill();
        let expected = ((100, 10), (10, 1));
        for day in 0..3 {
            assert_eq!((books.user(ALICE), books.user(BOB)), expected, "day {day}");
            assert_eq!(books.snatches(), (1, 1));
            let dump = books.dump();
            // As where the start before was killed before it could clear what it had settled.
            books = books.killed_with(&journal, &run);
            assert_eq!(books.dump(), dump, "day {day}");
            books.wait(86_400);
            books.announce(ALICE, client(9).moved(0, 0));
            books.announce(ALICE, client(9).stopped().moved(0, 0));
            books.write();
        }
        // Lives later, too.
        books.announce(ALICE, client(1).moved(1, 1));
        books.announce(ALICE, client(1).stopped().moved(2, 2));
        books.wait(700);
        books.announce(ALICE, client(1).moved(0, 0));
        books.write();
        let before = books.credited(ALICE);
        books = books.killed_with(&journal, &run);
        assert_eq!(books.credited(ALICE), before);
    }

    pub fn a_journal_of_another_database_is_discarded(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1).moved(70, 7));
        db.sql("UPDATE goat SET value = value - 1 WHERE name = 'identity'");
        let books = books.kill();
        assert_eq!((books.user(ALICE), books.number("SELECT COUNT(*) FROM sessions")), ((0, 0), 0));
        // It is gone for good.
        db.sql("UPDATE goat SET value = value + 1 WHERE name = 'identity'");
        assert_eq!(books.kill().user(ALICE), (0, 0));
    }

    pub fn a_journal_of_a_time_that_the_database_does_not_know_is_discarded(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1).moved(70, 7));
        books.write();
        books.announce(ALICE, client(1).moved(100, 10));
        // As a backup has it that was made before this goat began.
        db.sql("DELETE FROM goat WHERE name LIKE 'run %'; DELETE FROM sessions; DELETE FROM totals");
        db.sql("UPDATE users SET uploaded = 0, downloaded = 0");
        let books = books.kill();
        assert_eq!((books.user(ALICE), books.number("SELECT COUNT(*) FROM sessions")), ((0, 0), 0));
    }

    pub fn a_lost_journal_costs_what_was_not_written(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1));
        books.write();
        books.wait(1000);
        books.announce(ALICE, client(1).regular().moved(70, 7));
        books.announce(ALICE, client(2).moved(30, 3));
        books.segments().iter().for_each(|file| fs::remove_file(file).unwrap());
        let books = books.kill();
        assert_eq!(books.credited(ALICE), (0, 0));
        // The next announce of a session that the database knows brings it back; of another, from there on.
        books.announce(ALICE, client(1).regular().moved(100, 10));
        books.announce(ALICE, client(2).regular().moved(40, 4));
        assert_eq!(books.credited(ALICE), (100, 10));
        books.announce(ALICE, client(2).regular().moved(45, 4));
        assert_eq!(books.credited(ALICE), (105, 10));
    }

    pub fn what_cannot_be_written_at_the_end_is_settled_by_the_next_start(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1).moved(10, 1));
        books.write();
        books.announce(ALICE, client(1).seeding().completed().moved(70, 7));
        books.announce(BOB, client(2).moved(50, 5));
        books.break_table("UPDATE", "users");
        Writer::new(books.now.get()).finish(&books.tracker, false).unwrap();
        for (_, bytes) in books.journal() {
            let secret = passkey(ALICE);
            assert!(!bytes.windows(40).any(|part| part == secret.as_bytes()), "no secret is in it");
        }
        assert_eq!((books.credited(ALICE), books.user(BOB)), ((10, 1), (0, 0)));

        // A start that cannot write it either leaves it where it is.
        let before = books.journal();
        let (books, error) = books.fails();
        assert!(error.contains("cannot write the accounts"), "{error}");
        assert_eq!(Books::journal_in(&books), before);
        db.sql("DROP TRIGGER broken");
        let books = Books::start(books);
        assert_eq!((books.credited(ALICE), books.credited(BOB)), ((70, 7), (50, 5)));
        assert_eq!(books.snatches(), (1, 1));
        assert_eq!(books.announce(BOB, client(3)).complete, 1, "and it is known who was there");
    }

    pub fn a_damaged_journal_is_left_alone_and_named(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1).moved(10, 1));
        books.announce(ALICE, client(2).moved(20, 2));
        books.announce(ALICE, client(3).moved(40, 4));
        let file = books.segments().pop().unwrap();
        let whole = fs::read(&file).unwrap();
        let mut down = books.stop();
        // In the head, in the first record, in the second.
        for byte in [4, 100, 300] {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1;
            fs::write(&file, &damaged).unwrap();
            let error;
            (down, error) = *Books::try_start(down).err().expect("an error");
            assert!(error.contains(file.to_str().unwrap()), "{error}");
            assert_eq!(fs::read(&file).unwrap(), damaged);
        }
        // What a crash cut off is no damage: the end of it was never answered.
        fs::write(&file, &whole[..whole.len() - 50]).unwrap();
        assert_eq!(Books::start(down).user(ALICE), (30, 3));
    }

    pub fn sessions_that_fell_silent_while_no_tracker_ran_are_over_at_its_start(db: &Database) {
        let books = Books::open(db);
        let present = books.now.get();
        books.now.set(present - 2 * INTERVAL - 100);
        books.announce(ALICE, client(1).moved(70, 7));
        books.now.set(present - 2 * INTERVAL + 100);
        books.announce(ALICE, client(2));
        books.write();
        let books = books.restart();
        books.now.set(present);
        assert_eq!(books.rows("SELECT active, ipv4 FROM peers ORDER BY ipv4"), ["0 10.1.0.1", "1 10.1.0.2"]);
        let closed = books.number("SELECT MAX(closed) FROM sessions");
        assert_eq!(closed, i64::from(present - 100), "two Intervals after it was heard of last");
        assert_eq!(books.announce(BOB, client(3)).incomplete, 2);
        // Its counters are still known.
        books.announce(ALICE, client(1).moved(100, 10));
        assert_eq!(books.credited(ALICE), (100, 10));
    }

    pub fn a_restart_finds_the_users_that_are_active(db: &Database) {
        let books = Books::open(db);
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
    pub fn a_shell_on_the_database_while_goat_runs_disturbs_nothing(db: &Database) {
        let books = Books::open(db);
        books.announce(ALICE, client(1).moved(70, 7));
        books.write();
        // A second connection is opened while the first is busy, as when a passkey is looked up while a
        // batch is written.
        let store = &books.tracker.store;
        store.load(|_| assert!(store.user_by_passkey("nobody").unwrap().is_none()), |_| ()).unwrap();
        assert_eq!(books.user(ALICE), (70, 7), "what the shell sees");
        for bytes in [80, 90] {
            books.announce(ALICE, client(1).moved(bytes, bytes / 10));
            books.write();
            let bytes = bytes as i64;
            assert_eq!(books.user(ALICE), (bytes, bytes / 10), "what the shell sees");
        }
        assert_eq!(books.kill().user(ALICE), (90, 9), "what is there after a restart");
    }

    pub fn suggestions_are_recorded_unapproved_with_who_made_them_and_only_so_many(db: &Database) {
        let books = Books::open(db);
        let store = &books.tracker.store;
        type Numbers = std::ops::Range<u32>;
        let clients =
            |range: Numbers| range.map(|n| Suggestion::Client(format!("Client/{n} µ'\\"))).collect::<Vec<_>>();
        let torrents = |range: Numbers| range.map(|n| Suggestion::Torrent(hash(n))).collect::<Vec<_>>();
        let suggest = |what: &[Suggestion], by: u32| {
            let what: Vec<_> = what.iter().map(|what| (what.clone(), by)).collect();
            store.suggest(&what, 1).unwrap()
        };
        let pending = || {
            let clients = books.number("SELECT COUNT(*) FROM whitelist WHERE approved = 0");
            (clients, books.number("SELECT COUNT(*) FROM files WHERE verified = 0"))
        };
        assert_eq!(suggest(&clients(0..3), ALICE), clients(0..3));
        assert_eq!(suggest(&clients(0..4), ALICE), clients(3..4), "each is news once");
        assert_eq!(suggest(&torrents(100..102), BOB), torrents(100..102));
        assert_eq!(pending(), (4, 2));
        assert_eq!(books.rows("SELECT DISTINCT suggested_by FROM whitelist WHERE approved = 0"), ["1"]);
        assert_eq!(books.rows("SELECT DISTINCT suggested_by FROM files WHERE verified = 0"), ["2"]);
        // What is known already stays as it is.
        assert_eq!(suggest(&torrents(1..2), ALICE), []);
        assert_eq!(suggest(&[Suggestion::Client("qBittorrent/".into())], ALICE), []);
        // Of one member 20 wait at most, of each kind, ...
        assert_eq!(suggest(&clients(0..100), ALICE), clients(4..20));
        assert_eq!(suggest(&torrents(100..200), BOB), torrents(102..120));
        assert_eq!(pending(), (20, 20));
        // ... and of all 1,000.
        for member in 10..100 {
            suggest(&clients(1000 * member..1000 * member + 30), member);
            suggest(&torrents(1000 * member..1000 * member + 30), member);
        }
        assert_eq!(pending(), (1000, 1000));
        // Where the operator has made room, there is room.
        store.approve_pending().unwrap();
        db.sql("UPDATE whitelist SET approved = 1 WHERE approved = 0");
        assert_eq!(suggest(&torrents(500_000..500_001), ALICE).len(), 1);
        assert_eq!(suggest(&clients(500_000..500_001), ALICE).len(), 1);
    }

    pub fn what_is_changed_by_hand_is_noticed(db: &Database) {
        let books = Books::open(db);
        let store = &books.tracker.store;
        let changes = |sql: &str| {
            if !sql.is_empty() {
                db.sql(sql);
            }
            let changes = store.changes().unwrap();
            store.forget_changes(changes.batch).unwrap();
            let users = changes.users.into_iter().map(|change| match change {
                Found::There(u) => format!("user {} {} {} {}", u.id, u.passkey, u.torrent_limit, u.banned),
                Found::Gone(id) => format!("no user {id}"),
            });
            let files = changes.files.into_iter().map(|change| match change {
                Found::There(f) => format!("file {} {} {}", f.id, f.info_hash, f.verified),
                Found::Gone(hash) => format!("no file {hash}"),
            });
            let clients = changes.clients.into_iter().map(|prefixes| format!("{} clients", prefixes.len()));
            users.chain(files).chain(clients).collect::<Vec<_>>()
        };
        books.follow();
        let key = "k".repeat(40);
        let sql = format!("INSERT INTO users (id, username, passkey) VALUES (7, 'x', '{key}')");
        assert_eq!(changes(&sql), [format!("user 7 {key} 0 false")]);
        let sql = "UPDATE users SET banned = 1, torrent_limit = 5 WHERE id = 7";
        assert_eq!(changes(sql), [format!("user 7 {key} 5 true")]);
        assert_eq!(changes("DELETE FROM users WHERE id = 7"), ["no user 7"]);
        let new = hash(50);
        let upper = new.to_string().to_uppercase();
        let sql = format!("INSERT INTO files (id, info_hash) VALUES (50, '{upper}')");
        assert_eq!(changes(&sql), [format!("file 50 {new} false")]);
        let sql = "UPDATE files SET verified = 1 WHERE id = 50";
        assert_eq!(changes(sql), [format!("file 50 {new} true")]);
        assert_eq!(changes("DELETE FROM files WHERE id = 50"), [format!("no file {new}")]);
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

    pub fn a_ban_comes_before_all_else_that_changed(db: &Database) {
        let books = Books::open(db);
        books.follow();
        for from in (100..6_100).step_by(1_000) {
            let rows: Vec<String> = (from..from + 1_000).map(|n| format!("({n}, '{}')", hash(n))).collect();
            db.sql(&format!("INSERT INTO files (id, info_hash) VALUES {}", rows.join(", ")));
        }
        db.sql("UPDATE whitelist SET approved = 0; UPDATE users SET banned = 1 WHERE id = 1");
        let store = &books.tracker.store;
        let first = store.changes().unwrap();
        assert_eq!(
            (first.users.len(), first.files.len(), first.clients.is_some()),
            (1, 4_998, false) // a change of a member is two rows
        );
        assert!(matches!(&first.users[0], Found::There(user) if user.id == ALICE && user.banned));
        store.forget_changes(first.batch).unwrap();
        let then = store.changes().unwrap();
        assert_eq!((then.users.len(), then.files.len(), then.clients.is_some()), (0, 1_002, true));
    }

    pub fn each_of_two_goats_follows_each_change_once_whenever_it_was_committed(db: &Database) {
        let books = Books::open(db);
        books.follow();
        db.sql("INSERT INTO goat (name, value) VALUES ('run other', 0)");
        let (one, two) = (&books.tracker.store, &books.second);
        two.skip_changes().unwrap();
        let follow = |store: &Store| {
            let mut found = Vec::new();
            loop {
                let changes = store.changes().unwrap();
                let none = changes.batch.is_empty();
                found.extend(changes.users.iter().map(|change| match change {
                    Found::There(user) => user.id,
                    Found::Gone(id) => *id,
                }));
                store.forget_changes(changes.batch).unwrap();
                if none {
                    found.sort_unstable();
                    return found;
                }
            }
        };
        let change = |id: u32, user: u32| {
            let row = format!("({id}, 'user', '{user}')");
            db.sql(&format!("INSERT INTO changes (id, what, which) VALUES {row}"));
        };
        change(1_000_002, 11);
        change(1_000_004, 12);
        assert_eq!(follow(one), [11, 12]);
        // Of a transaction that began before, and of one that began between them.
        change(1_000_001, 13);
        assert_eq!(follow(two), [11, 12, 13]);
        assert_eq!(follow(one), [13]);
        change(1_000_003, 11);
        assert_eq!(follow(two), [11]);
        assert_eq!(follow(one), [11]);
        assert_eq!((follow(one), follow(two)), (vec![], vec![]));
        let there = || books.number("SELECT COUNT(*) FROM changes");
        assert_eq!(there(), 4, "one does not know what the other has followed");
        db.sql("DELETE FROM goat WHERE name = 'run other'");
        assert!(follow(one).is_empty());
        assert_eq!(there(), 0);
    }

    pub fn a_look_up_never_undoes_what_was_learned_meanwhile(db: &Database) {
        let books = Books::open(db);
        let (access, store) = (&books.tracker.access, &books.tracker.store);
        let banned = || access.by_id(ALICE).unwrap().banned();
        // A look-up has its answer, and before it is taken over somebody is banned.
        let (changes, found) = (access.changes(), store.user_by_passkey(&passkey(ALICE)).unwrap().unwrap());
        db.sql("UPDATE users SET banned = 1 WHERE id = 1");
        books.follow();
        assert!(banned());
        assert!(!access.learn_user(found.clone().into(), changes), "the keeper may know better");
        assert!(banned());
        // Nor does one that began later take the place of what is known.
        assert!(access.learn_user(found.into(), access.changes()));
        assert!(banned());
        // And whom memory does not know is learned.
        let key = passkey(7);
        db.sql(&format!("INSERT INTO users (id, username, passkey) VALUES (7, 'new', '{key}')"));
        let found = store.user_by_passkey(&key).unwrap().unwrap();
        assert!(access.learn_user(found.into(), access.changes()));
        assert_eq!(access.user(&key).unwrap().id, 7);
    }

    pub fn what_triggers_do_not_see_is_found_by_comparing(db: &Database) {
        let books = Books::open(db);
        books.follow();
        books.announce(BOB, client(2).moved(50, 5));
        books.announce(BOB, client(2).on(3).moved(50, 5));
        let access = &books.tracker.access;
        let known = |n| books.tracker.swarms.shard(&hash(n)).torrents.contains_key(&hash(n));
        let sql = match db {
            // The row that is in the way goes without a trigger.
            Database::Sqlite(_) => "UPDATE OR REPLACE users SET username = 'bob' WHERE id = 1",
            Database::MariaDb(_) => {
                "CREATE TABLE clans (id INT PRIMARY KEY) ENGINE=InnoDB;
                 INSERT INTO clans VALUES (1);
                 ALTER TABLE users ADD COLUMN clan INT, ADD FOREIGN KEY (clan) REFERENCES clans (id) ON DELETE CASCADE;
                 UPDATE users SET clan = 1 WHERE id = 2;
                 DELETE FROM clans"
            }
        };
        db.sql(sql);
        // As where tables are restored.
        db.sql("DROP TRIGGER files_delete; DROP TRIGGER files_insert; DROP TRIGGER whitelist_delete");
        db.sql("DELETE FROM files WHERE id = 3; DELETE FROM whitelist");
        db.sql(&format!("INSERT INTO files (id, info_hash, verified) VALUES (6, '{}', 1)", hash(6)));
        books.follow();
        assert!(access.by_id(BOB).is_some() && known(3) && !known(6), "triggers have not seen it");
        assert!(access.approves(Some(b"qBittorrent/5"), None));

        compare(&books.tracker).unwrap();
        assert!(access.by_id(BOB).is_none() && !known(3) && known(6));
        assert!(!access.approves(Some(b"qBittorrent/5"), None));
        assert!(access.by_id(ALICE).is_some() && known(1) && known(2));
        books.write();
        assert_eq!(books.active(), 0, "sessions of who is gone are over");
    }

    pub fn a_stop_of_a_session_that_is_there_is_never_refused(db: &Database) {
        let books = Books::with(db, json!({ "SlowDown": 100 }));
        let ban = |books: &Books| {
            db.sql("UPDATE users SET banned = 1 WHERE id = 1");
            books.follow();
        };
        let unverify = |books: &Books| {
            db.sql("UPDATE files SET verified = 0 WHERE id = 1");
            books.follow();
        };
        let limit = |books: &Books| {
            db.sql("UPDATE users SET torrent_limit = 1 WHERE id = 1");
            books.follow();
        };
        let nothing = |_: &Books| {};
        type Reason = Option<Refusal>;
        type Prepare<'a> = &'a dyn Fn(&Books);
        let cases: [(&str, Change, Reason, Prepare); 5] = [
            ("pace", |a| a.regular(), None, &nothing),
            ("unverified", |a| a.regular(), None, &unverify),
            ("not whitelisted", |a| a.regular(), Some(Refusal::NotWhitelisted), &nothing),
            ("limit", |a| a.on(3), None, &limit),
            ("banned", |a| a.regular(), Some(Refusal::Banned), &ban),
        ];
        for (n, (name, refused, refusal, happens)) in (1..).zip(cases) {
            let before = books.user(ALICE).0;
            books.announce(ALICE, client(n).moved(70, 0));
            happens(&books);
            let say = |a: Announce| books.try_announce(ALICE, refusal, a);
            assert!(say(refused(client(n).moved(75, 0))).is_err(), "{name}");
            assert!(say(client(n).stopped().moved(80, 0)).is_ok(), "{name}");
            assert!(say(client(n).stopped().moved(80, 0)).is_ok(), "{name}: a repeated one is answered, too");
            books.write();
            assert_eq!(books.user(ALICE).0, before + 80, "{name}");
            let active = format!("SELECT active FROM peers WHERE peer_id = {}", books.bytes(&client(n).peer_id));
            assert_eq!(books.number(&active), 0, "{name}");
            if refusal.is_some() {
                let unknown = client(100 + n).stopped();
                assert!(say(unknown).is_err(), "{name}: there is no such session");
            }
            db.sql("UPDATE users SET banned = 0, torrent_limit = 0; UPDATE files SET verified = 1");
            books.follow();
        }
    }

    pub fn the_second_hash_of_a_hybrid_is_answered_with_counts_and_nothing_is_booked(db: &Database) {
        let books = Books::open(db);
        let file = books.tracker.store.add_file(&hash(9), Some(&hash(10)), "hybrid", 1).unwrap();
        books.tracker.put_torrent(&file);
        books.announce(ALICE, client(1).on(9));
        books.announce(ALICE, client(2).on(9).seeding());
        books.write();
        let before = books.dump();
        for event in [Event::Started, Event::None, Event::Completed, Event::Stopped] {
            let reply = books.announce(BOB, client(3).on(10).seeding().says(event).moved(70, 7));
            assert_eq!((reply.complete, reply.incomplete), (1, 1));
            assert_eq!(books.peers(BOB, client(3).on(10)), []);
        }
        assert_eq!(Writer::waiting(&books.tracker), 0);
        assert_eq!((books.dump(), books.active()), (before, 2));
        let scrape = announce::scrape(&books.tracker.config, &books.tracker.swarms, &hash(10)).unwrap();
        assert_eq!((scrape.complete, scrape.incomplete), (1, 1));
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
    /// What another goat writes by.
    second: Store,
    now: Cell<u32>,
    buffers: RefCell<Buffers>,
    folder: Folder,
}

/// The same while no tracker runs.
struct Down<'a> {
    database: &'a Database,
    config: goat::config::Config,
    journal: std::path::PathBuf,
    now: u32,
    folder: Folder,
}

impl<'a> Books<'a> {
    fn open(database: &'a Database) -> Books<'a> {
        Books::with(database, json!({}))
    }

    fn with(database: &'a Database, mut settings: Value) -> Books<'a> {
        let folder = Folder::new();
        settings["DB"] = database.config();
        // How fast and how many clients may be is not for the books to say.
        for (key, value) in [("SlowDown", 0), ("Clients", 1_000_000)] {
            if settings.get(key).is_none() {
                settings[key] = value.into();
            }
        }
        let config = config(&folder.join("config.json"), &settings);
        drop(Store::open(&config).unwrap());
        for (id, name) in [(ALICE, "alice"), (BOB, "bob")] {
            let values = format!("VALUES ({id}, '{name}', '{}')", passkey(id));
            database.sql(&format!("INSERT INTO users (id, username, passkey) {values}"));
        }
        for n in 1..=5 {
            database.sql(&format!("INSERT INTO files (id, info_hash, verified) VALUES ({n}, '{}', 1)", hash(n)));
        }
        let journal = goat::books::journal::path(&config);
        let now = goat::clock::Clock::start().now();
        Books::start(Down { database, config, journal, now, folder })
    }

    fn start(down: Down<'a>) -> Books<'a> {
        Books::try_start(down).unwrap_or_else(|failed| panic!("{}", failed.1))
    }

    fn try_start(down: Down<'a>) -> Result<Books<'a>, Box<(Down<'a>, String)>> {
        let tracker = match Tracker::load(down.config.clone()) {
            Ok(tracker) => Arc::new(tracker),
            Err(error) => return Err(Box::new((down, error))),
        };
        let second = Store::open(&down.config).unwrap();
        let buffers = RefCell::new(Buffers::new(Rng::new(1)));
        let Down { database, now, folder, .. } = down;
        Ok(Books { database, tracker, second, now: Cell::new(now), buffers, folder })
    }

    /// Ends at once, as by a kill.
    fn stop(self) -> Down<'a> {
        let (config, journal) = (self.tracker.config.clone(), self.tracker.journal.path().to_owned());
        let Books { database, tracker, now, folder, .. } = self;
        assert_eq!(Arc::strong_count(&tracker), 1);
        drop(tracker);
        Down { database, config, journal, now: now.get(), folder }
    }

    /// Another tracker on the same database.
    fn beside(&self) -> Books<'a> {
        let (folder, mut config) = (Folder::new(), self.tracker.config.clone());
        config.file = folder.join("config.json");
        config.state = folder.path().to_path_buf();
        let journal = goat::books::journal::path(&config);
        Books::start(Down { database: self.database, config, journal, now: self.now.get(), folder })
    }

    /// Ends in good order and starts again.
    fn restart(self) -> Books<'a> {
        self.write();
        Writer::new(self.now.get()).finish(&self.tracker, false).unwrap();
        self.kill()
    }

    /// Forgets what is not written, and starts again.
    fn kill(self) -> Books<'a> {
        Books::start(self.stop())
    }

    /// Is killed and cannot start.
    fn fails(self) -> (Down<'a>, String) {
        *Books::try_start(self.stop()).err().expect("a start that fails")
    }

    /// Is killed, and starts with a journal of before beside its own.
    fn killed_with(self, journal: &[(String, Vec<u8>)], run: &str) -> Books<'a> {
        let down = self.stop();
        for (name, bytes) in journal {
            fs::write(down.journal.join(format!("1{name}")), bytes).unwrap();
        }
        down.database.sql(&format!("REPLACE INTO goat (name, value) VALUES ('{run}', 0)"));
        Books::start(down)
    }

    /// What this run is called in the database.
    fn run(&self) -> String {
        self.rows("SELECT name FROM goat WHERE name LIKE 'run %'").pop().unwrap()
    }

    fn segments(&self) -> Vec<std::path::PathBuf> {
        segments(self.tracker.journal.path())
    }

    /// The journal's files.
    fn journal(&self) -> Vec<(String, Vec<u8>)> {
        read(self.tracker.journal.path())
    }

    fn journal_in(down: &Down) -> Vec<(String, Vec<u8>)> {
        read(&down.journal)
    }

    fn wait(&self, seconds: u32) {
        self.now.set(self.now.get() + seconds);
    }

    fn announce(&self, user: u32, a: Announce) -> Reply {
        self.answer(user, a).0
    }

    fn peers(&self, user: u32, a: Announce) -> Vec<std::net::SocketAddr> {
        addresses(self.answer(user, a).1)
    }

    fn answer(&self, user: u32, a: Announce) -> (Reply, Peers) {
        let what = format!("{a:?}");
        self.try_announce(user, None, a).unwrap_or_else(|refusal| panic!("{what}: {refusal}"))
    }

    fn try_announce(&self, user: u32, refusal: Option<Refusal>, a: Announce) -> Result<(Reply, Peers), Refusal> {
        let access = &self.tracker.access;
        let user = if user == 0 { access.anonymous() } else { access.by_id(user).unwrap() };
        self.say(&Admitted { user, refusal }, a)
    }

    /// Somebody of whom nothing else is known.
    fn announce_as(&self, user: User, a: Announce) {
        self.say(&Admitted { user: user.into(), refusal: None }, a).unwrap();
    }

    /// As a listener does it: the journal has what is answered before the answer leaves.
    fn say(&self, who: &Admitted, a: Announce) -> Result<(Reply, Peers), Refusal> {
        let Tracker { config, swarms, journal, .. } = &*self.tracker;
        let mut buffers = self.buffers.borrow_mut();
        let reply = announce::announce(config, swarms, who, &a, self.now.get(), &mut buffers);
        journal.write(&mut buffers.records);
        Ok((reply?, std::mem::take(&mut buffers.peers)))
    }

    fn expire(&self) {
        let Tracker { config, access, swarms, journal, .. } = &*self.tracker;
        let records = &mut self.buffers.borrow_mut().records;
        swarms.each().for_each(|mut shard| announce::expire(config, access, &mut shard, self.now.get(), records));
        journal.write(records);
    }

    fn drop_user(&self, user: u32) {
        let Tracker { access, swarms, journal, .. } = &*self.tracker;
        let records = &mut self.buffers.borrow_mut().records;
        for mut shard in swarms.each() {
            announce::drop_users(access, &mut shard, &[user].into(), self.now.get(), records);
        }
        journal.write(records);
    }

    /// Takes over what others have changed.
    fn follow(&self) {
        follow_changes(&self.tracker).unwrap();
    }

    /// What waits, as the next batch has it; it goes on waiting.
    fn batch(&self) -> Vec<Waiting> {
        let batch = Writer::take(&self.tracker);
        Writer::put_back(&self.tracker, &batch);
        batch
    }

    /// Takes what waits, as the keeper does when it begins to write.
    fn take(&self) -> Vec<Waiting> {
        Writer::take(&self.tracker)
    }

    /// Writes what was taken, as the keeper does.
    fn settle_taken(&self, batch: &[Waiting]) {
        let mut records = Vec::new();
        for told in settle(&self.tracker.store, batch, 2 * INTERVAL).unwrap() {
            self.tracker.swarms.shard(&told.info_hash).resolve(&told, &mut records);
        }
        self.tracker.journal.write(&mut records);
    }

    fn try_write(&self) -> Result<(), goat::store::Error> {
        Writer::new(self.now.get()).write(&self.tracker, self.now.get(), |_| false)
    }

    fn write(&self) {
        self.try_write().unwrap();
    }

    /// Writes what is unwritten. Gives what a user has in all, which must be the sum of what it has of
    /// each torrent.
    fn credited(&self, user: u32) -> (i64, i64) {
        if !self.broken() {
            self.write();
        }
        assert_eq!(self.user(user), self.sum(user), "users, and the sum of files_users");
        self.user(user)
    }

    fn user(&self, user: u32) -> (i64, i64) {
        self.pair(&format!("SELECT uploaded, downloaded FROM users WHERE id = {user}"))
    }

    fn sum(&self, user: u32) -> (i64, i64) {
        let sums = "COALESCE(SUM(uploaded), 0), COALESCE(SUM(downloaded), 0)";
        self.pair(&format!("SELECT {sums} FROM files_users WHERE user_id = {user}"))
    }

    fn pair(&self, sql: &str) -> (i64, i64) {
        let rows = self.database.sql(sql);
        let [row] = &rows[..] else { panic!("{sql}: {rows:?}") };
        (row[0].parse().unwrap(), row[1].parse().unwrap())
    }

    /// Sessions that are in the swarm.
    fn active(&self) -> i64 {
        self.write();
        self.number("SELECT COUNT(*) FROM peers WHERE active = 1")
    }

    /// Seconds of all seeders.
    fn seed_time(&self) -> i64 {
        self.write();
        self.number("SELECT COALESCE(SUM(seed_time), 0) FROM files_users")
    }

    /// Snatches of the first torrent, and how many rows of totals say so.
    fn snatches(&self) -> (i64, i64) {
        let rows = "SELECT COALESCE(SUM(completed), 0) FROM files_users WHERE file_id = 1";
        (self.number("SELECT completed FROM files WHERE id = 1"), self.number(rows))
    }

    fn number(&self, sql: &str) -> i64 {
        self.database.number(sql)
    }

    /// The rows of a query, each as one text.
    fn rows(&self, sql: &str) -> Vec<String> {
        self.database.sql(sql).into_iter().map(|row| row.join(" ")).collect()
    }

    /// The rows of all sessions.
    fn sessions(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        self.second.sessions(0, 0, |_, row| rows.push(row)).unwrap();
        rows
    }

    /// Bytes as SQL.
    fn bytes(&self, id: &PeerId) -> String {
        format!("x'{}'", hex(&id.0))
    }

    /// Everything that a batch may change, but for the time at which something was written last.
    fn dump(&self) -> Vec<String> {
        let tables = ["users", "files", "totals", "files_users", "changes"];
        let dump = tables.map(|table| self.rows(&format!("SELECT * FROM {table}")));
        let sessions =
            "SELECT hex(peer_id), closed, flags, uploaded, downloaded, bonus, `left`, seed_time, time4, time6,
                        hex(state) FROM sessions";
        dump.into_iter().flatten().chain(self.rows(sessions)).collect()
    }

    /// Makes a table refuse something, until it is mended.
    fn break_table(&self, what: &str, table: &str) {
        let refuse = match self.database {
            Database::Sqlite(_) => "BEGIN SELECT RAISE(ABORT, 'broken by the test'); END",
            Database::MariaDb(_) => "FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'broken'",
        };
        self.database.sql(&format!("CREATE TRIGGER broken BEFORE {what} ON {table} {refuse}"));
    }

    fn mend_table(&self) {
        self.database.sql("DROP TRIGGER broken");
    }

    fn broken(&self) -> bool {
        let sql = match self.database {
            Database::Sqlite(_) => "SELECT COUNT(*) FROM sqlite_master WHERE name = 'broken'",
            Database::MariaDb(_) => "SELECT COUNT(*) FROM information_schema.triggers WHERE trigger_name = 'broken'",
        };
        self.number(sql) > 0
    }
}

/// The segments of a journal, in their order.
fn segments(journal: &std::path::Path) -> Vec<std::path::PathBuf> {
    let files = fs::read_dir(journal).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    files.sort();
    files
}

fn read(journal: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let name = |path: &std::path::Path| path.file_name().unwrap().to_string_lossy().into_owned();
    segments(journal).iter().map(|path| (name(path), fs::read(path).unwrap())).collect()
}
