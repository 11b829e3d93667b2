//! The JSON API: who may see what, and the fields of each answer. Read-only, but for `POST /api/login`.
//!
//! Members see themselves, verified torrents, and counts of the others. Addresses, other members, and what
//! awaits approval are for administrators.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::json;

use crate::auth::{Caller, Credentials, Failure};
use crate::history::{COLUMNS, HOUR, STEP};
use crate::net::message::{Request, split};
use crate::rules::limits::Full;
use crate::store::{
    Activity, ApiFile, ApiUser, ClientRow, FileUser, KEY_LIFE, List, Member, MoreOfFile, PIECE, UserFile,
};
use crate::torrent::InfoHash;
use crate::tracker::{Tracker, announce_urls};
use crate::web::local::{hostname, is_local};
use crate::web::metrics::{self, Process};
use crate::web::query::Query;

/// Hours of history unless `after` says otherwise: a week.
const HOURS: u32 = 7 * 24;

/// Whether a request is for the API, the metrics or the page. Where there is no API, only the API says so.
pub fn serves(tracker: &Tracker, target: &str) -> bool {
    let path = split(target).0;
    path == "/api" || path.starts_with("/api/") || tracker.config.api && matches!(path, "/" | "/metrics")
}

/// The first checks, which need no database: is there an API, may this address try, and who does it say it
/// is? `None` needs nobody: the page, and the metrics from this machine.
pub fn admit(tracker: &Tracker, request: &Request) -> Result<Option<Credentials>, Failure> {
    if !tracker.config.api {
        return Err(Failure(503, "API is currently disabled".into()));
    }
    let path = split(request.target).0;
    let local = is_local(&tracker.config, request);
    if path == "/" || path == "/metrics" && local && request.header("Authorization").is_none() {
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
    if matches!(room, Err(Full::Address | Full::Network)) {
        tracker.limits.refused_logins.note(from);
        return Err(Failure(429, "Too many failures from this address: wait a minute".into()));
    }
    Credentials::of(request.header("Authorization")).map(Some)
}

/// An answer of status 200.
pub struct Answer {
    pub media: &'static str,
    pub body: Vec<u8>,
    /// Where a list has more rows: the query that asks for the next of them.
    pub next: Option<String>,
}

impl Answer {
    fn json(body: &impl Serialize) -> Result<Answer, Failure> {
        let mut body = serde_json::to_vec(body)?;
        body.push(b'\n');
        Ok(Answer { media: "application/json", body, next: None })
    }
}

/// Does what a request asks for.
pub fn respond(tracker: &Tracker, request: &Request) -> Result<Answer, Failure> {
    let credentials = admit(tracker, request)?;
    let (path, query) = split(request.target);
    let resource = request.target.find(path).and_then(|at| request.target.get(at..)).unwrap_or(path);
    let identify = |credentials| {
        let caller = Caller { from: request.client(tracker), method: request.method, resource, credentials };
        tracker.auth.identify(&tracker.config, &tracker.store, &tracker.limits, &caller, tracker.clock.now())
    };
    let caller = credentials.map(identify).transpose()?;
    if path == "/metrics" {
        if caller.is_some_and(|(member, _)| !member.admin) {
            return Err(forbidden());
        }
        let body = metrics::render(tracker).into_bytes();
        return Ok(Answer { media: "text/plain; version=0.0.4; charset=utf-8", body, next: None });
    }
    let Some((member, key_hash)) = caller else { return Err(undefined()) };
    let allowed: &[&str] = if path == "/api/login" { &["POST"] } else { &["GET", "HEAD"] };
    if !allowed.contains(&request.method) {
        return Err(Failure(405, "Method not allowed".into()));
    }
    let call = Call { tracker, query: Query::read(query)?, member, now: tracker.clock.now() };
    let words: Vec<&str> = path.trim_end_matches('/').split('/').skip(2).collect();
    match *words.as_slice() {
        ["login"] => call.login(key_hash),
        ["files"] => call.files(),
        ["files", id] => call.file(number(id)?),
        ["users"] => call.users(),
        ["users", id] => call.user(number(id)?),
        ["me"] => call.user(call.member.id),
        ["clients"] => call.clients(),
        ["status"] => call.status(),
        ["history"] => call.history(),
        _ => Err(undefined()),
    }
}

fn undefined() -> Failure {
    Failure(404, "Undefined API call".into())
}

fn forbidden() -> Failure {
    Failure(403, "Only an administrator may see this".into())
}

/// An id in a path.
fn number(text: &str) -> Result<u32, Failure> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wrong = || Failure(400, "Invalid integer ID".into());
    if digits { text.parse().map_err(|_| wrong()) } else { Err(wrong()) }
}

