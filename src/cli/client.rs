//! `goat client`: which clients are let in.

use super::call::{Call, Done, Failure};
use super::output::{Cell, Fields, List, done};
use crate::log::clean;
use crate::store::{ClientRow, Store};

fn fields(client: &ClientRow) -> Fields {
    vec![
        ("approved", Cell::Flag(client.approved)),
        ("suggested", Cell::Time(client.suggested)),
        ("suggestedBy", Cell::Text(client.suggested_by.clone())),
        ("client", Cell::Text(client.client.clone())),
    ]
}

pub fn list(call: &Call) -> Done {
    let (_, store) = call.open()?;
    let pending = ["approved", "suggested", "suggestedBy", "client"];
    let columns = if call.on("pending") { &pending[..] } else { &["approved", "client"] };
    let mut list = List::new(call.json(), columns, &fields(&ClientRow::default()));
    let clients = store.clients()?;
    let shown = clients.iter().filter(|client| client.pending || !call.on("pending"));
    shown.for_each(|client| list.row(&fields(client)));
    list.end()
}

/// The prefix that a command is about, and the database.
fn prefix(call: &Call) -> Result<(&str, Store), Failure> {
    Ok((call.argument("PREFIX"), call.open()?.1))
}

/// Says what became of a prefix.
fn said(call: &Call, text: &str, approved: bool) -> Done {
    let client = call.argument("PREFIX");
    let fields = vec![("client", Cell::Text(client.into())), ("approved", Cell::Flag(approved))];
    done(&format!("{} {text}", clean(client)), &fields, call.json())
}

pub fn approve(call: &Call) -> Done {
    let (prefix, store) = prefix(call)?;
    store.set_client(prefix, true)?;
    said(call, "is let in", true)
}

pub fn deny(call: &Call) -> Done {
    let (prefix, store) = prefix(call)?;
    store.set_client(prefix, false)?;
    // Approval is by any prefix, so this one may not matter.
    let clients = store.clients()?;
    match clients.iter().find(|client| client.approved && prefix.starts_with(&client.client)) {
        None => said(call, "is not let in", false),
        Some(shorter) => {
            let advice = "to shut it out, deny that and approve longer ones";
            said(call, &format!("is still let in by the shorter {}: {advice}", clean(&shorter.client)), true)
        }
    }
}

pub fn remove(call: &Call) -> Done {
    let (prefix, store) = prefix(call)?;
    if !store.remove_client(prefix)? {
        let message = format!("there is no client {prefix}: `goat client list` shows what there is");
        return Err(Failure::Failed(message));
    }
    said(call, "is forgotten", false)
}
