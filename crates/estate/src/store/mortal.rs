//! Items that need not live for ever: time to live, and eviction at the memory limit.
//!
//! **What may be evicted** is what was given a time to live, and nothing else. A network function's
//! state is not a cache: to drop an address binding in silence breaks a connection. With a time to
//! live its author has said that the function copes without the item. Of 16 such items, looked at
//! round robin, the one used least recently goes (expired ones first), until there is room; without
//! any, the write is refused with [`Error::MemoryFull`] and nothing changes. Frozen items stay.
//!
//! Exact LRU would need a list that every read writes to; sampling 16 comes close to it and costs
//! readers one store (the approach of Redis, which takes 5).

use super::Store;
use super::record::{Record, flag};
use super::shard::Shard;
use std::sync::atomic::Ordering;

/// Items looked at before one is evicted.
const SAMPLE: usize = 16;

impl Shard {
    /// Removes an item that has lived; returns whether to wake the listener.
    fn bury(&mut self, store: &Store, record: &Record) -> bool {
        if record.expired(store.now_ms()) {
            self.expired += 1;
        } else {
            self.evicted += 1;
        }
        let hash = store.shared.hash(record.key());
        self.unlink(&store.shared, hash, record)
    }
}

impl Store {
    /// Removes what has expired among the next `budget` items that have a time to live; returns how
    /// many. Called now and then by the shell; what has expired is not seen in any case.
    pub fn sweep(&self, budget: usize) -> usize {
        if self.shared.mortals.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let now_ms = self.now_ms();
        let (mut looked_at, mut removed) = (0, 0);
        let mut stirred = false;
        for _ in 0..self.shards.len() {
            if looked_at >= budget {
                break;
            }
            let index = self.swept.fetch_add(1, Ordering::Relaxed) % self.shards.len();
            let mut shard = self.shards[index].lock();
            looked_at += shard.mortals.len();
            let dead = |record: &&Record| {
                record.expired(now_ms) && !shard.held(&self.shared, record.key())
            };
            let dead: Vec<Record> = shard
                .mortals
                .iter()
                .filter(dead)
                .map(Record::share)
                .collect();
            for record in dead {
                stirred |= shard.bury(self, &record);
                removed += 1;
            }
        }
        if stirred {
            self.shared.wake();
        }
        removed
    }

    /// Evicts one item; returns whether there was one to evict.
    pub(super) fn evict(&self) -> bool {
        let now_ms = self.now_ms();
        let age = |record: &Record| match record.expired(now_ms) {
            true => u32::MAX,
            false => (now_ms as u32).wrapping_sub(record.touched()),
        };
        if self.shared.mortals.load(Ordering::Relaxed) == 0 {
            return false;
        }
        // Where the oldest item so far is, by key: it may go before it is looked at again.
        let mut oldest: Option<(u32, usize, Box<str>)> = None;
        let mut sampled = 0;
        for _ in 0..self.shards.len() {
            let turn = self.evicting.fetch_add(1, Ordering::Relaxed);
            let index = turn % self.shards.len();
            let shard = self.shards[index].lock();
            let count = shard.mortals.len();
            // A few of each shard, from another place each time round.
            let start = turn / self.shards.len() * 4;
            for offset in 0..count.min(4) {
                let record = &shard.mortals[(start + offset) % count];
                if shard.held(&self.shared, record.key()) {
                    continue;
                }
                sampled += 1;
                let age = age(record);
                if oldest.as_ref().is_none_or(|(most, ..)| age > *most) {
                    oldest = Some((age, index, record.key().into()));
                }
            }
            if sampled >= SAMPLE {
                break;
            }
        }
        let Some((_, index, key)) = oldest else {
            return false;
        };
        let mut shard = self.shards[index].lock();
        let Some(record) = shard.find(self.shared.hash(&key), &key).map(Record::share) else {
            return true;
        };
        if !record.has(flag::MORTAL) || shard.held(&self.shared, record.key()) {
            return true;
        }
        let stirred = shard.bury(self, &record);
        drop(record);
        drop(shard);
        if stirred {
            self.shared.wake();
        }
        true
    }
}
