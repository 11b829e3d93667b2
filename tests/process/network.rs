//! HTTP as goat speaks it on its sockets: what it understands, what it refuses and with which status, who
//! is believed to be where, and that nobody can keep others from being answered.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::common::{
    AGENT, Announce, Bencode, Database, Goat, HttpAnswer, PATIENCE, Process, basic, escape, info_hash, scrape,
    wait_until,
};
use serde_json::{Value, json};

// What a request may look like.

#[test]
fn a_connection_stays_open_until_the_client_says_close() {
    let site = Site::start(json!({}));
    let cases = [
        ("HTTP/1.1", "", true),
        ("HTTP/1.1", "Connection: keep-alive\r\n", true),
        ("HTTP/1.1", "Connection: close\r\n", false),
        ("HTTP/1.1", "connection: te , CLOSE\r\n", false),
        ("HTTP/1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("HTTP/1.0", "", false),
        ("HTTP/1.0", "Connection: close\r\n", false),
        ("HTTP/1.0", "Connection: Keep-Alive\r\n", true),
    ];
    for (version, header, stays) in cases {
        let case = format!("{version} {header}");
        let request = format!("GET {} {version}\r\nUser-Agent: {AGENT}\r\n{header}\r\n", site.scrape());
        let mut client = site.connect();
        client.send(&request);
        let (status, headers, body) = client.answer().expect(&case);
        assert_eq!(status, 200, "{case}");
        Bencode::parse(&body);
        let says_close = value(&headers, "connection") == Some("close");
        assert_eq!(says_close, !stays, "{case}: {headers:?}");
        client.send(&request);
        assert_eq!(client.answer().is_some(), stays, "{case}");
    }
}

#[test]
fn a_connection_of_http_1_0_that_stays_open_is_announced_as_such() {
    // Who speaks 1.0 takes an answer without "keep-alive" for one that ends with the connection.
    let site = Site::start(json!({}));
    let mut client = site.connect();
    client.send(format!("GET {} HTTP/1.0\r\nUser-Agent: {AGENT}\r\nConnection: keep-alive\r\n\r\n", site.scrape()));
    let (_, headers, _) = client.answer().expect("an answer");
    let says = value(&headers, "connection").unwrap_or_default();
    assert!(says.eq_ignore_ascii_case("keep-alive"), "{headers:?}");
}

#[test]
fn head_gets_the_headers_of_get_and_no_body() {
    let site = Site::start(json!({}));
    let announce = site.announce(1).target();
    for target in [&site.scrape(), &announce, "/", &format!("/{}/scrape", site.passkey)] {
        let mut client = site.connect();
        client.send(format!("HEAD {target} HTTP/1.1\r\nUser-Agent: {AGENT}\r\n\r\n"));
        let (status, headers) = client.head().expect("an answer to HEAD");
        // If there were a body, it would stand where the next answer begins.
        client.send(get(target, ""));
        let answer = client.answer().expect("an answer to GET");
        assert_eq!((status, headers), (answer.0, answer.1), "{target}");
        assert!(!answer.2.is_empty(), "{target}");
    }
}

#[test]
fn an_error_that_answers_head_has_no_body() {
    let site = Site::start(json!({}));
    for (header, status) in [("Transfer-Encoding: chunked", 501), ("Content-Length: x", 400)] {
        let mut client = site.connect();
        client.send(format!("HEAD / HTTP/1.1\r\n{header}\r\n\r\n"));
        assert_eq!(client.head().expect("an answer").0, status, "HEAD with {header}");
        assert_eq!(client.rest(), b"", "HEAD with {header}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let site = Site::start(json!({}));
    let parameters = ["info_hash", "peer_id", "port", "uploaded", "downloaded", "left"];
    let whole = site.announce(1).target();
    let requests = parameters.iter().map(|name| {
        let begin = whole.find(&format!("{name}=")).unwrap();
        let end = whole[begin..].find('&').map_or(whole.len(), |end| begin + end + 1);
        get(&format!("{}{}", &whole[..begin], &whole[end..]), "")
    });
    let requests: Vec<String> = requests.collect();

    let mut client = site.connect();
    client.send(requests.concat() + &requests.concat());
    for name in parameters.iter().chain(&parameters) {
        let (status, _, body) = client.answer().expect(name);
        let reason = format!("Missing required parameter: {name}");
        assert_eq!((status, Bencode::parse(&body).text("failure reason")), (200, &*reason));
    }

    // The last that is answered is the one that says "close".
    client.send(get(&whole, "") + &get("/", "Connection: close\r\n") + &get(&whole, ""));
    assert!(client.answer().is_some() && client.answer().is_some() && client.answer().is_none());
}

#[test]
fn pipelined_requests_are_answered_also_where_one_asks_the_database() {
    // goat may close the connection after any answer, but not before one that it owes.
    let site = Site::start(json!({}));
    let mut unknown = site.announce(1);
    unknown.info_hash = info_hash(404);
    let mut client = site.connect();
    client.send(get("/", "") + &get(&unknown.target(), "") + &get("/", ""));
    let reason = |answer: HttpAnswer| Bencode::parse(&answer.2).text("failure reason").to_string();
    assert_eq!(reason(client.answer().expect("the first")), "Malformed announce");
    let (status, headers, body) = client.answer().expect("the second");
    let closes = value(&headers, "connection") == Some("close");
    assert_eq!(reason((status, headers, body)), "Unregistered torrent");
    match client.answer() {
        Some(answer) => assert_eq!(reason(answer), "Malformed announce"),
        None => assert!(closes, "goat closes without having said so"),
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let site = Site::start(json!({}));
    let target = site.announce(1).target();
    let mut client = site.connect();
    // The second has a body, which is taken and ignored.
    for request in [get(&target, ""), get(&target, "Content-Length: 5\r\n") + "x y\r\n", get("/", "")] {
        for byte in request.bytes() {
            client.send([byte]);
        }
        let (status, _, body) = client.answer().expect("an answer");
        assert_eq!(status, 200);
        Bencode::parse(&body);
    }
}

#[test]
fn a_client_that_waits_to_be_told_to_send_its_body_is_told() {
    let site = Site::start(json!({}));
    let mut client = site.connect();
    for expect in ["100-continue", "100-Continue"] {
        let headers = format!("Content-Length: 70\r\nExpect: {expect}\r\n");
        // Not whole yet, and so not answered.
        let mut client_too = site.connect();
        client_too.send(get("/", &headers).trim_end());
        client.send(get("/", &headers));
        assert_eq!(client.head().expect("a word").0, 100, "{expect}");
        client.send("b".repeat(70));
        assert_eq!(client.answer().map(|answer| answer.0), Some(200));
        client_too.send("\r\n\r\n");
        assert_eq!(client_too.head().expect("a word").0, 100, "{expect}");
    }
    // Who sends the body at once, or has none, or speaks HTTP/1.0, needs not be told.
    let old = format!("GET / HTTP/1.0\r\nUser-Agent: {AGENT}\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n");
    for request in [
        get("/", "Content-Length: 1\r\nExpect: 100-continue\r\n") + "b",
        get("/", "Expect: 100-continue\r\n"),
        old + "b",
    ] {
        let mut client = site.connect();
        client.send(&request);
        assert_eq!(client.answer().map(|answer| answer.0), Some(200), "{request}");
    }
}

#[test]
fn what_is_refused_is_counted_by_reason_and_said_once_for_all() {
    let site = Site::start(json!({ "API": true }));
    let greedy = Ipv4Addr::new(127, 0, 0, 2);
    let many: Vec<Option<Client>> = (0..140).map(|_| site.try_idle(greedy)).collect();
    assert_eq!(many.iter().flatten().count(), 128);
    let counts = ["address", "network", "full", "handshakes", "bytes", "descriptors", "evicted", "unread"];
    assert_eq!(counts.map(|reason| site.refused(reason)), [12, 0, 0, 0, 0, 0, 0, 0]);
    let line = "connections refused or closed to make room: 12, of 127.0.0.2\n";
    wait_until("the log to say so", || site.goat.log().contains(line));
    assert_eq!(site.goat.log().matches("connections refused").count(), 1);
}

#[test]
fn a_request_that_is_not_whole_after_10_seconds_gets_408() {
    let site = Site::start(json!({}));
    let mut head = site.connect();
    head.send("GET /announce HT");
    let mut body = site.connect();
    body.send(get("/", "Content-Length: 100\r\n") + "abc");
    let mut second = site.connect();
    second.send(get("/", "") + "GET");
    let mut slow = site.connect();
    slow.send("GET /");
    slow.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    while let Err(error) = slow.stream.peek(&mut [0]) {
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        slow.send("x");
    }
    assert_eq!(second.answer().map(|answer| answer.0), Some(200));
    for (case, mut client) in
        [("half a head", head), ("half a body", body), ("half a second request", second), ("a byte now and then", slow)]
    {
        client.refused(case, 408);
    }
    site.works();
}

#[test]
fn a_request_past_a_limit_is_refused_and_the_connection_closed() {
    let site = Site::start(json!({}));
    let padded = |size: usize| {
        let begin = get("/", "").trim_end().to_string() + "\r\nPadding: ";
        begin.clone() + &"x".repeat(size - begin.len() - 4) + "\r\n\r\n"
    };
    let headers = |count: usize| {
        let more: String = (2..=count).map(|i| format!("H{i}: x\r\n")).collect();
        format!("GET / HTTP/1.1\r\nUser-Agent: {AGENT}\r\n{more}\r\n")
    };
    let body = |size: usize| get("/", &format!("Content-Length: {size}\r\n")) + &"b".repeat(size.min(1 << 20));
    let length = |text: &str| get("/", &format!("Content-Length: {text}\r\n"));
    let cases = [
        ("a head of 8 KiB", padded(8 * 1024), 200),
        ("a head of 8 KiB and a byte", padded(8 * 1024 + 1), 431),
        ("a target of 9,000 bytes", get(&format!("/{}", "x".repeat(9_000)), ""), 431),
        ("a head that never ends", get("/", "").trim_end().to_string() + "\r\nEndless: " + &"x".repeat(1 << 20), 431),
        ("64 headers", headers(64), 200),
        ("65 headers", headers(65), 431),
        ("a body of 64 KiB", body(64 * 1024), 200),
        ("a body of 64 KiB and a byte", body(64 * 1024 + 1), 413),
        ("a body of 1 GB that comes", body(1_000_000_000), 413),
        ("a length of 2^62", length("4611686018427387904"), 413),
        ("a length of 2^64", length("18446744073709551616"), 413),
        ("a length of 40 digits", length(&"9".repeat(40)), 413),
        ("a negative length", length("-1"), 400),
        ("a length with a sign", length("+5"), 400),
        ("a length that is no number", length("five"), 400),
        ("a hexadecimal length", length("0x5"), 400),
        ("an empty length", length(""), 400),
        ("a length that is a list", length("0, 0"), 400),
        ("two lengths", length("0\r\nContent-Length: 0"), 400),
        ("two lengths that differ", length("0\r\ncontent-length: 5") + "abcde", 400),
        ("chunks", get("/", "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", 501),
        ("a transfer encoding that changes nothing", get("/", "transfer-encoding: identity\r\n"), 501),
        ("chunks and a length", get("/", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n", 501),
    ];
    for (case, request, status) in cases {
        let mut client = site.connect();
        client.send(&request);
        if status == 200 {
            assert_eq!(client.answer().map(|answer| answer.0), Some(200), "{case}");
            // The body was taken for one: what follows it is the next request.
            client.send(get("/", ""));
            assert_eq!(client.answer().map(|answer| answer.0), Some(200), "{case}");
        } else {
            client.refused(case, status);
        }
    }
    site.works();
}

#[test]
fn an_error_says_that_the_connection_ends() {
    let site = Site::start(json!({}));
    for request in ["GET / HTTP/2.0\r\n\r\n", "POST / HTTP/1.1\r\n\r\n"] {
        let mut client = site.connect();
        client.send(request);
        let (_, headers, _) = client.answer().expect("an answer");
        assert_eq!(value(&headers, "connection"), Some("close"), "{headers:?}");
    }
}

#[test]
fn only_get_and_head_are_methods_of_a_tracker() {
    let site = Site::start(json!({}));
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let mut client = site.connect();
        client.send(format!(
            "{method} {} HTTP/1.1\r\nUser-Agent: {AGENT}\r\nContent-Length: 3\r\n\r\na=b",
            site.announce(1).target()
        ));
        let headers = client.refused(method, 405);
        assert_eq!(value(&headers, "allow"), Some("GET, HEAD"), "{method}");
    }
    for method in ["BREW", "get", "Get", "PROPFIND", "GETGET", "!#$%&'*+-.^_`|~"] {
        let mut client = site.connect();
        client.send(format!("{method} / HTTP/1.1\r\nUser-Agent: {AGENT}\r\n\r\n"));
        client.refused(method, 501);
    }
    assert_eq!(scrape(&site.goat, &site.passkey, HASH), Some([0; 4]));
}

#[test]
fn what_is_no_http_1_gets_400() {
    let site = Site::start(json!({}));
    let cases: [&[u8]; 16] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTP/3\r\n\r\n",
        b"GET / HTTP/1.2\r\n\r\n",
        b"GET / http/1.1\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / \r\n\r\n",
        b"GET  / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nNo colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nSpace before : x\r\n\r\n",
        b"GET / HTTP/1.1\r\n: no name\r\n\r\n",
        b"GET / HTTP/1.1\r\nFolded: a\r\n b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0",
        b"\0\0\x04\x17\x27\x10\x19\x80\0\0\0\0\x12\x34\x56\x78",
        b"\xff\xfe\xfd\xfc",
    ];
    for request in cases {
        let mut client = site.connect();
        client.send(request);
        client.refused(&request.escape_ascii().to_string(), 400);
    }
    site.works();
}

#[test]
fn lines_may_end_with_lf_alone() {
    let site = Site::start(json!({}));
    let mut client = site.connect();
    client.send(get(&site.announce(1).target(), "Accept: */*\r\n").replace('\r', ""));
    let (status, _, body) = client.answer().expect("an answer");
    let answer = Bencode::parse(&body);
    assert_eq!((status, answer.integer("incomplete")), (200, 1));
}

#[test]
fn sighup_ends_nothing_and_sigterm_ends_goat_in_good_order() {
    let mut site = Site::start(json!({}));
    for _ in 0..3 {
        site.goat.process().signal(libc::SIGHUP);
        site.works();
    }
    site.goat.process().assert_running();
    // Had it been a first wish to end, the second would end goat at once and with status 1.
    assert_eq!(site.goat.stop().code(), Some(0), "{}", site.goat.log());
}

#[test]
fn a_target_may_be_a_whole_url() {
    // As a proxy sends it, and as RFC 9112 wants every server to take it.
    let site = Site::start(json!({}));
    let target = site.announce(1).target();
    for origin in
        [format!("http://{}", site.goat.address()), "https://tracker.example".into(), "http://user@[::1]:8080".into()]
    {
        let mut client = site.connect();
        client.send(get(&format!("{origin}{target}"), ""));
        let (status, _, body) = client.answer().expect(&origin);
        assert_eq!((status, Bencode::parse(&body).integer("incomplete")), (200, 1), "{origin}");
    }
    for nothing in ["http://", "http://tracker.example"] {
        let mut client = site.connect();
        client.send(get(nothing, ""));
        let (status, _, body) = client.answer().expect(nothing);
        let answer = Bencode::parse(&body);
        assert_eq!((status, answer.text("failure reason")), (200, "Malformed announce"), "{nothing}");
    }
}

#[test]
fn nul_cr_and_lf_in_any_place_do_no_harm() {
    let mut site = Site::start(json!({}));
    let whole = get(&site.announce(1).target(), "X-Forwarded-For: 203.0.113.7\r\nContent-Length: 0\r\n");
    for at in 0..whole.len() {
        for byte in [b'\0', b'\r', b'\n'] {
            let case = format!("{byte:?} at {at}");
            let mut request = whole.clone().into_bytes();
            request.insert(at, byte);
            let mut client = site.connect();
            client.send(&request);
            // A request that has become half of one is not waited for.
            let _ = client.stream.shutdown(Shutdown::Write);
            match client.answer() {
                None => {}
                Some((200, headers, body)) => {
                    let names = headers.iter().map(|(name, _)| name.as_str());
                    let known = ["content-type", "content-length", "connection"];
                    assert!(names.clone().all(|name| known.contains(&name)), "{case}: {headers:?}");
                    Bencode::parse(&body);
                }
                Some((status, ..)) => assert!([400, 501].contains(&status), "{case}: {status}"),
            }
        }
    }
    site.goat.process().assert_running();
    site.works();
    assert_clean(&site.goat.log());
}

#[test]
fn encoded_nul_cr_and_lf_are_bytes_like_others() {
    let site = Site::start(json!({}));
    let whole = site.announce(1).target();
    let (path, query) = whole.split_once('?').unwrap();
    for code in ["%00", "%0D", "%0A", "%0d%0a", "%", "%0", "%zz", "%ff"] {
        // In the passkey, in place of each value, and behind it.
        let mut targets = vec![whole.replacen(&site.passkey, &format!("{}{code}", site.passkey), 1)];
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap();
            for value in [code.to_string(), format!("{value}{code}")] {
                let query = query.replace(pair, &format!("{name}={value}"));
                targets.push(format!("{path}?{query}"));
            }
        }
        for target in targets {
            let mut client = site.connect();
            client.send(get(&target, ""));
            let (status, _, body) = client.answer().expect(&target);
            let answer = Bencode::parse(&body);
            let only_event =
                target.contains(&format!("event={code}")) || target.contains(&format!("event=started{code}"));
            assert_eq!((status, answer.get("failure reason").is_none()), (200, only_event), "{target}: {answer:?}");
            if !only_event {
                assert!(!answer.text("failure reason").contains(char::is_control), "{answer:?}");
            }
        }
    }
    // 20 such bytes are as good a peer_id as any.
    let mut announce = site.announce(2);
    announce.peer_id = *b"\0\r\n\0\r\n\0\r\n\0\r\n\0\r\n\0\r\n\0\r";
    announce.accepted(&site.goat);
    // Over HTTP the User-Agent makes the client known; that it cannot hold.
    assert_clean(&site.goat.log());
}

#[test]
fn control_characters_of_a_client_never_reach_the_log() {
    let site = Site::start(json!({}));
    let mut announce = site.announce(1);
    announce.agent = "Evil\t\u{1b}[2J/1.0".into();
    announce.peer_id = *b"-XX0001-000000000000";
    let mut client = site.connect();
    client.send(format!("GET {} HTTP/1.1\r\nUser-Agent: Evil\t\u{9b}2J\u{85}\u{2028}/1.0\r\n\r\n", announce.target()));
    let (status, _, body) = client.answer().expect("an answer");
    let reason = "Your client is not whitelisted";
    assert_eq!((status, Bencode::parse(&body).text("failure reason")), (200, reason));
    wait_until("the client in the log", || site.goat.log().contains("Evil"));
    assert_clean(&site.goat.log());
}

#[test]
fn a_passkey_of_strange_characters_is_an_unknown_one() {
    let site = Site::start(json!({}));
    for passkey in ["Größe", "\u{1f410}", "'; DROP TABLE users; --", "%27", "*", "..", "\\"] {
        let passkey = passkey.replace(' ', "+");
        let mut announce = site.announce(1);
        announce.passkey = Some(passkey.clone());
        assert_eq!(announce.refusal(&site.goat), "Invalid passkey", "{passkey}");
    }
    site.works();
    assert!(!site.goat.log().contains("could not"), "{}", site.goat.log());
}

// Who a client is.

#[test]
fn an_address_may_have_128_connections() {
    let site = Site::start(json!({}));
    let mut many: Vec<Client> = (0..128).map(|_| site.idle(Ipv4Addr::new(127, 0, 0, 2))).collect();
    assert!(site.try_idle(Ipv4Addr::new(127, 0, 0, 2)).is_none(), "the 129th was answered");
    // Nobody else is concerned.
    let _other = site.idle(Ipv4Addr::new(127, 0, 0, 3));
    site.works();
    // Who goes makes room for one.
    many.pop();
    let mut next = None;
    wait_until("room for another", || {
        next = site.try_idle(Ipv4Addr::new(127, 0, 0, 2));
        next.is_some()
    });
    assert!(site.try_idle(Ipv4Addr::new(127, 0, 0, 2)).is_none());
    // Those that were there are still there.
    for client in &mut many {
        client.send(get("/", ""));
        assert!(client.answer().is_some());
    }
}

#[test]
fn this_machine_and_trusted_proxies_may_have_any_number_of_connections() {
    let site = Site::start(json!({ "Host": "", "TrustedProxies": ["127.0.0.8/30", "::2"] }));
    let mut open: Vec<Client> = Vec::new();
    for _ in 0..140 {
        open.push(site.idle(Ipv4Addr::LOCALHOST));
        open.push(site.idle(Ipv4Addr::new(127, 0, 0, 9)));
        let mut client = Client::connect(site.at(Ipv6Addr::LOCALHOST));
        client.send(get("/", ""));
        assert!(client.answer().is_some(), "::1 was not answered");
        open.push(client);
    }
    for client in &mut open {
        client.send(get("/", ""));
        assert!(client.answer().is_some());
    }
}

#[test]
fn x_forwarded_for_is_believed_from_trusted_proxies_only() {
    let proxies = ["127.0.0.1", "::1", "10.0.0.0/8", "2001:db8:1::/48"];
    let site = Site::start(json!({ "Host": "", "TrustedProxies": proxies }));
    let cases: &[(&[&str], &str)] = &[
        (&["203.0.113.7"], "203.0.113.7"),
        (&["2001:db8:2::7"], "2001:db8:2::7"),
        (&[" \t203.0.113.7 \t"], "203.0.113.7"),
        (&["::ffff:203.0.113.7"], "203.0.113.7"),
        // What stands further left was sent by the client: it may say anything.
        (&["198.51.100.1, 203.0.113.7"], "203.0.113.7"),
        (&["127.0.0.1, 10.0.0.1, 203.0.113.7"], "203.0.113.7"),
        (&["garbage, 203.0.113.7"], "203.0.113.7"),
        (&["\u{fffd}\u{9b}, 203.0.113.7"], "203.0.113.7"),
        // Trusted proxies behind one another.
        (&["203.0.113.7, 10.1.2.3"], "203.0.113.7"),
        (&["203.0.113.7,10.1.2.3,10.255.255.255"], "203.0.113.7"),
        (&["203.0.113.7, 2001:db8:1::9, ::ffff:10.9.9.9"], "203.0.113.7"),
        (&["198.51.100.1, 2001:db8:2::9, 10.0.0.1"], "2001:db8:2::9"),
        (&["203.0.113.7, 11.0.0.1"], "11.0.0.1"),
        // As proxies write them.
        (&["198.51.100.1, 203.0.113.7:50123"], "203.0.113.7"),
        (&["[2001:db8:2::7]"], "2001:db8:2::7"),
        (&["[2001:db8:2::7]:50123"], "2001:db8:2::7"),
        (&["fe80::7%eth0, 10.1.2.3:80"], "fe80::7"),
        (&["203.0.113.7, , 10.1.2.3,"], "203.0.113.7"),
        // Several headers are one list.
        (&["198.51.100.1", "203.0.113.7"], "203.0.113.7"),
        (&["203.0.113.7", "10.1.2.3"], "203.0.113.7"),
        (&["198.51.100.1, 203.0.113.7", "10.1.2.3", "10.1.2.4"], "203.0.113.7"),
    ];
    let at = [site.at(Ipv4Addr::LOCALHOST), site.at(Ipv6Addr::LOCALHOST)];
    for proxy in at {
        for (entries, expected) in cases {
            let client = Client::connect(proxy);
            let seen = site.seen_from(client, entries);
            assert_eq!(seen, expected.parse::<IpAddr>().unwrap(), "{entries:?}");
        }
        // Where the proxy itself wrote something strange, nothing further left may count.
        for garbage in ["unknown", "-", "_hidden", "1.2.3", "256.1.1.1", "0x7f.1", "::g", "1.2.3.4.5"] {
            for entries in [garbage.to_string(), format!("203.0.113.7, {garbage}")] {
                let seen = site.seen_from(Client::connect(proxy), &[&entries]);
                assert_eq!(seen, proxy.ip(), "{entries}");
            }
        }
        assert_eq!(site.seen_from(Client::connect(proxy), &[]), proxy.ip());
    }
    let said = site.goat.log();
    assert_eq!(said.matches("X-Forwarded-For").count(), 1, "{said}");
    // Nobody else is believed.
    let stranger = Ipv4Addr::new(127, 0, 0, 2);
    for entries in [&["203.0.113.7"][..], &["127.0.0.1"], &["10.0.0.1", "127.0.0.1"]] {
        let client = Client::connect_from(stranger, site.at(Ipv4Addr::LOCALHOST), 0).unwrap();
        assert_eq!(site.seen_from(client, entries), stranger, "{entries:?}");
    }
}

#[test]
fn without_trusted_proxies_nobody_is_believed() {
    let site = Site::start(json!({ "Host": "" }));
    for (at, own) in [(site.at(Ipv4Addr::LOCALHOST), "127.0.0.1"), (site.at(Ipv6Addr::LOCALHOST), "::1")] {
        let seen = site.seen_from(Client::connect(at), &["203.0.113.7"]);
        assert_eq!(seen, own.parse::<IpAddr>().unwrap());
    }
}

#[test]
fn an_ipv4_client_of_an_ipv6_socket_is_an_ipv4_client() {
    let site = Site::start(json!({ "Host": "" }));
    let [four, six] = [site.at(Ipv4Addr::LOCALHOST), site.at(Ipv6Addr::LOCALHOST)];
    // "external ip" is 4 or 16 bytes, and the peers are in the list of their own family.
    assert_eq!(site.seen_from(Client::connect(four), &[]), four.ip());
    assert_eq!(site.seen_from(Client::connect(six), &[]), six.ip());
    let answer = site.announce(2).accepted(&site.goat);
    let port = site.announce(1).port;
    assert_eq!(answer.peers(), [SocketAddr::new(four.ip(), port), SocketAddr::new(six.ip(), port)]);
    assert_eq!(answer.bytes("peers").len(), 6);
    wait_until("the books", || {
        let sql = format!("SELECT ipv4, ipv6 FROM peers WHERE port4 = {port}");
        let ips: Vec<IpAddr> = site.database.sql(&sql).concat().iter().filter_map(|ip| ip.parse().ok()).collect();
        ips == [four.ip(), six.ip()]
    });
}

// Nobody can keep others from being answered.

#[test]
fn a_thousand_connections_that_are_reset_stop_nothing() {
    let mut site = Site::start(json!({}));
    let request = get(&site.announce(1).target(), "");
    let half = &request[..request.len() / 2];
    for i in 0..1_000_u32 {
        let source = if i % 2 == 0 { Ipv4Addr::LOCALHOST } else { Ipv4Addr::new(127, 0, 0, 2) };
        let Ok(mut client) = Client::connect_from(source, site.goat.address(), 0) else {
            continue;
        };
        match i % 5 {
            0 | 1 => {}
            2 => client.send(half),
            3 => client.send(&request),
            // The answer, if it comes in time, finds nobody.
            _ => client.send(request.repeat(20)),
        }
        client.reset();
    }
    site.goat.process().assert_running();
    site.works();
    // None of them keeps a place.
    let mut open = Vec::new();
    wait_until("128 places for an address whose connections are gone", || {
        open.extend(site.try_idle(Ipv4Addr::new(127, 0, 0, 2)));
        open.len() == 128
    });
}

#[test]
fn a_client_that_has_closed_its_side_still_gets_its_answer() {
    let site = Site::start(json!({}));
    let mut unknown = site.announce(1);
    unknown.info_hash = info_hash(404);
    // One is answered from memory, one by way of the database.
    for announce in [site.announce(1), unknown] {
        let mut client = site.connect();
        client.send(get(&announce.target(), ""));
        client.stream.shutdown(Shutdown::Write).unwrap();
        let answer = client.answer().expect("an answer");
        assert_eq!(answer.0, 200);
        assert_eq!(client.rest(), b"");
    }
}

#[test]
fn running_out_of_descriptors_stops_nothing() {
    // With 200 goat knows when to stop. It expects to get 16 connections at least, and has 11 files open
    // and one for each processor, so the lower limit is met where it does not expect it.
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    for limit in [200, 11 + processors + 11] {
        let site = Site::prepare(json!({ "Workers": 4 }));
        let mut process = site.run_with_descriptors(limit);
        site.works();

        let mut open = Vec::new();
        for i in 0..240_u8 {
            let source = Ipv4Addr::new(127, 0, 1, i / 30);
            let mut client = Client::connect_from(source, site.goat.address(), 0).unwrap();
            client.send("GET /");
            open.push(client);
        }
        // Which of them goat has closed, and how many it has now, is told by nothing but chance.
        wait_until("goat to close a connection for want of room", || open.iter().any(Client::has_ended));
        process.assert_running();
        drop(open);
        wait_until("an answer", || site.try_idle(Ipv4Addr::LOCALHOST).is_some());
        site.works();
        let many: Vec<Client> = (0..10).map(|_| site.idle(Ipv4Addr::LOCALHOST)).collect();
        drop(many);
        assert!(process.terminate().success(), "{}", process.output());
        assert_clean(&process.output());
    }
}

#[test]
fn requests_that_wait_for_a_thread_leave_room_for_other_connections() {
    // Of 400 descriptors 272 are for connections. Both threads that may send lists send some that nobody reads.
    let site = Site::prepare(json!({ "API": true, "Workers": 4 }));
    let bert = site.goat.add_user("bert");
    site.database.add_long_list();
    let mut process = site.run_with_descriptors(400);
    let key = basic("bert", &bert.api_key);
    let mut deaf = Vec::new();
    for (host, padding) in [(2, 7_500), (3, 0), (4, 0)] {
        let request = get("/api/files", &format!("Authorization: {key}\r\nX: {}\r\n", "x".repeat(padding)));
        for _ in 0..100 {
            let source = Ipv4Addr::new(127, 0, 0, host);
            let mut client = Client::connect_from(source, site.goat.address(), 4096).unwrap();
            client.send(&request);
            deaf.push(client);
        }
    }
    let _member = site.idle(Ipv4Addr::new(127, 0, 0, 5));
    drop(deaf);
    assert!(site.refused("evicted") > 0, "who has most requests waiting makes room");
    assert!(site.refused("bytes") > 0, "what waits is counted");
    assert!(process.terminate().success(), "{}", process.output());
}

#[test]
fn of_requests_that_come_together_each_is_answered_on_its_connection() {
    let mut site = Site::start(json!({}));
    // Kept connections that wait, and in between new ones that end with their answer.
    let kept: Vec<Client> = (0..90).map(|_| site.idle(Ipv4Addr::LOCALHOST)).collect();
    let mut clients: Vec<(Client, bool)> = Vec::new();
    site.goat.process().signal(libc::SIGSTOP);
    for client in kept {
        clients.push((client, true));
        if clients.len().is_multiple_of(3) {
            clients.push((site.connect(), false));
        }
    }
    // Of different numbers of requests, different answers.
    let wrong = |i: usize, n: usize| ["port", "uploaded", "downloaded", "left"][(i + n) % 4];
    for (i, (client, stays)) in clients.iter_mut().enumerate() {
        let count = 1 + i % 5;
        let requests = (0..count).map(|n| {
            let target = site.announce(1).target();
            let target = target.replace(&format!("&{}=", wrong(i, n)), &format!("&{}=x", wrong(i, n)));
            let last = !*stays && n + 1 == count;
            get(&target, if last { "Connection: close\r\n" } else { "" })
        });
        client.send(requests.collect::<String>());
    }
    site.goat.process().signal(libc::SIGCONT);
    for (i, (client, stays)) in clients.iter_mut().enumerate() {
        for n in 0..1 + i % 5 {
            let (status, _, body) = client.answer().unwrap_or_else(|| panic!("{i} {n}"));
            let reason = format!("Invalid integer parameter: {}", wrong(i, n));
            let answer = Bencode::parse(&body);
            assert_eq!((status, answer.text("failure reason")), (200, &*reason), "{i} {n}");
        }
        if !*stays {
            assert!(client.answer().is_none(), "{i} was not closed");
        }
    }
    site.works();
}

#[test]
fn announces_are_answered_beside_500_idle_connections() {
    let site = Site::start(json!({}));
    let source = |i: u8| Ipv4Addr::new(127, 0, 1, i);
    let mut idle: Vec<Client> = (0..500_u16).map(|i| site.idle(source((i % 20) as u8))).collect();
    for number in 1..=30 {
        site.announce(number).accepted(&site.goat);
    }
    assert_eq!(scrape(&site.goat, &site.passkey, HASH).unwrap()[3], 30);
    for client in &mut idle {
        client.send(get("/", ""));
        assert!(client.answer().is_some(), "an idle connection was closed");
    }
}

#[test]
fn a_client_that_never_reads_its_answers_blocks_nobody() {
    let site = Site::start(json!({ "API": true }));
    let requests = get("/announce", "").repeat(10_000);
    let mut deaf: Vec<Client> = Vec::new();
    for i in 0..8 {
        let source = Ipv4Addr::new(127, 0, 0, 2 + i % 2);
        let client = Client::connect_from(source, site.goat.address(), 4096).unwrap();
        client.stream.set_nonblocking(true).unwrap();
        deaf.push(client);
    }
    // They send until nothing more is taken from any of them.
    for round in 0.. {
        assert!(round < 1_000, "goat reads what it cannot answer");
        let sent = deaf.iter_mut().map(|client| client.stream.write(requests.as_bytes()));
        if sent.filter(|sent| matches!(sent, Ok(1..))).count() == 0 {
            break;
        }
        site.works();
    }
    for number in 1..=20 {
        site.announce(number).accepted(&site.goat);
    }
    wait_until("goat to close and count them", || site.refused("unread") == 8);
}

#[test]
fn a_client_that_reads_late_gets_every_answer_in_order() {
    const REQUESTS: usize = 20_000;
    let site = Site::start(json!({}));
    let client = Client::connect_from(Ipv4Addr::LOCALHOST, site.goat.address(), 4096).unwrap();
    let mut writing = client.stream.try_clone().unwrap();
    let mut reading = client;
    let malformed = |i: usize| (i * i).is_multiple_of(3);
    let sent = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let sent = &sent;
        scope.spawn(move || {
            for i in 0..REQUESTS {
                let target = if malformed(i) { "/" } else { "/announce" };
                let request = format!("GET {target} HTTP/1.1\r\n\r\n");
                writing.write_all(request.as_bytes()).unwrap();
                sent.fetch_add(1, Relaxed);
            }
        });
        let mut before = 0;
        wait_until("goat to take no more", || {
            let now = sent.load(Relaxed);
            now == REQUESTS || (now > 0 && std::mem::replace(&mut before, now) == now)
        });
        for i in 0..REQUESTS {
            let (status, _, body) = reading.answer().unwrap_or_else(|| panic!("answer {i}"));
            let answer = Bencode::parse(&body);
            let expected = match malformed(i) {
                true => "Malformed announce",
                false => "Your client is not identifying itself",
            };
            assert_eq!((status, answer.text("failure reason")), (200, expected), "answer {i}");
        }
    });
}

// What the tests use.

const HASH: [u8; 20] = *b"a torrent of 1 piece";

/// A goat on SQLite with one member and one torrent.
struct Site {
    goat: Goat,
    database: Database,
    passkey: String,
}

impl Site {
    fn start(overrides: Value) -> Site {
        let mut site = Site::prepare(overrides);
        site.goat.launch();
        site
    }

    fn prepare(mut overrides: Value) -> Site {
        overrides["SlowDown"] = json!(0);
        let database = Database::sqlite();
        let goat = Goat::prepare(&database, overrides);
        let passkey = goat.add_user("anna").passkey;
        goat.add_torrent(crate::common::hex(&HASH));
        Site { goat, database, passkey }
    }

    /// Runs its goat with so many descriptors.
    fn run_with_descriptors(&self, limit: usize) -> Process {
        let goat = self.goat.command(&["run"]);
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -n $0 && exec \"$@\"", &limit.to_string()]);
        shell.arg(goat.get_program()).args(goat.get_args());
        shell.envs(goat.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let mut process = Process::start("goat", &mut shell, self.goat.folder.join("goat.log"));
        wait_until("goat to listen", || {
            process.assert_running();
            TcpStream::connect(self.goat.address()).is_ok()
        });
        process
    }

    /// How many connections goat has refused or closed for a reason.
    fn refused(&self, reason: &str) -> u64 {
        let (status, _, text) = crate::common::http_get(self.goat.address(), "/metrics", &[]);
        let text = String::from_utf8(text).unwrap();
        assert_eq!(status, 200, "{text}");
        let name = format!("goat_connections_refused_total{{reason=\"{reason}\"}} ");
        let count = text.lines().find_map(|line| line.strip_prefix(&name));
        count.unwrap_or_else(|| panic!("{reason}: {text}")).parse().unwrap()
    }

    fn at(&self, ip: impl Into<IpAddr>) -> SocketAddr {
        SocketAddr::new(ip.into(), self.goat.port)
    }

    fn connect(&self) -> Client {
        Client::connect(self.goat.address())
    }

    fn announce(&self, number: u16) -> Announce {
        Announce::new(&self.passkey, HASH, number)
    }

    /// The target of a scrape of the torrent.
    fn scrape(&self) -> String {
        format!("/{}/scrape?info_hash={}", self.passkey, escape(&HASH))
    }

    /// Fails the test unless an announce is answered.
    fn works(&self) {
        self.announce(9_999).accepted(&self.goat);
        let mut goodbye = self.announce(9_999);
        goodbye.event = "stopped";
        goodbye.accepted(&self.goat);
    }

    /// A connection from `source` that has been answered and stays open.
    fn idle(&self, source: Ipv4Addr) -> Client {
        self.try_idle(source).unwrap_or_else(|| panic!("{source} was not answered"))
    }

    fn try_idle(&self, source: Ipv4Addr) -> Option<Client> {
        let mut client = Client::connect_from(source, self.at(Ipv4Addr::LOCALHOST), 0).ok()?;
        client.send(get("/announce", ""));
        client.answer().map(|_| client)
    }

    /// Where goat sees a client that sends these `X-Forwarded-For`, one header each.
    fn seen_from(&self, mut client: Client, forwarded_for: &[&str]) -> IpAddr {
        let headers = forwarded_for.iter().map(|entries| format!("X-Forwarded-For: {entries}\r\n"));
        client.send(get(&self.announce(1).target(), &headers.collect::<String>()));
        let (status, _, body) = client.answer().expect("an answer");
        assert_eq!(status, 200, "{forwarded_for:?}");
        let answer = Bencode::parse(&body);
        let ip = answer.bytes("external ip");
        match (<[u8; 4]>::try_from(ip), <[u8; 16]>::try_from(ip)) {
            (Ok(four), _) => four.into(),
            (_, Ok(six)) => six.into(),
            _ => panic!("{forwarded_for:?}: {answer:?}"),
        }
    }
}

/// A GET with the User-Agent of a client that is let in, and more headers.
fn get(target: &str, headers: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: goat\r\nUser-Agent: {AGENT}\r\n{headers}\r\n")
}

fn value<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = headers.iter().filter(|(other, _)| other == name);
    let value = found.next().map(|(_, value)| value.as_str());
    assert!(found.next().is_none(), "{name} twice: {headers:?}");
    value
}

