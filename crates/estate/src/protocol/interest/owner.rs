//! The owner's side: looks at what is here when it has changed, and pushes it to whoever keeps a
//! replica of it.

use super::Served;
use crate::pattern::Pattern;
use crate::protocol::contribution::Contribution;
use crate::protocol::engine::{Action, Engine};
use crate::protocol::member::NodeId;
use crate::protocol::message::Message;
use crate::reduce::Reducer;
use crate::store::{Interest, Store};
use std::time::Duration;

impl Engine {
    #[allow(clippy::too_many_arguments)] // the fields of the message
    pub(in crate::protocol) fn subscribed(
        &mut self,
        store: &Store,
        from: &NodeId,
        number: u64,
        sent: Duration,
        have: u64,
        max_age: Duration,
        lease: Duration,
        reducer: Reducer,
        pattern: Pattern,
    ) {
        self.take_in_changes(store);
        let key = (from.clone(), number);
        let now = self.now;
        if !self.interests.served.contains_key(&key) {
            let interest = Interest(self.number());
            store.declare(interest, pattern.clone());
            self.out.push(Action::GloballyRead {
                pattern: pattern.as_str().to_owned(),
                by: from.clone(),
            });
            let served = Served {
                pattern,
                reducer,
                max_age,
                interest,
                echo: sent,
                echo_at: now,
                serial: 0,
                contribution: Contribution::new(reducer),
                made: now,
                dirty: true,
                pushed: now,
                ends: now + lease,
            };
            self.interests.served.insert(key.clone(), served);
        }
        let Some(served) = self.interests.served.get_mut(&key) else {
            return;
        };
        if sent >= served.echo {
            served.echo = sent;
            served.echo_at = now;
            served.max_age = max_age;
        }
        served.ends = served
            .ends
            .max(now + lease.min(self.settings.longest_query * 4));
        // What expires is no change that anybody reports: look now and then.
        let old = now.saturating_sub(served.made) >= served.max_age / 2;
        if served.dirty || old || !self.moved.is_quiet() {
            self.make(store, &key);
        }
        self.push(&key, have);
    }

    /// Looks at what is here; says whether it has changed.
    pub(super) fn make(&mut self, store: &Store, key: &(NodeId, u64)) -> bool {
        let serial = self.number();
        let Some(served) = self.interests.served.get_mut(key) else {
            return false;
        };
        let what = (&served.pattern, served.reducer);
        let Ok(said) = self
            .moved
            .contribution(store, &self.own, self.now, what, None)
        else {
            return false;
        };
        served.dirty = false;
        served.made = self.now;
        if served.serial != 0 && said.says_the_same(&served.contribution) {
            return false;
        }
        served.serial = serial;
        served.contribution = said;
        true
    }

    pub(super) fn push(&mut self, key: &(NodeId, u64), have: u64) {
        let now = self.now;
        let Some(served) = self.interests.served.get_mut(key) else {
            return;
        };
        served.pushed = now;
        let push = Message::Push {
            interest: key.1,
            serial: served.serial,
            echo: served.echo,
            held: now - served.echo_at,
            contribution: (have != served.serial).then(|| Box::new(served.contribution.clone())),
        };
        self.send_one(&key.0, &push);
    }

    pub(in crate::protocol) fn forget_interest(
        &mut self,
        store: &Store,
        from: &NodeId,
        number: u64,
    ) {
        if let Some(served) = self.interests.served.remove(&(from.clone(), number)) {
            store.withdraw(served.interest);
        }
    }
}
