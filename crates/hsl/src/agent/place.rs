//! On which CPU the agent runs.
//!
//! Without receive packet steering, released packets come in on the CPU of whoever writes them:
//! ours. The programs let a flow on to the fast path where it arrives, or when its last release is
//! a while ago, so the agent follows a busy flow to its CPU. With steering they come in where their
//! flow belongs, wherever we run; there, a flow's whole path and an agent that real-time priority
//! keeps in its seat would share one CPU beside idle ones, so the agent makes room.

use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use crate::shim::shared::Count;

/// How long the agent stays where it has moved: what it wrote elsewhere has come in by then.
const STAY_NS: u64 = 5_000_000;
/// Looks in a row, at flows with packets to be written, that find them arriving where we run.
const CROWDED: u32 = 64;

/// How long one flow's packets speak for all: another may be steered, and steering may be turned on.
const BELIEVED_NS: u64 = 60_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Move {
    To(usize),
    AwayFrom(usize),
}

/// When to move; pure.
#[derive(Debug, Default)]
struct Choice {
    on: usize,
    /// Since when we run there, whoever brought us, and when we last moved, in nanoseconds.
    since_ns: u64,
    moved_ns: u64,
    crowded: u32,
    /// Until then making room is no use: released packets came in where we ran, and not where their
    /// flow arrived.
    unsteered_ns: u64,
}

impl Choice {
    /// `busy`: packets of this flow wait to be written. `on`: the CPU that we run on.
    fn look(&mut self, count: &Count, busy: bool, on: usize, time: u64) -> Option<Move> {
        if on != self.on {
            (self.on, self.since_ns, self.crowded) = (on, time, 0);
        }
        if count.released == 0 || time.saturating_sub(self.moved_ns) < STAY_NS {
            return None;
        }
        let (arrives, returns) = (count.captured_cpu as usize, count.cpu as usize);
        if arrives != returns {
            if returns == on && count.released_ns > self.since_ns + STAY_NS {
                self.unsteered_ns = time + BELIEVED_NS;
            }
            self.moved_ns = time;
            return Some(Move::To(arrives));
        }
        if busy {
            self.crowded = if arrives == on { self.crowded + 1 } else { 0 };
        }
        if self.crowded < CROWDED || time < self.unsteered_ns {
            return None;
        }
        (self.crowded, self.moved_ns) = (0, time);
        Some(Move::AwayFrom(on))
    }
}

/// The calling thread's place.
pub(super) struct Place {
    /// The CPUs that it may run on.
    home: CpuSet,
    /// It keeps to some of them, for a flow's sake.
    away: bool,
    choice: Choice,
}

impl Place {
    pub(super) fn here() -> nix::Result<Self> {
        Ok(Self {
            home: sched_getaffinity(Pid::from_raw(0))?,
            away: false,
            choice: Choice::default(),
        })
    }

    /// Look at a flow that is not free yet, and go where it is served best.
    pub(super) fn suit(&mut self, count: &Count, busy: bool, time: u64) {
        let Ok(on) = sched_getcpu() else {
            return;
        };
        let only = match self.choice.look(count, busy, on, time) {
            None => return,
            Some(Move::To(cpu)) => self.home_if(|other| other == cpu),
            Some(Move::AwayFrom(cpu)) => self.home_if(|other| other != cpu),
        };
        // Where that is not allowed, or the CPU has gone, the flow settles in its first pause.
        if let Some(only) = only {
            self.away = sched_setaffinity(Pid::from_raw(0), &only).is_ok() || self.away;
        }
    }

    /// Nothing is held: any CPU will do.
    pub(super) fn leave(&mut self) {
        if std::mem::take(&mut self.away) {
            let _ = sched_setaffinity(Pid::from_raw(0), &self.home);
        }
    }

    /// Those of our CPUs that `fits` takes, if any.
    fn home_if(&self, fits: impl Fn(usize) -> bool) -> Option<CpuSet> {
        let mut found = CpuSet::new();
        let mut any = false;
        for cpu in (0..CpuSet::count()).filter(|&cpu| fits(cpu)) {
            if self.home.is_set(cpu) == Ok(true) {
                any |= found.set(cpu).is_ok();
            }
        }
        any.then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn flow(arrives: u32, returns: u32, released_ns: u64) -> Count {
        Count {
            captured_cpu: arrives,
            cpu: returns,
            released: 1,
            released_ns,
            ..Count::default()
        }
    }

    fn crowd(choice: &mut Choice, count: &Count, on: usize, time: u64) -> Option<Move> {
        (0..CROWDED).find_map(|_| choice.look(count, true, on, time))
    }

    #[test]
    fn goes_where_a_flow_arrives_when_releases_come_in_elsewhere() {
        let mut choice = Choice::default();
        let count = flow(1, 0, 10 * MS);
        assert_eq!(choice.look(&count, false, 0, 10 * MS), Some(Move::To(1)));
        // There, and before what it wrote on the other CPU has come in.
        assert_eq!(choice.look(&count, false, 1, 11 * MS), None);
    }

    #[test]
    fn makes_room_for_a_flow_whose_packets_are_steered_to_our_cpu() {
        let mut choice = Choice::default();
        let count = flow(0, 0, 10 * MS);
        assert_eq!(
            crowd(&mut choice, &count, 0, 10 * MS),
            Some(Move::AwayFrom(0))
        );
        let count = flow(0, 0, 30 * MS);
        assert_eq!(crowd(&mut choice, &count, 1, 20 * MS), None);
        assert_eq!(crowd(&mut choice, &count, 1, 30 * MS), None);
    }

    #[test]
    fn makes_room_but_once_a_minute_where_nothing_is_steered() {
        let mut choice = Choice::default();
        assert_eq!(
            crowd(&mut choice, &flow(0, 0, 10 * MS), 0, 10 * MS),
            Some(Move::AwayFrom(0))
        );
        assert_eq!(choice.look(&flow(0, 0, 10 * MS), true, 1, 11 * MS), None);
        let after = flow(0, 1, 17 * MS);
        assert_eq!(choice.look(&after, true, 1, 18 * MS), Some(Move::To(0)));
        assert_eq!(choice.look(&flow(0, 0, 19 * MS), true, 0, 19 * MS), None);
        assert_eq!(crowd(&mut choice, &flow(0, 0, 30 * MS), 0, 30 * MS), None);
        let later = 70_000 * MS;
        assert_eq!(
            crowd(&mut choice, &flow(0, 0, later), 0, later),
            Some(Move::AwayFrom(0))
        );
    }

    #[test]
    fn stays_where_flows_of_several_cpus_are_written() {
        let mut choice = Choice::default();
        for look in 0..10 * CROWDED {
            let cpu = u32::from(look % 16 == 0);
            assert_eq!(
                choice.look(&flow(cpu, cpu, 10 * MS), true, 0, 10 * MS),
                None
            );
        }
    }

    #[test]
    fn stays_where_a_flow_waits_for_nothing_but_its_last_packets() {
        let mut choice = Choice::default();
        for _ in 0..10 * CROWDED {
            assert_eq!(choice.look(&flow(0, 0, 10 * MS), false, 0, 10 * MS), None);
        }
    }
}
