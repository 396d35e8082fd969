//! The items of this instance. See [`Store`].
//!
//! A store is 256 shards, each a hash table behind a lock that is held for a few instructions
//! (and, in scans, for one shard's share of the items). It knows no network and reads no clock.
//!
//! Each shard gives stamps of its own, so that threads that write different keys share nothing.
//! Stamps order the writes of a key, and come after everything received before. Two writes of
//! *different* keys within one tick may be stamped either way round; a cut does not rely on that,
//! and whoever sends [`Store::clock`] along with an answer passes on an upper bound of all of them.

mod cut;
mod handle;
mod hold;
mod interest;
mod mortal;
mod order;
mod record;
mod scan;
mod shard;
mod shared;
mod source;
mod track;

pub use handle::Handle;
pub use hold::{Hold, Selection};

use crate::error::Error;
use crate::flow::FlowKey;
use crate::item::{Item, ItemRef};
use crate::key::Key;
use crate::pattern::Pattern;
use crate::value::{Value, ValueRef};
use crate::version::{Stamp, VectorClock};
use parking_lot::Mutex;
use record::{Record, flag};
use shard::{How, Refusal, Shard};
use shared::Shared;
use source::Source;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// A power of two. More of them hold their locks more shortly in a scan, and cost more cache and
/// more time in what looks at all of them, such as [`Store::clock`].
const SHARDS: usize = 256;
/// The longest value, bytes.
pub const VALUE_MAX: usize = 1 << 30;

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
    /// Items held, including those that have expired and are not swept yet.
    pub items: usize,
    /// Bytes they take: keys, values and what goes with them.
    pub bytes: usize,
    /// The limit, bytes.
    pub limit: Option<usize>,
    /// Items evicted to make room, ever.
    pub evicted: u64,
    /// Items expired and removed, ever.
    pub expired: u64,
}

/// Asked now and then during a scan: `true` stops it with [`Error::ScanStopped`].
pub type Until<'a> = &'a dyn Fn() -> bool;

/// A shard, alone in its cache lines.
#[repr(align(128))]
struct Locked(Mutex<Shard>);

impl std::ops::Deref for Locked {
    type Target = Mutex<Shard>;

    #[inline]
    fn deref(&self) -> &Mutex<Shard> {
        &self.0
    }
}

/// The items of this instance: strictly consistent across threads, never waiting for more than
/// another thread's few instructions on the same shard.
pub struct Store {
    shards: Box<[Locked]>,
    shared: Shared,
    // What each hold has, by shard. Locked before any shard.
    held: Mutex<HashMap<Hold, hold::Names>>,
    // Where the next sweep and the next eviction begin.
    swept: AtomicUsize,
    evicting: AtomicUsize,
}

impl Store {
    /// An empty store; its clock stands at 0 until the first [`Store::tick`].
    pub fn new(options: StoreOptions) -> Self {
        let shard = |index| Locked(Mutex::new(Shard::new(index as u32)));
        Self {
            shards: (0..SHARDS).map(shard).collect(),
            shared: Shared::new(options.node, options.memory_limit),
            held: Mutex::default(),
            swept: AtomicUsize::new(0),
            evicting: AtomicUsize::new(0),
        }
    }

    /// The node that owns the items.
    pub fn node(&self) -> &Arc<str> {
        &self.shared.node
    }

    /// Tells the time, milliseconds since 1970; it never goes back. Called every few ms by the
    /// shell: it is how items expire, and what stamps stay close to.
    pub fn tick(&self, now_ms: u64) {
        self.shared.tick(now_ms);
    }

