//! Moves: taking, giving up, deciding without a member that is lost.

use super::input::{one, string, text};
use super::status::{Failure, Outcome, Result, run};
use super::types::{CEstate, CText};
use crate::flow::FlowKey;
use crate::store::Selection;
use std::ffi::{c_char, c_int};

/// # Safety
/// `texts` points to `count` texts.
unsafe fn texts<'a>(
    texts: *const CText,
    count: usize,
) -> std::result::Result<Vec<&'a str>, Failure> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if texts.is_null() {
        return Err(Failure::Argument("the list"));
    }
    // SAFETY: the caller's.
    let texts = unsafe { std::slice::from_raw_parts(texts, count) };
    let check = |given: &CText| {
        // SAFETY: the caller's.
        unsafe { text(given.data, given.size, "a text of the list") }
    };
    texts.iter().map(check).collect()
}

/// # Safety
/// The estate is open, `source` ends with NUL.
unsafe fn take(
    es: *const CEstate,
    selection: &Selection,
    source: *const c_char,
    move_id: u64,
    items: *mut u64,
) -> Result {
    // SAFETY: the caller's.
    let (estate, source) = unsafe { (&one(es, "es")?.0, string(source, "source")?) };
    let source = source.ok_or(Failure::Argument("source"))?;
    let taken = estate.take(selection, source, move_id)?;
    if !items.is_null() {
        // SAFETY: the caller gives NULL or room for one.
        unsafe { items.write(taken.items) };
    }
    Ok(Outcome::Ok)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_take_flows(
    es: *const CEstate,
    flows: *const CText,
    count: usize,
    source: *const c_char,
    move_id: u64,
    items: *mut u64,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives so many texts.
        let flows = unsafe { texts(flows, count) }?;
        let flow = |text| FlowKey::from_scope(text).ok_or(Failure::Argument("a flow"));
        let flows: std::result::Result<_, _> = flows.into_iter().map(flow).collect();
        // SAFETY: the caller's.
        unsafe { take(es, &Selection::Flows(flows?), source, move_id, items) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_take_keys(
    es: *const CEstate,
    keys: *const CText,
    count: usize,
    source: *const c_char,
    move_id: u64,
    items: *mut u64,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives so many texts.
        let keys = unsafe { texts(keys, count) }?;
        let keys = keys.into_iter().map(str::to_owned).collect();
        // SAFETY: the caller's.
        unsafe { take(es, &Selection::Keys(keys), source, move_id, items) }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_take_abort(es: *const CEstate, move_id: u64) -> c_int {
    run(|| {
        // SAFETY: the caller gives an estate that is open.
        let estate = &unsafe { one(es, "es") }?.0;
        Ok(Outcome::found(estate.abort_take(move_id)?))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_declare_dead(
    es: *const CEstate,
    node: *const c_char,
    moves: *mut u64,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives an estate that is open, and a name that ends with NUL.
        let (estate, node) = unsafe { (&one(es, "es")?.0, string(node, "node")?) };
        let decided = estate.declare_dead(node.ok_or(Failure::Argument("node"))?)?;
        if !moves.is_null() {
            // SAFETY: the caller gives NULL or room for one.
            unsafe { moves.write(decided) };
        }
        Ok(Outcome::Ok)
    })
}
