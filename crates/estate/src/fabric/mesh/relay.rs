//! Members that cannot reach each other and have a third between them: it tells each who is linked
//! to it (`Reach`) and passes messages on (`Relay`, `Relayed`).
//!
//! A member relays if it is told to. It relays between its own links only, one hop: what it hears of
//! others' it does not pass on, so nothing can go round in circles. A link of one's own is always
//! preferred; a member has left when neither a link nor a relay leads to it. Who relays is
//! believed about whom it relays for: with TLS, it has a certificate of the cluster's authority.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mio::Token;

use super::frame::{Frame, Reach};
use super::link::Link;
use super::wire::Wire;
use super::{NodeId, Shared};
use crate::fabric::Why;

/// Members that can be reached through others: by which.
#[derive(Debug, Default)]
pub struct Routes {
    through: HashMap<NodeId, BTreeSet<NodeId>>,
}

impl Routes {
    /// `relay` reaches `member`; says whether it is the first that does.
    pub fn open(&mut self, member: &NodeId, relay: &NodeId) -> bool {
        let relays = self.through.entry(member.clone()).or_default();
        let first = relays.is_empty();
        relays.insert(relay.clone());
        first
    }

    /// `relay` does not reach `member` any more; says whether it was the last that did.
    pub fn shut(&mut self, member: &NodeId, relay: &NodeId) -> bool {
        let Some(relays) = self.through.get_mut(member) else {
            return false;
        };
        let was = relays.remove(relay);
        if relays.is_empty() {
            self.through.remove(member);
            return was;
        }
        false
    }

    /// Those that `relay` reaches.
    pub fn by(&self, relay: &NodeId) -> Vec<NodeId> {
        let mut members: Vec<_> = self
            .through
            .iter()
            .filter(|(_, relays)| relays.contains(relay))
            .map(|(member, _)| member.clone())
            .collect();
        members.sort();
        members
    }

    pub fn reaches(&self, member: &NodeId) -> bool {
        self.through.contains_key(member)
    }

    pub fn members(&self) -> impl Iterator<Item = &NodeId> {
        self.through.keys()
    }

    /// Whether what `relay` says in the name of `member` is to be believed.
    fn leads(&self, member: &NodeId, relay: &NodeId) -> bool {
        let relays = self.through.get(member);
        relays.is_some_and(|relays| relays.contains(relay))
    }

    /// The relay for each of `to`, members grouped by it.
    fn ways(&self, to: &[&NodeId]) -> HashMap<&NodeId, Vec<NodeId>> {
        let mut ways: HashMap<&NodeId, Vec<NodeId>> = HashMap::new();
        for member in to {
            if let Some(relay) = self.through.get(*member).and_then(BTreeSet::first) {
                ways.entry(relay).or_default().push((*member).clone());
            }
        }
        ways
    }
}

impl Shared {
    /// Sends `bytes` to members without a link, through those that relay to them.
    pub(super) fn send_far(
        &self,
        links: &HashMap<NodeId, Arc<Link>>,
        to: &[&NodeId],
        bytes: &[u8],
        fit: impl Fn(&Link) -> bool,
    ) {
        let routes = self.routes.read();
        for (relay, members) in routes.ways(to) {
            if let Some(link) = links.get(relay).filter(|link| fit(link)) {
                self.messages_sent
                    .fetch_add(members.len() as u64, Ordering::Relaxed);
                link.send(&Frame::Relay(members, bytes));
            }
        }
    }
}

impl Wire {
    /// Tells all members whom they reach through us; `why` those that they do not any more.
    pub(super) fn announce(&self, why: &Why) {
        if !self.shared.options.relay {
            return;
        }
        let how = why.to_string();
        let links = self.shared.links.read();
        for (to, link) in links.iter() {
            let others = links.keys().filter(|member| *member != to);
            link.send(&Frame::Reach(Reach {
                members: others.cloned().collect(),
                left: *why == Why::Left,
                how: &how,
            }));
        }
    }

    /// A frame about members that are not linked to us, from `relay`; or to be relayed by us.
    pub(super) fn relaying(&mut self, token: Token, relay: &NodeId, frame: Frame<'_>) {
        match frame {
            Frame::Reach(reach) => {
                let why = match reach.left {
                    true => Why::Left,
                    false => Why::Failed(format!("{} (says {})", reach.how, relay.name)),
                };
                self.reaches(relay, &reach.members, &why);
            }
            Frame::Relay(to, bytes) if self.shared.options.relay => {
                let links = self.shared.links.read();
                for link in to.iter().filter_map(|member| links.get(member)) {
                    link.send(&Frame::Relayed(relay.clone(), bytes));
                }
            }
            Frame::Relayed(from, bytes) if self.shared.routes.read().leads(&from, relay) => {
                let received = &self.shared.messages_received;
                received.fetch_add(1, Ordering::Relaxed);
                self.listener.message(&from, bytes);
            }
            // It was on its way when the route was given up.
            Frame::Relayed(..) => {}
            _ => self.out_of_turn(token, &frame),
        }
    }

    fn reaches(&mut self, relay: &NodeId, members: &[NodeId], why: &Why) {
        let before = self.shared.routes.read().by(relay);
        for gone in before.iter().filter(|member| !members.contains(member)) {
            self.unreached(gone, relay, why);
        }
        for member in members {
            // Who has our own name is refused by whoever relays.
            if member.name != self.shared.options.node.name {
                let first = self.shared.routes.write().open(member, relay);
                if first && !self.is_linked(member) {
                    self.listener.joined(member);
                }
            }
        }
    }

    fn unreached(&mut self, member: &NodeId, relay: &NodeId, why: &Why) {
        let last = self.shared.routes.write().shut(member, relay);
        if last && !self.is_linked(member) {
            self.listener.left(member, why);
        }
    }

    /// A member is linked no more, and with it all that it relayed to.
    pub(super) fn unlinked(&mut self, member: &NodeId, why: &Why) {
        self.announce(why);
        let beyond = self.shared.routes.read().by(member);
        if !self.shared.routes.read().reaches(member) {
            self.listener.left(member, why);
        }
        for far in beyond {
            let why = format!("{}, which relays to it, is gone: {why}", member.name);
            self.unreached(&far, member, &Why::Failed(why));
        }
    }

    fn is_linked(&self, member: &NodeId) -> bool {
        self.shared.links.read().contains_key(member)
    }
}
