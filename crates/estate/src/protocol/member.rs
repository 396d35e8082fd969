//! Who is there: members, by name and incarnation.

use crate::codec::{Malformed, Reader, put_bytes};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

/// A running member. A name stands for one at a time; a restarted one has a greater incarnation,
/// and nothing of the memory of the one before.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// Unique among the live members.
    pub name: Arc<str>,
    /// Greater with each start under that name.
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

    /// Appends it as it travels.
    pub fn emit(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.name.as_bytes());
        out.extend_from_slice(&self.incarnation.to_be_bytes());
    }

    /// Reads what [`NodeId::emit`] wrote.
    ///
    /// # Errors
    /// [`Malformed`] if it is cut short.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            name: reader.str("a node's name")?.into(),
            incarnation: reader.u64("a node's incarnation")?,
        })
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.name, self.incarnation)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a report about a member means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A member that was not there.
    Joined,
    /// It takes the place of an earlier incarnation, whose memory is lost.
    Restarted {
        /// Who was there before.
        before: NodeId,
        /// Whether it was still taken for live.
        was_live: bool,
    },
    /// Known already.
    Known,
    /// An incarnation that has been replaced.
    Stale,
    /// Somebody else has our own name.
    OurName,
}

/// The members but ourselves, and the last incarnation known of those that are not here.
#[derive(Debug)]
pub(super) struct Members {
    own: NodeId,
    live: BTreeMap<Arc<str>, NodeId>,
    gone: BTreeMap<Arc<str>, u64>,
    // Those of them whose process is known to have ended.
    dead: BTreeSet<NodeId>,
}

impl Members {
    pub fn new(own: NodeId) -> Self {
        Self {
            own,
            live: BTreeMap::new(),
            gone: BTreeMap::new(),
            dead: BTreeSet::new(),
        }
    }

    pub fn joined(&mut self, member: &NodeId) -> News {
        // Whoever speaks lives; what was dead of that name is replaced or was taken for it wrongly.
        self.dead.retain(|dead| dead.name != member.name);
        if member.name == self.own.name {
            return if member.incarnation == self.own.incarnation {
                News::Known
            } else {
                News::OurName
            };
        }
        if self
            .gone
            .get(&member.name)
            .is_some_and(|&last| last > member.incarnation)
        {
            return News::Stale;
        }
        let before = self.live.get(&member.name).cloned();
        match before {
            Some(before) if before.incarnation == member.incarnation => News::Known,
            Some(before) if before.incarnation > member.incarnation => News::Stale,
            before => {
                self.live.insert(member.name.clone(), member.clone());
                let last = self.gone.remove(&member.name);
                match before {
                    Some(before) => News::Restarted {
                        before,
                        was_live: true,
                    },
                    None => match last {
                        Some(last) if last < member.incarnation => News::Restarted {
                            before: NodeId {
                                name: member.name.clone(),
                                incarnation: last,
                            },
                            was_live: false,
                        },
                        _ => News::Joined,
                    },
                }
            }
        }
    }

    /// Whether it was there.
    pub fn left(&mut self, member: &NodeId) -> bool {
        if self.live.get(&member.name) != Some(member) {
            return false;
        }
        self.live.remove(&member.name);
        self.gone.insert(member.name.clone(), member.incarnation);
        true
    }

    /// The last incarnation of a member that has gone.
    pub fn absent(&self, name: &str) -> Option<NodeId> {
        let incarnation = *self.gone.get(name)?;
        Some(NodeId::new(name, incarnation))
    }

    /// The names of those that have gone and not come back.
    pub fn absentees(&self) -> impl Iterator<Item = &str> {
        self.gone.keys().map(|name| &**name)
    }

    pub fn is_live(&self, member: &NodeId) -> bool {
        *member == self.own || self.live.get(&member.name) == Some(member)
    }

    /// Its process has ended.
    pub fn died(&mut self, member: &NodeId) {
        self.dead.insert(member.clone());
    }

    /// Whether its memory is lost: its process has ended, or another incarnation has its place.
    pub fn is_lost(&self, member: &NodeId) -> bool {
        if self.dead.contains(member) {
            return true;
        }
        let last = self.live.get(&member.name).map(|live| live.incarnation);
        let last = last.or_else(|| self.gone.get(&member.name).copied());
        last.is_some_and(|last| last > member.incarnation)
    }

    /// The live member of that name, ourselves included.
    pub fn named(&self, name: &str) -> Option<&NodeId> {
        if name == &*self.own.name {
            return Some(&self.own);
        }
        self.live.get(name)
    }

    /// All but ourselves, by name.
    pub fn others(&self) -> impl Iterator<Item = &NodeId> {
        self.live.values()
    }
}
