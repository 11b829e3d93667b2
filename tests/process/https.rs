//! HTTPS: what browsers and BitTorrent clients have of it, which certificates and keys goat takes, and what
//! it does when they change, break or go.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::common::tls::{Authority, Certificate, ED25519, NAME, P256, P384, RSA, TlsClient, get, openssl};
use crate::common::{
    AGENT, Announce, Bencode, Database, Folder, Goat, Host, Lab, PATIENCE, Process, User, basic, connect_from, escape,
    free_port, hex, http_get, installed, skip, wait_for, wait_until,
};
use rustls::version::{TLS12, TLS13};
use rustls::{ALL_VERSIONS, ClientConfig};
use serde_json::{Value, json};

// Other people's TLS.

#[test]
fn curl_announces_over_tls_1_2_and_1_3_and_checks_the_certificate() {
    let Some(site) = Site::start("curl over HTTPS", json!({})) else {
        return;
    };
    let trust = format!("--cacert {}", site.authority.root().display());
    for versions in ["--tlsv1.2 --tls-max 1.2", "--tlsv1.3", "--http2", "--http1.0"] {
        let (status, answer, words) = site.curl(&format!("{trust} {versions}"));
        assert_eq!(status, Some(0), "{versions}: {words}");
        Bencode::parse(&answer).integer("complete");
        assert!(words.ends_with("HTTP 1.1"), "{versions}: {words}");
    }
    let (status, _, words) = site.curl("--tlsv1.2");
    assert_eq!(status, Some(60), "nobody signed it: {words}");
}

#[test]
fn openssl_verifies_the_whole_chain_and_resumes_sessions() {
    let Some(site) = Site::start("openssl over HTTPS", json!({})) else {
        return;
    };
    let files = site.authority.issue_by_intermediate("leaf", P256);
    let root = std::fs::read(site.authority.root()).unwrap();
    let chain = [std::fs::read(&files.certificate).unwrap(), root].concat();
    std::fs::write(&files.certificate, chain).unwrap();
    let mut site = site;
    site.install(&files);
    site.goat.restart();
    for version in ["1.2", "1.3"] {
        let flag = version.replace('.', "_");
        let session = site.authority.join(&format!("session{flag}"));
        let session = session.display();
        let (good, said) = site.s_client(&format!("-tls{flag} -sess_out {session}"));
        assert!(good, "{said}");
        assert!(said.contains(&format!("New, TLSv{version}, Cipher is ")), "{said}");
        assert!(said.contains("Verification: OK"), "{said}");
        assert!(said.contains("8:completei") && said.contains("HTTP/1.1 200 OK"), "{said}");
        // The leaf, the intermediate and the root, as they stand in the file.
        assert_eq!(said.matches("-----BEGIN CERTIFICATE-----").count(), 3, "{said}");

        let (good, said) = site.s_client(&format!("-tls{flag} -sess_in {session}"));
        assert!(good, "{said}");
        assert!(said.contains(&format!("Reused, TLSv{version}, Cipher is ")), "{said}");
        assert!(said.contains("8:completei"), "{said}");
    }
}

#[test]
fn tls_1_1_and_older_are_refused() {
    let Some(site) = Site::start("old TLS", json!({})) else {
        return;
    };
    for version in ["-tls1", "-tls1_1"] {
        // A client that would do it.
        let (good, said) = site.s_client(&format!("{version} -cipher DEFAULT:@SECLEVEL=0"));
        assert!(!good, "{said}");
        assert!(said.contains(" alert ") && said.contains("Cipher is (NONE)"), "{said}");
        assert!(said.contains("no peer certificate available"), "{said}");
    }
    site.works();
}

#[test]
fn keys_of_every_kind_in_every_format_work() {
    let Some(mut site) = Site::start("kinds of keys", json!({})) else {
        return;
    };
    let cases: [(&str, &str, &str); 8] = [
        (RSA, "", "PRIVATE KEY"),
        (RSA, "rsa -traditional", "RSA PRIVATE KEY"),
        (P256, "", "PRIVATE KEY"),
        (P256, "ec", "EC PRIVATE KEY"),
        (P384, "", "PRIVATE KEY"),
        (P384, "ec", "EC PRIVATE KEY"),
        (ED25519, "", "PRIVATE KEY"),
        // As `openssl ecparam -genkey` writes it.
        (P256, "ec", "EC PARAMETERS"),
    ];
    for (number, (kind, conversion, block)) in cases.into_iter().enumerate() {
        let mut files = site.authority.issue(&format!("key{number}"), kind);
        if !conversion.is_empty() {
            let new = site.authority.join("converted.key");
            let [from, to] = [&files.key, &new].map(|path| path.display());
            openssl(&format!("{conversion} -in {from} -out {to}"));
            files.key = new;
        }
        let mut key = std::fs::read_to_string(&files.key).unwrap();
        if block == "EC PARAMETERS" {
            let curve = "BggqhkjOPQMBBw==";
            key = format!("-----BEGIN {block}-----\n{curve}\n-----END {block}-----\n{key}");
            std::fs::write(&files.key, &key).unwrap();
        }
        assert!(key.starts_with(&format!("-----BEGIN {block}-----\n")), "{key}");
        site.install(&files);
        site.goat.restart();
        site.serves(&files, &format!("{kind}, {block}"));
    }
}

