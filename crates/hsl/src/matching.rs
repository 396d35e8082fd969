//! Matches in OVS flow syntax, as masked words that the programs compare.
//!
//! A match reads from the upstream side; the downstream side uses its mirror. Understood:
//! `*`, `ip icmp tcp udp sctp ipv6 icmp6 tcp6 udp6 sctp6 arp`, `nw_src nw_dst ipv6_src ipv6_dst`
//! (with `/prefix`), `nw_proto`, `tp_src tp_dst` and their `tcp_… udp_…` spellings, `dl_src`,
//! `dl_dst`, `dl_type`, `dl_vlan` (a VID, or `none`), `inner_vlan`, and `l2_type`: the EtherType of
//! frames that are keyed by MAC addresses even if it is that of IP (too broken for more). Fragments carry no ports, so
//! a match on ports leaves them out (as Open vSwitch does for later fragments).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::key::{Key, Kind, Parsed, Side, VLAN_TAGGED, has_ports};

const CONTRADICTION: &str = "contradicts an earlier part of the match; drop one of them";

/// Which packets: those whose headers equal `value` where `mask` has ones.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Match {
    text: String,
    mask: Key,
    value: Key,
}

/// A match that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("match {text:?}: {part:?} {problem}")]
pub struct MatchError {
    text: String,
    part: String,
    problem: String,
}

impl Match {
    /// Every packet.
    pub fn all() -> Match {
        Match {
            text: "*".to_owned(),
            mask: Key::EMPTY,
            value: Key::EMPTY,
        }
    }

    /// Mask and value of the headers of packets that arrive on `side`, source in `low`.
    pub fn on(&self, side: Side) -> (Key, Key) {
        match side {
            Side::Upstream => (self.mask, self.value),
            Side::Downstream => (self.mirror(self.mask), self.mirror(self.value)),
        }
    }

    /// The ends change places; an EtherType belongs to neither.
    fn mirror(&self, mut key: Key) -> Key {
        std::mem::swap(&mut key.low, &mut key.high);
        if self.value.kind != Kind::L2 as u8 {
            std::mem::swap(&mut key.low_port, &mut key.high_port);
        }
        key
    }

    /// Whether a flow, in either direction, belongs to this match.
    pub fn covers_flow(&self, key: &Key) -> bool {
        [false, true]
            .into_iter()
            .any(|swapped| self.covers(&Parsed::flow(*key, swapped)))
    }

    /// The one flow that this match names, seen from upstream; `None` if it leaves the protocol or an
    /// address open, or a port where the protocol has some.
    pub fn flow(&self) -> Option<Parsed> {
        let bytes = match self.value.kind {
            4 => 4,
            6 => 16,
            2 => 6,
            _ => return None,
        };
        let addresses = [self.mask.low, self.mask.high];
        let exact = addresses
            .iter()
            .all(|mask| mask[..bytes].iter().all(|octet| *octet == 0xff));
        let ports = self.mask.low_port == [0xff; 2]
            && (self.value.kind == Kind::L2 as u8 || self.mask.high_port == [0xff; 2]);
        let portless = self.value.kind != Kind::L2 as u8 && !has_ports(self.value.proto);
        let protocol = self.value.kind == Kind::L2 as u8 || self.mask.proto == 0xff;
        (exact && protocol && (ports || portless)).then(|| {
            let (key, swapped) = self.value.canonical();
            Parsed::flow(key, swapped)
        })
    }

    /// The packets whose headers equal `value` where `mask` has ones; `text` says so to people.
    pub(crate) fn from_words(text: String, mask: Key, value: Key) -> Match {
        Match { text, mask, value }
    }

    /// Those packets that belong to both; `None` if there are none.
    pub fn and(&self, other: &Match) -> Option<Match> {
        self.overlaps(other).then(|| Match {
            text: format!("{self},{other}"),
            mask: self.mask.union(&other.mask),
            value: self.value.union(&other.value),
        })
    }

    /// What is left of this match without `other`, in disjoint pieces: one for each bit that only
    /// `other` asks for, with the bits before it as `other` wants them and that one different.
    pub(crate) fn without(&self, other: &Match) -> impl Iterator<Item = Match> {
        let mut piece = self.clone();
        let (mask, value): (Vec<u8>, Vec<u8>) = (
            other.mask.octets().collect(),
            other.value.octets().collect(),
        );
        let asked: Vec<u8> = self.mask.octets().collect();
        let bits = (0..asked.len()).flat_map(|at| (0..8).map(move |bit| (at, 1u8 << bit)));
        bits.filter(move |(at, bit)| mask[*at] & !asked[*at] & bit != 0)
            .map(move |(at, bit)| {
                let wanted = value[at] & bit;
                piece.mask.set_octet(at, bit, bit);
                piece.value.set_octet(at, bit, wanted ^ bit);
                let found = piece.clone();
                piece.value.set_octet(at, bit, wanted);
                found
            })
    }

