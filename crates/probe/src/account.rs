//! The accounts of a run: every flow's sequence numbers, delays and arrival times. Pure.

use crate::delay::{Arrivals, DelayReport, Delays};
use crate::packet::MAX_FLOWS;
use crate::report::{Counts, FlowGap, FlowReport, PerFlow};
use crate::sequence::{Arrival, SequenceTracker};

/// Ranges of missing numbers kept over all flows, 16 bytes each; see [`crate::sequence`].
const RANGES: usize = 8 << 20;
/// Flows up to which `PerFlow::Auto` reports each one.
const AUTO_FLOWS: usize = 100;

#[derive(Debug)]
struct Flow {
    sequence: SequenceTracker,
    delays: Delays,
    arrivals: Arrivals,
    sent: Option<u64>,
}

/// What arrived, per flow and in total.
#[derive(Debug)]
pub struct Accounting {
    flows: Vec<Flow>,
    /// Sum of `ranges()` over all flows, at most `range_limit` and a few.
    ranges: usize,
    range_limit: usize,
    delays: Delays,
    /// The greatest delay since it was asked last.
    slowest: u64,
    arrivals: Arrivals,
    /// Sum of `unique()` over all flows.
    unique: u64,
    bytes: u64,
}

impl Default for Accounting {
    fn default() -> Self {
        Accounting::with_range_limit(RANGES)
    }
}

impl Accounting {
    /// Accounts that remember at most `range_limit` ranges of missing numbers.
    pub fn with_range_limit(range_limit: usize) -> Accounting {
        Accounting {
            flows: Vec::new(),
            ranges: 0,
            range_limit,
            delays: Delays::of_total(),
            slowest: 0,
            arrivals: Arrivals::default(),
            unique: 0,
            bytes: 0,
        }
    }

    fn flow_mut(&mut self, flow: u32) -> Option<&mut Flow> {
        if flow >= MAX_FLOWS {
            return None;
        }
        let index = flow as usize;
        if index >= self.flows.len() {
            self.flows.resize_with(index + 1, || Flow {
                sequence: SequenceTracker::default(),
                delays: Delays::of_flow(),
                arrivals: Arrivals::default(),
                sent: None,
            });
        }
        self.flows.get_mut(index)
    }

    /// The sequence number expected next on `flow`, for [`crate::packet::Header::full_seq`].
    pub fn next_expected(&self, flow: u32) -> u64 {
        self.flows
            .get(flow as usize)
            .map_or(0, |f| f.sequence.next_expected())
    }

    /// Take in a packet of `bytes` payload bytes. `None`: no such flow (above [`MAX_FLOWS`]).
    /// A duplicate counts as an arrival, not as a delay.
    pub fn record(
        &mut self,
        flow: u32,
        seq: u64,
        sent_at: u64,
        received_at: u64,
        bytes: usize,
    ) -> Option<Arrival> {
        let may_grow = self.ranges < self.range_limit;
        let account = self.flow_mut(flow)?;
        let before = account.sequence.ranges();
        let arrival = account.sequence.receive(seq, may_grow);
        let after = account.sequence.ranges();
        account.arrivals.record(received_at);
        let counted = matches!(arrival, Arrival::InOrder | Arrival::Reordered { .. });
        let delay = received_at.saturating_sub(sent_at);
        if counted {
            account.delays.record(delay);
        }
        self.ranges = self.ranges + after - before;
        if counted {
            self.delays.record(delay);
            self.slowest = self.slowest.max(delay);
            self.unique += 1;
        }
        self.bytes += bytes as u64;
        Some(arrival)
    }

    /// Take in arrival times for the gap over all flows. Several sockets are read in turn, so the
    /// caller sorts what it read in one round; see [`Arrivals::record`] for times that step back.
    pub fn record_arrivals(&mut self, sorted: &[u64]) {
        sorted.iter().for_each(|at| self.arrivals.record(*at));
    }

    /// Learn how many packets were sent on `flow`.
    pub fn set_sent(&mut self, flow: u32, sent: u64) {
        if let Some(flow) = self.flow_mut(flow) {
            flow.sent = Some(sent);
        }
    }

    /// Different packets received over all flows.
    pub fn unique(&self) -> u64 {
        self.unique
    }

    /// When the last packet arrived.
    pub fn last_arrival(&self) -> Option<u64> {
        self.arrivals.span().map(|(_, last)| last)
    }

    /// Whether every packet known to be sent is here; false as long as a flow's count is unknown.
    pub fn complete(&self) -> bool {
        self.flows
            .iter()
            .all(|f| f.sent.is_some_and(|sent| f.sequence.lost(sent) == 0))
    }

