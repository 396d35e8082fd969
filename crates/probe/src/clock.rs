//! The clocks of a run, and sleeping until a point in time.

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep};
use std::time::Duration;

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("Linux always has this clock");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// CLOCK_MONOTONIC in ns.
pub fn now() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// Sleep until `due` (CLOCK_MONOTONIC, ns); a signal may end the sleep earlier.
pub fn sleep_until(due: u64) {
    let at = TimeSpec::from_duration(Duration::from_nanos(due));
    // An interrupted sleep is one that ended early: callers look at the clock again.
    let _ = clock_nanosleep(
        ClockId::CLOCK_MONOTONIC,
        ClockNanosleepFlags::TIMER_ABSTIME,
        &at,
    );
}

/// Turns the kernel's receive stamps (CLOCK_REALTIME) into CLOCK_MONOTONIC. Renewed for every
/// round of reading, so that a correction of the wall clock reaches at most one round.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    now: u64,
    real: u64,
}

impl WallClock {
    /// Read both clocks.
    pub fn sample() -> WallClock {
        WallClock {
            real: read(ClockId::CLOCK_REALTIME),
            now: now(),
        }
    }

    /// The monotonic time of a wall-clock stamp; never later than the sample.
    pub fn monotonic(&self, stamp: u64) -> u64 {
        self.now - self.real.saturating_sub(stamp).min(self.now)
    }

    /// Whether a wall-clock stamp is younger than the sample.
    pub fn is_before(&self, stamp: u64) -> bool {
        stamp > self.real
    }

    /// When the sample was taken, CLOCK_MONOTONIC.
    pub fn now(&self) -> u64 {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_keep_their_distance_and_never_lie_ahead() {
        let clock = WallClock {
            now: 5_000,
            real: 90_000,
        };
        assert_eq!(clock.monotonic(89_000), 4_000);
        assert_eq!(clock.monotonic(91_000), 5_000);
        assert_eq!(clock.monotonic(0), 0);
    }
}
