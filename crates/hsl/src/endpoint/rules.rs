//! Which flows each hold claims, and the rules that say so to the programs.
//!
//! A hold claims what it matches and does not except. The claims of two holds are apart on every
//! side, but their matches may overlap: parts of one handover, and holds of rules of different
//! priority, except each other. The programs take the first rule that matches, so a hold stands
//! in front of every other one whose excepts would hide some of its claim.

use super::{Action, Endpoint, Hold, HoldId, HoldState, Refusal, Spec, Treatment};
use crate::key::{Key, Side};
use crate::matching::Match;

/// Pieces that the search for a packet outside of all excepts may cut. It needs a few for each
/// except; a search that needs more counts as having found one.
const PIECES: usize = 10_000;

impl Endpoint {
    /// Whether a hold of `spec` could be in force beside the others.
    pub(super) fn find_room_between(&self, spec: &Spec) -> Result<(), Refusal> {
        let beside = self.holds.values().filter(|other| {
            other.state == HoldState::Holding
                && other
                    .spec
                    .sides
                    .iter()
                    .any(|side| spec.sides.contains(side))
        });
        for other in beside {
            if claims_meet(spec, &other.spec) || self.lets_go(other, spec) {
                return Err(Refusal::Overlap {
                    new: spec.matching.to_string(),
                    old: other.spec.matching.to_string(),
                    hold: other.id,
                });
            }
            if hides(spec, &other.spec) && hides(&other.spec, spec) {
                return Err(Refusal::Interleaved {
                    new: spec.matching.to_string(),
                    hold: other.id,
                });
            }
        }
        Ok(())
    }

    /// Whether `hold` has let a flow go by itself that may be the other's: it is passed by its key,
    /// which has no direction, ahead of all rules.
    fn lets_go(&self, hold: &Hold, other: &Spec) -> bool {
        let treated = self.treated.get(&hold.id).into_iter().flatten();
        let mut passed = treated
            .filter(|(key, treatment)| **treatment == Treatment::Pass && self.is_plain(key))
            .map(|(key, _)| key);
        passed.any(|key| other.sides.contains(&key.side()) && other.may_name(key))
    }

    /// Not the downstream face of a translated flow, whose own headers say nothing.
    fn is_plain(&self, key: &Key) -> bool {
        !self.aliased.contains_key(key)
    }

    pub(super) fn publish_rules(&mut self) {
        for side in Side::ALL {
            let holding = self
                .holds
                .values()
                .filter(|hold| hold.state == HoldState::Holding && hold.spec.sides.contains(&side));
            let mut rules = Vec::new();
            for hold in in_order(holding.collect()) {
                let spec = &hold.spec;
                // Cut down to the hold's own match: what else they cover may be another hold's.
                let except = spec.except.iter().filter_map(|it| spec.matching.and(it));
                rules.extend(except.map(|except| (except, Treatment::Pass)));
                rules.push((spec.matching.clone(), spec.role.treatment()));
            }
            self.actions.push(Action::Rules(side, rules));
        }
    }
}

/// Nothing that stands in front of a hold hides some of its claim. Where holds hide each other in
/// a ring, which no order of priorities brings about, the oldest is in front.
fn in_order(mut waiting: Vec<&Hold>) -> Vec<&Hold> {
    let mut ordered: Vec<&Hold> = Vec::new();
    while !waiting.is_empty() {
        let hides_none = |hold: &&Hold| {
            let others = waiting.iter().filter(|other| other.id != hold.id);
            others
                .into_iter()
                .all(|other| !hides(&hold.spec, &other.spec))
        };
        let next: HoldId = waiting
            .iter()
            .find(|hold| hides_none(hold))
            .map_or(waiting[0].id, |hold| hold.id);
        let at = waiting
            .iter()
            .position(|hold| hold.id == next)
            .expect("it is one of them");
        ordered.push(waiting.remove(at));
    }
    ordered
}

/// Whether some packet is claimed by both.
fn claims_meet(one: &Spec, other: &Spec) -> bool {
    let Some(both) = one.matching.and(&other.matching) else {
        return false;
    };
    let except: Vec<&Match> = one.except.iter().chain(&other.except).collect();
    reaches_beyond(&both, &except, &mut PIECES.clone())
}

/// Whether the excepts of `front`, in front of the rules of `behind`, would let some of its packets pass.
fn hides(front: &Spec, behind: &Spec) -> bool {
    let except: Vec<&Match> = behind.except.iter().collect();
    front.except.iter().any(|hidden| {
        let hidden = front.matching.and(hidden);
        hidden
            .and_then(|hidden| hidden.and(&behind.matching))
            .is_some_and(|hidden| reaches_beyond(&hidden, &except, &mut PIECES.clone()))
    })
}

/// Whether some packet of `piece` belongs to none of `except`: cut what the first one leaves of
/// it into disjoint pieces, bit by bit, and look whether the others cover these.
fn reaches_beyond(piece: &Match, except: &[&Match], pieces: &mut usize) -> bool {
    let Some(at) = except.iter().position(|except| piece.overlaps(except)) else {
        return true;
    };
    if *pieces == 0 {
        return true;
    }
    *pieces -= 1;
    piece
        .without(except[at])
        .any(|rest| reaches_beyond(&rest, &except[at + 1..], pieces))
}
