//! The sending end: fills batches, hands them to the kernel, and knows exactly what it took.

use crate::batch::SendBatch;
use crate::clock::{now, sleep_until};
use crate::control::Control;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::packet::{Encoding, Header, Kind};
use crate::socket::no_way;
use nix::sys::socket::SockaddrStorage;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Messages per system call. Few, because the packets of a batch carry the time it was filled: at
/// about 1 µs each the last one leaves some 16 µs later.
pub const BATCH: usize = 16;
/// Pause before a refused send is tried again, ns.
const PAUSE: u64 = 50_000;
/// Give up when nothing could be sent for so long, ns: time enough for a link to come back.
const PATIENCE: u64 = 5_000_000_000;

/// Sends the packets of a run.
pub struct Emitter<'a> {
    layout: &'a Layout,
    /// One per flow when connected, otherwise one per source.
    sockets: &'a [OwnedFd],
    connected: bool,
    control: &'a Control,
    batch: SendBatch,
    /// Socket of the batch under way.
    socket: usize,
    /// Flow and packets of each message of the batch.
    messages: Vec<(u32, u32)>,
    header: Header,
    payload: usize,
    /// Packets handed to the kernel, per flow; also the next sequence number.
    pub sent: Vec<u64>,
    /// Sum of `sent`.
    pub total: u64,
    /// First and last time anything was sent.
    pub span: Option<(u64, u64)>,
    /// ICMP errors the kernel reported.
    pub icmp_errors: u64,
    /// Times a queue on this host was full.
    pub full_queue: u64,
}

impl<'a> Emitter<'a> {
    /// For `flows` flows of run `run` with `payload` bytes per packet, up to `segments` packets per message.
    pub fn new(
        layout: &'a Layout,
        sockets: &'a [OwnedFd],
        connected: bool,
        control: &'a Control,
        run: u32,
        flows: u32,
        (payload, segments, encoding): (usize, u32, Encoding),
    ) -> Emitter<'a> {
        let targets = layout.targets().map(SockaddrStorage::from).collect();
        Emitter {
            layout,
            sockets,
            connected,
            control,
            batch: SendBatch::new(BATCH, payload * segments as usize, targets),
            socket: 0,
            messages: Vec::with_capacity(BATCH),
            header: Header {
                kind: Kind::Data,
                encoding,
                run,
                flow: 0,
                seq: 0,
                time: 0,
            },
            payload,
            sent: vec![0; flows as usize],
            total: 0,
            span: None,
            icmp_errors: 0,
            full_queue: 0,
        }
    }

    /// Add one message of `count` packets of `flow`, sent `at`.
    pub fn add(&mut self, flow: u32, count: u32, at: u64) -> Result<()> {
        let (source, target) = self.layout.place(flow);
        let (socket, target) = if self.connected {
            (flow as usize, None)
        } else {
            (source, Some(target))
        };
        if self.batch.is_full() || socket != self.socket {
            self.flush()?;
            self.socket = socket;
        }
        let next = &mut self.sent[flow as usize];
        let message = self.batch.push(self.payload * count as usize, target);
        for packet in message.chunks_exact_mut(self.payload) {
            Header {
                flow,
                seq: *next,
                time: at,
                ..self.header
            }
            .emit(packet);
            *next += 1;
        }
        self.messages.push((flow, count));
        Ok(())
    }

    /// Hand the batch to the kernel. What it never took, because the run was stopped, was not sent.
    pub fn flush(&mut self) -> Result<()> {
        let mut done = 0;
        let result = loop {
            if done == self.messages.len() {
                break Ok(());
            }
            match self.hand_over(done) {
                Ok(0) => break Ok(()),
                Ok(count) => done += count,
                Err(e) => break Err(e),
            }
        };
        for (index, &(flow, count)) in self.messages.iter().enumerate() {
            if index < done {
                self.total += u64::from(count);
            } else {
                self.sent[flow as usize] -= u64::from(count);
            }
        }
        if done > 0 {
            let at = now();
            self.span = Some((self.span.map_or(at, |(first, _)| first), at));
        }
        self.messages.clear();
        self.batch.clear();
        result
    }

    /// Try until the kernel takes a message; 0: the run was stopped.
    fn hand_over(&mut self, from: usize) -> Result<usize> {
        let mut since = None;
        loop {
            let error = match self.batch.send(self.sockets[self.socket].as_fd(), from) {
                Ok(count) => return Ok(count),
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN) => {}
                Some(libc::ENOBUFS) => self.full_queue += 1,
                // An answer to an earlier packet; telling it cleared it.
                Some(
                    libc::ECONNREFUSED | libc::EHOSTUNREACH | libc::ENETUNREACH | libc::ENETDOWN,
                ) => {
                    self.icmp_errors += 1;
                }
                _ => return Err(self.refused(from, error)),
            }
            if self.control.stopped() {
                return Ok(0);
            }
            let at = now();
            if at - *since.get_or_insert(at) > PATIENCE {
                return Err(self.refused(from, error));
            }
            if error.raw_os_error() != Some(libc::ECONNREFUSED) {
                sleep_until(at + PAUSE);
            }
        }
    }

    fn refused(&self, from: usize, error: io::Error) -> Error {
        let target = self.layout.place(self.messages[from].0).1;
        let peer = self
            .layout
            .targets()
            .nth(target)
            .expect("a flow's target is among the targets");
        if error.raw_os_error() == Some(libc::EMSGSIZE) {
            let what = format!(
                "{} bytes of payload do not fit a packet to {peer}",
                self.payload
            );
            return Error::system(
                what,
                error,
                "use a smaller --frame, or raise the MTU of the path",
            );
        }
        no_way(peer, error)
    }
}
