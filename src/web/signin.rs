//! Who calls the API: HTTP Basic with a user's name and API key, at some calls also with a password; or by a key made
//! with these: calls that send its secret (Bearer), or that are signed by it with HMAC-SHA1.
//!
//! **What a stolen database opens: nothing.** Of an API key, 160 random bits, the database has the SHA-256,
//! from which nobody gets back to it. A key to sign with has a public part, which the database has, and a
//! secret, which it has not: that is HMAC-SHA-256 of the public part and the user's id under the server key
//! of [`crate::auth`], cut to 160 bits. HMAC-SHA-256 is a pseudorandom function: without the server key the
//! secrets of all public parts look like random bits, also to one who has made keys of their own and knows
//! those secrets.
//!
//! **What a listener on the network can do with a signed call: nothing more.** The signature holds for one
//! method, path and query, and its nonce is written into the database before the call is answered. The
//! text that is signed, `userId-nonce-METHOD-/resource`, can be read in one way only: a nonce has no slash,
//! so the resource begins at the first slash. (Against listeners who want to read, use HTTPS. SHA-1 is what
//! the original announced; its weakness, collisions, does not touch HMAC.)
//!
//! **Guessing** is refused after 20 failures a minute from an address, and of a member's password after 10 from
//! anywhere (`limits`). One password in all is tried at a time, and a name that is none costs as much as one that is.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};

use ring::hmac;

use crate::auth::derived_key;
use crate::config::Config;
use crate::log::log;
use crate::net::message::{Request, split};
use crate::random::{hex, unhex};
use crate::rules::limits::{self, Permit, sharer};
use crate::store::{MAX_CALLS, User, hash_key};
use crate::sync::lock;
use crate::sys::hostname;
use crate::tracker::Tracker;
use crate::web::answer::Failure;
use crate::web::base64::base64_decode;
use crate::web::password::{looks_like_a_key, verify};

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

/// What a password is good for, by POST. Each costs work, so that it opens nothing else.
const BY_PASSWORD: [&str; 3] = ["/api/login", "/api/me/password", "/api/me/key"];
/// A token's use is written down after so many seconds.
const USE: u32 = 3_600;
/// The longest nonce, in characters.
const MAX_NONCE: usize = 64;
/// Held while a password is tried or made.
static TURN: Mutex<()> = Mutex::new(());

impl Credentials {
    /// Reads the Authorization header of a call.
    pub(super) fn of(request: &Request) -> Result<Credentials, Failure> {
        let missing = || Failure(401, "No authentication: send your user name and API key (HTTP Basic)".into());
        let header = request.header("Authorization").and_then(|header| str::from_utf8(header).ok());
        let (scheme, value) = header.and_then(|header| header.split_once(' ')).ok_or_else(missing)?;
        if scheme.eq_ignore_ascii_case("Bearer") {
            let parts = value.trim().split_once(':').filter(|(public, _)| looks_like_a_key(public));
            let malformed = || Failure(401, "The Authorization header is not Bearer PUBKEY:SECRET".into());
            let (public, secret) = parts.ok_or_else(malformed)?;
            return Ok(Credentials::Bearer(public.into(), secret.into()));
        }
        if !scheme.eq_ignore_ascii_case("Basic") {
            return Err(missing());
        }
        let decoded = base64_decode(value.trim().as_bytes()).and_then(|bytes| String::from_utf8(bytes).ok());
        let malformed = || Failure(401, "The Authorization header is not HTTP Basic".into());
        let (name, password) = decoded.as_ref().and_then(|text| text.split_once(':')).ok_or_else(malformed)?;
        // API keys are hex digits: a slash makes it a signature, unless it may be one of a password.
        let path = split(request.target).0.trim_end_matches('/');
        let by_password = request.method == "POST" && BY_PASSWORD.contains(&path);
        let signed = !by_password || looks_like_a_key(name);
        let Some((nonce, signature)) = password.split_once('/').filter(|_| signed) else {
            return Ok(Credentials::Basic(name.into(), password.into(), by_password));
        };
        let good = (1..=MAX_NONCE).contains(&nonce.len()) && nonce.bytes().all(|byte| byte.is_ascii_graphic());
        if !good {
            return Err(Failure(401, format!("A nonce has 1 to {MAX_NONCE} printable ASCII characters, no slash")));
        }
        Ok(Credentials::Signed(name.into(), nonce.into(), signature.into()))
    }

