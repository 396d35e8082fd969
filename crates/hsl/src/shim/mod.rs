//! Shims: how packets are taken in front of a function and given back to it.
//!
//! A [`Shim`] captures by rules, hands captured frames out, takes released ones back, and counts.
//! It decides nothing. `kernel` and `veth` are one implementation over BPF ([`tc`]): they differ
//! only in where a packet that passes goes. Frames carry a `virtio_net_hdr` in front
//! ([`tap::VNET_HEADER`] bytes), so that super-packets and partial checksums survive.

pub mod batch;
pub mod bpf;
pub mod control;
pub mod error;
mod hook;
mod layout;
pub mod shared;
pub mod tap;
pub mod tc;

use std::io;
use std::os::fd::BorrowedFd;

use crate::endpoint::Treatment;
use crate::key::{Key, Parsed, Side};
use crate::matching::Match;
pub use control::Outcome;
pub use error::BpfError;
pub use hook::Attachment;
pub use shared::{Count, Counters, Flow, Write};

/// The data plane in front of one instance.
pub trait Shim {
    /// What to poll for captured frames of a side.
    fn readable(&self, side: Side) -> BorrowedFd<'_>;
    /// Read one captured frame into `buffer` (at least [`tap::MAX_READ`] bytes); `None`: none waits.
    fn read(&mut self, side: Side, buffer: &mut [u8]) -> io::Result<Option<usize>>;
    /// Write one frame; it has been handled when this returns.
    fn write(&mut self, side: Side, frame: &[u8], what: Write) -> io::Result<Outcome>;
    /// Write a flush frame: it will be read again once it has come through this CPU's queue.
    fn flush(&mut self, side: Side, frame: &[u8]) -> io::Result<Outcome> {
        self.write(side, frame, Write::Flush)
    }
    /// Packets of a flow have come from another instance: they are outstanding from now on, as
    /// captured ones are. Refused where there is no room to count them.
    fn adopt(&mut self, key: &Key, packets: u32) -> io::Result<()>;
    /// Captured packets of a flow have gone elsewhere and will not return.
    fn forget(&mut self, key: &Key, packets: u32) -> io::Result<()>;
    /// Captured packets of a flow are lost; counted where the next agent finds it.
    fn lose(&mut self, key: &Key, packets: u32) -> io::Result<()>;
    /// Put rules in force, first match wins, all at once.
    fn set_rules(&mut self, side: Side, rules: &[(Match, Treatment)]) -> Result<(), BpfError>;
    /// Treat one flow so whatever the rules say; `None` leaves it to them.
    fn set_flow(&mut self, key: &Key, treatment: Option<Treatment>) -> Result<(), BpfError>;
    /// Look at flows at all, or rest.
    fn set_active(&mut self, active: bool);
    /// One flow's counts.
    fn count(&self, key: &Key) -> Option<Count>;
    /// All counts.
    fn counts(&self) -> Vec<(Key, Count)>;
    /// Drop a flow's counts; only when nothing is outstanding.
    fn drop_count(&mut self, key: &Key) -> Result<(), BpfError>;
    /// Flows that have gone on to the function.
    fn flows(&self) -> Vec<(Key, Flow)>;
    /// Which flow sides have gone on to the function, each as its last packet came.
    fn served(&self) -> Vec<Parsed>;
    /// A flow is served here, before a packet of it has gone on. `now`: CLOCK_MONOTONIC in nanoseconds.
    fn own(&mut self, flow: &Parsed, now: u64) -> Result<(), BpfError>;
    /// Forget that a flow was served here.
    fn disown(&mut self, key: &Key) -> Result<(), BpfError>;
    /// A side's counters.
    fn counters(&self, side: Side) -> Result<Counters, BpfError>;
    /// Say that the agent lives. `now`: CLOCK_MONOTONIC in nanoseconds.
    fn beat(&mut self, now: u64);
    /// Whether packets have overtaken what is held, so that it must be thrown away.
    fn tripped(&self) -> bool;
    /// Fail open until the next epoch.
    fn trip(&mut self);
    /// Number of the epoch.
    fn epoch(&self) -> u32;
    /// Whether interfaces and TAPs are the ones that were set up.
    fn check(&self) -> Result<(), BpfError>;
    /// Make broken parts anew, so that flush frames work. The interfaces must still be there.
    fn repair(&mut self) -> Result<(), BpfError>;
    /// Drop all treatments and counts, and begin to capture again.
    fn begin_epoch(&mut self, now: u64) -> Result<(), BpfError>;
}
