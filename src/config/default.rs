//! The configuration where nobody names a file: where it is, and how it is made.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{Problem, TEMPLATE};

/// Where the configuration is when nobody names a file: `goat/config.json` in the user's folder
/// for configurations.
pub fn default_path() -> Result<PathBuf, Problem> {
    // The XDG specification: a relative folder is to be ignored.
    let folder = |name| {
        let folder = PathBuf::from(env::var_os(name)?);
        folder.is_absolute().then_some(folder)
    };
    let config = folder("XDG_CONFIG_HOME").or_else(|| Some(folder("HOME")?.join(".config")));
    let file = Path::new("goat/config.json");
    let allowed = "HOME or XDG_CONFIG_HOME set to a folder, or --config FILE";
    let config = config.ok_or_else(|| Problem::new(file, 0, "", "no folder for it", allowed))?;
    Ok(config.join(file))
}

/// Writes [`TEMPLATE`] to `path`, for its owner's eyes only; never over a file that exists.
pub fn create(path: &Path) -> Result<(), Problem> {
    let mut new = OpenOptions::new();
    new.write(true).create_new(true).mode(0o600);
    fs::create_dir_all(path.parent().unwrap_or(path))
        .and_then(|()| new.open(path))
        .and_then(|mut file| file.write_all(TEMPLATE.as_bytes()))
        .map_err(|e| Problem::new(path, 0, "", e, "a new file in a folder that can be written"))
}
