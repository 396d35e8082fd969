//! Who a member is.

use std::fmt;
use std::sync::Arc;

/// A member of a cluster: a name, and which life of it this is. A process that is started anew
/// under the same name has a greater incarnation; one that was stopped or cut off has not.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// Its name, unique in the cluster.
    pub name: Arc<str>,
    /// Milliseconds since 1970 at its start.
    pub incarnation: u64,
}

impl NodeId {
    /// `name` in its `incarnation`.
    pub fn new(name: &str, incarnation: u64) -> Self {
        Self {
            name: name.into(),
            incarnation,
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
