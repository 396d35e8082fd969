//! Scans: all items that match a pattern. The items of one shard are seen at one instant; those of
//! different shards are not (a cut does that).

use super::shard::Shard;
use super::{Store, Until};
use crate::error::{Error, shown};
use crate::item::ItemRef;
use crate::pattern::Pattern;

/// Records looked at together: their cache misses overlap.
const AHEAD: usize = 16;

impl Shard {
    fn scan(&self, pattern: &Pattern, now_ms: u64, f: &mut impl FnMut(ItemRef<'_>)) -> usize {
        let mut seen = 0;
        let mut records = self.table.iter();
        loop {
            let mut batch = [const { None }; AHEAD];
            let mut count = 0;
            for (slot, record) in batch.iter_mut().zip(records.by_ref()) {
                record.expect();
                *slot = Some(record);
                count += 1;
            }
            for record in batch[..count].iter().flatten() {
                if pattern.matches(record.key()) && !record.expired(now_ms) {
                    seen += 1;
                    f(self.view(record));
                }
            }
            if count < AHEAD {
                return seen;
            }
        }
    }
}

impl Store {
    /// Keys that match, in no order.
    ///
    /// # Errors
    /// [`Error::ScanStopped`] if `until` said so.
    pub fn keys(&self, pattern: &Pattern, until: Option<Until<'_>>) -> Result<Vec<String>, Error> {
        let mut keys = Vec::new();
        self.scan(pattern, until, |item| keys.push(item.key.to_owned()))?;
        Ok(keys)
    }

    /// Shows the items that match to `f`, which must not call the store; returns how many.
    ///
    /// # Errors
    /// [`Error::ScanStopped`] if `until` said so; it is asked once per shard.
    pub fn scan(
        &self,
        pattern: &Pattern,
        until: Option<Until<'_>>,
        mut f: impl FnMut(ItemRef<'_>),
    ) -> Result<usize, Error> {
        if let Some(key) = pattern.as_exact() {
            return Ok(self.with(key, f).map_or(0, |()| 1));
        }
        let now_ms = self.now_ms();
        let mut seen = 0;
        for shard in &self.shards {
            if until.is_some_and(|until| until()) {
                return Err(self.stopped(pattern.as_str(), seen));
            }
            let shard = shard.lock();
            self.shared.order.saw(shard.last);
            seen += shard.scan(pattern, now_ms, &mut f);
        }
        Ok(seen)
    }

    pub(super) fn stopped(&self, pattern: &str, seen: usize) -> Error {
        Error::ScanStopped {
            pattern: shown(pattern),
            node: self.shared.node.to_string(),
            seen,
        }
    }
}
