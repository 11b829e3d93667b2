//! Abuse, of every kind that is known: what is sent to a tracker to bring it down, to fill it up or to wear
//! it out. Beside it members announce at a normal rate, over HTTP, HTTPS and UDP, and each of their
//! announces must be answered, and rightly. At the end each test prints a table of what it tried.
//!
//! goat is the real binary, limited in nothing but by its own rules. Members and attackers come from
//! addresses of 127.0.0.0/8, for 127.0.0.1 itself may have any number of connections.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use crate::common::{
    AGENT, Announce, Bencode, Database, Goat, Lab, Process, User, basic, connect_from, connect_from_ipv6, end_by_reset,
    escape, free_port, hex, http_get, info_hash, skip, wait_for, wait_until,
};
use crate::{alone, beside_others, say};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use serde_json::json;

/// What any abuse may cost goat, in KiB, beside what it needs at rest; and what it may keep of that afterwards.
const MAX_COST: u64 = 96 * 1024;
const MAX_KEPT: u64 = 16 * 1024;
/// How long members may wait at most beside the attacks of [`ATTACKS`], in microseconds.
const MAX_WAIT: u64 = 1_000_000;
/// What an answer may take. It is nobody's measure of speed: after this long, clients give up.
const HANG: Duration = Duration::from_secs(15);
/// What members write to the log in a siege, and attackers may at most, in bytes.
const MAX_LOG: u64 = 1 << 20;
/// Without optimization everything takes ten times as long.
const SCALE: usize = if cfg!(debug_assertions) { 10 } else { 1 };

#[test]
fn members_are_answered_beside_every_abuse() {
    let _beside = beside_others();
    let mut siege = Siege::start("ABUSE", Database::sqlite(), 0, &[]);
    for transport in TRANSPORTS {
        heads_and_lengths(&mut siege, transport);
        bytes_in_the_wrong_place(&mut siege, transport);
        many_requests_at_once(&mut siege, transport);
        resets(&mut siege, transport);
    }
    garbage_for_tls(&mut siege);
    handshakes_that_end_early(&mut siege);
    renegotiation(&mut siege);
    slow_and_silent(&mut siege);
    four_thousand_idle(&mut siege);
    fuzz(&mut siege);
    siege.end();
}

#[test]
fn members_are_answered_though_descriptors_are_used_up() {
    let _beside = beside_others();
    // goat knows this limit, and keeps some of it for other files than connections.
    let mut siege = Siege::start("300 DESCRIPTORS", Database::sqlite(), 300, &[]);
    for transport in TRANSPORTS {
        siege.case(&format!("600 idle connections, {transport}"), |place| {
            let idle: Vec<Option<Client>> = (0..600)
                .map(|i| {
                    let mut client = place.connect(transport, source(i)).ok()?;
                    client.send(get("/", ""));
                    client.answer().ok()??;
                    Some(client)
                })
                .collect();
            assert!(idle.iter().flatten().count() > 0, "none was answered");
            idle.len()
        });
        siege.case(&format!("600 half requests, {transport}"), |place| {
            let half: Vec<_> = (0..600)
                .map(|i| {
                    let mut client = place.connect(transport, source(i)).ok()?;
                    client.send("GET /announce?");
                    Some(client)
                })
                .collect();
            half.len()
        });
        siege.case(&format!("600 silent connections, {transport}"), |place| {
            let address = place.address(transport);
            let silent: Vec<_> = (0..600).map(|i| open(source(i), address)).collect();
            thread::sleep(Duration::from_secs(12)); // goat hears of them after 5 s, and waits 10 s
            silent.len()
        });
    }
    // This limit it meets by surprise.
    let process = siege.process.id();
    siege.case("no descriptor left, by surprise", |place| {
        let keep: Vec<_> = (0..40).map(|i| place.idle(Transport::Plain, source(i))).collect();
        set_file_limit(process, Some(files(process) as u64 + 5));
        let more: Vec<_> = (0..200)
            .map(|i| open(source(100 + i), place.address(Transport::Plain)))
            .map(|stream| stream.map(|mut stream| stream.write_all(b"GET /")))
            .collect();
        siege_pause();
        set_file_limit(process, None);
        keep.len() + more.len()
    });
    siege.end();
}

#[test]
fn guessed_passkeys_are_refused_mostly_without_asking_the_database() {
    let _beside = beside_others();
    let Some(database) = Database::mariadb("guessing passkeys") else {
        return;
    };
    let Database::MariaDb(server) = &database else { panic!("MariaDB was started") };
    let socket = server.socket();
    root_sql(&socket, "SET GLOBAL log_output = 'TABLE'; SET GLOBAL general_log = 1");
    let mut siege = Siege::start("GUESSED PASSKEYS", database, 0, &[]);

    // Each from an address of its own. A wrong passkey is 40 digits that begin with a letter for it.
    let ways: [(&str, Option<Transport>); 3] =
        [("a", Some(Transport::Plain)), ("b", Some(Transport::Tls)), ("c", None)];
    let from = |letter: &str| Ipv4Addr::new(127, 3, 0, letter.as_bytes()[0]);
    siege.case("guesses at 1,000 a second, each way", |place| {
        let tries: Vec<usize> = thread::scope(|scope| {
            let threads = ways.map(|(letter, transport)| {
                scope.spawn(move || {
                    let mut guesser = Guesser::new(place, transport, from(letter));
                    let mut reasons = BTreeMap::<String, usize>::new();
                    let start = Instant::now();
                    for i in 0..5_000_u32 {
                        let due = start + Duration::from_millis(i.into());
                        thread::sleep(due.saturating_duration_since(Instant::now()));
                        let reason = guesser.reason(&format!("{letter}{i:039x}"));
                        *reasons.entry(reason).or_default() += 1;
                    }
                    let found: Vec<_> = reasons.iter().map(|(r, n)| (r.as_str(), *n)).collect();
                    assert_eq!(found, [("Invalid passkey", 5_000)], "{letter}");
                    // A member at that address never notices.
                    assert_eq!(guesser.reason(&place.passkey), "", "{letter}");
                    5_000
                })
            });
            threads.map(|thread| thread.join().unwrap()).into()
        });
        tries.iter().sum()
    });
    for (letter, _) in ways {
        let asked = root_sql(
            &socket,
            &format!("SELECT COUNT(*) FROM mysql.general_log WHERE argument REGEXP '{letter}0{{30}}[0-9a-f]{{9}}'"),
        );
        let asked: usize = asked.trim().parse().unwrap();
        assert!(
            // It may be that a minute ended meanwhile.
            (1..=40).contains(&asked),
            "{letter}: asked the database {asked} times"
        );
    }
    siege.case("one guess from each of 20,000 addresses", |place| {
        for i in 0..20_000_u32 {
            let source = Ipv4Addr::from(0x7f04_0000 + i);
            let reason = Guesser::new(place, None, source).reason(&format!("d{i:039x}"));
            assert_eq!(reason, "Invalid passkey", "{source}");
        }
        20_000
    });
    siege.end();
}

#[test]
fn a_member_waits_no_longer_than_a_second_beside_each_attack_and_any_two_together() {
    let _alone = alone();
    let more = [More::NewTorrents, More::Status];
    let mut siege = Siege::start("ATTACKS", Database::sqlite(), 0, &more);
    siege.case("nothing", |_| {
        thread::sleep(Duration::from_secs(4));
        0
    });
    let pairs = (0..ATTACKS.len()).flat_map(|a| (a..ATTACKS.len()).map(move |b| (a, b)));
    for (a, b) in pairs {
        let what = match a == b {
            true => ATTACKS[a].0.to_string(),
            false => format!("{} + {}", ATTACKS[a].0, ATTACKS[b].0),
        };
        siege.case(&what, |place| {
            let end = Instant::now() + Duration::from_secs(4);
            thread::scope(|scope| {
                let of = |n: usize| scope.spawn(move || ATTACKS[n].1(place, 10 + n as u8, end));
                let threads: Vec<_> = if a == b { vec![of(a)] } else { vec![of(a), of(b)] };
                let opened = threads.into_iter().map(|thread| thread.join().unwrap());
                opened.sum()
            })
        });
        siege.assert_prompt(&what);
    }
    siege.end();
}

// The attacks, each from 127.N.0.0/16 until a moment, however often goat closes its connections. They return how many
// they opened.

type Attack = fn(&Place, u8, Instant) -> usize;

