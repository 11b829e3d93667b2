//! The JSON API: who may see and do what, and the fields of each answer. GET changes nothing.
//!
//! Members see themselves, verified torrents, and counts of the others. Addresses, other members, and what
//! awaits approval are for administrators.

mod admin;
mod feeds;
mod me;
mod torrents;

use std::collections::HashMap;

use serde_json::json;

use crate::history::{HOUR, STEP};
use crate::net::http::ReadWrite;
use crate::net::message::{Request, split};
use crate::rules::announce::silence;
use crate::rules::limits::Reason;
use crate::snapshot::Snapshot;
use crate::store::{
    BY_TIME, FILE_ORDERS, HISTORY, KEY_LIFE, NOT_REFUSED, Page, Torrent, USER_ORDERS, User, VERIFIED, Which, Who,
};
use crate::tracker::{Tracker, announce_urls};
use crate::web::answer::{Answer, Failure};
use crate::web::metrics;
use crate::web::query::Query;
use crate::web::signin::{Credentials, Proof, is_local, secret_of};

/// Hours of history unless `after` says otherwise: a week.
const HOURS: u32 = 7 * 24;

/// Whether a request is for the API, the metrics or the page. Where there is no API, only the API says so.
pub(crate) fn serves(tracker: &Tracker, target: &str) -> bool {
    let path = split(target).0;
    path == "/api"
        || path.starts_with("/api/")
        || tracker.config.api && (matches!(path, "/" | "/metrics") || feeds::route(target).is_some())
}

/// The first checks, which need no database: is there an API, may this address try, and who does it say it
/// is? `None` needs nobody: the page, invitations, and the metrics from this machine.
pub(crate) fn admit(tracker: &Tracker, request: &Request) -> Result<Option<Credentials>, Failure> {
    if !tracker.config.api {
        return Err(Failure(503, "API is currently disabled".into()));
    }
    let path = split(request.target).0;
    let local = is_local(&tracker.config, request);
    if path == "/"
        || feeds::route(request.target).is_some()
        || path == "/metrics" && local && request.header("Authorization").is_none()
    {
        return Ok(None);
    }
    // What another site makes a browser send is not what the member wanted. Browsers say by Sec-Fetch-Site what
    // does, but over HTTP only to this machine; there they say Origin.
    let site = |origin| str::from_utf8(origin).ok()?.split_once("://").map(|(_, site)| site.as_bytes());
    let own = match request.header("Sec-Fetch-Site") {
        Some(from) => from == b"none" || from == b"same-origin",
        None => request.header("Origin").is_none_or(|origin| site(origin) == request.header("Host")),
    };
    if !own {
        return Err(Failure(403, "Calls from other sites are not allowed".into()));
    }
    let from = request.client(tracker);
    let room = tracker.limits.logins.room(Some(from), tracker.clock.now());
    // Where too many failed in all to be remembered, the others are not shut out.
    if matches!(room, Err(Reason::Address | Reason::Network)) {
        tracker.limits.refused_logins.note(from);
        return Err(Failure(429, "Too many failures from this address: wait a minute".into()));
    }
    if path.starts_with("/api/invite/") {
        return Ok(None);
    }
    Credentials::of(request).map(Some)
}

