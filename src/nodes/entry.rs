//! What a goat tells the others at once, an entry of the stream: sealed by a key that only those have who share the
//! secret beside the configuration. Who else writes to that Redis can neither read it, nor say anything that is believed.

use std::net::IpAddr;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::auth::derived_key;
use crate::config::Config;
use crate::protocol::take;
use crate::rules::limits::Failure;

/// What an entry says beside its records.
#[derive(Serialize, Deserialize)]
pub struct Head {
    /// The run that tells it, and how many entries it has told, this one among them.
    pub run: u64,
    pub sequence: u64,
    /// When it was made, in milliseconds since 1970 by the clock of that goat.
    pub time: u64,
    pub failures: Vec<(Failure, IpAddr)>,
}

/// Seals and opens the entries of the goats on one database.
pub struct Seal(LessSafeKey, [u8; 8]);

impl Seal {
    pub fn new(config: &Config, identity: u64) -> Result<Seal, String> {
        let key = UnboundKey::new(&AES_256_GCM, &derived_key(config, "what goats tell each other")?);
        let key = key.map_err(|_| "the key between goats has a wrong length")?;
        Ok(Seal(LessSafeKey::new(key), identity.to_be_bytes()))
    }

    /// An entry: a nonce; sealed, the length of the head, the head in JSON, and the records. None where the system has
    /// no random numbers.
    pub fn seal(&self, head: &Head, records: &[u8]) -> Option<Vec<u8>> {
        let (head, mut nonce) = (serde_json::to_vec(head).ok()?, [0; NONCE_LEN]);
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut sealed = [&u32::try_from(head.len()).ok()?.to_be_bytes(), &head[..], records].concat();
        let unique = Nonce::assume_unique_for_key(nonce);
        self.0.seal_in_place_append_tag(unique, Aad::from(self.1), &mut sealed).ok()?;
        Some([&nonce, &sealed[..]].concat())
    }

    /// What an entry says, if it was sealed by the same key for the same database.
    pub fn open<'a>(&self, entry: &'a mut [u8]) -> Option<(Head, &'a [u8])> {
        let (nonce, sealed) = entry.split_first_chunk_mut::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let mut opened: &[u8] = self.0.open_in_place(nonce, Aad::from(self.1), sealed).ok()?;
        let length = usize::try_from(u32::from_be_bytes(take(&mut opened)?)).ok()?;
        let (head, records) = opened.split_at_checked(length)?;
        Some((serde_json::from_slice(head).ok()?, records))
    }
}
