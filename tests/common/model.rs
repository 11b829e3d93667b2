//! A model of the books: what each member, torrent and session must hold after a history of announces; and
//! clients that make such histories.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Database, hex};

/// One announce.
#[derive(Clone, Debug)]
pub struct Said {
    pub user: u32,
    pub torrent: u32,
    pub peer_id: [u8; 20],
    pub ip: IpAddr,
    pub uploaded: u64,
    pub downloaded: u64,
    pub left: u64,
    /// "" is no event.
    pub event: &'static str,
    /// The copy that a client with two address families sends over the other, at the same moment.
    pub twin: bool,
}

/// (torrent, user, peer id).
type Session = (u32, u32, [u8; 20]);

/// What must be in the database.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Uploaded and downloaded, as sent last.
    pub sessions: BTreeMap<Session, (u64, u64)>,
    /// Uploaded, downloaded and announces, by torrent, user and address.
    pub totals: BTreeMap<(u32, u32, IpAddr), (u64, u64, u64)>,
    /// Who has completed what, and where.
    pub snatches: BTreeSet<(u32, u32, IpAddr)>,
    completed: BTreeSet<Session>,
}

impl Model {
    /// An announce was answered.
    pub fn answered(&mut self, a: &Said) {
        let key = (a.torrent, a.user, a.peer_id);
        let known = self.sessions.get(&key).copied();
        let mut now = (a.uploaded, a.downloaded);
        if let (true, Some(last)) = (a.twin, known) {
            now = (now.0.max(last.0), now.1.max(last.1));
        }
        let grown = |last: u64, now: u64| if now < last { now } else { now - last };
        let credit = match known {
            Some(last) => (grown(last.0, now.0), grown(last.1, now.1)),
            None if a.event == "started" => now,
            None => (0, 0),
        };
        let total = self.totals.entry((a.torrent, a.user, a.ip)).or_default();
        *total = (total.0 + credit.0, total.1 + credit.1, total.2 + 1);
        self.sessions.insert(key, now);
        if a.event == "completed" && a.left == 0 && self.completed.insert(key) {
            self.snatches.insert((a.torrent, a.user, a.ip));
        }
    }

    /// Takes over what another model knows of other users.
    pub fn join(&mut self, other: Model) {
        self.sessions.extend(other.sessions);
        self.totals.extend(other.totals);
        self.snatches.extend(other.snatches);
        self.completed.extend(other.completed);
    }

    /// Compares with what the database holds of the users that are still there; with `announces` also how often
    /// each row was announced.
    pub fn compare(&self, database: &Database, announces: bool) -> Verdict {
        let mut verdict = Verdict::default();
        let mut users: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for ((_, user, _), (up, down, _)) in &self.totals {
            let sums = users.entry(*user).or_default();
            *sums = (sums.0 + up, sums.1 + down);
        }
        let there = database.sql("SELECT id FROM users").concat();
        users.retain(|user, _| there.contains(&user.to_string()));
        let users = users.into_iter().map(|(id, sums)| (id.to_string(), sums));
        verdict.table(
            "users",
            users,
            database,
            "id",
            "users WHERE uploaded + downloaded > 0 OR id IN (SELECT user_id FROM files_users)",
        );
        let totals = self
            .totals
            .iter()
            .map(|((file, user, ip), sums)| (format!("{file} {user} {ip}"), (sums.0, sums.1)));
        verdict.table(
            "files_users",
            totals,
            database,
            "file_id, user_id, ip",
            "files_users",
        );
        let sessions = self
            .sessions
            .iter()
            .map(|((file, user, id), sums)| (format!("{file} {user} {}", hex(id)), *sums));
        verdict.table(
            "peers",
            sessions,
            database,
            "file_id, user_id, lower(hex(peer_id))",
            "peers",
        );
        let mut snatches: BTreeMap<u32, u64> = BTreeMap::new();
        self.snatches
            .iter()
            .for_each(|(torrent, ..)| *snatches.entry(*torrent).or_default() += 1);
        let held = database.sql("SELECT id, completed FROM files WHERE completed > 0 ORDER BY id");
        let expected: Vec<Vec<String>> = snatches
            .iter()
            .map(|(id, n)| vec![id.to_string(), n.to_string()])
            .collect();
        verdict.rows += expected.len();
        if held != expected {
            verdict
                .wrong
                .push(format!("snatches are {held:?}, must be {expected:?}"));
        }
        if announces {
            let all: u64 = self.totals.values().map(|total| total.2).sum();
            let held = database.number("SELECT COALESCE(SUM(announced), 0) FROM files_users");
            if held as u64 != all {
                verdict
                    .wrong
                    .push(format!("{held} announces, must be {all}"));
            }
        }
        verdict
    }
}

