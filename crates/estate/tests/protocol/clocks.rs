//! Happened-before over messages: what a member has seen of another is stamped before what it
//! writes afterwards, however their clocks differ.

use crate::world::{MS, Weather, World, seeds};
use flowferry_estate::protocol::Event;
use flowferry_estate::reduce::Reducer;
use flowferry_estate::{Consistency, Pattern, Query, Stamp};
use std::time::Duration;

fn written(world: &World, at: usize, key: &str) -> Stamp {
    world.store(at).get_item(key).unwrap().stamp
}

/// The writer's clock is ahead of the reader's in some of the seeds.
fn check(name: &str, see: impl Fn(&mut World)) {
    for seed in seeds(40) {
        let mut world = World::new(&["reader", "writer"], seed, Weather::FAIR);
        see(&mut world);
        world.store(0).set("after", 1).unwrap();
        let (before, after) = (written(&world, 1, "x"), written(&world, 0, "after"));
        assert!(
            after > before,
            "{name}, seed {seed}: {after} is not after {before}"
        );
    }
}

fn read(world: &mut World, consistency: Consistency) {
    let mut query = Query::new(Pattern::exact("x"), Reducer::Sum);
    query.consistency = consistency;
    let call = world.with_engine(0, |e, s, now| e.ask(s, query, now));
    while world.result_of_read(0, call).is_none() {
        world.step();
    }
}

#[test]
fn a_live_read_is_before_what_its_reader_writes() {
    check("live", |world| {
        world.store(1).set("x", 1).unwrap();
        read(world, Consistency::Live);
    });
}

#[test]
fn a_pushed_replica_is_before_what_its_reader_writes() {
    check("cached", |world| {
        let max_age = Duration::from_millis(100);
        read(world, Consistency::Cached { max_age });
        world.run_for(10 * MS);
        world.store(1).set("x", 1).unwrap();
        world.look();
        let pattern = Pattern::exact("x");
        let replicas = world.hosts[0].engine.replicas();
        let seen = |now| {
            let view = replicas.read(&pattern, Reducer::Sum, max_age, now);
            view.is_some_and(|view| view.to_view().value.is_some())
        };
        while !seen(world.now) {
            world.step();
        }
    });
}

#[test]
fn a_watched_change_is_before_what_its_watcher_writes() {
    check("watch", |world| {
        let pattern = Pattern::exact("x");
        world.with_engine(0, |e, s, now| e.watch(s, pattern, MS, now));
        world.run_for(MS);
        world.store(1).set("x", 1).unwrap();
        world.look();
        let seen = |(_, event): &(usize, Event)| matches!(event, Event::Changed { .. });
        while !world.events.iter().any(seen) {
            world.step();
        }
    });
}
