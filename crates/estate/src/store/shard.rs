//! One part of the items, behind one lock.
//!
//! All items of a flow are in one shard (they are routed by the flow, not by the key), so that a
//! flow can be frozen or taken under one lock.

use super::cut::Cut;
use super::hold::{Hold, Holds};
use super::record::{Link, Record, flag, footprint_of_new};
use super::shared::Shared;
use super::source::Source;
use super::track::Track;
use crate::error::Error;
use crate::flow::FlowKey;
use crate::item::ItemRef;
use crate::version::{Stamp, VectorClock};
use hashbrown::HashTable;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Why a write may need more than the write itself; nothing, nearly always.
pub(super) mod attention {
    /// A cut is open.
    pub const CUT: u8 = 1;
    /// Somebody wants to know of changes.
    pub const WATCHED: u8 = 2;
    /// A key or a flow is held.
    pub const HELD: u8 = 4;
    /// Somebody follows the changes of a key or a flow.
    pub const TRACKED: u8 = 8;
}

/// See above. The fields that every operation needs come first, in one cache line with the lock.
#[repr(C)]
pub(super) struct Shard {
    pub table: HashTable<Record>,
    // The greatest stamp given here.
    pub last: Stamp,
    pub attention: u8,
    // Fits behind `attention`.
    pub index: u32,
    pub bytes: usize,
    // One record of each flow; the others are in its ring.
    flows: HashTable<Record>,
    // Items with a time to live; each knows its place.
    pub mortals: Vec<Record>,
    // What the writers of an item had seen, where there was something (flag CONTEXT).
    contexts: HashMap<Link, VectorClock>,
    pub cuts: Vec<Cut>,
    pub holds: Holds,
    pub tracks: Vec<Track>,
    pub changed: HashSet<Box<str>>,
    pub expired: u64,
    pub evicted: u64,
}

/// How a write goes about it.
#[derive(Clone, Copy, Default)]
pub(super) struct How<'a> {
    /// When the item expires, ms.
    pub expires: Option<u64>,
    /// What the writer had seen.
    pub after: Option<&'a VectorClock>,
    /// The hold that writes, where one does.
    pub by: Option<Hold>,
    /// The stamp to write, where it is not the next one.
    pub at: Option<Stamp>,
    /// Whether `at` is when the value was written elsewhere, and not when it comes to be here.
    pub moved: bool,
    /// Leaves the expiry as it is (a counter's `add`).
    pub keep_expiry: bool,
}

/// What a write gave.
pub(super) struct Written {
    pub stamp: Stamp,
    /// Set: call [`Shared::wake`] without the lock.
    pub stirred: bool,
    /// The old value, if it was big: drop it without the lock.
    _old: Option<Arc<[u8]>>,
}

/// Why a write was refused.
pub(super) enum Refusal {
    /// So many bytes are missing: evict, and try again.
    NoRoom(usize),
    /// What is here was written later than what moves in.
    Older,
    Final(Error),
}

impl Shard {
    pub fn new(index: u32) -> Self {
        Self {
            table: HashTable::new(),
            last: Stamp::ZERO,
            attention: 0,
            index,
            bytes: 0,
            flows: HashTable::new(),
            mortals: Vec::new(),
            contexts: HashMap::new(),
            cuts: Vec::new(),
            holds: Holds::default(),
            tracks: Vec::new(),
            changed: HashSet::new(),
            expired: 0,
            evicted: 0,
        }
    }

    #[inline]
    pub fn find(&self, hash: u64, key: &str) -> Option<&Record> {
        self.table.find(hash, |record| {
            record.expect();
            record.key() == key
        })
    }

    /// The item, unless it has expired.
    #[inline]
    pub fn find_live(&self, shared: &Shared, hash: u64, key: &str) -> Option<&Record> {
        let record = self.find(hash, key)?;
        if record.has(flag::MORTAL) {
            let now_ms = shared.now_ms();
            if record.expired(now_ms) {
                return None;
            }
            record.touch(now_ms);
        }
        Some(record)
    }

    /// The next stamp.
    #[inline]
    pub fn tick(&mut self, shared: &Shared) -> Stamp {
        next(&mut self.last, shared)
    }

    /// An item as scans and reducers see it.
    #[inline]
    pub fn view<'a>(&'a self, record: &'a Record) -> ItemRef<'a> {
        ItemRef {
            key: record.key(),
            value: record.value(),
            stamp: record.stamp(),
            clock: self.context(record),
            expires: record.expires(),
        }
    }

    pub fn context(&self, record: &Record) -> Option<&VectorClock> {
        if !record.has(flag::CONTEXT) {
            return None;
        }
        self.contexts.get(&record.link())
    }

