//! The books against a model of them: long random histories of clients as they are in the world, with restarts
//! and kills of goat, and bans and removals of members, in between. The database must equal the model to the
//! byte.
//!
//! Environment: GOAT_MODEL is how many announces are made on each database instead of 1,000,000 and 200,000;
//! GOAT_SEED the seed of the history, which is printed.

mod common;
mod world;

use std::sync::Arc;

use common::{Clients, Database, Folder, Model, Random, SILENCE, Said, info_hash, wait_until};
use goat::keeper::{Keeper, gather};
use goat::protocol::{Announce, Event, Peers, Want};
use goat::random::Rng;
use goat::rules::access::User;
use goat::rules::announce::{announce, drop_users, expire};
use goat::store::Store;
use goat::torrent::{InfoHash, PeerId};
use goat::tracker::Tracker;
use serde_json::json;
use world::config;

const USERS: u32 = 300;
const TORRENTS: u32 = 60;
const CLIENTS: usize = 3_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is no number: {text}"))
    })
}

#[test]
fn a_million_announces_leave_sqlite_as_the_model_has_it() {
    history(&Database::sqlite(), number("GOAT_MODEL", 1_000_000));
}

#[test]
fn two_hundred_thousand_announces_leave_mariadb_as_the_model_has_it() {
    if let Some(database) = Database::mariadb("the model on MariaDB") {
        history(&database, number("GOAT_MODEL", 200_000));
    }
}

/// A tracker that is asked without sockets.
struct Books<'a> {
    database: &'a Database,
    folder: Folder,
    tracker: Arc<Tracker>,
    now: u32,
    rng: Rng,
}

impl<'a> Books<'a> {
    fn new(database: &'a Database, users: u32) -> Books<'a> {
        let folder = Folder::new();
        let settings = json!({ "SlowDown": 0, "Clients": 1_000_000, "DB": database.config() });
        let config = config(&folder.join("config.json"), &settings);
        drop(Store::open(&config).unwrap());
        database.sql(&common::users(users));
        database.sql(&common::files(TORRENTS));
        let tracker = Arc::new(Tracker::load(config).unwrap());
        let now = tracker.clock.now();
        Books {
            database,
            folder,
            tracker,
            now,
            rng: Rng::new(1),
        }
    }

    /// Whether an announce is answered: that of a banned user is not.
    fn answers(&mut self, a: &Said) -> bool {
        let Some(user) = self
            .tracker
            .access
            .by_id(a.user)
            .filter(|user| !user.banned)
        else {
            return false;
        };
        self.announce(&user, a);
        true
    }

    fn announce(&mut self, user: &User, a: &Said) {
        let event = match a.event {
            "started" => Event::Started,
            "stopped" => Event::Stopped,
            "completed" => Event::Completed,
            "paused" => Event::Paused,
            _ => Event::None,
        };
        let a = Announce {
            info_hash: InfoHash(info_hash(a.torrent)),
            peer_id: PeerId(a.peer_id),
            ip: a.ip,
            port: 6881,
            uploaded: a.uploaded,
            downloaded: a.downloaded,
            left: a.left,
            event,
            want: Want {
                count: 0,
                v4: true,
                v6: true,
                list: false,
            },
        };
        let Tracker { config, swarms, .. } = &*self.tracker;
        let answer = announce(
            config,
            swarms,
            user,
            &a,
            self.now,
            &mut self.rng,
            &mut Peers::default(),
        );
        answer.unwrap_or_else(|refusal| panic!("{a:?}: {refusal}"));
    }

    /// Writes what is unwritten; sometimes the answer to COMMIT is lost, and it is sent again.
    fn write(&mut self, again: bool) {
        let batch = gather(&self.tracker, &mut self.rng);
        (0..=u32::from(again)).for_each(|_| self.tracker.store.write(&batch, self.now).unwrap());
        self.tracker
            .journal
            .as_ref()
            .unwrap()
            .forget(Some(batch.number));
    }

    /// Begins a write that goat does not live to finish, or to note as finished, or ends in good order; then
    /// starts goat anew.
    fn again(mut self, random: &mut Random) -> Books<'a> {
        match random.below(4) {
            0 => {}
            1 => drop(gather(&self.tracker, &mut self.rng)),
            2 => {
                let batch = gather(&self.tracker, &mut self.rng);
                self.tracker.store.write(&batch, self.now).unwrap();
            }
            _ => Keeper::new(self.tracker.clone()).finish().unwrap(),
        }
        let Books {
            database,
            folder,
            tracker,
            now,
            rng,
        } = self;
        let config = tracker.config.clone();
        drop(tracker);
        Books {
            database,
            folder,
            tracker: Arc::new(Tracker::load(config).unwrap()),
            now,
            rng,
        }
    }

