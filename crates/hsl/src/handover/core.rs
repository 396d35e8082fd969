//! The endpoint and its handovers as one: what the simulation drives, and what the agent does with
//! the two in its loop, in a page.

use std::collections::VecDeque;

use super::{Action, Handovers, Input, Settings};
use crate::endpoint::{self, Disposition, Endpoint, HoldState, Notice};
use crate::key::{Key, Side};

/// What is to be done, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum CoreAction {
    /// By the programs, or by whoever listens.
    Endpoint(endpoint::Action),
    /// By the shell.
    Handover(Action),
}

/// See the module's head.
pub struct Core {
    /// Which packets are kept.
    pub endpoint: Endpoint,
    /// Why.
    pub handovers: Handovers,
    actions: VecDeque<CoreAction>,
}

impl Core {
    /// An instance at rest; `limit`: bytes of packets that may be kept.
    pub fn new(settings: Settings, limit: usize) -> Core {
        Core {
            endpoint: Endpoint::new(limit),
            handovers: Handovers::new(settings),
            actions: VecDeque::new(),
        }
    }

    /// A captured packet, without what the shim puts in front of it. `None`: no Ethernet header.
    pub fn on_frame(&mut self, side: Side, frame: &[u8], now: u64) -> Option<Disposition> {
        let packet = Key::parse(frame, side)?;
        let disposition = self.endpoint.on_frame(&packet, frame, now);
        self.follow_up(Vec::new(), now);
        Some(disposition)
    }

    /// A packet that strayed at another instance.
    pub fn on_follower(&mut self, side: Side, frame: &[u8], now: u64) -> Option<Disposition> {
        let packet = Key::parse(frame, side)?;
        let disposition = self.endpoint.on_follower(&packet, frame, now);
        self.follow_up(Vec::new(), now);
        Some(disposition)
    }

    /// Anything else.
    pub fn handle(&mut self, input: Input, now: u64) {
        let actions = self.handovers.handle(&mut self.endpoint, input, now);
        self.follow_up(actions, now);
    }

    /// Take the endpoint's actions in, in front of the handovers' own, and tell the handovers what
    /// they are to know of them.
    pub fn follow_up(&mut self, mut actions: Vec<Action>, now: u64) {
        loop {
            let decided = self.endpoint.take_actions();
            if decided.is_empty() {
                break;
            }
            for action in decided {
                if let Some(input) = news(&action) {
                    actions.extend(self.handovers.handle(&mut self.endpoint, input, now));
                }
                self.actions.push_back(CoreAction::Endpoint(action));
            }
        }
        self.actions
            .extend(actions.into_iter().map(CoreAction::Handover));
    }

    /// What is to be done next.
    pub fn next_action(&mut self) -> Option<CoreAction> {
        self.actions.pop_front()
    }
}

/// What the handovers are to know of an action of the endpoint's.
pub fn news(action: &endpoint::Action) -> Option<Input> {
    match action {
        endpoint::Action::Seen(hold, key) => Some(Input::Seen(*hold, *key)),
        endpoint::Action::Notice(Notice::Hold {
            hold,
            state: HoldState::Done | HoldState::Aborted,
            error,
        }) => Some(Input::Ended(*hold, error.clone())),
        endpoint::Action::Notice(Notice::HalfFull { hold, .. }) => Some(Input::HalfFull(*hold)),
        _ => None,
    }
}
