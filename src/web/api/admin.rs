//! What administrators do to members, torrents and clients. All of it is written down.

use serde::Serialize;
use serde_json::json;

use super::{Call, number, undefined};
use crate::log::{clean, log};
use crate::protocol::{Factors, Free};
use crate::store::{Action, Page, Who};
use crate::tracker::{Tracker, announce_urls};
use crate::web::answer::{Answer, Failure};

/// On whom something was done, how, and what is said of it: it is done even where that cannot be found out.
type Deed = (String, String, Result<Answer, Failure>);

/// Writes down what was done. Where that fails it must still be answered: there may be keys in it that are shown once.
pub(super) fn note(tracker: &Tracker, who: &str, what: &str, whom: &str, detail: &str) {
    let [who, what, whom, detail] = [who, what, whom, detail].map(String::from);
    let action = Action { id: 0, time: tracker.clock.now(), who, what, whom, detail };
    if let Err(e) = tracker.store.note(&action) {
        let Action { who, what, whom, .. } = action;
        log(format!("{what} of {} by {} was done, but is missing in `goat log`: {e}", clean(&whom), clean(&who)));
    }
}

fn worded(factors: Factors) -> String {
    format!("download {} upload {}", factors.download, factors.upload)
}

/// What something has become; nothing of what is gone.
fn shown(found: Option<impl Serialize>) -> Result<Answer, Failure> {
    found.map_or_else(|| Answer::json(&json!({})), |found| Answer::json(&found))
}

impl Call<'_> {
    /// Does what the words of a path say, and answers what it has become.
    pub(super) fn act(&self, words: &[&str]) -> Result<Answer, Failure> {
        self.admin()?;
        let (what, (whom, detail, answer)) = match *words {
            ["users"] => ("user add".into(), self.add_user()?),
            ["users", id, verb] => (format!("user {verb}"), self.on_user(number(id)?, verb)?),
            ["files", id, verb] => (format!("file {verb}"), self.on_file(number(id)?, verb)?),
            ["free"] => ("file free".into(), self.free_all()?),
            ["clients", verb] => (format!("client {verb}"), self.on_client(verb)?),
            _ => return Err(undefined()),
        };
        note(self.tracker, &self.user.name, &what, &whom, &detail);
        answer
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

    fn flag(&self, name: &str) -> Result<bool, Failure> {
        let wrong = |_| Failure(400, format!("Invalid {name}: true or false"));
        self.query.value(name).map_or(Ok(false), |text| text.parse().map_err(wrong))
    }

    fn reason(&self) -> Result<String, Failure> {
        let reason = self.query.value("reason").unwrap_or_default();
        let good = reason.chars().count() <= 255 && !reason.contains(char::is_control);
        let wrong = || Failure(400, "A reason has at most 255 characters, none for control".into());
        good.then_some(reason).ok_or_else(wrong)
    }

    fn add_user(&self) -> Result<Deed, Failure> {
        let (name, admin) = (self.given("name")?, self.flag("admin")?);
        let new = self.tracker.store.add_user(&name, self.amount("torrents", 0)?, admin)?;
        let detail = if admin { "admin" } else { "" };
        Ok((name, detail.into(), self.secrets(new.id, Some(&new.passkey), Some(&new.api_key))))
    }

    /// What is shown once.
    fn secrets(&self, id: u32, passkey: Option<&str>, api_key: Option<&str>) -> Result<Answer, Failure> {
        let announce = passkey.map(|passkey| announce_urls(&self.tracker.config, passkey));
        Answer::json(&json!({ "id": id, "announce": announce, "passkey": passkey, "apiKey": api_key }))
    }

    fn on_user(&self, id: u32, verb: &str) -> Result<Deed, Failure> {
        let store = &self.tracker.store;
        let absent = || Failure(404, "There is no user with this ID".into());
        let name = store.user_by_id(id)?.ok_or_else(absent)?.name;
        let detail = match verb {
            "ban" => {
                let reason = self.reason()?;
                // Without one, the reason that was given before stays.
                store.ban(id, Some(reason.as_str()).filter(|reason| !reason.is_empty())).map(|()| reason)?
            }
            "unban" => store.unban(id).map(|()| String::new())?,
            "limit" => {
                let limit = self.amount("torrents", 0u32)?;
                store.set_limit(id, limit).map(|()| limit.to_string())?
            }
            "credit" => {
                let (uploaded, downloaded) = (self.amount("uploaded", 0)?, self.amount("downloaded", 0)?);
                store.credit(id, uploaded, downloaded)?;
                format!("uploaded {uploaded} downloaded {downloaded}")
            }
            "invitations" => {
                let count = self.amount("count", 0)?;
                store.set_invitations(id, count, self.now).map(|()| count.to_string())?
            }
            "admin" => {
                let on = self.given("on")?;
                store.set_admin(id, self.flag("on")?).map(|()| on)?
            }
            "rename" => {
                let new = self.given("name")?;
                store.rename_user(id, &new).map(|()| new)?
            }
            "passkey" => {
                let passkey = store.new_passkey(id)?;
                return Ok((name, String::new(), self.secrets(id, Some(&passkey), None)));
            }
            "key" => {
                let key = store.new_api_key(id)?;
                return Ok((name, String::new(), self.secrets(id, None, Some(&key))));
            }
            "remove" => store.remove_user(id).map(|()| String::new())?,
            _ => return Err(undefined()),
        };
        let found = self.read_users(Who::Id(id), &Page::ALL, None);
        Ok((name, detail, found.and_then(|mut users| shown(users.pop()))))
    }

    fn on_file(&self, id: u32, verb: &str) -> Result<Deed, Failure> {
        let store = &self.tracker.store;
        let file = self.visible(id)?;
        let name = if file.name.is_empty() { file.info_hash.to_string() } else { file.name };
        let detail = match verb {
            "approve" => store.set_verified(id, true, "").map(|()| String::new())?,
            "revoke" => {
                let reason = self.reason()?;
                store.set_verified(id, false, &reason).map(|()| reason)?
            }
            "rename" => {
                let new = self.given("name")?;
                store.rename_file(id, &new).map(|()| new)?
            }
            "free" => {
                let factors = self.factors()?;
                store.set_factors(id, factors).map(|()| worded(factors))?
            }
            "remove" => store.remove_file(id).map(|()| String::new())?,
            _ => return Err(undefined()),
        };
        Ok((name, detail, self.read_files(&[id]).and_then(|mut files| shown(files.pop()))))
    }

    fn factors(&self) -> Result<Factors, Failure> {
        let factors = Factors { download: self.amount("download", 0)?, upload: self.amount("upload", 100)? };
        let good = factors.download <= 1_000 && factors.upload <= 1_000;
        good.then_some(factors).ok_or_else(|| Failure(400, "A percentage is at most 1000".into()))
    }

    fn free_all(&self) -> Result<Deed, Failure> {
        self.given("until")?;
        let free = Free { factors: self.factors()?, until: self.amount("until", 0)? };
        self.tracker.store.set_free(free)?;
        self.tracker.swarms.set_free(free.pack());
        let detail = format!("{} until {}", worded(free.factors), free.until);
        let answer = Answer::json(&json!({ "free": self.tracker.swarms.free(self.now) }));
        Ok(("all torrents".into(), detail, answer))
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
            _ => return Err(undefined()),
        }
        Ok((client, String::new(), Answer::json(&json!({}))))
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
