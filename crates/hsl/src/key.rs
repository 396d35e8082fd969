//! Flow keys: which flow a frame belongs to, on which side.
//!
//! The same rules stand in `bpf/parse.h`, where the reasons for them are given; the test
//! `tests/parsers_agree.rs` runs both parsers over the same frames. Layout as `struct ff_key`.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// EtherType of control frames (SHarP §3.4).
pub const ETHERTYPE_CONTROL: u16 = 0x821c;

/// Set in a VLAN field of a key when the tag is there (VID 0 is a tag, too).
pub const VLAN_TAGGED: u16 = 0x1000;

const VLAN_ETHERTYPES: [u16; 2] = [0x8100, 0x88a8];
const IPV6_EXTENSIONS: usize = 6;
/// How far into a frame both parsers look.
const HEADERS: usize = 128;

/// Which of an instance's two interfaces a packet arrived on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The interface that faces the ingress switch.
    Upstream,
    /// The interface that faces the egress switch.
    Downstream,
}

impl Side {
    /// Both sides, upstream first.
    pub const ALL: [Side; 2] = [Side::Upstream, Side::Downstream];

    /// 0 for upstream, 1 for downstream.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The opposite side.
    pub const fn other(self) -> Side {
        match self {
            Side::Upstream => Side::Downstream,
            Side::Downstream => Side::Upstream,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Upstream => "upstream",
            Side::Downstream => "downstream",
        })
    }
}

/// What the address fields of a key hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    /// MAC addresses; the EtherType stands in `low_port`.
    L2 = 2,
    /// IPv4 addresses in the first four bytes.
    Ipv4 = 4,
    /// IPv6 addresses.
    Ipv6 = 6,
}

/// A flow on one side, free of direction: the smaller (address, port) end stands first.
///
/// Ports are zero for protocols without ports and for every fragment of a fragmented datagram.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Key {
    /// Address of the smaller end, network order.
    pub low: [u8; 16],
    /// Address of the greater end, network order.
    pub high: [u8; 16],
    /// Port of the smaller end, network order.
    pub low_port: [u8; 2],
    /// Port of the greater end, network order.
    pub high_port: [u8; 2],
    /// Outer and inner VLAN: `VLAN_TAGGED | VID`, 0 for none.
    pub vlan: [u16; 2],
    /// IP protocol (the upper-layer one behind IPv6 extension headers).
    pub proto: u8,
    /// A [`Kind`].
    pub kind: u8,
    /// A [`Side`].
    pub side: u8,
    /// Always zero.
    pub zero: u8,
}

/// In whole words: the endpoint looks flows up several times a packet, and hashing the arrays byte
/// by byte was a tenth of the agent's time.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b] = self.low_port;
        let [c, d] = self.high_port;
        let ([e, f], [g, h]) = (self.vlan[0].to_ne_bytes(), self.vlan[1].to_ne_bytes());
        state.write_u128(u128::from_ne_bytes(self.low));
        state.write_u128(u128::from_ne_bytes(self.high));
        state.write_u64(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
        state.write_u32(u32::from_ne_bytes([
            self.proto, self.kind, self.side, self.zero,
        ]));
    }
}

/// A parsed frame: its key, and what the key alone does not tell. Also a flow with its direction,
/// as a packet of it would look that arrives on the key's side; the EtherType is then 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Parsed {
    /// The flow.
    pub key: Key,
    /// EtherType behind the VLAN tags.
    pub ethertype: u16,
    /// The key's low end is the frame's destination.
    pub swapped: bool,
}

impl Parsed {
    /// A flow whose packets on the key's side come from its low end, or (`swapped`) from the high one.
    pub fn flow(key: Key, swapped: bool) -> Parsed {
        Parsed {
            key,
            ethertype: 0,
            swapped,
        }
    }

    /// The same flow seen from `side` (without an adapter's alias): what arrives there comes from
    /// the other end.
    pub fn on(&self, side: Side) -> Parsed {
        let swapped = self.swapped ^ (self.key.side() != side);
        Parsed::flow(self.key.on(side), swapped)
    }

    /// The flow as a match that names it alone, source first.
    pub fn to_match(&self) -> String {
        match self.swapped {
            true => self.key.swapped().to_match(),
            false => self.key.to_match(),
        }
    }
}

impl Key {
    /// A key with nothing in it.
    pub const EMPTY: Key = Key {
        low: [0; 16],
        high: [0; 16],
        low_port: [0; 2],
        high_port: [0; 2],
        vlan: [0; 2],
        proto: 0,
        kind: 0,
        side: 0,
        zero: 0,
    };

    /// The key in whole words, and without its side, for comparing under masks: that is done for each
    /// flow that is accounted for and each match of a move.
    pub(crate) fn words(&self) -> [u128; 3] {
        let [a, b] = self.low_port;
        let [c, d] = self.high_port;
        let ([e, f], [g, h]) = (self.vlan[0].to_ne_bytes(), self.vlan[1].to_ne_bytes());
        let rest = [
            a, b, c, d, e, f, g, h, self.proto, self.kind, self.zero, 0, 0, 0, 0, 0,
        ];
        [self.low, self.high, rest].map(u128::from_ne_bytes)
    }

