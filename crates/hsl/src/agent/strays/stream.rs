//! The bytes between two agents: as they are, or over TLS 1.3 with a certificate at either end.
//!
//! A certificate stands for an instance by its number (`instance-7`): that is what agents know each
//! other by. TLS itself believes everyone whom the authority has signed; whose number an end claims
//! comes in the greeting, or in the proof, and [`Stream::check`] compares.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use flowferry_tls::{Connection, Error, Identity, refusal, stands_for};

/// The name in an instance's certificate.
pub fn certificate_name(instance: u32) -> String {
    format!("instance-{instance}")
}

/// A connection; it blocks if its socket does.
pub struct Stream {
    socket: TcpStream,
    tls: Option<Box<Connection>>,
}

impl Stream {
    /// Our end of a connection that we have begun.
    pub fn dialled(socket: TcpStream, identity: Option<&Identity>) -> io::Result<Stream> {
        Stream::over(socket, identity.map(Identity::dial))
    }

    /// Our end of one that has come to us.
    pub fn accepted(socket: TcpStream, identity: Option<&Identity>) -> io::Result<Stream> {
        Stream::over(socket, identity.map(Identity::accept))
    }

    fn over(socket: TcpStream, tls: Option<Result<Connection, Error>>) -> io::Result<Stream> {
        let tls = tls.transpose().map_err(io::Error::other)?.map(Box::new);
        Ok(Stream { socket, tls })
    }

    /// The socket beneath.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether TLS is still being agreed on.
    pub fn is_shaking_hands(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Whether the other end may be `instance`: always, where there is no TLS.
    pub fn check(&self, instance: u32) -> io::Result<()> {
        let Some(tls) = &self.tls else {
            return Ok(());
        };
        let name = certificate_name(instance);
        let shown = tls.peer_certificates().and_then(<[_]>::first);
        if shown.is_some_and(|shown| stands_for(shown, &[&name])) {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "it says that it is instance {instance}, and its certificate does not stand for {name}"
        )))
    }

    /// Take some of `bytes`; over TLS no more while earlier ones have not left.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.socket.write(bytes);
        };
        send_on(tls, &mut self.socket)?;
        let taken = tls.writer().write(bytes)?;
        match send_on(tls, &mut self.socket) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Send what TLS still has to send, as far as the socket takes it.
    pub fn send_on(&mut self) -> io::Result<()> {
        match &mut self.tls {
            Some(tls) => match send_on(tls, &mut self.socket) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
                done => done,
            },
            None => Ok(()),
        }
    }

    /// Whether TLS has bytes that the socket has not taken.
    pub fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Append what comes with one read of the socket, at most as much as `room`; `false`: no more
    /// will come. Nothing may have been appended though more will come: TLS has messages of its own.
    pub fn read(&mut self, room: &mut [u8], into: &mut Vec<u8>) -> io::Result<bool> {
        let length = loop {
            match self.socket.read(room) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        let mut rest = &room[..length];
        let Some(tls) = &mut self.tls else {
            into.extend_from_slice(rest);
            return Ok(length > 0);
        };
        while !rest.is_empty() {
            if tls.read_tls(&mut rest)? == 0 {
                return Ok(false); // it was closed before
            }
            let state = match tls.process_new_packets() {
                Ok(state) => state,
                Err(error) => {
                    let _ = send_on(tls, &mut self.socket); // so that the other end knows why
                    return Err(io::Error::new(ErrorKind::InvalidData, explain(&error)));
                }
            };
            let start = into.len();
            into.resize(start + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut into[start..])?;
            if state.peer_has_closed() {
                return Ok(false);
            }
        }
        // The handshake's next message; what is broken shows at the next read.
        let _ = self.send_on();
        Ok(length > 0)
    }
}

fn send_on(tls: &mut Connection, socket: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(socket) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a person can do about it.
fn explain(error: &Error) -> String {
    match error {
        Error::InvalidMessage(_) => {
            format!("it does not speak TLS ({error}); give both ends `tls`, or neither")
        }
        Error::AlertReceived(_) => {
            format!("it does not believe our certificate ({error}); see its log")
        }
        Error::InvalidCertificate(why) => {
            format!("its certificate is not believed: {}", refusal(why))
        }
        Error::NoCertificatesPresented => "it shows no certificate".to_owned(),
        other => format!("TLS: {other}"),
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
