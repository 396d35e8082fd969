//! Flows that are on no list of the source's: they began behind its freeze, and have no state there.
//!
//! * **Forward.** When the source's last list is whole, such a flow goes at the destination as soon as
//!   it is fenced on a side, and its strays go at once: its packets can have changed no state at
//!   the source, and never will, since there they are strays from the freeze on. Both functions must have
//!   said `new_flows`: that such a flow needs nothing of the others' state, and that its own can be given
//!   and taken in. A source with aliases does not call its list whole: what a flow looks like
//!   downstream may be known to it alone. What has no ports (a fragment, an error message) waits.
//! * **Called off.** From the promise on all wait again. What has been served here is drained, its state
//!   exported to the source, its flows listed and the state announced on the stream, before the
//!   `return`; the source has its function take it in before any flow goes. So a flow that was served
//!   here for a while goes back as any other, behind its state. Where that does not succeed, or not
//!   before the controller's patience ends, it goes back without, and that is said (`state_lost`).
//!
//! Rejected: to let them go and forget their state when it is called off; a connection that began
//! during a move which then failed would be broken, and `aborted` says that nothing has happened.

use std::collections::HashSet;

use flowferry_wire::{Flags, Reason};

use super::function::Tell;
use super::part::Part;
use super::record::Record;
use super::report::report;
use super::{Action, Event, Handovers, Phase, Purpose, covered, translate};
use crate::endpoint::{Endpoint, HoldId, Role as HoldRole};
use crate::key::{Parsed, Side};

/// What becomes of them in a part.
#[derive(Clone, Debug, Default)]
pub struct Unlisted {
    step: Step,
    /// Those whose state goes back, seen from upstream.
    flows: Vec<Parsed>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    /// All flows wait for the state.
    #[default]
    Waiting,
    /// Destination: those on no list do not.
    Free,
    /// Destination, called off: what they sent is worked off.
    Draining,
    /// Destination: the function gives their state back.
    Giving,
    /// Destination: it has, and said so on the stream.
    Gave,
    /// Source: their state has come back.
    Given,
    /// Source: the function takes it in.
    Taking,
    /// Nothing more is to be done about them.
    Over,
}

impl Unlisted {
    /// A drain of theirs is under way.
    pub fn drains(&self) -> bool {
        self.step == Step::Draining
    }

    /// The function is at it.
    pub fn returns(&self) -> bool {
        matches!(self.step, Step::Giving | Step::Taking)
    }

    /// At the destination, and not all of it is out.
    pub fn is_recalled(&self) -> bool {
        matches!(self.step, Step::Draining | Step::Giving)
    }

    /// At the source, and not in.
    pub fn comes_back(&self) -> bool {
        matches!(self.step, Step::Given | Step::Taking)
    }

    /// Some may have gone before the state was in.
    pub fn is_free(&self) -> bool {
        self.step == Step::Free
    }

    /// The destination says whose state comes back.
    pub fn given(&mut self, flows: impl Iterator<Item = Parsed>) {
        self.flows.extend(flows);
    }

    /// It has been sent.
    pub fn come_back(&mut self) {
        self.step = Step::Given;
    }

    /// Whether the other agent may never hear of it, now that the stream has broken.
    pub fn is_cut_short(&self) -> bool {
        self.step == Step::Gave
    }

    /// No more waiting for them.
    pub fn end(&mut self) {
        self.step = Step::Over;
    }
}

impl Part {
    /// Destination, not called off yet for all it knows.
    fn may_import(&self) -> bool {
        matches!(self.phase, Phase::Armed | Phase::Importing)
    }
}

impl Handovers {
    fn serves_new_flows(&self) -> bool {
        self.function.as_ref().is_some_and(|it| it.new_flows)
    }

    /// Source: what is not among these flows has no state here.
    pub(super) fn lists_all(&self, endpoint: &Endpoint, flows: &[Parsed]) -> bool {
        let listed = |flow| translate::to_directed(flow).is_some();
        self.serves_new_flows() && !endpoint.has_aliases() && flows.iter().all(listed)
    }

    /// Destination: the source's last list is here, and whole.
    pub(super) fn await_listed(&mut self, endpoint: &mut Endpoint, id: HoldId) {
        let able = self.serves_new_flows() && !endpoint.has_aliases();
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        if !able || !part.may_import() || part.promised || part.unlisted.step != Step::Waiting {
            return;
        }
        let keys = part.flows.iter().map(|flow| flow.key.on(Side::Upstream));
        let listed: HashSet<_> = keys.collect();
        if endpoint.await_listed(id, listed).is_ok() {
            part.unlisted.step = Step::Free;
            self.let_unlisted_go(endpoint, id);
        }
    }

