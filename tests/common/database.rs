//! The databases that goat is tested on: SQLite, and a MariaDB server that the test starts for itself.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::{Folder, Process, free_port, installed, skip, wait_for, wait_until};

/// A database for one goat, empty at first. The same test runs on both kinds.
pub enum Database {
    Sqlite(Folder),
    MariaDb(MariaDb),
}

impl Database {
    pub fn sqlite() -> Database {
        Database::Sqlite(Folder::new())
    }

    /// None if there is no MariaDB on this machine (a failure where nothing may be skipped).
    pub fn mariadb(test: &str) -> Option<Database> {
        MariaDb::start(test).map(Database::MariaDb)
    }

    /// An empty database of each kind.
    pub fn each(test: &str) -> Vec<Database> {
        [Some(Database::sqlite()), Database::mariadb(test)].into_iter().flatten().collect()
    }

    /// The "DB" part of goat's configuration.
    pub fn config(&self) -> Value {
        match self {
            Database::Sqlite(folder) => {
                json!({ "Driver": "sqlite", "Path": folder.join("goat.db") })
            }
            Database::MariaDb(server) => server.config(),
        }
    }

    /// Makes SQLite's list of torrents one of 5 MB, before goat starts: more than the kernel takes for who does not read.
    pub fn add_long_list(&self) {
        self.sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)
             INSERT INTO files (info_hash, name, verified)
             SELECT printf('%040x', i), printf('%05000d', i), 1 FROM n;
             DELETE FROM changes",
        );
    }

    /// Runs SQL past goat, with the database's own shell. A row is a list of texts; write `hex(column)`
    /// to read bytes.
    pub fn sql(&self, sql: &str) -> Vec<Vec<String>> {
        match self {
            Database::Sqlite(folder) => table(
                Command::new("sqlite3")
                    .args(["-batch", "-noheader", "-separator", "\t", "-cmd", ".timeout 30000"])
                    .arg(folder.join("goat.db"))
                    .arg(sql),
            ),
            Database::MariaDb(server) => server.sql(sql),
        }
    }

    /// The only value that the SQL gives, as a number.
    pub fn number(&self, sql: &str) -> i64 {
        let rows = self.sql(sql);
        assert!(rows.len() == 1 && rows[0].len() == 1, "{sql} gave {rows:?}");
        rows[0][0].parse().unwrap_or_else(|_| panic!("{sql} gave {rows:?}"))
    }
}

/// A MariaDB server with a database "goat" and a user "goat" (password "goat"), on a socket and on a
/// port of 127.0.0.1. It has nothing to do with a server that the system runs.
pub struct MariaDb {
    process: Option<Process>,
    folder: Folder,
    port: u16,
    /// Options beside those of every server.
    more: Vec<String>,
}

/// Where Debian's galera-4 is.
const GALERA: &str = "/usr/lib/galera/libgalera_smm.so";

impl MariaDb {
    /// Two servers that are one Galera cluster, each of which may be written.
    pub fn cluster(test: &str) -> Option<[MariaDb; 2]> {
        if !Path::new(GALERA).exists() || !installed("rsync") || !installed("mariadbd") {
            skip(test, "no galera-4, rsync or mariadbd");
            return None;
        }
        let first = MariaDb::join(None);
        first.make_database();
        let second = MariaDb::join(Some(&first));
        Some([first, second])
    }

