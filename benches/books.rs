//! What writing the books costs: batches of random sessions out of a million, as announces leave them.
//!
//!     cargo bench --bench books
//!     cargo bench --bench books -- --batch 25000

mod common;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use common::{TempDir, number};
use goat::config;
use goat::ledger::{Batch, SessionKey, SessionRow, Total, TotalKey};
use goat::random::Rng;
use goat::store::Store;
use goat::swarm::{Addresses, Session};
use goat::torrent::PeerId;

const TORRENTS: u64 = 10_000;
const PEERS: u64 = 100;

fn row(i: u64, n: u64) -> ((SessionKey, SessionRow), (TotalKey, Total)) {
    let (file, user) = ((i / PEERS) as u32 + 1, (i % 1_000) as u32 + 1);
    let mut peer_id = PeerId([b'x'; 20]);
    peer_id.0[..8].copy_from_slice(b"-qB4600-");
    peer_id.0[12..].copy_from_slice(&i.to_be_bytes());
    let ip = IpAddr::from(Ipv4Addr::from(0x7f00_0000 + (i % 1_000) as u32));
    let mut at = Addresses::NONE;
    at.set(ip, 6881);
    let time = 1_800_000_000 + n as u32;
    let session = Session {
        uploaded: 1_000_000 * n,
        downloaded: 2_000_000 * n,
        left: 3_000_000,
        seen: [time, 0],
        user,
        peer_id,
        paused: false,
        completed: false,
    };
    let total = Total {
        uploaded: 1_000_000,
        downloaded: 2_000_000,
        credited_uploaded: 1_000_000,
        credited_downloaded: 2_000_000,
        announced: 1,
        time,
        active: true,
        ..Total::default()
    };
    let session = SessionRow {
        session,
        at,
        active: true,
        first: None,
    };
    (
        (
            SessionKey {
                file,
                user,
                peer_id,
            },
            session,
        ),
        (TotalKey { file, user, ip }, total),
    )
}

/// User and system CPU time of this process, in seconds.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn main() {
    let size = number("--batch", 25_000) as usize;
    let batches = number("--batches", 20) as usize;
    let dir = TempDir::new("books");
    let file = dir.0.join("config.json");
    let config = config::parse(&file, r#"{"DB": {"Driver": "sqlite"}}"#).unwrap();
    let store = Store::open(&config).unwrap();
    let mut rng = Rng::new(1);
    let start = Instant::now();
    for chunk in 0..20 {
        let mut batch = Batch {
            number: rng.bits() >> 1,
            ..Batch::default()
        };
        for i in 0..TORRENTS * PEERS / 20 {
            let (session, total) = row(chunk * TORRENTS * PEERS / 20 + i, 1);
            batch.sessions.push(session);
            batch.totals.push(total);
        }
        store.write(&batch, 1).unwrap();
    }
    println!("filled in {:.1} s", start.elapsed().as_secs_f64());
    let (start, before) = (Instant::now(), cpu());
    for n in 0..batches {
        let mut batch = Batch {
            number: rng.bits() >> 1,
            ..Batch::default()
        };
        for _ in 0..size {
            let (session, total) = row(rng.below((TORRENTS * PEERS) as usize) as u64, n as u64 + 2);
            batch.sessions.push(session);
            batch.totals.push(total);
        }
        batch.sessions.sort_unstable_by_key(|(key, _)| *key);
        store.write(&batch, 1).unwrap();
    }
    let announces = (size * batches) as f64;
    println!(
        "{batches} batches of {size} announces: {:.2} us CPU an announce, {:.3} s a batch",
        (cpu() - before) * 1e6 / announces,
        start.elapsed().as_secs_f64() / batches as f64
    );
}
