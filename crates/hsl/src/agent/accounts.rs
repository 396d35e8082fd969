//! Which flow sides begin or cease to be served here: written down a few at a time.
//!
//! The agent goes before all that forwards packets, and nobody waits for its accounts but a PREPARE
//! and whoever holds by hand.

use std::collections::{BTreeMap, VecDeque};

use crate::key::{Key, Parsed};

/// Flow sides owned or disowned in one go, some 50 µs.
pub(super) const BATCH: usize = 64;
/// How long others have the CPU before the next.
const PAUSE_NS: u64 = 500_000;

/// Whether a flow side is served here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Account {
    Own(Parsed),
    Disown(Key),
}

/// What waits to be written down, in this order.
#[derive(Default)]
pub(super) struct Accounts {
    waiting: VecDeque<Account>,
    due_ns: u64,
}

impl Accounts {
    pub fn own(&mut self, flows: Vec<Parsed>) {
        self.waiting.extend(flows.into_iter().map(Account::Own));
    }

    pub fn disown(&mut self, keys: Vec<Key>) {
        self.waiting.extend(keys.into_iter().map(Account::Disown));
    }

    /// The next one; whoever takes it writes it down.
    pub fn take(&mut self) -> Option<Account> {
        self.waiting.pop_front()
    }

    /// When more is to be written down, if anything is, on CLOCK_MONOTONIC in nanoseconds.
    pub fn due(&self) -> Option<u64> {
        (!self.waiting.is_empty()).then_some(self.due_ns)
    }

    /// Others come first, for a while from `now` on.
    pub fn pause(&mut self, now: u64) {
        self.due_ns = now + PAUSE_NS;
    }

    /// What is served here as soon as all is written down, each flow side once; `served` is
    /// what is written down now.
    pub fn settled(&self, mut served: Vec<Parsed>) -> Vec<Parsed> {
        if self.waiting.is_empty() {
            return served;
        }
        let mut last = BTreeMap::new();
        for each in &self.waiting {
            match each {
                Account::Own(flow) => last.insert(flow.key, Some(*flow)),
                Account::Disown(key) => last.insert(*key, None),
            };
        }
        served.retain(|flow| !last.contains_key(&flow.key));
        served.extend(last.into_values().flatten());
        served
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::Match;

    /// A flow, by its number.
    fn flow(number: u8) -> Parsed {
        let ends = "nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=7";
        let exact: Match = format!("udp,{ends},tp_dst={number}").parse().unwrap();
        exact.flow().unwrap()
    }

    #[test]
    fn a_survey_finds_each_flow_once_and_as_it_will_be() {
        let mut accounts = Accounts::default();
        let [one, two, three, four] = [1, 2, 3, 4].map(flow);
        assert_eq!(accounts.settled(vec![one, two]), [one, two]);
        accounts.own(vec![two, three, four, three]);
        accounts.disown(vec![one.key, four.key]);
        accounts.own(vec![one]);
        let mut found = accounts.settled(vec![one, two, four]);
        found.sort();
        let mut wanted = [one, two, three];
        wanted.sort();
        assert_eq!(found, wanted);
        assert_eq!(accounts.settled(vec![]).len(), 3);
    }

    #[test]
    fn what_waits_to_be_disowned_is_not_found_and_disowned_again() {
        let mut accounts = Accounts::default();
        let flows: Vec<Parsed> = (0..9).map(flow).collect();
        accounts.disown(flows.iter().map(|flow| flow.key).collect());
        assert_eq!(accounts.settled(flows), []);
        let mut times = 0;
        while accounts.due().is_some() {
            assert!(matches!(accounts.take(), Some(Account::Disown(_))));
            times += 1;
        }
        assert_eq!(times, 9);
        assert_eq!(accounts.take(), None);
    }
}
