//! What is wrong with the tables of a database, and how to mend it.

use super::history::HISTORY;
use super::pool::Store;
use super::row::rows;
use super::schema::version;
use super::sessions::{SESSION_COLUMNS, TOTALS};
use super::sql::{Connection, Error};
use super::torrents::FILE_COLUMNS;
use super::users::USER_COLUMNS;
use crate::config::{Config, Driver};

/// The tables, and the columns of them that goat cannot do without.
const TABLES: [(&str, &str); 20] = [
    ("goat", "name, value"),
    ("users", USER_COLUMNS),
    ("api_keys", "id, user_id, key_hash"),
    ("api_logins", "pubkey, user_id, key_hash, use_time, calls"),
    ("api_nonces", "pubkey, nonce"),
    ("invitations", "code_hash, by_id, user_id, expire"),
    ("passwords", "user_id, hash, salt, rounds"),
    ("files", FILE_COLUMNS),
    ("sessions", SESSION_COLUMNS),
    ("totals", TOTALS),
    (
        "files_users",
        "file_id, user_id, ip, active, completed, announced, uploaded, downloaded, `left`, time, seed_time",
    ),
    ("peers", "file_id, user_id, peer_id, ipv4, port4, time4, ipv6, port6, time6, active, paused, `left`, time"),
    ("minutes", HISTORY),
    ("hours", HISTORY),
    ("whitelist", "id, client, approved, suggested, suggested_by"),
    ("changes", "id, what, which, batch"),
    ("torrents", "file_id, user_id, files, layers, info"),
    ("words", "word, file_id"),
    ("unindexed", "file_id"),
    ("actions", "id, time, who, what, whom, detail"),
];
/// What goat does to a MySQL database.
const PRIVILEGES: [&str; 7] = ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "CREATE VIEW", "TRIGGER"];

impl Store {
    /// Connects, and says what is wrong; changes nothing. A database that is empty is good: goat makes its tables at
    /// its start.
    pub(crate) fn check(config: &Config) -> Result<Vec<String>, Error> {
        let store = Store::unopened(config);
        store.with(|c| {
            let mut wrong = Vec::new();
            match config.db.driver {
                Driver::Mysql => check_server(c, config, &mut wrong)?,
                Driver::Sqlite => {
                    let found = rows::<String>(c, "PRAGMA quick_check(1)", &[])?.concat();
                    if found != "ok" {
                        wrong.push(format!("the file is damaged: {found}. Restore a backup"));
                    }
                }
            }
            check_tables(c, config.db.driver, &mut wrong)?;
            if wrong.is_empty() && c.tables()?.iter().any(|table| table == "goat") {
                try_a_write(&store, c).unwrap_or_else(|e| wrong.push(format!("cannot be written: {e}")));
            }
            Ok(wrong)
        })
    }
}

/// Writes something, and takes it back.
fn try_a_write(store: &Store, c: &mut dyn Connection) -> Result<(), Error> {
    c.execute(store.dialect.begin(), &[])?;
    // Also what triggers may do is tried.
    let hash = crate::random::secret::<20>().map_err(Error::other)?;
    let sql = "INSERT INTO files (info_hash, name) VALUES (?, 'goat check')";
    let tried = c.execute(sql, &[hash.as_str().into()]);
    c.execute("ROLLBACK", &[])?;
    tried.map(drop)
}

fn check_tables(c: &mut dyn Connection, driver: Driver, wrong: &mut Vec<String>) -> Result<(), Error> {
    let present = c.tables()?;
    if !present.iter().any(|table| table == "goat") {
        return Ok(());
    }
    let folder = if driver == Driver::Sqlite { "sqlite" } else { "mysql" };
    if let Err(e) = version(c) {
        wrong.push(e.message);
        return Ok(());
    }
    let missing = |names: &mut dyn Iterator<Item = &'static str>| {
        names.filter(|name| !present.iter().any(|found| found == name)).collect::<Vec<_>>()
    };
    let tables = missing(&mut TABLES.iter().map(|(table, _)| *table));
    if !tables.is_empty() {
        wrong.push(format!(
            "missing tables: {}. Restore them from a backup; goat's next start, or res/{folder}/schema.sql, creates them empty",
            tables.join(", ")
        ));
    }
    for (table, columns) in TABLES.iter().filter(|(table, _)| !tables.contains(table)) {
        if let Err(e) = c.query(&format!("SELECT {columns} FROM {table} WHERE 1 = 0"), &[], &mut |_| ()) {
            wrong.push(format!("the table {table} was changed: {e}. res/{folder}/schema.sql shows how it must be"));
        }
    }
    // Those that both databases have.
    let triggers = include_str!("../../res/mysql/triggers.sql").split("CREATE TRIGGER ").skip(1);
    let triggers = missing(&mut triggers.filter_map(|rest| rest.split(' ').next()));
    if !triggers.is_empty() {
        wrong.push(format!(
            "missing triggers: {}. Without them goat does not notice changes made by others; its next start creates them",
            triggers.join(", ")
        ));
    }
    Ok(())
}

fn check_server(c: &mut dyn Connection, config: &Config, wrong: &mut Vec<String>) -> Result<(), Error> {
    let (db, user) = (&config.db.database, &config.db.username);
    let version = rows::<String>(c, "SELECT VERSION()", &[])?.concat();
    let (name, least) = if version.contains("MariaDB") { ("MariaDB", "10.5") } else { ("MySQL", "8.0.16") };
    let numbers = |version: &str| -> Vec<u32> {
        version.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok()).collect()
    };
    if numbers(&version) < numbers(least) {
        wrong.push(format!("the server is {name} {version}: goat needs {least} or newer"));
    }
    let mut missing = PRIVILEGES.to_vec();
    for grant in rows::<String>(c, "SHOW GRANTS FOR CURRENT_USER()", &[])? {
        // GRANT SELECT, INSERT ON `goat`.* TO ...; in the name of a database _ and % may be wildcards.
        let Some((privileges, rest)) = grant.strip_prefix("GRANT ").and_then(|rest| rest.split_once(" ON ")) else {
            continue;
        };
        let on = rest.split(" TO ").next().unwrap_or_default().replace(['`', '\\'], "");
        let covers = on.strip_suffix(".*").is_some_and(|on| on == "*" || on == db || on.contains(['%', '_']));
        if covers {
            let all = privileges.starts_with("ALL PRIVILEGES");
            missing.retain(|wanted| !all && !privileges.split(", ").any(|privilege| privilege == *wanted));
        }
    }
    if !missing.is_empty() {
        let list = missing.join(", ");
        wrong.push(format!("the user {user} may not {list}: as an administrator, GRANT {list} ON {db}.* TO the user"));
    }
    let sql = "SELECT default_character_set_name FROM information_schema.schemata WHERE schema_name = DATABASE()";
    let charset = rows::<String>(c, sql, &[])?.concat();
    if charset != "utf8mb4" {
        wrong.push(format!("the database's character set is {charset}: ALTER DATABASE {db} CHARACTER SET utf8mb4"));
    }
    let sql = "SELECT table_name FROM information_schema.tables
               WHERE table_schema = DATABASE() AND table_collation NOT LIKE 'utf8mb4%' ORDER BY table_name";
    for table in rows::<String>(c, sql, &[])? {
        wrong.push(format!(
            "the character set of the table {table} is not utf8mb4: ALTER TABLE {table} DEFAULT CHARACTER SET utf8mb4"
        ));
    }
    Ok(())
}
