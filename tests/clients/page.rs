//! The status page in a real browser: Chromium, driven over WebDriver. `GOAT_SCREENSHOTS=FOLDER` keeps what
//! the tests look like; the documents' pictures are made so.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{
    Announce, Database, Folder, Goat, PATIENCE, Process, User, basic, free_port, hex, http_get,
    info_hash, installed, skip, wait_for, wait_until,
};
use serde_json::{Value, json};

/// One command to the driver, which keeps connections open whatever it is asked for.
fn webdriver(address: SocketAddr, method: &str, path: &str, body: &Value) -> io::Result<Value> {
    let body = body.to_string();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut stream = BufReader::new(stream);
    let (mut line, mut length) = (String::new(), 0);
    while stream.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        line.clear();
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    serde_json::from_slice(&answer).map_err(io::Error::other)
}

/// A headless Chromium with a new, empty profile.
struct Browser {
    driver: Process,
    address: SocketAddr,
    session: String,
    _folder: Folder,
}

impl Browser {
    /// None if there is none on this machine.
    fn start(test: &str) -> Option<Browser> {
        for program in ["chromium", "chromedriver"] {
            if !installed(program) {
                skip(test, &format!("no {program}"));
                return None;
            }
        }
        let (folder, port) = (Folder::new(), free_port());
        let mut command = Command::new("chromedriver");
        command
            .arg(format!("--port={port}"))
            .env("HOME", folder.path());
        let driver = Process::start("chromedriver", &mut command, folder.join("log"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--force-prefers-reduced-motion",
            "--window-size=1200,1000",
        ];
        let profile = format!("--user-data-dir={}", folder.join("profile").display());
        let arguments: Vec<&str> = arguments.into_iter().chain([profile.as_str()]).collect();
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": arguments },
        } } });
        let made = wait_for("chromedriver", || {
            webdriver(address, "POST", "/session", &wanted).ok()
        });
        let session = made["value"]["sessionId"].as_str();
        let session = session
            .unwrap_or_else(|| panic!("no session: {made}"))
            .into();
        Some(Browser {
            driver,
            address,
            session,
            _folder: folder,
        })
    }

    fn post(&self, command: &str, body: Value) -> Value {
        let path = format!("/session/{}/{command}", self.session);
        let answer = webdriver(self.address, "POST", &path, &body).unwrap();
        let failed = answer["value"].get("error").is_some();
        assert!(!failed, "{command}: {answer}");
        answer["value"].clone()
    }

    /// Runs a script in the page and gives what it returns.
    fn run(&self, script: &str) -> Value {
        self.post("execute/sync", json!({ "script": script, "args": [] }))
    }

    fn cdp(&self, command: &str, parameters: Value) -> Value {
        self.post(
            "goog/cdp/execute",
            json!({ "cmd": command, "params": parameters }),
        )
    }

    fn open(&self, goat: &Goat) {
        self.post(
            "url",
            json!({ "url": format!("http://{}/", goat.address()) }),
        );
    }

    fn element(&self, selector: &str) -> String {
        let found = self.post(
            "element",
            json!({ "using": "css selector", "value": selector }),
        );
        found
            .as_object()
            .unwrap()
            .values()
            .next()
            .unwrap()
            .as_str()
            .unwrap()
            .into()
    }

    fn click(&self, selector: &str) {
        self.post(
            &format!("element/{}/click", self.element(selector)),
            json!({}),
        );
    }

    /// Types as a person does.
    fn write(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.post(&format!("element/{element}/clear"), json!({}));
        self.post(&format!("element/{element}/value"), json!({ "text": text }));
    }

    fn text(&self, selector: &str) -> String {
        let script = format!("return document.querySelector({selector:?})?.innerText ?? ''");
        self.run(&script).as_str().unwrap().into()
    }

    fn sign_in(&self, name: &str, key: &str) {
        self.write("#name", name);
        self.write("#key", key);
        self.click("#login button");
    }

    fn wait_for_text(&self, selector: &str, wanted: &str) {
        wait_until(&format!("{wanted:?} in {selector}"), || {
            self.text(selector).contains(wanted)
        });
    }

    /// Light or dark, and the size of the window in CSS pixels.
    fn look(&self, scheme: &str, width: u32, height: u32) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.cdp(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        );
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.cdp("Emulation.setDeviceMetricsOverride", size);
    }

    /// Keeps a picture of the whole page, if pictures are wanted.
    fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("GOAT_SCREENSHOTS") else {
            return;
        };
        let shot = self.cdp(
            "Page.captureScreenshot",
            json!({ "captureBeyondViewport": true }),
        );
        let encoded = shot["data"].as_str().unwrap();
        let file = Path::new(&folder).join(name).with_extension("png");
        let mut base64 = Command::new("base64");
        let mut child = base64
            .arg("-d")
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(file).unwrap())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(encoded.as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// What the browser complained about since the last call.
    fn complaints(&self) -> Vec<String> {
        let entries = self.post("se/log", json!({ "type": "browser" }));
        let entries = entries.as_array().unwrap().iter();
        entries
            .map(|entry| entry["message"].as_str().unwrap().into())
            .collect()
    }

    /// The accessibility rules that the page breaks, by axe-core; None if it is not installed.
    fn accessibility(&self, test: &str) -> Option<Vec<String>> {
        let file =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("axe/node_modules/axe-core/axe.min.js");
        let Ok(axe) = std::fs::read_to_string(&file) else {
            skip(test, "no axe-core: tests/run installs it");
            return None;
        };
        // Past the page's own policy, which lets no such script in.
        self.cdp("Runtime.evaluate", json!({ "expression": axe }));
        let found = self.post(
            "execute/async",
            json!({ "script": "const done = arguments[0];
                axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'] })
                    .then(r => done(r.violations.map(v => v.id + ': ' + v.nodes.map(n => n.html + ' ' + n.failureSummary).join(' | '))), e => done(['' + e]));",
                "args": [] }),
        );
        let found = found.as_array().unwrap().iter();
        Some(found.map(|rule| rule.as_str().unwrap().into()).collect())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ends the browser; the driver by itself would leave it running.
        let path = format!("/session/{}", self.session);
        let _ = webdriver(self.address, "DELETE", &path, &json!({}));
        self.driver.terminate();
    }
}

