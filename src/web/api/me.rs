//! What members do by themselves.

use serde_json::json;

use super::{Answer, Call};
use crate::auth::{Failure, password};
use crate::net::message::Request;
use crate::tracker::announce_urls;

impl Call<'_> {
    /// Does to the member who calls what a path says.
    pub(super) fn on_me(&self, what: &str, request: &Request) -> Result<Answer, Failure> {
        let (tracker, store, id) = (self.tracker, &self.tracker.store, self.user.id);
        match what {
            // Whoever finds an open page must not be able to take the account for good.
            "password" => {
                self.secret()?;
                let from = request.client(tracker);
                let protect = |text| tracker.auth.protect(&tracker.config, &tracker.limits, from, text);
                let password = password::read(request.begun)?.map(protect).transpose()?;
                store.set_password(id, password.as_ref())?;
                Answer::json(&json!({ "password": password.is_some() }))
            }
            "key" => {
                self.secret()?;
                Answer::json(&json!({ "apiKey": store.new_api_key(id)? }))
            }
            "passkey" => {
                let passkey = store.new_passkey(id)?;
                Answer::json(&json!({ "passkey": passkey, "announce": announce_urls(&tracker.config, &passkey) }))
            }
            _ => Err(super::undefined()),
        }
    }
}
