//! Peer processes: this program again, one process a peer.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// Peers that run until they are dropped.
pub struct Peers {
    children: Vec<Child>,
    pub ports: Vec<u16>,
}

impl Peers {
    /// Starts `count` peers and waits until each says that it is ready. `meshed`: each knows the others.
    pub fn spawn(kind: &str, count: usize, meshed: bool) -> Self {
        let held: Vec<_> = (0..count)
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let ports: Vec<u16> = held
            .iter()
            .map(|l| l.local_addr().expect("bound").port())
            .collect();
        drop(held);
        let program = std::env::current_exe().expect("own path");
        let mut children = Vec::new();
        for (n, port) in ports.iter().enumerate() {
            let mut command = Command::new(&program);
            command.arg("peer").arg(kind).arg(port.to_string());
            if meshed {
                command.args(ports[..n].iter().map(u16::to_string));
            }
            let mut child = command.stdout(Stdio::piped()).spawn().expect("a peer");
            let mut line = String::new();
            BufReader::new(child.stdout.take().expect("piped"))
                .read_line(&mut line)
                .expect("ready");
            assert_eq!(line.trim(), "ready", "peer {kind} on port {port}");
            children.push(child);
        }
        Self { children, ports }
    }

    /// CPU seconds that all peers have used so far.
    pub fn cpu(&self) -> f64 {
        // SAFETY: sysconf takes no pointer.
        let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
        self.children
            .iter()
            .map(|child| {
                let stat =
                    std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("running");
                let fields: Vec<&str> = stat[stat.rfind(')').expect("stat") + 2..]
                    .split(' ')
                    .collect();
                (fields[11].parse::<f64>().expect("utime")
                    + fields[12].parse::<f64>().expect("stime"))
                    / ticks
            })
            .sum()
    }

    /// Mean resident memory of a peer in MiB.
    pub fn resident(&self) -> f64 {
        let pages: f64 = self
            .children
            .iter()
            .map(|child| {
                let statm = std::fs::read_to_string(format!("/proc/{}/statm", child.id()))
                    .expect("running");
                statm
                    .split(' ')
                    .nth(1)
                    .expect("resident")
                    .parse::<f64>()
                    .expect("pages")
            })
            .sum();
        pages * 4096.0 / 1048576.0 / self.children.len() as f64
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Is a peer of this kind until killed. `arguments`: own port, then ports to connect to.
pub fn serve(kind: &str, arguments: &[String]) -> ! {
    let ports: Vec<u16> = arguments
        .iter()
        .map(|p| p.parse().expect("a port"))
        .collect();
    match kind {
        "udp" => crate::udp::serve(ports[0]),
        "tcp" => crate::tcp::serve(ports[0]),
        "estate" => crate::estate::serve(ports[0], &ports[1..]),
        "mesh" => crate::mesh::serve(ports[0], &ports[1..]),
        "zmq" => crate::zeromq::serve(ports[0]),
        #[cfg(feature = "zenoh")]
        "zenoh-query" | "zenoh-put" => crate::zenoh_fabric::serve(ports[0], &ports[1..]),
        other => panic!("no such kind: {other}"),
    }
}
