//! The flows, matches and frames that the model plays with: few, so that they meet often.

use flowferry_hsl::key::{Key, Parsed, Side};
use flowferry_hsl::matching::Match;

type End = ([u8; 4], u16);

/// A UDP flow. Upstream the client is the source; downstream the server is.
pub struct Flow {
    client: End,
    server: End,
    /// What the server sees instead of the client, if the function translates addresses.
    translated: Option<End>,
}

pub const FLOWS: &[Flow] = &[
    flow(([10, 0, 0, 1], 1001), ([10, 9, 0, 1], 53), None),
    flow(([10, 0, 0, 1], 1002), ([10, 9, 0, 2], 53), None),
    flow(([10, 0, 0, 2], 1001), ([10, 9, 0, 1], 53), None),
    flow(
        ([10, 0, 0, 2], 1003),
        ([10, 9, 0, 2], 53),
        Some(([10, 8, 0, 1], 4003)),
    ),
    // The client's address is the greater one: its keys are swapped.
    flow(
        ([172, 16, 0, 3], 1004),
        ([10, 9, 0, 2], 53),
        Some(([10, 8, 0, 1], 4004)),
    ),
];

/// As a controller would write them, the last two rather oddly: one is for packets that go the
/// wrong way round, one for packets that never come. The former meets no translated flow: an alias
/// is a pair of keys, and keys do not tell the direction.
pub const MATCHES: &[&str] = &[
    "*",
    "udp,nw_src=10.0.0.1",
    "udp,nw_src=10.0.0.2",
    "ip,nw_dst=10.9.0.1",
    "udp,nw_dst=10.9.0.0/24,tp_dst=53",
    "udp,nw_src=10.0.0.1,nw_dst=10.9.0.1,tp_src=1001,tp_dst=53",
    "ip,nw_src=172.16.0.0/12",
    "ip,nw_src=10.9.0.1",
    "tcp",
];

const fn flow(client: End, server: End, translated: Option<End>) -> Flow {
    Flow {
        client,
        server,
        translated,
    }
}

pub fn matching(index: usize) -> Match {
    MATCHES[index].parse().expect("written above")
}

impl Flow {
    /// A packet of the flow as it arrives on `side`.
    pub fn frame(&self, side: Side, serial: usize, length: usize) -> Vec<u8> {
        let (from, to) = match side {
            Side::Upstream => (self.client, self.server),
            Side::Downstream => (self.server, self.translated.unwrap_or(self.client)),
        };
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x08, 0x00];
        frame.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend(from.0);
        frame.extend(to.0);
        frame.extend(from.1.to_be_bytes());
        frame.extend(to.1.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend((serial as u64).to_be_bytes());
        frame.resize(frame.len().max(length), 0);
        frame
    }

    pub fn parsed(&self, side: Side) -> Parsed {
        parse(&self.frame(side, 0, 0), side)
    }

    pub fn key(&self, side: Side) -> Key {
        self.parsed(side).key
    }

    pub fn is_translated(&self) -> bool {
        self.translated.is_some()
    }
}

pub fn parse(frame: &[u8], side: Side) -> Parsed {
    Key::parse(frame, side).expect("long enough for Ethernet")
}

/// Which packet this frame is.
pub fn serial(frame: &[u8]) -> usize {
    let bytes = frame[42..50].try_into().expect("eight bytes");
    u64::from_be_bytes(bytes) as usize
}
