//! Flows that begin while the state of the others is on its way.

use flowferry_hsl::handover::table::Phase;
use flowferry_hsl::handover::{Action, Input};
use flowferry_hsl::key::Side;
use flowferry_wire::{Command, Flags, Message, Reason, Report, Tlv};

use crate::leader::{HANDOVER, Step as Lead};
use crate::traffic::FLOWS;
use crate::world::{DESTINATION, Fault, SOURCE, World, address, number};

/// The flow that begins late.
const NEW: u16 = FLOWS - 1;

/// All flows but one are listed, the source's function is at its export, and packets of all flows
/// have come to the destination.
fn in_transfer() -> World {
    let mut world = World::new(Fault::None, true);
    for flow in 0..NEW {
        world.send(flow, Side::Upstream);
    }
    world.run_dry().unwrap();
    world.mute = true;
    world.begin(false);
    world.run_dry().unwrap();
    assert_eq!(world.leader.step, Lead::Turned);
    assert!(names(&world, SOURCE).contains(&"export".to_owned()));
    world.revalidate_all();
    for flow in 0..FLOWS {
        world.send(flow, Side::Upstream);
        world.send(flow, Side::Downstream);
    }
    world.run_dry().unwrap();
    world
}

/// The flows that the function of the destination has had packets of.
fn served(world: &World) -> Vec<u16> {
    let there = world.ledger.at.iter().filter(|(_, at)| **at == DESTINATION);
    let mut flows: Vec<u16> = there.map(|((flow, _), _)| *flow).collect();
    flows.dedup();
    flows
}

fn names(world: &World, at: usize) -> Vec<String> {
    let name = |line: &serde_json::Value| line["event"].as_str().expect("a name").to_owned();
    world.told[at].iter().map(name).collect()
}

fn flows_of(world: &World, at: usize, event: &str) -> usize {
    let line = world.told[at].iter().find(|line| line["event"] == event);
    line.expect("told")["flows"]
        .as_array()
        .expect("a list")
        .len()
}

#[test]
fn a_flow_on_no_list_does_not_wait_for_the_state_of_others() {
    let mut world = in_transfer();
    assert_eq!(served(&world), [NEW]);
    world.mute = false;
    world.run_dry().unwrap();
    world.ledger.check_complete().unwrap();
    assert_eq!(served(&world).len(), usize::from(FLOWS));
    world.finish().unwrap();
    assert_eq!(world.leader.step, Lead::Done);
    assert_eq!(flows_of(&world, DESTINATION, "import"), usize::from(NEW));
}

#[test]
fn a_stray_of_a_flow_on_no_list_does_not_wait_either() {
    let mut world = World::new(Fault::None, true);
    world.send(0, Side::Upstream);
    world.run_dry().unwrap();
    world.mute = true;
    world.begin(false);
    world.run_dry().unwrap();
    // A cache that covers more than one flow is stale for both.
    world.turn(SOURCE);
    world.send(0, Side::Upstream);
    world.send(NEW, Side::Upstream);
    world.turn(DESTINATION);
    world.run_dry().unwrap();
    assert_eq!(served(&world), [NEW]);
    world.mute = false;
    world.finish().unwrap();
    assert_eq!(world.leader.step, Lead::Done);
}

