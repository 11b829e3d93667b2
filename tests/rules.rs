//! Who may announce and what they are told: each test is a sentence of the rules.
//!
//! Most are put to the rules themselves (`World`: no socket, no database, a clock that the test sets);
//! what is about HTTP is put to `http::answer` (`Site`: a tracker on SQLite) and read with the tests' own
//! bencode reader. The books have their own file, and so do random choices and random orders.

mod common;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use common::{Bencode, Database, Folder, escape};
use goat::access::{Access, Suggestion, User};
use goat::announce::{
    Announce, Event, Refusal, Reply, Scrape, admit, announce, drop_user, expire, peers_wanted,
    scrape,
};
use goat::config::Config;
use goat::http::{self, Answer, Scratch};
use goat::message::Request;
use goat::random::Rng;
use goat::server::Tracker;
use goat::store::{FileRow, NewUser};
use goat::swarm::{Peers, Swarms, Torrent, Want};
use goat::torrent::{InfoHash, PeerId};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use serde_json::{Value, json};

const ALICE: u32 = 1;
const BOB: u32 = 2;

// ---------------------------------------------------------------------------------------------------
// Who may announce: the checks and their order.

#[test]
fn the_checks_are_made_in_the_order_of_the_rules() {
    let site = Site::new(json!({}));
    let (pending, verified) = (hash(2), hash(3));
    site.tracker.put_torrent(&FileRow {
        verified: false,
        ..file(2)
    });
    site.tracker.put_torrent(&file(3));
    let limited = site.member("limited", 1);
    site.announce(&limited, Query::new(1));
    let (key, banned) = (&limited.passkey, "b".repeat(40));
    site.tracker
        .access
        .put_user(User::new(99, &banned, 0, true));

    // Each request has all the faults of those after it; the first fault is the one that is named.
    let wrong = Query::new(2)
        .set("port", "0")
        .set("info_hash", escape(&hash(9).0));
    let incomplete = wrong.clone().without("left");
    let unregistered = Query::new(2).set("info_hash", escape(&hash(9).0));
    let unverified = unregistered.clone().set("info_hash", escape(&pending.0));
    let limit = unregistered.clone().set("info_hash", escape(&verified.0));
    let too_soon = Query::new(1).without("event");
    let requests = [
        (
            "/a/b/announce".to_string(),
            None,
            "Malformed announce",
            "never",
        ),
        (
            incomplete.to("/announce"),
            None,
            "Your client is not identifying itself",
            "never",
        ),
        (
            incomplete.to("/announce"),
            Some("Unknown/1.0"),
            "Your client is not whitelisted",
            "never",
        ),
        (
            incomplete.to("/announce"),
            Some(AGENT),
            "No passkey found in announce URL",
            "never",
        ),
        (
            incomplete.at(&banned),
            Some(AGENT),
            "Invalid passkey",
            "never",
        ),
        (
            incomplete.at("nobody's"),
            Some(AGENT),
            "Invalid passkey",
            "never",
        ),
        (
            incomplete.at(key),
            Some(AGENT),
            "Missing required parameter: left",
            "never",
        ),
        (
            wrong.at(key),
            Some(AGENT),
            "Invalid integer parameter: port",
            "never",
        ),
        (
            unregistered.at(key),
            Some(AGENT),
            "Unregistered torrent",
            "5",
        ),
        (unverified.at(key), Some(AGENT), "Unverified torrent", "5"),
        (
            limit.at(key),
            Some(AGENT),
            "Exceeded active torrent limit: 2 > 1",
            "5",
        ),
        (too_soon.at(key), Some(AGENT), "Slow down", "1"),
    ];
    for (target, agent, reason, retry) in requests {
        let headers: Vec<(&str, &str)> = agent
            .map(|agent| ("User-Agent", agent))
            .into_iter()
            .collect();
        let answer = site.ask(&target, &headers, HOME);
        assert_eq!(
            (answer.text("failure reason"), retry_in(&answer)),
            (reason, retry.into()),
            "{target}"
        );
    }
}

#[test]
fn a_failure_is_a_dictionary_of_four_keys_with_the_interval_and_half_of_it() {
    let site = Site::new(json!({ "Interval": 1801 }));
    let answer = site.get("/announce");
    assert_eq!(
        answer.keys(),
        ["failure reason", "interval", "min interval", "retry in"]
    );
    assert_eq!(
        (answer.integer("interval"), answer.integer("min interval")),
        (1801, 900)
    );
}

#[test]
fn a_path_that_is_not_the_trackers_is_a_malformed_announce() {
    let site = Site::new(json!({}));
    let key = &site.alice.passkey;
    let paths = [
        "",
        "/",
        "//",
        "announce",
        "/announce/",
        "//announce",
        "/Announce",
        "/announces",
        "/scrape/",
        "/announce.php",
        "/a/b",
        "/a/b/announce",
        "*",
        "http://tracker",
        "?/announce",
        "/api/status",
    ];
    for path in paths
        .map(String::from)
        .into_iter()
        .chain([format!("/{key}/announce/"), format!("/{key}")])
    {
        let target = Query::new(1).to(&path);
        assert_eq!(
            site.get(&target).text("failure reason"),
            "Malformed announce",
            "{target}"
        );
    }
}

#[test]
fn announce_and_scrape_are_found_with_and_without_a_passkey() {
    for passkey in [true, false] {
        let site = Site::new(json!({ "Passkey": passkey }));
        let announce = Query::new(1);
        let scrape = Query::scrape(&[hash(1)]);
        let key = format!("/{}", site.alice.passkey);
        for prefix in if passkey {
            vec![key]
        } else {
            vec![key, String::new()]
        } {
            assert_eq!(
                site.get(&announce.to(&format!("{prefix}/announce")))
                    .integer("complete"),
                0
            );
            assert!(
                site.get(&scrape.to(&format!("{prefix}/scrape")))
                    .get("files")
                    .is_some()
            );
        }
    }
}

#[test]
fn a_proxy_may_send_the_whole_url() {
    let site = Site::new(json!({}));
    for host in [
        "http://tracker",
        "https://tracker:8443",
        "http://[2001:db8::1]:8080",
    ] {
        let target = format!("{host}{}", Query::new(1).at(&site.alice.passkey));
        assert_eq!(site.get(&target).integer("incomplete"), 1, "{target}");
    }
}

#[test]
fn a_request_without_a_user_agent_is_refused() {
    let site = Site::new(json!({ "Whitelist": false }));
    let key = &site.alice.passkey;
    for target in [
        Query::new(1).at(key),
        Query::scrape(&[hash(1)]).to(&format!("/{key}/scrape")),
    ] {
        for headers in [
            &[][..],
            &[("User-Agent", "")],
            &[("Host", "tracker"), ("X-User-Agent", AGENT)],
        ] {
            let answer = site.ask(&target, headers, HOME);
            assert_eq!(
                answer.text("failure reason"),
                "Your client is not identifying itself",
                "{headers:?}"
            );
        }
        assert!(
            site.ask(&target, &[("uSER-aGENT", AGENT)], HOME)
                .get("failure reason")
                .is_none()
        );
    }
}

#[test]
fn an_approved_prefix_of_the_user_agent_or_of_the_peer_id_lets_a_client_in() {
    let world = World::new(json!({}));
    world.access.set_clients(vec![
        b"Good/"[..].into(),
        b"-GO"[..].into(),
        b"\xc2\xb5"[..].into(),
    ]);
    let agents = [b"Good/1.0".as_slice(), b"Good/", b"\xc2\xb5Torrent"];
    for agent in agents {
        assert!(
            world
                .admit(Some(agent), Some(b"-XX1234-............"), "alice")
                .is_ok()
        );
    }
    assert!(
        world
            .admit(Some(b"Bad/1.0"), Some(b"-GO1234-............"), "alice")
            .is_ok()
    );
    let others = [
        b"Good".as_slice(),
        b"good/1.0",
        b" Good/1.0",
        b"Bad Good/1.0",
        b"-G",
        b"\xc2",
    ];
    for agent in others {
        let refused = world.admit(Some(agent), Some(b"-Xo-GO..............."), "alice");
        assert_eq!(refused, Err(Refusal::NotWhitelisted), "{agent:?}");
    }
}

#[test]
fn over_udp_the_peer_id_alone_must_be_approved() {
    let world = World::new(json!({}));
    world.access.set_clients(vec![b"-GO"[..].into()]);
    assert!(
        world
            .admit(None, Some(b"-GO1234-............"), "alice")
            .is_ok()
    );
    assert_eq!(
        world.admit(None, Some(b"-XX1234-............"), "alice"),
        Err(Refusal::NotWhitelisted)
    );
    assert_eq!(
        world.admit(None, None, "alice"),
        Err(Refusal::NotWhitelisted)
    );
    assert_eq!(
        world.access.take_suggestions(),
        [],
        "a peer id tells an operator nothing"
    );
}

#[test]
fn with_an_empty_whitelist_nobody_is_let_in() {
    let world = World::new(json!({}));
    assert_eq!(
        world.admit(Some(AGENT.as_bytes()), Some(&[0; 20]), "alice"),
        Err(Refusal::NotWhitelisted)
    );
}

#[test]
fn without_a_whitelist_every_client_is_let_in() {
    let world = World::new(json!({ "Whitelist": false }));
    assert!(
        world
            .admit(Some(b"Mozilla/5.0"), Some(&[0; 20]), "alice")
            .is_ok()
    );
    assert!(world.admit(None, None, "alice").is_ok());
    assert_eq!(world.access.take_suggestions(), []);
}

#[test]
fn the_clients_people_use_are_approved_from_the_start() {
    let site = Site::new(json!({}));
    let agents = [
        "qBittorrent/4.6.7",
        "qBittorrent/5.0.1",
        "Transmission/4.0.6",
        "Transmission/2.94",
        "Deluge/2.1.1",
        "Deluge 1.3.15",
        "rtorrent/0.9.8/0.13.8",
        "libtorrent/2.0.10.0",
        "aria2/1.37.0",
        "BiglyBT 3.7.0.0",
        "Azureus 5.7.6.0",
        "KTorrent/23.8.4",
        "Tixati/3.29",
        "uTorrent/3550",
        "µTorrent/3.5.5",
        "WebTorrent/2.5.1",
    ];
    let unnamed = Query::new(1).set("peer_id", escape(&[0; 20]));
    for agent in agents {
        let answer = site.ask(
            &unnamed.at(&site.alice.passkey),
            &[("User-Agent", agent)],
            HOME,
        );
        assert!(
            answer.get("failure reason").is_none(),
            "{agent}: {answer:?}"
        );
    }
    // Over UDP, where there is nothing but the peer id.
    let ids: [&[u8]; 12] = [
        b"-qB4670-",
        b"-TR4060-",
        b"-DE211s-",
        b"-lt0D80-",
        b"-LT20A0-",
        b"A2-1-37-0-",
        b"-BI3700-",
        b"-AZ5760-",
        b"-KT3840-",
        b"TIX0329-",
        b"-UT3550-",
        b"-WW0205-",
    ];
    for id in ids {
        let mut whole = [b'.'; 20];
        whole[..id.len()].copy_from_slice(id);
        assert!(
            site.tracker.access.approves(None, Some(&whole)),
            "{}",
            String::from_utf8_lossy(id)
        );
    }
}

#[test]
fn an_announce_url_without_a_passkey_is_refused() {
    let world = World::new(json!({ "Whitelist": false }));
    assert_eq!(world.admit(Some(b"x"), None, None), Err(Refusal::NoPasskey));
    let site = Site::new(json!({}));
    for target in [
        Query::new(1).to("/announce"),
        Query::scrape(&[hash(1)]).to("/scrape"),
    ] {
        assert_eq!(
            site.get(&target).text("failure reason"),
            "No passkey found in announce URL"
        );
    }
}

