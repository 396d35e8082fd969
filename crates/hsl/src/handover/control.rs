//! Control frames: what the controller asks.

use std::net::SocketAddr;

use flowferry_wire::{Command, Counts, Flags, Message, Reason};

use super::function::{Other, Tell};
use super::part::{Asked, Part, Role, Terms};
use super::repeat::Topic;
use super::{Action, Event, Handovers, Phase, Survey, translate};
use crate::endpoint::{Endpoint, HoldId, Role as HoldRole};
use crate::key::Side;
use crate::matching::Match;

/// Settling time where PREPARE names none.
const SETTLING_MS: u32 = 1_500;

impl Asked {
    fn by(side: Side, message: &Message) -> Asked {
        Asked {
            command: message.command,
            sequence: message.sequence,
            side,
        }
    }
}

impl Handovers {
    pub(super) fn on_control(
        &mut self,
        endpoint: &mut Endpoint,
        side: Side,
        message: Message,
        now: u64,
    ) {
        if message.from != flowferry_wire::CONTROLLER {
            return self.on_peer(side, &message);
        }
        let asked = Asked::by(side, &message);
        let id = message.handover;
        let word = |part: &mut Part| (part.last_word_ns, part.silences) = (now, 0);
        match id {
            0 => self.parts.values_mut().for_each(word),
            id => self.parts.get_mut(&id).into_iter().for_each(|part| {
                word(part);
                part.named_ns = now;
            }),
        }
        if let Some(why) = self.is_of_another_epoch(&message) {
            return self.refuse(id, asked, Reason::WrongEpoch, &why);
        }
        match message.command {
            Command::Query => return self.on_query(endpoint, asked, &message),
            Command::Marker => return self.on_marker(endpoint, side, &message, now),
            Command::Prepare
            | Command::Freeze
            | Command::Commit
            | Command::Release
            | Command::Abort => {}
            _ => return self.refuse(id, asked, Reason::Unsupported, "it is nothing for an agent"),
        }
        let sent = (message.boot, message.sequence);
        let heard = self.parts.get(&id).map(|part| part.heard);
        let heard = heard.or_else(|| self.remembered(id).map(|ended| ended.heard));
        if heard.is_some_and(|heard| sent <= heard) {
            self.late += 1;
            return;
        }
        // Long lists of excepts come in several frames.
        let Ok(Some(message)) = self.assembler.add(message) else {
            return;
        };
        let asked = Asked::by(side, &message);
        // A controller that has lost its journal begins with number 1 again.
        let anew = |ended: &super::Ended| ended.id == id && sent.0 > ended.heard.0;
        if message.command == Command::Prepare {
            self.ended.retain(|ended| !anew(ended));
        }
        if self.parts.contains_key(&id) {
            if let Some(part) = self.parts.get_mut(&id) {
                part.heard = sent;
            }
            self.on_command(endpoint, id, asked, &message, now);
        } else if self.remembered(id).is_some() {
            if let Some(ended) = self.ended.iter_mut().find(|ended| ended.id == id) {
                ended.heard = sent;
            }
            self.on_late_command(id, asked);
        } else {
            match message.command {
                Command::Prepare => self.on_prepare(endpoint, asked, &message, sent, now),
                Command::Abort => {
                    // Nothing is here, and a PREPARE that comes late must begin nothing.
                    self.remember(super::Ended {
                        id,
                        heard: sent,
                        called_off: true,
                        lost: false,
                        gave: false,
                        flags: Flags::NONE,
                        counts: Counts::new(),
                    });
                    self.on_late_command(id, asked);
                }
                _ => {
                    let why = format!("the agent knows of no handover {id}; prepare it first");
                    self.refuse(id, asked, Reason::UnknownHandover, &why);
                }
            }
        }
    }

    /// Why a message does not mean the agent as it is now. A PREPARE that quotes no epoch may be of any:
    /// recorded, and sent again to an agent that has started anew and knows nothing.
    fn is_of_another_epoch(&self, message: &Message) -> Option<String> {
        let own = self.settings.epoch;
        match message.epoch() {
            Some(epoch) if epoch == own => None,
            Some(epoch) => Some(format!(
                "the agent is in epoch {own}, not {epoch}; ask for its status"
            )),
            None if message.command == Command::Prepare => Some(format!(
                "it does not quote the agent's epoch, {own}; ask for its status"
            )),
            None => None,
        }
    }

    /// A command for a part that is under way.
    fn on_command(
        &mut self,
        endpoint: &mut Endpoint,
        id: HoldId,
        asked: Asked,
        message: &Message,
        now: u64,
    ) {
        match message.command {
            Command::Prepare => self.on_prepare_again(endpoint, id, asked, message),
            Command::Freeze => self.on_freeze(endpoint, id, asked, now),
            Command::Commit => self.on_commit(endpoint, id, asked, now),
            Command::Release => self.on_release(endpoint, id, asked, message, now),
            Command::Abort => self.on_abort(endpoint, id, asked, message, now),
            _ => {}
        }
    }