    /// The member who calls, and how that is proved.
    pub(super) fn identify(self, tracker: &Tracker, request: &Request) -> Result<(User, Proof), Failure> {
        let (store, now) = (&tracker.store, tracker.clock.now());
        let wrong = |why: &str| {
            tracker.limits.fail(limits::Failure::Login, request.client(tracker), now);
            Failure(401, why.into())
        };
        let gone = || wrong("This key is unknown or has expired: POST /api/login creates another");
        let (member, proof) = match self {
            Credentials::Basic(name, key, by_password) => {
                // A hash that is searched for tells nobody by its time how much of a key is right.
                let hash = hash_key(&key);
                let found = match store.user_with_key(&name, &hash)? {
                    None if by_password && !looks_like_a_key(&key) => with_password(tracker, request, &name, &key)?,
                    found => found.map(|member| (member, hash)),
                };
                let what =
                    if by_password { "Wrong user name, API key or password" } else { "Wrong user name or API key" };
                let (member, hash) = found.ok_or_else(|| wrong(what))?;
                (member, Proof::Secret(hash))
            }
            Credentials::Bearer(public, secret) => {
                let (member, used) = store.login(&public, i64::MAX, now)?.ok_or_else(gone)?;
                // Hashes tell nobody by the time how much of it is right.
                if hash_key(&secret_of(tracker, &public, member.id)?) != hash_key(&secret) {
                    return Err(gone());
                }
                if now.saturating_sub(used) > USE {
                    store.use_token(&public, now)?;
                }
                (member, Proof::Token(public))
            }
            Credentials::Signed(public, nonce, signature) => {
                let (member, _) = store.login(&public, MAX_CALLS, now)?.ok_or_else(gone)?;
                let secret = secret_of(tracker, &public, member.id)?;
                let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
                let path = split(request.target).0;
                let resource = request.target.find(path).and_then(|at| request.target.get(at..)).unwrap_or(path);
                let text = format!("{}-{nonce}-{}-{resource}", member.id, request.method);
                let signature = unhex(&signature).unwrap_or_default();
                hmac::verify(&key, text.as_bytes(), &signature).map_err(|_| wrong("Wrong signature"))?;
                if !store.use_login(&public, &nonce, now)? {
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
}

/// The member of this name and password, and the password's hash.
fn with_password(
    tracker: &Tracker,
    request: &Request,
    name: &str,
    password: &str,
) -> Result<Option<(User, String)>, Failure> {
    let _turn = turn(tracker, request)?;
    if !tracker.limits.may_guess(name, tracker.clock.now()) {
        let guessed = "Too many wrong passwords for this name: wait a minute, or sign in with the API key";
        return Err(Failure(429, guessed.into()));
    }
    let stored = tracker.store.password(name)?;
    let right = verify(password, stored.as_ref().map(|(_, stored)| stored));
    if right {
        tracker.limits.forget_guesses(name);
    }
    Ok(stored.filter(|_| right).map(|(member, stored)| (member, stored.hash)))
}

/// Waits for the turn to try or make a password: it is work for a whole processor.
pub(super) fn turn(tracker: &Tracker, request: &Request) -> Result<(Permit, MutexGuard<'static, ()>), Failure> {
    let busy = |_| Failure(503, "Too many sign in with passwords at this moment: try again in a minute".into());
    let who = sharer(&tracker.config, request.client(tracker));
    let place = tracker.limits.passwords.acquire(who, 1).map_err(busy)?;
    Ok((place, lock(&TURN)))
}

/// The secret that belongs to the public part of a member's key, as 40 hex digits.
pub(super) fn secret_of(tracker: &Tracker, public: &str, user: u32) -> Result<String, Failure> {
    let key = derived_key(&tracker.config, &format!("{public}-{user}")).map_err(|e| {
        log(&e);
        Failure(503, "The server's key cannot be read: its log says why".into())
    })?;
    Ok(hex(key.get(..20).unwrap_or_default()))
}

/// Whether a request comes from this machine and means it: not through a proxy that runs here, nor from a browser's page
/// that got its own name to mean this machine.
pub(crate) fn is_local(config: &Config, request: &Request) -> bool {
    let proxied =
        ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"].iter().any(|name| request.header(name).is_some());
    let host = request.header("Host").and_then(|host| str::from_utf8(host).ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(host, |(name, _)| name);
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let own =
        || !name.is_empty() && (name.eq_ignore_ascii_case(&config.host) || name.eq_ignore_ascii_case(&hostname()));
    let loopback = || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()) || name.eq_ignore_ascii_case("localhost");
    request.peer.is_loopback() && !proxied && (loopback() || own())
}
