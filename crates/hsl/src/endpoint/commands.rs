//! Commands: holds begin, are released or aborted; aliases come and go.

use super::{
    Action, Awaited, Endpoint, Event, Figures, Hold, HoldId, HoldState, Notice, RULES_PER_SIDE,
    Refusal, Role, Spec, State, Treatment,
};
use crate::key::{Key, Parsed, Side};

impl Endpoint {
    /// Say that a flow has other headers downstream than upstream (NAT). A downstream key stands
    /// for one flow, the one named last. Both read from upstream: source first, as matches do.
    pub fn set_alias(&mut self, upstream: Parsed, downstream: Parsed) {
        let (upstream, downstream) = (upstream.on(Side::Upstream), downstream.on(Side::Downstream));
        if self.aliases.get(&upstream.key) == Some(&downstream) {
            return;
        }
        self.drop_alias(&upstream.key);
        if let Some(other) = self.aliased.insert(downstream.key, upstream) {
            self.aliases.remove(&other.key);
        }
        self.aliases.insert(upstream.key, downstream);
        self.treat_anew(downstream, true);
    }

    /// Take an alias back. What a hold has taken under it stays in that hold's hands.
    pub fn drop_alias(&mut self, upstream: &Key) {
        if let Some(downstream) = self.aliases.remove(&upstream.on(Side::Upstream)) {
            self.aliased.remove(&downstream.key);
            self.treat_anew(downstream, true);
        }
    }

    /// Rules see a flow's own headers, holds go by its upstream ones. Where these differ, the flow
    /// is treated by itself: as the hold that names it wants, or passed if only rules match it.
    /// `changed`: what was let go by this key until now may have been another flow.
    fn treat_anew(&mut self, alias: Parsed, changed: bool) {
        let downstream = alias.key;
        let upstream = self.aliased.get(&downstream).copied();
        let mut holding = self.holds.values().filter(|hold| {
            hold.state == HoldState::Holding && hold.spec.sides.contains(&Side::Downstream)
        });
        let owner = upstream.and_then(|upstream| {
            let owner = holding.clone().find(|hold| hold.spec.covers(&upstream))?;
            let freed = [upstream.key, upstream.key.on(Side::Downstream)]
                .iter()
                .any(|key| self.is_freed(owner.id, key))
                || !changed && self.is_freed(owner.id, &downstream);
            Some((owner.id, owner.spec.role, freed))
        });
        let by_rule = upstream.and_then(|_| holding.find(|hold| hold.spec.covers(&alias)));
        let by_rule = by_rule.map(|hold| hold.id);
        let held = matches!(self.state(&downstream), State::Held | State::Straying);
        if owner.is_none() && held {
            return;
        }
        let mut treated = false;
        for flows in self.treated.values_mut() {
            let stays = upstream.is_none() && flows.get(&downstream) == Some(&Treatment::Pass);
            treated |= !stays && flows.remove(&downstream).is_some();
        }
        match (owner, by_rule) {
            (Some((id, _, true)), _) => {
                if held {
                    self.assign(downstream, id);
                    self.step(downstream, Event::Release)
                        .expect("any flow can be released");
                }
                self.treat(id, downstream, Treatment::Pass);
            }
            (None, Some(id)) => self.treat(id, downstream, Treatment::Pass),
            (Some((id, role, false)), _) => {
                self.treat(id, downstream, role.treatment());
                if self.flows.contains_key(&downstream) {
                    self.assign(downstream, id);
                    self.step(downstream, role.event())
                        .expect("any flow can be taken");
                }
            }
            (None, None) if treated => {
                self.actions.push(Action::Flow(downstream, None));
            }
            (None, None) => {}
        }
    }

    /// Hold `id` lasts, but this flow side was let go.
    pub(super) fn is_freed(&self, id: HoldId, key: &Key) -> bool {
        self.treated.get(&id).and_then(|flows| flows.get(key)) == Some(&Treatment::Pass)
    }

    pub(super) fn treat(&mut self, id: HoldId, key: Key, treatment: Treatment) {
        self.treated.entry(id).or_default().insert(key, treatment);
        self.actions.push(Action::Flow(key, Some(treatment)));
    }

