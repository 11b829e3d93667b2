//! goat behind real proxies, configured with exactly what docs/https.md prints: goat sees their clients'
//! addresses, and nobody can make it see another.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Output};

use crate::common::tls::{self, Authority, TlsClient};
use crate::common::{
    AGENT, Announce, Bencode, Database, Folder, Goat, Process, free_port, installed, skip, wait_until,
};
use serde_json::{Value, json};

/// Where the client is, where the proxy finds goat, whom goat trusts, and whom it therefore sees. 127.0.0.5 is
/// the client unless it comes by IPv6; the proxy connects to goat from 127.0.0.1 or ::1.
const CASES: [(&str, &str, &[&str], &str); 8] = [
    ("127.0.0.5", "127.0.0.1", &["127.0.0.1"], "127.0.0.5"),
    ("127.0.0.5", "127.0.0.1", &["127.0.0.0/30"], "127.0.0.5"),
    ("127.0.0.5", "::1", &["::1"], "127.0.0.5"),
    ("127.0.0.5", "::1", &["10.0.0.0/8", "::/120"], "127.0.0.5"),
    ("::1", "127.0.0.1", &["127.0.0.0/8"], "::1"),
    // Neither of these has the proxy in it.
    ("127.0.0.5", "127.0.0.1", &[], "127.0.0.1"),
    ("127.0.0.5", "127.0.0.1", &["127.0.0.4/30", "::/0"], "127.0.0.1"),
    ("127.0.0.5", "::1", &["0.0.0.0/0", "::2/127"], "::1"),
];

#[test]
fn through_nginx_goat_sees_the_clients_of_trusted_proxies() {
    sees_clients("nginx");
}

#[test]
fn through_caddy_goat_sees_the_clients_of_trusted_proxies() {
    sees_clients("caddy");
}

fn sees_clients(program: &str) {
    for (client, host, trusted, seen) in CASES {
        let site = Site::start(host, trusted);
        let Some(proxy) = Proxy::start(program, &site) else {
            return;
        };
        let case = format!("{client} by {program} at {host}, trusting {trusted:?}");
        let (client, seen) = (client.parse().unwrap(), seen.parse::<IpAddr>().unwrap());
        assert_eq!(proxy.seen(&site, client, &[]), seen, "{case}");
        // What the client says of itself changes nothing.
        for claim in ["203.0.113.9", "203.0.113.9, 127.0.0.1", "::1", "garbage"] {
            let claims = [format!("X-Forwarded-For: {claim}")];
            assert_eq!(proxy.seen(&site, client, &claims), seen, "{case}: {claim}");
            let claims = [&claims[..], &["X-Real-IP: 203.0.113.9".into()]].concat();
            assert_eq!(proxy.seen(&site, client, &claims), seen, "{case}: {claim}");
        }
        let books = "SELECT DISTINCT ip FROM files_users";
        wait_until("the books", || {
            let ips = site.database.sql(books).concat();
            ips.len() == 1 && ips[0].parse() == Ok(seen)
        });
    }
}

