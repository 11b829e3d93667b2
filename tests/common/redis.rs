//! A Redis server that the test starts for itself.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Command;

use super::{Folder, Process, free_port, installed, skip, wait_for};

fn program() -> String {
    std::env::var("GOAT_REDIS").unwrap_or("redis-server".into())
}

/// A Redis server on a port of 127.0.0.1 that keeps nothing on the disk.
pub struct Redis {
    process: Option<Process>,
    folder: Folder,
    pub port: u16,
    options: Vec<String>,
}

impl Redis {
    /// None if there is no Redis on this machine (a failure where nothing may be skipped). Options are those of the
    /// server. GOAT_REDIS names another one, such as valkey-server.
    pub fn start(test: &str, options: &[&str]) -> Option<Redis> {
        if !installed(&program()) {
            skip(test, "no redis-server");
            return None;
        }
        let mut server = Redis {
            process: None,
            folder: Folder::new(),
            port: free_port(),
            options: options.iter().map(|option| option.to_string()).collect(),
        };
        server.launch();
        Some(server)
    }

    /// Starts it (again), empty, on the same port.
    pub fn launch(&mut self) {
        let port = self.port.to_string();
        let mut command = Command::new(program());
        command.args(["--port", &port, "--bind", "127.0.0.1"]);
        command.args(["--save", "", "--appendonly", "no", "--dir"]);
        command.arg(self.folder.path()).args(&self.options);
        let log = self.folder.join("redis.log");
        let process = self.process.insert(Process::start("redis-server", &mut command, log));
        wait_for("redis-server", || {
            process.assert_running();
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.process.take().expect("redis runs").kill();
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("redis runs")
    }

    pub fn id(&self) -> u32 {
        self.process.as_ref().expect("redis runs").id()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends a command as it is, however long, and waits for the answer's first line.
    pub fn raw(&self, words: &[&[u8]]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(stream, "*{}\r\n", words.len()).unwrap();
        for word in words {
            write!(stream, "${}\r\n", word.len()).unwrap();
            stream.write_all(word).unwrap();
            stream.write_all(b"\r\n").unwrap();
        }
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    }

    /// What it answers a command.
    pub fn cli(&self, words: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string()]).args(words);
        String::from_utf8_lossy(&command.output().unwrap().stdout).trim().into()
    }
}