/// A community: an administrator, a member, torrents and peers.
struct Community {
    goat: Goat,
    admin: User,
    member: User,
}

const TORRENTS: [(&str, u64, u16, u16); 6] = [
    ("debian-13.1.0-amd64-DVD-1.iso", 3_992_977_408, 14, 3),
    (
        "Wikipedia, English, with pictures (2026-10)",
        118_111_600_640,
        9,
        4,
    ),
    ("Big Buck Bunny, 4K, 60 fps", 672_137_216, 7, 0),
    ("LibriVox: The Art of War", 91_226_112, 4, 1),
    ("OpenStreetMap, planet, 2026-11-16", 84_825_604_096, 3, 2),
    ("Blender Open Movies, collected", 25_769_803_776, 1, 0),
];

impl Community {
    fn start() -> (Community, Database) {
        let database = Database::sqlite();
        let goat = Goat::start(
            &database,
            json!({ "API": true, "UDP": true, "SlowDown": 0 }),
        );
        let admin = goat.json(&["user", "add", "ana", "--admin"]);
        let admin = User {
            id: admin["id"].as_i64().unwrap(),
            name: "ana".into(),
            passkey: admin["passkey"].as_str().unwrap().into(),
            api_key: admin["apiKey"].as_str().unwrap().into(),
        };
        let member = goat.add_user("berta");
        let others: Vec<User> = ["caro", "dietmar", "émile", "Φωτεινή", "gül"]
            .map(|name| goat.add_user(name))
            .into();
        for (number, (name, size, seeders, leechers)) in TORRENTS.into_iter().enumerate() {
            let hash = info_hash(number as u32);
            goat.add_torrent(hex(&hash));
            database.sql(&format!(
                "UPDATE files SET name = '{name}', size = {size} WHERE info_hash = '{}'",
                hex(&hash)
            ));
            for peer in 0..seeders + leechers {
                let user = match peer {
                    0 => &member,
                    _ => &others[peer as usize % others.len()],
                };
                let mut announce = Announce::new(&user.passkey, hash, number as u16 * 100 + peer);
                announce.left = if peer < seeders { 0 } else { size / 3 };
                announce.uploaded = size / 7 * u64::from(peer % 4 + 1);
                announce.downloaded = size - announce.left;
                let code = ["-qB5020-", "-TR4060-", "-DE2110-", "-lt0D80-"][peer as usize % 4];
                announce.peer_id[..8].copy_from_slice(code.as_bytes());
                announce.accepted(&goat);
            }
        }
        (
            Community {
                goat,
                admin,
                member,
            },
            database,
        )
    }

