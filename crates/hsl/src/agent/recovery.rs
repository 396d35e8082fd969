//! Starting over: after the programs have failed open, and after another agent's end.
//!
//! Whatever was captured and not let through is late now and must never be released. The
//! programs' own counts say how much that is, to the packet, once everything in the kernel's
//! queues has come through.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{Agent, AgentError, now};
use crate::key::{Key, Side};
use crate::shim::bpf::Replaced;
use crate::shim::tap::VNET_HEADER;

/// How long the flush may take before the counts are believed without it.
const PATIENCE_NS: u64 = 2_000_000_000;
/// How long agents that were sent strays may take to say that they have them.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

impl Agent {
    /// At the start: settle what an agent before us left outstanding.
    pub(super) fn take_over(&mut self) -> Result<(), AgentError> {
        let earlier = self.shim.epoch() > 0;
        let lost = self.reset("an earlier agent ended while it held them")?;
        if earlier {
            self.took_over = Some(lost);
            eprintln!(
                "flowferry hsl: took over from an earlier agent; {lost} packets that it held are lost"
            );
        }
        Ok(())
    }

    /// At the start: count what an agent with tables of another size held, if it can be told.
    pub(super) fn take_the_place_of(&mut self, replaced: &Replaced) {
        self.took_over = replaced.held;
        self.lost += replaced.held.unwrap_or(0);
        let lost = replaced.held.map_or_else(
            || {
                "what it held, if it was not stopped in order, is lost and cannot be counted"
                    .to_owned()
            },
            |packets| format!("{packets} packets that it held are lost"),
        );
        eprintln!(
            "flowferry hsl: replaced the programs of an agent of another version or `table_size`; {lost}"
        );
    }

    /// While running: throw away what is late and begin a new epoch.
    pub(super) fn start_over(&mut self, why: &str) -> Result<(), AgentError> {
        let lost = self.reset(why)?;
        self.publish(&json!({
            "event": "started_over",
            "epoch": self.shim.epoch(),
            "lost_packets": lost,
            "why": why,
        }));
        eprintln!("flowferry hsl: {lost} packets lost and counted: {why}");
        Ok(())
    }

    fn reset(&mut self, why: &str) -> Result<u64, AgentError> {
        self.shim.trip();
        self.shim.repair().inspect_err(|_| self.count_all_lost())?;
        self.come_through();
        self.conduct.purposes.clear();
        self.end_streams();
        // What waits in streams to us is as late: unread it is not taken, and its senders count it.
        self.peers.takers.clear();
        let mut outstanding: Vec<(Key, u64)> = Vec::new();
        for (key, count) in self.shim.counts() {
            let late = count.outstanding.max(0) as u64;
            if late > 0 && self.shim.lose(&key, late as u32).is_err() {
                self.shim.trip(); // the TAP went again; these are counted here all the same
            }
            let told = self.unseen.remove(&key).unwrap_or(0);
            outstanding.push((key, count.late() - told));
        }
        let time = now();
        let lost = self.endpoint.discard(&outstanding, why, time);
        self.lost += lost;
        self.act()?;
        self.settling.clear();
        self.audit.clear();
        self.shim.begin_epoch(now())?;
        self.last_beat = now();
        self.start_handovers_over()?;
        Ok(lost)
    }

    /// Strays that have not been sent will not be any more: they are outstanding still. Those that
    /// are under way the other end takes or not; only it can say.
    fn end_streams(&mut self) {
        let deadline = Instant::now() + LAST_ANSWERS;
        let mut senders = std::mem::take(&mut self.peers.senders);
        senders.retain(|_, sender| sender.end().is_ok());
        for sender in senders.values_mut() {
            let mut taken = Vec::new();
            // What a broken or silent stream no longer says is lost.
            let _ = sender.await_taken(deadline, &mut taken);
            self.forget_taken(&taken);
        }
    }

    /// Flush both sides and throw away what is read meanwhile; its count stays outstanding.
    fn come_through(&mut self) {
        let began = now();
        for side in Side::ALL {
            if let Err(error) = self.flushes.begin(&mut *self.shim, side, began) {
                eprintln!(
                    "flowferry hsl: cannot flush {side} ({error}); counts may be a few short"
                );
            }
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            let mut any = false;
            for side in Side::ALL {
                while let Ok(Some(length)) = self.shim.read(side, &mut buffer) {
                    any = true;
                    if let Some(Some(flushed)) =
                        self.flushes.on_frame(&buffer[VNET_HEADER..length], now())
                    {
                        self.answer_flushed(flushed);
                    }
                }
            }
            if !any {
                if self.flushes.is_empty() || now() - began > PATIENCE_NS {
                    break;
                }
                std::thread::yield_now();
                self.flushes.retry(&mut *self.shim, now());
            }
        }
        self.buffer = buffer;
    }

    /// The interfaces are gone, and the function with them: say what that cost.
    pub(super) fn count_all_lost(&mut self) {
        let held: i64 = self
            .shim
            .counts()
            .iter()
            .map(|(_, count)| count.outstanding.max(0))
            .sum();
        self.lost += held as u64;
        eprintln!(
            "flowferry hsl: {held} packets lost and counted: the function's interfaces are gone"
        );
    }
}
