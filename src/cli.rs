//! The command line: `run`, `check`, and what an operator does to users, torrents and clients.
//!
//! Results go to stdout, errors to stderr. Exit status: 0 done, 1 could not, 2 wrong words or a wrong
//! configuration.

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::config::{self, Config, Problem};
use crate::log::{clean, log};
use crate::server::{announce_urls, database, run};
use crate::store::{FileRow, NewUser, Store};
use crate::tls::Certificates;
use crate::torrent::{self, InfoHash};

/// What `goat help` prints.
const HELP: &str = "\
goat, a BitTorrent tracker for small private communities

  goat [run]                              run the tracker
  goat check                              check the configuration and the database
  goat user add NAME [--torrent-limit N] [--admin] [--json]
  goat user list [--json]
  goat file add FILE.torrent|INFO_HASH [--json]
  goat file list [--pending] [--json]
  goat file approve INFO_HASH|--all
  goat client list [--json]
  goat client approve PREFIX              let in the clients whose User-Agent or peer id begins so
  goat client deny PREFIX
  goat help | --version

  --config FILE                           instead of ~/.config/goat/config.json
";

/// Why a command ends with another status than 0.
enum Failure {
    /// Status 1.
    Could(String),
    /// Status 2: the words of the command.
    Words(String),
    /// Status 2: the configuration.
    Config(Vec<Problem>),
}

impl From<crate::store::Error> for Failure {
    fn from(error: crate::store::Error) -> Failure {
        Failure::Could(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Could(format!("cannot write: {error}"))
    }
}

/// The words after `goat`, taken one by one.
struct Words {
    words: Vec<String>,
}

impl Words {
    /// Takes the next word that is no option.
    fn next(&mut self, what: &str) -> Result<String, Failure> {
        match self.words.iter().position(|word| !word.starts_with("--")) {
            Some(at) => Ok(self.words.remove(at)),
            None => Err(Failure::Words(format!("{what} is missing"))),
        }
    }

    /// Takes an option without a value.
    fn flag(&mut self, name: &str) -> bool {
        let at = self.words.iter().position(|word| word == name);
        at.map(|at| self.words.remove(at)).is_some()
    }

    /// Takes an option and its value.
    fn option(&mut self, name: &str) -> Result<Option<String>, Failure> {
        let Some(at) = self.words.iter().position(|word| word == name) else {
            return Ok(None);
        };
        self.words.remove(at);
        if at < self.words.len() {
            return Ok(Some(self.words.remove(at)));
        }
        Err(Failure::Words(format!("{name} wants a value")))
    }