    /// What the API says to somebody.
    fn api(&self, user: &User, path: &str) -> Value {
        let credentials = basic(&user.name, &user.api_key);
        let headers = [("Authorization", credentials.as_str())];
        let (status, _, body) = http_get(self.goat.address(), path, &headers);
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }
}

/// 1234567 as 1,234,567.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    groups
        .map(|group| std::str::from_utf8(group).unwrap())
        .collect::<Vec<_>>()
        .join(",")
}

#[test]
fn a_member_who_signs_in_sees_the_numbers_of_the_api() {
    let Some(browser) = Browser::start("a_member_who_signs_in_sees_the_numbers_of_the_api") else {
        return;
    };
    let (community, _database) = Community::start();
    wait_until("the books to be written", || {
        community.api(&community.member, "/api/status")["database"]["unsavedRows"] == 0
            && community.api(&community.member, "/api/status")["seeders"] == 38
    });
    browser.open(&community.goat);
    browser.sign_in("berta", &community.member.api_key);
    browser.wait_for_text("#who", "berta");
    browser.wait_for_text("#my-torrents", "debian-13.1.0");
    let me = community.api(&community.member, "/api/me");
    let exact = |at: usize| {
        let script = format!(
            "return document.querySelectorAll('#my-tiles dd')[{at}].querySelector('[title]')?.title ?? document.querySelectorAll('#my-tiles dd')[{at}].innerText"
        );
        browser.run(&script).as_str().unwrap().to_string()
    };
    let number = |name: &str| thousands(me[name].as_u64().unwrap());
    assert_eq!(exact(1), format!("{} bytes", number("uploaded")));
    assert_eq!(exact(2), format!("{} bytes", number("downloaded")));
    assert_eq!(exact(3), number("seeding"));
    assert_eq!(exact(4), number("leeching"));
    assert_eq!(exact(5), number("snatches"));
    assert_eq!(exact(6), format!("{} seconds", number("seedTime")));
    assert_eq!(me["seeding"], 6);
    assert_eq!(
        browser.run("return document.querySelectorAll('#my-torrents tbody tr').length"),
        6
    );
    // Counts of others, but nothing else of them: no page of the community.
    browser.wait_for_text("#others", "7");
    assert_eq!(
        browser.run("return document.querySelector('nav').hidden"),
        true
    );
    // The passkey is shown on demand only.
    let passkey = community.member.passkey.as_str();
    assert!(!browser.text("#urls").contains(passkey));
    browser.click("#reveal");
    browser.wait_for_text("#urls", passkey);
    for url in me["announce"].as_array().unwrap() {
        assert!(browser.text("#urls").contains(url.as_str().unwrap()));
    }
    browser.click("#reveal");
    wait_until("the passkey to be hidden", || {
        !browser.text("#urls").contains(passkey)
    });
    browser.look("light", 1200, 900);
    browser.picture("member-light");
    browser.look("dark", 390, 844);
    browser.picture("member-phone-dark");
    // Still there after a reload, gone after signing out.
    browser.open(&community.goat);
    browser.wait_for_text("#who", "berta");
    browser.click("#out");
    assert_eq!(browser.run("return sessionStorage.length"), 0);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn under_a_path_of_a_proxy_the_page_works_with_and_without_a_slash_at_its_end() {
    let test = "under_a_path_of_a_proxy_the_page_works_with_and_without_a_slash_at_its_end";
    let Some(browser) = Browser::start(test) else {
        return;
    };
    if !installed("nginx") {
        return skip(test, "no nginx");
    }
    let (database, folder, port) = (Database::sqlite(), Folder::new(), free_port());
    let home = format!("http://127.0.0.1:{port}/tracker");
    let settings = json!({ "API": true, "URL": home, "TrustedProxies": ["127.0.0.1"] });
    let goat = Goat::start(&database, settings);
    let member = goat.add_user("berta");
    let show = |name: &str| folder.join(name).display().to_string();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {};\n", show(kind)));
    let places = ["= /tracker", "/tracker/"].map(|place| {
        format!(
            "location {place} {{ proxy_pass http://{}/; }}\n",
            goat.address()
        )
    });
    let config = format!(
        "daemon off;\nmaster_process off;\npid {};\nevents {{}}\nhttp {{\naccess_log off;\n{}\
         server {{\nlisten 127.0.0.1:{port};\n{}}}\n}}\n",
        show("pid"),
        temporary.concat(),
        places.concat(),
    );
    std::fs::write(folder.join("config"), config).unwrap();
    let mut command = Command::new("nginx");
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.args(["-e", "stderr", "-p"]).arg(folder.path());
    command.arg("-c").arg(folder.join("config"));
    let mut nginx = Process::start("nginx", &mut command, folder.join("output"));
    wait_until("nginx to listen", || {
        nginx.assert_running();
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    for slash in ["", "/"] {
        browser.post("url", json!({ "url": format!("{home}{slash}") }));
        browser.sign_in("berta", &member.api_key);
        browser.wait_for_text("#who", "berta");
        browser.click("#reveal");
        let url = format!("{home}/{}/announce", member.passkey);
        browser.wait_for_text("#urls", &url);
        browser.click("#out");
    }
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn an_administrator_sees_the_community_move() {
    let Some(browser) = Browser::start("an_administrator_sees_the_community_move") else {
        return;
    };
    let (community, database) = Community::start();
    let (goat, admin) = (&community.goat, &community.admin);
    // A week that has passed, so that there is something to draw.
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    for hour in 1..168 {
        let wave = (f64::from(hour) / 24.0 * std::f64::consts::TAU).sin() + 1.4;
        let time = now / 3600 * 3600 - u64::from(hour as u32) * 3600;
        database.sql(&format!(
            "INSERT INTO hours VALUES ({time}, {0}, {1}, {2}, {3}, {4}, {5})",
            (wave * 9000.0) as u64,
            (wave * wave * 200.0) as u64,
            (wave * 21.0) as u64 + 9,
            (wave * 6.0) as u64 + 2,
            (wave * 61e9) as u64,
            (wave * 52e9) as u64,
        ));
    }
    browser.open(goat);
    browser.sign_in("ana", &admin.api_key);
    browser.wait_for_text("#who", "ana");
    browser.wait_for_text("#busy", "debian-13.1.0");

    // Numbers equal those of the API.
    wait_for("the peers to be counted", || {
        let status = community.api(admin, "/api/status");
        (status["seeders"] == 38 && status["leechers"] == 10).then_some(())
    });
    // Both are some seconds old, and not of the same second.
    wait_for("the page to say what the API says", || {
        let status = community.api(admin, "/api/status");
        let tiles = browser.text("#all-tiles");
        let says = |number: &str| {
            let number = thousands(status[number].as_u64().unwrap());
            tiles.lines().any(|line| line == number)
        };
        ["users", "torrents", "seeders", "leechers"]
            .into_iter()
            .all(says)
            .then_some(())
    });
    let users = community.api(admin, "/api/users?sort=-uploaded&limit=10");
    let first = users[0]["name"].as_str().unwrap();
    assert!(browser.text("#members tbody tr").starts_with(first));
    let peers: u64 = community
        .api(admin, "/api/clients")
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["peers"].as_u64().unwrap())
        .sum();
    assert_eq!(peers, 48);
    browser.wait_for_text("#clients", "Transmission");

    // The graph moves while announces run.
    let line =
        || browser.run("return document.querySelector('#charts .s0[d]')?.getAttribute('d') ?? ''");
    let before = line();
    let hash = info_hash(0);
    let mut announce = Announce::new(&community.member.passkey, hash, 0);
    let mut round = 0u64;
    wait_until("the graph of announces to rise", || {
        round += 1;
        (announce.event, announce.left) = ("", 0);
        announce.uploaded = round * 50_000_000;
        (0..20).for_each(|_| drop(announce.accepted(goat)));
        let shown = browser.text("#charts .key b");
        line() != before
            && shown
                .trim_end_matches("/s")
                .parse::<f64>()
                .is_ok_and(|rate| rate > 1.0)
    });
    let now_read = browser.run(
        "const input = document.querySelector('#charts input'); input.focus(); return input.getAttribute('aria-valuetext')",
    );
    assert!(
        now_read.as_str().unwrap().contains("answered"),
        "{now_read}"
    );

    // What awaits approval shows up, and goes when it is approved.
    let stranger = Announce::new(&community.member.passkey, info_hash(99), 7);
    assert_eq!(stranger.refusal(goat), "Unregistered torrent");
    let mut client = Announce::new(&community.member.passkey, hash, 8);
    client.agent = "MyClient/2.1 'quoted'".into();
    client.peer_id = *b"-XX0000-000000000000";
    assert_eq!(client.refusal(goat), "Your client is not whitelisted");
    // With the configuration that goat was started with.
    let start = format!("goat --config {}", goat.config_path().display());
    let command = format!("{start} file approve {}", hex(&info_hash(99)));
    browser.wait_for_text("#pending", &command);
    browser.wait_for_text(
        "#pending",
        &format!(r"{start} client approve 'MyClient/2.1 '\''quoted'\'''"),
    );
    browser.run("document.querySelector('#span input[value=\"604800\"]').click()");
    browser.look("light", 1200, 1000);
    browser.picture("community-light");
    let (status, ..) = goat.cli(&["file", "approve", "--all"]);
    assert!(status.success());
    wait_until("the approved torrent to go from the list", || {
        !browser.text("#pending").contains(&command)
    });
    browser.wait_for_text("#all-tiles", "7");

    browser.look("dark", 1200, 1000);
    browser.picture("community-dark");
    browser.look("light", 390, 844);
    browser.picture("community-phone-light");
    let wide = browser
        .run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
    assert_eq!(wide, 0, "a phone need not scroll sideways");

    // Nothing came from anywhere else, and nothing went wrong.
    let elsewhere = browser.run(
        "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(location.origin + '/api/'))",
    );
    assert_eq!(elsewhere, json!([]));
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_wrong_key_is_refused_and_a_key_that_dies_signs_out() {
    let Some(browser) = Browser::start("a_wrong_key_is_refused_and_a_key_that_dies_signs_out")
    else {
        return;
    };
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "API": true }));
    let user = goat.add_user("berta");
    browser.open(&goat);
    browser.sign_in("berta", "0123456789012345678901234567890123456789");
    browser.wait_for_text("#login-error", "Wrong user name or API key");
    assert_eq!(
        browser.run("return document.getElementById('app').hidden"),
        true
    );
    browser.look("light", 1200, 700);
    browser.picture("login-light");
    browser.sign_in("berta", &user.api_key);
    browser.wait_for_text("#who", "berta");
    database.sql("DELETE FROM api_keys");
    browser.wait_for_text("#login-error", "Wrong user name or API key");
    assert_eq!(
        browser.run("return document.getElementById('app').hidden"),
        true
    );
    assert!(
        !browser
            .run("return document.body.innerHTML")
            .as_str()
            .unwrap()
            .contains(&user.passkey)
    );
    // The browser itself notes each 401; there is nothing else.
    let rest: Vec<String> = browser
        .complaints()
        .into_iter()
        .filter(|line| !line.contains("status of 401"))
        .collect();
    assert_eq!(rest, [""; 0]);
}

#[test]
fn the_page_works_without_the_mouse() {
    let Some(browser) = Browser::start("the_page_works_without_the_mouse") else {
        return;
    };
    let (community, _database) = Community::start();
    browser.open(&community.goat);
    // Tab and Enter, from the field that has the focus by itself.
    let keys = |text: &str| {
        let steps: Vec<Value> = text
            .chars()
            .flat_map(|key| {
                [
                    json!({ "type": "keyDown", "value": key }),
                    json!({ "type": "keyUp", "value": key }),
                ]
            })
            .collect();
        browser.post(
            "actions",
            json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": steps }] }),
        );
    };
    const TAB: char = '\u{e004}';
    const ENTER: char = '\u{e007}';
    const LEFT: char = '\u{e012}';
    keys(&format!("ana{TAB}{}{ENTER}", community.admin.api_key));
    browser.wait_for_text("#busy", "debian-13.1.0");
    let focused =
        || browser.run("return document.activeElement.ariaLabel ?? document.activeElement.id");
    assert_eq!(focused(), "main");
    browser.run("document.getElementById('to-me').focus()");
    keys(&ENTER.to_string());
    browser.wait_for_text("#my-tiles", "Ratio");
    browser.run("document.getElementById('to-all').focus()");
    keys(&ENTER.to_string());
    wait_until("two points to walk between", || {
        browser.run("return document.querySelector('#charts input').max > 0") == true
    });
    browser.run("document.querySelector('#charts input').focus()");
    assert_eq!(focused(), "Announces");
    keys(&LEFT.to_string());
    browser.wait_for_text("#charts .read", "answered");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn axe_finds_no_violation_in_any_view() {
    let test = "axe_finds_no_violation_in_any_view";
    let Some(browser) = Browser::start(test) else {
        return;
    };
    let (community, _database) = Community::start();
    browser.open(&community.goat);
    for (scheme, width) in [
        ("light", 1200),
        ("dark", 1200),
        ("light", 390),
        ("dark", 390),
    ] {
        let check = |view: &str| {
            let Some(violations) = browser.accessibility(test) else {
                return false;
            };
            assert!(
                violations.is_empty(),
                "{view}, {scheme}, {width}: {violations:#?}"
            );
            true
        };
        browser.look(scheme, width, 900);
        if !check("login") {
            return;
        }
        browser.sign_in("ana", &community.admin.api_key);
        browser.wait_for_text("#busy", "debian-13.1.0");
        check("community");
        browser.click("#to-me");
        browser.wait_for_text("#my-tiles", "Ratio");
        check("you");
        browser.click("#out");
        browser.sign_in("berta", &community.member.api_key);
        browser.wait_for_text("#my-torrents", "debian-13.1.0");
        check("member");
        browser.click("#out");
    }
}

#[test]
fn names_that_hold_html_stay_text() {
    let Some(browser) = Browser::start("names_that_hold_html_stay_text") else {
        return;
    };
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "API": true }));
    const EVIL: &str = "\"><img src=x onerror=evil=1><script>evil=1</script>{{7*7}}</style>";
    let admin = goat.json(&["user", "add", "<b onclick=evil=1>ana</b>", "--admin"]);
    let member = goat.add_user("<img src=x onerror=evil=1>");
    let hash = info_hash(1);
    goat.add_torrent(hex(&hash));
    database.sql(&format!("UPDATE files SET name = '{EVIL}'"));
    // Two clients at once: one that is not let in, and a peer id on an approved prefix.
    database.sql(&format!(
        "INSERT INTO whitelist (client, approved) VALUES ('-<i>', 1), ('{EVIL}', 0)"
    ));
    let mut announce = Announce::new(&member.passkey, hash, 1);
    announce.agent = "<script>evil=1</script>".into();
    announce.peer_id = *b"-<i>000-<script>evil";
    wait_until("the approved client to be known", || {
        announce.refusal(&goat).is_empty()
    });
    announce.peer_id = *b"-XX0000-<script>evil";
    assert_eq!(announce.refusal(&goat), "Your client is not whitelisted");
    browser.open(&goat);
    browser.sign_in(
        "<b onclick=evil=1>ana</b>",
        admin["apiKey"].as_str().unwrap(),
    );
    browser.wait_for_text("#busy", EVIL);
    browser.wait_for_text("#who", "<b onclick=evil=1>ana</b>");
    browser.wait_for_text("#members", "<img src=x onerror=evil=1>");
    browser.wait_for_text("#pending", "<script>evil=1</script>");
    browser.wait_for_text("#clients", "-<i>");
    browser.click("#out");
    browser.sign_in(&member.name, &member.api_key);
    browser.wait_for_text("#my-torrents", EVIL);
    assert_eq!(browser.run("return typeof evil"), "undefined");
    assert_eq!(browser.run("return document.images.length + document.querySelectorAll('i, body > script:not(:last-of-type)').length"), 0);
    // Even a script that got in would not run.
    browser.cdp(
        "Runtime.evaluate",
        json!({ "expression": "const s = document.createElement('script'); try { s.textContent = 'evil = 1' } catch {} document.body.append(s)" }),
    );
    assert_eq!(browser.run("return typeof evil"), "undefined");
}

