//! Who may announce, how often and how much: each test is a sentence of the rules.

use std::net::IpAddr;

use crate::common::escape;
use crate::world::*;
use goat::protocol::{Announce, Event, MAX_PEERS, Refusal, Scrape, peers_wanted};
use goat::rules::access::{Access, User};
use goat::rules::announce::{self, Admitted};
use goat::store::{NewUser, Suggestion, Torrent};
use goat::torrent::InfoHash;
use proptest::prelude::*;
use serde_json::json;

// ---------------------------------------------------------------------------------------------------
// The checks and their order.

#[test]
fn the_checks_are_made_in_the_order_of_the_rules() {
    let site = Site::new(json!({}));
    site.tracker.put_torrent(&Torrent { verified: false, ..file(2) });
    site.tracker.put_torrent(&file(3));
    site.ban("banned");
    let member = site.add_user("member", 1);
    site.announce_of(&member, Query::new(1));

    // Each request has all the faults of those after it; the first fault is the one that is named.
    let wrong = Query::new(2).set("port", "0").on(9);
    let incomplete = wrong.clone().without("left");
    let nameless = incomplete.clone().set("peer_id", escape(&[0; 20]));
    let right = |torrent| Query::new(2).on(torrent);
    let repeated = Query::new(1).without("event");
    let path = &format!("/{}/announce", member.passkey);
    let requests = [
        (nameless.to("/a/b/announce"), "", "Malformed announce", "never"),
        (nameless.to("/announce"), "", "Your client is not identifying itself", "never"),
        (nameless.to("/announce"), "Unknown/1.0", "Your client is not whitelisted", "never"),
        (incomplete.to("/announce"), "Unknown/1.0", "No passkey found in announce URL", "never"),
        (nameless.to("/announce"), AGENT, "No passkey found in announce URL", "never"),
        (incomplete.to("/banned/announce"), AGENT, "Invalid passkey", "never"),
        (incomplete.to("/nobody/announce"), AGENT, "Invalid passkey", "never"),
        (incomplete.to(path), AGENT, "Missing required parameter: left", "never"),
        (wrong.to(path), AGENT, "Invalid integer parameter: port", "never"),
        (right(9).to(path), AGENT, "Unregistered torrent", "5"),
        (right(2).to(path), AGENT, "Unverified torrent", "5"),
        (right(3).to(path), AGENT, "Exceeded active torrent limit: 2 > 1", "5"),
        (repeated.to(path), AGENT, "Slow down", "1"),
    ];
    for (target, agent, expected, retry) in requests {
        let answer = site.ask(&target, &[("User-Agent", agent)], HOME);
        assert_eq!((reason(&answer), retry_in(&answer)), (expected, retry.into()), "{target}");
    }
}

#[test]
fn a_failure_tells_in_both_intervals_when_another_try_makes_sense() {
    let site = Site::new(json!({ "Interval": 1801 }));
    site.tracker.put_torrent(&Torrent { verified: false, ..file(2) });
    site.announce(Query::new(1));
    let cases = [
        (site.get("/announce"), "never", 1801),
        (site.announce(Query::new(1).set("port", "0")), "never", 1801),
        (site.announce(Query::new(1).on(9)), "5", 300),
        (site.announce(Query::new(1).on(2)), "5", 300),
        (site.announce(Query::new(1).without("event")), "1", 60),
    ];
    for (answer, retry, interval) in cases {
        assert_eq!(answer.keys(), ["failure reason", "interval", "min interval", "retry in"]);
        let intervals = (answer.integer("interval"), answer.integer("min interval"));
        assert_eq!(intervals, (interval, interval), "{answer:?}");
        assert_eq!(retry_in(&answer), retry, "{answer:?}");
    }
}

#[test]
fn a_path_that_is_not_the_trackers_is_a_malformed_announce() {
    let site = Site::new(json!({}));
    let others = "/ // announce /Announce /announces /announce.php
        /a/b /a/b/announce * http://tracker ?/announce /status /%61nnounce";
    let of_alice = ["announces", "", "scrape/announce"].map(|last| site.path(last));
    for path in others.split_whitespace().chain(of_alice.iter().map(String::as_str)).chain([""]) {
        assert_eq!(reason(&site.get(&Query::new(1).to(path))), "Malformed announce", "{path}");
    }
}

#[test]
fn announce_and_scrape_are_found_at_these_paths() {
    let site = Site::new(json!({}));
    assert_eq!(site.get(&Query::new(1).to(&site.path("announce"))).integer("incomplete"), 1);
    assert_eq!(files(&site.get(&Query::scrape(&[hash(1)]).to(&site.path("scrape")))).len(), 1);
    // Empty segments do not count.
    let path = site.path("announce");
    for path in [format!("/{path}"), format!("//{path}/"), path.replace("/announce", "//announce")] {
        assert_eq!(site.get(&Query::new(1).to(&path)).integer("incomplete"), 1, "{path}");
    }
    let public = Site::new(json!({ "Passkey": false }));
    for prefix in ["", "/", "/whatever"] {
        let announce = Query::new(1).to(&format!("{prefix}/announce"));
        assert_eq!(public.get(&announce).integer("incomplete"), 1);
        let scrape = Query::scrape(&[hash(1)]).to(&format!("{prefix}/scrape"));
        assert_eq!(files(&public.get(&scrape)).len(), 1);
    }
}

#[test]
fn a_proxy_may_send_the_whole_url() {
    let site = Site::new(json!({}));
    for host in ["http://tracker", "https://tracker:8443", "http://[2001:db8::1]:8080"] {
        let target = Query::new(1).to(&format!("{host}{}", site.path("announce")));
        assert_eq!(site.get(&target).integer("incomplete"), 1, "{target}");
    }
}

#[test]
fn a_request_without_a_user_agent_is_refused_and_with_a_whitelist_one_with_an_empty_one() {
    let site = Site::new(json!({}));
    let open = Site::new(json!({ "Whitelist": false }));
    let target = Query::new(1).to(&open.path("announce"));
    let refused = "Your client is not identifying itself";
    assert_eq!(reason(&open.ask(&target, &[], HOME)), refused);
    let empty = [("User-Agent", "")];
    assert_eq!(reason(&open.ask(&target, &empty, HOME)), "");
    let announce = Query::new(1).to(&site.path("announce"));
    let scrape = Query::scrape(&[hash(1)]).to(&site.path("scrape"));
    for target in [announce, scrape] {
        for headers in [&[][..], &[("User-Agent", "")], &[("X-User-Agent", AGENT)]] {
            let answer = site.ask(&target, headers, HOME);
            assert_eq!(reason(&answer), refused, "{headers:?}");
        }
        assert_eq!(reason(&site.ask(&target, &[("uSER-aGENT", AGENT)], HOME)), "");
    }
}

#[test]
fn an_approved_prefix_of_the_user_agent_or_of_the_peer_id_lets_a_client_in() {
    let world = World::new(json!({}));
    world.approve(&[b"Good/", b"-GO", "µ".as_bytes()]);
    for agent in ["Good/1.0", "Good/", "µTorrent"] {
        assert!(world.admit(agent, b"-XX1234-............", "alice").is_ok(), "{agent}");
    }
    assert!(world.admit("Bad/1.0", b"-GO1234-............", "alice").is_ok());
    for agent in ["Good", "good/1.0", " Good/1.0", "Bad Good/1.0", "-G", "m"] {
        let refused = world.admit(agent, b"-XX-GO-.............", "alice");
        assert_eq!(refused, Err(Refusal::NotWhitelisted), "{agent}");
    }
}

#[test]
fn over_udp_the_peer_id_alone_must_be_approved() {
    let world = World::new(json!({}));
    world.approve(&[b"-GO"]);
    assert!(world.admit(None, b"-GO1234-............", "alice").is_ok());
    let refused = world.admit(None, b"-XX1234-............", "alice");
    assert_eq!(refused, Err(Refusal::NotWhitelisted));
    assert_eq!(world.access.take_suggestions(), [], "a peer id tells an operator nothing");
}

