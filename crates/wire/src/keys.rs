//! Keys and their rotation.
//!
//! A ring holds every key that may still arrive and names the one to send with. To rotate without a
//! gap: `add` the new key everywhere, then `activate` it everywhere, then `retire` the old one
//! everywhere. A retired id stays in the ring without its secret, so that a frame still made with it
//! is rejected by name and the id is never given to another key.

use crate::frame::TAG_LEN;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::fmt;
use thiserror::Error;
use zeroize::Zeroizing;

/// Shortest key in bytes: the length of the hash (RFC 2104 §3).
pub const KEY_MIN: usize = 32;

/// A secret. It is overwritten with zeros when dropped, and `Debug` does not print it.
#[derive(Clone)]
pub struct Key(Zeroizing<Vec<u8>>);

impl Key {
    /// Take a secret of at least [`KEY_MIN`] bytes; more than 64 add nothing.
    ///
    /// # Errors
    /// [`KeyError::TooShort`].
    pub fn new(secret: Vec<u8>) -> Result<Self, KeyError> {
        let secret = Zeroizing::new(secret);
        match secret.len() {
            KEY_MIN.. => Ok(Self(secret)),
            len => Err(KeyError::TooShort { len }),
        }
    }

    // The keyed state is built per frame and wiped with it; keeping it would save two of about four
    // compressions and leave a second copy of the secret lying about.
    fn mac(&self, signed: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0)
            .unwrap_or_else(|_| unreachable!("HMAC takes a key of any length (RFC 2104 §2)"));
        mac.update(signed);
        mac
    }

    /// The tag of `signed`.
    pub(crate) fn tag(&self, signed: &[u8]) -> [u8; TAG_LEN] {
        let whole = self.mac(signed).finalize().into_bytes();
        let mut tag = [0; TAG_LEN];
        tag.copy_from_slice(&whole[..TAG_LEN]);
        tag
    }

    /// Whether `tag` is the tag of `signed`; takes the same time for every wrong tag.
    pub(crate) fn verify(&self, signed: &[u8], tag: &[u8]) -> bool {
        // A shorter tag would be compared only as far as it goes.
        tag.len() == TAG_LEN && self.mac(signed).verify_truncated_left(tag).is_ok()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(secret)")
    }
}

/// A key that cannot be used, or a step of a rotation out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum KeyError {
    /// Too short to be safe.
    #[error("a key has {len} bytes, {KEY_MIN} are needed: draw a new one from a random source")]
    TooShort {
        /// Its length.
        len: usize,
    },
    /// The id is or was another key's.
    #[error("key id {id} is taken or was retired: give the new key an id that was never used")]
    Used {
        /// The id.
        id: u16,
    },
    /// No such key, or no longer.
    #[error("key id {id} is not in the ring: add it first")]
    Unknown {
        /// The id.
        id: u16,
    },
    /// The key in use cannot be retired.
    #[error("key id {id} is the one to send with: activate another before retiring it")]
    Active {
        /// The id.
        id: u16,
    },
}

/// Why a ring has no key for an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoKey {
    Unknown,
    Retired,
}

/// Keys by id, one of them to send with.
#[derive(Clone)]
pub struct KeyRing {
    // Invariant: `keys[active]` is `Some`. A retired id maps to `None` and stays.
    keys: BTreeMap<u16, Option<Key>>,
    active: u16,
}

impl KeyRing {
    /// A ring with one key, to receive and to send with.
    pub fn new(id: u16, key: Key) -> Self {
        Self {
            keys: BTreeMap::from([(id, Some(key))]),
            active: id,
        }
    }

    /// Accept frames made with another key.
    ///
    /// # Errors
    /// [`KeyError::Used`].
    pub fn add(&mut self, id: u16, key: Key) -> Result<(), KeyError> {
        if self.keys.contains_key(&id) {
            return Err(KeyError::Used { id });
        }
        self.keys.insert(id, Some(key));
        Ok(())
    }

    /// Send with this key from now on.
    ///
    /// # Errors
    /// [`KeyError::Unknown`], also for a retired key.
    pub fn activate(&mut self, id: u16) -> Result<(), KeyError> {
        self.get(id).map_err(|_| KeyError::Unknown { id })?;
        self.active = id;
        Ok(())
    }

    /// Destroy a key and reject what still comes with its id.
    ///
    /// # Errors
    /// [`KeyError::Active`], [`KeyError::Unknown`].
    pub fn retire(&mut self, id: u16) -> Result<(), KeyError> {
        if id == self.active {
            return Err(KeyError::Active { id });
        }
        self.get(id).map_err(|_| KeyError::Unknown { id })?;
        self.keys.insert(id, None);
        Ok(())
    }

    /// Id of the key to send with.
    pub fn active(&self) -> u16 {
        self.active
    }

    /// Ids of the keys that are accepted.
    pub fn ids(&self) -> impl Iterator<Item = u16> {
        self.keys
            .iter()
            .filter(|(_, key)| key.is_some())
            .map(|(id, _)| *id)
    }

    pub(crate) fn get(&self, id: u16) -> Result<&Key, NoKey> {
        match self.keys.get(&id) {
            Some(Some(key)) => Ok(key),
            Some(None) => Err(NoKey::Retired),
            None => Err(NoKey::Unknown),
        }
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("active", &self.active)
            .field("ids", &self.ids().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
