//! Stamps: a thread's writes are ordered as it makes them, and after what it has read, whatever
//! shards the keys are in and although the clock stands still.

use flowferry_estate::{Pattern, Stamp, Store, StoreOptions};
use std::sync::Arc;

fn store(ms: u64) -> Arc<Store> {
    let store = Store::new(StoreOptions::named("n"));
    store.tick(ms);
    Arc::new(store)
}

fn rises(stamps: &[Stamp]) {
    let fault = stamps.windows(2).position(|two| two[0] >= two[1]);
    assert_eq!(fault, None, "in {stamps:?}");
}

fn stamp(store: &Store, key: &str) -> Stamp {
    store.get_item(key).unwrap().stamp
}

#[test]
fn a_thread_writes_in_its_order_whatever_the_shards() {
    let store = store(1000);
    let keys: Vec<String> = (0..500).map(|n| format!("k{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        match n % 5 {
            0 => drop(store.add(key, 1).unwrap()),
            1 => drop(store.handle(key).unwrap().add(1).unwrap()),
            2 => drop(store.handle(key).unwrap().set(1).unwrap()),
            3 => {
                // The second write of an item goes another way than the first.
                store.set(key, 1).unwrap();
                store.set(key, 2).unwrap();
            }
            _ => drop(store.set(key, 1).unwrap()),
        }
    }
    // Read at the end, since to read orders, too.
    rises(
        &keys
            .iter()
            .map(|key| stamp(&store, key))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn a_counter_that_is_added_to_by_its_handle_keeps_the_order() {
    let store = store(1000);
    let handles: Vec<_> = (0..64)
        .map(|n| store.handle(&format!("k{n}")).unwrap())
        .collect();
    for handle in &handles {
        handle.add(1).unwrap();
    }
    for handle in &handles {
        handle.add(1).unwrap();
    }
    let stamps = handles.iter().map(|handle| stamp(&store, handle.key()));
    rises(&stamps.collect::<Vec<_>>());
}

#[test]
fn what_a_thread_has_read_is_before_what_it_writes() {
    type Read = fn(&Arc<Store>);
    let reads: [Read; 6] = [
        |store| drop(store.get("read")),
        |store| drop(store.get_item("read")),
        |store| assert!(store.with("read", |_| ()).is_some()),
        |store| drop(store.handle("read").unwrap().get()),
        |store| assert!(store.handle("read").unwrap().get_int().is_some()),
        |store| drop(store.keys(&Pattern::glob("r*").unwrap(), None)),
    ];
    for (which, read) in reads.into_iter().enumerate() {
        // Some of the keys are in the shard of what is read, and prove nothing; most are not.
        for n in 0..20 {
            let store = store(1000);
            let written = format!("w{n}");
            let writer = store.clone();
            let wrote = std::thread::spawn(move || {
                for value in 0..100 {
                    writer.set("read", value).unwrap();
                }
                stamp(&writer, "read")
            });
            let wrote = wrote.join().unwrap();
            read(&store);
            let after = store.set(&written, 1).unwrap();
            assert!(after > wrote, "read {which}: {after} is not after {wrote}");
        }
    }
}

#[test]
fn a_thread_at_two_stores_keeps_the_order_of_each_and_the_clock_of_each() {
    let (one, other) = (store(1000), store(5000));
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for n in 0..100 {
        ones.push(one.set(&format!("k{n}"), n).unwrap());
        others.push(other.set(&format!("k{n}"), n).unwrap());
    }
    rises(&ones);
    rises(&others);
    assert!(ones.iter().all(|stamp| stamp.ms() == 1000));
}

#[test]
fn who_is_told_of_a_stamp_writes_after_it_on_every_thread() {
    let store = store(1000);
    store.observe(Stamp::from_ms(2000));
    let writer = store.clone();
    let wrote = std::thread::spawn(move || writer.set("k", 1).unwrap());
    assert!(wrote.join().unwrap() > Stamp::from_ms(2000));
}