    /// Makes sure that nothing is left.
    fn end(&self) -> Result<(), Failure> {
        match self.words.first() {
            None => Ok(()),
            Some(word) => Err(Failure::Words(format!("{word} is one word too many"))),
        }
    }
}

/// Does what the command line says and returns the exit status.
pub fn main(words: impl Iterator<Item = String>) -> u8 {
    match command(Words { words: words.collect() }) {
        Ok(()) => 0,
        // Who reads our output has read enough, as in `goat user list | head`.
        Err(Failure::Could(message)) => complain(&[format!("goat: {}", clean(&message))], 1),
        Err(Failure::Words(message)) => {
            complain(&[format!("goat: {}", clean(&message)), "`goat help` lists the commands".into()], 2)
        }
        Err(Failure::Config(problems)) => complain(&problems.iter().map(Problem::to_string).collect::<Vec<_>>(), 2),
    }
}

fn complain(lines: &[String], status: u8) -> u8 {
    for line in lines {
        let _ = writeln!(io::stderr(), "{line}"); // There is no place left to complain about that.
    }
    status
}

fn command(mut words: Words) -> Result<(), Failure> {
    let file = words.option("--config")?.map(PathBuf::from);
    if words.flag("--help") || words.flag("-h") {
        return print(HELP);
    }
    if words.flag("--version") {
        words.end()?;
        return print(&format!("goat {}\n", env!("CARGO_PKG_VERSION")));
    }
    let first = words.next("command").unwrap_or_else(|_| "run".into());
    let second = match first.as_str() {
        "user" | "file" | "client" => words.next(&format!("what to do with a {first}"))?,
        _ => String::new(),
    };
    let pair = (first.as_str(), second.as_str());
    // Words are judged before anything is opened.
    match pair {
        ("help", "") => {
            words.end()?;
            print(HELP)
        }
        ("run", "") => {
            words.end()?;
            run(configuration(file)?).map_err(Failure::Could)
        }
        ("check", "") => {
            words.end()?;
            check(file)
        }
        ("user", "add") => {
            let json = words.flag("--json");
            let name = words.next("NAME")?;
            let limit = words.option("--torrent-limit")?.map_or(Ok(0), |limit| {
                limit.parse().map_err(|_| {
                    Failure::Words(format!("--torrent-limit is {limit}, but must be a number from 0 to 4294967295"))
                })
            })?;
            let admin = words.flag("--admin");
            words.end()?;
            let config = configuration(file)?;
            user_add(&config, &name, limit, admin, json)
        }
        ("user", "list") => {
            let json = words.flag("--json");
            words.end()?;
            user_list(&configuration(file)?, json)
        }
        ("file", "add") => {
            let json = words.flag("--json");
            let what = words.next("FILE.torrent or INFO_HASH")?;
            words.end()?;
            file_add(&configuration(file)?, &what, json)
        }
        ("file", "list") => {
            let json = words.flag("--json");
            let pending = words.flag("--pending");
            words.end()?;
            file_list(&configuration(file)?, pending, json)
        }
        ("file", "approve") => {
            let hash = if words.flag("--all") { None } else { Some(info_hash(&words.next("INFO_HASH or --all")?)?) };
            words.end()?;
            file_approve(&configuration(file)?, hash)
        }
        ("client", "list") => {
            let json = words.flag("--json");
            words.end()?;
            client_list(&configuration(file)?, json)
        }
        ("client", "approve" | "deny") => {
            let prefix = words.next("PREFIX")?;
            words.end()?;
            if prefix.is_empty() || prefix.chars().count() > 128 {
                return Err(Failure::Words("PREFIX has 1 to 128 characters".into()));
            }
            Ok(store(&configuration(file)?)?.set_client(&prefix, second == "approve")?)
        }
        _ => Err(Failure::Words(format!("there is no command `{}`", format!("{first} {second}").trim_end()))),
    }
}

fn info_hash(text: &str) -> Result<InfoHash, Failure> {
    text.parse().map_err(|e| Failure::Words(format!("{text}: {e}")))
}

/// Reads the configuration; makes the default one where there is none.
fn configuration(file: Option<PathBuf>) -> Result<Config, Failure> {
    let path = match file {
        Some(path) => path,
        None => {
            let path = config::default_path().map_err(|problem| Failure::Config(vec![problem]))?;
            if !path.exists() {
                config::create(&path).map_err(|problem| Failure::Config(vec![problem]))?;
                log(format!("made the configuration {}", path.display()));
            }
            path
        }
    };
    let config = config::load(&path).map_err(Failure::Config)?;
    let wrong = unusable(&config);
    if wrong.is_empty() { Ok(config) } else { Err(Failure::Config(wrong)) }
}

/// What the configuration's file alone does not tell.
fn unusable(config: &Config) -> Vec<Problem> {
    let problem = |key: &str, found: String, allowed: &str| Problem {
        file: config.file.clone(),
        line: 0,
        key: key.into(),
        found,
        allowed: allowed.into(),
    };
    let redis = config.redis.is_some();
    let redis = redis.then(|| problem("Redis", "true".into(), "false, for this goat cannot do that yet"));
    let certificate = config.https.then(|| Certificates::load(&config.ssl).err()).flatten();
    redis.into_iter().chain(certificate.map(|defect| problem(defect.key, defect.found, config::PEM))).collect()
}

fn store(config: &Config) -> Result<Store, Failure> {
    Store::open(config).map_err(|e| Failure::Could(format!("{}: {e}", database(config))))
}

fn check(file: Option<PathBuf>) -> Result<(), Failure> {
    let config = configuration(file)?;
    let wrong = Store::check(&config).map_err(|e| Failure::Could(format!("{}: {e}", database(&config))))?;
    if !wrong.is_empty() {
        return Err(Failure::Could(format!("{}: {}", database(&config), wrong.join("; "))));
    }
    store(&config)?.has_users()?;
    print(&format!("{}: good\n{}: good\n", config.file.display(), database(&config)))
}

/// Sessions that announced since then are in their swarms.
fn live_since(config: &Config) -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs());
    u32::try_from(now).unwrap_or(u32::MAX).saturating_sub(config.interval.saturating_mul(2))
}

fn user_add(config: &Config, name: &str, limit: u32, admin: bool, json: bool) -> Result<(), Failure> {
    let user = store(config)?.add_user(name, limit, admin)?;
    let urls = announce_urls(config, &user.passkey);
    if json {
        let NewUser { id, passkey, api_key } = user;
        let user = json!({"id": id, "name": name, "passkey": passkey, "apiKey": api_key, "announce": urls});
        return print(&format!("{user}\n"));
    }
    let (id, passkey, key) = (user.id, user.passkey, user.api_key);
    let urls: String = urls.iter().map(|url| format!("announce {url}\n")).collect();
    let head = format!("id       {id}\nname     {name}\npasskey  {passkey}\nAPI key  {key}\n");
    print(&format!("{head}{urls}The API key is not shown again.\n"))
}

/// Writes to stdout. Who reads our output may stop before its end, as in `goat user list | head`.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

