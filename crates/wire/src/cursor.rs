//! Bounds-checked reading of TLV values.

use crate::error::Malformed;
use crate::tlv::Kind;

/// Reads the value of one TLV and knows where in the payload it stands.
pub(crate) struct Reader<'a> {
    kind: Kind,
    bytes: &'a [u8],
    // Offset of `bytes[0]` from the start of the control payload.
    offset: usize,
}

impl<'a> Reader<'a> {
    pub fn new(kind: Kind, bytes: &'a [u8], offset: usize) -> Self {
        Self {
            kind,
            bytes,
            offset,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn offset(&self) -> usize {
        self.offset
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        if self.bytes.len() < count {
            return Err(Malformed::Truncated {
                what: self.kind.name(),
                offset: self.offset,
                needed: count,
                have: self.bytes.len(),
            });
        }
        let (taken, rest) = self.bytes.split_at(count);
        self.bytes = rest;
        self.offset += count;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// The rest as text.
    pub fn text(&mut self) -> Result<String, Malformed> {
        let offset = self.offset;
        let rest = self.take(self.bytes.len())?;
        match str::from_utf8(rest) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(Malformed::Value {
                kind: self.kind,
                offset: offset + error.valid_up_to(),
                why: "text is not UTF-8",
            }),
        }
    }

    /// An error that points at `offset`.
    pub fn fault(&self, offset: usize, why: &'static str) -> Malformed {
        Malformed::Value {
            kind: self.kind,
            offset,
            why,
        }
    }

    pub fn finish(self) -> Result<(), Malformed> {
        match self.bytes.len() {
            0 => Ok(()),
            extra => Err(Malformed::Leftover {
                kind: self.kind,
                offset: self.offset,
                extra,
            }),
        }
    }
}
