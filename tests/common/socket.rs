//! Client sockets as only the system's own calls make them.

use std::io;
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::time::Duration;

/// Connects from an address of 127.0.0.0/8, which the standard library cannot choose; with room for so
/// many bytes that nobody has read, unless that is 0. To connect, to write and to read may each take
/// `patience`.
pub fn connect_from(source: Ipv4Addr, to: SocketAddr, room: libc::c_int, patience: Duration) -> io::Result<TcpStream> {
    let check = |result: libc::c_int| {
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    };
    let name = |ip: IpAddr, port: u16| {
        let IpAddr::V4(ip) = ip else { panic!("{ip} is not IPv4") };
        libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: port.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(ip).to_be() },
            sin_zero: [0; 8],
        }
    };
    let (from, to) = (name(source.into(), 0), name(to.ip(), to.port()));
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: the descriptor is new and nobody else's; the names are live and as long as said.
    unsafe {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
        let socket = check(libc::socket(libc::AF_INET, kind, 0))?;
        let stream = TcpStream::from_raw_fd(socket);
        if room > 0 {
            set_option(&stream, libc::SOL_SOCKET, libc::SO_RCVBUF, &room);
        }
        // The port is chosen when the other end is known: so there are enough for each of them.
        let late: libc::c_int = 1;
        set_option(&stream, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, &late);
        stream.set_write_timeout(Some(patience))?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        check(libc::bind(socket, (&raw const from).cast(), length))?;
        check(libc::connect(socket, (&raw const to).cast(), length))?;
        Ok(stream)
    }
}

/// Connects from an IPv6 address of this machine.
pub fn connect_from_ipv6(source: Ipv6Addr, to: SocketAddr) -> io::Result<TcpStream> {
    use nix::sys::socket::*;
    let SocketAddr::V6(to) = to else { panic!("{to} is not IPv6") };
    let socket = socket(AddressFamily::Inet6, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrIn6::from(SocketAddrV6::new(source, 0, 0, 0)))?;
    connect(socket.as_raw_fd(), &SockaddrIn6::from(to))?;
    Ok(socket.into())
}

/// Lets the connection end by a reset when it is closed.
pub fn end_by_reset(stream: &TcpStream) {
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    set_option(stream, libc::SOL_SOCKET, libc::SO_LINGER, &at_once);
}

fn set_option<T>(stream: &TcpStream, level: libc::c_int, name: libc::c_int, value: &T) {
    let length = size_of::<T>() as libc::socklen_t;
    let value = std::ptr::from_ref(value).cast();
    // SAFETY: the value is live and as long as said; the kernel only reads it.
    let done = unsafe { libc::setsockopt(stream.as_raw_fd(), level, name, value, length) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}
