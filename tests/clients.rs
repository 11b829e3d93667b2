//! Real clients share files through goat, each on a host of its own, with peer exchange, the DHT and
//! local discovery switched off: only goat can introduce them to each other.

mod common;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{
    Database, Folder, Goat, Host, Lab, Process, User, http_post, installed, skip, wait_for,
    wait_until,
};
use serde_json::{Value, json};

#[test]
fn clients_share_files_and_the_books_agree_with_them_on_sqlite() {
    in_lab("clients on SQLite", |lab| {
        share_in_a_ring(lab, &Database::sqlite())
    });
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

        let torrent = file.torrent(&goat, &"0123456789".repeat(4));
        let mut stranger = Client::start(lab.host(), Kind::Libtorrent, &torrent, None);
        wait_until("goat to refuse", || {
            stranger.process.output().contains("Invalid passkey")
        });

        let totals = stranger.stop_sharing();
        assert_eq!((totals.downloaded, totals.left), (0, SIZE));
        for table in ["peers", "files_users"] {
            let rows = database.sql(&format!("SELECT user_id FROM {table}"));
            assert_eq!(rows, [[seeder.user.id.to_string()]], "{table}");
        }
    });
}

/// Runs a test in a network of its own.
fn in_lab(test: &str, body: impl FnOnce(&Lab) + Send) {
    let mut programs = "ip aria2c transmission-daemon mktorrent sqlite3".split(' ');
    if let Some(program) = programs.find(|program| !installed(program)) {
        return skip(test, &format!("no {program}"));
    }
    let mut python = Command::new(PYTHON);
    if !python
        .args(["-c", "import libtorrent"])
        .status()
        .is_ok_and(|status| status.success())
    {
        return skip(test, "no libtorrent for Python");
    }
    Lab::run(test, body);
}

/// Every client once as the seeder and once as the leecher of a file.
fn share_in_a_ring(lab: &Lab, database: &Database) {
    let goat = start_goat(database);
    let ring = [
        (Kind::Aria2, Kind::Transmission),
        (Kind::Transmission, Kind::Libtorrent),
        (Kind::Libtorrent, Kind::Aria2),
    ];
    let files: Vec<File> = ring.iter().map(|_| File::new(&goat)).collect();
    let pairs = || files.iter().zip(ring);

    let seeders: Vec<Member> = pairs()
        .map(|(file, (kind, _))| Member::join(lab, &goat, kind, file, true))
        .collect();
    wait_until("the seeders", || database.number(SEEDERS) == 3);
    let mut leechers: Vec<Member> = pairs()
        .map(|(file, (_, kind))| Member::join(lab, &goat, kind, file, false))
        .collect();
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

    let expected = |Report {
                        user,
                        address,
                        totals,
                    }: &Report,
                    completed: u8| {
        let Totals {
            uploaded,
            downloaded,
            left,
        } = totals;
        format!(
            "{} {address} 0 {completed} {uploaded} {downloaded} {left}",
            user.id
        )
    };
    let mut both = [expected(seeder, 0), expected(leecher, 1)];
    both.sort();
    for (table, address) in [("files_users", "ip"), ("peers", "ipv4")] {
        let columns =
            format!("user_id, {address}, active, completed, uploaded, downloaded, `left`");
        let rows = database.sql(&format!(
            "SELECT {columns} FROM {table} WHERE file_id = {id}"
        ));
        let mut rows: Vec<String> = rows.iter().map(|row| row.join(" ")).collect();
        rows.sort();
        assert_eq!(rows, both, "{table}");
    }

    for Report { user, totals, .. } in [seeder, leecher] {
        let sql = format!(
            "SELECT uploaded, downloaded FROM users WHERE id = {}",
            user.id
        );
        let credited = [totals.uploaded, totals.downloaded].map(|number| number.to_string());
        assert_eq!(database.sql(&sql), [credited], "{}", user.name);
    }
}

// What the tests wait for.
const SEEDERS: &str = "SELECT count(*) FROM peers WHERE active = 1 AND `left` = 0";
const SNATCHES: &str = "SELECT sum(completed) FROM files";

fn start_goat(database: &Database) -> Goat {
    Goat::start(database, json!({ "Host": Lab::HUB }))
}

const SIZE: u64 = 5_000_000;

/// A registered torrent of one file of random bytes.
struct File {
    folder: Folder,
    content: Vec<u8>,
    id: i64,
}

impl File {
    fn new(goat: &Goat) -> File {
        let folder = Folder::new();
        let mut content = vec![0; SIZE as usize];
        let mut random = std::fs::File::open("/dev/urandom").unwrap();
        std::io::Read::read_exact(&mut random, &mut content).unwrap();
        std::fs::write(folder.join("random.bin"), &content).unwrap();
        let mut file = File {
            folder,
            content,
            id: 0,
        };
        file.id = goat.add_torrent(file.torrent(goat, "passkey"));
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.join("random.bin")
    }

    /// The torrent as one member has it, with their own passkey.
    fn torrent(&self, goat: &Goat, passkey: &str) -> PathBuf {
        let torrent = self.folder.join(&format!("{passkey}.torrent"));
        let announce = format!("http://{}/{passkey}/announce", goat.address());
        let output = Command::new("mktorrent")
            .args(["--private", "--piece-length=16", "--announce"])
            .args([&announce, "--output"])
            .args([&torrent, &self.path()])
            .output()
            .expect("mktorrent is installed");
        assert!(output.status.success(), "mktorrent: {output:?}");
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
        let role = if seeds { "seeder" } else { "leecher" };
        let user = goat.add_user(&format!("{role}-{kind:?}"));
        let torrent = file.torrent(goat, &user.passkey);
        let content = seeds.then(|| file.path());
        let client = Client::start(lab.host(), kind, &torrent, content.as_deref());
        Member {
            user,
            client,
            content: file.content.clone(),
        }
    }