    /// The state is not in, but they do not wait for it.
    pub(super) fn let_unlisted_go(&mut self, endpoint: &mut Endpoint, id: HoldId) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        if !part.unlisted.is_free() || !part.may_import() {
            return;
        }
        for rounds in &mut part.rounds {
            for key in rounds.take_stateless(|key| endpoint.awaits(id, key)) {
                // Refused where the endpoint has ended the hold meanwhile, and let everything go.
                let _ = endpoint.release_side(id, key);
            }
        }
    }

    /// Called off: hold again what was let go, and get its state for the source.
    pub(super) fn recall(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        let free = |part: &&mut Part| part.unlisted.is_free() && part.may_import();
        let Some(part) = self.parts.get_mut(&id).filter(free) else {
            return;
        };
        part.unlisted.end();
        let recalled = endpoint.recall(id).unwrap_or_default();
        let mut holds = endpoint.holds();
        let strays = holds.any(|hold| hold.id == id && hold.figures.released_packets > 0);
        if recalled.is_empty() && !strays {
            return; // none has been served here
        }
        for key in recalled {
            part.rounds[key.side().index()].hold_again(key);
        }
        part.unlisted.step = Step::Draining;
        part.due_ns = Some(now + part.terms.deadline_ns);
        part.draining = part.terms.sides.clone();
        let sides = part.draining.clone();
        self.tell(Tell::Drain { handover: id });
        for side in sides {
            let purpose = Purpose::Drain { handover: id };
            self.actions.push(Action::Flush { side, purpose });
        }
    }

    pub(super) fn on_surveyed_for_return(
        &mut self,
        endpoint: &mut Endpoint,
        id: HoldId,
        served: &[Parsed],
        now: u64,
    ) {
        let Some(part) = self.parts.get_mut(&id).filter(|it| it.unlisted.drains()) else {
            return;
        };
        let listed = |flow: &Parsed| {
            let found = part.flows.binary_search_by(|it| it.key.cmp(&flow.key));
            found.is_ok()
        };
        let spec = part.terms.spec(HoldRole::Capture);
        let mut keys = Vec::new();
        let mut flows = Vec::new();
        for each in covered(endpoint, &spec, served) {
            let flow = endpoint.from_upstream(&each);
            if !listed(&flow) {
                keys.push(each.key);
                flows.push(flow);
            }
        }
        flows.sort();
        flows.dedup_by_key(|flow| flow.key);
        part.unlisted.flows = flows.clone();
        part.unlisted.step = Step::Giving;
        if flows.is_empty() {
            part.unlisted.end();
            return self.give_back_as_promised(endpoint, id, now);
        }
        if self.function.is_none() {
            let why = "the function has closed its control channel";
            return self.fail_to_return(endpoint, id, why, now);
        }
        let tell = Tell::Export {
            handover: id,
            flows,
            peer: part.other(),
            deadline_ms: part.terms.deadline_ns / 1_000_000,
        };
        self.actions.push(Action::Disown(keys));
        self.tell(Tell::Freeze { handover: id });
        self.tell(tell);
    }

    /// The function at the destination gives state back.
    pub(super) fn recalls(&self, id: HoldId) -> bool {
        let gives = |part: &Part| part.unlisted.step == Step::Giving;
        self.parts.get(&id).is_some_and(gives)
    }

    /// It has.
    pub(super) fn recalled(&mut self, endpoint: &mut Endpoint, id: HoldId, bytes: u64, now: u64) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        part.due_ns = None;
        part.unlisted.step = Step::Gave;
        if !part.connected {
            part.flags = part.flags | Flags::STATE_LOST;
        }
        let flows = std::mem::take(&mut part.unlisted.flows);
        let state = Record::State {
            handover: id,
            present: true,
            unproven: part.flags.contains(Flags::DRAIN_UNPROVEN),
            bytes,
        };
        self.record_list(endpoint, id, &flows, (true, false));
        self.record(endpoint, id, state);
        self.give_back_as_promised(endpoint, id, now);
    }

    /// Without the fence, and without state that is not out.
    pub(super) fn give_back_anyway(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        if part.unlisted.is_recalled() {
            part.flags = part.flags | Flags::STATE_LOST;
            part.unlisted.end();
        }
        part.promised = false;
        part.called_off = true;
        self.fire(endpoint, id, Event::Handback, now);
    }

    /// The destination gives back: take the state in that comes with it, and then the flows.
    pub(super) fn take_back(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        let able = self.function.is_some();
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        if part.phase != Phase::Regaining || part.unlisted.step != Step::Given {
            self.fire(endpoint, id, Event::Returned, now);
            return;
        }
        part.unlisted.step = Step::Taking;
        if !able {
            let why = "there is no function any more to take the state of new flows";
            return self.fail_to_return(endpoint, id, why, now);
        }
        part.due_ns = Some(now + part.terms.deadline_ns);
        let tell = Tell::Import {
            handover: id,
            flows: part.unlisted.flows.clone(),
            peer: part.other(),
            deadline_ms: part.terms.deadline_ns / 1_000_000,
        };
        self.tell(tell);
    }

    /// The function at the source has taken it in.
    pub(super) fn took_back(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        let takes = |part: &&mut Part| part.unlisted.step == Step::Taking;
        let Some(part) = self.parts.get_mut(&id).filter(takes) else {
            return;
        };
        part.due_ns = None;
        part.unlisted.end();
        let flows = std::mem::take(&mut part.unlisted.flows);
        part.list(flows);
        self.fire(endpoint, id, Event::Returned, now);
    }

    /// State of new flows did not get back, at whichever end: go on without.
    pub(super) fn fail_to_return(
        &mut self,
        endpoint: &mut Endpoint,
        id: HoldId,
        why: &str,
        now: u64,
    ) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        let (reason, taking) = match part.unlisted.step {
            Step::Draining | Step::Giving => (Reason::ExportFailed, false),
            Step::Taking => (Reason::ImportFailed, true),
            _ => return,
        };
        part.flags = part.flags | Flags::STATE_LOST;
        part.error.get_or_insert_with(|| report(reason, why));
        part.due_ns = None;
        part.unlisted.end();
        if taking {
            self.fire(endpoint, id, Event::Returned, now);
        } else {
            self.give_back_as_promised(endpoint, id, now);
        }
    }
}
