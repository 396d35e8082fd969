//! Answers to the controller: a command that comes again gets the answer it had.

use flowferry_wire::{Command, Counts, Flags, InReplyTo, Message, Reason, Tlv};

use super::part::Asked;
use super::report::report;
use super::{Action, Handovers, Phase, Survey, figures, translate};
use crate::endpoint::{Endpoint, HoldId, Role as HoldRole, Spec};
use crate::key::Side;
use crate::matching::Match;

impl Handovers {
    /// The answer to the request that began what is done now.
    pub(super) fn answer(&mut self, endpoint: &Endpoint, id: HoldId) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        let Some(asked) = part.asked.take() else {
            return;
        };
        let (flags, error) = (part.flags, part.error.clone());
        let counts = Self::figures(endpoint, part);
        match asked.command {
            Command::Prepare => match error {
                Some(error) => self.refuse(id, asked, error.reason, &error.text),
                None => {
                    let flows = figures::that_fit(part.flows.iter().map(|flow| &flow.key));
                    let whole = flows.len() == part.flows.len();
                    let mut message = self
                        .message(Command::Ack, id)
                        .with(Tlv::Counts(counts))
                        .with(reply(asked));
                    if whole {
                        message = message.with(Tlv::Flows(flows));
                    }
                    self.actions.push(Action::Send {
                        side: asked.side,
                        message,
                    });
                }
            },
            Command::Abort => {
                let message = self
                    .message(Command::Aborted, id)
                    .flagged(flags)
                    .with(Tlv::Counts(counts))
                    .with(reply(asked));
                self.actions.push(Action::Send {
                    side: asked.side,
                    message,
                });
            }
            _ => self.acknowledge(id, asked, flags, Some(counts)),
        }
    }

    /// A command for a part that is over: the answer is the one it had.
    pub(super) fn on_late_command(&mut self, id: HoldId, asked: Asked) {
        let Some(ended) = self.remembered(id).cloned() else {
            return;
        };
        match (asked.command, ended.called_off) {
            (Command::Abort, true) => {
                let message = self
                    .message(Command::Aborted, id)
                    .flagged(ended.flags)
                    .with(Tlv::Counts(ended.counts))
                    .with(reply(asked));
                self.actions.push(Action::Send {
                    side: asked.side,
                    message,
                });
            }
            // To whoever took the flows it is itself an answer.
            (Command::Commit, _) if !ended.gave => {}
            (Command::Release | Command::Commit, _) => {
                self.acknowledge(id, asked, ended.flags, Some(ended.counts));
            }
            // Not WRONG_STATE: to a controller that calls it off that means that it is done.
            _ if ended.lost => {
                let why = "the agent has started over, and what it held is lost";
                self.refuse(id, asked, Reason::WrongEpoch, why);
            }
            _ => self.refuse_state(id, asked),
        }
    }

    pub(super) fn acknowledge(
        &mut self,
        id: HoldId,
        asked: Asked,
        flags: Flags,
        counts: Option<Counts>,
    ) {
        let mut message = self.message(Command::Ack, id).flagged(flags);
        if let Some(counts) = counts {
            message = message.with(Tlv::Counts(counts));
        }
        let message = message.with(reply(asked));
        self.actions.push(Action::Send {
            side: asked.side,
            message,
        });
    }

    pub(super) fn refuse_state(&mut self, id: HoldId, asked: Asked) {
        let phase = self.phase(id).map_or("unknown".to_owned(), Phase::name);
        let command = asked.command.name();
        let why = format!("handover {id} is {phase} here, where {command} means nothing");
        self.refuse(id, asked, Reason::WrongState, &why);
    }

    pub(super) fn refuse(&mut self, id: HoldId, asked: Asked, reason: Reason, why: &str) {
        self.refused += 1;
        let message = self
            .message(Command::Nack, id)
            .with(Tlv::Error(report(reason, why)))
            .with(reply(asked));
        self.actions.push(Action::Send {
            side: asked.side,
            message,
        });
    }

    pub(super) fn on_query(&mut self, endpoint: &Endpoint, asked: Asked, message: &Message) {
        let id = message.handover;
        let answer = self.status(endpoint, id).with(reply(asked));
        let side = asked.side;
        if message.flows().is_none() {
            self.actions.push(Action::Send {
                side,
                message: answer,
            });
            return;
        }
        let matching = message.matching().map(translate::to_match);
        let matching = matching.unwrap_or_else(Match::all);
        let spec = Spec {
            role: HoldRole::Capture,
            matching: matching.clone(),
            except: Vec::new(),
            sides: Side::ALL.to_vec(),
        };
        self.survey(Survey::Status { answer, side, spec }, matching);
    }

    /// Where a part is, or (0) how the agent is.
    pub(super) fn status(&self, endpoint: &Endpoint, id: HoldId) -> Message {
        let mut counts = Self::gauges(endpoint);
        if let Some(part) = self.parts.get(&id) {
            counts.extend(Self::figures(endpoint, part));
        } else if let Some(ended) = self.remembered(id) {
            counts.extend(ended.counts.clone());
        }
        let of_part = self.parts.get(&id).map(|part| part.flags);
        let flags = of_part.or_else(|| self.remembered(id).map(|ended| ended.flags));
        let mut answer = self
            .message(Command::Status, id)
            .flagged(flags.unwrap_or(Flags::NONE))
            .with(Tlv::Counts(counts))
            .with(Tlv::Epoch(self.settings.epoch))
            .with(Tlv::Name(self.settings.name.clone()));
        if id != 0 {
            let step = self.phase(id).map(Phase::name);
            answer = answer.with(Tlv::Step(step.unwrap_or_else(|| "none".to_owned())));
        }
        answer
    }
}

fn reply(asked: Asked) -> Tlv {
    Tlv::InReplyTo(InReplyTo {
        command: asked.command,
        sequence: asked.sequence,
    })
}
