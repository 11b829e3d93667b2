//! The journal: what the ledger holds, on the disk. Whatever ends goat, `kill -9` or a power cut, the next start
//! settles what was answered and not written into the database.
//!
//! A folder beside the database (SQLite) or in `State` (MySQL) holds segments, files to which records of a
//! fixed size are appended, one for each announce: a thread writes those of its round before the answers leave,
//! and the keeper syncs once a second. A segment begins with a head that names the database and the run that it
//! belongs to. The keeper begins a segment before it takes the ledgers, and deletes the older ones when what it
//! took is written, so that a record is in a segment that is there for as long as its state is not in the
//! database. A record may well outlive that: to settle it again changes nothing.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nix::fcntl::Flock;

use super::session::{Birth, Known, Life, Paths, Session, SessionKey, State};
use crate::config::{Config, Driver, command};
use crate::protocol::{Addresses, Factors, Moved, take};
use crate::sync::lock;
use crate::torrent::PeerId;

/// What a segment begins with, and the version of its layout.
const MAGIC: [u8; 8] = *b"goatjrn2";
/// Bytes of a head: MAGIC, the database's identity, the run, and a checksum.
const HEAD: usize = 28;
/// Bytes of a record, its checksum among them.
pub const RECORD: usize = 167;
/// The most bytes that wait until other goats are told: ten seconds of the busiest tracker.
const OUTBOX: usize = 64 << 20;
/// How long to wait for another goat to end: as long as one may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a segment says of itself: the database that it belongs to, and the run of goat that wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    pub identity: u64,
    pub run: u64,
}

#[derive(Default)]
pub struct Journal {
    folder: PathBuf,
    /// Of the run that is written; absent until it begins.
    pub head: Option<Head>,
    /// Held so that no other goat uses the folder.
    _lock: Option<Flock<File>>,
    /// The segment that is appended to, if there is one.
    current: Mutex<Option<Segment>>,
    /// The number of the next. Each is given once: what is in the way of one is not in that of the next.
    next: AtomicU64,
    /// Something that was answered is not in it.
    failed: AtomicBool,
    /// What other goats are to hear, and whether there was no room for some of it; absent where there are none.
    outbox: Option<Mutex<(Vec<u8>, bool)>>,
}

struct Segment {
    file: File,
    /// What the file is known by, whatever happens to its name.
    inode: u64,
    number: u64,
    /// Bytes of the head and of whole records.
    length: u64,
    /// How much of that is on the disk.
    synced: u64,
}

/// What earlier runs left: the last state of each life, with its place in the order of records.
pub type Left = BTreeMap<Head, BTreeMap<(SessionKey, Life), (u64, State)>>;