#[test]
fn a_reload_while_the_database_is_away_keeps_the_member_signed_in() {
    let test = "a_reload_while_the_database_is_away_keeps_the_member_signed_in";
    let Some(browser) = Browser::start(test) else {
        return;
    };
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "API": true }));
    let user = goat.add_user("berta");
    browser.open(&goat);
    browser.sign_in("berta", &user.api_key);
    browser.wait_for_text("#who", "berta");
    database.sql("ALTER TABLE api_keys RENAME TO away");
    browser.open(&goat);
    browser.wait_for_text("#login-error", "The database does not answer");
    assert_eq!(browser.run("return sessionStorage.length"), 1);
    database.sql("ALTER TABLE away RENAME TO api_keys");
    browser.wait_for_text("#who", "berta");
    // A key that is refused is forgotten. (The page that is open now would be told so, too.)
    browser.run("location.replace('about:blank')");
    wait_until("the page to be left", || {
        browser.run("return location.href") == "about:blank"
    });
    database.sql("DELETE FROM api_keys");
    browser.open(&goat);
    browser.wait_for_text("#login-error", "Wrong user name or API key");
    assert_eq!(browser.run("return sessionStorage.length"), 0);
}

#[test]
fn an_update_that_is_under_way_ends_with_signing_out() {
    let Some(browser) = Browser::start("an_update_that_is_under_way_ends_with_signing_out") else {
        return;
    };
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "API": true }));
    let (berta, caro) = (goat.add_user("berta"), goat.add_user("caro"));
    browser.open(&goat);
    browser.sign_in("berta", &berta.api_key);
    browser.wait_for_text("#who", "berta");
    browser.run(
        "const real = fetch; window.sent = [], window.held = null;
         window.fetch = (url, options) => new Promise(go => {
             sent.push(options.headers.Authorization);
             const ask = () => go(real(url, options));
             if (held || !url.startsWith(location.origin + '/api/me')) ask(); else held = ask;
         });",
    );
    wait_until("an update to be under way", || {
        browser.run("return held !== null") == true
    });
    browser.click("#out");
    browser.run("held()");
    browser.sign_in("caro", &caro.api_key);
    browser.wait_for_text("#who", "caro");
    assert_eq!(browser.text("#login-error"), "");
    assert_eq!(browser.run("return sent.includes('')"), false);
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_ban_or_a_right_that_is_lost_signs_out_and_says_why() {
    let Some(browser) = Browser::start("a_ban_or_a_right_that_is_lost_signs_out_and_says_why")
    else {
        return;
    };
    let (community, database) = Community::start();
    browser.open(&community.goat);
    for (name, key, sql, why) in [
        (
            "ana",
            &community.admin.api_key,
            "UPDATE users SET admin = 0 WHERE username = 'ana'",
            "This is for administrators",
        ),
        (
            "berta",
            &community.member.api_key,
            "UPDATE users SET banned = 1 WHERE username = 'berta'",
            "This user is banned",
        ),
    ] {
        browser.sign_in(name, key);
        browser.wait_for_text("#who", name);
        database.sql(sql);
        browser.wait_for_text("#login-error", why);
        assert_eq!(browser.run("return sessionStorage.length"), 0);
        assert_eq!(
            browser.run("return document.getElementById('app').hidden"),
            true
        );
    }
}

