//! What an agent with nothing to do waits for, and how long.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::error::{AgentError, system};
use super::function::Channel;
use super::lines::Lines;
use super::{Agent, now};
use crate::key::Side;

/// While packets are only kept, nobody waits for them: let some gather, and others have the CPU.
const GATHER: Duration = Duration::from_micros(50);
/// How often a resting agent wakes up to beat its heart.
const REST: Duration = Duration::from_millis(50);
/// The same while something is held, or a flush is under way.
const REST_AT_WORK: Duration = Duration::from_millis(1);

impl Agent {
    /// Sleep until there is something to do, or the heart is to beat.
    pub(super) fn wait_for_work(&mut self) -> Result<(), AgentError> {
        if self.busy && self.flushes.is_empty() && self.endpoint.only_keeps() {
            std::thread::sleep(GATHER);
        }
        let most = match self.until_released(now()) {
            _ if self.busy || self.clients.values().any(Lines::has_more) => Duration::ZERO,
            Some(wait) => REST_AT_WORK.min(Duration::from_nanos(wait)),
            None if self.endpoint.is_idle() && self.flushes.is_empty() => REST,
            None => REST_AT_WORK,
        };
        let due = self.next_due();
        let due = due.map(|due| Duration::from_nanos(due.saturating_sub(now())));
        let timeout = TimeSpec::from(due.map_or(most, |due| due.min(most)));
        let wait = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds: Vec<PollFd<'_>> = Side::ALL.map(|side| wait(self.shim.readable(side))).into();
        fds.push(wait(self.listener.as_fd()));
        fds.extend(
            self.peers
                .listener
                .as_ref()
                .map(|listener| wait(listener.as_fd())),
        );
        fds.extend(self.peers.takers.iter().map(|taker| wait(taker.as_fd())));
        for client in self.clients.values() {
            let write = if client.unsent() {
                PollFlags::POLLOUT
            } else {
                PollFlags::empty()
            };
            fds.push(PollFd::new(client.as_fd(), PollFlags::POLLIN | write));
        }
        for sender in self.peers.senders.values() {
            let write = if sender.unsent() {
                PollFlags::POLLOUT
            } else {
                PollFlags::empty()
            };
            fds.push(PollFd::new(sender.as_fd(), PollFlags::POLLIN | write));
        }
        for (descriptor, writes) in self.channel.iter().flat_map(Channel::descriptors) {
            let write = if writes {
                PollFlags::POLLOUT
            } else {
                PollFlags::empty()
            };
            fds.push(PollFd::new(descriptor, PollFlags::POLLIN | write));
        }
        match ppoll(&mut fds, Some(timeout), None) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(error) => Err(system("poll")(error.into())),
        }
    }
}
