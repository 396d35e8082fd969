//! Packets on their ways: from the wire, from elsewhere, to the function, to elsewhere.

use flowferry_hsl::endpoint::{Disposition, Figures, Hold, HoldState, Part, Role, State};
use flowferry_hsl::key::{Key, Parsed, Side};

use crate::checks::covers;
use crate::kernel::{Fault, Verdict};
use crate::ledger::Place;
use crate::traffic::{FLOWS, parse, serial};
use crate::world::{Checked, World};

impl World {
    pub(super) fn arrive(&mut self, flow: usize, side: Side, length: usize) -> Checked {
        let frame = FLOWS[flow].frame(side, self.ledger.next_serial(), length);
        let packet = parse(&frame, side);
        let expected = self.expected(&packet);
        let serial = self.ledger.born(packet.key, Part::Captured, frame.len());
        let verdict = self.kernel.ingress(&packet, &frame);
        if let Some(captured) = expected
            && captured != (verdict == Verdict::Captured)
        {
            return Err(format!(
                "{:?} was {verdict:?}, by the holds in force it should not",
                packet.key
            ));
        }
        if verdict == Verdict::Passed {
            self.ledger.check_strays_first(serial)?;
        }
        if verdict != Verdict::Captured {
            self.ledger
                .moves(serial, &[Place::Arriving], Place::Delivered)?;
        }
        Ok(())
    }

    /// Whether a packet that arrives now must be captured; `None` where nothing is promised.
    pub(super) fn expected(&self, packet: &Parsed) -> Option<bool> {
        let key = packet.key;
        if !self.pending.is_empty() || self.muddled.contains(&key) {
            return None;
        }
        let idle =
            self.kernel.outstanding(&key) == 0 && self.endpoint.state(&key) == State::Passing;
        match self.held_by(packet).map(|hold| hold.spec.role) {
            Some(Role::Capture | Role::Stray) => Some(true),
            Some(Role::Arm) if !self.kernel.owns(&key) => Some(true),

            _ => idle.then_some(false),
        }
    }

    /// The hold in force that this packet belongs to and that has not freed it.
    pub(super) fn held_by(&self, packet: &Parsed) -> Option<&Hold> {
        let mut holding = self
            .endpoint
            .holds()
            .filter(|hold| hold.state == HoldState::Holding);
        holding.find(|hold| {
            let mine = match self.aliases.get(&packet.key) {
                Some(flow) => covers(hold, &FLOWS[*flow].parsed(Side::Upstream)),
                None => covers(hold, packet),
            };
            mine && hold.spec.sides.contains(&packet.key.side())
                && !self.freed.contains(&(hold.id, packet.key))
        })
    }

    pub(super) fn read(&mut self, side: Side, frames: usize) -> Checked {
        for _ in 0..frames {
            if self.retry.is_some() {
                return Ok(());
            }
            let Some(frame) = self.kernel.tap[side.index()].pop_front() else {
                return Ok(());
            };
            let packet = parse(&frame, side);
            let role = self.held_by(&packet).map(|hold| hold.spec.role);
            let counted = self.figures();
            let disposition = self.endpoint.on_frame(&packet, &frame, self.time);
            let kept = match role.filter(|_| !self.muddled.contains(&packet.key)) {
                None => true,
                Some(Role::Stray) => disposition == Disposition::SendOn,
                Some(Role::Capture | Role::Arm) => disposition == Disposition::Kept,
            };
            if !kept && disposition != Disposition::Lost {
                return Err(format!(
                    "{:?} is held as {role:?}, but was {disposition:?}",
                    packet.key
                ));
            }
            self.dispose(&packet, frame, disposition, counted)?;
        }
        Ok(())
    }

    pub(super) fn follow(&mut self, flow: usize, side: Side, length: usize) -> Checked {
        let frame = FLOWS[flow].frame(side, self.ledger.next_serial(), length);
        let packet = parse(&frame, side);
        // Strays follow a flow to where it has moved: it is held there before they are taken in,
        // and served only afterwards.
        let early = !self.pending.is_empty() || self.retry.is_some();
        let mut faces = Side::ALL.iter().map(|side| FLOWS[flow].key(*side));
        if early || faces.any(|face| self.kernel.owns(&face)) {
            return Ok(());
        }
        if self.held_by(&packet).map(|hold| hold.spec.role) == Some(Role::Arm) {
            // If somebody leads the hold, both its sides are held from now on, whoever serves them.
            for side in Side::ALL {
                self.muddled.insert(FLOWS[flow].key(side));
            }
        }
        self.ledger.born(packet.key, Part::Stray, frame.len());
        let counted = self.figures();
        self.kernel.adopt(&packet.key);
        let disposition = self.endpoint.on_follower(&packet, &frame, self.time);
        self.dispose(&packet, frame, disposition, counted)
    }

