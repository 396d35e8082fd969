//! What the owner of a running job can see and say.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shared between a job and whoever started it.
#[derive(Debug, Default)]
pub struct Control {
    stop: AtomicBool,
    ready: AtomicBool,
    dump: AtomicBool,
    packets: AtomicU64,
    slowest_ns: AtomicU64,
}

impl Control {
    /// Ask the job to end in order and to report.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether it was asked to end.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Said by the job: its sockets are open.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// Whether the job's sockets are open.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Ask for a report in between, by a job that can.
    pub fn request_dump(&self) {
        self.dump.store(true, Ordering::Release);
    }

    /// Take the request for a report.
    pub fn take_dump(&self) -> bool {
        self.dump.swap(false, Ordering::AcqRel)
    }

    /// Said by the job: packets handled so far.
    pub fn set_packets(&self, packets: u64) {
        self.packets.store(packets, Ordering::Relaxed);
    }

    /// Said by one of a job's threads: so many more packets handled.
    pub fn add_packets(&self, packets: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
    }

    /// Packets handled so far.
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// Said by the job: a packet has taken so long, ns.
    pub fn add_delay(&self, delay: u64) {
        self.slowest_ns.fetch_max(delay, Ordering::Relaxed);
    }

    /// The longest that a packet has taken since this was called last, ns; 0 if none has come.
    pub fn take_slowest(&self) -> u64 {
        self.slowest_ns.swap(0, Ordering::Relaxed)
    }
}
