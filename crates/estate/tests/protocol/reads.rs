//! Global reads: whole, bounded in time, without side effects.

use crate::world::{MS, TICK, Weather, World, seeds};
use flowferry_estate::protocol::Settings;
use flowferry_estate::reduce::Reducer;
use flowferry_estate::{Consistency, Error, Pattern, Query, Require, Value, View};
use std::time::Duration;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn sum(pattern: &str) -> Query {
    Query::new(Pattern::glob(pattern).unwrap(), Reducer::Sum)
}

/// Asks and waits for the end.
fn ask(world: &mut World, at: usize, query: Query) -> Result<View, Error> {
    let (timeout, start) = (query.timeout, world.now);
    let call = world.with_engine(at, |e, s, now| e.ask(s, query, now));
    while world.result_of_read(at, call).is_none() {
        assert!(
            world
                .next_due()
                .is_some_and(|due| due <= start + timeout + TICK),
            "the read outlives its time-out"
        );
        world.step();
    }
    world.result_of_read(at, call).unwrap().clone()
}

#[test]
fn any_subset_of_members_may_hold_the_key() {
    for holders in 0..16_i64 {
        let mut world = World::new(&NAMES, 1, Weather::FAIR);
        for at in 0..4 {
            if holders & 1 << at != 0 {
                world.store(at).set("n", 1_i64 << at).unwrap();
            }
        }
        let view = ask(&mut world, 2, sum("n")).unwrap();
        let wanted = (holders != 0).then_some(Value::Int(holders));
        assert_eq!(view.value, wanted);
        assert_eq!(view.answered, NAMES);
        assert!(view.complete && view.missing.is_empty());
    }
}

#[test]
fn lost_and_doubled_messages_change_nothing() {
    for seed in seeds(200) {
        let mut world = World::new(&NAMES, seed, Weather::FOUL);
        for at in 0..4 {
            world.store(at).set("n", 1_i64 << at).unwrap();
        }
        let query = sum("n").timeout_of(Duration::from_secs(5));
        let view = ask(&mut world, 0, query).unwrap();
        assert_eq!(view.value, Some(Value::Int(15)), "seed {seed}");
    }
}

#[test]
fn a_dead_member_is_missing_and_costs_no_more_than_the_time_out() {
    let mut world = World::new(&NAMES, 3, Weather::FAIR);
    world.store(1).set("n", 5_i64).unwrap();
    world.kill(3);
    let Err(Error::Incomplete(view)) = ask(&mut world, 0, sum("n").timeout_of(50 * MS)) else {
        panic!("the view is not complete");
    };
    assert_eq!(view.missing, ["d"]);
    assert_eq!(view.answered, ["a", "b", "c"]);
    assert_eq!(view.value, Some(Value::Int(5)));
    let mut query = sum("n").timeout_of(50 * MS);
    query.require = Require::Quorum;
    let view = ask(&mut world, 0, query).unwrap();
    assert!(!view.complete);
    // Once its failure is seen it is no longer expected.
    world.run_for(300 * MS);
    assert!(ask(&mut world, 0, sum("n")).unwrap().complete);
}

#[test]
fn a_member_that_fails_during_a_read_is_missing_at_once() {
    let mut world = World::new(&NAMES, 4, Weather::FAIR);
    world.detection = 100 * MS;
    world.kill(3);
    let start = world.now;
    let result = ask(&mut world, 0, sum("n").timeout_of(Duration::from_secs(5)));
    let Err(error) = result else { panic!() };
    assert!(error.to_string().contains("(d)"), "{error}");
    assert!(world.now - start <= 101 * MS);
}

#[test]
fn a_read_changes_nothing() {
    let mut world = World::new(&NAMES, 5, Weather::FAIR);
    for at in 0..4 {
        for key in 0..10 {
            world.store(at).set(&format!("k{key}"), key).unwrap();
        }
    }
    let state = |world: &World| {
        let mut all = Vec::new();
        for at in 0..4 {
            let store = world.store(at);
            let node = store.node().clone();
            store
                .scan(&Pattern::all(), None, |item| {
                    all.push(item.to_item(node.clone()))
                })
                .unwrap();
            all.sort_by(|a, b| (&a.node, &a.key).cmp(&(&b.node, &b.key)));
        }
        let memory: Vec<_> = (0..4).map(|at| world.store(at).memory()).collect();
        (all, memory)
    };
    let before = state(&world);
    for reducer in Reducer::ALL {
        for consistency in [
            Consistency::Live,
            Consistency::Snapshot,
            Consistency::Cached { max_age: 100 * MS },
        ] {
            let mut query = sum("k*");
            query.reducer = reducer;
            query.consistency = consistency;
            let _ = ask(&mut world, 0, query);
        }
    }
    assert_eq!(state(&world), before);
}

#[test]
fn types_that_do_not_go_together_are_named() {
    let mut world = World::new(&NAMES, 6, Weather::FAIR);
    world.store(0).set("n", 1_i64).unwrap();
    world.store(2).set("n", "one").unwrap();
    let error = ask(&mut world, 0, sum("n")).unwrap_err().to_string();
    assert!(
        error.contains("\"n\"") && error.contains("node c") && error.contains("str"),
        "{error}"
    );
    world.store(2).set("n", 1.5_f64).unwrap();
    let error = ask(&mut world, 0, sum("n")).unwrap_err().to_string();
    assert!(
        error.contains("node a") && error.contains("node c"),
        "{error}"
    );
    world.store(2).set("n", i64::MAX).unwrap();
    let error = ask(&mut world, 0, sum("n")).unwrap_err().to_string();
    assert!(error.contains("i64"), "{error}");
}

#[test]
fn big_views_travel_in_parts_through_any_weather() {
    for weather in [Weather::FAIR, Weather::FOUL] {
        let settings = Settings {
            part: 1000,
            ..Settings::default()
        };
        let mut world = World::with(&NAMES, 7, weather, settings);
        for at in 0..4 {
            let big = vec![u8::try_from(at).unwrap(); 100_000];
            world.store(at).set(&format!("big{at}"), big).unwrap();
        }
        let mut query = sum("big*").timeout_of(Duration::from_secs(10));
        query.reducer = Reducer::Collect;
        let view = ask(&mut world, 0, query).unwrap();
        assert_eq!(view.items.len(), 4);
        for (at, item) in view.items.iter().enumerate() {
            let Value::Bytes(bytes) = &item.value else {
                panic!()
            };
            assert!(bytes.len() == 100_000 && bytes.iter().all(|&b| usize::from(b) == at));
            assert_eq!(*item.node, *NAMES[at]);
        }
        assert!(world.biggest < 1100, "{} bytes at once", world.biggest);
    }
}

#[test]
fn a_restarted_member_is_another_and_a_second_of_a_name_is_told() {
    use flowferry_estate::protocol::{Event, NodeId};
    let mut world = World::new(&NAMES, 8, Weather::FAIR);
    world.store(3).set("n", 1_i64).unwrap();
    world.kill(3);
    world.restart(3);
    world.run_for(10 * MS);
    let view = ask(&mut world, 0, sum("n")).unwrap();
    assert_eq!((view.value, view.complete), (None, true));
    let rival = NodeId::new("a", 99);
    world.with_engine(0, |e, s, now| ((), e.joined(s, &rival, now)));
    assert!(
        world
            .events
            .iter()
            .any(|(at, event)| *at == 0 && *event == Event::NameTaken(rival.clone()))
    );
}

trait TimeoutOf {
    fn timeout_of(self, timeout: Duration) -> Self;
}

impl TimeoutOf for Query {
    fn timeout_of(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}
