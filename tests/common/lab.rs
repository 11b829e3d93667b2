//! Hosts of their own for programs that must not share an address.

use std::cell::Cell;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::skip;

/// A network that exists for one test: a hub, in which the test itself and goat run, and hosts around
/// it. Each is a network namespace with an address in 10.66.0.0/24; no packet can leave them.
pub struct Lab {
    hub: Namespace,
    hosts: Cell<u8>,
}

/// A host of a lab.
pub struct Host {
    namespace: Namespace,
    pub address: Ipv4Addr,
    pub ipv6: Option<Ipv6Addr>,
    names: Option<PathBuf>,
}

impl Lab {
    /// The address of the hub.
    pub const HUB: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 66, 0, 1));

    /// Makes a lab, runs the test inside its hub, and removes the lab, whatever comes of the test.
    pub fn run(test: &str, body: impl FnOnce(&Lab) + Send) {
        if unsafe { libc::geteuid() } != 0 {
            return skip(test, "network namespaces need root");
        }
        let hub = Namespace::new("hub");
        // Unless it is given an address, a bridge takes one of its ports', and another when that goes.
        hub.ip("link add br0 address 02:00:00:00:00:01 type bridge");
        hub.ip("addr add 10.66.0.1/24 dev br0");
        hub.ip("link set br0 up");
        let lab = Lab { hub, hosts: Cell::new(0) };
        // A namespace is entered by one thread, and inherited by the programs that it starts.
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name(test.into());
            let inside = thread.spawn_scoped(scope, move || {
                lab.hub.enter();
                body(&lab);
            });
            let inside = inside.unwrap();
            if let Err(panic) = inside.join() {
                std::panic::resume_unwind(panic);
            }
        });
    }

    /// Gives the hub another address; `arguments` are those of `ip addr add`.
    pub fn add_address(&self, arguments: &str) {
        self.hub.ip(&format!("addr add {arguments} dev br0"));
    }

    /// Gives the hub an IPv6 address.
    pub fn add_ipv6(&self) -> IpAddr {
        self.add_address("fd00::1/64 nodad");
        "fd00::1".parse().unwrap()
    }

    /// Adds a host.
    pub fn host(&self) -> Host {
        let number = self.hosts.get() + 1;
        self.hosts.set(number);
        let address = Ipv4Addr::new(10, 66, 0, 1 + number);
        let namespace = Namespace::new(&number.to_string());
        self.hub.ip(&format!("link add host{number} type veth peer name eth0 netns {}", namespace.0));
        self.hub.ip(&format!("link set host{number} master br0 up"));
        namespace.ip(&format!("addr add {address}/24 dev eth0"));
        namespace.ip("link set eth0 up");
        Host { namespace, address, ipv6: None, names: None }
    }
}

impl Host {
    /// A command that runs on this host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace.0]);
        if let Some(names) = &self.names {
            // The namespace's programs have mounts of their own.
            let script = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
            command.args(["sh", "-c", script]).arg(names);
        }
        command.arg(program);
        command
    }

    /// Gives it an IPv6 address.
    pub fn add_ipv6(&mut self) -> Ipv6Addr {
        let address = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, self.address.octets()[3].into());
        let arguments = format!("addr add {address}/64 dev eth0 nodad");
        self.namespace.ip(&arguments);
        self.ipv6 = Some(address);
        address
    }

    /// Takes its IPv4 address away.
    pub fn drop_ipv4(&self) {
        self.namespace.ip("-4 addr flush dev eth0");
    }

    /// Has its programs read this file in the place of /etc/hosts.
    pub fn knows(&mut self, names: &Path) {
        self.names = Some(names.into());
    }
}

/// A network namespace under a name that nobody else uses, removed when it goes out of scope.
struct Namespace(String);

impl Namespace {
    fn new(name: &str) -> Namespace {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let namespace = Namespace(format!("goat-{}-{number}-{name}", std::process::id()));
        ip(&["netns", "add", &namespace.0]);
        namespace.ip("link set lo up");
        namespace
    }

    /// Runs `ip` for this namespace.
    fn ip(&self, arguments: &str) {
        let mut all = vec!["-n", &self.0];
        all.extend(arguments.split(' '));
        ip(&all);
    }

    /// Moves the calling thread into this namespace.
    fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
        assert_eq!(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip (iproute2) is installed");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}
