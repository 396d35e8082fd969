//! The exactly-once checker: knows what was acknowledged, and looks after every step who can write
//! what.
//!
//! An owner of an item is a live member that has it and would acknowledge a write to it. Checked
//! after every step: nobody has two owners, and an owner has the last acknowledged value. Checked
//! in the end: everything has one.
//!
//! A member that dies takes the items with it that it owned, or that it was the source of and had
//! not given up: those may be lost, or come back as they were at some earlier moment of this run,
//! but at the last freeze at the earliest. Everything else has to be there.

use crate::world::World;
use flowferry_estate::{Pattern, Value};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default, Clone)]
struct Entry {
    // Acknowledged values of the counter, which only grows; the last is the current one.
    value: i64,
    home: usize,
    // The value when a death may have lost it: what comes back is no older than the last freeze.
    floor: Option<i64>,
    // The value when somebody last refused a write.
    frozen: i64,
}

pub struct Ledger {
    entries: BTreeMap<String, Entry>,
}

impl Ledger {
    /// `count` counters at member `home`.
    pub fn new(world: &World, home: usize, count: usize) -> Self {
        let mut entries = BTreeMap::new();
        for index in 0..count {
            let key = format!("flow:{index}/n");
            world.store(home).set(&key, 0_i64).unwrap();
            let entry = Entry {
                home,
                ..Entry::default()
            };
            entries.insert(key, entry);
        }
        Self { entries }
    }

    pub fn keys(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    /// Where the item was last owned.
    pub fn home(&self, key: &str) -> usize {
        self.entries[key].home
    }

    /// The function at `at` counts a packet of the flow, if it has its state.
    pub fn write(&mut self, world: &World, at: usize, key: &str) -> Result<(), String> {
        let store = world.store(at);
        let Some(Value::Int(_)) = store.get(key) else {
            return Ok(());
        };
        let entry = self.entries.get_mut(key).unwrap();
        match store.add(key, 1) {
            Ok(value) => {
                let wanted = entry.value + 1;
                let fine = value == wanted
                    || entry
                        .floor
                        .is_some_and(|floor| (floor + 1..=wanted).contains(&value));
                if !fine {
                    return Err(format!("{key} is {value} at {at}, not {wanted}"));
                }
                if value != wanted {
                    // It came back from before a death: that is its value from now on.
                    entry.floor = None;
                }
                entry.value = value;
                entry.home = at;
            }
            Err(_) => entry.frozen = entry.value,
        }
        Ok(())
    }

    /// Who would acknowledge a write to the item. (Adding nothing changes nothing but the stamp.)
    fn owners(world: &World, key: &str) -> Vec<usize> {
        (0..world.hosts.len())
            .filter(|&at| world.hosts[at].alive)
            .filter(|&at| {
                let store = world.store(at);
                store.get(key).is_some() && store.add(key, 0).is_ok()
            })
            .collect()
    }

    /// What must hold after every step.
    pub fn check(&mut self, world: &World) -> Result<(), String> {
        for (key, entry) in &mut self.entries {
            let owners = Self::owners(world, key);
            match owners[..] {
                [] => entry.frozen = entry.value,
                [at] => {
                    let value = world.store(at).get(key);
                    let Some(Value::Int(value)) = value else {
                        return Err(format!("{key} is {value:?} at {at}"));
                    };
                    let fine = value == entry.value
                        || entry
                            .floor
                            .is_some_and(|floor| (floor..=entry.value).contains(&value));
                    if !fine {
                        return Err(format!(
                            "{key} is {value} at {at}, {} was acknowledged",
                            entry.value
                        ));
                    }
                    entry.home = at;
                }
                _ => return Err(format!("{key} is owned by {owners:?}")),
            }
        }
        Ok(())
    }

    /// Member `at` is about to die.
    pub fn dies(&mut self, world: &World, at: usize) {
        for (key, entry) in &mut self.entries {
            let has = world.store(at).get(key).is_some();
            if has && entry.home == at {
                entry.floor = Some(entry.floor.unwrap_or(entry.frozen));
            }
        }
    }

    /// What must hold when all is quiet.
    pub fn finish(&mut self, world: &World) -> Result<(), String> {
        self.check(world)?;
        for (key, entry) in &self.entries {
            let here: Vec<usize> = (0..world.hosts.len())
                .filter(|&at| world.hosts[at].alive && world.store(at).get(key).is_some())
                .collect();
            let owners = Self::owners(world, key);
            if here != owners {
                return Err(format!("{key} is at {here:?}, but owned by {owners:?}"));
            }
            if owners.is_empty() && entry.floor.is_none() {
                return Err(format!("{key} is lost, though no owner of it has died"));
            }
        }
        // Nothing else has come into being.
        for at in (0..world.hosts.len()).filter(|&at| world.hosts[at].alive) {
            let found: BTreeSet<String> = world
                .store(at)
                .keys(&Pattern::all(), None)
                .unwrap()
                .into_iter()
                .collect();
            if let Some(key) = found.iter().find(|key| !self.entries.contains_key(*key)) {
                return Err(format!("{key} was made up at {at}"));
            }
        }
        Ok(())
    }
}