    /// The time as last told.
    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.shared.now_ms()
    }

    /// The greatest stamp given or seen so far. Looks at every shard.
    pub fn clock(&self) -> Stamp {
        let given = self.shards.iter().map(|shard| shard.lock().last).max();
        given.unwrap_or_default().max(self.shared.floor())
    }

    /// The greatest stamp that what matches `pattern` can have been written or removed with so far:
    /// what was read of it depends on nothing later. For a single key it looks at one shard.
    pub fn clock_of(&self, pattern: &Pattern) -> Stamp {
        match pattern.as_exact() {
            None => self.clock(),
            Some(key) => {
                let (shard, _) = self.place(key);
                let given = self.shards[shard].lock().last;
                given.max(self.shared.floor())
            }
        }
    }

    /// Something stamped so was received: every later write is stamped later.
    pub fn observe(&self, stamp: Stamp) {
        self.shared.raise_floor(stamp);
    }

    /// Bits that the table of a shard does not look at choose the shard.
    #[inline]
    fn route(&self, hash: u64) -> usize {
        (hash >> 40) as usize & (SHARDS - 1)
    }

    /// Shard and hash of a key.
    #[inline]
    fn place(&self, key: &str) -> (usize, u64) {
        let hash = self.shared.hash(key);
        match FlowKey::scope(key) {
            None => (self.route(hash), hash),
            Some(scope) => (self.route(self.shared.hash(scope)), hash),
        }
    }

    fn how<'a>(&self, options: SetOptions<'a>) -> How<'a> {
        How {
            expires: options.ttl.map(|ttl| {
                let ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                self.now_ms().saturating_add(ms.max(1))
            }),
            after: options.after,
            ..How::default()
        }
    }

    /// Writes an item; it lives until it is deleted.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::ValueTooBig`], [`Error::MemoryFull`], [`Error::Frozen`].
    pub fn set(&self, key: &str, value: impl Into<Value>) -> Result<Stamp, Error> {
        let value = value.into();
        self.write(key, Source::from_value(&value), &How::default())
            .map(Option::unwrap_or_default)
    }

    /// Writes an item, with a time to live or a history.
    ///
    /// # Errors
    /// As [`Store::set`].
    #[inline]
    pub fn set_with(
        &self,
        key: &str,
        value: ValueRef<'_>,
        options: SetOptions<'_>,
    ) -> Result<Stamp, Error> {
        self.write(key, Source::from_ref(value), &self.how(options))
            .map(Option::unwrap_or_default)
    }

    #[inline]
    fn write(&self, key: &str, source: Source<'_>, how: &How<'_>) -> Result<Option<Stamp>, Error> {
        let key = Key::new(key)?.as_str();
        let (shard, hash) = self.place(key);
        self.write_at(shard, hash, key, source, how)
    }

    /// Writes to a key whose place is known. No stamp: what was there is newer, and stays.
    #[inline]
    fn write_at(
        &self,
        shard: usize,
        hash: u64,
        key: &str,
        source: Source<'_>,
        how: &How<'_>,
    ) -> Result<Option<Stamp>, Error> {
        if source.len() > VALUE_MAX {
            return Err(Error::ValueTooBig {
                key: key.to_owned(),
                bytes: source.len(),
                most: VALUE_MAX,
            });
        }
        loop {
            let result = self.shards[shard]
                .lock()
                .write(&self.shared, hash, key, &source, how);
            match result {
                Ok(written) => {
                    if written.stirred {
                        self.shared.wake();
                    }
                    return Ok(Some(written.stamp));
                }
                Err(Refusal::Older) => return Ok(None),
                Err(Refusal::Final(error)) => return Err(error),
                Err(Refusal::NoRoom(needed)) => self.make_room(key, needed)?,
            }
        }
    }

    #[cold]
    fn make_room(&self, key: &str, needed: usize) -> Result<(), Error> {
        let limit = self.shared.limit.unwrap_or(usize::MAX);
        if needed <= limit && self.evict() {
            return Ok(());
        }
        Err(Error::MemoryFull {
            key: key.to_owned(),
            node: self.shared.node.to_string(),
            needed,
            limit,
        })
    }

    /// The value; a big one is shared, not copied.
    #[inline]
    pub fn get(&self, key: &str) -> Option<Value> {
        let (shard, hash) = self.place(key);
        let shard = self.shards[shard].lock();
        let record = shard.find_live(&self.shared, hash, key)?;
        self.shared.order.saw(record.stamp());
        Some(record.to_value())
    }

    /// The item, with its version.
    pub fn get_item(&self, key: &str) -> Option<Item> {
        let (shard, hash) = self.place(key);
        let shard = self.shards[shard].lock();
        let record = shard.find_live(&self.shared, hash, key)?;
        self.shared.order.saw(record.stamp());
        Some(self.item(&shard, record))
    }

    /// Shows the item to `f` where it is, without copying it; `f` must not call the store. No lock
    /// is held while `f` looks at a big value.
    #[inline]
    pub fn with<R>(&self, key: &str, f: impl FnOnce(ItemRef<'_>) -> R) -> Option<R> {
        let (shard, hash) = self.place(key);
        let shard = self.shards[shard].lock();
        let record = shard.find_live(&self.shared, hash, key)?;
        self.shared.order.saw(record.stamp());
        if record.has(flag::SPILLED) {
            let item = self.item(&shard, record);
            drop(shard);
            return Some(f(item.borrow()));
        }
        Some(f(shard.view(record)))
    }

    /// Removes an item; returns whether there was one.
    ///
    /// # Errors
    /// [`Error::Frozen`].
    pub fn delete(&self, key: &str) -> Result<bool, Error> {
        self.delete_as(key, &How::default())
    }

    fn delete_as(&self, key: &str, how: &How<'_>) -> Result<bool, Error> {
        let (index, hash) = self.place(key);
        let mut shard = self.shards[index].lock();
        let Some(record) = shard.find(hash, key).map(Record::share) else {
            return Ok(false);
        };
        shard.admit(&self.shared, key, how.by)?;
        let lived = !record.expired(self.now_ms());
        let stirred = match how.at {
            Some(at) => shard.unlink_at(&self.shared, hash, &record, at),
            None => shard.unlink(&self.shared, hash, &record),
        };
        drop(record);
        drop(shard);
        if stirred {
            self.shared.wake();
        }
        Ok(lived)
    }

    /// Adds to a counter and returns the sum. An item that is not there starts at 0 and lives until
    /// it is deleted; one that is keeps its time to live.
    ///
    /// # Errors
    /// [`Error::Type`] if it holds something else than an int, [`Error::Overflow`], and those of
    /// [`Store::set`].
    #[inline]
    pub fn add(&self, key: &str, delta: i64) -> Result<i64, Error> {
        let key = Key::new(key)?.as_str();
        let (shard, hash) = self.place(key);
        self.add_at(shard, hash, key, delta)
    }

    fn add_at(&self, index: usize, hash: u64, key: &str, delta: i64) -> Result<i64, Error> {
        loop {
            let mut shard = self.shards[index].lock();
            let found = shard.find_live(&self.shared, hash, key);
            let (old, keep_expiry) = match found.map(|record| record.value()) {
                None => (0, false),
                Some(ValueRef::Int(int)) => (int, true),
                Some(other) => return Err(self.no_counter(key, other)),
            };
            let Some(sum) = old.checked_add(delta) else {
                return Err(Error::Overflow {
                    key: key.to_owned(),
                    node: self.shared.node.to_string(),
                    value: old,
                    delta,
                });
            };
            let how = How {
                keep_expiry,
                ..How::default()
            };
            let source = Source::Small(ValueRef::Int(sum));
            let result = shard.write(&self.shared, hash, key, &source, &how);
            drop(shard);
            match result {
                Ok(written) => {
                    if written.stirred {
                        self.shared.wake();
                    }
                    return Ok(sum);
                }
                Err(Refusal::Final(error)) => return Err(error),
                Err(Refusal::NoRoom(needed)) => self.make_room(key, needed)?,
                Err(Refusal::Older) => unreachable!("only what moves in can be older"),
            }
        }
    }

    fn no_counter(&self, key: &str, found: ValueRef<'_>) -> Error {
        Error::Type {
            key: key.to_owned(),
            node: self.shared.node.to_string(),
            found: found.type_name(),
            wanted: "int",
            remedy: "count under another key, or set this one to an int first",
        }
    }

    /// What the items take. Looks at every shard.
    pub fn memory(&self) -> Memory {
        let mut memory = Memory {
            limit: self.shared.limit,
            ..Memory::default()
        };
        for shard in &self.shards {
            let shard = shard.lock();
            memory.items += shard.table.len();
            memory.bytes += shard.bytes;
            memory.evicted += shard.evicted;
            memory.expired += shard.expired;
        }
        memory
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = self.memory();
        f.debug_struct("Store")
            .field("node", &self.shared.node)
            .field("memory", &memory)
            .finish_non_exhaustive()
    }
}
