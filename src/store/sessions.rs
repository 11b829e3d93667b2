//! The rows of sessions: what settling reads and writes, and what the tracker loads at its start.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use super::dialect::{Dialect, ROWS, places};
use super::pool::Store;
use super::sql::{Connection, Error, Kind, Value, big};
use crate::config::Driver;
use crate::protocol::{Addresses, Moved, NO_ADDR6};
use crate::torrent::PeerId;

/// One life of a session, as its row holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LifeRow {
    /// When it began, in seconds since 1970.
    pub began: u32,
    /// The close after which it is in doubt, in seconds since 1970; 0: it is not.
    pub doubt: u32,
    /// The highest counters announced.
    pub top: Moved,
    /// What of them is credited.
    pub done: Moved,
}

/// A row of `sessions`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The number of the current life; 0 in a row that is not there yet.
    pub life: u32,
    pub current: LifeRow,
    /// The life before, for what is heard of it late.
    pub former: LifeRow,
    /// When it was closed, in seconds since 1970; 0: it is open.
    pub closed: u32,
    /// The paths that announced since it opened, as a set of bits.
    pub paths: u8,
    pub paused: bool,
    pub complete: bool,
    pub snatched: bool,
    /// Bytes that moved in all lives.
    pub moved: Moved,
    /// What of them was credited.
    pub credited: Moved,
    pub left: u64,
    pub announced: u32,
    /// Seconds.
    pub seed_time: u64,
    /// Until when the member was credited seeding, in seconds since 1970.
    pub seeded_until: u32,
    /// When it announced last over IPv4 and IPv6, in seconds since 1970.
    pub seen: [u32; 2],
    pub at: Addresses,
}

impl Row {
    /// When it announced last, in seconds since 1970.
    pub fn last_seen(&self) -> u32 {
        let [v4, v6] = self.seen;
        v4.max(v6)
    }
}

/// (file_id, user_id, peer_id)
pub type Key = (u32, u32, PeerId);

const KEY: &str = "file_id, user_id, peer_id";
/// All columns of `sessions`, those of the key first. SQLite compares faster where there are at most 13.
pub(super) const SESSION_COLUMNS: &str =
    "file_id, user_id, peer_id, closed, flags, uploaded, downloaded, bonus, `left`,
    seed_time, time4, time6, state";
const COLUMNS: usize = 13;
/// The most rows that one clean-up removes.
const SWEPT: u64 = 2_000;
/// Rows among which sessions are closed at a time, about.
const CLOSED: u32 = 20_000;
/// The columns of `totals`.
pub(super) const TOTALS: &str = "file_id, user_id, ip, completed, announced, uploaded, downloaded, credited_uploaded,
    credited_downloaded, `left`, time, seed_time";
/// Bits of `flags`; the paths follow from the fifth on, and from the seventeenth on how often it announced.
const PAUSED: u8 = 1;
const COMPLETE: u8 = 2;
const SNATCHED: u8 = 4;
const IPV6: u8 = 8;
const PATHS: u32 = 4;
const ANNOUNCED: u32 = 16;
/// The largest counter that the database holds.
const MOST: Moved = Moved { uploaded: i64::MAX as u64, downloaded: i64::MAX as u64 };

/// The rows that settling states of these sessions takes: all those of their members on these torrents, who are credited
/// the time of seeding once; of anonymous ones, of whom there may be thousands on a torrent, their own. Where others
/// write too, they are locked until the end of the transaction.
fn of_sessions(c: &mut dyn Connection, dialect: &Dialect, keys: &[Key]) -> Result<Vec<(Key, Row)>, Error> {
    let select = |columns: &str, rows: usize| {
        let places = places(rows, columns.split(',').count());
        // SQLite would make a table of a list of one.
        let which = if rows == 1 { format!("({columns}) = {places}") } else { format!("({columns}) IN ({places})") };
        format!("SELECT {SESSION_COLUMNS} FROM sessions{} WHERE {which}{}", dialect.by_key(), dialect.for_update())
    };
    let mut rows = Vec::with_capacity(keys.len());
    let mut query = |sql: &str, values: &[Value]| c.query(sql, values, &mut |row| rows.extend(read(row)));
    let (mut members, mut anonymous) = (Vec::new(), Vec::new());
    for same in keys.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1) && (a.1 != 0 || a == b)) {
        match same.first() {
            Some((file, 0, peer_id)) => anonymous.extend([Value::from(*file), Value::Int(0), Value::Blob(&peer_id.0)]),
            Some((file, user, _)) => members.extend([Value::from(*file), Value::from(*user)]),
            None => {}
        }
    }
    dialect.in_pieces(&members, 2, |rows| select("file_id, user_id", rows), &mut query)?;
    dialect.in_pieces(&anonymous, 3, |rows| select(KEY, rows), query)?;
    rows.sort_unstable_by_key(|(key, _)| *key);
    Ok(rows)
}

