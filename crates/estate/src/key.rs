//! Keys: UTF-8 of 1 to 1,024 bytes; every character is legal.

use crate::error::{Error, shown};
use std::fmt;

/// The longest key, bytes.
pub const KEY_MAX: usize = 1024;

/// A key whose length has been checked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key<'a>(&'a str);

impl<'a> Key<'a> {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`Error::Key`] if it is empty or longer than [`KEY_MAX`] bytes.
    #[inline]
    pub fn new(text: &'a str) -> Result<Self, Error> {
        if text.is_empty() || text.len() > KEY_MAX {
            return Err(Self::refused(text));
        }
        Ok(Self(text))
    }

    /// Checks that `bytes` are UTF-8, too.
    ///
    /// # Errors
    /// [`Error::Key`] if they are not, or the length is wrong.
    #[inline]
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, Error> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::new(text),
            Err(_) => Err(Error::Key {
                shown: shown(&String::from_utf8_lossy(bytes)),
                why: "is not UTF-8",
            }),
        }
    }

    /// The text.
    #[inline]
    pub fn as_str(self) -> &'a str {
        self.0
    }

    #[cold]
    fn refused(text: &str) -> Error {
        let why = if text.is_empty() {
            "is empty"
        } else {
            "is too long"
        };
        Error::Key {
            shown: shown(text),
            why,
        }
    }
}

impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
