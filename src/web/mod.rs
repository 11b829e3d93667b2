//! Sends what browsers and scripts ask for: the status page from memory, and the answers of `api`.

mod api;
mod local;
mod metrics;
mod query;

use std::io;
use std::sync::LazyLock;

use ring::digest::{SHA256, digest};
use tiny_http::{Header, Response, StatusCode};

use crate::auth::{Failure, base64_encode};
use crate::net::http::{Pages, ReadWrite};
use crate::net::message::{HSTS, Request, print, split};
use crate::tracker::Tracker;
use crate::web::api::{Answer, admit, methods, respond, serves};
use crate::web::query::encoded;

/// What the listener calls for all that is neither announce nor scrape.
pub const PAGES: Pages = Pages { serves, answer_at_once, answer };

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
    let refused = admit(tracker, request).err();
    refused.iter().for_each(|failure| fail(tracker, request, failure, out));
    refused.is_some()
}

/// Answers a request that may ask the database, or whose answer may be long.
pub(crate) fn answer(tracker: &Tracker, request: &Request, stream: &mut dyn ReadWrite) -> io::Result<()> {
    let page = || Answer { media: "text/html; charset=utf-8", body: PAGE.into(), next: None, name: None };
    let mut out = Vec::new();
    let answer = match split(request.target).0 {
        "/" => admit(tracker, request).map(|_| page()),
        _ => respond(tracker, request, stream),
    };
    match answer {
        Ok(answer) => succeed(tracker, request, answer, &mut out),
        Err(failure) => fail(tracker, request, &failure, &mut out),
    }
    stream.write_all(&out)
}

fn succeed(tracker: &Tracker, request: &Request, answer: Answer, out: &mut Vec<u8>) {
    let mut headers = headers(answer.media);
    let next = answer.next.map(|query| format!("<?{query}>; rel=\"next\""));
    headers.extend(next.as_deref().map(|link| ("Link", link)));
    // Has a browser save it under this name (RFC 6266 and 8187).
    let name = answer.name.map(|name| format!("attachment; filename*=UTF-8''{}", encoded(&name)));
    headers.extend(name.as_deref().map(|name| ("Content-Disposition", name)));
    if answer.media.starts_with("text/html") {
        headers.push(("Content-Security-Policy", &POLICY));
    }
    tracker.metrics.api(200);
    send(request, 200, &headers, answer.body, out);
}

/// Appends an error, as JSON.
fn fail(tracker: &Tracker, request: &Request, Failure(status, why): &Failure, out: &mut Vec<u8>) {
    let mut headers = headers("application/json");
    match status {
        401 => headers.push(("WWW-Authenticate", "Basic realm=\"goat\", charset=\"UTF-8\"")),
        405 => headers.push(("Allow", methods(split(request.target).0))),
        429 | 503 => headers.push(("Retry-After", "60")),
        _ => {}
    }
    tracker.metrics.api(*status);
    send(request, *status, &headers, format!("{}\n", serde_json::json!({ "error": why })).into_bytes(), out);
}

/// What all answers say. None may be kept by a cache, for they hold what only one member may see.
fn headers(media: &str) -> Vec<(&'static str, &str)> {
    vec![
        ("Server", "goat"),
        ("Content-Type", media),
        ("Cache-Control", if media.starts_with("text/html") { "no-cache" } else { "no-store" }),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ]
}

fn send(request: &Request, status: u16, headers: &[(&'static str, &str)], body: Vec<u8>, out: &mut Vec<u8>) {
    let length = Some(body.len());
    let secure = request.secure.then_some(&HSTS);
    let headers = headers.iter().chain(secure).filter_map(|(name, value)| Header::from_bytes(*name, *value).ok());
    let response = Response::new(StatusCode(status), headers.collect(), io::Cursor::new(body), length, None);
    let response = response.with_chunked_threshold(usize::MAX);
    out.append(&mut print(response, request.method == "HEAD", request.connection()));
}
