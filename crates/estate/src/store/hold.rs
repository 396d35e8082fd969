//! Holds: items that a move or a joint write has frozen. They can be read; a write is refused at
//! once with [`Error::Frozen`], so nothing is acknowledged that could be lost, and no packet path
//! waits.
//!
//! A hold is on names, not on items: a key that does not exist yet, and whatever a held flow has
//! yet to get, are frozen, too.

use super::record::Record;
use super::shard::{How, Shard, attention};
use super::shared::Shared;
use super::{Source, Store};
use crate::error::Error;
use crate::flow::FlowKey;
use crate::item::{Item, ItemRef};
use crate::value::ValueRef;
use crate::version::Stamp;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::fmt;
use std::sync::Arc;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// These keys, whether they exist or not.
    Keys(Vec<String>),
    /// All items of these flows, also those that are yet to be created.
    Flows(Vec<FlowKey>),
}

/// One name that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Key(Arc<str>),
    Flow(FlowKey),
}

impl Name {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Key(key) => key,
            Self::Flow(flow) => flow.as_str(),
        }
    }

    /// What decides on the shard.
    fn route(&self) -> &str {
        match self {
            Self::Key(key) => FlowKey::scope(key).unwrap_or(key),
            Self::Flow(flow) => flow.as_str(),
        }
    }
}

/// Names and their shards, in the order of the shards, so that each is locked once.
pub(super) type Names = Vec<(usize, Name)>;

/// What is held in one shard: keys, flows, and who holds them.
#[derive(Default)]
pub(super) struct Holds(HashTable<(Name, Hold)>);

impl Holds {
    fn get(&self, shared: &Shared, flow: bool, text: &str) -> Option<Hold> {
        let same = |(name, _): &(Name, Hold)| {
            matches!(name, Name::Flow(_)) == flow && name.as_str() == text
        };
        self.0.find(shared.hash(text), same).map(|(_, hold)| *hold)
    }

    /// Who holds `key`, by itself or with its flow.
    pub fn holder(&self, shared: &Shared, key: &str) -> Option<Hold> {
        if self.0.is_empty() {
            return None;
        }
        let by_flow = || self.get(shared, true, FlowKey::scope(key)?);
        self.get(shared, false, key).or_else(by_flow)
    }

    /// Who else than `hold` has any of `name`.
    fn rival(&self, shared: &Shared, name: &Name, hold: Hold) -> Option<(String, Hold)> {
        let found = match name {
            Name::Key(key) => self.holder(shared, key).map(|holder| (&**key, holder)),
            Name::Flow(flow) => {
                let flow = flow.as_str();
                let whole = self.get(shared, true, flow).map(|holder| (flow, holder));
                // Somebody may hold a single key of the flow.
                let within = |(name, holder): &'_ (Name, Hold)| match name {
                    Name::Key(key) if *holder != hold && FlowKey::scope(key) == Some(flow) => {
                        Some((key.to_string(), *holder))
                    }
                    _ => None,
                };
                let mut others = self.0.iter().filter(|(_, holder)| *holder != hold);
                if whole.is_none()
                    && let Some(part) = others.find_map(within)
                {
                    return Some(part);
                }
                whole
            }
        };
        found
            .filter(|(_, holder)| *holder != hold)
            .map(|(key, holder)| (key.to_owned(), holder))
    }

    /// Returns whether it is new.
    fn insert(&mut self, shared: &Shared, name: &Name, hold: Hold) -> bool {
        let hash = |(name, _): &(Name, Hold)| shared.hash(name.as_str());
        let entry = (name.clone(), hold);
        match self.0.entry(hash(&entry), |(other, _)| other == name, hash) {
            Entry::Occupied(_) => false,
            Entry::Vacant(slot) => {
                slot.insert(entry);
                true
            }
        }
    }

    fn remove(&mut self, shared: &Shared, name: &Name) {
        let hash = shared.hash(name.as_str());
        if let Ok(entry) = self.0.find_entry(hash, |(other, _)| other == name) {
            entry.remove();
        }
    }
}

