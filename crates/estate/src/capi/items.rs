//! The items of this instance, by their keys.

use super::block::{Plan, value_block};
use super::input::{bytes, key, one, pattern, place, str_of, value};
use super::status::{Failure, Outcome, Result, run};
use super::types::{CEstate, CText, CTexts, CValue, CWrite};
use crate::backend::Estate;
use crate::codec::Reader;
use crate::error::Error;
use crate::item::ItemRef;
use crate::store::SetOptions;
use crate::value::ValueRef;
use crate::version::VectorClock;
use std::ffi::{c_char, c_int, c_void};
use std::time::Duration;

/// Says what a counter has become, to whoever wants to know.
pub fn put(sum: *mut i64, value: i64) -> Result {
    if !sum.is_null() {
        // SAFETY: the caller gives NULL or room for one.
        unsafe { sum.write(value) };
    }
    Ok(Outcome::Ok)
}

/// An item, for errors about it.
#[derive(Clone, Copy)]
pub struct Whose<'a> {
    pub estate: &'a Estate,
    pub key: &'a str,
}

impl Whose<'_> {
    /// It holds another type than was asked for.
    #[cold]
    pub fn holds(self, found: ValueRef<'_>, wanted: &'static str) -> Failure {
        Failure::Error(Error::Type {
            key: self.key.to_owned(),
            node: self.estate.options().node.clone(),
            found: found.type_name(),
            wanted,
            remedy: "read it with estate_get",
        })
    }
}

/// Shows the value to `f`: in place, if it is in memory, else a copy.
#[inline]
fn look(
    es: *const CEstate,
    (data, size): (*const c_char, usize),
    f: impl FnOnce(Whose<'_>, ValueRef<'_>) -> Result,
) -> Result {
    // SAFETY: the caller gives an estate that is open, and a key of that size.
    let (estate, key) = unsafe { (&one(es, "es")?.0, key(data, size)?) };
    let whose = Whose { estate, key };
    match estate.store() {
        Some(store) => {
            estate.check()?;
            let look = |item: ItemRef<'_>| f(whose, item.value);
            store.with(key, look).unwrap_or(Ok(Outcome::NotFound))
        }
        None => match estate.get(key)? {
            Some(value) => f(whose, value.borrow()),
            None => Ok(Outcome::NotFound),
        },
    }
}

