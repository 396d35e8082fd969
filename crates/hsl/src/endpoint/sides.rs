//! Flows of a hold one by one: which have come, and which are let go while the hold lasts.

use std::collections::HashSet;

use super::{
    Action, Awaited, Endpoint, Event, Hold, HoldId, HoldState, Refusal, Role, Spec, State,
    Treatment, upstream_of,
};
use crate::key::{Key, Parsed, Side};

impl Endpoint {
    /// Somebody leads hold `id`: if the buffer fills it says so and waits to be told.
    pub fn lead(&mut self, id: HoldId) -> Result<(), Refusal> {
        let hold = self.holds.get_mut(&id).ok_or(Refusal::Unknown(id))?;
        hold.led = true;
        Ok(())
    }

    /// The state of hold `id`'s flows is here: strays go at once. They are in order among themselves
    /// and ahead of all that was captured here, so they need no fence; and a flow whose last
    /// packet strayed may not send another before it is answered.
    pub fn let_strays_go(&mut self, id: HoldId) -> Result<(), Refusal> {
        self.await_only(id, Awaited::Nobody)
    }

    /// The state of `listed` flows, seen from upstream, is still to come; that of all others of hold
    /// `id` is here, since there is none: their strays go at once.
    pub fn await_listed(&mut self, id: HoldId, listed: HashSet<Key>) -> Result<(), Refusal> {
        self.await_only(id, Awaited::These(listed))
    }

    fn await_only(&mut self, id: HoldId, awaited: Awaited) -> Result<(), Refusal> {
        let hold = self.holds.get_mut(&id).ok_or(Refusal::Unknown(id))?;
        if matches!(hold.awaited, Awaited::Nobody) {
            return Ok(());
        }
        hold.awaited = awaited;
        for (key, flow) in &mut self.flows {
            let strays = flow.hold == id && flow.queue.lengths().0 > 0;
            let waits = hold.awaited.has(&upstream_of(&self.aliased, key));
            if strays && !waits && !flow.listed {
                flow.listed = true;
                self.ready.push_back(*key);
            }
        }
        Ok(())
    }

    /// Whether a flow side of hold `id` waits for state.
    pub fn awaits(&self, id: HoldId, key: &Key) -> bool {
        let upstream = self.upstream_of(key);
        let awaits = |hold: &Hold| hold.awaited.has(&upstream);
        self.holds.get(&id).is_none_or(awaits)
    }

    /// Hold what was let go of hold `id` again: all its flows wait from now on. Which flow sides
    /// that are.
    pub fn recall(&mut self, id: HoldId) -> Result<Vec<Key>, Refusal> {
        let holding = |hold: &&mut Hold| hold.state == HoldState::Holding;
        let hold = self.holds.get_mut(&id).filter(holding);
        let hold = hold.ok_or(Refusal::Unknown(id))?;
        hold.awaited = Awaited::All;
        let event = hold.spec.role.event();
        let treated = self.treated.entry(id).or_default();
        // What has an alias may be left to itself for another reason.
        let let_go = |(key, treatment): &(&Key, &Treatment)| {
            **treatment == Treatment::Pass && !self.aliased.contains_key(key)
        };
        let recalled: Vec<Key> = treated.iter().filter(let_go).map(|(key, _)| *key).collect();
        for key in &recalled {
            treated.remove(key);
            self.actions.push(Action::Flow(*key, None));
        }
        for key in &recalled {
            if self.flows.get(key).is_some_and(|flow| flow.hold == id) {
                self.step(*key, event).expect("any flow can be taken");
            }
        }
        Ok(recalled)
    }

    /// Whether flows have other headers on the other side.
    pub fn has_aliases(&self) -> bool {
        !self.aliases.is_empty()
    }

    /// Let one flow of hold `id` go on both sides while the hold lasts for the others. `flow` is as
    /// seen from upstream. It may not have come yet.
    pub fn release_flow(&mut self, id: HoldId, flow: &Parsed) -> Result<(), Refusal> {
        let upstream = flow.key.on(Side::Upstream);
        let keys = self.sides_of(id, upstream)?;
        let named = self.covers_alone(id, &flow.on(Side::Upstream), &keys);
        self.check_named(id, upstream, &keys, named)?;
        self.let_go(id, &keys);
        Ok(())
    }

    /// Let one side of a flow of hold `id` go while the hold lasts for its other side and for the
    /// others. `key` has the headers of its own side. The flow has come, on one side at least.
    pub fn release_side(&mut self, id: HoldId, key: Key) -> Result<(), Refusal> {
        let upstream = self.upstream_of(&key);
        let both = self.sides_of(id, upstream)?;
        if !both.contains(&key) {
            return Err(Refusal::NotOfHold {
                flow: key,
                hold: id,
            });
        }
        self.check_named(id, upstream, &both, false)?;
        // Once let go the flow counts as served here, and what is armed would let its other side
        // pass: that is held by a treatment of its own from now on.
        let armed = self
            .holds
            .get(&id)
            .is_some_and(|hold| hold.spec.role == Role::Arm);
        for other in both.into_iter().filter(|other| armed && *other != key) {
            self.hold_alone(id, other);
        }
        self.let_go(id, &[key]);
        Ok(())
    }

