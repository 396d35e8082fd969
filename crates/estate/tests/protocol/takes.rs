//! Moves: each item ends at exactly one owner with its last acknowledged value.

use crate::ledger::Ledger;
use crate::world::{MS, Weather, World, seeds};
use flowferry_estate::protocol::{CallId, Event, Settings};
use flowferry_estate::{Error, FlowKey, Selection, Value};
use std::time::Duration;

fn flows(count: usize) -> Selection {
    let flow = |index| FlowKey::from_scope(&format!("flow:{index}")).unwrap();
    Selection::Flows((0..count).map(flow).collect())
}

/// Small chunks, so that a move of a few items has many steps.
fn settings() -> Settings {
    Settings {
        chunk: 60,
        window: 2,
        ..Settings::default()
    }
}

fn take(world: &mut World, to: usize, from: usize, id: u64, what: Selection, pre: bool) -> CallId {
    let source = world.hosts[from].id.name.to_string();
    world.with_engine(to, |e, s, now| e.take(s, what, &source, id, pre, now))
}

/// What the checker has to find, planted on purpose.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The source keeps an item that it has given up.
    KeepsOne,
    /// The destination loses an item on arrival.
    LosesOne,
    /// The destination gets an older value.
    StaleOne,
}

/// One move of `COUNT` flows from a to b while both try to write, with `happens` at each step.
const COUNT: usize = 10;

struct Run {
    world: World,
    ledger: Ledger,
    call: CallId,
    fault: Fault,
}

impl Run {
    fn new(seed: u64, weather: Weather, pre_copy: bool, fault: Fault) -> Self {
        let mut world = World::with(&["a", "b", "c"], seed, weather, settings());
        let mut ledger = Ledger::new(&world, 0, COUNT);
        for key in ledger.keys() {
            ledger.write(&world, 0, &key).unwrap();
        }
        let call = take(&mut world, 1, 0, 7, flows(COUNT), pre_copy);
        Self {
            world,
            ledger,
            call,
            fault,
        }
    }

    /// Packets arrive anywhere, then something happens in the network.
    fn step(&mut self) -> Result<(), String> {
        let keys = self.ledger.keys();
        for _ in 0..2 {
            let at = usize::try_from(self.world.rng.below(3)).unwrap();
            let key = &keys[usize::try_from(self.world.rng.below(keys.len() as u64)).unwrap()];
            if self.world.hosts[at].alive {
                self.ledger.write(&self.world, at, key)?;
            }
        }
        self.world.look();
        self.world.step();
        self.plant();
        self.ledger.check(&self.world)
    }

    fn plant(&mut self) {
        let taken = matches!(self.world.result_of_take(1, self.call), Some(Ok(_)));
        if !taken {
            return;
        }
        let (a, b) = (self.world.store(0), self.world.store(1));
        match std::mem::replace(&mut self.fault, Fault::None) {
            Fault::None => {}
            Fault::KeepsOne => drop(a.set("flow:0/n", b.get("flow:0/n").unwrap()).unwrap()),
            Fault::LosesOne => drop(b.delete("flow:0/n").unwrap()),
            Fault::StaleOne => drop(b.add("flow:0/n", -1).unwrap()),
        }
    }

    fn settle(&mut self) -> Result<(), String> {
        let end = self.world.now + Duration::from_secs(60);
        while self.world.next_due().is_some_and(|due| due < end) {
            self.world.step();
        }
        self.ledger.finish(&self.world)
    }
}

#[test]
fn a_move_keeps_every_acknowledged_write() {
    for seed in seeds(150) {
        for pre_copy in [false, true] {
            for weather in [Weather::FAIR, Weather::FOUL] {
                let mut run = Run::new(seed, weather, pre_copy, Fault::None);
                while run.world.result_of_take(1, run.call).is_none() {
                    run.step()
                        .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
                }
                let taken = run.world.result_of_take(1, run.call).unwrap().clone();
                assert_eq!(taken.unwrap().items, COUNT as u64, "seed {seed}");
                let left = run.world.store(0).memory().items;
                assert_eq!(
                    left, 0,
                    "seed {seed}: told before the source had removed them"
                );
                run.settle()
                    .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
                for key in run.ledger.keys() {
                    assert_eq!(run.ledger.home(&key), 1, "seed {seed}");
                }
            }
        }
    }
}

