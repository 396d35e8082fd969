//! The forwarder: every frame from one interface to the other and back, as a transparent network
//! function does that reads and writes packet sockets.

use crate::delay_line::DelayLine;
use crate::fault::{FaultPlan, Injector, Side};
use crate::lane::{Lane, LaneCounts};
use crate::packet_socket::PacketSocket;
use crate::seen::SeenFile;
use flowferry_probe::clock::now;
use flowferry_probe::control::Control;
use flowferry_probe::error::{Error, Result};
use flowferry_probe::worker::Place;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the forwarder looks at its [`Control`] and at the drop counters.
const TICK: Duration = Duration::from_millis(20);

/// What a forwarder is to do.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ForwarderConfig {
    /// Network namespace of both interfaces.
    pub netns: Option<String>,
    /// CPU to run on.
    pub cpu: Option<usize>,
    /// First interface.
    pub a: String,
    /// Second interface.
    pub b: String,
    /// One-way delay in seconds, in each direction.
    pub delay: f64,
    /// Bytes that may be held for it, per direction.
    pub delay_buffer: usize,
    /// Fault plans, see [`crate::fault`]; at most one per side.
    pub faults: Vec<String>,
    /// Record every frame in this file, see [`crate::seen`].
    pub seen: Option<PathBuf>,
    /// Write the report here: when ready, when asked for it (`Control::request_dump`), at the end.
    pub stats: Option<PathBuf>,
    /// Socket buffers in bytes.
    pub buffer: usize,
}

impl Default for ForwarderConfig {
    fn default() -> Self {
        ForwarderConfig {
            netns: None,
            cpu: None,
            a: String::new(),
            b: String::new(),
            delay: 0.0,
            delay_buffer: 64 << 20,
            faults: Vec::new(),
            seen: None,
            stats: None,
            buffer: 64 << 20,
        }
    }
}

/// What a forwarder did.
#[derive(Clone, Debug, Serialize)]
pub struct ForwarderReport {
    /// First interface.
    pub a: String,
    /// Second interface.
    pub b: String,
    /// Since the start.
    pub seconds: f64,
    /// Frames that came in at `a`.
    pub a_to_b: LaneCounts,
    /// Frames that came in at `b`.
    pub b_to_a: LaneCounts,
}