#[test]
fn a_function_that_does_not_offer_it_gets_new_flows_with_the_state() {
    for at in [SOURCE, DESTINATION] {
        let mut world = World::new(Fault::None, true);
        world.function_says(at, r#"{"hello": "one whole"}"#);
        for flow in 0..NEW {
            world.send(flow, Side::Upstream);
        }
        world.run_dry().unwrap();
        world.mute = true;
        world.begin(false);
        world.run_dry().unwrap();
        world.revalidate_all();
        world.send(NEW, Side::Upstream);
        world.run_dry().unwrap();
        assert!(served(&world).is_empty());
        world.mute = false;
        world.finish().unwrap();
        assert_eq!(world.leader.step, Lead::Done);
        assert_eq!(served(&world), [NEW]);
    }
}

#[test]
fn called_off_it_goes_back_behind_its_state() {
    let mut world = in_transfer();
    assert_eq!(served(&world), [NEW]);
    world.leader.wants_abort = true;
    for _ in 0..3 {
        world.hurry();
        world.run_dry().unwrap();
        world.pass_time(1_000_000);
    }
    // Its packets wait at the source, as its state is not even out at the destination.
    world.send(NEW, Side::Upstream);
    world.run_dry().unwrap();
    assert!(world.ledger.check_complete().is_err());
    world.mute = false;
    world.finish().unwrap();
    assert_eq!(world.leader.step, Lead::Done);
    assert_eq!(flows_of(&world, DESTINATION, "export"), 1);
    assert_eq!(flows_of(&world, SOURCE, "import"), 1);
    let there = names(&world, DESTINATION);
    assert_eq!(there, ["prepare", "drain", "freeze", "export", "aborted"]);
    let here = names(&world, SOURCE);
    assert_eq!(
        here,
        ["prepare", "drain", "freeze", "export", "import", "aborted"]
    );
    // It is accounted where its state is.
    let owned = |at: usize| {
        let sides = world.instances[at].programs.owned();
        let flows = sides.iter().map(|flow| flow.key.on(Side::Upstream));
        flows.collect::<std::collections::HashSet<_>>().len()
    };
    assert_eq!((owned(SOURCE), owned(DESTINATION)), (usize::from(FLOWS), 0));
}

/// What the agent of an instance reports of the part.
fn flags(world: &mut World, at: usize) -> Flags {
    let mut query = Message::new(Command::Query, HANDOVER, number(at));
    query.sequence = u64::MAX;
    let side = Side::Upstream;
    world.instances[at].handle(
        Input::Control {
            side,
            message: query,
        },
        world.now,
    );
    while let Some((action, _)) = world.instances[at].next_action() {
        if let Action::Send { message, .. } = action {
            return message.flags;
        }
    }
    panic!("it is answered");
}

/// When the stream to the source breaks.
#[derive(Clone, Copy, PartialEq)]
enum Break {
    Never,
    BeforeTheStateIsOut,
    BehindIt,
}

#[test]
fn state_that_comes_back_by_a_broken_stream_is_said_to_be_lost() {
    for when in [Break::Never, Break::BeforeTheStateIsOut, Break::BehindIt] {
        let mut world = in_transfer();
        world.leader.wants_abort = true;
        world.hurry();
        world.run_dry().unwrap();
        world.mute = false;
        if when == Break::BehindIt {
            for _ in 0..world.told[DESTINATION].len() {
                world.answer(DESTINATION);
            }
        }
        if when != Break::Never {
            let (peer, why) = (address(SOURCE), "reset".to_owned());
            let now = world.now;
            world.instances[DESTINATION].handle(Input::Unreachable { peer, why }, now);
        }
        world.run_dry().unwrap();
        let said = flags(&mut world, DESTINATION).contains(Flags::STATE_LOST);
        assert_eq!(said, when != Break::Never);
        if said {
            assert!(last_word(&mut world, DESTINATION).contains(Flags::STATE_LOST));
        }
    }
}

/// What an agent says that is asked to give back once more, when its part is over.
fn last_word(world: &mut World, at: usize) -> Flags {
    let why = Report {
        reason: Reason::Requested,
        text: "called off".to_owned(),
    };
    let abort = Message::new(Command::Abort, HANDOVER, number(at))
        .flagged(Flags::TURNED | Flags::UNFENCED)
        .with(Tlv::Error(why));
    let release = Message::new(Command::Release, HANDOVER, number(at));
    let mut said = Flags::NONE;
    for (count, mut message) in [abort.clone(), release, abort].into_iter().enumerate() {
        message.sequence = (count as u64 + 1) << 32;
        let side = Side::Upstream;
        world.instances[at].handle(Input::Control { side, message }, world.now);
        while let Some((action, _)) = world.instances[at].next_action() {
            if let Action::Send { message, .. } = action {
                said = message.flags;
            }
        }
        world.run_dry().unwrap();
    }
    let phase = world.instances[at].core.handovers.phase(HANDOVER);
    assert_eq!(phase, Some(Phase::Over));
    said
}
