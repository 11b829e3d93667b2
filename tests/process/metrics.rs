//! The metrics: promtool reads them, and a real Prometheus scrapes goat and answers questions about it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Stdio};

use crate::common::{
    Announce, Database, Folder, Goat, PATIENCE, Process, basic, escape, free_port, hex, http_get, info_hash, installed,
    skip, wait_for, wait_until,
};
use serde_json::{Value, json};

fn start() -> (Goat, Database) {
    let database = Database::sqlite();
    let goat = Goat::start(&database, json!({ "API": true, "UDP": true, "SlowDown": 0 }));
    (goat, database)
}

pub fn metrics(goat: &Goat) -> String {
    let (status, headers, body) = http_get(goat.address(), "/metrics", &[]);
    assert_eq!(status, 200);
    let media = headers.iter().find(|(name, _)| name == "content-type");
    assert_eq!(media.unwrap().1, "text/plain; version=0.0.4; charset=utf-8");
    String::from_utf8(body).unwrap()
}

/// The samples, by name and labels.
fn samples(goat: &Goat) -> BTreeMap<String, f64> {
    let text = metrics(goat);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let samples = lines.map(|line| line.rsplit_once(' ').unwrap());
    samples.map(|(name, value)| (name.into(), value.parse().unwrap())).collect()
}

#[test]
fn promtool_finds_nothing_wrong() {
    if !installed("promtool") {
        return skip("promtool_finds_nothing_wrong", "no promtool");
    }
    let (goat, _database) = start();
    let user = goat.add_user("berta");
    goat.add_torrent(hex(&info_hash(1)));
    Announce::new(&user.passkey, info_hash(1), 1).accepted(&goat);
    Announce::new("no-such-passkey", info_hash(1), 1).refusal(&goat);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(metrics(&goat).as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.success(), said.as_str()), (true, ""));
}

#[test]
fn no_metric_has_the_name_of_a_counter_in_openmetrics() {
    // Which there is without its "_total".
    let (goat, _database) = start();
    let text = metrics(&goat);
    let families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let counters = families.iter().filter_map(|name| name.strip_suffix("_total"));
    for counter in counters {
        assert!(!families.contains(&counter), "{counter}");
    }
}

