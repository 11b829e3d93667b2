//! The books against the truth: clients whose moved bytes are known announce in every order of arrival, goat is killed,
//! batches and journals are settled again and late, and by two writers. Nothing is credited above what moved, nothing is
//! missing but lives that ended in doubt, and the database equals the rule replayed to the byte.
//!
//! Environment: GOAT_MODEL is how many announces are made on each database instead of 1,000,000 and 200,000;
//! GOAT_RUNS how many histories each line of the table is made of; GOAT_SEED the seed, which is printed.

mod common;
mod world;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::sync::Arc;
use std::time::Instant;

use common::{
    Client, Database, Folder, History, Kind, Lives, Model, Random, SILENCE, Said, Way, above,
    info_hash, plus,
};
use goat::books::ledger::Waiting;
use goat::books::settle::{Told, settle, sort};
use goat::books::{
    Birth, Known, Life, Paths, Rise, Session, SessionKey, State, credit, hear, journal,
};
use goat::keeper::Writer;
use goat::protocol::{Addresses, Announce, Event, Factors, Moved, Refusal, Want};
use goat::random::Rng;
use goat::rules::access::User;
use goat::rules::announce::{Admitted, Buffers, announce, drop_users, expire};
use goat::rules::swarm::Shard;
use goat::store::Store;
use goat::store::sessions::Row;
use goat::torrent::{InfoHash, PeerId};
use goat::tracker::Tracker;
use proptest::prelude::*;
use serde_json::json;
use world::{check, config};

const USERS: u32 = 300;
const TORRENTS: u32 = 60;
const CLIENTS: usize = 3_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}"))
    })
}

fn seed() -> u64 {
    number("GOAT_SEED", 20_140_126)
}

/// What a client says, as goat understands it.
fn understood(a: &Said) -> Announce {
    let event = match a.event {
        "started" => Event::Started,
        "stopped" => Event::Stopped,
        "completed" => Event::Completed,
        "paused" => Event::Paused,
        _ => Event::None,
    };
    Announce {
        info_hash: InfoHash(info_hash(a.torrent)),
        peer_id: PeerId(a.peer_id),
        ip: a.ip,
        port: a.port,
        uploaded: a.uploaded,
        downloaded: a.downloaded,
        left: a.left,
        event,
        udp: a.udp,
        want: Want {
            count: 0,
            v4: true,
            v6: true,
            list: false,
        },
    }
}

// ---- credit() alone -------------------------------------------------------------------------------------------

/// What a session says in two lives, in order.
#[derive(Clone, Debug)]
struct Story {
    /// Whether the first life begins at 0, or at what it reports.
    started: bool,
    /// Whether the second life begins so soon after the first that it is in doubt.
    soon: bool,
    /// Seconds and bytes from each announce to the next.
    lives: [Vec<(u32, u64, u64)>; 2],
}

fn story() -> impl Strategy<Value = Story> {
    let life = || prop::collection::vec((0..400u32, 0..1_000u64, 0..1_000u64), 1..8);
    (any::<bool>(), any::<bool>(), life(), life()).prop_map(|(started, soon, first, second)| {
        Story {
            started,
            soon,
            lives: [first, second],
        }
    })
}

/// The states of a story as they wait until the row has them: each says how its life began.
fn states(story: &Story) -> Vec<State> {
    let (mut states, mut now, path) = (Vec::new(), 1_800_000_000, Paths(1));
    let (mut announced, mut stopped) = (0, 0);
    for (n, life) in (1..).zip(&story.lives) {
        let mut top = Moved::default();
        let mut birth: Option<Birth> = None;
        for (seconds, uploaded, downloaded) in life {
            (now, announced) = (now + seconds, announced + 1);
            top = top.plus(Moved {
                uploaded: *uploaded,
                downloaded: *downloaded,
            });
            let (first, base) = (
                n == 1,
                if n == 1 && !story.started {
                    top
                } else {
                    Moved::default()
                },
            );
            let doubt = if !first && story.soon { stopped } else { 0 };
            let started = story.started || !first;
            let birth = *birth.get_or_insert(Birth {
                at: now,
                base,
                doubt,
                first: top,
                started,
                path,
            });
            let session = Session {
                top,
                left: 1,
                seen: [now, 0],
                user: 1,
                life: Life(n),
                announced,
                peer_id: PeerId([0; 20]),
                paths: path,
                paused: false,
                complete: false,
                snatched: false,
            };
            let known = Known {
                session,
                at: Addresses::NONE,
                closed: 0,
            };
            states.push(State {
                known,
                birth: Some(birth),
                seeded: (0, 0),
                factors: Factors::default(),
            });
        }
        stopped = now;
        now += if story.soon { 1 } else { 1_000 };
    }
    states
}

