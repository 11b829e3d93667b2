//! The journal: the ledgers once more, in memory that outlives goat. Whatever ends the process, `kill -9` or
//! the system for want of memory, the next start writes into the database what was answered and not written.
//!
//! It is a file of the system's memory (`/dev/shm`), so that an announce waits for no disk: to append is to copy
//! 208 bytes. Each entry is a row of a ledger as it is after the change, so the last entry of a row is all that
//! counts, and entries may be there twice. A segment belongs to one batch and carries its number: the batch is
//! written once, however often a start is killed before it can clear the segment. A loss of power loses the
//! journal, as it loses the memory.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*};
use std::time::{Duration, Instant};

use ring::digest;

use crate::config::{Config, Driver};
use crate::protocol::{Addr4, Addr6, Addresses, Factors};
use crate::random::{Rng, hex};
use crate::store::{Batch, First, Session, SessionKey, SessionRow, Total, TotalKey};
use crate::sync::lock;
use crate::sys::SharedWords;
use crate::torrent::PeerId;

/// The first word of the file: what it is, and the version of its layout.
const MAGIC: u64 = u64::from_le_bytes(*b"goatjrn1");
/// One for the batch that is being written, one for the next, one to copy that into when it gets long.
const SEGMENTS: usize = 3;
/// Words of an entry.
const ENTRY: usize = 26;
/// The most entries of a segment. They take memory only when they are used.
const ENTRIES: u64 = 1 << 20;
/// Entries for which memory is reserved at a time.
const CHUNK: u64 = 1 << 10;
/// A segment with more entries is worth a copy that holds each row once.
const LONG: u64 = ENTRIES / 16;
/// How long to wait for another goat to let go of the file: as long as one may take to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Words before the first segment: 8 for the file (what it is, and whose database's), 8 for each segment.
const HEAD: usize = 8 + SEGMENTS * 8;

/// The fields of a segment's head: its batch, its place in the order of segments, and how many entries it has.
const NUMBER: usize = 0;
const ORDER: usize = 1;
const COUNT: usize = 2;

/// What one change leaves in a ledger.
pub type Entry = (Option<(SessionKey, SessionRow)>, Option<(TotalKey, Total)>);

/// The last entry of each row.
type Rows = (BTreeMap<SessionKey, SessionRow>, BTreeMap<TotalKey, Total>);

/// See the head of this file.
pub struct Journal {
    words: SharedWords,
    path: PathBuf,
    /// What the file is known by, whatever happens to its name.
    inode: u64,
    /// The segment that the next batch comes from.
    current: AtomicUsize,
    /// For how many entries of each segment memory is reserved.
    reserved: [AtomicU64; SEGMENTS],
    reserving: Mutex<()>,
    /// An entry did not fit.
    full: AtomicBool,
}