/// Writes rows, all of which are new or none. A new one that is there already is an error: somebody else was faster.
fn write(c: &mut dyn Connection, dialect: &Dialect, rows: &[(Key, Row)], new: bool) -> Result<(), Error> {
    let verb = if new { "INSERT" } else { "REPLACE" };
    let word = |rows| format!("{verb} INTO sessions ({SESSION_COLUMNS}) VALUES {}", places(rows, COLUMNS));
    let packed: Vec<_> = rows.iter().map(|(_, row)| (bonus(row), pack(row))).collect();
    let values = rows.iter().zip(&packed).flat_map(|((key, row), (bonus, state))| columns(key, row, bonus, state));
    dialect.execute(c, &values.collect::<Vec<_>>(), COLUMNS, word)
}

fn columns<'a>(
    (file, user, peer_id): &'a Key,
    row: &Row,
    bonus: &'a Option<String>,
    state: &'a [u8],
) -> [Value<'a>; COLUMNS] {
    let flag = |flag: u8, on: bool| if on { flag } else { 0 };
    let flags = flag(PAUSED, row.paused) | flag(COMPLETE, row.complete) | flag(SNATCHED, row.snatched);
    let flags = i64::from(flags | flag(IPV6, row.at.v6 != NO_ADDR6)) | i64::from(row.paths) << PATHS;
    let [time4, time6] = row.seen;
    [
        (*file).into(),
        (*user).into(),
        Value::Blob(&peer_id.0),
        row.closed.into(),
        Value::Int(flags | i64::from(row.announced) << ANNOUNCED),
        big(row.moved.uploaded),
        big(row.moved.downloaded),
        bonus.as_deref().map_or(Value::Null, Value::Text),
        big(row.left),
        big(row.seed_time),
        time4.into(),
        time6.into(),
        Value::Blob(state),
    ]
}

fn read(row: &[Value]) -> Option<(Key, Row)> {
    let [file, user, peer_id, closed, flags, up, down, bonus, left, seed_time, time4, time6, state, ..] = row else {
        return None;
    };
    let flags = flags.int();
    let on = |flag: u8| flags & i64::from(flag) != 0;
    let moved = Moved { uploaded: up.small(), downloaded: down.small() };
    let (v4, state) = state.bytes().split_first_chunk()?;
    let (v6, state) = state.split_first_chunk().filter(|_| on(IPV6)).unwrap_or((&NO_ADDR6, state));
    let mut row = Row {
        closed: closed.small(),
        paths: (flags >> PATHS) as u8,
        paused: on(PAUSED),
        complete: on(COMPLETE),
        snatched: on(SNATCHED),
        moved,
        credited: credited(moved, bonus),
        left: left.small(),
        announced: (flags >> ANNOUNCED) as u32,
        seed_time: seed_time.small(),
        seen: [time4.small(), time6.small()],
        at: Addresses { v4: *v4, v6: *v6 },
        ..Row::default()
    };
    unpack(&mut row, state);
    Some(((file.small(), user.small(), PeerId(peer_id.bytes().try_into().ok()?)), row))
}

/// How many bytes more than moved were credited, or fewer, as text: two numbers, unless these are 0.
fn bonus(row: &Row) -> Option<String> {
    let (moved, credited) = (row.moved.min(MOST), row.credited.min(MOST));
    let more = |credited: u64, moved: u64| credited.wrapping_sub(moved).cast_signed();
    let (up, down) = (more(credited.uploaded, moved.uploaded), more(credited.downloaded, moved.downloaded));
    ((up, down) != (0, 0)).then(|| format!("{up},{down}"))
}

/// The reverse.
fn credited(moved: Moved, bonus: &Value) -> Moved {
    let bonus = std::str::from_utf8(bonus.bytes()).ok().and_then(|bonus| bonus.split_once(','));
    let more = |moved: u64, bonus: &str| moved.saturating_add_signed(bonus.parse().unwrap_or(0));
    bonus.map_or(moved, |(up, down)| Moved {
        uploaded: more(moved.uploaded, up),
        downloaded: more(moved.downloaded, down),
    })
}

