//! The steps of one part of a handover at one agent, as one table.
//!
//! A source goes `Preparing … Prepared`, `Draining … Exported` once it is frozen, `Committed` when
//! its state may go, and `Closing` while its strays end. A destination goes `Arming`, `Armed`,
//! `Importing`, `Imported`, and lets go: `Releasing`, `Released`. When a handover is called off
//! after the turn, the source takes the flows back (`Regaining`, `Resuming`, then as a destination
//! at its end) and the destination gives them back (`Returning`, then as a source at its end).
//! `Withdrawing` is a destination that lets go because nothing had turned. `Discarding` is whoever was
//! taken for dead, while the flows went on at the other end. `Over`: nothing is held, and what still
//! comes is answered as before.
//!
//! docs/hsl.md shows the table; failpoints are named by its rows.

use crate::table::{self, row};

/// Where a part of a handover is at this agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Source: connects and looks which flows match.
    Preparing,
    /// Source: has answered with its flows; nothing has changed for any packet.
    Prepared,
    /// Source: what still arrives is strays; the function works off what it has got.
    Draining,
    /// Source: the function gives its state away.
    Exporting,
    /// Source: the state is out and kept here until the import is journalled.
    Exported,
    /// Source: the state is the destination's.
    Committed,
    /// Whoever sent strays: the hold ends.
    Closing,
    /// Source, called off: keeps what arrives until the destination has agreed.
    Regaining,
    /// Source, called off: the state is its own again; flows go as they are fenced.
    Resuming,
    /// Destination: is armed, and connects.
    Arming,
    /// Destination: keeps the packets of flows that come.
    Armed,
    /// Destination: the state is out at the source, the function takes it in.
    Importing,
    /// Destination: the state is in; flows go as they are fenced.
    Imported,
    /// Destination, called off: sends what it has back.
    Returning,
    /// Destination, called off before the turn: lets go.
    Withdrawing,
    /// Its flows went where they are without this agent: what it kept is thrown away and counted, and
    /// so is what still comes.
    Discarding,
    /// All is fenced and the state is in: the hold ends.
    Releasing,
    /// Says so until the controller has heard it.
    Released,
    /// The part is history.
    Over,
}

impl Phase {
    /// Every one.
    pub const ALL: [Phase; 19] = [
        Preparing,
        Prepared,
        Draining,
        Exporting,
        Phase::Exported,
        Committed,
        Closing,
        Regaining,
        Resuming,
        Arming,
        Armed,
        Importing,
        Imported,
        Returning,
        Withdrawing,
        Discarding,
        Releasing,
        Released,
        Over,
    ];

    /// As it stands in a `step` of a status.
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// What arrives is sent after its flow, and markers are answered.
    pub fn gives(self) -> bool {
        matches!(
            self,
            Draining | Exporting | Phase::Exported | Committed | Returning
        )
    }

    /// What arrives is kept, and goes flow by flow as it is fenced.
    pub fn takes(self) -> bool {
        matches!(
            self,
            Arming | Armed | Importing | Imported | Regaining | Resuming
        )
    }

    /// The state is where the flows go: what is fenced may be let go.
    pub fn has_state(self) -> bool {
        matches!(self, Imported | Resuming)
    }
}

/// What happens to a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// The streams are made and the flows are known.
    Ready,
    /// It cannot be prepared.
    Fail,
    /// The controller, a marker or the destination says that flows have begun to turn.
    Freeze,
    /// What had passed before is through the function.
    Drained,
    /// The state is out.
    Exported,
    /// The import is journalled.
    Commit,
    /// The source's function has given its state away.
    StateEnd,
    /// The function has taken the state in, or it is given up.
    StateIn,
    /// No packet can come by the old path any more, on any side.
    Fenced,
    /// The hold has ended.
    Ended,
    /// The controller has heard of the release, or wants the strays to end.
    Release,
    /// Called off before the turn.
    Abort,
    /// Called off after the turn.
    Handback,
    /// The destination has agreed to give back.
    Returned,
    /// It is over for the controller, and the flows are at the other end.
    Discard,
    /// All that was held has been thrown away (a new epoch).
    Lost,
}

/// What is done on a transition, besides changing the phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Duty {
    /// Nothing.
    None,
    /// Answer the request that began this.
    Answer,
    /// Hold as strays, and have the function drained.
    Stray,
    /// Have the function give its state away.
    Export,
    /// Say on the stream that the state is out.
    EndState,
    /// Tell the function that its frozen state may go.
    Forget,
    /// Hold what arrives, to keep it.
    Capture,
    /// Tell the function that the state is its own again.
    Thaw,
    /// Have the function take the state in.
    Import,
    /// Report the import until it is journalled, and let go what is fenced.
    ReportState,
    /// Say so on the stream, and send what is kept back.
    GiveBack,
    /// Throw away what is kept, and what still comes.
    Discard,
    /// End the hold, in order.
    LetGo,
    /// Report the release until it is heard.
    Report,
}

/// One row.
pub type Transition = table::Transition<Phase, Event, Duty>;

use Duty::*;
use Event::*;
use Phase::*;

