//! An instance's place in a cluster, whatever the backend.

use super::handle::ItemHandle;
use super::lifetime::Lifetime;
use super::local;
use super::options::Options;
#[cfg(feature = "redis")]
use super::redis;
use super::seam::{Backend, Items, ReadHook, Statistics, Taken};
use super::watch::Watch;
use crate::error::Error;
use crate::item::Item;
use crate::key::Key;
use crate::pattern::Pattern;
use crate::protocol::Write;
use crate::query::{Query, View};
use crate::store::{Selection, SetOptions, Store};
use crate::value::{Value, ValueRef};
use crate::version::Stamp;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

enum Place {
    Here(Arc<Store>),
    #[cfg_attr(not(feature = "redis"), expect(dead_code))]
    There(Arc<dyn Items>),
}

struct Inner {
    life: Lifetime,
    options: Options,
    items: Place,
    backend: Arc<dyn Backend>,
    /// How long the last move here froze its items at the source.
    frozen_us: AtomicU64,
}

/// An instance's place in a cluster: its own items, and the view of all.
#[derive(Clone)]
pub struct Estate {
    inner: Arc<Inner>,
}

impl Estate {
    /// Joins a cluster.
    ///
    /// # Errors
    /// [`Error::Options`] for a name or an address that cannot be, [`Error::NameTaken`] if a live
    /// member has this name, [`Error::Backend`] if the server cannot be reached.
    pub fn open(options: Options) -> Result<Self, Error> {
        options.check()?;
        // Before the backend, so that a fork in between is seen.
        let life = Lifetime::begin();
        let (items, backend) = Self::connect(&options)?;
        Ok(Self {
            inner: Arc::new(Inner {
                life,
                options,
                items,
                backend,
                frozen_us: AtomicU64::new(0),
            }),
        })
    }

    fn connect(options: &Options) -> Result<(Place, Arc<dyn Backend>), Error> {
        let kind = options.backend.as_str();
        if kind == "local" {
            let local = Arc::new(local::Local::open(options)?);
            return Ok((Place::Here(local.store().clone()), local));
        }
        if kind == "p2p" {
            let node = Arc::new(crate::node::Node::open(options)?);
            return Ok((Place::Here(node.store().clone()), node));
        }
        #[cfg(feature = "redis")]
        if kind.starts_with("redis://")
            || kind.starts_with("redis+unix://")
            || kind.starts_with("redis+cluster://")
        {
            let server = redis::RedisBackend::open(options)?;
            return Ok((Place::There(server.clone()), server));
        }
        Err(Error::Options {
            what: "backend",
            given: crate::error::shown(kind),
            why: "there are local, p2p, redis://, redis+unix:// and redis+cluster://".to_owned(),
        })
    }

    /// The items in memory, for whoever wants no step in between; none if they are at a server.
    /// The caller sees to it that the estate is open ([`Estate::check`]).
    #[inline]
    pub fn store(&self) -> Option<&Arc<Store>> {
        match &self.inner.items {
            Place::Here(store) => Some(store),
            Place::There(_) => None,
        }
    }

    /// Whether calls may go ahead: one comparison.
    ///
    /// # Errors
    /// [`Error::Closed`], or [`Error::Forked`] in a child of the process that opened it.
    #[inline]
    pub fn check(&self) -> Result<(), Error> {
        self.inner.life.check()
    }

    /// How it was opened.
    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    /// Creates or overwrites an item of this instance.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::ValueTooBig`], [`Error::Frozen`], [`Error::MemoryFull`],
    /// [`Error::Backend`].
    #[inline]
    pub fn set(&self, key: &str, value: ValueRef<'_>) -> Result<Stamp, Error> {
        self.set_with(key, value, SetOptions::default())
    }