#[test]
fn everything_that_happens_is_counted_once_where_it_belongs() {
    let (goat, _database) = start();
    let user = goat.add_user("berta");
    let hash = info_hash(1);
    goat.add_torrent(hex(&hash));
    let before = samples(&goat);
    let mut announce = Announce::new(&user.passkey, hash, 1);
    announce.uploaded = 500;
    for (event, left) in
        [("started", 10), ("", 5), ("completed", 0), ("paused", 0), ("", 0), ("stopped", 0), ("started", 0)]
    {
        (announce.event, announce.left) = (event, left);
        announce.accepted(&goat);
    }
    Announce::new("no-such-passkey", hash, 1).refusal(&goat);
    Announce::new(&user.passkey, info_hash(2), 1).refusal(&goat);
    let agent = [("User-Agent", crate::common::AGENT)];
    http_get(goat.address(), &format!("/{}/scrape?info_hash={}", user.passkey, escape(&hash)), &agent);
    http_get(goat.address(), "/nonsense", &agent);
    // A connect, an announce without a passkey, one with a forged id, and no packet at all.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect(goat.address()).unwrap();
    let exchange = |packet: &[u8]| {
        let mut answer = [0; 1500];
        socket.send(packet).unwrap();
        let size = socket.recv(&mut answer).unwrap();
        answer[..size].to_vec()
    };
    socket.send(b"no packet").unwrap();
    let connect = [&0x417_2710_1980u64.to_be_bytes()[..], &[0; 4], &[7; 4]].concat();
    let id = exchange(&connect)[8..16].to_vec();
    let packet = |id: &[u8]| {
        [id, &1u32.to_be_bytes(), &[7; 4], &hash, &announce.peer_id, &[0; 40], &10_000u16.to_be_bytes()].concat()
    };
    assert_eq!(exchange(&packet(&id))[..4], 3u32.to_be_bytes());
    assert_eq!(exchange(&packet(&[1; 8]))[..4], 3u32.to_be_bytes());
    wait_until("the books to be written", || {
        samples(&goat)["goat_transferred_bytes_total{direction=\"uploaded\"}"] == 500.0
    });
    let after = samples(&goat);
    let grown = |name: &str| after.get(name).unwrap_or(&0.0) - before.get(name).unwrap_or(&0.0);
    let announces = |event: &str, result: &str| {
        grown(&format!("goat_announces_total{{listener=\"http\",event=\"{event}\",result=\"{result}\"}}"))
    };
    assert_eq!(announces("started", "answered"), 2.0);
    assert_eq!(announces("none", "answered"), 2.0);
    assert_eq!(announces("completed", "answered"), 1.0);
    assert_eq!(announces("paused", "answered"), 1.0);
    assert_eq!(announces("stopped", "answered"), 1.0);
    assert_eq!(announces("started", "invalid_passkey"), 1.0);
    assert_eq!(announces("started", "unregistered_torrent"), 1.0);
    assert_eq!(announces("unknown", "malformed"), 1.0);
    assert_eq!(grown("goat_scrapes_total{listener=\"http\",result=\"answered\"}"), 1.0);
    // Whoever is looked up in the database is counted when that is done, and once.
    assert_eq!(grown("goat_answer_duration_seconds_count{listener=\"http\"}"), 11.0);
    let all: f64 = after
        .iter()
        .filter(|(name, _)| name.starts_with("goat_announces_total{listener=\"http\""))
        .map(|(_, value)| value)
        .sum();
    assert_eq!(all, 10.0);
    for (fate, count) in
        [("connect", 1.0), ("answered", 0.0), ("refused", 1.0), ("invalid_id", 1.0), ("ignored", 1.0), ("dropped", 0.0)]
    {
        assert_eq!(grown(&format!("goat_udp_packets_total{{fate=\"{fate}\"}}")), count, "{fate}");
    }
    assert_eq!(grown("goat_announces_total{listener=\"udp\",event=\"none\",result=\"no_passkey\"}"), 1.0);
    assert_eq!((after["goat_database_up"], after["goat_users"]), (1.0, 1.0));
    assert!(after["goat_batch_duration_seconds_count"] >= 1.0 && after["goat_batch_rows_total"] >= 1.0);
    assert!(after["process_resident_memory_bytes"] > 1e6 && after["process_open_fds"] > 5.0);
    assert!(after["process_threads"] >= 4.0 && after["goat_connections_open"] >= 1.0);
    wait_until("the peer to be counted", || samples(&goat)["goat_peers{state=\"seeding\"}"] == 1.0);
    assert_eq!(samples(&goat)["goat_torrents"], 1.0);
    assert_eq!(samples(&goat)["goat_torrents_active"], 1.0);
}

#[test]
fn metrics_are_for_administrators_and_for_this_machine() {
    let (goat, _database) = start();
    let admin = goat.json(&["user", "add", "ana", "--admin"]);
    let member = goat.add_user("berta");
    let key = |name: &str, key: &str| basic(name, key);
    let admin = key("ana", admin["apiKey"].as_str().unwrap());
    let ask = |headers: &[(&str, &str)]| http_get(goat.address(), "/metrics", headers).0;
    assert_eq!(ask(&[]), 200, "this machine");
    // Through a proxy that is not trusted everybody seems to be this machine.
    for header in ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"] {
        assert_eq!(ask(&[(header, "192.0.2.1")]), 401, "{header}");
        assert_eq!(ask(&[(header, "127.0.0.1"), ("Authorization", &admin)]), 200);
    }
    assert_eq!(ask(&[("Authorization", &key("berta", &member.api_key))]), 403);
    assert_eq!(ask(&[("Authorization", &key("berta", "wrong"))]), 401);
    assert_eq!(ask(&[("Authorization", &admin)]), 200);
}

#[test]
fn metrics_without_a_key_are_for_who_calls_this_machine_by_its_own_name() {
    let (goat, _database) = start();
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let own = own.trim();
    // A page of somebody else's can have its own name mean 127.0.0.1, but cannot make a browser say another.
    for (host, status) in [
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("127.0.0.1", 200),
        ("127.8.9.10:9090", 200),
        ("[::1]", 200),
        ("[::1]:8080", 200),
        (own, 200),
        ("evil.example", 401),
        ("localhost.evil.example:8080", 401),
        ("192.0.2.7", 401),
        ("[2001:db8::7]:80", 401),
        ("", 401),
        ("::1", 401),
        (":8080", 401),
    ] {
        let head = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let mut stream = std::net::TcpStream::connect(goat.address()).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let said = answer.split(' ').nth(1).unwrap_or_default();
        assert_eq!(said, status.to_string(), "{host}");
    }
}

