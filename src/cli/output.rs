//! How commands print: what serde makes of a thing, as JSON, or some of its fields as aligned text for people.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use super::call::Done;
use crate::log::{clean, timestamp};

const PLAIN: fn(u64) -> String = |number| number.to_string();

/// How a field is shown to people, by its name in JSON: a number of it, how wide a column of these is, and whether its
/// text stands on the right.
fn shown(key: &str) -> (fn(u64) -> String, usize, bool) {
    match key {
        "size" | "uploaded" | "downloaded" | "rawUploaded" | "rawDownloaded" => (size, 10, true),
        "ratio" => (PLAIN, 7, true),
        "lastSeen" | "lastActive" | "createTime" | "suggested" | "lastWritten" | "time" => (timestamp, 20, false),
        "seedTime" | "silent" => (duration, 9, true),
        "admin" | "banned" | "verified" | "approved" => (PLAIN, 3, false),
        "name" | "client" | "suggestedBy" | "banReason" | "ip" | "peerId" => (PLAIN, 20, false),
        "who" | "what" | "whom" => (PLAIN, 16, false),
        "infoHash" | "detail" => (PLAIN, 40, false),
        _ => (PLAIN, 5, true),
    }
}

fn text(thing: &Value, key: &str) -> String {
    match &thing[key] {
        Value::Null if key == "ratio" && thing["uploaded"].as_u64() > Some(0) => "inf".into(),
        Value::Null => "-".into(),
        Value::Bool(on) => if *on { "yes" } else { "no" }.into(),
        Value::String(text) => clean(text),
        ratio if key == "ratio" => format!("{:.2}", ratio.as_f64().unwrap_or(0.0)),
        value => value.as_u64().map_or_else(|| value.to_string(), shown(key).0),
    }
}

/// `infoHash` as a title: `info hash`.
fn title(key: &str) -> String {
    let split = |c: char| if c.is_ascii_uppercase() { format!(" {}", c.to_ascii_lowercase()) } else { c.into() };
    key.chars().map(split).collect::<String>().replace("api ", "API ").replace("create time", "created")
}

/// A row of text: some fields of a thing, by their names, or their titles.
fn row(thing: Option<&Value>, columns: &str) -> String {
    let cells = columns.split([' ', ',']).map(|key| {
        let (_, width, right) = shown(key);
        let title = title(key);
        let width = width.max(title.len());
        let text = thing.map_or(title, |thing| text(thing, key));
        if right { format!("{text:>width$}") } else { format!("{text:<width$}") }
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
}

/// Prints one thing: a line for each of these fields that it has, or all as a JSON object. `key:a,b` is a list of things
/// with the columns a and b.
pub fn show(thing: &impl Serialize, keys: &str, json: bool) -> Done {
    if json {
        return print(format!("{}\n", serde_json::to_string(thing)?));
    }
    let thing = serde_json::to_value(thing)?;
    let keys = keys.split_whitespace().map(|key| key.split_once(':').unwrap_or((key, "")));
    let keys = keys.filter(|(key, _)| thing.get(key).is_some());
    let width = keys.clone().map(|(key, _)| title(key).len()).max().unwrap_or(0);
    let line = |key: &str, text: &str| format!("{:<width$}  {text}", title(key)).trim_end().to_string() + "\n";
    let lines = keys.map(|(key, columns)| match &thing[key] {
        Value::Array(list) if !columns.is_empty() => {
            let titles = list.first().map(|_| row(None, columns));
            let rows = titles.into_iter().chain(list.iter().map(|thing| row(Some(thing), columns)));
            title(key) + &rows.map(|row| format!("\n  {row}")).collect::<String>() + "\n"
        }
        Value::Array(texts) => texts.iter().map(|text| line(key, &clean(text.as_str().unwrap_or_default()))).collect(),
        _ => line(key, &text(&thing, key)),
    });
    print(lines.collect::<String>())
}

pub fn done(text: &str, thing: &impl Serialize, json: bool) -> Done {
    if json { show(thing, "", true) } else { print(format!("{text}\n")) }
}

/// Prints things as text with these columns under titles, or as one JSON array, an object a line.
pub fn show_all(things: &[impl Serialize], columns: &str, json: bool) -> Done {
    let mut text = if json { "[".into() } else { row(None, columns) + "\n" };
    for (number, thing) in things.iter().enumerate() {
        text += &match json {
            true => format!("{}\n{}", if number > 0 { "," } else { "" }, serde_json::to_string(thing)?),
            false => row(Some(&serde_json::to_value(thing)?), columns) + "\n",
        };
        if text.len() > 1 << 16 {
            print(std::mem::take(&mut text))?;
        }
    }
    print(text + if json { "\n]\n" } else { "" })
}

/// Writes to stdout. Who reads our output may stop before its end, as in `goat user list | head`.
pub fn print(text: impl AsRef<[u8]>) -> Done {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_ref()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done.map_err(|e| format!("cannot write: {e}"))?),
    }
}

