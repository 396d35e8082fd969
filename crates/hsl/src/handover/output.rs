//! What goes into the handovers of an agent, and what comes out.

use std::net::SocketAddr;

use flowferry_wire::Message;

use super::function::{Answer, Tell};
use super::record::Record;
use crate::endpoint::HoldId;
use crate::key::{Key, Parsed, Side};
use crate::matching::Match;

/// What a flush is for; the shell gives it back when the flush is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A marker.
    Marker {
        /// The handover it names, known here or not.
        handover: HoldId,
        /// Its round.
        round: u32,
        /// Its number among its sender's frames.
        sequence: u64,
        /// Who sent it: the controller, or the instance that takes the flows.
        by: u32,
    },
    /// All that had passed before the freeze is through the function.
    Drain {
        /// The part.
        handover: HoldId,
    },
    /// The settling time has ended the fence.
    Finish {
        /// The part.
        handover: HoldId,
    },
}

/// What has happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// A control frame that was let in (see `flowferry_wire::Opener`).
    Control {
        /// Where it came in.
        side: Side,
        /// What it says.
        message: Message,
    },
    /// A record of another agent's, behind all packets that it sent before.
    Record {
        /// The instance that has proven itself on the stream.
        from: u32,
        /// What it says.
        record: Record,
    },
    /// The answer to [`Action::Survey`]: all flow sides that have gone on to the function, each as its
    /// last packet came.
    Surveyed {
        /// As in the question.
        ticket: u64,
        /// Each on its side.
        served: Vec<Parsed>,
    },
    /// The answer to [`Action::Connect`].
    Connected(SocketAddr),
    /// A stream to another agent cannot be made, or has broken; what was under way is lost.
    Unreachable {
        /// The agent.
        peer: SocketAddr,
        /// Why.
        why: String,
    },
    /// A stream from another agent has ended.
    Gone {
        /// The instance at its other end.
        from: u32,
    },
    /// A flush is over: what was queued before it began has been read, or has passed.
    Flushed {
        /// Where.
        side: Side,
        /// As in [`Action::Flush`].
        purpose: Purpose,
    },
    /// A flush frame did not come back from every CPU's queue.
    FlushFailed {
        /// Where.
        side: Side,
        /// As in [`Action::Flush`].
        purpose: Purpose,
    },
    /// The endpoint's [`crate::endpoint::Action::Seen`].
    Seen(HoldId, Key),
    /// A hold has ended; with an error it was aborted.
    Ended(HoldId, Option<String>),
    /// A hold fills half the buffer.
    HalfFull(HoldId),
    /// A line of the function's.
    Function(Answer),
    /// The function has closed the control channel.
    FunctionGone,
    /// What was held has been thrown away: a new epoch.
    StartedOver {
        /// Its number.
        epoch: u64,
    },
    /// Time has passed; nothing else has happened.
    Tick,
}

/// What the shell has to do, in this order, after the endpoint's own actions.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send a control frame to the controller, on `side` or where frames get out; or a marker, to
    /// another instance, on `side` only.
    Send {
        /// The interface to use.
        side: Side,
        /// What it says.
        message: Message,
    },
    /// Put a record on the stream, in its place among the strays.
    Record {
        /// The agent.
        to: SocketAddr,
        /// Of all strays that the endpoint has queued, so many come before it.
        behind: u64,
        /// What it says.
        record: Record,
    },
    /// Make a stream to another agent unless there is one, and say when it is there.
    Connect(SocketAddr),
    /// Strays of this hold go there.
    Strays {
        /// The hold.
        hold: HoldId,
        /// The agent.
        to: SocketAddr,
    },
    /// Strays of this hold go nowhere any more: they are lost, and counted.
    Discard(HoldId),
    /// End the streams of this instance to us, unread: what it has sent is its own to count.
    HangUp(u32),
    /// Put a flush frame into every CPU's queue.
    Flush {
        /// Where.
        side: Side,
        /// To be given back.
        purpose: Purpose,
    },
    /// Say which flow sides have gone on to the function.
    Survey {
        /// To be given back.
        ticket: u64,
        /// Those that match are wanted; more do no harm.
        matching: Match,
    },
    /// These flow sides are served here from now on, whether or not a packet of them comes.
    Own(Vec<Parsed>),
    /// These flow sides are not served here any more.
    Disown(Vec<Key>),
    /// A line for the function.
    Tell(Tell),
    /// A part of a handover has taken a step; for those who listen.
    Step {
        /// The part.
        handover: HoldId,
        /// Where it is now.
        phase: super::Phase,
        /// Why, if something is wrong.
        error: Option<String>,
    },
}
