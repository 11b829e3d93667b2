//! Builds the tracker from its configuration, starts its threads, and stops them.

use std::io::{self, IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::sockopt::{Ipv6V6Only, ReuseAddr};
use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage};

use crate::config::{Config, Driver, command};
use crate::keeper::Keeper;
use crate::log::log;
use crate::net::pool::{Listener, Pool};
use crate::net::tls::Certificates;
#[cfg(feature = "redis")]
use crate::nodes::link::Link;
use crate::snapshot::Snapshot;
use crate::tracker::{Tracker, announce_urls, page_url};
use crate::udp;
use crate::web::PAGES;

/// A socket on the configured host, or on every address: then IPv6 and IPv4 on one socket, and where the system has no
/// IPv6, IPv4 alone.
pub fn listen<T: From<OwnedFd>>(host: &str, port: u16, kind: SockType) -> Result<T, String> {
    let everywhere = [(Ipv6Addr::UNSPECIFIED, port).into(), (Ipv4Addr::UNSPECIFIED, port).into()];
    let addresses: Vec<SocketAddr> = if host.is_empty() {
        everywhere.to_vec()
    } else {
        let found = (host, port).to_socket_addrs().map_err(|e| format!("cannot find Host {host}: {e}"))?;
        found.collect()
    };
    let mut why = Errno::EADDRNOTAVAIL;
    for address in addresses {
        why = match bind(address, kind, false) {
            Ok(socket) => return Ok(socket.into()),
            // This machine does not have the address, or not its family: perhaps the next.
            Err(e @ (Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT)) => e,
            Err(e) if address.ip().is_unspecified() => {
                // The other family may be free, but half a tracker is none.
                let held = everywhere.into_iter().rev().filter(|at| bind(*at, kind, true).err() == Some(e));
                let held: Vec<_> = held.map(|at| if at.is_ipv4() { "IPv4" } else { "IPv6" }).collect();
                return Err(format!(
                    "cannot listen on port {port} of every address ({}): {}",
                    held.join(" and "),
                    e.desc()
                ));
            }
            Err(e) => return Err(format!("cannot listen on {address}: {}", e.desc())),
        };
    }
    Err(format!("cannot listen on port {port} of {host}: {}", why.desc()))
}

/// Binds a socket; one of streams listens. `alone`: one of IPv6 does not take IPv4 as well. Which it does by default is a
/// setting of the system, `net.ipv6.bindv6only`.
fn bind(at: SocketAddr, kind: SockType, alone: bool) -> nix::Result<OwnedFd> {
    let family = if at.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if at.is_ipv6() {
        socket::setsockopt(&socket, Ipv6V6Only, &alone)?;
    }
    if kind == SockType::Stream {
        // Connections of an earlier run that linger are in nobody's way.
        socket::setsockopt(&socket, ReuseAddr, &true)?;
    }
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
    if kind == SockType::Stream {
        socket::listen(&socket, Backlog::MAXALLOWABLE)?;
    }
    Ok(socket)
}

fn shown(at: SocketAddr) -> String {
    match at.ip() {
        ip if !ip.is_unspecified() => at.to_string(),
        IpAddr::V6(_) => format!("{at}: every IPv4 and IPv6 address"),
        IpAddr::V4(_) => format!("{at}: every IPv4 address"),
    }
}

/// Says, once and only to a person, who the first user is; makes that user.
fn first_user(tracker: &Tracker) -> Result<(), String> {
    let failed = |e| format!("{}: {e}", tracker.config.database_name());
    if !tracker.config.passkey || tracker.store.has_users().map_err(failed)? {
        return Ok(());
    }
    let page = page_url(&tracker.config);
    let page = page.as_deref().unwrap_or("none: `API`, with `HTTP` or `HTTPS`, turns it on");
    if !std::io::stdout().is_terminal() {
        log(format!("there are no users yet: make the first with `{}`", command("user add NAME --admin")));
        log(format!("status page, to sign in with a name and an API key: {page}"));
        return Ok(());
    }
    let user = tracker.store.add_user("admin", 0, true).map_err(failed)?;
    let urls = announce_urls(&tracker.config, &user.passkey).into_iter();
    let urls: String = urls.map(|url| format!("  announce URL  {url}\n")).collect();
    let shown = format!(
        "\nThe first user, admin, was made. This is shown once:\n{urls}  API key       {}\n  status page   {page}\n\n",
        user.api_key
    );
    io::stdout().write_all(shown.as_bytes()).map_err(|e| format!("cannot show the first user: {e}"))?;
    Ok(())
}