const ATTACKS: [(&str, Attack); 7] = [
    ("pages unread, then an API call", |place, net, end| {
        let requests = "GET / HTTP/1.1\r\n\r\n".repeat(907);
        let call = format!("GET /api/status HTTP/1.1\r\nAuthorization: {}\r\n\r\n", basic("made", "up"));
        press(place, Transport::Plain, net, 8, 32, end, |_, _| requests.clone() + &call)
    }),
    ("look-ups unread", |place, net, end| {
        press(place, Transport::Plain, net, 8, 32, end, |_, rng| unknown(place, rng).repeat(20))
    }),
    ("look-ups unread, HTTPS", |place, net, end| {
        press(place, Transport::Tls, net, 8, 16, end, |_, rng| unknown(place, rng).repeat(20))
    }),
    ("requests unfinished", |place, net, end| {
        let body = get("/", "Content-Length: 65536\r\n") + &"b".repeat(65_535);
        let head = get("/", "").trim_end().to_string() + "\r\nLong: " + &"x".repeat(8_000);
        press(place, Transport::Plain, net, 8, 128, end, move |n, _| [&head, &body][n % 2].clone())
    }),
    ("hellos of 64 KB, and of 9 bytes, unfinished", |place, net, end| {
        let rest = [&[22, 3, 1, 64, 0][..], &[0; 16_384]].concat();
        let first = [&[22, 3, 1, 64, 0, 1, 0, 255, 240][..], &[0; 16_380]].concat();
        let hello = [&first[..], &rest, &rest, &rest[..15_000]].concat();
        hold(place.https, net, 16, 128, end, [&hello, &hello[..9]])
    }),
    ("pipelining", |place, net, end| {
        press(place, Transport::Plain, net, 1, 128, end, |_, _| "GET /a HTTP/1.1\r\n\r\n".repeat(20))
    }),
    ("pipelining, HTTPS", |place, net, end| {
        press(place, Transport::Tls, net, 1, 128, end, |_, _| "GET /a HTTP/1.1\r\n\r\n".repeat(20))
    }),
];

/// A member's announce of a torrent that nobody knows.
fn unknown(place: &Place, rng: &mut Rng) -> String {
    let hash = rng.bytes(20).try_into().unwrap();
    get(&Announce::new(&place.passkey, hash, 3).target(), "")
}

/// Has `each` connections from each of `addresses` send requests that `next` makes, and never read: about 600 KB/s.
fn press(
    place: &Place,
    transport: Transport,
    net: u8,
    addresses: usize,
    each: usize,
    end: Instant,
    mut next: impl FnMut(usize, &mut Rng) -> String,
) -> usize {
    let mut rng = Rng(seed());
    let count = addresses * each;
    let mut clients: Vec<Option<Client>> = (0..count).map(|_| None).collect();
    let mut opened = 0;
    while Instant::now() < end {
        for (n, slot) in clients.iter_mut().enumerate() {
            if Instant::now() > end {
                break;
            }
            let Some(client) = slot else {
                let source = Ipv4Addr::new(127, net, 0, 1 + (n / each) as u8);
                *slot = place.try_deaf(transport, source).ok();
                opened += 1;
                continue;
            };
            let requests = next(n, &mut rng);
            if !client.push(&requests) {
                *slot = None;
            }
        }
        thread::sleep(Duration::from_millis(100));
    }
    opened
}

/// Has connections send a few bytes and no more: the one or the other.
fn hold(to: SocketAddr, net: u8, addresses: usize, each: usize, end: Instant, bytes: [&[u8]; 2]) -> usize {
    let mut opened = 0;
    while Instant::now() < end {
        let mut held = Vec::new();
        for n in 0..addresses * each {
            if Instant::now() > end {
                break;
            }
            let source = Ipv4Addr::new(127, net, 0, 1 + (n / each) as u8);
            let Ok(mut stream) = open(source, to) else {
                continue;
            };
            stream.set_nonblocking(true).unwrap();
            let _ = stream.write(bytes[n % 2]);
            opened += 1;
            held.push(stream);
        }
        thread::sleep(end.saturating_duration_since(Instant::now()).min(Duration::from_secs(2)));
    }
    opened
}

#[test]
fn a_site_of_ipv6_has_its_share_and_no_more() {
    let _beside = beside_others();
    Lab::run("a site of IPv6", |_| {
        // Every address of both sites is this machine's.
        std::fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1").unwrap();
        for arguments in
            ["addr add fd00::1/128 dev lo", "route add local fd00:1::/32 dev lo", "route add local fd00:2::/32 dev lo"]
        {
            let status = Command::new("ip").arg("-6").args(arguments.split(' ')).status();
            assert!(status.is_ok_and(|status| status.success()), "ip -6 {arguments}");
        }
        let database = Database::sqlite();
        let tls_port = free_port();
        let mut goat = Goat::prepare(
            &database,
            json!({
                "Host": "", "HTTPS": true, "API": true, "SlowDown": 0,
                "SSL": { "Port": tls_port, "Certificate": "goat.crt", "Key": "goat.key" },
            }),
        );
        make_certificate(goat.folder.path());
        goat.add_torrent(hex(&GOOD));
        let member = goat.add_user("anna");
        goat.launch();
        let at = |port| SocketAddr::new("fd00::1".parse().unwrap(), port);
        let subnet = |n: usize| Ipv6Addr::new(0xfd00, 1, 7, n as u16, 0, 0, 0, 1);
        let refused = |reason: &str| {
            let (_, _, text) = http_get(goat.address(), "/metrics", &[]);
            let name = format!("goat_connections_refused_total{{reason=\"{reason}\"}} ");
            let text = String::from_utf8(text).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(&name));
            line.unwrap_or_else(|| panic!("no {name}")).parse::<u64>().unwrap()
        };
        // A thousand networks of one site, each with the beginning of a request or of a handshake.
        let begin = |port, bytes: &'static [u8]| -> Vec<TcpStream> {
            (0..1_000)
                .filter_map(|n| {
                    let mut stream = connect_from_ipv6(subnet(n), at(port)).ok()?;
                    stream.write_all(bytes).ok()?;
                    Some(stream)
                })
                .collect()
        };
        let heads = begin(goat.port, b"GET /");
        wait_until("the site's share of connections", || refused("network") == 488);
        let other = "fd00:2::1".parse().unwrap();
        let announce = || {
            let mut stream = connect_from_ipv6(other, at(goat.port)).unwrap();
            let request = get(&Announce::new(&member.passkey, GOOD, 1).target(), "Connection: close\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert!(answer.windows(8).any(|part| part == b"complete"), "{}", answer.escape_ascii());
        };
        announce();
        drop(heads);
        wait_until("goat to let go", || goat_connections(&goat) <= 1);
        let hellos = begin(tls_port, b"\x16\x03\x01\x02\x00\x01");
        wait_until("the site's share of handshakes", || refused("handshakes") == 744);
        announce();
        drop(hellos);
        wait_until("the log to say so", || goat.log().contains("connections refused or closed to make room: "));
        assert!(goat.log().contains("fd00:1:7:"), "{}", goat.log());
    });
}

