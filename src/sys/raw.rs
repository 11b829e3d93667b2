//! The only place with `unsafe`: what no crate in the tree offers. Only calls to the kernel and the C library, which
//! share no memory beyond the call.

#![allow(unsafe_code)]

use std::io;
use std::mem::zeroed;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsRawFd;

use libc::{c_int, c_uint, iovec, mmsghdr};

use super::datagram::{Datagram, MAX_DATAGRAM, ReturnPath};

/// The most datagrams that one call to the kernel takes or gives: that saves 15 % of an answer, and with the
/// `sendmmsg` of nix no answer could leave from the address that was asked.
pub const BATCH: usize = 32;
/// Headers that point into as many datagrams.
fn headers(datagrams: &mut [Datagram], data: &mut [iovec; BATCH]) -> [mmsghdr; BATCH] {
    // SAFETY: all zeros are an empty message header.
    let mut headers: [mmsghdr; BATCH] = unsafe { zeroed() };
    for ((datagram, data), header) in datagrams.iter_mut().zip(data).zip(&mut headers) {
        let Datagram { path, bytes } = datagram;
        *data = iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let message = &mut header.msg_hdr;
        message.msg_name = path.name.0.as_mut_ptr().cast();
        message.msg_namelen = path.name_size as _;
        message.msg_iov = data;
        message.msg_iovlen = 1;
        message.msg_control = path.control.0.as_mut_ptr().cast();
        message.msg_controllen = path.control_size as _;
    }
    headers
}

/// Waits for a datagram, and receives it and those that wait behind it; what does not fit is cut off. Returns how
/// many of `datagrams` were filled.
pub fn receive(socket: &UdpSocket, datagrams: &mut [Datagram]) -> io::Result<usize> {
    for datagram in &mut *datagrams {
        datagram.path = ReturnPath::EMPTY;
        datagram.bytes.resize(MAX_DATAGRAM, 0);
    }
    let mut data = NOTHING;
    let mut headers = headers(datagrams, &mut data);
    let room = datagrams.len().min(BATCH) as c_uint;
    let (socket, headers_at) = (socket.as_raw_fd(), headers.as_mut_ptr());
    // SAFETY: the first `room` headers point to live memory of the sizes they give, which the kernel fills.
    let received = unsafe { libc::recvmmsg(socket, headers_at, room, libc::MSG_WAITFORONE, std::ptr::null_mut()) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    for (datagram, header) in datagrams.iter_mut().zip(&headers).take(received) {
        datagram.bytes.truncate(header.msg_len as usize);
        datagram.path.name_size = header.msg_hdr.msg_namelen as usize;
        datagram.path.control_size = header.msg_hdr.msg_controllen as _;
        datagram.path.forget_interface();
    }
    Ok(received)
}

/// Sends datagrams. Where the network does not take one it is lost, and the client asks again.
pub fn send_all(socket: &UdpSocket, mut datagrams: &mut [Datagram]) {
    while !datagrams.is_empty() {
        let mut data = NOTHING;
        let mut headers = headers(datagrams, &mut data);
        let count = datagrams.len().min(BATCH) as c_uint;
        // SAFETY: the first `count` headers point to live memory of the sizes they give, which the kernel only reads.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_NOSIGNAL) };
        // An error is of the first of them.
        datagrams = datagrams.get_mut(sent.max(1) as usize..).unwrap_or_default();
    }
}

/// No memory.
const NOTHING: [iovec; BATCH] = [iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];

/// Has the kernel hand over connections only when their first bytes have come, or after some seconds: so who says
/// nothing costs nothing, and most need no second look.
pub fn defer_accept(listener: &TcpListener, seconds: c_int) -> io::Result<()> {
    let (level, name, size) = (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, size_of::<c_int>() as libc::socklen_t);
    // SAFETY: the pointer is to a live c_int of the size given; the kernel only reads it.
    let set = unsafe { libc::setsockopt(listener.as_raw_fd(), level, name, (&raw const seconds).cast(), size) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets all threads allocate from one heap, which gives large pieces back when they are freed: what one frees another
/// can use. With a heap for each thread the books of a busy tracker took twice the memory.
pub fn share_one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: numbers are passed. It can only fail by changing nothing.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 64 << 10);
    }
}

/// Gives the system back what was freed between pieces that are still in use. That takes milliseconds.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: a number is passed.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Whether the system says that a time service keeps its clock right.
pub fn clock_is_kept() -> bool {
    // SAFETY: all zeros are a valid timex that changes nothing, and live, for the kernel to fill.
    (0..libc::TIME_ERROR).contains(&unsafe { libc::adjtimex(&mut zeroed::<libc::timex>()) })
}
