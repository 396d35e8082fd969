//! What a sender and its sink say to each other besides data: the greeting before a run and the sent
//! counts after it. Both are repeated until answered, over the path and the flow of packet 0.

use crate::clock::now;
use crate::control::Control;
use crate::error::Result;
use crate::inlet::Inlets;
use crate::packet::{END_COUNTS, Encoding, EndCounts, FULL_LEN, Header, Kind};
use crate::tally::Tally;
use nix::sys::socket::{MsgFlags, SockaddrStorage, sendto};
use std::cell::Cell;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Time between repetitions, ns.
const AGAIN: u64 = 50_000_000;

/// One end of the conversation.
pub struct Talk<'a> {
    /// The socket of flow 0.
    pub socket: BorrowedFd<'a>,
    /// The destination of flow 0.
    pub peer: SocketAddr,
    /// The run spoken of.
    pub run: u32,
    /// Asked to stop, it does.
    pub control: &'a Control,
    /// Packets sent so far.
    pub said: Cell<u64>,
}

impl Talk<'_> {
    /// Greet until the sink answers or `patience` ns are over; whether it answered.
    pub fn greet(
        &self,
        flows: u32,
        patience: u64,
        inlets: &mut Inlets<'_>,
        tally: &mut Tally,
    ) -> Result<bool> {
        let deadline = now() + patience;
        let mut hello = [0; FULL_LEN];
        while !tally.hello_acked() && now() < deadline && !self.control.stopped() {
            Header {
                kind: Kind::Hello,
                encoding: Encoding::Full,
                run: self.run,
                flow: flows,
                seq: 0,
                time: now(),
            }
            .emit(&mut hello);
            self.say(&hello);
            self.listen(deadline, inlets, tally, |tally| tally.hello_acked())?;
        }
        Ok(tally.hello_acked())
    }

    /// Tell the sent counts until the sink has confirmed them all or `patience` ns are over; whether it has.
    pub fn tell_end(
        &self,
        sent: &[u64],
        patience: u64,
        inlets: &mut Inlets<'_>,
        tally: &mut Tally,
    ) -> Result<bool> {
        let deadline = now() + patience;
        let mut open: Vec<EndCounts> = (0..)
            .step_by(END_COUNTS)
            .zip(sent.chunks(END_COUNTS))
            .map(|(first, counts)| EndCounts {
                first,
                flows: sent.len() as u32,
                counts: counts.to_vec(),
            })
            .collect();
        while !open.is_empty() && now() < deadline {
            open.iter()
                .for_each(|part| self.say(&part.emit(self.run, now())));
            let all = |tally: &Tally| open.iter().all(|part| tally.end_acked(part.first));
            self.listen(deadline, inlets, tally, all)?;
            open.retain(|part| !tally.end_acked(part.first));
        }
        Ok(open.is_empty())
    }

    fn say(&self, words: &[u8]) {
        // Not sent is like lost: it is said again. An ICMP error of before shows here once, hence twice.
        for _ in 0..2 {
            if sendto(
                self.socket.as_raw_fd(),
                words,
                &SockaddrStorage::from(self.peer),
                MsgFlags::empty(),
            )
            .is_ok()
            {
                self.said.set(self.said.get() + 1);
                return;
            }
        }
    }

    fn listen(
        &self,
        deadline: u64,
        inlets: &mut Inlets<'_>,
        tally: &mut Tally,
        enough: impl Fn(&Tally) -> bool,
    ) -> Result<()> {
        let until = deadline.min(now() + AGAIN);
        while now() < until && !enough(tally) {
            inlets.round(tally, until)?;
        }
        Ok(())
    }
}