    /// Every byte of the key, for comparing bit by bit.
    pub(crate) fn octets(&self) -> impl Iterator<Item = u8> + '_ {
        let vlan = self.vlan.iter().flat_map(|vlan| vlan.to_ne_bytes());
        self.low
            .into_iter()
            .chain(self.high)
            .chain(self.low_port)
            .chain(self.high_port)
            .chain(vlan)
            .chain([self.proto, self.kind, self.side, self.zero])
    }

    /// Set the bits `mask` of the byte that stands at `at` among [`Key::octets`].
    pub(crate) fn set_octet(&mut self, at: usize, mask: u8, bits: u8) {
        let [outer, inner] = self.vlan;
        let mut vlan = [outer.to_ne_bytes(), inner.to_ne_bytes()];
        let byte = match at {
            0..16 => &mut self.low[at],
            16..32 => &mut self.high[at - 16],
            32..34 => &mut self.low_port[at - 32],
            34..36 => &mut self.high_port[at - 34],
            36..40 => &mut vlan[(at - 36) / 2][at % 2],
            40 => &mut self.proto,
            41 => &mut self.kind,
            42 => &mut self.side,
            _ => &mut self.zero,
        };
        *byte = *byte & !mask | bits;
        self.vlan = vlan.map(u16::from_ne_bytes);
    }

    /// All bits that are set in either.
    pub(crate) fn union(&self, other: &Key) -> Key {
        let mut both = *self;
        let or = |into: &mut [u8], from: &[u8]| {
            into.iter_mut()
                .zip(from)
                .for_each(|(into, from)| *into |= from);
        };
        or(&mut both.low, &other.low);
        or(&mut both.high, &other.high);
        or(&mut both.low_port, &other.low_port);
        or(&mut both.high_port, &other.high_port);
        both.vlan = [self.vlan[0] | other.vlan[0], self.vlan[1] | other.vlan[1]];
        both.proto |= other.proto;
        both.kind |= other.kind;
        both.side |= other.side;
        both
    }

    /// The side this key is for.
    pub fn side(&self) -> Side {
        Side::ALL[usize::from(self.side & 1)]
    }

    /// The same flow on `side` (without an adapter's alias).
    pub fn on(mut self, side: Side) -> Key {
        self.side = side as u8;
        self
    }

    /// Exchange the ends; the EtherType of a [`Kind::L2`] key belongs to no end and stays.
    pub fn swapped(mut self) -> Key {
        std::mem::swap(&mut self.low, &mut self.high);
        if self.kind != Kind::L2 as u8 {
            std::mem::swap(&mut self.low_port, &mut self.high_port);
        }
        self
    }

    /// The smaller end first, and whether that took an exchange.
    pub fn canonical(self) -> (Key, bool) {
        let by_port = self.kind != Kind::L2 as u8;
        let swap = match self.low.cmp(&self.high) {
            std::cmp::Ordering::Equal => by_port && self.low_port > self.high_port,
            order => order.is_gt(),
        };
        (if swap { self.swapped() } else { self }, swap)
    }

    /// The flow of `frame` as it arrives on `side`; `None` if it has no Ethernet header.
    pub fn parse(frame: &[u8], side: Side) -> Option<Parsed> {
        let (macs, mut rest) = frame[..frame.len().min(HEADERS)].split_at_checked(12)?;
        let mut key = Key {
            side: side as u8,
            ..Key::EMPTY
        };
        let mut ethertype;
        (ethertype, rest) = take_u16(rest)?;
        for vlan in &mut key.vlan {
            if !VLAN_ETHERTYPES.contains(&ethertype) || rest.len() < 4 {
                break;
            }
            let tci;
            (tci, rest) = take_u16(rest)?;
            *vlan = VLAN_TAGGED | (tci & 0xfff);
            (ethertype, rest) = take_u16(rest)?;
        }
        let ip = match ethertype {
            0x0800 => key.ipv4(rest),
            0x86dd => key.ipv6(rest),
            _ => None,
        };
        if ip.is_none() {
            key.kind = Kind::L2 as u8;
            key.low[..6].copy_from_slice(&macs[6..]);
            key.high[..6].copy_from_slice(&macs[..6]);
            key.low_port = ethertype.to_be_bytes();
        }
        let (key, swapped) = key.canonical();
        Some(Parsed {
            key,
            ethertype,
            swapped,
        })
    }

    fn ipv4(&mut self, packet: &[u8]) -> Option<()> {
        let header = packet.get(..20)?;
        let length = usize::from(header[0] & 0xf) * 4;
        if length < 20 {
            return None;
        }
        self.kind = Kind::Ipv4 as u8;
        self.proto = header[9];
        self.low[..4].copy_from_slice(&header[12..16]);
        self.high[..4].copy_from_slice(&header[16..20]);
        if u16::from_be_bytes([header[6], header[7]]) & 0x3fff == 0 {
            self.ports(packet.get(length..).unwrap_or(&[]));
        }
        Some(())
    }

    fn ipv6(&mut self, packet: &[u8]) -> Option<()> {
        let header = packet.get(..40)?;
        self.kind = Kind::Ipv6 as u8;
        self.low.copy_from_slice(&header[8..24]);
        self.high.copy_from_slice(&header[24..40]);
        let mut next = header[6];
        let mut at = 40;
        for _ in 0..IPV6_EXTENSIONS {
            let Some(extension) = packet.get(at..at + 8) else {
                break;
            };
            let length = match next {
                0 | 43 | 60 => 8 + usize::from(extension[1]) * 8,
                51 => 8 + usize::from(extension[1]) * 4,
                44 => {
                    self.proto = extension[0];
                    if u16::from_be_bytes([extension[2], extension[3]]) & 0xfff9 != 0 {
                        return Some(());
                    }
                    8
                }
                _ => break,
            };
            next = extension[0];
            at += length;
        }
        self.proto = next;
        self.ports(packet.get(at..).unwrap_or(&[]));
        Some(())
    }

    fn ports(&mut self, segment: &[u8]) {
        if let (true, [a, b, c, d, ..]) = (has_ports(self.proto), segment) {
            self.low_port = [*a, *b];
            self.high_port = [*c, *d];
        }
    }

    /// The shortest frame whose key this is: headers only, for telling the programs about a flow
    /// whose packets are gone.
    pub fn to_frame(&self) -> Vec<u8> {
        let mut frame = vec![0; 12];
        if self.kind == Kind::L2 as u8 {
            frame[..6].copy_from_slice(&self.high[..6]);
            frame[6..].copy_from_slice(&self.low[..6]);
        }
        for (vlan, ethertype) in self.vlan.iter().zip([0x8100u16, 0x8100]) {
            if vlan & VLAN_TAGGED != 0 {
                frame.extend(ethertype.to_be_bytes());
                frame.extend((vlan & 0xfff).to_be_bytes());
            }
        }
        match self.kind {
            4 => {
                frame.extend([0x08, 0x00, 0x45, 0, 0, 24, 0, 0, 0, 0, 64, self.proto, 0, 0]);
                frame.extend(&self.low[..4]);
                frame.extend(&self.high[..4]);
            }
            6 => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 4, self.proto, 64]);
                frame.extend(self.low);
                frame.extend(self.high);
            }
            // No padding: it could be taken for the IP header that the frame was too short for.
            _ => {
                frame.extend(self.low_port);
                return frame;
            }
        }
        frame.extend(self.low_port);
        frame.extend(self.high_port);
        frame.resize(frame.len().max(60), 0);
        frame
    }

    fn address(&self, end: &[u8; 16]) -> String {
        match self.kind {
            4 => Ipv4Addr::new(end[0], end[1], end[2], end[3]).to_string(),
            6 => IpAddr::from(Ipv6Addr::from(*end)).to_string(),
            _ => end[..6]
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect::<Vec<_>>()
                .join(":"),
        }
    }

    /// The flow as OVS flow syntax, low end as the source.
    pub fn to_match(&self) -> String {
        let (low, high) = (self.address(&self.low), self.address(&self.high));
        let (low_port, high_port) = (
            u16::from_be_bytes(self.low_port),
            u16::from_be_bytes(self.high_port),
        );
        let mut text = match (self.kind, self.proto) {
            (4, 1) => "icmp".to_owned(),
            (4, 6) => "tcp".to_owned(),
            (4, 17) => "udp".to_owned(),
            (4, 132) => "sctp".to_owned(),
            (4, proto) => format!("ip,nw_proto={proto}"),
            (6, 6) => "tcp6".to_owned(),
            (6, 17) => "udp6".to_owned(),
            (6, 58) => "icmp6".to_owned(),
            (6, 132) => "sctp6".to_owned(),
            (6, proto) => format!("ipv6,nw_proto={proto}"),
            // IP by its EtherType, but too short or broken to be keyed by addresses.
            (_, _) if matches!(low_port, 0x0800 | 0x86dd) => format!("l2_type={low_port:#06x}"),
            _ => format!("dl_type={low_port:#06x}"),
        };
        text += &match self.kind {
            4 => format!(",nw_src={low},nw_dst={high}"),
            6 => format!(",ipv6_src={low},ipv6_dst={high}"),
            _ => format!(",dl_src={low},dl_dst={high}"),
        };
        if self.kind != Kind::L2 as u8 && (low_port, high_port) != (0, 0) {
            text += &format!(",tp_src={low_port},tp_dst={high_port}");
        }
        for (name, vlan) in ["dl_vlan", "inner_vlan"].iter().zip(self.vlan) {
            if vlan != 0 {
                text += &format!(",{name}={}", vlan & 0xfff);
            }
        }
        text
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.to_match(), self.side())
    }
}

/// TCP, UDP, DCCP, SCTP and UDP-Lite have ports.
pub(crate) fn has_ports(proto: u8) -> bool {
    matches!(proto, 6 | 17 | 33 | 132 | 136)
}

fn take_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*head), rest))
}
