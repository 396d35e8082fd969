//! The engine: what it is made of, what goes in, what comes out.

use super::answer::Cuts;
use super::ask::Calls;
use super::interest::Interests;
use super::joint::Joints;
use super::member::{Members, NodeId};
use super::message::Message;
use super::moved::Moved;
use super::parts::Parts;
use super::take::table::Transition;
use super::take::{Arrival, Departure, Journal};
use super::watch::Watches;
use crate::error::Error;
use crate::item::Item;
use crate::query::View;
use crate::store::Store;
use crate::version::Stamp;
use std::time::Duration;

/// The time, since any moment that stays the same for the life of an engine.
pub type Now = Duration;

/// A call that waits for others, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// How patient the engine is. All members of a cluster have the same `longest_query`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The longest time-out of a query, and the greatest age of a replica: for so long moved items
    /// are remembered where they were.
    pub longest_query: Duration,
    /// A message without an answer is repeated after so long, then after twice that, and so on.
    pub retry: Duration,
    /// A move without any sign of the other side for so long is aborted, where it may be.
    pub move_timeout: Duration,
    /// A joint write that not all have come to for so long is decided against.
    pub joint_timeout: Duration,
    /// A member that has been gone for so long is taken for dead, with all its memory, by joint
    /// writes that cannot be decided without it. A move waits for a proof; its caller does not.
    pub declare_dead: Duration,
    /// Bytes of items in one chunk of a move.
    pub chunk: usize,
    /// Chunks, or parts of a message, under way at a time.
    pub window: u32,
    /// The longest message; longer ones travel in parts.
    pub part: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            longest_query: Duration::from_secs(10),
            retry: Duration::from_millis(50),
            move_timeout: Duration::from_secs(5),
            joint_timeout: Duration::from_secs(5),
            declare_dead: Duration::from_secs(10),
            chunk: 256 << 10,
            window: 8,
            part: 512 << 10,
        }
    }
}

/// What a finished move came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Items that are here now because of it.
    pub items: u64,
    /// How long the source refused writes to them.
    pub frozen: Duration,
    /// The source is dead and may have died before it gave the items up: they are as they were
    /// when it froze them.
    pub recovered: bool,
}

/// What others may want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A member is there.
    Joined(NodeId),
    /// A member has left or failed.
    Left(NodeId),
    /// Another live member has our name. One of both has to leave: the one with the greater
    /// incarnation, which came later.
    NameTaken(NodeId),
    /// A watched item has changed.
    Changed {
        /// The watch.
        watch: u64,
        /// The member that has it.
        node: NodeId,
        /// Its key.
        key: String,
        /// The item as it is now; none if it has gone.
        item: Option<Item>,
    },
    /// A member taken for dead was not, and its word on a move stands: the items that were
    /// recovered here have been withdrawn, with what was written to them.
    Conflict {
        /// The move.
        move_id: u64,
        /// Who has the items.
        owner: NodeId,
        /// How many they are.
        items: u64,
    },
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a message to each of these members.
    Send {
        /// The members.
        to: Vec<NodeId>,
        /// The message.
        bytes: Vec<u8>,
        /// It was sent before: where that still waits to be sent nothing was lost, and this is not
        /// needed.
        again: bool,
    },
    /// A global read is done.
    Done {
        /// The call.
        call: CallId,
        /// What it saw; [`Error::Incomplete`] holds the view, too.
        result: Result<View, Error>,
    },
    /// A move is done, or has not taken place.
    Taken {
        /// The call.
        call: CallId,
        /// What it came to.
        result: Result<Taken, Error>,
    },
    /// A move to or from here goes a step on. There are two of these: before what is said because of
    /// it, and after. For tests that have a member fail there.
    MoveStep {
        /// The step.
        row: &'static Transition,
        /// Whether all is said.
        said: bool,
    },
    /// A joint write is done, or has not taken place.
    Joined {
        /// The call.
        call: CallId,
        /// Its instant.
        result: Result<Stamp, Error>,
    },
    /// A watch has begun: what is written from now on is reported.
    Watching {
        /// The watch.
        watch: u64,
    },
    /// State of this instance was read by another member.
    GloballyRead {
        /// The keys, as they were asked for.
        pattern: String,
        /// Who asked.
        by: NodeId,
    },
    /// News.
    Event(Event),
}

/// The protocol engine of one member.
#[derive(Debug)]
pub struct Engine {
    pub(super) own: NodeId,
    pub(super) settings: Settings,
    pub(super) members: Members,
    pub(super) now: Now,
    pub(super) out: Vec<Action>,
    pub(super) last_number: u64,
    pub(super) parts: Parts,
    pub(super) calls: Calls,
    pub(super) cuts: Cuts,
    pub(super) moved: Moved,
    pub(super) arrivals: Journal<Arrival>,
    pub(super) departures: Journal<Departure>,
    pub(super) interests: Interests,
    pub(super) watches: Watches,
    pub(super) joints: Joints,
    // Moves whose items are given up and not removed yet.
    pub(super) given: Vec<u64>,
    // When the store's changes were last taken in, and whether there may be more.
    looked: Now,
    stirred: bool,
}

