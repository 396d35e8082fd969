//! A move between two members as one table, for both sides. docs/estate-protocol.md draws it from
//! here and says what it guarantees.
//!
//! **Who owns what when.** The source owns the items until it gives them up, which it does on its
//! own and at one moment: `Frozen + Ready -> Given`. That is the commit point. Before it the source
//! may abort whenever it likes; after it, never. The destination is in `Doubt` between saying
//! `Ready` and hearing the source's decision; it asks until it hears, and meanwhile its copies are
//! frozen, read by nobody else and counted by nobody.
//!
//! **Who is dead.** A greater incarnation of the name proves that a member's memory is lost, and so
//! does a goodbye, or an address where nobody listens any more. Whoever then has the only copy left
//! keeps it (`Adopt`, `Restore`). Silence proves nothing: a move that a cut has caught in doubt waits
//! until it heals, its items owned by nobody, rather than be decided differently on both sides. If
//! the dead turn out to live nevertheless, the source's decision stands.

/// Where a move is, on one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Source: items are copied while they are written.
    Copying,
    /// Source: no more writes; what changed since is sent.
    Frozen,
    /// Source: given up; remembered until the destination has taken them.
    Given,
    /// Source: taken by the destination, forgotten here.
    Gone,
    /// Source: the move was aborted, the items have stayed.
    Kept,
    /// Source: the destination died before it said that it has them; they are here again.
    Restored,
    /// Destination: items are arriving.
    Fetching,
    /// Destination: all are here; the source decides.
    Doubt,
    /// Destination: they are ours; the source does not know that we know yet.
    Owned,
    /// Destination: they are ours, and all is settled.
    Settled,
    /// Destination: the source died before we heard its decision; they are ours.
    Adopted,
    /// Destination: the move was aborted, nothing is here.
    Dropped,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    /// Source: what was to be pre-copied has arrived.
    Copied,
    /// Source: the destination has everything.
    Ready,
    /// Source: the destination has heard of the commit.
    Owned,
    /// Destination: the last chunk is in place.
    Complete,
    /// Destination: the source has given the items up.
    Commit,
    /// Destination: the source has forgotten.
    Closed,
    /// The other side has aborted.
    Abort,
    /// Nothing was heard for too long, or something is in the way on this side.
    Trouble,
    /// The other side is gone, for now.
    Away,
    /// The other side is dead.
    Dead,
}

/// What is done, besides changing the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Duty {
    /// Nothing.
    None,
    /// Freeze the items and send what has changed.
    Freeze,
    /// Let them be written again; tell the other side.
    Thaw,
    /// Remove the items, keep the tombstone, send `Commit`.
    GiveUp,
    /// Send `Commit` again.
    SayCommit,
    /// Begin to forget, send `Closed`.
    Forget,
    /// Send `Abort`: it did not take place.
    SayAbort,
    /// Put the items back from the tombstone.
    Restore,
    /// Remove what was put back or adopted: it is the other's.
    Withdraw,
    /// Send `Ready`.
    SayReady,
    /// Thaw the items: they are ours; send `Owned`.
    Own,
    /// Send `Owned` again.
    SayOwned,
    /// Thaw the items: nobody else has them.
    Adopt,
    /// Remove what has arrived; tell the other side.
    Drop,
}

/// One row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Before.
    pub from: State,
    /// What happens.
    pub event: Event,
    /// After.
    pub to: State,
    /// What is done.
    pub duty: Duty,
}

const fn row(from: State, event: Event, to: State, duty: Duty) -> Transition {
    Transition {
        from,
        event,
        to,
        duty,
    }
}

use State as S;

/// Everything that may happen. What is not here is ignored and changes nothing.
pub const TRANSITIONS: &[Transition] = &[
    row(S::Copying, Event::Copied, S::Frozen, Duty::Freeze),
    row(S::Copying, Event::Abort, S::Kept, Duty::Thaw),
    row(S::Copying, Event::Trouble, S::Kept, Duty::Thaw),
    row(S::Copying, Event::Away, S::Kept, Duty::Thaw),
    row(S::Copying, Event::Dead, S::Kept, Duty::Thaw),
    row(S::Frozen, Event::Ready, S::Given, Duty::GiveUp),
    row(S::Frozen, Event::Abort, S::Kept, Duty::Thaw),
    row(S::Frozen, Event::Trouble, S::Kept, Duty::Thaw),
    row(S::Frozen, Event::Away, S::Kept, Duty::Thaw),
    row(S::Frozen, Event::Dead, S::Kept, Duty::Thaw),
    row(S::Given, Event::Ready, S::Given, Duty::SayCommit),
    row(S::Given, Event::Owned, S::Gone, Duty::Forget),
    row(S::Given, Event::Dead, S::Restored, Duty::Restore),
    row(S::Gone, Event::Owned, S::Gone, Duty::Forget),
    // The destination had aborted, or it was in doubt while we took it for dead.
    row(S::Kept, Event::Ready, S::Kept, Duty::SayAbort),
    row(S::Kept, Event::Owned, S::Kept, Duty::SayAbort),
    row(S::Restored, Event::Ready, S::Restored, Duty::SayAbort),
    // It lives after all, and had taken them: our word stands.
    row(S::Restored, Event::Owned, S::Gone, Duty::Withdraw),
    row(S::Fetching, Event::Complete, S::Doubt, Duty::SayReady),
    row(S::Fetching, Event::Abort, S::Dropped, Duty::Drop),
    row(S::Fetching, Event::Trouble, S::Dropped, Duty::Drop),
    row(S::Fetching, Event::Away, S::Dropped, Duty::Drop),
    row(S::Fetching, Event::Dead, S::Dropped, Duty::Drop),
    row(S::Doubt, Event::Commit, S::Owned, Duty::Own),
    row(S::Doubt, Event::Abort, S::Dropped, Duty::Drop),
    row(S::Doubt, Event::Dead, S::Adopted, Duty::Adopt),
    row(S::Owned, Event::Commit, S::Owned, Duty::SayOwned),
    row(S::Owned, Event::Closed, S::Settled, Duty::None),
    row(S::Owned, Event::Dead, S::Settled, Duty::None),
    row(S::Settled, Event::Commit, S::Settled, Duty::SayOwned),
    row(S::Adopted, Event::Commit, S::Owned, Duty::SayOwned),
    // It lives after all, and had not given them up: its word stands.
    row(S::Adopted, Event::Abort, S::Dropped, Duty::Withdraw),
];

/// The row for `event` in `from`, if that may happen.
pub fn transition(from: State, event: Event) -> Option<&'static Transition> {
    TRANSITIONS
        .iter()
        .find(|row| row.from == from && row.event == event)
}

/// The table as docs/estate-protocol.md shows it: a picture for each side, then the rows.
pub fn as_markdown() -> String {
    let is_source = |state: State| state < State::Fetching;
    let mut text = String::new();
    for (side, source) in [("source", true), ("destination", false)] {
        text += &format!("The {side}:\n\n```mermaid\nstateDiagram-v2\n");
        let rows = TRANSITIONS.iter();
        for row in rows.filter(|row| is_source(row.from) == source && row.from != row.to) {
            text += &format!("    {:?} --> {:?}: {:?}\n", row.from, row.to, row.event);
        }
        text += "```\n\n";
    }
    text += "| state | event | duty | next state |\n|---|---|---|---|\n";
    for row in TRANSITIONS {
        let duty = match row.duty {
            Duty::None => String::new(),
            duty => format!("{duty:?}"),
        };
        text += &format!(
            "| {:?} | {:?} | {duty} | {:?} |\n",
            row.from, row.event, row.to
        );
    }
    text
}
