//! UDP: what goat reads and writes, whom it answers, and that its rules are those of HTTP.
//!
//! Packets are made and read here by their offsets in BEP 15 and BEP 41, without goat's own code. Most
//! tests ask the real binary over sockets; what is about old connection ids or about millions of
//! datagrams is put to `Responder`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use crate::common::{Announce, Database, Folder, Goat, PATIENCE, hex, info_hash, peer_id, scrape, skip, wait_until};
use goat::keeper::Writer;
use goat::protocol::{self, Event, Peers, Reply, Scrape, Want};
use goat::random::Rng;
use goat::rules::access::User;
use goat::rules::announce::Buffers;
use goat::torrent::{InfoHash, PeerId};
use goat::tracker::Tracker;
use goat::udp::connection_id::ConnectionIds;
use goat::udp::{self, Action, Outcome, Packet, Responder};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseResult, TestRng, TestRunner};
use serde_json::{Value, json};

// ---------------------------------------------------------------------------------------------------
// Packets: pure functions.

fn packet(connection: u64, transaction: u32, action: Action<'_>) -> Packet<'_> {
    Packet { connection, transaction, action }
}

#[test]
fn a_connect_request_is_read_back_whatever_follows_it() {
    check(1_000, (any::<u32>(), bytes(0..100)), |(transaction, rest)| {
        let datagram = [connect(transaction), rest].concat();
        prop_assert_eq!(udp::read(&datagram, HOME), Some(packet(MAGIC, transaction, Action::Connect)));
        Ok(())
    });
}

#[test]
fn an_announce_is_read_back_with_the_options_that_follow_it() {
    let values = (any::<(u64, u32)>(), any_question());
    check(5_000, values, |((connection, transaction), question)| {
        let datagram = question.bytes(connection, transaction);
        for ip in [IpAddr::from([192, 0, 2, 1]), IpAddr::from([0x20; 16])] {
            let (default, most) = (50, if ip.is_ipv4() { 200 } else { 74 });
            let count = usize::try_from(question.numwant).map_or(default, |wanted| wanted.min(most));
            let announce = protocol::Announce {
                info_hash: InfoHash(question.info_hash),
                peer_id: PeerId(question.peer_id),
                ip,
                port: question.port,
                uploaded: question.uploaded,
                downloaded: question.downloaded,
                left: question.left,
                event: match question.event {
                    1 => Event::Completed,
                    2 => Event::Started,
                    3 => Event::Stopped,
                    _ => Event::None,
                },
                udp: true,
                want: Want { count, v4: ip.is_ipv4(), v6: ip.is_ipv6(), list: false },
            };
            let action = Action::Announce(announce, &question.options);
            let packet = packet(connection, transaction, action);
            prop_assert_eq!(udp::read(&datagram, ip), Some(packet));
        }
        Ok(())
    });
}

#[test]
fn a_scrape_is_read_back_whatever_follows_its_last_whole_hash() {
    let values = (any::<(u64, u32)>(), vec(any::<[u8; 20]>(), 1..75), bytes(0..20));
    check(1_000, values, |((connection, transaction), hashes, rest)| {
        let datagram = [scrape_of(connection, transaction, &hashes), rest].concat();
        let packet = packet(connection, transaction, Action::Scrape(&hashes));
        prop_assert_eq!(udp::read(&datagram, HOME), Some(packet));
        Ok(())
    });
}

#[test]
fn of_a_scrape_of_more_than_74_torrents_the_first_74_count() {
    let hashes: Vec<[u8; 20]> = (0..80).map(info_hash).collect();
    for count in [74, 75, 80] {
        let datagram = scrape_of(1, 2, &hashes[..count]);
        let first = packet(1, 2, Action::Scrape(&hashes[..74]));
        assert_eq!(udp::read(&datagram, HOME), Some(first), "{count}");
    }
}

#[test]
fn every_request_that_is_cut_short_is_none() {
    let hashes = [info_hash(1)];
    for whole in [connect(7), leecher(1).bytes(5, 7), scrape_of(5, 7, &hashes)] {
        assert!(udp::read(&whole, HOME).is_some());
        for length in 0..whole.len() {
            assert_eq!(udp::read(&whole[..length], HOME), None, "{length} bytes");
        }
    }
}

#[test]
fn another_magic_and_unknown_actions_are_no_requests() {
    check(
        2_000,
        (any::<u64>(), 3_u32.., any::<u32>(), bytes(0..200)),
        |(first, action, transaction, rest): (u64, u32, u32, Vec<u8>)| {
            let datagram = |action: u32| [head(first, action, transaction), rest.clone()].concat();
            prop_assert!(udp::read(&datagram(action), HOME).is_none());
            prop_assert!(first == MAGIC || udp::read(&datagram(0), HOME).is_none());
            Ok(())
        },
    );
    for first in [0, MAGIC - 1, MAGIC + 1, MAGIC << 16, MAGIC.swap_bytes()] {
        assert_eq!(udp::read(&head(first, 0, 1), HOME), None, "{first:x}");
    }
}

#[test]
fn of_any_bytes_goat_reads_what_their_offsets_say() {
    let values = (bytes(0..130), any::<[bool; 2]>(), 0_u8..5);
    check(20_000, values, |(mut datagram, [magic, known], action)| {
        if magic && datagram.len() >= 8 {
            datagram[..8].copy_from_slice(&MAGIC.to_be_bytes());
        }
        if known && datagram.len() >= 12 {
            datagram[8..12].copy_from_slice(&[0, 0, 0, action]);
        }
        let read = udp::read(&datagram, HOME).map(|packet| {
            let kind = match packet.action {
                Action::Connect => Kind::Connect,
                Action::Announce(..) => Kind::Announce,
                Action::Scrape(_) => Kind::Scrape,
            };
            (kind, packet.connection, packet.transaction)
        });
        let expected = Kind::of(&datagram).map(|kind| (kind, u64_at(&datagram, 0), u32_at(&datagram, 12)));
        prop_assert_eq!(read, expected);
        Ok(())
    });
}

#[test]
fn the_examples_of_bep_41_are_understood() {
    let example = b"\x02\x0c/dir?a=b&c=d";
    let padded = b"\x02\x0c/dir?a=b&c=d\x01\x01\x00";
    for options in [&example[..], padded] {
        assert_eq!(url_data(options), b"/dir?a=b&c=d");
    }
    assert_eq!(url_data(b"\x02\x00"), b"");
    assert_eq!(url_data(b""), b"");
}

#[test]
fn url_data_is_joined_from_options_of_every_kind_in_any_order() {
    let values = (vec(any_option(), 0..12), any_ending());
    check(20_000, values, |(options, ending)| {
        let url: Vec<u8> = options.iter().flat_map(Opt::url).copied().collect();
        prop_assume!(url.len() <= 512);
        let written = [options.iter().flat_map(Opt::bytes).collect(), ending].concat();
        prop_assert_eq!(url_data(&written), url);
        Ok(())
    });
}

#[test]
fn options_that_are_cut_anywhere_give_the_url_data_of_those_that_are_whole() {
    let values = vec(any_option(), 1..8);
    check(2_000, values, |options| {
        let mut written = Vec::new();
        let mut whole = vec![(0, Vec::new())]; // how many bytes hold how much of the URL
        for option in &options {
            written.extend(option.bytes());
            let url = [&whole.last().unwrap().1, option.url()].concat();
            whole.push((written.len(), url));
        }
        prop_assume!(whole.last().unwrap().1.len() <= 512);
        for cut in 0..written.len() {
            let (_, url) = whole.iter().rfind(|(end, _)| *end <= cut).unwrap();
            prop_assert_eq!(&url_data(&written[..cut]), url, "{} bytes", cut);
        }
        Ok(())
    });
}

#[test]
fn any_bytes_are_options_to_somebody() {
    let byte = prop_oneof![1_u8..4, any::<u8>()];
    check(20_000, vec(byte, 0..600), |options| {
        let (found, expected) = (url_data(&options), url_by_hand(&options));
        if expected.len() <= 512 {
            prop_assert_eq!(found, expected);
        } else {
            prop_assert!(expected.starts_with(&found));
        }
        Ok(())
    });
}

#[test]
fn what_goat_writes_is_read_back() {
    let counts = any::<(u32, u32, u32, u32)>;
    let values = (any::<(u32, u64)>(), counts(), bytes(0..200), vec(counts(), 0..75));
    check(2_000, values, |((transaction, connection), numbers, peers, torrents)| {
        let mut out = b"what was answered before".to_vec();
        udp::write_connect(&mut out, transaction, connection);
        prop_assert_eq!(decode(&out), (transaction, Answer::Connected(connection)));

        let (interval, leechers, seeders, downloaded) = numbers;
        let reply = Reply {
            complete: seeders as usize,
            incomplete: leechers as usize,
            downloaded,
            interval,
            min_interval: interval / 2,
        };
        for v4 in [true, false] {
            let (four, six) = if v4 { (&peers[..], &[][..]) } else { (&[][..], &peers[..]) };
            let (v4, v6) = (four.to_vec(), six.to_vec());
            let list = Vec::new();
            udp::write_announce(&mut out, transaction, &reply, &Peers { v4, v6, list });
            let announced = Announced { interval, leechers, seeders, peers: peers.clone() };
            prop_assert_eq!(decode(&out), (transaction, Answer::Announced(announced)));
        }

        let scraped = torrents.iter().map(|&(seeders, completed, leechers, others)| Scrape {
            complete: seeders as usize,
            downloaded: completed,
            incomplete: leechers as usize,
            downloaders: others as usize,
        });
        udp::write_scrape(&mut out, transaction, scraped);
        let expected = torrents.iter().map(|&(seeders, completed, leechers, _)| [seeders, completed, leechers]);
        let expected = Answer::Scraped(expected.collect());
        prop_assert_eq!(decode(&out), (transaction, expected));

        udp::write_error(&mut out, transaction, "Slow down");
        prop_assert_eq!(decode(&out), (transaction, Answer::Error("Slow down".into())));
        Ok(())
    });
}

// ---------------------------------------------------------------------------------------------------
// Connection ids.

const NOW: u32 = 1_800_000_000;

#[test]
fn a_connection_id_is_good_for_two_minutes_and_no_longer() {
    let ids = ConnectionIds::new().unwrap();
    // Also where the 16 bits of the time in it begin anew.
    for made in [NOW, NOW | 0xffff, (NOW | 0xffff) - 60, 0xffff, u32::MAX - 200] {
        let id = ids.make(HOME, made);
        for age in 0..=120 {
            assert!(ids.check(id, HOME, made + age), "made {made}, {age} old");
        }
        let day = (121..86_400).step_by(7);
        for age in day.chain([121, 122, 1 << 16, (1 << 16) + 60, 1 << 17, 1 << 24]) {
            let Some(now) = made.checked_add(age) else {
                continue;
            };
            assert!(!ids.check(id, HOME, now), "made {made}, {age} old");
        }
    }
}

#[test]
fn a_connection_id_from_the_future_is_refused() {
    let ids = ConnectionIds::new().unwrap();
    for ahead in (1..=300).chain([(1 << 16) - 120, (1 << 16) - 1, 1 << 16, 1 << 17]) {
        assert!(!ids.check(ids.make(HOME, NOW + ahead), HOME, NOW), "{ahead} s");
    }
}

#[test]
fn a_connection_id_is_good_for_one_address_only() {
    let ids = ConnectionIds::new().unwrap();
    let four = Ipv4Addr::new(192, 0, 2, 1);
    let homes: [IpAddr; 6] = [
        four.into(),
        Ipv4Addr::new(192, 0, 2, 2).into(),
        four.to_ipv6_mapped().into(),
        // The same 4 bytes, followed by zeros.
        Ipv6Addr::new(0xc000, 0x0201, 0, 0, 0, 0, 0, 0).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2).into(),
    ];
    for made_for in homes {
        let id = ids.make(made_for, NOW);
        for home in homes {
            assert_eq!(ids.check(id, home, NOW), home == made_for, "{made_for} {home}");
        }
    }
}

