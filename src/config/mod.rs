//! The configuration: commented JSON in, a [`Config`] out, or every problem found in it.
//!
//! Owns the keys, their defaults and what each of them accepts. Opens no port and no database, and
//! never shows a password.

mod default;
mod hints;
mod proxies;
mod state;

use std::collections::HashMap;
use std::fmt::{self, Debug, Display, Formatter};
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, SocketAddrV6};
use std::path::{self, Path, PathBuf};
use std::{env, mem};

use ipnet::IpNet;
use json5::char::{is_json5_line_terminator, is_json5_whitespace};
use serde::Deserialize;
use serde_json::{Map, Value};

pub use crate::config::default::{SERVICE, create, default_in, default_path};
pub use crate::config::hints::{command, name_in_hints, quoted};
use crate::config::proxies::{BLOCKS, blocks};
use crate::log::clean;
use crate::sys::read_text;

/// The configuration that goat ships with: every key, explained.
pub const TEMPLATE: &str = include_str!("../../config.json5");

const MAX_FILE: u64 = 1024 * 1024;
/// Brackets within brackets, at most: json5 overflows the stack on deep nesting.
const MAX_DEPTH: usize = 16;
const FORMAT: &str = "one JSON object, with comments, in UTF-8, at most 1 MiB and 16 levels deep";
const SECTIONS: [&str; 2] = ["SSL", "DB"];
/// Keys whose value may hold a password, so that it is never shown.
const SECRETS: [&str; 3] = ["Redis", "DB", "DB.Password"];

const FLAG: &str = "true or false";
const HOST: &str = r#""", an IP address or a host name, without a port"#;
const INTERVAL: &str = "whole seconds, 600 to 86400";
const NAME: &str = "a text, not empty";
const OBJECT: &str = "an object { ... }";
const PORT: &str = "a whole number, 1 to 65535";
const REDIS: &str = "true, false or redis://[[user]:password@]host[:port][/db], with TLS rediss://";
const SERVER: &str = "host, host:port, [IPv6 address]:port or the absolute path of a socket";
const URL: &str = r#""", or http:// or https:// with a host, perhaps a port and a path: "https://tracker.example.org""#;
pub const PEM: &str = "a PEM file that can be read; to make both: openssl req -x509 -newkey ec \
    -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -keyout goat.key \
    -out goat.crt -subj /CN=HOST -addext subjectAltName=DNS:HOST";

