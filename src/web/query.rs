//! What may follow the question mark of a call.

use crate::net::message::{decoded, pairs};
use crate::store::{Order, Page};
use crate::web::answer::Failure;

/// The most rows of a list in one answer, and how many there are unless `limit` says otherwise.
const MAX_ROWS: usize = 1_000;

/// What may follow the question mark. Other parameters are ignored.
pub(crate) struct Query<'a> {
    pub limit: usize,
    pub after: Option<u32>,
    all: &'a str,
}

/// The value of a parameter, still encoded.
fn find<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    pairs(query).find(|(found, _)| *found == name).map(|(_, value)| value)
}

/// What an encoded value says.
fn text(value: &str) -> String {
    let bytes: Vec<u8> = decoded(value).map(|byte| byte.unwrap_or_else(|percent| percent)).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Text as it may stand in a query or a header (RFC 3986, section 2.1).
pub(super) fn encoded(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    text.bytes().map(|byte| if plain(&byte) { char::from(byte).into() } else { format!("%{byte:02X}") }).collect()
}

impl<'a> Query<'a> {
    pub(crate) fn read(query: &'a str) -> Result<Query<'a>, Failure> {
        let wrong = |what: &str| Failure(400, format!("Invalid {what}"));
        let limit = find(query, "limit").map_or(Ok(MAX_ROWS), str::parse).ok().filter(|limit| *limit <= MAX_ROWS);
        let after = find(query, "after").map(str::parse).transpose();
        Ok(Query {
            limit: limit.ok_or_else(|| wrong("limit: a whole number from 0 to 1000"))?,
            after: after.map_err(|_| wrong("after: the id or time of the last row before"))?,
            all: query,
        })
    }

    /// The text of any parameter.
    pub fn value(&self, name: &str) -> Option<String> {
        find(self.all, name).map(text)
    }

    pub(crate) fn on(&self, name: &str) -> bool {
        find(self.all, name) == Some("true")
    }

    /// The header that names what follows a row: the same query from there on.
    fn next(&self, last: u32) -> (&'static str, String) {
        let same = pairs(self.all).filter(|(name, _)| !["", "limit", "after"].contains(name));
        let same = same.map(|(name, value)| format!("{}={}&", encoded(name), encoded(&text(value))));
        ("Link", format!("<?{}limit={}&after={last}>; rel=\"next\"", same.collect::<String>(), self.limit))
    }

    /// The word to sort by, and whether backwards.
    pub(crate) fn sort(&self) -> (&'a str, bool) {
        let sort = find(self.all, "sort").unwrap_or("id");
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

    /// Takes away the row too many, and returns the header that says how to ask for what follows the others.
    pub(crate) fn cut<T>(&self, rows: &mut Vec<T>, id: impl Fn(&T) -> u32) -> Option<(&'static str, String)> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        rows.last().filter(|_| more).map(|last| self.next(id(last)))
    }
}
