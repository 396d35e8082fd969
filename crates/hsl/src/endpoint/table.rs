//! What can happen to one flow on one side, as one table.
//!
//! A flow that nobody holds is `Passing` and has no entry anywhere. `Held`: what arrives is kept.
//! `Straying`: what arrives came by the old path and is sent after the flow to where it has gone.
//! `Releasing`: what was kept is written out in order, and what still arrives is written behind
//! it, until nothing is outstanding in the kernel; then the flow is `Passing` again.
//!
//! docs/hsl.md shows the table as a picture drawn from here (`flowferry hsl table`).

use crate::table::{self, row};

/// Where a flow is on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// On the fast path.
    Passing,
    /// Captured packets are kept.
    Held,
    /// Captured packets are sent to the flow's new instance.
    Straying,
    /// Kept packets are being written out.
    Releasing,
}

impl State {
    /// How many there are.
    pub const COUNT: usize = State::Releasing as usize + 1;
}

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// A hold takes the flow to keep its packets.
    Capture,
    /// A hold takes the flow to send its packets on.
    Stray,
    /// The hold lets the flow go.
    Release,
    /// A captured packet arrived.
    Frame,
    /// A packet that strayed at another instance arrived here.
    Follow,
    /// The kernel has let everything through and the flow may go the fast path.
    Settled,
    /// Packets have overtaken what is kept: it must not be released any more.
    Discard,
}

impl Event {
    /// How many there are.
    pub const COUNT: usize = Event::Discard as usize + 1;
}

/// What the endpoint does on a transition, besides changing the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Duty {
    /// Nothing.
    None,
    /// Keep the packet behind those kept before.
    Keep,
    /// Keep the packet with the strays, in front of all that was captured here.
    KeepStray,
    /// Send what is kept, or the packet, to the new instance.
    SendOn,
    /// Write what is kept, or the packet, to the function.
    WriteOut,
    /// Take the flow out of the tables: it is on the fast path.
    Forget,
    /// Count what is kept as lost and take the flow out of the tables.
    Lose,
}

/// One row.
pub type Transition = table::Transition<State, Event, Duty>;

use Duty::*;
use Event::*;
use State::*;

/// Everything that may happen. What is not here is refused and changes nothing.
pub const TRANSITIONS: &[Transition] = &[
    row(Passing, Capture, Held, Duty::None),
    row(Passing, Stray, Straying, Duty::None),
    // Captured just before its rule went.
    row(Passing, Frame, Releasing, WriteOut),
    // Nobody waits for it any more, late is better than lost.
    row(Passing, Follow, Releasing, WriteOut),
    row(Held, Capture, Held, Duty::None),
    row(Held, Frame, Held, Keep),
    row(Held, Follow, Held, KeepStray),
    // Back to where it came from: what was kept travels first.
    row(Held, Stray, Straying, SendOn),
    row(Held, Release, Releasing, WriteOut),
    row(Held, Discard, Passing, Lose),
    row(Straying, Stray, Straying, Duty::None),
    row(Straying, Frame, Straying, SendOn),
    row(Straying, Follow, Straying, SendOn),
    row(Straying, Capture, Held, Duty::None),
    row(Straying, Release, Releasing, WriteOut),
    row(Straying, Discard, Passing, Lose),
    row(Releasing, Release, Releasing, Duty::None),
    row(Releasing, Frame, Releasing, WriteOut),
    row(Releasing, Follow, Releasing, WriteOut),
    row(Releasing, Capture, Held, Duty::None),
    row(Releasing, Stray, Straying, SendOn),
    row(Releasing, Settled, Passing, Forget),
    row(Releasing, Discard, Passing, Lose),
];

/// The row for `event` in `from`, if that may happen.
pub fn transition(from: State, event: Event) -> Option<&'static Transition> {
    table::find(TRANSITIONS, from, event)
}

/// The table as a Graphviz graph, for the documentation.
pub fn as_dot() -> String {
    table::as_dot("endpoint", TRANSITIONS.iter())
}
