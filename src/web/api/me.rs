//! What members do by themselves, and how those become members whom they invite.

use serde_json::json;

use super::Call;
use super::admin::note;
use crate::net::message::Request;
use crate::rules::limits;
use crate::store::Password;
use crate::tracker::{Tracker, announce_urls, invitation_url};
use crate::web::answer::{Answer, Failure};
use crate::web::password;
use crate::web::query::Query;
use crate::web::signin::turn;

/// The password that a request brings, as the database is to have it.
fn new_password(tracker: &Tracker, request: &Request) -> Result<Option<Password>, Failure> {
    let Some(text) = password::read(request.begun)? else { return Ok(None) };
    let _turn = turn(tracker, request)?;
    password::protect(text).map(Some)
}

impl Call<'_> {
    /// Does to the member who calls what a path says.
    pub(super) fn on_me(&self, what: &str, request: &Request) -> Result<Answer, Failure> {
        let (config, store, id) = (&self.tracker.config, &self.tracker.store, self.user.id);
        match what {
            // Whoever finds an open page must not be able to take the account for good.
            "password" => {
                self.secret()?;
                let password = new_password(self.tracker, request)?;
                store.set_password(id, password.as_ref())?;
                Answer::json(&json!({ "password": password.is_some() }))
            }
            "key" => {
                self.secret()?;
                Answer::json(&json!({ "apiKey": store.new_api_key(id)? }))
            }
            "passkey" => {
                let passkey = store.new_passkey(id)?;
                Answer::json(&json!({ "passkey": passkey, "announce": announce_urls(config, &passkey) }))
            }
            "invite" => {
                let (code, expire) = store.invite(Some(&self.user), 0, self.now)?;
                Answer::json(&json!({ "link": invitation_url(config, &code), "code": code, "expire": expire }))
            }
            _ => Err(super::undefined()),
        }
    }
}

/// Answers somebody who has the code of an invitation: what it is, or by POST what it makes of them.
pub(super) fn invited(tracker: &Tracker, request: &Request, words: &[&str], query: &Query) -> Result<Answer, Failure> {
    let ["invite", code] = *words else { return Err(super::undefined()) };
    let (store, now) = (&tracker.store, tracker.clock.now());
    let gone = || {
        tracker.limits.fail(limits::Failure::Login, request.client(tracker), now);
        Failure(404, "This invitation is used up, has expired or never was".into())
    };
    let invitation = store.invitation(code, now)?.ok_or_else(gone)?;
    if request.method != "POST" {
        return Answer::json(&invitation);
    }
    let password = new_password(tracker, request)?;
    let name = query.value("name").unwrap_or_default();
    let (new, invitation) = store.join(code, &name, password.as_ref(), now)?.ok_or_else(gone)?;
    let name = if invitation.name.is_empty() { name } else { invitation.name };
    if !invitation.by.is_empty() {
        note(tracker, &invitation.by, "invite", &name, "");
    }
    let announce = announce_urls(&tracker.config, &new.passkey);
    Answer::json(&json!({
        "id": new.id, "username": name, "passkey": new.passkey, "apiKey": new.api_key, "announce": announce
    }))
}
