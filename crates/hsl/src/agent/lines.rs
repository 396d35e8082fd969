//! Connections that carry lines of JSON, without ever blocking the agent.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use serde_json::Value;

const LONGEST_LINE: usize = 1 << 20;
const MOST_UNSENT: usize = 64 << 20;

/// One client.
pub struct Lines {
    stream: UnixStream,
    input: Vec<u8>,
    output: VecDeque<u8>,
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
            listens: false,
        })
    }

    /// Whether there is something left to send.
    pub fn unsent(&self) -> bool {
        !self.output.is_empty()
    }

    /// Complete lines that have arrived; `None` when the client has gone or misbehaves.
    pub fn receive(&mut self) -> Option<Vec<String>> {
        let mut chunk = [0; 65_536];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(length) => self.input.extend(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
            if self.input.len() > LONGEST_LINE {
                return None;
            }
        }
        let mut lines = Vec::new();
        while let Some(end) = self.input.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line).trim().to_owned());
        }
        Some(lines)
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
