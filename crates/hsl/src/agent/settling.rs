//! When a flow is free again, and which packets never will be.

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::{Agent, AgentError, Wait, api, now, system};
use crate::endpoint::State;
use crate::key::Key;
use crate::shim::shared::Count;

/// Flows looked at in one turn for whether they have settled.
const BATCH: usize = 512;
/// A count that stands still for this long while nothing is queued has lost packets.
const AUDIT_NS: u64 = 50_000_000;
/// How long the agent stays on a CPU that it moved to.
const STAY_NS: u64 = 5_000_000;

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
        if let Some(count) = self.endpoint.writes().and_then(|key| self.shim.count(key)) {
            self.follow(&count, time);
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
            if !quiet {
                self.follow(&count, time);
            }
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
            self.move_home();
        }
        Ok(())
    }

    /// Release from the CPU on which the flow arrives. The programs let a flow on to the fast path
    /// there, or when its last release is a while ago; without steering released packets come
    /// in on *our* CPU, and a busy flow that arrives on another one leaves no such while.
    fn follow(&mut self, count: &Count, time: u64) {
        let there = count.released == 0 || count.cpu == count.captured_cpu;
        if there || time.saturating_sub(self.moved_ns) < STAY_NS {
            return;
        }
        self.moved_ns = time;
        self.away = true;
        let mut only = CpuSet::new();
        // Where that is forbidden, or the CPU has gone, the flow settles in its first pause.
        let _ = only
            .set(count.captured_cpu as usize)
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &only));
    }

    fn move_home(&mut self) {
        if std::mem::take(&mut self.away) {
            let _ = sched_setaffinity(Pid::from_raw(0), &self.home);
        }
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
