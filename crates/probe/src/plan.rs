//! What a sender is asked to do, checked and filled in.

use crate::clock::now;
use crate::emitter::BATCH;
use crate::error::{Error, Result};
use crate::layout::{Layout, PORTS};
use crate::packet::{COMPACT_LEN, Encoding, MAX_FLOWS};
use crate::report::PerFlow;
use crate::schedule::Stream;
use crate::sink::{Stamps, ns};
use crate::socket::no_way;
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;

/// Up to so many flows have a connected socket each, which saves the kernel a route look-up per packet.
const CONNECTED: u32 = 256;
/// Packets the kernel cuts from one message at the most (UDP_MAX_SEGMENTS was 64 until Linux 6.9).
const MAX_SEGMENTS: u32 = 64;
/// Bytes of Ethernet header in front of the IP packet.
const ETHERNET: usize = 14;

/// What a sender is to do. Times are in seconds, rates in packets per second.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SendConfig {
    /// Network namespace.
    pub netns: Option<String>,
    /// CPU to run on.
    pub cpu: Option<usize>,
    /// Where to.
    pub to: Option<IpAddr>,
    /// First destination port.
    pub port: u16,
    /// Destination ports to use; `None`: one per flow up to 64.
    pub ports: Option<u16>,
    /// Addresses to send from; none: the one the route gives.
    pub from: Vec<IpAddr>,
    /// First source port.
    pub source_port: u16,
    /// Flows.
    pub flows: u32,
    /// Rate of all flows together, quiet ones apart.
    pub rate: Option<f64>,
    /// Rate of each flow, quiet ones apart. Neither: as fast as possible.
    pub flow_rate: Option<f64>,
    /// Share of the flows that are quiet, 0 to 1.
    pub quiet: f64,
    /// Rate of each quiet flow.
    pub quiet_rate: f64,
    /// Ethernet frame size in bytes, without FCS.
    pub frame: Option<usize>,
    /// UDP payload in bytes, instead of a frame size.
    pub payload: Option<usize>,
    /// Send for this long; 10 s if no count is given either.
    pub duration: Option<f64>,
    /// Send this many packets per flow.
    pub count: Option<u64>,
    /// Threads to send from, each its share of the flows.
    pub threads: u32,
    /// Packets in a row per flow; `None`: 1, and at full rate on up to 256 flows 16.
    pub burst: Option<u32>,
    /// Packets per message that the kernel cuts apart (UDP_SEGMENT); the path may see them uncut.
    pub segments: u32,
    /// Count what comes back.
    pub echo: bool,
    /// Greet the sink first, and wait so long for its answer; `None`: do not greet.
    pub handshake: Option<f64>,
    /// Tell the sent counts, and wait so long for the answer; `None`: do not tell.
    pub end: Option<f64>,
    /// With replies missing, wait this long for them.
    pub linger: f64,
    /// Run number; `None`: a random one.
    pub run: Option<u32>,
    /// Socket buffers, bytes.
    pub buffer: usize,
    /// Where receive times of replies come from.
    pub stamps: Stamps,
    /// Write a timeline of the replies here.
    pub timeline: Option<PathBuf>,
    /// Rows of the timeline per so many milliseconds, instead of per packet.
    pub timeline_ms: Option<f64>,
    /// Flows to report one by one (replies).
    pub per_flow: PerFlow,
}

impl Default for SendConfig {
    fn default() -> Self {
        SendConfig {
            netns: None,
            cpu: None,
            to: None,
            port: 7000,
            ports: None,
            from: Vec::new(),
            source_port: 20_000,
            flows: 1,
            rate: None,
            flow_rate: None,
            quiet: 0.0,
            quiet_rate: 1.0,
            frame: None,
            payload: None,
            duration: None,
            count: None,
            threads: 1,
            burst: None,
            segments: 1,
            echo: false,
            handshake: Some(5.0),
            end: Some(3.0),
            linger: 1.0,
            run: None,
            buffer: 8 << 20,
            stamps: Stamps::Kernel,
            timeline: None,
            timeline_ms: None,
            per_flow: PerFlow::Auto,
        }
    }
}

/// A [`SendConfig`] that has been checked and filled in.
pub(crate) struct Plan {
    pub layout: Layout,
    pub connected: bool,
    pub run: u32,
    pub payload: usize,
    pub frame: usize,
    pub encoding: Encoding,
    /// Active and quiet flows of each thread.
    pub shares: Vec<(Stream, Stream)>,
    pub quiet_flows: u32,
    pub target_rate: Option<f64>,
    /// End of the run, ns after its start.
    pub duration: Option<u64>,
}

