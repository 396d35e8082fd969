//! Subscriptions: who watches a pattern is told of the items that change, as they are then.
//!
//! A watch has begun when every member has said that it watches; what is written after that, by
//! whoever knows that it has begun, is reported. A member that could not say so in time, that came
//! later, or was away for longer than its lease, reports what is there when it hears of the watch:
//! it may repeat what is known, so that nothing is missed but a deletion in between.
//!
//! Reports are coalesced: an item that is written a thousand times between two reports is in the
//! next one once. None is lost: reports are numbered, the watcher's renewals say up to where it has
//! them all, and what is missing is reported again. A watch shows changes, not what was there
//! before it; a move is no change.

use super::engine::{Action, Engine, Event, Now};
use super::member::NodeId;
use super::message::Message;
use crate::item::Item;
use crate::pattern::Pattern;
use crate::store::{Interest, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const RENEW: Duration = Duration::from_secs(1);
const LEASE: Duration = Duration::from_secs(5);
/// Reports are at least so far apart.
const PACE: Duration = Duration::from_millis(2);
/// Items in one report.
const MOST: usize = 4096;

/// What we watch.
#[derive(Debug)]
struct Watch {
    pattern: Pattern,
    declaring: Option<Declaring>,
    // Of each member: the last report before which none is missing, and those beyond it.
    seen: BTreeMap<NodeId, (u64, BTreeSet<u64>)>,
    renew: Now,
}

/// A watch that has not begun everywhere.
#[derive(Debug)]
struct Declaring {
    // Members that have not said that they watch.
    silent: BTreeSet<NodeId>,
    ends: Now,
}

/// Who watches what is here; ourselves, too.
#[derive(Debug)]
struct Watcher {
    pattern: Pattern,
    interest: Interest,
    pending: BTreeSet<String>,
    // Reports that may not have arrived.
    sent: BTreeMap<u64, (Now, Vec<String>)>,
    serial: u64,
    reported: Now,
    ends: Now,
}

/// Subscriptions, on both sides.
#[derive(Debug, Default)]
pub(super) struct Watches {
    own: BTreeMap<u64, Watch>,
    watchers: BTreeMap<(NodeId, u64), Watcher>,
}

impl Watches {
    pub fn due(&self) -> Option<Now> {
        let own = self.own.values().map(|watch| {
            let ends = watch.declaring.as_ref().map(|declaring| declaring.ends);
            ends.map_or(watch.renew, |ends| ends.min(watch.renew))
        });
        let watchers = self.watchers.values();
        let watchers = watchers.map(|watcher| match watcher.pending.is_empty() {
            true => watcher.ends,
            false => watcher.ends.min(watcher.reported + PACE),
        });
        own.chain(watchers).min()
    }

    pub fn pace(&self) -> Option<Duration> {
        (!self.watchers.is_empty()).then_some(PACE)
    }

    pub fn changed(&mut self, key: &str) {
        for watcher in self.watchers.values_mut() {
            if watcher.pattern.matches(key) {
                watcher.pending.insert(key.to_owned());
            }
        }
    }
}

impl Engine {
    /// Reports changes of matching items at all members, ourselves included, as
    /// [`Event::Changed`] with the number that this returns. [`Action::Watching`] says when it has
    /// begun everywhere, which is after `timeout` at the latest.
    pub fn watch(
        &mut self,
        store: &Store,
        pattern: Pattern,
        timeout: Duration,
        now: Now,
    ) -> (u64, Vec<Action>) {
        self.enter(store, now);
        let number = self.number();
        let own = self.own.clone();
        self.watched(store, &own, number, 0, Now::MAX, false, pattern.clone());
        let watch = Watch {
            pattern,
            declaring: Some(Declaring {
                silent: self.members.others().cloned().collect(),
                ends: now.saturating_add(timeout),
            }),
            seen: BTreeMap::new(),
            renew: now,
        };
        self.watches.own.insert(number, watch);
        self.renew_watch(number);
        self.begin_watching(number);
        (number, self.finish())
    }

    /// Says that the watch has begun, if it has.
    fn begin_watching(&mut self, number: u64) {
        let (now, members) = (self.now, &self.members);
        let Some(watch) = self.watches.own.get_mut(&number) else {
            return;
        };
        let Some(declaring) = &mut watch.declaring else {
            return;
        };
        // One that has gone reports everything when it is back.
        declaring.silent.retain(|member| members.is_live(member));
        if declaring.silent.is_empty() || declaring.ends <= now {
            watch.declaring = None;
            watch.renew = now + RENEW;
            self.out.push(Action::Watching { watch: number });
        }
    }

    pub(super) fn watching(&mut self, from: &NodeId, number: u64) {
        if let Some(watch) = self.watches.own.get_mut(&number) {
            if let Some(declaring) = &mut watch.declaring {
                declaring.silent.remove(from);
            }
            self.begin_watching(number);
        } else {
            self.send_one(from, &Message::Forget { number });
        }
    }

    /// Ends a watch.
    pub fn unwatch(&mut self, store: &Store, number: u64, now: Now) -> Vec<Action> {
        self.enter(store, now);
        if self.watches.own.remove(&number).is_some() {
            let own = self.own.clone();
            self.forget_watch(store, &own, number);
            let others: Vec<NodeId> = self.members.others().cloned().collect();
            self.send(others, &Message::Forget { number });
        }
        self.finish()
    }

    fn renew_watch(&mut self, number: u64) {
        let Some(watch) = self.watches.own.get_mut(&number) else {
            return;
        };
        let silent = watch.declaring.as_ref().map(|d| &d.silent);
        watch.renew = self.now + silent.map_or(RENEW, |_| self.settings.retry);
        let renewals: Vec<(NodeId, Message)> = self
            .members
            .others()
            .map(|member| {
                let renewal = Message::Watch {
                    watch: number,
                    seen: watch.seen.get(member).map_or(0, |(seen, _)| *seen),
                    lease: LEASE,
                    present: silent.is_none_or(|silent| !silent.contains(member)),
                    pattern: watch.pattern.clone(),
                };
                (member.clone(), renewal)
            })
            .collect();
        for (member, renewal) in renewals {
            self.send_one(&member, &renewal);
        }
    }

    #[allow(clippy::too_many_arguments)] // the fields of the message
    pub(super) fn watched(
        &mut self,
        store: &Store,
        from: &NodeId,
        number: u64,
        seen: u64,
        lease: Duration,
        present: bool,
        pattern: Pattern,
    ) {
        let key = (from.clone(), number);
        let (now, retry) = (self.now, self.settings.retry);
        if !self.watches.watchers.contains_key(&key) {
            // What changed before is not of interest.
            self.take_in_changes(store);
            let interest = Interest(self.number());
            store.declare(interest, pattern.clone());
            let mut pending = BTreeSet::new();
            if present {
                let moved = &self.moved;
                let here = store.scan(&pattern, None, |item| {
                    if !moved.hides_change(item.key) {
                        pending.insert(item.key.to_owned());
                    }
                });
                debug_assert!(here.is_ok(), "nothing stops it");
            }
            let watcher = Watcher {
                pattern,
                interest,
                pending,
                sent: BTreeMap::new(),
                serial: seen,
                reported: now,
                ends: now,
            };
            self.watches.watchers.insert(key.clone(), watcher);
        }
        let Some(watcher) = self.watches.watchers.get_mut(&key) else {
            return;
        };
        watcher.ends = now.saturating_add(lease);
        watcher.sent.retain(|serial, _| *serial > seen);
        let mut late = Vec::new();
        for (serial, (sent, keys)) in &mut watcher.sent {
            if *sent + retry <= now {
                *sent = now;
                late.push((*serial, keys.clone()));
            }
        }
        for (serial, keys) in late {
            self.send_report(store, &key, serial, &keys, true);
        }
        if *from != self.own {
            self.send_one(from, &Message::Watching { watch: number });
        }
    }

    /// Reports what is pending.
    fn report(&mut self, store: &Store, key: &(NodeId, u64)) {
        while let Some(watcher) = self.watches.watchers.get_mut(key)
            && !watcher.pending.is_empty()
        {
            let keys: Vec<String> = watcher.pending.iter().take(MOST).cloned().collect();
            for key in &keys {
                watcher.pending.remove(key);
            }
            watcher.reported = self.now;
            watcher.serial += 1;
            let serial = watcher.serial;
            if key.0 != self.own {
                watcher.sent.insert(serial, (self.now, keys.clone()));
            }
            self.send_report(store, key, serial, &keys, false);
        }
    }

    /// Says what `keys` are now; `again`: as it was said before.
    fn send_report(
        &mut self,
        store: &Store,
        key: &(NodeId, u64),
        serial: u64,
        keys: &[String],
        again: bool,
    ) {
        let (mut items, mut gone) = (Vec::new(), Vec::new());
        for key in keys {
            match store.get_item(key) {
                Some(item) => items.push(item),
                None => gone.push(key.clone()),
            }
        }
        if key.0 == self.own {
            let own = self.own.clone();
            self.out.extend(events(&own, key.1, items, gone));
        } else {
            let report = Message::Changed {
                watch: key.1,
                serial,
                items,
                gone,
            };
            self.transmit(vec![key.0.clone()], report.emit(), again);
        }
    }

    pub(super) fn reported(
        &mut self,
        from: &NodeId,
        number: u64,
        serial: u64,
        items: Vec<Item>,
        gone: Vec<String>,
    ) {
        let Some(watch) = self.watches.own.get_mut(&number) else {
            return self.send_one(from, &Message::Forget { number });
        };
        let (seen, beyond) = watch.seen.entry(from.clone()).or_default();
        if serial <= *seen || !beyond.insert(serial) {
            return;
        }
        while beyond.remove(&(*seen + 1)) {
            *seen += 1;
        }
        let hole = !beyond.is_empty();
        self.out.extend(events(from, number, items, gone));
        if hole {
            self.renew_watch(number);
        }
    }

    pub(super) fn forget_watch(&mut self, store: &Store, from: &NodeId, number: u64) {
        if let Some(watcher) = self.watches.watchers.remove(&(from.clone(), number)) {
            store.withdraw(watcher.interest);
        }
    }

    pub(super) fn watches_of_arrived(&mut self) {
        let numbers: Vec<u64> = self.watches.own.keys().copied().collect();
        for number in numbers {
            self.renew_watch(number);
        }
    }

    /// One that is only away keeps its place: its memory is intact, and its lease is the limit.
    pub(super) fn watches_of_departed(&mut self, store: &Store, member: &NodeId) {
        let numbers: Vec<u64> = self.watches.own.keys().copied().collect();
        for number in numbers {
            self.begin_watching(number);
        }
        for watch in self.watches.own.values_mut() {
            if let Some((_, beyond)) = watch.seen.get_mut(member) {
                // If it forgets the watch meanwhile, it numbers from what we have seen.
                beyond.clear();
            }
        }
        if !self.members.is_lost(member) {
            return;
        }
        self.watches.watchers.retain(|(watcher, _), watch| {
            let stays = watcher != member;
            if !stays {
                store.withdraw(watch.interest);
            }
            stays
        });
        for watch in self.watches.own.values_mut() {
            watch.seen.remove(member);
        }
    }

    pub(super) fn watches_time(&mut self, store: &Store) {
        let now = self.now;
        let keys: Vec<(NodeId, u64)> = self.watches.watchers.keys().cloned().collect();
        for key in keys {
            let watcher = &self.watches.watchers[&key];
            if watcher.ends <= now {
                self.forget_watch(store, &key.0, key.1);
            } else if !watcher.pending.is_empty() && watcher.reported + PACE <= now {
                self.report(store, &key);
            }
        }
        let late: Vec<u64> = self
            .watches
            .own
            .iter()
            .filter(|(_, watch)| watch.renew <= now)
            .map(|(&number, _)| number)
            .collect();
        for number in late {
            self.renew_watch(number);
        }
        let numbers: Vec<u64> = self.watches.own.keys().copied().collect();
        for number in numbers {
            self.begin_watching(number);
        }
    }
}

fn events(node: &NodeId, watch: u64, items: Vec<Item>, gone: Vec<String>) -> Vec<Action> {
    let written = items.into_iter().map(|item| (item.key.clone(), Some(item)));
    let gone = gone.into_iter().map(|key| (key, None));
    written
        .chain(gone)
        .map(|(key, item)| {
            Action::Event(Event::Changed {
                watch,
                node: node.clone(),
                key,
                item,
            })
        })
        .collect()
}
