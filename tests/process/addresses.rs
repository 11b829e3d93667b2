//! Which addresses goat listens on: every one of both families, whatever the system's settings, and what it says where
//! it cannot have them.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;

use crate::common::{Announce, Database, Goat, Lab, Process, hex, http_get, info_hash, wait_until};
use serde_json::json;

const HOMES: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

#[test]
fn every_address_of_both_families_is_served_whatever_bindv6only_says() {
    let test = "every_address_of_both_families_is_served_whatever_bindv6only_says";
    Lab::run(test, |_| {
        for only in ["0", "1"] {
            bind_ipv6_only(only);
            for host in ["", "::"] {
                let database = Database::sqlite();
                let settings = json!({ "Host": host, "UDP": true });
                let goat = Goat::start(&database, settings);
                let passkey = goat.add_user("anna").passkey;
                goat.add_torrent(hex(&info_hash(1)));
                for home in HOMES {
                    let at = SocketAddr::new(home, goat.port);
                    let target = Announce::new(&passkey, info_hash(1), 1).target();
                    let (status, _, body) = http_get(at, &target, &[("User-Agent", crate::common::AGENT)]);
                    let answer = crate::common::Bencode::parse(&body);
                    assert_eq!(status, 200);
                    assert!(answer.get("peers").is_some(), "{only} {host:?} {answer:?}");
                    assert!(answers_udp(at), "{only} {host:?} {at}");
                }
                for what in ["HTTP", "UDP"] {
                    let port = goat.port;
                    let said = format!("for {what} on [::]:{port}: every IPv4 and IPv6 address");
                    assert!(goat.log().contains(&said), "{}", goat.log());
                }
                let (status, stdout, _) = goat.cli(&["check"]);
                assert!(status.success(), "{stdout}");
                let seen = stdout.matches("good: goat listens (process").count();
                assert_eq!(seen, 2, "{stdout}");
            }
        }
    });
}