/// A member with all that is known of them.
#[derive(Serialize)]
struct FullUser {
    #[serde(flatten)]
    user: ApiUser,
    #[serde(flatten)]
    activity: Activity,
    /// For nobody's eyes but the member's.
    #[serde(flatten)]
    own: Option<Own>,
    torrents: Vec<UserFile>,
}

/// A torrent with those who are on it; first the fields of the original.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FullFile {
    #[serde(flatten)]
    file: ApiFile,
    file_users: Vec<FileUser>,
    #[serde(flatten)]
    more: Option<MoreOfFile>,
}

#[derive(Serialize)]
struct Own {
    passkey: String,
    announce: Vec<String>,
}

/// A key to sign calls with, as the original answers it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Login<'a> {
    user_id: u32,
    pubkey: &'a str,
    secret: &'a str,
    /// Seconds since 1970.
    expire: u32,
}

/// The state of the tracker. The first fields are those of the original, in its order and words.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    pid: u32,
    hostname: String,
    platform: &'static str,
    architecture: &'static str,
    num_cpu: usize,
    /// Threads.
    num_goroutine: u64,
    /// Resident, in millions of bytes.
    memory_mb: f64,
    http: Requests,
    udp: Requests,
    version: &'static str,
    /// Seconds since 1970.
    start_time: u32,
    time: u32,
    users: usize,
    torrents: u64,
    active_torrents: u64,
    seeders: u64,
    leechers: u64,
    /// Since the start.
    announces: u64,
    refused: u64,
    uploaded: u64,
    downloaded: u64,
    database: Database,
}

/// Requests that came in: in the last minute, and since the start.
#[derive(Serialize)]
struct Requests {
    current: u64,
    total: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Database {
    up: bool,
    unsaved_rows: u64,
    /// Seconds.
    unsaved_age: u32,
}

/// A call by a member who is known.
struct Call<'a> {
    tracker: &'a Tracker,
    query: Query<'a>,
    member: Member,
    now: u32,
}

