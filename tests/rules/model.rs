//! The books against the truth: clients whose moved bytes are known announce in every order of arrival, goat is killed,
//! batches and journals are settled again and late, and by two writers. Nothing is credited above what moved, nothing is
//! missing but lives that ended in doubt, and the database equals the rule replayed to the byte.
//!
//! Environment: GOAT_MODEL is how many announces are made on each database instead of 1,000,000 and 200,000;
//! GOAT_RUNS how many histories each line of the table is made of; GOAT_SEED the seed, which is printed.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;
use std::time::Instant;

use crate::common::{
    Client, Database, Folder, History, Kind, Lives, Model, Random, SILENCE, Said, Way, above, info_hash, plus,
};
use crate::world::{check, config};
use goat::books::ledger::Waiting;
use goat::books::settle::{Resolved, settle, sort};
use goat::books::{Birth, Known, Life, Paths, Rise, Session, SessionKey, State, credit, hear, journal};
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

const USERS: u32 = 300;
const TORRENTS: u32 = 60;
const CLIENTS: usize = 3_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn seed() -> u64 {
    number("GOAT_SEED", 20_140_126)
}

/// What a client says, as goat understands it.
pub fn understood(a: &Said) -> Announce {
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
        want: Want { count: 0, v4: true, v6: true, list: false },
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
    (any::<bool>(), any::<bool>(), life(), life()).prop_map(|(started, soon, first, second)| Story {
        started,
        soon,
        lives: [first, second],
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
            top = top.plus(Moved { uploaded: *uploaded, downloaded: *downloaded });
            let (first, base) = (n == 1, if n == 1 && !story.started { top } else { Moved::default() });
            let doubt = if !first && story.soon { stopped } else { 0 };
            let started = story.started || !first;
            let birth = *birth.get_or_insert(Birth { at: now, base, doubt, first: top, started, path });
            let session = Session {
                top,
                left: 1,
                seen: [now, 0],
                user: 1,
                life: Life(n),
                began: birth.at,
                seeds: 0,
                announced,
                peer_id: PeerId([0; 20]),
                paths: path,
                paused: false,
                complete: false,
                snatched: false,
            };
            let known = Known { session, at: Addresses::NONE, closed: 0 };
            states.push(State { known, birth: Some(birth), seeded: (0, 0), factors: Factors::default() });
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
            shuffled.insert(random.below(shuffled.len() as u64 + 1) as usize, random.one_of(&states));
        }
        let lives = |states: &[State]| states.iter().map(|state| state.known.session.life.0).collect::<Vec<_>>();
        prop_assert_eq!(moved(&states), moved(&shuffled), "lives in the order {:?}", lives(&shuffled));
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
        let key = SessionKey { file: a.torrent, user: a.user, peer_id: PeerId(a.peer_id) };
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
            closed.retain(|key, known| known.closed == 0 || now - known.closed <= 600 || waits(key, known));
        }
    }

    /// Takes what waits. More is announced before it is written.
    fn take(&mut self) {
        self.shard.ledger.take(&mut self.taken);
        sort(&mut self.taken);
    }

    /// The database cannot be written.
    fn put_back(&mut self) {
        self.taken.drain(..).for_each(|waiting| self.shard.ledger.put_back(waiting));
    }

    fn settle(&mut self) {
        for (info_hash, key, state) in std::mem::take(&mut self.taken) {
            self.credit(&state);
            let (life, announced) = (state.known.session.life, state.known.session.announced);
            if life.is_provisional() {
                let row = self.row;
                let told = Resolved { info_hash, key, life, announced, row };
                self.shard.resolve(&told, &mut Vec::new());
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
    /// Histories above the truth, and the last of them.
    count: u64,
    run: u64,
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
        let History { moved, said, .. } = Client::new(1, 1, 1, u64::MAX).history(way, 0, &mut random);
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
        if sum(over) > 0 {
            (line.count, line.run) = (line.count + 1, run);
        }
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
    let way = Way { whole_lives: false, ..Way::PLAIN };
    let show = |name: &str, delay: u64, line: &Line| {
        let percent = |bytes: u64| format!("{:.3}%", 100.0 * bytes as f64 / line.moved as f64);
        let (over, under, doubt) = (percent(line.above), percent(line.below), percent(line.lost));
        crate::say!("{name:<16} {:>8} {over:>9} {under:>9} {doubt:>9}   {}", delay as f64 / 1e3, line.count);
    };
    // Delays that add up where much is announced, as in a queue; lives of any length.
    for kind in [Kind::OneCounter, Kind::TwoUrls] {
        for delay in [50, 2_000, 10_000, 30_000, 60_000] {
            let line = line(&Way { kind, delay, queued: true, ..way }, runs);
            show(&format!("{kind:?}, queued"), delay, &line);
            let most = if kind == Kind::TwoUrls && delay == 60_000 { line.moved / 200 } else { line.moved / 50_000 };
            assert!(line.above <= most, "{} of {}", line.above, line.moved);
        }
    }
    // Delays with a bound, as of packets, which may be longer than what is late at the latest by the rule.
    for kind in Kind::ALL {
        for delay in [50, 2_000, 10_000, 30_000, 60_000, 110_000, 600_000] {
            let whole = delay <= kind.patience() * 1000;
            if whole || delay <= 110_000 {
                let line = line(&Way { kind, delay, whole_lives: true, ..way }, runs);
                show(&format!("{kind:?}"), delay, &line);
                assert_eq!(line.above, 0, "{kind:?} {delay}, run {}", line.run);
                assert!(!whole || line.missing == 0, "{kind:?} {delay}: {} are not in doubt", line.missing);
            }
        }
    }
}

// ---- Many sessions, and a database ----------------------------------------------------------------------------

#[test]
fn a_million_announces_leave_sqlite_as_the_rule_has_it_and_never_above_the_truth() {
    history(&Database::sqlite(), number("GOAT_MODEL", 1_000_000));
}

#[test]
fn two_hundred_thousand_announces_leave_mariadb_as_the_rule_has_it_and_never_above_the_truth() {
    if let Some(database) = Database::mariadb("the model on MariaDB") {
        history(&database, number("GOAT_MODEL", 200_000));
    }
}

/// A tracker that is asked without sockets, and a second one that only writes.
struct Books<'a> {
    database: &'a Database,
    folder: Folder,
    tracker: Arc<Tracker>,
    second: Store,
    now: u32,
    buffers: Buffers,
    /// Batches and journals of the past, to be settled once more.
    past: Vec<Vec<Waiting>>,
}

impl<'a> Books<'a> {
    fn new(database: &'a Database, users: u32, torrents: u32) -> Books<'a> {
        let folder = Folder::new();
        let settings = json!({ "SlowDown": 0, "Clients": 1_000_000, "DB": database.config() });
        let config = config(&folder.join("config.json"), &settings);
        drop(Store::open(&config).unwrap());
        database.sql(&crate::common::users(users));
        database.sql(&crate::common::files(torrents));
        let second = Store::open(&config).unwrap();
        let tracker = Arc::new(Tracker::load(config).unwrap());
        let (now, buffers) = (tracker.clock.now(), Buffers::new(Rng::new(1)));
        Books { database, folder, tracker, second, now, buffers, past: Vec::new() }
    }

    /// Whether an announce is answered: that of a banned member is not, unless it ends what is there.
    fn answers(&mut self, a: &Said) -> bool {
        let Tracker { config, swarms, access, journal, .. } = &*self.tracker;
        let Some(user) = access.by_id(a.user) else {
            return false;
        };
        let refusal = user.banned().then_some(Refusal::Banned);
        let who = Admitted { user, refusal };
        let answer = announce(config, swarms, &who, &understood(a), self.now, &mut self.buffers);
        journal.write(&mut self.buffers.records);
        match answer {
            Ok(_) => true,
            Err(Refusal::Banned) => false,
            Err(refusal) => panic!("{a:?}: {refusal}"),
        }
    }

    fn expire(&mut self) {
        let Tracker { config, access, swarms, journal, .. } = &*self.tracker;
        for mut shard in swarms.each() {
            expire(config, access, &mut shard, self.now, &mut self.buffers.records);
        }
        journal.write(&mut self.buffers.records);
    }

    /// What waits, as the next batch has it.
    fn batch(&self) -> Vec<Waiting> {
        let batch = Writer::take(&self.tracker);
        Writer::put_back(&self.tracker, &batch);
        batch
    }

    fn write(&self) {
        Writer::new(self.now).write(&self.tracker, self.now, |_| false).unwrap();
    }

    /// Writes what waits, together with what may happen to a batch.
    fn write_somehow(&mut self, random: &mut Random) {
        let batch = self.batch();
        let settle = |store: &Store, batch: &[Waiting]| drop(settle(store, batch, SILENCE).unwrap());
        match random.below(8) {
            // COMMIT was not answered, and the batch is written again.
            0 => {
                settle(&self.tracker.store, &batch);
                self.write();
            }
            // Another goat has heard the same: it is later, sooner, or at it at the same time.
            1 => {
                self.write();
                settle(&self.second, &batch);
            }
            2 => {
                settle(&self.second, &batch);
                self.write();
            }
            3 => std::thread::scope(|scope| {
                scope.spawn(|| settle(&self.second, &batch));
                self.write();
            }),
            // Something of the past, before or after.
            n @ 4..=5 => {
                if n == 4 {
                    self.write();
                }
                if !self.past.is_empty() {
                    settle(&self.second, &self.past[random.below(self.past.len() as u64) as usize]);
                }
                self.write();
            }
            _ => self.write(),
        }
        self.remember(batch, random);
    }

    fn remember(&mut self, batch: Vec<Waiting>, random: &mut Random) {
        if self.past.len() < 40 {
            self.past.push(batch);
        } else {
            let at = random.below(40) as usize;
            self.past[at] = batch;
        }
    }

    /// Is killed, or ends in good order, and starts anew.
    fn again(mut self, random: &mut Random) -> Books<'a> {
        if random.once_in(4) {
            Writer::new(self.now).finish(&self.tracker, false).unwrap();
        }
        let mut records = journal_of(&self.tracker);
        let Books { database, folder, tracker, second, now, buffers, past } = self;
        let config = tracker.config.clone();
        drop(tracker);
        let tracker = Arc::new(Tracker::load(config).unwrap());
        self = Books { database, folder, tracker, second, now, buffers, past };
        // The start before was killed before it could clear the journal; and each record by itself, in any order.
        records.truncate(5_000);
        for _ in 0..2 {
            settle(&self.second, &records, SILENCE).unwrap();
        }
        self.remember(records, random);
        self
    }

    fn ban(&mut self, user: u32, banned: bool) {
        let Tracker { access, swarms, journal, .. } = &*self.tracker;
        access.put_user(User::new(user, &format!("{user:040x}"), 0, banned));
        self.database.sql(&format!("UPDATE users SET banned = {} WHERE id = {user}", u8::from(banned)));
        if banned {
            for mut shard in swarms.each() {
                drop_users(access, &mut shard, &[user].into(), self.now, &mut self.buffers.records);
            }
            journal.write(&mut self.buffers.records);
        }
    }

    fn remove(&mut self, user: u32) {
        self.ban(user, true);
        self.tracker.access.remove_user(user);
        self.database.sql(&format!("DELETE FROM users WHERE id = {user}"));
    }
}

/// Every record of a tracker's journal.
fn journal_of(tracker: &Tracker) -> Vec<Waiting> {
    let mut states = Vec::new();
    for file in fs::read_dir(tracker.journal.path()).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let bytes = fs::read(path).unwrap();
            let records = &bytes[bytes.len() % journal::RECORD..];
            let decoded = records.chunks(journal::RECORD).map(|record| journal::decode(record).expect("whole records"));
            states.extend(decoded.map(|(_, key, state)| (InfoHash(info_hash(key.file)), key, state)));
        }
    }
    sort(&mut states);
    states
}

