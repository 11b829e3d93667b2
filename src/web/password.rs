//! Passwords of members, of which the database has a salt and PBKDF2-HMAC-SHA256.

use std::num::NonZeroU32;

use ring::pbkdf2::{PBKDF2_HMAC_SHA256, derive};

use crate::random::{hex, secret, unhex};
use crate::store::Password;
use crate::web::answer::Failure;

/// What each guess costs who has stolen the database.
const ROUNDS: u32 = 600_000;
/// So many can only have been written by somebody else, and are not waited for.
const MAX_ROUNDS: u32 = 10 * ROUNDS;
/// Characters, at least.
const MIN_LENGTH: usize = 12;

/// The password that is the body of a request; empty is none.
pub(super) fn read(body: &[u8]) -> Result<Option<&str>, Failure> {
    let rule = "A password has at least 12 characters, at most 1,024 bytes, none for control, and does not look like an API key";
    let good =
        |text: &&str| text.chars().count() >= MIN_LENGTH && !text.contains(char::is_control) && !looks_like_a_key(text);
    match body {
        [] => Ok(None),
        body => str::from_utf8(body).ok().filter(good).map(Some).ok_or_else(|| Failure(400, rule.into())),
    }
}

/// Whether something may be an API key, which no password is: 40 hex digits.
pub(super) fn looks_like_a_key(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What the database is to have of a password.
pub(super) fn protect(password: &str) -> Result<Password, Failure> {
    let salt = secret::<16>().map_err(|e| Failure(503, e))?;
    Ok(Password { hash: hash(password, &salt, ROUNDS), salt, rounds: ROUNDS })
}

/// Whether a password is the one that was stored. Without one it takes as long.
pub(super) fn verify(password: &str, stored: Option<&Password>) -> bool {
    let known = stored.filter(|stored| (1..=MAX_ROUNDS).contains(&stored.rounds));
    let (salt, rounds) = known.map_or(("", ROUNDS), |stored| (&stored.salt, stored.rounds));
    let hash = hash(password, salt, rounds);
    known.is_some_and(|known| known.hash == hash)
}

fn hash(password: &str, salt: &str, rounds: u32) -> String {
    let mut hash = [0; 32];
    let rounds = NonZeroU32::new(rounds).unwrap_or(NonZeroU32::MIN);
    derive(PBKDF2_HMAC_SHA256, rounds, &unhex(salt).unwrap_or_default(), password.as_bytes(), &mut hash);
    hex(&hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_pbkdf2_of_hmac_sha_256_as_others_compute_it() {
        // RFC 7914, section 11.
        let known = "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc";
        assert_eq!(hash("passwd", &hex(b"salt"), 1), known);
        let known = "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56";
        assert_eq!(hash("Password", &hex(b"NaCl"), 80_000), known);
    }

    #[test]
    fn a_password_has_a_salt_of_16_bytes_of_its_own_and_600_000_rounds() {
        let [first, second] = [(); 2].map(|()| protect("correct horse battery").unwrap());
        assert_eq!((first.salt.len(), first.rounds), (32, 600_000));
        assert_ne!((&first.salt, &first.hash), (&second.salt, &second.hash));
        assert!(verify("correct horse battery", Some(&first)));
        assert!(!verify("correct horse batterx", Some(&first)));
        assert!(!verify("correct horse battery", None));
    }

    #[test]
    fn what_others_wrote_in_the_place_of_a_password_opens_nothing_and_is_not_waited_for() {
        for rounds in [0, u32::MAX] {
            let stored = Password { salt: "x".into(), hash: hash("a long password", "x", 1), rounds };
            assert!(!verify("a long password", Some(&stored)));
        }
    }

    #[test]
    fn a_password_has_12_characters_or_more_and_is_no_key() {
        assert_eq!(read(b"").unwrap(), None);
        assert_eq!(read("zwölf Zeichen".as_bytes()).unwrap(), Some("zwölf Zeichen"));
        assert_eq!(read("🐱🐱🐱🐱🐱🐱🐱🐱🐱🐱🐱🐱".as_bytes()).unwrap().map(str::len), Some(48));
        let wrong: [&[u8]; 5] =
            [b"eleven char", b"a new line\nin it", b"not UTF-8 \xff\xff\xff", &[b'a'; 40], b"\0\0\0\0\0\0\0\0\0\0\0\0"];
        for wrong in wrong {
            assert_eq!(read(wrong).unwrap_err().0, 400, "{}", wrong.escape_ascii());
        }
    }
}
