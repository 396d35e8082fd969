//! Properties that hold for any message, any list and any order of arrival.

use flowferry_wire::*;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn masked<T: Clone + Debug + 'static>(
    bits: impl Strategy<Value = u128> + Clone,
    make: fn(u128) -> T,
) -> impl Strategy<Value = Option<Masked<T>>> {
    let pair = (bits.clone(), bits).prop_map(move |(value, mask)| {
        (mask != 0).then(|| Masked {
            value: make(value & mask),
            mask: make(mask),
        })
    });
    prop_oneof![Just(None), pair]
}

fn word(most: u16) -> impl Strategy<Value = Option<Masked<u16>>> {
    masked(0..=u128::from(most), |bits| bits as u16)
}

fn network() -> impl Strategy<Value = Network> {
    let ip4 = || masked(0..=u128::from(u32::MAX), |bits| Ipv4Addr::from(bits as u32));
    let ip6 = || masked(any::<u128>(), Ipv6Addr::from);
    prop_oneof![
        Just(Network::Any),
        (ip4(), ip4()).prop_map(|(source, destination)| Network::Ip4 {
            source,
            destination
        }),
        (ip6(), ip6()).prop_map(|(source, destination)| Network::Ip6 {
            source,
            destination
        }),
    ]
}

prop_compose! {
    fn matching()(
        network in network(),
        protocol in option::of(prop_oneof![select(vec![6u8, 17, 132]), any::<u8>()]),
        ports in (word(u16::MAX), word(u16::MAX)),
        vlans in [word(0x1fff), word(0x1fff)],
    ) -> Match {
        let protocol = protocol.filter(|_| network != Network::Any);
        let has_ports = protocol.is_some_and(|p| [6, 17, 132].contains(&p));
        Match {
            network,
            protocol,
            source_port: ports.0.filter(|_| has_ports),
            destination_port: ports.1.filter(|_| has_ports),
            vlans,
        }
    }
}

fn flow() -> impl Strategy<Value = Flow> {
    let vlans = || vec(0..=4094u16, 0..=2).prop_map(|ids| Vlans::new(&ids).unwrap());
    prop_oneof![
        (vlans(), any::<u8>(), any::<[(Ipv4Addr, u16); 2]>())
            .prop_map(|(vlans, protocol, [a, b])| Flow::ip4(vlans, protocol, a, b)),
        (vlans(), any::<u8>(), any::<[(Ipv6Addr, u16); 2]>())
            .prop_map(|(vlans, protocol, [a, b])| Flow::ip6(vlans, protocol, a, b)),
        (vlans(), any::<u16>(), any::<[Mac; 2]>())
            .prop_map(|(vlans, ethertype, [a, b])| Flow::link(vlans, ethertype, a, b)),
    ]
}

fn tlv() -> impl Strategy<Value = Tlv> {
    let counts = btree_map(select(Counter::ALL), any::<u64>(), 0..8);
    let report = (select(Reason::ALL), "\\PC{0,100}");
    let part = (any::<u32>(), [1..=MAX_PARTS, 1..=MAX_PARTS]);
    prop_oneof![
        matching().prop_map(Tlv::Match),
        matching().prop_map(Tlv::DownstreamMatch),
        vec(matching(), 0..8).prop_map(Tlv::Overriding),
        any::<u16>().prop_map(Tlv::Priority),
        any::<u32>().prop_map(Tlv::Source),
        any::<u32>().prop_map(Tlv::Destination),
        (any::<u32>(), any::<IpAddr>(), any::<u16>()).prop_map(|(instance, address, port)| {
            Tlv::Peer(Peer {
                instance,
                address,
                port,
            })
        }),
        vec(flow(), 0..20).prop_map(Tlv::Flows),
        select(Side::ALL).prop_map(Tlv::Side),
        counts.prop_map(Tlv::Counts),
        report.prop_map(|(reason, text)| Tlv::Error(Report { reason, text })),
        any::<u32>().prop_map(Tlv::Deadline),
        any::<u32>().prop_map(Tlv::Settling),
        "[a-z-]{1,32}".prop_map(Tlv::Strategy),
        any::<u64>().prop_map(Tlv::Epoch),
        part.prop_map(|(list, [a, b])| Tlv::Part(Part {
            list,
            part: a.min(b) - 1,
            parts: a.max(b),
        })),
        (select(Command::ALL), any::<u64>())
            .prop_map(|(command, sequence)| Tlv::InReplyTo(InReplyTo { command, sequence })),
        any::<u32>().prop_map(Tlv::Round),
        any::<u16>().prop_map(Tlv::Cpu),
        "[a-zé0-9.-]{1,32}".prop_map(Tlv::Name),
    ]
}

prop_compose! {
    /// Any message that may be sent: commands without required TLVs take all kinds of them.
    fn message()(
        command in select(vec![Command::Release, Command::Commit, Command::Query, Command::Imported]),
        flags in 0..0x20u16,
        handover in any::<u64>(),
        ids in any::<[u32; 2]>(),
        boot in any::<u64>(),
        sequence in any::<u64>(),
        tlvs in vec(tlv(), 0..12),
    ) -> Message {
        let mut kinds = BTreeSet::new();
        let fresh = |tlv: &Tlv| tlv.kind().repeats() || kinds.insert(tlv.kind());
        Message {
            command,
            flags: Flags::from_bits(flags).unwrap(),
            handover,
            to: ids[0],
            from: ids[1],
            boot,
            sequence,
            tlvs: tlvs.into_iter().filter(fresh).collect(),
        }
    }
}