/// What a comparison has found.
#[derive(Debug, Default)]
pub struct Verdict {
    pub rows: usize,
    /// By how many bytes the database is off, in all its rows.
    pub bytes: u64,
    /// What is wrong, in words.
    pub wrong: Vec<String>,
}

impl Verdict {
    /// Compares the columns uploaded and downloaded of a table, by key.
    fn table(
        &mut self,
        name: &str,
        expected: impl Iterator<Item = (String, (u64, u64))>,
        database: &Database,
        key: &str,
        from: &str,
    ) {
        let columns = key.split(", ").count();
        let rows = database.sql(&format!("SELECT {key}, uploaded, downloaded FROM {from}"));
        let number = |text: &String| text.parse::<u64>().unwrap();
        let held = rows.iter().map(|row| {
            (
                row[..columns].join(" "),
                (number(&row[columns]), number(&row[columns + 1])),
            )
        });
        let mut held: BTreeMap<String, (u64, u64)> = held.collect();
        for (key, must) in expected {
            self.rows += 1;
            let is = held.remove(&key);
            if is != Some(must) {
                let is_or = is.unwrap_or_default();
                self.bytes += is_or.0.abs_diff(must.0) + is_or.1.abs_diff(must.1);
                self.wrong
                    .push(format!("{name} {key} is {is:?}, must be {must:?}"));
            }
        }
        for (key, is) in held {
            self.bytes += is.0 + is.1;
            self.wrong
                .push(format!("{name} {key} is {is:?}, must not be there"));
        }
    }

    /// Fails the test if anything is wrong.
    pub fn demand(&self, what: &str) {
        let some = &self.wrong[..self.wrong.len().min(10)];
        assert!(
            self.wrong.is_empty(),
            "{what}: {} rows are wrong, by {} bytes: {some:#?}",
            self.wrong.len(),
            self.bytes
        );
    }
}

/// Numbers from a seed, the same everywhere (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}

/// One client of a member on one torrent.
#[derive(Clone, Debug)]
struct Client {
    user: u32,
    torrent: u32,
    peer_id: [u8; 20],
    v4: IpAddr,
    v6: Option<IpAddr>,
    uploaded: u64,
    downloaded: u64,
    left: u64,
    running: bool,
    crashes: u32,
    /// Where it has completed its download.
    completed: Option<IpAddr>,
}

/// Clients as they are in the world.
#[derive(Clone, Debug)]
pub struct Clients {
    pub random: Random,
    clients: Vec<Client>,
    born: u64,
    /// Hours pass in milliseconds: no client crashes more often than goat lets go of the sessions left behind,
    /// and all that hangs on the time between two announces is left out.
    hasty: bool,
}

impl Clients {
    /// `count` clients of the users in the range, on torrents 1 to `torrents`.
    pub fn new(
        seed: u64,
        count: usize,
        users: std::ops::Range<u32>,
        torrents: u32,
        hasty: bool,
    ) -> Clients {
        let born = u64::from(users.start) << 32;
        let mut all = Clients {
            random: Random(seed),
            clients: Vec::new(),
            born,
            hasty,
        };
        let each = count.div_ceil(users.len());
        for user in users
            .flat_map(|user| std::iter::repeat_n(user, each))
            .take(count)
        {
            let torrent = 1 + all.random.below(torrents.into()) as u32;
            let mut client = Client {
                user,
                torrent,
                peer_id: all.peer_id(),
                v4: IpAddr::from([0; 4]),
                v6: None,
                uploaded: 0,
                downloaded: 0,
                left: 1 << 30,
                running: false,
                crashes: 0,
                completed: None,
            };
            all.moves(&mut client);
            all.clients.push(client);
        }
        all
    }

    fn peer_id(&mut self) -> [u8; 20] {
        self.born += 1;
        let mut id = *b"-qB5020-............";
        id[12..].copy_from_slice(&self.born.to_be_bytes());
        // Some say bytes that are no text.
        id[8..12].copy_from_slice(&(self.random.bits() as u32).to_be_bytes());
        id
    }

