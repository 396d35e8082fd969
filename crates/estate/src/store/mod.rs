//! The items of this instance. See [`Store`].

use crate::error::Error;
use crate::flow::FlowKey;
use crate::item::{Item, ItemRef};
use crate::pattern::Pattern;
use crate::value::{Value, ValueRef};
use crate::version::{Stamp, VectorClock};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What a store is told at its beginning.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The node that owns the items.
    pub node: Arc<str>,
    /// The most bytes that items may take; none: no limit.
    pub memory_limit: Option<usize>,
}

impl StoreOptions {
    /// No limit.
    pub fn named(node: &str) -> Self {
        Self {
            node: node.into(),
            memory_limit: None,
        }
    }
}

/// How an item is written, beyond its value.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetOptions<'a> {
    /// The item expires so long after the write; none: never. Such items may be evicted, too.
    pub ttl: Option<Duration>,
    /// What the writer has seen of other nodes (the history of a global view), for `causal`.
    pub after: Option<&'a VectorClock>,
}

/// What holds items still: a move between instances, or a joint write. Ids are the caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Hold {
    /// `take`, by its move id.
    Move(u64),
    /// A joint write, by its id.
    Joint(u64),
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Move(id) => write!(f, "move {id:#x}"),
            Self::Joint(id) => write!(f, "joint write {id:#x}"),
        }
    }
}

/// The items that an operation is about.
#[derive(Clone, Debug)]
pub enum Selection {
    /// These keys, whether they exist or not.
    Keys(Vec<String>),
    /// All items of these flows, also those that are yet to be created.
    Flows(Vec<FlowKey>),
}

/// Who is told of changes: the caller's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interest(pub u64);

/// A key that has changed since the last look, however often.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// The item as it is now; none if it has gone.
    pub item: Option<Item>,
}

/// What the items take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Items held.
    pub items: usize,
    /// Bytes they take: keys, values and what goes with them.
    pub bytes: usize,
    /// The limit, bytes.
    pub limit: Option<usize>,
    /// Items evicted to make room, ever.
    pub evicted: u64,
    /// Items expired, ever.
    pub expired: u64,
}

/// Asked now and then during a scan: `true` stops it with [`Error::ScanStopped`].
pub type Until<'a> = &'a dyn Fn() -> bool;

/// The items of this instance: strictly consistent across threads, never waiting for more than
/// another thread's few instructions on the same shard.
pub struct Store {
    options: StoreOptions,
}

/// An item, resolved once, for updates on the packet path.
pub struct Handle {
    store: Arc<Store>,
    key: Box<str>,
}