#[test]
fn who_looks_again_sees_the_hours_that_passed_meanwhile() {
    let Some(browser) = Browser::start("who_looks_again_sees_the_hours_that_passed_meanwhile")
    else {
        return;
    };
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "API": true }));
    let admin = goat.json(&["user", "add", "ana", "--admin"]);
    browser.open(&goat);
    browser.sign_in("ana", admin["apiKey"].as_str().unwrap());
    browser.wait_for_text("#who", "ana");
    // Nobody looks from the round on that follows one of the lists: the next would have none either.
    browser.run(
        "const real = fetch; let hidden = false; window.sent = [];
         Object.defineProperty(document, 'hidden', { get: () => hidden });
         window.look = () => { hidden = false; sent = []; document.dispatchEvent(new Event('visibilitychange')); };
         window.fetch = (whole, options) => {
             const url = whole.replace(location.origin, '');
             if (url === '/api/status' && sent.includes('/api/clients')) hidden = true;
             sent.push(url);
             return real(whole, options);
         };",
    );
    wait_until("nobody to look", || {
        browser.run("return document.hidden") == true
    });
    browser.run("look()");
    wait_until("the lists", || {
        browser.run("return sent.includes('/api/clients')") == true
    });
    let rounds = "return sent.slice(0, sent.indexOf('/api/clients')).filter(url => url === '/api/status').length";
    assert_eq!(browser.run(rounds), 1);
}