#[test]
fn a_connection_id_counts_in_all_its_64_bits() {
    let ids = ConnectionIds::new().unwrap();
    let id = ids.make(HOME, NOW);
    for bit in 0..64 {
        assert!(!ids.check(id ^ 1 << bit, HOME, NOW), "bit {bit}");
    }
    for id in [0, u64::MAX, MAGIC] {
        assert!(!ids.check(id, HOME, NOW), "{id:x}");
    }
}

#[test]
fn a_connection_id_of_another_run_is_refused() {
    let [before, after] = [(); 2].map(|()| ConnectionIds::new().unwrap());
    assert!(!after.check(before.make(HOME, NOW), HOME, NOW));
}

#[test]
fn old_and_future_connection_ids_are_refused_in_fewer_bytes_than_were_sent() {
    let site = Site::new(json!({ "Passkey": false }));
    let now = site.tracker.clock.now();
    // Far enough from two minutes that the test may take its time.
    for (id, good) in [
        (site.ids.make(HOME, now), true),
        (site.ids.make(HOME, now - 60), true),
        (site.ids.make(HOME, now - 121), false),
        (site.ids.make(HOME, now - 3_600), false),
        (site.ids.make(HOME, now + 1_000), false),
    ] {
        let questions = [leecher(1).bytes(id, 9), scrape_of(id, 9, &[info_hash(1)])];
        for question in questions {
            let answer = site.ask(HOME, &question).expect("an answer");
            match decode(&answer) {
                (9, Answer::Error(error)) => {
                    assert!(!good);
                    assert_eq!(error, "Invalid connection id");
                    assert!(answer.len() <= question.len());
                }
                (9, _) => assert!(good),
                other => panic!("{other:?}"),
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// Ten million datagrams.

#[test]
fn ten_million_strange_datagrams_do_no_harm_and_are_not_amplified() {
    let count = if cfg!(debug_assertions) { 500_000 } else { 10_000_000 };
    let seed = std::env::var("GOAT_TEST_SEED")
        .map_or_else(|_| Rng::from_system().bits(), |seed| seed.parse().expect("GOAT_TEST_SEED is a number"));
    let halves = std::thread::scope(|scope| {
        let half = |passkey: bool| {
            let seed = seed ^ u64::from(passkey);
            scope.spawn(move || Fuzz::new(seed, passkey).run(count / 2))
        };
        let halves = [half(true), half(false)];
        halves.map(|half| half.join())
    });
    let mut tally = Tally::default();
    for half in halves {
        match half {
            Ok(other) => tally.add(other),
            Err(panic) => {
                println!("to see it again: GOAT_TEST_SEED={seed}");
                std::panic::resume_unwind(panic)
            }
        }
    }
    tally.show();
    // They were not so strange that nothing came of them.
    let longest = [20 + 6 * 200, 20 + 18 * 74, 8 + 12 * 74];
    assert_eq!(tally.longest, longest, "seed {seed}");
    assert!(tally.slow > 0 && tally.errors > 0, "seed {seed}");
}

/// What was answered to whom.
#[derive(Default)]
struct Tally {
    /// To senders without a connection id of their own: datagrams, their bytes, bytes of the answers, and
    /// the largest ratio of an answer to its question.
    strangers: BTreeMap<&'static str, (u64, u64, u64, f64)>,
    /// The same for the others.
    known: BTreeMap<&'static str, (u64, u64, u64, f64)>,
    /// The longest answers to an announce over IPv4, over IPv6, and to a scrape.
    longest: [usize; 3],
    errors: u64,
    slow: u64,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        for (mine, others) in [(&mut self.strangers, other.strangers), (&mut self.known, other.known)] {
            for (kind, (count, asked, answered, most)) in others {
                let sum = mine.entry(kind).or_default();
                *sum = (sum.0 + count, sum.1 + asked, sum.2 + answered, sum.3.max(most));
            }
        }
        for (longest, other) in self.longest.iter_mut().zip(other.longest) {
            *longest = other.max(*longest);
        }
        self.errors += other.errors;
        self.slow += other.slow;
    }

    fn show(&self) {
        println!("sender       packet     datagrams  bytes/datagram  answered/asked      most");
        for (who, kinds) in [("unconnected", &self.strangers), ("connected", &self.known)] {
            for (kind, (count, asked, answered, most)) in kinds {
                let mean = *asked as f64 / *count as f64;
                let factor = *answered as f64 / *asked as f64;
                println!("{who:12} {kind:9} {count:10}  {mean:14.1}  {factor:14.3}  {most:8.3}");
            }
        }
        let Tally { errors, slow, longest, .. } = self;
        println!("{errors} errors, {slow} for the database; longest answers {longest:?}");
    }
}

/// A tracker that is sent nonsense.
struct Fuzz {
    site: Site,
    rng: Rng,
    seed: u64,
    /// What the options of members' announces are, and of others.
    options: Vec<Vec<u8>>,
    homes: Vec<IpAddr>,
    /// All connection ids that were given out, and the last of each address.
    given: HashSet<(IpAddr, u64)>,
    last: HashMap<IpAddr, u64>,
}

impl Fuzz {
    const TORRENTS: u32 = 4;
    const MEMBERS: usize = 40;

    fn new(seed: u64, passkey: bool) -> Fuzz {
        // Hardly anybody is refused for being too many: more of the code is reached.
        let site = Site::new(json!({
            "Passkey": passkey, "Whitelist": passkey, "Clients": 1_000_000,
        }));
        let store = &site.tracker.store;
        let options = |url: &str| leecher(0).url(url).options;
        let mut all = Vec::new();
        for n in 0..Fuzz::MEMBERS {
            let user = store.add_user(&format!("member{n}"), 0, false).unwrap();
            let known = User::new(user.id, &user.passkey, 0, false);
            site.tracker.access.put_user(known);
            all.push(options(&format!("/{}/announce", user.passkey)));
        }
        let banned = User::new(1_000, &"b".repeat(40), 0, true);
        site.tracker.access.put_user(banned);
        // Two that only the database knows.
        let new = store.add_user("new", 0, false).unwrap().passkey;
        store.add_file(&InfoHash(info_hash(100)), None, "", 0).unwrap();
        let long = format!("/{new}/announce?{}", "x".repeat(900));
        let banned = format!("/{}/announce", "b".repeat(40));
        let nobody = format!("/{}/announce", "0".repeat(40));
        all.extend(["/announce", &banned, &nobody, &long].map(options));
        all.push(Vec::new());
        let four = (1..=40).map(|n| Ipv4Addr::new(198, 51, 100, n).into());
        let six = (1..=40).map(|n| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, n).into());
        let mut fuzz = Fuzz {
            homes: four.chain(six).collect(),
            site,
            rng: Rng::new(seed),
            seed,
            options: all,
            given: HashSet::new(),
            last: HashMap::new(),
        };
        for home in fuzz.homes.clone() {
            fuzz.connect(home);
        }
        fuzz
    }

    fn connect(&mut self, home: IpAddr) {
        let answer = self.site.ask(home, &connect(1)).unwrap();
        let (1, Answer::Connected(id)) = decode(&answer) else { panic!("{answer:?}") };
        self.note(home, id);
    }

    fn note(&mut self, home: IpAddr, id: u64) {
        self.given.insert((home, id));
        self.last.insert(home, id);
    }

    /// Begins anew with more peers than are ever sent, so that memory does not tell how long this runs.
    fn refill(&mut self) {
        let tracker = self.site.tracker.clone();
        let now = tracker.clock.now();
        Writer::new(now).write(&tracker, now, |_| false).unwrap();
        for n in 1..=Fuzz::TORRENTS {
            let hash = InfoHash(info_hash(n));
            tracker.remove_torrent(&hash);
            let mut file = tracker.store.add_file(&hash, None, "", 0).unwrap();
            file.verified = n < Fuzz::TORRENTS;
            tracker.put_torrent(&file);
        }
        for n in 1..=600_u16 {
            let [high, low] = n.to_be_bytes();
            let home: IpAddr = match n % 2 {
                0 => Ipv4Addr::new(10, 0, high, low).into(),
                _ => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 2, n).into(),
            };
            self.connect(home);
            let options = self.options[usize::from(n) % Fuzz::MEMBERS].clone();
            let question = Question { options, ..leecher(n) };
            let answer = self.site.ask(home, &question.bytes(self.last[&home], 1));
            let answer = decode(&answer.unwrap());
            assert!(matches!(answer, (1, Answer::Announced(_))), "{answer:?}");
        }
    }

    fn run(mut self, count: u64) -> Tally {
        let mut tally = Tally::default();
        let mut out = Vec::new();
        for n in 0..count {
            if n % 250_000 == 0 {
                self.refill();
            }
            if n % 20_000 == 0 {
                // No id grows old, however slow the machine.
                for home in self.homes.clone() {
                    self.connect(home);
                }
            }
            let home = self.homes[self.rng.below(self.homes.len())];
            let datagram = self.datagram(home);
            let place = Place { seed: self.seed, n, datagram: &datagram };
            let wait = self.rng.below(2_000) == 0;
            out.clear();
            let outcome = self.site.answer(&datagram, home, wait, &mut out);
            let id = self.judge(home, &datagram, &outcome, &out, &mut tally);
            drop(place);
            if let Some(id) = id {
                self.note(home, id);
            }
        }
        tally
    }

    /// Compares what became of a datagram with the rules; gives the connection id that it was answered.
    fn judge(&self, home: IpAddr, datagram: &[u8], outcome: &Outcome, out: &[u8], tally: &mut Tally) -> Option<u64> {
        let kind = Kind::of(datagram);
        let known = datagram.len() >= 8 && self.given.contains(&(home, u64_at(datagram, 0)));
        let mut given = None;
        let answer = match outcome {
            Outcome::Answer => out,
            Outcome::Slow => {
                assert!(known && kind == Some(Kind::Announce), "only for who is known");
                tally.slow += 1;
                &[]
            }
            Outcome::Silence => {
                assert_eq!(kind, None, "a request got no answer");
                &[]
            }
        };
        if !answer.is_empty() {
            let kind = kind.expect("what is no request gets no answer");
            let (transaction, answer) = decode(answer);
            assert_eq!(transaction, u32_at(datagram, 12));
            match answer {
                Answer::Connected(id) => {
                    assert_eq!(kind, Kind::Connect);
                    given = Some(id);
                }
                Answer::Announced(announced) => {
                    assert!(known && kind == Kind::Announce);
                    let (peer, most, family) = if home.is_ipv4() { (6, 200, 0) } else { (18, 74, 1) };
                    assert!(announced.peers.len().is_multiple_of(peer));
                    assert!(announced.peers.len() <= peer * most);
                    tally.longest[family] = tally.longest[family].max(out.len());
                }
                Answer::Scraped(torrents) => {
                    assert!(known && kind == Kind::Scrape);
                    assert_eq!(torrents.len(), ((datagram.len() - 16) / 20).min(74));
                    tally.longest[2] = tally.longest[2].max(out.len());
                }
                Answer::Error(error) => {
                    assert!(kind != Kind::Connect && error.len() <= 100, "{error}");
                    assert_eq!(!known, error == "Invalid connection id", "{error}");
                    tally.errors += 1;
                }
            }
        }
        assert!(known || answer.len() <= datagram.len(), "amplified");

        let tallied = if known { &mut tally.known } else { &mut tally.strangers };
        let sum = tallied.entry(kind.map_or("garbage", Kind::name)).or_default();
        let ratio = answer.len() as f64 / datagram.len().max(1) as f64;
        let (asked, answered) = (datagram.len() as u64, answer.len() as u64);
        *sum = (sum.0 + 1, sum.1 + asked, sum.2 + answered, sum.3.max(ratio));
        given
    }

    /// A request as clients send them, or one with some bytes changed, or no request at all.
    fn datagram(&mut self, home: IpAddr) -> Vec<u8> {
        let id = match self.rng.below(8) {
            0 => self.rng.bits(),
            1 => 0,
            2 => self.last[&self.homes[self.rng.below(self.homes.len())]],
            3 => self.last[&home] ^ 1 << self.rng.below(64),
            _ => self.last[&home],
        };
        let transaction = self.rng.bits() as u32;
        let mut datagram = match self.rng.below(16) {
            0 | 1 => connect(transaction),
            2..=4 => {
                let most = [1, 2, 74, 90][self.rng.below(4)];
                let count = self.rng.below(most + 1);
                let hashes: Vec<[u8; 20]> = (0..count).map(|_| self.hash()).collect();
                scrape_of(id, transaction, &hashes)
            }
            5 => {
                let length = self.rng.below(150);
                self.random(length)
            }
            _ => self.question().bytes(id, transaction),
        };
        if self.rng.below(2) == 0 {
            for _ in 0..=self.rng.below(4) {
                self.mutate(&mut datagram);
            }
        }
        datagram.truncate(2_048);
        datagram
    }

    fn random(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.rng.bits() as u8).collect()
    }

    fn hash(&mut self) -> [u8; 20] {
        // Two are not in memory, one of them is nowhere.
        info_hash([1, 1, 1, 1, 2, 3, 4, 100, 101][self.rng.below(9)])
    }

    fn question(&mut self) -> Question {
        let extremes = [0, 1, 1_000, u64::MAX >> 1, u64::MAX];
        let mut counter = || extremes[self.rng.below(extremes.len())];
        let (uploaded, downloaded, left) = (counter(), counter(), counter());
        let mut peer_id = *b"-qB5020-fuzz........";
        let number = self.rng.below(3_000) as u16;
        peer_id[12..14].copy_from_slice(&number.to_be_bytes());
        let numwants = [-1, 0, 1, 74, 200, 1_000, i32::MAX, i32::MIN];
        Question {
            info_hash: self.hash(),
            peer_id,
            downloaded,
            left,
            uploaded,
            event: self.rng.below(5) as u32,
            ip: [8; 4],
            key: number.into(),
            numwant: numwants[self.rng.below(numwants.len())],
            port: self.rng.below(20) as u16 * 3_000,
            options: self.options[self.rng.below(self.options.len())].clone(),
        }
    }

    fn mutate(&mut self, datagram: &mut Vec<u8>) {
        let at = self.rng.below(datagram.len());
        let room = datagram.len() - at;
        let numbers = [0, 1, 2, 3, 4, 0xff, 0x7fff_ffff, 0x8000_0000, u32::MAX];
        match self.rng.below(8) {
            0 if room > 0 => datagram[at] ^= 1 << self.rng.below(8),
            1 if room > 0 => datagram[at] = self.rng.bits() as u8,
            2 => datagram.truncate(at),
            3 => {
                let length = self.rng.below(60);
                datagram.extend(self.random(length));
            }
            4 => drop(datagram.drain(at..at + self.rng.below(room + 1))),
            5 => datagram.extend_from_within(at..at + self.rng.below(room + 1)),
            6 if room >= 4 => {
                let number = numbers[self.rng.below(numbers.len())];
                datagram[at..at + 4].copy_from_slice(&number.to_be_bytes());
            }
            7 if datagram.len() >= 12 => {
                if self.rng.below(2) == 0 {
                    datagram[..8].copy_from_slice(&MAGIC.to_be_bytes());
                }
                datagram[11] = self.rng.below(5) as u8;
            }
            _ => {}
        }
    }
}

