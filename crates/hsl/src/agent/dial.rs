//! Connections to other agents, made without waiting: a peer that is slow or gone must not keep the
//! agent from its packets.

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, connect, getsockopt, setsockopt, socket,
    sockopt,
};

/// How long connection and greeting may take, in nanoseconds.
const PATIENCE_NS: u64 = 1_000_000_000;

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

    /// Look how far the connection is; a greeting has `length` bytes.
    pub fn advance(
        &mut self,
        stream: &mut TcpStream,
        length: usize,
        now: u64,
    ) -> io::Result<Dialled> {
        if !self.connected {
            let error = getsockopt(stream, sockopt::SocketError)?;
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            self.connected = stream.peer_addr().is_ok();
        }
        while self.connected && self.greeting.len() < length {
            let mut rest = vec![0; length - self.greeting.len()];
            match stream.read(&mut rest) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => self.greeting.extend(&rest[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.greeting.len() == length {
            return Ok(Dialled::Greeted(std::mem::take(&mut self.greeting)));
        }
        if now.saturating_sub(self.began_ns) > PATIENCE_NS {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(Dialled::Waiting)
    }
}
