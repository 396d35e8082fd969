//! Messages that are too long for one: cut into parts, of which a window is under way at a time.
//!
//! The receiver says what it has (`Want`), which lets the next ones go; both sides repeat
//! themselves, with growing pauses. So a view of a million items neither fills a queue nor starts anew
//! for one lost part. A message that is sent again while it is still under way is not sent twice.
//! Parts that come out of order are dropped: on an ordered link that does not happen.

use super::engine::{Action, Engine, Now};
use super::member::NodeId;
use super::message::Message;
use crate::store::Store;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug)]
struct Outgoing {
    bytes: Arc<[u8]>,
    // Invariant: acknowledged <= sent <= count.
    acknowledged: u32,
    sent: u32,
    count: u32,
    pause: Now,
    again: Now,
    ends: Now,
}

#[derive(Debug)]
struct Incoming {
    bytes: Vec<u8>,
    next: u32,
    count: u32,
    pause: Now,
    again: Now,
    ends: Now,
}

/// The longest pause between two tries.
const PAUSE_MOST: Now = Now::from_secs(1);

/// Long messages under way.
#[derive(Debug, Default)]
pub(super) struct Parts {
    outgoing: BTreeMap<(NodeId, u64), Outgoing>,
    incoming: BTreeMap<(NodeId, u64), Incoming>,
}

impl Parts {
    pub fn due(&self) -> Option<Now> {
        let outgoing = self.outgoing.values().map(|long| long.again.min(long.ends));
        let incoming = self.incoming.values().map(|long| long.again.min(long.ends));
        outgoing.chain(incoming).min()
    }

    pub fn departed(&mut self, member: &NodeId) {
        self.outgoing.retain(|(to, _), _| to != member);
        self.incoming.retain(|(from, _), _| from != member);
    }
}

impl Parts {
    /// These messages to `member` are not wanted any more.
    pub fn give_up(&mut self, member: &NodeId, messages: &[Vec<u8>]) {
        self.outgoing.retain(|(to, _), long| {
            to != member || messages.iter().all(|message| message[..] != *long.bytes)
        });
    }

    fn is_under_way(&self, member: &NodeId, message: &[u8]) -> bool {
        let mut outgoing = self.outgoing.iter();
        outgoing.any(|((to, _), long)| to == member && *long.bytes == *message)
    }
}

impl Engine {
    pub(super) fn send_in_parts(&mut self, mut to: Vec<NodeId>, bytes: Vec<u8>, again: bool) {
        to.retain(|member| !self.parts.is_under_way(member, &bytes));
        let count = u32::try_from(bytes.len().div_ceil(self.settings.part))
            .expect("a message is far shorter than 2^32 parts");
        let bytes: Arc<[u8]> = bytes.into();
        for to in to {
            let serial = self.number();
            let long = Outgoing {
                bytes: bytes.clone(),
                acknowledged: 0,
                sent: 0,
                count,
                pause: self.settings.retry,
                again: self.now + self.settings.retry,
                ends: self.now + self.settings.longest_query,
            };
            self.parts.outgoing.insert((to.clone(), serial), long);
            self.send_window(&to, serial, again);
        }
    }

    fn send_window(&mut self, to: &NodeId, serial: u64, again: bool) {
        let Some(long) = self.parts.outgoing.get_mut(&(to.clone(), serial)) else {
            return;
        };
        let until = long.count.min(long.acknowledged + self.settings.window);
        for index in long.sent..until {
            let start = index as usize * self.settings.part;
            let end = long.bytes.len().min(start + self.settings.part);
            let part = Message::Part {
                serial,
                index,
                count: long.count,
                bytes: long.bytes[start..end].to_vec(),
            };
            self.out.push(Action::Send {
                to: vec![to.clone()],
                bytes: part.emit(),
                again,
            });
        }
        long.sent = long.sent.max(until);
    }

    pub(super) fn wanted(&mut self, from: &NodeId, serial: u64, next: u32) {
        let key = (from.clone(), serial);
        let Some(long) = self.parts.outgoing.get_mut(&key) else {
            return;
        };
        if next >= long.count {
            self.parts.outgoing.remove(&key);
            return;
        }
        if next > long.acknowledged && next <= long.sent {
            long.acknowledged = next;
            long.pause = self.settings.retry;
            long.again = self.now + self.settings.retry;
            long.ends = self.now + self.settings.longest_query;
        }
        self.send_window(from, serial, false);
    }

    pub(super) fn part(
        &mut self,
        store: &Store,
        from: &NodeId,
        serial: u64,
        index: u32,
        count: u32,
        bytes: &[u8],
    ) {
        let key = (from.clone(), serial);
        let (retry, ends) = (self.settings.retry, self.now + self.settings.longest_query);
        let long = self.parts.incoming.entry(key.clone()).or_insert(Incoming {
            bytes: Vec::new(),
            next: 0,
            count,
            pause: retry,
            again: self.now + retry,
            ends,
        });
        if index == long.next && count == long.count {
            // Once whole it stays as a memory of having been, so that a late part of it does not
            // begin it anew.
            long.bytes.extend_from_slice(bytes);
            long.next += 1;
            long.pause = retry;
            long.again = self.now + retry;
            long.ends = ends;
        }
        let next = long.next;
        let whole = (index + 1 == next && next == long.count).then(|| {
            long.again = ends;
            std::mem::take(&mut long.bytes)
        });
        self.out.push(Action::Send {
            to: vec![from.clone()],
            bytes: Message::Want { serial, next }.emit(),
            again: false,
        });
        self.arrivals_heard(from);
        // A part within a part is nonsense.
        if let Some(whole) = whole.filter(|whole| whole.get(1) != Some(&PART)) {
            self.receive(store, from, &whole);
        }
    }

    pub(super) fn parts_time(&mut self) {
        let now = self.now;
        self.parts.outgoing.retain(|_, long| long.ends > now);
        self.parts.incoming.retain(|_, long| long.ends > now);
        let mut again = Vec::new();
        for (key, long) in &mut self.parts.outgoing {
            if long.again <= now {
                long.again = now + long.pause;
                long.pause = (2 * long.pause).min(PAUSE_MOST);
                long.sent = long.acknowledged;
                again.push(key.clone());
            }
        }
        for (to, serial) in again {
            self.send_window(&to, serial, true);
        }
        for ((from, serial), long) in &mut self.parts.incoming {
            if long.again <= now {
                long.again = now + long.pause;
                long.pause = (2 * long.pause).min(PAUSE_MOST);
                self.out.push(Action::Send {
                    to: vec![from.clone()],
                    bytes: Message::Want {
                        serial: *serial,
                        next: long.next,
                    }
                    .emit(),
                    again: true,
                });
            }
        }
    }
}

const PART: u8 = 19;
