//! Which items have moved lately, and what a reader is told of them.
//!
//! At a destination every item that has come is tagged with its chain of moves for as long as a
//! query may be under way that saw it elsewhere. At a source the moves that are frozen or gone are
//! remembered with their items (the tombstone). `contribution` says what readers make of it.

use super::contribution::{Contribution, Moving, Note, Role};
use super::engine::Now;
use super::member::NodeId;
use super::message::{Link, Message};
use crate::error::Error;
use crate::item::ItemRef;
use crate::pattern::Pattern;
use crate::reduce::{Partial, Reducer};
use crate::store::{Store, Until};
use crate::version::Stamp;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

/// Items that came here by the same moves.
#[derive(Debug)]
pub(super) struct Chain {
    /// The moves, in order, and until when each matters.
    pub links: Vec<(u64, NodeId, Now)>,
    /// When they became ours; none: they are still the source's.
    pub owned: Option<Stamp>,
    /// They have not come after all; remembered for the cuts that are open.
    dropped: bool,
}

/// A move away from here whose items cannot be written here.
#[derive(Debug)]
struct Leaving {
    keys: HashSet<Box<str>>,
    // The items as they went, once they are given up: `Cargo` messages in order.
    given: Option<Vec<Vec<u8>>>,
    ends: Option<Now>,
}

/// The memory of moves.
#[derive(Debug, Default)]
pub(super) struct Moved {
    tags: HashMap<Box<str>, u32>,
    chains: BTreeMap<u32, Chain>,
    last_chain: u32,
    leaving: BTreeMap<u64, Leaving>,
    notes: BTreeMap<Note, Now>,
    // The latest instant at which items were given up or joint writes made here.
    decided: Stamp,
    // While cuts are open: by which chains a key came before the one that its tag names.
    open_cuts: usize,
    past: HashMap<Box<str>, Vec<u32>>,
}

impl Moved {
    /// Something has been decided to have happened at `at`: no cut before it may be opened.
    pub fn decide(&mut self, at: Stamp) {
        self.decided = self.decided.max(at);
    }

    pub fn decided(&self) -> Stamp {
        self.decided
    }

    // --- at the destination

    /// Opens a chain: what comes by it is not ours yet.
    pub fn open(&mut self, links: Vec<(u64, NodeId, Now)>) -> u32 {
        self.last_chain += 1;
        let chain = Chain {
            links,
            owned: None,
            dropped: false,
        };
        self.chains.insert(self.last_chain, chain);
        self.last_chain
    }

    /// The item with that key has come by the chain.
    pub fn tag(&mut self, key: &str, chain: u32) {
        match self.tags.get_mut(key) {
            Some(tag) => {
                let before = std::mem::replace(tag, chain);
                if self.open_cuts > 0 && before != chain {
                    self.past.entry(key.into()).or_default().push(before);
                }
            }
            None => {
                self.tags.insert(key.into(), chain);
            }
        }
    }

    fn untag(&mut self, key: &str) {
        let before = self.tags.remove_entry(key);
        if let Some((key, before)) = before.filter(|_| self.open_cuts > 0) {
            self.past.entry(key).or_default().push(before);
        }
    }

    /// A cut has been opened; what comes by later chains is not in it.
    pub fn cut_opened(&mut self) -> u32 {
        self.open_cuts += 1;
        self.last_chain
    }

    /// A cut has been closed.
    pub fn cut_closed(&mut self) {
        self.open_cuts -= 1;
        if self.open_cuts == 0 {
            self.past = HashMap::new();
            self.chains
                .retain(|_, chain| chain.owned.is_some() || !chain.dropped);
        }
    }

    /// The items of the chains are ours from `at` on. Until `until` they are counted by their
    /// chain; `note` says that they are ours until [`Moved::note_ends`] says when to forget it.
    pub fn own(&mut self, chains: &BTreeSet<u32>, at: Stamp, note: Note, until: Now) {
        for chain in chains {
            if let Some(chain) = self.chains.get_mut(chain) {
                chain.owned = Some(at);
                if let Some((.., ends)) = chain.links.last_mut() {
                    *ends = until;
                }
            }
        }
        self.notes.insert(note, Now::MAX);
    }

    /// The source has stopped reporting what we own, or soon will.
    pub fn note_ends(&mut self, move_id: u64, at: Now) {
        for (note, ends) in &mut self.notes {
            if note.move_id == move_id && note.role == Role::Destination {
                *ends = at;
            }
        }
    }

