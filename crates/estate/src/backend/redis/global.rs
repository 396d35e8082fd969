//! Global reads from a server: SCAN and MGET, reduced at the asker.

use super::RedisBackend;
use super::record;
use super::script::{MEMBERS, SNAPSHOT};
use super::server::script;
use crate::error::{Error, shown};
use crate::item::Item;
use crate::query::{Consistency, Query, View};
use crate::reduce::{Partial, Reducer};
use crate::version::Stamp;
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Reads that are remembered at most.
const REMEMBERED: usize = 1024;

/// Earlier answers, for `Cached`: a server tells nobody of changes, so what is kept is as old as the
/// read it came from.
#[derive(Default)]
pub(super) struct Cache {
    views: Mutex<HashMap<About, (Instant, View)>>,
}

/// Kind and text of a pattern, and what becomes of the items.
type About = (&'static str, String, Reducer);

impl Cache {
    pub fn or_ask(
        &self,
        query: &Query,
        ask: impl FnOnce() -> Result<View, Error>,
    ) -> Result<View, Error> {
        let Consistency::Cached { max_age } = query.consistency else {
            return ask();
        };
        let about = (
            query.pattern.kind(),
            query.pattern.as_str().to_owned(),
            query.reducer,
        );
        if let Some((asked, view)) = self.views.lock().get(&about) {
            let age = asked.elapsed();
            if age <= max_age {
                return Ok(View {
                    oldest: Some(age),
                    ..view.clone()
                });
            }
        }
        let asked = Instant::now();
        let view = ask()?;
        let mut views = self.views.lock();
        if views.len() >= REMEMBERED {
            views.clear();
        }
        views.insert(about, (asked, view.clone()));
        Ok(View {
            oldest: Some(asked.elapsed()),
            ..view
        })
    }
}

impl RedisBackend {
    /// Live members, by name.
    pub(super) fn live(&self) -> Result<Vec<String>, Error> {
        let mut members: Vec<String> = self
            .server
            .ask(&script(MEMBERS, &[self.layout.members()]))?;
        members.sort_unstable();
        Ok(members)
    }

    /// What the server has now.
    pub(super) fn read(&self, query: &Query) -> Result<View, Error> {
        let until = Instant::now() + query.timeout;
        let answered = self.live()?;
        let mut found = Found {
            nodes: answered
                .iter()
                .map(|name| Arc::from(name.as_str()))
                .collect(),
            partial: Partial::new(query.reducer),
            last: Stamp::ZERO,
        };
        match (query.pattern.as_exact(), query.consistency) {
            (Some(key), _) => self.read_one(key, &mut found)?,
            (None, Consistency::Snapshot) => self.read_at_once(query, &mut found)?,
            (None, _) => self.read_many(query, until, &mut found)?,
        }
        self.observe(found.last);
        let reduced = found.partial.finish()?;
        Ok(View {
            value: reduced.value,
            items: reduced.items,
            answered,
            missing: Vec::new(),
            complete: true,
            oldest: matches!(query.consistency, Consistency::Cached { .. })
                .then_some(Duration::ZERO),
        })
    }

    /// One key of all nodes: they lie in one shard, so one MGET sees them as of one instant.
    fn read_one(&self, key: &str, found: &mut Found) -> Result<(), Error> {
        let nodes: Vec<_> = found.nodes.iter().cloned().collect();
        if nodes.is_empty() {
            return Ok(());
        }
        let mut command = ::redis::cmd("MGET");
        for node in &nodes {
            command.arg(self.layout.item(node, key));
        }
        let records: Vec<Option<Vec<u8>>> = self.server.ask(&command)?;
        for (node, bytes) in nodes.into_iter().zip(records) {
            if let Some(bytes) = bytes {
                let item = record::parse(key, node, &bytes).ok_or_else(|| self.foreign(key))?;
                found.add(&item);
            }
        }
        Ok(())
    }

    /// Page by page. An item that is there all the while is seen once; one that a move carries
    /// from one node to another meanwhile may be seen at both, or at none.
    fn read_many(&self, query: &Query, until: Instant, found: &mut Found) -> Result<(), Error> {
        let glob = self.layout.scan(None, &query.pattern);
        let mut seen: HashSet<Vec<u8>> = HashSet::new();
        self.server.scan(&glob, |mut page| {
            if Instant::now() >= until {
                return Err(Error::ScanStopped {
                    pattern: shown(query.pattern.as_str()),
                    node: self.server.url().to_owned(),
                    seen: seen.len(),
                });
            }
            page.retain(|place| {
                found.wants(self, query, place).is_some() && seen.insert(place.clone())
            });
            let records = self.server.get_all(&page)?;
            for (place, bytes) in page.iter().zip(records) {
                if let (Some(bytes), Some((node, key))) = (bytes, found.wants(self, query, place)) {
                    let item = record::parse(key, node, &bytes).ok_or_else(|| self.foreign(key))?;
                    found.add(&item);
                }
            }
            Ok(())
        })
    }

    /// As of one instant: the server does nothing else meanwhile.
    fn read_at_once(&self, query: &Query, found: &mut Found) -> Result<(), Error> {
        if self.server.is_cluster() {
            return Err(Error::Unsupported {
                backend: self.server.url().to_owned(),
                what: "a snapshot of many keys",
                instead: "shards have no common instant; ask for one key, or use redis:// or p2p",
            });
        }
        let none: [&str; 0] = [];
        let mut command = script(SNAPSHOT, &none);
        command.arg(self.layout.scan(None, &query.pattern));
        let answer: Vec<Vec<u8>> = self.server.ask(&command)?;
        for pair in answer.chunks_exact(2) {
            if let Some((node, key)) = found.wants(self, query, &pair[0]) {
                let item = record::parse(key, node, &pair[1]).ok_or_else(|| self.foreign(key))?;
                found.add(&item);
            }
        }
        Ok(())
    }
}

struct Found {
    nodes: HashSet<Arc<str>>,
    partial: Partial,
    last: Stamp,
}

impl Found {
    fn add(&mut self, item: &Item) {
        self.last = self.last.max(item.stamp);
        self.partial.add(item.borrow(), &item.node);
    }

    /// Node and key of a place, if the query is about it.
    fn wants<'a>(
        &self,
        backend: &RedisBackend,
        query: &Query,
        place: &'a [u8],
    ) -> Option<(Arc<str>, &'a str)> {
        let (node, key) = backend.layout.parse(place)?;
        let node = self.nodes.get(node.as_str())?;
        query.pattern.matches(key).then(|| (node.clone(), key))
    }
}
