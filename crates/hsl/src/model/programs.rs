//! What the programs do with packets, without their clocks and CPUs.
//!
//! A packet meets, in this order: the exact treatment of its flow; else the first rule that
//! matches its headers; else it passes. It is captured as well while anything of its flow is
//! outstanding. One packet more is outstanding with every capture and every stray adopted, one
//! less with every second pass.

use std::collections::{HashMap, VecDeque};

use crate::endpoint::{Action, Treatment};
use crate::key::{Key, Parsed, Side};
use crate::matching::Match;

/// See the module's head.
#[derive(Debug, Default)]
pub struct Programs {
    active: bool,
    rules: [Vec<(Match, Treatment)>; 2],
    exact: HashMap<Key, Treatment>,
    outstanding: HashMap<Key, i64>,
    /// Flow sides that have gone on to the function, and whether their last packet was swapped.
    owned: HashMap<Key, bool>,
    /// Captured frames that have not been read, by side.
    pub tap: [VecDeque<Vec<u8>>; 2],
    /// Released frames on their way back to the interface, by side.
    pub backlog: [VecDeque<Vec<u8>>; 2],
}

impl Programs {
    /// A packet arrives. True: it goes on to the function; false: it has been captured.
    pub fn ingress(&mut self, packet: &Parsed, frame: &[u8]) -> bool {
        let key = packet.key;
        let treatment = match self.treatment(packet) {
            Treatment::Arm if self.owns(&key) => Treatment::Pass,
            other => other,
        };
        let behind = self.outstanding(&key) > 0;
        if !self.active || (treatment == Treatment::Pass && !behind) {
            self.owned.insert(key, packet.swapped);
            return true;
        }
        *self.outstanding.entry(key).or_default() += 1;
        self.tap[key.side().index()].push_back(frame.to_vec());
        false
    }

    fn treatment(&self, packet: &Parsed) -> Treatment {
        let rules = &self.rules[packet.key.side().index()];
        let by_rule = || {
            let first = rules.iter().find(|(matching, _)| matching.covers(packet));
            first.map_or(Treatment::Pass, |(_, treatment)| *treatment)
        };
        self.exact.get(&packet.key).copied().unwrap_or_else(by_rule)
    }

    /// Packets of the flow have gone on to the function, on either side.
    pub fn owns(&self, key: &Key) -> bool {
        Side::ALL
            .iter()
            .any(|side| self.owned.contains_key(&key.on(*side)))
    }

    /// Flow sides that have gone on to the function, each as its last packet came.
    pub fn owned(&self) -> Vec<Parsed> {
        let served = |(key, swapped): (&Key, &bool)| Parsed {
            key: *key,
            ethertype: 0,
            swapped: *swapped,
        };
        self.owned.iter().map(served).collect()
    }

    /// A flow side is served here, before a packet of it has come.
    pub fn own(&mut self, flow: &Parsed) {
        self.owned.entry(flow.key).or_insert(flow.swapped);
    }

    /// Forget that a flow side was served here.
    pub fn disown(&mut self, key: &Key) {
        self.owned.remove(key);
    }

    /// Packets of a flow side that were captured and are not through.
    pub fn outstanding(&self, key: &Key) -> i64 {
        self.outstanding.get(key).copied().unwrap_or(0)
    }

    /// All of them.
    pub fn all_outstanding(&self) -> Vec<(Key, u64)> {
        let some = self.outstanding.iter().filter(|(_, count)| **count > 0);
        some.map(|(key, count)| (*key, *count as u64)).collect()
    }

    /// A released frame is written.
    pub fn write(&mut self, key: Key, frame: Vec<u8>) {
        self.backlog[key.side().index()].push_back(frame);
    }

    /// A released frame comes through the interface again and goes on to the function.
    pub fn second_pass(&mut self, side: Side) -> Option<Vec<u8>> {
        let frame = self.backlog[side.index()].pop_front()?;
        let packet = Key::parse(&frame, side)?;
        self.forget(&packet.key, 1);
        self.owned.insert(packet.key, packet.swapped);
        Some(frame)
    }

    /// A stray of the flow has been taken in.
    pub fn adopt(&mut self, key: &Key) {
        *self.outstanding.entry(*key).or_default() += 1;
    }

    /// Captured packets will not come back.
    pub fn forget(&mut self, key: &Key, packets: u64) {
        *self.outstanding.entry(*key).or_default() -= packets as i64;
    }

    /// Nothing is held any more.
    pub fn rest(&mut self) {
        self.active = false;
    }

    /// Carry out what the endpoint decided.
    pub fn act(&mut self, action: &Action) {
        match action {
            Action::Rules(side, rules) => {
                self.active |= !rules.is_empty();
                self.rules[side.index()] = rules.clone();
            }
            Action::Flow(key, Some(treatment)) => {
                self.active = true;
                self.exact.insert(*key, *treatment);
            }
            Action::Flow(key, None) => drop(self.exact.remove(key)),
            Action::DropCount(key) => drop(self.outstanding.remove(key)),
            Action::Seen(..) | Action::Notice(_) => {}
        }
    }

    /// What was captured is thrown away; what is served here stays so.
    pub fn begin_epoch(&mut self) {
        let owned = std::mem::take(&mut self.owned);
        *self = Programs {
            owned,
            ..Programs::default()
        };
    }
}
