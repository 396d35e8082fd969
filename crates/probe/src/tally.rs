//! What to do with each datagram that comes in: count it, answer it, or set it aside. Pure but for
//! the timeline file.

use crate::account::Accounting;
use crate::error::Result;
use crate::packet::{EndCounts, Header, Kind, make_reply};
use crate::report::{PerFlow, Received};
use crate::timeline::Timeline;
use std::collections::{HashMap, HashSet};

/// The run a receiver counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    /// Whichever comes first.
    Any,
    /// Only the low 16 bits are known, from a compact packet.
    Low(u32),
    Known(u32),
}

/// The receiving side of a run.
#[derive(Debug)]
pub struct Tally {
    /// What it counts: `Data` at a sink, `Reply` at an echoed sender.
    counted: Kind,
    /// Send data packets back.
    echo: bool,
    run: Run,
    accounts: Accounting,
    /// Arrival times of the round under way.
    round: Vec<u64>,
    timeline: Option<Timeline>,
    foreign_run: u64,
    malformed: u64,
    /// Length of each END part seen, by its first flow.
    ends: HashMap<u32, usize>,
    /// Flows in the run, told by END.
    flows: Option<u32>,
    sent_known: &'static str,
    hello_acked: bool,
    end_acked: HashSet<u32>,
}

impl Tally {
    /// At a sink. `run`: count this run only; otherwise the first that comes.
    pub fn of_sink(run: Option<u32>, echo: bool, timeline: Option<Timeline>) -> Tally {
        Tally::new(Kind::Data, run.map_or(Run::Any, Run::Known), echo, timeline)
    }

    /// At a sender, for what comes back.
    pub fn of_sender(run: u32, timeline: Option<Timeline>) -> Tally {
        Tally::new(Kind::Reply, Run::Known(run), false, timeline)
    }

    fn new(counted: Kind, run: Run, echo: bool, timeline: Option<Timeline>) -> Tally {
        Tally {
            counted,
            echo,
            run,
            accounts: Accounting::default(),
            round: Vec::new(),
            timeline,
            foreign_run: 0,
            malformed: 0,
            ends: HashMap::new(),
            flows: None,
            sent_known: "unknown",
            hello_acked: false,
            end_acked: HashSet::new(),
        }
    }

    /// Take in one datagram. True: it has been turned into an answer and is to be sent back.
    pub fn take(&mut self, payload: &mut [u8], received_at: u64) -> Result<bool> {
        let Some(header) = Header::parse(payload) else {
            self.malformed += 1;
            return Ok(false);
        };
        if !self.is_ours(&header) {
            self.foreign_run += 1;
            return Ok(false);
        }
        match header.kind {
            kind if kind == self.counted => self.count(&header, payload, received_at),
            Kind::Hello if self.counted == Kind::Data => {
                Header {
                    kind: Kind::HelloAck,
                    ..header
                }
                .emit(payload);
                Ok(true)
            }
            Kind::End if self.counted == Kind::Data => {
                let Some(end) = EndCounts::parse(&header, payload) else {
                    self.malformed += 1;
                    return Ok(false);
                };
                self.take_end(&end);
                Header {
                    kind: Kind::EndAck,
                    ..header
                }
                .emit(payload);
                Ok(true)
            }
            Kind::HelloAck => {
                self.hello_acked = true;
                Ok(false)
            }
            Kind::EndAck => {
                self.end_acked.insert(header.flow);
                Ok(false)
            }
            _ => {
                self.malformed += 1;
                Ok(false)
            }
        }
    }

    fn is_ours(&mut self, header: &Header) -> bool {
        let full = header.encoding == crate::packet::Encoding::Full;
        let theirs = if full {
            Run::Known(header.run)
        } else {
            Run::Low(header.run)
        };
        match self.run {
            Run::Any => self.run = theirs,
            // A greeting may come late, after a sender that gave up; before any packet it decides.
            Run::Known(_)
                if header.kind == Kind::Hello
                    && self.accounts.unique() == 0
                    && self.sent_known == "unknown" =>
            {
                self.run = theirs;
            }
            Run::Low(low) if full && header.run & 0xffff == low => self.run = theirs,
            Run::Low(low) => return !full && header.run == low,
            Run::Known(run) => return header.of_run(run),
        }
        true
    }

