//! Handovers between two agents' cores, against a model of the switches and of the kernel:
//! whatever happens in whatever order, each packet reaches one function, in its flow's order.
//!
//! `world` has two instances (`flowferry_hsl::model`), switches whose caches are stale for a
//! while, streams and control frames that wait, get lost and come twice. `leader` is a controller
//! in a page. `traffic` numbers the packets and knows where each was let on.

mod leader;
mod traffic;
mod unlisted;
mod world;

use flowferry_hsl::handover::{Action, Input, Phase};
use flowferry_hsl::key::Side;
use flowferry_wire::{Command, Flags, Match, Message, Reason, Tlv};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use leader::{HANDOVER, Step as Lead};
use traffic::FLOWS;
use world::{Checked, DESTINATION, Fault, MILLISECOND, SOURCE, World, number};

#[derive(Clone, Debug)]
enum Step {
    Send {
        flow: u16,
        side: Side,
    },
    Arrive {
        side: Side,
        at: usize,
        cpu: usize,
        lost: bool,
        twice: bool,
    },
    Read {
        at: usize,
        side: Side,
    },
    Write {
        at: usize,
    },
    SecondPass {
        at: usize,
        side: Side,
    },
    Pump {
        at: usize,
    },
    Stream {
        from: usize,
    },
    Settle {
        at: usize,
    },
    Revalidate {
        flow: u16,
        side: Side,
    },
    Lead,
    LoseReport,
    Answer {
        at: usize,
    },
    Time,
    Abort,
}

fn step() -> impl Strategy<Value = Step> {
    let side = || prop_oneof![Just(Side::Upstream), Just(Side::Downstream)];
    let at = || 0..2usize;
    let flow = || 0..FLOWS;
    prop_oneof![
        20 => (flow(), side()).prop_map(|(flow, side)| Step::Send { flow, side }),
        30 => (side(), at(), 0..2usize, prop::bool::weighted(0.05), prop::bool::weighted(0.05)).prop_map(
            |(side, at, cpu, lost, twice)| Step::Arrive { side, at, cpu, lost, twice }
        ),
        10 => (at(), side()).prop_map(|(at, side)| Step::Read { at, side }),
        8 => at().prop_map(|at| Step::Write { at }),
        8 => (at(), side()).prop_map(|(at, side)| Step::SecondPass { at, side }),
        8 => at().prop_map(|at| Step::Pump { at }),
        8 => at().prop_map(|from| Step::Stream { from }),
        6 => at().prop_map(|at| Step::Settle { at }),
        6 => (flow(), side()).prop_map(|(flow, side)| Step::Revalidate { flow, side }),
        12 => Just(Step::Lead),
        1 => Just(Step::LoseReport),
        4 => at().prop_map(|at| Step::Answer { at }),
        3 => Just(Step::Time),
        1 => Just(Step::Abort),
    ]
}

/// How a run is set up, and what happens in it.
#[derive(Clone, Debug)]
struct Run {
    functions: bool,
    /// The steps begin when the entries have changed, and every cache is stale.
    turned: bool,
    one_way: bool,
    abort: bool,
    /// The controller dies after so many steps.
    death: Option<usize>,
    steps: Vec<Step>,
}

fn run() -> impl Strategy<Value = Run> {
    let weighted = prop::bool::weighted;
    let death = prop::option::weighted(0.2, 0..200usize);
    (
        weighted(0.5),
        weighted(0.5),
        weighted(0.2),
        weighted(0.4),
        death,
        vec(step(), 1..300),
    )
        .prop_map(|(functions, turned, one_way, abort, death, steps)| Run {
            functions,
            turned,
            one_way,
            abort,
            death,
            steps,
        })
}