#[test]
fn under_a_path_the_page_its_calls_and_the_announce_urls_work() {
    for program in ["nginx", "caddy"] {
        let port = free_port();
        let home = format!("https://{}:{port}/our/tracker", tls::NAME);
        let site = Site::start_with(json!({
            "URL": home, "API": true, "TrustedProxies": ["127.0.0.1"],
        }));
        let change = under_a_path(program, "/our/tracker");
        let Some(proxy) = Proxy::start_with(program, &site, port, &change) else {
            continue;
        };
        let client = Ipv4Addr::new(127, 0, 0, 5).into();
        let get = |url: &str, headers: &[String]| {
            let mut curl = proxy.curl_url(client, url);
            for header in headers {
                curl.args(["--header", header]);
            }
            let output = curl.arg("--location").output().unwrap();
            assert!(output.status.success(), "{program}: {url}: {output:?}");
            output
        };
        // The URL as members are given it, with the slash or without.
        for url in [home.clone(), format!("{home}/")] {
            let page = get(&url, &[]);
            let page = String::from_utf8(page.stdout).unwrap();
            assert!(page.contains("<title>"), "{program}: {url}: {page}");
        }
        let member = site.goat.add_user("berta");
        let key = crate::common::basic("berta", &member.api_key);
        let me =
            get(&format!("{home}/api/me"), &[format!("Authorization: {key}"), "Sec-Fetch-Site: same-origin".into()]);
        let me: Value = serde_json::from_slice(&me.stdout).unwrap();
        let urls = json!([format!("{home}/{}/announce", member.passkey)]);
        assert_eq!(me["announce"], urls, "{program}");
        // Members send torrents as large as goat takes them.
        let file = proxy.folder.join("large.torrent");
        std::fs::write(&file, crate::library::torrent("large", (8 << 20) - 200)).unwrap();
        let mut curl = proxy.curl_url(client, &format!("{home}/api/files"));
        curl.args(["--header", &format!("Authorization: {key}"), "--data-binary", &format!("@{}", file.display())]);
        let sent: Value = serde_json::from_slice(&curl.output().unwrap().stdout).unwrap();
        assert_eq!(sent["name"], "large", "{program}: {sent}");
        let mut announce = site.announce();
        announce.passkey = None;
        let query = announce.target().replace("/announce", "");
        let url = format!("{}{query}", urls[0].as_str().unwrap());
        assert_eq!(external_ip(&get(&url, &[])), client, "{program}");
        let scrape = url.replace("/announce?", "/scrape?");
        let answer = Bencode::parse(&get(&scrape, &[]).stdout);
        assert!(answer.get("files").is_some(), "{program}: {answer:?}");
    }
}

#[test]
fn each_form_in_which_proxies_write_an_address_is_understood() {
    if !installed("nginx") {
        return skip("each form of X-Forwarded-For", "no nginx");
    }
    for (written, host, seen) in [
        ("$remote_addr", "127.0.0.5", "127.0.0.5"),
        ("$remote_addr:$remote_port", "127.0.0.5", "127.0.0.5"),
        ("$proxy_add_x_forwarded_for", "127.0.0.5", "127.0.0.5"),
        ("$remote_addr, ", "127.0.0.5", "127.0.0.5"),
        (", $remote_addr ,, 127.0.0.1", "127.0.0.5", "127.0.0.5"),
        ("$remote_addr", "::1", "::1"),
        ("[$remote_addr]", "::1", "::1"),
        ("[$remote_addr]:$remote_port", "::1", "::1"),
        ("$remote_addr%lo", "::1", "::1"),
        ("[$remote_addr%lo]:$remote_port", "::1", "::1"),
        // What is no address is nobody's: the proxy counts.
        ("unknown", "127.0.0.5", "127.0.0.1"),
        ("203.0.113.9, _hidden", "127.0.0.5", "127.0.0.1"),
    ] {
        let site = Site::start("127.0.0.1", &["127.0.0.1"]);
        let written = format!("X-Forwarded-For \"{written}\";");
        let change = [("X-Forwarded-For $remote_addr;", written.clone())];
        let Some(proxy) = Proxy::start_with("nginx", &site, free_port(), &change) else {
            return;
        };
        let (client, seen) = (host.parse().unwrap(), seen.parse::<IpAddr>().unwrap());
        for _ in 0..2 {
            let claims = ["X-Forwarded-For: 203.0.113.9".to_string()];
            assert_eq!(proxy.seen(&site, client, &claims), seen, "{written}");
        }
        let strange = seen == IpAddr::from([127, 0, 0, 1]);
        let said = site.goat.log().matches("X-Forwarded-For").count();
        assert_eq!(said, usize::from(strange), "{written}: {}", site.goat.log());
    }
}