    fn wait_until_complete(&mut self) {
        wait_for(&format!("{} to have it all", self.user.name), || {
            self.client.process.assert_running();
            self.client.totals().filter(|totals| totals.left == 0)
        });
    }

    fn leave(mut self, database: &Database) -> Report {
        let totals = self.client.stop_sharing();
        let active = format!(
            "SELECT count(*) FROM peers WHERE active = 1 AND user_id = {}",
            self.user.id
        );
        wait_until(&format!("the goodbye of {}", self.user.name), || {
            database.number(&active) == 0
        });
        let copy = std::fs::read(self.client.folder.join("random.bin")).unwrap();
        assert!(
            copy == self.content,
            "{} has other bytes than the seeder",
            self.user.name
        );
        Report {
            user: self.user,
            address: self.client.host.address.to_string(),
            totals,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Aria2,
    Transmission,
    Libtorrent,
}

/// The figures that a client announces, as it says itself.
///
/// They need not be the size of the file: Transmission counts the 13 bytes before every block as
/// uploaded, and any client may be sent a block twice.
#[derive(Clone, Copy, Debug)]
struct Totals {
    uploaded: u64,
    downloaded: u64,
    left: u64,
}

/// A running client, with a folder and a host of its own, and one torrent.
struct Client {
    kind: Kind,
    brought: u64,
    process: Process,
    host: Host,
    folder: Folder,
}

impl Client {
    /// Starts a client; as a seeder if it is given the content.
    fn start(host: Host, kind: Kind, torrent: &Path, content: Option<&Path>) -> Client {
        let folder = Folder::new();
        if let Some(content) = content {
            std::fs::copy(content, folder.join("random.bin")).unwrap();
        }
        let mut command = match kind {
            Kind::Aria2 => aria2(&host, torrent, &folder),
            Kind::Transmission => transmission(&host, &folder),
            Kind::Libtorrent => libtorrent(&host, torrent, &folder),
        };
        command.env("HOME", folder.path());
        let process = Process::start(
            &format!("{kind:?}"),
            &mut command,
            folder.join("client.log"),
        );
        let brought = if content.is_some() { SIZE } else { 0 };
        let client = Client {
            kind,
            brought,
            process,
            host,
            folder,
        };
        if let Kind::Transmission = kind {
            wait_for("Transmission", || {
                client.transmission("torrent-add", json!({ "filename": torrent }))
            });
        }
        client
    }

    /// What it has moved so far; None while it is not ready to say.
    fn totals(&self) -> Option<Totals> {
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
                let [uploaded, downloaded, left] =
                    fields.map(|field| answer["torrents"][0][field].as_u64());
                Some(Totals {
                    uploaded: uploaded?,
                    downloaded: downloaded?,
                    left: left?,
                })
            }
            Kind::Libtorrent => {
                let output = self.process.output();
                let line = output
                    .lines()
                    .rev()
                    .find(|line| line.starts_with('{') && line.ends_with('}'))?;
                let status: Value = serde_json::from_str(line).unwrap();
                let number = |key: &str| status[key].as_u64().unwrap();
                (status["checked"] == true).then(|| Totals {
                    uploaded: number("uploaded"),
                    downloaded: number("downloaded"),
                    left: number("left"),
                })
            }
        }
    }

    /// Has the client stop sharing in good order, so that it tells goat; gives what it moved in all.
    fn stop_sharing(&mut self) -> Totals {
        let totals = match self.kind {
            Kind::Aria2 => {
                let totals = self.totals(); // it forgets them when it pauses
                self.aria2("pause").and(totals)
            }
            Kind::Transmission => self
                .transmission("torrent-stop", json!({}))
                .and_then(|_| self.totals()),
            Kind::Libtorrent => {
                self.process.terminate();
                self.totals()
            }
        };
        totals.unwrap_or_else(|| panic!("{:?} does not stop", self.kind))
    }

    /// Calls a method of aria2 on the only download.
    fn aria2(&self, method: &str) -> Option<Value> {
        let method = format!("aria2.{method}");
        let call =
            json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": [GID] }).to_string();
        let address = SocketAddr::from((self.host.address, 6800));
        let (status, _, body) = http_post(address, "/jsonrpc", &[], call.as_bytes()).ok()?;
        assert_eq!(status, 200, "aria2: {}", String::from_utf8_lossy(&body));
        Some(serde_json::from_slice::<Value>(&body).unwrap()["result"].take())
    }

    /// Calls a method of Transmission.
    fn transmission(&self, method: &str, arguments: Value) -> Option<Value> {
        let address = SocketAddr::from((self.host.address, 9091));
        let call = json!({ "method": method, "arguments": arguments }).to_string();
        let post = |headers: &[(&str, &str)]| {
            http_post(address, "/transmission/rpc", headers, call.as_bytes()).ok()
        };
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
    command
        .args(options.split(' '))
        .args(["--gid", GID, "--dir"]);
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
    command
        .args(["--foreground", "--log-debug", "--config-dir"])
        .arg(folder.path());
    command
}

fn libtorrent(host: &Host, torrent: &Path, folder: &Folder) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lt_client.py");
    let mut command = host.command(PYTHON);
    command
        .args([&script, torrent, folder.path()])
        .arg(format!("{}:6881", host.address));
    command
}
