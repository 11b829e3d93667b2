//! Real clients share files through goat over UDP, each on a host of its own, with peer exchange, the DHT
//! and local discovery switched off: only goat can introduce them to each other.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::common::{Database, Folder, Goat, Host, Lab, Process, User, installed, skip, wait_for, wait_until};
use serde_json::{Value, json};

#[test]
fn libtorrent_shares_over_udp_alone_with_a_passkey_and_a_client_over_http_joins() {
    in_lab("libtorrent over UDP", |lab| {
        let database = Database::sqlite();
        let goat = Goat::start(&database, json!({ "Host": Lab::HUB, "UDP": true }));
        let file = File::new(&goat);
        let over = |scheme: &str, role: &str| {
            let user = goat.add_user(role);
            let url = format!("{scheme}://{}/{}/announce", goat.address(), user.passkey);
            let host = lab.host();
            let home = host.address.to_string();
            Member::join(host, user, &[home], &file, &url, role == "seeder")
        };

        let seeder = over("udp", "seeder");
        wait_until("the seeder", || database.number(SEEDERS) == 1);
        let mut leecher = over("udp", "leecher");
        leecher.wait_until_complete();
        wait_until("the snatch", || database.number(SNATCHES) == 1);
        let mut late = over("http", "late");
        late.wait_until_complete();
        wait_until("the second snatch", || database.number(SNATCHES) == 2);

        let reports = [late, leecher, seeder].map(|member| member.leave(&database));
        check_books(&database, &reports);
    });
}

#[test]
fn hosts_that_have_only_ipv6_share_over_udp() {
    in_lab("libtorrent over IPv6", |lab| {
        let database = Database::sqlite();
        let hub = lab.add_ipv6();
        let goat = Goat::start(&database, json!({ "Host": hub, "UDP": true }));
        let file = File::new(&goat);
        let join = |role: &str| {
            let user = goat.add_user(role);
            let url = format!("udp://{}/{}/announce", goat.address(), user.passkey);
            let mut host = lab.host();
            let home = host.add_ipv6().to_string();
            host.drop_ipv4();
            Member::join(host, user, &[home], &file, &url, role == "seeder")
        };

        let seeder = join("seeder");
        wait_until("the seeder", || database.number(SEEDERS) == 1);
        let mut leecher = join("leecher");
        leecher.wait_until_complete();
        wait_until("the snatch", || database.number(SNATCHES) == 1);

        let reports = [leecher, seeder].map(|member| member.leave(&database));
        check_books(&database, &reports);
    });
}

#[test]
fn a_client_that_announces_over_ipv4_and_ipv6_is_credited_once() {
    in_lab("libtorrent over both address families", |lab| {
        let database = Database::sqlite();
        let hub = lab.add_ipv6();
        let goat = Goat::start(&database, json!({ "Host": "", "UDP": true, "HTTP": false }));
        let file = File::new(&goat);
        // A name with two addresses is what makes a client announce over both (BEP 7).
        let names = Folder::new();
        let hosts = names.join("hosts");
        let known = format!("127.0.0.1 localhost\n{} tracker\n{hub} tracker\n", Lab::HUB);
        std::fs::write(&hosts, known).unwrap();
        let join = |role: &str| {
            let user = goat.add_user(role);
            let url = format!("udp://tracker:{}/{}/announce", goat.port, user.passkey);
            let mut host = lab.host();
            let homes = [host.address.to_string(), host.add_ipv6().to_string()];
            host.knows(&hosts);
            let both = format!(
                "SELECT count(*) FROM peers WHERE active = 1 AND user_id = {}
                 AND ipv4 = '{}' AND ipv6 <> ''",
                user.id, homes[0]
            );
            let member = Member::join(host, user, &homes, &file, &url, role == "seeder");
            wait_until("an announce over each", || database.number(&both) == 1);
            member
        };

        let seeder = join("seeder");
        let mut leecher = join("leecher");
        leecher.wait_until_complete();
        wait_until("the snatch", || database.number(SNATCHES) == 1);
        assert_eq!(database.number("SELECT count(*) FROM peers"), 2);

        let reports = [leecher, seeder].map(|member| member.leave(&database));
        check_books(&database, &reports);
    });
}

