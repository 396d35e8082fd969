//! Holds: items that a move or a joint write has frozen. They can be read; a write is refused at
//! once with [`Error::Frozen`], so nothing is acknowledged that could be lost, and no packet path
//! waits.
//!
//! A hold is on names, not on items: a key that does not exist yet, and whatever a held flow has
//! yet to get, are frozen, too.

use super::record::{Record, flag};
use super::shard::{How, Shard, attention};
use super::{Source, Store};
use crate::error::Error;
use crate::flow::FlowKey;
use crate::item::{Item, ItemRef};
use crate::value::ValueRef;
use crate::version::Stamp;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

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

/// One name that is held.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Key(Box<str>),
    Flow(FlowKey),
}

impl Name {
    /// What decides on the shard.
    fn route(&self) -> &str {
        match self {
            Self::Key(key) => FlowKey::scope(key).unwrap_or(key),
            Self::Flow(flow) => flow.as_str(),
        }
    }
}

/// Names by shard, so that each shard is locked once.
pub(super) type Names = BTreeMap<usize, BTreeSet<Name>>;

/// What is held in one shard.
#[derive(Default)]
pub(super) struct Holds {
    keys: HashMap<Box<str>, Hold>,
    flows: HashMap<Box<str>, Hold>,
}

impl Holds {
    /// Who holds `key`, by itself or with its flow.
    pub fn holder(&self, key: &str) -> Option<Hold> {
        let by_flow = || self.flows.get(FlowKey::scope(key)?);
        self.keys.get(key).or_else(by_flow).copied()
    }

    /// Who else than `hold` has any of `name`.
    fn rival(&self, name: &Name, hold: Hold) -> Option<(String, Hold)> {
        let other = |key: &str, holder: Option<Hold>| {
            holder.filter(|&h| h != hold).map(|h| (key.to_owned(), h))
        };
        match name {
            Name::Key(key) => other(key, self.holder(key)),
            Name::Flow(flow) => other(flow.as_str(), self.flows.get(flow.as_str()).copied())
                .or_else(|| {
                    self.keys.iter().find_map(|(key, &holder)| {
                        (FlowKey::scope(key) == Some(flow.as_str()))
                            .then(|| other(key, Some(holder)))?
                    })
                }),
        }
    }

    fn insert(&mut self, name: &Name, hold: Hold) -> bool {
        match name {
            Name::Key(key) => self.keys.insert(key.clone(), hold),
            Name::Flow(flow) => self.flows.insert(flow.as_str().into(), hold),
        }
        .is_none()
    }

    fn remove(&mut self, name: &Name) {
        match name {
            Name::Key(key) => self.keys.remove(key),
            Name::Flow(flow) => self.flows.remove(flow.as_str()),
        };
    }

    fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.flows.is_empty()
    }
}

impl Shard {
    fn thaw(&mut self, store: &Store, name: &Name) {
        self.holds.remove(name);
        for record in self.named(store, name) {
            record.set_flag(flag::FROZEN, self.holds.holder(record.key()).is_some());
        }
        if self.holds.is_empty() {
            self.attention &= !attention::HELD;
        }
    }

    /// The items that `name` stands for.
    fn named(&self, store: &Store, name: &Name) -> Vec<Record> {
        match name {
            Name::Key(key) => {
                let record = self.find(store.shared.hash(key), key);
                record.map(Record::share).into_iter().collect()
            }
            Name::Flow(flow) => self.flow(&store.shared, flow.as_str()),
        }
    }

    fn show(
        &self,
        store: &Store,
        name: &Name,
        since: Stamp,
        f: &mut impl FnMut(ItemRef<'_>),
    ) -> usize {
        let now_ms = store.shared.now_ms();
        let mut seen = 0;
        for record in self.named(store, name) {
            if record.stamp() > since && !record.expired(now_ms) {
                seen += 1;
                f(self.view(&record));
            }
        }
        seen
    }
}

impl Store {
    fn names(&self, selection: &Selection) -> Names {
        let mut names = Names::new();
        let mut put = |name: Name| {
            let shard = self.route(self.shared.hash(name.route()));
            names.entry(shard).or_default().insert(name);
        };
        match selection {
            Selection::Keys(keys) => keys
                .iter()
                .for_each(|key| put(Name::Key(key.as_str().into()))),
            Selection::Flows(flows) => flows.iter().for_each(|flow| put(Name::Flow(flow.clone()))),
        }
        names
    }