/// Members who are banned now and then have clients whose counters tell by themselves what is new: nobody could tell a
/// second URL from a restart where a ban has closed the session in between.
fn may_be_banned(user: u32) -> bool {
    user.is_multiple_of(10)
}

/// A client by one of its announces, what it moved and what of that it told.
type Truth = (Said, [[u64; 2]; 2]);

/// Histories of all clients, some one after the other, until there are so many announces; what each moved, and told.
fn histories(clients: &mut [Client], most: u64, random: &mut Random) -> (Vec<(u64, Said)>, Vec<Truth>) {
    let (mut said, mut truth) = (Vec::new(), Vec::new());
    let mut free = vec![0; clients.len()];
    while (said.len() as u64) < most {
        for (client, free) in clients.iter_mut().zip(&mut free) {
            let kind = if may_be_banned(client.user) { Kind::OneCounter } else { random.one_of(&Kind::ALL) };
            let delay = random.one_of(&[50, 2_000, 10_000, 30_000, 60_000, 1000 * kind.patience()]);
            let way = Way { kind, delay, most: 1 << 30, rough: true, ..Way::PLAIN };
            let history = client.history(&way, *free + random.below(20_000_000), random);
            *free = history.end;
            truth.push((history.said[0].1.clone(), [history.moved, history.told]));
            said.extend(history.said);
            if said.len() as u64 >= most {
                break;
            }
        }
    }
    said.sort_by_key(|(arrival, _)| *arrival);
    (said, truth)
}

