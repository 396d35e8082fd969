//! Bytes to messages.

use super::fields::{duration, flag, reducer, selection, stamp, texts};
use super::{CARGO, Link, Message, Move, Refusal, VERSION};
use crate::codec::{Malformed, Reader};
use crate::item::Item;
use crate::pattern::Pattern;
use crate::protocol::contribution::Contribution;
use crate::protocol::member::NodeId;

impl Message {
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