/// Says where a test failed.
struct Place<'a> {
    seed: u64,
    n: u64,
    datagram: &'a [u8],
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Place { seed, n, datagram } = self;
            println!("seed {seed}, datagram {n}: {}", hex(datagram));
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// Over sockets: connections.

#[test]
fn a_client_connects_announces_and_scrapes() {
    let (_database, _goat, client) = public();
    let Announced { interval, leechers, seeders, peers } = client.accepted(&leecher(1));
    assert_eq!((interval, leechers, seeders, peers.len()), (600, 1, 0, 0));
    let answer = client.accepted(&Question { left: 0, ..leecher(2) });
    assert_eq!((answer.leechers, answer.seeders), (1, 1));
    assert!((3_000..=3_600).contains(&answer.interval));
    assert_eq!(answer.peers, [127, 0, 0, 1, 39, 17], "port 10001");
    assert_eq!(client.scrape(&[info_hash(1)]), [[1, 0, 1]]);
}

#[test]
fn a_connection_id_that_is_not_the_senders_is_refused_in_fewer_bytes_than_were_sent() {
    let (_database, mut goat, client) = public();
    let other = Client::at("127.0.0.2", goat.address());
    let wrong = [0, 1, MAGIC, client.connection ^ 1, other.connection];
    let refused = |client: &Client, id: u64| {
        for question in [leecher(1).bytes(id, 5), scrape_of(id, 6, &[info_hash(1)])] {
            let answer = client.exchange(&question);
            let error = Answer::Error("Invalid connection id".into());
            assert_eq!(decode(&answer).1, error, "{id:x}");
            assert!(answer.len() <= question.len());
        }
    };
    wrong.iter().for_each(|id| refused(&client, *id));
    refused(&other, client.connection);
    client.accepted(&leecher(1));
    other.accepted(&leecher(2));

    goat.restart();
    refused(&client, client.connection);
    let client = Client::at("127.0.0.1", goat.address());
    client.accepted(&leecher(1));
}

