//! `goat client`: which clients are let in.

use serde_json::json;

use super::call::{Call, Done, Failure};
use super::output::{done, show_all};
use crate::config::command;
use crate::log::clean;
use crate::store::Store;

pub fn list(call: &Call) -> Done {
    let (_, store) = call.open()?;
    let pending = call.on("pending");
    let columns = if pending { "approved suggested suggestedBy client" } else { "approved client" };
    let mut clients = store.clients()?;
    clients.retain(|client| client.pending || !pending);
    show_all(&clients, columns, call.json())
}

fn decide(call: &Call, approved: bool) -> Result<Store, Failure> {
    let (_, store) = call.open()?;
    store.set_client(call.argument("PREFIX"), approved)?;
    call.note(&store, call.argument("PREFIX"));
    Ok(store)
}

fn said(call: &Call, text: &str, approved: bool) -> Done {
    let client = call.argument("PREFIX");
    let thing = json!({ "client": client, "approved": approved });
    done(&format!("{} {text}", clean(client)), &thing, call.json())
}

pub fn approve(call: &Call) -> Done {
    decide(call, true)?;
    said(call, "is allowed", true)
}

pub fn deny(call: &Call) -> Done {
    let clients = decide(call, false)?.clients()?;
    // Approval is by any prefix, so this one may not matter.
    let prefix = call.argument("PREFIX");
    match clients.iter().find(|client| client.approved && prefix.starts_with(&client.client)) {
        None => said(call, "is not allowed", false),
        Some(shorter) => {
            let advice = "to keep it out, deny that one and approve longer ones";
            said(call, &format!("is still allowed by the shorter {}: {advice}", clean(&shorter.client)), true)
        }
    }
}

pub fn remove(call: &Call) -> Done {
    let (_, store) = call.open()?;
    let prefix = call.argument("PREFIX");
    if !store.remove_client(prefix)? {
        let list = command("client list");
        return Err(format!("there is no client {prefix}: `{list}` shows what there is").into());
    }
    call.note(&store, prefix);
    said(call, "is forgotten", false)
}