    /// The items have not come after all, or have been withdrawn.
    pub fn drop_chains(&mut self, chains: &BTreeSet<u32>) {
        let tags = self.tags.iter().filter(|(_, tag)| chains.contains(tag));
        let keys: Vec<Box<str>> = tags.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.untag(&key);
        }
        for number in chains {
            if self.open_cuts == 0 {
                self.chains.remove(number);
            } else if let Some(chain) = self.chains.get_mut(number) {
                chain.dropped = true;
            }
        }
    }

    // --- at the source

    /// The moves that `key` went through lately, as they travel with it.
    pub fn chain_of(&self, key: &str, now: Now) -> Vec<Link> {
        let Some(chain) = self.tags.get(key).and_then(|tag| self.chains.get(tag)) else {
            return Vec::new();
        };
        let live = chain.links.iter().filter(|(.., ends)| *ends > now);
        live.map(|(move_id, source, ends)| Link {
            move_id: *move_id,
            source: source.clone(),
            left: *ends - now,
        })
        .collect()
    }

    /// Whether nothing here has moved lately.
    pub fn is_quiet(&self) -> bool {
        self.tags.is_empty() && self.leaving.is_empty()
    }

    pub fn freeze(&mut self, move_id: u64, keys: HashSet<Box<str>>) {
        let leaving = Leaving {
            keys,
            given: None,
            ends: None,
        };
        self.leaving.insert(move_id, leaving);
    }

    pub fn thaw(&mut self, move_id: u64) {
        self.leaving.remove(&move_id);
    }

    /// The items are the destination's; what is left is the memory of them.
    pub fn give(&mut self, move_id: u64, cargo: Vec<Vec<u8>>) {
        if let Some(leaving) = self.leaving.get_mut(&move_id) {
            leaving.given = Some(cargo);
            let keys = std::mem::take(&mut leaving.keys);
            for key in &keys {
                self.untag(key);
            }
            if let Some(leaving) = self.leaving.get_mut(&move_id) {
                leaving.keys = keys;
            }
        }
    }

    /// The destination has taken them: the memory ends `after` so long, the note `note_after`.
    pub fn settle(&mut self, move_id: u64, source: &NodeId, now: Now, window: Duration) {
        if let Some(leaving) = self.leaving.get_mut(&move_id) {
            leaving.ends = Some(now + window);
            leaving.keys = HashSet::new();
        }
        let note = Note {
            move_id,
            source: source.clone(),
            role: Role::Source,
        };
        self.notes.insert(note, now + 3 * window);
    }

    /// The items of a move that was given up, newest of each key, with the key's chain.
    pub fn each_given(&self, move_id: u64, own: &NodeId, mut f: impl FnMut(ItemRef<'_>, &[Link])) {
        let Some(cargo) = self.leaving.get(&move_id).and_then(|l| l.given.as_ref()) else {
            return;
        };
        let mut seen: HashSet<String> = HashSet::new();
        let several = cargo.len() > 1;
        for bytes in cargo.iter().rev() {
            let Ok(Message::Cargo {
                chain, gone, items, ..
            }) = Message::parse(bytes, own)
            else {
                continue;
            };
            for item in &items {
                if !seen.contains(&item.key) {
                    f(item.borrow(), &chain);
                }
            }
            seen.extend(gone);
            if several {
                seen.extend(items.into_iter().map(|item| item.key));
            }
        }
    }

    /// Whether `key` is in a move whose change of place is no change of the item.
    pub fn hides_change(&self, key: &str) -> bool {
        let coming = self.tags.get(key).and_then(|tag| self.chains.get(tag));
        coming.is_some_and(|chain| chain.owned.is_none())
            || self.leaving.values().any(|l| l.keys.contains(key))
    }

    pub fn time(&mut self, now: Now) {
        self.notes.retain(|_, ends| *ends > now);
        self.leaving
            .retain(|_, l| l.ends.is_none_or(|ends| ends > now));
        let expired = |chain: &Chain| {
            chain.owned.is_some() && chain.links.iter().all(|(.., ends)| *ends <= now)
        };
        if self.chains.values().any(expired) {
            self.chains.retain(|_, chain| !expired(chain));
            let chains = &self.chains;
            self.tags.retain(|_, tag| chains.contains_key(tag));
        }
    }

    pub fn due(&self) -> Option<Now> {
        let chains = self.chains.values().filter(|chain| chain.owned.is_some());
        let chains = chains.filter_map(|chain| chain.links.iter().map(|(.., ends)| *ends).max());
        let leaving = self.leaving.values().filter_map(|leaving| leaving.ends);
        chains
            .chain(leaving)
            .chain(self.notes.values().copied())
            .min()
    }

    // --- for readers

    /// What is here now.
    pub fn contribution(
        &self,
        store: &Store,
        own: &NodeId,
        now: Now,
        (pattern, reducer): (&Pattern, Reducer),
        until: Option<Until<'_>>,
    ) -> Result<Contribution, Error> {
        let mut said = Contribution::new(reducer);
        let node = store.node();
        if self.is_quiet() && self.notes.is_empty() {
            store.scan(pattern, until, |item| said.settled.add(item, node))?;
            said.clock = store.clock_of(pattern);
            return Ok(said);
        }
        let mut moving: BTreeMap<(Vec<u64>, bool), Partial> = BTreeMap::new();
        let mut notes: BTreeSet<Note> = self.notes.keys().cloned().collect();
        let frozen: Vec<(u64, &Leaving)> = self
            .leaving
            .iter()
            .filter(|(_, leaving)| leaving.given.is_none())
            .map(|(&id, leaving)| (id, leaving))
            .collect();
        let passed = |notes: &mut BTreeSet<Note>, move_id: u64, source: &NodeId| {
            notes.insert(Note {
                move_id,
                source: source.clone(),
                role: Role::Passed,
            });
        };
        store.scan(pattern, until, |item| {
            let mut chain = Vec::new();
            if let Some(found) = self.tags.get(item.key).and_then(|t| self.chains.get(t)) {
                if found.owned.is_none() {
                    return;
                }
                for (move_id, source, _) in found.links.iter().filter(|(.., ends)| *ends > now) {
                    chain.push(*move_id);
                    passed(&mut notes, *move_id, source);
                }
            }
            let leaves = frozen.iter().find(|(_, l)| l.keys.contains(item.key));
            if let Some((id, _)) = leaves {
                chain.push(*id);
            }
            if chain.is_empty() {
                said.settled.add(item, node);
            } else {
                let entry = moving.entry((chain, leaves.is_some()));
                let partial = entry.or_insert_with(|| Partial::new(reducer));
                partial.add(item, node);
            }
        })?;
        for (&id, leaving) in &self.leaving {
            notes.insert(Note {
                move_id: id,
                source: own.clone(),
                role: Role::Source,
            });
            if leaving.given.is_some() {
                self.each_given(id, own, |item, links| {
                    if !pattern.matches(item.key) {
                        return;
                    }
                    let mut chain: Vec<u64> = links.iter().map(|link| link.move_id).collect();
                    chain.push(id);
                    for link in links {
                        passed(&mut notes, link.move_id, &link.source);
                    }
                    let entry = moving.entry((chain, true));
                    let partial = entry.or_insert_with(|| Partial::new(reducer));
                    partial.add(item, node);
                });
            }
        }
        said.notes = notes.into_iter().collect();
        said.moving = moving
            .into_iter()
            .map(|((chain, leaving), partial)| Moving {
                chain,
                leaving,
                partial,
            })
            .collect();
        said.clock = store.clock();
        Ok(said)
    }

    /// What was here as of `at`, from a cut that is open in the store. A move happened at the
    /// instant of its commit: before, the items were the source's.
    pub fn as_of(
        &self,
        store: &Store,
        (cut, at, opened): (u64, Stamp, u32),
        reducer: Reducer,
        until: Option<Until<'_>>,
    ) -> Result<Contribution, Error> {
        let mut said = Contribution::new(reducer);
        let node = store.node();
        store.scan_cut(cut, until, |item| {
            // What the cut shows is from the life that the item had when the cut was opened.
            let past = self.past.get(item.key).into_iter().flatten();
            let lives = past.chain(self.tags.get(item.key)).copied();
            let chain = lives.filter(|&life| life <= opened).max();
            let chain = chain.and_then(|life| self.chains.get(&life));
            if chain.is_none_or(|chain| chain.owned.is_some_and(|owned| owned <= at)) {
                said.settled.add(item, node);
            }
        })?;
        said.clock = store.clock();
        Ok(said)
    }
}