/// Prints rows as one JSON array, a row a line, or as text under a title.
struct List {
    text: String,
    json: bool,
    rows: usize,
    result: Result<(), Failure>,
}

impl List {
    fn new(json: bool, title: &str) -> List {
        List { text: if json { "[".into() } else { format!("{title}\n") }, json, rows: 0, result: Ok(()) }
    }

    fn row(&mut self, json: impl FnOnce() -> serde_json::Value, text: impl FnOnce() -> String) {
        let comma = if self.rows > 0 { "," } else { "" };
        self.text += &if self.json { format!("{comma}\n{}", json()) } else { text() + "\n" };
        self.rows += 1;
        if self.text.len() > 1 << 16 && self.result.is_ok() {
            self.result = print(&std::mem::take(&mut self.text));
        }
    }

    fn end(self) -> Result<(), Failure> {
        self.result?;
        print(&(self.text + if self.json { "\n]\n" } else { "" }))
    }
}

fn user_list(config: &Config, json: bool) -> Result<(), Failure> {
    let title = format!(
        "{:>6}  {:<20} {:>14} {:>14} {:>7} {:>8}",
        "id", "name", "uploaded", "downloaded", "seeding", "leeching"
    );
    let mut list = List::new(json, &title);
    store(config)?.users(live_since(config), |user| {
        list.row(
            || {
                json!({"id": user.id, "name": user.name, "admin": user.admin, "banned": user.banned,
                    "torrentLimit": user.torrent_limit, "uploaded": user.uploaded, "downloaded": user.downloaded,
                    "seeding": user.seeding, "leeching": user.leeching})
            },
            || {
                let marks = [(user.admin, " admin"), (user.banned, " banned")];
                let marks: String = marks.iter().filter(|(on, _)| *on).map(|(_, mark)| *mark).collect();
                format!(
                    "{:>6}  {:<20} {:>14} {:>14} {:>7} {:>8}{marks}",
                    user.id,
                    clean(&user.name),
                    user.uploaded,
                    user.downloaded,
                    user.seeding,
                    user.leeching
                )
            },
        );
    })?;
    list.end()
}

fn file_json(file: &FileRow, seeders: u32, leechers: u32) -> serde_json::Value {
    json!({"id": file.id, "infoHash": file.info_hash.to_string(), "name": file.name, "verified": file.verified,
        "seeders": seeders, "leechers": leechers, "completed": file.completed})
}

fn file_add(config: &Config, what: &str, json: bool) -> Result<(), Failure> {
    let (hash, name, size) = match what.parse::<InfoHash>() {
        Ok(hash) => (hash, String::new(), 0),
        Err(_) => {
            let bytes = std::fs::read(what).map_err(|e| {
                Failure::Could(format!(
                    "{what} is neither an info hash (40 or 64 hex digits) nor a file that can be read: {e}"
                ))
            })?;
            let torrent = torrent::read(&bytes).map_err(|e| Failure::Could(format!("{what}: {e}")))?;
            (torrent.info_hash, torrent.name, torrent.size)
        }
    };
    let file = store(config)?.add_file(&hash, &name, size)?;
    print(&if json {
        format!("{}\n", file_json(&file, 0, 0))
    } else {
        format!("{}  {}  registered and verified\n", file.info_hash, clean(&file.name))
    })
}

fn file_list(config: &Config, pending: bool, json: bool) -> Result<(), Failure> {
    let title = format!(
        "{:>6}  {:<40} {:<8} {:>7} {:>8} {:>9}  name",
        "id", "info_hash", "verified", "seeders", "leechers", "completed"
    );
    let mut list = List::new(json, &title);
    store(config)?.files(pending, live_since(config), |file, seeders, leechers| {
        list.row(
            || file_json(&file, seeders, leechers),
            || {
                let verified = if file.verified { "yes" } else { "no" };
                format!(
                    "{:>6}  {} {verified:<8} {seeders:>7} {leechers:>8} {:>9}  {}",
                    file.id,
                    file.info_hash,
                    file.completed,
                    clean(&file.name)
                )
            },
        );
    })?;
    list.end()
}

fn file_approve(config: &Config, hash: Option<InfoHash>) -> Result<(), Failure> {
    let store = store(config)?;
    if let Some(hash) = &hash
        && store.file_by_hash(hash)?.is_none()
    {
        return Err(Failure::Could(format!(
            "{hash} is not registered: `goat file add {hash}` registers and verifies it"
        )));
    }
    print(&format!("{} torrents approved\n", store.approve_files(hash.as_ref())?))
}

fn client_list(config: &Config, json: bool) -> Result<(), Failure> {
    let mut list = List::new(json, "approved  client");
    for row in store(config)?.clients()? {
        list.row(
            || json!({"client": row.client, "approved": row.approved}),
            || format!("{:<8}  {}", if row.approved { "yes" } else { "no" }, clean(&row.client)),
        );
    }
    list.end()
}
