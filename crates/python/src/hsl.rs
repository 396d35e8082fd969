//! Bindings of `flowferry-hsl`.

use pyo3::prelude::*;

/// Add this part's names to the native module.
pub fn register(_module: &Bound<'_, PyModule>) -> PyResult<()> {
    Ok(())
}
