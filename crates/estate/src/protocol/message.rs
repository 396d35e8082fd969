//! What members say to each other. Every message is a version byte, a kind byte and its fields,
//! numbers big-endian (docs/estate-protocol.md has them all).
//!
//! A member with another version is not understood: the messages of a cluster change together.

use super::contribution::Contribution;
use super::member::NodeId;
use crate::codec::{Malformed, Reader, put_bytes};
use crate::flow::FlowKey;
use crate::item::{Item, ItemRef};
use crate::key::Key;
use crate::pattern::Pattern;
use crate::reduce::Reducer;
use crate::store::Selection;
use crate::version::Stamp;
use std::time::Duration;

/// The version of all messages.
pub const VERSION: u8 = 1;
const CARGO: u8 = 10;

/// A move as its destination numbers it: the id is the caller's, and each try after an abort has a
/// number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Move {
    /// The caller's id.
    pub id: u64,
    /// Counts the tries.
    pub attempt: u32,
}

/// A move that items went through, and how long that still matters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The move.
    pub move_id: u64,
    /// Where it came from.
    pub source: NodeId,
    /// How long a query may still be under way that saw the items before it.
    pub left: Duration,
}

/// How a read was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The clock has passed the instant of the cut.
    Passed(Stamp),
    /// It cannot be answered.
    Failed(String),
}

/// One message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A global read, now or as of an instant.
    Ask {
        /// The asker's number for it.
        call: u64,
        /// As of when; none: now.
        at: Option<Stamp>,
        /// How long the asker still waits.
        left: Duration,
        /// The reducer.
        reducer: Reducer,
        /// The keys.
        pattern: Pattern,
    },
    /// What the member has.
    Answer {
        /// The asker's number.
        call: u64,
        /// The instant it was asked for.
        at: Option<Stamp>,
        /// The member's part.
        contribution: Box<Contribution>,
    },
    /// It cannot say.
    Refuse {
        /// The asker's number.
        call: u64,
        /// The instant it was asked for.
        at: Option<Stamp>,
        /// Why.
        refusal: Refusal,
    },
    /// Please keep a replica fresh; renewed before `lease` ends.
    Subscribe {
        /// The reader's number for it.
        interest: u64,
        /// The reader's clock, sent back in pushes.
        sent: Duration,
        /// The serial of what it has; 0: nothing.
        have: u64,
        /// How fresh.
        max_age: Duration,
        /// How long this holds.
        lease: Duration,
        /// The reducer.
        reducer: Reducer,
        /// The keys.
        pattern: Pattern,
    },
    /// A replica, or that it has not changed.
    Push {
        /// The reader's number.
        interest: u64,
        /// Grows whenever the replica changes.
        serial: u64,
        /// The reader's clock in the last `Subscribe` that has come.
        echo: Duration,
        /// Time from the receipt of that to the making of this.
        held: Duration,
        /// What there is; none: what the reader has is right.
        contribution: Option<Box<Contribution>>,
    },
    /// Please report changes; renewed before `lease` ends.
    Watch {
        /// The watcher's number for it.
        watch: u64,
        /// The last report that has come, with all before it.
        seen: u64,
        /// How long this holds.
        lease: Duration,
        /// Whether a member that knows of no such watch reports what is there already: the watcher
        /// cannot tell what has changed since it began.
        present: bool,
        /// The keys.
        pattern: Pattern,
    },
    /// Changes are reported from now on.
    Watching {
        /// The watcher's number.
        watch: u64,
    },
    /// Changes, coalesced: the items as they are now.
    Changed {
        /// The watcher's number.
        watch: u64,
        /// Counts the reports from 1.
        serial: u64,
        /// Items that were written.
        items: Vec<Item>,
        /// Keys that have gone.
        gone: Vec<String>,
    },
    /// An interest or a watch has ended.
    Forget {
        /// Its number.
        number: u64,
    },
    /// Begin a move: destination to source.
    Begin {
        /// The move.
        what: Move,
        /// Copy while the items live, freeze for the difference only.
        pre_copy: bool,
        /// The items.
        selection: Selection,
    },
    /// Items of a move: source to destination.
    Cargo {
        /// The move.
        what: Move,
        /// Counts the chunks from 0.
        index: u32,
        /// Items there are in all; only in the last, and then they are frozen.
        last: Option<u64>,
        /// Moves that these items went through lately.
        chain: Vec<Link>,
        /// Keys that have gone since they were sent.
        gone: Vec<String>,
        /// The items as they are now.
        items: Vec<Item>,
    },
    /// All chunks before `next` are here: destination to source.
    Got {
        /// The move.
        what: Move,
        /// The first that is not.
        next: u32,
    },
    /// All is here and in place; from now on only the source decides.
    Ready {
        /// The move.
        what: Move,
        /// The destination's clock.
        clock: Stamp,
    },
    /// The source has given the items up: they are the destination's.
    Commit {
        /// The move.
        what: Move,
        /// The instant.
        at: Stamp,
        /// How long the source refused writes.
        frozen: Duration,
    },
    /// The destination has taken them: the source may forget.
    Owned {
        /// The move.
        what: Move,
    },
    /// The source has forgotten: the destination need not repeat.
    Closed {
        /// The move.
        what: Move,
    },
    /// The move does not take place. Not from a destination that has said `Ready`.
    Abort {
        /// The move.
        what: Move,
        /// Why.
        why: String,
    },
    /// This member's part of a joint write is prepared: to the one that decides.
    Prepared {
        /// The joint write.
        joint: u64,
        /// The member's clock.
        clock: Stamp,
        /// All that take part, in order; the first decides.
        with: Vec<String>,
    },
    /// What was decided: the instant, or that it does not take place.
    Decided {
        /// The joint write.
        joint: u64,
        /// The instant of all parts.
        at: Option<Stamp>,
        /// Why not.
        why: String,
    },
    /// A piece of a message that is too long for one.
    Part {
        /// The sender's number for the message.
        serial: u64,
        /// Which piece.
        index: u32,
        /// Of how many.
        count: u32,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Pieces that are wanted.
    Want {
        /// The sender's number for the message.
        serial: u64,
        /// All before it are here.
        next: u32,
    },
}

