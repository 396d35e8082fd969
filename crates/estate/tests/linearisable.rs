//! Local operations are linearisable across threads: real histories are recorded and checked.
//!
//! The checker is that of Wing and Gong with Lowe's memory of configurations: it looks for an order
//! of the operations that respects real time (what had returned before another was called comes
//! before it) and in which each gives what a map of one key would give. Keys are independent, so
//! each is checked alone. Histories with a fault planted on purpose are rejected.

use flowferry_estate::{Hold, Selection, Stamp, Store, StoreOptions, Value, ValueRef};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What one key can be asked, and what it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Set(i64),
    Get(Option<i64>),
    Add(i64, i64),
    Delete(bool),
    /// A write that was refused, since the key was frozen.
    Refused,
    Freeze,
    Thaw,
}

#[derive(Clone, Copy, Debug)]
struct Operation {
    call: Call,
    called: u64,
    returned: u64,
}

/// A key: its value, and whether it is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
struct State {
    value: Option<i64>,
    frozen: bool,
}

/// The state after `call`, if that is what it would have given.
fn step(state: State, call: Call) -> Option<State> {
    let value = |value| Some(State { value, ..state });
    let frozen = |frozen| Some(State { frozen, ..state });
    match call {
        Call::Get(seen) => (seen == state.value).then_some(state),
        Call::Freeze => frozen(true),
        Call::Thaw => frozen(false),
        Call::Refused => state.frozen.then_some(state),
        // Deleting what is not there is no write.
        Call::Delete(false) => state.value.is_none().then_some(state),
        _ if state.frozen => None,
        Call::Set(new) => value(Some(new)),
        Call::Add(delta, sum) => (state.value.unwrap_or(0) + delta == sum).then_some(State {
            value: Some(sum),
            ..state
        }),
        Call::Delete(true) => state.value.is_some().then_some(State {
            value: None,
            ..state
        }),
    }
}

/// Whether there is an order. The operations are sorted by when they were called; `done` says
/// which are in the order already.
fn linearisable(history: &[Operation]) -> bool {
    let mut history = history.to_vec();
    history.sort_by_key(|operation| operation.called);
    let mut seen: HashSet<(Vec<u64>, State)> = HashSet::new();
    let mut stack = vec![(
        0_usize,
        vec![0_u64; history.len().div_ceil(64)],
        State::default(),
    )];
    let is = |done: &[u64], n: usize| done[n / 64] >> (n % 64) & 1 == 1;
    while let Some((first, done, state)) = stack.pop() {
        let first = (first..history.len()).find(|&n| !is(&done, n));
        let Some(first) = first else { return true };
        // Whatever is next was called before anything that is left had returned.
        let mut horizon = u64::MAX;
        for n in first..history.len() {
            if is(&done, n) {
                continue;
            }
            let operation = history[n];
            if operation.called > horizon {
                break;
            }
            horizon = horizon.min(operation.returned);
            if let Some(next) = step(state, operation.call) {
                let mut done = done.clone();
                done[n / 64] |= 1 << (n % 64);
                if seen.insert((done.clone(), next)) {
                    stack.push((first, done, next));
                }
            }
        }
    }
    false
}

