//! What one instance contributes to a global read.

use super::Reducer;
use super::causal;
use super::numbers::{self, Total};
use super::sets::{self, Set};
use crate::error::Error;
use crate::item::{Item, ItemRef};
use crate::value::{Value, ValueRef};
use crate::version::Stamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Some item that went into a partial, for errors.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Witness {
    pub node: Arc<str>,
    pub key: Box<str>,
}

/// The items of an instance, as far as a reducer is concerned. Merging is associative and
/// commutative.
#[derive(Clone, Debug, PartialEq)]
pub struct Partial {
    pub(super) reducer: Reducer,
    pub(super) state: State,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    /// No item so far.
    Nothing,
    /// Items that do not go together; swallows everything.
    Failed(Box<Error>),
    /// `count`.
    Count(u64),
    /// `any`, `all`.
    Flag(bool),
    /// `sum`, `avg`.
    Number {
        total: Total,
        count: u64,
        witness: Witness,
    },
    /// `min`, `max`.
    Extreme { value: Value, witness: Witness },
    /// `latest`: greatest by stamp, then node, then key.
    Latest {
        stamp: Stamp,
        witness: Witness,
        value: Value,
    },
    /// `union`.
    Union { set: Set, witness: Witness },
    /// `concat`, by key, then node. Invariant: all strs or all bytes.
    Parts(BTreeMap<(Box<str>, Arc<str>), Value>),
    /// `causal`, `collect`. Sorted when it matters.
    Items(Vec<Item>),
}

/// What a global read comes to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reduced {
    /// The value; none if there was no item, or for `collect`.
    pub value: Option<Value>,
    /// All items for `collect`, the siblings for `causal`, by key, then node; otherwise none.
    pub items: Vec<Item>,
}

impl Partial {
    /// No items.
    pub fn new(reducer: Reducer) -> Self {
        Self {
            reducer,
            state: State::Nothing,
        }
    }

    /// The reducer that it is of.
    pub fn reducer(&self) -> Reducer {
        self.reducer
    }

    /// Whether no item is in it.
    pub fn is_empty(&self) -> bool {
        matches!(self.state, State::Nothing)
    }

    /// Takes in an item that `node` holds.
    #[inline]
    pub fn add(&mut self, item: ItemRef<'_>, node: &Arc<str>) {
        // The frequent cases first: nothing is copied, nothing allocated.
        match (&mut self.state, item.value) {
            (State::Count(count), _) => *count += 1,
            (
                State::Number {
                    total: Total::Int(sum),
                    count,
                    ..
                },
                ValueRef::Int(number),
            ) => {
                *sum += i128::from(number);
                *count += 1;
            }
            (
                State::Number {
                    total: Total::Float(sum),
                    count,
                    ..
                },
                ValueRef::Float(number),
            ) => {
                *sum += number;
                *count += 1;
            }
            (State::Latest { stamp, .. }, _) if item.stamp < *stamp => {}
            (State::Extreme { value, .. }, _)
                if numbers::keeps(self.reducer, value.borrow(), item.value) => {}
            (State::Failed(_), _) => {}
            (State::Items(items), _) if self.reducer == Reducer::Collect => {
                items.push(item.to_item(node.clone()));
            }
            _ => self.merge(Self::of(self.reducer, item, node)),
        }
    }

    /// The partial of one item.
    fn of(reducer: Reducer, item: ItemRef<'_>, node: &Arc<str>) -> Self {
        let witness = Witness {
            node: node.clone(),
            key: item.key.into(),
        };
        let wrong = |wanted: &str| {
            State::Failed(Box::new(Error::Reduce {
                reducer: reducer.name(),
                key: item.key.to_owned(),
                node: node.to_string(),
                why: format!("is {}, it needs {wanted}", article(item.value.type_name())),
            }))
        };
        let truth = |value| match value {
            ValueRef::Int(number) => number != 0,
            ValueRef::Float(number) => number != 0.0,
            other => other.len() != 0,
        };
        let state = match reducer {
            Reducer::Count => State::Count(1),
            Reducer::Any | Reducer::All => State::Flag(truth(item.value)),
            Reducer::Sum | Reducer::Avg => match Total::of(item.value) {
                Some(total) => State::Number {
                    total,
                    count: 1,
                    witness,
                },
                None => wrong("ints or floats"),
            },
            Reducer::Min | Reducer::Max => State::Extreme {
                value: item.value.to_value(),
                witness,
            },
            Reducer::Latest => State::Latest {
                stamp: item.stamp,
                witness,
                value: item.value.to_value(),
            },
            Reducer::Union => match Set::of(item.value) {
                Some(set) => State::Union { set, witness },
                None => wrong("strs (lines), ints or bytes (bits)"),
            },
            Reducer::Concat => match item.value {
                ValueRef::Str(_) | ValueRef::Bytes(_) => State::Parts(BTreeMap::from([(
                    (witness.key, witness.node),
                    item.value.to_value(),
                )])),
                _ => wrong("strs or bytes"),
            },
            Reducer::Causal | Reducer::Collect => State::Items(vec![item.to_item(node.clone())]),
        };
        Self { reducer, state }
    }

