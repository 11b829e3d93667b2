//! The words of a command, what it may open, and how it may end: what all commands share.

use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{self, Path, PathBuf};

use clap::parser::ValueSource;
use clap::{ArgMatches, Id};
use nix::sys::stat::{Mode, umask};

use super::running;
use crate::config::{self, Config, Problem, SERVICE};
use crate::log::{log, words};
use crate::store::{Action, Order, Page, Store};
use crate::sys::{read_file, write_new_file};

/// Arguments that name what a command is about, or how it speaks.
const UNSAID: [&str; 6] = ["NAME", "HASH", "PREFIX", "FILE.torrent|HASH", "FILE.csv", "json"];

/// Why a command ends with another status than 0.
pub enum Failure {
    /// Status 1.
    Failed(String),
    /// Status 2: the words of the command.
    Usage(String),
    /// Status 2: the configuration.
    Config(Vec<Problem>),
}

impl<E: Display> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Failed(error.to_string())
    }
}

pub type Done = Result<(), Failure>;

pub struct Call {
    pub name: String,
    pub matches: ArgMatches,
    pub config: Option<String>,
}

impl Call {
    pub fn words(&self, name: &str) -> Vec<&str> {
        self.matches.get_many::<String>(name).into_iter().flatten().map(String::as_str).collect()
    }

    pub fn value(&self, name: &str) -> Option<&str> {
        self.matches.get_one(name).map(String::as_str)
    }

    pub fn argument(&self, name: &str) -> &str {
        self.value(name).unwrap_or_default()
    }

    pub fn get<T: Copy + Send + Sync + 'static>(&self, name: &str) -> Option<T> {
        self.matches.get_one(name).copied()
    }

    /// A whole list in the order of `--sort`.
    pub fn page<'a>(&self, orders: impl IntoIterator<Item = &'a Order>) -> Page {
        Page::named(orders, self.value("sort").unwrap_or("id"))
    }

    pub fn on(&self, name: &str) -> bool {
        self.matches.get_flag(name)
    }

    pub fn json(&self) -> bool {
        self.on("json")
    }

    /// Writes down that this command was done, to whom or what, and with which options.
    /// Where that fails, what was done must still be shown.
    pub fn note(&self, store: &Store, whom: &str) {
        let given = |id: &&Id| self.matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
        let option = |id: &Id| {
            let values = self.matches.get_raw(id.as_str()).into_iter().flatten().map(|value| value.to_string_lossy());
            format!("{id} {}", values.collect::<Vec<_>>().join(" "))
        };
        let detail: Vec<String> =
            self.matches.ids().filter(given).filter(|id| !UNSAID.contains(&id.as_str())).map(option).collect();
        let (what, whom, detail) = (self.name.clone(), whom.to_string(), detail.join(" "));
        let action = Action { time: now(), what, whom, detail, ..Action::default() };
        if let Err(e) = store.note(&action) {
            let e = words(&e.to_string());
            let _ = writeln!(io::stderr(), "goat: this was done, but is missing in `{}`: {e}", config::command("log"));
        }
    }

    pub fn wrong(&self, message: &str) -> Failure {
        Failure::Usage(super::usage(message, &self.name))
    }

    /// Reads the configuration. Where there is none, the tracker makes the default one, and no other command.
    pub fn config(&self) -> Result<Config, Failure> {
        let path = match &self.config {
            Some(path) => {
                config::name_in_hints(Path::new(path));
                path.into()
            }
            None => {
                let wrong = |problem| Failure::Config(vec![problem]);
                let path = own_or(config::default_path(), Path::new(SERVICE)).map_err(wrong)?;
                let shown = path.display();
                if !path.exists() {
                    if !["", "run"].contains(&self.name.as_str()) {
                        let advice = "`goat run` creates one, --config FILE names another";
                        let hints: String = running::hints().iter().map(|hint| format!("; {hint}")).collect();
                        return Err(Failure::Usage(format!("there is no configuration {shown}: {advice}{hints}")));
                    }
                    config::create(&path).map_err(wrong)?;
                    log(format!("made the configuration {shown}"));
                }
                path
            }
        };
        let config = config::load(&path).map_err(Failure::Config)?;
        // What is made beside the database is for its owner alone; of the service, for its group too, so that the
        // service goes on with what commands of root or of the group's members have made.
        umask(Mode::from_bits_truncate(if config.is_service() { 0o007 } else { 0o077 }));
        Ok(config)
    }

    pub fn open(&self) -> Result<(Config, Store), Failure> {
        let config = self.config()?;
        let store = store(&config)?;
        Ok((config, store))
    }
}

/// The user's own configuration, or where that is missing the service's, if this user may see it.
fn own_or(own: Result<PathBuf, Problem>, service: &Path) -> Result<PathBuf, Problem> {
    let missing = !own.as_ref().is_ok_and(|own| own.exists());
    if missing && service.exists() { Ok(service.into()) } else { own }
}

