//! A mesh of TCP links, one between any two members, plain or TLS.
//!
//! Members are found by configured peers, by the addresses that peers pass on, and by multicast
//! beacons. One thread receives (see `wire`), a second sends heartbeats: so an instance that is
//! busy with a long scan is not taken for dead, and one that is stopped is. Whoever sends a message
//! writes it to the sockets itself, and who waits for an answer reads it itself (see `turns`): on the
//! way of a question and its answer there is one wake-up a process.

mod absent;
mod book;
mod connection;
pub mod frame;
mod gate;
mod greet;
mod link;
mod relay;
mod scout;
mod tls;
mod turns;
mod wire;

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Poll, Waker};
use parking_lot::{Condvar, Mutex, RwLock};

use super::{Fabric, FabricError, FabricStatistics, Listener, NodeId, Tls, Turn};
use link::Link;
pub use scout::{Beacon, Scouting};
use turns::Turns;

/// How a node takes part in a mesh.
#[derive(Clone, Debug)]
pub struct MeshOptions {
    /// Only nodes of the same cluster link up.
    pub cluster: String,
    /// Who this node is.
    pub node: NodeId,
    /// `host:port` to listen on; port 0: any.
    pub listen: String,
    /// `host:port` of nodes that may be there.
    pub peers: Vec<String>,
    /// Certificates; none: plain TCP.
    pub tls: Option<Tls>,
    /// Multicast beacons; none: none are sent or heard.
    pub scouting: Option<Scouting>,
    /// Pass messages on between members that are linked to this one and not to each other.
    pub relay: bool,
    /// A member that is silent for so long has failed.
    pub failure_after: Duration,
}

/// A member of a mesh.
pub struct Mesh {
    shared: Arc<Shared>,
    /// What is received with, before it starts and after.
    ready: Mutex<Option<wire::Parts>>,
    turns: OnceLock<Arc<Turns>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What all threads of a mesh see.
struct Shared {
    options: MeshOptions,
    address: SocketAddr,
    waker: Waker,
    orders: Sender<Order>,
    links: RwLock<HashMap<NodeId, Arc<Link>>>,
    routes: RwLock<relay::Routes>,
    joining: Mutex<Joining>,
    joined: Condvar,
    closed: AtomicBool,
    messages_sent: AtomicU64,
    bytes_sent: AtomicU64,
    messages_received: AtomicU64,
    bytes_received: AtomicU64,
    refused: AtomicU64,
}

/// How far the first round of dialling is.
enum Joining {
    Dialling,
    Over(Result<(), FabricError>),
}

/// What other threads ask of the receiving one.
enum Order {
    /// There may be a member there.
    Learn(SocketAddr),
    Close,
}

fn resolve(text: &str) -> Result<SocketAddr, FabricError> {
    let fail = |why: String| FabricError::Address {
        text: text.to_owned(),
        why,
    };
    text.to_socket_addrs()
        .map_err(|why| fail(why.to_string()))?
        .next()
        .ok_or_else(|| fail("it has no address".into()))
}

impl Mesh {
    /// Binds the address and reads the certificates; nobody is dialled before [`Fabric::start`].
    ///
    /// # Errors
    /// [`FabricError`] if an address, a name or a file cannot be used.
    pub fn bind(options: MeshOptions) -> Result<Self, FabricError> {
        for (what, text) in [("node", &*options.node.name), ("cluster", &options.cluster)] {
            if !(1..=255).contains(&text.len()) {
                return Err(FabricError::Name {
                    what,
                    text: text.to_owned(),
                });
            }
        }
        let peers = options
            .peers
            .iter()
            .map(|peer| resolve(peer))
            .collect::<Result<Vec<_>, _>>()?;
        let identity = options.tls.as_ref().map(tls::load).transpose()?;
        let system = |what| {
            let node = options.node.name.to_string();
            move |why: std::io::Error| FabricError::System {
                node: node.clone(),
                what,
                why: why.to_string(),
            }
        };
        let listener =
            TcpListener::bind(resolve(&options.listen)?).map_err(|why| FabricError::Listen {
                node: options.node.name.to_string(),
                address: options.listen.clone(),
                why: why.to_string(),
            })?;
        listener
            .set_nonblocking(true)
            .map_err(system("listening"))?;
        let address = listener.local_addr().map_err(system("listening"))?;
        let poll = Poll::new().map_err(system("epoll"))?;
        let waker = Waker::new(poll.registry(), wire::WAKE).map_err(system("epoll"))?;
        let (orders, inbox): (_, Receiver<Order>) = channel();
        let shared = Arc::new(Shared {
            address,
            waker,
            orders,
            links: RwLock::default(),
            routes: RwLock::default(),
            joining: Mutex::new(Joining::Dialling),
            joined: Condvar::new(),
            closed: AtomicBool::new(false),
            messages_sent: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            messages_received: AtomicU64::new(0),
            bytes_received: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            options,
        });
        Ok(Self {
            shared,
            ready: Mutex::new(Some(wire::Parts {
                poll,
                listener,
                peers,
                identity,
                inbox,
            })),
            turns: OnceLock::new(),
            threads: Mutex::default(),
        })
    }

