//! The destination of a move: fetches, waits for the source's decision, owns.
//!
//! What arrives is put into the store at once, frozen: so whether there is room is known before the
//! commit, and the commit itself is quick. Until then the engine keeps it from every reader but
//! the local one.

use super::super::contribution::{Note, Role};
use super::super::engine::{Action, CallId, Engine, Event as News, Now, Taken};
use super::super::member::NodeId;
use super::super::message::{Message, Move};
use super::table::{Duty, Event, State, transition};
use crate::error::Error;
use crate::store::{Hold, Selection, Store};
use crate::version::Stamp;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

/// A move to here.
#[derive(Debug)]
pub(in super::super) struct Arrival {
    pub source: NodeId,
    pub what: Move,
    pub state: State,
    pub(super) selection: Selection,
    pub(super) pre_copy: bool,
    pub(super) calls: Vec<CallId>,
    // The chunk that is wanted.
    pub(super) next: u32,
    pub(super) keys: HashSet<String>,
    pub(super) chains: BTreeMap<Vec<u64>, u32>,
    // Our clock when we said `Ready`.
    pub ready_at: Stamp,
    pub(super) taken: Taken,
    pub(super) pause: Duration,
    pub(super) again: Now,
    pub(super) heard: Now,
    pub(super) away_since: Option<Now>,
}

impl Arrival {
    pub(super) fn hold(&self) -> Hold {
        Hold::Move(self.what.id)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Settled | State::Dropped | State::Adopted)
    }

    pub fn due(&self, move_timeout: Duration, declare_dead: Duration) -> Option<Now> {
        let away = self.away_since.map(|since| since + declare_dead);
        match self.state {
            State::Fetching => Some(self.again.min(self.heard + move_timeout)),
            State::Doubt if self.calls.is_empty() && away.is_some() => None,
            State::Doubt => Some(away.unwrap_or(self.again)),
            State::Owned if away.is_none() => Some(self.again),
            _ => None,
        }
    }

    fn chains(&self) -> BTreeSet<u32> {
        self.chains.values().copied().collect()
    }
}

impl Engine {
    /// Moves the selected items from member `source` to here, exactly once: repeated with the same
    /// `move_id`, it has the same effect. `pre_copy` keeps the time short in which they cannot be
    /// written. [`Action::Taken`] ends it.
    pub fn take(
        &mut self,
        store: &Store,
        selection: Selection,
        source: &str,
        move_id: u64,
        pre_copy: bool,
        now: Now,
    ) -> (CallId, Vec<Action>) {
        self.enter(store, now);
        let call = CallId(self.number());
        if let Err(error) = self.begin_taking(store, call, selection, source, move_id, pre_copy) {
            self.out.push(Action::Taken {
                call,
                result: Err(error),
            });
        }
        (call, self.finish())
    }