    /// Whether a packet that looks like this belongs to what `spec` is for, on whatever side.
    pub fn covers(&self, spec: &Spec, packet: &Parsed) -> bool {
        match self.aliased.get(&packet.key) {
            Some(upstream) => spec.covers(upstream),
            None => spec.covers(packet),
        }
    }

    /// The upstream key of the flow that has `key` on its side.
    pub fn upstream_of(&self, key: &Key) -> Key {
        upstream_of(&self.aliased, key)
    }

    /// The flow as it is seen from upstream, by what it looks like on its key's side.
    pub fn from_upstream(&self, packet: &Parsed) -> Parsed {
        let alias = self.aliased.get(&packet.key).copied();
        alias.unwrap_or_else(|| packet.on(Side::Upstream))
    }

    /// What a flow, seen from upstream, looks like on `side`.
    pub fn seen_from(&self, side: Side, upstream: &Parsed) -> Parsed {
        let alias = self.aliases.get(&upstream.key).copied();
        let alias = alias.filter(|_| side == Side::Downstream);
        alias.unwrap_or_else(|| upstream.on(side))
    }

    fn hold_alone(&mut self, id: HoldId, key: Key) {
        let treated = self.treated.get(&id).and_then(|flows| flows.get(&key));
        if treated.is_none() {
            self.treat(id, key, Treatment::Capture);
        }
    }

    /// The keys of a flow on the sides that hold `id` is for.
    fn sides_of(&self, id: HoldId, upstream: Key) -> Result<Vec<Key>, Refusal> {
        let hold = self
            .holds
            .get(&id)
            .filter(|hold| hold.state == HoldState::Holding);
        let sides = &hold.ok_or(Refusal::Unknown(id))?.spec.sides;
        let key_on = |side: &Side| match side {
            Side::Upstream => upstream,
            Side::Downstream => {
                let alias = self.aliases.get(&upstream).map(|alias| alias.key);
                alias.unwrap_or(upstream.on(Side::Downstream))
            }
        };
        Ok(sides.iter().map(key_on).collect())
    }

    /// Once a packet has come it is known whose the flow is. Its key alone has no direction.
    fn check_named(
        &self,
        id: HoldId,
        upstream: Key,
        keys: &[Key],
        named: bool,
    ) -> Result<(), Refusal> {
        let holder = |key: &Key| self.flows.get(key).map(|flow| flow.hold);
        let come = keys.iter().any(|key| holder(key) == Some(id));
        // One that only strays have brought here is nobody's.
        let taken = |key: &Key| holder(key).is_some_and(|holder| holder != id && holder != 0);
        if !(come || named) || keys.iter().any(taken) {
            return Err(Refusal::NotOfHold {
                flow: upstream,
                hold: id,
            });
        }
        Ok(())
    }

    /// Whether a flow that has not come is for hold `id`, and for no other one in force if it were
    /// the other way round: it is treated by its key from now on.
    fn covers_alone(&self, id: HoldId, upstream: &Parsed, keys: &[Key]) -> bool {
        let on_a_side = |hold: &Hold| keys.iter().any(|key| hold.spec.sides.contains(&key.side()));
        let others = self.holds.values();
        let mut others = others.filter(|hold| hold.id != id && hold.state == HoldState::Holding);
        let covers = |hold: &Hold| hold.spec.covers(upstream);
        self.holds.get(&id).is_some_and(covers)
            && !others.any(|hold| on_a_side(hold) && hold.spec.may_name(&upstream.key))
    }

    fn let_go(&mut self, id: HoldId, keys: &[Key]) {
        for key in keys {
            if self.flows.contains_key(key) {
                self.step(*key, Event::Release)
                    .expect("any flow can be released");
            }
            self.treat(id, *key, Treatment::Pass);
        }
    }

    /// A captured packet: say so if it is the first of its flow on its side.
    pub(super) fn notice_first(&mut self, key: Key) {
        let Some(flow) = self.flows.get_mut(&key) else {
            return;
        };
        let held = flow.state == State::Held && !flow.seen;
        let (id, hold) = (flow.hold, self.holds.get(&flow.hold));
        if held && hold.is_some_and(|hold| hold.led) {
            flow.seen = true;
            self.actions.push(Action::Seen(id, key));
        }
    }

    /// A stray: its flow was served elsewhere until now, whatever the accounting here says. What
    /// is armed would let an owned flow pass and overtake it.
    pub(super) fn follow_armed(&mut self, key: Key) {
        let Some(flow) = self
            .flows
            .get(&key)
            .filter(|flow| flow.state == State::Held)
        else {
            return;
        };
        let id = flow.hold;
        let armed = |hold: &Hold| hold.spec.role == Role::Arm && hold.led;
        if !self.holds.get(&id).is_some_and(armed) {
            return;
        }
        let upstream = self.upstream_of(&key);
        for key in self.sides_of(id, upstream).unwrap_or_default() {
            self.hold_alone(id, key);
        }
    }
}
