//! Several goats that hear of each other late and settle the same rows in any order, against clients whose moved bytes
//! are known: the rules as they are, without sockets and databases.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::common::{Client, Folder, History, Kind, Model, Random, SILENCE, Said, Way, above, info_hash};
use crate::model::understood;
use crate::world::config;
use goat::books::journal::{RECORD, decode, encode};
use goat::books::ledger::Waiting;
use goat::books::settle::{Resolved, sort};
use goat::books::{State, credit};
use goat::config::Config;
use goat::nodes::entry::{Head, Seal};
use goat::protocol::Factors;
use goat::random::Rng;
use goat::rules::access::{Access, User};
use goat::rules::announce::{Admitted, Buffers, announce};
use goat::rules::heard::take_over;
use goat::rules::limits::Failure;
use goat::rules::swarm::{Swarms, Torrent};
use goat::store::sessions::Row;
use goat::torrent::InfoHash;
use serde_json::json;

const START: u64 = 1_800_000_000_000;
const HASH: u32 = 1;

/// What happens next, and at which node.
#[derive(Clone, Debug)]
enum Event {
    Announce(usize, Said),
    Hear(usize, Vec<u8>),
    Settle(usize),
}

struct Node {
    swarms: Swarms,
    access: Access,
    buffers: Buffers,
    /// Milliseconds by which its clock is ahead.
    ahead: u64,
    /// Since when something waits to be written, by its clock: that will be at a time that was chosen.
    waits: Option<u32>,
}

impl Node {
    fn new(ahead: u64) -> Node {
        let (swarms, access) = (Swarms::default(), Access::default());
        let torrent = Torrent { id: 1, verified: true, ..Torrent::default() };
        swarms.shard(&hash()).torrents.insert(hash(), torrent);
        access.put_user(User::new(1, "passkey", 0, false));
        Node { swarms, access, buffers: Buffers::new(Rng::new(1)), ahead, waits: None }
    }

    fn clock(&self, time: u64) -> u32 {
        ((START + time + self.ahead) / 1000) as u32
    }

    fn waiting(&self) -> Vec<Waiting> {
        let mut batch = Vec::new();
        self.swarms.shard(&hash()).ledger.take(&mut batch);
        sort(&mut batch);
        batch
    }
}

fn hash() -> InfoHash {
    InfoHash(info_hash(HASH))
}

/// How nodes are to each other.
#[derive(Clone, Copy)]
struct World {
    nodes: usize,
    /// The most milliseconds until a node hears of another's announce, and until a state is written.
    lag: u64,
    write: u64,
    /// Milliseconds by which each clock is ahead of the one before.
    skew: u64,
}

/// The row that a history becomes.
fn run(config: &Config, world: World, said: Vec<(u64, Said)>, random: &mut Random) -> Row {
    let mut nodes: Vec<Node> = (0..world.nodes as u64).map(|n| Node::new(n * world.skew)).collect();
    let (mut row, mut heap, mut store) = (Row::default(), BinaryHeap::new(), Vec::new());
    let push = |heap: &mut BinaryHeap<Reverse<(u64, usize)>>, store: &mut Vec<Option<Event>>, time, event| {
        store.push(Some(event));
        heap.push(Reverse((time, store.len() - 1)));
    };
    for (time, said) in said {
        let at = random.below(world.nodes as u64) as usize;
        push(&mut heap, &mut store, time, Event::Announce(at, said));
    }
    while let Some(Reverse((time, index))) = heap.pop() {
        let mut told = Vec::new();
        let at = match store[index].take().unwrap() {
            Event::Announce(at, said) => {
                let node = &mut nodes[at];
                let (now, user) = (node.clock(time), node.access.by_id(1).unwrap());
                let who = Admitted { user, refusal: None };
                announce(config, &node.swarms, &who, &understood(&said), now, &mut node.buffers).unwrap();
                told = std::mem::take(&mut node.buffers.records);
                if node.waits.is_none() {
                    node.waits = Some(now);
                    push(&mut heap, &mut store, time + random.below(world.write), Event::Settle(at));
                }
                at
            }
            Event::Hear(at, records) => {
                let (node, now) = (&nodes[at], nodes[at].clock(time));
                let before = now - SILENCE;
                node.swarms.shard(&hash()).ledger.forget_heard(before);
                for record in records.chunks_exact(RECORD) {
                    let (_, key, state) = decode(record).unwrap();
                    let mut shard = node.swarms.shard(&hash());
                    take_over(config, &node.access, &mut shard, &hash(), &key, &state, now);
                }
                continue;
            }
            Event::Settle(at) => {
                let node = &mut nodes[at];
                node.waits = None;
                for waiting in node.waiting() {
                    settle(&mut row, node, waiting, &mut told);
                }
                at
            }
        };
        for other in (0..world.nodes).filter(|other| *other != at && !told.is_empty()) {
            let heard = time + world.lag / 5 + random.below(world.lag.max(1));
            push(&mut heap, &mut store, heard, Event::Hear(other, told.clone()));
        }
    }
    row
}

