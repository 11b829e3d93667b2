//! Announces over UDP: a generator of them, and a server that does nothing but the system calls.

use super::{Answers, Check, Order, Shape, counter, info_hash, passkey};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

const UNDER_WAY: usize = 64;
/// What is not answered by then is lost, and sent again.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Where there is no answer, the generator looks again so much later. It does not wait for one: to wake
/// it would be the server's work, which it is spared where the clients are on other machines.
const NAP: Duration = Duration::from_micros(20);
/// How long a client uses a connection id (BEP 15).
const CONNECTION: Duration = Duration::from_secs(60);
/// Of an answer to an announce: 20 bytes, and 6 for each of 50 peers.
const ANSWER: usize = 320;
/// The answer to a packet, if one comes soon.
pub fn ask(port: u16, packet: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    let soon = Some(Duration::from_millis(100));
    socket.set_read_timeout(soon).unwrap();
    socket.send(packet).ok()?;
    let mut answer = vec![0; 2048];
    let size = socket.recv(&mut answer).ok()?;
    answer.truncate(size);
    Some(answer)
}

/// A connection id.
pub fn connect(port: u16) -> Option<u64> {
    let mut packet = Vec::new();
    write_connect(&mut packet, 0);
    Some(u64::from_be_bytes(*ask(port, &packet)?.last_chunk()?))
}

fn write_connect(out: &mut Vec<u8>, transaction: u32) {
    out.clear();
    out.extend_from_slice(&0x417_2710_1980u64.to_be_bytes());
    out.extend_from_slice(&0u32.to_be_bytes());
    out.extend_from_slice(&transaction.to_be_bytes());
}

/// Announces, made from parts that were written beforehand.
pub struct Packets {
    shape: Shape,
    hashes: Vec<[u8; 20]>,
    /// What follows the announce, by user; empty for trackers without passkeys.
    options: Vec<Vec<u8>>,
}

impl Packets {
    pub fn new(shape: Shape, passkeys: bool) -> Packets {
        let options = |user| {
            let url = format!("/{}/announce", passkey(user));
            let mut options = vec![2, url.len() as u8];
            options.extend_from_slice(url.as_bytes());
            if passkeys { options } else { Vec::new() }
        };
        Packets {
            shape,
            hashes: (0..shape.torrents).map(info_hash).collect(),
            options: (0..shape.users).map(options).collect(),
        }
    }

    pub fn write(&self, out: &mut Vec<u8>, connection: u64, transaction: u32, session: u64) {
        let (shape, counter) = (self.shape, counter().to_be_bytes());
        let mut id = *b"-qB4600-000000000000";
        let mut rest = session;
        for digit in id.iter_mut().rev().take(12) {
            *digit += (rest % 10) as u8;
            rest /= 10;
        }
        out.clear();
        out.extend_from_slice(&connection.to_be_bytes());
        out.extend_from_slice(&1u32.to_be_bytes());
        out.extend_from_slice(&transaction.to_be_bytes());
        out.extend_from_slice(&self.hashes[shape.torrent(session) as usize]);
        out.extend_from_slice(&id);
        out.extend_from_slice(&counter); // downloaded
        out.extend_from_slice(&shape.left(session).to_be_bytes());
        out.extend_from_slice(&counter); // uploaded
        out.extend_from_slice(&[0; 12]); // no event, no other address, key
        out.extend_from_slice(&50u32.to_be_bytes());
        out.extend_from_slice(&shape.port(session).to_be_bytes());
        out.extend_from_slice(&self.options[shape.user(session) as usize]);
    }
}

/// One thread that keeps `UNDER_WAY` datagrams under way.
pub struct Generator {
    socket: UdpSocket,
    /// Every other datagram is a connect.
    connects: bool,
    check: Check,
    connection: u64,
    /// When that was asked for.
    connected: Instant,
    slots: Vec<Slot>,
    /// How many were sent; makes every transaction id different.
    sent: u32,
    pub answers: Answers,
}

/// A datagram that waits for its answer.
struct Slot {
    packet: Vec<u8>,
    session: u64,
    connects: bool,
    /// `None` where nothing is waited for.
    transaction: Option<u32>,
    first_sent: Instant,
    last_sent: Instant,
}

impl Generator {
    pub fn new(port: u16, connects: bool, check: Check) -> Generator {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(("127.0.0.1", port)).unwrap();
        let now = Instant::now();
        let slot = |_| Slot {
            packet: Vec::with_capacity(256),
            session: 0,
            connects: false,
            transaction: None,
            first_sent: now,
            last_sent: now,
        };
        Generator {
            socket,
            connects,
            check,
            connection: connect(port).expect("the server still answers"),
            connected: now,
            slots: (0..UNDER_WAY).map(slot).collect(),
            sent: 0,
            answers: Answers::default(),
        }
    }

    /// Until `end`, or until `count` requests were sent; then waits for the answers under way.
    pub fn run(&mut self, packets: &Packets, order: &mut Order, end: Instant, count: u64) {
        let mut answers = vec![[0; 2048]; UNDER_WAY];
        let (mut to_send, mut under_way) = (count, 0);
        let mut free: Vec<usize> = (0..UNDER_WAY).collect();
        let mut looked = Instant::now();
        loop {
            let now = Instant::now();
            if now >= end || self.answers.wrong > 1_000 {
                to_send = 0;
            }
            free.truncate(to_send.min(UNDER_WAY as u64) as usize);
            to_send -= free.len() as u64;
            under_way += free.len();
            for &slot in &free {
                self.fill(slot, packets, order, now);
            }
            self.send(&free);
            free.clear();
            if under_way == 0 {
                return;
            }
            let sizes = self.receive(&mut answers);
            let now = Instant::now();
            for (answer, &size) in answers.iter().zip(&sizes) {
                free.extend(self.take(&answer[..size], now));
            }
            under_way -= free.len();
            if now - looked > TIMEOUT / 10 {
                looked = now;
                under_way -= self.give_up(now, now >= end);
            }
            if free.is_empty() {
                thread::sleep(NAP);
            }
        }
    }

