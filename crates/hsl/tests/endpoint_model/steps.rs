//! What can happen next, and how often it is tried.

use flowferry_hsl::endpoint::{HoldId, Role};
use flowferry_hsl::key::Side;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::traffic::{FLOWS, MATCHES};

/// Flows and matches by their number in `traffic`.
#[derive(Clone, Debug)]
pub enum Step {
    Hold {
        id: HoldId,
        role: Role,
        matching: usize,
        except: Vec<usize>,
        sides: Vec<Side>,
    },
    Release {
        id: HoldId,
    },
    Turn {
        id: HoldId,
        role: Role,
    },
    ReleaseFlow {
        id: HoldId,
        flow: usize,
    },
    Abort {
        id: HoldId,
    },
    /// Somebody leads the hold.
    Lead {
        id: HoldId,
    },
    LetStraysGo {
        id: HoldId,
    },
    ReleaseSide {
        id: HoldId,
        flow: usize,
        side: Side,
    },
    Alias {
        flow: usize,
    },
    Unalias {
        flow: usize,
    },
    /// The accounting of a flow is dropped: it has moved away.
    Disown {
        flow: usize,
    },
    /// A packet comes from the wire.
    Arrive {
        flow: usize,
        side: Side,
        length: usize,
    },
    /// A packet comes from another instance, where it strayed.
    Follow {
        flow: usize,
        side: Side,
        length: usize,
    },
    /// A packet comes from the wire, and the TAP is full.
    Overflow {
        flow: usize,
        side: Side,
    },
    /// The shell carries out what the endpoint decided.
    Act {
        actions: usize,
    },
    /// The shell reads captured frames.
    Read {
        side: Side,
        frames: usize,
    },
    /// The shell writes released frames, or the first one again that was refused.
    Write {
        frames: usize,
        refused: bool,
    },
    /// Released frames come through the interface again.
    SecondPass {
        side: Side,
        frames: usize,
    },
    /// The kernel drops a released frame.
    Vanish {
        side: Side,
    },
    /// The shell sends strays on.
    SendOn {
        frames: usize,
    },
    /// The shell looks which flows are through.
    Settle,
    /// The shell lets holds end.
    Sweep,
    /// The programs had failed open.
    Discard,
    /// Old holds are forgotten, and their ids are free again.
    ForgetEnded,
}

fn side() -> impl Strategy<Value = Side> {
    prop_oneof![Just(Side::Upstream), Just(Side::Downstream)]
}

fn sides() -> impl Strategy<Value = Vec<Side>> {
    prop_oneof![
        1 => Just(vec![]),
        12 => Just(Side::ALL.to_vec()),
        6 => side().prop_map(|side| vec![side]),
    ]
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![
        3 => Just(Role::Capture),
        2 => Just(Role::Arm),
        2 => Just(Role::Stray),
    ]
}

pub fn step() -> impl Strategy<Value = Step> {
    let id = || 1..=4u64;
    let flow = || 0..FLOWS.len();
    let number = || 1..4usize;
    let length = || 60..200usize;
    let matching = || 0..MATCHES.len();
    prop_oneof![
        8 => (id(), role(), matching(), vec(matching(), 0..3), sides()).prop_map(
            |(id, role, matching, except, sides)| Step::Hold { id, role, matching, except, sides }
        ),
        5 => id().prop_map(|id| Step::Release { id }),
        3 => (id(), flow()).prop_map(|(id, flow)| Step::ReleaseFlow { id, flow }),
        2 => (id(), role()).prop_map(|(id, role)| Step::Turn { id, role }),
        1 => id().prop_map(|id| Step::Abort { id }),
        3 => id().prop_map(|id| Step::Lead { id }),
        3 => id().prop_map(|id| Step::LetStraysGo { id }),
        3 => (id(), flow(), side())
            .prop_map(|(id, flow, side)| Step::ReleaseSide { id, flow, side }),
        2 => flow().prop_map(|flow| Step::Alias { flow }),
        1 => flow().prop_map(|flow| Step::Unalias { flow }),
        1 => flow().prop_map(|flow| Step::Disown { flow }),
        40 => (flow(), side(), length())
            .prop_map(|(flow, side, length)| Step::Arrive { flow, side, length }),
        8 => (flow(), side(), length())
            .prop_map(|(flow, side, length)| Step::Follow { flow, side, length }),
        1 => (flow(), side()).prop_map(|(flow, side)| Step::Overflow { flow, side }),
        20 => (1..9usize).prop_map(|actions| Step::Act { actions }),
        20 => (side(), number()).prop_map(|(side, frames)| Step::Read { side, frames }),
        14 => (number(), prop::bool::weighted(0.2))
            .prop_map(|(frames, refused)| Step::Write { frames, refused }),
        14 => (side(), number()).prop_map(|(side, frames)| Step::SecondPass { side, frames }),
        1 => side().prop_map(|side| Step::Vanish { side }),
        6 => number().prop_map(|frames| Step::SendOn { frames }),
        8 => Just(Step::Settle),
        6 => Just(Step::Sweep),
        1 => Just(Step::Discard),
        2 => Just(Step::ForgetEnded),
    ]
}

/// Steps that ran and the bytes that may be kept: plenty, or so few that packets are lost.
pub fn run() -> impl Strategy<Value = (usize, Vec<Step>)> {
    let limit = prop_oneof![3 => Just(1 << 20), 1 => 200..2_000usize];
    (limit, vec(step(), 1..150))
}
