//! Real clients share files through goat, each on a host of its own, with peer exchange, the DHT and
//! local discovery switched off: only goat can introduce them to each other.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::common::{
    Database, Folder, Goat, Host, Lab, Process, User, faketime, http_get, http_post, installed, skip, tidy, wait_for,
    wait_until,
};
use serde_json::{Value, json};

#[test]
fn clients_share_files_and_the_books_agree_with_them_on_sqlite() {
    in_lab("clients on SQLite", |lab| share_in_a_ring(lab, &Database::sqlite()));
}

#[test]
fn clients_share_files_and_the_books_agree_with_them_on_mariadb() {
    let test = "clients on MariaDB";
    if let Some(database) = Database::mariadb(test) {
        in_lab(test, |lab| share_in_a_ring(lab, &database));
    }
}

#[test]
fn a_swarm_survives_a_restart_of_goat() {
    let test = "clients across a restart";
    for database in Database::each(test) {
        in_lab(test, |lab| share_across_a_restart(lab, &database));
    }
}

#[test]
fn a_client_with_an_unknown_passkey_gets_no_peers() {
    in_lab("a client with an unknown passkey", |lab| {
        let database = Database::sqlite();
        let goat = start_goat(&database);
        let file = File::new(&goat);
        let seeder = Member::join(lab, &goat, Kind::Libtorrent, &file, true);
        wait_until("the seeder", || database.number(SEEDERS) == 1);

        let passkey = "0123456789".repeat(4);
        let torrent = file.torrent("unknown", &url(&goat, HUB, &passkey));
        let mut stranger = Client::start(lab.host(), Kind::Libtorrent, &torrent, None);
        wait_until("goat to refuse", || stranger.process.output().contains("Invalid passkey"));

        let totals = stranger.stop_sharing();
        assert_eq!((totals.downloaded, totals.left), (0, SIZE));
        for table in ["peers", "files_users"] {
            let rows = database.sql(&format!("SELECT user_id FROM {table}"));
            assert_eq!(rows, [[seeder.user.id.to_string()]], "{table}");
        }
    });
}

#[test]
fn a_client_that_counts_for_each_url_is_credited_once() {
    in_lab("a second URL", |lab| {
        let database = Database::sqlite();
        let goat = Goat::start(&database, json!({ "Host": "" }));
        lab.add_address(&format!("{OTHER_HUB}/24"));
        let port = goat.port;
        // The same tracker behind another path, and at another address.
        let others = [format!("{HUB}:{port}/"), format!("{OTHER_HUB}:{port}")];
        let files = others.each_ref().map(|_| File::new(&goat));
        let join = |kind, seeds| files.each_ref().map(|file| Member::join(lab, &goat, kind, file, seeds));

        let seeders = join(Kind::SlowLibtorrent, true);
        wait_until("the seeders", || database.number(SEEDERS) == 2);
        let mut members = [0, 1].map(|n| {
            let mut member = Member::join(lab, &goat, Kind::Transmission, &files[n], false);
            member.wait_until_left(SIZE);
            // What it counts for this one is less by what was moved before.
            member.add_url(&others[n]);
            let totals = member.client.totals().unwrap();
            assert!(totals.left > 0, "the URL came too late: {totals:?}");
            member
        });
        for member in &mut members {
            member.wait_until_complete();
            // Started and completed, for each URL.
            wait_for_announces(&database, &member.user, 4);
        }
        let seeders = seeders.map(|seeder| seeder.leave(&database));
        let leechers = join(Kind::Aria2, false).map(|mut leecher| {
            leecher.wait_until_complete();
            leecher.leave(&database)
        });
        let members = members.map(|mut member| {
            member.client.stop_sharing();
            wait_for_announces(&database, &member.user, 6);
            member.leave(&database)
        });

        for member in &members {
            let Totals { uploaded, downloaded, .. } = member.totals;
            assert!(uploaded >= SIZE && downloaded >= SIZE, "{member:?}");
        }
        for report in seeders.iter().chain(&leechers).chain(&members) {
            check_credit(&database, report);
        }
        assert_eq!(database.number("SELECT count(*) FROM peers"), 6);
    });
}

#[test]
fn transmission_with_two_urls_that_starts_again_is_never_credited_too_much() {
    starts_again(Kind::Transmission);
}

#[test]
fn libtorrent_that_is_paused_and_resumed_is_never_credited_too_much() {
    starts_again(Kind::Libtorrent);
}

