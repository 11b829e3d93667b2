//! Torrent files (BEP 3 and 52): what a tracker needs to know of one, and the ids of torrents and
//! peers; and copies for members. Reads bytes, never files. Paths and piece hashes are the clients' business.

pub(crate) mod bencode;
pub(crate) mod metainfo;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use ring::digest;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::random::{hex, unhex};
use crate::torrent::bencode::Value;

/// A torrent's identity, as clients announce it: the SHA-1 of its info dictionary (BEP 3), or the
/// first 20 bytes of the SHA-256 (BEP 52).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct InfoHash(pub [u8; 20]);

impl Hash for InfoHash {
    /// In one piece, without the length: each announce waits for it.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

/// What a client calls itself (BEP 3): any 20 bytes, usually new at each start.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub [u8; 20]);

impl fmt::Display for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for InfoHash {
    type Err = String;

    /// Takes 40 hexadecimal digits, or the 64 of a whole BEP 52 hash, of which the first 40 count.
    fn from_str(text: &str) -> Result<InfoHash, String> {
        let whole = unhex(text).filter(|bytes| matches!(bytes.len(), 20 | 32));
        whole.map(|bytes| cut(&bytes)).ok_or_else(|| {
            let start: String = text.chars().take(80).collect();
            format!("an info_hash is 40 hexadecimal digits (64 for BitTorrent v2), not {start:?}")
        })
    }
}

impl Serialize for InfoHash {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for InfoHash {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<InfoHash, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

fn cut(hash: &[u8]) -> InfoHash {
    InfoHash(hash.first_chunk().copied().unwrap_or_default())
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torrent<'a> {
    /// The one that clients announce first: v1's if the torrent has a v1 part, else v2's.
    pub info_hash: InfoHash,
    /// Of v2 and hybrid torrents. Clients announce a hybrid torrent under both hashes.
    pub info_hash_v2: Option<InfoHash>,
    /// For display: without control characters, but of any length.
    pub name: String,
    /// Bytes in all its files, without padding files (BEP 47). At most `i64::MAX`.
    pub size: u64,
    /// Whether clients are told to find peers through its trackers only (BEP 27).
    pub private: bool,
    /// The info dictionary as it stands in the file: the hashes are of these bytes.
    pub info: &'a [u8],
}

/// Reads a torrent file: v1 (BEP 3), v2 (BEP 52) or hybrid. An error is a sentence for people.
pub fn read(file: &[u8]) -> Result<Torrent<'_>, String> {
    read_within(file, bencode::MAX_VALUES)
}

/// [`read`] of what a stranger sends: of a torrent that takes little memory to read, with some 100,000 files.
pub(crate) fn read_small(file: &[u8]) -> Result<Torrent<'_>, String> {
    read_within(file, 500_000)
}

fn read_within(file: &[u8], values: usize) -> Result<Torrent<'_>, String> {
    let torrent = bencode::parse_unsorted(file, values).and_then(|root| Ok(describe(&root)?));
    torrent.map_err(|problem| format!("not a torrent: {problem}"))
}

