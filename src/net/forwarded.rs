//! Where a client is: at the address of its connection, or where a trusted proxy says.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Once;

use crate::log::log;
use crate::net::message::{Request, values};
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
        let headers = values(self.headers, "X-Forwarded-For").rev();
        let entries = headers.flat_map(|value| value.rsplit(|&byte| byte == b','));
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
    let text = match text.split_once('%') {
        None => Cow::Borrowed(text),
        // What follows the zone is the bracket and the port.
        Some((ip, rest)) => format!("{ip}{}", rest.find(']').map_or("", |at| rest.split_at(at).1)).into(),
    };
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(&text);
    let ip = bare.parse().ok().or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()));
    ip.map(|ip: IpAddr| ip.to_canonical())
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
