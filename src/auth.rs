//! Who calls the API: HTTP Basic with a user's name and API key, at some calls also with a password; or by a key made
//! with these: calls that send its secret (Bearer), or that are signed by it with HMAC-SHA1.
//!
//! **What a stolen database opens: nothing.** Of an API key, 160 random bits, the database has the SHA-256,
//! from which nobody gets back to it. A key to sign with has a public part, which the database has, and a
//! secret, which it has not: that is HMAC-SHA-256 of the public part and the user's id under a server key
//! of 32 random bytes, cut to 160 bits. The server key is in a file for its owner's eyes only, in the folder
//! `State` (`config.secret`), never in the database nor in its backups. HMAC-SHA-256 is a
//! pseudorandom function: without the server key the secrets of all public parts look like random bits,
//! also to one who has made keys of their own and knows those secrets. Removing the file ends all keys.
//!
//! **What a listener on the network can do with a signed call: nothing more.** The signature holds for one
//! method, path and query, and its nonce is written into the database before the call is answered. The
//! text that is signed, `userId-nonce-METHOD-/resource`, can be read in one way only: a nonce has no slash,
//! so the resource begins at the first slash. (Against listeners who want to read, use HTTPS. SHA-1 is what
//! the original announced; its weakness, collisions, does not touch HMAC.)
//!
//! **Guessing** is refused after 20 failures a minute from an address, and of a member's password after 10 from
//! anywhere (`limits`). One password in all is tried at a time, and a name that is none costs as much as one that is.

pub(crate) mod password;

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, MutexGuard};

use ring::hmac;

use crate::config::Config;
use crate::log::log;
use crate::random::{hex, secret, unhex};
use crate::rules::limits::{self, Limits, Permit, sharer};
use crate::store::{Error, Kind, MAX_CALLS, Store, User, hash_key};
use crate::sync::lock;

/// Why a call of the API is refused: a status and what is said of it.
#[derive(Debug)]
pub(crate) struct Failure(pub u16, pub String);

impl From<Error> for Failure {
    fn from(e: Error) -> Failure {
        match e.kind {
            Kind::NoRow => Failure(400, format!("Invalid after: {e}")),
            Kind::Wrong | Kind::Exists => Failure(409, e.message),
            // Its own words may name hosts and users, and the log has them.
            _ => Failure(503, "The database does not answer: try again in a minute".into()),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(_: serde_json::Error) -> Failure {
        Failure(500, "This cannot be expressed in JSON: please report it".into())
    }
}

/// What a request says who it is.
pub(crate) enum Credentials {
    /// A name, and an API key or, where the call takes one, a password.
    Basic(String, String, bool),
    /// The public part of a key, and its secret.
    Bearer(String, String),
    /// The public part of a key, a nonce, and the signature in hex.
    Signed(String, String, String),
}

/// How a member has proved who they are.
pub(crate) enum Proof {
    /// By name with an API key or password: what the database has of it.
    Secret(String),
    /// By the secret of a key: its public part.
    Token(String),
    Signature,
}

#[derive(Default)]
pub(crate) struct Auth {
    /// The server key, once it was read.
    key: Mutex<Option<hmac::Key>>,
    /// Held while a password is tried or made.
    turn: Mutex<()>,
}

/// The turn to try or make a password.
type Turn<'a> = (Permit, MutexGuard<'a, ()>);

/// What a password is good for, by POST. Each costs work, so that it opens nothing else.
const BY_PASSWORD: [&str; 3] = ["/api/login", "/api/me/password", "/api/me/key"];
/// A token's use is written down after so many seconds.
const USE: u32 = 3_600;

/// The longest nonce, in characters.
const MAX_NONCE: usize = 64;

impl Credentials {
    /// Reads the Authorization header of a call.
    pub(crate) fn of(header: Option<&[u8]>, method: &str, path: &str) -> Result<Credentials, Failure> {
        let missing = || Failure(401, "No authentication: send your user name and API key (HTTP Basic)".into());
        let header = header.ok_or_else(missing)?;
        if let Some((scheme, token)) = header.split_at_checked(7)
            && scheme.eq_ignore_ascii_case(b"Bearer ")
        {
            let parts = str::from_utf8(token).ok().and_then(|token| token.trim_ascii().split_once(':'));
            let parts = parts.filter(|(public, _)| password::looks_like_a_key(public));
            let malformed = || Failure(401, "The Authorization header is not Bearer PUBKEY:SECRET".into());
            return parts
                .map(|(public, secret)| Credentials::Bearer(public.into(), secret.into()))
                .ok_or_else(malformed);
        }
        let (scheme, encoded) = header.split_at_checked(6).ok_or_else(missing)?;
        if !scheme.eq_ignore_ascii_case(b"Basic ") {
            return Err(missing());
        }
        let decoded = base64_decode(encoded.trim_ascii()).and_then(|bytes| String::from_utf8(bytes).ok());
        let malformed = || Failure(401, "The Authorization header is not HTTP Basic".into());
        let decoded = decoded.ok_or_else(malformed)?;
        let (name, password) = decoded.split_once(':').ok_or_else(malformed)?;
        // API keys are hex digits: a slash makes it a signature, unless it may be one of a password.
        let by_password = method == "POST" && BY_PASSWORD.contains(&path);
        let signed = !by_password || password::looks_like_a_key(name);
        let Some((nonce, signature)) = password.split_once('/').filter(|_| signed) else {
            return Ok(Credentials::Basic(name.into(), password.into(), by_password));
        };
        let good = (1..=MAX_NONCE).contains(&nonce.len()) && nonce.bytes().all(|byte| byte.is_ascii_graphic());
        if !good {
            return Err(Failure(401, format!("A nonce has 1 to {MAX_NONCE} printable ASCII characters, no slash")));
        }
        Ok(Credentials::Signed(name.into(), nonce.into(), signature.into()))
    }
}

/// A call, as far as it must be known to know who calls.
pub(crate) struct Caller<'a> {
    pub from: IpAddr,
    /// GET, HEAD, POST, ...
    pub method: &'a str,
    pub resource: &'a str,
    pub credentials: Credentials,
}

