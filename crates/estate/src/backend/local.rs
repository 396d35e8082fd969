//! `local`: no sharing. A cluster of one, for functions that may later be several, and for
//! comparison (the papers' *baseline*).

use super::{Backend, Event, Inbox, Options, ReadHook, Statistics, Taken, Watch};
use crate::error::Error;
use crate::pattern::Pattern;
use crate::protocol::Write;
use crate::query::{Query, View};
use crate::reduce::Partial;
use crate::store::{Interest, Selection, Store, StoreOptions};
use crate::version::Stamp;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often the store is told the time, and reports changes.
const TICK: Duration = Duration::from_millis(5);
/// Items with a time to live that are looked at per tick.
const SWEEP: usize = 256;

type Watchers = Mutex<Vec<(Interest, Pattern, Arc<Inbox>)>>;

pub(super) struct Local {
    shared: Arc<Shared>,
    ticker: Mutex<Option<JoinHandle<()>>>,
    next_watch: AtomicU64,
}

struct Shared {
    store: Arc<Store>,
    watchers: Watchers,
    stopped: Mutex<bool>,
    stop: Condvar,
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

impl Local {
    pub fn open(options: &Options) -> Result<Self, Error> {
        let store = Store::new(StoreOptions {
            node: options.node.as_str().into(),
            memory_limit: options.memory_limit,
        });
        store.tick(now_ms());
        let shared = Arc::new(Shared {
            store: Arc::new(store),
            watchers: Mutex::default(),
            stopped: Mutex::new(false),
            stop: Condvar::new(),
        });
        let ticking = shared.clone();
        let ticker = std::thread::Builder::new()
            .name("estate".into())
            .spawn(move || ticking.run())
            .map_err(|error| Error::Backend {
                url: "local".to_owned(),
                what: format!("no thread can be started: {error}"),
                remedy: "raise the limit on threads",
            })?;
        Ok(Self {
            shared,
            ticker: Mutex::new(Some(ticker)),
            next_watch: AtomicU64::new(1),
        })
    }

    pub fn store(&self) -> &Arc<Store> {
        &self.shared.store
    }
}

impl Shared {
    fn run(&self) {
        let mut stopped = self.stopped.lock();
        while !*stopped {
            self.stop.wait_for(&mut stopped, TICK);
            self.store.tick(now_ms());
            self.store.sweep(SWEEP);
            self.report();
        }
    }

    fn report(&self) {
        let watchers = self.watchers.lock();
        if watchers.is_empty() {
            return;
        }
        for change in self.store.changes() {
            for (_, pattern, inbox) in watchers.iter() {
                if pattern.matches(&change.key) {
                    inbox.put(Event {
                        node: self.store.node().clone(),
                        key: change.key.clone(),
                        item: change.item.clone(),
                    });
                }
            }
        }
    }
}

impl Backend for Local {
    fn query(&self, query: &Query) -> Result<View, Error> {
        let store = &self.shared.store;
        let until = Instant::now() + query.timeout;
        let mut partial = Partial::new(query.reducer);
        store.scan(&query.pattern, Some(&|| Instant::now() >= until), |item| {
            partial.add(item, store.node())
        })?;
        let reduced = partial.finish()?;
        Ok(View {
            value: reduced.value,
            items: reduced.items,
            answered: vec![store.node().to_string()],
            missing: Vec::new(),
            complete: true,
            oldest: None,
        })
    }

    fn take(&self, _: &Selection, source: &str, _: u64) -> Result<Taken, Error> {
        if source == &**self.shared.store.node() {
            return Ok(Taken::default());
        }
        Err(Error::NoMember {
            node: source.to_owned(),
            members: self.shared.store.node().to_string(),
        })
    }

    /// Nobody moves anything here.
    fn abort_take(&self, _: u64) -> Result<bool, Error> {
        Ok(false)
    }

    fn declare_dead(&self, node: &str) -> Result<u64, Error> {
        Err(Error::NoMember {
            node: node.to_owned(),
            members: self.shared.store.node().to_string(),
        })
    }

    fn joint(&self, _: u64, _: &[&str], _: Vec<Write>, _: Duration) -> Result<Stamp, Error> {
        Err(Error::Unsupported {
            backend: "local".to_owned(),
            what: "a joint write",
            instead: "there is nobody else; use p2p",
        })
    }

    fn watch(&self, pattern: Pattern) -> Result<Watch, Error> {
        let interest = Interest(self.next_watch.fetch_add(1, Ordering::Relaxed));
        let inbox = Arc::new(Inbox::default());
        let shared = self.shared.clone();
        shared
            .watchers
            .lock()
            .push((interest, pattern.clone(), inbox.clone()));
        shared.store.declare(interest, pattern);
        Ok(Watch::new(inbox, move || {
            shared.store.withdraw(interest);
            shared.watchers.lock().retain(|(id, ..)| *id != interest);
        }))
    }

    fn members(&self) -> Result<Vec<String>, Error> {
        Ok(vec![self.shared.store.node().to_string()])
    }

    fn statistics(&self) -> Statistics {
        Statistics::from([("members".to_owned(), 1)])
    }

    /// There is nobody else, so it is never called.
    fn on_global_read(&self, _: ReadHook) -> Result<(), Error> {
        Ok(())
    }

    fn close(&self) {
        *self.shared.stopped.lock() = true;
        self.shared.stop.notify_all();
        if let Some(ticker) = self.ticker.lock().take() {
            let _ = ticker.join();
        }
        for (_, _, inbox) in self.shared.watchers.lock().drain(..) {
            inbox.end();
        }
    }
}
