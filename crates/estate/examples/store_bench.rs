//! What the local store costs: ns per operation, scaling with threads, bytes per item, scans.
//!
//! `cargo run --release -p flowferry-estate --no-default-features --example store_bench` prints one
//! JSON object. Keys have 20 bytes, values 64. Each figure of `ns_p50` is the median over batches
//! of the mean within a batch, as single operations are shorter than a clock reading.

use flowferry_estate::{
    FlowKey, Hold, Pattern, Selection, SetOptions, Stamp, Store, StoreOptions, ValueRef,
};
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

const BATCH: usize = 256;
const VALUE: [u8; 64] = [7; 64];

fn keys(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("bench/counter/{n:06}"))
        .collect()
}

/// Median over batches of ns per operation.
fn p50(batches: usize, mut operation: impl FnMut(usize)) -> f64 {
    let mut times: Vec<f64> = (0..batches)
        .map(|batch| {
            let start = Instant::now();
            for n in 0..BATCH {
                operation(batch * BATCH + n);
            }
            start.elapsed().as_secs_f64() * 1e9 / BATCH as f64
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn filled(keys: &[String]) -> Arc<Store> {
    let store = Store::new(StoreOptions::named("bench"));
    store.tick(1_700_000_000_000);
    for key in keys {
        store
            .set_with(key, ValueRef::Bytes(&VALUE), SetOptions::default())
            .unwrap();
    }
    Arc::new(store)
}

fn latencies(count: usize) -> String {
    let keys = keys(count);
    let store = filled(&keys);
    // A stride that visits all keys in an order that no prefetcher knows.
    let key = |n: usize| &keys[n.wrapping_mul(7919) % count];
    let batches = 8_000;
    let set = p50(batches, |n| {
        store
            .set_with(key(n), ValueRef::Bytes(&VALUE), SetOptions::default())
            .unwrap();
    });
    let mut into = [0_u8; 64];
    let get = p50(batches, |n| {
        store.with(key(n), |item| {
            if let ValueRef::Bytes(bytes) = item.value {
                into.copy_from_slice(bytes);
            }
        });
        black_box(&into);
    });
    let handle = store.handle("bench/packets").unwrap();
    let handle_add = p50(batches, |_| {
        handle.add(1).unwrap();
    });
    let add = p50(batches, |_| {
        store.add("bench/packets", 1).unwrap();
    });
    let clock = p50(200, |_| {
        black_box(store.clock());
    });
    format!(
        "{{\"keys\": {count}, \"clock\": {clock:.0}, \"set\": {set:.1}, \"get\": {get:.1}, \"handle_add\": {handle_add:.1}, \"add\": {add:.1}}}"
    )
}

/// Million operations a second of `threads` threads that each write and read keys of their own.
fn throughput(threads: usize) -> String {
    let keys = Arc::new(keys(100_000));
    let store = filled(&keys);
    let barrier = Arc::new(Barrier::new(threads + 1));
    let rounds = 2_000_000;
    let run = |write: bool| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let (keys, store, barrier) = (keys.clone(), store.clone(), barrier.clone());
                std::thread::spawn(move || {
                    barrier.wait();
                    for n in 0..rounds {
                        let key = &keys[(n * threads + worker).wrapping_mul(7919) % keys.len()];
                        if write {
                            store
                                .set_with(key, ValueRef::Bytes(&VALUE), SetOptions::default())
                                .unwrap();
                        } else {
                            black_box(store.with(key, |item| item.stamp));
                        }
                    }
                })
            })
            .collect();
        barrier.wait();
        let start = Instant::now();
        workers
            .into_iter()
            .for_each(|worker| worker.join().unwrap());
        (threads * rounds) as f64 / start.elapsed().as_secs_f64() / 1e6
    };
    let (set, get) = (run(true), run(false));
    format!("{{\"threads\": {threads}, \"set_mops\": {set:.1}, \"get_mops\": {get:.1}}}")
}

