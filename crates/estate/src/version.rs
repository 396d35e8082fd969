//! Versions: hybrid logical clocks, and vector clocks for `causal`.
//!
//! A [`Stamp`] orders all writes of a node and, by [`Hlc::receive`], everything that depends on
//! something read from another node. It stays close to the time of day, so "latest" means what
//! people take it to mean as long as clocks roughly agree (E-State §III-A.2 names clock drift as
//! the risk of plain timestamps).
//!
//! A [`VectorClock`] tells "after" from "at the same time". It costs nothing until a global view
//! is used as the context of a write: an item's own entry is its stamp, so only foreign entries are
//! kept.

use crate::codec::{Malformed, Reader, put_bytes};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

const LOGICAL_BITS: u32 = 16;

/// A hybrid-logical-clock reading: 48 bits of milliseconds since 1970, 16 bits that count within
/// one (and carry into the next when a millisecond sees more writes than that).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Stamp(u64);

impl Stamp {
    /// Before every write.
    pub const ZERO: Self = Self(0);

    /// The first instant of a millisecond.
    #[inline]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms << LOGICAL_BITS)
    }

    /// From [`Stamp::to_bits`].
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As it travels and is stored.
    #[inline]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// Milliseconds since 1970.
    #[inline]
    pub const fn ms(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }

    /// The counter within the millisecond.
    #[inline]
    pub const fn logical(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// The next instant.
    #[inline]
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ms(), self.logical())
    }
}

/// A hybrid logical clock (Kulkarni et al. 2014). It is told the time and reads none.
#[derive(Clone, Debug, Default)]
pub struct Hlc {
    last: Stamp,
}

impl Hlc {
    /// Stamp of the next local event; greater than every stamp given or received before.
    pub fn tick(&mut self, now_ms: u64) -> Stamp {
        self.last = self.last.next().max(Stamp::from_ms(now_ms));
        self.last
    }

    /// Stamp of the receipt of something stamped `stamp`; greater than both.
    pub fn receive(&mut self, stamp: Stamp, now_ms: u64) -> Stamp {
        self.last = self.last.max(stamp);
        self.tick(now_ms)
    }

    /// The last stamp given.
    pub fn last(&self) -> Stamp {
        self.last
    }
}

/// How two versions are related.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Causality {
    /// The same version.
    Equal,
    /// The first was seen by whoever wrote the second.
    Before,
    /// The second was seen by whoever wrote the first.
    After,
    /// Neither knew the other: siblings.
    Concurrent,
}

/// For each node, the stamp of its last write that is part of the history.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct VectorClock {
    entries: BTreeMap<Arc<str>, Stamp>,
}

impl VectorClock {
    /// The clock of a history that is empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Last known write of `node`.
    pub fn get(&self, node: &str) -> Stamp {
        self.entries.get(node).copied().unwrap_or_default()
    }

    /// Takes a write of `node` into the history.
    pub fn record(&mut self, node: impl Into<Arc<str>>, stamp: Stamp) {
        let entry = self.entries.entry(node.into()).or_default();
        *entry = stamp.max(*entry);
    }

    /// Takes another history into this one.
    pub fn merge(&mut self, other: &Self) {
        for (node, &stamp) in &other.entries {
            self.record(node.clone(), stamp);
        }
    }

    /// How this history is related to `other`.
    pub fn compare(&self, other: &Self) -> Causality {
        let covers =
            |a: &Self, b: &Self| b.entries.iter().all(|(node, &stamp)| a.get(node) >= stamp);
        match (covers(self, other), covers(other, self)) {
            (true, true) => Causality::Equal,
            (true, false) => Causality::After,
            (false, true) => Causality::Before,
            (false, false) => Causality::Concurrent,
        }
    }

    /// Nodes and stamps, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Stamp)> {
        self.entries.iter().map(|(node, &stamp)| (&**node, stamp))
    }

    /// Number of nodes in it.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the history is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Appends the clock as it travels: a count (u16), then names and stamps.
    ///
    /// # Panics
    /// If it names more than 65,535 nodes.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let count = u16::try_from(self.len()).expect("a clock names at most 65,535 nodes");
        out.extend_from_slice(&count.to_be_bytes());
        for (node, stamp) in self.iter() {
            put_bytes(out, node.as_bytes());
            out.extend_from_slice(&stamp.to_bits().to_be_bytes());
        }
    }

    /// Reads what [`VectorClock::emit`] wrote.
    ///
    /// # Errors
    /// [`Malformed`] if it is cut short.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut clock = Self::new();
        for _ in 0..reader.u16("a clock's length")? {
            let node = reader.str("a clock's node")?;
            clock.record(node, Stamp::from_bits(reader.u64("a clock's stamp")?));
        }
        Ok(clock)
    }
}