/// Check and fill in.
pub(crate) fn plan(config: &SendConfig) -> Result<Plan> {
    let usage = |text: String| Err(Error::Usage(text));
    let Some(to) = config.to else {
        return usage("no address to send to".into());
    };
    if config.flows == 0 || config.flows > MAX_FLOWS {
        return usage(format!(
            "{} flows: 1 to {MAX_FLOWS} are possible",
            config.flows
        ));
    }
    if config.rate.is_some() && config.flow_rate.is_some() {
        return usage("give the rate of all flows or of each flow, not both".into());
    }
    let rates = [config.rate, config.flow_rate, Some(config.quiet_rate)];
    if !rates
        .into_iter()
        .flatten()
        .all(|rate| rate > 0.0 && rate.is_finite())
    {
        return usage("a rate must be above zero packets per second".into());
    }
    if !(0.0..=1.0).contains(&config.quiet) {
        return usage(format!(
            "a share of {} quiet flows: 0 to 1 are possible",
            config.quiet
        ));
    }
    if config.segments == 0 || config.segments > MAX_SEGMENTS || config.burst == Some(0) {
        return usage(format!(
            "segments go from 1 to {MAX_SEGMENTS}, bursts from 1"
        ));
    }
    let headers = ETHERNET + if to.is_ipv4() { 28 } else { 48 };
    let payload = match (config.frame, config.payload) {
        (Some(_), Some(_)) => return usage("give a frame size or a payload size, not both".into()),
        (Some(frame), None) => frame.saturating_sub(headers),
        (None, payload) => payload.unwrap_or(64),
    };
    let longest = (65_507 - 20) / config.segments as usize;
    let Some(encoding) = Encoding::for_payload(payload).filter(|_| payload <= longest) else {
        let least = headers + COMPACT_LEN;
        return usage(format!(
            "{payload} bytes of payload: {COMPACT_LEN} to {longest} (a frame of {least}) are possible"
        ));
    };
    let burst = config
        .burst
        .unwrap_or(match (config.rate, config.flow_rate) {
            (None, None) if config.flows <= CONNECTED => BATCH as u32,
            _ => 1,
        });
    let burst = burst.next_multiple_of(config.segments);

    let quiet_flows = (f64::from(config.flows) * config.quiet).round() as u32;
    let active_flows = config.flows - quiet_flows;
    let splittable = if active_flows > 0 {
        active_flows
    } else {
        quiet_flows
    };
    if !(1..=splittable).contains(&config.threads) {
        return usage(format!(
            "{} threads: 1 to the number of flows are possible",
            config.threads
        ));
    }
    if config.threads > 1 && config.cpu.is_some() {
        return usage(
            "several threads on one CPU are no faster: give no CPU, or one thread".into(),
        );
    }
    let rate = config
        .rate
        .or(config.flow_rate.map(|rate| rate * f64::from(active_flows)));
    let quiet_rate = config.quiet_rate * f64::from(quiet_flows);
    let seconds = config.duration.or(config.count.is_none().then_some(10.0));
    let limit = |rate: Option<f64>, flows: u32| {
        let by_time = match (seconds, rate) {
            (Some(seconds), Some(rate)) => (seconds * rate).ceil() as u64,
            _ => u64::MAX,
        };
        by_time.min(
            config
                .count
                .map_or(u64::MAX, |count| count * u64::from(flows)),
        )
    };
    // Each thread has a run of neighbouring flows of either kind, and its share of their rate.
    let part = |total: u32, thread: u32| {
        let bound = |n: u32| (u64::from(total) * u64::from(n) / u64::from(config.threads)) as u32;
        (bound(thread), bound(thread + 1) - bound(thread))
    };
    let share = |thread: u32| {
        let (first, flows) = part(active_flows, thread);
        let rate = rate.map(|rate| rate * f64::from(flows) / f64::from(active_flows.max(1)));
        let active =
            Stream::new(first, flows, rate, burst, limit(rate, flows)).in_units_of(config.segments);
        let (first, flows) = part(quiet_flows, thread);
        let rate = Some(config.quiet_rate * f64::from(flows));
        let quiet = Stream::new(active_flows + first, flows, rate, 1, limit(rate, flows));
        (active, quiet)
    };
    let shares = (0..config.threads).map(share).collect();
    let port_count = config
        .ports
        .unwrap_or(config.flows.min(u32::from(PORTS)) as u16);
    let from = if config.from.is_empty() {
        vec![own_address(to, config.port)?]
    } else {
        config.from.clone()
    };
    Ok(Plan {
        layout: Layout::new(
            config.flows,
            &from,
            config.source_port,
            to,
            config.port,
            port_count,
        )?,
        connected: config.flows <= CONNECTED,
        run: config.run.unwrap_or_else(random),
        payload,
        frame: payload + headers,
        encoding,
        shares,
        quiet_flows,
        target_rate: if active_flows == 0 {
            Some(quiet_rate)
        } else {
            rate.map(|rate| rate + quiet_rate)
        },
        duration: seconds.map(ns),
    })
}

