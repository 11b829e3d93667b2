//! A model of the books: what each member, torrent and session must hold after a history of announces; and
//! clients that make such histories.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{Database, hex, info_hash};

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
}

/// What of the bytes moved of a torrent is credited, in percent: (uploaded, downloaded).
fn factors(torrent: u32) -> (u64, u64) {
    [(100, 100), (200, 0), (50, 50), (0, 200)][torrent as usize % 4]
}

/// Makes the users 1 to `count`; the passkey of each is their id.
pub fn users(count: u32) -> String {
    let row = |id| format!("({id}, 'user{id}', '{id:040x}')");
    insert("users (id, username, passkey)", count, row)
}

/// Makes the torrents 1 to `count`.
pub fn files(count: u32) -> String {
    let row = |id| {
        let ((up, down), hash) = (factors(id), hex(&info_hash(id)));
        format!("({id}, '{hash}', 1, {up}, {down})")
    };
    let columns = "files (id, info_hash, verified, upload_percent, download_percent)";
    insert(columns, count, row)
}

fn insert(columns: &str, count: u32, row: impl Fn(u32) -> String) -> String {
    let rows: Vec<String> = (1..=count).map(row).collect();
    format!("INSERT INTO {columns} VALUES {}", rows.join(", "))
}

/// Torrent and user, with the peer id or with an address.
type Key<T> = (u32, u32, T);

/// One client of one member on one torrent.
#[derive(Clone, Debug, Default)]
struct Session {
    /// As sent last.
    uploaded: u64,
    downloaded: u64,
    left: u64,
    /// When that was.
    time: u32,
    /// Where it is in the swarm, one address of each family at most, and when it announced from there last.
    at: Vec<(IpAddr, u32)>,
    completed: bool,
}

/// What a member moved of a torrent at one address.
#[derive(Clone, Debug, Default)]
struct Total {
    uploaded: u64,
    downloaded: u64,
    credited: (u64, u64),
    /// Of the last announce from here, or of the last of a client that has left this address.
    left: u64,
    time: u32,
    completed: bool,
    announced: u64,
    seed_time: u64,
}

/// What must be in the database.
#[derive(Clone, Debug, Default)]
pub struct Model {
    sessions: BTreeMap<Key<[u8; 20]>, Session>,
    totals: BTreeMap<Key<IpAddr>, Total>,
}

/// The longest that is counted as seeding between two announces, and that a silent client is in the swarm.
pub const SILENCE: u32 = 2 * 3600;

impl Model {
    /// An announce was answered, at a time in seconds.
    pub fn answered(&mut self, a: &Said, now: u32) {
        let key = (a.torrent, a.user, a.peer_id);
        let known = self.sessions.contains_key(&key);
        let session = self.sessions.entry(key).or_default();
        let total = self.totals.entry((a.torrent, a.user, a.ip)).or_default();

        // A counter that fell is credited as sent: the client was restarted, or the announce is late.
        let grown = |last: u64, now: u64| if now < last { now } else { now - last };
        let (up, down) = match known {
            true => (
                grown(session.uploaded, a.uploaded),
                grown(session.downloaded, a.downloaded),
            ),
            false if a.event == "started" => (a.uploaded, a.downloaded),
            false => (0, 0),
        };
        let (up_percent, down_percent) = factors(a.torrent);
        (total.uploaded, total.downloaded) = (total.uploaded + up, total.downloaded + down);
        total.credited.0 += up * up_percent / 100;
        total.credited.1 += down * down_percent / 100;
        total.announced += 1;
        if !session.at.is_empty() && session.left == 0 {
            total.seed_time += u64::from((now - session.time).min(SILENCE));
        }
        if a.event == "completed" && a.left == 0 && !session.completed {
            (session.completed, total.completed) = (true, true);
        }
        (total.left, total.time) = (a.left, now);

        (session.uploaded, session.downloaded) = (a.uploaded, a.downloaded);
        (session.left, session.time) = (a.left, now);
        let before = session.at.clone();
        session.at.retain(|(ip, _)| ip.is_ipv4() != a.ip.is_ipv4());
        if a.event == "stopped" {
            session.at.clear();
        } else {
            session.at.push((a.ip, now));
        }
        let session = session.clone();
        self.leaves(key, &session, &before);
    }

