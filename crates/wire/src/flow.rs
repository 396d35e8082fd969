//! Flows: canonical, direction-free keys (docs/design.md §1).
//!
//! Both directions of a conversation have one key: the smaller end stands first. A list that holds
//! the ends the other way round is rejected, so that equal flows are always equal bytes.

use crate::cursor::Reader;
use crate::error::Malformed;
use crate::frame::Mac;
use crate::tlv::Kind;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Up to two VLAN ids, outer first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vlans {
    // Invariant: the first `count` (at most 2) ids are below 0xfff, the rest are 0.
    count: u8,
    ids: [u16; 2],
}

impl Vlans {
    /// No tag.
    pub const NONE: Self = Self {
        count: 0,
        ids: [0; 2],
    };

    /// The tags with these ids, outer first; id 0 is a priority tag.
    ///
    /// # Errors
    /// Says why, for more than two ids or an id above 4094 (IEEE 802.1Q table 9-2).
    pub fn new(ids: &[u16]) -> Result<Self, &'static str> {
        let mut out = Self::NONE;
        if ids.len() > out.ids.len() {
            return Err("a flow has at most two VLAN ids");
        }
        for (slot, &id) in out.ids.iter_mut().zip(ids) {
            if id > 4094 {
                return Err("a VLAN id is at most 4094");
            }
            *slot = id;
            out.count += 1;
        }
        Ok(out)
    }

    /// The ids, outer first.
    pub fn ids(&self) -> &[u16] {
        &self.ids[..usize::from(self.count)]
    }
}

/// The two ends of a flow and what runs between them. `low` is never above `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ends {
    /// IPv4.
    Ip4 {
        /// IP protocol number.
        protocol: u8,
        /// Smaller end; port 0 where the protocol has none.
        low: (Ipv4Addr, u16),
        /// Greater end.
        high: (Ipv4Addr, u16),
    },
    /// IPv6.
    Ip6 {
        /// IP protocol number (of the upper layer).
        protocol: u8,
        /// Smaller end; port 0 where the protocol has none.
        low: (Ipv6Addr, u16),
        /// Greater end.
        high: (Ipv6Addr, u16),
    },
    /// Anything else, keyed by its addresses (docs/design.md §1).
    Link {
        /// EtherType behind the VLAN tags.
        ethertype: u16,
        /// Smaller address.
        low: Mac,
        /// Greater address.
        high: Mac,
    },
}

/// One flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    vlans: Vlans,
    ends: Ends,
}

fn ordered<T: Ord>(a: T, b: T) -> (T, T) {
    if a <= b { (a, b) } else { (b, a) }
}

const FAMILY_IP4: u8 = 4;
const FAMILY_IP6: u8 = 6;
const FAMILY_LINK: u8 = 2;

impl Flow {
    /// An IPv4 flow; the order of the ends does not matter.
    pub fn ip4(vlans: Vlans, protocol: u8, a: (Ipv4Addr, u16), b: (Ipv4Addr, u16)) -> Self {
        let (low, high) = ordered(a, b);
        let ends = Ends::Ip4 {
            protocol,
            low,
            high,
        };
        Self { vlans, ends }
    }

    /// An IPv6 flow; the order of the ends does not matter.
    pub fn ip6(vlans: Vlans, protocol: u8, a: (Ipv6Addr, u16), b: (Ipv6Addr, u16)) -> Self {
        let (low, high) = ordered(a, b);
        let ends = Ends::Ip6 {
            protocol,
            low,
            high,
        };
        Self { vlans, ends }
    }

    /// A flow without IP; the order of the ends does not matter.
    pub fn link(vlans: Vlans, ethertype: u16, a: Mac, b: Mac) -> Self {
        let (low, high) = ordered(a, b);
        let ends = Ends::Link {
            ethertype,
            low,
            high,
        };
        Self { vlans, ends }
    }

    /// VLAN ids, outer first.
    pub fn vlans(&self) -> Vlans {
        self.vlans
    }

    /// The ends.
    pub fn ends(&self) -> Ends {
        self.ends
    }

