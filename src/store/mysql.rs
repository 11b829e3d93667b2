//! MySQL and MariaDB.

use std::error::Error as _;
use std::io::ErrorKind;
use std::net::ToSocketAddrs;
use std::time::Duration;

use mysql::consts::CapabilityFlags;
use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder, Params};

use super::sql::{Connection, Error, Kind, Value};
use crate::config::Db;

pub struct Mysql(Conn);

/// How long a server may take to accept a connection and to answer a statement, while members wait for answers and else.
const TIMEOUT_SERVING: Duration = Duration::from_secs(4);
const TIMEOUT: Duration = Duration::from_secs(60);

/// Errors of the server: a trigger exists already; a trigger may not be created because of the binary log.
const TRIGGER_EXISTS: u16 = 1359;
const BINARY_LOG: u16 = 1419;

impl From<mysql::Error> for Error {
    fn from(error: mysql::Error) -> Error {
        let kind = match &error {
            mysql::Error::MySqlError(e) => match (e.code, e.state.as_str()) {
                (1062, _) => Kind::Exists,
                // A lock was not to be had in time.
                (1205, _) => Kind::Busy,
                // Two transactions were in each other's way, on one server or on two of a Galera cluster.
                (1213, _) | (_, "40001") => Kind::Conflict,
                // The server is going away, or is not yet part of its cluster.
                (1047 | 1053 | 1077 | 1927 | 4031, _) => Kind::Lost,
                _ => Kind::Other,
            },
            mysql::Error::IoError(e) if is_silence(e) => Kind::Silent,
            mysql::Error::CodecError(e) if e.source().is_some_and(is_silence) => Kind::Silent,
            _ => Kind::Lost,
        };
        // Its words stand within the name of a Rust type and braces.
        let text = error.to_string();
        let words = text.split_once(" { ").and_then(|(_, words)| words.strip_suffix(" }"));
        Error { kind, message: words.unwrap_or(&text).into() }
    }
}

