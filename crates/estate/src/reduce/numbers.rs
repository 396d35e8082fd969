//! Sums and extremes.

use super::Reducer;
use super::partial::Witness;
use crate::error::Error;
use crate::value::{Value, ValueRef};
use std::cmp::Ordering;

/// A sum under way. Ints add up in 128 bits, which 2^64 of them cannot overflow: whether a sum
/// fits i64 is asked once, at the end, so the order of partials cannot matter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Total {
    Int(i128),
    Float(f64),
}

impl Total {
    pub fn of(value: ValueRef<'_>) -> Option<Self> {
        match value {
            ValueRef::Int(number) => Some(Self::Int(i128::from(number))),
            ValueRef::Float(number) => Some(Self::Float(number)),
            _ => None,
        }
    }

    pub fn type_name(self) -> &'static str {
        match self {
            Self::Int(_) => "int",
            Self::Float(_) => "float",
        }
    }

    /// None for different types.
    pub fn plus(self, other: Self) -> Option<Self> {
        match (self, other) {
            // A sender may claim any total; ours never come near the edge.
            (Self::Int(a), Self::Int(b)) => Some(Self::Int(a.saturating_add(b))),
            (Self::Float(a), Self::Float(b)) => Some(Self::Float(a + b)),
            _ => None,
        }
    }

    #[allow(clippy::cast_precision_loss)] // a mean is a float
    pub fn finish(self, reducer: Reducer, count: u64, witness: &Witness) -> Result<Value, Error> {
        match (self, reducer) {
            (Self::Int(sum), Reducer::Avg) => Ok(Value::Float(sum as f64 / count.max(1) as f64)),
            (Self::Float(sum), Reducer::Avg) => Ok(Value::Float(sum / count.max(1) as f64)),
            (Self::Float(sum), _) => Ok(Value::Float(sum)),
            (Self::Int(sum), _) => i64::try_from(sum)
                .map(Value::Int)
                .map_err(|_| Error::Reduce {
                    reducer: reducer.name(),
                    key: witness.key.to_string(),
                    node: witness.node.to_string(),
                    why: format!(
                        "and {} more come to {sum}, which leaves the range of i64: store floats",
                        count - 1
                    ),
                }),
        }
    }
}

/// Whether `kept` stays when `other` comes; no, if the types differ, for then the merge decides.
/// Floats are ordered totally (IEEE 754 §5.10), so NaN cannot make it depend
/// on the order.
#[inline]
pub(super) fn keeps(reducer: Reducer, kept: ValueRef<'_>, other: ValueRef<'_>) -> bool {
    let order = match (kept, other) {
        (ValueRef::Int(a), ValueRef::Int(b)) => a.cmp(&b),
        (ValueRef::Float(a), ValueRef::Float(b)) => a.total_cmp(&b),
        (ValueRef::Str(a), ValueRef::Str(b)) => a.cmp(b),
        (ValueRef::Bytes(a), ValueRef::Bytes(b)) => a.cmp(b),
        _ => return false,
    };
    match reducer {
        Reducer::Min => order != Ordering::Greater,
        _ => order != Ordering::Less,
    }
}