    fn on_prepare(
        &mut self,
        endpoint: &mut Endpoint,
        asked: Asked,
        message: &Message,
        heard: (u64, u64),
        now: u64,
    ) {
        let id = message.handover;
        let terms = match self.terms(message) {
            Ok(terms) => terms,
            Err(why) => return self.refuse(id, asked, Reason::Unsupported, &why),
        };
        // Not `Arm`: all flows of a part are the source's, by the rules. One that counts as served
        // here (its packets have once failed open; its other side is here already) would pass
        // without its state and ahead of its strays (docs/decisions/0033).
        let spec = terms.spec(HoldRole::Capture);
        let (role, other) = (terms.role, terms.other);
        if role == Role::Destination
            && let Err(refusal) = endpoint
                .hold(id, spec.clone(), now)
                .and_then(|()| endpoint.lead(id))
        {
            return self.refuse(id, asked, Reason::CaptureFailed, &refusal.to_string());
        }
        self.parts
            .insert(id, Part::new(id, terms, heard, asked, now));
        self.actions.push(Action::Strays {
            hold: id,
            to: other.address,
        });
        self.actions.push(Action::Connect(other.address));
        if role == Role::Source {
            self.survey(Survey::Prepare(id), spec.matching.clone());
        }
        if let Some(function) = &self.function {
            let lists_flows = function.lists_flows && role == Role::Source;
            self.actions.push(Action::Tell(Tell::Prepare {
                handover: id,
                role: role.name(),
                matching: spec.matching.to_string(),
                except: spec.except.iter().map(Match::to_string).collect(),
                peer: other,
            }));
            if lists_flows {
                let request = self.ticket();
                self.asked_function.insert(request, id);
                let matching = spec.matching.to_string();
                self.actions
                    .push(Action::Tell(Tell::Flows { request, matching }));
            }
        }
    }

    fn terms(&self, message: &Message) -> Result<Terms, String> {
        let own = self.settings.own;
        let destination = message.destination().unwrap_or_default();
        let sources: Vec<u32> = message.sources().collect();
        let (role, instance) = match sources[..] {
            [source] if destination == own && source != own => (Role::Destination, source),
            [source] if source == own && destination != own => (Role::Source, destination),
            _ => {
                return Err(format!(
                    "a part has one source and one destination, and instance {own} is one of them"
                ));
            }
        };
        if message.handover == 0 {
            return Err("handover 0 is none; number it".to_owned());
        }
        if message.downstream_match().is_some() {
            return Err("address translation is not supported yet; leave it out".to_owned());
        }
        let peer = message
            .peers()
            .find(|peer| peer.instance == instance)
            .ok_or_else(|| {
                format!("the address of instance {instance} is missing; name its peer")
            })?;
        let sides = message.side().map(|side| vec![translate::to_side(side)]);
        let milliseconds = |ms: u32| u64::from(ms.max(1)) * 1_000_000;
        Ok(Terms {
            role,
            matching: *message.matching().ok_or("it has no match")?,
            except: message.overriding().unwrap_or_default().to_vec(),
            sides: sides.unwrap_or_else(|| Side::ALL.to_vec()),
            other: Other {
                instance,
                address: SocketAddr::new(peer.address, peer.port),
            },
            settling_ns: milliseconds(message.settling_ms().unwrap_or(SETTLING_MS)),
            deadline_ns: milliseconds(message.deadline_ms().unwrap_or(SETTLING_MS)),
        })
    }

    fn on_prepare_again(
        &mut self,
        endpoint: &Endpoint,
        id: HoldId,
        asked: Asked,
        message: &Message,
    ) {
        let terms = self.terms(message);
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        if terms != Ok(part.terms.clone()) {
            let why = format!("handover {id} was prepared otherwise; number this one anew");
            return self.refuse(id, asked, Reason::WrongState, &why);
        }
        part.asked = Some(asked);
        if !matches!(part.phase, Phase::Preparing | Phase::Arming) {
            self.answer(endpoint, id);
        }
    }

    fn on_freeze(&mut self, endpoint: &mut Endpoint, id: HoldId, asked: Asked, now: u64) {
        match self.freeze(endpoint, id, now) {
            Ok(true) => self.acknowledge(id, asked, Flags::NONE, None),
            Ok(false) => self.refuse_state(id, asked),
            Err(why) => self.refuse(id, asked, Reason::CaptureFailed, &why),
        }
    }

    /// Put the hold of strays in force. False where the part cannot be frozen.
    pub(super) fn freeze(
        &mut self,
        endpoint: &mut Endpoint,
        id: HoldId,
        now: u64,
    ) -> Result<bool, String> {
        let Some(part) = self.parts.get(&id) else {
            return Ok(false);
        };
        if part.phase == Phase::Prepared {
            let spec = part.terms.spec(HoldRole::Stray);
            endpoint
                .hold(id, spec, now)
                .and_then(|()| endpoint.lead(id))
                .map_err(|refusal| refusal.to_string())?;
        }
        Ok(self.fire(endpoint, id, Event::Freeze, now))
    }

