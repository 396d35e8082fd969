//! Strays to and from other agents.

use std::collections::HashMap;
use std::net::TcpListener;

use serde_json::json;

use super::{Agent, AgentError, now, random, strays};
use crate::endpoint::{Disposition, HoldId, Part, Stray};
use crate::key::Key;
use crate::shim::Write;
use crate::shim::tap::VNET_HEADER;

/// The agent's ends of the stray streams.
pub(super) struct Peers {
    pub(super) listener: Option<TcpListener>,
    pub(super) takers: Vec<strays::Taker>,
    pub(super) senders: HashMap<String, strays::Sender>,
    pub(super) of_hold: HashMap<HoldId, String>,
}

impl Agent {
    pub(super) fn send_strays(&mut self) {
        while self.peers.senders.values().all(strays::Sender::has_room) {
            let Some(stray) = self.endpoint.next_stray() else {
                break;
            };
            let address = self.peers.of_hold.get(&stray.hold);
            match address.and_then(|address| self.peers.senders.get_mut(address)) {
                Some(sender) => sender.push(stray),
                None => self.lose_stray(&stray),
            }
        }
        let mut sent = Vec::new();
        let mut broken = Vec::new();
        for (address, sender) in &mut self.peers.senders {
            if let Err(error) = sender.flush(&mut sent) {
                broken.push((address.clone(), error.to_string()));
            }
        }
        // Only now: had we died before, they would have counted as lost.
        for stray in sent.iter().filter(|stray| stray.part == Part::Captured) {
            if self.shim.forget(&stray.key, 1).is_err() {
                self.shim.trip();
            }
        }
        for (address, error) in broken {
            let sender = self.peers.senders.remove(&address);
            for stray in sender.into_iter().flat_map(strays::Sender::into_unsent) {
                self.lose_stray(&stray);
            }
            self.publish(&json!({ "event": "peer_lost", "peer": address, "error": error }));
        }
    }

    fn lose_stray(&mut self, stray: &Stray) {
        let why = format!("no stream to where hold {} sends its strays", stray.hold);
        match stray.part {
            Part::Captured => self.give_up(&stray.key, 1, &why),
            Part::Stray => self.lose(&stray.key, 1, &why),
        }
    }

    pub(super) fn take_strays(&mut self) -> Result<(), AgentError> {
        let Some(trust) = &mut self.trust else {
            return Ok(());
        };
        if let Some(listener) = &self.peers.listener {
            while let Ok((stream, _)) = listener.accept() {
                let number = u64::from_ne_bytes(random()?);
                if let Ok(taker) = strays::Taker::greet(stream, self.config.instance.id, number) {
                    self.peers.takers.push(taker);
                }
            }
        }
        let mut arrived = Vec::new();
        self.peers.takers.retain_mut(|taker| {
            match taker.receive(&trust.keys, &mut trust.streams) {
                Ok(packets) => {
                    arrived.extend(packets);
                    true
                }
                Err(_) => false,
            }
        });
        for (side, frame) in arrived {
            let Some(packet) = frame
                .get(VNET_HEADER..)
                .and_then(|bytes| Key::parse(bytes, side))
            else {
                continue;
            };
            match self.endpoint.on_follower(&packet, &frame, now()) {
                Disposition::Write => self.write_out(packet.key, &frame, Write::Stray)?,
                Disposition::Lost => self.lost += 1,
                Disposition::Kept | Disposition::SendOn => {}
            }
        }
        Ok(())
    }
}
