//! Certificates: read from their files, and read again when those are replaced.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustls::crypto::ring::Ticketer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::ProducesTickets;
use rustls::{Error, ServerConfig};

use crate::config::Ssl;
use crate::log::log;
use crate::sync::lock;
use crate::sys::read_file;

/// The longest file that is read: a chain of certificates has some KiB.
const MAX_FILE: u64 = 1 << 20;

#[derive(Debug)]
pub struct Defect {
    /// The key of the configuration that names the file.
    pub key: &'static str,
    pub found: String,
}

pub struct Certificates {
    files: Ssl,
    in_use: Mutex<Arc<ServerConfig>>,
    /// The files as they were seen last, whether they could be used or not.
    seen: Mutex<Option<Files>>,
}

type Files = (Vec<u8>, Vec<u8>);

fn defect(key: &'static str, path: &Path, what: impl Display) -> Defect {
    Defect { key, found: format!("{}: {what}", path.display()) }
}

fn read(files: &Ssl) -> Result<Files, Defect> {
    let read = |key, path: &Path| {
        let read = match std::fs::metadata(path) {
            // To open a pipe might take for ever.
            Ok(found) if !found.is_file() && !found.is_dir() => Err(io::Error::other("is not a file")),
            _ => read_file(path, MAX_FILE),
        };
        read.map_err(|e| defect(key, path, e))
    };
    Ok((read("SSL.Certificate", &files.certificate)?, read("SSL.Key", &files.key)?))
}

fn build(files: &Ssl, found: &Files, tickets: Arc<dyn ProducesTickets>) -> Result<Arc<ServerConfig>, Defect> {
    let (certificate, key) = found;
    let bad_certificate = |what: &str| defect("SSL.Certificate", &files.certificate, what);
    let bad_key = |what: &str| defect("SSL.Key", &files.key, what);
    let chain: Vec<CertificateDer> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| bad_certificate("is broken: no whole PEM blocks"))?;
    if chain.is_empty() {
        return Err(bad_certificate("holds no certificate (no PEM block CERTIFICATE)"));
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| bad_key("holds no private key in PEM form, or one that is protected by a password"))?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.map_err(|e| match e {
        Error::InconsistentKeys(_) => {
            bad_key(&format!("is not the key of the first certificate in {}", files.certificate.display()))
        }
        Error::InvalidCertificate(_) => bad_certificate("its first certificate is broken"),
        _ => bad_key("is not a usable RSA, ECDSA (P-256, P-384) or Ed25519 key"),
    })?;
    config.ticketer = tickets;
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    Ok(Arc::new(config))
}

impl Certificates {
    pub fn load(files: &Ssl) -> Result<Certificates, Defect> {
        let found = read(files)?;
        let tickets = Ticketer::new();
        let tickets = tickets.map_err(|_| Defect { key: "HTTPS", found: "no random numbers available".into() })?;
        let in_use = Mutex::new(build(files, &found, tickets)?);
        Ok(Certificates { files: files.clone(), in_use, seen: Mutex::new(Some(found)) })
    }

    pub fn in_use(&self) -> Arc<ServerConfig> {
        lock(&self.in_use).clone()
    }

    /// Looks at the files again. What cannot be used is refused, and said once.
    pub fn refresh(&self) {
        let found = read(&self.files);
        let before = std::mem::replace(&mut *lock(&self.seen), found.as_ref().ok().cloned());
        if before.as_ref() == found.as_ref().ok() {
            return;
        }
        // With the keys of the tickets before, so that clients can resume their sessions.
        let tickets = self.in_use().ticketer.clone();
        match found.and_then(|found| build(&self.files, &found, tickets)) {
            Ok(config) => {
                *lock(&self.in_use) = config;
                log(format!("{} was replaced: new connections get the new one", self.files.certificate.display()));
            }
            Err(defect) => log(format!("{}; the previous certificate stays in use", defect.found)),
        }
    }
}