/// Both count from 0 again then. libtorrent keeps its peer id, Transmission takes a new one.
fn starts_again(kind: Kind) {
    let test = format!("{kind:?} that starts again");
    // Seconds between stop and start, seconds until the second stop, and whether all of it is credited: what
    // begins and ends within two minutes after a stop may be an echo of it.
    let rows = [(0, 0, false), (0, 130, true), (660, 0, true)];
    // It takes its time to upload.
    let rows = &rows[..if kind == Kind::Transmission { 1 } else { 3 }];
    for &(stopped, again, whole) in rows {
        in_lab(&test, |lab| {
            let database = Database::sqlite();
            let Some(mut goat) = TimedGoat::start(&test, &database, json!({ "Host": "" })) else {
                return;
            };
            lab.add_address(&format!("{OTHER_HUB}/24"));
            let file = File::new(&goat.goat);
            let give = |goat: &Goat| {
                let mut leecher = Member::join(lab, goat, Kind::Aria2, &file, false);
                leecher.wait_until_complete();
                check_credit(&database, &leecher.leave(&database));
            };
            let seeder = Member::join(lab, &goat.goat, kind, &file, true);
            let urls = if kind == Kind::Transmission { 2 } else { 1 };
            seeder.wait_until_active(&database, true);
            give(&goat.goat);
            if kind == Kind::Transmission {
                // What it counts for this one is less by what was moved before.
                seeder.add_url(&format!("{OTHER_HUB}:{}", goat.goat.port));
                wait_for_announces(&database, &seeder.user, 2);
                give(&goat.goat);
            }
            seeder.client.pause(true);
            wait_for_announces(&database, &seeder.user, 2 * urls);
            let before = seeder.client.totals().unwrap().uploaded;

            goat.pass(stopped);
            seeder.client.pause(false);
            wait_for_announces(&database, &seeder.user, 3 * urls);
            give(&goat.goat);
            goat.pass(again);
            seeder.client.pause(true);
            wait_for_announces(&database, &seeder.user, 4 * urls);
            let moved = seeder.client.totals().unwrap().uploaded;

            let least = urls as u64 * SIZE;
            assert!(before >= least && moved >= least + SIZE, "{before} {moved}");
            let least = if whole { moved } else { before };
            let (credited, _) = credited(&database, &seeder.user);
            let what = format!("{stopped} s, {again} s: {before} and then {moved}: {credited}");
            assert!((least..=moved).contains(&credited), "{what}");
        });
    }
}

#[test]
fn clients_that_pause_in_the_midst_of_a_file_are_credited_what_they_moved() {
    let test = "pauses";
    // Seconds that a pause lasts, and whether all is credited; of short ones see above.
    for (pause, whole) in [(0, false), (660, true)] {
        in_lab(test, |lab| {
            let database = Database::sqlite();
            let Some(mut goat) = TimedGoat::start(test, &database, json!({ "Host": "" })) else {
                return;
            };
            let file = File::new(&goat.goat);
            let mut members = [
                Member::join(lab, &goat.goat, Kind::SlowLibtorrent, &file, true),
                Member::join(lab, &goat.goat, Kind::Libtorrent, &file, false),
            ];
            for part in 1..=4 {
                members[1].wait_until_left(SIZE - part * SIZE / 6);
                let member = &members[part as usize % 2];
                member.client.pause(true);
                member.wait_until_active(&database, false);
                let totals = members[1].client.totals().unwrap();
                assert!(totals.left > 0, "the pause came too late: {totals:?}");
                goat.pass(pause);
                member.client.pause(false);
                member.wait_until_active(&database, true);
            }
            members[1].wait_until_complete();
            wait_until("the snatch", || database.number(SNATCHES) == 1);

            for member in members {
                let report = member.leave(&database);
                let Totals { uploaded, downloaded, .. } = report.totals;
                let (up, down) = credited(&database, &report.user);
                assert!(uploaded + downloaded >= SIZE, "{report:?}");
                assert!(up <= uploaded && down <= downloaded, "{report:?}: {up} {down}");
                if whole {
                    check_credit(&database, &report);
                }
            }
            assert_eq!(database.number("SELECT count(*) FROM peers"), 2);
        });
    }
}

/// A goat for which time passes when a test says so.
struct TimedGoat {
    goat: Goat,
    library: String,
    ahead: u32,
    id: Option<u32>,
}

impl TimedGoat {
    fn start(test: &str, database: &Database, settings: Value) -> Option<TimedGoat> {
        let library = faketime(test)?;
        let goat = Goat::start(database, settings);
        Some(TimedGoat { goat, library, ahead: 0, id: None })
    }

    /// Lets so many seconds pass, while goat is away for a moment.
    fn pass(&mut self, seconds: u32) {
        if seconds == 0 {
            return;
        }
        self.ahead += seconds;
        self.goat.environment = vec![
            ("LD_PRELOAD".into(), self.library.clone()),
            ("FAKETIME".into(), format!("+{}", self.ahead)),
            ("DONT_FAKE_MONOTONIC".into(), "1".into()),
        ];
        self.goat.restart();
        self.id = Some(self.goat.process().id());
    }
}

impl Drop for TimedGoat {
    fn drop(&mut self) {
        self.id.into_iter().for_each(tidy);
    }
}

#[test]
fn announces_that_come_late_over_a_slow_address_family_are_credited_once() {
    slow_family("a slow address family", |database, goat, slow, join| {
        let everywhere = "SELECT count(*) FROM peers
            WHERE active = 1 AND ipv4 <> '' AND ipv6 <> ''";
        let seeder = join(&goat.goat, true);
        wait_until("an announce over each", || database.number(everywhere) == 1);
        let mut reports = Vec::new();
        for round in 1..=3 {
            let mut leecher = join(&goat.goat, false);
            leecher.wait_until_complete();
            // It has been heard over IPv6, but what it says last comes late there.
            wait_until("an answer over IPv6", || {
                let output = leecher.client.process.output();
                let mut answers = output.lines().filter(|line| line.starts_with("tracker_reply"));
                answers.any(|line| line.contains("[[fd00::"))
            });
            reports.push(leecher.leave(database));
            if round == 2 {
                // The stop of the slow family arrives after the start of the other; it names more bytes
                // than are moved from now on.
                seeder.client.pause(true);
                seeder.client.pause(false);
                wait_until("the slow path to be idle", || slow.is_idle());
                seeder.wait_until_active(database, true);
            }
        }
        // Long enough to know that the second life was none of the first's echoes.
        goat.pass(130);
        reports.push(seeder.leave(database));
        wait_until("the slow path to be idle", || slow.is_idle());
        // It writes all that it was told.
        assert!(goat.goat.stop().success());

        for report in &reports {
            check_credit(database, report);
        }
        let sessions = "SELECT active, `left` FROM peers";
        assert_eq!(database.sql(sessions), vec![["0", "0"]; 4]);
    });
}

