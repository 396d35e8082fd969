//! A queue that gives back what it was given a fixed time later, in order: pure.
//!
//! It stands in for netem on kernels without it. Bounded in bytes; what does not fit is refused, so
//! that the caller counts it.

use std::collections::VecDeque;

/// Things with a size in bytes.
pub trait Bytes {
    /// Its size.
    fn size(&self) -> usize;
}

/// The queue.
#[derive(Debug)]
pub struct DelayLine<T> {
    delay: u64,
    limit: usize,
    /// Due times never decrease from front to back.
    queue: VecDeque<(u64, T)>,
    /// Sum of the sizes in `queue`, at most `limit`.
    bytes: usize,
}

impl<T: Bytes> DelayLine<T> {
    /// Hold everything for `delay` ns, at most `limit` bytes of it at a time.
    pub fn new(delay: u64, limit: usize) -> DelayLine<T> {
        DelayLine {
            delay,
            limit,
            queue: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Take something in at time `now`; false: there is no room.
    pub fn push(&mut self, thing: T, now: u64) -> bool {
        if self.bytes + thing.size() > self.limit {
            return false;
        }
        let after = self.queue.back().map_or(0, |(due, _)| *due);
        self.bytes += thing.size();
        self.queue.push_back(((now + self.delay).max(after), thing));
        true
    }

    /// Give back the next thing that is due at time `now`.
    pub fn pop(&mut self, now: u64) -> Option<T> {
        if self.next_due()? > now {
            return None;
        }
        let (_, thing) = self.queue.pop_front()?;
        self.bytes -= thing.size();
        Some(thing)
    }

    /// When the next thing is due.
    pub fn next_due(&self) -> Option<u64> {
        self.queue.front().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Bytes for &str {
        fn size(&self) -> usize {
            self.len()
        }
    }

    #[test]
    fn in_order_and_not_before_time() {
        let mut line = DelayLine::new(100, 10);
        assert!(line.push("one", 5) && line.push("two", 3) && !line.push("three", 6));
        assert_eq!((line.next_due(), line.pop(104)), (Some(105), None));
        assert_eq!(
            [line.pop(105), line.pop(105), line.pop(105)],
            [Some("one"), Some("two"), None]
        );
        assert!(line.push("three", 6), "room again");
    }
}
