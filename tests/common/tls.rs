//! Certificates, made with the `openssl` command by a certificate authority of the test's own, and a client
//! that checks them.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::{AGENT, Bencode, Folder, HttpAnswer, PATIENCE, parse_answer};

/// The name that every certificate is for, beside 127.0.0.1, ::1 and the hub of a lab.
pub const NAME: &str = "tracker.example.org";

/// What `openssl genpkey` makes a key of; they are listed from the fastest to the slowest.
pub const P256: &str = "EC -pkeyopt ec_paramgen_curve:P-256";
pub const P384: &str = "EC -pkeyopt ec_paramgen_curve:P-384";
pub const ED25519: &str = "ED25519";
pub const RSA: &str = "RSA -pkeyopt rsa_keygen_bits:2048";

/// A certificate authority, and a folder for everything that it makes.
pub struct Authority {
    folder: Folder,
}

/// A certificate and its key, in files.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// The certificate (without those that follow it) as it is served.
    pub der: CertificateDer<'static>,
}

impl Authority {
    pub fn new() -> Authority {
        let authority = Authority { folder: Folder::new() };
        authority.certify("root", P256, "root", true);
        authority
    }

    /// The certificate that clients must trust.
    pub fn root(&self) -> PathBuf {
        self.join("root.crt")
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Makes `NAME.crt` and `NAME.key` (PKCS#8) with a new key of a kind, signed by the root.
    pub fn issue(&self, name: &str, kind: &str) -> Certificate {
        self.certify(name, kind, "root", false)
    }

    /// The same, but `NAME.crt` begins with a certificate that is signed by an intermediate, which follows
    /// and is signed by the root.
    pub fn issue_by_intermediate(&self, name: &str, kind: &str) -> Certificate {
        let middle = self.certify("intermediate", P256, "root", true);
        let leaf = self.certify(name, kind, "intermediate", false);
        let chain = [&leaf, &middle].map(|file| std::fs::read(&file.certificate).unwrap());
        std::fs::write(&leaf.certificate, chain.concat()).unwrap();
        leaf
    }

    fn certify(&self, name: &str, kind: &str, issuer: &str, signs: bool) -> Certificate {
        let file = |name: &str, end: &str| self.join(&format!("{name}.{end}"));
        let [certificate, key] = ["crt", "key"].map(|end| file(name, end));
        openssl(&format!("genpkey -algorithm {kind} -out {}", show(&key)));
        // Nothing of the system's openssl.cnf.
        let config = file(name, "cnf");
        std::fs::write(&config, "[req]\ndistinguished_name=name\n[name]\n").unwrap();
        let names = format!("DNS:{NAME},IP:127.0.0.1,IP:::1,IP:10.66.0.1");
        let rights = match signs {
            true => "-addext basicConstraints=critical,CA:TRUE -addext keyUsage=keyCertSign".into(),
            false => format!("-addext basicConstraints=CA:FALSE -addext subjectAltName={names}"),
        };
        let signed = match name == issuer {
            true => String::new(),
            false => {
                let [issuer, key] = ["crt", "key"].map(|end| file(issuer, end));
                format!("-CA {} -CAkey {}", show(&issuer), show(&key))
            }
        };
        openssl(&format!(
            "req -x509 -new -config {} -subj /CN={name} -days 30 -key {} {signed} {rights} -out {}",
            show(&config),
            show(&key),
            show(&certificate)
        ));
        let der = CertificateDer::from_pem_file(&certificate).unwrap();
        Certificate { certificate, key, der }
    }
}

impl Authority {
    /// The settings of a client that trusts this authority alone, and never resumes a session.
    pub fn trust(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_file(self.root()).unwrap();
        roots.add(root).unwrap();
        let provider = rustls::crypto::ring::default_provider();
        let config = ClientConfig::builder_with_provider(provider.into());
        let config = config.with_protocol_versions(versions).unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }
}

/// A connection over TLS.
pub struct TlsClient {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// What has come and belongs to the next answer.
    input: Vec<u8>,
}

impl TlsClient {
    /// Connects, and checks that the certificate is one for [`NAME`] by somebody who is trusted.
    pub fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsClient> {
        TlsClient::over(TcpStream::connect(address)?, config)
    }

    pub fn over(socket: TcpStream, config: &Arc<ClientConfig>) -> io::Result<TlsClient> {
        let name = ServerName::try_from(NAME).unwrap();
        let connection = ClientConnection::new(config.clone(), name).unwrap();
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let input = Vec::new();
        Ok(TlsClient { stream, input })
    }

    /// The certificates that were served.
    pub fn served(&self) -> &[CertificateDer<'static>] {
        self.stream.conn.peer_certificates().unwrap_or_default()
    }

    /// One record, or as many as it takes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self.stream.flush().unwrap();
    }

    /// Sends one record, and behind it at once bytes that are in none.
    pub fn send_and(&mut self, bytes: impl AsRef<[u8]>, raw: &[u8]) {
        self.stream.conn.writer().write_all(bytes.as_ref()).unwrap();
        let mut all = Vec::new();
        while self.stream.conn.wants_write() {
            self.stream.conn.write_tls(&mut all).unwrap();
        }
        all.extend(raw);
        self.stream.sock.write_all(&all).unwrap();
    }

    /// The next answer, to anything but HEAD.
    pub fn answer(&mut self) -> HttpAnswer {
        const LENGTH: &str = "\r\nContent-Length: ";
        let head = self.head();
        let (_, length) = head.split_once(LENGTH).expect("a length");
        let (length, _) = length.split_once("\r\n").unwrap();
        let length: usize = length.parse().unwrap();
        while self.input.len() < length {
            self.read_more();
        }
        let body = self.input.drain(..length);
        parse_answer(&head.into_bytes().into_iter().chain(body).collect::<Vec<u8>>())
    }

    /// The head of the next answer.
    pub fn head(&mut self) -> String {
        let end = loop {
            match self.input.windows(4).position(|four| four == b"\r\n\r\n") {
                Some(end) => break end + 4,
                None => self.read_more(),
            }
        };
        String::from_utf8(self.input.drain(..end).collect()).unwrap()
    }

    /// What comes before the end, which must be said by TLS: a connection that was cut ends anywhere.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.input);
        self.stream.read_to_end(&mut rest).unwrap();
        rest
    }

    /// Asks, and gives the bencoded answer; fails the test if that is a refusal.
    pub fn get(&mut self, target: &str) -> Bencode {
        self.send(get(target));
        let (status, _, body) = self.answer();
        let answer = Bencode::parse(&body);
        let refused = answer.get("failure reason").is_some();
        assert!(status == 200 && !refused, "{target}: {answer:?}");
        answer
    }

    fn read_more(&mut self) {
        let mut buffer = [0; 16 * 1024];
        let read = self.stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the end instead of an answer");
        self.input.extend_from_slice(&buffer[..read]);
    }
}

/// A request of a client that is let in, on a connection that is kept.
pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: {NAME}\r\nUser-Agent: {AGENT}\r\n\r\n")
}

/// Runs `openssl` with arguments that hold no spaces; gives what it prints.
pub fn openssl(arguments: &str) -> String {
    let mut command = Command::new("openssl");
    let output = command.args(arguments.split_whitespace()).output();
    let output = output.expect("openssl is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn show(path: &Path) -> &str {
    path.to_str().unwrap()
}