/// Writes a state, as `settle` does, and tells the node and the others what the row says.
fn settle(row: &mut Row, node: &Node, (info_hash, key, state): Waiting, told: &mut Vec<u8>) {
    *row = credit(row, &state, SILENCE).0;
    let (life, announced) = (state.known.session.life, state.known.session.announced);
    if !life.is_provisional() {
        return;
    }
    let news = Resolved { info_hash, key, life, announced, row: *row };
    let mut shard = node.swarms.shard(&info_hash);
    shard.resolve(&news, told);
    let known = shard.known(&info_hash, &key).unwrap();
    let state = State { known, birth: None, seeded: (0, 0), factors: Factors::default() };
    encode(0, key.file, &state, told);
}

/// A goat that is killed a moment after `started` has told nobody: another takes the next announce for the beginning.
#[test]
fn where_a_life_began_is_credited_also_if_the_node_that_knows_is_heard_last() {
    let folder = Folder::new();
    let settings = json!({ "SlowDown": 0, "DB": { "Driver": "sqlite", "Path": folder.join("goat.db") } });
    let config = config(&folder.join("config.json"), &settings);
    let way = Way { kind: Kind::OnePath, ..Way::PLAIN };
    let history = Client::new(1, HASH, 1, 0).history(&way, 0, &mut Random(1));
    let first = history.said[0].1.clone();
    let said = |event, uploaded| Said { event, uploaded, downloaded: 0, ..first.clone() };
    for order in [[0, 1], [1, 0]] {
        let mut nodes = [Node::new(0), Node::new(0)];
        let announces = [(0, 0, said("started", 0)), (1, 5_000, said("", 700)), (1, 9_000, said("", 900))];
        for (at, time, said) in announces {
            let node = &mut nodes[at];
            let (now, user) = (node.clock(time), node.access.by_id(1).unwrap());
            let who = Admitted { user, refusal: None };
            announce(&config, &node.swarms, &who, &understood(&said), now, &mut node.buffers).unwrap();
        }
        let (mut row, mut told) = (Row::default(), Vec::new());
        let states = nodes.each_ref().map(Node::waiting);
        for at in [order, order].concat() {
            for waiting in &states[at] {
                settle(&mut row, &nodes[at], *waiting, &mut told);
            }
        }
        assert_eq!(row.moved.uploaded, 900, "{order:?}");
    }
}

#[derive(Default, Debug)]
struct Line {
    moved: u64,
    above: u64,
    below: u64,
    seeded: u64,
    longer: u64,
    shorter: u64,
    /// The histories above the truth, and the last of them.
    count: u64,
    last: u64,
}

fn line(world: World, way: &Way, runs: u64) -> Line {
    let folder = Folder::new();
    let settings = json!({ "SlowDown": 0, "DB": { "Driver": "sqlite", "Path": folder.join("goat.db") } });
    let config = config(&folder.join("config.json"), &settings);
    let mut line = Line::default();
    for run_number in 0..runs {
        let mut random = Random(run_number << 8 ^ 20_140_126);
        let left = if run_number % 2 == 0 { 0 } else { u64::MAX };
        let History { moved, said, .. } = Client::new(1, HASH, 1, left).history(way, 0, &mut random);
        let mut model = Model::default();
        for (arrival, said) in &said {
            model.answered(said, ((START + arrival) / 1000) as u32);
        }
        let row = run(&config, world, said, &mut random);
        let credited = [row.moved.uploaded, row.moved.downloaded];
        let sum = |bytes: [u64; 2]| bytes[0] + bytes[1];
        line.moved += sum(moved);
        line.above += sum(above(credited, moved));
        line.below += sum(above(moved, credited));
        line.seeded += model.seeded();
        line.longer += row.seed_time.saturating_sub(model.seeded());
        line.shorter += model.seeded().saturating_sub(row.seed_time);
        if credited[0] > moved[0] || credited[1] > moved[1] {
            (line.count, line.last) = (line.count + 1, run_number);
        }
    }
    line
}