    fn begin_taking(
        &mut self,
        store: &Store,
        call: CallId,
        selection: Selection,
        source: &str,
        move_id: u64,
        pre_copy: bool,
    ) -> Result<(), Error> {
        let from = source;
        let aborted = |why: String| Error::Aborted {
            move_id,
            source_node: from.to_owned(),
            why,
        };
        if *source == *self.own.name {
            let result = Ok(Taken::default());
            self.out.push(Action::Taken { call, result });
            return Ok(());
        }
        if self.departures.moves.contains_key(&move_id) {
            return Err(aborted(
                "the id is that of a move from here: use another".into(),
            ));
        }
        let mut attempt = 1;
        if let Some(arrival) = self.arrivals.moves.get_mut(&move_id) {
            if *arrival.source.name != *source {
                return Err(aborted(format!(
                    "the id is that of a move from {}: use another",
                    arrival.source
                )));
            }
            match arrival.state {
                State::Dropped => attempt = arrival.what.attempt + 1,
                state => {
                    arrival.calls.push(call);
                    // A source that is there has yet to say that it has removed its items.
                    let settling = state == State::Owned && arrival.away_since.is_none();
                    if !settling && !matches!(state, State::Fetching | State::Doubt) {
                        self.answer_takers(move_id);
                    }
                    return Ok(());
                }
            }
        }
        let Some(source) = self.members.named(source).cloned() else {
            let members = self.members();
            let names: Vec<&str> = members.iter().map(|member| &*member.name).collect();
            return Err(Error::NoMember {
                node: source.to_owned(),
                members: names.join(", "),
            });
        };
        let hold = Hold::Move(move_id);
        store
            .freeze(hold, &selection)
            .map_err(|error| aborted(error.to_string()))?;
        let mut mine = None;
        store.scan_held(hold, Stamp::ZERO, |item| {
            mine.get_or_insert_with(|| item.key.to_owned());
        });
        if let Some(key) = mine {
            store.thaw(hold);
            return Err(aborted(format!(
                "key {key:?} is here already: delete it at one of both"
            )));
        }
        let arrival = Arrival {
            source,
            what: Move {
                id: move_id,
                attempt,
            },
            state: State::Fetching,
            selection,
            pre_copy,
            calls: vec![call],
            next: 0,
            keys: HashSet::new(),
            chains: BTreeMap::new(),
            ready_at: Stamp::ZERO,
            taken: Taken::default(),
            pause: self.settings.retry,
            again: self.now + self.settings.retry,
            heard: self.now,
            away_since: None,
        };
        self.arrivals.moves.insert(move_id, arrival);
        self.say_arrival(move_id, false);
        Ok(())
    }

    /// Gives a move up that has not been decided; returns whether it was under way.
    pub fn abort_take(&mut self, store: &Store, move_id: u64, now: Now) -> (bool, Vec<Action>) {
        self.enter(store, now);
        let fetching = |engine: &Self| {
            let arrival = engine.arrivals.moves.get(&move_id);
            arrival.is_some_and(|arrival| arrival.state == State::Fetching)
        };
        let was = fetching(self);
        self.arrival_step(
            store,
            move_id,
            Event::Trouble,
            "it was aborted by its caller",
        );
        (was, self.finish())
    }

    /// Says what the source has not answered; `again`: as it was said before.
    pub(super) fn say_arrival(&mut self, id: u64, again: bool) {
        let Some(arrival) = self.arrivals.moves.get(&id) else {
            return;
        };
        let what = arrival.what;
        let message = match arrival.state {
            State::Fetching if arrival.next == 0 => Message::Begin {
                what,
                pre_copy: arrival.pre_copy,
                selection: arrival.selection.clone(),
            },
            State::Fetching => Message::Got {
                what,
                next: arrival.next,
            },
            State::Doubt | State::Adopted => Message::Ready {
                what,
                clock: arrival.ready_at,
            },
            State::Owned => Message::Owned { what },
            _ => return,
        };
        let source = arrival.source.clone();
        if self.members.is_live(&source) {
            self.transmit(vec![source], message.emit(), again);
        }
    }

    /// The arrival that `from` speaks of, which has been heard of now.
    pub(super) fn arrival(&mut self, from: &NodeId, what: Move) -> Option<&mut Arrival> {
        let (now, pause) = (self.now, self.settings.retry);
        let arrival = self.arrivals.moves.get_mut(&what.id)?;
        if arrival.source != *from || arrival.what != what {
            return None;
        }
        arrival.heard = now;
        arrival.pause = pause;
        arrival.again = now + pause;
        Some(arrival)
    }

    pub(in super::super) fn committed(
        &mut self,
        store: &Store,
        from: &NodeId,
        what: Move,
        at: Stamp,
        frozen: Duration,
    ) {
        store.observe(at);
        if let Some(arrival) = self.arrival(from, what) {
            if arrival.state == State::Doubt {
                arrival.taken.frozen = frozen;
                arrival.ready_at = at;
            }
            self.arrival_step(store, what.id, Event::Commit, "");
        }
    }

