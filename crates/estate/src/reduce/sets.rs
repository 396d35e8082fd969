//! Unions, and runs of text and bytes.

use super::Reducer;
use super::partial::{State, Witness, mixed};
use crate::value::{Value, ValueRef};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A value taken as a set.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Set {
    /// The lines of a str.
    Lines(BTreeSet<Box<str>>),
    /// The bits of an int.
    Int(i64),
    /// The bits of bytes (a Bloom filter, a map of ports); the longest counts.
    Bytes(Vec<u8>),
}

impl Set {
    pub fn of(value: ValueRef<'_>) -> Option<Self> {
        match value {
            ValueRef::Str(text) => Some(Self::Lines(text.lines().map(Into::into).collect())),
            ValueRef::Int(bits) => Some(Self::Int(bits)),
            ValueRef::Bytes(bits) => Some(Self::Bytes(bits.into())),
            ValueRef::Float(_) => None,
        }
    }

    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Lines(_) => "str",
            Self::Int(_) => "int",
            Self::Bytes(_) => "bytes",
        }
    }

    /// None for different types.
    pub fn with(self, other: Self) -> Option<Self> {
        match (self, other) {
            (Self::Lines(mut a), Self::Lines(b)) => {
                a.extend(b);
                Some(Self::Lines(a))
            }
            (Self::Int(a), Self::Int(b)) => Some(Self::Int(a | b)),
            (Self::Bytes(a), Self::Bytes(b)) => {
                let (mut long, short) = if a.len() >= b.len() { (a, b) } else { (b, a) };
                for (byte, more) in long.iter_mut().zip(short) {
                    *byte |= more;
                }
                Some(Self::Bytes(long))
            }
            _ => None,
        }
    }

    pub fn finish(self) -> Value {
        match self {
            Self::Lines(lines) => {
                let lines: Vec<&str> = lines.iter().map(|line| &**line).collect();
                Value::from(lines.join("\n"))
            }
            Self::Int(bits) => Value::Int(bits),
            Self::Bytes(bits) => Value::from(bits),
        }
    }
}

type Parts = BTreeMap<(Box<str>, Arc<str>), Value>;

/// Both, if they are of one type.
pub(super) fn joined(reducer: Reducer, mut a: Parts, b: Parts) -> State {
    let kind = |parts: &Parts| {
        parts.first_key_value().map(|((key, node), value)| {
            let (key, node) = (key.clone(), node.clone());
            (value.type_name(), Witness { node, key })
        })
    };
    if let (Some(one), Some(other)) = (kind(&a), kind(&b))
        && one.0 != other.0
    {
        return mixed(reducer, one, other);
    }
    a.extend(b);
    State::Parts(a)
}

/// One value of all.
pub(super) fn concatenated(parts: Parts) -> Value {
    let mut bytes = Vec::new();
    let mut text = String::new();
    let mut is_text = false;
    for value in parts.values() {
        match value.borrow() {
            ValueRef::Str(part) => {
                is_text = true;
                text.push_str(part);
            }
            ValueRef::Bytes(part) => bytes.extend_from_slice(part),
            ValueRef::Int(_) | ValueRef::Float(_) => {}
        }
    }
    if is_text {
        Value::from(text)
    } else {
        Value::from(bytes)
    }
}
