//! Cuts: the items as of one instant, for `Snapshot`.
//!
//! While a cut is open, the first write after its instant to an item keeps the item's old self in
//! the cut. A cut costs nothing when it is opened, one flag test per write when none is open, and
//! one kept item per item written while it is.
//!
//! Why a cut is consistent. It is opened shard by shard, and refused if a shard has already given
//! a stamp after its instant; only then is the floor raised, so that whoever sees the raised floor
//! stamps after the instant. A write that comes after another one, on the same thread or through a
//! lock, sees a floor at least as high; so no write is in the cut that follows one which is not.

use super::record::Record;
use super::shard::{Shard, attention};
use super::{Store, Until};
use crate::error::Error;
use crate::item::ItemRef;
use crate::pattern::Pattern;
use crate::value::Value;
use crate::version::{Stamp, VectorClock};
use std::collections::HashMap;
use std::sync::Arc;

/// A cut, as a shard keeps it.
pub(super) struct Cut {
    id: u64,
    at: Stamp,
    pattern: Arc<Pattern>,
    // What was written or removed since, as it was; none: it was not there.
    kept: HashMap<Box<str>, Option<Kept>>,
}

struct Kept {
    value: Value,
    stamp: Stamp,
    clock: Option<VectorClock>,
    expires: Option<u64>,
}

impl Cut {
    fn visible(&self, expires: Option<u64>) -> bool {
        expires.is_none_or(|ms| ms > self.at.ms())
    }

    fn keeps(&self, key: &str, event: Stamp) -> bool {
        event > self.at && self.pattern.matches(key) && !self.kept.contains_key(key)
    }
}

impl Shard {
    /// Keeps an item for the open cuts, before it is written or removed at `event`.
    pub fn preserve(&mut self, record: &Record, event: Stamp) {
        if self.attention & attention::CUT == 0 {
            return;
        }
        let clock = self.context(record).cloned();
        for cut in &mut self.cuts {
            if record.stamp() <= cut.at && cut.keeps(record.key(), event) {
                let kept = Kept {
                    value: record.to_value(),
                    stamp: record.stamp(),
                    clock: clock.clone(),
                    expires: record.expires(),
                };
                cut.kept.insert(record.key().into(), Some(kept));
            }
        }
    }

    /// Keeps in mind that an item was not there, before one moves in at `event` with a stamp that
    /// is older.
    pub fn preserve_absence(&mut self, key: &str, event: Stamp) {
        for cut in &mut self.cuts {
            if cut.keeps(key, event) {
                cut.kept.insert(key.into(), None);
            }
        }
    }

    fn scan_cut(&self, id: u64, f: &mut impl FnMut(ItemRef<'_>)) -> Option<usize> {
        let cut = self.cuts.iter().find(|cut| cut.id == id)?;
        let mut seen = 0;
        for (key, kept) in &cut.kept {
            let Some(kept) = kept else { continue };
            if cut.visible(kept.expires) {
                seen += 1;
                f(ItemRef {
                    key,
                    value: kept.value.borrow(),
                    stamp: kept.stamp,
                    clock: kept.clock.as_ref(),
                    expires: kept.expires,
                });
            }
        }
        for record in &self.table {
            if record.stamp() <= cut.at
                && cut.pattern.matches(record.key())
                && cut.visible(record.expires())
                && !cut.kept.contains_key(record.key())
            {
                seen += 1;
                f(self.view(record));
            }
        }
        Some(seen)
    }

    fn end_cut(&mut self, id: u64) -> Option<Cut> {
        let at = self.cuts.iter().position(|cut| cut.id == id)?;
        let cut = self.cuts.swap_remove(at);
        if self.cuts.is_empty() {
            self.attention &= !attention::CUT;
        }
        Some(cut)
    }
}

impl Store {
    /// Opens cut `id`: from now on writes are stamped after `at`, and what matches `pattern` can be
    /// read as of `at` until [`Store::end_cut`]. Opening an open cut again changes nothing.
    ///
    /// # Errors
    /// [`Error::CutPassed`] if this store has already given a stamp after `at`; choose one a little
    /// later than [`Store::clock`].
    pub fn begin_cut(&self, id: u64, at: Stamp, pattern: &Pattern) -> Result<(), Error> {
        let pattern = Arc::new(pattern.clone());
        for shard in &self.shards {
            let mut shard = shard.lock();
            if shard.cuts.iter().any(|cut| cut.id == id) {
                continue;
            }
            if shard.last > at {
                drop(shard);
                self.end_cut(id);
                return Err(Error::CutPassed {
                    node: self.shared.node.to_string(),
                    at,
                    clock: self.clock(),
                });
            }
            shard.attention |= attention::CUT;
            shard.cuts.push(Cut {
                id,
                at,
                pattern: Arc::clone(&pattern),
                kept: HashMap::new(),
            });
        }
        self.shared.raise_floor(at);
        Ok(())
    }

    /// Shows the items of cut `id` to `f`, which must not call the store; returns how many.
    ///
    /// # Errors
    /// [`Error::NoCut`] if it is not open, [`Error::ScanStopped`] if `until` said so.
    pub fn scan_cut(
        &self,
        id: u64,
        until: Option<Until<'_>>,
        mut f: impl FnMut(ItemRef<'_>),
    ) -> Result<usize, Error> {
        let mut seen = 0;
        for shard in &self.shards {
            if until.is_some_and(|until| until()) {
                return Err(self.stopped(&format!("cut {id}"), seen));
            }
            seen += shard.lock().scan_cut(id, &mut f).ok_or(Error::NoCut {
                node: self.shared.node.to_string(),
                id,
            })?;
        }
        Ok(seen)
    }

    /// Forgets cut `id`; returns whether it was open.
    pub fn end_cut(&self, id: u64) -> bool {
        let mut open = false;
        for shard in &self.shards {
            // What it kept is dropped without the lock.
            let cut = shard.lock().end_cut(id);
            open |= cut.is_some();
        }
        open
    }
}