#[test]
fn who_goes_round_the_proxy_is_who_they_connect_as() {
    let site = Site::start("127.0.0.1", &["127.0.0.0/30"]);
    for (source, seen) in [("127.0.0.5", "127.0.0.5"), ("127.0.0.2", "203.0.113.9")] {
        let url = format!("http://{}{}", site.goat.address(), site.announce().target());
        let mut curl = curl(source.parse().unwrap(), &url);
        let output = curl.args(["--header", "X-Forwarded-For: 203.0.113.9"]);
        let seen: IpAddr = seen.parse().unwrap();
        assert_eq!(external_ip(&output.output().unwrap()), seen, "{source}");
    }
}

#[test]
fn peers_that_come_through_a_proxy_meet_those_that_do_not() {
    for program in ["nginx", "caddy"] {
        let site = Site::start("127.0.0.1", &["127.0.0.1"]);
        let Some(proxy) = Proxy::start(program, &site) else {
            continue;
        };
        let client = Ipv4Addr::new(127, 0, 0, 5).into();
        assert_eq!(proxy.seen(&site, client, &[]), client);
        let peers = Announce::new(&site.passkey, HASH, 2).accepted(&site.goat).peers();
        assert_eq!(peers, [(client, site.announce().port).into()], "{program}");
    }
}

#[test]
fn a_guesser_behind_a_proxy_shuts_out_nobody_else() {
    for program in ["nginx", "caddy"] {
        let mut site = Site::start("127.0.0.1", &["127.0.0.1"]);
        let Some(proxy) = Proxy::start(program, &site) else {
            continue;
        };
        let [guesser, other] = [5, 6].map(|last| IpAddr::from([127, 0, 0, last]));
        // A member of whom goat learns by nothing but looking them up.
        let right = "b".repeat(40);
        let member = format!("INSERT INTO users (username, passkey) VALUES ('berta', '{right}')");
        site.database.sql(&format!("DROP TRIGGER users_insert; {member}"));
        for guess in 0..20 {
            site.passkey = format!("{guess:040}");
            let output = proxy.curl(&site, guesser).output().unwrap();
            let answer = Bencode::parse(&output.stdout);
            assert_eq!(answer.text("failure reason"), "Invalid passkey");
        }
        site.passkey = right;
        let output = proxy.curl(&site, guesser).output().unwrap();
        let answer = Bencode::parse(&output.stdout);
        assert!(answer.get("failure reason").is_some(), "{answer:?}");
        assert_eq!(proxy.seen(&site, other, &[]), other, "{program}");
    }
}

#[test]
fn proxies_write_no_passkeys_into_their_logs() {
    for program in ["nginx", "caddy"] {
        let mut site = Site::start("127.0.0.1", &["127.0.0.1"]);
        let Some(mut proxy) = Proxy::start(program, &site) else {
            continue;
        };
        let client = Ipv4Addr::new(127, 0, 0, 5).into();
        assert_eq!(proxy.seen(&site, client, &[]), client);
        // Where a proxy has something to complain about, it names the request.
        site.goat.stop();
        let status = proxy.curl(&site, client).output().unwrap().status;
        assert_eq!(status.code(), Some(22), "{program} has no goat behind it");
        proxy.process.terminate();
        let mut logs = proxy.process.output();
        let folder = proxy.folder.path();
        logs += &std::fs::read_to_string(folder.join("goat.log")).unwrap_or_default();
        assert!(!logs.contains(&site.passkey), "{program}: {logs}");
    }
}

/// What has to be changed in the documented configurations for a path, here another one than there.
fn under_a_path(program: &str, path: &str) -> Vec<(&'static str, String)> {
    let nginx = [
        ("location / {", "    location /tracker/ {\n"),
        ("proxy_pass http://goat;", "        proxy_pass http://goat/;\n"),
    ];
    let caddy = [(
        "    reverse_proxy 127.0.0.1:8080\n",
        "    redir /tracker /tracker/\n    handle_path /tracker/* {\n        \
         reverse_proxy 127.0.0.1:8080\n    }\n",
    )];
    let change = if program == "nginx" { &nginx[..] } else { &caddy };
    let change = change.iter().map(|(from, to)| {
        assert!(DOCUMENT.contains(to), "{to} is not in docs/https.md");
        (*from, to.replace("/tracker", path))
    });
    change.collect()
}