#[inline]
fn write(
    es: *const CEstate,
    (data, size): (*const c_char, usize),
    value: ValueRef<'_>,
    options: SetOptions<'_>,
) -> Result {
    // SAFETY: the caller gives an estate that is open, and a key of that size.
    let (estate, key) = unsafe { (&one(es, "es")?.0, key(data, size)?) };
    estate.set_with(key, value, options)?;
    Ok(Outcome::Ok)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_set(
    es: *const CEstate,
    key: *const c_char,
    key_size: usize,
    data: *const c_void,
    size: usize,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives so many bytes.
        let data = unsafe { bytes(data.cast(), size, "data") }?;
        write(
            es,
            (key, key_size),
            ValueRef::Bytes(data),
            SetOptions::default(),
        )
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_set_str(
    es: *const CEstate,
    key: *const c_char,
    key_size: usize,
    text: *const c_char,
    size: usize,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives so many bytes.
        let text = str_of(unsafe { bytes(text, size, "text") }?, "text")?;
        write(
            es,
            (key, key_size),
            ValueRef::Str(text),
            SetOptions::default(),
        )
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_set_int(
    es: *const CEstate,
    key: *const c_char,
    key_size: usize,
    integer: i64,
) -> c_int {
    run(|| {
        write(
            es,
            (key, key_size),
            ValueRef::Int(integer),
            SetOptions::default(),
        )
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_set_float(
    es: *const CEstate,
    key: *const c_char,
    key_size: usize,
    number: f64,
) -> c_int {
    run(|| {
        write(
            es,
            (key, key_size),
            ValueRef::Float(number),
            SetOptions::default(),
        )
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_set_value(
    es: *const CEstate,
    key: *const c_char,
    key_size: usize,
    given: *const CValue,
    how: *const CWrite,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives a value whose bytes are there.
        let given = unsafe { value(one(given, "value")?, "value") }?;
        let clock;
        let mut options = SetOptions::default();
        // SAFETY: NULL, or a valid struct.
        if let Some(how) = unsafe { how.as_ref() } {
            if how.size < size_of::<CWrite>() {
                return Err(Failure::Argument("how->size"));
            }
            options.ttl = (how.ttl_ms > 0).then(|| Duration::from_millis(how.ttl_ms));
            // SAFETY: the caller gives so many bytes.
            let after = unsafe { bytes(how.after.data, how.after.size, "how->after") }?;
            if !after.is_empty() {
                clock = VectorClock::parse(&mut Reader::new(after))
                    .map_err(|_| Failure::Argument("how->after"))?;
                options.after = Some(&clock);
            }
        }
        write(es, (key, key_size), given, options)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_get(
    es: *const CEstate,
    key: *const c_char,
    key_size: usize,
    out: *mut *mut CValue,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives room for a pointer.
        let out = unsafe { place(out, std::ptr::null_mut(), "value") }?;
        let mut value = None;
        let outcome = look(es, (key, key_size), |_, found| {
            value = Some(found.to_value());
            Ok(Outcome::Ok)
        })?;
        if let Some(value) = value {
            *out = value_block(&value);
        }
        Ok(outcome)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_get_into(
    es: *const CEstate,
    key: *const c_char,
    key_size: usize,
    buffer: *mut c_void,
    capacity: usize,
    size: *mut usize,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives room for a size.
        let size = unsafe { place(size, 0, "size") }?;
        look(es, (key, key_size), |whose, value| {
            let bytes = match value {
                ValueRef::Bytes(bytes) => bytes,
                ValueRef::Str(text) => text.as_bytes(),
                other => return Err(whose.holds(other, "bytes or str")),
            };
            *size = bytes.len();
            if bytes.len() > capacity || buffer.is_null() && !bytes.is_empty() {
                return Err(Failure::TooSmall(bytes.len()));
            }
            // SAFETY: the caller gives a buffer of that capacity, which the value fits.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.cast(), bytes.len());
            }
            Ok(Outcome::Ok)
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_get_int(
    es: *const CEstate,
    key: *const c_char,
    key_size: usize,
    integer: *mut i64,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives room for one.
        let integer = unsafe { place(integer, 0, "integer") }?;
        look(es, (key, key_size), |whose, value| match value {
            ValueRef::Int(found) => {
                *integer = found;
                Ok(Outcome::Ok)
            }
            other => Err(whose.holds(other, "int")),
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_get_float(
    es: *const CEstate,
    key: *const c_char,
    key_size: usize,
    number: *mut f64,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives room for one.
        let number = unsafe { place(number, 0.0, "number") }?;
        look(es, (key, key_size), |whose, value| match value {
            ValueRef::Float(found) => {
                *number = found;
                Ok(Outcome::Ok)
            }
            other => Err(whose.holds(other, "float")),
        })
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_delete(
    es: *const CEstate,
    data: *const c_char,
    key_size: usize,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives an estate that is open, and a key of that size.
        let (estate, key) = unsafe { (&one(es, "es")?.0, key(data, key_size)?) };
        Ok(Outcome::found(estate.delete(key)?))
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_add(
    es: *const CEstate,
    data: *const c_char,
    key_size: usize,
    delta: i64,
    sum: *mut i64,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives an estate that is open, and a key of that size.
        let (estate, key) = unsafe { (&one(es, "es")?.0, key(data, key_size)?) };
        put(sum, estate.add(key, delta)?)
    })
}

/// Texts in a block of their own.
pub fn texts_block(texts: &[String]) -> *mut CTexts {
    let plan = Plan::default()
        .structs::<CTexts>(1)
        .structs::<CText>(texts.len());
    let plan = texts.iter().fold(plan, |plan, text| plan.text(text.len()));
    let mut block = plan.allocate();
    let head = block.head::<CTexts>();
    let list: Vec<CText> = texts
        .iter()
        .map(|text| block.text(text.as_bytes()))
        .collect();
    let texts = CTexts {
        count: list.len(),
        texts: block.place(&list),
    };
    // SAFETY: the head was reserved for it.
    unsafe { head.write(texts) };
    head
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_keys(
    es: *const CEstate,
    data: *const c_char,
    size: usize,
    kind: c_int,
    keys: *mut *mut CTexts,
) -> c_int {
    run(|| {
        // SAFETY: the caller gives room for a pointer, an open estate, a pattern of that size.
        let (keys, estate, pattern) = unsafe {
            (
                place(keys, std::ptr::null_mut(), "keys")?,
                &one(es, "es")?.0,
                pattern(data, size, kind)?,
            )
        };
        *keys = texts_block(&estate.keys(&pattern)?);
        Ok(Outcome::Ok)
    })
}