#[test]
fn check_sees_a_running_goat_that_hides_its_files_because_it_may_have_low_ports() {
    const NOBODY: u32 = 65_534;
    let test = "check_sees_a_running_goat_that_hides_its_files_because_it_may_have_low_ports";
    Lab::run(test, |_| {
        let database = Database::sqlite();
        let Database::Sqlite(folder) = &database else { unreachable!() };
        let settings = json!({ "Host": "", "Port": 80, "UDP": true });
        let mut goat = Goat::configure(&database, settings);
        for path in [folder.path(), goat.folder.path(), &goat.config_path()] {
            std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        goat.user = Some(NOBODY);
        let run = goat.command(&["run"]);
        let user = NOBODY.to_string();
        // As systemd does it for `AmbientCapabilities=CAP_NET_BIND_SERVICE`.
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
        command.args(["--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service"]);
        command.arg(run.get_program()).args(run.get_args());
        let log = goat.folder.join("goat.log");
        let mut process = Process::start("goat", &mut command, log);
        wait_until("goat to listen", || {
            process.assert_running();
            goat.log().contains("listening for UDP")
        });
        let states = || {
            let (_, stdout, _) = goat.cli(&["check"]);
            let lines = stdout.lines().filter(|line| line.contains(" port 80: "));
            lines.map(String::from).collect::<Vec<_>>()
        };
        let listens = format!("good: goat listens (process {})", process.id());
        let expected = ["TCP", "UDP"].map(|what| format!("{what} port 80: {listens}"));
        assert_eq!(states(), expected);
        // Where it does not run, nobody but root may have these ports.
        process.terminate();
        assert!(states().iter().all(|state| state.contains(": wrong: ")));
    });
}

#[test]
fn a_port_that_another_program_has_in_one_family_is_an_error_that_says_so() {
    let test = "a_port_that_another_program_has_in_one_family_is_an_error_that_says_so";
    Lab::run(test, |_| {
        // So that the sockets of the test take one family.
        bind_ipv6_only("1");
        for (other, family) in [("0.0.0.0", "IPv4"), ("127.0.0.1", "IPv4"), ("[::]", "IPv6"), ("[::1]", "IPv6")] {
            let database = Database::sqlite();
            let goat = Goat::prepare(&database, json!({ "Host": "", "UDP": true }));
            let at = format!("{other}:{}", goat.port);
            let refused = || {
                let (status, _, stderr) = goat.cli(&["run"]);
                assert_eq!(status.code(), Some(1), "{stderr}");
                let said = format!("port {} of every address ({family})", goat.port);
                assert!(stderr.contains(&said), "{said} in {stderr}");
                assert!(stderr.contains("in use"), "{stderr}");
                let (status, stdout, _) = goat.cli(&["check"]);
                assert_eq!(status.code(), Some(1), "{stdout}");
                let said = format!("(process {}) is using it", std::process::id());
                assert!(stdout.contains(&said), "{said} in {stdout}");
            };
            let tcp = TcpListener::bind(&at).unwrap();
            refused();
            drop(tcp);
            let _udp = UdpSocket::bind(&at).unwrap();
            refused();
        }
    });
}

// On i386 sockets are made by the call `socketcall`, whose arguments a filter cannot see.
#[cfg(not(target_arch = "x86"))]
#[test]
fn where_the_system_has_no_ipv6_ipv4_alone_is_served_and_the_log_says_so() {
    let database = Database::sqlite();
    let mut goat = Goat::prepare(&database, json!({ "Host": "", "UDP": true }));
    let mut command = goat.command(&["run"]);
    // Safety: only system calls between fork and exec.
    unsafe { command.pre_exec(without_ipv6) };
    let mut process = Process::start("goat", &mut command, goat.folder.join("goat.log"));
    for what in ["HTTP", "UDP"] {
        let said = format!("for {what} on 0.0.0.0:{}: every IPv4 address", goat.port);
        wait_until(&said, || {
            process.assert_running();
            goat.log().contains(&said)
        });
    }
    let at = SocketAddr::new(HOMES[0], goat.port);
    assert_eq!(http_get(at, "/announce", &[]).0, 200);
    assert!(answers_udp(at));
    assert!(process.terminate().success());
    goat.launch();
    assert!(goat.log().contains("[::]"), "{}", goat.log());
}

#[test]
fn a_name_is_its_first_address_that_this_machine_has() {
    let test = "a_name_is_its_first_address_that_this_machine_has";
    Lab::run(test, |lab| {
        let mut host = lab.host();
        let database = Database::sqlite();
        let goat = Goat::prepare(&database, json!({ "Host": "tracker" }));
        let names = goat.folder.join("hosts");
        let own = host.address;
        fs::write(&names, format!("192.0.2.77 tracker\n{own} tracker\n")).unwrap();
        host.knows(&names);
        let mut command = host.command(env!("CARGO_BIN_EXE_goat"));
        command.arg("--config").arg(goat.config_path());
        let log = goat.folder.join("goat.log");
        let mut process = Process::start("goat", &mut command, log);
        let said = format!("listening for HTTP on {own}:{}\n", goat.port);
        wait_until(&said, || {
            process.assert_running();
            goat.log().contains(&said)
        });
    });
}

/// Sets whether an IPv6 socket takes IPv6 alone, unless a program says otherwise: in the network of this thread.
fn bind_ipv6_only(only: &str) {
    fs::write("/proc/sys/net/ipv6/bindv6only", only).unwrap();
}

/// Whether a connect (BEP 15) is answered.
fn answers_udp(at: SocketAddr) -> bool {
    let socket = UdpSocket::bind((at.ip(), 0)).unwrap();
    socket.connect(at).unwrap();
    socket.set_read_timeout(Some(crate::common::PATIENCE)).unwrap();
    let mut connect = 0x417_2710_1980_u64.to_be_bytes().to_vec();
    connect.extend([0; 8]);
    socket.send(&connect).unwrap();
    socket.recv(&mut [0; 16]).is_ok_and(|length| length == 16)
}

/// Takes IPv6 away from this process, as from one on a system that has none: a filter of its system calls (seccomp).
#[cfg(not(target_arch = "x86"))]
fn without_ipv6() -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    // Where the number of the call and its first argument are in struct seccomp_data.
    let (number, first) = (0, 16 + if cfg!(target_endian = "big") { 4 } else { 0 });
    let mut steps = [
        step(LOAD, 0, 0, number),
        step(IF_EQUAL, 0, 3, libc::SYS_socket as u32),
        step(LOAD, 0, 0, first),
        step(IF_EQUAL, 0, 1, libc::AF_INET6 as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EAFNOSUPPORT as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    let (set, filter) = (libc::PR_SET_NO_NEW_PRIVS, libc::SECCOMP_MODE_FILTER);
    // Safety: the program outlives the call, which copies it.
    let done = unsafe { libc::prctl(set, 1, 0, 0, 0) | libc::prctl(libc::PR_SET_SECCOMP, filter, &program) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
