//! One sending thread: asks the schedule what is due, hands it to the emitter, sleeps until more is.

use crate::clock::{now, sleep_until};
use crate::control::Control;
use crate::emitter::{BATCH, Emitter};
use crate::error::Result;
use crate::schedule::Stream;

/// The shortest sleep, ns: what falls due meanwhile goes out as one batch, and the core stays free.
const NAP: u64 = 50_000;
/// The longest sleep, ns: so often the sender looks at its [`Control`].
const TICK: u64 = 20_000_000;
/// Time a paced sender may take after the end to send what was due before it, ns.
const GRACE: u64 = 100_000_000;

/// What all threads of a run keep to.
pub struct Pace<'a> {
    /// Start of the run, CLOCK_MONOTONIC.
    pub start: u64,
    /// End of the run, ns after its start.
    pub duration: Option<u64>,
    /// The run ends when the active flows have sent their number of packets.
    pub by_count: bool,
    /// Packets per message.
    pub segments: u64,
    /// To stop it.
    pub control: &'a Control,
}

/// What a thread, or all of them, have sent.
pub struct Emitted {
    /// Why it ended: `duration`, `count`, `stopped`.
    pub ended_by: &'static str,
    /// Packets, per flow.
    pub sent: Vec<u64>,
    /// Packets.
    pub total: u64,
    /// First and last time anything was sent.
    pub span: Option<(u64, u64)>,
    /// The most a packet was behind its due time, ns.
    pub late_max: u64,
    /// ICMP errors the kernel reported.
    pub icmp_errors: u64,
    /// Times a queue on this host was full.
    pub full_queue: u64,
}

impl Emitted {
    /// This and what another thread sent.
    pub fn and(self, other: Emitted) -> Emitted {
        let span = match (self.span, other.span) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
        let sent = self
            .sent
            .iter()
            .zip(&other.sent)
            .map(|(a, b)| a + b)
            .collect();
        Emitted {
            ended_by: if other.ended_by == "stopped" {
                other.ended_by
            } else {
                self.ended_by
            },
            sent,
            total: self.total + other.total,
            span,
            late_max: self.late_max.max(other.late_max),
            icmp_errors: self.icmp_errors + other.icmp_errors,
            full_queue: self.full_queue + other.full_queue,
        }
    }
}

impl Pace<'_> {
    /// Send both streams to their end.
    pub fn emit(
        &self,
        mut active: Stream,
        mut quiet: Stream,
        mut emitter: Emitter<'_>,
    ) -> Result<Emitted> {
        let any_active = !active.is_done();
        let mut late_max = 0;
        let ended_by = loop {
            let at = now();
            let elapsed = at - self.start;
            if self.control.stopped() {
                break "stopped";
            }
            if self.is_over(elapsed, &active, &quiet) {
                break "duration";
            }
            if active.is_done() && (quiet.is_done() || self.by_count && any_active) {
                break if self.by_count { "count" } else { "duration" };
            }
            let before = emitter.total;
            for stream in [&mut quiet, &mut active] {
                let mut due = stream.due(elapsed).min(BATCH as u64 * self.segments);
                if let Some(next) = stream.next_due().filter(|_| due > 0 && stream.is_paced()) {
                    late_max = late_max.max(elapsed - next);
                }
                while due > 0 {
                    let (flow, count) = stream.take(due.min(self.segments));
                    emitter.add(flow, count, at)?;
                    due -= u64::from(count);
                }
            }
            emitter.flush()?;
            self.control.add_packets(emitter.total - before);
            if emitter.total == before {
                let next = [&quiet, &active]
                    .into_iter()
                    .filter_map(|s| s.next_due())
                    .min();
                let due = next.map_or(at + TICK, |next| self.start + next);
                sleep_until(due.clamp(at + NAP, at + TICK));
            }
        };
        Ok(Emitted {
            ended_by,
            sent: emitter.sent,
            total: emitter.total,
            span: emitter.span,
            late_max,
            icmp_errors: emitter.icmp_errors,
            full_queue: emitter.full_queue,
        })
    }

    /// Time is up; a paced stream that is behind gets a little more to send what was due.
    fn is_over(&self, elapsed: u64, active: &Stream, quiet: &Stream) -> bool {
        let Some(end) = self.duration else {
            return false;
        };
        let behind = |stream: &Stream| stream.is_paced() && !stream.is_done();
        let flood = !active.is_paced() && !active.is_done();
        let grace = if !flood && (behind(active) || behind(quiet)) {
            GRACE
        } else {
            0
        };
        elapsed >= end + grace
    }
}