#[test]
fn files_with_more_in_them_than_a_certificate_or_a_key_work() {
    let Some(mut site) = Site::start("strange files", json!({})) else {
        return;
    };
    let mut files = site.authority.issue_by_intermediate("strange", P256);
    // One file for both, explained for people, with the line ends of Windows.
    let explained = openssl(&format!("x509 -text -in {}", files.certificate.display()));
    let chain = std::fs::read_to_string(&files.certificate).unwrap();
    let (_, intermediate) = chain.split_once("-----END CERTIFICATE-----\n").unwrap();
    let key = std::fs::read_to_string(&files.key).unwrap();
    let both = (key + &explained + intermediate).replace('\n', "\r\n");
    files.certificate = site.authority.join("both.pem");
    files.key = files.certificate.clone();
    std::fs::write(&files.certificate, both).unwrap();
    site.install(&files);
    site.goat.restart();
    site.serves(&files, "one file for both");
}

#[test]
fn plain_http_on_the_port_of_https_and_tls_on_that_of_http_come_to_an_end() {
    let Some(mut site) = Site::start("the wrong port", json!({})) else {
        return;
    };
    let mut stream = connect(site.goat.tls_address());
    stream.write_all(get("/").as_bytes()).unwrap();
    let mut answer = Vec::new();
    // The end may be a reset.
    let _ = stream.read_to_end(&mut answer);
    // An alert, fatal.
    assert!(answer.is_empty() || answer.starts_with(&[21, 3]) && answer[5] == 2, "{answer:?}");

    assert!(TlsClient::connect(site.goat.address(), &site.trust).is_err());
    site.works();
    site.clean_stop();
}

// The same tracker.

#[test]
fn http_and_https_share_swarm_and_books() {
    let Some(mut site) = Site::start("HTTP and HTTPS", json!({})) else {
        return;
    };
    let [berta, emil] = ["berta", "emil"].map(|name| site.goat.add_user(name));
    let mut seeder = Announce::new(&berta.passkey, HASH, 1);
    (seeder.left, seeder.uploaded) = (0, 1_000);
    let mut leecher = Announce::new(&emil.passkey, HASH, 2);

    let mut client = site.connect();
    let answer = client.get(&seeder.target());
    assert_eq!((answer.integer("complete"), answer.peers()), (1, vec![]));
    assert_eq!(answer.bytes("external ip"), [127, 0, 0, 1]);
    let peer = |announce: &Announce| SocketAddr::from(([127, 0, 0, 1], announce.port));
    assert_eq!(leecher.accepted(&site.goat).peers(), [peer(&seeder)]);

    // Each goes on over the other.
    (seeder.uploaded, seeder.event) = (5_000, "");
    assert_eq!(seeder.accepted(&site.goat).peers(), [peer(&leecher)]);
    (leecher.downloaded, leecher.left, leecher.event) = (1_000_000, 0, "completed");
    let answer = site.connect().get(&leecher.target());
    assert_eq!((answer.integer("complete"), answer.integer("incomplete")), (2, 0));

    let scrape = site.scrape();
    let (_, _, body) = http_get(site.goat.address(), &scrape, &[("User-Agent", AGENT)]);
    assert_eq!(site.connect().get(&scrape), Bencode::parse(&body));

    let sql = "SELECT user_id, ip, announced, uploaded, downloaded, completed FROM files_users
               ORDER BY user_id";
    let rows = [format!("{} 127.0.0.1 2 5000 0 0", berta.id), format!("{} 127.0.0.1 2 0 1000000 1", emil.id)];
    wait_until("the books", || {
        let found = site.database.sql(sql);
        found.iter().map(|row| row.join(" ")).collect::<Vec<_>>() == rows
    });
    site.clean_stop();
}

#[test]
fn https_alone_is_enough_and_the_announce_urls_say_so() {
    let Some(mut site) = Site::start("HTTPS alone", json!({ "HTTP": false })) else {
        return;
    };
    site.works();
    assert!(TcpStream::connect(site.goat.address()).is_err());
    let user = site.goat.json(&["user", "add", "berta"]);
    let [url] = user["announce"].as_array().unwrap().as_slice() else { panic!("{user}") };
    let start = format!("https://127.0.0.1:{}/", site.goat.tls_address().port());
    assert!(url.as_str().unwrap().starts_with(&start), "{url}");
    let listening = format!("listening for HTTPS on {}", site.goat.tls_address());
    assert!(site.goat.log().contains(&listening), "{}", site.goat.log());
    site.clean_stop();
}