#[test]
fn a_connection_id_is_good_for_another_port_of_the_same_address() {
    let (_database, goat, client) = public();
    let mut behind_a_router = Client::at("127.0.0.1", goat.address());
    behind_a_router.connection = client.connection;
    behind_a_router.accepted(&leecher(1));
}

#[test]
fn what_is_no_request_gets_no_answer() {
    let (_database, _goat, client) = public();
    let id = client.connection;
    let announce = leecher(1).bytes(id, 1);
    let scrape = scrape_of(id, 1, &[info_hash(1)]);
    let mut strange = vec![
        Vec::new(),
        b"GET /announce HTTP/1.1\r\n\r\n".to_vec(),
        // Another magic, also where a connection id would stand.
        head(MAGIC + 1, 0, 1),
        head(id, 0, 1),
        // What only trackers send, and what nobody knows.
        [head(id, 3, 1), vec![0; 100]].concat(),
        [head(id, 4, 1), vec![0; 100]].concat(),
        [head(id, u32::MAX, 1), vec![0; 100]].concat(),
        // A scrape of nothing.
        head(id, 2, 1),
    ];
    for (whole, step) in [(connect(1), 1), (announce, 7), (scrape, 3)] {
        let cuts = (0..whole.len()).step_by(step).chain([whole.len() - 1]);
        strange.extend(cuts.map(|length| whole[..length].to_vec()));
    }
    for datagram in &strange {
        client.send(datagram);
        // One thread answers, in order: an answer to the above would be the first to come.
        assert_eq!(client.scrape(&[info_hash(1)]), [[0, 0, 0]], "{}", hex(datagram));
    }
}

#[test]
fn bytes_after_what_bep_15_knows_do_no_harm() {
    let (_database, _goat, client) = public();
    for length in [1, 3, 19, 500, 3_000] {
        let more = vec![0xff; length];
        let answer = client.ask(&[connect(3), more.clone()].concat());
        assert!(matches!(answer, Answer::Connected(_)), "{length}");
        let mut question = leecher(1);
        question.options = more.clone();
        client.accepted(&question);
    }
    let scrape = scrape_of(client.connection, 4, &[info_hash(1)]);
    for length in [1, 19] {
        let answer = client.ask(&[scrape.clone(), vec![0xff; length]].concat());
        assert_eq!(answer, Answer::Scraped(vec![[0, 0, 1]]), "{length}");
    }
}

// ---------------------------------------------------------------------------------------------------
// Over sockets: the fields of an announce.

#[test]
fn port_0_is_refused_but_of_who_stops() {
    let (_database, _goat, client) = public();
    for port in [0, 1, 65_535] {
        let refusal = client.refusal(&Question { port, ..leecher(1) });
        let expected = if port == 0 { "Invalid integer parameter: port" } else { "" };
        assert_eq!(refusal, expected, "{port}");
    }
    let stop = Question { port: 0, event: 3, ..leecher(1) };
    assert_eq!(client.refusal(&stop), "");
    assert_eq!(client.scrape(&[info_hash(1)]), [[0, 0, 0]]);
}

#[test]
fn numwant_is_50_if_negative_and_at_most_200_or_74_over_ipv6() {
    let Some((_database, _goat, four, six)) = dual("numwant") else {
        return;
    };
    for n in 1..=250 {
        four.accepted(&leecher(n));
        six.accepted(&leecher(n).on(2));
    }
    let cases = [(i32::MIN, 50), (-1, 50), (0, 0), (1, 1), (74, 74)];
    let more4 = [(75, 75), (200, 200), (201, 200), (1_000, 200), (i32::MAX, 200)];
    let more6 = [(75, 74), (200, 74), (1_000, 74), (i32::MAX, 74)];
    for (client, torrent, more) in [(&four, 1, &more4[..]), (&six, 2, &more6)] {
        for (numwant, expected) in cases.iter().chain(more) {
            let question = Question { numwant: *numwant, ..leecher(1).on(torrent) };
            let peers = client.peers(&question);
            assert_eq!(peers.len(), *expected, "numwant {numwant}, torrent {torrent}");
            let different: BTreeSet<_> = peers.iter().collect();
            assert_eq!(different.len(), *expected, "each once");
            assert!(!peers.iter().any(|peer| peer.port() == leecher(1).port));
        }
    }
}

#[test]
fn event_1_is_completed_2_started_3_stopped_and_all_others_are_regular() {
    let (_database, mut goat, client) = public();
    let with = |event: u32, left: u64| client.announce(&Question { event, left, ..leecher(1) });
    let counts = |answer: Answer| match answer {
        Answer::Announced(a) => (a.seeders, a.leechers),
        other => panic!("{other:?}"),
    };
    let too_soon = Answer::Error("Slow down".into());
    assert_eq!(counts(with(2, 9)), (0, 1));
    for regular in [0, 4, 5, 256, u32::MAX] {
        assert_eq!(with(regular, 9), too_soon, "{regular}");
    }
    assert_eq!(counts(with(2, 9)), (0, 1));
    assert_eq!(counts(with(1, 0)), (1, 0));
    assert_eq!(counts(with(3, 0)), (0, 0));
    assert_eq!(counts(with(0, 0)), (0, 0), "what follows a goodbye is late");
    assert_eq!(counts(with(2, 0)), (1, 0));
    assert!(goat.stop().success());
    goat.launch();
    let client = Client::at("127.0.0.1", goat.address());
    assert_eq!(client.scrape(&[info_hash(1)]), [[1, 1, 0]]);
}

#[test]
fn the_address_in_the_packet_is_ignored() {
    let (_database, _goat, client) = public();
    let elsewhere = Question { ip: [8, 8, 8, 8], key: 77, ..leecher(1) };
    client.accepted(&elsewhere);
    let peers = client.peers(&leecher(2));
    assert_eq!(peers, ["127.0.0.1:10001".parse().unwrap()]);
}

#[test]
fn ipv4_clients_get_ipv4_peers_and_ipv6_clients_ipv6_peers() {
    let Some((_database, _goat, four, six)) = dual("address families") else {
        return;
    };
    let question = |n: u16| Question { numwant: 200, ..leecher(n) };
    (1..=3).for_each(|n| drop(four.accepted(&question(n))));
    (4..=5).for_each(|n| drop(six.accepted(&question(n))));
    // One comes over both. Nobody can tell that two anonymous clients at different addresses are one.
    four.accepted(&question(6));
    six.accepted(&question(6));
    let at = |ip: IpAddr, ports: &[u16]| -> Vec<SocketAddr> {
        ports.iter().map(|port| (ip, 10_000 + port).into()).collect()
    };
    let (home4, home6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    assert_eq!(four.peers(&question(7)), at(home4, &[1, 2, 3, 6]));
    assert_eq!(six.peers(&question(8)), at(home6, &[4, 5, 6]));
    let [[seeders, _, leechers]] = four.scrape(&[info_hash(1)])[..] else { panic!() };
    let counted = "each client is counted once at each address";
    assert_eq!((seeders, leechers), (0, 9), "{counted}");
}

// ---------------------------------------------------------------------------------------------------
// Over sockets: who may announce.

#[test]
fn the_passkey_is_in_the_url_data_and_nowhere_else() {
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "UDP": true }));
    add_torrents(&goat, 1);
    let key = goat.add_user("anna").passkey;
    let client = Client::at("127.0.0.1", goat.address());
    let refusal = |options: Vec<u8>| client.refusal(&Question { options, ..leecher(1) });
    let url = |url: &str| Opt::Url(url.into()).bytes();
    let announce = format!("/{key}/announce");

    let none = "No passkey found in announce URL";
    for options in [
        Vec::new(),
        url(""),
        url("/"),
        url("/announce"),
        url("/announce?passkey=1"),
        vec![1, 1, 1],
        [vec![0], url(&announce)].concat(),      // after the end of the options
        [vec![3, 200], url(&announce)].concat(), // in another option, which is cut
        Opt::Other(3, announce.clone().into()).bytes(),
        url(&announce)[..announce.len()].to_vec(), // cut
    ] {
        assert_eq!(refusal(options.clone()), none, "{options:?}");
    }

    let wrong = "0123456789".repeat(4);
    let upper = key.to_uppercase();
    let (short, long) = (&key[1..], format!("{key}0"));
    for key in [&wrong, &upper, short, &long, "a", "%61"] {
        let options = url(&format!("/{key}/announce"));
        assert_eq!(refusal(options), "Invalid passkey", "{key}");
    }

    let long = "a".repeat(600);
    for path in [
        format!("/{key}"),
        format!("/{key}/"),
        format!("/{key}/scrape"),
        format!("/{key}/announce.php"),
        format!("/{key}/Announce"),
        format!("/x/{key}/announce"),
        format!("/{key}/x/announce"),
        format!("/x?/{key}/announce"),
        format!("/{long}/announce"),
    ] {
        let options: Vec<u8> = path.as_bytes().chunks(255).flat_map(|part| Opt::Url(part.into()).bytes()).collect();
        assert_eq!(refusal(options), "Malformed announce", "{path}");
    }
    let options = Opt::Url(b"/\xff\xfe/announce".to_vec()).bytes();
    assert_eq!(refusal(options), "Malformed announce");

    let pieces = |size: usize| announce.as_bytes().chunks(size).map(|part| Opt::Url(part.into()));
    for options in [
        url(&announce),
        url(&format!("{announce}?a=b&c=/x/y")),
        [vec![1, 1], url(&announce), vec![1, 0, 2, 9]].concat(),
        [Opt::Other(200, vec![2; 255]).bytes(), url(""), url(&announce)].concat(),
        pieces(1).flat_map(|piece| piece.bytes()).collect(),
        pieces(13).flat_map(|piece| [vec![1], piece.bytes(), vec![9, 0]].concat()).collect(),
        [url(&announce), vec![2, 200]].concat(), // the next is cut
        [url(&announce), url(&format!("?{}", "x".repeat(250)))].concat(),
    ] {
        assert_eq!(refusal(options.clone()), "", "{options:?}");
    }
}

