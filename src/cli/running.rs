//! Trackers that run on this machine: where somebody has no configuration, it is perhaps theirs that is meant.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::commands;
use crate::config::{SERVICE, default_in};

/// How to name the configurations of the trackers that run here, as far as they may be known.
pub fn hints() -> Vec<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let hint = |process: fs::DirEntry| {
        let (path, id) = (process.path(), process.file_name().to_str()?.parse::<u32>().ok()?);
        if id == std::process::id() || fs::read_to_string(path.join("comm")).ok()?.trim() != "goat" {
            return None;
        }
        let user = fs::metadata(&path).ok()?.uid();
        let given = configuration(&texts(&path.join("cmdline")))?;
        Some(match given.or_else(|| of_environment(&texts(&path.join("environ")))) {
            Some(file) => {
                let file = fs::read_link(path.join("cwd")).map_or(file.clone(), |folder| folder.join(file));
                if file == Path::new(SERVICE) {
                    return Some(format!("the service (process {id}) is for root and the members of the group goat"));
                }
                let file = file.display();
                format!("the goat that runs here (process {id}) has {file}: as user {user} use --config {file}")
            }
            None => format!("a goat runs here (process {id}): user {user} or root can see its configuration"),
        })
    };
    processes.filter_map(hint).collect()
}

/// What follows one another in a file of /proc with a zero byte behind each.
fn texts(file: &Path) -> Vec<String> {
    let bytes = fs::read(file).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

/// The value of `--config` of a goat that was started with these words as a tracker.
fn configuration(words: &[String]) -> Option<Option<PathBuf>> {
    let words = words.iter().filter(|word| !word.is_empty());
    let mut matches = commands::goat().try_get_matches_from(words).ok()?;
    let config = matches.remove_one::<String>("config");
    match matches.remove_subcommand() {
        Some((name, mut run)) if name == "run" => Some(config.or(run.remove_one("config")).map(PathBuf::from)),
        Some(_) => None,
        None => Some(config.map(PathBuf::from)),
    }
}

fn of_environment(environment: &[String]) -> Option<PathBuf> {
    default_in(|name| {
        let value = |text: &String| text.strip_prefix(name)?.strip_prefix('=').map(OsString::from);
        environment.iter().find_map(value)
    })
}
