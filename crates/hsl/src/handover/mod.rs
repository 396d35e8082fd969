//! Handovers as an agent takes part in them (docs/design.md §5, docs/hsl.md *handovers*).
//!
//! # Theory of operation
//!
//! The controller cuts a handover into *parts* with one match, one source and one destination
//! each. A part is a [`Part`] at both agents; its life is the table in [`table`]. The controller
//! speaks by control frames; the two agents speak with each other over their streams, on which
//! records keep their place behind the strays that were sent before them.
//!
//! * **Whoever takes flows** (the destination; the source when it is called off) keeps what comes.
//!   The first packet of a flow on a side proves that this side's switch has turned for the flow:
//!   it sends a marker by *that* switch down the old path, in rounds, one under way a side
//!   ([`rounds`]). One that goes unanswered is the controller's to send, too (SEEN).
//! * **Whoever gives flows** sends what still comes after them as strays. It answers a marker, once
//!   everything before it has been read (a flush through every CPU's queue), behind the last stray:
//!   the `fenced` record. A marker of the controller's implies the freeze; one of the taker's waits for it.
//! * **Release.** A flow goes on a side when its round is fenced and the state is in. The state is in
//!   when the function says so, or at once when the source had no function that gave some. Both sides
//!   being fenced for good (the final round), the hold itself ends.
//! * **A flow on no list** has no state to wait for, and goes as soon as it is fenced, if both functions
//!   can do with that ([`unlisted`]). Called off, its state, too, comes back before its packets do.
//! * **One point of no return.** Until the destination has imported, it can give back; from then
//!   on it refuses to. So a called-off source takes its state again only when the destination's
//!   `return` record has come, never on the controller's word alone.
//! * **Nothing waits for ever.** Reports are repeated with growing pauses until they are heard. After
//!   three settling times without a word of the controller's the agents finish: the destination asks
//!   the source to freeze, to give the state away and to fence by its own flush (`unfenced`), and lets
//!   go; after as long again it lets go without (`state_lost`).
//!
//! Every command may come twice, late or not at all: the same command gives the same answer, one
//! that is older than the last of its part is dropped. A part that is over leaves its number
//! behind, so that a late PREPARE begins nothing.
//!
//! Pure: what happens goes in as an [`Input`] with the time, what is to be done comes out as
//! [`Action`]s. The endpoint is an argument; its own actions are to be carried out first.

mod answer;
mod channel;
mod clock;
mod control;
mod core;
mod fence;
mod figures;
pub mod function;
mod output;
mod part;
pub mod record;
mod repeat;
mod report;
mod rounds;
mod steps;
mod stream;
mod survey;
pub mod table;
pub mod translate;
mod unlisted;

use std::collections::{BTreeMap, VecDeque};

use flowferry_wire::{Assembler, Command, Counts, Flags, Message};
use serde_json::{Value, json};

pub use self::core::{Core, CoreAction, news};
pub use output::{Action, Input, Purpose};
pub use part::Role;
pub use table::{Duty, Event, Phase, Transition};

use crate::endpoint::{Endpoint, HoldId, Spec};
use crate::key::Parsed;
use part::Part;

/// Parts that are over and remembered.
const REMEMBERED: usize = 1_024;

/// Called before each transition takes effect; failpoints hang here.
pub type Hook = Box<dyn FnMut(&Transition) + Send + Sync>;

/// What an agent's handovers are told at the start.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The instance's number.
    pub own: u32,
    /// Its name.
    pub name: String,
    /// The agent's epoch.
    pub epoch: u64,
    /// Nanoseconds after a flush in which a function works off what it has got; `None`: the flush
    /// itself proves that it has, since the kernel forwards.
    pub quiet_ns: Option<u64>,
}

/// The function at the other end of the control channel.
#[derive(Clone, Debug)]
struct Joined {
    name: String,
    lists_flows: bool,
    new_flows: bool,
}

/// A part that is over.
#[derive(Clone, Debug)]
struct Ended {
    id: HoldId,
    heard: (u64, u64),
    called_off: bool,
    /// A new epoch has ended it: what it was doing was not finished.
    lost: bool,
    /// It sent strays at its end: a RELEASE is a request, and not the answer to a report.
    gave: bool,
    flags: Flags,
    counts: Counts,
}

/// Why flow sides are asked for.
#[derive(Clone, Debug)]
enum Survey {
    /// A source prepares.
    Prepare(HoldId),
    /// A source exports.
    Export(HoldId),
    /// A destination gives back what it has served before the state was in.
    Recall(HoldId),
    /// A source is over: what was served here since it was prepared is not any more.
    Disown(Spec),
    /// The controller asks.
    Status {
        answer: Message,
        side: crate::key::Side,
        spec: Spec,
    },
}

/// See the module's head.
pub struct Handovers {
    settings: Settings,
    parts: BTreeMap<HoldId, Part>,
    ended: VecDeque<Ended>,
    function: Option<Joined>,
    surveys: BTreeMap<u64, Survey>,
    /// Questions to the function about its flows: request to part.
    asked_function: BTreeMap<u64, HoldId>,
    next_ticket: u64,
    assembler: Assembler,
    actions: Vec<Action>,
    hook: Option<Hook>,
    tally: BTreeMap<(Phase, Event), u64>,
    /// Commands older than the last one of their part.
    late: u64,
    /// Commands that were refused.
    refused: u64,
    /// Records that fit no part, or came from another instance than the part's.
    unexpected: u64,
}