    fn ban(&mut self, user: u32, banned: bool) {
        self.tracker
            .access
            .put_user(User::new(user, &format!("{user:040x}"), 0, banned));
        self.database.sql(&format!(
            "UPDATE users SET banned = {} WHERE id = {user}",
            u8::from(banned)
        ));
        if banned {
            let access = &self.tracker.access;
            self.tracker
                .swarms
                .each()
                .for_each(|mut shard| drop_users(access, &mut shard, &[user].into()));
        }
    }

    fn remove(&mut self, user: u32) {
        let access = &self.tracker.access;
        self.tracker
            .swarms
            .each()
            .for_each(|mut shard| drop_users(access, &mut shard, &[user].into()));
        access.remove_user(user);
        self.database
            .sql(&format!("DELETE FROM users WHERE id = {user}"));
    }
}

/// Makes so many announces, and compares now and then.
fn history(database: &Database, announces: u64) {
    let seed = number("GOAT_SEED", 20_140_126);
    crate::say!("{announces} announces, GOAT_SEED={seed}");
    let mut books = Books::new(database, USERS);
    let mut clients = Clients::new(seed, CLIENTS, 1..USERS + 1, TORRENTS);
    let mut random = Random(seed ^ 1);
    let (mut model, mut answered, mut compared, mut restarts, mut batches) =
        (Model::default(), 0, 0, 0, 0);
    let mut banned = Vec::new();
    let mut next = [2_000, announces / 50, announces / 100, announces / 10];
    while answered < announces {
        books.now += 1 + random.below(3) as u32;
        for a in clients.next() {
            if books.answers(&a) {
                model.answered(&a, books.now);
                answered += 1;
            }
        }
        if answered >= next[0] {
            next[0] += 1_000 + random.below(4_000);
            let Tracker {
                config,
                access,
                swarms,
                ..
            } = &*books.tracker;
            swarms
                .each()
                .for_each(|mut shard| expire(config, access, &mut shard, books.now));
            model.leave(|_, seen| seen >= books.now - SILENCE);
            books.write(random.once_in(4));
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
            for _ in 0..3 {
                let user = 1 + random.below(u64::from(USERS)) as u32;
                if books.tracker.access.by_id(user).is_some() {
                    books.ban(user, true);
                    model.leave(|of, _| of != user);
                    banned.push(user);
                }
            }
            if random.once_in(4) {
                let user = 1 + random.below(u64::from(USERS)) as u32;
                books.remove(user);
                model.leave(|of, _| of != user);
            }
        }
        if answered >= next[3] || answered >= announces {
            next[3] += announces / 10;
            books.write(false);
            let verdict = model.compare(database, true);
            verdict.demand(&format!("after {answered} announces with GOAT_SEED={seed}"));
            compared += verdict.rows;
        }
    }
    crate::say!(
        "{answered} announces, {batches} batches, {restarts} restarts, {compared} rows compared, 0 bytes wrong"
    );
}

/// The memory of this process, in bytes.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * 1024
}

#[test]
fn while_the_database_is_away_memory_is_bounded_by_sessions_and_not_by_announces() {
    let database = Database::sqlite();
    let mut books = Books::new(&database, 100);
    // 10,000 sessions; two million announces are an hour of more than 500 a second.
    let (sessions, announces) = (10_000_u64, 2_000_000_u64);
    let (stop, stopped) = std::sync::mpsc::channel();
    let mut keeper = Keeper::new(books.tracker.clone());
    database.sql("ALTER TABLE peers RENAME TO gone");
    let keeping = std::thread::spawn(move || {
        keeper.run(&stopped, || ());
        keeper.finish().unwrap();
    });
    let mut model = Model::default();
    let (mut early, mut most) = (0, 0);
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
            uploaded: round * 1_000,
            downloaded: round,
            left: 1,
            event: if round == 0 { "started" } else { "" },
        };
        assert!(books.answers(&a));
        model.answered(&a, books.now);
        if session == 0 {
            let rows: u64 = books
                .tracker
                .swarms
                .each()
                .map(|shard| shard.ledger.rows() as u64)
                .sum();
            assert!(
                rows <= 2 * sessions,
                "{rows} rows unwritten of {sessions} sessions"
            );
            most = most.max(memory());
            early = if round == 20 { most } else { early };
            // Slowly enough that the keeper, which looks once a second, sees the journal grow.
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
    crate::say!(
        "{announces} announces of {sessions} sessions: {} MB after a tenth, {} MB at most",
        early >> 20,
        most >> 20
    );
    assert!(most < early + (160 << 20), "from {early} to {most} bytes");
    database.sql("ALTER TABLE gone RENAME TO peers");
    wait_until("everything to be written", || {
        model.compare(&database, true).wrong.is_empty()
    });
    stop.send(()).unwrap();
    keeping.join().unwrap();
    model.compare(&database, true).demand("after the outage");
}
