//! What may follow the question mark of a call.

use crate::auth::Failure;
use crate::net::message::{decoded, pairs};
use crate::store::{Order, Page};

/// The most rows of a list in one answer, and how many there are unless `limit` says otherwise.
const MAX_ROWS: usize = 1_000;

/// What may follow the question mark. Other parameters are ignored.
pub(crate) struct Query<'a> {
    pub limit: usize,
    pub after: Option<u32>,
    pub sort: Option<&'a str>,
    pub pending: bool,
    pub free: bool,
    pub mine: bool,
    all: &'a str,
}

/// The value of a parameter, still encoded.
fn find<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    pairs(query).find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// Text as it may stand in a query or a header (RFC 3986, section 2.1).
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).into() } else { format!("%{byte:02X}") }).collect()
}

impl<'a> Query<'a> {
    pub(crate) fn read(query: &'a str) -> Result<Query<'a>, Failure> {
        let wrong = |what: &str| Failure(400, format!("Invalid {what}"));
        let flag = |name| find(query, name) == Some("true");
        let limit = find(query, "limit").map_or(Ok(MAX_ROWS), str::parse).ok().filter(|limit| *limit <= MAX_ROWS);
        let after = find(query, "after").map(str::parse).transpose();
        Ok(Query {
            limit: limit.ok_or_else(|| wrong("limit: a whole number from 0 to 1000"))?,
            after: after.map_err(|_| wrong("after: the id or time of the last row before"))?,
            sort: find(query, "sort"),
            pending: flag("pending"),
            free: flag("free"),
            mine: flag("mine"),
            all: query,
        })
    }

    /// The text of any parameter.
    pub fn value(&self, name: &str) -> Option<String> {
        let bytes: Vec<u8> =
            decoded(find(self.all, name)?).map(|byte| byte.unwrap_or_else(|percent| percent)).collect();
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The query that asks for what follows a row.
    fn next(&self, last: u32) -> String {
        let sort = self.sort.map_or(String::new(), |sort| format!("sort={sort}&"));
        let q = self.value("q").map_or(String::new(), |q| format!("q={}&", encoded(&q)));
        let flags = [("pending", self.pending), ("free", self.free), ("mine", self.mine)];
        let flags: String = flags.iter().filter(|(_, on)| *on).map(|(name, _)| format!("{name}=true&")).collect();
        format!("{sort}{q}{flags}limit={}&after={last}", self.limit)
    }

    /// The word to sort by, and whether backwards.
    pub(crate) fn sort(&self) -> (&'a str, bool) {
        let sort = self.sort.unwrap_or("id");
        sort.strip_prefix('-').map_or((sort, false), |word| (word, true))
    }

    /// The part of a list that is wanted, in the order that is asked for, and one row more.
    pub(crate) fn page(&self, orders: &[Order]) -> Result<Page, Failure> {
        let (word, descending) = self.sort();
        let word = if word == "username" { "name" } else { word };
        let order = orders.iter().find(|order| order.word == word).ok_or_else(|| {
            let words: Vec<&str> = orders.iter().map(|order| order.word).collect();
            Failure(400, format!("Invalid sort: one of {}, or with a minus sign", words.join(", ")))
        })?;
        Ok(self.part(Page::by(order, descending)))
    }

    /// The part of a list that is wanted, and one row more.
    pub(crate) fn part(&self, list: Page) -> Page {
        Page { after: self.after, limit: self.limit.saturating_add(1), ..list }
    }

    /// Takes away the row too many, and returns the query for what follows the others.
    pub(crate) fn cut<T>(&self, rows: &mut Vec<T>, id: impl Fn(&T) -> u32) -> Option<String> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        rows.last().filter(|_| more).map(|last| self.next(id(last)))
    }
}