/// What two pairs of counters differ in: none of what is equal, and one of them, by the other.
fn xor(a: Moved, b: Moved) -> Moved {
    Moved { uploaded: a.uploaded ^ b.uploaded, downloaded: a.downloaded ^ b.downloaded }
}

/// The addresses of a session, and what only goat need know: numbers of which most are small, or 0 at the end and left
/// out, because they are what differs from others of the row. In groups of seven bits, the lowest first; a number's last
/// lacks the eighth.
fn pack(row: &Row) -> Vec<u8> {
    let (LifeRow { began, doubt, top, done }, former, last) = (row.current, row.former, row.last_seen());
    let small = [row.seeded_until ^ last, began ^ last, row.life ^ 1, doubt, former.began, former.doubt].map(u64::from);
    let pairs = [xor(top, row.moved.min(MOST)), xor(top, done), former.top, former.done];
    let mut bytes = Vec::with_capacity(40);
    bytes.extend_from_slice(&row.at.v4);
    bytes.extend(row.at.v6.iter().filter(|_| row.at.v6 != NO_ADDR6));
    let mut used = bytes.len();
    for number in small.into_iter().chain(pairs.into_iter().flat_map(|pair| [pair.uploaded, pair.downloaded])) {
        let mut rest = number;
        while rest > 127 {
            bytes.push(rest as u8 | 128);
            rest >>= 7;
        }
        bytes.push(rest as u8);
        used = if number == 0 { used } else { bytes.len() };
    }
    bytes.truncate(used);
    bytes
}

/// The reverse behind the addresses, for a row that has the others.
fn unpack(row: &mut Row, bytes: &[u8]) {
    let number = |groups: &[u8]| groups.iter().rev().fold(0, |number, group| number << 7 | u64::from(group & 127));
    let mut numbers = bytes.split_inclusive(|byte| *byte < 128).map(number);
    let mut next = || numbers.next().unwrap_or(0);
    let [seeded, began, life, doubt, former_began, former_doubt] = std::array::from_fn(|_| next() as u32);
    let [top, done, former_top, former_done] = std::array::from_fn(|_| Moved { uploaded: next(), downloaded: next() });
    let (last, top) = (row.last_seen(), xor(top, row.moved));
    (row.seeded_until, row.life) = (seeded ^ last, life ^ 1);
    row.current = LifeRow { began: began ^ last, doubt, top, done: xor(top, done) };
    row.former = LifeRow { began: former_began, doubt: former_doubt, top: former_top, done: former_done };
}

/// What one transaction writes.
#[derive(Default)]
pub struct Changes {
    /// Rows that are there, and new ones, in the order of their keys.
    changed: Vec<(Key, Row)>,
    new: Vec<(Key, Row)>,
    /// What each member is credited.
    credits: Vec<(u32, Moved)>,
    /// Bytes that moved in all.
    moved: Moved,
    /// (file_id, user_id) of complete downloads.
    pub snatches: Vec<(u32, u32)>,
}

impl Changes {
    /// The row of a session, if it was the last that was put.
    pub fn row(&self, key: Key) -> Option<Row> {
        let last = |rows: &[(Key, Row)]| rows.last().filter(|(last, _)| *last == key).map(|(_, row)| *row);
        last(&self.changed).or_else(|| last(&self.new))
    }

    /// Stores a row, instead of the last one where that is the same session's.
    pub fn put(&mut self, key: Key, row: Row, new: bool) {
        let rows = if new { &mut self.new } else { &mut self.changed };
        match rows.last_mut() {
            Some((last, before)) if *last == key => *before = row,
            _ => rows.push((key, row)),
        }
    }

    pub fn credit(&mut self, user: u32, credited: Moved, moved: Moved) {
        self.moved = self.moved.plus(moved);
        if credited != Moved::default() {
            self.credits.push((user, credited));
        }
    }
}