/// How many connections goat has open, by its own account.
fn goat_connections(goat: &Goat) -> u64 {
    let (_, _, text) = http_get(goat.address(), "/metrics", &[]);
    let text = String::from_utf8(text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("goat_connections_open "));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_libtorrent_with_500_torrents_is_answered_each_time_over_http_and_https_at_100_ms() {
    let _beside = beside_others();
    const TORRENTS: u32 = 500;
    let python = |arguments: &[&str]| {
        let mut python = Command::new("/usr/bin/python3");
        python.args(arguments);
        python
    };
    let installed = python(&["-c", "import libtorrent"]).status();
    if !installed.is_ok_and(|status| status.success()) {
        return skip("many torrents", "no libtorrent for Python");
    }
    let database = Database::sqlite();
    let tls_port = free_port();
    let mut goat = Goat::prepare(
        &database,
        json!({
            "HTTPS": true,
            "SSL": { "Port": tls_port, "Certificate": "goat.crt", "Key": "goat.key" },
        }),
    );
    make_certificate(goat.folder.path());
    let member = goat.add_user("anna");
    // Those of HTTP are known when goat starts, those of HTTPS are new: for each the database is asked.
    let add = |numbers: std::ops::Range<u32>| {
        let rows: Vec<String> = numbers.map(|n| format!("('{n:040x}', 1)")).collect();
        database.sql(&format!("INSERT INTO files (info_hash, verified) VALUES {}", rows.join(",")));
    };
    add(1..TORRENTS + 1);
    goat.launch();
    for (n, transport) in (0..).zip(TRANSPORTS) {
        let (scheme, to) = [("http", goat.address()), ("https", goat.tls_address())][n as usize];
        let far = Far::open(Ipv4Addr::new(127, 9, 0, 1 + n as u8), to);
        let (port, first) = (far.port, (n * TORRENTS + 1).to_string());
        if n > 0 {
            add(TORRENTS + 1..2 * TORRENTS + 1);
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lt_many.py");
        let url = format!("{scheme}://127.0.0.1:{port}/{}/announce", member.passkey);
        let start = Instant::now();
        let count = TORRENTS.to_string();
        let output = python(&[script.to_str().unwrap(), &url, &first, &count]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let told: serde_json::Value = serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
        say!(
            "libtorrent, {transport}: {} of {TORRENTS} announces answered in {:.1} s, at most {} connections",
            told["answered"],
            start.elapsed().as_secs_f32(),
            far.most.load(Relaxed),
        );
        assert_eq!((&told["answered"], &told["errors"]), (&json!(TORRENTS), &json!([])), "{}", goat.log());
    }
}

/// A way to goat that takes 50 ms in each direction, and on which clients have one address.
struct Far {
    port: u16,
    /// The most connections at a time.
    most: Arc<AtomicUsize>,
}

impl Far {
    const DELAY: Duration = Duration::from_millis(50);

    fn open(source: Ipv4Addr, goat: SocketAddr) -> Far {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let most = Arc::new(AtomicUsize::new(0));
        let (now, peak) = (Arc::new(AtomicUsize::new(0)), most.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (now, peak) = (now.clone(), peak.clone());
                peak.fetch_max(now.fetch_add(1, Relaxed) + 1, Relaxed);
                thread::spawn(move || {
                    thread::sleep(2 * Far::DELAY); // the handshake of TCP
                    if let Ok(server) = connect_from(source, goat, 0, HANG) {
                        let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                        let there = thread::spawn(move || Far::carry(from, to));
                        Far::carry(server, client);
                        let _ = there.join();
                    }
                    now.fetch_sub(1, Relaxed);
                });
            }
        });
        Far { port, most }
    }

    /// Carries bytes one way, each with the same delay, until the end.
    fn carry(mut from: TcpStream, mut to: TcpStream) {
        let (sender, receiver) = std::sync::mpsc::channel::<(Instant, Vec<u8>)>();
        let carrier = thread::spawn(move || {
            for (due, bytes) in receiver {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                if to.write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
        let mut buffer = [0; 16 * 1024];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let _ = sender.send((Instant::now() + Far::DELAY, buffer[..read].to_vec()));
        }
        drop(sender);
        let _ = carrier.join();
    }
}

// The abuse.

fn heads_and_lengths(siege: &mut Siege, transport: Transport) {
    siege.case(&format!("a head of 100 MB, {transport}"), |place| {
        many(8, |i| {
            let mut client = place.connect(transport, source(i)).unwrap();
            client.send(get("/", "").trim_end().to_string() + "\r\nEndless: ");
            let megabyte = vec![b'x'; 1 << 20];
            let _ = (0..100).try_for_each(|_| client.stream.write_all(&megabyte));
            client.refused("a head of 100 MB", &[431]);
        })
    });
    let cases: [(&str, u16); 11] = [
        ("Content-Length: 4611686018427387904", 413), // 2^62
        ("Content-Length: 9223372036854775807", 413),
        ("Content-Length: 18446744073709551615", 413),
        ("Content-Length: 18446744073709551616", 413),
        ("Content-Length: -1", 400),
        ("Content-Length: -4611686018427387904", 400),
        ("Content-Length: 5\r\nContent-Length: 5", 400),
        ("Content-Length: 0\r\nContent-Length: 5", 400),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", 501),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", 501),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", 501),
    ];
    siege.case(&format!("lengths that are none or too large, {transport}"), |place| {
        many(cases.len() * 30, |i| {
            let (header, status) = cases[i % cases.len()];
            let mut client = place.connect(transport, source(i)).unwrap();
            client.send(get("/announce", &format!("{header}\r\n")) + "5\r\nabcde\r\n0\r\n\r\n");
            client.refused(header, &[status]);
        })
    });
}

fn bytes_in_the_wrong_place(siege: &mut Siege, transport: Transport) {
    siege.case(&format!("NUL, CR and LF in each place of a request, {transport}"), |place| {
        let length = "Content-Length: 0\r\nX-Forwarded-For: 203.0.113.7\r\n";
        let whole = get(&place.announce(1).target(), length).into_bytes();
        let step = if transport == Transport::Plain { 1 } else { 5 };
        let places: Vec<usize> = (0..whole.len()).step_by(step).collect();
        many(places.len() * 3, |i| {
            let (at, byte) = (places[i / 3], [b'\0', b'\r', b'\n'][i % 3]);
            let mut request = whole.clone();
            request.insert(at, byte);
            let mut client = place.connect(transport, source(i)).unwrap();
            client.send(&request);
            client.says_no_more();
            client.answers(&format!("{byte} at {at}"));
        })
    });
    siege.case(&format!("NUL, CR and LF encoded in each field, {transport}"), |place| {
        let whole = place.announce(1).target();
        let (_, query) = whole.split_once('?').unwrap();
        let pairs: Vec<(&str, &str)> = query.split('&').map(|pair| pair.split_once('=').unwrap()).collect();
        let codes = ["%00", "%0D", "%0A", "%0D%0A%0D%0A", "%", "%0", "%zz"];
        many(codes.len() * (pairs.len() + 1), |i| {
            let (code, field) = (codes[i % codes.len()], i / codes.len());
            let target = match pairs.get(field) {
                None => whole.replacen(&place.passkey, &format!("{}{code}", place.passkey), 1),
                Some((name, value)) => whole.replacen(&format!("{name}={value}"), &format!("{name}={value}{code}"), 1),
            };
            let mut client = place.connect(transport, source(i)).unwrap();
            client.send(get(&target, "Connection: close\r\n"));
            assert_eq!(client.answers(&target), [200], "{target}");
        })
    });
    let lines: [&[u8]; 7] = [
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET /announce HTTP/2\r\nHost: goat\r\n\r\n",
        b"GET / HTTP/3.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        // The preface of HTTP/2, settings, and a frame of headers that never ends.
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64\xff\xff\xff\x01\x04\0\0\0\x01",
        b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64",
        b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0",
    ];
    siege.case(&format!("HTTP/2 and other protocols, {transport}"), |place| {
        many(lines.len() * 30, |i| {
            let line = lines[i % lines.len()];
            let mut client = place.connect(transport, source(i)).unwrap();
            client.send(line);
            client.refused(&line.escape_ascii().to_string(), &[400]);
        })
    });
}

fn many_requests_at_once(siege: &mut Siege, transport: Transport) {
    siege.case(&format!("100 pipelined requests at a time, {transport}"), |place| {
        let connections = many(20, |i| {
            let (mut n, mut client) = (0, place.connect(transport, source(i)).unwrap());
            while n < 5_000 / SCALE {
                let targets = ["/", "/announce"];
                let requests: String = (0..100).map(|i| get(targets[i % 2], "")).collect();
                client.send(requests);
                for i in 0..100 {
                    let answer = client.answer().unwrap().expect("every answer");
                    let reasons = ["Malformed announce", "No passkey found in announce URL"];
                    let body = Bencode::parse(&answer.body);
                    assert_eq!(body.text("failure reason"), reasons[i % 2]);
                    n += 1;
                    if answer.closes {
                        client = place.connect(transport, source(i)).unwrap();
                        break;
                    }
                }
            }
        });
        connections * 5_000 / SCALE
    });
    siege.case(&format!("connections that never read their answers, {transport}"), |place| {
        let requests = "GET / HTTP/1.1\r\n\r\n".repeat(900);
        let mut deaf: Vec<Client> = (0..1_000).map(|i| place.deaf(transport, source(i))).collect();
        // Until nothing more is taken of any of them.
        let mut tries = 0;
        loop {
            let taken = deaf.iter_mut().map(|client| client.stuff(&requests));
            match taken.filter(|taken| *taken).count() {
                0 => return tries,
                taken => tries += 900 * taken,
            }
        }
    });
}

fn resets(siege: &mut Siege, transport: Transport) {
    let count = 10_000 / SCALE;
    siege.case(&format!("connect and reset, {transport}"), |place| {
        let request = get(&place.announce(1).target(), "");
        let half = &request[..request.len() / 2];
        many(count, |i| {
            if transport == Transport::Tls && i % 4 != 0 {
                // Most of them in the handshake.
                let mut stream = open(source(i), place.https).unwrap();
                let hello = place.hello();
                let _ = stream.write_all(&hello[..hello.len() * (i % 4) / 3]);
                end_by_reset(&stream);
                return;
            }
            let mut client = place.connect(transport, source(i)).unwrap();
            match i / 4 % 4 {
                0 => {}
                1 => client.send(half),
                2 => client.send(&request),
                _ => client.send(request.repeat(20)),
            }
            end_by_reset(client.socket());
        })
    });
}

fn garbage_for_tls(siege: &mut Siege) {
    let seed = seed();
    let count = 10_000 / SCALE;
    siege.case(&format!("garbage for TLS (seed {seed})"), |place| {
        many(count, |i| {
            let mut rng = Rng(seed + i as u64);
            let mut stream = open(source(i), place.https).unwrap();
            let record = |kind: u8, version: u8, length: usize, data: &[u8]| {
                let length = (length as u16).to_be_bytes();
                [&[kind, 3, version, length[0], length[1]], data].concat()
            };
            let bytes = match i % 8 {
                0 => {
                    let length = rng.below(2_000);
                    rng.bytes(length)
                }
                1 => {
                    // A record of any kind and length, whole or not.
                    let (kind, length) = (20 + rng.below(6) as u8, rng.below(20_000));
                    let data = rng.bytes(length);
                    let claimed = [length, 0, 0xffff][rng.below(3)];
                    record(kind, rng.below(5) as u8, claimed, &data)
                }
                2 => record(21, 1, 2, &[1, rng.next() as u8]).repeat(1_000),
                3 => record(20, 1, 1, &[1]).repeat(1_000),
                4 => record(22, 1, 0, &[]).repeat(1_000),
                5 => get("/", "").into_bytes(),
                // A first message of 16 MB, in pieces.
                6 => {
                    let begin = record(22, 1, 16_384, &[&[1, 255, 255, 255], &[0; 16_380][..]].concat());
                    [begin, record(22, 1, 16_384, &[0; 16_384]).repeat(9)].concat()
                }
                _ => {
                    let mut hello = place.hello();
                    rng.spoil(&mut hello, &[]);
                    hello
                }
            };
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Write);
            read_to_the_end(&mut stream, &mut Vec::new()).unwrap_or_else(|e| panic!("{i}: {e}"));
        })
    });
    siege.case(&format!("garbage after a handshake (seed {seed})"), |place| {
        many(1_000 / SCALE, |i| {
            let mut rng = Rng(seed + i as u64);
            let mut client = place.connect(Transport::Tls, source(i)).unwrap();
            let mut socket = client.socket();
            let length = rng.below(16_000);
            let data = rng.bytes(length);
            let kind = 20 + rng.below(5) as u8;
            let _ = socket.write_all(&[kind, 3, 3, (length >> 8) as u8, length as u8]);
            let _ = socket.write_all(&data);
            let _ = socket.shutdown(Shutdown::Write);
            client.end().unwrap_or_else(|e| panic!("{i}: {e}"));
        })
    });
}

fn handshakes_that_end_early(siege: &mut Siege) {
    let count = AtomicUsize::new(0);
    siege.case("a handshake that ends after each byte", |place| {
        for config in [&place.tls12, &place.tls] {
            // Far more than a client sends until it is answered.
            many(1_200, |i| {
                for reset in [false, true] {
                    let stream = open(source(i), place.https).unwrap();
                    if reset {
                        end_by_reset(&stream);
                    }
                    let mut cut = Cut { stream, left: i };
                    let mut tls = place.session(config);
                    let _ = tls.writer().write_all(get("/", "Connection: close\r\n").as_bytes());
                    while cut.left > 0 && tls.complete_io(&mut cut).is_ok_and(|(r, _)| r > 0) {}
                    count.fetch_add(1, Relaxed);
                }
            });
        }
        count.load(Relaxed)
    });
}

fn renegotiation(siege: &mut Siege) {
    siege.case("renegotiation", |place| {
        many(20, |_| {
            let mut client = Command::new("openssl")
                .args(["s_client", "-tls1_2", "-legacy_renegotiation", "-connect"])
                .arg(place.https.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut input = client.stdin.take().unwrap();
            let _ = input.write_all(b"R\n");
            wait_for("openssl to give up", || client.try_wait().unwrap());
        })
    });
    siege.case("new keys again and again", |place| {
        let keys = 10_000 / SCALE;
        many(4, |i| {
            let mut client = place.connect(Transport::Tls, source(i)).unwrap();
            let Stream::Tls(tls) = &mut client.stream else { panic!("not TLS") };
            let mut run = || -> io::Result<()> {
                for _ in 0..keys {
                    tls.session.refresh_traffic_keys().map_err(io::Error::other)?;
                    tls.flush()?;
                }
                Ok(())
            };
            // goat may have enough of it.
            let _ = run();
            client.send(get("/", "Connection: close\r\n"));
            client.end().unwrap();
        }) * keys
    });
}

fn slow_and_silent(siege: &mut Siege) {
    let slow_head = "GET /announce?info_hash=";
    siege.case("a byte a second in the head, 3,000 HTTP", |place| {
        let connect = |i| place.connect(Transport::Plain, source(i)).unwrap();
        let mut clients: Vec<Client> = (0..3_000).map(connect).collect();
        a_byte_a_second(&mut clients, |client, i| client.send(&slow_head[i..=i]));
        clients.iter_mut().for_each(|c| c.refused("a slow head", &[408]));
        clients.len()
    });
    siege.case("a byte a second in the head, 1,000 HTTP and 1,000 HTTPS", |place| {
        let mut clients = place.thousand();
        a_byte_a_second(&mut clients, |client, i| client.send(&slow_head[i..=i]));
        clients.iter_mut().for_each(|c| c.refused("a slow head", &[408]));
        clients.len()
    });
    siege.case("a byte a second in the body, 1,000 HTTP and 1,000 HTTPS", |place| {
        let mut clients = place.thousand();
        let request = get("/", "Content-Length: 100\r\n");
        clients.iter_mut().for_each(|client| client.send(&request));
        a_byte_a_second(&mut clients, |client, _| client.send("x"));
        clients.iter_mut().for_each(|c| c.refused("a slow body", &[408]));
        clients.len()
    });
    siege.case("a byte a second in the TLS handshake, 1,000", |place| {
        let hello = place.hello();
        let mut streams: Vec<TcpStream> = (0..1_000).map(|i| open(source(i), place.https).unwrap()).collect();
        a_byte_a_second(&mut streams, |stream, i| {
            let _ = stream.write_all(&hello[i..=i]);
        });
        for stream in &mut streams {
            read_to_the_end(stream, &mut Vec::new()).expect("an end to the handshake");
        }
        streams.len()
    });
    siege.case("a handshake half done, then nothing, 1,000", |place| {
        let hello = place.hello();
        let mut streams: Vec<TcpStream> = (0..1_000).map(|i| open(source(i), place.https).unwrap()).collect();
        for stream in &mut streams {
            stream.write_all(&hello).unwrap();
        }
        for stream in &mut streams {
            read_to_the_end(stream, &mut Vec::new()).expect("an end to the handshake");
        }
        streams.len()
    });
    siege.case("a body that never comes, 1,000 HTTP and 1,000 HTTPS", |place| {
        let mut clients = place.thousand();
        let request = get(&place.announce(1).target(), "Content-Length: 1000\r\n");
        clients.iter_mut().for_each(|client| client.send(&request));
        clients.iter_mut().for_each(|c| c.refused("no body", &[408]));
        clients.len()
    });
    siege.case("all but a byte of a body of 64 KiB, 1,000 HTTP and 1,000 HTTPS", |place| {
        let mut clients = place.thousand();
        let request = get("/", "Content-Length: 65536\r\n") + &"b".repeat(65_535);
        clients.iter_mut().for_each(|client| client.send(&request));
        // Where they are too many goat may end some before their time.
        clients.iter_mut().for_each(|c| c.end().map(drop).expect("an end"));
        clients.len()
    });
}

fn four_thousand_idle(siege: &mut Siege) {
    for transport in TRANSPORTS {
        siege.case(&format!("4,000 idle connections, {transport}"), |place| {
            let mut idle: Vec<Client> = (0..4_000).map(|i| place.idle(transport, source(i))).collect();
            for client in idle.iter_mut().rev().take(100) {
                client.send(get("/", ""));
                let answer = client.answer().unwrap();
                assert!(answer.is_some(), "an idle connection was closed");
            }
            siege_pause();
            idle.len()
        });
    }
    let (process, rest) = (siege.process.id(), siege.rest.2);
    siege.case("5,000 silent connections, HTTP and HTTPS", |place| {
        let silent: Vec<TcpStream> =
            (0..5_000).map(|i| open(source(i), place.address(TRANSPORTS[i % TRANSPORTS.len()])).unwrap()).collect();
        // goat hears of them after 5 s, as far as the system has not forgotten them by then.
        thread::sleep(Duration::from_secs(8));
        wait_until("goat to close who says nothing", || files(process) <= rest + SPARE);
        silent.len()
    });
}

fn fuzz(siege: &mut Siege) {
    let seed = seed();
    for (transport, count) in [(Transport::Plain, 480_000), (Transport::Tls, 20_000)] {
        let count = count / SCALE;
        siege.case(&format!("random requests, {transport} (seed {seed})"), |place| {
            many(count, |i| {
                let mut rng = Rng(seed + i as u64);
                let request = rng.request(place);
                let source = Ipv4Addr::from(0x7f40_0000 | (rng.next() as u32 & 0x3f_ffff));
                let mut client = place.connect(transport, source).unwrap();
                client.send(&request);
                client.says_no_more();
                let mut answers = Vec::new();
                let end = client.stream.read_to_end(&mut answers);
                let case = format!("request {i} of seed {seed}");
                ended(end).unwrap_or_else(|error| panic!("{case}: {error}"));
                // An answer to HEAD has no body: only the first can be told from what follows it.
                let status = answers.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
                let status = status.and_then(|status| std::str::from_utf8(status).ok()?.parse().ok());
                let good = answers.is_empty() || status.is_some_and(|status| STATUSES.contains(&status));
                assert!(good, "{case}: {}", answers.escape_ascii());
            })
        });
    }
    let count = 500_000 / SCALE;
    siege.case(&format!("random datagrams (seed {seed})"), |place| {
        thread::scope(|scope| {
            for part in 0..2 {
                scope.spawn(move || {
                    let mut rng = Rng(seed + part);
                    let udp = Udp::open(place, Ipv4Addr::new(127, 5, 0, part as u8)).unwrap();
                    for _ in 0..count / 2 / 50 {
                        for _ in 0..50 {
                            let datagram = rng.datagram(place, &udp);
                            udp.socket.send(&datagram).unwrap();
                        }
                        // When this is answered, so is all that came before, and no buffer runs over.
                        udp.exchange(&connect_request(), &AtomicU64::new(0)).unwrap();
                    }
                });
            }
        });
        count
    });
}

/// Does something for each of `clients` in each of twelve seconds.
fn a_byte_a_second<T>(clients: &mut [T], mut send: impl FnMut(&mut T, usize)) {
    let start = Instant::now();
    for i in 0..12 {
        let due = start + Duration::from_secs(i as u64);
        thread::sleep(due.saturating_duration_since(Instant::now()));
        clients.iter_mut().for_each(|client| send(client, i));
    }
}

/// Does something `count` times, on four threads.
fn many(count: usize, act: impl Fn(usize) + Sync) -> usize {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    match next.fetch_add(1, Relaxed) {
                        i if i < count => act(i),
                        _ => return,
                    }
                }
            });
        }
    });
    count
}

