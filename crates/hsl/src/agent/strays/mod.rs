//! The stream from one agent to another, over the management network: strays, and what the agents
//! tell each other about handovers (`handover::record`), in the order of sending.
//!
//! The taker greets with the version of the records, its instance id and a random number; the
//! sender answers with a sealed control message about that number (`query`, the number as handover
//! id), which shows that it has the deployment's key. Then come records: length (4 bytes, network
//! order, of what follows), kind (1 byte), contents. Kinds 0 and 1 are packets, the kind being
//! their side and the contents the frame with its virtio header. The taker answers with the number
//! of records it has taken so far (8 bytes, network order): only then are packets its to lose.
//! With `tls` configured all of this goes over TLS 1.3, and either end's certificate has to stand for
//! the instance that the greeting or the proof names ([`stream`]). Without, the stream is not
//! encrypted and belongs on a management network of its own.

mod dial;
mod sender;
mod stream;
mod taker;
#[cfg(test)]
mod tests;

pub use sender::Sender;
pub use stream::certificate_name;
pub use taker::{Received, Taker};

/// Bytes of a greeting: version, instance, random number.
const GREETING: usize = 14;
/// Bytes of a proof, at most.
const PROOF_MAX: usize = 1_500;