    /// The same, with a time to live or what the writer had seen.
    ///
    /// # Errors
    /// As [`Estate::set`].
    #[inline]
    pub fn set_with(
        &self,
        key: &str,
        value: ValueRef<'_>,
        options: SetOptions<'_>,
    ) -> Result<Stamp, Error> {
        self.check()?;
        match &self.inner.items {
            Place::Here(store) => store.set_with(key, value, options),
            Place::There(items) => items.set(Key::new(key)?.as_str(), value, options),
        }
    }

    /// The value of this instance's item; none if it has none.
    ///
    /// # Errors
    /// [`Error::Backend`].
    #[inline]
    pub fn get(&self, key: &str) -> Result<Option<Value>, Error> {
        self.check()?;
        match &self.inner.items {
            Place::Here(store) => Ok(store.get(key)),
            Place::There(items) => Ok(items.get(key)?.map(|item| item.value)),
        }
    }

    /// The same with version and expiry.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub fn get_item(&self, key: &str) -> Result<Option<Item>, Error> {
        self.check()?;
        match &self.inner.items {
            Place::Here(store) => Ok(store.get_item(key)),
            Place::There(items) => items.get(key),
        }
    }

    /// Removes this instance's item; returns whether there was one.
    ///
    /// # Errors
    /// [`Error::Frozen`], [`Error::Backend`].
    pub fn delete(&self, key: &str) -> Result<bool, Error> {
        self.check()?;
        match &self.inner.items {
            Place::Here(store) => store.delete(key),
            Place::There(items) => items.delete(key),
        }
    }

    /// Adds to a counter, atomically; one that is not there begins at 0. Returns the new value.
    ///
    /// # Errors
    /// [`Error::Type`] if the item is no int, [`Error::Overflow`], and as [`Estate::set`].
    #[inline]
    pub fn add(&self, key: &str, delta: i64) -> Result<i64, Error> {
        self.check()?;
        match &self.inner.items {
            Place::Here(store) => store.add(key, delta),
            Place::There(items) => items.add(Key::new(key)?.as_str(), delta),
        }
    }

    /// How long a global operation may take unless it says so itself.
    pub fn timeout(&self) -> Duration {
        self.inner.options.timeout
    }

    /// Keys of this instance's items, in no order.
    ///
    /// # Errors
    /// [`Error::ScanStopped`] if it takes longer than the time-out, [`Error::Backend`].
    pub fn keys(&self, pattern: &Pattern) -> Result<Vec<String>, Error> {
        self.check()?;
        match &self.inner.items {
            Place::Here(store) => {
                let ends = Instant::now() + self.timeout();
                store.keys(pattern, Some(&|| Instant::now() >= ends))
            }
            Place::There(items) => items.keys(pattern),
        }
    }

    /// An item resolved once, for updates on the packet path.
    ///
    /// # Errors
    /// [`Error::Key`].
    pub fn item(&self, key: &str) -> Result<ItemHandle, Error> {
        self.check()?;
        match &self.inner.items {
            Place::Here(store) => Ok(ItemHandle::here(self.clone(), store.handle(key)?)),
            Place::There(items) => ItemHandle::there(self.clone(), items.clone(), key),
        }
    }

    /// A global read: the view, whoever answered.
    ///
    /// # Errors
    /// [`Error::Reduce`] if the items do not go together, [`Error::Backend`].
    pub fn view_global(&self, query: &Query) -> Result<View, Error> {
        self.check()?;
        self.inner.backend.query(query)
    }

    /// A global read that insists on the answers it requires.
    ///
    /// # Errors
    /// [`Error::Incomplete`] with the view, if fewer have answered; and as
    /// [`Estate::view_global`].
    pub fn get_global(&self, query: &Query) -> Result<View, Error> {
        let view = self.view_global(query)?;
        let expected = view.answered.len() + view.missing.len();
        if query.require.met(view.answered.len(), expected) {
            return Ok(view);
        }
        Err(Error::Incomplete(Box::new(view)))
    }

    /// Moves items here from the member `source`, exactly once: repeated with the same id it
    /// does nothing more, and says what it did.
    ///
    /// # Errors
    /// [`Error::NoMember`], [`Error::Frozen`] if another move has any of them,
    /// [`Error::Backend`].
    pub fn take(&self, selection: &Selection, source: &str, move_id: u64) -> Result<Taken, Error> {
        self.check()?;
        let taken = self.inner.backend.take(selection, source, move_id)?;
        let frozen = u64::try_from(taken.frozen.as_micros()).unwrap_or(u64::MAX);
        self.inner.frozen_us.store(frozen, Ordering::Relaxed);
        Ok(taken)
    }

    /// Gives up a move to here that its source has not been asked to decide yet: it takes place
    /// nowhere, and whoever waits for it gets [`Error::Aborted`]. Returns whether that was so;
    /// otherwise there is no such move under way, or it is too late. Never waits.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    pub fn abort_take(&self, move_id: u64) -> Result<bool, Error> {
        self.check()?;
        self.inner.backend.abort_take(move_id)
    }

    /// The caller vouches that the process of the member `node`, which has gone, has ended and
    /// its memory with it: as when its whole host is lost, of which there is no other proof. Moves that
    /// waited for its word are decided without it, in favour of the copy that is here. Returns how
    /// many were. If the member lives after all, both sides own the items until they hear of
    /// each other; then the source's decision stands and the other side's writes are lost.
    ///
    /// # Errors
    /// [`Error::Request`] if the member is live, [`Error::NoAbsentee`] if none of that name has gone.
    pub fn declare_dead(&self, node: &str) -> Result<u64, Error> {
        self.check()?;
        self.inner.backend.declare_dead(node)
    }

    /// Writes here, while the members `with` write what they have announced under the same id, at
    /// one instant: a snapshot sees all of it or nothing. Every member taking part calls this.
    ///
    /// # Errors
    /// [`Error::NotJoined`] if not all have within `timeout`: then nothing is written anywhere.
    pub fn joint(
        &self,
        id: u64,
        with: &[&str],
        writes: Vec<Write>,
        timeout: Duration,
    ) -> Result<Stamp, Error> {
        self.check()?;
        self.inner.backend.joint(id, with, writes, timeout)
    }

    /// Changes of matching items on all members, from now on.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub fn watch(&self, pattern: Pattern) -> Result<Watch, Error> {
        self.check()?;
        self.inner.backend.watch(pattern)
    }

    /// Live members by name, this one included.
    ///
    /// # Errors
    /// [`Error::Backend`].
    pub fn members(&self) -> Result<Vec<String>, Error> {
        self.check()?;
        self.inner.backend.members()
    }

    /// Figures for people: what is kept, and what was asked of whom.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    pub fn statistics(&self) -> Result<Statistics, Error> {
        self.check()?;
        let mut figures = self.inner.backend.statistics();
        let frozen_us = self.inner.frozen_us.load(Ordering::Relaxed);
        figures.insert("last_take_frozen_us".to_owned(), frozen_us);
        if let Some(store) = self.store() {
            let memory = store.memory();
            for (name, value) in [
                ("items", memory.items as u64),
                ("bytes", memory.bytes as u64),
                ("evicted", memory.evicted),
                ("expired", memory.expired),
            ] {
                figures.insert(name.to_owned(), value);
            }
        }
        Ok(figures)
    }

    /// Has `hook` called, on a thread of the estate, whenever another member has read globally
    /// what is here.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where reads do not pass by here.
    pub fn on_global_read(&self, hook: ReadHook) -> Result<(), Error> {
        self.check()?;
        self.inner.backend.on_global_read(hook)
    }

    /// Leaves the cluster. Every call afterwards is an error; closing again, or in a forked
    /// child, does nothing.
    pub fn close(&self) {
        self.inner.close();
    }
}

impl Inner {
    fn close(&self) {
        if self.life.end() {
            self.backend.close();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
        if self.life.check() == Err(Error::Forked) {
            // Threads that are the parent's cannot be waited for here: the backend stays.
            std::mem::forget(self.backend.clone());
        }
    }
}