    fn count(&mut self, header: &Header, payload: &mut [u8], received_at: u64) -> Result<bool> {
        let seq = header.full_seq(self.accounts.next_expected(header.flow));
        let sent_at = header.full_time(received_at);
        let Some(arrival) =
            self.accounts
                .record(header.flow, seq, sent_at, received_at, payload.len())
        else {
            self.malformed += 1;
            return Ok(false);
        };
        self.round.push(received_at);
        if let Some(timeline) = &mut self.timeline {
            timeline.record(header.flow, seq, sent_at, received_at, arrival)?;
        }
        if self.echo {
            make_reply(payload, header.encoding);
        }
        Ok(self.echo)
    }

    fn take_end(&mut self, end: &EndCounts) {
        self.flows = Some(end.flows);
        self.ends.insert(end.first, end.counts.len());
        for (flow, sent) in (end.first..).zip(&end.counts) {
            self.accounts.set_sent(flow, *sent);
        }
        if self.ends.values().sum::<usize>() >= end.flows as usize {
            self.sent_known = "end";
        }
    }

    /// Learn the sent counts from elsewhere: `source` says from where.
    pub fn set_sent(&mut self, counts: &[u64], source: &'static str) {
        for (flow, sent) in (0..).zip(counts) {
            self.accounts.set_sent(flow, *sent);
        }
        self.flows = Some(counts.len() as u32);
        self.sent_known = source;
    }

    /// Close a round of reading.
    pub fn end_round(&mut self) {
        self.round.sort();
        self.accounts.record_arrivals(&self.round);
        self.round.clear();
    }