#[test]
fn without_passkeys_aria2_transmission_and_libtorrent_share_over_udp() {
    in_lab("clients over UDP without passkeys", |lab| {
        let database = Database::sqlite();
        let settings = json!({ "Host": Lab::HUB, "UDP": true, "HTTP": false, "Passkey": false });
        let goat = Goat::start(&database, settings);
        // Each is once the seeder and once the leecher.
        let files = [(); 3].map(|()| File::new(&goat));
        let url = format!("udp://{}/announce", goat.address());
        let torrents = files.each_ref().map(|file| file.torrent("udp", &url));
        let start = |kinds: [Kind; 3], seeds: bool| {
            [0, 1, 2].map(|n| {
                let file = seeds.then_some(&files[n]);
                Client::start(kinds[n], lab.host(), &torrents[n], file)
            })
        };
        let seeders = start([Kind::Aria2, Kind::Transmission, Kind::Libtorrent], true);
        wait_until("the seeders", || database.number(SEEDERS) == 3);
        let mut leechers = start([Kind::Transmission, Kind::Aria2, Kind::Libtorrent], false);
        for (leecher, file) in leechers.iter_mut().zip(&files) {
            wait_until("the whole file", || {
                leecher.process.assert_running();
                std::fs::read(leecher.folder.join(NAME)).is_ok_and(|copy| copy == file.content)
            });
        }
        wait_until("the snatches", || database.number(SNATCHES) == 3);
        assert_eq!(database.number(SEEDERS), 6);

        let mut expected = Vec::new();
        for (n, clients) in [leechers, seeders].into_iter().enumerate() {
            for (mut client, file) in clients.into_iter().zip(&files) {
                client.stop();
                let (file, ip, completed) = (file.id, client.host.address, 1 - n);
                expected.push(format!("{file} 0 {ip} {completed} 0"));
            }
        }
        expected.sort();
        let active = "SELECT count(*) FROM peers WHERE active = 1";
        wait_until("all to say goodbye", || database.number(active) == 0);
        let moved = "completed, uploaded + downloaded";
        let rows = database.sql(&format!("SELECT file_id, user_id, ipv4, {moved} FROM peers"));
        let mut rows: Vec<String> = rows.iter().map(|row| row.join(" ")).collect();
        rows.sort();
        assert_eq!(rows, expected, "nothing is credited");
    });
}

/// docs/reference.md says which clients can be used over UDP with a passkey: those that send the path
/// of the announce URL (BEP 41).
#[test]
fn only_libtorrent_sends_the_path_of_the_announce_url() {
    in_lab("which clients send URL data", |lab| {
        let socket = UdpSocket::bind((Lab::HUB, 0)).unwrap();
        let tracker = socket.local_addr().unwrap();
        let file = File::unregistered();
        let torrent = file.torrent("tracker", &format!("udp://{tracker}/{KEY}/announce?a=b"));
        let kinds = [Kind::Libtorrent, Kind::Transmission, Kind::Aria2];
        let mut clients = kinds.map(|kind| Client::start(kind, lab.host(), &torrent, None));

        let announces = first_announces(&socket, &mut clients);
        for (client, announce) in clients.iter().zip(announces) {
            let options = &announce[98..];
            println!(
                "{:?}, peer id {}, port {}: options {:?}",
                client.kind,
                announce[36..56].escape_ascii(),
                u16::from_be_bytes([announce[96], announce[97]]),
                options.escape_ascii().to_string(),
            );
            assert_eq!(announce[80..84], [0, 0, 0, 2], "{:?}: started", client.kind);
            let url = format!("/{KEY}/announce?a=b");
            let expected = match client.kind {
                Kind::Libtorrent => [&[2, url.len() as u8], url.as_bytes()].concat(),
                Kind::Transmission => Vec::new(),
                Kind::Aria2 => vec![0, 0], // of a draft older than BEP 15; "end of options" in BEP 41
            };
            assert_eq!(options, expected, "{:?}", client.kind);
        }
    });
}

