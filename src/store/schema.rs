//! Makes the tables, and upgrades older ones.

use super::sql::{Connection, Error, Value};
use crate::config::{Config, Driver};
use crate::log::log;

/// The version of the tables in `res/`.
pub(super) const SCHEMA: i64 = 2;

/// Makes what is missing, and upgrades what is older.
pub(super) fn make_tables(c: &mut dyn Connection, config: &Config) -> Result<(), Error> {
    if config.db.driver == Driver::Sqlite {
        return make(c, config);
    }
    // MySQL makes tables one by one: another goat must not find half of them.
    const NAME: &str = "LEFT(CONCAT('goat ', DATABASE()), 64)";
    c.query(&format!("SELECT GET_LOCK({NAME}, 20)"), &[], &mut |_| ())?;
    let made = make(c, config);
    let released = c.query(&format!("SELECT RELEASE_LOCK({NAME})"), &[], &mut |_| ());
    made.and(released)
}

fn make(c: &mut dyn Connection, config: &Config) -> Result<(), Error> {
    // A database that this goat does not understand is left as it is.
    if c.tables()?.iter().any(|table| table == "goat") {
        let mut version = version(c)?;
        while version < SCHEMA {
            version += 1;
            c.upgrade(version)?;
            log(format!("{}: upgraded its tables to version {version}", config.database_name()));
        }
    }
    c.create_schema()
}

/// The version of the tables in a database, which this goat knows.
pub(super) fn version(c: &mut dyn Connection) -> Result<i64, Error> {
    let mut version = None;
    c.query("SELECT value FROM goat WHERE name = 'schema'", &[], &mut |row| version = row.first().map(Value::int))?;
    match version {
        Some(known @ 1..=SCHEMA) => Ok(known),
        Some(other) => Err(Error::other(format!(
            "the database has tables of version {other}, this goat knows up to {SCHEMA}: use the goat that made them, or a newer one"
        ))),
        None => Err(Error::other("the table `goat` has no row `schema`: restore it from res/, or from a backup")),
    }
}
