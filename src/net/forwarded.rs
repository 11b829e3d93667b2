//! Where a client is: at the address of its connection, or where a trusted proxy says.

use std::net::IpAddr;
use std::sync::Once;

use crate::log::log;
use crate::net::message::Request;
use crate::tracker::Tracker;

impl Request<'_> {
    /// The address of the client: of the connection, unless that is a trusted proxy's. Then it is the last
    /// entry of `X-Forwarded-For` that is not a trusted proxy itself.
    pub fn client(&self, tracker: &Tracker) -> IpAddr {
        let config = &tracker.config;
        let mut client = self.peer;
        if !config.trusts(client) {
            return client;
        }
        let headers = self.headers.iter().rev().filter(|h| h.name.eq_ignore_ascii_case("x-forwarded-for"));
        let entries = headers.flat_map(|header| header.value.rsplit(|&byte| byte == b','));
        for entry in entries.map(<[u8]>::trim_ascii).filter(|entry| !entry.is_empty()) {
            let Some(ip) = forwarded(entry) else {
                say_once(client, entry);
                break;
            };
            client = ip;
            if !config.trusts(client) {
                break;
            }
        }
        client
    }
}

/// The address in an entry of `X-Forwarded-For`: alone or in brackets, perhaps with a zone, perhaps with a port.
fn forwarded(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let (ip, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (ip, port) = rest.split_once(']')?;
            (ip, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        // Without brackets the colons of an IPv6 address begin no port.
        None => match text.split_once(':') {
            Some((ip, port)) if !port.contains(':') => (ip, Some(port)),
            _ => (text, None),
        },
    };
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return None;
    }
    let ip = ip.split_once('%').map_or(ip, |(ip, _zone)| ip);
    ip.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

/// Says that a proxy sends what cannot be understood: once, for it does so with every request.
fn say_once(proxy: IpAddr, entry: &[u8]) {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        let entry = String::from_utf8_lossy(entry);
        log(format!(
            "the trusted proxy {proxy} sends an X-Forwarded-For that is not an address, \"{entry:.60}\": \
             its clients are treated as being at {proxy}. Have it send addresses. This is said once"
        ));
    });
}
