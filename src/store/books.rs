//! Writing the books: one batch, one transaction.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering::Relaxed;

use super::pool::Store;
use super::rows::{Batch, First, SessionKey, SessionRow, Total, TotalKey, credit};
use super::sql::{Connection, Error, Value, big};
use crate::config::Driver;
use crate::protocol::{ip4, ip6, port};
use crate::torrent::PeerId;

/// How many rows one statement writes: the largest that fits, so that few different statements are made
/// and each is prepared once. 512 rows of 16 values are well below every limit on placeholders.
const ROWS: [usize; 4] = [512, 64, 8, 1];

/// The most rows that one clean-up removes.
const SWEPT: u64 = 2_000;

pub(super) const PEER_COLUMNS: &str = "file_id, user_id, peer_id, ipv4, port4, time4, ipv6, port6, time6, active, paused, completed, uploaded, downloaded, `left`, time";
pub(super) const TOTAL_COLUMNS: &str = "file_id, user_id, ip, active, completed, announced, uploaded, downloaded, `left`, time, seed_time, credited_uploaded, credited_downloaded";

/// Cuts `rows` into pieces of the sizes in [`ROWS`] up to `most`.
fn pieces<T>(mut rows: &[T], most: usize) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let size = ROWS.into_iter().find(|&size| size <= rows.len().min(most))?;
        let (piece, rest) = rows.split_at_checked(size)?;
        rows = rest;
        Some(piece)
    })
}

/// `(?, ?), (?, ?)`: placeholders for `rows` rows of `columns` values.
fn placeholders(rows: usize, columns: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(", "));
    vec![row; rows].join(", ")
}

impl Store {
    /// Writes a batch in one transaction, unless it is there already. After an error the same batch must be given
    /// again before any other.
    pub fn write(&self, batch: &Batch, now: u32) -> Result<(), Error> {
        let insert = format!("{} INTO batches (number, time) VALUES (?, ?)", self.dialect.insert_ignore());
        let mut moved = (0u64, 0u64);
        self.transaction(|c| {
            if c.execute(&insert, &[big(batch.number), Value::Int(now.into())])? == 0 {
                return Ok(());
            }
            let totals = settle(c, batch)?;
            let add =
                |sum: (u64, u64), t: &Total| (sum.0.saturating_add(t.uploaded), sum.1.saturating_add(t.downloaded));
            moved = totals.iter().fold((0, 0), |sum, (_, total)| add(sum, total));
            self.write_sessions(c, batch)?;
            self.write_totals(c, &totals)?;
            self.write_users(c, &totals)?;
            write_snatches(c, &totals)
        })?;
        self.moved[0].fetch_add(moved.0, Relaxed);
        self.moved[1].fetch_add(moved.1, Relaxed);
        Ok(())
    }

    /// Forgets the numbers of batches written before `before` (seconds since 1970).
    pub fn forget_batches(&self, before: u32) -> Result<(), Error> {
        self.with(|c| c.execute("DELETE FROM batches WHERE time < ?", &[Value::Int(before.into())]).map(drop))
    }

    /// Removes sessions silent since `before` (seconds since 1970) of some torrents from `from` on, and once
    /// through also what members suggested before and nobody approved. Looks at about 2,000 rows, so that it
    /// holds up nobody. Returns the torrent to go on from, `None` at the end; and whether there was something to remove.
    pub fn sweep(&self, from: u32, before: u32) -> Result<(Option<u32>, bool), Error> {
        let before = Value::Int(before.into());
        let last = format!(
            "SELECT MAX(file_id) FROM (SELECT file_id FROM peers WHERE file_id >= ? ORDER BY file_id LIMIT {SWEPT}) t"
        );
        self.with(|c| {
            let mut to = None;
            c.query(&last, &[Value::Int(from.into())], &mut |row| {
                to = row.first().map(Value::small::<u32>).filter(|to| *to > 0);
            })?;
            let Some(to) = to else {
                let unused = "NOT EXISTS (SELECT 1 FROM files_users t WHERE t.file_id = files.id)";
                let sql = format!("DELETE FROM files WHERE verified = 0 AND suggested BETWEEN 1 AND ? AND {unused}");
                c.execute(&sql, &[before])?;
                let sql = "DELETE FROM whitelist WHERE approved = 0 AND suggested BETWEEN 1 AND ?";
                return c.execute(sql, &[before]).map(|_| (None, false));
            };
            let old = "file_id BETWEEN ? AND ? AND time < ?";
            let sql = match self.dialect.driver {
                Driver::Sqlite => format!(
                    "DELETE FROM peers WHERE (file_id, user_id, peer_id) IN
                     (SELECT file_id, user_id, peer_id FROM peers WHERE {old} LIMIT {SWEPT})"
                ),
                Driver::Mysql => format!("DELETE FROM peers WHERE {old} LIMIT {SWEPT}"),
            };
            let removed = c.execute(&sql, &[Value::Int(from.into()), Value::Int(to.into()), before])?;
            Ok((if removed < SWEPT { to.checked_add(1) } else { Some(from) }, removed > 0))
        })
    }

