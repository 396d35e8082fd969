//! What C gives, checked: nothing is NULL that must not be, every text is what it says.

use super::status::Failure;
use super::types::{CText, CValue};
use crate::key::Key;
use crate::pattern::Pattern;
use crate::value::ValueRef;
use std::ffi::{CStr, c_char, c_int};

type Given<T> = std::result::Result<T, Failure>;

/// What `pointer` points to.
///
/// # Safety
/// It is NULL or points to a valid `T` that nobody changes for `'a`.
#[inline]
pub unsafe fn one<'a, T>(pointer: *const T, what: &'static str) -> Given<&'a T> {
    // SAFETY: the caller's.
    unsafe { pointer.as_ref() }.ok_or(Failure::Argument(what))
}

/// Where to put a result, set to `empty` first.
///
/// # Safety
/// It is NULL or may be written.
#[inline]
pub unsafe fn place<'a, T>(pointer: *mut T, empty: T, what: &'static str) -> Given<&'a mut T> {
    if pointer.is_null() {
        return Err(Failure::Argument(what));
    }
    // SAFETY: the caller's; what was there may be uninitialised and is not dropped.
    unsafe {
        pointer.write(empty);
        Ok(&mut *pointer)
    }
}

/// `size` bytes.
///
/// # Safety
/// `data` points to so many, or is NULL.
#[inline]
pub unsafe fn bytes<'a>(data: *const c_char, size: usize, what: &'static str) -> Given<&'a [u8]> {
    if size == 0 {
        return Ok(&[]);
    }
    if data.is_null() || size > isize::MAX as usize {
        return Err(Failure::Argument(what));
    }
    // SAFETY: the caller's.
    Ok(unsafe { std::slice::from_raw_parts(data.cast(), size) })
}

/// A text with a size.
///
/// # Safety
/// As [`bytes`].
pub unsafe fn text<'a>(data: *const c_char, size: usize, what: &'static str) -> Given<&'a str> {
    // SAFETY: the caller's.
    let bytes = unsafe { bytes(data, size, what) }?;
    std::str::from_utf8(bytes).map_err(|_| Failure::Argument(what))
}

/// A text that ends with NUL; none for NULL.
///
/// # Safety
/// It is NULL or ends with NUL.
pub unsafe fn string<'a>(text: *const c_char, what: &'static str) -> Given<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|_| Failure::Argument(what))
}

/// A key.
///
/// # Safety
/// As [`bytes`].
#[inline]
pub unsafe fn key<'a>(data: *const c_char, size: usize) -> Given<&'a str> {
    // SAFETY: the caller's.
    let bytes = unsafe { bytes(data, size, "key") }?;
    Ok(Key::from_bytes(bytes)?.as_str())
}

/// A pattern.
///
/// # Safety
/// As [`bytes`].
pub unsafe fn pattern(data: *const c_char, size: usize, kind: c_int) -> Given<Pattern> {
    // SAFETY: the caller's.
    let text = unsafe { text(data, size, "pattern") }?;
    Ok(match kind {
        0 => Pattern::exact(Key::new(text)?.as_str()),
        1 => Pattern::glob(text)?,
        2 => Pattern::regex(text)?,
        _ => return Err(Failure::Argument("kind")),
    })
}

/// A value.
///
/// # Safety
/// As [`bytes`], for its bytes.
pub unsafe fn value<'a>(value: &CValue, what: &'static str) -> Given<ValueRef<'a>> {
    // SAFETY: the caller's.
    let bytes = |text: CText| unsafe { bytes(text.data, text.size, what) };
    Ok(match value.kind {
        CValue::BYTES => ValueRef::Bytes(bytes(value.bytes)?),
        CValue::STR => ValueRef::Str(str_of(bytes(value.bytes)?, what)?),
        CValue::INT => ValueRef::Int(value.integer),
        CValue::FLOAT => ValueRef::Float(value.number),
        _ => return Err(Failure::Argument("type")),
    })
}

/// Text that is to be a value.
pub fn str_of<'a>(bytes: &'a [u8], what: &'static str) -> Given<&'a str> {
    std::str::from_utf8(bytes).map_err(|_| Failure::Argument(what))
}