fn play(fault: Fault, run: &Run) -> Result<World, String> {
    let mut world = World::new(fault, run.functions);
    if run.turned {
        for flow in 0..FLOWS {
            world.send(flow, Side::Upstream);
            if !run.one_way {
                world.send(flow, Side::Downstream);
            }
        }
    }
    world.begin(run.one_way);
    if run.turned {
        world.run_dry()?;
    }
    for (at, each) in run.steps.iter().enumerate() {
        if run.death == Some(at) {
            world.leaderless = true;
        }
        act(&mut world, run, each)?;
    }
    world.finish()?;
    Ok(world)
}

fn act(world: &mut World, run: &Run, step: &Step) -> Checked {
    match *step {
        // One way, the downstream side stays where it is.
        Step::Send { flow, side } if !run.one_way || side == Side::Upstream => {
            world.send(flow, side)
        }
        Step::Send { .. } => {}
        Step::Arrive {
            side,
            at,
            cpu,
            lost,
            twice,
        } => world.arrive(side, at, cpu, (lost, twice))?,
        Step::Read { at, side } => world.read(at, side, 2),
        Step::Write { at } => world.write(at, 2),
        Step::SecondPass { at, side } => world.second_pass(at, side)?,
        Step::Pump { at } => world.pump(at),
        Step::Stream { from } => world.stream(from),
        Step::Settle { at } => world.settle(at),
        Step::Revalidate { flow, side } => world.revalidate(flow, side),
        Step::Lead => world.lead(),
        Step::LoseReport => drop(world.reports.pop_front()),
        Step::Answer { at } => world.answer(at),
        Step::Time => world.pass_time(5 * MILLISECOND),
        Step::Abort => world.leader.wants_abort |= run.abort,
    }
    Ok(())
}