impl Auth {
    /// The member who calls, and how that is proved.
    pub(crate) fn identify(
        &self,
        config: &Config,
        store: &Store,
        limits: &Limits,
        caller: &Caller,
        now: u32,
    ) -> Result<(User, Proof), Failure> {
        let wrong = |why: &str| {
            limits.fail(limits::Failure::Login, caller.from, now);
            Failure(401, why.into())
        };
        let gone = "This key is unknown or has expired: POST /api/login creates another";
        let (member, proof) = match &caller.credentials {
            Credentials::Basic(name, key, by_password) => {
                // A hash that is searched for tells nobody by its time how much of a key is right.
                let hash = hash_key(key);
                let found = match store.user_with_key(name, &hash)? {
                    Some(member) => Some((member, hash)),
                    None if !by_password || password::looks_like_a_key(key) => None,
                    None => self.with_password(config, store, limits, (name, key), caller.from, now)?,
                };
                let what =
                    if *by_password { "Wrong user name, API key or password" } else { "Wrong user name or API key" };
                let (member, hash) = found.ok_or_else(|| wrong(what))?;
                (member, Proof::Secret(hash))
            }
            Credentials::Bearer(public, secret) => {
                let (member, used) = store.login(public, i64::MAX, now)?.ok_or_else(|| wrong(gone))?;
                // Hashes tell nobody by the time how much of it is right.
                if hash_key(&self.secret(config, public, member.id)?) != hash_key(secret) {
                    return Err(wrong(gone));
                }
                if now.saturating_sub(used) > USE {
                    store.use_token(public, now)?;
                }
                (member, Proof::Token(public.clone()))
            }
            Credentials::Signed(public, nonce, signature) => {
                let (member, _) = store.login(public, MAX_CALLS, now)?.ok_or_else(|| wrong(gone))?;
                let secret = self.secret(config, public, member.id)?;
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
                let text = format!("{}-{nonce}-{}-{}", member.id, caller.method, caller.resource);
                let signature = unhex(signature).unwrap_or_default();
                hmac::verify(&key, text.as_bytes(), &signature).map_err(|_| wrong("Wrong signature"))?;
                if !store.use_login(public, nonce, now)? {
                    return Err(wrong("This nonce was used before"));
                }
                (member, Proof::Signature)
            }
        };
        if member.banned {
            let reason = if member.ban_reason.is_empty() { "" } else { ": " };
            return Err(Failure(403, format!("This user is banned{reason}{}", member.ban_reason)));
        }
        Ok((member, proof))
    }

