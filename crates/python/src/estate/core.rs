//! An instance's estate: local operations called directly, the others for `flowferry.estate`.

use super::errors::raised;
use super::found::{EstateFound, EstateWatch, view};
use super::item::EstateItem;
use super::values::{pattern, read, seconds, write, write_optional};
use flowferry_estate as estate;
use flowferry_estate::protocol::Write;
use flowferry_estate::reduce::Reducer;
use flowferry_estate::{Consistency, FlowKey, Query, Require, Selection, SetOptions, Tls};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// The native half of `flowferry.estate.Estate`.
#[pyclass(frozen, subclass, module = "flowferry._native")]
pub struct EstateCore {
    estate: estate::Estate,
}

#[pymethods]
impl EstateCore {
    #[new]
    #[pyo3(signature = (*, cluster, node, backend="p2p", listen=Vec::new(), peers=Vec::new(),
        scouting=false, relay=false, tls=None, memory_limit=None, failure_after=1.0, timeout=1.0))]
    #[allow(clippy::too_many_arguments)] // they are keywords
    fn new(
        py: Python<'_>,
        cluster: &str,
        node: &str,
        backend: &str,
        listen: Vec<String>,
        peers: Vec<String>,
        scouting: bool,
        relay: bool,
        tls: Option<(std::path::PathBuf, std::path::PathBuf, std::path::PathBuf)>,
        memory_limit: Option<usize>,
        failure_after: f64,
        timeout: f64,
    ) -> PyResult<Self> {
        let options = estate::Options {
            backend: backend.to_owned(),
            listen,
            peers,
            scouting,
            relay,
            tls: tls.map(|(ca, certificate, key)| Tls {
                ca,
                certificate,
                key,
            }),
            memory_limit,
            failure_after: seconds("failure_after", failure_after)?,
            timeout: seconds("timeout", timeout)?,
            ..estate::Options::new(cluster, node)
        };
        let opened = py.detach(|| estate::Estate::open(options));
        Ok(Self {
            estate: opened.map_err(|error| raised(py, error))?,
        })
    }

    #[getter]
    fn cluster(&self) -> &str {
        &self.estate.options().cluster
    }

    #[getter]
    fn node(&self) -> &str {
        &self.estate.options().node
    }

    #[getter]
    fn backend(&self) -> &str {
        &self.estate.options().backend
    }

    #[pyo3(signature = (key, value, *, ttl=None, codec=None, after=None))]
    fn set(
        &self,
        py: Python<'_>,
        key: &str,
        value: &Bound<'_, PyAny>,
        ttl: Option<f64>,
        codec: Option<&Bound<'_, PyAny>>,
        after: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let encoded;
        let value = match codec {
            None => read(value)?,
            Some(codec) => {
                encoded = codec.call_method1("encode", (value,))?;
                read(&encoded)?
            }
        };
        let seen = after.map(history).transpose()?;
        let options = SetOptions {
            ttl: ttl.map(|ttl| seconds("ttl", ttl)).transpose()?,
            after: seen.as_ref(),
        };
        // A store in memory is done before the interpreter could be let go.
        let done = match self.estate.store() {
            Some(_) => self.estate.set_with(key, value, options),
            None => py.detach(|| self.estate.set_with(key, value, options)),
        };
        done.map(drop).map_err(|error| raised(py, error))
    }

    #[pyo3(signature = (key, default=None, *, codec=None))]
    fn get<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        default: Option<Bound<'py, PyAny>>,
        codec: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.estate.check().map_err(|error| raised(py, error))?;
        let found = match self.estate.store() {
            // The object is made from the item where it lies; making it runs no Python code.
            Some(store) => store.with(key, |item| write(py, item.value)),
            None => {
                let value = py.detach(|| self.estate.get(key));
                write_optional(py, value.map_err(|error| raised(py, error))?.as_ref())
            }
        };
        match (found, codec) {
            (Some(value), Some(codec)) => codec.call_method1("decode", (value,)).map(Some),
            (Some(value), None) => Ok(Some(value)),
            (None, _) => Ok(default),
        }
    }

    fn get_item(&self, py: Python<'_>, key: &str) -> PyResult<Option<EstateFound>> {
        let found = py.detach(|| self.estate.get_item(key));
        let found = found.map_err(|error| raised(py, error))?;
        Ok(found.map(|item| EstateFound { item }))
    }

    fn delete(&self, py: Python<'_>, key: &str) -> PyResult<bool> {
        let done = match self.estate.store() {
            Some(_) => self.estate.delete(key),
            None => py.detach(|| self.estate.delete(key)),
        };
        done.map_err(|error| raised(py, error))
    }

    #[pyo3(signature = (key, delta=1))]
    fn add(&self, py: Python<'_>, key: &str, delta: i64) -> PyResult<i64> {
        let done = match self.estate.store() {
            Some(_) => self.estate.add(key, delta),
            None => py.detach(|| self.estate.add(key, delta)),
        };
        done.map_err(|error| raised(py, error))
    }

    #[pyo3(signature = (r#match="*", *, pattern="glob"))]
    fn keys(&self, py: Python<'_>, r#match: &str, pattern: Option<&str>) -> PyResult<Vec<String>> {
        let wanted = self::pattern(py, r#match, pattern)?;
        py.detach(|| self.estate.keys(&wanted))
            .map_err(|error| raised(py, error))
    }

    fn item(&self, py: Python<'_>, key: &str) -> PyResult<EstateItem> {
        let item = self.estate.item(key).map_err(|error| raised(py, error))?;
        Ok(EstateItem::new(item, self.estate.store().is_none()))
    }

    /// Raises if it was closed, or this is a forked child.
    fn check(&self, py: Python<'_>) -> PyResult<()> {
        self.estate.check().map_err(|error| raised(py, error))
    }

    /// The value of a global read with a reducer that has a name.
    #[pyo3(signature = (text, kind, reducer, level, max_age, timeout, require))]
    #[allow(clippy::too_many_arguments)] // positions, for speed; get_global() names them
    fn global_value<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        kind: Option<&str>,
        reducer: &str,
        level: u8,
        max_age: f64,
        timeout: Option<f64>,
        require: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let query = self.query(py, text, kind, reducer, (level, max_age), timeout, require)?;
        let found = py.detach(|| self.estate.get_global(&query));
        let found = found.map_err(|error| raised(py, error))?;
        Ok(write_optional(py, found.value.as_ref()))
    }

    /// The tuple of a view; `insist` raises `IncompleteError` when fewer answer than required.
    #[pyo3(signature = (text, kind, reducer, level, max_age, timeout, require, insist))]
    #[allow(clippy::too_many_arguments)]
    fn global_view<'py>(
        &self,
        py: Python<'py>,
        text: &str,
        kind: Option<&str>,
        reducer: &str,
        level: u8,
        max_age: f64,
        timeout: Option<f64>,
        require: &Bound<'py, PyAny>,
        insist: bool,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let query = self.query(py, text, kind, reducer, (level, max_age), timeout, require)?;
        let found = py.detach(|| {
            if insist {
                self.estate.get_global(&query)
            } else {
                self.estate.view_global(&query)
            }
        });
        view(py, &found.map_err(|error| raised(py, error))?)
    }

    /// Items of these flows (scopes) or keys from a member; returns how many are here now.
    fn take_from(
        &self,
        py: Python<'_>,
        flows: Option<Vec<String>>,
        keys: Option<Vec<String>>,
        source: &str,
        move_id: u64,
    ) -> PyResult<u64> {
        let selection = match (flows, keys) {
            (Some(flows), None) => Selection::Flows(
                flows
                    .iter()
                    .map(|scope| {
                        FlowKey::from_scope(scope).ok_or_else(|| {
                            PyValueError::new_err(format!("{scope:?} does not name a flow"))
                        })
                    })
                    .collect::<PyResult<_>>()?,
            ),
            (None, Some(keys)) => Selection::Keys(keys),
            _ => return Err(PyTypeError::new_err("give either flows or keys")),
        };
        py.detach(|| self.estate.take(&selection, source, move_id))
            .map(|taken| taken.items)
            .map_err(|error| raised(py, error))
    }

    /// Gives up a move to here; whether it could be.
    fn abort_take(&self, py: Python<'_>, move_id: u64) -> PyResult<bool> {
        py.detach(|| self.estate.abort_take(move_id))
            .map_err(|error| raised(py, error))
    }

    /// The caller vouches that a member's process has ended; how many moves that decides.
    fn declare_dead(&self, py: Python<'_>, node: &str) -> PyResult<u64> {
        py.detach(|| self.estate.declare_dead(node))
            .map_err(|error| raised(py, error))
    }

    /// Writes of this member, made at one instant with those of others under the same id.
    #[pyo3(signature = (joint_id, members, *, set=None, add=None, delete=None, timeout=None))]
    #[allow(clippy::too_many_arguments)] // they are keywords
    fn joint(
        &self,
        py: Python<'_>,
        joint_id: u64,
        members: Vec<String>,
        set: Option<&Bound<'_, PyDict>>,
        add: Option<std::collections::BTreeMap<String, i64>>,
        delete: Option<Vec<String>>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let mut writes = Vec::new();
        for (key, value) in set.into_iter().flatten() {
            writes.push(Write::Set(key.extract()?, read(&value)?.to_value()));
        }
        let adds = add.into_iter().flatten();
        writes.extend(adds.map(|(key, delta)| Write::Add(key, delta)));
        writes.extend(delete.into_iter().flatten().map(Write::Delete));
        let timeout = match timeout {
            Some(wait) => seconds("timeout", wait)?,
            None => self.estate.options().timeout,
        };
        let with: Vec<&str> = members.iter().map(String::as_str).collect();
        py.detach(|| self.estate.joint(joint_id, &with, writes, timeout))
            .map(drop)
            .map_err(|error| raised(py, error))
    }

    fn watch_for(&self, py: Python<'_>, text: &str, kind: Option<&str>) -> PyResult<EstateWatch> {
        let wanted = pattern(py, text, kind)?;
        py.detach(|| self.estate.watch(wanted))
            .map(EstateWatch::new)
            .map_err(|error| raised(py, error))
    }

    fn members(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        py.detach(|| self.estate.members())
            .map_err(|error| raised(py, error))
    }

    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let figures = py.detach(|| self.estate.statistics());
        figures
            .map_err(|error| raised(py, error))?
            .into_pyobject(py)
    }

    /// `hook(by, pattern)` is called on a thread of the estate.
    fn hook_global_reads(&self, py: Python<'_>, hook: Py<PyAny>) -> PyResult<()> {
        let call = move |read: &estate::GlobalRead| {
            Python::attach(|py| {
                if let Err(error) = hook.call1(py, (&read.by, &read.pattern)) {
                    error.write_unraisable(py, Some(hook.bind(py)));
                }
            });
        };
        py.detach(|| self.estate.on_global_read(Box::new(call)))
            .map_err(|error| raised(py, error))
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.estate.close());
    }
}

