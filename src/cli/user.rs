//! `goat user`: members.

use serde_json::{Value, json};

use super::call::{Call, Done, Failure, live_since, now};
use super::output::{count, done, print, show, show_all};
use crate::config::{Config, command};
use crate::log::clean;
use crate::store::{Error, NewUser, Page, Store, USER_ORDERS, User, Who};
use crate::tracker::{announce_urls, invitation_url};

pub fn find(config: &Config, store: &Store, text: &str) -> Result<User, Failure> {
    let found = store.find_user(text)?.map(|id| read(config, store, id)).transpose()?.flatten();
    let absent = || format!("there is no user {text}: `{}` shows who there is", command("user list"));
    Ok(found.ok_or_else(absent)?)
}

fn read(config: &Config, store: &Store, id: u32) -> Result<Option<User>, Error> {
    let mut found = None;
    store.users(Who::Id(id), &Page::ALL, Some(live_since(config)), |user| found = Some(user))?;
    Ok(found)
}

/// Opens the database, and finds the member that a command names.
fn named(call: &Call) -> Result<(Config, Store, User), Failure> {
    let (config, store) = call.open()?;
    let user = find(&config, &store, call.argument("NAME"))?;
    Ok((config, store, user))
}

/// What is shown once of a member who was made or has got something new.
fn secrets(config: &Config, new: &NewUser, name: &str, link: Option<&str>, json: bool) -> Done {
    let NewUser { id, passkey, api_key } = new;
    let known = Some(api_key).filter(|key| !key.is_empty());
    let announce = announce_urls(config, passkey);
    let mut shown = json!({ "id": id, "name": name, "passkey": passkey, "apiKey": known, "announce": announce });
    let mut said = "The API key is not shown again.\n".to_string();
    if let Some(link) = link {
        shown["link"] = link.into();
        said += "The link lets the member sign in once within 7 days, and gives them an API key of their own.\n";
    }
    let keys = if known.is_some() { "id name passkey apiKey announce link" } else { "id name passkey announce" };
    show(&shown, keys, json)?;
    if known.is_none() || json { Ok(()) } else { print(&said) }
}

pub fn add(call: &Call) -> Done {
    let limit = call.get("torrent-limit").unwrap_or(0);
    let (config, store) = call.open()?;
    let name = call.argument("NAME");
    let new = store.add_user(name, limit, call.on("admin"))?;
    call.note(&store, name);
    let link = if config.api { invitation_url(&config, &store.invite(None, new.id, now())?.0) } else { None };
    secrets(&config, &new, name, link.as_deref(), call.json())
}

pub fn passkey(call: &Call) -> Done {
    let (config, store, user) = named(call)?;
    let passkey = store.new_passkey(user.id)?;
    call.note(&store, &user.name);
    secrets(&config, &NewUser { id: user.id, passkey, api_key: String::new() }, &user.name, None, call.json())
}

pub fn key(call: &Call) -> Done {
    let (config, store, user) = named(call)?;
    let api_key = store.new_api_key(user.id)?;
    call.note(&store, &user.name);
    secrets(&config, &NewUser { id: user.id, passkey: user.passkey, api_key }, &user.name, None, call.json())
}

pub fn list(call: &Call) -> Done {
    let (config, store) = call.open()?;
    let everybody = "id uploaded downloaded ratio seeding leeching seedTime lastSeen createTime admin banned name";
    let (who, columns) = match call.on("banned") {
        true => (Who::Banned, "id uploaded downloaded ratio name banReason"),
        false => (Who::Everybody, everybody),
    };
    let mut users = Vec::new();
    store.users(who, &call.page(&USER_ORDERS), Some(live_since(&config)), |user| users.push(user))?;
    show_all(&users, columns, call.json())
}

pub fn show_one(call: &Call) -> Done {
    let (config, store, user) = named(call)?;
    let mut shown = serde_json::to_value(&user)?;
    let seen = |key: &str, list: Vec<(u32, String)>| -> Value {
        list.into_iter().map(|(time, what)| json!({ "lastSeen": time, key: what })).collect()
    };
    shown["addresses"] = seen("ip", store.user_addresses(user.id)?);
    shown["clients"] = seen("peerId", store.user_clients(user.id)?);
    if call.on("secrets") {
        shown["announce"] = announce_urls(&config, &user.passkey).into();
        shown["passkey"] = user.passkey.into();
    }
    let keys = "id name uploaded downloaded ratio seeding leeching seedTime lastSeen createTime torrentLimit admin banned \
        banReason invitedBy rawUploaded rawDownloaded snatches addresses:lastSeen,ip clients:lastSeen,peerId announce passkey";
    show(&shown, keys, call.json())
}

/// Does something to the member that a command names, and says what they are then, or were if they are gone: after their
/// name, `said`.
fn change(
    call: &Call,
    change: impl FnOnce(&Store, u32) -> Result<(), Error>,
    said: impl FnOnce(&User) -> String,
) -> Done {
    let (config, store, before) = named(call)?;
    change(&store, before.id)?;
    call.note(&store, &before.name);
    let user = read(&config, &store, before.id)?.unwrap_or(before);
    done(&format!("{} {}", clean(&user.name), said(&user)), &user, call.json())
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
    change(call, |store, id| store.rename_user(id, new), |_| format!("was called {} until now", clean(old)))
}

pub fn limit(call: &Call) -> Done {
    let limit = call.get("N").unwrap_or(0);
    let torrents = if limit == 0 { "any number of torrents".into() } else { count(limit.into(), "torrent") };
    let most = if limit == 0 { "" } else { "at most " };
    change(call, |store, id| store.set_limit(id, limit), |_| format!("may be active on {most}{torrents}"))
}

pub fn invitations(call: &Call) -> Done {
    let n = call.get("N").unwrap_or(0);
    let set = |store: &Store, id| store.set_invitations(id, n, now());
    change(call, set, |_| format!("may invite {}", count(n.into(), "member")))
}

pub fn credit(call: &Call) -> Done {
    let (uploaded, downloaded) = (call.get("uploaded").unwrap_or(0), call.get("downloaded").unwrap_or(0));
    let cut = std::cell::Cell::new(false);
    let credit = |store: &Store, id| store.credit(id, uploaded, downloaded).map(|less| cut.set(less));
    let said = |user: &User| {
        let less = if cut.get() { ": there was less than you took away, so nothing is left" } else { "" };
        format!("has {} bytes uploaded, {} downloaded{less}", user.uploaded, user.downloaded)
    };
    change(call, credit, said)
}

pub fn remove(call: &Call) -> Done {
    change(call, Store::remove_user, |_| "is removed".into())
}
