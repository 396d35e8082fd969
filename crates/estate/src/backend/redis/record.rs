//! An item as one string in a Redis.
//!
//! ```text
//! 0      type: b, s, i, f
//! 1..9   stamp        9..17  expiry, milliseconds since 1970 (0: none)
//! 17..21 length of the clock, then the clock (`VectorClock::emit`; nothing if there is none)
//! ..     the value: bytes as they are; an int in decimal digits, for INCRBY; a float's eight bytes
//! ```

use crate::codec::Reader;
use crate::item::Item;
use crate::value::{Value, ValueRef};
use crate::version::{Stamp, VectorClock};
use std::sync::Arc;

/// Bytes before the clock.
const HEAD: usize = 21;

/// What a type byte stands for, as errors name it.
pub(super) fn type_name(sign: u8) -> &'static str {
    match sign {
        b'b' => "bytes",
        b's' => "str",
        b'i' => "int",
        b'f' => "float",
        _ => "something else",
    }
}

pub(super) fn emit(
    value: ValueRef<'_>,
    stamp: Stamp,
    expires: Option<u64>,
    clock: Option<&VectorClock>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + value.len() + 12);
    out.push(value.type_name().as_bytes()[0]);
    out.extend_from_slice(&stamp.to_bits().to_be_bytes());
    out.extend_from_slice(&expires.unwrap_or(0).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    if let Some(clock) = clock {
        clock.emit(&mut out);
        let length = u32::try_from(out.len() - HEAD).expect("a clock is short");
        out[17..HEAD].copy_from_slice(&length.to_be_bytes());
    }
    match value {
        ValueRef::Bytes(bytes) => out.extend_from_slice(bytes),
        ValueRef::Str(text) => out.extend_from_slice(text.as_bytes()),
        ValueRef::Int(number) => out.extend_from_slice(number.to_string().as_bytes()),
        ValueRef::Float(number) => out.extend_from_slice(&number.to_bits().to_be_bytes()),
    }
    out
}

/// Reads what [`emit`] wrote; none if it is no item.
pub(super) fn parse(key: &str, node: Arc<str>, bytes: &[u8]) -> Option<Item> {
    let (head, rest) = bytes.split_at_checked(HEAD)?;
    let number = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().expect("eight bytes"));
    let length = u32::from_be_bytes(head[17..HEAD].try_into().expect("four bytes"));
    let (clock, value) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    let clock = match clock {
        [] => None,
        bytes => Some(VectorClock::parse(&mut Reader::new(bytes)).ok()?),
    };
    let text = || std::str::from_utf8(value).ok();
    Some(Item {
        key: key.to_owned(),
        value: match head[0] {
            b'b' => Value::Bytes(value.into()),
            b's' => Value::Str(text()?.into()),
            b'i' => Value::Int(text()?.parse().ok()?),
            b'f' => Value::Float(f64::from_bits(u64::from_be_bytes(value.try_into().ok()?))),
            _ => return None,
        },
        stamp: Stamp::from_bits(number(1)),
        clock,
        node,
        expires: Some(number(9)).filter(|&ms| ms != 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<i64>().prop_map(Value::Int),
            (-1e300..1e300).prop_map(Value::Float),
            ".*".prop_map(Value::from),
            any::<Vec<u8>>().prop_map(Value::from),
        ]
    }

    proptest! {
        #[test]
        fn an_item_comes_back(
            value in value(), bits: u64, expires in proptest::option::of(1_u64..), seen in 0..3_u64
        ) {
            let mut clock = VectorClock::new();
            for n in 0..seen {
                clock.record(format!("n{n}"), Stamp::from_bits(n + 1));
            }
            let clock = (seen > 0).then_some(clock);
            let stamp = Stamp::from_bits(bits);
            let bytes = emit(value.borrow(), stamp, expires, clock.as_ref());
            let node: Arc<str> = "n".into();
            let back = Item { key: "k".into(), value, stamp, clock, node: node.clone(), expires };
            prop_assert_eq!(parse("k", node, &bytes), Some(back));
        }

        #[test]
        fn foreign_bytes_are_no_item_and_no_panic(bytes: Vec<u8>) {
            let _ = parse("k", "n".into(), &bytes);
        }
    }
}
