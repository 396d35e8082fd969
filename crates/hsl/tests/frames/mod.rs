//! Frames for the tests: plain ones, and every kind of broken one.
#![allow(dead_code)] // each test takes what it needs

use proptest::collection::vec;
use proptest::prelude::*;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// An MTU of 1,500 and two tags.
const LONGEST: usize = 1_522;

/// A whole packet between hosts of 10.0.0.0/24, fd00::/120 or, kind 2, MAC addresses alone.
pub fn frame(vlans: &[u16], kind: u8, proto: u8, src: (u8, u16), dst: (u8, u16)) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, dst.0, 2, 0, 0, 0, 0, src.0];
    for vlan in vlans {
        frame.extend([0x81, 0x00]);
        frame.extend(vlan.to_be_bytes());
    }
    match kind {
        4 => {
            frame.extend(ETHERTYPE_IPV4.to_be_bytes());
            frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, proto, 0, 0]);
            frame.extend([10, 0, 0, src.0, 10, 0, 0, dst.0]);
        }
        6 => {
            frame.extend(ETHERTYPE_IPV6.to_be_bytes());
            frame.extend([0x60, 0, 0, 0, 0, 8, proto, 64]);
            for host in [src.0, dst.0] {
                frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, host]);
            }
        }
        _ => frame.extend([0x88, 0xcc]),
    }
    frame.extend(src.1.to_be_bytes());
    frame.extend(dst.1.to_be_bytes());
    frame.resize(frame.len().max(64), 0);
    frame
}

/// Numbers of protocols that the parsers treat in a way of their own, and some others.
pub fn proto() -> impl Strategy<Value = u8> {
    let known = vec![
        0u8, 1, 6, 17, 33, 43, 44, 47, 50, 51, 58, 59, 60, 132, 135, 136,
    ];
    prop_oneof![8 => prop::sample::select(known), 1 => any::<u8>()]
}

fn ethernet() -> impl Strategy<Value = Vec<u8>> {
    let tag = (prop::sample::select(vec![0x8100u16, 0x88a8]), any::<u16>());
    // Few addresses, so that the order of the ends depends on the ports as well.
    (vec(0..2u8, 12), vec(tag, 0..4)).prop_map(|(mut frame, tags)| {
        for (ethertype, tci) in tags {
            frame.extend(ethertype.to_be_bytes());
            frame.extend(tci.to_be_bytes());
        }
        frame
    })
}

fn ipv4() -> impl Strategy<Value = Vec<u8>> {
    let fragment = prop_oneof![
        6 => Just(0u16),
        1 => Just(0x4000),
        1 => Just(0x2000),
        2 => 0..0x4000u16,
    ];
    let words = prop_oneof![6 => Just(5u8), 2 => 5..16u8, 1 => 0..5u8];
    (
        words,
        fragment,
        proto(),
        vec(0..2u8, 8),
        vec(any::<u8>(), 0..60),
    )
        .prop_map(|(words, fragment, proto, addresses, rest)| {
            let mut packet = vec![0x40 | words, 0, 0, 0, 0, 0];
            packet.extend(fragment.to_be_bytes());
            packet.extend([64, proto, 0, 0]);
            packet.extend(addresses);
            packet.extend(rest);
            packet
        })
}

fn extension() -> impl Strategy<Value = (u8, u8, u16, u8)> {
    let header = prop::sample::select(vec![0u8, 43, 44, 44, 51, 60, 60]);
    let length = prop_oneof![6 => 0..2u8, 2 => 0..10u8, 1 => any::<u8>()];
    let fragment = prop_oneof![3 => Just(0u16), 1 => Just(1), 1 => Just(6), 2 => any::<u16>()];
    (header, length, fragment, any::<u8>())
}

fn ipv6() -> impl Strategy<Value = Vec<u8>> {
    (
        vec(extension(), 0..9),
        proto(),
        vec(0..2u8, 32),
        vec(any::<u8>(), 0..40),
    )
        .prop_map(|(extensions, proto, addresses, rest)| {
            let mut chain: Vec<u8> = extensions.iter().map(|(header, ..)| *header).collect();
            chain.push(proto);
            let mut packet = vec![0x60, 0, 0, 0, 0, 0, chain[0], 64];
            packet.extend(addresses);
            for ((header, length, fragment, filler), next) in extensions.iter().zip(&chain[1..]) {
                packet.extend([*next, *length]);
                packet.extend(fragment.to_be_bytes());
                let whole = match header {
                    44 => 8,
                    51 => 8 + usize::from(*length) * 4,
                    _ => 8 + usize::from(*length) * 8,
                };
                packet.resize(packet.len() + whole - 4, *filler);
            }
            packet.extend(rest);
            packet
        })
}

fn whole_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        4 => ipv4().prop_map(|packet| (ETHERTYPE_IPV4, packet)),
        6 => ipv6().prop_map(|packet| (ETHERTYPE_IPV6, packet)),
        1 => (any::<u16>(), vec(any::<u8>(), 0..60)),
        1 => (Just(0x0806u16), vec(any::<u8>(), 28)),
    ];
    (ethernet(), payload).prop_map(|(mut frame, (ethertype, payload))| {
        frame.extend(ethertype.to_be_bytes());
        frame.extend(payload);
        frame.truncate(LONGEST);
        frame
    })
}

/// A frame from the grammar, often cut short or with bytes changed, or mere noise.
pub fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let mutations = prop_oneof![
        3 => Just(vec![]),
        1 => vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ];
    let cut = prop_oneof![2 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)];
    let changed = (whole_frame(), mutations, cut).prop_map(|(mut frame, mutations, cut)| {
        for (at, byte) in mutations {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if let Some(cut) = cut {
            frame.truncate(cut.index(frame.len() + 1));
        }
        frame
    });
    prop_oneof![9 => changed, 1 => vec(any::<u8>(), 0..200)]
}