#[test]
fn with_an_empty_whitelist_nobody_is_let_in() {
    let world = World::new(json!({}));
    assert_eq!(world.admit(AGENT, &[0; 20], "alice"), Err(Refusal::NotWhitelisted));
}

#[test]
fn without_a_whitelist_every_client_is_let_in() {
    let world = World::new(json!({ "Whitelist": false }));
    assert_eq!(world.admit("Mozilla/5.0", &[0; 20], "alice"), Ok(ALICE));
    assert_eq!(world.admit(None, None, "alice"), Ok(ALICE));
    assert_eq!(world.access.take_suggestions(), []);
}

#[test]
fn the_clients_people_use_are_approved_from_the_start() {
    let site = Site::new(json!({}));
    let agents = "qBittorrent/4.6.7|qBittorrent/5.0.1|Transmission/4.0.6|Transmission/2.94|\
        Deluge/2.1.1|Deluge 1.3.15|rtorrent/0.9.8/0.13.8|libtorrent/2.0.10.0|aria2/1.37.0|\
        BiglyBT 3.7.0.0|Azureus 5.7.6.0|KTorrent/23.8.4|Tixati/3.29|uTorrent/3550|\
        µTorrent/3.5.5|WebTorrent/2.5.1";
    let target = Query::new(1).set("peer_id", escape(&[0; 20])).to(&site.path("announce"));
    for agent in agents.split('|') {
        assert_eq!(reason(&site.ask(&target, &[("User-Agent", agent)], HOME)), "", "{agent}");
    }
    // Over UDP there is nothing but the peer id.
    let peer_ids = "-qB4670- -TR4060- -DE211s- -lt0D80- -LT20A0- A2-1-37-0- -BI3700- -AZ5760- \
        -KT3840- TIX0329- -UT3550- -WW0205-";
    for peer_id in peer_ids.split(' ') {
        assert!(site.tracker.access.approves(None, Some(peer_id.as_bytes())), "{peer_id}");
    }
}

#[test]
fn an_announce_url_without_a_passkey_is_refused() {
    let site = Site::new(json!({}));
    for target in [Query::new(1).to("/announce"), Query::scrape(&[hash(1)]).to("/scrape")] {
        assert_eq!(reason(&site.get(&target)), "No passkey found in announce URL");
    }
}

#[test]
fn a_banned_user_is_refused_with_invalid_passkey() {
    let site = Site::new(json!({}));
    site.ban("banned");
    for query in [Query::new(1).to("/banned/announce"), Query::scrape(&[hash(1)]).to("/banned/scrape")] {
        let banned = site.get(&query);
        assert_eq!((reason(&banned), banned.text("retry in")), ("Invalid passkey", "never"));
        let unknown = site.get(&query.replace("banned", "nobody"));
        assert_eq!(banned, unknown, "nobody can tell the passkeys of members by trying");
    }
}

#[test]
fn a_passkey_counts_only_as_a_whole_and_as_written() {
    let site = Site::new(json!({}));
    let key = "0123456789abcdef0123456789abcdef01234567";
    site.tracker.access.put_user(User::new(9, key, 0, false));
    let upper = key.to_uppercase();
    for other in [&key[1..], &key[..39], &format!("{key}0"), &upper, "%20", "'", "' OR 1=1 --"] {
        let target = Query::new(1).to(&format!("/{other}/announce"));
        assert_eq!(reason(&site.get(&target)), "Invalid passkey", "{other}");
    }
}

#[test]
fn a_changed_passkey_replaces_the_old_one() {
    let world = World::new(json!({ "Whitelist": false }));
    world.put_user(ALICE, "new", 0);
    assert_eq!(world.admit(None, None, "new"), Ok(ALICE));
    assert_eq!(world.admit(None, None, "alice"), Err(Refusal::UnknownPasskey));
    // It may become somebody else's, before or after its owner is known to have another.
    world.put_user(BOB, "new", 0);
    world.put_user(ALICE, "newer", 0);
    assert_eq!(world.admit(None, None, "new"), Ok(BOB));
    assert_eq!(world.admit(None, None, "newer"), Ok(ALICE));
    assert_eq!(world.admit(None, None, "bob"), Err(Refusal::UnknownPasskey));
}

#[test]
fn a_user_who_was_removed_is_refused_with_invalid_passkey() {
    let world = World::new(json!({ "Whitelist": false }));
    world.access.remove_user(ALICE);
    assert_eq!(world.admit(None, None, "alice"), Err(Refusal::UnknownPasskey));
    assert_eq!(Refusal::UnknownPasskey.to_string(), "Invalid passkey");
}

#[test]
fn a_torrent_must_be_known_and_verified() {
    let world = World::new(json!({}));
    assert_eq!(world.refusal(ALICE, client(1).on(2)), "Unregistered torrent");
    world.put_torrent(2, false);
    assert_eq!(world.refusal(ALICE, client(1).on(2)), "Unverified torrent");
    world.put_torrent(2, true);
    assert_eq!(world.refusal(ALICE, client(1).on(2)), "");
}

#[test]
fn without_verified_a_torrent_need_only_be_known() {
    let world = World::new(json!({ "Verified": false }));
    assert_eq!(world.refusal(ALICE, client(1).on(2)), "Unregistered torrent");
    world.put_torrent(2, false);
    assert_eq!(world.refusal(ALICE, client(1).on(2)), "");
    assert_eq!(world.counts(2), (0, 1, 1));
}

#[test]
fn a_torrent_whose_verification_is_taken_back_is_refused_at_the_next_announce_but_may_be_left() {
    let world = World::new(json!({ "SlowDown": 0 }));
    world.announce(ALICE, client(1)).unwrap();
    world.put_torrent(1, false);
    assert_eq!(world.refusal(ALICE, client(1).regular()), "Unverified torrent");
    assert_eq!(world.refusal(BOB, client(2).stopped()), "Unverified torrent", "no session");
    assert_eq!(world.scrape(1), None);
    assert_eq!(world.refusal(ALICE, client(1).stopped()), "");
    assert_eq!(world.members(1), [""; 0]);
}

#[test]
fn who_was_banned_may_still_end_a_session_that_was_there_before() {
    let world = World::new(json!({}));
    world.announce(ALICE, client(1)).unwrap();
    world.access.put_user(User::new(ALICE, "alice", 0, true));
    world.drop_user(ALICE);
    let refused = "Invalid passkey";
    assert_eq!(world.refusal(ALICE, client(1).regular()), refused);
    assert_eq!(world.refusal(ALICE, client(2).stopped()), refused, "no session");
    assert_eq!(world.refusal(ALICE, client(1).stopped().moved(5, 5)), "");
    assert_eq!(world.members(1), [""; 0], "nobody comes back");
}

#[test]
fn a_stop_of_a_session_that_is_there_is_never_refused() {
    let put_member = |site: &Site, torrent_limit, banned| {
        let alice = &site.alice;
        let user = User::new(alice.id, &alice.passkey, torrent_limit, banned);
        site.tracker.access.put_user(user);
    };
    let regular = Query::new(1).without("event");
    type Happen<'a> = &'a dyn Fn(&Site);
    let cases: [(&str, Happen, Query); 7] = [
        (
            "Unverified torrent",
            &|site| {
                site.tracker.put_torrent(&Torrent { verified: false, refused: true, ..file(1) });
            },
            regular.clone(),
        ),
        ("Your client is not whitelisted", &|site| site.tracker.access.set_clients(Vec::new()), regular.clone()),
        ("Invalid passkey", &|site| put_member(site, 0, true), regular.clone()),
        ("Slow down", &|_| {}, regular.clone()),
        (
            "Slow down",
            &|site| {
                (2..=32).for_each(|n| drop(site.announce(Query::new(n))));
            },
            Query::new(33),
        ),
        ("Exceeded active torrent limit: 2 > 1", &|site| put_member(site, 1, false), Query::new(1).on(2)),
        ("Invalid integer parameter: port", &|_| {}, regular.clone().set("port", "0")),
    ];
    for (refusal, happen, refused) in cases {
        let site = Site::new(json!({}));
        site.tracker.put_torrent(&file(2));
        site.announce(Query::new(1));
        happen(&site);
        assert_eq!(site.refusal(refused.clone()), refusal);
        let stop = refused.on(1).set("peer_id", peer_id(1)).set("event", "stopped");
        assert_eq!(site.refusal(stop), "", "{refusal}");
        let shard = site.tracker.swarms.shard(&hash(1));
        let swarm = shard.torrents[&hash(1)].swarm.as_deref();
        let there = swarm.and_then(|swarm| swarm.find(site.alice.id, &client(1).peer_id));
        assert_eq!(there, None, "{refusal}");
    }
}