    /// The totals. For flows whose sent count is unknown, it is what their numbers prove.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts {
            flows: self.flows.len() as u64,
            bytes: self.bytes,
            ..Counts::default()
        };
        for flow in &self.flows {
            let sequence = &flow.sequence;
            let sent = flow.sent.unwrap_or(0).max(sequence.next_expected());
            let lost = sequence.lost(sent);
            counts.sent += sent;
            counts.received += sequence.unique();
            counts.lost += lost;
            counts.reordered += sequence.reordered();
            counts.duplicated += sequence.duplicates();
            counts.unclassified += sequence.unclassified();
            counts.max_extent = counts.max_extent.max(sequence.max_extent());
            counts.flows_heard += u64::from(sequence.unique() > 0);
            counts.flows_lossy += u64::from(lost > 0);
        }
        counts
    }

    /// Delays over all flows.
    pub fn delays(&self) -> Option<DelayReport> {
        self.delays.report()
    }

    /// The greatest delay since this was called last, ns.
    pub fn take_slowest(&mut self) -> u64 {
        std::mem::take(&mut self.slowest)
    }

    /// Arrival times over all flows.
    pub fn arrivals(&self) -> Arrivals {
        self.arrivals
    }

    /// The flow with the longest time between two of its packets.
    pub fn longest_flow_gap(&self) -> Option<FlowGap> {
        let zero = self.arrivals.span()?.0;
        let (index, flow) = self
            .flows
            .iter()
            .enumerate()
            .max_by_key(|(_, f)| f.arrivals.longest_gap().0)?;
        let (gap_ns, start) = flow.arrivals.longest_gap();
        Some(FlowGap {
            flow: index as u32,
            gap_ns,
            gap_at_ns: start.saturating_sub(zero),
        })
    }

    /// One report per flow, as far as `which` asks for it.
    pub fn flow_reports(&self, which: PerFlow) -> Vec<FlowReport> {
        let zero = self.arrivals.span().map_or(0, |(first, _)| first);
        let all = match which {
            PerFlow::All => true,
            PerFlow::None => return Vec::new(),
            PerFlow::Bad => false,
            PerFlow::Auto => self.flows.len() <= AUTO_FLOWS,
        };
        let reports = self.flows.iter().enumerate().map(|(index, flow)| {
            let sequence = &flow.sequence;
            let sent = flow.sent.unwrap_or(0).max(sequence.next_expected());
            let (gap, gap_start) = flow.arrivals.longest_gap();
            let since_zero = |at: u64| at.saturating_sub(zero);
            FlowReport {
                flow: index as u32,
                sent,
                received: sequence.unique(),
                lost: sequence.lost(sent),
                reordered: sequence.reordered(),
                duplicated: sequence.duplicates(),
                unclassified: sequence.unclassified(),
                max_extent: sequence.max_extent(),
                delay_ns: flow.delays.report(),
                longest_gap_ns: gap,
                longest_gap_at_ns: if gap > 0 { since_zero(gap_start) } else { 0 },
                first_ns: flow.arrivals.span().map(|(first, _)| since_zero(first)),
                last_ns: flow.arrivals.span().map(|(_, last)| since_zero(last)),
            }
        });
        reports
            .filter(|r| all || r.lost + r.reordered + r.duplicated + r.unclassified > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_are_the_sum_of_the_flows() {
        let mut accounts = Accounting::default();
        for (flow, seq) in [(0, 0), (0, 2), (2, 0), (2, 0), (0, 1)] {
            accounts.record(flow, seq, 100, 350, 16);
        }
        accounts.set_sent(0, 4);
        accounts.set_sent(1, 1);
        let counts = accounts.counts();
        assert_eq!((counts.sent, counts.received, counts.lost), (6, 4, 2));
        assert_eq!(
            (counts.reordered, counts.duplicated, counts.max_extent),
            (1, 1, 1)
        );
        assert_eq!(
            (counts.flows, counts.flows_heard, counts.flows_lossy),
            (3, 2, 2)
        );
        assert_eq!(accounts.delays().unwrap().max, 250);
        assert_eq!((accounts.take_slowest(), accounts.take_slowest()), (250, 0));
        assert!(!accounts.complete());
        let bad: Vec<u32> = accounts
            .flow_reports(PerFlow::Bad)
            .iter()
            .map(|f| f.flow)
            .collect();
        assert_eq!(bad, [0, 1, 2]);
    }

    #[test]
    fn complete_when_every_flow_is() {
        let mut accounts = Accounting::default();
        accounts.record(0, 0, 0, 1, 16);
        assert!(!accounts.complete(), "the sent count is unknown");
        accounts.set_sent(0, 1);
        assert!(accounts.complete());
    }

    #[test]
    fn a_damaged_flow_number_takes_no_memory() {
        assert_eq!(Accounting::default().record(u32::MAX, 0, 0, 0, 16), None);
    }
}
