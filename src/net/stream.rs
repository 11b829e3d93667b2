//! A client's connection as its two ends see it, whether it is TCP alone or TLS over TCP.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use rustls::{ServerConfig, ServerConnection};

use crate::sys;

/// Reads of the socket for one read of the stream: a client that sends TLS records without content must
/// not keep a thread.
const MAX_READS: usize = 16;
/// The most bytes of answers that TLS may hold back.
const TLS_BUFFER: usize = 16 * 1024;

/// A connection that was accepted.
pub struct Stream {
    socket: TcpStream,
    tls: Option<Box<ServerConnection>>,
}

impl Stream {
    /// A connection that does not wait; with TLS where there is a configuration for it.
    pub fn new(socket: TcpStream, tls: Option<Arc<ServerConfig>>) -> io::Result<Stream> {
        socket.set_nonblocking(true)?;
        let tls = tls.map(|config| ServerConnection::new(config).map(Box::new)).transpose();
        let mut tls = tls.map_err(io::Error::other)?;
        if let Some(tls) = &mut tls {
            tls.set_buffer_limit(Some(TLS_BUFFER));
        }
        Ok(Stream { socket, tls })
    }

    /// Reads what the client says. Handshakes are answered on the way; before it has to wait, what TLS has
    /// to say is sent.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.socket.read(buffer) };
        for _ in 0..MAX_READS {
            match tls.reader().read(buffer) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                done => return done,
            }
            match tls.read_tls(&mut self.socket) {
                Ok(0) => return Ok(0),
                Ok(_) => {}
                Err(e) => {
                    self.flush()?;
                    return Err(e);
                }
            }
            if let Err(e) = tls.process_new_packets() {
                // The alert that tells the client why, if it can be sent.
                let _ = tls.write_tls(&mut self.socket);
                return Err(io::Error::new(ErrorKind::InvalidData, e));
            }
        }
        self.flush()?;
        Err(ErrorKind::WouldBlock.into())
    }

    /// Whether something was decrypted that no [`Stream::read`] has returned: no event will tell of it.
    pub fn has_more(&mut self) -> bool {
        self.tls.as_mut().is_some_and(|tls| tls.reader().into_first_chunk().is_ok_and(|chunk| !chunk.is_empty()))
    }

    /// Writes some of `bytes`; after the `last` ones the stream is closed. With TLS they may be on the way
    /// only after [`Stream::flush`].
    pub fn send(&mut self, bytes: &[u8], last: bool) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return sys::send(&self.socket, bytes, last) };
        let mut taken = tls.writer().write(bytes)?;
        if taken == 0 {
            // No room: what is held back must go first. With room TLS always takes something.
            while tls.wants_write() {
                tls.write_tls(&mut self.socket)?;
            }
            taken = tls.writer().write(bytes)?;
        }
        if last && taken == bytes.len() {
            tls.send_close_notify();
        }
        match self.flush() {
            Err(e) if e.kind() != ErrorKind::WouldBlock => Err(e),
            _ => Ok(taken),
        }
    }

    /// Sends what TLS holds back.
    pub fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            tls.write_tls(&mut self.socket)?;
        }
        Ok(())
    }

    /// Whether TLS holds something back.
    pub fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// How many bytes TLS may be holding back, of answers and of what came meanwhile.
    pub fn held(&self) -> usize {
        if self.wants_write() { 2 * TLS_BUFFER } else { 0 }
    }

    /// Whether this is TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether TLS is not agreed on yet.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Says that nothing more will be written.
    pub fn finish(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
        self.flush()?;
        self.socket.shutdown(Shutdown::Write)
    }

    /// From now on writes wait, but none beyond `deadline`.
    pub fn patient(&mut self, deadline: Instant) -> io::Result<Patient<'_>> {
        self.socket.set_nonblocking(false)?;
        Ok(Patient { stream: self, deadline })
    }
}

impl Drop for Stream {
    /// Tells the client that this is the end, and that nobody else cut the connection.
    fn drop(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = tls.write_tls(&mut self.socket);
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A stream whose writes wait for a slow client, all of them together until a deadline.
pub struct Patient<'a> {
    stream: &'a mut Stream,
    deadline: Instant,
}

impl Patient<'_> {
    fn wait(&mut self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.socket.set_write_timeout(Some(left))
    }
}

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait()?;
        let Some(tls) = &mut self.stream.tls else { return self.stream.socket.write(bytes) };
        let taken = tls.writer().write(bytes)?;
        self.flush()?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.stream.wants_write() {
            self.wait()?;
            if let Some(tls) = &mut self.stream.tls {
                tls.write_tls(&mut self.stream.socket)?;
            }
        }
        Ok(())
    }
}
