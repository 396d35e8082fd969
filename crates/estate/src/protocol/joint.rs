//! Joint writes: each member writes its own part, and a cut sees all parts or none.
//!
//! Every part is prepared first: its keys are frozen and the member's clock is noted. The first
//! member by name decides, once all have prepared: the instant of all parts is later than every
//! noted clock. A cut at an earlier instant than that sees none of them; a cut after a noted clock
//! waits until it is decided (`answer`), as reads do in Spanner (Corbett et al. 2012, §4.1.3).
//!
//! The one that decides may refuse alone and at any time before; the others ask it until they
//! hear. If it dies, they ask each other, and refuse when nobody has heard for `declare_dead`. With
//! two members that is exact: what the dead one wrote died with it.

use super::engine::{Action, CallId, Engine, Now};
use super::member::NodeId;
use super::message::Message;
use crate::error::Error;
use crate::store::{Hold, Selection, Store};
use crate::value::{Value, ValueRef};
use crate::version::Stamp;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How many decisions are remembered.
const REMEMBERED: usize = 4096;

/// One write of a joint write.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Set a key.
    Set(String, Value),
    /// Add to a counter, from 0 if it is not there.
    Add(String, i64),
    /// Delete a key.
    Delete(String),
}

impl Write {
    fn key(&self) -> &str {
        match self {
            Self::Set(key, _) | Self::Add(key, _) | Self::Delete(key) => key,
        }
    }

    /// The value to be; none: gone. Only right while the key is frozen.
    fn value(&self, store: &Store) -> Result<Option<Value>, Error> {
        match self {
            Self::Set(_, value) => Ok(Some(value.clone())),
            Self::Delete(_) => Ok(None),
            Self::Add(key, delta) => match store.get(key) {
                None => Ok(Some(Value::Int(*delta))),
                Some(Value::Int(value)) => match value.checked_add(*delta) {
                    Some(sum) => Ok(Some(Value::Int(sum))),
                    None => Err(Error::Overflow {
                        key: key.clone(),
                        node: store.node().to_string(),
                        value,
                        delta: *delta,
                    }),
                },
                Some(other) => Err(Error::Type {
                    key: key.clone(),
                    node: store.node().to_string(),
                    found: other.type_name(),
                    wanted: "int",
                    remedy: "delete it or use another key",
                }),
            },
        }
    }
}

/// Our part, prepared.
#[derive(Debug)]
struct Part {
    call: CallId,
    with: Vec<String>,
    decider: NodeId,
    writes: Vec<Write>,
    clock: Stamp,
    again: Now,
    away_since: Option<Now>,
}

/// What we, who decide, have heard.
#[derive(Debug)]
struct Tally {
    with: Vec<String>,
    heard: BTreeMap<NodeId, Stamp>,
    ends: Now,
}

/// Joint writes under way.
#[derive(Debug, Default)]
pub(super) struct Joints {
    parts: BTreeMap<u64, Part>,
    tallies: BTreeMap<u64, Tally>,
    decided: BTreeMap<u64, (Option<Stamp>, String)>,
    order: VecDeque<u64>,
}

impl Joints {
    /// The earliest instant at which our part of an undecided one may have happened.
    pub fn undecided(&self) -> Option<Stamp> {
        self.parts.values().map(|part| part.clock).min()
    }

    pub fn due(&self, declare_dead: Duration) -> Option<Now> {
        let parts = self.parts.values().map(|part| match part.away_since {
            Some(since) => part.again.min(since + declare_dead),
            None => part.again,
        });
        parts
            .chain(self.tallies.values().map(|tally| tally.ends))
            .min()
    }

    fn remember(&mut self, joint: u64, at: Option<Stamp>, why: String) {
        self.decided.insert(joint, (at, why));
        self.order.push_back(joint);
        while self.order.len() > REMEMBERED {
            let oldest = self.order.pop_front();
            oldest.map(|oldest| self.decided.remove(&oldest));
        }
    }
}