fn describe<'a>(root: &Value<'a>) -> Result<Torrent<'a>, &'static str> {
    let Some(info @ Value::Dict { raw, .. }) = root.get(b"info") else {
        return Err("it has no info dictionary");
    };
    // First of all: in a later version, nothing else may be what it was (BEP 52).
    let has_v2 = match info.get(b"meta version") {
        None => false,
        Some(Value::Int(2)) => true,
        Some(_) => return Err("its meta version is not 2, the only one known"),
    };
    // Half a v1 part counts, and is then refused: some clients would announce its hash.
    let v1_keys: [&[u8]; 3] = [b"pieces", b"length", b"files"];
    let has_v1 = !has_v2 || v1_keys.iter().any(|key| info.get(key).is_some());

    let name = name(info).ok_or("it has no name")?;
    let piece = info.get(b"piece length").and_then(Value::as_int).filter(|bytes| *bytes > 0);
    let piece = piece.ok_or("its piece length is missing or not above 0")?;
    if has_v2 && (piece < 16 * 1024 || piece.count_ones() != 1) {
        return Err("its piece length is not a power of two from 16 KiB upwards");
    }

    let size_v1 = has_v1.then(|| size_v1(info, piece)).transpose()?;
    let size_v2 = has_v2.then(|| size_v2(info)).transpose()?;
    if has_v1 && has_v2 && size_v1 != size_v2 {
        return Err("its v1 and its v2 part differ in size");
    }

    let hash = |algorithm| cut(digest::digest(algorithm, raw).as_ref());
    let hash_v1 = || hash(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    let hash_v2 = has_v2.then(|| hash(&digest::SHA256));
    Ok(Torrent {
        info_hash: hash_v2.filter(|_| !has_v1).unwrap_or_else(hash_v1),
        info_hash_v2: hash_v2,
        name: text(name),
        size: size_v1.or(size_v2).unwrap_or_default(),
        private: info.get(b"private") == Some(&Value::Int(1)),
        info: raw,
    })
}

fn name<'a>(info: &Value<'a>) -> Option<&'a [u8]> {
    let text = |key| info.get(key).and_then(Value::as_bytes);
    // Old torrents whose name is in another encoding often carry a second one.
    text(b"name.utf-8").or(text(b"name"))
}

/// A name for display.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace(char::is_control, "\u{fffd}")
}

/// Keys beside the info dictionary that name other trackers, DHT nodes (BEP 5) and web seeds (BEP 17 and 19).
const FOREIGN: [&[u8]; 5] = [b"announce", b"announce-list", b"nodes", b"url-list", b"httpseeds"];

/// A member's copy of a torrent that [`read`] accepts: with these announce URLs, each a tier of its own
/// (BEP 12), and without other trackers, nodes and web seeds. Everything else, the info dictionary above all,
/// is the same to the byte, but for the order of the keys: they are sorted.
pub fn copy_for(file: &[u8], urls: &[String]) -> Result<Vec<u8>, String> {
    let mut entries = bencode::entries(file)?;
    entries.retain(|(key, _)| !FOREIGN.contains(key));
    Ok(with_urls(entries, urls))
}

fn with_urls(entries: Vec<bencode::Entry>, urls: &[String]) -> Vec<u8> {
    let string = |url: &String| format!("{}:{url}", url.len());
    let announce = urls.first().map_or("0:".into(), string);
    let tiers: String = urls.iter().map(|url| format!("l{}e", string(url))).collect();
    let tiers = format!("l{tiers}e");
    let mut entries = entries; // Of a shorter life.
    entries.push((b"announce", announce.as_bytes()));
    if urls.len() > 1 {
        entries.push((b"announce-list", tiers.as_bytes()));
    }
    bencode::dict(entries)
}

/// A copy of a torrent that [`read`] accepts with the private flag (BEP 27). It is another torrent: its
/// info_hash is new.
pub fn private_copy(file: &[u8]) -> Result<Vec<u8>, String> {
    let mut root = bencode::entries(file)?;
    let found = root.iter().position(|(key, _)| *key == b"info").map(|at| root.swap_remove(at));
    let mut info = bencode::entries(found.map_or(b"", |(_, info)| info))?;
    info.retain(|(key, _)| *key != b"private");
    info.push((b"private", b"i1e"));
    let info = bencode::dict(info);
    root.push((b"info", &info));
    Ok(bencode::dict(root))
}

