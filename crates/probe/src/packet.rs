//! What a probe packet carries, and its two encodings.
//!
//! The payload of every UDP datagram the probe sends starts with a header. `Full` (28 bytes) holds
//! every field in full width. `Compact` (16 bytes) exists for small frames: a 58-byte Ethernet
//! frame, the small size of the SHarP paper (§4), leaves exactly 16 bytes behind the IPv4 and UDP
//! headers. It keeps the low bits of each field; [`expand`] restores the rest from what the
//! receiver knows (the next expected sequence number, the time now).
//!
//! ```text
//! full      0 magic u16 | 2 kind u8 | 3 version u8 | 4 run u32 | 8 flow u32 | 12 seq u64 | 20 time u64
//! compact   0 magic u16 | 2 run u16 | 4 flow u24   | 7 seq u32 | 11 time u40
//! ```
//! All big-endian. Time is CLOCK_MONOTONIC in ns: sender and sink run on one machine.

/// Length of a full header in bytes.
pub const FULL_LEN: usize = 28;
/// Length of a compact header in bytes, the smallest payload the probe can send.
pub const COMPACT_LEN: usize = 16;
/// Most flows in one run; a larger flow number is taken for damage.
pub const MAX_FLOWS: u32 = 1 << 20;
/// Most per-flow counts that one END packet carries (fits any path of 1,280 bytes, RFC 8200 §5).
pub const END_COUNTS: usize = 140;

const MAGIC_FULL: u16 = 0xf1fe;
const MAGIC_COMPACT: u16 = 0xf1c0;
const MAGIC_COMPACT_REPLY: u16 = 0xf1c1;
const VERSION: u8 = 1;

/// Bits of the compact fields.
const SEQ_BITS: u32 = 32;
const TIME_BITS: u32 = 40;

/// What a probe packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A counted packet, source to sink.
    Data,
    /// A data packet sent back by an echoing sink; its time is that of the request.
    Reply,
    /// "Are you there?", before a run. `flow` holds the number of flows to come.
    Hello,
    /// The sink's answer to [`Kind::Hello`].
    HelloAck,
    /// What was sent per flow, after a run: see [`EndCounts`].
    End,
    /// The sink's answer to [`Kind::End`]; `flow` and `seq` as in the packet answered.
    EndAck,
}

/// How a header is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// 28 bytes, every field in full width.
    Full,
    /// 16 bytes, low bits only; data and replies only.
    Compact,
}

impl Encoding {
    /// The encoding a payload of `len` bytes has room for, if any.
    pub fn for_payload(len: usize) -> Option<Encoding> {
        match len {
            FULL_LEN.. => Some(Encoding::Full),
            COMPACT_LEN.. => Some(Encoding::Compact),
            _ => None,
        }
    }
}

/// A probe header. In a compact one `run`, `seq` and `time` hold the low 16, 32 and 40 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the packet is for.
    pub kind: Kind,
    /// How it is laid out.
    pub encoding: Encoding,
    /// Which run it belongs to.
    pub run: u32,
    /// Flow number, from 0.
    pub flow: u32,
    /// Sequence number within the flow, from 0.
    pub seq: u64,
    /// When it was sent: CLOCK_MONOTONIC, ns.
    pub time: u64,
}

impl Header {
    /// Write the header to the front of `buffer`, which must hold [`FULL_LEN`] or [`COMPACT_LEN`] bytes.
    pub fn emit(&self, buffer: &mut [u8]) {
        match self.encoding {
            Encoding::Full => {
                buffer[0..2].copy_from_slice(&MAGIC_FULL.to_be_bytes());
                buffer[2] = match self.kind {
                    Kind::Data => 0,
                    Kind::Reply => 1,
                    Kind::Hello => 2,
                    Kind::HelloAck => 3,
                    Kind::End => 4,
                    Kind::EndAck => 5,
                };
                buffer[3] = VERSION;
                buffer[4..8].copy_from_slice(&self.run.to_be_bytes());
                buffer[8..12].copy_from_slice(&self.flow.to_be_bytes());
                buffer[12..20].copy_from_slice(&self.seq.to_be_bytes());
                buffer[20..28].copy_from_slice(&self.time.to_be_bytes());
            }
            Encoding::Compact => {
                let magic = if self.kind == Kind::Reply {
                    MAGIC_COMPACT_REPLY
                } else {
                    MAGIC_COMPACT
                };
                buffer[0..2].copy_from_slice(&magic.to_be_bytes());
                buffer[2..4].copy_from_slice(&(self.run as u16).to_be_bytes());
                buffer[4..7].copy_from_slice(&self.flow.to_be_bytes()[1..]);
                buffer[7..11].copy_from_slice(&(self.seq as u32).to_be_bytes());
                buffer[11..16].copy_from_slice(&self.time.to_be_bytes()[3..]);
            }
        }
    }