pub(crate) fn respond(tracker: &Tracker, request: &Request, stream: &mut dyn ReadWrite) -> Result<Answer, Failure> {
    let credentials = admit(tracker, request)?;
    if let Some((passkey, feed)) = feeds::route(request.target) {
        return feeds::respond(tracker, request, passkey, feed);
    }
    let caller = credentials.map(|credentials| credentials.identify(tracker, request)).transpose()?;
    let (path, query) = split(request.target);
    if path == "/metrics" {
        if caller.is_some_and(|(user, _)| !user.admin) {
            return Err(forbidden());
        }
        return Ok(Answer::of("text/plain; version=0.0.4; charset=utf-8", metrics::render(tracker)));
    }
    if !methods(path).split(", ").any(|method| method == request.method) {
        return Err(Failure(405, "Method not allowed".into()));
    }
    let (query, words) = (Query::read(query)?, words(path));
    let Some((user, proof)) = caller else { return me::invited(tracker, request, &words, &query) };
    let call = Call { tracker, query, user, proof, now: tracker.clock.now() };
    match *words.as_slice() {
        ["login"] if request.method == "DELETE" => call.log_out(),
        ["login"] => call.log_in(),
        ["me", what] => call.on_me(what, request),
        ["files"] if request.uploads() => call.upload(request, stream),
        _ if request.method == "POST" => call.act(&words),
        ["files"] => call.files(),
        ["files", id] => call.file(number(id)?),
        ["files", id, "torrent"] => call.copy(number(id)?),
        ["users"] => call.users(),
        ["users", id] => call.user(number(id)?),
        ["me"] => call.user(call.user.id),
        ["clients"] => call.clients(),
        ["status"] => call.status(),
        ["history"] => call.history(),
        ["log"] => call.actions(),
        _ => Err(undefined()),
    }
}

/// What follows `/api/`.
fn words(path: &str) -> Vec<&str> {
    path.trim_end_matches('/').split('/').skip(2).collect()
}

/// The methods that a call knows.
pub fn methods(path: &str) -> &'static str {
    match words(path)[..] {
        ["login"] => "POST, DELETE",
        ["files"] | ["users"] | ["invite", _] => "GET, HEAD, POST",
        ["free"] => "POST",
        ["files", _, "approve" | "revoke" | "rename" | "free" | "remove"] => "POST",
        ["users", _, "ban" | "unban" | "limit" | "credit" | "admin" | "rename" | "remove"] => "POST",
        ["users", _, "passkey" | "key" | "invitations"] => "POST",
        ["me", "password" | "passkey" | "key" | "invite"] => "POST",
        ["clients", "approve" | "deny" | "remove"] => "POST",
        _ => "GET, HEAD",
    }
}

fn undefined() -> Failure {
    Failure(404, "Undefined API call".into())
}

fn forbidden() -> Failure {
    Failure(403, "This is for administrators".into())
}

/// An id in a path.
fn number(text: &str) -> Result<u32, Failure> {
    let digits = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| Failure(400, "Invalid integer ID".into()))
}

/// A call by a member who is known.
struct Call<'a> {
    tracker: &'a Tracker,
    query: Query<'a>,
    user: User,
    proof: Proof,
    now: u32,
}

