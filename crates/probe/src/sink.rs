//! The sink: counts what arrives until the sender says it is over.

use crate::clock::now;
use crate::control::Control;
use crate::error::{Error, Result};
use crate::inlet::Inlets;
use crate::layout::PORTS;
use crate::report::{PerFlow, SentFile, SinkReport};
use crate::socket::{SinkOptions, allow_files, dropped, open_sink};
use crate::tally::Tally;
use crate::timeline::Timeline;
use crate::worker::Place;
use serde::Deserialize;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The longest the sink sleeps before it looks at its [`Control`], ns.
const TICK: u64 = 20_000_000;
/// With everything here, wait this long for copies and for repeated END packets, ns.
const SETTLE: u64 = 100_000_000;
/// The longest datagram read: a jumbo frame's.
const LONGEST: usize = 9216;

/// Where receive times come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stamps {
    /// The kernel, when the packet entered this host's stack.
    #[default]
    Kernel,
    /// The clock, when the program read it.
    User,
}

/// What a sink is to do. Times are in seconds.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SinkConfig {
    /// Network namespace.
    pub netns: Option<String>,
    /// CPU to run on.
    pub cpu: Option<usize>,
    /// Address to bind; `None`: all of both families.
    pub address: Option<IpAddr>,
    /// First port.
    pub port: u16,
    /// Ports to bind from there on.
    pub ports: u16,
    /// Send every packet back.
    pub echo: bool,
    /// Count this run; `None`: the first that comes.
    pub run: Option<u32>,
    /// End after this time in any case.
    pub duration: Option<f64>,
    /// Give up when nothing has come for so long since the start; `None`: never.
    pub wait: Option<f64>,
    /// End when nothing has come for so long since the last packet.
    pub idle: f64,
    /// With the sent counts known and packets missing, wait this long for them.
    pub linger: f64,
    /// Receive buffer per port, bytes.
    pub buffer: usize,
    /// Where receive times come from.
    pub stamps: Stamps,
    /// A sender's report to read the sent counts from, once the file is there.
    pub sent: Option<PathBuf>,
    /// Write a timeline here.
    pub timeline: Option<PathBuf>,
    /// Rows of the timeline per so many milliseconds, instead of per packet.
    pub timeline_ms: Option<f64>,
    /// Flows to report one by one.
    pub per_flow: PerFlow,
}

impl Default for SinkConfig {
    fn default() -> Self {
        SinkConfig {
            netns: None,
            cpu: None,
            address: None,
            port: 7000,
            ports: PORTS,
            echo: false,
            run: None,
            duration: None,
            wait: Some(60.0),
            idle: 30.0,
            linger: 1.0,
            buffer: 64 << 20,
            stamps: Stamps::Kernel,
            sent: None,
            timeline: None,
            timeline_ms: None,
            per_flow: PerFlow::Auto,
        }
    }
}

/// Seconds as ns.
pub(crate) fn ns(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1e9) as u64
}

/// Open a timeline as configured.
pub(crate) fn timeline(path: &Option<PathBuf>, ms: Option<f64>) -> Result<Option<Timeline>> {
    path.as_ref()
        .map(|path| Timeline::create(path, ms.map(|ms| ns(ms / 1e3))))
        .transpose()
}

/// Run a sink to its end, in a thread of its own.
pub fn run(config: SinkConfig, control: Arc<Control>) -> Result<SinkReport> {
    let place = Place {
        netns: config.netns.clone(),
        cpu: config.cpu,
    };
    let thread = place.spawn("probe-sink", move || receive(&config, &control))?;
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn receive(config: &SinkConfig, control: &Control) -> Result<SinkReport> {
    if config.ports == 0 || u32::from(config.port) + u32::from(config.ports) > 0x1_0000 {
        return Err(Error::Usage(format!(
            "{} ports from {} on: there are only 1 to 65535",
            config.ports, config.port
        )));
    }
    allow_files(usize::from(config.ports));
    let options = SinkOptions {
        address: config.address,
        buffer: config.buffer,
        stamps: config.stamps == Stamps::Kernel,
    };
    let sockets: Vec<OwnedFd> = (0..config.ports)
        .map(|offset| open_sink(options, config.port + offset))
        .collect::<Result<_>>()?;
    let mut tally = Tally::of_sink(
        config.run,
        config.echo,
        timeline(&config.timeline, config.timeline_ms)?,
    );
    let mut inlets = Inlets::new(
        &sockets,
        LONGEST,
        !config.echo && config.stamps == Stamps::Kernel,
    );
    control.set_ready();

    let ended_by = until_over(config, control, &mut inlets, &mut tally)?;
    let (replied, reply_failed) = (inlets.replied, inlets.reply_failed);
    let sink_dropped = sockets.iter().map(|s| dropped(s.as_fd())).sum();
    let run = tally.run();
    let received = tally.finish(sink_dropped, config.per_flow)?;
    let verdict = match received.counts.received {
        0 => "nothing arrived: check the sender's address and ports, and the path".into(),
        _ => received.verdict(),
    };
    let role = if config.echo { "echo" } else { "sink" };
    Ok(SinkReport {
        role,
        run,
        ended_by,
        received,
        replied,
        reply_failed,
        verdict,
    })
}

/// Read until one of the reasons to end; says which.
fn until_over(
    config: &SinkConfig,
    control: &Control,
    inlets: &mut Inlets<'_>,
    tally: &mut Tally,
) -> Result<&'static str> {
    let start = now();
    let mut known_at = None;
    loop {
        inlets.round(tally, now() + TICK)?;
        control.set_packets(tally.packets());
        control.add_delay(tally.take_slowest());
        let at = now();
        if tally.sent_known().is_none()
            && let Some(file) = &config.sent
            && let Some(sent) = read_sent(file)?
            // A file of an earlier run may still be there: ours comes later.
            && tally.run().is_some_and(|run| run & 0xffff == sent.run & 0xffff)
        {
            tally.set_sent(&sent.sent_per_flow, "file");
        }
        if let Some(source) = tally.sent_known() {
            let known_at = *known_at.get_or_insert(at);
            let quiet = at.saturating_sub(tally.last_arrival().unwrap_or(0).max(known_at));
            if tally.complete() && quiet >= SETTLE.min(ns(config.linger))
                || quiet >= ns(config.linger)
            {
                return Ok(source);
            }
        }
        if control.stopped() {
            return Ok("stopped");
        }
        if config.duration.is_some_and(|d| at - start >= ns(d)) {
            return Ok("duration");
        }
        match tally.last_arrival() {
            Some(last) if at.saturating_sub(last) >= ns(config.idle) => return Ok("idle"),
            None if config.wait.is_some_and(|w| at - start >= ns(w)) => return Ok("nothing"),
            _ => {}
        }
    }
}

/// The sender's report, once it is there.
fn read_sent(path: &Path) -> Result<Option<SentFile>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => {
            return Err(Error::system(
                format!("cannot read {}", path.display()),
                e,
                "give a sender's report",
            ));
        }
    };
    serde_json::from_str(&text).map(Some).map_err(|e| {
        Error::Usage(format!(
            "{} is not the report of `probe send`: {e}",
            path.display()
        ))
    })
}
