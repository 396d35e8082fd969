//! The fabric that came of it: `flowferry_estate::fabric::Mesh`, with nothing above it.

use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use flowferry_estate::fabric::{Fabric, Listener, Mesh, MeshOptions, NodeId, Why};

use crate::{PAYLOAD, Scatter};

fn mesh(name: &str, listen: String, peers: Vec<String>) -> Mesh {
    Mesh::bind(MeshOptions {
        cluster: "yard".into(),
        node: NodeId::new(name, 1),
        listen,
        peers,
        tls: None,
        scouting: None,
        relay: false,
        failure_after: Duration::from_secs(1),
    })
    .expect("a mesh")
}

#[derive(Default)]
struct Count {
    answered: Mutex<usize>,
    all: Condvar,
    expected: OnceLock<usize>,
}

impl Listener for Count {
    fn message(&self, _: &NodeId, _: &[u8]) {
        let mut answered = self.answered.lock().expect("unpoisoned");
        *answered += 1;
        if self.expected.get() == Some(&answered) {
            self.all.notify_one();
        }
    }
    fn joined(&self, _: &NodeId) {}
    fn left(&self, _: &NodeId, _: &Why) {}
}

pub struct Asker {
    mesh: Mesh,
    members: Vec<NodeId>,
    count: Arc<Count>,
}

impl Asker {
    pub fn new(ports: &[u16]) -> Self {
        let peers = ports.iter().map(|p| format!("127.0.0.1:{p}")).collect();
        let mesh = mesh("asker", "127.0.0.1:0".into(), peers);
        let count = Arc::new(Count::default());
        mesh.start(count.clone()).expect("joined");
        let members = mesh.members();
        assert_eq!(members.len(), ports.len());
        count.expected.set(ports.len()).expect("once");
        Self {
            mesh,
            members,
            count,
        }
    }
}

impl Scatter for Asker {
    fn round(&mut self, number: u64) {
        let mut buffer = [0; PAYLOAD];
        buffer[..8].copy_from_slice(&number.to_be_bytes());
        *self.count.answered.lock().expect("unpoisoned") = 0;
        self.mesh.send(&self.members, &buffer);
        let answered = self.count.answered.lock().expect("unpoisoned");
        drop(
            self.count
                .all
                .wait_while(answered, |n| *n < self.members.len()),
        );
    }
}

struct Echo(OnceLock<Arc<Mesh>>);

impl Listener for Echo {
    fn message(&self, from: &NodeId, bytes: &[u8]) {
        if let Some(mesh) = self.0.get() {
            mesh.send(std::slice::from_ref(from), bytes);
        }
    }
    fn joined(&self, _: &NodeId) {}
    fn left(&self, _: &NodeId, _: &Why) {}
}

pub fn serve(port: u16, connect: &[u16]) -> ! {
    let peers = connect.iter().map(|p| format!("127.0.0.1:{p}")).collect();
    let mesh = Arc::new(mesh(&port.to_string(), format!("127.0.0.1:{port}"), peers));
    let echo = Arc::new(Echo(OnceLock::new()));
    assert!(echo.0.set(mesh.clone()).is_ok());
    mesh.start(echo).expect("joined");
    println!("ready");
    loop {
        std::thread::park();
    }
}
