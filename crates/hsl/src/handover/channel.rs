//! The control channel to the function: what it is told, and what it says.

use flowferry_wire::{Reason, Report};

use super::function::{Answer, Tell};
use super::part::{Part, State};
use super::{Action, Event, Handovers, Phase};
use crate::endpoint::{Endpoint, HoldId, Role as HoldRole};

impl Handovers {
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

    pub(super) fn tell(&mut self, line: Tell) {
        if self.function.is_some() {
            self.actions.push(Action::Tell(line));
        }
    }

    pub(super) fn tell_end(&mut self, id: HoldId, why: Option<String>) {
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

    pub(super) fn tell_aborted(&mut self, id: HoldId) {
        let why = self.parts.get(&id).map(reason_of);
        self.tell_end(id, why);
    }
}

pub(super) fn reason_of(part: &Part) -> String {
    let text = |error: &Report| error.text.clone();
    part.error
        .as_ref()
        .map_or_else(|| "called off by the controller".to_owned(), text)
}