#[test]
fn the_checker_finds_what_was_planted() {
    for fault in [Fault::KeepsOne, Fault::LosesOne, Fault::StaleOne] {
        let found = (0..20).any(|seed| {
            let mut run = Run::new(seed, Weather::FAIR, true, fault);
            let stepped = (0..200).try_for_each(|_| run.step());
            stepped.and_then(|()| run.settle()).is_err()
        });
        assert!(found);
    }
}

/// How one run is disturbed.
#[derive(Clone, Copy, Debug)]
enum Disturbance {
    Die,
    DieAndReturn,
    CutShort,
    CutLong,
    /// Beyond every time-out that there is.
    CutForMinutes,
}

fn disturbed(seed: u64, who: usize, at_step: usize, how: Disturbance) -> Result<bool, String> {
    let mut run = Run::new(seed, Weather::FAIR, seed.is_multiple_of(2), Fault::None);
    for _ in 0..at_step {
        if run.world.result_of_take(1, run.call).is_some() && run.world.next_due().is_none() {
            return Ok(false);
        }
        run.step()?;
    }
    match how {
        Disturbance::Die | Disturbance::DieAndReturn => {
            run.ledger.dies(&run.world, who);
            run.world.kill(who);
            let until = run.world.now + 300 * MS;
            while run.world.now < until && run.world.next_due().is_some() {
                run.step()?;
            }
            if matches!(how, Disturbance::DieAndReturn) {
                run.world.restart(who);
            }
        }
        Disturbance::CutShort | Disturbance::CutLong | Disturbance::CutForMinutes => {
            run.world.cut(0, 1);
            let time = match how {
                Disturbance::CutShort => 100 * MS,
                Disturbance::CutForMinutes => Duration::from_secs(300),
                _ => Duration::from_secs(3),
            };
            let until = run.world.now + time;
            while run.world.now < until && run.world.next_due().is_some_and(|due| due < until) {
                run.step()?;
            }
            run.world.run_until(until);
            run.ledger.check(&run.world)?;
            run.world.heal(0, 1);
        }
    }
    for _ in 0..100 {
        run.step()?;
    }
    run.settle()?;
    Ok(true)
}

/// Every step of a move, and each of both sides: dead for good, dead and back, cut off.
#[test]
fn a_crash_at_any_step_leaves_one_owner() {
    for seed in 0..4 {
        for how in [
            Disturbance::Die,
            Disturbance::DieAndReturn,
            Disturbance::CutShort,
            Disturbance::CutLong,
            Disturbance::CutForMinutes,
        ] {
            for who in [0, 1] {
                let mut steps = 0;
                for at_step in 0..80 {
                    let disturbed = disturbed(seed, who, at_step, how);
                    let done = disturbed.unwrap_or_else(|why| {
                        panic!("seed {seed}, {how:?} of {who} before step {at_step}: {why}")
                    });
                    steps += usize::from(done);
                }
                assert!(steps >= 15, "only {steps} steps were disturbed");
            }
        }
    }
}

/// The destination hears nothing of the decision: it waits, and its caller need not.
#[test]
fn a_cut_in_doubt_is_told_and_settled_when_it_heals() {
    let mut undecided = 0;
    for at_step in 0..80 {
        let mut run = Run::new(1, Weather::FAIR, false, Fault::None);
        for _ in 0..at_step {
            run.step().unwrap();
        }
        run.world.cut(0, 1);
        run.world.run_for(Duration::from_secs(60));
        run.ledger.check(&run.world).unwrap();
        let told = run.world.result_of_take(1, run.call).cloned();
        let told = told.expect("the caller is told something");
        run.world.heal(0, 1);
        run.settle().unwrap();
        if let Err(Error::Undecided { .. }) = told {
            undecided += 1;
            let again = take(&mut run.world, 1, 0, 7, flows(COUNT), false);
            run.settle().unwrap();
            let taken = run.world.result_of_take(1, again).unwrap().clone();
            assert_eq!(taken.unwrap().items, COUNT as u64);
        }
        let conflict = |(_, event): &(usize, Event)| matches!(event, Event::Conflict { .. });
        assert!(!run.world.events.iter().any(conflict));
    }
    assert!(undecided > 0, "no cut came at the wrong moment");
}

