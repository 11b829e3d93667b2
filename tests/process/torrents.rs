//! Torrent files: those that other programs make, members' copies of them, and hostile ones.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{Announce, Bencode, Database, Goat, hex, installed, skip, wait_until};
use serde_json::json;

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/torrents");
const PYTHON: &str = "/usr/bin/python3";

fn path(goat: &Goat, name: &str) -> String {
    goat.folder.join(name).to_str().unwrap().to_string()
}

fn write(goat: &Goat, name: &str, bytes: impl AsRef<[u8]>) -> String {
    fs::write(goat.folder.join(name), bytes).unwrap();
    path(goat, name)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A bencoded string.
fn text(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [format!("{}:", bytes.len()).as_bytes(), bytes].concat()
}

/// An info dictionary of one file, with further keys after its name and private flag.
fn info(name: &[u8], private: bool, pieces: usize) -> Vec<u8> {
    let flag: &[u8] = if private { b"7:privatei1e" } else { b"" };
    let length = (pieces / 20).saturating_sub(1) * 16384 + usize::from(pieces > 0);
    [
        format!("d6:lengthi{length}e4:name").as_bytes(),
        &text(name),
        b"12:piece lengthi16384e6:pieces",
        &text(vec![7; pieces]),
        flag,
        b"1:zde",
        b"e",
    ]
    .concat()
}

/// A torrent of one info dictionary and nothing else.
fn torrent(info: &[u8]) -> Vec<u8> {
    [b"d4:info", info, b"e"].concat()
}

/// What goat says of a file that it cannot register, on one line.
fn refusal(goat: &Goat, file: &str) -> String {
    let (status, stdout, stderr) = goat.cli(&["file", "add", file]);
    assert_eq!((status.code(), stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.lines().count() == 1 && stderr.contains(file), "{stderr}");
    stderr
}

/// The program in Python, run by libtorrent's own reader on a torrent.
fn libtorrent(program: &str, arguments: &[&str]) -> String {
    let program = format!("import sys, libtorrent as lt\n{program}");
    run(Command::new(PYTHON).args(["-c", &program]).args(arguments))
}

#[test]
fn torrents_made_by_other_programs_have_the_hash_that_those_programs_print() {
    let test = "torrents of other programs";
    let programs = ["mktorrent", "transmission-create", "transmission-show"];
    if let Some(program) = programs.iter().find(|program| !installed(program)) {
        return skip(test, &format!("no {program}"));
    }
    if !has_libtorrent() {
        return skip(test, "no libtorrent for Python");
    }
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({}));
    let folder = goat.folder.join("Größe");
    fs::create_dir(&folder).unwrap();
    for (name, size) in [("a", 0), ("b\u{e4}", 1), ("c", 70_000), ("d", 32_768)] {
        fs::write(folder.join(name), vec![b'x'; size]).unwrap();
    }
    let content = folder.to_str().unwrap();
    let out = |name: &str| path(&goat, name);
    let (mk, transmission) = (out("mk.torrent"), out("transmission.torrent"));
    run(Command::new("mktorrent").args(["-p", "-a", "http://x/", "-o", &mk, content]));
    run(Command::new("transmission-create").args(["-p", "-t", "http://x/", "-o", &transmission, content]));
    for file in [&mk, &transmission] {
        let said = run(Command::new("transmission-show").arg(file));
        let hash = said.lines().find_map(|line| line.trim().strip_prefix("Hash: "));
        let added = goat.json(&["file", "add", file]);
        assert_eq!(added["infoHash"], hash.unwrap(), "{file}");
        assert_eq!((&added["name"], &added["size"]), (&json!("Größe"), &json!(102_769)));
    }
    // libtorrent: v1, v2 and hybrid. One that is both is known by its v1 hash.
    let make = "
fs = lt.file_storage()
lt.add_files(fs, sys.argv[1])
t = lt.create_torrent(fs, 16384, int(sys.argv[2]))
t.set_priv(True)
lt.set_piece_hashes(t, sys.argv[1].rsplit('/', 1)[0])
open(sys.argv[3], 'wb').write(lt.bencode(t.generate()))
h = lt.torrent_info(sys.argv[3]).info_hashes()
print(h.v1 if h.has_v1() else str(h.v2)[:40])";
    for (kind, flags) in [("v1", "64"), ("v2", "32"), ("hybrid", "0")] {
        let file = out(&format!("{kind}.torrent"));
        let hash = libtorrent(make, &[content, flags, &file]);
        assert_eq!(goat.json(&["file", "add", &file])["infoHash"], hash.trim(), "{kind}");
    }
}

fn has_libtorrent() -> bool {
    let python = Command::new(PYTHON).args(["-c", "import libtorrent"]).output();
    python.is_ok_and(|output| output.status.success())
}

/// The samples, and torrents with everything that a copy must leave out or keep.
fn originals() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = fs::read_dir(SAMPLES)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "torrent"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_string(), fs::read(path).unwrap()))
        .collect();
    assert_eq!(all.len(), 9);
    let foreign = [
        b"d8:announce12:http://evil/13:announce-listll12:http://evil/el11:udp://evil/ee7:comment5:hello".as_slice(),
        b"13:creation datei1e9:httpseedsl12:http://seed/e4:info",
        &info(b"\xff\xfe not UTF-8", true, 20),
        b"5:nodesll9:127.0.0.1i1eee8:url-listl12:http://seed/ee",
    ]
    .concat();
    all.push(("foreign".into(), foreign));
    all.push(("bare".into(), torrent(&info(b"n", false, 20))));
    all
}

