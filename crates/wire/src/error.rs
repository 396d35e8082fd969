//! What can be wrong with bytes (`Malformed`) and with values (`Unsendable`).
//!
//! Offsets count from the first byte after the EtherType, as the header picture in `docs/wire.md`
//! does; add 14 for the offset in a captured frame.

use crate::command::Command;
use crate::tlv::Kind;
use thiserror::Error;

/// Bytes that are not a control frame of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// The bytes end before the field does.
    #[error(
        "{what} at byte {offset} needs {needed} bytes, {have} are left: \
         the frame was cut, or its length field is wrong; capture it whole and check the sender"
    )]
    Truncated {
        /// The field that does not fit.
        what: &'static str,
        /// Where it starts.
        offset: usize,
        /// Its length in bytes.
        needed: usize,
        /// Bytes left from `offset` on.
        have: usize,
    },
    /// Not EtherType 0x821c.
    #[error(
        "EtherType is {found:#06x}, not 0x821c: \
         control frames travel untagged; strip the VLAN tag or mend the capture filter"
    )]
    EtherType {
        /// What stands there.
        found: u16,
    },
    /// Another version of the protocol.
    #[error("version {found} at byte 0, this side speaks 1: upgrade the older side")]
    Version {
        /// What stands there.
        found: u8,
    },
    /// Flag bits that this version does not define.
    #[error("flags at byte 2 have unknown bits {bits:#06x}: upgrade the older side")]
    UnknownFlags {
        /// The bits not known.
        bits: u16,
    },
    /// A command that this version does not define.
    #[error("command {number:#04x} at byte 1 is unknown: upgrade the older side")]
    UnknownCommand {
        /// The command as it stands in the frame.
        number: u8,
    },
    /// A TLV that this version does not know and must not skip.
    #[error(
        "TLV type {kind:#06x} at byte {offset} is unknown and mandatory: upgrade the older side"
    )]
    UnknownTlv {
        /// The type as it stands in the frame.
        kind: u16,
        /// Where the TLV starts.
        offset: usize,
    },
    /// A TLV is longer than its contents.
    #[error("TLV {kind} has {extra} bytes too many at byte {offset}: the sender is at fault")]
    Leftover {
        /// The TLV.
        kind: Kind,
        /// Where the surplus starts.
        offset: usize,
        /// Its length in bytes.
        extra: usize,
    },
    /// A value that the field may not have.
    #[error("TLV {kind} at byte {offset}: {why}; the sender is at fault")]
    Value {
        /// The TLV.
        kind: Kind,
        /// Where the value starts.
        offset: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A command without a TLV it must have.
    #[error("{command} has no {kind} TLV: the sender is at fault or older than this side")]
    Missing {
        /// The command.
        command: Command,
        /// The TLV it needs.
        kind: Kind,
    },
    /// A TLV that may stand once stands twice.
    #[error("TLV {kind} stands twice, again at byte {offset}: the sender is at fault")]
    Duplicate {
        /// The TLV.
        kind: Kind,
        /// Where the second one starts.
        offset: usize,
    },
}

/// A message that must not be sent as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unsendable {
    /// Longer than the frame budget.
    #[error(
        "{command} needs {needed} bytes after the EtherType, the MTU is {mtu}: split the message"
    )]
    TooLong {
        /// The command.
        command: Command,
        /// Bytes needed after the EtherType.
        needed: usize,
        /// Bytes allowed there.
        mtu: usize,
    },
    /// Even split, one part is longer than the frame budget.
    #[error(
        "{command} does not fit an MTU of {mtu} bytes even with one list entry a part: \
         raise the MTU or shorten the other TLVs"
    )]
    Unsplittable {
        /// The command.
        command: Command,
        /// Bytes allowed after the EtherType.
        mtu: usize,
    },
    /// A value that the field may not have.
    #[error("TLV {kind}: {why}")]
    Value {
        /// The TLV.
        kind: Kind,
        /// What is wrong with it and what would be right.
        why: &'static str,
    },
    /// A command without a TLV it must have.
    #[error("{command} needs a {kind} TLV: add it")]
    Missing {
        /// The command.
        command: Command,
        /// The TLV it needs.
        kind: Kind,
    },
    /// A TLV that may stand once stands twice.
    #[error("TLV {kind} may stand once in a message: remove one")]
    Duplicate {
        /// The TLV.
        kind: Kind,
    },
    /// The sender has used every sequence number of its boot.
    #[error("sequence numbers are used up: start again with a newer boot id")]
    SequenceExhausted,
}