#[test]
fn a_banned_user_is_refused_with_invalid_passkey() {
    let site = Site::new(json!({}));
    let banned = site.member("banned", 0);
    site.tracker
        .access
        .put_user(User::new(banned.id, &banned.passkey, 0, true));
    let answer = site.get(&Query::new(1).at(&banned.passkey));
    assert_eq!(
        (answer.text("failure reason"), answer.text("retry in")),
        ("Invalid passkey", "never")
    );
    // Nobody can tell a banned user's passkey from one that never was.
    assert_eq!(answer, site.get(&Query::new(1).at(&"0".repeat(40))));
}

#[test]
fn a_passkey_counts_only_as_a_whole_and_as_written() {
    let site = Site::new(json!({}));
    let key = site.alice.passkey.as_str();
    let others = [
        &key[1..],
        &key[..39],
        &format!("{key}0"),
        &key.to_uppercase(),
        "%20",
        "'",
        "' OR 1=1 --",
    ];
    for other in others.into_iter().filter(|other| *other != key) {
        assert_eq!(
            site.get(&Query::new(1).at(other)).text("failure reason"),
            "Invalid passkey",
            "{other}"
        );
    }
}

#[test]
fn a_changed_passkey_replaces_the_old_one_at_once() {
    let world = World::new(json!({ "Whitelist": false }));
    world.access.put_user(User::new(ALICE, "new", 0, false));
    assert_eq!(world.admit(None, None, "new"), Ok(ALICE));
    assert_eq!(
        world.admit(None, None, "alice"),
        Err(Refusal::UnknownPasskey)
    );
    // And may become somebody else's.
    world.access.put_user(User::new(BOB, "new", 0, false));
    world.access.put_user(User::new(ALICE, "newer", 0, false));
    assert_eq!(world.admit(None, None, "new"), Ok(BOB));
}

#[test]
fn a_user_who_was_removed_is_refused_with_invalid_passkey() {
    let world = World::new(json!({ "Whitelist": false }));
    world.access.remove_user(ALICE);
    let refused = world.admit(None, None, "alice").unwrap_err();
    assert_eq!(refused.to_string(), "Invalid passkey");
}

#[test]
fn every_required_parameter_that_is_missing_is_named() {
    let site = Site::new(json!({}));
    for name in REQUIRED {
        let answer = site.announce(&site.alice, Query::new(1).without(name));
        let reason = format!("Missing required parameter: {name}");
        assert_eq!(
            (answer.text("failure reason"), answer.text("retry in")),
            (reason.as_str(), "never")
        );
    }
}

#[test]
fn of_several_missing_parameters_the_first_is_named() {
    let site = Site::new(json!({}));
    let mut query = Query(Vec::new());
    for (name, value) in REQUIRED
        .into_iter()
        .zip(Query::new(1).0.into_iter().map(|(_, value)| value))
    {
        let reason = format!("Missing required parameter: {name}");
        assert_eq!(
            site.announce(&site.alice, query.clone())
                .text("failure reason"),
            reason
        );
        query = query.set(name, value);
    }
    assert!(
        site.announce(&site.alice, query)
            .get("failure reason")
            .is_none()
    );
}

#[test]
fn what_is_missing_is_named_before_what_is_wrong() {
    let site = Site::new(json!({}));
    let query = Query::new(1)
        .set("info_hash", "x")
        .set("port", "x")
        .set("numwant", "x")
        .without("left");
    assert_eq!(
        site.announce(&site.alice, query).text("failure reason"),
        "Missing required parameter: left"
    );
}

#[test]
fn an_info_hash_or_a_peer_id_that_is_not_20_bytes_is_invalid() {
    let site = Site::new(json!({}));
    let hex = "0123456789abcdef0123456789abcdef01234567";
    let long = "x".repeat(7000);
    for name in ["info_hash", "peer_id"] {
        for value in [
            "",
            "x",
            &"x".repeat(19),
            &"x".repeat(21),
            &"%20".repeat(21),
            hex,
            &long,
            "%",
            "%0",
            "%zz",
            "%+1",
        ] {
            let answer = site.announce(&site.alice, Query::new(1).set(name, value));
            let reason = format!("Invalid parameter: {name}");
            assert_eq!(
                (answer.text("failure reason"), answer.text("retry in")),
                (reason.as_str(), "never"),
                "{value}"
            );
        }
        // 20 good bytes and half an escape are not 20 bytes.
        let answer = site.announce(&site.alice, Query::new(1).set(name, "x".repeat(20) + "%4"));
        assert_eq!(
            answer.text("failure reason"),
            format!("Invalid parameter: {name}")
        );
    }
}

#[test]
fn a_port_is_a_number_from_1_to_65535() {
    let site = Site::new(json!({}));
    for port in [
        "0",
        "65536",
        "-1",
        "4294967297",
        "18446744073709551616",
        "6881.0",
        "0x1ae1",
        "port",
        "",
        "%20",
    ] {
        let answer = site.announce(&site.alice, Query::new(1).set("port", port));
        assert_eq!(
            answer.text("failure reason"),
            "Invalid integer parameter: port",
            "{port}"
        );
    }
    for (n, port) in (1..).zip(["1", "65535"]) {
        let answer = site.announce(&site.alice, Query::new(n).set("port", port));
        assert!(answer.get("failure reason").is_none(), "{port}: {answer:?}");
    }
}

#[test]
fn a_counter_is_a_whole_number_of_64_bits() {
    let site = Site::new(json!({}));
    for name in ["uploaded", "downloaded", "left"] {
        for value in [
            "-1",
            "18446744073709551616",
            "1.5",
            "1e3",
            "many",
            "",
            "+1",
            "%2B1",
            "1 ",
            "1%00",
        ] {
            let answer = site.announce(&site.alice, Query::new(1).set(name, value));
            let reason = format!("Invalid integer parameter: {name}");
            assert_eq!(
                (answer.text("failure reason"), answer.text("retry in")),
                (reason.as_str(), "never"),
                "{value}"
            );
        }
        for value in ["0", "9223372036854775808", "18446744073709551615"] {
            let answer = site.announce(&site.alice, Query::new(1).set(name, value));
            assert!(
                answer.get("failure reason").is_none(),
                "{name}={value}: {answer:?}"
            );
        }
    }
}

#[test]
fn numwant_is_a_number_of_64_bits_that_may_be_negative() {
    let site = Site::new(json!({}));
    for value in [
        "9223372036854775808",
        "-9223372036854775809",
        "all",
        "",
        "5.0",
    ] {
        let answer = site.announce(&site.alice, Query::new(1).set("numwant", value));
        assert_eq!(
            answer.text("failure reason"),
            "Invalid integer parameter: numwant",
            "{value}"
        );
    }
    for value in ["-9223372036854775808", "-1", "0", "9223372036854775807"] {
        let answer = site.announce(&site.alice, Query::new(1).set("numwant", value));
        assert!(
            answer.get("failure reason").is_none(),
            "{value}: {answer:?}"
        );
    }
}

#[test]
fn a_torrent_must_be_known_and_verified() {
    let world = World::new(json!({}));
    world.put_torrent(2, false);
    assert_eq!(
        world.announce(ALICE, on(9, client(1))).unwrap_err(),
        Refusal::Unregistered
    );
    assert_eq!(
        world.announce(ALICE, on(2, client(1))).unwrap_err(),
        Refusal::Unverified
    );
    world.put_torrent(2, true);
    assert!(world.announce(ALICE, on(2, client(1))).is_ok());
}

#[test]
fn without_verified_a_torrent_need_only_be_known() {
    let world = World::new(json!({ "Verified": false }));
    world.put_torrent(2, false);
    assert!(world.announce(ALICE, on(2, client(1))).is_ok());
    assert!(world.scrape(2).is_some());
    assert_eq!(
        world.announce(ALICE, on(9, client(1))).unwrap_err(),
        Refusal::Unregistered
    );
}

#[test]
fn a_torrent_whose_verification_is_taken_back_is_refused_at_the_next_announce() {
    let world = World::new(json!({}));
    world.announce(ALICE, client(1)).unwrap();
    world.put_torrent(1, false);
    assert_eq!(
        world.announce(ALICE, stopped(client(1))).unwrap_err(),
        Refusal::Unverified
    );
    assert_eq!(world.scrape(1), None);
}

// ---------------------------------------------------------------------------------------------------
// How many torrents, how many clients, how often.

#[test]
fn the_eleventh_torrent_of_a_user_who_may_have_ten_is_refused() {
    let world = World::new(json!({}));
    world.access.put_user(User::new(ALICE, "alice", 10, false));
    (1..=11).for_each(|n| world.put_torrent(n, true));
    for n in 1..=10 {
        world.announce(ALICE, on(n, client(1))).unwrap();
    }
    let refused = world.announce(ALICE, on(11, client(1))).unwrap_err();
    assert_eq!(
        (refused.to_string().as_str(), refused.retry_in()),
        ("Exceeded active torrent limit: 11 > 10", Some(5))
    );
    assert_eq!(
        world.scrape(11),
        Some(Scrape::default()),
        "who is refused is not in the swarm"
    );
    // The ten go on.
    assert!(world.announce(ALICE, completed(on(10, client(1)))).is_ok());
}

#[test]
fn a_torrent_limit_of_0_is_none() {
    let world = World::new(json!({}));
    for n in 1..=300 {
        world.put_torrent(n, true);
        world.announce(ALICE, on(n, client(1))).unwrap();
    }
    assert_eq!(world.active(ALICE), 300);
}

#[test]
fn a_stop_frees_the_slot() {
    let world = World::limited(1);
    world.announce(ALICE, on(1, client(1))).unwrap();
    assert!(world.announce(ALICE, on(2, client(1))).is_err());
    world.announce(ALICE, stopped(on(1, client(1)))).unwrap();
    assert!(world.announce(ALICE, on(2, client(1))).is_ok());
}

#[test]
fn a_stop_of_a_client_that_was_not_there_frees_nothing() {
    let world = World::limited(1);
    world.announce(ALICE, on(1, client(1))).unwrap();
    for n in 1..10 {
        world
            .announce(ALICE, stopped(on(1, client(n + 1))))
            .unwrap();
        world.announce(ALICE, stopped(on(2, client(n)))).unwrap();
    }
    assert_eq!(world.active(ALICE), 1);
    assert!(world.announce(ALICE, on(2, client(1))).is_err());
}

#[test]
fn a_client_that_falls_silent_frees_the_slot() {
    let world = World::limited(1);
    world.announce(ALICE, on(1, client(1))).unwrap();
    world.wait(2 * INTERVAL + 1);
    world.expire();
    assert!(world.announce(ALICE, on(2, client(1))).is_ok());
}

#[test]
fn the_limit_counts_torrents_not_clients() {
    let world = World::limited(1);
    for n in 1..=5 {
        world.announce(ALICE, on(1, client(n))).unwrap();
    }
    assert_eq!(world.active(ALICE), 1);
    // Four of the five leave: the torrent is still active.
    for n in 1..=4 {
        world.announce(ALICE, stopped(on(1, client(n)))).unwrap();
    }
    assert!(world.announce(ALICE, on(2, client(1))).is_err());
    world.announce(ALICE, stopped(on(1, client(5)))).unwrap();
    assert!(world.announce(ALICE, on(2, client(1))).is_ok());
}

#[test]
fn two_clients_on_a_torrent_that_fall_silent_together_free_one_slot() {
    let world = World::limited(2);
    world.announce(ALICE, on(1, client(1))).unwrap();
    world.announce(ALICE, on(1, client(2))).unwrap();
    world.wait(2 * INTERVAL);
    world.announce(ALICE, on(2, client(1))).unwrap();
    world.wait(1);
    world.expire();
    assert_eq!(world.active(ALICE), 1, "only the second torrent");
    world.announce(ALICE, on(1, client(1))).unwrap();
    assert!(
        world.announce(ALICE, on(3, client(1))).is_err(),
        "three torrents are too many"
    );
}

