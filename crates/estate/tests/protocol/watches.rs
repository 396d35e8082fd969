//! Subscriptions: every item's last state is reported, whatever is lost.

use crate::world::{MS, Weather, World, seeds};
use flowferry_estate::protocol::Event;
use flowferry_estate::{FlowKey, Pattern, Selection, Value};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a watch waits for members that do not say that they watch.
const PATIENCE: Duration = Duration::from_secs(1);

/// Member `at` watches `w/*`; returns when the watch has begun.
fn watch(world: &mut World, at: usize) -> u64 {
    let pattern = Pattern::glob("w/*").unwrap();
    let number = world.with_engine(at, |e, s, now| e.watch(s, pattern, PATIENCE, now));
    while !world.watching.contains(&(at, number)) {
        world.step();
    }
    number
}

fn state(node: &str, key: &str, value: i64) -> ((String, String), Option<Value>) {
    ((node.into(), key.into()), Some(Value::Int(value)))
}

fn last_states(world: &World, number: u64) -> BTreeMap<(String, String), Option<Value>> {
    let mut last = BTreeMap::new();
    for (_, event) in &world.events {
        if let Event::Changed {
            watch,
            node,
            key,
            item,
        } = event
        {
            assert_eq!(*watch, number);
            let value = item.as_ref().map(|item| item.value.clone());
            last.insert((node.name.to_string(), key.clone()), value);
        }
    }
    last
}

#[test]
fn the_last_state_of_every_item_arrives() {
    for seed in seeds(60) {
        let weather = Weather {
            // An order that is kept: the last report to arrive is the last that was sent.
            least: MS,
            most: MS,
            ..Weather::FOUL
        };
        let mut world = World::new(&["a", "b", "c"], seed, weather);
        let number = watch(&mut world, 0);
        let mut wanted = BTreeMap::new();
        for round in 0..200_i64 {
            let at = usize::try_from(world.rng.below(3)).unwrap();
            let key = format!("w/{}", world.rng.below(5));
            let name = world.hosts[at].id.name.to_string();
            world.store(at).set("other", round).unwrap();
            if world.rng.chance(20) {
                if world.store(at).delete(&key).unwrap() {
                    wanted.insert((name, key), None);
                }
            } else {
                world.store(at).set(&key, round).unwrap();
                wanted.insert((name, key), Some(Value::Int(round)));
            }
            world.look();
            world.run_for(MS);
        }
        world.run_for(Duration::from_secs(10));
        assert_eq!(last_states(&world, number), wanted, "seed {seed}");
        world.with_engine(0, |e, s, now| ((), e.unwatch(s, number, now)));
        world.run_for(Duration::from_secs(10));
        let before = (world.messages, world.events.len());
        world.store(1).set("w/1", "quiet").unwrap();
        world.look();
        world.run_for(Duration::from_secs(1));
        assert_eq!((world.messages, world.events.len()), before);
    }
}

#[test]
fn a_watch_that_has_begun_misses_nothing_and_shows_nothing_from_before() {
    for seed in seeds(200) {
        let mut world = World::new(&["a", "b", "c"], seed, Weather::FOUL);
        for at in 0..3 {
            world.store(at).set("w/before", 1).unwrap();
        }
        world.look();
        world.run_for(Duration::from_millis(seed % 50));
        let asked = world.now;
        let number = watch(&mut world, 0);
        let patient = world.now - asked < PATIENCE;
        world.store(1).set("w/after", 2).unwrap();
        world.store(2).set("w/after", 3).unwrap();
        world.look();
        world.run_for(Duration::from_secs(10));
        let wanted = BTreeMap::from([state("b", "w/after", 2), state("c", "w/after", 3)]);
        let mut seen = last_states(&world, number);
        if !patient {
            // A member has not answered in time, and tells all that it has.
            seen.retain(|(_, key), _| key != "w/before");
        }
        assert_eq!(seen, wanted, "seed {seed}");
    }
}

#[test]
fn a_lost_report_costs_one_repeat_and_not_one_with_every_later_report() {
    let mut world = World::new(&["a", "b"], 1, Weather::FAIR);
    let number = watch(&mut world, 0);
    world.weather.loss_percent = 100;
    world.store(1).set("w/lost", 1).unwrap();
    world.look();
    world.run_for(10 * MS);
    world.weather.loss_percent = 0;
    world.store(1).set("w/next", 2).unwrap();
    world.look();
    world.run_for(Duration::from_secs(5));
    let wanted = BTreeMap::from([state("b", "w/lost", 1), state("b", "w/next", 2)]);
    assert_eq!(last_states(&world, number), wanted);
    let before = world.messages;
    for value in 0..50 {
        world.store(1).set("w/1", value).unwrap();
        world.look();
        world.run_for(10 * MS);
    }
    let each = world.messages - before;
    assert!(each < 60, "{each} messages for 50 reports");
}

#[test]
fn a_member_that_comes_later_tells_what_it_has() {
    let mut world = World::new(&["a", "b"], 1, Weather::FAIR);
    world.kill(1);
    world.run_for(Duration::from_secs(1));
    let number = watch(&mut world, 0);
    world.restart(1);
    world.store(1).set("w/1", 1).unwrap();
    world.run_for(Duration::from_secs(1));
    let wanted = BTreeMap::from([state("b", "w/1", 1)]);
    assert_eq!(last_states(&world, number), wanted);
}

#[test]
fn what_is_written_beyond_a_cut_is_told_when_it_heals() {
    // Cut before the watch reaches the member, so that it begins without; and afterwards, for longer
    // than the lease.
    for first in [true, false] {
        let mut world = World::new(&["a", "b"], 1, Weather::FAIR);
        world.detection = Duration::from_secs(3);
        let number = if first {
            world.cut(0, 1);
            let number = watch(&mut world, 0);
            assert_eq!(world.watching.len(), 1, "it has begun by its time-out");
            number
        } else {
            let number = watch(&mut world, 0);
            world.cut(0, 1);
            number
        };
        world.store(1).set("w/1", 1).unwrap();
        world.look();
        world.run_for(Duration::from_secs(20));
        assert!(last_states(&world, number).is_empty());
        world.heal(0, 1);
        world.run_for(Duration::from_secs(10));
        let wanted = BTreeMap::from([state("b", "w/1", 1)]);
        assert_eq!(last_states(&world, number), wanted, "cut first: {first}");
    }
}

#[test]
fn a_move_is_no_change() {
    let mut world = World::new(&["a", "b", "c"], 1, Weather::FAIR);
    for index in 0..10 {
        world
            .store(1)
            .set(&format!("flow:{index}/n"), index)
            .unwrap();
    }
    let pattern = Pattern::glob("flow:*").unwrap();
    world.with_engine(0, |e, s, now| e.watch(s, pattern, PATIENCE, now));
    world.run_for(10 * MS);
    let flows = (0..10).map(|i| FlowKey::from_scope(&format!("flow:{i}")).unwrap());
    let what = Selection::Flows(flows.collect());
    world.with_engine(2, |e, s, now| e.take(s, what, "b", 1, true, now));
    world.run_for(Duration::from_secs(1));
    assert_eq!(world.store(2).memory().items, 10);
    let changes = |world: &World| {
        let events = world.events.iter();
        events
            .filter(|(_, e)| matches!(e, Event::Changed { .. }))
            .count()
    };
    assert_eq!(changes(&world), 0);
    world.store(2).add("flow:3/n", 1).unwrap();
    world.look();
    world.run_for(Duration::from_secs(1));
    assert_eq!(changes(&world), 1);
}