impl Handovers {
    /// None yet.
    pub fn new(settings: Settings) -> Handovers {
        Handovers {
            settings,
            parts: BTreeMap::new(),
            ended: VecDeque::new(),
            function: None,
            surveys: BTreeMap::new(),
            asked_function: BTreeMap::new(),
            next_ticket: 1,
            assembler: Assembler::new(),
            actions: Vec::new(),
            hook: None,
            tally: BTreeMap::new(),
            late: 0,
            refused: 0,
            unexpected: 0,
        }
    }

    /// Have `hook` called before each transition.
    pub fn set_hook(&mut self, hook: Hook) {
        self.hook = Some(hook);
    }

    /// Something has happened; what is to be done about it, after the endpoint's own actions.
    /// `now`: CLOCK_MONOTONIC in nanoseconds.
    pub fn handle(&mut self, endpoint: &mut Endpoint, input: Input, now: u64) -> Vec<Action> {
        match input {
            Input::Control { side, message } => self.on_control(endpoint, side, message, now),
            Input::Record { from, record } => self.on_record(endpoint, from, record, now),
            Input::Surveyed { ticket, served } => self.on_surveyed(endpoint, ticket, &served, now),
            Input::Connected(peer) => self.on_connected(endpoint, peer, now),
            Input::Unreachable { peer, why } => self.on_unreachable(endpoint, peer, &why, now),
            Input::Gone { from } => self.on_gone(from, now),
            Input::Flushed { side, purpose } => self.on_flushed(endpoint, side, &purpose, now),
            Input::FlushFailed { side, purpose } => {
                self.on_flush_failed(endpoint, side, purpose, now);
            }
            Input::Seen(id, key) => self.on_seen(endpoint, id, key, now),
            Input::Ended(id, error) => self.on_ended(endpoint, id, error, now),
            Input::HalfFull(id) => self.on_half_full(id, now),
            Input::Function(answer) => self.on_answer(endpoint, answer, now),
            Input::FunctionGone => self.on_function_gone(endpoint, now),
            Input::StartedOver { epoch } => self.on_started_over(endpoint, epoch, now),
            Input::Tick => self.on_tick(endpoint, now),
        }
        std::mem::take(&mut self.actions)
    }

    /// When [`Input::Tick`] is due, if nothing else happens before.
    pub fn next_due(&self) -> Option<u64> {
        self.parts.values().filter_map(Part::next_due).min()
    }

    /// No part is under way.
    pub fn is_idle(&self) -> bool {
        self.parts.is_empty()
    }

    /// Where a part is; `None` if it was never heard of.
    pub fn phase(&self, id: HoldId) -> Option<Phase> {
        let over = || self.remembered(id).map(|_| Phase::Over);
        self.parts.get(&id).map(|part| part.phase).or_else(over)
    }

    /// Whether a control frame for this handover would find a part, present or past.
    pub fn knows(&self, id: HoldId) -> bool {
        self.phase(id).is_some()
    }

    /// How often each transition was made.
    pub fn tally(&self) -> impl Iterator<Item = (&'static Transition, u64)> {
        let times = |row: &Transition| self.tally.get(&(row.from, row.event)).copied();
        table::TRANSITIONS
            .iter()
            .map(move |row| (row, times(row).unwrap_or(0)))
    }

    /// Everything at a glance.
    pub fn describe(&self) -> Value {
        let parts: Vec<Value> = self
            .parts
            .values()
            .map(|part| {
                json!({
                    "id": part.id,
                    "role": part.terms.role,
                    "phase": part.phase,
                    "peer": { "instance": part.other().instance, "address": part.other().address },
                    "match": crate::handover::translate::to_match(&part.terms.matching).to_string(),
                    "flows": part.flows.len().max(part.seen.len()),
                    "error": part.error.as_ref().map(|error| &error.text),
                })
            })
            .collect();
        json!({
            "parts": parts,
            "over": self.ended.len(),
            "function": self.function.as_ref().map(|function| &function.name),
            "late": self.late,
            "refused": self.refused,
            "unexpected": self.unexpected,
            "transitions": self
                .tally()
                .filter(|(_, times)| *times > 0)
                .map(|(row, times)| (row.name(), times))
                .collect::<BTreeMap<_, _>>(),
        })
    }

    fn remembered(&self, id: HoldId) -> Option<&Ended> {
        self.ended.iter().rev().find(|ended| ended.id == id)
    }

    fn remember(&mut self, ended: Ended) {
        self.ended.push_back(ended);
        if self.ended.len() > REMEMBERED {
            self.ended.pop_front();
        }
    }

    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket - 1
    }

    fn message(&self, command: Command, handover: HoldId) -> Message {
        let mut message = Message::new(command, handover, flowferry_wire::CONTROLLER);
        message.from = self.settings.own;
        message
    }
}

/// The flow sides of `served` that are for `spec`.
fn covered(endpoint: &Endpoint, spec: &Spec, served: &[Parsed]) -> Vec<Parsed> {
    let covers = |packet: &&Parsed| endpoint.covers(spec, packet);
    served.iter().filter(covers).copied().collect()
}
