//! Packets of the data plane: captured ones come in, released ones go out, control frames are
//! for us.

use std::time::Duration;

use flowferry_wire::Command;
use serde_json::json;

use super::pace::Pace;
use super::{Agent, AgentError, Marker, Wait, api, flush, now};
use crate::endpoint::Disposition;
use crate::handover::Input;
use crate::handover::translate::to_wire;
use crate::key::{ETHERTYPE_CONTROL, Key, Side};
use crate::shim::tap::VNET_HEADER;
use crate::shim::{Outcome, Write};

/// Frames read per side before the loop looks at anything else. More than are written: what is
/// read waits here, within bounds that abort a hold in time, and not in the TAP, which can only lose.
const READ_BATCH: usize = 1024;
/// Frames written before the loop looks at anything else; few, so that a flow's last packets are
/// followed at once by those captured meanwhile, until there are none.
const WRITE_BATCH: usize = 128;
/// The kernel's own limit of a CPU's receive queue (`net.core.netdev_max_backlog`).
const BACKLOG: u64 = 1_000;
/// Frames that wait for longer than this have gone.
const BURST_NS: u64 = 5_000_000;
/// How often a reader that is to stall does.
const STALL_EVERY_NS: u64 = 500_000_000;
/// How long to wait for room.
const NAP: Duration = Duration::from_micros(20);

/// Frames written that may wait for their second pass. Whatever is behind the function may have to
/// queue where they do: a quarter of a CPU's queue leaves room for that. Where packets are steered
/// to another CPU, a larger queue lets the agent write on while that one is busy with other things.
/// The limit is the machine's and can be read in its first network namespace only.
pub(super) fn burst() -> u64 {
    let limit = std::fs::read_to_string("/proc/sys/net/core/netdev_max_backlog");
    let limit = limit.ok().and_then(|text| text.trim().parse().ok());
    limit.unwrap_or(BACKLOG).max(4) / 4
}