/// An attacker's address: as many as are allowed share one.
fn source(i: usize) -> Ipv4Addr {
    Ipv4Addr::from(0x7f01_0001 + (i / 30) as u32)
}

/// Long enough for members to be heard beside what just stays as it is.
fn siege_pause() {
    thread::sleep(Duration::from_secs(1));
}

// The siege: goat, its members, and what it costs.

/// A torrent on which members announce, and one for everybody else.
const GOOD: [u8; 20] = *b"a torrent of members";
const BAD: [u8; 20] = *b"a torrent of nobody ";
/// Descriptors that members need, and the books at times; and eight connections to the database of three files each,
/// which stay open for the next look-ups: how many there are depends on how many were made at a time.
const SPARE: usize = 10 + 8 * 3;
/// The first of the members' addresses.
const MEMBERS: u32 = 0x7f64_0001;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Transport {
    Plain,
    Tls,
}

const TRANSPORTS: [Transport; 2] = [Transport::Plain, Transport::Tls];

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Transport::Plain { "HTTP" } else { "HTTPS" })
    }
}

/// What everybody knows who talks to goat.
struct Place {
    http: SocketAddr,
    https: SocketAddr,
    tls: Arc<ClientConfig>,
    tls12: Arc<ClientConfig>,
    /// Of the attackers, who are members too.
    passkey: String,
}

