//! The page that the agent and the programs share: flags and clocks, no system call to touch.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, read_volatile, write_volatile};
use std::time::SystemTime;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::shared::{Control, Write};
use crate::key::Side;

/// What became of a frame written to a TAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is on its way to the function.
    Taken,
    /// The kernel's queue in front of the interface is full: write it again.
    Refused,
    /// The programs had failed open: it would have come late, so it was thrown away.
    Discarded,
}

/// The mapped `struct ff_control`. Every field has one writer, so plain stores suffice; they are
/// volatile because the other side is another program.
#[derive(Debug)]
pub struct ControlPage {
    page: NonNull<Control>,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl Send for ControlPage {}

macro_rules! field {
    ($page:expr, $($path:tt)+) => {
        // SAFETY: the mapping is live and as large as `Control` for as long as the page exists.
        unsafe { &raw mut (*$page.page.as_ptr()).$($path)+ }
    };
}

macro_rules! get {
    ($page:expr, $($path:tt)+) => {{
        let at = field!($page, $($path)+);
        // SAFETY: as in `field!`, aligned by the C layout.
        unsafe { read_volatile(at) }
    }};
}

macro_rules! set {
    ($page:expr, $($path:tt)+) => {{
        set!(@ $page, [], $($path)+)
    }};
    (@ $page:expr, [$($path:tt)*], = $value:expr) => {{
        let (at, value) = (field!($page, $($path)*), $value);
        // SAFETY: as in `get!`.
        unsafe { write_volatile(at, value) }
    }};
    (@ $page:expr, [$($path:tt)*], $next:tt $($rest:tt)*) => {
        set!(@ $page, [$($path)* $next], $($rest)*)
    };
}

impl ControlPage {
    /// Map the array behind `map`.
    pub fn map(map: BorrowedFd<'_>) -> io::Result<ControlPage> {
        let length = NonZeroUsize::new(size_of::<Control>()).expect("not empty");
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh shared mapping, chosen by the kernel, of a map that is at least this long.
        let page = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(ControlPage { page: page.cast() })
    }

    /// The interfaces of a side; `inner` 0 for the kernel shim.
    pub fn set_wiring(&self, side: Side, outer: u32, inner: u32) {
        let at = side.index();
        set!(self, port[at].outer = outer);
        set!(self, port[at].inner = inner);
    }

    /// What [`ControlPage::set_wiring`] set: (outer, inner).
    pub fn wiring(&self, side: Side) -> (u32, u32) {
        let at = side.index();
        (get!(self, port[at].outer), get!(self, port[at].inner))
    }

    /// Where captured packets of a side go; 0 when there is no TAP.
    pub fn set_tap(&self, side: Side, index: u32) {
        let at = side.index();
        set!(self, port[at].tap = index);
    }

    /// Which rules are in force on a side: `bank << 16 | number`.
    pub fn set_rules(&self, side: Side, rules: u32) {
        let at = side.index();
        set!(self, port[at].rules = rules);
    }

    /// Off, the programs do nothing but accounting.
    pub fn set_active(&self, active: bool) {
        set!(self, active = u32::from(active));
    }

    /// Say that the agent is alive. `now`: CLOCK_MONOTONIC in nanoseconds.
    pub fn beat(&self, now: u64) {
        set!(self, heartbeat_ns = now);
    }

    /// The last [`ControlPage::beat`].
    pub fn last_beat(&self) -> u64 {
        get!(self, heartbeat_ns)
    }

    /// The programs (or the agent itself) found that packets have overtaken what is held.
    pub fn tripped(&self) -> bool {
        get!(self, tripped) != 0
    }

    /// Make the programs fail open until the next epoch.
    pub fn trip(&self) {
        set!(self, tripped = 1u32);
    }

    /// The number of the present epoch.
    pub fn epoch(&self) -> u32 {
        get!(self, epoch)
    }

    /// Begin anew, with marks nobody else uses and the given clocks in nanoseconds.
    ///
    /// The first epoch of a page is the date and time: a page that has lost its pins, after a reboot,
    /// does not count again through numbers that recorded frames may quote.
    pub fn begin_epoch(&self, now: u64, timeout_ns: u64, settle_ns: u64) {
        let next = match self.epoch() {
            0 => seconds_now(),
            epoch => epoch.wrapping_add(1),
        };
        set!(self, epoch = next);
        set!(self, timeout_ns = timeout_ns);
        set!(self, settle_ns = settle_ns);
        self.beat(now);
        set!(self, tripped = 0u32);
    }

    /// The marks that tell captured and released packets from all others; not zero, not equal.
    pub fn set_marks(&self, captured: u32, released: u32) {
        set!(self, mark_captured = captured);
        set!(self, mark_released = released);
    }

    /// Announce what the next write to a side's TAP is.
    pub fn announce(&self, side: Side, write: Write, amount: u32) {
        let at = side.index();
        set!(self, port[at].amount = amount);
        set!(self, port[at].write = write as u32);
    }

    /// What the program made of the last write to a side's TAP.
    pub fn outcome(&self, side: Side) -> Outcome {
        let at = side.index();
        match get!(self, port[at].outcome) {
            0 => Outcome::Taken,
            1 => Outcome::Refused,
            _ => Outcome::Discarded,
        }
    }
}

/// Seconds since 1970, in 32 bits.
fn seconds_now() -> u32 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(1, |since| since.as_secs() as u32).max(1)
}

impl Drop for ControlPage {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length, and nothing refers to it any more.
        let _ = unsafe { munmap(self.page.cast(), size_of::<Control>()) };
    }
}
