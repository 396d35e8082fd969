//! Item handles: a key resolved once.

use super::block::value_block;
use super::input::{bytes, key, one, place};
use super::items::{Whose, put};
use super::status::{Outcome, run};
use super::types::{CEstate, CItem, CValue};
use crate::value::{Value, ValueRef};
use std::ffi::{c_char, c_int, c_void};

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_item_open(
    es: *const CEstate,
    data: *const c_char,
    key_size: usize,
    item: *mut *mut CItem,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives room for a pointer, an open estate, a key of that size.
        let (item, estate, key) = unsafe {
            (
                place(item, std::ptr::null_mut(), "item")?,
                &one(es, "es")?.0,
                key(data, key_size)?,
            )
        };
        *item = Box::into_raw(Box::new(CItem(estate.item(key)?)));
        Ok(Outcome::Ok)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_item_close(item: *mut CItem) {
    if !item.is_null() {
        run(|| {
            // SAFETY: it came from `estate_item_open`, and is given back once.
            drop(unsafe { Box::from_raw(item) });
            Ok(Outcome::Ok)
        });
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_item_add(item: *const CItem, delta: i64, sum: *mut i64) -> c_int {
    // SAFETY: the caller gives a handle that is open.
    run(|| put(sum, unsafe { one(item, "item") }?.0.add(delta)?))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_item_set(
    item: *const CItem,
    data: *const c_void,
    size: usize,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives a handle that is open, and so many bytes.
        let (item, data) = unsafe { (one(item, "item")?, bytes(data.cast(), size, "data")?) };
        item.0.set(ValueRef::Bytes(data))?;
        Ok(Outcome::Ok)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_item_set_int(item: *const CItem, integer: i64) -> c_int {
    run(|| {
        // SAFETY: the caller gives a handle that is open.
        unsafe { one(item, "item") }?
            .0
            .set(ValueRef::Int(integer))?;
        Ok(Outcome::Ok)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_item_get(item: *const CItem, out: *mut *mut CValue) -> c_int {
    run(|| {
        // SAFETY: the caller gives room for a pointer, and a handle that is open.
        let (out, item) = unsafe {
            (
                place(out, std::ptr::null_mut(), "value")?,
                one(item, "item")?,
            )
        };
        let value = item.0.get()?;
        if let Some(value) = &value {
            *out = value_block(value);
        }
        Ok(Outcome::found(value.is_some()))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_item_get_int(item: *const CItem, integer: *mut i64) -> c_int {
    run(|| {
        // SAFETY: the caller gives room for one, and a handle that is open.
        let (integer, item) = unsafe { (place(integer, 0, "integer")?, one(item, "item")?) };
        match item.0.get()? {
            Some(Value::Int(found)) => {
                *integer = found;
                Ok(Outcome::Ok)
            }
            Some(other) => {
                let (estate, key) = (item.0.estate(), item.0.key());
                Err(Whose { estate, key }.holds(other.borrow(), "int"))
            }
            None => Ok(Outcome::NotFound),
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_item_delete(item: *const CItem) -> c_int {
    // SAFETY: the caller gives a handle that is open.
    run(|| Ok(Outcome::found(unsafe { one(item, "item") }?.0.delete()?)))
}