    /// Read a header from the front of a payload. `None`: not a probe packet.
    pub fn parse(payload: &[u8]) -> Option<Header> {
        match be(payload.get(..2)?) as u16 {
            MAGIC_FULL => {
                let p: &[u8; FULL_LEN] = payload.get(..FULL_LEN)?.try_into().ok()?;
                let kind = match p[2] {
                    0 => Kind::Data,
                    1 => Kind::Reply,
                    2 => Kind::Hello,
                    3 => Kind::HelloAck,
                    4 => Kind::End,
                    5 => Kind::EndAck,
                    _ => return None,
                };
                (p[3] == VERSION).then(|| Header {
                    kind,
                    encoding: Encoding::Full,
                    run: be(&p[4..8]) as u32,
                    flow: be(&p[8..12]) as u32,
                    seq: be(&p[12..20]),
                    time: be(&p[20..28]),
                })
            }
            magic @ (MAGIC_COMPACT | MAGIC_COMPACT_REPLY) => {
                let p: &[u8; COMPACT_LEN] = payload.get(..COMPACT_LEN)?.try_into().ok()?;
                Some(Header {
                    kind: if magic == MAGIC_COMPACT {
                        Kind::Data
                    } else {
                        Kind::Reply
                    },
                    encoding: Encoding::Compact,
                    run: be(&p[2..4]) as u32,
                    flow: be(&p[4..7]) as u32,
                    seq: be(&p[7..11]),
                    time: be(&p[11..16]),
                })
            }
            _ => None,
        }
    }

    /// Whether the packet belongs to `run`, as far as its encoding can tell.
    pub fn of_run(&self, run: u32) -> bool {
        match self.encoding {
            Encoding::Full => self.run == run,
            Encoding::Compact => self.run == run & 0xffff,
        }
    }

    /// The full sequence number, given one that is near it.
    pub fn full_seq(&self, near: u64) -> u64 {
        match self.encoding {
            Encoding::Full => self.seq,
            Encoding::Compact => expand(self.seq, SEQ_BITS, near),
        }
    }

    /// The full send time, given the time now.
    pub fn full_time(&self, now: u64) -> u64 {
        match self.encoding {
            Encoding::Full => self.time,
            Encoding::Compact => expand(self.time, TIME_BITS, now),
        }
    }
}

/// Turn a data packet into its reply in place; a parsed [`Kind::Data`] header must stand there.
pub fn make_reply(payload: &mut [u8], encoding: Encoding) {
    match encoding {
        Encoding::Full => payload[2] = 1,
        Encoding::Compact => payload[0..2].copy_from_slice(&MAGIC_COMPACT_REPLY.to_be_bytes()),
    }
}

/// The value nearest to `near` whose low `bits` bits are `low`.
pub fn expand(low: u64, bits: u32, near: u64) -> u64 {
    let span = 1u64 << bits;
    let value = (near & !(span - 1)) | low;
    if value > near && value - near > span / 2 && value >= span {
        value - span
    } else if near > value && near - value > span / 2 {
        // Nothing stands beyond the greatest value; `near` came with a packet, and may be anything.
        value.checked_add(span).unwrap_or(value)
    } else {
        value
    }
}

/// The body of an END packet: how many packets were sent on `counts.len()` flows from `first` on.
/// The header's `flow` is `first`, its `seq` the number of flows of the whole run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndCounts {
    /// Flow number of the first count.
    pub first: u32,
    /// Flows in the whole run.
    pub flows: u32,
    /// Packets sent, one per flow.
    pub counts: Vec<u64>,
}

impl EndCounts {
    /// The whole END packet.
    pub fn emit(&self, run: u32, time: u64) -> Vec<u8> {
        let mut out = vec![0; FULL_LEN + 8 * self.counts.len()];
        Header {
            kind: Kind::End,
            encoding: Encoding::Full,
            run,
            flow: self.first,
            seq: u64::from(self.flows),
            time,
        }
        .emit(&mut out);
        for (slot, count) in out[FULL_LEN..].chunks_exact_mut(8).zip(&self.counts) {
            slot.copy_from_slice(&count.to_be_bytes());
        }
        out
    }

