//! Commands, flags, and which TLVs a command must carry.

use crate::numbered::numbered;
use crate::tlv::Kind;

numbered! {
    /// What a control frame asks or reports (docs/design.md §4, §5; SHarP §3.4).
    ///
    /// 0x01 to 0x1f go from the controller to an instance, 0x20 to 0x3f from an instance to the
    /// controller, 0x40 to 0x5f never travel between the two.
    Command: u8 {
        /// Destination: arm capture. Source: answer with the flows that match.
        Prepare = 0x01 "prepare",
        /// SHarP's own start message: these flows are about to move.
        StartHo = 0x02 "start_ho",
        /// Source: capture what still arrives as strays, drain, export.
        Freeze = 0x03 "freeze",
        /// Sent by a switch that has turned, behind every old packet on that side.
        Marker = 0x04 "marker",
        /// Destination: let the held packets of a side go. In SHarP it travels behind the last
        /// packet of the controller's buffer and so closes that buffer.
        Release = 0x05 "release",
        /// Source: the import is journalled, the frozen state may go.
        Commit = 0x06 "commit",
        /// Controller: give up in order. Instance: asks the controller to do so.
        Abort = 0x07 "abort",
        /// Report at once with a status.
        Query = 0x08 "query",
        /// The request was carried out.
        Ack = 0x20 "ack",
        /// The request was not carried out.
        Nack = 0x21 "nack",
        /// Destination: first packets of these flows have arrived on a side.
        Seen = 0x22 "seen",
        /// Source: the marker of this round is through, no old packet can follow.
        Fenced = 0x23 "fenced",
        /// Destination: the state is in.
        Imported = 0x24 "imported",
        /// Destination: everything held has gone to the function, in order.
        Released = 0x25 "released",
        /// The abort is complete.
        Aborted = 0x26 "aborted",
        /// Heartbeat and figures.
        Status = 0x27 "status",
        /// In-band mark behind the last packet, for a function linked to our library.
        Drain = 0x40 "drain",
        /// Goes through one CPU's queue of the own machine.
        Flush = 0x41 "flush",
        /// The controller's test packet to itself through a switch (SHarP §3.3).
        Test = 0x42 "test",
    }
}

impl Command {
    /// TLVs without which the command means nothing.
    pub const fn required(self) -> &'static [Kind] {
        match self {
            Self::Prepare => &[
                Kind::Match,
                Kind::Priority,
                Kind::Destination,
                Kind::Deadline,
                Kind::Strategy,
            ],
            Self::StartHo => &[
                Kind::Match,
                Kind::Priority,
                Kind::Source,
                Kind::Destination,
                Kind::Flows,
            ],
            Self::Freeze => &[Kind::Deadline],
            Self::Marker | Self::Fenced => &[Kind::Side, Kind::Round],
            Self::Release | Self::Commit | Self::Query | Self::Imported => &[],
            Self::Abort => &[Kind::Error],
            Self::Ack => &[Kind::InReplyTo],
            Self::Nack => &[Kind::Error, Kind::InReplyTo],
            Self::Seen => &[Kind::Flows, Kind::Side, Kind::Round],
            Self::Released | Self::Aborted => &[Kind::Counts],
            Self::Status => &[Kind::Counts, Kind::Epoch],
            Self::Drain | Self::Test => &[Kind::Round],
            Self::Flush => &[Kind::Round, Kind::Cpu],
        }
    }
}

/// Bits that colour a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u16);

impl Flags {
    /// None set.
    pub const NONE: Self = Self(0);
    /// The sender repeats a request that was not answered. Its sequence number is new.
    pub const RETRY: Self = Self(0x0001);
    /// The same message comes on both sides; answer when both have arrived (SHarP §3.7).
    pub const BOTH_SIDES: Self = Self(0x0002);
    /// A quiet time, not a mark, ended the drain.
    pub const DRAIN_UNPROVEN: Self = Self(0x0004);
    /// The settling time, not a marker, ended the fence.
    pub const UNFENCED: Self = Self(0x0008);
    /// Flows were released without the state that belongs to them.
    pub const STATE_LOST: Self = Self(0x0010);
    /// Switches have turned: giving up means to hand the flows back.
    pub const TURNED: Self = Self(0x0020);

    /// Every flag with its name.
    pub const ALL: &'static [(Self, &'static str)] = &[
        (Self::RETRY, "retry"),
        (Self::BOTH_SIDES, "both_sides"),
        (Self::DRAIN_UNPROVEN, "drain_unproven"),
        (Self::UNFENCED, "unfenced"),
        (Self::STATE_LOST, "state_lost"),
        (Self::TURNED, "turned"),
    ];

    const KNOWN: u16 = 0x003f;

    /// The bits on the wire.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// The flags with these bits, or the bits that this version does not know.
    pub const fn from_bits(bits: u16) -> Result<Self, u16> {
        match bits & !Self::KNOWN {
            0 => Ok(Self(bits)),
            unknown => Err(unknown),
        }
    }

    /// Whether all of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl core::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