impl Journal {
    /// Takes the folder for this goat, and makes it where it is missing: waits for the goat before to end. An error if
    /// another uses it.
    pub fn open(config: &Config) -> Result<Journal, String> {
        let path = path(config);
        // Where that cannot be done, nothing can be written either, which is said then.
        let _ = DirBuilder::new().mode(0o770).create(&path);
        let name = path.join("lock");
        let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o660).open(&name);
        // Also what is read-only can be locked.
        let file = made.or_else(|_| File::open(&name)).ok();
        let lock = file.map(|file| wait_for(file, &path)).transpose()?;
        let shared = config.redis.is_some() && config.db.driver == Driver::Mysql;
        Ok(Journal { folder: path, _lock: lock, outbox: shared.then(Mutex::default), ..Journal::default() })
    }

    /// Has other goats hear of records, if there are some: at the cost of a copy, for another thread tells them.
    pub fn tell(&self, records: &[u8]) {
        let Some(mut outbox) = self.outbox.as_ref().filter(|_| !records.is_empty()).map(lock) else { return };
        let (waiting, lost) = &mut *outbox;
        match waiting.len().saturating_add(records.len()) > OUTBOX {
            true => *lost = true,
            false => waiting.extend_from_slice(records),
        }
    }

    /// Takes what other goats are to hear, and whether there was no room for some of it.
    pub fn take_told(&self) -> (Vec<u8>, bool) {
        let Some(mut outbox) = self.outbox.as_ref().map(lock) else { return Default::default() };
        // As much room as was needed: it will be needed again.
        let room = Vec::with_capacity(outbox.0.len());
        std::mem::replace(&mut *outbox, (room, false))
    }

    /// Begins a run, whose states are all to come; what was left is settled, and goes. Where nothing can be written,
    /// the journal has [`Journal::failed`].
    pub fn begin(&mut self, head: Head) {
        self.head = Some(head);
        let last = segments(&self.folder).ok().and_then(|files| files.last().map(|(number, _)| *number));
        self.next = last.unwrap_or(0).saturating_add(1).into();
        match self.turn() {
            Ok(number) => self.settled(number),
            Err(_) => self.failed.store(true, Relaxed),
        }
    }

    /// Removes all that was left, and returns how many states that was.
    pub fn discard(&self) -> Result<usize, String> {
        let states = read_all(&self.folder)?.values().map(BTreeMap::len).sum();
        for (_, path) in segments(&self.folder)? {
            fs::remove_file(&path).map_err(|e| format!("cannot remove {}: {e}", path.display()))?;
        }
        Ok(states)
    }
}

