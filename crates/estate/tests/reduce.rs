//! Reducers: partials merge in any order and grouping with the same result, on both sides of the
//! wire.

use flowferry_estate::reduce::{Partial, Reducer};
use flowferry_estate::{Error, Item, Reader, Stamp, Value, VectorClock};
use proptest::prelude::*;
use std::sync::Arc;

/// Whole floats add up exactly in any order.
fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => any::<i64>().prop_map(Value::Int),
        1 => any::<i32>().prop_map(|n| Value::Float(f64::from(n))),
        1 => "[a-c\n]{0,4}".prop_map(Value::from),
        1 => proptest::collection::vec(any::<u8>(), 0..4).prop_map(Value::from),
    ]
}

fn same_type() -> impl Strategy<Value = Vec<Value>> {
    prop_oneof![
        proptest::collection::vec((-1000_i64..1000).prop_map(Value::Int), 0..12),
        proptest::collection::vec(any::<i32>().prop_map(|n| Value::Float(n.into())), 0..12),
        proptest::collection::vec("[a-c\n]{0,4}".prop_map(Value::from), 0..12),
        proptest::collection::vec(value(), 0..6),
    ]
}

/// Items of several nodes; each (key, node) once, as in a cluster.
fn items() -> impl Strategy<Value = Vec<Item>> {
    (same_type(), any::<u64>()).prop_map(|(values, seed)| {
        let item = |(index, value): (usize, Value)| {
            let node: Arc<str> = ["a", "b", "c"][index % 3].into();
            let mut clock = VectorClock::new();
            if (seed >> index) & 1 == 1 {
                clock.record("a", Stamp::from_bits(1 + (seed >> 8) % 7));
            }
            Item {
                key: format!("k{}", index / 3),
                value,
                stamp: Stamp::from_bits(1 + (seed >> (index * 3)) % 5),
                clock: (!clock.is_empty()).then_some(clock),
                node,
                expires: None,
            }
        };
        values.into_iter().enumerate().map(item).collect()
    })
}

fn of<'a>(reducer: Reducer, items: impl IntoIterator<Item = &'a Item>) -> Partial {
    let mut partial = Partial::new(reducer);
    for item in items {
        partial.add(item.borrow(), &item.node);
    }
    partial
}

fn travelled(partial: &Partial) -> Partial {
    let mut bytes = Vec::new();
    partial.emit(&mut bytes);
    let mut reader = Reader::new(&bytes);
    let read = Partial::parse(&mut reader).unwrap();
    reader.end().unwrap();
    // Nothing of it may be missing, and it must have one form.
    let mut again = Vec::new();
    read.emit(&mut again);
    assert_eq!(bytes, again);
    for cut in 0..bytes.len() {
        assert!(Partial::parse(&mut Reader::new(&bytes[..cut])).is_err());
    }
    read
}

/// Errors are equal if they are errors: which of several is reported may differ.
fn outcome(partial: Partial) -> Result<(Option<Value>, Vec<Item>), ()> {
    partial
        .finish()
        .map(|reduced| (reduced.value, reduced.items))
        .map_err(|_| ())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_grouping_gives_the_same(
        items in items(), split in 0_usize..12, turn in 0_usize..12,
    ) {
        for reducer in Reducer::ALL {
            let whole = outcome(of(reducer, &items));
            let split = split.min(items.len());
            let (one, other) = items.split_at(split);
            let mut forth = of(reducer, one);
            forth.merge(travelled(&of(reducer, other)));
            let mut back = of(reducer, other);
            back.merge(of(reducer, one));
            prop_assert_eq!(&outcome(forth), &whole, "{}", reducer);
            prop_assert_eq!(&outcome(back), &whole, "{} merged backwards", reducer);
            let mut turned = items.clone();
            turned.rotate_left(turn.min(items.len()));
            prop_assert_eq!(&outcome(of(reducer, &turned)), &whole, "{} turned", reducer);
            // (a b) c = a (b c)
            let third = items.len() / 3;
            let parts: Vec<Partial> = [&items[..third], &items[third..2 * third], &items[2 * third..]]
                .iter().map(|part| of(reducer, part.iter())).collect();
            let mut left = parts[0].clone();
            left.merge(parts[1].clone());
            left.merge(parts[2].clone());
            let mut right = parts[1].clone();
            right.merge(parts[2].clone());
            let mut first = parts[0].clone();
            first.merge(right);
            prop_assert_eq!(outcome(left), outcome(first), "{} grouped", reducer);
        }
    }

    #[test]
    fn any_bytes_are_a_partial_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(partial) = Partial::parse(&mut Reader::new(&bytes)) {
            let _ = travelled(&partial).finish();
        }
    }
}

