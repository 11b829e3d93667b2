//! The status page in a real browser: what it shows is what the API says, and it stays usable, whoever looks at it, on
//! whatever screen, whatever names its members choose, and whatever goes away under it.

use std::net::TcpStream;
use std::process::Command;

use crate::browser::{Browser, ENTER, LEFT, TAB};
use crate::common::{
    Announce, Database, Folder, Goat, Process, User, basic, free_port, hex, http_get, http_post, info_hash, installed,
    skip, wait_for, wait_until,
};
use serde_json::{Value, json};

/// A community: an administrator, a member, torrents and peers.
pub struct Community {
    pub goat: Goat,
    pub admin: User,
    pub member: User,
}

const TORRENTS: [(&str, u64, u16, u16); 6] = [
    ("debian-13.1.0-amd64-DVD-1.iso", 3_992_977_408, 14, 3),
    ("Wikipedia, English, with pictures (2026-10)", 118_111_600_640, 9, 4),
    ("Big Buck Bunny, 4K, 60 fps", 672_137_216, 7, 0),
    ("LibriVox: The Art of War", 91_226_112, 4, 1),
    ("OpenStreetMap, planet, 2026-11-16", 84_825_604_096, 3, 2),
    ("Blender Open Movies, collected", 25_769_803_776, 1, 0),
];

impl Community {
    pub fn start() -> (Community, Database) {
        let database = Database::sqlite();
        let goat = Goat::start(&database, json!({ "API": true, "UDP": true, "SlowDown": 0 }));
        let admin = goat.json(&["user", "add", "ana", "--admin"]);
        let admin = User {
            id: admin["id"].as_i64().unwrap(),
            name: "ana".into(),
            passkey: admin["passkey"].as_str().unwrap().into(),
            api_key: admin["apiKey"].as_str().unwrap().into(),
        };
        let member = goat.add_user("berta");
        let others: Vec<User> = ["caro", "dietmar", "émile", "Φωτεινή", "gül"].map(|name| goat.add_user(name)).into();
        for (number, (name, size, seeders, leechers)) in TORRENTS.into_iter().enumerate() {
            let hash = info_hash(number as u32);
            goat.add_torrent(hex(&hash));
            database
                .sql(&format!("UPDATE files SET name = '{name}', size = {size} WHERE info_hash = '{}'", hex(&hash)));
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
        // They were given as files, one of them as freeleech. What is in them is of no matter here.
        database.sql(
            "INSERT INTO torrents (file_id, user_id, files, info) SELECT id, 1, id * 3, x'6465' FROM files;
             UPDATE files SET download_percent = 0 WHERE id = 3",
        );
        (Community { goat, admin, member }, database)
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
    groups.map(|group| std::str::from_utf8(group).unwrap()).collect::<Vec<_>>().join(",")
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
    browser.wait_for_text("#results", "debian-13.1.0");
    browser.look("light", 1200, 900);
    browser.picture("torrents-light");
    browser.click("#to-me");
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
    assert_eq!(browser.run("return document.querySelectorAll('#my-torrents tbody tr').length"), 6);
    // Counts of others, but nothing else of them: no page of the community.
    browser.wait_for_text("#others", "7");
    assert_eq!(browser.run("return document.getElementById('to-all').hidden"), true);
    // The passkey is shown on demand only.
    let passkey = community.member.passkey.as_str();
    assert!(!browser.text("#urls").contains(passkey));
    browser.click("#reveal");
    browser.wait_for_text("#urls", passkey);
    for url in me["announce"].as_array().unwrap() {
        assert!(browser.text("#urls").contains(url.as_str().unwrap()));
    }
    browser.click("#reveal");
    wait_until("the passkey to be hidden", || !browser.text("#urls").contains(passkey));
    browser.look("light", 1200, 900);
    browser.picture("member-light");
    browser.look("dark", 390, 844);
    browser.picture("member-phone-dark");
    // Still there after a reload, by a token and nothing else; gone after signing out, and the token with it.
    browser.open(&community.goat);
    browser.wait_for_text("#who", "berta");
    assert_eq!(browser.run("return document.cookie + Object.keys(sessionStorage) + localStorage.length"), "goat0");
    let token = browser.run("return sessionStorage.getItem('goat')");
    let token = token.as_str().unwrap();
    assert!(!token.contains(&community.member.api_key));
    let bearer = format!("Bearer {token}");
    let status = || {
        let (status, ..) = http_get(community.goat.address(), "/api/me", &[("Authorization", &bearer)]);
        status
    };
    assert_eq!(status(), 200);
    browser.click("#out");
    assert_eq!(browser.run("return sessionStorage.length"), 0);
    wait_until("the token to be dead", || status() == 401);
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
    let temporary =
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {};\n", show(kind)));
    let places = ["= /tracker", "/tracker/"]
        .map(|place| format!("location {place} {{ proxy_pass http://{}/; }}\n", goat.address()));
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
        browser.click("#to-me");
        browser.click("#reveal");
        let url = format!("{home}/{}/announce", member.passkey);
        browser.wait_for_text("#urls", &url);
        let feed = format!("{home}/{}/rss", member.passkey);
        browser.wait_for_text("#feeds", &feed);
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
        ["users", "torrents", "seeders", "leechers"].into_iter().all(says).then_some(())
    });
    let users = community.api(admin, "/api/users?sort=-uploaded&limit=10");
    let first = users[0]["name"].as_str().unwrap();
    assert!(browser.text("#members tbody tr").starts_with(first));
    let peers: u64 =
        community.api(admin, "/api/clients").as_array().unwrap().iter().map(|c| c["peers"].as_u64().unwrap()).sum();
    assert_eq!(peers, 48);
    browser.wait_for_text("#clients", "Transmission");

