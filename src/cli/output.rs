//! How commands print: the same fields as aligned text for people, or as JSON with exact numbers.

use std::io::{self, Write};

use serde_json::Value;

use super::call::Done;
use crate::log::{clean, timestamp};

/// The fields of a thing, each by its name in JSON.
pub type Fields = Vec<(&'static str, Cell)>;

/// A value to print.
pub enum Cell {
    /// A number.
    Int(u64),
    /// Bytes.
    Bytes(u64),
    /// (uploaded, downloaded) in bytes.
    Ratio(u64, u64),
    /// Yes or no.
    Flag(bool),
    /// Text.
    Text(String),
    /// An info hash.
    Hash(String),
    /// Seconds since 1970; 0 is never.
    Time(u32),
    /// Seconds.
    Seconds(u64),
    /// Nothing.
    None,
    /// Texts, each on a line of its own.
    Texts(Vec<String>),
    /// Things of the same kind.
    List(Vec<Fields>),
}

impl Cell {
    fn json(&self) -> Value {
        match self {
            Cell::Int(n) | Cell::Bytes(n) | Cell::Seconds(n) => (*n).into(),
            Cell::Ratio(_, 0) | Cell::None | Cell::Time(0) => Value::Null,
            Cell::Ratio(up, down) => ((*up as f64 / *down as f64 * 1000.0).round() / 1000.0).into(),
            Cell::Flag(on) => (*on).into(),
            Cell::Text(text) | Cell::Hash(text) => text.as_str().into(),
            Cell::Time(time) => (*time).into(),
            Cell::Texts(texts) => texts.as_slice().into(),
            Cell::List(list) => list.iter().map(object).collect(),
        }
    }

    fn text(&self) -> String {
        match self {
            Cell::Int(n) => n.to_string(),
            Cell::Bytes(n) => size(*n),
            Cell::Ratio(0, 0) | Cell::None | Cell::Time(0) => "-".into(),
            Cell::Ratio(_, 0) => "inf".into(),
            Cell::Ratio(up, down) => format!("{:.2}", *up as f64 / *down as f64),
            Cell::Flag(on) => if *on { "yes" } else { "no" }.into(),
            Cell::Text(text) | Cell::Hash(text) => clean(text),
            Cell::Time(time) => timestamp((*time).into()),
            Cell::Seconds(n) => duration(*n),
            Cell::Texts(texts) => texts.join(" "),
            Cell::List(list) => {
                let columns: Vec<&str> = list.iter().take(1).flatten().map(|(key, _)| *key).collect();
                let titles = list.iter().take(1).map(|first| row(first, &columns, true));
                let rows = list.iter().map(|fields| row(fields, &columns, false));
                titles.chain(rows).map(|row| format!("\n  {row}")).collect()
            }
        }
    }

    /// How wide a column of these is, and whether its text stands on the right.
    fn width(&self) -> (usize, bool) {
        match self {
            Cell::Int(_) => (5, true),
            Cell::Bytes(_) => (10, true),
            Cell::Ratio(..) => (7, true),
            Cell::Time(_) => (20, false),
            Cell::Seconds(_) => (9, true),
            Cell::Hash(_) => (40, false),
            Cell::Flag(_) => (3, false),
            Cell::Text(_) => (20, false),
            Cell::None | Cell::Texts(_) | Cell::List(_) => (0, false),
        }
    }
}

/// A JSON object.
fn object(fields: &Fields) -> Value {
    Value::Object(fields.iter().map(|(key, cell)| (key.to_string(), cell.json())).collect())
}

/// `infoHash` as a title: `info hash`.
fn title(key: &str) -> String {
    let split = |c: char| if c.is_ascii_uppercase() { format!(" {}", c.to_ascii_lowercase()) } else { c.into() };
    key.chars().map(split).collect::<String>().replace("api ", "API ")
}

/// A row of text: the columns named, or their titles.
fn row(fields: &Fields, columns: &[&str], titles: bool) -> String {
    let shown = fields.iter().filter(|(key, _)| columns.contains(key));
    let cells = shown.map(|(key, cell)| {
        let ((width, right), title) = (cell.width(), title(key));
        let width = width.max(title.len());
        let text = if titles { title } else { cell.text() };
        if right { format!("{text:>width$}") } else { format!("{text:<width$}") }
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
}

/// Prints one thing: a line for each field, or a JSON object.
pub fn show(fields: &Fields, json: bool) -> Done {
    if json {
        return print(&format!("{}\n", object(fields)));
    }
    let width = fields.iter().map(|(key, _)| title(key).len()).max().unwrap_or(0);
    let line = |key: &str, text: String| format!("{:<width$}  {text}", title(key)).trim_end().to_string() + "\n";
    let lines = |(key, cell): &(&str, Cell)| match cell {
        Cell::List(_) => format!("{}{}\n", title(key), cell.text()),
        Cell::Texts(texts) => texts.iter().map(|text| line(key, clean(text))).collect(),
        _ => line(key, cell.text()),
    };
    print(&fields.iter().map(lines).collect::<String>())
}

/// Prints what was done: a line of text, or a JSON object.
pub fn done(text: &str, fields: &Fields, json: bool) -> Done {
    if json { show(fields, true) } else { print(&format!("{text}\n")) }
}

/// Prints things as text under titles, or as one JSON array, an object a line.
pub struct List<'a> {
    text: String,
    json: bool,
    columns: &'a [&'a str],
    rows: usize,
    result: Done,
}

impl<'a> List<'a> {
    /// An empty list of things like `sample`; as text it has only these columns.
    pub fn new(json: bool, columns: &'a [&'a str], sample: &Fields) -> List<'a> {
        let text = if json { "[".into() } else { row(sample, columns, true) + "\n" };
        List { text, json, columns, rows: 0, result: Ok(()) }
    }

    /// Adds a thing.
    pub fn row(&mut self, fields: &Fields) {
        let comma = if self.rows > 0 { "," } else { "" };
        self.text += &match self.json {
            true => format!("{comma}\n{}", object(fields)),
            false => row(fields, self.columns, false) + "\n",
        };
        self.rows += 1;
        if self.text.len() > 1 << 16 && self.result.is_ok() {
            self.result = print(&std::mem::take(&mut self.text));
        }
    }

    /// Prints the rest.
    pub fn end(self) -> Done {
        self.result?;
        print(&(self.text + if self.json { "\n]\n" } else { "" }))
    }
}