    /// Where this node listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    fn spawn(&self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), FabricError> {
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(body)
            .map_err(|why| FabricError::System {
                node: self.shared.options.node.name.to_string(),
                what: "starting a thread",
                why: why.to_string(),
            })?;
        self.threads.lock().push(thread);
        Ok(())
    }

    fn threads(&self, listener: Arc<dyn Listener>) -> Result<(), FabricError> {
        let Some(parts) = self.ready.lock().take() else {
            return Ok(());
        };
        let shared = self.shared.clone();
        if let Some(scouting) = &shared.options.scouting {
            let socket = scouting.open(&shared)?;
            let scouts = shared.clone();
            self.spawn("estate-scout", move || socket.run(&scouts))?;
        }
        let turns = wire::Wire::new(shared.clone(), parts, listener)
            .and_then(|wire| Turns::new(shared.clone(), wire))
            .map_err(|why| FabricError::System {
                node: shared.options.node.name.to_string(),
                what: "epoll",
                why: why.to_string(),
            })?;
        let turns = Arc::new(turns);
        let _ = self.turns.set(turns.clone());
        self.spawn("estate-beat", move || shared.beat())?;
        self.spawn("estate-mesh", move || turns.run())
    }
}

impl Shared {
    /// How often whoever receives looks after the links.
    fn pause(&self) -> Duration {
        (self.options.failure_after / 10).max(Duration::from_millis(5))
    }

    /// Heartbeats on quiet links, five in the time that makes a failure.
    fn beat(&self) {
        let pause = self.options.failure_after / 5;
        while !self.closed.load(Ordering::Acquire) {
            let links: Vec<_> = self.links.read().values().cloned().collect();
            for link in links {
                if link.was_quiet() {
                    link.send(&frame::Frame::Heartbeat);
                    link.was_quiet();
                }
            }
            std::thread::park_timeout(pause);
        }
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_ok() {
            let _ = self.waker.wake();
        }
    }

    /// Sends over each link that is fit for it, to each of `to` or to who relays to it.
    fn post(&self, to: &[NodeId], bytes: &[u8], fit: impl Fn(&Link) -> bool) {
        let links = self.links.read();
        let mut far = Vec::new();
        for member in to {
            match links.get(member) {
                Some(link) if fit(link) => {
                    link.send_message(bytes);
                    self.messages_sent.fetch_add(1, Ordering::Relaxed);
                }
                Some(_) => {}
                None => far.push(member),
            }
        }
        if !far.is_empty() {
            self.send_far(&links, &far, bytes, fit);
        }
    }

    /// The first round of dialling is over.
    fn over(&self, outcome: Result<(), FabricError>) {
        let mut joining = self.joining.lock();
        if matches!(*joining, Joining::Dialling) {
            *joining = Joining::Over(outcome);
            self.joined.notify_all();
        }
    }
}

impl Fabric for Mesh {
    fn start(&self, listener: Arc<dyn Listener>) -> Result<(), FabricError> {
        self.threads(listener)?;
        // The thread ends the round by itself after two times `failure_after`; the rest is margin.
        let deadline =
            Instant::now() + self.shared.options.failure_after * 2 + Duration::from_secs(5);
        let mut joining = self.shared.joining.lock();
        while matches!(*joining, Joining::Dialling) {
            if self
                .shared
                .joined
                .wait_until(&mut joining, deadline)
                .timed_out()
            {
                break;
            }
        }
        let outcome = match &*joining {
            Joining::Over(outcome) => outcome.clone(),
            Joining::Dialling => Ok(()),
        };
        drop(joining);
        if outcome.is_err() {
            self.close();
        }
        outcome
    }

    fn members(&self) -> Vec<NodeId> {
        let mut members: Vec<_> = self.shared.links.read().keys().cloned().collect();
        members.extend(self.shared.routes.read().members().cloned());
        members.sort();
        members.dedup();
        members
    }

    fn send(&self, to: &[NodeId], bytes: &[u8]) {
        self.shared.post(to, bytes, |_| true);
    }

    fn repeat(&self, to: &[NodeId], bytes: &[u8]) {
        self.shared.post(to, bytes, |link| !link.is_behind());
    }

    fn turn(&self) -> Option<Box<dyn Turn + '_>> {
        self.turns.get()?.take()
    }

    fn nudge(&self) {
        let _ = self.shared.waker.wake();
    }

    fn statistics(&self) -> FabricStatistics {
        let links = self.shared.links.read();
        let live: u64 = links.values().map(|link| link.sent()).sum();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FabricStatistics {
            links: links.len(),
            messages_sent: count(&self.shared.messages_sent),
            bytes_sent: count(&self.shared.bytes_sent) + live,
            messages_received: count(&self.shared.messages_received),
            bytes_received: count(&self.shared.bytes_received),
            refused: count(&self.shared.refused),
        }
    }

    fn close(&self) {
        if !self.shared.closed.swap(true, Ordering::AcqRel) {
            self.shared.order(Order::Close);
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            thread.thread().unpark();
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.close();
    }
}