#[test]
fn over_udp_a_client_is_known_by_the_beginning_of_its_peer_id() {
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "UDP": true, "Passkey": false }));
    add_torrents(&goat, 1);
    let client = Client::at("127.0.0.1", goat.address());
    let refusal = |id: &[u8; 20]| client.refusal(&Question { peer_id: *id, ..leecher(1) });
    for known in [b"-qB5020-abcdefghijkl", b"A2-1-36-0-\0\0\0\0\0\0\0\0\0\xff"] {
        assert_eq!(refusal(known), "");
    }
    let strange = b"-XX5020-abcdefghijkl";
    for unknown in [strange, b"--qB5020-abcdefghijk", b"-QB5020-abcdefghijkl", &[0; 20]] {
        assert_eq!(refusal(unknown), "Your client is not whitelisted");
    }
    let (status, ..) = goat.cli(&["client", "approve", "-XX"]);
    assert!(status.success());
    wait_until("the approved client", || refusal(strange).is_empty());
    let rows = database.number("SELECT count(*) FROM whitelist WHERE approved = 0");
    assert_eq!(rows, 0, "a peer id tells an operator nothing");
}

#[test]
fn the_checks_and_their_words_and_order_are_those_of_http() {
    let database = Database::sqlite();
    let mut goat = Goat::prepare(&database, json!({ "UDP": true }));
    let user = goat.add_user("limited");
    let banned = goat.add_user("banned").passkey;
    add_torrents(&goat, 2);
    database.sql(&format!(
        "UPDATE users SET torrent_limit = 1 WHERE id = {};
         UPDATE users SET banned = 1 WHERE username = 'banned';
         INSERT INTO files (info_hash, verified) VALUES ('{}', 0)",
        user.id,
        hex(&info_hash(3)),
    ));
    goat.launch();
    let client = Client::at("127.0.0.1", goat.address());
    let first = Announce { event: "", ..Announce::new(&user.passkey, info_hash(1), 1) };
    client.accepted(&Question::from(&first));

    // Each has all the faults of those after it that it can have.
    let too_soon = first.clone();
    let limit = Announce { info_hash: info_hash(2), ..first };
    let unverified = Announce { info_hash: info_hash(3), ..limit.clone() };
    let unregistered = Announce { info_hash: info_hash(9), ..unverified.clone() };
    let no_port = Announce { port: 0, ..unregistered.clone() };
    let nobody = Announce { passkey: Some("0".repeat(40)), ..no_port.clone() };
    let refused = Announce { passkey: Some(banned), ..no_port.clone() };
    let no_passkey = Announce { passkey: None, ..no_port.clone() };
    let strange = Announce { agent: "Strange/1.0".into(), peer_id: *b"-XX0000-000000000001", ..no_passkey.clone() };
    let malformed = Announce { passkey: Some("a/b".into()), ..strange.clone() };
    for (announce, reason) in [
        (malformed, "Malformed announce"),
        (strange, "Your client is not whitelisted"),
        (no_passkey, "No passkey found in announce URL"),
        (refused, "Invalid passkey"),
        (nobody, "Invalid passkey"),
        (no_port, "Invalid integer parameter: port"),
        (unregistered, "Unregistered torrent"),
        (unverified, "Unverified torrent"),
        (limit, "Exceeded active torrent limit: 2 > 1"),
        (too_soon, "Slow down"),
    ] {
        assert_eq!(announce.refusal(&goat), reason, "over HTTP");
        assert_eq!(client.refusal(&Question::from(&announce)), reason, "over UDP");
    }
}

#[test]
fn a_user_and_a_torrent_made_a_moment_ago_work_at_the_first_announce() {
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "UDP": true }));
    let client = Client::at("127.0.0.1", goat.address());
    for n in 1..=3 {
        // Asked for in vain a moment ago.
        let passkey = "0".repeat(40);
        let question = |passkey: &str| leecher(n).on(n.into()).url(format!("/{passkey}/announce"));
        assert_eq!(client.refusal(&question(&passkey)), "Invalid passkey");
        let user = goat.add_user(&format!("member{n}"));
        assert_eq!(client.refusal(&question(&user.passkey)), "Unregistered torrent");
        goat.add_torrent(hex(&info_hash(n.into())));
        client.accepted(&question(&user.passkey));
    }
}

#[test]
fn who_guesses_passkeys_is_told_that_each_is_invalid_and_members_at_that_address_never_notice() {
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "UDP": true }));
    goat.add_torrent(hex(&info_hash(1)));
    let right = leecher(1).url(format!("/{}/announce", goat.add_user("anna").passkey));
    let client = Client::at("127.0.0.1", goat.address());
    for n in 0..1_000 {
        let guess = leecher(1).url(format!("/{n:040}/announce"));
        assert_eq!(client.refusal(&guess), "Invalid passkey", "guess {n}");
    }
    // A member whom a look-up has found stays known; at an address that may ask no more, the keeper finds them.
    Client::at("127.0.0.2", goat.address()).accepted(&right);
    client.accepted(&right);
}

#[test]
fn without_passkeys_everybody_may_announce_whatever_the_url_and_nobody_is_credited() {
    let (database, mut goat, client) = public();
    for (n, url) in ["", "/", "/announce", "/0123456789/announce", "/a/b?c"].into_iter().enumerate() {
        let mut question = leecher(n as u16 + 1).url(url);
        (question.uploaded, question.downloaded) = (1_000, 2_000);
        let answer = client.accepted(&question);
        assert_eq!(answer.leechers as usize, n + 1, "{url}");
    }
    assert_eq!(client.scrape(&[info_hash(1)]), [[0, 0, 5]]);
    assert!(goat.stop().success());
    let sums = "SELECT count(*), sum(user_id), sum(uploaded + downloaded) FROM files_users";
    assert_eq!(database.sql(sums), [["1", "0", "0"]]);
    let sums = "SELECT count(*), sum(user_id) FROM peers";
    assert_eq!(database.sql(sums), [["5", "0"]]);
}

// ---------------------------------------------------------------------------------------------------
// Over sockets: scrapes.

#[test]
fn a_scrape_is_answered_in_its_order_with_zeros_for_what_is_not_tracked() {
    let (_database, mut goat, client) = public();
    client.accepted(&leecher(1));
    client.accepted(&Question { left: 0, event: 1, downloaded: 1, ..leecher(2) });
    client.accepted(&Question { left: 0, ..leecher(3).on(2) });
    goat.restart(); // now the snatch is written
    let client = Client::at("127.0.0.1", goat.address());
    let (one, two, unknown) = (info_hash(1), info_hash(2), info_hash(9));
    let counts = client.scrape(&[two, unknown, one, one]);
    assert_eq!(counts, [[1, 0, 0], [0; 3], [1, 1, 1], [1, 1, 1]]);
    let many: Vec<[u8; 20]> = (0..100).map(info_hash).collect();
    let counts = client.scrape(&many[..74]);
    assert_eq!((counts.len(), counts[1], counts[3]), (74, [1, 1, 1], [0; 3]));
    assert_eq!(client.scrape(&many), counts, "the first 74");
}

#[test]
fn a_scrape_tells_nothing_of_a_torrent_that_is_not_verified() {
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({ "UDP": true, "Passkey": false }));
    add_torrents(&goat, 1);
    database.sql("UPDATE files SET completed = 7");
    let mut goat = goat;
    goat.launch();
    let client = Client::at("127.0.0.1", goat.address());
    assert_eq!(client.scrape(&[info_hash(1)]), [[0, 7, 0]]);
    database.sql("UPDATE files SET verified = 0");
    wait_until("the change", || client.scrape(&[info_hash(1)]) == [[0; 3]]);
}

#[test]
fn with_passkeys_only_addresses_that_announced_may_scrape() {
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "UDP": true }));
    add_torrents(&goat, 1);
    let url = format!("/{}/announce", goat.add_user("anna").passkey);
    let [client, other] = ["127.0.0.1", "127.0.0.2"].map(|ip| Client::at(ip, goat.address()));
    let scrape = |client: &Client| client.ask(&scrape_of(client.connection, 1, &[info_hash(1)]));
    let refused = Answer::Error("No passkey found in announce URL".into());

    assert_eq!(scrape(&client), refused);
    assert_eq!(client.refusal(&leecher(1)), "No passkey found in announce URL");
    assert_eq!(scrape(&client), refused, "a refused announce is none");
    client.accepted(&leecher(1).url(&url));
    assert_eq!(scrape(&client), Answer::Scraped(vec![[0, 0, 1]]));
    assert_eq!(scrape(&other), refused);

    // A member whom only the database knows: another thread answers, for all.
    let url = format!("/{}/announce", goat.add_user("bert").passkey);
    other.accepted(&leecher(2).url(url));
    assert_eq!(scrape(&other), Answer::Scraped(vec![[0, 0, 2]]));
}