#[test]
fn crashes_in_any_weather_leave_one_owner() {
    for seed in seeds(200) {
        let mut run = Run::new(seed, Weather::FOUL, seed.is_multiple_of(2), Fault::None);
        let steps = run.world.rng.below(60);
        let fail = |why: String| -> () { panic!("seed {seed}: {why}") };
        for _ in 0..steps {
            run.step().unwrap_or_else(fail);
        }
        let who = usize::try_from(run.world.rng.below(2)).unwrap();
        run.ledger.dies(&run.world, who);
        run.world.kill(who);
        for _ in 0..run.world.rng.below(40) {
            run.step().unwrap_or_else(fail);
        }
        if run.world.rng.chance(70) {
            run.world.restart(who);
        }
        run.settle().unwrap_or_else(fail);
    }
}

#[test]
fn repeated_and_retried_it_has_the_same_effect() {
    let mut run = Run::new(1, Weather::FAIR, true, Fault::None);
    let again = take(&mut run.world, 1, 0, 7, flows(COUNT), true);
    run.settle().unwrap();
    let later = take(&mut run.world, 1, 0, 7, flows(COUNT), true);
    for call in [run.call, again, later] {
        let taken = run.world.result_of_take(1, call).unwrap().clone().unwrap();
        assert_eq!(taken.items, COUNT as u64);
    }
    run.settle().unwrap();
    // And on, and back, under other ids.
    let on = take(&mut run.world, 2, 1, 8, flows(COUNT), false);
    run.settle().unwrap();
    let back = take(&mut run.world, 0, 2, 9, flows(COUNT), true);
    run.settle().unwrap();
    assert!(run.world.result_of_take(2, on).unwrap().is_ok());
    assert!(run.world.result_of_take(0, back).unwrap().is_ok());
    assert_eq!(run.ledger.home("flow:0/n"), 0);
}

#[test]
fn an_aborted_move_leaves_everything_and_can_be_tried_again() {
    let mut run = Run::new(2, Weather::FAIR, true, Fault::None);
    for _ in 0..3 {
        run.step().unwrap();
    }
    let was = run
        .world
        .with_engine(1, |e, s, now| e.abort_take(s, 7, now));
    assert!(was);
    run.settle().unwrap();
    let error = run
        .world
        .result_of_take(1, run.call)
        .unwrap()
        .clone()
        .unwrap_err();
    assert!(error.to_string().contains("stay there"), "{error}");
    assert_eq!(run.ledger.home("flow:0/n"), 0);
    let again = take(&mut run.world, 1, 0, 7, flows(COUNT), true);
    run.settle().unwrap();
    assert!(run.world.result_of_take(1, again).unwrap().is_ok());
    assert_eq!(run.ledger.home("flow:0/n"), 1);
}

/// One flow is one message, however long: it takes longer than a move may be silent, and is not sent
/// again and again meanwhile.
#[test]
fn a_long_flow_takes_its_time_over_a_slow_network() {
    const SLOW: Duration = Duration::from_millis(400);
    let settings = Settings {
        part: 1 << 10,
        window: 4,
        ..Settings::default()
    };
    let weather = Weather {
        least: SLOW,
        most: SLOW,
        ..Weather::FAIR
    };
    let mut world = World::with(&["a", "b"], 1, weather, settings);
    world.run_for(4 * SLOW);
    world.store(0).set("flow:0/n", vec![7; 40 << 10]).unwrap();
    let call = take(&mut world, 1, 0, 1, flows(1), true);
    let (begun, before) = (world.now, world.bytes);
    while world.result_of_take(1, call).is_none() {
        world.step();
    }
    let taken = world.result_of_take(1, call).unwrap().clone();
    assert_eq!(taken.unwrap().items, 1);
    let move_timeout = world.settings.move_timeout;
    assert!(world.now - begun > move_timeout, "the network was not slow");
    let sent = world.bytes - before;
    assert!(sent < 6 * (40 << 10), "{sent} bytes sent for 40 KiB");
}