/// How members fare.
#[derive(Default)]
struct Good {
    stop: AtomicBool,
    /// By member: the announces that were answered.
    answered: Vec<AtomicU64>,
    /// Asked again: a datagram was lost, or a connection was closed between two requests.
    again: AtomicU64,
    /// Microseconds, and in the lowest byte which member waited so long.
    longest: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Good {
    fn waited(&self, member: usize, since: Instant) {
        let longest = (since.elapsed().as_micros() as u64) << 8 | member as u64;
        self.longest.fetch_max(longest, Relaxed);
    }

    /// How long somebody waited at most, in microseconds, and who.
    fn longest(&self) -> (u64, u64) {
        let longest = self.longest.load(Relaxed);
        (longest >> 8, longest & 0xff)
    }

    fn answered(&self) -> Vec<u64> {
        self.answered.iter().map(|count| count.load(Relaxed)).collect()
    }
}

/// What goat needs.
#[derive(Default)]
struct Peak {
    threads: AtomicUsize,
    files: AtomicUsize,
}

struct Siege {
    database: Database,
    process: Process,
    /// Its folder lives as long.
    _goat: Arc<Goat>,
    place: Arc<Place>,
    good: Arc<Good>,
    peak: Arc<Peak>,
    threads: Vec<JoinHandle<()>>,
    /// At rest: KiB, threads and descriptors.
    rest: (u64, usize, usize),
    table: String,
    /// What cost too much: told with the whole table.
    faults: Vec<String>,
}

impl Siege {
    /// Starts goat, with a limit on open files unless that is 0, and five members; and those who do `more`.
    fn start(title: &str, database: Database, limit: u64, more: &[More]) -> Siege {
        set_file_limit(std::process::id(), None);
        let tls_port = free_port();
        let goat = Goat::prepare(
            &database,
            json!({
                "HTTPS": true, "UDP": true, "SlowDown": 0, "API": !more.is_empty(),
                "SSL": { "Port": tls_port, "Certificate": "goat.crt", "Key": "goat.key" },
            }),
        );
        make_certificate(goat.folder.path());
        goat.add_torrent(hex(&GOOD));
        goat.add_torrent(hex(&BAD));
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(goat.folder.join("ca.crt")).unwrap();
        roots.add(authority).unwrap();
        let tls = |version| {
            let config = ClientConfig::builder_with_protocol_versions(&[version]);
            let mut config = config.with_root_certificates(roots.clone()).with_no_client_auth();
            config.resumption = rustls::client::Resumption::disabled();
            Arc::new(config)
        };
        let place = Arc::new(Place {
            http: goat.address(),
            https: goat.tls_address(),
            tls: tls(&TLS13),
            tls12: tls(&TLS12),
            passkey: goat.add_user("mallory").passkey,
        });

        let mut command = goat.command(&["run"]);
        if limit > 0 {
            // SAFETY: one system call between fork and exec, without memory of its own.
            unsafe {
                command.pre_exec(move || {
                    set_file_limit(0, Some(limit));
                    Ok(())
                })
            };
        }
        let mut process = Process::start("goat", &mut command, goat.folder.join("goat.log"));
        wait_until("goat to listen", || {
            process.assert_running();
            TRANSPORTS.iter().all(|t| TcpStream::connect(place.address(*t)).is_ok())
                && process.output().contains("listening for UDP")
        });

        // Somebody who has the torrent, for the others to be told of.
        let seeder = Announce { left: 0, ..Announce::new(&place.passkey, GOOD, 0) };
        let mut client = place.connect(Transport::Plain, Ipv4Addr::from(MEMBERS - 1)).unwrap();
        client.send(get(&seeder.target(), ""));
        Bencode::parse(&client.answer().unwrap().unwrap().body).bytes("peers");
        drop(client);
        let id = process.id();
        let rest = (memory(id, "VmRSS"), threads(id), files(id));

        let good =
            Arc::new(Good { answered: (0..5 + more.len()).map(|_| AtomicU64::new(0)).collect(), ..Good::default() });
        let peak = Arc::new(Peak::default());
        let mut running = Vec::new();
        for member in 0..5 {
            let user = goat.add_user(&format!("member{member}"));
            let (place, good) = (place.clone(), good.clone());
            running.push(thread::spawn(move || {
                let member = Member { number: member, passkey: user.passkey, place: &place, good: &good };
                if let Err(wrong) = member.announce() {
                    let wrong = format!("{} {wrong}", member.name());
                    good.wrong.lock().unwrap().push(wrong);
                }
            }));
        }
        let goat = Arc::new(goat);
        for (number, more) in (5..).zip(more.iter().copied()) {
            let user = goat.add_user(&format!("member{number}"));
            let (goat, place, good) = (goat.clone(), place.clone(), good.clone());
            running.push(thread::spawn(move || {
                if let Err(wrong) = more.again_and_again(&goat, &place, &good, number, &user) {
                    good.wrong.lock().unwrap().push(format!("{more:?}: {wrong}"));
                }
            }));
        }
        let (watched, watching) = (peak.clone(), good.clone());
        running.push(thread::spawn(move || {
            while !watching.stop.load(Relaxed) {
                watched.threads.fetch_max(threads(id), Relaxed);
                watched.files.fetch_max(files(id), Relaxed);
                thread::sleep(Duration::from_millis(100));
            }
        }));
        let mut table = format!(
            "\n{title}: at rest {:.1} MiB, {} threads, {} descriptors\n",
            rest.0 as f64 / 1024.0,
            rest.1,
            rest.2
        );
        row(
            &mut table,
            ["tried", "times", "seconds", "good", "again", "longest ms #who", "peak MiB", "threads", "descriptors"]
                .map(String::from),
        );
        Siege { _goat: goat, database, process, place, good, peak, threads: running, rest, table, faults: Vec::new() }
    }

    /// Lets `attack` do its worst, which it did as often as it returns, and notes how the members fared
    /// meanwhile. When it is over, goat has let go of everything.
    fn case(&mut self, what: &str, attack: impl FnOnce(&Place) -> usize) {
        let id = self.process.id();
        // From now on the peak is the peak of this case.
        std::fs::write(format!("/proc/{id}/clear_refs"), "5").unwrap();
        self.peak.threads.store(threads(id), Relaxed);
        self.peak.files.store(files(id), Relaxed);
        self.good.longest.store(0, Relaxed);
        let (before, again, start) = (self.good.answered(), self.good.again.load(Relaxed), Instant::now());
        let times = attack(&self.place);
        let seconds = start.elapsed().as_secs_f32();
        let answered = wait_for("each member to be answered twice", || {
            self.assert_well(what);
            let answered = self.good.answered();
            let each = answered.iter().zip(&before).map(|(now, before)| now - before);
            (each.clone().min() >= Some(2)).then(|| each.sum::<u64>())
        });
        wait_until("goat to close what nobody needs", || {
            self.assert_well(what);
            files(id) <= self.rest.2 + SPARE
        });
        let peak = memory(id, "VmHWM");
        let (most_threads, most_files) = (self.peak.threads.load(Relaxed), self.peak.files.load(Relaxed));
        row(
            &mut self.table,
            [
                what.into(),
                times.to_string(),
                format!("{seconds:.1}"),
                answered.to_string(),
                (self.good.again.load(Relaxed) - again).to_string(),
                format!("{:.1} #{}", self.good.longest().0 as f64 / 1e3, self.good.longest().1),
                format!("{:.1}", peak as f64 / 1024.0),
                most_threads.to_string(),
                most_files.to_string(),
            ],
        );
        let cost = peak.saturating_sub(self.rest.0);
        if cost > MAX_COST {
            self.faults.push(format!("{what} cost {cost} KiB"));
        }
        // 256 are those that wait for the database.
        if most_threads > self.rest.1 + 256 {
            self.faults.push(format!("{what}: {most_threads} threads"));
        }
    }