/// Bytes in the files of the v1 part (BEP 3), whose pieces have so many bytes each.
fn size_v1(info: &Value, piece: i64) -> Result<u64, &'static str> {
    let pieces = info.get(b"pieces").and_then(Value::as_bytes).ok_or("it has no pieces")?.len();
    if !pieces.is_multiple_of(20) {
        return Err("its pieces are not a multiple of 20 bytes");
    }
    let files = match (info.get(b"length"), info.get(b"files")) {
        (Some(_), None) => std::slice::from_ref(info),
        (None, Some(Value::List(files))) => files,
        _ => return Err("it must have either a length or a list of files"),
    };
    let stored = add(files.iter().map(file_size))?;
    // Padding has pieces too.
    let padding = add(files.iter().filter(|file| has_attribute(file, b'p')).map(length))?;
    let whole = stored.checked_add(padding).ok_or("its files add up to 2^63 bytes or more")?;
    if (pieces / 20) as u64 != whole.div_ceil(piece.unsigned_abs()) {
        return Err("its pieces do not fit the length of its files: there are too many or too few");
    }
    Ok(stored)
}

fn size_v2(info: &Value) -> Result<u64, &'static str> {
    let tree = info.get(b"file tree").ok_or("it has no file tree")?;
    if tree.get(b"").is_some() {
        return Err("its file tree is itself a file");
    }
    let mut size = 0;
    walk(tree, &mut Vec::new(), &mut |_, file| {
        size = add([Ok(size), file_size(file)].into_iter())?;
        Ok(())
    })?;
    Ok(size)
}

/// What is done with a file and its path.
type Each<'a> = dyn FnMut(&[&[u8]], &Value) -> Result<(), &'static str> + 'a;

/// Calls `each` for every file of a BEP 52 file tree, with its path. What a node says of itself is under the empty name,
/// and only a file has a length there, or is a symbolic link. Recurses no deeper than the reader lets values nest.
fn walk<'a>(node: &Value<'a>, path: &mut Vec<&'a [u8]>, each: &mut Each) -> Result<(), &'static str> {
    let Value::Dict { entries, .. } = node else {
        return Err("its file tree is not made of dictionaries");
    };
    match node.get(b"").filter(|this| this.get(b"length").is_some() || has_attribute(this, b'l')) {
        Some(file) if entries.len() == 1 => each(path, file),
        Some(_) => Err("its file tree has a file with files inside"),
        None => entries.iter().filter(|(name, _)| !name.is_empty()).try_for_each(|(name, below)| {
            path.push(name);
            walk(below, path, each)?;
            path.pop();
            Ok(())
        }),
    }
}

/// Bytes in a file; 0 for one that nobody stores: padding, or a symbolic link, which needs no length (BEP 47).
fn file_size(file: &Value) -> Result<u64, &'static str> {
    if has_attribute(file, b'l') {
        return Ok(0);
    }
    let length = length(file)?;
    Ok(if has_attribute(file, b'p') { 0 } else { length })
}

fn length(file: &Value) -> Result<u64, &'static str> {
    let length = file.get(b"length").and_then(Value::as_int);
    u64::try_from(length.unwrap_or(-1)).or(Err("a file's length is missing or negative"))
}

fn has_attribute(file: &Value, letter: u8) -> bool {
    file.get(b"attr").and_then(Value::as_bytes).is_some_and(|attributes| attributes.contains(&letter))
}

