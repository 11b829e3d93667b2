//! The torrents themselves, where goat was given a file.

use super::pool::Store;
use super::sql::{Error, Value, big};
use crate::torrent::InfoHash;
use crate::torrent::metainfo::Metainfo;

impl Store {
    /// Keeps a torrent that is registered, given by a member or, as 0, by an operator. What is there already stays,
    /// unless it is another torrent's.
    pub(crate) fn keep_metainfo(&self, info_hash: &InfoHash, by: u32, kept: &Metainfo) -> Result<(), Error> {
        let Some((id, found)) = self.file_and_metainfo("info_hash = ?", Value::Text(&info_hash.to_string()))? else {
            return Ok(());
        };
        if found.is_some() {
            return Ok(());
        }
        let layers = kept.layers.as_deref().map_or(Value::Null, Value::Blob);
        let values = [id.into(), by.into(), kept.files.into(), layers, Value::Blob(&kept.info)];
        self.transaction(|c| {
            c.execute("DELETE FROM torrents WHERE file_id = ?", &[id.into()])?;
            let sql = "INSERT INTO torrents (file_id, user_id, files, layers, info) VALUES (?, ?, ?, ?, ?)";
            c.execute(sql, &values).map(drop)
        })
    }

    /// Says of a torrent what its file says, where only its hash was known. What was taken for a torrent by the other hash
    /// of a hybrid is removed, unless it was refused; if it was approved, so is the torrent.
    pub(crate) fn describe_file(
        &self,
        info_hash: &InfoHash,
        second: Option<&InfoHash>,
        name: &str,
        size: u64,
    ) -> Result<(), Error> {
        let hash = info_hash.to_string();
        let second = second.map(InfoHash::to_string);
        let name: String = name.chars().take(255).collect();
        self.transaction(|c| {
            let hash = Value::Text(&hash);
            let sql = "UPDATE files SET name = ?, size = ? WHERE info_hash = ? AND name = ''";
            c.execute(sql, &[Value::Text(&name), big(size), hash])?;
            let Some(second) = second.as_deref().map(Value::Text) else { return Ok(()) };
            c.execute("UPDATE files SET info_hash_v2 = ? WHERE info_hash = ?", &[second, hash])?;
            if c.execute("DELETE FROM files WHERE info_hash = ? AND verified = 1", &[second])? > 0 {
                let sql = "UPDATE files SET verified = 1, suggested = 0 WHERE info_hash = ? AND verified = 0";
                c.execute(sql, &[hash])?;
            }
            c.execute("DELETE FROM files WHERE info_hash = ? AND suggested >= 0", &[second]).map(drop)
        })
    }

    /// Who gave a torrent that is kept; 0 for an operator.
    pub(crate) fn uploader(&self, id: u32) -> Result<Option<u32>, Error> {
        self.row("SELECT user_id FROM torrents WHERE file_id = ?", &[id.into()])
    }

    /// The torrent with an id, if it is kept.
    pub(crate) fn metainfo(&self, id: u32) -> Result<Option<Metainfo>, Error> {
        Ok(self.file_and_metainfo("id = ?", id.into())?.and_then(|(_, kept)| kept))
    }

    /// A torrent's id, and what is kept of it: only what has its hash, whatever others have written there.
    fn file_and_metainfo(&self, whose: &str, key: Value) -> Result<Option<(u32, Option<Metainfo>)>, Error> {
        let sql = format!(
            "SELECT id, info_hash, files, layers, info FROM files LEFT JOIN torrents ON file_id = id WHERE {whose}"
        );
        let mut found = None;
        self.with(|c| {
            c.query(&sql, &[key], &mut |row| {
                let [id, info_hash, files, layers, info, ..] = row else { return };
                let layers = Some(layers.bytes().to_vec()).filter(|layers| !layers.is_empty());
                let kept = Metainfo { info: info.bytes().to_vec(), layers, files: files.small() };
                let own = info_hash.text().parse().is_ok_and(|hash| kept.is(&hash));
                found = Some((id.small(), own.then_some(kept)));
            })
        })?;
        Ok(found)
    }
}