    /// A server that begins a cluster, or joins another's.
    fn join(other: Option<&MariaDb>) -> MariaDb {
        let cluster = other.map_or(String::new(), |other| format!("127.0.0.1:{}", other.port + 1));
        // Four ports in a row.
        (0..9).for_each(|_| {
            free_port();
        });
        let port = free_port() / 10 * 10;
        let provider = format!(
            "base_host=127.0.0.1;base_port={0};gmcast.listen_addr=tcp://127.0.0.1:{0};ist.recv_addr=127.0.0.1:{1}",
            port + 1,
            port + 2
        );
        let more = [
            "--user=mysql".into(), // as root rsync would become nobody
            "--binlog-format=ROW".into(),
            "--log-bin-trust-function-creators=1".into(),
            "--innodb-autoinc-lock-mode=2".into(),
            "--wsrep-on=ON".into(),
            format!("--wsrep-provider={GALERA}"),
            "--wsrep-cluster-name=goat".into(),
            format!("--wsrep-cluster-address=gcomm://{cluster}"),
            format!("--wsrep-node-address=127.0.0.1:{}", port + 1),
            format!("--wsrep-provider-options={provider}"),
            "--wsrep-sst-method=rsync".into(),
            format!("--wsrep-sst-receive-address=127.0.0.1:{}", port + 3),
        ];
        let mut server = MariaDb { process: None, folder: Folder::new(), port, more: more.to_vec() };
        server.copy_first_files();
        let mut chown = Command::new("chown");
        chown.args(["-R", "mysql"]).arg(server.folder.path());
        assert!(chown.status().unwrap().success(), "cannot give the files to mysql");
        server.launch();
        wait_until("the cluster", || {
            let ready = server.root("SHOW STATUS LIKE 'wsrep_ready'");
            ready.concat().last().is_some_and(|word| word == "ON")
        });
        server
    }

    pub fn start(test: &str) -> Option<MariaDb> {
        MariaDb::start_on(test, Folder::new())
    }

    /// The same with its files in a folder of the test's.
    pub fn start_on(test: &str, folder: Folder) -> Option<MariaDb> {
        if !installed("mariadbd") {
            skip(test, "no mariadbd");
            return None;
        }
        let mut server = MariaDb { process: None, folder, port: free_port(), more: Vec::new() };
        server.copy_first_files();
        server.launch();
        server.make_database();
        Some(server)
    }

    fn copy_first_files(&self) {
        let copy = Command::new("cp").arg("-r").args([first_files(), self.folder.join("data")]).status();
        assert!(copy.unwrap().success(), "cannot copy the first files of MariaDB");
    }

    fn make_database(&self) {
        self.run(
            "root",
            "CREATE DATABASE goat CHARACTER SET utf8mb4;
             CREATE USER goat@localhost IDENTIFIED BY 'goat';
             CREATE USER goat@'127.0.0.1' IDENTIFIED BY 'goat';
             GRANT ALL ON goat.* TO goat@localhost;
             GRANT ALL ON goat.* TO goat@'127.0.0.1';",
        );
    }

    /// Starts the server (again), on the same data, socket and port.
    pub fn launch(&mut self) {
        let socket = self.socket();
        let mut command = Command::new("mariadbd");
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .args(self.options())
            .args([
                format!("--socket={}", socket.display()),
                format!("--port={}", self.port),
                "--skip-networking=0".into(),
                "--bind-address=127.0.0.1".into(),
                "--skip-name-resolve".into(),
                "--innodb-buffer-pool-size=64M".into(),
                // What the server believes of its tables is what it knew when they were empty: no plan may hang on that.
                "--innodb-stats-auto-recalc=0".into(),
            ])
            .args(&self.more);
        let log = self.folder.join("mariadb.log");
        let process = self.process.insert(Process::start("mariadbd", &mut command, log));
        wait_for("mariadbd", || {
            process.assert_running();
            UnixStream::connect(&socket).ok()
        });
    }

    /// Ends the server in good order; `launch` starts it again.
    pub fn stop(&mut self) {
        self.process.take().expect("mariadbd runs").terminate();
    }

    /// Ends the server at once, as a loss of power would.
    pub fn kill(&mut self) {
        self.process.take().expect("mariadbd runs").kill();
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("mariadb.sock")
    }

    /// "127.0.0.1:PORT".
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The "DB" part of goat's configuration. The socket is used because it can be reached from every
    /// network namespace; put `address()` into "Host" to test TCP.
    pub fn config(&self) -> Value {
        json!({ "Driver": "mysql", "Host": self.socket(),
                "Database": "goat", "Username": "goat", "Password": "goat" })
    }

    pub fn sql(&self, sql: &str) -> Vec<Vec<String>> {
        self.run("goat", sql)
    }

