//! The duties of the table, and what drives a part from step to step at this agent.

use flowferry_wire::{Command, Flags, Reason, Report, Tlv};

use super::control::report;
use super::function::{Answer, Tell};
use super::part::{Part, Role, State};
use super::record::{LIST, Record};
use super::repeat::Topic;
use super::table::{self, Duty, Event, Phase};
use super::{Action, Ended, Handovers, Purpose, Survey, covered, figures, translate};
use crate::endpoint::{Endpoint, HoldId, HoldState, Role as HoldRole};
use crate::key::{Key, Parsed, Side};

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

    pub(super) fn on_flushed(
        &mut self,
        endpoint: &mut Endpoint,
        side: Side,
        purpose: &Purpose,
        now: u64,
    ) {
        match purpose {
            Purpose::Drain { handover } => self.drained_side(endpoint, *handover, side, now),
            Purpose::Finish { handover } => {
                let known = self.phase(*handover).is_some_and(Phase::gives);
                if known {
                    self.tell_fenced(endpoint, *handover, side, super::record::FINAL, true);
                }
            }
            Purpose::Marker {
                handover,
                round,
                by,
                ..
            } => {
                if !self.phase(*handover).is_some_and(Phase::gives) {
                    return;
                }
                self.tell_fenced(endpoint, *handover, side, *round, false);
                if *by != flowferry_wire::CONTROLLER {
                    return;
                }
                let message = self
                    .message(Command::Fenced, *handover)
                    .with(Tlv::Side(translate::to_wire(side)))
                    .with(Tlv::Round(*round));
                self.actions.push(Action::Send { side, message });
            }
        }
    }

    pub(super) fn on_flush_failed(
        &mut self,
        endpoint: &mut Endpoint,
        side: Side,
        purpose: Purpose,
        now: u64,
    ) {
        match purpose {
            // Markers are repeated while the round is not fenced.
            Purpose::Marker { .. } => {}
            Purpose::Drain { handover } => {
                if let Some(part) = self.parts.get_mut(&handover) {
                    part.flags = part.flags | Flags::DRAIN_UNPROVEN;
                }
                self.drained_side(endpoint, handover, side, now);
            }
            Purpose::Finish { .. } => self.actions.push(Action::Flush { side, purpose }),
        }
    }

    fn drained_side(&mut self, endpoint: &mut Endpoint, id: HoldId, side: Side, now: u64) {
        let quiet = self.settings.quiet_ns;
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        if part.phase != Phase::Draining && !part.unlisted.drains() {
            return;
        }
        part.draining.retain(|other| *other != side);
        if !part.draining.is_empty() {
            return;
        }
        match quiet {
            None => self.drained(endpoint, id, now),
            Some(quiet) => {
                part.flags = part.flags | Flags::DRAIN_UNPROVEN;
                part.quiet_until_ns = Some(now + quiet);
            }
        }
    }

    /// What had passed is through the function.
    pub(super) fn drained(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        if self.phase(id) == Some(Phase::Draining) {
            self.fire(endpoint, id, Event::Drained, now);
        } else if let Some(part) = self.parts.get(&id).filter(|it| it.unlisted.drains()) {
            let matching = part.terms.spec(HoldRole::Capture).matching;
            self.survey(Survey::Recall(id), matching);
        }
    }

    fn tell_fenced(
        &mut self,
        endpoint: &Endpoint,
        id: HoldId,
        side: Side,
        round: u32,
        unfenced: bool,
    ) {
        let record = Record::Fenced {
            handover: id,
            side,
            round,
            unfenced,
        };
        self.record(endpoint, id, record);
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

    pub(super) fn tell(&mut self, line: Tell) {
        if self.function.is_some() {
            self.actions.push(Action::Tell(line));
        }
    }

    fn tell_end(&mut self, id: HoldId, why: Option<String>) {
        let Some(role) = self.parts.get(&id).map(|part| part.terms.role.name()) else {
            return;
        };
        self.tell(match why {
            None => Tell::Released { handover: id, role },
            Some(why) => Tell::Aborted {
                handover: id,
                role,
                why,
            },
        });
    }

    fn tell_aborted(&mut self, id: HoldId) {
        let why = self.parts.get(&id).map(reason_of);
        self.tell_end(id, why);
    }

    /// A part cannot go on by itself: ask the controller to call it off.
    pub(super) fn plead(&mut self, id: HoldId, reason: Reason, why: &str, now: u64) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        if part.error.is_some() {
            return; // the first reason is the one
        }
        part.error = Some(report(reason, why));
        part.due_ns = None;
        part.repeats.begin(Topic::Plea, now);
        self.say_plea(id, 0);
    }

    fn say_plea(&mut self, id: HoldId, times: u32) {
        let Some((error, sides)) = self
            .parts
            .get(&id)
            .and_then(|part| Some((part.error.clone()?, part.terms.sides.clone())))
        else {
            return;
        };
        let side = sides[times as usize % sides.len()];
        let message = self.message(Command::Abort, id).with(Tlv::Error(error));
        self.send_again(side, message, times);
    }

    pub(super) fn send_again(&mut self, side: Side, message: flowferry_wire::Message, times: u32) {
        // A switch may be gone: repeats take turns.
        let side = if times % 2 == 1 { side.other() } else { side };
        let message = match times {
            0 => message,
            _ => message.flagged(Flags::RETRY),
        };
        self.actions.push(Action::Send { side, message });
    }

    /// Say, or say again, what is to be heard.
    pub(super) fn say(&mut self, endpoint: &Endpoint, id: HoldId, topic: Topic, times: u32) {
        let Some(part) = self.parts.get(&id) else {
            return;
        };
        let first = part.terms.sides[0];
        match topic {
            Topic::Plea => self.say_plea(id, times),
            Topic::Imported => {
                let message = self.message(Command::Imported, id).flagged(part.flags);
                self.send_again(first, message, times);
            }
            Topic::Released => {
                let command = match part.called_off {
                    true => Command::Aborted,
                    false => Command::Released,
                };
                let counts = Self::figures(endpoint, part);
                let mut message = self
                    .message(command, id)
                    .flagged(part.flags)
                    .with(Tlv::Counts(counts));
                if let Some(error) = part.error.clone() {
                    message = message.with(Tlv::Error(error));
                }
                self.send_again(first, message, times);
            }
            Topic::Seen(side) => {
                let Some(round) = part.rounds[side.index()].under_way() else {
                    return;
                };
                let (number, on) = (round.number, translate::to_wire(side));
                let mut marker = self
                    .message(Command::Marker, id)
                    .with(Tlv::Side(on))
                    .with(Tlv::Round(number));
                marker.to = part.other().instance;
                let flows = round.flows.len() as u64;
                let counts = [(flowferry_wire::Counter::Flows, flows)].into();
                let seen = self
                    .message(Command::Seen, id)
                    .with(Tlv::Flows(figures::that_fit(&round.flows)))
                    .with(Tlv::Side(on))
                    .with(Tlv::Counts(counts))
                    .with(Tlv::Round(number));
                self.actions.push(Action::Send {
                    side,
                    message: marker,
                });
                // It has gone unanswered: the controller may have a better way.
                if times > 0 {
                    self.send_again(side, seen, times);
                }
            }
        }
    }

    pub(super) fn on_seen(&mut self, endpoint: &mut Endpoint, id: HoldId, key: Key, now: u64) {
        let upstream = endpoint.upstream_of(&key);
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        if !part.phase.takes() {
            return;
        }
        part.seen.insert(upstream);
        if part.rounds[key.side().index()].seen(key, now) {
            self.ask(endpoint, id, key.side(), now);
        } else {
            self.let_go_fenced(endpoint, id, now);
        }
    }

    pub(super) fn ask(&mut self, endpoint: &Endpoint, id: HoldId, side: Side, now: u64) {
        if let Some(part) = self.parts.get_mut(&id) {
            part.repeats.begin(Topic::Seen(side), now);
            self.say(endpoint, id, Topic::Seen(side), 0);
        }
    }

    /// Where the state is in, or there is none, let what is fenced go.
    pub(super) fn let_go_fenced(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        if !part.phase.has_state() {
            return self.let_unlisted_go(endpoint, id);
        }
        if part.is_fenced() {
            self.fire(endpoint, id, Event::Fenced, now);
            return;
        }
        // Refused where the endpoint has ended the hold meanwhile, and let everything go.
        let _ = endpoint.let_strays_go(id);
        for rounds in &mut part.rounds {
            for key in rounds.take_fenced() {
                // Refused if the buffer's relief, or a full table, has ended the hold meanwhile.
                let _ = endpoint.release_side(id, key);
            }
        }
    }

    /// Do not wait any longer: for markers (`unfenced`, of one side or of all), for the state.
    pub(super) fn force(
        &mut self,
        endpoint: &mut Endpoint,
        id: HoldId,
        unfenced: Option<Option<Side>>,
        stateless: bool,
        now: u64,
    ) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        if let Some(side) = unfenced {
            part.flags = part.flags | Flags::UNFENCED;
            let sides = side.map_or_else(|| part.terms.sides.clone(), |side| vec![side]);
            for side in sides {
                part.rounds[side.index()].fence(super::record::FINAL, now);
                part.repeats.end(Topic::Seen(side));
            }
        }
        part.promised = false;
        let event = match part.phase {
            Phase::Armed | Phase::Importing if stateless => Some(Event::StateIn),
            Phase::Regaining => Some(Event::Returned),
            _ => None,
        };
        match event {
            Some(event) => {
                let loses = part.terms.role == Role::Destination || part.unlisted.comes_back();
                part.unlisted.end();
                if loses {
                    part.flags = part.flags | Flags::STATE_LOST;
                }
                self.fire(endpoint, id, event, now);
            }
            None => self.let_go_fenced(endpoint, id, now),
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

    pub(super) fn on_half_full(&mut self, id: HoldId, now: u64) {
        let why = "the buffer is half full; raise buffer_bytes or move fewer flows at once";
        self.plead(id, Reason::BufferPressure, why, now);
    }

    pub(super) fn on_answer(&mut self, endpoint: &mut Endpoint, answer: Answer, now: u64) {
        match answer {
            Answer::Hello {
                name,
                lists_flows,
                new_flows,
            } => {
                self.function = Some(super::Joined {
                    name,
                    lists_flows,
                    new_flows,
                });
            }
            Answer::Exported { handover, bytes } if self.recalls(handover) => {
                self.recalled(endpoint, handover, bytes, now);
            }
            Answer::ExportFailed { handover, error } if self.recalls(handover) => {
                self.fail_to_return(endpoint, handover, &error, now);
            }
            Answer::Imported { handover, .. } if self.phase(handover) == Some(Phase::Regaining) => {
                self.took_back(endpoint, handover, now);
            }
            Answer::ImportFailed { handover, error }
                if self.phase(handover) == Some(Phase::Regaining) =>
            {
                self.fail_to_return(endpoint, handover, &error, now);
            }
            Answer::Exported { handover, bytes } => {
                let Some(part) = self.parts.get_mut(&handover) else {
                    return;
                };
                if part.phase == Phase::Exporting && part.error.is_none() {
                    part.state = Some(State {
                        present: true,
                        bytes,
                    });
                    self.fire(endpoint, handover, Event::Exported, now);
                }
            }
            Answer::Imported { handover, .. } => {
                let sound = |part: &&Part| {
                    part.phase == Phase::Importing && part.error.is_none() && !part.promised
                };
                if self.parts.get(&handover).as_ref().is_some_and(sound) {
                    self.fire(endpoint, handover, Event::StateIn, now);
                }
            }
            Answer::ExportFailed { handover, error } => {
                if self.phase(handover) == Some(Phase::Exporting) {
                    self.plead(handover, Reason::ExportFailed, &error, now);
                }
            }
            Answer::ImportFailed { handover, error } => {
                if self.phase(handover) == Some(Phase::Importing) {
                    self.plead(handover, Reason::ImportFailed, &error, now);
                }
            }
            Answer::Flows { request, flows } => {
                let Some(id) = self.asked_function.remove(&request) else {
                    return;
                };
                if let Some(part) = self.parts.get_mut(&id) {
                    let spec = part.terms.spec(HoldRole::Capture);
                    part.list(flows.into_iter().filter(|flow| spec.covers(flow)));
                }
                self.ready(endpoint, id, now);
            }
        }
    }

    pub(super) fn on_function_gone(&mut self, endpoint: &mut Endpoint, now: u64) {
        self.function = None;
        self.asked_function.clear();
        let returning = |part: &&Part| part.unlisted.drains() || part.unlisted.returns();
        let returning: Vec<HoldId> = self
            .parts
            .values()
            .filter(returning)
            .map(|it| it.id)
            .collect();
        for id in returning {
            let why = "the function has closed its control channel";
            self.fail_to_return(endpoint, id, why, now);
        }
        let waiting: Vec<(HoldId, Phase)> = self
            .parts
            .values()
            .filter(|part| matches!(part.phase, Phase::Exporting | Phase::Importing))
            .map(|part| (part.id, part.phase))
            .collect();
        for (id, phase) in waiting {
            let reason = match phase {
                Phase::Exporting => Reason::ExportFailed,
                _ => Reason::ImportFailed,
            };
            self.plead(
                id,
                reason,
                "the function has closed its control channel",
                now,
            );
        }
    }

    pub(super) fn on_surveyed(
        &mut self,
        endpoint: &mut Endpoint,
        ticket: u64,
        served: &[Parsed],
        now: u64,
    ) {
        match self.surveys.remove(&ticket) {
            Some(Survey::Prepare(id)) => {
                if let Some(part) = self.parts.get_mut(&id) {
                    let spec = part.terms.spec(HoldRole::Capture);
                    let served = covered(endpoint, &spec, served);
                    part.list(served.iter().map(|each| endpoint.from_upstream(each)));
                    part.accounted = served.iter().map(|each| each.key).collect();
                    part.listed = true;
                    self.ready(endpoint, id, now);
                }
            }
            Some(Survey::Export(id)) => self.on_surveyed_for_export(endpoint, id, served),
            Some(Survey::Recall(id)) => self.on_surveyed_for_return(endpoint, id, served, now),
            Some(Survey::Disown(spec)) => {
                let served = covered(endpoint, &spec, served);
                if !served.is_empty() {
                    let keys = served.iter().map(|each| each.key).collect();
                    self.actions.push(Action::Disown(keys));
                }
            }
            Some(Survey::Status { answer, side, spec }) => {
                let served = covered(endpoint, &spec, served);
                let mut flows: Vec<Key> = served
                    .iter()
                    .map(|each| endpoint.upstream_of(&each.key))
                    .collect();
                flows.sort();
                flows.dedup();
                let flows = flows.iter().filter_map(translate::to_flow).collect();
                let message = answer.with(Tlv::Flows(flows));
                self.actions.push(Action::Send { side, message });
            }
            None => {}
        }
    }

    fn on_surveyed_for_export(&mut self, endpoint: &Endpoint, id: HoldId, served: &[Parsed]) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        if part.phase != Phase::Exporting {
            return;
        }
        let spec = part.terms.spec(HoldRole::Capture);
        let served = covered(endpoint, &spec, served);
        part.list(served.iter().map(|each| endpoint.from_upstream(each)));
        let tell = Tell::Export {
            handover: id,
            flows: part.flows.clone(),
            peer: part.other(),
            deadline_ms: part.terms.deadline_ns / 1_000_000,
        };
        self.list(endpoint, id, true);
        self.tell(Tell::Freeze { handover: id });
        self.tell(tell);
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

fn reason_of(part: &Part) -> String {
    let text = |error: &Report| error.text.clone();
    part.error
        .as_ref()
        .map_or_else(|| "called off by the controller".to_owned(), text)
}
