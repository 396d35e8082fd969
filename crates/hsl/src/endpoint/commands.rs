//! Commands: holds begin, are released or aborted; aliases come and go.

use super::{
    Action, Endpoint, Event, Figures, Hold, HoldId, HoldState, Notice, RULES_PER_SIDE, Refusal,
    Role, Spec, State, Treatment,
};
use crate::key::{Key, Side};

impl Endpoint {
    /// Say that a flow has other headers downstream than upstream (NAT).
    pub fn set_alias(&mut self, upstream: Key, downstream: Key) {
        let (upstream, downstream) = (upstream.on(Side::Upstream), downstream.on(Side::Downstream));
        self.drop_alias(&upstream);
        self.aliases.insert(upstream, downstream);
        self.aliased.insert(downstream, upstream);
        for (id, treatment) in self.holding_over(&upstream) {
            self.treat(id, downstream, treatment);
        }
    }

    /// Take an alias back.
    pub fn drop_alias(&mut self, upstream: &Key) {
        if let Some(downstream) = self.aliases.remove(&upstream.on(Side::Upstream)) {
            self.aliased.remove(&downstream);
        }
    }

    fn holding_over(&self, upstream: &Key) -> Vec<(HoldId, Treatment)> {
        self.holds
            .values()
            .filter(|hold| hold.state == HoldState::Holding)
            .filter(|hold| hold.spec.sides.contains(&Side::Downstream))
            .filter(|hold| hold.spec.matching.covers_flow(upstream))
            .filter(|hold| {
                !hold
                    .spec
                    .except
                    .iter()
                    .any(|except| except.covers_flow(upstream))
            })
            .map(|hold| (hold.id, Treatment::Capture))
            .collect()
    }

    pub(super) fn treat(&mut self, id: HoldId, key: Key, treatment: Treatment) {
        self.treated.entry(id).or_default().insert(key, treatment);
        self.actions.push(Action::Flow(key, Some(treatment)));
    }

    /// Begin to hold what `spec` says.
    pub fn hold(&mut self, id: HoldId, spec: Spec, now: u64) -> Result<(), Refusal> {
        if self.holds.contains_key(&id) || id == 0 {
            return Err(Refusal::Taken(id));
        }
        if spec.sides.is_empty() {
            return Err(Refusal::NoSide);
        }
        let holding = || {
            self.holds
                .values()
                .filter(|hold| hold.state == HoldState::Holding)
        };
        if let Some(other) = holding().find(|other| {
            other.spec.matching.overlaps(&spec.matching)
                && other
                    .spec
                    .sides
                    .iter()
                    .any(|side| spec.sides.contains(side))
        }) {
            return Err(Refusal::Overlap {
                new: spec.matching.to_string(),
                old: other.spec.matching.to_string(),
                hold: other.id,
            });
        }
        let needed = holding()
            .map(|hold| 1 + hold.spec.except.len())
            .sum::<usize>();
        let needed = needed + 1 + spec.except.len();
        if needed > RULES_PER_SIDE {
            return Err(Refusal::TooManyRules { needed });
        }
        let event = if spec.role == Role::Stray {
            Event::Stray
        } else {
            Event::Capture
        };
        let figures = Figures {
            began_ns: now,
            ..Figures::default()
        };
        let hold = Hold {
            id,
            spec,
            state: HoldState::Holding,
            figures,
            error: None,
            flows_left: 0,
        };
        // Flows still on their way out of an earlier hold are taken at once.
        let taken: Vec<Key> = self
            .flows
            .keys()
            .filter(|key| self.takes(&hold, key))
            .copied()
            .collect();
        let aliases: Vec<Key> = self
            .aliases
            .iter()
            .filter(|(_, down)| self.takes(&hold, down))
            .map(|(_, down)| *down)
            .collect();
        self.holds.insert(id, hold);
        for key in taken {
            self.step(key, event)?;
            self.assign(key, id);
        }
        for key in aliases {
            self.treat(id, key, Treatment::Capture);
        }
        self.publish_rules();
        self.notice_hold(id);
        Ok(())
    }

    /// Whether `hold` is for this flow side, by the flow's upstream headers.
    pub(super) fn takes(&self, hold: &Hold, key: &Key) -> bool {
        let named = self.aliased.get(key).unwrap_or(key);
        hold.spec.sides.contains(&key.side())
            && hold.spec.matching.covers_flow(named)
            && !hold
                .spec
                .except
                .iter()
                .any(|except| except.covers_flow(named))
    }