#[test]
fn who_was_banned_while_goat_was_away_may_still_end_a_session() {
    let site = Site::new(json!({}));
    let bob = site.add_user("bob", 0);
    site.announce_of(&bob, Query::new(2));
    site.save();
    site.database.sql("UPDATE users SET banned = 1 WHERE username = 'bob'");
    let site = site.restart();
    let stop = Query::new(2).set("uploaded", "5").set("event", "stopped");
    assert_eq!(reason(&site.announce_of(&bob, stop)), "");
    site.save();
    let sql = "SELECT uploaded FROM users WHERE username = 'bob'";
    assert_eq!(site.database.sql(sql), [["5"]]);
}

#[test]
fn who_is_banned_or_removed_while_they_announce_does_not_come_back_into_the_swarm() {
    let gone: [&dyn Fn(&World); 2] =
        [&|world| world.access.put_user(User::new(ALICE, "alice", 0, true)), &|world| world.access.remove_user(ALICE)];
    for leave in gone {
        let world = World::new(json!({}));
        let who = Admitted { user: world.access.by_id(ALICE).unwrap(), refusal: None };
        leave(&world);
        world.drop_user(ALICE);
        let mut buffers = world.buffers.borrow_mut();
        let answer = announce::announce(&world.config, &world.swarms, &who, &client(1), NOW, &mut buffers);
        assert_eq!(answer.err(), Some(Refusal::Banned));
        assert_eq!((world.counts(1), who.user.active()), ((0, 0, 0), 0));
    }
}

#[test]
fn who_is_refused_registers_no_torrent_by_saying_stopped() {
    let site = Site::new(json!({ "Verified": false }));
    let stop = Query::new(1).on(9).set("event", "stopped");
    let target = |passkey: &str| stop.to(&format!("/{passkey}/announce"));
    let bob = site.add_user("bob", 0);
    let banned = User::new(bob.id, &bob.passkey, 0, true);
    site.tracker.access.put_user(banned);
    assert_eq!(reason(&site.get(&target(&bob.passkey))), "Invalid passkey");
    let stranger = [("User-Agent", "Unknown/1.0")];
    let strange = stop.clone().set("peer_id", "x".repeat(20));
    let answer = site.ask(&strange.to(&site.path("announce")), &stranger, HOME);
    assert_eq!(reason(&answer), "Your client is not whitelisted");
    assert_eq!(site.database.sql("SELECT COUNT(*) FROM files"), [["1"]]);
}

#[test]
fn the_second_hash_of_a_hybrid_is_answered_with_its_counts_and_no_peers_and_nothing_is_booked() {
    let world = World::new(json!({}));
    let second = hash(77);
    world.swarms.shard(&second).seconds.insert(second, hash(1));
    world.announce(BOB, client(2).seeding()).unwrap();
    let unwritten = world.unwritten();
    let (reply, peers) = world.announce(ALICE, client(1).on(77)).unwrap();
    assert_eq!((reply.complete, reply.incomplete, peers), (1, 0, vec![]));
    assert_eq!((world.unwritten(), world.active(ALICE)), (unwritten, 0));
    assert_eq!(world.scrape(77), world.scrape(1));
    world.put_torrent(1, false);
    assert_eq!(world.refusal(ALICE, client(1).on(77)), "Unverified torrent");
}

// ---------------------------------------------------------------------------------------------------
// The parameters of an announce.

#[test]
fn every_required_parameter_that_is_missing_is_named() {
    let site = Site::new(json!({}));
    for name in REQUIRED {
        let answer = site.announce(Query::new(1).without(name));
        assert_eq!(reason(&answer), format!("Missing required parameter: {name}"));
        assert_eq!(answer.text("retry in"), "never");
    }
}

#[test]
fn of_several_missing_parameters_the_first_is_named() {
    let site = Site::new(json!({}));
    for (count, first) in REQUIRED.into_iter().enumerate() {
        let query = Query(Query::new(1).0.into_iter().take(count).collect());
        let expected = format!("Missing required parameter: {first}");
        assert_eq!(site.refusal(query), expected);
    }
}

#[test]
fn what_is_missing_is_named_before_what_is_wrong() {
    let site = Site::new(json!({}));
    let wrong = Query::new(1).set("info_hash", "x").set("port", "x").set("numwant", "x");
    assert_eq!(site.refusal(wrong.without("left")), "Missing required parameter: left");
}

#[test]
fn an_info_hash_or_a_peer_id_that_is_not_20_bytes_is_invalid() {
    let site = Site::new(json!({}));
    let lengths = [0, 1, 19, 21, 40, 7000].map(|length| "x".repeat(length));
    let escapes = ["%", "%0", "%zz", "%+1", "%-1", "% 1"].map(String::from);
    let others = ["%21".repeat(21), "x".repeat(20) + "%4", "%4".repeat(20), "é".repeat(20)];
    for name in ["info_hash", "peer_id"] {
        for value in lengths.iter().chain(&escapes).chain(&others) {
            let answer = site.announce(Query::new(1).set(name, value));
            assert_eq!(reason(&answer), format!("Invalid parameter: {name}"), "{value}");
            assert_eq!(answer.text("retry in"), "never");
        }
    }
}

#[test]
fn a_port_is_a_number_from_1_to_65535() {
    let site = Site::new(json!({}));
    let wrong = "0 65536 -1 4294967297 18446744073709551616 6881.0 0x1ae1 port %20 6881%zz";
    for port in wrong.split(' ').chain([""]) {
        let refusal = site.refusal(Query::new(1).set("port", port));
        assert_eq!(refusal, "Invalid integer parameter: port", "{port}");
    }
    assert_eq!(site.refusal(Query::new(1).set("port", "1")), "");
    assert_eq!(site.refusal(Query::new(2).set("port", "65535")), "");
}

#[test]
fn who_stops_may_name_any_port() {
    let site = Site::new(json!({}));
    for port in ["0", "65536", "18446744073709551615"] {
        let query = Query::new(1).set("port", port);
        let refused = "Invalid integer parameter: port";
        assert_eq!(site.refusal(query.clone()), refused, "{port}");
        assert_eq!(site.refusal(Query::new(1)), "");
        assert_eq!(site.refusal(query.set("event", "stopped")), "", "{port}");
        let there = site.announce(Query::new(2));
        assert_eq!(there.peers(), [], "{port}");
    }
    let stop = Query::new(1).set("event", "stopped");
    let refused = "Invalid integer parameter: port";
    assert_eq!(site.refusal(stop.clone().set("port", "any")), refused);
    let missing = "Missing required parameter: port";
    assert_eq!(site.refusal(stop.without("port")), missing);
}

#[test]
fn a_space_behind_a_value_does_not_count() {
    let site = Site::new(json!({}));
    for (n, space) in (1..).zip(["%20", "+", "%20%20+"]) {
        for name in REQUIRED.into_iter().chain(["numwant", "event", "compact"]) {
            let value = match name {
                "info_hash" => escape(&hash(1).0),
                "peer_id" => escape(&client(n).peer_id.0),
                "event" => "started".into(),
                _ => "1".into(),
            };
            let query = Query::new(n).set(name, value + space);
            let answer = site.announce(query);
            assert_eq!(reason(&answer), "", "{name}, {space:?}");
            assert_eq!(answer.integer("incomplete"), i64::from(n), "{name}, {space:?}");
        }
    }
    // One that belongs to the 20 bytes does.
    let info_hash = InfoHash(*b"ends with a space   ");
    site.tracker.put_torrent(&Torrent { info_hash, ..file(2) });
    let written = "ends%20with+a%20space+%20%20";
    let query = Query::new(1).set("info_hash", written);
    assert_eq!(site.refusal(query), "");
}

