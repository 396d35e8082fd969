//! Packets: where an arriving one goes, and which one goes next.

use super::{
    Disposition, Duty, Endpoint, Event, FlowSide, HoldId, HoldState, Part, Queue, State, Stray,
    table,
};
use crate::key::{Key, Parsed};

/// Packets that one flow may write in a row while others wait.
const TURN: usize = 1024;

impl Endpoint {
    /// A packet captured on its key's side. `frame` is what will be written again.
    pub fn on_frame(&mut self, packet: &Parsed, frame: &[u8], now: u64) -> Disposition {
        let key = packet.key;
        self.enter(packet);
        self.notice_first(key);
        let disposition = self.arrive(key, Event::Frame, Part::Captured, frame);
        if let Some(hold) = self
            .flows
            .get(&key)
            .and_then(|flow| self.holds.get_mut(&flow.hold))
        {
            hold.figures.captured_packets += 1;
        }
        if self.budget.half_full() {
            self.relieve(now);
        }
        disposition
    }

    /// A packet that strayed at another instance and followed the flow here.
    pub fn on_follower(&mut self, packet: &Parsed, frame: &[u8], now: u64) -> Disposition {
        let key = packet.key;
        self.enter(packet);
        self.follow_armed(key);
        let disposition = self.arrive(key, Event::Follow, Part::Stray, frame);
        if let Some(hold) = self
            .flows
            .get(&key)
            .and_then(|flow| self.holds.get_mut(&flow.hold))
        {
            hold.figures.followed_packets += 1;
        }
        if self.budget.half_full() {
            self.relieve(now);
        }
        disposition
    }

