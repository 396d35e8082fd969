//! What a run reports, as JSON. The field names are the public format; times are ns.

use crate::delay::DelayReport;
use serde::{Deserialize, Serialize};

/// Which flows a report lists one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PerFlow {
    /// All up to 100 flows, beyond that only those with something amiss.
    #[default]
    Auto,
    /// Every flow.
    All,
    /// Flows with a packet lost, reordered, duplicated or unclassified.
    Bad,
    /// No flow.
    None,
}

/// Sums over all flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Flows in the run.
    pub flows: u64,
    /// Flows of which at least one packet arrived.
    pub flows_heard: u64,
    /// Flows that lost at least one packet.
    pub flows_lossy: u64,
    /// Packets sent.
    pub sent: u64,
    /// Different packets received.
    pub received: u64,
    /// Packets sent and never received.
    pub lost: u64,
    /// Packets that arrived behind a higher sequence number of their flow (RFC 4737 §3.3).
    pub reordered: u64,
    /// Second and further copies.
    pub duplicated: u64,
    /// Late or duplicate, too far back to tell (see `sequence.rs`); zero means all counts are exact.
    pub unclassified: u64,
    /// The farthest a reordered packet was behind, in sequence numbers.
    pub max_extent: u64,
    /// Payload bytes received, copies included.
    pub bytes: u64,
}

/// The accounts of one flow. Times are ns since the first packet of the run.
#[derive(Clone, Debug, Serialize)]
#[allow(missing_docs)] // the names are those of `Counts` and `Received`
pub struct FlowReport {
    pub flow: u32,
    pub sent: u64,
    pub received: u64,
    pub lost: u64,
    pub reordered: u64,
    pub duplicated: u64,
    pub unclassified: u64,
    pub max_extent: u64,
    pub delay_ns: Option<DelayReport>,
    pub longest_gap_ns: u64,
    pub longest_gap_at_ns: u64,
    pub first_ns: Option<u64>,
    pub last_ns: Option<u64>,
}

/// The longest time between two packets of one flow.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FlowGap {
    /// Which flow.
    pub flow: u32,
    /// How long.
    pub gap_ns: u64,
    /// When it began, since the first packet of the run.
    pub gap_at_ns: u64,
}

/// What a receiving side saw: a sink, or an echoed sender of its replies.
#[derive(Clone, Debug, Serialize)]
pub struct Received {
    /// Nothing lost, reordered, duplicated or unclassified, and the sent count is known.
    pub clean: bool,
    /// The sums.
    #[serde(flatten)]
    pub counts: Counts,
    /// Where the sent counts come from: `end` (the sender's END packets), `file`, `sender` (it is
    /// the sender), or `unknown`: then trailing losses are not seen.
    pub sent_known: &'static str,
    /// Packets the kernel dropped at this receiver's own sockets. They are among `lost`, and are
    /// the receiver's weakness, not the path's.
    pub sink_dropped: u64,
    /// Probe packets of another run.
    pub foreign_run: u64,
    /// Datagrams that are no probe packets.
    pub malformed: u64,
    /// One-way delay, or round-trip time of echoed packets.
    pub delay_ns: Option<DelayReport>,
    /// Longest time without any packet.
    pub longest_gap_ns: u64,
    /// When it began, since the first packet.
    pub longest_gap_at_ns: u64,
    /// Longest time without a packet of one flow.
    pub longest_flow_gap: Option<FlowGap>,
    /// First arrival, CLOCK_MONOTONIC.
    pub first_ns: Option<u64>,
    /// Last arrival, CLOCK_MONOTONIC.
    pub last_ns: Option<u64>,
    /// Different packets per second between first and last arrival.
    pub packets_per_second: f64,
    /// Flows one by one; see [`PerFlow`].
    pub per_flow: Vec<FlowReport>,
}

/// The report of a sink.
#[derive(Clone, Debug, Serialize)]
pub struct SinkReport {
    /// `"sink"`, or `"echo"`.
    pub role: &'static str,
    /// The run it counted; `None` if nothing came.
    pub run: Option<u32>,
    /// Why it ended: `end`, `file`, `duration`, `idle`, `nothing`, `stopped`.
    pub ended_by: &'static str,
    /// What arrived.
    #[serde(flatten)]
    pub received: Received,
    /// Replies sent (echo).
    pub replied: u64,
    /// Replies the kernel refused.
    pub reply_failed: u64,
    /// One line for people.
    pub verdict: String,
}

/// The report of a sender.
#[derive(Clone, Debug, Serialize)]
pub struct SendReport {
    /// `"send"`.
    pub role: &'static str,
    /// The run.
    pub run: u32,
    /// Why it ended: `duration`, `count`, `stopped`.
    pub ended_by: &'static str,
    /// Flows.
    pub flows: u32,
    /// Of them, those at the quiet rate (the highest flow numbers).
    pub quiet_flows: u32,
    /// Packets sent.
    pub sent: u64,
    /// Packets besides: greetings and sent counts, each time that they were said.
    pub talk_sent: u64,
    /// UDP payload of each packet.
    pub payload_bytes: u32,
    /// Ethernet frame of each packet, without FCS.
    pub frame_bytes: u32,
    /// From first to last packet.
    pub duration_ns: u64,
    /// First packet, CLOCK_MONOTONIC.
    pub first_ns: Option<u64>,
    /// Last packet, CLOCK_MONOTONIC.
    pub last_ns: Option<u64>,
    /// Packets per second achieved.
    pub packets_per_second: f64,
    /// Packets per second asked for; `None`: as fast as possible.
    pub target_packets_per_second: Option<f64>,
    /// The most a packet was sent behind its due time.
    pub late_max_ns: u64,
    /// ICMP errors reported on our sockets (port or host unreachable…); the packets went out.
    pub icmp_errors: u64,
    /// Times a local queue was full and the packet was sent again.
    pub full_queue: u64,
    /// Whether the sink confirmed the sent counts; `None` if not asked for.
    pub end_acknowledged: Option<bool>,
    /// Packets sent, per flow.
    pub sent_per_flow: Vec<u64>,
    /// What came back (`--echo`); its delays are round-trip times.
    pub replies: Option<Received>,
    /// One line for people.
    pub verdict: String,
}

/// The part of a sender's report that a sink reads (`--sent FILE`).
#[derive(Clone, Debug, Deserialize)]
pub struct SentFile {
    /// The run.
    pub run: u32,
    /// Packets sent, per flow.
    pub sent_per_flow: Vec<u64>,
}

impl Received {
    /// One line: clean, or what is amiss.
    pub fn verdict(&self) -> String {
        let counts = &self.counts;
        let what = format!("{} packets on {} flows", counts.sent, counts.flows);
        if self.clean {
            return format!("clean: {what}, none lost, reordered or duplicated");
        }
        let mut line = format!(
            "not clean: of {what}, {} lost, {} reordered, {} duplicated",
            counts.lost, counts.reordered, counts.duplicated
        );
        if counts.unclassified > 0 {
            line += &format!(", {} late or duplicate", counts.unclassified);
        }
        if self.sink_dropped > 0 {
            line += &format!(
                " ({} dropped at this receiver's own sockets)",
                self.sink_dropped
            );
        }
        if self.sent_known == "unknown" {
            line += "; the sent counts are unknown, so losses at the end are not seen";
        }
        line
    }
}
