//! Kept packets: first in, first out per flow, within one bound for all.

use std::collections::VecDeque;

/// Bytes that a kept frame costs beyond its own.
const OVERHEAD: usize = 64;

/// What all queues of an endpoint may hold together, and do.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// The most bytes that are kept.
    pub limit: usize,
    /// The bytes kept now; never above `limit`.
    used: usize,
}

impl Budget {
    /// An empty budget of `limit` bytes.
    pub fn new(limit: usize) -> Budget {
        Budget { limit, used: 0 }
    }

    /// Charge for a frame; false, and nothing charged, if there is no room.
    pub(super) fn take(&mut self, frame: &[u8]) -> bool {
        let cost = frame.len() + OVERHEAD;
        let fits = self.used + cost <= self.limit;
        if fits {
            self.used += cost;
        }
        fits
    }

    /// Take the charge for a frame back.
    pub(super) fn give(&mut self, frame: &[u8]) {
        self.used -= frame.len() + OVERHEAD;
    }

    /// Bytes kept now.
    pub fn used(&self) -> usize {
        self.used
    }

    /// From here on a full buffer, which can only lose, is near.
    pub fn half_full(&self) -> bool {
        self.used > self.limit / 2
    }
}

/// One flow's kept packets on one side. Strays come first: they left the sender earlier.
#[derive(Debug, Default)]
pub struct Queue {
    strays: VecDeque<Box<[u8]>>,
    captured: VecDeque<Box<[u8]>>,
    bytes: usize,
}

/// Which of a queue's two parts a frame is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Followed the flow from another instance.
    Stray,
    /// Captured here.
    Captured,
}

impl Queue {
    /// Keep a copy of `frame`; false, and nothing kept, if the budget does not allow it.
    pub fn push(&mut self, part: Part, frame: &[u8], budget: &mut Budget) -> bool {
        if !budget.take(frame) {
            return false;
        }
        self.bytes += frame.len() + OVERHEAD;
        match part {
            Part::Stray => self.strays.push_back(frame.into()),
            Part::Captured => self.captured.push_back(frame.into()),
        }
        true
    }

    /// Take the packet that goes next.
    pub fn pop(&mut self, budget: &mut Budget) -> Option<(Part, Box<[u8]>)> {
        let (part, frame) = match self.strays.pop_front() {
            Some(frame) => (Part::Stray, frame),
            None => (Part::Captured, self.captured.pop_front()?),
        };
        self.bytes -= frame.len() + OVERHEAD;
        budget.give(&frame);
        Some((part, frame))
    }

    /// Take the stray that goes next.
    pub fn pop_stray(&mut self, budget: &mut Budget) -> Option<(Part, Box<[u8]>)> {
        match self.strays.is_empty() {
            true => None,
            false => self.pop(budget),
        }
    }

    /// Packets of either part: (strays, captured).
    pub fn lengths(&self) -> (usize, usize) {
        (self.strays.len(), self.captured.len())
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.strays.is_empty() && self.captured.is_empty()
    }

    /// What this queue takes of the budget.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Throw everything away; how many packets that were: (strays, captured).
    pub fn clear(&mut self, budget: &mut Budget) -> (usize, usize) {
        let lost = self.lengths();
        budget.used -= self.bytes;
        *self = Queue::default();
        lost
    }
}