/// Run a forwarder until it is stopped, in threads of its own.
pub fn run(config: ForwarderConfig, control: Arc<Control>) -> Result<ForwarderReport> {
    let place = Place {
        netns: config.netns.clone(),
        cpu: config.cpu,
    };
    let thread = place.spawn("forwarder", move || forward(&config, &control))?;
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The plan for frames coming in at `side`.
fn plan_for(side: Side, plans: &[FaultPlan]) -> Result<Option<FaultPlan>> {
    let mut concerned = plans.iter().filter(|plan| plan.concerns(side));
    let plan = concerned.next().cloned();
    match concerned.next() {
        Some(_) => Err(Error::Usage(
            "two fault plans for one side: add on=a and on=b".into(),
        )),
        None => Ok(plan),
    }
}

fn forward(config: &ForwarderConfig, control: &Control) -> Result<ForwarderReport> {
    let plans: Vec<FaultPlan> = config
        .faults
        .iter()
        .map(|text| text.parse().map_err(Error::Usage))
        .collect::<Result<_>>()?;
    if config.a == config.b {
        return Err(Error::Usage(format!(
            "{:?} twice: a forwarder stands between two interfaces",
            config.a
        )));
    }
    if !(0.0..=60.0).contains(&config.delay) {
        return Err(Error::Usage(format!(
            "a delay of {} s: 0 to 60 are possible",
            config.delay
        )));
    }
    let start = now();
    let sockets = [
        PacketSocket::open(&config.a, config.buffer)?,
        PacketSocket::open(&config.b, config.buffer)?,
    ];
    let seen = config
        .seen
        .as_deref()
        .map(SeenFile::create)
        .transpose()?
        .map(Mutex::new);
    let counts = [Mutex::default(), Mutex::default()];
    let mut dropped = [0; 2];
    let mut lanes = Vec::new();
    for (side, from, to) in [(Side::A, 0, 1), (Side::B, 1, 0)] {
        lanes.push(Lane {
            side,
            from: &sockets[from],
            to: &sockets[to],
            injector: plan_for(side, &plans)?.map(Injector::new),
            delay: (config.delay > 0.0)
                .then(|| DelayLine::new((config.delay * 1e9) as u64, config.delay_buffer)),
            seen: seen.as_ref(),
            control,
            counts: &counts[from],
        });
    }
    let report = |dropped: &mut [u64; 2]| {
        let lane = |index: usize, dropped: &mut [u64; 2]| {
            dropped[index] += sockets[index].take_dropped();
            let counts = *counts[index].lock().unwrap_or_else(PoisonError::into_inner);
            LaneCounts {
                socket_dropped: dropped[index],
                ..counts
            }
        };
        ForwarderReport {
            a: config.a.clone(),
            b: config.b.clone(),
            seconds: (now() - start) as f64 / 1e9,
            a_to_b: lane(0, dropped),
            b_to_a: lane(1, dropped),
        }
    };
    // The sockets are open: from here on no frame is missed. The file is the sign of it to others.
    if let Some(path) = &config.stats {
        write_whole(path, &report(&mut dropped))?;
    }
    control.set_ready();
    std::thread::scope(|scope| {
        let threads: Vec<_> = lanes
            .into_iter()
            .map(|lane| {
                scope.spawn(move || {
                    let result = lane.run();
                    // One lane alone is no forwarder.
                    control.stop();
                    result
                })
            })
            .collect();
        let mut told = Ok(());
        while !control.stopped() {
            std::thread::sleep(TICK);
            let now_done = report(&mut dropped);
            control.set_packets(now_done.a_to_b.received + now_done.b_to_a.received);
            if control.take_dump() {
                if let Some(seen) = &seen {
                    told = seen.lock().unwrap_or_else(PoisonError::into_inner).flush();
                }
                if let (Ok(()), Some(path)) = (&told, &config.stats) {
                    told = write_whole(path, &now_done);
                }
                if told.is_err() {
                    control.stop();
                }
            }
        }
        threads.into_iter().try_for_each(|t| {
            t.join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        told
    })?;
    if let Some(seen) = seen {
        seen.into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .flush()?;
    }
    let report = report(&mut dropped);
    if let Some(path) = &config.stats {
        write_whole(path, &report)?;
    }
    Ok(report)
}

/// Write a file that is there whole or not at all: someone may be waiting for it.
fn write_whole(path: &Path, report: &ForwarderReport) -> Result<()> {
    let refused = |e| {
        Error::system(
            format!("cannot write {}", path.display()),
            e,
            "check the directory",
        )
    };
    let mut partial = path.as_os_str().to_owned();
    partial.push(".part");
    let text = serde_json::to_string(report).map_err(|e| refused(e.into()))?;
    std::fs::write(&partial, text + "\n")
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_plan_per_side() {
        let plans = |texts: &[&str]| {
            texts
                .iter()
                .map(|t| t.parse().unwrap())
                .collect::<Vec<FaultPlan>>()
        };
        assert!(
            plan_for(Side::A, &plans(&["drop=1 on=a", "drop=2 on=b"]))
                .unwrap()
                .is_some()
        );
        assert!(
            plan_for(Side::A, &plans(&["drop=1 on=b"]))
                .unwrap()
                .is_none()
        );
        assert!(plan_for(Side::A, &plans(&["drop=1", "drop=2 on=a"])).is_err());
    }

    #[test]
    fn a_missing_interface_is_named() {
        let config = ForwarderConfig {
            a: "ff-none-a".into(),
            b: "ff-none-b".into(),
            ..Default::default()
        };
        let error = run(config, Arc::default()).unwrap_err().to_string();
        assert!(error.contains("ff-none-a"), "{error}");
    }
}