#[test]
fn a_counter_is_a_whole_number_of_64_bits() {
    let site = Site::new(json!({}));
    for name in ["uploaded", "downloaded", "left"] {
        for value in "-1 18446744073709551616 1.5 1e3 many +1 %2B1 %201 1%00 1%zz".split(' ').chain([""]) {
            let answer = site.announce(Query::new(1).set(name, value));
            assert_eq!(reason(&answer), format!("Invalid integer parameter: {name}"), "{value}");
            assert_eq!(answer.text("retry in"), "never");
        }
        for value in ["0", "9223372036854775808", "18446744073709551615"] {
            assert_eq!(site.refusal(Query::new(1).set(name, value)), "", "{name}={value}");
        }
    }
}

#[test]
fn numwant_is_a_number_of_64_bits_that_may_be_negative_or_nothing() {
    let site = Site::new(json!({}));
    for value in
        ["9223372036854775808", "-9223372036854775809", "all", "%zz", "%ff", "%315555555555555555555555", "5.0"]
    {
        let refusal = site.refusal(Query::new(1).set("numwant", value));
        assert_eq!(refusal, "Invalid integer parameter: numwant", "{value}");
    }
    let good = "-9223372036854775808 -1 0 9223372036854775807 %20";
    for value in good.split(' ').chain([""]) {
        assert_eq!(site.refusal(Query::new(1).set("numwant", value)), "", "{value}");
    }
    site.fill(60);
    let peers = |query| site.announce(query).peers().len();
    assert_eq!(peers(Query::new(1).set("numwant", "")), 50, "as if absent");
    let first = Query::new(1).set("numwant", "").and("numwant", "7");
    assert_eq!(peers(first), 50, "the first counts");
}

#[test]
fn numwant_is_50_if_absent_or_negative_and_at_most_200() {
    let cases = [(0, 0), (1, 1), (200, 200), (201, 200), (i64::MAX, 200), (-1, 50), (i64::MIN, 50)];
    for (numwant, expected) in cases {
        assert_eq!(peers_wanted(Some(numwant), MAX_PEERS), expected, "{numwant}");
        let over_udp = peers_wanted(Some(numwant), 74);
        assert_eq!(over_udp, expected.min(74), "so many IPv6 addresses fit one packet");
    }
    assert_eq!(peers_wanted(None, MAX_PEERS), 50);
}

#[test]
fn an_unknown_event_is_a_regular_announce() {
    let site = Site::new(json!({}));
    for (n, event) in (1..).zip(["", "empty", "STARTED", "paused%20", "%00"]) {
        let query = Query::new(n).set("event", event);
        assert_eq!(site.refusal(query.clone()), "", "event={event}");
        assert_eq!(site.refusal(query), "Slow down", "event={event}");
    }
}

#[test]
fn of_a_repeated_parameter_the_first_counts() {
    let site = Site::new(json!({}));
    site.announce(Query::new(1));
    for (name, second) in [("info_hash", "x"), ("peer_id", "x"), ("port", "0"), ("left", "-1")] {
        assert_eq!(site.refusal(Query::new(2).and(name, second)), "", "{name}");
    }
    assert_eq!(site.announce(Query::new(2).and("left", "0")).integer("complete"), 0);
    assert_eq!(site.announce(Query::new(2).and("event", "stopped")).peers().len(), 1);
    assert_eq!(site.announce(Query::new(2).set("numwant", "0").and("numwant", "1")).peers(), []);
    for (name, first, second) in [("port", "0", "1"), ("numwant", "x", "1"), ("uploaded", "", "1")] {
        let refusal = site.refusal(Query::new(2).set(name, first).and(name, second));
        assert_eq!(refusal, format!("Invalid integer parameter: {name}"));
    }
}

#[test]
fn of_a_repeated_compact_or_no_peer_id_the_first_counts() {
    let site = Site::new(json!({}));
    site.announce(Query::new(1));
    let compact = site.announce(Query::new(2).set("compact", "1").and("compact", "0"));
    assert_eq!(compact.peers().len(), 1);
    let query = Query::new(2).set("compact", "0").set("no_peer_id", "1");
    let listed = site.announce(query.and("compact", "1").and("no_peer_id", "0"));
    assert_eq!(list(&listed)[0].keys(), ["ip", "port"]);
}

#[test]
fn parameters_nobody_knows_are_ignored_however_long() {
    let site = Site::new(json!({}));
    let good = &Query::new(1).to("")[1..];
    let path = site.path("announce");
    for junk in ["", "&", "key=&&=&x=%&supportcrypto=1", &"x=y&".repeat(1700), &"%".repeat(7000)] {
        for query in [format!("{junk}&{good}"), format!("{good}&{junk}")] {
            assert_eq!(reason(&site.get(&format!("{path}?{query}"))), "", "{:.40}", junk);
        }
    }
}

#[test]
fn a_plus_sign_is_a_space_and_2b_is_a_plus_sign() {
    let site = Site::new(json!({}));
    let info_hash = InfoHash(*b" + 0123456789 ++ xyz");
    site.tracker.put_torrent(&Torrent { info_hash, ..file(2) });
    for written in ["+%2B+0123456789+%2B%2B+xyz", "%20%2b%200123456789%20%2B%2b%20xyz"] {
        assert_eq!(site.refusal(Query::new(1).set("info_hash", written)), "", "{written}");
    }
    let spaces = Query::new(1).set("info_hash", "+++0123456789++++xyz");
    assert_eq!(site.refusal(spaces), "Unregistered torrent");
}

#[test]
fn any_bytes_encoded_in_any_legal_way_are_themselves() {
    let site = Site::new(json!({}));
    let special = proptest::sample::select(b"\0 %&+=?#;/\x7f\x80\xff".to_vec());
    let bytes = proptest::collection::vec(prop_oneof![any::<u8>(), special], 20);
    let ways = proptest::collection::vec(0..4u8, 20);
    let values = (bytes.clone(), ways.clone(), bytes, ways);
    check(400, values, |(info_hash, way, peer_id, another_way)| {
        let hash = InfoHash(info_hash.clone().try_into().unwrap());
        site.tracker.put_torrent(&Torrent { info_hash: hash, ..file(2) });
        let query = Query::new(1).set("info_hash", encode(&info_hash, &way));
        let refusal = site.refusal(query.set("peer_id", encode(&peer_id, &another_way)));
        prop_assert_eq!(refusal, "");

        let query = Query::new(2).set("info_hash", escape(&info_hash)).set("compact", "0");
        let peers = list(&site.announce(query));
        prop_assert_eq!(peers.len(), 1);
        prop_assert_eq!(peers[0].bytes("peer id"), peer_id);

        let query = format!("?info_hash={}", encode(&info_hash, &another_way));
        let files = files(&site.get(&(site.path("scrape") + &query)));
        prop_assert_eq!(files.into_keys().collect::<Vec<_>>(), [info_hash]);
        site.tracker.remove_torrent(&hash);
        Ok(())
    });
}

/// Encodes each byte in one of the ways that RFC 3986 and HTML forms allow.
fn encode(bytes: &[u8], ways: &[u8]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$'()*,;:@/?=".contains(&byte);
    let one = |(&byte, &way): (&u8, &u8)| match way {
        0 if plain(byte) => char::from(byte).to_string(),
        0 | 1 if byte == b' ' => "+".into(),
        2 => format!("%{byte:02x}"),
        _ => format!("%{byte:02X}"),
    };
    bytes.iter().zip(ways).map(one).collect()
}

/// RFC 3986, section 2.3: an unreserved character is the same with and without an escape.
#[test]
fn names_numbers_and_events_may_be_percent_encoded_too() {
    let site = Site::new(json!({}));
    site.announce(Query::new(1));
    let port = site.refusal(Query::new(2).set("port", "%36881"));
    let name = site.refusal(Query::new(2).without("port").set("%70ort", "6881"));
    let peers = site.announce(Query::new(2).set("event", "%73topped")).peers();
    let name = name.as_str();
    assert_eq!((port.as_str(), name, peers), ("", "", vec![]), "port, name, who stops gets no peers");
}

