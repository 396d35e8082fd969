//! The endpoint against a model of the kernel: whatever happens in whatever order, every packet is
//! delivered once or counted lost once, and a flow's packets keep their order.
//!
//! `kernel` is the specification of the programs, a page long. `world` plays the shell: it carries
//! out actions late but in order, lets captured frames wait in the TAP and released ones in the
//! kernel's queue, and is refused room now and then (`commands`, `packets` and `housekeeping` are
//! its parts). `ledger` knows where every packet is; `checks` look at it after every step.
//! What the shell owes the endpoint, and the model therefore keeps to:
//!
//! - actions are carried out in order, and a flow's count is looked at only when all are;
//! - a refused frame is written before anything else is read, written or looked at;
//! - a packet from elsewhere is adopted before it is handed in;
//! - packets are forgotten when they are sent on; before holds are, they are sent;
//! - holds end only after both TAPs have been read empty since the last command was carried out;
//! - before a discard the kernel's queues are through and the TAPs are read empty.

mod checks;
mod commands;
mod housekeeping;
mod kernel;
mod ledger;
mod packets;
mod steps;
mod traffic;
mod world;

use flowferry_hsl::endpoint::Role;
use flowferry_hsl::key::Side;
use kernel::Fault;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};
use steps::Step;
use world::World;

fn play(fault: Fault, limit: usize, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut world = World::new(limit, fault);
    let played = steps.iter().try_for_each(|step| world.step(step));
    played
        .and_then(|()| world.finish())
        .map_err(TestCaseError::fail)
}

/// PROPTEST_CASES=100000 makes it a soak.
fn config() -> Config {
    let cases = Config::default().cases * 4;
    Config {
        cases,
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..Config::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_packet_is_lost_doubled_or_overtaken((limit, steps) in steps::run()) {
        play(Fault::None, limit, &steps)?;
    }
}

/// The stray came before the hold, and its side's other headers were known last.
#[test]
fn a_flow_that_strays_brought_here_is_let_go_again_by_its_alias() {
    let steps = [
        Step::Follow {
            flow: 3,
            side: Side::Downstream,
            length: 60,
        },
        Step::Hold {
            id: 4,
            role: Role::Capture,
            matching: 2,
            except: Vec::new(),
            sides: Side::ALL.to_vec(),
        },
        Step::ReleaseFlow { id: 4, flow: 3 },
        Step::Alias { flow: 3 },
        Step::ReleaseFlow { id: 4, flow: 3 },
    ];
    play(Fault::None, 1 << 20, &steps).unwrap();
}

/// A checker that finds nothing proves nothing.
fn finds(fault: Fault) {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config(), rng);
    let found = runner.run(&steps::run(), |(limit, steps)| play(fault, limit, &steps));
    assert!(
        matches!(found, Err(TestError::Fail(..))),
        "{fault:?} was not found"
    );
}

#[test]
fn finds_packets_that_pass_while_others_are_outstanding() {
    finds(Fault::IgnoreOutstanding);
}

#[test]
fn finds_a_dropped_frame() {
    finds(Fault::DropFrame);
}

#[test]
fn finds_frames_written_backwards() {
    finds(Fault::WriteBackwards);
}

#[test]
fn finds_flows_that_settle_early() {
    finds(Fault::SettleEarly);
}

#[test]
fn finds_actions_out_of_order() {
    finds(Fault::ActBackwards);
}

#[test]
fn finds_sent_packets_that_stay_on_the_count() {
    finds(Fault::NeverForget);
}

#[test]
fn finds_followers_that_nobody_counts() {
    finds(Fault::NeverAdopt);
}

#[test]
fn finds_a_replay_after_a_discard() {
    finds(Fault::ReplayAfterDiscard);
}
