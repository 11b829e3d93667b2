//! Torrents found by words in their names and in the names of their files.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::dialect::places;
use super::pool::Store;
use super::row::rows;
use super::sql::{Connection, Error, Value};
use crate::torrent::metainfo::files;

/// What a torrent is to be, which somebody looks for.
#[derive(Default)]
pub(crate) struct Search {
    /// The torrents that have a word, as far as they are counted, and the first and the last of the words that it stands
    /// for, in their order. The rarest is the first.
    pub(super) words: Vec<(u32, String, String)>,
    /// Nothing is taken off for what is downloaded of it.
    pub free: bool,
    /// This member has announced it, or has sent it.
    pub mine: Option<u32>,
    /// There is more of it than its hash.
    pub kept: bool,
    /// SQL for what whoever looks may see, beside what they have sent, which is seen with `mine`; nothing: all.
    pub seen: &'static str,
}

/// The most words that are looked for at a time.
const MAX_WORDS: usize = 8;
/// The most words by which a torrent is found, and characters of each.
const MAX_INDEXED: usize = 2_000;
const MAX_WORD: usize = 32;
/// From so many characters on, a word stands also for longer ones that begin with it.
const PREFIX: usize = 3;
/// So many torrents are no few.
const MANY: u32 = 2_000;
/// Held while words are made: others who search meanwhile do not wait for it.
static INDEXING: Mutex<()> = Mutex::new(());
/// For how long a search makes words before it begins, and for how long it keeps others from writing.
const INDEX: Duration = Duration::from_secs(2);
const LOCKED: Duration = Duration::from_millis(100);
/// The most torrents whose words are made together.
const TOGETHER: usize = 500;

impl Search {
    /// SQL that says so of a row of `files`, and its values.
    pub(super) fn condition(&self) -> (String, Vec<Value<'_>>) {
        let (mut conditions, mut values) = (vec!["1 = 1".to_string()], Vec::new());
        const GIVEN: &str = "files.id IN (SELECT file_id FROM torrents WHERE user_id = ?)";
        if let Some(user) = self.mine {
            conditions.push(format!("(files.id IN (SELECT file_id FROM totals WHERE user_id = ?) OR {GIVEN})"));
            values.extend([Value::from(user); 2]);
        }
        if !self.seen.is_empty() {
            let given = self.mine.map_or(String::new(), |_| format!(" OR {GIVEN}"));
            conditions.push(format!("({}{given})", self.seen));
            values.extend(self.mine.map(Value::from));
        }
        if self.kept {
            conditions.push("EXISTS (SELECT 1 FROM torrents WHERE file_id = files.id)".into());
        }
        if self.free {
            conditions.push("download_percent = 0".into());
        }
        // Where the rarest word leaves few torrents, the others are looked for in these.
        let few = self.words.first().is_some_and(|(count, ..)| *count < MANY);
        for (place, (_, first, last)) in self.words.iter().enumerate() {
            conditions.push(match few && place > 0 {
                true => "EXISTS (SELECT 1 FROM words WHERE file_id = files.id AND word >= ? AND word <= ?)".into(),
                false => "files.id IN (SELECT file_id FROM words WHERE word >= ? AND word <= ?)".into(),
            });
            values.extend([Value::Text(first), Value::Text(last)]);
        }
        (conditions.join(" AND "), values)
    }
}

/// The words of a text, in lower case.
fn words(text: &str) -> impl Iterator<Item = String> {
    let parts = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    parts.map(|word| word.chars().flat_map(char::to_lowercase).take(MAX_WORD).collect())
}

impl Store {
    /// A search for all words of a text, in any order.
    pub(crate) fn search(&self, text: &str) -> Result<Search, Error> {
        let mut search = Search::default();
        for first in words(text).take(MAX_WORDS) {
            let last = if first.chars().count() < PREFIX { first.clone() } else { format!("{first}\u{10ffff}") };
            search.words.push((0, first, last));
        }
        if !search.words.is_empty() {
            self.index()?;
        }
        let sql =
            format!("SELECT COUNT(*) FROM (SELECT 1 FROM words WHERE word >= ? AND word <= ? LIMIT {MANY}) found");
        for (count, first, last) in &mut search.words {
            *count = self.row(&sql, &[Value::Text(first), Value::Text(last)])?.unwrap_or_default();
        }
        search.words.sort_unstable();
        Ok(search)
    }

    /// Makes the words of torrents that were registered or renamed, as far as there is time for it.
    fn index(&self) -> Result<(), Error> {
        let Ok(_one) = INDEXING.try_lock() else { return Ok(()) };
        let begin = Instant::now();
        while begin.elapsed() < INDEX && self.row::<u32>("SELECT file_id FROM unindexed LIMIT 1", &[])?.is_some() {
            self.transaction(|c| self.index_some(c))?;
        }
        Ok(())
    }

    /// Makes the words of some of them.
    fn index_some(&self, c: &mut dyn Connection) -> Result<(), Error> {
        let (begin, insert) = (Instant::now(), self.dialect.insert_ignore());
        let sql = format!("SELECT file_id FROM unindexed LIMIT {TOGETHER}{}", self.dialect.for_update());
        for id in rows::<u32>(c, &sql, &[])? {
            let mut found = BTreeSet::new();
            let sql = "SELECT name, info FROM files LEFT JOIN torrents ON file_id = id WHERE id = ?";
            c.query(sql, &[id.into()], &mut |row| {
                if let [name, info, ..] = row {
                    found = indexed(&name.text(), info.bytes());
                }
            })?;
            c.execute("DELETE FROM words WHERE file_id = ?", &[id.into()])?;
            let values: Vec<Value> = found.iter().flat_map(|word| [Value::Text(word), id.into()]).collect();
            let sql = |rows| format!("{insert} INTO words (word, file_id) VALUES {}", places(rows, 2));
            self.dialect.execute(c, &values, 2, sql)?;
            c.execute("DELETE FROM unindexed WHERE file_id = ?", &[id.into()])?;
            if begin.elapsed() > LOCKED {
                break;
            }
        }
        Ok(())
    }
}

/// By which words a torrent is found.
fn indexed(name: &str, info: &[u8]) -> BTreeSet<String> {
    let files = if info.is_empty() { Vec::new() } else { files(info).unwrap_or_default() };
    let paths = files.iter().flat_map(|file| words(&file.path));
    let mut found: BTreeSet<String> = words(name).collect();
    for word in paths {
        if found.len() >= MAX_INDEXED {
            break;
        }
        found.insert(word);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_letters_and_digits_in_lower_case() {
        let of = |text| words(text).collect::<Vec<_>>();
        assert_eq!(of("The.Größe_of-1080p (ÉTÉ)%"), ["the", "größe", "of", "1080p", "été"]);
        assert_eq!(of("日本 \u{0}'%_"), ["日本"]);
        assert_eq!(of(&"x".repeat(100)), ["x".repeat(MAX_WORD)]);
    }

    #[test]
    fn a_torrent_has_at_most_so_many_words() {
        let name: String = (0..9_000).map(|n| format!("{n} ")).collect();
        let path = name.replace(' ', ".x");
        let info = format!("d6:lengthi1e4:name{}:{path}e", path.len());
        assert_eq!(indexed("one two", info.as_bytes()).len(), MAX_INDEXED);
        assert_eq!(indexed("one two", b"d").len(), 2, "what cannot be read has no files");
    }
}