#[test]
fn no_request_whatever_it_says_is_answered_with_anything_but_a_dictionary() {
    let site = Site::new(json!({}));
    let paths = ["announce", "scrape"].map(|last| site.path(last));
    let other_paths = ["/announce", "/scrape", "http://tracker/announce"].map(String::from);
    let paths = proptest::sample::select([&paths[..], &paths, &other_paths].concat());
    let path = prop_oneof![6 => paths, 1 => "\\PC{0,20}", 1 => "[/a-z%.]{0,30}"];
    let names = ["numwant", "event", "compact", "no_peer_id", "ip", ""].map(String::from);
    let names = proptest::sample::select([&REQUIRED.map(String::from)[..], &names].concat());
    let name = prop_oneof![9 => names, 1 => "\\PC{0,8}"];
    let events = ["started", "stopped", "completed", "paused"].map(String::from);
    let value = prop_oneof![
        Just(escape(&hash(1).0)),
        Just(peer_id(1)),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        (0..3u8).prop_map(|n| n.to_string()),
        proptest::sample::select(events.to_vec()),
        "\\PC{0,25}",
        "(%[0-9a-fA-F]{0,2}|\\+|[ -~]){0,25}",
    ];
    let pair = (name, value).prop_map(|(name, value)| format!("{name}={value}"));
    let pairs = proptest::collection::vec(pair, 0..12);
    let target = (path, pairs).prop_map(|(path, pairs)| format!("{path}?{}", pairs.join("&")));
    let target = prop_oneof![9 => target, 1 => "\\PC{0,200}"];
    let junk = proptest::collection::vec(any::<u8>(), 0..40);
    let header = prop_oneof![
        4 => Just(("User-Agent", AGENT.as_bytes().to_vec())),
        1 => junk.clone().prop_map(|value| ("User-Agent", value)),
        1 => junk.prop_map(|value| ("X-Forwarded-For", value)),
    ];
    let headers = proptest::collection::vec(header, 0..4);
    let peer = proptest::sample::select(vec![HOME, HOME6, IpAddr::from([127, 0, 0, 1])]);

    check(2000, (target, headers, peer), |(target, headers, peer)| {
        let headers = headers.iter().map(|(name, value)| httparse::Header { name, value });
        let headers = &headers.collect::<Vec<_>>();
        let (method, target) = ("GET", &target);
        let request = goat::net::message::Request {
            method,
            target,
            headers,
            peer,
            keep_alive: true,
            old: false,
            secure: false,
            length: 0,
            begun: b"",
        };
        let answer = body(&site.answer(&request).0);
        let kinds = ["failure reason", "peers", "files"].map(|key| answer.get(key));
        prop_assert_eq!(kinds.into_iter().flatten().count(), 1);
        Ok(())
    });
}

// ---------------------------------------------------------------------------------------------------
// How many torrents and clients.

#[test]
fn the_eleventh_torrent_of_a_user_who_may_have_ten_is_refused() {
    let world = World::limited(10);
    (1..=11).for_each(|n| world.put_torrent(n, true));
    (1..=10).for_each(|n| drop(world.announce(ALICE, client(1).on(n)).unwrap()));
    let refused = world.announce(ALICE, client(1).on(11)).unwrap_err();
    assert_eq!(refused.to_string(), "Exceeded active torrent limit: 11 > 10");
    assert_eq!(refused.retry_in(), Some(5));
    assert_eq!(world.scrape(11), Some(Scrape::default()), "who is refused is not in the swarm");
    assert_eq!(world.refusal(ALICE, client(1).on(10).completed()), "", "the ten go on");
}

#[test]
fn a_torrent_limit_of_0_is_none() {
    let world = World::limited(0);
    for n in 1..=300 {
        world.put_torrent(n, true);
        world.announce(ALICE, client(1).on(n)).unwrap();
    }
    assert_eq!(world.active(ALICE), 300);
}

#[test]
fn a_stop_frees_the_slot() {
    let world = World::limited(1);
    world.announce(ALICE, client(1)).unwrap();
    assert_ne!(world.refusal(ALICE, client(1).on(2)), "");
    world.announce(ALICE, client(1).stopped()).unwrap();
    assert_eq!(world.refusal(ALICE, client(1).on(2)), "");
}

#[test]
fn a_stop_of_a_client_that_was_not_there_frees_nothing() {
    let world = World::limited(1);
    world.announce(ALICE, client(1)).unwrap();
    for n in 1..10 {
        world.announce(ALICE, client(n + 1).stopped()).unwrap();
        world.announce(ALICE, client(n).on(2).stopped()).unwrap();
    }
    assert_eq!(world.active(ALICE), 1);
    assert_ne!(world.refusal(ALICE, client(1).on(2)), "");
}

#[test]
fn a_client_that_falls_silent_frees_the_slot() {
    let world = World::limited(1);
    world.announce(ALICE, client(1)).unwrap();
    world.wait(2 * INTERVAL + 1);
    world.expire();
    assert_eq!(world.refusal(ALICE, client(1).on(2)), "");
}

#[test]
fn the_limit_counts_torrents_not_clients() {
    let world = World::limited(1);
    (1..=5).for_each(|n| drop(world.announce(ALICE, client(n)).unwrap()));
    assert_eq!(world.active(ALICE), 1);
    (1..=4).for_each(|n| drop(world.announce(ALICE, client(n).stopped()).unwrap()));
    assert_ne!(world.refusal(ALICE, client(1).on(2)), "", "one of the five is still there");
    world.announce(ALICE, client(5).stopped()).unwrap();
    assert_eq!(world.refusal(ALICE, client(1).on(2)), "");
}

#[test]
fn two_clients_on_a_torrent_that_fall_silent_together_free_one_slot() {
    let world = World::limited(2);
    world.announce(ALICE, client(1)).unwrap();
    world.announce(ALICE, client(2)).unwrap();
    world.wait(2 * INTERVAL);
    world.announce(ALICE, client(1).on(2)).unwrap();
    world.wait(1);
    world.expire();
    assert_eq!(world.active(ALICE), 1, "on the second torrent");
}

#[test]
fn a_user_who_was_banned_and_is_let_in_again_has_all_slots_free_and_no_more() {
    let world = World::limited(1);
    world.announce(ALICE, client(1)).unwrap();
    world.announce(ALICE, client(2)).unwrap();
    world.drop_user(ALICE);
    assert_eq!(world.active(ALICE), 0);
    world.announce(ALICE, client(1)).unwrap();
    assert_ne!(world.refusal(ALICE, client(1).on(2)), "");
}

#[test]
fn a_torrent_that_is_removed_frees_the_slots_of_its_users() {
    let site = Site::new(json!({}));
    site.tracker.put_torrent(&file(2));
    let member = site.add_user("member", 1);
    site.announce_of(&member, Query::new(1));
    site.announce_of(&member, Query::new(2));
    assert_ne!(reason(&site.announce_of(&member, Query::new(1).on(2))), "");
    site.tracker.remove_torrent(&hash(1));
    assert_eq!(reason(&site.announce_of(&member, Query::new(1).on(2))), "");
    assert_eq!(site.tracker.access.by_id(member.id).unwrap().active(), 1);
}

#[test]
fn a_limit_that_changes_counts_what_is_active_already() {
    let world = World::limited(1);
    world.announce(ALICE, client(1)).unwrap();
    world.put_user(ALICE, "alice", 2);
    assert_eq!(world.refusal(ALICE, client(1).on(2)), "");
    let refusal = world.refusal(ALICE, client(1).on(3));
    assert_eq!(refusal, "Exceeded active torrent limit: 3 > 2");
}

