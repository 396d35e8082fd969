//! A controller in a page: it does what docs/hsl.md asks of one, and repeats what is unanswered.

use flowferry_hsl::handover::record::FINAL;
use flowferry_hsl::handover::translate::{to_side, to_wire};
use flowferry_hsl::key::Side;
use flowferry_wire::{Command, Flags, Match, Message, Peer, Reason, Report, Side as WireSide, Tlv};

use crate::world::{DESTINATION, Fault, SOURCE, World, address, number};

/// The part that is played.
pub const HANDOVER: u64 = 0x0201;

/// Where the leader is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Step {
    #[default]
    Idle,
    Preparing,
    Turned,
    /// Called off before the turn.
    Cancelling,
    /// The destination has been asked to give back.
    Promising,
    /// It has promised: the source is fenced for good, and then told to take the flows back.
    Regaining,
    /// The entries are back.
    Back,
    Done,
}

#[derive(Default)]
pub struct Leader {
    pub step: Step,
    prepared: [bool; 2],
    frozen: bool,
    imported: bool,
    committed: bool,
    released: bool,
    strays_ended: bool,
    cancelled: [bool; 2],
    /// Wants it called off as soon as that is possible.
    pub wants_abort: bool,
    /// Sides of the source that are fenced for good.
    fenced: Vec<Side>,
    one_way: bool,
    settling_ms: u32,
    turned_at: u64,
}

fn message(command: Command) -> Message {
    Message::new(command, HANDOVER, 0)
}

fn error(text: &str) -> Tlv {
    Tlv::Error(Report {
        reason: Reason::Requested,
        text: text.to_owned(),
    })
}

impl Leader {
    pub fn begin(&mut self, world: &mut World, one_way: bool) {
        *self = Leader {
            step: Step::Preparing,
            one_way,
            settling_ms: 100,
            ..Leader::default()
        };
        self.prepare(world);
    }

