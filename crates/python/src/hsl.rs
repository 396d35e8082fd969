//! Bindings of `flowferry-hsl`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use flowferry_hsl::agent::{
    self,
    config::{Config, Tls},
};
use flowferry_hsl::endpoint::table;
use flowferry_hsl::matching::Match;
use flowferry_tls::Role;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

/// Run an agent until SIGTERM or SIGINT; its last status as JSON. Says `ready` on stdout once it
/// takes commands.
#[pyfunction]
fn hsl_run(py: Python<'_>, config: &str) -> PyResult<String> {
    let config: Config = serde_json::from_str(config).map_err(invalid)?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(failed)?;
    }
    let status = py
        .detach(|| agent::run(config, stop, || println!("ready")))
        .map_err(failed)?;
    Ok(status.to_string())
}

/// The name in an instance's certificate.
#[pyfunction]
fn hsl_certificate_name(instance: u32) -> String {
    agent::certificate_name(instance)
}

/// What is wrong with certificate files for an instance: which of them (`ca`, `cert` or `key`), and
/// why; without an instance, whether they can be read and fit.
#[pyfunction]
#[pyo3(signature = (cert, key, ca, instance=None))]
fn hsl_certificate_problem(
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    instance: Option<u32>,
) -> Option<(&'static str, String)> {
    let error = Tls { cert, key, ca }.identity(instance).err()?;
    let field = match error.role {
        Role::Authority => "ca",
        Role::Certificate => "cert",
        Role::Key => "key",
    };
    Some((field, error.why))
}

/// Check that a match is understood; returns it as it stands.
#[pyfunction]
fn hsl_match(text: &str) -> PyResult<String> {
    text.parse::<Match>()
        .map(|matching| matching.to_string())
        .map_err(invalid)
}

/// The endpoint's transition table as a JSON list.
#[pyfunction]
fn hsl_table() -> String {
    serde_json::to_string(table::TRANSITIONS).expect("plain data")
}

/// The endpoint's transition table as a Graphviz graph.
#[pyfunction]
fn hsl_table_dot() -> String {
    table::as_dot()
}

fn invalid(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn failed(error: impl std::fmt::Display) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}

/// Add this part's names to the native module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(hsl_run, module)?)?;
    module.add_function(wrap_pyfunction!(hsl_certificate_name, module)?)?;
    module.add_function(wrap_pyfunction!(hsl_certificate_problem, module)?)?;
    module.add_function(wrap_pyfunction!(hsl_match, module)?)?;
    module.add_function(wrap_pyfunction!(hsl_table, module)?)?;
    module.add_function(wrap_pyfunction!(hsl_table_dot, module)?)
}