    /// The same as an administrator.
    pub fn root(&self, sql: &str) -> Vec<Vec<String>> {
        self.run("root", sql)
    }

    fn run(&self, user: &str, sql: &str) -> Vec<Vec<String>> {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "--batch", "--skip-column-names", "--default-character-set=utf8mb4"]);
        command.arg("--socket").arg(self.socket()).arg(format!("--user={user}"));
        command.arg("--init-command=SET max_statement_time = 120"); // a test fails, and waits for nothing forever
        if user == "goat" {
            command.args(["--password=goat", "goat"]);
        }
        table(command.args(["--execute", sql]))
    }

    fn options(&self) -> Vec<String> {
        let mut options = options(&self.folder.join("data"), self.folder.path());
        if self.more.iter().any(|option| option.starts_with("--user=")) {
            options.retain(|option| !option.starts_with("--user="));
        }
        options
    }
}

fn options(data: &Path, temporary: &Path) -> Vec<String> {
    let mut options = vec![
        "--no-defaults".into(),
        format!("--datadir={}", data.display()),
        // At its start a server removes the temporary files that it finds there.
        format!("--tmpdir={}", temporary.display()),
        "--innodb-log-file-size=10M".into(),
    ];
    if unsafe { libc::geteuid() } == 0 {
        options.push("--user=root".into()); // it refuses to be root unless told
    }
    options
}

/// The files of a server that was never started. To make them takes seconds, so they are kept for all
/// tests, and copied.
fn first_files() -> PathBuf {
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut version = Command::new("mariadbd");
    let version = version.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").arg("--version").output();
    let version = String::from_utf8(version.unwrap().stdout).unwrap();
    let version: String = version.chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(version);
    if !kept.exists() {
        let new = kept.with_extension(std::process::id().to_string());
        let output = Command::new("mariadb-install-db")
            .args(options(&new, Folder::new().path()))
            .args(["--auth-root-authentication-method=normal", "--skip-test-db"])
            .output()
            .unwrap();
        assert!(output.status.success(), "mariadb-install-db: {output:?}");
        if std::fs::rename(&new, &kept).is_err() {
            // Another process was faster.
            std::fs::remove_dir_all(&new).unwrap();
        }
    }
    kept
}

/// Runs a shell that prints one row a line and a tab between two values.
fn table(command: &mut Command) -> Vec<Vec<String>> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.split('\t').map(String::from).collect()).collect()
}

/// Somebody else who has changed something and does not commit it, and may keep everybody waiting.
pub struct Lock {
    shell: Child,
}

impl Lock {
    /// Of the users.
    pub fn new(database: &Database) -> Lock {
        Lock::after(database, "UPDATE users SET banned = 0")
    }

    /// After a statement.
    pub fn after(database: &Database, sql: &str) -> Lock {
        let mut shell;
        match database {
            Database::Sqlite(folder) => {
                shell = Command::new("sqlite3");
                shell.arg("-batch").args(["-cmd", ".timeout 30000"]);
                shell.arg(folder.join("goat.db"));
            }
            Database::MariaDb(server) => {
                shell = Command::new("mariadb");
                shell.args(["--no-defaults", "--batch", "--skip-column-names", "--unbuffered"]);
                shell.arg("--socket").arg(server.socket());
                shell.args(["--user=goat", "--password=goat", "goat"]);
            }
        }
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let sql = format!("BEGIN; {sql}; SELECT 'locked';\n");
        let stdin = shell.stdin.as_mut().unwrap();
        stdin.write_all(sql.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "locked\n");
        Lock { shell }
    }

    pub fn release(self) {
        self.end("ROLLBACK;\n");
    }

    pub fn commit(self) {
        self.end("COMMIT;\n");
    }

    fn end(mut self, sql: &str) {
        let mut stdin = self.shell.stdin.take().unwrap();
        stdin.write_all(sql.as_bytes()).unwrap();
        drop(stdin);
        assert!(self.shell.wait().unwrap().success());
    }
}