    /// Writes an item, new or not.
    pub fn write(
        &mut self,
        shared: &Shared,
        hash: u64,
        key: &str,
        source: &Source<'_>,
        how: &How<'_>,
    ) -> Result<Written, Refusal> {
        let Some(record) = self.table.find_mut(hash, |record| {
            record.expect();
            record.key() == key
        }) else {
            return self.create(shared, hash, key, source, how);
        };
        let plain = how.expires.is_none() && how.after.is_none() && how.at.is_none();
        if plain && self.attention == 0 && record.flags() & !flag::SPILLED == 0 {
            let (before, after) = (record.footprint(), record.footprint_with(source));
            if before != after {
                refit(shared, &mut self.bytes, before, after)?;
            }
            let stamp = next(&mut self.last, shared);
            record.set_stamp(stamp);
            return Ok(Written {
                stamp,
                stirred: false,
                _old: record.write(source.clone()),
            });
        }
        let record = record.share();
        self.rewrite(shared, record, source, how)
    }

    /// Writes an item about which something is special.
    #[cold]
    fn rewrite(
        &mut self,
        shared: &Shared,
        mut record: Record,
        source: &Source<'_>,
        how: &How<'_>,
    ) -> Result<Written, Refusal> {
        self.admit(shared, record.key(), how.by)?;
        let later = how.moved && how.at.is_some_and(|at| record.stamp() >= at);
        if later && !record.expired(shared.now_ms()) {
            return Err(Refusal::Older);
        }
        let (before, after) = (record.footprint(), record.footprint_with(source));
        refit(shared, &mut self.bytes, before, after)?;
        let (stamp, event) = self.stamps(shared, how);
        self.preserve(&record, event);
        if how.moved {
            // What was here may itself be younger than a cut; what moves in may look older.
            self.preserve_absence(record.key(), event);
        }
        let old = record.write(source.clone());
        record.set_stamp(stamp);
        self.finish(shared, &mut record, how);
        Ok(Written {
            stamp,
            stirred: self.note(shared, &record),
            _old: old,
        })
    }

    fn create(
        &mut self,
        shared: &Shared,
        hash: u64,
        key: &str,
        source: &Source<'_>,
        how: &How<'_>,
    ) -> Result<Written, Refusal> {
        self.admit(shared, key, how.by)?;
        refit(shared, &mut self.bytes, 0, footprint_of_new(key, source))?;
        let (stamp, event) = self.stamps(shared, how);
        let mut record = Record::new(key, source.clone());
        record.set_stamp(stamp);
        if how.moved {
            self.preserve_absence(key, event);
        }
        self.table
            .insert_unique(hash, record.share(), |record| shared.hash(record.key()));
        if let Some(scope) = FlowKey::scope(key) {
            self.enlist(shared, scope, &record);
        }
        self.finish(shared, &mut record, how);
        Ok(Written {
            stamp,
            stirred: self.note(shared, &record),
            _old: None,
        })
    }

    /// The stamp to write, and when that happens here.
    fn stamps(&mut self, shared: &Shared, how: &How<'_>) -> (Stamp, Stamp) {
        match how.at {
            None => {
                let stamp = self.tick(shared);
                (stamp, stamp)
            }
            Some(at) => {
                self.last = self.last.max(at);
                shared.order.saw(at);
                let event = if how.moved { self.tick(shared) } else { at };
                (at, event)
            }
        }
    }

    fn finish(&mut self, shared: &Shared, record: &mut Record, how: &How<'_>) {
        if !how.keep_expiry {
            self.set_expiry(shared, record, how.expires);
        }
        if record.has(flag::MORTAL) {
            record.touch(shared.now_ms());
        }
        if let Some(after) = how.after.filter(|after| !after.is_empty()) {
            record.set_flag(flag::CONTEXT, true);
            self.contexts.entry(record.link()).or_default().merge(after);
        }
    }

    fn set_expiry(&mut self, shared: &Shared, record: &mut Record, expires: Option<u64>) {
        match (record.has(flag::MORTAL), expires) {
            (true, None) => self.immortalise(shared, record),
            (false, Some(_)) => {
                record.set_place(self.mortals.len());
                self.mortals.push(record.share());
                shared.mortals.fetch_add(1, Ordering::Relaxed);
                record.set_flag(flag::MORTAL, true);
            }
            _ => {}
        }
        if let Some(ms) = expires {
            record.set_expires(ms);
        }
    }

    fn immortalise(&mut self, shared: &Shared, record: &Record) {
        let place = record.place();
        self.mortals.swap_remove(place);
        if let Some(moved) = self.mortals.get(place) {
            moved.set_place(place);
        }
        shared.mortals.fetch_sub(1, Ordering::Relaxed);
        record.set_flag(flag::MORTAL, false);
    }

    /// Takes an item out; drop it without need of the lock only if no handle can know it.
    pub fn unlink(&mut self, shared: &Shared, hash: u64, record: &Record) -> bool {
        let event = self.tick(shared);
        self.unlink_at(shared, hash, record, event)
    }

