//! Which start of a member this is: greater with each, and no other's.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bits below the milliseconds: they tell apart two that start within the same one. The rest lasts
/// until the year 2109.
const RANDOM_BITS: u32 = 22;

static LAST: AtomicU64 = AtomicU64::new(0);

/// An incarnation for a member that starts now, `now_ms` milliseconds after 1970: greater than all
/// that this process has drawn. Two members of one name and one incarnation would be taken for one:
/// milliseconds alone are not enough.
pub fn incarnation(now_ms: u64) -> u64 {
    // The standard library's hasher is seeded by the system: randomness without another dependency.
    let random = RandomState::new().build_hasher().finish() >> (64 - RANDOM_BITS);
    let drawn = now_ms << RANDOM_BITS | random;
    let next = |last: u64| Some(drawn.max(last + 1));
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    drawn.max(last.unwrap_or_default() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_one_millisecond_differ_and_the_later_is_greater() {
        let drawn: Vec<u64> = (0..10_000)
            .map(|_| incarnation(1_800_000_000_000))
            .collect();
        assert!(drawn.windows(2).all(|two| two[0] < two[1]));
    }

    #[test]
    fn a_later_millisecond_is_greater_whatever_was_drawn() {
        let at = |ms: u64| incarnation(ms);
        assert!((2_000_000_000_000..2_000_000_000_100).all(|ms| at(ms) < at(ms + 1)));
    }
}
