//! The configuration: commented JSON in, a [`Config`] out, or every problem found in it.
//!
//! Owns the keys, their defaults and what each of them accepts. Opens no port and no database, and
//! never shows a password.

use std::collections::HashMap;
use std::fmt::{self, Debug, Display, Formatter, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{self, Path, PathBuf};
use std::{env, mem, str::FromStr};

use json5::char::{is_json5_line_terminator, is_json5_whitespace};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Map, Value};

/// The configuration that goat ships with: every key, explained.
pub const TEMPLATE: &str = include_str!("../config.json5");

/// Bytes of a configuration file, at most.
const MAX_FILE: u64 = 1024 * 1024;
/// Brackets within brackets, at most: json5 overflows the stack on deep nesting.
const MAX_DEPTH: usize = 16;
/// What a configuration file is.
const FORMAT: &str = "JSON with comments: one object, in UTF-8 without NUL, at most 1 MiB, nested \
    at most 16 deep";
/// Keys that hold further keys.
const SECTIONS: [&str; 2] = ["SSL", "DB"];
/// Keys whose value may hold a password, so that it is never shown.
const SECRETS: [&str; 3] = ["Redis", "DB", "DB.Password"];

const HOME: &str = "HOME or XDG_CONFIG_HOME set, or --config FILE";
const FLAG: &str = "true or false";
const OBJECT: &str = "an object { ... }";
const PORT: &str = "a whole number from 1 to 65535";
const NAME: &str = "a text, not empty";
const INTERVAL: &str = "whole seconds from 600 to 86400";
const LIST: &str = r#"a list such as ["192.0.2.7", "10.0.0.0/8", "2001:db8::/32"]"#;
const REDIS: &str = "true, false or redis://[:password@]host[:port][/db]";
const SERVER: &str = "host, host:port, [IPv6 address]:port or the absolute path of a socket";
const PEM: &str = "a PEM file that can be read; to make both: openssl req -x509 -newkey ec -pkeyopt \
    ec_paramgen_curve:P-256 -nodes -days 365 -keyout goat.key -out goat.crt -subj /CN=HOST";

