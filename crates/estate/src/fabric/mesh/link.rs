//! One connection to a peer, plain or TLS. Any thread sends: it writes to the socket itself, and what
//! the socket will not take waits in a queue for the I/O thread. Only the I/O thread receives.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mio::net::TcpStream;
use parking_lot::Mutex;

use super::frame::Frame;

/// A member so many bytes behind is given up: it can only cost memory.
const BACKLOG_MAX: usize = 64 << 20;
/// Bytes that are read at once; a queue that was longer gives its memory back.
pub const READ_AT_ONCE: usize = 64 << 10;

struct Sending {
    tls: Option<Box<rustls::Connection>>,
    queue: Vec<u8>,
    // Invariant: at most `queue.len()`; what is before it has been written.
    written: usize,
    overrun: bool,
}

/// One connection.
pub struct Link {
    stream: TcpStream,
    sending: Mutex<Sending>,
    encrypted: bool,
    /// Something was sent since the last heartbeat was due.
    busy: AtomicBool,
    sent: AtomicU64,
}

/// What came of reading.
#[derive(Debug, PartialEq, Eq)]
pub enum Reading {
    /// All there was; more may come.
    Open,
    /// The peer has closed its side.
    Ended,
}

impl Link {
    pub fn new(stream: TcpStream, tls: Option<rustls::Connection>) -> Self {
        Self {
            stream,
            encrypted: tls.is_some(),
            sending: Mutex::new(Sending {
                tls: tls.map(Box::new),
                queue: Vec::new(),
                written: 0,
                overrun: false,
            }),
            busy: AtomicBool::new(false),
            sent: AtomicU64::new(0),
        }
    }

    /// The error of a connection attempt, once it is over.
    pub fn connected(&self) -> io::Result<()> {
        match self.stream.take_error()? {
            Some(why) => Err(why),
            None => self.stream.peer_addr().map(drop),
        }
    }

    pub fn peer_address(&self) -> io::Result<std::net::SocketAddr> {
        self.stream.peer_addr()
    }

    /// Bytes sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether nothing was sent since the last call.
    pub fn was_quiet(&self) -> bool {
        !self.busy.swap(false, Ordering::Relaxed)
    }

    pub fn send(&self, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        frame.emit(&mut bytes);
        self.write(&bytes, &[]);
    }

    pub fn send_message(&self, body: &[u8]) {
        self.write(&Frame::message_head(body.len()), body);
    }

    fn write(&self, head: &[u8], body: &[u8]) {
        self.busy.store(true, Ordering::Relaxed);
        self.sent
            .fetch_add((head.len() + body.len()) as u64, Ordering::Relaxed);
        let mut sending = self.sending.lock();
        if sending.overrun {
            return;
        }
        if let Some(tls) = &mut sending.tls {
            let mut plain = tls.writer();
            // Into memory: this cannot fail, the buffer has no limit.
            let _ = plain.write_all(head).and_then(|()| plain.write_all(body));
        }
        if self.encrypted {
            self.pump(&mut sending);
            return;
        }
        let mut taken = 0;
        if sending.queue.is_empty() {
            taken = loop {
                match (&self.stream).write_vectored(&[IoSlice::new(head), IoSlice::new(body)]) {
                    Ok(count) => break count,
                    Err(why) if why.kind() == ErrorKind::Interrupted => {}
                    // A broken link is noticed where it is read.
                    Err(_) => break 0,
                }
            };
        }
        let from_head = taken.min(head.len());
        sending.queue.extend_from_slice(&head[from_head..]);
        sending.queue.extend_from_slice(&body[taken - from_head..]);
        self.check_backlog(&mut sending);
    }

    fn check_backlog(&self, sending: &mut Sending) {
        if sending.queue.len() - sending.written > BACKLOG_MAX {
            sending.overrun = true;
            sending.queue = Vec::new();
            sending.written = 0;
            let _ = self.stream.shutdown(Shutdown::Both);
        }
    }

    /// Encrypts what waits, and writes what the socket takes.
    fn pump(&self, sending: &mut Sending) {
        let Sending { tls, queue, .. } = sending;
        if let Some(tls) = tls {
            while tls.wants_write() {
                if tls.write_tls(queue).is_err() {
                    break;
                }
            }
        }
        while sending.written < sending.queue.len() {
            match (&self.stream).write(&sending.queue[sending.written..]) {
                Ok(0) => break,
                Ok(count) => sending.written += count,
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        if sending.written == sending.queue.len() {
            sending.queue.clear();
            sending.queue.shrink_to(READ_AT_ONCE);
            sending.written = 0;
        } else if sending.written > sending.queue.len() / 2 {
            sending.queue.drain(..sending.written);
            sending.written = 0;
        }
        self.check_backlog(sending);
    }

    /// The socket takes bytes again. Returns whether all that waited has gone.
    pub fn writable(&self) -> bool {
        let mut sending = self.sending.lock();
        self.pump(&mut sending);
        sending.queue.is_empty()
    }

    /// Whether something still waits that the socket would not take.
    pub fn is_behind(&self) -> bool {
        !self.sending.lock().queue.is_empty()
    }

    /// Why nothing more can be sent, if that is so.
    pub fn overrun(&self) -> bool {
        self.sending.lock().overrun
    }

    /// Appends what has come to `input`, by way of `room`.
    pub fn read(&self, room: &mut [u8], input: &mut Vec<u8>) -> io::Result<Reading> {
        if self.encrypted {
            return self.read_tls(input);
        }
        loop {
            match (&self.stream).read(room) {
                Ok(0) => return Ok(Reading::Ended),
                Ok(count) => {
                    input.extend_from_slice(&room[..count]);
                    // A short read has emptied the socket (epoll(7)): the next byte is another event.
                    if count < room.len() {
                        return Ok(Reading::Open);
                    }
                }
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(Reading::Open),
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                Err(why) => return Err(why),
            }
        }
    }

    fn read_tls(&self, input: &mut Vec<u8>) -> io::Result<Reading> {
        let mut sending = self.sending.lock();
        let outcome = loop {
            let Some(tls) = &mut sending.tls else {
                break Ok(Reading::Ended);
            };
            match tls.read_tls(&mut &self.stream) {
                Ok(0) => break Ok(Reading::Ended),
                Ok(_) => {}
                Err(why) if why.kind() == ErrorKind::WouldBlock => break Ok(Reading::Open),
                Err(why) if why.kind() == ErrorKind::Interrupted => continue,
                Err(why) => break Err(why),
            }
            let state = match tls.process_new_packets() {
                Ok(state) => state,
                Err(why) => break Err(io::Error::new(ErrorKind::InvalidData, why)),
            };
            let start = input.len();
            input.resize(start + state.plaintext_bytes_to_read(), 0);
            if let Err(why) = tls.reader().read_exact(&mut input[start..]) {
                break Err(why);
            }
        };
        self.pump(&mut sending); // handshake messages and alerts
        outcome
    }

    /// The certificate that the peer has shown, if the link is encrypted and that far.
    pub fn certificate(&self) -> Option<rustls::pki_types::CertificateDer<'static>> {
        let sending = self.sending.lock();
        let shown = sending.tls.as_ref()?.peer_certificates()?;
        shown.first().map(|c| c.clone().into_owned())
    }

    /// Nothing more will be sent.
    pub fn shut_writing(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Ends both directions; the I/O thread sees it.
    pub fn shut(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}