#[test]
fn a_user_who_is_banned_and_let_in_again_has_all_slots_free_and_no_more() {
    let world = World::limited(1);
    world.announce(ALICE, on(1, client(1))).unwrap();
    world.announce(ALICE, on(1, client(2))).unwrap();
    world.drop_user(ALICE);
    assert_eq!(world.active(ALICE), 0);
    world.announce(ALICE, on(1, client(1))).unwrap();
    assert!(world.announce(ALICE, on(2, client(1))).is_err());
}

#[test]
fn a_torrent_that_is_removed_frees_the_slots_of_its_users() {
    let site = Site::new(json!({}));
    let limited = site.member("limited", 1);
    site.tracker.put_torrent(&file(2));
    site.announce(&limited, Query::new(1));
    site.announce(&limited, Query::new(2));
    let second = Query::new(1).set("info_hash", escape(&hash(2).0));
    assert!(
        site.announce(&limited, second.clone())
            .get("failure reason")
            .is_some()
    );
    site.tracker.remove_torrent(&hash(1));
    assert!(
        site.announce(&limited, second)
            .get("failure reason")
            .is_none()
    );
    assert_eq!(site.tracker.access.by_id(limited.id).unwrap().active(), 1);
}

#[test]
fn a_limit_that_changes_counts_what_is_active_already() {
    let world = World::limited(1);
    world.announce(ALICE, on(1, client(1))).unwrap();
    world.access.put_user(User::new(ALICE, "alice", 2, false));
    assert!(world.announce(ALICE, on(2, client(1))).is_ok());
    let refused = world.announce(ALICE, on(3, client(1))).unwrap_err();
    assert_eq!(refused.to_string(), "Exceeded active torrent limit: 3 > 2");
}

#[test]
fn the_33rd_client_of_one_user_on_one_torrent_is_told_to_slow_down() {
    let world = World::new(json!({}));
    world.put_torrent(2, true);
    for n in 1..=32 {
        world.announce(ALICE, client(n)).unwrap();
    }
    assert_eq!(
        world.announce(ALICE, client(33)).unwrap_err(),
        Refusal::SlowDown
    );
    assert_eq!(world.scrape(1).unwrap().incomplete, 32);
    // Not a client that is there, not another user, not another torrent, not after one has left.
    assert!(world.announce(ALICE, completed(client(32))).is_ok());
    assert!(world.announce(BOB, client(33)).is_ok());
    assert!(world.announce(ALICE, on(2, client(33))).is_ok());
    world.announce(ALICE, stopped(client(1))).unwrap();
    assert!(world.announce(ALICE, client(33)).is_ok());
}

#[test]
fn without_passkeys_any_number_of_clients_may_be_on_a_torrent() {
    let world = World::new(json!({ "Passkey": false }));
    for n in 1..=200 {
        world.announce(0, client(n)).unwrap();
    }
    assert_eq!(world.scrape(1).unwrap().incomplete, 200);
}

#[test]
fn who_announces_again_too_soon_is_told_to_slow_down() {
    let world = World::new(json!({}));
    world.announce(ALICE, client(1)).unwrap();
    let refused = world.announce(ALICE, regular(client(1))).unwrap_err();
    assert_eq!(
        (refused, refused.to_string().as_str(), refused.retry_in()),
        (Refusal::SlowDown, "Slow down", Some(1))
    );
    let paused = Announce {
        event: Event::Paused,
        ..client(1)
    };
    assert_eq!(
        world.announce(ALICE, paused).unwrap_err(),
        Refusal::SlowDown
    );
}

#[test]
fn started_stopped_and_completed_are_never_too_soon() {
    let world = World::new(json!({}));
    for _ in 0..10 {
        for event in [Event::Started, Event::Completed, Event::Stopped] {
            assert!(
                world
                    .announce(ALICE, Announce { event, ..client(1) })
                    .is_ok()
            );
        }
    }
}

#[test]
fn the_second_address_family_of_a_session_is_not_too_soon() {
    let world = World::new(json!({}));
    world.announce(ALICE, client(1)).unwrap();
    assert!(world.announce(ALICE, over_v6(regular(client(1)))).is_ok());
    assert_eq!(
        world
            .announce(ALICE, over_v6(regular(client(1))))
            .unwrap_err(),
        Refusal::SlowDown
    );
    assert_eq!(
        world.announce(ALICE, regular(client(1))).unwrap_err(),
        Refusal::SlowDown
    );
}

#[test]
fn another_client_of_the_same_user_or_address_is_not_too_soon() {
    let world = World::new(json!({}));
    world.put_torrent(2, true);
    world.announce(ALICE, client(1)).unwrap();
    assert!(
        world
            .announce(
                ALICE,
                Announce {
                    ip: client(1).ip,
                    ..regular(client(2))
                }
            )
            .is_ok()
    );
    assert!(world.announce(BOB, regular(client(1))).is_ok());
    assert!(world.announce(ALICE, on(2, regular(client(1)))).is_ok());
}

#[test]
fn too_soon_is_a_third_of_the_min_interval() {
    let world = World::new(json!({}));
    world.announce(ALICE, client(1)).unwrap(); // told 600 and 300
    world.wait(98);
    assert_eq!(
        world.announce(ALICE, regular(client(1))).unwrap_err(),
        Refusal::SlowDown
    );
    world.wait(1);
    assert!(
        world.announce(ALICE, regular(client(1))).is_ok(),
        "a refusal does not prolong the wait"
    );
}

#[test]
fn with_a_slow_down_of_0_nobody_is_too_soon() {
    let world = World::new(json!({ "SlowDown": 0 }));
    for _ in 0..10 {
        assert!(world.announce(ALICE, regular(client(1))).is_ok());
    }
}

#[test]
fn a_seeder_who_waits_the_min_interval_is_never_told_to_slow_down() {
    for seed in 0..200 {
        let world = World::new(json!({ "SlowDown": 100 }));
        *world.rng.borrow_mut() = Rng::new(seed);
        let told = world.announce(ALICE, seeding(client(1))).unwrap().0;
        world.wait(told.min_interval);
        let again = world.announce(ALICE, seeding(regular(client(1))));
        assert!(
            again.is_ok(),
            "was told a min interval of {}, waited, and got {again:?}",
            told.min_interval
        );
    }
}

#[test]
fn a_leecher_who_waits_the_min_interval_is_not_told_to_slow_down_for_being_a_seeder_now() {
    let world = World::new(json!({}));
    let told = world.announce(ALICE, client(1)).unwrap().0;
    world.wait(told.min_interval);
    let again = world.announce(ALICE, seeding(regular(client(1))));
    assert!(
        again.is_ok(),
        "was told a min interval of {}, waited, and got {again:?}",
        told.min_interval
    );
}

#[test]
fn who_is_refused_changes_nothing() {
    let world = World::new(json!({}));
    world.access.put_user(User::new(BOB, "bob", 1, false));
    world.put_torrent(2, true);
    world.announce(ALICE, client(1)).unwrap();
    world.announce(BOB, on(2, client(2))).unwrap();
    let before = (world.members(1), world.scrape(1), world.unwritten());
    world.wait(10);
    assert!(
        world
            .announce(
                ALICE,
                Announce {
                    uploaded: 7,
                    ..seeding(regular(client(1)))
                }
            )
            .is_err()
    );
    assert!(world.announce(BOB, client(2)).is_err());
    assert_eq!(
        (world.members(1), world.scrape(1), world.unwritten()),
        before
    );
}

// ---------------------------------------------------------------------------------------------------
// What operators are told of, and what the database is asked.

#[test]
fn a_members_unknown_client_is_suggested_to_the_operator_once() {
    let site = Site::new(json!({}));
    for n in 1..=3 {
        let target = Query::new(n)
            .set("peer_id", escape(&[0; 20]))
            .at(&site.alice.passkey);
        let answer = site.ask(&target, &[("User-Agent", "Unknown/1.0")], HOME);
        assert_eq!(
            answer.text("failure reason"),
            "Your client is not whitelisted"
        );
    }
    assert_eq!(
        site.tracker.access.take_suggestions(),
        [Suggestion::Client("Unknown/1.0".into())]
    );
}

#[test]
fn a_client_that_is_suggested_becomes_text_that_fits_the_whitelist() {
    let access = Access::default();
    access.suggest_client(b"");
    access.suggest_client(b"\x01\x02\x7f");
    assert_eq!(access.take_suggestions(), []);
    access.suggest_client(&[b"Client\r\n\x00/\xff".as_slice(), &[b'9'; 500]].concat());
    let [Suggestion::Client(name)] = &access.take_suggestions()[..] else {
        panic!("one client")
    };
    assert!(name.starts_with("Client/\u{fffd}9"), "{name}");
    assert_eq!(name.chars().count(), 128);
}

#[test]
fn strangers_and_banned_users_suggest_nothing() {
    let world = World::new(json!({}));
    world.access.put_user(User::new(3, "banned", 0, true));
    for passkey in [Some("nobody's"), Some("banned"), None] {
        assert_eq!(
            world.admit(Some(b"Unknown/1.0"), None, passkey),
            Err(Refusal::NotWhitelisted)
        );
    }
    assert_eq!(world.access.take_suggestions(), []);

    let site = Site::new(json!({}));
    site.tracker
        .access
        .put_user(User::new(99, "banned", 0, true));
    let unknown = Query::new(1).set("info_hash", escape(&hash(9).0));
    for target in [
        unknown.at("nobody's"),
        unknown.at("banned"),
        unknown.to("/announce"),
    ] {
        assert!(site.get(&target).get("failure reason").is_some());
    }
    assert_eq!(site.tracker.access.take_suggestions(), []);
}

#[test]
fn browsers_and_crawlers_are_not_suggested() {
    let world = World::new(json!({}));
    let agents = [
        "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0",
        "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
        "Opera/9.80 (Windows NT 6.1) Presto/2.12.388 Version/12.18",
        "Googlebot/2.1 (+http://www.google.com/bot.html)",
        "Baiduspider+(+http://www.baidu.com/search/spider.htm)",
        "ia_archiver crawler",
        "MOZILLA/4.0",
    ];
    for agent in agents {
        assert_eq!(
            world.admit(Some(agent.as_bytes()), None, "alice"),
            Err(Refusal::NotWhitelisted)
        );
        assert_eq!(world.access.take_suggestions(), [], "{agent}");
    }
}

#[test]
fn a_members_unknown_torrent_is_suggested_to_the_operator_once() {
    let site = Site::new(json!({}));
    for n in 1..=3 {
        let answer = site.announce(
            &site.alice,
            Query::new(n).set("info_hash", escape(&hash(9).0)),
        );
        assert_eq!(answer.text("failure reason"), "Unregistered torrent");
    }
    assert_eq!(
        site.tracker.access.take_suggestions(),
        [Suggestion::Torrent(hash(9))]
    );
    // Whoever only asks for numbers suggests nothing.
    let scrape = Query::scrape(&[hash(10)]).to(&format!("/{}/scrape", site.alice.passkey));
    site.get(&scrape);
    assert_eq!(site.tracker.access.take_suggestions(), []);
}

