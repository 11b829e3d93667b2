//! A client's connection as its two ends see it, whether it is TCP alone or TLS over TCP.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv, send};
use rustls::{ServerConfig, ServerConnection};

/// Reads of the socket for one read of the stream: a client that sends TLS records without content must
/// not keep a thread.
const MAX_READS: usize = 16;
/// The most bytes of a handshake: those of browsers and BitTorrent clients have some KiB.
const MAX_HANDSHAKE: usize = 16 * 1024;
/// What rustls has room for where nothing came that waits for the rest of its record.
const LEAST_ROOM: usize = 4 * 1024;
/// How long a slow reader may take nothing at all.
const STALLED: Duration = Duration::from_secs(10);

pub struct Stream {
    socket: Socket,
    tls: Option<Box<Tls>>,
}

struct Tls {
    session: ServerConnection,
    /// Bytes that came, of which nothing could be made yet, or at most so many.
    fed: usize,
}

/// A socket whose reads and writes wait for the client, all of them together until the deadline; without one, not at
/// all.
struct Socket {
    tcp: TcpStream,
    deadline: Option<Instant>,
}

/// Reads nothing, but learns how much room there is to read.
struct Probe(usize);

impl Read for Probe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0 = buffer.len();
        Err(ErrorKind::WouldBlock.into())
    }
}

/// How long one read or write may take.
fn left(deadline: Instant) -> io::Result<Option<Duration>> {
    let left = deadline.saturating_duration_since(Instant::now()).min(STALLED);
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(deadline) = self.deadline else {
            return Ok(recv(self.tcp.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?);
        };
        self.tcp.set_read_timeout(left(deadline)?)?;
        self.tcp.read(buffer).map_err(|e| if waits(&e) { ErrorKind::TimedOut.into() } else { e })
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(deadline) = self.deadline else {
            return Ok(send(self.tcp.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?);
        };
        self.tcp.set_write_timeout(left(deadline)?)?;
        self.tcp.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Tls {
    fn flush(&mut self, socket: &mut Socket) -> io::Result<()> {
        while self.session.wants_write() {
            // Without room in the kernel: the client does not read.
            self.session.write_tls(socket).map_err(|e| if waits(&e) { ErrorKind::WriteZero.into() } else { e })?;
        }
        Ok(())
    }

    /// Encrypts and sends; with the `last` bytes goes the word that they are the last.
    fn send(&mut self, mut bytes: &[u8], last: bool, socket: &mut Socket) -> io::Result<()> {
        while !bytes.is_empty() {
            let taken = self.session.writer().write(bytes)?;
            bytes = bytes.get(taken..).unwrap_or_default();
            if last && bytes.is_empty() {
                self.session.send_close_notify();
            }
            self.flush(socket)?;
        }
        Ok(())
    }

    /// How many bytes were decrypted that nobody has read.
    fn plain(&mut self) -> usize {
        self.session.process_new_packets().map_or(0, |state| state.plaintext_bytes_to_read())
    }

    fn read(&mut self, buffer: &mut [u8], socket: &mut Socket) -> io::Result<usize> {
        for _ in 0..MAX_READS {
            match self.session.reader().read(buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
            let came = match self.session.read_tls(socket)? {
                0 => return Ok(0),
                came => came,
            };
            self.fed = self.fed.saturating_add(came);
            let handshaking = self.session.is_handshaking();
            let made = self.session.process_new_packets();
            // Also the alert that tells the client why.
            self.flush(socket)?;
            let made = made.map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
            if made.plaintext_bytes_to_read() > 0 || handshaking && !self.session.is_handshaking() {
                // Of what came before, the rest was used.
                self.fed = came;
            }
            if self.session.is_handshaking() && self.fed > MAX_HANDSHAKE {
                return Err(ErrorKind::InvalidData.into());
            }
        }
        // Who waits tries this again at once, as `read_to_end` does.
        Err(ErrorKind::Interrupted.into())
    }
}

impl Stream {
    pub fn new(socket: TcpStream, tls: Option<Arc<ServerConfig>>) -> Result<Stream, rustls::Error> {
        let session = tls.map(ServerConnection::new).transpose()?;
        let socket = Socket { tcp: socket, deadline: None };
        Ok(Stream { socket, tls: session.map(|session| Box::new(Tls { session, fed: 0 })) })
    }

    pub fn socket(&self) -> &TcpStream {
        &self.socket.tcp
    }

    /// Has reads and writes wait for the client until a deadline; without one they take what is there.
    pub fn wait_until(&mut self, deadline: Option<Instant>) {
        self.socket.deadline = deadline;
    }

    /// Whether something was decrypted that nobody has read: no event will tell of it.
    pub fn has_more(&mut self) -> bool {
        self.tls.as_mut().is_some_and(|tls| tls.plain() > 0)
    }

    /// Whether bytes are there that nobody has read.
    pub fn has_unread(&self) -> bool {
        recv(self.socket().as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)
            .is_ok_and(|size| size > 0)
    }

    /// Hands all of an answer to the kernel, or fails. The `last` one before the stream is closed waits for that, and
    /// travels in one segment with the end: that is one packet less of the five or so of a short connection.
    pub fn send(&mut self, bytes: &[u8], last: bool) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            return tls.send(bytes, last, &mut self.socket);
        }
        let more = if last { MsgFlags::from_bits_retain(libc::MSG_MORE) } else { MsgFlags::empty() };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL | more;
        match send(self.socket().as_raw_fd(), bytes, flags) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) | Err(nix::Error::EAGAIN) => Err(ErrorKind::WriteZero.into()),
            Err(e) => Err(e.into()),
        }
    }

    /// How many bytes TLS may hold of what came, or keeps room for since then.
    pub fn held(&mut self) -> usize {
        let Some(tls) = &mut self.tls else { return 0 };
        let mut probe = Probe(0);
        // With this, rustls also gives back the room for a large record of which nothing is left.
        let _ = tls.session.read_tls(&mut probe);
        tls.fed.saturating_add(tls.plain()).saturating_add(probe.0.saturating_sub(LEAST_ROOM))
    }

    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.session.is_handshaking())
    }

    pub fn finish(&mut self) -> io::Result<()> {
        self.close_notify();
        self.socket().shutdown(Shutdown::Write)
    }

    /// Tells the client that this is the end, and that nobody else cut the connection.
    fn close_notify(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.session.send_close_notify();
            let _ = tls.flush(&mut self.socket);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.close_notify();
    }
}

impl Read for Stream {
    /// Reads what the client says. Handshakes are answered on the way.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.read(buffer),
            Some(tls) => tls.read(buffer, &mut self.socket),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.write(bytes),
            Some(tls) => tls.send(bytes, false, &mut self.socket).map(|()| bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a read or write only has to be tried again.
pub fn waits(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
