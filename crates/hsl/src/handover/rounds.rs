//! Marker rounds of one side, where flows are taken.
//!
//! The first packet of a flow on a side proves that the side's switch has turned for it. One
//! round at a time is under way: it fences the flows that had been seen when it was asked for.
//! Flows that are seen meanwhile gather for the next one.
//!
//! Times are nanoseconds of the agent's clock.

use crate::key::Key;

use super::record::FINAL;

/// A round whose marker is under way.
#[derive(Clone, Debug)]
pub struct Round {
    /// Its number, from 1.
    pub number: u32,
    /// The flows that it fences, seen before it was asked for.
    pub flows: Vec<Key>,
    began_ns: u64,
}

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub struct Rounds {
    last: u32,
    under_way: Option<Round>,
    gathering: Vec<Key>,
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
        self.gathering.push(key);
        self.begin(now)
    }

    fn begin(&mut self, now: u64) -> bool {
        if self.under_way.is_some() || self.gathering.is_empty() {
            return false;
        }
        self.last += 1;
        self.under_way = Some(Round {
            number: self.last,
            flows: std::mem::take(&mut self.gathering),
            began_ns: now,
        });
        true
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
            let round = self.under_way.take().map(|round| round.flows);
            self.fenced.extend(round.into_iter().flatten());
            self.fenced.append(&mut self.gathering);
            return false;
        }
        match self
            .under_way
            .take_if(|under_way| under_way.number == round)
        {
            Some(round) => {
                let took = now.saturating_sub(round.began_ns);
                self.longest_ns = self.longest_ns.max(Some(took));
                self.fenced.extend(round.flows);
                self.begin(now)
            }
            None => false,
        }
    }

    /// Rounds until now.
    pub fn count(&self) -> u32 {
        self.last
    }

    /// From a round's first marker until the flows were fenced, of the one that took longest.
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