    /// Flows as they stand in a `flows` TLV, for the streams between agents.
    pub fn write_list<'a>(flows: impl IntoIterator<Item = &'a Flow>, out: &mut Vec<u8>) {
        flows.into_iter().for_each(|flow| flow.emit(out));
    }

    /// What [`Flow::write_list`] wrote, and nothing behind it.
    ///
    /// # Errors
    /// As for a `flows` TLV.
    pub fn read_list(bytes: &[u8]) -> Result<Vec<Flow>, Malformed> {
        let mut reader = Reader::new(Kind::Flows, bytes, 0);
        let mut flows = Vec::new();
        while !reader.is_empty() {
            flows.push(Flow::parse(&mut reader)?);
        }
        Ok(flows)
    }

    /// Bytes on the wire.
    pub fn len(&self) -> usize {
        2 + 2 * self.vlans.ids().len()
            + match self.ends {
                Ends::Ip4 { .. } => 2 * (4 + 2),
                Ends::Ip6 { .. } => 2 * (16 + 2),
                Ends::Link { .. } => 2 + 2 * 6,
            }
    }

    /// Never: a flow has two ends.
    pub const fn is_empty(&self) -> bool {
        false
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        let (family, protocol) = match self.ends {
            Ends::Ip4 { protocol, .. } => (FAMILY_IP4, protocol),
            Ends::Ip6 { protocol, .. } => (FAMILY_IP6, protocol),
            Ends::Link { .. } => (FAMILY_LINK, 0),
        };
        out.push(family << 4 | self.vlans.count);
        out.push(protocol);
        for id in self.vlans.ids() {
            out.extend_from_slice(&id.to_be_bytes());
        }
        match self.ends {
            Ends::Ip4 { low, high, .. } => {
                for (address, port) in [low, high] {
                    out.extend_from_slice(&address.octets());
                    out.extend_from_slice(&port.to_be_bytes());
                }
            }
            Ends::Ip6 { low, high, .. } => {
                for (address, port) in [low, high] {
                    out.extend_from_slice(&address.octets());
                    out.extend_from_slice(&port.to_be_bytes());
                }
            }
            Ends::Link {
                ethertype,
                low,
                high,
            } => {
                out.extend_from_slice(&ethertype.to_be_bytes());
                out.extend_from_slice(&low);
                out.extend_from_slice(&high);
            }
        }
    }

    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let start = reader.offset();
        let shape = reader.u8()?;
        let protocol = reader.u8()?;
        let mut ids = [0; 2];
        let count = usize::from(shape & 0x0f);
        if count > ids.len() {
            return Err(reader.fault(start, "a flow has at most two VLAN ids"));
        }
        for id in &mut ids[..count] {
            *id = reader.u16()?;
        }
        let vlans = Vlans::new(&ids[..count]).map_err(|why| reader.fault(start, why))?;
        let flow = match shape >> 4 {
            FAMILY_IP4 => {
                let low = (Ipv4Addr::from(reader.array::<4>()?), reader.u16()?);
                let high = (Ipv4Addr::from(reader.array::<4>()?), reader.u16()?);
                (low <= high).then(|| Self::ip4(vlans, protocol, low, high))
            }
            FAMILY_IP6 => {
                let low = (Ipv6Addr::from(reader.array::<16>()?), reader.u16()?);
                let high = (Ipv6Addr::from(reader.array::<16>()?), reader.u16()?);
                (low <= high).then(|| Self::ip6(vlans, protocol, low, high))
            }
            FAMILY_LINK if protocol != 0 => {
                return Err(reader.fault(start, "a flow without IP has protocol 0"));
            }
            FAMILY_LINK => {
                let ethertype = reader.u16()?;
                let low = reader.array::<6>()?;
                let high = reader.array::<6>()?;
                (low <= high).then(|| Self::link(vlans, ethertype, low, high))
            }
            _ => return Err(reader.fault(start, "family is none of 2 (no IP), 4 and 6")),
        };
        flow.ok_or_else(|| reader.fault(start, "the greater end of the flow stands first"))
    }
}
