//! Golden bytes, both ways, for every message.
//!
//! `FLOWFERRY_WRITE_GOLDEN=1 cargo test -p flowferry-wire golden` rewrites the files; the
//! diff is what a reviewer reads, since it is a change of the wire format.

use crate::samples;
use flowferry_wire::*;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(format!("{name}.hex"))
}

fn line(out: &mut String, bytes: &[u8], note: &str) {
    for (index, chunk) in bytes.chunks(16).enumerate() {
        let hex: Vec<_> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let note = if index == 0 {
            format!("# {note}")
        } else {
            String::new()
        };
        let text = format!("{:<48} {note}", hex.join(" "));
        writeln!(out, "{}", text.trim_end()).unwrap();
    }
}

/// The frame as text: bytes, then what they are.
fn annotate(name: &str, frame: &[u8]) -> String {
    let mut out = format!("# {name}\n");
    let mut rest = frame;
    let mut field = |len: usize, note: &str| {
        let (bytes, tail) = rest.split_at(len);
        line(&mut out, bytes, note);
        rest = tail;
        bytes.to_vec()
    };
    field(6, "Ethernet destination");
    field(6, "Ethernet source");
    field(2, "EtherType");
    field(1, "version");
    field(1, "command");
    field(2, "flags");
    field(2, "key id");
    let len = field(2, "TLV length");
    field(8, "handover");
    field(4, "to");
    field(4, "from");
    field(8, "boot");
    field(8, "sequence");
    let mut left = usize::from(u16::from_be_bytes([len[0], len[1]]));
    while left > 0 {
        let number = u16::from_be_bytes([rest_at(frame, left, 0), rest_at(frame, left, 1)]);
        let len = u16::from_be_bytes([rest_at(frame, left, 2), rest_at(frame, left, 3)]);
        field(4, &format!("TLV {}", Kind::from_number(number).unwrap()));
        field(usize::from(len), "  value");
        left -= 4 + usize::from(len);
    }
    field(TAG_LEN, "tag");
    assert!(rest.is_empty());
    out
}

/// Byte `index` of what is left of the TLVs when `left` bytes of them are.
fn rest_at(frame: &[u8], left: usize, index: usize) -> u8 {
    frame[frame.len() - TAG_LEN - left + index]
}

fn read(name: &str) -> Vec<u8> {
    let path = file(name);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; see the head of this test", path.display()));
    text.lines()
        .flat_map(|line| line.split('#').next().unwrap_or("").split_whitespace())
        .map(|byte| u8::from_str_radix(byte, 16).unwrap())
        .collect()
}

#[test]
fn every_message_has_its_golden_bytes() {
    for sample in samples::all() {
        let frame = sample.frame();
        if std::env::var_os("FLOWFERRY_WRITE_GOLDEN").is_some() {
            std::fs::write(file(sample.name), annotate(sample.name, &frame)).unwrap();
        }
        assert_eq!(
            frame,
            read(sample.name),
            "{} is emitted otherwise",
            sample.name
        );

        let mut opener = Opener::new(sample.message.to);
        let opened = opener.open(&samples::keys(), &frame).unwrap();
        assert_eq!(*opened, sample.message, "{} is read otherwise", sample.name);
    }

    // A file nobody reads any more would go on looking like a promise.
    let known: BTreeSet<_> = samples::all().iter().map(|s| file(s.name)).collect();
    let dir = std::fs::read_dir(file("").parent().unwrap()).unwrap();
    let found: BTreeSet<_> = dir.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(found, known);
}

#[test]
fn golden_files_cover_every_command_tlv_flag_and_counter() {
    let samples = samples::all();
    let messages = || samples.iter().map(|sample| &sample.message);
    let tlvs = || messages().flat_map(|message| &message.tlvs);

    let commands: BTreeSet<_> = messages().map(|message| message.command).collect();
    assert_eq!(commands, Command::ALL.iter().copied().collect());
    let kinds: BTreeSet<_> = tlvs().map(Tlv::kind).collect();
    assert_eq!(kinds, Kind::ALL.iter().copied().collect());
    let counters: BTreeSet<_> = messages()
        .filter_map(Message::counts)
        .flat_map(|counts| counts.keys().copied())
        .collect();
    assert_eq!(counters, Counter::ALL.iter().copied().collect());
    for (flag, name) in Flags::ALL {
        assert!(
            messages().any(|m| m.flags.contains(*flag)),
            "no sample has flag {name}"
        );
    }
}
