//! The configuration where nobody names a file: where it is, and how it is made.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Problem, TEMPLATE};
use crate::sys::write_new_file;

const FILE: &str = "goat/config.json";

/// The configuration of the service that the package installs: for root and the group goat alone.
pub const SERVICE: &str = "/etc/goat/config.json";

/// Where the configuration is when nobody names a file: `goat/config.json` in the user's folder
/// for configurations.
pub fn default_path() -> Result<PathBuf, Problem> {
    let allowed = "HOME or XDG_CONFIG_HOME set to a folder, or --config FILE";
    default_in(env::var_os).ok_or_else(|| Problem::new(Path::new(FILE), 0, "", "no folder for it", allowed))
}

/// The same in an environment, which says what each of its variables is.
pub fn default_in(variable: impl Fn(&'static str) -> Option<OsString>) -> Option<PathBuf> {
    // The XDG specification: a relative folder is to be ignored.
    let folder = |name| variable(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
    let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")))?;
    Some(config.join(FILE))
}

/// Writes [`TEMPLATE`] to `path`, for its owner's eyes only; never over a file that exists.
pub fn create(path: &Path) -> Result<(), Problem> {
    fs::create_dir_all(path.parent().unwrap_or(path))
        .and_then(|()| write_new_file(path, 0o600, TEMPLATE.as_bytes()))
        .map_err(|e| Problem::new(path, 0, "", e, "a new file in a folder that is writable"))
}
