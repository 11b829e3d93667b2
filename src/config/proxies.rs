//! Blocks of addresses, in which an IPv4 address that is written as IPv6 counts as IPv4.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use serde_json::Value;

use super::Config;

/// Bits of an IPv6 address that say that it is an IPv4 address (`::ffff:10.0.0.1`).
const MAPPED: u8 = 96;

impl Config {
    pub fn trusts(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.trusted_proxies.iter().any(|block| block.contains(&ip))
    }
}

/// A block such as `10.0.0.0/8`, or a single address. Refuses a block whose address goes on after the prefix
/// (`10.0.0.1/8`): whether one host is trusted or sixteen million must not be a guess.
fn block(text: &str) -> Option<IpNet> {
    let block = text.parse().or_else(|_| text.parse().map(|ip: IpAddr| IpNet::from(ip))).ok()?;
    if block.addr() != block.network() {
        return None;
    }
    match (block.addr().to_canonical(), block) {
        (IpAddr::V4(ip), IpNet::V6(mapped)) => {
            let prefix = mapped.prefix_len().checked_sub(MAPPED)?;
            Ipv4Net::new(ip, prefix).ok().map(IpNet::from)
        }
        _ => Some(block),
    }
}

pub const BLOCKS: &str = r#"a list such as ["192.0.2.7", "10.0.0.0/8", "2001:db8::/32"]"#;

/// The blocks of a list, or what is none.
pub fn blocks(list: &Value) -> Result<Vec<IpNet>, &Value> {
    list.as_array().ok_or(list)?.iter().map(|item| item.as_str().and_then(block).ok_or(item)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_holds_its_addresses_only() {
        let holds = |text: &str, ip: &str| block(text).unwrap().contains(&ip.parse::<IpAddr>().unwrap().to_canonical());
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
            assert_eq!(block(text).unwrap().to_string(), shown);
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
            assert_eq!(block(text), None, "{text}");
        }
    }
}