/// A key, its default as JSON, which values it accepts, and that in words.
type Key = (&'static str, &'static str, fn(&Value) -> bool, &'static str);

#[rustfmt::skip]
const KEYS: [Key; 28] = [
    ("Host",            "''",               |v| v == "" || is(host, v), HOST),
    ("Port",            "8080",             |v| is_number(v, 1, 65535), PORT),
    ("URL",             "''",               |v| v == "" || is(url, v), URL),
    ("Passkey",         "true",             Value::is_boolean, FLAG),
    ("Whitelist",       "true",             Value::is_boolean, FLAG),
    ("Verified",        "true",             Value::is_boolean, FLAG),
    ("Interval",        "3600",             |v| is_number(v, 1, 86400), INTERVAL),
    ("SlowDown",        "33",               |v| is_number(v, 0, 100), "whole percents, 0 to 100"),
    ("Clients",         "32",               |v| is_number(v, 1, 1_000_000), "a whole number, 1 to 1000000"),
    ("HTTP",            "true",             Value::is_boolean, FLAG),
    ("HTTPS",           "false",            Value::is_boolean, FLAG),
    ("API",             "true",             Value::is_boolean, FLAG),
    ("UDP",             "false",            Value::is_boolean, FLAG),
    ("Redis",           "false",            |v| v.is_boolean() || is(redis, v), REDIS),
    ("TrustedProxies",  "[]",               |v| blocks(v).is_ok(), BLOCKS),
    ("Workers",         "256",              |v| is_number(v, 1, 4096), "a whole number, 1 to 4096"),
    ("State",           "''",               |v| v == "" || is(name, v), "\"\" or a folder"),
    ("SSL",             "{}",               Value::is_object, OBJECT),
    ("SSL.Port",        "8443",             |v| is_number(v, 1, 65535), PORT),
    ("SSL.Certificate", "'goat.crt'",       |v| is(name, v), NAME),
    ("SSL.Key",         "'goat.key'",       |v| is(name, v), NAME),
    ("DB",              "{}",               Value::is_object, OBJECT),
    ("DB.Driver",       "'mysql'",          |v| v == "mysql" || v == "sqlite", "mysql or sqlite"),
    ("DB.Database",     "'goat'",           |v| is(name, v), NAME),
    ("DB.Username",     "'goat'",           |v| is(|_| true, v), "a text"),
    ("DB.Password",     "'goat'",           |v| is(|_| true, v), "a text"),
    ("DB.Host",         "'localhost:3306'", |v| is(server, v), SERVER),
    ("DB.Path",         "'goat.db'",        |v| is(name, v), NAME),
];

/// What the operator wants, as `config.json5` explains it: every value is within its range, every path absolute.
#[derive(Clone, PartialEq, Deserialize)]
pub struct Config {
    #[serde(skip)]
    pub file: PathBuf,
    pub host: String,
    pub port: u16,
    pub url: String,
    pub passkey: bool,
    pub whitelist: bool,
    pub verified: bool,
    /// Seconds.
    pub interval: u32,
    /// Percent.
    #[serde(rename = "slowdown")]
    pub slow_down: u32,
    pub clients: u32,
    pub http: bool,
    pub https: bool,
    pub api: bool,
    pub udp: bool,
    /// The URL of the server, if one is used.
    pub redis: Option<String>,
    #[serde(skip)]
    pub trusted_proxies: Vec<IpNet>,
    pub workers: usize,
    pub state: PathBuf,
    pub ssl: Ssl,
    pub db: Db,
}

#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Ssl {
    pub port: u16,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Where the books are kept. `path` is for SQLite; all else for MySQL.
#[derive(Clone, PartialEq, Deserialize)]
pub struct Db {
    pub driver: Driver,
    pub database: String,
    pub username: String,
    pub password: String,
    pub host: String,
    pub path: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    Mysql,
    Sqlite,
}

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

/// Reads the configuration, or lists everything that is wrong with it in order of line.
pub fn load(path: &Path) -> Result<Config, Vec<Problem>> {
    let text = read_text(path, MAX_FILE).map_err(|e| vec![Problem::new(path, 0, "", e, FORMAT)])?;
    parse(path, &text)
}

/// As [`load`], of a `text` that was read from `path`.
pub fn parse(path: &Path, text: &str) -> Result<Config, Vec<Problem>> {
    let fail = |line, found: &str| vec![Problem::new(path, line, "", found, FORMAT)];
    let keys = keys(text).map_err(|(line, found)| fail(line, found))?;
    let values: Map<String, Value> = json5::from_str(text).map_err(|e| {
        // json5 gives no position where there is no object at all.
        let line = e.position().map_or(0, |position| 1 + position.line);
        fail(line, &format!("broken JSON: {e}"))
    })?;

    let mut problems = Vec::new();
    let mut lines = HashMap::new();
    for (line, key) in &keys {
        let first = lines.insert(key.as_str(), *line);
        if !KEYS.iter().any(|(known, ..)| known == key) {
            let found = "an unknown key";
            problems.push(Problem::new(path, *line, key, found, &advice(key)));
        } else if let Some(first) = first {
            let found = format!("it again after line {first}");
            problems.push(Problem::new(path, *line, key, found, "each key once"));
        }
    }

    let mut complain = |key: &str, line_of: &str, found: String, allowed: &str| {
        let line = lines.get(key).or(lines.get(line_of)).copied().unwrap_or(0);
        problems.push(Problem::new(path, line, key, found, allowed));
    };
    // In lower case the keys are the names of the fields.
    let (values, mut fields) = (Value::Object(values), Value::Null);
    for (key, default, accepts, allowed) in KEYS {
        let value = values.pointer(&format!("/{}", key.replace('.', "/")));
        let accepted = value.filter(|value| accepts(value)).cloned();
        if let (Some(value), None) = (value, &accepted) {
            complain(key, "", shown(key, value), allowed);
        }
        let value = accepted.or_else(|| json5::from_str(default).ok());
        match key.to_lowercase().split_once('.') {
            Some((section, name)) => fields[section][name] = value.into(),
            None => fields[key.to_lowercase()] = value.into(),
        }
    }
    if let Value::Bool(on) = fields["redis"] {
        fields["redis"] = on.then_some("redis://localhost:6379").into();
    }

    // Cannot fail: each value is one that its key accepts.
    let mut config = Config::deserialize(fields).map_err(|e| fail(0, &e.to_string()))?;
    config.trusted_proxies = blocks(&values["TrustedProxies"]).unwrap_or_default();
    config.file = path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let folder = config.file.parent().unwrap_or(path);
    let (ssl, db) = (&mut config.ssl, &mut config.db);
    for file in [&mut ssl.certificate, &mut ssl.key, &mut db.path, &mut config.state] {
        *file = folder.join(&file);
    }
    if config.redis.is_some() && cfg!(not(feature = "redis")) {
        complain("Redis", "", "it on, but this goat was built without redis".into(), "false");
    }
    conflicts(&config, complain);
    problems.sort_by_key(|problem| problem.line);
    problems.is_empty().then_some(config).ok_or(problems)
}

/// Only the file: `redis` and `db` hold passwords.
impl Debug for Config {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        write!(f, "Config({:?})", self.file)
    }
}

impl Config {
    pub fn everywhere(&self) -> bool {
        self.host.is_empty() || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
    }

    /// Whether this is the service's, whose files its group shares.
    pub fn is_service(&self) -> bool {
        self.file == Path::new(SERVICE)
    }