impl EstateCore {
    #[allow(clippy::too_many_arguments)]
    fn query(
        &self,
        py: Python<'_>,
        text: &str,
        kind: Option<&str>,
        reducer: &str,
        (level, max_age): (u8, f64),
        timeout: Option<f64>,
        require: &Bound<'_, PyAny>,
    ) -> PyResult<Query> {
        Ok(Query {
            pattern: pattern(py, text, kind)?,
            reducer: Reducer::named(reducer).map_err(|error| raised(py, error))?,
            consistency: match level {
                0 => Consistency::Live,
                1 => Consistency::Cached {
                    max_age: seconds("max_age", max_age)?,
                },
                _ => Consistency::Snapshot,
            },
            timeout: match timeout {
                Some(wait) => seconds("timeout", wait)?,
                None => self.estate.options().timeout,
            },
            require: required(require)?,
        })
    }
}

fn required(require: &Bound<'_, PyAny>) -> PyResult<Require> {
    if let Ok(word) = require.extract::<&str>() {
        match word {
            "all" => return Ok(Require::All),
            "quorum" => return Ok(Require::Quorum),
            _ => {}
        }
    } else if let Ok(least) = require.extract::<usize>() {
        return Ok(Require::AtLeast(least));
    }
    Err(PyValueError::new_err(format!(
        "require is 'all', 'quorum' or a number, not {}",
        require.repr()?
    )))
}

/// What a writer had seen: the items of a view.
fn history(after: &Bound<'_, PyAny>) -> PyResult<estate::VectorClock> {
    let mut clock = estate::VectorClock::new();
    for item in after.try_iter()? {
        clock.merge(&item?.cast::<EstateFound>()?.get().item.history());
    }
    Ok(clock)
}
