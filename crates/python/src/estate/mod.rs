//! Bindings of `flowferry-estate`. `flowferry.estate` is their typed face.
//!
//! Local operations are called as they are, so there is nothing between a program's loop and the
//! store; whatever may wait for a network lets the interpreter go on meanwhile.

mod core;
mod errors;
mod found;
mod item;
mod values;

use crate::wire::values::{NativeFlow, read_flow};
use flowferry_estate::FlowKey;
use pyo3::prelude::*;

/// The part of a key that names a flow: `flow:` and its canonical form.
#[pyfunction]
fn estate_flow(native: NativeFlow<'_>) -> PyResult<String> {
    Ok(FlowKey::from(&read_flow(native)?).as_str().to_owned())
}

/// Add this part's names to the native module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<core::EstateCore>()?;
    module.add_class::<item::EstateItem>()?;
    module.add_class::<found::EstateFound>()?;
    module.add_class::<found::EstateWatch>()?;
    module.add_function(wrap_pyfunction!(estate_flow, module)?)
}
