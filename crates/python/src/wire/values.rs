//! Messages as Python passes them: nested tuples of plain values, in the shapes that
//! `_native.pyi` names. `flowferry.wire` puts typed dataclasses around them.

use super::{MalformedError, UnsendableError};
use flowferry_wire::{
    Command, Counter, Counts, Ends, Flags, Flow, InReplyTo, Kind, Mac, Masked, Match, Message,
    Network, Part, Peer, Reason, Report, Side, Tlv, Vlans,
};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// command, flags, handover, to, from, boot, sequence, TLVs by kind.
pub type NativeMessage<'py> = (
    u8,
    u16,
    u64,
    u32,
    u32,
    u64,
    u64,
    Vec<(u16, Bound<'py, PyAny>)>,
);

type Bytes<'py> = Bound<'py, PyBytes>;
type NativeMasked<'py> = Option<(Bytes<'py>, Bytes<'py>)>;
type NativeWord = Option<(u16, u16)>;
// family (0, 4, 6), protocol, source, destination, ports, outer and inner VLAN
type NativeMatch<'py> = (
    u8,
    Option<u8>,
    NativeMasked<'py>,
    NativeMasked<'py>,
    NativeWord,
    NativeWord,
    NativeWord,
    NativeWord,
);
// family (2, 4, 6), protocol or EtherType, VLAN ids, two ends of address and port
/// A flow as Python gives it: family (2: link, 4, 6), number, VLANs, both ends.
pub type NativeFlow<'py> = (u8, u16, Vec<u16>, (Bytes<'py>, u16), (Bytes<'py>, u16));

fn unsendable(why: impl Into<String>) -> PyErr {
    UnsendableError::new_err(why.into())
}

fn known<T>(value: Option<T>, what: &str, number: impl Into<u64>) -> PyResult<T> {
    value.ok_or_else(|| unsendable(format!("{what} {} is not defined", number.into())))
}

fn array<const N: usize>(bytes: &Bytes<'_>) -> PyResult<[u8; N]> {
    let bytes = bytes.as_bytes();
    bytes.try_into().map_err(|_| {
        unsendable(format!(
            "an address has {N} bytes here, not {}",
            bytes.len()
        ))
    })
}

/// The message that a Python tuple stands for.
pub fn read_message(native: &Bound<'_, PyAny>) -> PyResult<Message> {
    let (command, flags, handover, to, from, boot, sequence, tlvs): NativeMessage<'_> = native
        .extract()
        .map_err(|error| unsendable(format!("header: {error}")))?;
    let flags = Flags::from_bits(flags)
        .map_err(|bits| unsendable(format!("flag bits {bits:#06x} are not defined")))?;
    let mut message = Message::new(
        known(Command::from_number(command), "command", command)?,
        handover,
        to,
    )
    .flagged(flags);
    message.from = from;
    message.boot = boot;
    message.sequence = sequence;
    for (number, value) in tlvs {
        let kind = known(Kind::from_number(number), "TLV type", number)?;
        let tlv =
            read_tlv(kind, &value).map_err(|error| unsendable(format!("TLV {kind}: {error}")))?;
        message.tlvs.push(tlv);
    }
    Ok(message)
}

fn read_tlv(kind: Kind, value: &Bound<'_, PyAny>) -> PyResult<Tlv> {
    Ok(match kind {
        Kind::Match => Tlv::Match(read_match(value.extract()?)?),
        Kind::DownstreamMatch => Tlv::DownstreamMatch(read_match(value.extract()?)?),
        Kind::Overriding => {
            let list: Vec<NativeMatch<'_>> = value.extract()?;
            Tlv::Overriding(list.into_iter().map(read_match).collect::<PyResult<_>>()?)
        }
        Kind::Priority => Tlv::Priority(value.extract()?),
        Kind::Source => Tlv::Source(value.extract()?),
        Kind::Destination => Tlv::Destination(value.extract()?),
        Kind::Peer => {
            let (instance, address, port): (u32, Bytes<'_>, u16) = value.extract()?;
            let address = match address.as_bytes().len() {
                4 => IpAddr::from(array::<4>(&address)?),
                _ => IpAddr::from(array::<16>(&address)?),
            };
            Tlv::Peer(Peer {
                instance,
                address,
                port,
            })
        }
        Kind::Flows => {
            let list: Vec<NativeFlow<'_>> = value.extract()?;
            Tlv::Flows(list.into_iter().map(read_flow).collect::<PyResult<_>>()?)
        }
        Kind::Side => {
            let number: u8 = value.extract()?;
            Tlv::Side(known(Side::from_number(number), "side", number)?)
        }
        Kind::Counts => {
            let pairs: Vec<(u16, u64)> = value.extract()?;
            let pairs = pairs.into_iter().map(|(number, count)| {
                Ok((
                    known(Counter::from_number(number), "counter", number)?,
                    count,
                ))
            });
            Tlv::Counts(pairs.collect::<PyResult<Counts>>()?)
        }
        Kind::Error => {
            let (number, text): (u16, String) = value.extract()?;
            let reason = known(Reason::from_number(number), "reason", number)?;
            Tlv::Error(Report { reason, text })
        }
        Kind::Deadline => Tlv::Deadline(value.extract()?),
        Kind::Settling => Tlv::Settling(value.extract()?),
        Kind::Strategy => Tlv::Strategy(value.extract()?),
        Kind::Epoch => Tlv::Epoch(value.extract()?),
        Kind::Part => {
            let (list, part, parts) = value.extract()?;
            Tlv::Part(Part { list, part, parts })
        }
        Kind::InReplyTo => {
            let (number, sequence): (u8, u64) = value.extract()?;
            let command = known(Command::from_number(number), "command", number)?;
            Tlv::InReplyTo(InReplyTo { command, sequence })
        }
        Kind::Round => Tlv::Round(value.extract()?),
        Kind::Cpu => Tlv::Cpu(value.extract()?),
        Kind::Name => Tlv::Name(value.extract()?),
        Kind::Step => Tlv::Step(value.extract()?),
    })
}

fn read_masked<const N: usize, T: From<[u8; N]>>(
    native: NativeMasked<'_>,
) -> PyResult<Option<Masked<T>>> {
    native
        .map(|(value, mask)| {
            Ok(Masked {
                value: array::<N>(&value)?.into(),
                mask: array::<N>(&mask)?.into(),
            })
        })
        .transpose()
}

fn read_match(native: NativeMatch<'_>) -> PyResult<Match> {
    let (family, protocol, source, destination, source_port, destination_port, outer, inner) =
        native;
    let word = |pair: NativeWord| pair.map(|(value, mask)| Masked { value, mask });
    let network = match family {
        0 if source.is_none() && destination.is_none() => Network::Any,
        4 => Network::Ip4 {
            source: read_masked::<4, Ipv4Addr>(source)?,
            destination: read_masked::<4, Ipv4Addr>(destination)?,
        },
        6 => Network::Ip6 {
            source: read_masked::<16, Ipv6Addr>(source)?,
            destination: read_masked::<16, Ipv6Addr>(destination)?,
        },
        0 => return Err(unsendable("addresses need IPv4 or IPv6; name the family")),
        _ => return Err(unsendable(format!("family {family} is none of 0, 4 and 6"))),
    };
    Ok(Match {
        network,
        protocol,
        source_port: word(source_port),
        destination_port: word(destination_port),
        vlans: [word(outer), word(inner)],
    })
}

/// The flow of a Python tuple.
pub fn read_flow(native: NativeFlow<'_>) -> PyResult<Flow> {
    let (family, number, vlans, a, b) = native;
    let vlans = Vlans::new(&vlans).map_err(unsendable)?;
    let protocol = || {
        u8::try_from(number).map_err(|_| unsendable(format!("IP protocol {number} is above 255")))
    };
    Ok(match family {
        2 => Flow::link(vlans, number, array(&a.0)?, array(&b.0)?),
        4 => {
            let end =
                |(address, port)| Ok::<_, PyErr>((Ipv4Addr::from(array::<4>(&address)?), port));
            Flow::ip4(vlans, protocol()?, end(a)?, end(b)?)
        }
        6 => {
            let end =
                |(address, port)| Ok::<_, PyErr>((Ipv6Addr::from(array::<16>(&address)?), port));
            Flow::ip6(vlans, protocol()?, end(a)?, end(b)?)
        }
        _ => return Err(unsendable(format!("family {family} is none of 2, 4 and 6"))),
    })
}

/// The Python tuple that stands for a message.
pub fn write_message<'py>(py: Python<'py>, message: &Message) -> PyResult<NativeMessage<'py>> {
    let tlvs = message
        .tlvs
        .iter()
        .map(|tlv| Ok((tlv.kind().number(), write_tlv(py, tlv)?)));
    Ok((
        message.command.number(),
        message.flags.bits(),
        message.handover,
        message.to,
        message.from,
        message.boot,
        message.sequence,
        tlvs.collect::<PyResult<_>>()?,
    ))
}

