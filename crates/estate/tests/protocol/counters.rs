//! Counters converge: whatever is added where, while members are cut off and come back, in the end all
//! read the sum of all additions, and before it no read makes anything up.

use crate::world::{MS, Weather, World, seeds};
use flowferry_estate::protocol::CallId;
use flowferry_estate::reduce::Reducer;
use flowferry_estate::{Consistency, Pattern, Query, Value, View};
use std::collections::BTreeMap;
use std::time::Duration;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const CACHED: Consistency = Consistency::Cached {
    max_age: Duration::from_millis(200),
};

fn sum(consistency: Consistency) -> Query {
    let mut query = Query::new(Pattern::exact("n"), Reducer::Sum);
    query.consistency = consistency;
    query.timeout = Duration::from_secs(2);
    query
}

/// What a member's counter has been: which addition made it so, when, and what it was then.
#[derive(Default)]
struct Past(Vec<(usize, Duration, i64)>);

impl Past {
    /// The least and the most that it was after so many additions, until a moment.
    fn range(&self, from: usize, to: Duration) -> (i64, i64) {
        let before = self.0.iter().rev().find(|(number, ..)| *number <= from);
        let first = before.map_or(0, |(.., value)| *value);
        let later = self.0.iter().filter(|(number, ..)| *number > from);
        let within = later.filter(|(_, at, _)| *at <= to);
        within.fold((first, first), |(least, most), (.., value)| {
            (least.min(*value), most.max(*value))
        })
    }
}

/// A read, when it began, and after how many additions.
struct Read {
    at: usize,
    call: CallId,
    begun: Duration,
    after: usize,
}

struct Run {
    world: World,
    past: BTreeMap<&'static str, Past>,
    total: i64,
    additions: usize,
    reads: Vec<Read>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let weather = Weather {
            most: 30 * MS,
            ..Weather::FOUL
        };
        Self {
            world: World::new(&NAMES, seed, weather),
            past: NAMES.map(|name| (name, Past::default())).into(),
            total: 0,
            additions: 0,
            reads: Vec::new(),
        }
    }

    fn anybody(&mut self) -> usize {
        usize::try_from(self.world.rng.below(4)).unwrap()
    }

    fn add(&mut self) {
        let at = self.anybody();
        let delta = i64::try_from(self.world.rng.below(100)).unwrap() - 40;
        let value = self.world.store(at).add("n", delta).unwrap();
        self.total += delta;
        self.additions += 1;
        let past = self.past.get_mut(NAMES[at]).unwrap();
        past.0.push((self.additions, self.world.now, value));
        self.world.look();
    }

    fn ask(&mut self, at: usize, consistency: Consistency) -> CallId {
        let query = sum(consistency);
        self.world.with_engine(at, |e, s, now| e.ask(s, query, now))
    }

    fn step(&mut self) {
        let (one, other) = (self.anybody(), self.anybody());
        match self.world.rng.below(40) {
            0 if one != other => self.world.cut(one, other),
            1 | 2 if one != other => self.world.heal(one, other),
            3..=9 => self.add(),
            10 => {
                let call = self.ask(one, Consistency::Live);
                self.reads.push(Read {
                    at: one,
                    call,
                    begun: self.world.now,
                    after: self.additions,
                });
            }
            11 => drop(self.ask(one, CACHED)),
            _ => self.world.step(),
        }
    }

    /// A read is the sum of what each member that answered had at some time during it.
    fn check(&self, view: &View, read: &Read, seed: u64) {
        let ended = read.begun + Duration::from_secs(2);
        let (mut least, mut most) = (0, 0);
        for name in &view.answered {
            let (low, high) = self.past[name.as_str()].range(read.after, ended);
            (least, most) = (least + low, most + high);
        }
        let value = match view.value {
            Some(Value::Int(value)) => value,
            None => 0,
            ref other => panic!("seed {seed}: {other:?}"),
        };
        assert!(
            (least..=most).contains(&value),
            "seed {seed}: {value} of {:?} is not between {least} and {most}",
            view.answered
        );
    }

    fn finish(&mut self, seed: u64) {
        for one in 0..4 {
            for other in 0..one {
                self.world.heal(one, other);
            }
        }
        self.world.run_for(Duration::from_secs(5));
        for read in std::mem::take(&mut self.reads) {
            let result = self.world.result_of_read(read.at, read.call);
            match result.expect("it has ended") {
                Ok(view) => self.check(view, &read, seed),
                Err(flowferry_estate::Error::Incomplete(view)) => self.check(view, &read, seed),
                Err(why) => panic!("seed {seed}: {why}"),
            }
        }
        for at in 0..4 {
            for consistency in [Consistency::Live, Consistency::Snapshot, CACHED] {
                let call = self.ask(at, consistency);
                self.world.run_for(Duration::from_secs(2));
                let view = self.world.result_of_read(at, call).unwrap().clone();
                let view = view.unwrap_or_else(|why| panic!("seed {seed}, {consistency:?}: {why}"));
                assert_eq!(view.answered, NAMES, "seed {seed}, {consistency:?}");
                let value = view.value.unwrap_or(Value::Int(0));
                assert_eq!(
                    value,
                    Value::Int(self.total),
                    "seed {seed}, {consistency:?}"
                );
            }
        }
    }
}

#[test]
fn counters_converge_under_any_interleaving() {
    for seed in seeds(60) {
        let mut run = Run::new(seed);
        for _ in 0..600 {
            run.step();
        }
        run.finish(seed);
    }
}

/// The checker above would see an addition that is counted twice, or lost.
#[test]
fn an_addition_that_is_lost_is_found() {
    let found = std::panic::catch_unwind(|| {
        let mut run = Run::new(1);
        for _ in 0..100 {
            run.step();
        }
        run.add();
        run.total += 1;
        run.finish(1);
    });
    assert!(found.is_err());
}
