//! What must be true after every step, and in the end.

use flowferry_hsl::endpoint::{Figures, Hold, HoldId, HoldState, Spec, State};
use flowferry_hsl::key::{Parsed, Side};

use crate::ledger::Place;
use crate::traffic::FLOWS;
use crate::world::{Checked, OVERHEAD, World};

impl World {
    pub(super) fn is_holding(&self, id: HoldId) -> bool {
        self.endpoint
            .holds()
            .any(|hold| hold.id == id && hold.state == HoldState::Holding)
    }

    /// Everything about the endpoint that can be seen from outside.
    pub(super) fn observe(&self) -> String {
        let endpoint = &self.endpoint;
        let keys = Side::ALL
            .iter()
            .flat_map(|side| FLOWS.iter().map(|flow| flow.key(*side)));
        let states: Vec<State> = keys.map(|key| endpoint.state(&key)).collect();
        let mut draining = endpoint.draining();
        draining.sort();
        format!(
            "{:?} {states:?} {:?} {draining:?} {:?}",
            endpoint.holds().collect::<Vec<_>>(),
            endpoint.census(),
            endpoint.budget()
        )
    }

    /// The sum over all holds there ever were.
    pub(super) fn figures(&self) -> Figures {
        self.endpoint
            .holds()
            .fold(self.archived, |sum, hold| plus(sum, &hold.figures))
    }

    pub(super) fn check(&self) -> Checked {
        let packets = self.ledger.packets().iter();
        let kept = packets.filter(|packet| packet.place == Place::Endpoint);
        let cost: usize = kept.map(|packet| packet.length + OVERHEAD).sum();
        let used = self.endpoint.budget().used();
        if used != cost || used > self.limit {
            return Err(format!(
                "{used} of {} bytes are in use, {cost} are kept",
                self.limit
            ));
        }
        let of_holds = self.figures().kept_bytes;
        if of_holds > used {
            return Err(format!(
                "the holds keep {of_holds} bytes, all together {used}"
            ));
        }
        Ok(())
    }

    pub(super) fn check_end(&self) -> Checked {
        let undecided = self.ledger.undecided();
        if !undecided.is_empty() {
            let places = undecided
                .iter()
                .map(|at| (at, self.ledger.packets()[*at].place));
            return Err(format!(
                "packets are nowhere: {:?}",
                places.collect::<Vec<_>>()
            ));
        }
        if !self.endpoint.is_idle() || self.endpoint.budget().used() != 0 {
            return Err(format!("no end is in sight: {}", self.observe()));
        }
        if let Some(left) = self.kernel.leftovers() {
            return Err(format!("the programs were left with {left}"));
        }
        self.check_figures()
    }

    pub(super) fn check_figures(&self) -> Checked {
        let figures = self.figures();
        let packets = || {
            self.ledger
                .packets()
                .iter()
                .filter(|packet| packet.attributed)
        };
        let number = |place| packets().filter(|packet| packet.place == place).count() as u64;
        let taken = figures.captured_packets + figures.followed_packets;
        let gone = figures.released_packets + figures.stray_packets + figures.lost_packets;
        let lost = number(Place::Lost);
        let fits = taken == packets().count() as u64
            && figures.kept_bytes == 0
            && gone >= taken
            && (self.discarded
                || figures.stray_packets == number(Place::SentOn)
                    && figures.released_packets >= number(Place::Delivered)
                    && figures.released_packets <= number(Place::Delivered) + lost
                    && figures.lost_packets >= lost);
        if fits {
            Ok(())
        } else {
            Err(format!(
                "the figures do not add up: {figures:?}, lost {lost}"
            ))
        }
    }
}

pub fn covers(hold: &Hold, packet: &Parsed) -> bool {
    spec_covers(&hold.spec, packet)
}

pub fn spec_covers(spec: &Spec, packet: &Parsed) -> bool {
    spec.matching.covers(packet) && !spec.except.iter().any(|except| except.covers(packet))
}

pub fn plus(sum: Figures, other: &Figures) -> Figures {
    Figures {
        captured_packets: sum.captured_packets + other.captured_packets,
        kept_bytes: sum.kept_bytes + other.kept_bytes,
        followed_packets: sum.followed_packets + other.followed_packets,
        stray_packets: sum.stray_packets + other.stray_packets,
        released_packets: sum.released_packets + other.released_packets,
        lost_packets: sum.lost_packets + other.lost_packets,
        ..Figures::default()
    }
}
