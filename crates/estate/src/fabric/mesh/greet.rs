//! From a greeting to a link: who may be a member, and which of two links stays.

use std::sync::atomic::Ordering;
use std::time::Instant;

use mio::Token;

use super::connection::Stage;
use super::frame::{Frame, Greeting, Refusal};
use super::tls::stands_for;
use super::wire::Wire;
use super::{FabricError, NodeId};
use crate::fabric::Why;

impl Wire {
    /// How this node introduces itself.
    pub(super) fn greeting(&self) -> Greeting {
        let options = &self.shared.options;
        let linked = self.current.values();
        Greeting {
            cluster: options.cluster.clone(),
            node: options.node.clone(),
            listen: self.shared.address,
            // Whoever relays does so because others cannot dial each other.
            peers: linked
                .filter(|_| !options.relay)
                .filter_map(|(_, t)| self.connections.get(t)?.address)
                .collect(),
        }
    }

    /// A frame has come.
    pub(super) fn frame(&mut self, token: Token, frame: Frame<'_>) {
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        let dialled = connection.dialled.is_some();
        match (&connection.stage, frame) {
            (Stage::Linked(member) | Stage::Retired(member), Frame::Message(bytes)) => {
                self.shared
                    .messages_received
                    .fetch_add(1, Ordering::Relaxed);
                self.listener.message(member, bytes);
            }
            (Stage::Linked(_) | Stage::Retired(_), Frame::Heartbeat) => {}
            (Stage::Linked(_) | Stage::Retired(_), Frame::Ping) => {
                connection.link.send(&Frame::Pong);
            }
            (Stage::Linked(_), Frame::Pong) => connection.answered = Some(Instant::now()),
            (Stage::Linked(_), Frame::Retire) => connection.retired_there = true,
            (Stage::Retired(_), Frame::Retire) => self.end(token, &Why::Left, None),
            (Stage::Linked(_) | Stage::Retired(_), Frame::Bye) => self.end(token, &Why::Left, None),
            // It is said again on the link that stays.
            (Stage::Retired(_), Frame::Reach(_)) => {}
            (
                Stage::Linked(member) | Stage::Retired(member),
                frame @ (Frame::Reach(_) | Frame::Relay(..) | Frame::Relayed(..)),
            ) => {
                let member = member.clone();
                self.relaying(token, &member, frame);
            }
            (Stage::Greeting, Frame::Hello(greeting)) if !dialled => self.greeted(token, greeting),
            (Stage::Greeting, Frame::Welcome(greeting)) if dialled => self.greeted(token, greeting),
            (Stage::Greeting, Frame::Refuse(refusal, text)) if dialled => {
                self.refused_by(token, refusal, text);
            }
            (Stage::Welcomed(greeting), Frame::Ready) => {
                let greeting = greeting.clone();
                self.ready(token, &greeting);
            }
            (Stage::Welcomed(_), Frame::Refuse(refusal, text)) if dialled => {
                self.refused_by(token, refusal, text);
            }
            (Stage::Welcomed(_), Frame::Refuse(refusal, text)) => {
                if refusal == Refusal::NameTaken && !self.joined {
                    self.claimed = Some(self.name_taken(text));
                }
                self.end(token, &Why::Failed(text.to_owned()), None);
            }
            (_, frame) => self.out_of_turn(token, &frame),
        }
    }

    pub(super) fn out_of_turn(&mut self, token: Token, frame: &Frame<'_>) {
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        let name = format!("{frame:?}");
        let name = name.split(['(', ' ']).next().unwrap_or_default();
        let why = Why::Failed(format!("it said {name} out of turn"));
        self.end(token, &why, None);
    }

    fn greeted(&mut self, token: Token, greeting: Greeting) {
        let options = &self.shared.options;
        let me = &options.node;
        let other = &greeting.node;
        if greeting.cluster != options.cluster {
            let why = format!(
                "it is in cluster {:?}, not {:?}: give both the same cluster",
                options.cluster, greeting.cluster
            );
            return self.refuse(token, Refusal::Cluster, &why);
        }
        if other == me {
            return self.refuse(token, Refusal::Yourself, "this is yourself");
        }
        if let Some(shown) = self.connections[&token].link.certificate()
            && !stands_for(&shown, &[&other.name, &options.cluster])
        {
            let why = format!(
                "the certificate stands neither for node {:?} nor for cluster {:?}: issue one with \
                 either as its subject alternative name",
                &*other.name, options.cluster
            );
            return self.refuse(token, Refusal::Certificate, &why);
        }
        if other.name == me.name {
            let by = self.shared.address.to_string();
            if !self.joined {
                // It was here before us, and has heard of us before we have of it.
                self.claimed = Some(self.name_taken(&greeting.listen.to_string()));
            }
            return self.refuse(token, Refusal::NameTaken, &by);
        }
        let later = self.incarnations.get(&other.name);
        if later.is_some_and(|later| *later > other.incarnation) {
            // Its memory counts for lost since then: nobody would listen to it.
            let why = format!(
                "{}, which has seen one of that name that was started later: if it has gone, \
                 the clock of this machine is behind",
                me.name
            );
            return self.reject(token, &why);
        }
        match self.current.get(&other.name) {
            Some((rival, at)) if rival != other => {
                let rival = *at;
                self.connections[&rival].link.send(&Frame::Ping);
                self.stage(
                    token,
                    Stage::Contending {
                        greeting,
                        rival,
                        since: Instant::now(),
                    },
                );
            }
            _ => self.proceed(token, greeting),
        }
    }

