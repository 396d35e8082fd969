//! Errors of the store as the classes of `flowferry.estate.errors`.

use super::found::view;
use flowferry_estate::Error;
use flowferry_estate::fabric::FabricError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};

/// The exception that stands for an error.
#[cold]
pub fn raised(py: Python<'_>, error: Error) -> PyErr {
    exception(py, error).unwrap_or_else(|broken| broken)
}

fn exception(py: Python<'_>, error: Error) -> PyResult<PyErr> {
    let text = error.to_string();
    let facts = PyDict::new(py);
    let name = match error {
        Error::Key { .. } => "KeyInvalid",
        Error::ValueTooBig { key, .. } => {
            facts.set_item("key", key)?;
            "ValueTooBig"
        }
        Error::Type { key, node, .. } | Error::Reduce { key, node, .. } => {
            facts.set_item("key", key)?;
            facts.set_item("node", node)?;
            "TypeConflict"
        }
        Error::Overflow { key, node, .. } => {
            facts.set_item("key", key)?;
            facts.set_item("node", node)?;
            "CounterOverflow"
        }
        Error::MemoryFull { key, node, .. } => {
            facts.set_item("key", key)?;
            facts.set_item("node", node)?;
            "MemoryFull"
        }
        Error::Frozen { key, node, .. } => {
            facts.set_item("key", key)?;
            facts.set_item("node", node)?;
            "Frozen"
        }
        Error::Pattern { .. } => "PatternInvalid",
        Error::Reducer { .. } => "NoReducer",
        Error::Incomplete(found) => {
            facts.set_item("view", view(py, &found)?)?;
            "IncompleteError"
        }
        Error::Options { .. } => "OptionInvalid",
        Error::Closed => "Closed",
        Error::Forked => "Forked",
        Error::NameTaken { .. } => "NameTaken",
        Error::NoMember { .. } | Error::NoAbsentee { .. } => "NoMember",
        Error::Backend { .. } => "BackendFailed",
        Error::Unsupported { .. } => "Unsupported",
        Error::Aborted { .. } => "MoveAborted",
        Error::Undecided { .. } => "MoveUndecided",
        Error::NotJoined { .. } => "NotJoined",
        Error::ScanStopped { .. } => "ScanStopped",
        Error::Remote { .. } => "MemberFailed",
        Error::Request { .. } => "OptionInvalid",
        Error::Fabric(FabricError::NameTaken { .. }) => "NameTaken",
        Error::Fabric(FabricError::Refused { .. } | FabricError::System { .. }) => "BackendFailed",
        Error::Fabric(_) => "OptionInvalid",
        _ => "EstateError",
    };
    let class = py.import("flowferry.estate.errors")?.getattr(name)?;
    let class = class.cast_into::<PyType>()?;
    Ok(PyErr::from_value(class.call((text,), Some(&facts))?))
}
