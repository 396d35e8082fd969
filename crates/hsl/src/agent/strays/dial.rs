//! Connections to other agents, made without waiting: a peer that is slow or gone must not keep the
//! agent from its packets.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, setsockopt, socket,
    sockopt,
};

use super::stream::Stream;

/// How long connection and greeting may take, in nanoseconds.
const PATIENCE_NS: u64 = 1_000_000_000;

/// Bytes read at once: a greeting, or a step of a TLS handshake.
const ROOM: usize = 4096;

/// A connection that is being made.
#[derive(Debug)]
pub struct Dialling {
    began_ns: u64,
    connected: bool,
    greeting: Vec<u8>,
}

/// How far it is.
pub enum Dialled {
    /// Not there yet.
    Waiting,
    /// The other end has said this.
    Greeted(Vec<u8>),
}

/// Begin to connect.
pub fn begin(peer: SocketAddr) -> io::Result<TcpStream> {
    let family = match peer {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(peer)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

impl Dialling {
    /// From now on.
    pub fn since(now: u64) -> Dialling {
        Dialling {
            began_ns: now,
            connected: false,
            greeting: Vec::new(),
        }
    }

    /// Whether the other end has taken the connection.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Look how far the connection is; a greeting has `length` bytes.
    pub fn advance(&mut self, stream: &mut Stream, length: usize, now: u64) -> io::Result<Dialled> {
        if !self.connected {
            let error = getsockopt(stream.socket(), sockopt::SocketError)?;
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            self.connected = stream.socket().peer_addr().is_ok();
        }
        if self.connected {
            stream.send_on()?;
        }
        let mut room = [0; ROOM];
        while self.connected && self.greeting.len() < length {
            match stream.read(&mut room, &mut self.greeting) {
                Ok(true) => {}
                Ok(false) => return Err(closed()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        if self.greeting.len() >= length {
            return whole(std::mem::take(&mut self.greeting), length).map(Dialled::Greeted);
        }
        if now.saturating_sub(self.began_ns) > PATIENCE_NS {
            return Err(if self.connected {
                silent()
            } else {
                ErrorKind::TimedOut.into()
            });
        }
        Ok(Dialled::Waiting)
    }
}

/// The greeting, over a stream that blocks for at most `patience` at a time.
pub fn await_greeting(
    stream: &mut Stream,
    length: usize,
    patience: Duration,
) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let mut greeting = Vec::new();
    let mut room = [0; ROOM];
    while greeting.len() < length {
        stream.send_on()?;
        match stream.read(&mut room, &mut greeting) {
            Ok(true) if Instant::now() < deadline => {}
            Ok(true) => return Err(silent()),
            Ok(false) => return Err(closed()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(silent()),
            Err(error) => return Err(error),
        }
    }
    whole(greeting, length)
}

fn whole(greeting: Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
    if greeting.len() > length {
        return Err(io::Error::other("what it sent is no greeting of an agent"));
    }
    Ok(greeting)
}

fn silent() -> io::Error {
    io::Error::new(
        ErrorKind::TimedOut,
        "it took the connection and sent no greeting; give both ends `tls`, or neither",
    )
}

fn closed() -> io::Error {
    io::Error::new(
        ErrorKind::UnexpectedEof,
        "it closed the connection without a greeting; see its log",
    )
}
