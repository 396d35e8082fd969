//! Values, patterns and durations between Python and Rust.

use super::errors;
use flowferry_estate::{Pattern, Value, ValueRef};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyFloat, PyInt, PyString};
use std::time::Duration;

/// What a Python object is to the store, without a copy.
#[inline]
pub fn read<'a>(value: &'a Bound<'_, PyAny>) -> PyResult<ValueRef<'a>> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(ValueRef::Bytes(bytes.as_bytes()));
    }
    if let Ok(number) = value.cast::<PyInt>() {
        return match number.extract() {
            Ok(number) => Ok(ValueRef::Int(number)),
            Err(_) => Err(PyOverflowError::new_err(
                "an int value has to fit 64 bits with sign; use a float, str or bytes",
            )),
        };
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(ValueRef::Str(text.to_str()?));
    }
    if let Ok(number) = value.cast::<PyFloat>() {
        return Ok(ValueRef::Float(number.value()));
    }
    Err(PyTypeError::new_err(format!(
        "a value is bytes, str, int or float, not {}: give a codec, such as codec=estate.JSON",
        value.get_type().name()?
    )))
}

/// The Python object of a value.
#[inline]
pub fn write<'py>(py: Python<'py>, value: ValueRef<'_>) -> Bound<'py, PyAny> {
    match value {
        ValueRef::Bytes(bytes) => PyBytes::new(py, bytes).into_any(),
        ValueRef::Str(text) => PyString::new(py, text).into_any(),
        ValueRef::Int(number) => {
            let Ok(number) = number.into_pyobject(py);
            number.into_any()
        }
        ValueRef::Float(number) => PyFloat::new(py, number).into_any(),
    }
}

/// The Python object of what may not be there.
pub fn write_optional<'py>(py: Python<'py>, value: Option<&Value>) -> Option<Bound<'py, PyAny>> {
    value.map(|value| write(py, value.borrow()))
}

/// A pattern of the given kind: None, `glob` or `regex`.
pub fn pattern(py: Python<'_>, text: &str, kind: Option<&str>) -> PyResult<Pattern> {
    match kind {
        None => Ok(Pattern::exact(text)),
        Some("glob") => Pattern::glob(text).map_err(|error| errors::raised(py, error)),
        Some("regex") => Pattern::regex(text).map_err(|error| errors::raised(py, error)),
        Some(other) => Err(PyValueError::new_err(format!(
            "pattern is None, 'glob' or 'regex', not {other:?}"
        ))),
    }
}

/// Seconds, as `what` is given in.
pub fn seconds(what: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err(format!("{what} is a time in seconds, not {seconds}")))
}