/// A fabric may leave out what it was given before; so that has to be said, of chunks and of parts.
#[test]
fn what_is_sent_again_is_said_to_be_so() {
    const SLOW: Duration = Duration::from_millis(400);
    const COUNT: usize = 20;
    let weather = Weather {
        least: SLOW,
        most: SLOW,
        ..Weather::FAIR
    };
    for (part, len) in [(1 << 10, 10 << 10), (64 << 10, 2 << 10)] {
        let settings = Settings {
            chunk: 4 << 10,
            part,
            ..Settings::default()
        };
        let mut world = World::with(&["a", "b"], 1, weather, settings);
        world.run_for(4 * SLOW);
        for flow in 0..COUNT {
            let key = format!("flow:{flow}/n");
            world.store(0).set(&key, vec![7; len]).unwrap();
        }
        let call = take(&mut world, 1, 0, 1, flows(COUNT), true);
        while world.result_of_take(1, call).is_none() {
            world.step();
        }
        let items = (COUNT * len) as u64;
        let first = world.bytes - world.bytes_again;
        // Besides there are acknowledgements, short and many; and they ask for what goes beyond the
        // window of a long message that is sent again, so that cannot fill a queue.
        assert!((items..items * 2).contains(&first), "{first} {items}");
        assert!(world.bytes_again > items / 2, "nothing was sent again");
    }
}

#[test]
fn an_aborted_move_is_not_sent_any_further() {
    let settings = Settings {
        part: 1 << 10,
        ..Settings::default()
    };
    let mut world = World::with(&["a", "b"], 1, Weather::FAIR, settings);
    let big = 1 << 20;
    world.store(0).set("flow:0/n", vec![7; big]).unwrap();
    let call = take(&mut world, 1, 0, 1, flows(1), true);
    for _ in 0..20 {
        world.step();
    }
    let was = world.with_engine(1, |e, s, now| e.abort_take(s, 1, now));
    assert!(was);
    world.run_for(Duration::from_secs(20));
    assert!(world.result_of_take(1, call).unwrap().is_err());
    assert!(world.bytes < big as u64 / 4, "{} bytes sent", world.bytes);
}

#[test]
fn what_is_at_the_destination_already_is_not_overwritten() {
    let mut world = World::with(&["a", "b"], 1, Weather::FAIR, settings());
    world.store(0).set("flow:0/n", 1_i64).unwrap();
    world.store(1).set("flow:0/n", 2_i64).unwrap();
    let call = take(&mut world, 1, 0, 1, flows(1), true);
    world.run_for(MS);
    let error = world.result_of_take(1, call).unwrap().clone().unwrap_err();
    assert!(error.to_string().contains("flow:0/n"), "{error}");
    for at in 0..2 {
        assert_eq!(world.store(at).add("flow:0/n", 0).unwrap(), at as i64 + 1);
    }
}

#[test]
fn deleted_meanwhile_it_does_not_come_back() {
    let mut world = World::with(&["a", "b"], 1, Weather::FAIR, settings());
    for index in 0..20 {
        let key = format!("flow:{index}/n");
        world.store(0).set(&key, index).unwrap();
    }
    let call = take(&mut world, 1, 0, 1, flows(20), true);
    // The first chunk is on its way.
    world.step();
    assert!(world.store(0).delete("flow:0/n").unwrap());
    world.store(0).set("flow:1/n", 100_i64).unwrap();
    world.store(0).set("flow:2/late", "new").unwrap();
    world.run_for(Duration::from_secs(1));
    let taken = world.result_of_take(1, call).unwrap().clone().unwrap();
    assert_eq!(taken.items, 20);
    let b = world.store(1);
    assert_eq!(b.get("flow:0/n"), None);
    assert_eq!(b.get("flow:1/n"), Some(Value::Int(100)));
    assert_eq!(b.get("flow:2/late"), Some(Value::from("new")));
    assert_eq!(world.store(0).memory().items, 0);
}

#[test]
fn nobody_of_that_name_is_an_error_at_once() {
    let mut world = World::with(&["a", "b"], 1, Weather::FAIR, settings());
    let call = world.with_engine(1, |e, s, now| e.take(s, flows(1), "x", 1, true, now));
    let error = world.result_of_take(1, call).unwrap().clone().unwrap_err();
    assert!(error.to_string().contains("a, b"), "{error}");
}
