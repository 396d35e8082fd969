//! Values: bytes, text, i64 or f64. A clone of a big one costs a reference count.

use crate::codec::{Malformed, Reader, put_bytes};
use std::sync::Arc;

/// What an item holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any bytes.
    Bytes(Arc<[u8]>),
    /// UTF-8.
    Str(Arc<str>),
    /// A whole number.
    Int(i64),
    /// A float.
    Float(f64),
}

/// A value that lives somewhere else.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// Any bytes.
    Bytes(&'a [u8]),
    /// UTF-8.
    Str(&'a str),
    /// A whole number.
    Int(i64),
    /// A float.
    Float(f64),
}

const BYTES: u8 = 0;
const STR: u8 = 1;
const INT: u8 = 2;
const FLOAT: u8 = 3;

impl Value {
    /// The value, borrowed.
    #[inline]
    pub fn borrow(&self) -> ValueRef<'_> {
        match self {
            Self::Bytes(bytes) => ValueRef::Bytes(bytes),
            Self::Str(text) => ValueRef::Str(text),
            Self::Int(number) => ValueRef::Int(*number),
            Self::Float(number) => ValueRef::Float(*number),
        }
    }

    /// Name of the type, as errors give it.
    pub fn type_name(&self) -> &'static str {
        self.borrow().type_name()
    }

    /// Appends the value as it travels: a type byte, then a length and bytes, or eight bytes.
    pub fn emit(&self, out: &mut Vec<u8>) {
        self.borrow().emit(out);
    }

    /// Reads what [`Value::emit`] wrote.
    ///
    /// # Errors
    /// [`Malformed`] if it is cut short, of an unknown type, or text that is not UTF-8.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        ValueRef::parse(reader).map(ValueRef::to_value)
    }
}

impl<'a> ValueRef<'a> {
    /// Name of the type, as errors give it.
    pub fn type_name(self) -> &'static str {
        match self {
            Self::Bytes(_) => "bytes",
            Self::Str(_) => "str",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
        }
    }

    /// Bytes that the value itself takes: the length, or eight for a number.
    #[allow(clippy::len_without_is_empty)] // an empty value is a value
    #[inline]
    pub fn len(self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Str(text) => text.len(),
            Self::Int(_) | Self::Float(_) => 8,
        }
    }

    /// A value of one's own.
    pub fn to_value(self) -> Value {
        match self {
            Self::Bytes(bytes) => Value::Bytes(bytes.into()),
            Self::Str(text) => Value::Str(text.into()),
            Self::Int(number) => Value::Int(number),
            Self::Float(number) => Value::Float(number),
        }
    }

    /// See [`Value::emit`].
    pub fn emit(self, out: &mut Vec<u8>) {
        match self {
            Self::Bytes(bytes) => {
                out.push(BYTES);
                put_bytes(out, bytes);
            }
            Self::Str(text) => {
                out.push(STR);
                put_bytes(out, text.as_bytes());
            }
            Self::Int(number) => {
                out.push(INT);
                out.extend_from_slice(&number.to_be_bytes());
            }
            Self::Float(number) => {
                out.push(FLOAT);
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
    }

    /// See [`Value::parse`]; bytes and text stay where they are.
    ///
    /// # Errors
    /// [`Malformed`] if it is cut short, of an unknown type, or text that is not UTF-8.
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, Malformed> {
        let start = reader.offset();
        Ok(match reader.u8("a value's type")? {
            BYTES => Self::Bytes(reader.bytes("a value")?),
            STR => Self::Str(reader.str("a value")?),
            INT => Self::Int(reader.i64("a value")?),
            FLOAT => Self::Float(f64::from_bits(reader.u64("a value")?)),
            _ => return Err(reader.fault(start, "a value's type", "it is none of 0 to 3")),
        })
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Str(text.into())
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl<const N: usize> From<&[u8; N]> for Value {
    fn from(bytes: &[u8; N]) -> Self {
        Self::Bytes(bytes.as_slice().into())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}