fn wait_for(mut file: File, folder: &Path) -> Result<Flock<File>, String> {
    let begin = Instant::now();
    loop {
        match crate::sys::lock_file(file) {
            Ok(locked) => return Ok(locked),
            Err((_, e)) if begin.elapsed() > PATIENCE => {
                return Err(format!("another goat is using {} ({e}): stop it first", folder.display()));
            }
            Err((again, _)) => file = again,
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The folder of a configuration's journal: beside the database, or else in the folder `State`.
pub fn path(config: &Config) -> PathBuf {
    let db = &config.db.path;
    match config.db.driver {
        // By whatever name the database is called, it has one journal.
        Driver::Sqlite => db.canonicalize().unwrap_or_else(|_| db.clone()).with_extension("journal"),
        Driver::Mysql => config.state_file("journal"),
    }
}

fn segments(folder: &Path) -> Result<Vec<(u64, PathBuf)>, String> {
    let files = match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        files => files.map_err(|e| cannot_read(folder, &e.to_string()))?,
    };
    let number = |path: &Path| path.file_name()?.to_str()?.strip_suffix(".log")?.parse().ok();
    let mut found: Vec<(u64, PathBuf)> =
        files.flatten().filter_map(|file| Some((number(&file.path())?, file.path()))).collect();
    found.sort();
    Ok(found)
}

fn cannot_read(path: &Path, why: &str) -> String {
    let advice = match crate::sys::stranger(path) {
        Some(owner) => format!("It belongs to {owner}: run goat as that user"),
        None => format!("`{}` sets a damaged one aside", command("check --fix")),
    };
    format!("{} holds accounts not yet written, but cannot be read: {why}. {advice}", path.display())
}

/// Reads a segment: of two states of a life keeps the newer, with what only the older knows. What a crash cut off is the
/// end; a record that is wrong before others is damage.
fn read(path: &Path, left: &mut Left) -> Result<(), String> {
    let file = match File::open(path) {
        // The goat that runs has settled it since it was listed.
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        file => file.map_err(|e| e.to_string())?,
    };
    let mut file = BufReader::with_capacity(1 << 16, file);
    let mut fill = |bytes: &mut [u8]| match file.read_exact(bytes) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(false),
        done => done.map(|()| true).map_err(|e| e.to_string()),
    };
    let (mut head, mut record, mut at, mut wrong) = ([0; HEAD], [0; RECORD], HEAD, None);
    if !fill(&mut head)? {
        return Ok(()); // made a moment before a crash
    }
    let states = left.entry(decode_head(&head).ok_or("byte 0 is damaged, or of another version of goat")?).or_default();
    while fill(&mut record)? {
        match (decode(&record), wrong) {
            (Some(_), Some(wrong)) => return Err(format!("byte {wrong} is damaged")),
            (Some((order, key, state)), None) => {
                let kept = states.entry((key, state.known.session.life)).or_insert((order, state));
                let (newer, older) = if kept.0 <= order { ((order, state), kept.1) } else { (*kept, state) };
                *kept = newer;
                kept.1.follow(&older);
            }
            (None, _) => wrong = wrong.or(Some(at)),
        }
        at += RECORD;
    }
    Ok(())
}

/// What was left in a folder. An error names the file that cannot be read, or is damaged, and where.
pub fn read_all(folder: &Path) -> Result<Left, String> {
    let mut left = Left::new();
    for (_, path) in segments(folder)? {
        read(&path, &mut left).map_err(|e| cannot_read(&path, &e))?;
    }
    Ok(left)
}

/// How many states a configuration's journal holds that may be unwritten.
pub fn left(config: &Config) -> Result<usize, String> {
    Ok(read_all(&path(config))?.values().map(BTreeMap::len).sum())
}

/// Segments that cannot be read to their end: where, and why.
pub fn damaged(config: &Config) -> Result<Vec<(PathBuf, String)>, String> {
    let wrong = |(_, path): (u64, PathBuf)| read(&path, &mut Left::new()).err().map(|why| (path, why));
    Ok(segments(&path(config))?.into_iter().filter_map(wrong).collect())
}

impl Journal {
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Appends records, which goat is about to answer for, and leaves the buffer empty.
    pub fn write(&self, records: &mut Vec<u8>) {
        self.tell(records);
        self.append(records);
    }

    /// The same with what other goats have heard.
    pub fn append(&self, records: &mut Vec<u8>) {
        let append = |segment: &mut Segment| segment.append(records).is_ok();
        if !records.is_empty() && !lock(&self.current).as_mut().is_some_and(append) {
            self.failed.store(true, Relaxed);
        }
        records.clear();
    }

    /// Whether something is missing in it since the last call, because it cannot be written or was removed.
    pub fn failed(&self) -> bool {
        let there = |(number, inode): (u64, u64)| fs::metadata(self.name(number)).is_ok_and(|meta| meta.ino() == inode);
        // The disk is asked without the lock, which announces wait for.
        let segment = lock(&self.current).as_ref().map(|segment| (segment.number, segment.inode));
        self.failed.swap(false, Relaxed) || !segment.is_some_and(there)
    }

    /// Sees to it that all that was written is on the disk.
    pub fn sync(&self) -> io::Result<()> {
        let behind = |segment: &&mut Segment| segment.synced < segment.length;
        let copy = |segment: &mut Segment| segment.file.try_clone().map(|file| (file, segment.number, segment.length));
        let Some(copied) = lock(&self.current).as_mut().filter(behind).map(copy) else { return Ok(()) };
        let synced = copied.and_then(|(file, number, length)| file.sync_data().map(|()| (number, length)));
        let (number, length) = synced.inspect_err(|_| self.failed.store(true, Relaxed))?;
        let mut current = lock(&self.current);
        let same = current.as_mut().filter(|segment| segment.number == number);
        same.into_iter().for_each(|segment| segment.synced = length);
        Ok(())
    }

    /// Begins a segment and returns its number: what is in the ledgers from now on is in that or in a later one.
    pub fn turn(&self) -> io::Result<u64> {
        let head = self.head.ok_or_else(|| io::Error::other("no run has begun"))?;
        DirBuilder::new().recursive(true).mode(0o770).create(&self.folder)?;
        let number = self.next.fetch_add(1, Relaxed);
        let path = self.name(number);
        let mut file =
            OpenOptions::new().append(true).create_new(true).mode(0o660).custom_flags(libc::O_NOFOLLOW).open(&path)?;
        let begun = file.write_all(&encode_head(head)).and_then(|()| File::open(&self.folder)?.sync_all());
        let segment = Segment { inode: file.metadata()?.ino(), file, number, length: HEAD as u64, synced: 0 };
        begun.inspect_err(|_| drop(fs::remove_file(&path)))?;
        let before = lock(&self.current).replace(segment);
        // Before anything older is removed.
        before.map_or(Ok(()), |segment| segment.file.sync_data()).map(|()| number)
    }

    /// Removes the segments before one: what they hold is in the database.
    pub fn settled(&self, before: u64) {
        let old = segments(&self.folder).unwrap_or_default().into_iter().take_while(|(number, _)| *number < before);
        // One that stays is settled once more by the next start, which changes nothing.
        old.for_each(|(_, path)| drop(fs::remove_file(path)));
    }

    /// Bytes of the records in the segment that is appended to.
    pub fn length(&self) -> u64 {
        lock(&self.current).as_ref().map_or(0, |segment| segment.length - HEAD as u64)
    }

    /// Bytes that it takes on the disk, about.
    pub fn size(&self) -> u64 {
        let files = segments(&self.folder).unwrap_or_default();
        files.iter().filter_map(|(_, path)| fs::metadata(path).ok()).map(|meta| meta.len()).sum()
    }

    fn name(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:08}.log"))
    }
}