    /// The database in words, without secrets.
    pub fn database_name(&self) -> String {
        match self.db.driver {
            Driver::Sqlite => format!("SQLite {}", self.db.path.display()),
            Driver::Mysql => format!("MySQL database {} at {}", self.db.database, self.db.host),
        }
    }
}

impl Db {
    /// The name or address of the server, without brackets, and its port.
    pub fn host_and_port(&self) -> (&str, u16) {
        const PORT: u16 = 3306;
        let (host, port) = match self.host.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().unwrap_or(PORT)),
            _ => (self.host.as_str(), PORT),
        };
        (host.trim_start_matches('[').trim_end_matches(']'), port)
    }
}

impl Problem {
    fn new(file: &Path, line: usize, key: &str, found: impl Display, allowed: &str) -> Problem {
        Problem {
            file: file.to_path_buf(),
            line,
            key: format!("{key:.60}"),
            found: found.to_string(),
            allowed: allowed.to_string(),
        }
    }
}

/// `FILE:LINE: KEY: found X; allowed: Y`, in one line.
impl Display for Problem {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let Problem { file, line, key, found, allowed } = self;
        let line = if *line == 0 { String::new() } else { format!(":{line}") };
        let key = if key.is_empty() { String::new() } else { format!(": {key}") };
        f.write_str(&clean(&format!("{}{line}{key}: found {found}; allowed: {allowed}", file.display())))
    }
}

/// Finds what is wrong though each value is right by itself. `complain` takes the key, the key in
/// whose line the problem is if that one is left out, what was found and what is allowed.
fn conflicts(config: &Config, mut complain: impl FnMut(&str, &str, String, &str)) {
    let Config { http, https, udp, port, ssl, .. } = config;
    let testing = env::var_os("GOAT_TEST_INTERVAL").is_some_and(|value| value == "1");
    if config.interval < 600 && !testing {
        complain("Interval", "", config.interval.to_string(), INTERVAL);
    }
    if !(*http || *https || *udp) {
        complain("HTTP", "", "HTTP, HTTPS and UDP all false".into(), "at least one of them true");
    }
    if *http && *https && *port == ssl.port {
        complain("SSL.Port", "Port", format!("the Port of HTTP, {port}"), "another port");
    }
    for (key, path) in [("SSL.Certificate", &ssl.certificate), ("SSL.Key", &ssl.key)] {
        if *https && let Err(e) = File::open(path).and_then(|mut file| file.read(&mut [0])) {
            complain(key, "HTTPS", format!("{}: {e}", path.display()), PEM);
        }
    }
    let (driver, built) = match config.db.driver {
        Driver::Mysql => ("mysql", cfg!(feature = "mysql")),
        Driver::Sqlite => ("sqlite", cfg!(feature = "sqlite")),
    };
    if !built {
        complain(
            "DB.Driver",
            "DB",
            format!("{driver}, but this goat was built without {driver}"),
            "a driver that was built in",
        );
    }
}

/// The line and name of each key, in the order of the file and with duplicates, or the line where
/// it is not worth going on. json5 tells neither lines nor duplicates.
///
/// Skips comments, and takes what stands before a colon for a key. What is not JSON5, json5 finds.
fn keys(text: &str) -> Result<Vec<(usize, String)>, (usize, &'static str)> {
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
            (_, '\0', _) => return Err((line, "a NUL byte")),
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
            (None, '{' | '[', _) if depth == MAX_DEPTH => return Err((line, "deeper nesting")),
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
    value.as_str().is_some_and(|text| !text.contains('\0') && right(text))
}

fn name(text: &str) -> bool {
    !text.is_empty()
}

fn host(text: &str) -> bool {
    let in_names = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.parse::<IpAddr>().is_ok() || !text.is_empty() && text.chars().all(in_names)
}

fn url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or(text.strip_prefix("http://")).unwrap_or_default();
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    server(place) && path.chars().all(|c| c.is_ascii_alphanumeric() || "-._~/".contains(c))
}

/// An IPv6 address is in brackets, so that its colons are not taken for that before the port.
fn server(text: &str) -> bool {
    let ipv6 = |text: &str| text.parse::<SocketAddrV6>().is_ok_and(|address| address.port() > 0);
    let (name, port) = text.split_once(':').unwrap_or((text, "1"));
    let named = host(name) && port.parse().is_ok_and(|port: u16| port > 0);
    named || ipv6(text) || ipv6(&format!("{text}:1")) || text.starts_with('/')
}

fn redis(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("redis://").or_else(|| text.strip_prefix("rediss://")) else { return false };
    let (login, rest) = rest.rsplit_once('@').unwrap_or((":", rest));
    let (host, db) = rest.split_once('/').unwrap_or((rest, "0"));
    login.contains(':') && server(host) && db.parse::<u32>().is_ok()
}

/// How a wrong value appears in a [`Problem`]. Before an @, too, there may be a password.
fn shown(key: &str, value: &Value) -> String {
    let wrong = if key == "TrustedProxies" { blocks(value).err() } else { None };
    let mut text = wrong.unwrap_or(value).to_string();
    if SECRETS.contains(&key) && !value.is_boolean() || text.contains('@') {
        text = "something else (not shown)".to_string();
    }
    format!("{text:.60}")
}

