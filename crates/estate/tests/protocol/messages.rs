//! The wire format: golden bytes for every message, both ways; nothing cut short, too long or of
//! another version is understood.
//!
//! `FLOWFERRY_WRITE_GOLDEN=1 cargo test -p flowferry-estate messages` rewrites the golden files;
//! the diff is what a reviewer reads, since it is a change of the wire format.

use flowferry_estate::protocol::{
    Contribution, Link, Message, Move, Moving, NodeId, Note, Refusal, Role, VERSION,
};
use flowferry_estate::reduce::{Partial, Reducer};
use flowferry_estate::{FlowKey, Item, Pattern, Selection, Stamp, Value, VectorClock};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn from() -> NodeId {
    NodeId::new("nf1", 3)
}

fn item() -> Item {
    let mut clock = VectorClock::new();
    clock.record("nf2", Stamp::from_bits(5));
    Item {
        key: "packets".into(),
        value: Value::Int(-2),
        stamp: Stamp::from_bits(0x0102_0304_0506_0708),
        clock: Some(clock),
        node: "nf1".into(),
        expires: Some(9),
    }
}

fn contribution() -> Contribution {
    let mut partial = Partial::new(Reducer::Sum);
    partial.add(item().borrow(), &"nf1".into());
    Contribution {
        clock: Stamp::from_bits(77),
        settled: partial.clone(),
        notes: vec![Note {
            move_id: 6,
            source: NodeId::new("nf2", 1),
            role: Role::Destination,
        }],
        moving: vec![Moving {
            chain: vec![5, 6],
            leaving: false,
            partial,
        }],
    }
}

/// One or two of each kind.
fn samples() -> Vec<(&'static str, Message)> {
    let what = Move { id: 6, attempt: 2 };
    let ms = Duration::from_millis;
    let stamp = Stamp::from_bits(0x11);
    let pattern = || Pattern::glob("flow/*").unwrap();
    vec![
        (
            "ask",
            Message::Ask {
                call: 1,
                at: Some(stamp),
                left: ms(5),
                reducer: Reducer::Sum,
                pattern: pattern(),
            },
        ),
        (
            "answer",
            Message::Answer {
                call: 1,
                at: None,
                contribution: Box::new(contribution()),
            },
        ),
        (
            "refuse-passed",
            Message::Refuse {
                call: 1,
                at: Some(stamp),
                refusal: Refusal::Passed(stamp),
            },
        ),
        (
            "refuse-failed",
            Message::Refuse {
                call: 1,
                at: None,
                refusal: Refusal::Failed("no".into()),
            },
        ),
        (
            "subscribe",
            Message::Subscribe {
                interest: 2,
                sent: ms(1),
                have: 4,
                max_age: ms(100),
                lease: ms(300),
                reducer: Reducer::Max,
                pattern: Pattern::exact("n"),
            },
        ),
        (
            "push",
            Message::Push {
                interest: 2,
                serial: 4,
                echo: ms(1),
                held: ms(2),
                contribution: Some(Box::new(contribution())),
            },
        ),
        (
            "push-unchanged",
            Message::Push {
                interest: 2,
                serial: 4,
                echo: ms(1),
                held: ms(2),
                contribution: None,
            },
        ),
        (
            "watch",
            Message::Watch {
                watch: 3,
                seen: 8,
                lease: ms(5000),
                present: true,
                pattern: Pattern::regex("a|b").unwrap(),
            },
        ),
        (
            "changed",
            Message::Changed {
                watch: 3,
                serial: 9,
                items: vec![item()],
                gone: vec!["old".into()],
            },
        ),
        ("watching", Message::Watching { watch: 3 }),
        ("forget", Message::Forget { number: 3 }),
        (
            "begin-keys",
            Message::Begin {
                what,
                pre_copy: true,
                selection: Selection::Keys(vec!["a".into(), "b".into()]),
            },
        ),
        (
            "begin-flows",
            Message::Begin {
                what,
                pre_copy: false,
                selection: Selection::Flows(vec![FlowKey::from_scope("flow:x").unwrap()]),
            },
        ),
        (
            "cargo",
            Message::Cargo {
                what,
                index: 3,
                last: Some(1),
                chain: vec![Link {
                    move_id: 5,
                    source: NodeId::new("nf9", 1),
                    left: ms(900),
                }],
                gone: vec!["old".into()],
                items: vec![item()],
            },
        ),
        ("got", Message::Got { what, next: 4 }),
        ("ready", Message::Ready { what, clock: stamp }),
        (
            "commit",
            Message::Commit {
                what,
                at: stamp,
                frozen: ms(2),
            },
        ),
        ("owned", Message::Owned { what }),
        ("closed", Message::Closed { what }),
        (
            "abort",
            Message::Abort {
                what,
                why: "silent".into(),
            },
        ),
        (
            "prepared",
            Message::Prepared {
                joint: 4,
                clock: stamp,
                with: vec!["nf1".into(), "nf2".into()],
            },
        ),
        (
            "decided",
            Message::Decided {
                joint: 4,
                at: None,
                why: "late".into(),
            },
        ),
        (
            "part",
            Message::Part {
                serial: 1,
                index: 0,
                count: 2,
                bytes: vec![1, 2, 3],
            },
        ),
        ("want", Message::Want { serial: 1, next: 1 }),
    ]
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.hex"))
}