/// Each key, its default as JSON, what it accepts, and that in words.
#[rustfmt::skip]
const KEYS: [(&str, &str, fn(&Value) -> bool, &str); 25] = [
    ("Host", r#""""#, |v| v == "" || is(host, v), r#""", an IP address or a host name; no port"#),
    ("Port", "8080", |v| is_number(v, 1, 65535), PORT),
    ("Passkey", "true", Value::is_boolean, FLAG),
    ("Whitelist", "true", Value::is_boolean, FLAG),
    ("Verified", "true", Value::is_boolean, FLAG),
    ("Interval", "3600", |v| is_number(v, 1, 86400), INTERVAL),
    ("SlowDown", "33", |v| is_number(v, 0, 100), "a whole number from 0 to 100"),
    ("HTTP", "true", Value::is_boolean, FLAG),
    ("HTTPS", "false", Value::is_boolean, FLAG),
    ("API", "true", Value::is_boolean, FLAG),
    ("UDP", "false", Value::is_boolean, FLAG),
    ("Redis", "false", |v| v.is_boolean() || is(redis, v), REDIS),
    ("TrustedProxies", "[]", |v| Vec::<Cidr>::deserialize(v).is_ok(), LIST),
    ("Workers", "256", |v| is_number(v, 1, 4096), "a whole number from 1 to 4096"),
    ("SSL", "{}", Value::is_object, OBJECT),
    ("SSL.Port", "8443", |v| is_number(v, 1, 65535), PORT),
    ("SSL.Certificate", r#""goat.crt""#, |v| is(name, v), NAME),
    ("SSL.Key", r#""goat.key""#, |v| is(name, v), NAME),
    ("DB", "{}", Value::is_object, OBJECT),
    ("DB.Driver", r#""mysql""#, |v| v == "mysql" || v == "sqlite", r#""mysql" or "sqlite""#),
    ("DB.Database", r#""goat""#, |v| is(name, v), NAME),
    ("DB.Username", r#""goat""#, |v| is(|_| true, v), "a text"),
    ("DB.Password", r#""goat""#, |v| is(|_| true, v), "a text"),
    ("DB.Host", r#""localhost:3306""#, |v| is(server, v), SERVER),
    ("DB.Path", r#""goat.db""#, |v| is(name, v), NAME),
];

/// What the operator wants: every value is within its range, every path absolute.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// Where this was read from.
    #[serde(skip)]
    pub file: PathBuf,
    /// Address to listen on: an IP address or a host name; "" is every one, IPv4 and IPv6.
    pub host: String,
    /// Port of HTTP and UDP.
    pub port: u16,
    /// Whether a request must carry the passkey of a user.
    pub passkey: bool,
    /// Whether only approved clients may announce.
    pub whitelist: bool,
    /// Whether only torrents that an operator verified are tracked.
    pub verified: bool,
    /// Seconds between two announces of a client, about.
    pub interval: u32,
    /// Percent of the minimum interval that a client must let pass; 0 never refuses.
    pub slow_down: u32,
    #[serde(rename = "HTTP")]
    pub http: bool,
    #[serde(rename = "HTTPS")]
    pub https: bool,
    #[serde(rename = "API")]
    pub api: bool,
    #[serde(rename = "UDP")]
    pub udp: bool,
    /// URL of the Redis server, if one is used: `redis://[:password@]host[:port][/db]`.
    #[serde(deserialize_with = "redis_url")]
    pub redis: Option<String>,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Cidr>,
    /// Threads that answer HTTP and HTTPS.
    pub workers: usize,
    #[serde(rename = "SSL")]
    pub ssl: Ssl,
    #[serde(rename = "DB")]
    pub db: Db,
}

/// HTTPS: its port, and its certificate and private key as PEM files.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ssl {
    pub port: u16,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Where the books are kept. `path` is for SQLite; all else for MySQL.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Db {
    pub driver: Driver,
    pub database: String,
    pub username: String,
    pub password: String,
    /// `host`, `host:port`, `[IPv6 address]:port` or the absolute path of a socket.
    pub host: String,
    pub path: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    Mysql,
    Sqlite,
}

/// A block of addresses, such as `10.0.0.0/8`, or a single one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    ip: IpAddr,
    /// How many of the last bits do not count.
    free: u32,
}

/// Something in the configuration that its owner has to correct.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    pub file: PathBuf,
    /// From 1; 0 where no line is to blame.
    pub line: usize,
    /// Such as `SSL.Port`; "" is the file as a whole.
    pub key: String,
    pub found: String,
    pub allowed: String,
}

/// Where the configuration is when nobody names a file: `goat/config.json` in the user's folder
/// for configurations.
pub fn default_path() -> Result<PathBuf, Problem> {
    let path = |variable, file| {
        let path = Path::new(&env::var_os(variable)?).join(file);
        // The XDG specification: a relative folder is to be ignored.
        path.is_absolute().then_some(path)
    };
    let file = "goat/config.json";
    path("XDG_CONFIG_HOME", file)
        .or_else(|| path("HOME", ".config/goat/config.json"))
        .ok_or_else(|| Problem::new(file.as_ref(), 0, "", "no folder for it", HOME))
}

/// Writes [`TEMPLATE`] to `path`, for its owner's eyes only; never over a file that exists.
pub fn create(path: &Path) -> Result<(), Problem> {
    let mut new = OpenOptions::new();
    new.write(true).create_new(true).mode(0o600);
    fs::create_dir_all(path.parent().unwrap_or(path))
        .and_then(|()| new.open(path))
        .and_then(|mut file| {
            let written = file.write_all(TEMPLATE.as_bytes());
            // Half a file would pass for the owner's own at the next start.
            written.inspect_err(|_| _ = fs::remove_file(path))
        })
        .map_err(|e| Problem::new(path, 0, "", e, "a new file in a folder that can be written"))
}

/// Reads the configuration, or lists everything that is wrong with it in order of line.
pub fn load(path: &Path) -> Result<Config, Vec<Problem>> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text))
        .map_err(|e| vec![Problem::new(path, 0, "", e, FORMAT)])?;
    parse(path, &text)
}

/// As [`load`], of a `text` that was read from `path`.
pub fn parse(path: &Path, text: &str) -> Result<Config, Vec<Problem>> {
    let (keys, mut values) =
        read(text).map_err(|(line, found)| vec![Problem::new(path, line, "", found, FORMAT)])?;
    let mut problems = Vec::new();
    let mut lines = HashMap::new();
    for (line, key) in &keys {
        let known = KEYS.iter().any(|(known, ..)| known == key);
        let (found, allowed) = match lines.insert(key.as_str(), *line) {
            _ if !known => ("an unknown key".to_string(), advice(key)),
            Some(first) => (
                format!("it again after line {first}"),
                "each key once".to_string(),
            ),
            None => continue,
        };
        problems.push(Problem::new(path, *line, key, found, &allowed));
    }
    let mut complain = |key: &str, line_of: &str, found: String, allowed: &str| {
        let line = lines.get(key).or(lines.get(line_of)).copied().unwrap_or(0);
        problems.push(Problem::new(path, line, key, found, allowed));
    };
    for (key, default, accepts, allowed) in KEYS {
        match values.pointer(&format!("/{}", key.replace('.', "/"))) {
            Some(value) if accepts(value) => continue,
            Some(value) => complain(key, "", shown(key, value), allowed),
            None => {}
        }
        let default = serde_json::from_str(default).unwrap_or_default();
        match key.split_once('.') {
            Some((section, name)) => values[section][name] = default,
            None => values[key] = default,
        }
    }
    // Cannot fail: every value is one that its key accepts.
    let mut config =
        Config::deserialize(values).map_err(|e| vec![Problem::new(path, 0, "", e, FORMAT)])?;
    config.file = path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let folder = config.file.parent().unwrap_or(path);
    for file in [
        &mut config.ssl.certificate,
        &mut config.ssl.key,
        &mut config.db.path,
    ] {
        *file = folder.join(&file);
    }
    conflicts(&config, complain);
    problems.sort_by_key(|problem| problem.line);
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(problems)
    }
}

impl Cidr {
    /// An IPv4 address that is written as IPv6 (`::ffff:10.0.0.1`) counts as IPv4.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let same_family = self.ip.is_ipv4() == ip.to_canonical().is_ipv4();
        same_family && (bits(self.ip) ^ bits(ip)).leading_zeros() + self.free >= 128
    }
}

impl FromStr for Cidr {
    type Err = ();

    /// Refuses a block whose address goes on after the prefix (`10.0.0.1/8`): whether one host is
    /// trusted or sixteen million must not be a guess.
    fn from_str(text: &str) -> Result<Cidr, ()> {
        let (ip, prefix) = text.split_once('/').unzip();
        let ip: IpAddr = ip.unwrap_or(text).parse().map_err(drop)?;
        let prefix = prefix.map_or(Ok(width(ip)), str::parse).map_err(drop)?;
        let free = width(ip).checked_sub(prefix).ok_or(())?;
        let block = bits(ip).trailing_zeros() >= free;
        let ip = ip.to_canonical();
        block.then_some(Cidr { ip, free }).ok_or(())
    }
}

impl Display for Cidr {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.ip, width(self.ip) - self.free)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cidr, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|()| D::Error::custom("no address"))
    }
}

