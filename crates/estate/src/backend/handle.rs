//! One item, resolved once.

use super::{Estate, Items};
use crate::error::Error;
use crate::key::Key;
use crate::store::{Handle, SetOptions};
use crate::value::{Value, ValueRef};
use crate::version::Stamp;
use std::sync::Arc;

enum At {
    Here(Handle),
    There(Arc<dyn Items>, Box<str>),
}

/// One item of this instance, wherever it is kept. It keeps its key when the item is deleted, and
/// creates it again when written.
pub struct ItemHandle {
    estate: Estate,
    at: At,
}

impl ItemHandle {
    pub(super) fn here(estate: Estate, handle: Handle) -> Self {
        let at = At::Here(handle);
        Self { estate, at }
    }

    pub(super) fn there(estate: Estate, items: Arc<dyn Items>, key: &str) -> Result<Self, Error> {
        let at = At::There(items, Key::new(key)?.as_str().into());
        Ok(Self { estate, at })
    }

    /// Whose item it is.
    pub fn estate(&self) -> &Estate {
        &self.estate
    }

    /// The key.
    pub fn key(&self) -> &str {
        match &self.at {
            At::Here(handle) => handle.key(),
            At::There(_, key) => key,
        }
    }

    /// See [`Estate::get`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn get(&self) -> Result<Option<Value>, Error> {
        self.estate.check()?;
        match &self.at {
            At::Here(handle) => Ok(handle.get()),
            At::There(items, key) => Ok(items.get(key)?.map(|item| item.value)),
        }
    }

    /// See [`Estate::set`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn set(&self, value: ValueRef<'_>) -> Result<Stamp, Error> {
        self.estate.check()?;
        match &self.at {
            At::Here(handle) => handle.set_with(value, SetOptions::default()),
            At::There(items, key) => items.set(key, value, SetOptions::default()),
        }
    }

    /// See [`Estate::add`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn add(&self, delta: i64) -> Result<i64, Error> {
        self.estate.check()?;
        match &self.at {
            At::Here(handle) => handle.add(delta),
            At::There(items, key) => items.add(key, delta),
        }
    }

    /// See [`Estate::delete`].
    ///
    /// # Errors
    /// As there.
    pub fn delete(&self) -> Result<bool, Error> {
        self.estate.check()?;
        match &self.at {
            At::Here(handle) => handle.delete(),
            At::There(items, key) => items.delete(key),
        }
    }
}