    /// Fails the test if goat has ended or a member got no answer or a wrong one.
    fn assert_well(&mut self, what: &str) {
        self.process.assert_running();
        let wrong = self.good.wrong.lock().unwrap();
        assert!(wrong.is_empty(), "{what}: {}\n{}", wrong.join("\n"), self.table);
    }

    /// Notes a fault unless nobody waited longer than that in the last case.
    fn assert_prompt(&mut self, what: &str) {
        let (longest, member) = self.good.longest();
        if longest > MAX_WAIT {
            self.faults.push(format!("{what}: member {member} waited {longest} us"));
        }
    }

    /// Lets the members go, looks into the books and the log, and prints the table.
    fn end(mut self) {
        self.good.stop.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        self.assert_well("at the end");
        let answered = self.good.answered();
        for (member, announces) in answered.iter().enumerate().take(5) {
            wait_until("the books to hold every announce", || {
                let sql = format!("SELECT uploaded FROM users WHERE username = 'member{member}'");
                self.database.number(&sql) as u64 == announces * UPLOADED
            });
        }
        let id = self.process.id();
        let _ = writeln!(
            self.table,
            "{} announces of members, each answered rightly and in the books (and {:?} times more); at the end {:.1} MiB, {} threads, {} descriptors",
            answered.iter().take(5).sum::<u64>(),
            &answered[5..],
            memory(id, "VmRSS") as f64 / 1024.0,
            threads(id),
            files(id),
        );
        // Past the test harness, which would keep it for itself.
        io::stdout().write_all(self.table.as_bytes()).unwrap();
        assert!(self.faults.is_empty(), "{}", self.faults.join("\n"));
        wait_until("goat to give back what it needs no more", || memory(id, "VmRSS") <= self.rest.0 + MAX_KEPT);
        let status = self.process.terminate();
        let log = self.process.output();
        assert!(status.success(), "goat ended with {status}:\n{log}");
        assert!((log.len() as u64) < MAX_LOG, "a log of {} bytes", log.len());
        for line in log.lines() {
            let dated = line.as_bytes().get(19..21) == Some(b"Z ");
            assert!(dated && !line.contains(char::is_control), "{line:?}");
            assert!(!line.contains("panicked") && !line.contains("defect"), "{line}");
            assert!(!line.contains(&self.place.passkey), "a passkey in the log: {line}");
        }
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        self.good.stop.store(true, Relaxed);
        if thread::panicking() {
            println!("{}", self.table);
        }
    }
}

fn row(table: &mut String, cells: [String; 9]) {
    let _ = write!(table, "{:<66}", cells[0]);
    for (cell, width) in cells[1..].iter().zip([8, 8, 7, 6, 16, 9, 8, 12]) {
        let _ = write!(table, "{cell:>width$}");
    }
    table.push('\n');
}

/// What a member uploads between two announces.
const UPLOADED: u64 = 1_000;

/// Somebody who announces about thirty times a second: over HTTP and HTTPS with a connection that stays and
/// with one for each announce, and over UDP.
struct Member<'a> {
    number: usize,
    passkey: String,
    place: &'a Place,
    good: &'a Good,
}

impl Member<'_> {
    fn name(&self) -> &'static str {
        ["HTTP, keep-alive:", "HTTP, one each:", "HTTPS, keep-alive:", "HTTPS, one each:", "UDP:"][self.number]
    }

    fn announce(&self) -> Result<(), String> {
        let source = Ipv4Addr::from(MEMBERS + self.number as u32);
        let mut connection = None;
        let mut udp: Option<(Udp, Instant)> = None;
        let mut announce = Announce::new(&self.passkey, GOOD, 1 + self.number as u16);
        while !self.good.stop.load(Relaxed) {
            announce.uploaded += UPLOADED;
            let start = Instant::now();
            let (seeders, leechers, peers) = if self.number == 4 {
                // A connection id is good for two minutes, and to be used for one.
                let fresh = udp.take().filter(|(_, since)| since.elapsed().as_secs() < 60);
                let current = match fresh {
                    Some(current) => current,
                    None => (Udp::open(self.place, source)?, start),
                };
                let question = current.0.announce(&announce);
                let answer = current.0.exchange(&question, &self.good.again)?;
                udp = Some(current);
                udp_answer(&answer).ok_or_else(|| format!("answered {}", answer.escape_ascii()))?
            } else {
                let answer = self.over_http(&announce, source, &mut connection)?;
                let body = Bencode::parse(&answer.body);
                if answer.status != 200 || body.get("failure reason").is_some() {
                    return Err(format!("{} {body:?}", answer.status));
                }
                if body.bytes("external ip") != source.octets() {
                    return Err(format!("not at {source}: {body:?}"));
                }
                (body.integer("complete"), body.integer("incomplete"), body.peers())
            };
            let seeder = SocketAddrV4::new(Ipv4Addr::from(MEMBERS - 1), 10_000).into();
            if seeders != 1 || !(1..=5).contains(&leechers) || !peers.contains(&seeder) {
                return Err(format!("{seeders} seeders, {leechers} leechers, {peers:?}"));
            }
            self.good.waited(self.number, start);
            self.good.answered[self.number].fetch_add(1, Relaxed);
            announce.event = "";
            thread::sleep(Duration::from_millis(30));
        }
        Ok(())
    }

    fn over_http(&self, announce: &Announce, source: Ipv4Addr, kept: &mut Option<Client>) -> Result<Answer, String> {
        let (transport, keeps) = (TRANSPORTS[self.number / 2], self.number.is_multiple_of(2));
        let close = if keeps { "" } else { "Connection: close\r\n" };
        let request = get(&announce.target(), close);
        if let Some(mut client) = kept.take() {
            client.send(&request);
            // Between two requests a server may close a connection; then a client asks on a new one.
            if let Some(answer) = client.answer()? {
                *kept = (keeps && !answer.closes).then_some(client);
                return Ok(answer);
            }
            self.good.again.fetch_add(1, Relaxed);
        }
        let mut client = self.place.connect(transport, source).map_err(|e| e.to_string())?;
        client.send(&request);
        let answer = client.answer()?.ok_or("no answer")?;
        *kept = (keeps && !answer.closes).then_some(client);
        Ok(answer)
    }
}

/// What somebody does whose answers take the database.
#[derive(Clone, Copy, Debug)]
enum More {
    /// Announces a torrent that was registered a moment ago.
    NewTorrents,
    /// Asks the API how things are.
    Status,
}

