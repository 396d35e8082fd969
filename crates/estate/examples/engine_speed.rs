//! What the protocol engine costs, without threads and without a network: messages are handed from
//! engine to engine at once.
//!
//! `cargo run --release -p flowferry-estate --example engine_speed`

use flowferry_estate::protocol::{Action, Engine, NodeId, Settings, Taken};
use flowferry_estate::reduce::Reducer;
use flowferry_estate::{
    Consistency, FlowKey, Pattern, Query, Selection, Stamp, Store, StoreOptions, Value,
};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

struct Member {
    id: NodeId,
    store: Store,
    engine: Engine,
    busy: Duration,
}

struct Cluster {
    members: Vec<Member>,
    start: Instant,
    mail: VecDeque<(usize, usize, Vec<u8>)>,
    taken: Option<Taken>,
    reads: usize,
}

impl Cluster {
    fn new(count: usize) -> Self {
        let members = (0..count)
            .map(|index| {
                let name = format!("m{index:02}");
                let id = NodeId::new(&name, 1);
                Member {
                    engine: Engine::new(id.clone(), Settings::default()),
                    id,
                    store: Store::new(StoreOptions::named(&name)),
                    busy: Duration::ZERO,
                }
            })
            .collect();
        let mut cluster = Self {
            members,
            start: Instant::now(),
            mail: VecDeque::new(),
            taken: None,
            reads: 0,
        };
        for at in 0..count {
            for other in 0..count {
                let id = cluster.members[other].id.clone();
                cluster.call(at, |engine, store, now| {
                    ((), engine.joined(store, &id, now))
                });
            }
        }
        cluster
    }

    fn call<R>(
        &mut self,
        at: usize,
        f: impl FnOnce(&mut Engine, &Store, Duration) -> (R, Vec<Action>),
    ) -> R {
        let now = self.start.elapsed();
        let member = &mut self.members[at];
        let (result, actions) = f(&mut member.engine, &member.store, now);
        member.busy += self.start.elapsed() - now;
        for action in actions {
            match action {
                Action::Send { to, bytes, .. } => {
                    for to in to {
                        let to = self.members.iter().position(|m| m.id == to).unwrap();
                        self.mail.push_back((at, to, bytes.clone()));
                    }
                }
                Action::Done { result, .. } => {
                    result.unwrap();
                    self.reads += 1;
                }
                Action::Taken { result, .. } => self.taken = Some(result.unwrap()),
                _ => {}
            }
        }
        result
    }

    fn run(&mut self) {
        while let Some((from, to, bytes)) = self.mail.pop_front() {
            let from = self.members[from].id.clone();
            self.call(to, |engine, store, now| {
                ((), engine.message(store, &from, &bytes, now))
            });
        }
    }

    fn idle(&mut self) {
        for member in &mut self.members {
            member.busy = Duration::ZERO;
        }
    }
}

fn query(pattern: Pattern) -> Query {
    Query::new(pattern, Reducer::Sum)
}

fn one_key() {
    let mut cluster = Cluster::new(16);
    for member in &cluster.members {
        member.store.set("packets", 1_i64).unwrap();
    }
    const ROUNDS: u32 = 20_000;
    cluster.idle();
    for _ in 0..ROUNDS {
        cluster.call(0, |e, s, now| {
            e.ask(s, query(Pattern::exact("packets")), now)
        });
        cluster.run();
    }
    assert_eq!(cluster.reads, ROUNDS as usize);
    println!(
        "one key, 16 members: {:?} at the asker for all answers, {:?} at each other",
        cluster.members[0].busy / ROUNDS,
        cluster.members[1].busy / ROUNDS
    );
}

fn many_keys() {
    let mut cluster = Cluster::new(8);
    for member in &cluster.members {
        for key in 0..100_000 {
            member.store.set(&format!("flow/{key}"), 1_i64).unwrap();
        }
    }
    const ROUNDS: u32 = 10;
    cluster.idle();
    for _ in 0..ROUNDS {
        cluster.call(0, |e, s, now| {
            e.ask(s, query(Pattern::glob("flow/*").unwrap()), now)
        });
        cluster.run();
    }
    println!(
        "sum of 100,000 keys at each of 8: {:?} at one member",
        cluster.members[1].busy / ROUNDS
    );
}

