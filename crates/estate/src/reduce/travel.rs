//! Partials as they travel: reducer, state, and what belongs to it.

use super::Reducer;
use super::numbers::Total;
use super::partial::{Partial, State, Witness};
use super::sets::Set;
use crate::codec::{Malformed, Reader, put_bytes};
use crate::error::Error;
use crate::item::Item;
use crate::value::Value;
use crate::version::Stamp;
use std::collections::BTreeMap;
use std::sync::Arc;

const NOTHING: u8 = 0;
const FAILED: u8 = 1;
/// The state that goes with the reducer.
const GIVEN: u8 = 2;

impl Witness {
    fn emit(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.node.as_bytes());
        put_bytes(out, self.key.as_bytes());
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            node: reader.str("a partial's node")?.into(),
            key: reader.str("a partial's key")?.into(),
        })
    }
}

impl Partial {
    /// Appends the partial as it travels.
    ///
    /// # Panics
    /// If it has 4 Gi items or more.
    pub fn emit(&self, out: &mut Vec<u8>) {
        let count = |out: &mut Vec<u8>, n: usize| {
            let n = u32::try_from(n).expect("fewer than 4 Gi items");
            out.extend_from_slice(&n.to_be_bytes());
        };
        out.push(self.reducer as u8);
        out.push(match self.state {
            State::Nothing => NOTHING,
            State::Failed(_) => FAILED,
            _ => GIVEN,
        });
        match &self.state {
            State::Nothing => {}
            State::Failed(error) => match &**error {
                Error::Reduce { key, node, why, .. } => {
                    for text in [key, node, why] {
                        put_bytes(out, text.as_bytes());
                    }
                }
                other => {
                    for text in ["*", "*", other.to_string().as_str()] {
                        put_bytes(out, text.as_bytes());
                    }
                }
            },
            State::Count(count) => out.extend_from_slice(&count.to_be_bytes()),
            State::Flag(flag) => out.push(u8::from(*flag)),
            State::Number {
                total,
                count,
                witness,
            } => {
                match total {
                    Total::Int(sum) => {
                        out.push(0);
                        out.extend_from_slice(&sum.to_be_bytes());
                    }
                    Total::Float(sum) => {
                        out.push(1);
                        out.extend_from_slice(&sum.to_be_bytes());
                    }
                }
                out.extend_from_slice(&count.to_be_bytes());
                witness.emit(out);
            }
            State::Extreme { value, witness } => {
                value.emit(out);
                witness.emit(out);
            }
            State::Latest {
                stamp,
                witness,
                value,
            } => {
                out.extend_from_slice(&stamp.to_bits().to_be_bytes());
                witness.emit(out);
                value.emit(out);
            }
            State::Union { set, witness } => {
                match set {
                    Set::Lines(lines) => {
                        out.push(0);
                        count(out, lines.len());
                        for line in lines {
                            put_bytes(out, line.as_bytes());
                        }
                    }
                    Set::Int(bits) => {
                        out.push(1);
                        out.extend_from_slice(&bits.to_be_bytes());
                    }
                    Set::Bytes(bits) => {
                        out.push(2);
                        put_bytes(out, bits);
                    }
                }
                witness.emit(out);
            }
            State::Parts(parts) => {
                count(out, parts.len());
                for ((key, node), value) in parts {
                    put_bytes(out, key.as_bytes());
                    put_bytes(out, node.as_bytes());
                    value.emit(out);
                }
            }
            State::Items(items) => {
                count(out, items.len());
                // Runs of one node's items name it once.
                let mut node: Option<&Arc<str>> = None;
                for item in items {
                    let same = node == Some(&item.node);
                    out.push(u8::from(!same));
                    if !same {
                        put_bytes(out, item.node.as_bytes());
                        node = Some(&item.node);
                    }
                    item.borrow().emit(out);
                }
            }
        }
    }