    /// Read the body behind an END header. `None`: damaged.
    pub fn parse(header: &Header, payload: &[u8]) -> Option<EndCounts> {
        let body = payload.get(FULL_LEN..)?;
        let flows = u32::try_from(header.seq).ok().filter(|n| *n <= MAX_FLOWS)?;
        let counts: Vec<u64> = body.chunks_exact(8).map(be).collect();
        let end = u64::from(header.flow) + counts.len() as u64;
        let whole = body.len().is_multiple_of(8) && !counts.is_empty() && end <= u64::from(flows);
        whole.then_some(EndCounts {
            first: header.flow,
            flows,
            counts,
        })
    }
}

fn be(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: Header = Header {
        kind: Kind::Data,
        encoding: Encoding::Full,
        run: 0x01020304,
        flow: 0x00050607,
        seq: 0x08090a0b0c0d0e0f,
        time: 0x1011121314151617,
    };

    #[test]
    fn full_golden_bytes() {
        let golden = [
            0xf1, 0xfe, 0x00, 0x01, 0x01, 0x02, 0x03, 0x04, 0x00, 0x05, 0x06, 0x07, 0x08, 0x09,
            0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17,
        ];
        let mut bytes = [0; FULL_LEN];
        HEADER.emit(&mut bytes);
        assert_eq!(bytes, golden);
        assert_eq!(Header::parse(&golden), Some(HEADER));
    }

    #[test]
    fn compact_golden_bytes() {
        let golden = [
            0xf1, 0xc0, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0c, 0x0d, 0x0e, 0x0f, 0x13, 0x14, 0x15,
            0x16, 0x17,
        ];
        let mut bytes = [0; COMPACT_LEN];
        Header {
            encoding: Encoding::Compact,
            ..HEADER
        }
        .emit(&mut bytes);
        assert_eq!(bytes, golden);
        let parsed = Header::parse(&golden).unwrap();
        assert!(parsed.of_run(HEADER.run));
        assert!(!parsed.of_run(HEADER.run + 1));
        assert_eq!(parsed.flow, HEADER.flow);
        assert_eq!(parsed.full_seq(HEADER.seq - 1000), HEADER.seq);
        assert_eq!(parsed.full_time(HEADER.time + 1_000_000_000), HEADER.time);
    }

    #[test]
    fn truncated_is_no_packet() {
        for encoding in [Encoding::Full, Encoding::Compact] {
            let mut bytes = vec![
                0;
                if encoding == Encoding::Full {
                    FULL_LEN
                } else {
                    COMPACT_LEN
                }
            ];
            Header { encoding, ..HEADER }.emit(&mut bytes);
            for len in 0..bytes.len() {
                assert_eq!(Header::parse(&bytes[..len]), None);
            }
        }
    }

    #[test]
    fn a_reply_differs_in_kind_only() {
        for encoding in [Encoding::Full, Encoding::Compact] {
            let mut bytes = vec![0; FULL_LEN];
            Header { encoding, ..HEADER }.emit(&mut bytes);
            let before = Header::parse(&bytes).unwrap();
            make_reply(&mut bytes, encoding);
            assert_eq!(
                Header::parse(&bytes),
                Some(Header {
                    kind: Kind::Reply,
                    ..before
                })
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_parse_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(header) = Header::parse(&bytes) {
                let _ = EndCounts::parse(&header, &bytes);
            }
        }

        #[test]
        fn expand_restores_what_is_near(value: u64, offset in -(1i64 << 30)..(1i64 << 30)) {
            let near = value.saturating_add_signed(offset);
            prop_assume!(value < u64::MAX - (1 << 33));
            prop_assert_eq!(expand(value & 0xffff_ffff, 32, near), value);
        }

        #[test]
        fn end_counts_round_trip(
            first in 0u32..1000, counts in proptest::collection::vec(any::<u64>(), 1..END_COUNTS), cut in 1usize..8,
        ) {
            let end = EndCounts { first, flows: first + counts.len() as u32, counts };
            let bytes = end.emit(7, 9);
            let header = Header::parse(&bytes).unwrap();
            prop_assert_eq!(EndCounts::parse(&header, &bytes), Some(end));
            prop_assert_eq!(EndCounts::parse(&header, &bytes[..bytes.len() - cut]), None);
        }
    }
}
