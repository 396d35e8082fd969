//! A value on its way into a record.

use super::record::{INLINE_MAX, Kind};
use crate::value::{Value, ValueRef};
use std::sync::Arc;

/// See above: what is long is copied before a lock is taken.
#[derive(Clone)]
pub(super) enum Source<'a> {
    /// At most [`INLINE_MAX`] bytes, or a number.
    Small(ValueRef<'a>),
    /// Bytes or text (by kind) that are shared already, so that no lock is held while they are
    /// copied.
    Big(Kind, Arc<[u8]>),
}

impl<'a> Source<'a> {
    pub fn from_ref(value: ValueRef<'a>) -> Self {
        match value {
            ValueRef::Bytes(bytes) if bytes.len() > INLINE_MAX => {
                Self::Big(Kind::Bytes, bytes.into())
            }
            ValueRef::Str(text) if text.len() > INLINE_MAX => {
                Self::Big(Kind::Str, text.as_bytes().into())
            }
            small => Self::Small(small),
        }
    }

    pub fn from_value(value: &'a Value) -> Self {
        match value {
            Value::Bytes(bytes) if bytes.len() > INLINE_MAX => {
                Self::Big(Kind::Bytes, Arc::clone(bytes))
            }
            Value::Str(text) if text.len() > INLINE_MAX => {
                Self::Big(Kind::Str, Arc::clone(text).into())
            }
            small => Self::Small(small.borrow()),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Small(value) => value.len(),
            Self::Big(_, bytes) => bytes.len(),
        }
    }
}