#[test]
fn a_members_copy_has_their_announce_urls_no_others_and_the_same_torrent_to_the_byte() {
    let database = Database::sqlite();
    let public = "https://tracker.example.org";
    for (udp, urls) in [(false, 1), (true, 2)] {
        let goat = Goat::prepare(&database, json!({ "URL": public, "UDP": udp }));
        let anna = goat.add_user(&format!("anna {udp}"));
        for (name, original) in originals() {
            let source = write(&goat, "source.torrent", &original);
            let out = path(&goat, "out.torrent");
            let words = ["torrent", &source, "--for", &anna.name, "--out", &out];
            let (status, _, stderr) = goat.cli(&words);
            assert_eq!((status.code(), stderr.as_str()), (Some(0), ""), "{name}");
            let copy = fs::read(&out).unwrap();
            let (before, after) = (Bencode::parse(&original), Bencode::parse(&copy));
            // Bencode has one form for each value, so this is equality to the byte.
            assert_eq!(before.get("info"), after.get("info"), "{name}");
            let url = format!("{public}/{}/announce", anna.passkey);
            assert_eq!(after.text("announce"), url, "{name}");
            let udp_url = format!("udp://tracker.example.org:{}/{}/announce", goat.port, anna.passkey);
            let tier = |url: &str| Bencode::List(vec![Bencode::Bytes(url.into())]);
            let tiers = (urls == 2).then(|| Bencode::List(vec![tier(&url), tier(&udp_url)]));
            assert_eq!(after.get("announce-list"), tiers.as_ref(), "{name}");
            let keep = |value: &Bencode| {
                let Bencode::Dictionary(entries) = value else { panic!("{name}") };
                let gone = ["announce", "announce-list", "nodes", "url-list", "httpseeds"];
                let kept = entries.iter().filter(|(key, _)| !gone.iter().any(|name| name.as_bytes() == *key));
                kept.map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()
            };
            assert_eq!(keep(&before), keep(&after), "{name}");
            for gone in ["nodes", "url-list", "httpseeds"] {
                assert_eq!(after.get(gone), None, "{name}");
            }
            assert!(!String::from_utf8_lossy(&copy).contains("evil"), "{name}");
            let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&out).unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600, "it holds a passkey");
            if has_libtorrent() && urls == 2 {
                let program = "
t = lt.torrent_info(sys.argv[1])
print(*[x.url for x in t.trackers()], len(t.web_seeds()), len(t.nodes()))";
                assert_eq!(libtorrent(program, &[&out]).trim(), format!("{url} {udp_url} 0 0"), "{name}");
            }
        }
    }
}

#[test]
fn a_copy_for_each_member_is_in_a_file_of_its_own() {
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({}));
    let users = ["anna", "../bert", "c/d", ".e"].map(|name| goat.add_user(name));
    goat.add_user("banned");
    let source = write(&goat, "source.torrent", torrent(&info(b"n", true, 20)));
    for words in [&["user", "ban", "banned"][..], &["file", "add", &source]] {
        assert!(goat.cli(words).0.success());
    }
    let folder = path(&goat, "copies");
    let (status, stdout, stderr) = goat.cli(&["torrent", &source, "--for-all", &folder]);
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout, format!("4 copies in {folder}\n"));
    let mut found: Vec<String> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    let files = ["%2E.%2Fbert", "%2Ee", "anna", "c%2Fd"].map(|name| format!("n@{name}.torrent"));
    assert_eq!(found, files);
    for (user, file) in users.iter().zip([&files[2], &files[0], &files[3], &files[1]]) {
        let copy = Bencode::parse(&fs::read(Path::new(&folder).join(file)).unwrap());
        assert!(copy.text("announce").contains(&user.passkey), "{file}");
    }
}

