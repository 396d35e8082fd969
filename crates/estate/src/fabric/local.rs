//! Members in one process: for tests, and for programs that hold several nodes.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::{Fabric, FabricError, FabricStatistics, Listener, NodeId, Why};

enum Delivery {
    Message(NodeId, Arc<[u8]>),
    Joined(NodeId),
    Left(NodeId, Why),
    Close,
}

/// What members of one process are plugged into.
#[derive(Clone, Default)]
pub struct Switchboard {
    members: Arc<Mutex<BTreeMap<NodeId, Sender<Delivery>>>>,
}

/// A member of a [`Switchboard`].
pub struct LocalFabric {
    board: Switchboard,
    me: NodeId,
    inbox: Mutex<Option<Receiver<Delivery>>>,
    post: Sender<Delivery>,
    thread: Mutex<Option<JoinHandle<()>>>,
    sent: Mutex<FabricStatistics>,
    started: OnceLock<()>,
}

impl Switchboard {
    /// A member that is not plugged in yet.
    pub fn member(&self, me: NodeId) -> LocalFabric {
        let (post, inbox) = channel();
        LocalFabric {
            board: self.clone(),
            me,
            inbox: Mutex::new(Some(inbox)),
            post,
            thread: Mutex::new(None),
            sent: Mutex::default(),
            started: OnceLock::new(),
        }
    }
}

fn deliver(inbox: &Receiver<Delivery>, listener: &dyn Listener) {
    while let Ok(delivery) = inbox.recv() {
        match delivery {
            Delivery::Message(from, bytes) => listener.message(&from, &bytes),
            Delivery::Joined(member) => listener.joined(&member),
            Delivery::Left(member, why) => listener.left(&member, &why),
            Delivery::Close => return,
        }
    }
}

impl Fabric for LocalFabric {
    fn start(&self, listener: Arc<dyn Listener>) -> Result<(), FabricError> {
        let mut members = self.board.members.lock();
        if let Some(other) = members.keys().find(|m| m.name == self.me.name) {
            return Err(FabricError::NameTaken {
                node: self.me.name.to_string(),
                cluster: "of this process".into(),
                by: format!("incarnation {}", other.incarnation),
            });
        }
        let Some(inbox) = self.inbox.lock().take() else {
            return Ok(());
        };
        for (other, post) in members.iter() {
            let _ = post.send(Delivery::Joined(self.me.clone()));
            let _ = self.post.send(Delivery::Joined(other.clone()));
        }
        members.insert(self.me.clone(), self.post.clone());
        let _ = self.started.set(());
        let thread = std::thread::Builder::new()
            .name("estate-local".into())
            .spawn(move || deliver(&inbox, &*listener))
            .map_err(|why| FabricError::System {
                node: self.me.name.to_string(),
                what: "starting a thread",
                why: why.to_string(),
            })?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    fn members(&self) -> Vec<NodeId> {
        let members = self.board.members.lock();
        members.keys().filter(|m| **m != self.me).cloned().collect()
    }

    fn send(&self, to: &[NodeId], bytes: &[u8]) {
        let shared: Arc<[u8]> = bytes.into();
        let members = self.board.members.lock();
        let mut sent = self.sent.lock();
        for post in to.iter().filter_map(|member| members.get(member)) {
            let _ = post.send(Delivery::Message(self.me.clone(), shared.clone()));
            sent.messages_sent += 1;
            sent.bytes_sent += bytes.len() as u64;
        }
    }

    fn statistics(&self) -> FabricStatistics {
        FabricStatistics {
            links: self.members().len(),
            ..*self.sent.lock()
        }
    }

    fn close(&self) {
        if self.started.get().is_none() {
            return;
        }
        let mut members = self.board.members.lock();
        if members.remove(&self.me).is_some() {
            for post in members.values() {
                let _ = post.send(Delivery::Left(self.me.clone(), Why::Left));
            }
        }
        drop(members);
        let _ = self.post.send(Delivery::Close);
        let thread = self.thread.lock().take();
        if let Some(thread) = thread.filter(|t| t.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

impl Drop for LocalFabric {
    fn drop(&mut self) {
        self.close();
    }
}