#[test]
fn a_client_that_has_left_is_not_brought_back_by_its_slow_address_family() {
    slow_family("a hasty client", |database, goat, slow, join| {
        let words = |member: &Member, what: &str| {
            let output = member.client.process.output();
            output.lines().filter(|line| line.starts_with(what)).count()
        };
        // It leaves before it was heard over IPv6 at all. libtorrent does not say goodbye there then.
        let mut hasty = join(&goat.goat, true);
        wait_until("a start over each", || words(&hasty, "tracker_announce") == 2);
        hasty.client.stop_sharing();
        // It leaves, comes back and leaves again, before the first goodbye is heard over IPv6.
        let mut restless = join(&goat.goat, true);
        wait_until("two answers", || words(&restless, "tracker_reply") == 2);
        restless.client.pause(true);
        restless.client.pause(false);
        restless.client.stop_sharing();

        wait_until("the slow path to be idle", || slow.is_idle());
        // It writes all that it was told.
        assert!(goat.goat.stop().success());
        let sessions = "SELECT user_id, active FROM peers ORDER BY user_id";
        assert_eq!(database.sql(sessions), [["1", "0"], ["2", "0"]]);
    });
}

/// Runs a test in a lab where announces over IPv6 take half a second longer than those over IPv4; `join`
/// makes a member with libtorrent on both.
fn slow_family(
    test: &str,
    body: impl FnOnce(&Database, &mut TimedGoat, &SlowPath, &dyn Fn(&Goat, bool) -> Member) + Send,
) {
    in_lab(test, |lab| {
        let database = Database::sqlite();
        let hub = lab.add_ipv6();
        let settings = json!({ "Host": HUB, "TrustedProxies": [HUB] });
        let Some(mut goat) = TimedGoat::start(test, &database, settings) else {
            return;
        };
        let slow = SlowPath::open((hub, goat.goat.port).into(), goat.goat.address());
        // A name with two addresses is what makes a client announce over both (BEP 7).
        let folder = Folder::new();
        let names = folder.join("hosts");
        let known = format!("127.0.0.1 localhost\n{HUB} tracker\n{hub} tracker\n");
        std::fs::write(&names, known).unwrap();
        let file = File::new(&goat.goat);
        let join = |goat: &Goat, seeds: bool| {
            let mut host = lab.host();
            host.add_ipv6();
            host.knows(&names);
            Member::join_from(host, goat, "tracker", Kind::Libtorrent, &file, seeds)
        };
        body(&database, &mut goat, &slow, &join);
    });
}

#[test]
fn both_hashes_of_a_hybrid_torrent_are_welcome() {
    let test = "a hybrid torrent";
    if !["qbittorrent-nox", "curl"].into_iter().all(installed) {
        return skip(test, "no qbittorrent-nox, or no curl");
    }
    in_lab(test, |lab| {
        let database = Database::sqlite();
        let goat = Goat::start(&database, json!({ "Host": HUB, "API": true }));
        let file = File::hybrid(&goat);
        let seeder = Member::join(lab, &goat, Kind::QBittorrent, &file, true);
        wait_until("the seeder", || database.number(SEEDERS) == 1);
        let mut leecher = Member::join(lab, &goat, Kind::QBittorrent, &file, false);
        leecher.wait_until_complete();
        wait_until("the snatch", || database.number(SNATCHES) == 1);
        for member in [&seeder, &leecher] {
            member.wait_for_good_tracker();
        }
        let leecher = leecher.leave(&database);
        let seeder = seeder.leave(&database);
        check_books(&database, &file, &seeder, &leecher);

        // libtorrent, of which qBittorrent is made, says what it is told for each hash.
        let witness = Member::join(lab, &goat, Kind::Libtorrent, &file, true);
        let said = |what: &str| {
            let output = witness.client.process.output();
            let mut lines = output.lines().filter(|line| !line.starts_with("tracker_announce"));
            lines.any(|line| line.starts_with("tracker_") && line.contains(what))
        };
        wait_until("an answer for each hash", || said(" v1 ") && said(" v2 "));
        assert!(!said("tracker_error"), "{}", witness.client.process.output());
        witness.leave(&database);
        // Nor was anybody else.
        let admin = goat.json(&["user", "add", "operator", "--admin"]);
        let key = crate::common::basic("operator", admin["apiKey"].as_str().unwrap());
        let key = [("Authorization", key.as_str())];
        let (status, _, metrics) = http_get(goat.address(), "/metrics", &key);
        assert_eq!(status, 200);
        let metrics = String::from_utf8(metrics).unwrap();
        let refused: Vec<&str> = metrics
            .lines()
            .filter(|line| line.starts_with("goat_announces_total{"))
            .filter(|line| !line.contains("answered"))
            .filter(|line| !line.ends_with(" 0"))
            .collect();
        assert_eq!(refused, [""; 0]);
    });
}

