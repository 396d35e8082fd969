//! The source of a move: copies, freezes, gives up.

use super::super::engine::{Action, Engine, Event as News, Now};
use super::super::member::NodeId;
use super::super::message::{Draft, Link, Message, Move};
use super::super::moved::Moved;
use super::table::{Duty, Event, State, transition};
use crate::item::{Item, ItemRef};
use crate::store::{Hold, Selection, Store};
use crate::version::Stamp;
use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

/// Pre-copying goes round by round until one has no more bytes than this, or for so many rounds.
const SMALL_ROUND: usize = 64 << 10;
const MOST_ROUNDS: u32 = 4;
/// Keys or flows that are looked at together, at the most.
const BATCH: usize = 256;
/// The longest pause between two tries.
const PAUSE_MOST: Duration = Duration::from_secs(1);

/// A move away from here.
#[derive(Debug)]
pub(in super::super) struct Departure {
    pub dest: NodeId,
    pub what: Move,
    pub state: State,
    selection: Selection,
    // Where the round is in the selection, or in what has changed.
    cursor: usize,
    batch: usize,
    round: u32,
    round_bytes: usize,
    // What this round looks at, after the first: what was written or removed during the last one.
    changed: Vec<String>,
    // What the destination will have once it has all chunks.
    keys: HashSet<Box<str>>,
    // All `Cargo` messages so far. Invariant: acknowledged <= sent <= chunks.len().
    chunks: Vec<Vec<u8>>,
    acknowledged: usize,
    sent: usize,
    frozen_at: Now,
    frozen_for: Duration,
    at: Stamp,
    restored: Vec<String>,
    pause: Duration,
    again: Now,
    heard: Now,
    // The destination cannot be reached.
    away: bool,
}

impl Departure {
    fn hold(&self) -> Hold {
        Hold::Move(self.what.id)
    }

    fn is_over(&self) -> bool {
        matches!(self.state, State::Gone | State::Kept | State::Restored)
    }

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

    pub fn due(&self, move_timeout: Duration) -> Option<Now> {
        match self.state {
            State::Copying | State::Frozen => Some(self.again.min(self.heard + move_timeout)),
            State::Given if self.away => None,
            State::Given => Some(self.again),
            _ => None,
        }
    }
}

impl Engine {
    pub(in super::super) fn begin(
        &mut self,
        store: &Store,
        from: &NodeId,
        what: Move,
        pre_copy: bool,
        selection: Selection,
    ) {
        if let Some(old) = self.departures.moves.get_mut(&what.id) {
            old.heard = self.now;
            let same = old.dest == *from;
            let (attempt, state, dest) = (old.what.attempt, old.state, old.dest.clone());
            if same && attempt > what.attempt {
                return;
            }
            if same && attempt == what.attempt {
                match state {
                    State::Copying | State::Frozen => self.resend(store, what.id),
                    State::Given | State::Gone => self.say_commit(what.id),
                    _ => self.say_abort(from, what, "it was aborted here"),
                }
                return;
            }
            match state {
                State::Copying | State::Frozen if same => {
                    self.source_step(store, what.id, Event::Abort, "it was begun anew");
                }
                State::Kept | State::Restored => {}
                State::Copying | State::Frozen => {
                    let why = format!("its items are on their way to {dest} under the same id");
                    return self.say_abort(from, what, &why);
                }
                _ => {
                    let why = format!("its items went to {dest} before: take them from there");
                    return self.say_abort(from, what, &why);
                }
            }
        }
        if self.arrivals.moves.contains_key(&what.id) {
            return self.say_abort(from, what, "the id is that of a move to here: use another");
        }
        let departure = Departure {
            dest: from.clone(),
            what,
            state: State::Copying,
            selection,
            cursor: 0,
            batch: 8,
            round: 0,
            round_bytes: 0,
            changed: Vec::new(),
            keys: HashSet::new(),
            chunks: Vec::new(),
            acknowledged: 0,
            sent: 0,
            frozen_at: self.now,
            frozen_for: Duration::ZERO,
            at: Stamp::ZERO,
            restored: Vec::new(),
            pause: self.settings.retry,
            again: self.now + self.settings.retry,
            heard: self.now,
            away: false,
        };
        self.departures.moves.insert(what.id, departure);
        if pre_copy {
            let departure = &self.departures.moves[&what.id];
            store.track(departure.hold(), &departure.selection);
            self.pump(store, what.id);
        } else {
            self.source_step(store, what.id, Event::Copied, "");
        }
    }