#[test]
fn the_33rd_client_of_one_user_on_one_torrent_is_told_to_slow_down() {
    let world = World::limited(0);
    (1..=32).for_each(|n| drop(world.announce(ALICE, client(n)).unwrap()));
    assert_eq!(world.refusal(ALICE, client(33)), "Slow down");
    assert_eq!(world.counts(1), (0, 32, 32));
    assert_eq!(world.refusal(ALICE, client(32).completed()), "", "a client that is there");
    assert_eq!(world.refusal(ALICE, client(33).on(2)), "", "another torrent");
    assert_eq!(world.refusal(BOB, client(33)), "", "another user");
    world.announce(ALICE, client(1).stopped()).unwrap();
    assert_eq!(world.refusal(ALICE, client(33)), "", "one has left");
}

#[test]
fn a_member_may_begin_twice_that_many_sessions_on_a_torrent_within_an_interval() {
    let world = World::limited(2);
    for n in 1..=64 {
        assert_eq!(world.refusal(ALICE, client(n)), "");
        assert_eq!(world.refusal(ALICE, client(n).stopped()), "");
    }
    assert_eq!(world.refusal(ALICE, client(65)), "Slow down");
    assert_eq!(world.refusal(ALICE, client(65).stopped()), "Slow down");
    assert_eq!((world.active(ALICE), world.counts(1)), (0, (0, 0, 0)));
    assert_eq!(world.refusal(ALICE, client(7)), "", "a session that was begun");
    assert_eq!(world.refusal(ALICE, client(65).on(2)), "", "another torrent");
    assert_eq!(world.refusal(BOB, client(65)), "", "another user");
    world.wait(3600);
    assert_eq!(world.refusal(ALICE, client(65)), "", "in the next Interval");
}

#[test]
fn without_passkeys_an_address_may_begin_twice_that_many_sessions_on_a_torrent() {
    let world = World::new(json!({ "Passkey": false, "Clients": 3 }));
    let from = |n: u16, ip: &str| Announce { ip: ip.parse().unwrap(), ..client(n) };
    for (n, ip) in (1..=6).zip(["2001:db8::1", "2001:db8::2"].into_iter().cycle()) {
        assert_eq!(world.refusal(0, from(n, ip)), "");
    }
    assert_eq!(world.refusal(0, from(7, "2001:db8::3")), "Slow down");
    assert_eq!(world.refusal(0, from(7, "2001:db8:0:1::3")), "");
    assert_eq!(world.refusal(0, from(8, "192.0.2.1")), "");
}

#[test]
fn after_20_unknown_passkeys_in_a_minute_the_database_is_not_asked_for_an_address_and_members_never_notice() {
    let guess = |site: &Site, n: u32, ip: &str| {
        let target = Query::new(1).to(&format!("/{n:040x}/announce"));
        let headers = [("User-Agent", AGENT), ("X-Forwarded-For", ip)];
        let (answer, turns) = site.respond(&target, &headers, "10.0.0.1".parse().unwrap());
        assert_eq!(reason(&body(&answer)), "Invalid passkey");
        turns > 0
    };
    let asked = |site: &Site, ip: &str| (0..1000).filter(|n| guess(site, *n, ip)).count();
    let site = Site::new(json!({ "TrustedProxies": ["10.0.0.0/8"] }));
    assert_eq!(asked(&site, "192.0.2.1"), 20);
    let home = "192.0.2.1".parse().unwrap();
    assert_eq!(reason(&site.announce_from(home, Query::new(1))), "");
    assert_eq!(asked(&site, "192.0.2.2"), 20);
    let refused = &site.tracker.limits.refused_passkeys;
    assert_eq!(refused.report().as_deref(), Some("1960, of 192.0.2.1, 192.0.2.2"));
    assert_eq!(refused.report(), None);
    // Of one /48 each /64 has as many, but all of them no more than four.
    let site = Site::new(json!({ "TrustedProxies": ["10.0.0.0/8"] }));
    let networks = (1..=6).map(|n| asked(&site, &format!("2001:db8:0:{n}::1")));
    assert_eq!(networks.collect::<Vec<_>>(), [20, 20, 20, 20, 0, 0]);
}

#[test]
fn without_passkeys_any_number_of_clients_may_be_on_a_torrent() {
    let world = World::new(json!({ "Passkey": false }));
    (1..=200).for_each(|n| drop(world.announce(0, client(n)).unwrap()));
    assert_eq!(world.counts(1), (0, 200, 200));
}

// ---------------------------------------------------------------------------------------------------
// How often.

#[test]
fn who_announces_again_too_soon_is_told_to_slow_down() {
    let world = World::new(json!({}));
    world.announce(ALICE, client(1)).unwrap();
    for again in [client(1).regular(), client(1).paused(), client(1).seeding().regular()] {
        let refused = world.announce(ALICE, again).unwrap_err();
        assert_eq!((refused.to_string().as_str(), refused.retry_in()), ("Slow down", Some(1)));
    }
}

#[test]
fn started_stopped_and_completed_are_never_too_soon() {
    let world = World::new(json!({}));
    for _ in 0..10 {
        for event in [Event::Started, Event::Completed, Event::Stopped] {
            assert_eq!(world.refusal(ALICE, client(1).says(event)), "");
        }
    }
}

#[test]
fn the_second_address_family_of_a_session_is_not_too_soon() {
    let world = World::new(json!({}));
    world.announce(ALICE, client(1)).unwrap();
    assert_eq!(world.refusal(ALICE, client(1).over_v6().regular()), "");
    assert_eq!(world.refusal(ALICE, client(1).over_v6().regular()), "Slow down");
    assert_eq!(world.refusal(ALICE, client(1).regular()), "Slow down");
}

#[test]
fn another_address_of_a_session_of_one_family_too_is_not_too_soon() {
    for v6 in [false, true] {
        let world = World::new(json!({}));
        let home = if v6 { client(1).over_v6() } else { client(1) };
        let away = if v6 { client(2).over_v6() } else { client(2) }.ip;
        world.announce(ALICE, home.clone()).unwrap();
        let regular = home.clone().at(away).regular();
        assert_eq!(world.refusal(ALICE, regular.clone()), "");
        assert_eq!(world.refusal(ALICE, regular.clone()), "Slow down");
        let back = home.clone().regular();
        assert_eq!(world.refusal(ALICE, back.clone()), "Slow down");
        assert_eq!(world.refusal(ALICE, client(3).regular()), "", "another");
        // Each address has a pace of its own.
        world.wait(98);
        assert_eq!(world.refusal(ALICE, back.clone()), "Slow down");
        assert_eq!(world.refusal(ALICE, regular.clone()), "Slow down");
        world.wait(1);
        assert_eq!(world.refusal(ALICE, regular.clone()), "");
        world.wait(50);
        for _ in 0..5 {
            assert_eq!(world.refusal(ALICE, back.clone()), "");
            world.wait(50);
            assert_eq!(world.refusal(ALICE, regular.clone()), "");
            world.wait(50);
        }
        assert_eq!(world.counts(1), (0, 2, 2), "one session");
    }
}

#[test]
fn another_client_user_or_torrent_is_not_too_soon() {
    let world = World::limited(0);
    world.announce(ALICE, client(1)).unwrap();
    assert_eq!(world.refusal(ALICE, client(2).at(client(1).ip).regular()), "");
    assert_eq!(world.refusal(BOB, client(1).regular()), "");
    assert_eq!(world.refusal(ALICE, client(1).on(2).regular()), "");
}

#[test]
fn too_soon_is_within_a_third_of_the_min_interval() {
    let world = World::new(json!({}));
    assert_eq!(world.reply(ALICE, client(1)).min_interval, 300);
    world.wait(98);
    assert_eq!(world.refusal(ALICE, client(1).regular()), "Slow down");
    world.wait(1);
    assert_eq!(world.refusal(ALICE, client(1).regular()), "", "a refusal prolongs nothing");
}

#[test]
fn with_a_slow_down_of_0_nobody_is_too_soon() {
    let world = World::new(json!({ "SlowDown": 0 }));
    (0..10).for_each(|_| assert_eq!(world.refusal(ALICE, client(1).regular()), ""));
}

#[test]
fn a_leecher_who_waits_the_min_interval_and_is_a_seeder_then_is_not_too_soon() {
    let world = World::new(json!({}));
    let told = world.reply(ALICE, client(1)).min_interval;
    world.wait(told);
    let refusal = world.refusal(ALICE, client(1).seeding().regular());
    assert_eq!(refusal, "", "after {told} seconds, as it was told");
}