/// PROPTEST_CASES=100000 makes it a soak.
fn config() -> Config {
    Config {
        cases: Config::default().cases,
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_packet_is_lost_doubled_or_overtaken(run in run()) {
        let world = play(Fault::None, &run).map_err(TestCaseError::fail)?;
        if run.death.is_none() {
            prop_assert_eq!(world.leader.step, Lead::Done);
        }
    }
}

/// A checker that finds nothing proves nothing.
fn finds(fault: Fault) {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let config = Config {
        cases: 2_000,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..config()
    };
    let mut runner = TestRunner::new_with_rng(config, rng);
    let found = runner.run(&run(), |mut run| {
        run.death = None;
        play(fault, &run).map(drop).map_err(TestCaseError::fail)
    });
    assert!(
        matches!(found, Err(TestError::Fail(..))),
        "{fault:?} was not found"
    );
}

#[test]
fn a_barrier_as_a_fence_is_found() {
    finds(Fault::MarkerAtBarrier);
}

#[test]
fn a_flush_that_proves_nothing_is_found() {
    finds(Fault::FlushEarly);
}

#[test]
fn records_that_overtake_strays_are_found() {
    finds(Fault::RecordsFirst);
}

#[test]
fn a_plain_move_ends_with_the_flows_at_the_destination() {
    let mut world = World::new(Fault::None, true);
    for flow in 0..FLOWS {
        world.send(flow, Side::Upstream);
    }
    world.run_dry().unwrap();
    world.begin(false);
    world.run_dry().unwrap();
    assert_eq!(world.leader.step, Lead::Turned);
    world.revalidate_all();
    for flow in 0..FLOWS {
        world.send(flow, Side::Upstream);
        world.send(flow, Side::Downstream);
    }
    world.run_dry().unwrap();
    // Fenced by markers, with the state in, and long before the settling time.
    world.ledger.check_complete().unwrap();
    assert!(world.ledger.at.values().all(|at| *at == DESTINATION));
    assert_eq!(
        world.instances[DESTINATION].core.handovers.phase(HANDOVER),
        Some(Phase::Imported)
    );
    world.finish().unwrap();
    assert_eq!(world.leader.step, Lead::Done);
    assert!(world.instances[SOURCE].programs.owned().is_empty());
}

#[test]
fn flows_that_stay_quiet_are_their_new_instances_all_the_same() {
    let mut world = World::new(Fault::None, true);
    for flow in 0..FLOWS {
        world.send(flow, Side::Upstream);
    }
    world.run_dry().unwrap();
    let before: Vec<_> = world.instances[SOURCE].programs.owned();
    assert_eq!(before.len(), usize::from(FLOWS));
    world.begin(false);
    world.run_dry().unwrap();
    world.finish().unwrap();
    assert_eq!(world.leader.step, Lead::Done);
    assert!(world.instances[SOURCE].programs.owned().is_empty());
    let mut after = world.instances[DESTINATION].programs.owned();
    let mut before = before;
    before.sort();
    after.sort();
    // As their packets came, so that a match of one direction finds them.
    assert_eq!(after, before);
}

/// Fail-open packets, or the other direction of a one-way move, leave flows accounted at the destination.
#[test]
fn flows_that_count_as_served_at_the_destination_wait_like_all_others() {
    let mut world = World::new(Fault::None, true);
    for flow in 0..FLOWS {
        world.send(flow, Side::Upstream);
    }
    world.run_dry().unwrap();
    for flow in world.instances[SOURCE].programs.owned() {
        world.instances[DESTINATION].programs.own(&flow);
    }
    world.begin(false);
    world.run_dry().unwrap();
    world.revalidate_all();
    for flow in 0..FLOWS {
        world.send(flow, Side::Upstream);
    }
    world.finish().unwrap();
    world.ledger.check_complete().unwrap();
    let mut holds = world.instances[DESTINATION].core.endpoint.holds();
    let captured = holds.next().map(|hold| hold.figures.captured_packets);
    assert_eq!(captured, Some(u64::from(FLOWS)));
}

/// No cell of the crash grid and no seed comes to this: a hold that throws away is ended by hand.
#[test]
fn a_part_that_throws_away_ends_with_its_hold() {
    let mut world = World::new(Fault::None, true);
    world.begin(false);
    world.run_dry().unwrap();
    let instance = &mut world.instances[DESTINATION];
    let mut word = Message::new(Command::Abort, HANDOVER, number(DESTINATION))
        .flagged(Flags::TURNED | Flags::STATE_LOST);
    word.sequence = u64::MAX;
    let side = Side::Upstream;
    instance.handle(
        Input::Control {
            side,
            message: word,
        },
        1,
    );
    assert_eq!(
        instance.core.handovers.phase(HANDOVER),
        Some(Phase::Discarding)
    );
    instance.core.endpoint.release(HANDOVER, 1).unwrap();
    instance.settle(1);
    assert_eq!(
        instance.core.handovers.phase(HANDOVER),
        Some(Phase::Released)
    );
}

#[test]
fn a_match_of_its_own_for_the_downstream_side_is_refused() {
    let mut instance = World::new(Fault::None, false)
        .instances
        .into_iter()
        .next()
        .unwrap();
    let mut prepare = Message::new(Command::Prepare, HANDOVER, number(SOURCE));
    prepare.sequence = 1;
    let prepare = prepare
        .with(Tlv::Epoch(instance.epoch()))
        .with(Tlv::Match(Match::default()))
        .with(Tlv::DownstreamMatch(Match::default()))
        .with(Tlv::Source(number(SOURCE)))
        .with(Tlv::Destination(number(DESTINATION)));
    let input = Input::Control {
        side: Side::Upstream,
        message: prepare,
    };
    instance.handle(input, 1);
    let Some((Action::Send { message, .. }, _)) = instance.next_action() else {
        panic!("it is answered");
    };
    let why = message.error().expect("a reason");
    assert_eq!(
        (message.command, why.reason),
        (Command::Nack, Reason::Unsupported)
    );
    assert!(why.text.contains("leave it out"), "{}", why.text);
    assert!(instance.core.handovers.is_idle());
}
