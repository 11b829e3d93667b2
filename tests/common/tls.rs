//! Certificates, made with the `openssl` command, by a certificate authority of the test's own.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::Folder;

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
    /// As `openssl` prints it.
    pub serial: String,
}

impl Authority {
    pub fn new() -> Authority {
        let authority = Authority {
            folder: Folder::new(),
        };
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
        let serial = openssl(&format!("x509 -noout -serial -in {}", show(&certificate)));
        Certificate {
            certificate,
            key,
            serial: serial.trim().trim_start_matches("serial=").into(),
        }
    }
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
