//! Torrents by themselves: the copies that members fetch, and the torrents that they send.

use std::borrow::Cow;
use std::io::Read;
use std::sync::Mutex;

use serde_json::json;

use super::Call;
use super::admin::note;
use crate::log::{clean, log};
use crate::net::http::ReadWrite;
use crate::net::message::Request;
use crate::rules::limits::sharer;
use crate::store::{self, MAX_PENDING_BY_ONE, Suggestion};
use crate::sync::lock;
use crate::torrent::metainfo::{File, Metainfo, files};
use crate::torrent::{self, InfoHash, Torrent};
use crate::tracker::announce_urls;
use crate::web::answer::{Answer, Failure};
use crate::web::query::encoded;

/// The most files of a torrent that are listed.
const MAX_FILES: usize = 1_000;
/// Held while a torrent is taken apart, for that may take some 50 MB.
static READING: Mutex<()> = Mutex::new(());

impl Call<'_> {
    /// The member's own copy of a torrent.
    pub(super) fn copy(&self, id: u32) -> Result<Answer, Failure> {
        let file = self.visible(id)?;
        let unknown =
            || Failure(404, "Only the hash of this torrent is known here: ask an administrator for it".into());
        let kept = self.tracker.store.metainfo(id)?.ok_or_else(unknown)?;
        let body = kept.copy_for(&announce_urls(&self.tracker.config, &self.user.passkey));
        // Has a browser save it under this name (RFC 6266 and 8187).
        let name = format!("attachment; filename*=UTF-8''{}.torrent", encoded(&file.name));
        let header = Some(("Content-Disposition", name));
        Ok(Answer { header, ..Answer::of("application/x-bittorrent", body) })
    }

    /// The files of a torrent, as far as they are known and listed.
    pub(super) fn contents(&self, id: u32) -> Result<Option<Vec<File>>, Failure> {
        let kept = self.tracker.store.metainfo(id)?;
        let _turn = lock(&READING);
        let found = kept.and_then(|kept| files(&kept.info).ok());
        Ok(found.map(|files| files.into_iter().take(MAX_FILES).collect()))
    }

    /// Registers the torrent that a member sends.
    pub(super) fn upload(&self, request: &Request, stream: &mut dyn ReadWrite) -> Result<Answer, Failure> {
        let who = sharer(&self.tracker.config, request.client(self.tracker));
        let full = |_| Failure(503, "Too many torrents are being sent: try again in a minute".into());
        let _room = self.tracker.limits.uploads.acquire(who, request.length).map_err(full)?;
        let sent = receive(request, stream)?;
        let turn = lock(&READING);
        let wrong = |why| Failure(400, format!("This is {why}"));
        let changed = !torrent::read_small(&sent).map_err(wrong)?.private;
        let file =
            if changed { Cow::Owned(torrent::private_copy(&sent).map_err(wrong)?) } else { Cow::Borrowed(&sent) };
        let torrent = torrent::read_small(&file).map_err(wrong)?;
        let large = || Failure(413, "A torrent may have 8 MiB".into());
        let kept = Metainfo::of(&file).map_err(wrong)?.ok_or_else(large)?;
        drop(turn);
        let (row, new) = self.register(&torrent, &kept)?;
        if self.user.admin {
            note(self.tracker, &self.user.name, "file add", &row.name, "");
        }
        // Where it is changed, the member has to fetch a copy: its hash is another now.
        let store::Torrent { id, info_hash, name, size, verified, .. } = row;
        Answer::json(&json!({
            "id": id, "infoHash": info_hash, "name": name, "size": size, "verified": verified, "new": new, "changed": changed
        }))
    }

    /// Registers a torrent, or finds it; returns whether it is new.
    fn register(&self, torrent: &Torrent, kept: &Metainfo) -> Result<(store::Torrent, bool), Failure> {
        let store = &self.tracker.store;
        let info_hash = &torrent.info_hash;
        let second = torrent.info_hash_v2.filter(|hash| hash != info_hash);
        let find = || match (store.file_by_either_hash(info_hash)?, second) {
            (None, Some(second)) => store.file_by_either_hash(&second),
            (found, _) => Ok(found),
        };
        let gone = || Failure(409, "The torrent was removed meanwhile: send it again".into());
        let found = find()?;
        let new = found.is_none();
        // Of a hybrid, the other hash may be known alone.
        let known = found.as_ref().map_or(*info_hash, |file| file.info_hash);
        if self.user.admin {
            store.add_file(info_hash, second.as_ref(), &torrent.name, torrent.size)?;
        } else if let Some(refused) = found.filter(|file| file.refused) {
            let reason = refused.refusal.map_or(String::new(), |reason| format!(": {reason}"));
            return Err(Failure(403, format!("An administrator has refused this torrent{reason}")));
        } else {
            if new {
                self.suggest(info_hash)?;
            }
            let second = if known == *info_hash { second } else { Some(*info_hash) };
            store.describe_file(&known, second.as_ref(), &torrent.name, torrent.size)?;
            if new && self.tracker.config.verified {
                let (name, who) = (clean(&torrent.name), clean(&self.user.name));
                log(format!("{who} has sent the torrent {name}: to approve it, `goat file approve {info_hash}`"));
            }
        }
        let row = find()?.ok_or_else(gone)?;
        store.keep_metainfo(&row.info_hash, self.user.id, kept)?;
        Ok((row, new))
    }

    /// Registers a hash that waits for approval, if somebody is to approve it.
    fn suggest(&self, info_hash: &InfoHash) -> Result<(), Failure> {
        let (store, id) = (&self.tracker.store, self.user.id);
        if !self.tracker.config.verified {
            let many = || Failure(429, "You have registered too many torrents within this hour".into());
            self.tracker.access.may_register(id, self.now).then_some(()).ok_or_else(many)?;
            return Ok(store.register(info_hash, id, self.now)?);
        }
        let made = store.suggest(&[(Suggestion::Torrent(*info_hash), id)], self.now)?;
        if made.is_empty() && store.file_by_hash(info_hash)?.is_none() {
            let many = format!("{MAX_PENDING_BY_ONE} of your torrents, or too many in all, wait for approval already");
            return Err(Failure(429, many));
        }
        Ok(())
    }
}

/// The body of a request.
fn receive(request: &Request, stream: &mut dyn ReadWrite) -> Result<Vec<u8>, Failure> {
    let late = |_| Failure(408, "The torrent was not whole after a minute".into());
    let mut sent = Vec::with_capacity(request.length);
    sent.extend_from_slice(request.begun);
    let lacking = request.length.saturating_sub(sent.len()) as u64;
    if lacking > 0 && request.expects_to_continue() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(late)?;
    }
    stream.take(lacking).read_to_end(&mut sent).map_err(late)?;
    match sent.len() {
        0 => Err(Failure(400, "Send a torrent as the body of the request".into())),
        length if length < request.length => Err(Failure(400, "The connection ended before the torrent".into())),
        _ => Ok(sent),
    }
}