fn write_tlv<'py>(py: Python<'py>, tlv: &Tlv) -> PyResult<Bound<'py, PyAny>> {
    match tlv {
        Tlv::Match(m) | Tlv::DownstreamMatch(m) => write_match(py, m).into_bound_py_any(py),
        Tlv::Overriding(list) => {
            let list: Vec<_> = list.iter().map(|m| write_match(py, m)).collect();
            list.into_bound_py_any(py)
        }
        Tlv::Flows(list) => {
            let list: Vec<_> = list.iter().map(|flow| write_flow(py, flow)).collect();
            list.into_bound_py_any(py)
        }
        Tlv::Priority(n) | Tlv::Cpu(n) => n.into_bound_py_any(py),
        Tlv::Source(n)
        | Tlv::Destination(n)
        | Tlv::Deadline(n)
        | Tlv::Settling(n)
        | Tlv::Round(n) => n.into_bound_py_any(py),
        Tlv::Peer(peer) => {
            let address = match peer.address {
                IpAddr::V4(address) => PyBytes::new(py, &address.octets()),
                IpAddr::V6(address) => PyBytes::new(py, &address.octets()),
            };
            (peer.instance, address, peer.port).into_bound_py_any(py)
        }
        Tlv::Side(side) => side.number().into_bound_py_any(py),
        Tlv::Counts(counts) => {
            let pairs: Vec<_> = counts.iter().map(|(c, n)| (c.number(), *n)).collect();
            pairs.into_bound_py_any(py)
        }
        Tlv::Error(report) => (report.reason.number(), &report.text).into_bound_py_any(py),
        Tlv::Strategy(text) | Tlv::Name(text) | Tlv::Step(text) => text.into_bound_py_any(py),
        Tlv::Epoch(n) => n.into_bound_py_any(py),
        Tlv::Part(part) => (part.list, part.part, part.parts).into_bound_py_any(py),
        Tlv::InReplyTo(request) => {
            (request.command.number(), request.sequence).into_bound_py_any(py)
        }
    }
}