    /// Whether some packet belongs to both.
    pub fn overlaps(&self, other: &Match) -> bool {
        agree((&self.mask, &self.value), (&other.mask, &other.value))
    }

    /// Whether a packet that arrived on its key's side belongs to this match.
    pub fn covers(&self, packet: &Parsed) -> bool {
        let (mask, value) = self.on(packet.key.side());
        let key = if packet.swapped {
            packet.key.swapped()
        } else {
            packet.key
        };
        let words = key.words().into_iter().zip(mask.words());
        words
            .zip(value.words())
            .all(|((word, mask), value)| word & mask == value)
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Match({})", self.text)
    }
}

impl FromStr for Match {
    type Err = MatchError;

    fn from_str(text: &str) -> Result<Match, MatchError> {
        let mut found = Match {
            text: text.to_owned(),
            mask: Key::EMPTY,
            value: Key::EMPTY,
        };
        let fails = |part: &str, problem: String| MatchError {
            text: text.to_owned(),
            part: part.to_owned(),
            problem,
        };
        let parts = text.split(',').map(str::trim);
        let mut parts = parts.filter(|part| !part.is_empty()).peekable();
        if parts.peek().is_none() {
            let problem = "is empty; write * for every packet".to_owned();
            return Err(fails(text, problem));
        }
        for part in parts.filter(|part| *part != "*") {
            let (mask, value) = (found.mask, found.value);
            found.add(part).map_err(|problem| fails(part, problem))?;
            if !agree((&mask, &value), (&found.mask, &found.value)) {
                return Err(fails(part, CONTRADICTION.to_owned()));
            }
            found.mask = found.mask.union(&mask);
            found.value = found.value.union(&value);
        }
        Ok(found)
    }
}

