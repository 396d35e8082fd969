//! `redis://` and `redis+cluster://`: items at a server that all members reach.
//!
//! Every operation is a request to the server, so its time is the network's. A node's items stay
//! when the node goes, and are there when it comes back under its name; global reads are about the
//! nodes that are members now. Stamps are the writer's hybrid logical clock, as with `p2p`.

mod global;
mod layout;
mod lease;
mod record;
mod script;
mod server;
mod take;
mod watch;

use super::local::now_ms;
use super::{Backend, Items, Options, ReadHook, Statistics, Taken, Watch};
use crate::error::Error;
use crate::item::Item;
use crate::pattern::Pattern;
use crate::protocol::Write;
use crate::query::{Query, View};
use crate::store::{Selection, SetOptions};
use crate::value::ValueRef;
use crate::version::{Hlc, Stamp};
use layout::Layout;
use lease::Lease;
use parking_lot::Mutex;
use server::Server;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The longest value a Redis takes (`proto-max-bulk-len`), less what goes with it.
const VALUE_MAX: usize = (512 << 20) - (64 << 10);

/// An instance whose items are at a server.
pub(super) struct RedisBackend {
    server: Arc<Server>,
    layout: Layout,
    node: Arc<str>,
    clock: Mutex<Hlc>,
    lease: Lease,
    cache: global::Cache,
    watches: watch::Watches,
    requests: AtomicU64,
}

impl RedisBackend {
    pub fn open(options: &Options) -> Result<Arc<Self>, Error> {
        let server = Arc::new(Server::connect(&options.backend, options.timeout)?);
        let layout = Layout::new(&options.cluster);
        let lease = Lease::take(server.clone(), &layout, options)?;
        Ok(Arc::new(Self {
            server,
            layout,
            node: options.node.as_str().into(),
            clock: Mutex::default(),
            lease,
            cache: global::Cache::default(),
            watches: watch::Watches::default(),
            requests: AtomicU64::new(0),
        }))
    }

    /// Before every request: is the name still ours?
    fn begin(&self) -> Result<(), Error> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.lease.check()
    }

    fn stamp(&self) -> Stamp {
        self.clock.lock().tick(now_ms())
    }

    fn observe(&self, stamp: Stamp) {
        self.clock.lock().receive(stamp, now_ms());
    }

    fn place(&self, key: &str) -> String {
        self.layout.item(&self.node, key)
    }

    /// An error for what lies at a place and is none of ours.
    fn foreign(&self, key: &str) -> Error {
        Error::Backend {
            url: self.server.url().to_owned(),
            what: format!("the record of key {key:?} is no item of ours"),
            remedy: "use a database of its own for each program",
        }
    }
}

impl Items for RedisBackend {
    fn set(&self, key: &str, value: ValueRef<'_>, options: SetOptions<'_>) -> Result<Stamp, Error> {
        self.begin()?;
        if value.len() > VALUE_MAX {
            return Err(Error::ValueTooBig {
                key: key.to_owned(),
                bytes: value.len(),
                most: VALUE_MAX,
            });
        }
        let stamp = self.stamp();
        let ttl = options.ttl.map(|ttl| ttl.max(Duration::from_millis(1)));
        let expires = ttl.map(|ttl| now_ms() + ttl.as_millis() as u64);
        let mut command = ::redis::cmd("SET");
        command.arg(self.place(key));
        command.arg(record::emit(value, stamp, expires, options.after));
        if let Some(ttl) = ttl {
            command.arg("PX").arg(ttl.as_millis() as u64);
        }
        self.server.ask::<()>(&command)?;
        Ok(stamp)
    }

    fn get(&self, key: &str) -> Result<Option<Item>, Error> {
        self.begin()?;
        let found: Option<Vec<u8>> = self.server.ask(&server::get(self.place(key)))?;
        found
            .map(|bytes| {
                record::parse(key, self.node.clone(), &bytes).ok_or_else(|| self.foreign(key))
            })
            .transpose()
    }

