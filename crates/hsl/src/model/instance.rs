//! One instance: programs, endpoint and handovers, and the pieces of the agent's loop.

use std::collections::{BTreeMap, VecDeque};

use super::Programs;
use crate::endpoint::Stray;
use crate::handover::record::{BadRecord, Record};
use crate::handover::{Action, Core, CoreAction, Input, Purpose, Settings};
use crate::key::{Key, Side};

/// See the module's head.
pub struct Instance {
    /// The agent's cores.
    pub core: Core,
    /// The programs in front of the function.
    pub programs: Programs,
    epoch: u64,
    /// What the shell has to do that reaches beyond the instance.
    outside: VecDeque<Action>,
    /// Flushes that are under way.
    flushes: BTreeMap<u64, (Side, Purpose)>,
    next_flush: u64,
    overflowed: u64,
}

impl Instance {
    /// At rest; `limit`: bytes of packets that may be kept.
    pub fn new(settings: Settings, limit: usize) -> Instance {
        Instance {
            epoch: settings.epoch,
            core: Core::new(settings, limit),
            programs: Programs::default(),
            outside: VecDeque::new(),
            flushes: BTreeMap::new(),
            next_flush: 1,
            overflowed: 0,
        }
    }

    /// A packet reaches the interface of a side. True: it goes on to the function at once.
    pub fn ingress(&mut self, side: Side, frame: &[u8]) -> bool {
        match Key::parse(frame, side) {
            Some(packet) => self.programs.ingress(&packet, frame),
            None => true,
        }
    }

    /// The agent reads at most `count` captured packets of a side; how many there were.
    pub fn read(&mut self, side: Side, count: usize, now: u64) -> usize {
        for done in 0..count {
            let Some(frame) = self.programs.tap[side.index()].pop_front() else {
                return done;
            };
            let disposition = self.core.on_frame(side, &frame, now);
            self.dispose(side, disposition, frame, now);
        }
        count
    }

    /// A packet of another agent's.
    pub fn follower(&mut self, side: Side, frame: &[u8], now: u64) {
        if let Some(packet) = Key::parse(frame, side) {
            self.programs.adopt(&packet.key);
        }
        let disposition = self.core.on_follower(side, frame, now);
        self.dispose(side, disposition, frame.to_vec(), now);
    }

    fn dispose(
        &mut self,
        side: Side,
        disposition: Option<crate::endpoint::Disposition>,
        frame: Vec<u8>,
        now: u64,
    ) {
        use crate::endpoint::Disposition;
        let Some(packet) = Key::parse(&frame, side) else {
            return;
        };
        self.act(now);
        match disposition {
            Some(Disposition::Write) => self.programs.write(packet.key, frame),
            Some(Disposition::Lost) => {
                self.overflowed += 1;
                self.programs.forget(&packet.key, 1);
            }
            _ => {}
        }
    }

    /// The agent writes at most `count` released packets; how many there were.
    pub fn write(&mut self, count: usize, now: u64) -> usize {
        for done in 0..count {
            let Some((key, frame)) = self.core.endpoint.next_write() else {
                self.core.follow_up(Vec::new(), now);
                self.act(now);
                return done;
            };
            self.programs.write(key, frame.into_vec());
            self.core.follow_up(Vec::new(), now);
            self.act(now);
        }
        count
    }

    /// A released packet goes on to the function.
    pub fn second_pass(&mut self, side: Side) -> Option<Vec<u8>> {
        self.programs.second_pass(side)
    }

    /// The next packet to be sent to another agent, where its hold's strays go.
    pub fn next_stray(&mut self) -> Option<Stray> {
        let stray = self.core.endpoint.next_stray()?;
        self.programs.forget(&stray.key, 1);
        Some(stray)
    }

    /// The agent looks which flows are through, and lets holds end.
    pub fn settle(&mut self, now: u64) {
        for key in self.core.endpoint.draining() {
            if self.programs.outstanding(&key) <= 0 {
                // Refused if it has been taken again, which its next look finds.
                let _ = self.core.endpoint.settled(key);
            }
        }
        self.core.follow_up(Vec::new(), now);
        self.act(now);
        if self.programs.tap.iter().all(VecDeque::is_empty) {
            self.core.endpoint.sweep(now);
            self.core.follow_up(Vec::new(), now);
            self.act(now);
        }
        if self.core.endpoint.is_idle() {
            self.programs.rest();
        }
    }

    /// Something has happened to the handovers.
    pub fn handle(&mut self, input: Input, now: u64) {
        self.core.handle(input, now);
        self.act(now);
    }

    /// A record has come from another instance, behind the packets that it sent before.
    pub fn record(&mut self, from: u32, bytes: &[u8], now: u64) -> Result<(), BadRecord> {
        let record = Record::read(bytes)?;
        self.handle(Input::Record { from, record }, now);
        Ok(())
    }

    /// A flush that was asked for has come through, or (`failed`) has not.
    pub fn flushed(&mut self, flush: u64, failed: bool, now: u64) {
        let Some((side, purpose)) = self.flushes.remove(&flush) else {
            return;
        };
        self.handle(
            match failed {
                false => Input::Flushed { side, purpose },
                true => Input::FlushFailed { side, purpose },
            },
            now,
        );
    }

    /// The agent was stopped, or has begun anew: what it held is lost. How many packets that was.
    pub fn start_over(&mut self, now: u64) -> u64 {
        self.flushes.clear();
        let outstanding = self.programs.all_outstanding();
        let why = "the agent was stopped";
        let lost = self.core.endpoint.discard(&outstanding, why, now);
        self.core.follow_up(Vec::new(), now);
        self.epoch += 1;
        let epoch = self.epoch;
        self.handle(Input::StartedOver { epoch }, now);
        self.programs.begin_epoch();
        lost
    }

    /// Packets for which the buffer had no room; the shell counts them where they outlive the agent.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Number of the epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    fn act(&mut self, now: u64) {
        while let Some(action) = self.core.next_action() {
            match action {
                CoreAction::Endpoint(action) => self.programs.act(&action),
                CoreAction::Handover(Action::Disown(keys)) => {
                    keys.iter().for_each(|key| self.programs.disown(key));
                }
                CoreAction::Handover(Action::Own(flows)) => {
                    flows.iter().for_each(|flow| self.programs.own(flow));
                }
                CoreAction::Handover(Action::Survey { ticket, .. }) => {
                    let served = self.programs.owned();
                    self.core.handle(Input::Surveyed { ticket, served }, now);
                }
                CoreAction::Handover(action) => self.outside.push_back(action),
            }
        }
    }

    /// What is to be done outside next; a flush comes with the number by which
    /// [`Instance::flushed`] knows it.
    pub fn next_action(&mut self) -> Option<(Action, u64)> {
        let action = self.outside.pop_front()?;
        let mut number = 0;
        if let Action::Flush { side, purpose } = &action {
            number = self.next_flush;
            self.next_flush += 1;
            self.flushes.insert(number, (*side, purpose.clone()));
        }
        Some((action, number))
    }

    /// Nothing waits to be read, written, sent on or passed on.
    pub fn is_quiet(&self) -> bool {
        let empty = |queues: &[VecDeque<Vec<u8>>; 2]| queues.iter().all(VecDeque::is_empty);
        empty(&self.programs.tap)
            && empty(&self.programs.backlog)
            && !self.core.endpoint.has_writes()
            && !self.core.endpoint.has_strays()
    }
}
