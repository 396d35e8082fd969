//! A global read counts each item once, whatever is under way: moves that begin, end, are aborted,
//! follow each other and go back, while reads take as long as they may.

use crate::world::{MS, Weather, World, seeds};
use flowferry_estate::protocol::{CallId, Settings};
use flowferry_estate::reduce::Reducer;
use flowferry_estate::{FlowKey, Pattern, Query, Selection, Value};
use std::time::Duration;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const ITEMS: u64 = 12;
/// Each item is a bit, so that a wrong sum tells which item was missed or counted twice.
const TOTAL: i64 = (1 << ITEMS) - 1;

fn flow(index: u64) -> FlowKey {
    FlowKey::from_scope(&format!("flow:{index}")).unwrap()
}

fn run(seed: u64, consistency: flowferry_estate::Consistency) -> (u64, u64) {
    let settings = Settings {
        chunk: 60,
        longest_query: Duration::from_secs(2),
        ..Settings::default()
    };
    let weather = Weather {
        most: 60 * MS,
        ..Weather::FOUL
    };
    let mut world = World::with(&NAMES, seed, weather, settings);
    for index in 0..ITEMS {
        let at = usize::try_from(world.rng.below(4)).unwrap();
        let key = flow(index).item("bit");
        world.store(at).set(&key, 1_i64 << index).unwrap();
    }
    let mut calls: Vec<(usize, CallId)> = Vec::new();
    let mut next_id = 0;
    for _ in 0..600 {
        match world.rng.below(20) {
            0 => {
                let (from, to) = (world.rng.below(4), world.rng.below(4));
                let first = world.rng.below(ITEMS);
                let count = 1 + world.rng.below(4);
                let what = (first..ITEMS.min(first + count)).map(flow).collect();
                let pre_copy = world.rng.chance(50);
                next_id += 1;
                let source = NAMES[usize::try_from(from).unwrap()];
                let id = next_id;
                world.with_engine(usize::try_from(to).unwrap(), |e, s, now| {
                    e.take(s, Selection::Flows(what), source, id, pre_copy, now)
                });
            }
            1 if next_id > 0 => {
                let id = 1 + world.rng.below(next_id);
                let at = usize::try_from(world.rng.below(4)).unwrap();
                world.with_engine(at, |e, s, now| e.abort_take(s, id, now));
            }
            2..=4 => {
                let mut query = Query::new(Pattern::glob("flow:*").unwrap(), Reducer::Sum);
                query.timeout = Duration::from_secs(2);
                query.consistency = consistency;
                let at = usize::try_from(world.rng.below(4)).unwrap();
                calls.push((at, world.with_engine(at, |e, s, now| e.ask(s, query, now))));
            }
            _ => world.step(),
        }
        world.look();
    }
    world.run_for(Duration::from_secs(3));
    let mut complete = 0;
    for &(at, call) in &calls {
        if let Ok(view) = world
            .result_of_read(at, call)
            .expect("ended by its time-out")
        {
            complete += 1;
            let Some(Value::Int(sum)) = view.value else {
                panic!("seed {seed}: {view:?}")
            };
            let twice_or_missed = format!("{:b}", sum ^ TOTAL);
            assert_eq!(
                sum, TOTAL,
                "seed {seed} {call:?} at {at}: {twice_or_missed}"
            );
        }
    }
    let moved = world.taken.values().filter(|taken| taken.is_ok()).count() as u64;
    (complete, moved)
}

#[test]
fn live_sums_count_each_item_once_during_moves() {
    let (mut complete, mut moved) = (0, 0);
    for seed in seeds(150) {
        let (c, m) = run(seed, flowferry_estate::Consistency::Live);
        complete += c;
        moved += m;
    }
    assert!(
        complete > 20 && moved > 20,
        "{complete} reads, {moved} moves"
    );
}

#[test]
fn cached_sums_count_each_item_once_during_moves() {
    let age = flowferry_estate::Consistency::Cached { max_age: 300 * MS };
    let (mut complete, mut moved) = (0, 0);
    for seed in seeds(100) {
        let (c, m) = run(seed, age);
        complete += c;
        moved += m;
    }
    assert!(
        complete > 20 && moved > 20,
        "{complete} reads, {moved} moves"
    );
}

#[test]
fn snapshot_sums_count_each_item_once_during_moves() {
    let (mut complete, mut moved) = (0, 0);
    for seed in seeds(60) {
        let (c, m) = run(seed, flowferry_estate::Consistency::Snapshot);
        complete += c;
        moved += m;
    }
    assert!(
        complete > 20 && moved > 20,
        "{complete} reads, {moved} moves"
    );
}
