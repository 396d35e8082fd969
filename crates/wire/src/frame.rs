//! Views over the bytes of a control frame. Every offset is named here and nowhere else.
//!
//! A view owns nothing and interprets nothing: it has checked, once, that every length in the
//! header lies within the buffer, so its accessors cannot panic. What the bytes *mean* is decided
//! by [`Message`](crate::Message), after the tag has been verified.
//!
//! There are two views because a marker may have to wear the headers of a flow (steering puts
//! packets on CPUs by those headers): the control payload is the same behind an Ethernet header and
//! behind any other, and its tag covers nothing outside it.

use crate::error::Malformed;

/// EtherType of control frames (SHarP §3.4).
pub const ETHERTYPE: u16 = 0x821c;
/// Version of the format described here.
pub const VERSION: u8 = 1;
/// Length of the authentication tag: HMAC-SHA-256 cut to its left half (RFC 4868 §2.3).
pub const TAG_LEN: usize = 16;
/// Length of the Ethernet header.
pub const ETHERNET_LEN: usize = 14;
/// Length of the fixed control header.
pub const HEADER_LEN: usize = field::TLVS;
/// Bytes that every control payload has: header and tag.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// Bytes after the EtherType that any Ethernet carries.
pub const DEFAULT_MTU: usize = 1500;

/// An Ethernet address.
pub type Mac = [u8; 6];

mod field {
    use core::ops::Range;

    pub mod ethernet {
        use core::ops::Range;
        pub const DESTINATION: Range<usize> = 0..6;
        pub const SOURCE: Range<usize> = 6..12;
        pub const ETHERTYPE: Range<usize> = 12..14;
    }

    pub const VERSION: usize = 0;
    pub const COMMAND: usize = 1;
    pub const FLAGS: Range<usize> = 2..4;
    pub const KEY_ID: Range<usize> = 4..6;
    pub const TLV_LEN: Range<usize> = 6..8;
    pub const HANDOVER: Range<usize> = 8..16;
    pub const TO: Range<usize> = 16..20;
    pub const FROM: Range<usize> = 20..24;
    pub const BOOT: Range<usize> = 24..32;
    pub const SEQUENCE: Range<usize> = 32..40;
    pub const TLVS: usize = 40;
}

/// Read a big-endian field whose place the view has checked.
macro_rules! read {
    ($bytes:expr, $range:expr, $type:ty) => {{
        let mut raw = [0; size_of::<$type>()];
        raw.copy_from_slice(&$bytes[$range]);
        <$type>::from_be_bytes(raw)
    }};
}

/// A whole Ethernet frame with EtherType 0x821c.
#[derive(Debug, Clone, Copy)]
pub struct Frame<T: AsRef<[u8]>> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Frame<T> {
    /// View `buffer` as a control frame.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] or [`Malformed::EtherType`]; the payload is checked by
    /// [`Control::new_checked`].
    pub fn new_checked(buffer: T) -> Result<Self, Malformed> {
        let bytes = buffer.as_ref();
        if bytes.len() < ETHERNET_LEN {
            return Err(Malformed::Truncated {
                what: "Ethernet header",
                offset: 0,
                needed: ETHERNET_LEN,
                have: bytes.len(),
            });
        }
        let found = read!(bytes, field::ethernet::ETHERTYPE, u16);
        if found != ETHERTYPE {
            return Err(Malformed::EtherType { found });
        }
        Ok(Self { buffer })
    }

    /// Destination address. Not authenticated: switches may rewrite it.
    pub fn destination(&self) -> Mac {
        let mut mac = [0; 6];
        mac.copy_from_slice(&self.buffer.as_ref()[field::ethernet::DESTINATION]);
        mac
    }

    /// Source address. Not authenticated: switches may rewrite it.
    pub fn source(&self) -> Mac {
        let mut mac = [0; 6];
        mac.copy_from_slice(&self.buffer.as_ref()[field::ethernet::SOURCE]);
        mac
    }

    /// Everything after the EtherType, padding included.
    pub fn payload(&self) -> &[u8] {
        &self.buffer.as_ref()[ETHERNET_LEN..]
    }
}

/// Where frames for `instance` go, or for the controller: nobody's address. Switches tell instances
/// apart by it; receivers go by what is signed.
pub const fn address_of(instance: u32) -> Mac {
    let [a, b, c, d] = instance.to_be_bytes();
    match instance {
        crate::CONTROLLER => [0x02, 0xff, 0, 0, 0, 0],
        _ => [0x02, 0xfe, a, b, c, d],
    }
}