#[test]
fn qbittorrent_fetches_and_downloads_by_the_feed_by_itself() {
    let test = "qBittorrent by RSS";
    if !["qbittorrent-nox", "curl"].into_iter().all(installed) {
        return skip(test, "no qbittorrent-nox, or no curl");
    }
    in_lab(test, |lab| {
        let database = Database::sqlite();
        let goat = Goat::start(&database, json!({ "Host": HUB, "API": true }));
        let file = File::new(&goat);
        let seeder = Member::join(lab, &goat, Kind::Libtorrent, &file, true);
        wait_until("the seeder", || database.number(SEEDERS) == 1);
        let user = goat.add_user("reader");
        let (host, folder) = (lab.host(), Folder::new());
        let command = qbittorrent(&host, &folder);
        let client = Client::run(Kind::QBittorrent, command, host, folder, 0);
        let mut reader = Member { user, client, content: file.content.clone() };
        let feed = format!("http://{HUB}:{}/{}/rss", goat.port, reader.user.passkey);
        let rule = json!({ "enabled": true, "affectedFeeds": [feed], "savePath": reader.client.folder.path() });
        let on =
            json!({ "rss_processing_enabled": true, "rss_auto_downloading_enabled": true, "rss_refresh_interval": 1 });
        for (what, form) in [
            ("app/setPreferences", format!("json={on}")),
            ("rss/setRule", format!("ruleName=all&ruleDef={rule}")),
            ("rss/addFeed", format!("url={feed}&path=goat")),
        ] {
            wait_for(what, || reader.client.qbittorrent(what, Some(&form)));
        }
        reader.wait_until_complete();
        wait_until("the snatch", || database.number(SNATCHES) == 1);
        let reader = reader.leave(&database);
        let seeder = seeder.leave(&database);
        check_books(&database, &file, &seeder, &reader);
    });
}

/// A way to goat over another address family, on which each request takes half a second longer.
struct SlowPath {
    at: SocketAddr,
    closed: Arc<AtomicBool>,
    /// Requests on their way.
    under_way: Arc<AtomicUsize>,
}

impl SlowPath {
    fn open(at: SocketAddr, goat: SocketAddr) -> SlowPath {
        let listener = TcpListener::bind(at).unwrap();
        let path = SlowPath { at, closed: Arc::default(), under_way: Arc::default() };
        let (closed, under_way) = (path.closed.clone(), path.under_way.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if closed.load(SeqCst) {
                    return;
                }
                under_way.fetch_add(1, SeqCst);
                let under_way = under_way.clone();
                thread::spawn(move || {
                    // A client that gives up costs nothing but its request.
                    let _ = SlowPath::carry(client, goat);
                    under_way.fetch_sub(1, SeqCst);
                });
            }
        });
        path
    }

    fn carry(mut client: TcpStream, goat: SocketAddr) -> std::io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte)?;
            head.extend(byte);
        }
        let from = client.peer_addr()?.ip();
        head.truncate(head.len() - 2);
        head.extend(format!("X-Forwarded-For: {from}\r\n\r\n").bytes());
        thread::sleep(Duration::from_millis(500)); // this is what it is for
        let mut goat = TcpStream::connect(goat)?;
        goat.write_all(&head)?;
        std::io::copy(&mut goat, &mut client)?;
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.under_way.load(SeqCst) == 0
    }
}

impl Drop for SlowPath {
    fn drop(&mut self) {
        self.closed.store(true, SeqCst);
        let _ = TcpStream::connect(self.at);
    }
}

/// Runs a test in a network of its own.
pub fn in_lab(test: &str, body: impl FnOnce(&Lab) + Send) {
    let mut programs = "ip aria2c transmission-daemon mktorrent sqlite3".split(' ');
    if let Some(program) = programs.find(|program| !installed(program)) {
        return skip(test, &format!("no {program}"));
    }
    let mut python = Command::new(PYTHON);
    if !python.args(["-c", "import libtorrent"]).status().is_ok_and(|status| status.success()) {
        return skip(test, "no libtorrent for Python");
    }
    Lab::run(test, body);
}

/// Every client once as the seeder and once as the leecher of a file.
fn share_in_a_ring(lab: &Lab, database: &Database) {
    let goat = start_goat(database);
    let ring =
        [(Kind::Aria2, Kind::Transmission), (Kind::Transmission, Kind::Libtorrent), (Kind::Libtorrent, Kind::Aria2)];
    let files: Vec<File> = ring.iter().map(|_| File::new(&goat)).collect();
    let pairs = || files.iter().zip(ring);

    let seeders: Vec<Member> = pairs().map(|(file, (kind, _))| Member::join(lab, &goat, kind, file, true)).collect();
    wait_until("the seeders", || database.number(SEEDERS) == 3);
    let mut leechers: Vec<Member> =
        pairs().map(|(file, (_, kind))| Member::join(lab, &goat, kind, file, false)).collect();
    for leecher in &mut leechers {
        leecher.wait_until_complete();
    }
    wait_until("the snatches", || database.number(SNATCHES) == 3);

    let leave = |members: Vec<Member>| members.into_iter().map(|member| member.leave(database));
    let leechers: Vec<Report> = leave(leechers).collect();
    let seeders: Vec<Report> = leave(seeders).collect();
    for (file, (seeder, leecher)) in files.iter().zip(seeders.iter().zip(&leechers)) {
        check_books(database, file, seeder, leecher);
    }
}

