//! Connections that carry lines of JSON, without ever blocking the agent.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use serde_json::Value;

const LONGEST_LINE: usize = 1 << 20;
/// Commands of one client in one turn of the agent's loop.
const LINES: usize = 64;
const MOST_UNSENT: usize = 64 << 20;

/// One client.
pub struct Lines {
    stream: UnixStream,
    input: Vec<u8>,
    output: VecDeque<u8>,
    has_more: bool,
    closed: bool,
    /// It wants to hear of every event.
    pub listens: bool,
}

impl Lines {
    /// Over an accepted connection.
    pub fn new(stream: UnixStream) -> std::io::Result<Lines> {
        stream.set_nonblocking(true)?;
        Ok(Lines {
            stream,
            input: Vec::new(),
            output: VecDeque::new(),
            has_more: false,
            closed: false,
            listens: false,
        })
    }

    /// Whether there is something left to send.
    pub fn unsent(&self) -> bool {
        !self.output.is_empty()
    }

    /// The next complete lines, at most [`LINES`]; what is left is for the next turn.
    pub fn receive(&mut self) -> Vec<String> {
        if !self.has_more {
            self.read();
        }
        let mut lines = Vec::new();
        let mut taken = 0;
        while lines.len() < LINES
            && let Some(end) = self.input[taken..].iter().position(|byte| *byte == b'\n')
        {
            let line = &self.input[taken..taken + end];
            lines.push(String::from_utf8_lossy(line).trim().to_owned());
            taken += end + 1;
        }
        self.input.drain(..taken);
        self.has_more = lines.len() == LINES;
        lines
    }

    /// One read a turn, so that no client keeps the agent from its packets.
    fn read(&mut self) {
        let mut chunk = [0; 65_536];
        match self.stream.read(&mut chunk) {
            Ok(length) if length > 0 => self.input.extend(&chunk[..length]),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            _ => self.closed = true,
        }
        self.closed |= self.input.len() > LONGEST_LINE;
    }

    /// Whether lines that have arrived still wait to be received.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Whether the client has gone, or misbehaved, and has nothing more to say.
    pub fn has_gone(&mut self) -> bool {
        !self.flush() || (self.closed && !self.has_more)
    }

    /// Queue one line; false when the client does not read and is to be dropped.
    pub fn send(&mut self, value: &Value) -> bool {
        self.output.extend(value.to_string().bytes());
        self.output.push_back(b'\n');
        self.output.len() < MOST_UNSENT && self.flush()
    }

    /// Send what the socket takes; false when the client has gone.
    pub fn flush(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.stream.write(self.output.as_slices().0) {
                Ok(0) => return false,
                Ok(length) => drop(self.output.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

impl AsFd for Lines {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
