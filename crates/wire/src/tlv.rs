//! Type-length-value fields: a type and a length of 16 bits each, then the value.
//!
//! A type with the bit 0x8000 set may be skipped by whoever does not know it; any other unknown
//! type makes the frame malformed, so that nothing is carried out half-understood.

use crate::command::Command;
use crate::cursor::Reader;
use crate::error::{Malformed, Unsendable};
use crate::flow::Flow;
use crate::matching::Match;
use crate::numbered::numbered;
use crate::report::{COUNT_LEN, Counts, Reason, Report, Side, emit_counts, parse_counts};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Set in a TLV type that may be skipped.
pub const OPTIONAL: u16 = 0x8000;
/// Bytes before a TLV's value.
pub const TLV_HEADER_LEN: usize = 4;

/// Longest strategy name in bytes.
pub const STRATEGY_MAX: usize = 32;
/// Longest instance name in bytes.
pub const NAME_MAX: usize = 64;
/// Longest error text in bytes.
pub const TEXT_MAX: usize = 512;
/// Most parts of one list: at 100 IPv4 flows a frame, some 400,000 flows.
pub const MAX_PARTS: u16 = 4096;

numbered! {
    /// What a TLV holds.
    Kind: u16 {
        /// The rule's match.
        Match = 0x0001 "match",
        /// The match on the downstream side where it is not the mirror (address translation).
        DownstreamMatch = 0x0002 "downstream_match",
        /// Matches of higher rules, whose flows this handover leaves alone.
        Overriding = 0x0003 "overriding",
        /// The rule's priority r (SHarP §3.3).
        Priority = 0x0004 "priority",
        /// A source instance; may repeat.
        Source = 0x0005 "source",
        /// The destination instance.
        Destination = 0x0006 "destination",
        /// Where an instance's ordered stream listens; may repeat.
        Peer = 0x0007 "peer",
        /// Flows.
        Flows = 0x0008 "flows",
        /// The side meant; without it, both.
        Side = 0x0009 "side",
        /// Figures.
        Counts = 0x000a "counts",
        /// Why not.
        Error = 0x000b "error",
        /// Milliseconds from receipt in which the command must be done.
        Deadline = 0x000c "deadline",
        /// Milliseconds after which agents finish by themselves.
        Settling = 0x000d "settling",
        /// Name of the strategy.
        Strategy = 0x000e "strategy",
        /// Run of the addressed or reporting agent.
        Epoch = 0x000f "epoch",
        /// Place of this message among those that carry one list.
        Part = 0x0010 "part",
        /// The request that this answers.
        InReplyTo = 0x0011 "in_reply_to",
        /// Number of a marker, flush or drain round.
        Round = 0x0012 "round",
        /// Processor whose queue is flushed.
        Cpu = 0x0013 "cpu",
        /// Name of the reporting instance.
        Name = 0x8014 "name",
        /// Where a handover is at the reporting agent, in a word.
        Step = 0x8015 "step",
    }
}

impl Kind {
    /// Whether a message may hold several of these.
    pub const fn repeats(self) -> bool {
        matches!(self, Self::Source | Self::Peer)
    }
}

/// Where an instance's ordered stream listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The instance.
    pub instance: u32,
    /// Its address on the management network.
    pub address: IpAddr,
    /// Its TCP port.
    pub port: u16,
}

/// Place of a message among those that carry one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Number of the list, chosen by the sender and rising, so that parts of an older list with
    /// other contents are never joined to it.
    pub list: u32,
    /// Which part, from 0.
    pub part: u16,
    /// How many there are, from 1 to [`MAX_PARTS`].
    pub parts: u16,
}

/// The request that a message answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InReplyTo {
    /// Its command.
    pub command: Command,
    /// Its sequence number.
    pub sequence: u64,
}

/// One typed field.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is described at its Kind")]
pub enum Tlv {
    Match(Match),
    DownstreamMatch(Match),
    Overriding(Vec<Match>),
    Priority(u16),
    Source(u32),
    Destination(u32),
    Peer(Peer),
    Flows(Vec<Flow>),
    Side(Side),
    Counts(Counts),
    Error(Report),
    Deadline(u32),
    Settling(u32),
    Strategy(String),
    Epoch(u64),
    Part(Part),
    InReplyTo(InReplyTo),
    Round(u32),
    Cpu(u16),
    Name(String),
    Step(String),
}

