//! What administrators do to members, torrents and clients. All of it is written down.

use serde::Serialize;
use serde_json::json;

use super::{Call, number, undefined};
use crate::log::{clean, log};
use crate::protocol::{Factors, Free};
use crate::store::{Action, Page, Who};
use crate::tracker::{Tracker, announce_urls};
use crate::web::answer::{Answer, Failure};

/// On whom something was done, how, and what is said of it.
type Deed = (String, String, Answer);

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
        Ok((name, detail.into(), self.secrets(new.id, Some(&new.passkey), Some(&new.api_key))?))
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
            "ban" => self.reason()?,
            "limit" => self.amount("torrents", 0u32)?.to_string(),
            "credit" => {
                let (uploaded, downloaded) = (self.amount("uploaded", 0i64)?, self.amount("downloaded", 0i64)?);
                format!("uploaded {uploaded} downloaded {downloaded}")
            }
            "invitations" => self.amount("count", 0u32)?.to_string(),
            "admin" => self.given("on")?,
            "rename" => self.given("name")?,
            _ => String::new(),
        };
        match verb {
            // Without a reason, the one that was given before stays.
            "ban" => store.ban(id, Some(detail.as_str()).filter(|reason| !reason.is_empty()))?,
            "unban" => store.unban(id)?,
            "limit" => store.set_limit(id, self.amount("torrents", 0)?)?,
            "credit" => drop(store.credit(id, self.amount("uploaded", 0)?, self.amount("downloaded", 0)?)?),
            "invitations" => store.set_invitations(id, self.amount("count", 0)?, self.now)?,
            "admin" => store.set_admin(id, self.flag("on")?)?,
            "rename" => store.rename_user(id, &detail)?,
            "passkey" => return Ok((name, detail, self.secrets(id, Some(&store.new_passkey(id)?), None)?)),
            "key" => return Ok((name, detail, self.secrets(id, None, Some(&store.new_api_key(id)?))?)),
            "remove" => store.remove_user(id)?,
            _ => return Err(undefined()),
        }
        Ok((name, detail, shown(self.read_users(Who::Id(id), &Page::ALL, None)?.pop())?))
    }

    fn on_file(&self, id: u32, verb: &str) -> Result<Deed, Failure> {
        let store = &self.tracker.store;
        let file = self.visible(id)?;
        let name = if file.name.is_empty() { file.info_hash.to_string() } else { file.name };
        let detail = match verb {
            "revoke" => self.reason()?,
            "rename" => self.given("name")?,
            "free" => worded(self.factors()?),
            _ => String::new(),
        };
        match verb {
            "approve" => store.set_verified(id, true, "")?,
            "revoke" => store.set_verified(id, false, &detail)?,
            "rename" => store.rename_file(id, &detail)?,
            "free" => store.set_factors(id, self.factors()?)?,
            "remove" => store.remove_file(id)?,
            _ => return Err(undefined()),
        }
        Ok((name, detail, shown(self.read_files(&[id])?.pop())?))
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
        let answer = Answer::json(&json!({ "free": self.tracker.swarms.free(self.now) }))?;
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
        Ok((client, String::new(), Answer::json(&json!({}))?))
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
