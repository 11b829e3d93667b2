//! What all lists share: by what they are sorted, which part of them is wanted, and what was moved by a member or on a
//! torrent.

use serde::de::DeserializeOwned;

use super::pool::Store;
use super::row::read;
use super::sql::{Error, Kind, Value, big};

/// A word by which a list can be sorted.
pub(crate) struct Order {
    pub word: &'static str,
    /// SQL for what it stands for.
    by: &'static str,
    /// For people the largest comes first.
    largest_first: bool,
}

impl Order {
    pub(super) const fn new(word: &'static str, by: &'static str, largest_first: bool) -> Order {
        Order { word, by, largest_first }
    }
}

/// Part of a list.
#[derive(Clone, Copy)]
pub(crate) struct Page {
    pub(crate) by: &'static str,
    pub(crate) descending: bool,
    /// The row, by its id, that the part follows.
    pub after: Option<u32>,
    pub limit: usize,
}

impl Page {
    /// All rows by their ids.
    pub const ALL: Page = Page { by: "id", descending: false, after: None, limit: usize::MAX };

    /// All rows in the order of a word, the largest first where people want that.
    pub(crate) fn named<'a>(orders: impl IntoIterator<Item = &'a Order>, word: &str) -> Page {
        let order = orders.into_iter().find(|order| order.word == word);
        order.map_or(Page::ALL, |order| Page::by(order, order.largest_first))
    }

    /// All rows in an order.
    pub(crate) fn by(order: &Order, descending: bool) -> Page {
        Page { by: order.by, descending, ..Page::ALL }
    }
}

/// Rows that can be listed: SQL, and the values that it asks for.
pub(super) struct Source<'a> {
    pub columns: &'a str,
    /// Tables and WHERE.
    pub from: &'a str,
    pub values: &'a [Value<'a>],
    /// The column of the id.
    pub id: &'static str,
}

impl Store {
    /// Calls `sink` for each row of a part of a list.
    pub(super) fn list<T: DeserializeOwned>(
        &self,
        source: &Source,
        page: &Page,
        mut sink: impl FnMut(T),
    ) -> Result<(), Error> {
        let Source { columns, from, values, id } = *source;
        let by = if page.by == "id" { id } else { page.by };
        let (direction, beyond) = if page.descending { ("DESC", "<") } else { ("ASC", ">") };
        let last = page.after.map_or(0, i64::from);
        let (after, again) = match page.after {
            None => (String::new(), &[][..]),
            Some(_) if by == id => (format!("AND {id} {beyond} ?"), &[][..]),
            Some(_) => (format!("AND ({by}, {id}) {beyond} (SELECT {by}, {id} FROM {from} AND {id} = ?)"), values),
        };
        let sql = format!("SELECT {columns} FROM {from} {after} ORDER BY {by} {direction}, {id} {direction} LIMIT ?");
        let after = page.after.map(|_| Value::Int(last));
        let all: Vec<Value> =
            values.iter().chain(again).copied().chain(after).chain([big(page.limit as u64)]).collect();
        let mut none = true;
        self.with(|c| {
            c.query(&sql, &all, &mut |row| {
                none = false;
                read(row).into_iter().for_each(&mut sink);
            })
        })?;
        if none && by != id && page.after.is_some() {
            let sql = format!("SELECT {id} FROM {from} AND {id} = ?");
            let all: Vec<Value> = values.iter().copied().chain([Value::Int(last)]).collect();
            let absent = || Error { kind: Kind::NoRow, message: "no row has this id".into() };
            self.row::<u32>(&sql, &all)?.ok_or_else(absent)?;
        }
        Ok(())
    }
}

/// Which sessions are a member's, who are found by the torrents that they were on; and which are a torrent's. The id is
/// asked for twice.
pub(super) const OF_USER: &str = "user_id = ? AND file_id IN (SELECT file_id FROM totals WHERE user_id = ?)";
pub(super) const OF_FILE: &str = "file_id = ? AND file_id = ?";

/// Members or torrents as a [`Source`], all or one; where `since` is given with `sums`, columns of what was moved by them
/// or on them. `seeding` and `leeching` are torrents of a member or sessions of a torrent; a session is in the swarm if
/// it has announced since `since`. (Bytes are added as decimals or reals: SQLite fails where integers are too large.)
pub(super) fn joined(
    table: &str,
    (columns, sums): (&str, &str),
    one: Option<u32>,
    since: Option<u32>,
) -> (String, String, Vec<Value<'static>>) {
    let Some(since) = since else { return (columns.into(), table.into(), Vec::new()) };
    let (by, of_one, case, counted) = match table {
        "users" => ("user_id", OF_USER, "DISTINCT CASE", "file_id"),
        _ => ("file_id", OF_FILE, "CASE", "1"),
    };
    let (sessions, totals) = match one {
        None => ("1 = 1", "1 = 1".into()),
        Some(_) => (of_one, format!("{by} = ?")),
    };
    let moved = format!(
        "SELECT {by} AS whose, COUNT({case} WHEN live = 1 AND `left` = 0 THEN {counted} END) AS seeding,
            COUNT({case} WHEN live = 1 AND `left` > 0 THEN {counted} END) AS leeching, SUM(completed) AS snatches,
            SUM(seed_time) AS seed_time, NULLIF(MAX(time), 0) AS seen, SUM(uploaded + 0.0) AS moved_up,
            SUM(downloaded + 0.0) AS moved_down
        FROM (SELECT file_id, user_id, active = 1 AND time >= ? AS live, `left`, 0 AS completed, seed_time, time,
                uploaded, downloaded FROM peers WHERE {sessions}
            UNION ALL SELECT file_id, user_id, 0, `left`, completed, seed_time, time, uploaded, downloaded
                FROM totals WHERE {totals}) moved GROUP BY {by}"
    );
    let values = std::iter::once(since.into()).chain(one.into_iter().flat_map(|id| [id.into(); 3]));
    let from = format!("{table} LEFT JOIN ({moved}) s ON s.whose = {table}.id");
    (format!("{columns}, {sums}"), from, values.collect())
}