/// Only the file: `redis` and `db` hold passwords.
impl Debug for Config {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "Config({:?})", self.file)
    }
}

/// Without the password.
impl Debug for Db {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "Db({:?}, {:?}, {:?})", self.driver, self.host, self.path)
    }
}

impl Problem {
    fn new(
        file: &Path,
        line: usize,
        key: &str,
        found: impl Display,
        allowed: impl Display,
    ) -> Problem {
        let (file, key) = (file.to_path_buf(), shorten(key));
        let (found, allowed) = (found.to_string(), allowed.to_string());
        Problem {
            file,
            line,
            key,
            found,
            allowed,
        }
    }
}

/// `FILE:LINE: KEY: found X; allowed: Y`, in one line.
impl Display for Problem {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let file = self.file.display();
        let place = match (self.line, self.key.as_str()) {
            (0, "") => format!("{file}:"),
            (0, key) => format!("{file}: {key}:"),
            (line, "") => format!("{file}:{line}:"),
            (line, key) => format!("{file}:{line}: {key}:"),
        };
        for c in format!("{place} found {}; allowed: {}", self.found, self.allowed).chars() {
            match c {
                // These end a line, or turn the direction of writing.
                '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                    write!(f, "{}", c.escape_default())?
                }
                c if c.is_control() => write!(f, "{}", c.escape_default())?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// Finds what is wrong though each value is right by itself. `complain` takes the key, the key in
/// whose line the problem is if that one is left out, what was found and what is allowed.
fn conflicts(config: &Config, mut complain: impl FnMut(&str, &str, String, &str)) {
    let Config {
        http,
        https,
        udp,
        ssl,
        ..
    } = config;
    let testing = env::var_os("GOAT_TEST_INTERVAL").is_some_and(|value| value == "1");
    if config.interval < 600 && !testing {
        complain("Interval", "", config.interval.to_string(), INTERVAL);
    }
    if !(*http || *https || *udp) {
        let found = "HTTP, HTTPS and UDP all false".to_string();
        complain("HTTP", "", found, "at least one of them true");
    }
    if *http && *https && config.port == ssl.port {
        let found = format!("the Port of HTTP, {}", ssl.port);
        complain("SSL.Port", "Port", found, "another port");
    }
    for (key, path) in [("SSL.Certificate", &ssl.certificate), ("SSL.Key", &ssl.key)] {
        if *https && let Err(e) = can_read(path) {
            complain(key, "HTTPS", format!("{}: {e}", path.display()), PEM);
        }
    }
    let (driver, built) = match config.db.driver {
        Driver::Mysql => ("mysql", cfg!(feature = "mysql")),
        Driver::Sqlite => ("sqlite", cfg!(feature = "sqlite")),
    };
    if !built {
        let found = format!("{driver}, but this goat was built without {driver}");
        complain("DB.Driver", "DB", found, "a driver that was built in");
    }
}

fn can_read(path: &Path) -> io::Result<()> {
    // Not opened before it is known to be a file: opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    File::open(path).map(drop)
}

/// The line and name of each key, and the values; or the line where `text` is no configuration,
/// and what is found there.
fn read(text: &str) -> Result<(Vec<(usize, String)>, Value), (usize, String)> {
    let line_at = |offset| 1 + json5::Position::from_offset(offset, text).line;
    if text.len() as u64 > MAX_FILE {
        return Err((0, "more than 1 MiB".to_string()));
    }
    if let Some(offset) = text.find('\0') {
        return Err((line_at(offset), "a NUL byte".to_string()));
    }
    let keys = keys(text)?;
    let values: Map<String, Value> = json5::from_str(text).map_err(|e| {
        // json5 gives no position where the text ends too early.
        let line = e.position().map(|position| 1 + position.line);
        let line = line.unwrap_or_else(|| line_at(text.trim_end().len()));
        (line, format!("broken JSON: {e}"))
    })?;
    Ok((keys, Value::Object(values)))
}

/// The line and name of each key, in the order of the file and with duplicates: json5 tells neither.
///
/// Skips comments, and takes what stands before a colon for a key. What is not JSON5, json5 finds.
fn keys(text: &str) -> Result<Vec<(usize, String)>, (usize, String)> {
    let (mut keys, mut section, mut token) = (Vec::new(), String::new(), String::new());
    let (mut line, mut token_line, mut depth) = (1, 1, 0_usize);
    // What a character is in: a text (its quote), a comment ('/' or '*') or neither.
    let mut within = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let next = chars.peek().copied();
        let ends_line = is_json5_line_terminator(c);
        line += usize::from(ends_line && (c, next) != ('\r', Some('\n')));
        match (within, c, next) {
            (Some('/'), ..) if ends_line => within = None,
            (Some('*'), '*', Some('/')) => (_, within) = (chars.next(), None),
            (Some('/' | '*'), ..) => {}
            (Some(quote), ..) if c == quote => within = None,
            // A key with an escape is not a known one, so half the escape will do.
            (Some(_), '\\', Some('\\' | '"' | '\'')) => token.extend(chars.next()),
            (Some(_), ..) => token.push(c),
            (None, '/', Some('/' | '*')) => within = chars.next(),
            (None, '"' | '\'', _) => (within, token_line) = (Some(c), line),
            (None, ':', _) if depth == 1 => {
                // "SSL.Port" as one key is not the Port in SSL.
                section = mem::take(&mut token).replace('.', "\\.");
                keys.push((token_line, section.clone()));
            }
            (None, ':', _) if depth == 2 && SECTIONS.contains(&section.as_str()) => {
                keys.push((token_line, format!("{section}.{token}")));
            }
            (None, '{' | '[', _) if depth == MAX_DEPTH => {
                return Err((line, "deeper nesting".to_string()));
            }
            (None, '{' | '[' | ',' | ']' | '}', _) => {
                token.clear();
                depth += usize::from(matches!(c, '{' | '['));
                depth = depth.saturating_sub(usize::from(matches!(c, '}' | ']')));
            }
            (None, ..) if is_json5_whitespace(c) => {}
            (None, ..) => {
                token.push(c);
                token_line = line;
            }
        }
    }
    Ok(keys)
}

fn is_number(value: &Value, low: u64, high: u64) -> bool {
    value.as_u64().is_some_and(|n| (low..=high).contains(&n))
}

/// Whether it is a text and that is `right`. Neither file names nor databases can hold a NUL.
fn is(right: fn(&str) -> bool, value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|text| !text.contains('\0') && right(text))
}

