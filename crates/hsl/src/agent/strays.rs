//! The stream from one agent to another, over the management network: strays, and what the agents
//! tell each other about handovers (`handover::record`), in the order of sending.
//!
//! The taker greets with the version of the records, its instance id and a random number; the
//! sender answers with a sealed control message about that number (`query`, the number as handover
//! id), which shows that it has the deployment's key. Then come records: length (4 bytes, network
//! order, of what follows), kind (1 byte), contents. Kinds 0 and 1 are packets, the kind being
//! their side and the contents the frame with its virtio header. The taker answers with the number
//! of records it has taken so far (8 bytes, network order): only then are packets its to lose.
//! The stream is not encrypted; it belongs on a management network of its own until TLS is
//! configured there.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use flowferry_wire::{Command, KeyRing, Message, Opener, Sealer};

use super::dial::{self, Dialled, Dialling};
use crate::endpoint::Stray;
use crate::handover::record::{Record, VERSION};
use crate::key::Side;
use crate::shim::tap::MAX_READ;

const GREETING: usize = 14;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that may be under way; what is beyond stays in the endpoint's bounded buffer.
const UNDER_WAY: usize = 4 << 20;

/// The sending end.
pub struct Sender {
    stream: TcpStream,
    /// Not greeted yet, and since when it tries.
    dialling: Option<Dialling>,
    /// Sent or to be sent, and not acknowledged; strays, and records that are none.
    records: VecDeque<(Option<Stray>, Vec<u8>)>,
    bytes: usize,
    /// The first `sent` records are sent wholly, and `at` bytes of the next.
    sent: usize,
    at: usize,
    acknowledged: u64,
    answers: Vec<u8>,
}

impl Sender {
    /// Connect to the agent at `address` and prove that we belong together.
    pub fn connect(address: &str, keys: &KeyRing, sealer: &mut Sealer) -> io::Result<Sender> {
        let target = std::net::ToSocketAddrs::to_socket_addrs(address)?
            .next()
            .ok_or_else(|| io::Error::new(ErrorKind::NotFound, "no such host"))?;
        let mut stream = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
        stream.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        stream.set_nodelay(true)?;
        let mut greeting = [0; GREETING];
        stream.read_exact(&mut greeting)?;
        stream.write_all(&prove(&greeting, keys, sealer)?)?;
        stream.set_nonblocking(true)?;
        Ok(Sender::over(stream, None))
    }

    /// Begin to connect to the agent at `peer`; nothing here waits for it.
    pub fn dial(peer: SocketAddr, now: u64) -> io::Result<Sender> {
        let stream = dial::begin(peer)?;
        Ok(Sender::over(stream, Some(Dialling::since(now))))
    }

    /// Go on with a connection that was begun. True when it has just become ready.
    pub fn advance(&mut self, keys: &KeyRing, sealer: &mut Sealer, now: u64) -> io::Result<bool> {
        let Some(dialling) = &mut self.dialling else {
            return Ok(false);
        };
        match dialling.advance(&mut self.stream, GREETING, now)? {
            Dialled::Waiting => Ok(false),
            Dialled::Greeted(greeting) => {
                // Some 100 bytes into an empty buffer.
                self.stream.write_all(&prove(&greeting, keys, sealer)?)?;
                self.dialling = None;
                Ok(true)
            }
        }
    }

    /// Whether records are on their way, or only wait for the connection.
    pub fn is_ready(&self) -> bool {
        self.dialling.is_none()
    }

    fn over(stream: TcpStream, dialling: Option<Dialling>) -> Sender {
        Sender {
            stream,
            dialling,
            records: VecDeque::new(),
            bytes: 0,
            sent: 0,
            at: 0,
            acknowledged: 0,
            answers: Vec::new(),
        }
    }

    /// Whether another packet may be queued.
    pub fn has_room(&self) -> bool {
        self.bytes < UNDER_WAY
    }

    /// Queue a packet.
    pub fn push(&mut self, stray: Stray) {
        let mut record = (stray.frame.len() as u32 + 1).to_be_bytes().to_vec();
        record.push(stray.key.side() as u8);
        record.extend(&stray.frame);
        self.bytes += record.len();
        self.records.push_back((Some(stray), record));
    }

    /// Queue a record that is no packet.
    pub fn push_record(&mut self, bytes: &[u8]) {
        let mut record = (bytes.len() as u32).to_be_bytes().to_vec();
        record.extend(bytes);
        self.bytes += record.len();
        self.records.push_back((None, record));
    }

    /// Whether something waits to be sent.
    pub fn unsent(&self) -> bool {
        self.dialling.is_some() || self.sent < self.records.len()
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.records.is_empty()
    }