const DOCUMENT: &str = include_str!("../../docs/https.md");

const HASH: [u8; 20] = *b"behind a real proxy!";

/// A goat with one member and one torrent.
struct Site {
    goat: Goat,
    database: Database,
    passkey: String,
}

impl Site {
    fn start(host: &str, trusted: &[&str]) -> Site {
        Site::start_with(json!({ "Host": host, "TrustedProxies": trusted }))
    }

    fn start_with(mut settings: Value) -> Site {
        settings["SlowDown"] = json!(0);
        let database = Database::sqlite();
        let goat = Goat::start(&database, settings);
        let passkey = goat.add_user("anna").passkey;
        goat.add_torrent(crate::common::hex(&HASH));
        Site { goat, database, passkey }
    }

    fn announce(&self) -> Announce {
        Announce::new(&self.passkey, HASH, 1)
    }
}

/// A proxy with the documented configuration, but on a port of its own.
struct Proxy {
    process: Process,
    folder: Folder,
    port: u16,
    authority: Authority,
}

impl Proxy {
    /// None if there is no such program on this machine.
    fn start(program: &str, site: &Site) -> Option<Proxy> {
        Proxy::start_with(program, site, free_port(), &[])
    }

    /// With something else written into the documented configuration.
    fn start_with(program: &str, site: &Site, port: u16, change: &[(&str, String)]) -> Option<Proxy> {
        if let Some(missing) = [program, "openssl", "curl"].into_iter().find(|program| !installed(program)) {
            skip(&format!("goat behind {program}"), &format!("no {missing}"));
            return None;
        }
        let (folder, authority) = (Folder::new(), Authority::new());
        let (file, mut command) = match program {
            "nginx" => nginx(site, &folder, port, &authority, change),
            _ => caddy(site, &folder, port, &authority, change),
        };
        std::fs::write(folder.join("config"), file).unwrap();
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", folder.path());
        let mut process = Process::start(program, &mut command, folder.join("output"));
        let trust = authority.trust(rustls::ALL_VERSIONS);
        wait_until("the proxy to listen", || {
            process.assert_running();
            // Caddy listens before it has made its certificate.
            let homes = [Ipv4Addr::LOCALHOST.into(), IpAddr::from(Ipv6Addr::LOCALHOST)];
            let at = |home| TlsClient::connect((home, port).into(), &trust);
            homes.into_iter().all(|home| at(home).is_ok())
        });
        Some(Proxy { process, folder, port, authority })
    }

    /// An announce of a client at this address.
    fn curl(&self, site: &Site, client: IpAddr) -> Command {
        let (name, port) = (tls::NAME, self.port);
        self.curl_url(client, &format!("https://{name}:{port}{}", site.announce().target()))
    }

    fn curl_url(&self, client: IpAddr, url: &str) -> Command {
        let (name, port) = (tls::NAME, self.port);
        let mut command = curl(client, url);
        let at = match client {
            IpAddr::V4(_) => "127.0.0.1",
            IpAddr::V6(_) => "[::1]",
        };
        command.arg("--resolve").arg(format!("{name}:{port}:{at}"));
        command.arg("--cacert").arg(self.authority.root());
        command
    }

    /// The address that goat sees such a client at, if it sends these headers too.
    fn seen(&self, site: &Site, client: IpAddr, headers: &[String]) -> IpAddr {
        let mut curl = self.curl(site, client);
        for header in headers {
            curl.args(["--header", header]);
        }
        external_ip(&curl.output().unwrap())
    }
}