const KEY: &str = "0123456789abcdef0123456789abcdef01234567";

/// Answers the clients as a tracker without peers would, until each has announced; gives the datagrams.
fn first_announces(socket: &UdpSocket, clients: &mut [Client; 3]) -> [Vec<u8>; 3] {
    let mut announces: BTreeMap<IpAddr, Vec<u8>> = BTreeMap::new();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let homes = [0, 1, 2].map(|n: usize| IpAddr::from(clients[n].host.address));
    wait_until("an announce of each client", || {
        let mut datagram = [0; 2_048];
        let Ok((size, from)) = socket.recv_from(&mut datagram) else {
            clients.iter_mut().for_each(|c| c.process.assert_running());
            return false;
        };
        let datagram = &datagram[..size];
        let answer = match datagram[8..12] {
            [0, 0, 0, 0] => [&[0, 0, 0, 0], &datagram[12..16], b"an id of"].concat(),
            [0, 0, 0, 1] => {
                assert_eq!(datagram[..8], *b"an id of");
                announces.entry(from.ip()).or_insert(datagram.to_vec());
                let numbers = [600_u32, 1, 0].map(u32::to_be_bytes).concat();
                [&[0, 0, 0, 1], &datagram[12..16], &numbers].concat()
            }
            [0, 0, 0, 2] => [&[0, 0, 0, 2], &datagram[12..16], &[0; 12]].concat(),
            _ => panic!("unknown: {datagram:?}"),
        };
        socket.send_to(&answer, from).unwrap();
        homes.iter().all(|home| announces.contains_key(home))
    });
    homes.map(|home| announces.remove(&home).unwrap())
}

/// Runs a test in a network of its own.
fn in_lab(test: &str, body: impl FnOnce(&Lab) + Send) {
    let mut programs = "ip mount aria2c transmission-daemon mktorrent sqlite3".split(' ');
    if let Some(program) = programs.find(|program| !installed(program)) {
        return skip(test, &format!("no {program}"));
    }
    let mut python = Command::new(PYTHON);
    if !python.args(["-c", "import libtorrent"]).status().is_ok_and(|status| status.success()) {
        return skip(test, "no libtorrent for Python");
    }
    Lab::run(test, body);
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

// What the tests wait for.
const SEEDERS: &str = "SELECT count(*) FROM peers WHERE active = 1 AND `left` = 0";
const SNATCHES: &str = "SELECT sum(completed) FROM files";

/// The database holds what the clients say, and nothing else.
fn check_books(database: &Database, reports: &[Report]) {
    let (seeder, leechers) = reports.split_last().unwrap();
    assert!(seeder.totals.uploaded >= SIZE, "{seeder:?}");
    for leecher in leechers {
        assert!(leecher.totals.downloaded >= SIZE, "{leecher:?}");
    }
    let sessions = "SELECT count(*) FROM peers";
    assert_eq!(database.number(sessions), reports.len() as i64);
    for Report { user, homes, totals } in reports {
        let id = user.id;
        let row = |sql: String| {
            let rows = database.sql(&sql);
            assert_eq!(rows.len(), 1, "{sql}: {rows:?}");
            rows[0].join(" ")
        };
        let moved = format!("{} {}", totals.uploaded, totals.downloaded);
        let credited = format!("SELECT uploaded, downloaded FROM users WHERE id = {id}");
        assert_eq!(row(credited), moved, "{}", user.name);
        let session = format!("SELECT uploaded, downloaded, active, `left` FROM peers WHERE user_id = {id}");
        assert_eq!(row(session), format!("{moved} 0 0"), "{}", user.name);
        let sums = format!(
            "SELECT sum(uploaded), sum(downloaded), sum(active), sum(`left`), sum(completed)
             FROM files_users WHERE user_id = {id}"
        );
        let completed = i32::from(user.name != "seeder");
        assert_eq!(row(sums), format!("{moved} 0 0 {completed}"), "{}", user.name);
        let rows = database.sql(&format!("SELECT ipv4, ipv6 FROM peers WHERE user_id = {id}"));
        let ips = rows.concat().into_iter().filter(|ip| !ip.is_empty());
        let mut ips: Vec<IpAddr> = ips.map(|ip| ip.parse().unwrap()).collect();
        ips.sort();
        let homes: Vec<IpAddr> = homes.iter().map(|ip| ip.parse().unwrap()).collect();
        assert_eq!(ips, homes, "{}", user.name);
    }
}

const SIZE: u64 = 5_000_000;
const NAME: &str = "random.bin";

/// A torrent of one file of random bytes.
struct File {
    folder: Folder,
    content: Vec<u8>,
    id: i64,
}

impl File {
    fn unregistered() -> File {
        let folder = Folder::new();
        let mut content = vec![0; SIZE as usize];
        let mut random = std::fs::File::open("/dev/urandom").unwrap();
        std::io::Read::read_exact(&mut random, &mut content).unwrap();
        std::fs::write(folder.join(NAME), &content).unwrap();
        let id = 0;
        File { folder, content, id }
    }

    fn new(goat: &Goat) -> File {
        let mut file = File::unregistered();
        file.id = goat.add_torrent(file.torrent("registered", "udp://tracker/announce"));
        file
    }

    /// The torrent with an announce URL.
    fn torrent(&self, name: &str, announce: &str) -> PathBuf {
        let torrent = self.folder.join(&format!("{name}.torrent"));
        run(Command::new("mktorrent")
            .args(["--private", "--piece-length=16", "--announce"])
            .args([announce, "--output"])
            .args([&torrent, &self.folder.join(NAME)]));
        torrent
    }
}

/// A user with a libtorrent client that shares a file.
struct Member<'a> {
    user: User,
    homes: Vec<String>,
    client: Client,
    file: &'a File,
}