impl Segment {
    /// Appends records, or none of them.
    fn append(&mut self, records: &[u8]) -> io::Result<()> {
        // Half a record would make the next ones unreadable.
        self.file.write_all(records).inspect_err(|_| drop(self.file.set_len(self.length)))?;
        self.length += records.len() as u64;
        Ok(())
    }
}

fn encode_head(head: Head) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend(head.identity.to_le_bytes());
    out.extend(head.run.to_le_bytes());
    out.extend(crc32fast::hash(&out).to_le_bytes());
    out
}

fn decode_head(head: &[u8; HEAD]) -> Option<Head> {
    let mut bytes = checked(head)?;
    let magic: [u8; 8] = take(&mut bytes)?;
    (magic == MAGIC).then_some(())?;
    Some(Head { identity: u64::from_le_bytes(take(&mut bytes)?), run: u64::from_le_bytes(take(&mut bytes)?) })
}

/// What a record or head holds before its checksum, if that is right.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let (content, sum) = bytes.split_last_chunk()?;
    (crc32fast::hash(content) == u32::from_le_bytes(*sum)).then_some(content)
}

const PAUSED: u8 = 1;
const COMPLETE: u8 = 2;
const SNATCHED: u8 = 4;
const BORN: u8 = 8;
const STARTED: u8 = 16;

/// Appends a record. `order` tells which of a session's records is the newest.
pub fn encode(order: u64, file: u32, state: &State, out: &mut Vec<u8>) {
    let State { known: Known { session: s, at, closed }, birth, seeded, factors } = state;
    let b = birth.unwrap_or_default();
    let flag = |flag: u8, on: bool| if on { flag } else { 0 };
    let flags = flag(PAUSED, s.paused) | flag(COMPLETE, s.complete) | flag(SNATCHED, s.snatched);
    let start = out.len();
    out.extend(order.to_le_bytes());
    for number in [s.top, b.base, b.first].iter().flat_map(|moved| [moved.uploaded, moved.downloaded]).chain([s.left]) {
        out.extend(number.to_le_bytes());
    }
    let [seen4, seen6] = s.seen;
    for number in
        [file, s.user, s.life.0, s.began, s.announced, seen4, seen6, *closed, seeded.0, seeded.1, b.at, b.doubt]
    {
        out.extend(number.to_le_bytes());
    }
    out.extend(factors.upload.to_le_bytes());
    out.extend(factors.download.to_le_bytes());
    out.extend([flags | flag(BORN, birth.is_some()) | flag(STARTED, b.started), s.paths.0, b.path.0]);
    out.extend(s.peer_id.0);
    out.extend(at.v4);
    out.extend(at.v6);
    let sum = crc32fast::hash(out.get(start..).unwrap_or_default());
    out.extend(sum.to_le_bytes());
}

