//! What comes out of an endpoint: things to do, news, packets to send on, refusals.

use serde::Serialize;

use super::{Event, HoldId, HoldState, Part, RULES_PER_SIDE, State};
use crate::key::{Key, Side};
use crate::matching::Match;

/// What the programs do with packets that match, or with one flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Let them on.
    Pass,
    /// Capture them.
    Capture,
    /// Capture them unless the flow is served here already.
    Arm,
}

/// What the shell has to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Put these rules, first match wins, in force on a side.
    Rules(Side, Vec<(Match, Treatment)>),
    /// Treat one flow so whatever the rules say; `None`: leave it to them.
    Flow(Key, Option<Treatment>),
    /// Nothing of the flow is outstanding: its counts may go.
    DropCount(Key),
    /// The first packet of this flow on this side has been captured for an armed hold.
    Seen(HoldId, Key),
    /// Tell whoever listens.
    Notice(Notice),
}

/// News for people and controllers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Notice {
    /// A hold changed its state.
    Hold {
        /// Which one.
        hold: HoldId,
        /// The new state.
        state: HoldState,
        /// Why, if it was aborted.
        error: Option<String>,
    },
    /// The buffer is half full; the hold that fills it most is let go in order.
    HalfFull {
        /// The hold.
        hold: HoldId,
        /// Bytes kept.
        used: usize,
        /// Bytes that may be kept.
        limit: usize,
    },
    /// Packets were lost.
    Lost {
        /// How many.
        packets: u64,
        /// Of which hold; 0: of none.
        hold: HoldId,
        /// By what.
        why: String,
    },
}

/// What became of a packet handed to the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It is kept.
    Kept,
    /// Write it to the function now.
    Write,
    /// It waits in [`Endpoint::next_stray`].
    SendOn,
    /// The buffer is full: it is lost, and counted.
    Lost,
}

/// Why a command was refused; nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The id is taken.
    #[error("hold {0} exists already; choose another id")]
    Taken(HoldId),
    /// There is no such hold.
    #[error("there is no hold {0} that could be released; `flowferry hsl holds` lists them")]
    Unknown(HoldId),
    /// Excepts of two holds are interleaved.
    #[error(
        "{new} and hold {hold} leave out parts of each other; narrow one of the matches so that \
         one of them is above the other"
    )]
    Interleaved {
        /// The match asked for.
        new: String,
        /// The hold in force.
        hold: HoldId,
    },
    /// Two holds would fight for the same flows.
    #[error("{new} overlaps {old} of hold {hold}; release that one first, or narrow the match")]
    Overlap {
        /// The match asked for.
        new: String,
        /// The match in force.
        old: String,
        /// Its hold.
        hold: HoldId,
    },
    /// The programs' table is too small.
    #[error(
        "the holds in force would need {needed} rules, {RULES_PER_SIDE} fit; release some first"
    )]
    TooManyRules {
        /// How many.
        needed: usize,
    },
    /// No side to hold on.
    #[error("a hold needs a side: upstream, downstream or both")]
    NoSide,
    /// Another hold's flow, or nobody's.
    #[error("{flow:?} is not of hold {hold}; name its upstream headers")]
    NotOfHold {
        /// The flow.
        flow: Key,
        /// The hold.
        hold: HoldId,
    },
    /// The table does not allow it.
    #[error("{flow:?} is {state:?}: {event:?} is not possible there")]
    Illegal {
        /// The flow.
        flow: Key,
        /// Its state.
        state: State,
        /// What was asked.
        event: Event,
    },
}

/// A packet to be sent after its flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// Whose it is.
    pub hold: HoldId,
    /// Its flow, on the side it arrived on.
    pub key: Key,
    /// Captured here, or itself followed from elsewhere. Either way the programs count it as
    /// outstanding until it is forgotten.
    pub part: Part,
    /// As it was captured.
    pub frame: Box<[u8]>,
}