    /// Nothing speaks against the greeting.
    fn proceed(&mut self, token: Token, greeting: Greeting) {
        if self.connections[&token].dialled.is_some() {
            self.connections[&token].link.send(&Frame::Ready);
        } else {
            let welcome = Frame::Welcome(self.greeting());
            self.connections[&token].link.send(&welcome);
        }
        self.stage(token, Stage::Welcomed(greeting));
    }

    /// The other end is ready. The acceptor says so in its turn, and has the last word: two that
    /// claim one name may have been welcomed at the same time, and one of them has linked since.
    fn ready(&mut self, token: Token, greeting: &Greeting) {
        let connection = &self.connections[&token];
        if connection.dialled.is_none() {
            let name = &greeting.node.name;
            if self
                .current
                .get(name)
                .is_some_and(|(other, _)| *other != greeting.node)
            {
                let by = self.shared.options.node.name.to_string();
                return self.refuse(token, Refusal::NameTaken, &by);
            }
            connection.link.send(&Frame::Ready);
        }
        self.link(token, greeting);
    }

    fn stage(&mut self, token: Token, stage: Stage) {
        if let Some(connection) = self.connections.get_mut(&token) {
            connection.stage = stage;
        }
    }

    /// New connections whose name is also a living member's: see the picture in `wire`.
    pub(super) fn settle_contests(&mut self, now: Instant) {
        let limit = self.shared.options.failure_after;
        let contests: Vec<_> = self
            .connections
            .iter()
            .filter_map(|(token, c)| match &c.stage {
                Stage::Contending {
                    greeting,
                    rival,
                    since,
                } => Some((*token, greeting.clone(), *rival, *since)),
                _ => None,
            })
            .collect();
        for (token, greeting, rival, since) in contests {
            if let Some(connection) = self.connections.get(&rival) {
                if connection.answered.is_some_and(|at| at >= since) {
                    let by = self.shared.options.node.name.to_string();
                    self.reject(token, &by);
                    continue;
                }
                if now.duration_since(since) <= limit {
                    continue;
                }
                let why = "no sign of life, and its name was claimed anew".to_owned();
                self.end(rival, &Why::Failed(why), None);
            }
            if self.connections.contains_key(&token) {
                self.greeted_again(token, greeting);
            }
        }
    }

    fn greeted_again(&mut self, token: Token, greeting: Greeting) {
        self.stage(token, Stage::Greeting);
        self.greeted(token, greeting);
        self.parse(token);
    }

    /// The link is up at both ends.
    fn link(&mut self, token: Token, greeting: &Greeting) {
        let now = Instant::now();
        let me = self.shared.options.node.clone();
        let member = greeting.node.clone();
        let Some(connection) = self.connections.get_mut(&token) else {
            return;
        };
        let mut address = greeting.listen;
        if address.ip().is_unspecified()
            && let Ok(from) = connection.link.peer_address()
        {
            address.set_ip(from.ip());
        }
        connection.address = Some(address);
        connection.stage = Stage::Linked(member.clone());
        self.incarnations
            .insert(member.name.clone(), member.incarnation);
        let dialled = connection.dialled;
        let link = connection.link.clone();
        for address in [Some(address), dialled].into_iter().flatten() {
            self.absent.found(address);
            self.book.linked(address, now);
        }
        for peer in &greeting.peers {
            self.book.learn(*peer, false, now);
        }
        self.restless = true;
        match self.current.get(&member.name).cloned() {
            None => {
                self.current
                    .insert(member.name.clone(), (member.clone(), token));
                self.shared.links.write().insert(member.clone(), link);
                if !self.shared.routes.read().reaches(&member) {
                    self.listener.joined(&member);
                }
                self.announce(&Why::Left);
            }
            Some((other, _)) if other != member => {
                // It has linked from elsewhere meanwhile; whoever is wrong is refused at the next try.
                self.end(
                    token,
                    &Why::Failed("its name is claimed twice".into()),
                    None,
                );
            }
            Some((_, old)) => {
                let lesser_is_me = me < member;
                let old_dialled = self.connections[&old].dialled.is_some();
                let keeps_old = old_dialled != dialled.is_some() && old_dialled == lesser_is_me;
                if keeps_old {
                    self.retire(token, &member);
                } else {
                    self.current
                        .insert(member.name.clone(), (member.clone(), token));
                    self.shared.links.write().insert(member.clone(), link);
                    self.announce(&Why::Left);
                    self.retire(old, &member);
                }
            }
        }
    }