#[allow(unused_variables, missing_docs)]
impl Store {
    /// An empty store; its clock stands at 0 until the first [`Store::tick`].
    pub fn new(options: StoreOptions) -> Self {
        Self { options }
    }
    /// The node that owns the items.
    pub fn node(&self) -> &Arc<str> {
        &self.options.node
    }
    /// Tells the time, milliseconds since 1970; never goes back. Called every few ms by the shell.
    pub fn tick(&self, now_ms: u64) {
        todo!()
    }
    /// The time as last told.
    pub fn now_ms(&self) -> u64 {
        todo!()
    }
    /// The greatest stamp given or seen.
    pub fn clock(&self) -> Stamp {
        todo!()
    }
    /// Something stamped so was received: later writes are stamped later.
    pub fn observe(&self, stamp: Stamp) {
        todo!()
    }
    pub fn set(&self, key: &str, value: impl Into<Value>) -> Result<Stamp, Error> {
        todo!()
    }
    pub fn set_with(
        &self,
        key: &str,
        value: ValueRef<'_>,
        options: SetOptions<'_>,
    ) -> Result<Stamp, Error> {
        todo!()
    }
    pub fn get(&self, key: &str) -> Option<Value> {
        todo!()
    }
    pub fn get_item(&self, key: &str) -> Option<Item> {
        todo!()
    }
    /// Shows the item to `f` without copying it; `f` must not call the store.
    pub fn with<R>(&self, key: &str, f: impl FnOnce(ItemRef<'_>) -> R) -> Option<R> {
        todo!()
    }
    pub fn delete(&self, key: &str) -> Result<bool, Error> {
        todo!()
    }
    pub fn add(&self, key: &str, delta: i64) -> Result<i64, Error> {
        todo!()
    }
    pub fn keys(&self, pattern: &Pattern, until: Option<Until<'_>>) -> Result<Vec<String>, Error> {
        todo!()
    }
    /// Shows matching items to `f`, which must not call the store; returns how many matched.
    pub fn scan(
        &self,
        pattern: &Pattern,
        until: Option<Until<'_>>,
        f: impl FnMut(ItemRef<'_>),
    ) -> Result<usize, Error> {
        todo!()
    }
    /// Shows the selected items written after `since` to `f` (pre-copy: `Stamp::ZERO` for all).
    pub fn scan_selection(
        &self,
        selection: &Selection,
        since: Stamp,
        f: impl FnMut(ItemRef<'_>),
    ) -> usize {
        todo!()
    }
    pub fn handle(self: &Arc<Self>, key: &str) -> Result<Handle, Error> {
        todo!()
    }
    /// Refuses writes to the selection from now on, other than by `hold`. Repeating it changes
    /// nothing. Fails, and freezes nothing, if another hold has any of it.
    pub fn freeze(&self, hold: Hold, selection: &Selection) -> Result<(), Error> {
        todo!()
    }
    /// Lets writes happen again; returns whether there was anything to thaw.
    pub fn thaw(&self, hold: Hold) -> bool {
        todo!()
    }
    /// Shows the frozen items written after `since` to `f`.
    pub fn scan_held(&self, hold: Hold, since: Stamp, f: impl FnMut(ItemRef<'_>)) -> usize {
        todo!()
    }
    /// Removes the frozen items and the hold (the source's commit); returns how many.
    pub fn remove_held(&self, hold: Hold) -> usize {
        todo!()
    }
    /// Takes over an item as it was, stamp and all (the destination's commit). Where one with that
    /// key is already here, the later stamp wins; returns whether the moved one is in.
    pub fn insert_moved(&self, item: &Item) -> Result<bool, Error> {
        todo!()
    }
    /// Writes a frozen key at a given stamp, by the hold that froze it (a joint write's commit).
    /// `None` deletes.
    pub fn write_held(
        &self,
        hold: Hold,
        key: &str,
        value: Option<ValueRef<'_>>,
        at: Stamp,
    ) -> Result<(), Error> {
        todo!()
    }
    /// From now on writes are stamped after `at`, and the matching items stay readable as of `at`.
    pub fn begin_cut(&self, id: u64, at: Stamp, pattern: &Pattern) -> Result<(), Error> {
        todo!()
    }
    pub fn scan_cut(
        &self,
        id: u64,
        until: Option<Until<'_>>,
        f: impl FnMut(ItemRef<'_>),
    ) -> Result<usize, Error> {
        todo!()
    }
    pub fn end_cut(&self, id: u64) -> bool {
        todo!()
    }
    /// Collects changes of matching keys from now on.
    pub fn declare(&self, interest: Interest, pattern: Pattern) {
        todo!()
    }
    pub fn withdraw(&self, interest: Interest) -> bool {
        todo!()
    }
    /// `wake` is called, by the writing thread and once until the next [`Store::changes`], when
    /// something of interest has changed.
    pub fn on_change(&self, wake: Box<dyn Fn() + Send + Sync>) {
        todo!()
    }
    /// What has changed since the last call, each key once, however often it was written.
    pub fn changes(&self) -> Vec<Change> {
        todo!()
    }
    /// Removes expired items among at most `budget` that have a time to live; returns how many.
    pub fn sweep(&self, budget: usize) -> usize {
        todo!()
    }
    pub fn memory(&self) -> Memory {
        todo!()
    }
}

#[allow(unused_variables, missing_docs)]
impl Handle {
    pub fn key(&self) -> &str {
        &self.key
    }
    pub fn add(&self, delta: i64) -> Result<i64, Error> {
        self.store.add(&self.key, delta)
    }
    pub fn get(&self) -> Option<Value> {
        self.store.get(&self.key)
    }
    pub fn set(&self, value: impl Into<Value>) -> Result<Stamp, Error> {
        self.store.set(&self.key, value)
    }
    pub fn delete(&self) -> Result<bool, Error> {
        self.store.delete(&self.key)
    }
}
