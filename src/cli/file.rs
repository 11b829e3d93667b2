//! `goat file`: torrents.

use std::path::Path;

use serde_json::json;

use super::call::{Call, Done, Failure, live_since, load_torrent, now, occupied, standing, write_file};
use super::output::{count, done, print, show, show_all};
use crate::config::{Config, command};
use crate::log::{clean, timestamp};
use crate::protocol::{Factors, Free};
use crate::store::{Error, FILE_ORDERS, Page, SWARM_ORDERS, Store, Torrent, Which};
use crate::torrent::metainfo::Metainfo;
use crate::torrent::{self, InfoHash};

const TOO_LARGE: &str = "It is larger than 8 MiB, so it is not kept: `goat torrent` needs its file.\n";
const WHAT: &str = "FILE.torrent|HASH";

fn read(config: &Config, store: &Store, id: u32) -> Result<Option<Torrent>, Error> {
    let mut found = None;
    store.files(Which::Ids(&[id]), &Page::ALL, Some(live_since(config)), |file| found = Some(file))?;
    Ok(found)
}

pub fn find(config: &Config, store: &Store, text: &str) -> Result<Torrent, Failure> {
    let mut found = match text.parse::<InfoHash>() {
        Ok(hash) => store.file_by_either_hash(&hash)?.into_iter().collect(),
        Err(_) => store.find_files(text)?,
    };
    let file = found.pop().map(|file| read(config, store, file.id)).transpose()?.flatten();
    let (add, list) = (command("file add"), command("file list"));
    if !found.is_empty() {
        let advice = format!("give more digits of the hash, which `{list}` shows");
        return Err(format!("{text} matches several torrents: {advice}").into());
    }
    let advice = format!("`{add}` registers torrents, `{list}` shows those that are");
    Ok(file.ok_or_else(|| format!("{text} is not registered: {advice}"))?)
}

/// Opens the database, and finds the torrent that a command names.
fn named(call: &Call) -> Result<(Config, Store, Torrent), Failure> {
    let (config, store) = call.open()?;
    let file = find(&config, &store, call.argument("HASH"))?;
    Ok((config, store, file))
}

#[derive(Default)]
struct New {
    info_hash: InfoHash,
    second: Option<InfoHash>,
    name: String,
    size: u64,
    /// What members' copies are made of; absent of a hash alone, and where it is too large to be kept.
    kept: Option<Metainfo>,
}

fn new(call: &Call, what: &str) -> Result<New, Failure> {
    let copied_to = call.value("private").map(Path::new);
    if let Ok(info_hash) = what.parse() {
        return match copied_to {
            Some(_) => Err(call.wrong("--private is for a torrent file, not for a hash")),
            None => Ok(New { info_hash, ..New::default() }),
        };
    }
    let message = "is neither an info hash (40 or 64 hex digits) nor a readable file";
    let mut bytes = load_torrent(Path::new(what)).map_err(|e| format!("{what} {message}: {e}"))?;
    let wrong = |e: String| format!("{what}: {e}");
    match (torrent::read(&bytes).map_err(wrong)?.private, copied_to) {
        (true, Some(_)) => return Err(wrong("it already has the private flag: register it as it is".into()).into()),
        (false, Some(_)) => bytes = torrent::private_copy(&bytes).map_err(wrong)?,
        (false, None) if !call.on("public") => {
            let reason = "it has no private flag, so clients would find strangers through DHT and peer exchange";
            let advice = "--private OUT.torrent registers a copy with the flag, --public this one as it is";
            return Err(wrong(format!("{reason}: {advice}")).into());
        }
        (_, None) => {}
    }
    let torrent::Torrent { info_hash, info_hash_v2, name, size, .. } = torrent::read(&bytes).map_err(wrong)?;
    if let Some(out) = copied_to {
        if !call.on("force")
            && let Some(found) = standing(out)?
            && torrent::read(&found).ok().map(|found| found.info_hash) != Some(info_hash)
        {
            return Err(occupied(out, "exists, and is not goat's copy of this torrent"));
        }
        write_file(out, &bytes)?;
    }
    let second = info_hash_v2.filter(|hash| *hash != info_hash);
    Ok(New { info_hash, second, name, size, kept: Metainfo::of(&bytes).map_err(wrong)? })
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
            let whose = format!("the hybrid torrent {name}, which is tracked as {hash}");
            return Err(format!("{info_hash} is the second hash of {whose}").into());
        }
    }
    let mut added = Vec::new();
    for New { info_hash, second, name, size, kept } in &new {
        let id = store.add_file(info_hash, second.as_ref(), name, *size)?.id;
        kept.as_ref().map(|kept| store.keep_metainfo(info_hash, 0, kept)).transpose()?;
        let file = read(&config, &store, id)?.ok_or("the torrent was removed meanwhile")?;
        call.note(&store, &label(&file));
        if !call.json() {
            let large = if kept.is_none() && !name.is_empty() { TOO_LARGE } else { "" };
            print(format!("{info_hash}  {}  registered and verified\n{large}", clean(&file.name)))?;
        }
        added.push(file);
    }
    match &added[..] {
        _ if !call.json() => Ok(()),
        [file] => show(file, "", true),
        files => show_all(files, "", true),
    }
}

