//! One direction of the forwarder: frames from one packet socket to another.

use crate::delay_line::{Bytes, DelayLine};
use crate::fault::{FaultCounts, Injector, Side};
use crate::frame::{Vnet, probe_headers};
use crate::packet_socket::{Incoming, Outgoing, PacketSocket};
use crate::seen::SeenFile;
use flowferry_probe::clock::{now, sleep_until};
use flowferry_probe::control::Control;
use flowferry_probe::error::{Error, Result};
use flowferry_probe::packet::Kind;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use serde::Serialize;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Frames per system call.
const BATCH: usize = 64;
/// The longest a lane sleeps before it looks at its [`Control`], ns.
const TICK: u64 = 50_000_000;
/// Pause before a refused frame is tried again, ns.
const PAUSE: u64 = 20_000;
/// Give a frame up after so long, ns: a peer that is down refuses for ever.
const PATIENCE: u64 = 20_000_000;

/// What one direction did.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct LaneCounts {
    /// Frames that came in.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Of them, super-frames (GSO): each stands for several packets.
    pub super_frames: u64,
    /// Of them, frames whose VLAN tag was put back.
    pub retagged: u64,
    /// Frames that left.
    pub sent: u64,
    /// Dropped by the kernel at our own socket, its buffer full.
    pub socket_dropped: u64,
    /// Too long for the buffer, or not readable; not forwarded.
    pub unreadable: u64,
    /// Times a full queue behind the other interface refused a frame, which was sent again.
    pub send_retries: u64,
    /// Refused for good: longer than the other interface allows.
    pub too_long: u64,
    /// Refused for good: the other interface or its peer is down.
    pub send_failed: u64,
    /// No room in the delay line.
    pub delay_dropped: u64,
    /// Faults made on purpose.
    pub faults: FaultCounts,
}

/// A frame that outlives the buffer it came in.
#[derive(Clone, Debug)]
pub struct Frame {
    vnet: Vnet,
    bytes: Box<[u8]>,
}

impl Bytes for Frame {
    fn size(&self) -> usize {
        self.bytes.len() + size_of::<Frame>()
    }
}

/// A frame on its way through the lane.
#[derive(Clone, Debug)]
enum Passing {
    /// Still in the buffer it came in.
    Slot(usize),
    Owned(Frame),
}

impl Passing {
    fn owned(self, incoming: &Incoming) -> Frame {
        match self {
            Passing::Owned(frame) => frame,
            Passing::Slot(index) => {
                let (vnet, bytes) = incoming.frame(index);
                Frame {
                    vnet: *vnet,
                    bytes: bytes.into(),
                }
            }
        }
    }
}

/// What a lane works with.
pub struct Lane<'a> {
    /// Where its frames come in.
    pub side: Side,
    /// The socket there.
    pub from: &'a PacketSocket,
    /// The socket they leave by.
    pub to: &'a PacketSocket,
    /// Faults to make.
    pub injector: Option<Injector<Frame>>,
    /// Delay to add.
    pub delay: Option<DelayLine<Frame>>,
    /// Record of the frames.
    pub seen: Option<&'a Mutex<SeenFile>>,
    /// To stop it.
    pub control: &'a Control,
    /// Its counts, renewed after every batch.
    pub counts: &'a Mutex<LaneCounts>,
}

