//! The duties of the table, and what drives a part from step to step at this agent.

use flowferry_wire::{Command, Flags, Reason};

use super::channel::reason_of;
use super::function::Tell;
use super::part::{Role, State};
use super::record::{LIST, Record};
use super::repeat::Topic;
use super::report::report;
use super::table::{self, Duty, Event, Phase};
use super::{Action, Ended, Handovers, Purpose, Survey, translate};
use crate::endpoint::{Endpoint, HoldId, HoldState, Role as HoldRole};
use crate::key::Parsed;

impl Handovers {
    /// Apply `event` by the table and do what it asks for. False, and nothing changed, where it
    /// does not fit.
    pub(super) fn fire(
        &mut self,
        endpoint: &mut Endpoint,
        id: HoldId,
        event: Event,
        now: u64,
    ) -> bool {
        let Some(part) = self.parts.get_mut(&id) else {
            return false;
        };
        let Some(row) = table::transition(part.phase, event) else {
            return false;
        };
        if let Some(hook) = &mut self.hook {
            hook(row);
        }
        *self.tally.entry((row.from, row.event)).or_default() += 1;
        part.phase = row.to;
        if row.from != row.to {
            self.actions.push(Action::Step {
                handover: id,
                phase: row.to,
                error: part.error.as_ref().map(|error| error.text.clone()),
            });
        }
        match row.duty {
            Duty::None => {}
            Duty::Answer => self.answer(endpoint, id),
            Duty::Stray => self.stray(id),
            Duty::Export => self.export(endpoint, id, now),
            Duty::EndState => self.end_state(endpoint, id),
            Duty::Forget => self.tell_end(id, None),
            Duty::Capture => self.capture(endpoint, id, now),
            Duty::Thaw => {
                self.tell_aborted(id);
                self.own(endpoint, id);
                self.let_go_fenced(endpoint, id, now);
            }
            Duty::Import => self.import(endpoint, id, now),
            Duty::ReportState => self.report_state(endpoint, id, now),
            Duty::GiveBack => self.give_back(endpoint, id),
            Duty::Discard => self.discard(endpoint, id, now),
            Duty::LetGo => self.let_go(endpoint, id, now),
            Duty::Report => self.report_release(endpoint, id, now),
        }
        if row.to == Phase::Over {
            self.bury(endpoint, id, event);
        }
        true
    }

    fn bury(&mut self, endpoint: &mut Endpoint, id: HoldId, event: Event) {
        let Some(part) = self.parts.remove(&id) else {
            return;
        };
        if part.terms.role == Role::Source && event == Event::Abort {
            self.tell(Tell::Aborted {
                handover: id,
                role: part.terms.role.name(),
                why: reason_of(&part),
            });
        }
        self.asked_function.retain(|_, asking| *asking != id);
        self.assembler.forget(id);
        self.remember(Ended {
            id,
            heard: part.heard,
            called_off: part.called_off,
            lost: event == Event::Lost,
            gave: (part.terms.role == Role::Source) != part.called_off,
            flags: part.flags,
            counts: Self::figures(endpoint, &part),
        });
    }