fn curl(client: IpAddr, url: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--fail", "--max-time", "60"]);
    command.args(["--user-agent", AGENT, "--noproxy", "*"]);
    command.args(["--interface", &client.to_string(), url]);
    command
}

fn external_ip(output: &Output) -> IpAddr {
    assert!(output.status.success(), "{output:?}");
    let answer = Bencode::parse(&output.stdout);
    match *answer.bytes("external ip") {
        [a, b, c, d] => [a, b, c, d].into(),
        ref ip => <[u8; 16]>::try_from(ip).unwrap().into(),
    }
}

fn nginx(
    site: &Site,
    folder: &Folder,
    port: u16,
    authority: &Authority,
    change: &[(&str, String)],
) -> (String, Command) {
    let certificate = authority.issue("nginx", tls::P256);
    let show = |path: &std::path::Path| path.display().to_string();
    let block = documented(
        "nginx",
        change,
        &[
            ("127.0.0.1:8080", &site.goat.address().to_string()),
            ("listen 443 ", &format!("listen 127.0.0.1:{port} ")),
            ("listen [::]:443 ", &format!("listen [::1]:{port} ")),
            ("/etc/letsencrypt/live/tracker.example.org/fullchain.pem", &show(&certificate.certificate)),
            ("/etc/letsencrypt/live/tracker.example.org/privkey.pem", &show(&certificate.key)),
            ("/var/log/nginx/goat.log", &show(&folder.join("goat.log"))),
        ],
    );
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {};\n", folder.join(kind).display()));
    // What Debian's /etc/nginx/nginx.conf is around it. One process, so that none is left behind.
    let file = format!(
        "daemon off;\nmaster_process off;\npid {};\nevents {{}}\nhttp {{\n{}{block}}}\n",
        folder.join("pid").display(),
        temporary.concat(),
    );
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-p"]).arg(folder.path());
    command.arg("-c").arg(folder.join("config"));
    (file, command)
}

fn caddy(
    site: &Site,
    folder: &Folder,
    port: u16,
    authority: &Authority,
    change: &[(&str, String)],
) -> (String, Command) {
    // It makes its certificate itself: here not Let's Encrypt signs it, but the test's authority.
    let root = format!(
        "pki {{\nca local {{\nroot {{\ncert {}\nkey {}\n}}\n}}\n}}",
        authority.root().display(),
        authority.join("root.key").display()
    );
    let storage = folder.join("caddy");
    let options = format!(
        "{{\nadmin off\nlocal_certs\nskip_install_trust\nauto_https disable_redirects\n\
         storage file_system {}\n{root}\n",
        storage.display()
    );
    let block = documented(
        "caddy",
        change,
        &[
            ("127.0.0.1:8080", &site.goat.address().to_string()),
            ("tracker.example.org {", &format!("tracker.example.org:{port} {{")),
        ],
    );
    let rest = block.strip_prefix("{\n").expect("it begins with the options");
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]);
    command.arg(folder.join("config"));
    (options + rest, command)
}

/// The only block of docs/https.md in this language, with everything replaced that must be different here: every
/// text to be replaced must be there once.
fn documented(language: &str, change: &[(&str, String)], replaced: &[(&str, &str)]) -> String {
    let mut blocks = DOCUMENT.split("\n```").skip(1).step_by(2);
    let mut block = blocks
        .by_ref()
        .find_map(|block| block.strip_prefix(&format!("{language}\n")))
        .unwrap_or_else(|| panic!("docs/https.md has no block for {language}"))
        .to_string()
        + "\n";
    assert!(blocks.all(|block| !block.starts_with(language)));
    let change = change.iter().map(|(from, to)| (*from, to.as_str()));
    for (from, to) in change.chain(replaced.iter().copied()) {
        assert_eq!(block.matches(from).count(), 1, "{from} in {block}");
        block = block.replace(from, to);
    }
    block
}
