//! The address book: whom to dial, and when next. Pure; the time is an argument.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::FabricError;
use super::frame::PEERS_MAX;

const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MOST: Duration = Duration::from_secs(1);
/// An address that nobody configured and that has not answered for so long is forgotten.
const FORGET: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be dialled at `due`.
    Idle,
    /// Being dialled, or greeted.
    Dialling,
    /// A member is linked that can be dialled there.
    Linked,
    /// This node itself.
    Own,
}

#[derive(Debug)]
struct Entry {
    configured: bool,
    state: State,
    due: Instant,
    backoff: Duration,
    seen: Instant,
    /// The first attempt is over.
    tried: bool,
    refused: Option<FabricError>,
}

/// Addresses of peers.
#[derive(Debug, Default)]
pub struct Book {
    entries: HashMap<SocketAddr, Entry>,
}

impl Book {
    /// There may be a member at `address`.
    pub fn learn(&mut self, address: SocketAddr, configured: bool, now: Instant) {
        if !configured && self.entries.len() >= PEERS_MAX {
            return;
        }
        let entry = self.entries.entry(address).or_insert(Entry {
            configured,
            state: State::Idle,
            due: now,
            backoff: BACKOFF_FIRST,
            seen: now,
            tried: false,
            refused: None,
        });
        entry.configured |= configured;
    }

    /// Addresses to be dialled now; they count as being dialled from here on.
    pub fn due(&mut self, now: Instant) -> Vec<SocketAddr> {
        self.entries.retain(|_, e| {
            e.configured || e.state != State::Idle || now.duration_since(e.seen) < FORGET
        });
        let mut due = Vec::new();
        for (address, entry) in &mut self.entries {
            if entry.state == State::Idle && entry.due <= now {
                entry.state = State::Dialling;
                due.push(*address);
            }
        }
        due
    }

    /// A member that can be dialled at `address` is linked.
    pub fn linked(&mut self, address: SocketAddr, now: Instant) {
        self.learn(address, false, now);
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.state = State::Linked;
            entry.seen = now;
            entry.tried = true;
            entry.refused = None;
            entry.backoff = BACKOFF_FIRST;
        }
    }

    /// This node itself is at `address`.
    pub fn own(&mut self, address: SocketAddr) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.state = State::Own;
            entry.tried = true;
        }
    }

    /// The attempt at `address` failed, or the link there broke: it is dialled again, ever less often.
    pub fn broken(&mut self, address: SocketAddr, refused: Option<FabricError>, now: Instant) {
        let Some(entry) = self.entries.get_mut(&address) else {
            return;
        };
        if entry.state == State::Own {
            return;
        }
        entry.state = State::Idle;
        entry.tried = true;
        entry.refused = refused;
        entry.due = now + entry.backoff;
        entry.backoff = (entry.backoff * 2).min(BACKOFF_MOST);
    }

    /// Whether every address has been tried.
    pub fn all_tried(&self) -> bool {
        self.entries.values().all(|entry| entry.tried)
    }

    /// A refusal that this node should give up for: its name is taken, or a peer that it was told
    /// to join will not have it.
    pub fn fatal(&self) -> Option<FabricError> {
        let refusals = || {
            self.entries
                .values()
                .filter_map(|e| Some((e.configured, e.refused.as_ref()?)))
        };
        let taken = refusals().find(|(_, why)| matches!(why, FabricError::NameTaken { .. }));
        taken
            .or_else(|| refusals().find(|(configured, _)| *configured))
            .map(|(_, why)| why.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn an_address_is_dialled_once_at_a_time_and_ever_less_often() {
        let (mut book, mut now) = (Book::default(), Instant::now());
        book.learn(address(1), true, now);
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert_eq!(book.due(now), [address(1)]);
            assert!(book.due(now + FORGET).is_empty());
            book.broken(address(1), None, now);
            let begin = now;
            while book.entries[&address(1)].due > now {
                now += Duration::from_millis(10);
            }
            waits.push((now - begin).as_millis());
        }
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn learned_addresses_are_forgotten_and_configured_ones_are_not() {
        let (mut book, now) = (Book::default(), Instant::now());
        book.learn(address(1), true, now);
        book.learn(address(2), false, now);
        book.due(now);
        book.broken(address(1), None, now);
        book.broken(address(2), None, now);
        assert_eq!(book.due(now + FORGET), [address(1)]);
    }

    #[test]
    fn a_taken_name_weighs_more_than_any_other_refusal() {
        let (mut book, now) = (Book::default(), Instant::now());
        let taken = FabricError::NameTaken {
            node: "a".into(),
            cluster: "c".into(),
            by: "b".into(),
        };
        let other = FabricError::Refused {
            address: "x".into(),
            node: "a".into(),
            why: "another cluster".into(),
        };
        book.learn(address(1), true, now);
        book.learn(address(2), false, now);
        assert!(!book.all_tried());
        book.broken(address(1), Some(other.clone()), now);
        assert_eq!(book.fatal(), Some(other));
        book.broken(address(2), Some(taken.clone()), now);
        assert_eq!(book.fatal(), Some(taken));
        assert!(book.all_tried());
    }

    #[test]
    fn strangers_cannot_fill_the_book() {
        let (mut book, now) = (Book::default(), Instant::now());
        for port in 0..5000 {
            book.learn(address(port), false, now);
        }
        assert_eq!(book.entries.len(), PEERS_MAX);
    }
}
