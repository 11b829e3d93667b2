//! `goat torrent`: members' copies of a torrent.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::call::{Call, Done, Failure, write_file};
use super::output::print;
use super::{file, user};
use crate::torrent;
use crate::tracker::announce_urls;

pub fn copy(call: &Call) -> Done {
    let (name, out, folder) = (call.value("for"), call.value("out"), call.value("for-all"));
    let one = name.zip(out);
    let source = call.argument("FILE.torrent");
    let wrong = |e: String| Failure::Failed(format!("{source}: {e}"));
    let bytes = file::load(source).map_err(wrong)?;
    let info_hash = torrent::read(&bytes).map_err(wrong)?.info_hash;
    let (config, store) = call.open()?;
    let write = |passkey: &str, out: &Path| {
        let copy = torrent::copy_for(&bytes, &announce_urls(&config, passkey)).map_err(wrong)?;
        write_file(out, &copy)
    };
    if let Some((name, out)) = one {
        let user = user::find(&config, &store, name)?;
        write(&store.passkey(user.id)?, Path::new(out))?;
    } else {
        let folder = PathBuf::from(folder.unwrap_or_default());
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(|e| Failure::Failed(format!("cannot make the folder {}: {e}", folder.display())))?;
        let members = store.passkeys()?;
        for (id, name, passkey) in &members {
            write(passkey, &folder.join(file_name(*id, name)))?;
        }
        let copies = if members.len() == 1 { "copy" } else { "copies" };
        print(&format!("{} {copies} in {}\n", members.len(), folder.display()))?;
    }
    match store.file_by_hash(&info_hash)? {
        Some(_) => Ok(()),
        None => print(&format!("{info_hash} is not registered yet: goat file add {source}\n")),
    }
}

/// The file of a member's copy. No two members have the same, and no name leads out of the folder.
fn file_name(id: u32, name: &str) -> String {
    let escaped = name.replace('%', "%25").replace('/', "%2F");
    let escaped = escaped.strip_prefix('.').map_or(escaped.clone(), |rest| format!("%2E{rest}"));
    // A file name has 255 bytes at most.
    let name = if escaped.len() <= 200 { escaped } else { format!("%id-{id}") };
    format!("{name}.torrent")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_of_a_member_leads_out_of_the_folder_or_to_another_members_file() {
        let long = "\u{1f431}".repeat(64);
        let names = ["anna", "..", ".", "../x", "/etc/x", "%2E.", "%2F", "a/b", "a%2Fb", &long, "%id-11"];
        let files: Vec<String> = names.iter().zip(1..).map(|(name, id)| file_name(id, name)).collect();
        assert_eq!(files[0], "anna.torrent");
        for (at, file) in files.iter().enumerate() {
            assert!(!file.contains('/') && !file.starts_with('.') && file.len() <= 255, "{file}");
            assert!(!files[..at].contains(file), "{file}");
        }
    }
}
