//! The Debian package: what is in it, and a life with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Folder, installed, skip};

/// Runs a program of this repository, which must succeed, and gives what it printed.
fn run(command: &mut Command) -> String {
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let status = output.status;
    assert!(status.success(), "{command:?}: {status}\n{stdout}{stderr}");
    stdout
}

/// Packs the goat of the tests into a folder: as a package, and as an archive.
fn package(folder: &Path, options: &[&str]) -> [PathBuf; 2] {
    let made = run(Command::new("res/package")
        .args(["--binary", env!("CARGO_BIN_EXE_goat")])
        .args(options)
        .env("CARGO_TARGET_DIR", folder));
    let (package, archive) = made.trim_end().split_once(' ').unwrap();
    [package, archive].map(PathBuf::from)
}

#[test]
fn packages_of_the_same_program_are_the_same_and_lintian_has_nothing_to_say() {
    for program in ["lintian", "dpkg-shlibdeps"] {
        if !installed(program) {
            return skip("packages", &format!("no {program}"));
        }
    }
    let folders = [Folder::new(), Folder::new()];
    let [first, second] = folders.each_ref().map(|to| package(to.path(), &[]));
    for (first, second) in first.iter().zip(second) {
        let (name, same) = (first.file_name(), fs::read(first).unwrap());
        assert_eq!(name, second.file_name());
        assert!(same == fs::read(&second).unwrap(), "{name:?}");
    }
    let lintian = ["--allow-root", "--pedantic", "--fail-on", "warning,error"];
    let said = run(Command::new("lintian").args(lintian).arg(&first[0]));
    assert_eq!(said, "");
}

#[test]
fn the_package_is_installed_worked_with_upgraded_and_purged_and_the_archive_installed() {
    let test = "the package";
    if unsafe { libc::geteuid() } != 0 {
        return skip(test, "needs root");
    }
    for program in ["dpkg-shlibdeps", "aria2c", "mktorrent", "curl", "ip", "systemctl"] {
        if !installed(program) {
            return skip(test, &format!("no {program}"));
        }
    }
    let folder = Folder::new();
    let [before, _] = package(folder.path(), &["--version", "0.0.1"]);
    let [package, archive] = package(folder.path(), &[]);
    // The system that runs the tests is as good as any.
    let install = run(Command::new("tests/install").arg("/").args([package, archive, before]));
    assert!(install.trim_end().ends_with("done"), "{install}");
}