    /// A source is frozen.
    fn stray(&mut self, id: HoldId) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        part.draining = part.terms.sides.clone();
        let (sides, accounted) = (part.draining.clone(), part.accounted.clone());
        let early: Vec<_> = part.early.iter_mut().filter_map(Option::take).collect();
        self.tell(Tell::Drain { handover: id });
        for side in sides {
            let purpose = Purpose::Drain { handover: id };
            self.actions.push(Action::Flush { side, purpose });
        }
        self.actions.extend(early);
        if !accounted.is_empty() {
            self.actions.push(Action::Disown(accounted));
        }
    }

    pub(super) fn record(&mut self, endpoint: &Endpoint, id: HoldId, record: Record) {
        if let Some(part) = self.parts.get(&id) {
            self.actions.push(Action::Record {
                to: part.other().address,
                behind: endpoint.strays_queued(),
                record,
            });
        }
    }

    fn export(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        let matching = part.terms.spec(HoldRole::Capture).matching;
        if self.function.is_none() {
            part.state = Some(State {
                present: false,
                bytes: 0,
            });
            self.fire(endpoint, id, Event::Exported, now);
            return;
        }
        part.due_ns = Some(now + part.terms.deadline_ns);
        self.survey(Survey::Export(id), matching);
    }

    fn end_state(&mut self, endpoint: &Endpoint, id: HoldId) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        part.due_ns = None;
        let state = part.state.unwrap_or(State {
            present: false,
            bytes: 0,
        });
        let record = Record::State {
            handover: id,
            present: state.present,
            unproven: part.flags.contains(Flags::DRAIN_UNPROVEN),
            bytes: state.bytes,
        };
        self.record(endpoint, id, record);
    }

    pub(super) fn list(&mut self, endpoint: &Endpoint, id: HoldId, last: bool) {
        let Some(part) = self.parts.get(&id) else {
            return;
        };
        let flows = part.flows.clone();
        let whole = last && self.lists_all(endpoint, &flows);
        self.record_list(endpoint, id, &flows, (last, whole));
    }

    /// Tell the other agent of flows; the last such list, and on that one whether it is whole.
    pub(super) fn record_list(
        &mut self,
        endpoint: &Endpoint,
        id: HoldId,
        flows: &[Parsed],
        (last, whole): (bool, bool),
    ) {
        let flows: Vec<_> = flows.iter().filter_map(translate::to_directed).collect();
        let lists: Vec<Vec<_>> = match flows.is_empty() {
            true => vec![Vec::new()],
            false => flows.chunks(LIST).map(<[_]>::to_vec).collect(),
        };
        let count = lists.len();
        for (at, flows) in lists.into_iter().enumerate() {
            let record = Record::List {
                handover: id,
                last,
                more: at + 1 < count,
                whole,
                flows,
            };
            self.record(endpoint, id, record);
        }
    }

    /// The source is called off: keep what comes, until the destination has agreed.
    fn capture(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        part.repeats.clear();
        part.due_ns = None;
        part.quiet_until_ns = None;
        if endpoint.turn(id, HoldRole::Capture).is_err() {
            let spec = part.terms.spec(HoldRole::Capture);
            let held = endpoint.hold(id, spec, now);
            if let Err(refusal) = held.and_then(|()| endpoint.lead(id)) {
                let why = refusal.to_string();
                self.plead(id, Reason::CaptureFailed, &why, now);
            }
        }
    }

    fn import(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        let function = self.function.is_some();
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        if !part.state.is_some_and(|state| state.present) {
            self.fire(endpoint, id, Event::StateIn, now);
            return;
        }
        if !function {
            let why = "the source's function gave state, and none is here to take it; \
                       connect the function to the agent's function_socket";
            return self.plead(id, Reason::ImportFailed, why, now);
        }
        part.due_ns = Some(now + part.terms.deadline_ns);
        let tell = Tell::Import {
            handover: id,
            flows: part.flows.clone(),
            peer: part.other(),
            deadline_ms: part.terms.deadline_ns / 1_000_000,
        };
        self.tell(tell);
    }

    fn report_state(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        part.due_ns = None;
        if !part.flags.contains(Flags::STATE_LOST) {
            part.repeats.begin(Topic::Imported, now);
            self.say(endpoint, id, Topic::Imported, 0);
        }
        self.own(endpoint, id);
        self.let_go_fenced(endpoint, id, now);
    }

    /// The listed flows are served here from now on, also those that stay quiet: their state is here,
    /// and has to be found when they move on.
    fn own(&mut self, endpoint: &Endpoint, id: HoldId) {
        let Some(part) = self.parts.get(&id).filter(|part| !part.flows.is_empty()) else {
            return;
        };
        let side = part.terms.sides[0];
        let flows = part.flows.iter();
        let seen = flows.map(|flow| endpoint.seen_from(side, flow)).collect();
        self.actions.push(Action::Own(seen));
    }

    fn give_back(&mut self, endpoint: &mut Endpoint, id: HoldId) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        part.repeats.clear();
        part.due_ns = None;
        // Before what is kept begins to travel.
        self.record(endpoint, id, Record::Return { handover: id });
        let _ = endpoint.turn(id, HoldRole::Stray); // without the hold `Ended` has come
        self.tell_aborted(id);
    }

    /// What is kept would be late at the other end, where the flows go on; so would what a switch still
    /// sends here by an old entry.
    fn discard(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        part.repeats.clear();
        part.quiet_until_ns = None;
        part.due_ns = Some(now + part.terms.settling_ns);
        part.called_off = true;
        let (role, spec) = (part.terms.role, part.terms.spec(HoldRole::Capture));
        if part.unlisted.is_free() {
            let _ = endpoint.recall(id); // without the hold `Ended` has come
        }
        part.unlisted.end();
        self.actions.push(Action::Discard(id));
        let _ = endpoint.turn(id, HoldRole::Stray); // without the hold `Ended` has come
        match role {
            Role::Source => self.tell_end(id, None),
            Role::Destination => self.tell_aborted(id),
        }
        let matching = spec.matching.clone();
        self.survey(Survey::Disown(spec), matching);
    }

    fn let_go(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        part.repeats.clear();
        part.due_ns = None;
        let (phase, role) = (part.phase, part.terms.role);
        let spec = part.terms.spec(HoldRole::Capture);
        if phase == Phase::Withdrawing {
            if part.error.is_some() && part.asked.is_some_and(|it| it.command == Command::Prepare) {
                self.answer(endpoint, id);
            }
            self.tell_aborted(id);
        }
        if phase == Phase::Closing && role == Role::Source {
            let matching = spec.matching.clone();
            self.survey(Survey::Disown(spec), matching);
        }
        let released = endpoint.release(id, now);
        let ended = |hold: &crate::endpoint::Hold| {
            hold.id == id && !matches!(hold.state, HoldState::Holding | HoldState::Releasing)
        };
        if released.is_err()
            && (endpoint.holds().any(ended) || endpoint.holds().all(|hold| hold.id != id))
        {
            self.fire(endpoint, id, Event::Ended, now);
        }
    }

    fn report_release(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        part.repeats.clear();
        part.repeats.begin(Topic::Released, now);
        let told = !part.called_off;
        self.say(endpoint, id, Topic::Released, 0);
        if told {
            self.tell_end(id, None);
        }
    }

    pub(super) fn on_ended(
        &mut self,
        endpoint: &mut Endpoint,
        id: HoldId,
        error: Option<String>,
        now: u64,
    ) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        let expected = matches!(
            part.phase,
            Phase::Releasing | Phase::Closing | Phase::Withdrawing | Phase::Discarding
        );
        if !expected {
            part.flags = part.flags | Flags::UNFENCED;
            if !part.phase.has_state() && part.phase.takes() {
                part.flags = part.flags | Flags::STATE_LOST;
            }
            let why = error.unwrap_or_else(|| "its hold was released by hand".to_owned());
            part.error
                .get_or_insert_with(|| report(Reason::CaptureFailed, &why));
        }
        let pleads = !expected && part.phase.gives();
        if pleads {
            self.say_plea(id, 0);
        }
        self.fire(endpoint, id, Event::Ended, now);
    }

    /// Prepared as far as it can be: streams, flows, the function's own list.
    pub(super) fn ready(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        let asked = self.asked_function.values().any(|asking| *asking == id);
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        let waiting = matches!(part.phase, Phase::Preparing | Phase::Arming);
        if asked || !waiting || !part.connected || !part.listed {
            return;
        }
        part.due_ns = None;
        if part.terms.role == Role::Source {
            self.list(endpoint, id, false);
        }
        self.fire(endpoint, id, Event::Ready, now);
    }

    pub(super) fn on_started_over(&mut self, endpoint: &mut Endpoint, epoch: u64, now: u64) {
        self.settings.epoch = epoch;
        self.surveys.clear();
        for id in self.parts.keys().copied().collect::<Vec<_>>() {
            // Before the state was out nobody else can have it. After, only the controller knows.
            if let Some(part) = self.parts.get_mut(&id) {
                let kept = !matches!(
                    part.phase,
                    Phase::Exported | Phase::Committed | Phase::Closing
                );
                part.error = Some(report(
                    Reason::WrongEpoch,
                    "the agent has started over, and what it held is lost",
                ));
                if kept {
                    self.tell_aborted(id);
                }
            }
            self.fire(endpoint, id, Event::Lost, now);
        }
    }
}
