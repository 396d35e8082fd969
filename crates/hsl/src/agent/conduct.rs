//! Handovers: what happens goes into their machine, and what comes out is carried out.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use flowferry_wire::{CONTROLLER, Command, Counter, DEFAULT_MTU, Message, Tlv, split};
use serde_json::json;

use super::accounts::{Account, Accounts, BATCH};
use super::strays::{Sender, Taker};
use super::{Agent, AgentError, Marker, now};
use crate::handover::{Action, Input, Purpose};
use crate::key::Side;

/// What the shell keeps for the handovers.
#[derive(Default)]
pub(super) struct Conduct {
    /// Records that wait for the strays before them.
    records: VecDeque<(u64, SocketAddr, Vec<u8>)>,
    /// What the flushes under way are for.
    pub(super) purposes: BTreeMap<u64, (Side, Purpose)>,
    /// Flow sides to be owned or disowned when there is time.
    accounts: Accounts,
    /// Number of the last list that was split over several frames.
    lists: u32,
}

impl Agent {
    /// Something has happened that concerns handovers.
    pub(super) fn feed(&mut self, input: Input) -> Result<(), AgentError> {
        let actions = self.handovers.handle(&mut self.endpoint, input, now());
        self.act_first(actions)
    }

    pub(super) fn conduct(&mut self, action: Action) -> Result<(), AgentError> {
        match action {
            Action::Send { side, message } => self.send_control(side, message),
            Action::Record { to, behind, record } => {
                self.conduct.records.push_back((behind, to, record.write()));
                self.send_strays()?;
            }
            Action::Connect(peer) => self.dial(peer)?,
            Action::Strays { hold, to } => {
                self.peers.of_hold.insert(hold, to.to_string());
            }
            Action::Discard(hold) => drop(self.peers.of_hold.remove(&hold)),
            Action::HangUp(instance) => {
                let others = |taker: &Taker| taker.from() != Some(instance);
                self.peers.takers.retain(others);
            }
            Action::Flush { side, purpose } => self.flush(side, purpose)?,
            Action::Survey { ticket, .. } => {
                let served = self.conduct.accounts.settled(self.shim.served());
                self.feed(Input::Surveyed { ticket, served })?;
            }
            Action::Own(flows) => self.conduct.accounts.own(flows),
            Action::Disown(keys) => self.conduct.accounts.disown(keys),
            Action::Tell(line) => self.tell_function(&line),
            Action::Step {
                handover,
                phase,
                error,
            } => self.publish(&json!({
                "event": "handover", "handover": handover, "step": phase, "error": error,
            })),
        }
        Ok(())
    }

    /// Repeats, deadlines, and what is left to account.
    pub(super) fn tick(&mut self) -> Result<(), AgentError> {
        if self.conduct.accounts.due().is_some_and(|due| due <= now()) {
            self.account(BATCH)?;
            self.conduct.accounts.pause(now());
        }
        if self.handovers.next_due().is_some_and(|due| due <= now()) {
            self.feed(Input::Tick)?;
        }
        Ok(())
    }

    /// When something is to be done that no descriptor tells of, on CLOCK_MONOTONIC in nanoseconds.
    pub(super) fn next_due(&self) -> Option<u64> {
        let due = [self.handovers.next_due(), self.conduct.accounts.due()];
        due.into_iter().flatten().min()
    }

    /// Write down which flow sides are served here and which are not any more, at most so many.
    pub(super) fn account(&mut self, most: usize) -> Result<(), AgentError> {
        let time = now();
        for _ in 0..most {
            match self.conduct.accounts.take() {
                Some(Account::Own(flow)) => self.shim.own(&flow, time)?,
                Some(Account::Disown(key)) => self.shim.disown(&key)?,
                None => break,
            }
        }
        Ok(())
    }

    fn send_control(&mut self, side: Side, mut message: Message) {
        // Said in the round of work in which we were stopped, it is no longer true.
        if self.is_late() {
            return;
        }
        if message.command == Command::Status {
            self.complete(&mut message);
        }
        let (Some(trust), Some(radio)) = (&mut self.trust, &mut self.radio) else {
            return;
        };
        self.conduct.lists = self.conduct.lists.wrapping_add(1);
        let addressee = message.to;
        let (to, from) = radio.addresses(addressee);
        let parts = split(&message, DEFAULT_MTU, self.conduct.lists);
        for mut part in parts.unwrap_or_default() {
            match trust
                .sealer
                .seal(&trust.keys, &mut part, to, from, DEFAULT_MTU)
            {
                Ok(frame) if addressee == CONTROLLER => radio.send(side, &frame),
                Ok(frame) => radio.send_by(side, &frame),
                Err(error) => eprintln!("flowferry hsl: cannot send {}: {error}", part.command),
            }
        }
    }

