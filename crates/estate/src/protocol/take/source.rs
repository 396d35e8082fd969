//! The source of a move: freezes, gives up. `loading` is what it sends, `patience` how long it waits.

use super::super::engine::{Action, Engine, Event as News, Now};
use super::super::member::NodeId;
use super::super::message::{Message, Move};
use super::table::{Duty, Event, State, transition};
use crate::item::{Item, ItemRef};
use crate::store::{Hold, Selection, Store};
use crate::version::Stamp;
use std::collections::HashSet;
use std::time::Duration;

/// A move away from here.
#[derive(Debug)]
pub(in super::super) struct Departure {
    pub dest: NodeId,
    pub what: Move,
    pub state: State,
    pub(super) selection: Selection,
    // Where the round is in the selection, or in what has changed.
    pub(super) cursor: usize,
    pub(super) batch: usize,
    pub(super) round: u32,
    pub(super) round_bytes: usize,
    // What this round looks at, after the first: what was written or removed during the last one.
    pub(super) changed: Vec<String>,
    // What the destination will have once it has all chunks.
    pub(super) keys: HashSet<Box<str>>,
    // All `Cargo` messages so far. Invariant: acknowledged <= sent <= chunks.len().
    pub(super) chunks: Vec<Vec<u8>>,
    pub(super) acknowledged: usize,
    pub(super) sent: usize,
    pub(super) frozen_at: Now,
    pub(super) frozen_for: Duration,
    pub(super) at: Stamp,
    pub(super) restored: Vec<String>,
    pub(super) pause: Duration,
    pub(super) again: Now,
    pub(super) heard: Now,
    // The destination cannot be reached.
    pub(super) away: bool,
}

impl Departure {
    pub(super) fn hold(&self) -> Hold {
        Hold::Move(self.what.id)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Gone | State::Kept | State::Restored)
    }

    pub fn due(&self, move_timeout: Duration) -> Option<Now> {
        match self.state {
            State::Copying | State::Frozen => Some(self.again.min(self.heard + move_timeout)),
            State::Given if self.away => None,
            State::Given => Some(self.again),
            _ => None,
        }
    }
}

impl Engine {
    pub(in super::super) fn begin(
        &mut self,
        store: &Store,
        from: &NodeId,
        what: Move,
        pre_copy: bool,
        selection: Selection,
    ) {
        if let Some(old) = self.departures.moves.get_mut(&what.id) {
            old.heard = self.now;
            let same = old.dest == *from;
            let (attempt, state, dest) = (old.what.attempt, old.state, old.dest.clone());
            if same && attempt > what.attempt {
                return;
            }
            if same && attempt == what.attempt {
                match state {
                    State::Copying | State::Frozen => self.resend(store, what.id),
                    State::Given | State::Gone => self.say_commit(what.id),
                    _ => self.say_abort(from, what, "it was aborted here"),
                }
                return;
            }
            match state {
                State::Copying | State::Frozen if same => {
                    self.source_step(store, what.id, Event::Abort, "it was begun anew");
                }
                State::Kept | State::Restored => {}
                State::Copying | State::Frozen => {
                    let why = format!("its items are on their way to {dest} under the same id");
                    return self.say_abort(from, what, &why);
                }
                _ => {
                    let why = format!("its items went to {dest} before: take them from there");
                    return self.say_abort(from, what, &why);
                }
            }
        }
        if self.arrivals.moves.contains_key(&what.id) {
            return self.say_abort(from, what, "the id is that of a move to here: use another");
        }
        let departure = Departure {
            dest: from.clone(),
            what,
            state: State::Copying,
            selection,
            cursor: 0,
            batch: 8,
            round: 0,
            round_bytes: 0,
            changed: Vec::new(),
            keys: HashSet::new(),
            chunks: Vec::new(),
            acknowledged: 0,
            sent: 0,
            frozen_at: self.now,
            frozen_for: Duration::ZERO,
            at: Stamp::ZERO,
            restored: Vec::new(),
            pause: self.settings.retry,
            again: self.now + self.settings.retry,
            heard: self.now,
            away: false,
        };
        self.departures.moves.insert(what.id, departure);
        if pre_copy {
            let departure = &self.departures.moves[&what.id];
            store.track(departure.hold(), &departure.selection);
            self.pump(store, what.id);
        } else {
            self.source_step(store, what.id, Event::Copied, "");
        }
    }

    /// The departure that `from` speaks of, which has been heard of now.
    pub(super) fn departure(&mut self, from: &NodeId, what: Move) -> Option<&mut Departure> {
        let (now, pause) = (self.now, self.settings.retry);
        let departure = self.departures.moves.get_mut(&what.id)?;
        if departure.dest != *from || departure.what != what {
            return None;
        }
        departure.heard = now;
        departure.pause = pause;
        departure.again = now + pause;
        Some(departure)
    }

    pub(in super::super) fn ready(
        &mut self,
        store: &Store,
        from: &NodeId,
        what: Move,
        clock: Stamp,
    ) {
        store.observe(clock);
        if self.departure(from, what).is_some() {
            self.source_step(store, what.id, Event::Ready, "");
        } else {
            // We do not know the move, so we have given nothing up: an earlier incarnation did, or
            // it is forgotten. In the first case the sender learns of our incarnation; in the
            // second it has long settled.
            self.say_abort(from, what, "it is not known here");
        }
    }