/// Whether an error is that nothing came in time.
fn is_silence(e: &(dyn std::error::Error + 'static)) -> bool {
    e.downcast_ref::<std::io::Error>().is_some_and(|e| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

impl Mysql {
    /// Connects, and sets what goat relies on: strict mode, utf8mb4, reads that see what is committed.
    pub fn open(db: &Db, serving: bool) -> Result<Mysql, Error> {
        let (timeout, lock) = if serving { (TIMEOUT_SERVING, 1) } else { (TIMEOUT, 10) };
        let options = OptsBuilder::new()
            .user(Some(db.username.as_str()))
            .pass(Some(db.password.as_str()))
            .db_name(Some(db.database.as_str()))
            .tcp_connect_timeout(Some(TIMEOUT_SERVING))
            .read_timeout(Some(timeout))
            .write_timeout(Some(timeout))
            .tcp_nodelay(true)
            .prefer_socket(false)
            // An update to the same value counts as a changed row, as in SQLite.
            .additional_capabilities(CapabilityFlags::CLIENT_FOUND_ROWS)
            .stmt_cache_size(64)
            .init(vec![
                "SET NAMES utf8mb4".to_string(),
                "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', autocommit = 1".into(),
                "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED".into(),
                // Seconds to wait for somebody else's row or table lock, each of `TRIES` times.
                format!("SET SESSION innodb_lock_wait_timeout = {lock}, lock_wait_timeout = {lock}"),
            ]);
        let failed = |e: mysql::Error| {
            let code = if let mysql::Error::MySqlError(e) = &e { e.code } else { 0 };
            let e = Error::from(e);
            let advice = match code {
                // A wrong user or password; a user who may not use that database; no such database.
                1045 => ": check DB.Username and DB.Password, or have an administrator CREATE USER",
                1044 => ": have an administrator GRANT the user the rights in docs/database.md",
                1049 => ": have an administrator CREATE DATABASE with CHARACTER SET utf8mb4",
                _ => "",
            };
            let message = format!("cannot connect to {} as {}: {}{advice}", db.host, db.username, e.message);
            Error { message, ..e }
        };
        if db.host.starts_with('/') {
            return Ok(Mysql(Conn::new(options.socket(Some(db.host.as_str()))).map_err(failed)?));
        }
        // A name may stand for several addresses, on only one of which the server listens.
        let (host, port) = db.host_and_port();
        let found = (host, port).to_socket_addrs().map_err(|e| failed(e.into()))?;
        let mut result = Err(Error::other(format!("cannot find {}", db.host)));
        for address in found {
            let options = options.clone().ip_or_hostname(Some(address.ip().to_string())).tcp_port(port);
            result = Conn::new(options).map(Mysql).map_err(failed);
            if !matches!(&result, Err(e) if e.kind == Kind::Lost) {
                break;
            }
        }
        result
    }
}

fn params(values: &[Value]) -> Params {
    let own = |value: &Value| match *value {
        Value::Null => mysql::Value::NULL,
        Value::Int(n) => mysql::Value::Int(n),
        Value::Text(text) => mysql::Value::Bytes(text.into()),
        Value::Blob(bytes) => mysql::Value::Bytes(bytes.into()),
    };
    if values.is_empty() { Params::Empty } else { Params::Positional(values.iter().map(own).collect()) }
}

impl Connection for Mysql {
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, Error> {
        match params(values) {
            Params::Empty => self.0.query_drop(sql)?,
            params => self.0.exec_drop(sql, params)?,
        }
        Ok(self.0.affected_rows())
    }

    fn query(&mut self, sql: &str, values: &[Value], row: &mut dyn FnMut(&[Value])) -> Result<(), Error> {
        // Always prepared: then numbers come as numbers.
        let mut rows = self.0.exec_iter(sql, params(values))?;
        for found in rows.by_ref() {
            let found = found?.unwrap_raw();
            let values: Vec<Value> = found.iter().map(|value| value.as_ref().map_or(Value::Null, borrow)).collect();
            row(&values);
        }
        Ok(())
    }

    fn create_schema(&mut self) -> Result<(), Error> {
        let present = self.tables()?;
        for sql in statements(include_str!("../../res/mysql/schema.sql"), ";\n") {
            // To replace a view takes a right that goat does not need.
            let view = sql.split_once(" VIEW ").and_then(|(_, rest)| rest.split(' ').next());
            if view.is_none_or(|view| !present.iter().any(|name| name == view)) {
                self.0.query_drop(sql)?;
            }
        }
        let clients: Option<i64> = self.0.query_first("SELECT COUNT(*) FROM whitelist")?;
        if clients == Some(0) {
            for sql in statements(include_str!("../../res/mysql/clients.sql"), ";\n") {
                self.0.query_drop(sql)?;
            }
        }
        self.create_triggers()
    }

    fn tables(&mut self) -> Result<Vec<String>, Error> {
        let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE()";
        let triggers = "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = DATABASE()";
        Ok(self.0.query(format!("{tables} UNION ALL {triggers}"))?)
    }

    fn last_id(&mut self) -> u32 {
        u32::try_from(self.0.last_insert_id()).unwrap_or_default()
    }
}

impl Mysql {
    /// Makes the triggers that are missing, and anew those of another user: where that user is gone, every change
    /// of the table would fail.
    fn create_triggers(&mut self) -> Result<(), Error> {
        let sql =
            "SELECT trigger_name, definer = CURRENT_USER() OR @@log_bin = 1 AND @@log_bin_trust_function_creators = 0
            FROM information_schema.triggers WHERE trigger_schema = DATABASE()";
        // Where the server writes a binary log, only its administrator may make them.
        let triggers: Vec<(String, bool)> = self.0.query(sql)?;
        for sql in statements(include_str!("../../res/mysql/triggers.sql"), "//\n") {
            let name =
                sql.split_once("CREATE TRIGGER ").and_then(|(_, rest)| rest.split(' ').next()).unwrap_or_default();
            match triggers.iter().find(|(trigger, _)| trigger == name) {
                Some((_, true)) => continue,
                Some(_) => self.0.query_drop(format!("DROP TRIGGER IF EXISTS {name}"))?,
                None => {}
            }
            match self.0.query_drop(sql) {
                Err(mysql::Error::MySqlError(e)) if e.code == TRIGGER_EXISTS => {}
                Err(mysql::Error::MySqlError(e)) if e.code == BINARY_LOG => {
                    return Err(Error::other(format!(
                        "{}: have an administrator import res/mysql/triggers.sql, or set log_bin_trust_function_creators = 1",
                        e.message
                    )));
                }
                done => done?,
            }
        }
        Ok(())
    }
}

/// The statements of one of our files, each of which has `end` behind it; what is for the shell alone is left out.
fn statements<'a>(file: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    let words = |sql: &&str| sql.lines().any(|line| !line.trim().is_empty() && !line.starts_with("--"));
    let file = file.split_once("DELIMITER //\n").map_or(file, |(_, file)| file);
    file.split(end).filter(words).filter(|sql| !sql.starts_with("DELIMITER"))
}

fn borrow(value: &mysql::Value) -> Value<'_> {
    match value {
        mysql::Value::Int(n) => Value::Int(*n),
        mysql::Value::UInt(n) => Value::Int(i64::try_from(*n).unwrap_or(i64::MAX)),
        mysql::Value::Bytes(bytes) => std::str::from_utf8(bytes).map_or(Value::Blob(bytes), Value::Text),
        _ => Value::Null,
    }
}
