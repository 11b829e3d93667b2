//! Sends what browsers and scripts ask for: the status page from memory, the answers of `api` whole where
//! they are short, else in chunks while they are made. Compresses, and answers 304 where nothing changed.

pub mod api;
mod local;
pub mod metrics;

use std::io::{self, ErrorKind, Write};
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest::{SHA256, digest};
use tiny_http::{Header, Response, StatusCode};

use crate::auth::{Failure, base64_encode};
use crate::net::http::Pages;
use crate::net::message::{HSTS, Request, print, split};
use crate::random::hex;
use crate::tracker::Tracker;
use crate::web::api::{admit, respond, serves};

/// What the listener calls for all that is neither announce nor scrape.
pub const PAGES: Pages = Pages { serves, answer_at_once, answer };

/// The status page: HTML, style and script.
const PAGE: &str = include_str!("../../res/page.html");
/// A longer answer is sent while it is made.
const WHOLE: usize = 256 * 1024;
/// What one chunk holds, about.
const CHUNK: usize = 16 * 1024;
/// A shorter answer is not worth compressing: it fits a packet.
const COMPRESS: usize = 1_000;

/// The page compressed, its tag, and the policy that lets only its own script and style run.
static READY: LazyLock<(Vec<u8>, String, String)> = LazyLock::new(|| {
    let hash = |tag: &str| {
        let (open, close) = (format!("<{tag}>"), format!("</{tag}>"));
        let inner = PAGE.split_once(&open).and_then(|(_, rest)| rest.split_once(&close)).map_or("", |(inner, _)| inner);
        format!("'sha256-{}'", base64_encode(digest(&SHA256, inner.as_bytes()).as_ref()))
    };
    let policy = format!(
        "default-src 'none'; script-src {}; style-src {}; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'",
        hash("script"),
        hash("style")
    );
    (gzip(PAGE.as_bytes(), Compression::best()), tag(PAGE.as_bytes()), policy)
});

/// What an answer is known by (RFC 9110, section 8.8.3); weak, for it is the same compressed.
fn tag(body: &[u8]) -> String {
    format!("W/\"{}\"", hex(digest(&SHA256, body).as_ref().get(..16).unwrap_or_default()))
}