impl Call<'_> {
    /// Makes a key to sign calls with.
    fn login(&self, key_hash: Option<String>) -> Result<Answer, Failure> {
        let no_basic = || Failure(403, "Log in with your API key (HTTP Basic)".into());
        let public = self.tracker.store.add_login(self.member.id, &key_hash.ok_or_else(no_basic)?, self.now)?;
        let secret = self.tracker.auth.secret(&self.tracker.config, &public, self.member.id)?;
        let expire = self.now.saturating_add(KEY_LIFE);
        Answer::json(&Login { user_id: self.member.id, pubkey: &public, secret: &secret, expire })
    }

    /// Only an administrator goes on.
    fn admin(&self) -> Result<(), Failure> {
        if self.member.admin { Ok(()) } else { Err(forbidden()) }
    }

    /// Whether the caller sees torrents that are not verified.
    fn sees_pending(&self) -> bool {
        self.member.admin || !self.tracker.config.verified
    }

    /// How many ids of a list have to be read: where it is continued, all, to find the place.
    fn most(&self) -> usize {
        if self.query.after.is_some() { usize::MAX } else { self.query.limit.saturating_add(1) }
    }

    /// The rows of a list that `after` and `limit` leave of `ids`, and the query for the next ones.
    fn rows<T>(
        &self,
        ids: &[u32],
        by: (&str, bool),
        read: impl Fn(&[u32]) -> Result<Vec<T>, Failure>,
    ) -> Result<(Vec<T>, Option<String>), Failure> {
        let start = match (self.query.after, by) {
            (None, _) => 0,
            (Some(after), ("id", descending)) => {
                ids.partition_point(|id| if descending { *id >= after } else { *id <= after })
            }
            (Some(after), _) => {
                let found = ids.iter().position(|id| *id == after);
                1 + found.ok_or_else(|| Failure(400, "Invalid after: no row has this id".into()))?
            }
        };
        let ids = ids.get(start..).unwrap_or_default();
        let (ids, rest) = ids.split_at_checked(self.query.limit).unwrap_or((ids, &[]));
        let mut rows = Vec::with_capacity(ids.len());
        for piece in ids.chunks(PIECE) {
            rows.extend(read(piece)?);
        }
        let last = if rest.is_empty() { None } else { ids.last() };
        Ok((rows, last.map(|last| self.query.next(*last))))
    }

    fn files(&self) -> Result<Answer, Failure> {
        const NAMES: [(&str, &str); 7] = [
            ("id", "id"),
            ("name", "name"),
            ("size", "size"),
            ("completed", "completed"),
            ("createTime", "create_time"),
            ("updateTime", "update_time"),
            ("peers", "peers"),
        ];
        let (column, descending) = self.query.sort(&NAMES)?;
        if self.query.pending {
            self.admin()?;
        }
        let list = List::Files { verified: !self.sees_pending(), pending: self.query.pending };
        let ids = if column == "peers" {
            // Memory knows these.
            let mut ids = self.tracker.store.ids(list, "id", descending, usize::MAX)?;
            // With room for all from the start: announces wait while a shard is locked.
            let mut peers = Vec::with_capacity(self.tracker.history.counts().torrents as usize);
            for shard in self.tracker.swarms.each() {
                peers.extend(shard.torrents.values().filter_map(|t| Some((t.id, t.swarm.as_ref()?.len() as i64))));
            }
            let peers: HashMap<u32, i64> = peers.into_iter().collect();
            let sign = if descending { -1 } else { 1 };
            ids.sort_by_cached_key(|id| peers.get(id).map_or(0, |count| count * sign));
            ids
        } else {
            self.tracker.store.ids(list, column, descending, self.most())?
        };
        let (files, next) = self.rows(&ids, (column, descending), |piece| {
            let mut files = self.tracker.store.api_files(piece)?;
            files.iter_mut().for_each(|file| self.count_peers(file));
            Ok(files)
        })?;
        Ok(Answer { next, ..Answer::json(&files)? })
    }

    fn count_peers(&self, file: &mut ApiFile) {
        if let Ok(hash) = file.info_hash.parse::<InfoHash>() {
            let shard = self.tracker.swarms.shard(&hash);
            if let Some(swarm) = shard.torrents.get(&hash).and_then(|torrent| torrent.swarm.as_deref()) {
                (file.seeders, file.leechers) = (swarm.seeders(), swarm.leechers());
            }
        }
    }

    fn file(&self, id: u32) -> Result<Answer, Failure> {
        let found = self.tracker.store.api_files(&[id])?.pop().filter(|file| file.verified || self.sees_pending());
        let mut file = found.ok_or_else(|| Failure(404, "There is no file with this ID".into()))?;
        self.count_peers(&mut file);
        let more = file.more.take();
        let only = (!self.member.admin).then_some(self.member.id);
        let limit = self.query.limit;
        let from = self.query.after.map_or(0, |after| after.saturating_add(1));
        let mut file_users = self.tracker.store.file_users(id, only, from, limit.saturating_add(1))?;
        let more_users = file_users.len() > limit;
        file_users.truncate(limit);
        let last = file_users.last().filter(|_| more_users).map(|last| self.query.next(last.user_id));
        Ok(Answer { next: last, ..Answer::json(&FullFile { file, file_users, more })? })
    }

    fn users(&self) -> Result<Answer, Failure> {
        const NAMES: [(&str, &str); 5] = [
            ("id", "id"),
            ("username", "username"),
            ("uploaded", "uploaded"),
            ("downloaded", "downloaded"),
            ("createTime", "create_time"),
        ];
        self.admin()?;
        let (column, descending) = self.query.sort(&NAMES)?;
        let ids = self.tracker.store.ids(List::Users, column, descending, self.most())?;
        let (users, next) = self.rows(&ids, (column, descending), |piece| self.read_users(piece))?;
        Ok(Answer { next, ..Answer::json(&users)? })
    }

    fn read_users(&self, ids: &[u32]) -> Result<Vec<ApiUser>, Failure> {
        let mut users = self.tracker.store.api_users(ids)?;
        for user in &mut users {
            user.active = self.tracker.access.by_id(user.id).map_or(0, |user| user.active());
        }
        Ok(users)
    }

    fn user(&self, id: u32) -> Result<Answer, Failure> {
        let (tracker, own) = (self.tracker, id == self.member.id);
        if !own {
            self.admin()?;
        }
        let user = self.read_users(&[id])?.pop().ok_or_else(|| Failure(404, "There is no user with this ID".into()))?;
        let passkey = if own { Some(tracker.store.passkey(id)?) } else { None };
        let own = passkey.map(|passkey| Own { announce: announce_urls(&tracker.config, &passkey), passkey });
        // The ones announced last come first.
        let ids = tracker.store.ids(List::FilesOf(id), "time", true, self.most())?;
        let (torrents, next) = self.rows(&ids, ("time", true), |piece| Ok(tracker.store.user_files(id, piece)?))?;
        let user = FullUser { user, activity: tracker.store.activity(id)?, own, torrents };
        Ok(Answer { next, ..Answer::json(&user)? })
    }

    /// The clients that are let in, and for administrators also the others; with the peers whose ids begin
    /// so, as of the last minute.
    fn clients(&self) -> Result<Answer, Failure> {
        let clients = self.tracker.store.clients()?;
        let peers = self.tracker.history.peers_by_client(&self.tracker.swarms, self.now);
        let mut rows = Vec::new();
        for client in clients.iter().filter(|client| client.approved || self.member.admin) {
            let prefix = client.client.as_bytes();
            let fits = |head: &[u8; 8]| head.starts_with(prefix.get(..8).unwrap_or(prefix));
            let count: u64 = peers.iter().filter(|(head, _)| fits(head)).map(|(_, count)| count).sum();
            let ClientRow { client, approved, pending, .. } = client;
            rows.push(json!({ "client": client, "approved": approved, "pending": pending, "peers": count }));
        }
        Answer::json(&rows)
    }

    fn status(&self) -> Result<Answer, Failure> {
        use std::env::consts::{ARCH, OS};
        let (tracker, metrics, process) = (self.tracker, &self.tracker.metrics, Process::now());
        let history = &tracker.history;
        let (counts, (announces, refused)) = (history.counts(), metrics.announces());
        let (http, udp) = metrics.requests();
        let (http_before, udp_before) = history.requests_a_minute_ago(self.now);
        let [uploaded, downloaded] = tracker.store.moved();
        let requests = |total: u64, before: u64| Requests { current: total.saturating_sub(before), total };
        let status = Status {
            pid: std::process::id(),
            hostname: hostname(),
            platform: OS,
            // Go's words.
            architecture: match ARCH {
                "x86_64" => "amd64",
                "x86" => "386",
                "aarch64" => "arm64",
                other => other,
            },
            num_cpu: std::thread::available_parallelism().map_or(1, usize::from),
            num_goroutine: process.threads,
            memory_mb: process.resident as f64 / 1e6,
            // This request is one.
            http: requests(http.saturating_add(1), http_before),
            udp: requests(udp, udp_before),
            version: env!("CARGO_PKG_VERSION"),
            start_time: tracker.clock.started(),
            time: self.now,
            users: tracker.access.users(),
            torrents: counts.torrents,
            active_torrents: counts.active,
            seeders: counts.seeders,
            leechers: counts.leechers,
            announces,
            refused,
            uploaded,
            downloaded,
            database: Database {
                up: metrics.database_up(),
                unsaved_rows: tracker.stats.unsaved.load(std::sync::atomic::Ordering::Relaxed),
                unsaved_age: metrics.unsaved_age(self.now),
            },
        };
        Answer::json(&status)
    }

    /// What happened: the last half hour in steps, and a week by the hour; of both only what is after
    /// `after`.
    fn history(&self) -> Result<Answer, Failure> {
        let after = self.query.after.unwrap_or(self.now.saturating_sub(HOURS * HOUR));
        let recent = self.tracker.history.rows(self.query.after.unwrap_or(0));
        let hours = self.tracker.store.hours(after)?;
        Answer::json(&json!({ "step": STEP, "columns": COLUMNS, "recent": recent, "hours": hours }))
    }
}
