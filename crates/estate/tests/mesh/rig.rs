//! A member that remembers what it was told.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use flowferry_estate::fabric::mesh::Scouting;
use flowferry_estate::fabric::{
    Fabric, FabricError, Listener, Mesh, MeshOptions, NodeId, Tls, Why,
};

/// Waits for `condition`; a minute is beyond any slow machine.
pub fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[derive(Default)]
pub struct Memory {
    messages: Mutex<Vec<(String, Vec<u8>)>>,
    lost: Mutex<Vec<(String, Why)>>,
    dead: Mutex<Vec<String>>,
}

impl Listener for Memory {
    fn message(&self, from: &NodeId, bytes: &[u8]) {
        let mut messages = self.messages.lock().unwrap();
        messages.push((from.name.to_string(), bytes.to_vec()));
    }
    fn joined(&self, _: &NodeId) {}
    fn died(&self, member: &NodeId) {
        self.dead.lock().unwrap().push(member.name.to_string());
    }
    fn left(&self, member: &NodeId, why: &Why) {
        self.lost
            .lock()
            .unwrap()
            .push((member.name.to_string(), why.clone()));
    }
}

/// A member to be: bound to its port, not started.
pub struct Member {
    options: MeshOptions,
    mesh: Option<Mesh>,
}

/// A member that has joined.
pub struct Running {
    name: String,
    pub mesh: Mesh,
    memory: Arc<Memory>,
}

fn options(name: &str, listen: &str) -> MeshOptions {
    MeshOptions {
        cluster: "test".into(),
        node: NodeId::new(name, 1),
        listen: listen.into(),
        peers: Vec::new(),
        tls: None,
        scouting: None,
        relay: false,
        failure_after: Duration::from_secs(5),
    }
}

impl Member {
    pub fn new(name: &str) -> Self {
        Self::try_new(name, "127.0.0.1:0").unwrap()
    }

    pub fn try_new(name: &str, listen: &str) -> Result<Self, FabricError> {
        let options = options(name, listen);
        let mesh = Mesh::bind(options.clone())?;
        Ok(Self {
            options,
            mesh: Some(mesh),
        })
    }

    fn with(mut self, change: impl FnOnce(&mut MeshOptions)) -> Self {
        let bound = self.mesh.take().unwrap();
        if self.options.listen.ends_with(":0") {
            self.options.listen = bound.address().to_string();
        }
        drop(bound);
        change(&mut self.options);
        self.mesh = Some(Mesh::bind(self.options.clone()).unwrap());
        self
    }

    pub fn listen(self, address: &str) -> Self {
        self.with(|o| o.listen = address.into())
    }
    pub fn peer(self, other: &Running) -> Self {
        self.peers(&[other.address()])
    }
    pub fn peers(self, addresses: &[String]) -> Self {
        self.with(|o| o.peers.extend_from_slice(addresses))
    }
    pub fn incarnation(self, incarnation: u64) -> Self {
        self.with(|o| o.node.incarnation = incarnation)
    }
    pub fn relay(self) -> Self {
        self.with(|o| o.relay = true)
    }
    pub fn cluster(self, cluster: &str) -> Self {
        self.with(|o| o.cluster = cluster.into())
    }
    pub fn failure_after(self, limit: Duration) -> Self {
        self.with(|o| o.failure_after = limit)
    }
    pub fn scouting(self, port: u16) -> Self {
        self.with(|o| {
            o.scouting = Some(Scouting {
                group: SocketAddrV4::new(Ipv4Addr::new(239, 255, 82, 28), port),
                interface: Ipv4Addr::LOCALHOST,
            });
        })
    }
    pub fn tls(self, files: &Path, node: &str) -> Self {
        self.with(|o| {
            o.tls = Some(Tls {
                ca: files.join("ca.pem"),
                certificate: files.join(format!("{node}.pem")),
                key: files.join(format!("{node}.key")),
            });
        })
    }

    pub fn address(&self) -> String {
        self.mesh.as_ref().unwrap().address().to_string()
    }

    pub fn try_start(self) -> Result<Running, FabricError> {
        let memory = Arc::new(Memory::default());
        let mesh = self.mesh.unwrap();
        mesh.start(memory.clone())?;
        Ok(Running {
            name: self.options.node.name.to_string(),
            mesh,
            memory,
        })
    }

    pub fn start(self) -> Running {
        self.try_start().unwrap()
    }
}

impl Running {
    pub fn name(&self) -> &str {
        &self.name
    }
    pub fn address(&self) -> String {
        self.mesh.address().to_string()
    }
    pub fn names(&self) -> Vec<String> {
        self.mesh
            .members()
            .iter()
            .map(|m| m.name.to_string())
            .collect()
    }
    /// Has it hear nothing more until this is dropped.
    pub fn occupied(&self) -> impl Sized {
        self.memory.messages.lock().unwrap()
    }
    pub fn heard(&self, from: &str) -> Vec<Vec<u8>> {
        let messages = self.memory.messages.lock().unwrap();
        messages
            .iter()
            .filter(|(name, _)| name == from)
            .map(|(_, bytes)| bytes.clone())
            .collect()
    }
    /// Whose processes are known to have ended without a goodbye.
    pub fn dead(&self) -> Vec<String> {
        self.memory.dead.lock().unwrap().clone()
    }
    pub fn lost(&self) -> Vec<(String, Why)> {
        self.memory.lost.lock().unwrap().clone()
    }
}
