//! `goat check`: what is wrong with this goat's surroundings, and how to mend it.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::socket::SockType;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};
use serde_json::json;

use super::call::{Call, Done, no_database, now};
use super::node::{nodes, secret};
use super::output::{print, show_all};
use crate::books::journal;
use crate::config::{Config, Driver, PEM, command};
use crate::log::{clean, timestamp, words};
use crate::net::tls::{Certificates, Defect};
use crate::server::listen;
use crate::store::Store;
use crate::sys;

#[derive(PartialEq, Debug)]
enum State {
    Good,
    Mended,
    Warning,
    Wrong,
}

/// What was looked at: its name, how it is, and what to say about it.
type Finding = (String, State, String);

fn good(what: impl Into<String>) -> Finding {
    (what.into(), State::Good, String::new())
}

pub fn check(call: &Call) -> Done {
    let config = call.config()?;
    let fix = call.on("fix");
    let mut findings = vec![good(config.file.display().to_string())];
    let name = config.database_name();
    let mut last_written = 0;
    let mut made = false;
    let wrong = Store::is_made(&config).and_then(|found| {
        made = found;
        if !made && config.db.driver == Driver::Sqlite {
            return Ok(vec![]);
        }
        let wrong = Store::check(&config)?;
        if made && wrong.is_empty() {
            last_written = Store::open(&config)?.last_written()?;
        }
        Ok(wrong)
    });
    let wrong = wrong.unwrap_or_else(|e| vec![e.to_string()]);
    let none_yet = || (name.clone(), State::Warning, no_database(&config));
    findings.extend(wrong.is_empty().then(|| if made { good(name.as_str()) } else { none_yet() }));
    findings.extend(wrong.into_iter().map(|message| (name.clone(), State::Wrong, message)));
    findings.extend(files(&config, fix));
    if config.https {
        findings.push(certificate(&config));
    }
    findings.extend(ports(&config));
    findings.extend(damage(&config, fix));
    findings.extend(redis(&config, made));
    findings.push(clock(last_written));
    if config.url.is_empty() && config.everywhere() {
        let advice = "members' announce URLs say localhost: set URL to the name that this machine has outside";
        findings.push(("URL".into(), State::Warning, advice.into()));
    }
    let wrong = findings.iter().filter(|(_, state, _)| *state == State::Wrong).count();
    let mut objects = Vec::new();
    for (what, state, message) in findings {
        let (state, message) = (format!("{state:?}").to_lowercase(), words(&message));
        let colon = if message.is_empty() { "" } else { ": " };
        if call.json() {
            objects.push(json!({ "what": what, "state": state, "message": message }));
        } else {
            print(format!("{}: {state}{colon}{message}\n", clean(&what)))?;
        }
    }
    if call.json() {
        show_all(&objects, "", true)?;
    }
    if wrong == 0 { Ok(()) } else { Err(format!("{wrong} of these must be fixed").into()) }
}

fn redis(config: &Config, made: bool) -> Option<Finding> {
    config.redis.as_ref().filter(|_| made)?;
    let found = Store::open(config).map_err(|e| e.to_string()).and_then(|store| {
        let (mut others, secret) = (nodes(config, &store)?, secret(config)?);
        others.retain(|node| node.secret != secret);
        let names = others.into_iter().map(|node| node.name).collect::<Vec<_>>().join(", ");
        let (file, advice) = (config.state_file("secret"), "copy one of them to all, and start them again");
        let message = format!("{names}: another secret than {}: {advice}", file.display());
        if names.is_empty() { Ok(()) } else { Err(message) }
    });
    Some(found.map_or_else(|message| ("Redis".into(), State::Wrong, message), |()| good("Redis")))
}

