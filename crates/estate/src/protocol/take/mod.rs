//! Moves of items between members, exactly once. [`table`] says what may happen and who owns what
//! when; `source` and `destination` carry it out.

mod destination;
mod loading;
mod patience;
mod source;
pub mod table;
mod unloading;

pub(super) use destination::Arrival;
pub(super) use source::Departure;

use std::collections::{BTreeMap, VecDeque};

/// How many ended moves are remembered, to answer whoever repeats himself.
const REMEMBERED: usize = 4096;

/// Moves by id, of which the ended ones are forgotten in time.
#[derive(Debug)]
pub(super) struct Journal<T> {
    pub moves: BTreeMap<u64, T>,
    ended: VecDeque<u64>,
}

impl<T> Default for Journal<T> {
    fn default() -> Self {
        Self {
            moves: BTreeMap::new(),
            ended: VecDeque::new(),
        }
    }
}

impl<T> Journal<T> {
    /// The move has ended; `is_over` tells of the oldest whether it still is.
    pub fn ended(&mut self, id: u64, is_over: impl Fn(&T) -> bool) {
        self.ended.push_back(id);
        while self.ended.len() > REMEMBERED {
            let Some(oldest) = self.ended.pop_front() else {
                break;
            };
            if self.moves.get(&oldest).is_some_and(&is_over) {
                self.moves.remove(&oldest);
            }
        }
    }
}
