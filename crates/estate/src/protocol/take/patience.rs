//! What time does to moves, and that the other side goes and comes: for both sides.

use super::super::engine::{Action, Engine};
use super::super::member::NodeId;
use super::destination::Arrival;
use super::source::Departure;
use super::table::{Event, State};
use crate::error::Error;
use crate::store::Store;
use std::time::Duration;

/// The longest pause between two tries.
const PAUSE_MOST: Duration = Duration::from_secs(1);

/// The source's side.
impl Engine {
    pub(in super::super) fn departures_time(&mut self, store: &Store) {
        let (now, settings) = (self.now, self.settings.clone());
        let due: Vec<u64> = self
            .departures
            .moves
            .iter()
            .filter(|(_, d)| d.due(settings.move_timeout).is_some_and(|due| due <= now))
            .map(|(&id, _)| id)
            .collect();
        for id in due {
            let Some(departure) = self.departures.moves.get_mut(&id) else {
                continue;
            };
            departure.again = now + departure.pause;
            departure.pause = (2 * departure.pause).min(PAUSE_MOST);
            match departure.state {
                State::Given => self.say_commit(id),
                _ if departure.heard + settings.move_timeout <= now => {
                    let why = format!("the destination was silent for {:?}", settings.move_timeout);
                    self.source_step(store, id, Event::Trouble, &why);
                }
                _ => self.resend(store, id),
            }
        }
    }

    /// The destination of some has gone, or (`dead`) is known to have lost its memory.
    pub(in super::super) fn departures_to(&mut self, store: &Store, member: &NodeId, dead: bool) {
        let to: Vec<u64> = self
            .departures
            .moves
            .iter()
            .filter(|(_, departure)| departure.dest == *member)
            .map(|(&id, _)| id)
            .collect();
        for id in to {
            if let Some(departure) = self.departures.moves.get_mut(&id) {
                departure.away = true;
            }
            let event = if dead { Event::Dead } else { Event::Away };
            self.source_step(store, id, event, "the destination has gone");
        }
    }

    /// How many moves were given up to `member` and not acknowledged by it.
    pub(in super::super) fn departures_in_doubt(&self, member: &NodeId) -> u64 {
        let waits = |d: &&Departure| d.dest == *member && d.state == State::Given;
        self.departures.moves.values().filter(waits).count() as u64
    }

    /// A member that was away is back with its memory.
    pub(in super::super) fn departures_back(&mut self, member: &NodeId) {
        for departure in self.departures.moves.values_mut() {
            if departure.dest == *member {
                departure.away = false;
                departure.again = self.now;
            }
        }
    }
}

/// The destination's side.
impl Engine {
    pub(in super::super) fn arrivals_time(&mut self, store: &Store) {
        let (now, settings) = (self.now, self.settings.clone());
        let due: Vec<u64> = self
            .arrivals
            .moves
            .iter()
            .filter(|(_, a)| {
                a.due(settings.move_timeout, settings.declare_dead)
                    .is_some_and(|due| due <= now)
            })
            .map(|(&id, _)| id)
            .collect();
        for id in due {
            let Some(arrival) = self.arrivals.moves.get_mut(&id) else {
                continue;
            };
            arrival.again = now + arrival.pause;
            arrival.pause = (2 * arrival.pause).min(PAUSE_MOST);
            if arrival.state == State::Fetching && arrival.heard + settings.move_timeout <= now {
                let why = format!("the source was silent for {:?}", settings.move_timeout);
                self.arrival_step(store, id, Event::Trouble, &why);
            } else if arrival.away_since.is_some() {
                self.leave_in_doubt(id);
            } else {
                self.say_arrival(id, true);
            }
        }
    }

    /// Lets the callers go: they may wait for the source as long as they like, and need not.
    fn leave_in_doubt(&mut self, id: u64) {
        let Some(arrival) = self.arrivals.moves.get_mut(&id) else {
            return;
        };
        let source_node = arrival.source.name.to_string();
        for call in std::mem::take(&mut arrival.calls) {
            let result = Err(Error::Undecided {
                move_id: id,
                source_node: source_node.clone(),
            });
            self.out.push(Action::Taken { call, result });
        }
    }

    /// The source of some has gone, or (`dead`) is known to have lost its memory.
    pub(in super::super) fn arrivals_from(&mut self, store: &Store, member: &NodeId, dead: bool) {
        let from: Vec<u64> = self
            .arrivals
            .moves
            .iter()
            .filter(|(_, arrival)| arrival.source == *member)
            .map(|(&id, _)| id)
            .collect();
        for id in from {
            if let Some(arrival) = self.arrivals.moves.get_mut(&id) {
                arrival.away_since.get_or_insert(self.now);
            }
            let event = if dead { Event::Dead } else { Event::Away };
            self.arrival_step(store, id, event, "the source has gone");
            let owned = |arrival: &Arrival| arrival.state == State::Owned;
            if self.arrivals.moves.get(&id).is_some_and(owned) {
                // It may take long until it says that it has removed its own.
                self.answer_takers(id);
            }
        }
    }

    /// Something of a long message has come from `member`.
    pub(in super::super) fn arrivals_heard(&mut self, member: &NodeId) {
        for arrival in self.arrivals.moves.values_mut() {
            if arrival.source == *member && !arrival.is_over() {
                arrival.heard = self.now;
            }
        }
    }

    /// How many moves from `member` wait for its decision.
    pub(in super::super) fn arrivals_in_doubt(&self, member: &NodeId) -> u64 {
        let waits = |a: &&Arrival| a.source == *member && a.state == State::Doubt;
        self.arrivals.moves.values().filter(waits).count() as u64
    }

    /// A member that was away is back with its memory.
    pub(in super::super) fn arrivals_back(&mut self, member: &NodeId) {
        let from: Vec<u64> = self
            .arrivals
            .moves
            .iter()
            .filter(|(_, arrival)| arrival.source == *member)
            .map(|(&id, _)| id)
            .collect();
        for id in from {
            if let Some(arrival) = self.arrivals.moves.get_mut(&id) {
                arrival.away_since = None;
                arrival.again = self.now + arrival.pause;
            }
            self.say_arrival(id, false);
        }
    }
}