#[test]
fn the_states_of_two_lives_in_any_order_and_any_of_them_repeated_give_the_same_sums() {
    let moved = |states: &[State]| {
        let (mut row, mut moved) = (Row::default(), Moved::default());
        for state in states {
            let (after, rise): (Row, Rise) = credit(&row, state, SILENCE);
            (row, moved) = (after, moved.plus(rise.moved));
        }
        assert_eq!(row.moved, moved);
        (moved, row.announced, row.current, row.closed)
    };
    check(20_000, (story(), any::<u64>()), |(story, seed)| {
        let (states, mut random) = (states(&story), Random(seed));
        let mut shuffled = states.clone();
        for i in (1..shuffled.len()).rev() {
            shuffled.swap(i, random.below(i as u64 + 1) as usize);
        }
        for _ in 0..random.below(5) {
            shuffled.insert(
                random.below(shuffled.len() as u64 + 1) as usize,
                random.one_of(&states),
            );
        }
        let lives = |states: &[State]| {
            states
                .iter()
                .map(|state| state.known.session.life.0)
                .collect::<Vec<_>>()
        };
        prop_assert_eq!(
            moved(&states),
            moved(&shuffled),
            "lives in the order {:?}",
            lives(&shuffled)
        );
        Ok(())
    });
}

// ---- One session, without a database --------------------------------------------------------------------------

/// A session in goat's memory, what waits of it, and its row.
#[derive(Default)]
struct Alone {
    shard: Shard,
    /// What is being written.
    taken: Vec<Waiting>,
    row: Row,
    /// What was settled, to be settled again.
    settled: Vec<State>,
    moved: Moved,
}

impl Alone {
    fn announce(&mut self, a: &Said, now: u32) {
        let key = SessionKey {
            file: a.torrent,
            user: a.user,
            peer_id: PeerId(a.peer_id),
        };
        let Shard { closed, ledger, .. } = &mut self.shard;
        let state = hear(closed.get(&key), a.user, &understood(a), now, SILENCE);
        closed.insert(key, state.known);
        ledger.note(&InfoHash::default(), key.file, state, &mut Vec::new());
    }

    /// Forgets a session that was closed so long ago that its row tells as much.
    fn forget(&mut self, now: u32) {
        if self.taken.is_empty() {
            let Shard { closed, ledger, .. } = &mut self.shard;
            let waits = |key: &SessionKey, known: &Known| ledger.has(key, known.session.life);
            closed.retain(|key, known| {
                known.closed == 0 || now - known.closed <= 600 || waits(key, known)
            });
        }
    }

    /// Takes what waits. More is announced before it is written.
    fn take(&mut self) {
        self.shard.ledger.take(&mut self.taken);
        sort(&mut self.taken);
    }

    /// The database cannot be written.
    fn put_back(&mut self) {
        self.taken
            .drain(..)
            .for_each(|waiting| self.shard.ledger.put_back(waiting));
    }

    fn settle(&mut self) {
        for (info_hash, key, state) in std::mem::take(&mut self.taken) {
            self.credit(&state);
            let (life, announced) = (state.known.session.life, state.known.session.announced);
            if life.is_provisional() {
                self.shard.tell(&Told {
                    info_hash,
                    key,
                    life,
                    announced,
                    row: self.row,
                });
            }
            self.settled.push(state);
        }
    }

    fn credit(&mut self, state: &State) {
        let (row, rise) = credit(&self.row, state, SILENCE);
        (self.row, self.moved) = (row, self.moved.plus(rise.moved));
    }

    /// One that was settled before, whenever that was.
    fn settle_again(&mut self, random: &mut Random) {
        if !self.settled.is_empty() {
            let again = self.settled[random.below(self.settled.len() as u64) as usize];
            self.credit(&again);
        }
    }
}