/// Files with secrets that everybody on the machine may read, and folders that cannot be written.
fn files(config: &Config, fix: bool) -> Vec<Finding> {
    let (mysql, db) = (config.db.driver == Driver::Mysql, &config.db.path);
    let wal = PathBuf::from(format!("{}-wal", db.display()));
    let mut secrets = vec![
        (mysql, config.file.clone(), "a password"),
        (!mysql, db.clone(), "passkeys"),
        (!mysql, wal, "passkeys"),
        (config.https, config.ssl.key.clone(), "a private key"),
        (true, config.state_file("secret"), "the key to the API's logins"),
        (true, journal::path(config), "members' addresses"),
    ];
    // What restores put aside.
    let folders = [config.file.clone(), db.canonicalize().unwrap_or_default()];
    for folder in BTreeSet::from(folders.map(|file| file.with_file_name(""))) {
        let kept = |name: &str| name.contains(".before-restore");
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        let files = files.filter(|file| file.file_name().to_str().is_some_and(kept) && !file.path().is_symlink());
        secrets.extend(files.map(|file| (true, file.path(), "passkeys")));
    }
    let mut findings = Vec::new();
    for (_, file, what) in secrets.into_iter().filter(|(on, ..)| *on) {
        let file = file.display().to_string();
        let Ok(found) = fs::metadata(&file) else { continue };
        let mode = found.permissions().mode();
        if mode & 0o007 == 0 {
            continue;
        }
        let message = format!("everybody on this machine can read it, and it holds {what}: chmod o= FILE, or --fix");
        let mended = if fix { keep_from_others(&file) } else { Ok(()) };
        findings.push(match mended {
            Ok(()) if fix => (file, State::Mended, "nobody else can read it now".into()),
            Ok(()) => (file, State::Warning, message),
            Err(e) => (file, State::Warning, format!("{message} (which failed: {e})")),
        });
    }
    let unwritable = config.unwritable().into_iter();
    findings.extend(unwritable.map(|message| ("State".into(), State::Warning, message)));
    findings
}

/// Takes from others the right to a file. A link, which who may write its folder can have put there, is not followed.
fn keep_from_others(file: &str) -> std::io::Result<()> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(file)?;
    match file.metadata()? {
        found if found.is_file() && found.nlink() > 1 => Err(std::io::Error::other("it has another name as well")),
        found => file.set_permissions(PermissionsExt::from_mode(found.mode() & 0o7770)),
    }
}

/// Parts of the journal that cannot be read, which keep goat from starting: `fix` sets them aside.
fn damage(config: &Config, fix: bool) -> Vec<Finding> {
    let damaged = match journal::damaged(config) {
        Ok(damaged) => damaged,
        Err(message) => return vec![(journal::path(config).display().to_string(), State::Wrong, message)],
    };
    let finding = |(file, why): (PathBuf, String)| {
        let (name, aside) = (file.display().to_string(), file.with_extension("damaged"));
        let message =
            format!("{why}: it holds accounts not yet written, and goat does not start with it. --fix sets it aside");
        match if fix { fs::rename(&file, &aside) } else { Ok(()) } {
            Ok(()) if fix => (name, State::Mended, format!("{why}: set aside as {}", aside.display())),
            Ok(()) => (name, State::Wrong, message),
            Err(e) => (name, State::Wrong, format!("{message} (which failed: {e})")),
        }
    };
    damaged.into_iter().map(finding).collect()
}

fn ports(config: &Config) -> Vec<Finding> {
    let wanted =
        [(config.http, "TCP", config.port), (config.https, "TCP", config.ssl.port), (config.udp, "UDP", config.port)];
    let check = |(_, protocol, port): (bool, &str, u16)| {
        let what = format!("{protocol} port {port}");
        let kind = if protocol == "UDP" { SockType::Datagram } else { SockType::Stream };
        let Err(message) = listen::<OwnedFd>(&config.host, port, kind) else { return good(what) };
        let sockets = sockets(&protocol.to_lowercase(), port);
        let owners = owners(&sockets);
        if let Some(id) = own(config, &sockets, &owners) {
            return (what, State::Good, format!("goat listens (process {id})"));
        }
        let message = match owners.first() {
            Some((id, name)) => {
                let name = if name == "goat" { "a goat with another configuration" } else { name };
                format!("{message}: {name} (process {id}) is using it. Stop that, or choose another port")
            }
            None => format!("{message}. Root can see which program is using it: run `{}` as root", command("check")),
        };
        (what, State::Wrong, message)
    };
    wanted.into_iter().filter(|(on, ..)| *on).map(check).collect()
}

type Process = (u32, String);

/// A socket that listens on a port: what it is called in the folders of open files, and the id of its user.
type Socket = (String, u32);

fn sockets(protocol: &str, port: u16) -> Vec<Socket> {
    let end = format!(":{port:04X}");
    let state = if protocol == "tcp" { "0A" } else { "07" };
    let table = |family| fs::read_to_string(format!("/proc/self/net/{protocol}{family}")).unwrap_or_default();
    let socket = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, local, _, found, _, _, _, user, _, inode, ..] if local.ends_with(&end) && found == state => {
            Some((format!("socket:[{inode}]"), user.parse().ok()?))
        }
        _ => None,
    };
    (table("") + &table("6")).lines().filter_map(socket).collect()
}