/// Fails the test if a line of the log is not one, or speaks of a defect.
fn assert_clean(log: &str) {
    for line in log.lines() {
        let dated = line.len() > 20 && line.as_bytes()[19] == b'Z' && line.as_bytes()[20] == b' ';
        assert!(dated && !line.contains(char::is_control), "{line:?}");
        assert!(!line.contains("panicked") && !line.contains("defect"), "{line}");
    }
}

/// A connection to goat.
struct Client {
    stream: TcpStream,
    /// What has come and belongs to the next answer.
    input: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr) -> Client {
        Client::new(TcpStream::connect(address).unwrap())
    }

    fn new(stream: TcpStream) -> Client {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream, input: Vec::new() }
    }

    /// Connects from an address of 127.0.0.0/8, which the standard library cannot choose; with room for so
    /// many bytes that nobody has read, unless that is 0.
    fn connect_from(source: Ipv4Addr, to: SocketAddr, room: libc::c_int) -> io::Result<Client> {
        crate::common::connect_from(source, to, room, PATIENCE).map(Client::new)
    }

    /// Sends as much as goat takes: it may have answered and closed already.
    /// Whether goat has closed the connection, and said nothing.
    fn has_ended(&self) -> bool {
        self.stream.set_nonblocking(true).unwrap();
        let read = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).unwrap();
        match read {
            Ok(size) => size == 0,
            Err(e) => e.kind() != io::ErrorKind::WouldBlock,
        }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Ends the connection by a reset.
    fn reset(self) {
        crate::common::end_by_reset(&self.stream);
    }

    /// The next answer; None if the connection ends before it.
    fn answer(&mut self) -> Option<HttpAnswer> {
        let (status, headers) = self.head()?;
        let length = value(&headers, "content-length").map(|length| length.parse().unwrap());
        let body = match length {
            None => self.rest(),
            Some(length) => {
                while self.input.len() < length {
                    assert!(self.read_more(), "the connection ends in the middle of an answer");
                }
                self.input.drain(..length).collect()
            }
        };
        Some((status, headers, body))
    }

    /// The head of the next answer; None if the connection ends before it.
    fn head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        let end = loop {
            match self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(end) => break end,
                None if self.read_more() => {}
                None if self.input.is_empty() => return None,
                None => panic!("half an answer: {}", self.input.escape_ascii()),
            }
        };
        let head: Vec<u8> = self.input.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 "));
        let status = status.unwrap_or_else(|| panic!("no status: {head}"));
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("{line}: {head}"));
            (name.to_ascii_lowercase(), value.to_string())
        };
        Some((status[..3].parse().unwrap(), lines.map(header).collect()))
    }

    /// Everything until the end of the connection.
    fn rest(&mut self) -> Vec<u8> {
        while self.read_more() {}
        std::mem::take(&mut self.input)
    }

    /// Reads an answer with this status and words, after which goat closes; returns its headers.
    fn refused(&mut self, case: &str, status: u16) -> Vec<(String, String)> {
        let Some((found, headers, body)) = self.answer() else { panic!("{case}: no answer") };
        assert_eq!(found, status, "{case}: {}", body.escape_ascii());
        assert!(!body.is_empty(), "{case}: no words");
        assert_eq!(self.rest(), b"", "{case}");
        headers
    }

    /// Waits for more bytes; false at the end of the connection, in whichever way that comes.
    fn read_more(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(read) => {
                self.input.extend_from_slice(&buffer[..read]);
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => false,
            Err(error) => panic!("waited in vain for goat: {error}"),
        }
    }
}