    /// Shows the selected items that were written after `since` to `f`, which must not call the
    /// store; returns how many. Pre-copy asks with [`Stamp::ZERO`].
    pub fn scan_selection(
        &self,
        selection: &Selection,
        since: Stamp,
        mut f: impl FnMut(ItemRef<'_>),
    ) -> usize {
        let mut seen = 0;
        for (&index, names) in &self.names(selection) {
            let shard = self.shards[index].lock();
            for name in names {
                seen += shard.show(self, name, since, &mut f);
            }
        }
        seen
    }

    /// Refuses writes to the selection from now on, other than by `hold`. What `hold` has already
    /// stays; repeating a call changes nothing.
    ///
    /// # Errors
    /// [`Error::Frozen`] if another hold has any of it; nothing is frozen then that was not before.
    pub fn freeze(&self, hold: Hold, selection: &Selection) -> Result<(), Error> {
        let mut held = self.held.lock();
        let wanted = self.names(selection);
        let mut done: Vec<(usize, &Name)> = Vec::new();
        for (&index, names) in &wanted {
            let mut shard = self.shards[index].lock();
            for name in names {
                if let Some((key, rival)) = shard.holds.rival(name, hold) {
                    drop(shard);
                    for (index, name) in done {
                        self.shards[index].lock().thaw(self, name);
                    }
                    return Err(Error::Frozen {
                        key,
                        node: self.shared.node.to_string(),
                        hold: rival,
                    });
                }
                shard.attention |= attention::HELD;
                if shard.holds.insert(name, hold) {
                    done.push((index, name));
                    for record in shard.named(self, name) {
                        record.set_flag(flag::FROZEN, true);
                    }
                }
            }
        }
        let mine = held.entry(hold).or_default();
        for (index, mut names) in wanted {
            mine.entry(index).or_default().append(&mut names);
        }
        Ok(())
    }

    /// Lets writes happen again; returns whether `hold` held anything.
    pub fn thaw(&self, hold: Hold) -> bool {
        let Some(mine) = self.held.lock().remove(&hold) else {
            return false;
        };
        for (index, names) in &mine {
            let mut shard = self.shards[*index].lock();
            names.iter().for_each(|name| shard.thaw(self, name));
        }
        true
    }

    /// Shows the items that `hold` has frozen and that were written after `since` to `f`, which
    /// must not call the store; returns how many. An item that was deleted is not among them: what
    /// was pre-copied and is not shown for [`Stamp::ZERO`] has gone.
    pub fn scan_held(&self, hold: Hold, since: Stamp, mut f: impl FnMut(ItemRef<'_>)) -> usize {
        let held = self.held.lock();
        let mut seen = 0;
        for (&index, names) in held.get(&hold).into_iter().flatten() {
            let shard = self.shards[index].lock();
            for name in names.iter().filter(|name| !covered(names, name)) {
                seen += shard.show(self, name, since, &mut f);
            }
        }
        seen
    }

    /// Removes what `hold` has frozen, and the hold (the source's commit); returns how many items.
    pub fn remove_held(&self, hold: Hold) -> usize {
        let Some(mine) = self.held.lock().remove(&hold) else {
            return 0;
        };
        let mut removed = 0;
        let mut stirred = false;
        for (index, names) in &mine {
            let mut shard = self.shards[*index].lock();
            for name in names {
                for record in shard.named(self, name) {
                    let hash = self.shared.hash(record.key());
                    stirred |= shard.unlink(&self.shared, hash, &record);
                    removed += 1;
                }
                shard.thaw(self, name);
            }
        }
        if stirred {
            self.shared.wake();
        }
        removed
    }

    /// Takes over an item as it was elsewhere, stamp and all (the destination's commit). Where one
    /// with that key is here already, the later stamp stays; returns whether the moved one is in.
    ///
    /// # Errors
    /// [`Error::Frozen`] if the key is held here, [`Error::MemoryFull`], [`Error::Key`].
    pub fn insert_moved(&self, item: &Item) -> Result<bool, Error> {
        let seen = item.history();
        let foreign = item.node != self.shared.node;
        self.observe(item.stamp);
        let how = How {
            expires: item.expires,
            after: (foreign || item.clock.is_some()).then_some(&seen),
            at: Some(item.stamp),
            moved: true,
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

/// Whether `name` is a key of a flow that is among `names` itself.
fn covered(names: &BTreeSet<Name>, name: &Name) -> bool {
    let Name::Key(key) = name else { return false };
    FlowKey::scope(key)
        .and_then(FlowKey::from_scope)
        .is_some_and(|flow| names.contains(&Name::Flow(flow)))
}