impl Tlv {
    /// What it holds.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Match(_) => Kind::Match,
            Self::DownstreamMatch(_) => Kind::DownstreamMatch,
            Self::Overriding(_) => Kind::Overriding,
            Self::Priority(_) => Kind::Priority,
            Self::Source(_) => Kind::Source,
            Self::Destination(_) => Kind::Destination,
            Self::Peer(_) => Kind::Peer,
            Self::Flows(_) => Kind::Flows,
            Self::Side(_) => Kind::Side,
            Self::Counts(_) => Kind::Counts,
            Self::Error(_) => Kind::Error,
            Self::Deadline(_) => Kind::Deadline,
            Self::Settling(_) => Kind::Settling,
            Self::Strategy(_) => Kind::Strategy,
            Self::Epoch(_) => Kind::Epoch,
            Self::Part(_) => Kind::Part,
            Self::InReplyTo(_) => Kind::InReplyTo,
            Self::Round(_) => Kind::Round,
            Self::Cpu(_) => Kind::Cpu,
            Self::Name(_) => Kind::Name,
            Self::Step(_) => Kind::Step,
        }
    }

    /// Bytes on the wire, type and length included.
    pub fn len(&self) -> usize {
        TLV_HEADER_LEN
            + match self {
                Self::Match(m) | Self::DownstreamMatch(m) => m.len(),
                Self::Overriding(list) => list.iter().map(Match::len).sum(),
                Self::Flows(list) => list.iter().map(Flow::len).sum(),
                Self::Side(_) => 1,
                Self::Priority(_) | Self::Cpu(_) => 2,
                Self::Source(_)
                | Self::Destination(_)
                | Self::Deadline(_)
                | Self::Settling(_)
                | Self::Round(_) => 4,
                Self::Epoch(_) | Self::Part(_) => 8,
                Self::InReplyTo(_) => 9,
                Self::Peer(peer) => 4 + if peer.address.is_ipv4() { 4 } else { 16 } + 2,
                Self::Counts(counts) => counts.len() * COUNT_LEN,
                Self::Error(report) => 2 + report.text.len(),
                Self::Strategy(text) | Self::Name(text) | Self::Step(text) => text.len(),
            }
    }

    /// Never: a TLV has a type and a length at least.
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// Whether every value lies within the bounds of its field.
    ///
    /// # Errors
    /// [`Unsendable::Value`].
    pub fn check(&self) -> Result<(), Unsendable> {
        let checked = match self {
            Self::Match(m) | Self::DownstreamMatch(m) => m.check(),
            Self::Overriding(list) => list.iter().try_for_each(Match::check),
            Self::Part(part) => check_part(*part),
            Self::Strategy(text) | Self::Step(text) => check_name(text, STRATEGY_MAX),
            Self::Name(text) => check_name(text, NAME_MAX),
            Self::Error(report) => check_text(&report.text),
            _ => Ok(()),
        };
        checked.map_err(|why| Unsendable::Value {
            kind: self.kind(),
            why,
        })
    }

    // Requires that the value is at most 65,535 bytes, which `Message` has checked.
    pub(crate) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.kind().number().to_be_bytes());
        out.extend_from_slice(&((self.len() - TLV_HEADER_LEN) as u16).to_be_bytes());
        match self {
            Self::Match(m) | Self::DownstreamMatch(m) => m.emit(out),
            Self::Overriding(list) => list.iter().for_each(|m| m.emit(out)),
            Self::Flows(list) => list.iter().for_each(|flow| flow.emit(out)),
            Self::Side(side) => out.push(side.number()),
            Self::Priority(n) | Self::Cpu(n) => out.extend_from_slice(&n.to_be_bytes()),
            Self::Source(n)
            | Self::Destination(n)
            | Self::Deadline(n)
            | Self::Settling(n)
            | Self::Round(n) => out.extend_from_slice(&n.to_be_bytes()),
            Self::Epoch(n) => out.extend_from_slice(&n.to_be_bytes()),
            Self::Part(part) => {
                out.extend_from_slice(&part.list.to_be_bytes());
                out.extend_from_slice(&part.part.to_be_bytes());
                out.extend_from_slice(&part.parts.to_be_bytes());
            }
            Self::InReplyTo(request) => {
                out.push(request.command.number());
                out.extend_from_slice(&request.sequence.to_be_bytes());
            }
            Self::Peer(peer) => {
                out.extend_from_slice(&peer.instance.to_be_bytes());
                match peer.address {
                    IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
                    IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
                }
                out.extend_from_slice(&peer.port.to_be_bytes());
            }
            Self::Counts(counts) => emit_counts(counts, out),
            Self::Error(report) => {
                out.extend_from_slice(&report.reason.number().to_be_bytes());
                out.extend_from_slice(report.text.as_bytes());
            }
            Self::Strategy(text) | Self::Name(text) | Self::Step(text) => {
                out.extend_from_slice(text.as_bytes());
            }
        }
    }

    /// Read the value of a TLV. `offset` is that of the value in the control payload.
    pub(crate) fn parse(kind: Kind, value: &[u8], offset: usize) -> Result<Self, Malformed> {
        let mut reader = Reader::new(kind, value, offset);
        let tlv = match kind {
            Kind::Match => Self::Match(Match::parse(&mut reader)?),
            Kind::DownstreamMatch => Self::DownstreamMatch(Match::parse(&mut reader)?),
            Kind::Overriding => Self::Overriding(list(&mut reader, Match::parse)?),
            Kind::Priority => Self::Priority(reader.u16()?),
            Kind::Source => Self::Source(reader.u32()?),
            Kind::Destination => Self::Destination(reader.u32()?),
            Kind::Peer => Self::Peer(parse_peer(&mut reader, value.len())?),
            Kind::Flows => Self::Flows(list(&mut reader, Flow::parse)?),
            Kind::Side => match Side::from_number(reader.u8()?) {
                Some(side) => Self::Side(side),
                None => return Err(reader.fault(offset, "side is neither 1 nor 2")),
            },
            Kind::Counts => Self::Counts(parse_counts(&mut reader)?),
            Kind::Error => {
                let reason = Reason::from_number(reader.u16()?).unwrap_or(Reason::Other);
                let text = reader.text()?;
                Self::Error(Report { reason, text })
            }
            Kind::Deadline => Self::Deadline(reader.u32()?),
            Kind::Settling => Self::Settling(reader.u32()?),
            Kind::Strategy => Self::Strategy(reader.text()?),
            Kind::Epoch => Self::Epoch(reader.u64()?),
            Kind::Part => Self::Part(Part {
                list: reader.u32()?,
                part: reader.u16()?,
                parts: reader.u16()?,
            }),
            Kind::InReplyTo => {
                let Some(command) = Command::from_number(reader.u8()?) else {
                    return Err(reader.fault(offset, "answers an unknown command"));
                };
                let sequence = reader.u64()?;
                Self::InReplyTo(InReplyTo { command, sequence })
            }
            Kind::Round => Self::Round(reader.u32()?),
            Kind::Cpu => Self::Cpu(reader.u16()?),
            Kind::Name => Self::Name(reader.text()?),
            Kind::Step => Self::Step(reader.text()?),
        };
        reader.finish()?;
        match tlv.check() {
            Err(Unsendable::Value { kind, why }) => Err(Malformed::Value { kind, offset, why }),
            _ => Ok(tlv),
        }
    }
}