fn advice(key: &str) -> String {
    let known = KEYS.map(|(known, ..)| known);
    match nearest(key, known) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("one of {}", known.join(", ")),
    }
}

/// The known word that was meant, unless the nearest one differs in more than half its letters.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.into_iter().min_by_key(|known| difference(known, word))?;
    (difference(near, word) * 2 <= near.len()).then_some(near)
}

/// How many letters of the longer word are neither in the common beginning nor the common end.
fn difference(a: &str, b: &str) -> usize {
    let same = |(x, y): &(u8, u8)| x.eq_ignore_ascii_case(y);
    let begins = a.bytes().zip(b.bytes());
    let ends = a.bytes().rev().zip(b.bytes().rev());
    let alike = begins.take_while(same).count() + ends.take_while(same).count();
    a.len().max(b.len()) - a.len().min(b.len()).min(alike)
}

#[cfg(test)]
#[cfg(all(feature = "mysql", feature = "sqlite"))]
mod tests {
    use std::fs;

    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    const EXAMPLE: &str = include_str!("../../tests/data/goat-example.json");

    fn config(text: &str) -> Config {
        parse(Path::new("/etc/goat/config.json"), text).unwrap()
    }

    /// "LINE: KEY: found X; allowed: Y" for each problem.
    fn problems(text: &str) -> Vec<String> {
        let problems = parse(Path::new("config.json"), text).unwrap_err();
        let lines = problems.iter().map(|problem| problem.to_string());
        lines.map(|line| line.strip_prefix("config.json:").unwrap().trim().to_string()).collect()
    }

    /// The only problem of a file that is `{`, the given lines, and `}`.
    fn problem(lines: &str) -> String {
        let [problem] = problems(&format!("{{\n{lines}\n}}")).try_into().unwrap();
        problem
    }

