//! Replicas of global reads, for readers that ask neither the network nor the engine.

use super::engine::Now;
use crate::item::Item;
use crate::pattern::Pattern;
use crate::query::View;
use crate::reduce::Reducer;
use crate::value::Value;
use foldhash::fast::FixedState;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// In `as_of`: some member has not said anything yet.
const NEVER: u64 = u64::MAX;

/// What a replica shows.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub value: Option<Value>,
    pub items: Vec<Item>,
    pub answered: Vec<String>,
}

/// One replica. The engine writes it, any thread reads it.
#[derive(Debug)]
pub(super) struct Replica {
    pattern: Pattern,
    reducer: Reducer,
    shown: RwLock<Arc<Shown>>,
    // The earliest moment at which any of it was certainly true, ns of our clock, or NEVER.
    as_of: AtomicU64,
    last_read: AtomicU64,
}

impl Replica {
    fn is(&self, pattern: &Pattern, reducer: Reducer) -> bool {
        self.reducer == reducer && self.pattern == *pattern
    }

    pub fn show(&self, shown: Shown) {
        *self.shown.write() = Arc::new(shown);
    }

    pub fn set_as_of(&self, as_of: Option<Now>) {
        self.as_of
            .store(as_of.map_or(NEVER, nanos), Ordering::Release);
    }

    pub fn last_read(&self) -> Now {
        Now::from_nanos(self.last_read.load(Ordering::Relaxed))
    }

    pub fn touch(&self, now: Now) {
        self.last_read.fetch_max(nanos(now), Ordering::Relaxed);
    }
}

/// A read of a replica.
#[derive(Clone, Debug)]
pub struct CachedView {
    shown: Arc<Shown>,
    /// How old the oldest part of it may be.
    pub oldest: Duration,
}

impl CachedView {
    /// The value.
    pub fn value(&self) -> Option<Value> {
        self.shown.value.clone()
    }

    /// All there is to know.
    pub fn to_view(&self) -> View {
        View {
            value: self.shown.value.clone(),
            items: self.shown.items.clone(),
            answered: self.shown.answered.clone(),
            missing: Vec::new(),
            complete: true,
            oldest: Some(self.oldest),
        }
    }
}

/// The replicas of one engine. Reading takes two short locks that no scan and no message holds.
#[derive(Debug, Default)]
pub struct Replicas {
    table: RwLock<HashMap<u64, Vec<Arc<Replica>>, FixedState>>,
}

fn slot(pattern: &Pattern, reducer: Reducer) -> u64 {
    let mut hasher = FixedState::default().build_hasher();
    pattern.as_str().hash(&mut hasher);
    hasher.write_u8(reducer as u8);
    hasher.finish()
}

fn nanos(now: Now) -> u64 {
    u64::try_from(now.as_nanos()).unwrap_or(NEVER - 1)
}

impl Replicas {
    /// What the replica says, if there is one no older than `max_age`. Otherwise ask the engine,
    /// which will keep one from then on.
    pub fn read(
        &self,
        pattern: &Pattern,
        reducer: Reducer,
        max_age: Duration,
        now: Now,
    ) -> Option<CachedView> {
        let table = self.table.read();
        let replica = table
            .get(&slot(pattern, reducer))?
            .iter()
            .find(|replica| replica.is(pattern, reducer))?;
        replica.touch(now);
        // Before what is shown, so that it is never newer than that.
        let as_of = replica.as_of.load(Ordering::Acquire);
        if as_of == NEVER {
            return None;
        }
        let oldest = now.saturating_sub(Now::from_nanos(as_of));
        (oldest <= max_age).then(|| CachedView {
            shown: replica.shown.read().clone(),
            oldest,
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.read().values().map(Vec::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn open(&self, pattern: &Pattern, reducer: Reducer, now: Now) -> Arc<Replica> {
        let replica = Arc::new(Replica {
            pattern: pattern.clone(),
            reducer,
            shown: RwLock::default(),
            as_of: AtomicU64::new(NEVER),
            last_read: AtomicU64::new(nanos(now)),
        });
        let mut table = self.table.write();
        table
            .entry(slot(pattern, reducer))
            .or_default()
            .push(replica.clone());
        replica
    }

    pub(super) fn close(&self, replica: &Arc<Replica>) {
        let mut table = self.table.write();
        let slot = slot(&replica.pattern, replica.reducer);
        if let Some(all) = table.get_mut(&slot) {
            all.retain(|other| !Arc::ptr_eq(other, replica));
            if all.is_empty() {
                table.remove(&slot);
            }
        }
    }
}