fn keys() -> KeyRing {
    KeyRing::new(3, Key::new(vec![0x5a; 32]).unwrap())
}

proptest! {
    #[test]
    fn what_is_emitted_is_parsed(message in message()) {
        let bytes = message.emit(1, 65535).unwrap();
        prop_assert_eq!(bytes.len(), message.payload_len());
        let control = Control::new_checked(&bytes).unwrap();
        prop_assert_eq!(control.key_id(), 1);
        prop_assert_eq!(Message::parse(&control).unwrap(), message);
    }

    #[test]
    fn parsing_any_bytes_gives_an_error_or_a_message_that_emits_and_parses_again(
        mut bytes in vec(any::<u8>(), 56..200),
        tlvs in any::<bool>(),
    ) {
        bytes[0] = VERSION;
        bytes[1] = Command::Query.number();
        bytes[2] = 0;
        bytes[3] &= 0x3f;
        let len = bytes.len() - OVERHEAD;
        bytes[6..8].copy_from_slice(&(len as u16).to_be_bytes());
        if tlvs && len >= 4 {
            // Make the first TLV a plausible one.
            bytes[40] = 0;
            bytes[41] %= 0x14;
            bytes[42] = 0;
            bytes[43] = (len - 4) as u8;
        }
        if let Ok(message) = Message::parse(&Control::new_checked(&bytes).unwrap()) {
            let again = message.emit(0, 65535).unwrap();
            prop_assert_eq!(Message::parse(&Control::new_checked(&again).unwrap()).unwrap(), message);
        }
    }

    #[test]
    fn any_corruption_of_a_sealed_frame_is_rejected(
        mut message in message(),
        at in any::<proptest::sample::Index>(),
        change in 1..=255u8,
    ) {
        let mut frame = Sealer::new(1, 1).seal(&keys(), &mut message, [0; 6], [0; 6], 65535).unwrap();
        let at = 12 + at.index(frame.len() - 12);
        frame[at] ^= change;
        prop_assert!(Opener::new(message.to).open(&keys(), &frame).is_err());
    }

    #[test]
    fn a_flow_has_one_key_for_both_directions(
        a in any::<(Ipv4Addr, u16)>(),
        b in any::<(Ipv4Addr, u16)>(),
        protocol in any::<u8>(),
    ) {
        let there = Flow::ip4(Vlans::NONE, protocol, a, b);
        prop_assert_eq!(there, Flow::ip4(Vlans::NONE, protocol, b, a));
    }

    #[test]
    fn split_messages_fit_and_join_in_any_order(
        flows in vec(flow(), 0..600),
        matches in vec(matching(), 0..40),
        mtu in 300..1500usize,
        seed in any::<u64>(),
    ) {
        let message = Message::new(Command::Query, 1, 2)
            .with(Tlv::Flows(flows))
            .with(Tlv::Overriding(matches))
            .with(Tlv::Epoch(7));
        let mut parts = split(&message, mtu, 9).unwrap();
        for part in &parts {
            prop_assert!(part.emit(0, mtu).is_ok());
        }
        // Any order, and one of them twice.
        let count = parts.len();
        parts.rotate_left(seed as usize % count);
        if count > 2 {
            parts.swap(0, count / 2);
            parts.insert(0, parts[0].clone());
        }
        let mut assembler = Assembler::new();
        let mut whole = None;
        for part in parts {
            prop_assert!(whole.is_none(), "whole before the last part");
            whole = assembler.add(part).unwrap();
        }
        prop_assert_eq!(whole, Some(message));
        prop_assert_eq!(assembler.pending(), 0);
    }

    #[test]
    fn the_replay_window_equals_a_set(
        start in prop_oneof![0..5000u64, any::<u64>(), Just(u64::MAX)],
        resumed in any::<bool>(),
        moves in vec((-1200..1200i64, 0..40u8), 1..400),
    ) {
        let mut model = Model { boot: 5, top: start, seen: BTreeSet::from([start]) };
        let mut window = if resumed {
            model.seen = (start.saturating_sub(WINDOW)..=start).collect();
            ReplayWindow::resume(5, start)
        } else {
            ReplayWindow::new(5, start)
        };
        for (step, boots) in moves {
            // Mostly the same boot, now and then one back or forth.
            let boot = match boots {
                0 => model.boot + 1,
                1 => model.boot - 1,
                _ => model.boot,
            };
            let sequence = model.top.saturating_add_signed(step);
            prop_assert_eq!(window.accept(boot, sequence), model.accept(boot, sequence));
        }
    }
}

/// The replay window as one would write it without regard to memory.
struct Model {
    boot: u64,
    top: u64,
    seen: BTreeSet<u64>,
}

impl Model {
    fn accept(&mut self, boot: u64, sequence: u64) -> Replay {
        if boot > self.boot {
            *self = Self {
                boot,
                top: sequence,
                seen: BTreeSet::new(),
            };
        }
        if boot < self.boot || self.top.saturating_sub(sequence) >= WINDOW {
            return Replay::Stale;
        }
        if !self.seen.insert(sequence) {
            return Replay::Replayed;
        }
        self.top = self.top.max(sequence);
        Replay::Fresh
    }
}
