//! What can go wrong, for every part of the public API: what happened, to what, what to do.

use crate::query::View;
use crate::store::Hold;
use crate::version::Stamp;
use thiserror::Error;

/// The one error of E-State.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum Error {
    /// A key that cannot be one.
    #[error("key {shown:?} {why}; keys are UTF-8 of 1 to 1,024 bytes")]
    Key {
        /// The key, shortened.
        shown: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A value that cannot be kept.
    #[error(
        "value of key {key:?} has {bytes} bytes; the most is {most}: split it over several keys"
    )]
    ValueTooBig {
        /// The key.
        key: String,
        /// Its length.
        bytes: usize,
        /// The most that is allowed.
        most: usize,
    },
    /// An operation on a value of another type.
    #[error("key {key:?} on node {node} holds {found}, not {wanted}: {remedy}")]
    Type {
        /// The key.
        key: String,
        /// The node that holds it.
        node: String,
        /// The type that it has.
        found: &'static str,
        /// The type that the operation needs.
        wanted: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A sum left the range of i64.
    #[error(
        "counter {key:?} on node {node} is {value}, adding {delta} leaves the range of i64: set it anew or use a float"
    )]
    Overflow {
        /// The key.
        key: String,
        /// The node that holds it.
        node: String,
        /// What it holds.
        value: i64,
        /// What was to be added.
        delta: i64,
    },
    /// The memory limit is reached, and nothing may be evicted.
    #[error(
        "no room for key {key:?} on node {node}: {needed} bytes more than the memory limit of {limit} and no item with a time to live is left to evict; raise memory_limit, delete items or give some a ttl"
    )]
    MemoryFull {
        /// The key that was to be written.
        key: String,
        /// The node.
        node: String,
        /// Bytes it needs.
        needed: usize,
        /// The limit, bytes.
        limit: usize,
    },
    /// The item is being moved or written jointly.
    #[error(
        "key {key:?} on node {node} is held by {hold}: it can be read, not written; write it where it is moving to, or again when that is done"
    )]
    Frozen {
        /// The key.
        key: String,
        /// The node that refuses.
        node: String,
        /// What holds it.
        hold: Hold,
    },
    /// A pattern that cannot be compiled.
    #[error("{kind} {shown:?} is no pattern: {why}")]
    Pattern {
        /// `glob` or `regex`.
        kind: &'static str,
        /// The pattern, shortened.
        shown: String,
        /// What is wrong with it.
        why: String,
    },
    /// A scan was stopped by its deadline.
    #[error(
        "the scan for {pattern:?} on node {node} was stopped by its deadline after {seen} items: allow it more time or narrow the pattern"
    )]
    ScanStopped {
        /// The pattern.
        pattern: String,
        /// The node.
        node: String,
        /// Items looked at so far.
        seen: usize,
    },
    /// A cut that cannot be opened any more.
    #[error(
        "node {node} has already written at {clock}, after the instant {at} of the cut: ask for a later one"
    )]
    CutPassed {
        /// The node.
        node: String,
        /// The instant that was asked for.
        at: Stamp,
        /// Where the node's clock stands.
        clock: Stamp,
    },
    /// A reducer that does not exist.
    #[error(
        "there is no reducer {name:?}: use latest, sum, avg, min, max, count, any, all, union, concat, causal, or a function"
    )]
    Reducer {
        /// What was asked for, shortened.
        name: String,
    },
    /// Items that a reducer cannot put together.
    #[error("{reducer}: key {key:?} on node {node} {why}")]
    Reduce {
        /// The reducer.
        reducer: &'static str,
        /// One key that is concerned.
        key: String,
        /// The node that holds it.
        node: String,
        /// What is wrong with it.
        why: String,
    },
    /// Not enough members have answered in time. The view holds what the others say.
    #[error(
        "{} of {} members have not answered in time ({}): the view is incomplete; see that they run, allow more time or require fewer",
        .0.missing.len(),
        .0.missing.len() + .0.answered.len(),
        .0.missing.join(", ")
    )]
    Incomplete(Box<View>),
    /// A member cannot answer.
    #[error("node {node} cannot answer: {why}")]
    Remote {
        /// The member.
        node: String,
        /// What it says.
        why: String,
    },
    /// A request that cannot be carried out as it stands.
    #[error("{what}: {remedy}")]
    Request {
        /// What is wrong with it.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A move that has not taken place: its items are where they were.
    #[error("move {move_id:#x} from {source_node} was aborted, its items stay there: {why}")]
    Aborted {
        /// The move.
        move_id: u64,
        /// Where the items are.
        source_node: String,
        /// Why.
        why: String,
    },
    /// A move that was cut off when its source was to decide it.
    #[error(
        "move {move_id:#x} from {source_node} is not decided, since {source_node} cannot be reached: its \
         items can be written nowhere until it can, or is restarted under its name; repeat the call \
         with the same id to hear; if its host is lost for good, declare it dead"
    )]
    Undecided {
        /// The move.
        move_id: u64,
        /// Who decides.
        source_node: String,
    },
    /// A joint write that has not taken place, at no member.
    #[error("joint write {joint_id:#x} was not made at any member: {why}")]
    NotJoined {
        /// The joint write.
        joint_id: u64,
        /// Why.
        why: String,
    },
    /// An option that will not do.
    #[error("{what} {given:?} will not do: {why}")]
    Options {
        /// The option.
        what: &'static str,
        /// What was given, shortened.
        given: String,
        /// What is wrong with it.
        why: String,
    },
    /// The cluster cannot be joined.
    #[error(transparent)]
    Fabric(#[from] crate::fabric::FabricError),
    /// The estate was closed.
    #[error("the estate is closed: open it again")]
    Closed,
    /// The estate was opened by a parent of this process.
    #[error("the estate was opened before this process was forked: open one in the child")]
    Forked,
    /// Another live member has this name.
    #[error(
        "another live member of cluster {cluster:?} is called {node:?}: names have to be unique, choose another"
    )]
    NameTaken {
        /// The name.
        node: String,
        /// The cluster.
        cluster: String,
    },
    /// There is no such member.
    #[error("no member is called {node:?}; there are: {members}")]
    NoMember {
        /// The name.
        node: String,
        /// Those that there are.
        members: String,
    },
    /// There is no such member that has gone.
    #[error("no member that has gone is called {node:?}; those that have: {absent}")]
    NoAbsentee {
        /// The name.
        node: String,
        /// Those that have gone and not come back.
        absent: String,
    },
    /// A server did not do what it was asked.
    #[error("{url}: {what}; {remedy}")]
    Backend {
        /// The server.
        url: String,
        /// What happened.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A backend cannot do this.
    #[error("{what} is not possible with {backend}: {instead}")]
    Unsupported {
        /// The backend.
        backend: String,
        /// What was wanted.
        what: &'static str,
        /// Why, and what to do instead.
        instead: &'static str,
    },
    /// A cut that is not open.
    #[error("cut {id} is not open on node {node}: it was ended or never begun; begin it again")]
    NoCut {
        /// The node.
        node: String,
        /// The cut.
        id: u64,
    },
}

/// `text`, short enough for one line of a message.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