#[test]
fn the_networks_of_one_ipv6_site_are_one_address_to_who_may_scrape() {
    let site = Site::new(json!({}));
    let user = site.tracker.store.add_user("anna", 0, false).unwrap();
    let ask = |ip: &str, question: &dyn Fn(u64) -> Vec<u8>| {
        let ip = ip.parse().unwrap();
        let id = site.ids.make(ip, site.tracker.clock.now());
        decode(&site.ask(ip, &question(id)).unwrap()).1
    };
    let scrape = |ip| matches!(ask(ip, &|id| scrape_of(id, 1, &[info_hash(1)])), Answer::Scraped(_));
    let announce = leecher(1).url(format!("/{}/announce", user.passkey));
    assert!(matches!(ask("2001:db8:1:2::3", &|id| announce.bytes(id, 1)), Answer::Announced(_)));
    assert!(scrape("2001:db8:1:2::4") && scrape("2001:db8:1:5::6"));
    assert!(!scrape("2001:db8:7:2::3"));
}

#[test]
fn an_address_may_scrape_for_one_interval() {
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "UDP": true, "Interval": 2 }));
    add_torrents(&goat, 1);
    let url = format!("/{}/announce", goat.add_user("anna").passkey);
    let client = Client::at("127.0.0.1", goat.address());
    let may = || {
        let answer = client.ask(&scrape_of(client.connection, 1, &[info_hash(1)]));
        matches!(answer, Answer::Scraped(_))
    };
    wait_until("a scrape", || {
        client.accepted(&leecher(1).url(&url));
        may()
    });
    wait_until("the end of the Interval", || !may());
}

// ---------------------------------------------------------------------------------------------------
// Over sockets: swarms and books.

#[test]
fn peers_over_http_and_over_udp_see_each_other() {
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "UDP": true }));
    add_torrents(&goat, 1);
    let [anna, bert, carl] = ["anna", "bert", "carl"].map(|name| goat.add_user(name).passkey);
    let announce = |passkey: &str, n: u16| Announce::new(passkey, info_hash(1), n);
    let at = |ports: &[u16]| -> Vec<SocketAddr> {
        ports.iter().map(|port| (Ipv4Addr::LOCALHOST, 10_000 + port).into()).collect()
    };
    let client = Client::at("127.0.0.1", goat.address());

    announce(&anna, 1).accepted(&goat);
    assert_eq!(client.peers(&Question::from(&announce(&bert, 2))), at(&[1]));
    let third = announce(&carl, 3);
    assert_eq!(third.accepted(&goat).peers(), at(&[1, 2]));

    // A session may change from one to the other.
    let mut fourth = announce(&bert, 2);
    (fourth.left, fourth.event, fourth.downloaded) = (0, "completed", 1_000_000);
    let answer = fourth.accepted(&goat);
    assert_eq!((answer.integer("complete"), answer.integer("incomplete")), (1, 2));
    assert_eq!(answer.peers(), at(&[1, 3]));
    assert_eq!(client.scrape(&[info_hash(1)])[0][0], 1);
    wait_until("the snatch", || {
        scrape(&goat, &anna, info_hash(1)) == Some([1, 1, 2, 2]) && client.scrape(&[info_hash(1)]) == [[1, 1, 2]]
    });
}

#[test]
fn a_session_over_both_address_families_counts_once_and_is_credited_once() {
    let Some(_) = has_ipv6("both address families") else {
        return;
    };
    let database = Database::sqlite();
    let settings = json!({ "UDP": true, "Host": "", "SlowDown": 0 });
    let mut goat = Goat::start(&database, settings);
    add_torrents(&goat, 1);
    let user = goat.add_user("anna");
    let url = format!("/{}/announce", user.passkey);
    let (four, six) = both_families(&goat);
    let steps = [
        // uploaded, downloaded, left, event; seeders and leechers
        (100, 50, 1_000, 2, (0, 1)),
        (1_000, 500, 500, 0, (0, 1)),
        (2_000, 1_000, 0, 1, (1, 0)),
        (3_000, 1_000, 0, 0, (1, 0)),
        (3_500, 1_000, 0, 3, (0, 0)),
    ];
    for (uploaded, downloaded, left, event, counts) in steps {
        let question = Question { uploaded, downloaded, left, event, ..leecher(1).url(&url) };
        for client in [&four, &six] {
            let answer = client.accepted(&question);
            assert_eq!((answer.seeders, answer.leechers), counts, "{question:?}");
        }
    }
    assert!(goat.stop().success());
    let rows = |sql: &str| database.sql(sql);
    assert_eq!(rows("SELECT uploaded, downloaded FROM users"), [["3500", "1000"]]);
    let sums =
        "SELECT count(*), sum(uploaded), sum(downloaded), sum(announced), sum(active), sum(completed) FROM files_users";
    assert_eq!(rows(sums), [["1", "3500", "1000", "10", "0", "1"]]);
    assert_eq!(rows("SELECT count(*), sum(active) FROM peers"), [["1", "0"]]);
    assert_eq!(rows("SELECT completed FROM files"), [["1"]]);
    let ips = rows("SELECT ipv4, ipv6 FROM peers").concat();
    let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
    assert_eq!(ips, [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()]);
}

#[test]
fn a_datagram_that_comes_twice_is_credited_once() {
    let database = Database::sqlite();
    let mut goat = Goat::start(&database, json!({ "UDP": true, "SlowDown": 0 }));
    add_torrents(&goat, 1);
    let url = format!("/{}/announce", goat.add_user("anna").passkey);
    let client = Client::at("127.0.0.1", goat.address());
    for (step, event) in [2, 0, 1, 0, 3].into_iter().enumerate() {
        let moved = 1_000 * (step as u64 + 1);
        let question = Question {
            event,
            uploaded: moved,
            downloaded: moved,
            left: if step < 2 { 1 } else { 0 },
            ..leecher(1).url(&url)
        };
        let datagram = question.bytes(client.connection, 5);
        for _ in 0..3 {
            assert!(matches!(client.ask(&datagram), Answer::Announced(_)));
        }
    }
    assert!(goat.stop().success());
    assert_eq!(
        database.sql("SELECT u.uploaded, u.downloaded, f.completed FROM users u, files f"),
        [["5000", "5000", "1"]]
    );
}

/// A session, within ten minutes: its only life, by the table of the rules.
#[derive(Default)]
struct Books {
    base: [u64; 2],
    top: [u64; 2],
    announced: u64,
    open: bool,
    /// Over IPv4 and IPv6, since it was opened.
    paths: [bool; 2],
}

impl Books {
    fn hear(&mut self, now: [u64; 2], event: u32, v6: bool) {
        let (path, started, stopped) = (usize::from(v6), event == 2, event == 3);
        self.announced += 1;
        let lower = now[0] < self.top[0] || now[1] < self.top[1];
        if self.announced == 1 {
            (self.top, self.open) = (now, !stopped);
            self.base = if started { [0, 0] } else { now };
            self.paths[path] = true;
        } else if self.open {
            self.top = [self.top[0].max(now[0]), self.top[1].max(now[1])];
            if stopped {
                self.open = !self.paths[path];
            } else {
                self.paths[path] = true;
            }
        } else if !lower {
            self.top = now;
            // Over another path it may have been said before.
            if started && self.paths[path] {
                (self.open, self.paths) = (true, [!v6, v6]);
            }
        }
    }

    fn moved(&self) -> [u64; 2] {
        [0, 1].map(|i: usize| self.top[i] - self.base[i])
    }
}

#[test]
fn the_books_agree_with_a_thousand_announces() {
    let Some(_) = has_ipv6("the books over UDP") else {
        return;
    };
    let seed = Rng::from_system().bits();
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let database = Database::sqlite();
    let settings = json!({ "UDP": true, "Host": "", "SlowDown": 0 });
    let mut goat = Goat::start(&database, settings);
    let torrents: Vec<i64> = (1..=3).map(|n| goat.add_torrent(hex(&info_hash(n)))).collect();
    let users: Vec<_> = (1..=4).map(|n| goat.add_user(&format!("member{n}"))).collect();
    let (four, six) = both_families(&goat);
    let other = Client::at("127.0.0.2", goat.address());
    let clients = [(&four, false), (&six, true), (&other, false)];

    // What the rules say of sessions that begin one life each.
    let mut sessions: BTreeMap<(usize, usize, u16), Books> = BTreeMap::new();
    for _ in 0..1_000 {
        let (torrent, user) = (rng.below(3), rng.below(4));
        let number = rng.below(3) as u16;
        let (client, v6) = clients[rng.below(3)];
        let session = (torrent, user, number);
        let last = sessions.get(&session).map(|books| books.top);
        let grow = |rng: &mut Rng, last: u64| match rng.below(10) {
            0 => 1 + rng.below(1_000) as u64, // late, or of another URL
            1 | 2 => last,
            _ => last + rng.below(1_000_000) as u64,
        };
        let [up, down] = last.unwrap_or_default();
        let now = [grow(&mut rng, up), grow(&mut rng, down)];
        let event = [0, 0, 0, 2, 3][rng.below(5)];
        client.accepted(&Question {
            uploaded: now[0],
            downloaded: now[1],
            left: 1 + rng.below(100) as u64,
            event,
            ..leecher(number).on(torrent as u32 + 1).url(format!("/{}/announce", users[user].passkey))
        });
        sessions.entry(session).or_default().hear(now, event, v6);
    }
    let mut totals: BTreeMap<(i64, i64), [u64; 3]> = BTreeMap::new();
    for ((torrent, user, _), books) in &sessions {
        let total = totals.entry((torrents[*torrent], users[*user].id)).or_default();
        let [up, down] = books.moved();
        *total = [total[0] + up, total[1] + down, total[2] + books.announced];
    }
    assert!(goat.stop().success());

    let mut expected: Vec<String> = totals
        .iter()
        .map(|((file, user), [up, down, announced])| format!("{file} {user} {up} {down} {announced}"))
        .collect();
    expected.sort();
    let rows = |sql: &str| {
        let rows = database.sql(sql);
        let mut rows: Vec<String> = rows.iter().map(|row| row.join(" ")).collect();
        rows.sort();
        rows
    };
    let sql = "SELECT file_id, user_id, uploaded, downloaded, announced FROM files_users";
    assert_eq!(rows(sql), expected, "seed {seed}");
    let mut sums: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    for ((_, user), [up, down, _]) in &totals {
        let sum = sums.entry(*user).or_default();
        *sum = (sum.0 + up, sum.1 + down);
    }
    let mut expected: Vec<String> = sums.iter().map(|(user, (up, down))| format!("{user} {up} {down}")).collect();
    expected.sort();
    assert_eq!(rows("SELECT id, uploaded, downloaded FROM users"), expected, "seed {seed}");
    let mut expected: Vec<String> = sessions
        .iter()
        .map(|((torrent, user, number), books)| {
            let [up, down] = books.moved();
            let (file, user) = (torrents[*torrent], users[*user].id);
            format!("{file} {user} {} {up} {down}", hex(&peer_id(*number)).to_uppercase())
        })
        .collect();
    expected.sort();
    let sql = "SELECT file_id, user_id, hex(peer_id), uploaded, downloaded FROM peers";
    assert_eq!(rows(sql), expected, "seed {seed}");
}

