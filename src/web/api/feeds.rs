//! Feeds for programs that fetch by themselves: RSS 2.0, and Torznab, which adds a search and what it can do.
//! The passkey in the path says for whom, so what they answer is for one member, and no cache keeps it.

use std::time::{Duration, SystemTime};

use super::{Call, number};
use crate::net::message::{Request, split};
use crate::protocol::Refusal;
use crate::rules::limits;
use crate::store::{FILE_ORDERS, Page, Torrent, VERIFIED, Which};
use crate::tracker::Tracker;
use crate::web::answer::{Answer, Failure};
use crate::web::query::Query;
use crate::web::signin::Proof;

/// The most torrents of one answer, and of a list that is paged.
const MOST: usize = 100;
const MOST_PAGED: usize = 1_000;
/// Torznab's number for what has no category; all has none here.
const OTHER: u32 = 8000;

/// What a feed's path asks for, and the passkey in it.
pub(crate) fn route(target: &str) -> Option<(&str, &str)> {
    let path = split(target).0.strip_prefix('/')?;
    let (passkey, feed) = path.split_once('/')?;
    let feed = feed.trim_end_matches('/');
    let known = matches!(feed, "rss" | "torznab" | "torznab/api") || feed.strip_prefix("torrent/").is_some();
    (known && passkey != "api").then_some((passkey, feed))
}

/// Answers a feed, or a torrent of one.
pub(crate) fn respond(tracker: &Tracker, request: &Request, passkey: &str, feed: &str) -> Result<Answer, Failure> {
    let (from, now) = (request.client(tracker), tracker.clock.now());
    let known = tracker.access.user(passkey).is_ok();
    if !known && tracker.limits.passkeys.room(Some(from), now).is_err() {
        return Err(Failure(429, "Too many wrong passkeys from this address: wait a minute".into()));
    }
    let Some(user) = tracker.store.user_by_passkey(passkey)? else {
        tracker.limits.fail(limits::Failure::Passkey, from, now);
        return Err(Failure(403, "Invalid passkey".into()));
    };
    if user.banned {
        return Err(Failure(403, tracker.access.words(&Refusal::Banned, Some(passkey))));
    }
    let call = Call { tracker, query: Query::read(split(request.target).1)?, user, proof: Proof::Signature, now };
    if let Some(id) = feed.strip_prefix("torrent/") {
        return call.copy(number(id)?);
    }
    let base = base(tracker, request);
    let asked = call.query.value("t").unwrap_or_default();
    let body = match (feed, asked.as_str()) {
        ("rss", _) | (_, "search") => call.items(&base)?,
        (_, "caps") => CAPS.replace("OTHER", &OTHER.to_string()).replace("MOST", &MOST.to_string()),
        _ => "<error code=\"203\" description=\"Function not available: t=caps or t=search\"/>".into(),
    };
    let media = if feed == "rss" { "application/rss+xml; charset=utf-8" } else { "application/xml; charset=utf-8" };
    Ok(Answer::of(media, format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}\n")))
}

const CAPS: &str = "<caps><server title=\"goat\"/><limits max=\"MOST\" default=\"MOST\"/><searching>\
    <search available=\"yes\" supportedParams=\"q\"/><tv-search available=\"no\" supportedParams=\"q\"/>\
    <movie-search available=\"no\" supportedParams=\"q\"/></searching>\
    <categories><category id=\"OTHER\" name=\"Other\"/></categories></caps>";

/// Where the feeds are, for whoever asks.
fn base(tracker: &Tracker, request: &Request) -> String {
    if !tracker.config.url.is_empty() {
        return tracker.config.url.trim_end_matches('/').into();
    }
    let host = request.header("Host").and_then(|host| str::from_utf8(host).ok()).unwrap_or("localhost");
    format!("{}://{host}", if request.secure { "https" } else { "http" })
}

impl Call<'_> {
    /// The newest torrents of those that are asked for.
    fn items(&self, base: &str) -> Result<String, Failure> {
        let mut search = self.tracker.store.search(&self.query.value("q").unwrap_or_default())?;
        (search.seen, search.kept, search.free) = (VERIFIED, true, self.only_free());
        let offset: usize = self.query.value("offset").and_then(|text| text.parse().ok()).unwrap_or(0);
        let limit = offset.saturating_add(self.query.limit.min(MOST)).min(MOST_PAGED);
        let page = Page { descending: true, limit, ..Page::named(&FILE_ORDERS, "id") };
        let ids = self.tracker.store.file_ids(Which::Found(&search), &page)?;
        let files = self.read_files(ids.get(offset..).unwrap_or_default())?;
        let items: String = files.iter().map(|file| self.item(file, base)).collect();
        Ok(format!(
            "<rss version=\"2.0\" xmlns:torznab=\"http://torznab.com/schemas/2015/feed\"><channel><title>goat</title>\
             <link>{base}/</link><description>Torrents of this tracker</description>{items}</channel></rss>",
            base = escape(base)
        ))
    }

    fn item(&self, file: &Torrent, base: &str) -> String {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(file.create_time.into());
        let url = escape(&format!("{base}/{}/torrent/{}", self.user.passkey, file.id));
        let volume = |percent: u16| format!("{}", f64::from(percent) / 100.0);
        let attributes = [
            ("category", OTHER.to_string()),
            ("size", file.size.to_string()),
            ("files", file.file_count.unwrap_or(0).to_string()),
            ("grabs", file.completed.to_string()),
            ("seeders", file.seeders.to_string()),
            ("peers", file.seeders.saturating_add(file.leechers).to_string()),
            ("infohash", file.info_hash.to_string()),
            ("downloadvolumefactor", volume(file.download_percent)),
            ("uploadvolumefactor", volume(file.upload_percent)),
        ];
        let attributes: String = attributes
            .iter()
            .map(|(name, value)| format!("<torznab:attr name=\"{name}\" value=\"{value}\"/>"))
            .collect();
        format!(
            "<item><title>{title}</title><guid isPermaLink=\"false\">{hash}</guid><link>{url}</link>\
             <pubDate>{date}</pubDate><category>{OTHER}</category><size>{size}</size>\
             <enclosure url=\"{url}\" length=\"{size}\" type=\"application/x-bittorrent\"/>{attributes}</item>",
            title = escape(&file.name),
            hash = file.info_hash,
            date = httpdate::fmt_http_date(time),
            size = file.size,
        )
    }
}

/// Text as it may stand in XML 1.0, also between quotes.
fn escape(text: &str) -> String {
    let escape = |c: char| match c {
        '&' | '<' | '>' | '"' | '\'' => format!("&#{};", u32::from(c)),
        c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => '\u{fffd}'.into(),
        c => c.into(),
    };
    text.chars().map(escape).collect()
}