impl Engine {
    /// Writes our part of joint write `joint` (an id of the callers' choice), in which the members
    /// `with` take part, each by the same call. [`Action::Joined`] ends it. Until then our keys
    /// cannot be written otherwise. If others do not come within `timeout`, nothing is written.
    pub fn joint(
        &mut self,
        store: &Store,
        joint: u64,
        with: &[&str],
        writes: Vec<Write>,
        timeout: Duration,
        now: Now,
    ) -> (CallId, Vec<Action>) {
        self.enter(store, now);
        let call = CallId(self.number());
        if let Err(why) = self.prepare(store, call, joint, with, writes, timeout) {
            self.out.push(Action::Joined {
                call,
                result: Err(Error::NotJoined {
                    joint_id: joint,
                    why: why.clone(),
                }),
            });
            self.decide(store, joint, None, &why);
        }
        (call, self.finish())
    }

    fn prepare(
        &mut self,
        store: &Store,
        call: CallId,
        joint: u64,
        with: &[&str],
        writes: Vec<Write>,
        timeout: Duration,
    ) -> Result<(), String> {
        if let Some((_, why)) = self.joints.decided.get(&joint) {
            return Err(format!("it is decided already {why}"));
        }
        let mut with: Vec<String> = with.iter().map(ToString::to_string).collect();
        with.push(self.own.name.to_string());
        with.sort();
        with.dedup();
        if let Some(absent) = with.iter().find(|name| self.members.named(name).is_none()) {
            return Err(format!("no live member is called {absent:?}"));
        }
        let Some(decider) = with.first().and_then(|name| self.members.named(name)) else {
            return Err("nobody takes part".into());
        };
        let decider = decider.clone();
        let hold = Hold::Joint(joint);
        let keys = writes.iter().map(|write| write.key().to_owned()).collect();
        store
            .freeze(hold, &Selection::Keys(keys))
            .map_err(|error| error.to_string())?;
        if let Some(error) = writes.iter().find_map(|write| write.value(store).err()) {
            store.thaw(hold);
            return Err(error.to_string());
        }
        let clock = store.clock().next();
        store.observe(clock);
        let part = Part {
            call,
            with: with.clone(),
            decider: decider.clone(),
            writes,
            clock,
            again: self.now,
            away_since: None,
        };
        self.joints.parts.insert(joint, part);
        if decider == self.own {
            self.prepared(store, &decider, joint, clock, with);
            if let Some(tally) = self.joints.tallies.get_mut(&joint) {
                tally.ends = self.now + timeout;
            }
        } else {
            self.say_prepared(joint);
        }
        Ok(())
    }

    /// Tells the one that decides; when that is gone, everybody, for one may have heard.
    fn say_prepared(&mut self, joint: u64) {
        let Some(part) = self.joints.parts.get_mut(&joint) else {
            return;
        };
        part.again = self.now + self.settings.retry;
        if part.decider == self.own {
            return;
        }
        let to: Vec<NodeId> = if part.away_since.is_none() {
            vec![part.decider.clone()]
        } else {
            let names = part.with.iter().filter(|name| ***name != *self.own.name);
            names
                .filter_map(|name| self.members.named(name).cloned())
                .collect()
        };
        let message = Message::Prepared {
            joint,
            clock: part.clock,
            with: part.with.clone(),
        };
        self.send(to, &message);
    }

    pub(super) fn prepared(
        &mut self,
        store: &Store,
        from: &NodeId,
        joint: u64,
        clock: Stamp,
        with: Vec<String>,
    ) {
        store.observe(clock);
        if let Some((at, why)) = self.joints.decided.get(&joint).cloned() {
            return self.send_one(from, &Message::Decided { joint, at, why });
        }
        if with.first().map(String::as_str) != Some(&*self.own.name) {
            return;
        }
        let ends = self.now + self.settings.joint_timeout;
        let tally = self.joints.tallies.entry(joint).or_insert_with(|| Tally {
            with: with.clone(),
            heard: BTreeMap::new(),
            ends,
        });
        tally.heard.insert(from.clone(), clock);
        if tally.with != with {
            return self.decide(store, joint, None, "the members name different members");
        }
        let mut names: Vec<&str> = tally.heard.keys().map(|member| &*member.name).collect();
        names.dedup();
        if names == with {
            let last = tally.heard.values().max().copied().unwrap_or_default();
            self.decide(store, joint, Some(last.max(store.clock()).next()), "");
        }
    }