    // The graph moves while announces run.
    let line = || browser.run("return document.querySelector('#charts .s0[d]')?.getAttribute('d') ?? ''");
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
        line() != before && shown.trim_end_matches("/s").parse::<f64>().is_ok_and(|rate| rate > 1.0)
    });
    let now_read = browser.run(
        "const input = document.querySelector('#charts input'); input.focus(); return input.getAttribute('aria-valuetext')",
    );
    assert!(now_read.as_str().unwrap().contains("answered"), "{now_read}");

    // What awaits approval shows up, and goes when it is approved.
    let stranger = Announce::new(&community.member.passkey, info_hash(99), 7);
    assert_eq!(stranger.refusal(goat), "Unregistered torrent");
    let mut client = Announce::new(&community.member.passkey, hash, 8);
    client.agent = "MyClient/2.1 'quoted'".into();
    client.peer_id = *b"-XX0000-000000000000";
    assert_eq!(client.refusal(goat), "Your client is not whitelisted");
    let unknown = hex(&info_hash(99));
    browser.wait_for_text("#pending", &unknown);
    browser.wait_for_text("#pending", "MyClient/2.1 'quoted'");
    browser.run("document.querySelector('#span input[value=\"604800\"]').click()");
    browser.look("light", 1200, 1000);
    browser.picture("community-light");
    let (status, ..) = goat.cli(&["file", "approve", "--all"]);
    assert!(status.success());
    wait_until("the approved torrent to go from the list", || !browser.text("#pending").contains(&unknown));
    browser.wait_for_text("#all-tiles", "7");

    browser.look("dark", 1200, 1000);
    browser.picture("community-dark");
    browser.look("light", 390, 844);
    browser.picture("community-phone-light");
    assert_eq!(browser.overflow(), 0, "a phone need not scroll sideways");

    // Nothing came from anywhere else, and nothing went wrong.
    let elsewhere = browser.run(
        "return performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith(location.origin + '/api/'))",
    );
    assert_eq!(elsewhere, json!([]));
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_wrong_key_is_refused_and_a_key_that_dies_signs_out() {
    let Some(browser) = Browser::start("a_wrong_key_is_refused_and_a_key_that_dies_signs_out") else {
        return;
    };
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "API": true }));
    let user = goat.add_user("berta");
    browser.open(&goat);
    browser.sign_in("berta", "0123456789012345678901234567890123456789");
    browser.wait_for_text("#login-error", "Wrong user name");
    assert_eq!(browser.run("return document.getElementById('app').hidden"), true);
    browser.look("light", 1200, 700);
    browser.picture("login-light");
    browser.sign_in("berta", &user.api_key);
    browser.wait_for_text("#who", "berta");
    database.sql("DELETE FROM api_keys");
    browser.wait_for_text("#login-error", "signed out");
    assert_eq!(browser.run("return document.getElementById('app').hidden"), true);
    assert!(!browser.run("return document.body.innerHTML").as_str().unwrap().contains(&user.passkey));
    // The browser itself notes each 401; there is nothing else.
    let rest: Vec<String> = browser.complaints().into_iter().filter(|line| !line.contains("status of 401")).collect();
    assert_eq!(rest, [""; 0]);
}