/// Bytes the allocator has handed out, headers and rounding included.
fn allocated() -> usize {
    // SAFETY: `mallinfo2` only reads the allocator's own figures.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

fn memory(count: usize) -> String {
    let keys = keys(count);
    let store = Store::new(StoreOptions::named("bench"));
    let before = allocated();
    for key in &keys {
        store
            .set_with(key, ValueRef::Bytes(&VALUE), SetOptions::default())
            .unwrap();
    }
    let taken = (allocated() - before) as f64 / count as f64;
    let beyond = taken - 84.0;
    let booked = store.memory().bytes as f64 / count as f64;
    format!(
        "{{\"items\": {count}, \"allocator_bytes_per_item\": {taken:.1}, \"beyond_key_and_value\": {beyond:.1}, \"booked_bytes_per_item\": {booked:.1}}}"
    )
}

fn scan(count: usize) -> String {
    let keys = keys(count);
    let store = Store::new(StoreOptions::named("bench"));
    for key in &keys {
        store.add(key, 1).unwrap();
    }
    let time = |pattern: &Pattern| {
        let mut best = Duration::MAX;
        for _ in 0..9 {
            let start = Instant::now();
            let mut sum = 0;
            store
                .scan(pattern, None, |item| {
                    if let ValueRef::Int(int) = item.value {
                        sum += int;
                    }
                })
                .unwrap();
            assert_eq!(sum, count as i64);
            best = best.min(start.elapsed());
        }
        best.as_secs_f64() * 1e3
    };
    let glob = time(&Pattern::glob("bench/*").unwrap());
    let regex = time(&Pattern::regex("bench/[a-z]+/[0-9]+").unwrap());
    format!("{{\"items\": {count}, \"glob_ms\": {glob:.2}, \"regex_ms\": {regex:.2}}}")
}

/// What a move costs the two stores: `count` items, ten to a flow.
fn moving(count: usize) -> String {
    let flows: Vec<FlowKey> = (0..count / 10)
        .map(|n| FlowKey::from_scope(&format!("flow:6,10.0.0.1:{n},10.0.0.2:80")).unwrap())
        .collect();
    let (from, to) = (filled(&[]), filled(&[]));
    for flow in &flows {
        for n in 0..10 {
            from.set_with(
                &flow.item(&format!("{n}")),
                ValueRef::Bytes(&VALUE),
                SetOptions::default(),
            )
            .unwrap();
        }
    }
    let selection = Selection::Flows(flows);
    let hold = Hold::Move(1);
    let mut items = Vec::with_capacity(count);
    let time = |f: &mut dyn FnMut()| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64() * 1e3
    };
    let freeze = time(&mut || from.freeze(hold, &selection).unwrap());
    let difference = time(&mut || assert_eq!(from.scan_held(hold, from.clock(), |_| ()), 0));
    from.scan_held(hold, Stamp::ZERO, |item| {
        items.push(item.to_item("from".into()))
    });
    let insert = time(&mut || {
        for item in &items {
            to.insert_moved(hold, item).unwrap();
        }
    });
    let remove = time(&mut || assert_eq!(from.remove_held(hold), count));
    format!(
        "{{\"items\": {count}, \"freeze_ms\": {freeze:.1}, \"difference_ms\": {difference:.1}, \"insert_ms\": {insert:.1}, \"remove_ms\": {remove:.1}}}"
    )
}

fn main() {
    let row = |rows: Vec<String>| rows.join(", ");
    println!(
        "{{\"ns_p50\": [{}], \"throughput\": [{}], \"memory\": [{}], \"sum\": [{}], \"move\": {}}}",
        row([1_000, 100_000, 999_999].map(latencies).into()),
        row([1, 2, 4].map(throughput).into()),
        row([100_000, 900_000].map(memory).into()),
        row([100_000, 900_000].map(scan).into()),
        moving(100_000),
    );
}
