//! Cached reads: never staler than promised while connected, honest when not, no traffic for what
//! nobody reads.

use crate::world::{MS, TICK, Weather, World, seeds};
use flowferry_estate::protocol::CallId;
use flowferry_estate::reduce::Reducer;
use flowferry_estate::{Consistency, Error, Pattern, Query, Value};
use std::time::Duration;

const NAMES: [&str; 3] = ["a", "b", "c"];

fn cached(max_age: Duration) -> Query {
    let mut query = Query::new(Pattern::exact("n"), Reducer::Sum);
    query.consistency = Consistency::Cached { max_age };
    query.timeout = Duration::from_secs(1);
    query
}

fn ask(world: &mut World, query: Query) -> CallId {
    world.with_engine(0, |e, s, now| e.ask(s, query, now))
}

/// The counter at b says when it was written, ms.
#[test]
fn connected_it_is_never_staler_than_promised() {
    for seed in seeds(40) {
        let weather = Weather {
            loss_percent: 0,
            double_percent: 5,
            least: Duration::from_micros(50),
            most: 3 * MS,
        };
        let mut world = World::new(&NAMES, seed, weather);
        let max_age = 60 * MS;
        ask(&mut world, cached(max_age));
        world.run_for(20 * MS);
        let replicas = world.hosts[0].engine.replicas();
        let pattern = Pattern::exact("n");
        let (mut hits, mut fresh) = (0, 0);
        let mut history = Vec::new();
        for round in 0..400_i64 {
            if world.rng.chance(60) {
                world.store(1).set("n", round).unwrap();
                history.push((world.now, round));
            }
            world.look();
            world.run_for(MS);
            let Some(view) = replicas.read(&pattern, Reducer::Sum, max_age, world.now) else {
                continue;
            };
            hits += 1;
            assert!(view.oldest <= max_age);
            // Everything written before that age is in it.
            let then = world.now.saturating_sub(view.oldest);
            let known = history.iter().rev().find(|(at, _)| *at <= then);
            let value = match view.value() {
                Some(Value::Int(value)) => value,
                _ => -1,
            };
            let wanted = known.map_or(-1, |(_, value)| *value);
            assert!(
                value >= wanted,
                "seed {seed}: {value}, {wanted} {:?} ago",
                view.oldest
            );
            fresh += i64::from(history.last().is_some_and(|(_, last)| value == *last));
        }
        assert!(hits == 400, "seed {seed}: {hits} of 400 reads");
        assert!(fresh > 10);
    }
}

#[test]
fn cut_off_it_says_how_stale_it_is() {
    let mut world = World::new(&NAMES, 1, Weather::FAIR);
    // Longer than it takes to see the cut, which would make b no member any more.
    world.detection = Duration::from_secs(60);
    for at in 0..3 {
        world.store(at).set("n", 1_i64 << at).unwrap();
    }
    let max_age = 50 * MS;
    let call = ask(&mut world, cached(max_age));
    world.run_for(100 * MS);
    let view = world.result_of_read(0, call).unwrap().clone().unwrap();
    assert_eq!(view.value, Some(Value::Int(7)));
    assert!(view.complete && view.oldest.unwrap() <= max_age);
    world.cut(0, 1);
    world.run_for(500 * MS);
    let replicas = world.hosts[0].engine.replicas();
    let pattern = Pattern::exact("n");
    assert!(
        replicas
            .read(&pattern, Reducer::Sum, max_age, world.now)
            .is_none()
    );
    // With more patience it will do, and says its age.
    let view = replicas
        .read(&pattern, Reducer::Sum, Duration::from_secs(5), world.now)
        .unwrap();
    assert!(view.oldest >= 500 * MS && view.oldest <= 500 * MS + max_age);
    let mut query = cached(max_age);
    query.timeout = 100 * MS;
    let call = ask(&mut world, query);
    world.run_for(100 * MS + TICK);
    let Err(Error::Incomplete(view)) = world.result_of_read(0, call).unwrap().clone() else {
        panic!("it is not fresh")
    };
    assert_eq!(view.missing, ["b"]);
    assert_eq!(view.value, Some(Value::Int(7)));
    assert!(view.oldest.unwrap() >= 600 * MS);
    world.heal(0, 1);
    world.run_for(100 * MS);
    assert!(
        replicas
            .read(&pattern, Reducer::Sum, max_age, world.now)
            .is_some()
    );
}

#[test]
fn what_nobody_reads_costs_no_traffic() {
    let mut world = World::new(&NAMES, 1, Weather::FAIR);
    let quiet = |world: &mut World| {
        let before = world.messages;
        for round in 0..1000_i64 {
            world.store(1).set("n", round).unwrap();
            world.look();
            world.run_for(MS);
        }
        world.messages - before
    };
    assert_eq!(quiet(&mut world), 0);
    ask(&mut world, cached(100 * MS));
    world.run_for(MS);
    // Other keys are still free.
    let before = world.messages;
    for round in 0..100_i64 {
        world.store(2).set("other", round).unwrap();
        world.look();
    }
    assert_eq!(world.messages, before);
    assert!(quiet(&mut world) > 0);
    // Nobody has read it for long enough: it is forgotten, on both sides.
    world.run_for(Duration::from_secs(30));
    assert_eq!(world.hosts[0].engine.replicas().len(), 0);
    assert_eq!(quiet(&mut world), 0);
}

/// 100,000 updates in a second come to a few dozen messages.
#[test]
fn updates_coalesce() {
    let mut world = World::new(&NAMES, 1, Weather::FAIR);
    ask(&mut world, cached(100 * MS));
    world.run_for(10 * MS);
    let (messages, bytes) = (world.messages, world.bytes);
    let store = world.store(1);
    for _ in 0..1000 {
        for _ in 0..100 {
            store.add("n", 1).unwrap();
        }
        world.look();
        world.run_for(MS);
    }
    let (messages, bytes) = (world.messages - messages, world.bytes - bytes);
    println!("100,000 updates: {messages} messages, {bytes} bytes");
    assert!(messages < 250, "{messages}");
    assert!(bytes < 25_000, "{bytes}");
    let kept = world.hosts[0].engine.replica_bytes();
    println!("the replica takes {kept} bytes");
    assert!(kept < 500);
    world.run_for(200 * MS);
    let view = world.hosts[0]
        .engine
        .replicas()
        .read(&Pattern::exact("n"), Reducer::Sum, 100 * MS, world.now)
        .unwrap();
    assert_eq!(view.value(), Some(Value::Int(100_000)));
}
