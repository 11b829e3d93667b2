//! The command line: what an operator does to members, torrents, clients and the tracker itself.
//!
//! The words of every command stand in `table`; help, completions and the manual page are made from it.
//! Results go to stdout, errors to stderr. Exit status: 0 done, 1 could not, 2 wrong words or a wrong
//! configuration.

mod check;
mod client;
mod community;
mod file;
mod help;
mod output;
mod table;
mod torrent;
mod user;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{self, Path, PathBuf};
use std::str::FromStr;

use table::{COMMANDS, Command, OPTIONS};

use crate::config::{self, Config, Problem};
use crate::log::{clean, log};
use crate::store::Store;

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

/// What a command returns.
type Done = Result<(), Failure>;

/// The words of a command that has them all in order.
struct Call {
    command: &'static Command,
    arguments: Vec<String>,
    options: Vec<(&'static str, String)>,
}

impl Call {
    /// An argument, "" where it is left out.
    fn argument(&self, at: usize) -> &str {
        self.arguments.get(at).map_or("", |text| text)
    }

    /// Whether an option was given.
    fn on(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The value of an option that was given.
    fn value(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// The value of an option that was given and reads as a number.
    fn number<T: FromStr>(&self, name: &str, allowed: &str) -> Result<Option<T>, Failure> {
        let read =
            |text: &str| text.parse().map_err(|_| self.wrong(&format!("{name} is {text}, but must be {allowed}")));
        self.value(name).map(read).transpose()
    }

    fn json(&self) -> bool {
        self.on("--json")
    }

    /// A complaint about the words, with the right ones.
    fn wrong(&self, message: &str) -> Failure {
        let name = self.command.name;
        Failure::Words(format!("{message}; it is: goat {} (`goat help {name}` explains it)", self.command.usage()))
    }

    /// Reads the configuration; makes the default one where there is none.
    fn config(&self) -> Result<Config, Failure> {
        let path = match self.value("--config") {
            Some(path) => path.into(),
            None => {
                let path = config::default_path().map_err(|problem| Failure::Config(vec![problem]))?;
                if !path.exists() {
                    config::create(&path).map_err(|problem| Failure::Config(vec![problem]))?;
                    log(format!("made the configuration {}", path.display()));
                }
                path
            }
        };
        config::load(&path).map_err(Failure::Config)
    }

    /// Reads the configuration and opens its database.
    fn open(&self) -> Result<(Config, Store), Failure> {
        let config = self.config()?;
        let store = store(&config)?;
        Ok((config, store))
    }
}

/// Does what the command line says and returns the exit status.
pub fn main(words: impl Iterator<Item = OsString>) -> u8 {
    let wrong = |word| Failure::Words(format!("{word:?} is not UTF-8: rename it (`goat help` lists the commands)"));
    let words = words.map(|word| word.into_string().map_err(wrong)).collect::<Result<_, _>>();
    match words.and_then(parse).and_then(|call| (call.command.run)(&call)) {
        Ok(()) => 0,
        Err(Failure::Could(message)) => {
            complain(&message.lines().map(|line| format!("goat: {}", clean(line))).collect::<Vec<_>>(), 1)
        }
        Err(Failure::Words(message)) => complain(&[format!("goat: {}", clean(&message))], 2),
        Err(Failure::Config(problems)) => complain(&problems.iter().map(Problem::to_string).collect::<Vec<_>>(), 2),
    }
}

fn complain(lines: &[String], status: u8) -> u8 {
    for line in lines {
        let _ = writeln!(io::stderr(), "{line}"); // There is no place left to complain about that.
    }
    status
}

/// Finds the command, and judges its words before anything is opened.
fn parse(mut words: Vec<String>) -> Result<Call, Failure> {
    let mut options = Vec::new();
    // Goes with every command, and may come before it.
    while let Some(at) = words.iter().take_while(|word| *word != "--").position(|word| word == "--config") {
        words.remove(at);
        if at == words.len() {
            return Err(Failure::Words("--config wants a FILE (`goat help` lists the commands)".into()));
        }
        if !options.is_empty() {
            return Err(Failure::Words("--config is given twice (`goat help` lists the commands)".into()));
        }
        options.push(("--config", words.remove(at)));
    }
    let help = words.iter().take_while(|word| *word != "--").any(|word| word == "--help" || word == "-h");
    words.retain(|word| !help || (word != "--help" && word != "-h"));
    let command = take_command(&mut words, help)?;
    if help && command.name != "help" {
        let arguments = vec![command.name.to_string()];
        return Ok(Call { command: table::find("help").unwrap_or(command), arguments, options: vec![] });
    }
    let mut call = Call { command, arguments: Vec::new(), options };
    let mut words = words.into_iter();
    let mut only_arguments = false;
    while let Some(word) = words.next() {
        if only_arguments || !word.starts_with("--") {
            call.arguments.push(word);
        } else if word == "--" {
            only_arguments = true;
        } else {
            let (name, value) = word.split_once('=').map_or((word.as_str(), None), |(name, value)| (name, Some(value)));
            let Some((name, kind, _)) = command.options.iter().chain(OPTIONS).find(|(known, ..)| *known == name) else {
                return Err(call.wrong(&format!("there is no option {name}")));
            };
            let value = match (kind.is_empty(), value) {
                (true, None) => String::new(),
                (true, Some(_)) => return Err(call.wrong(&format!("{name} takes no value"))),
                (false, Some(value)) => value.to_string(),
                (false, None) => words.next().ok_or_else(|| call.wrong(&format!("{name} wants a value: {kind}")))?,
            };
            if kind.contains('|') && !kind.split('|').any(|word| word == value) {
                return Err(call.wrong(&format!("{name} is {value}, but must be one of {kind}")));
            }
            if call.on(name) {
                return Err(call.wrong(&format!("{name} is given twice")));
            }
            call.options.push((name, value));
        }
    }
    let wanted = command.arguments.iter().filter(|argument| !argument.starts_with('['));
    if let Some(missing) = wanted.clone().nth(call.arguments.len()) {
        return Err(call.wrong(&format!("{missing} is missing")));
    }
    let many = command.arguments.iter().any(|argument| argument.contains("..."));
    match call.arguments.get(command.arguments.len()) {
        Some(word) if !many => Err(call.wrong(&format!("{word} is one word too many"))),
        _ => Ok(call),
    }
}

/// Takes the name of the command out of the words.
fn take_command(words: &mut Vec<String>, help: bool) -> Result<&'static Command, Failure> {
    let named = |name: &str| table::find(name).ok_or_else(|| Failure::Words(format!("there is no command `{name}`")));
    if words.first().is_some_and(|word| word == "--version") {
        words.remove(0);
        return named("--version");
    }
    let Some(at) = words.iter().position(|word| !word.starts_with("--")) else {
        return named(if help { "help" } else { "run" });
    };
    let first = words.remove(at);
    if let Some(command) = table::find(&first) {
        return Ok(command);
    }
    let second = if at < words.len() { words.remove(at) } else { String::new() };
    let name = format!("{first} {second}").trim_end().to_string();
    if let Some(command) = table::find(&name) {
        return Ok(command);
    }
    let family = format!("{first} ");
    let members: Vec<&str> = COMMANDS.iter().filter_map(|command| command.name.strip_prefix(&family)).collect();
    if help && second.is_empty() && !members.is_empty() {
        words.push(first);
        return named("help");
    }
    // What was meant may be a family, or lack its family.
    let words = COMMANDS.iter().flat_map(|command| {
        let (first, second) = command.name.split_once(' ').unwrap_or((command.name, command.name));
        [(command.name, command.name), (first, first), (second, command.name)]
    });
    let near = words.min_by_key(|(word, _)| config::difference(word, &name));
    let advice = match near.filter(|(word, _)| config::difference(word, &name) * 2 <= word.len()) {
        Some((_, near)) if !second.is_empty() || members.is_empty() => format!(": did you mean `goat {near}`?"),
        _ if !members.is_empty() => format!(": {first} goes with {}", members.join(", ")),
        _ => String::new(),
    };
    Err(Failure::Words(format!("there is no command `{name}`{advice} (`goat help` lists the commands)")))
}

fn store(config: &Config) -> Result<Store, Failure> {
    Store::open(config).map_err(|e| Failure::Could(format!("{}: {e}", config.database_name())))
}

/// Seconds since 1970.
fn now() -> u32 {
    u32::try_from(crate::clock::now()).unwrap_or(u32::MAX)
}

/// Sessions that announced since then are in their swarms.
fn live_since(config: &Config) -> u32 {
    now().saturating_sub(config.interval.saturating_mul(2))
}

/// The SQL for the order that a word names, such as that of `--sort`.
fn order(orders: &[(&str, &'static str)], word: Option<&str>) -> &'static str {
    let word = word.unwrap_or("id");
    orders.iter().find(|(known, _)| *known == word).map_or("1", |(_, sql)| sql)
}

/// Writes a file for its owner's eyes only, whole or not at all; into what is no file, such as a pipe, as it is.
fn write_file(path: &Path, bytes: &[u8]) -> Done {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return fs::write(path, bytes).map_err(|e| cannot_write(path, &e));
    }
    replace_file(path, |new| fs::write(new, bytes))
}

fn cannot_write(path: &Path, e: &dyn std::fmt::Display) -> Failure {
    Failure::Could(format!("cannot write {}: {e}", path.display()))
}

/// Makes an empty file beside `path` for its owner's eyes only, has it filled, and puts it in the place. Where
/// that is a symbolic link, what it stands for is replaced.
fn replace_file<E: std::fmt::Display>(path: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Done {
    let cannot = |e: io::Error| cannot_write(path, &e);
    // SQLite would take a name such as `file:x` for a URL.
    let place = if path.is_symlink() { path.canonicalize() } else { path::absolute(path) }.map_err(cannot)?;
    let mut new = place.as_os_str().to_owned();
    new.push(format!(".{}", std::process::id()));
    let new = PathBuf::from(new);
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(cannot)?;
    let filled = fill(&new).map_err(|e| cannot_write(path, &e));
    let done = filled.and_then(|()| fs::rename(&new, &place).map_err(cannot));
    if done.is_err() {
        let _ = fs::remove_file(&new); // What went wrong is said already.
    }
    done
}
