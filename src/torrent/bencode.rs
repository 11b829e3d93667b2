//! Bencode (BEP 3 and 52, "bencoding"): a writer for replies and a strict reader for torrents.
//!
//! The reader takes only the one canonical form of a value: what two programs could read in two
//! ways could have two info_hashes. It copies no strings. Knows nothing of torrents.

use std::str::FromStr;

/// How deep lists and dictionaries may nest: a torrent needs 4 levels, and in BEP 52 one more for
/// each directory. All levels fit in 128 KiB of stack, in a debug build too (a test); 32 in release.
pub const MAX_DEPTH: usize = 64;

/// How many values an input may hold, so that a hostile one cannot fill the memory: a torrent of a million
/// files has about four million.
pub const MAX_VALUES: usize = 5_000_000;

const LONGEST: usize = 20;

/// Appends an integer: `i42e`. A tracker has no negative ones to write.
pub fn int(out: &mut Vec<u8>, n: u64) {
    out.push(b'i');
    decimal(out, n);
    out.push(b'e');
}

/// Appends a string: `4:spam`.
pub fn bytes(out: &mut Vec<u8>, text: &[u8]) {
    decimal(out, text.len() as u64);
    out.push(b':');
    out.extend_from_slice(text);
}

/// Appends a dictionary's entry for a number: `8:intervali1800e`. Callers keep keys in order.
pub fn entry(out: &mut Vec<u8>, key: &str, n: u64) {
    bytes(out, key.as_bytes());
    int(out, n);
}

/// Appends `n` in decimal, in a third of the time that `write!` takes.
pub fn decimal(out: &mut Vec<u8>, mut n: u64) {
    let mut text = [0; LONGEST];
    let mut start = LONGEST;
    loop {
        start -= 1;
        text[start] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            return out.extend_from_slice(&text[start..]);
        }
    }
}

/// A parsed value. Strings are parts of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// BEP 3 sets no limit; the reader refuses what does not fit 64 bits.
    Int(i64),
    Bytes(&'a [u8]),
    List(Vec<Value<'a>>),
    Dict {
        /// Strictly ascending by key, as in the input.
        entries: Vec<(&'a [u8], Value<'a>)>,
        /// The whole dictionary as it stands in the input, from `d` to `e`.
        raw: &'a [u8],
    },
}

impl<'a> Value<'a> {
    /// The value under `key`, if this is a dictionary that has it.
    pub fn get(&self, key: &[u8]) -> Option<&Value<'a>> {
        let Value::Dict { entries, .. } = self else { return None };
        let index = entries.binary_search_by_key(&key, |(name, _)| name).ok()?;
        entries.get(index).map(|(_, value)| value)
    }

    pub fn as_int(&self) -> Option<i64> {
        if let Value::Int(n) = self { Some(*n) } else { None }
    }

    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        if let Value::Bytes(text) = self { Some(text) } else { None }
    }
}

/// Parses `input`, which must be one value and nothing more. An error says what was wrong, and at
/// which byte, counted from 0.
///
/// Takes at worst about 80 bytes of memory for each value (many tiny lists; measured), and next to none for
/// the long strings that torrents are made of.
pub fn parse(input: &[u8]) -> Result<Value<'_>, String> {
    whole(input, |rest| value(rest, 0, &mut { MAX_VALUES }))
}

/// Has all of the input taken, and says where what is wrong is.
fn whole<'a, T>(input: &'a [u8], take: impl FnOnce(&mut &'a [u8]) -> Result<T, String>) -> Result<T, String> {
    let mut rest = input;
    let taken = take(&mut rest);
    let taken =
        taken.and_then(|taken| if rest.is_empty() { Ok(taken) } else { Err(expected("the end of the input", rest)) });
    taken.map_err(|problem| format!("{problem} at byte {}", input.len() - rest.len()))
}

/// A key of a dictionary, and its value as it stands in the input.
pub type Entry<'a> = (&'a [u8], &'a [u8]);

/// As [`parse`], of a dictionary whose own keys may stand in any order, as some programs write them,
/// and of at most so many values.
pub fn parse_unsorted(input: &[u8], values: usize) -> Result<Value<'_>, String> {
    let fields = whole(input, |rest| fields(rest, values))?;
    let mut entries: Vec<_> = fields.into_iter().map(|((key, _), value)| (key, value)).collect();
    entries.sort_by_key(|(key, _)| *key);
    let twice = |pair: &&[(&[u8], Value)]| matches!(pair, [(a, _), (b, _)] if a == b);
    match entries.windows(2).find(twice) {
        Some([(key, _), ..]) => Err(format!("duplicate key {}", excerpt(key))),
        _ => Ok(Value::Dict { entries, raw: input }),
    }
}

