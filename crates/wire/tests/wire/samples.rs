//! The messages behind the golden files: every command, every TLV, every flag.

use flowferry_wire::*;
use std::net::{Ipv4Addr, Ipv6Addr};

pub const KEY_ID: u16 = 7;
pub const BOOT: u64 = 1_700_000_000_000;
pub const CONTROLLER_MAC: Mac = [0x02, 0xff, 0, 0, 0, 0];
pub const SOURCE: u32 = 1;
pub const DESTINATION: u32 = 2;
const HANDOVER: u64 = 0x1122_3344_5566_7788;

/// The secret of the golden files: 00 01 02 … 1f.
pub fn keys() -> KeyRing {
    KeyRing::new(KEY_ID, Key::new((0..32).collect()).unwrap())
}

/// The tag of the golden files' key behind any bytes, understood or not.
pub fn sign(mut header_and_tlvs: Vec<u8>) -> Vec<u8> {
    use hmac::{Hmac, KeyInit, Mac};
    let secret: Vec<u8> = (0..32).collect();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&secret).unwrap();
    mac.update(&header_and_tlvs);
    header_and_tlvs.extend_from_slice(&mac.finalize().into_bytes()[..TAG_LEN]);
    header_and_tlvs
}

/// The address of an instance in the golden files.
pub fn mac(instance: u32) -> Mac {
    match instance {
        CONTROLLER => CONTROLLER_MAC,
        n => [0x02, 0, 0, 0, 0, n as u8],
    }
}

pub struct Sample {
    pub name: &'static str,
    pub message: Message,
}

impl Sample {
    /// The sealed frame.
    pub fn frame(&self) -> Vec<u8> {
        let message = &self.message;
        // A sealer that has come as far as the sample's sequence number.
        let mut sealer = Sealer::new(message.from, message.boot);
        let mut copy = message.clone();
        let mut seal = || {
            let addresses = (mac(message.to), mac(message.from));
            let frame = sealer.seal(&keys(), &mut copy, addresses.0, addresses.1, DEFAULT_MTU);
            frame.unwrap()
        };
        for _ in 0..message.sequence {
            seal();
        }
        seal()
    }
}