/// A `Cargo` message under way: items go into it without being copied first.
#[derive(Debug)]
pub struct Draft {
    chain: Vec<Link>,
    count: u32,
    items: Vec<u8>,
}

impl Draft {
    /// No items, which came through `chain`.
    pub fn new(chain: Vec<Link>) -> Self {
        Self {
            chain,
            count: 0,
            items: Vec::new(),
        }
    }

    /// Adds an item.
    pub fn add(&mut self, item: ItemRef<'_>) {
        item.emit(&mut self.items);
        self.count += 1;
    }

    /// Bytes of items so far.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The message as it travels.
    pub fn finish(self, what: Move, index: u32, last: Option<u64>, gone: &[String]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.items.len() + 64);
        let out = &mut bytes;
        out.push(VERSION);
        out.push(CARGO);
        what.emit(out);
        out.extend_from_slice(&index.to_be_bytes());
        out.push(u8::from(last.is_some()));
        out.extend_from_slice(&last.unwrap_or(0).to_be_bytes());
        put_count(out, self.chain.len());
        for link in &self.chain {
            out.extend_from_slice(&link.move_id.to_be_bytes());
            link.source.emit(out);
            put_duration(out, link.left);
        }
        put_texts(out, gone);
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.items);
        bytes
    }
}

fn put_duration(out: &mut Vec<u8>, duration: Duration) {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    out.extend_from_slice(&nanos.to_be_bytes());
}

fn duration(reader: &mut Reader<'_>) -> Result<Duration, Malformed> {
    reader.u64("a duration").map(Duration::from_nanos)
}

fn put_stamp(out: &mut Vec<u8>, stamp: Option<Stamp>) {
    out.extend_from_slice(&stamp.unwrap_or_default().to_bits().to_be_bytes());
}

/// No event has stamp 0, so it stands for none.
fn stamp(reader: &mut Reader<'_>) -> Result<Option<Stamp>, Malformed> {
    let bits = reader.u64("a stamp")?;
    Ok((bits != 0).then(|| Stamp::from_bits(bits)))
}

fn put_texts<T: AsRef<str>>(out: &mut Vec<u8>, texts: &[T]) {
    put_count(out, texts.len());
    for text in texts {
        put_bytes(out, text.as_ref().as_bytes());
    }
}