impl Store {
    /// Settles states in one transaction: piece by piece, in the order of their keys, reads the rows that it takes, has
    /// `compute` make changes of them, and writes these. Returns what else `compute` said; it may be called again where
    /// another was in the way. Where the database does not say whether it committed, the same may be settled again.
    pub fn settle<T, U>(
        &self,
        states: &[T],
        key: impl Fn(&T) -> Key,
        compute: impl Fn(&[T], &[(Key, Row)]) -> (Changes, Vec<U>),
    ) -> Result<Vec<U>, Error> {
        let (told, moved) = self.transaction(|c| {
            let (mut told, mut moved) = (Vec::new(), Moved::default());
            let mut credits = BTreeMap::new();
            let mut rest = states;
            while let Some((piece, later)) = split(rest, &key) {
                let keys: Vec<Key> = piece.iter().map(&key).collect();
                let rows = of_sessions(c, &self.dialect, &keys)?;
                let (changes, said) = compute(piece, &rows);
                write(c, &self.dialect, &changes.changed, false)?;
                // Where two goats begin the same row, one of them comes again and finds it.
                let faster = |e: Error| e.if_exists(Kind::Conflict, "another goat has begun the same session");
                write(c, &self.dialect, &changes.new, true).map_err(faster)?;
                begin_totals(c, &self.dialect, &changes.new)?;
                changes.snatches.iter().try_for_each(|snatch| count_snatch(c, *snatch))?;
                for (user, credited) in changes.credits {
                    let sum: &mut Moved = credits.entry(user).or_default();
                    *sum = sum.plus(credited);
                }
                moved = moved.plus(changes.moved);
                told.extend(said);
                rest = later;
            }
            self.credit_users(c, &credits)?;
            self.stamp(c)?;
            Ok((told, moved))
        })?;
        self.stamped();
        self.moved[0].fetch_add(moved.uploaded, Relaxed);
        self.moved[1].fetch_add(moved.downloaded, Relaxed);
        Ok(told)
    }

    fn credit_users(&self, c: &mut dyn Connection, credits: &BTreeMap<u32, Moved>) -> Result<(), Error> {
        let sums = credits.iter();
        let values = sums.flat_map(|(id, sum)| [Value::from(*id), big(sum.uploaded), big(sum.downloaded)]);
        self.dialect.execute(c, &values.collect::<Vec<_>>(), 3, |users| self.dialect.add_to_users(users))
    }

