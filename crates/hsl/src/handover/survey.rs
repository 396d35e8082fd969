//! Which flows are served here: asked of the shell's accounting when it is needed.

use flowferry_wire::Tlv;

use super::function::Tell;
use super::{Action, Handovers, Phase, Survey, covered, translate};
use crate::endpoint::{Endpoint, HoldId, Role as HoldRole};
use crate::key::{Key, Parsed};
use crate::matching::Match;

impl Handovers {
    pub(super) fn survey(&mut self, survey: Survey, matching: Match) {
        let ticket = self.ticket();
        self.surveys.insert(ticket, survey);
        self.actions.push(Action::Survey { ticket, matching });
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

    pub(super) fn on_surveyed_for_export(
        &mut self,
        endpoint: &Endpoint,
        id: HoldId,
        served: &[Parsed],
    ) {
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
}
