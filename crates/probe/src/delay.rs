//! Delays and arrival times: percentiles, and the longest time nothing arrived. Pure.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Delays above this many ns (18 minutes) are counted at it; the exact maximum is kept apart.
const HIGHEST: u64 = 1 << 40;
/// Significant decimal digits of the percentiles of all flows together.
const DIGITS_TOTAL: u8 = 3;
/// The same for one flow: about 3 % of resolution, a few hundred bytes to 2 KiB for each of 20,000.
const DIGITS_FLOW: u8 = 1;

/// A distribution of delays in ns.
#[derive(Clone, Debug)]
pub struct Delays {
    histogram: Histogram<u32>,
    min: u64,
    max: u64,
    sum: u128,
    count: u64,
}

/// Delays as reported, in ns. Minimum, mean and maximum are exact.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DelayReport {
    /// Shortest.
    pub min: u64,
    /// Arithmetic mean.
    pub mean: u64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// Longest.
    pub max: u64,
}

impl Delays {
    /// For all flows together.
    pub fn of_total() -> Delays {
        Delays::with_digits(DIGITS_TOTAL)
    }

    /// For one of many flows.
    pub fn of_flow() -> Delays {
        Delays::with_digits(DIGITS_FLOW)
    }

    fn with_digits(digits: u8) -> Delays {
        let mut histogram = Histogram::new(digits).expect("1 to 5 digits are valid");
        histogram.auto(true);
        Delays {
            histogram,
            min: u64::MAX,
            max: 0,
            sum: 0,
            count: 0,
        }
    }

    /// Add one delay.
    pub fn record(&mut self, ns: u64) {
        self.histogram
            .record(ns.clamp(1, HIGHEST))
            .expect("it resizes by itself up to HIGHEST");
        self.min = self.min.min(ns);
        self.max = self.max.max(ns);
        self.sum += u128::from(ns);
        self.count += 1;
    }

    /// The distribution; `None` if nothing was recorded.
    pub fn report(&self) -> Option<DelayReport> {
        if self.count == 0 {
            return None;
        }
        let at = |quantile| {
            self.histogram
                .value_at_quantile(quantile)
                .clamp(self.min, self.max)
        };
        Some(DelayReport {
            min: self.min,
            mean: (self.sum / u128::from(self.count)) as u64,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.max,
        })
    }
}

/// When packets arrived: first, last, and the longest time between two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrivals {
    span: Option<(u64, u64)>,
    gap: u64,
    gap_start: u64,
}

impl Arrivals {
    /// Take in one arrival time, ns. Times that step back do not open a gap.
    pub fn record(&mut self, at: u64) {
        let Some((_, last)) = &mut self.span else {
            self.span = Some((at, at));
            return;
        };
        if at > *last {
            if at - *last > self.gap {
                self.gap = at - *last;
                self.gap_start = *last;
            }
            *last = at;
        }
    }

    /// First and last arrival.
    pub fn span(&self) -> Option<(u64, u64)> {
        self.span
    }

    /// Length of the longest gap, and the arrival it began with. Zero for fewer than two arrivals.
    pub fn longest_gap(&self) -> (u64, u64) {
        (self.gap, self.gap_start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_a_ramp() {
        let mut delays = Delays::of_total();
        (1..=1000).for_each(|us| delays.record(us * 1000));
        let report = delays.report().unwrap();
        assert_eq!(
            (report.min, report.mean, report.max),
            (1000, 500_500, 1_000_000)
        );
        assert!(report.p50.abs_diff(500_000) < 1000, "{report:?}");
        assert!(report.p999.abs_diff(999_000) < 1000, "{report:?}");
        assert_eq!(Delays::of_flow().report(), None);
    }

    #[test]
    fn a_delay_beyond_the_scale_keeps_its_maximum() {
        let mut delays = Delays::of_flow();
        delays.record(u64::MAX);
        assert_eq!(delays.report().unwrap().max, u64::MAX);
    }

    #[test]
    fn the_longest_gap_and_where_it_began() {
        let mut arrivals = Arrivals::default();
        [10, 20, 70, 65, 90]
            .into_iter()
            .for_each(|at| arrivals.record(at));
        assert_eq!(arrivals.span(), Some((10, 90)));
        assert_eq!(arrivals.longest_gap(), (50, 20));
    }
}