/// The sum, which must fit a database's signed 64 bits.
fn add(mut sizes: impl Iterator<Item = Result<u64, &'static str>>) -> Result<u64, &'static str> {
    sizes.try_fold(0, |sum: u64, size| {
        let sum = sum.checked_add(size?).filter(|sum| *sum <= i64::MAX as u64);
        sum.ok_or("its files add up to 2^63 bytes or more")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/torrents");

    /// Each line of the samples' table, with the torrent that it is about.
    fn samples() -> Vec<(String, Vec<u8>)> {
        let table = std::fs::read_to_string(format!("{SAMPLES}/expected.txt")).unwrap();
        let lines = table.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (file, rest) = line.split_once(' ').unwrap();
            let file = std::fs::read(format!("{SAMPLES}/{file}")).unwrap();
            (rest.to_string(), file)
        };
        lines.map(sample).collect()
    }

    /// What `read` says of a torrent with this info dictionary (in bencode) and nothing else.
    fn read_info(info: &str) -> Result<(u64, String), String> {
        let file = format!("d4:info{info}e");
        read(file.as_bytes()).map(|torrent| (torrent.size, torrent.name))
    }

    /// The error for an info dictionary.
    fn refusal(info: &str) -> String {
        read_info(info).expect_err(info)
    }

    #[test]
    fn torrents_of_other_programs_are_read_as_those_programs_read_them() {
        let samples = samples();
        assert_eq!(samples.len(), 9);
        for (line, file) in samples {
            let [v1, v2, private, size, name] = line.splitn(5, ' ').collect::<Vec<_>>().try_into().unwrap();
            let torrent = read(&file).unwrap();
            let first = if v1 == "-" { v2 } else { v1 };
            assert_eq!(Ok(torrent.info_hash), first.parse(), "{line}");
            assert_eq!(torrent.info_hash_v2, v2.parse().ok(), "{line}");
            assert_eq!(torrent.private, private == "yes", "{line}");
            assert_eq!(torrent.size.to_string(), size, "{line}");
            assert_eq!(torrent.name, name, "{line}");
        }
    }

    #[test]
    fn the_info_hash_depends_on_the_info_dictionary_only() {
        for (line, file) in samples() {
            let before = read(&file).unwrap();
            let mut out = b"d8:announce1:x4:info".to_vec();
            out.extend_from_slice(before.info);
            out.extend_from_slice(b"5:zzzzzlee");
            assert_eq!(read(&out), Ok(before), "{line}");
        }
    }

    #[test]
    fn a_torrent_that_was_cut_off_is_refused() {
        for (line, file) in samples() {
            for len in 0..file.len() {
                let error = read(&file[..len]).expect_err(&line);
                assert!(error.starts_with("not a torrent: expected "), "{error}");
            }
        }
    }

    #[test]
    fn an_info_dictionary_with_unsorted_or_duplicate_keys_is_refused() {
        let duplicate = "d6:lengthi1e4:name1:a4:name1:b12:piece lengthi1e6:pieces0:e";
        let reason = "not a torrent: unsorted or duplicate key \"name\" at byte 28";
        assert_eq!(refusal(duplicate), reason);
        let unsorted = refusal("d4:name1:a6:lengthi1e12:piece lengthi1e6:pieces20:aaaaaaaaaaaaaaaaaaaae");
        assert_eq!(unsorted, "not a torrent: unsorted or duplicate key \"length\" at byte 17");
    }

    #[test]
    fn keys_beside_the_info_dictionary_may_stand_in_any_order_and_are_sorted_in_copies() {
        let info = "d6:lengthi1e4:name1:a12:piece lengthi1e6:pieces20:aaaaaaaaaaaaaaaaaaaae";
        let file = format!("d4:info{info}7:comment1:x8:announce1:y10:created by1:ze");
        let torrent = read(file.as_bytes()).unwrap();
        assert_eq!((torrent.info, torrent.size), (info.as_bytes(), 1));
        let copy = copy_for(file.as_bytes(), &["u".into()]).unwrap();
        let sorted = format!("d8:announce1:u7:comment1:x10:created by1:z4:info{info}e");
        assert_eq!(String::from_utf8(copy), Ok(sorted));
        let twice = read(b"d4:infode7:comment1:x4:infodee").unwrap_err();
        assert_eq!(twice, "not a torrent: duplicate key \"info\"");
        assert!(read(b"d7:commentd1:bi1e1:ai1ee4:infodee").unwrap_err().contains("unsorted"));
    }

    /// Info dictionaries, and why they are refused.
    const BROKEN: &str = "
        de => it has no name
        d4:namei1ee => it has no name
        d4:name1:ae => its piece length is missing or not above 0
        d4:name1:a12:piece lengthi0ee => its piece length is missing or not above 0
        d4:name1:a12:piece lengthi-1ee => its piece length is missing or not above 0
        d6:lengthi1e4:name1:a12:piece lengthi1ee => it has no pieces
        d4:name1:a12:piece lengthi1e6:pieces1:ae => its pieces are not a multiple of 20 bytes
        d4:name1:a12:piece lengthi1e6:pieces0:e => it must have either a length or a list of files
        d5:filesde4:name1:a12:piece lengthi1e6:pieces0:e => \
            it must have either a length or a list of files
        d5:filesle6:lengthi1e4:name1:a12:piece lengthi1e6:pieces0:e => \
            it must have either a length or a list of files
        d12:meta versioni2e4:name1:a12:piece lengthi16384ee => it has no file tree
        d12:meta versioni2e4:name1:a12:piece lengthi16383ee => \
            its piece length is not a power of two from 16 KiB upwards
        d12:meta versioni1ee => its meta version is not 2, the only one known
        d12:meta versioni3ee => its meta version is not 2, the only one known
    ";

    #[test]
    fn what_a_torrent_must_have_is_named_when_it_is_missing() {
        let missing = "not a torrent: it has no info dictionary";
        assert_eq!(read(b"de"), Err(missing.to_string()));
        assert_eq!(read(b"le"), Err("not a torrent: expected a dictionary, found \"le\" at byte 0".into()));
        assert_eq!(read(b"d4:infolee"), Err(missing.to_string()));
        for line in BROKEN.trim().lines() {
            let (info, reason) = line.trim().split_once(" => ").unwrap();
            assert_eq!(refusal(info), format!("not a torrent: {reason}"), "{info}");
        }
    }

    /// A v1 info dictionary with these files, in one piece.
    fn v1(files: &str) -> String {
        let pieces = "12:piece lengthi9223372036854775807e6:pieces20:aaaaaaaaaaaaaaaaaaaa";
        format!("d5:filesl{files}e4:name1:a{pieces}e")
    }

    /// A v2 info dictionary with this file tree.
    fn v2(tree: &str) -> String {
        format!("d9:file tree{tree}12:meta versioni2e4:name1:a12:piece lengthi16384ee")
    }

    #[test]
    fn a_size_is_the_sum_of_all_files_but_padding() {
        let (a, b) = ("d6:lengthi1ee", "d4:attr1:x6:lengthi20ee");
        let padding = "d4:attr2:xp6:lengthi300ee";
        assert_eq!(read_info(&v1(&format!("{a}{b}{padding}{a}"))).unwrap().0, 22);
        let tree = format!("d1:ad0:{a}e1:dd1:bd0:{b}e1:cd0:{padding}eee");
        assert_eq!(read_info(&v2(&tree)).unwrap().0, 21);
    }

    #[test]
    fn a_symbolic_link_has_no_bytes_whatever_its_length_says() {
        for link in ["d4:attr1:le", "d4:attr1:l6:lengthi0ee", "d4:attr2:xl6:lengthi9ee", "d4:attr1:l6:lengthi-1ee"] {
            assert_eq!(read_info(&v1(&format!("d6:lengthi5ee{link}"))).unwrap().0, 5, "{link}");
            let tree = format!("d1:ad0:d6:lengthi5eee1:bd0:{link}ee");
            assert_eq!(read_info(&v2(&tree)).unwrap().0, 5, "{link}");
        }
    }

    #[test]
    fn pieces_that_do_not_fit_the_files_are_refused() {
        let info = |files: &str, pieces: usize| {
            let hashes = "a".repeat(20 * pieces);
            read_info(&format!("d{files}4:name1:a12:piece lengthi10e6:pieces{}:{hashes}e", hashes.len()))
        };
        let padding = "5:filesld6:lengthi5eed4:attr1:p6:lengthi5eed6:lengthi6eee";
        let link = "5:filesld6:lengthi10eed4:attr1:l6:lengthi9eee";
        let (one, empty) = ("6:lengthi20e", "6:lengthi0e");
        for (files, pieces) in [(one, 2), ("6:lengthi21e", 3), ("6:lengthi1e", 1), (empty, 0), (padding, 2), (link, 1)]
        {
            assert!(info(files, pieces).is_ok(), "{files}");
            for wrong in [pieces.saturating_sub(1), pieces + 1].into_iter().filter(|wrong| *wrong != pieces) {
                let error = info(files, wrong).expect_err(files);
                let reason =
                    "not a torrent: its pieces do not fit the length of its files: there are too many or too few";
                assert_eq!(error, reason, "{files} {wrong}");
            }
        }
    }

    #[test]
    fn a_file_of_negative_or_no_length_is_refused() {
        let reason = "not a torrent: a file's length is missing or negative";
        for file in ["d6:lengthi-1ee", "d6:length1:1e", "de", "i1e", "d4:attr1:p6:lengthi-1ee"] {
            assert_eq!(refusal(&v1(file)), reason);
        }
        assert_eq!(refusal(&v2("d1:ad0:d6:lengthi-1eeee")), reason);
    }

    #[test]
    fn a_size_that_no_database_can_store_is_refused() {
        let most = "d6:lengthi9223372036854775807ee";
        assert_eq!(read_info(&v1(most)).unwrap().0, i64::MAX as u64);
        let reason = "not a torrent: its files add up to 2^63 bytes or more";
        assert_eq!(refusal(&v1(&format!("{most}d6:lengthi1ee"))), reason);
        assert_eq!(refusal(&v1(&format!("{most}{most}{most}"))), reason);
    }

    #[test]
    fn a_file_tree_tells_files_from_directories_by_their_length() {
        let file = "d6:lengthi5ee";
        let described = format!("d3:dird0:d4:attr1:xe1:ad0:{file}eee");
        assert_eq!(read_info(&v2(&described)).unwrap().0, 5);
        for (tree, reason) in [
            (format!("d0:{file}e"), "its file tree is itself a file"),
            (format!("d1:ad0:{file}1:bd0:{file}eee"), "its file tree has a file with files inside"),
            ("d1:ai1ee".to_string(), "its file tree is not made of dictionaries"),
            ("le".to_string(), "its file tree is not made of dictionaries"),
        ] {
            assert_eq!(refusal(&v2(&tree)), format!("not a torrent: {reason}"));
        }
    }

    #[test]
    fn a_file_tree_of_60_directories_is_read_on_a_small_stack() {
        let nested = |levels| "d1:a".repeat(levels) + "d0:d6:lengthi5eee" + &"e".repeat(levels);
        let check = move || {
            // The torrent, its info and the two dictionaries of the file are levels, too.
            assert_eq!(read_info(&v2(&nested(60))).unwrap().0, 5);
            assert!(refusal(&v2(&nested(61))).contains("nesting deeper than 64 levels"));
        };
        let small = std::thread::Builder::new().stack_size(128 * 1024);
        small.spawn(check).unwrap().join().unwrap();
    }

    #[test]
    fn a_hybrid_whose_parts_differ_in_size_is_refused() {
        let hybrid = |v1: u64, v2: u64| {
            format!(
                "d9:file treed1:ad0:d6:lengthi{v2}eeee6:lengthi{v1}e12:meta versioni2e\
                 4:name1:a12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaae"
            )
        };
        assert_eq!(read_info(&hybrid(7, 7)).unwrap().0, 7);
        assert_eq!(refusal(&hybrid(7, 8)), "not a torrent: its v1 and its v2 part differ in size");
    }

    #[test]
    fn a_v2_torrent_with_half_a_v1_part_is_refused() {
        let half = |key| {
            let info = "12:meta versioni2e4:name1:a12:piece lengthi16384e";
            refusal(&format!("d9:file treed1:ad0:d6:lengthi7eeee{key}{info}e"))
        };
        assert_eq!(half("6:lengthi7e"), "not a torrent: it has no pieces");
        assert_eq!(half("5:filesle"), "not a torrent: it has no pieces");
    }

    #[test]
    fn a_name_is_fit_for_display() {
        let named = |name: &str| {
            let len = name.len();
            read_info(&format!("d6:lengthi1e4:name{len}:{name}12:piece lengthi1e6:pieces20:aaaaaaaaaaaaaaaaaaaae"))
        };
        assert_eq!(named("Gr\u{f6}\u{df}e").unwrap().1, "Gr\u{f6}\u{df}e");
        assert_eq!(named("a\x1b[2J\n\u{9b}b").unwrap().1, "a\u{fffd}[2J\u{fffd}\u{fffd}b");
        let file = b"d4:infod6:lengthi1e4:name2:a\xff12:piece lengthi1e6:pieces20:aaaaaaaaaaaaaaaaaaaaee";
        assert_eq!(read(file).unwrap().name, "a\u{fffd}");
        let file =
            b"d4:infod6:lengthi1e4:name1:\xff10:name.utf-81:b12:piece lengthi1e6:pieces20:aaaaaaaaaaaaaaaaaaaaee";
        assert_eq!(read(file).unwrap().name, "b");
    }

    #[test]
    fn only_private_1_is_private() {
        for (private, expected) in [("", false), ("i0e", false), ("i1e", true), ("i2e", false)] {
            let key = if private.is_empty() { "" } else { "7:private" };
            let info = format!("d6:lengthi1e4:name1:a12:piece lengthi1e6:pieces20:aaaaaaaaaaaaaaaaaaaa{key}{private}e");
            let file = format!("d4:info{info}7:privatei1ee");
            assert_eq!(read(file.as_bytes()).unwrap().private, expected);
        }
    }

    #[test]
    fn an_info_hash_is_written_in_lower_case_and_read_in_either() {
        let hash = InfoHash(*b"\x00\x01\x0f\x10\x7f\x80\x9a\xbc\xde\xff0123456789");
        let text = "00010f107f809abcdeff30313233343536373839";
        assert_eq!(hash.to_string(), text);
        assert_eq!(format!("{hash:?}"), text);
        assert_eq!(format!("{:?}", PeerId(hash.0)), text);
        assert_eq!(text.parse(), Ok(hash));
        assert_eq!(text.to_uppercase().parse(), Ok(hash));
        assert_eq!(format!("{text}{}", "e".repeat(24)).parse(), Ok(hash));
    }

    #[test]
    fn what_is_no_info_hash_is_refused_with_the_rule() {
        let (short, long) = ("a".repeat(39), "a".repeat(41));
        let (sign, umlauts) = (format!("+{short}"), "\u{e4}".repeat(20));
        let cut_off = format!("{}g", "a".repeat(63));
        let huge = "\u{e4}".repeat(1000);
        for text in ["", &short, &long, &sign, &umlauts, &cut_off, &huge] {
            let error = text.parse::<InfoHash>().unwrap_err();
            assert!(error.starts_with("an info_hash is 40 hexadecimal digits"), "{error}");
            assert!(error.len() < 300, "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_damaged_torrent_never_panics(
            sample in 0..9_usize,
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let (_, mut file) = samples().swap_remove(sample);
            for (at, byte) in damage {
                let at = at.index(file.len());
                file[at] = byte;
            }
            if let Ok(torrent) = read(&file) {
                prop_assert!(!torrent.name.contains(char::is_control));
                prop_assert!(torrent.size <= i64::MAX as u64);
            }
        }

        #[test]
        fn an_info_hash_reads_back_as_it_was_written(bytes in any::<[u8; 20]>()) {
            let hash = InfoHash(bytes);
            prop_assert_eq!(hash.to_string().parse(), Ok(hash));
        }
    }
}
