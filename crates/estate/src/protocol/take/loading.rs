//! What the source of a move sends: the items while they are written, round by round, then what has changed
//! since, once they are frozen.

use super::super::engine::{Engine, Now};
use super::super::member::NodeId;
use super::super::message::{Draft, Link, Move};
use super::super::moved::Moved;
use super::source::Departure;
use super::table::{Event, State};
use crate::item::ItemRef;
use crate::store::{Selection, Store};
use crate::version::Stamp;
use std::collections::BTreeMap;

/// Pre-copying goes round by round until one has no more bytes than this, or for so many rounds.
const SMALL_ROUND: usize = 64 << 10;
const MOST_ROUNDS: u32 = 4;
/// Keys or flows that are looked at together, at the most.
const BATCH: usize = 256;
impl Departure {
    /// Shows about a `chunk` of the selection to `add`, which says how many bytes it has got.
    fn copy_selection(
        &mut self,
        store: &Store,
        entries: usize,
        chunk: usize,
        mut add: impl FnMut(ItemRef<'_>) -> usize,
    ) {
        let (mut count, mut bytes) = (0, 0);
        while self.cursor < entries && bytes < chunk {
            let end = entries.min(self.cursor + self.batch);
            let part = match &self.selection {
                Selection::Keys(keys) => Selection::Keys(keys[self.cursor..end].to_vec()),
                Selection::Flows(flows) => Selection::Flows(flows[self.cursor..end].to_vec()),
            };
            let keys = &mut self.keys;
            store.scan_selection(&part, |item| {
                keys.insert(item.key.into());
                bytes = add(item);
                count += 1;
            });
            // As many at a time as come to about one chunk.
            self.batch = match bytes {
                0 => BATCH,
                _ => (chunk * count / bytes).clamp(1, BATCH),
            };
            self.cursor = end;
        }
    }

    /// Adds a key that has changed: the item as it is now, or that it has gone.
    fn copy_changed(
        &mut self,
        store: &Store,
        moved: &Moved,
        key: &str,
        drafts: &mut Drafts,
        now: Now,
    ) {
        let here = store.with(key, |item| drafts.add(item, moved.chain_of(key, now)));
        if here.is_some() {
            self.keys.insert(key.into());
        } else if self.keys.remove(key) {
            drafts.gone.push(key.to_owned());
        }
    }

    /// Makes chunks of the drafts.
    fn load(&mut self, drafts: Drafts) {
        let mut gone = drafts.gone;
        let mut by_chain = drafts.by_chain;
        if by_chain.is_empty() && !gone.is_empty() {
            by_chain.insert(Vec::new(), Draft::new(Vec::new()));
        }
        for draft in by_chain.into_values() {
            let bytes = draft.finish(self.what, self.index(), None, &std::mem::take(&mut gone));
            self.chunks.push(bytes);
        }
    }

    /// Makes the last chunk, which says how many items there are in all.
    fn close(&mut self) {
        let total = Some(self.keys.len() as u64);
        let bytes = Draft::new(Vec::new()).finish(self.what, self.index(), total, &[]);
        self.chunks.push(bytes);
    }

    fn index(&self) -> u32 {
        u32::try_from(self.chunks.len()).expect("fewer than 2^32 chunks")
    }
}

impl Engine {
    /// Sends what the window allows, and gets more to send.
    pub(super) fn pump(&mut self, store: &Store, id: u64) {
        loop {
            let Some(departure) = self.departures.moves.get_mut(&id) else {
                return;
            };
            // Something late must not stir what has ended.
            if !matches!(departure.state, State::Copying | State::Frozen) {
                return;
            }
            let until = departure.acknowledged + self.settings.window as usize;
            let until = until.min(departure.chunks.len());
            let to = departure.dest.clone();
            let ready = departure.chunks[departure.sent..until.max(departure.sent)].to_vec();
            departure.sent = until.max(departure.sent);
            let full = departure.sent < departure.chunks.len()
                || departure.sent - departure.acknowledged >= self.settings.window as usize;
            let copying = departure.state == State::Copying;
            for bytes in ready {
                self.send_bytes(vec![to.clone()], bytes);
            }
            if full || !copying {
                return;
            }
            if !self.copy_more(store, id) {
                let Some(departure) = self.departures.moves.get(&id) else {
                    return;
                };
                if departure.acknowledged == departure.sent {
                    self.source_step(store, id, Event::Copied, "");
                }
                return;
            }
        }
    }