/// Everything that may happen. What is not here is refused and changes nothing.
pub const TRANSITIONS: &[Transition] = &[
    row(Preparing, Ready, Prepared, Answer),
    row(Preparing, Fail, Over, Answer),
    row(Preparing, Abort, Over, Answer),
    row(Prepared, Abort, Over, Answer),
    row(Prepared, Freeze, Draining, Stray),
    // The switches had turned and turn back before anything froze here.
    row(Prepared, Handback, Regaining, Capture),
    row(Draining, Freeze, Draining, Duty::None),
    row(Draining, Drained, Exporting, Export),
    row(Draining, Handback, Regaining, Capture),
    row(Draining, Release, Closing, LetGo),
    row(Draining, Ended, Over, Duty::None),
    row(Exporting, Freeze, Exporting, Duty::None),
    row(Exporting, Event::Exported, Phase::Exported, EndState),
    row(Exporting, Handback, Regaining, Capture),
    row(Exporting, Release, Closing, LetGo),
    row(Exporting, Ended, Over, Duty::None),
    row(Phase::Exported, Freeze, Phase::Exported, Duty::None),
    row(Phase::Exported, Commit, Committed, Forget),
    row(Phase::Exported, Handback, Regaining, Capture),
    row(Phase::Exported, Release, Closing, LetGo),
    row(Phase::Exported, Ended, Over, Duty::None),
    row(Committed, Commit, Committed, Duty::None),
    row(Committed, Release, Closing, LetGo),
    row(Committed, Ended, Over, Duty::None),
    row(Closing, Release, Closing, Duty::None),
    row(Closing, Ended, Over, Answer),
    row(Regaining, Handback, Regaining, Duty::None),
    row(Regaining, Returned, Resuming, Thaw),
    row(Regaining, Event::Discard, Discarding, Duty::Discard),
    row(Regaining, Ended, Released, Report),
    row(Resuming, Handback, Resuming, Duty::None),
    row(Resuming, Returned, Resuming, Duty::None),
    row(Resuming, Fenced, Releasing, LetGo),
    row(Resuming, Event::Discard, Discarding, Duty::Discard),
    row(Resuming, Ended, Released, Report),
    row(Arming, Ready, Armed, Answer),
    row(Arming, Fail, Withdrawing, LetGo),
    row(Arming, Abort, Withdrawing, LetGo),
    row(Arming, Ended, Over, Answer),
    row(Armed, Abort, Withdrawing, LetGo),
    row(Armed, StateEnd, Importing, Import),
    row(Armed, StateIn, Imported, ReportState),
    row(Armed, Handback, Returning, GiveBack),
    row(Armed, Event::Discard, Discarding, Duty::Discard),
    row(Armed, Ended, Released, Report),
    row(Importing, StateIn, Imported, ReportState),
    row(Importing, Handback, Returning, GiveBack),
    row(Importing, Event::Discard, Discarding, Duty::Discard),
    row(Importing, Ended, Released, Report),
    row(Imported, Commit, Imported, Duty::None),
    row(Imported, Fenced, Releasing, LetGo),
    row(Imported, Event::Discard, Discarding, Duty::Discard),
    row(Imported, Ended, Released, Report),
    row(Returning, Handback, Returning, Duty::None),
    row(Returning, Release, Closing, LetGo),
    row(Returning, Ended, Over, Duty::None),
    row(Withdrawing, Abort, Withdrawing, Duty::None),
    row(Withdrawing, Ended, Over, Answer),
    row(Discarding, Event::Discard, Discarding, Duty::None),
    row(Discarding, Release, Releasing, LetGo),
    row(Discarding, Ended, Released, Report),
    row(Releasing, Commit, Releasing, Duty::None),
    row(Releasing, Ended, Released, Report),
    row(Released, Commit, Released, Duty::None),
    row(Released, Release, Over, Answer),
    row(Preparing, Lost, Over, Duty::None),
    row(Prepared, Lost, Over, Duty::None),
    row(Draining, Lost, Over, Duty::None),
    row(Exporting, Lost, Over, Duty::None),
    row(Phase::Exported, Lost, Over, Duty::None),
    row(Committed, Lost, Over, Duty::None),
    row(Closing, Lost, Over, Duty::None),
    row(Regaining, Lost, Over, Duty::None),
    row(Resuming, Lost, Over, Duty::None),
    row(Arming, Lost, Over, Duty::None),
    row(Armed, Lost, Over, Duty::None),
    row(Importing, Lost, Over, Duty::None),
    row(Imported, Lost, Over, Duty::None),
    row(Returning, Lost, Over, Duty::None),
    row(Withdrawing, Lost, Over, Duty::None),
    row(Discarding, Lost, Over, Duty::None),
    row(Releasing, Lost, Over, Duty::None),
    row(Released, Lost, Over, Duty::None),
];

/// The row for `event` in `from`, if that may happen.
pub fn transition(from: Phase, event: Event) -> Option<&'static Transition> {
    table::find(TRANSITIONS, from, event)
}

/// The table as a Graphviz graph, without what a new epoch ends.
pub fn as_dot() -> String {
    table::as_dot(
        "handover",
        TRANSITIONS.iter().filter(|row| row.event != Lost),
    )
}