#[test]
fn prometheus_scrapes_goat_and_answers_questions() {
    let test = "prometheus_scrapes_goat_and_answers_questions";
    if !installed("prometheus") {
        return skip(test, "no prometheus");
    }
    let (goat, _database) = start();
    let user = goat.add_user("berta");
    goat.add_torrent(hex(&info_hash(1)));
    let (folder, port) = (Folder::new(), free_port());
    let config = format!(
        "global: {{ scrape_interval: 1s }}\nscrape_configs:\n- job_name: goat\n  static_configs: [{{ targets: ['{}'] }}]\n",
        goat.address()
    );
    std::fs::write(folder.join("prometheus.yml"), config).unwrap();
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let mut prometheus = Process::start("prometheus", &mut command, folder.join("log"));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_until("Prometheus to be ready", || {
        prometheus.assert_running();
        std::net::TcpStream::connect(address).is_ok() && http_get(address, "/-/ready", &[]).0 == 200
    });
    // The first value of an answer, as Prometheus gives it.
    let query = |query: &str| -> Option<f64> {
        let path = format!("/api/v1/query?query={}", escape(query.as_bytes()));
        let (status, _, body) = http_get(address, &path, &[]);
        assert_eq!(status, 200, "{query}: {}", String::from_utf8_lossy(&body));
        let answer: Value = serde_json::from_slice(&body).unwrap();
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    };
    let mut announce = Announce::new(&user.passkey, info_hash(1), 1);
    announce.left = 0;
    // For a minute where everything must be shown, else until it has an answer to each question.
    let long = crate::common::nothing_may_be_skipped();
    let scrapes = if long { 60.0 } else { 5.0 };
    let rate = wait_for("Prometheus to have scraped", || {
        announce.accepted(&goat);
        announce.event = "";
        let enough = query("count_over_time(up{job=\"goat\"}[5m])")? >= scrapes;
        query("sum(rate(goat_announces_total{result=\"answered\"}[1m]))").filter(|rate| enough && *rate > 0.0)
    });
    assert!(rate < 1000.0);
    assert_eq!(query("sum by (state) (goat_peers{state=\"seeding\"})"), Some(1.0));
    let slow = query("histogram_quantile(0.99, sum by (le) (rate(goat_answer_duration_seconds_bucket[1m])))");
    assert!(slow.is_some_and(|seconds| seconds > 0.0 && seconds < 1.0), "{slow:?}");
    assert_eq!(query("min_over_time(up{job=\"goat\"}[5m])"), Some(1.0), "no scrape failed");
    prometheus.terminate();
}

#[test]
fn every_query_of_the_dashboard_is_about_metrics_that_are_there() {
    let (goat, _database) = start();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/res/grafana.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    // It imports without edits: Grafana takes its default data source, and nothing holds an id of ours.
    assert_eq!(dashboard["id"], Value::Null);
    assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource");
    let names: Vec<String> = samples(&goat).into_keys().map(|name| name.split('{').next().unwrap().into()).collect();
    let mut rules = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert_eq!(panel["datasource"]["uid"], "${datasource}");
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let rule = query.replace("$__rate_interval", "1m");
            rules.push(json!({ "record": format!("query_{}", rules.len()), "expr": rule }));
            let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            let mut known = words.filter(|word| word.starts_with("goat_") || word.starts_with("process_")).peekable();
            assert!(known.peek().is_some(), "{query}");
            for word in known {
                assert!(names.iter().any(|name| name == word), "{word} in {query}");
            }
        }
    }
    assert!(rules.len() >= 12);
    if !installed("promtool") {
        return skip("the queries of the dashboard are read", "no promtool");
    }
    let (folder, groups) = (Folder::new(), json!([{ "name": "dashboard", "rules": rules }]));
    let file = folder.join("rules.yml");
    std::fs::write(&file, json!({ "groups": groups }).to_string()).unwrap();
    let output = Command::new("promtool").args(["check", "rules"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
