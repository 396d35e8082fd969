//! Item handles: a key resolved once, for updates on the packet path.

use super::record::{Record, flag};
use super::shard::{How, Shard};
use super::source::Source;
use super::{SetOptions, Store};
use crate::error::Error;
use crate::key::Key;
use crate::value::Value;
use crate::version::Stamp;
use std::cell::UnsafeCell;
use std::fmt;
use std::sync::Arc;

/// An item, resolved once. It means exactly what its key means: when the item is deleted, evicted,
/// expires or is taken away, reads give nothing, and the next `add` or `set` makes it anew. A
/// handle may be used by many threads.
///
/// While it is held, the memory of an item that has gone is kept until the handle is used or
/// dropped.
pub struct Handle {
    store: Arc<Store>,
    key: Box<str>,
    hash: u64,
    shard: usize,
    // Invariant: only touched by the thread that holds the lock of `shard`.
    record: UnsafeCell<Option<Record>>,
}

// SAFETY: the record is only touched under the lock of its shard.
unsafe impl Sync for Handle {}

impl Handle {
    #[inline]
    fn locked<R>(&self, f: impl FnOnce(&mut Shard, &mut Option<Record>) -> R) -> R {
        let mut shard = self.store.shards[self.shard].lock();
        // SAFETY: the shard is locked, and `f` cannot keep the reference.
        f(&mut shard, unsafe { &mut *self.record.get() })
    }

    /// Makes the record that of the key, if there is one.
    fn resolve(&self, shard: &Shard, record: &mut Option<Record>) {
        if record.as_ref().is_none_or(|record| record.has(flag::GONE)) {
            *record = shard.find(self.hash, &self.key).map(Record::share);
        }
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Adds to a counter and returns the sum; an item that is not there starts at 0.
    ///
    /// # Errors
    /// As [`Store::add`].
    #[inline]
    pub fn add(&self, delta: i64) -> Result<i64, Error> {
        let sum = self.locked(|shard, record| {
            if shard.attention != 0 {
                return None;
            }
            let record = record.as_mut()?;
            let sum = record.plain_int()?.checked_add(delta)?;
            record.set_int(sum);
            record.set_stamp(shard.tick(&self.store.shared));
            Some(sum)
        });
        match sum {
            Some(sum) => Ok(sum),
            None => self.add_slowly(delta),
        }
    }

    #[cold]
    fn add_slowly(&self, delta: i64) -> Result<i64, Error> {
        let sum = self.store.add_at(self.shard, self.hash, &self.key, delta)?;
        self.locked(|shard, record| self.resolve(shard, record));
        Ok(sum)
    }

    /// The value, as [`Store::get`].
    pub fn get(&self) -> Option<Value> {
        self.locked(|shard, record| {
            self.resolve(shard, record);
            let record = record.as_ref()?;
            self.store.shared.order.saw(record.stamp());
            (!record.expired(self.store.now_ms())).then(|| record.to_value())
        })
    }

    /// The number; nothing if there is no item, or it holds something else. A few nanoseconds.
    #[inline]
    pub fn get_int(&self) -> Option<i64> {
        let plain = self.locked(|_, record| {
            let record = record.as_ref()?;
            let int = record.plain_int()?;
            self.store.shared.order.saw(record.stamp());
            Some(int)
        });
        match plain {
            Some(int) => Some(int),
            None => match self.get()? {
                Value::Int(int) => Some(int),
                _ => None,
            },
        }
    }

    /// Writes the value, as [`Store::set`].
    ///
    /// # Errors
    /// As [`Store::set`].
    pub fn set(&self, value: impl Into<Value>) -> Result<Stamp, Error> {
        let value = value.into();
        self.write(Source::from_value(&value), SetOptions::default())
    }

    /// Writes the value, as [`Store::set_with`].
    ///
    /// # Errors
    /// As [`Store::set`].
    pub fn set_with(
        &self,
        value: crate::ValueRef<'_>,
        options: SetOptions<'_>,
    ) -> Result<Stamp, Error> {
        self.write(Source::from_ref(value), options)
    }

    fn write(&self, source: Source<'_>, options: SetOptions<'_>) -> Result<Stamp, Error> {
        let how = self.store.how(options);
        self.store
            .write_at(self.shard, self.hash, &self.key, source, &how)
            .map(Option::unwrap_or_default)
    }

    /// Removes the item, as [`Store::delete`].
    ///
    /// # Errors
    /// As [`Store::delete`].
    pub fn delete(&self) -> Result<bool, Error> {
        self.store.delete_as(&self.key, &How::default())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // A record's count changes under the lock of its shard.
        self.locked(|_, record| *record = None);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("key", &self.key).finish()
    }
}

impl Store {
    /// Resolves `key` once, whether the item exists or not.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn handle(self: &Arc<Self>, key: &str) -> Result<Handle, Error> {
        let key = Key::new(key)?.as_str();
        let (shard, hash) = self.place(key);
        let handle = Handle {
            store: Arc::clone(self),
            key: key.into(),
            hash,
            shard,
            record: UnsafeCell::new(None),
        };
        handle.locked(|shard, record| handle.resolve(shard, record));
        Ok(handle)
    }
}
