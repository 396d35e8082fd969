//! What a part reports: its figures and its flows, within one frame.

use flowferry_wire::{Counter, Counts, Flow};

use super::part::{Part, Role};
use super::rounds::Rounds;
use super::{Handovers, translate};
use crate::endpoint::Endpoint;
use crate::key::Key;

/// Bytes of flows that a frame holds beside everything else.
const ROOM: usize = 1_200;

/// The flows, from the first, that fit one frame.
pub(super) fn that_fit<'a>(keys: impl IntoIterator<Item = &'a Key>) -> Vec<Flow> {
    let mut room = ROOM;
    let mut flows = Vec::new();
    for flow in keys.into_iter().filter_map(translate::to_flow) {
        let Some(left) = room.checked_sub(flow.len()) else {
            break;
        };
        room = left;
        flows.push(flow);
    }
    flows
}

impl Handovers {
    /// The figures of a part: what its hold did, and how many flows it is about.
    pub(super) fn figures(endpoint: &Endpoint, part: &Part) -> Counts {
        let flows = match part.terms.role {
            Role::Source => part.flows.len().max(part.seen.len()),
            Role::Destination => part.seen.len(),
        };
        let mut counts = Counts::from([(Counter::Flows, flows as u64)]);
        let rounds = part.rounds.iter();
        if let Some(longest) = rounds.clone().filter_map(Rounds::longest_ns).max() {
            let markers = rounds.map(|rounds| u64::from(rounds.count())).sum();
            counts.extend([
                (Counter::Markers, markers),
                (Counter::FenceUs, longest / 1_000),
            ]);
        }
        if let Some(hold) = endpoint.holds().find(|hold| hold.id == part.id) {
            let figures = &hold.figures;
            let strays = figures.stray_packets + figures.followed_packets;
            counts.extend([
                (Counter::CapturedPackets, figures.captured_packets),
                (
                    Counter::CapturedBytesPeak,
                    figures.captured_bytes_peak as u64,
                ),
                (Counter::StrayPackets, strays),
                (Counter::ReleasedPackets, figures.released_packets),
                (Counter::LostPackets, figures.lost_packets),
            ]);
        }
        counts
    }

    /// How full the buffer is.
    pub(super) fn gauges(endpoint: &Endpoint) -> Counts {
        let budget = endpoint.budget();
        Counts::from([
            (Counter::BufferBytes, budget.used() as u64),
            (Counter::BufferLimitBytes, budget.limit as u64),
        ])
    }
}
