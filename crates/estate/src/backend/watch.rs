//! A watch: the changes of matching items, each item once however often it has changed since one
//! last looked. So a slow reader costs memory for the items that changed, not for the changes.

use crate::item::Item;
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An item was written, or has gone.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The node that holds or held it.
    pub node: Arc<str>,
    /// Its key.
    pub key: String,
    /// The item as it is now; none if it has gone.
    pub item: Option<Item>,
}

type Place = (Arc<str>, String);

#[derive(Default)]
struct Pending {
    order: VecDeque<Place>,
    items: HashMap<Place, Option<Item>>,
    ended: bool,
}

/// Where events wait until somebody looks. Shared by whoever reports and the [`Watch`].
#[derive(Default)]
pub struct Inbox {
    pending: Mutex<Pending>,
    news: Condvar,
}

impl Inbox {
    /// Reports an event; an earlier one of the same item is replaced.
    pub fn put(&self, event: Event) {
        let mut pending = self.pending.lock();
        let place = (event.node, event.key);
        if pending.items.insert(place.clone(), event.item).is_none() {
            pending.order.push_back(place);
        }
        drop(pending);
        self.news.notify_one();
    }

    /// No more will come.
    pub fn end(&self) {
        self.pending.lock().ended = true;
        self.news.notify_all();
    }

    /// Whether [`Inbox::end`] was called.
    pub fn ended(&self) -> bool {
        self.pending.lock().ended
    }

    fn next(&self, timeout: Option<Duration>) -> Option<Event> {
        let until = timeout.map(|timeout| Instant::now() + timeout);
        let mut pending = self.pending.lock();
        loop {
            if let Some(place) = pending.order.pop_front() {
                let item = pending.items.remove(&place).flatten();
                let (node, key) = place;
                return Some(Event { node, key, item });
            }
            if pending.ended {
                return None;
            }
            match until {
                None => self.news.wait(&mut pending),
                Some(until) => {
                    if self.news.wait_until(&mut pending, until).timed_out() {
                        return None;
                    }
                }
            }
        }
    }
}

/// Changes of matching items; ends when dropped.
pub struct Watch {
    inbox: Arc<Inbox>,
    stop: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Watch {
    /// `stop` is called once, when nobody watches any more.
    pub fn new(inbox: Arc<Inbox>, stop: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self {
            inbox,
            stop: Some(Box::new(stop)),
        }
    }

    /// The next event; none when the time is up, or the watch has ended ([`Watch::ended`]).
    /// Without a time-out it waits for as long as it takes.
    pub fn next(&self, timeout: Option<Duration>) -> Option<Event> {
        self.inbox.next(timeout)
    }

    /// Whether the estate was closed: what is not there yet will never come.
    pub fn ended(&self) -> bool {
        self.inbox.ended()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;
    use crate::version::Stamp;

    fn event(key: &str, value: i64) -> Event {
        Event {
            node: "a".into(),
            key: key.into(),
            item: Some(Item {
                key: key.into(),
                value: Value::Int(value),
                stamp: Stamp::from_ms(1),
                clock: None,
                node: "a".into(),
                expires: None,
            }),
        }
    }

    #[test]
    fn changes_of_one_item_coalesce_in_its_first_place() {
        let inbox = Arc::new(Inbox::default());
        let watch = Watch::new(inbox.clone(), || ());
        inbox.put(event("x", 1));
        inbox.put(event("y", 1));
        inbox.put(event("x", 2));
        let seen: Vec<_> = std::iter::from_fn(|| watch.next(Some(Duration::ZERO))).collect();
        assert_eq!(seen, [event("x", 2), event("y", 1)]);
    }

    #[test]
    fn the_end_wakes_who_waits() {
        let inbox = Arc::new(Inbox::default());
        let watch = Watch::new(inbox.clone(), || ());
        let waiting = std::thread::spawn(move || watch.next(None));
        inbox.end();
        assert_eq!(waiting.join().unwrap(), None);
    }
}