    fn retire(&mut self, token: Token, member: &NodeId) {
        self.stage(token, Stage::Retired(member.clone()));
        let connection = &self.connections[&token];
        connection.link.send(&Frame::Retire);
        if connection.retired_there {
            self.end(token, &Why::Left, None);
        }
    }

    /// The name of the other end is another's. That is no failure of ours, even if we have dialled it.
    fn reject(&mut self, token: Token, text: &str) {
        if self.connections[&token].dialled.is_none() {
            return self.refuse(token, Refusal::NameTaken, text);
        }
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        let link = &self.connections[&token].link;
        link.send(&Frame::Refuse(Refusal::NameTaken, text));
        link.shut_writing();
        self.end(
            token,
            &Why::Failed(format!("its name is taken: {text}")),
            None,
        );
    }

    fn refuse(&mut self, token: Token, refusal: Refusal, text: &str) {
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        let connection = &self.connections[&token];
        connection.link.send(&Frame::Refuse(refusal, text));
        connection.link.shut_writing();
        if connection.dialled.is_some() {
            // We will not have them, whatever they think of us.
            self.refused_by(token, refusal, text);
        } else {
            self.stage(token, Stage::Closing);
        }
    }

    /// The peer that was dialled refuses this node, or this node refuses it.
    fn refused_by(&mut self, token: Token, refusal: Refusal, text: &str) {
        let Some(address) = self.connections.get(&token).and_then(|c| c.dialled) else {
            return;
        };
        let options = &self.shared.options;
        let why = match refusal {
            Refusal::Yourself => {
                self.book.own(address);
                self.restless = true;
                return self.end(token, &Why::Left, None);
            }
            Refusal::NameTaken => self.name_taken(&format!("{address}, {text}")),
            Refusal::Cluster | Refusal::Certificate => FabricError::Refused {
                address: address.to_string(),
                node: options.node.name.to_string(),
                why: text.to_owned(),
            },
        };
        self.end(token, &Why::Failed(why.to_string()), Some(why));
    }

    fn name_taken(&self, by: &str) -> FabricError {
        FabricError::NameTaken {
            node: self.shared.options.node.name.to_string(),
            cluster: self.shared.options.cluster.clone(),
            by: by.to_owned(),
        }
    }

    /// What a dialler makes of a link that broke before it was greeted: TLS does not trust it, or
    /// only one of the two speaks TLS.
    pub(super) fn rejected_by_tls(&self, token: Token, why: &str) -> Option<FabricError> {
        let connection = self.connections.get(&token)?;
        let address = connection.dialled?;
        let speaks_tls = self.shared.options.tls.is_some();
        let greeting = matches!(connection.stage, Stage::Greeting);
        let garbled = why.contains("frame") || (speaks_tls && !why.contains("os error"));
        (greeting && garbled && !why.contains("without a goodbye")).then(|| FabricError::Refused {
            address: address.to_string(),
            node: self.shared.options.node.name.to_string(),
            why: format!("{why} (do both have TLS, and certificates of the same authority?)"),
        })
    }

    /// The connection is over.
    pub(super) fn end(&mut self, token: Token, why: &Why, refusal: Option<FabricError>) {
        let Some(connection) = self.connections.remove(&token) else {
            return;
        };
        let now = Instant::now();
        connection.link.shut();
        let sent = connection.link.sent();
        self.shared.bytes_sent.fetch_add(sent, Ordering::Relaxed);
        self.restless = true;
        if let (Some(address), Some(why)) = (connection.dialled, &refusal) {
            self.listener.refused(&address.to_string(), why);
        }
        match connection.stage {
            Stage::Retired(_) => {}
            Stage::Linked(member) => {
                for address in [connection.address, connection.dialled]
                    .into_iter()
                    .flatten()
                {
                    self.book.broken(address, refusal.clone(), now);
                }
                let in_use = self
                    .current
                    .get(&member.name)
                    .is_some_and(|(_, t)| *t == token);
                if in_use {
                    if let (Some(address), Why::Failed(_)) = (connection.address, why) {
                        self.absent.lost(address, member.clone());
                    }
                    self.current.remove(&member.name);
                    self.shared.links.write().remove(&member);
                    self.unlinked(&member, why);
                }
            }
            _ => {
                if let Some(address) = connection.dialled {
                    self.book.broken(address, refusal, now);
                }
            }
        }
    }
}