fn texts(reader: &mut Reader<'_>) -> Result<Vec<String>, Malformed> {
    let count = reader.u32("a number of names")? as usize;
    let mut texts = Vec::with_capacity(count.min(reader.left() / 4));
    for _ in 0..count {
        texts.push(reader.str("a name")?.to_owned());
    }
    Ok(texts)
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("fewer than 4 Gi of anything");
    out.extend_from_slice(&count.to_be_bytes());
}

impl Move {
    fn emit(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(&self.attempt.to_be_bytes());
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            id: reader.u64("a move")?,
            attempt: reader.u32("an attempt")?,
        })
    }
}

fn put_selection(out: &mut Vec<u8>, selection: &Selection) {
    match selection {
        Selection::Keys(keys) => {
            out.push(0);
            put_texts(out, keys);
        }
        Selection::Flows(flows) => {
            out.push(1);
            put_count(out, flows.len());
            for flow in flows {
                put_bytes(out, flow.as_str().as_bytes());
            }
        }
    }
}

fn selection(reader: &mut Reader<'_>) -> Result<Selection, Malformed> {
    let start = reader.offset();
    let kind = reader.u8("a selection")?;
    let names = texts(reader)?;
    match kind {
        0 if names.iter().all(|key| Key::new(key).is_ok()) => Ok(Selection::Keys(names)),
        0 => Err(reader.fault(start, "a selection", "a key's length is not 1 to 1,024")),
        1 => names
            .iter()
            .map(|name| FlowKey::from_scope(name))
            .collect::<Option<_>>()
            .map(Selection::Flows)
            .ok_or_else(|| reader.fault(start, "a selection", "a flow's name is none")),
        _ => Err(reader.fault(start, "a selection", "it is none of 0 and 1")),
    }
}

