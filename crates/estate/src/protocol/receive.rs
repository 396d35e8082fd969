//! Each message goes to whom it is for.

use super::engine::Engine;
use super::member::NodeId;
use super::message::Message;
use crate::store::Store;

impl Engine {
    pub(super) fn receive(&mut self, store: &Store, from: &NodeId, bytes: &[u8]) {
        // The sender is broken or of another version; asking again will not mend it, and whoever
        // waits for the answer has a time-out.
        let Ok(message) = Message::parse(bytes, from) else {
            return;
        };
        match message {
            Message::Ask {
                call,
                at,
                left,
                reducer,
                pattern,
            } => self.asked(store, from, call, at, left, reducer, &pattern),
            Message::Answer {
                call,
                at,
                contribution,
            } => {
                store.observe(contribution.clock);
                self.answered(store, from, call, at, *contribution);
            }
            Message::Refuse { call, at, refusal } => self.refused(store, from, call, at, refusal),
            Message::Begin {
                what,
                pre_copy,
                selection,
            } => self.begin(store, from, what, pre_copy, selection),
            Message::Cargo {
                what,
                index,
                last,
                chain,
                gone,
                items,
            } => self.cargo(store, from, what, index, last, &chain, &gone, &items),
            Message::Got { what, next } => self.got(store, from, what, next),
            Message::Ready { what, clock } => self.ready(store, from, what, clock),
            Message::Commit { what, at, frozen } => self.committed(store, from, what, at, frozen),
            Message::Owned { what } => self.owned(store, from, what),
            Message::Closed { what } => self.closed(store, from, what),
            Message::Abort { what, why } => {
                // It comes from the source or from the destination; only one of both knows it.
                self.source_aborted(store, from, what, &why);
                self.destination_aborted(store, from, what, &why);
            }
            Message::Part {
                serial,
                index,
                count,
                bytes,
            } => self.part(store, from, serial, index, count, &bytes),
            Message::Want { serial, next } => self.wanted(from, serial, next),
            Message::Subscribe {
                interest,
                sent,
                have,
                max_age,
                lease,
                reducer,
                pattern,
            } => self.subscribed(
                store, from, interest, sent, have, max_age, lease, reducer, pattern,
            ),
            Message::Push {
                interest,
                serial,
                echo,
                held,
                contribution,
            } => {
                let as_of = echo.saturating_add(held);
                if let Some(said) = &contribution {
                    store.observe(said.clock);
                }
                self.pushed(
                    from,
                    interest,
                    serial,
                    as_of,
                    contribution.map(|said| *said),
                );
            }
            Message::Watch {
                watch,
                seen,
                lease,
                present,
                pattern,
            } => self.watched(store, from, watch, seen, lease, present, pattern),
            Message::Watching { watch } => self.watching(from, watch),
            Message::Changed {
                watch,
                serial,
                items,
                gone,
            } => {
                // Whoever sees the change writes after it.
                if let Some(last) = items.iter().map(|item| item.stamp).max() {
                    store.observe(last);
                }
                self.reported(from, watch, serial, items, gone);
            }
            Message::Forget { number } => {
                self.forget_interest(store, from, number);
                self.forget_watch(store, from, number);
            }
            Message::Prepared { joint, clock, with } => {
                self.prepared(store, from, joint, clock, with);
            }
            Message::Decided { joint, at, why } => self.decided(store, joint, at, &why),
        }
    }
}