pub fn list(call: &Call) -> Done {
    let (config, store) = call.open()?;
    let usual = "id infoHash verified size seeders leechers completed downloadPercent lastActive createTime name";
    let (which, columns) = match (call.on("pending"), call.on("dead")) {
        (true, _) => (Which::Pending, "id infoHash size suggested suggestedBy name"),
        (_, true) => (Which::Dead, usual),
        _ => (Which::All, usual),
    };
    let page = call.page(FILE_ORDERS.iter().chain(&SWARM_ORDERS));
    let free = Free::unpack(store.free()?, now());
    let mut files = Vec::new();
    store.files(which, &page, Some(live_since(&config)), |mut file| {
        file.improve(free);
        files.push(file);
    })?;
    show_all(&files, columns, call.json())
}

pub fn show_one(call: &Call) -> Done {
    let (_, _, file) = named(call)?;
    let keys = "id infoHash verified size seeders leechers completed uploadPercent downloadPercent lastActive createTime \
        suggested suggestedBy name uploaded downloaded seedTime";
    show(&file, keys, call.json())
}

pub fn approve(call: &Call) -> Done {
    let approved = if call.on("all") {
        let (_, store) = call.open()?;
        let approved = store.approve_pending()?;
        call.note(&store, &count(approved, "torrent"));
        approved
    } else {
        let (_, store, file) = named(call)?;
        store.set_verified(file.id, true, "")?;
        call.note(&store, &label(&file));
        u64::from(!file.verified)
    };
    done(&format!("{} approved", count(approved, "torrent")), &json!({ "approved": approved }), call.json())
}

fn label(file: &Torrent) -> String {
    if file.name.is_empty() { file.info_hash.to_string() } else { file.name.clone() }
}

/// Does something to the torrent that a command names, and says what it is then, or was if it is gone: after its name,
/// `said`.
fn change(call: &Call, change: impl FnOnce(&Store, u32) -> Result<(), Error>, said: &str) -> Done {
    let (config, store, before) = named(call)?;
    change(&store, before.id)?;
    call.note(&store, &label(&before));
    let file = read(&config, &store, before.id)?.unwrap_or(before);
    done(&format!("{}  {}  {said}", file.info_hash, clean(&file.name)), &file, call.json())
}

pub fn revoke(call: &Call) -> Done {
    change(call, |store, id| store.set_verified(id, false, call.argument("reason")), "is no longer verified")
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
        let end = timestamp(until.into());
        let text = match hours {
            0 => "Each torrent is credited as it says itself".into(),
            _ => format!("Until {end} every torrent {said}, if it does not credit better itself"),
        };
        return done(&text, &free, call.json());
    }
    change(call, |store, id| store.set_factors(id, Factors { upload, download }), &said)
}

pub fn remove(call: &Call) -> Done {
    if !call.on("pending") {
        return change(call, Store::remove_file, "is removed");
    }
    let (config, store) = call.open()?;
    let by = call.value("by").map(|name| super::user::find(&config, &store, name)).transpose()?;
    let removed = store.remove_pending(by.map(|user| user.id))?;
    let what = count(removed, "torrent");
    call.note(&store, &what);
    done(&format!("{what} removed"), &json!({ "removed": removed }), call.json())
}
