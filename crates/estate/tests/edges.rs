//! The ends of what a store can be asked: many keys, long keys, big values, bad patterns, no room.

use flowferry_estate::{
    Causality, Error, FlowKey, Hold, Interest, Item, KEY_MAX, PATTERN_MAX, Pattern, Selection,
    SetOptions, Stamp, Store, StoreOptions, Value, ValueRef, VectorClock,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn store() -> Arc<Store> {
    let store = Store::new(StoreOptions::named("n"));
    store.tick(1_000_000);
    Arc::new(store)
}

fn limited(limit: usize) -> Arc<Store> {
    let store = Store::new(StoreOptions {
        memory_limit: Some(limit),
        ..StoreOptions::named("n")
    });
    store.tick(1_000_000);
    Arc::new(store)
}

fn for_ms(ms: u64) -> SetOptions<'static> {
    SetOptions {
        ttl: Some(Duration::from_millis(ms)),
        ..SetOptions::default()
    }
}

#[test]
fn a_million_keys() {
    let store = store();
    let count = 1_000_000;
    for n in 0..count {
        store.add(&format!("key/{n}"), n).unwrap();
    }
    assert_eq!(store.memory().items, count as usize);
    let mut sum = 0;
    let pattern = Pattern::glob("key/*").unwrap();
    let seen = store.scan(&pattern, None, |item| {
        let ValueRef::Int(int) = item.value else {
            panic!("{item:?}")
        };
        sum += int;
    });
    assert_eq!(seen, Ok(count as usize));
    assert_eq!(sum, count * (count - 1) / 2);
    let tail = Pattern::regex("key/99999[0-9]").unwrap();
    assert_eq!(store.keys(&tail, None).unwrap().len(), 10);
    for n in 0..count {
        assert!(store.delete(&format!("key/{n}")).unwrap());
    }
    assert_eq!((store.memory().items, store.memory().bytes), (0, 0));
}

#[test]
fn values_of_ten_megabytes_are_shared_and_not_copied() {
    let store = store();
    let bytes: Vec<u8> = (0..10_000_000_u32).map(|n| (n * 7) as u8).collect();
    store.set("big", bytes.clone()).unwrap();
    let (Some(Value::Bytes(one)), Some(Value::Bytes(two))) = (store.get("big"), store.get("big"))
    else {
        panic!("bytes were written")
    };
    assert_eq!(*one, *bytes);
    assert!(Arc::ptr_eq(&one, &two));
    // What a reader has stays as it was.
    store.set("big", 1).unwrap();
    assert_eq!(*one, *bytes);
    assert!(store.memory().bytes < 1000);
}

#[test]
fn keys_have_1_to_1024_bytes() {
    let store = store();
    let longest = "ü".repeat(KEY_MAX / 2);
    store.set(&longest, 1).unwrap();
    assert_eq!(store.get(&longest), Some(Value::Int(1)));
    for (key, why) in [(String::new(), "is empty"), (longest + "x", "is too long")] {
        let error = store.set(&key, 1).unwrap_err();
        assert!(
            matches!(error, Error::Key { why: w, .. } if w == why),
            "{error}"
        );
        assert!(store.add(&key, 1).is_err() && store.handle(&key).is_err());
        assert_eq!(store.get(&key), None);
    }
}

#[test]
fn patterns_that_hang_a_backtracking_engine_do_not() {
    let store = store();
    let evil = "a".repeat(KEY_MAX - 1) + "!";
    store.set(&evil, 1).unwrap();
    let patterns = [
        Pattern::regex("(a+)+").unwrap(),
        Pattern::regex("(a|aa)+").unwrap(),
        Pattern::regex("(.*a){20}").unwrap(),
        Pattern::regex("(a?){100}a{100}").unwrap(),
        Pattern::glob(&"a*".repeat(100)).unwrap(),
        Pattern::glob(&"*a".repeat(500)).unwrap(),
    ];
    let expected = [false, false, false, false, true, false];
    // A backtracking engine would still be busy when the sun has gone out.
    for (pattern, expected) in patterns.iter().zip(expected) {
        assert_eq!(pattern.matches(&evil), expected, "{pattern:?}");
    }
}