    pub(in super::super) fn owned(&mut self, store: &Store, from: &NodeId, what: Move) {
        if self.departure(from, what).is_some() {
            self.source_step(store, what.id, Event::Owned, "");
        } else {
            self.send_one(from, &Message::Closed { what });
        }
    }

    pub(in super::super) fn source_aborted(
        &mut self,
        store: &Store,
        from: &NodeId,
        what: Move,
        why: &str,
    ) {
        if self.departure(from, what).is_some() {
            self.source_step(store, what.id, Event::Abort, why);
        }
    }

    /// Removes what has been given up. That is the first thing that happens after the word of it was
    /// sent, so that nothing here sees the items between: until then they are frozen.
    pub(in super::super) fn clear_away(&mut self, store: &Store) {
        for id in std::mem::take(&mut self.given) {
            let Some(departure) = self.departures.moves.get_mut(&id) else {
                continue;
            };
            let (hold, at) = (departure.hold(), departure.at);
            let chunks = std::mem::take(&mut departure.chunks);
            store.remove_held_at(hold, Some(at));
            // While the keys are still known as moving, so that no watcher sees them vanish.
            self.take_in_changes(store);
            self.moved.give(id, chunks);
        }
    }

    /// The one way in which a departure changes its state.
    pub(super) fn source_step(&mut self, store: &Store, id: u64, event: Event, why: &str) {
        let Some(departure) = self.departures.moves.get_mut(&id) else {
            return;
        };
        let Some(row) = transition(departure.state, event) else {
            return;
        };
        departure.state = row.to;
        self.out.push(Action::MoveStep { row, said: false });
        let (dest, what, hold) = (departure.dest.clone(), departure.what, departure.hold());
        match row.duty {
            Duty::Freeze => {
                if let Err(error) = self.freeze(store, id) {
                    self.source_step(store, id, Event::Trouble, &error.to_string());
                }
            }
            Duty::Thaw => {
                let chunks = std::mem::take(&mut departure.chunks);
                departure.keys = HashSet::new();
                self.parts.give_up(&dest, &chunks);
                store.untrack(hold);
                store.thaw(hold);
                self.moved.thaw(id);
                if event != Event::Abort {
                    self.say_abort(&dest, what, why);
                }
            }
            Duty::GiveUp => {
                departure.frozen_for = self.now - departure.frozen_at;
                let at = store.clock().next();
                departure.at = at;
                departure.again = self.now + self.settings.retry;
                store.observe(at);
                self.moved.decide(at);
                self.say_commit(id);
                // The destination waits for the word, not for the removal; see `clear_away`.
                self.given.push(id);
            }
            Duty::SayCommit => self.say_commit(id),
            Duty::Forget => {
                let own = self.own.clone();
                self.moved
                    .settle(id, &own, self.now, self.settings.longest_query);
                self.send_one(&dest, &Message::Closed { what });
            }
            Duty::SayAbort => self.say_abort(&dest, what, "its items have stayed here"),
            Duty::Restore => {
                let mut items: Vec<Item> = Vec::new();
                self.moved
                    .each_given(id, &self.own, |item: ItemRef<'_>, _| {
                        items.push(item.to_item(self.own.name.clone()));
                    });
                departure.restored = items.iter().map(|item| item.key.clone()).collect();
                for item in &items {
                    // What was written here since is newer and stays; without memory for it the
                    // item is lost with its owner, as it would be without us.
                    let _ = store.insert_moved(hold, item);
                }
                self.take_in_changes(store);
                self.moved.thaw(id);
            }
            Duty::Withdraw => {
                let keys = std::mem::take(&mut departure.restored);
                let items = self.withdraw(store, hold, keys);
                self.out.push(Action::Event(News::Conflict {
                    move_id: id,
                    owner: dest.clone(),
                    items,
                }));
                self.send_one(&dest, &Message::Closed { what });
            }
            _ => {}
        }
        if self
            .departures
            .moves
            .get(&id)
            .is_some_and(Departure::is_over)
        {
            self.departures.ended(id, Departure::is_over);
        }
        self.out.push(Action::MoveStep { row, said: true });
        self.settle_cuts(store);
    }

    /// Removes keys whatever is written to them; returns how many items that were.
    pub(super) fn withdraw(&mut self, store: &Store, hold: Hold, keys: Vec<String>) -> u64 {
        match store.freeze(hold, &Selection::Keys(keys)) {
            Ok(()) => store.remove_held(hold) as u64,
            Err(_) => 0,
        }
    }

    pub(super) fn say_commit(&mut self, id: u64) {
        if let Some(departure) = self.departures.moves.get(&id) {
            let (dest, commit) = (
                departure.dest.clone(),
                Message::Commit {
                    what: departure.what,
                    at: departure.at,
                    frozen: departure.frozen_for,
                },
            );
            self.send_one(&dest, &commit);
        }
    }

    pub(super) fn say_abort(&mut self, to: &NodeId, what: Move, why: &str) {
        let why = why.to_owned();
        self.send_one(to, &Message::Abort { what, why });
    }
}