pub fn run(config: Config) -> Result<(), String> {
    let stop = signals()?;
    log(format!("goat {} with {}", env!("CARGO_PKG_VERSION"), config.file.display()));
    crate::sys::share_one_heap();
    crate::sys::raise_file_limit().map_err(|e| format!("cannot raise the limit on open files: {e}"))?;
    let certificates = config.https.then(|| Certificates::load(&config.ssl)).transpose().map_err(|d| d.found)?;
    let certificates = certificates.map(Arc::new);
    // First the ports, so that a second goat stops before it touches the database.
    let http = config.http.then_some((config.port, None));
    let https = certificates.clone().map(|certificates| (config.ssl.port, Some(certificates)));
    let listen_at =
        |(port, certificates)| Ok(Listener { socket: listen(&config.host, port, SockType::Stream)?, certificates });
    let listeners = http.into_iter().chain(https).map(listen_at).collect::<Result<Vec<_>, String>>()?;
    let udp: Option<UdpSocket> =
        config.udp.then(|| listen(&config.host, config.port, SockType::Datagram)).transpose()?;
    let tracker = Arc::new(Tracker::load(config)?);
    log(format!("{}: {}", tracker.config.database_name(), Snapshot::take(&tracker).counts()));
    tracker.config.unwritable().iter().for_each(log);
    if tracker.config.redis.is_some() && tracker.config.db.driver == Driver::Sqlite {
        log("Redis: with SQLite this goat is alone, and keeps its limits in Redis over a restart");
    }
    #[cfg(feature = "redis")]
    let link = tracker.config.redis.is_some().then(|| Link::start(&tracker)).transpose()?;
    first_user(&tracker)?;
    let failed = |e: io::Error| format!("cannot start to listen: {e}");
    let what = |listener: &Listener| if listener.certificates.is_some() { "HTTPS" } else { "HTTP" };
    let at = |listener: &Listener| Ok((what(listener), listener.socket.local_addr()?));
    let listening = listeners.iter().map(at).collect::<io::Result<Vec<_>>>().map_err(failed)?;
    let pool = Pool::start(&tracker, PAGES, listeners).map_err(failed)?;
    listening.iter().for_each(|(what, at)| log(format!("listening for {what} on {}", shown(*at))));
    if let Some(socket) = udp {
        let at = socket.local_addr().map_err(failed)?;
        udp::start(&tracker, &pool, socket).map_err(failed)?;
        log(format!("listening for UDP on {}", shown(at)));
    }
    let mut keeper = Keeper::new(tracker.clone());
    let kept = keeper.run(&stop, || certificates.iter().for_each(|files| files.refresh()));
    log("stopping");
    pool.stop();
    #[cfg(feature = "redis")]
    link.into_iter().for_each(Link::stop);
    // What is unwritten of another database is left to its journal.
    kept.and_then(|()| keeper.finish())?;
    log("stopped");
    Ok(())
}

/// Receives something at the first Ctrl-C or SIGTERM; the second ends the process. SIGHUP, which says that a terminal
/// was closed, is ignored.
fn signals() -> Result<Receiver<()>, String> {
    // Before any other thread is there: they inherit what is blocked. (`ctrlc` would handle it like SIGTERM.)
    SigSet::from(Signal::SIGHUP).thread_block().map_err(|e| format!("cannot ignore SIGHUP: {e}"))?;
    let (sender, receiver) = channel();
    let mut seen = false;
    let handler = move || {
        if std::mem::replace(&mut seen, true) {
            log("stopped at once by a second signal");
            std::process::exit(1);
        }
        // The receiver is gone only where goat is about to end anyway.
        let _ = sender.send(());
    };
    ctrlc::set_handler(handler).map_err(|e| format!("cannot handle signals: {e}"))?;
    Ok(receiver)
}