    fn sides(&self) -> &'static [Side] {
        match self.one_way {
            true => &[Side::Upstream],
            false => &Side::ALL,
        }
    }

    fn prepare(&self, world: &mut World) {
        for (at, other) in [(DESTINATION, SOURCE), (SOURCE, DESTINATION)] {
            if self.prepared[at] {
                continue;
            }
            let address = address(other);
            let mut prepare = message(Command::Prepare)
                .with(Tlv::Match(Match::default()))
                .with(Tlv::Priority(7))
                .with(Tlv::Source(number(SOURCE)))
                .with(Tlv::Destination(number(DESTINATION)))
                .with(Tlv::Peer(Peer {
                    instance: number(other),
                    address: address.ip(),
                    port: address.port(),
                }))
                .with(Tlv::Deadline(500))
                .with(Tlv::Settling(self.settling_ms))
                .with(Tlv::Strategy("direct".to_owned()))
                .with(Tlv::Epoch(world.instances[at].epoch()));
            if self.one_way {
                prepare = prepare.with(Tlv::Side(WireSide::Upstream));
            }
            world.command(at, Side::Upstream, prepare);
        }
    }

    fn marker(&self, world: &mut World, to: usize, side: Side, round: u32) {
        let marker = message(Command::Marker)
            .with(Tlv::Side(to_wire(side)))
            .with(Tlv::Round(round));
        world.command(to, side, marker);
    }

    fn freeze(&self, world: &mut World) {
        let freeze = message(Command::Freeze).with(Tlv::Deadline(500));
        world.command(SOURCE, Side::Upstream, freeze);
    }

    fn abort(&self, world: &mut World, to: usize, turned: bool) {
        let mut abort = message(Command::Abort).with(error("called off"));
        if turned {
            abort = abort.flagged(Flags::TURNED);
        }
        world.command(to, Side::Downstream, abort);
    }

    /// Who takes the flows, and who gives them.
    fn taker(&self) -> (usize, usize) {
        match self.step {
            Step::Back => (SOURCE, DESTINATION),
            _ => (DESTINATION, SOURCE),
        }
    }

    pub fn hear(&mut self, world: &mut World, from: usize, heard: &Message) {
        let reply = heard.in_reply_to().map(|it| it.command);
        let (taker, giver) = self.taker();
        match (heard.command, reply) {
            (Command::Ack, Some(Command::Prepare)) => self.prepared[from] = true,
            (Command::Ack, Some(Command::Freeze)) => {
                self.frozen = true;
            }
            (Command::Ack, Some(Command::Commit)) => {
                self.committed = true;
                world.command(DESTINATION, Side::Upstream, message(Command::Commit));
            }
            (Command::Ack, Some(Command::Abort))
                if from == DESTINATION && self.step == Step::Promising =>
            {
                self.step = Step::Regaining;
                self.freeze(world);
            }
            (Command::Ack, Some(Command::Abort))
                if from == SOURCE && self.step == Step::Regaining =>
            {
                world.turn(SOURCE);
                self.step = Step::Back;
                self.turned_at = world.now;
            }
            (Command::Ack, Some(Command::Release)) if from == giver => self.strays_ended = true,
            (Command::Nack, Some(Command::Abort))
                if from == DESTINATION && self.step == Step::Promising =>
            {
                self.step = Step::Turned; // it has imported: forward
                self.wants_abort = false;
            }
            (Command::Seen, _) if from == taker => {
                let side = heard.side().map(to_side).expect("required");
                let round = heard.round().expect("required");
                self.marker(world, giver, side, round);
            }
            (Command::Imported, _) => self.imported = true,
            (Command::Fenced, _) if from == SOURCE && heard.round() == Some(FINAL) => {
                let side = heard.side().map(to_side).expect("required");
                self.fenced.retain(|other| *other != side);
                self.fenced.push(side);
            }
            (Command::Released | Command::Aborted, _) if reply.is_none() => {
                self.released = true;
                let ack = message(Command::Release);
                world.command(from, Side::Upstream, ack);
            }
            (Command::Aborted, Some(Command::Abort)) => self.cancelled[from] = true,
            (Command::Abort, _) => self.wants_abort = true,
            _ => {}
        }
        self.go_on(world);
    }

    fn go_on(&mut self, world: &mut World) {
        if self.step == Step::Preparing && self.wants_abort {
            self.step = Step::Cancelling;
            self.abort(world, DESTINATION, false);
            self.abort(world, SOURCE, false);
        }
        if self.step == Step::Preparing && self.prepared == [true; 2] {
            self.step = Step::Turned;
            world.turn(DESTINATION);
            self.turned_at = world.now;
            self.freeze(world);
            if world.fault == Fault::MarkerAtBarrier {
                for side in self.sides() {
                    self.marker(world, SOURCE, *side, FINAL);
                }
            }
        }
        if self.step == Step::Turned && self.imported && !self.committed {
            world.command(SOURCE, Side::Upstream, message(Command::Commit));
        }
        if self.released && !self.strays_ended {
            let (_, giver) = self.taker();
            world.command(giver, Side::Upstream, message(Command::Release));
        }
        if self.strays_ended || self.step == Step::Cancelling && self.cancelled == [true; 2] {
            self.step = Step::Done;
        }
    }

    /// Some time has passed, and every cache has been revalidated: repeat what is unanswered.
    pub fn hurry(&mut self, world: &mut World) {
        match self.step {
            Step::Preparing => self.prepare(world),
            Step::Cancelling => {
                for at in [DESTINATION, SOURCE] {
                    if !self.cancelled[at] {
                        self.abort(world, at, false);
                    }
                }
            }
            Step::Turned => {
                if !self.frozen {
                    self.freeze(world);
                }
                if self.wants_abort && !self.imported {
                    self.step = Step::Promising;
                }
            }
            _ => {}
        }
        match self.step {
            Step::Promising => self.abort(world, DESTINATION, true),
            Step::Regaining if self.fenced.len() == self.sides().len() => {
                self.abort(world, SOURCE, true);
            }
            Step::Regaining => self.freeze(world),
            _ => {}
        }
        let turned = matches!(
            self.step,
            Step::Turned | Step::Promising | Step::Regaining | Step::Back
        );
        if turned && world.now > self.turned_at {
            let (_, giver) = self.taker();
            for side in self.sides() {
                self.marker(world, giver, *side, FINAL);
            }
        }
        self.go_on(world);
    }
}
