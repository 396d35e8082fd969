//! Sealing and opening: from messages to authentic frames and back.
//!
//! Checks run from cheap to dear and from unauthenticated to authenticated: shape, addressee, key,
//! tag, replay, and only then the TLVs. Nothing a stranger sends gets as far as the TLV parser or
//! moves a window.

use crate::error::{Malformed, Unsendable};
use crate::frame::{Control, Frame, Mac, TAG_LEN, ethernet};
use crate::keys::{KeyRing, NoKey};
use crate::message::Message;
use crate::replay::{Replay, ReplayWindow};
use std::collections::BTreeMap;
use std::ops::Deref;
use thiserror::Error;

/// Numbers and signs the messages of one sender.
#[derive(Debug)]
pub struct Sealer {
    from: u32,
    boot: u64,
    // The next sequence number; `None` after the last.
    next: Option<u64>,
}

impl Sealer {
    /// A sender that has just started.
    ///
    /// `boot` must be greater at every start: a persisted counter, or the start time in
    /// milliseconds where the clock is known never to step back between starts.
    pub fn new(from: u32, boot: u64) -> Self {
        Self {
            from,
            boot,
            next: Some(0),
        }
    }

    /// The boot id.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// The sequence number that the next message gets.
    pub fn next_sequence(&self) -> Option<u64> {
        self.next
    }

    /// Stamp sender, boot and sequence into `message` and give its signed control payload.
    ///
    /// A number is used up only when the message can be sent.
    ///
    /// # Errors
    /// [`Unsendable`].
    pub fn seal_payload(
        &mut self,
        keys: &KeyRing,
        message: &mut Message,
        mtu: usize,
    ) -> Result<Vec<u8>, Unsendable> {
        message.from = self.from;
        message.boot = self.boot;
        message.sequence = self.next.ok_or(Unsendable::SequenceExhausted)?;
        let payload = sign(keys, message, mtu)?;
        self.next = message.sequence.checked_add(1);
        Ok(payload)
    }

    /// Like [`seal_payload`](Self::seal_payload), with an Ethernet header before it.
    ///
    /// # Errors
    /// [`Unsendable`].
    pub fn seal(
        &mut self,
        keys: &KeyRing,
        message: &mut Message,
        destination: Mac,
        source: Mac,
        mtu: usize,
    ) -> Result<Vec<u8>, Unsendable> {
        let payload = self.seal_payload(keys, message, mtu)?;
        Ok(ethernet(destination, source, &payload))
    }
}

fn sign(keys: &KeyRing, message: &Message, mtu: usize) -> Result<Vec<u8>, Unsendable> {
    let id = keys.active();
    let Ok(key) = keys.get(id) else {
        unreachable!("a ring always holds its active key");
    };
    let mut payload = message.emit(id, mtu)?;
    let signed = payload.len() - TAG_LEN;
    let tag = key.tag(&payload[..signed]);
    payload[signed..].copy_from_slice(&tag);
    Ok(payload)
}

/// A value that came in a frame with a valid tag, from a known sender, to us, for the first time.
///
/// Only an [`Opener`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    /// Give up the proof, keep the value.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// Why a frame was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Rejection {
    /// Not a control frame, or one that this version does not understand.
    #[error("malformed: {0}")]
    Malformed(#[from] Malformed),
    /// Meant for another instance.
    #[error("addressed to instance {to}, this is {own}: check the switch's entries and the config")]
    WrongAddressee {
        /// The addressee.
        to: u32,
        /// Who we are.
        own: u32,
    },
    /// Made with a key that this side never had.
    #[error(
        "key id {id} from instance {from} is unknown: add the key here, or look for an intruder"
    )]
    UnknownKey {
        /// The key id.
        id: u16,
        /// Who claims to have sent it.
        from: u32,
    },
    /// Made with a key that has been retired here.
    #[error("key id {id} from instance {from} is retired: activate the new key there")]
    RetiredKey {
        /// The key id.
        id: u16,
        /// Who claims to have sent it.
        from: u32,
    },
    /// The tag is not that of the bytes.
    #[error(
        "tag of key id {id} does not fit, claimed sender is instance {from}: \
         the frame is damaged or forged, or the id means another key there"
    )]
    BadTag {
        /// The key id.
        id: u16,
        /// Who claims to have sent it.
        from: u32,
    },
    /// Seen before.
    #[error("sequence {sequence} of instance {from} was seen before: a copy, ignore it")]
    Replayed {
        /// The sender.
        from: u32,
        /// Its sequence number.
        sequence: u64,
    },
    /// Behind the window, or of an older boot of the sender.
    #[error(
        "sequence {sequence} in boot {boot} of instance {from} is too old: \
         ignore it; if all of its frames are, its boot id went back"
    )]
    Stale {
        /// The sender.
        from: u32,
        /// Its boot id.
        boot: u64,
        /// Its sequence number.
        sequence: u64,
    },
}