    /// Figures that only the shell has.
    fn complete(&self, message: &mut Message) {
        let rejected = self.trust.as_ref().map_or(0, |trust| {
            trust.frames.rejected().map(|(_, count)| count).sum()
        });
        let of_all = message.handover == 0; // a part's own losses are its hold's
        for tlv in &mut message.tlvs {
            if let Tlv::Counts(counts) = tlv {
                if of_all {
                    counts.insert(Counter::LostPackets, self.lost);
                }
                counts.insert(Counter::RejectedFrames, rejected);
            }
        }
    }

    fn dial(&mut self, peer: SocketAddr) -> Result<(), AgentError> {
        let address = peer.to_string();
        match self.peers.senders.get(&address) {
            Some(sender) if sender.is_ready() => return self.feed(Input::Connected(peer)),
            Some(_) => return Ok(()), // told when it is
            None => {}
        }
        if self.trust.is_none() {
            let why = "streams need `keys`".to_owned();
            return self.feed(Input::Unreachable { peer, why });
        }
        let expected = self.handovers.instance_at(peer);
        match Sender::dial(peer, expected, self.peers.identity.as_ref(), now()) {
            Ok(sender) => drop(self.peers.senders.insert(address, sender)),
            Err(error) => {
                let why = error.to_string();
                self.feed(Input::Unreachable { peer, why })?;
            }
        }
        Ok(())
    }

    /// Go on with connections that are being made.
    pub(super) fn advance_dialling(&mut self) -> Result<(), AgentError> {
        let Some(trust) = &mut self.trust else {
            return Ok(());
        };
        let time = now();
        let mut inputs = Vec::new();
        self.peers.senders.retain(|address, sender| {
            let Ok(peer) = address.parse() else {
                return true; // by name, on a person's command, and ready from the start
            };
            match sender.advance(&trust.keys, &mut trust.sealer, time) {
                Ok(ready) => {
                    inputs.extend(ready.then_some(Input::Connected(peer)));
                    true
                }
                Err(error) => {
                    let why = error.to_string();
                    inputs.push(Input::Unreachable { peer, why });
                    false
                }
            }
        });
        inputs.into_iter().try_for_each(|input| self.feed(input))
    }

    /// Records whose turn it is, so many strays having been moved to their streams.
    pub(super) fn push_records(&mut self) {
        let taken = self.endpoint.strays_taken();
        while let Some((behind, _, _)) = self.conduct.records.front() {
            if *behind > taken {
                return;
            }
            let Some((_, to, record)) = self.conduct.records.pop_front() else {
                return;
            };
            // A stream that has broken was told of: whoever waits for the record knows.
            if let Some(sender) = self.peers.senders.get_mut(&to.to_string()) {
                sender.push_record(&record);
            }
        }
    }

    /// A stream of ours has broken.
    pub(super) fn lost_peer(&mut self, address: &str, why: String) -> Result<(), AgentError> {
        match address.parse() {
            Ok(peer) => self.feed(Input::Unreachable { peer, why }),
            Err(_) => Ok(()), // by name, on a person's command
        }
    }

    fn flush(&mut self, side: Side, purpose: Purpose) -> Result<(), AgentError> {
        let time = now();
        let marker = match &purpose {
            Purpose::Marker {
                handover, sequence, ..
            } => Some(Marker {
                handover: *handover,
                sequence: *sequence,
                seen_ns: time,
                captured_when_seen: self.captured[side.index()],
            }),
            _ => None,
        };
        if self.config.trust_markers
            && let Some(marker) = &marker
        {
            self.fenced(side, marker, time);
            return self.feed(Input::Flushed { side, purpose });
        }
        match self.flushes.begin(&mut *self.shim, side, time) {
            Ok(id) => {
                self.markers.extend(marker.map(|marker| (id.0, marker)));
                self.conduct.purposes.insert(id.0, (side, purpose));
                Ok(())
            }
            Err(error) => {
                if let Some(marker) = &marker {
                    self.fence_failed(marker, &error.to_string());
                }
                self.feed(Input::FlushFailed { side, purpose })
            }
        }
    }

    /// A flush is over, or has been given up.
    pub(super) fn flushed(&mut self, id: u64, failed: bool) -> Result<(), AgentError> {
        match self.conduct.purposes.remove(&id) {
            None => Ok(()),
            Some((side, purpose)) if failed => self.feed(Input::FlushFailed { side, purpose }),
            Some((side, purpose)) => self.feed(Input::Flushed { side, purpose }),
        }
    }

    /// Everything that was held is lost.
    pub(super) fn start_handovers_over(&mut self) -> Result<(), AgentError> {
        self.conduct.purposes.clear();
        self.conduct.records.clear();
        let epoch = u64::from(self.shim.epoch());
        self.feed(Input::StartedOver { epoch })
    }
}
