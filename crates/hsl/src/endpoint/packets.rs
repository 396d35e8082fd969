//! Packets: where an arriving one goes, and which one goes next.

use super::{
    Disposition, Duty, Endpoint, Event, Figures, FlowSide, HoldId, HoldState, Part, Queue, State,
    Stray, note, table, upstream_of,
};
use crate::key::{Key, Parsed};

/// Packets that one flow may write in a row while others wait.
const TURN: usize = 1024;

impl Endpoint {
    /// A packet captured on its key's side. `frame` is what will be written again.
    pub fn on_frame(&mut self, packet: &Parsed, frame: &[u8], now: u64) -> Disposition {
        let disposition = self.arrive(packet, Event::Frame, Part::Captured, frame);
        self.notice_first(packet.key);
        if self.budget.half_full() {
            self.relieve(now);
        }
        disposition
    }

    /// A packet that strayed at another instance and followed the flow here.
    pub fn on_follower(&mut self, packet: &Parsed, frame: &[u8], now: u64) -> Disposition {
        let disposition = self.arrive(packet, Event::Follow, Part::Stray, frame);
        self.follow_armed(packet.key);
        if self.budget.half_full() {
            self.relieve(now);
        }
        disposition
    }

    /// A flow that was passing shows up: it belongs to the hold in force, or to the one that is
    /// letting go, since its packet was captured just before.
    fn enter(&mut self, packet: &Parsed) {
        let key = packet.key;
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

    /// One look at the flow and one at its hold: this is what a captured packet costs here.
    fn arrive(&mut self, packet: &Parsed, event: Event, part: Part, frame: &[u8]) -> Disposition {
        let key = packet.key;
        let flow = match self.flows.get_mut(&key) {
            Some(flow) => flow,
            None => {
                self.enter(packet);
                self.flows.get_mut(&key).expect("it has entered")
            }
        };
        flow.swapped = packet.swapped;
        let row = table::transition(flow.state, event).expect("packets may arrive in any state");
        note(&mut self.hook, &mut self.tally, row);
        flow.state = row.to;
        let id = flow.hold;
        let hold = self.holds.get_mut(&id);
        let goes = |hold: &&mut super::Hold| !hold.awaited.has(&upstream_of(&self.aliased, &key));
        let strays_go = row.duty == Duty::KeepStray && hold.as_ref().is_some_and(goes);
        let figures = hold.map(|hold| &mut hold.figures);
        let mut nobodys = Figures::default();
        let figures = figures.unwrap_or(&mut nobodys);
        match part {
            Part::Captured => figures.captured_packets += 1,
            Part::Stray => figures.followed_packets += 1,
        }
        match row.duty {
            Duty::SendOn => {
                if !self.budget.take(frame) {
                    figures.lost_packets += 1;
                    return Disposition::Lost;
                }
                figures.stray_packets += 1;
                self.queue_stray(Stray {
                    hold: id,
                    key,
                    part,
                    frame: frame.into(),
                });
                Disposition::SendOn
            }
            Duty::KeepStray if strays_go && flow.queue.lengths().0 == 0 => {
                figures.released_packets += 1;
                Disposition::Write
            }
            Duty::WriteOut if flow.queue.is_empty() && (id == 0 || part == Part::Stray) => {
                figures.released_packets += 1;
                Disposition::Write
            }
            duty => {
                let before = flow.queue.bytes();
                if !flow.queue.push(part, frame, &mut self.budget) {
                    figures.lost_packets += 1;
                    return Disposition::Lost;
                }
                let goes = duty == Duty::WriteOut || duty == Duty::KeepStray && strays_go;
                if goes && !flow.listed {
                    flow.listed = true;
                    self.ready.push_front(key);
                }
                figures.kept_bytes += flow.queue.bytes() - before;
                figures.captured_bytes_peak = figures.captured_bytes_peak.max(figures.kept_bytes);
                Disposition::Kept
            }
        }
    }

    /// Whether something waits to be written.
    pub fn has_writes(&self) -> bool {
        !self.ready.is_empty()
    }

    /// The flow whose packet is written next.
    pub fn writes(&self) -> Option<&Key> {
        self.ready.front()
    }

    /// Take the next packet to be written to the function, and its flow.
    ///
    /// One flow after another, and one that was written out before first: the sooner nothing of a
    /// flow is outstanding, the sooner the kernel lets it pass and stops capturing it. If all took
    /// turns by the packet, and came faster than packets can be captured, none would ever be free.
    /// After [`TURN`] packets the next flow has its turn, whatever is left.
    pub fn next_write(&mut self) -> Option<(Key, Box<[u8]>)> {
        while let Some(key) = self.ready.front().copied() {
            let flow = self.flows.get_mut(&key).expect("listed flows exist");
            let before = flow.queue.bytes();
            let strays_go = flow.state == State::Held
                && self
                    .holds
                    .get(&flow.hold)
                    .is_some_and(|hold| !hold.awaited.has(&upstream_of(&self.aliased, &key)));
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
            let id = flow.hold;
            let Some((_, frame)) = taken else {
                continue;
            };
            if let Some(hold) = self.holds.get_mut(&id) {
                hold.figures.kept_bytes -= freed;
                hold.figures.released_packets += 1;
            }
            return Some((key, frame));
        }
        None
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