#[test]
fn several_nodes_credit_nothing_above_what_clients_moved_where_a_life_begins_ten_seconds_after_the_last() {
    let runs = std::env::var("GOAT_RUNS").map_or(1_000, |runs| runs.parse().unwrap());
    crate::say!(
        "{:>5} {:>6} {:>6} {:>7} {:<12} {:>7}   {:>8} {:>8} {:>9} {:>9}",
        "nodes",
        "lag s",
        "skew s",
        "apart s",
        "client",
        "delay s",
        "above",
        "below",
        "seeded +",
        "seeded -"
    );
    let mut alone = Vec::new();
    for (nodes, lag, skew) in [(1, 0, 0), (2, 1_000, 0), (3, 1_000, 0), (2, 1_000, 2_000)] {
        for kind in [Kind::OneCounter, Kind::TwoUrls, Kind::OnePath] {
            for (apart, delay) in [(0, 50), (10_000, 50), (10_000, 2_000)] {
                let world = World { nodes, lag, write: 10_000, skew };
                let line = line(world, &Way { kind, delay, apart, ..Way::PLAIN }, runs);
                let percent = |part: u64, of: u64| format!("{:.3}%", 100.0 * part as f64 / of.max(1) as f64);
                crate::say!(
                    "{nodes:>5} {:>6} {:>6} {:>7} {:<12} {:>7}   {:>8} {:>8} {:>9} {:>9}  {} {}",
                    lag as f64 / 1e3,
                    skew as f64 / 1e3,
                    apart as f64 / 1e3,
                    format!("{kind:?}"),
                    delay as f64 / 1e3,
                    percent(line.above, line.moved),
                    percent(line.below, line.moved),
                    percent(line.longer, line.seeded),
                    percent(line.shorter, line.seeded),
                    line.count,
                    line.last
                );
                if nodes == 1 {
                    alone.push((kind, apart, delay, line.below));
                }
                if apart == 0 {
                    continue;
                }
                assert_eq!(line.above, 0, "{line:?}");
                // Lives in doubt are nothing that several nodes are to blame for.
                let doubt = alone.iter().find(|(k, a, d, _)| (*k, *a, *d) == (kind, apart, delay));
                let below = line.below.saturating_sub(doubt.unwrap().3);
                assert!(below <= line.moved / 200, "{below} below one node: {line:?}");
                assert!(line.longer.max(line.shorter) <= line.seeded / 500, "{line:?}");
            }
        }
    }
}

#[test]
fn what_goats_tell_is_read_by_those_who_share_secret_and_database_and_not_if_a_byte_of_it_changed() {
    let folders = [Folder::new(), Folder::new()];
    let seal = |folder: &Folder, identity| {
        let config = config(&folder.join("config.json"), &json!({}));
        Seal::new(&config, identity).unwrap()
    };
    let own = seal(&folders[0], 7);
    let head = Head { run: u64::MAX, sequence: 2, time: 3, failures: vec![(Failure::Login, [10, 0, 0, 1].into())] };
    for records in [&b""[..], b"records"] {
        let entry = own.seal(&head, records).unwrap();
        let read = |seal: &Seal, mut entry: Vec<u8>| {
            let (head, records) = seal.open(&mut entry)?;
            Some((serde_json::to_value(head).unwrap(), records.to_vec()))
        };
        let told = (serde_json::to_value(&head).unwrap(), records.to_vec());
        assert_eq!(read(&own, entry.clone()), Some(told.clone()));
        assert_eq!(read(&seal(&folders[0], 7), entry.clone()), Some(told));
        assert_eq!(read(&seal(&folders[0], 8), entry.clone()), None, "database");
        assert_eq!(read(&seal(&folders[1], 7), entry.clone()), None, "secret");
        assert_ne!(own.seal(&head, records).unwrap(), entry, "its own nonce");
        for byte in 0..entry.len() {
            let mut other = entry.clone();
            other[byte] ^= 1;
            assert_eq!(read(&own, other), None, "byte {byte}");
            assert_eq!(read(&own, entry[..byte].to_vec()), None, "{byte} bytes");
        }
    }
}