    /// To one of the few addresses of its user: several machines are behind each.
    fn moves(&mut self, client: &mut Client) {
        let [a, b] = (client.user as u16).to_be_bytes();
        let place = self.random.below(3) as u8;
        client.v4 = IpAddr::from([10, a, b, place]);
        let v6 = IpAddr::from([0x20, 1, 0xd, 0xb8, a, b, 0, place, 0, 0, 0, 0, 0, 0, 0, 1]);
        client.v6 = self.random.once_in(3).then_some(v6);
    }

    /// What one of them says next: one announce, or several where answers are lost, or both address families
    /// are used.
    pub fn next(&mut self) -> Vec<Said> {
        let at = self.random.below(self.clients.len() as u64) as usize;
        let mut client = self.clients[at].clone();
        let before = client.peer_id;
        let r = &mut self.random;
        let (up, down) = (r.below(5_000_000_000), r.below(1 << 28));
        let mut event = "";
        if client.running {
            match r.below(40) {
                0..=3 => {
                    event = "stopped";
                    client.running = false;
                }
                // It crashes, and comes back as somebody else, or as itself; sometimes its first announce is lost.
                4 if !self.hasty || client.crashes < 3 => {
                    client.crashes += 1;
                    (client.uploaded, client.downloaded) = (0, 0);
                    client.peer_id = self.peer_id();
                    event = "started";
                }
                5 => {
                    (client.uploaded, client.downloaded) = (r.below(1000), 0);
                    event = if !self.hasty && r.once_in(4) {
                        ""
                    } else {
                        "started"
                    };
                }
                6 => self.moves(&mut client),
                7 => client.left = 1 << 30, // it checks its files, and they are gone
                8 => {
                    event = if client.left > 0 {
                        "paused"
                    } else {
                        "completed"
                    }
                }
                _ => {}
            }
        } else {
            client.running = true;
            event = "started";
            match r.below(10) {
                0..=5 => {
                    (client.uploaded, client.downloaded) = (0, 0);
                    client.peer_id = self.peer_id();
                }
                6 => (client.uploaded, client.downloaded) = (0, 0),
                7 => event = "", // it was stopped by mistake, or knows goat from before
                8 => {
                    (event, client.running) = ("stopped", false);
                    client.peer_id = self.peer_id();
                }
                _ => {}
            }
        }
        let r = &mut self.random;
        if event != "started" {
            client.uploaded += up;
            let down = down.min(client.left);
            client.downloaded += down;
            client.left -= down;
            if client.left == 0 && down > 0 && event.is_empty() {
                event = "completed";
            }
        } else if r.once_in(20) {
            client.uploaded += up; // it moved something before goat let it in
        }
        // Somebody else has completed nothing; and nobody completes the same somewhere else.
        if client.peer_id != before {
            client.completed = None;
        }
        if event == "completed" && client.left == 0 {
            if client.completed.is_some_and(|ip| ip != client.v4) {
                event = "";
            } else {
                client.completed = Some(client.v4);
            }
        }
        let say = |client: &Client, ip: IpAddr, twin: bool| Said {
            user: client.user,
            torrent: client.torrent,
            peer_id: client.peer_id,
            ip,
            uploaded: client.uploaded,
            downloaded: client.downloaded,
            left: client.left,
            event,
            twin,
        };
        let mut said = vec![say(&client, client.v4, false)];
        if let Some(v6) = client.v6 {
            let twin = say(&client, v6, event != "started" && event != "stopped");
            said.push(twin);
        } else if r.once_in(10) {
            // The answer was lost, once or more.
            (0..=r.below(3)).for_each(|_| said.push(said[0].clone()));
        }
        self.clients[at] = client;
        said
    }

    /// All that run say once more where they are.
    pub fn once_more(&mut self) -> Vec<Said> {
        let running = self.clients.iter().filter(|client| client.running);
        let say = |client: &Client| Said {
            user: client.user,
            torrent: client.torrent,
            peer_id: client.peer_id,
            ip: client.v4,
            uploaded: client.uploaded,
            downloaded: client.downloaded,
            left: client.left,
            event: "",
            twin: false,
        };
        running.map(say).collect()
    }
}