    /// Writes a slot's next packet.
    fn fill(&mut self, slot: usize, packets: &Packets, order: &mut Order, now: Instant) {
        let transaction = self.sent * UNDER_WAY as u32 + slot as u32;
        self.sent = (self.sent + 1) % (u32::MAX / UNDER_WAY as u32);
        let slot = &mut self.slots[slot];
        slot.connects = match self.connects {
            true => !slot.connects,
            false => now - self.connected > CONNECTION,
        };
        if slot.connects {
            self.connected = now;
            write_connect(&mut slot.packet, transaction);
        } else {
            slot.session = order.next();
            packets.write(&mut slot.packet, self.connection, transaction, slot.session);
        }
        slot.transaction = Some(transaction);
        (slot.first_sent, slot.last_sent) = (now, now);
    }

    /// Sends the packets of some slots. What cannot be sent is not answered, and so is counted.
    fn send(&mut self, slots: &[usize]) {
        let packet = |&slot: &usize| &self.slots[slot].packet;
        let parts = slots
            .iter()
            .map(packet)
            .map(|packet| libc::iovec { iov_base: packet.as_ptr().cast_mut().cast(), iov_len: packet.len() });
        let (socket, mut parts) = (self.socket.as_raw_fd(), parts.collect::<Vec<_>>());
        // SAFETY: the pointers are to as many messages as are said, whose bytes are only read.
        each_a_message(&mut parts, |m, count| unsafe { libc::sendmmsg(socket, m, count, 0) });
    }

    /// Receives what is there, one datagram into each buffer, and returns their sizes.
    fn receive(&mut self, buffers: &mut [[u8; 2048]]) -> Vec<usize> {
        let parts = buffers
            .iter_mut()
            .map(|buffer| libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() });
        let (socket, mut parts) = (self.socket.as_raw_fd(), parts.collect::<Vec<_>>());
        // SAFETY: the pointers are to as many messages as are said, with a buffer each.
        each_a_message(&mut parts, |m, count| unsafe {
            let none = std::ptr::null_mut();
            libc::recvmmsg(socket, m, count, libc::MSG_DONTWAIT, none)
        })
    }

    /// Counts what was lost, and sends it again unless this is the end. Returns how many it gives up.
    fn give_up(&mut self, now: Instant, end: bool) -> usize {
        let lost = |slot: &Slot| slot.transaction.is_some() && now - slot.last_sent > TIMEOUT;
        let slots: Vec<usize> = (0..UNDER_WAY).filter(|&s| lost(&self.slots[s])).collect();
        self.answers.lost += slots.len() as u64;
        for &slot in &slots {
            self.slots[slot].last_sent = now;
            self.slots[slot].transaction.take_if(|_| end);
        }
        if end {
            return slots.len();
        }
        self.send(&slots);
        0
    }

    /// Takes an answer, and returns the slot it has set free.
    fn take(&mut self, answer: &[u8], now: Instant) -> Option<usize> {
        let word = |at| Some(u32::from_be_bytes(*answer.get(at..)?.first_chunk()?));
        let (action, transaction) = (word(0)?, word(4)?);
        let number = transaction as usize % UNDER_WAY;
        let slot = &mut self.slots[number];
        // Of another transaction: the answer comes after it was given up.
        slot.transaction.take_if(|t| *t == transaction)?;
        let good = match slot.connects {
            true => action == 0 && answer.len() == 16,
            false => action == 1 && answer.get(20..).is_some_and(|peers| self.check.holds(slot.session, peers)),
        };
        if good {
            if slot.connects {
                self.connection = u64::from_be_bytes(*answer.last_chunk()?);
            }
            self.answers.good(now - slot.first_sent, !slot.connects);
        } else {
            self.answers.fail(answer);
        }
        Some(number)
    }
}

/// Makes a message of each part, calls a function that sends or receives them, and returns the sizes of
/// those that were.
fn each_a_message(parts: &mut [libc::iovec], call: impl Fn(*mut libc::mmsghdr, u32) -> i32) -> Vec<usize> {
    // SAFETY: zero is a valid mmsghdr, of a message with neither address nor parts.
    let mut messages = [unsafe { std::mem::zeroed::<libc::mmsghdr>() }; UNDER_WAY];
    for (message, part) in messages.iter_mut().zip(&mut *parts) {
        (message.msg_hdr.msg_iov, message.msg_hdr.msg_iovlen) = (part, 1);
    }
    let done = call(messages.as_mut_ptr(), parts.len() as u32);
    // Less than none is an error: that nothing is there, or the news that nobody listens.
    let done = &messages[..done.max(0) as usize];
    done.iter().map(|message| message.msg_len as usize).collect()
}

// ---------------------------------------------------------------------------------------------
// The floor.

/// Answers whatever is sent with the same bytes until it is killed.
pub fn floor(port: u16) {
    let socket = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let (mut packet, mut answer) = ([0; 2048], [7; ANSWER]);
    loop {
        let Ok((size, from)) = socket.recv_from(&mut packet) else {
            continue;
        };
        // Action and transaction id, by which the generator knows its own.
        answer[..8].copy_from_slice(&packet[8..16]);
        let end = if size == 16 { 16 } else { ANSWER };
        let _ = socket.send_to(&answer[..end], from);
    }
}