impl Shard {
    fn thaw(&mut self, shared: &Shared, name: &Name) {
        self.holds.remove(shared, name);
        if self.holds.0.is_empty() {
            self.attention &= !attention::HELD;
        }
    }

    /// Shows the items that `name` stands for to `f`.
    fn named(&self, shared: &Shared, name: &Name, f: impl FnMut(&Record)) {
        match name {
            Name::Key(key) => self.find(shared.hash(key), key).into_iter().for_each(f),
            Name::Flow(flow) => self.flow(shared, flow.as_str(), f),
        }
    }

    fn show(
        &self,
        shared: &Shared,
        name: &Name,
        since: Stamp,
        f: &mut impl FnMut(ItemRef<'_>),
    ) -> usize {
        let now_ms = shared.now_ms();
        let mut seen = 0;
        self.named(shared, name, |record| {
            if record.stamp() > since && !record.expired(now_ms) {
                seen += 1;
                f(self.view(record));
            }
        });
        seen
    }

    /// Whether `name` is a key that its flow is held with, by the same hold.
    fn covered(&self, shared: &Shared, name: &Name) -> bool {
        let Name::Key(key) = name else { return false };
        FlowKey::scope(key).is_some_and(|flow| self.holds.get(shared, true, flow).is_some())
    }
}

/// Calls `f` with each shard, locked once, and its names.
pub(super) fn by_shard(
    store: &Store,
    names: &[(usize, Name)],
    mut f: impl FnMut(&mut Shard, &[(usize, Name)]),
) {
    for names in names.chunk_by(|(one, _), (other, _)| one == other) {
        f(&mut store.shards[names[0].0].lock(), names);
    }
}

impl Store {
    pub(super) fn names(&self, selection: &Selection) -> Names {
        let place = |name: Name| (self.route(self.shared.hash(name.route())), name);
        let mut names: Names = match selection {
            Selection::Keys(keys) => {
                let key = |key: &String| place(Name::Key(key.as_str().into()));
                keys.iter().map(key).collect()
            }
            Selection::Flows(flows) => {
                let flow = |flow: &FlowKey| place(Name::Flow(flow.clone()));
                flows.iter().map(flow).collect()
            }
        };
        names.sort_by_key(|(shard, _)| *shard);
        names
    }