fn gzip(bytes: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    // Writing to a Vec cannot fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

/// Appends why a request is refused, where that needs no database. Returns whether it is; else the request is for
/// [`answer`].
pub fn answer_at_once(tracker: &Tracker, request: &Request, out: &mut Vec<u8>) -> bool {
    match admit(tracker, request) {
        Err(failure) => fail(tracker, request, &failure, out),
        Ok(_) => return false,
    }
    true
}

/// Answers a request that may ask the database, or whose answer may be long.
pub fn answer(tracker: &Tracker, request: &Request, stream: &mut dyn Write) -> io::Result<()> {
    if split(request.target).0 == "/" {
        let mut out = Vec::new();
        match admit(tracker, request) {
            Ok(_) => whole(tracker, request, "text/html; charset=utf-8", None, &mut out),
            Err(failure) => fail(tracker, request, &failure, &mut out),
        }
        return stream.write_all(&out);
    }
    let mut body = Body { request, stream: Some(stream), whole: Vec::new(), sink: None };
    let done = respond(tracker, request, &mut body);
    let (Some(stream), whole_body) = (body.stream.take(), body.whole) else {
        tracker.metrics.api(200);
        return match (done, body.sink) {
            (Ok(_), Some(sink)) => sink.finish(),
            // The connection ends without the last chunk, so that nobody takes it for the whole list.
            (Err(Failure(_, why)), _) => Err(io::Error::other(why)),
            (Ok(_), None) => Ok(()),
        };
    };
    let mut out = Vec::new();
    match &done {
        Ok((media, _)) => whole(tracker, request, media, Some(whole_body), &mut out),
        Err(failure) => fail(tracker, request, failure, &mut out),
    }
    stream.write_all(&out)
}

/// Appends a whole answer of status 200, or 304 where the client has it: a body, or the page.
fn whole(tracker: &Tracker, request: &Request, media: &str, body: Option<Vec<u8>>, out: &mut Vec<u8>) {
    let plain = body.as_deref().unwrap_or(PAGE.as_bytes());
    let tag = body.as_deref().map_or_else(|| READY.1.clone(), tag);
    let known = request.header("If-None-Match").unwrap_or_default();
    let known = matches!(request.method, "GET" | "HEAD")
        && known
            .split(|&byte| byte == b',')
            .any(|known| matches!(known.trim_ascii(), b"*") || known.trim_ascii() == tag.as_bytes());
    let compress = accepts_gzip(request) && plain.len() >= COMPRESS;
    let sent = match &body {
        None if compress => READY.0.clone(),
        Some(body) if compress => gzip(body, Compression::fast()),
        _ => plain.to_vec(),
    };
    let status = if known { 304 } else { 200 };
    let mut headers = headers(media, compress);
    headers.push(("ETag", &tag));
    if body.is_none() {
        headers.push(("Content-Security-Policy", &READY.2));
    }
    tracker.metrics.api(status);
    send(request, status, &headers, sent, out);
}

/// Appends an error, as JSON.
fn fail(tracker: &Tracker, request: &Request, Failure(status, why): &Failure, out: &mut Vec<u8>) {
    let mut headers = headers("application/json", false);
    match status {
        401 => headers.push(("WWW-Authenticate", "Basic realm=\"goat\", charset=\"UTF-8\"")),
        405 if split(request.target).0 == "/api/login" => headers.push(("Allow", "POST")),
        405 => headers.push(("Allow", "GET, HEAD")),
        429 | 503 => headers.push(("Retry-After", "60")),
        _ => {}
    }
    tracker.metrics.api(*status);
    send(request, *status, &headers, format!("{}\n", serde_json::json!({ "error": why })).into_bytes(), out);
}

/// What all answers say. None may be kept by a cache, for they hold what only one member may see.
fn headers(media: &str, compressed: bool) -> Vec<(&'static str, &str)> {
    let mut headers = vec![
        ("Server", "goat"),
        ("Content-Type", media),
        ("Cache-Control", if media.starts_with("text/html") { "no-cache" } else { "no-store" }),
        ("Vary", "Accept-Encoding"),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cross-Origin-Resource-Policy", "same-origin"),
    ];
    if compressed {
        headers.push(("Content-Encoding", "gzip"));
    }
    headers
}

fn send(request: &Request, status: u16, headers: &[(&'static str, &str)], body: Vec<u8>, out: &mut Vec<u8>) {
    let length = Some(body.len());
    let response = Response::new(StatusCode(status), list(request, headers), io::Cursor::new(body), length, None);
    let response = response.with_chunked_threshold(usize::MAX);
    out.append(&mut print(response, request.method == "HEAD", request.connection()));
}

fn list(request: &Request, headers: &[(&'static str, &str)]) -> Vec<Header> {
    let secure = request.secure.then_some(&HSTS);
    headers.iter().chain(secure).filter_map(|(name, value)| Header::from_bytes(*name, *value).ok()).collect()
}

/// Whether the client takes gzip (RFC 9110, section 12.5.3).
fn accepts_gzip(request: &Request) -> bool {
    let value = String::from_utf8_lossy(request.header("Accept-Encoding").unwrap_or_default()).to_lowercase();
    value.split(',').any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let weight = weight.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok());
        name.trim() == "gzip" && weight.is_none_or(|weight| weight > 0.0)
    })
}

/// The body of an answer that is being made: kept while it is short, then sent as it comes.
struct Body<'a> {
    request: &'a Request<'a>,
    /// Absent as soon as the head was sent.
    stream: Option<&'a mut dyn Write>,
    whole: Vec<u8>,
    sink: Option<Sink<'a>>,
}

impl Write for Body<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(sink) = &mut self.sink {
            return sink.write(bytes);
        }
        self.whole.extend_from_slice(bytes);
        if self.whole.len() > WHOLE {
            self.begin()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Body<'_> {
    /// Sends the head, and what was made so far.
    fn begin(&mut self) -> io::Result<()> {
        if self.request.old {
            return Err(io::Error::other("This list is too long for HTTP/1.0: use HTTP/1.1, or ?limit="));
        }
        let gone = || io::Error::from(ErrorKind::BrokenPipe);
        let stream = self.stream.take().ok_or_else(gone)?;
        let compress = accepts_gzip(self.request);
        let headers = list(self.request, &headers("application/json", compress));
        let head = Response::new(StatusCode(200), headers, io::empty(), None, None);
        stream.write_all(&print(head, true, "close"))?;
        if self.request.method == "HEAD" {
            return Err(gone());
        }
        let chunks = Chunks { stream, chunk: Vec::with_capacity(CHUNK + 64) };
        let mut sink = match compress {
            true => Sink::Gzip(GzEncoder::new(chunks, Compression::fast())),
            false => Sink::Plain(chunks),
        };
        let done = sink.write_all(&std::mem::take(&mut self.whole));
        self.sink = Some(sink);
        done
    }
}

enum Sink<'a> {
    Plain(Chunks<'a>),
    Gzip(GzEncoder<Chunks<'a>>),
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Plain(chunks) => chunks.write(bytes),
            Sink::Gzip(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink<'_> {
    fn finish(self) -> io::Result<()> {
        let mut chunks = match self {
            Sink::Plain(chunks) => chunks,
            Sink::Gzip(encoder) => encoder.finish()?,
        };
        chunks.send()?;
        chunks.stream.write_all(b"0\r\n\r\n")
    }
}

/// Chunked transfer coding (RFC 9112, section 7.1). Dropped unfinished it sends no last chunk, other than
/// the encoder that tiny_http uses.
struct Chunks<'a> {
    stream: &'a mut dyn Write,
    chunk: Vec<u8>,
}

impl Chunks<'_> {
    fn send(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let size = format!("{:x}\r\n", self.chunk.len());
        self.chunk.splice(..0, size.into_bytes());
        self.chunk.extend_from_slice(b"\r\n");
        let sent = self.stream.write_all(&self.chunk);
        self.chunk.clear();
        sent
    }
}

impl Write for Chunks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