    /// Send what the socket takes; the packets that the other end has taken.
    pub fn flush(&mut self, taken: &mut Vec<Stray>) -> io::Result<()> {
        if self.dialling.is_some() {
            return Ok(());
        }
        while let Some((_, record)) = self.records.get(self.sent) {
            match self.stream.write(&record[self.at..]) {
                Ok(length) => self.at += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if self.at == record.len() {
                self.at = 0;
                self.sent += 1;
            }
        }
        self.collect(taken)
    }

    /// Read what the other end has taken; nothing is sent.
    pub fn collect(&mut self, taken: &mut Vec<Stray>) -> io::Result<()> {
        self.read_answers()?;
        while let Some((answer, rest)) = self.answers.split_first_chunk::<8>() {
            let number = u64::from_be_bytes(*answer);
            let news = number.wrapping_sub(self.acknowledged) as usize;
            if news > self.sent {
                return Err(io::Error::other(
                    "an acknowledgement of what was never sent",
                ));
            }
            self.answers = rest.to_vec();
            self.acknowledged = number;
            self.sent -= news;
            for (stray, record) in self.records.drain(..news) {
                self.bytes -= record.len();
                taken.extend(stray);
            }
        }
        Ok(())
    }

    /// Send nothing more. Whatever has been sent may still be taken.
    pub fn end(&mut self) -> io::Result<()> {
        self.stream.set_nonblocking(false)?;
        self.stream.shutdown(Shutdown::Write)
    }

    /// After `end`: wait until the other end has said of all that was sent that it took it.
    pub fn await_taken(&mut self, deadline: Instant, taken: &mut Vec<Stray>) -> io::Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.sent == 0 || left.is_zero() {
                return Ok(());
            }
            self.stream.set_read_timeout(Some(left))?;
            self.collect(taken)?;
        }
    }

    fn read_answers(&mut self) -> io::Result<()> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                self.answers.extend(&chunk[..length]);
                Ok(())
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The packets that the other end never took.
    pub fn into_untaken(self) -> impl Iterator<Item = Stray> {
        self.records.into_iter().filter_map(|(stray, _)| stray)
    }
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The answer to a greeting: that we have the deployment's key.
fn prove(greeting: &[u8], keys: &KeyRing, sealer: &mut Sealer) -> io::Result<Vec<u8>> {
    let (version, rest) = greeting.split_at(2);
    if version != VERSION.to_be_bytes() {
        return Err(io::Error::other(
            "it speaks another version of the stream; run agents of one version",
        ));
    }
    let (to, number) = rest.split_at(4);
    let to = u32::from_be_bytes(to.try_into().expect("four"));
    let number = u64::from_be_bytes(number.try_into().expect("eight"));
    let mut message = Message::new(Command::Query, number, to);
    let proof = sealer
        .seal_payload(keys, &mut message, 1_500)
        .map_err(io::Error::other)?;
    let mut answer = (proof.len() as u16).to_be_bytes().to_vec();
    answer.extend(proof);
    Ok(answer)
}

/// What has come over a stream.
pub enum Received {
    /// A packet that strayed at the other instance.
    Packet(Side, Vec<u8>),
    /// Something about a handover.
    Record(Record),
}

/// The taking end.
pub struct Taker {
    stream: TcpStream,
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
    pub fn greet(mut stream: TcpStream, own: u32, number: u64, now: u64) -> io::Result<Taker> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let mut greeting = VERSION.to_be_bytes().to_vec();
        greeting.extend(own.to_be_bytes());
        greeting.extend(number.to_be_bytes());
        stream.write_all(&greeting)?;
        Ok(Taker {
            stream,
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

    /// Say that all records received so far are taken.
    pub fn acknowledge(&mut self) -> io::Result<()> {
        if self.unanswered.is_empty() && self.told != self.taken {
            self.told = self.taken;
            self.unanswered.extend(self.taken.to_be_bytes());
        }
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
            return Err(ErrorKind::TimedOut.into());
        }
        let mut chunk = [0; 65_536];
        let mut closed = false;
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    closed = true;
                    break;
                }
                Ok(length) => self.input.extend(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.input.len() > 4 * MAX_READ {
                break;
            }
        }
        let mut at = 0;
        if !self.is_trusted() {
            let Some(proof) = record::<2>(&self.input, &mut at) else {
                return if closed {
                    Err(ErrorKind::UnexpectedEof.into())
                } else {
                    Ok(Vec::new())
                };
            };
            let message = opener.open_payload(keys, proof).map_err(io::Error::other)?;
            if message.handover != self.number || message.command != Command::Query {
                return Err(io::Error::other("the proof is about another greeting"));
            }
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::endpoint::Part;
    use crate::key::Key;

    /// A sender that has sent `count` packets and ended, and the taking end, which has answered.
    fn ended(count: usize, answers: &[u64]) -> (Sender, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let (mut taker, _) = listener.accept().expect("connected");
        stream.set_nonblocking(true).expect("a socket");
        let mut sender = Sender::over(stream, None);
        let frame = [0u8; 64];
        let key = Key::parse(&frame, Side::Upstream).expect("a header").key;
        for _ in 0..count {
            sender.push(Stray {
                hold: 1,
                key,
                part: Part::Captured,
                frame: frame.into(),
            });
        }
        sender.flush(&mut Vec::new()).expect("room in the socket");
        sender.end().expect("connected");
        for answer in answers {
            taker.write_all(&answer.to_be_bytes()).expect("open");
        }
        (sender, taker)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn the_last_answers_say_what_is_taken() {
        let (mut sender, _taker) = ended(3, &[1, 3]);
        let mut taken = Vec::new();
        sender.await_taken(soon(), &mut taken).expect("all taken");
        assert_eq!((taken.len(), sender.into_untaken().count()), (3, 0));
    }

    #[test]
    fn what_a_closed_stream_no_longer_says_is_not_taken() {
        let (mut sender, taker) = ended(3, &[2]);
        drop(taker);
        let mut taken = Vec::new();
        assert!(sender.await_taken(soon(), &mut taken).is_err());
        assert_eq!((taken.len(), sender.into_untaken().count()), (2, 1));
    }

    #[test]
    fn a_silent_end_is_not_waited_for_beyond_the_deadline() {
        let (mut sender, _taker) = ended(3, &[]);
        let mut taken = Vec::new();
        sender
            .await_taken(Instant::now(), &mut taken)
            .expect("no answer is no error");
        assert_eq!((taken.len(), sender.into_untaken().count()), (0, 3));
    }

    #[test]
    fn more_than_was_sent_cannot_be_taken() {
        let (mut sender, _taker) = ended(3, &[4]);
        assert!(sender.await_taken(soon(), &mut Vec::new()).is_err());
    }
}
