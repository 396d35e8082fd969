//! What the kernel side does, in a page: `bpf/hsl.bpf.c` without its clocks and CPUs.
//!
//! A packet meets, in this order: the exact treatment of its flow; else the first rule that
//! matches its headers; else it passes. It is captured as well while anything of its flow is
//! outstanding: that keeps it behind what is being released. One packet more is outstanding with
//! every capture and every follower adopted, one less with every second pass.

use std::collections::{HashMap, HashSet, VecDeque};

use flowferry_hsl::endpoint::{Action, Treatment};
use flowferry_hsl::key::{Key, Parsed, Side};
use flowferry_hsl::matching::Match;

use crate::traffic::{parse, serial};

/// Faults that the checks must find. They are the model's, not the product's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Packets pass as soon as no rule captures them, whatever is outstanding.
    IgnoreOutstanding,
    /// Now and then a frame that is written disappears, and nobody learns of it.
    DropFrame,
    /// What is written at once is written in the wrong order.
    WriteBackwards,
    /// A flow counts as settled before its packets are through.
    SettleEarly,
    /// What was decided last is carried out first.
    ActBackwards,
    /// Packets that were sent on are not taken off the count.
    NeverForget,
    /// Packets that followed from elsewhere are not counted as outstanding.
    NeverAdopt,
    /// After a discard the frames kept are handed in again.
    ReplayAfterDiscard,
}

/// What became of an arriving packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Straight to the function.
    Passed,
    /// Likewise, because it is served here already and the rule only arms.
    Owned,
    /// To the TAP.
    Captured,
}

#[derive(Debug)]
pub struct Kernel {
    pub fault: Fault,
    active: bool,
    rules: [Vec<(Match, Treatment)>; 2],
    exact: HashMap<Key, Treatment>,
    outstanding: HashMap<Key, i64>,
    owned: HashSet<Key>,
    /// Captured frames that have not been read.
    pub tap: [VecDeque<Vec<u8>>; 2],
    /// Released frames on their way back to the interface.
    pub backlog: [VecDeque<Vec<u8>>; 2],
    written: u64,
}

impl Kernel {
    pub fn new(fault: Fault) -> Kernel {
        Kernel {
            fault,
            active: false,
            rules: Default::default(),
            exact: HashMap::new(),
            outstanding: HashMap::new(),
            owned: HashSet::new(),
            tap: Default::default(),
            backlog: Default::default(),
            written: 0,
        }
    }

    /// `hold()`: a packet arrives.
    pub fn ingress(&mut self, packet: &Parsed, frame: &[u8]) -> Verdict {
        let key = packet.key;
        if !self.active {
            return self.deliver(key, Verdict::Passed);
        }
        let (treatment, passed) = match self.treatment(packet) {
            Treatment::Arm if self.owns(&key) => (Treatment::Pass, Verdict::Owned),
            other => (other, Verdict::Passed),
        };
        let behind = self.outstanding(&key) > 0 && self.fault != Fault::IgnoreOutstanding;
        if treatment == Treatment::Pass && !behind {
            return self.deliver(key, passed);
        }
        *self.outstanding.entry(key).or_default() += 1;
        self.tap[key.side().index()].push_back(frame.to_vec());
        Verdict::Captured
    }

    fn treatment(&self, packet: &Parsed) -> Treatment {
        let rules = &self.rules[packet.key.side().index()];
        let by_rule = || {
            let first = rules.iter().find(|(matching, _)| matching.covers(packet));
            first.map_or(Treatment::Pass, |(_, treatment)| *treatment)
        };
        self.exact.get(&packet.key).copied().unwrap_or_else(by_rule)
    }

    fn deliver(&mut self, key: Key, verdict: Verdict) -> Verdict {
        self.owned.insert(key);
        verdict
    }

    /// Packets of the flow have gone on to the function, on either side.
    pub fn owns(&self, key: &Key) -> bool {
        Side::ALL
            .iter()
            .any(|side| self.owned.contains(&key.on(*side)))
    }

    pub fn disown(&mut self, key: &Key) {
        self.owned.remove(key);
    }

    pub fn outstanding(&self, key: &Key) -> i64 {
        self.outstanding.get(key).copied().unwrap_or(0)
    }

    /// All that is outstanding, as the shell reads it from the map.
    pub fn all_outstanding(&self) -> Vec<(Key, u64)> {
        let some = self.outstanding.iter().filter(|(_, count)| **count > 0);
        some.map(|(key, count)| (*key, *count as u64)).collect()
    }

    /// The shell writes a frame to the TAP.
    pub fn write(&mut self, key: Key, frame: Vec<u8>) {
        self.written += 1;
        if self.fault == Fault::DropFrame && self.written.is_multiple_of(5) {
            self.forget(&key, 1);
            return;
        }
        self.backlog[key.side().index()].push_back(frame);
    }

    /// A released frame comes through the interface again; which packet it was.
    pub fn second_pass(&mut self, side: Side) -> Option<usize> {
        let frame = self.backlog[side.index()].pop_front()?;
        let key = parse(&frame, side).key;
        self.forget(&key, 1);
        self.owned.insert(key);
        Some(serial(&frame))
    }

    /// The shell has taken a packet in from another instance.
    pub fn adopt(&mut self, key: &Key) {
        if self.fault != Fault::NeverAdopt {
            *self.outstanding.entry(*key).or_default() += 1;
        }
    }

    pub fn forget(&mut self, key: &Key, packets: u64) {
        *self.outstanding.entry(*key).or_default() -= packets as i64;
    }

    pub fn set_active(&mut self, active: bool) {
        self.active = active;
    }

    /// Carry out what the endpoint wants; an error if that breaks the programs' assumptions.
    pub fn act(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Rules(side, rules) => {
                self.active |= !rules.is_empty();
                self.rules[side.index()] = rules;
            }
            Action::Flow(key, Some(treatment)) => {
                self.active = true;
                self.exact.insert(key, treatment);
            }
            Action::Flow(key, None) => drop(self.exact.remove(&key)),
            Action::DropCount(key) => match self.outstanding.remove(&key) {
                None | Some(0) => {}
                Some(count) => {
                    return Err(format!("the count of {key:?} was dropped at {count}"));
                }
            },
            Action::Seen(..) | Action::Notice(_) => {}
        }
        Ok(())
    }

    /// A new epoch: everything held is forgotten.
    pub fn begin_epoch(&mut self) {
        let kept = std::mem::take(&mut self.owned);
        *self = Kernel::new(self.fault);
        self.owned = kept;
    }

    /// What must be gone when nothing is held.
    pub fn leftovers(&self) -> Option<String> {
        let counts: Vec<_> = self.outstanding.iter().filter(|(_, n)| **n != 0).collect();
        let rules = self.rules.iter().map(Vec::len).sum::<usize>();
        (rules > 0 || !self.exact.is_empty() || !counts.is_empty()).then(|| {
            format!(
                "{rules} rules, treatments {:?}, counts {counts:?}",
                self.exact
            )
        })
    }
}
