//! What one member says in answer to a global read, and how the answers become one.
//!
//! **Each item counts once, also while it moves.** Members answer at different moments, so the
//! source of a move may answer before it and the destination after it, or the other way round.
//! Therefore items that have moved lately (within the longest query) are kept apart, as a partial
//! for each *chain* of moves they have gone through:
//!
//! - A source that has frozen a move's items says so (a [`Note`]) and reports them under the move,
//!   from its tombstone once they are gone.
//! - A destination reports what it has got under the same move, and says that it owns it.
//! - The reader drops the source's report of a move whose destination says it owns it; and it drops
//!   whatever has come through a move whose source answered without a word of it, because that
//!   source then counted the items as its own.
//!
//! What is left is exactly one report of each item, whoever answered first.

use super::member::NodeId;
use crate::codec::{Malformed, Reader};
use crate::error::Error;
use crate::reduce::{Partial, Reduced, Reducer};
use crate::version::Stamp;
use std::collections::{BTreeMap, BTreeSet};

/// What the member has to do with a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Role {
    /// Its items came from here: they are frozen here, or gone.
    Source = 0,
    /// They arrived here and are owned here.
    Destination = 1,
    /// Items reported here went through it before.
    Passed = 2,
}

/// A move that matters for an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// The move.
    pub move_id: u64,
    /// Where it came from.
    pub source: NodeId,
    /// What the member that says so has to do with it.
    pub role: Role,
}

/// Items that moved lately.
#[derive(Clone, Debug, PartialEq)]
pub struct Moving {
    /// The moves that they went through, in order; at least one.
    pub chain: Vec<u64>,
    /// Reported by the source of the last of them, not by its destination.
    pub leaving: bool,
    /// The items.
    pub partial: Partial,
}

/// One member's part of a global read.
#[derive(Clone, Debug, PartialEq)]
pub struct Contribution {
    /// The member's clock when it answered.
    pub clock: Stamp,
    /// All items that have not moved lately.
    pub settled: Partial,
    /// The moves that matter, in order.
    pub notes: Vec<Note>,
    /// Those that have.
    pub moving: Vec<Moving>,
}

impl Contribution {
    /// Of no items.
    pub fn new(reducer: Reducer) -> Self {
        Self {
            clock: Stamp::ZERO,
            settled: Partial::new(reducer),
            notes: Vec::new(),
            moving: Vec::new(),
        }
    }

    /// The same items, at whatever clock.
    pub fn says_the_same(&self, other: &Self) -> bool {
        self.settled == other.settled && self.notes == other.notes && self.moving == other.moving
    }

    /// Appends it as it travels.
    ///
    /// # Panics
    /// If there are 65,536 moves or more.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let count = |out: &mut Vec<u8>, n: usize| {
            let n = u16::try_from(n).expect("fewer than 65,536 moves within a query");
            out.extend_from_slice(&n.to_be_bytes());
        };
        out.extend_from_slice(&self.clock.to_bits().to_be_bytes());
        self.settled.emit(out);
        count(out, self.notes.len());
        for note in &self.notes {
            out.extend_from_slice(&note.move_id.to_be_bytes());
            note.source.emit(out);
            out.push(note.role as u8);
        }
        count(out, self.moving.len());
        for moving in &self.moving {
            count(out, moving.chain.len());
            for id in &moving.chain {
                out.extend_from_slice(&id.to_be_bytes());
            }
            out.push(u8::from(moving.leaving));
            moving.partial.emit(out);
        }
    }

    /// Reads what [`Contribution::emit`] wrote.
    ///
    /// # Errors
    /// [`Malformed`] if it is cut short, or its partials are of several reducers.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let clock = Stamp::from_bits(reader.u64("a clock")?);
        let settled = Partial::parse(reader)?;
        let mut notes = Vec::new();
        for _ in 0..reader.u16("a number of notes")? {
            let move_id = reader.u64("a move")?;
            let source = NodeId::parse(reader)?;
            let start = reader.offset();
            let role = match reader.u8("a role")? {
                0 => Role::Source,
                1 => Role::Destination,
                2 => Role::Passed,
                _ => return Err(reader.fault(start, "a role", "it is none of 0 to 2")),
            };
            notes.push(Note {
                move_id,
                source,
                role,
            });
        }
        let mut moving = Vec::new();
        for _ in 0..reader.u16("a number of chains")? {
            let start = reader.offset();
            let mut chain = Vec::new();
            for _ in 0..reader.u16("a chain's length")? {
                chain.push(reader.u64("a move")?);
            }
            if chain.is_empty() {
                return Err(reader.fault(start, "a chain", "it is empty"));
            }
            let leaving = reader.u8("a side")? != 0;
            let start = reader.offset();
            let partial = Partial::parse(reader)?;
            if partial.reducer() != settled.reducer() {
                return Err(reader.fault(start, "a partial", "it is of another reducer"));
            }
            moving.push(Moving {
                chain,
                leaving,
                partial,
            });
        }
        Ok(Self {
            clock,
            settled,
            notes,
            moving,
        })
    }
}

/// The answers as one, each item once.
///
/// # Errors
/// [`Error::Reduce`] if the items do not go together.
pub fn combine(
    reducer: Reducer,
    answers: &BTreeMap<NodeId, Contribution>,
) -> Result<Reduced, Error> {
    let mut total = Partial::new(reducer);
    let notes = || {
        answers
            .iter()
            .flat_map(|(node, answer)| answer.notes.iter().map(move |note| (node, note)))
    };
    let owned: BTreeSet<u64> = notes()
        .filter(|(_, note)| note.role == Role::Destination)
        .map(|(_, note)| note.move_id)
        .collect();
    let left: BTreeSet<(u64, &NodeId)> = notes()
        .filter(|(_, note)| note.role == Role::Source)
        .map(|(node, note)| (note.move_id, node))
        .collect();
    let sources: BTreeMap<u64, &NodeId> = notes()
        .map(|(_, note)| (note.move_id, &note.source))
        .collect();
    // Its source answered before the move: it counted the items as its own.
    let counted_before = |id: &u64| {
        sources
            .get(id)
            .is_some_and(|&source| answers.contains_key(source) && !left.contains(&(*id, source)))
    };
    for answer in answers.values() {
        total.merge(answer.settled.clone());
        for moving in &answer.moving {
            let superseded =
                moving.leaving && moving.chain.last().is_some_and(|id| owned.contains(id));
            if !superseded && !moving.chain.iter().any(counted_before) {
                total.merge(moving.partial.clone());
            }
        }
    }
    total.finish()
}
