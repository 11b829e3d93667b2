//! Announces over HTTP: a generator of them, and a server that does nothing but the system calls.

use super::{Answers, Check, Order, Shape, counter, info_hash, passkey};
use std::io;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::time::Instant;

pub const IN_FLIGHT: usize = 50;

/// Announces, made from parts that were encoded beforehand.
pub struct Requests {
    shape: Shape,
    /// `GET /PASSKEY/announce?info_hash=`, by user.
    starts: Vec<String>,
    /// The info_hash, escaped, and the `peer_id` parameter up to its number, by torrent.
    hashes: Vec<String>,
    end: String,
    buffer: Vec<u8>,
}

impl Requests {
    /// With a passkey in the path, or without; over kept connections, or one each.
    pub fn new(shape: Shape, port: u16, keep: bool, passkeys: bool) -> Requests {
        let start = |user| match passkeys {
            true => format!("GET /{}/announce?info_hash=", passkey(user)),
            false => "GET /announce?info_hash=".to_string(),
        };
        let hash = |torrent| {
            let mut text = String::new();
            for byte in info_hash(torrent) {
                match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => text.push(byte as char),
                    _ => text += &format!("%{byte:02x}"),
                }
            }
            text + "&peer_id=-qB4600-"
        };
        let connection = if keep { "keep-alive" } else { "close" };
        Requests {
            shape,
            starts: (0..shape.users).map(start).collect(),
            hashes: (0..shape.torrents).map(hash).collect(),
            end: format!(
                "&corrupt=0&key=1A2B3C4D&numwant=50&compact=1&no_peer_id=1&supportcrypto=1&redundant=0 HTTP/1.1\r\n\
                 Host: 127.0.0.1:{port}\r\nUser-Agent: qBittorrent/4.6.0\r\nAccept-Encoding: gzip\r\n\
                 Connection: {connection}\r\n\r\n"
            ),
            buffer: Vec::with_capacity(1024),
        }
    }

    pub fn build(&mut self, session: u64) -> &[u8] {
        let (shape, counter) = (self.shape, counter());
        let out = &mut self.buffer;
        out.clear();
        out.extend_from_slice(self.starts[shape.user(session) as usize].as_bytes());
        out.extend_from_slice(self.hashes[shape.torrent(session) as usize].as_bytes());
        digits(out, session, 12);
        out.extend_from_slice(b"&port=");
        digits(out, shape.port(session).into(), 5);
        out.extend_from_slice(b"&uploaded=");
        digits(out, counter, 13);
        out.extend_from_slice(b"&downloaded=");
        digits(out, counter, 13);
        out.extend_from_slice(b"&left=");
        digits(out, shape.left(session), if shape.left(session) == 0 { 1 } else { 9 });
        out.extend_from_slice(self.end.as_bytes());
        out
    }
}

fn digits(out: &mut Vec<u8>, mut number: u64, width: usize) {
    let begin = out.len();
    out.resize(begin + width, b'0');
    for digit in out[begin..].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// One thread that keeps `IN_FLIGHT` requests under way.
pub struct Generator {
    epoll: i32,
    address: libc::sockaddr_in,
    keep: bool,
    check: Check,
    slots: Vec<Slot>,
    pub answers: Answers,
}

struct Slot {
    socket: i32,
    session: u64,
    sent: Instant,
    buffer: Box<[u8; 4096]>,
    filled: usize,
}

impl Generator {
    pub fn new(port: u16, keep: bool, check: Check) -> Generator {
        // SAFETY: no pointers; zero is a valid sockaddr_in.
        let (epoll, mut address) = unsafe { (libc::epoll_create1(0), std::mem::zeroed::<libc::sockaddr_in>()) };
        address.sin_family = libc::AF_INET as u16;
        address.sin_port = port.to_be();
        address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
        let slot = |_| Slot { socket: -1, session: 0, sent: Instant::now(), buffer: Box::new([0; 4096]), filled: 0 };
        let slots = (0..IN_FLIGHT).map(slot).collect();
        Generator { epoll, address, keep, check, slots, answers: Answers::default() }
    }

    /// Until `end`, or until `count` requests were sent; then waits for the answers under way.
    pub fn run(&mut self, requests: &mut Requests, order: &mut Order, end: Instant, count: u64) {
        let (mut to_send, mut under_way) = (count, 0);
        for slot in 0..IN_FLIGHT {
            self.send(slot, requests, order);
            to_send -= 1;
            under_way += 1;
        }
        // SAFETY: an epoll_event is plain data.
        let mut events = [unsafe { std::mem::zeroed::<libc::epoll_event>() }; IN_FLIGHT];
        while under_way > 0 {
            // SAFETY: the array has room for that many.
            let ready = unsafe { libc::epoll_wait(self.epoll, events.as_mut_ptr(), IN_FLIGHT as i32, 5_000) };
            if ready <= 0 {
                // Nothing for five seconds: what is under way will not come.
                self.answers.wrong += under_way;
                break;
            }
            for event in &events[..ready as usize] {
                let slot = event.u64 as usize;
                let ended = event.events & libc::EPOLLRDHUP as u32 != 0;
                let Some(good) = self.receive(slot, ended) else {
                    continue;
                };
                let now = Instant::now();
                let of = &self.slots[slot];
                if good {
                    self.answers.good(now - of.sent, true);
                } else {
                    self.answers.fail(&of.buffer[..of.filled]);
                }
                let more = to_send > 0 && now < end && self.answers.wrong < 1_000;
                // One that is done is not to be heard of again, such as that the server closes it.
                if !self.keep || !good || !more {
                    self.close(slot);
                }
                if more {
                    self.send(slot, requests, order);
                    to_send -= 1;
                } else {
                    under_way -= 1;
                }
            }
        }
    }

    fn send(&mut self, slot: usize, requests: &mut Requests, order: &mut Order) {
        let slot_number = slot as u64;
        let slot = &mut self.slots[slot];
        slot.session = order.next();
        let request = requests.build(slot.session);
        (slot.sent, slot.filled) = (Instant::now(), 0);
        // SAFETY: all pointers are to live values of the sizes that are given.
        unsafe {
            if slot.socket < 0 {
                slot.socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
                // A connect over loopback is done when it returns, unless the server's queue is full.
                let (address, size) = (&raw const self.address, size_of::<libc::sockaddr_in>() as u32);
                assert_eq!(libc::connect(slot.socket, address.cast(), size), 0, "{}", io::Error::last_os_error());
                let mut event =
                    libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLRDHUP) as u32, u64: slot_number };
                libc::epoll_ctl(self.epoll, libc::EPOLL_CTL_ADD, slot.socket, &mut event);
            }
            // What cannot be sent is not answered, and so is counted.
            libc::send(slot.socket, request.as_ptr().cast(), request.len(), libc::MSG_NOSIGNAL);
        }
    }

    /// Whether the answer was good, once there is one. With a connection each it is not there before
    /// the server has closed.
    fn receive(&mut self, slot: usize, ended: bool) -> Option<bool> {
        let slot = &mut self.slots[slot];
        let free = &mut slot.buffer[slot.filled..];
        // SAFETY: the kernel writes into `free` only.
        let read = unsafe { libc::recv(slot.socket, free.as_mut_ptr().cast(), free.len(), libc::MSG_DONTWAIT) };
        let ended = ended || read == 0 || read < 0 && io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock;
        slot.filled += read.max(0) as usize;
        match check(&slot.buffer[..slot.filled], &self.check, slot.session) {
            Some(good) if ended || self.keep => Some(good),
            None if ended => Some(false),
            _ => None,
        }
    }

    fn close(&mut self, slot: usize) {
        // SAFETY: the socket is ours and open.
        unsafe { libc::close(self.slots[slot].socket) };
        self.slots[slot].socket = -1;
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        for slot in 0..IN_FLIGHT {
            if self.slots[slot].socket >= 0 {
                self.close(slot);
            }
        }
        // SAFETY: ours, and closed once.
        unsafe { libc::close(self.epoll) };
    }
}