#[test]
fn a_seeder_who_waits_the_min_interval_is_not_too_soon() {
    let world = World::new(json!({ "SlowDown": 100 }));
    for n in 1..=100 {
        let told = world.reply(BOB + u32::from(n), client(n).seeding()).min_interval;
        world.wait(told);
        let refusal = world.refusal(BOB + u32::from(n), client(n).seeding().regular());
        assert_eq!(refusal, "", "after {told} seconds, as it was told");
    }
}

#[test]
fn who_is_refused_changes_nothing() {
    let world = World::limited(0);
    world.put_user(BOB, "bob", 1);
    world.announce(ALICE, client(1)).unwrap();
    world.announce(BOB, client(2).on(2)).unwrap();
    let before = (world.members(1), world.counts(1), world.unwritten());
    world.wait(10);
    assert_ne!(world.refusal(ALICE, client(1).moved(7, 7).seeding().regular()), "");
    assert_ne!(world.refusal(BOB, client(2)), "");
    assert_eq!((world.members(1), world.counts(1), world.unwritten()), before);
}

// ---------------------------------------------------------------------------------------------------
// What operators are told of, and what the database is asked.

#[test]
fn a_members_unknown_client_is_suggested_to_the_operator_once() {
    let site = Site::new(json!({}));
    let target = Query::new(1).set("peer_id", escape(&[0; 20])).to(&site.path("announce"));
    for _ in 0..3 {
        let answer = site.ask(&target, &[("User-Agent", "Unknown/1.0")], HOME);
        assert_eq!(reason(&answer), "Your client is not whitelisted");
    }
    let suggestion = Suggestion::Client("Unknown/1.0".into());
    assert_eq!(site.tracker.access.take_suggestions(), [(suggestion, site.alice.id)]);
}

#[test]
fn a_client_that_is_suggested_is_text_that_fits_the_whitelist() {
    let access = Access::default();
    access.suggest_client(b"", 1);
    access.suggest_client(b"\x01\x02\x7f", 1);
    assert_eq!(access.take_suggestions(), []);
    access.suggest_client(&[b"Client\r\n\x00/\xff".as_slice(), &[b'9'; 500]].concat(), 1);
    let name = format!("Client/\u{fffd}{}", "9".repeat(128 - 8));
    assert_eq!(access.take_suggestions(), [(Suggestion::Client(name), 1)]);
}

#[test]
fn a_members_unknown_torrent_is_suggested_to_the_operator_once() {
    let site = Site::new(json!({}));
    for n in 1..=3 {
        assert_eq!(site.refusal(Query::new(n).on(9)), "Unregistered torrent");
    }
    assert_eq!(site.tracker.access.take_suggestions(), [(Suggestion::Torrent(hash(9)), site.alice.id)]);
    site.scrape(&[hash(10)]);
    assert_eq!(site.tracker.access.take_suggestions(), [], "who asks for numbers suggests nothing");
}

#[test]
fn strangers_and_banned_users_suggest_nothing() {
    let site = Site::new(json!({}));
    site.ban("banned");
    for path in ["/nobody/announce", "/banned/announce", "/announce"] {
        let target = Query::new(1).on(9).to(path);
        assert_ne!(reason(&site.get(&target)), "");
        let target = Query::new(1).set("peer_id", escape(&[0; 20])).to(path);
        let answer = site.ask(&target, &[("User-Agent", "Unknown/1.0")], HOME);
        assert_eq!(reason(&answer), "Your client is not whitelisted");
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
        assert_eq!(world.admit(agent, None, "alice"), Err(Refusal::NotWhitelisted));
        assert_eq!(world.access.take_suggestions(), [], "{agent}");
    }
}

#[test]
fn never_more_than_a_thousand_suggestions_of_each_kind_wait() {
    let access = Access::default();
    for n in 0..3000 {
        access.suggest_client(format!("Client/{n}").as_bytes(), n);
        access.suggest(Suggestion::Torrent(hash(n)), n);
    }
    let suggestions = access.take_suggestions();
    let clients = suggestions.iter().filter(|s| matches!(s, (Suggestion::Client(_), _))).count();
    assert_eq!((clients, suggestions.len()), (1000, 2000));
    access.suggest_client(b"Another/1.0", 9999);
    access.suggest(Suggestion::Torrent(hash(9999)), 9999);
    assert_eq!(access.take_suggestions(), [], "those that were taken wait for the operator");
    access.forget_suggestions();
    access.suggest_client(b"Another/1.0", 9999);
    assert_eq!(access.take_suggestions(), [(Suggestion::Client("Another/1.0".into()), 9999)]);
}

#[test]
fn an_approved_client_works_at_the_next_announce_and_a_denied_one_no_more() {
    let world = World::new(json!({}));
    assert_eq!(world.admit("New/1.0", None, "alice"), Err(Refusal::NotWhitelisted));
    world.approve(&[b"New/"]);
    assert_eq!(world.admit("New/1.0", None, "alice"), Ok(ALICE));
    world.approve(&[]);
    assert_eq!(world.admit("New/1.0", None, "alice"), Err(Refusal::NotWhitelisted));
}

#[test]
fn a_user_and_a_torrent_made_a_moment_ago_are_known_at_once() {
    let site = Site::new(json!({}));
    let user = site.tracker.store.add_user("new", 0, false).unwrap();
    site.tracker.store.add_file(&hash(2), None, "", 0).unwrap();
    assert_eq!(site.announce_of(&user, Query::new(1).on(2)).integer("incomplete"), 1);
}

#[test]
fn a_passkey_that_was_changed_a_moment_ago_is_known_at_once() {
    let site = Site::new(json!({}));
    let alice = NewUser { passkey: "f".repeat(40), ..site.alice.clone() };
    site.database.sql(&format!("UPDATE users SET passkey = '{}' WHERE id = {}", alice.passkey, alice.id));
    assert_eq!(reason(&site.announce_of(&alice, Query::new(1))), "");
    assert_eq!(reason(&site.announce(Query::new(1))), "Invalid passkey", "the old one");
}

#[test]
fn each_look_up_is_a_turn_of_its_own() {
    let site = Site::new(json!({}));
    let answered = |query: &str, turns: usize, reason_given: &str| {
        let (answer, taken) = site.respond(query, &[("User-Agent", AGENT)], HOME);
        assert_eq!(reason(&body(&answer)), reason_given, "{query}");
        assert_eq!(taken, turns, "{query}");
    };
    let new = site.tracker.store.add_user("new", 0, false).unwrap();
    site.tracker.store.add_file(&hash(2), None, "", 0).unwrap();
    let path = format!("/{}/announce", new.passkey);
    answered(&Query::new(1).on(2).to(&path), 2, "");
    answered(&Query::new(2).on(2).to(&path), 0, "");
    let nobody = format!("/{}/announce", "0".repeat(40));
    answered(&Query::new(1).on(2).to(&nobody), 1, "Invalid passkey");
    answered(&Query::new(1).on(3).to(&path), 1, "Unregistered torrent");
}

// ---------------------------------------------------------------------------------------------------
// Torrents that nobody need approve.

#[test]
fn without_verified_the_first_announce_of_an_unknown_torrent_registers_it_and_is_answered() {
    let site = Site::new(json!({ "Verified": false }));
    let answer = site.announce(Query::new(1).on(9));
    assert_eq!(answer.integer("incomplete"), 1, "{answer:?}");
    let answer = site.announce(Query::new(2).on(9));
    assert_eq!(answer.peers(), [(HOME, 10_001).into()]);
    let sql = format!("SELECT COUNT(*) FROM files WHERE info_hash = '{}'", hash(9));
    assert_eq!(site.database.sql(&sql), [["1"]]);
}

#[test]
fn a_member_may_register_a_hundred_torrents_an_hour_and_others_as_many() {
    let site = Site::new(json!({ "Verified": false }));
    let bob = site.add_user("bob", 0);
    for n in 0..102 {
        let may = if n < 100 { "" } else { "Unregistered torrent" };
        assert_eq!(registers(&site, &site.alice, 1000 + n), may, "{n}");
    }
    assert_eq!(registers(&site, &bob, 2000), "");
}