impl Message {
    /// The number of the kind, on the wire.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Ask { .. } => 1,
            Self::Answer { .. } => 2,
            Self::Refuse { .. } => 3,
            Self::Subscribe { .. } => 4,
            Self::Push { .. } => 5,
            Self::Watch { .. } => 6,
            Self::Changed { .. } => 7,
            Self::Forget { .. } => 8,
            Self::Begin { .. } => 9,
            Self::Cargo { .. } => CARGO,
            Self::Got { .. } => 11,
            Self::Ready { .. } => 12,
            Self::Commit { .. } => 13,
            Self::Owned { .. } => 14,
            Self::Closed { .. } => 15,
            Self::Abort { .. } => 16,
            Self::Prepared { .. } => 17,
            Self::Decided { .. } => 18,
            Self::Part { .. } => 19,
            Self::Want { .. } => 20,
            Self::Watching { .. } => 21,
        }
    }

    /// The message as it travels.
    pub fn emit(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128);
        let out = &mut bytes;
        out.push(VERSION);
        out.push(self.kind());
        match self {
            Self::Ask {
                call,
                at,
                left,
                reducer,
                pattern,
            } => {
                out.extend_from_slice(&call.to_be_bytes());
                put_stamp(out, *at);
                put_duration(out, *left);
                out.push(*reducer as u8);
                pattern.emit(out);
            }
            Self::Answer {
                call,
                at,
                contribution,
            } => {
                out.extend_from_slice(&call.to_be_bytes());
                put_stamp(out, *at);
                contribution.emit(out);
            }
            Self::Refuse { call, at, refusal } => {
                out.extend_from_slice(&call.to_be_bytes());
                put_stamp(out, *at);
                match refusal {
                    Refusal::Passed(clock) => {
                        out.push(0);
                        put_stamp(out, Some(*clock));
                    }
                    Refusal::Failed(why) => {
                        out.push(1);
                        put_bytes(out, why.as_bytes());
                    }
                }
            }
            Self::Subscribe {
                interest,
                sent,
                have,
                max_age,
                lease,
                reducer,
                pattern,
            } => {
                out.extend_from_slice(&interest.to_be_bytes());
                put_duration(out, *sent);
                out.extend_from_slice(&have.to_be_bytes());
                put_duration(out, *max_age);
                put_duration(out, *lease);
                out.push(*reducer as u8);
                pattern.emit(out);
            }
            Self::Push {
                interest,
                serial,
                echo,
                held,
                contribution,
            } => {
                out.extend_from_slice(&interest.to_be_bytes());
                out.extend_from_slice(&serial.to_be_bytes());
                put_duration(out, *echo);
                put_duration(out, *held);
                out.push(u8::from(contribution.is_some()));
                if let Some(contribution) = contribution {
                    contribution.emit(out);
                }
            }
            Self::Watch {
                watch,
                seen,
                lease,
                present,
                pattern,
            } => {
                out.extend_from_slice(&watch.to_be_bytes());
                out.extend_from_slice(&seen.to_be_bytes());
                put_duration(out, *lease);
                out.push(u8::from(*present));
                pattern.emit(out);
            }
            Self::Changed {
                watch,
                serial,
                items,
                gone,
            } => {
                out.extend_from_slice(&watch.to_be_bytes());
                out.extend_from_slice(&serial.to_be_bytes());
                put_count(out, items.len());
                for item in items {
                    item.borrow().emit(out);
                }
                put_texts(out, gone);
            }
            Self::Watching { watch } => out.extend_from_slice(&watch.to_be_bytes()),
            Self::Forget { number } => out.extend_from_slice(&number.to_be_bytes()),
            Self::Begin {
                what,
                pre_copy,
                selection,
            } => {
                what.emit(out);
                out.push(u8::from(*pre_copy));
                put_selection(out, selection);
            }
            Self::Cargo {
                what,
                index,
                last,
                chain,
                gone,
                items,
            } => {
                let mut draft = Draft::new(chain.clone());
                for item in items {
                    draft.add(item.borrow());
                }
                return draft.finish(*what, *index, *last, gone);
            }
            Self::Got { what, next } => {
                what.emit(out);
                out.extend_from_slice(&next.to_be_bytes());
            }
            Self::Ready { what, clock } => {
                what.emit(out);
                put_stamp(out, Some(*clock));
            }
            Self::Commit { what, at, frozen } => {
                what.emit(out);
                put_stamp(out, Some(*at));
                put_duration(out, *frozen);
            }
            Self::Owned { what } | Self::Closed { what } => what.emit(out),
            Self::Abort { what, why } => {
                what.emit(out);
                put_bytes(out, why.as_bytes());
            }
            Self::Prepared { joint, clock, with } => {
                out.extend_from_slice(&joint.to_be_bytes());
                put_stamp(out, Some(*clock));
                put_texts(out, with);
            }
            Self::Decided { joint, at, why } => {
                out.extend_from_slice(&joint.to_be_bytes());
                put_stamp(out, *at);
                put_bytes(out, why.as_bytes());
            }
            Self::Part {
                serial,
                index,
                count,
                bytes,
            } => {
                out.reserve(bytes.len());
                out.extend_from_slice(&serial.to_be_bytes());
                out.extend_from_slice(&index.to_be_bytes());
                out.extend_from_slice(&count.to_be_bytes());
                out.extend_from_slice(bytes);
            }
            Self::Want { serial, next } => {
                out.extend_from_slice(&serial.to_be_bytes());
                out.extend_from_slice(&next.to_be_bytes());
            }
        }
        bytes
    }

    /// Reads what [`Message::emit`] wrote; `from` is who sent it.
    ///
    /// # Errors
    /// [`Malformed`] if it is of another version, cut short, too long or of no kind.
    #[allow(clippy::too_many_lines)] // one arm a kind
    pub fn parse(bytes: &[u8], from: &NodeId) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes);
        let r = &mut reader;
        if r.u8("the version")? != VERSION {
            return Err(r.fault(0, "the version", "it is not 1"));
        }
        let message = match r.u8("the kind")? {
            1 => Self::Ask {
                call: r.u64("a call")?,
                at: stamp(r)?,
                left: duration(r)?,
                reducer: reducer(r)?,
                pattern: Pattern::parse(r)?,
            },
            2 => Self::Answer {
                call: r.u64("a call")?,
                at: stamp(r)?,
                contribution: Box::new(Contribution::parse(r)?),
            },
            3 => Self::Refuse {
                call: r.u64("a call")?,
                at: stamp(r)?,
                refusal: match flag(r)? {
                    false => Refusal::Passed(stamp(r)?.unwrap_or_default()),
                    true => Refusal::Failed(r.str("a reason")?.to_owned()),
                },
            },
            4 => Self::Subscribe {
                interest: r.u64("an interest")?,
                sent: duration(r)?,
                have: r.u64("a serial")?,
                max_age: duration(r)?,
                lease: duration(r)?,
                reducer: reducer(r)?,
                pattern: Pattern::parse(r)?,
            },
            5 => Self::Push {
                interest: r.u64("an interest")?,
                serial: r.u64("a serial")?,
                echo: duration(r)?,
                held: duration(r)?,
                contribution: match flag(r)? {
                    true => Some(Box::new(Contribution::parse(r)?)),
                    false => None,
                },
            },
            6 => Self::Watch {
                watch: r.u64("a watch")?,
                seen: r.u64("a serial")?,
                lease: duration(r)?,
                present: flag(r)?,
                pattern: Pattern::parse(r)?,
            },
            7 => {
                let watch = r.u64("a watch")?;
                let serial = r.u64("a serial")?;
                let mut items = Vec::new();
                for _ in 0..r.u32("a number of items")? {
                    items.push(Item::parse(r, from.name.clone())?);
                }
                Self::Changed {
                    watch,
                    serial,
                    items,
                    gone: texts(r)?,
                }
            }
            8 => Self::Forget {
                number: r.u64("a number")?,
            },
            9 => Self::Begin {
                what: Move::parse(r)?,
                pre_copy: flag(r)?,
                selection: selection(r)?,
            },
            CARGO => {
                let what = Move::parse(r)?;
                let index = r.u32("an index")?;
                let is_last = flag(r)?;
                let total = r.u64("a number of items")?;
                let mut chain = Vec::new();
                for _ in 0..r.u32("a chain's length")? {
                    chain.push(Link {
                        move_id: r.u64("a move")?,
                        source: NodeId::parse(r)?,
                        left: duration(r)?,
                    });
                }
                let gone = texts(r)?;
                let count = r.u32("a number of items")? as usize;
                let mut items = Vec::with_capacity(count.min(r.left() / 25));
                for _ in 0..count {
                    items.push(Item::parse(r, from.name.clone())?);
                }
                Self::Cargo {
                    what,
                    index,
                    last: is_last.then_some(total),
                    chain,
                    gone,
                    items,
                }
            }
            11 => Self::Got {
                what: Move::parse(r)?,
                next: r.u32("an index")?,
            },
            12 => Self::Ready {
                what: Move::parse(r)?,
                clock: stamp(r)?.unwrap_or_default(),
            },
            13 => Self::Commit {
                what: Move::parse(r)?,
                at: stamp(r)?.unwrap_or_default(),
                frozen: duration(r)?,
            },
            14 => Self::Owned {
                what: Move::parse(r)?,
            },
            15 => Self::Closed {
                what: Move::parse(r)?,
            },
            16 => Self::Abort {
                what: Move::parse(r)?,
                why: r.str("a reason")?.to_owned(),
            },
            17 => Self::Prepared {
                joint: r.u64("a joint write")?,
                clock: stamp(r)?.unwrap_or_default(),
                with: texts(r)?,
            },
            18 => Self::Decided {
                joint: r.u64("a joint write")?,
                at: stamp(r)?,
                why: r.str("a reason")?.to_owned(),
            },
            19 => {
                let serial = r.u64("a serial")?;
                let start = r.offset();
                let index = r.u32("an index")?;
                let count = r.u32("a number of parts")?;
                if index >= count {
                    return Err(r.fault(start, "an index", "it is not below the number of parts"));
                }
                Self::Part {
                    serial,
                    index,
                    count,
                    bytes: r.take("a part", r.left())?.to_vec(),
                }
            }
            20 => Self::Want {
                serial: r.u64("a serial")?,
                next: r.u32("an index")?,
            },
            21 => Self::Watching {
                watch: r.u64("a watch")?,
            },
            _ => return Err(r.fault(1, "the kind", "it is none of 1 to 21")),
        };
        reader.end()?;
        Ok(message)
    }
}

fn reducer(reader: &mut Reader<'_>) -> Result<Reducer, Malformed> {
    let start = reader.offset();
    let number = reader.u8("a reducer")?;
    Reducer::from_number(number)
        .ok_or_else(|| reader.fault(start, "a reducer", "it is none of 0 to 11"))
}

/// One byte that must be 0 or 1, so that a message has one form only.
fn flag(reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    let start = reader.offset();
    match reader.u8("a flag")? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(reader.fault(start, "a flag", "it is neither 0 nor 1")),
    }
}
