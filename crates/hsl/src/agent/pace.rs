//! How many packets may be released by now, at a set rate; pure.
//!
//! The virtual scheduling algorithm of ITU-T I.371: a packet may go up to [`SLACK_NS`] before it is
//! due, and what was not used is not saved up beyond that.

/// How much may go at once: what the rate gives in this time, and one more.
const SLACK_NS: u64 = 1_000_000;

/// A rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    interval_ns: u64,
    due_ns: u64,
}

impl Pace {
    /// `rate` in packets a second; 0 is no pace.
    pub(super) fn new(rate: u64) -> Option<Self> {
        let interval_ns = 1_000_000_000u64.checked_div(rate)?;
        Some(Self {
            interval_ns: interval_ns.max(1),
            due_ns: 0,
        })
    }

    /// How many may go at this time.
    pub(super) fn room(&self, time: u64) -> u64 {
        let early = (time + SLACK_NS).checked_sub(self.due_ns.max(time));
        early.map_or(0, |early| early / self.interval_ns + 1)
    }

    /// Nanoseconds until several may go at once; until then the CPU is the others'.
    pub(super) fn wait(&self, time: u64) -> u64 {
        self.due_ns.saturating_sub(time + SLACK_NS / 2)
    }

    /// One has gone.
    pub(super) fn spend(&mut self, time: u64) {
        self.due_ns = self.due_ns.max(time) + self.interval_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn no_rate_is_no_pace() {
        assert!(Pace::new(0).is_none());
    }

    proptest! {
        #[test]
        fn no_span_of_time_has_more_than_the_rate_and_a_slack_and_none_is_kept_waiting_for_ever(
            rate in 1u64..2_000_000,
            steps in prop::collection::vec(0u64..5_000_000, 1..60),
        ) {
            let mut pace = Pace::new(rate).unwrap();
            let interval = 1_000_000_000 / rate;
            let (mut time, mut gone) = (7, Vec::new());
            for step in steps {
                time += step;
                let room = pace.room(time).min(200);
                for _ in 0..room {
                    pace.spend(time);
                }
                gone.push((time, room));
                prop_assert!(pace.room(time + pace.wait(time)) > 0);
                prop_assert!(pace.wait(time) <= SLACK_NS / 2 + interval);
            }
            for from in 0..gone.len() {
                let mut sum = 0;
                for (to, room) in &gone[from..] {
                    sum += room;
                    prop_assert!(sum <= (to - gone[from].0 + SLACK_NS) / interval + 1);
                }
            }
        }
    }
}
