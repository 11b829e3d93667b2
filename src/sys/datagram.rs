//! A datagram, where it came from, and to which of the host's addresses: as the kernel writes it, read as bytes.

use std::net::IpAddr;

/// Bytes aligned as the kernel wants its structures.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Aligned<const N: usize>(pub(super) [u8; N]);

/// A datagram, and the path it came on or is to take.
#[derive(Clone)]
pub struct Datagram {
    /// Where it came from, or goes to.
    pub path: ReturnPath,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// The longest datagram read: more than any URL that has a passkey.
pub(super) const MAX_DATAGRAM: usize = 2048;

impl Datagram {
    /// Says nothing to nobody.
    pub fn empty() -> Datagram {
        Datagram { path: ReturnPath::EMPTY, bytes: Vec::new() }
    }
}

/// What the answer to a datagram needs.
#[derive(Clone, Copy)]
pub struct ReturnPath {
    /// A `sockaddr_in6`, or the shorter `sockaddr_in`.
    pub(super) name: Aligned<28>,
    pub(super) name_size: usize,
    /// The kernel's word on the address asked (one control message), which is given back to it.
    pub(super) control: Aligned<64>,
    pub(super) control_size: usize,
}

/// What a control message begins with: its length (a `size_t`), level and type.
const HEAD: usize = size_of::<usize>() + 8;

impl ReturnPath {
    /// Room for any.
    pub(super) const EMPTY: ReturnPath =
        ReturnPath { name: Aligned([0; 28]), name_size: 28, control: Aligned([0; 64]), control_size: 64 };

    /// Whose datagram it was; never an IPv4-mapped address.
    pub fn ip(&self) -> IpAddr {
        let name = &self.name.0;
        let family = name.first_chunk().map_or(0, |family| u16::from_ne_bytes(*family));
        let part = |at: usize| name.get(at..).unwrap_or_default();
        // After the port, and with IPv6 the flow.
        let v4 = part(4).first_chunk::<4>().map(|octets| IpAddr::from(*octets));
        let v6 = part(8).first_chunk::<16>().map(|octets| IpAddr::from(*octets).to_canonical());
        let ip = if i32::from(family) == libc::AF_INET6 { v6 } else { v4 };
        ip.unwrap_or(IpAddr::from([0; 4]))
    }

    /// Keeps of the way only the address: the network card of the way back may be another.
    pub(super) fn forget_interface(&mut self) {
        let control = self.control.0.get_mut(..self.control_size).unwrap_or_default();
        let Some((head, data)) = control.split_at_mut_checked(HEAD) else { return };
        let word =
            |at: usize| head.get(HEAD - at..).and_then(<[u8]>::first_chunk).map(|word| i32::from_ne_bytes(*word));
        // An in_pktinfo begins with the card's number, an in6_pktinfo ends with it.
        let card = match (word(8), word(4)) {
            (Some(libc::IPPROTO_IP), Some(libc::IP_PKTINFO)) => data.get_mut(..4),
            (Some(libc::IPPROTO_IPV6), Some(libc::IPV6_PKTINFO)) => data.get_mut(16..20),
            _ => None,
        };
        if let Some(card) = card {
            card.fill(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(level: i32, kind: i32, data: &[u8]) -> ReturnPath {
        let length = HEAD + data.len();
        let head = [&length.to_ne_bytes()[..], &level.to_ne_bytes(), &kind.to_ne_bytes()].concat();
        let mut path = ReturnPath { control_size: length, ..ReturnPath::EMPTY };
        path.control.0[..length].copy_from_slice(&[&head, data].concat());
        path
    }

    fn data(path: &ReturnPath) -> &[u8] {
        &path.control.0[HEAD..path.control_size]
    }

    #[test]
    fn of_a_way_only_the_card_is_forgotten() {
        let mut v4 = path(libc::IPPROTO_IP, libc::IP_PKTINFO, &[9; 12]);
        v4.forget_interface();
        assert_eq!(data(&v4), [0, 0, 0, 0, 9, 9, 9, 9, 9, 9, 9, 9]);
        let mut v6 = path(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &[9; 20]);
        v6.forget_interface();
        assert_eq!(data(&v6), [[9; 16].as_slice(), &[0; 4]].concat());
        let mut other = path(libc::SOL_SOCKET, libc::SCM_RIGHTS, &[9; 20]);
        other.forget_interface();
        assert_eq!(data(&other), [9; 20]);
    }

    #[test]
    fn control_messages_that_are_cut_short_change_nothing() {
        for size in (0..HEAD + 4).chain([64, 65, usize::MAX]) {
            let mut path = path(libc::IPPROTO_IP, libc::IP_PKTINFO, &[9; 12]);
            path.control_size = size;
            path.forget_interface();
            assert_eq!(path.control.0[HEAD] == 9, size != 64, "{size}");
        }
    }

    #[test]
    fn an_address_is_read_from_either_family() {
        let mut path = ReturnPath::EMPTY;
        path.name.0[..2].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        path.name.0[4..8].copy_from_slice(&[192, 0, 2, 1]);
        assert_eq!(path.ip(), IpAddr::from([192, 0, 2, 1]));
        path.name.0[..2].copy_from_slice(&(libc::AF_INET6 as u16).to_ne_bytes());
        path.name.0[8..24].copy_from_slice(&"::ffff:192.0.2.2".parse::<std::net::Ipv6Addr>().unwrap().octets());
        assert_eq!(path.ip(), IpAddr::from([192, 0, 2, 2]));
        path.name.0[8..24].copy_from_slice(&[0x20; 16]);
        assert_eq!(path.ip(), IpAddr::from([0x20; 16]));
    }
}
