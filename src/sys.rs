//! The operating system's calls that the standard library does not offer: options of listening sockets,
//! epoll, the limit on open files, whether the clock is kept right, and whose a file is. The only
//! place with `unsafe`, and only Linux.

#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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
    set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, ROOM)?;
    // Where the socket has every address of the host, a client takes an answer only from the one it asked.
    match socket.local_addr()?.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => set_option(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            set_option(socket.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
        }
        _ => Ok(()),
    }
}

/// Where a datagram came from, and to which of the host's addresses: what its answer needs.
#[derive(Clone, Copy)]
pub struct ReturnPath {
    /// A `sockaddr_in6`, or the shorter `sockaddr_in`.
    from: libc::sockaddr_in6,
    from_size: socklen_t,
    /// The kernel's word on the address asked, which is given back to it as it is.
    control: Control,
    control_size: usize,
}

/// Room for one control message of the largest kind, aligned as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

impl ReturnPath {
    /// Room for any.
    fn empty() -> ReturnPath {
        // SAFETY: all zeros are an address of no family.
        let from: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
        let control = Control([0; 64]);
        ReturnPath { from, from_size: size_of_val(&from) as socklen_t, control, control_size: size_of_val(&control) }
    }

    /// Whose datagram it was; never an IPv4-mapped address.
    pub fn ip(&self) -> IpAddr {
        if c_int::from(self.from.sin6_family) == libc::AF_INET6 {
            return IpAddr::from(self.from.sin6_addr.s6_addr).to_canonical();
        }
        // SAFETY: a sockaddr_in is shorter than a sockaddr_in6, and any bytes make one.
        let from: libc::sockaddr_in = unsafe { std::ptr::read((&raw const self.from).cast()) };
        IpAddr::from(from.sin_addr.s_addr.to_ne_bytes())
    }

    /// A message header that speaks of this path and of one piece of memory.
    fn header(&mut self, data: &mut libc::iovec) -> libc::mmsghdr {
        // SAFETY: all zeros are an empty message header.
        let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let message = &mut header.msg_hdr;
        (message.msg_name, message.msg_namelen) = ((&raw mut self.from).cast(), self.from_size);
        (message.msg_iov, message.msg_iovlen) = (&raw mut *data, 1);
        (message.msg_control, message.msg_controllen) = ((&raw mut self.control).cast(), self.control_size as _);
        header
    }

    /// Keeps of what the kernel wrote here how long it is, and of the way only the address: the network card of
    /// the way back may be another.
    fn received(&mut self, message: &libc::msghdr) {
        (self.from_size, self.control_size) = (message.msg_namelen, message.msg_controllen as _);
        // SAFETY: CMSG_FIRSTHDR gives null or a whole control message within `self.control`, to which `message`
        // points; what the kernel wrote there of these two kinds is an in_pktinfo or an in6_pktinfo.
        unsafe {
            let control = libc::CMSG_FIRSTHDR(message);
            match control.as_ref().map(|c| (c.cmsg_level, c.cmsg_type)) {
                Some((libc::IPPROTO_IP, libc::IP_PKTINFO)) => {
                    (*libc::CMSG_DATA(control).cast::<libc::in_pktinfo>()).ipi_ifindex = 0;
                }
                Some((libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)) => {
                    (*libc::CMSG_DATA(control).cast::<libc::in6_pktinfo>()).ipi6_ifindex = 0;
                }
                _ => {}
            }
        }
    }
}

/// A datagram, and the path it came on or is to take.
#[derive(Clone)]
pub struct Datagram {
    /// Where it came from, or goes to.
    pub path: ReturnPath,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// The most datagrams that one call to the kernel takes or gives.
pub const BATCH: usize = 32;
/// The longest datagram read: more than any URL that has a passkey.
const MAX_DATAGRAM: usize = 2048;

impl Datagram {
    /// Says nothing to nobody.
    pub fn empty() -> Datagram {
        Datagram { path: ReturnPath::empty(), bytes: Vec::new() }
    }
}

/// Headers for as many datagrams, of which each has `room` bytes or what it says.
fn headers(datagrams: &mut [Datagram], data: &mut [libc::iovec; BATCH], room: Option<usize>) -> [libc::mmsghdr; BATCH] {
    // SAFETY: all zeros are an empty message header.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    for ((datagram, data), header) in datagrams.iter_mut().zip(data).zip(&mut headers) {
        let Datagram { path, bytes } = datagram;
        *data = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: room.unwrap_or(bytes.len()) };
        *header = path.header(data);
    }
    headers
}

