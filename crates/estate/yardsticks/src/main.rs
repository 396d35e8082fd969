//! Scatter-gather to 1, 2, 4, 8 and 16 peer processes on this machine, by every fabric that was
//! considered, in one run: the figures of `docs/decisions/0020-fabric.md`.
//!
//! ```text
//! estate-yardsticks measure [--rounds N] [--sizes 1,2,4] [--kinds udp,tcp,mesh,estate,zmq,zenoh-query,zenoh-put]
//! estate-yardsticks idle                 CPU of 16 idle, fully meshed peers
//! ```
//! The kinds of Zenoh are there if it was built with `--features zenoh`.
//!
//! Prints one JSON object. A round is one question of 64 bytes to every peer and an answer of
//! 64 bytes from each; its time runs from the call to the last answer in the caller's hands. The
//! kinds take turns round-robin in blocks, so that a slow minute of the machine hits all alike.

mod estate;
mod mesh;
mod peers;
mod tcp;
mod udp;
#[cfg(feature = "zenoh")]
mod zenoh_fabric;
mod zeromq;

use std::time::{Duration, Instant};

use peers::Peers;

/// Bytes of a question and of an answer.
pub const PAYLOAD: usize = 64;
const SIZES: [usize; 5] = [1, 2, 4, 8, 16];
const KINDS: &[&str] = &[
    "udp",
    "tcp",
    "mesh",
    "estate",
    "zmq",
    #[cfg(feature = "zenoh")]
    "zenoh-query",
    #[cfg(feature = "zenoh")]
    "zenoh-put",
];
const BLOCKS: usize = 4;

/// Asks every peer once and returns when all have answered.
pub trait Scatter {
    fn round(&mut self, number: u64);
}

fn open(kind: &str, ports: &[u16]) -> Box<dyn Scatter> {
    match kind {
        "udp" => Box::new(udp::Asker::new(ports)),
        "tcp" => Box::new(tcp::Asker::new(ports)),
        "estate" => Box::new(estate::Asker::new(ports)),
        "mesh" => Box::new(mesh::Asker::new(ports)),
        "zmq" => Box::new(zeromq::Asker::new(ports)),
        #[cfg(feature = "zenoh")]
        "zenoh-query" => Box::new(zenoh_fabric::Asker::queries(ports)),
        #[cfg(feature = "zenoh")]
        "zenoh-put" => Box::new(zenoh_fabric::Asker::puts(ports)),
        other => panic!("no such kind: {other}; one of {KINDS:?}"),
    }
}

/// p50 and p99 of a sorted sample, in microseconds.
fn quantiles(mut sample: Vec<Duration>) -> (f64, f64) {
    sample.sort_unstable();
    let at = |q: f64| sample[((sample.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e6;
    (at(0.5), at(0.99))
}

fn measure(rounds: usize, sizes: &[usize], kinds: &[String]) {
    let mut rows = Vec::new();
    for &size in sizes {
        let peers: Vec<_> = kinds
            .iter()
            .map(|kind| Peers::spawn(kind, size, false))
            .collect();
        let mut askers: Vec<_> = kinds
            .iter()
            .zip(&peers)
            .map(|(kind, peers)| open(kind, &peers.ports))
            .collect();
        let mut samples = vec![Vec::with_capacity(rounds); kinds.len()];
        let mut number = 0;
        for _ in 0..BLOCKS {
            for (asker, sample) in askers.iter_mut().zip(&mut samples) {
                let warm_up = rounds / BLOCKS / 5;
                for round in 0..warm_up + rounds / BLOCKS {
                    number += 1;
                    let begin = Instant::now();
                    asker.round(number);
                    if round >= warm_up {
                        sample.push(begin.elapsed());
                    }
                }
            }
        }
        for (kind, sample) in kinds.iter().zip(samples) {
            let (p50, p99) = quantiles(sample);
            eprintln!("{size:>3} {kind:<12} p50 {p50:>8.1} us  p99 {p99:>8.1} us");
            rows.push(format!(
                r#"{{"kind":"{kind}","peers":{size},"p50_us":{p50:.1},"p99_us":{p99:.1}}}"#
            ));
        }
    }
    println!(
        r#"{{"payload_bytes":{PAYLOAD},"rounds":{rounds},"rows":[{}]}}"#,
        rows.join(",")
    );
}

/// CPU share of each of 16 peers that know all others and have nothing to do.
fn idle() {
    let mut rows = Vec::new();
    for &kind in KINDS
        .iter()
        .filter(|kind| ["estate", "mesh", "zenoh-query"].contains(kind))
    {
        let peers = Peers::spawn(kind, 16, true);
        std::thread::sleep(Duration::from_secs(3));
        let (before, begin) = (peers.cpu(), Instant::now());
        std::thread::sleep(Duration::from_secs(10));
        let used = (peers.cpu() - before) / begin.elapsed().as_secs_f64();
        let percent = used * 100.0 / peers.ports.len() as f64;
        let resident = peers.resident();
        rows.push(format!(
            r#"{{"kind":"{kind}","peers":16,"idle_cpu_percent":{percent:.2},"resident_mib":{resident:.1}}}"#
        ));
    }
    println!("[{}]", rows.join(","));
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let option = |name: &str| {
        arguments
            .iter()
            .position(|a| a == name)
            .and_then(|at| arguments.get(at + 1))
            .cloned()
    };
    match arguments.first().map(String::as_str) {
        Some("peer") => peers::serve(&arguments[1], &arguments[2..]),
        Some("idle") => idle(),
        Some("measure") => {
            let rounds = option("--rounds").map_or(4000, |n| n.parse().expect("--rounds N"));
            let sizes = option("--sizes").map_or(SIZES.to_vec(), |list| {
                list.split(',')
                    .map(|n| n.parse().expect("--sizes 1,2,4"))
                    .collect()
            });
            let kinds = option("--kinds").map_or(
                KINDS.iter().copied().map(String::from).collect::<Vec<_>>(),
                |list| list.split(',').map(String::from).collect(),
            );
            measure(rounds, &sizes, &kinds);
        }
        _ => {
            eprintln!(
                "usage: estate-yardsticks measure [--rounds N] [--sizes LIST] [--kinds LIST] | idle"
            );
            std::process::exit(2);
        }
    }
}
