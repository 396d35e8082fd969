//! Matches: the masked 5-tuple and VLAN tags of a rule (docs/design.md §6).
//!
//! A match reads from the upstream side and therefore has a direction, unlike a flow. Every match
//! has one encoding: a field that is not looked at is absent, and bits outside a mask are zero. Two
//! rules are equal exactly when their bytes are.

use crate::cursor::Reader;
use crate::error::Malformed;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A value of which the bits set in `mask` are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Masked<T> {
    /// Zero wherever the mask is.
    pub value: T,
    /// Never zero: a field that is not compared is left out.
    pub mask: T,
}

/// Which IP packets match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// Everything, also what is not IP.
    Any,
    /// IPv4.
    Ip4 {
        /// Source address.
        source: Option<Masked<Ipv4Addr>>,
        /// Destination address.
        destination: Option<Masked<Ipv4Addr>>,
    },
    /// IPv6.
    Ip6 {
        /// Source address.
        source: Option<Masked<Ipv6Addr>>,
        /// Destination address.
        destination: Option<Masked<Ipv6Addr>>,
    },
}

/// A rule's match. `Match::default()` matches everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Match {
    /// Addresses.
    pub network: Network,
    /// IP protocol; needs a network other than `Any`.
    pub protocol: Option<u8>,
    /// Source port; needs TCP, UDP or SCTP.
    pub source_port: Option<Masked<u16>>,
    /// Destination port; needs TCP, UDP or SCTP.
    pub destination_port: Option<Masked<u16>>,
    /// Outer and inner VLAN in OpenFlow's form (1.3.5 §7.2.3.8): bit 0x1000 says "tagged", the
    /// lower 12 are the id. Value 0 with mask 0x1fff is "untagged".
    pub vlans: [Option<Masked<u16>>; 2],
}

impl Default for Match {
    fn default() -> Self {
        Self {
            network: Network::Any,
            protocol: None,
            source_port: None,
            destination_port: None,
            vlans: [None; 2],
        }
    }
}

const FAMILY_ANY: u8 = 0;
const FAMILY_IP4: u8 = 4;
const FAMILY_IP6: u8 = 6;

const HAS_PROTOCOL: u8 = 0x01;
const HAS_SOURCE: u8 = 0x02;
const HAS_DESTINATION: u8 = 0x04;
const HAS_SOURCE_PORT: u8 = 0x08;
const HAS_DESTINATION_PORT: u8 = 0x10;
const HAS_VLAN: [u8; 2] = [0x20, 0x40];
const RESERVED: u8 = 0x80;

const VLAN_BITS: u16 = 0x1fff;
const PROTOCOLS_WITH_PORTS: [u8; 3] = [6, 17, 132];

fn check_masked(value: u128, mask: u128) -> Result<(), &'static str> {
    if mask == 0 {
        return Err("a field with an empty mask matches anything; leave it out");
    }
    if value & !mask != 0 {
        return Err("a value has bits outside its mask; clear them");
    }
    Ok(())
}

