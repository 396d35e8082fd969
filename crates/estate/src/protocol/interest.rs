//! Keeping replicas fresh.
//!
//! The first cached read of something declares interest in it. From then on the reader renews its
//! interest with every member three times within the age that it allows, as long as somebody
//! reads; each member answers with what has changed, and also pushes changes by itself, coalesced,
//! at most four times within that age. What nobody reads any more is forgotten on both sides.
//!
//! **How old it is** the reader knows without comparing clocks: a renewal carries the reader's
//! clock, a push brings it back with the time that the owner held it. What the push says was true
//! at that moment at the earliest. So cut off from an owner, its age grows and is reported.

use super::ask::view;
use super::contribution::{Contribution, combine};
use super::engine::{Action, CallId, Engine, Now};
use super::member::NodeId;
use super::message::Message;
use super::replica::{Replica, Replicas, Shown};
use crate::error::Error;
use crate::pattern::Pattern;
use crate::query::{Consistency, Query};
use crate::reduce::Reducer;
use crate::store::{Interest, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A replica is forgotten when nobody has read it for so many times its age, and this.
const IDLE_AGES: u32 = 10;
const IDLE_LEAST: Duration = Duration::from_secs(5);

/// What a member has said.
#[derive(Debug)]
struct Held {
    serial: u64,
    as_of: Now,
    contribution: Contribution,
}

/// A read that waits until the replica is fresh.
#[derive(Debug)]
struct Waiting {
    number: u64,
    query: Query,
    max_age: Duration,
    expected: BTreeSet<NodeId>,
    ends: Now,
}

/// A replica that is kept here.
#[derive(Debug)]
struct Kept {
    pattern: Pattern,
    reducer: Reducer,
    max_age: Duration,
    replica: Arc<Replica>,
    held: BTreeMap<NodeId, Held>,
    waiting: Vec<Waiting>,
    own_dirty: bool,
    renew: Now,
}

/// A replica that another member keeps, of what is here.
#[derive(Debug)]
struct Served {
    pattern: Pattern,
    reducer: Reducer,
    max_age: Duration,
    // In the store's book of who wants to know.
    interest: Interest,
    // The reader's clock, and when it came.
    echo: Duration,
    echo_at: Now,
    // Invariant: the serial is of this contribution.
    serial: u64,
    contribution: Contribution,
    made: Now,
    dirty: bool,
    pushed: Now,
    ends: Now,
}

impl Served {
    fn pace(&self) -> Duration {
        self.max_age / 4
    }
}

/// Replicas, on both sides.
#[derive(Debug, Default)]
pub(super) struct Interests {
    pub replicas: Arc<Replicas>,
    kept: BTreeMap<u64, Kept>,
    served: BTreeMap<(NodeId, u64), Served>,
}

impl Interests {
    pub fn due(&self) -> Option<Now> {
        let kept = self.kept.values().map(|kept| {
            let waiting = kept.waiting.iter().map(|waiting| waiting.ends);
            waiting.fold(kept.renew, Now::min)
        });
        let served = self.served.values().map(|served| match served.dirty {
            true => served.ends.min(served.pushed + served.pace()),
            false => served.ends,
        });
        kept.chain(served).min()
    }

    /// The shortest time within which changes have to be noticed, if at all.
    pub fn pace(&self) -> Option<Duration> {
        let served = self.served.values().map(Served::pace);
        let kept = self.kept.values().map(|kept| kept.max_age / 4);
        served.chain(kept).min()
    }

    pub fn changed(&mut self, key: &str) {
        for served in self.served.values_mut() {
            served.dirty |= served.pattern.matches(key);
        }
        for kept in self.kept.values_mut() {
            kept.own_dirty |= kept.pattern.matches(key);
        }
    }

    /// Bytes of replicas that are kept here, roughly.
    pub fn bytes(&self) -> usize {
        let mut bytes = Vec::new();
        for held in self.kept.values().flat_map(|kept| kept.held.values()) {
            held.contribution.emit(&mut bytes);
        }
        bytes.len()
    }
}

impl Engine {
    /// The replicas that are kept here, to be read by any thread.
    pub fn replicas(&self) -> Arc<Replicas> {
        self.interests.replicas.clone()
    }

    /// Bytes that the replicas kept here take, roughly.
    pub fn replica_bytes(&self) -> usize {
        self.interests.bytes()
    }

    /// Has a replica kept from now on, before the first read needs it.
    pub fn declare(
        &mut self,
        store: &Store,
        pattern: &Pattern,
        reducer: Reducer,
        max_age: Duration,
        now: Now,
    ) -> Vec<Action> {
        self.now = now;
        self.keep(store, pattern, reducer, max_age);
        self.finish()
    }

    fn keep(
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

    pub(super) fn ask_replica(
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
    fn renew(&mut self, store: &Store, number: u64) {
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

    fn refresh_own(&mut self, store: &Store, number: u64) {
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
    fn show(&mut self, number: u64, anew: bool) {
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
    fn serve_waiting(&mut self, number: u64) -> bool {
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

    #[allow(clippy::too_many_arguments)] // the fields of the message
    pub(super) fn subscribed(
        &mut self,
        store: &Store,
        from: &NodeId,
        number: u64,
        sent: Duration,
        have: u64,
        max_age: Duration,
        lease: Duration,
        reducer: Reducer,
        pattern: Pattern,
    ) {
        self.take_in_changes(store);
        let key = (from.clone(), number);
        let now = self.now;
        if !self.interests.served.contains_key(&key) {
            let interest = Interest(self.number());
            store.declare(interest, pattern.clone());
            self.out.push(Action::GloballyRead {
                pattern: pattern.as_str().to_owned(),
                by: from.clone(),
            });
            let served = Served {
                pattern,
                reducer,
                max_age,
                interest,
                echo: sent,
                echo_at: now,
                serial: 0,
                contribution: Contribution::new(reducer),
                made: now,
                dirty: true,
                pushed: now,
                ends: now + lease,
            };
            self.interests.served.insert(key.clone(), served);
        }
        let Some(served) = self.interests.served.get_mut(&key) else {
            return;
        };
        if sent >= served.echo {
            served.echo = sent;
            served.echo_at = now;
            served.max_age = max_age;
        }
        served.ends = served
            .ends
            .max(now + lease.min(self.settings.longest_query * 4));
        // What expires is no change that anybody reports: look now and then.
        let old = now.saturating_sub(served.made) >= served.max_age / 2;
        if served.dirty || old || !self.moved.is_quiet() {
            self.make(store, &key);
        }
        self.push(&key, have);
    }

    /// Looks at what is here; says whether it has changed.
    fn make(&mut self, store: &Store, key: &(NodeId, u64)) -> bool {
        let serial = self.number();
        let Some(served) = self.interests.served.get_mut(key) else {
            return false;
        };
        let what = (&served.pattern, served.reducer);
        let Ok(said) = self
            .moved
            .contribution(store, &self.own, self.now, what, None)
        else {
            return false;
        };
        served.dirty = false;
        served.made = self.now;
        if served.serial != 0 && said.says_the_same(&served.contribution) {
            return false;
        }
        served.serial = serial;
        served.contribution = said;
        true
    }

    fn push(&mut self, key: &(NodeId, u64), have: u64) {
        let now = self.now;
        let Some(served) = self.interests.served.get_mut(key) else {
            return;
        };
        served.pushed = now;
        let push = Message::Push {
            interest: key.1,
            serial: served.serial,
            echo: served.echo,
            held: now - served.echo_at,
            contribution: (have != served.serial).then(|| Box::new(served.contribution.clone())),
        };
        self.send_one(&key.0, &push);
    }

    pub(super) fn pushed(
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

    pub(super) fn forget_interest(&mut self, store: &Store, from: &NodeId, number: u64) {
        if let Some(served) = self.interests.served.remove(&(from.clone(), number)) {
            store.withdraw(served.interest);
        }
    }

    pub(super) fn interests_of_arrived(&mut self, store: &Store, _member: &NodeId) {
        let numbers: Vec<u64> = self.interests.kept.keys().copied().collect();
        for number in numbers {
            self.renew(store, number);
        }
    }

    pub(super) fn interests_of_departed(&mut self, store: &Store, member: &NodeId) {
        self.interests.served.retain(|(reader, _), served| {
            let stays = reader != member;
            if !stays {
                store.withdraw(served.interest);
            }
            stays
        });
        let numbers: Vec<u64> = self.interests.kept.keys().copied().collect();
        for number in numbers {
            self.serve_waiting(number);
            if let Some(kept) = self.interests.kept.get_mut(&number) {
                kept.held.remove(member);
            }
            self.show(number, true);
        }
    }

    pub(super) fn interests_time(&mut self, store: &Store) {
        let now = self.now;
        let late: Vec<(NodeId, u64)> = self
            .interests
            .served
            .iter()
            .filter(|(_, served)| {
                served.ends <= now || served.dirty && served.pushed + served.pace() <= now
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in late {
            if self.interests.served[&key].ends <= now {
                self.forget_interest(store, &key.0, key.1);
            } else if self.make(store, &key) {
                self.push(&key, 0);
            }
        }
        let numbers: Vec<u64> = self.interests.kept.keys().copied().collect();
        for number in numbers {
            let Some(kept) = self.interests.kept.get(&number) else {
                continue;
            };
            let idle = IDLE_LEAST.max(kept.max_age * IDLE_AGES);
            if kept.waiting.is_empty() && kept.replica.last_read() + idle <= now {
                self.end_interest(store, number);
                continue;
            }
            if kept.renew <= now {
                self.renew(store, number);
            } else if kept.own_dirty {
                self.refresh_own(store, number);
            }
            self.serve_waiting(number);
        }
    }

    fn end_interest(&mut self, store: &Store, number: u64) {
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

/// The age that a query allows its replica, if it reads one.
pub(super) fn cached_age(query: &Query) -> Option<Duration> {
    match query.consistency {
        Consistency::Cached { max_age } => Some(max_age),
        _ => None,
    }
}
