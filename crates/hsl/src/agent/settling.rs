//! When a flow is free again, and which packets never will be.

use super::{Agent, AgentError, Wait, api, now, system};
use crate::endpoint::State;
use crate::key::Key;

/// Flows looked at in one turn for whether they have settled.
const BATCH: usize = 512;
/// A count that stands still for this long while nothing is queued has lost packets.
const AUDIT_NS: u64 = 50_000_000;

impl Agent {
    /// Find flows that are free again, and packets that will never be.
    pub(super) fn settle(&mut self) -> Result<(), AgentError> {
        let time = now();
        let given_up = self
            .flushes
            .retry(&mut *self.shim, time)
            .map_err(system("cannot flush"))?;
        for id in given_up {
            self.markers.remove(&id.0);
            let answer = api::failure("a flush frame did not come back from every CPU's queue");
            self.finish_waits(
                |wait| matches!(wait, Wait::Flush { id: other } if *other == id),
                &answer,
            );
        }
        if self.settling.is_empty() {
            self.settling = self.endpoint.draining().into();
        }
        for _ in 0..BATCH.min(self.settling.len()) {
            let Some(key) = self.settling.pop_front() else {
                break;
            };
            let Some(count) = self.shim.count(&key) else {
                let _ = self.endpoint.settled(key);
                continue;
            };
            let quiet = time.saturating_sub(count.released_ns) > self.config.settle_us * 1_000;
            if count.outstanding <= 0 {
                self.still.remove(&key);
                // It may have been taken again since it was listed.
                if quiet && self.endpoint.state(&key) == State::Releasing {
                    self.lose(&key, count.overflowed, "the queue to the agent was full");
                    let _ = self.endpoint.settled(key);
                }
            } else if !self.busy && self.stands_still(key, count.captured, count.released, time) {
                let why = "captured packets never came back from the kernel";
                self.give_up(&key, count.outstanding as u32, why);
            }
        }
        if !self.busy {
            self.endpoint.sweep(time);
        }
        if self.endpoint.is_idle() {
            self.still.clear();
            self.shim.set_active(false);
        }
        Ok(())
    }

    fn stands_still(&mut self, key: Key, captured: u64, released: u64, time: u64) -> bool {
        let seen = self.still.entry(key).or_insert((captured, released, time));
        if (seen.0, seen.1) != (captured, released) {
            *seen = (captured, released, time);
        }
        let still = time - seen.2 > AUDIT_NS;
        if still {
            self.still.remove(&key);
        }
        still
    }
}
