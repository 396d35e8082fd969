//! The taking end of a stream.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};

use flowferry_tls::Identity;
use flowferry_wire::{Command, KeyRing, Opener};

use super::PROOF_MAX;
use super::stream::Stream;
use crate::handover::record::{Record, VERSION};
use crate::key::Side;
use crate::shim::tap::MAX_READ;

/// What has come over a stream.
pub enum Received {
    /// A packet that strayed at the other instance.
    Packet(Side, Vec<u8>),
    /// Something about a handover.
    Record(Record),
}

/// The taking end.
pub struct Taker {
    stream: Stream,
    address: SocketAddr,
    number: u64,
    /// The instance that has proven itself.
    from: Option<u32>,
    input: Vec<u8>,
    greeted_ns: u64,
    taken: u64,
    told: u64,
    unanswered: VecDeque<u8>,
}

/// How long a connection may take to prove that it belongs to us.
const PROOF_NS: u64 = 2_000_000_000;

impl Taker {
    /// Greet an accepted connection. `number` must be unpredictable.
    pub fn greet(
        socket: TcpStream,
        address: SocketAddr,
        identity: Option<&Identity>,
        own: u32,
        number: u64,
        now: u64,
    ) -> io::Result<Taker> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let mut stream = Stream::accepted(socket, identity)?;
        let mut greeting = VERSION.to_be_bytes().to_vec();
        greeting.extend(own.to_be_bytes());
        greeting.extend(number.to_be_bytes());
        // Over TLS it waits until both have shaken hands.
        if stream.write(&greeting)? != greeting.len() {
            return Err(ErrorKind::WriteZero.into());
        }
        Ok(Taker {
            stream,
            address,
            number,
            from: None,
            input: Vec::new(),
            greeted_ns: now,
            taken: 0,
            told: 0,
            unanswered: VecDeque::new(),
        })
    }

    /// Whether it may send packets.
    pub fn is_trusted(&self) -> bool {
        self.from.is_some()
    }

    /// The instance at the other end, once it has proven itself.
    pub fn from(&self) -> Option<u32> {
        self.from
    }

    /// Where it came from.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Say that all records received so far are taken.
    pub fn acknowledge(&mut self) -> io::Result<()> {
        if self.unanswered.is_empty() && self.told != self.taken {
            self.told = self.taken;
            self.unanswered.extend(self.taken.to_be_bytes());
        }
        self.stream.send_on()?;
        while !self.unanswered.is_empty() {
            match self.stream.write(self.unanswered.as_slices().0) {
                Ok(length) => drop(self.unanswered.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What has arrived, in order; an error when the stream is to be closed.
    pub fn receive(
        &mut self,
        keys: &KeyRing,
        opener: &mut Opener,
        now: u64,
    ) -> io::Result<Vec<Received>> {
        if !self.is_trusted() && now - self.greeted_ns > PROOF_NS {
            return Err(self.said_nothing("within 2 s"));
        }
        let mut chunk = [0; 65_536];
        let mut closed = false;
        while !closed && self.input.len() <= 4 * MAX_READ {
            match self.stream.read(&mut chunk, &mut self.input) {
                Ok(open) => closed = !open,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let mut at = 0;
        if !self.is_trusted() {
            let Some(proof) = record::<2>(&self.input, &mut at) else {
                return match self.input.get(..2) {
                    Some(&[high, low]) if usize::from(high) << 8 | usize::from(low) > PROOF_MAX => {
                        Err(no_proof(high))
                    }
                    _ if closed => Err(self.said_nothing("before it closed the connection")),
                    _ => Ok(Vec::new()),
                };
            };
            let message = opener.open_payload(keys, proof).map_err(io::Error::other)?;
            if message.handover != self.number || message.command != Command::Query {
                return Err(io::Error::other("the proof is about another greeting"));
            }
            self.stream.check(message.from)?;
            self.from = Some(message.from);
        }
        let mut received = Vec::new();
        while let Some(record) = record::<4>(&self.input, &mut at) {
            received.push(match record {
                [side @ (0 | 1), frame @ ..] => {
                    Received::Packet(Side::ALL[usize::from(*side)], frame.to_vec())
                }
                record => Received::Record(Record::read(record).map_err(io::Error::other)?),
            });
        }
        self.taken += received.len() as u64;
        self.input.drain(..at);
        if self.input.len() > 2 * MAX_READ {
            return Err(io::Error::other("a record that is too long"));
        }
        if closed && received.is_empty() {
            Err(ErrorKind::UnexpectedEof.into())
        } else {
            Ok(received)
        }
    }

    fn said_nothing(&self, when: &str) -> io::Error {
        io::Error::other(if self.stream.is_shaking_hands() {
            format!("no TLS came {when}; give both ends `tls`, or neither")
        } else {
            format!("no proof of the deployment's key came {when}")
        })
    }
}

/// What came is longer than any proof.
fn no_proof(first: u8) -> io::Error {
    const HANDSHAKE: u8 = 0x16; // RFC 8446 §5.1
    io::Error::other(if first == HANDSHAKE {
        "it speaks TLS; give both ends `tls`, or neither"
    } else {
        "what it sent is no proof of the deployment's key"
    })
}

/// The record at `at`, behind its length of `N` bytes; moves `at` behind it.
fn record<'a, const N: usize>(input: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let length = input
        .get(*at..*at + N)?
        .iter()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    let record = input.get(*at + N..)?.get(..length)?;
    *at += N + length;
    Some(record)
}

impl AsFd for Taker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