    /// Makes the next chunk of the pre-copy; false: there is none.
    fn copy_more(&mut self, store: &Store, id: u64) -> bool {
        let (chunk, now) = (self.settings.chunk, self.now);
        let Some(departure) = self.departures.moves.get_mut(&id) else {
            return false;
        };
        let first = departure.round == 0;
        let entries = match &departure.selection {
            _ if !first => departure.changed.len(),
            Selection::Keys(keys) => keys.len(),
            Selection::Flows(flows) => flows.len(),
        };
        if departure.cursor >= entries {
            if !first && departure.round_bytes <= SMALL_ROUND || departure.round + 1 >= MOST_ROUNDS
            {
                return false;
            }
            departure.round += 1;
            departure.round_bytes = 0;
            departure.cursor = 0;
            departure.changed = store.tracked(departure.hold());
            return true;
        }
        let mut drafts = Drafts::default();
        if first {
            departure.copy_selection(store, entries, chunk, |item| {
                drafts.add(item, self.moved.chain_of(item.key, now));
                drafts.bytes
            });
        } else {
            let (moved, changed) = (&self.moved, std::mem::take(&mut departure.changed));
            while departure.cursor < entries && drafts.bytes < chunk {
                departure.copy_changed(store, moved, &changed[departure.cursor], &mut drafts, now);
                departure.cursor += 1;
            }
            departure.changed = changed;
        }
        departure.round_bytes += drafts.bytes;
        departure.load(drafts);
        true
    }

    /// Freezes the items and makes the last chunks: what has changed since they were copied.
    pub(super) fn freeze(&mut self, store: &Store, id: u64) -> Result<(), crate::Error> {
        let (chunk, now) = (self.settings.chunk, self.now);
        let Some(departure) = self.departures.moves.get_mut(&id) else {
            return Ok(());
        };
        let hold = departure.hold();
        store.freeze(hold, &departure.selection)?;
        departure.frozen_at = now;
        let mut drafts = Drafts::default();
        if (departure.round, departure.cursor) == (0, 0) {
            // Nothing was copied before.
            let keys = &mut departure.keys;
            let mut full = Vec::new();
            store.scan_held(hold, Stamp::ZERO, |item| {
                keys.insert(item.key.into());
                drafts.add(item, self.moved.chain_of(item.key, now));
                if drafts.bytes >= chunk {
                    full.push(std::mem::take(&mut drafts));
                }
            });
            full.into_iter().for_each(|drafts| departure.load(drafts));
        } else {
            for key in store.tracked(hold) {
                departure.copy_changed(store, &self.moved, &key, &mut drafts, now);
                if drafts.bytes >= chunk {
                    departure.load(std::mem::take(&mut drafts));
                }
            }
            store.untrack(hold);
        }
        departure.load(drafts);
        departure.close();
        let keys = std::mem::take(&mut departure.keys);
        self.moved.freeze(id, keys);
        self.pump(store, id);
        Ok(())
    }

    pub(in super::super) fn got(&mut self, store: &Store, from: &NodeId, what: Move, next: u32) {
        let Some(departure) = self.departure(from, what) else {
            return;
        };
        let next = next as usize;
        if next > departure.acknowledged && next <= departure.chunks.len() {
            departure.acknowledged = next;
            departure.sent = departure.sent.max(next);
        }
        self.pump(store, what.id);
    }

    pub(super) fn resend(&mut self, store: &Store, id: u64) {
        let Some(departure) = self.departures.moves.get(&id) else {
            return;
        };
        let to = departure.dest.clone();
        // Of what has ended nothing is left.
        let unheard = departure.chunks.get(departure.acknowledged..departure.sent);
        for bytes in unheard.unwrap_or_default().to_vec() {
            self.transmit(vec![to.clone()], bytes, true);
        }
        self.pump(store, id);
    }
}

/// Items on their way into messages, by the moves that they went through.
#[derive(Default)]
struct Drafts {
    by_chain: BTreeMap<Vec<u64>, Draft>,
    gone: Vec<String>,
    bytes: usize,
}

impl Drafts {
    fn add(&mut self, item: ItemRef<'_>, chain: Vec<Link>) {
        let ids = chain.iter().map(|link| link.move_id).collect();
        let draft = self
            .by_chain
            .entry(ids)
            .or_insert_with(|| Draft::new(chain));
        let before = draft.len();
        draft.add(item);
        self.bytes += draft.len() - before;
    }
}