fn v4(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

fn v6(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
}

fn exact<T: From<u16>>(value: u16, mask: u16) -> Masked<T> {
    Masked {
        value: value.into(),
        mask: mask.into(),
    }
}

/// `udp,nw_src=10.0.0.1,tp_src=24242`
fn udp_match() -> Match {
    Match {
        network: Network::Ip4 {
            source: Some(Masked {
                value: v4(1),
                mask: Ipv4Addr::BROADCAST,
            }),
            destination: None,
        },
        protocol: Some(17),
        source_port: Some(exact(24242, 0xffff)),
        ..Match::default()
    }
}

/// Every field of a match, over IPv6.
fn full_match() -> Match {
    let net = Masked {
        value: v6(0),
        mask: Ipv6Addr::from_bits(u128::MAX << 64),
    };
    Match {
        network: Network::Ip6 {
            source: Some(net),
            destination: Some(net),
        },
        protocol: Some(6),
        source_port: Some(exact(0x8000, 0x8000)),
        destination_port: Some(exact(443, 0xffff)),
        vlans: [Some(exact(0x1000 | 100, 0x1fff)), Some(exact(0, 0x1fff))],
    }
}

fn flows() -> Vec<Flow> {
    let tagged = Vlans::new(&[100]).unwrap();
    let stacked = Vlans::new(&[100, 200]).unwrap();
    vec![
        Flow::ip4(Vlans::NONE, 17, (v4(1), 24242), (v4(2), 53)),
        Flow::ip4(tagged, 1, (v4(2), 0), (v4(1), 0)),
        Flow::ip6(stacked, 6, (v6(2), 443), (v6(1), 50000)),
        Flow::link(tagged, 0x88cc, mac(2), mac(1)),
    ]
}

fn down(command: Command, to: u32) -> Message {
    Message::new(command, HANDOVER, to)
}

fn up(command: Command, from: u32) -> Message {
    let mut message = Message::new(command, HANDOVER, CONTROLLER);
    message.from = from;
    message
}

fn reply(command: Command, sequence: u64) -> Tlv {
    Tlv::InReplyTo(InReplyTo { command, sequence })
}

fn error(reason: Reason, text: &str) -> Tlv {
    Tlv::Error(Report {
        reason,
        text: text.into(),
    })
}

/// Every sample, in the order of its sequence number.
pub fn all() -> Vec<Sample> {
    use Command::*;
    let local = |command, own: u32| {
        let mut message = Message::new(command, HANDOVER, own);
        message.from = own;
        message
    };
    let counts = |pairs: &[(Counter, u64)]| Tlv::Counts(pairs.iter().copied().collect());
    let list = [
        (
            "prepare",
            down(Prepare, DESTINATION)
                .with(Tlv::Match(udp_match()))
                .with(Tlv::Overriding(vec![full_match()]))
                .with(Tlv::Priority(7))
                .with(Tlv::Source(SOURCE))
                .with(Tlv::Source(3))
                .with(Tlv::Destination(DESTINATION))
                .with(Tlv::Peer(Peer {
                    instance: SOURCE,
                    address: Ipv4Addr::new(192, 0, 2, 1).into(),
                    port: 7700,
                }))
                .with(Tlv::Peer(Peer {
                    instance: 3,
                    address: v6(3).into(),
                    port: 7700,
                }))
                .with(Tlv::Deadline(500))
                .with(Tlv::Settling(15000))
                .with(Tlv::Strategy("direct".into()))
                .with(Tlv::Epoch(4)),
        ),
        (
            "prepare_all",
            down(Prepare, SOURCE)
                .flagged(Flags::RETRY)
                .with(Tlv::Match(Match::default()))
                .with(Tlv::DownstreamMatch(Match {
                    network: Network::Ip4 {
                        source: None,
                        destination: None,
                    },
                    ..Match::default()
                }))
                .with(Tlv::Priority(0))
                .with(Tlv::Source(SOURCE))
                .with(Tlv::Destination(DESTINATION))
                .with(Tlv::Deadline(500))
                .with(Tlv::Strategy("direct".into())),
        ),
        (
            "start_ho",
            down(StartHo, DESTINATION)
                .flagged(Flags::BOTH_SIDES)
                .with(Tlv::Match(full_match()))
                .with(Tlv::Priority(3))
                .with(Tlv::Source(SOURCE))
                .with(Tlv::Destination(DESTINATION))
                .with(Tlv::Flows(flows())),
        ),
        ("freeze", down(Freeze, SOURCE).with(Tlv::Deadline(2000))),
        (
            "marker",
            down(Marker, SOURCE)
                .with(Tlv::Side(Side::Upstream))
                .with(Tlv::Round(1)),
        ),
        (
            "release",
            down(Release, DESTINATION).with(Tlv::Side(Side::Downstream)),
        ),
        ("commit", down(Commit, SOURCE)),
        (
            "abort",
            down(Abort, DESTINATION).with(error(Reason::Requested, "aborted by the operator")),
        ),
        ("query", Message::new(Query, 0, SOURCE)),
        (
            "ack",
            up(Ack, SOURCE)
                .with(Tlv::Flows(flows()))
                .with(Tlv::Part(Part {
                    list: 5,
                    part: 0,
                    parts: 2,
                }))
                .with(reply(Prepare, 1)),
        ),
        (
            "nack",
            up(Nack, DESTINATION)
                .with(error(
                    Reason::CaptureFailed,
                    "no TAP on side upstream – load the tun module",
                ))
                .with(reply(Prepare, 0)),
        ),
        (
            "seen",
            up(Seen, DESTINATION)
                .with(Tlv::Flows(flows()[..1].to_vec()))
                .with(Tlv::Side(Side::Upstream))
                .with(Tlv::Round(1)),
        ),
        (
            "fenced",
            up(Fenced, SOURCE)
                .flagged(Flags::UNFENCED)
                .with(Tlv::Side(Side::Upstream))
                .with(Tlv::Round(1)),
        ),
        ("imported", up(Imported, DESTINATION)),
        (
            "released",
            up(Released, DESTINATION)
                .flagged(Flags::STATE_LOST | Flags::DRAIN_UNPROVEN)
                .with(counts(&[
                    (Counter::Flows, 4),
                    (Counter::CapturedPackets, 1000),
                    (Counter::CapturedBytesPeak, 1_500_000),
                    (Counter::StrayPackets, 32),
                    (Counter::ReleasedPackets, 999),
                    (Counter::LostPackets, 1),
                    (Counter::Markers, 6),
                    (Counter::FenceUs, 750),
                ])),
        ),
        (
            "aborted",
            up(Aborted, DESTINATION).with(counts(&[(Counter::LostPackets, 0)])),
        ),
        (
            "status",
            up(Status, SOURCE)
                .with(counts(&[
                    (Counter::DiscardedPackets, 2),
                    (Counter::OutstandingPackets, 3),
                    (Counter::BufferBytes, 4),
                    (Counter::BufferLimitBytes, u64::MAX),
                    (Counter::RejectedFrames, 5),
                ]))
                .with(Tlv::Epoch(4))
                .with(Tlv::Name("nat-1".into()))
                .with(Tlv::Step("exported".into())),
        ),
        ("drain", local(Drain, SOURCE).with(Tlv::Round(1))),
        (
            "flush",
            local(Flush, DESTINATION)
                .with(Tlv::Round(9))
                .with(Tlv::Cpu(1)),
        ),
        ("test", local(Test, CONTROLLER).with(Tlv::Round(2))),
        (
            "abort_turned",
            down(Abort, SOURCE)
                .flagged(Flags::TURNED)
                .with(error(Reason::BufferPressure, "the buffer was half full")),
        ),
    ];
    (0..)
        .zip(list)
        .map(|(sequence, (name, mut message))| {
            message.boot = BOOT;
            message.sequence = sequence;
            Sample { name, message }
        })
        .collect()
}
