//! `goat client`: which clients are let in.

use serde_json::json;

use super::call::{Call, Done, Failure};
use super::output::{List, done};
use crate::config::command;
use crate::log::clean;
use crate::store::Store;

pub fn list(call: &Call) -> Done {
    let (_, store) = call.open()?;
    let pending = call.on("pending");
    let columns = if pending { "approved suggested suggestedBy client" } else { "approved client" };
    let mut list = List::new(call.json(), columns);
    let clients = store.clients()?;
    clients.iter().filter(|client| client.pending || !pending).for_each(|client| list.row(client));
    list.end()
}

fn prefix(call: &Call) -> Result<(&str, Store), Failure> {
    Ok((call.argument("PREFIX"), call.open()?.1))
}

fn said(call: &Call, text: &str, approved: bool) -> Done {
    let client = call.argument("PREFIX");
    let thing = json!({ "client": client, "approved": approved });
    done(&format!("{} {text}", clean(client)), &thing, call.json())
}

pub fn approve(call: &Call) -> Done {
    let (prefix, store) = prefix(call)?;
    store.set_client(prefix, true)?;
    call.note(&store, prefix);
    said(call, "is allowed", true)
}

pub fn deny(call: &Call) -> Done {
    let (prefix, store) = prefix(call)?;
    store.set_client(prefix, false)?;
    call.note(&store, prefix);
    // Approval is by any prefix, so this one may not matter.
    let clients = store.clients()?;
    match clients.iter().find(|client| client.approved && prefix.starts_with(&client.client)) {
        None => said(call, "is not allowed", false),
        Some(shorter) => {
            let advice = "to keep it out, deny that one and approve longer ones";
            said(call, &format!("is still allowed by the shorter {}: {advice}", clean(&shorter.client)), true)
        }
    }
}

pub fn remove(call: &Call) -> Done {
    let (prefix, store) = prefix(call)?;
    if !store.remove_client(prefix)? {
        let message = format!("there is no client {prefix}: `{}` shows what there is", command("client list"));
        return Err(Failure::Failed(message));
    }
    call.note(&store, prefix);
    said(call, "is forgotten", false)
}