impl Rejection {
    /// The names of the reasons, in the order of [`Opener::rejected`].
    pub const REASONS: [&'static str; 7] = [
        "malformed",
        "wrong_addressee",
        "unknown_key",
        "retired_key",
        "bad_tag",
        "replayed",
        "stale",
    ];

    /// The reason in a word, for metrics.
    pub fn reason(&self) -> &'static str {
        Self::REASONS[self.index()]
    }

    fn index(&self) -> usize {
        match self {
            Self::Malformed(_) => 0,
            Self::WrongAddressee { .. } => 1,
            Self::UnknownKey { .. } => 2,
            Self::RetiredKey { .. } => 3,
            Self::BadTag { .. } => 4,
            Self::Replayed { .. } => 5,
            Self::Stale { .. } => 6,
        }
    }
}

/// Lets in what is authentic, new and meant for this instance, and counts what is not.
///
/// The key ring is an argument of each call: one ring serves both directions, and a rotation
/// happens in one place.
#[derive(Debug)]
pub struct Opener {
    own: u32,
    // Only a verified sender gets a window, so strangers cannot fill this.
    windows: BTreeMap<u32, ReplayWindow>,
    accepted: u64,
    rejected: [u64; Rejection::REASONS.len()],
}

impl Opener {
    /// A receiver with this instance id that has heard of nobody.
    pub fn new(own: u32) -> Self {
        Self {
            own,
            windows: BTreeMap::new(),
            accepted: 0,
            rejected: [0; Rejection::REASONS.len()],
        }
    }

    /// Open an Ethernet frame.
    ///
    /// # Errors
    /// [`Rejection`]; it is counted.
    pub fn open(&mut self, keys: &KeyRing, frame: &[u8]) -> Result<Verified<Message>, Rejection> {
        let result = Frame::new_checked(frame)
            .map_err(Rejection::from)
            .and_then(|frame| self.judge(keys, frame.payload()));
        self.count(result)
    }

    /// Open a control payload that wore other headers than Ethernet's.
    ///
    /// # Errors
    /// [`Rejection`]; it is counted.
    pub fn open_payload(
        &mut self,
        keys: &KeyRing,
        payload: &[u8],
    ) -> Result<Verified<Message>, Rejection> {
        let result = self.judge(keys, payload);
        self.count(result)
    }

    fn count<T>(&mut self, result: Result<T, Rejection>) -> Result<T, Rejection> {
        match &result {
            Ok(_) => self.accepted += 1,
            Err(rejection) => self.rejected[rejection.index()] += 1,
        }
        result
    }

    fn judge(&mut self, keys: &KeyRing, payload: &[u8]) -> Result<Verified<Message>, Rejection> {
        let control = Control::new_checked(payload)?;
        let (to, from, id) = (control.to(), control.from(), control.key_id());
        if to != self.own {
            return Err(Rejection::WrongAddressee { to, own: self.own });
        }
        let key = keys.get(id).map_err(|no_key| match no_key {
            NoKey::Unknown => Rejection::UnknownKey { id, from },
            NoKey::Retired => Rejection::RetiredKey { id, from },
        })?;
        if !key.verify(control.signed(), control.tag()) {
            return Err(Rejection::BadTag { id, from });
        }
        let (boot, sequence) = (control.boot(), control.sequence());
        let replay = match self.windows.get_mut(&from) {
            Some(window) => window.accept(boot, sequence),
            None => {
                // Frames of one sender may come by different ways, and in another order.
                self.windows.insert(from, ReplayWindow::new(boot, sequence));
                Replay::Fresh
            }
        };
        match replay {
            Replay::Fresh => Ok(Verified(Message::parse(&control)?)),
            Replay::Replayed => Err(Rejection::Replayed { from, sequence }),
            Replay::Stale => Err(Rejection::Stale {
                from,
                boot,
                sequence,
            }),
        }
    }

    /// Frames let in.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Frames kept out, by reason.
    pub fn rejected(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Rejection::REASONS.into_iter().zip(self.rejected)
    }

    /// Sender, boot id and greatest sequence number of every window: what to keep across a restart.
    pub fn positions(&self) -> impl Iterator<Item = (u32, u64, u64)> {
        self.windows.iter().map(|(from, window)| {
            let (boot, sequence) = window.position();
            (*from, boot, sequence)
        })
    }

    /// Take over a position from before a restart, so that frames recorded then stay out.
    ///
    /// A position that is behind what has been seen since is ignored.
    pub fn resume(&mut self, from: u32, boot: u64, sequence: u64) {
        let known = self.windows.get(&from).map(ReplayWindow::position);
        if known.is_none_or(|known| known < (boot, sequence)) {
            let window = ReplayWindow::resume(boot, sequence);
            self.windows.insert(from, window);
        }
    }
}