/// Once the answer is whole: whether its status is 200 and it has the peers that it should.
fn check(answer: &[u8], check: &Check, session: u64) -> Option<bool> {
    let body = after(answer, b"\r\n\r\n")?;
    let head = &answer[..answer.len() - body.len()];
    let length = after(head, b"\r\nContent-Length: ");
    let length = number(length.or_else(|| after(head, b"\r\ncontent-length: "))?)?;
    let holds = || {
        let peers = after(body, b"5:peers")?;
        let peers = after(peers, b":")?.get(..number(peers)?)?;
        Some(check.holds(session, peers))
    };
    let status = head.starts_with(b"HTTP/1.1 200 ") || head.starts_with(b"HTTP/1.0 200 ");
    (body.len() >= length).then(|| body.len() == length && status && holds() == Some(true))
}

fn after<'a>(text: &'a [u8], what: &[u8]) -> Option<&'a [u8]> {
    Some(&text[find(text, what)? + what.len()..])
}

/// The number at the beginning.
fn number(text: &[u8]) -> Option<usize> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit());
    let (mut number, mut any) = (0, false);
    for digit in digits {
        (number, any) = (number * 10 + usize::from(digit - b'0'), true);
    }
    any.then_some(number)
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    // SAFETY: both slices are live; the result is null or within `text`.
    let at = unsafe { libc::memmem(text.as_ptr().cast(), text.len(), what.as_ptr().cast(), what.len()) };
    (!at.is_null()).then(|| at as usize - text.as_ptr() as usize)
}

// ---------------------------------------------------------------------------------------------
// The floor.

/// Answers whatever is sent with the same `size` bytes until it is killed.
pub fn floor(size: usize, keep: bool, port: u16) {
    let head = |length| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nd5:peers0:");
    let mut answer = head(size - (head(100).len() - 10));
    answer.push_str(&"x".repeat(size - answer.len()));
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let listener = listener.as_raw_fd();
    let mut buffer = [0u8; 4096];
    // SAFETY, for all of them: the pointers are to live values of the sizes that are given.
    let mut respond = |socket| unsafe {
        let read = libc::recv(socket, buffer.as_mut_ptr().cast(), buffer.len(), 0);
        if read > 0 {
            libc::send(socket, answer.as_ptr().cast(), answer.len(), libc::MSG_NOSIGNAL);
        }
        if read <= 0 || !keep {
            libc::close(socket);
        }
    };
    let accept = || unsafe { libc::accept4(listener, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC) };
    if !keep {
        loop {
            respond(accept());
        }
    }
    let epoll = unsafe { libc::epoll_create1(0) };
    let watch = |socket| {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: socket as u64 };
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, socket, &mut event) };
    };
    watch(listener);
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 64];
    loop {
        let ready = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), 64, -1) };
        for event in &events[..ready.max(0) as usize] {
            match event.u64 as i32 {
                socket if socket == listener => watch(accept()),
                socket => respond(socket),
            }
        }
    }
}