    /// Where the sent counts of every flow come from, once they are known.
    pub fn sent_known(&self) -> Option<&'static str> {
        (self.sent_known != "unknown").then_some(self.sent_known)
    }

    /// All that was sent is here.
    pub fn complete(&self) -> bool {
        self.sent_known().is_some() && self.accounts.complete()
    }

    /// The run counted, as far as known.
    pub fn run(&self) -> Option<u32> {
        match self.run {
            Run::Any => None,
            Run::Low(run) | Run::Known(run) => Some(run),
        }
    }

    /// Different packets so far.
    pub fn packets(&self) -> u64 {
        self.accounts.unique()
    }

    /// The greatest delay since this was called last, ns.
    pub fn take_slowest(&mut self) -> u64 {
        self.accounts.take_slowest()
    }

    /// When the last packet arrived.
    pub fn last_arrival(&self) -> Option<u64> {
        self.accounts.last_arrival()
    }

    /// A sink has answered our greeting.
    pub fn hello_acked(&self) -> bool {
        self.hello_acked
    }

    /// The sink has confirmed the END part that begins with flow `first`.
    pub fn end_acked(&self, first: u32) -> bool {
        self.end_acked.contains(&first)
    }

    /// Close the accounts.
    pub fn finish(self, sink_dropped: u64, per_flow: PerFlow) -> Result<Received> {
        if let Some(timeline) = self.timeline {
            timeline.finish()?;
        }
        let mut counts = self.accounts.counts();
        counts.flows = counts.flows.max(u64::from(self.flows.unwrap_or(0)));
        let amiss = counts.lost + counts.reordered + counts.duplicated + counts.unclassified;
        let arrivals = self.accounts.arrivals();
        let zero = arrivals.span().map_or(0, |(first, _)| first);
        let (gap, gap_start) = arrivals.longest_gap();
        let seconds = arrivals
            .span()
            .map_or(0.0, |(first, last)| (last - first) as f64 / 1e9);
        Ok(Received {
            clean: amiss == 0 && counts.received > 0 && self.sent_known != "unknown",
            sent_known: self.sent_known,
            sink_dropped,
            foreign_run: self.foreign_run,
            malformed: self.malformed,
            delay_ns: self.accounts.delays(),
            longest_gap_ns: gap,
            longest_gap_at_ns: gap_start.saturating_sub(zero),
            longest_flow_gap: self.accounts.longest_flow_gap(),
            first_ns: arrivals.span().map(|(first, _)| first),
            last_ns: arrivals.span().map(|(_, last)| last),
            packets_per_second: if seconds > 0.0 {
                (counts.received - 1) as f64 / seconds
            } else {
                0.0
            },
            per_flow: self.accounts.flow_reports(per_flow),
            counts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Encoding, FULL_LEN};

    fn packet(kind: Kind, encoding: Encoding, run: u32, flow: u32, seq: u64) -> Vec<u8> {
        let mut bytes = vec![0; FULL_LEN];
        Header {
            kind,
            encoding,
            run,
            flow,
            seq,
            time: 5,
        }
        .emit(&mut bytes);
        bytes
    }

    fn data(run: u32, flow: u32, seq: u64) -> Vec<u8> {
        packet(Kind::Data, Encoding::Full, run, flow, seq)
    }

    #[test]
    fn another_run_is_counted_apart() {
        let mut tally = Tally::of_sink(None, false, None);
        for bytes in [data(7, 0, 0), data(8, 0, 0), data(7, 0, 1), vec![0; 40]] {
            assert!(!tally.take(&mut bytes.clone(), 10).unwrap());
        }
        tally.end_round();
        let report = tally.finish(0, PerFlow::All).unwrap();
        assert_eq!(
            (report.counts.received, report.foreign_run, report.malformed),
            (2, 1, 1)
        );
        assert!(!report.clean, "the sent counts are unknown");
    }

    #[test]
    fn compact_packets_fix_a_run_that_end_completes() {
        let mut tally = Tally::of_sink(None, false, None);
        tally
            .take(
                &mut packet(Kind::Data, Encoding::Compact, 0x10007, 0, 0),
                10,
            )
            .unwrap();
        let mut end = EndCounts {
            first: 0,
            flows: 2,
            counts: vec![1, 1],
        }
        .emit(0x10007, 5);
        assert!(tally.take(&mut end, 11).unwrap());
        assert_eq!(Header::parse(&end).unwrap().kind, Kind::EndAck);
        assert_eq!(
            (tally.run(), tally.sent_known()),
            (Some(0x10007), Some("end"))
        );
        assert!(!tally.complete());
        tally
            .take(
                &mut packet(Kind::Data, Encoding::Compact, 0x10007, 1, 0),
                12,
            )
            .unwrap();
        assert!(tally.complete());
        assert!(tally.finish(0, PerFlow::None).unwrap().clean);
    }

    #[test]
    fn end_is_known_when_all_its_parts_are() {
        let mut tally = Tally::of_sink(Some(7), false, None);
        let part = |first| {
            EndCounts {
                first,
                flows: 2,
                counts: vec![0],
            }
            .emit(7, 5)
        };
        tally.take(&mut part(1), 1).unwrap();
        tally.take(&mut part(1), 2).unwrap();
        assert_eq!(tally.sent_known(), None);
        tally.take(&mut part(0), 3).unwrap();
        assert_eq!(tally.sent_known(), Some("end"));
    }

    #[test]
    fn an_echo_answers_data_and_the_sender_counts_it() {
        let (mut sink, mut sender) = (Tally::of_sink(None, true, None), Tally::of_sender(7, None));
        let mut bytes = packet(Kind::Data, Encoding::Compact, 7, 3, 0);
        assert!(sink.take(&mut bytes, 10).unwrap());
        assert!(!sender.take(&mut bytes, 25).unwrap());
        sender.end_round();
        sender.set_sent(&[0, 0, 0, 1], "sender");
        let report = sender.finish(0, PerFlow::All).unwrap();
        assert!(report.clean);
        assert_eq!(report.delay_ns.unwrap().max, 20);
    }

    #[test]
    fn a_new_greeting_decides_as_long_as_nothing_came() {
        let mut tally = Tally::of_sink(None, false, None);
        for run in [7, 8] {
            let mut hello = packet(Kind::Hello, Encoding::Full, run, 1, 0);
            assert!(tally.take(&mut hello, 1).unwrap());
            assert_eq!(Header::parse(&hello).unwrap().kind, Kind::HelloAck);
        }
        tally.take(&mut data(8, 0, 0), 2).unwrap();
        assert!(
            !tally
                .take(&mut packet(Kind::Hello, Encoding::Full, 9, 1, 0), 3)
                .unwrap()
        );
        assert_eq!((tally.run(), tally.packets()), (Some(8), 1));
    }
}
