//! `flowferry._native`: the Rust cores as Python sees them. Bindings only, no logic.

mod estate;
mod functions;
mod handover;
mod hsl;
mod probe;
mod wire;

use pyo3::prelude::*;

/// The one native module. Each part registers its own names.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    estate::register(module)?;
    functions::register(module)?;
    handover::register(module)?;
    hsl::register(module)?;
    probe::register(module)?;
    wire::register(module)
}
