//! Messages between named members of a cluster, and who is a member: everything else is the
//! engine's (docs/decisions/0020-fabric.md).
//!
//! A message comes whole, at most once, and from an established member. Two messages to the same
//! member come in the order of sending, except around joins, leaves and replaced links, where they
//! may also be lost: the engine asks again.

mod error;
mod local;
pub mod mesh;

use std::fmt;
use std::sync::Arc;

pub use crate::backend::Tls;
pub use crate::protocol::NodeId;
pub use error::FabricError;
pub use local::{LocalFabric, Switchboard};
pub use mesh::{Mesh, MeshOptions};

/// Why a member is one no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It said goodbye.
    Left,
    /// It failed: was killed, stopped, or cut off. The text says how that was seen.
    Failed(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left => f.write_str("it left"),
            Self::Failed(how) => f.write_str(how),
        }
    }
}

/// What a fabric tells; called from a thread of the fabric, or one that has the [`Turn`], one call at a
/// time for each member.
/// Calls must not wait for another message: nothing is read meanwhile.
pub trait Listener: Send + Sync {
    /// A member sent `bytes`.
    fn message(&self, from: &NodeId, bytes: &[u8]);
    /// A member is there from now on. One that was stopped or cut off comes back as itself.
    fn joined(&self, member: &NodeId);
    /// A member is there no longer.
    fn left(&self, member: &NodeId, why: &Why);
    /// A member that is there no longer will not be back: its process has ended.
    fn died(&self, member: &NodeId) {
        let _ = member;
    }
    /// A peer at `address` will not have us, and says why.
    fn refused(&self, address: &str, why: &FabricError) {
        let _ = (address, why);
    }
}

/// The turn to receive, until it is dropped.
pub trait Turn {
    /// Receives on this thread, for everybody, until `over` says so or the fabric closes. It is asked
    /// after every few messages, and when the fabric is nudged.
    fn receive(self: Box<Self>, over: &dyn Fn() -> bool);
}

/// Messages to the other members of a cluster.
pub trait Fabric: Send + Sync {
    /// Joins the cluster and waits until the peers that are there have answered. From now on
    /// `listener` is called.
    ///
    /// # Errors
    /// [`FabricError`] if a peer refuses this node, above all because its name is taken.
    fn start(&self, listener: Arc<dyn Listener>) -> Result<(), FabricError>;
    /// The other members that are there now, by name.
    fn members(&self) -> Vec<NodeId>;
    /// Sends `bytes` to each of `to`; never waits. One that is not there is passed over: the
    /// listener was told, or will be.
    fn send(&self, to: &[NodeId], bytes: &[u8]);
    /// Sends what has been sent before and may be lost. One for whom something still waits to be sent
    /// is passed over: on an ordered link it has lost nothing, and repeating must not be what fills its
    /// queue. So what matters has to be repeated more than once.
    fn repeat(&self, to: &[NodeId], bytes: &[u8]) {
        self.send(to, bytes);
    }
    /// The turn to receive, for a thread that is about to ask and wait: taken before asking, so that
    /// no other thread is woken by the answers. None: somebody has it, or there is no such thing.
    fn turn(&self) -> Option<Box<dyn Turn + '_>> {
        None
    }
    /// Has the thread whose turn it is look whether its wait is over.
    fn nudge(&self) {}
    /// What has gone over it so far.
    fn statistics(&self) -> FabricStatistics;
    /// Says goodbye and ends the threads. Repeating it changes nothing.
    fn close(&self);
}

/// What has gone over a fabric.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FabricStatistics {
    /// Links that are up.
    pub links: usize,
    /// Messages sent, heartbeats left aside.
    pub messages_sent: u64,
    /// Bytes sent, framing and heartbeats included, encryption not.
    pub bytes_sent: u64,
    /// Messages received.
    pub messages_received: u64,
    /// Bytes received, framing and heartbeats included, encryption not.
    pub bytes_received: u64,
    /// Connections and frames of strangers that were refused.
    pub refused: u64,
}
