//! What may follow the question mark of a call.

use crate::auth::Failure;

/// The most rows of a list in one answer, and how many there are unless `limit` says otherwise.
const MAX_ROWS: usize = 1_000;

/// What may follow the question mark. Other parameters are ignored.
pub struct Query<'a> {
    pub limit: usize,
    pub after: Option<u32>,
    pub sort: Option<&'a str>,
    pub pending: bool,
}

impl<'a> Query<'a> {
    pub fn read(query: &'a str) -> Result<Query<'a>, Failure> {
        let mut read = Query { limit: MAX_ROWS, after: None, sort: None, pending: false };
        let wrong = |what: &str| Failure(400, format!("Invalid {what}"));
        for (name, value) in query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))) {
            match name {
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| *limit <= MAX_ROWS);
                    read.limit = limit.ok_or_else(|| wrong("limit: a whole number from 0 to 1000"))?;
                }
                "after" => {
                    let after = value.parse().map_err(|_| wrong("after: the id or time of the last row before"))?;
                    read.after = Some(after);
                }
                "sort" => read.sort = Some(value),
                "pending" => read.pending = value == "true",
                _ => {}
            }
        }
        Ok(read)
    }

    /// The query that asks for what follows a row.
    pub fn next(&self, last: u32) -> String {
        let sort = self.sort.map_or(String::new(), |sort| format!("sort={sort}&"));
        let pending = if self.pending { "pending=true&" } else { "" };
        format!("{sort}{pending}limit={}&after={last}", self.limit)
    }

    /// The column to sort by, and whether backwards: one of `names`, perhaps after a minus sign.
    pub fn sort(&self, names: &[(&str, &'static str)]) -> Result<(&'static str, bool), Failure> {
        let Some(sort) = self.sort else { return Ok(("id", false)) };
        let (name, descending) = sort.strip_prefix('-').map_or((sort, false), |name| (name, true));
        let column = names.iter().find(|(known, _)| *known == name).map(|(_, column)| (*column, descending));
        column.ok_or_else(|| {
            let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
            Failure(400, format!("Invalid sort: one of {}, or with a minus sign", names.join(", ")))
        })
    }
}