    /// Sessions leave those of their addresses for which `stays`, given the user and the time of the last
    /// announce from there, says no.
    pub fn leave(&mut self, stays: impl Fn(u32, u32) -> bool) {
        let mut left = Vec::new();
        for (key, session) in &mut self.sessions {
            if session.at.iter().any(|(_, seen)| !stays(key.1, *seen)) {
                let before = session.at.clone();
                session.at.retain(|(_, seen)| stays(key.1, *seen));
                left.push((*key, session.clone(), before));
            }
        }
        for (key, session, before) in left {
            self.leaves(key, &session, &before);
        }
    }

    /// Where a session has left one of its addresses, all of them show its last words.
    fn leaves(
        &mut self,
        (torrent, user, _): Key<[u8; 20]>,
        now: &Session,
        before: &[(IpAddr, u32)],
    ) {
        let still = |ip: &IpAddr| now.at.iter().any(|(at, _)| at == ip);
        if before.iter().all(|(ip, _)| still(ip)) {
            return;
        }
        for (ip, _) in before {
            let total = self.totals.get_mut(&(torrent, user, *ip)).unwrap();
            if now.time >= total.time {
                (total.left, total.time) = (now.left, now.time);
            }
        }
    }

    /// Takes over what another model knows of other users.
    pub fn join(&mut self, other: Model) {
        self.sessions.extend(other.sessions);
        self.totals.extend(other.totals);
    }

