//! The Rust structs are the C structs: same fields, sizes and offsets as clang wrote into the
//! object's BTF (docs.kernel.org/bpf/btf.html, section 2). Enumerations that C uses as plain
//! numbers are not in there; their values are read from the header.

use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};

use flowferry_hsl::key::{ETHERTYPE_CONTROL, Key, Kind, VLAN_TAGGED};
use flowferry_hsl::shim::shared::{
    Control, Count, Counters, Flow, FlowMode, Mode, Port, RULES_PER_SIDE, Recent, Rule, Write,
};

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hsl0.bpf.o"));
static HEADER: &str = include_str!("../bpf/shared.h");

/// (offset, size) of every field by its name, and the size of the whole.
type Layout = (BTreeMap<String, (usize, usize)>, usize);

#[derive(Clone, Debug)]
struct Type {
    kind: u8,
    name: String,
    /// Size, or the type that this one is a name for.
    size_or_type: u32,
    members: Vec<(String, u32, u32)>,
    /// (element, number)
    array: (u32, u32),
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn number(&mut self, bytes: usize) -> u64 {
        let (head, rest) = self.0.split_at(bytes);
        self.0 = rest;
        head.iter()
            .rev()
            .fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn word(&mut self) -> u32 {
        self.number(4) as u32
    }
}

/// A section of a little-endian ELF64 object.
fn section(wanted: &str) -> &'static [u8] {
    let at = |offset: usize, bytes| Bytes(&OBJECT[offset..]).number(bytes) as usize;
    let (table, entry, number, names) = (at(40, 8), at(58, 2), at(60, 2), at(62, 2));
    let place = |index: usize| {
        let header = table + index * entry;
        (at(header, 4), at(header + 24, 8), at(header + 32, 8))
    };
    let (_, names, _) = place(names);
    let found = (0..number)
        .map(place)
        .find(|(name, ..)| text(&OBJECT[names..], *name) == wanted);
    let (_, offset, size) = found.unwrap_or_else(|| panic!("the object has no section {wanted}"));
    &OBJECT[offset..offset + size]
}

fn text(strings: &[u8], at: usize) -> String {
    let end = strings[at..]
        .iter()
        .position(|byte| *byte == 0)
        .expect("terminated");
    String::from_utf8(strings[at..at + end].to_vec()).expect("names are ASCII")
}

/// All types, the number 0 (void) included.
fn types() -> Vec<Type> {
    let btf = section(".BTF");
    let mut header = Bytes(btf);
    assert_eq!(header.number(2), 0xeb9f, "BTF magic");
    header.number(2); // version, flags
    let (length, types, types_length) = (header.word(), header.word(), header.word());
    let strings = &btf[(length + header.word()) as usize..];
    let mut rest = Bytes(&btf[(length + types) as usize..][..types_length as usize]);
    let void = Type {
        kind: 0,
        name: String::new(),
        size_or_type: 0,
        members: Vec::new(),
        array: (0, 0),
    };
    let mut all = vec![void];
    while !rest.0.is_empty() {
        let name = text(strings, rest.word() as usize);
        let info = rest.word();
        let (kind, number) = ((info >> 24 & 0x1f) as u8, info & 0xffff);
        let mut found = Type {
            kind,
            name,
            size_or_type: rest.word(),
            members: Vec::new(),
            array: (0, 0),
        };
        match kind {
            1 | 14 | 17 => drop(rest.word()), // INT, VAR, DECL_TAG
            3 => {
                let (element, _index) = (rest.word(), rest.word());
                found.array = (element, rest.word());
            }
            4 | 5 => {
                for _ in 0..number {
                    let name = text(strings, rest.word() as usize);
                    found.members.push((name, rest.word(), rest.word()));
                }
            }
            6 | 13 => rest.0 = &rest.0[8 * number as usize..], // ENUM, FUNC_PROTO
            15 | 19 => rest.0 = &rest.0[12 * number as usize..], // DATASEC, ENUM64
            _ => {}
        }
        all.push(found);
    }
    all
}

fn size_of_type(all: &[Type], id: u32) -> usize {
    let found = &all[id as usize];
    match found.kind {
        1 | 4 | 5 | 6 | 16 | 19 => found.size_or_type as usize,
        2 => 8,
        3 => found.array.1 as usize * size_of_type(all, found.array.0),
        _ => size_of_type(all, found.size_or_type),
    }
}

