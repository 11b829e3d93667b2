//! The swarm and what is told of it: each test is a sentence of the rules.
//!
//! At the end random announces in random order are compared with a naive model, and random choices of
//! peers with what chance allows.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::common::escape;
use crate::world::*;
use goat::books::{Life, Paths, Session};
use goat::net::http::{Answer, Scratch};
use goat::net::message::Request;
use goat::protocol::{Addresses, Announce, Event, Moved, Peers, Scrape, Want, ip4, ip6, port};
use goat::random::Rng;
use goat::rules::swarm::Swarm;
use goat::store::Torrent;
use goat::torrent::{InfoHash, PeerId};
use proptest::prelude::*;
use serde_json::json;

// ---------------------------------------------------------------------------------------------------
// Sessions.

#[test]
fn a_session_is_one_client_of_one_user_on_one_torrent() {
    let world = World::limited(0);
    world.announce(ALICE, client(1)).unwrap();
    world.announce(ALICE, client(1).change(|a| a.port = 7000)).unwrap();
    assert_eq!(world.members(1).len(), 1, "the same, on another port");
    world.announce(ALICE, client(2).at(client(1).ip)).unwrap();
    assert_eq!(world.members(1).len(), 2, "another peer id");
    world.announce(BOB, client(1)).unwrap();
    assert_eq!(world.members(1).len(), 3, "another user");
    world.announce(ALICE, client(1).on(2)).unwrap();
    assert_eq!((world.members(1).len(), world.members(2).len()), (3, 1), "another torrent");
}

#[test]
fn a_session_with_two_address_families_is_counted_once_and_handed_out_twice() {
    let world = World::new(json!({}));
    world.announce(ALICE, client(1)).unwrap();
    world.announce(ALICE, client(1).over_v6()).unwrap();
    assert_eq!((world.counts(1), world.active(ALICE)), ((0, 1, 1), 1));
    let both = sorted([address(&client(1)), address(&client(1).over_v6())]);
    assert_eq!(world.peers(BOB, client(2)), both);
    // One stop, over whichever family, and both are gone.
    world.announce(ALICE, client(1).over_v6().stopped()).unwrap();
    assert_eq!(world.peers(BOB, client(2)), []);
}

#[test]
fn nobody_is_sent_their_own_address_of_either_family() {
    let world = World::new(json!({}));
    world.announce(ALICE, client(1)).unwrap();
    assert_eq!(world.peers(ALICE, client(1).over_v6()), []);
    assert_eq!(world.peers(ALICE, client(1)), []);
}

#[test]
fn a_client_that_was_killed_and_is_back_under_another_peer_id_takes_the_place_of_the_former() {
    let world = World::new(json!({}));
    world.announce(ALICE, client(1)).unwrap();
    world.announce(ALICE, client(1).over_v6()).unwrap();
    world.announce(BOB, client(3)).unwrap();
    let back = client(2).at(client(1).ip);
    assert_eq!(world.peers(ALICE, back.clone()), [address(&client(3))]);
    world.wait(1000);
    assert_eq!(world.peers(BOB, client(3).regular()), [address(&back)]);
    assert_eq!(world.active(ALICE), 1);
    // Somebody else at the same address and port is somebody else, and so is another port.
    world.announce(BOB, client(4).at(client(1).ip)).unwrap();
    let other = client(5).at(client(1).ip).change(|a| a.port = 7000);
    world.announce(ALICE, other).unwrap();
    assert_eq!(world.counts(1).1, 4);
}

#[test]
fn a_session_that_moves_is_handed_out_at_its_new_address_only() {
    let world = World::new(json!({}));
    world.announce(ALICE, client(1)).unwrap();
    let moved = client(1).at(client(9).ip).change(|a| a.port = 7000);
    world.announce(ALICE, moved.clone()).unwrap();
    assert_eq!(world.peers(BOB, client(2)), [address(&moved)]);
}

#[test]
fn who_wants_nothing_more_is_a_seeder() {
    let world = World::new(json!({}));
    world.announce(ALICE, client(1).seeding()).unwrap();
    world.announce(BOB, client(2)).unwrap();
    assert_eq!(world.counts(1), (1, 1, 1));
    world.announce(BOB, client(2).seeding().completed()).unwrap();
    assert_eq!(world.counts(1), (2, 0, 0));
    world.wait(1000);
    world.announce(ALICE, client(1).left(5).regular()).unwrap();
    assert_eq!(world.counts(1), (1, 1, 1), "whose disk has lost something is a leecher again");
}

#[test]
fn a_partial_seed_counts_with_the_leechers_but_not_with_the_downloaders() {
    let world = World::new(json!({ "SlowDown": 0 }));
    world.announce(ALICE, client(1).paused()).unwrap();
    world.announce(BOB, client(2)).unwrap();
    assert_eq!(world.counts(1), (0, 2, 1));
    world.announce(ALICE, client(1).regular()).unwrap();
    assert_eq!(world.counts(1), (0, 2, 2), "it must say so in every announce (BEP 21)");
    world.announce(ALICE, client(1).paused()).unwrap();
    assert_eq!(world.counts(1), (0, 2, 1));
    world.announce(ALICE, client(1).seeding().paused()).unwrap();
    assert_eq!(world.counts(1), (1, 1, 1), "who has everything is a whole seed");
    world.announce(ALICE, client(1).paused()).unwrap();
    world.announce(ALICE, client(1).stopped()).unwrap();
    assert_eq!(world.counts(1), (0, 1, 1));
}

#[test]
fn a_peer_not_heard_of_for_two_intervals_leaves_the_swarm() {
    let world = World::new(json!({}));
    world.announce(ALICE, client(1).seeding()).unwrap();
    world.announce(ALICE, client(2)).unwrap();
    world.wait(INTERVAL);
    world.announce(BOB, client(3)).unwrap();
    world.wait(INTERVAL - 1);
    world.expire();
    assert_eq!(world.counts(1), (1, 2, 2), "not a second early");
    world.wait(2);
    world.expire();
    assert_eq!(world.counts(1), (0, 1, 1));
    assert_eq!(world.peers(BOB, client(3)), []);
    world.wait(2 * INTERVAL + 1);
    world.expire();
    assert_eq!(world.counts(1), (0, 0, 0));
}

