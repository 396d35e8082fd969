//! A hold: the packets of all flows that match are kept, or sent on, until it is released.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{Event, Treatment};
use crate::key::{Key, Kind, Parsed, Side};
use crate::matching::Match;

/// Name of a hold; the controller uses the handover's id.
pub type HoldId = u64;

/// What a hold does with the flows it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Keep the packets of every flow that matches.
    Capture,
    /// Keep those of flows that this instance does not serve already (docs/design.md §5).
    Arm,
    /// Send the packets after the flow: it has moved (docs/design.md §5, *freeze*).
    Stray,
}

impl Role {
    /// What happens to a flow that is taken.
    pub(super) fn event(self) -> Event {
        match self {
            Role::Capture | Role::Arm => Event::Capture,
            Role::Stray => Event::Stray,
        }
    }

    /// What the programs do with its packets.
    pub(super) fn treatment(self) -> Treatment {
        match self {
            Role::Capture | Role::Stray => Treatment::Capture,
            Role::Arm => Treatment::Arm,
        }
    }
}

/// What to hold.
#[derive(Clone, Debug)]
pub struct Spec {
    /// What becomes of the packets.
    pub role: Role,
    /// Which flows, as seen from the upstream side.
    pub matching: Match,
    /// Flows that belong to a higher rule and are left alone.
    pub except: Vec<Match>,
    /// On which sides.
    pub sides: Vec<Side>,
}

impl Spec {
    /// Whether a packet that arrived with these headers belongs to the hold, whatever the side.
    pub(crate) fn covers(&self, packet: &Parsed) -> bool {
        self.matching.covers(packet) && !self.except.iter().any(|except| except.covers(packet))
    }

    /// Whether a flow belongs to it in one of its directions: its key, all that is known, has none.
    pub(crate) fn may_name(&self, flow: &Key) -> bool {
        let mut directions = [false, true].into_iter();
        directions.any(|swapped| self.covers(&Parsed::flow(*flow, swapped)))
    }

    /// Whether a flow belongs to it when all that is known is its key, which has no direction.
    pub(crate) fn names(&self, flow: &Key) -> bool {
        self.matching.covers_flow(flow)
            && !self.except.iter().any(|except| except.covers_flow(flow))
    }
}

/// Where a hold is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HoldState {
    /// Packets are kept or sent on.
    Holding,
    /// They are being let go.
    Releasing,
    /// All flows are on the fast path.
    Done,
    /// Ended before its release was asked for, or with losses; `error` says why.
    Aborted,
}

/// A hold's figures. Packets are counted as captured: a super-packet is one.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Figures {
    /// Flows taken so far, each side counted.
    pub flows: u64,
    /// Packets captured here.
    pub captured_packets: u64,
    /// Bytes of packets kept now.
    pub kept_bytes: usize,
    /// The most bytes that were kept at once.
    pub captured_bytes_peak: usize,
    /// Packets that followed from another instance.
    pub followed_packets: u64,
    /// Packets sent on to another instance.
    pub stray_packets: u64,
    /// Packets written to the function.
    pub released_packets: u64,
    /// Packets that will never be delivered.
    pub lost_packets: u64,
    /// CLOCK_MONOTONIC nanoseconds.
    pub began_ns: u64,
    /// When the release began; 0 before.
    pub released_ns: u64,
    /// When it was over; 0 before.
    pub ended_ns: u64,
}

/// One hold and how it goes.
#[derive(Clone, Debug)]
pub struct Hold {
    /// Its name.
    pub id: HoldId,
    /// What was asked for.
    pub spec: Spec,
    /// Where it is.
    pub state: HoldState,
    /// What it did.
    pub figures: Figures,
    /// Why it was aborted.
    pub error: Option<String>,
    /// Flow sides in its hands.
    pub(super) flows_left: usize,
    /// Its strays fill half the buffer, and this was said.
    pub(super) told_half_full: bool,
    /// Somebody leads it, who has to say what happens when the buffer fills.
    pub(super) led: bool,
    /// Whose state is not here yet.
    pub(super) awaited: Awaited,
}

/// Whose state a hold waits for. Strays of the other flows go at once, whatever else is kept.
#[derive(Clone, Debug)]
pub(super) enum Awaited {
    /// Every flow's.
    All,
    /// That of these flows, seen from upstream, and of packets that do not tell their flow.
    These(HashSet<Key>),
    /// Nobody's: it is in.
    Nobody,
}

impl Awaited {
    /// A packet without ports may belong to any flow: a fragment, an error message.
    pub(super) fn has(&self, upstream: &Key) -> bool {
        match self {
            Awaited::All => true,
            Awaited::These(flows) => {
                let nameless = upstream.low_port == [0; 2] || upstream.high_port == [0; 2];
                nameless || upstream.kind == Kind::L2 as u8 || flows.contains(upstream)
            }
            Awaited::Nobody => false,
        }
    }
}

impl Hold {
    /// Whether it still takes flows or lets them go.
    pub fn is_live(&self) -> bool {
        matches!(self.state, HoldState::Holding | HoldState::Releasing)
    }
}