/// A user who has shared a file, and what their client says it moved.
#[derive(Debug)]
struct Report {
    user: User,
    homes: Vec<String>,
    totals: Totals,
}

/// The figures that libtorrent announces, as it says itself. They need not be the size of the file: a
/// client may be sent a block twice.
#[derive(Clone, Copy, Debug)]
struct Totals {
    uploaded: u64,
    downloaded: u64,
    left: u64,
}

impl<'a> Member<'a> {
    /// Joins from these addresses of a host.
    fn join(host: Host, user: User, homes: &[String], file: &'a File, url: &str, seeds: bool) -> Member<'a> {
        let mut command = host.command(PYTHON);
        let torrent = file.torrent(&user.name, url);
        let folder = Folder::new();
        if seeds {
            std::fs::copy(file.folder.join(NAME), folder.join(NAME)).unwrap();
        }
        libtorrent(&mut command, &torrent, &folder, homes);
        let client = Client::run(Kind::Libtorrent, command, host, folder);
        let homes = homes.to_vec();
        Member { user, homes, client, file }
    }

    /// What it has moved so far; None while it is not ready to say.
    fn totals(&self) -> Option<Totals> {
        let output = self.client.process.output();
        let mut lines = output.lines().rev();
        let line = lines.find(|line| line.starts_with('{') && line.ends_with('}'))?;
        let status: Value = serde_json::from_str(line).unwrap();
        let number = |key: &str| status[key].as_u64().unwrap();
        (status["checked"] == true).then(|| Totals {
            uploaded: number("uploaded"),
            downloaded: number("downloaded"),
            left: number("left"),
        })
    }

    fn wait_until_complete(&mut self) {
        wait_for(&format!("{} to have it all", self.user.name), || {
            self.client.process.assert_running();
            self.totals().filter(|totals| totals.left == 0)
        });
    }

    /// Stops sharing in good order.
    fn leave(mut self, database: &Database) -> Report {
        self.client.process.terminate();
        let totals = self.totals().unwrap();
        let Member { user, homes, .. } = self;
        let active = format!("SELECT count(*) FROM peers WHERE active = 1 AND user_id = {}", user.id);
        wait_until(&format!("the goodbye of {}", user.name), || database.number(&active) == 0);
        let copy = std::fs::read(self.client.folder.join(NAME)).unwrap();
        assert!(copy == self.file.content, "{} has other bytes", user.name);
        Report { user, homes, totals }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Aria2,
    Transmission,
    Libtorrent,
}

/// A running client, with a folder and a host of its own, and one torrent.
struct Client {
    kind: Kind,
    process: Process,
    host: Host,
    folder: Folder,
}

impl Client {
    /// Starts a client; as a seeder if it is given the file.
    fn start(kind: Kind, host: Host, torrent: &Path, file: Option<&File>) -> Client {
        let folder = Folder::new();
        if let Some(file) = file {
            std::fs::copy(file.folder.join(NAME), folder.join(NAME)).unwrap();
        }
        let command = match kind {
            Kind::Aria2 => aria2(&host, torrent, &folder),
            Kind::Transmission => transmission(&host, torrent, &folder),
            Kind::Libtorrent => {
                let mut command = host.command(PYTHON);
                let home = host.address.to_string();
                libtorrent(&mut command, torrent, &folder, &[home]);
                command
            }
        };
        Client::run(kind, command, host, folder)
    }

    fn run(kind: Kind, mut command: Command, host: Host, folder: Folder) -> Client {
        command.env("HOME", folder.path());
        let log = folder.join("client.log");
        let process = Process::start(&format!("{kind:?}"), &mut command, log);
        Client { kind, process, host, folder }
    }
}

impl Client {
    /// Ends it in good order, so that it tells goat.
    fn stop(&mut self) {
        // Of SIGTERM aria2 thinks that there is no time for that.
        self.process.signal(match self.kind {
            Kind::Aria2 => libc::SIGINT,
            _ => libc::SIGTERM,
        });
        self.process.wait();
    }
}

/// The one that Debian's packages install modules for.
const PYTHON: &str = "/usr/bin/python3";

/// It speaks UDP with trackers only where its DHT is on. There it knows nobody, and it would not look for
/// peers of a private torrent there.
fn aria2(host: &Host, torrent: &Path, folder: &Folder) -> Command {
    let options = "--no-conf --check-integrity --file-allocation=none --seed-ratio=0 \
        --enable-dht=true --enable-peer-exchange=false --bt-enable-lpd=false \
        --listen-port=6881 --dht-listen-port=6882 \
        --show-console-readout=false --console-log-level=info --dir";
    let mut command = host.command("aria2c");
    command.args(options.split_whitespace());
    command.args([folder.path(), torrent]);
    command
}

fn transmission(host: &Host, torrent: &Path, folder: &Folder) -> Command {
    let watched = folder.join("torrents");
    std::fs::create_dir(&watched).unwrap();
    std::fs::copy(torrent, watched.join("random.torrent")).unwrap();
    let settings = json!({
        "download-dir": folder.path(), "incomplete-dir-enabled": false,
        "watch-dir": watched, "watch-dir-enabled": true,
        "dht-enabled": false, "pex-enabled": false, "lpd-enabled": false,
        "port-forwarding-enabled": false, "rpc-enabled": false,
        "utp-enabled": false, // or it waits in vain for aria2, which has only TCP
    });
    std::fs::write(folder.join("settings.json"), settings.to_string()).unwrap();
    let mut command = host.command("transmission-daemon");
    command.args(["--foreground", "--log-debug", "--config-dir"]).arg(folder.path());
    command
}

/// Adds the arguments of the script to a command that starts Python.
fn libtorrent(command: &mut Command, torrent: &Path, folder: &Folder, homes: &[String]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lt_client.py");
    let listen = homes.iter().map(|home| {
        let home: IpAddr = home.parse().unwrap();
        SocketAddr::from((home, 6881)).to_string()
    });
    command.args([&script, torrent, folder.path()]).arg(listen.collect::<Vec<String>>().join(","));
}
