//! Reading bytes that came from outside: every length is checked before anything is read.
//!
//! All numbers are big-endian. A string or a run of bytes is its length (u32) and its bytes.

use thiserror::Error;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} at byte {offset}: {why}; the sender is broken, or speaks another version")]
pub struct Malformed {
    /// The field.
    pub what: &'static str,
    /// Where it starts.
    pub offset: usize,
    /// What is wrong with it.
    pub why: &'static str,
}

/// A cursor over received bytes.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    // Invariant: at most `bytes.len()`.
    offset: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the first byte on.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Where the next field starts.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Bytes left.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// Something is wrong with field `what`, which starts at `offset`.
    pub fn fault(&self, offset: usize, what: &'static str, why: &'static str) -> Malformed {
        Malformed { what, offset, why }
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`Malformed`] if fewer are left.
    pub fn take(&mut self, what: &'static str, count: usize) -> Result<&'a [u8], Malformed> {
        if count > self.left() {
            return Err(self.fault(self.offset, what, "the bytes end before it does"));
        }
        let start = self.offset;
        self.offset += count;
        Ok(&self.bytes[start..self.offset])
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// [`Malformed`] if fewer are left.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(what, N)?);
        Ok(out)
    }

    /// One byte.
    ///
    /// # Errors
    /// [`Malformed`] if none is left.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, Malformed> {
        Ok(self.array::<1>(what)?[0])
    }

    /// Two bytes.
    ///
    /// # Errors
    /// [`Malformed`] if fewer are left.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes(self.array(what)?))
    }

    /// Four bytes.
    ///
    /// # Errors
    /// [`Malformed`] if fewer are left.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// [`Malformed`] if fewer are left.
    pub fn u64(&mut self, what: &'static str) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array(what)?))
    }

    /// Eight bytes, signed.
    ///
    /// # Errors
    /// [`Malformed`] if fewer are left.
    pub fn i64(&mut self, what: &'static str) -> Result<i64, Malformed> {
        Ok(i64::from_be_bytes(self.array(what)?))
    }

    /// A length and that many bytes.
    ///
    /// # Errors
    /// [`Malformed`] if they are not there.
    pub fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], Malformed> {
        let start = self.offset;
        let count = self.u32(what)? as usize;
        if count > self.left() {
            return Err(self.fault(start, what, "it is longer than the bytes that are left"));
        }
        self.take(what, count)
    }

    /// A length and that many bytes of UTF-8.
    ///
    /// # Errors
    /// [`Malformed`] if they are not there or not UTF-8.
    pub fn str(&mut self, what: &'static str) -> Result<&'a str, Malformed> {
        let start = self.offset;
        let bytes = self.bytes(what)?;
        std::str::from_utf8(bytes).map_err(|_| self.fault(start, what, "it is not UTF-8"))
    }

    /// The message ends here.
    ///
    /// # Errors
    /// [`Malformed`] if bytes are left.
    pub fn end(&self) -> Result<(), Malformed> {
        match self.left() {
            0 => Ok(()),
            _ => Err(self.fault(self.offset, "the end", "bytes are left over")),
        }
    }
}

/// Appends a length and `bytes`.
///
/// # Panics
/// If there are 4 GiB or more; values are bounded far below.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let count = u32::try_from(bytes.len()).expect("a value is shorter than 4 GiB");
    out.extend_from_slice(&count.to_be_bytes());
    out.extend_from_slice(bytes);
}
