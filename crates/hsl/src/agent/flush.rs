//! Flushing: proof that everything the kernel had queued on every CPU has come through.
//!
//! Steering may put a marker into another CPU's queue than the packets before it, so its arrival
//! proves nothing (docs/design.md §5). After it has arrived, one flush frame is put behind whatever
//! waits in each CPU's queue; each comes back through the TAP, behind the last packet which that
//! CPU captured. When all are back, every packet that reached the interface before the marker has
//! been captured and read, or has passed.
//!
//! A frame gets into a CPU's queue by being written from that CPU; the program sends it through
//! the queue of its own TAP, on which nothing steers.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::key::{ETHERTYPE_CONTROL, Side};
use crate::shim::tap::VNET_HEADER;
use crate::shim::{Outcome, Shim};

/// Destination of flush frames; they never leave the instance.
const DESTINATION: [u8; 6] = [0x02, 0xff, 0, 0, 0, 0x1f];
/// A frame that has not come back by then is sent again.
const PATIENCE_NS: u64 = 100_000_000;
const ATTEMPTS: u32 = 5;

/// What a flush is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushId(pub u64);

struct Flush {
    side: Side,
    /// CPUs whose frame is not back, with the number of attempts.
    missing: BTreeMap<usize, u32>,
    sent_ns: u64,
    began_ns: u64,
}

/// A flush that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flushed {
    /// Which one.
    pub id: FlushId,
    /// On which side.
    pub side: Side,
    /// From the first frame sent to the last one read, in nanoseconds.
    pub duration_ns: u64,
}

/// Flushes under way.
pub struct Flushes {
    under_way: BTreeMap<u64, Flush>,
    next: u64,
    secret: [u8; 16],
    cpus: Vec<usize>,
}

impl Flushes {
    /// For all CPUs that are on; frames carry `secret`, so that nobody else's count.
    pub fn new(secret: [u8; 16]) -> io::Result<Flushes> {
        let online = fs::read_to_string("/sys/devices/system/cpu/online")?;
        let cpus = ranges(online.trim())
            .ok_or_else(|| io::Error::other(format!("{online:?} is no list of CPUs")))?;
        Ok(Flushes {
            under_way: BTreeMap::new(),
            next: 1,
            secret,
            cpus,
        })
    }

    /// How many CPUs a flush goes through.
    pub fn cpus(&self) -> usize {
        self.cpus.len()
    }

    /// Begin a flush on `side`.
    pub fn begin(&mut self, shim: &mut dyn Shim, side: Side, now: u64) -> io::Result<FlushId> {
        let id = self.next;
        self.next += 1;
        let missing = self.cpus.iter().map(|cpu| (*cpu, 0)).collect();
        self.under_way.insert(
            id,
            Flush {
                side,
                missing,
                sent_ns: now,
                began_ns: now,
            },
        );
        self.send(shim, id)
            .inspect_err(|_| drop(self.under_way.remove(&id)))?;
        Ok(FlushId(id))
    }

    fn send(&mut self, shim: &mut dyn Shim, id: u64) -> io::Result<()> {
        let Some(flush) = self.under_way.get_mut(&id) else {
            return Ok(());
        };
        let home = sched_getaffinity(Pid::from_raw(0))?;
        let mut sent = Ok(());
        for (cpu, attempts) in &mut flush.missing {
            *attempts += 1;
            let mut only = CpuSet::new();
            only.set(*cpu)?;
            sent = sched_setaffinity(Pid::from_raw(0), &only).map_err(io::Error::from);
            if sent.is_ok() {
                let frame = frame(&self.secret, id, *cpu);
                // Refused: the queue is full; the attempt after the patience repeats it.
                sent = shim.flush(flush.side, &frame).map(|_: Outcome| ());
            }
            if sent.is_err() {
                break;
            }
        }
        sched_setaffinity(Pid::from_raw(0), &home)?;
        sent
    }

    /// Whether `frame` (without its virtio header) is one of ours; if it is the last one of a
    /// flush, that flush.
    pub fn on_frame(&mut self, frame: &[u8], now: u64) -> Option<Option<Flushed>> {
        let (id, came, meant) = self.recognise(frame)?;
        let Some(flush) = self.under_way.get_mut(&id) else {
            return Some(None);
        };
        if came == meant {
            flush.missing.remove(&meant);
        }
        if !flush.missing.is_empty() {
            return Some(None);
        }
        let flush = self.under_way.remove(&id)?;
        Some(Some(Flushed {
            id: FlushId(id),
            side: flush.side,
            duration_ns: now - flush.began_ns,
        }))
    }

    fn recognise(&self, frame: &[u8]) -> Option<(u64, usize, usize)> {
        let body = frame.strip_prefix(&DESTINATION)?.get(8..)?;
        let (numbers, secret) = (body.get(..16)?, body.get(16..32)?);
        if secret != self.secret {
            return None;
        }
        let word = |at: usize| u32::from_ne_bytes(numbers[at..at + 4].try_into().expect("four"));
        let id = u64::from_ne_bytes(numbers[8..16].try_into().expect("eight"));
        Some((id, word(0) as usize, word(4) as usize))
    }

    /// Send again what has not come back; flushes that never will are given up and returned.
    pub fn retry(&mut self, shim: &mut dyn Shim, now: u64) -> Vec<FlushId> {
        let late: Vec<u64> = self
            .under_way
            .iter()
            .filter(|(_, flush)| now.saturating_sub(flush.sent_ns) > PATIENCE_NS)
            .map(|(id, _)| *id)
            .collect();
        let mut given_up = Vec::new();
        for id in late {
            let flush = self.under_way.get_mut(&id).expect("listed above");
            flush.sent_ns = now;
            let tired = flush.missing.values().any(|attempts| *attempts >= ATTEMPTS);
            if tired || self.send(shim, id).is_err() {
                self.under_way.remove(&id);
                given_up.push(FlushId(id));
            }
        }
        given_up
    }

    /// Whether any is under way.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }
}

/// The numbers in a list such as `0-3,8`.
fn ranges(list: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(first.parse().ok()?..=last.parse::<usize>().ok()?);
    }
    Some(numbers)
}

/// destination, source, EtherType, CPU it came through (filled in by the program), CPU it was
/// meant for, id, secret.
fn frame(secret: &[u8; 16], id: u64, cpu: usize) -> Vec<u8> {
    let mut frame = vec![0; VNET_HEADER];
    frame.extend(DESTINATION);
    frame.extend([0x02, 0xff, 0, 0, 0, 0]);
    frame.extend(ETHERTYPE_CONTROL.to_be_bytes());
    frame.extend(u32::MAX.to_ne_bytes());
    frame.extend((cpu as u32).to_ne_bytes());
    frame.extend(id.to_ne_bytes());
    frame.extend(secret);
    frame.resize(VNET_HEADER + 60, 0);
    frame
}
