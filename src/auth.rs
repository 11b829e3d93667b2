//! The server key, 32 random bytes, and what is made with it: the secrets of the keys by which members call the API, and
//! what several goats share. It is in a file for its owner and group alone, in the folder `State` (`config.secret`), never
//! in the database nor in its backups. Removing the file ends all keys. It is read whenever it is needed.

use std::fs;
use std::io::ErrorKind;
use std::sync::Mutex;

use ring::hmac;

use crate::config::Config;
use crate::random::{secret, unhex};
use crate::sync::lock;
use crate::sys::write_new_file;

/// Held while the file is read or made: of two who find none, one makes it.
static FILE: Mutex<()> = Mutex::new(());

/// A key for one purpose that all goats have who share the server key.
pub fn derived_key(config: &Config, purpose: &str) -> Result<Vec<u8>, String> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &server_key(config)?);
    Ok(hmac::sign(&key, purpose.as_bytes()).as_ref().to_vec())
}

/// Reads the server key, or makes one where there is none.
fn server_key(config: &Config) -> Result<Vec<u8>, String> {
    let _turn = lock(&FILE);
    let file = config.state_file("secret");
    let shown = file.display();
    let text = match fs::read_to_string(&file) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let text = secret::<32>()?;
            let written = write_new_file(&file, 0o660, format!("{text}\n").as_bytes());
            written.map_err(|e| format!("cannot make {shown}, the key of the API: {e}"))?;
            text
        }
        read => read.map_err(|e| format!("cannot read {shown}, the key of the API: {e}"))?,
    };
    unhex(text.trim()).filter(|key| key.len() == 32).ok_or_else(|| {
        format!("{shown} must hold 64 hex digits; if you remove it, goat makes another, and clients must log in again")
    })
}
