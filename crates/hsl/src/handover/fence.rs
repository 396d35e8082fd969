//! Marker rounds, and the flushes that prove what they are to prove.
//!
//! Whoever takes flows sends the markers of its rounds; whoever gives them confirms each behind a
//! flush of every CPU's queue. What is fenced goes when the state is in.

use flowferry_wire::{CONTROLLER, Command, Flags, Message, Tlv};

use super::part::{Part, Role};
use super::record::{FINAL, Record};
use super::repeat::Topic;
use super::{Action, Event, Handovers, Phase, Purpose, Survey, translate};
use crate::endpoint::{Endpoint, HoldId, Role as HoldRole};
use crate::key::{Key, Side};

impl Handovers {
    pub(super) fn on_marker(
        &mut self,
        endpoint: &mut Endpoint,
        side: Side,
        message: &Message,
        now: u64,
    ) {
        if message.side() != Some(translate::to_wire(side)) {
            return; // counted by the shell
        }
        let id = message.handover;
        if self.phase(id) == Some(Phase::Prepared) {
            // Refused: no flush either, so nobody relies on this marker.
            if self.freeze(endpoint, id, now) != Ok(true) {
                return;
            }
        }
        if self.phase(id).is_some_and(|phase| !phase.gives()) {
            return;
        }
        self.actions.push(flush_behind(side, message));
    }

    /// Another agent says something by the data plane: a marker, if it takes our flows. It fences
    /// flows that have come there, and freezes nothing: the other switch may not have turned yet.
    pub(super) fn on_peer(&mut self, side: Side, message: &Message) {
        let part = self.parts.get_mut(&message.handover);
        let from_it = |part: &&mut Part| part.other().instance == message.from;
        let for_us = message.command == Command::Marker
            && message.side() == Some(translate::to_wire(side))
            && message.round() != Some(FINAL);
        match part.filter(from_it).filter(|_| for_us) {
            None => self.unexpected += 1,
            Some(part) if part.phase == Phase::Prepared => {
                part.early[side.index()] = Some(flush_behind(side, message));
            }
            Some(part) if part.phase.gives() => self.actions.push(flush_behind(side, message)),
            Some(_) => self.late += 1,
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
                    self.tell_fenced(endpoint, *handover, side, FINAL, true);
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
                if *by != CONTROLLER {
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

    pub(super) fn drained_side(
        &mut self,
        endpoint: &mut Endpoint,
        id: HoldId,
        side: Side,
        now: u64,
    ) {
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

    pub(super) fn tell_fenced(
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

    /// Flows have gathered for as long as they are to.
    pub(super) fn begin_rounds(&mut self, endpoint: &Endpoint, id: HoldId, now: u64) {
        for side in Side::ALL {
            let part = self.parts.get_mut(&id).filter(|part| part.phase.takes());
            if part.is_some_and(|part| part.rounds[side.index()].begin(now)) {
                self.ask(endpoint, id, side, now);
            }
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
                part.rounds[side.index()].fence(FINAL, now);
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
}

/// A marker is confirmed behind what was queued on any CPU when it came.
fn flush_behind(side: Side, marker: &Message) -> Action {
    Action::Flush {
        side,
        purpose: Purpose::Marker {
            handover: marker.handover,
            round: marker.round().unwrap_or_default(),
            sequence: marker.sequence,
            by: marker.from,
        },
    }
}
