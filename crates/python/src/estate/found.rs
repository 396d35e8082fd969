//! What global reads and watches give: items, views, events.

use super::errors::raised;
use super::values::{seconds, write, write_optional};
use flowferry_estate as estate;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use std::sync::{Mutex, PoisonError};

/// An item as an instance held it.
#[pyclass(frozen, module = "flowferry._native")]
pub struct EstateFound {
    pub(super) item: estate::Item,
}

#[pymethods]
impl EstateFound {
    #[getter]
    fn key(&self) -> &str {
        &self.item.key
    }

    #[getter]
    fn node(&self) -> &str {
        &self.item.node
    }

    #[getter]
    fn value<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        write(py, self.item.value.borrow())
    }

    #[getter]
    fn version(&self) -> u64 {
        self.item.stamp.to_bits()
    }

    #[getter]
    fn written(&self) -> f64 {
        self.item.stamp.ms() as f64 / 1000.0
    }

    #[getter]
    fn expires(&self) -> Option<f64> {
        self.item.expires.map(|ms| ms as f64 / 1000.0)
    }

    #[getter]
    fn history<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let seen = PyDict::new(py);
        for (node, stamp) in self.item.history().iter() {
            seen.set_item(node, stamp.to_bits())?;
        }
        Ok(seen)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "Item(key={:?}, node={:?}, value={}, version={})",
            self.item.key,
            self.item.node,
            self.value(py).repr()?,
            self.item.stamp.to_bits()
        ))
    }
}

/// The tuple that `flowferry.estate.View` is made of.
pub fn view<'py>(py: Python<'py>, view: &estate::View) -> PyResult<Bound<'py, PyTuple>> {
    (
        write_optional(py, view.value.as_ref()),
        items(py, &view.items)?,
        PyTuple::new(py, &view.answered)?,
        PyTuple::new(py, &view.missing)?,
        view.complete,
        view.oldest.map(|age| age.as_secs_f64()),
    )
        .into_pyobject(py)
}

fn items<'py>(py: Python<'py>, items: &[estate::Item]) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for item in items {
        list.append(EstateFound { item: item.clone() })?;
    }
    Ok(list)
}

/// Changes of matching items.
#[pyclass(frozen, module = "flowferry._native")]
pub struct EstateWatch {
    watch: Mutex<Option<std::sync::Arc<estate::Watch>>>,
}

impl EstateWatch {
    pub fn new(watch: estate::Watch) -> Self {
        Self {
            watch: Mutex::new(Some(std::sync::Arc::new(watch))),
        }
    }

    fn open(&self) -> Option<std::sync::Arc<estate::Watch>> {
        self.watch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[pymethods]
impl EstateWatch {
    /// The next event as (node, key, item or None); None when the time is up, or it has ended.
    #[pyo3(signature = (timeout=None))]
    fn next<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let timeout = timeout.map(|wait| seconds("timeout", wait)).transpose()?;
        let Some(watch) = self.open() else {
            return Err(raised(py, estate::Error::Closed));
        };
        py.detach(|| watch.next(timeout))
            .map(|event| {
                let item = event.item.map(|item| EstateFound { item });
                (&*event.node, event.key, item).into_pyobject(py)
            })
            .transpose()
    }

    #[getter]
    fn ended(&self) -> bool {
        self.open().is_none_or(|watch| watch.ended())
    }

    fn close(&self, py: Python<'_>) {
        let watch = self
            .watch
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        py.detach(|| drop(watch));
    }
}
