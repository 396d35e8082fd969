//! The valid value: what a control frame says once its bytes have been understood.

use crate::command::{Command, Flags};
use crate::error::{Malformed, Unsendable};
use crate::flow::Flow;
use crate::frame::{Control, HEADER_LEN, Header, OVERHEAD, TAG_LEN};
use crate::matching::Match;
use crate::report::{Counts, Report, Side};
use crate::tlv::{InReplyTo, Kind, OPTIONAL, Part, Peer, TLV_HEADER_LEN, Tlv};

/// Instance id of the controller.
pub const CONTROLLER: u32 = 0;

/// A control message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it asks or reports.
    pub command: Command,
    /// What colours it.
    pub flags: Flags,
    /// The handover it belongs to; 0 for none.
    pub handover: u64,
    /// Instance id of the addressee.
    pub to: u32,
    /// Instance id of the sender; a [`Sealer`](crate::Sealer) sets it.
    pub from: u32,
    /// Boot id of the sender; a [`Sealer`](crate::Sealer) sets it.
    pub boot: u64,
    /// Number of this message in that boot; a [`Sealer`](crate::Sealer) sets it.
    pub sequence: u64,
    /// Its fields, in the order they stand in the frame.
    pub tlvs: Vec<Tlv>,
}

/// An accessor for a TLV that may stand once.
macro_rules! once {
    ($(#[$meta:meta])* $name:ident: $variant:ident -> $type:ty, $get:expr) => {
        $(#[$meta])*
        pub fn $name(&self) -> Option<$type> {
            self.tlvs.iter().find_map(|tlv| match tlv {
                Tlv::$variant(value) => Some($get(value)),
                _ => None,
            })
        }
    };
}

impl Message {
    /// A message without fields; sender, boot and sequence are left to the
    /// [`Sealer`](crate::Sealer).
    pub fn new(command: Command, handover: u64, to: u32) -> Self {
        Self {
            command,
            flags: Flags::NONE,
            handover,
            to,
            from: CONTROLLER,
            boot: 0,
            sequence: 0,
            tlvs: Vec::new(),
        }
    }

    /// The same with one more field.
    #[must_use]
    pub fn with(mut self, tlv: Tlv) -> Self {
        self.tlvs.push(tlv);
        self
    }

    /// The same with more flags.
    #[must_use]
    pub fn flagged(mut self, flags: Flags) -> Self {
        self.flags = self.flags | flags;
        self
    }

    once!(/// The rule's match.
        matching: Match -> &Match, |m| m);
    once!(/// The match on the downstream side, where it is not the mirror.
        downstream_match: DownstreamMatch -> &Match, |m| m);
    once!(/// Matches of higher rules.
        overriding: Overriding -> &[Match], Vec::as_slice);
    once!(/// The rule's priority r.
        priority: Priority -> u16, |n: &u16| *n);
    once!(/// The destination instance.
        destination: Destination -> u32, |n: &u32| *n);
    once!(/// The flow list.
        flows: Flows -> &[Flow], Vec::as_slice);
    once!(/// The side meant; `None` means both.
        side: Side -> Side, |side: &Side| *side);
    once!(/// Figures.
        counts: Counts -> &Counts, |counts| counts);
    once!(/// Why not.
        error: Error -> &Report, |report| report);
    once!(/// Milliseconds from receipt in which this must be done.
        deadline_ms: Deadline -> u32, |n: &u32| *n);
    once!(/// Milliseconds after which agents finish by themselves.
        settling_ms: Settling -> u32, |n: &u32| *n);
    once!(/// Name of the strategy.
        strategy: Strategy -> &str, String::as_str);
    once!(/// Run of the agent.
        epoch: Epoch -> u64, |n: &u64| *n);
    once!(/// Place among the messages that carry one list.
        part: Part -> Part, |part: &Part| *part);
    once!(/// The request that this answers.
        in_reply_to: InReplyTo -> InReplyTo, |request: &InReplyTo| *request);
    once!(/// Round of a marker, flush, drain or test.
        round: Round -> u32, |n: &u32| *n);
    once!(/// Processor whose queue is flushed.
        cpu: Cpu -> u16, |n: &u16| *n);
    once!(/// Name of the reporting instance.
        name: Name -> &str, String::as_str);
    once!(/// Where the handover is at the reporting agent.
        step: Step -> &str, String::as_str);

    /// The source instances.
    pub fn sources(&self) -> impl Iterator<Item = u32> {
        self.tlvs.iter().filter_map(|tlv| match tlv {
            Tlv::Source(instance) => Some(*instance),
            _ => None,
        })
    }

    /// Where ordered streams listen.
    pub fn peers(&self) -> impl Iterator<Item = Peer> {
        self.tlvs.iter().filter_map(|tlv| match tlv {
            Tlv::Peer(peer) => Some(*peer),
            _ => None,
        })
    }

    /// Bytes after the EtherType, tag included.
    pub fn payload_len(&self) -> usize {
        OVERHEAD + self.tlvs.iter().map(Tlv::len).sum::<usize>()
    }

    /// Understand a control payload.
    ///
    /// The tag is not looked at: [`Opener::open`](crate::Opener::open) does that first.
    ///
    /// # Errors
    /// Any [`Malformed`] but those of the views.
    pub fn parse<T: AsRef<[u8]>>(control: &Control<T>) -> Result<Self, Malformed> {
        let number = control.command();
        let command = Command::from_number(number).ok_or(Malformed::UnknownCommand { number })?;
        let flags =
            Flags::from_bits(control.flags()).map_err(|bits| Malformed::UnknownFlags { bits })?;
        let tlvs = parse_tlvs(control.tlvs())?;
        if let Some(kind) = missing(command, &tlvs) {
            return Err(Malformed::Missing { command, kind });
        }
        Ok(Self {
            command,
            flags,
            handover: control.handover(),
            to: control.to(),
            from: control.from(),
            boot: control.boot(),
            sequence: control.sequence(),
            tlvs,
        })
    }

    /// Whether the message could be sent over an `mtu` of any size.
    ///
    /// # Errors
    /// Any [`Unsendable`] but those about length.
    pub fn check(&self) -> Result<(), Unsendable> {
        let command = self.command;
        for (index, tlv) in self.tlvs.iter().enumerate() {
            tlv.check()?;
            let kind = tlv.kind();
            if !kind.repeats() && self.tlvs[..index].iter().any(|t| t.kind() == kind) {
                return Err(Unsendable::Duplicate { kind });
            }
        }
        match missing(command, &self.tlvs) {
            Some(kind) => Err(Unsendable::Missing { command, kind }),
            None => Ok(()),
        }
    }

    /// The control payload with an empty tag, ready to be signed.
    ///
    /// `mtu` counts the bytes after the EtherType, tag included
    /// ([`DEFAULT_MTU`](crate::DEFAULT_MTU) on plain Ethernet).
    ///
    /// # Errors
    /// [`Unsendable`]; [`TooLong`](Unsendable::TooLong) is mended by [`split`](crate::split).
    pub fn emit(&self, key_id: u16, mtu: usize) -> Result<Vec<u8>, Unsendable> {
        self.check()?;
        let needed = self.payload_len();
        // The TLV length has 16 bits, whatever the link could carry.
        let mtu = mtu.min(OVERHEAD + usize::from(u16::MAX));
        if needed > mtu {
            return Err(Unsendable::TooLong {
                command: self.command,
                needed,
                mtu,
            });
        }
        let header = Header {
            command: self.command.number(),
            flags: self.flags.bits(),
            key_id,
            tlv_len: (needed - OVERHEAD) as u16,
            handover: self.handover,
            to: self.to,
            from: self.from,
            boot: self.boot,
            sequence: self.sequence,
        };
        let mut out = Vec::with_capacity(needed);
        out.extend_from_slice(&header.bytes());
        for tlv in &self.tlvs {
            tlv.emit(&mut out);
        }
        debug_assert_eq!(out.len() + TAG_LEN, needed);
        out.resize(needed, 0);
        Ok(out)
    }
}

fn missing(command: Command, tlvs: &[Tlv]) -> Option<Kind> {
    let absent = |kind: &&Kind| !tlvs.iter().any(|tlv| tlv.kind() == **kind);
    command.required().iter().find(absent).copied()
}

fn parse_tlvs(bytes: &[u8]) -> Result<Vec<Tlv>, Malformed> {
    let mut tlvs: Vec<Tlv> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let offset = HEADER_LEN + at;
        let have = bytes.len() - at;
        let truncated = |needed| Malformed::Truncated {
            what: "TLV",
            offset,
            needed,
            have,
        };
        if have < TLV_HEADER_LEN {
            return Err(truncated(TLV_HEADER_LEN));
        }
        let number = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let len = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        let end = at + TLV_HEADER_LEN + len;
        let value = bytes
            .get(at + TLV_HEADER_LEN..end)
            .ok_or_else(|| truncated(TLV_HEADER_LEN + len))?;
        at = end;
        let Some(kind) = Kind::from_number(number) else {
            if number & OPTIONAL != 0 {
                continue;
            }
            return Err(Malformed::UnknownTlv {
                kind: number,
                offset,
            });
        };
        if !kind.repeats() && tlvs.iter().any(|tlv| tlv.kind() == kind) {
            return Err(Malformed::Duplicate { kind, offset });
        }
        tlvs.push(Tlv::parse(kind, value, offset + TLV_HEADER_LEN)?);
    }
    Ok(tlvs)
}
