//! What members say to each other. Every message is a version byte, a kind byte and its fields,
//! numbers big-endian (docs/estate-protocol.md has them all).
//!
//! A member with another version is not understood: the messages of a cluster change together.

mod draft;
mod emit;
mod fields;
mod parse;

use super::contribution::Contribution;
use super::member::NodeId;
use crate::item::Item;
use crate::pattern::Pattern;
use crate::reduce::Reducer;
use crate::store::Selection;
use crate::version::Stamp;
pub use draft::Draft;
use std::time::Duration;

/// The version of all messages.
pub const VERSION: u8 = 1;
const CARGO: u8 = 10;

/// A move as its destination numbers it: the id is the caller's, and each try after an abort has a
/// number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Move {
    /// The caller's id.
    pub id: u64,
    /// Counts the tries.
    pub attempt: u32,
}

/// A move that items went through, and how long that still matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The move.
    pub move_id: u64,
    /// Where it came from.
    pub source: NodeId,
    /// How long a query may still be under way that saw the items before it.
    pub left: Duration,
}

/// How a read was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The clock has passed the instant of the cut.
    Passed(Stamp),
    /// It cannot be answered.
    Failed(String),
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A global read, now or as of an instant.
    Ask {
        /// The asker's number for it.
        call: u64,
        /// As of when; none: now.
        at: Option<Stamp>,
        /// How long the asker still waits.
        left: Duration,
        /// The reducer.
        reducer: Reducer,
        /// The keys.
        pattern: Pattern,
    },
    /// What the member has.
    Answer {
        /// The asker's number.
        call: u64,
        /// The instant it was asked for.
        at: Option<Stamp>,
        /// The member's part.
        contribution: Box<Contribution>,
    },
    /// It cannot say.
    Refuse {
        /// The asker's number.
        call: u64,
        /// The instant it was asked for.
        at: Option<Stamp>,
        /// Why.
        refusal: Refusal,
    },
    /// Please keep a replica fresh; renewed before `lease` ends.
    Subscribe {
        /// The reader's number for it.
        interest: u64,
        /// The reader's clock, sent back in pushes.
        sent: Duration,
        /// The serial of what it has; 0: nothing.
        have: u64,
        /// How fresh.
        max_age: Duration,
        /// How long this holds.
        lease: Duration,
        /// The reducer.
        reducer: Reducer,
        /// The keys.
        pattern: Pattern,
    },
    /// A replica, or that it has not changed.
    Push {
        /// The reader's number.
        interest: u64,
        /// Grows whenever the replica changes.
        serial: u64,
        /// The reader's clock in the last `Subscribe` that has come.
        echo: Duration,
        /// Time from the receipt of that to the making of this.
        held: Duration,
        /// What there is; none: what the reader has is right.
        contribution: Option<Box<Contribution>>,
    },
    /// Please report changes; renewed before `lease` ends.
    Watch {
        /// The watcher's number for it.
        watch: u64,
        /// The last report that has come, with all before it.
        seen: u64,
        /// How long this holds.
        lease: Duration,
        /// Whether a member that knows of no such watch reports what is there already: the watcher
        /// cannot tell what has changed since it began.
        present: bool,
        /// The keys.
        pattern: Pattern,
    },
    /// Changes are reported from now on.
    Watching {
        /// The watcher's number.
        watch: u64,
    },
    /// Changes, coalesced: the items as they are now.
    Changed {
        /// The watcher's number.
        watch: u64,
        /// Counts the reports from 1.
        serial: u64,
        /// Items that were written.
        items: Vec<Item>,
        /// Keys that have gone.
        gone: Vec<String>,
    },
    /// An interest or a watch has ended.
    Forget {
        /// Its number.
        number: u64,
    },
    /// Begin a move: destination to source.
    Begin {
        /// The move.
        what: Move,
        /// Copy while the items live, freeze for the difference only.
        pre_copy: bool,
        /// The items.
        selection: Selection,
    },
    /// Items of a move: source to destination.
    Cargo {
        /// The move.
        what: Move,
        /// Counts the chunks from 0.
        index: u32,
        /// Items there are in all; only in the last, and then they are frozen.
        last: Option<u64>,
        /// Moves that these items went through lately.
        chain: Vec<Link>,
        /// Keys that have gone since they were sent.
        gone: Vec<String>,
        /// The items as they are now.
        items: Vec<Item>,
    },
    /// All chunks before `next` are here: destination to source.
    Got {
        /// The move.
        what: Move,
        /// The first that is not.
        next: u32,
    },
    /// All is here and in place; from now on only the source decides.
    Ready {
        /// The move.
        what: Move,
        /// The destination's clock.
        clock: Stamp,
    },
    /// The source has given the items up: they are the destination's.
    Commit {
        /// The move.
        what: Move,
        /// The instant.
        at: Stamp,
        /// How long the source refused writes.
        frozen: Duration,
    },
    /// The destination has taken them: the source may forget.
    Owned {
        /// The move.
        what: Move,
    },
    /// The source has forgotten: the destination need not repeat.
    Closed {
        /// The move.
        what: Move,
    },
    /// The move does not take place. Not from a destination that has said `Ready`.
    Abort {
        /// The move.
        what: Move,
        /// Why.
        why: String,
    },
    /// This member's part of a joint write is prepared: to the one that decides.
    Prepared {
        /// The joint write.
        joint: u64,
        /// The member's clock.
        clock: Stamp,
        /// All that take part, in order; the first decides.
        with: Vec<String>,
    },
    /// What was decided: the instant, or that it does not take place.
    Decided {
        /// The joint write.
        joint: u64,
        /// The instant of all parts.
        at: Option<Stamp>,
        /// Why not.
        why: String,
    },
    /// A piece of a message that is too long for one.
    Part {
        /// The sender's number for the message.
        serial: u64,
        /// Which piece.
        index: u32,
        /// Of how many.
        count: u32,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Pieces that are wanted.
    Want {
        /// The sender's number for the message.
        serial: u64,
        /// All before it are here.
        next: u32,
    },
}

impl Message {
    /// The number of the kind, on the wire.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Ask { .. } => 1,
            Self::Answer { .. } => 2,
            Self::Refuse { .. } => 3,
            Self::Subscribe { .. } => 4,
            Self::Push { .. } => 5,
            Self::Watch { .. } => 6,
            Self::Changed { .. } => 7,
            Self::Forget { .. } => 8,
            Self::Begin { .. } => 9,
            Self::Cargo { .. } => CARGO,
            Self::Got { .. } => 11,
            Self::Ready { .. } => 12,
            Self::Commit { .. } => 13,
            Self::Owned { .. } => 14,
            Self::Closed { .. } => 15,
            Self::Abort { .. } => 16,
            Self::Prepared { .. } => 17,
            Self::Decided { .. } => 18,
            Self::Part { .. } => 19,
            Self::Want { .. } => 20,
            Self::Watching { .. } => 21,
        }
    }
}