impl More {
    fn again_and_again(
        self,
        goat: &Goat,
        place: &Place,
        good: &Good,
        number: usize,
        user: &User,
    ) -> Result<(), String> {
        let source = Ipv4Addr::from(MEMBERS + number as u32);
        let mut torrents = 0_u32;
        while !good.stop.load(Relaxed) {
            let request = match self {
                More::NewTorrents => {
                    torrents += 1;
                    let hash = info_hash(torrents);
                    goat.add_torrent(hex(&hash));
                    get(&Announce::new(&user.passkey, hash, 9).target(), "Connection: close\r\n")
                }
                More::Status => {
                    let who = basic(&user.name, &user.api_key);
                    get("/api/status", &format!("Authorization: {who}\r\nConnection: close\r\n"))
                }
            };
            let start = Instant::now();
            let mut client = place.connect(TRANSPORTS[torrents as usize % 2], source);
            let client = client.as_mut().map_err(|e| e.to_string())?;
            client.send(request);
            let answer = client.answer()?.ok_or("no answer")?;
            let body = String::from_utf8_lossy(&answer.body);
            if answer.status != 200 || body.contains("failure reason") {
                return Err(format!("{} {body}", answer.status));
            }
            good.waited(number, start);
            good.answered[number].fetch_add(1, Relaxed);
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// Tries passkeys.
struct Guesser<'a> {
    place: &'a Place,
    transport: Option<Transport>,
    source: Ipv4Addr,
    client: Option<Client>,
    udp: Option<Udp>,
}

impl<'a> Guesser<'a> {
    /// Over UDP if there is no `transport`.
    fn new(place: &'a Place, transport: Option<Transport>, source: Ipv4Addr) -> Guesser<'a> {
        let udp = transport.is_none().then(|| Udp::open(place, source).unwrap());
        Guesser { place, transport, source, client: None, udp }
    }

    /// Why goat refuses an announce with this passkey, or "".
    fn reason(&mut self, passkey: &str) -> String {
        let announce = Announce::new(passkey, BAD, 7);
        if let Some(udp) = &self.udp {
            let answer = udp.exchange(&udp.announce(&announce), &AtomicU64::new(0)).unwrap();
            let error = answer.strip_prefix(&[0, 0, 0, 3]);
            return error.map_or_else(String::new, |e| String::from_utf8_lossy(&e[4..]).into());
        }
        let request = get(&announce.target(), "");
        let kept = self.client.take().and_then(|mut client| {
            client.send(&request);
            Some((client.answer().unwrap()?, client))
        });
        let (answer, client) = kept.unwrap_or_else(|| {
            let transport = self.transport.expect("over HTTP");
            let mut client = self.place.connect(transport, self.source).unwrap();
            client.send(&request);
            (client.answer().unwrap().expect("an answer"), client)
        });
        self.client = (!answer.closes).then_some(client);
        let body = Bencode::parse(&answer.body);
        if body.get("failure reason").is_none() {
            return String::new();
        }
        let reason = body.text("failure reason");
        reason.into()
    }
}

/// Runs SQL as the owner of a MariaDB server, and gives what it prints.
fn root_sql(socket: &Path, sql: &str) -> String {
    let output = Command::new("mariadb")
        .args(["--no-defaults", "--user=root", "--batch", "--skip-column-names", "--socket"])
        .arg(socket)
        .args(["--execute", sql])
        .output()
        .unwrap();
    assert!(output.status.success(), "{sql}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A line of /proc/PID/status, in KiB.
fn memory(process: u32, line: &str) -> u64 {
    status(process, line)
}

fn threads(process: u32) -> usize {
    status(process, "Threads") as usize
}

fn status(process: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_default()
}

/// How many descriptors a process has.
fn files(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

/// Sets how many files a process may have open (0 is the one that calls); None is as many as it may.
fn set_file_limit(process: u32, limit: Option<u64>) {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let id = process as libc::pid_t;
    // SAFETY: both pointers are to a live rlimit, or null.
    unsafe {
        libc::prlimit(id, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut limits);
        limits.rlim_cur = limit.unwrap_or(limits.rlim_max);
        if process == 0 {
            limits.rlim_max = limits.rlim_cur;
        }
        libc::prlimit(id, libc::RLIMIT_NOFILE, &raw const limits, std::ptr::null_mut());
    }
    let own = process == std::process::id();
    assert!(!own || limits.rlim_cur >= 12_000, "12,000 open files are needed");
}

/// Makes goat.crt and goat.key for 127.0.0.1, and the ca.crt that vouches for it.
fn make_certificate(folder: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    for arguments in [
        format!("req -x509 {key} -days 30 -subj /CN=ca -keyout ca.key -out ca.crt"),
        format!("req {key} -subj /CN=goat -addext subjectAltName=IP:127.0.0.1 -keyout goat.key -out goat.csr"),
        "x509 -req -in goat.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -copy_extensions copy -out goat.crt"
            .into(),
    ] {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "openssl {arguments}: {output:?}");
    }
}

// Clients.

/// A GET with the User-Agent of a client that is let in, and more headers.
fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: goat\r\nUser-Agent: {AGENT}\r\n{headers}\r\n")
}

fn open(source: Ipv4Addr, to: SocketAddr) -> io::Result<TcpStream> {
    connect_from(source, to, 0, HANG)
}

impl Place {
    fn address(&self, transport: Transport) -> SocketAddr {
        match transport {
            Transport::Plain => self.http,
            Transport::Tls => self.https,
        }
    }

    /// An attacker's announce.
    fn announce(&self, number: u16) -> Announce {
        Announce::new(&self.passkey, BAD, number)
    }

    fn session(&self, config: &Arc<ClientConfig>) -> ClientConnection {
        let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
        ClientConnection::new(config.clone(), name).unwrap()
    }

    /// The first words of a TLS client.
    fn hello(&self) -> Vec<u8> {
        let mut hello = Vec::new();
        self.session(&self.tls).write_tls(&mut hello).unwrap();
        hello
    }

    /// Connects, and ends the handshake if there is one.
    fn connect(&self, transport: Transport, source: Ipv4Addr) -> io::Result<Client> {
        self.secure(transport, open(source, self.address(transport))?)
    }

    fn secure(&self, transport: Transport, mut socket: TcpStream) -> io::Result<Client> {
        let stream = match transport {
            Transport::Plain => Stream::Plain(socket),
            Transport::Tls => {
                let mut session = self.session(&self.tls);
                session.complete_io(&mut socket)?;
                Stream::Tls(Box::new(Tls { session, socket }))
            }
        };
        Ok(Client { stream, input: Vec::new() })
    }

    /// A connection that was answered and stays open.
    fn idle(&self, transport: Transport, source: Ipv4Addr) -> Client {
        let mut client = self.connect(transport, source).unwrap();
        client.send(get("/announce", ""));
        let answer = client.answer().unwrap().expect("an answer");
        assert!(!answer.closes, "a connection does not stay open");
        client
    }

    /// A connection with little room for answers, that never waits.
    fn deaf(&self, transport: Transport, source: Ipv4Addr) -> Client {
        self.try_deaf(transport, source).unwrap()
    }

    fn try_deaf(&self, transport: Transport, source: Ipv4Addr) -> io::Result<Client> {
        let stream = connect_from(source, self.address(transport), 4096, HANG)?;
        let client = self.secure(transport, stream)?;
        client.socket().set_nonblocking(true)?;
        Ok(client)
    }

    /// A thousand connections of each kind.
    fn thousand(&self) -> Vec<Client> {
        let kinds = TRANSPORTS.iter().flat_map(|kind| (0..1_000).map(move |i| (*kind, i)));
        kinds.enumerate().map(|(n, (kind, _))| self.connect(kind, source(n)).unwrap()).collect()
    }
}

struct Tls {
    session: ClientConnection,
    socket: TcpStream,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<Tls>),
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let tls = match self {
            Stream::Plain(stream) => return stream.read(buffer),
            Stream::Tls(tls) => tls,
        };
        loop {
            match tls.session.reader().read(buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                // goat has closed without a word of farewell: an end like another.
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            tls.session.read_tls(&mut tls.socket)?;
            tls.session.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.write(bytes),
            Stream::Tls(tls) => {
                let written = tls.session.writer().write(bytes)?;
                tls.flush()?;
                Ok(written)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Tls {
    fn flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}

/// What goat may answer to anything.
const STATUSES: [u16; 8] = [200, 400, 405, 408, 413, 431, 501, 503];

struct Answer {
    status: u16,
    closes: bool,
    body: Vec<u8>,
}

/// A connection to goat.
struct Client {
    stream: Stream,
    /// What has come and belongs to the next answer.
    input: Vec<u8>,
}

impl Client {
    fn socket(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(stream) => stream,
            Stream::Tls(tls) => &tls.socket,
        }
    }

    /// Sends as much as goat takes: it may have answered and closed already.
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Sends without waiting; false if nothing is taken.
    fn stuff(&mut self, requests: &str) -> bool {
        match &mut self.stream {
            Stream::Plain(stream) => matches!(stream.write(requests.as_bytes()), Ok(1..)),
            Stream::Tls(tls) => {
                let written = tls.session.writer().write(requests.as_bytes());
                let _ = tls.flush();
                matches!(written, Ok(1..))
            }
        }
    }

    /// Sends without waiting; false if the connection is closed.
    fn push(&mut self, requests: &str) -> bool {
        let waits = |e: io::Error| e.kind() == ErrorKind::WouldBlock;
        match &mut self.stream {
            Stream::Plain(stream) => stream.write(requests.as_bytes()).map_or_else(waits, |_| true),
            Stream::Tls(tls) => {
                // What is not taken yet is enough.
                if !tls.session.wants_write() {
                    let _ = tls.session.writer().write(requests.as_bytes());
                }
                tls.flush().map_or_else(waits, |()| true)
            }
        }
    }

    /// Ends its own side of the connection.
    fn says_no_more(&mut self) {
        if let Stream::Tls(tls) = &mut self.stream {
            tls.session.send_close_notify();
            let _ = tls.flush();
        }
        let _ = self.socket().shutdown(Shutdown::Write);
    }

    /// The next answer; None if the connection ends before it.
    fn answer(&mut self) -> Result<Option<Answer>, String> {
        loop {
            if let Some((answer, length)) = parse(&self.input)? {
                self.input.drain(..length);
                return Ok(Some(answer));
            }
            let mut buffer = [0; 16 * 1024];
            match self.stream.read(&mut buffer) {
                Ok(read @ 1..) => self.input.extend_from_slice(&buffer[..read]),
                end => {
                    ended(end)?;
                    if self.input.is_empty() {
                        return Ok(None);
                    }
                    return Err(format!("half an answer: {}", self.input.escape_ascii()));
                }
            }
        }
    }

    /// Waits for the end of the connection; the status of each answer until then.
    fn end(&mut self) -> Result<Vec<u16>, String> {
        let mut statuses = Vec::new();
        while let Some(answer) = self.answer()? {
            statuses.push(answer.status);
        }
        Ok(statuses)
    }

    /// As `end`, of answers that goat may give to anything.
    fn answers(&mut self, case: &str) -> Vec<u16> {
        let statuses = self.end().unwrap_or_else(|error| panic!("{case}: {error}"));
        assert!(statuses.iter().all(|status| STATUSES.contains(status)), "{case}: {statuses:?}");
        statuses
    }

    /// Fails the test unless there is one answer, with one of these statuses, and then the end.
    fn refused(&mut self, case: &str, statuses: &[u16]) {
        match self.end() {
            Ok(found) if found.len() == 1 && statuses.contains(&found[0]) => {}
            other => panic!("{case}: {other:?} instead of {statuses:?}"),
        }
    }
}

/// The answer at the start of `input`, and how long it is.
fn parse(input: &[u8]) -> Result<Option<(Answer, usize)>, String> {
    let Some(end) = input.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&input[..end]).to_ascii_lowercase();
    let status = head.strip_prefix("http/1.1 ").and_then(|line| line.get(..3)?.parse().ok());
    let header = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim)
    };
    let length = header("content-length").and_then(|length| length.parse::<usize>().ok());
    let (Some(status), Some(length)) = (status, length) else {
        return Err(format!("no answer: {head}"));
    };
    let body = input.get(end + 4..end + 4 + length).map(<[u8]>::to_vec);
    let closes = header("connection") == Some("close");
    Ok(body.map(|body| (Answer { status, closes, body }, end + 4 + length)))
}

/// Whether a read that gave nothing is the end of a connection, in whichever way that comes.
fn ended(read: io::Result<usize>) -> Result<(), String> {
    match read {
        Ok(_) => Ok(()),
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            Err(format!("waited {HANG:?} in vain for goat"))
        }
        Err(_) => Ok(()),
    }
}

fn read_to_the_end(stream: &mut TcpStream, all: &mut Vec<u8>) -> Result<(), String> {
    ended(stream.read_to_end(all))
}

/// A connection on which no more than so many bytes can be sent.
struct Cut {
    stream: TcpStream,
    left: usize,
}

impl Read for Cut {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for Cut {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let part = &bytes[..bytes.len().min(self.left)];
        if part.is_empty() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let written = self.stream.write(part)?;
        self.left -= written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket with a connection id (BEP 15).
struct Udp {
    socket: UdpSocket,
    connection: [u8; 8],
}

/// A number for each question.
fn transaction() -> [u8; 4] {
    static NEXT: AtomicU64 = AtomicU64::new(0xfeed_0000);
    (NEXT.fetch_add(1, Relaxed) as u32).to_be_bytes()
}

fn connect_request() -> Vec<u8> {
    [&0x417_2710_1980_u64.to_be_bytes()[..], &[0; 4], &transaction()].concat()
}

impl Udp {
    fn open(place: &Place, source: Ipv4Addr) -> Result<Udp, String> {
        let socket = UdpSocket::bind((source, 0)).map_err(|e| e.to_string())?;
        socket.connect(place.http).map_err(|e| e.to_string())?;
        socket.set_read_timeout(Some(Duration::from_secs(3))).map_err(|e| e.to_string())?;
        let mut udp = Udp { socket, connection: [0; 8] };
        let answer = udp.exchange(&connect_request(), &AtomicU64::new(0))?;
        let id = answer.get(8..16).and_then(|id| id.try_into().ok());
        udp.connection = id.ok_or("no connection id")?;
        Ok(udp)
    }

    /// Asks until there is an answer, as clients do: datagrams may be lost.
    fn exchange(&self, question: &[u8], again: &AtomicU64) -> Result<Vec<u8>, String> {
        let mut answer = [0; 2_048];
        for _ in 0..5 {
            self.socket.send(question).map_err(|e| e.to_string())?;
            while let Ok(length) = self.socket.recv(&mut answer) {
                if answer.get(4..8) == question.get(12..16) {
                    return Ok(answer[..length].to_vec());
                }
            }
            again.fetch_add(1, Relaxed);
        }
        Err(format!("waited {HANG:?} in vain for a datagram"))
    }

    fn announce(&self, announce: &Announce) -> Vec<u8> {
        let path = format!("/{}/announce", announce.passkey.as_deref().unwrap_or_default());
        let event: u32 = if announce.event == "started" { 2 } else { 0 };
        [
            &self.connection[..],
            &[0, 0, 0, 1],
            &transaction(),
            &announce.info_hash,
            &announce.peer_id,
            &announce.downloaded.to_be_bytes(),
            &announce.left.to_be_bytes(),
            &announce.uploaded.to_be_bytes(),
            &event.to_be_bytes(),
            &[0; 8],
            &(-1_i32).to_be_bytes(),
            &announce.port.to_be_bytes(),
            &[2, path.len() as u8],
            path.as_bytes(),
        ]
        .concat()
    }
}

/// Seeders, leechers and peers of the answer to an announce.
fn udp_answer(answer: &[u8]) -> Option<(i64, i64, Vec<SocketAddr>)> {
    let rest = answer.strip_prefix(&[0, 0, 0, 1])?.get(8..)?;
    let number = |at: usize| Some(i64::from(u32::from_be_bytes(rest.get(at..at + 4)?.try_into().ok()?)));
    let (peers, cut) = rest.get(8..)?.as_chunks::<6>();
    let peers = peers
        .iter()
        .map(|[a, b, c, d, high, low]| SocketAddr::from(([*a, *b, *c, *d], u16::from_be_bytes([*high, *low]))));
    cut.is_empty().then_some((number(4)?, number(0)?, peers.collect()))
}

// Chance.

/// A number that no run has had before. It stands in the table, for the next run to be given it.
fn seed() -> u64 {
    let given = std::env::var("GOAT_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    given.unwrap_or(now.as_millis() as u64)
}

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// Changes a message in one to eight places, by words of `words` too.
    fn spoil(&mut self, message: &mut Vec<u8>, words: &[&str]) {
        for _ in 0..=self.below(8) {
            let at = self.below(message.len() + 1);
            let end = (at + self.below(20)).min(message.len());
            match self.below(6) {
                0 => message.insert(at, self.next() as u8),
                1 => drop(message.drain(at..end)),
                2 => drop(message.splice(at..at, message[at..end].to_vec())),
                3 if !words.is_empty() => {
                    let word = words[self.below(words.len())];
                    drop(message.splice(at..end, word.bytes()));
                }
                4 if self.below(8) == 0 => message.truncate(at),
                _ => {
                    if let Some(byte) = message.get_mut(at) {
                        *byte ^= 1 << self.below(8);
                    }
                }
            }
        }
    }

    /// Something like a request.
    fn request(&mut self, place: &Place) -> Vec<u8> {
        let long = "A".repeat(8_000);
        let words = [
            "GET ",
            "HEAD ",
            "POST ",
            "/",
            "announce",
            "scrape",
            "?",
            "&",
            "=",
            "%",
            "%00",
            "%zz",
            "+",
            "info_hash=",
            "peer_id=",
            "port=",
            "left=",
            "uploaded=-1",
            "numwant=99999999999999999999",
            "event=stopped",
            "compact=0",
            " HTTP/1.1",
            " HTTP/1.0",
            "\r\n",
            "\r\n\r\n",
            "\n",
            "\0",
            "Host: x\r\n",
            "User-Agent: ",
            AGENT,
            "Content-Length: ",
            "4611686018427387904",
            "0",
            "-1",
            "5",
            "Transfer-Encoding: chunked\r\n",
            "Connection: keep-alive\r\n",
            "Connection: close\r\n",
            "X-Forwarded-For: 203.0.113.7\r\n",
            "Expect: 100-continue\r\n",
            "\u{fffd}",
            &place.passkey,
            &long,
        ];
        match self.below(4) {
            0 => {
                let length = self.below(400);
                self.bytes(length)
            }
            1 => {
                let count = 1 + self.below(30);
                let text: String = (0..count).map(|_| words[self.below(words.len())]).collect();
                text.into_bytes()
            }
            kind => {
                let announce = place.announce(self.below(30) as u16).target();
                let scrape = format!("/{}/scrape?info_hash={}", place.passkey, escape(&BAD));
                let target = if kind == 2 { announce } else { scrape };
                let mut request = get(&target, "").into_bytes();
                self.spoil(&mut request, &words);
                request
            }
        }
    }

    /// Something like a datagram of a client.
    fn datagram(&mut self, place: &Place, udp: &Udp) -> Vec<u8> {
        let mut datagram = match self.below(4) {
            0 => {
                let length = self.below(1_400);
                return self.bytes(length);
            }
            1 => connect_request(),
            2 => {
                let count = 1 + self.below(80);
                let mut scrape = [&udp.connection[..], &[0, 0, 0, 2], &transaction()].concat();
                scrape.extend(self.bytes(20 * count));
                scrape
            }
            _ => udp.announce(&place.announce(self.below(30) as u16)),
        };
        self.spoil(&mut datagram, &[&place.passkey]);
        datagram
    }
}
