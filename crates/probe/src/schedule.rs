//! When which flow sends: pure arithmetic over the time since the start.
//!
//! A [`Stream`] is a set of flows that share one rate. Its packets are evenly spaced and go round
//! the flows in turn, so each flow gets an even share. Due times are computed from the packet's
//! number, never by adding intervals: the rate does not drift, and a sender that was held up sends
//! what is due at once.

/// A group of flows at one rate.
#[derive(Clone, Debug)]
pub struct Stream {
    first_flow: u32,
    flows: u32,
    /// Packets per second of all its flows; `None`: as fast as possible.
    rate: Option<f64>,
    /// Packets each flow sends in a row before the next flow's turn.
    burst: u32,
    /// Packets that leave as one message: they are due when the last of them is.
    unit: u32,
    /// Packets to issue in all.
    limit: u64,
    issued: u64,
    /// `issued = (round * flows + flow) * burst + in_burst`, kept as counters: no division per packet.
    flow: u32,
    in_burst: u32,
}

impl Stream {
    /// `flows` flows from number `first_flow` at `rate` packets per second together, `limit` packets
    /// in all, `burst` (≥ 1) in a row per flow.
    pub fn new(first_flow: u32, flows: u32, rate: Option<f64>, burst: u32, limit: u64) -> Stream {
        let limit = if flows == 0 || rate == Some(0.0) {
            0
        } else {
            limit
        };
        Stream {
            first_flow,
            flows,
            rate,
            burst,
            unit: 1,
            limit,
            issued: 0,
            flow: 0,
            in_burst: 0,
        }
    }

    /// Let packets leave `unit` (≥ 1, at most the burst) at a time.
    pub fn in_units_of(self, unit: u32) -> Stream {
        Stream { unit, ..self }
    }

    /// Packets that may be sent now, `elapsed` ns after the start.
    pub fn due(&self, elapsed: u64) -> u64 {
        let left = self.limit - self.issued;
        match self.rate {
            None => left,
            Some(rate) => {
                // The first packet is due at 0. The guess is corrected by the definition.
                let mut due = (elapsed as f64 * rate / 1e9) as u64 + 1;
                while due > 0 && self.due_time(due - 1) > elapsed {
                    due -= 1;
                }
                let due = due.saturating_sub(self.issued).min(left);
                if due == left {
                    due
                } else {
                    due - due % u64::from(self.unit)
                }
            }
        }
    }

    /// When packet `number` is due, ns after the start.
    fn due_time(&self, number: u64) -> u64 {
        self.rate
            .map_or(0, |rate| (number as f64 * 1e9 / rate).ceil() as u64)
    }

    /// When the next packet is due, ns after the start; `None`: there is none.
    pub fn next_due(&self) -> Option<u64> {
        let unit = u64::from(self.unit).min(self.limit - self.issued);
        (unit > 0).then(|| self.due_time(self.issued + unit - 1))
    }

    /// Take up to `most` packets of the flow whose turn it is: its number and how many. Ask for no
    /// more than what is due.
    pub fn take(&mut self, most: u64) -> (u32, u32) {
        debug_assert!(self.issued < self.limit && most > 0);
        let count = u64::from(self.burst - self.in_burst)
            .min(most)
            .min(self.limit - self.issued) as u32;
        let flow = self.first_flow + self.flow;
        self.issued += u64::from(count);
        self.in_burst += count;
        if self.in_burst == self.burst {
            self.in_burst = 0;
            self.flow += 1;
            if self.flow == self.flows {
                self.flow = 0;
            }
        }
        (flow, count)
    }

    /// Whether the stream is paced at all.
    pub fn is_paced(&self) -> bool {
        self.rate.is_some()
    }

    /// All packets have been taken.
    pub fn is_done(&self) -> bool {
        self.issued == self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn flows_take_turns_evenly_spaced() {
        let mut stream = Stream::new(5, 2, Some(1000.0), 1, 4);
        assert_eq!(
            (stream.due(0), stream.due(999_999), stream.due(1_000_000)),
            (1, 1, 2)
        );
        assert_eq!(
            [stream.take(1).0, stream.take(1).0, stream.take(1).0],
            [5, 6, 5]
        );
        assert_eq!((stream.due(0), stream.next_due()), (0, Some(3_000_000)));
        assert_eq!(stream.due(u64::MAX / 2), 1);
        stream.take(1);
        assert!(stream.is_done());
        assert_eq!(stream.next_due(), None);
    }

    #[test]
    fn a_flood_goes_in_bursts() {
        let mut stream = Stream::new(0, 2, None, 3, 8);
        assert_eq!(stream.due(0), 8);
        assert_eq!(
            [2, 2, 8, 8].map(|most| stream.take(most)),
            [(0, 2), (0, 1), (1, 3), (0, 2)]
        );
        assert!(stream.is_done());
    }

    #[test]
    fn a_unit_is_due_with_its_last_packet() {
        let mut stream = Stream::new(0, 1, Some(1000.0), 2, 5).in_units_of(2);
        assert_eq!(
            (
                stream.due(999_999),
                stream.due(1_000_000),
                stream.due(2_500_000)
            ),
            (0, 2, 2)
        );
        assert_eq!(stream.next_due(), Some(1_000_000));
        assert_eq!([stream.take(2), stream.take(2)], [(0, 2); 2]);
        assert_eq!(
            (stream.next_due(), stream.due(4_000_000)),
            (Some(4_000_000), 1),
            "the rest"
        );
    }

    #[test]
    fn no_flows_or_no_rate_is_done() {
        assert!(Stream::new(0, 0, None, 1, 9).is_done());
        assert!(Stream::new(0, 1, Some(0.0), 1, 9).is_done());
    }

    proptest! {
        /// What `next_due` promises, `due` keeps, and never earlier.
        #[test]
        fn due_and_next_due_agree(rate in 0.01f64..5e6, steps in 1u64..200) {
            let mut stream = Stream::new(0, 3, Some(rate), 1, u64::MAX);
            for _ in 0..steps {
                let at = stream.next_due().unwrap();
                prop_assert!(stream.due(at) >= 1);
                prop_assert!(at == 0 || stream.due(at - 1) == 0);
                stream.take(1);
            }
        }
    }
}