/// Writes to stdout. Who reads our output may stop before its end, as in `goat user list | head`.
pub fn print(text: &str) -> Done {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
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
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let parts = units.iter().scan(seconds, |rest, (name, unit)| {
        let count = *rest / unit;
        *rest %= unit;
        Some((count, name))
    });
    let shown: Vec<String> = parts.skip_while(|(n, _)| *n == 0).take(2).map(|(n, name)| format!("{n}{name}")).collect();
    if shown.is_empty() { "0s".into() } else { shown.join(" ") }
}

/// Reads `10GiB`, `1.5 TB`, `10G` (1024s), `-300` (bytes) or the like, exactly; a fraction of a byte is cut off.
pub fn bytes(text: &str) -> Result<i64, String> {
    let wrong = || {
        "must be a number of bytes, perhaps with a unit: KiB, MiB, GiB ... or K, M, G ... are 1024s, KB, MB, GB ... 1000s"
            .to_string()
    };
    let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, unit) = rest.split_at_checked(end).ok_or_else(wrong)?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let letters = unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit);
    let base = if unit.len() == letters.len() + 1 { 1000_i128 } else { 1024 };
    let power = match letters {
        "" if unit != "ib" => 0,
        letter => 1 + "kmgtpe".find(letter).filter(|_| letter.len() == 1).ok_or_else(wrong)?,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| if text.len() <= 18 { text.parse::<i128>().ok() } else { None };
    let (Some(whole), Some(part)) = (digits(whole).or(whole.parse().ok()), digits(fraction)) else {
        return Err(wrong());
    };
    let unit = base.pow(power as u32);
    let scaled = whole.checked_mul(unit).zip(part.checked_mul(unit)).ok_or_else(wrong)?;
    let sum = scaled.0.checked_add(scaled.1 / 10_i128.pow(fraction.len() as u32)).ok_or_else(wrong)?;
    i64::try_from(sign * sum).map_err(|_| wrong())
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
