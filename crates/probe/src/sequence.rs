//! Exact counting of one flow's sequence numbers: pure, no clock, no I/O.
//!
//! Instead of a bitmap window, which is exact only up to its width, the tracker keeps the set of
//! numbers *missing* below the highest one seen, as sorted ranges. In-order traffic keeps it empty;
//! a burst of loss costs one range. So every loss, reordering and duplicate is counted exactly over
//! any distance, as long as the ranges fit the memory allowed. Only when they do not, the oldest
//! range is given up: its numbers stay counted as lost, and a packet that still arrives from below
//! that floor is `unclassified`, since it may be late or a duplicate. Reports show that count.
//!
//! Definitions, RFC 4737 §3.3: with NextExp one above the highest number seen, a packet whose number
//! is below NextExp is *reordered*. A second copy is a *duplicate* and nothing else: the RFC keeps
//! only the first copy for analysis.

use std::collections::VecDeque;

/// What one arrival was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// At or above the next expected number.
    InOrder,
    /// Reordered; `extent` is how far the highest number seen is ahead of it.
    Reordered {
        /// Highest number seen minus this one.
        extent: u64,
    },
    /// Seen before.
    Duplicate,
    /// From below the floor: late or duplicate, which of the two is no longer known.
    Unclassified,
}

/// The sequence numbers of one flow.
#[derive(Clone, Debug, Default)]
pub struct SequenceTracker {
    /// One above the highest number seen.
    next: u64,
    /// Missing numbers in `floor..next` as half-open ranges, ascending, never empty, never touching.
    missing: VecDeque<(u64, u64)>,
    /// Below it, what is missing is no longer known by number.
    floor: u64,
    unique: u64,
    duplicates: u64,
    reordered: u64,
    unclassified: u64,
    max_extent: u64,
}

impl SequenceTracker {
    /// Take in one packet. `may_grow` is false when the memory for ranges is used up.
    pub fn receive(&mut self, seq: u64, may_grow: bool) -> Arrival {
        if seq >= self.next {
            if seq > self.next {
                if !may_grow {
                    self.give_up_oldest();
                }
                self.missing.push_back((self.next, seq));
            }
            self.next = seq.saturating_add(1);
            self.unique += 1;
            return Arrival::InOrder;
        }
        if seq < self.floor {
            self.unclassified += 1;
            return Arrival::Unclassified;
        }
        if !self.fill(seq, may_grow) {
            self.duplicates += 1;
            return Arrival::Duplicate;
        }
        let extent = self.next - 1 - seq;
        self.unique += 1;
        self.reordered += 1;
        self.max_extent = self.max_extent.max(extent);
        Arrival::Reordered { extent }
    }

    /// Take `seq` out of the missing numbers; false if it was not among them.
    fn fill(&mut self, seq: u64, may_grow: bool) -> bool {
        let index = self.missing.partition_point(|(_, end)| *end <= seq);
        let Some(&(start, end)) = self.missing.get(index).filter(|(start, _)| *start <= seq) else {
            return false;
        };
        match (start == seq, seq + 1 == end) {
            (true, true) => {
                self.missing.remove(index);
            }
            (true, false) => self.missing[index].0 = seq + 1,
            (false, true) => self.missing[index].1 = seq,
            (false, false) => {
                self.missing[index].0 = seq + 1;
                self.missing.insert(index, (start, seq));
                if !may_grow {
                    self.give_up_oldest();
                }
            }
        }
        true
    }

    fn give_up_oldest(&mut self) {
        if let Some((_, end)) = self.missing.pop_front() {
            self.floor = end;
        }
    }

    /// One above the highest number seen: what was sent at the least.
    pub fn next_expected(&self) -> u64 {
        self.next
    }

    /// Different packets received.
    pub fn unique(&self) -> u64 {
        self.unique
    }

    /// Second and further copies.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Packets that arrived behind a higher number.
    pub fn reordered(&self) -> u64 {
        self.reordered
    }

