//! The configuration as its owner meets it: through `goat check --config FILE`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Writes `text` to a configuration file of its own, and has goat check it.
fn check(name: &str, text: &str, variables: &[(&str, &str)]) -> (PathBuf, Output) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("config-{name}"));
    _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("config.json");
    fs::write(&file, text).unwrap();
    let mut goat = Command::new(env!("CARGO_BIN_EXE_goat"));
    goat.args(["check", "--config"]).arg(&file);
    goat.env_remove("GOAT_TEST_INTERVAL").envs(variables.iter().copied());
    (file, goat.output().unwrap())
}

/// The complaints of goat, which must refuse `text`, without the file's name.
fn complaints(name: &str, text: &str) -> Vec<String> {
    let (file, output) = check(name, text, &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let complaints = String::from_utf8(output.stderr).unwrap();
    let file = format!("{}:", file.display());
    let without_file = complaints.lines().map(|line| line.strip_prefix(&file).unwrap());
    without_file.map(str::to_string).collect()
}

#[test]
#[cfg(feature = "sqlite")]
fn the_shipped_configuration_is_good() {
    let (file, output) = check("shipped", include_str!("../../config.json5"), &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains(&file.display().to_string()), "{printed}");
}

#[test]
fn a_mistake_is_named_with_line_key_and_what_is_allowed() {
    assert_eq!(
        complaints("mistake", "{\n  // Port: 1\n  Port: 80800, DB: { Driver: 'sqlite' }\n}"),
        ["3: Port: found 80800; allowed: a whole number, 1 to 65535"]
    );
}

#[test]
fn all_mistakes_are_named_at_once() {
    let text = "{\n  Interval: 10,\n  Prot: 1,\n  Prot: 2,\n  DB: { Driver: 'ql' },\n}";
    assert_eq!(
        complaints("mistakes", text),
        [
            "2: Interval: found 10; allowed: whole seconds, 600 to 86400",
            "3: Prot: found an unknown key; allowed: did you mean Port?",
            "4: Prot: found an unknown key; allowed: did you mean Port?",
            "5: DB.Driver: found \"ql\"; allowed: mysql or sqlite",
        ]
    );
}

#[test]
#[cfg(all(feature = "mysql", feature = "redis"))]
fn the_example_of_goat_lacks_only_its_certificate() {
    let complaints = complaints("example", include_str!("../data/goat-example.json"));
    let [certificate, key] = complaints.as_slice() else { panic!("{complaints:?}") };
    assert!(certificate.starts_with("42: SSL.Certificate: found "), "{certificate}");
    assert!(certificate.contains("to make both: openssl req -x509 "), "{certificate}");
    assert!(key.starts_with("45: SSL.Key: found "), "{key}");
}

#[test]
#[cfg(feature = "sqlite")]
fn a_short_interval_is_for_tests_only() {
    let text = "{ Interval: 1, DB: { Driver: 'sqlite' } }";
    let (_, output) = check("interval", text, &[("GOAT_TEST_INTERVAL", "1")]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let (_, output) = check("interval", text, &[("GOAT_TEST_INTERVAL", "0")]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_missing_file_is_named() {
    let missing = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("no/such/config.json");
    let mut goat = Command::new(env!("CARGO_BIN_EXE_goat"));
    let output = goat.args(["check", "--config"]).arg(&missing).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let complaint = String::from_utf8(output.stderr).unwrap();
    let expected = format!("{}: found No such file or directory", missing.display());
    assert!(complaint.starts_with(&expected), "{complaint}");
    assert!(!missing.exists());
}
