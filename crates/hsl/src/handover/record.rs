//! What agents tell each other on their stream, besides packets: flow lists, fence results, state
//! triggers, in the order of sending (docs/hsl.md, *between agents*).
//!
//! A record is one byte for its kind and then its fields, big-endian. Packets are records of the
//! kinds 0 and 1, their side; `agent::strays` reads and writes those.

use flowferry_wire::Flow;

use crate::endpoint::HoldId;
use crate::key::Side;

/// Version of the records, told in the greeting. Agents that differ do not talk.
pub const VERSION: u16 = 3;
/// Round of a marker that fences every flow of a side.
pub const FINAL: u32 = u32::MAX;
/// Flows in one list record.
pub const LIST: usize = 1_024;

const KIND_LIST: u8 = 2;
const KIND_FENCED: u8 = 3;
const KIND_STATE: u8 = 4;
const KIND_FINISH: u8 = 5;
const KIND_RETURN: u8 = 6;
const KIND_CANCEL: u8 = 7;

const FLAG_FINAL: u8 = 1;
const FLAG_MORE: u8 = 2;
const FLAG_WHOLE: u8 = 4;
const FLAG_UNFENCED: u8 = 1;
const FLAG_PRESENT: u8 = 1;
const FLAG_UNPROVEN: u8 = 2;

/// A flow and its direction, which the flow alone does not have but a match does: with `swapped` the
/// greater end is the upstream one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Directed {
    /// The flow.
    pub flow: Flow,
    /// Its greater end is upstream.
    pub swapped: bool,
}

/// One record that is no packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Source: the flows that it serves, or with `last` those whose state is exported. Destination, called
    /// off: the flows that it has served meanwhile, and whose state it gives back.
    List {
        /// The part.
        handover: HoldId,
        /// After the freeze: no list follows.
        last: bool,
        /// The list goes on in the next record.
        more: bool,
        /// What is not on it needs no state of the source's, and what of it would come back could be
        /// taken in.
        whole: bool,
        /// At most [`LIST`], seen from upstream.
        flows: Vec<Directed>,
    },
    /// Whoever sends strays: all of them before the marker of this round are ahead of this.
    Fenced {
        /// The part.
        handover: HoldId,
        /// The marker's side.
        side: Side,
        /// The marker's round; [`FINAL`]: every flow.
        round: u32,
        /// No marker had come: the settling time ended the fence.
        unfenced: bool,
    },
    /// Source: the state is out. Destination, called off: that of the flows in its list is.
    State {
        /// The part.
        handover: HoldId,
        /// There was a function that gave some.
        present: bool,
        /// A quiet time, not a mark, ended the drain.
        unproven: bool,
        /// Bytes of state, by the function's own account.
        bytes: u64,
    },
    /// Destination: the controller is gone; freeze, fence and finish.
    Finish {
        /// The part.
        handover: HoldId,
    },
    /// Destination: it is called off, what I have comes back behind this.
    Return {
        /// The part.
        handover: HoldId,
    },
    /// Destination: the controller is gone and nothing has come here; forget it.
    Cancel {
        /// The part.
        handover: HoldId,
    },
}

impl Directed {
    /// How many there are (two bytes), a bit for each that says `swapped`, and the flows.
    fn write_list(flows: &[Directed], out: &mut Vec<u8>) {
        out.extend((flows.len() as u16).to_be_bytes());
        let octet = |eight: &[Directed]| {
            let bits = eight.iter().enumerate();
            bits.fold(0, |octet, (at, each)| octet | u8::from(each.swapped) << at)
        };
        out.extend(flows.chunks(8).map(octet));
        Flow::write_list(flows.iter().map(|each| &each.flow), out);
    }

    fn read_list(bytes: &[u8]) -> Result<Vec<Directed>, BadRecord> {
        let wrong = BadRecord("a list of flows");
        let (count, rest) = bytes.split_first_chunk::<2>().ok_or(wrong)?;
        let count = usize::from(u16::from_be_bytes(*count));
        if count > LIST {
            return Err(BadRecord("a list that is too long"));
        }
        let (bits, rest) = rest.split_at_checked(count.div_ceil(8)).ok_or(wrong)?;
        let flows = Flow::read_list(rest).map_err(|_| wrong)?;
        let swapped = |at: usize| bits[at / 8] >> (at % 8) & 1 != 0;
        let unused = count % 8 != 0 && bits[count / 8] >> (count % 8) != 0;
        if flows.len() != count || unused {
            return Err(wrong);
        }
        let directed = flows.into_iter().enumerate();
        Ok(directed
            .map(|(at, flow)| Directed {
                flow,
                swapped: swapped(at),
            })
            .collect())
    }
}