/// Takes the private flag out of a torrent.
fn take_private(torrent: &mut Bencode) -> Option<Bencode> {
    let Bencode::Dictionary(root) = torrent else {
        return None;
    };
    let Some(Bencode::Dictionary(info)) = root.get_mut(&b"info"[..]) else {
        return None;
    };
    info.remove(&b"private"[..])
}

#[test]
fn a_torrent_without_the_private_flag_is_refused_copied_with_it_or_taken_as_it_is() {
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({}));
    for (name, original) in originals() {
        let before = Bencode::parse(&original);
        let private = before.get("info").unwrap().get("private") == Some(&Bencode::Integer(1));
        let source = write(&goat, &name, &original);
        let out = path(&goat, &format!("private-{name}"));
        if private {
            goat.json(&["file", "add", &source]);
            let (status, _, stderr) = goat.cli(&["file", "add", &source, "--private", &out]);
            assert!(status.code() == Some(1) && stderr.contains("already"), "{stderr}");
            continue;
        }
        let said = refusal(&goat, &source);
        assert!(said.contains("private flag") && said.contains("--private OUT.torrent"), "{said}");
        let public = goat.json(&["file", "add", &source, "--public"]);
        let added = goat.json(&["file", "add", &source, "--private", &out]);
        assert_ne!(added["infoHash"], public["infoHash"], "{name}");
        assert_eq!((&added["name"], &added["size"]), (&public["name"], &public["size"]));
        let mut after = Bencode::parse(&fs::read(&out).unwrap());
        let mut before = before;
        assert_eq!(take_private(&mut after), Some(Bencode::Integer(1)), "{name}");
        take_private(&mut before); // may have been 0
        assert_eq!(after, before, "{name}: nothing else is different");
        // The copy is itself a torrent like any other.
        assert_eq!(goat.json(&["file", "add", &out]), added);
        if has_libtorrent() {
            let program = "
t = lt.torrent_info(sys.argv[1])
h = t.info_hashes()
print(t.priv(), h.v1 if h.has_v1() else str(h.v2)[:40])";
            let expected = format!("True {}", added["infoHash"].as_str().unwrap());
            assert_eq!(libtorrent(program, &[&out]).trim(), expected, "{name}");
        }
    }
}

#[test]
fn unsorted_and_duplicate_keys_are_refused_for_two_programs_could_read_two_torrents() {
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({}));
    let good = String::from_utf8(torrent(&info(b"n", true, 20))).unwrap();
    let cases = [
        good.replace("d6:lengthi1e4:name1:n", "d4:name1:n6:lengthi1e"),
        good.replace("6:lengthi1e", "6:lengthi1e6:lengthi2e"),
        good.replace("d4:info", "d4:infode4:info"),
    ];
    for (number, case) in cases.iter().enumerate() {
        assert_ne!(*case, good);
        let file = write(&goat, &format!("{number}.torrent"), case);
        let said = refusal(&goat, &file);
        assert!(said.contains("duplicate key"), "{said}");
    }
}

#[test]
fn what_stands_beside_the_info_dictionary_may_be_as_editors_and_web_sites_leave_it() {
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({}));
    goat.add_user("anna");
    let good = torrent(&info(b"n", true, 20));
    let copy = |file: &str| {
        let words = ["torrent", file, "--for", "anna", "--out", "-"];
        goat.command(&words).output().unwrap()
    };
    let file = write(&goat, "good.torrent", &good);
    goat.add_torrent(&file);
    let expected = copy(&file);
    assert_eq!((expected.status.code(), &expected.stderr[..]), (Some(0), &b""[..]));
    // A line end behind the last byte is left out, and said, whatever is done with the torrent.
    for (name, end) in [("lf.torrent", "\n"), ("crlf.torrent", "\r\n")] {
        let file = write(&goat, name, [&good[..], end.as_bytes()].concat());
        let said = format!("goat: {file}: the line end after the torrent's last byte is left out\n");
        let (status, stdout, stderr) = goat.cli(&["file", "add", &file]);
        assert_eq!((status.code(), &stderr), (Some(0), &said), "{stdout}");
        let made = copy(&file);
        assert_eq!(made.stdout, expected.stdout);
        assert_eq!(String::from_utf8(made.stderr).unwrap(), said);
    }
    assert_eq!(goat.json(&["file", "list"]).as_array().unwrap().len(), 1);
    let more = write(&goat, "more.torrent", [&good[..], b"\n\n"].concat());
    assert!(refusal(&goat, &more).contains("expected the end of the input"));
    // Keys in any order: the member's copy has them sorted.
    let unsorted = [&good[..good.len() - 1], b"7:comment1:x8:announce1:ye"].concat();
    let file = write(&goat, "unsorted.torrent", unsorted);
    goat.add_torrent(&file);
    let made = copy(&file).stdout;
    assert_eq!(Bencode::parse(&made).keys(), ["announce", "comment", "info"]);
}

