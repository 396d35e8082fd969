//! Subscriptions: every item's last state is reported, whatever is lost.

use crate::world::{MS, Weather, World, seeds};
use flowferry_estate::protocol::Event;
use flowferry_estate::{FlowKey, Pattern, Selection, Value};
use std::collections::BTreeMap;
use std::time::Duration;

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
        let pattern = Pattern::glob("w/*").unwrap();
        let number = world.with_engine(0, |e, s, now| e.watch(s, pattern, now));
        world.run_for(Duration::from_secs(5));
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
fn a_move_is_no_change() {
    let mut world = World::new(&["a", "b", "c"], 1, Weather::FAIR);
    for index in 0..10 {
        world
            .store(1)
            .set(&format!("flow:{index}/n"), index)
            .unwrap();
    }
    let pattern = Pattern::glob("flow:*").unwrap();
    world.with_engine(0, |e, s, now| e.watch(s, pattern, now));
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