    /// The decision of the one that decides.
    fn decide(&mut self, store: &Store, joint: u64, at: Option<Stamp>, why: &str) {
        let tally = self.joints.tallies.remove(&joint);
        let with = match (&tally, self.joints.parts.get(&joint)) {
            (Some(tally), _) => tally.with.clone(),
            (None, Some(part)) if part.decider == self.own => part.with.clone(),
            _ => return,
        };
        let why = why.to_owned();
        let to: Vec<NodeId> = with
            .iter()
            .filter_map(|name| self.members.named(name))
            .filter(|member| **member != self.own)
            .cloned()
            .collect();
        let message = Message::Decided {
            joint,
            at,
            why: why.clone(),
        };
        self.send(to, &message);
        self.decided(store, joint, at, &why);
    }

    /// A decision has come.
    pub(super) fn decided(&mut self, store: &Store, joint: u64, at: Option<Stamp>, why: &str) {
        if !self.joints.decided.contains_key(&joint) {
            self.joints.remember(joint, at, why.to_owned());
        }
        let Some(part) = self.joints.parts.remove(&joint) else {
            return;
        };
        let hold = Hold::Joint(joint);
        let result = match at {
            Some(at) => {
                store.observe(at);
                self.moved.decide(at);
                let write = |write: &Write| {
                    let value = write.value(store)?;
                    let value: Option<ValueRef<'_>> = value.as_ref().map(Value::borrow);
                    store.write_held(hold, write.key(), value, at)
                };
                part.writes.iter().try_for_each(write).map(|()| at)
            }
            None => Err(Error::NotJoined {
                joint_id: joint,
                why: why.to_owned(),
            }),
        };
        store.thaw(hold);
        self.out.push(Action::Joined {
            call: part.call,
            result,
        });
        self.settle_cuts(store);
    }

    pub(super) fn joints_time(&mut self, store: &Store) {
        let now = self.now;
        let late = self.joints.tallies.iter();
        let late: Vec<u64> = late
            .filter(|(_, tally)| tally.ends <= now)
            .map(|(&joint, _)| joint)
            .collect();
        for joint in late {
            self.decide(store, joint, None, "not all members came in time");
        }
        let again = self.joints.parts.iter();
        let again: Vec<(u64, bool)> = again
            .filter(|(_, part)| part.again <= now)
            .map(|(&joint, part)| {
                let dead = part
                    .away_since
                    .is_some_and(|since| since + self.settings.declare_dead <= now);
                (joint, dead)
            })
            .collect();
        for (joint, dead) in again {
            if dead {
                self.decided(store, joint, None, "the member that decides is dead");
            } else {
                self.say_prepared(joint);
            }
        }
    }

    pub(super) fn joints_of_departed(&mut self, store: &Store, member: &NodeId) {
        let tallies = self.joints.tallies.iter();
        let broken: Vec<u64> = tallies
            .filter(|(_, tally)| tally.with.iter().any(|name| **name == *member.name))
            .map(|(&joint, _)| joint)
            .collect();
        for joint in broken {
            self.decide(store, joint, None, "a member that takes part has gone");
        }
        let dead = self.members.is_lost(member);
        let (now, mut lost) = (self.now, Vec::new());
        for (&joint, part) in &mut self.joints.parts {
            if part.decider == *member {
                part.away_since.get_or_insert(now);
                part.again = now;
                if dead && part.with.len() == 2 {
                    lost.push(joint);
                }
            }
        }
        for joint in lost {
            self.decided(store, joint, None, "the member that decides is dead");
        }
    }

    pub(super) fn joints_of_arrived(&mut self, member: &NodeId) {
        let now = self.now;
        for part in self.joints.parts.values_mut() {
            if part.decider == *member {
                part.away_since = None;
                part.again = now;
            }
        }
    }
}