impl Lane<'_> {
    /// Forward until stopped; then let go what is held.
    pub fn run(mut self) -> Result<()> {
        let mut counts = LaneCounts::default();
        let mut incoming = Incoming::new(BATCH);
        let mut outgoing = Outgoing::default();
        let mut passing = Vec::with_capacity(2 * BATCH);
        let result = loop {
            if self.control.stopped() {
                break self.send_rest(&mut outgoing, &mut counts);
            }
            if let Err(e) = self.turn(&mut incoming, &mut outgoing, &mut passing, &mut counts) {
                break Err(e);
            }
            self.publish(&counts);
        };
        self.publish(&counts);
        result
    }

    fn publish(&self, counts: &LaneCounts) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = *counts;
    }

    fn turn(
        &mut self,
        incoming: &mut Incoming,
        outgoing: &mut Outgoing,
        passing: &mut Vec<Passing>,
        counts: &mut LaneCounts,
    ) -> Result<()> {
        let mut found = self.receive(incoming, counts)?;
        if found == 0 {
            self.wait()?;
            found = self.receive(incoming, counts)?;
        }
        let at = now();
        passing.clear();
        self.record(at, incoming, found)?;
        for index in 0..found {
            let (vnet, frame) = incoming.frame(index);
            counts.received += 1;
            counts.received_bytes += frame.len() as u64;
            counts.super_frames += u64::from(vnet.is_super());
            counts.retagged += u64::from(incoming.was_tagged(index));
            if incoming.was_cut(index) {
                counts.unreadable += 1;
            } else {
                passing.push(Passing::Slot(index));
            }
        }
        self.make_faults(at, incoming, passing, counts);
        if let Some(line) = &mut self.delay {
            for frame in passing.drain(..) {
                if !line.push(frame.owned(incoming), at) {
                    counts.delay_dropped += 1;
                }
            }
            while passing.len() < 2 * BATCH
                && let Some(frame) = line.pop(at)
            {
                passing.push(Passing::Owned(frame));
            }
        }
        for frame in passing.iter() {
            let (vnet, bytes) = match frame {
                Passing::Slot(index) => incoming.frame(*index),
                Passing::Owned(frame) => (&frame.vnet, &*frame.bytes),
            };
            // SAFETY: `passing` and `incoming` are left alone until `send` has cleared `outgoing`.
            unsafe { outgoing.add(vnet, bytes) };
        }
        self.send(outgoing, counts)
    }

    fn receive(&self, incoming: &mut Incoming, counts: &mut LaneCounts) -> Result<usize> {
        match incoming.receive(self.from) {
            Ok(found) => Ok(found),
            // Down for a while, or gone: the socket tells once either way.
            Err(_) if self.from.is_there() => {
                counts.unreadable += 1;
                Ok(0)
            }
            Err(e) => {
                let what = format!("interface {:?} is gone", self.from.interface);
                Err(Error::system(
                    what,
                    e,
                    "start the forwarder again when it is back",
                ))
            }
        }
    }

    /// Sleep until a frame is there, or something held is due.
    fn wait(&self) -> Result<()> {
        let due = [
            self.delay.as_ref().and_then(DelayLine::next_due),
            self.injector.as_ref().and_then(Injector::deadline),
        ];
        let at = now();
        let until = due
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(u64::MAX)
            .min(at + TICK);
        let wait = TimeSpec::from_duration(Duration::from_nanos(until.saturating_sub(at)));
        match ppoll(
            &mut [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)],
            Some(wait),
            None,
        ) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(e) => Err(Error::system("cannot wait for frames", e, "see ppoll(2)")),
        }
    }

    fn record(&self, at: u64, incoming: &Incoming, found: usize) -> Result<()> {
        let Some(seen) = self.seen.filter(|_| found > 0) else {
            return Ok(());
        };
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        (0..found).try_for_each(|index| {
            let (vnet, frame) = incoming.frame(index);
            seen.record(at, self.side, vnet, frame)
        })
    }

    fn make_faults(
        &mut self,
        at: u64,
        incoming: &Incoming,
        passing: &mut Vec<Passing>,
        counts: &mut LaneCounts,
    ) {
        let Some(injector) = &mut self.injector else {
            return;
        };
        let mut out = Vec::with_capacity(passing.len() + 1);
        for frame in passing.drain(..).map(|frame| frame.owned(incoming)) {
            let counted = injector.plan().counts_all()
                || probe_headers(&frame.bytes, &frame.vnet)
                    .any(|h| matches!(h.kind, Kind::Data | Kind::Reply));
            injector.push(frame, counted, at, &mut out);
        }
        injector.expire(at, &mut out);
        counts.faults = injector.counts();
        passing.extend(out.into_iter().map(Passing::Owned));
    }

    /// Send all frames. A full queue is waited for; what is refused for good is counted.
    fn send(&self, outgoing: &mut Outgoing, counts: &mut LaneCounts) -> Result<()> {
        let mut since = None;
        while outgoing.left() > 0 {
            let error = match self.to.send(outgoing) {
                Ok(taken) => {
                    outgoing.advance(taken);
                    counts.sent += taken as u64;
                    since = None;
                    continue;
                }
                Err(error) => error,
            };
            let at = now();
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::ENOBUFS | libc::EAGAIN | libc::ENOMEM)
                    if at - *since.get_or_insert(at) < PATIENCE =>
                {
                    counts.send_retries += 1;
                    sleep_until(at + PAUSE);
                }
                Some(libc::EMSGSIZE) => {
                    counts.too_long += 1;
                    outgoing.advance(1);
                }
                _ => {
                    counts.send_failed += 1;
                    outgoing.advance(1);
                    since = None;
                }
            }
        }
        outgoing.clear();
        Ok(())
    }

    /// Stopped: what is held goes out at once, in order.
    fn send_rest(&mut self, outgoing: &mut Outgoing, counts: &mut LaneCounts) -> Result<()> {
        let mut rest = Vec::new();
        if let Some(line) = &mut self.delay {
            rest.extend(std::iter::from_fn(|| line.pop(u64::MAX)));
        }
        if let Some(injector) = &mut self.injector {
            injector.expire(u64::MAX, &mut rest);
        }
        for frame in &rest {
            // SAFETY: `rest` is left alone until `send` has cleared `outgoing`.
            unsafe { outgoing.add(&frame.vnet, &frame.bytes) };
        }
        self.send(outgoing, counts)
    }
}