#[test]
fn patterns_are_bounded_in_size() {
    for text in [
        "((a{100}){100}){100}",
        "\\pL{1000}",
        &"a".repeat(PATTERN_MAX + 1),
    ] {
        let error = Pattern::regex(text).unwrap_err();
        assert!(
            matches!(error, Error::Pattern { kind: "regex", .. }),
            "{error}"
        );
    }
    for text in ["[", "[]", "[a", "\\", "a[\\"] {
        let error = Pattern::glob(text).unwrap_err();
        assert!(
            matches!(error, Error::Pattern { kind: "glob", .. }),
            "{text}: {error}"
        );
    }
    for text in ["(", "a)|(b", "*", "[b-a]"] {
        assert!(Pattern::regex(text).is_err(), "{text}");
    }
}

#[test]
fn globs_mean_what_redis_means() {
    let yes = [
        ("*", "any\nthing"),
        ("h?llo", "hüllo"),
        ("h*llo", "heeeello"),
        ("h*llo", "hllo"),
        ("h[ae]llo", "hallo"),
        ("h[^e]llo", "hallo"),
        ("h[a-b]llo", "hbllo"),
        ("[a-]", "-"),
        ("\\*\\[", "*["),
        ("[\\]]", "]"),
        ("a.b|c", "a.b|c"),
        ("*/x", "a/b/x"),
        ("a*b*c", "a1b2b3c"),
    ];
    let no = [
        ("h?llo", "hllo"),
        ("h[^e]llo", "hello"),
        ("a.b", "axb"),
        ("ab*ba", "aba"),
        ("x*", "ax"),
        ("*x", "xa"),
        ("", "a"),
    ];
    for (glob, key) in yes {
        assert!(Pattern::glob(glob).unwrap().matches(key), "{glob} {key}");
    }
    for (glob, key) in no {
        assert!(!Pattern::glob(glob).unwrap().matches(key), "{glob} {key}");
    }
}

#[test]
fn a_scan_stops_when_it_is_told_to() {
    let store = store();
    for n in 0..10_000 {
        store.set(&format!("k{n}"), 1).unwrap();
    }
    let asked = std::cell::Cell::new(0);
    let until = || {
        asked.set(asked.get() + 1);
        asked.get() > 100
    };
    let error = store.keys(&Pattern::all(), Some(&until)).unwrap_err();
    assert!(matches!(error, Error::ScanStopped { seen, .. } if seen > 0 && seen < 10_000));
}