impl Match {
    /// Whether this is the one encoding of a match that can exist.
    ///
    /// # Errors
    /// Says which rule is broken and how to mend it.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.protocol.is_some() && self.network == Network::Any {
            return Err("a protocol needs IPv4 or IPv6; name one");
        }
        let ports = [self.source_port, self.destination_port];
        if ports.iter().any(Option::is_some)
            && !self
                .protocol
                .is_some_and(|protocol| PROTOCOLS_WITH_PORTS.contains(&protocol))
        {
            return Err("ports need TCP, UDP or SCTP; name the protocol");
        }
        for masked in self.vlans.iter().flatten() {
            if (masked.mask | masked.value) & !VLAN_BITS != 0 {
                return Err("a VLAN match has 13 bits: 0x1000 for tagged, 12 for the id");
            }
        }
        for masked in ports.iter().chain(&self.vlans).flatten() {
            check_masked(masked.value.into(), masked.mask.into())?;
        }
        match self.network {
            Network::Any => Ok(()),
            Network::Ip4 {
                source,
                destination,
            } => [source, destination]
                .iter()
                .flatten()
                .try_for_each(|m| check_masked(m.value.to_bits().into(), m.mask.to_bits().into())),
            Network::Ip6 {
                source,
                destination,
            } => [source, destination]
                .iter()
                .flatten()
                .try_for_each(|m| check_masked(m.value.to_bits(), m.mask.to_bits())),
        }
    }

    /// Bytes on the wire.
    pub(crate) fn len(&self) -> usize {
        let addresses = match self.network {
            Network::Any => 0,
            Network::Ip4 {
                source,
                destination,
            } => 8 * (usize::from(source.is_some()) + usize::from(destination.is_some())),
            Network::Ip6 {
                source,
                destination,
            } => 32 * (usize::from(source.is_some()) + usize::from(destination.is_some())),
        };
        let words = [self.source_port, self.destination_port]
            .iter()
            .chain(&self.vlans)
            .flatten()
            .count();
        2 + usize::from(self.protocol.is_some()) + addresses + 4 * words
    }

    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        let (family, source, destination) = match self.network {
            Network::Any => (FAMILY_ANY, None, None),
            Network::Ip4 {
                source,
                destination,
            } => (
                FAMILY_IP4,
                source.map(|m| [m.value.octets(), m.mask.octets()].concat()),
                destination.map(|m| [m.value.octets(), m.mask.octets()].concat()),
            ),
            Network::Ip6 {
                source,
                destination,
            } => (
                FAMILY_IP6,
                source.map(|m| [m.value.octets(), m.mask.octets()].concat()),
                destination.map(|m| [m.value.octets(), m.mask.octets()].concat()),
            ),
        };
        out.push(family);
        let fields = out.len();
        out.push(0);
        let mut present = 0;
        if let Some(protocol) = self.protocol {
            present |= HAS_PROTOCOL;
            out.push(protocol);
        }
        for (address, bit) in [(source, HAS_SOURCE), (destination, HAS_DESTINATION)] {
            if let Some(bytes) = address {
                present |= bit;
                out.extend_from_slice(&bytes);
            }
        }
        for (word, bit) in [
            (self.source_port, HAS_SOURCE_PORT),
            (self.destination_port, HAS_DESTINATION_PORT),
            (self.vlans[0], HAS_VLAN[0]),
            (self.vlans[1], HAS_VLAN[1]),
        ] {
            if let Some(masked) = word {
                present |= bit;
                out.extend_from_slice(&masked.value.to_be_bytes());
                out.extend_from_slice(&masked.mask.to_be_bytes());
            }
        }
        out[fields] = present;
    }

    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let start = reader.offset();
        let family = reader.u8()?;
        let present = reader.u8()?;
        let has = |bit: u8| present & bit != 0;
        if has(RESERVED) {
            return Err(reader.fault(start + 1, "field bit 0x80 is not defined"));
        }
        let protocol = has(HAS_PROTOCOL).then(|| reader.u8()).transpose()?;
        let network = match family {
            FAMILY_ANY if has(HAS_SOURCE | HAS_DESTINATION) => {
                return Err(reader.fault(start, "addresses need IPv4 or IPv6"));
            }
            FAMILY_ANY => Network::Any,
            FAMILY_IP4 => Network::Ip4 {
                source: masked(reader, has(HAS_SOURCE), Ipv4Addr::from)?,
                destination: masked(reader, has(HAS_DESTINATION), Ipv4Addr::from)?,
            },
            FAMILY_IP6 => Network::Ip6 {
                source: masked(reader, has(HAS_SOURCE), Ipv6Addr::from)?,
                destination: masked(reader, has(HAS_DESTINATION), Ipv6Addr::from)?,
            },
            _ => return Err(reader.fault(start, "family is none of 0 (any), 4 and 6")),
        };
        let found = Self {
            network,
            protocol,
            source_port: masked(reader, has(HAS_SOURCE_PORT), u16::from_be_bytes)?,
            destination_port: masked(reader, has(HAS_DESTINATION_PORT), u16::from_be_bytes)?,
            vlans: [
                masked(reader, has(HAS_VLAN[0]), u16::from_be_bytes)?,
                masked(reader, has(HAS_VLAN[1]), u16::from_be_bytes)?,
            ],
        };
        found.check().map_err(|why| reader.fault(start, why))?;
        Ok(found)
    }
}

fn masked<T, const N: usize>(
    reader: &mut Reader<'_>,
    present: bool,
    from: fn([u8; N]) -> T,
) -> Result<Option<Masked<T>>, Malformed> {
    if !present {
        return Ok(None);
    }
    Ok(Some(Masked {
        value: from(reader.array()?),
        mask: from(reader.array()?),
    }))
}