fn item(node: &str, key: &str, value: impl Into<Value>, stamp: u64) -> Item {
    Item {
        key: key.into(),
        value: value.into(),
        stamp: Stamp::from_bits(stamp),
        clock: None,
        node: node.into(),
        expires: None,
    }
}

fn reduced(reducer: Reducer, items: &[Item]) -> Result<Option<Value>, Error> {
    of(reducer, items).finish().map(|reduced| reduced.value)
}

#[test]
fn each_does_what_its_name_says() {
    let numbers = [
        item("a", "n", 4_i64, 3),
        item("b", "n", -1_i64, 9),
        item("c", "n", 0_i64, 1),
    ];
    let expected = [
        (Reducer::Latest, Some(Value::Int(-1))),
        (Reducer::Sum, Some(Value::Int(3))),
        (Reducer::Avg, Some(Value::Float(1.0))),
        (Reducer::Min, Some(Value::Int(-1))),
        (Reducer::Max, Some(Value::Int(4))),
        (Reducer::Count, Some(Value::Int(3))),
        (Reducer::Any, Some(Value::Int(1))),
        (Reducer::All, Some(Value::Int(0))),
        (Reducer::Union, Some(Value::Int(-1))),
        (Reducer::Collect, None),
    ];
    for (reducer, value) in expected {
        assert_eq!(reduced(reducer, &numbers).unwrap(), value, "{reducer}");
    }
    let texts = [item("b", "t", "x\ny", 1), item("a", "t", "z\nx", 2)];
    assert_eq!(
        reduced(Reducer::Union, &texts).unwrap(),
        Some("x\ny\nz".into())
    );
    assert_eq!(
        reduced(Reducer::Concat, &texts).unwrap(),
        Some("z\nxx\ny".into())
    );
    assert_eq!(reduced(Reducer::Concat, &[]).unwrap(), None);
    assert_eq!(Reducer::named("sum").unwrap(), Reducer::Sum);
    let error = Reducer::named("median").unwrap_err().to_string();
    assert!(
        error.contains("median") && error.contains("latest"),
        "{error}"
    );
}

#[test]
fn a_sum_beyond_i64_is_an_error_that_names_a_key() {
    let items = [item("a", "big", i64::MAX, 1), item("b", "big", 1_i64, 1)];
    let error = reduced(Reducer::Sum, &items).unwrap_err().to_string();
    for part in ["sum", "\"big\"", "node a", "i64"] {
        assert!(error.contains(part), "{error}");
    }
    // On the way there it may leave it and come back.
    let items = [
        item("a", "n", i64::MAX, 1),
        item("b", "n", 1_i64, 1),
        item("c", "n", -9_i64, 1),
    ];
    assert_eq!(
        reduced(Reducer::Sum, &items).unwrap(),
        Some(Value::Int(i64::MAX - 8))
    );
}

#[test]
fn causal_keeps_what_nobody_has_seen() {
    let old = item("a", "k", 1_i64, 10);
    let mut seen = item("b", "k", 2_i64, 5);
    seen.clock = Some(old.history());
    let sibling = item("c", "k", 3_i64, 7);
    let result = of(Reducer::Causal, [&old, &seen, &sibling])
        .finish()
        .unwrap();
    let nodes: Vec<&str> = result.items.iter().map(|item| &*item.node).collect();
    assert_eq!(
        nodes,
        ["b", "c"],
        "b has seen a; c and b know nothing of each other"
    );
    assert_eq!(result.value, Some(Value::Int(3)));
}