/// The leecher comes when goat has forgotten everything that is not in the database.
fn share_across_a_restart(lab: &Lab, database: &Database) {
    let mut goat = start_goat(database);
    let file = File::new(&goat);
    let seeder = Member::join(lab, &goat, Kind::Libtorrent, &file, true);
    wait_until("the seeder", || database.number(SEEDERS) == 1);

    goat.restart();
    // The seeder has no reason to announce again for an hour.
    let mut leecher = Member::join(lab, &goat, Kind::Aria2, &file, false);
    leecher.wait_until_complete();
    wait_until("the snatch", || database.number(SNATCHES) == 1);

    let leecher = leecher.leave(database);
    let seeder = seeder.leave(database);
    check_books(database, &file, &seeder, &leecher);
}

/// The database holds what the two clients say, and nothing else.
fn check_books(database: &Database, file: &File, seeder: &Report, leecher: &Report) {
    assert!(seeder.totals.uploaded >= SIZE, "{seeder:?}");
    assert!(leecher.totals.downloaded >= SIZE, "{leecher:?}");
    let id = file.id;
    let snatches = database.number(&format!("SELECT completed FROM files WHERE id = {id}"));
    assert_eq!(snatches, 1);

    let expected = |Report { user, address, totals }: &Report, completed: u8| {
        let Totals { uploaded, downloaded, left } = totals;
        format!("{} {address} 0 {completed} {uploaded} {downloaded} {left}", user.id)
    };
    let mut both = [expected(seeder, 0), expected(leecher, 1)];
    both.sort();
    for (table, address) in [("files_users", "ip"), ("peers", "ipv4")] {
        let columns = format!("user_id, {address}, active, completed, uploaded, downloaded, `left`");
        let rows = database.sql(&format!("SELECT {columns} FROM {table} WHERE file_id = {id}"));
        let mut rows: Vec<String> = rows.iter().map(|row| row.join(" ")).collect();
        rows.sort();
        assert_eq!(rows, both, "{table}");
    }

    for report in [seeder, leecher] {
        check_credit(database, report);
    }
}

/// A member is credited what their client moved.
fn check_credit(database: &Database, Report { user, totals, .. }: &Report) {
    let moved = (totals.uploaded, totals.downloaded);
    assert_eq!(credited(database, user), moved, "{}", user.name);
}

/// What a member is credited as uploaded and downloaded.
pub fn credited(database: &Database, user: &User) -> (u64, u64) {
    let sum = |column: &str| {
        let sql = format!("SELECT {column} FROM users WHERE id = {}", user.id);
        database.number(&sql) as u64
    };
    (sum("uploaded"), sum("downloaded"))
}

/// Waits until the books hold so many announces of a member.
fn wait_for_announces(database: &Database, user: &User, count: i64) {
    let sql = format!("SELECT coalesce(sum(announced), 0) FROM files_users WHERE user_id = {}", user.id);
    let what = format!("{count} announces of {}", user.name);
    wait_until(&what, || database.number(&sql) >= count);
}

// What the tests wait for.
const SEEDERS: &str = "SELECT count(*) FROM peers WHERE active = 1 AND `left` = 0";
const SNATCHES: &str = "SELECT sum(completed) FROM files";

fn start_goat(database: &Database) -> Goat {
    Goat::start(database, json!({ "Host": Lab::HUB }))
}

/// An announce URL of goat, at an address or a name of the hub.
fn url(goat: &Goat, hub: &str, passkey: &str) -> String {
    format!("http://{hub}:{}/{passkey}/announce", goat.port)
}

/// [`Lab::HUB`].
const HUB: &str = "10.66.0.1";
/// Where a test gives the hub a second address.
const OTHER_HUB: &str = "10.66.0.200";

pub const SIZE: u64 = 5_000_000;

/// Makes a file of random bytes.
pub fn random_file(folder: &Folder) -> Vec<u8> {
    let mut content = vec![0; SIZE as usize];
    let mut random = std::fs::File::open("/dev/urandom").unwrap();
    random.read_exact(&mut content).unwrap();
    std::fs::write(folder.join("random.bin"), &content).unwrap();
    content
}

/// A registered torrent of one file of random bytes.
struct File {
    folder: Folder,
    content: Vec<u8>,
    id: i64,
    hybrid: bool,
}

impl File {
    fn new(goat: &Goat) -> File {
        File::register(goat, false)
    }

    /// Of BitTorrent v1 and v2 in one (BEP 52).
    fn hybrid(goat: &Goat) -> File {
        File::register(goat, true)
    }

    fn register(goat: &Goat, hybrid: bool) -> File {
        let folder = Folder::new();
        let content = random_file(&folder);
        let mut file = File { folder, content, id: 0, hybrid };
        file.id = goat.add_torrent(file.torrent("registered", "http://tracker/announce"));
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.join("random.bin")
    }