#[test]
fn the_page_works_without_the_mouse() {
    let Some(browser) = Browser::start("the_page_works_without_the_mouse") else {
        return;
    };
    let (community, _database) = Community::start();
    let stranger = Announce::new(&community.member.passkey, info_hash(99), 7);
    assert_eq!(stranger.refusal(&community.goat), "Unregistered torrent");
    let unknown = hex(&info_hash(99));
    browser.open(&community.goat);
    // Tab and Enter, from the field that has the focus by itself.
    browser.keys(&format!("ana{TAB}{}{ENTER}", community.admin.api_key));
    browser.wait_for_text("#pending", &unknown);
    assert_eq!(browser.focused(), "main");
    // On by Tab until something has the focus.
    let go_to = |name: &str| {
        wait_until(name, || {
            browser.keys(&TAB.to_string());
            browser.focused() == name
        });
    };
    // What waits for approval is approved.
    go_to(&format!("Approve {unknown}"));
    browser.keys(&ENTER.to_string());
    browser.wait_for_text("#said", "is approved");
    wait_until("the focus to stay where there is something", || {
        browser.run("return document.activeElement !== document.body") == true
    });
    // A member is banned; the dialog takes the focus, and gives it back.
    go_to("Manage gül");
    browser.keys(&ENTER.to_string());
    browser.wait_for_text("#dialog", "Last announce");
    assert_eq!(browser.focused(), "Ban…");
    browser.keys(&ENTER.to_string());
    browser.wait_for_text("#dialog", "told the reason");
    browser.keys(&format!("No seeding{ENTER}"));
    browser.wait_for_text("#members", "No seeding");
    wait_until("the focus to be back", || browser.focused() == "Manage gül");
    // A dialog is left by Escape.
    browser.keys(&ENTER.to_string());
    browser.wait_for_text("#dialog", "No seeding");
    browser.keys("\u{e00c}");
    assert_eq!(browser.focused(), "Manage gül");
    // The graphs are walked along.
    wait_until("two points to walk between", || {
        browser.run("return document.querySelector('#charts input').max > 0") == true
    });
    go_to("Announces");
    browser.keys(&LEFT.to_string());
    browser.wait_for_text("#charts .read", "answered");
    // Search: the page says what it found, and the torrent is opened.
    browser.focus("Torrents");
    browser.keys(&ENTER.to_string());
    browser.wait_for_text("#results", "debian-13.1.0");
    go_to("Search in names of torrents and files");
    browser.keys("bunny 4k");
    browser.wait_for_text("#found", "1 torrent");
    go_to("Big Buck Bunny, 4K, 60 fps");
    browser.keys(&ENTER.to_string());
    browser.wait_for_text("#torrent h1", "Big Buck Bunny");
    assert_eq!(browser.focused(), "main");
    assert_eq!(browser.run("return document.title"), "Big Buck Bunny, 4K, 60 fps · goat");
    browser.run("history.back()");
    browser.wait_for_text("#results", "Big Buck Bunny");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn graphs_have_no_hole_after_a_restart_and_axes_say_whole_hours_and_midnights() {
    let test = "graphs_have_no_hole_after_a_restart_and_axes_say_whole_hours_and_midnights";
    let Some(browser) = Browser::start(test) else {
        return;
    };
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "API": true }));
    let admin = goat.json(&["user", "add", "ana", "--admin"]);
    browser.open(&goat);
    // A tracker that started a minute after the one before ended, and has 10 announces a second, and no traffic. It
    // knows by the minute of the one before.
    browser.run(
        "const real = fetch; let end = 0;
         window.fetch = async (url, options) => {
             const answer = await real(url, options);
             const path = url.replace(location.origin, '');
             if (path !== '/api/status' && !path.startsWith('/api/history')) return answer;
             const json = await answer.json();
             if (path === '/api/status') { end = json.time; json.startTime = end - 300; return Response.json(json); }
             const row = (time, step) => [time, 10 * step, 0, 3, 1, 0, 0];
             json.recent = [], json.hours = [];
             if (path !== '/api/history') return Response.json(json);
             for (let ago = 1740; ago >= 360; ago -= 60) json.recent.push(row(end - ago, 60));
             for (let ago = 295; ago >= 0; ago -= 5) json.recent.push(row(end - ago, 5));
             for (let hour = 1; hour < 168; hour++) json.hours.push(row(end - end % 3600 - hour * 3600, 3600));
             return Response.json(json);
         };",
    );
    browser.sign_in("ana", admin["apiKey"].as_str().unwrap());
    browser.wait_for_text("#charts .key b", "10/s");
    let lines = "return document.querySelector('#charts .s0[d]').getAttribute('d').match(/[ML][^ML]*/g)";
    wait_until("the line", || browser.run(lines).as_array().is_some_and(|points| points.len() > 80));
    let parts = "return document.querySelector('#charts .s0[d]').getAttribute('d').match(/M/g).length";
    assert_eq!(browser.run(parts), 1, "a restart of a minute is no hole");
    // The line is as flat as it was: each point is at the same height.
    let heights = "return new Set(document.querySelector('#charts .s0[d]').getAttribute('d').match(/,[\\d.]+/g)).size";
    assert_eq!(browser.run(heights), 1);
    let labels = "return [...document.querySelectorAll('#charts figure')].map(f => [...f.querySelectorAll('.axis text')].map(t => t.textContent))";
    for width in [1280, 360] {
        browser.look("light", width, 900);
        for (span, pattern) in
            [("recent", r"^\d\d:\d0$"), ("86400", r"^\d\d:00$"), ("604800", r"^\d{1,2} [A-Z][a-z]{2,}$")]
        {
            browser.run(&format!("document.querySelector('#span input[value=\"{span}\"]').click()"));
            wait_until("the axes", || {
                let shown = browser.run(labels);
                let shown = shown.as_array().unwrap();
                let good = format!("return new RegExp({pattern:?}).test(arguments[0])");
                shown.len() == 3
                    && shown.iter().all(|axis| {
                        let axis: Vec<&str> =
                            axis.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
                        let times = &axis[3..];
                        times.len() >= 2
                            && times.iter().all(|time| {
                                browser.post("execute/sync", json!({ "script": good, "args": [time] })) == true
                            })
                    })
            });
            // No two marks of an axis say the same.
            let shown = browser.run(labels);
            assert_eq!(shown[2][0], "0 B", "{shown}");
            assert_eq!(shown[2][1], "512 B", "{shown}");
            assert_eq!(shown[2][2], "1 KiB", "{shown}");
        }
    }
    assert_eq!(browser.complaints(), [""; 0]);
}