#[test]
fn never_more_than_a_thousand_suggestions_of_each_kind_wait() {
    let access = Access::default();
    for n in 0..3000 {
        access.suggest_client(format!("Client/{n}").as_bytes());
        access.suggest(Suggestion::Torrent(hash(n)));
    }
    let suggestions = access.take_suggestions();
    let clients = suggestions
        .iter()
        .filter(|s| matches!(s, Suggestion::Client(_)))
        .count();
    assert_eq!((clients, suggestions.len()), (1000, 2000));
    // Those that were taken still wait for the operator.
    access.suggest_client(b"Another/1.0");
    access.suggest(Suggestion::Torrent(hash(9999)));
    assert_eq!(access.take_suggestions(), []);
    access.forget_suggestions();
    access.suggest_client(b"Another/1.0");
    assert_eq!(
        access.take_suggestions(),
        [Suggestion::Client("Another/1.0".into())]
    );
}

#[test]
fn an_approved_client_works_at_the_next_announce() {
    let world = World::new(json!({}));
    assert!(world.admit(Some(b"New/1.0"), None, "alice").is_err());
    world.access.set_clients(vec![b"New/"[..].into()]);
    assert!(world.admit(Some(b"New/1.0"), None, "alice").is_ok());
    world.access.set_clients(Vec::new());
    assert!(world.admit(Some(b"New/1.0"), None, "alice").is_err());
}

#[test]
fn a_user_and_a_torrent_made_a_moment_ago_are_known_at_once() {
    let site = Site::new(json!({}));
    let user = site.tracker.store.add_user("new", 0, false).unwrap();
    site.tracker.store.add_file(&hash(2), "", 0).unwrap();
    let target = Query::new(1)
        .set("info_hash", escape(&hash(2).0))
        .at(&user.passkey);
    assert_eq!(site.get(&target).integer("incomplete"), 1);
}

#[test]
fn the_database_is_asked_at_most_a_hundred_times_a_second() {
    let access = Access::default();
    for second in [NOW, NOW + 1, NOW + 2] {
        let allowed = (0..1000).filter(|_| access.may_look_up(second)).count();
        assert_eq!(allowed, 100);
    }
}

#[test]
fn guessing_passkeys_and_hashes_does_not_load_the_database() {
    let site = Site::new(json!({}));
    let before = site.tracker.clock.now();
    let mut asked = 0;
    for n in 0..1000 {
        let target = match n % 2 {
            0 => Query::new(1).at(&format!("{n:040x}")),
            _ => Query::new(1)
                .set("info_hash", escape(&hash(1000 + n).0))
                .at(&site.alice.passkey),
        };
        let (answer, slow) = site.respond("GET", &target, &[("User-Agent", AGENT)], HOME);
        let reason = ["Invalid passkey", "Unregistered torrent"][n as usize % 2];
        assert_eq!(
            body(&answer).text("failure reason"),
            reason,
            "also those that are not looked up"
        );
        asked += u32::from(slow);
    }
    let seconds = site.tracker.clock.now() - before + 1;
    assert!(
        asked > 0 && asked <= 100 * seconds,
        "{asked} times in {seconds} seconds"
    );
}

#[test]
fn a_request_that_asks_for_a_user_and_a_torrent_is_counted_twice() {
    let site = Site::new(json!({}));
    let mut targets = Vec::new();
    for n in 0..150 {
        let user = site
            .tracker
            .store
            .add_user(&format!("user{n}"), 0, false)
            .unwrap();
        site.tracker.store.add_file(&hash(100 + n), "", 0).unwrap();
        targets.push(
            Query::new(1)
                .set("info_hash", escape(&hash(100 + n).0))
                .at(&user.passkey),
        );
    }
    let before = site.tracker.clock.now();
    let found = targets
        .iter()
        .filter(|target| site.get(target).get("failure reason").is_none())
        .count() as u32;
    let seconds = site.tracker.clock.now() - before + 1;
    assert!(
        2 * found <= 100 * seconds,
        "{} look-ups in {seconds} seconds",
        2 * found
    );
}

// ---------------------------------------------------------------------------------------------------
// Without passkeys, and where a peer is.

#[test]
fn without_passkeys_everybody_is_the_anonymous_user() {
    let world = World::new(json!({ "Passkey": false, "Whitelist": false }));
    for passkey in [None, Some("alice"), Some("nobody's")] {
        assert_eq!(world.admit(None, None, passkey), Ok(0));
    }
    let site = Site::new(json!({ "Passkey": false }));
    let told = [
        site.get(&Query::new(1).to("/announce")),
        site.get(&Query::new(2).to("/whatever/announce")),
        site.get(&Query::new(3).to("/announce")),
    ];
    assert_eq!(
        told.map(|answer| (answer.integer("incomplete"), answer.peers().len())),
        [(1, 0), (2, 1), (3, 2)]
    );
}

#[test]
fn the_address_of_a_peer_is_where_it_connects_from() {
    let site = Site::new(json!({}));
    let query = Query::new(1)
        .set("ip", "198.51.100.7")
        .set("ipv4", "198.51.100.8")
        .set("ipv6", "2001:db8::9");
    site.announce(&site.alice, query);
    let asker = Query::new(2).at(&site.alice.passkey);
    let answer = site.ask(&asker, &[("User-Agent", AGENT)], other_home());
    assert_eq!(answer.peers(), [SocketAddr::from((HOME, 6881))]);
    assert!(answer.get("peers6").is_none());
}

#[test]
fn x_forwarded_for_of_somebody_else_than_a_trusted_proxy_is_ignored() {
    let site = Site::new(json!({ "TrustedProxies": ["10.0.0.0/8"] }));
    let headers = [("User-Agent", AGENT), ("X-Forwarded-For", "198.51.100.7")];
    let answer = site.ask(&Query::new(1).at(&site.alice.passkey), &headers, HOME);
    assert_eq!(answer.bytes("external ip"), [192, 0, 2, 1]);
}

#[test]
fn of_x_forwarded_for_the_last_entry_that_is_not_a_trusted_proxy_counts() {
    let site =
        Site::new(json!({ "TrustedProxies": ["10.0.0.0/8", "127.0.0.1", "2001:db8:ffff::/48"] }));
    let proxy: IpAddr = [10, 0, 0, 1].into();
    let cases: [(&[&str], &str); 9] = [
        (&["198.51.100.7"], "198.51.100.7"),
        (&["2001:db8::7"], "2001:db8::7"),
        (&["::ffff:198.51.100.7"], "198.51.100.7"),
        (&["6.6.6.6, 198.51.100.7"], "198.51.100.7"),
        (
            &["6.6.6.6,198.51.100.7 , 10.2.3.4,127.0.0.1"],
            "198.51.100.7",
        ),
        (&["6.6.6.6", "198.51.100.7"], "198.51.100.7"),
        (&["198.51.100.7", "10.9.9.9"], "198.51.100.7"),
        (&["198.51.100.7, 2001:db8:ffff::1"], "198.51.100.7"),
        (&[], "10.0.0.1"),
    ];
    for (entries, expected) in cases {
        let mut headers = vec![("User-Agent", AGENT)];
        headers.extend(entries.iter().map(|entry| ("x-forwarded-FOR", *entry)));
        let answer = site.ask(&Query::new(1).at(&site.alice.passkey), &headers, proxy);
        assert_eq!(
            ip(answer.bytes("external ip")),
            expected.parse::<IpAddr>().unwrap(),
            "{entries:?}"
        );
    }
    // What a client writes in front of an entry that is none is not believed.
    for entries in ["6.6.6.6, unknown", "6.6.6.6, ", "6.6.6.6, 10.0.0", ""] {
        let headers = [("User-Agent", AGENT), ("X-Forwarded-For", entries)];
        let answer = site.ask(&Query::new(1).at(&site.alice.passkey), &headers, proxy);
        assert_eq!(ip(answer.bytes("external ip")), proxy, "{entries:?}");
    }
}

// ---------------------------------------------------------------------------------------------------
// The swarm.

#[test]
fn a_session_is_one_client_of_one_user_on_one_torrent() {
    let world = World::new(json!({}));
    world.put_torrent(2, true);
    world.announce(ALICE, client(1)).unwrap();
    world
        .announce(
            ALICE,
            Announce {
                port: 7000,
                ..client(1)
            },
        )
        .unwrap();
    assert_eq!(world.members(1).len(), 1, "the same, on another port");
    world
        .announce(
            ALICE,
            Announce {
                peer_id: client(2).peer_id,
                ..client(1)
            },
        )
        .unwrap();
    assert_eq!(world.members(1).len(), 2, "another peer id");
    world.announce(BOB, client(1)).unwrap();
    assert_eq!(world.members(1).len(), 3, "another user");
    world.announce(ALICE, on(2, client(1))).unwrap();
    assert_eq!(
        (world.members(1).len(), world.members(2).len()),
        (3, 1),
        "another torrent"
    );
}

#[test]
fn a_session_with_two_address_families_is_counted_once_and_handed_out_twice() {
    let world = World::new(json!({}));
    world.announce(ALICE, client(1)).unwrap();
    world.announce(ALICE, over_v6(client(1))).unwrap();
    assert_eq!(world.scrape(1).unwrap().incomplete, 1);
    assert_eq!(world.active(ALICE), 1);
    let (reply, peers) = world.announce(BOB, client(2)).unwrap();
    assert_eq!(reply.incomplete, 2);
    assert_eq!(
        peers,
        sorted([address(&client(1)), address(&over_v6(client(1)))])
    );
    // One stop, over whichever family, and both are gone.
    world.announce(ALICE, stopped(over_v6(client(1)))).unwrap();
    assert_eq!(world.announce(BOB, completed(client(2))).unwrap().1, []);
}

#[test]
fn nobody_is_sent_their_own_address_of_either_family() {
    let world = World::new(json!({}));
    world.announce(ALICE, client(1)).unwrap();
    assert_eq!(world.announce(ALICE, over_v6(client(1))).unwrap().1, []);
    assert_eq!(world.announce(ALICE, client(1)).unwrap().1, []);
    // Nor that of an earlier session of the same client, which never said goodbye.
    let restarted = Announce {
        peer_id: client(2).peer_id,
        ..client(1)
    };
    assert_eq!(
        world.announce(ALICE, restarted).unwrap().1,
        [address(&over_v6(client(1)))]
    );
}

#[test]
fn a_session_that_moves_is_handed_out_at_its_new_address_only() {
    let world = World::new(json!({}));
    world.announce(ALICE, client(1)).unwrap();
    let moved = Announce {
        ip: client(9).ip,
        port: 7000,
        ..client(1)
    };
    world.announce(ALICE, moved.clone()).unwrap();
    assert_eq!(world.announce(BOB, client(2)).unwrap().1, [address(&moved)]);
}

#[test]
fn who_wants_nothing_more_is_a_seeder() {
    let world = World::new(json!({}));
    let counts = |world: &World| {
        world
            .scrape(1)
            .map(|s| (s.complete, s.incomplete, s.downloaders))
            .unwrap()
    };
    world.announce(ALICE, seeding(client(1))).unwrap();
    world.announce(BOB, client(2)).unwrap();
    assert_eq!(counts(&world), (1, 1, 1));
    world
        .announce(
            BOB,
            Announce {
                left: 0,
                ..completed(client(2))
            },
        )
        .unwrap();
    assert_eq!(counts(&world), (2, 0, 0));
    // Whose disk has lost something is a leecher again.
    world.wait(1000);
    world
        .announce(
            ALICE,
            Announce {
                left: 5,
                ..regular(client(1))
            },
        )
        .unwrap();
    assert_eq!(counts(&world), (1, 1, 1));
}