    /// As `unlink`, at a stamp that is given. Returns whether to wake the listener.
    pub fn unlink_at(&mut self, shared: &Shared, hash: u64, record: &Record, event: Stamp) -> bool {
        self.last = self.last.max(event);
        shared.order.saw(event);
        self.preserve(record, event);
        let stirred = self.note(shared, record);
        let link = record.link();
        let entry = self.table.find_entry(hash, |other| other.link() == link);
        // A counted reference, so that the item outlives its slot until this function is done.
        let record = record.share();
        match entry {
            Ok(entry) => drop(entry.remove()),
            Err(_) => return false,
        }
        if record.has(flag::MORTAL) {
            self.immortalise(shared, &record);
        }
        if record.has(flag::CONTEXT) {
            self.contexts.remove(&link);
            record.set_flag(flag::CONTEXT, false);
        }
        if let Some(scope) = FlowKey::scope(record.key()) {
            self.delist(shared, scope, &record);
        }
        record.set_flag(flag::GONE, true);
        let bytes = record.footprint();
        self.bytes -= bytes;
        shared.release(bytes);
        stirred
    }

    fn enlist(&mut self, shared: &Shared, scope: &str, record: &Record) {
        let hash = shared.hash(scope);
        match self.flows.find(hash, |first| scope_of(first) == scope) {
            Some(first) => record.join_ring(first),
            None => {
                self.flows
                    .insert_unique(hash, record.share(), |first| shared.hash(scope_of(first)));
            }
        }
    }

    fn delist(&mut self, shared: &Shared, scope: &str, record: &Record) {
        let neighbour = record.leave_ring();
        let hash = shared.hash(scope);
        let Ok(mut entry) = self
            .flows
            .find_entry(hash, |first| first.link() == record.link())
        else {
            return;
        };
        match neighbour {
            // SAFETY: a neighbour in the ring is in the table, and this shard is locked.
            Some(neighbour) => *entry.get_mut() = unsafe { neighbour.upgrade() },
            None => drop(entry.remove()),
        }
    }

    /// Shows the items of a flow to `f`.
    pub fn flow(&self, shared: &Shared, scope: &str, mut f: impl FnMut(&Record)) {
        let hash = shared.hash(scope);
        let Some(first) = self.flows.find(hash, |first| scope_of(first) == scope) else {
            return;
        };
        f(first);
        let mut next = first.next_in_ring();
        while next != first.link() {
            // SAFETY: a record in a ring is in the table, and this shard is locked.
            let record = unsafe { next.upgrade() };
            next = record.next_in_ring();
            f(&record);
        }
    }

    /// Whether somebody holds `key`.
    pub fn held(&self, shared: &Shared, key: &str) -> bool {
        self.attention & attention::HELD != 0 && self.holds.holder(shared, key).is_some()
    }

    /// Refuses a write to a key that somebody else than `by` holds.
    pub fn admit(&self, shared: &Shared, key: &str, by: Option<Hold>) -> Result<(), Error> {
        if self.attention & attention::HELD == 0 {
            return Ok(());
        }
        match self.holds.holder(shared, key) {
            Some(hold) if by != Some(hold) => Err(Error::Frozen {
                key: key.to_owned(),
                node: shared.node.to_string(),
                hold,
            }),
            _ => Ok(()),
        }
    }

    /// Notes that an item has changed, for whoever wants to know; says whether to wake them.
    pub fn note(&mut self, shared: &Shared, record: &Record) -> bool {
        if self.attention & attention::TRACKED != 0 {
            self.follow(shared, record.key());
        }
        if self.attention & attention::WATCHED == 0
            || record.has(flag::CHANGED)
            || !shared.wants(record.key())
        {
            return false;
        }
        record.set_flag(flag::CHANGED, true);
        if self.changed.is_empty() {
            shared.stir(self.index as usize);
        }
        self.changed.insert(record.key().into());
        true
    }
}

/// The stamp after all that were given here, received, or seen by this thread.
#[inline]
fn next(last: &mut Stamp, shared: &Shared) -> Stamp {
    *last = shared
        .order
        .sees(|seen| seen.max(*last).max(shared.floor()).next());
    *last
}

fn scope_of(record: &Record) -> &str {
    FlowKey::scope(record.key()).expect("only items of flows are in the table of flows")
}

/// Makes the books right for a record that takes `after` bytes instead of `before`.
fn refit(shared: &Shared, bytes: &mut usize, before: usize, after: usize) -> Result<(), Refusal> {
    if after > before {
        if !shared.reserve(after - before) {
            return Err(Refusal::NoRoom(after - before));
        }
    } else {
        shared.release(before - after);
    }
    *bytes = *bytes + after - before;
    Ok(())
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}
