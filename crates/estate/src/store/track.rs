//! What has changed of a selection since somebody last looked: how a move that copies items while they
//! are written knows what to send again, without looking at all of them.
//!
//! While a selection is tracked, a write in one of its shards costs a look into a table.

use super::hold::{Hold, Name, by_shard};
use super::shard::{Shard, attention};
use super::shared::Shared;
use super::{Selection, Store};
use crate::flow::FlowKey;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::collections::HashSet;

/// What one move follows in one shard.
pub(super) struct Track {
    hold: Hold,
    names: HashTable<Name>,
    changed: HashSet<Box<str>>,
}

impl Track {
    fn covers(&self, shared: &Shared, key: &str) -> bool {
        let named = |flow: bool, text: &str| {
            let same = |name: &Name| matches!(name, Name::Flow(_)) == flow && name.as_str() == text;
            self.names.find(shared.hash(text), same).is_some()
        };
        named(false, key) || FlowKey::scope(key).is_some_and(|scope| named(true, scope))
    }
}

impl Shard {
    /// Notes for whoever follows it that `key` was written or removed.
    pub fn follow(&mut self, shared: &Shared, key: &str) {
        for track in &mut self.tracks {
            if !track.changed.contains(key) && track.covers(shared, key) {
                track.changed.insert(key.into());
            }
        }
    }
}

impl Store {
    /// Has changes of the selection noted for `hold` from now on, until [`Store::untrack`].
    pub fn track(&self, hold: Hold, selection: &Selection) {
        by_shard(self, &self.names(selection), |shard, names| {
            shard.attention |= attention::TRACKED;
            let mut track = Track {
                hold,
                names: HashTable::with_capacity(names.len()),
                changed: HashSet::new(),
            };
            let hash = |name: &Name| self.shared.hash(name.as_str());
            for (_, name) in names {
                if let Entry::Vacant(slot) =
                    track.names.entry(hash(name), |other| other == name, hash)
                {
                    slot.insert(name.clone());
                }
            }
            shard.tracks.push(track);
        });
    }

    /// The keys of what `hold` tracks that were written or removed since the last call.
    pub fn tracked(&self, hold: Hold) -> Vec<String> {
        let mut changed = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            for track in shard.tracks.iter_mut().filter(|track| track.hold == hold) {
                changed.extend(track.changed.drain().map(String::from));
            }
        }
        changed
    }

    /// Nothing is noted for `hold` any more.
    pub fn untrack(&self, hold: Hold) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard.tracks.retain(|track| track.hold != hold);
            if shard.tracks.is_empty() {
                shard.attention &= !attention::TRACKED;
            }
        }
    }
}
