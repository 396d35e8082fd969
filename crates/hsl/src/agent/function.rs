//! The control channel to the function: a UNIX socket of its own that takes one connection.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixListener;

use serde_json::json;

use super::lines::Lines;
use super::{Agent, AgentError, system};
use crate::handover::Input;
use crate::handover::function::{Answer, Tell};

/// The listening end, and the function if it is there.
pub(super) struct Channel {
    listener: UnixListener,
    function: Option<Lines>,
    /// It has said hello.
    greeted: bool,
}

impl Channel {
    pub(super) fn over(listener: UnixListener) -> Channel {
        Channel {
            listener,
            function: None,
            greeted: false,
        }
    }

    /// What to poll: for reading, and if true for writing as well.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        let function = self.function.as_ref();
        std::iter::once((self.listener.as_fd(), false))
            .chain(function.map(|lines| (lines.as_fd(), lines.unsent())))
    }

    /// Take in one connection; a second one is told why not.
    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let Ok(mut lines) = Lines::new(stream) else {
                continue;
            };
            if self.function.is_some() {
                let error = "another function is connected already; end it first";
                lines.send(&json!({ "error": error }));
                continue;
            }
            self.function = Some(lines);
            self.greeted = false;
        }
    }

    fn receive(&mut self) -> Vec<Input> {
        let Some(function) = &mut self.function else {
            return Vec::new();
        };
        let mut inputs = Vec::new();
        for line in function.receive().iter().filter(|line| !line.is_empty()) {
            let greets = |answer: &Answer| matches!(answer, Answer::Hello { .. });
            match Answer::read(line) {
                Ok(answer) if self.greeted || greets(&answer) => {
                    self.greeted = true;
                    inputs.push(Input::Function(answer));
                }
                Ok(_) => drop(function.send(&json!({ "error": "say hello first" }))),
                Err(error) => drop(function.send(&json!({ "error": error }))),
            }
        }
        if function.has_gone() {
            self.function = None;
            if std::mem::take(&mut self.greeted) {
                inputs.push(Input::FunctionGone);
            }
        }
        inputs
    }

    fn send(&mut self, line: &Tell) {
        if let Some(function) = &mut self.function {
            // Whoever does not read any more is found out when it is read from next.
            function.send(&line.to_json());
        }
    }
}

impl Agent {
    /// Hear what the function has to say.
    pub(super) fn hear_function(&mut self) -> Result<(), AgentError> {
        let Some(channel) = &mut self.channel else {
            return Ok(());
        };
        channel.accept();
        for input in channel.receive() {
            self.feed(input)?;
        }
        Ok(())
    }

    pub(super) fn tell_function(&mut self, line: &Tell) {
        if let Some(channel) = &mut self.channel {
            channel.send(line);
        }
    }
}

pub(super) fn listen(config: &super::Config) -> Result<Option<Channel>, AgentError> {
    let Some(path) = &config.function_socket else {
        return Ok(None);
    };
    let listener = super::start::listen(path)?;
    listener
        .set_nonblocking(true)
        .map_err(system("cannot poll the function's socket"))?;
    Ok(Some(Channel::over(listener)))
}
