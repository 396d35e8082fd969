//! Strays to and from other agents.

use std::collections::{BTreeSet, HashMap};
use std::net::TcpListener;

use flowferry_tls::Identity;
use serde_json::{Value, json};

use super::start::random;
use super::{Agent, AgentError, now, strays};
use crate::endpoint::{Disposition, HoldId, Stray};
use crate::handover::Input;
use crate::key::{Key, Side};
use crate::shim::tap::VNET_HEADER;

/// Connections that have not proven themselves, and connections in all.
const STRANGERS: usize = 16;
const TAKERS: usize = 256;
/// Between two lines in the log about connections that were turned away.
const BETWEEN_LINES_NS: u64 = 1_000_000_000;

/// The agent's ends of the stray streams.
pub(super) struct Peers {
    pub(super) listener: Option<TcpListener>,
    /// Our certificate and whom we believe; streams are plain without.
    pub(super) identity: Option<Identity>,
    pub(super) takers: Vec<strays::Taker>,
    pub(super) senders: HashMap<String, strays::Sender>,
    pub(super) of_hold: HashMap<HoldId, String>,
    pub(super) refusals: Refusals,
}

/// Connections that were turned away.
#[derive(Default)]
pub(super) struct Refusals {
    count: u64,
    last: Option<String>,
    /// When the log was last told of one; others come too often to be written down each.
    logged_ns: Option<u64>,
}

impl Refusals {
    fn add(&mut self, line: String, now: u64) {
        self.count += 1;
        let often = |logged| now.saturating_sub(logged) < BETWEEN_LINES_NS;
        if !self.logged_ns.is_some_and(often) {
            self.logged_ns = Some(now);
            eprintln!("flowferry hsl: {line}");
        }
        self.last = Some(line);
    }
}

impl Peers {
    /// What a status says of streams.
    pub(super) fn figures(&self) -> Value {
        json!({
            "tls": self.identity.is_some(),
            "from": self.takers.iter().filter_map(strays::Taker::from).collect::<BTreeSet<_>>(),
            "to": self.senders.values().filter(|sender| sender.is_ready()).count(),
            "turned_away": self.refusals.count,
            "turned_away_last": self.refusals.last,
        })
    }
}

impl Agent {
    /// Whether strays are on their way: their flows stand still though nothing is lost.
    pub(super) fn strays_under_way(&self) -> bool {
        self.endpoint.has_strays() || self.peers.senders.values().any(|sender| !sender.is_idle())
    }

    pub(super) fn send_strays(&mut self) -> Result<(), AgentError> {
        self.advance_dialling()?;
        if self.is_late() {
            return Ok(());
        }
        self.push_records();
        while self.peers.senders.values().all(strays::Sender::has_room) {
            let Some(stray) = self.endpoint.next_stray() else {
                break;
            };
            let address = self.peers.of_hold.get(&stray.hold);
            match address.and_then(|address| self.peers.senders.get_mut(address)) {
                Some(sender) => sender.push(stray),
                None => self.lose_stray(&stray),
            }
            self.push_records();
        }
        let mut taken = Vec::new();
        let mut broken = Vec::new();
        for (address, sender) in &mut self.peers.senders {
            if let Err(error) = sender.flush(&mut taken) {
                broken.push((address.clone(), error.to_string()));
            }
        }
        self.forget_taken(&taken);
        for (address, error) in broken {
            let sender = self.peers.senders.remove(&address);
            for stray in sender.into_iter().flat_map(strays::Sender::into_untaken) {
                self.lose_stray(&stray);
            }
            self.publish(&json!({ "event": "peer_lost", "peer": address, "error": error }));
            self.lost_peer(&address, error)?;
        }
        Ok(())
    }

    /// Only now: until they are taken they count as lost if we die.
    pub(super) fn forget_taken(&mut self, taken: &[Stray]) {
        for stray in taken {
            if self.shim.forget(&stray.key, 1).is_err() {
                self.shim.trip();
            }
        }
    }

    fn lose_stray(&mut self, stray: &Stray) {
        let why = format!("no stream to where hold {} sends its strays", stray.hold);
        self.give_up(&stray.key, 1, &why);
    }

    /// Let in a few connections at most: whoever they are, they must not use us up.
    fn greet_peers(&mut self) {
        let Some(listener) = &self.peers.listener else {
            return;
        };
        while let Ok((stream, from)) = listener.accept() {
            let strangers = self
                .peers
                .takers
                .iter()
                .filter(|taker| !taker.is_trusted())
                .count();
            if strangers >= STRANGERS || self.peers.takers.len() >= TAKERS {
                let line = format!("a stream from {from} turned away: there are too many");
                self.peers.refusals.add(line, now());
                continue;
            }
            let Ok(number) = random().map(u64::from_ne_bytes) else {
                continue;
            };
            let (identity, own) = (self.peers.identity.as_ref(), self.config.instance.id);
            if let Ok(taker) = strays::Taker::greet(stream, from, identity, own, number, now()) {
                self.peers.takers.push(taker);
            }
        }
    }

    pub(super) fn take_strays(&mut self) -> Result<(), AgentError> {
        self.greet_peers();
        let Some(trust) = &mut self.trust else {
            return Ok(());
        };
        let time = now();
        let mut arrived = Vec::new();
        let mut gone = Vec::new();
        self.peers.takers.retain_mut(|taker| {
            let received = match taker.receive(&trust.keys, &mut trust.streams, time) {
                Ok(received) => received,
                Err(error) => {
                    gone.extend(taker.from());
                    if !taker.is_trusted() {
                        let from = taker.address();
                        let line = format!("a stream from {from} turned away: {error}");
                        self.peers.refusals.add(line, time);
                    }
                    return false;
                }
            };
            let from = taker.from().unwrap_or_default();
            arrived.extend(received.into_iter().map(|one| (from, one)));
            true
        });
        for (from, received) in arrived {
            match received {
                strays::Received::Packet(side, frame) => self.take_stray(side, &frame, time)?,
                strays::Received::Record(record) => {
                    self.feed(Input::Record { from, record })?;
                }
            }
        }
        // Only now: once they are acknowledged, nobody but us counts them.
        self.peers.takers.retain_mut(|taker| {
            let heard = taker.acknowledge().is_ok();
            gone.extend(taker.from().filter(|_| !heard));
            heard
        });
        gone.into_iter()
            .try_for_each(|from| self.feed(Input::Gone { from }))
    }

    fn take_stray(&mut self, side: Side, frame: &[u8], time: u64) -> Result<(), AgentError> {
        let parsed = frame
            .get(VNET_HEADER..)
            .and_then(|bytes| Key::parse(bytes, side));
        let Some(packet) = parsed else {
            self.lost += 1;
            return Ok(());
        };
        if let Err(error) = self.shim.adopt(&packet.key, 1) {
            self.lose(&packet.key, 1, &format!("it cannot be counted: {error}"));
            return Ok(());
        }
        let disposition = self.endpoint.on_follower(&packet, frame, time);
        self.act()?; // a flow of which a packet has gone on would count as served here
        match disposition {
            Disposition::Write => self.write_out(packet.key, frame)?,
            Disposition::Lost => {
                if self.take_off(&packet.key, 1) {
                    self.lost += 1; // the endpoint has told its hold
                }
            }
            Disposition::Kept | Disposition::SendOn => {}
        }
        Ok(())
    }
}