/// Bytes that are no record of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record that is not understood ({0}); run agents of one version")]
pub struct BadRecord(pub &'static str);

impl Record {
    /// The part of a handover that it is about.
    pub fn handover(&self) -> HoldId {
        match self {
            Record::List { handover, .. }
            | Record::Fenced { handover, .. }
            | Record::State { handover, .. }
            | Record::Finish { handover }
            | Record::Return { handover }
            | Record::Cancel { handover } => *handover,
        }
    }

    /// As bytes, without the length in front.
    pub fn write(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        let head = |out: &mut Vec<u8>, kind: u8, flags: u8| {
            out.push(kind);
            out.push(flags);
            out.extend(self.handover().to_be_bytes());
        };
        let bit = |set: bool, flag: u8| if set { flag } else { 0 };
        match self {
            Record::List {
                last,
                more,
                whole,
                flows,
                ..
            } => {
                let flags = bit(*last, FLAG_FINAL) | bit(*more, FLAG_MORE);
                let flags = flags | bit(*whole, FLAG_WHOLE);
                head(&mut out, KIND_LIST, flags);
                Directed::write_list(flows, &mut out);
            }
            Record::Fenced {
                side,
                round,
                unfenced,
                ..
            } => {
                head(&mut out, KIND_FENCED, bit(*unfenced, FLAG_UNFENCED));
                out.push(*side as u8);
                out.extend(round.to_be_bytes());
            }
            Record::State {
                present,
                unproven,
                bytes,
                ..
            } => {
                let flags = bit(*present, FLAG_PRESENT) | bit(*unproven, FLAG_UNPROVEN);
                head(&mut out, KIND_STATE, flags);
                out.extend(bytes.to_be_bytes());
            }
            Record::Finish { .. } => head(&mut out, KIND_FINISH, 0),
            Record::Return { .. } => head(&mut out, KIND_RETURN, 0),
            Record::Cancel { .. } => head(&mut out, KIND_CANCEL, 0),
        }
        out
    }

    /// What [`Record::write`] wrote; nothing may stand behind it.
    pub fn read(bytes: &[u8]) -> Result<Record, BadRecord> {
        let short = BadRecord("too short");
        let (kind, rest) = bytes.split_first().ok_or(short)?;
        let (flags, rest) = rest.split_first().ok_or(short)?;
        let (handover, rest) = rest.split_first_chunk::<8>().ok_or(short)?;
        let handover = u64::from_be_bytes(*handover);
        let known = |bits: u8| match flags & !bits {
            0 => Ok(()),
            _ => Err(BadRecord("unknown flags")),
        };
        let end = |rest: &[u8]| match rest.is_empty() {
            true => Ok(()),
            false => Err(BadRecord("too long")),
        };
        match *kind {
            KIND_LIST => {
                known(FLAG_FINAL | FLAG_MORE | FLAG_WHOLE)?;
                let flows = Directed::read_list(rest)?;
                Ok(Record::List {
                    handover,
                    last: flags & FLAG_FINAL != 0,
                    more: flags & FLAG_MORE != 0,
                    whole: flags & FLAG_WHOLE != 0,
                    flows,
                })
            }
            KIND_FENCED => {
                known(FLAG_UNFENCED)?;
                let [side @ (0 | 1), round @ ..] = rest else {
                    return Err(BadRecord("a side"));
                };
                let (round, rest) = round.split_first_chunk::<4>().ok_or(short)?;
                end(rest)?;
                Ok(Record::Fenced {
                    handover,
                    side: Side::ALL[usize::from(*side)],
                    round: u32::from_be_bytes(*round),
                    unfenced: flags & FLAG_UNFENCED != 0,
                })
            }
            KIND_STATE => {
                known(FLAG_PRESENT | FLAG_UNPROVEN)?;
                let (size, rest) = rest.split_first_chunk::<8>().ok_or(short)?;
                end(rest)?;
                Ok(Record::State {
                    handover,
                    present: flags & FLAG_PRESENT != 0,
                    unproven: flags & FLAG_UNPROVEN != 0,
                    bytes: u64::from_be_bytes(*size),
                })
            }
            KIND_FINISH | KIND_RETURN | KIND_CANCEL => {
                known(0)?;
                end(rest)?;
                Ok(match *kind {
                    KIND_FINISH => Record::Finish { handover },
                    KIND_RETURN => Record::Return { handover },
                    _ => Record::Cancel { handover },
                })
            }
            _ => Err(BadRecord("an unknown kind")),
        }
    }
}