#[test]
fn an_address_not_heard_of_for_two_intervals_is_not_handed_out() {
    let world = World::new(json!({}));
    let silent_for_two_intervals = |silent: Announce, heard_of: Announce| {
        world.announce(ALICE, silent.clone()).unwrap();
        world.wait(2 * INTERVAL);
        world.announce(ALICE, heard_of.clone().regular()).unwrap();
        world.expire();
        let both = sorted([address(&silent), address(&heard_of)]);
        assert_eq!(world.peers(BOB, client(2)), both, "not a second early");
        world.wait(1);
        world.expire();
        assert_eq!(world.peers(BOB, client(2)), [address(&heard_of)]);
        assert_eq!(world.counts(1), (0, 2, 2));
    };
    silent_for_two_intervals(client(1), client(1).over_v6());
    silent_for_two_intervals(client(1).over_v6(), client(1));
}

#[test]
fn the_peers_of_a_banned_user_leave_every_swarm() {
    let world = World::new(json!({}));
    for n in 1..=40 {
        world.put_torrent(n, true);
        world.announce(ALICE, client(1).on(n)).unwrap();
        world.announce(ALICE, client(1).on(n).over_v6()).unwrap();
        world.announce(ALICE, client(2).on(n).seeding()).unwrap();
        world.announce(BOB, client(3).on(n)).unwrap();
    }
    world.drop_user(ALICE);
    for n in 1..=40 {
        assert_eq!(world.counts(n), (0, 1, 1));
        assert_eq!(world.peers(BOB, client(3).on(n)), []);
    }
}

#[test]
fn a_swarm_that_everybody_has_left_costs_nothing() {
    let world = World::new(json!({}));
    let empty = || world.swarms.shard(&hash(1)).torrents[&hash(1)].swarm.is_none();
    world.announce(ALICE, client(1)).unwrap();
    assert!(!empty());
    world.announce(ALICE, client(1).stopped()).unwrap();
    assert!(empty());
    world.announce(ALICE, client(1)).unwrap();
    world.wait(2 * INTERVAL + 1);
    world.expire();
    assert!(empty());
    world.announce(ALICE, client(1)).unwrap();
    world.drop_user(ALICE);
    assert!(empty());
}

// ---------------------------------------------------------------------------------------------------
// Which peers are sent, and when to come again.

#[test]
fn a_seeder_is_never_sent_other_seeders() {
    let world = World::new(json!({}));
    for n in 1..=10 {
        world.announce(ALICE, client(n).seeding()).unwrap();
        world.announce(BOB, client(100 + n)).unwrap();
    }
    let leechers = || (101..=110).map(|n| address(&client(n)));
    let seeders = || (1..=10).chain([50]).map(|n| address(&client(n)));
    assert_eq!(world.peers(ALICE, client(50).seeding()), sorted(leechers()));
    assert_eq!(world.peers(BOB, client(150)), sorted(leechers().chain(seeders())));
}

#[test]
fn who_asks_for_as_many_as_there_are_gets_each_once_and_not_itself() {
    let world = World::new(json!({}));
    (1..=20).for_each(|n| drop(world.announce(ALICE, client(n)).unwrap()));
    let others = sorted((1..=19).map(|n| address(&client(n))));
    for count in [19, 20, 50, 200] {
        assert_eq!(world.peers(ALICE, client(20).change(|a| a.want.count = count)), others);
    }
}

#[test]
fn as_many_peers_are_sent_as_are_asked_for_but_never_more_than_200() {
    let site = Site::new(json!({}));
    site.fill(300);
    assert_eq!(site.announce(Query::new(1)).peers().len(), 50);
    let cases = [("-1", 50), ("0", 0), ("7", 7), ("200", 200), ("201", 200), ("100000", 200)];
    for (numwant, expected) in cases {
        let query = Query::new(1).set("numwant", numwant);
        assert_eq!(site.announce(query.clone()).peers().len(), expected, "numwant={numwant}");
        assert_eq!(list(&site.announce(query.set("compact", "0"))).len(), expected);
    }
}

#[test]
fn who_stops_is_sent_nobody_and_is_gone() {
    let world = World::new(json!({}));
    (1..=5).for_each(|n| drop(world.announce(ALICE, client(n)).unwrap()));
    for stopped in [client(1).stopped(), client(1).stopped(), client(77).stopped()] {
        let (reply, peers) = world.announce(ALICE, stopped).unwrap();
        assert_eq!((reply.incomplete, peers), (4, vec![]), "also who was not there");
    }
    let others = sorted((2..=5).map(|n| address(&client(n))));
    assert_eq!(world.peers(BOB, client(9)), others);

    let site = Site::new(json!({}));
    site.fill(5);
    let answer = site.announce(Query::new(1).set("event", "stopped"));
    assert_eq!((answer.integer("incomplete"), answer.bytes("peers")), (5, &[][..]));
}

#[test]
fn the_answer_counts_who_asks() {
    let world = World::new(json!({}));
    let told = |a: Announce| world.announce(ALICE, a).map(|(r, _)| (r.complete, r.incomplete));
    assert_eq!(told(client(1)), Ok((0, 1)));
    assert_eq!(told(client(2).seeding()), Ok((1, 1)));
    assert_eq!(told(client(1).stopped()), Ok((1, 0)));
}

#[test]
fn the_interval_of_seeders_is_spread_over_its_last_ten_minutes() {
    for interval in [3600, 86400] {
        let world = World::new(json!({ "Interval": interval }));
        let told = (0..10_000).map(|_| {
            let reply = world.reply(ALICE, client(1).seeding());
            assert_eq!(reply.min_interval, reply.interval / 2);
            reply.interval
        });
        let told: BTreeSet<u32> = told.collect();
        assert!(told.into_iter().eq(interval - 600..=interval), "every second of them");
    }
}