    pub(in super::super) fn closed(&mut self, store: &Store, from: &NodeId, what: Move) {
        if self.arrival(from, what).is_some() {
            self.arrival_step(store, what.id, Event::Closed, "");
        }
    }

    pub(in super::super) fn destination_aborted(
        &mut self,
        store: &Store,
        from: &NodeId,
        what: Move,
        why: &str,
    ) {
        if self.arrival(from, what).is_some() {
            self.arrival_step(store, what.id, Event::Abort, why);
        }
    }

    /// The items are here: whoever waits for that is told.
    pub(super) fn answer_takers(&mut self, id: u64) {
        let Some(arrival) = self.arrivals.moves.get_mut(&id) else {
            return;
        };
        for call in std::mem::take(&mut arrival.calls) {
            let result = Ok(arrival.taken.clone());
            self.out.push(Action::Taken { call, result });
        }
    }

    /// The one way in which an arrival changes its state.
    pub(super) fn arrival_step(&mut self, store: &Store, id: u64, event: Event, why: &str) {
        let Some(arrival) = self.arrivals.moves.get_mut(&id) else {
            return;
        };
        let Some(row) = transition(arrival.state, event) else {
            return;
        };
        arrival.state = row.to;
        self.out.push(Action::MoveStep { row, said: false });
        let (source, what, hold) = (arrival.source.clone(), arrival.what, arrival.hold());
        let chains = arrival.chains();
        match row.duty {
            Duty::SayReady => {
                let clock = store.clock().next();
                store.observe(clock);
                arrival.ready_at = clock;
                arrival.taken.items = arrival.keys.len() as u64;
                self.say_arrival(id, false);
            }
            Duty::Own | Duty::Adopt => {
                let at = match row.duty {
                    Duty::Own => arrival.ready_at,
                    _ => store.clock().next(),
                };
                arrival.taken.recovered = row.duty == Duty::Adopt;
                store.observe(at);
                self.take_in_changes(store);
                self.moved.decide(at);
                let note = Note {
                    move_id: id,
                    source: source.clone(),
                    role: Role::Destination,
                };
                let until = self.now + self.settings.longest_query;
                self.moved.own(&chains, at, note, until);
                store.thaw(hold);
                if row.duty == Duty::Own {
                    // The callers wait until the source has removed its items, too.
                    self.say_arrival(id, false);
                } else {
                    self.answer_takers(id);
                }
            }
            Duty::SayOwned => self.send_one(&source, &Message::Owned { what }),
            Duty::Drop => {
                let calls = std::mem::take(&mut arrival.calls);
                arrival.keys = HashSet::new();
                arrival.chains.clear();
                store.remove_held(hold);
                self.take_in_changes(store);
                self.moved.drop_chains(&chains);
                if event != Event::Abort {
                    self.say_abort(&source, what, why);
                }
                for call in calls {
                    let result = Err(Error::Aborted {
                        move_id: id,
                        source_node: source.name.to_string(),
                        why: why.to_owned(),
                    });
                    self.out.push(Action::Taken { call, result });
                }
            }
            Duty::Withdraw => {
                let keys = std::mem::take(&mut arrival.keys).into_iter().collect();
                arrival.chains.clear();
                let items = self.withdraw(store, hold, keys);
                self.moved.drop_chains(&chains);
                self.out.push(Action::Event(News::Conflict {
                    move_id: id,
                    owner: source.clone(),
                    items,
                }));
            }
            _ => {}
        }
        let over = row.to == State::Settled && row.from != State::Settled;
        if over {
            self.answer_takers(id);
        }
        if over || row.to == State::Adopted && self.members.is_lost(&source) {
            self.moved
                .note_ends(id, self.now + 3 * self.settings.longest_query);
        }
        if self.arrivals.moves.get(&id).is_some_and(Arrival::is_over) {
            self.arrivals.ended(id, Arrival::is_over);
        }
        self.out.push(Action::MoveStep { row, said: true });
        self.settle_cuts(store);
    }
}