    /// A flow that was passing shows up: it belongs to the hold in force, or to the one that is
    /// letting go, since its packet was captured just before.
    fn enter(&mut self, packet: &Parsed) {
        let key = packet.key;
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.swapped = packet.swapped;
            return;
        }
        let owner = |state| {
            self.holds
                .values()
                .find(|hold| hold.state == state && self.takes(hold, packet))
        };
        let hold = owner(HoldState::Holding).or_else(|| owner(HoldState::Releasing));
        let hold = hold.map(|hold| (hold.id, hold.state, hold.spec.role));
        self.insert(key, State::Passing).swapped = packet.swapped;
        let Some((id, state, role)) = hold else {
            return;
        };
        if state == HoldState::Holding && !self.is_freed(id, &key) {
            self.step(key, role.event())
                .expect("passing flows can be taken");
        }
        self.assign(key, id);
    }

    pub(super) fn insert(&mut self, key: Key, state: State) -> &mut FlowSide {
        self.flows.entry(key).or_insert_with(|| FlowSide {
            state,
            hold: 0,
            queue: Queue::default(),
            listed: false,
            swapped: false,
            guarded: false,
            seen: false,
        })
    }

    pub(super) fn assign(&mut self, key: Key, id: HoldId) {
        let Some(flow) = self.flows.get_mut(&key) else {
            return;
        };
        let before = std::mem::replace(&mut flow.hold, id);
        if before == id {
            return;
        }
        flow.seen = false;
        let bytes = flow.queue.bytes();
        if let Some(hold) = self.holds.get_mut(&before) {
            hold.flows_left -= 1;
            hold.figures.kept_bytes -= bytes;
        }
        if let Some(hold) = self.holds.get_mut(&id) {
            hold.flows_left += 1;
            hold.figures.flows += 1;
            hold.figures.kept_bytes += bytes;
        }
    }

    fn arrive(&mut self, key: Key, event: Event, part: Part, frame: &[u8]) -> Disposition {
        let row =
            table::transition(self.state(&key), event).expect("packets may arrive in any state");
        self.note(row);
        let flow = self.insert(key, row.from);
        flow.state = row.to;
        let (id, waiting) = (flow.hold, !flow.queue.is_empty());
        let strays = flow.queue.lengths().0;
        let strays_go = self.holds.get(&id).is_some_and(|hold| hold.lets_strays_go);
        let kept = match row.duty {
            Duty::SendOn => {
                let kept = self.budget.take(frame);
                if let Some(hold) = self.holds.get_mut(&id) {
                    let figures = &mut hold.figures;
                    let count = if kept {
                        &mut figures.stray_packets
                    } else {
                        &mut figures.lost_packets
                    };
                    *count += 1;
                }
                if !kept {
                    return Disposition::Lost;
                }
                self.queue_stray(Stray {
                    hold: id,
                    key,
                    part,
                    frame: frame.into(),
                });
                return Disposition::SendOn;
            }
            Duty::KeepStray if strays_go && strays == 0 => {
                if let Some(hold) = self.holds.get_mut(&id) {
                    hold.figures.released_packets += 1;
                }
                return Disposition::Write;
            }
            Duty::WriteOut if !waiting && (id == 0 || part == Part::Stray) => {
                if let Some(hold) = self.holds.get_mut(&id) {
                    hold.figures.released_packets += 1;
                }
                return Disposition::Write;
            }
            _ => {
                let flow = self.flows.get_mut(&key).expect("inserted above");
                let before = flow.queue.bytes();
                let kept = flow.queue.push(part, frame, &mut self.budget);
                let goes = row.duty == Duty::WriteOut || row.duty == Duty::KeepStray && strays_go;
                if kept && goes && !flow.listed {
                    flow.listed = true;
                    self.ready.push_front(key);
                }
                kept.then(|| flow.queue.bytes() - before)
            }
        };
        let hold = self.holds.get_mut(&id);
        match (kept, hold) {
            (Some(bytes), Some(hold)) => {
                hold.figures.kept_bytes += bytes;
                let peak = &mut hold.figures.captured_bytes_peak;
                *peak = (*peak).max(hold.figures.kept_bytes);
                Disposition::Kept
            }
            (Some(_), None) => Disposition::Kept,
            (None, hold) => {
                if let Some(hold) = hold {
                    hold.figures.lost_packets += 1;
                }
                Disposition::Lost
            }
        }
    }

    /// Whether something waits to be written.
    pub fn has_writes(&self) -> bool {
        !self.ready.is_empty() || self.unguard.is_some()
    }

    /// The flow whose packet is written next.
    pub fn writes(&self) -> Option<&Key> {
        self.ready.front()
    }

    /// Take the next packet to be written to the function, and its flow. The one before must have
    /// been written by now.
    ///
    /// One flow after another, and one that was written out before first: the sooner nothing of a
    /// flow is outstanding, the sooner the kernel lets it pass and stops capturing it. If all took
    /// turns by the packet, and came faster than packets can be captured, none would ever be free.
    /// After [`TURN`] packets the next flow has its turn, whatever is left.
    pub fn next_write(&mut self) -> Option<(Key, Part, Box<[u8]>)> {
        if let Some(key) = self.unguard.take() {
            self.unguard_if_written(&key);
        }
        while let Some(key) = self.ready.front().copied() {
            let flow = self.flows.get_mut(&key).expect("listed flows exist");
            let before = flow.queue.bytes();
            let strays_go = flow.state == State::Held
                && self
                    .holds
                    .get(&flow.hold)
                    .is_some_and(|hold| hold.lets_strays_go);
            let taken = match flow.state {
                State::Releasing => flow.queue.pop(&mut self.budget),
                State::Held if strays_go => flow.queue.pop_stray(&mut self.budget),
                _ => None, // taken again
            };
            let freed = before - flow.queue.bytes();
            self.turn += 1;
            flow.listed = flow.state == State::Releasing && !flow.queue.is_empty()
                || strays_go && flow.queue.lengths().0 > 0;
            if !flow.listed || self.turn >= TURN {
                self.turn = 0;
                self.ready.pop_front();
                if flow.listed {
                    self.ready.push_back(key);
                }
            }
            if flow.state != State::Releasing && !strays_go {
                continue;
            }
            if flow.guarded {
                self.unguard = Some(key);
            }
            let id = flow.hold;
            let Some((part, frame)) = taken else {
                continue;
            };
            if let Some(hold) = self.holds.get_mut(&id) {
                hold.figures.kept_bytes -= freed;
                hold.figures.released_packets += 1;
            }
            return Some((key, part, frame));
        }
        None
    }

    /// With its strays written, the flow is counted by the programs again.
    pub(super) fn unguard_if_written(&mut self, key: &Key) {
        let Some(flow) = self.flows.get_mut(key) else {
            return;
        };
        if flow.guarded && flow.queue.lengths().0 == 0 {
            flow.guarded = false;
            let id = flow.hold;
            self.lift(key, id);
        }
    }

    /// Take the next packet to be sent on.
    pub fn next_stray(&mut self) -> Option<Stray> {
        let stray = self.strays.pop_front()?;
        self.budget.give(&stray.frame);
        if let Some(bytes) = self.sending.get_mut(&stray.hold) {
            *bytes -= stray.frame.len();
        }
        Some(stray)
    }

    /// Whether packets wait to be sent on.
    pub fn has_strays(&self) -> bool {
        !self.strays.is_empty()
    }

    /// How many packets were ever queued to be sent on.
    pub fn strays_queued(&self) -> u64 {
        self.strays_queued
    }

    /// How many of them wait no longer: they come first to last.
    pub fn strays_taken(&self) -> u64 {
        self.strays_queued - self.strays.len() as u64
    }

    pub(super) fn queue_stray(&mut self, stray: Stray) {
        *self.sending.entry(stray.hold).or_default() += stray.frame.len();
        self.strays_queued += 1;
        self.strays.push_back(stray);
    }
}
