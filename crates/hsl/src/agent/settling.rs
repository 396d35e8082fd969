//! When a flow is free again, and which packets never will be.

use super::audit::Finding;
use super::{Agent, AgentError, Wait, api, now};
use crate::endpoint::State;
use crate::key::{Key, Side};
use crate::shim::shared::Count;

/// Flows looked at in one turn for whether they have settled.
const BATCH: usize = 512;

impl Agent {
    /// Find flows that are free again, and packets that will never be.
    pub(super) fn settle(&mut self) -> Result<(), AgentError> {
        let time = now();
        let given_up = self.flushes.retry(&mut *self.shim, time);
        for id in given_up {
            let why = "a flush frame did not come back from every CPU's queue";
            if let Some(marker) = self.markers.remove(&id.0) {
                self.fence_failed(&marker, why);
            }
            self.audit.ended(id.0, false);
            self.flushed(id.0, true)?;
            let answer = api::failure(why);
            self.finish_waits(
                |wait| matches!(wait, Wait::Flush { id: other } if *other == id),
                &answer,
            );
        }
        if let Some(count) = self.endpoint.writes().and_then(|key| self.shim.count(key)) {
            self.place.suit(&count, true, time);
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
            if !quiet || count.outstanding > 0 {
                self.place.suit(&count, false, time);
            }
            if count.outstanding <= 0 {
                self.audit.forget(&key);
                // It may have been taken again since it was listed.
                if quiet && self.endpoint.state(&key) == State::Releasing {
                    let told = self.unseen.remove(&key).unwrap_or(0);
                    self.lose(
                        &key,
                        count.overflowed - told,
                        "the queue to the agent was full",
                    );
                    if self.endpoint.settled(key).is_err() {
                        self.unseen.insert(key, count.overflowed);
                    }
                }
            } else if !self.busy && !self.strays_under_way() && self.endpoint.is_draining(&key) {
                self.audit(key, &count, time);
            }
        }
        self.act()?; // counts of settled flows are gone before the others are looked at
        if !self.busy {
            if self.endpoint.is_ending() {
                self.count_unseen();
            }
            self.endpoint.sweep(time);
        }
        if self.endpoint.is_idle() {
            if std::mem::take(&mut self.active) {
                self.rest()?;
            }
            self.place.leave();
        } else {
            self.notice_full_table(time)?;
        }
        Ok(())
    }

    /// Nothing of this flow is kept, waits to be read or is written, and yet it is not free.
    fn audit(&mut self, key: Key, count: &Count, time: u64) {
        match self.audit.look(key, count, time) {
            Finding::Wait => {}
            Finding::Flush => {
                let side = key.side();
                match self.flushes.begin(&mut *self.shim, side, time) {
                    Ok(flush) => self.audit.begun(side, flush.0, now().saturating_sub(time)),
                    Err(_) => self.audit.put_off(side, time),
                }
            }
            Finding::Lost(packets) => {
                let why = "captured packets never came back from the kernel";
                self.give_up(&key, packets, why);
            }
        }
    }

    /// Flows of which not one packet got here may have lost some: the queue to us was full.
    fn count_unseen(&mut self) {
        for (key, count) in self.shim.counts() {
            if count.overflowed == 0 || self.endpoint.state(&key) != State::Passing {
                continue;
            }
            let told = self.unseen.entry(key).or_default();
            let news = count.overflowed - *told;
            *told = count.overflowed;
            if news > 0 {
                self.lost += news;
                let why = "the queue to the agent was full";
                self.endpoint.lost_unseen(&key, news, why);
            }
        }
    }

    /// Nothing is held any more: counts of flows that never got here may go.
    fn rest(&mut self) -> Result<(), AgentError> {
        for (key, count) in self.shim.counts() {
            if count.outstanding <= 0 {
                self.shim.drop_count(&key)?;
            }
        }
        self.unseen.clear();
        self.audit.clear();
        self.shim.set_active(false);
        Ok(())
    }

    /// The programs had no room to count more flows and let them pass: let all go, in order.
    fn notice_full_table(&mut self, time: u64) -> Result<(), AgentError> {
        let mut full = 0;
        for side in Side::ALL {
            full += self.shim.counters(side)?.table_full;
        }
        if std::mem::replace(&mut self.table_full, full) >= full {
            return Ok(());
        }
        let why = "the table of flows was full; raise `table_size` or hold fewer flows at once";
        let holds: Vec<_> = self.endpoint.holds().map(|hold| hold.id).collect();
        for id in holds {
            // Refused for those that are on their way out already.
            let _ = self.endpoint.abort(id, why, time);
        }
        Ok(())
    }
}