/// Makes so many announces, and compares now and then.
fn history(database: &Database, announces: u64) {
    let (seed, begin) = (seed(), Instant::now());
    crate::say!("{announces} announces, GOAT_SEED={seed}");
    let mut books = Books::new(database, USERS, TORRENTS);
    let mut random = Random(seed);
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|n| {
            let left = random.one_of(&[0, 1 << 30, 1 << 34]);
            Client::new(1 + n as u32 % USERS, 1 + random.below(TORRENTS.into()) as u32, n, left)
        })
        .collect();
    let (mut model, mut answered, mut compared, mut restarts, mut batches) = (Model::default(), 0, 0, 0, 0);
    let (mut moved, mut missing, mut lost, mut above_truth) = ([0; 2], [0; 2], [0; 2], 0);
    let (mut banned, mut refused) = (Vec::new(), BTreeSet::new());
    let mut next = [2_000, announces / 50, announces / 100, 0];
    while answered < announces {
        let (said, truth) = histories(&mut clients, (announces - answered).min(announces / 5 + 1), &mut random);
        let start = books.now;
        for (arrival, a) in said {
            books.now = start + (arrival / 1000) as u32;
            if u64::from(books.now) >= next[3] {
                next[3] = u64::from(books.now) + 300 + random.below(300);
                books.expire();
                model.expire(books.now);
            }
            if books.answers(&a) {
                model.answered(&a, books.now);
                answered += 1;
            } else {
                refused.insert(a.peer_id);
            }
            if answered >= next[0] {
                next[0] += 500 + random.below(4_000);
                books.write_somehow(&mut random);
                batches += 1;
            }
            if answered >= next[1] {
                next[1] += announces / 50;
                books = books.again(&mut random);
                restarts += 1;
            }
            if answered >= next[2] {
                next[2] += announces / 100;
                banned.drain(..).for_each(|user| books.ban(user, false));
                let user = 10 * (1 + random.below(u64::from(USERS) / 10)) as u32;
                if books.tracker.access.by_id(user).is_some() {
                    model.leave(user, books.now);
                    match random.once_in(10) {
                        true => books.remove(user),
                        false => {
                            books.ban(user, true);
                            banned.push(user);
                        }
                    }
                }
            }
        }
        for (a, [truth, told]) in truth {
            let Some(lives) = model.lives(&a) else {
                continue;
            };
            moved = plus(moved, truth);
            above_truth += u64::from(above(lives.credit, truth) != [0, 0]);
            let doubt = plus(lives.lost, lives.in_doubt());
            let lacks = above(told, lives.credit);
            if !refused.contains(&a.peer_id) {
                missing = plus(missing, lacks);
                lost = plus(lost, above(lacks, doubt));
            }
        }
        books.write();
        books.expire();
        model.expire(books.now);
        books.write();
        let verdict = model.compare(database, true);
        verdict.demand(&format!("after {answered} announces with GOAT_SEED={seed}"));
        compared += verdict.rows;
        books.now += 100_000;
    }
    let (seeded, union) = (database.number("SELECT SUM(seed_time) FROM files_users"), model.seeded());
    assert!(seeded as u64 <= union, "{seeded} seconds seeded, which were {union}");
    assert_eq!(above_truth, 0, "sessions above the truth, GOAT_SEED={seed}");
    // With delays of a minute a life of minutes may be taken for the one before.
    assert!(sum(lost) <= sum(moved) / 20_000, "{lost:?} of {moved:?} are missing and not in doubt, GOAT_SEED={seed}");
    crate::say!(
        "{answered} announces, {batches} batches, {restarts} restarts, {compared} rows compared, 0 bytes wrong, \
         0 above the truth, {:.3} % in lives that ended in doubt, {:.4} % missing beside them; {:.3} % of the time of seeding; {:.0} s",
        100.0 * (sum(missing) - sum(lost)) as f64 / sum(moved) as f64,
        100.0 * sum(lost) as f64 / sum(moved) as f64,
        100.0 * seeded as f64 / union as f64,
        begin.elapsed().as_secs_f64()
    );
}

