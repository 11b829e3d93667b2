//! `goat file`: torrents.

use std::path::Path;

use serde_json::json;

use super::call::{Call, Done, Failure, live_since, load_torrent, now, occupied, standing, write_file};
use super::output::{List, count, done, print, show};
use crate::config::{Config, command};
use crate::log::{clean, timestamp};
use crate::protocol::{Factors, Free};
use crate::store::{Error, FILE_ORDERS, Page, SWARM_ORDERS, Store, Torrent, Which};
use crate::torrent::metainfo::Metainfo;
use crate::torrent::{self, InfoHash};

const TOO_LARGE: &str = "It is larger than 8 MiB, so it is not kept: `goat torrent` needs its file.\n";
const WHAT: &str = "FILE.torrent|HASH";

fn read(config: &Config, store: &Store, id: u32) -> Result<Torrent, Failure> {
    let mut found = None;
    store.files(Which::Ids(&[id]), &Page::ALL, Some(live_since(config)), |file| found = Some(file))?;
    found.ok_or_else(|| Failure::Failed("the torrent was removed meanwhile".into()))
}

pub fn find(config: &Config, store: &Store, text: &str) -> Result<Torrent, Failure> {
    let mut found = match text.parse::<InfoHash>() {
        Ok(hash) => store.file_by_either_hash(&hash)?.into_iter().collect(),
        Err(_) => store.find_files(text)?,
    };
    match (found.pop(), found.is_empty()) {
        (Some(file), true) => read(config, store, file.id),
        (Some(_), false) => {
            let list = command("file list");
            Err(Failure::Failed(format!(
                "{text} matches several torrents: give more digits of the hash, which `{list}` shows"
            )))
        }
        (None, _) => {
            let (add, list) = (command("file add"), command("file list"));
            let advice = format!("`{add}` registers torrents, `{list}` shows those that are");
            Err(Failure::Failed(format!("{text} is not registered: {advice}")))
        }
    }
}

struct New {
    info_hash: InfoHash,
    second: Option<InfoHash>,
    name: String,
    size: u64,
    /// What members' copies are made of; absent of a hash alone, and where it is too large to be kept.
    kept: Option<Metainfo>,
}

impl New {
    fn read(bytes: &[u8]) -> Result<New, String> {
        let torrent::Torrent { info_hash, info_hash_v2, name, size, .. } = torrent::read(bytes)?;
        let second = info_hash_v2.filter(|hash| *hash != info_hash);
        Ok(New { info_hash, second, name, size, kept: Metainfo::of(bytes)? })
    }
}

fn new(call: &Call, what: &str) -> Result<New, Failure> {
    if let Ok(info_hash) = what.parse() {
        if call.value("private").is_some() {
            return Err(call.wrong("--private is for a torrent file, not for a hash"));
        }
        return Ok(New { info_hash, second: None, name: String::new(), size: 0, kept: None });
    }
    let bytes = load_torrent(Path::new(what)).map_err(|e| {
        let message = "is neither an info hash (40 or 64 hex digits) nor a readable file";
        Failure::Failed(format!("{what} {message}: {e}"))
    })?;
    let wrong = |e: String| Failure::Failed(format!("{what}: {e}"));
    let torrent = torrent::read(&bytes).map_err(wrong)?;
    match call.value("private") {
        Some(_) if torrent.private => Err(wrong("it already has the private flag: register it as it is".into())),
        Some(out) => {
            let copy = torrent::private_copy(&bytes).map_err(wrong)?;
            let new = New::read(&copy).map_err(wrong)?;
            let out = Path::new(out);
            if !call.on("force")
                && let Some(found) = standing(out)?
                && torrent::read(&found).ok().map(|found| found.info_hash) != Some(new.info_hash)
            {
                return Err(occupied(out, "exists, and is not goat's copy of this torrent"));
            }
            write_file(out, &copy)?;
            Ok(new)
        }
        None if torrent.private || call.on("public") => New::read(&bytes).map_err(wrong),
        None => {
            let reason = "it has no private flag, so clients would find strangers through DHT and peer exchange";
            let advice = "--private OUT.torrent registers a copy with the flag, --public this one as it is";
            Err(wrong(format!("{reason}: {advice}")))
        }
    }
}

pub fn add(call: &Call) -> Done {
    if call.words(WHAT).len() > 1 && call.value("private").is_some() {
        return Err(call.wrong("--private is for one torrent at a time"));
    }
    // All are read and checked before the first is registered.
    let new: Vec<New> = call.words(WHAT).into_iter().map(|what| new(call, what)).collect::<Result<_, _>>()?;
    let (config, store) = call.open()?;
    for New { info_hash, .. } in &new {
        let here = new.iter().find(|hybrid| hybrid.second == Some(*info_hash));
        let here = here.map(|hybrid| (hybrid.info_hash, hybrid.name.clone()));
        let there = store.file_by_either_hash(info_hash)?.filter(|file| file.info_hash != *info_hash);
        if let Some((hash, name)) = here.or(there.map(|file| (file.info_hash, file.name))) {
            return Err(Failure::Failed(format!(
                "{info_hash} is the second hash of the hybrid torrent {name}, which is tracked as {hash}"
            )));
        }
    }
    let mut list = List::new(true, "");
    for New { info_hash, second, name, size, kept } in &new {
        let id = store.add_file(info_hash, second.as_ref(), name, *size)?.id;
        kept.as_ref().map(|kept| store.keep_metainfo(info_hash, 0, kept)).transpose()?;
        let file = read(&config, &store, id)?;
        call.note(&store, &label(&file));
        let large = if kept.is_none() && !name.is_empty() { TOO_LARGE } else { "" };
        let text = format!("{info_hash}  {}  registered and verified\n{large}", clean(&file.name));
        match (call.json(), new.len()) {
            (false, _) => print(&text)?,
            (true, 1) => return show(&file, "", true),
            (true, _) => list.row(&file),
        }
    }
    if call.json() { list.end() } else { Ok(()) }
}

