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

mod owner;
mod reader;

use super::contribution::Contribution;
use super::engine::{Action, Engine, Now};
use super::member::NodeId;
use super::replica::{Replica, Replicas};
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
pub(in crate::protocol) struct Interests {
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
        self.enter(store, now);
        self.keep(store, pattern, reducer, max_age);
        self.finish()
    }

    pub(in crate::protocol) fn interests_of_arrived(&mut self, store: &Store, _member: &NodeId) {
        let numbers: Vec<u64> = self.interests.kept.keys().copied().collect();
        for number in numbers {
            self.renew(store, number);
        }
    }

    pub(in crate::protocol) fn interests_of_departed(&mut self, store: &Store, member: &NodeId) {
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

    pub(in crate::protocol) fn interests_time(&mut self, store: &Store) {
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
}

/// The age that a query allows its replica, if it reads one.
pub(in crate::protocol) fn cached_age(query: &Query) -> Option<Duration> {
    match query.consistency {
        Consistency::Cached { max_age } => Some(max_age),
        _ => None,
    }
}
