//! What happens because time has passed.

use flowferry_wire::Reason;

use super::part::Part;
use super::report::report;
use super::rounds::Rounds;
use super::{Event, Handovers, Phase};
use crate::endpoint::{Endpoint, HoldId};

/// So many settling times without a word mean that the controller is gone.
const SILENCE: u64 = 3;

impl Part {
    fn silence_ns(&self) -> u64 {
        SILENCE * self.terms.settling_ns
    }

    /// When something is due at the latest.
    pub(super) fn next_due(&self) -> Option<u64> {
        let silence = self.last_word_ns + (self.silences + 1) * self.silence_ns();
        let reminder = self.named_ns + self.silence_ns();
        let rounds = self.rounds.iter().filter_map(Rounds::next_due);
        [self.due_ns, self.quiet_until_ns, self.repeats.next_due()]
            .into_iter()
            .flatten()
            .chain(rounds)
            .chain([silence, reminder])
            .min()
    }
}

impl Handovers {
    pub(super) fn on_tick(&mut self, endpoint: &mut Endpoint, now: u64) {
        for id in self.parts.keys().copied().collect::<Vec<_>>() {
            self.end_quiet_time(endpoint, id, now);
            self.pass_deadline(endpoint, id, now);
            self.begin_rounds(endpoint, id, now);
            self.repeat(endpoint, id, now);
            self.remind(endpoint, id, now);
            self.notice_silence(endpoint, id, now);
        }
    }

    fn end_quiet_time(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        if part.quiet_until_ns.take_if(|until| *until <= now).is_some() {
            self.drained(endpoint, id, now);
        }
    }

    fn pass_deadline(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        if part.due_ns.take_if(|due| *due <= now).is_none() {
            return;
        }
        if part.unlisted.drains() || part.unlisted.returns() {
            let why = "the function did not give or take the state of new flows in time";
            return self.fail_to_return(endpoint, id, why, now);
        }
        match part.phase {
            Phase::Preparing | Phase::Arming => {
                let why = match part.connected {
                    true => "the flows were not listed in time",
                    false => "no stream to the other instance in time; look at its agent",
                };
                part.error = Some(report(Reason::DeadlinePassed, why));
                self.fire(endpoint, id, Event::Fail, now);
            }
            Phase::Exporting => {
                let why = "the function did not give its state in time";
                self.plead(id, Reason::ExportFailed, why, now);
            }
            Phase::Importing => {
                let why = "the function did not take the state in time";
                self.plead(id, Reason::ImportFailed, why, now);
            }
            Phase::Discarding => {
                self.fire(endpoint, id, Event::Release, now);
            }
            _ => {}
        }
    }

    /// A controller that asks only for heartbeats may have ended the part without us: it had taken us
    /// for dead, or its last word was lost. Say where the part is; the answer is where it belongs.
    fn remind(&mut self, endpoint: &Endpoint, id: HoldId, now: u64) {
        let Some(part) = self
            .parts
            .get_mut(&id)
            .filter(|part| part.named_ns + part.silence_ns() <= now)
        else {
            return;
        };
        part.named_ns = now;
        let (side, times) = (part.terms.sides[0], part.reminders);
        part.reminders += 1;
        let message = self.status(endpoint, id);
        self.send_again(side, message, times);
    }

    fn repeat(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        for (topic, times) in part.repeats.take_due(now) {
            self.say(endpoint, id, topic, times);
        }
    }

    fn notice_silence(&mut self, endpoint: &mut Endpoint, id: HoldId, now: u64) {
        let Some(part) = self.parts.get_mut(&id) else {
            return;
        };
        let silences = now.saturating_sub(part.last_word_ns) / part.silence_ns();
        while let Some(part) = self
            .parts
            .get_mut(&id)
            .filter(|part| part.silences < silences)
        {
            part.silences += 1;
            let times = part.silences;
            self.on_silence(endpoint, id, times, now);
        }
    }
}