fn list<T>(
    reader: &mut Reader<'_>,
    parse: fn(&mut Reader<'_>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let mut out = Vec::new();
    while !reader.is_empty() {
        out.push(parse(reader)?);
    }
    Ok(out)
}

fn parse_peer(reader: &mut Reader<'_>, len: usize) -> Result<Peer, Malformed> {
    let instance = reader.u32()?;
    // The length tells the family; an IPv4 entry has 10 bytes, an IPv6 entry 22.
    let address = if len < 22 {
        IpAddr::V4(Ipv4Addr::from(reader.array::<4>()?))
    } else {
        IpAddr::V6(Ipv6Addr::from(reader.array::<16>()?))
    };
    let port = reader.u16()?;
    Ok(Peer {
        instance,
        address,
        port,
    })
}

fn check_part(part: Part) -> Result<(), &'static str> {
    if part.part >= part.parts {
        return Err("part must be below parts");
    }
    if part.parts > MAX_PARTS {
        return Err("a list has 4096 parts at most; move fewer flows at a time");
    }
    Ok(())
}

fn check_name(text: &str, most: usize) -> Result<(), &'static str> {
    if text.is_empty() || text.len() > most {
        return Err("a name has 1 byte at least and 32 (strategy, step) or 64 (instance) at most");
    }
    if text.chars().any(char::is_control) {
        return Err("a name has no control characters");
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), &'static str> {
    if text.len() > TEXT_MAX {
        return Err("an error text has 512 bytes at most; shorten it");
    }
    Ok(())
}