#[test]
fn hostile_torrents_are_refused_in_words() {
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({}));
    let good = torrent(&info(b"n", true, 40));
    goat.json(&["file", "add", &write(&goat, "good.torrent", &good)]);
    for length in (0..good.len()).step_by(7) {
        refusal(&goat, &write(&goat, "truncated.torrent", &good[..length]));
    }
    for (name, bytes) in [
        ("lists", vec![b'l'; 1_000_000]),
        ("dictionaries", b"d1:a".repeat(250_000)),
        ("length", b"d99999999999999999999:".to_vec()),
        ("many", [&b"d1:al"[..], &b"le".repeat(6_000_000), b"ee"].concat()),
    ] {
        let said = refusal(&goat, &write(&goat, name, bytes));
        assert!(said.contains("not a torrent"), "{said}");
    }
    assert!(refusal(&goat, "/dev/zero").contains("256 MiB"));
}

#[test]
fn a_torrent_of_100_megabytes_is_registered_and_copied() {
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({}));
    let anna = goat.add_user("anna");
    let original = torrent(&info(b"n", true, 100_000_000));
    let source = write(&goat, "large.torrent", &original);
    let added = goat.json(&["file", "add", &source]);
    let out = path(&goat, "out.torrent");
    assert!(goat.cli(&["torrent", &source, "--for", "anna", "--out", &out]).0.success());
    let copy = fs::read(&out).unwrap();
    let announce = text(format!("http://{}/{}/announce", goat.address(), anna.passkey));
    assert!(copy == [b"d8:announce", &announce[..], &original[1..]].concat());
    assert_eq!(goat.json(&["file", "add", &out]), added);
}

#[test]
fn a_hybrid_that_was_registered_by_its_second_hash_is_counted_once() {
    for database in Database::each("hybrids registered twice") {
        let goat = Goat::start(&database, json!({ "SlowDown": 0 }));
        let anna = goat.add_user("anna");
        let v2 = "8910cb44ea4f8f09d89b4d26d8100a785c2ed85a";
        let bytes = |at| u8::from_str_radix(&v2[2 * at..2 * at + 2], 16).unwrap();
        let announce = Announce::new(&anna.passkey, std::array::from_fn(bytes), 1);
        goat.add_torrent(v2);
        announce.accepted(&goat);
        wait_until("the session", || goat.json(&["stats"])["leechers"] == 1);
        // Of several with one that cannot be, none is registered.
        let file = format!("{SAMPLES}/libtorrent-hybrid.torrent");
        for (bad, why) in [(v2, "second hash"), ("/absent", "neither an info hash")] {
            let (status, _, stderr) = goat.cli(&["file", "add", &file, bad]);
            assert_eq!(status.code(), Some(1));
            assert!(stderr.contains(why), "{stderr}");
        }
        assert_eq!(goat.json(&["file", "list"])[0]["infoHash"], v2);
        goat.add_torrent(&file);
        let list = goat.json(&["file", "list"]);
        assert_eq!(list.as_array().unwrap().len(), 1);
        assert_ne!(list[0]["infoHash"], v2);
        // What was there by its second hash is the torrent now: answered, but not counted.
        wait_until("the second hash to be told from the torrent", || {
            announce.accepted(&goat);
            goat.json(&["stats"])["leechers"] == 0
        });
    }
}