    /// Shows the selected items to `f`, which must not call the store; returns how many.
    pub fn scan_selection(&self, selection: &Selection, mut f: impl FnMut(ItemRef<'_>)) -> usize {
        let mut seen = 0;
        by_shard(self, &self.names(selection), |shard, names| {
            for (_, name) in names {
                seen += shard.show(&self.shared, name, Stamp::ZERO, &mut f);
            }
        });
        seen
    }

    /// Refuses writes to the selection from now on, other than by `hold`. What `hold` has already
    /// stays; repeating a call changes nothing.
    ///
    /// # Errors
    /// [`Error::Frozen`] if another hold has any of it; nothing is frozen then that was not before.
    pub fn freeze(&self, hold: Hold, selection: &Selection) -> Result<(), Error> {
        let mut held = self.held.lock();
        let mut done = Names::new();
        let mut rival = None;
        by_shard(self, &self.names(selection), |shard, names| {
            for entry @ (_, name) in names {
                rival = rival
                    .take()
                    .or_else(|| shard.holds.rival(&self.shared, name, hold));
                if rival.is_some() {
                    return;
                }
                if shard.holds.insert(&self.shared, name, hold) {
                    shard.attention |= attention::HELD;
                    done.push(entry.clone());
                }
            }
        });
        if let Some((key, hold)) = rival {
            self.thaw_names(&done);
            return Err(Error::Frozen {
                key,
                node: self.shared.node.to_string(),
                hold,
            });
        }
        let mine = held.entry(hold).or_default();
        let sorted = mine.is_empty();
        mine.append(&mut done);
        if !sorted {
            mine.sort_by_key(|(shard, _)| *shard);
        }
        Ok(())
    }

    fn thaw_names(&self, names: &Names) {
        by_shard(self, names, |shard, names| {
            names
                .iter()
                .for_each(|(_, name)| shard.thaw(&self.shared, name));
        });
    }

    /// Lets writes happen again; returns whether `hold` held anything.
    pub fn thaw(&self, hold: Hold) -> bool {
        // Kept to the end, so that a freeze by the same hold does not come in between.
        let mut held = self.held.lock();
        let mine = held.remove(&hold);
        if let Some(mine) = &mine {
            self.thaw_names(mine);
        }
        mine.is_some()
    }

    /// Shows the items that `hold` has frozen and that were written after `since` to `f`, which
    /// must not call the store; returns how many. An item that was deleted is not among them: what
    /// was pre-copied and is not shown for [`Stamp::ZERO`] has gone.
    pub fn scan_held(&self, hold: Hold, since: Stamp, mut f: impl FnMut(ItemRef<'_>)) -> usize {
        let held = self.held.lock();
        let Some(mine) = held.get(&hold) else {
            return 0;
        };
        let mut seen = 0;
        by_shard(self, mine, |shard, names| {
            for (_, name) in names {
                if !shard.covered(&self.shared, name) {
                    seen += shard.show(&self.shared, name, since, &mut f);
                }
            }
        });
        seen
    }

    /// Removes what `hold` has frozen, and the hold (the source's commit); returns how many items.
    pub fn remove_held(&self, hold: Hold) -> usize {
        self.remove_held_at(hold, None)
    }

    /// The same, as of an instant at which it was decided that they go.
    pub fn remove_held_at(&self, hold: Hold, at: Option<Stamp>) -> usize {
        let mut held = self.held.lock();
        let Some(mine) = held.remove(&hold) else {
            return 0;
        };
        let mut removed = 0;
        let mut stirred = false;
        by_shard(self, &mine, |shard, names| {
            let mut doomed = Vec::new();
            for (_, name) in names {
                shard.named(&self.shared, name, |record| doomed.push(record.share()));
                for record in doomed.drain(..) {
                    let hash = self.shared.hash(record.key());
                    stirred |= match at {
                        Some(at) => shard.unlink_at(&self.shared, hash, &record, at),
                        None => shard.unlink(&self.shared, hash, &record),
                    };
                    removed += 1;
                }
                shard.thaw(&self.shared, name);
            }
        });
        drop(held);
        if stirred {
            self.shared.wake();
        }
        removed
    }

    /// Takes over an item as it was elsewhere, stamp and all (the destination's commit). Where one
    /// with that key is here already, the later stamp stays; returns whether the moved one is in.
    /// `hold` may have frozen the key here, so that nobody writes it before it is in.
    ///
    /// # Errors
    /// [`Error::Frozen`] if another hold has the key, [`Error::MemoryFull`], [`Error::Key`].
    pub fn insert_moved(&self, hold: Hold, item: &Item) -> Result<bool, Error> {
        self.observe(item.stamp);
        let how = How {
            expires: item.expires,
            after: item.clock.as_ref(),
            at: Some(item.stamp),
            moved: true,
            by: Some(hold),
            ..How::default()
        };
        self.write(&item.key, Source::from_value(&item.value), &how)
            .map(|stamp| stamp.is_some())
    }

    /// Writes a key that `hold` has frozen, stamped `at` (a joint write's commit); `None` deletes.
    ///
    /// # Errors
    /// [`Error::Frozen`] if another hold has it, [`Error::MemoryFull`].
    pub fn write_held(
        &self,
        hold: Hold,
        key: &str,
        value: Option<ValueRef<'_>>,
        at: Stamp,
    ) -> Result<(), Error> {
        self.observe(at);
        let how = How {
            by: Some(hold),
            at: Some(at),
            ..How::default()
        };
        match value {
            Some(value) => self.write(key, Source::from_ref(value), &how).map(drop),
            None => self.delete_as(key, &how).map(drop),
        }
    }
}