    /// Folds sessions silent since `before` (seconds since 1970) of some torrents from `from` on into `totals`, and
    /// once through also removes what members suggested before and nobody approved. Looks at about 2,000 rows, so that
    /// it holds up nobody. Returns the torrent to go on from, `None` at the end; and whether there was something to do.
    pub fn sweep(&self, from: u32, before: u32) -> Result<(Option<u32>, bool), Error> {
        let last = format!(
            "SELECT MAX(file_id) FROM (SELECT file_id FROM sessions WHERE file_id >= ? ORDER BY file_id LIMIT {SWEPT}) t"
        );
        let Some(to) = self.row::<Option<u32>>(&last, &[from.into()])?.flatten() else {
            return self.forget_suggestions(before).map(|()| (None, false));
        };
        let (sqlite, limits) =
            (self.dialect.driver == Driver::Sqlite, [from.into(), to.into(), before.into(), before.into()]);
        let old = format!(
            "FROM sessions WHERE file_id >= ? AND file_id <= ? AND time4 < ? AND time6 < ? ORDER BY {KEY} LIMIT {SWEPT}"
        );
        let view = format!("SELECT {KEY} {old}");
        let sums = ["uploaded", "downloaded", "credited_uploaded", "credited_downloaded"];
        let fold = self.dialect.upsert(
            "file_id, user_id",
            &format!(
                "ip = NEW(ip), completed = GREATEST(totals.completed, NEW(completed)), announced = totals.announced + NEW(announced),
                 {}, `left` = NEW(`left`), time = NEW(time), seed_time = totals.seed_time + NEW(seed_time)",
                sums.map(|column| Dialect::add("totals", column)).join(", ")
            ),
        );
        let fold = format!("INSERT INTO totals ({TOTALS}) SELECT p.file_id, p.user_id,
            CASE WHEN time6 > time4 THEN ipv6 ELSE ipv4 END, completed, announced, uploaded, downloaded,
            credited_uploaded, credited_downloaded, `left`, time, seed_time FROM peers p JOIN ({view}) o
            ON o.file_id = p.file_id AND o.user_id = p.user_id AND o.peer_id = p.peer_id WHERE 1 = 1 ORDER BY time {fold}");
        let remove =
            if sqlite { format!("DELETE FROM sessions WHERE ({KEY}) IN ({view})") } else { format!("DELETE {old}") };
        // Nobody else may fold what is read here.
        let lock = format!("SELECT file_id {old}{}", self.dialect.for_update());
        let removed = self.transaction(|c| {
            c.query(&lock, &limits, &mut |_| ())?;
            c.execute(&fold, &limits)?;
            c.execute(&remove, &limits)
        })?;
        Ok((if removed < SWEPT { to.checked_add(1) } else { Some(from) }, removed > 0))
    }

    fn forget_suggestions(&self, before: u32) -> Result<(), Error> {
        let unused = "NOT EXISTS (SELECT 1 FROM totals t WHERE t.file_id = files.id)";
        let files = format!("DELETE FROM files WHERE verified = 0 AND suggested BETWEEN 1 AND ? AND {unused}");
        let clients = "DELETE FROM whitelist WHERE approved = 0 AND suggested BETWEEN 1 AND ?";
        self.with(|c| {
            c.execute(&files, &[before.into()])?;
            c.execute(clients, &[before.into()]).map(drop)
        })
    }

    /// Closes the sessions that were silent for too long while no tracker ran, and those of users that were banned or
    /// removed meanwhile; some torrents at a time, so that nobody waits long.
    pub fn close_sessions(&self, now: u32, silence: u32) -> Result<(), Error> {
        let greatest = if self.dialect.driver == Driver::Sqlite { "MAX" } else { "GREATEST" };
        let next = format!("SELECT file_id FROM sessions WHERE file_id >= ? ORDER BY file_id LIMIT 1 OFFSET {CLOSED}");
        let sql = format!(
            "UPDATE sessions SET closed = CASE WHEN {greatest}(time4, time6) < ? THEN {greatest}(time4, time6) + ? ELSE ? END
             WHERE closed = 0 AND file_id >= ? AND file_id <= ? AND ({greatest}(time4, time6) < ?
             OR user_id <> 0 AND user_id NOT IN (SELECT id FROM users WHERE banned = 0))"
        );
        let before = Value::from(now.saturating_sub(silence));
        let mut next_from = Some(0u32);
        while let Some(from) = next_from {
            let to: Option<u32> = self.row(&next, &[from.into()])?;
            let values = [before, silence.into(), now.into(), from.into(), to.unwrap_or(u32::MAX).into(), before];
            self.write(&sql, &values)?;
            next_from = to.and_then(|to| to.checked_add(1));
        }
        Ok(())
    }

    /// The sessions that are open, or were closed since `closed`, and of which something was heard since `heard`
    /// (seconds since 1970).
    pub fn sessions(&self, closed: u32, heard: u32, mut sink: impl FnMut(Key, Row)) -> Result<(), Error> {
        let sql = format!(
            "SELECT {SESSION_COLUMNS} FROM sessions
             WHERE (closed = 0 OR closed >= ?) AND (time4 >= ? OR time6 >= ? OR closed >= ?)"
        );
        let (closed, heard) = (closed.max(1).into(), heard.into());
        self.with(|c| {
            c.query(&sql, &[closed, heard, heard, heard], &mut |row| {
                read(row).into_iter().for_each(|(key, row)| sink(key, row));
            })
        })
    }
}

/// Makes the rows of `totals` for members who come to a torrent for the first time.
fn begin_totals(c: &mut dyn Connection, dialect: &Dialect, new: &[(Key, Row)]) -> Result<(), Error> {
    let mut members: Vec<(u32, u32)> = new.iter().map(|((file, user, _), _)| (*file, *user)).collect();
    members.dedup();
    let insert = |rows| {
        let rows = vec!["(?, ?, '', 0, 0, 0, 0, 0, 0, 0, 0, 0)"; rows].join(", ");
        format!("{} INTO totals ({TOTALS}) VALUES {rows}", dialect.insert_ignore())
    };
    let values: Vec<Value> = members.iter().flat_map(|(file, user)| [Value::from(*file), Value::from(*user)]).collect();
    dialect.execute(c, &values, 2, insert)
}

/// The states that are settled together, so that their pages are read and written while they are at hand, and the rest;
/// those of one member on one torrent are not parted, nor those of one anonymous session.
fn split<T>(states: &[T], key: impl Fn(&T) -> Key) -> Option<(&[T], &[T])> {
    let last = key(states.get(ROWS[0].min(states.len()).checked_sub(1)?)?);
    let belongs = |key: Key| if last.1 == 0 { key <= last } else { (key.0, key.1) <= (last.0, last.1) };
    states.split_at_checked(states.partition_point(|state| belongs(key(state))))
}

/// Counts a complete download, if it is the member's first of the torrent.
fn count_snatch(c: &mut dyn Connection, (file, user): (u32, u32)) -> Result<(), Error> {
    let sql = "UPDATE totals SET completed = 1 WHERE file_id = ? AND user_id = ? AND completed = 0";
    if c.execute(sql, &[file.into(), user.into()])? > 0 {
        c.execute("UPDATE files SET completed = completed + 1 WHERE id = ?", &[file.into()])?;
    }
    Ok(())
}