#[test]
fn a_partial_seed_counts_with_the_leechers_but_not_with_the_downloaders() {
    let world = World::new(json!({ "SlowDown": 0 }));
    let partial = Announce {
        event: Event::Paused,
        ..client(1)
    };
    world.announce(ALICE, partial.clone()).unwrap();
    world.announce(BOB, client(2)).unwrap();
    let counts = |world: &World| {
        world
            .scrape(1)
            .map(|s| (s.complete, s.incomplete, s.downloaders))
            .unwrap()
    };
    assert_eq!(counts(&world), (0, 2, 1));
    // It is one as long as it says so in every announce (BEP 21).
    world.announce(ALICE, regular(client(1))).unwrap();
    assert_eq!(counts(&world), (0, 2, 2));
    world.announce(ALICE, partial.clone()).unwrap();
    assert_eq!(counts(&world), (0, 2, 1));
    world
        .announce(
            ALICE,
            Announce {
                left: 0,
                ..partial.clone()
            },
        )
        .unwrap();
    assert_eq!(
        counts(&world),
        (1, 1, 1),
        "who has everything is a whole seed"
    );
    world.announce(ALICE, partial.clone()).unwrap();
    world.announce(ALICE, stopped(partial)).unwrap();
    assert_eq!(counts(&world), (0, 1, 1));
}

#[test]
fn numwant_is_50_if_absent_or_negative_and_at_most_200() {
    let cases = [
        (None, 50),
        (Some(-1), 50),
        (Some(i64::MIN), 50),
        (Some(0), 0),
        (Some(1), 1),
        (Some(50), 50),
    ];
    for (numwant, expected) in
        cases
            .into_iter()
            .chain([(Some(200), 200), (Some(201), 200), (Some(i64::MAX), 200)])
    {
        assert_eq!(
            peers_wanted(numwant, goat::announce::MAX_PEERS),
            expected,
            "{numwant:?}"
        );
    }
    // Over UDP and IPv6 no more than fit one packet.
    for (numwant, expected) in [(None, 50), (Some(-1), 50), (Some(74), 74), (Some(200), 74)] {
        assert_eq!(peers_wanted(numwant, 74), expected, "{numwant:?}");
    }
    let site = Site::new(json!({}));
    site.fill(300);
    for (numwant, expected) in [
        ("", 50),
        ("-1", 50),
        ("0", 0),
        ("7", 7),
        ("200", 200),
        ("201", 200),
        ("100000", 200),
    ] {
        for compact in ["1", "0"] {
            let query = Query::new(1).set("compact", compact);
            let query = if numwant.is_empty() {
                query
            } else {
                query.set("numwant", numwant)
            };
            let answer = site.announce(&site.alice, query);
            let sent = if compact == "1" {
                answer.peers().len()
            } else {
                list(&answer).len()
            };
            assert_eq!(sent, expected, "numwant={numwant}");
        }
    }
}

#[test]
fn who_asks_for_as_many_as_there_are_gets_each_once() {
    let world = World::new(json!({}));
    for n in 1..=20 {
        world.announce(ALICE, client(n)).unwrap();
    }
    let everybody = sorted((1..=19).map(|n| address(&client(n))));
    for count in [19, 20, 50, 200] {
        let asker = Announce {
            want: Want {
                count,
                ..client(20).want
            },
            ..client(20)
        };
        assert_eq!(world.announce(ALICE, asker).unwrap().1, everybody);
    }
}

#[test]
fn a_seeder_is_never_sent_other_seeders() {
    let world = World::new(json!({}));
    for n in 1..=10 {
        world.announce(ALICE, seeding(client(n))).unwrap();
        world.announce(BOB, client(100 + n)).unwrap();
    }
    let seeder = world.announce(ALICE, seeding(client(50))).unwrap().1;
    assert_eq!(seeder, sorted((1..=10).map(|n| address(&client(100 + n)))));
    let leecher = world.announce(BOB, client(150)).unwrap().1;
    let everybody = (1..=10)
        .flat_map(|n| [client(n), client(100 + n)])
        .chain([client(50)]);
    assert_eq!(leecher, sorted(everybody.map(|a| address(&a))));
}

#[test]
fn who_stops_is_sent_nobody_and_is_gone() {
    let world = World::new(json!({}));
    (1..=5).for_each(|n| drop(world.announce(ALICE, client(n)).unwrap()));
    let (reply, peers) = world.announce(ALICE, stopped(client(1))).unwrap();
    assert_eq!((reply.incomplete, peers), (4, vec![]));
    let (reply, peers) = world.announce(ALICE, stopped(client(77))).unwrap();
    assert_eq!(
        (reply.incomplete, peers),
        (4, vec![]),
        "also who never was there"
    );
    let peers = world.announce(BOB, client(9)).unwrap().1;
    assert_eq!(peers, sorted((2..=5).map(|n| address(&client(n)))));

    let site = Site::new(json!({}));
    site.fill(5);
    let answer = site.announce(&site.alice, Query::new(1).set("event", "stopped"));
    assert_eq!(
        (answer.integer("incomplete"), answer.bytes("peers")),
        (5, &[][..])
    );
}

#[test]
fn the_answer_counts_who_asks() {
    let world = World::new(json!({}));
    let counts = |reply: Reply| (reply.complete, reply.incomplete);
    assert_eq!(counts(world.announce(ALICE, client(1)).unwrap().0), (0, 1));
    assert_eq!(
        counts(world.announce(ALICE, seeding(client(2))).unwrap().0),
        (1, 1)
    );
    assert_eq!(
        counts(world.announce(ALICE, stopped(client(1))).unwrap().0),
        (1, 0)
    );
}

#[test]
fn the_interval_of_seeders_is_spread_over_the_last_ten_minutes_of_the_interval() {
    for (interval, least, most) in [
        (3600, 3000, 3600),
        (7200, 6600, 7200),
        (86400, 85800, 86400),
    ] {
        let world = World::new(json!({ "Interval": interval }));
        let told: BTreeSet<u32> = (0..20_000)
            .map(|_| {
                let reply = world.announce(ALICE, seeding(client(1))).unwrap().0;
                assert_eq!(reply.min_interval, reply.interval / 2);
                reply.interval
            })
            .collect();
        assert_eq!((told.first(), told.last()), (Some(&least), Some(&most)));
        assert_eq!(told.len(), 601, "every number of seconds among them");
    }
}

#[test]
fn a_short_interval_gives_seeders_neither_more_than_it_nor_nothing() {
    for interval in [600, 700, 1000, 1200] {
        let world = World::new(json!({ "Interval": interval }));
        for _ in 0..2000 {
            let told = world.announce(ALICE, seeding(client(1))).unwrap().0;
            assert!(
                told.interval <= interval && told.interval >= interval - 600,
                "{told:?}"
            );
            assert!(
                told.min_interval > 0 && told.min_interval == told.interval / 2,
                "{told:?}"
            );
        }
    }
}

#[test]
fn leechers_are_told_to_come_every_ten_minutes() {
    for interval in [600, 1800, 3600, 86400] {
        let world = World::new(json!({ "Interval": interval }));
        for event in [Event::Started, Event::Paused, Event::Completed] {
            let n = event as u16 + 1;
            let told = world
                .announce(ALICE, Announce { event, ..client(n) })
                .unwrap()
                .0;
            assert_eq!((told.interval, told.min_interval), (600, 300));
        }
    }
}

#[test]
fn a_peer_not_heard_of_for_two_intervals_leaves_the_swarm() {
    let world = World::new(json!({}));
    world.announce(ALICE, seeding(client(1))).unwrap();
    world.announce(ALICE, client(2)).unwrap();
    world.wait(INTERVAL);
    world.announce(BOB, client(3)).unwrap();
    world.wait(INTERVAL - 1);
    world.expire();
    assert_eq!(world.members(1).len(), 3, "not a second early");
    world.wait(2);
    world.expire();
    let counts = world.scrape(1).unwrap();
    assert_eq!((counts.complete, counts.incomplete), (0, 1));
    assert_eq!(world.announce(BOB, completed(client(3))).unwrap().1, []);
    world.wait(2 * INTERVAL + 1);
    world.expire();
    assert_eq!(world.scrape(1), Some(Scrape::default()));
}

#[test]
fn an_address_not_heard_of_for_two_intervals_is_not_handed_out() {
    let world = World::new(json!({}));
    world.announce(ALICE, client(1)).unwrap();
    world.announce(ALICE, over_v6(client(1))).unwrap();
    for _ in 0..3 {
        world.wait(INTERVAL);
        world.announce(ALICE, over_v6(regular(client(1)))).unwrap();
    }
    world.expire();
    assert_eq!(
        world.announce(BOB, client(2)).unwrap().1,
        [address(&over_v6(client(1)))]
    );
    assert_eq!(world.scrape(1).unwrap().incomplete, 2);
    // It is again, when it is heard of again; and then the other may fall silent.
    world.announce(ALICE, regular(client(1))).unwrap();
    assert_eq!(world.announce(BOB, client(2)).unwrap().1.len(), 2);
    world.wait(2 * INTERVAL);
    world.announce(ALICE, regular(client(1))).unwrap();
    world.wait(1);
    world.expire();
    assert_eq!(
        world.announce(BOB, client(2)).unwrap().1,
        [address(&client(1))]
    );
}

#[test]
fn the_peers_of_a_banned_user_leave_every_swarm() {
    let world = World::new(json!({}));
    for n in 1..=40 {
        world.put_torrent(n, true);
        world.announce(ALICE, on(n, client(1))).unwrap();
        world.announce(ALICE, on(n, over_v6(client(1)))).unwrap();
        world.announce(ALICE, on(n, seeding(client(2)))).unwrap();
        world.announce(BOB, on(n, client(3))).unwrap();
    }
    world.drop_user(ALICE);
    for n in 1..=40 {
        let counts = world.scrape(n).unwrap();
        assert_eq!((counts.complete, counts.incomplete), (0, 1));
        assert_eq!(
            world.announce(BOB, on(n, completed(client(3)))).unwrap().1,
            []
        );
    }
}

#[test]
fn a_swarm_that_everybody_has_left_costs_nothing() {
    let world = World::new(json!({}));
    let has_swarm = |world: &World| {
        world.swarms.shard(&hash(1)).torrents[&hash(1)]
            .swarm
            .is_some()
    };
    world.announce(ALICE, client(1)).unwrap();
    world.announce(ALICE, stopped(client(1))).unwrap();
    assert!(!has_swarm(&world));
    world.announce(ALICE, client(1)).unwrap();
    world.wait(2 * INTERVAL + 1);
    world.expire();
    assert!(!has_swarm(&world));
    world.announce(ALICE, client(1)).unwrap();
    world.drop_user(ALICE);
    assert!(!has_swarm(&world));
}

#[test]
fn a_scrape_counts_and_changes_nothing() {
    let world = World::new(json!({}));
    world.announce(ALICE, seeding(client(1))).unwrap();
    world.announce(ALICE, client(2)).unwrap();
    world
        .announce(
            ALICE,
            Announce {
                event: Event::Paused,
                ..client(3)
            },
        )
        .unwrap();
    world
        .swarms
        .shard(&hash(1))
        .torrents
        .get_mut(&hash(1))
        .unwrap()
        .snatches = 7;
    let before = (world.members(1), world.unwritten());
    let counts = Scrape {
        complete: 1,
        downloaded: 7,
        downloaders: 1,
        incomplete: 2,
    };
    assert_eq!(world.scrape(1), Some(counts));
    assert_eq!((world.members(1), world.unwritten()), before);
    assert_eq!(world.scrape(9), None);
}

// ---------------------------------------------------------------------------------------------------
// On the wire: HTTP and bencode.

#[test]
fn an_answer_has_these_keys_in_order() {
    let site = Site::new(json!({}));
    let expected = [
        "complete",
        "downloaded",
        "external ip",
        "incomplete",
        "interval",
        "min interval",
        "peers",
    ];
    assert_eq!(site.announce(&site.alice, Query::new(1)).keys(), expected);
    // IPv6 peers have a key of their own where there are any (BEP 7).
    let v6 = site.ask(
        &Query::new(2).at(&site.alice.passkey),
        &[("User-Agent", AGENT)],
        HOME6,
    );
    assert_eq!(v6.keys(), expected);
    let both = site.announce(&site.alice, Query::new(3));
    assert_eq!(both.keys(), [&expected[..], &["peers6"]].concat());
    assert_eq!(
        both.peers(),
        sorted([SocketAddr::from((HOME, 6881)), (HOME6, 6881).into()])
    );
}