/// The processes that have some of these sockets, as far as they may be known.
fn owners(sockets: &[Socket]) -> Vec<Process> {
    let is_socket = |file: fs::DirEntry| {
        let link = fs::read_link(file.path());
        link.is_ok_and(|link| sockets.iter().any(|(socket, _)| link.as_os_str() == socket.as_str()))
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let owner = |process: fs::DirEntry| {
        let id = process.file_name().to_str()?.parse().ok()?;
        let mut open = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        let name = || fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        open.any(is_socket).then(|| (id, name().trim().to_string()))
    };
    processes.filter_map(owner).collect()
}

/// The goat of this configuration, which has locked its journal, if the sockets are its: one that may listen on ports
/// below 1024 hides its open files from all but root, so that only their user is known.
fn own(config: &Config, sockets: &[Socket], owners: &[Process]) -> Option<u32> {
    let lock = fs::metadata(journal::path(config).join("lock")).ok()?;
    let file = format!(":{}", lock.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let id = locks.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, "FLOCK", _, _, id, locked, ..] if locked.ends_with(&file) => id.parse().ok(),
        _ => None,
    })?;
    let hidden = owners.is_empty() && sockets.iter().any(|(_, user)| *user == lock.uid());
    (hidden || owners.iter().any(|(owner, _)| *owner == id)).then_some(id)
}

fn clock(last_written: u32) -> Finding {
    let (what, now) = (format!("the clock, {}", timestamp(now().into())), now());
    if last_written > now.saturating_add(60) {
        let message = format!("the database was last written at {}: set the clock", timestamp(last_written.into()));
        return (what, State::Wrong, message);
    }
    match sys::clock_is_kept() {
        true => good(what),
        false => (what, State::Warning, "no time service keeps it right: install systemd-timesyncd or chrony".into()),
    }
}

/// Days before its end that a certificate is worth a warning.
const SOON: u64 = 21;

fn certificate(config: &Config) -> Finding {
    let what = config.ssl.certificate.display().to_string();
    if let Err(Defect { key, found }) = Certificates::load(&config.ssl) {
        return (what, State::Wrong, format!("{key}: found {found}; allowed: {PEM}"));
    }
    let Some((from, until)) = fs::read(&config.ssl.certificate).ok().and_then(|pem| validity(&pem)) else {
        return (what, State::Wrong, "it does not say how long it is valid".into());
    };
    let now = u64::from(now());
    let day = |time| timestamp(time).split('T').next().unwrap_or_default().to_string();
    let advice = "renew it; goat need not be restarted";
    match (from > now, until < now, until < now + SOON * 86_400) {
        (true, ..) => (what, State::Wrong, format!("valid only from {}: {advice}", day(from))),
        (_, true, _) => (what, State::Wrong, format!("expired on {}: {advice}", day(until))),
        (.., true) => (what, State::Warning, format!("expires on {}: {advice}", day(until))),
        _ => (what, State::Good, format!("until {}", day(until))),
    }
}

/// (not before, not after) of the first certificate in a PEM file, in seconds since 1970: rustls says so where it is to
/// believe one at a time out of these.
fn validity(pem: &[u8]) -> Option<(u64, u64)> {
    let der = CertificateDer::from_pem_slice(pem).ok()?;
    let certificate = ParsedCertificate::try_from(&der).ok()?;
    let refusal = |seconds| {
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        verify_server_cert_signed_by_trust_anchor(&certificate, &RootCertStore::empty(), &[], at, &[]).err()
    };
    match (refusal(0)?, refusal(u64::MAX)?) {
        (
            Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }),
            Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }),
        ) => Some((not_before.as_secs(), not_after.as_secs())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_read_in_both_forms_of_time() {
        // Made by openssl, which says the same of them.
        let cases = [
            (
                include_str!("../../tests/data/certificates/utc-time.pem"),
                ["2026-11-23T05:17:10Z", "2027-11-23T05:17:10Z"],
            ),
            (
                include_str!("../../tests/data/certificates/generalized-time.pem"),
                ["2026-11-23T05:17:12Z", "2126-10-30T05:17:12Z"],
            ),
        ];
        for (pem, times) in cases {
            let (from, until) = validity(format!("a key before it\n{pem}").as_bytes()).unwrap();
            assert_eq!([from, until].map(timestamp), times);
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        let wrap = |text: &str| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----");
        for text in ["", "!", "AAAA", "MIIB", "MIL/////", "MAMwAQ==", "MIT/////AAAA"] {
            assert_eq!(validity(wrap(text).as_bytes()), None, "{text}");
        }
        assert_eq!(validity(b""), None);
    }
}