    /// The member of this name and password, and the password's hash.
    fn with_password(
        &self,
        config: &Config,
        store: &Store,
        limits: &Limits,
        (name, password): (&str, &str),
        from: IpAddr,
        now: u32,
    ) -> Result<Option<(User, String)>, Failure> {
        let _turn = self.turn(config, limits, from)?;
        if !limits.may_guess(name, now) {
            let guessed = "Too many wrong passwords for this name: wait a minute, or sign in with the API key";
            return Err(Failure(429, guessed.into()));
        }
        let stored = store.password(name)?;
        let right = password::verify(password, stored.as_ref().map(|(_, stored)| stored));
        if right {
            limits.forget_guesses(name);
        }
        Ok(stored.filter(|_| right).map(|(member, stored)| (member, stored.hash)))
    }

    /// Waits for the turn to try or make a password: it is work for a whole processor.
    pub(crate) fn turn(&self, config: &Config, limits: &Limits, from: IpAddr) -> Result<Turn<'_>, Failure> {
        let busy = |_| Failure(503, "Too many sign in with passwords at this moment: try again in a minute".into());
        let place = limits.passwords.acquire(sharer(config, from), 1).map_err(busy)?;
        Ok((place, lock(&self.turn)))
    }

    /// The secret that belongs to a public part, as 40 hex digits.
    pub(crate) fn secret(&self, config: &Config, public: &str, user: u32) -> Result<String, Failure> {
        let mut key = lock(&self.key);
        if key.is_none() {
            let bytes = server_key(config).map_err(|e| {
                log(&e);
                Failure(503, "The server's key cannot be read: its log says why".into())
            })?;
            *key = Some(hmac::Key::new(hmac::HMAC_SHA256, &bytes));
        }
        let key = key.as_ref().ok_or_else(|| Failure(503, "The server has no key".into()))?;
        let tag = hmac::sign(key, format!("{public}-{user}").as_bytes());
        Ok(hex(tag.as_ref().get(..20).unwrap_or_default()))
    }
}

/// A key for one purpose that all goats have who share the server key.
pub fn derived_key(config: &Config, purpose: &str) -> Result<Vec<u8>, String> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &server_key(config)?);
    Ok(hmac::sign(&key, purpose.as_bytes()).as_ref().to_vec())
}

fn server_key(config: &Config) -> Result<Vec<u8>, String> {
    let file = config.state_file("secret");
    let shown = file.display();
    match fs::read_to_string(&file) {
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        read => {
            let text = read.map_err(|e| format!("cannot read {shown}, the key of the API: {e}"))?;
            let key = unhex(text.trim()).filter(|key| key.len() == 32);
            return key.ok_or_else(|| {
                format!("{shown} must hold 64 hex digits; if you remove it, goat makes another, and clients must log in again")
            });
        }
    }
    let text = secret::<32>()?;
    let made = OpenOptions::new().write(true).create_new(true).mode(0o660).open(&file);
    let written = made.and_then(|mut out| writeln!(out, "{text}").and_then(|()| out.sync_all()));
    written.map_err(|e| format!("cannot make {shown}, the key of the API: {e}"))?;
    unhex(&text).ok_or_else(|| "no key".into())
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes as base64 (RFC 4648), padded.
pub(crate) fn base64_encode(bytes: &[u8]) -> String {
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().enumerate().fold(0u32, |bits, (i, byte)| bits | u32::from(*byte) << (16 - 8 * i));
        for i in 0..4 {
            let digit = BASE64[(bits >> (18 - 6 * i) & 63) as usize];
            out.push(if i > group.len() { '=' } else { char::from(digit) });
        }
    }
    out
}

/// Base64 (RFC 4648) as bytes; the padding may be missing.
fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take_while(|&&byte| byte == b'=').count();
    let text = text.get(..text.len() - padding.min(2))?;
    let (mut bits, mut count, mut out) = (0u32, 0, Vec::new());
    for byte in text {
        let digit = BASE64.iter().position(|digit| digit == byte)?;
        bits = bits << 6 | digit as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (text.len() % 4 != 1).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let cases = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")];
        for (plain, encoded) in cases.into_iter().chain([("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy")]) {
            assert_eq!(base64_encode(plain.as_bytes()), encoded);
            assert_eq!(base64_decode(encoded.as_bytes()).as_deref(), Some(plain.as_bytes()));
        }
        for broken in ["Z", "Zg=a", "Zg===", "Z g=", "Zm9v\0"] {
            assert_eq!(base64_decode(broken.as_bytes()), None, "{broken}");
        }
    }
}
