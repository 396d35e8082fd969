//! Bytes between agents, and lines between agent and function: golden bytes both ways, every
//! truncation, and whatever else may come.

use flowferry_hsl::handover::function::{Answer, Other, Tell};
use flowferry_hsl::handover::record::{Directed, FINAL, LIST, Record};
use flowferry_hsl::handover::translate::{from_directed, to_directed, to_flow, to_key, to_match};
use flowferry_hsl::key::{Key, Parsed, Side};
use flowferry_hsl::matching::Match;
use flowferry_wire as wire;
use flowferry_wire::{Flow, Masked, Network, Vlans};
use proptest::collection::vec;
use proptest::prelude::*;

const HANDOVER: u64 = 0x0201;

fn flow() -> Flow {
    Flow::ip4(
        Vlans::NONE,
        17,
        ([10, 0, 0, 1].into(), 7),
        ([10, 0, 0, 2].into(), 53),
    )
}

fn listed(swapped: bool) -> Directed {
    Directed {
        flow: flow(),
        swapped,
    }
}

/// Every kind of record, with its bytes.
fn golden() -> Vec<(Record, &'static str)> {
    let handover = HANDOVER;
    vec![
        (
            Record::List {
                handover,
                last: true,
                more: true,
                whole: false,
                flows: vec![listed(false), listed(true)],
            },
            "02 03 0000000000000201 0002 02 4011 0a000001 0007 0a000002 0035 \
             4011 0a000001 0007 0a000002 0035",
        ),
        (
            Record::List {
                handover,
                last: false,
                more: false,
                whole: true,
                flows: vec![],
            },
            "02 04 0000000000000201 0000",
        ),
        (
            Record::Fenced {
                handover,
                side: Side::Downstream,
                round: 3,
                unfenced: false,
            },
            "03 00 0000000000000201 01 00000003",
        ),
        (
            Record::Fenced {
                handover,
                side: Side::Upstream,
                round: FINAL,
                unfenced: true,
            },
            "03 01 0000000000000201 00 ffffffff",
        ),
        (
            Record::State {
                handover,
                present: true,
                unproven: true,
                bytes: 258,
            },
            "04 03 0000000000000201 0000000000000102",
        ),
        (Record::Finish { handover }, "05 00 0000000000000201"),
        (Record::Return { handover }, "06 00 0000000000000201"),
        (Record::Cancel { handover }, "07 00 0000000000000201"),
    ]
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: String = hex.split_whitespace().collect();
    let octet = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(octet).collect()
}

#[test]
fn records_are_these_bytes_both_ways() {
    for (record, hex) in golden() {
        assert_eq!(record.write(), bytes(hex), "{record:?}");
        assert_eq!(Record::read(&bytes(hex)), Ok(record));
    }
}

#[test]
fn a_record_that_is_cut_or_too_long_is_none() {
    for (record, hex) in golden() {
        let whole = bytes(hex);
        for length in 0..whole.len() {
            assert!(Record::read(&whole[..length]).is_err(), "{record:?}");
        }
        let longer = [whole.as_slice(), &[0]].concat();
        assert!(Record::read(&longer).is_err(), "{record:?}");
    }
}

#[test]
fn unknown_kinds_flags_and_sides_are_refused() {
    for (record, hex) in golden() {
        let mut flags = bytes(hex);
        flags[1] |= 0x80;
        assert!(Record::read(&flags).is_err(), "{record:?}");
    }
    assert!(Record::read(&bytes("08 00 0000000000000201")).is_err());
    assert!(Record::read(&bytes("03 00 0000000000000201 02 00000003")).is_err());
    let long = Record::List {
        handover: 1,
        last: false,
        more: false,
        whole: false,
        flows: vec![listed(false); LIST + 1],
    };
    assert!(Record::read(&long.write()).is_err());
    let stray_bit = "02 00 0000000000000201 0001 02 4011 0a000001 0007 0a000002 0035";
    assert!(Record::read(&bytes(stray_bit)).is_err());
}

#[test]
fn lines_to_the_function() {
    let peer = Other {
        instance: 2,
        address: "192.0.2.2:7700".parse().unwrap(),
    };
    let tell = Tell::Export {
        handover: HANDOVER,
        flows: [false, true]
            .map(|swapped| from_directed(&listed(swapped)))
            .into(),
        peer,
        deadline_ms: 9,
    };
    assert_eq!(
        tell.to_json(),
        serde_json::json!({
            "event": "export", "handover": 513,
            "flows": [
                "udp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_src=7,tp_dst=53",
                "udp,nw_src=10.0.0.2,nw_dst=10.0.0.1,tp_src=53,tp_dst=7",
            ],
            "peer": { "instance": 2, "address": "192.0.2.2:7700" }, "deadline_ms": 9,
        })
    );
}

#[test]
fn lines_of_the_function() {
    let lines = [
        (
            r#"{"hello": "nat", "lists_flows": true}"#,
            Answer::Hello {
                name: "nat".to_owned(),
                lists_flows: true,
                new_flows: false,
            },
        ),
        (
            r#"{"done": "export", "handover": 513, "bytes": 7, "later": 1}"#,
            Answer::Exported {
                handover: HANDOVER,
                bytes: 7,
            },
        ),
        (
            r#"{"done": "import", "handover": 513}"#,
            Answer::Imported {
                handover: HANDOVER,
                bytes: 0,
            },
        ),
        (
            r#"{"failed": "export", "handover": 513, "error": "full\n"}"#,
            Answer::ExportFailed {
                handover: HANDOVER,
                error: "full".to_owned(),
            },
        ),
        (
            r#"{"done": "flows", "request": 4, "flows": ["udp,nw_src=10.0.0.2,nw_dst=10.0.0.1,tp_src=53,tp_dst=7"]}"#,
            Answer::Flows {
                request: 4,
                flows: vec![from_directed(&listed(true))],
            },
        ),
    ];
    for (line, answer) in lines {
        assert_eq!(Answer::read(line), Ok(answer), "{line}");
    }
}

