//! Watches.

use super::block::Plan;
use super::input::{one, pattern, place};
use super::status::{Outcome, run};
use super::types::{CEntry, CEstate, CEvent, CValue, CWatch};
use crate::backend::Event;
use std::ffi::{c_char, c_int};
use std::time::Duration;

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_watch_open(
    es: *const CEstate,
    data: *const c_char,
    size: usize,
    kind: c_int,
    watch: *mut *mut CWatch,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives room for a pointer, an open estate, a pattern of that size.
        let (watch, estate, pattern) = unsafe {
            (
                place(watch, std::ptr::null_mut(), "watch")?,
                &one(es, "es")?.0,
                pattern(data, size, kind)?,
            )
        };
        *watch = Box::into_raw(Box::new(CWatch(estate.watch(pattern)?)));
        Ok(Outcome::Ok)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_watch_next(
    watch: *const CWatch,
    timeout_ms: i64,
    out: *mut *mut CEvent,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives room for a pointer, and a watch that is open.
        let (out, watch) = unsafe {
            (
                place(out, std::ptr::null_mut(), "event")?,
                &one(watch, "watch")?.0,
            )
        };
        let timeout = u64::try_from(timeout_ms).ok().map(Duration::from_millis);
        match watch.next(timeout) {
            Some(event) => *out = event_block(&event),
            None if watch.ended() => return Ok(Outcome::Ended),
            None => return Ok(Outcome::Timeout),
        }
        Ok(Outcome::Ok)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_watch_close(watch: *mut CWatch) {
    if watch.is_null() {
        return;
    }
    run(|| {
        // SAFETY: it came from `estate_watch_open`, and is given back once.
        drop(unsafe { Box::from_raw(watch) });
        Ok(Outcome::Ok)
    });
}

fn event_block(event: &Event) -> *mut CEvent {
    let plan = Plan::default().structs::<CEvent>(1);
    let plan = match &event.item {
        Some(item) => plan.item(item),
        None => plan.text(event.key.len()).text(event.node.len()),
    };
    let mut block = plan.allocate();
    let head = block.head::<CEvent>();
    let item = match &event.item {
        Some(item) => block.item(item),
        None => CEntry {
            key: block.text(event.key.as_bytes()),
            node: block.text(event.node.as_bytes()),
            value: CValue::NONE,
            version: 0,
            expires_ms: 0,
        },
    };
    let event = CEvent {
        item,
        gone: event.item.is_none().into(),
    };
    // SAFETY: the head was reserved for it.
    unsafe { head.write(event) };
    head
}