fn cached() {
    let mut cluster = Cluster::new(16);
    for member in &cluster.members {
        member.store.set("packets", 1_i64).unwrap();
    }
    let pattern = Pattern::exact("packets");
    let max_age = Duration::from_secs(9);
    let mut wanted = query(pattern.clone());
    wanted.consistency = Consistency::Cached { max_age };
    cluster.call(0, |e, s, now| e.ask(s, wanted, now));
    cluster.run();
    let replicas = cluster.members[0].engine.replicas();
    const ROUNDS: u32 = 1_000_000;
    let start = Instant::now();
    for _ in 0..ROUNDS {
        let now = cluster.start.elapsed();
        let view = replicas.read(&pattern, Reducer::Sum, max_age, now).unwrap();
        assert_eq!(view.value(), Some(Value::Int(16)));
    }
    println!("cached, one key: {:?}", start.elapsed() / ROUNDS);
}

fn take(flows: usize, items_each: usize, pre_copy: bool) {
    let mut cluster = Cluster::new(2);
    let flow = |index: usize| FlowKey::from_scope(&format!("flow:{index}")).unwrap();
    for index in 0..flows {
        for item in 0..items_each {
            let key = flow(index).item(&format!("i{item}"));
            cluster.members[0].store.set(&key, &[7_u8; 100]).unwrap();
        }
    }
    let what = Selection::Flows((0..flows).map(flow).collect());
    cluster.idle();
    let start = Instant::now();
    cluster.call(1, |e, s, now| e.take(s, what, "m00", 1, pre_copy, now));
    cluster.run();
    let taken = cluster.taken.take().unwrap();
    println!(
        "take of {} items of 100 bytes in {flows} flows, {}: {:?}, {:?} at the source, {:?} at the \
         destination; the source refused writes for {:?}",
        taken.items,
        if pre_copy { "pre-copied" } else { "frozen" },
        start.elapsed(),
        cluster.members[0].busy,
        cluster.members[1].busy,
        taken.frozen,
    );
    assert_eq!(taken.items as usize, flows * items_each);
}

fn parts_of_a_take() {
    use flowferry_estate::Hold;
    let flow = |index: usize| FlowKey::from_scope(&format!("flow:{index}")).unwrap();
    let store = Store::new(StoreOptions::named("a"));
    for index in 0..100_000 {
        store.set(&flow(index).item("i"), &[7_u8; 100]).unwrap();
    }
    let what = Selection::Flows((0..100_000).map(flow).collect());
    let mut last = Instant::now();
    let mut lap = |what: &str| {
        println!("  {what}: {:?}", last.elapsed());
        last = Instant::now();
    };
    store.freeze(Hold::Move(1), &what).unwrap();
    lap("freeze of 100,000 flows");
    let mut items = Vec::new();
    store.scan_held(Hold::Move(1), Stamp::ZERO, |item| {
        items.push(item.to_item("b".into()));
    });
    lap("scan and copy of what is held");
    store.scan_held(Hold::Move(1), store.clock(), |_| {});
    lap("scan for changes");
    store.thaw(Hold::Move(1));
    lap("thaw");
    store.freeze(Hold::Move(1), &what).unwrap();
    lap("freeze again");
    store.remove_held(Hold::Move(1));
    lap("remove");
    store.freeze(Hold::Move(1), &what).unwrap();
    for item in &items {
        store.insert_moved(Hold::Move(1), item).unwrap();
    }
    lap("freeze and insert");
}

fn main() {
    one_key();
    many_keys();
    cached();
    take(100_000, 1, true);
    take(100_000, 1, false);
    take(1_000, 100, true);
    parts_of_a_take();
}