impl Agent {
    /// Take captured frames off one TAP.
    pub(super) fn read_captured(&mut self, side: Side) -> Result<(), AgentError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut result = Ok(());
        let time = now(); // one for the batch: it ends up in figures only
        for _ in 0..READ_BATCH {
            // Room first: what is not read yet waits in the TAP's own queue.
            if self.endpoint.budget().half_full() && self.endpoint.has_writes() {
                self.busy = true;
                break;
            }
            match self.shim.read(side, &mut buffer) {
                Ok(None) => break,
                Ok(Some(length)) => {
                    self.busy = true;
                    result = self.on_frame(side, &buffer[..length], time);
                }
                // The device is gone: what waited in it is lost, and what follows has passed.
                Err(_) => {
                    self.shim.trip();
                    break;
                }
            }
            if result.is_err() {
                break;
            }
        }
        self.buffer = buffer;
        if self.busy {
            self.stall(time);
        }
        result
    }

    /// For tests: fall asleep now and then while packets come, as a starved process would.
    fn stall(&mut self, time: u64) {
        if self.config.stall_ms > 0 && time >= self.stalled_ns + STALL_EVERY_NS {
            self.stalled_ns = time;
            std::thread::sleep(Duration::from_millis(self.config.stall_ms));
        }
    }

    fn on_frame(&mut self, side: Side, frame: &[u8], time: u64) -> Result<(), AgentError> {
        let Some(packet) = frame
            .get(VNET_HEADER..)
            .and_then(|bytes| Key::parse(bytes, side))
        else {
            return Ok(()); // the programs let nothing through that has no Ethernet header
        };
        if packet.ethertype == ETHERTYPE_CONTROL {
            return self.on_control(side, &frame[VNET_HEADER..]);
        }
        self.captured[side.index()] += 1;
        match self.endpoint.on_frame(&packet, frame, time) {
            Disposition::Write => self.write_out(packet.key, frame),
            Disposition::Lost => {
                if self.take_off(&packet.key, 1) {
                    self.lost += 1; // the endpoint has told its hold
                }
                Ok(())
            }
            Disposition::Kept | Disposition::SendOn => Ok(()),
        }
    }

    pub(super) fn lose(&mut self, key: &Key, packets: u64, why: &str) {
        self.lost += packets;
        self.endpoint.lost(key, packets, why);
    }

    /// Captured packets will not return: tell the programs, and count them.
    pub(super) fn give_up(&mut self, key: &Key, packets: u32, why: &str) {
        if self.take_off(key, packets) {
            self.lose(key, u64::from(packets), why);
        }
    }

    /// Move captured packets from the programs' outstanding ones to their lost ones. If the TAP is
    /// gone they stay outstanding, and starting over counts them.
    pub(super) fn take_off(&mut self, key: &Key, packets: u32) -> bool {
        let done = self.shim.lose(key, packets).is_ok();
        if !done {
            self.shim.trip();
        }
        done
    }

    pub(super) fn write_released(&mut self) -> Result<(), AgentError> {
        let Some(side) = self.endpoint.writes().map(Key::side) else {
            return Ok(());
        };
        let room = self.room(side)?;
        if room == 0 && self.until_released(now()) == Some(0) {
            std::thread::sleep(NAP);
        }
        for _ in 0..WRITE_BATCH.min(room) {
            let Some((key, frame)) = self.endpoint.next_write() else {
                break;
            };
            self.write_out(key, &frame)?;
            if let Some(pace) = &mut self.pace {
                pace.spend(now());
            }
        }
        Ok(())
    }

    /// Nanoseconds until the next packet may be released; `None` if none waits for that.
    pub(super) fn until_released(&self, time: u64) -> Option<u64> {
        self.endpoint.writes()?;
        Some(self.kept_pace().map_or(0, |pace| pace.wait(time)))
    }

    /// The pace, unless there is no time for it.
    fn kept_pace(&self) -> Option<&Pace> {
        let hurry = self.stopping.is_some() || self.endpoint.budget().half_full();
        self.pace.as_ref().filter(|_| !hurry)
    }

    /// How many frames may be written on a side.
    fn room(&mut self, side: Side) -> Result<usize, AgentError> {
        let (passed, time) = (self.shim.counters(side)?.released, now());
        let flight = &mut self.flights[side.index()];
        if flight.passed != passed {
            (flight.passed, flight.since_ns) = (passed, time);
        }
        if flight.written < passed || time - flight.since_ns > BURST_NS {
            flight.written = passed;
        }
        let room = self.burst.saturating_sub(flight.written - passed);
        let paced = self.kept_pace().map_or(room, |pace| pace.room(time));
        Ok(room.min(paced) as usize)
    }

    /// Write one packet to the function, waiting for room in the kernel's queue.
    pub(super) fn write_out(&mut self, key: Key, frame: &[u8]) -> Result<(), AgentError> {
        if self.is_late() {
            return Ok(()); // as if it had been discarded, see below
        }
        let mut deadline = None;
        loop {
            match self.shim.write(key.side(), frame, Write::Captured) {
                Ok(Outcome::Taken) => {
                    self.flights[key.side().index()].written += 1;
                    return Ok(());
                }
                // The next beat starts over; it finds what was captured among the outstanding.
                Ok(Outcome::Discarded) => return Ok(()),
                Ok(Outcome::Refused) => {
                    let time = now();
                    let patience = self.config.heartbeat_timeout_ms * 250_000;
                    if time > *deadline.get_or_insert(time + patience) {
                        let why =
                            "the interface took no packets for a quarter of the heartbeat time-out";
                        self.give_up(&key, 1, why);
                        return Ok(());
                    }
                    std::thread::yield_now();
                }
                // Not a packet to the kernel: it alone is lost.
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                    self.give_up(&key, 1, "the kernel refused it as no packet");
                    return Ok(());
                }
                Err(_) => {
                    self.shim.trip();
                    return Ok(());
                }
            }
        }
    }

    /// Control frames: our own flush frames, and what the controller sends.
    fn on_control(&mut self, side: Side, frame: &[u8]) -> Result<(), AgentError> {
        let time = now();
        if let Some(ours) = self.flushes.on_frame(frame, time) {
            if let Some(flushed) = ours {
                self.on_flushed(flushed, time)?;
            }
            return Ok(());
        }
        let Some(trust) = &mut self.trust else {
            return Ok(());
        };
        // Rejections are counted by the opener.
        let Ok(message) = trust.frames.open(&trust.keys, frame) else {
            return Ok(());
        };
        let message = message.into_inner();
        let own = to_wire(side);
        match message.command {
            Command::Marker if message.side() != Some(own) => {
                self.misplaced += 1;
                return Ok(());
            }
            Command::Prepare if self.stopping.is_some() => return Ok(()),
            // What was disowned must not count as served here by what is armed now, and what was
            // owned has to be listed.
            Command::Prepare => self.account(usize::MAX)?,
            _ => {}
        }
        self.feed(Input::Control { side, message })
    }

    pub(super) fn on_flushed(
        &mut self,
        flushed: flush::Flushed,
        time: u64,
    ) -> Result<(), AgentError> {
        if let Some(marker) = self.markers.remove(&flushed.id.0) {
            self.fenced(flushed.side, &marker, time);
        }
        self.answer_flushed(flushed);
        self.audit.ended(flushed.id.0, true);
        self.flushed(flushed.id.0, false)
    }

    /// Tell whoever asked for it.
    pub(super) fn answer_flushed(&mut self, flushed: flush::Flushed) {
        let answer = api::success(json!({
            "side": flushed.side,
            "cpus": self.flushes.cpus(),
            "duration_us": flushed.duration_ns as f64 / 1e3,
        }));
        self.finish_waits(
            |wait| matches!(wait, Wait::Flush { id } if *id == flushed.id),
            &answer,
        );
    }

    /// Nobody may rely on this marker.
    pub(super) fn fence_failed(&mut self, marker: &Marker, why: &str) {
        self.publish(&json!({
            "event": "fence_failed",
            "handover": marker.handover,
            "sequence": marker.sequence,
            "why": why,
        }));
    }

    /// No packet sent before the marker can arrive any more.
    pub(super) fn fenced(&mut self, side: Side, marker: &Marker, time: u64) {
        self.publish(&json!({
            "event": "fenced",
            "side": side,
            "handover": marker.handover,
            "sequence": marker.sequence,
            "captured_when_seen": marker.captured_when_seen,
            "captured": self.captured[side.index()],
            "flush_us": (time - marker.seen_ns) as f64 / 1e3,
        }));
    }
}