    /// Sends what the window allows, and gets more to send.
    fn pump(&mut self, store: &Store, id: u64) {
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
    fn freeze(&mut self, store: &Store, id: u64) -> Result<(), crate::Error> {
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

    /// The departure that `from` speaks of, which has been heard of now.
    fn departure(&mut self, from: &NodeId, what: Move) -> Option<&mut Departure> {
        let (now, pause) = (self.now, self.settings.retry);
        let departure = self.departures.moves.get_mut(&what.id)?;
        if departure.dest != *from || departure.what != what {
            return None;
        }
        departure.heard = now;
        departure.pause = pause;
        departure.again = now + pause;
        Some(departure)
    }

    pub(in super::super) fn ready(
        &mut self,
        store: &Store,
        from: &NodeId,
        what: Move,
        clock: Stamp,
    ) {
        store.observe(clock);
        if self.departure(from, what).is_some() {
            self.source_step(store, what.id, Event::Ready, "");
        } else {
            // We do not know the move, so we have given nothing up: an earlier incarnation did, or
            // it is forgotten. In the first case the sender learns of our incarnation; in the
            // second it has long settled.
            self.say_abort(from, what, "it is not known here");
        }
    }

    pub(in super::super) fn owned(&mut self, store: &Store, from: &NodeId, what: Move) {
        if self.departure(from, what).is_some() {
            self.source_step(store, what.id, Event::Owned, "");
        } else {
            self.send_one(from, &Message::Closed { what });
        }
    }

    pub(in super::super) fn source_aborted(
        &mut self,
        store: &Store,
        from: &NodeId,
        what: Move,
        why: &str,
    ) {
        if self.departure(from, what).is_some() {
            self.source_step(store, what.id, Event::Abort, why);
        }
    }

    /// The one way in which a departure changes its state.
    fn source_step(&mut self, store: &Store, id: u64, event: Event, why: &str) {
        let Some(departure) = self.departures.moves.get_mut(&id) else {
            return;
        };
        let Some(row) = transition(departure.state, event) else {
            return;
        };
        departure.state = row.to;
        self.out.push(Action::MoveStep { row, said: false });
        let (dest, what, hold) = (departure.dest.clone(), departure.what, departure.hold());
        match row.duty {
            Duty::Freeze => {
                if let Err(error) = self.freeze(store, id) {
                    self.source_step(store, id, Event::Trouble, &error.to_string());
                }
            }
            Duty::Thaw => {
                departure.chunks = Vec::new();
                departure.keys = HashSet::new();
                store.untrack(hold);
                store.thaw(hold);
                self.moved.thaw(id);
                if event != Event::Abort {
                    self.say_abort(&dest, what, why);
                }
            }
            Duty::GiveUp => {
                let chunks = std::mem::take(&mut departure.chunks);
                departure.frozen_for = self.now - departure.frozen_at;
                let at = store.clock().next();
                departure.at = at;
                departure.again = self.now + self.settings.retry;
                store.observe(at);
                self.moved.decide(at);
                store.remove_held(hold);
                // While the keys are still known as moving, so that no watcher sees them vanish.
                self.take_in_changes(store);
                self.moved.give(id, chunks);
                self.say_commit(id);
            }
            Duty::SayCommit => self.say_commit(id),
            Duty::Forget => {
                let own = self.own.clone();
                self.moved
                    .settle(id, &own, self.now, self.settings.longest_query);
                self.send_one(&dest, &Message::Closed { what });
            }
            Duty::SayAbort => self.say_abort(&dest, what, "its items have stayed here"),
            Duty::Restore => {
                let mut items: Vec<Item> = Vec::new();
                self.moved
                    .each_given(id, &self.own, |item: ItemRef<'_>, _| {
                        items.push(item.to_item(self.own.name.clone()));
                    });
                departure.restored = items.iter().map(|item| item.key.clone()).collect();
                for item in &items {
                    // What was written here since is newer and stays; without memory for it the
                    // item is lost with its owner, as it would be without us.
                    let _ = store.insert_moved(hold, item);
                }
                self.take_in_changes(store);
                self.moved.thaw(id);
            }
            Duty::Withdraw => {
                let keys = std::mem::take(&mut departure.restored);
                let items = self.withdraw(store, hold, keys);
                self.out.push(Action::Event(News::Conflict {
                    move_id: id,
                    owner: dest.clone(),
                    items,
                }));
                self.send_one(&dest, &Message::Closed { what });
            }
            _ => {}
        }
        if self
            .departures
            .moves
            .get(&id)
            .is_some_and(Departure::is_over)
        {
            self.departures.ended(id, Departure::is_over);
        }
        self.out.push(Action::MoveStep { row, said: true });
        self.settle_cuts(store);
    }

    /// Removes keys whatever is written to them; returns how many items that were.
    pub(super) fn withdraw(&mut self, store: &Store, hold: Hold, keys: Vec<String>) -> u64 {
        match store.freeze(hold, &Selection::Keys(keys)) {
            Ok(()) => store.remove_held(hold) as u64,
            Err(_) => 0,
        }
    }

    fn say_commit(&mut self, id: u64) {
        if let Some(departure) = self.departures.moves.get(&id) {
            let (dest, commit) = (
                departure.dest.clone(),
                Message::Commit {
                    what: departure.what,
                    at: departure.at,
                    frozen: departure.frozen_for,
                },
            );
            self.send_one(&dest, &commit);
        }
    }

    pub(super) fn say_abort(&mut self, to: &NodeId, what: Move, why: &str) {
        let why = why.to_owned();
        self.send_one(to, &Message::Abort { what, why });
    }

    fn resend(&mut self, store: &Store, id: u64) {
        if let Some(departure) = self.departures.moves.get_mut(&id) {
            departure.sent = departure.acknowledged;
        }
        self.pump(store, id);
    }

    pub(in super::super) fn departures_time(&mut self, store: &Store) {
        let (now, settings) = (self.now, self.settings.clone());
        let due: Vec<u64> = self
            .departures
            .moves
            .iter()
            .filter(|(_, d)| d.due(settings.move_timeout).is_some_and(|due| due <= now))
            .map(|(&id, _)| id)
            .collect();
        for id in due {
            let Some(departure) = self.departures.moves.get_mut(&id) else {
                continue;
            };
            departure.again = now + departure.pause;
            departure.pause = (2 * departure.pause).min(PAUSE_MOST);
            match departure.state {
                State::Given => self.say_commit(id),
                _ if departure.heard + settings.move_timeout <= now => {
                    let why = format!("the destination was silent for {:?}", settings.move_timeout);
                    self.source_step(store, id, Event::Trouble, &why);
                }
                _ => self.resend(store, id),
            }
        }
    }

    /// The destination of some has gone, or (`dead`) is known to have lost its memory.
    pub(in super::super) fn departures_to(&mut self, store: &Store, member: &NodeId, dead: bool) {
        let to: Vec<u64> = self
            .departures
            .moves
            .iter()
            .filter(|(_, departure)| departure.dest == *member)
            .map(|(&id, _)| id)
            .collect();
        for id in to {
            if let Some(departure) = self.departures.moves.get_mut(&id) {
                departure.away = true;
            }
            let event = if dead { Event::Dead } else { Event::Away };
            self.source_step(store, id, event, "the destination has gone");
        }
    }

    /// A member that was away is back with its memory.
    pub(in super::super) fn departures_back(&mut self, member: &NodeId) {
        for departure in self.departures.moves.values_mut() {
            if departure.dest == *member {
                departure.away = false;
                departure.again = self.now;
            }
        }
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