    fn delete(&self, key: &str) -> Result<bool, Error> {
        self.begin()?;
        let gone: u64 = self.server.ask(::redis::cmd("DEL").arg(self.place(key)))?;
        Ok(gone > 0)
    }

    fn add(&self, key: &str, delta: i64) -> Result<i64, Error> {
        self.begin()?;
        let mut command = server::script(script::ADD, &[self.place(key)]);
        command
            .arg(delta)
            .arg(&self.stamp().to_bits().to_be_bytes());
        let answer: ::redis::RedisResult<String> = self.server.try_ask(&command);
        match answer {
            Ok(text) => text.parse().map_err(|_| self.foreign(key)),
            Err(error) => Err(self.add_refused(key, delta, &error)),
        }
    }

    fn keys(&self, pattern: &Pattern) -> Result<Vec<String>, Error> {
        self.begin()?;
        let mut keys = HashSet::new();
        if let Some(key) = pattern.as_exact() {
            let there: bool = self
                .server
                .ask(::redis::cmd("EXISTS").arg(self.place(key)))?;
            return Ok(there.then(|| key.to_owned()).into_iter().collect());
        }
        let glob = self.layout.scan(Some(&self.node), pattern);
        self.server.scan(&glob, |page| {
            for place in page {
                if let Some((node, key)) = self.layout.parse(&place)
                    && node == *self.node
                    && pattern.matches(key)
                {
                    keys.insert(key.to_owned());
                }
            }
            Ok(())
        })?;
        Ok(keys.into_iter().collect())
    }
}

impl RedisBackend {
    fn add_refused(&self, key: &str, delta: i64, error: &::redis::RedisError) -> Error {
        let detail = error.detail().unwrap_or_default();
        match error.code() {
            Some("TYPE") => Error::Type {
                key: key.to_owned(),
                node: self.node.to_string(),
                found: record::type_name(detail.bytes().next().unwrap_or(0)),
                wanted: "int",
                remedy: "set it to an int first, or count under another key",
            },
            Some("OVERFLOW") => Error::Overflow {
                key: key.to_owned(),
                node: self.node.to_string(),
                value: detail.parse().unwrap_or(0),
                delta,
            },
            _ => self.server.failed(error),
        }
    }
}

impl Backend for RedisBackend {
    fn query(&self, query: &Query) -> Result<View, Error> {
        self.begin()?;
        self.cache.or_ask(query, || self.read(query))
    }

    fn take(&self, selection: &Selection, source: &str, move_id: u64) -> Result<Taken, Error> {
        self.begin()?;
        self.take_from(selection, source, move_id)
    }

    /// Places change hands at once: there is no moment between.
    fn abort_take(&self, _: u64) -> Result<bool, Error> {
        Ok(false)
    }

    fn declare_dead(&self, _: &str) -> Result<u64, Error> {
        Err(Error::Unsupported {
            backend: self.server.url().to_owned(),
            what: "declaring a member dead",
            instead: "nothing waits for one, its items are at the server; take them from it",
        })
    }

    fn joint(&self, _: u64, _: &[&str], _: Vec<Write>, _: Duration) -> Result<Stamp, Error> {
        Err(Error::Unsupported {
            backend: self.server.url().to_owned(),
            what: "a joint write",
            instead: "a server knows no writes of several members; use p2p",
        })
    }

    fn watch(&self, pattern: Pattern) -> Result<Watch, Error> {
        self.begin()?;
        self.watches.begin(&self.server, &self.layout, pattern)
    }

    fn members(&self) -> Result<Vec<String>, Error> {
        self.begin()?;
        self.live()
    }

    fn statistics(&self) -> Statistics {
        Statistics::from([("requests".to_owned(), self.requests.load(Ordering::Relaxed))])
    }

    fn on_global_read(&self, _: ReadHook) -> Result<(), Error> {
        Err(Error::Unsupported {
            backend: self.server.url().to_owned(),
            what: "telling an instance that its state was read",
            instead: "reads go to the server, not to the instance; use p2p",
        })
    }

    fn close(&self) {
        self.watches.end();
        self.lease.give_up();
    }
}
