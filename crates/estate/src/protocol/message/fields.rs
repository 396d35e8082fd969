//! What messages are made of: numbers, texts, durations, stamps, moves and selections.

use super::Move;
use crate::codec::{Malformed, Reader, put_bytes};
use crate::flow::FlowKey;
use crate::key::Key;
use crate::reduce::Reducer;
use crate::store::Selection;
use crate::version::Stamp;
use std::time::Duration;

pub(super) fn put_duration(out: &mut Vec<u8>, duration: Duration) {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    out.extend_from_slice(&nanos.to_be_bytes());
}

pub(super) fn duration(reader: &mut Reader<'_>) -> Result<Duration, Malformed> {
    reader.u64("a duration").map(Duration::from_nanos)
}

pub(super) fn put_stamp(out: &mut Vec<u8>, stamp: Option<Stamp>) {
    out.extend_from_slice(&stamp.unwrap_or_default().to_bits().to_be_bytes());
}

/// No event has stamp 0, so it stands for none.
pub(super) fn stamp(reader: &mut Reader<'_>) -> Result<Option<Stamp>, Malformed> {
    let bits = reader.u64("a stamp")?;
    Ok((bits != 0).then(|| Stamp::from_bits(bits)))
}

pub(super) fn put_texts<T: AsRef<str>>(out: &mut Vec<u8>, texts: &[T]) {
    put_count(out, texts.len());
    for text in texts {
        put_bytes(out, text.as_ref().as_bytes());
    }
}

pub(super) fn texts(reader: &mut Reader<'_>) -> Result<Vec<String>, Malformed> {
    let count = reader.u32("a number of names")? as usize;
    let mut texts = Vec::with_capacity(count.min(reader.left() / 4));
    for _ in 0..count {
        texts.push(reader.str("a name")?.to_owned());
    }
    Ok(texts)
}

pub(super) fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("fewer than 4 Gi of anything");
    out.extend_from_slice(&count.to_be_bytes());
}

impl Move {
    pub(super) fn emit(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(&self.attempt.to_be_bytes());
    }

    pub(super) fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: reader.u64("a move")?,
            attempt: reader.u32("an attempt")?,
        })
    }
}

pub(super) fn put_selection(out: &mut Vec<u8>, selection: &Selection) {
    match selection {
        Selection::Keys(keys) => {
            out.push(0);
            put_texts(out, keys);
        }
        Selection::Flows(flows) => {
            out.push(1);
            put_count(out, flows.len());
            for flow in flows {
                put_bytes(out, flow.as_str().as_bytes());
            }
        }
    }
}

pub(super) fn selection(reader: &mut Reader<'_>) -> Result<Selection, Malformed> {
    let start = reader.offset();
    let kind = reader.u8("a selection")?;
    let names = texts(reader)?;
    match kind {
        0 if names.iter().all(|key| Key::new(key).is_ok()) => Ok(Selection::Keys(names)),
        0 => Err(reader.fault(start, "a selection", "a key's length is not 1 to 1,024")),
        1 => names
            .iter()
            .map(|name| FlowKey::from_scope(name))
            .collect::<Option<_>>()
            .map(Selection::Flows)
            .ok_or_else(|| reader.fault(start, "a selection", "a flow's name is none")),
        _ => Err(reader.fault(start, "a selection", "it is none of 0 and 1")),
    }
}

pub(super) fn reducer(reader: &mut Reader<'_>) -> Result<Reducer, Malformed> {
    let start = reader.offset();
    let number = reader.u8("a reducer")?;
    Reducer::from_number(number)
        .ok_or_else(|| reader.fault(start, "a reducer", "it is none of 0 to 11"))
}

/// One byte that must be 0 or 1, so that a message has one form only.
pub(super) fn flag(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    let start = reader.offset();
    match reader.u8("a flag")? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.fault(start, "a flag", "it is neither 0 nor 1")),
    }
}