impl Match {
    fn add(&mut self, part: &str) -> Result<(), String> {
        let (name, value) = match part.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (part, None),
        };
        let protocols = [
            ("ip", Kind::Ipv4, None),
            ("icmp", Kind::Ipv4, Some(1)),
            ("tcp", Kind::Ipv4, Some(6)),
            ("udp", Kind::Ipv4, Some(17)),
            ("sctp", Kind::Ipv4, Some(132)),
            ("ipv6", Kind::Ipv6, None),
            ("icmp6", Kind::Ipv6, Some(58)),
            ("tcp6", Kind::Ipv6, Some(6)),
            ("udp6", Kind::Ipv6, Some(17)),
            ("sctp6", Kind::Ipv6, Some(132)),
        ];
        let Some(value) = value else {
            if name == "arp" {
                return self.ethertype(0x0806);
            }
            let (_, kind, proto) = protocols
                .iter()
                .find(|(known, ..)| *known == name)
                .ok_or("is no protocol; use ip, tcp, udp, icmp, sctp, ipv6, tcp6, … or *")?;
            self.kind(*kind)?;
            return proto.map_or(Ok(()), |proto| self.proto(proto));
        };
        match name {
            "nw_src" | "ip_src" => self.ipv4(value, true),
            "nw_dst" | "ip_dst" => self.ipv4(value, false),
            "ipv6_src" => self.ipv6(value, true),
            "ipv6_dst" => self.ipv6(value, false),
            "nw_proto" | "ip_proto" => self.proto(number(value, 0xff)? as u8),
            "tp_src" | "tcp_src" | "udp_src" | "sctp_src" => self.port(name, value, true),
            "tp_dst" | "tcp_dst" | "udp_dst" | "sctp_dst" => self.port(name, value, false),
            "dl_src" | "eth_src" => self.mac(value, true),
            "dl_dst" | "eth_dst" => self.mac(value, false),
            "dl_type" | "eth_type" => match number(value, 0xffff)? as u16 {
                0x0800 => self.kind(Kind::Ipv4),
                0x86dd => self.kind(Kind::Ipv6),
                other => self.ethertype(other),
            },
            "l2_type" => {
                let ethertype = number(value, 0xffff)? as u16;
                self.ethertype(ethertype)
            }
            "dl_vlan" | "vlan_vid" => self.vlan(value, 0),
            "inner_vlan" => self.vlan(value, 1),
            _ => {
                Err("is not understood; see `flowferry hsl hold --help` for the fields".to_owned())
            }
        }
    }

    fn kind(&mut self, kind: Kind) -> Result<(), String> {
        if self.mask.kind != 0 && self.value.kind != kind as u8 {
            return Err(CONTRADICTION.to_owned());
        }
        (self.mask.kind, self.value.kind) = (0xff, kind as u8);
        Ok(())
    }

    fn proto(&mut self, proto: u8) -> Result<(), String> {
        if self.value.kind == 0 || self.value.kind == Kind::L2 as u8 {
            return Err("needs ip or ipv6 before it".to_owned());
        }
        if self.mask.proto != 0 && self.value.proto != proto {
            return Err(CONTRADICTION.to_owned());
        }
        (self.mask.proto, self.value.proto) = (0xff, proto);
        Ok(())
    }

    fn ethertype(&mut self, ethertype: u16) -> Result<(), String> {
        self.kind(Kind::L2)?;
        (self.mask.low_port, self.value.low_port) = ([0xff; 2], ethertype.to_be_bytes());
        Ok(())
    }

    fn ipv4(&mut self, text: &str, source: bool) -> Result<(), String> {
        let (address, prefix) = prefixed::<Ipv4Addr>(text, 32)?;
        self.kind(Kind::Ipv4)?;
        self.address(&address.octets(), prefix, source);
        Ok(())
    }

    fn ipv6(&mut self, text: &str, source: bool) -> Result<(), String> {
        let (address, prefix) = prefixed::<Ipv6Addr>(text, 128)?;
        self.kind(Kind::Ipv6)?;
        self.address(&address.octets(), prefix, source);
        Ok(())
    }

    fn address(&mut self, octets: &[u8], prefix: u32, source: bool) {
        let (mask, value) = match source {
            true => (&mut self.mask.low, &mut self.value.low),
            false => (&mut self.mask.high, &mut self.value.high),
        };
        for (at, octet) in octets.iter().enumerate() {
            let bits = prefix.saturating_sub(at as u32 * 8).min(8);
            mask[at] = (0xff00u16 >> bits) as u8;
            value[at] = octet & mask[at];
        }
    }

    fn port(&mut self, name: &str, text: &str, source: bool) -> Result<(), String> {
        let proto = match name.split_once('_') {
            Some(("tcp", _)) => Some(6),
            Some(("udp", _)) => Some(17),
            Some(("sctp", _)) => Some(132),
            _ => None,
        };
        if let Some(proto) = proto {
            self.proto(proto)?;
        }
        if !has_ports(self.value.proto) {
            return Err("needs tcp, udp or sctp before it".to_owned());
        }
        let port = (number(text, 0xffff)? as u16).to_be_bytes();
        match source {
            true => (self.mask.low_port, self.value.low_port) = ([0xff; 2], port),
            false => (self.mask.high_port, self.value.high_port) = ([0xff; 2], port),
        }
        Ok(())
    }

    fn mac(&mut self, text: &str, source: bool) -> Result<(), String> {
        let octets: Option<Vec<u8>> = text
            .split(':')
            .map(|octet| digits(octet, 16).and_then(|octet| u8::try_from(octet).ok()))
            .collect();
        let octets = octets
            .filter(|octets| octets.len() == 6)
            .ok_or("is no MAC address; write 02:00:00:00:00:01")?;
        self.kind(Kind::L2)
            .map_err(|_| "matches only frames that are not IP; drop it".to_owned())?;
        self.address(&octets, 48, source);
        Ok(())
    }

    fn vlan(&mut self, text: &str, at: usize) -> Result<(), String> {
        (self.mask.vlan[at], self.value.vlan[at]) = match text {
            "none" => (VLAN_TAGGED | 0xfff, 0),
            vid => (
                VLAN_TAGGED | 0xfff,
                VLAN_TAGGED | number(vid, 0xfff)? as u16,
            ),
        };
        Ok(())
    }
}

/// Whether no bit that both masks ask for is asked for with two values.
fn agree((mask, value): (&Key, &Key), (other_mask, other_value): (&Key, &Key)) -> bool {
    let masks = mask.words().into_iter().zip(other_mask.words());
    let values = value.words().into_iter().zip(other_value.words());
    masks
        .zip(values)
        .all(|((mask, other_mask), (a, b))| (a ^ b) & mask & other_mask == 0)
}

fn number(text: &str, greatest: u32) -> Result<u32, String> {
    match text.strip_prefix("0x") {
        Some(hex) => digits(hex, 16),
        None => digits(text, 10),
    }
    .filter(|number| *number <= greatest)
    .ok_or_else(|| format!("is no number from 0 to {greatest}"))
}

/// Digits only; the standard library would take a sign as well.
fn digits(text: &str, radix: u32) -> Option<u32> {
    let plain = text.chars().all(|digit| digit.is_digit(radix));
    plain.then(|| u32::from_str_radix(text, radix).ok())?
}

fn prefixed<A: FromStr>(text: &str, bits: u32) -> Result<(A, u32), String> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, number(prefix, bits)?),
        None => (text, bits),
    };
    let address = address
        .parse()
        .map_err(|_| "is no address of that family".to_owned())?;
    Ok((address, prefix))
}
