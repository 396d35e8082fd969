//! `causal`: what nobody has seen and written over (E-State §III-A.2, Lamport 1978).

use crate::item::Item;
use crate::value::Value;
use crate::version::Causality;

/// The items of both that no other item of the same key knows. Invariant of both arguments and of
/// the result: no two of a key are ordered. Sorted, so that equal sets are equal lists.
pub(super) fn merged(a: Vec<Item>, b: Vec<Item>) -> Vec<Item> {
    let mut kept = a;
    for item in b {
        let history = item.history();
        let mut known = false;
        kept.retain(|other| {
            if other.key != item.key {
                return true;
            }
            match other.history().compare(&history) {
                Causality::Before => false,
                Causality::Equal => {
                    known |= other.node == item.node;
                    true
                }
                Causality::After => {
                    known = true;
                    true
                }
                Causality::Concurrent => true,
            }
        });
        if !known {
            kept.push(item);
        }
    }
    kept.sort_by(|a, b| (&a.key, &a.node, a.stamp).cmp(&(&b.key, &b.node, b.stamp)));
    kept
}

/// The value of the sibling that was written last.
pub(super) fn winner(siblings: &[Item]) -> Option<Value> {
    siblings
        .iter()
        .max_by(|a, b| (a.stamp, &a.node, &a.key).cmp(&(b.stamp, &b.node, &b.key)))
        .map(|item| item.value.clone())
}
