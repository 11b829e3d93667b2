//! The real binary, run as an operator runs it.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use serde_json::{Value, json};

use super::{Database, Folder, Process, free_port, wait_until};

/// A goat with a folder, a configuration and a port of its own. It is killed when it goes out of scope.
pub struct Goat {
    process: Option<Process>,
    pub folder: Folder,
    pub port: u16,
    config: Value,
    /// Set for all that is run from now on.
    pub environment: Vec<(String, String)>,
    /// Who runs all that is run from now on, if not the user who runs the test, who must be root.
    pub user: Option<u32>,
}

/// A member, as `goat user add` reports it.
#[derive(Clone, Debug)]
pub struct User {
    pub id: i64,
    pub name: String,
    pub passkey: String,
    pub api_key: String,
}

impl Goat {
    /// Starts goat on a database. The keys of `overrides` replace those of the configuration below;
    /// null removes one.
    pub fn start(database: &Database, overrides: Value) -> Goat {
        let mut goat = Goat::configure(database, overrides);
        goat.launch();
        goat
    }

    /// A goat whose first start made its database, where there is one: `cli` works, `launch` starts the tracker.
    pub fn prepare(database: &Database, overrides: Value) -> Goat {
        let goat = Goat::configure(database, overrides);
        goat.make_database();
        goat
    }

    /// Makes the tables, as the first start does, if there is a database to make them in.
    pub fn make_database(&self) {
        let text = json!({ "HTTPS": false, "DB": self.config["DB"] }).to_string();
        if let Ok(config) = goat::config::parse(&self.config_path(), &text) {
            let _ = goat::store::Store::open(&config);
        }
    }

    /// Only writes the configuration: the first `launch` makes the database.
    pub fn configure(database: &Database, overrides: Value) -> Goat {
        let port = free_port();
        let mut config = json!({
            "Host": "127.0.0.1", "Port": port,
            "Passkey": true, "Whitelist": true, "Verified": true, "Interval": 3600,
            "HTTP": true, "HTTPS": false, "API": false, "UDP": false, "Redis": false,
            "DB": database.config(),
        });
        let keys = config.as_object_mut().unwrap();
        for (key, value) in overrides.as_object().expect("overrides are an object") {
            if value.is_null() {
                keys.remove(key);
            } else {
                keys.insert(key.clone(), value.clone());
            }
        }
        let folder = Folder::new();
        std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
        Goat { process: None, folder, port, config, environment: Vec::new(), user: None }
    }

    /// Starts the tracker and waits until it listens.
    pub fn launch(&mut self) {
        let log = self.folder.join("goat.log");
        let _ = File::create(&log); // an empty log: it speaks of this run alone
        let mut command = self.command(&["run"]);
        let mut process = Process::start("goat", &mut command, log);
        let on = |key: &str| self.config[key] == true;
        wait_until("goat to listen", || {
            process.assert_running();
            // The ports are taken long before anybody is answered.
            let listens = |what: &str| process.output().contains(&format!("listening for {what} on"));
            ["HTTP", "HTTPS", "UDP"].iter().all(|what| !on(what) || listens(what))
        });
        self.process = Some(process);
    }

    /// Ends it as an operator would, by SIGTERM.
    pub fn stop(&mut self) -> ExitStatus {
        self.process.take().expect("goat runs").terminate()
    }

    /// Ends it at once, by SIGKILL.
    pub fn kill(&mut self) {
        self.process.take().expect("goat runs").kill();
    }

    /// Stops it in good order and starts it again.
    pub fn restart(&mut self) {
        let status = self.stop();
        assert!(status.success(), "goat ended with {status}:\n{}", self.log());
        self.launch();
    }

    /// Starts the tracker and waits for nothing; its log goes on.
    pub fn spawn(&mut self) {
        let log = self.folder.join("goat.log");
        self.process = Some(Process::start("goat", &mut self.command(&["run"]), log));
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("goat runs")
    }

    /// Where it listens for HTTP (and UDP).
    pub fn address(&self) -> SocketAddr {
        self.address_of(self.port)
    }

    /// Where it listens for HTTPS.
    pub fn tls_address(&self) -> SocketAddr {
        self.address_of(self.config["SSL"]["Port"].as_u64().expect("SSL has a Port") as u16)
    }

    fn address_of(&self, port: u16) -> SocketAddr {
        let host = self.config["Host"].as_str().unwrap_or_default();
        let host: IpAddr = host.parse().unwrap_or(Ipv4Addr::LOCALHOST.into());
        SocketAddr::from((host, port))
    }

    /// What the current (or else the last) run wrote to stderr.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("goat.log")).unwrap_or_default()
    }

    pub fn config_path(&self) -> PathBuf {
        self.folder.join("config.json")
    }

    /// The folder of its journal: beside the database (SQLite) or the configuration (MariaDB).
    pub fn journal(&self) -> PathBuf {
        match self.config["DB"]["Path"].as_str() {
            Some(path) => Path::new(path).with_extension("journal"),
            None => self.folder.join("config.journal"),
        }
    }

    /// The files in that folder which hold what was answered, in order.
    pub fn segments(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.journal()).into_iter().flatten();
        let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|end| end == "log"));
        files.sort();
        files
    }

    /// Runs a subcommand on the same configuration: its status, stdout and stderr.
    pub fn cli(&self, arguments: &[&str]) -> (ExitStatus, String, String) {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status, text(output.stdout), text(output.stderr))
    }

    /// Runs a subcommand that must succeed, with --json, and gives what it printed.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let (status, stdout, stderr) = self.cli(&[arguments, &["--json"]].concat());
        assert!(status.success(), "goat {arguments:?}: {status}\n{stdout}{stderr}");
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("goat {arguments:?}: {error}\n{stdout}"))
    }

    pub fn add_user(&self, name: &str) -> User {
        let user = self.json(&["user", "add", name]);
        let text = |key: &str| user[key].as_str().unwrap_or_else(|| panic!("no {key} in {user}")).to_string();
        let id = user["id"].as_i64().unwrap_or_else(|| panic!("no id in {user}"));
        User { id, name: text("name"), passkey: text("passkey"), api_key: text("apiKey") }
    }

    /// Registers a .torrent file or an info_hash; gives the id of the torrent.
    pub fn add_torrent(&self, torrent: impl AsRef<Path>) -> i64 {
        let file = self.json(&["file", "add", torrent.as_ref().to_str().unwrap()]);
        file["id"].as_i64().unwrap_or_else(|| panic!("no id in {file}"))
    }

    /// A subcommand on the same configuration, ready to be started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut program = PathBuf::from(env!("CARGO_BIN_EXE_goat"));
        if self.user.is_some() {
            // Where others may be.
            let copy = self.folder.join("goat");
            if !copy.exists() {
                // By another process: a file that this one writes is busy while any of its children has it open.
                let copied = Command::new("cp").arg(&program).arg(&copy).status();
                assert!(copied.unwrap().success(), "cp");
            }
            program = copy;
        }
        let mut command = Command::new(program);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.args(arguments).arg("--config").arg(self.config_path());
        // Tests may want an Interval that is too short for the world.
        command.env("GOAT_TEST_INTERVAL", "1");
        // Nothing of the user who runs the tests is read or written.
        command.env("HOME", self.folder.path()).env_remove("XDG_CONFIG_HOME").envs(self.environment.iter().cloned());
        command
    }
}
