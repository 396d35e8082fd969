//! Whose turn it is to receive: the fabric's own thread, or one that waits for an answer.
//!
//! A thread that asks and then sleeps until another has read the answers pays for one wake-up more
//! than the answers need. So it takes the turn before it asks, reads until it has what it waits for,
//! doing for everybody else what the own thread would have done, and gives the turn back. Two that ask
//! at the same time do not compete: who comes second sleeps as ever.
//!
//! Sleeping at the gate costs the own thread a system call more each time than sleeping at the sockets,
//! and loses the kernel's hint that who wakes it is about to sleep. That was tried as well: with 7 peers
//! a global read took a third longer, since that hint packs all of them on one CPU.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::Shared;
use super::gate::Gate;
use super::wire::{GOODBYE, Wire};
use crate::fabric::Turn;

pub struct Turns {
    shared: Arc<Shared>,
    /// None: it has said goodbye.
    wire: Mutex<Option<Wire>>,
    gate: Gate,
}

/// The turn, until it is dropped.
struct Held<'a> {
    turns: &'a Turns,
    // Invariant: the gate is shut, and there is a wire. None: the turn is being given back.
    wire: Option<MutexGuard<'a, Option<Wire>>>,
}

impl Turns {
    pub fn new(shared: Arc<Shared>, wire: Wire) -> std::io::Result<Self> {
        Ok(Self {
            shared,
            gate: Gate::before(wire.sockets())?,
            wire: Mutex::new(Some(wire)),
        })
    }

    /// The receiving thread.
    pub fn run(&self) {
        let pause = self.shared.pause();
        loop {
            let closed = self.shared.closed.load(Ordering::Acquire);
            let wire = if closed {
                self.wire.try_lock_for(2 * GOODBYE)
            } else {
                self.wire.try_lock()
            };
            match wire {
                Some(mut wire) => {
                    let goes_on = wire.as_mut().is_some_and(|w| w.round(Duration::ZERO));
                    if !goes_on {
                        if let Some(wire) = wire.take() {
                            wire.goodbye();
                        }
                        return;
                    }
                }
                // Who has the turn closes the fabric itself, from within a call of the listener.
                None if closed => return,
                None => {}
            }
            self.gate.wait(pause);
        }
    }

    /// The turn, unless somebody has it.
    pub fn take(&self) -> Option<Box<dyn Turn + '_>> {
        let wire = self.wire.try_lock().filter(|wire| wire.is_some())?;
        self.gate.shut();
        Some(Box::new(Held {
            turns: self,
            wire: Some(wire),
        }))
    }
}

impl Turn for Held<'_> {
    fn receive(mut self: Box<Self>, over: &dyn Fn() -> bool) {
        let pause = self.turns.shared.pause();
        while !over() {
            let wire = self.wire.as_mut().and_then(|wire| wire.as_mut());
            if !wire.is_some_and(|wire| wire.round(pause)) {
                return;
            }
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // First the lock: the thread that the gate lets through finds it free.
        self.wire = None;
        self.turns.gate.open();
        if self.turns.shared.closed.load(Ordering::Acquire) {
            // The order to close has been read here; the receiving thread is to carry it out.
            let _ = self.turns.shared.waker.wake();
        }
    }
}