    /// Takes in another partial of the same reducer; one of another reducer is refused.
    pub fn merge(&mut self, other: Self) {
        use State::{Count, Extreme, Failed, Flag, Items, Latest, Nothing, Number, Parts, Union};
        let reducer = self.reducer;
        self.state = match (std::mem::replace(&mut self.state, Nothing), other.state) {
            (Failed(a), Failed(b)) => Failed(if a.to_string() <= b.to_string() { a } else { b }),
            (failed @ Failed(_), _) | (_, failed @ Failed(_)) => failed,
            (state, Nothing) | (Nothing, state) => state,
            (Count(a), Count(b)) => Count(a.saturating_add(b)),
            (Flag(a), Flag(b)) if reducer == Reducer::Any => Flag(a | b),
            (Flag(a), Flag(b)) => Flag(a & b),
            (
                Number {
                    total,
                    count,
                    witness,
                },
                Number {
                    total: more,
                    count: n,
                    witness: w,
                },
            ) => match total.plus(more) {
                Some(total) => Number {
                    total,
                    count: count.saturating_add(n),
                    witness: witness.min(w),
                },
                None => mixed(reducer, (total.type_name(), witness), (more.type_name(), w)),
            },
            (
                Extreme { value, witness },
                Extreme {
                    value: other,
                    witness: w,
                },
            ) => {
                if value.type_name() == other.type_name() {
                    let keep = numbers::keeps(reducer, value.borrow(), other.borrow());
                    Extreme {
                        value: if keep { value } else { other },
                        witness: witness.min(w),
                    }
                } else {
                    mixed(
                        reducer,
                        (value.type_name(), witness),
                        (other.type_name(), w),
                    )
                }
            }
            (
                Latest {
                    stamp,
                    witness,
                    value,
                },
                Latest {
                    stamp: t,
                    witness: w,
                    value: v,
                },
            ) => {
                if (stamp, &witness) >= (t, &w) {
                    Latest {
                        stamp,
                        witness,
                        value,
                    }
                } else {
                    Latest {
                        stamp: t,
                        witness: w,
                        value: v,
                    }
                }
            }
            (
                Union { set, witness },
                Union {
                    set: other,
                    witness: w,
                },
            ) => {
                let types = (set.type_name(), other.type_name());
                match set.with(other) {
                    Some(set) => Union {
                        set,
                        witness: witness.min(w),
                    },
                    None => mixed(reducer, (types.0, witness), (types.1, w)),
                }
            }
            (Parts(a), Parts(b)) => sets::joined(reducer, a, b),
            (Items(a), Items(b)) if reducer == Reducer::Causal => Items(causal::merged(a, b)),
            (Items(mut a), Items(b)) => {
                a.extend(b);
                Items(a)
            }
            // Unreachable through the codec, which knows what states a reducer has.
            _ => Failed(Box::new(Error::Reduce {
                reducer: reducer.name(),
                key: "*".into(),
                node: "*".into(),
                why: "came with the partial of another reducer".into(),
            })),
        };
    }

    /// What it comes to.
    ///
    /// # Errors
    /// [`Error::Reduce`] if the items do not go together or an int sum leaves i64.
    pub fn finish(self) -> Result<Reduced, Error> {
        let value = |value| {
            Ok(Reduced {
                value: Some(value),
                items: Vec::new(),
            })
        };
        match self.state {
            State::Nothing if self.reducer == Reducer::Count => value(Value::Int(0)),
            State::Nothing => Ok(Reduced::default()),
            State::Failed(error) => Err(*error),
            State::Count(count) => value(Value::Int(i64::try_from(count).unwrap_or(i64::MAX))),
            State::Flag(flag) => value(Value::Int(i64::from(flag))),
            State::Number {
                total,
                count,
                witness,
            } => value(total.finish(self.reducer, count, &witness)?),
            State::Extreme { value: v, .. } | State::Latest { value: v, .. } => value(v),
            State::Union { set, .. } => value(set.finish()),
            State::Parts(parts) => value(sets::concatenated(parts)),
            State::Items(mut items) => {
                items.sort_by(|a, b| (&a.key, &a.node, a.stamp).cmp(&(&b.key, &b.node, b.stamp)));
                let value = match self.reducer {
                    Reducer::Causal => causal::winner(&items),
                    _ => None,
                };
                Ok(Reduced { value, items })
            }
        }
    }
}

pub(super) fn mixed(
    reducer: Reducer,
    (found, at): (&str, Witness),
    (other, elsewhere): (&str, Witness),
) -> State {
    // Whichever side comes first, the same error.
    let ((found, at), (other, elsewhere)) = if at <= elsewhere {
        ((found, at), (other, elsewhere))
    } else {
        ((other, elsewhere), (found, at))
    };
    State::Failed(Box::new(Error::Reduce {
        reducer: reducer.name(),
        key: at.key.into_string(),
        node: at.node.to_string(),
        why: format!(
            "is {}, but key {:?} on node {} is {}: write one type only, or narrow the pattern",
            article(found),
            elsewhere.key,
            elsewhere.node,
            article(other)
        ),
    }))
}

fn article(name: &str) -> String {
    match name {
        "int" => "an int".into(),
        "bytes" => "bytes".into(),
        other => format!("a {other}"),
    }
}
