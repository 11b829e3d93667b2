//! `goat torrent`: members' copies of a torrent.

use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::call::{Call, Done, Failure, is_same, load_torrent, occupied, standing, write_file};
use super::output::{print, show};
use super::user;
use crate::config::{Config, command, quoted};
use crate::store::{Page, Store, Who};
use crate::torrent::{self, InfoHash, Torrent};
use crate::tracker::announce_urls;

pub fn copy(call: &Call) -> Done {
    let out = call.value("out");
    if out == Some("-") && call.json() {
        return Err(call.wrong("--out - and --json cannot be combined"));
    }
    let source = call.argument("FILE.torrent|HASH");
    let wrong = |e: String| format!("{source}: {e}");
    let path = Path::new(source);
    let file = path.exists().then(|| load_torrent(path)).transpose().map_err(|e| wrong(e.to_string()))?;
    file.as_deref().map(torrent::read).transpose().map_err(wrong)?;
    let (config, store) = call.open()?;
    let bytes = file.map_or_else(|| kept(&config, &store, source), Ok)?;
    let torrent = torrent::read(&bytes).map_err(wrong)?;
    let made = |passkey: &str| torrent::copy_for(&bytes, &announce_urls(&config, passkey)).map_err(wrong);
    // The member's passkey, and where it goes.
    let mut copies: Vec<(String, PathBuf)> = Vec::new();
    let to_stdout = out == Some("-");
    if let Some(folder) = call.value("for-all") {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|e| format!("cannot make the folder {folder}: {e}"))?;
        store.users(Who::Everybody, &Page::ALL, None, |user| {
            if !user.banned {
                copies.push((user.passkey, Path::new(folder).join(file_name(&torrent, user.id, &user.name))));
            }
        })?;
    } else {
        let user = user::find(&config, &store, call.value("for").unwrap_or_default())?;
        let path = out.map_or_else(|| file_name(&torrent, user.id, &user.name).into(), PathBuf::from);
        copies.push((user.passkey, path));
    }
    // All are checked before the first is written.
    for (_, path) in copies.iter().filter(|_| !to_stdout && !call.on("force")) {
        // A name that goat has made up may be that of another torrent, too.
        may_replace(&config, Path::new(source), path, out.is_none().then_some(torrent.info_hash))?;
    }
    for (passkey, path) in &copies {
        if to_stdout { print(made(passkey)?)? } else { write_file(path, &made(passkey)?)? }
    }
    let registered = store.file_by_hash(&torrent.info_hash)?.is_some();
    let add = command(&format!("file add {}", quoted(source)));
    let advice = format!("{} is not registered yet: {add}\n", torrent.info_hash);
    let advice = if registered { "" } else { &advice };
    if to_stdout {
        return Ok(io::stderr().write_all(advice.as_bytes())?);
    }
    let paths: Vec<String> = copies.iter().map(|(_, path)| path.display().to_string()).collect();
    if call.json() {
        let shown = json!({ "infoHash": torrent.info_hash, "registered": registered, "copies": paths });
        return show(&shown, "", true);
    }
    let said = match (call.value("for-all"), out) {
        (Some(folder), _) if paths.len() == 1 => format!("1 copy in {folder}\n"),
        (Some(folder), _) => format!("{} copies in {folder}\n", paths.len()),
        (None, None) => format!("{}\n", paths.concat()),
        (None, Some(_)) => String::new(),
    };
    print(said + advice)
}

fn kept(config: &Config, store: &Store, name: &str) -> Result<Vec<u8>, Failure> {
    let file = super::file::find(config, store, name).map_err(|e| match e {
        Failure::Failed(why) => format!("there is no file {name}, and {why}").into(),
        other => other,
    })?;
    let advice = "of this torrent goat has the hash alone: name its file, or register that with `goat file add`";
    let kept = store.metainfo(file.id)?.ok_or_else(|| format!("{name}: {advice}"))?;
    Ok(kept.copy_for(&[]))
}

/// Refuses to write over what goat cannot have written.
fn may_replace(config: &Config, source: &Path, path: &Path, only: Option<InfoHash>) -> Done {
    let Some(found) = standing(path)? else { return Ok(()) };
    match copy_of(config, &found) {
        _ if is_same(source, path) => Err(occupied(path, "is the torrent to be copied")),
        None => Err(occupied(path, "exists, and is not a copy that goat has made")),
        Some(hash) if only.is_some_and(|only| only != hash) => Err(occupied(path, "is a copy of another torrent")),
        Some(_) => Ok(()),
    }
}

/// The torrent of which these bytes are just what goat writes for some passkey.
fn copy_of(config: &Config, bytes: &[u8]) -> Option<InfoHash> {
    const PASSKEY: &str = "PASSKEY";
    let url = announce_urls(config, PASSKEY).into_iter().next()?;
    let passkey = match url.rsplit_once(PASSKEY) {
        Some((head, _)) => {
            let at = bytes.windows(head.len()).position(|part| part == head.as_bytes())?;
            bytes.get(at..)?.get(head.len()..)?.split(|byte| *byte == b'/').next()?
        }
        None => b"", // Nobody needs one.
    };
    let copy = torrent::copy_for(bytes, &announce_urls(config, str::from_utf8(passkey).ok()?)).ok()?;
    if copy == bytes { Some(torrent::read(bytes).ok()?.info_hash) } else { None }
}

/// The file of a member's copy. No two members have the same, and no name leads out of the folder.
fn file_name(torrent: &Torrent, id: u32, member: &str) -> String {
    // A file name has 255 bytes at most.
    let part = |name: &str, most: usize, instead: String| {
        let escaped = escape(name);
        if escaped.len() <= most { escaped } else { instead }
    };
    let title = part(&torrent.name, 130, format!("%hash-{}", torrent.info_hash));
    format!("{title}@{}.torrent", part(member, 110, format!("%id-{id}")))
}

/// A part of a file name, with what has a meaning there as in a URL.
fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for (at, c) in name.char_indices() {
        if "%/@".contains(c) || c.is_control() || at == 0 && ".-".contains(c) {
            escaped.extend(c.to_string().bytes().map(|byte| format!("%{byte:02X}")));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_leads_out_of_the_folder_or_to_the_file_of_another_member_or_torrent() {
        let long = "\u{1f431}".repeat(64);
        let names =
            ["anna", "..", ".", "../x", "/etc/x", "%2E.", "%2F", "a/b", "a%2Fb", "a@b", "-x", "\n", &long, "%id-11"];
        let mut files: Vec<String> = Vec::new();
        for (at, torrent) in names.iter().enumerate() {
            let bytes =
                [format!("d4:infod6:lengthi1e4:name{}:", torrent.len()).as_bytes(), torrent.as_bytes()].concat();
            let bytes = [&bytes[..], b"12:piece lengthi16384e6:pieces20:aaaaaaaaaaaaaaaaaaaaee"].concat();
            let torrent = torrent::read(&bytes).unwrap();
            files.extend(names.iter().zip(1..).map(|(name, id)| file_name(&torrent, id, name)));
            assert_eq!(files.len(), (at + 1) * names.len());
        }
        assert_eq!(files[0], "anna@anna.torrent");
        for (at, file) in files.iter().enumerate() {
            assert!(!file.contains(['/', '\n']) && !file.starts_with(['.', '-']) && file.len() <= 255, "{file}");
            assert!(!files[..at].contains(file), "{file}");
        }
    }
}