/// The keys of a dictionary that [`parse_unsorted`] accepts, each with its value as it stands in the input.
pub fn entries(input: &[u8]) -> Result<Vec<Entry<'_>>, String> {
    Ok(fields(&mut &*input, MAX_VALUES)?.into_iter().map(|(entry, _)| entry).collect())
}

/// Takes a dictionary from the start of `rest`: its keys, each with its value as it stands there, and read.
fn fields<'a>(rest: &mut &'a [u8], mut room: usize) -> Result<Vec<(Entry<'a>, Value<'a>)>, String> {
    let mut fields = Vec::new();
    if !eat(rest, b'd') {
        return Err(expected("a dictionary", rest));
    }
    while !eat(rest, b'e') {
        let (key, start) = (string(rest, "a key")?, *rest);
        let value = value(rest, 1, &mut room)?;
        fields.push(((key, start.get(..start.len() - rest.len()).unwrap_or_default()), value));
    }
    Ok(fields)
}

/// A dictionary whose values are bencode already, with its keys in order.
pub fn dict(mut entries: Vec<Entry>) -> Vec<u8> {
    entries.sort_unstable();
    let mut out = b"d".to_vec();
    for (key, value) in entries {
        bytes(&mut out, key);
        out.extend_from_slice(value);
    }
    out.push(b'e');
    out
}

/// Takes a value from the start of `rest`; it stands within `depth` lists and dictionaries, and may have
/// `room` values. Upon an error, `rest` is where the problem is, here and below.
fn value<'a>(rest: &mut &'a [u8], depth: usize, room: &mut usize) -> Result<Value<'a>, String> {
    let start = *rest;
    *room = room.checked_sub(1).ok_or("more values than a torrent may have")?;
    if matches!(start, [b'l' | b'd', ..]) && depth == MAX_DEPTH {
        Err(format!("nesting deeper than {MAX_DEPTH} levels"))
    } else if eat(rest, b'i') {
        number(rest, b'e', "an integer of 64 bits without leading zeros").map(Value::Int)
    } else if eat(rest, b'l') {
        let mut items = Vec::new();
        while !eat(rest, b'e') {
            items.push(value(rest, depth + 1, room)?);
        }
        Ok(Value::List(items))
    } else if eat(rest, b'd') {
        let mut entries: Vec<(&[u8], Value)> = Vec::new();
        while !eat(rest, b'e') {
            let entry = *rest;
            let key = string(rest, "a key")?;
            if entries.last().is_some_and(|(last, _)| *last >= key) {
                *rest = entry;
                return Err(format!("unsorted or duplicate key {}", excerpt(key)));
            }
            entries.push((key, value(rest, depth + 1, room)?));
        }
        let raw = start.get(..start.len() - rest.len()).unwrap_or_default();
        Ok(Value::Dict { entries, raw })
    } else {
        string(rest, "a value").map(Value::Bytes)
    }
}

fn string<'a>(rest: &mut &'a [u8], what: &str) -> Result<&'a [u8], String> {
    let len = number(rest, b':', what)?;
    let Some((text, after)) = rest.split_at_checked(len) else {
        *rest = &[];
        return Err(expected(&format!("a string of {len} bytes"), rest));
    };
    *rest = after;
    Ok(text)
}

/// Takes a number in its canonical form (no `+`, `-0`, leading zero), and the `end` behind it.
fn number<N: FromStr>(rest: &mut &[u8], end: u8, what: &str) -> Result<N, String> {
    let mut parts = rest.splitn(2, |byte| *byte == end);
    let (text, after) = (parts.next().unwrap_or_default(), parts.next());
    let n = match text {
        [b'+', ..] | [b'-', b'0', ..] | [b'0', _, ..] => None,
        _ => str::from_utf8(text).ok().and_then(|text| text.parse().ok()),
    };
    let (Some(n), Some(after)) = (n, after) else {
        return Err(expected(what, rest));
    };
    *rest = after;
    Ok(n)
}

fn eat(rest: &mut &[u8], byte: u8) -> bool {
    let after = rest.strip_prefix(&[byte]);
    *rest = after.unwrap_or(rest);
    after.is_some()
}

fn expected(what: &str, rest: &[u8]) -> String {
    match rest {
        [] => format!("expected {what}, found the end of the input"),
        _ => format!("expected {what}, found {}", excerpt(rest)),
    }
}

