//! HTTP messages: bytes become a request, a status becomes a response. Knows no sockets and no tracker.

use std::io::{Read, Write};
use std::net::IpAddr;

use tiny_http::{HTTPVersion, Header, Response, StatusCode};

pub const MAX_HEAD: usize = 8 * 1024;
const MAX_BODY: usize = 64 * 1024;
/// Bytes of a password.
const MAX_PASSWORD: usize = 1_024;
/// The one call whose body matters: a torrent.
const UPLOAD: (&str, &str) = ("POST", "/api/files");
const MAX_UPLOAD: usize = 8 * 1024 * 1024;
/// Said over HTTPS: the client is to come by no other way for a year (RFC 6797).
pub const HSTS: (&str, &str) = ("Strict-Transport-Security", "max-age=31536000");
pub const MAX_HEADERS: usize = 64;

/// The parameters of a query, still encoded.
pub fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// The bytes that an encoded name or value stands for: a plus sign is a space, as HTML forms write it. A percent sign
/// without two digits is an error that holds it.
pub fn decoded(text: &str) -> impl Iterator<Item = Result<u8, u8>> {
    let mut rest = text.bytes();
    std::iter::from_fn(move || {
        let byte = rest.next()?;
        if byte != b'%' {
            return Some(Ok(if byte == b'+' { b' ' } else { byte }));
        }
        let mut after = rest.clone();
        let mut digit = || char::from(after.next()?).to_digit(16);
        let Some((high, low)) = digit().zip(digit()) else { return Some(Err(byte)) };
        rest = after;
        Some(Ok((high * 16 + low) as u8))
    })
}

pub fn split(target: &str) -> (&str, &str) {
    // A proxy may send the whole URL (RFC 9112, section 3.2.2).
    let rest = target.strip_prefix("http://").or_else(|| target.strip_prefix("https://"));
    let target = rest.map_or(target, |rest| rest.find('/').map_or("", |slash| rest.get(slash..).unwrap_or("")));
    target.split_once('?').unwrap_or((target, ""))
}

pub struct Request<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub headers: &'a [httparse::Header<'a>],
    pub peer: IpAddr,
    pub keep_alive: bool,
    /// Its client knows HTTP/1.0 only, and must be told that the connection stays open.
    pub old: bool,
    pub secure: bool,
    /// Bytes of its body, and those of them that came with the head.
    pub length: usize,
    pub begun: &'a [u8],
}

impl Request<'_> {
    /// Whether its body is for whoever answers it to read; that of any other is waited for.
    pub fn uploads(&self) -> bool {
        (self.method, split(self.target).0.trim_end_matches('/')) == UPLOAD
    }

    /// What the answer says of the connection; nothing where the client knows.
    pub fn connection(&self) -> &'static str {
        match (self.keep_alive, self.old) {
            (true, false) => "",
            (true, true) => "keep-alive",
            (false, _) => "close",
        }
    }

    /// Whether the client sends the body only when it is told to (RFC 9110, section 10.1.1).
    pub fn expects_to_continue(&self) -> bool {
        !self.old && self.header("Expect").is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
    }

    pub fn wants_html(&self) -> bool {
        self.header("Accept")
            .is_some_and(|accept| accept.windows(9).any(|part| part.eq_ignore_ascii_case(b"text/html")))
    }

    pub fn header(&self, name: &str) -> Option<&[u8]> {
        values(self.headers, name).next()
    }
}