pub fn list(call: &Call) -> Done {
    let which = match (call.on("pending"), call.on("dead")) {
        (true, _) => Which::Pending,
        (false, true) => Which::Dead,
        (false, false) => Which::All,
    };
    let (config, store) = call.open()?;
    let columns = match which {
        Which::Pending => "id infoHash size suggested suggestedBy name",
        _ => "id infoHash verified size seeders leechers completed downloadPercent lastActive createTime name",
    };
    let mut list = List::new(call.json(), columns);
    let page = call.page(FILE_ORDERS.iter().chain(&SWARM_ORDERS));
    let free = Free::unpack(store.free()?, now());
    store.files(which, &page, Some(live_since(&config)), |mut file| {
        file.improve(free);
        list.row(&file);
    })?;
    list.end()
}

pub fn show_one(call: &Call) -> Done {
    let (config, store) = call.open()?;
    let file = find(&config, &store, call.argument("HASH"))?;
    let keys = "id infoHash verified size seeders leechers completed uploadPercent downloadPercent lastActive createTime \
        suggested suggestedBy name uploaded downloaded seedTime";
    show(&file, keys, call.json())
}

pub fn approve(call: &Call) -> Done {
    let all = call.on("all");
    let (config, store) = call.open()?;
    let approved = if all {
        let approved = store.approve_pending()?;
        call.note(&store, &count(approved, "torrent"));
        approved
    } else {
        let file = find(&config, &store, call.argument("HASH"))?;
        store.set_verified(file.id, true, "")?;
        call.note(&store, &label(&file));
        u64::from(!file.verified)
    };
    done(&format!("{} approved", count(approved, "torrent")), &json!({ "approved": approved }), call.json())
}

fn label(file: &Torrent) -> String {
    if file.name.is_empty() { file.info_hash.to_string() } else { file.name.clone() }
}

/// Does something to the torrent that a command names, and says what it is then: after its name, `said`.
fn change(call: &Call, change: impl FnOnce(&Store, u32) -> Result<(), Error>, said: &str) -> Done {
    let (config, store) = call.open()?;
    let file = find(&config, &store, call.argument("HASH"))?;
    let id = file.id;
    change(&store, id)?;
    call.note(&store, &label(&file));
    let file = read(&config, &store, id)?;
    done(&format!("{}  {}  {said}", file.info_hash, clean(&file.name)), &file, call.json())
}

pub fn revoke(call: &Call) -> Done {
    let reason = call.value("reason").unwrap_or_default();
    change(call, |store, id| store.set_verified(id, false, reason), "is no longer verified")
}

pub fn rename(call: &Call) -> Done {
    change(call, |store, id| store.rename_file(id, call.argument("NEW")), "is its new name")
}

pub fn free(call: &Call) -> Done {
    let download = call.get("download").unwrap_or(0);
    let upload = call.get("upload").unwrap_or(100);
    let said = format!("credits {download} % of downloads, {upload} % of uploads");
    if let Some(hours) = call.get::<u32>("all") {
        let (_, store) = call.open()?;
        let until = now().saturating_add(hours.saturating_mul(3_600));
        let free = Free { factors: Factors { upload, download }, until };
        store.set_free(free)?;
        call.note(&store, "all torrents");
        let text = match hours {
            0 => "Each torrent is credited as it says itself".into(),
            _ => format!(
                "Until {} every torrent {said}, if it does not credit better itself",
                timestamp(free.until.into())
            ),
        };
        return done(&text, &free, call.json());
    }
    change(call, |store, id| store.set_factors(id, Factors { upload, download }), &said)
}

pub fn remove(call: &Call) -> Done {
    let (pending, by) = (call.on("pending"), call.value("by"));
    let (config, store) = call.open()?;
    if pending {
        let by = by.map(|name| super::user::find(&config, &store, name)).transpose()?;
        let removed = store.remove_pending(by.map(|user| user.id))?;
        let text = format!("{} removed", count(removed, "torrent"));
        call.note(&store, &count(removed, "torrent"));
        return done(&text, &json!({ "removed": removed }), call.json());
    }
    let file = find(&config, &store, call.argument("HASH"))?;
    store.remove_file(file.id)?;
    call.note(&store, &label(&file));
    done(&format!("{}  {}  is removed", file.info_hash, clean(&file.name)), &file, call.json())
}
