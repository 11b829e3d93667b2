//! A client's connection as its two ends see it, whether it is TCP alone or TLS over TCP. The socket itself
//! blocks: whoever may not wait says so with each call.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
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
    socket: TcpStream,
    tls: Option<Box<Tls>>,
}

struct Tls {
    session: ServerConnection,
    /// Bytes that came, of which nothing could be made yet, or at most so many.
    fed: usize,
    plain: usize,
}

/// A socket that waits until a deadline, or not at all.
struct Socket<'a>(&'a TcpStream, Option<Instant>);

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

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(deadline) = self.1 else { return Ok(recv(self.0.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT)?) };
        self.0.set_read_timeout(left(deadline)?)?;
        self.0.read(buffer).map_err(|e| if waits(&e) { ErrorKind::TimedOut.into() } else { e })
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(deadline) = self.1 else {
            return Ok(send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?);
        };
        self.0.set_write_timeout(left(deadline)?)?;
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The kernel has no room for an answer: its client does not read.
fn not_read() -> io::Error {
    ErrorKind::WriteZero.into()
}

impl Tls {
    fn flush(&mut self, socket: &mut Socket) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(socket).map_err(|e| if waits(&e) { not_read() } else { e })?;
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

    fn read(&mut self, buffer: &mut [u8], mut socket: Socket) -> io::Result<usize> {
        for _ in 0..MAX_READS {
            match self.session.reader().read(buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                done => {
                    self.plain = self.plain.saturating_sub(*done.as_ref().unwrap_or(&0));
                    return done;
                }
            }
            let came = match self.session.read_tls(&mut socket)? {
                0 => return Ok(0),
                came => came,
            };
            self.fed = self.fed.saturating_add(came);
            let handshaking = self.session.is_handshaking();
            let made = self.session.process_new_packets();
            // Also the alert that tells the client why.
            self.flush(&mut socket)?;
            self.plain = made.map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?.plaintext_bytes_to_read();
            if self.plain > 0 || handshaking && !self.session.is_handshaking() {
                // Of what came before, the rest was used.
                self.fed = came;
            }
            if self.session.is_handshaking() && self.fed > MAX_HANDSHAKE {
                return Err(ErrorKind::InvalidData.into());
            }
        }
        Err(ErrorKind::WouldBlock.into())
    }
}

impl Stream {
    pub fn new(socket: TcpStream, tls: Option<Arc<ServerConfig>>) -> Result<Stream, rustls::Error> {
        let session = tls.map(ServerConnection::new).transpose()?;
        Ok(Stream { socket, tls: session.map(|session| Box::new(Tls { session, fed: 0, plain: 0 })) })
    }

    /// Reads what the client says, if anything is there. Handshakes are answered on the way.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_until(buffer, None)
    }

    fn read_until(&mut self, buffer: &mut [u8], deadline: Option<Instant>) -> io::Result<usize> {
        let mut socket = Socket(&self.socket, deadline);
        match &mut self.tls {
            None => socket.read(buffer),
            Some(tls) => tls.read(buffer, socket),
        }
    }

    /// Whether something was decrypted that no [`Stream::read`] has returned: no event will tell of it.
    pub fn has_more(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.plain > 0)
    }

    /// Whether bytes are there that nobody has read.
    pub fn has_unread(&self) -> bool {
        recv(self.socket.as_raw_fd(), &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT).is_ok_and(|size| size > 0)
    }

    /// Hands all of an answer to the kernel, or fails. The `last` one before the stream is closed waits for that, and
    /// travels in one segment with the end: that is one packet less of the five or so of a short connection.
    pub fn send(&mut self, bytes: &[u8], last: bool) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            return tls.send(bytes, last, &mut Socket(&self.socket, None));
        }
        let more = if last { MsgFlags::from_bits_retain(libc::MSG_MORE) } else { MsgFlags::empty() };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL | more;
        match send(self.socket.as_raw_fd(), bytes, flags) {
            Ok(sent) if sent == bytes.len() => Ok(()),
            Ok(_) | Err(nix::Error::EAGAIN) => Err(not_read()),
            Err(e) => Err(e.into()),
        }
    }

    /// How many bytes TLS may hold of what came, or keeps room for since then.
    pub fn held(&mut self) -> usize {
        let Some(tls) = &mut self.tls else { return 0 };
        let mut probe = Probe(0);
        // With this, rustls also gives back the room for a large record of which nothing is left.
        let _ = tls.session.read_tls(&mut probe);
        tls.fed.saturating_add(tls.plain).saturating_add(probe.0.saturating_sub(LEAST_ROOM))
    }

    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.session.is_handshaking())
    }

    pub fn finish(&mut self) -> io::Result<()> {
        self.close_notify();
        self.socket.shutdown(Shutdown::Write)
    }

    /// Tells the client that this is the end, and that nobody else cut the connection.
    fn close_notify(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.session.send_close_notify();
            let _ = tls.flush(&mut Socket(&self.socket, None));
        }
    }

    /// Reads and writes wait for the client, all of them together until `deadline`.
    pub fn blocking(&mut self, deadline: Instant) -> Blocking<'_> {
        Blocking { stream: self, deadline }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.close_notify();
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

pub struct Blocking<'a> {
    stream: &'a mut Stream,
    deadline: Instant,
}

impl Read for Blocking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let done = self.stream.read_until(buffer, Some(self.deadline));
            // TLS may have said something that holds nothing.
            if !matches!(&done, Err(e) if waits(e)) {
                return done;
            }
        }
    }
}

impl Write for Blocking<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut socket = Socket(&self.stream.socket, Some(self.deadline));
        match &mut self.stream.tls {
            None => socket.write(bytes),
            Some(tls) => tls.send(bytes, false, &mut socket).map(|()| bytes.len()),
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