    fn folder(name: &str) -> PathBuf {
        let folder = env::temp_dir().join(format!("goat-config-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// Runs one test of this file in a process of its own, where `variables` are set.
    fn run_with(test: &str, variables: &[(&str, &str)]) {
        let mut command = Command::new(env::current_exe().unwrap());
        command.env_remove("HOME").env_remove("XDG_CONFIG_HOME").env("IN_CHILD", "1");
        let test = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
        let child = command.args(["--exact", &test]).envs(variables.iter().copied()).output();
        let child = child.unwrap();
        let printed = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success() && printed.contains("1 passed"), "{printed}");
    }

    #[test]
    fn the_example_of_goat_means_what_it_says() {
        let folder = folder("example");
        for file in ["goat.crt", "goat.key"] {
            fs::write(folder.join(file), "PEM").unwrap();
        }
        let file = folder.join("config.json");
        fs::write(&file, EXAMPLE).unwrap();
        let expected = Config {
            file: file.clone(),
            host: String::new(),
            port: 8080,
            url: String::new(),
            passkey: true,
            whitelist: true,
            verified: true,
            interval: 3600,
            slow_down: 33,
            clients: 32,
            http: true,
            https: true,
            api: true,
            udp: false,
            redis: Some("redis://localhost:6379".to_string()),
            trusted_proxies: vec![],
            workers: 256,
            state: folder.join(""),
            ssl: Ssl { port: 8443, certificate: folder.join("goat.crt"), key: folder.join("goat.key") },
            db: Db {
                driver: Driver::Mysql,
                database: "goat".to_string(),
                username: "goat".to_string(),
                password: "goat".to_string(),
                host: "localhost:3306".to_string(),
                path: folder.join("goat.db"),
            },
        };
        assert!(parse(&file, EXAMPLE).unwrap() == expected);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_example_of_goat_needs_its_certificate() {
        let advice = "allowed: a PEM file that can be read; to make both: openssl req -x509 \
            -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -keyout goat.key \
            -out goat.crt -subj /CN=HOST -addext subjectAltName=DNS:HOST";
        let found = |file| format!("/nowhere/{file}: No such file or directory (os error 2)");
        let problems = parse(Path::new("/nowhere/config.json"), EXAMPLE).unwrap_err();
        let [certificate, key]: [Problem; 2] = problems.try_into().unwrap();
        let start = "/nowhere/config.json:42: SSL.Certificate";
        assert_eq!(certificate.to_string(), format!("{start}: found {}; {advice}", found("goat.crt")));
        let start = "/nowhere/config.json:45: SSL.Key";
        assert_eq!(key.to_string(), format!("{start}: found {}; {advice}", found("goat.key")));
    }

    #[test]
    fn a_certificate_left_to_its_default_is_missed_in_the_line_of_https() {
        let problems = problems("{\n\n  HTTPS: true,\n}");
        assert!(problems[0].starts_with("3: SSL.Certificate: found "), "{problems:?}");
        assert!(problems[1].starts_with("3: SSL.Key: found "), "{problems:?}");
        let ssl = "HTTPS: true, SSL: { Certificate: '/dev', Key: '/dev/null' }";
        assert!(problem(ssl).starts_with("2: SSL.Certificate: found /dev: Is a directory"));
    }

    #[test]
    fn the_shipped_file_sets_every_key_to_its_default_but_for_the_driver() {
        let mut defaults = config("{}");
        assert_eq!(defaults.db.driver, Driver::Mysql);
        defaults.db.driver = Driver::Sqlite;
        assert!(config(TEMPLATE) == defaults);
        let set: Vec<String> = keys(TEMPLATE).unwrap().into_iter().map(|(_, key)| key).collect();
        for (key, ..) in KEYS {
            assert!(set.iter().any(|set| set == key), "{key} is not explained");
        }
    }

    #[test]
    fn every_key_can_be_set() {
        let config = config(
            r#"{
                Host: "::1", Port: 1, Passkey: false, Whitelist: false, Verified: false,
                Interval: 600, SlowDown: 0, Clients: 1,
                HTTP: false, HTTPS: false, API: false, UDP: true,
                Redis: "redis://:secret@[::1]:6380/2", Workers: 4096, State: "/var/lib/goat",
                TrustedProxies: ["10.0.0.0/8", "::1"],
                SSL: { Port: 65535, Certificate: "/tls/crt", Key: "tls/key" },
                DB: {
                    Driver: "sqlite", Database: "tracker", Username: "", Password: "p@ss\nword",
                    Host: "/run/mysqld.sock", Path: "../books.db",
                },
            }"#,
        );
        assert_eq!(config.file, Path::new("/etc/goat/config.json"));
        assert_eq!((config.host.as_str(), config.port), ("::1", 1));
        assert!(!config.passkey && !config.whitelist && !config.verified);
        assert!(!config.http && !config.https && !config.api && config.udp);
        assert_eq!((config.interval, config.slow_down, config.workers), (600, 0, 4096));
        assert_eq!(config.clients, 1);
        assert_eq!(config.redis.as_deref(), Some("redis://:secret@[::1]:6380/2"));
        let proxies: Vec<String> = config.trusted_proxies.iter().map(IpNet::to_string).collect();
        assert_eq!(proxies, ["10.0.0.0/8", "::1/128"]);
        assert_eq!(config.state_file("journal"), Path::new("/var/lib/goat/config.journal"));
        assert_eq!(config.ssl.port, 65535);
        assert_eq!(config.ssl.certificate, Path::new("/tls/crt"));
        assert_eq!(config.ssl.key, Path::new("/etc/goat/tls/key"));
        let Db { driver, database, username, password, host, path } = config.db;
        assert_eq!((driver, host.as_str()), (Driver::Sqlite, "/run/mysqld.sock"));
        assert_eq!((database.as_str(), username.as_str()), ("tracker", ""));
        assert_eq!((password.as_str(), path.as_path()), ("p@ss\nword", Path::new("/etc/goat/../books.db")));
    }

    #[test]
    fn a_relative_file_is_made_absolute() {
        let config = parse(Path::new("conf/goat.json"), "{}").unwrap();
        assert_eq!(config.file, env::current_dir().unwrap().join("conf/goat.json"));
        assert_eq!(config.db.path, env::current_dir().unwrap().join("conf/goat.db"));
    }

    #[test]
    fn a_wrong_value_is_refused_with_line_key_and_what_is_allowed() {
        let port = "a whole number, 1 to 65535";
        let server = "host, host:port, [IPv6 address]:port or the absolute path of a socket";
        let redis = "true, false or redis://[[user]:password@]host[:port][/db], with TLS rediss://";
        for (line, key, found, allowed) in [
            ("Port: 80800", "Port", "80800", port),
            ("Port: 0", "Port", "0", port),
            ("Port: -1", "Port", "-1", port),
            ("Port: 1.5", "Port", "1.5", port),
            ("Port: 1e300", "Port", "1e+300", port),
            ("Port: NaN", "Port", "null", port),
            ("Port: '8080'", "Port", "\"8080\"", port),
            ("Port: null", "Port", "null", port),
            ("Port: [8080]", "Port", "[8080]", port),
            ("SSL: { Port: 99999 }", "SSL.Port", "99999", port),
            ("Passkey: 'yes'", "Passkey", "\"yes\"", "true or false"),
            ("UDP: 1", "UDP", "1", "true or false"),
            ("Interval: 599", "Interval", "599", "whole seconds, 600 to 86400"),
            ("Interval: 86401", "Interval", "86401", "whole seconds, 600 to 86400"),
            ("SlowDown: 101", "SlowDown", "101", "whole percents, 0 to 100"),
            ("Workers: 0", "Workers", "0", "a whole number, 1 to 4096"),
            ("Workers: 4097", "Workers", "4097", "a whole number, 1 to 4096"),
            ("SSL: true", "SSL", "true", "an object { ... }"),
            ("SSL: { Key: '' }", "SSL.Key", "\"\"", "a text, not empty"),
            ("DB: { Path: 'a\\0b' }", "DB.Path", "\"a\\u0000b\"", "a text, not empty"),
            ("DB: { Driver: 'ql' }", "DB.Driver", "\"ql\"", "mysql or sqlite"),
            ("DB: { Host: 'a:b' }", "DB.Host", "\"a:b\"", server),
            ("DB: { Host: '::1' }", "DB.Host", "\"::1\"", server),
            ("DB: { Host: 'h:0' }", "DB.Host", "\"h:0\"", server),
            ("DB: { Host: '[::1]:0' }", "DB.Host", "\"[::1]:0\"", server),
            ("DB: { Host: '' }", "DB.Host", "\"\"", server),
            ("Redis: 6379", "Redis", "something else (not shown)", redis),
        ] {
            let expected = format!("2: {key}: found {found}; allowed: {allowed}");
            assert_eq!(problem(line), expected);
        }
        for host in ["localhost:80", "[::1]", "a b", "::1/128", "ä", "http://a"] {
            let problem = problem(&format!("Host: '{host}'"));
            assert!(problem.ends_with("an IP address or a host name, without a port"), "{problem}");
        }
        for (list, found) in
            [("'10.0.0.1'", "\"10.0.0.1\""), ("[1]", "1"), ("['::1', '10.0.0.1/8', '10.0.0.0/8']", "\"10.0.0.1/8\"")]
        {
            let problem = problem(&format!("TrustedProxies: {list}"));
            let expected = format!("2: TrustedProxies: found {found}; allowed: a list such as ");
            assert!(problem.starts_with(&expected), "{problem}");
        }
    }

    #[test]
    fn servers_are_named_as_documented() {
        for host in ["db", "db.example", "10.0.0.1:3306", "[::1]:3306", "[::1]", "/run/mysqld.sock"] {
            assert_eq!(config(&format!("{{ DB: {{ Host: '{host}' }} }}")).db.host, host);
        }
        for url in ["redis://r", "redis://r:1", "redis://:p@r", "redis://:p:/@x@[::1]:1/15", "rediss://u:p@r"] {
            assert_eq!(config(&format!("{{ Redis: '{url}' }}")).redis.unwrap(), url);
        }
        for url in ["", "r:1", "http://r", "redis://", "redis://p@r", "redis://r/x", "redis://r:0"] {
            assert!(problem(&format!("Redis: '{url}'")).starts_with("2: Redis: found "), "{url}");
        }
        assert_eq!(config("{}").redis, None);
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_one() {
        for (line, key, near) in [
            ("Prot: 1", "Prot", "Port"),
            ("port: 1", "port", "Port"),
            ("Intervall: 1", "Intervall", "Interval"),
            ("Whitlist: 1", "Whitlist", "Whitelist"),
            ("Htps: 1", "Htps", "HTTPS"),
            ("SSL: { Crtificate: 1 }", "SSL.Crtificate", "SSL.Certificate"),
            ("Certificate: 1", "Certificate", "SSL.Certificate"),
            ("DB: { pasword: 'secret' }", "DB.pasword", "DB.Password"),
            ("Db: { Password: 'secret' }", "Db", "DB"),
            ("'SSL.Port': 1", "SSL\\.Port", "SSL.Port"),
        ] {
            let expected = format!("2: {key}: found an unknown key; allowed: did you mean {near}?");
            assert_eq!(problem(line), expected);
        }
        for line in ["Colour: 'red'", "'P\\u006frt': 1"] {
            let problem = problem(line);
            assert!(problem.contains("an unknown key; allowed: one of Host, Port, "), "{problem}");
        }
    }

    #[test]
    fn a_key_may_be_set_once() {
        let again = "found it again after line 2; allowed: each key once";
        assert_eq!(problem("Port: 1,\n'Port': 1"), format!("3: Port: {again}"));
        assert_eq!(problem("SSL: {},\nSSL: {}"), format!("3: SSL: {again}"));
        assert_eq!(problem("DB: { Path: 'a',\nPath: 'a' }"), format!("3: DB.Path: {again}"));
    }

    #[test]
    fn broken_json_is_refused_with_its_line() {
        for (text, line) in [
            ("", 0),
            ("\n\n  ", 0),
            ("[]", 1),
            ("{\n\"Port\": 80\n\"UDP\": true }", 3),
            ("{\n\n", 1),
            ("{\n  Port: 80,\n  DB: { /* never closed\n\n", 3),
            ("{\n  Host: 'a\nb' }", 2),
            ("{\n} x", 2),
            ("{\n  Port: 08 }", 2),
        ] {
            let problem = parse(Path::new("c"), text).unwrap_err().remove(0);
            assert_eq!((problem.line, problem.key.as_str()), (line, ""), "{problem}");
            assert!(problem.found.starts_with("broken JSON: "), "{problem}");
        }
    }

    #[test]
    fn what_is_no_text_is_refused_with_its_line() {
        assert_eq!(
            problems("{\n\n Host: 'a\0' }"),
            ["3: found a NUL byte; allowed: one JSON object, with comments, in UTF-8, at most 1 MiB \
                and 16 levels deep"]
        );
        let deep = |n| format!("{{\nPort: {}{} }}", "[".repeat(n), "]".repeat(n));
        assert!(problems(&deep(15))[0].starts_with("2: Port: found [[[["));
        assert!(problems(&deep(16))[0].starts_with("2: found deeper nesting; "));
        assert!(problems(&deep(500_000))[0].starts_with("2: found deeper nesting; "));
        let hidden = "{a:/*}}}}*/[/*]*/{b:'}]}]'".repeat(100_000);
        assert!(problems(&hidden)[0].starts_with("1: found deeper nesting; "));
    }

    #[test]
    fn several_problems_are_all_listed_in_order_of_line() {
        let problems = problems(
            r#"// a comment
            {
                "DB": { "Driver": "ql", "Pathh": "x" },
                "Port": 80800,
                "HTTP": false,
                "Redis": "x",
                "Nonsense": { "Port": 1 },
                "Port": 80,
            }"#,
        );
        let expected = [
            "3: DB.Pathh: found an unknown key; allowed: did you mean DB.Path?",
            "3: DB.Driver: found \"ql\"; allowed: mysql or sqlite",
            "5: HTTP: found HTTP, HTTPS and UDP all false; allowed: at least one of them true",
            "6: Redis: found something else (not shown); allowed: true, false or \
                redis://[[user]:password@]host[:port][/db], with TLS rediss://",
            "7: Nonsense: found an unknown key; allowed: one of Host, ",
            "8: Port: found it again after line 4; allowed: each key once",
        ];
        assert_eq!(problems.len(), expected.len(), "{problems:#?}");
        for (problem, expected) in problems.iter().zip(expected) {
            assert!(problem.starts_with(expected), "{problem}");
        }
    }

    #[test]
    fn two_listeners_may_not_share_a_port() {
        let expected = "SSL.Port: found the Port of HTTP, 8443; allowed: another port";
        let pem = "Certificate: '/dev/null', Key: '/dev/null'";
        let text = format!("HTTPS: true,\nPort: 8443, SSL: {{ {pem} }}");
        assert_eq!(problem(&text), format!("3: {expected}"));
        let text = format!("HTTPS: true, Port: 8443,\nSSL: {{ {pem},\nPort: 8443 }}");
        assert_eq!(problem(&text), format!("4: {expected}"));
        config(&format!("{{ HTTP: false, HTTPS: true, Port: 8443, SSL: {{ {pem} }} }}"));
        config("{ Port: 8443 }");
    }

    #[test]
    fn what_looks_like_a_key_in_comments_and_texts_moves_no_line() {
        let text = "// Port: 1, { \" '\r\n\
            /* Port: 2, {\n * // */\n\
            { /* : */ // :\r\
            'Host': 'a:{\\'b // \\\n /* \\\\', /**/ DB // :\u{2028}\
            : { /* } */ Path: \"}]'{:\\\"\", /*/ x: */ Password /*\n*/ : 1, },\n\
            }";
        let problems = problems(text);
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].starts_with("5: Host: found "), "{problems:?}");
        assert!(problems[1].starts_with("7: DB.Password: found "), "{problems:?}");
    }

    #[test]
    fn passwords_are_never_shown() {
        for text in [
            "{ DB: { Password: 50123 } }",
            "{ DB: { Password: ['50123'] } }",
            "{ DB: { Pasword: '50123', Host: 'goat:50123@db' } }",
            "{ DB: 'mysql://goat:50123@db' }",
            "{ Password: '50123' }",
            "{ Redis: 'redis://user:50123@host/x' }",
            "{ Redis: 'redis:50123' }",
            "{ Redis: { Password: '50123' } }",
            "{ Redis: 'redis://:50123@host', DB: { Password: '50123' }, Port: 0 }",
            "{ DB: { Password: '50123 } }",
        ] {
            for problem in parse(Path::new("config.json"), text).unwrap_err() {
                assert!(!format!("{problem} {problem:?}").contains("50123"), "{problem}");
            }
        }
        let config = config("{ Redis: 'redis://:50123@host', DB: { Password: '50123' } }");
        assert!(!format!("{config:?}").contains("50123"));
    }

    #[test]
    fn a_problem_is_one_line_without_control_characters() {
        let path = Path::new("a\u{1b}[31m\nb");
        let text = "{ 'Po\u{2028}\u{1b}rt': 1, Host: '\\n\u{9b}\u{202e}' }";
        for problem in parse(path, text).unwrap_err() {
            let line = problem.to_string();
            assert!(line.starts_with("a\\u{1b}[31m\\nb:"), "{line}");
            assert!(!line.contains(['\n', '\u{1b}', '\u{9b}', '\u{2028}', '\u{202e}']), "{line:?}");
        }
        let long = parse(path, &format!("{{ '{0}': '{0}' }}", "x".repeat(9999))).unwrap_err();
        assert!(long[0].to_string().len() < 500);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_a_problem_without_a_line() {
        let folder = folder("unreadable");
        let file = folder.join("config.json");
        let found = |file: &Path| {
            let [problem]: [Problem; 1] = load(file).unwrap_err().try_into().unwrap();
            assert_eq!((problem.file.as_path(), problem.line), (file, 0));
            problem.found
        };
        assert_eq!(found(&file), "No such file or directory (os error 2)");
        assert_eq!(found(&folder), "Is a directory (os error 21)");
        assert_eq!(found(Path::new("/dev/zero")), "more than 1 MiB");
        fs::write(&file, b"{ Host: '\xff' }").unwrap();
        assert_eq!(found(&file), "stream did not contain valid UTF-8");
        fs::write(&file, format!("{{}}{}", " ".repeat(1024 * 1024 - 2))).unwrap();
        assert!(load(&file).is_ok());
        fs::write(&file, format!("{{}}{}", " ".repeat(1024 * 1024 - 1))).unwrap();
        assert_eq!(found(&file), "more than 1 MiB");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_new_file_is_for_its_owner_and_an_old_one_is_kept() {
        let folder = folder("create");
        let file = folder.join("deep/er/config.json");
        create(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(load(&file).unwrap().db.path, folder.join("deep/er/goat.db"));
        fs::write(&file, "mine").unwrap();
        assert_eq!(create(&file).unwrap_err().found, "File exists (os error 17)");
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_short_interval_is_for_tests_only() {
        if env::var_os("IN_CHILD").is_none() {
            return run_with("a_short_interval_is_for_tests_only", &[("GOAT_TEST_INTERVAL", "1")]);
        }
        assert_eq!(config("{ Interval: 1 }").interval, 1);
        assert!(problem("Interval: 0").starts_with("2: Interval: found 0;"));
    }

    #[test]
    fn the_default_path_is_in_the_xdg_folder_if_that_is_absolute() {
        let test = "the_default_path_is_in_the_xdg_folder_if_that_is_absolute";
        let Some(expected) = env::var_os("EXPECTED") else {
            let home = ("HOME", "/home/g");
            let home_file = "/home/g/.config/goat/config.json";
            run_with(test, &[home, ("XDG_CONFIG_HOME", "/x"), ("EXPECTED", "/x/goat/config.json")]);
            run_with(test, &[home, ("XDG_CONFIG_HOME", "x"), ("EXPECTED", home_file)]);
            run_with(test, &[home, ("XDG_CONFIG_HOME", ""), ("EXPECTED", home_file)]);
            run_with(test, &[home, ("EXPECTED", home_file)]);
            run_with(test, &[("HOME", ""), ("EXPECTED", "")]);
            return run_with(test, &[("EXPECTED", "")]);
        };
        let path = default_path().map_err(|problem| problem.allowed);
        let advice = "HOME or XDG_CONFIG_HOME set to a folder, or --config FILE".to_string();
        let nothing = expected.is_empty();
        assert_eq!(path, if nothing { Err(advice) } else { Ok(PathBuf::from(expected)) });
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".*") {
            _ = parse(Path::new("config.json"), &text);
        }

        #[test]
        fn no_change_to_a_good_file_makes_it_panic(at in 0..TEMPLATE.len(), len in 0..9_usize, new in "[\\PC\n]{0,4}") {
            let mut bytes = TEMPLATE.as_bytes().to_vec();
            bytes.splice(at..bytes.len().min(at + len), new.bytes());
            _ = parse(Path::new("config.json"), &String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn brackets_and_quotes_never_panic(text in "[{}\\[\\]:,/*'\"\\\\a \n]{0,60}") {
            _ = parse(Path::new("config.json"), &text);
        }

        #[test]
        fn a_key_is_found_in_its_line(before in 0..5_usize, after in 0..5_usize, quote in "['\"]", value in "[a-z{}\\[\\]:,/* ]{0,9}") {
            let (before, after) = ("\n".repeat(before), "\n".repeat(after));
            let text = format!("{{{before}Host: {quote}{value}{quote},{after}//{value}\nPort: 0 }}");
            let problems = parse(Path::new("config.json"), &text).unwrap_err();
            let line = 2 + before.len() + after.len();
            prop_assert_eq!(problems.last().map(|p| (p.line, p.key.as_str())), Some((line, "Port")));
        }
    }
}

#[cfg(test)]
#[cfg(not(feature = "mysql"))]
mod tests_without_mysql {
    use super::*;

    #[test]
    fn mysql_is_refused_where_it_is_not_built_in() {
        let problems = parse(Path::new("c"), "{\n\nDB: {} }").unwrap_err();
        let [problem]: [Problem; 1] = problems.try_into().unwrap();
        assert_eq!((problem.line, problem.key.as_str()), (3, "DB.Driver"));
        let found = "mysql, but this goat was built without mysql";
        assert_eq!(problem.found, found);
        let shipped = parse(Path::new("c"), TEMPLATE);
        assert_eq!(shipped.is_ok(), cfg!(feature = "sqlite"));
    }
}