/// How `text` begins, fit for a terminal.
fn excerpt(text: &[u8]) -> String {
    let start = text.get(..LONGEST).unwrap_or(text);
    format!("\"{}\"", start.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// A value that owns its strings.
    #[derive(Clone, Debug, PartialEq)]
    enum Tree {
        Int(i64),
        Bytes(Vec<u8>),
        List(Vec<Tree>),
        Dict(BTreeMap<Vec<u8>, Tree>),
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let text = || prop::collection::vec(any::<u8>(), 0..12);
        let leaf = prop_oneof![any::<i64>().prop_map(Tree::Int), text().prop_map(Tree::Bytes)];
        leaf.prop_recursive(8, 64, 8, move |inner| {
            let dict = prop::collection::btree_map(text(), inner.clone(), 0..8);
            prop_oneof![prop::collection::vec(inner, 0..8).prop_map(Tree::List), dict.prop_map(Tree::Dict),]
        })
    }

    fn write(out: &mut Vec<u8>, tree: &Tree) {
        match tree {
            Tree::Int(n) => match u64::try_from(*n) {
                Ok(n) => int(out, n),
                Err(_) => out.extend_from_slice(format!("i{n}e").as_bytes()),
            },
            Tree::Bytes(text) => bytes(out, text),
            Tree::List(items) => {
                out.push(b'l');
                items.iter().for_each(|item| write(out, item));
                out.push(b'e');
            }
            Tree::Dict(entries) => {
                out.push(b'd');
                for (key, item) in entries {
                    bytes(out, key);
                    write(out, item);
                }
                out.push(b'e');
            }
        }
    }

    fn written(tree: &Tree) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, tree);
        out
    }

    /// Also checks that every dictionary's `raw` is what it was parsed from.
    fn tree(value: &Value) -> Tree {
        match value {
            Value::Int(n) => Tree::Int(*n),
            Value::Bytes(text) => Tree::Bytes(text.to_vec()),
            Value::List(items) => Tree::List(items.iter().map(tree).collect()),
            Value::Dict { entries, raw } => {
                assert_eq!(parse(raw).as_ref(), Ok(value));
                let entry = |(key, item): &(&[u8], Value)| (key.to_vec(), tree(item));
                Tree::Dict(entries.iter().map(entry).collect())
            }
        }
    }

    proptest! {
        #[test]
        fn a_value_reads_back_as_it_was_written(original in trees()) {
            let out = written(&original);
            prop_assert_eq!(parse(&out).map(|value| tree(&value)), Ok(original));
        }

        #[test]
        fn a_value_has_only_one_form_that_is_read(
            original in trees(),
            at in any::<prop::sample::Index>(),
            byte in prop::sample::select(&b"dile-0129:a"[..]),
        ) {
            let mut input = written(&original);
            let at = at.index(input.len());
            input[at] = byte;
            if let Ok(value) = parse(&input) {
                prop_assert_eq!(written(&tree(&value)), input);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused_with_a_place_in_them(
            input in prop::collection::vec(prop_oneof![
                any::<u8>(), prop::sample::select(&b"dile-01234:"[..])
            ], 0..64)
        ) {
            if let Err(error) = parse(&input) {
                let (_, at) = error.rsplit_once(" at byte ").unwrap();
                prop_assert!(at.parse::<usize>().unwrap() <= input.len());
            }
        }
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        for n in [0, 1, 9, 10, 1800, i64::MAX as u64, u64::MAX] {
            let mut out = Vec::new();
            int(&mut out, n);
            assert_eq!(out, format!("i{n}e").into_bytes());
        }
    }

    #[test]
    fn an_entry_is_a_key_and_a_number() {
        let mut out = Vec::new();
        entry(&mut out, "interval", 1800);
        assert_eq!(out, b"8:intervali1800e");
    }

    #[test]
    fn numbers_of_64_bits_are_read() {
        for n in [0, 1, 10, -1, -10, i64::MAX, i64::MIN] {
            assert_eq!(parse(format!("i{n}e").as_bytes()), Ok(Value::Int(n)));
        }
    }

    #[test]
    fn a_string_is_written_behind_its_length() {
        let mut out = Vec::new();
        bytes(&mut out, b"");
        bytes(&mut out, &[0xff; 10]);
        assert_eq!(out, b"0:10:\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff");
    }

    #[test]
    fn what_is_not_canonical_is_refused_and_says_where() {
        let integer = "expected an integer of 64 bits without leading zeros, found";
        for (input, error) in [
            ("", "expected a value, found the end of the input at byte 0".to_string()),
            ("x", "expected a value, found \"x\" at byte 0".to_string()),
            ("e", "expected a value, found \"e\" at byte 0".to_string()),
            ("\n", "expected a value, found \"\\n\" at byte 0".to_string()),
            ("ie", format!("{integer} \"e\" at byte 1")),
            ("i-e", format!("{integer} \"-e\" at byte 1")),
            ("i-0e", format!("{integer} \"-0e\" at byte 1")),
            ("i-01e", format!("{integer} \"-01e\" at byte 1")),
            ("i00e", format!("{integer} \"00e\" at byte 1")),
            ("i03e", format!("{integer} \"03e\" at byte 1")),
            ("i+3e", format!("{integer} \"+3e\" at byte 1")),
            ("i 3e", format!("{integer} \" 3e\" at byte 1")),
            ("i3", format!("{integer} \"3\" at byte 1")),
            ("i9223372036854775808e", format!("{integer} \"9223372036854775808e\" at byte 1")),
            ("i1ei2e", "expected the end of the input, found \"i2e\" at byte 3".to_string()),
            ("3:ab", "expected a string of 3 bytes, found the end of the input at byte 4".to_string()),
            ("03:abc", "expected a value, found \"03:abc\" at byte 0".to_string()),
            ("-1:a", "expected a value, found \"-1:a\" at byte 0".to_string()),
            ("3abc", "expected a value, found \"3abc\" at byte 0".to_string()),
            ("99999999999999999999999:", "expected a value, found \"99999999999999999999\" at byte 0".to_string()),
            ("li1e", "expected a value, found the end of the input at byte 4".to_string()),
            ("di1ei2ee", "expected a key, found \"i1ei2ee\" at byte 1".to_string()),
            ("d1:ae", "expected a value, found \"e\" at byte 4".to_string()),
        ] {
            assert_eq!(parse(input.as_bytes()), Err(error), "{input}");
        }
    }

    #[test]
    fn a_string_longer_than_memory_is_refused_without_allocating() {
        let error = parse(b"18446744073709551615:a").unwrap_err();
        assert!(error.contains("found"), "{error}");
    }

    #[test]
    fn a_dictionary_with_unsorted_keys_is_refused() {
        let error = parse(b"d1:bi1e1:ai2ee").unwrap_err();
        assert_eq!(error, "unsorted or duplicate key \"a\" at byte 7");
        assert!(parse(b"d1:bi1e2:aai2ee").is_err());
        assert!(parse(b"d1:ai1e1:Bi2ee").is_err());
        assert!(parse(b"d0:i0e1:ai1e2:aai2e1:bi3e1:\xffi4ee").is_ok());
    }

    #[test]
    fn a_dictionary_with_a_key_twice_is_refused() {
        let error = parse(b"ld0:i1e0:i2eee").unwrap_err();
        assert_eq!(error, "unsorted or duplicate key \"\" at byte 7");
    }

    #[test]
    fn a_value_is_found_by_its_key() {
        let value = parse(b"d1:ai1e2:bb3:abc1:cd1:ai2eee").unwrap();
        assert_eq!(value.get(b"a").and_then(Value::as_int), Some(1));
        assert_eq!(value.get(b"bb").and_then(Value::as_bytes), Some(&b"abc"[..]));
        assert_eq!(value.get(b"b"), None);
        let inner = value.get(b"c").unwrap();
        assert_eq!(inner.get(b"a"), Some(&Value::Int(2)));
        assert!(matches!(inner, Value::Dict { raw: b"d1:ai2ee", .. }));
        assert_eq!(Value::Int(1).get(b"a"), None);
        assert_eq!((inner.as_int(), inner.as_bytes()), (None, None));
    }

    #[test]
    fn nesting_is_limited_and_fits_a_small_stack() {
        let nested = |levels: usize, open: &str| open.repeat(levels) + "i0e" + &"e".repeat(levels);
        let small = std::thread::Builder::new().stack_size(128 * 1024);
        let check = move || {
            for open in ["l", "d0:"] {
                assert!(parse(nested(MAX_DEPTH, open).as_bytes()).is_ok());
                let error = parse(nested(MAX_DEPTH + 1, open).as_bytes()).unwrap_err();
                let at = MAX_DEPTH * open.len();
                assert_eq!(error, format!("nesting deeper than 64 levels at byte {at}"));
                assert!(parse(open.repeat(1_000_000).as_bytes()).is_err());
            }
        };
        small.spawn(check).unwrap().join().unwrap();
    }
}