    fn write_sessions(&self, c: &mut dyn Connection, batch: &Batch) -> Result<(), Error> {
        let upsert = self.dialect.upsert(
            "file_id, user_id, peer_id",
            "ipv4 = NEW(ipv4), port4 = NEW(port4), time4 = NEW(time4), ipv6 = NEW(ipv6), port6 = NEW(port6), time6 = NEW(time6),
             active = NEW(active), paused = NEW(paused), completed = GREATEST(completed, NEW(completed)),
             uploaded = NEW(uploaded), downloaded = NEW(downloaded), `left` = NEW(`left`), time = NEW(time)",
        );
        let none = String::new();
        for rows in pieces(&batch.sessions, self.dialect.rows()) {
            let ips: Vec<(String, String)> = rows
                .iter()
                .map(|(_, row)| {
                    let v4 = if port(&row.at.v4) == 0 { none.clone() } else { ip4(&row.at.v4).to_string() };
                    let v6 = if port(&row.at.v6) == 0 { none.clone() } else { ip6(&row.at.v6).to_string() };
                    (v4, v6)
                })
                .collect();
            let values =
                rows.iter().zip(&ips).flat_map(|((key, SessionRow { session: s, at, active, .. }), (v4, v6))| {
                    [
                        Value::Int(key.file.into()),
                        Value::Int(key.user.into()),
                        Value::Blob(&key.peer_id.0),
                        Value::Text(v4),
                        Value::Int(port(&at.v4).into()),
                        Value::Int(s.seen[0].into()),
                        Value::Text(v6),
                        Value::Int(port(&at.v6).into()),
                        Value::Int(s.seen[1].into()),
                        Value::Int((*active).into()),
                        Value::Int(s.paused.into()),
                        Value::Int(s.completed.into()),
                        big(s.uploaded),
                        big(s.downloaded),
                        big(s.left),
                        Value::Int(s.last_seen().into()),
                    ]
                });
            let values: Vec<Value> = values.collect();
            let sql = format!("INSERT INTO peers ({PEER_COLUMNS}) VALUES {} {upsert}", placeholders(rows.len(), 16));
            c.execute(&sql, &values)?;
        }
        Ok(())
    }

    fn write_totals(&self, c: &mut dyn Connection, totals: &[(TotalKey, Total)]) -> Result<(), Error> {
        // `completed` is left to `write_snatches`, which must see it turn.
        let upsert = self.dialect.upsert(
            "file_id, user_id, ip",
            "active = NEW(active), announced = announced + NEW(announced),
             `left` = CASE WHEN NEW(time) >= time THEN NEW(`left`) ELSE `left` END, time = GREATEST(time, NEW(time)),
             uploaded = uploaded + LEAST(NEW(uploaded), 9223372036854775807 - uploaded),
             downloaded = downloaded + LEAST(NEW(downloaded), 9223372036854775807 - downloaded),
             credited_uploaded = credited_uploaded + LEAST(NEW(credited_uploaded), 9223372036854775807 - credited_uploaded),
             credited_downloaded = credited_downloaded + LEAST(NEW(credited_downloaded), 9223372036854775807 - credited_downloaded),
             seed_time = seed_time + NEW(seed_time)",
        );
        for rows in pieces(totals, self.dialect.rows()) {
            let ips: Vec<String> = rows.iter().map(|(key, _)| key.ip.to_string()).collect();
            let values = rows.iter().zip(&ips).flat_map(|((key, t), ip)| {
                [
                    Value::Int(key.file.into()),
                    Value::Int(key.user.into()),
                    Value::Text(ip),
                    Value::Int(t.active.into()),
                    Value::Int(0),
                    Value::Int(t.announced.into()),
                    big(t.uploaded),
                    big(t.downloaded),
                    big(t.left),
                    Value::Int(t.time.into()),
                    big(t.seed_time),
                    big(t.credited_uploaded),
                    big(t.credited_downloaded),
                ]
            });
            let values: Vec<Value> = values.collect();
            let sql =
                format!("INSERT INTO files_users ({TOTAL_COLUMNS}) VALUES {} {upsert}", placeholders(rows.len(), 13));
            c.execute(&sql, &values)?;
        }
        Ok(())
    }

