//! `goat user`: members.

use super::call::{Call, Done, Failure, live_since};
use super::output::{Cell, Fields, List, count, print, show};
use crate::config::Config;
use crate::log::clean;
use crate::store::{NewUser, Seen, Store, USER_ORDERS, UserRow, Who};
use crate::tracker::announce_urls;

/// The member that a command is about.
pub fn find(config: &Config, store: &Store, text: &str) -> Result<UserRow, Failure> {
    let mut found = None;
    if let Some(id) = store.find_user(text)? {
        store.users(Who::Id(id), "u.id", live_since(config), |user| found = Some(user))?;
    }
    found.ok_or_else(|| Failure::Failed(format!("there is no user {text}: `goat user list` shows who there is")))
}

/// What is shown once of a member who was made or has got something new.
fn secrets(config: &Config, id: u32, name: &str, passkey: &str, api_key: Option<String>, json: bool) -> Done {
    let urls = announce_urls(config, passkey);
    let key = api_key.map_or(Cell::None, Cell::Text);
    let hidden = matches!(key, Cell::None);
    let head = vec![
        ("id", Cell::Int(id.into())),
        ("name", Cell::Text(name.into())),
        ("passkey", Cell::Text(passkey.into())),
        ("apiKey", key),
    ];
    if json {
        let mut fields = serde_json::Map::new();
        fields.insert("announce".into(), urls.into());
        return print(&format!("{}\n", super::output::with(&head, fields)));
    }
    let shown = head.into_iter().filter(|(key, _)| !hidden || *key != "apiKey");
    let urls = urls.into_iter().map(|url| ("announce", Cell::Text(url)));
    show(&shown.chain(urls).collect(), false)?;
    if hidden { Ok(()) } else { print("The API key is not shown again.\n") }
}

pub fn add(call: &Call) -> Done {
    let limit = call.get("torrent-limit").unwrap_or(0);
    let (config, store) = call.open()?;
    let name = call.argument("NAME");
    let NewUser { id, passkey, api_key } = store.add_user(name, limit, call.on("admin"))?;
    secrets(&config, id, name, &passkey, Some(api_key), call.json())
}

pub fn passkey(call: &Call) -> Done {
    let (config, store) = call.open()?;
    let user = find(&config, &store, call.argument("NAME"))?;
    let passkey = store.new_passkey(user.id)?;
    secrets(&config, user.id, &user.name, &passkey, None, call.json())
}

pub fn key(call: &Call) -> Done {
    let (config, store) = call.open()?;
    let user = find(&config, &store, call.argument("NAME"))?;
    let (passkey, key) = (store.passkey(user.id)?, store.new_api_key(user.id)?);
    secrets(&config, user.id, &user.name, &passkey, Some(key), call.json())
}

fn fields(user: &UserRow) -> Fields {
    vec![
        ("id", Cell::Int(user.id.into())),
        ("uploaded", Cell::Bytes(user.uploaded)),
        ("downloaded", Cell::Bytes(user.downloaded)),
        ("ratio", Cell::Ratio(user.uploaded, user.downloaded)),
        ("seeding", Cell::Int(user.seeding.into())),
        ("leeching", Cell::Int(user.leeching.into())),
        ("seedTime", Cell::Seconds(user.seed_time)),
        ("lastSeen", Cell::Time(user.last_seen)),
        ("torrentLimit", Cell::Int(user.torrent_limit.into())),
        ("admin", Cell::Flag(user.admin)),
        ("banned", Cell::Flag(user.banned)),
        ("name", Cell::Text(user.name.clone())),
        ("banReason", Cell::Text(user.ban_reason.clone())),
    ]
}

pub fn list(call: &Call) -> Done {
    let (config, store) = call.open()?;
    let who = if call.on("banned") { Who::Banned } else { Who::Everybody };
    let columns: &[&str] = match who {
        Who::Banned => &["id", "uploaded", "downloaded", "ratio", "name", "banReason"],
        _ => &[
            "id",
            "uploaded",
            "downloaded",
            "ratio",
            "seeding",
            "leeching",
            "seedTime",
            "lastSeen",
            "admin",
            "banned",
            "name",
        ],
    };
    let mut list = List::new(call.json(), columns, &fields(&UserRow::default()));
    let order = super::call::order(&USER_ORDERS, call.value("sort"));
    store.users(who, order, live_since(&config), |user| list.row(&fields(&user)))?;
    list.end()
}

pub fn show_one(call: &Call) -> Done {
    let (config, store) = call.open()?;
    let user = find(&config, &store, call.argument("NAME"))?;
    let (mut shown, totals) = (fields(&user), store.user_totals(user.id)?);
    let seen = |what: &'static str, list: Vec<Seen>| {
        let fields = |seen: Seen| vec![("lastSeen", Cell::Time(seen.last_seen)), (what, Cell::Text(seen.what))];
        Cell::List(list.into_iter().map(fields).collect())
    };
    shown.extend([
        ("rawUploaded", Cell::Bytes(totals.uploaded)),
        ("rawDownloaded", Cell::Bytes(totals.downloaded)),
        ("snatches", Cell::Int(totals.snatches.into())),
        ("addresses", seen("ip", store.user_addresses(user.id)?)),
        ("clients", seen("peerId", store.user_clients(user.id)?)),
    ]);
    shown.sort_by_key(|(key, _)| match *key {
        "id" => 0,
        "name" => 1,
        _ => 2,
    });
    show(&shown, call.json())
}

pub fn ban(call: &Call) -> Done {
    let reason = call.value("reason").unwrap_or("");
    let (config, store) = call.open()?;
    let user = find(&config, &store, call.argument("NAME"))?;
    store.set_banned(user.id, Some(reason))?;
    print(&format!("{} is banned\n", clean(&user.name)))
}

pub fn unban(call: &Call) -> Done {
    let (config, store) = call.open()?;
    let user = find(&config, &store, call.argument("NAME"))?;
    store.set_banned(user.id, None)?;
    print(&format!("{} may announce again\n", clean(&user.name)))
}

pub fn remove(call: &Call) -> Done {
    let (config, store) = call.open()?;
    let user = find(&config, &store, call.argument("NAME"))?;
    store.remove_user(user.id)?;
    print(&format!("{} is removed\n", clean(&user.name)))
}

pub fn limit(call: &Call) -> Done {
    let limit = call.get("N").unwrap_or(0);
    let (config, store) = call.open()?;
    let user = find(&config, &store, call.argument("NAME"))?;
    store.set_limit(user.id, limit)?;
    let limit = if limit == 0 {
        "any number of torrents".into()
    } else {
        format!("at most {}", count(limit.into(), "torrent"))
    };
    print(&format!("{} may be active on {limit}\n", clean(&user.name)))
}

pub fn credit(call: &Call) -> Done {
    let uploaded = call.get("uploaded").unwrap_or(0);
    let downloaded = call.get("downloaded").unwrap_or(0);
    let (config, store) = call.open()?;
    let user = find(&config, &store, call.argument("NAME"))?;
    store.credit(user.id, uploaded, downloaded)?;
    let sums = (user.uploaded.saturating_add_signed(uploaded), user.downloaded.saturating_add_signed(downloaded));
    print(&format!("{} has {} bytes uploaded, {} downloaded\n", clean(&user.name), sums.0, sums.1))
}
