//! Bytes as a stranger, a broken link or a newer version would send them.

use crate::samples;
use flowferry_wire::*;

const TO: u32 = 9;

/// A sealed payload whose TLV area is `tlvs`, whatever they are.
fn sealed_raw(command: u8, flags: u16, tlvs: &[u8]) -> Vec<u8> {
    let mut bytes = Message::new(Command::Query, 1, TO)
        .emit(samples::KEY_ID, DEFAULT_MTU)
        .unwrap();
    bytes.truncate(HEADER_LEN);
    bytes[1] = command;
    bytes[2..4].copy_from_slice(&flags.to_be_bytes());
    bytes[6..8].copy_from_slice(&(tlvs.len() as u16).to_be_bytes());
    bytes.extend_from_slice(tlvs);
    samples::sign(bytes)
}

fn open_raw(command: u8, flags: u16, tlvs: &[u8]) -> Result<Message, Rejection> {
    Opener::new(TO)
        .open_payload(&samples::keys(), &sealed_raw(command, flags, tlvs))
        .map(Verified::into_inner)
}

fn malformed(command: Command, tlvs: &[u8]) -> Malformed {
    match open_raw(command.number(), 0, tlvs) {
        Err(Rejection::Malformed(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_truncation_is_an_error() {
    for sample in samples::all() {
        let frame = sample.frame();
        for len in 0..frame.len() {
            let mut opener = Opener::new(sample.message.to);
            let result = opener.open(&samples::keys(), &frame[..len]);
            assert!(
                matches!(
                    result,
                    Err(Rejection::Malformed(Malformed::Truncated { .. }))
                ),
                "{} cut to {len} bytes: {result:?}",
                sample.name
            );
        }
    }
}

#[test]
fn every_changed_byte_is_rejected() {
    for sample in samples::all() {
        let frame = sample.frame();
        for at in 12..frame.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut bad = frame.clone();
                bad[at] ^= change;
                let mut opener = Opener::new(sample.message.to);
                let result = opener.open(&samples::keys(), &bad);
                assert!(result.is_err(), "{}: byte {at} ^ {change:#x}", sample.name);
                assert_eq!(opener.accepted(), 0);
                assert_eq!(opener.positions().count(), 0, "a forgery opened a window");
            }
        }
    }
}

#[test]
fn rewritten_addresses_and_padding_are_tolerated() {
    for sample in samples::all() {
        let mut frame = sample.frame();
        assert!(frame.len() >= 60, "Ethernet would pad this frame");
        frame[..12].copy_from_slice(&[0xee; 12]);
        frame.extend_from_slice(&[0xa5; 46]);
        let mut opener = Opener::new(sample.message.to);
        assert_eq!(
            *opener.open(&samples::keys(), &frame).unwrap(),
            sample.message
        );
    }
}

#[test]
fn a_vlan_tag_is_named() {
    let mut frame = samples::all()[0].frame();
    frame.splice(12..12, [0x81, 0x00, 0x00, 0x64]);
    let error = Opener::new(2).open(&samples::keys(), &frame).unwrap_err();
    assert_eq!(
        error,
        Rejection::Malformed(Malformed::EtherType { found: 0x8100 })
    );
    assert!(error.to_string().contains("untagged"), "{error}");
}

#[test]
fn another_version_is_named_before_anything_else() {
    let error = Control::new_checked([2u8]).unwrap_err();
    assert_eq!(error, Malformed::Version { found: 2 });
}

#[test]
fn an_unknown_command_is_named() {
    let error = open_raw(0x1f, 0, &[]).unwrap_err();
    assert_eq!(
        error,
        Rejection::Malformed(Malformed::UnknownCommand { number: 0x1f })
    );
    assert!(error.to_string().contains("0x1f"), "{error}");
}

#[test]
fn unknown_flags_are_named() {
    assert_eq!(
        open_raw(Command::Query.number(), 0x4001, &[]),
        Err(Rejection::Malformed(Malformed::UnknownFlags {
            bits: 0x4000
        }))
    );
}

#[test]
fn unknown_tlvs_are_skipped_only_when_optional() {
    let optional = [0x80, 0x77, 0, 3, 1, 2, 3, 0, 0x12, 0, 4, 0, 0, 0, 5];
    let message = open_raw(Command::Query.number(), 0, &optional).unwrap();
    assert_eq!(message.tlvs, [Tlv::Round(5)]);
    assert_eq!(
        malformed(Command::Query, &[0x00, 0x77, 0, 0]),
        Malformed::UnknownTlv {
            kind: 0x77,
            offset: 40
        }
    );
}

#[test]
fn a_missing_tlv_is_named() {
    assert_eq!(
        malformed(Command::Marker, &[0, 9, 0, 1, 1]),
        Malformed::Missing {
            command: Command::Marker,
            kind: Kind::Round
        }
    );
    assert_eq!(
        Message::new(Command::Freeze, 1, 1).emit(0, DEFAULT_MTU),
        Err(Unsendable::Missing {
            command: Command::Freeze,
            kind: Kind::Deadline
        })
    );
}

#[test]
fn a_doubled_tlv_is_named_unless_it_may_repeat() {
    let round = [0, 0x12, 0, 4, 0, 0, 0, 5];
    assert_eq!(
        malformed(Command::Query, &[round, round].concat()),
        Malformed::Duplicate {
            kind: Kind::Round,
            offset: 48
        }
    );
    let message = Message::new(Command::Query, 1, 1)
        .with(Tlv::Round(1))
        .with(Tlv::Round(2));
    assert_eq!(
        message.emit(0, DEFAULT_MTU),
        Err(Unsendable::Duplicate { kind: Kind::Round })
    );
    let source = [0, 5, 0, 4, 0, 0, 0, 5];
    let message = open_raw(Command::Query.number(), 0, &[source, source].concat()).unwrap();
    assert_eq!(message.sources().collect::<Vec<_>>(), [5, 5]);
}

/// Values that fit their length and are wrong all the same, and where the error points.
#[test]
fn bad_values_are_located() {
    let cases: &[(&str, &[u8], usize)] = &[
        ("side 3", &[0, 9, 0, 1, 3], 44),
        ("match family", &[0, 1, 0, 2, 5, 0], 44),
        ("match field bit 0x80", &[0, 1, 0, 2, 4, 0x80], 45),
        ("address without family", &[0, 1, 0, 2, 0, 2], 44),
        ("protocol without family", &[0, 1, 0, 3, 0, 1, 6], 44),
        (
            "ports of ICMP",
            &[0, 1, 0, 7, 4, 9, 1, 0, 1, 0xff, 0xff],
            44,
        ),
        ("value outside mask", &[0, 1, 0, 6, 0, 0x20, 0, 3, 0, 1], 44),
        ("empty mask", &[0, 1, 0, 6, 0, 0x20, 0, 0, 0, 0], 44),
        (
            "VLAN bit 0x2000",
            &[0, 1, 0, 6, 0, 0x20, 0x20, 0, 0x20, 0],
            44,
        ),
        ("flow family", &[0, 8, 0, 2, 0x30, 0], 44),
        ("three VLANs", &[0, 8, 0, 2, 0x43, 0], 44),
        ("VLAN id 4095", &[0, 8, 0, 4, 0x41, 6, 0x0f, 0xff], 44),
        ("link flow with protocol", &[0, 8, 0, 2, 0x20, 6], 44),
        (
            "greater end first",
            &[0, 8, 0, 14, 0x40, 6, 9, 9, 9, 9, 0, 1, 1, 1, 1, 1, 0, 1],
            44,
        ),
        (
            "counters fall",
            &[
                0, 10, 0, 20, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
            ],
            54,
        ),
        (
            "a counter twice",
            &[
                0, 10, 0, 20, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0,
            ],
            54,
        ),
        ("text is not UTF-8", &[0, 11, 0, 4, 0, 0, b'a', 0xff], 47),
        ("empty strategy", &[0, 14, 0, 0], 44),
        ("newline in a name", &[0x80, 0x14, 0, 1, b'\n'], 44),
        ("part 2 of 2", &[0, 16, 0, 8, 0, 0, 0, 1, 0, 2, 0, 2], 44),
        ("4097 parts", &[0, 16, 0, 8, 0, 0, 0, 1, 0, 2, 0x10, 1], 44),
        (
            "answer to nothing",
            &[0, 17, 0, 9, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0],
            44,
        ),
    ];
    for (name, tlvs, at) in cases {
        match malformed(Command::Query, tlvs) {
            Malformed::Value { offset, .. } => assert_eq!(offset, *at, "{name}"),
            other => panic!("{name}: {other}"),
        }
    }
}

#[test]
fn a_value_longer_than_its_fields_is_located() {
    assert_eq!(
        malformed(Command::Query, &[0, 0x12, 0, 5, 0, 0, 0, 5, 0]),
        Malformed::Leftover {
            kind: Kind::Round,
            offset: 48,
            extra: 1
        }
    );
}

#[test]
fn unknown_reasons_and_counters_of_a_newer_version_do_no_harm() {
    let message = open_raw(
        Command::Abort.number(),
        0,
        &[0, 11, 0, 4, 0xff, 0, b'h', b'i'],
    )
    .unwrap();
    let report = message.error().unwrap();
    assert_eq!((report.reason, report.text.as_str()), (Reason::Other, "hi"));

    let count = [0xff, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let tlv = [&[0, 10, 0, 10], &count[..]].concat();
    let message = open_raw(Command::Aborted.number(), 0, &tlv).unwrap();
    assert!(message.counts().unwrap().is_empty());
}