    fn on_commit(&mut self, endpoint: &mut Endpoint, id: HoldId, asked: Asked, now: u64) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        part.repeats.end(Topic::Imported);
        let (source, flags) = (part.terms.role == Role::Source, part.flags);
        let done = self.fire(endpoint, id, Event::Commit, now);
        match (source, done) {
            (true, true) => self.acknowledge(id, asked, flags, None),
            (true, false) => self.refuse_state(id, asked),
            (false, _) => {} // it is itself an answer
        }
    }

    fn on_release(
        &mut self,
        endpoint: &mut Endpoint,
        id: HoldId,
        asked: Asked,
        message: &Message,
        now: u64,
    ) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        part.repeats.end(Topic::Plea);
        if !part.phase.takes() {
            part.asked = Some(asked);
            if part.phase == Phase::Releasing {
                return self.acknowledge(id, asked, Flags::NONE, None);
            }
            if !self.fire(endpoint, id, Event::Release, now) {
                self.refuse_state(id, asked);
            }
            return;
        }
        let forced =
            message.flags.contains(Flags::UNFENCED) || message.flags.contains(Flags::STATE_LOST);
        if !forced || matches!(part.phase, Phase::Arming) {
            return self.refuse_state(id, asked);
        }
        let side = message.side().map(translate::to_side);
        let unfenced = message.flags.contains(Flags::UNFENCED);
        // A stray that comes after what is let go now would be overtaken. Without a controller it is
        // otherwise: then all packets of a flow may come as strays, by the other instance.
        let late = (unfenced && !part.is_fenced()).then_some(part.other().instance);
        self.acknowledge(id, asked, Flags::NONE, None);
        self.actions.extend(late.map(Action::HangUp));
        let stateless = message.flags.contains(Flags::STATE_LOST);
        self.force(endpoint, id, unfenced.then_some(side), stateless, now);
    }

    fn on_abort(
        &mut self,
        endpoint: &mut Endpoint,
        id: HoldId,
        asked: Asked,
        message: &Message,
        now: u64,
    ) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        part.repeats.end(Topic::Plea);
        let turned = message.flags.contains(Flags::TURNED);
        if turned && message.flags.contains(Flags::STATE_LOST) {
            return self.on_discard(endpoint, id, asked, message, now);
        }
        let event = if turned {
            Event::Handback
        } else {
            Event::Abort
        };
        if super::table::transition(part.phase, event).is_none() {
            return self.refuse_state(id, asked);
        }
        // What strayed at the source before it took the flows back may still be on the stream, and
        // comes before all that was captured here. The promise is enough: from now on nothing is
        // imported, so the controller may fence the source and turn the switches back.
        if event == Event::Handback && part.terms.role == Role::Destination {
            part.promised = true;
            let forced = message.flags.contains(Flags::UNFENCED);
            if part.error.is_none() && (forced || part.is_fenced()) {
                part.error = message.error().cloned();
            }
            self.acknowledge(id, asked, Flags::NONE, None);
            self.recall(endpoint, id, now);
            if forced {
                self.give_back_anyway(endpoint, id, now);
            } else {
                self.give_back_as_promised(endpoint, id, now);
            }
            return;
        }
        if part.error.is_none() {
            part.error = message.error().cloned();
        }
        part.called_off = true;
        if !turned {
            part.asked = Some(asked);
        }
        self.fire(endpoint, id, event, now);
        if turned {
            self.acknowledge(id, asked, Flags::NONE, None);
        }
    }

    /// The part is over, and the flows are at the other end: nothing here is for anybody any more.
    fn on_discard(
        &mut self,
        endpoint: &mut Endpoint,
        id: HoldId,
        asked: Asked,
        message: &Message,
        now: u64,
    ) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        let event = match part.phase {
            Phase::Preparing | Phase::Prepared | Phase::Arming => Event::Abort,
            phase if phase.gives() => Event::Release,
            _ => Event::Discard,
        };
        if super::table::transition(part.phase, event).is_none() {
            return self.refuse_state(id, asked);
        }
        if part.error.is_none() {
            part.error = message.error().cloned();
        }
        part.asked = None;
        self.acknowledge(id, asked, Flags::NONE, None);
        self.fire(endpoint, id, event, now);
    }

    /// The destination has had all that strayed at the source: it gives back, if it has promised.
    pub(super) fn give_back_as_promised(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        let ready = |part: &&mut Part| part.is_fenced() && !part.unlisted.is_recalled();
        let Some(part) = self.parts.get_mut(&id).filter(ready) else {
            return;
        };
        if std::mem::take(&mut part.promised) {
            part.called_off = true;
            self.fire(endpoint, id, Event::Handback, now);
        }
    }
}
