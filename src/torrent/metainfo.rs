//! What goat keeps of a torrent file, to make members' copies of it and to say what is in it.

use ring::digest;
use serde::Serialize;

use crate::torrent::bencode::{self, Value};
use crate::torrent::{InfoHash, file_size, has_attribute, name, text, walk, with_urls};

pub(crate) const MAX_KEPT: usize = 8 << 20;
/// The most bytes of the paths of a torrent's files: in a file tree (BEP 52) one long folder has many files.
const MAX_PATHS: usize = 32 << 20;

/// A torrent without what differs from copy to copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Metainfo {
    /// The info dictionary, to the byte.
    pub info: Vec<u8>,
    /// What stands under "piece layers" (BEP 52), in bencode.
    pub layers: Option<Vec<u8>>,
    pub files: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct File {
    /// Below the folder that is called like the torrent, with slashes.
    pub path: String,
    /// Bytes.
    pub size: u64,
}

impl Metainfo {
    /// What is kept of a torrent file that [`super::read`] accepts; `None` where that is too large.
    pub(crate) fn of(file: &[u8]) -> Result<Option<Metainfo>, String> {
        let entries = bencode::entries(file)?;
        let value = |key: &[u8]| entries.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        let (info, layers) = (value(b"info").unwrap_or_default(), value(b"piece layers"));
        if info.len().saturating_add(layers.map_or(0, <[u8]>::len)) > MAX_KEPT {
            return Ok(None);
        }
        let files = u32::try_from(files(info)?.len()).unwrap_or(u32::MAX);
        Ok(Some(Metainfo { info: info.to_vec(), layers: layers.map(<[u8]>::to_vec), files }))
    }

    pub(crate) fn copy_for(&self, urls: &[String]) -> Vec<u8> {
        let layers = self.layers.as_deref().map(|layers| (&b"piece layers"[..], layers));
        with_urls([(&b"info"[..], self.info.as_slice())].into_iter().chain(layers).collect(), urls)
    }

    /// Whether this is the torrent with an info hash, v1 or v2.
    pub(crate) fn is(&self, info_hash: &InfoHash) -> bool {
        let algorithms = [&digest::SHA1_FOR_LEGACY_USE_ONLY, &digest::SHA256];
        algorithms.iter().any(|algorithm| digest::digest(algorithm, &self.info).as_ref().starts_with(&info_hash.0))
    }
}

/// The files of an info dictionary that [`super::read`] accepts, in its order, without padding (BEP 47).
pub(crate) fn files(info: &[u8]) -> Result<Vec<File>, String> {
    let info = bencode::parse(info)?;
    let (mut found, mut room) = (Vec::new(), MAX_PATHS);
    let mut add = |path: &[&[u8]], file: &Value| {
        let path = path.iter().map(|part| text(part)).collect::<Vec<_>>().join("/");
        room = room.checked_sub(path.len()).ok_or("not a torrent: the paths of its files are too long")?;
        let size = file_size(file).ok().filter(|_| !has_attribute(file, b'p'));
        found.extend(size.map(|size| File { path, size }));
        Ok(())
    };
    match (info.get(b"files"), info.get(b"file tree")) {
        (Some(Value::List(files)), _) => {
            for file in files {
                let parts = match file.get(b"path.utf-8").or(file.get(b"path")) {
                    Some(Value::List(parts)) => &parts[..],
                    _ => &[],
                };
                add(&parts.iter().filter_map(Value::as_bytes).collect::<Vec<_>>(), file)?;
            }
        }
        (_, Some(tree)) if info.get(b"length").is_none() => walk(tree, &mut Vec::new(), &mut add)?,
        _ => add(&[name(&info).unwrap_or_default()], &info)?,
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torrent::read;

    fn listed(info: &str) -> Vec<(String, u64)> {
        files(info.as_bytes()).unwrap().into_iter().map(|file| (file.path, file.size)).collect()
    }

    #[test]
    fn files_are_listed_with_their_paths_and_without_padding() {
        let tail = "4:name1:n12:piece lengthi16384e6:pieces0:e";
        assert_eq!(listed(&format!("d6:lengthi7e{tail}")), [("n".into(), 7)]);
        let many = "d5:filesld6:lengthi1e4:pathl1:a1:beed4:attr1:p6:lengthi2e4:pathl1:peed6:lengthi3e4:pathl1:\neee";
        assert_eq!(listed(&format!("{many}{tail}")), [("a/b".into(), 1), ("\u{fffd}".into(), 3)]);
        let tree = "d9:file treed1:ad1:bd0:d6:lengthi4eeee1:cd0:d6:lengthi5eeee12:meta versioni2e4:name1:n12:piece lengthi16384ee";
        assert_eq!(listed(tree), [("a/b".into(), 4), ("c".into(), 5)]);
        let links =
            "d5:filesld4:attr1:l6:lengthi9e4:pathl1:aeed4:attr1:l4:pathl1:beed4:attr1:p6:lengthi2e4:pathl1:peee";
        assert_eq!(listed(&format!("{links}{tail}")), [("a".into(), 0), ("b".into(), 0)], "symbolic links");
    }

    #[test]
    fn many_files_in_one_folder_with_a_long_name_take_bounded_memory() {
        let many = |count: usize| {
            let (folder, file) = ("x".repeat(4 << 20), |n| format!("4:{n:04}d0:d6:lengthi1eee"));
            let tree = (0..count).map(file).collect::<String>();
            files(format!("d9:file treed{}:{folder}d{tree}eee", folder.len()).as_bytes()).map(|files| files.len())
        };
        assert_eq!(many(7), Ok(7));
        assert_eq!(many(8), Err("not a torrent: the paths of its files are too long".into()));
    }

    #[test]
    fn what_is_kept_makes_the_same_copies_as_the_file_of_another_program() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/torrents");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|end| end != "torrent") {
                continue;
            }
            seen += 1;
            let file = std::fs::read(&path).unwrap();
            let kept = Metainfo::of(&file).unwrap().unwrap();
            let copy = kept.copy_for(&["http://goat/announce".into()]);
            let (before, after) = (read(&file).unwrap(), read(&copy).unwrap());
            assert_eq!(before, after, "{}", path.display());
            assert!(kept.is(&before.info_hash) && !kept.is(&InfoHash([7; 20])), "{}", path.display());
            assert_eq!(Metainfo::of(&copy).unwrap().unwrap(), kept, "{}", path.display());
            let sizes = files(&kept.info).unwrap().iter().map(|file| file.size).sum::<u64>();
            assert_eq!(
                (sizes, kept.layers.is_some()),
                (before.size, before.info_hash_v2.is_some()),
                "{}",
                path.display()
            );
        }
        assert_eq!(seen, 9);
    }

    #[test]
    fn what_is_larger_than_8_mib_is_not_kept() {
        let file = |pieces: usize| {
            let pieces = [format!("{pieces}:").into_bytes(), vec![b'x'; pieces]].concat();
            [&b"d4:infod6:lengthi1e4:name1:n12:piece lengthi16384e6:pieces"[..], &pieces, b"ee"].concat()
        };
        let kept = Metainfo::of(&file(20)).unwrap().unwrap().info.len();
        // Six digits more say how long the pieces are.
        let most = MAX_KEPT - (kept - 20) - 5;
        assert!(Metainfo::of(&file(most)).unwrap().is_some());
        assert!(Metainfo::of(&file(most + 1)).unwrap().is_none());
    }
}
