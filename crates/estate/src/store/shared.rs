//! What all shards share: the time, the memory budget, who wants to know of changes.

use super::Interest;
use super::order::Order;
use crate::pattern::Pattern;
use crate::version::Stamp;
use foldhash::quality::RandomState;
use parking_lot::{Mutex, RwLock};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

type Wake = Arc<dyn Fn() + Send + Sync>;

/// See above. Every field is read often and written seldom, or only where a limit is set.
pub(super) struct Shared {
    pub node: Arc<str>,
    pub limit: Option<usize>,
    pub order: Order,
    hasher: RandomState,
    // Every later write is stamped after it. The time and received stamps raise it.
    floor: AtomicU64,
    now_ms: AtomicU64,
    // Bytes reserved; kept only where there is a limit.
    used: AtomicUsize,
    // Items with a time to live; the only ones that may be evicted.
    pub mortals: AtomicUsize,
    pub interests: RwLock<Vec<(Interest, Pattern)>>,
    // Shards whose set of changed keys is not empty.
    stirred: Mutex<Vec<usize>>,
    // Whether the listener has been woken since the last look.
    awake: AtomicBool,
    wake: RwLock<Option<Wake>>,
}

impl Shared {
    pub fn new(node: Arc<str>, limit: Option<usize>) -> Self {
        Self {
            node,
            limit,
            order: Order::new(),
            hasher: RandomState::default(),
            floor: AtomicU64::new(0),
            now_ms: AtomicU64::new(0),
            used: AtomicUsize::new(0),
            mortals: AtomicUsize::new(0),
            interests: RwLock::default(),
            stirred: Mutex::default(),
            awake: AtomicBool::new(false),
            wake: RwLock::default(),
        }
    }

    #[inline]
    pub fn hash(&self, text: &str) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text.as_bytes());
        hasher.finish()
    }

    #[inline]
    pub fn floor(&self) -> Stamp {
        Stamp::from_bits(self.floor.load(Ordering::Acquire))
    }

    pub fn raise_floor(&self, stamp: Stamp) {
        self.floor.fetch_max(stamp.to_bits(), Ordering::AcqRel);
    }

    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    pub fn tick(&self, now_ms: u64) {
        self.now_ms.fetch_max(now_ms, Ordering::Relaxed);
        self.raise_floor(Stamp::from_ms(now_ms));
    }

    /// Takes `bytes` of the budget, if they are left.
    pub fn reserve(&self, bytes: usize) -> bool {
        let Some(limit) = self.limit else { return true };
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|&sum| sum <= limit)
            })
            .is_ok()
    }

    /// Gives `bytes` back.
    pub fn release(&self, bytes: usize) {
        if self.limit.is_some() {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    pub fn wants(&self, key: &str) -> bool {
        let interests = self.interests.read();
        interests.iter().any(|(_, pattern)| pattern.matches(key))
    }

    /// The set of changed keys of shard `index` is no longer empty.
    pub fn stir(&self, index: usize) {
        self.stirred.lock().push(index);
    }

    /// The shards that were stirred since the last call.
    pub fn take_stirred(&self) -> Vec<usize> {
        self.awake.store(false, Ordering::SeqCst);
        std::mem::take(&mut *self.stirred.lock())
    }

    pub fn set_wake(&self, wake: Wake) {
        *self.wake.write() = Some(wake);
    }

    /// Wakes the listener, unless that was done since it last looked. Without any shard's lock.
    pub fn wake(&self) {
        if self.awake.swap(true, Ordering::SeqCst) {
            return;
        }
        let wake = self.wake.read().clone();
        if let Some(wake) = wake {
            wake();
        }
    }
}
