//! Control frames of Flowferry: EtherType 0x821c, as SHarP §3.4 has them, with authentication and
//! replay protection, which SHarP leaves out. The format is described in `docs/wire.md`.
//!
//! The crate has three layers, and each knows only the one before it:
//!
//! 1. [`Frame`] and [`Control`] are views: bytes whose lengths have been checked.
//! 2. [`Message`] is the valid value: an enum-typed command with enum-typed fields.
//! 3. [`Sealer`] and [`Opener`] stand between the two: [`KeyRing`], tag, [`ReplayWindow`].
//!
//! Nothing here does I/O, reads a clock or draws a random number: bytes, boot ids and keys are
//! arguments.
//!
//! ```
//! use flowferry_wire::{Command, DEFAULT_MTU, Key, KeyRing, Message, Opener, Sealer, Side, Tlv};
//!
//! let keys = KeyRing::new(1, Key::new(vec![7; 32]).unwrap());
//! let mut controller = Sealer::new(0, 1_700_000_000_000);
//! let mut marker = Message::new(Command::Marker, 42, 9)
//!     .with(Tlv::Side(Side::Upstream))
//!     .with(Tlv::Round(1));
//! let frame = controller
//!     .seal(&keys, &mut marker, [2, 0, 0, 0, 0, 9], [2, 0, 0, 0, 0, 1], DEFAULT_MTU)
//!     .unwrap();
//!
//! let mut instance = Opener::new(9);
//! let opened = instance.open(&keys, &frame).unwrap();
//! assert_eq!(opened.round(), Some(1));
//! assert_eq!(instance.open(&keys, &frame).unwrap_err().reason(), "replayed");
//! ```

mod command;
mod cursor;
mod error;
mod flow;
mod frame;
mod keys;
mod matching;
mod message;
mod numbered;
mod opener;
mod parts;
mod replay;
mod report;
mod tlv;

pub use command::{Command, Flags};
pub use error::{Malformed, Unsendable};
pub use flow::{Ends, Flow, Vlans};
pub use frame::{
    Control, DEFAULT_MTU, ETHERNET_LEN, ETHERTYPE, Frame, HEADER_LEN, Mac, OVERHEAD, TAG_LEN,
    VERSION, address_of, ethernet,
};
pub use keys::{KEY_MIN, Key, KeyError, KeyRing};
pub use matching::{Masked, Match, Network};
pub use message::{CONTROLLER, Message};
pub use opener::{Opener, Rejection, Sealer, Verified};
pub use parts::{Assembler, PartError, split};
pub use replay::{Replay, ReplayWindow, WINDOW};
pub use report::{Counter, Counts, Reason, Report, Side};
pub use tlv::{
    InReplyTo, Kind, MAX_PARTS, NAME_MAX, OPTIONAL, Part, Peer, STRATEGY_MAX, TEXT_MAX,
    TLV_HEADER_LEN, Tlv,
};