    pub(super) fn untreat(&mut self, id: HoldId) {
        for key in self.treated.remove(&id).unwrap_or_default().into_keys() {
            self.actions.push(Action::Flow(key, None));
            let alias = self.aliased.get(&key).map(|flow| self.aliases[&flow.key]);
            if let Some(alias) = alias {
                self.treat_anew(alias, false); // another hold's rule may match it
            }
        }
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
        self.find_room_between(&spec)?;
        let needed = holding()
            .map(|hold| 1 + hold.spec.except.len())
            .sum::<usize>();
        let needed = needed + 1 + spec.except.len();
        if needed > RULES_PER_SIDE {
            return Err(Refusal::TooManyRules { needed });
        }
        let role = spec.role;
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
            told_half_full: false,
            led: false,
            awaited: Awaited::All,
        };
        // Flows still on their way out of an earlier hold are taken at once.
        let packets = self.flows.iter().map(|(key, flow)| flow.packet(key));
        let taken: Vec<Key> = packets
            .filter(|packet| self.takes(&hold, packet))
            .map(|packet| packet.key)
            .collect();
        let concerned = |alias: &&Parsed| {
            hold.spec.covers(&self.aliased[&alias.key]) || hold.spec.covers(alias)
        };
        let aliases: Vec<Parsed> = self.aliases.values().filter(concerned).copied().collect();
        self.holds.insert(id, hold);
        for alias in aliases {
            self.treat_anew(alias, false);
        }
        self.publish_rules();
        for key in taken {
            self.assign(key, id);
            self.step(key, role.event()).expect("any flow can be taken");
        }
        self.notice_hold(id);
        Ok(())
    }

    /// Whether `hold` is for the flow side of this packet, by the flow's upstream headers.
    pub(super) fn takes(&self, hold: &Hold, packet: &Parsed) -> bool {
        hold.spec.sides.contains(&packet.key.side()) && self.covers(&hold.spec, packet)
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
        let flows: Vec<Key> = self
            .flows
            .iter()
            .filter(|(_, flow)| flow.hold == id)
            .map(|(key, _)| *key)
            .collect();
        for key in flows {
            self.step(key, Event::Release)
                .expect("any flow can be released");
        }
        self.publish_rules();
        self.untreat(id);
        self.notice_hold(id);
        Ok(())
    }

    /// Give hold `id` another role: a handover that is called off turns what was captured at the
    /// destination into strays for the source (docs/design.md §5, *abort after the turn*).
    pub fn turn(&mut self, id: HoldId, role: Role) -> Result<(), Refusal> {
        let hold = self
            .holds
            .get_mut(&id)
            .filter(|hold| hold.state == HoldState::Holding);
        let hold = hold.ok_or(Refusal::Unknown(id))?;
        hold.spec.role = role;
        hold.awaited = Awaited::All;
        self.publish_rules();
        let treated = self.treated.get(&id).into_iter().flatten();
        let treated: Vec<Key> = treated
            .filter(|(_, treatment)| **treatment != Treatment::Pass)
            .map(|(key, _)| *key)
            .collect();
        for key in treated {
            self.treat(id, key, role.treatment());
        }
        let flows: Vec<Key> = self
            .flows
            .iter()
            .filter(|(_, flow)| flow.hold == id && flow.state != State::Releasing)
            .map(|(key, _)| *key)
            .collect();
        for key in flows {
            self.step(key, role.event()).expect("any flow can be taken");
        }
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

    /// Half full: let the hold that keeps most go, in order; of strays only say so.
    pub(super) fn relieve(&mut self, now: u64) {
        let holding = self
            .holds
            .values()
            .filter(|hold| hold.state == HoldState::Holding);
        let kept = |hold: &Hold| {
            hold.figures.kept_bytes + self.sending.get(&hold.id).copied().unwrap_or(0)
        };
        if holding.clone().map(kept).sum::<usize>() <= self.budget.limit / 2 {
            return; // what is too much is on its way out already
        }
        let Some(fullest) = holding.max_by_key(|hold| kept(hold)) else {
            return;
        };
        let led = fullest.led || fullest.spec.role == Role::Stray;
        let (id, told) = (fullest.id, led && fullest.told_half_full);
        if !told {
            self.actions.push(Action::Notice(Notice::HalfFull {
                hold: id,
                used: self.budget.used(),
                limit: self.budget.limit,
            }));
        }
        if led {
            // Strays sent before are ahead of what is here, and what is armed may wait for some:
            // to let it go would be out of order. Whoever leads the handover has to call it off.
            if let Some(hold) = self.holds.get_mut(&id) {
                hold.told_half_full = true;
            }
            return;
        }
        let why = format!(
            "the buffer of {} bytes was half full; raise `buffer_bytes` or move fewer flows at once",
            self.budget.limit
        );
        self.abort(id, &why, now).expect("the hold is in force");
    }
}
