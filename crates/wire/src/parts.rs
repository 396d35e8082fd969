//! Lists longer than one frame: split over several messages and joined again.
//!
//! Each part is a whole message with all the other fields and its own sequence number, so parts may
//! be lost, doubled and reordered like any message, and a sender repeats only what is unanswered.

use crate::command::Command;
use crate::error::Unsendable;
use crate::flow::Flow;
use crate::frame::OVERHEAD;
use crate::matching::Match;
use crate::message::Message;
use crate::report::Side;
use crate::tlv::{MAX_PARTS, Part, TLV_HEADER_LEN, Tlv};
use std::collections::BTreeMap;
use thiserror::Error;

const PART_LEN: usize = TLV_HEADER_LEN + 8;

/// Split a message over as many as `mtu` demands; a message that fits comes back alone.
///
/// `list` numbers the list (see [`Part`]); a `Part` TLV in `message` itself is dropped.
///
/// # Errors
/// Those of [`Message::check`], and [`Unsendable::Unsplittable`].
pub fn split(message: &Message, mtu: usize, list: u32) -> Result<Vec<Message>, Unsendable> {
    message.check()?;
    let mut frame = message.clone();
    frame.tlvs.retain(|tlv| !matches!(tlv, Tlv::Part(_)));
    let mtu = mtu.min(OVERHEAD + usize::from(u16::MAX));
    if frame.payload_len() <= mtu {
        return Ok(vec![frame]);
    }
    let unsplittable = Unsendable::Unsplittable {
        command: message.command,
        mtu,
    };
    let (flows, matches) = take_lists(&mut frame);
    let room = mtu
        .checked_sub(frame.payload_len() + PART_LEN)
        .ok_or(unsplittable)?;
    let longest = flows
        .iter()
        .map(Flow::len)
        .chain(matches.iter().map(Match::len))
        .max();
    if longest.is_none_or(|longest| longest > room) {
        return Err(unsplittable);
    }

    let mut out: Vec<(Vec<Flow>, Vec<Match>)> = vec![Default::default()];
    let mut used = 0;
    let mut place = |len: usize, out: &mut Vec<(Vec<Flow>, Vec<Match>)>| {
        if used + len > room {
            out.push(Default::default());
            used = 0;
        }
        used += len;
        out.len() - 1
    };
    for entry in flows {
        let index = place(entry.len(), &mut out);
        out[index].0.push(entry);
    }
    for entry in matches {
        let index = place(entry.len(), &mut out);
        out[index].1.push(entry);
    }
    let parts = u16::try_from(out.len())
        .ok()
        .filter(|parts| *parts <= MAX_PARTS);
    let parts = parts.ok_or(unsplittable)?;
    Ok((0..parts)
        .zip(out)
        .map(|(part, (flows, matches))| {
            let mut message = frame.clone();
            put_lists(&mut message, flows, matches);
            message.with(Tlv::Part(Part { list, part, parts }))
        })
        .collect())
}

/// Empty the lists of a message but leave their TLVs in place.
fn take_lists(message: &mut Message) -> (Vec<Flow>, Vec<Match>) {
    let (mut flows, mut matches) = (Vec::new(), Vec::new());
    for tlv in &mut message.tlvs {
        match tlv {
            Tlv::Flows(list) => flows.append(list),
            Tlv::Overriding(list) => matches.append(list),
            _ => {}
        }
    }
    (flows, matches)
}

fn put_lists(message: &mut Message, mut flows: Vec<Flow>, mut matches: Vec<Match>) {
    for tlv in &mut message.tlvs {
        match tlv {
            Tlv::Flows(list) => list.append(&mut flows),
            Tlv::Overriding(list) => list.append(&mut matches),
            _ => {}
        }
    }
}

/// Parts that contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PartError {
    /// The number of parts has changed within one list.
    #[error(
        "{command} from instance {from} had {expected} parts, now {found}: \
         the sender must number a changed list anew"
    )]
    Changed {
        /// The command.
        command: Command,
        /// The sender.
        from: u32,
        /// Parts announced first.
        expected: u16,
        /// Parts announced now.
        found: u16,
    },
    /// A part of a list that a newer one has replaced.
    #[error(
        "{command} from instance {from}: list {list} is older than the one being joined; drop it"
    )]
    Superseded {
        /// The command.
        command: Command,
        /// The sender.
        from: u32,
        /// The list's number.
        list: u32,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Subject {
    handover: u64,
    from: u32,
    command: Command,
    // A list of upstream flows and one of downstream flows may travel at the same time.
    side: Option<Side>,
}

#[derive(Debug)]
struct Joining {
    // (boot, list) only ever rises for a subject.
    age: (u64, u32),
    parts: Vec<Option<Message>>,
}

/// Joins parts. At most one list per handover, sender, command and side is being joined.
#[derive(Debug, Default)]
pub struct Assembler {
    joining: BTreeMap<Subject, Joining>,
}

impl Assembler {
    /// Nothing begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// Take in a message; return it whole once every part is there.
    ///
    /// A message without a `Part` comes back at once. A part that came before replaces its twin. The
    /// whole has the header of the first part, the lists of all and no `Part`.
    ///
    /// # Errors
    /// [`PartError`]; the message is dropped, what was joined before stays.
    pub fn add(&mut self, message: Message) -> Result<Option<Message>, PartError> {
        let Some(Part { list, part, parts }) = message.part() else {
            return Ok(Some(message));
        };
        let (command, from) = (message.command, message.from);
        let subject = Subject {
            handover: message.handover,
            from,
            command,
            side: message.side(),
        };
        let age = (message.boot, list);
        let fresh = || Joining {
            age,
            parts: vec![None; usize::from(parts)],
        };
        let joining = self.joining.entry(subject).or_insert_with(fresh);
        if age < joining.age {
            return Err(PartError::Superseded {
                command,
                from,
                list,
            });
        }
        if age > joining.age {
            *joining = fresh();
        }
        if joining.parts.len() != usize::from(parts) {
            return Err(PartError::Changed {
                command,
                from,
                expected: joining.parts.len() as u16,
                found: parts,
            });
        }
        // `Tlv::check` has made sure that part < parts <= MAX_PARTS.
        joining.parts[usize::from(part)] = Some(message);
        if joining.parts.iter().any(Option::is_none) {
            return Ok(None);
        }
        let done = self.joining.remove(&subject);
        let mut parts = done.into_iter().flat_map(|joining| joining.parts).flatten();
        let mut whole = parts.next();
        if let Some(whole) = &mut whole {
            whole.tlvs.retain(|tlv| !matches!(tlv, Tlv::Part(_)));
            for mut message in parts {
                let (flows, matches) = take_lists(&mut message);
                put_lists(whole, flows, matches);
            }
        }
        Ok(whole)
    }

    /// Drop what has been joined for a handover that is over.
    pub fn forget(&mut self, handover: u64) {
        self.joining
            .retain(|subject, _| subject.handover != handover);
    }

    /// Lists begun and not complete.
    pub fn pending(&self) -> usize {
        self.joining.len()
    }
}
