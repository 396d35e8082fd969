//! What is said to the controller unasked, and said again until it is heard.

use flowferry_wire::{Command, Flags, Reason, Report, Tlv};

use super::repeat::Topic;
use super::{Action, Handovers, figures, translate};
use crate::endpoint::{Endpoint, HoldId};
use crate::key::Side;

impl Handovers {
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

    pub(super) fn on_half_full(&mut self, id: HoldId, now: u64) {
        let why = "the buffer is half full; raise buffer_bytes or move fewer flows at once";
        self.plead(id, Reason::BufferPressure, why, now);
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

    pub(super) fn say_plea(&mut self, id: HoldId, times: u32) {
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
}

/// A reason with a text that fits its field.
pub(super) fn report(reason: Reason, why: &str) -> Report {
    let mut text = why.to_owned();
    while text.len() > flowferry_wire::TEXT_MAX {
        text.pop();
    }
    Report { reason, text }
}
