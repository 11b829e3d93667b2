//! Makes the tables.

use super::row::rows;
use super::sql::{Connection, Error};
use crate::config::{Config, Driver};

/// The version of the tables in `res/`.
pub(super) const SCHEMA: i64 = 1;

pub(super) fn make_tables(c: &mut dyn Connection, config: &Config) -> Result<(), Error> {
    if config.db.driver == Driver::Sqlite {
        return make(c);
    }
    // MySQL makes tables one by one: another goat must not find half of them.
    const NAME: &str = "LEFT(CONCAT('goat ', DATABASE()), 64)";
    c.query(&format!("SELECT GET_LOCK({NAME}, 20)"), &[], &mut |_| ())?;
    let made = make(c);
    let released = c.query(&format!("SELECT RELEASE_LOCK({NAME})"), &[], &mut |_| ());
    made.and(released)
}

fn make(c: &mut dyn Connection) -> Result<(), Error> {
    // A database that this goat does not understand is left as it is.
    if c.tables()?.iter().any(|table| table == "goat") {
        version(c)?;
    }
    c.create_schema()
}

/// The version of the tables in a database, which this goat knows.
pub(super) fn version(c: &mut dyn Connection) -> Result<i64, Error> {
    match rows(c, "SELECT value FROM goat WHERE name = 'schema'", &[])?.pop() {
        Some(SCHEMA) => Ok(SCHEMA),
        Some(other) => Err(Error::other(format!(
            "the tables of the database have version {other}, this goat knows version {SCHEMA}: use the goat that made them, or a newer one"
        ))),
        None => Err(Error::other("the table `goat` has no row `schema`: restore it from res/, or from a backup")),
    }
}