/// What all headers of a name say.
pub fn values<'a>(headers: &'a [httparse::Header], name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// What is no request that can be answered: a status, and what is wrong.
pub type Bad = (u16, &'static str);

fn content_length(value: &[u8]) -> Result<usize, Bad> {
    let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.unwrap_or_default() {
        "" => Err((400, "Content-Length must be a number of bytes")),
        digits => Ok(digits.parse().unwrap_or(usize::MAX)),
    }
}

/// Whether a method is allowed; the API says for itself what it allows.
fn allowed(method: &str, path: &str) -> Result<(), Bad> {
    match method {
        "GET" | "HEAD" => Ok(()),
        "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH" if path == "/api" || path.starts_with("/api/") => Ok(()),
        "POST" | "PUT" | "DELETE" | "OPTIONS" | "PATCH" => Err((405, "Only GET and HEAD are allowed here")),
        _ => Err((501, "This method is not known: use GET")),
    }
}

/// Reads the head of one request and what there is of its body, and of how many bytes the head is; `None` if it is not
/// whole.
pub fn parse<'a>(
    data: &'a [u8],
    peer: IpAddr,
    headers: &'a mut [httparse::Header<'a>],
) -> Result<Option<(Request<'a>, usize)>, Bad> {
    let mut parser = httparse::Request::new(headers);
    let head = match parser.parse(data.get(..MAX_HEAD).unwrap_or(data)) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if data.len() < MAX_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => return Err((431, "The head of a request may have at most 8 KiB")),
        Err(httparse::Error::TooManyHeaders) => return Err((431, "A request may have at most 64 headers")),
        Err(_) => return Err((400, "This is not an HTTP/1.1 request")),
    };
    let (Some(method), Some(target), Some(version)) = (parser.method, parser.path, parser.version) else {
        return Err((400, "This is not an HTTP/1.1 request"));
    };
    let path = split(target).0;
    let all = |name| values(parser.headers, name);
    if all("Transfer-Encoding").next().is_some() {
        return Err((501, "Transfer-Encoding is not supported: send a Content-Length"));
    }
    let length = all("Content-Length").next().map_or(Ok(0), content_length)?;
    if all("Content-Length").nth(1).is_some() {
        return Err((400, "There may be only one Content-Length"));
    }
    let says = |word: &[u8]| {
        let mut tokens = all("Connection").flat_map(|value| value.split(|&byte| byte == b','));
        tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(word))
    };
    let keep_alive = !says(b"close") && (version == 1 || says(b"keep-alive"));
    allowed(method, path)?;
    let rest = data.get(head..).unwrap_or_default();
    let request = Request {
        method,
        target,
        headers: parser.headers,
        peer,
        keep_alive,
        old: version == 0,
        secure: false,
        length,
        begun: rest.get(..length).unwrap_or(rest),
    };
    let path = path.trim_end_matches('/');
    let is_password = method == "POST" && (path == "/api/me/password" || path.starts_with("/api/invite/"));
    let (most, why) = match request.uploads() {
        true => (MAX_UPLOAD, "A torrent may have at most 8 MiB"),
        false if is_password => (MAX_PASSWORD, "A password may have at most 1,024 bytes"),
        false => (MAX_BODY, "The body of a request may have at most 64 KiB"),
    };
    if length > most { Err((413, why)) } else { Ok(Some((request, head))) }
}

/// The response to what is no request that can be answered, the beginning of which is `question`. The
/// connection is closed after it.
pub fn error(question: &[u8], status: u16, message: &str, secure: bool) -> Vec<u8> {
    let mut response = Response::from_string(format!("{message}\n")).with_status_code(StatusCode(status));
    let allow = (status == 405).then_some(("Allow", "GET, HEAD"));
    for (name, value) in secure.then_some(HSTS).into_iter().chain(allow) {
        Header::from_bytes(name, value).into_iter().for_each(|header| response.add_header(header));
    }
    print(response, question.starts_with(b"HEAD "), "close")
}

/// A response as it is sent, without its body if only the head is asked for. `connection` is the value of
/// that header, if it is not empty.
pub fn print(response: Response<impl Read>, only_head: bool, connection: &str) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing to a Vec cannot fail.
    let _ = response.raw_print(out.by_ref(), HTTPVersion(1, 1), &[], only_head, None);
    // tiny_http leaves this header to its own server.
    if let (false, Some(end)) = (connection.is_empty(), out.windows(2).position(|pair| pair == b"\r\n")) {
        out.splice(end..end, format!("\r\nConnection: {connection}").into_bytes());
    }
    out
}
