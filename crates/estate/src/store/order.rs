//! Program order: a thread's writes to a store are stamped in the order in which it makes them,
//! and after everything that it has read there, whatever shards the keys are in.
//!
//! Each shard stamps on its own, so that threads do not meet; only the floor, which the time and
//! received stamps raise, is common. So each thread carries the greatest stamp that it has seen. A
//! counter common to all would order the writes of different threads, too, at the price of their
//! meeting at every write: threads that agree by other means than the store are ordered by the
//! floor only, which rises with each tick of the clock.

use crate::version::Stamp;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    // The store that this thread was last at, and the greatest stamp it has seen there.
    static HERE: Cell<(u64, Stamp)> = const { Cell::new((0, Stamp::ZERO)) };
    // The same of other stores.
    static ELSEWHERE: RefCell<HashMap<u64, Stamp>> = RefCell::default();
}

static LAST: AtomicU64 = AtomicU64::new(0);

/// Tells stores apart.
#[derive(Debug)]
pub(super) struct Order(u64);

impl Order {
    pub fn new() -> Self {
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// This thread has seen, or given, what `stamp` makes of the greatest stamp that it has seen. The
    /// memory of a thread is looked up once: in a shared library that costs a call.
    #[inline]
    pub fn sees(&self, stamp: impl FnOnce(Stamp) -> Stamp) -> Stamp {
        HERE.with(|here| {
            let (store, seen) = here.get();
            let seen = if store == self.0 { seen } else { self.come() };
            let stamp = stamp(seen);
            here.set((self.0, stamp));
            stamp
        })
    }

    /// This thread has seen, or given, `stamp`.
    #[inline]
    pub fn saw(&self, stamp: Stamp) {
        self.sees(|seen| seen.max(stamp));
    }

    /// Comes here from another store.
    #[cold]
    fn come(&self) -> Stamp {
        let (store, stamp) = HERE.get();
        // A thread that is ending has no memory of other stores left.
        let seen = ELSEWHERE.try_with(|elsewhere| {
            let mut elsewhere = elsewhere.borrow_mut();
            if store != 0 {
                elsewhere.insert(store, stamp);
            }
            elsewhere.remove(&self.0).unwrap_or_default()
        });
        let seen = seen.unwrap_or_default();
        HERE.set((self.0, seen));
        seen
    }
}