fn name(text: &str) -> bool {
    !text.is_empty()
}

fn host(text: &str) -> bool {
    let in_names = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    // 253: the longest name that fits the 255 bytes of RFC 1035.
    let is_name = (1..=253).contains(&text.len()) && text.chars().all(in_names);
    is_name || text.parse::<IpAddr>().is_ok()
}

/// A host and perhaps a port; an IPv6 address is in brackets.
fn host_and_port(text: &str) -> bool {
    let end = text.find(']').map(|end| end + 1).or_else(|| text.find(':'));
    let (name, port) = text.split_at(end.unwrap_or(text.len()));
    let in_brackets = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    let is_host = in_brackets.map_or(host(name), |ip| ip.parse::<Ipv6Addr>().is_ok());
    let port = port.strip_prefix(':').map_or(port.is_empty(), |port| {
        port.parse().is_ok_and(|port: u16| port > 0)
    });
    is_host && port
}

fn server(text: &str) -> bool {
    text.starts_with('/') || host_and_port(text)
}

fn redis(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("redis://") else {
        return false;
    };
    let (password, server) = rest.rsplit_once('@').unwrap_or((":", rest));
    let (host, db) = server.split_once('/').unwrap_or((server, "0"));
    password.starts_with(':') && host_and_port(host) && db.parse::<u32>().is_ok()
}