    fn write_users(&self, c: &mut dyn Connection, totals: &[(TotalKey, Total)]) -> Result<(), Error> {
        let mut users: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for (key, total) in totals.iter().filter(|(_, t)| t.credited_uploaded > 0 || t.credited_downloaded > 0) {
            let sums = users.entry(key.user).or_default();
            let add = (total.credited_uploaded, total.credited_downloaded);
            *sums = (sums.0.saturating_add(add.0), sums.1.saturating_add(add.1));
        }
        let users: Vec<_> = users.into_iter().collect();
        // MySQL takes five times as long for one after the other.
        let most = if self.dialect.driver == Driver::Sqlite { 1 } else { self.dialect.rows() };
        for rows in pieces(&users, most) {
            let values = rows.iter().flat_map(|(id, sums)| [Value::Int((*id).into()), big(sums.0), big(sums.1)]);
            c.execute(&self.dialect.add_to_users(rows.len()), &values.collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

/// Credits the sessions that memory did not know when they came, by what the database knows of them; and
/// sorts the totals by key, so that neighbours are written together and locks are taken in one order.
fn settle(c: &mut dyn Connection, batch: &Batch) -> Result<Vec<(TotalKey, Total)>, Error> {
    let mut totals = batch.totals.clone();
    totals.sort_unstable_by_key(|(key, _)| *key);
    let firsts: Vec<(SessionKey, First)> =
        batch.sessions.iter().filter_map(|(key, row)| Some((*key, row.first?))).collect();
    for rows in pieces(&firsts, ROWS[0]) {
        let mut last: HashMap<SessionKey, (u64, u64)> = HashMap::new();
        let one = "(file_id = ? AND user_id = ? AND peer_id = ?)";
        let sql = format!(
            "SELECT file_id, user_id, peer_id, uploaded, downloaded FROM peers WHERE {}",
            vec![one; rows.len()].join(" OR ")
        );
        let values = rows.iter().flat_map(|(key, _)| {
            [Value::Int(key.file.into()), Value::Int(key.user.into()), Value::Blob(&key.peer_id.0)]
        });
        c.query(&sql, &values.collect::<Vec<_>>(), &mut |row| {
            let [file, user, peer_id, uploaded, downloaded, ..] = row else {
                return;
            };
            if let Ok(peer_id) = peer_id.bytes().try_into() {
                let key = SessionKey { file: file.small(), user: user.small(), peer_id: PeerId(peer_id) };
                last.insert(key, (uploaded.small(), downloaded.small()));
            }
        })?;
        for (key, first) in rows {
            let moved = credit(last.get(key).copied(), first.started, (first.uploaded, first.downloaded));
            let own = TotalKey { file: key.file, user: key.user, ip: first.ip };
            // It came with its session; if not, it is begun here.
            let at = totals.binary_search_by_key(&own, |(key, _)| *key).unwrap_or_else(|at| {
                totals.insert(at, (own, Total::default()));
                at
            });
            if let Some((_, total)) = totals.get_mut(at) {
                total.add(moved, first.factors);
            }
        }
    }
    Ok(totals)
}

/// Counts a snatch for each row of `files_users` whose `completed` turns true.
fn write_snatches(c: &mut dyn Connection, totals: &[(TotalKey, Total)]) -> Result<(), Error> {
    for (key, _) in totals.iter().filter(|(_, total)| total.completed) {
        let file = Value::Int(key.file.into());
        let sql = "UPDATE files_users SET completed = 1 WHERE file_id = ? AND user_id = ? AND ip = ? AND completed = 0";
        if c.execute(sql, &[file, Value::Int(key.user.into()), Value::Text(&key.ip.to_string())])? > 0 {
            c.execute("UPDATE files SET completed = completed + 1 WHERE id = ?", &[file])?;
        }
    }
    Ok(())
}
