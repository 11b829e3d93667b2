//! Sends what browsers and scripts ask for: the status page from memory, and the answers of `api`.

mod answer;
mod api;
mod base64;
mod metrics;
mod password;
mod query;
mod signin;

use std::io;
use std::sync::LazyLock;

use ring::digest::{SHA256, digest};
use tiny_http::{Header, Response, StatusCode};

use crate::net::http::{Pages, ReadWrite};
use crate::net::message::{HSTS, Request, print, split};
use crate::tracker::Tracker;
use crate::web::answer::{Answer, Failure};
use crate::web::api::{admit, methods, respond, serves};
use crate::web::base64::base64_encode;

/// What the listener calls for all that is neither announce nor scrape.
pub const PAGES: Pages = Pages { serves, answer_at_once, answer };

const HTML: &str = "text/html; charset=utf-8";
/// The status page: HTML, style and script.
const PAGE: &str = include_str!("../../res/page.html");

/// The policy that lets only the page's own script and style run.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |tag: &str| {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let inner = PAGE.split_once(&open).and_then(|(_, rest)| rest.split_once(&close)).map_or("", |(inner, _)| inner);
        format!("'sha256-{}'", base64_encode(digest(&SHA256, inner.as_bytes()).as_ref()))
    };
    format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'",
        hash("script"),
        hash("style")
    )
});

/// Appends why a request is refused, where that needs no database. Returns whether it is; else the request is for
/// [`answer`].
pub(crate) fn answer_at_once(tracker: &Tracker, request: &Request, out: &mut Vec<u8>) -> bool {
    let refused = admit(tracker, request).err().map(|failure| print_answer(tracker, request, Err(failure)));
    out.extend(refused.iter().flatten());
    refused.is_some()
}

/// Answers a request that may ask the database, or whose answer may be long.
pub(crate) fn answer(tracker: &Tracker, request: &Request, stream: &mut dyn ReadWrite) -> io::Result<()> {
    let page = || Answer { header: Some(("Content-Security-Policy", POLICY.clone())), ..Answer::of(HTML, PAGE) };
    let answer = match split(request.target).0 {
        "/" => admit(tracker, request).map(|_| page()),
        _ => respond(tracker, request, stream),
    };
    stream.write_all(&print_answer(tracker, request, answer))
}

/// An error, as JSON.
fn error(request: &Request, status: u16, why: &str) -> Answer {
    let header = match status {
        401 => Some(("WWW-Authenticate", "Basic realm=\"goat\", charset=\"UTF-8\"")),
        405 => Some(("Allow", methods(split(request.target).0))),
        429 | 503 => Some(("Retry-After", "60")),
        _ => None,
    };
    let header = header.map(|(name, value)| (name, value.to_string()));
    Answer { header, ..Answer::of("application/json", format!("{}\n", serde_json::json!({ "error": why }))) }
}

/// Counts an answer, and returns it as it is sent. None may be kept by a cache, for they hold what only one member may
/// see.
fn print_answer(tracker: &Tracker, request: &Request, answer: Result<Answer, Failure>) -> Vec<u8> {
    let (status, Answer { media, body, header }) = match answer {
        Ok(answer) => (200, answer),
        Err(Failure(status, why)) => (status, error(request, status, &why)),
    };
    tracker.metrics.api(status);
    let headers = [
        ("Server", "goat"),
        ("Content-Type", media),
        ("Cache-Control", if media == HTML { "no-cache" } else { "no-store" }),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ];
    let own = header.as_ref().map(|(name, value)| (*name, value.as_str()));
    let headers = headers.into_iter().chain(own).chain(request.secure.then_some(HSTS));
    let headers = headers.filter_map(|(name, value)| Header::from_bytes(name, value).ok()).collect();
    let length = Some(body.len());
    let response = Response::new(StatusCode(status), headers, io::Cursor::new(body), length, None);
    print(response.with_chunked_threshold(usize::MAX), request.method == "HEAD", request.connection())
}
