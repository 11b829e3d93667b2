//! Commands of goat in messages: as their reader may type them, on the configuration that is in use.

use std::path::{self, Path};
use std::sync::OnceLock;

/// The file that `--config` named, as a word for a shell.
static NAMED: OnceLock<String> = OnceLock::new();

pub fn name_in_hints(file: &Path) {
    let file = path::absolute(file).unwrap_or_else(|_| file.into());
    let _ = NAMED.set(quoted(&file.to_string_lossy())); // Once is enough: it is the same.
}

/// A command of goat as its reader may type it, on the configuration in use.
pub fn command(words: &str) -> String {
    NAMED.get().map_or_else(|| format!("goat {words}"), |file| format!("goat --config {file} {words}"))
}

pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if word.chars().all(plain) && !word.is_empty() { word.into() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}
