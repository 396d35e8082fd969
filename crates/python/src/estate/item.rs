//! One item's handle.

use super::errors::raised;
use super::values::{read, write_optional};
use flowferry_estate::ItemHandle;
use pyo3::prelude::*;

/// One item, resolved once.
#[pyclass(frozen, module = "flowferry._native")]
pub struct EstateItem {
    item: ItemHandle,
    remote: bool,
}

impl EstateItem {
    pub fn new(item: ItemHandle, remote: bool) -> Self {
        Self { item, remote }
    }
}

#[pymethods]
impl EstateItem {
    #[getter]
    fn key(&self) -> &str {
        self.item.key()
    }

    fn get<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let found = if self.remote {
            py.detach(|| self.item.get())
        } else {
            self.item.get()
        };
        let found = found.map_err(|error| raised(py, error))?;
        Ok(write_optional(py, found.as_ref()))
    }

    fn set(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let value = read(value)?;
        let done = if self.remote {
            py.detach(|| self.item.set(value))
        } else {
            self.item.set(value)
        };
        done.map(drop).map_err(|error| raised(py, error))
    }

    #[pyo3(signature = (delta=1))]
    fn add(&self, py: Python<'_>, delta: i64) -> PyResult<i64> {
        let done = if self.remote {
            py.detach(|| self.item.add(delta))
        } else {
            self.item.add(delta)
        };
        done.map_err(|error| raised(py, error))
    }

    fn delete(&self, py: Python<'_>) -> PyResult<bool> {
        py.detach(|| self.item.delete())
            .map_err(|error| raised(py, error))
    }

    fn __repr__(&self) -> String {
        format!("<item {:?}>", self.item.key())
    }
}