    /// Reads what [`Partial::emit`] wrote.
    ///
    /// # Errors
    /// [`Malformed`] if it is cut short or no partial.
    pub fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let start = reader.offset();
        let number = reader.u8("a reducer")?;
        let reducer = Reducer::from_number(number)
            .ok_or_else(|| reader.fault(start, "a reducer", "it is none of 0 to 11"))?;
        let start = reader.offset();
        let state = match reader.u8("a partial's state")? {
            NOTHING => State::Nothing,
            FAILED => State::Failed(Box::new(Error::Reduce {
                reducer: reducer.name(),
                key: reader.str("an error's key")?.into(),
                node: reader.str("an error's node")?.into(),
                why: reader.str("an error's text")?.into(),
            })),
            GIVEN => state(reducer, reader)?,
            _ => return Err(reader.fault(start, "a partial's state", "it is none of 0 to 2")),
        };
        Ok(Self { reducer, state })
    }
}

fn state(reducer: Reducer, reader: &mut Reader<'_>) -> Result<State, Malformed> {
    let kind = |reader: &mut Reader<'_>, most: u8| {
        let start = reader.offset();
        match reader.u8("a partial's type")? {
            kind if kind <= most => Ok(kind),
            _ => Err(reader.fault(start, "a partial's type", "there is no such type")),
        }
    };
    Ok(match reducer {
        Reducer::Count => State::Count(reader.u64("a count")?),
        Reducer::Any | Reducer::All => State::Flag(kind(reader, 1)? == 1),
        Reducer::Sum | Reducer::Avg => {
            let total = if kind(reader, 1)? == 0 {
                Total::Int(i128::from_be_bytes(reader.array("a sum")?))
            } else {
                Total::Float(f64::from_be_bytes(reader.array("a sum")?))
            };
            let start = reader.offset();
            let count = reader.u64("a count")?;
            if count == 0 {
                return Err(reader.fault(start, "a count", "a sum has at least one item"));
            }
            State::Number {
                total,
                count,
                witness: Witness::parse(reader)?,
            }
        }
        Reducer::Min | Reducer::Max => State::Extreme {
            value: Value::parse(reader)?,
            witness: Witness::parse(reader)?,
        },
        Reducer::Latest => State::Latest {
            stamp: Stamp::from_bits(reader.u64("a stamp")?),
            witness: Witness::parse(reader)?,
            value: Value::parse(reader)?,
        },
        Reducer::Union => {
            let set = match kind(reader, 2)? {
                0 => {
                    let count = reader.u32("a number of lines")?;
                    let lines = (0..count).map(|_| reader.str("a line").map(Into::into));
                    Set::Lines(lines.collect::<Result<_, _>>()?)
                }
                1 => Set::Int(reader.i64("a set of bits")?),
                _ => Set::Bytes(reader.bytes("a set of bits")?.into()),
            };
            State::Union {
                set,
                witness: Witness::parse(reader)?,
            }
        }
        Reducer::Concat => {
            let mut parts = BTreeMap::new();
            let mut first = None;
            for _ in 0..reader.u32("a number of parts")? {
                let key = reader.str("a part's key")?.into();
                let node = reader.str("a part's node")?.into();
                let start = reader.offset();
                let value = Value::parse(reader)?;
                let kind = value.type_name();
                if !matches!(kind, "str" | "bytes") || *first.get_or_insert(kind) != kind {
                    return Err(reader.fault(start, "a part", "it is of another type"));
                }
                parts.insert((key, node), value);
            }
            State::Parts(parts)
        }
        Reducer::Causal | Reducer::Collect => {
            let count = reader.u32("a number of items")? as usize;
            // An item has 25 bytes at the least: a false count cannot make us reserve more than
            // a small multiple of what was sent.
            let mut items = Vec::with_capacity(count.min(reader.left() / 25));
            let mut node: Option<Arc<str>> = None;
            for _ in 0..count {
                if kind(reader, 1)? == 1 {
                    node = Some(reader.str("an item's node")?.into());
                }
                let start = reader.offset();
                let Some(node) = &node else {
                    return Err(reader.fault(start, "an item's node", "the first item has none"));
                };
                items.push(Item::parse(reader, node.clone())?);
            }
            State::Items(items)
        }
    })
}