#[test]
fn many_clients_at_once_are_all_answered_and_all_in_the_books() {
    let database = Database::sqlite();
    let mut goat = Goat::start(&database, json!({ "UDP": true }));
    add_torrents(&goat, 1);
    let urls: Vec<String> =
        (0..8).map(|n| format!("/{}/announce", goat.add_user(&format!("member{n}")).passkey)).collect();
    let server = goat.address();
    std::thread::scope(|scope| {
        for (n, url) in urls.iter().enumerate() {
            scope.spawn(move || {
                let client = Client::at(&format!("127.0.0.{}", n + 1), server);
                for number in 0..20 {
                    let question = Question { uploaded: 7, ..leecher(100 * n as u16 + number).url(url) };
                    client.accepted(&question);
                }
            });
        }
    });
    let client = Client::at("127.0.0.1", server);
    assert_eq!(client.scrape(&[info_hash(1)]), [[0, 0, 160]]);
    assert!(goat.stop().success());
    assert_eq!(database.sql("SELECT count(*), sum(uploaded) FROM users WHERE uploaded = 140"), [["8", "1120"]]);
}

#[test]
fn of_datagrams_that_come_together_each_is_answered_to_its_sender() {
    let (_database, mut goat, first) = public();
    let server = goat.address();
    let others = (2..=5).map(|n| Client::at(&format!("127.0.0.{n}"), server));
    let clients: Vec<Client> = [first].into_iter().chain(others).collect();
    // From now on the torrent is known, and no answer waits for the database.
    clients[0].accepted(&leecher(0));
    // While it is stopped they wait, more than goat takes at a time.
    goat.process().signal(libc::SIGSTOP);
    let mut asked = vec![Vec::new(); clients.len()];
    for round in 0..30_u16 {
        for (n, client) in clients.iter().enumerate() {
            // No other client's.
            let transaction = (n as u32) << 16 | u32::from(round);
            asked[n].push(transaction);
            let hashes = vec![info_hash(2); 1 + n];
            match round % 3 {
                0 => client.send(&connect(transaction)),
                1 => client.send(&leecher(100 * n as u16 + round).bytes(client.connection, transaction)),
                _ => client.send(&scrape_of(client.connection, transaction, &hashes)),
            }
            // Neither of these gets one.
            client.send(&[]);
            client.send(b"no request");
        }
    }
    goat.process().signal(libc::SIGCONT);
    for (n, client) in clients.iter().enumerate() {
        for (round, transaction) in asked[n].iter().enumerate() {
            let mut answer = [0; 2_000];
            let (length, from) = client.socket.recv_from(&mut answer).expect("an answer");
            assert_eq!(from, server);
            let (answered, answer) = decode(&answer[..length]);
            assert_eq!(answered, *transaction, "{n} {round}: {answer:?}");
            match (round % 3, answer) {
                (0, Answer::Connected(_)) | (1, Answer::Announced(_)) => {}
                (2, Answer::Scraped(torrents)) => assert_eq!(torrents, vec![[0, 0, 0]; 1 + n]),
                (_, answer) => panic!("{n} {round}: {answer:?}"),
            }
        }
    }
    assert_eq!(clients[0].scrape(&[info_hash(1)]), [[0, 0, 51]]);
}

// ---------------------------------------------------------------------------------------------------
// BEP 15 and BEP 41, by their offsets.

const MAGIC: u64 = 0x0417_2710_1980;
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// What a datagram asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Connect,
    Announce,
    Scrape,
}

impl Kind {
    fn of(datagram: &[u8]) -> Option<Kind> {
        if datagram.len() < 16 {
            return None;
        }
        match (u32_at(datagram, 8), datagram.len()) {
            (0, _) if u64_at(datagram, 0) == MAGIC => Some(Kind::Connect),
            (1, 98..) => Some(Kind::Announce),
            (2, 36..) => Some(Kind::Scrape),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Connect => "connect",
            Kind::Announce => "announce",
            Kind::Scrape => "scrape",
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn head(first: u64, action: u32, transaction: u32) -> Vec<u8> {
    let (action, transaction) = (action.to_be_bytes(), transaction.to_be_bytes());
    [&first.to_be_bytes()[..], &action, &transaction].concat()
}

fn connect(transaction: u32) -> Vec<u8> {
    head(MAGIC, 0, transaction)
}

fn scrape_of(connection: u64, transaction: u32, hashes: &[[u8; 20]]) -> Vec<u8> {
    [head(connection, 2, transaction), hashes.concat()].concat()
}

/// An announce.
#[derive(Clone, Debug)]
struct Question {
    info_hash: [u8; 20],
    peer_id: [u8; 20],
    downloaded: u64,
    left: u64,
    uploaded: u64,
    event: u32,
    ip: [u8; 4],
    key: u32,
    numwant: i32,
    port: u16,
    options: Vec<u8>,
}

/// Peer number `number` comes to the first torrent, without a URL. It listens on port 10,000 + `number`.
fn leecher(number: u16) -> Question {
    Question::without_url(&Announce::new("", info_hash(1), number))
}

/// The same announce as over HTTP.
impl From<&Announce> for Question {
    fn from(announce: &Announce) -> Question {
        let target = announce.target();
        let path = target.split('?').next().unwrap();
        Question::without_url(announce).url(path)
    }
}

impl Question {
    fn without_url(announce: &Announce) -> Question {
        Question {
            info_hash: announce.info_hash,
            peer_id: announce.peer_id,
            downloaded: announce.downloaded,
            left: announce.left,
            uploaded: announce.uploaded,
            event: match announce.event {
                "" => 0,
                "completed" => 1,
                "started" => 2,
                "stopped" => 3,
                other => panic!("no {other} over UDP"),
            },
            ip: [0; 4],
            key: 0,
            numwant: -1,
            port: announce.port,
            options: Vec::new(),
        }
    }

    /// On torrent number `number`.
    fn on(self, number: u32) -> Question {
        Question { info_hash: info_hash(number), ..self }
    }

    /// With this path and query of the announce URL, in as many options as it takes.
    fn url(self, url: impl AsRef<str>) -> Question {
        let parts = url.as_ref().as_bytes().chunks(255);
        let options = parts.flat_map(|part| Opt::Url(part.into()).bytes()).collect();
        Question { options, ..self }
    }

    fn bytes(&self, connection: u64, transaction: u32) -> Vec<u8> {
        let mut bytes = vec![0; 98];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &head(connection, 1, transaction));
        put(16, &self.info_hash);
        put(36, &self.peer_id);
        put(56, &self.downloaded.to_be_bytes());
        put(64, &self.left.to_be_bytes());
        put(72, &self.uploaded.to_be_bytes());
        put(80, &self.event.to_be_bytes());
        put(84, &self.ip);
        put(88, &self.key.to_be_bytes());
        put(92, &self.numwant.to_be_bytes());
        put(96, &self.port.to_be_bytes());
        bytes.extend(&self.options);
        bytes
    }
}

/// An option (BEP 41).
#[derive(Clone, Debug)]
enum Opt {
    Nop,
    Url(Vec<u8>),
    /// One that nobody knows yet.
    Other(u8, Vec<u8>),
}

impl Opt {
    fn bytes(&self) -> Vec<u8> {
        let with_length = |kind: u8, value: &[u8]| {
            let length = u8::try_from(value.len()).expect("an option has at most 255 bytes");
            [&[kind, length], value].concat()
        };
        match self {
            Opt::Nop => vec![1],
            Opt::Url(url) => with_length(2, url),
            Opt::Other(kind, value) => with_length(*kind, value),
        }
    }

    fn url(&self) -> &[u8] {
        match self {
            Opt::Url(url) => url,
            _ => &[],
        }
    }
}

/// What goat finds in options.
fn url_data(options: &[u8]) -> Vec<u8> {
    udp::url_data(options, &mut [0xaa; 512]).to_vec()
}

/// What is in options.
fn url_by_hand(options: &[u8]) -> Vec<u8> {
    let (mut at, mut url) = (0, Vec::new());
    while at < options.len() && options[at] != 0 {
        if options[at] == 1 {
            at += 1;
            continue;
        }
        let Some(length) = options.get(at + 1) else {
            break;
        };
        let end = at + 2 + usize::from(*length);
        let Some(value) = options.get(at + 2..end) else {
            break;
        };
        if options[at] == 2 {
            url.extend(value);
        }
        at = end;
    }
    url
}

/// An answer of a tracker.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Connected(u64),
    Announced(Announced),
    /// Seeders, completed, leechers.
    Scraped(Vec<[u32; 3]>),
    Error(String),
}

#[derive(Clone, Debug, PartialEq)]
struct Announced {
    interval: u32,
    leechers: u32,
    seeders: u32,
    peers: Vec<u8>,
}

/// The transaction and the answer; fails the test if it is not as BEP 15 wants it.
fn decode(datagram: &[u8]) -> (u32, Answer) {
    let answer = match (u32_at(datagram, 0), datagram.len()) {
        (0, 16) => Answer::Connected(u64_at(datagram, 8)),
        (1, 20..) => Answer::Announced(Announced {
            interval: u32_at(datagram, 8),
            leechers: u32_at(datagram, 12),
            seeders: u32_at(datagram, 16),
            peers: datagram[20..].to_vec(),
        }),
        (2, length) => {
            assert_eq!((length - 8) % 12, 0, "{}", hex(datagram));
            let torrents = datagram[8..].chunks(12);
            Answer::Scraped(torrents.map(|t| [0, 4, 8].map(|at| u32_at(t, at))).collect())
        }
        (3, _) => Answer::Error(String::from_utf8(datagram[8..].to_vec()).unwrap()),
        _ => panic!("no answer: {}", hex(datagram)),
    };
    (u32_at(datagram, 4), answer)
}

// ---------------------------------------------------------------------------------------------------
// What the tests share.

/// A socket of a client, with a connection id.
struct Client {
    socket: UdpSocket,
    server: SocketAddr,
    connection: u64,
    transactions: Cell<u32>,
}

impl Client {
    fn at(ip: &str, server: SocketAddr) -> Client {
        let ip: IpAddr = ip.parse().unwrap();
        let socket = UdpSocket::bind((ip, 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut client = Client { socket, server, connection: 0, transactions: Cell::new(0xfeed_0000) };
        let Answer::Connected(id) = client.ask(&connect(client.transaction())) else { panic!("not connected") };
        client.connection = id;
        client
    }

    fn transaction(&self) -> u32 {
        self.transactions.set(self.transactions.get() + 1);
        self.transactions.get()
    }

    fn send(&self, datagram: &[u8]) {
        self.socket.send_to(datagram, self.server).unwrap();
    }

    fn exchange(&self, datagram: &[u8]) -> Vec<u8> {
        self.send(datagram);
        let mut answer = [0; 2_000];
        let (length, from) = self.socket.recv_from(&mut answer).expect("an answer");
        assert_eq!(from, self.server, "clients take no answers from elsewhere");
        answer[..length].to_vec()
    }

    fn ask(&self, datagram: &[u8]) -> Answer {
        let (transaction, answer) = decode(&self.exchange(datagram));
        assert_eq!(transaction, u32_at(datagram, 12), "{answer:?}");
        answer
    }

    fn announce(&self, question: &Question) -> Answer {
        self.ask(&question.bytes(self.connection, self.transaction()))
    }

    fn accepted(&self, question: &Question) -> Announced {
        match self.announce(question) {
            Answer::Announced(announced) => announced,
            other => panic!("{question:?}: {other:?}"),
        }
    }

    /// Why an announce is refused, or "" if it is not.
    fn refusal(&self, question: &Question) -> String {
        match self.announce(question) {
            Answer::Announced(_) => String::new(),
            Answer::Error(reason) => reason,
            other => panic!("{question:?}: {other:?}"),
        }
    }

    /// The peers of an accepted announce, sorted: of the client's own address family.
    fn peers(&self, question: &Question) -> Vec<SocketAddr> {
        let peers = self.accepted(question).peers;
        let size = if self.server.is_ipv4() { 6 } else { 18 };
        assert!(peers.len().is_multiple_of(size), "{peers:?}");
        let mut peers: Vec<SocketAddr> = peers
            .chunks(size)
            .map(|peer| {
                let (ip, port) = peer.split_at(size - 2);
                let ip: IpAddr = match <[u8; 4]>::try_from(ip) {
                    Ok(four) => four.into(),
                    Err(_) => <[u8; 16]>::try_from(ip).unwrap().into(),
                };
                (ip, u16::from_be_bytes(port.try_into().unwrap())).into()
            })
            .collect();
        peers.sort();
        peers
    }

    fn scrape(&self, hashes: &[[u8; 20]]) -> Vec<[u32; 3]> {
        match self.ask(&scrape_of(self.connection, self.transaction(), hashes)) {
            Answer::Scraped(torrents) => torrents,
            other => panic!("{other:?}"),
        }
    }
}

fn add_torrents(goat: &Goat, count: u32) {
    for n in 1..=count {
        goat.add_torrent(hex(&info_hash(n)));
    }
}

/// A tracker without passkeys that has two torrents, and a client.
fn public() -> (Database, Goat, Client) {
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "UDP": true, "Passkey": false }));
    add_torrents(&goat, 2);
    let client = Client::at("127.0.0.1", goat.address());
    (database, goat, client)
}