fn write_match<'py>(py: Python<'py>, found: &Match) -> NativeMatch<'py> {
    let word = |masked: Option<Masked<u16>>| masked.map(|m| (m.value, m.mask));
    let ip4 = |m: Masked<Ipv4Addr>| {
        (
            PyBytes::new(py, &m.value.octets()),
            PyBytes::new(py, &m.mask.octets()),
        )
    };
    let ip6 = |m: Masked<Ipv6Addr>| {
        (
            PyBytes::new(py, &m.value.octets()),
            PyBytes::new(py, &m.mask.octets()),
        )
    };
    let (family, source, destination) = match found.network {
        Network::Any => (0, None, None),
        Network::Ip4 {
            source,
            destination,
        } => (4, source.map(ip4), destination.map(ip4)),
        Network::Ip6 {
            source,
            destination,
        } => (6, source.map(ip6), destination.map(ip6)),
    };
    (
        family,
        found.protocol,
        source,
        destination,
        word(found.source_port),
        word(found.destination_port),
        word(found.vlans[0]),
        word(found.vlans[1]),
    )
}

fn write_flow<'py>(py: Python<'py>, flow: &Flow) -> NativeFlow<'py> {
    let bytes = |raw: &[u8]| PyBytes::new(py, raw);
    let mac = |mac: Mac| (bytes(&mac), 0);
    let (family, number, low, high) = match flow.ends() {
        Ends::Link {
            ethertype,
            low,
            high,
        } => (2, ethertype, mac(low), mac(high)),
        Ends::Ip4 {
            protocol,
            low,
            high,
        } => {
            let end = |(address, port): (Ipv4Addr, u16)| (bytes(&address.octets()), port);
            (4, protocol.into(), end(low), end(high))
        }
        Ends::Ip6 {
            protocol,
            low,
            high,
        } => {
            let end = |(address, port): (Ipv6Addr, u16)| (bytes(&address.octets()), port);
            (6, protocol.into(), end(low), end(high))
        }
    };
    (family, number, flow.vlans().ids().to_vec(), low, high)
}

/// An address given as six bytes.
pub fn read_mac(bytes: &[u8]) -> PyResult<Mac> {
    bytes.try_into().map_err(|_| {
        unsendable(format!(
            "an Ethernet address has 6 bytes, not {}",
            bytes.len()
        ))
    })
}

/// Bytes that are not a message.
pub fn malformed(error: flowferry_wire::Malformed) -> PyErr {
    MalformedError::new_err(error.to_string())
}