#[test]
fn without_anything_to_evict_a_full_store_refuses() {
    let store = limited(100_000);
    let mut written = 0;
    let error = loop {
        match store.set(&format!("key/{written}"), &[7; 100]) {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    let Error::MemoryFull { key, limit, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(
        (key.as_str(), *limit),
        (format!("key/{written}").as_str(), 100_000)
    );
    assert!((300..1000).contains(&written), "{written}");
    let memory = store.memory();
    assert!(memory.bytes <= 100_000 && memory.items == written && memory.evicted == 0);
    // What is there can be changed, and what goes makes room.
    store.set("key/0", &[8; 100]).unwrap();
    assert!(store.set("key/0", &[8; 1000]).is_err());
    assert_eq!(store.get("key/0"), Some(Value::from(&[8; 100])));
    store.delete("key/1").unwrap();
    store.set("another", &[7; 90]).unwrap();
}

#[test]
fn only_what_may_expire_is_evicted_the_least_used_first() {
    let store = limited(100_000);
    for n in 0..100 {
        store.set(&format!("keep/{n}"), &[7; 100]).unwrap();
    }
    let mut ms = 1_000_000;
    for n in 0..2000 {
        ms += 1;
        store.tick(ms);
        store
            .set_with(
                &format!("mortal/{n}"),
                ValueRef::Bytes(&[7; 100]),
                for_ms(1 << 30),
            )
            .unwrap();
        // This one is in use.
        assert!(store.get("mortal/0").is_some(), "evicted after {n}");
    }
    let memory = store.memory();
    assert!(
        memory.bytes <= 100_000 && memory.evicted > 1000,
        "{memory:?}"
    );
    let keep = Pattern::glob("keep/*").unwrap();
    assert_eq!(store.keys(&keep, None).unwrap().len(), 100);
    // Sampling comes close to "the oldest went": of those that are left, most are young.
    let mortal = Pattern::glob("mortal/*").unwrap();
    let left = store.keys(&mortal, None).unwrap();
    let young = left
        .iter()
        .filter(|key| key["mortal/".len()..].parse::<i32>().unwrap() > 1000);
    assert!(young.count() * 10 > left.len() * 8);
}

#[test]
fn a_handle_means_its_key_whatever_happens_to_the_item() {
    let store = limited(10_000);
    let handle = store.handle("mortal").unwrap();
    assert_eq!(handle.get(), None);
    // Expired.
    store
        .set_with("mortal", ValueRef::Int(5), for_ms(10))
        .unwrap();
    assert_eq!(handle.get_int(), Some(5));
    store.tick(1_000_010);
    assert_eq!((handle.get(), handle.get_int()), (None, None));
    assert_eq!(handle.add(1), Ok(1));
    // Evicted.
    store
        .set_with("mortal", ValueRef::Int(7), for_ms(1 << 30))
        .unwrap();
    store.set("filler", vec![7_u8; 9_800]).unwrap();
    assert_eq!(store.memory().evicted, 1);
    assert_eq!(handle.get(), None);
    store.delete("filler").unwrap();
    assert_eq!(handle.add(2), Ok(2));
    // Taken.
    let hold = Hold::Move(1);
    let selection = Selection::Keys(vec!["mortal".to_owned()]);
    store.freeze(hold, &selection).unwrap();
    assert!(matches!(handle.add(1), Err(Error::Frozen { .. })));
    assert_eq!(handle.get_int(), Some(2));
    assert_eq!(store.remove_held(hold), 1);
    assert_eq!(handle.get(), None);
    assert_eq!(handle.add(3), Ok(3));
    // Another type.
    store.set("mortal", "text").unwrap();
    assert!(matches!(
        handle.add(1),
        Err(Error::Type { found: "str", .. })
    ));
    assert_eq!(
        (handle.get_int(), handle.get()),
        (None, Some(Value::from("text")))
    );
    assert_eq!(handle.delete(), Ok(true));
    assert_eq!(store.memory().items, 0);
}

#[test]
fn a_sweep_removes_what_has_expired_and_nothing_else() {
    let store = store();
    for n in 0..1000_u64 {
        store
            .set_with(&format!("k{n}"), ValueRef::Int(1), for_ms(n + 1))
            .unwrap();
    }
    store.tick(1_000_500);
    let visible = store.keys(&Pattern::all(), None).unwrap().len();
    assert_eq!(visible, 500, "what has expired is not seen, swept or not");
    let mut removed = 0;
    while store.memory().items > 500 {
        removed += store.sweep(50);
    }
    assert_eq!((removed, store.sweep(usize::MAX)), (500, 0));
    assert_eq!(store.memory().expired, 500);
}

#[test]
fn stamps_grow_and_stay_close_to_the_time() {
    let store = store();
    let one = store.set("k", 1).unwrap();
    let two = store.set("k", 2).unwrap();
    assert!(one < two && two.ms() == 1_000_000);
    // Something from the future was received: what depends on it is later.
    store.observe(Stamp::from_ms(2_000_000));
    let three = store.set("another", 1).unwrap();
    assert!(three > Stamp::from_ms(2_000_000) && store.clock() >= three);
    store.tick(1_500_000);
    let four = store.set("k", 3).unwrap();
    assert!(four > two && four > Stamp::from_ms(2_000_000));
}

#[test]
fn a_write_remembers_what_its_writer_had_seen() {
    let store = store();
    store.set("k", 1).unwrap();
    let mine = store.get_item("k").unwrap();
    assert_eq!(mine.clock, None, "nothing was seen of others");
    let mut seen = mine.history();
    seen.record("other", Stamp::from_ms(7));
    let options = SetOptions {
        after: Some(&seen),
        ..SetOptions::default()
    };
    store.set_with("k", ValueRef::Int(2), options).unwrap();
    let later = store.get_item("k").unwrap();
    assert_eq!(later.history().compare(&mine.history()), Causality::After);
    // A plain write comes after one's own.
    store.set("k", 3).unwrap();
    let last = store.get_item("k").unwrap();
    assert_eq!(last.history().compare(&later.history()), Causality::After);
    let mut sibling = VectorClock::new();
    sibling.record("other", Stamp::from_ms(8));
    assert_eq!(last.history().compare(&sibling), Causality::Concurrent);
    store.delete("k").unwrap();
    store.set("k", 4).unwrap();
    assert_eq!(
        store.get_item("k").unwrap().clock,
        None,
        "a new item has a new history"
    );
}

#[test]
fn a_cut_opens_only_ahead_of_all_stamps() {
    let store = store();
    let stamp = store.set("k", 1).unwrap();
    let before = Stamp::from_bits(stamp.to_bits() - 1);
    let error = store.begin_cut(1, before, &Pattern::all()).unwrap_err();
    assert!(matches!(error, Error::CutPassed { clock, .. } if clock >= stamp));
    assert!(!store.end_cut(1), "nothing stays open");
    store.begin_cut(1, stamp, &Pattern::exact("k")).unwrap();
    store.begin_cut(1, stamp, &Pattern::exact("k")).unwrap();
    assert!(store.set("other", 1).unwrap() > stamp);
    store.set("k", 2).unwrap();
    let mut seen = Vec::new();
    store
        .scan_cut(1, None, |item| {
            seen.push((item.key.to_owned(), item.value.to_value()))
        })
        .unwrap();
    assert_eq!(seen, [("k".to_owned(), Value::Int(1))]);
    assert!(store.end_cut(1) && !store.end_cut(1));
    assert!(matches!(
        store.scan_cut(1, None, |_| ()),
        Err(Error::NoCut { id: 1, .. })
    ));
}

#[test]
fn what_moves_in_after_a_cut_was_opened_is_not_in_it() {
    let store = store();
    let at = store.clock();
    store.begin_cut(1, at, &Pattern::all()).unwrap();
    // An item of this key came and expired meanwhile: found by a random history.
    store.set_with("k", ValueRef::Int(1), for_ms(1)).unwrap();
    store.tick(1_000_001);
    let item = Item {
        key: "k".to_owned(),
        value: Value::Int(2),
        stamp: Stamp::from_bits(at.to_bits() - 1),
        clock: None,
        node: "elsewhere".into(),
        expires: None,
    };
    assert_eq!(store.insert_moved(Hold::Move(1), &item), Ok(true));
    assert_eq!(store.get("k"), Some(Value::Int(2)));
    assert_eq!(store.scan_cut(1, None, |_| ()), Ok(0));
}

#[test]
fn many_updates_of_a_key_are_one_change_and_one_call() {
    let store = store();
    let calls = Arc::new(AtomicUsize::new(0));
    let called = calls.clone();
    store.on_change(move || {
        called.fetch_add(1, Ordering::SeqCst);
    });
    store.add("undeclared", 1).unwrap();
    store.declare(Interest(1), Pattern::glob("c*").unwrap());
    store.add("undeclared", 1).unwrap();
    assert_eq!(
        (calls.load(Ordering::SeqCst), store.changes().len()),
        (0, 0)
    );
    let handle = store.handle("counter").unwrap();
    for _ in 0..100_000 {
        handle.add(1).unwrap();
    }
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    let changes = store.changes();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].item.as_ref().unwrap().value, Value::Int(100_000));
    store.delete("counter").unwrap();
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    assert_eq!(store.changes()[0].item, None);
    assert!(store.withdraw(Interest(1)) && !store.withdraw(Interest(1)));
    handle.add(1).unwrap();
    assert_eq!(
        (calls.load(Ordering::SeqCst), store.changes().len()),
        (2, 0)
    );
}

#[test]
fn all_items_of_many_flows_are_found_and_no_others() {
    let store = store();
    let flow = |n: usize| FlowKey::from_scope(&format!("flow:6,10.0.0.1:{n},10.0.0.2:80")).unwrap();
    for n in 0..2000 {
        for name in ["packets", "bytes", "a/b"] {
            store.add(&flow(n).item(name), n as i64).unwrap();
        }
        store.add(&format!("other/{n}"), 1).unwrap();
    }
    let odd: Vec<FlowKey> = (0..2000).filter(|n| n % 2 == 1).map(flow).collect();
    let hold = Hold::Move(9);
    store.freeze(hold, &Selection::Flows(odd.clone())).unwrap();
    let mut seen = BTreeSet::new();
    store.scan_held(hold, Stamp::ZERO, |item| {
        assert!(seen.insert(item.key.to_owned()));
    });
    let expected = odd
        .iter()
        .flat_map(|flow| ["packets", "bytes", "a/b"].map(|name| flow.item(name)));
    assert_eq!(seen, expected.collect());
    // A new item of a frozen flow is refused, too; its neighbours are not.
    assert!(matches!(
        store.add(&flow(1).item("new"), 1),
        Err(Error::Frozen { .. })
    ));
    store.add(&flow(2).item("new"), 1).unwrap();
    assert_eq!(store.remove_held(hold), 3000);
    assert_eq!(store.memory().items, 2000 + 3001);
    store.add(&flow(1).item("new"), 1).unwrap();
}

#[test]
fn what_is_written_or_removed_while_it_is_tracked_is_told_once() {
    let store = store();
    let flow = FlowKey::from_scope("flow:6,10.0.0.1:1,10.0.0.2:80").unwrap();
    let packets = flow.item("packets");
    store.set(&packets, 1_i64).unwrap();
    store.set("kept", 1_i64).unwrap();
    store.set("gone", 1_i64).unwrap();
    let handle = store.handle(&packets).unwrap();
    let (one, two) = (Hold::Move(1), Hold::Move(2));
    let flows = Selection::Flows(vec![flow.clone()]);
    let keys = Selection::Keys(vec!["kept".into(), "gone".into(), packets.clone()]);
    store.track(one, &flows);
    store.track(two, &keys);
    let told = |hold| {
        let told: BTreeSet<String> = store.tracked(hold).into_iter().collect();
        told
    };
    let names = |names: &[&str]| {
        names
            .iter()
            .map(|n| (*n).to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!((told(one), told(two)), (names(&[]), names(&[])));
    handle.add(1).unwrap();
    handle.add(1).unwrap();
    store.set(&flow.item("new"), 1_i64).unwrap();
    store.delete("gone").unwrap();
    store.set("other", 1_i64).unwrap();
    assert_eq!(told(one), names(&[&packets, &flow.item("new")]));
    assert_eq!(told(two), names(&[&packets, "gone"]));
    assert_eq!(told(one), names(&[]));
    // What moves in may be stamped long ago.
    let mut item = store.get_item("other").unwrap();
    item.key = "gone".into();
    item.stamp = Stamp::from_ms(1);
    store.insert_moved(Hold::Move(3), &item).unwrap();
    store.untrack(one);
    handle.add(1).unwrap();
    assert_eq!(told(two), names(&["gone", &packets]));
    assert_eq!(told(one), names(&[]));
    store.untrack(two);
    handle.add(1).unwrap();
    assert_eq!(told(two), names(&[]));
}

proptest! {
    /// Every legal character in keys, and keys that differ in one only.
    #[test]
    fn any_text_is_a_key(keys in proptest::collection::btree_set("\\PC{1,20}|(?s:.){1,20}", 1..50)) {
        let store = store();
        for (n, key) in keys.iter().enumerate() {
            store.set(key, n as i64).unwrap();
        }
        for (n, key) in keys.iter().enumerate() {
            prop_assert_eq!(store.get(key), Some(Value::Int(n as i64)));
            prop_assert!(Pattern::exact(key).matches(key));
        }
        let found: BTreeSet<String> = store.keys(&Pattern::all(), None).unwrap().into_iter().collect();
        prop_assert_eq!(&found, &keys);
        let all = store.keys(&Pattern::regex("(?s).*").unwrap(), None).unwrap();
        prop_assert_eq!(all.len(), keys.len());
    }

    /// The quick ways through a glob say what the engine says.
    #[test]
    fn globs_agree_with_their_regex(glob in "[ab*?]{0,6}", key in "[ab]{0,8}") {
        let regex = glob.replace('?', ".").replace('*', "(?s:.*)");
        let expected = Pattern::regex(&regex).unwrap().matches(&key);
        prop_assert_eq!(Pattern::glob(&glob).unwrap().matches(&key), expected);
    }

    /// A set in a glob is its characters, whatever they mean elsewhere.
    #[test]
    fn a_set_in_a_glob_is_its_characters(members in "[!-~&&[^\\\\\\]^-]]{1,5}", c in "[!-~]") {
        let expected = members.contains(&c);
        prop_assert_eq!(Pattern::glob(&format!("[{members}]")).unwrap().matches(&c), expected);
    }
}