/// What a line of the table has.
#[derive(Default)]
struct Line {
    moved: u64,
    above: u64,
    below: u64,
    /// What was said in lives that ended in doubt, and what is missing beside them.
    lost: u64,
    missing: u64,
    /// Histories above the truth.
    count: u64,
}

fn sum(bytes: [u64; 2]) -> u64 {
    bytes[0] + bytes[1]
}

/// Histories of one kind, credited by goat.
fn line(way: &Way, runs: u64) -> Line {
    let (mut line, start) = (Line::default(), 1_800_000_000);
    for run in 0..runs {
        let mut random = Random(run << 8 ^ seed());
        let (mut alone, mut rule) = (Alone::default(), Lives::default());
        let History { moved, said, .. } =
            Client::new(1, 1, 1, u64::MAX).history(way, 0, &mut random);
        for (arrival, a) in said {
            let now = start + (arrival / 1000) as u32;
            if random.once_in(2) {
                alone.forget(now);
            }
            alone.announce(&a, now);
            rule.announce(now, a.path(), a.event, a.counters());
            match random.below(6) {
                0 => alone.settle(),
                1 if alone.taken.is_empty() => alone.take(),
                2 => alone.put_back(),
                3 => alone.settle_again(&mut random),
                _ => {}
            }
        }
        alone.settle();
        alone.take();
        alone.settle();
        let credit = [alone.row.moved.uploaded, alone.row.moved.downloaded];
        assert_eq!(credit, rule.credit, "run {run} of {way:?}");
        assert_eq!(alone.moved, alone.row.moved);
        let over = above(credit, moved);
        let doubt = plus(rule.lost, rule.in_doubt());
        line.moved += sum(moved);
        line.above += sum(over);
        line.below += sum(above(moved, credit));
        line.lost += sum(doubt);
        line.missing += sum(above(moved, plus(credit, doubt)));
        line.count += u64::from(sum(over) > 0);
    }
    line
}

#[test]
fn nothing_is_credited_above_what_clients_moved() {
    let runs = number("GOAT_RUNS", 1_000);
    crate::say!(
        "{:<16} {:>8} {:>9} {:>9} {:>9}   histories above, of {runs}",
        "client",
        "delay s",
        "above",
        "below",
        "in doubt"
    );
    let way = Way {
        kind: Kind::OneCounter,
        delay: 0,
        queued: false,
        whole_lives: false,
        most: 1000,
        rough: false,
    };
    let show = |name: &str, delay: u64, line: &Line| {
        let percent = |bytes: u64| format!("{:.3}%", 100.0 * bytes as f64 / line.moved as f64);
        let (over, under, doubt) = (percent(line.above), percent(line.below), percent(line.lost));
        crate::say!(
            "{name:<16} {:>8} {over:>9} {under:>9} {doubt:>9}   {}",
            delay as f64 / 1e3,
            line.count
        );
    };
    // Delays that add up where much is announced, as in a queue; lives of any length.
    for kind in [Kind::OneCounter, Kind::TwoUrls] {
        for delay in [50, 2_000, 10_000, 30_000, 60_000] {
            let line = line(
                &Way {
                    kind,
                    delay,
                    queued: true,
                    ..way
                },
                runs,
            );
            show(&format!("{kind:?}, queued"), delay, &line);
            let most = if kind == Kind::TwoUrls && delay == 60_000 {
                line.moved / 200
            } else {
                line.moved / 50_000
            };
            assert!(line.above <= most, "{} of {}", line.above, line.moved);
        }
    }
    // Delays with a bound, as of packets, which may be longer than what is late at the latest by the rule.
    for kind in Kind::ALL {
        for delay in [50, 2_000, 10_000, 30_000, 60_000, 110_000, 600_000] {
            let whole = delay <= kind.patience() * 1000;
            if whole || delay <= 110_000 {
                let line = line(
                    &Way {
                        kind,
                        delay,
                        whole_lives: true,
                        ..way
                    },
                    runs,
                );
                show(&format!("{kind:?}"), delay, &line);
                assert_eq!(line.above, 0, "{kind:?} {delay}");
                assert!(
                    !whole || line.missing == 0,
                    "{kind:?} {delay}: {} are not in doubt",
                    line.missing
                );
            }
        }
    }
}
