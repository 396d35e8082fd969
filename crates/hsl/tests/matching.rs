//! Matches: what may be written, what it means, and that this is what the masks say.

use flowferry_hsl::key::{Key, Parsed, Side};
use flowferry_hsl::matching::Match;
use proptest::collection::vec;
use proptest::prelude::*;

mod frames;
use frames::frame;

fn refused(text: &str) -> String {
    let refusal = text.parse::<Match>().expect_err(text);
    refusal.to_string()
}

fn key(text: &str) -> Key {
    let matching: Match = text.parse().expect(text);
    matching.flow().expect(text).key
}

#[test]
fn every_documented_field_is_understood() {
    for good in [
        "*",
        "ip",
        "tcp6",
        "arp",
        " udp , nw_src = 10.0.0.1 ",
        "udp,nw_src=10.0.0.0/8,nw_dst=10.9.0.1,tp_src=1,tp_dst=0x35",
        "ip,nw_proto=47",
        "ip,ip_proto=0x11,udp_dst=53",
        "ipv6,ipv6_src=fd00::/64,ipv6_dst=fd00::1",
        "dl_type=0x88cc,dl_src=02:00:00:00:00:01,dl_dst=ff:ff:ff:ff:ff:ff",
        "eth_type=0x0800,nw_dst=10.0.0.1",
        "dl_vlan=5",
        "dl_vlan=none",
        "dl_vlan=0x10,inner_vlan=4095,tcp",
        "l2_type=0x0800,dl_src=02:00:00:00:00:01",
        "udp,,*",
        "nw_src=10.0.0.0/8,nw_src=10.9.0.0/16",
    ] {
        let matching: Match = good.parse().expect(good);
        assert_eq!(matching.to_string(), good, "shown as it was written");
    }
}

#[test]
fn a_refusal_names_the_part_and_the_remedy() {
    for (bad, part, remedy) in [
        ("", "", "write *"),
        (" , ,", ",", "write *"),
        ("upd", "upd", "use ip, tcp, udp"),
        ("udp,nw_src", "nw_src", "use ip, tcp, udp"),
        ("udp,nw_scr=10.0.0.1", "nw_scr=10.0.0.1", "hsl hold --help"),
        ("nw_src=10.0.0", "nw_src=10.0.0", "no address"),
        ("nw_src=fd00::1", "nw_src=fd00::1", "no address"),
        ("ipv6_dst=10.0.0.1", "ipv6_dst=10.0.0.1", "no address"),
        ("nw_src=10.0.0.1/33", "nw_src=10.0.0.1/33", "0 to 32"),
        ("nw_src=10.0.0.1/", "nw_src=10.0.0.1/", "0 to 32"),
        ("nw_src=10.0.0.1/+8", "nw_src=10.0.0.1/+8", "0 to 32"),
        ("udp,tp_dst=65536", "tp_dst=65536", "0 to 65535"),
        ("udp,tp_dst=+5", "tp_dst=+5", "0 to 65535"),
        ("udp,tp_dst=0x", "tp_dst=0x", "0 to 65535"),
        ("ip,nw_proto=256", "nw_proto=256", "0 to 255"),
        ("nw_proto=17", "nw_proto=17", "needs ip or ipv6"),
        ("ip,tp_dst=53", "tp_dst=53", "needs tcp, udp or sctp"),
        ("icmp,tp_dst=53", "tp_dst=53", "needs tcp, udp or sctp"),
        ("tcp,udp_dst=53", "udp_dst=53", "contradicts"),
        ("tcp,udp", "udp", "contradicts"),
        ("tcp,tcp6", "tcp6", "contradicts"),
        ("arp,nw_src=10.0.0.1", "nw_src=10.0.0.1", "contradicts"),
        ("udp,tp_src=1,tp_src=2", "tp_src=2", "contradicts"),
        (
            "nw_src=10.0.0.1,nw_src=10.0.0.2",
            "nw_src=10.0.0.2",
            "contradicts",
        ),
        ("dl_vlan=5,dl_vlan=none", "dl_vlan=none", "contradicts"),
        ("dl_vlan=4096", "dl_vlan=4096", "0 to 4095"),
        (
            "ip,dl_src=02:00:00:00:00:01",
            "dl_src=02:00:00:00:00:01",
            "drop it",
        ),
        (
            "dl_src=02:00:00:00:01",
            "dl_src=02:00:00:00:01",
            "02:00:00:00:00:01",
        ),
        (
            "dl_src=02:00:00:00:00:1ff",
            "dl_src=02:00:00:00:00:1ff",
            "02:00:00:00:00:01",
        ),
        (
            "dl_src=02:00:00:00:00:+1",
            "dl_src=02:00:00:00:00:+1",
            "02:00:00:00:00:01",
        ),
    ] {
        let refusal = refused(bad);
        assert!(
            refusal.contains(&format!("{part:?}")) || part == ",",
            "{bad}: {refusal}"
        );
        assert!(refusal.contains(remedy), "{bad}: {refusal}");
    }
}

