//! Whether somebody on this machine calls.

use std::net::IpAddr;

use crate::config::Config;
use crate::net::message::Request;
use crate::sys::hostname;

/// Whether a request comes from this machine and means it: not through a proxy that runs here, nor from a browser's page
/// that got its own name to mean this machine.
pub(crate) fn is_local(config: &Config, request: &Request) -> bool {
    let proxied =
        ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"].iter().any(|name| request.header(name).is_some());
    let host = request.header("Host").and_then(|host| str::from_utf8(host).ok()).unwrap_or_default();
    let name = host.rsplit_once(':').filter(|(_, port)| !port.contains(']')).map_or(host, |(name, _)| name);
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let own =
        || !name.is_empty() && (name.eq_ignore_ascii_case(&config.host) || name.eq_ignore_ascii_case(&hostname()));
    let loopback = || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()) || name.eq_ignore_ascii_case("localhost");
    request.peer.is_loopback() && !proxied && (loopback() || own())
}
