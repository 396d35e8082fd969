//! Global reads.

use super::block::{Plan, value_block};
use super::input::{one, place, value};
use super::query::{Custom, query};
use super::status::{Failure, Outcome, run};
use super::types::{CEntry, CEstate, CQuery, CText, CValue, CView};
use crate::error::Error;
use crate::item::Item;
use crate::query::View;
use crate::value::Value;
use crate::version::VectorClock;
use std::ffi::c_int;

/// Lets a function of the caller's reduce `items`.
fn reduce(custom: Custom, items: &[Item]) -> Result<Option<Value>, Failure> {
    if items.is_empty() {
        return Ok(None);
    }
    let plan = Plan::default().structs::<CEntry>(items.len());
    let plan = items.iter().fold(plan, Plan::item);
    let mut block = plan.allocate();
    let entries: Vec<CEntry> = items.iter().map(|item| block.item(item)).collect();
    let entries = block.place(&entries);
    let mut result = CValue::NONE;
    // SAFETY: the caller gave the function and what belongs to it.
    let status = unsafe { (custom.function)(custom.context, entries, items.len(), &mut result) };
    let outcome = match status {
        0 => {
            // SAFETY: estate.h wants the bytes of the result to be there still.
            unsafe { value(&result, "the reducer's result") }.map(|value| Some(value.to_value()))
        }
        1 => Ok(None),
        other => Err(Failure::Reducer(other)),
    };
    // SAFETY: the block is malloc's, and the entries are its beginning.
    unsafe { libc::free(entries.cast_mut().cast()) };
    outcome
}

fn reduced(view: &mut View, custom: Option<Custom>) -> Result<(), Failure> {
    if let Some(custom) = custom {
        view.value = reduce(custom, &view.items)?;
    }
    Ok(())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_get_global(
    es: *const CEstate,
    given: *const CQuery,
    out: *mut *mut CValue,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives room for a pointer, an open estate, and a query.
        let (out, estate, (query, custom)) = unsafe {
            let estate = &one(es, "es")?.0;
            (
                place(out, std::ptr::null_mut(), "value")?,
                estate,
                query(estate, one(given, "query")?)?,
            )
        };
        let mut view = match estate.get_global(&query) {
            Ok(view) => view,
            Err(Error::Incomplete(mut view)) => {
                reduced(&mut view, custom)?;
                if let Some(value) = &view.value {
                    *out = value_block(value);
                }
                return Err(Error::Incomplete(view).into());
            }
            Err(other) => return Err(other.into()),
        };
        reduced(&mut view, custom)?;
        match &view.value {
            Some(value) => {
                *out = value_block(value);
                Ok(Outcome::Ok)
            }
            None => Ok(Outcome::NotFound),
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_view_global(
    es: *const CEstate,
    given: *const CQuery,
    out: *mut *mut CView,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives room for a pointer, an open estate, and a query.
        let (out, estate, (query, custom)) = unsafe {
            let estate = &one(es, "es")?.0;
            (
                place(out, std::ptr::null_mut(), "view")?,
                estate,
                query(estate, one(given, "query")?)?,
            )
        };
        let mut view = estate.view_global(&query)?;
        reduced(&mut view, custom)?;
        *out = view_block(&view);
        Ok(Outcome::Ok)
    })
}

fn history(view: &View) -> Vec<u8> {
    let mut clock = VectorClock::new();
    for item in &view.items {
        clock.merge(&item.history());
    }
    let mut bytes = Vec::new();
    if !clock.is_empty() {
        clock.emit(&mut bytes);
    }
    bytes
}

fn view_block(view: &View) -> *mut CView {
    let history = history(view);
    let names = view.answered.iter().chain(&view.missing);
    let plan = Plan::default()
        .structs::<CView>(1)
        .structs::<CEntry>(view.items.len())
        .structs::<CText>(names.clone().count())
        .text(history.len());
    let plan = view.items.iter().fold(plan, Plan::item);
    let plan = names.fold(plan, |plan, name| plan.text(name.len()));
    let plan = view.value.iter().fold(plan, Plan::value);
    let mut block = plan.allocate();
    let head = block.head::<CView>();
    let items: Vec<CEntry> = view.items.iter().map(|item| block.item(item)).collect();
    let mut list = |names: &[String]| {
        let texts: Vec<CText> = names
            .iter()
            .map(|name| block.text(name.as_bytes()))
            .collect();
        block.place(&texts)
    };
    let (answered, missing) = (list(&view.answered), list(&view.missing));
    let oldest = view
        .oldest
        .map_or(-1, |age| i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
    let view = CView {
        found: view.value.is_some().into(),
        value: match &view.value {
            Some(value) => block.value(value),
            None => CValue::NONE,
        },
        item_count: items.len(),
        items: block.place(&items),
        answered_count: view.answered.len(),
        answered,
        missing_count: view.missing.len(),
        missing,
        complete: view.complete.into(),
        oldest_us: oldest,
        history: block.text(&history),
    };
    // SAFETY: the head was reserved for it.
    unsafe { head.write(view) };
    head
}
