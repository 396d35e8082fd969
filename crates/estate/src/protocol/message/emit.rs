//! Messages to bytes.

use super::fields::{put_count, put_duration, put_selection, put_stamp, put_texts};
use super::{Draft, Message, Refusal, VERSION};
use crate::codec::put_bytes;

impl Message {
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
}
