//! Reading many sockets: one `poll`, then batches from those that have something.
//!
//! A reader that sleeps in `poll` is woken once per packet, and the waking is paid for by the CPU
//! that sends. So after a round that found something the reader naps before it looks again, and
//! reads in bulk: the kernel's stamps keep the delays exact. An echoing reader never naps.

use crate::batch::RecvBatch;
use crate::clock::{WallClock, now, sleep_until};
use crate::error::{Error, Result};
use crate::socket::drain_errors;
use crate::tally::Tally;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Datagrams per system call.
const BATCH: usize = 128;
/// Batches read from one socket before the next has its turn.
const TURN: usize = 8;
/// Length of the nap, ns.
const NAP: u64 = 100_000;

/// The reading end of some sockets.
pub struct Inlets<'a> {
    polls: Vec<PollFd<'a>>,
    sockets: Vec<BorrowedFd<'a>>,
    batch: RecvBatch,
    picks: Vec<usize>,
    nap: bool,
    found: bool,
    /// Answers sent.
    pub replied: u64,
    /// Answers the kernel did not take.
    pub reply_failed: u64,
    /// ICMP errors found on the sockets.
    pub icmp_errors: u64,
}

impl<'a> Inlets<'a> {
    /// Read `sockets`, datagrams of up to `longest` bytes; `nap` as the module says.
    pub fn new(sockets: &'a [OwnedFd], longest: usize, nap: bool) -> Inlets<'a> {
        Inlets {
            polls: sockets
                .iter()
                .map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN))
                .collect(),
            sockets: sockets.iter().map(|s| s.as_fd()).collect(),
            batch: RecvBatch::new(BATCH, longest),
            picks: Vec::with_capacity(BATCH),
            nap,
            found: false,
            replied: 0,
            reply_failed: 0,
            icmp_errors: 0,
        }
    }

    /// Wait until something is there, at most until `until` (CLOCK_MONOTONIC, ns); give it to `tally`.
    pub fn round(&mut self, tally: &mut Tally, until: u64) -> Result<()> {
        if self.nap && self.found {
            sleep_until(now() + NAP);
        }
        let wait = TimeSpec::from_duration(Duration::from_nanos(until.saturating_sub(now())));
        let ready = match ppoll(&mut self.polls, Some(wait), None) {
            Ok(ready) => ready,
            Err(nix::Error::EINTR) => 0,
            Err(e) => return Err(Error::system("cannot wait for packets", e, "see ppoll(2)")),
        };
        self.found = ready > 0;
        if !self.found {
            return Ok(());
        }
        let clock = WallClock::sample();
        for index in 0..self.sockets.len() {
            let events = self.polls[index].revents().unwrap_or(PollFlags::empty());
            if events.contains(PollFlags::POLLERR) {
                self.icmp_errors += drain_errors(self.sockets[index]);
            }
            if events.contains(PollFlags::POLLIN) {
                self.read(index, clock, tally)?;
            }
        }
        tally.end_round();
        Ok(())
    }

    fn read(&mut self, index: usize, mut clock: WallClock, tally: &mut Tally) -> Result<()> {
        let socket = self.sockets[index];
        for _ in 0..TURN {
            // An error here is an ICMP message for an earlier packet; the queue behind it is intact.
            let Ok(count) = self.batch.receive(socket) else {
                self.icmp_errors += 1;
                continue;
            };
            if count > 0
                && self
                    .batch
                    .stamp(count - 1)
                    .is_some_and(|stamp| clock.is_before(stamp))
            {
                clock = WallClock::sample();
            }
            self.picks.clear();
            for datagram in 0..count {
                let at = self
                    .batch
                    .stamp(datagram)
                    .map_or(clock.now(), |stamp| clock.monotonic(stamp));
                if tally.take(self.batch.payload(datagram), at)? {
                    self.picks.push(datagram);
                }
            }
            if !self.picks.is_empty() {
                let sent = self.batch.send_back(socket, &self.picks);
                self.replied += sent as u64;
                self.reply_failed += (self.picks.len() - sent) as u64;
            }
            if count < self.batch.capacity() {
                break;
            }
        }
        Ok(())
    }
}