#[test]
fn the_commands_shown_approve_what_awaits_approval_and_the_lists_say_where_they_end() {
    let test = "the_commands_shown_approve_what_awaits_approval_and_the_lists_say_where_they_end";
    let Some(browser) = Browser::start(test) else {
        return;
    };
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "API": true }));
    let admin = goat.json(&["user", "add", "ana", "--admin"]);
    database.sql(
        "INSERT INTO whitelist (client, suggested) VALUES ('--all', 2000000000), ('-x', 2000000000), ('--it''s 1', 2000000000), ('$(exit 9)', 2000000000);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 101)
         INSERT INTO files (info_hash, verified, suggested) SELECT printf('%040x', i), i > 21, 2000000000 FROM n;
         INSERT INTO totals SELECT id, 1, '127.0.0.1', 0, 1, 0, 0, 0, 0, 0, id, 0 FROM files",
    );
    browser.open(&goat);
    browser.sign_in("ana", admin["apiKey"].as_str().unwrap());
    let script =
        "return [...document.querySelectorAll('#pending-list code')].map(c => c.innerText)";
    let commands = || browser.run(script).as_array().unwrap().clone();
    let hidden = |id: &str| browser.run(&format!("return document.getElementById('{id}').hidden"));
    wait_until("what awaits approval", || commands().len() == 24);
    assert_eq!(hidden("pending-more"), false);
    let start = format!("goat --config {}", goat.config_path().display());
    for family in ["file", "client"] {
        let list = format!("{start} {family} list --pending");
        assert_eq!(browser.text(&format!("#list-{family}s")), list);
    }
    for command in commands() {
        let script = format!(
            "goat() {{ {} \"$@\"; }}; {}",
            env!("CARGO_BIN_EXE_goat"),
            command.as_str().unwrap()
        );
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
    }
    let clients = "SELECT COUNT(*) FROM whitelist WHERE approved = 0";
    assert_eq!(database.number(clients), 0);
    wait_until("the one that was not shown", || commands().len() == 1);
    assert_eq!(hidden("pending-more"), true);
    // A member who is on more torrents than are shown.
    browser.click("#to-me");
    let rows = || browser.run("return document.querySelectorAll('#my-torrents tbody tr').length");
    wait_until("torrents", || rows() == 100);
    assert_eq!(hidden("my-more"), false);
    database.sql("DELETE FROM totals WHERE file_id = 1");
    wait_until("the list to be whole", || hidden("my-more") == true);
    assert_eq!(rows(), 100);
}