#[test]
fn https_is_there_on_every_address_of_the_host() {
    let Some(mut site) = Site::start("HTTPS on IPv4 and IPv6", json!({ "Host": "" })) else {
        return;
    };
    let port = site.goat.tls_address().port();
    for ip in [IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()] {
        let mut client = TlsClient::connect((ip, port).into(), &site.trust).unwrap();
        let answer = client.get(&site.announce(1).target());
        let own = match ip {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        assert_eq!(answer.bytes("external ip"), own);
    }
    site.clean_stop();
}

#[test]
fn a_connection_is_kept_until_somebody_wants_to_close_it() {
    let Some(mut site) = Site::start("kept connections over TLS", json!({})) else {
        return;
    };
    for version in [&TLS12, &TLS13] {
        let trust = site.authority.trust(&[version]);
        let mut client = TlsClient::connect(site.goat.tls_address(), &trust).unwrap();
        for number in 1..=100 {
            client.get(&site.announce(number % 20).target());
        }
        let head = get(&site.announce(1).target()).replace("GET", "HEAD");
        for _ in 0..2 {
            client.send(&head);
            assert!(client.head().starts_with("HTTP/1.1 200 OK\r\n"));
        }
        client.get(&site.announce(1).target());
        let last = get(&site.announce(1).target());
        client.send(last.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"));
        let (status, headers, _) = client.answer();
        let close = ("connection".to_string(), "close".to_string());
        assert!(status == 200 && headers.contains(&close), "{headers:?}");
        assert_eq!(client.rest(), b"");
        // An error ends the connection as well, in good order.
        let mut client = TlsClient::connect(site.goat.tls_address(), &trust).unwrap();
        client.send("DELETE / HTTP/1.1\r\n\r\n");
        assert_eq!(client.answer().0, 405);
        assert_eq!(client.rest(), b"");
    }
    site.clean_stop();
}

#[test]
fn who_comes_over_https_is_told_to_come_by_no_other_way() {
    let Some(mut site) = Site::start("HSTS", json!({ "API": true })) else {
        return;
    };
    let told = |headers: &[(String, String)]| {
        let mut told = headers.iter().filter(|(name, _)| name == "strict-transport-security");
        let value = told.next().map(|(_, value)| value.clone());
        assert!(told.next().is_none(), "{headers:?}");
        value
    };
    let announce = site.announce(1).target();
    for request in [get(&announce), get("/"), get("/api/status"), "BREW / HTTP/1.1\r\n\r\n".into()] {
        let mut client = site.connect();
        client.send(&request);
        let (_, headers, _) = client.answer();
        assert_eq!(told(&headers).as_deref(), Some("max-age=31536000"), "{request}");
    }
    for target in [announce.as_str(), "/", "/api/status"] {
        let (_, headers, _) = http_get(site.goat.address(), target, &[("User-Agent", AGENT)]);
        assert_eq!(told(&headers), None, "{target}");
    }
    site.clean_stop();
}

#[test]
fn what_waits_for_the_database_is_answered_over_tls_too() {
    let Some(mut site) = Site::start("slow requests over TLS", json!({})) else {
        return;
    };
    for number in 0..20 {
        let user = site.goat.add_user(&format!("user{number}"));
        let hash = crate::common::info_hash(number);
        site.goat.add_torrent(hex(&hash));
        let announce = Announce::new(&user.passkey, hash, 1);
        let mut client = site.connect();
        let answer = client.get(&announce.target());
        assert_eq!(answer.integer("incomplete"), 1, "{answer:?}");
    }
    site.clean_stop();
}

#[test]
fn requests_may_come_many_in_one_record_or_in_one_record_for_each_byte() {
    let Some(mut site) = Site::start("pipelining over TLS", json!({})) else {
        return;
    };
    site.works(); // now memory knows the user and the torrent, and connections are kept
    let mut client = site.connect();
    // Three kinds that are told apart by their answers.
    let [announce, scrape] = [site.announce(1).target(), site.scrape()];
    let refused = format!("/{}/announce?info_hash=short", site.passkey);
    let kinds = [(announce, "peers"), (scrape, "files"), (refused, "failure reason")];
    client.send(kinds.iter().map(|(target, _)| get(target)).collect::<String>().repeat(100));
    for number in 0..300 {
        let (status, _, body) = client.answer();
        let answer = Bencode::parse(&body);
        let (target, key) = &kinds[number % 3];
        assert!(status == 200 && answer.get(key).is_some(), "{target}: {answer:?}");
    }
    for byte in get(&site.announce(1).target()).as_bytes() {
        client.send([*byte]);
    }
    assert_eq!(Bencode::parse(&client.answer().2).integer("incomplete"), 1);
    site.clean_stop();
}

#[test]
fn a_request_in_flight_over_tls_is_answered_before_goat_stops() {
    let Some(mut site) = Site::start("stopping with TLS", json!({})) else {
        return;
    };
    site.works();
    let request = get(&site.announce(1).target());
    let (first, second) = request.split_at(100);
    let mut client = site.connect();
    client.send(first);
    // One more is in the middle of its handshake, and never says another word.
    let mut silent = connect(site.goat.tls_address());
    silent.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    let mut kept = site.connect();
    kept.get(&site.announce(2).target());
    site.goat.process().signal(libc::SIGTERM);
    wait_until("goat to stop", || site.goat.log().contains("stopping"));
    client.send(second);
    let (status, headers, body) = client.answer();
    let close = ("connection".to_string(), "close".to_string());
    assert!(status == 200 && headers.contains(&close), "{headers:?}");
    assert_eq!(Bencode::parse(&body).integer("incomplete"), 2);
    assert_eq!(client.rest(), b"");
    assert_eq!(kept.rest(), b"");
    let status = site.goat.process().wait();
    assert_eq!(status.code(), Some(0), "{}", site.goat.log());
    assert_eq!(site.database.number("SELECT sum(active) FROM peers"), 2);
}

// Certificates that change.

#[test]
fn who_does_not_read_a_long_answer_over_tls_is_counted() {
    let Some(mut site) = Site::prepare("a long answer over TLS", json!({ "API": true })) else {
        return;
    };
    let bert = site.goat.add_user("bert");
    site.database.add_long_list();
    site.goat.launch();
    let mut deaf = site.connect();
    let key = basic("bert", &bert.api_key);
    deaf.send(format!("GET /api/files HTTP/1.1\r\nHost: {NAME}\r\nAuthorization: {key}\r\n\r\n"));
    wait_until("goat to close and count it", || site.refused("unread") == 1);
}

#[test]
fn what_tls_keeps_room_for_is_counted_also_where_nearly_nothing_is_in_it() {
    let Some(site) = Site::start("records that are large", json!({ "API": true })) else {
        return;
    };
    let body = "b".repeat(15_000);
    let request = format!("GET /announce HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 15000\r\n\r\n{body}");
    // Each keeps room for about 13 KiB that count, of which an address may have 512 KiB. The last are not waited for.
    let clients = (0..48).map(|n| {
        let socket = connect_from(Ipv4Addr::new(127, 0, 0, 2), site.goat.tls_address(), 0, PATIENCE).unwrap();
        let mut client = TlsClient::over(socket, &site.trust).unwrap();
        // Behind the request, the first byte of another record.
        client.send_and(&request, &[23]);
        assert!(n >= 32 || client.answer().0 == 200);
        client
    });
    let clients: Vec<TlsClient> = clients.collect();
    wait_until("goat to refuse some", || site.refused("bytes") > 0);
    drop(clients);
}

#[test]
fn a_renewed_certificate_is_in_use_without_a_restart_or_a_lost_request() {
    let Some(mut site) = Site::prepare("a renewed certificate", json!({})) else {
        return;
    };
    // As Let's Encrypt's client does it: links to the newest of the files, and then the hook.
    let live = site.goat.folder.join("live");
    std::fs::create_dir(&live).unwrap();
    let (_, hook) = include_str!("../../docs/https.md").split_once("```sh\n").unwrap();
    let (hook, _) = hook.split_once("```").unwrap();
    let home = site.goat.folder.path().to_str().unwrap();
    let site_of_goat = "/etc/letsencrypt/live/tracker.example.org";
    let hook = hook.replace(" -g goat", "").replace("/etc/goat", home).replace(site_of_goat, live.to_str().unwrap());
    assert_eq!(hook.matches(home).count(), 3, "{hook}");
    let run_hook = |lineage: &std::path::Path| {
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", &hook]).env("RENEWED_LINEAGE", lineage);
        assert!(shell.status().unwrap().success(), "{hook}");
    };
    let renew = |files: &Certificate| {
        for (name, file) in [("fullchain.pem", &files.certificate), ("privkey.pem", &files.key)] {
            let _ = std::fs::remove_file(live.join(name));
            std::os::unix::fs::symlink(file, live.join(name)).unwrap();
        }
        run_hook(&live);
    };
    let [first, second] = ["first", "second"].map(|name| site.authority.issue(name, P256));
    renew(&first);
    // That of another site is renewed: it is not goat's.
    run_hook(std::path::Path::new("/nowhere"));
    site.goat.launch();
    site.works();
    let mut kept = site.connect();
    let mut announces = 2; // those just made
    // Announces on the kept connection and on a new one; says what the new one was served.
    let mut announce = || {
        let mut new = site.connect();
        for client in [&mut kept, &mut new] {
            announces += 1;
            let mut announce = site.announce(1);
            announce.uploaded = announces;
            announce.event = "";
            client.get(&announce.target());
        }
        new.served()[0].clone()
    };
    assert_eq!(announce(), first.der);
    renew(&second);
    let started = std::time::Instant::now();
    wait_until("the new certificate", || announce() == second.der);
    println!("the new certificate was in use after {:?}", started.elapsed());
    for _ in 0..50 {
        assert_eq!(announce(), second.der);
    }
    let log = site.goat.log();
    let mut lines = log.lines().filter(|line| line.contains("goat.crt"));
    assert!(lines.any(|line| line.contains("was replaced")), "{log}");
    wait_until("the books", || {
        let sql = "SELECT sum(announced) FROM files_users";
        site.database.sql(sql) == [[announces.to_string()]]
    });
    site.clean_stop();
}

#[test]
fn a_broken_certificate_is_refused_and_the_old_one_kept_until_a_good_one_comes() {
    // What is done to the files, and which one the log must name.
    let cases: [(&str, &str, Spoil); 10] = [
        ("a certificate of garbage", "goat.crt", |site| site.write("goat.crt", b"\0garbage\r\n\x1b[31m")),
        ("an empty certificate", "goat.crt", |site| site.write("goat.crt", b"")),
        ("half a certificate", "goat.crt", |site| site.halve("goat.crt")),
        ("no certificate", "goat.crt", |site| site.remove("goat.crt")),
        ("a folder", "goat.crt", |site| {
            site.remove("goat.crt");
            std::fs::create_dir(site.goat.folder.join("goat.crt")).unwrap();
        }),
        ("a key of garbage", "goat.key", |site| site.write("goat.key", b"garbage")),
        ("another's key", "goat.key", |site| {
            let other = site.authority.issue("other", P256);
            site.write("goat.key", &std::fs::read(other.key).unwrap());
        }),
        ("half a key", "goat.key", |site| site.halve("goat.key")),
        ("no key", "goat.key", |site| site.remove("goat.key")),
        ("a locked key", "goat.key", |site| site.lock("goat.key", "pkcs8 -topk8")),
    ];
    let Some(_) = programs("broken certificates") else {
        return;
    };
    // All at once, for each waits until goat looks.
    std::thread::scope(|scope| {
        for (case, file, spoil) in cases {
            let test = move || survives(case, file, spoil);
            let thread = std::thread::Builder::new().name(case.into());
            thread.spawn_scoped(scope, test).unwrap();
        }
    });
}

/// What is done to the files.
type Spoil = fn(&Site);

/// One case of the test above.
fn survives(case: &str, file: &str, spoil: Spoil) {
    let mut site = Site::start(case, json!({})).unwrap();
    let old = site.certificate.clone();
    let mut kept = site.connect();
    spoil(&site);
    let place = site.goat.folder.join(file).display().to_string();
    let line = wait_for(&format!("goat to refuse {case}"), || {
        kept.get(&site.announce(1).target());
        let log = site.goat.log();
        let mut lines = log.lines().map(String::from);
        lines.find(|line| line.contains(&place))
    });
    println!("{case}: {line}");
    assert!(line.contains("stays in use"), "{case}: {line}");
    assert!(line.contains(&format!("{place}: ")) || line.contains(&format!("{place} ")));
    assert!(!line.contains(char::is_control), "{case}: {line:?}");
    for _ in 0..3 {
        site.serves(&old, case);
    }
    let new = site.authority.issue("new", P384);
    let folder = site.goat.folder.join(file);
    if folder.is_dir() {
        std::fs::remove_dir(folder).unwrap();
    }
    site.install(&new);
    wait_until("the good one", || {
        kept.get(&site.announce(1).target());
        site.connect().served()[0] == new.der
    });
    site.serves(&new, case);
    // Each change is said once.
    let log = site.goat.log();
    assert_eq!(log.matches(&line[20..]).count(), 1, "{log}");
    assert_eq!(log.matches("was replaced").count(), 1, "{log}");
    site.clean_stop();
}

// Certificates that cannot be used from the start.

#[test]
fn goat_does_not_start_with_files_that_it_cannot_use_and_says_how_to_make_them() {
    let Some(site) = Site::prepare("unusable certificates", json!({})) else {
        return;
    };
    let good = [&site.certificate.certificate, &site.certificate.key].map(|file| std::fs::read(file).unwrap());
    // What is done to the files, the key and the file that the complaint must name, and some of its words.
    type Case = (&'static str, &'static str, &'static str, Spoil);
    let cases: [Case; 16] = [
        ("Certificate", "goat.crt", "No such file", |site| site.remove("goat.crt")),
        ("Key", "goat.key", "No such file", |site| site.remove("goat.key")),
        ("Certificate", "goat.crt", "directory", |site| {
            site.remove("goat.crt");
            std::fs::create_dir(site.goat.folder.join("goat.crt")).unwrap();
        }),
        ("Key", "goat.key", "directory", |site| {
            site.remove("goat.key");
            std::fs::create_dir(site.goat.folder.join("goat.key")).unwrap();
        }),
        ("Certificate", "goat.crt", "no certificate", |site| site.write("goat.crt", b"")),
        ("Certificate", "goat.crt", "no certificate", |site| site.write("goat.crt", b"\x30\x82 garbage \0\xff")),
        ("Certificate", "goat.crt", "broken", |site| site.halve("goat.crt")),
        ("Certificate", "goat.crt", "broken", |site| {
            site.write("goat.crt", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        }),
        ("Certificate", "goat.crt", "no certificate", |site| {
            site.write("goat.crt", &std::fs::read(&site.certificate.key).unwrap())
        }),
        ("Key", "goat.key", "no private key", |site| site.write("goat.key", b"")),
        ("Key", "goat.key", "no private key", |site| site.halve("goat.key")),
        ("Key", "goat.key", "no private key", |site| {
            site.write("goat.key", &std::fs::read(&site.certificate.certificate).unwrap())
        }),
        ("Key", "goat.key", "not the key of", |site| {
            let other = site.authority.issue("other", P256);
            site.write("goat.key", &std::fs::read(other.key).unwrap());
        }),
        ("Key", "goat.key", "password", |site| site.lock("goat.key", "pkcs8 -topk8")),
        ("Key", "goat.key", "password", |site| site.lock("goat.key", "ec -aes256")),
        ("Key", "goat.key", "ECDSA", |site| {
            let odd = site.authority.issue("odd", "EC -pkeyopt ec_paramgen_curve:secp256k1");
            site.install(&odd);
        }),
    ];
    for (number, (key, file, words, spoil)) in cases.into_iter().enumerate() {
        for (name, bytes) in ["goat.crt", "goat.key"].iter().zip(&good) {
            let _ = std::fs::remove_dir(site.goat.folder.join(name));
            site.write(name, bytes);
        }
        spoil(&site);
        for command in ["run", "check"] {
            let (status, output, complaint) = site.goat.cli(&[command]);
            let case = format!("case {number}, {command}: {complaint}{output}");
            // Where the files can be read, `check` goes on to whatever else is wrong.
            let goes_on = command == "check" && status.code() == Some(1);
            let place = format!("{}:", site.goat.config_path().display());
            let complaint = if goes_on {
                assert!(output.contains("TCP port") && output.contains("the clock"), "{case}");
                output
            } else {
                assert_eq!(status.code(), Some(2), "{case}");
                assert_eq!(complaint.lines().count(), 1, "{case}");
                complaint
            };
            assert!(complaint.starts_with(&place), "{case}");
            let path = site.goat.folder.join(file).display().to_string();
            assert!(complaint.contains(&format!("SSL.{key}: found {path}")), "{case}");
            assert!(complaint.contains(words), "{case}");
            assert!(complaint.contains("openssl req -x509 -newkey ec "), "{case}");
        }
    }
}

#[test]
fn the_files_that_the_documents_make_work() {
    let Some(mut site) = Site::prepare("the certificates of docs/https.md", json!({})) else {
        return;
    };
    let document = include_str!("../../docs/https.md");
    let lines = document.lines().filter_map(|line| line.strip_prefix("$ "));
    let lines: Vec<&str> = lines.filter(|line| line.starts_with("openssl req ")).collect();
    let [own, authority, signed] = lines[..] else { panic!("{lines:?}") };
    // Signed by itself, and by an authority.
    for (commands, trusted) in [(&[own][..], "goat.crt"), (&[authority, signed], "ca.crt")] {
        for name in ["goat.crt", "goat.key"] {
            site.remove(name);
        }
        for command in commands {
            let mut shell = Command::new("sh");
            let shell = shell.args(["-c", command]);
            let output = shell.current_dir(site.goat.folder.path()).output().unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        site.goat.launch();
        let trust = format!("--cacert {}", site.goat.folder.join(trusted).display());
        let (status, answer, words) = site.curl(&trust);
        assert_eq!(status, Some(0), "{words}");
        Bencode::parse(&answer).integer("complete");
        site.clean_stop();
    }
}

// Real clients.

#[test]
fn libtorrent_shares_over_https_with_an_authority_of_its_own_and_only_with_it() {
    let test = "libtorrent over HTTPS";
    let mut python = Command::new(PYTHON);
    let libtorrent = python.args(["-c", "import libtorrent"]).status();
    if !libtorrent.is_ok_and(|status| status.success()) {
        return skip(test, "no libtorrent for Python");
    }
    if let Some(program) = ["ip", "mktorrent"].into_iter().find(|name| !installed(name)) {
        return skip(test, &format!("no {program}"));
    }
    Lab::run(test, |lab| {
        let overrides = json!({ "Host": Lab::HUB, "HTTP": false });
        let Some(site) = Site::prepare(test, overrides) else {
            return;
        };
        let mut site = site;
        let content: Vec<u8> = (0..5_000_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        let torrents = Folder::new();
        std::fs::write(torrents.join(NAME_OF_FILE), &content).unwrap();
        let [seeder, leecher, stranger] = ["seeder", "leecher", "stranger"].map(|name| {
            let user = site.goat.add_user(name);
            let torrent = torrents.join(&format!("{name}.torrent"));
            let address = site.goat.tls_address();
            let url = format!("https://{address}/{}/announce", user.passkey);
            let mut mktorrent = Command::new("mktorrent");
            mktorrent.args(["--private", "--piece-length=16", "--announce", &url, "--output"]);
            let output = mktorrent.args([&torrent, &torrents.join(NAME_OF_FILE)]).output();
            assert!(output.unwrap().status.success());
            (user, torrent)
        });
        site.goat.add_torrent(&seeder.1);
        site.goat.launch();

        let root = site.authority.root();
        let mut seeder = Client::start(lab.host(), seeder, Some(&root), Some(&content));
        let seeders = "SELECT count(*) FROM peers WHERE active = 1 AND `left` = 0";
        wait_until("the seeder", || {
            seeder.process.assert_running();
            site.database.number(seeders) == 1
        });
        let mut stranger = Client::start(lab.host(), stranger, None, None);
        wait_until("the stranger to trust nobody", || {
            stranger.process.assert_running();
            stranger.process.output().contains("certificate verify failed")
        });
        let mut leecher = Client::start(lab.host(), leecher, Some(&root), None);
        wait_until("the leecher to have it all", || {
            leecher.process.assert_running();
            leecher.status().is_some_and(|status| status["left"] == 0)
        });
        wait_until("the snatch", || site.database.number("SELECT sum(completed) FROM files") == 1);
        let copy = std::fs::read(leecher.folder.join(NAME_OF_FILE)).unwrap();
        assert!(copy == content, "the leecher has other bytes");

        let known = "SELECT count(*) FROM peers WHERE user_id =";
        assert_eq!(site.database.number(&format!("{known} {}", stranger.user.id)), 0);
        stranger.process.kill();
        for mut client in [leecher, seeder] {
            client.process.terminate();
            let status = client.status().unwrap();
            let id = client.user.id;
            let moved = [&status["uploaded"], &status["downloaded"]].map(Value::to_string);
            wait_until("the goodbye", || site.database.number(&format!("{known} {id} AND active = 1")) == 0);
            let sql = format!("SELECT uploaded, downloaded FROM users WHERE id = {id}");
            assert_eq!(site.database.sql(&sql), [moved], "{}", client.user.name);
        }
        site.clean_stop();
    });
}

const NAME_OF_FILE: &str = "random.bin";

/// The one that Debian's packages install modules for.
const PYTHON: &str = "/usr/bin/python3";

/// A libtorrent client on a host of its own.
struct Client {
    process: Process,
    folder: Folder,
    user: User,
    _host: Host,
}

impl Client {
    /// Starts it: with an authority to trust, and as a seeder if it is given the content.
    fn start(host: Host, (user, torrent): (User, PathBuf), trusted: Option<&Path>, content: Option<&[u8]>) -> Client {
        let folder = Folder::new();
        if let Some(content) = content {
            std::fs::write(folder.join(NAME_OF_FILE), content).unwrap();
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lt_client.py");
        let mut command = host.command(PYTHON);
        command.args([&script, &torrent, folder.path()]);
        command.arg(format!("{}:6881", host.address));
        command.env("HOME", folder.path());
        // Where OpenSSL looks for whom to trust.
        command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR");
        if let Some(trusted) = trusted {
            command.env("SSL_CERT_FILE", trusted);
        }
        let process = Process::start(&user.name, &mut command, folder.join("client.log"));
        Client { process, folder, user, _host: host }
    }

    /// What it says of itself; None while it is not ready to.
    fn status(&self) -> Option<Value> {
        let output = self.process.output();
        let mut lines = output.lines().rev();
        let line = lines.find(|line| line.starts_with('{') && line.ends_with('}'))?;
        let status: Value = serde_json::from_str(line).unwrap();
        (status["checked"] == true).then_some(status)
    }
}

const HASH: [u8; 20] = *b"announced over HTTPS";

/// A goat that listens for HTTP and HTTPS, with one member and one torrent.
struct Site {
    goat: Goat,
    database: Database,
    passkey: String,
    authority: Authority,
    /// That goat starts with.
    certificate: Certificate,
    trust: Arc<ClientConfig>,
}

/// None if this machine lacks a program.
fn programs(test: &str) -> Option<()> {
    match ["openssl", "curl", "sqlite3"].into_iter().find(|name| !installed(name)) {
        Some(missing) => {
            skip(test, &format!("no {missing}"));
            None
        }
        None => Some(()),
    }
}

impl Site {
    fn start(test: &str, overrides: Value) -> Option<Site> {
        let mut site = Site::prepare(test, overrides)?;
        site.goat.launch();
        Some(site)
    }

    fn prepare(test: &str, overrides: Value) -> Option<Site> {
        programs(test)?;
        let mut settings = json!({ "HTTPS": true, "SlowDown": 0, "SSL": {} });
        for (key, value) in overrides.as_object().unwrap() {
            settings[key] = value.clone();
        }
        settings["SSL"]["Port"] = json!(free_port());
        let authority = Authority::new();
        let certificate = authority.issue("goat", P256);
        let database = Database::sqlite();
        let goat = Goat::prepare(&database, settings);
        let trust = authority.trust(ALL_VERSIONS);
        let mut site =
            Site { goat, database, passkey: String::new(), authority, certificate: certificate.clone(), trust };
        site.install(&certificate);
        site.passkey = site.goat.add_user("anna").passkey;
        site.goat.add_torrent(hex(&HASH));
        Some(site)
    }

    /// Puts a certificate and its key where goat looks for them, one after the other.
    fn install(&self, files: &Certificate) {
        for (name, file) in [("goat.crt", &files.certificate), ("goat.key", &files.key)] {
            self.write(name, &std::fs::read(file).unwrap());
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.goat.folder.join(name), bytes).unwrap();
    }

    /// Leaves the first half of a file.
    fn halve(&self, name: &str) {
        let bytes = std::fs::read(self.goat.folder.join(name)).unwrap();
        self.write(name, &bytes[..bytes.len() / 2]);
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.goat.folder.join(name)).unwrap();
    }

    /// Locks a key with a password, with this command of `openssl`.
    fn lock(&self, name: &str, command: &str) {
        let locked = self.authority.join("locked.key");
        let key = self.goat.folder.join(name);
        let [from, to] = [&key, &locked].map(|path| path.display());
        openssl(&format!("{command} -in {from} -out {to} -passout pass:secret"));
        let locked = std::fs::read(locked).unwrap();
        assert!(String::from_utf8_lossy(&locked).contains("ENCRYPTED"));
        self.write(name, &locked);
    }

    fn announce(&self, number: u16) -> Announce {
        Announce::new(&self.passkey, HASH, number)
    }

    fn scrape(&self) -> String {
        format!("/{}/scrape?info_hash={}", self.passkey, escape(&HASH))
    }

    /// How many connections goat has refused or closed for a reason.
    fn refused(&self, reason: &str) -> u64 {
        let (_, _, text) = http_get(self.goat.address(), "/metrics", &[]);
        let name = format!("goat_connections_refused_total{{reason=\"{reason}\"}} ");
        let text = String::from_utf8(text).unwrap();
        text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    }

    fn connect(&self) -> TlsClient {
        TlsClient::connect(self.goat.tls_address(), &self.trust).unwrap()
    }

    /// Fails the test unless an announce is answered, once and again on the same connection.
    fn works(&self) {
        let mut announce = self.announce(9_999);
        for event in ["started", "stopped"] {
            announce.event = event;
            self.connect().get(&announce.target());
        }
    }

    /// Fails the test unless both versions of TLS are served with this certificate.
    fn serves(&self, files: &Certificate, case: &str) {
        for version in [&TLS12, &TLS13] {
            let trust = self.authority.trust(&[version]);
            let mut client = TlsClient::connect(self.goat.tls_address(), &trust)
                .unwrap_or_else(|error| panic!("{case}, {version:?}: {error}"));
            assert_eq!(client.served()[0], files.der, "{case}, {version:?}");
            client.get(&self.announce(1).target());
        }
    }

    /// An announce by `curl`: its status, the answer, and all that it printed.
    fn curl(&self, options: &str) -> (Option<i32>, Vec<u8>, String) {
        let port = self.goat.tls_address().port();
        let mut curl = Command::new("curl");
        curl.args("--silent --show-error --fail --noproxy * --max-time 60".split(' '));
        curl.args(["--resolve", &format!("{NAME}:{port}:127.0.0.1"), "--user-agent", AGENT]);
        curl.args(["--write-out", "%{stderr}HTTP %{http_version}"]);
        curl.args(options.split(' '));
        curl.arg(format!("https://{NAME}:{port}{}", self.announce(1).target()));
        let output = curl.output().unwrap();
        let words = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), output.stdout, words)
    }

    /// An announce by `openssl s_client`: whether all was well, and all that it printed.
    fn s_client(&self, options: &str) -> (bool, String) {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &self.goat.tls_address().to_string()]);
        command.args(["-servername", NAME, "-verify_hostname", NAME, "-verify_return_error"]);
        command.args(["-showcerts", "-ign_eof", "-CAfile"]).arg(self.authority.root());
        command.args(options.split(' '));
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let request = get(&self.announce(1).target());
        let request = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
        // It does not read this if it is refused.
        let _ = child.stdin.take().unwrap().write_all(request.as_bytes());
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        (output.status.success(), said)
    }

    /// Stops goat, and fails the test if that or anything that it has logged is strange.
    fn clean_stop(&mut self) {
        let status = self.goat.stop();
        let log = self.goat.log();
        assert_eq!(status.code(), Some(0), "{log}");
        for word in ["panicked", "defect", "PRIVATE KEY"] {
            assert!(!log.contains(word), "{log}");
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}