/// The address the kernel sends from when asked to reach `to`.
fn own_address(to: IpAddr, port: u16) -> Result<IpAddr> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let peer = SocketAddr::new(to, port);
    UdpSocket::bind(any)
        .and_then(|socket| socket.connect(peer).and_then(|()| socket.local_addr()))
        .map(|address| address.ip())
        .map_err(|e| no_way(peer, e))
}

/// A run number: unlike others nearby in time, which is all it has to be.
fn random() -> u32 {
    let mut bytes = [0; 4];
    // SAFETY: getrandom writes at most `len` bytes to the buffer given.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == 4 {
        u32::from_ne_bytes(bytes)
    } else {
        now() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(change: impl Fn(&mut SendConfig)) -> SendConfig {
        let mut config = SendConfig {
            to: Some("127.0.0.1".parse().unwrap()),
            ..SendConfig::default()
        };
        change(&mut config);
        config
    }

    #[test]
    fn a_small_frame_is_compact_and_holds_its_size() {
        let plan = plan(&config(|c| c.frame = Some(58))).unwrap();
        assert_eq!(
            (plan.payload, plan.frame, plan.encoding),
            (16, 58, Encoding::Compact)
        );
        let plan = super::plan(&config(|c| c.frame = Some(1000))).unwrap();
        assert_eq!((plan.payload, plan.encoding), (958, Encoding::Full));
    }

    #[test]
    fn quiet_flows_are_the_last_and_have_their_own_rate() {
        let plan = plan(&config(|c| {
            (c.flows, c.quiet, c.flow_rate, c.duration) = (10, 0.3, Some(100.0), Some(2.0));
        }))
        .unwrap();
        assert_eq!((plan.quiet_flows, plan.target_rate), (3, Some(703.0)));
        let (mut active, mut quiet) = plan.shares[0].clone();
        assert_eq!(
            (active.due(u64::MAX / 2), quiet.due(u64::MAX / 2)),
            (1400, 6)
        );
        assert_eq!((active.take(1).0, quiet.take(1).0), (0, 7));
    }

    #[test]
    fn threads_share_flows_and_rate() {
        let plan = plan(&config(|c| {
            (c.flows, c.quiet, c.rate, c.duration, c.threads) =
                (11, 0.28, Some(800.0), Some(1.0), 2);
        }))
        .unwrap();
        let due: Vec<(u64, u64)> = plan
            .shares
            .iter()
            .map(|(a, q)| (a.due(u64::MAX / 2), q.due(u64::MAX / 2)))
            .collect();
        assert_eq!(due, [(400, 1), (400, 2)]);
        let firsts = plan
            .shares
            .clone()
            .into_iter()
            .map(|(mut a, mut q)| (a.take(1).0, q.take(1).0));
        assert_eq!(firsts.collect::<Vec<_>>(), [(0, 8), (4, 9)]);
    }

    #[test]
    fn wrong_requests_are_named() {
        for (change, word) in [
            ((|c| c.flows = 0) as fn(&mut SendConfig), "flows"),
            (|c| c.to = None, "address"),
            (|c| c.frame = Some(57), "payload"),
            (|c| c.quiet = 1.5, "quiet"),
            (|c| c.rate = Some(0.0), "rate"),
            (|c| (c.rate, c.flow_rate) = (Some(1.0), Some(1.0)), "rate"),
            (|c| c.segments = 65, "segments"),
            (|c| c.threads = 2, "threads"),
        ] {
            match plan(&config(change)) {
                Err(Error::Usage(text)) => assert!(text.contains(word), "{text}"),
                _ => panic!("{word} was accepted"),
            }
        }
    }
}