/// Waits for a datagram, and receives it and those that wait behind it; what does not fit is cut off. Returns how
/// many of `datagrams` were filled.
pub fn receive(socket: &UdpSocket, datagrams: &mut [Datagram]) -> io::Result<usize> {
    for datagram in &mut *datagrams {
        datagram.path = ReturnPath::empty();
        datagram.bytes.clear();
        datagram.bytes.reserve(MAX_DATAGRAM);
    }
    let mut data = NOTHING;
    let mut headers = headers(datagrams, &mut data, Some(MAX_DATAGRAM));
    let room = datagrams.len().min(BATCH) as libc::c_uint;
    let (fd, flags) = (socket.as_raw_fd(), libc::MSG_WAITFORONE);
    // SAFETY: the first `room` headers point to live memory of the sizes they give, which the kernel fills.
    let received = unsafe { libc::recvmmsg(fd, headers.as_mut_ptr(), room, flags, std::ptr::null_mut()) };
    let received = check(received)? as usize;
    for (datagram, header) in datagrams.iter_mut().zip(&headers).take(received) {
        // SAFETY: the kernel has written so many bytes, at most MAX_DATAGRAM, for which room was reserved.
        unsafe { datagram.bytes.set_len(header.msg_len as usize) };
        datagram.path.received(&header.msg_hdr);
    }
    Ok(received)
}

/// Sends datagrams. Where the network does not take one it is lost, and the client asks again.
pub fn send_all(socket: &UdpSocket, mut datagrams: &mut [Datagram]) {
    while !datagrams.is_empty() {
        let mut data = NOTHING;
        let mut headers = headers(datagrams, &mut data, None);
        let count = datagrams.len().min(BATCH) as libc::c_uint;
        // SAFETY: the first `count` headers point to live memory of the sizes they give, which the kernel only reads.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_NOSIGNAL) };
        // An error is of the first of them.
        datagrams = datagrams.get_mut(sent.max(1) as usize..).unwrap_or_default();
    }
}

/// No memory.
const NOTHING: [libc::iovec; BATCH] = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];

/// Writes to a socket. The `last` bytes before it is closed wait for that, and travel in one segment with
/// the end of the connection: that is one packet less of the five or so that a short connection takes.
pub fn send(socket: &TcpStream, bytes: &[u8], last: bool) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL | if last { libc::MSG_MORE } else { 0 };
    // SAFETY: the pointer is to as many live bytes as are said; the kernel only reads them.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast::<c_void>(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Bytes from which on a piece of memory is taken from the system by itself, and given back when it is freed: what
/// waits to be written takes many such pieces for a few seconds.
#[cfg(target_env = "gnu")]
const LARGE: c_int = 64 << 10;

/// Lets all threads allocate from one heap: what one frees another can use. With a heap for each thread
/// the books of a busy tracker took twice the memory; it cost no measurable time, for threads that answer
/// hardly allocate.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: two numbers are passed. It can only fail by changing nothing.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}

/// Locks a file for this process alone, until it is closed; an error if another has it.
pub fn lock_file(file: &File) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }).map(drop)
}

/// The name of the user whose a file is, or of what hides it, if that is not this process's own user, nor is that root.
pub fn stranger(path: &Path) -> Option<String> {
    let own = fs::metadata("/proc/self").ok()?.uid();
    let owner = path.ancestors().find_map(|part| fs::metadata(part).ok())?.uid();
    let of = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == owner.to_string()).then(|| name.to_string())
    };
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    (own != 0 && own != owner)
        .then(|| users.lines().find_map(of).map_or(format!("user {owner}"), |name| format!("the user {name}")))
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
