//! A connection and how far it has come; see `wire` for the picture.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::Token;

use super::NodeId;
use super::frame::Greeting;
use super::link::Link;

#[derive(Debug)]
pub enum Stage {
    Connecting,
    Greeting,
    Contending {
        greeting: Greeting,
        rival: Token,
        since: Instant,
    },
    /// Acceptor: the dialer has been welcomed. Dialer: it has been, and said that it is ready.
    Welcomed(Greeting),
    Linked(NodeId),
    Retired(NodeId),
    /// A refusal is on its way out; what comes in is not read any more.
    Closing,
}

pub struct Connection {
    pub link: Arc<Link>,
    pub stage: Stage,
    pub input: Vec<u8>,
    /// The address that was dialled; none: accepted.
    pub dialled: Option<SocketAddr>,
    /// Where the member can be dialled, once that is known.
    pub address: Option<SocketAddr>,
    pub opened: Instant,
    /// When bytes last came.
    pub heard: Instant,
    /// When a `Ping` was last answered.
    pub answered: Option<Instant>,
    /// The peer has said `Retire`.
    pub retired_there: bool,
}

impl Connection {
    pub fn new(link: Arc<Link>, dialled: Option<SocketAddr>) -> Self {
        let now = Instant::now();
        Self {
            link,
            stage: match dialled {
                Some(_) => Stage::Connecting,
                None => Stage::Greeting,
            },
            input: Vec::new(),
            dialled,
            address: None,
            opened: now,
            heard: now,
            answered: None,
            retired_there: false,
        }
    }

    /// Nothing it says is believed yet.
    pub fn is_stranger(&self) -> bool {
        !matches!(self.stage, Stage::Linked(_) | Stage::Retired(_))
    }

    /// Why it has to be given up, if it has.
    pub fn failed(&self, now: Instant, limit: Duration) -> Option<String> {
        let silent = now.duration_since(self.heard);
        match &self.stage {
            Stage::Linked(_) if self.link.overrun() => {
                Some("it does not read what is sent to it".into())
            }
            Stage::Linked(_) => {
                (silent > limit).then(|| format!("silent for {} ms", silent.as_millis()))
            }
            // Settled by the sign of life of the rival, or the lack of it.
            Stage::Contending { .. } => None,
            Stage::Retired(_) => (silent > limit).then(|| "retired".into()),
            _ => (now.duration_since(self.opened) > limit * 2).then(|| "no greeting".into()),
        }
    }
}