fn redis_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(url) => Some(url),
        Value::Bool(true) => Some("redis://localhost:6379".to_string()),
        _ => None,
    })
}

/// IPv4 as IPv6 (`::ffff:10.0.0.1`), so that all addresses are compared alike.
fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn width(ip: IpAddr) -> u32 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// How a wrong value appears in a [`Problem`]. Before an @, too, there may be a password.
fn shown(key: &str, value: &Value) -> String {
    let text = value.to_string();
    let secret = SECRETS.contains(&key) || text.contains('@');
    if secret {
        "something else (not shown)".to_string()
    } else {
        shorten(&text)
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(60).collect()
}

/// The known key that looks most like `key`, or all of them.
fn advice(key: &str) -> String {
    let known = KEYS.map(|(known, ..)| known);
    match known.iter().min_by_key(|known| difference(known, key)) {
        Some(near) if difference(near, key) * 2 <= near.len() => format!("did you mean {near}?"),
        _ => format!("one of {}", known.join(", ")),
    }
}

/// How many letters of the longer key are neither in the common beginning nor the common end.
fn difference(a: &str, b: &str) -> usize {
    let same = |(x, y): &(u8, u8)| x.eq_ignore_ascii_case(y);
    let begin = a.bytes().zip(b.bytes()).take_while(same).count();
    let end = a
        .bytes()
        .rev()
        .zip(b.bytes().rev())
        .take_while(same)
        .count();
    a.len().max(b.len()) - a.len().min(b.len()).min(begin + end)
}