// ---- The database is away -------------------------------------------------------------------------------------

#[test]
fn while_the_database_is_away_memory_and_journal_are_bounded_by_sessions_and_not_by_announces() {
    let database = Database::sqlite();
    let mut books = Books::new(&database, 100, 10);
    // 10,000 sessions; a million announces are an hour of 300 a second.
    let (sessions, announces) = (10_000_u64, 1_000_000_u64);
    let mut writer = Writer::new(books.now);
    database.sql("ALTER TABLE sessions RENAME TO gone");
    let mut model = Model::default();
    let mut journal = 0;
    for n in 0..announces {
        let (session, round) = (n % sessions, n / sessions);
        let user = 1 + (session % 100) as u32;
        let mut peer_id = [b'-'; 20];
        peer_id[..8].copy_from_slice(&session.to_be_bytes());
        let a = Said {
            user,
            torrent: 1 + (session / 1_000) as u32,
            peer_id,
            ip: [10, 0, 0, user as u8].into(),
            port: 10_000 + session as u16,
            udp: false,
            uploaded: round * 1_000,
            downloaded: round,
            left: 1,
            event: if round == 0 { "started" } else { "" },
        };
        assert!(books.answers(&a));
        model.answered(&a, books.now);
        if session == 0 {
            assert!(writer.write(&books.tracker, books.now, |_| false).is_err());
            writer.tend_journal(&books.tracker);
            assert!(Writer::waiting(&books.tracker) as u64 <= sessions, "a session is one state");
            journal = journal.max(books.tracker.journal.size() >> 20);
            books.now += 36;
        }
    }
    crate::say!("{announces} announces of {sessions} sessions: {journal} MB of journal at most");
    assert!(journal < 64 + 4, "{journal} MB of journal");
    database.sql("ALTER TABLE gone RENAME TO sessions");
    // Where goat is to stop meanwhile, the rest waits on.
    writer.write(&books.tracker, books.now, |_| true).unwrap();
    assert!((1..sessions as usize).contains(&Writer::waiting(&books.tracker)));
    writer.write(&books.tracker, books.now, |_| false).unwrap();
    model.compare(&database, true).demand("after the outage");
}