/// The same on every address, and a client of each address family.
fn dual(test: &str) -> Option<(Database, Goat, Client, Client)> {
    has_ipv6(test)?;
    let database = Database::sqlite();
    let settings = json!({ "UDP": true, "Passkey": false, "Host": "", "Clients": 1000 });
    let goat = Goat::start(&database, settings);
    add_torrents(&goat, 2);
    let (four, six) = both_families(&goat);
    Some((database, goat, four, six))
}

fn has_ipv6(test: &str) -> Option<()> {
    match UdpSocket::bind("[::1]:0") {
        Ok(_) => Some(()),
        Err(error) => {
            skip(test, &format!("no IPv6: {error}"));
            None
        }
    }
}

/// One client over IPv4 and one over IPv6.
fn both_families(goat: &Goat) -> (Client, Client) {
    let client = |ip: &str| Client::at(ip, (ip.parse::<IpAddr>().unwrap(), goat.port).into());
    (client("127.0.0.1"), client("::1"))
}

/// A tracker on SQLite that is asked without sockets.
struct Site {
    tracker: Arc<Tracker>,
    ids: Arc<ConnectionIds>,
    responder: Responder,
    buffers: RefCell<Buffers>,
    _database: Database,
    _folder: Folder,
}

impl Site {
    /// With one torrent.
    fn new(mut settings: Value) -> Site {
        let (folder, database) = (Folder::new(), Database::sqlite());
        settings["DB"] = database.config();
        settings["UDP"] = true.into();
        let file: &Path = &folder.join("config.json");
        let config = goat::config::parse(file, &settings.to_string()).unwrap();
        let tracker = Arc::new(Tracker::load(config).unwrap());
        let hash = InfoHash(info_hash(1));
        tracker.put_torrent(&tracker.store.add_file(&hash, None, "", 0).unwrap());
        let ids = Arc::new(ConnectionIds::new().unwrap());
        let responder = Responder::new(tracker.clone(), ids.clone());
        Site {
            tracker,
            ids,
            buffers: Buffers::new(Rng::from_system()).into(),
            responder,
            _database: database,
            _folder: folder,
        }
    }

    fn answer(&self, datagram: &[u8], ip: IpAddr, wait: bool, out: &mut Vec<u8>) -> Outcome {
        let buffers = &mut self.buffers.borrow_mut();
        self.responder.answer(datagram, ip, wait, buffers, out)
    }

    fn ask(&self, ip: IpAddr, datagram: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        loop {
            match self.answer(datagram, ip, true, &mut out) {
                Outcome::Answer => return Some(out),
                Outcome::Silence => return None,
                // Somebody new on a new torrent takes two turns.
                Outcome::Slow => {}
            }
        }
    }
}

fn bytes(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), length)
}

fn any_question() -> impl Strategy<Value = Question> {
    let ids = any::<([u8; 20], [u8; 20])>();
    let counters = any::<(u64, u64, u64)>();
    let rest = any::<(u32, [u8; 4], u32, i32, u16)>();
    (ids, counters, rest, bytes(0..300)).prop_map(
        |((info_hash, peer_id), (downloaded, left, uploaded), (event, ip, key, numwant, port), options)| Question {
            info_hash,
            peer_id,
            downloaded,
            left,
            uploaded,
            event,
            ip,
            key,
            numwant,
            port,
            options,
        },
    )
}

fn any_option() -> impl Strategy<Value = Opt> {
    prop_oneof![
        Just(Opt::Nop),
        bytes(0..80).prop_map(Opt::Url),
        Just(Opt::Url(Vec::new())),
        (3_u8.., bytes(0..256)).prop_map(|(kind, value)| Opt::Other(kind, value)),
    ]
}

/// What may stand behind the last option that counts.
fn any_ending() -> impl Strategy<Value = Vec<u8>> {
    let cut = |(kind, value, missing): (u8, Vec<u8>, u8)| {
        let length = (value.len() as u8).saturating_add(missing);
        [vec![kind, length], value].concat()
    };
    prop_oneof![
        Just(Vec::new()),
        bytes(0..50).prop_map(|garbage| [vec![0], garbage].concat()),
        bytes(0..50).prop_map(|url| [vec![0], Opt::Url(url).bytes()].concat()),
        (2_u8..).prop_map(|kind| vec![kind]),
        (2_u8.., bytes(0..50), 1..100_u8).prop_map(cut),
    ]
}

/// Tries a property on so many values, the same each time.
fn check<S: Strategy>(cases: u32, values: S, property: impl Fn(S::Value) -> TestCaseResult) {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    TestRunner::new_with_rng(config, rng).run(&values, property).unwrap();
}

#[test]
fn the_answer_comes_from_the_address_that_was_asked() {
    // A host with several addresses; clients take no answer from another than they asked.
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "UDP": true, "Passkey": false, "Host": "" }));
    for asked in ["127.0.0.1", "127.0.0.2"] {
        let asked: IpAddr = asked.parse().unwrap();
        Client::at("127.0.0.3", (asked, goat.port).into());
    }
}
