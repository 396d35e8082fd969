//! The store does what a plain map would: properties over random histories on one thread.

use flowferry_estate::{
    Error, Hold, Interest, Item, Pattern, Selection, SetOptions, Stamp, Store, StoreOptions, Value,
    VectorClock,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Few keys, so that they meet; two flows; a character from each corner.
const KEYS: [&str; 8] = [
    "a",
    "b/ü\0\n*?[",
    "count",
    "flow:6,10.0.0.1:1,10.0.0.2:2/packets",
    "flow:6,10.0.0.1:1,10.0.0.2:2/bytes",
    "flow:17,10.0.0.1:1,10.0.0.2:2/packets",
    "flow:17",
    "\u{10ffff}",
];
const FLOWS: [&str; 2] = [
    "flow:6,10.0.0.1:1,10.0.0.2:2",
    "flow:17,10.0.0.1:1,10.0.0.2:2",
];

#[derive(Clone, Debug)]
enum Op {
    Set(usize, Value, Option<u16>),
    Add(usize, i64),
    HandleAdd(usize, i64),
    HandleSet(usize, Value),
    Delete(usize),
    Pass(u16),
    Sweep,
    FreezeKeys(u64, BTreeSet<usize>),
    FreezeFlow(u64, usize),
    Thaw(u64),
    RemoveHeld(u64),
    Move(u64, usize, Value, i8),
    WriteHeld(u64, usize, Option<Value>),
    BeginCut(u64),
    EndCut(u64),
    Look,
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::Int),
        (-3..4_i64).prop_map(Value::Int),
        any::<f64>()
            .prop_filter("NaN is no key to equality", |f| !f.is_nan())
            .prop_map(Value::Float),
        ".{0,8}".prop_map(Value::from),
        proptest::collection::vec(any::<u8>(), 0..40).prop_map(Value::from),
        (1000..1100_usize).prop_map(|n| Value::from(vec![7_u8; n])),
        (1000..1100_usize).prop_map(|n| Value::from("x".repeat(n))),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let key = 0..KEYS.len();
    let hold = 0..3_u64;
    prop_oneof![
        4 => (key.clone(), value(), proptest::option::weighted(0.3, 1..50_u16))
            .prop_map(|(k, v, ttl)| Op::Set(k, v, ttl)),
        2 => (key.clone(), -5..6_i64).prop_map(|(k, d)| Op::Add(k, d)),
        1 => (key.clone(), any::<i64>()).prop_map(|(k, d)| Op::Add(k, d)),
        4 => (key.clone(), -5..6_i64).prop_map(|(k, d)| Op::HandleAdd(k, d)),
        2 => (key.clone(), value()).prop_map(|(k, v)| Op::HandleSet(k, v)),
        2 => key.clone().prop_map(Op::Delete),
        2 => (0..30_u16).prop_map(Op::Pass),
        1 => Just(Op::Sweep),
        1 => (hold.clone(), proptest::collection::btree_set(key.clone(), 1..4))
            .prop_map(|(h, keys)| Op::FreezeKeys(h, keys)),
        1 => (hold.clone(), 0..FLOWS.len()).prop_map(|(h, f)| Op::FreezeFlow(h, f)),
        1 => hold.clone().prop_map(Op::Thaw),
        1 => hold.clone().prop_map(Op::RemoveHeld),
        2 => (hold.clone(), key.clone(), value(), -2..3_i8).prop_map(|(h, k, v, age)| Op::Move(h, k, v, age)),
        1 => (hold.clone(), key, proptest::option::of(value()))
            .prop_map(|(h, k, v)| Op::WriteHeld(h, k, v)),
        1 => hold.clone().prop_map(Op::BeginCut),
        1 => hold.prop_map(Op::EndCut),
        2 => Just(Op::Look),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Entry {
    value: Value,
    expires: Option<u64>,
    stamp: Stamp,
}

type Items = BTreeMap<String, Entry>;

/// What the store should be.
#[derive(Default)]
struct Model {
    items: Items,
    now_ms: u64,
    held_keys: BTreeMap<String, u64>,
    held_flows: BTreeMap<String, u64>,
    cuts: BTreeMap<u64, (Stamp, Items)>,
    changed: BTreeSet<String>,
}

impl Model {
    fn live(&self, key: &str) -> Option<&Entry> {
        let entry = self.items.get(key)?;
        entry
            .expires
            .is_none_or(|ms| ms > self.now_ms)
            .then_some(entry)
    }

    fn holder(&self, key: &str) -> Option<u64> {
        let scope = key.split_once('/').map(|(scope, _)| scope);
        let by_flow = || self.held_flows.get(scope?);
        self.held_keys.get(key).or_else(by_flow).copied()
    }

    fn write(&mut self, key: &str, value: Value, expires: Option<u64>, stamp: Stamp) {
        self.changed.insert(key.to_owned());
        let entry = Entry {
            value,
            expires,
            stamp,
        };
        self.items.insert(key.to_owned(), entry);
    }

    fn remove(&mut self, key: &str) -> bool {
        let lived = self.live(key).is_some();
        if self.items.remove(key).is_some() {
            self.changed.insert(key.to_owned());
        }
        lived
    }

    fn held_by(&self, hold: u64) -> Vec<String> {
        let held = |key: &&String| self.holder(key) == Some(hold);
        self.items.keys().filter(held).cloned().collect()
    }

    fn thaw(&mut self, hold: u64) {
        self.held_keys.retain(|_, h| *h != hold);
        self.held_flows.retain(|_, h| *h != hold);
    }
}

fn check_sum(
    model: &mut Model,
    key: &str,
    delta: i64,
    got: Result<i64, Error>,
    stamp: impl Fn() -> Stamp,
) {
    let old = model.live(key).cloned();
    if let Some(hold) = model.holder(key) {
        // A type error may come first; nothing is written either way.
        match got {
            Err(Error::Frozen { hold: by, .. }) => assert_eq!(by, Hold::Move(hold)),
            Err(Error::Type { .. } | Error::Overflow { .. }) => {}
            other => panic!("{key} is held by {hold}, add gave {other:?}"),
        }
        return;
    }
    let (before, expires) = match &old {
        None => (0, None),
        Some(Entry {
            value: Value::Int(int),
            expires,
            ..
        }) => (*int, *expires),
        Some(other) => {
            let Err(Error::Type { found, .. }) = got else {
                panic!("{got:?}")
            };
            assert_eq!(found, other.value.type_name());
            return;
        }
    };
    match before.checked_add(delta) {
        None => assert!(matches!(got, Err(Error::Overflow { value, .. }) if value == before)),
        Some(sum) => {
            assert_eq!(got, Ok(sum));
            model.write(key, Value::Int(sum), expires, stamp());
        }
    }
}

fn check_write(
    model: &mut Model,
    key: &str,
    value: Value,
    expires: Option<u64>,
    got: Result<Stamp, Error>,
) {
    match (model.holder(key), got) {
        (None, Ok(stamp)) => {
            let before = model.items.get(key).map(|entry| entry.stamp);
            assert!(before.is_none_or(|before| before < stamp), "stamps grow");
            model.write(key, value, expires, stamp);
        }
        (Some(hold), Err(Error::Frozen { hold: by, .. })) => assert_eq!(by, Hold::Move(hold)),
        other => panic!("{key}: {other:?}"),
    }
}

fn apply(op: Op, store: &Arc<Store>, handles: &[flowferry_estate::Handle], model: &mut Model) {
    let stamp_of = |key: &str| store.get_item(key).unwrap().stamp;
    match op {
        Op::Set(k, value, ttl) => {
            let ttl = ttl.map(u64::from);
            let options = SetOptions {
                ttl: ttl.map(Duration::from_millis),
                after: None,
            };
            let got = store.set_with(KEYS[k], value.borrow(), options);
            let expires = ttl.map(|ttl| model.now_ms + ttl);
            check_write(model, KEYS[k], value, expires, got);
        }
        Op::Add(k, delta) => {
            let got = store.add(KEYS[k], delta);
            check_sum(model, KEYS[k], delta, got, || stamp_of(KEYS[k]));
        }
        Op::HandleAdd(k, delta) => {
            let got = handles[k].add(delta);
            check_sum(model, KEYS[k], delta, got, || stamp_of(KEYS[k]));
        }
        Op::HandleSet(k, value) => {
            let got = handles[k].set(value.clone());
            check_write(model, KEYS[k], value, None, got);
        }
        Op::Delete(k) => match store.delete(KEYS[k]) {
            Ok(lived) => {
                let refused = model.holder(KEYS[k]).is_some() && model.items.contains_key(KEYS[k]);
                assert!(!refused, "a held item was deleted");
                assert_eq!(lived, model.remove(KEYS[k]));
            }
            Err(Error::Frozen { .. }) => assert!(model.holder(KEYS[k]).is_some()),
            Err(other) => panic!("{other}"),
        },
        Op::Pass(ms) => {
            model.now_ms += u64::from(ms);
            store.tick(model.now_ms);
        }
        Op::Sweep => {
            let dead = model.items.iter().filter(|(key, entry)| {
                entry.expires.is_some_and(|ms| ms <= model.now_ms) && model.holder(key).is_none()
            });
            let dead: Vec<String> = dead.map(|(key, _)| key.clone()).collect();
            assert_eq!(store.sweep(usize::MAX), dead.len());
            for key in dead {
                model.remove(&key);
            }
        }
        Op::FreezeKeys(hold, keys) => {
            let free = keys
                .iter()
                .all(|&k| model.holder(KEYS[k]).is_none_or(|h| h == hold));
            let selection = Selection::Keys(keys.iter().map(|&k| KEYS[k].to_owned()).collect());
            assert_eq!(store.freeze(Hold::Move(hold), &selection).is_ok(), free);
            if free {
                model
                    .held_keys
                    .extend(keys.iter().map(|&k| (KEYS[k].to_owned(), hold)));
            }
        }
        Op::FreezeFlow(hold, f) => {
            let prefix = format!("{}/", FLOWS[f]);
            let free = model.held_flows.get(FLOWS[f]).is_none_or(|h| *h == hold)
                && (model.held_keys.iter()).all(|(key, h)| *h == hold || !key.starts_with(&prefix));
            let flow = flowferry_estate::FlowKey::from_scope(FLOWS[f]).unwrap();
            let selection = Selection::Flows(vec![flow]);
            assert_eq!(store.freeze(Hold::Move(hold), &selection).is_ok(), free);
            if free {
                model.held_flows.insert(FLOWS[f].to_owned(), hold);
            }
        }
        Op::Thaw(hold) => {
            let any = model
                .held_keys
                .values()
                .chain(model.held_flows.values())
                .any(|h| *h == hold);
            assert_eq!(store.thaw(Hold::Move(hold)), any);
            model.thaw(hold);
        }
        Op::RemoveHeld(hold) => {
            let held = model.held_by(hold);
            let mut shown = BTreeSet::new();
            store.scan_held(Hold::Move(hold), Stamp::ZERO, |item| {
                assert!(shown.insert(item.key.to_owned()), "an item is shown once");
            });
            let live = held.iter().filter(|key| model.live(key).is_some());
            assert_eq!(shown, live.cloned().collect());
            assert_eq!(store.remove_held(Hold::Move(hold)), held.len());
            for key in held {
                model.remove(&key);
            }
            model.thaw(hold);
        }
        Op::Move(hold, k, value, age) => {
            let here = model.items.get(KEYS[k]).map(|entry| entry.stamp);
            let base = here.unwrap_or_else(|| Stamp::from_ms(model.now_ms));
            let stamp = Stamp::from_bits(base.to_bits().saturating_add_signed(i64::from(age)));
            let item = Item {
                key: KEYS[k].to_owned(),
                value: value.clone(),
                stamp,
                clock: None,
                node: "elsewhere".into(),
                expires: None,
            };
            let newer = model.live(KEYS[k]).is_none_or(|entry| entry.stamp < stamp);
            match store.insert_moved(Hold::Move(hold), &item) {
                Ok(taken) => {
                    assert!(model.holder(KEYS[k]).is_none_or(|h| h == hold));
                    assert_eq!(taken, newer);
                    if taken {
                        model.write(KEYS[k], value, None, stamp);
                    }
                }
                Err(Error::Frozen { .. }) => {
                    assert!(model.holder(KEYS[k]).is_some_and(|h| h != hold))
                }
                Err(other) => panic!("{other}"),
            }
        }
        Op::WriteHeld(hold, k, value) => {
            let at = store.clock().next();
            let mine = model.holder(KEYS[k]).is_none_or(|h| h == hold);
            let got = store.write_held(
                Hold::Move(hold),
                KEYS[k],
                value.as_ref().map(Value::borrow),
                at,
            );
            match value {
                Some(value) if mine => {
                    got.unwrap();
                    model.write(KEYS[k], value, None, at);
                }
                None if mine => {
                    got.unwrap();
                    model.remove(KEYS[k]);
                }
                _ => assert!(got.is_err() || !model.items.contains_key(KEYS[k])),
            }
        }
        Op::BeginCut(id) => {
            if model.cuts.contains_key(&id) {
                return;
            }
            let at = store.clock();
            store.begin_cut(id, at, &Pattern::all()).unwrap();
            let visible = model.items.iter();
            let visible = visible.filter(|(_, entry)| entry.expires.is_none_or(|ms| ms > at.ms()));
            let visible = visible
                .map(|(key, entry)| (key.clone(), entry.clone()))
                .collect();
            model.cuts.insert(id, (at, visible));
        }
        Op::EndCut(id) => assert_eq!(store.end_cut(id), model.cuts.remove(&id).is_some()),
        Op::Look => {
            let changes = store.changes();
            let keys: BTreeSet<String> = changes.iter().map(|change| change.key.clone()).collect();
            assert_eq!(keys.len(), changes.len(), "each key once");
            assert_eq!(keys, std::mem::take(&mut model.changed));
            for change in changes {
                let value = change.item.map(|item| item.value);
                assert_eq!(
                    value,
                    model.live(&change.key).map(|entry| entry.value.clone())
                );
            }
        }
    }
}

fn compare(store: &Store, handles: &[flowferry_estate::Handle], model: &Model) {
    for (k, key) in KEYS.iter().enumerate() {
        let entry = model.live(key);
        assert_eq!(
            store.get(key),
            entry.map(|entry| entry.value.clone()),
            "{key}"
        );
        assert_eq!(
            handles[k].get(),
            entry.map(|entry| entry.value.clone()),
            "{key}"
        );
        let item = store.get_item(key);
        assert_eq!(
            item.as_ref().map(|item| item.stamp),
            entry.map(|entry| entry.stamp)
        );
        assert_eq!(
            item.and_then(|item| item.expires),
            entry.and_then(|entry| entry.expires)
        );
    }
    let keys = store.keys(&Pattern::all(), None).unwrap();
    let keys: BTreeSet<&str> = keys.iter().map(String::as_str).collect();
    assert_eq!(
        keys,
        KEYS.into_iter()
            .filter(|key| model.live(key).is_some())
            .collect()
    );
    assert_eq!(store.memory().items, model.items.len());
    for (&id, (_, then)) in &model.cuts {
        let mut seen = Items::new();
        store
            .scan_cut(id, None, |item| {
                let entry = Entry {
                    value: item.value.to_value(),
                    expires: item.expires,
                    stamp: item.stamp,
                };
                assert!(
                    seen.insert(item.key.to_owned(), entry).is_none(),
                    "each item once"
                );
            })
            .unwrap();
        assert_eq!(&seen, then, "cut {id}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_store_is_a_map(ops in proptest::collection::vec(op(), 1..120)) {
        let store = Arc::new(Store::new(StoreOptions::named("n")));
        store.declare(Interest(1), Pattern::all());
        let mut model = Model { now_ms: 1_000_000, ..Model::default() };
        store.tick(model.now_ms);
        let handles: Vec<_> = KEYS.iter().map(|key| store.handle(key).unwrap()).collect();
        for op in ops {
            apply(op, &store, &handles, &mut model);
            compare(&store, &handles, &model);
        }
        drop(handles);
        for key in KEYS {
            for hold in 0..3 {
                store.thaw(Hold::Move(hold));
            }
            store.delete(key).unwrap();
        }
        prop_assert_eq!(store.memory().bytes, 0, "the books are balanced");
    }

    #[test]
    fn items_and_clocks_travel(key in ".{1,30}", value in value(), ms in 0..1_u64 << 47,
                               nodes in proptest::collection::btree_map("[a-z]{1,5}", any::<u64>(), 0..4)) {
        let mut clock = VectorClock::new();
        for (node, bits) in nodes {
            clock.record(node, Stamp::from_bits(bits));
        }
        let item = Item {
            key, value, stamp: Stamp::from_ms(ms), node: "n".into(),
            clock: (!clock.is_empty()).then_some(clock), expires: (ms % 2 == 1).then_some(ms),
        };
        let mut bytes = Vec::new();
        item.borrow().emit(&mut bytes);
        let mut reader = flowferry_estate::Reader::new(&bytes);
        prop_assert_eq!(Item::parse(&mut reader, "n".into()).unwrap(), item);
        prop_assert!(reader.end().is_ok());
        for cut in 0..bytes.len() {
            prop_assert!(Item::parse(&mut flowferry_estate::Reader::new(&bytes[..cut]), "n".into()).is_err());
        }
    }
}
