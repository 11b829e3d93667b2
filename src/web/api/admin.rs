//! What administrators do to members, torrents and clients. All of it is written down.

use serde_json::json;

use super::{Call, number};
use crate::log::{clean, log};
use crate::protocol::{Factors, Free};
use crate::store::{Action, Page, Who};
use crate::tracker::{Tracker, announce_urls};
use crate::web::answer::{Answer, Failure};

/// What was done, on whom, and how.
type Deed = (String, String);

/// Writes down what was done. Where that fails it must still be answered: there may be keys in it that are shown once.
pub(super) fn note(tracker: &Tracker, action: &Action) {
    if let Err(e) = tracker.store.note(action) {
        let Action { who, what, whom, .. } = action;
        log(format!("{} of {} by {} was done, but is missing in `goat log`: {e}", what, clean(whom), clean(who)));
    }
}

impl Call<'_> {
    /// Does what the words of a path say, and answers what it has become.
    pub(super) fn act(&self, words: &[&str]) -> Result<Answer, Failure> {
        self.admin()?;
        let (what, deed, answer) = match *words {
            ["users"] => {
                let (deed, answer) = self.add_user()?;
                ("user add".into(), deed, answer)
            }
            ["users", id, verb] => {
                let (deed, answer) = self.on_user(number(id)?, verb)?;
                (format!("user {verb}"), deed, answer)
            }
            ["files", id, verb] => {
                let (deed, answer) = self.on_file(number(id)?, verb)?;
                (format!("file {verb}"), deed, answer)
            }
            ["free"] => {
                let (deed, answer) = self.free_all()?;
                ("file free".into(), deed, answer)
            }
            ["clients", verb] => {
                let deed = self.on_client(verb)?;
                (format!("client {verb}"), deed, Answer::json(&json!({}))?)
            }
            _ => return Err(super::undefined()),
        };
        let ((whom, detail), who) = (deed, self.user.name.clone());
        note(self.tracker, &Action { id: 0, time: self.now, who, what, whom, detail });
        Ok(answer)
    }

    /// A parameter that must be there.
    fn given(&self, name: &str) -> Result<String, Failure> {
        self.query.value(name).ok_or_else(|| Failure(400, format!("{name} is missing")))
    }

    /// A number that may be left out.
    fn amount<T: std::str::FromStr>(&self, name: &str, otherwise: T) -> Result<T, Failure> {
        let wrong = || Failure(400, format!("Invalid {name}: a whole number that is not too large"));
        self.query.value(name).map_or(Ok(otherwise), |text| text.parse().map_err(|_| wrong()))
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, Failure> {
        let wrong = |_| Failure(400, format!("Invalid {name}: true or false"));
        self.query.value(name).map(|text| text.parse().map_err(wrong)).transpose()
    }

    fn reason(&self) -> Result<String, Failure> {
        let reason = self.query.value("reason").unwrap_or_default();
        let good = reason.chars().count() <= 255 && !reason.contains(char::is_control);
        if good {
            Ok(reason)
        } else {
            Err(Failure(400, "A reason has at most 255 characters, none for control".into()))
        }
    }

    fn add_user(&self) -> Result<(Deed, Answer), Failure> {
        let name = self.given("name")?;
        let admin = self.flag("admin")?.unwrap_or(false);
        let new = self.tracker.store.add_user(&name, self.amount("torrents", 0)?, admin)?;
        let detail = if admin { "admin".into() } else { String::new() };
        Ok(((name, detail), self.secrets(new.id, Some(&new.passkey), Some(&new.api_key))?))
    }

    /// What is shown once.
    fn secrets(&self, id: u32, passkey: Option<&str>, api_key: Option<&str>) -> Result<Answer, Failure> {
        let announce = passkey.map(|passkey| announce_urls(&self.tracker.config, passkey));
        Answer::json(&json!({ "id": id, "announce": announce, "passkey": passkey, "apiKey": api_key }))
    }

    fn on_user(&self, id: u32, verb: &str) -> Result<(Deed, Answer), Failure> {
        let store = &self.tracker.store;
        let absent = || Failure(404, "There is no user with this ID".into());
        let name = store.user_by_id(id)?.ok_or_else(absent)?.name;
        let mut detail = String::new();
        match verb {
            "ban" => {
                detail = self.reason()?;
                // Without one, the reason that was given before stays.
                store.ban(id, Some(detail.as_str()).filter(|reason| !reason.is_empty()))?;
            }
            "unban" => store.unban(id)?,
            "limit" => {
                let limit = self.amount("torrents", 0)?;
                detail = limit.to_string();
                store.set_limit(id, limit)?;
            }
            "credit" => {
                let (uploaded, downloaded) = (self.amount("uploaded", 0)?, self.amount("downloaded", 0)?);
                detail = format!("uploaded {uploaded} downloaded {downloaded}");
                store.credit(id, uploaded, downloaded)?;
            }
            "invitations" => {
                let count = self.amount("count", 0)?;
                detail = count.to_string();
                store.set_invitations(id, count, self.now)?;
            }
            "admin" => {
                let on = self.flag("on")?.ok_or_else(|| Failure(400, "on is missing".into()))?;
                detail = on.to_string();
                store.set_admin(id, on)?;
            }
            "rename" => {
                detail = self.given("name")?;
                store.rename_user(id, &detail)?;
            }
            "passkey" => return Ok(((name, detail), self.secrets(id, Some(&store.new_passkey(id)?), None)?)),
            "key" => return Ok(((name, detail), self.secrets(id, None, Some(&store.new_api_key(id)?))?)),
            "remove" => {
                store.remove_user(id)?;
                return Ok(((name, detail), Answer::json(&json!({}))?));
            }
            _ => return Err(super::undefined()),
        }
        let user = self.read_users(Who::Id(id), &Page::ALL, None)?.pop().ok_or_else(absent)?;
        Ok(((name, detail), Answer::json(&user)?))
    }

    fn on_file(&self, id: u32, verb: &str) -> Result<(Deed, Answer), Failure> {
        let store = &self.tracker.store;
        let file = self.visible(id)?;
        let name = if file.name.is_empty() { file.info_hash.to_string() } else { file.name };
        let mut detail = String::new();
        match verb {
            "approve" => store.set_verified(id, true, "")?,
            "revoke" => {
                detail = self.reason()?;
                store.set_verified(id, false, &detail)?;
            }
            "rename" => {
                detail = self.given("name")?;
                store.rename_file(id, &detail)?;
            }
            "free" => {
                let factors = self.factors()?;
                detail = format!("download {} upload {}", factors.download, factors.upload);
                store.set_factors(id, factors)?;
            }
            "remove" => {
                store.remove_file(id)?;
                return Ok(((name, detail), Answer::json(&json!({}))?));
            }
            _ => return Err(super::undefined()),
        }
        Ok(((name, detail), Answer::json(&self.visible(id)?)?))
    }

    fn factors(&self) -> Result<Factors, Failure> {
        let factors = Factors { download: self.amount("download", 0)?, upload: self.amount("upload", 100)? };
        let good = factors.download <= 1_000 && factors.upload <= 1_000;
        good.then_some(factors).ok_or_else(|| Failure(400, "A percentage is at most 1000".into()))
    }

    fn free_all(&self) -> Result<(Deed, Answer), Failure> {
        self.given("until")?;
        let free = Free { factors: self.factors()?, until: self.amount("until", 0)? };
        self.tracker.store.set_free(free)?;
        self.tracker.swarms.set_free(free.pack());
        let Factors { upload, download } = free.factors;
        let detail = format!("download {download} upload {upload} until {}", free.until);
        Ok((("all torrents".into(), detail), Answer::json(&json!({ "free": self.tracker.swarms.free(self.now) }))?))
    }

    fn on_client(&self, verb: &str) -> Result<Deed, Failure> {
        let (store, client) = (&self.tracker.store, self.given("client")?);
        if !(1..=128).contains(&client.chars().count()) {
            return Err(Failure(400, "A client has 1 to 128 characters".into()));
        }
        match verb {
            "approve" => store.set_client(&client, true)?,
            "deny" => store.set_client(&client, false)?,
            "remove" if store.remove_client(&client)? => {}
            "remove" => return Err(Failure(404, "There is no such client".into())),
            _ => return Err(super::undefined()),
        }
        Ok((client, String::new()))
    }

    /// What administrators did, the newest first.
    pub(super) fn actions(&self) -> Result<Answer, Failure> {
        self.admin()?;
        let mut rows = Vec::new();
        let page = self.query.part(Page { descending: true, ..Page::ALL });
        self.tracker.store.actions(&page, |row| rows.push(row))?;
        let header = self.query.cut(&mut rows, |row| row.id);
        Ok(Answer { header, ..Answer::json(&rows)? })
    }
}