impl Call<'_> {
    /// Only who has given a name and a secret goes on; returns what the database has of that.
    fn secret(&self) -> Result<&str, Failure> {
        match &self.proof {
            Proof::Secret(hash) => Ok(hash),
            _ => Err(Failure(403, "This takes your user name, and your API key or password (HTTP Basic)".into())),
        }
    }

    fn log_in(&self) -> Result<Answer, Failure> {
        let user_id = self.user.id;
        let public = self.tracker.store.add_login(user_id, self.secret()?, self.now)?;
        let secret = secret_of(self.tracker, &public, user_id)?;
        let expire = self.now.saturating_add(KEY_LIFE);
        Answer::json(&json!({ "userId": user_id, "pubkey": public, "secret": secret, "expire": expire }))
    }

    fn log_out(&self) -> Result<Answer, Failure> {
        match &self.proof {
            Proof::Token(public) => self.tracker.store.remove_login(public)?,
            _ => return Err(Failure(403, "This takes the key that is to end (Bearer)".into())),
        }
        Answer::json(&json!({}))
    }

    /// Only an administrator goes on.
    fn admin(&self) -> Result<(), Failure> {
        if self.user.admin { Ok(()) } else { Err(forbidden()) }
    }

    fn files(&self) -> Result<Answer, Failure> {
        let pending = self.query.on("pending");
        if pending {
            self.admin()?;
        }
        let mut search = self.tracker.store.search(&self.query.value("q").unwrap_or_default())?;
        search.seen = match self.tracker.config.verified {
            _ if self.user.admin => "",
            true => VERIFIED,
            false => NOT_REFUSED,
        };
        search.free = self.only_free();
        search.mine = self.query.on("mine").then_some(self.user.id);
        let which = if pending { Which::Pending } else { Which::Found(&search) };
        let mut ids = match self.query.sort() {
            ("peers", descending) => self.by_peers(which, descending)?,
            _ => self.tracker.store.file_ids(which, &self.query.page(&FILE_ORDERS)?)?,
        };
        let header = self.query.cut(&mut ids, |id| *id);
        Ok(Answer { header, ..Answer::json(&self.read_files(&ids)?)? })
    }

    /// Whether only some torrents are freeleech, and only those are asked for.
    fn only_free(&self) -> bool {
        self.query.on("free") && self.tracker.swarms.free(self.now).is_none_or(|free| free.factors.download > 0)
    }

    /// The ids of the torrents that are wanted, in the order of their peers, which memory knows.
    fn by_peers(&self, which: Which, descending: bool) -> Result<Vec<u32>, Failure> {
        let mut ids = self.tracker.store.file_ids(which, &Page { descending, ..Page::ALL })?;
        // With room for all from the start: announces wait while a shard is locked.
        let mut peers = Vec::with_capacity(ids.len());
        for shard in self.tracker.swarms.each() {
            peers.extend(shard.torrents.values().filter_map(|t| Some((t.id, t.swarm.as_ref()?.len() as i64))));
        }
        let peers: HashMap<u32, i64> = peers.into_iter().collect();
        let sign = if descending { -1 } else { 1 };
        ids.sort_by_cached_key(|id| peers.get(id).map_or(0, |count| count * sign));
        let page = self.query.part(Page::ALL);
        let absent = || Failure(400, "Invalid after: no row has this id".into());
        let behind = |after| ids.iter().position(|id| *id == after).map(|at| at + 1).ok_or_else(absent);
        let start = page.after.map_or(Ok(0), behind)?;
        Ok(ids.into_iter().skip(start).take(page.limit).collect())
    }

    /// Torrents by their ids, in that order, with what memory knows of them.
    fn read_files(&self, ids: &[u32]) -> Result<Vec<Torrent>, Failure> {
        let mut files = HashMap::with_capacity(ids.len());
        let (theirs, free) = (self.tracker.store.theirs(self.user.id, ids)?, self.tracker.swarms.free(self.now));
        self.tracker.store.files(Which::Ids(ids), &Page::ALL, None, |mut file| {
            if !self.user.admin {
                file.suggested_by = None;
            }
            file.mine = Some(theirs.contains(&file.id));
            file.improve(free);
            let shard = self.tracker.swarms.shard(&file.info_hash);
            if let Some(swarm) = shard.torrents.get(&file.info_hash).and_then(|torrent| torrent.swarm.as_deref()) {
                file.seeders = swarm.seeders() as u32;
                file.leechers = swarm.leechers() as u32;
            }
            drop(shard);
            files.insert(file.id, file);
        })?;
        Ok(ids.iter().filter_map(|id| files.remove(id)).collect())
    }

    /// A torrent that the caller may see: also what they sent and nobody has approved.
    fn visible(&self, id: u32) -> Result<Torrent, Failure> {
        let absent = || Failure(404, "There is no file with this ID".into());
        let file = self.read_files(&[id])?.pop().ok_or_else(absent)?;
        let all = self.user.admin || file.verified || !self.tracker.config.verified && !file.refused;
        if all || self.tracker.store.uploader(id)? == Some(self.user.id) { Ok(file) } else { Err(absent()) }
    }

    fn file(&self, id: u32) -> Result<Answer, Failure> {
        let file = self.visible(id)?;
        let only = (!self.user.admin).then_some(self.user.id);
        let mut users = self.tracker.store.file_users(id, only, &self.query.part(Page::ALL))?;
        let header = self.query.cut(&mut users, |user| user.user_id);
        let files = self.contents(id)?;
        Ok(Answer { header, ..Answer::json(&Torrent { file_users: Some(users), files, ..file })? })
    }

    fn users(&self) -> Result<Answer, Failure> {
        self.admin()?;
        let part = self.query.value("q").unwrap_or_default();
        let mut users = self.read_users(Who::Called(&part), &self.query.page(&USER_ORDERS)?, None)?;
        let header = self.query.cut(&mut users, |user| user.id);
        Ok(Answer { header, ..Answer::json(&users)? })
    }

    fn read_users(&self, who: Who, page: &Page, since: Option<u32>) -> Result<Vec<User>, Failure> {
        let mut users = Vec::new();
        self.tracker.store.users(who, page, since, |user| {
            let active = Some(self.tracker.access.by_id(user.id).map_or(0, |user| user.active()));
            users.push(User { active, username: Some(user.name.clone()), ..user });
        })?;
        Ok(users)
    }

    fn user(&self, id: u32) -> Result<Answer, Failure> {
        let tracker = self.tracker;
        let own = id == self.user.id;
        if !own {
            self.admin()?;
        }
        let since = self.now.saturating_sub(silence(&tracker.config));
        let found = self.read_users(Who::Id(id), &Page::ALL, Some(since))?.pop();
        let mut user = found.ok_or_else(|| Failure(404, "There is no user with this ID".into()))?;
        if !self.user.admin {
            user.ban_reason.clear(); // It is for operators, as is the other.
            user.invited_by = None;
        }
        let mut shown = serde_json::to_value(&user)?;
        // What is for nobody else's eyes.
        if own {
            shown["passkey"] = json!(user.passkey);
            shown["announce"] = json!(announce_urls(&tracker.config, &user.passkey));
            shown["password"] = json!(tracker.store.has_password(id)?);
        }
        // How many they may give, and those that are open.
        let (invitations, invites) = tracker.store.invitations(&user, self.now)?;
        let mut torrents = tracker.store.user_files(id, &self.query.part(Page::by(&BY_TIME, true)))?;
        let header = self.query.cut(&mut torrents, |row| row.file_id);
        shown["invitations"] = json!(invitations);
        shown["invites"] = json!(invites);
        shown["torrents"] = json!(torrents);
        Ok(Answer { header, ..Answer::json(&shown)? })
    }

    /// The clients that are let in, and for administrators also the others; with the peers whose ids begin
    /// so, as of the last minute.
    fn clients(&self) -> Result<Answer, Failure> {
        let mut clients = self.tracker.store.clients()?;
        let peers = self.tracker.history.peers_by_client(&self.tracker.swarms, self.now);
        clients.retain(|client| client.approved || self.user.admin);
        for client in &mut clients {
            let prefix = client.client.as_bytes();
            let fits = |head: &[u8; 8]| head.starts_with(prefix.get(..8).unwrap_or(prefix));
            client.peers = Some(peers.iter().filter(|(head, _)| fits(head)).map(|(_, count)| count).sum());
            client.suggested_by = client.suggested_by.take().filter(|_| self.user.admin);
        }
        Answer::json(&clients)
    }

    fn status(&self) -> Result<Answer, Failure> {
        let mut now = Snapshot::take(self.tracker);
        // This request is one.
        now.http.total = now.http.total.saturating_add(1);
        now.http.current = now.http.current.saturating_add(1);
        Answer::json(&now)
    }

    /// What happened: the last half hour in steps, or minutes before goat's start, and a week by the hour; of both only
    /// what is after `after`.
    fn history(&self) -> Result<Answer, Failure> {
        let after = self.query.after.unwrap_or(self.now.saturating_sub(HOURS * HOUR));
        let recent = self.tracker.history.rows(self.query.after.unwrap_or(0));
        let hours = self.tracker.store.history("hours", after, self.now)?;
        let columns: Vec<&str> = HISTORY.split(", ").collect();
        Answer::json(&json!({ "step": STEP, "columns": columns, "recent": recent, "hours": hours }))
    }
}