fn in_c(name: &str) -> Layout {
    let all = types();
    let found = all.iter().find(|each| each.kind == 4 && each.name == name);
    let found = found.unwrap_or_else(|| panic!("the programs use no struct {name}"));
    let fields = found.members.iter().map(|(name, id, bits)| {
        assert_eq!(bits % 8, 0, "{name} is no bit field");
        (name.clone(), (*bits as usize / 8, size_of_type(&all, *id)))
    });
    (fields.collect(), found.size_or_type as usize)
}

fn size_of_field<T, F>(_: impl Fn(&T) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! same {
    ($rust:ty, $c:literal, $($field:ident),+) => {
        let fields = [$((
            stringify!($field).to_owned(),
            (offset_of!($rust, $field), size_of_field(|all: &$rust| &all.$field)),
        )),+];
        let rust: Layout = (fields.into(), size_of::<$rust>());
        assert_eq!(rust, in_c($c), "{} and struct {}", stringify!($rust), $c);
    };
}

#[test]
fn structs_are_the_same_in_rust_and_in_c() {
    same!(
        Key, "ff_key", low, high, low_port, high_port, vlan, proto, kind, side, zero
    );
    same!(Flow, "ff_flow", packets, bytes, swapped, last_ns);
    same!(Recent, "ff_recent", key, packets, bytes, tick);
    same!(FlowMode, "ff_flow_mode", mode, zero);
    same!(
        Count,
        "ff_count",
        outstanding,
        released_ns,
        cpu,
        hash,
        mark,
        captured_cpu,
        captured,
        released,
        overflowed
    );
    same!(Rule, "ff_rule", mask, value, mode, zero);
    same!(
        Port, "ff_port", tap, outer, inner, rules, write, outcome, amount, zero
    );
    same!(
        Control,
        "ff_control",
        active,
        mark_captured,
        mark_released,
        epoch,
        heartbeat_ns,
        timeout_ns,
        settle_ns,
        tripped,
        zero,
        port
    );
    same!(
        Counters,
        "ff_counters",
        captured,
        released,
        overflowed,
        failed_open,
        table_full,
        refused,
        discarded,
        lost,
        foreign,
        control,
        control_lost,
        unparsed
    );
}

/// The value of a name in the header, of an enumerator or a macro.
fn value(name: &str) -> u32 {
    let words: Vec<&str> = HEADER
        .split(|letter: char| !(letter.is_alphanumeric() || letter == '_'))
        .filter(|word| !word.is_empty())
        .collect();
    let number = |word: &str| match word.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    };
    let mut named = words.windows(2).filter(|pair| pair[0] == name);
    named
        .find_map(|pair| number(pair[1])) // comments name it, too
        .unwrap_or_else(|| panic!("shared.h gives {name} no value"))
}

#[test]
fn numbers_are_the_same_in_rust_and_in_c() {
    for (name, rust) in [
        ("FF_ETHERTYPE_CONTROL", u32::from(ETHERTYPE_CONTROL)),
        ("FF_VLAN_TAGGED", u32::from(VLAN_TAGGED)),
        ("FF_RULES", RULES_PER_SIDE as u32),
        ("FF_RULES", flowferry_hsl::endpoint::RULES_PER_SIDE as u32),
        ("FF_KIND_L2", Kind::L2 as u32),
        ("FF_KIND_IPV4", Kind::Ipv4 as u32),
        ("FF_KIND_IPV6", Kind::Ipv6 as u32),
        ("FF_PASS", Mode::Pass as u32),
        ("FF_CAPTURE", Mode::Capture as u32),
        ("FF_ARM", Mode::Arm as u32),
        ("FF_WRITE_CAPTURED", Write::Captured as u32),
        ("FF_WRITE_ADOPT", Write::Adopt as u32),
        ("FF_WRITE_FLUSH", Write::Flush as u32),
        ("FF_WRITE_FORGET", Write::Forget as u32),
        ("FF_WRITE_LOSE", Write::Lose as u32),
    ] {
        assert_eq!(value(name), rust, "{name}");
    }
}
