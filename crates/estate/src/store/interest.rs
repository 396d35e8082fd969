//! Interest: which keys have changed, for cached views and watches.
//!
//! Without any interest a write tests one flag. With it, a changed key is put into its shard's set
//! once, however often it is written before the next look: 100,000 updates of a counter are one
//! change.

use super::record::{Record, flag};
use super::shard::{Shard, attention};
use super::{Change, Interest, Store};
use crate::item::Item;
use crate::pattern::Pattern;
use std::sync::Arc;

impl Store {
    /// Collects changes of matching keys from now on. Declared again, the pattern is replaced.
    pub fn declare(&self, interest: Interest, pattern: Pattern) {
        let mut interests = self.shared.interests.write();
        interests.retain(|(other, _)| *other != interest);
        interests.push((interest, pattern));
        drop(interests);
        self.set_watched(true);
    }

    /// Ends an interest; returns whether it was declared.
    pub fn withdraw(&self, interest: Interest) -> bool {
        let mut interests = self.shared.interests.write();
        let before = interests.len();
        interests.retain(|(other, _)| *other != interest);
        let (after, last) = (interests.len(), interests.is_empty());
        drop(interests);
        if last {
            self.set_watched(false);
        }
        after < before
    }

    fn set_watched(&self, on: bool) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            // Read under the lock: a declaration and a withdrawal may run at the same time.
            let on = on || !self.shared.interests.read().is_empty();
            if on {
                shard.attention |= attention::WATCHED;
            } else {
                shard.attention &= !attention::WATCHED;
            }
        }
    }

    /// `wake` is called by the thread that writes, without any lock, when something of interest
    /// has changed; then not again until [`Store::changes`] was called.
    pub fn on_change(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.shared.set_wake(Arc::new(wake));
    }

    /// What has changed since the last call: each key once, with the item as it is now.
    pub fn changes(&self) -> Vec<Change> {
        let now_ms = self.now_ms();
        let mut changes = Vec::new();
        for index in self.shared.take_stirred() {
            let mut shard = self.shards[index].lock();
            for key in std::mem::take(&mut shard.changed) {
                let record = shard.find(self.shared.hash(&key), &key);
                if let Some(record) = record {
                    record.set_flag(flag::CHANGED, false);
                }
                let item = record
                    .filter(|record| !record.expired(now_ms))
                    .map(|record| self.item(&shard, record));
                changes.push(Change {
                    key: key.into(),
                    item,
                });
            }
        }
        changes
    }

    pub(super) fn item(&self, shard: &Shard, record: &Record) -> Item {
        Item {
            key: record.key().to_owned(),
            value: record.to_value(),
            stamp: record.stamp(),
            clock: shard.context(record).cloned(),
            node: Arc::clone(&self.shared.node),
            expires: record.expires(),
        }
    }
}