    /// Compares with what the database holds of the users that are still there; with `whole` also what depends
    /// on how often and when each announce came, and on goat's not being killed.
    pub fn compare(&self, database: &Database, whole: bool) -> Verdict {
        let mut verdict = Verdict::default();
        let (mut users, mut snatches) = (BTreeMap::new(), BTreeMap::new());
        for ((torrent, user, _), total) in &self.totals {
            let sums = users.entry(user.to_string()).or_insert(vec![0, 0]);
            (sums[0], sums[1]) = (sums[0] + total.credited.0, sums[1] + total.credited.1);
            snatches.entry(torrent.to_string()).or_insert(vec![0])[0] += u64::from(total.completed);
        }
        let there = database.sql("SELECT id FROM users").concat();
        users.retain(|user, _| there.contains(user));
        let columns = "uploaded, downloaded";
        let from =
            "users WHERE uploaded + downloaded > 0 OR id IN (SELECT user_id FROM files_users)";
        verdict.table(database, "id", columns, from, users);
        let from = "files WHERE id IN (SELECT file_id FROM files_users)";
        verdict.table(database, "id", "completed", from, snatches);

        let mut active = BTreeSet::new();
        let mut sessions = BTreeMap::new();
        for ((torrent, user, id), s) in &self.sessions {
            active.extend(s.at.iter().map(|(ip, _)| (*torrent, *user, *ip)));
            let row = [
                s.uploaded,
                s.downloaded,
                s.left,
                (!s.at.is_empty()).into(),
                s.completed.into(),
            ];
            sessions.insert(format!("{torrent} {user} {}", hex(id)), row.to_vec());
        }
        let (key, columns) = (
            "file_id, user_id, lower(hex(peer_id))",
            "uploaded, downloaded, `left`, active, completed",
        );
        verdict.table(database, key, columns, "peers", sessions);

        let mut columns =
            "uploaded, downloaded, credited_uploaded, credited_downloaded, completed, active"
                .to_string();
        if whole {
            columns += ", `left`, announced, seed_time";
        }
        let totals = self.totals.iter().map(|(key, t)| {
            let mut row = vec![
                t.uploaded,
                t.downloaded,
                t.credited.0,
                t.credited.1,
                t.completed.into(),
                active.contains(key).into(),
            ];
            if whole {
                row.extend([t.left, t.announced, t.seed_time]);
            }
            (format!("{} {} {}", key.0, key.1, key.2), row)
        });
        verdict.table(
            database,
            "file_id, user_id, ip",
            &columns,
            "files_users",
            totals.collect(),
        );
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
    /// Compares columns of a table, by key.
    fn table(
        &mut self,
        database: &Database,
        key: &str,
        columns: &str,
        from: &str,
        expected: BTreeMap<String, Vec<u64>>,
    ) {
        let split = key.split(", ").count();
        let rows = database.sql(&format!("SELECT {key}, {columns} FROM {from}"));
        let held = rows.iter().map(|row| {
            let numbers = row[split..].iter().map(|text| text.parse().unwrap());
            (row[..split].join(" "), numbers.collect())
        });
        let mut held: BTreeMap<String, Vec<u64>> = held.collect();
        let nothing = Vec::new();
        for (key, must) in &expected {
            self.rows += 1;
            let is = held.remove(key).unwrap_or_default();
            if is != *must {
                self.differ(from, columns, key, &is, must);
            }
        }
        for (key, is) in &held {
            self.differ(from, columns, key, is, &nothing);
        }
    }

    fn differ(&mut self, table: &str, columns: &str, key: &str, is: &[u64], must: &[u64]) {
        let bytes = |row: &[u64], at: usize| row.get(at).copied().unwrap_or_default();
        self.bytes += (0..2)
            .map(|at| bytes(is, at).abs_diff(bytes(must, at)))
            .sum::<u64>();
        self.wrong.push(format!(
            "{table} {key} is {is:?}, must be {must:?} ({columns})"
        ));
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
    /// Where it has completed its download.
    completed: Option<IpAddr>,
}

impl Client {
    fn says(&self, ip: IpAddr, event: &'static str) -> Said {
        Said {
            user: self.user,
            torrent: self.torrent,
            peer_id: self.peer_id,
            ip,
            uploaded: self.uploaded,
            downloaded: self.downloaded,
            left: self.left,
            event,
        }
    }
}

/// Clients as they are in the world.
#[derive(Clone, Debug)]
pub struct Clients {
    pub random: Random,
    clients: Vec<Client>,
    born: u64,
}

impl Clients {
    /// `count` clients of the users in the range, on torrents 1 to `torrents`.
    pub fn new(seed: u64, count: usize, users: std::ops::Range<u32>, torrents: u32) -> Clients {
        let born = u64::from(users.start) << 32;
        let mut all = Clients {
            random: Random(seed),
            clients: Vec::new(),
            born,
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
        if self.random.once_in(30) {
            self.moves(&mut client);
        }
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
                4 => {
                    (client.uploaded, client.downloaded) = (0, 0);
                    client.peer_id = self.peer_id();
                    event = "started";
                }
                5 => {
                    (client.uploaded, client.downloaded) = (r.below(1000), 0);
                    event = if r.once_in(4) { "" } else { "started" };
                }
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
        let down = down.min(client.left);
        if event != "started" {
            client.uploaded += up;
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
        let mut said = vec![client.says(client.v4, event)];
        if let Some(v6) = client.v6 {
            said.push(client.says(v6, event));
        } else if r.once_in(10) {
            // The answer was lost, once or more.
            (0..=r.below(3)).for_each(|_| said.push(said[0].clone()));
        }
        if event != "started" && r.once_in(10) {
            // One that was sent before, over either address family, arrives last.
            let mut late = said[r.below(said.len() as u64) as usize].clone();
            let down = r.below(down + 1);
            late.uploaded -= r.below(up + 1);
            (late.downloaded, late.left) = (late.downloaded - down, late.left + down);
            said.push(Said { event: "", ..late });
        }
        self.clients[at] = client;
        said
    }

    /// All that run say once more where they are.
    pub fn once_more(&mut self) -> Vec<Said> {
        let running = self.clients.iter().filter(|client| client.running);
        running.map(|client| client.says(client.v4, "")).collect()
    }
}
