//! Bindings of `flowferry-probe`.
//!
//! A run takes its configuration as JSON and gives its report as JSON: the field names are the same
//! on both sides, and the typed face is `flowferry/probe.py`.

use flowferry_probe::error::{Error, Result};
use flowferry_probe::{control, send, sink};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a waiting call looks for Python signals.
const SIGNALS: Duration = Duration::from_millis(50);
/// How often it tells its progress.
const PROGRESS: Duration = Duration::from_secs(1);

/// What the owner of a running job sees and says; usable from any thread.
#[pyclass(frozen, module = "flowferry._native")]
#[derive(Default)]
pub struct Control(pub Arc<control::Control>);

#[pymethods]
impl Control {
    #[new]
    fn new() -> Control {
        Control::default()
    }

    /// Ask the job to end in order and to report.
    fn stop(&self) {
        self.0.stop();
    }

    /// Ask a job that can for a report in between.
    fn request_dump(&self) {
        self.0.request_dump();
    }

    /// The job's sockets are open.
    #[getter]
    fn ready(&self) -> bool {
        self.0.is_ready()
    }

    /// Packets handled so far.
    #[getter]
    fn packets(&self) -> u64 {
        self.0.packets()
    }

    /// The longest that a packet has taken since this was called last, ns; 0 if none has come.
    fn take_slowest(&self) -> u64 {
        self.0.take_slowest()
    }
}

fn raise(error: Error) -> PyErr {
    match error {
        Error::Usage(_) => PyValueError::new_err(error.to_string()),
        _ => PyRuntimeError::new_err(error.to_string()),
    }
}

/// Run `job` in a thread and wait for its report with the interpreter free. A Python signal handler
/// that raises ends the job in order first.
pub fn supervise<C, R>(
    py: Python<'_>,
    config: &str,
    control: &Control,
    progress: Option<Py<PyAny>>,
    job: fn(C, Arc<control::Control>) -> Result<R>,
) -> PyResult<String>
where
    C: DeserializeOwned + Send + 'static,
    R: Serialize + Send + 'static,
{
    let config: C =
        serde_json::from_str(config).map_err(|e| PyValueError::new_err(e.to_string()))?;
    let (sender, receiver) = channel();
    let receiver = Mutex::new(receiver);
    let shared = control.0.clone();
    let thread = std::thread::spawn(move || sender.send(job(config, shared)));
    let mut interrupt = None;
    let mut told = Instant::now();
    let outcome = loop {
        let wait = || {
            receiver
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .recv_timeout(SIGNALS)
        };
        match py.detach(wait) {
            Ok(outcome) => break outcome,
            Err(RecvTimeoutError::Disconnected) => {
                let _ = thread.join();
                return Err(PyRuntimeError::new_err(
                    "the job broke off; its message is on stderr",
                ));
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
        if interrupt.is_some() {
            continue;
        }
        let mut signals = py.check_signals();
        if let (Ok(()), Some(call)) = (
            &signals,
            progress.as_ref().filter(|_| told.elapsed() >= PROGRESS),
        ) {
            told = Instant::now();
            signals = call.call1(py, (control.0.packets(),)).map(drop);
        }
        if let Err(error) = signals {
            interrupt = Some(error);
            control.0.stop();
        }
    };
    if let Some(interrupt) = interrupt {
        return Err(interrupt);
    }
    let report = outcome.map_err(raise)?;
    serde_json::to_string(&report).map_err(|e| PyRuntimeError::new_err(e.to_string()))
}

/// Send; see `flowferry.probe.send`.
#[pyfunction]
#[pyo3(signature = (config, control, progress=None))]
fn probe_send(
    py: Python<'_>,
    config: &str,
    control: &Control,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    supervise(py, config, control, progress, send::run)
}

/// Count what arrives; see `flowferry.probe.sink`.
#[pyfunction]
#[pyo3(signature = (config, control, progress=None))]
fn probe_sink(
    py: Python<'_>,
    config: &str,
    control: &Control,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    supervise(py, config, control, progress, sink::run)
}

/// Add this part's names to the native module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Control>()?;
    module.add_function(wrap_pyfunction!(probe_send, module)?)?;
    module.add_function(wrap_pyfunction!(probe_sink, module)?)
}
