//! What instances report: sides, figures, reasons.

use crate::cursor::Reader;
use crate::error::Malformed;
use crate::numbered::numbered;
use std::collections::BTreeMap;

numbered! {
    /// Which of an instance's two interfaces.
    Side: u8 {
        /// Towards the hosts that the rules are written from.
        Upstream = 1 "upstream",
        /// The other one.
        Downstream = 2 "downstream",
    }
}

numbered! {
    /// A figure in a report (docs/design.md §6).
    Counter: u16 {
        /// Flows known or moved.
        Flows = 1 "flows",
        /// Packets captured.
        CapturedPackets = 2 "captured_packets",
        /// Most bytes held at one time.
        CapturedBytesPeak = 3 "captured_bytes_peak",
        /// Packets that came by the old path after the freeze.
        StrayPackets = 4 "stray_packets",
        /// Captured packets let go.
        ReleasedPackets = 5 "released_packets",
        /// Captured packets known to be lost.
        LostPackets = 6 "lost_packets",
        /// Held packets thrown away after an epoch change.
        DiscardedPackets = 7 "discarded_packets",
        /// Captured packets neither released nor lost yet.
        OutstandingPackets = 8 "outstanding_packets",
        /// Bytes held now.
        BufferBytes = 9 "buffer_bytes",
        /// Bytes that may be held.
        BufferLimitBytes = 10 "buffer_limit_bytes",
        /// Control frames rejected since the agent started.
        RejectedFrames = 11 "rejected_frames",
        /// Marker rounds that the destination has begun.
        Markers = 12 "markers",
        /// The longest of them, microseconds.
        FenceUs = 13 "fence_us",
    }
}

numbered! {
    /// Why something was not done.
    Reason: u16 {
        /// None of the others; the text says more.
        Other = 0 "other",
        /// The agent or its shim cannot do this.
        Unsupported = 1 "unsupported",
        /// No such handover here.
        UnknownHandover = 2 "unknown_handover",
        /// The command does not fit the state of the handover.
        WrongState = 3 "wrong_state",
        /// A buffer is half full.
        BufferPressure = 4 "buffer_pressure",
        /// Packets cannot be captured on this side.
        CaptureFailed = 5 "capture_failed",
        /// The function did not give its state.
        ExportFailed = 6 "export_failed",
        /// The function did not take the state.
        ImportFailed = 7 "import_failed",
        /// The other instance cannot be reached.
        PeerUnreachable = 8 "peer_unreachable",
        /// The deadline has passed.
        DeadlinePassed = 9 "deadline_passed",
        /// The command names another epoch than the agent's.
        WrongEpoch = 10 "wrong_epoch",
        /// Someone asked for it.
        Requested = 11 "requested",
    }
}

/// Figures by name. A counter that this version does not know is skipped when read.
pub type Counts = BTreeMap<Counter, u64>;

pub(crate) const COUNT_LEN: usize = 2 + 8;

pub(crate) fn emit_counts(counts: &Counts, out: &mut Vec<u8>) {
    for (counter, value) in counts {
        out.extend_from_slice(&counter.number().to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(crate) fn parse_counts(reader: &mut Reader<'_>) -> Result<Counts, Malformed> {
    let mut counts = Counts::new();
    let mut last = None;
    while !reader.is_empty() {
        let start = reader.offset();
        let number = reader.u16()?;
        let value = reader.u64()?;
        if last.is_some_and(|last| last >= number) {
            return Err(reader.fault(start, "counters do not rise"));
        }
        last = Some(number);
        if let Some(counter) = Counter::from_number(number) {
            counts.insert(counter, value);
        }
    }
    Ok(counts)
}

/// A reason and a line for people.
///
/// A reason that this version does not know is read as [`Reason::Other`]: the text still tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Why, for programs.
    pub reason: Reason,
    /// What happened, to what, and what to do next; up to 512 bytes.
    pub text: String,
}
