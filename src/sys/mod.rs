//! What the standard library does not offer of Linux: socket options, the limits of the process, locks on files,
//! batches of datagrams, and whose a file is.

mod datagram;
mod raw;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Ipv4PacketInfo, Ipv6RecvPacketInfo, RcvBuf, SndBuf};
use nix::unistd::{Uid, User, geteuid};

pub use self::datagram::Datagram;
pub use self::raw::{BATCH, clock_is_kept, defer_accept, give_memory_back, receive, send_all, share_one_heap};

/// What this machine calls itself.
pub fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().into()
}

/// Gives a UDP socket room for bursts: as much as the system allows, up to 4 MiB each way.
pub fn tune_udp(socket: &UdpSocket) -> io::Result<()> {
    const ROOM: usize = 4 << 20;
    setsockopt(socket, RcvBuf, &ROOM)?;
    setsockopt(socket, SndBuf, &ROOM)?;
    // Where the socket has every address of the host, a client takes an answer only from the one it asked.
    match socket.local_addr()?.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => setsockopt(socket, Ipv4PacketInfo, &true)?,
        IpAddr::V6(ip) if ip.is_unspecified() => setsockopt(socket, Ipv6RecvPacketInfo, &true)?,
        _ => {}
    }
    Ok(())
}

/// Reads a file as a whole, which is refused where it has more than so many bytes.
pub fn read_file(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    let large = || io::Error::other(format!("more than {} MiB", most >> 20));
    if bytes.len() as u64 > most { Err(large()) } else { Ok(bytes) }
}

pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read_file(path, most)?).map_err(|_| io::Error::other("stream did not contain valid UTF-8"))
}

/// Writes a file that those may read whom its mode names, where there is none.
pub fn write_new_file(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(mode).open(path)?;
    // Half of it is of no use, and might be taken for the whole.
    file.write_all(bytes).and_then(|()| file.sync_all()).inspect_err(|_| drop(fs::remove_file(path)))
}

/// Locks a file for this process alone, until that is dropped; an error if another has it.
pub fn lock_file(file: File) -> Result<Flock<File>, (File, io::Error)> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(file, e)| (file, e.into()))
}

/// The name of the user whose a file is, or of what hides it, if that is not this process's own user, nor is that root.
pub fn stranger(path: &Path) -> Option<String> {
    let own = geteuid();
    let owner = Uid::from_raw(path.ancestors().find_map(|part| fs::metadata(part).ok())?.uid());
    let name = || match User::from_uid(owner) {
        Ok(Some(user)) => format!("the user {}", user.name),
        _ => format!("user {owner}"),
    };
    (!own.is_root() && own != owner).then(name)
}

/// How many files this process may have open.
pub fn file_limit() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1_024, |(limit, _)| limit as usize)
}

pub fn raise_file_limit() -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}