/// `1 torrent`, `2 torrents`.
pub fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// `27.9 GiB`.
fn size(bytes: u64) -> String {
    let power = (bytes.checked_ilog2().unwrap_or(0) / 10) as usize;
    let unit = UNITS.get(power).unwrap_or(&"B");
    match power {
        0 => format!("{bytes} B"),
        _ => format!("{:.1} {unit}", bytes as f64 / 1024_f64.powi(power as i32)),
    }
}

/// `3d 4h`: the two largest units.
fn duration(seconds: u64) -> String {
    match (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m {}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h {minutes}m"),
        (days, hours, _) => format!("{days}d {hours}h"),
    }
}

/// Reads `10GiB`, `1.5 TB`, `10G` (1024s), `-300` (bytes) or the like, exactly; a fraction of a byte is cut off.
pub fn bytes(text: &str) -> Result<i64, &'static str> {
    exactly(text).ok_or(
        "must be a number of bytes, perhaps with a unit: KiB, MiB, GiB ... or K, M, G ... are 1024s, KB, MB, GB ... 1000s",
    )
}

fn exactly(text: &str) -> Option<i64> {
    let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, unit) = rest.split_at_checked(end)?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let letters = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
    let base = if unit.len() == letters.len() + 1 { 1000_i128 } else { 1024 };
    let power = match letters {
        "" if unit != "ib" => 0,
        letter => 1 + "kmgtpe".find(letter).filter(|_| letter.len() == 1)?,
    };
    let scale = |digits: &str| digits.parse::<i128>().ok()?.checked_mul(base.pow(power as u32));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // More digits behind the point would not fit.
    let part = scale(fraction).filter(|_| fraction.len() <= 18)? / 10_i128.pow(fraction.len() as u32);
    i64::try_from(sign * scale(whole)?.checked_add(part)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_exactly_in_any_unit() {
        let read = |text: &str| bytes(text).ok();
        let good = [
            ("0", 0),
            ("300", 300),
            ("-300B", -300),
            ("1kB", 1_000),
            ("1KB", 1_000),
            ("10GiB", 10_737_418_240),
            ("10gib", 10_737_418_240),
            ("10G", 10_737_418_240),
            ("10g", 10_737_418_240),
            ("10GB", 10_000_000_000),
            ("10gb", 10_000_000_000),
            ("-1.5k", -1536),
            ("1.5 TB", 1_500_000_000_000),
            ("0.001KiB", 1),
            ("9223372036854775807", i64::MAX),
            ("7EiB", 8_070_450_532_247_928_832),
        ];
        for (text, expected) in good {
            assert_eq!(read(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "-",
            "B",
            "1X",
            "1iB",
            "1 2",
            "1.2.3",
            "1GG",
            "1bb",
            "1Gi",
            "--1",
            "9223372036854775808",
            "8EiB",
            "1e9",
            "ä",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_and_times_are_shown_in_units_that_people_know() {
        let sizes = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (30_000_000, "28.6 MiB"), (u64::MAX, "16.0 EiB")];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in [(0, "0s"), (59, "59s"), (3_600, "1h 0m"), (90_061, "1d 1h"), (61, "1m 1s")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