/// Runs `threads` threads of `rounds` random operations on one key, all kinds of access mixed.
fn record(threads: usize, rounds: usize, seed: u64) -> Vec<Operation> {
    let store = Arc::new(Store::new(StoreOptions::named("n")));
    let time = Arc::new(AtomicU64::new(0));
    let here = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..threads)
        .map(|thread| {
            let (store, time, here) = (store.clone(), time.clone(), here.clone());
            std::thread::spawn(move || {
                let handle = store.handle("k").unwrap();
                let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (thread as u64 + 1);
                let mut throw = |sides: u64| {
                    dice ^= dice << 13;
                    dice ^= dice >> 7;
                    dice ^= dice << 17;
                    dice % sides
                };
                // Spinning: a thread that is woken comes when the others are done already.
                here.fetch_add(1, Ordering::SeqCst);
                while here.load(Ordering::SeqCst) < threads {
                    std::thread::yield_now();
                }
                (0..rounds)
                    .map(|n| {
                        let (kind, delta) = (throw(16), throw(9) as i64 - 4);
                        let unique = (thread * rounds + n) as i64 * 1000;
                        let called = time.fetch_add(1, Ordering::SeqCst);
                        let call = operate(&store, &handle, kind, delta, unique);
                        let returned = time.fetch_add(1, Ordering::SeqCst);
                        Operation {
                            call,
                            called,
                            returned,
                        }
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    workers
        .into_iter()
        .flat_map(|worker| worker.join().unwrap())
        .collect()
}

fn int(value: Value) -> i64 {
    match value {
        Value::Int(int) => int,
        other => panic!("{other:?} was never written"),
    }
}

fn operate(
    store: &Store,
    handle: &flowferry_estate::Handle,
    kind: u64,
    delta: i64,
    unique: i64,
) -> Call {
    let hold = Hold::Move(1);
    match kind {
        0 => store
            .set("k", unique)
            .map_or(Call::Refused, |_| Call::Set(unique)),
        1 => handle
            .set(unique)
            .map_or(Call::Refused, |_| Call::Set(unique)),
        2 | 3 => Call::Get(store.get("k").map(int)),
        4 => Call::Get(handle.get().map(int)),
        5 => Call::Get(handle.get_int()),
        6 => Call::Get(store.with("k", |item| match item.value {
            ValueRef::Int(int) => int,
            other => panic!("{other:?} was never written"),
        })),
        7..=9 => store
            .add("k", delta)
            .map_or(Call::Refused, |sum| Call::Add(delta, sum)),
        10..=12 => handle
            .add(delta)
            .map_or(Call::Refused, |sum| Call::Add(delta, sum)),
        13 => store.delete("k").map_or(Call::Refused, Call::Delete),
        14 => {
            store
                .freeze(hold, &Selection::Keys(vec!["k".to_owned()]))
                .unwrap();
            Call::Freeze
        }
        _ => {
            store.thaw(hold);
            Call::Thaw
        }
    }
}

#[test]
fn operations_on_one_key_have_an_order() {
    for seed in 0..300 {
        let history = record(3, 40, seed);
        assert!(linearisable(&history), "seed {seed}: {history:?}");
    }
}

#[test]
fn histories_overlap_at_all() {
    // Else the test above would prove nothing.
    let overlaps = |history: &[Operation]| {
        history.iter().any(|one| {
            let meanwhile =
                |other: &&Operation| other.called > one.called && other.called < one.returned;
            history.iter().any(|other| meanwhile(&other))
        })
    };
    // The first few do, unless all CPUs are busy with something else.
    assert!((0..100_000).any(|seed| overlaps(&record(3, 40, seed))));
}

fn done(call: Call, called: u64, returned: u64) -> Operation {
    Operation {
        call,
        called,
        returned,
    }
}

#[test]
fn the_checker_knows_good_from_bad() {
    let set = |value, called, returned| done(Call::Set(value), called, returned);
    let get = |value, called, returned| done(Call::Get(value), called, returned);
    // A read during a write may see either.
    assert!(linearisable(&[set(1, 0, 3), get(None, 1, 2)]));
    assert!(linearisable(&[set(1, 0, 3), get(Some(1), 1, 2)]));
    // A read after a write may not miss it.
    assert!(!linearisable(&[set(1, 0, 1), get(None, 2, 3)]));
    // Two reads may not see a write and then not see it.
    let back = [set(1, 0, 9), get(Some(1), 1, 2), get(None, 3, 4)];
    assert!(!linearisable(&back));
    // Two adds may not both come first.
    let add = |sum, called, returned| done(Call::Add(1, sum), called, returned);
    assert!(linearisable(&[add(1, 0, 2), add(2, 1, 3)]));
    assert!(!linearisable(&[add(1, 0, 2), add(1, 1, 3)]));
    // Nothing is written between freeze and thaw.
    let frozen = [
        done(Call::Freeze, 0, 1),
        set(1, 2, 3),
        done(Call::Thaw, 4, 5),
    ];
    assert!(!linearisable(&frozen));
}

#[test]
fn a_planted_fault_is_found() {
    // One answer in a real history is made stale, as a cache without invalidation would.
    let mut found = 0;
    for seed in 0..50 {
        let mut history = record(3, 40, seed);
        assert!(linearisable(&history));
        let Some(victim) = history
            .iter_mut()
            .rev()
            .find_map(|operation| match operation.call {
                Call::Add(delta, sum) if delta != 0 => Some((operation, delta, sum)),
                _ => None,
            })
        else {
            continue;
        };
        let (operation, delta, sum) = victim;
        operation.call = Call::Add(delta, sum - delta);
        found += usize::from(!linearisable(&history));
    }
    assert!(found >= 40, "{found} of 50 planted faults were found");
}

#[test]
fn counters_converge_under_any_interleaving() {
    let store = Arc::new(Store::new(StoreOptions::named("n")));
    let rounds = 20_000_i64;
    let workers: Vec<_> = (1..=4_i64)
        .map(|step| {
            let store = store.clone();
            std::thread::spawn(move || {
                let handles: Vec<_> = (0..3)
                    .map(|n| store.handle(&format!("c{n}")).unwrap())
                    .collect();
                for n in 0..rounds {
                    handles[n as usize % 3].add(step).unwrap();
                    store.add("all", -step).unwrap();
                }
            })
        })
        .collect();
    workers
        .into_iter()
        .for_each(|worker| worker.join().unwrap());
    let sum: i64 = (0..3)
        .map(|n| store.handle(&format!("c{n}")).unwrap().get_int().unwrap())
        .sum();
    assert_eq!(sum, 10 * rounds);
    assert_eq!(store.get("all"), Some(Value::Int(-10 * rounds)));
}

/// Money moves between accounts while cuts are opened: every cut has all of it. Without cuts a
/// scan sees some of it twice or not at all.
#[test]
fn a_cut_is_consistent_while_threads_write() {
    const ACCOUNTS: usize = 40;
    const TOTAL: i64 = ACCOUNTS as i64 * 100;
    let store = Arc::new(Store::new(StoreOptions::named("n")));
    store.tick(1_000_000);
    for n in 0..ACCOUNTS {
        store.set(&format!("account/{n}"), 100).unwrap();
    }
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mover = {
        let (store, stop) = (store.clone(), stop.clone());
        std::thread::spawn(move || {
            let handles: Vec<_> = (0..ACCOUNTS)
                .map(|n| store.handle(&format!("account/{n}")).unwrap())
                .collect();
            let mut n = 1_usize;
            while !stop.load(Ordering::Relaxed) {
                n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (from, to) = (n >> 40, n >> 20);
                // First out, then in: a cut has 100 % of it, or lacks the one that is under way.
                handles[from % ACCOUNTS].add(-1).unwrap();
                handles[to % ACCOUNTS].add(1).unwrap();
            }
        })
    };
    let pattern = flowferry_estate::Pattern::glob("account/*").unwrap();
    let mut opened = 0;
    let mut ms = 1_000_000;
    for id in 0..3000 {
        // The instant lies a little ahead, as between instances.
        let at = Stamp::from_ms(store.clock().ms() + 1);
        ms = ms.max(at.ms() - 1);
        store.tick(ms);
        if store.begin_cut(id, at, &pattern).is_err() {
            continue;
        }
        opened += 1;
        let mut sum = 0;
        let seen = store.scan_cut(id, None, |item| match item.value {
            ValueRef::Int(int) => sum += int,
            other => panic!("{other:?}"),
        });
        assert_eq!(seen, Ok(ACCOUNTS));
        assert!(
            sum == TOTAL || sum == TOTAL - 1,
            "cut {id} has {sum} of {TOTAL}"
        );
        assert!(store.end_cut(id));
    }
    stop.store(true, Ordering::Relaxed);
    mover.join().unwrap();
    assert!(opened > 100, "{opened} cuts were opened");
}
