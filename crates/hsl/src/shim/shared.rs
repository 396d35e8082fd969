//! The Rust side of `bpf/shared.h`, field by field; see there for what each one means.
//! `tests/layout.rs` compares sizes and offsets with the BTF that clang wrote.
#![allow(missing_docs)]

use crate::key::Key;

pub const RULES_PER_SIDE: usize = 64;
pub const RECENT_BITS: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Mode {
    Pass = 0,
    Capture = 1,
    Arm = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Write {
    Captured = 0,
    Adopt = 1,
    Flush = 2,
    Forget = 3,
    Lose = 4,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    pub packets: u64,
    pub bytes: u64,
    pub swapped: u64,
    pub last_ns: u64,
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Recent {
    pub key: Key,
    pub packets: u32,
    pub bytes: u64,
    pub tick: u64,
}

impl Recent {
    pub const EMPTY: Recent = Recent {
        key: Key::EMPTY,
        packets: 0,
        bytes: 0,
        tick: 0,
    };

    /// Where a flow's slot is in `ff_recent` (`account` in account.h).
    pub fn slot(key: &Key) -> u32 {
        let word = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().expect("four"));
        let ports = [key.low_port, key.high_port].concat();
        let ends = word(&key.low[..4])
            ^ word(&key.low[12..])
            ^ word(&key.high[..4])
            ^ word(&key.high[12..]);
        let hash = ends.wrapping_mul(0x9e37_79b1) ^ word(&ports).wrapping_mul(0x85eb_ca6b);
        hash >> (32 - RECENT_BITS) | u32::from(key.side & 1) << RECENT_BITS
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowMode {
    pub mode: u32,
    pub zero: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Count {
    pub outstanding: i64,
    pub released_ns: u64,
    pub cpu: u32,
    pub hash: u32,
    pub mark: u32,
    pub captured_cpu: u32,
    pub captured: u64,
    pub released: u64,
    pub overflowed: u64,
}

impl Count {
    /// Packets that were captured, or should have been, and that no agent will let through.
    pub fn late(&self) -> u64 {
        self.outstanding.max(0) as u64 + self.overflowed
    }
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Rule {
    pub mask: Key,
    pub value: Key,
    pub mode: u32,
    pub zero: u32,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Port {
    pub tap: u32,
    pub outer: u32,
    pub inner: u32,
    pub rules: u32,
    pub write: u32,
    pub outcome: u32,
    pub amount: u32,
    pub zero: u32,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Control {
    pub active: u32,
    pub mark_captured: u32,
    pub mark_released: u32,
    pub epoch: u32,
    pub heartbeat_ns: u64,
    pub timeout_ns: u64,
    pub settle_ns: u64,
    pub tripped: u32,
    pub zero: u32,
    pub port: [Port; 2],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[repr(C)]
pub struct Counters {
    pub captured: u64,
    pub released: u64,
    pub overflowed: u64,
    pub failed_open: u64,
    pub table_full: u64,
    pub refused: u64,
    pub discarded: u64,
    pub lost: u64,
    pub foreign: u64,
    pub control: u64,
    pub control_lost: u64,
    pub unparsed: u64,
}

// SAFETY: plain C structs of integers without padding, any bit pattern is a value.
unsafe impl aya::Pod for Key {}
// SAFETY: as above.
unsafe impl aya::Pod for Flow {}
// SAFETY: as above.
unsafe impl aya::Pod for Recent {}
// SAFETY: as above.
unsafe impl aya::Pod for FlowMode {}
// SAFETY: as above.
unsafe impl aya::Pod for Count {}
// SAFETY: as above.
unsafe impl aya::Pod for Rule {}
// SAFETY: as above.
unsafe impl aya::Pod for Counters {}

impl Counters {
    /// Sum, field by field.
    pub fn plus(self, other: &Counters) -> Counters {
        Counters {
            captured: self.captured + other.captured,
            released: self.released + other.released,
            overflowed: self.overflowed + other.overflowed,
            failed_open: self.failed_open + other.failed_open,
            table_full: self.table_full + other.table_full,
            refused: self.refused + other.refused,
            discarded: self.discarded + other.discarded,
            lost: self.lost + other.lost,
            foreign: self.foreign + other.foreign,
            control: self.control + other.control,
            control_lost: self.control_lost + other.control_lost,
            unparsed: self.unparsed + other.unparsed,
        }
    }
}