#[test]
fn an_answer_holds_the_numbers_of_the_swarm() {
    let site = Site::new(json!({}));
    site.fill(3);
    site.tracker.put_torrent(&FileRow {
        completed: 42,
        ..file(1)
    });
    let answer = site.announce(&site.alice, Query::new(1).set("left", "0"));
    let numbers = ["complete", "incomplete", "downloaded"].map(|key| answer.integer(key));
    assert_eq!(numbers, [1, 3, 42]);
    assert_eq!(
        answer.integer("min interval"),
        answer.integer("interval") / 2
    );
}

#[test]
fn the_external_ip_is_the_clients_address_in_4_or_16_bytes() {
    let site = Site::new(json!({}));
    let target = Query::new(1).at(&site.alice.passkey);
    let of = |peer| {
        site.ask(&target, &[("User-Agent", AGENT)], peer)
            .bytes("external ip")
            .to_vec()
    };
    assert_eq!(of(HOME), [192, 0, 2, 1]);
    assert_eq!(
        of(HOME6),
        [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    );
}

#[test]
fn peers_are_compact_unless_the_request_says_compact_0() {
    let site = Site::new(json!({}));
    site.announce(&site.alice, Query::new(1));
    site.ask(
        &Query::new(1).at(&site.alice.passkey),
        &[("User-Agent", AGENT)],
        HOME6,
    );
    for compact in [None, Some("1"), Some("2"), Some("")] {
        let query = Query::new(2);
        let query = compact.map_or(query.clone(), |value| query.set("compact", value));
        let answer = site.announce(&site.alice, query);
        assert_eq!(
            answer.bytes("peers"),
            [192, 0, 2, 1, 0x1a, 0xe1],
            "compact={compact:?}"
        );
        assert_eq!(answer.bytes("peers6").len(), 18);
    }
    let answer = site.announce(&site.alice, Query::new(2).set("compact", "0"));
    assert!(
        answer.get("peers6").is_none(),
        "the list holds both families"
    );
    let peers = list(&answer);
    assert_eq!(
        peers.iter().map(|peer| peer.text("ip")).collect::<Vec<_>>(),
        ["192.0.2.1", "2001:db8::1"]
    );
    for peer in peers {
        assert_eq!(peer.keys(), ["ip", "peer id", "port"]);
        assert_eq!(
            (peer.bytes("peer id"), peer.integer("port")),
            (&client(1).peer_id.0[..], 6881)
        );
    }
}

#[test]
fn with_no_peer_id_1_the_list_is_without_peer_ids() {
    let site = Site::new(json!({}));
    site.announce(&site.alice, Query::new(1));
    for (value, keys) in [
        ("1", &["ip", "port"][..]),
        ("0", &["ip", "peer id", "port"]),
    ] {
        let query = Query::new(2).set("compact", "0").set("no_peer_id", value);
        assert_eq!(list(&site.announce(&site.alice, query))[0].keys(), keys);
    }
}

#[test]
fn the_bytes_of_an_answer_are_these() {
    let site = Site::new(json!({ "Interval": 600 }));
    site.announce(&site.alice, Query::new(1));
    let target = Query::new(2).at(&site.alice.passkey);
    let (answer, _) = site.respond("GET", &target, &[("User-Agent", AGENT)], other_home());
    let body = b"d8:completei0e10:downloadedi0e11:external ip4:\xc6\x33\x64\x0110:incompletei2e8:intervali600e\
        12:min intervali300e5:peers6:\xc0\x00\x02\x01\x1a\xe1e";
    assert_eq!(
        answer,
        [
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 124\r\n\r\n",
            &body[..]
        ]
        .concat()
    );
}

#[test]
fn head_is_answered_like_get_without_the_body() {
    let site = Site::new(json!({}));
    let target = Query::scrape(&[hash(1)]).to(&format!("/{}/scrape", site.alice.passkey));
    let get = site
        .respond("GET", &target, &[("User-Agent", AGENT)], HOME)
        .0;
    let head = site
        .respond("HEAD", &target, &[("User-Agent", AGENT)], HOME)
        .0;
    let end = get.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    assert_eq!(head, get[..end]);
    assert!(get.len() > end);
}

#[test]
fn a_connection_that_will_be_closed_is_told_so() {
    let site = Site::new(json!({}));
    let headers = [httparse::Header {
        name: "User-Agent",
        value: AGENT.as_bytes(),
    }];
    let target = Query::new(1).at(&site.alice.passkey);
    let request = Request {
        method: "GET",
        target: &target,
        headers: &headers,
        peer: HOME,
        keep_alive: false,
    };
    let mut out = Vec::new();
    assert_eq!(
        http::answer(
            &site.tracker,
            &request,
            &mut site.scratch.borrow_mut(),
            &mut out
        ),
        Answer::Written
    );
    assert!(String::from_utf8_lossy(&out).contains("\r\nConnection: close\r\n"));
    body(&out);
}

#[test]
fn a_scrape_answers_each_hash_under_its_20_bytes() {
    let site = Site::new(json!({}));
    site.fill(3);
    site.announce(&site.alice, Query::new(1).set("left", "0"));
    // Whatever is in the bytes: these are as hard as any to write and to sort.
    let hashes = [
        hash(1),
        InfoHash([0; 20]),
        InfoHash([255; 20]),
        InfoHash(*b"d5:filesi0e%2B+ &=?#"),
        InfoHash([b'e'; 20]),
    ];
    for (id, info_hash) in (2..).zip(&hashes[1..]) {
        site.tracker.put_torrent(&FileRow {
            id,
            info_hash: *info_hash,
            completed: id,
            ..file(id)
        });
    }
    let answer = site.scrape(&hashes);
    assert_eq!(answer.keys(), ["files"]);
    let files = files(&answer);
    assert_eq!(
        files.keys().cloned().collect::<BTreeSet<_>>(),
        hashes.iter().map(|hash| hash.0.to_vec()).collect()
    );
    let keys = ["complete", "downloaded", "downloaders", "incomplete"];
    for file in files.values() {
        assert_eq!(file.keys(), keys);
    }
    assert_eq!(
        keys.map(|key| files[&hash(1).0.to_vec()].integer(key)),
        [1, 0, 3, 3]
    );
    assert_eq!(
        keys.map(|key| files[&vec![255; 20]].integer(key)),
        [0, 3, 0, 0]
    );
}

#[test]
fn a_scrape_takes_up_to_74_hashes() {
    let site = Site::new(json!({}));
    (1..=75).for_each(|n| site.tracker.put_torrent(&file(n)));
    let hashes: Vec<InfoHash> = (1..=75).map(hash).collect();
    for count in [1, 2, 73, 74] {
        assert_eq!(files(&site.scrape(&hashes[..count])).len(), count);
    }
    let answer = site.scrape(&hashes);
    assert!(
        answer
            .text("failure reason")
            .starts_with("Invalid parameter: info_hash"),
        "{answer:?}"
    );
    assert_eq!(
        files(&site.scrape(&[hash(1), hash(2), hash(1)])).len(),
        2,
        "a hash that is repeated comes once"
    );
}

#[test]
fn a_scrape_leaves_out_what_is_not_known_or_not_verified() {
    let site = Site::new(json!({}));
    site.tracker.put_torrent(&FileRow {
        verified: false,
        ..file(2)
    });
    let answer = site.scrape(&[hash(1), hash(2), hash(9)]);
    assert_eq!(files(&answer).into_keys().collect::<Vec<_>>(), [hash(1).0]);
    assert_eq!(files(&site.scrape(&[hash(9)])).len(), 0);
}

#[test]
fn a_scrape_without_an_info_hash_is_a_failure() {
    let site = Site::new(json!({}));
    for query in ["", "?", "?x=y", "?info_hashes=x"] {
        let answer = site.get(&format!("/{}/scrape{query}", site.alice.passkey));
        assert_eq!(
            answer.text("failure reason"),
            "Missing required parameter: info_hash",
            "{query}"
        );
    }
    for value in ["", "=", "=x", "=%", &format!("={}00", escape(&hash(1).0))] {
        let good = escape(&hash(1).0);
        let answer = site.get(&format!(
            "/{}/scrape?info_hash={good}&info_hash{value}",
            site.alice.passkey
        ));
        assert_eq!(
            answer.text("failure reason"),
            "Invalid parameter: info_hash",
            "{value}"
        );
    }
}

#[test]
fn of_a_repeated_parameter_the_first_counts() {
    let site = Site::new(json!({}));
    site.announce(&site.alice, Query::new(1));
    let again = |name: &'static str, second: &str| {
        let mut query = Query::new(2);
        query.0.push((name, second.to_string()));
        site.announce(&site.alice, query)
    };
    assert!(again("info_hash", "x").get("failure reason").is_none());
    assert!(again("peer_id", "x").get("failure reason").is_none());
    assert!(again("port", "0").get("failure reason").is_none());
    assert!(
        again("left", "0").integer("incomplete") == 2,
        "left=0 would be a seeder"
    );
    assert!(
        again("event", "stopped").peers().len() == 1,
        "who is stopped gets no peers"
    );
    for (name, first, second) in [
        ("port", "0", "6881"),
        ("numwant", "x", "1"),
        ("uploaded", "-1", "1"),
    ] {
        let mut query = Query::new(2).set(name, first);
        query.0.push((name, second.to_string()));
        let answer = site.announce(&site.alice, query);
        assert_eq!(
            answer.text("failure reason"),
            format!("Invalid integer parameter: {name}")
        );
    }
    let mut query = Query::new(2).set("numwant", "0");
    query.0.push(("numwant", "1".into()));
    assert_eq!(site.announce(&site.alice, query).peers(), []);
}

#[test]
fn of_a_repeated_compact_or_no_peer_id_the_first_counts() {
    let site = Site::new(json!({}));
    site.announce(&site.alice, Query::new(1));
    let mut query = Query::new(2).set("compact", "0").set("no_peer_id", "1");
    query
        .0
        .extend([("compact", "1".to_string()), ("no_peer_id", "0".into())]);
    let answer = site.announce(&site.alice, query);
    assert!(
        matches!(answer.get("peers"), Some(Bencode::List(_))),
        "{answer:?}"
    );
    assert_eq!(list(&answer)[0].keys(), ["ip", "port"]);
}

#[test]
fn parameters_nobody_knows_are_ignored_however_long() {
    let site = Site::new(json!({}));
    let good = Query::new(1).to("");
    for junk in [
        "",
        "&",
        "key=&&=&supportcrypto=1",
        "info_hash",
        &"x=y&".repeat(1500),
        &"%".repeat(7000),
    ] {
        if junk == "info_hash" {
            continue; // that is one it knows
        }
        let target = format!(
            "/{}/announce?{junk}&{}&{junk}",
            site.alice.passkey,
            &good[1..]
        );
        assert!(
            site.get(&target).get("failure reason").is_none(),
            "{}",
            &junk[..junk.len().min(30)]
        );
    }
}

#[test]
fn an_unknown_event_is_a_regular_announce() {
    let site = Site::new(json!({}));
    for (n, event) in (1..).zip(["", "empty", "STARTED", "paused ", "%00"]) {
        assert!(
            site.announce(&site.alice, Query::new(n).set("event", event))
                .get("failure reason")
                .is_none()
        );
        let again = site.announce(&site.alice, Query::new(n).set("event", event));
        assert_eq!(again.text("failure reason"), "Slow down", "event={event}");
    }
}

