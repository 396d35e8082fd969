//! What the destination of a move gets, and puts into its store.

use super::super::engine::{Engine, Now};
use super::super::member::NodeId;
use super::super::message::{Link, Message, Move};
use super::table::{Event, State};
use crate::error::Error;
use crate::item::Item;
use crate::store::Store;

impl Engine {
    #[allow(clippy::too_many_arguments)] // the fields of the message
    pub(in super::super) fn cargo(
        &mut self,
        store: &Store,
        from: &NodeId,
        what: Move,
        index: u32,
        last: Option<u64>,
        links: &[Link],
        gone: &[String],
        items: &[Item],
    ) {
        let Some(arrival) = self.arrival(from, what) else {
            return self.say_abort(from, what, "it is not wanted any more");
        };
        if arrival.state == State::Dropped {
            return self.say_abort(from, what, "it was aborted here");
        }
        if arrival.state != State::Fetching {
            return;
        }
        if index == arrival.next {
            arrival.next += 1;
            if let Err(error) = self.unload(store, what.id, links, gone, items) {
                let why = format!("the destination cannot take its items: {error}");
                return self.arrival_step(store, what.id, Event::Trouble, &why);
            }
            if let Some(total) = last {
                let here = self.arrivals.moves.get(&what.id).map(|a| a.keys.len());
                if here == usize::try_from(total).ok() {
                    return self.arrival_step(store, what.id, Event::Complete, "");
                }
                let why = format!("{here:?} of {total} items have come");
                return self.arrival_step(store, what.id, Event::Trouble, &why);
            }
        }
        if let Some(arrival) = self.arrivals.moves.get(&what.id) {
            let next = arrival.next;
            self.send_one(from, &Message::Got { what, next });
        }
    }

    /// Puts a chunk into the store.
    fn unload(
        &mut self,
        store: &Store,
        id: u64,
        links: &[Link],
        gone: &[String],
        items: &[Item],
    ) -> Result<(), Error> {
        let Some(arrival) = self.arrivals.moves.get_mut(&id) else {
            return Ok(());
        };
        let hold = arrival.hold();
        let ids: Vec<u64> = links.iter().map(|link| link.move_id).collect();
        let chain = *arrival.chains.entry(ids).or_insert_with(|| {
            let now = self.now;
            let mut links: Vec<_> = links
                .iter()
                .map(|link| (link.move_id, link.source.clone(), now + link.left))
                .collect();
            links.push((id, arrival.source.clone(), Now::MAX));
            self.moved.open(links)
        });
        for key in gone {
            store.write_held(hold, key, None, store.clock().next())?;
            arrival.keys.remove(key);
        }
        for item in items {
            self.moved.tag(&item.key, chain);
            store.insert_moved(hold, item)?;
            if !arrival.keys.contains(&item.key) {
                arrival.keys.insert(item.key.clone());
            }
        }
        Ok(())
    }
}