#[test]
fn a_copy_goes_into_a_pipe_and_to_stdout() {
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({}));
    goat.add_user("anna");
    let source = write(&goat, "a.torrent", torrent(&info(b"n", true, 20)));
    let copy = |out: &str| {
        let words = ["torrent", &source, "--for", "anna", "--out", out];
        let output = goat.command(&words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output
    };
    let (file, pipe) = (path(&goat, "x"), path(&goat, "pipe"));
    copy(&file);
    let expected = fs::read(&file).unwrap();
    run(Command::new("mkfifo").arg(&pipe));
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe).unwrap()
    });
    copy(&pipe);
    assert_eq!(reader.join().unwrap(), expected);
    // What there is to say beside it goes where it spoils nothing.
    let output = copy("-");
    assert_eq!(output.stdout, expected);
    assert!(String::from_utf8_lossy(&output.stderr).contains("not registered yet"));
    goat.add_torrent(&source);
    assert_eq!(copy("-").stderr, b"");
}

#[test]
fn a_copy_replaces_nothing_but_a_copy_and_follows_no_link() {
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({}));
    let anna = goat.add_user("anna");
    goat.add_user("bert");
    let source = write(&goat, "a.torrent", torrent(&info(b"n", true, 20)));
    goat.add_torrent(&source);
    let (out, link) = (path(&goat, "out"), path(&goat, "link"));
    let copy = |member: &str, out: &str, more: &[&str]| {
        let words = ["torrent", &source, "--for", member, "--out", out];
        goat.cli(&[&words, more].concat())
    };
    let refused = |out: &str, why: &str| {
        let before = fs::read(out).unwrap();
        let (status, stdout, stderr) = copy("anna", out, &[]);
        assert_eq!((status.code(), stdout.as_str()), (Some(1), ""), "{stderr}");
        assert!(stderr.contains(why) && stderr.contains("--force"), "{stderr}");
        assert_eq!(fs::read(out).unwrap(), before);
    };
    // A copy is replaced by another member's, and by one with another passkey.
    for member in ["anna", "bert", "anna"] {
        assert!(copy(member, &out, &[]).0.success());
    }
    goat.json(&["user", "passkey", "anna"]);
    let old = fs::read(&out).unwrap();
    assert!(String::from_utf8_lossy(&old).contains(&anna.passkey));
    assert!(copy("anna", &out, &[]).0.success());
    let new = fs::read(&out).unwrap();
    assert_ne!(new, old);
    // With another tracker, the same URL and web seeds, or no torrent at all.
    let url = Bencode::parse(&new).text("announce").to_string();
    let foreign = [
        b"d8:announce19:http://other/xy/ann".to_vec(),
        [&b"d8:announce"[..], &text(&url), b"8:url-list8:http://e"].concat(),
    ];
    for head in foreign {
        let whole = [&head[..], b"4:info", &info(b"n", true, 20), b"e"].concat();
        refused(&write(&goat, "foreign", whole), "not a copy that goat has made");
    }
    refused(&write(&goat, "letter", "dear anna"), "not a copy that goat has made");
    refused(&write(&goat, "empty", ""), "not a copy that goat has made");
    refused(&source, "is the torrent to be copied");
    std::os::unix::fs::symlink(&out, &link).unwrap();
    refused(&link, "is a symbolic link");
    // A link to nowhere makes nothing there.
    let (nowhere, planted) = (path(&goat, "nowhere"), path(&goat, "planted"));
    std::os::unix::fs::symlink(&nowhere, &planted).unwrap();
    assert_eq!(copy("anna", &planted, &[]).0.code(), Some(1));
    assert!(!Path::new(&nowhere).exists());
    // By force a link is replaced, not followed.
    let kept = fs::read(&out).unwrap();
    assert!(copy("bert", &link, &["--force"]).0.success());
    assert!(!Path::new(&link).is_symlink());
    assert_eq!(fs::read(&out).unwrap(), kept);
    let letter = path(&goat, "letter");
    assert!(copy("bert", &letter, &["--force"]).0.success());
    assert_eq!(fs::read(&letter).unwrap(), fs::read(&link).unwrap());
}

#[test]
fn a_private_copy_replaces_nothing_but_itself() {
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({}));
    let source = write(&goat, "a.torrent", torrent(&info(b"n", false, 20)));
    let out = path(&goat, "out.torrent");
    let add = |out: &str, more: &[&str]| goat.cli(&[&["file", "add", &source, "--private", out], more].concat());
    for _ in 0..2 {
        assert!(add(&out, &[]).0.success());
    }
    let letter = write(&goat, "letter", "dear anna");
    let link = path(&goat, "link");
    std::os::unix::fs::symlink(&out, &link).unwrap();
    for taken in [&letter, &source, &link] {
        let before = fs::read(taken).unwrap();
        let (status, _, stderr) = add(taken, &[]);
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("--force"), "{stderr}");
        assert_eq!(&fs::read(taken).unwrap(), &before);
    }
    assert!(add(&letter, &["--force"]).0.success());
    assert_eq!(fs::read(&letter).unwrap(), fs::read(&out).unwrap());
}

