//! A connection to Redis, of whose answers none is longer than goat has room for: the protocol is the library's, the
//! socket goat's own.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, FromRedisValue, Parser, RedisError, cmd, from_redis_value};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// How long Redis may take to answer.
pub const PATIENCE: Duration = Duration::from_secs(2);
/// The most bytes of an answer.
const LONGEST: u64 = 8 << 20;

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

pub struct Connection(Box<dyn Stream>);

impl Connection {
    /// Connects to the server of a URL that the configuration allows, signs in, and sees to it that this is of use. An
    /// error of the kind `PermissionDenied` where Redis says that it never will be.
    pub fn open(url: &str) -> io::Result<Connection> {
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let (login, place) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (server, database) = place.split_once('/').unwrap_or((place, "0"));
        let port = server.rsplit_once(':').filter(|_| !server.ends_with(']'));
        let (host, port) = port.unwrap_or((server, "6379"));
        let tcp = connect(&format!("{host}:{port}"))?;
        let mut connection = Connection(if scheme == "rediss" { encrypt(host, tcp)? } else { Box::new(tcp) });
        if let Some((user, password)) = login.split_once(':') {
            let user = (!user.is_empty()).then_some(user);
            let signed_in = connection.query::<()>(cmd("AUTH").arg(user).arg(password));
            // One that does not know the command may say with what it was called.
            let secret = if password.is_empty() { "AUTH" } else { password };
            signed_in.map_err(|e| io::Error::new(e.kind(), e.to_string().replace(secret, "***")))?;
        }
        connection.query::<()>(cmd("SELECT").arg(database))?;
        connection.query::<()>(&cmd("PING"))?;
        Ok(connection)
    }

    /// What it answers a command. After an error the connection is of no more use.
    pub fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> io::Result<T> {
        self.0.write_all(&command.get_packed_command())?;
        let mut answer = (&mut self.0).take(LONGEST);
        let value = Parser::new().parse_value(&mut answer);
        if answer.limit() == 0 {
            return Err(io::Error::other("an answer is too long: somebody else writes to goat's keys"));
        }
        let found = value.and_then(|value| Ok(from_redis_value(value.extract_error()?)?));
        found.map_err(|e: RedisError| {
            let words = e.to_string();
            let refused = ["NOAUTH", "NOPERM", "WRONGPASS", "AUTH ", "DB index"].iter().any(|w| words.contains(w));
            io::Error::new(if refused { ErrorKind::PermissionDenied } else { ErrorKind::Other }, words)
        })
    }
}

fn connect(server: &str) -> io::Result<TcpStream> {
    let mut tries = server.to_socket_addrs()?.map(|address| TcpStream::connect_timeout(&address, PATIENCE));
    let stream = tries.find_map(Result::ok).ok_or_else(|| io::Error::other(format!("{server} cannot be reached")))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// TLS, where one of the authorities that this machine trusts has signed the server's certificate.
fn encrypt(host: &str, tcp: TcpStream) -> io::Result<Box<dyn Stream>> {
    let mut trusted = RootCertStore::empty();
    trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder().with_root_certificates(trusted).with_no_client_auth();
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_string()).map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    Ok(Box::new(StreamOwned::new(connection, tcp)))
}
