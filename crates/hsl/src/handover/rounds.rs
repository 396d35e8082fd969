//! Marker rounds of one side, where flows are taken.
//!
//! The first packet of a flow on a side proves that the side's switch has turned for it. One
//! round at a time is under way: it fences the flows that had been seen when its marker was sent.
//! Flows that are seen meanwhile gather for the next one, and for half a millisecond from the last
//! one's beginning: thousands of new flows a second would else cost a flush of all queues each.
//!
//! Times are nanoseconds of the agent's clock.

use crate::key::Key;

use super::record::FINAL;

/// From the beginning of a round to that of the next one.
const PACE_NS: u64 = 500_000;

/// A round whose marker is under way.
#[derive(Clone, Debug)]
pub struct Round {
    /// Its number, from 1.
    pub number: u32,
    /// The flows that it fences, seen before its marker was sent.
    pub flows: Vec<Key>,
    /// When the first of them was seen.
    since_ns: u64,
}

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    last: u32,
    under_way: Option<Round>,
    gathering: Vec<Key>,
    /// When the first of those that gather was seen.
    since_ns: u64,
    /// When the next round may begin.
    next_ns: u64,
    /// Fenced, and waiting for the state.
    fenced: Vec<Key>,
    /// Those of them that were seen to wait for it.
    waiting: Vec<Key>,
    /// Every flow of this side is fenced, those that never came included.
    all: bool,
    longest_ns: Option<u64>,
}

impl Rounds {
    /// A flow has come. True if a new round is to be asked for.
    pub fn seen(&mut self, key: Key, now: u64) -> bool {
        if self.all {
            self.fenced.push(key);
            return false;
        }
        if self.gathering.is_empty() {
            self.since_ns = now;
        }
        self.gathering.push(key);
        self.begin(now)
    }

    /// Begin a round if it is time for one. True if its marker is to be sent.
    pub fn begin(&mut self, now: u64) -> bool {
        if self.next_due().is_none_or(|due| now < due) {
            return false;
        }
        self.next_ns = now + PACE_NS;
        self.last += 1;
        self.under_way = Some(Round {
            number: self.last,
            flows: std::mem::take(&mut self.gathering),
            since_ns: self.since_ns,
        });
        true
    }

    /// When a round is to begin.
    pub fn next_due(&self) -> Option<u64> {
        let waits = self.under_way.is_none() && !self.gathering.is_empty();
        waits.then_some(self.next_ns)
    }

    /// The round that is waited for.
    pub fn under_way(&self) -> Option<&Round> {
        self.under_way.as_ref()
    }

    /// No packet from before the marker of `round` can come any more. True if a new round is to
    /// be asked for. Answers that come twice, or late, change nothing.
    pub fn fence(&mut self, round: u32, now: u64) -> bool {
        if round == FINAL {
            self.all = true;
            if !self.gathering.is_empty() {
                self.measure(self.since_ns, now);
            }
            if let Some(round) = self.under_way.take() {
                self.measure(round.since_ns, now);
                self.fenced.extend(round.flows);
            }
            self.fenced.append(&mut self.gathering);
            return false;
        }
        match self
            .under_way
            .take_if(|under_way| under_way.number == round)
        {
            Some(round) => {
                self.measure(round.since_ns, now);
                self.fenced.extend(round.flows);
                self.begin(now)
            }
            None => false,
        }
    }

    fn measure(&mut self, since: u64, now: u64) {
        self.longest_ns = self.longest_ns.max(Some(now.saturating_sub(since)));
    }

    /// Rounds until now.
    pub fn count(&self) -> u32 {
        self.last
    }

    /// From a flow's first packet until it was fenced, of the one that took longest.
    pub fn longest_ns(&self) -> Option<u64> {
        self.longest_ns
    }

    /// The flows that wait for nothing but the state; empties the list.
    pub fn take_fenced(&mut self) -> Vec<Key> {
        let mut taken = std::mem::take(&mut self.waiting);
        taken.append(&mut self.fenced);
        taken
    }

    /// Those of them that do not wait for it, though it is not in. The others are not asked again.
    pub fn take_stateless(&mut self, waits: impl Fn(&Key) -> bool) -> Vec<Key> {
        let fenced = std::mem::take(&mut self.fenced);
        let (waiting, taken) = fenced.into_iter().partition::<Vec<_>, _>(waits);
        self.waiting.extend(waiting);
        taken
    }

    /// A flow that has been let go is held again.
    pub fn hold_again(&mut self, key: Key) {
        self.waiting.push(key);
    }

    /// Every flow of this side is fenced.
    pub fn is_final(&self) -> bool {
        self.all
    }
}