#[test]
fn a_copy_without_a_file_is_named_by_torrent_and_member_and_replaces_no_other_torrents() {
    let database = Database::sqlite();
    let goat = Goat::prepare(&database, json!({}));
    for name in ["anna", "bert"] {
        goat.add_user(name);
    }
    let sources = [("a", &b"one"[..]), ("b", b"two"), ("c", b"one")].map(|(file, name)| {
        let size = if file == "c" { 40 } else { 20 };
        write(&goat, file, torrent(&info(name, true, size)))
    });
    for source in &sources {
        goat.add_torrent(source);
    }
    let folder = path(&goat, "copies");
    fs::create_dir(&folder).unwrap();
    let copy = |words: &[&str]| {
        let mut command = goat.command(&[&["torrent"], words].concat());
        command.current_dir(&folder).output().unwrap()
    };
    let output = copy(&[&sources[0], "--for", "anna"]);
    assert_eq!(output.stdout, b"one@anna.torrent\n", "{output:?}");
    let files = || {
        let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        files.sort();
        files
    };
    assert_eq!(files(), ["one@anna.torrent"]);
    for source in &sources[..2] {
        assert!(copy(&[source, "--for-all", "."]).status.success());
    }
    let names = ["one@anna", "one@bert", "two@anna", "two@bert"];
    assert_eq!(files(), names.map(|name| format!("{name}.torrent")));
    // Another torrent of the same name.
    let before = fs::read(Path::new(&folder).join("one@bert.torrent")).unwrap();
    for words in [&["--for", "bert"][..], &["--for-all", "."]] {
        let output = copy(&[&[&sources[2][..]], words].concat());
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("a copy of another torrent"), "{stderr}");
    }
    assert_eq!(fs::read(Path::new(&folder).join("one@bert.torrent")).unwrap(), before);
    let said = goat.json(&["torrent", &sources[1], "--for-all", &folder]);
    assert_eq!((said["copies"].as_array().unwrap().len(), &said["registered"]), (2, &json!(true)));
}

#[test]
fn of_a_hybrid_torrent_only_the_first_hash_is_tracked_and_the_second_answered() {
    for database in Database::each("hybrid torrents") {
        let goat = Goat::start(&database, json!({ "SlowDown": 0 }));
        let anna = goat.add_user("anna");
        let (v1, v2) = ("f2b8e8d82e954478026cf4ba7f6df17b639ccf4c", "8910cb44ea4f8f09d89b4d26d8100a785c2ed85a");
        let bytes = |hash: &str| -> [u8; 20] {
            let byte = |at| u8::from_str_radix(&hash[at..at + 2], 16).unwrap();
            std::array::from_fn(|at| byte(2 * at))
        };
        let announce = |hash: &str| Announce::new(&anna.passkey, bytes(hash), 1);
        // Before it is known, a client suggests both.
        for hash in [v1, v2] {
            assert_eq!(announce(hash).refusal(&goat), "Unregistered torrent");
        }
        let pending = || goat.json(&["file", "list", "--pending"]).as_array().unwrap().len();
        wait_until("both to be suggested", || pending() == 2);
        let file = format!("{SAMPLES}/libtorrent-hybrid.torrent");
        assert_eq!(goat.json(&["file", "add", &file])["infoHash"], v1);
        assert_eq!(pending(), 0);
        // A client announces both, with the same counters: they must not count twice.
        wait_until("the torrent", || announce(v1).refusal(&goat).is_empty());
        // Tools delete torrents whose tracker refuses a hash: it is answered, and nothing is booked.
        wait_until("the second hash", || announce(v2).refusal(&goat).is_empty());
        wait_until("the session", || goat.json(&["stats"])["leechers"] == 1);
        // What comes later is written later: when this one waits, the second hash was dealt with.
        assert_eq!(announce(&"7".repeat(40)).refusal(&goat), "Unregistered torrent");
        wait_until("another to be suggested", || pending() == 1);
        assert_eq!(goat.json(&["file", "list", "--pending"])[0]["infoHash"], "7".repeat(40));
        let said = {
            let (status, _, stderr) = goat.cli(&["file", "add", v2]);
            assert_eq!(status.code(), Some(1));
            stderr
        };
        assert!(said.contains(v1) && said.contains("second hash"), "{said}");
        assert_eq!(hex(&bytes(v1)), v1);
    }
}