#[test]
fn what_is_said_twice_means_both() {
    let narrow: Match = "nw_src=10.0.0.0/8,nw_src=10.9.0.0/16".parse().unwrap();
    let other: Match = "nw_src=10.9.0.0/16,nw_src=10.0.0.0/8".parse().unwrap();
    for side in Side::ALL {
        assert_eq!(narrow.on(side), other.on(side));
    }
}

#[test]
fn a_flow_is_named_by_protocol_addresses_and_ports() {
    let named = key("udp,nw_src=10.0.0.2,nw_dst=10.0.0.1,tp_src=1,tp_dst=2");
    let mirrored = key("udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=2,tp_dst=1");
    assert_eq!(named, mirrored, "keys have no direction");
    assert_eq!(named.low[..4], [10, 0, 0, 1]);
    for open in ["*", "udp", "udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=1"] {
        assert_eq!(open.parse::<Match>().unwrap().flow(), None, "{open}");
    }
}

/// A packet by its headers as they stand in the frame, all of them from so small a choice that
/// matches meet.
#[derive(Clone, Debug)]
struct Packet {
    vlans: Vec<u16>,
    /// 4, 6, or 2 for a frame that is not IP.
    kind: u8,
    proto: u8,
    src: u8,
    dst: u8,
    sport: u16,
    dport: u16,
}

/// A match by what it asks for; `None` leaves it open.
#[derive(Clone, Debug)]
struct Asked {
    outer: Option<Option<u16>>,
    kind: Option<u8>,
    proto: Option<u8>,
    src: Option<(u8, u8)>,
    dst: Option<(u8, u8)>,
    sport: Option<u16>,
    dport: Option<u16>,
}

const PROTOS: [u8; 3] = [6, 17, 1];
/// Addresses end in 0 to 3; prefixes leave 0, 1 or 2 bits of that open.
const OPEN_BITS: [u8; 3] = [0, 1, 2];

impl Packet {
    fn parsed(&self, side: Side) -> Parsed {
        let ports = self.kind != 2 && self.proto != 1;
        let (sport, dport) = if ports {
            (self.sport, self.dport)
        } else {
            (0, 0)
        };
        let frame = frame(
            &self.vlans,
            self.kind,
            self.proto,
            (self.src, sport),
            (self.dst, dport),
        );
        Key::parse(&frame, side).expect("long enough")
    }
}

impl Asked {
    fn text(&self) -> String {
        let mut parts: Vec<String> = match self.kind {
            None => vec![],
            Some(4) => vec!["ip".to_owned()],
            Some(6) => vec!["ipv6".to_owned()],
            Some(_) => vec!["dl_type=0x88cc".to_owned()],
        };
        if let Some(vlan) = self.outer {
            parts.push(vlan.map_or("dl_vlan=none".to_owned(), |vid| format!("dl_vlan={vid}")));
        }
        let address = |name: &str, end: Option<(u8, u8)>| {
            let (host, open) = end?;
            match self.kind? {
                4 => Some(format!("nw_{name}=10.0.0.{host}/{}", 32 - open)),
                6 => Some(format!("ipv6_{name}=fd00::{host}/{}", 128 - open)),
                _ => Some(format!("dl_{name}=02:00:00:00:00:{host:02x}")),
            }
        };
        parts.extend(address("src", self.src));
        parts.extend(address("dst", self.dst));
        let ip = matches!(self.kind, Some(4 | 6));
        if let Some(proto) = self.proto.filter(|_| ip) {
            parts.push(format!("nw_proto={proto}"));
            let ports = [("src", self.sport), ("dst", self.dport)];
            for (name, port) in ports.into_iter().filter(|_| proto != 1) {
                parts.extend(port.map(|port| format!("tp_{name}={port}")));
            }
        }
        if parts.is_empty() {
            "*".to_owned()
        } else {
            parts.join(",")
        }
    }

    /// What the text says, word by word, of a packet that arrives upstream.
    fn covers(&self, packet: &Packet) -> bool {
        let end = |asked: Option<(u8, u8)>, host: u8| {
            let open = if self.kind == Some(2) {
                0
            } else {
                asked.map_or(0, |(_, open)| open)
            };
            self.kind.is_none() || asked.is_none_or(|(asked, _)| asked >> open == host >> open)
        };
        let port = |asked: Option<u16>, port: u16| {
            let meant = matches!(self.kind, Some(4 | 6)) && matches!(self.proto, Some(6 | 17));
            !meant || asked.is_none_or(|asked| asked == port)
        };
        let ip = matches!(self.kind, Some(4 | 6));
        self.outer
            .is_none_or(|vlan| vlan == packet.vlans.first().copied())
            && self.kind.is_none_or(|kind| kind == packet.kind)
            && (!ip || self.proto.is_none_or(|proto| proto == packet.proto))
            && end(self.src, packet.src)
            && end(self.dst, packet.dst)
            && port(self.sport, packet.sport)
            && port(self.dport, packet.dport)
    }
}

