//! Snapshots: transfers between accounts of several members leave the sum unchanged in each.

use crate::world::{MS, Weather, World, seeds};
use flowferry_estate::protocol::{CallId, Write};
use flowferry_estate::reduce::Reducer;
use flowferry_estate::{Consistency, Pattern, Query, Value};
use std::time::Duration;

const NAMES: [&str; 3] = ["a", "b", "c"];
const EACH: i64 = 100;

/// Transfers and reads; the sums that were read.
fn sums(seed: u64, consistency: Consistency) -> (Vec<i64>, usize) {
    let weather = Weather {
        most: 5 * MS,
        ..Weather::FOUL
    };
    let mut world = World::new(&NAMES, seed, weather);
    for at in 0..3 {
        world.store(at).set(&format!("account/{at}"), EACH).unwrap();
    }
    let mut calls: Vec<(usize, CallId)> = Vec::new();
    let mut joint = 0;
    for _ in 0..400 {
        match world.rng.below(12) {
            0 => {
                joint += 1;
                let from = usize::try_from(world.rng.below(3)).unwrap();
                let to = (from + 1 + usize::try_from(world.rng.below(2)).unwrap()) % 3;
                let amount = i64::try_from(world.rng.below(50)).unwrap();
                // Each member is told at a moment of its own.
                for (at, other, delta) in [(from, to, -amount), (to, from, amount)] {
                    let write = Write::Add(format!("account/{at}"), delta);
                    world.with_engine(at, |e, s, now| {
                        let time = Duration::from_secs(1);
                        e.joint(s, joint, &[NAMES[other]], vec![write], time, now)
                    });
                    for _ in 0..world.rng.below(4) {
                        world.step();
                    }
                }
            }
            1 | 2 => {
                let mut query = Query::new(Pattern::glob("account/*").unwrap(), Reducer::Sum);
                query.consistency = consistency;
                query.timeout = Duration::from_secs(5);
                let at = usize::try_from(world.rng.below(3)).unwrap();
                calls.push((at, world.with_engine(at, |e, s, now| e.ask(s, query, now))));
            }
            _ => world.step(),
        }
    }
    world.run_for(Duration::from_secs(30));
    let views = calls.iter().filter_map(|&(at, call)| {
        let result = world
            .result_of_read(at, call)
            .expect("ended by its time-out");
        result.as_ref().ok().and_then(|view| view.value.clone())
    });
    let sums = views.map(|value| match value {
        Value::Int(sum) => sum,
        other => panic!("{other:?}"),
    });
    let joined = world
        .joined
        .values()
        .filter(|result| result.is_ok())
        .count();
    // Whatever was decided was decided for both.
    let total: i64 = (0..3)
        .map(|at| world.store(at).add(&format!("account/{at}"), 0).unwrap())
        .sum();
    assert_eq!(total, 3 * EACH, "seed {seed}");
    (sums.collect(), joined)
}

#[test]
fn transfers_leave_the_sum_of_every_snapshot_unchanged() {
    let (mut reads, mut transfers) = (0, 0);
    for seed in seeds(60) {
        let (sums, joined) = sums(seed, Consistency::Snapshot);
        for sum in &sums {
            assert_eq!(*sum, 3 * EACH, "seed {seed}");
        }
        reads += sums.len();
        transfers += joined;
    }
    assert!(
        reads > 20 && transfers > 20,
        "{reads} reads, {transfers} parts"
    );
}

/// What a snapshot is for: asking everybody now sees transfers half done.
#[test]
fn live_reads_miss_transfers_under_way() {
    let wrong = (0..10).flat_map(|seed| sums(seed, Consistency::Live).0);
    assert!(wrong.filter(|sum| *sum != 3 * EACH).count() > 0);
}

#[test]
fn a_joint_write_is_made_at_all_or_at_none() {
    let mut world = World::new(&NAMES, 1, Weather::FAIR);
    world.store(1).set("n", "text").unwrap();
    let time = 100 * MS;
    let part = |key: &str| vec![Write::Add(key.into(), 1)];
    let good = world.with_engine(0, |e, s, now| e.joint(s, 1, &["b"], part("n"), time, now));
    let bad = world.with_engine(1, |e, s, now| e.joint(s, 1, &["a"], part("n"), time, now));
    world.run_for(Duration::from_secs(1));
    let of =
        |world: &World, at: usize, call| world.joined[&(world.hosts[at].id.clone(), call)].clone();
    let error = of(&world, 0, good).unwrap_err().to_string();
    assert!(error.contains("not made at any member"), "{error}");
    assert!(of(&world, 1, bad).unwrap_err().to_string().contains("str"));
    assert_eq!(world.store(0).get("n"), None);
    // Its keys are free again.
    world.store(0).set("n", 1_i64).unwrap();
    world.store(1).set("n", 1_i64).unwrap();
}

/// A joint write that waits for a member holds up snapshots, not longer than their time-out.
#[test]
fn an_undecided_write_makes_snapshots_wait() {
    let mut world = World::new(&NAMES, 1, Weather::FAIR);
    let write = vec![Write::Set("x".into(), Value::Int(1))];
    world.with_engine(1, |e, s, now| {
        e.joint(s, 1, &["a"], write, Duration::from_secs(9), now)
    });
    world.run_for(10 * MS);
    let mut query = Query::new(Pattern::exact("x"), Reducer::Count);
    query.consistency = Consistency::Snapshot;
    query.timeout = 50 * MS;
    let call = world.with_engine(2, |e, s, now| e.ask(s, query, now));
    world.run_for(60 * MS);
    let result = world.result_of_read(2, call).unwrap();
    let error = result.as_ref().unwrap_err().to_string();
    assert!(error.contains("(b)"), "{error}");
}
