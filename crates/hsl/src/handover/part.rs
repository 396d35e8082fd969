//! One part of a handover at one agent: one source, one destination, one match.

use std::collections::HashSet;

use flowferry_wire::{Command, Flags, Report};

use super::function::Other;
use super::repeat::Repeats;
use super::rounds::Rounds;
use super::unlisted::Unlisted;
use super::{Action, Phase, translate};
use crate::endpoint::{HoldId, Role as HoldRole, Spec};
use crate::key::{Key, Parsed, Side};

/// What this agent is in the part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The flows were here.
    Source,
    /// The flows come here.
    Destination,
}

impl Role {
    /// As it stands in lines and statuses.
    pub fn name(self) -> &'static str {
        match self {
            Role::Source => "source",
            Role::Destination => "destination",
        }
    }
}

/// What PREPARE said; the same PREPARE again says the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// What this agent is.
    pub role: Role,
    /// The rule's match.
    pub matching: flowferry_wire::Match,
    /// Higher rules' matches.
    pub except: Vec<flowferry_wire::Match>,
    /// The sides that move.
    pub sides: Vec<Side>,
    /// The other instance.
    pub other: Other,
    /// After three times this silence of the controller agents finish by themselves; nanoseconds.
    pub settling_ns: u64,
    /// In which state and preparation must be done; nanoseconds.
    pub deadline_ns: u64,
}

impl Terms {
    /// What the endpoint is to hold.
    pub fn spec(&self, role: HoldRole) -> Spec {
        Spec {
            role,
            matching: translate::to_match(&self.matching),
            except: self.except.iter().map(translate::to_match).collect(),
            sides: self.sides.clone(),
        }
    }
}

/// A request that is answered when it is done.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// What was asked.
    pub command: Command,
    /// Its number among the controller's frames.
    pub sequence: u64,
    /// Where it came in.
    pub side: Side,
}

/// See the module's head.
#[derive(Debug)]
pub struct Part {
    /// Its number, which is also its hold's.
    pub id: HoldId,
    /// Where it is.
    pub phase: Phase,
    /// What was agreed.
    pub terms: Terms,
    /// Boot and number of the last state command that was carried out; older ones come late.
    pub heard: (u64, u64),
    /// When the controller was last heard of.
    pub last_word_ns: u64,
    /// When the controller last named this part, or was told of it unasked.
    pub named_ns: u64,
    /// How often it was told.
    pub reminders: u32,
    /// The controller was silent for so many times three settling times.
    pub silences: u64,
    /// To be answered.
    pub asked: Option<Asked>,
    /// Destination: it gives back once the source is fenced for good, and imports no more.
    pub promised: bool,
    /// When preparation, or the function's answer, is overdue.
    pub due_ns: Option<u64>,
    /// The stream to the other agent is there.
    pub connected: bool,
    /// The flows are known.
    pub listed: bool,
    /// Flow sides that were served here when it was prepared.
    pub accounted: Vec<Key>,
    /// The flows of the lists, seen from upstream, each once.
    pub flows: Vec<Parsed>,
    /// The list that is being received begins anew.
    pub list_over: bool,
    /// The destination's markers that came before the freeze, by side: flushes to begin with it.
    pub early: [Option<Action>; 2],
    /// Sides whose flush has not ended the drain yet.
    pub draining: Vec<Side>,
    /// The drain ends then.
    pub quiet_until_ns: Option<u64>,
    /// There was a function that gave state, and how much; once the state is out.
    pub state: Option<State>,
    /// Flows that are on no list, and were perhaps let go before the state was in.
    pub unlisted: Unlisted,
    /// The fences of the flows that come, by side.
    pub rounds: [Rounds; 2],
    /// The flows that have come.
    pub seen: HashSet<Key>,
    /// What is repeated until it is heard.
    pub repeats: Repeats,
    /// What colours the reports.
    pub flags: Flags,
    /// What went wrong.
    pub error: Option<Report>,
    /// The switches had turned before it was called off.
    pub called_off: bool,
}

/// State that is out at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// There was a function to give it.
    pub present: bool,
    /// Bytes, by its account.
    pub bytes: u64,
}

impl Part {
    /// As it is when it begins.
    pub fn new(id: HoldId, terms: Terms, heard: (u64, u64), asked: Asked, now: u64) -> Part {
        let phase = match terms.role {
            Role::Source => Phase::Preparing,
            Role::Destination => Phase::Arming,
        };
        Part {
            id,
            phase,
            heard,
            last_word_ns: now,
            named_ns: now,
            reminders: 0,
            silences: 0,
            asked: Some(asked),
            promised: false,
            due_ns: Some(now + terms.deadline_ns),
            connected: false,
            listed: terms.role == Role::Destination,
            accounted: Vec::new(),
            flows: Vec::new(),
            list_over: true,
            early: [None, None],
            draining: Vec::new(),
            quiet_until_ns: None,
            state: None,
            unlisted: Unlisted::default(),
            rounds: Default::default(),
            seen: HashSet::new(),
            repeats: Repeats::default(),
            flags: Flags::NONE,
            error: None,
            called_off: false,
            terms,
        }
    }

    /// The instance that packets come from while this one takes them, and go to while it gives.
    pub fn other(&self) -> Other {
        self.terms.other
    }

    /// These flows are among those that go or come; seen from upstream.
    pub fn list(&mut self, flows: impl IntoIterator<Item = Parsed>) {
        self.flows.extend(flows);
        self.flows.sort();
        self.flows.dedup_by_key(|flow| flow.key);
    }

    /// Nothing old can come on any side.
    pub fn is_fenced(&self) -> bool {
        self.terms
            .sides
            .iter()
            .all(|side| self.rounds[side.index()].is_final())
    }
}