#[test]
fn a_plus_sign_is_a_space_and_2b_is_a_plus_sign() {
    let site = Site::new(json!({}));
    let bytes = *b" + 0123456789 ++ xyz";
    site.tracker.put_torrent(&FileRow {
        info_hash: InfoHash(bytes),
        ..file(2)
    });
    for written in [
        "+%2B+0123456789+%2B%2B+xyz",
        "%20%2b%200123456789%20%2B%2b%20xyz",
    ] {
        let answer = site.announce(&site.alice, Query::new(1).set("info_hash", written));
        assert!(
            answer.get("failure reason").is_none(),
            "{written}: {answer:?}"
        );
    }
    let answer = site.announce(
        &site.alice,
        Query::new(1).set("info_hash", "%20+%200123456789%20++%20xyz"),
    );
    assert_eq!(
        answer.text("failure reason"),
        "Unregistered torrent",
        "that is spaces only"
    );
}

#[test]
fn any_bytes_encoded_in_any_legal_way_are_themselves() {
    let site = Site::new(json!({ "Passkey": false }));
    let bytes = || {
        proptest::collection::vec(
            prop_oneof![any::<u8>(), b" %&+=?#;/".as_slice().prop_map_any()],
            20,
        )
    };
    let ways = || proptest::collection::vec(0..4u8, 20);
    check(
        400,
        (bytes(), ways(), bytes(), ways()),
        |(info_hash, way, peer_id, other_way)| {
            let hash = InfoHash(info_hash.clone().try_into().unwrap());
            site.tracker.put_torrent(&FileRow {
                info_hash: hash,
                ..file(2)
            });
            let there = Query::new(1)
                .set("info_hash", encode(&info_hash, &way))
                .set("peer_id", encode(&peer_id, &other_way));
            let answer = site.get(&there.to("/announce"));
            prop_assert!(answer.get("failure reason").is_none(), "{answer:?}");

            let asker = Query::new(2)
                .set("info_hash", escape(&info_hash))
                .set("compact", "0");
            let answer = site.ask(
                &asker.to("/announce"),
                &[("User-Agent", AGENT)],
                other_home(),
            );
            let ids: Vec<Vec<u8>> = list(&answer)
                .iter()
                .map(|peer| peer.bytes("peer id").to_vec())
                .collect();
            prop_assert_eq!(ids, [peer_id]);

            let answer = site.get(&format!(
                "/scrape?info_hash={}",
                encode(&info_hash, &other_way)
            ));
            prop_assert_eq!(files(&answer).into_keys().collect::<Vec<_>>(), [info_hash]);
            site.tracker.remove_torrent(&hash);
            Ok(())
        },
    );
}

/// RFC 3986, section 2.3: escaped or not, an unreserved character is the same.
#[test]
fn names_and_numbers_may_be_percent_encoded_too() {
    let site = Site::new(json!({}));
    site.announce(&site.alice, Query::new(1));
    let answer = site.announce(&site.alice, Query::new(2).set("port", "%36881"));
    assert!(
        answer.get("failure reason").is_none(),
        "port=%36881: {answer:?}"
    );
    let answer = site.announce(&site.alice, Query::new(2).set("event", "%73topped"));
    assert_eq!(answer.peers(), [], "event=%73topped");
    let answer = site.announce(
        &site.alice,
        Query::new(2).without("port").set("%70ort", "6881"),
    );
    assert!(
        answer.get("failure reason").is_none(),
        "%70ort=6881: {answer:?}"
    );
}

#[test]
fn no_request_whatever_it_says_is_answered_with_anything_but_a_dictionary() {
    let site = Site::new(json!({}));
    let key = site.alice.passkey.clone();
    let path = prop_oneof![
        Just("/announce".to_string()),
        Just("/scrape".into()),
        Just(format!("/{key}/announce")),
        Just(format!("/{key}/scrape")),
        Just("http://tracker/announce".into()),
        "\\PC{0,20}",
        "[/a-z%.]{0,30}",
    ];
    let name = prop_oneof![
        proptest::sample::select(REQUIRED.to_vec()).prop_map(String::from),
        proptest::sample::select(vec!["numwant", "event", "compact", "no_peer_id", "ip", ""])
            .prop_map(String::from),
        "\\PC{0,8}",
    ];
    let value = prop_oneof![
        Just(escape(&hash(1).0)),
        Just(escape(&client(1).peer_id.0)),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        (0..3u8).prop_map(|n| n.to_string()),
        proptest::sample::select(vec!["started", "stopped", "completed", "paused"])
            .prop_map(String::from),
        "\\PC{0,25}",
        "(%[0-9a-fA-F]{0,2}|\\+|[ -~]){0,25}",
    ];
    let query = proptest::collection::vec((name, value), 0..12);
    let target = prop_oneof![
        9 => (path, query).prop_map(|(path, query)| {
            let pairs: Vec<String> = query.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("{path}?{}", pairs.join("&"))
        }),
        1 => "\\PC{0,200}",
    ];
    let header = prop_oneof![
        4 => Just(("User-Agent", AGENT.as_bytes().to_vec())),
        1 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(|value| ("User-Agent", value)),
        1 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(|value| ("X-Forwarded-For", value)),
    ];
    let headers = proptest::collection::vec(header, 0..4);
    let peer = prop_oneof![Just(HOME), Just(HOME6), Just(IpAddr::from([127, 0, 0, 1]))];
    check(3000, (target, headers, peer), |(target, headers, peer)| {
        let headers: Vec<httparse::Header> = headers
            .iter()
            .map(|(name, value)| httparse::Header { name, value })
            .collect();
        let request = Request {
            method: "GET",
            target: &target,
            headers: &headers,
            peer,
            keep_alive: true,
        };
        let (answer, _) = site.answer(&request);
        let answer = body(&answer);
        let shown = [
            answer.get("failure reason"),
            answer.get("peers"),
            answer.get("files"),
        ];
        prop_assert_eq!(shown.into_iter().flatten().count(), 1);
        Ok(())
    });
}

// ---------------------------------------------------------------------------------------------------
// A restart.

#[test]
fn after_a_restart_the_first_announce_gets_peers() {
    let site = Site::new(json!({}));
    let target = Query::new(1).at(&site.alice.passkey);
    site.get(&target);
    site.ask(&target, &[("User-Agent", AGENT)], HOME6);
    site.announce(
        &site.alice,
        Query::new(2).set("port", "7000").set("left", "0"),
    );
    let site = site.restart();
    let answer = site.ask(
        &Query::new(3).at(&site.alice.passkey),
        &[("User-Agent", AGENT)],
        other_home(),
    );
    assert_eq!(
        (answer.integer("complete"), answer.integer("incomplete")),
        (1, 2)
    );
    let addresses = [
        SocketAddr::from((HOME, 6881)),
        (HOME6, 6881).into(),
        (HOME, 7000).into(),
    ];
    assert_eq!(answer.peers(), sorted(addresses));
}

#[test]
fn a_restart_frees_no_slots_and_lets_nobody_announce_sooner() {
    let site = Site::new(json!({}));
    let limited = site.member("limited", 1);
    site.tracker.store.add_file(&hash(2), "", 0).unwrap();
    site.announce(&limited, Query::new(1));
    site.announce(&limited, Query::new(2));
    let site = site.restart();
    let answer = site.announce(&limited, Query::new(1).set("info_hash", escape(&hash(2).0)));
    assert_eq!(
        answer.text("failure reason"),
        "Exceeded active torrent limit: 2 > 1"
    );
    let answer = site.announce(&limited, Query::new(1).without("event"));
    assert_eq!(answer.text("failure reason"), "Slow down");
}

#[test]
fn after_a_restart_those_who_stopped_or_were_banned_are_not_there() {
    let site = Site::new(json!({}));
    let bob = site.member("bob", 0);
    site.announce(&site.alice, Query::new(1));
    site.announce(&site.alice, Query::new(1).set("event", "stopped"));
    site.announce(&bob, Query::new(2).set("port", "7000"));
    site.announce(&site.alice, Query::new(3).set("port", "8000"));
    site.save();
    site.database
        .sql("UPDATE users SET banned = 1 WHERE username = 'bob'");
    let site = site.restart();
    let answer = site.announce(&site.alice, Query::new(4));
    assert_eq!(
        (answer.integer("incomplete"), answer.peers()),
        (2, vec![SocketAddr::from((HOME, 8000))])
    );
    assert_eq!(
        site.announce(&bob, Query::new(2)).text("failure reason"),
        "Invalid passkey"
    );
}

// ---------------------------------------------------------------------------------------------------
// The world of these tests.

/// Any time will do.
const NOW: u32 = 1_800_000_000;
/// The default `Interval`.
const INTERVAL: u32 = 3600;

/// The `n`th torrent.
fn hash(n: u32) -> InfoHash {
    let mut bytes = [0xa5; 20];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    InfoHash(bytes)
}

/// The `n`th client, which comes to the first torrent as a leecher from an address of its own.
fn client(n: u16) -> Announce {
    let [high, low] = n.to_be_bytes();
    let mut peer_id = *b"-qB4670-............";
    peer_id[18..].copy_from_slice(&[high, low]);
    Announce {
        info_hash: hash(1),
        peer_id: PeerId(peer_id),
        ip: Ipv4Addr::new(10, 1, high, low).into(),
        port: 6881,
        uploaded: 0,
        downloaded: 0,
        left: 1,
        event: Event::Started,
        want: Want {
            count: 50,
            v4: true,
            v6: true,
            list: false,
        },
    }
}

fn on(torrent: u32, a: Announce) -> Announce {
    Announce {
        info_hash: hash(torrent),
        ..a
    }
}

fn regular(a: Announce) -> Announce {
    Announce {
        event: Event::None,
        ..a
    }
}

fn stopped(a: Announce) -> Announce {
    Announce {
        event: Event::Stopped,
        ..a
    }
}

fn completed(a: Announce) -> Announce {
    Announce {
        event: Event::Completed,
        ..a
    }
}

fn seeding(a: Announce) -> Announce {
    Announce { left: 0, ..a }
}

/// The same client from its IPv6 address.
fn over_v6(a: Announce) -> Announce {
    let IpAddr::V4(ip) = a.ip else {
        panic!("{a:?} is there already")
    };
    let [_, _, high, low] = ip.octets();
    Announce {
        ip: Ipv6Addr::new(
            0x2001,
            0xdb8,
            0,
            0,
            0,
            0,
            0,
            u16::from_be_bytes([high, low]),
        )
        .into(),
        ..a
    }
}

fn address(a: &Announce) -> SocketAddr {
    (a.ip, a.port).into()
}

fn sorted(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut sorted: Vec<SocketAddr> = addresses.into_iter().collect();
    sorted.sort();
    sorted
}

/// A configuration: the defaults, with `settings` instead of some.
fn config(file: &Path, settings: &Value) -> Config {
    let mut keys = json!({ "DB": { "Driver": "sqlite" } });
    for (key, value) in settings.as_object().unwrap() {
        keys[key] = value.clone();
    }
    goat::config::parse(file, &keys.to_string()).unwrap()
}

/// Two members, Alice and Bob, one verified torrent, and no database.
struct World {
    config: Config,
    access: Access,
    swarms: Swarms,
    now: Cell<u32>,
    rng: RefCell<Rng>,
}

impl World {
    fn new(settings: Value) -> World {
        let config = config("goat.json".as_ref(), &settings);
        let (access, swarms) = (Access::default(), Swarms::default());
        access.put_user(User::new(ALICE, "alice", 0, false));
        access.put_user(User::new(BOB, "bob", 0, false));
        let world = World {
            config,
            access,
            swarms,
            now: Cell::new(NOW),
            rng: Rng::new(1).into(),
        };
        world.put_torrent(1, true);
        world
    }