    /// The torrent with an announce URL.
    fn torrent(&self, name: &str, announce: &str) -> PathBuf {
        let torrent = self.folder.join(&format!("{name}.torrent"));
        let mut command;
        if self.hybrid {
            command = Command::new(PYTHON);
            command.arg(script("lt_torrent.py")).args([&self.path(), Path::new(announce), &torrent]);
        } else {
            command = Command::new("mktorrent");
            command
                .args(["--private", "--piece-length=16", "--announce"])
                .args([announce, "--output"])
                .args([&torrent, &self.path()]);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
        torrent
    }
}

/// A user with a client that shares a file.
struct Member {
    user: User,
    client: Client,
    content: Vec<u8>,
}

/// A user who has shared a file, and what their client says it moved.
#[derive(Debug)]
struct Report {
    user: User,
    address: String,
    totals: Totals,
}

impl Member {
    fn join(lab: &Lab, goat: &Goat, kind: Kind, file: &File, seeds: bool) -> Member {
        Member::join_from(lab.host(), goat, HUB, kind, file, seeds)
    }

    /// Joins from a host that knows the hub by this name.
    fn join_from(host: Host, goat: &Goat, hub: &str, kind: Kind, file: &File, seeds: bool) -> Member {
        let role = if seeds { "seeder" } else { "leecher" };
        let number = host.address.octets()[3];
        let user = goat.add_user(&format!("{role}-{kind:?}-{number}"));
        let torrent = file.torrent(&user.passkey, &url(goat, hub, &user.passkey));
        let content = seeds.then(|| file.path());
        let client = Client::start(host, kind, &torrent, content.as_deref());
        Member { user, client, content: file.content.clone() }
    }

    fn wait_until_complete(&mut self) {
        wait_for(&format!("{} to have it all", self.user.name), || {
            self.client.process.assert_running();
            self.client.totals().filter(|totals| totals.left == 0)
        });
    }

    /// Waits until less than this is missing.
    fn wait_until_left(&mut self, bytes: u64) {
        wait_for(&format!("more of {}'s file", self.user.name), || {
            self.client.process.assert_running();
            self.client.totals().filter(|totals| totals.left < bytes)
        });
    }

    /// Waits until the books have it as here, or as gone.
    fn wait_until_active(&self, database: &Database, active: bool) {
        // No row at all is neither: a client may come and go before the books are written.
        let sql = format!("SELECT DISTINCT active FROM peers WHERE user_id = {}", self.user.id);
        let what = if active { "return" } else { "goodbye" };
        let expected = [[u8::from(active).to_string()]];
        wait_until(&format!("the {what} of {}", self.user.name), || database.sql(&sql) == expected);
    }

    /// Gives Transmission another announce URL of the tracker, at this address.
    fn add_url(&self, tracker: &str) {
        let url = format!("http://{tracker}/{}/announce", self.user.passkey);
        let added = self.client.transmission("torrent-set", json!({ "trackerAdd": [url] }));
        assert!(added.is_some(), "{} takes no {url}", self.user.name);
    }

    /// Waits until qBittorrent shows goat as a tracker that works, and fails if it complains of one.
    fn wait_for_good_tracker(&self) {
        let torrents = self.client.ask_qbittorrent("info").unwrap();
        let list = format!("trackers?hash={}", torrents[0]["hash"].as_str().unwrap());
        wait_until("qBittorrent to be content", || {
            let all = self.client.ask_qbittorrent(&list).unwrap();
            let ours = all.as_array().unwrap().iter();
            // The others are its own ways, like the DHT.
            let mut ours = ours.filter(|row| row["url"].as_str().unwrap().starts_with("http"));
            let row = ours.next().unwrap();
            // Since version 5.1 it shows what it is told for each hash.
            let each = row["endpoints"].as_array().map_or(vec![row], |endpoints| endpoints.iter().collect());
            for one in &each {
                assert_eq!(one["msg"], "", "{row}");
            }
            each.iter().all(|one| one["status"] == 2)
        });
    }

    fn leave(mut self, database: &Database) -> Report {
        let totals = self.client.stop_sharing();
        self.wait_until_active(database, false);
        let copy = std::fs::read(self.client.folder.join("random.bin")).unwrap();
        assert!(copy == self.content, "{} has other bytes than the seeder", self.user.name);
        Report { user: self.user, address: self.client.host.address.to_string(), totals }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Aria2,
    Transmission,
    Libtorrent,
    /// Libtorrent that takes seconds to upload a file.
    SlowLibtorrent,
    QBittorrent,
}

/// The figures that a client announces, as it says itself.
///
/// They need not be the size of the file: Transmission counts the 13 bytes before every block as
/// uploaded, and any client may be sent a block twice.
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    pub uploaded: u64,
    pub downloaded: u64,
    pub left: u64,
}

/// A running client, with a folder and a host of its own, and one torrent.
pub struct Client {
    kind: Kind,
    brought: u64,
    pub process: Process,
    host: Host,
    folder: Folder,
}

impl Client {
    /// Starts a client; as a seeder if it is given the content.
    pub fn start(host: Host, kind: Kind, torrent: &Path, content: Option<&Path>) -> Client {
        let folder = Folder::new();
        if let Some(content) = content {
            std::fs::copy(content, folder.join("random.bin")).unwrap();
        }
        let command = match kind {
            Kind::Aria2 => aria2(&host, torrent, &folder),
            Kind::Transmission => transmission(&host, &folder),
            Kind::Libtorrent => libtorrent(&host, torrent, &folder),
            Kind::SlowLibtorrent => {
                let mut command = libtorrent(&host, torrent, &folder);
                command.arg((SIZE / 8).to_string());
                command
            }
            Kind::QBittorrent => {
                let mut command = qbittorrent(&host, &folder);
                command.arg(torrent);
                command
            }
        };
        let client = Client::run(kind, command, host, folder, if content.is_some() { SIZE } else { 0 });
        if let Kind::Transmission = kind {
            wait_for("Transmission", || client.transmission("torrent-add", json!({ "filename": torrent })));
        }
        client
    }