impl Journal {
    /// Opens the journal that belongs to a configuration and its database. Only one goat can.
    pub fn open(config: &Config) -> io::Result<Journal> {
        let path = path(config);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let begin = Instant::now();
        loop {
            let file = options.open(&path)?;
            let meta = file.metadata()?;
            // Everybody may make files there.
            if !meta.is_file() || meta.uid() != crate::sys::user() || meta.mode() & 0o077 != 0 {
                return Err(io::Error::other("it is somebody else's"));
            }
            match crate::sys::lock_file(&file) {
                // The goat before, which was about to end, may have removed the file that this one opened.
                Ok(()) if inode(&path) == Some(meta.ino()) => return Journal::map(file, path, meta.ino()),
                Err(e) if begin.elapsed() > PATIENCE => {
                    return Err(io::Error::other(format!("another goat with this configuration uses it ({e})")));
                }
                _ => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn map(file: File, path: PathBuf, inode: u64) -> io::Result<Journal> {
        let words = SharedWords::map(file, HEAD + SEGMENTS * ENTRIES as usize * ENTRY)?;
        words.reserve(0, HEAD)?;
        let journal = Journal {
            words,
            path,
            inode,
            current: AtomicUsize::new(0),
            reserved: Default::default(),
            reserving: Mutex::default(),
            full: AtomicBool::new(false),
        };
        if journal.word(0).swap(MAGIC, AcqRel) != MAGIC {
            (0..SEGMENTS).for_each(|segment| journal.head(segment, COUNT).store(0, Release));
        }
        Ok(journal)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is still there for the next start to find.
    pub fn is_there(&self) -> bool {
        inode(&self.path) == Some(self.inode)
    }

    /// The [identity](crate::store::Store::identity) of the database that it belongs to.
    pub fn database(&self) -> &AtomicU64 {
        self.word(1)
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        static NONE: AtomicU64 = AtomicU64::new(0); // Never reached: all places are within the map.
        self.words.get(at).unwrap_or(&NONE)
    }

    fn head(&self, segment: usize, field: usize) -> &AtomicU64 {
        self.word(8 + segment * 8 + field)
    }

    /// Where an entry begins.
    fn place(&self, segment: usize, entry: u64) -> usize {
        HEAD + (segment * ENTRIES as usize + entry as usize) * ENTRY
    }

    /// The segment to append to from now on, for a ledger that was just taken.
    pub fn current(&self) -> usize {
        self.current.load(Acquire)
    }

    /// Begins a segment, and returns the number of the batch that the one before it belongs to. With `copy` the
    /// new segment is to hold the same batch.
    pub fn turn(&self, rng: &mut Rng, copy: bool) -> u64 {
        let old = self.current();
        let number = self.head(old, NUMBER).load(Acquire);
        let free = (0..SEGMENTS).find(|&segment| segment != old && self.head(segment, COUNT).load(Acquire) == 0);
        if let Some(new) = free {
            self.head(new, NUMBER).store(if copy { number } else { rng.bits() >> 1 }, Release);
            self.head(new, ORDER).store(self.head(old, ORDER).load(Acquire).wrapping_add(1), Release);
            self.current.store(new, Release);
        }
        number
    }

    /// Clears the segments of a batch that is written, or of all.
    pub fn forget(&self, number: Option<u64>) {
        for segment in 0..SEGMENTS {
            if number.is_none_or(|number| self.head(segment, NUMBER).load(Acquire) == number) {
                self.clear(segment);
            }
        }
    }

    /// Clears a segment to which nobody appends, and gives back what memory it has beyond the usual.
    pub fn clear(&self, segment: usize) {
        self.head(segment, COUNT).store(0, Release);
        let Some(reserved) = self.reserved.get(segment).filter(|reserved| reserved.load(Acquire) > LONG) else {
            return;
        };
        reserved.store(0, Release);
        self.words.release(self.place(segment, 0), ENTRIES as usize * ENTRY);
    }

    /// Whether the current segment is long, though the ledgers have only so many rows.
    pub fn long(&self, rows: usize) -> bool {
        let count = self.head(self.current(), COUNT).load(Acquire);
        count > LONG && count > rows as u64 * 2
    }

    /// Whether an entry did not fit since the last call.
    pub fn overflowed(&self) -> bool {
        self.full.swap(false, AcqRel)
    }

    /// Appends an entry. Its number is written last: an entry that goat did not live to complete does not count.
    pub fn append(&self, segment: usize, entry: &Entry) {
        let at = self.head(segment, COUNT).fetch_add(1, AcqRel);
        let reserved = self.reserved.get(segment).is_some_and(|reserved| at < reserved.load(Acquire));
        if !reserved && !self.reserve(segment, at) {
            self.head(segment, COUNT).fetch_sub(1, AcqRel);
            return self.full.store(true, Release);
        }
        let place = self.place(segment, at);
        for (i, word) in encode(entry).into_iter().enumerate().skip(1) {
            self.word(place + i).store(word, Relaxed);
        }
        self.word(place).store(self.head(segment, NUMBER).load(Acquire), Release);
    }

    /// Reserves memory up to an entry: where there is none, an error now is better than a signal later.
    fn reserve(&self, segment: usize, entry: u64) -> bool {
        let _reserving = lock(&self.reserving);
        let Some(reserved) = self.reserved.get(segment).filter(|_| entry < ENTRIES) else { return false };
        while reserved.load(Acquire) <= entry {
            let from = reserved.load(Acquire);
            if self.words.reserve(self.place(segment, from), CHUNK as usize * ENTRY).is_err() {
                return false;
            }
            reserved.store(from + CHUNK, Release);
        }
        true
    }

    /// What the last run answered and did not write, in order.
    pub fn batches(&self) -> Vec<Batch> {
        let mut segments: Vec<usize> = (0..SEGMENTS).collect();
        segments.sort_by_key(|&segment| self.head(segment, ORDER).load(Acquire));
        let mut batches: Vec<(u64, Rows)> = Vec::new();
        for segment in segments {
            let number = self.head(segment, NUMBER).load(Acquire);
            if batches.last().is_none_or(|(last, _)| *last != number) {
                batches.push((number, Rows::default()));
            }
            let Some((_, (sessions, totals))) = batches.last_mut() else { continue };
            for entry in 0..self.head(segment, COUNT).load(Acquire).min(ENTRIES) {
                let place = self.place(segment, entry);
                let words = std::array::from_fn(|i| self.word(place + i).load(Acquire));
                if words.first() == Some(&number) {
                    let (session, total) = decode(&words);
                    sessions.extend(session);
                    totals.extend(total);
                }
            }
        }
        let batch = |(number, (sessions, totals)): (u64, Rows)| Batch {
            number,
            database: self.database().load(Acquire),
            sessions: sessions.into_iter().collect(),
            totals: totals.into_iter().collect(),
        };
        batches.into_iter().map(batch).filter(|batch| !batch.is_empty()).collect()
    }
}

impl Drop for Journal {
    /// Removes the file where nothing in it is of use.
    fn drop(&mut self) {
        if (0..SEGMENTS).all(|segment| self.head(segment, COUNT).load(Acquire) == 0) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn inode(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|meta| meta.ino())
}

/// Where the journal of a configuration is. Its name is the configuration's path, to be known by people, and a
/// digest of that and the database.
pub fn path(config: &Config) -> PathBuf {
    let file = std::path::absolute(&config.file).unwrap_or_else(|_| config.file.clone());
    let db = match config.db.driver {
        Driver::Sqlite => config.db.path.display().to_string(),
        Driver::Mysql => format!("{} {}", config.db.host, config.db.database),
    };
    let digest = digest::digest(&digest::SHA256, format!("{} {db}", file.display()).as_bytes());
    let digest = hex(digest.as_ref().get(..6).unwrap_or_default());
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let shown: String = file.display().to_string().chars().map(plain).collect();
    let shown = shown.get(shown.len().saturating_sub(200)..).unwrap_or_default();
    Path::new("/dev/shm").join(format!("goat{shown}-{digest}"))
}

const SESSION: u64 = 1;
const TOTAL: u64 = 2;
const FIRST: u64 = 4;
const STARTED: u64 = 8;
const ACTIVE: u64 = 16;
const PAUSED: u64 = 32;
const COMPLETED: u64 = 64;
const TOTAL_ACTIVE: u64 = 128;
const TOTAL_COMPLETED: u64 = 256;

fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// Two words for an address. IPv4 is mapped into IPv6: an announce never comes from a mapped address.
fn address(ip: IpAddr) -> [u64; 2] {
    let bits = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    [bits as u64, (bits >> 64) as u64]
}

fn ip(low: u64, high: u64) -> IpAddr {
    Ipv6Addr::from_bits(u128::from(low) | u128::from(high) << 64).to_canonical()
}

/// 24 bytes in three words, of which the first 20 or all are used.
fn words<const N: usize>(bytes: [&[u8]; N]) -> [u64; 3] {
    let mut all = [0; 24];
    all.iter_mut().zip(bytes.into_iter().flatten()).for_each(|(to, from)| *to = *from);
    let (parts, _) = all.as_chunks();
    std::array::from_fn(|i| parts.get(i).map_or(0, |part| u64::from_le_bytes(*part)))
}

fn bytes<const N: usize>(words: [u64; 3], skip: usize) -> [u8; N] {
    let mut out = [0; N];
    let all = words.into_iter().flat_map(u64::to_le_bytes).skip(skip);
    out.iter_mut().zip(all).for_each(|(to, from)| *to = from);
    out
}

/// An entry as words, the first of which is left to the number.
fn encode((session, total): &Entry) -> [u64; ENTRY] {
    let mut flags = 0;
    let mut set = |flag: u64, on: bool| flags |= if on { flag } else { 0 };
    let mut out = [0; ENTRY];
    let [_, key, _, p0, p1, p2, up, down, left, seen, a0, a1, a2, fup, fdown, f0, f1, rest @ ..] = &mut out;
    let [t0, t1, tup, tdown, seed, tail, tcup, tcdown, factors] = rest;
    if let Some((SessionKey { file, user, peer_id }, SessionRow { session: s, at, active, first })) = session {
        set(SESSION, true);
        set(ACTIVE, *active);
        set(PAUSED, s.paused);
        set(COMPLETED, s.completed);
        *key = pair(*file, *user);
        [*p0, *p1, *p2] = words([&peer_id.0]);
        (*up, *down, *left, *seen) = (s.uploaded, s.downloaded, s.left, pair(s.seen[0], s.seen[1]));
        [*a0, *a1, *a2] = words([&at.v4, &at.v6]);
        if let Some(first) = first {
            set(FIRST, true);
            set(STARTED, first.started);
            (*fup, *fdown) = (first.uploaded, first.downloaded);
            [*f0, *f1] = address(first.ip);
            *factors = pair(first.factors.upload.into(), first.factors.download.into());
        }
    }
    if let Some((TotalKey { file, user, ip }, t)) = total {
        set(TOTAL, true);
        set(TOTAL_ACTIVE, t.active);
        set(TOTAL_COMPLETED, t.completed);
        *key = pair(*file, *user);
        [*t0, *t1] = address(*ip);
        (*tup, *tdown, *seed) = (t.uploaded, t.downloaded, t.seed_time);
        (*tcup, *tcdown) = (t.credited_uploaded, t.credited_downloaded);
        // With a session it is of the same announce, and wants the same.
        *left = t.left;
        *tail = pair(t.announced, t.time);
    }
    if let Some(word) = out.get_mut(2) {
        *word = flags;
    }
    out
}

fn decode(words: &[u64; ENTRY]) -> Entry {
    let [_, key, flags, p0, p1, p2, up, down, left, seen, a0, a1, a2, fup, fdown, f0, f1, rest @ ..] = *words;
    let [t0, t1, tup, tdown, seed, tail, tcup, tcdown, factors] = rest;
    let on = |flag: u64| flags & flag != 0;
    let ((file, user), peer_id) = (halves(key), PeerId(bytes([p0, p1, p2], 0)));
    let factors = halves(factors);
    let factors = Factors { upload: factors.0 as u16, download: factors.1 as u16 };
    let first = First { started: on(STARTED), uploaded: fup, downloaded: fdown, ip: ip(f0, f1), factors };
    let seen = halves(seen);
    let session = Session {
        uploaded: up,
        downloaded: down,
        left,
        seen: [seen.0, seen.1],
        user,
        peer_id,
        paused: on(PAUSED),
        completed: on(COMPLETED),
    };
    let (v4, v6): (Addr4, Addr6) = (bytes([a0, a1, a2], 0), bytes([a0, a1, a2], 6));
    let first = on(FIRST).then_some(first);
    let row = SessionRow { session, at: Addresses { v4, v6 }, active: on(ACTIVE), first };
    let (announced, time) = halves(tail);
    let total = Total {
        uploaded: tup,
        downloaded: tdown,
        credited_uploaded: tcup,
        credited_downloaded: tcdown,
        seed_time: seed,
        left,
        announced,
        time,
        active: on(TOTAL_ACTIVE),
        completed: on(TOTAL_COMPLETED),
    };
    (
        on(SESSION).then_some((SessionKey { file, user, peer_id }, row)),
        on(TOTAL).then_some((TotalKey { file, user, ip: ip(t0, t1) }, total)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written() {
        let (v4, v6) = ([1, 2, 3, 4, 5, 6], std::array::from_fn(|i| i as u8 + 7));
        let peer_id = PeerId(std::array::from_fn(|i| 200 + i as u8));
        let first = First {
            started: true,
            uploaded: 1,
            downloaded: 2,
            ip: IpAddr::from([10, 0, 0, 1]),
            factors: Factors { upload: 200, download: 0 },
        };
        let session = Session {
            uploaded: u64::MAX,
            downloaded: 4,
            left: 5,
            seen: [6, u32::MAX],
            user: 7,
            peer_id,
            paused: true,
            completed: false,
        };
        let total = Total {
            uploaded: 8,
            downloaded: 9,
            credited_uploaded: 10,
            credited_downloaded: 11,
            seed_time: 12,
            left: 5,
            announced: 13,
            time: 14,
            active: false,
            completed: true,
        };
        let key = SessionKey { file: 15, user: 7, peer_id };
        let row = |first| SessionRow { session, at: Addresses { v4, v6 }, active: true, first };
        let ip = IpAddr::from(std::array::from_fn::<u8, 16, _>(|i| 32 + i as u8));
        let total = (TotalKey { file: 15, user: 7, ip }, total);
        let entries = [
            (Some((key, row(Some(first)))), Some(total)),
            (Some((key, row(None))), None),
            (None, Some(total)),
            (Some((key, row(Some(First { started: false, ip, ..first })))), Some(total)),
        ];
        for entry in entries {
            assert_eq!(decode(&encode(&entry)), entry);
        }
    }
}
