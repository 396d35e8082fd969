//! Bindings of `flowferry_hsl::model`: an instance without kernel, sockets and clock.

use flowferry_hsl::handover::function::Answer;
use flowferry_hsl::handover::{Action, Input, Settings, table};
use flowferry_hsl::key::{Key, Side};
use flowferry_hsl::model;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::wire::{read_message, write_message};

fn invalid(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

fn side(number: u8) -> PyResult<Side> {
    match number {
        1 => Ok(Side::Upstream),
        2 => Ok(Side::Downstream),
        _ => Err(invalid("a side is 1 (upstream) or 2 (downstream)")),
    }
}

fn number(side: Side) -> u8 {
    side.index() as u8 + 1
}

/// One instance of a simulation.
#[pyclass]
struct HslInstance(model::Instance);

#[pymethods]
impl HslInstance {
    #[new]
    #[pyo3(signature = (own, *, name="i", epoch=1, buffer_bytes=1 << 24, quiet_ns=None))]
    fn new(
        own: u32,
        name: &str,
        epoch: u64,
        buffer_bytes: usize,
        quiet_ns: Option<u64>,
    ) -> HslInstance {
        let name = name.to_owned();
        let settings = Settings {
            own,
            name,
            epoch,
            quiet_ns,
        };
        HslInstance(model::Instance::new(settings, buffer_bytes))
    }

    fn ingress(&mut self, on: u8, frame: &[u8]) -> PyResult<bool> {
        Ok(self.0.ingress(side(on)?, frame))
    }

    fn read(&mut self, on: u8, count: usize, now: u64) -> PyResult<usize> {
        Ok(self.0.read(side(on)?, count, now))
    }

    fn follower(&mut self, on: u8, frame: &[u8], now: u64) -> PyResult<()> {
        self.0.follower(side(on)?, frame, now);
        Ok(())
    }

    fn write(&mut self, count: usize, now: u64) -> usize {
        self.0.write(count, now)
    }

    fn second_pass<'py>(
        &mut self,
        py: Python<'py>,
        on: u8,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let frame = self.0.second_pass(side(on)?);
        Ok(frame.map(|frame| PyBytes::new(py, &frame)))
    }

    fn next_stray<'py>(&mut self, py: Python<'py>) -> Option<(u64, u8, Bound<'py, PyBytes>)> {
        let stray = self.0.next_stray()?;
        let frame = PyBytes::new(py, &stray.frame);
        Some((stray.hold, number(stray.key.side()), frame))
    }

    fn settle(&mut self, now: u64) {
        self.0.settle(now);
    }

    fn control(&mut self, on: u8, message: &Bound<'_, PyAny>, now: u64) -> PyResult<()> {
        let (side, message) = (side(on)?, read_message(message)?);
        self.0.handle(Input::Control { side, message }, now);
        Ok(())
    }

    fn record(&mut self, sender: u32, record: &[u8], now: u64) -> PyResult<()> {
        self.0.record(sender, record, now).map_err(invalid)
    }

    fn connected(&mut self, peer: &str, now: u64) -> PyResult<()> {
        let peer = peer.parse().map_err(invalid)?;
        self.0.handle(Input::Connected(peer), now);
        Ok(())
    }

    fn unreachable(&mut self, peer: &str, why: &str, now: u64) -> PyResult<()> {
        let (peer, why) = (peer.parse().map_err(invalid)?, why.to_owned());
        self.0.handle(Input::Unreachable { peer, why }, now);
        Ok(())
    }

    fn gone(&mut self, sender: u32, now: u64) {
        self.0.handle(Input::Gone { from: sender }, now);
    }

    #[pyo3(signature = (flush, now, *, failed=false))]
    fn flushed(&mut self, flush: u64, now: u64, failed: bool) {
        self.0.flushed(flush, failed, now);
    }

    fn function(&mut self, line: &str, now: u64) -> PyResult<()> {
        let answer = Answer::read(line).map_err(invalid)?;
        self.0.handle(Input::Function(answer), now);
        Ok(())
    }

    fn function_gone(&mut self, now: u64) {
        self.0.handle(Input::FunctionGone, now);
    }

    fn tick(&mut self, now: u64) {
        self.0.handle(Input::Tick, now);
    }

    fn start_over(&mut self, now: u64) -> u64 {
        self.0.start_over(now)
    }

    /// All that is to be done outside.
    fn actions<'py>(&mut self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let mut actions = Vec::new();
        while let Some((action, flush)) = self.0.next_action() {
            actions.push(write_action(py, action, flush)?);
        }
        Ok(actions)
    }

    #[getter]
    fn next_due(&self) -> Option<u64> {
        self.0.core.handovers.next_due()
    }

    #[getter]
    fn epoch(&self) -> u64 {
        self.0.epoch()
    }

    #[getter]
    fn strays_taken(&self) -> u64 {
        self.0.core.endpoint.strays_taken()
    }

    #[getter]
    fn buffer_used(&self) -> usize {
        self.0.core.endpoint.budget().used()
    }

    #[getter]
    fn overflowed(&self) -> u64 {
        self.0.overflowed()
    }

    #[getter]
    fn quiet(&self) -> bool {
        self.0.is_quiet()
    }

    #[getter]
    fn idle(&self) -> bool {
        self.0.core.endpoint.is_idle() && self.0.core.handovers.is_idle()
    }

    fn phase(&self, handover: u64) -> Option<String> {
        self.0
            .core
            .handovers
            .phase(handover)
            .map(|phase| phase.name())
    }

    fn owns(&self, on: u8, frame: &[u8]) -> PyResult<bool> {
        let packet = Key::parse(frame, side(on)?);
        Ok(packet.is_some_and(|packet| self.0.programs.owns(&packet.key)))
    }

    fn describe(&self) -> String {
        self.0.core.handovers.describe().to_string()
    }
}

fn write_action(py: Python<'_>, action: Action, flush: u64) -> PyResult<Bound<'_, PyAny>> {
    match action {
        Action::Send { side, message } => {
            ("send", number(side), write_message(py, &message)?).into_bound_py_any(py)
        }
        Action::Record { to, behind, record } => {
            let bytes = PyBytes::new(py, &record.write());
            ("record", to.to_string(), behind, bytes).into_bound_py_any(py)
        }
        Action::Connect(peer) => ("connect", peer.to_string()).into_bound_py_any(py),
        Action::Strays { hold, to } => ("strays", hold, to.to_string()).into_bound_py_any(py),
        Action::Discard(hold) => ("discard", hold).into_bound_py_any(py),
        Action::HangUp(instance) => ("hang_up", instance).into_bound_py_any(py),
        Action::Flush { side, .. } => ("flush", number(side), flush).into_bound_py_any(py),
        Action::Tell(line) => ("tell", line.to_json().to_string()).into_bound_py_any(py),
        Action::Step {
            handover,
            phase,
            error,
        } => ("step", handover, phase.name(), error).into_bound_py_any(py),
        Action::Survey { .. } | Action::Own(_) | Action::Disown(_) => {
            ("inside",).into_bound_py_any(py)
        }
    }
}

/// The handover's transition table as a JSON list.
#[pyfunction]
fn hsl_handover_table() -> String {
    serde_json::to_string(table::TRANSITIONS).expect("plain data")
}

/// The handover's transition table as a Graphviz graph.
#[pyfunction]
fn hsl_handover_table_dot() -> String {
    table::as_dot()
}

/// Add this part's names to the native module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<HslInstance>()?;
    module.add_function(wrap_pyfunction!(hsl_handover_table, module)?)?;
    module.add_function(wrap_pyfunction!(hsl_handover_table_dot, module)?)
}