    /// Runs a client that brought so many bytes along.
    fn run(kind: Kind, mut command: Command, host: Host, folder: Folder, brought: u64) -> Client {
        command.env("HOME", folder.path());
        let process = Process::start(&format!("{kind:?}"), &mut command, folder.join("client.log"));
        Client { kind, brought, process, host, folder }
    }

    /// What it has moved so far; None while it is not ready to say.
    pub fn totals(&self) -> Option<Totals> {
        match self.kind {
            Kind::Aria2 => {
                let status = self.aria2("tellStatus")?;
                let number = |key: &str| status[key].as_str().unwrap().parse::<u64>().unwrap();
                let completed = number("completedLength");
                Some(Totals {
                    uploaded: number("uploadLength"),
                    // What it brought along was not downloaded.
                    downloaded: completed - self.brought,
                    left: number("totalLength") - completed,
                })
            }
            Kind::Transmission => {
                let fields = ["uploadedEver", "downloadedEver", "leftUntilDone"];
                let answer = self.transmission("torrent-get", json!({ "fields": fields }))?;
                let [uploaded, downloaded, left] = fields.map(|field| answer["torrents"][0][field].as_u64());
                Some(Totals { uploaded: uploaded?, downloaded: downloaded?, left: left? })
            }
            Kind::Libtorrent | Kind::SlowLibtorrent => {
                let status = self.libtorrent()?;
                let number = |key: &str| status[key].as_u64().unwrap();
                (status["checked"] == true).then(|| Totals {
                    uploaded: number("uploaded"),
                    downloaded: number("downloaded"),
                    left: number("left"),
                })
            }
            Kind::QBittorrent => {
                let torrent = self.ask_qbittorrent("info")?.get_mut(0)?.take();
                let of_torrent = format!("properties?hash={}", torrent["hash"].as_str()?);
                let properties = self.ask_qbittorrent(&of_torrent)?;
                let number = |key: &str| properties[key].as_u64();
                let totals = Totals {
                    uploaded: number("total_uploaded")?,
                    // What came twice or broken is not announced as downloaded.
                    downloaded: number("total_downloaded")? - number("total_wasted")?,
                    left: torrent["amount_left"].as_u64()?,
                };
                // It says that nothing is left before it has counted the last second.
                (totals.downloaded + self.brought + totals.left >= SIZE).then_some(totals)
            }
        }
    }

    /// Has the client stop sharing in good order, so that it tells goat; gives what it moved in all.
    pub fn stop_sharing(&mut self) -> Totals {
        let totals = match self.kind {
            Kind::Aria2 => {
                let totals = self.totals(); // it forgets them when it pauses
                self.aria2("pause").and(totals)
            }
            Kind::Transmission => self.transmission("torrent-stop", json!({})).and_then(|_| self.totals()),
            Kind::Libtorrent | Kind::SlowLibtorrent => {
                self.process.terminate();
                self.totals()
            }
            Kind::QBittorrent => {
                self.pause_qbittorrent();
                self.totals()
            }
        };
        totals.unwrap_or_else(|| panic!("{:?} does not stop", self.kind))
    }

    /// Calls a method of aria2 on the only download.
    fn aria2(&self, method: &str) -> Option<Value> {
        let method = format!("aria2.{method}");
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": [GID] }).to_string();
        let address = SocketAddr::from((self.host.address, 6800));
        let (status, _, body) = http_post(address, "/jsonrpc", &[], call.as_bytes()).ok()?;
        assert_eq!(status, 200, "aria2: {}", String::from_utf8_lossy(&body));
        Some(serde_json::from_slice::<Value>(&body).unwrap()["result"].take())
    }

    /// Has a client that can go on later stop sharing, or go on.
    fn pause(&self, paused: bool) {
        match self.kind {
            Kind::Transmission => {
                let method = ["torrent-start", "torrent-stop"][usize::from(paused)];
                assert!(self.transmission(method, json!({})).is_some(), "{method}");
            }
            Kind::Libtorrent | Kind::SlowLibtorrent => {
                let signal = [libc::SIGUSR2, libc::SIGUSR1][usize::from(paused)];
                self.process.signal(signal);
                wait_until("libtorrent to obey", || self.libtorrent().is_some_and(|status| status["paused"] == paused));
            }
            Kind::Aria2 | Kind::QBittorrent => panic!("{:?} goes on otherwise", self.kind),
        }
    }

    /// What libtorrent said last of itself.
    fn libtorrent(&self) -> Option<Value> {
        let output = self.process.output();
        let mut lines = output.lines().rev();
        let line = lines.find(|line| line.starts_with('{') && line.ends_with('}'))?;
        Some(serde_json::from_str(line).unwrap())
    }

