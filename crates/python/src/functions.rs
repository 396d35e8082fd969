//! Bindings of `flowferry-functions`. Configuration and report are JSON, as in `probe.rs`.

use crate::probe::{Control, supervise};
use flowferry_functions::forwarder;
use pyo3::prelude::*;

/// Forward frames between two interfaces; see `flowferry.functions.forwarder`.
#[pyfunction]
#[pyo3(signature = (config, control, progress=None))]
fn forwarder_run(
    py: Python<'_>,
    config: &str,
    control: &Control,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    supervise(py, config, control, progress, forwarder::run)
}

/// Add this part's names to the native module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(forwarder_run, module)?)
}
