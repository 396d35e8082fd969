//! The seam between an estate and what keeps its items and reaches the others.

#[cfg(doc)]
use super::Estate;
use super::watch::Watch;
use crate::error::Error;
use crate::item::Item;
use crate::pattern::Pattern;
use crate::protocol::Write;
use crate::query::{Query, View};
use crate::store::{Selection, SetOptions};
use crate::value::ValueRef;
use crate::version::Stamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// Figures of an estate, by name.
pub type Statistics = BTreeMap<String, u64>;

/// Called when somebody else has read state of this instance.
pub type ReadHook = Box<dyn Fn(&GlobalRead) + Send + Sync>;

/// A global read that reached this instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobalRead {
    /// The member that asked.
    pub by: String,
    /// What it asked for: a key, or a pattern.
    pub pattern: String,
}

/// What a move has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Items that are here now.
    pub items: u64,
    /// How long they could not be written.
    pub frozen: Duration,
}

/// What an estate needs of the others. Everything here may wait for a network.
pub trait Backend: Send + Sync {
    /// A global read; the view says who answered, whatever the query requires.
    fn query(&self, query: &Query) -> Result<View, Error>;
    /// Moves items here from `source`, exactly once however often it is repeated.
    fn take(&self, selection: &Selection, source: &str, move_id: u64) -> Result<Taken, Error>;
    /// See [`Estate::abort_take`].
    fn abort_take(&self, move_id: u64) -> Result<bool, Error>;
    /// See [`Estate::declare_dead`].
    fn declare_dead(&self, node: &str) -> Result<u64, Error>;
    /// Writes here, and at the members `with` what they write jointly under the same id.
    fn joint(
        &self,
        id: u64,
        with: &[&str],
        writes: Vec<Write>,
        timeout: Duration,
    ) -> Result<Stamp, Error>;
    /// Changes of matching items from now on.
    fn watch(&self, pattern: Pattern) -> Result<Watch, Error>;
    /// Live members by name, this one included.
    fn members(&self) -> Result<Vec<String>, Error>;
    /// Figures for people.
    fn statistics(&self) -> Statistics;
    /// Has `hook` called whenever another member reads globally what is here.
    fn on_global_read(&self, hook: ReadHook) -> Result<(), Error>;
    /// Leaves. Called once.
    fn close(&self);
}

/// This instance's own items where they are not in its memory.
pub trait Items: Send + Sync {
    /// See [`Estate::set_with`].
    fn set(&self, key: &str, value: ValueRef<'_>, options: SetOptions<'_>) -> Result<Stamp, Error>;
    /// See [`Estate::get_item`].
    fn get(&self, key: &str) -> Result<Option<Item>, Error>;
    /// See [`Estate::delete`].
    fn delete(&self, key: &str) -> Result<bool, Error>;
    /// See [`Estate::add`].
    fn add(&self, key: &str, delta: i64) -> Result<i64, Error>;
    /// See [`Estate::keys`].
    fn keys(&self, pattern: &Pattern) -> Result<Vec<String>, Error>;
}
