//! Bindings of `flowferry-wire`. `flowferry.wire` is their typed face.

pub(crate) mod values;

use flowferry_wire as wire;
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use values::{NativeMessage, malformed, read_mac};
pub use values::{read_message, write_message};

create_exception!(
    flowferry.wire,
    WireError,
    PyException,
    "Something about a control frame."
);
create_exception!(
    flowferry.wire,
    MalformedError,
    WireError,
    "Bytes that are not a control frame of this version."
);
create_exception!(
    flowferry.wire,
    UnsendableError,
    WireError,
    "A message that must not be sent as it is."
);
create_exception!(
    flowferry.wire,
    RejectedError,
    WireError,
    "A frame that was not let in; `reason` says why in a word."
);
create_exception!(
    flowferry.wire,
    PartError,
    WireError,
    "Parts of a list that contradict each other."
);
create_exception!(
    flowferry.wire,
    KeyRingError,
    WireError,
    "A key that cannot be used, or a step of a rotation out of order."
);

fn unsendable(error: wire::Unsendable) -> PyErr {
    UnsendableError::new_err(error.to_string())
}

fn key_error(error: wire::KeyError) -> PyErr {
    KeyRingError::new_err(error.to_string())
}

fn rejected(py: Python<'_>, rejection: wire::Rejection) -> PyErr {
    let error = RejectedError::new_err(rejection.to_string());
    match error.value(py).setattr("reason", rejection.reason()) {
        Ok(()) => error,
        Err(failure) => failure,
    }
}

/// Keys by id, one of them to send with.
#[pyclass(name = "KeyRing", module = "flowferry.wire", frozen)]
struct KeyRing(std::sync::RwLock<wire::KeyRing>);

impl KeyRing {
    fn read(&self) -> PyResult<std::sync::RwLockReadGuard<'_, wire::KeyRing>> {
        self.0
            .read()
            .map_err(|_| KeyRingError::new_err("a rotation failed half-way: make a new ring"))
    }

    fn write(&self) -> PyResult<std::sync::RwLockWriteGuard<'_, wire::KeyRing>> {
        self.0
            .write()
            .map_err(|_| KeyRingError::new_err("a rotation failed half-way: make a new ring"))
    }
}

#[pymethods]
impl KeyRing {
    #[new]
    fn new(key_id: u16, secret: Vec<u8>) -> PyResult<Self> {
        let key = wire::Key::new(secret).map_err(key_error)?;
        Ok(Self(wire::KeyRing::new(key_id, key).into()))
    }

    /// Accept frames made with another key.
    fn add(&self, key_id: u16, secret: Vec<u8>) -> PyResult<()> {
        let key = wire::Key::new(secret).map_err(key_error)?;
        self.write()?.add(key_id, key).map_err(key_error)
    }

    /// Send with this key from now on.
    fn activate(&self, key_id: u16) -> PyResult<()> {
        self.write()?.activate(key_id).map_err(key_error)
    }

    /// Destroy a key and reject what still comes with its id.
    fn retire(&self, key_id: u16) -> PyResult<()> {
        self.write()?.retire(key_id).map_err(key_error)
    }

    /// Id of the key to send with.
    #[getter]
    fn active(&self) -> PyResult<u16> {
        Ok(self.read()?.active())
    }

    /// Ids of the keys that are accepted, rising.
    #[getter]
    fn ids(&self) -> PyResult<Vec<u16>> {
        Ok(self.read()?.ids().collect())
    }

    fn __repr__(&self) -> PyResult<String> {
        let ring = self.read()?;
        let ids: Vec<_> = ring.ids().collect();
        Ok(format!("<KeyRing active={} ids={ids:?}>", ring.active()))
    }
}

/// Numbers and signs the messages of one sender.
#[pyclass]
struct WireSealer(wire::Sealer);

#[pymethods]
impl WireSealer {
    #[new]
    fn new(sender: u32, boot: u64) -> Self {
        Self(wire::Sealer::new(sender, boot))
    }

    fn seal<'py>(
        &mut self,
        py: Python<'py>,
        keys: &KeyRing,
        message: &Bound<'py, PyAny>,
        destination: &[u8],
        source: &[u8],
        mtu: usize,
    ) -> PyResult<(Bound<'py, PyBytes>, NativeMessage<'py>)> {
        let mut message = read_message(message)?;
        let (destination, source) = (read_mac(destination)?, read_mac(source)?);
        let frame = self
            .0
            .seal(&*keys.read()?, &mut message, destination, source, mtu)
            .map_err(unsendable)?;
        Ok((PyBytes::new(py, &frame), write_message(py, &message)?))
    }

    fn seal_payload<'py>(
        &mut self,
        py: Python<'py>,
        keys: &KeyRing,
        message: &Bound<'py, PyAny>,
        mtu: usize,
    ) -> PyResult<(Bound<'py, PyBytes>, NativeMessage<'py>)> {
        let mut message = read_message(message)?;
        let payload = self
            .0
            .seal_payload(&*keys.read()?, &mut message, mtu)
            .map_err(unsendable)?;
        Ok((PyBytes::new(py, &payload), write_message(py, &message)?))
    }
}

/// Lets in what is authentic, new and meant for this instance.
#[pyclass]
struct WireOpener(wire::Opener);

#[pymethods]
impl WireOpener {
    #[new]
    fn new(own: u32) -> Self {
        Self(wire::Opener::new(own))
    }

