//! Records of other agents, and the streams they come on.

use std::net::SocketAddr;

use flowferry_wire::{Flags, Reason};

use super::part::{Role, State};
use super::record::{FINAL, Record};
use super::repeat::Topic;
use super::report::report;
use super::{Action, Event, Handovers, Phase, Purpose, translate};
use crate::endpoint::{Endpoint, HoldId};

impl Handovers {
    pub(super) fn on_record(
        &mut self,
        endpoint: &mut Endpoint,
        from: u32,
        record: Record,
        now: u64,
    ) {
        let id = record.handover();
        let Some(part) = self
            .parts
            .get_mut(&id)
            .filter(|part| part.other().instance == from)
        else {
            self.unexpected += 1;
            return;
        };
        match (part.terms.role, record) {
            (
                _,
                Record::Fenced {
                    side,
                    round,
                    unfenced,
                    ..
                },
            ) if part.phase.takes() => {
                if unfenced {
                    part.flags = part.flags | Flags::UNFENCED;
                }
                let next = part.rounds[side.index()].fence(round, now);
                if part.rounds[side.index()].under_way().is_none() {
                    part.repeats.end(Topic::Seen(side));
                }
                if next {
                    self.ask(endpoint, id, side, now);
                }
                self.give_back_as_promised(endpoint, id, now);
                self.let_go_fenced(endpoint, id, now);
            }
            (
                Role::Destination,
                Record::List {
                    flows, more, whole, ..
                },
            ) => {
                if std::mem::replace(&mut part.list_over, !more) {
                    part.flows.clear();
                }
                part.list(flows.iter().map(translate::from_directed));
                if whole && !more {
                    self.await_listed(endpoint, id);
                }
            }
            (Role::Source, Record::List { flows, .. }) => {
                part.unlisted
                    .given(flows.iter().map(translate::from_directed));
            }
            (Role::Source, Record::State { .. }) => part.unlisted.come_back(),
            (
                Role::Destination,
                Record::State {
                    present,
                    unproven,
                    bytes,
                    ..
                },
            ) => {
                if part.phase != Phase::Armed || part.promised {
                    return; // given up, or told twice
                }
                part.state = Some(State { present, bytes });
                if unproven {
                    part.flags = part.flags | Flags::DRAIN_UNPROVEN;
                }
                self.fire(endpoint, id, Event::StateEnd, now);
            }
            (_, Record::Finish { .. }) => self.on_finish(endpoint, id, now),
            (Role::Source, Record::Return { .. }) => {
                // Without the controller's word, too: the destination will not import any more.
                part.called_off = true;
                if part.phase.gives() {
                    self.fire(endpoint, id, Event::Handback, now);
                }
                self.take_back(endpoint, id, now);
            }
            (Role::Source, Record::Cancel { .. }) => {
                part.called_off = true;
                part.asked = None;
                self.fire(endpoint, id, Event::Abort, now);
            }
            _ => self.unexpected += 1,
        }
    }

    /// The other agent waits no longer for the controller: freeze, and fence by a flush alone.
    fn on_finish(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        if self.phase(id) == Some(Phase::Prepared)
            && let Err(why) = self.freeze(endpoint, id, now)
        {
            return self.plead(id, Reason::CaptureFailed, &why, now);
        }
        let Some(part) = self.parts.get_mut(&id).filter(|part| part.phase.gives()) else {
            return;
        };
        part.flags = part.flags | Flags::UNFENCED;
        let sides = part.terms.sides.clone();
        for side in sides {
            let purpose = Purpose::Finish { handover: id };
            self.actions.push(Action::Flush { side, purpose });
        }
    }

    pub(super) fn on_connected(&mut self, endpoint: &mut Endpoint, peer: SocketAddr, now: u64) {
        let waiting = self.parts_with(peer);
        for id in waiting {
            if let Some(part) = self.parts.get_mut(&id) {
                part.connected = true;
            }
            self.ready(endpoint, id, now);
        }
    }

    pub(super) fn on_unreachable(
        &mut self,
        endpoint: &mut Endpoint,
        peer: SocketAddr,
        why: &str,
        now: u64,
    ) {
        for id in self.parts_with(peer) {
            let Some(part) = self.parts.get_mut(&id) else {
                continue;
            };
            part.connected = false;
            if part.unlisted.is_cut_short() {
                part.flags = part.flags | Flags::STATE_LOST;
            }
            let instance = part.other().instance;
            let why = format!("no stream to instance {instance} at {peer}: {why}");
            if matches!(part.phase, Phase::Preparing | Phase::Arming) {
                part.error = Some(report(Reason::PeerUnreachable, &why));
                self.fire(endpoint, id, Event::Fail, now);
            } else if part.phase.gives() || part.phase.takes() {
                self.plead(id, Reason::PeerUnreachable, &why, now);
            }
        }
    }

    /// Which instance is to be found at `peer`, as the latest part that names it says.
    pub fn instance_at(&self, peer: SocketAddr) -> Option<u32> {
        let mut others = self.parts.values().rev().map(super::Part::other);
        others
            .find(|other| other.address == peer)
            .map(|other| other.instance)
    }

    fn parts_with(&self, peer: SocketAddr) -> Vec<HoldId> {
        let with = |part: &&super::Part| part.other().address == peer;
        self.parts
            .values()
            .filter(with)
            .map(|part| part.id)
            .collect()
    }

    /// What a taking part waits for cannot come any more.
    pub(super) fn on_gone(&mut self, from: u32, now: u64) {
        let waits = |part: &&super::Part| part.other().instance == from && part.phase.takes();
        let waiting: Vec<HoldId> = self
            .parts
            .values()
            .filter(waits)
            .map(|part| part.id)
            .collect();
        for id in waiting {
            let why = format!("the stream from instance {from} has ended");
            self.plead(id, Reason::PeerUnreachable, &why, now);
        }
    }

    /// The controller has not been heard of for three settling times, `times` over.
    pub(super) fn on_silence(&mut self, endpoint: &mut Endpoint, id: HoldId, times: u64, now: u64) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        let idle = part.seen.is_empty()
            && part.state.is_none()
            && !part.rounds.iter().any(|it| it.is_final());
        let came = endpoint
            .holds()
            .any(|hold| hold.id == id && hold.figures.followed_packets > 0);
        match (part.phase, times) {
            (Phase::Armed, 1) if idle && !came => {
                part.called_off = true;
                part.asked = None;
                part.error = Some(report(
                    Reason::DeadlinePassed,
                    "the controller has fallen silent before anything turned",
                ));
                self.record(endpoint, id, Record::Cancel { handover: id });
                self.fire(endpoint, id, Event::Abort, now);
            }
            (phase, 1) if phase.takes() => {
                self.record(endpoint, id, Record::Finish { handover: id });
            }
            (phase, 2) if phase.takes() => {
                let stateless = !phase.has_state();
                self.force(endpoint, id, Some(None), stateless, now);
            }
            (Phase::Prepared, 2) => {
                part.called_off = true;
                part.asked = None;
                self.fire(endpoint, id, Event::Abort, now);
            }
            (phase, 3..) if phase.gives() || phase == Phase::Released => {
                part.asked = None;
                self.fire(endpoint, id, Event::Release, now);
            }
            _ => {}
        }
    }

    /// Whether a record fences every flow of its side.
    pub fn is_final(round: u32) -> bool {
        round == FINAL
    }
}
