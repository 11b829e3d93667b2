//! The words of a command, what it may open, and how it may end: what all commands share.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{self, Path, PathBuf};
use std::str::FromStr;

use crate::config::{self, Config, Problem};
use crate::log::log;
use crate::store::Store;

/// Why a command ends with another status than 0.
pub enum Failure {
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
pub type Done = Result<(), Failure>;

/// An option: its name, what its value is ("" where it has none; words with | between them are all there are),
/// and what it does.
pub type Opt = (&'static str, &'static str, &'static str);

/// A command.
pub struct Command {
    /// Its one or two words.
    pub name: &'static str,
    /// What follows: `[X]` may be left out, `X...` may be repeated.
    pub arguments: &'static [&'static str],
    /// Its options, beside [`OPTIONS`].
    pub options: &'static [Opt],
    /// What it does, in one line.
    pub about: &'static str,
    /// Does it.
    pub run: fn(&Call) -> Done,
}

impl Command {
    /// Its words, as in `user add NAME [--admin]`.
    pub fn usage(&self) -> String {
        let options = self.options.iter().map(|(name, value, _)| match *value {
            "" => format!("[{name}]"),
            value => format!("[{name} {value}]"),
        });
        let words = std::iter::once(self.name.to_string());
        words.chain(self.arguments.iter().map(|word| word.to_string())).chain(options).collect::<Vec<_>>().join(" ")
    }
}

/// What goes with every command.
pub const OPTIONS: &[Opt] = &[("--config", "FILE", "instead of ~/.config/goat/config.json")];

/// The words of a command that has them all in order.
pub struct Call {
    /// All the commands there are.
    pub commands: &'static [Command],
    pub command: &'static Command,
    pub arguments: Vec<String>,
    pub options: Vec<(&'static str, String)>,
}

impl Call {
    /// An argument, "" where it is left out.
    pub fn argument(&self, at: usize) -> &str {
        self.arguments.get(at).map_or("", |text| text)
    }

    /// Whether an option was given.
    pub fn on(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The value of an option that was given.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// The value of an option that was given and reads as a number.
    pub fn number<T: FromStr>(&self, name: &str, allowed: &str) -> Result<Option<T>, Failure> {
        let read =
            |text: &str| text.parse().map_err(|_| self.wrong(&format!("{name} is {text}, but must be {allowed}")));
        self.value(name).map(read).transpose()
    }

    pub fn json(&self) -> bool {
        self.on("--json")
    }

    /// A complaint about the words, with the right ones.
    pub fn wrong(&self, message: &str) -> Failure {
        let name = self.command.name;
        Failure::Words(format!("{message}; it is: goat {} (`goat help {name}` explains it)", self.command.usage()))
    }

    /// Reads the configuration; makes the default one where there is none.
    pub fn config(&self) -> Result<Config, Failure> {
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
    pub fn open(&self) -> Result<(Config, Store), Failure> {
        let config = self.config()?;
        let store = store(&config)?;
        Ok((config, store))
    }
}

/// The command of this name.
pub fn find(commands: &'static [Command], name: &str) -> Option<&'static Command> {
    commands.iter().find(|command| command.name == name)
}

/// Takes the name of the command out of the words.
pub fn take_command(
    commands: &'static [Command],
    words: &mut Vec<String>,
    help: bool,
) -> Result<&'static Command, Failure> {
    let named =
        |name: &str| find(commands, name).ok_or_else(|| Failure::Words(format!("there is no command `{name}`")));
    if words.first().is_some_and(|word| word == "--version") {
        words.remove(0);
        return named("--version");
    }
    let Some(at) = words.iter().position(|word| !word.starts_with("--")) else {
        return named(if help { "help" } else { "run" });
    };
    let first = words.remove(at);
    if let Some(command) = find(commands, &first) {
        return Ok(command);
    }
    let second = if at < words.len() { words.remove(at) } else { String::new() };
    let name = format!("{first} {second}").trim_end().to_string();
    if let Some(command) = find(commands, &name) {
        return Ok(command);
    }
    let family = format!("{first} ");
    let members: Vec<&str> = commands.iter().filter_map(|command| command.name.strip_prefix(&family)).collect();
    if help && second.is_empty() && !members.is_empty() {
        words.push(first);
        return named("help");
    }
    // What was meant may be a family, or lack its family.
    let words = commands.iter().flat_map(|command| {
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

pub fn store(config: &Config) -> Result<Store, Failure> {
    Store::open(config).map_err(|e| Failure::Could(format!("{}: {e}", config.database_name())))
}

/// Seconds since 1970.
pub fn now() -> u32 {
    u32::try_from(crate::clock::now()).unwrap_or(u32::MAX)
}

/// Sessions that announced since then are in their swarms.
pub fn live_since(config: &Config) -> u32 {
    now().saturating_sub(config.interval.saturating_mul(2))
}

/// The SQL for the order that a word names, such as that of `--sort`.
pub fn order(orders: &[(&str, &'static str)], word: Option<&str>) -> &'static str {
    let word = word.unwrap_or("id");
    orders.iter().find(|(known, _)| *known == word).map_or("1", |(_, sql)| sql)
}

/// Writes a file for its owner's eyes only, whole or not at all; into what is no file, such as a pipe, as it is.
pub fn write_file(path: &Path, bytes: &[u8]) -> Done {
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
pub fn replace_file<E: std::fmt::Display>(path: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Done {
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