/// Shows each view of the page, as an administrator and as a member, and has `check` look at it.
fn each_view(browser: &Browser, community: &Community, check: &dyn Fn(&str)) {
    let Community { goat, admin, member } = community;
    browser.open(goat);
    browser.wait_for_text("#login", "Sign in");
    check("login");
    let (_, _, made) =
        http_post(goat.address(), "/api/me/invite", &[("Authorization", &basic(&admin.name, &admin.api_key))], b"")
            .unwrap();
    let made: Value = serde_json::from_slice(&made).unwrap();
    browser.visit("about:blank");
    browser.visit(made["link"].as_str().unwrap());
    browser.wait_for_text("#join-by", "ana invites you");
    check("join");
    browser.click("#join-back a");
    browser.sign_in("ana", &admin.api_key);
    browser.wait_for_text("#busy", "debian-13.1.0");
    browser.wait_for_text("#log", "user add");
    check("community");
    browser.press("All clients");
    check("all clients");
    browser.press("Manage gül");
    browser.wait_for_text("#dialog", "Last announce");
    check("a member");
    browser.press("Credit…");
    check("a form");
    browser.press("Cancel");
    browser.click("#to-me");
    browser.wait_for_text("#my-tiles", "Ratio");
    check("you");
    browser.press("Set a password…");
    check("a password");
    browser.press("Cancel");
    browser.press("Make an invitation link");
    browser.wait_for_text("#dialog", "#join=");
    check("an invitation");
    browser.press("Done");
    browser.click("#to-torrents");
    browser.wait_for_text("#results", "debian-13.1.0");
    check("torrents");
    browser.turn_to("torrent=1");
    browser.wait_for_text("#torrent", "Members on it");
    check("a torrent");
    browser.turn_to("torrent=9999");
    browser.wait_for_text("#torrent", "No such torrent");
    check("no torrent");
    browser.click("#out");
    browser.sign_in("berta", &member.api_key);
    browser.wait_for_text("#results", "debian-13.1.0");
    check("torrents of a member");
    browser.turn_to("torrent=1");
    browser.wait_for_text("#torrent", "My part");
    check("a torrent of a member");
    browser.click("#to-me");
    browser.wait_for_text("#my-torrents", "debian-13.1.0");
    check("a member");
    browser.click("#out");
}