impl Engine {
    /// The engine of member `own`, which knows no other yet.
    pub fn new(own: NodeId, settings: Settings) -> Self {
        Self {
            members: Members::new(own.clone()),
            own,
            settings,
            now: Now::ZERO,
            out: Vec::new(),
            last_number: 0,
            parts: Parts::default(),
            calls: Calls::default(),
            cuts: Cuts::default(),
            moved: Moved::default(),
            arrivals: Journal::default(),
            departures: Journal::default(),
            interests: Interests::default(),
            watches: Watches::default(),
            joints: Joints::default(),
            given: Vec::new(),
            looked: Now::ZERO,
            stirred: false,
        }
    }

    /// Who we are.
    pub fn own(&self) -> &NodeId {
        &self.own
    }

    /// The live members, ourselves included, by name.
    pub fn members(&self) -> Vec<NodeId> {
        let mut all: Vec<_> = self.members.others().cloned().collect();
        all.push(self.own.clone());
        all.sort();
        all
    }

    /// A message has come. What cannot be understood, or comes from no live member, is dropped.
    pub fn message(&mut self, store: &Store, from: &NodeId, bytes: &[u8], now: Now) -> Vec<Action> {
        self.enter(store, now);
        if *from != self.own && self.members.is_live(from) {
            self.receive(store, from, bytes);
        }
        self.finish()
    }

    /// The store has changed: call this when [`Store::on_change`] says so.
    pub fn changed(&mut self, store: &Store, now: Now) -> Vec<Action> {
        self.enter(store, now);
        self.stirred = true;
        // The store says so once until it is looked into: not looking at once is what keeps a
        // hundred thousand writes a second from being as many looks.
        if self.look_due().is_none_or(|due| due <= now) {
            self.take_in_changes(store);
            self.interests_time(store);
            self.watches_time(store);
        }
        self.finish()
    }

    fn look_due(&self) -> Option<Now> {
        let pace = [self.interests.pace(), self.watches.pace()];
        let pace = pace.into_iter().flatten().min()?;
        self.stirred.then(|| self.looked + pace)
    }

    /// What has changed in the store since the last look.
    pub(super) fn take_in_changes(&mut self, store: &Store) {
        self.stirred = false;
        self.looked = self.now;
        for change in store.changes() {
            if !self.moved.hides_change(&change.key) {
                self.interests.changed(&change.key);
                self.watches.changed(&change.key);
            }
        }
    }

    /// Timers that are due.
    pub fn time(&mut self, store: &Store, now: Now) -> Vec<Action> {
        self.enter(store, now);
        if self.look_due().is_some_and(|due| due <= now) {
            self.take_in_changes(store);
        }
        self.parts_time();
        self.cuts_time(store);
        self.calls_time(store);
        self.departures_time(store);
        self.arrivals_time(store);
        self.interests_time(store);
        self.watches_time(store);
        self.joints_time(store);
        self.moved.time(now);
        self.finish()
    }

    /// When [`Engine::time`] is to be called next; earlier does no harm.
    pub fn next_due(&self) -> Option<Now> {
        let (timeout, dead) = (self.settings.move_timeout, self.settings.declare_dead);
        let departures = self.departures.moves.values();
        let departures = departures.filter_map(|d| d.due(timeout)).min();
        let arrivals = self.arrivals.moves.values();
        let arrivals = arrivals.filter_map(|a| a.due(timeout, dead)).min();
        let given = (!self.given.is_empty()).then_some(self.now);
        [
            given,
            self.parts.due(),
            self.cuts.due(),
            self.calls.due(),
            self.moved.due(),
            departures,
            arrivals,
            self.interests.due(),
            self.watches.due(),
            self.joints.due(dead),
            self.look_due(),
        ]
        .into_iter()
        .flatten()
        .min()
        .filter(|&due| due != Now::MAX)
    }

    /// Something goes in: the time is `now`, and what was left over from before is done first.
    pub(super) fn enter(&mut self, store: &Store, now: Now) {
        self.now = now;
        if !self.given.is_empty() {
            self.clear_away(store);
        }
    }

    pub(super) fn finish(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.out)
    }

    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Sends `message` to all of `to`, in parts if it is long.
    pub(super) fn send(&mut self, to: Vec<NodeId>, message: &Message) {
        self.send_bytes(to, message.emit());
    }

    pub(super) fn send_one(&mut self, to: &NodeId, message: &Message) {
        self.send(vec![to.clone()], message);
    }

    pub(super) fn send_bytes(&mut self, to: Vec<NodeId>, bytes: Vec<u8>) {
        self.transmit(to, bytes, false);
    }

    /// The same; `again`: it has been sent before and may be lost.
    pub(super) fn transmit(&mut self, to: Vec<NodeId>, bytes: Vec<u8>, again: bool) {
        if to.is_empty() {
            return;
        }
        if bytes.len() <= self.settings.part {
            self.out.push(Action::Send { to, bytes, again });
        } else {
            self.send_in_parts(to, bytes, again);
        }
    }
}