    /// Alice may be on so many torrents; there are three.
    fn limited(torrent_limit: u32) -> World {
        let world = World::new(json!({}));
        world
            .access
            .put_user(User::new(ALICE, "alice", torrent_limit, false));
        (2..=3).for_each(|n| world.put_torrent(n, true));
        world
    }

    fn put_torrent(&self, n: u32, verified: bool) {
        let mut shard = self.swarms.shard(&hash(n));
        let torrent: &mut Torrent = shard.torrents.entry(hash(n)).or_default();
        (torrent.id, torrent.verified) = (n, verified);
    }

    fn wait(&self, seconds: u32) {
        self.now.set(self.now.get() + seconds);
    }

    fn expire(&self) {
        self.swarms
            .each()
            .for_each(|mut shard| expire(&self.config, &self.access, &mut shard, self.now.get()));
    }

    fn drop_user(&self, user: u32) {
        self.swarms
            .each()
            .for_each(|mut shard| drop_user(&self.access, &mut shard, user));
    }

    /// The id of who is let in.
    fn admit<'a>(
        &self,
        agent: Option<&[u8]>,
        peer_id: Option<&[u8]>,
        passkey: impl Into<Option<&'a str>>,
    ) -> Result<u32, Refusal> {
        admit(&self.config, &self.access, agent, peer_id, passkey.into()).map(|user| user.id)
    }

    /// What a user's client is told, and which peers it is sent.
    fn announce(&self, user: u32, a: Announce) -> Result<(Reply, Vec<SocketAddr>), Refusal> {
        let user = self
            .access
            .by_id(user)
            .unwrap_or_else(|| self.access.anonymous());
        let mut peers = Peers::default();
        let (mut rng, now) = (self.rng.borrow_mut(), self.now.get());
        let reply = announce(
            &self.config,
            &self.swarms,
            &user,
            &a,
            now,
            &mut rng,
            &mut peers,
        )?;
        let mut compact = BTreeMap::new();
        compact.insert(b"peers".to_vec(), Bencode::Bytes(peers.v4));
        compact.insert(b"peers6".to_vec(), Bencode::Bytes(peers.v6));
        Ok((reply, Bencode::Dictionary(compact).peers()))
    }

    fn scrape(&self, torrent: u32) -> Option<Scrape> {
        scrape(&self.config, &self.swarms, &hash(torrent))
    }

    /// Torrents a user is active on.
    fn active(&self, user: u32) -> u32 {
        self.access.by_id(user).unwrap().active()
    }

    /// The sessions of a torrent, in words.
    fn members(&self, torrent: u32) -> Vec<String> {
        let shard = self.swarms.shard(&hash(torrent));
        let swarm = shard.torrents[&hash(torrent)].swarm.as_deref();
        let mut members: Vec<String> = swarm
            .into_iter()
            .flat_map(|s| s.iter())
            .map(|m| format!("{m:?}"))
            .collect();
        members.sort();
        members
    }

    /// How many rows the database does not have.
    fn unwritten(&self) -> usize {
        self.swarms.each().map(|shard| shard.ledger.rows()).sum()
    }
}

const AGENT: &str = "qBittorrent/4.6.7";
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const HOME6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
/// In the order in which one that is missing is named.
const REQUIRED: [&str; 6] = [
    "info_hash",
    "peer_id",
    "port",
    "uploaded",
    "downloaded",
    "left",
];

fn other_home() -> IpAddr {
    [198, 51, 100, 1].into()
}

/// A row of `files`, verified.
fn file(id: u32) -> FileRow {
    FileRow {
        id,
        info_hash: hash(id),
        name: String::new(),
        size: 0,
        verified: true,
        completed: 0,
    }
}

/// The parameters of a request, encoded.
#[derive(Clone)]
struct Query(Vec<(&'static str, String)>);

impl Query {
    /// The `n`th client's `started`.
    fn new(n: u16) -> Query {
        let (info_hash, peer_id) = (escape(&hash(1).0), escape(&client(n).peer_id.0));
        let [zero, left, started] = ["0", "1", "started"].map(String::from);
        let values = [
            info_hash,
            peer_id,
            port(n).to_string(),
            zero.clone(),
            zero,
            left,
        ];
        Query(
            REQUIRED
                .into_iter()
                .zip(values)
                .chain([("event", started)])
                .collect(),
        )
    }

    fn scrape(hashes: &[InfoHash]) -> Query {
        Query(
            hashes
                .iter()
                .map(|hash| ("info_hash", escape(&hash.0)))
                .collect(),
        )
    }

    fn set(self, name: &'static str, value: impl Display) -> Query {
        let mut query = self;
        match query.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value.to_string(),
            None => query.0.push((name, value.to_string())),
        }
        query
    }

    fn without(mut self, name: &str) -> Query {
        self.0.retain(|(known, _)| *known != name);
        self
    }

    fn to(&self, path: &str) -> String {
        let pairs: Vec<String> = self
            .0
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        format!("{path}?{}", pairs.join("&"))
    }

    fn at(&self, passkey: &str) -> String {
        self.to(&format!("/{passkey}/announce"))
    }
}

/// A tracker on SQLite with one member and one verified torrent, which is asked as HTTP asks it.
struct Site {
    tracker: Tracker,
    scratch: RefCell<Scratch>,
    alice: NewUser,
    database: Database,
    folder: Folder,
    settings: Value,
}

impl Site {
    fn new(mut settings: Value) -> Site {
        let (folder, database) = (Folder::new(), Database::sqlite());
        settings["DB"] = database.config();
        let tracker = Tracker::load(config(&folder.join("config.json"), &settings)).unwrap();
        let alice = tracker.store.add_user("alice", 0, false).unwrap();
        assert!(tracker.look_up_user(&alice.passkey));
        tracker.put_torrent(&tracker.store.add_file(&hash(1), "", 0).unwrap());
        Site {
            tracker,
            scratch: RefCell::default(),
            alice,
            database,
            folder,
            settings,
        }
    }

    /// Writes the books and starts anew from the database.
    fn restart(self) -> Site {
        self.save();
        let tracker =
            Tracker::load(config(&self.folder.join("config.json"), &self.settings)).unwrap();
        Site { tracker, ..self }
    }

    fn save(&self) {
        let mut batch = goat::ledger::Batch {
            number: Rng::from_system().next() >> 1,
            ..Default::default()
        };
        self.tracker
            .swarms
            .each()
            .for_each(|mut shard| batch.add(shard.ledger.take()));
        self.tracker
            .store
            .write(&batch, self.tracker.clock.now())
            .unwrap();
    }

    fn member(&self, name: &str, torrent_limit: u32) -> NewUser {
        let user = self
            .tracker
            .store
            .add_user(name, torrent_limit, false)
            .unwrap();
        assert!(self.tracker.look_up_user(&user.passkey));
        user
    }

    /// So many leechers come to the first torrent, each another member's.
    fn fill(&self, count: u16) {
        let (mut rng, mut peers) = (Rng::new(1), Peers::default());
        for n in 1..=count {
            let user = User::new(1000 + u32::from(n), "", 0, false);
            let now = self.tracker.clock.now();
            announce(
                &self.tracker.config,
                &self.tracker.swarms,
                &user,
                &client(n),
                now,
                &mut rng,
                &mut peers,
            )
            .unwrap();
        }
    }

    /// The whole answer, and whether the database had to be asked for it.
    fn answer(&self, request: &Request) -> (Vec<u8>, bool) {
        let (mut scratch, mut out) = (self.scratch.borrow_mut(), Vec::new());
        let slow = http::answer(&self.tracker, request, &mut scratch, &mut out) == Answer::Slow;
        if slow {
            assert!(out.is_empty(), "what is not answered yet is not begun");
            http::answer_slowly(&self.tracker, request, &mut scratch, &mut out);
        }
        (out, slow)
    }

    fn respond(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        peer: IpAddr,
    ) -> (Vec<u8>, bool) {
        let headers: Vec<httparse::Header> = headers
            .iter()
            .map(|(name, value)| httparse::Header {
                name,
                value: value.as_bytes(),
            })
            .collect();
        self.answer(&Request {
            method,
            target,
            headers: &headers,
            peer,
            keep_alive: true,
        })
    }

    fn ask(&self, target: &str, headers: &[(&str, &str)], peer: IpAddr) -> Bencode {
        body(&self.respond("GET", target, headers, peer).0)
    }

    fn get(&self, target: &str) -> Bencode {
        self.ask(target, &[("User-Agent", AGENT)], HOME)
    }

    fn announce(&self, user: &NewUser, query: Query) -> Bencode {
        self.get(&query.at(&user.passkey))
    }

    fn scrape(&self, hashes: &[InfoHash]) -> Bencode {
        self.get(&Query::scrape(hashes).to(&format!("/{}/scrape", self.alice.passkey)))
    }
}

/// The body of an answer, which is one bencoded dictionary, with status 200 and its length.
fn body(answer: &[u8]) -> Bencode {
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("an end of the head");
    let (head, body) = (
        std::str::from_utf8(&answer[..end]).unwrap(),
        &answer[end + 4..],
    );
    let mut lines = head.split("\r\n");
    assert_eq!(lines.next(), Some("HTTP/1.1 200 OK"));
    let length: Vec<&str> = lines
        .filter_map(|line| line.strip_prefix("Content-Length: "))
        .collect();
    assert_eq!(length, [body.len().to_string()]);
    let body = Bencode::parse(body);
    assert!(matches!(body, Bencode::Dictionary(_)));
    body
}

/// Minutes, or "never".
fn retry_in(answer: &Bencode) -> String {
    match answer.get("retry in") {
        Some(Bencode::Integer(minutes)) => minutes.to_string(),
        _ => answer.text("retry in").to_string(),
    }
}

/// The peers of an answer to `compact=0`, by address.
fn list(answer: &Bencode) -> Vec<Bencode> {
    let Some(Bencode::List(peers)) = answer.get("peers") else {
        panic!("no list of peers in {answer:?}")
    };
    let mut peers = peers.clone();
    peers.sort_by_key(|peer| peer.text("ip").to_string());
    peers
}

/// What a scrape says, by hash.
fn files(answer: &Bencode) -> BTreeMap<Vec<u8>, Bencode> {
    let Some(Bencode::Dictionary(files)) = answer.get("files") else {
        panic!("no files in {answer:?}")
    };
    files.clone()
}

fn ip(bytes: &[u8]) -> IpAddr {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).unwrap().into(),
        _ => <[u8; 16]>::try_from(bytes).expect("4 or 16 bytes").into(),
    }
}

/// Encodes each byte in one of the ways that RFC 3986 and HTML forms allow.
fn encode(bytes: &[u8], ways: &[u8]) -> String {
    let as_it_is = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$'()*,;:@/?=".contains(&byte);
    let one = |(&byte, &way): (&u8, &u8)| match way {
        0 if as_it_is(byte) => char::from(byte).to_string(),
        0 | 1 if byte == b' ' => "+".into(),
        2 => format!("%{byte:02x}"),
        _ => format!("%{byte:02X}"),
    };
    bytes.iter().zip(ways).map(one).collect()
}

/// One of these bytes.
trait PropMapAny {
    fn prop_map_any(self) -> BoxedStrategy<u8>;
}

impl PropMapAny for &'static [u8] {
    fn prop_map_any(self) -> BoxedStrategy<u8> {
        proptest::sample::select(self).boxed()
    }
}

/// Tries a property on so many values, the same each time.
fn check<S: Strategy>(cases: u32, values: S, property: impl Fn(S::Value) -> TestCaseResult) {
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config, rng)
        .run(&values, property)
        .unwrap();
}