pub fn store(config: &Config) -> Result<Store, Failure> {
    let name = config.database_name();
    let found = Store::existing(config).map_err(|e| format!("{name}: {e}"))?;
    Ok(found.ok_or_else(|| format!("{name}: {}", no_database(config)))?)
}

/// Of a database that is not there, or has none of goat's tables.
pub fn no_database(config: &Config) -> String {
    let start = if config.is_service() { "systemctl start goat".into() } else { config::command("run") };
    format!("it has no tables of goat yet: `{start}` creates them")
}

pub fn now() -> u32 {
    u32::try_from(crate::clock::now()).unwrap_or(u32::MAX)
}

/// Sessions that announced since then are in their swarms.
pub fn live_since(config: &Config) -> u32 {
    now().saturating_sub(config.interval.saturating_mul(2))
}

/// The content of the file that stands where a torrent file is to be written, if there is one: it may be replaced only if
/// goat could have written it. Refuses a symbolic link, which somebody else may have put there.
pub fn standing(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => Err(occupied(path, "is a symbolic link")),
        Ok(found) if found.is_dir() => Err(cannot_write(path, "it is a folder")),
        Ok(found) if found.is_file() => {
            read_file(path, MAX_TORRENT).map(Some).map_err(|e| occupied(path, &format!("cannot be read ({e})")))
        }
        // Such as a pipe.
        Ok(_) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(cannot_write(path, e)),
    }
}

pub fn occupied(path: &Path, why: &str) -> Failure {
    format!("{} {why}: name another file, or replace it with --force", path.display()).into()
}

pub fn is_same(a: &Path, b: &Path) -> bool {
    a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b))
}

/// Writes a file for its owner's eyes only, whole or not at all, in the place of what is there; into what is no file,
/// such as a pipe, as it is. Follows no symbolic link.
pub fn write_file(path: &Path, bytes: &[u8]) -> Done {
    let found = fs::symlink_metadata(path).map(|found| found.file_type());
    if found.is_ok_and(|found| !found.is_file() && !found.is_symlink()) {
        let file = fs::OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(path);
        return file.and_then(|mut file| file.write_all(bytes)).map_err(|e| cannot_write(path, e));
    }
    replace_file(path, |new| fs::write(new, bytes))
}

/// Bytes of a torrent file, at most: with pieces of 4 MiB, enough for 50 TiB.
const MAX_TORRENT: u64 = 256 << 20;

/// Reads a torrent file, without the line end that editors and web sites put behind its last byte, and says so.
pub fn load_torrent(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = read_file(path, MAX_TORRENT)?;
    if let Some(torrent) = bytes.strip_suffix(b"\r\n").or(bytes.strip_suffix(b"\n")).filter(|rest| rest.ends_with(b"e"))
    {
        bytes.truncate(torrent.len());
        let file = words(&path.display().to_string());
        let _ = writeln!(io::stderr(), "goat: {file}: the line end after the torrent's last byte is left out");
    }
    Ok(bytes)
}

pub fn cannot_write(path: &Path, why: impl Display) -> Failure {
    format!("cannot write {}: {why}", path.display()).into()
}

/// Makes an empty file beside `path` for its owner's eyes only, has it filled, and puts it in the place.
pub fn replace_file<E: Display>(path: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Done {
    let cannot = |e: io::Error| cannot_write(path, e);
    // SQLite would take a name such as `file:x` for a URL.
    let place = path::absolute(path).map_err(cannot)?;
    // The name of the place itself may be as long as names can be.
    let new = place.with_file_name(format!(".goat-{}", std::process::id()));
    write_new_file(&new, 0o600, b"").map_err(cannot)?;
    let filled = fill(&new).map_err(|e| cannot_write(path, e));
    let done = filled.and_then(|()| fs::rename(&new, &place).map_err(cannot));
    if done.is_err() {
        let _ = fs::remove_file(&new); // What went wrong is said already.
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_no_configuration_means_the_services_if_that_can_be_seen() {
        let folder = std::env::temp_dir().join(format!("goat-own-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (own, service) = (folder.join("own.json"), folder.join("service.json"));
        assert_eq!(own_or(Ok(own.clone()), &service), Ok(own.clone()));
        fs::write(&service, "{}").unwrap();
        assert_eq!(own_or(Ok(own.clone()), &service), Ok(service.clone()));
        let nowhere = config::parse(Path::new("nowhere"), "").unwrap_err().remove(0);
        assert_eq!(own_or(Err(nowhere.clone()), &service), Ok(service.clone()));
        assert_eq!(own_or(Err(nowhere.clone()), &folder.join("none")), Err(nowhere));
        fs::write(&own, "{}").unwrap();
        assert_eq!(own_or(Ok(own.clone()), &service), Ok(own));
        fs::remove_dir_all(folder).unwrap();
    }
}
