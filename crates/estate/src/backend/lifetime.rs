//! Whether a handle may still be used: it was not closed, and this is the process that opened it.
//!
//! After a fork the child has the memory but none of the threads: a lock may be held by a thread
//! that is not there, and sockets are shared with the parent. So every call in the child is an
//! error, found by one comparison, and closing there does nothing.

use crate::error::Error;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// How often this process, or an ancestor of it, was forked; never [`CLOSED`].
static FORKS: AtomicU32 = AtomicU32::new(0);
static WATCH: Once = Once::new();
const CLOSED: u32 = u32::MAX;

extern "C" fn forked() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// The life of one handle.
pub(super) struct Lifetime {
    /// Forks when it was opened, or [`CLOSED`].
    opened: AtomicU32,
}

impl Lifetime {
    pub fn begin() -> Self {
        WATCH.call_once(|| {
            // SAFETY: the handler does one atomic addition, which is allowed in a forked child.
            unsafe { libc::pthread_atfork(None, None, Some(forked)) };
        });
        Self {
            opened: AtomicU32::new(FORKS.load(Ordering::Relaxed)),
        }
    }

    /// Whether calls may go ahead.
    ///
    /// # Errors
    /// [`Error::Forked`], [`Error::Closed`].
    #[inline]
    pub fn check(&self) -> Result<(), Error> {
        if self.opened.load(Ordering::Relaxed) == FORKS.load(Ordering::Relaxed) {
            Ok(())
        } else {
            Err(self.over())
        }
    }

    #[cold]
    fn over(&self) -> Error {
        if self.opened.load(Ordering::Relaxed) == CLOSED {
            Error::Closed
        } else {
            Error::Forked
        }
    }

    /// Whether this call ends it, here and now: not in a child, not twice.
    pub fn end(&self) -> bool {
        let here = FORKS.load(Ordering::Relaxed);
        self.opened
            .compare_exchange(here, CLOSED, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A fork is one of the whole process: no handle of another test may be open meanwhile.
    static ALONE: Mutex<()> = Mutex::new(());

    #[test]
    fn it_ends_once() {
        let _alone = ALONE.lock();
        let life = Lifetime::begin();
        assert_eq!(life.check(), Ok(()));
        assert!(life.end());
        assert!(!life.end());
        assert_eq!(life.check(), Err(Error::Closed));
    }

    #[test]
    fn a_child_may_not_use_it() {
        let _alone = ALONE.lock();
        let life = Lifetime::begin();
        forked();
        assert_eq!(life.check(), Err(Error::Forked));
        assert!(!life.end(), "a child must not close what its parent uses");
    }
}