#[test]
fn what_a_function_must_not_say_is_explained() {
    for line in [
        "",
        "[]",
        "{}",
        r#"{"done": "prepare"}"#,
        r#"{"failed": "flows"}"#,
        r#"{"hello": "a", "done": "export"}"#,
        r#"{"done": "flows", "flows": ["udp"]}"#,
        r#"{"done": "export", "handover": -1}"#,
    ] {
        let why = Answer::read(line).unwrap_err();
        assert!(!why.is_empty() && !why.contains('\n'), "{line}: {why}");
    }
}

fn any_packet() -> impl Strategy<Value = Parsed> {
    let end = || (any::<[u8; 4]>(), 0..4u16);
    (
        end(),
        end(),
        prop_oneof![Just(6u8), Just(17), Just(1)],
        any::<bool>(),
        0..3u16,
    )
        .prop_map(|(from, to, protocol, upstream, vlan)| {
            let side = if upstream {
                Side::Upstream
            } else {
                Side::Downstream
            };
            let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
            if vlan > 0 {
                frame.extend([0x81, 0x00]);
                frame.extend(vlan.to_be_bytes());
            }
            frame.extend([0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0]);
            frame.extend(from.0);
            frame.extend(to.0);
            frame.extend(from.1.to_be_bytes());
            frame.extend(to.1.to_be_bytes());
            frame.resize(60, 0);
            Key::parse(&frame, side).unwrap()
        })
}

fn any_match() -> impl Strategy<Value = wire::Match> {
    let port = || prop::option::of((0..4u16, 0..4u16));
    let address = || prop::option::of((any::<[u8; 4]>(), 0..33u32));
    (
        address(),
        address(),
        port(),
        port(),
        prop::option::of(0..3u16),
    )
        .prop_map(
            |(source, destination, source_port, destination_port, vlan)| {
                let network = |address: Option<([u8; 4], u32)>| {
                    let (octets, prefix) = address.filter(|(_, prefix)| *prefix > 0)?;
                    let mask = u32::MAX << (32 - prefix);
                    Some(Masked {
                        value: (u32::from_be_bytes(octets) & mask).into(),
                        mask: mask.into(),
                    })
                };
                let port = |port: Option<(u16, u16)>| {
                    let (value, mask) = port.filter(|(_, mask)| *mask > 0)?;
                    Some(Masked {
                        value: value & mask,
                        mask,
                    })
                };
                let vlan = vlan.map(|vid| match vid {
                    0 => Masked {
                        value: 0,
                        mask: 0x1fff,
                    },
                    vid => Masked {
                        value: 0x1000 | vid,
                        mask: 0x1fff,
                    },
                });
                wire::Match {
                    network: Network::Ip4 {
                        source: network(source),
                        destination: network(destination),
                    },
                    protocol: Some(17),
                    source_port: port(source_port),
                    destination_port: port(destination_port),
                    vlans: [vlan, None],
                }
            },
        )
}

proptest! {
    #[test]
    fn any_bytes_are_refused_or_read_as_written(bytes in vec(any::<u8>(), 0..80)) {
        if let Ok(record) = Record::read(&bytes) {
            prop_assert_eq!(record.write(), bytes);
        }
    }

    #[test]
    fn any_line_is_refused_or_understood(line in ".{0,80}") {
        let _ = Answer::read(&line);
    }

    #[test]
    fn a_flow_comes_back_from_control_frames(packet in any_packet()) {
        let upstream = packet.key.on(Side::Upstream);
        let flow = to_flow(&packet.key).expect("no reserved VLAN id");
        prop_assert_eq!(to_key(&flow), upstream);
    }

    /// Whichever end is the upstream one: in a list, in a line to the function, and for matches.
    #[test]
    fn a_listed_flow_keeps_its_direction(matching in any_match(), packet in any_packet()) {
        let upstream = packet.on(Side::Upstream);
        let listed = to_directed(&upstream).expect("no reserved VLAN id");
        prop_assert_eq!(from_directed(&listed), upstream);
        let record = Record::List { handover: 1, last: true, more: false, whole: true, flows: vec![listed; 9] };
        prop_assert_eq!(Record::read(&record.write()), Ok(record));
        let matching = to_match(&matching);
        prop_assert_eq!(matching.covers(&upstream), matching.covers(&packet));
        let named: Match = upstream.to_match().parse().expect("flow syntax");
        // Fragments have no ports to name.
        let whole = upstream.key.proto == 1 || upstream.key.low_port != upstream.key.high_port;
        if whole && upstream.key.low != upstream.key.high {
            prop_assert!(named.covers(&packet));
            prop_assert_eq!(named.flow(), Some(upstream));
        }
    }

    /// Where it can be written in flow syntax, text and words say the same.
    #[test]
    fn a_match_of_control_frames_is_the_one_it_says(matching in any_match(), packet in any_packet()) {
        let found = to_match(&matching);
        let plain = [matching.source_port, matching.destination_port];
        if plain.iter().flatten().all(|port| port.mask == 0xffff) {
            let read: Match = found.to_string().parse().expect("flow syntax");
            prop_assert_eq!(read.covers(&packet), found.covers(&packet));
        }
    }
}
