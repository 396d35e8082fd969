//! The sending end of a stream.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use flowferry_tls::Identity;
use flowferry_wire::{Command, KeyRing, Message, Sealer};

use super::dial::{self, Dialled, Dialling};
use super::stream::Stream;
use super::{GREETING, PROOF_MAX};
use crate::endpoint::Stray;
use crate::handover::record::VERSION;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that may be under way; what is beyond stays in the endpoint's bounded buffer.
const UNDER_WAY: usize = 4 << 20;

/// The sending end.
pub struct Sender {
    stream: Stream,
    /// Who is to be there, where that is known.
    expected: Option<u32>,
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
    pub fn connect(
        address: &str,
        identity: Option<&Identity>,
        keys: &KeyRing,
        sealer: &mut Sealer,
    ) -> io::Result<Sender> {
        let target = std::net::ToSocketAddrs::to_socket_addrs(address)?
            .next()
            .ok_or_else(|| io::Error::new(ErrorKind::NotFound, "no such host"))?;
        let socket = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT)?;
        socket.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        socket.set_nodelay(true)?;
        let mut stream = Stream::dialled(socket, identity)?;
        let greeting = dial::await_greeting(&mut stream, GREETING, CONNECT_TIMEOUT)?;
        let mut sender = Sender::over(stream, None, None);
        sender.prove(&greeting, keys, sealer)?;
        sender.stream.socket().set_nonblocking(true)?;
        Ok(sender)
    }

    /// Begin to connect to the agent at `peer`, that of instance `expected` if that is known;
    /// nothing here waits for it.
    pub fn dial(
        peer: SocketAddr,
        expected: Option<u32>,
        identity: Option<&Identity>,
        now: u64,
    ) -> io::Result<Sender> {
        let stream = Stream::dialled(dial::begin(peer)?, identity)?;
        Ok(Sender::over(stream, expected, Some(Dialling::since(now))))
    }

    /// Go on with a connection that was begun. True when it has just become ready.
    pub fn advance(&mut self, keys: &KeyRing, sealer: &mut Sealer, now: u64) -> io::Result<bool> {
        let Some(dialling) = &mut self.dialling else {
            return Ok(false);
        };
        match dialling.advance(&mut self.stream, GREETING, now)? {
            Dialled::Waiting => Ok(false),
            Dialled::Greeted(greeting) => {
                self.prove(&greeting, keys, sealer)?;
                self.dialling = None;
                Ok(true)
            }
        }
    }

    /// Answer a greeting, of whom we wanted to reach: we have the deployment's key.
    fn prove(&mut self, greeting: &[u8], keys: &KeyRing, sealer: &mut Sealer) -> io::Result<()> {
        let (version, rest) = greeting.split_at(2);
        if version != VERSION.to_be_bytes() {
            return Err(io::Error::other(
                "it speaks another version of the stream; run agents of one version",
            ));
        }
        let (to, number) = rest.split_at(4);
        let to = u32::from_be_bytes(to.try_into().expect("four"));
        let number = u64::from_be_bytes(number.try_into().expect("eight"));
        if let Some(expected) = self.expected.filter(|expected| *expected != to) {
            return Err(io::Error::other(format!(
                "instance {to} answers there, not instance {expected}; look at the instances' `peer`"
            )));
        }
        self.stream.check(to)?;
        let mut message = Message::new(Command::Query, number, to);
        let proof = sealer
            .seal_payload(keys, &mut message, PROOF_MAX)
            .map_err(io::Error::other)?;
        let mut answer = (proof.len() as u16).to_be_bytes().to_vec();
        answer.extend(proof);
        // Some 100 bytes into an empty buffer.
        match self.stream.write(&answer)? {
            taken if taken == answer.len() => Ok(()),
            _ => Err(ErrorKind::WriteZero.into()),
        }
    }

    /// Who is to answer.
    #[cfg(test)]
    pub fn expect(&mut self, instance: u32) {
        self.expected = Some(instance);
    }

    /// Whether records are on their way, or only wait for the connection.
    pub fn is_ready(&self) -> bool {
        self.dialling.is_none()
    }

    fn over(stream: Stream, expected: Option<u32>, dialling: Option<Dialling>) -> Sender {
        Sender {
            stream,
            expected,
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
        match &self.dialling {
            Some(dialling) => !dialling.is_connected() || self.stream.has_unsent(),
            None => self.sent < self.records.len() || self.stream.has_unsent(),
        }
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
        self.stream.send_on()?;
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
        self.stream.send_on()?;
        self.stream.socket().set_nonblocking(false)?;
        self.stream.socket().shutdown(Shutdown::Write)
    }

    /// After `end`: wait until the other end has said of all that was sent that it took it.
    pub fn await_taken(&mut self, deadline: Instant, taken: &mut Vec<Stray>) -> io::Result<()> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.sent == 0 || left.is_zero() {
                return Ok(());
            }
            self.stream.socket().set_read_timeout(Some(left))?;
            self.collect(taken)?;
        }
    }

    fn read_answers(&mut self) -> io::Result<()> {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk, &mut self.answers) {
            Ok(true) => Ok(()),
            Ok(false) => Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;
    use crate::endpoint::Part;
    use crate::key::{Key, Side};

    /// A sender that has sent `count` packets and ended, and the taking end, which has answered.
    fn ended(count: usize, answers: &[u64]) -> (Sender, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let (mut taker, _) = listener.accept().expect("connected");
        stream.set_nonblocking(true).expect("a socket");
        let stream = Stream::dialled(stream, None).expect("plain");
        let mut sender = Sender::over(stream, None, None);
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