    /// Arrivals from below the floor.
    pub fn unclassified(&self) -> u64 {
        self.unclassified
    }

    /// The largest `extent` of a reordered packet.
    pub fn max_extent(&self) -> u64 {
        self.max_extent
    }

    /// Ranges held in memory.
    pub fn ranges(&self) -> usize {
        self.missing.len()
    }

    /// Packets lost out of `sent`.
    pub fn lost(&self, sent: u64) -> u64 {
        sent.max(self.next) - self.unique
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// The definitions, word by word, over everything seen.
    #[derive(Default)]
    struct Naive {
        seen: HashSet<u64>,
        highest: Option<u64>,
    }

    impl Naive {
        fn receive(&mut self, seq: u64) -> Arrival {
            let arrival = match self.highest {
                _ if self.seen.contains(&seq) => Arrival::Duplicate,
                Some(highest) if seq < highest => Arrival::Reordered {
                    extent: highest - seq,
                },
                _ => Arrival::InOrder,
            };
            self.seen.insert(seq);
            self.highest = self.highest.max(Some(seq));
            arrival
        }
    }

    #[test]
    fn loses_swaps_and_doubles_are_told_apart() {
        let mut tracker = SequenceTracker::default();
        let seen: Vec<Arrival> = [0, 1, 3, 2, 2, 6, 6]
            .into_iter()
            .map(|s| tracker.receive(s, true))
            .collect();
        use Arrival::*;
        assert_eq!(
            seen,
            [
                InOrder,
                InOrder,
                InOrder,
                Reordered { extent: 1 },
                Duplicate,
                InOrder,
                Duplicate
            ]
        );
        assert_eq!(
            (tracker.unique(), tracker.duplicates(), tracker.reordered()),
            (5, 2, 1)
        );
        assert_eq!((tracker.lost(7), tracker.lost(9)), (2, 4));
    }

    #[test]
    fn beyond_the_memory_nothing_is_claimed() {
        let mut tracker = SequenceTracker::default();
        tracker.receive(1, true); // 0 is missing
        tracker.receive(3, false); // 2 too: 0 is given up
        assert_eq!(tracker.ranges(), 1);
        assert_eq!(tracker.receive(0, false), Arrival::Unclassified);
        assert_eq!(tracker.receive(2, false), Arrival::Reordered { extent: 1 });
        assert_eq!((tracker.lost(4), tracker.unclassified()), (1, 1));
    }

    proptest! {
        #[test]
        fn agrees_with_the_naive_model(
            seqs in prop_oneof![
                proptest::collection::vec(0u64..40, 0..200),
                proptest::collection::vec(0u64..5_000, 0..400),
            ],
            trailing in 0u64..5,
        ) {
            let (mut tracker, mut naive) = (SequenceTracker::default(), Naive::default());
            for seq in seqs {
                prop_assert_eq!(tracker.receive(seq, true), naive.receive(seq));
            }
            let sent = naive.highest.map_or(0, |h| h + 1) + trailing;
            prop_assert_eq!(tracker.unique(), naive.seen.len() as u64);
            prop_assert_eq!(tracker.lost(sent), sent - naive.seen.len() as u64);
            let missing: u64 = tracker.missing.iter().map(|(start, end)| end - start).sum();
            prop_assert_eq!(missing, tracker.next - tracker.unique);
        }

        /// Little memory makes arrivals unclassified, never wrongly classified.
        #[test]
        fn little_memory_never_lies(seqs in proptest::collection::vec(0u64..300, 0..400), room in 1usize..5) {
            let (mut tracker, mut naive) = (SequenceTracker::default(), Naive::default());
            for seq in seqs {
                let arrival = tracker.receive(seq, tracker.ranges() < room);
                let truth = naive.receive(seq);
                prop_assert!(arrival == truth || arrival == Arrival::Unclassified);
                prop_assert!(tracker.ranges() <= room);
            }
        }
    }
}