#[test]
fn axe_finds_no_violation_in_any_view() {
    let test = "axe_finds_no_violation_in_any_view";
    let Some(browser) = Browser::start(test) else {
        return;
    };
    let (community, _database) = Community::start();
    browser.open(&community.goat);
    if browser.accessibility(test).is_none() {
        return;
    }
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 360), ("dark", 360)] {
        browser.look(scheme, width, 900);
        each_view(&browser, &community, &|view| {
            let found = browser.accessibility(test).unwrap();
            assert!(found.is_empty(), "{view}, {scheme}, {width}: {found:#?}");
        });
    }
}

#[test]
fn on_a_phone_long_names_wrap_and_every_number_is_visible() {
    let test = "on_a_phone_long_names_wrap_and_every_number_is_visible";
    let Some(browser) = Browser::start(test) else {
        return;
    };
    let (community, database) = Community::start();
    let goat = &community.goat;
    // Two hundred characters without a space, and a client that is not let in.
    let name = "Some.Release.Name.2026.".repeat(9)[..200].to_string();
    database.sql(&format!("UPDATE files SET name = '{name}' WHERE id = 2"));
    let stranger = Announce::new(&community.member.passkey, info_hash(99), 7);
    assert_eq!(stranger.refusal(goat), "Unregistered torrent");
    let mut client = Announce::new(&community.member.passkey, info_hash(0), 8);
    client.agent = "M".repeat(120);
    client.peer_id = *b"-XX0000-000000000000";
    assert_eq!(client.refusal(goat), "Your client is not whitelisted");
    database.sql(&format!("UPDATE users SET ban_reason = '{name}', banned = 1 WHERE username = 'gül'"));
    let outside = "return [...document.querySelectorAll('td, dd, li, button, input, select, code, h1, h2, p')]
        .filter(e => e.checkVisibility() && !e.closest('.unseen, thead, svg') && !e.classList.contains('unseen'))
        .filter(e => { const box = e.getBoundingClientRect(); return box.width && (box.right > innerWidth + 1 || box.left < -1); })
        .map(e => e.outerHTML.slice(0, 200))";
    for width in [360, 768, 1280] {
        browser.look("light", width, 900);
        each_view(&browser, &community, &|view| {
            assert_eq!(browser.overflow(), 0, "{view}, {width}");
            assert_eq!(browser.run(outside), json!([]), "{view}, {width}");
        });
    }
    // No number is left out: each torrent has all of them.
    browser.look("dark", 360, 800);
    browser.sign_in("ana", &community.admin.api_key);
    browser.wait_for_text("#pending", &"M".repeat(120));
    browser.click("#to-torrents");
    browser.wait_for_text("#results", &name);
    for label in ["Size", "Age", "Seeders", "Leechers", "Completed"] {
        let script = format!(
            "return [...document.querySelectorAll('#results [data-label=\"{label}\"]')].every(e => e.checkVisibility() && e.innerText.length > 0)"
        );
        assert_eq!(browser.run(&script), true, "{label}");
    }
    browser.picture("torrents-phone-dark");
}

