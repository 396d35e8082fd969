//! What can go wrong between members.

use thiserror::Error;

/// A node cannot join its cluster, or is not in it any more.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FabricError {
    /// Another living node has this name.
    #[error(
        "node name {node:?} is taken in cluster {cluster:?} (says {by}): stop the other node or choose another name"
    )]
    NameTaken {
        /// The name.
        node: String,
        /// The cluster.
        cluster: String,
        /// Who says so.
        by: String,
    },
    /// A peer belongs elsewhere, or speaks another version, or does not trust us.
    #[error("peer {address} refuses node {node:?}: {why}")]
    Refused {
        /// The peer.
        address: String,
        /// This node.
        node: String,
        /// What it says.
        why: String,
    },
    /// Nothing can listen there.
    #[error("node {node:?} cannot listen on {address}: {why}; give another listen=\"host:port\"")]
    Listen {
        /// This node.
        node: String,
        /// The address.
        address: String,
        /// What the system says.
        why: String,
    },
    /// That is no address.
    #[error("{text:?} is no address of a peer: {why}; write \"host:port\"")]
    Address {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Certificates cannot be used.
    #[error("{what} {path:?} cannot be used: {why}")]
    Certificate {
        /// Which of them.
        what: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A name that cannot be one.
    #[error("{what} {text:?} cannot be used: it has to be 1 to 255 bytes long")]
    Name {
        /// `node` or `cluster`.
        what: &'static str,
        /// What was given.
        text: String,
    },
    /// The system refuses something that every node needs.
    #[error("node {node:?}: {what} failed: {why}")]
    System {
        /// This node.
        node: String,
        /// What was tried.
        what: &'static str,
        /// What the system says.
        why: String,
    },
}
