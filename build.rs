//! Sets `GOAT_VERSION`: the version, and the commit if this is a clone and git can tell it.

use std::path::Path;
use std::process::Command;

fn main() {
    // Only what goat is compiled from: a commit alone compiles nothing anew.
    for path in ["build.rs", "Cargo.toml", "Cargo.lock", "config.json5", "res", "src"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let mut version = env!("CARGO_PKG_VERSION").to_string();
    // Without this, git would look for a repository around an unpacked archive.
    if Path::new(".git").exists() {
        let mut git = Command::new("git");
        let output = git.args(["describe", "--always", "--dirty", "--exclude=*"]).output();
        if let Some(commit) = output.ok().filter(|output| output.status.success()) {
            version += &format!(" ({})", String::from_utf8_lossy(&commit.stdout).trim());
        }
    }
    println!("cargo::rustc-env=GOAT_VERSION={version}");
}
