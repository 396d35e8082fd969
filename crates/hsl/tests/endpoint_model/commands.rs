//! Commands, and which of them must be refused.

use flowferry_hsl::endpoint::{Endpoint, Hold, HoldId, HoldState, Refusal, Role, Spec, State};
use flowferry_hsl::key::{Key, Parsed, Side};

use crate::checks::{covers, spec_covers};
use crate::traffic::{FLOWS, matching};
use crate::world::{Checked, World};

impl World {
    pub(super) fn hold(
        &mut self,
        id: HoldId,
        role: Role,
        of: usize,
        except: &[usize],
        sides: &[Side],
    ) -> Checked {
        let spec = Spec {
            role,
            matching: matching(of),
            except: except.iter().map(|index| matching(*index)).collect(),
            sides: sides.to_vec(),
        };
        let beside: Vec<&Hold> = self
            .endpoint
            .holds()
            .filter(|other| other.state == HoldState::Holding)
            .filter(|other| other.spec.sides.iter().any(|side| sides.contains(side)))
            .collect();
        let fresh = !sides.is_empty() && self.endpoint.holds().all(|other| other.id != id);
        let apart = beside
            .iter()
            .all(|other| !other.spec.matching.overlaps(&spec.matching));
        let claimed_twice = beside.iter().any(|other| {
            FLOWS.iter().any(|flow| {
                let packet = flow.parsed(Side::Upstream);
                spec_covers(&other.spec, &packet) && spec_covers(&spec, &packet)
            })
        });
        let confused = beside.iter().any(|other| {
            let mut freed = self.freed.iter().filter(|(id, _)| *id == other.id);
            freed.any(|(_, key)| sides.contains(&key.side()) && may_name(&spec, key))
        });
        let time = self.time;
        if fresh && !claimed_twice && (!apart || confused) {
            // Whether packets that are none of ours would be claimed twice, or what was let go by
            // its key would be, is the endpoint's say.
            self.collect();
            let before = self.observe();
            let refused = self.endpoint.hold(id, spec, time).is_err();
            return match refused && self.observe() != before {
                true => Err("a refused hold changed something".to_owned()),
                false => Ok(()),
            };
        }
        self.command(fresh && apart, |endpoint| endpoint.hold(id, spec, time))
    }

    pub(super) fn release_flow(&mut self, id: HoldId, flow: usize) -> Checked {
        let seen = FLOWS[flow].parsed(Side::Upstream);
        let upstream = seen.key;
        let downstream = self
            .endpoint_alias(flow)
            .unwrap_or(upstream.on(Side::Downstream));
        let Some(hold) = self.endpoint.holds().find(|hold| hold.id == id) else {
            return self.command(false, |endpoint| endpoint.release_flow(id, &seen));
        };
        let covered = covers(hold, &seen);
        let anothers = self.endpoint.holds().any(|other| {
            other.id != id && other.state == HoldState::Holding && may_name(&other.spec, &upstream)
        });
        // Taken before it was known by whose headers it goes.
        let here = |key| self.endpoint.state(key) != State::Passing;
        let taken = !covered && (here(&upstream) || here(&downstream));
        if anothers || taken {
            return Ok(()); // the key, free of direction, does not tell whose it is
        }
        let sides = hold.spec.sides.clone();
        let legal = hold.state == HoldState::Holding && covered;
        self.command(legal, |endpoint| endpoint.release_flow(id, &seen))?;
        if legal {
            for side in sides {
                let key = if side == Side::Upstream {
                    upstream
                } else {
                    downstream
                };
                self.freed.insert((id, key));
            }
        }
        Ok(())
    }

    pub(super) fn release_side(&mut self, id: HoldId, flow: usize, side: Side) -> Checked {
        let upstream = FLOWS[flow].key(Side::Upstream);
        let key = match side {
            Side::Upstream => upstream,
            Side::Downstream => self
                .endpoint_alias(flow)
                .unwrap_or(upstream.on(Side::Downstream)),
        };
        let before = self.observe();
        match self.endpoint.release_side(id, key) {
            Ok(()) => {
                self.freed.insert((id, key));
                // Held by itself from now on, although it may have been served here before.
                let other = match side {
                    Side::Upstream => self
                        .endpoint_alias(flow)
                        .unwrap_or(upstream.on(Side::Downstream)),
                    Side::Downstream => upstream,
                };
                if !self.freed.contains(&(id, other)) {
                    self.muddled.insert(other);
                }
            }
            Err(_) if self.observe() == before => {}
            Err(refusal) => return Err(format!("a refusal changed something: {refusal}")),
        }
        Ok(())
    }

    pub(super) fn endpoint_alias(&self, flow: usize) -> Option<Key> {
        self.aliases
            .iter()
            .find(|(_, of)| **of == flow)
            .map(|(key, _)| *key)
    }

    pub(super) fn alias(&mut self, flow: usize) {
        let (upstream, downstream) = (
            FLOWS[flow].key(Side::Upstream),
            FLOWS[flow].key(Side::Downstream),
        );
        if !FLOWS[flow].is_translated() {
            return;
        }
        let named = [upstream, upstream.on(Side::Downstream)];
        let freed: Vec<HoldId> = self
            .freed
            .iter()
            .filter(|(_, key)| named.contains(key))
            .map(|(id, _)| *id)
            .collect();
        self.freed
            .extend(freed.into_iter().map(|id| (id, downstream)));
        self.endpoint.set_alias(
            FLOWS[flow].parsed(Side::Upstream),
            FLOWS[flow].parsed(Side::Downstream),
        );
        self.aliases.insert(downstream, flow);
    }

    pub(super) fn unalias(&mut self, flow: usize) {
        self.endpoint.drop_alias(&FLOWS[flow].key(Side::Upstream));
        let downstream = FLOWS[flow].key(Side::Downstream);
        if self.aliases.remove(&downstream).is_some() {
            self.muddled.insert(downstream);
        }
    }

    /// A command that must be accepted if it is `legal`, and change nothing if it is not.
    pub(super) fn command(
        &mut self,
        legal: bool,
        command: impl FnOnce(&mut Endpoint) -> Result<(), Refusal>,
    ) -> Checked {
        self.collect();
        let before = self.observe();
        match (legal, command(&mut self.endpoint)) {
            (true, Err(refusal)) => Err(format!("refused a legal command: {refusal}")),
            (false, Ok(())) => Err("accepted an illegal command".to_owned()),
            (true, Ok(())) => Ok(()),
            (false, Err(_)) => {
                let (after, actions) = (self.observe(), self.endpoint.take_actions());
                if after == before && actions.is_empty() {
                    Ok(())
                } else {
                    Err(format!(
                        "a refused command changed {before} to {after}, {actions:?}"
                    ))
                }
            }
        }
    }
}

/// Whether a hold may be for this flow, in one of its directions.
fn may_name(spec: &Spec, flow: &Key) -> bool {
    let mut directions = [false, true].into_iter();
    directions.any(|swapped| spec_covers(spec, &Parsed::flow(*flow, swapped)))
}
