//! Between the values of control frames and those of the endpoint.

use std::fmt::Display;

use flowferry_wire as wire;
use flowferry_wire::{Ends, Flow, Masked, Network, Vlans};

use super::record::Directed;
use crate::key::{Key, Kind, Parsed, Side, VLAN_TAGGED};
use crate::matching::Match;

/// A side as it stands in control frames.
pub fn to_wire(side: Side) -> wire::Side {
    match side {
        Side::Upstream => wire::Side::Upstream,
        Side::Downstream => wire::Side::Downstream,
    }
}

/// A side as it stands in keys.
pub fn to_side(side: wire::Side) -> Side {
    match side {
        wire::Side::Upstream => Side::Upstream,
        wire::Side::Downstream => Side::Downstream,
    }
}

/// The flow of a key, whatever its side; `None` for a VLAN id that control frames do not have
/// (4095 is reserved, and a frame may carry it all the same).
pub fn to_flow(key: &Key) -> Option<Flow> {
    let tagged = key.vlan.iter().filter(|vlan| **vlan & VLAN_TAGGED != 0);
    let ids: Vec<u16> = tagged.map(|vlan| vlan & 0xfff).collect();
    let vlans = Vlans::new(&ids).ok()?;
    let ports = [key.low_port, key.high_port].map(u16::from_be_bytes);
    let [low, high] = [key.low, key.high];
    Some(match key.kind {
        kind if kind == Kind::Ipv4 as u8 => {
            let [low, high] = [low, high].map(|end| [end[0], end[1], end[2], end[3]].into());
            Flow::ip4(vlans, key.proto, (low, ports[0]), (high, ports[1]))
        }
        kind if kind == Kind::Ipv6 as u8 => Flow::ip6(
            vlans,
            key.proto,
            (low.into(), ports[0]),
            (high.into(), ports[1]),
        ),
        _ => {
            let mac = |end: [u8; 16]| [end[0], end[1], end[2], end[3], end[4], end[5]];
            Flow::link(vlans, ports[0], mac(low), mac(high))
        }
    })
}

/// The upstream key of a flow.
pub fn to_key(flow: &Flow) -> Key {
    let mut key = Key::EMPTY;
    for (vlan, id) in key.vlan.iter_mut().zip(flow.vlans().ids()) {
        *vlan = VLAN_TAGGED | id;
    }
    let ends: [(&[u8], u16); 2];
    let (low4, high4, low6, high6);
    match flow.ends() {
        Ends::Ip4 {
            protocol,
            low,
            high,
        } => {
            (key.kind, key.proto) = (Kind::Ipv4 as u8, protocol);
            (low4, high4) = (low.0.octets(), high.0.octets());
            ends = [(&low4, low.1), (&high4, high.1)];
        }
        Ends::Ip6 {
            protocol,
            low,
            high,
        } => {
            (key.kind, key.proto) = (Kind::Ipv6 as u8, protocol);
            (low6, high6) = (low.0.octets(), high.0.octets());
            ends = [(&low6, low.1), (&high6, high.1)];
        }
        Ends::Link {
            ethertype,
            low,
            high,
        } => {
            key.kind = Kind::L2 as u8;
            key.low[..6].copy_from_slice(&low);
            key.high[..6].copy_from_slice(&high);
            key.low_port = ethertype.to_be_bytes();
            return key.canonical().0;
        }
    }
    let [(low, low_port), (high, high_port)] = ends;
    key.low[..low.len()].copy_from_slice(low);
    key.high[..high.len()].copy_from_slice(high);
    (key.low_port, key.high_port) = (low_port.to_be_bytes(), high_port.to_be_bytes());
    key.canonical().0
}

/// A flow that is seen from upstream, as agents list it; `None` as for [`to_flow`].
pub fn to_directed(upstream: &Parsed) -> Option<Directed> {
    Some(Directed {
        flow: to_flow(&upstream.key)?,
        swapped: upstream.swapped,
    })
}

/// A listed flow, seen from upstream.
pub fn from_directed(listed: &Directed) -> Parsed {
    Parsed::flow(to_key(&listed.flow), listed.swapped)
}