/// Reads a record; `None` where its checksum is wrong.
pub fn decode(record: &[u8]) -> Option<(u64, SessionKey, State)> {
    let bytes = &mut checked(record)?;
    let order = u64::from_le_bytes(take(bytes)?);
    let mut long = || take(bytes).map(u64::from_le_bytes);
    let (top, base) =
        (Moved { uploaded: long()?, downloaded: long()? }, Moved { uploaded: long()?, downloaded: long()? });
    let (first, left) = (Moved { uploaded: long()?, downloaded: long()? }, long()?);
    let mut number = || take(bytes).map(u32::from_le_bytes);
    let (file, user, life, began, announced) = (number()?, number()?, Life(number()?), number()?, number()?);
    let (seen, closed, seeded) = ([number()?, number()?], number()?, (number()?, number()?));
    let (at_birth, doubt) = (number()?, number()?);
    let mut percent = || take(bytes).map(u16::from_le_bytes);
    let factors = Factors { upload: percent()?, download: percent()? };
    let [flags, paths, path] = take(bytes)?;
    let (paths, path) = (Paths(paths), Paths(path));
    let (peer_id, at) = (PeerId(take(bytes)?), Addresses { v4: take(bytes)?, v6: take(bytes)? });
    let on = |flag: u8| flags & flag != 0;
    let flagged = Session { paused: on(PAUSED), complete: on(COMPLETE), snatched: on(SNATCHED), ..Session::default() };
    let seeds = if seeded.0 < seeded.1 { seeded.0 } else { 0 };
    let session = Session { top, left, seen, user, life, began, seeds, announced, peer_id, paths, ..flagged };
    let birth = Birth { at: at_birth, base, doubt, first, started: on(STARTED), path };
    let state = State { known: Known { session, at, closed }, birth: on(BORN).then_some(birth), seeded, factors };
    Some((order, SessionKey { file, user, peer_id }, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state that has no two numbers alike.
    fn state() -> State {
        let peer_id = PeerId(std::array::from_fn(|i| 200 + i as u8));
        let moved = |n| Moved { uploaded: u64::MAX - n, downloaded: n };
        let session = Session {
            top: moved(1),
            left: 5,
            seen: [6, u32::MAX],
            user: 7,
            life: Life(8),
            began: 17,
            seeds: 13,
            announced: 9,
            peer_id,
            paths: Paths(5),
            paused: true,
            complete: false,
            snatched: true,
        };
        let at = Addresses { v4: [1, 2, 3, 4, 5, 6], v6: std::array::from_fn(|i| i as u8 + 7) };
        let birth = Birth { at: 10, base: moved(2), doubt: 11, first: moved(3), started: true, path: Paths(4) };
        let factors = Factors { upload: 200, download: 0 };
        State { known: Known { session, at, closed: 12 }, birth: Some(birth), seeded: (13, 14), factors }
    }

    #[test]
    fn a_segment_that_was_settled_since_it_was_listed_leaves_nothing() {
        let mut left = Left::new();
        assert_eq!(read(Path::new("/nowhere/1.log"), &mut left), Ok(()));
        assert!(left.is_empty());
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let started = |started| state().birth.map(|birth| Birth { started, ..birth });
        for birth in [started(true), started(false), None] {
            let state = State { birth, ..state() };
            let mut record = Vec::new();
            encode(15, 16, &state, &mut record);
            let key = SessionKey { file: 16, user: 7, peer_id: state.known.session.peer_id };
            assert_eq!(record.len(), RECORD);
            assert_eq!(decode(&record), Some((15, key, state)));
            for byte in 0..RECORD {
                record[byte] ^= 0x10;
                assert_eq!(decode(&record), None, "byte {byte}");
                record[byte] ^= 0x10;
            }
        }
    }
}
