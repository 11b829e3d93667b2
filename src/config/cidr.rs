//! Blocks of addresses, in which an IPv4 address that is written as IPv6 counts as IPv4.

use std::fmt::{self, Display, Formatter};
use std::net::IpAddr;
use std::str::FromStr;

/// A block of addresses, such as `10.0.0.0/8`, or a single one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cidr {
    ip: IpAddr,
    /// How many of the last bits do not count.
    free: u32,
}

impl Cidr {
    /// Whether the address is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let same_family = self.ip.is_ipv4() == ip.to_canonical().is_ipv4();
        same_family && (bits(self.ip) ^ bits(ip)).leading_zeros() + self.free >= 128
    }
}

impl FromStr for Cidr {
    type Err = ();

    /// Refuses a block whose address goes on after the prefix (`10.0.0.1/8`): whether one host is
    /// trusted or sixteen million must not be a guess.
    fn from_str(text: &str) -> Result<Cidr, ()> {
        let (ip, prefix) = text.split_once('/').unzip();
        let ip: IpAddr = ip.unwrap_or(text).parse().map_err(drop)?;
        let width: u32 = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(width), str::parse).map_err(drop)?;
        let free = width.checked_sub(prefix).ok_or(())?;
        let ip = ip.to_canonical();
        let ends = bits(ip).trailing_zeros() >= free;
        ends.then_some(Cidr { ip, free }).ok_or(())
    }
}

impl Display for Cidr {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        let width = if self.ip.is_ipv4() { 32 } else { 128 };
        write!(f, "{}/{}", self.ip, width - self.free)
    }
}

/// IPv4 as IPv6 (`::ffff:10.0.0.1`), so that all addresses are compared alike.
fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_its_addresses_only() {
        let holds = |block: &str, ip: &str| block.parse::<Cidr>().unwrap().contains(ip.parse().unwrap());
        for (block, ip) in [
            ("10.0.0.0/8", "10.255.0.1"),
            ("10.0.0.0/8", "::ffff:10.1.2.3"),
            ("::ffff:10.0.0.0/104", "10.1.2.3"),
            ("192.0.2.7", "192.0.2.7"),
            ("0.0.0.0/0", "255.1.2.3"),
            ("::1", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1"),
            ("::/0", "ffff::1"),
        ] {
            assert!(holds(block, ip), "{block} {ip}");
        }
        for (block, ip) in [
            ("10.0.0.0/8", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.6"),
            ("192.0.2.6/31", "192.0.2.8"),
            ("0.0.0.0/0", "::1"),
            ("::/0", "10.0.0.1"),
            ("::/0", "::ffff:10.0.0.1"),
            ("::1", "::2"),
            ("2001:db8::/32", "2001:db9::"),
        ] {
            assert!(!holds(block, ip), "{block} {ip}");
        }
    }

    #[test]
    fn a_block_is_written_as_it_is_read() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::1", "::1/128"),
            ("::/0", "::/0"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/-1",
            "10.0.0.1/8",
            "::ffff:0:0/90",
            "localhost",
            "10.0.0.0/8/8",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
