//! The reader's side: declares interest, takes in what is pushed, serves the reads that wait for it.

use super::{Held, Kept, Waiting};
use crate::error::Error;
use crate::pattern::Pattern;
use crate::protocol::ask::view;
use crate::protocol::contribution::{Contribution, combine};
use crate::protocol::engine::{Action, CallId, Engine, Now};
use crate::protocol::member::NodeId;
use crate::protocol::message::Message;
use crate::protocol::replica::Shown;
use crate::query::Query;
use crate::reduce::Reducer;
use crate::store::{Interest, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

impl Engine {
    pub(super) fn keep(
        &mut self,
        store: &Store,
        pattern: &Pattern,
        reducer: Reducer,
        max_age: Duration,
    ) -> u64 {
        let found = self
            .interests
            .kept
            .iter()
            .find(|(_, kept)| kept.reducer == reducer && kept.pattern == *pattern)
            .map(|(&number, kept)| (number, kept.max_age));
        if let Some((number, before)) = found {
            if max_age < before {
                if let Some(kept) = self.interests.kept.get_mut(&number) {
                    kept.max_age = max_age;
                }
                self.renew(store, number);
            }
            return number;
        }
        let number = self.number();
        let kept = Kept {
            pattern: pattern.clone(),
            reducer,
            max_age,
            replica: self.interests.replicas.open(pattern, reducer, self.now),
            held: BTreeMap::new(),
            waiting: Vec::new(),
            own_dirty: true,
            renew: self.now,
        };
        self.interests.kept.insert(number, kept);
        store.declare(Interest(number), pattern.clone());
        self.renew(store, number);
        number
    }

    pub(in crate::protocol) fn ask_replica(
        &mut self,
        store: &Store,
        number: u64,
        query: Query,
        max_age: Duration,
    ) {
        let interest = self.keep(store, &query.pattern, query.reducer, max_age);
        let mut expected: BTreeSet<NodeId> = self.members.others().cloned().collect();
        expected.insert(self.own.clone());
        let now = self.now;
        if let Some(kept) = self.interests.kept.get_mut(&interest) {
            kept.replica.touch(now);
            kept.waiting.push(Waiting {
                number,
                max_age,
                expected,
                ends: now + query.timeout,
                query,
            });
        }
        if !self.serve_waiting(interest) {
            // Somebody is late: do not wait for the next renewal.
            self.renew(store, interest);
        }
    }

    /// Asks all members for what is new, and looks at what is here.
    pub(super) fn renew(&mut self, store: &Store, number: u64) {
        self.refresh_own(store, number);
        let Some(kept) = self.interests.kept.get_mut(&number) else {
            return;
        };
        kept.renew = self.now + kept.max_age / 3;
        let others: Vec<NodeId> = self.members.others().cloned().collect();
        let messages: Vec<(NodeId, Message)> = others
            .into_iter()
            .map(|member| {
                let have = kept.held.get(&member).map_or(0, |held| held.serial);
                (member, subscribe(number, kept, self.now, have))
            })
            .collect();
        for (member, message) in messages {
            self.send_one(&member, &message);
        }
        self.serve_waiting(number);
    }

    pub(super) fn refresh_own(&mut self, store: &Store, number: u64) {
        let Some(kept) = self.interests.kept.get_mut(&number) else {
            return;
        };
        let what = (&kept.pattern, kept.reducer);
        let Ok(said) = self
            .moved
            .contribution(store, &self.own, self.now, what, None)
        else {
            return;
        };
        kept.own_dirty = false;
        let held = Held {
            serial: 0,
            as_of: self.now,
            contribution: said,
        };
        kept.held.insert(self.own.clone(), held);
        self.show(number, true);
    }

    /// Makes the replica say what is held.
    pub(super) fn show(&mut self, number: u64, anew: bool) {
        let Some(kept) = self.interests.kept.get(&number) else {
            return;
        };
        let mut as_of = kept.held.get(&self.own).map(|held| held.as_of);
        for member in self.members.others() {
            let theirs = kept.held.get(member).map(|held| held.as_of);
            as_of = as_of.zip(theirs).map(|(a, b)| a.min(b));
        }
        if anew {
            match combine_held(kept) {
                Ok(shown) => kept.replica.show(shown),
                // Whoever reads it has to ask, and is told then.
                Err(_) => as_of = None,
            }
        }
        kept.replica.set_as_of(as_of);
    }

    /// Ends the reads for which the replica is fresh enough; true if none is left.
    pub(super) fn serve_waiting(&mut self, number: u64) -> bool {
        let now = self.now;
        let Some(kept) = self.interests.kept.get_mut(&number) else {
            return true;
        };
        let mut done = Vec::new();
        let held = &kept.held;
        let members = &self.members;
        kept.waiting.retain(|waiting| {
            let fresh = |member: &NodeId| {
                let age = held.get(member).map(|held| now.saturating_sub(held.as_of));
                age.is_some_and(|age| age <= waiting.max_age)
            };
            let ended = waiting.ends <= now
                || waiting
                    .expected
                    .iter()
                    .all(|member| fresh(member) || !members.is_live(member));
            if !ended {
                return true;
            }
            let oldest = held.values().map(|held| now.saturating_sub(held.as_of));
            let mut answers = BTreeMap::new();
            let mut stale = BTreeMap::new();
            for (member, held) in held {
                if fresh(member) {
                    answers.insert(member.clone(), held.contribution.clone());
                } else {
                    stale.insert(member.clone(), held.contribution.clone());
                }
            }
            let result = view(
                &waiting.query,
                &waiting.expected,
                &answers,
                &stale,
                oldest.max(),
            );
            done.push((waiting.number, result));
            false
        });
        let none_left = kept.waiting.is_empty();
        for (call, result) in done {
            self.out.push(Action::Done {
                call: CallId(call),
                result,
            });
        }
        none_left
    }

    pub(in crate::protocol) fn pushed(
        &mut self,
        from: &NodeId,
        number: u64,
        serial: u64,
        as_of: Now,
        contribution: Option<Contribution>,
    ) {
        let as_of = as_of.min(self.now);
        let Some(kept) = self.interests.kept.get_mut(&number) else {
            let forget = Message::Forget { number };
            return self.send_one(from, &forget);
        };
        let anew = match (kept.held.get_mut(from), contribution) {
            (Some(held), None) if held.serial == serial => {
                held.as_of = held.as_of.max(as_of);
                false
            }
            (_, None) => return,
            (Some(held), Some(_)) if held.serial > serial => return,
            (held, Some(said)) => {
                if said.settled.reducer() != kept.reducer {
                    return;
                }
                let as_of = held.map_or(as_of, |held| held.as_of.max(as_of));
                let held = Held {
                    serial,
                    as_of,
                    contribution: said,
                };
                kept.held.insert(from.clone(), held);
                true
            }
        };
        self.show(number, anew);
        self.serve_waiting(number);
    }

    pub(super) fn end_interest(&mut self, store: &Store, number: u64) {
        if let Some(kept) = self.interests.kept.remove(&number) {
            self.interests.replicas.close(&kept.replica);
            store.withdraw(Interest(number));
            let others: Vec<NodeId> = self.members.others().cloned().collect();
            self.send(others, &Message::Forget { number });
        }
    }
}

fn subscribe(interest: u64, kept: &Kept, now: Now, have: u64) -> Message {
    Message::Subscribe {
        interest,
        sent: now,
        have,
        max_age: kept.max_age,
        lease: kept.max_age * 3 + Duration::from_secs(1),
        reducer: kept.reducer,
        pattern: kept.pattern.clone(),
    }
}

fn combine_held(kept: &Kept) -> Result<Shown, Error> {
    let answers = kept
        .held
        .iter()
        .map(|(member, held)| (member.clone(), held.contribution.clone()))
        .collect();
    let reduced = combine(kept.reducer, &answers)?;
    Ok(Shown {
        value: reduced.value,
        items: reduced.items,
        answered: kept.held.keys().map(|m| m.name.to_string()).collect(),
    })
}