/// Put an Ethernet header before a control payload.
///
/// No padding is needed: header and tag alone make 70 bytes, above Ethernet's 60.
pub fn ethernet(destination: Mac, source: Mac, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET_LEN + payload.len());
    frame.extend_from_slice(&destination);
    frame.extend_from_slice(&source);
    frame.extend_from_slice(&ETHERTYPE.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A control payload: fixed header, TLVs, tag, and whatever padding the link added.
#[derive(Debug, Clone, Copy)]
pub struct Control<T: AsRef<[u8]>> {
    // Invariant: version is ours, and HEADER_LEN + tlv_len() + TAG_LEN <= buffer.len().
    buffer: T,
}

impl<T: AsRef<[u8]>> Control<T> {
    /// View `buffer` as a control payload.
    ///
    /// Bytes behind the tag are padding: never read, never authenticated, and not an error, since a
    /// link may add them (IEEE 802.3 §3.2.8).
    ///
    /// # Errors
    /// [`Malformed::Truncated`] or [`Malformed::Version`].
    pub fn new_checked(buffer: T) -> Result<Self, Malformed> {
        let bytes = buffer.as_ref();
        // Version before length: a later version may have a shorter header.
        match bytes.get(field::VERSION) {
            Some(&VERSION) => {}
            Some(&found) => return Err(Malformed::Version { found }),
            None => {}
        }
        if bytes.len() < HEADER_LEN {
            return Err(Malformed::Truncated {
                what: "header",
                offset: 0,
                needed: HEADER_LEN,
                have: bytes.len(),
            });
        }
        let view = Self { buffer };
        let have = view.buffer.as_ref().len() - HEADER_LEN;
        let needed = view.tlv_len() + TAG_LEN;
        if have < needed {
            return Err(Malformed::Truncated {
                what: "TLVs and tag",
                offset: HEADER_LEN,
                needed,
                have,
            });
        }
        Ok(view)
    }

    fn bytes(&self) -> &[u8] {
        self.buffer.as_ref()
    }

    /// Command number, known or not.
    pub fn command(&self) -> u8 {
        self.bytes()[field::COMMAND]
    }

    /// Flag bits, known or not.
    pub fn flags(&self) -> u16 {
        read!(self.bytes(), field::FLAGS, u16)
    }

    /// Which key made the tag.
    pub fn key_id(&self) -> u16 {
        read!(self.bytes(), field::KEY_ID, u16)
    }

    /// Bytes of TLVs.
    pub fn tlv_len(&self) -> usize {
        usize::from(read!(self.bytes(), field::TLV_LEN, u16))
    }

    /// The handover this belongs to; 0 for none.
    pub fn handover(&self) -> u64 {
        read!(self.bytes(), field::HANDOVER, u64)
    }

    /// Instance id of the addressee; 0 is the controller.
    pub fn to(&self) -> u32 {
        read!(self.bytes(), field::TO, u32)
    }

    /// Instance id of the sender; 0 is the controller.
    pub fn from(&self) -> u32 {
        read!(self.bytes(), field::FROM, u32)
    }

    /// Boot id of the sender.
    pub fn boot(&self) -> u64 {
        read!(self.bytes(), field::BOOT, u64)
    }

    /// Sequence number, per sender and boot.
    pub fn sequence(&self) -> u64 {
        read!(self.bytes(), field::SEQUENCE, u64)
    }

    /// The TLVs' bytes.
    pub fn tlvs(&self) -> &[u8] {
        &self.bytes()[HEADER_LEN..HEADER_LEN + self.tlv_len()]
    }

    /// What the tag covers: header and TLVs.
    pub fn signed(&self) -> &[u8] {
        &self.bytes()[..HEADER_LEN + self.tlv_len()]
    }

    /// The authentication tag.
    pub fn tag(&self) -> &[u8] {
        let end = HEADER_LEN + self.tlv_len();
        &self.bytes()[end..end + TAG_LEN]
    }
}

/// The header's fields as they are written.
pub(crate) struct Header {
    pub command: u8,
    pub flags: u16,
    pub key_id: u16,
    pub tlv_len: u16,
    pub handover: u64,
    pub to: u32,
    pub from: u32,
    pub boot: u64,
    pub sequence: u64,
}

impl Header {
    pub fn bytes(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[field::VERSION] = VERSION;
        out[field::COMMAND] = self.command;
        out[field::FLAGS].copy_from_slice(&self.flags.to_be_bytes());
        out[field::KEY_ID].copy_from_slice(&self.key_id.to_be_bytes());
        out[field::TLV_LEN].copy_from_slice(&self.tlv_len.to_be_bytes());
        out[field::HANDOVER].copy_from_slice(&self.handover.to_be_bytes());
        out[field::TO].copy_from_slice(&self.to.to_be_bytes());
        out[field::FROM].copy_from_slice(&self.from.to_be_bytes());
        out[field::BOOT].copy_from_slice(&self.boot.to_be_bytes());
        out[field::SEQUENCE].copy_from_slice(&self.sequence.to_be_bytes());
        out
    }
}