fn packets() -> impl Strategy<Value = Packet> {
    let proto = prop::sample::select(&PROTOS[..]);
    let kind = prop::sample::select(vec![2u8, 4, 6]);
    (
        vec(0..2u16, 0..3),
        kind,
        proto,
        0..4u8,
        0..4u8,
        1..3u16,
        1..3u16,
    )
        .prop_map(|(vlans, kind, proto, src, dst, sport, dport)| Packet {
            vlans,
            kind,
            proto,
            src,
            dst,
            sport,
            dport,
        })
}

fn asked() -> impl Strategy<Value = Asked> {
    let kind = prop::option::weighted(0.8, prop::sample::select(vec![2u8, 4, 4, 6]));
    let proto = prop::option::of(prop::sample::select(&PROTOS[..]));
    let end = || prop::option::of((0..4u8, prop::sample::select(&OPEN_BITS[..])));
    let port = || prop::option::of(1..3u16);
    let outer = prop::option::weighted(0.2, prop::option::of(0..2u16));
    (outer, kind, proto, end(), end(), port(), port()).prop_map(
        |(outer, kind, proto, src, dst, sport, dport)| Asked {
            outer,
            kind,
            proto,
            src,
            dst,
            sport,
            dport,
        },
    )
}

/// Every packet there is in this small world.
fn world() -> Vec<Packet> {
    let mut all = Vec::new();
    for (kind, proto) in [(2, 1), (4, 1), (4, 6), (4, 17), (6, 1), (6, 6), (6, 17)] {
        for at in 0..3 * 4 * 4 * 2 * 2u16 {
            let vlans = match at % 3 {
                2 => vec![],
                vid => vec![vid],
            };
            all.push(Packet {
                vlans,
                kind,
                proto,
                src: (at / 3 % 4) as u8,
                dst: (at / 12 % 4) as u8,
                sport: 1 + at / 48 % 2,
                dport: 1 + at / 96,
            });
        }
    }
    all
}

proptest! {
    #[test]
    fn a_match_covers_what_its_words_say(asked in asked(), packets in vec(packets(), 40)) {
        let matching: Match = asked.text().parse().unwrap();
        for packet in packets {
            let upstream = packet.parsed(Side::Upstream);
            prop_assert_eq!(matching.covers(&upstream), asked.covers(&packet), "{} {:?}", matching, packet);
            // The answer comes back with the ends exchanged, on the other side.
            let back = Packet {
                src: packet.dst, dst: packet.src, sport: packet.dport, dport: packet.sport, ..packet
            };
            let downstream = back.parsed(Side::Downstream);
            prop_assert_eq!(matching.covers(&downstream), matching.covers(&upstream));
            prop_assert!(!matching.covers(&upstream) || matching.covers_flow(&upstream.key));
            prop_assert_eq!(upstream.key.on(Side::Downstream), downstream.key);
        }
    }

    #[test]
    fn overlaps_and_both_are_what_brute_force_finds(one in asked(), other in asked()) {
        let (a, b): (Match, Match) = (one.text().parse().unwrap(), other.text().parse().unwrap());
        let both = a.and(&b);
        let mut common = false;
        for packet in world() {
            let in_both = one.covers(&packet) && other.covers(&packet);
            common |= in_both;
            let parsed = packet.parsed(Side::Upstream);
            prop_assert_eq!(both.as_ref().is_some_and(|both| both.covers(&parsed)), in_both);
        }
        prop_assert_eq!(a.overlaps(&b), common, "{} {}", a, b);
        prop_assert_eq!(b.overlaps(&a), common);
        prop_assert_eq!(both.is_some(), common);
    }

    #[test]
    fn the_mirror_of_the_mirror_is_the_match(asked in asked()) {
        let matching: Match = asked.text().parse().unwrap();
        let mirror = |key: Key| if asked.kind == Some(2) {
            Key { low: key.high, high: key.low, ..key }
        } else {
            Key { low: key.high, high: key.low, low_port: key.high_port, high_port: key.low_port, ..key }
        };
        let (up, down) = (matching.on(Side::Upstream), matching.on(Side::Downstream));
        prop_assert_eq!((mirror(up.0), mirror(up.1)), down);
        prop_assert_eq!((mirror(down.0), mirror(down.1)), up);
    }

    #[test]
    fn a_flow_written_as_a_match_is_that_flow(bytes in frames::any_frame(), side in 0..2usize) {
        if let Some(parsed) = Key::parse(&bytes, Side::ALL[side]) {
            let text = parsed.key.to_match();
            let matching: Match = text.parse().map_err(|error| {
                TestCaseError::fail(format!("{error}"))
            })?;
            prop_assert!(matching.covers_flow(&parsed.key), "{}", text);
            prop_assert!(matching.covers_flow(&parsed.key.on(parsed.key.side().other())), "{}", text);
            let back = Parsed { swapped: !parsed.swapped, ..parsed };
            prop_assert!(matching.covers(&parsed) || matching.covers(&back));
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[a-z0-9_=,./:* -]{0,60}") {
        let _ = text.parse::<Match>();
    }
}

/// Whoever may send commands must not be able to fill the agent's memory with one of them.
#[test]
fn a_long_match_is_read_in_the_space_it_takes() {
    let long = vec!["ip"; 10_000].join(",");
    assert_eq!(long.parse::<Match>().unwrap().to_string(), long);
}