#[test]
fn without_passkeys_a_thousand_torrents_an_hour_may_be_registered() {
    let access = Access::default();
    let registered = (0..2000).filter(|_| access.may_register(0, NOW)).count();
    assert_eq!(registered, 1000);
    assert!(access.may_register(0, NOW + 3600), "an hour later");
    assert!(access.may_register(ALICE, NOW), "a member");
}

/// Why a member cannot register a torrent by announcing it, or "".
fn registers(site: &Site, member: &NewUser, n: u32) -> String {
    let path = format!("/{}/announce", member.passkey);
    reason(&site.get(&Query::new(1).on(n).to(&path))).to_string()
}

// ---------------------------------------------------------------------------------------------------
// Without passkeys, and where a peer is.

#[test]
fn without_passkeys_everybody_is_the_anonymous_user() {
    let world = World::new(json!({ "Passkey": false, "Whitelist": false }));
    for passkey in [None, Some("alice"), Some("nobody")] {
        assert_eq!(world.admit(None, None, passkey), Ok(0));
    }
    let site = Site::new(json!({ "Passkey": false }));
    for (n, path) in (1..).zip(["/announce", "/whatever/announce", "/announce"]) {
        let answer = site.get(&Query::new(n).to(path));
        assert_eq!(answer.integer("incomplete"), i64::from(n));
        assert_eq!(answer.peers().len(), usize::from(n) - 1);
    }
}

#[test]
fn an_anonymous_session_is_of_its_address_and_nobody_elsewhere_can_end_or_move_it() {
    let site = Site::new(json!({ "Passkey": false, "SlowDown": 0 }));
    let other6: IpAddr = "2001:db8::2".parse().unwrap();
    let from = |ip, query: Query| site.get_from(ip, &query.to("/announce"));
    let there = || from(ELSEWHERE, Query::new(9).set("event", "stopped"));
    let counts = || (there().integer("complete"), there().integer("incomplete"));
    for (home, stranger) in [(HOME, ELSEWHERE), (HOME6, other6), (HOME, HOME6)] {
        from(home, Query::new(1).set("left", "0"));
        for event in ["stopped", "started", "completed"] {
            let named = Query::new(1).set("event", event).set("left", "7");
            assert_eq!(reason(&from(stranger, named)), "");
        }
        assert_eq!(counts(), (1, 1), "the stranger is another leecher");
        let peers = from(ELSEWHERE, Query::new(2)).peers();
        assert!(peers.contains(&(home, 10_001).into()), "{peers:?}");
        from(ELSEWHERE, Query::new(2).set("event", "stopped"));
        from(stranger, Query::new(1).set("event", "stopped"));
        assert_eq!(counts(), (1, 0), "{home} is still there");
        from(home, Query::new(1).set("event", "stopped"));
        assert_eq!(counts(), (0, 0));
    }
}

#[test]
fn anonymous_sessions_are_the_same_after_a_restart() {
    let site = Site::new(json!({ "Passkey": false, "SlowDown": 0 }));
    site.get_from(HOME, &Query::new(1).to("/announce"));
    site.get_from(HOME6, &Query::new(1).to("/announce"));
    let site = site.restart();
    let answer = site.get_from(HOME, &Query::new(1).to("/announce"));
    assert_eq!(answer.integer("incomplete"), 2);
    let sql = "SELECT COUNT(*), MIN(peer_id) = MAX(peer_id) FROM sessions";
    assert_eq!(site.database.sql(sql), [["2", "0"]]);
    let programs = "SELECT DISTINCT CAST(SUBSTR(peer_id, 1, 8) AS TEXT) FROM sessions";
    assert_eq!(site.database.sql(programs), [["-qB4670-"]]);
}

#[test]
fn nobody_is_told_the_peer_ids_of_anonymous_clients() {
    let site = Site::new(json!({ "Passkey": false }));
    site.get(&Query::new(1).to("/announce"));
    for no_peer_id in ["0", "1"] {
        let query = Query::new(2).set("compact", "0");
        let answer = site.get(&query.set("no_peer_id", no_peer_id).to("/announce"));
        assert_eq!(list(&answer)[0].keys(), ["ip", "port"]);
    }
}

#[test]
fn the_address_of_a_peer_is_where_it_connects_from() {
    let site = Site::new(json!({}));
    let elsewhere = Query::new(1).set("ip", "198.51.100.7").set("ipv4", "198.51.100.8");
    site.announce(elsewhere.set("ipv6", "2001:db8::9"));
    let answer = site.announce_from(ELSEWHERE, Query::new(2));
    assert_eq!(answer.peers(), [(HOME, 10_001).into()]);
}

#[test]
fn x_forwarded_for_of_anybody_but_a_trusted_proxy_is_ignored() {
    for proxies in [json!([]), json!(["10.0.0.0/8"])] {
        let site = Site::new(json!({ "TrustedProxies": proxies }));
        let headers = [("User-Agent", AGENT), ("X-Forwarded-For", "198.51.100.7")];
        let target = Query::new(1).to(&site.path("announce"));
        assert_eq!(external_ip(&site.ask(&target, &headers, HOME)), HOME);
    }
}

#[test]
fn of_x_forwarded_for_the_last_entry_that_is_not_a_trusted_proxy_counts() {
    let proxies = ["10.0.0.0/8", "127.0.0.1", "2001:db8:ffff::/48"];
    let site = Site::new(json!({ "TrustedProxies": proxies }));
    let target = Query::new(1).to(&site.path("announce"));
    let cases: [(&[&str], &str); 24] = [
        (&["198.51.100.7"], "198.51.100.7"),
        (&["2001:db8::7"], "2001:db8::7"),
        (&["::ffff:198.51.100.7"], "198.51.100.7"),
        (&["6.6.6.6, 198.51.100.7"], "198.51.100.7"),
        (&["6.6.6.6,198.51.100.7 , 10.2.3.4,127.0.0.1"], "198.51.100.7"),
        (&["6.6.6.6", "198.51.100.7"], "198.51.100.7"),
        (&["198.51.100.7", "10.9.9.9"], "198.51.100.7"),
        (&["198.51.100.7, 2001:db8:ffff::1"], "198.51.100.7"),
        (&[], "10.0.0.1"),
        // Before an entry that is no address, nothing is believed.
        (&["6.6.6.6, unknown"], "10.0.0.1"),
        (&["6.6.6.6, 198.51.100.7:http"], "10.0.0.1"),
        (&["6.6.6.6, 198.51.100.7:65536"], "10.0.0.1"),
        (&["6.6.6.6, [2001:db8::7"], "10.0.0.1"),
        (&["6.6.6.6, [2001:db8::7]443"], "10.0.0.1"),
        // As proxies write them: with a port, in brackets, with a zone.
        (&["6.6.6.6, 198.51.100.7:50123"], "198.51.100.7"),
        (&["[2001:db8::7]"], "2001:db8::7"),
        (&["[2001:db8::7]:50123"], "2001:db8::7"),
        (&["fe80::7%eth0"], "fe80::7"),
        (&["[fe80::7%eth0]:50123, 10.2.3.4:80"], "fe80::7"),
        (&["[::ffff:198.51.100.7]:50123"], "198.51.100.7"),
        (&["6.6.6.6, 198.51.100.7 , , 10.2.3.4,"], "198.51.100.7"),
        (&["198.51.100.7", ""], "198.51.100.7"),
        // Nothing but nothing.
        (&[""], "10.0.0.1"),
        (&[" ,, "], "10.0.0.1"),
    ];
    for (entries, expected) in cases {
        let entries = entries.iter().map(|entry| ("x-forwarded-FOR", *entry));
        let headers: Vec<_> = [("User-Agent", AGENT)].into_iter().chain(entries).collect();
        let answer = site.ask(&target, &headers, [10, 0, 0, 1].into());
        assert_eq!(external_ip(&answer).to_string(), expected, "{headers:?}");
    }
}
