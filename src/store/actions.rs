//! What administrators did, and by which command.

use serde::{Deserialize, Serialize};

use super::list::{Page, Source};
use super::pool::Store;
use super::sql::Error;

/// A row of `actions`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Action {
    pub id: u32,
    /// Seconds since 1970.
    pub time: u32,
    /// The name of the administrator at that time; nothing for the command line.
    pub who: String,
    /// The words of the command.
    pub what: String,
    /// The name of the member, torrent or client.
    pub whom: String,
    /// A reason, or how much.
    pub detail: String,
}

/// So many are kept.
const KEPT: u32 = 10_000;
/// The longest text of a row, in characters.
const MAX_TEXT: usize = 255;

impl Store {
    pub(crate) fn note(&self, action: &Action) -> Result<(), Error> {
        let text = |text: &str| text.chars().take(MAX_TEXT).collect::<String>();
        let Action { time, who, what, whom, detail, .. } = action;
        let (whom, detail) = (text(whom), text(detail));
        let values =
            [(*time).into(), who.as_str().into(), what.as_str().into(), whom.as_str().into(), detail.as_str().into()];
        self.transaction(|c| {
            c.execute("INSERT INTO actions (time, who, what, whom, detail) VALUES (?, ?, ?, ?, ?)", &values)?;
            let old = c.last_id().saturating_sub(KEPT);
            c.execute("DELETE FROM actions WHERE id <= ?", &[old.into()]).map(drop)
        })
    }

    /// What was done, in the order of its ids.
    pub(crate) fn actions(&self, page: &Page, sink: impl FnMut(Action)) -> Result<(), Error> {
        let columns = "id, time, who, what, whom, detail";
        let source = Source { columns, from: "actions WHERE 1 = 1", values: &[], id: "id" };
        self.list(&source, page, sink)
    }
}