    /// The shell does with a packet what the endpoint says.
    pub(super) fn dispose(
        &mut self,
        packet: &Parsed,
        frame: Vec<u8>,
        disposition: Disposition,
        before: Figures,
    ) -> Checked {
        let serial = serial(&frame);
        let after = self.figures();
        if after.captured_packets + after.followed_packets
            > before.captured_packets + before.followed_packets
        {
            self.ledger.attribute(serial);
        }
        let from = [Place::Arriving];
        match disposition {
            Disposition::Kept | Disposition::SendOn => {
                self.ledger.moves(serial, &from, Place::Endpoint)
            }
            Disposition::Lost => {
                self.kernel.forget(&packet.key, 1);
                self.ledger.moves(serial, &from, Place::Lost)
            }
            Disposition::Write => {
                self.ledger.moves(serial, &from, Place::Retry)?;
                self.put(packet.key, frame)
            }
        }
    }

    /// The TAP's queue is full: the packet is lost, and the shell finds it in the counts.
    pub(super) fn overflow(&mut self, flow: usize, side: Side) -> Checked {
        let key = FLOWS[flow].key(side);
        if self.expected(&FLOWS[flow].parsed(side)) == Some(true) {
            let serial = self.ledger.born(key, Part::Captured, 0);
            self.endpoint.lost(&key, 1, "the TAP's queue was full");
            self.ledger.moves(serial, &[Place::Arriving], Place::Lost)?;
        }
        Ok(())
    }

    pub(super) fn write(&mut self, frames: usize, refused: bool) -> Checked {
        match self.retry.take() {
            Some(again) if refused => {
                self.retry = Some(again);
                return Ok(());
            }
            Some((key, frame)) => self.put(key, frame)?,
            None => {}
        }
        let mut batch = Vec::new();
        while batch.len() < frames
            && let Some((key, frame)) = self.endpoint.next_write()
        {
            self.ledger
                .moves(serial(&frame), &[Place::Endpoint], Place::Retry)?;
            batch.push((key, frame.into_vec()));
            if refused {
                self.retry = batch.pop();
                break;
            }
            if self.kernel.fault != Fault::WriteBackwards {
                let (key, frame) = batch.pop().expect("just pushed");
                self.put(key, frame)?;
            }
        }
        batch
            .into_iter()
            .rev()
            .try_for_each(|(key, frame)| self.put(key, frame))
    }

    pub(super) fn put(&mut self, key: Key, frame: Vec<u8>) -> Checked {
        self.ledger
            .moves(serial(&frame), &[Place::Retry], Place::Backlog)?;
        self.kernel.write(key, frame);
        Ok(())
    }

    pub(super) fn second_pass(&mut self, side: Side, frames: usize) -> Checked {
        for _ in 0..frames {
            let Some(serial) = self.kernel.second_pass(side) else {
                return Ok(());
            };
            self.ledger.check_strays_first(serial)?;
            self.ledger
                .moves(serial, &[Place::Backlog], Place::Delivered)?;
        }
        Ok(())
    }

    pub(super) fn vanish(&mut self, side: Side) -> Checked {
        match self.kernel.backlog[side.index()].pop_front() {
            Some(frame) => self
                .ledger
                .moves(serial(&frame), &[Place::Backlog], Place::Vanished),
            None => Ok(()),
        }
    }

    pub(super) fn send_on(&mut self, frames: usize) -> Checked {
        for _ in 0..frames {
            let Some(stray) = self.endpoint.next_stray() else {
                break;
            };
            if !self.sent_by.contains(&stray.hold) {
                return Err(format!(
                    "hold {} sends packets on, but its role is another",
                    stray.hold
                ));
            }
            if self.kernel.fault != Fault::NeverForget {
                self.kernel.forget(&stray.key, 1);
            }
            self.ledger
                .moves(serial(&stray.frame), &[Place::Endpoint], Place::SentOn)?;
        }
        Ok(())
    }

    /// What a straying flow has kept goes to another instance and has no place in the order here.
    pub(super) fn note_sent_on(&mut self) {
        for key in Side::ALL
            .iter()
            .flat_map(|side| FLOWS.iter().map(|flow| flow.key(*side)))
        {
            if self.endpoint.state(&key) == State::Straying {
                self.ledger.take_out_of_order(&key);
            }
        }
    }
}
