//! The operating system's calls that the standard library does not offer: options of listening sockets,
//! epoll, the limit on open files, and whether the clock is kept right. The only place with `unsafe`, and only Linux.

#![allow(unsafe_code)]

use std::io;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, c_void, socklen_t};

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn set_option(socket: RawFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let size = size_of::<c_int>() as socklen_t;
    // SAFETY: the pointer is to a live c_int of the size given; the kernel only reads it.
    check(unsafe { libc::setsockopt(socket, level, name, (&raw const value).cast::<c_void>(), size) }).map(drop)
}

/// Sets on a listener what its connections inherit: no delay for small writes, and no connection before
/// its first bytes have come (or `defer` seconds have passed), so that who says nothing costs nothing.
pub fn tune_listener(listener: &TcpListener, defer: u32, backlog: u32) -> io::Result<()> {
    let socket = listener.as_raw_fd();
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, defer as c_int)?;
    // SAFETY: no memory is passed. A second listen() on a listening socket changes its backlog.
    check(unsafe { libc::listen(socket, backlog as c_int) }).map(drop)
}

/// Gives a UDP socket room for bursts: as much as the system allows, up to 4 MiB each way.
pub fn tune_udp(socket: &UdpSocket) -> io::Result<()> {
    const ROOM: c_int = 4 << 20;
    set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, ROOM)?;
    set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, ROOM)
}

/// Writes to a socket. The `last` bytes before it is closed wait for that, and travel in one segment with
/// the end of the connection: that is one packet less of the five or so that a short connection takes.
pub fn send(socket: &TcpStream, bytes: &[u8], last: bool) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL | if last { libc::MSG_MORE } else { 0 };
    // SAFETY: the pointer is to as many live bytes as are said; the kernel only reads them.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast::<c_void>(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Lets all threads allocate from one heap: what one frees another can use. With a heap for each thread
/// the books of a busy tracker took twice the memory; it cost no measurable time, for threads that answer
/// hardly allocate.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: two numbers are passed. It can only fail by changing nothing.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Whether the system says that a time service keeps its clock right.
pub fn clock_is_kept() -> bool {
    // SAFETY: all zeros are a valid timex, and one that changes nothing.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live timex, which the kernel fills.
    let state = unsafe { libc::adjtimex(&raw mut timex) };
    (0..libc::TIME_ERROR).contains(&state)
}

/// Raises the limit on open files as far as it may be, and returns it.
pub fn raise_file_limit() -> io::Result<libc::rlim_t> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live rlimit, which the kernel fills.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to a live rlimit, which the kernel only reads.
    check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(limit.rlim_cur)
}

/// Waits for many sockets at once.
pub struct Poll(OwnedFd);

/// What to wait for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Something to read, or the end.
    Read,
    /// Room to write.
    Write,
    /// Connections to accept; of all that wait on the same listener one is woken.
    Accept,
}

impl Interest {
    fn flags(self) -> u32 {
        (match self {
            Interest::Read => libc::EPOLLIN,
            Interest::Write => libc::EPOLLOUT,
            Interest::Accept => libc::EPOLLIN | libc::EPOLLEXCLUSIVE,
        }) as u32
    }
}

/// Room for the sockets that one [`Poll::wait`] finds ready.
pub struct Events(Vec<libc::epoll_event>);

impl Events {
    /// Room for `count` sockets.
    pub fn new(count: usize) -> Events {
        Events(vec![libc::epoll_event { events: 0, u64: 0 }; count])
    }
}

impl Poll {
    /// Waits for nothing yet.
    pub fn new() -> io::Result<Poll> {
        // SAFETY: no memory is passed.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor was just made, and nobody else owns it.
        Ok(Poll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn control(&self, operation: c_int, socket: &impl AsRawFd, interest: Interest, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: interest.flags(), u64: token };
        // SAFETY: the pointer is to a live epoll_event, which the kernel only reads.
        check(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), operation, socket.as_raw_fd(), &raw mut event) }).map(drop)
    }

    /// Waits for a socket from now on, until it is closed. Its `token` comes with its events.
    pub fn add(&self, socket: &impl AsRawFd, interest: Interest, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, interest, token)
    }

    /// Waits for something else of a socket.
    pub fn change(&self, socket: &impl AsRawFd, interest: Interest, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket, interest, token)
    }

    /// Waits for a socket no more.
    pub fn remove(&self, socket: &impl AsRawFd) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_DEL, socket, Interest::Read, 0)
    }

    /// Waits at most `timeout` milliseconds (-1: for ever) and returns the tokens of what is ready.
    pub fn wait<'a>(&self, events: &'a mut Events, timeout: i32) -> impl Iterator<Item = u64> + 'a {
        let room = c_int::try_from(events.0.len()).unwrap_or(c_int::MAX);
        // SAFETY: the pointer is to `room` live events, of which the kernel fills as many as it returns.
        let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.0.as_mut_ptr(), room, timeout) };
        // An error can only be EINTR here: then nothing is ready, and the caller comes again.
        events.0.iter().take(usize::try_from(count).unwrap_or(0)).map(|event| event.u64)
    }
}