    /// Asks qBittorrent for something, or sends it a form; None if it is not ready, or
    /// knows no such thing.
    fn qbittorrent(&self, what: &str, form: Option<&str>) -> Option<String> {
        let address = self.host.address;
        // It does not close a connection that it is asked to close, which curl does not wait for.
        let mut command = Command::new("curl");
        command.args(["--silent", "--fail"]);
        command.arg(format!("http://{address}:8080/api/v2/{what}"));
        command.args(form.map(|form| ["--data", form]).into_iter().flatten());
        let output = command.output().unwrap();
        let body = String::from_utf8(output.stdout).unwrap();
        output.status.success().then_some(body)
    }

    /// What it says of its torrents in JSON.
    fn ask_qbittorrent(&self, what: &str) -> Option<Value> {
        let body = self.qbittorrent(&format!("torrents/{what}"), None)?;
        Some(serde_json::from_str(&body).unwrap())
    }

    /// Has qBittorrent stop sharing; waits until its figures are final.
    fn pause_qbittorrent(&self) {
        // Version 5 has another word for it.
        let obeys = |word: &&str| self.qbittorrent(word, Some("hashes=all")).is_some();
        assert!(["torrents/pause", "torrents/stop"].iter().any(obeys), "qBittorrent does not pause");
        wait_until("qBittorrent to pause", || {
            self.ask_qbittorrent("info").is_some_and(|torrents| {
                let state = torrents[0]["state"].as_str().unwrap_or_default();
                state.starts_with("paused") || state.starts_with("stopped")
            })
        });
    }

    /// Calls a method of Transmission.
    fn transmission(&self, method: &str, arguments: Value) -> Option<Value> {
        let address = SocketAddr::from((self.host.address, 9091));
        let call = json!({ "method": method, "arguments": arguments }).to_string();
        let post = |headers: &[(&str, &str)]| http_post(address, "/transmission/rpc", headers, call.as_bytes()).ok();
        // It wants to be told a number that it names when it refuses.
        const SESSION: &str = "x-transmission-session-id";
        let (_, headers, _) = post(&[])?;
        let (_, session) = headers.iter().find(|(name, _)| name == SESSION).unwrap();
        let (_, _, body) = post(&[(SESSION, session)])?;
        let mut answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["result"], "success", "Transmission: {answer}");
        Some(answer["arguments"].take())
    }
}

/// The name of aria2's only download.
const GID: &str = "00000000000000aa";

/// The one that Debian's packages install modules for.
const PYTHON: &str = "/usr/bin/python3";

fn aria2(host: &Host, torrent: &Path, folder: &Folder) -> Command {
    let options = "--no-conf --check-integrity --file-allocation=none --seed-ratio=0 \
        --enable-dht=false --enable-peer-exchange=false --bt-enable-lpd=false --listen-port=6881 \
        --enable-rpc --rpc-listen-all --rpc-listen-port=6800 \
        --show-console-readout=false --console-log-level=info";
    let mut command = host.command("aria2c");
    command.args(options.split(' ')).args(["--gid", GID, "--dir"]);
    command.args([folder.path(), torrent]);
    command
}

fn transmission(host: &Host, folder: &Folder) -> Command {
    let settings = json!({
        "download-dir": folder.path(), "incomplete-dir-enabled": false, "watch-dir-enabled": false,
        "dht-enabled": false, "pex-enabled": false, "lpd-enabled": false,
        "port-forwarding-enabled": false,
        "rpc-enabled": true, "rpc-bind-address": "0.0.0.0", "rpc-port": 9091,
        "rpc-whitelist-enabled": false, "rpc-host-whitelist-enabled": false,
        "rpc-authentication-required": false,
        "utp-enabled": false, // or it waits in vain for aria2, which has only TCP
    });
    std::fs::write(folder.join("settings.json"), settings.to_string()).unwrap();
    let mut command = host.command("transmission-daemon");
    command.args(["--foreground", "--log-debug", "--config-dir"]).arg(folder.path());
    command
}

fn libtorrent(host: &Host, torrent: &Path, folder: &Folder) -> Command {
    let homes = [Some(host.address.into()), host.ipv6.map(IpAddr::from)];
    let listen = homes.into_iter().flatten().map(|home| SocketAddr::new(home, 6881).to_string());
    let mut command = host.command(PYTHON);
    command.args([&script("lt_client.py"), torrent, folder.path()]).arg(listen.collect::<Vec<String>>().join(","));
    command
}

fn script(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder.join("tests/data").join(name)
}

fn qbittorrent(host: &Host, folder: &Folder) -> Command {
    let settings = r"
[LegalNotice]
Accepted=true
[BitTorrent]
Session\DHTEnabled=false
Session\LSDEnabled=false
Session\PeXEnabled=false
[Network]
PortForwardingEnabled=false
[Preferences]
WebUI\Port=8080
WebUI\AuthSubnetWhitelistEnabled=true
WebUI\AuthSubnetWhitelist=0.0.0.0/0
WebUI\CSRFProtection=false
WebUI\HostHeaderValidation=false
WebUI\UseUPnP=false
";
    let home = folder.join("qBittorrent/config");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::write(home.join("qBittorrent.conf"), settings).unwrap();
    let mut command = host.command("qbittorrent-nox");
    command
        .arg(format!("--profile={}", folder.path().display()))
        .arg(format!("--save-path={}", folder.path().display()));
    command
}