/// Text that would do something if a browser took it for HTML.
const EVIL: &str = "\"><img src=x onerror=evil=1><script>evil=1</script>{{7*7}}</style>";

#[test]
fn nothing_that_others_write_becomes_more_than_text() {
    let Some(browser) = Browser::start("nothing_that_others_write_becomes_more_than_text") else {
        return;
    };
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "API": true }));
    let admin_name = "<b onclick=evil=1>ana</b>";
    let admin = goat.json(&["user", "add", admin_name, "--admin"]);
    let key = admin["apiKey"].as_str().unwrap();
    let member = goat.add_user("<img src=x onerror=evil=1>");
    let banned = goat.add_user("caro' or 1=1 --<i>");
    let hash = info_hash(1);
    goat.add_torrent(hex(&hash));
    database.sql(&format!("UPDATE files SET name = '{EVIL}'"));
    // A torrent whose name and files are so, which a member offers; and who is banned for such a reason.
    let path = "<img src=x onerror=evil=1>.mkv";
    let torrent = format!(
        "d8:announce1:x4:infod5:filesld6:lengthi5e4:pathl{}:{path}eee4:name{}:{EVIL}12:piece lengthi16384e6:pieces20:{}7:privatei1eee",
        path.len(),
        EVIL.len(),
        "7".repeat(20)
    );
    let own = [("Authorization", &*basic(&member.name, &member.api_key))];
    let (status, _, body) = http_post(goat.address(), "/api/files", &own, torrent.as_bytes()).unwrap();
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let offered = serde_json::from_slice::<Value>(&body).unwrap()["id"].clone();
    goat.json(&["user", "ban", &banned.name, "--reason", EVIL]);
    // Two clients at once: one that is not let in, and a peer id on an approved prefix.
    database.sql(&format!("INSERT INTO whitelist (client, approved) VALUES ('-<i>', 1), ('{EVIL}', 0)"));
    let mut announce = Announce::new(&member.passkey, hash, 1);
    announce.agent = "<script>evil=1</script>".into();
    announce.peer_id = *b"-<i>000-<script>evil";
    wait_until("the approved client to be known", || announce.refusal(&goat).is_empty());
    announce.peer_id = *b"-XX0000-<script>evil";
    assert_eq!(announce.refusal(&goat), "Your client is not whitelisted");
    let harmless = |where_: &str| {
        assert_eq!(browser.run("return typeof evil"), "undefined", "{where_}");
        let built = "return document.images.length + document.querySelectorAll('i, td b, h1 b, body > script:not(:last-of-type), [onclick], [onerror]').length";
        assert_eq!(browser.run(built), 0, "{where_}");
    };
    browser.open(&goat);
    browser.sign_in(admin_name, key);
    browser.wait_for_text("#busy", EVIL);
    browser.wait_for_text("#who", admin_name);
    browser.wait_for_text("#members", &member.name);
    browser.wait_for_text("#members", EVIL);
    browser.wait_for_text("#pending", "<script>evil=1</script>");
    browser.wait_for_text("#pending", EVIL);
    browser.wait_for_text("#clients", "-<i>");
    browser.wait_for_text("#log", EVIL);
    browser.press("All clients");
    browser.wait_for_text("#every-client", EVIL);
    harmless("community");
    browser.press(&format!("Manage {}", banned.name));
    browser.wait_for_text("#dialog", EVIL);
    harmless("the dialog of a member");
    browser.press("Rename…");
    assert_eq!(browser.run("return document.querySelector('#ask-name').value"), banned.name);
    browser.write("#ask-name", "<u>: no colon</u>");
    browser.press("Rename");
    browser.wait_for_text("#dialog [role=alert]", "colon");
    harmless("an error in a dialog");
    browser.press("Cancel");
    browser.press(&format!("Refuse {EVIL}"));
    browser.wait_for_text("#dialog", EVIL);
    browser.write("#ask-reason", EVIL);
    browser.press("Refuse");
    browser.wait_for_text("#said", EVIL);
    harmless("what is said");
    browser.click("#to-torrents");
    browser.wait_for_text("#results", EVIL);
    browser.write("#words", EVIL);
    browser.wait_for_text("#found", "torrent");
    harmless("torrents");
    // What stands after the # chooses a page, or none.
    for fragment in [
        "torrent=<img src=x onerror=evil=1>",
        "<img src=x onerror=evil=1>",
        "__proto__",
        "constructor=1",
        "torrent=1&q=<script>evil=1</script>",
        "torrent=%3Cimg%20src=x%20onerror=evil=1%3E",
    ] {
        browser.turn_to("torrents");
        browser.turn_to(fragment);
        browser.wait_for_text("#all", EVIL);
        harmless(fragment);
    }
    browser.turn_to("join=\"><img src=x onerror=evil=1>/../me?x=<script>");
    browser.wait_for_text("#join-error", "never was");
    harmless("join");
    browser.click("#join-back a");
    browser.wait_for_text("#all", EVIL);
    browser.click("#out");
    browser.sign_in(&member.name, &member.api_key);
    browser.turn_to("you");
    browser.wait_for_text("#my-torrents", EVIL);
    browser.turn_to(&format!("torrent={offered}"));
    browser.wait_for_text("#torrent", path);
    browser.wait_for_text("#torrent .notice", EVIL);
    assert_eq!(browser.run("return document.title"), format!("{EVIL} · goat"));
    harmless("a torrent");
    browser.click("#out");
    browser.sign_in(&banned.name, &banned.api_key);
    browser.wait_for_text("#login-error", EVIL);
    harmless("why somebody is banned");
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
    wait_until("the page to be left", || browser.run("return location.href") == "about:blank");
    database.sql("DELETE FROM api_keys");
    browser.open(&goat);
    browser.wait_for_text("#login-error", "signed out");
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
             if (held || !url.startsWith(location.origin + '/api/files')) ask(); else held = ask;
         });",
    );
    wait_until("an update to be under way", || browser.run("return held !== null") == true);
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
    let Some(browser) = Browser::start("a_ban_or_a_right_that_is_lost_signs_out_and_says_why") else {
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
        assert_eq!(browser.run("return document.getElementById('app').hidden"), true);
    }
}

#[test]
fn who_looks_again_sees_the_hours_that_passed_meanwhile() {
    let Some(browser) = Browser::start("who_looks_again_sees_the_hours_that_passed_meanwhile") else {
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
    wait_until("nobody to look", || browser.run("return document.hidden") == true);
    browser.run("look()");
    wait_until("the lists", || browser.run("return sent.includes('/api/clients')") == true);
    let rounds = "return sent.slice(0, sent.indexOf('/api/clients')).filter(url => url === '/api/status').length";
    assert_eq!(browser.run(rounds), 1);
}