#[test]
fn a_short_interval_gives_seeders_neither_more_than_it_nor_nothing() {
    for interval in [600, 700, 1000, 1200] {
        let world = World::new(json!({ "Interval": interval }));
        for _ in 0..2000 {
            let told = world.reply(ALICE, client(1).seeding());
            assert!((interval - 600..=interval).contains(&told.interval), "{told:?}");
            assert!(told.min_interval > 0 && told.min_interval == told.interval / 2, "{told:?}");
        }
    }
}

#[test]
fn leechers_are_told_to_come_every_ten_minutes() {
    for interval in [600, 1800, 3600, 86400] {
        let world = World::new(json!({ "Interval": interval }));
        for (n, event) in (1..).zip([Event::Started, Event::Paused, Event::Completed]) {
            let told = world.reply(ALICE, client(n).says(event));
            assert_eq!((told.interval, told.min_interval), (600, 300));
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// On the wire: bencode over HTTP.

#[test]
fn an_answer_has_these_keys_in_order() {
    let keys = ["complete", "downloaded", "external ip", "incomplete", "interval", "min interval", "peers"];
    let site = Site::new(json!({}));
    assert_eq!(site.announce(Query::new(1)).keys(), keys);
    assert_eq!(site.announce_from(HOME6, Query::new(2)).keys(), keys);
    // IPv6 peers have a key of their own where there are any (BEP 7).
    let answer = site.announce(Query::new(3));
    assert_eq!(answer.keys(), [&keys[..], &["peers6"]].concat());
    assert_eq!(answer.peers(), sorted([(HOME, 10_001).into(), (HOME6, 10_002).into()]));
}

#[test]
fn an_answer_holds_the_numbers_of_the_swarm() {
    let site = Site::new(json!({}));
    site.fill(3);
    site.tracker.put_torrent(&Torrent { completed: 42, ..file(1) });
    let answer = site.announce(Query::new(1).set("left", "0"));
    let numbers = ["complete", "incomplete", "downloaded"].map(|key| answer.integer(key));
    assert_eq!(numbers, [1, 3, 42]);
    assert_eq!(answer.integer("min interval"), answer.integer("interval") / 2);
}

#[test]
fn the_external_ip_is_the_clients_address_in_4_or_16_bytes() {
    let site = Site::new(json!({}));
    let bytes = |peer| site.announce_from(peer, Query::new(1)).bytes("external ip").to_vec();
    assert_eq!(bytes(HOME), [192, 0, 2, 1]);
    assert_eq!(bytes(HOME6), [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn peers_are_compact_unless_the_request_says_compact_0() {
    let site = Site::new(json!({}));
    site.announce(Query::new(1));
    site.announce_from(HOME6, Query::new(1));
    for compact in ["1", "2", ""] {
        let answer = site.announce(Query::new(2).set("compact", compact));
        assert_eq!(answer.bytes("peers"), [192, 0, 2, 1, 0x27, 0x11], "compact={compact}");
        assert_eq!(answer.bytes("peers6")[12..], [0, 0, 0, 1, 0x27, 0x11], "compact={compact}");
    }
    let answer = site.announce(Query::new(2).set("compact", "0"));
    assert!(answer.get("peers6").is_none(), "the list holds both families");
    let peers = list(&answer);
    let ips: Vec<&str> = peers.iter().map(|peer| peer.text("ip")).collect();
    assert_eq!(ips, ["192.0.2.1", "2001:db8::1"]);
    for peer in &peers {
        assert_eq!(peer.keys(), ["ip", "peer id", "port"]);
        assert_eq!(peer.bytes("peer id"), client(1).peer_id.0);
        assert_eq!(peer.integer("port"), 10_001);
    }
}

#[test]
fn with_no_peer_id_1_the_list_is_without_peer_ids() {
    let site = Site::new(json!({}));
    site.announce(Query::new(1));
    let query = Query::new(2).set("compact", "0");
    let without = site.announce(query.clone().set("no_peer_id", "1"));
    assert_eq!(list(&without)[0].keys(), ["ip", "port"]);
    let with = site.announce(query.set("no_peer_id", "0"));
    assert_eq!(list(&with)[0].keys(), ["ip", "peer id", "port"]);
}

#[test]
fn the_bytes_of_an_answer_are_these() {
    let site = Site::new(json!({}));
    site.announce(Query::new(1));
    let target = Query::new(2).to(&site.path("announce"));
    let (answer, _) = site.respond(&target, &[("User-Agent", AGENT)], ELSEWHERE);
    let expected = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 117\r\n\r\n\
        d8:completei0e10:downloadedi0e11:external ip4:\xc6\x33\x64\x0110:incompletei2e\
        8:intervali600e12:min intervali300e5:peers6:\xc0\x00\x02\x01\x27\x11e";
    assert_eq!(answer, expected, "{}", String::from_utf8_lossy(&answer));
}

#[test]
fn head_is_answered_like_get_without_the_body_and_a_last_answer_says_so() {
    let site = Site::new(json!({}));
    let target = &Query::scrape(&[hash(1)]).to(&site.path("scrape"));
    let headers = &[httparse::Header { name: "User-Agent", value: AGENT.as_bytes() }];
    let answer = |method, keep_alive| {
        let request = Request {
            method,
            target,
            headers,
            peer: HOME,
            keep_alive,
            old: false,
            secure: false,
            length: 0,
            begun: b"",
        };
        let mut out = Vec::new();
        let done = goat::net::http::answer(
            &site.tracker,
            &goat::web::PAGES,
            &request,
            false,
            &mut Scratch::default(),
            &mut out,
        );
        assert_eq!(done, Answer::Written);
        String::from_utf8_lossy(&out).into_owned()
    };
    for keep_alive in [true, false] {
        let (get, head) = (answer("GET", keep_alive), answer("HEAD", keep_alive));
        assert_eq!(get.split_once("\r\n\r\n").unwrap().0, head.trim_end());
        assert_eq!(head.contains("\r\nConnection: close\r\n"), !keep_alive);
    }
}

// ---------------------------------------------------------------------------------------------------
// Scrapes.

#[test]
fn a_scrape_counts_and_changes_nothing() {
    let world = World::new(json!({}));
    world.announce(ALICE, client(1).seeding()).unwrap();
    world.announce(ALICE, client(2)).unwrap();
    world.announce(ALICE, client(3).paused()).unwrap();
    world.swarms.shard(&hash(1)).torrents.get_mut(&hash(1)).unwrap().snatches = 7;
    let before = (world.members(1), world.unwritten());
    let counts = Scrape { complete: 1, downloaded: 7, downloaders: 1, incomplete: 2 };
    assert_eq!(world.scrape(1), Some(counts));
    assert_eq!((world.members(1), world.unwritten()), before);
    assert_eq!(world.scrape(9), None);
}

#[test]
fn a_scrape_answers_each_hash_under_its_20_bytes() {
    let site = Site::new(json!({}));
    site.fill(3);
    site.announce(Query::new(1).set("left", "0"));
    site.announce(Query::new(2).set("event", "paused"));
    // As hard as any bytes to write and to sort.
    let odd = [[0; 20], [255; 20], *b"d5:filesi0e%2B+ &=?#", [b'e'; 20], [0x80; 20]].map(InfoHash);
    for (id, info_hash) in (2..).zip(odd) {
        site.tracker.put_torrent(&Torrent { info_hash, completed: 40 + id, ..file(id) });
    }
    let answer = site.scrape(&[&odd[..], &[hash(1)]].concat());
    assert_eq!(answer.keys(), ["files"]);
    let files = files(&answer);
    let expected: BTreeSet<[u8; 20]> = odd.iter().chain([&hash(1)]).map(|hash| hash.0).collect();
    assert!(files.keys().eq(expected.iter()), "{files:?}");

    let keys = ["complete", "downloaded", "downloaders", "incomplete"];
    assert!(files.values().all(|file| file.keys() == keys));
    assert_eq!(keys.map(|key| files[&hash(1).0[..]].integer(key)), [1, 0, 3, 4]);
    assert_eq!(keys.map(|key| files[&[255; 20][..]].integer(key)), [0, 43, 0, 0]);
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
    assert!(reason(&answer).starts_with("Invalid parameter: info_hash"), "{answer:?}");
    assert_eq!(files(&site.scrape(&[hash(1), hash(2), hash(1)])).len(), 2, "each once");
}

#[test]
fn a_scrape_leaves_out_what_is_not_known_or_not_verified() {
    let site = Site::new(json!({}));
    site.tracker.put_torrent(&Torrent { verified: false, ..file(2) });
    let answer = site.scrape(&[hash(2), hash(1), hash(9)]);
    assert_eq!(files(&answer).into_keys().collect::<Vec<_>>(), [hash(1).0]);
    assert_eq!(files(&site.scrape(&[hash(9)])).len(), 0);
}

#[test]
fn a_scrape_of_what_was_the_second_hash_of_a_hybrid_and_is_a_torrent_of_its_own_speaks_of_that() {
    let world = World::new(json!({}));
    world.swarms.shard(&hash(2)).seconds.insert(hash(2), hash(1));
    world.announce(BOB, client(2).seeding()).unwrap();
    assert_eq!(world.counts(2), (1, 0, 0));
    world.put_torrent(2, true);
    assert_eq!(world.counts(2), (0, 0, 0));
}

#[test]
fn a_scrape_without_an_info_hash_is_a_failure_never_the_whole_list() {
    let site = Site::new(json!({}));
    for query in ["", "?", "?x=y", "?info_hashes=x"] {
        let answer = site.get(&(site.path("scrape") + query));
        assert_eq!(reason(&answer), "Missing required parameter: info_hash", "{query}");
    }
    let good = escape(&hash(1).0);
    for value in ["", "=", "=x", "=%", &format!("={good}00")] {
        let query = format!("?info_hash={good}&info_hash{value}");
        let answer = site.get(&(site.path("scrape") + &query));
        assert_eq!(reason(&answer), "Invalid parameter: info_hash", "{value}");
    }
}

// ---------------------------------------------------------------------------------------------------
// A restart.

#[test]
fn after_a_restart_the_first_announce_gets_peers() {
    let site = Site::new(json!({}));
    site.announce(Query::new(1));
    site.announce_from(HOME6, Query::new(1));
    site.announce(Query::new(2).set("left", "0"));
    let answer = site.restart().announce(Query::new(3));
    assert_eq!((answer.integer("complete"), answer.integer("incomplete")), (1, 2));
    let there = [(HOME, 10_001).into(), (HOME6, 10_001).into(), (HOME, 10_002).into()];
    assert_eq!(answer.peers(), sorted(there));
}

#[test]
fn a_restart_frees_no_slots_and_lets_nobody_announce_sooner() {
    let site = Site::new(json!({}));
    let member = site.add_user("member", 1);
    site.tracker.store.add_file(&hash(2), None, "", 0).unwrap();
    site.announce_of(&member, Query::new(1));
    site.announce_of(&member, Query::new(2));
    let site = site.restart();
    let answer = site.announce_of(&member, Query::new(1).on(2));
    assert_eq!(reason(&answer), "Exceeded active torrent limit: 2 > 1");
    let answer = site.announce_of(&member, Query::new(1).without("event"));
    assert_eq!(reason(&answer), "Slow down");
}

#[test]
fn after_a_restart_those_who_stopped_or_were_banned_are_not_there() {
    let site = Site::new(json!({}));
    let bob = site.add_user("bob", 0);
    site.announce(Query::new(1));
    site.announce(Query::new(1).set("event", "stopped"));
    site.announce_of(&bob, Query::new(2));
    site.announce(Query::new(3));
    site.save();
    site.database.sql("UPDATE users SET banned = 1 WHERE username = 'bob'");
    let site = site.restart();
    let answer = site.announce(Query::new(4));
    assert_eq!((answer.integer("incomplete"), answer.peers()), (2, vec![(HOME, 10_003).into()]));
    assert_eq!(reason(&site.announce_of(&bob, Query::new(2))), "Invalid passkey");
}

// ---------------------------------------------------------------------------------------------------
// Random announces against a model that anybody can read.

/// A session of the model.
#[derive(Clone, Debug, Default)]
struct Member {
    left: u64,
    paused: bool,
    /// The address and the time of the last announce, of each family.
    at: [Option<(SocketAddr, u32)>; 2],
    /// Whether it has announced over each since it came.
    paths: [bool; 2],
}

/// Sessions that were closed, when, and over which families they had announced.
type Closed = HashMap<Key, (u32, [bool; 2])>;

impl Member {
    fn last_seen(&self) -> u32 {
        self.at.iter().flatten().map(|(_, seen)| *seen).max().unwrap_or(0)
    }

    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.at.iter().flatten().map(|(address, _)| *address)
    }
}

/// What makes a session: user and peer id, of the anonymous user also the address.
type Key = (u32, PeerId, Option<IpAddr>);

/// A torrent: its sessions.
type Model = BTreeMap<Key, Member>;

/// What is seen of the key of a session that is in a swarm: of anonymous ones only the program.
fn shown((user, mut peer_id, ip): Key) -> Key {
    if user == 0 {
        peer_id.0[8..].fill(0);
    }
    (user, peer_id, ip)
}

fn counts(model: &Model) -> (usize, usize, usize) {
    let seeders = model.values().filter(|member| member.left == 0).count();
    let paused = model.values().filter(|member| member.left > 0 && member.paused).count();
    (seeders, model.len() - seeders, model.len() - seeders - paused)
}

/// What the swarm holds, as the model has it.
/// A session that has moved nothing.
fn session(user: u32, peer_id: PeerId, left: u64, seen: [u32; 2]) -> Session {
    Session {
        top: Moved::default(),
        left,
        seen,
        user,
        life: Life(1),
        began: NOW,
        seeds: 0,
        announced: 1,
        peer_id,
        paths: Paths(1),
        paused: false,
        complete: left == 0,
        snatched: false,
    }
}

/// The IP addresses among two.
fn ips(at: &Addresses) -> BTreeSet<IpAddr> {
    let v4 = (port(&at.v4) != 0).then(|| ip4(&at.v4).into());
    let v6 = (port(&at.v6) != 0).then(|| ip6(&at.v6).into());
    v4.into_iter().chain(v6).collect()
}

fn compare(world: &World, model: &Model) {
    assert_eq!(world.counts(1), counts(model));
    let shard = world.swarms.shard(&hash(1));
    let Some(swarm) = &shard.torrents[&hash(1)].swarm else {
        return assert!(model.is_empty());
    };
    let mut held = BTreeMap::new();
    for (session, at) in swarm.iter() {
        let slot = swarm.find(session.user, &session.peer_id).expect("who is there is found");
        assert_eq!(swarm.get(slot), Some((session, at)));
        let ips = ips(&at);
        let ip = ips.first().copied().filter(|_| session.user == 0);
        let key = shown((session.user, session.peer_id, ip));
        let what = (session.left, session.paused, ips, session.last_seen());
        assert!(held.insert(key, what).is_none(), "twice: {session:?}");
    }
    let expected = model.iter().map(|(key, member)| {
        let ips: BTreeSet<IpAddr> = member.addresses().map(|address| address.ip()).collect();
        (shown(*key), (member.left, member.paused && member.left > 0, ips, member.last_seen()))
    });
    assert_eq!(held, expected.collect());
    for user in 0..5 {
        let sessions = model.keys().filter(|(owner, ..)| *owner == user).count();
        if user > 0 {
            assert_eq!(swarm.of_user(user, &client(1).peer_id).count(), sessions);
            assert_eq!(world.active(user) > 0, sessions > 0);
        }
    }
}

#[test]
fn announces_in_any_order_leave_the_swarm_that_a_naive_model_has() {
    for seed in 1..=8 {
        let world = World::new(json!({ "SlowDown": 0 }));
        (3..5).for_each(|id| world.put_user(id, &format!("user{id}"), 0));
        let (mut rng, mut model) = (Rng::new(seed), Model::new());
        let mut closed = HashMap::new();
        for step in 0..2500 {
            match rng.below(200) {
                0 => {
                    world.expire();
                    let oldest = world.now.get() - 2 * INTERVAL;
                    for (key, member) in &mut model {
                        let last = member.last_seen();
                        let silent = |at: &(SocketAddr, u32)| at.1 < oldest;
                        member.at = member.at.map(|at| at.filter(|at| !silent(at)));
                        if member.addresses().next().is_none() {
                            closed.insert(*key, (last + 2 * INTERVAL, member.paths));
                        }
                    }
                    model.retain(|_, member| member.addresses().next().is_some());
                }
                1 => {
                    let user = 1 + rng.below(4) as u32;
                    world.drop_user(user);
                    let gone = model.iter().filter(|((owner, ..), _)| *owner == user);
                    closed.extend(gone.map(|(key, m)| (*key, (world.now.get(), m.paths))));
                    model.retain(|(owner, ..), _| *owner != user);
                }
                _ => random_announce(&world, &mut model, &mut closed, &mut rng),
            }
            world.wait(rng.below(120) as u32);
            if step % 20 == 0 {
                compare(&world, &model);
            }
        }
        compare(&world, &model);
    }
}

/// One of five users (0 is the anonymous one) says something from one of ten clients.
fn random_announce(world: &World, model: &mut Model, closed: &mut Closed, rng: &mut Rng) {
    let user = rng.below(5) as u32;
    let mut a = client(100 * user as u16 + rng.below(10) as u16).left(rng.below(3) as u64);
    a = if rng.below(2) == 0 { a.over_v6() } else { a };
    let events = [Event::None, Event::Started, Event::Completed, Event::Paused, Event::Stopped];
    a.event = events[rng.below(5)];
    a.want.count = rng.below(60);
    let (reply, peers) = world.announce(user, a.clone()).unwrap();

    let ip = (user == 0).then_some(a.ip);
    let (key, now) = ((user, a.peer_id, ip), world.now.get());
    // Who has been silent for so long is gone, though nobody has looked for them yet.
    let silent = |member: &&Member| member.last_seen() + 2 * INTERVAL < now;
    if let Some(member) = model.get(&key).filter(silent).cloned() {
        model.remove(&key);
        let end = member.last_seen() + 2 * INTERVAL;
        closed.insert(key, (end, member.paths));
    }
    let family = usize::from(a.ip.is_ipv6());
    let here = model.contains_key(&key);
    // Within a minute only `started` brings a session back, where it has announced: anything else is late.
    let late = closed
        .get(&key)
        .is_some_and(|(closed, paths)| now - closed <= 60 && (a.event != Event::Started || !paths[family]));
    if a.event == Event::Stopped {
        // It ends the session if it comes over a path on which that has announced.
        if let Some(paths) = model.get(&key).map(|m| m.paths).filter(|paths| paths[family]) {
            model.remove(&key);
            closed.insert(key, (now, paths));
        } else if !here {
            let mut paths = [false; 2];
            paths[family] = true;
            closed.entry(key).or_insert((now, paths));
        }
    } else if here || !late {
        closed.remove(&key);
        let member = model.entry(key).or_default();
        (member.left, member.paused) = (a.left, a.event == Event::Paused);
        member.at[family] = Some((address(&a), now));
        member.paths[family] = true;
    }
    let (complete, incomplete, _) = counts(model);
    assert_eq!((reply.complete, reply.incomplete), (complete, incomplete));

    // Whoever stops, or is late, gets nobody; the others get who is there and not of their own kind if they seed.
    let others = model.iter().filter(|(other, member)| **other != key && a.left + member.left > 0);
    let others: Vec<&Member> =
        others.filter(|_| a.event != Event::Stopped && model.contains_key(&key)).map(|(_, m)| m).collect();
    let owner: HashMap<SocketAddr, usize> =
        others.iter().enumerate().flat_map(|(i, m)| m.addresses().map(move |at| (at, i))).collect();
    let sent: BTreeSet<usize> = peers.iter().map(|peer| owner[peer]).collect();
    assert_eq!(sent.len(), others.len().min(a.want.count), "as many as asked for, each once");
    let addresses = sent.iter().map(|i| others[*i].addresses().count()).sum::<usize>();
    assert_eq!(peers.len(), addresses, "and each with all its addresses");
}

/// What can be done to a swarm by itself, without the rules.
#[derive(Clone, Debug)]
enum Change {
    Put { user: u32, client: u16, left: u64, paused: bool, at: [bool; 2], seen: [u32; 2] },
    Remove { user: u32, client: u16 },
    RemoveUser(u32),
    Expire(u32),
}

#[test]
fn a_swarm_holds_what_was_put_into_it_and_not_taken_out() {
    let (user, client) = (0..4u32, 0..12u16);
    let put = (user.clone(), client.clone(), 0..2u64, any::<bool>(), any::<[bool; 2]>(), [0..50u32, 0..50]).prop_map(
        |(user, client, left, paused, at, seen)| {
            let seen = [seen[0] * u32::from(at[0]), seen[1] * u32::from(at[1])];
            Change::Put { user, client, left, paused: paused && left > 0, at, seen }
        },
    );
    let change = prop_oneof![
        20 => put,
        8 => (user.clone(), client).prop_map(|(user, client)| Change::Remove { user, client }),
        1 => user.prop_map(Change::RemoveUser),
        1 => (0..60u32).prop_map(Change::Expire),
    ];
    check(300, proptest::collection::vec(change, 0..300), |changes| {
        let (mut swarm, mut model) = (Swarm::default(), HashMap::new());
        for change in changes {
            apply(change, &mut swarm, &mut model);
            let seeders = model.values().filter(|(s, _): &&(Session, _)| s.left == 0).count();
            let paused = model.values().filter(|(s, _)| s.paused).count();
            prop_assert_eq!(swarm.len(), model.len());
            prop_assert_eq!(swarm.seeders(), seeders);
            prop_assert_eq!(swarm.leechers(), model.len() - seeders);
            prop_assert_eq!(swarm.downloaders(), model.len() - seeders - paused);
            for ((user, peer_id), (session, at)) in &model {
                let found = swarm.find(*user, peer_id).and_then(|slot| swarm.get(slot));
                prop_assert_eq!(found, Some((session, *at)));
            }
            for (session, _) in swarm.iter() {
                prop_assert!(model.contains_key(&(session.user, session.peer_id)));
            }
            for user in 1..4 {
                let sessions = model.keys().filter(|(owner, _)| *owner == user).count();
                prop_assert_eq!(swarm.of_user(user, &PeerId([0; 20])).count(), sessions);
            }
        }
        Ok(())
    });
}

fn apply(change: Change, swarm: &mut Swarm, model: &mut HashMap<(u32, PeerId), (Session, Addresses)>) {
    match change {
        Change::Put { user, client: n, left, paused, at: families, seen } => {
            let peer_id = client(n).peer_id;
            let session = Session { paused, ..session(user, peer_id, left, seen) };
            let mut at = Addresses::NONE;
            if families[0] {
                at.set(client(n).ip, n + 1);
            }
            if families[1] {
                at.set(client(n).over_v6().ip, n + 1);
            }
            let slot = swarm.put(swarm.find(user, &peer_id), session, at);
            assert_eq!(swarm.get(slot), Some((&session, at)));
            model.insert((user, peer_id), (session, at));
        }
        Change::Remove { user, client: n } => {
            let peer_id = client(n).peer_id;
            let removed = swarm.find(user, &peer_id).map(|slot| swarm.remove(slot));
            assert_eq!(removed, model.remove(&(user, peer_id)));
        }
        Change::RemoveUser(user) => {
            let removed = swarm.expire(|s| if s.user == user { u32::MAX } else { 0 });
            let gone: BTreeSet<_> = removed.iter().map(|(s, _)| (user, s.peer_id)).collect();
            assert_eq!(gone.len(), removed.len());
            let owned = model.keys().filter(|(owner, _)| *owner == user).copied().collect();
            assert_eq!(gone, owned);
            model.retain(|(owner, _), _| *owner != user);
        }
        Change::Expire(deadline) => {
            let expired = swarm.expire(|_| deadline);
            let gone: BTreeSet<_> = expired.iter().map(|(s, _)| (s.user, s.peer_id)).collect();
            assert_eq!(gone.len(), expired.len());
            let silent = model.iter().filter(|(_, (session, _))| session.last_seen() < deadline);
            let silent: BTreeSet<_> = silent.map(|(key, _)| *key).collect();
            let lapsed = |(session, _): &(Session, Addresses)| {
                let mut seen = session.seen.iter();
                seen.any(|&seen| seen != 0 && seen < deadline)
            };
            let lost = model.iter().filter(|(_, member)| lapsed(member));
            let told = lost.map(|(key, _)| *key).chain(silent.clone()).collect();
            assert_eq!(gone, told);
            model.retain(|key, _| !silent.contains(key));
            for (session, at) in model.values_mut() {
                if session.seen[0] != 0 && session.seen[0] < deadline {
                    (session.seen[0], at.v4) = (0, Addresses::NONE.v4);
                }
                if session.seen[1] != 0 && session.seen[1] < deadline {
                    (session.seen[1], at.v6) = (0, Addresses::NONE.v6);
                }
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// The choice of peers.

/// So many seeders and leechers, each with an address that tells its number.
fn swarm_of(seeders: u32, leechers: u32) -> Swarm {
    let mut swarm = Swarm::default();
    for n in 0..seeders + leechers {
        let (peer_id, left) = (peer_id_of(n), u64::from(n >= seeders));
        let session = session(1 + n, peer_id, left, [NOW, 0]);
        let mut at = Addresses::NONE;
        at.set(Ipv4Addr::from(n).into(), 1);
        swarm.put(None, session, at);
    }
    swarm
}

fn peer_id_of(n: u32) -> PeerId {
    let mut peer_id = [0; 20];
    peer_id[..4].copy_from_slice(&n.to_be_bytes());
    PeerId(peer_id)
}

/// The numbers of the peers that one of a swarm is sent.
fn chosen(swarm: &Swarm, slot: usize, count: usize, rng: &mut Rng) -> Vec<usize> {
    let mut peers = Peers::default();
    swarm.choose(slot, Want { count, v4: true, v6: true, list: false }, rng, &mut peers);
    let peers = addresses(peers).into_iter().map(|address| address.ip());
    let number = |ip| {
        if let IpAddr::V4(ip) = ip { u32::from(ip) as usize } else { panic!("{ip}") }
    };
    peers.map(number).collect()
}

fn number_in(swarm: &Swarm, slot: usize) -> usize {
    swarm.get(slot).unwrap().0.user as usize - 1
}

/// Asks so often for `numwant` of those whom `slot` may be sent, and holds the outcome against chance:
/// every one must come up about equally often, and nobody else ever.
fn assert_fair(swarm: &Swarm, slot: usize, numwant: usize, times: u32, seed: u64) {
    let mut rng = Rng::new(seed);
    let least = if slot < swarm.seeders() { swarm.seeders() } else { 0 };
    let among = (least..swarm.len()).filter(|other| *other != slot);
    let among: BTreeSet<usize> = among.map(|slot| number_in(swarm, slot)).collect();
    let mut tally = vec![0; swarm.len()];
    for _ in 0..times {
        let numbers = chosen(swarm, slot, numwant, &mut rng);
        assert_eq!(numbers.len(), numwant.min(among.len()));
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "nobody twice: {numbers:?}");
        numbers.into_iter().for_each(|number| tally[number] += 1);
    }
    let others = (0..swarm.len()).filter(|number| !among.contains(number));
    assert_eq!(others.map(|number| tally[number]).sum::<u32>(), 0, "nobody else");
    let tally: Vec<u32> = among.iter().map(|number| tally[*number]).collect();
    assert_even(&tally, numwant as f64 / among.len() as f64);
}

/// Holds how often each peer came up, where each had this chance each time, against what is usual.
///
/// A tally is binomial; the sum of the squares of n of them, less what is expected and in units of their
/// variance, is n on average and seldom far from it (chi-square). Its own variance is more than 2n here,
/// because neighbours seldom come up together: 6 deviations of twice that are allowed.
fn assert_even(tally: &[u32], chance: f64) {
    let n = tally.len() as f64;
    let expected = f64::from(tally.iter().sum::<u32>()) / n;
    let variance = expected * (1.0 - chance);
    let off = || tally.iter().map(|count| f64::from(*count) - expected);
    let chi_square = off().map(|off| off * off).sum::<f64>() / variance;
    let range = (n - 6.0 * (4.0 * n).sqrt())..(n + 6.0 * (4.0 * n).sqrt());
    assert!(range.contains(&chi_square), "chi-square of {n} peers is {chi_square}: {tally:?}");
    let worst = off().map(f64::abs).fold(0.0, f64::max);
    assert!(worst < 6.0 * variance.sqrt(), "one is off by {worst}: {tally:?}");
}

#[test]
fn each_of_100_peers_is_as_likely_as_any_other_to_be_among_50() {
    let swarm = swarm_of(30, 71);
    for (seed, slot) in (1..).zip([30, 31, 70, 99, 100]) {
        assert_fair(&swarm, slot, 50, 5_000, seed);
    }
}

#[test]
fn each_of_10_000_peers_is_as_likely_as_any_other_to_be_among_50() {
    let swarm = swarm_of(5_000, 5_001);
    assert_fair(&swarm, 7_777, 50, 20_000, 1);
}

#[test]
fn each_leecher_is_as_likely_as_any_other_to_be_sent_to_a_seeder() {
    let swarm = swarm_of(40, 130);
    for (seed, slot) in (1..).zip([0, 20, 39]) {
        assert_fair(&swarm, slot, 50, 5_000, seed);
        assert_fair(&swarm, slot, 1, 5_000, seed);
    }
}

#[test]
fn the_choice_is_fair_whatever_the_numbers() {
    for (seed, (peers, numwant)) in (1..).zip([(2, 1), (3, 2), (7, 3), (51, 50), (53, 7), (200, 199)]) {
        let swarm = swarm_of(0, peers + 1);
        assert_fair(&swarm, peers as usize / 2, numwant, 5_000, seed);
    }
}

/// Whoever can use one family only, as over UDP, is sent only that. In this swarm the peers of the two
/// families came one after the other.
#[test]
fn each_peer_of_one_family_is_as_likely_as_any_other_to_be_sent_to_those_who_want_that_one() {
    let mut swarm = swarm_of(0, 401);
    for n in 200..400 {
        let slot = swarm.find(1 + n, &peer_id_of(n)).unwrap();
        let (session, mut at) = swarm.get(slot).map(|(session, at)| (*session, at)).unwrap();
        at.v4 = Addresses::NONE.v4;
        at.set(Ipv6Addr::from(u128::from(n)).into(), 1);
        swarm.put(Some(slot), session, at);
    }
    let (mut rng, mut tally, mut sent) = (Rng::new(1), vec![0; 200], 0);
    for _ in 0..5_000 {
        let (mut peers, want) = (Peers::default(), Want { count: 50, v4: true, v6: false, list: false });
        swarm.choose(400, want, &mut rng, &mut peers);
        let peers = addresses(peers);
        sent += peers.len();
        assert!(peers.len() <= 50);
        for peer in peers {
            let IpAddr::V4(ip) = peer.ip() else { panic!("{peer}") };
            tally[u32::from(ip) as usize] += 1;
        }
    }
    assert_even(&tally, sent as f64 / (5_000.0 * 200.0));
}

#[test]
fn few_peers_of_one_family_among_thousands_are_sent_to_those_who_want_that_one() {
    let mut swarm = swarm_of(0, 4_001);
    let rare = [7, 2_000, 3_999];
    for n in rare {
        let slot = swarm.find(1 + n, &peer_id_of(n)).unwrap();
        let (session, mut at) = swarm.get(slot).map(|(session, at)| (*session, at)).unwrap();
        at.set(Ipv6Addr::from(u128::from(n)).into(), 1);
        swarm.put(Some(slot), session, at);
    }
    let want = Want { count: 50, v4: false, v6: true, list: false };
    let mut rng = Rng::new(1);
    for _ in 0..100 {
        let mut peers = Peers::default();
        swarm.choose(4_000, want, &mut rng, &mut peers);
        let mut sent: Vec<IpAddr> = addresses(peers).iter().map(|peer| peer.ip()).collect();
        sent.sort();
        assert_eq!(sent, rare.map(|n| IpAddr::from(Ipv6Addr::from(u128::from(n)))));
    }
}

#[test]
fn two_announces_in_a_row_are_sent_different_peers() {
    let (swarm, mut rng) = (swarm_of(0, 1000), Rng::new(1));
    let first = chosen(&swarm, 0, 50, &mut rng);
    let second = chosen(&swarm, 0, 50, &mut rng);
    let both = first.iter().filter(|number| second.contains(number)).count();
    assert!(both < 15, "{both} of 50 of 1,000 twice");
}

#[test]
fn the_work_of_a_choice_grows_with_numwant_and_not_with_the_swarm() {
    // Random numbers drawn.
    let work = |swarm: &Swarm, numwant: usize| {
        let mut used = Rng::new(7);
        assert_eq!(chosen(swarm, 3, numwant, &mut used).len(), numwant);
        let (next, mut fresh) = (used.below(usize::MAX), Rng::new(7));
        (0..10_000).take_while(|_| fresh.below(usize::MAX) != next).count()
    };
    let (small, large) = (swarm_of(500, 501), swarm_of(50_000, 50_001));
    for numwant in [1, 10, 50, 200] {
        assert!(work(&small, numwant) <= numwant + 1);
        assert_eq!(work(&small, numwant), work(&large, numwant));
    }
}

#[test]
fn both_families_of_those_who_have_both_are_sent() {
    let mut swarm = swarm_of(0, 21);
    for n in 0..20 {
        let slot = swarm.find(1 + n, &peer_id_of(n)).unwrap();
        let (session, mut at) = swarm.get(slot).map(|(session, at)| (*session, at)).unwrap();
        at.set(Ipv6Addr::from(u128::from(n) + 1).into(), 2);
        if n % 2 == 0 {
            at.v4 = Addresses::NONE.v4;
        }
        swarm.put(Some(slot), session, at);
    }
    let asked = |v4, v6, list| {
        let mut peers = Peers::default();
        let want = Want { count: 50, v4, v6, list };
        swarm.choose(20, want, &mut Rng::new(1), &mut peers);
        (peers.v4.len() / 6, peers.v6.len() / 18, peers.list.len())
    };
    assert_eq!(asked(true, true, false), (10, 20, 0));
    assert_eq!(asked(true, false, false), (10, 0, 0));
    assert_eq!(asked(false, true, false), (0, 20, 0));
    assert_eq!(asked(true, true, true), (0, 0, 30));
}

#[test]
fn a_list_is_the_same_choice_as_a_compact_one() {
    let swarm = swarm_of(10, 91);
    let mut list = Peers::default();
    let want = Want { count: 50, v4: true, v6: true, list: true };
    swarm.choose(50, want, &mut Rng::new(9), &mut list);
    let ids: BTreeSet<PeerId> = list.list.iter().map(|(id, ..)| *id).collect();
    let compact = chosen(&swarm, 50, 50, &mut Rng::new(9));
    assert!(ids.into_iter().eq(compact.into_iter().map(|number| peer_id_of(number as u32))));
}