    /// Let everything that hold `id` has go, in order.
    pub fn release(&mut self, id: HoldId, now: u64) -> Result<(), Refusal> {
        let hold = self
            .holds
            .get_mut(&id)
            .filter(|hold| hold.state == HoldState::Holding);
        let hold = hold.ok_or(Refusal::Unknown(id))?;
        hold.state = HoldState::Releasing;
        hold.figures.released_ns = now;
        self.publish_rules();
        let flows: Vec<Key> = self
            .flows
            .iter()
            .filter(|(_, flow)| flow.hold == id)
            .map(|(key, _)| *key)
            .collect();
        for key in flows {
            self.step(key, Event::Release)?;
        }
        for key in self.treated.remove(&id).unwrap_or_default().into_keys() {
            self.actions.push(Action::Flow(key, None));
        }
        self.notice_hold(id);
        Ok(())
    }

    /// Let one flow of hold `id` go on both sides while the hold lasts for the others.
    pub fn release_flow(&mut self, id: HoldId, flow: Key) -> Result<(), Refusal> {
        let hold = self
            .holds
            .get(&id)
            .filter(|hold| hold.state == HoldState::Holding);
        let sides = hold.ok_or(Refusal::Unknown(id))?.spec.sides.clone();
        for side in sides {
            let key = flow.on(side);
            let key = match side {
                Side::Upstream => key,
                Side::Downstream => *self.aliases.get(&flow.on(Side::Upstream)).unwrap_or(&key),
            };
            self.treat(id, key, Treatment::Pass);
            if self.flows.contains_key(&key) {
                self.step(key, Event::Release)?;
            }
        }
        Ok(())
    }

    /// Give hold `id` another role: a handover that is called off turns what was captured at the
    /// destination into strays for the source (DESIGN.md §5, *abort after the turn*).
    pub fn turn(&mut self, id: HoldId, role: Role) -> Result<(), Refusal> {
        let hold = self
            .holds
            .get_mut(&id)
            .filter(|hold| hold.state == HoldState::Holding);
        hold.ok_or(Refusal::Unknown(id))?.spec.role = role;
        let event = if role == Role::Stray {
            Event::Stray
        } else {
            Event::Capture
        };
        let flows: Vec<Key> = self
            .flows
            .iter()
            .filter(|(_, flow)| flow.hold == id && flow.state != State::Releasing)
            .map(|(key, _)| *key)
            .collect();
        for key in flows {
            self.step(key, event)?;
        }
        self.publish_rules();
        Ok(())
    }

    /// As [`Endpoint::release`], but the hold ends as aborted, saying `why`.
    pub fn abort(&mut self, id: HoldId, why: &str, now: u64) -> Result<(), Refusal> {
        self.release(id, now)?;
        if let Some(hold) = self.holds.get_mut(&id) {
            hold.error = Some(why.to_owned());
        }
        Ok(())
    }

    /// Half full: let the hold that keeps most go, in order.
    pub(super) fn relieve(&mut self, now: u64) {
        let holding = self
            .holds
            .values()
            .filter(|hold| hold.state == HoldState::Holding);
        let kept: usize = holding.clone().map(|hold| hold.figures.kept_bytes).sum();
        if kept <= self.budget.limit / 2 {
            return; // what is too much is on its way out already
        }
        let Some(fullest) = holding
            .max_by_key(|hold| hold.figures.kept_bytes)
            .map(|hold| hold.id)
        else {
            return;
        };
        self.actions.push(Action::Notice(Notice::HalfFull {
            hold: fullest,
            used: self.budget.used(),
            limit: self.budget.limit,
        }));
        let why = format!(
            "the buffer of {} bytes was half full; raise `buffer_bytes` or move fewer flows at once",
            self.budget.limit
        );
        self.abort(fullest, &why, now)
            .expect("the hold is in force");
    }

    pub(super) fn publish_rules(&mut self) {
        for side in Side::ALL {
            let mut rules = Vec::new();
            let holding = self
                .holds
                .values()
                .filter(|hold| hold.state == HoldState::Holding);
            for hold in holding.filter(|hold| hold.spec.sides.contains(&side)) {
                let treatment = match hold.spec.role {
                    Role::Capture | Role::Stray => Treatment::Capture,
                    Role::Arm => Treatment::Arm,
                };
                rules.extend(
                    hold.spec
                        .except
                        .iter()
                        .map(|except| (except.clone(), Treatment::Pass)),
                );
                rules.push((hold.spec.matching.clone(), treatment));
            }
            self.actions.push(Action::Rules(side, rules));
        }
    }
}
