//! Packets: where an arriving one goes, and which one goes next.

use super::{
    Disposition, Duty, Endpoint, Event, FlowSide, HoldId, HoldState, Part, Queue, Role, State,
    Stray, Treatment, table,
};
use crate::key::{Key, Parsed};

impl Endpoint {
    /// A packet captured on its key's side. `frame` is what will be written again.
    pub fn on_frame(&mut self, packet: &Parsed, frame: &[u8], now: u64) -> Disposition {
        let key = packet.key;
        if !self.flows.contains_key(&key) {
            self.enter(key);
        }
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
        if !self.flows.contains_key(&key) {
            self.enter(key);
        }
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
    fn enter(&mut self, key: Key) {
        let owner = |state| {
            self.holds
                .values()
                .find(|hold| hold.state == state && self.takes(hold, &key))
        };
        let hold = owner(HoldState::Holding).or_else(|| owner(HoldState::Releasing));
        let Some((id, state, role)) = hold.map(|hold| (hold.id, hold.state, hold.spec.role)) else {
            return;
        };
        let freed =
            self.treated.get(&id).and_then(|flows| flows.get(&key)) == Some(&Treatment::Pass);
        if state == HoldState::Holding && !freed {
            let event = if role == Role::Stray {
                Event::Stray
            } else {
                Event::Capture
            };
            self.step(key, event).expect("passing flows can be taken");
        }
        self.insert(key, State::Passing);
        self.assign(key, id);
    }

    pub(super) fn insert(&mut self, key: Key, state: State) -> &mut FlowSide {
        self.flows.entry(key).or_insert_with(|| FlowSide {
            state,
            hold: 0,
            queue: Queue::default(),
            listed: false,
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
        if let Some(hook) = &mut self.hook {
            hook(row);
        }
        let flow = self.insert(key, row.from);
        flow.state = row.to;
        let (id, waiting) = (flow.hold, !flow.queue.is_empty());
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
                self.strays.push_back(Stray {
                    hold: id,
                    key,
                    part,
                    frame: frame.into(),
                });
                return Disposition::SendOn;
            }
            Duty::WriteOut if !waiting => {
                if let Some(hold) = self.holds.get_mut(&id) {
                    hold.figures.released_packets += 1;
                }
                return Disposition::Write;
            }
            _ => {
                let flow = self.flows.get_mut(&key).expect("inserted above");
                let before = flow.queue.bytes();
                let kept = flow.queue.push(part, frame, &mut self.budget);
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
        !self.ready.is_empty()
    }

    /// Take the next packet to be written to the function, and its flow.
    pub fn next_write(&mut self) -> Option<(Key, Part, Box<[u8]>)> {
        let key = *self.ready.front()?;
        let flow = self.flows.get_mut(&key).expect("listed flows exist");
        let before = flow.queue.bytes();
        let taken = if flow.state == State::Releasing {
            flow.queue.pop(&mut self.budget)
        } else {
            None
        };
        let freed = before - flow.queue.bytes();
        let id = flow.hold;
        self.ready.pop_front();
        flow.listed = flow.state == State::Releasing && !flow.queue.is_empty();
        if flow.listed {
            self.ready.push_back(key);
        }
        let Some((part, frame)) = taken else {
            return self.next_write();
        };
        if let Some(hold) = self.holds.get_mut(&id) {
            hold.figures.kept_bytes -= freed;
            hold.figures.released_packets += 1;
        }
        Some((key, part, frame))
    }

    /// Take the next packet to be sent on.
    pub fn next_stray(&mut self) -> Option<Stray> {
        let stray = self.strays.pop_front()?;
        self.budget.give(&stray.frame);
        Some(stray)
    }
}