fn as_text(bytes: &[u8]) -> String {
    let line = |chunk: &[u8]| {
        let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        hex.join(" ") + "\n"
    };
    bytes.chunks(16).map(line).collect()
}

#[test]
fn every_message_has_its_golden_bytes() {
    for (name, message) in samples() {
        let bytes = message.emit();
        if std::env::var_os("FLOWFERRY_WRITE_GOLDEN").is_some() {
            std::fs::create_dir_all(file(name).parent().unwrap()).unwrap();
            std::fs::write(file(name), as_text(&bytes)).unwrap();
        }
        let golden = std::fs::read_to_string(file(name))
            .unwrap_or_else(|error| panic!("{name}: {error}; see the head of this file"));
        assert_eq!(as_text(&bytes), golden, "{name} is emitted otherwise");
        let read = Message::parse(&bytes, &from()).unwrap();
        assert_eq!(read, message, "{name} is read otherwise");
    }
    let kinds: BTreeSet<u8> = samples()
        .iter()
        .map(|(_, message)| message.kind())
        .collect();
    assert_eq!(kinds, (1..=21).collect(), "a kind has no sample");
    let files = std::fs::read_dir(file("x").parent().unwrap()).unwrap();
    assert_eq!(
        files.count(),
        samples().len(),
        "a golden file has no sample"
    );
}

#[test]
fn what_is_cut_short_too_long_or_of_another_version_is_refused() {
    for (name, message) in samples() {
        let bytes = message.emit();
        for end in 0..bytes.len() {
            // A part is whatever is left.
            let cut = Message::parse(&bytes[..end], &from());
            assert!(cut.is_err() || name == "part", "{name} of {end} bytes");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(
            Message::parse(&longer, &from()).is_err() || name == "part",
            "{name}"
        );
        let mut other = bytes;
        other[0] = VERSION + 1;
        let error = Message::parse(&other, &from()).unwrap_err().to_string();
        assert!(error.contains("version"), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is understood has one form only, and nothing makes the parser panic.
    #[test]
    fn damaged_messages_are_refused_or_have_one_form(
        which in 0_usize..24, at in 0_usize..400, byte in any::<u8>(),
    ) {
        let mut bytes = samples()[which].1.emit();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(message) = Message::parse(&bytes, &from()) {
            let again = message.emit();
            prop_assert_eq!(Message::parse(&again, &from()).unwrap().emit(), again);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 2..200)) {
        bytes[0] = VERSION;
        bytes[1] %= 22;
        let _ = Message::parse(&bytes, &from());
    }
}
