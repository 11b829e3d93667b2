//! Feeds: RSS and Torznab, as programs that fetch by themselves read them. They are read by Python's parser of XML.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::common::{Announce, Database, Goat, wait_until};
use crate::library::{Answer, ask, get, post, sent, start, torrent};
use serde_json::{Value, json};

const PYTHON: &str = "/usr/bin/python3";

/// What Python reads: of each item its elements and Torznab's attributes, by their names.
const READER: &str = "
import json, sys, email.utils, xml.etree.ElementTree as tree
root = tree.fromstring(sys.stdin.buffer.read())
space = '{http://torznab.com/schemas/2015/feed}attr'
items = []
for item in root.iter('item'):
    found = {e.tag: e.text for e in item if e.tag != space}
    found['pubDate'] = int(email.utils.parsedate_to_datetime(found['pubDate']).timestamp())
    found['enclosure'] = item.find('enclosure').attrib
    found['attr'] = {e.get('name'): e.get('value') for e in item.iter(space)}
    items.append(found)
caps = {e.tag: e.attrib for e in root.iter()}
print(json.dumps({'root': root.tag, 'items': items, 'all': caps}))";

fn read(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut python =
        Command::new(PYTHON).args(["-c", READER]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    python.stdin.take().unwrap().write_all(&answer.body).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", answer.text());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn titles(feed: &Value) -> Vec<&str> {
    let items = feed["items"].as_array().unwrap().iter();
    items.map(|item| item["title"].as_str().unwrap()).collect()
}

/// A request without any credentials but what its path says.
fn fetch(goat: &Goat, path: &str) -> Answer {
    ask(goat, "GET", path, "", b"")
}

#[test]
fn feeds_say_of_each_torrent_what_programs_ask_for_and_fetch_it_with_the_passkey() {
    for database in Database::each("feeds") {
        let (goat, admin, berta, caro) = start(&database);
        let name = "<A & B's \"best\"> ]]>";
        let file = torrent(name, 40);
        let id = sent(&goat, &admin, &file)["id"].clone();
        let hash = goat::torrent::read(&file).unwrap().info_hash;
        sent(&goat, &admin, &torrent("Newer song", 20));
        sent(&goat, &berta, &torrent("waiting song", 20));
        goat.add_torrent("ab".repeat(20)); // of which there is no file to fetch
        goat.cli(&["file", "free", name, "--download", "50", "--upload", "200"]);
        Announce::new(&caro.passkey, hash.0, 1).accepted(&goat);
        Announce { left: 0, ..Announce::new(&berta.passkey, hash.0, 2) }.accepted(&goat);
        let rss = fetch(&goat, &format!("/{}/rss", berta.passkey));
        assert!(rss.head.contains("Cache-Control: no-store"), "{}", rss.head);
        assert!(rss.head.contains("Content-Type: application/rss+xml"), "{}", rss.head);
        let feed = read(&rss);
        assert_eq!((&feed["root"], titles(&feed)), (&json!("rss"), vec!["Newer song", name]));
        let item = &feed["items"][1];
        let hash = hash.to_string();
        let attributes = json!({ "category": "8000", "size": "40", "files": "1", "grabs": "0", "seeders": "1",
            "peers": "2", "infohash": hash, "downloadvolumefactor": "0.5", "uploadvolumefactor": "2" });
        assert_eq!(item["attr"], attributes);
        assert_eq!((&item["guid"], &item["size"]), (&json!(hash), &json!("40")));
        let created = get(&goat, &berta, &format!("/api/files/{id}")).json()["createTime"].clone();
        assert_eq!(item["pubDate"], created);
        let enclosure = &item["enclosure"];
        assert_eq!(enclosure["type"], "application/x-bittorrent");
        let path = enclosure["url"].as_str().unwrap().strip_prefix("http://localhost").unwrap();
        assert_eq!(fetch(&goat, path).body, get(&goat, &berta, &format!("/api/files/{id}/torrent")).body);
        // A search of Torznab, with and without the ending that programs append.
        let search = |query: &str| read(&fetch(&goat, &format!("/{}/torznab{query}", caro.passkey)));
        assert_eq!(titles(&search("?t=search&q=song")), ["Newer song"]);
        assert_eq!(titles(&search("/api?t=search&q=best&cat=8000&apikey=x")), [name]);
        assert_eq!(titles(&search("?t=search&offset=1&limit=100")), [name]);
        assert_eq!(titles(&search("?t=search&limit=1")), ["Newer song"]);
        let caps = search("?t=caps");
        assert_eq!(caps["root"], "caps");
        assert_eq!(caps["all"]["search"], json!({ "available": "yes", "supportedParams": "q" }));
        assert_eq!(caps["all"]["category"], json!({ "id": "8000", "name": "Other" }));
        assert_eq!(search("?t=music")["all"]["error"]["code"], "203");
    }
}

#[test]
fn a_feed_is_for_members_who_are_not_banned_and_passkeys_cannot_be_guessed_by_it() {
    let database = Database::sqlite();
    let (goat, admin, berta, caro) = start(&database);
    let waiting = sent(&goat, &berta, &torrent("waiting", 20))["id"].clone();
    for feed in ["rss".to_string(), "torznab?t=search".into(), "torznab?t=caps".into(), format!("torrent/{waiting}")] {
        assert_eq!(fetch(&goat, &format!("/{}/{feed}", "0".repeat(40))).status, 403, "{feed}");
    }
    // What waits is for who sent it, as in the API.
    assert_eq!(fetch(&goat, &format!("/{}/torrent/{waiting}", caro.passkey)).status, 404);
    assert_eq!(fetch(&goat, &format!("/{}/torrent/{waiting}", berta.passkey)).status, 200);
    post(&goat, &admin, &format!("/api/users/{}/ban?reason=why", berta.id), b"");
    wait_until("the ban", || {
        let answer = fetch(&goat, &format!("/{}/rss", berta.passkey));
        answer.status == 403 && answer.json()["error"] == "Invalid passkey: why"
    });
    let guess = |n: u32| ask(&goat, "GET", &format!("/{n:040}/rss"), "X-Forwarded-For: 192.0.2.1\r\n", b"").status;
    let statuses: Vec<u16> = (0..40).map(guess).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    let known = format!("/{}/rss", caro.passkey);
    assert_eq!(ask(&goat, "GET", &known, "X-Forwarded-For: 192.0.2.1\r\n", b"").status, 200, "who has one is let in");
    assert_eq!(ask(&goat, "POST", &known, "", b"").status, 405);
    assert!(!goat.log().contains(&caro.passkey), "{}", goat.log());
}

#[test]
fn a_feed_ends_with_the_thousandth_torrent() {
    let database = Database::sqlite();
    let (goat, _, berta, _) = start(&database);
    database.sql(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1050)
         INSERT INTO files (info_hash, name, verified) SELECT printf('%040x', i), 'song ' || i, 1 FROM n;
         INSERT INTO torrents (file_id, user_id, files, info) SELECT id, 0, 1, x'6465' FROM files",
    );
    for (offset, count, first) in [(0, 100, "song 1050"), (900, 100, "song 150"), (950, 50, "song 100")] {
        let feed = read(&fetch(&goat, &format!("/{}/torznab?t=search&offset={offset}", berta.passkey)));
        assert_eq!((titles(&feed).len(), titles(&feed)[0]), (count, first), "{offset}");
    }
    for offset in [1_000, u64::MAX] {
        let feed = read(&fetch(&goat, &format!("/{}/torznab?t=search&offset={offset}", berta.passkey)));
        assert_eq!(titles(&feed), [""; 0], "{offset}");
    }
}