    fn open<'py>(
        &mut self,
        py: Python<'py>,
        keys: &KeyRing,
        frame: &[u8],
    ) -> PyResult<NativeMessage<'py>> {
        let opened = self.0.open(&*keys.read()?, frame);
        let message = opened.map_err(|rejection| rejected(py, rejection))?;
        write_message(py, &message)
    }

    fn open_payload<'py>(
        &mut self,
        py: Python<'py>,
        keys: &KeyRing,
        payload: &[u8],
    ) -> PyResult<NativeMessage<'py>> {
        let opened = self.0.open_payload(&*keys.read()?, payload);
        let message = opened.map_err(|rejection| rejected(py, rejection))?;
        write_message(py, &message)
    }

    #[getter]
    fn accepted(&self) -> u64 {
        self.0.accepted()
    }

    #[getter]
    fn rejected<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        table(py, self.0.rejected())
    }

    #[getter]
    fn positions(&self) -> Vec<(u32, u64, u64)> {
        self.0.positions().collect()
    }

    fn resume(&mut self, sender: u32, boot: u64, sequence: u64) {
        self.0.resume(sender, boot, sequence);
    }
}

/// Joins the parts of lists that took several frames.
#[pyclass]
#[derive(Default)]
struct WireAssembler(wire::Assembler);

#[pymethods]
impl WireAssembler {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    fn add<'py>(
        &mut self,
        py: Python<'py>,
        message: &Bound<'py, PyAny>,
    ) -> PyResult<Option<NativeMessage<'py>>> {
        let message = read_message(message)?;
        message.check().map_err(unsendable)?;
        let whole = self
            .0
            .add(message)
            .map_err(|error| PartError::new_err(error.to_string()))?;
        whole.map(|message| write_message(py, &message)).transpose()
    }

    fn forget(&mut self, handover: u64) {
        self.0.forget(handover);
    }

    #[getter]
    fn pending(&self) -> usize {
        self.0.pending()
    }
}

/// An unsigned frame: no receiver lets it in.
#[pyfunction]
fn wire_encode<'py>(
    py: Python<'py>,
    message: &Bound<'py, PyAny>,
    key_id: u16,
    destination: &[u8],
    source: &[u8],
    mtu: usize,
) -> PyResult<Bound<'py, PyBytes>> {
    let payload = read_message(message)?
        .emit(key_id, mtu)
        .map_err(unsendable)?;
    let frame = wire::ethernet(read_mac(destination)?, read_mac(source)?, &payload);
    Ok(PyBytes::new(py, &frame))
}

/// What a frame says, whoever sent it.
#[pyfunction]
fn wire_decode<'py>(py: Python<'py>, frame: &[u8]) -> PyResult<NativeMessage<'py>> {
    let frame = wire::Frame::new_checked(frame).map_err(malformed)?;
    let control = wire::Control::new_checked(frame.payload()).map_err(malformed)?;
    write_message(py, &wire::Message::parse(&control).map_err(malformed)?)
}

/// A message as several that fit.
#[pyfunction]
fn wire_split<'py>(
    py: Python<'py>,
    message: &Bound<'py, PyAny>,
    mtu: usize,
    list: u32,
) -> PyResult<Vec<NativeMessage<'py>>> {
    let parts = wire::split(&read_message(message)?, mtu, list).map_err(unsendable)?;
    parts.iter().map(|part| write_message(py, part)).collect()
}

fn table<'py, K: IntoPyObject<'py>, V: IntoPyObject<'py>>(
    py: Python<'py>,
    pairs: impl IntoIterator<Item = (K, V)>,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (key, value) in pairs {
        dict.set_item(key, value)?;
    }
    Ok(dict)
}

/// Behind `flowferry.wire.address_of`.
#[pyfunction]
fn wire_address_of(instance: u32) -> [u8; 6] {
    wire::address_of(instance)
}

/// The numbers on the wire by name, for whoever must agree with them.
#[pyfunction]
fn wire_tables(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    macro_rules! names {
        ($type:ident) => {
            table(py, wire::$type::ALL.iter().map(|n| (n.name(), n.number())))?
        };
    }
    let flags = wire::Flags::ALL
        .iter()
        .map(|(flag, name)| (*name, flag.bits()));
    table(
        py,
        [
            ("command", names!(Command)),
            ("tlv", names!(Kind)),
            ("counter", names!(Counter)),
            ("reason", names!(Reason)),
            ("side", names!(Side)),
            ("flag", table(py, flags)?),
        ],
    )
}

/// Add this part's names to the native module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("WireError", py.get_type::<WireError>())?;
    module.add("WireMalformedError", py.get_type::<MalformedError>())?;
    module.add("WireUnsendableError", py.get_type::<UnsendableError>())?;
    module.add("WireRejectedError", py.get_type::<RejectedError>())?;
    module.add("WirePartError", py.get_type::<PartError>())?;
    module.add("WireKeyRingError", py.get_type::<KeyRingError>())?;
    module.add("WireKeyRing", py.get_type::<KeyRing>())?;
    module.add_class::<WireSealer>()?;
    module.add_class::<WireOpener>()?;
    module.add_class::<WireAssembler>()?;
    module.add_function(wrap_pyfunction!(wire_encode, module)?)?;
    module.add_function(wrap_pyfunction!(wire_decode, module)?)?;
    module.add_function(wrap_pyfunction!(wire_split, module)?)?;
    module.add_function(wrap_pyfunction!(wire_address_of, module)?)?;
    module.add_function(wrap_pyfunction!(wire_tables, module)?)
}
