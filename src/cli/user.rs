//! `goat user`: members.

use super::call::{Call, Done, Failure, live_since};
use super::output::{Cell, Fields, List, count, done, print, show};
use crate::config::Config;
use crate::log::clean;
use crate::store::{Error, NewUser, Seen, Store, USER_ORDERS, UserRow, Who};
use crate::tracker::announce_urls;

/// The member that a command is about.
pub fn find(config: &Config, store: &Store, text: &str) -> Result<UserRow, Failure> {
    let absent = || Failure::Failed(format!("there is no user {text}: `goat user list` shows who there is"));
    read(config, store, store.find_user(text)?.ok_or_else(absent)?)
}

/// The member with an id.
fn read(config: &Config, store: &Store, id: u32) -> Result<UserRow, Failure> {
    let mut found = None;
    store.users(Who::Id(id), "u.id", live_since(config), |user| found = Some(user))?;
    found.ok_or_else(|| Failure::Failed("the member was removed meanwhile".into()))
}

/// What is shown once of a member who was made or has got something new.
fn secrets(config: &Config, id: u32, name: &str, passkey: &str, api_key: Option<String>, json: bool) -> Done {
    let hidden = api_key.is_none();
    let mut shown = vec![
        ("id", Cell::Int(id.into())),
        ("name", Cell::Text(name.into())),
        ("passkey", Cell::Text(passkey.into())),
        ("apiKey", api_key.map_or(Cell::None, Cell::Text)),
        ("announce", Cell::Texts(announce_urls(config, passkey))),
    ];
    if json {
        return show(&shown, true);
    }
    shown.retain(|(key, _)| !hidden || *key != "apiKey");
    show(&shown, false)?;
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
        ("created", Cell::Time(user.created)),
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
            "created",
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
    if call.on("secrets") {
        let passkey = store.passkey(user.id)?;
        shown.push(("announce", Cell::Texts(announce_urls(&config, &passkey))));
        shown.push(("passkey", Cell::Text(passkey)));
    }
    shown.sort_by_key(|(key, _)| match *key {
        "id" => 0,
        "name" => 1,
        _ => 2,
    });
    show(&shown, call.json())
}

/// Does something to the member that a command names, and says what they are then: after their name, `said`.
fn change(
    call: &Call,
    change: impl FnOnce(&Store, u32) -> Result<(), Error>,
    said: impl FnOnce(&UserRow) -> String,
) -> Done {
    let (config, store) = call.open()?;
    let id = find(&config, &store, call.argument("NAME"))?.id;
    change(&store, id)?;
    let user = read(&config, &store, id)?;
    done(&format!("{} {}", clean(&user.name), said(&user)), &fields(&user), call.json())
}

pub fn ban(call: &Call) -> Done {
    change(call, |store, id| store.ban(id, call.value("reason")), |_| "is banned".into())
}

pub fn unban(call: &Call) -> Done {
    change(call, Store::unban, |_| "may announce again".into())
}

pub fn admin(call: &Call) -> Done {
    let on = call.argument("on|off") == "on";
    let said = if on { "is an administrator" } else { "is no longer an administrator" };
    change(call, |store, id| store.set_admin(id, on), |_| said.into())
}

pub fn rename(call: &Call) -> Done {
    let (old, new) = (call.argument("NAME"), call.argument("NEW"));
    change(call, |store, id| store.rename_user(id, new), |_| format!("was {} until now", clean(old)))
}

pub fn limit(call: &Call) -> Done {
    let limit = call.get("N").unwrap_or(0);
    let torrents = if limit == 0 { "any number of torrents".into() } else { count(limit.into(), "torrent") };
    let most = if limit == 0 { "" } else { "at most " };
    change(call, |store, id| store.set_limit(id, limit), |_| format!("may be active on {most}{torrents}"))
}

pub fn credit(call: &Call) -> Done {
    let (uploaded, downloaded) = (call.get("uploaded").unwrap_or(0), call.get("downloaded").unwrap_or(0));
    let cut = std::cell::Cell::new(false);
    let credit = |store: &Store, id| store.credit(id, uploaded, downloaded).map(|less| cut.set(less));
    let said = |user: &UserRow| {
        let less = if cut.get() { ": that was less than what you took away, so nothing is left of it" } else { "" };
        format!("has {} bytes uploaded, {} downloaded{less}", user.uploaded, user.downloaded)
    };
    change(call, credit, said)
}

pub fn remove(call: &Call) -> Done {
    let (config, store) = call.open()?;
    let user = find(&config, &store, call.argument("NAME"))?;
    store.remove_user(user.id)?;
    done(&format!("{} is removed", clean(&user.name)), &fields(&user), call.json())
}
