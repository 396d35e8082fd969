//! What the receiving thread sleeps at: an epoll set that holds nothing but another one, that of the
//! sockets, and can be shut. While it is shut the sockets wake only who polls them directly.
//!
//! So a thread that waits for an answer can read it off the sockets itself, and the receiving thread
//! sleeps on: shutting and opening are a system call each, waking a thread is far more.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

pub struct Gate {
    set: OwnedFd,
    sockets: RawFd,
}

impl Gate {
    /// An open gate before an epoll set, which has to live as long.
    pub fn before(sockets: &impl AsRawFd) -> io::Result<Self> {
        // SAFETY: it takes no pointer, and a descriptor that it returns is ours.
        let set = unsafe {
            let descriptor = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if descriptor < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(descriptor)
        };
        let gate = Self {
            set,
            sockets: sockets.as_raw_fd(),
        };
        gate.control(libc::EPOLL_CTL_ADD, libc::EPOLLIN)?;
        Ok(gate)
    }

    /// Lets what has come, or comes, wake whoever waits.
    pub fn open(&self) {
        let done = self.control(libc::EPOLL_CTL_MOD, libc::EPOLLIN);
        debug_assert!(done.is_ok(), "{done:?}");
    }

    pub fn shut(&self) {
        let done = self.control(libc::EPOLL_CTL_MOD, 0);
        debug_assert!(done.is_ok(), "{done:?}");
    }

    /// Waits until a socket wants attention and the gate is open, or the time is up.
    pub fn wait(&self, most: Duration) {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let most = i32::try_from(most.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: there is room for the one event. An error is an early return, no more.
        unsafe { libc::epoll_wait(self.set.as_raw_fd(), &mut event, 1, most) };
    }

    fn control(&self, operation: i32, interest: i32) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: interest as u32,
            u64: 0,
        };
        let set = self.set.as_raw_fd();
        // SAFETY: both descriptors are open, and the kernel copies the event.
        match unsafe { libc::epoll_ctl(set, operation, self.sockets, &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token, Waker};
    use std::time::Instant;

    const LONG: Duration = Duration::from_secs(60);

    fn rig() -> (Poll, Waker, Gate) {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let gate = Gate::before(&poll).unwrap();
        (poll, waker, gate)
    }

    /// Whether the gate lets something through.
    fn opens(gate: &Gate) -> bool {
        let began = Instant::now();
        gate.wait(Duration::from_millis(50));
        began.elapsed() < Duration::from_millis(50)
    }

    #[test]
    fn what_came_while_it_was_shut_wakes_once_it_is_open() {
        let (_poll, waker, gate) = rig();
        gate.shut();
        waker.wake().unwrap();
        assert!(!opens(&gate));
        gate.open();
        gate.wait(LONG);
    }

    #[test]
    fn what_was_seen_to_while_it_was_shut_wakes_nobody() {
        let (mut poll, waker, gate) = rig();
        gate.shut();
        waker.wake().unwrap();
        let mut events = Events::with_capacity(1);
        poll.poll(&mut events, Some(LONG)).unwrap();
        assert_eq!(events.iter().count(), 1);
        gate.open();
        assert!(!opens(&gate));
    }
}