/// The endpoint's form of a rule's match, and its text for people.
pub fn to_match(found: &wire::Match) -> Match {
    let (mut mask, mut value, mut text) = (Key::EMPTY, Key::EMPTY, Vec::new());
    let mut family = |kind: Kind| (mask.kind, value.kind) = (0xff, kind as u8);
    match found.network {
        Network::Any => {}
        Network::Ip4 { .. } => family(Kind::Ipv4),
        Network::Ip6 { .. } => family(Kind::Ipv6),
    }
    text.extend(protocol(found));
    if let Some(protocol) = found.protocol {
        (mask.proto, value.proto) = (0xff, protocol);
    }
    let mut address = |low: bool, name: &str, masked: Option<(Vec<u8>, Vec<u8>, String)>| {
        let Some((octets, bits, shown)) = masked else {
            return;
        };
        let (mask, value) = match low {
            true => (&mut mask.low, &mut value.low),
            false => (&mut mask.high, &mut value.high),
        };
        mask[..bits.len()].copy_from_slice(&bits);
        value[..octets.len()].copy_from_slice(&octets);
        text.push(format!("{name}={shown}"));
    };
    match found.network {
        Network::Any => {}
        Network::Ip4 {
            source,
            destination,
        } => {
            let words = |m: Masked<std::net::Ipv4Addr>| {
                let shown = masked(
                    m.value,
                    m.mask,
                    m.mask.to_bits().leading_ones(),
                    m.mask.to_bits().count_ones(),
                    32,
                );
                (m.value.octets().to_vec(), m.mask.octets().to_vec(), shown)
            };
            address(true, "nw_src", source.map(words));
            address(false, "nw_dst", destination.map(words));
        }
        Network::Ip6 {
            source,
            destination,
        } => {
            let words = |m: Masked<std::net::Ipv6Addr>| {
                let shown = masked(
                    m.value,
                    m.mask,
                    m.mask.to_bits().leading_ones(),
                    m.mask.to_bits().count_ones(),
                    128,
                );
                (m.value.octets().to_vec(), m.mask.octets().to_vec(), shown)
            };
            address(true, "ipv6_src", source.map(words));
            address(false, "ipv6_dst", destination.map(words));
        }
    }
    if let Some(port) = found.source_port {
        (mask.low_port, value.low_port) = (port.mask.to_be_bytes(), port.value.to_be_bytes());
        text.push(word("tp_src", port, 0xffff));
    }
    if let Some(port) = found.destination_port {
        (mask.high_port, value.high_port) = (port.mask.to_be_bytes(), port.value.to_be_bytes());
        text.push(word("tp_dst", port, 0xffff));
    }
    for (at, name) in ["dl_vlan", "inner_vlan"].into_iter().enumerate() {
        let Some(vlan) = found.vlans[at] else {
            continue;
        };
        (mask.vlan[at], value.vlan[at]) = (vlan.mask, vlan.value);
        text.push(match (vlan.value, vlan.mask) {
            (0, 0x1fff) => format!("{name}=none"),
            (vid, 0x1fff) => format!("{name}={}", vid & 0xfff),
            _ => word(name, vlan, 0x1fff),
        });
    }
    let text = match text.is_empty() {
        true => "*".to_owned(),
        false => text.join(","),
    };
    Match::from_words(text, mask, value)
}

/// `udp`, `ipv6`, `ip,nw_proto=47`; nothing for every packet.
fn protocol(found: &wire::Match) -> Option<String> {
    let (plain, suffix, icmp) = match found.network {
        Network::Any => return None,
        Network::Ip4 { .. } => ("ip", "", 1),
        Network::Ip6 { .. } => ("ipv6", "6", 58),
    };
    Some(match found.protocol {
        None => plain.to_owned(),
        Some(6) => format!("tcp{suffix}"),
        Some(17) => format!("udp{suffix}"),
        Some(132) => format!("sctp{suffix}"),
        Some(number) if number == icmp => format!("icmp{suffix}"),
        Some(number) => format!("{plain},nw_proto={number}"),
    })
}

fn masked(value: impl Display, mask: impl Display, leading: u32, ones: u32, all: u32) -> String {
    match (leading == ones, ones == all) {
        (true, true) => value.to_string(),
        (true, false) => format!("{value}/{ones}"),
        (false, _) => format!("{value}/{mask}"),
    }
}

fn word(name: &str, found: Masked<u16>, all: u16) -> String {
    match found.mask == all {
        true => format!("{name}={}", found.value),
        false => format!("{name}={:#06x}/{:#06x}", found.value, found.mask),
    }
}
