//! What the shell does besides: it carries out actions, finds flows that are through, ends holds,
//! looks for lost packets, and throws everything away when the programs had failed open.

use std::collections::VecDeque;

use flowferry_hsl::key::Side;

use crate::kernel::Fault;
use crate::ledger::Place;
use crate::world::{Checked, World};

impl World {
    pub(super) fn collect(&mut self) {
        for action in self.endpoint.take_actions() {
            if self.kernel.fault == Fault::ActBackwards {
                self.pending.push_front(action);
            } else {
                self.pending.push_back(action);
            }
        }
    }

    pub(super) fn act(&mut self, actions: usize) -> Checked {
        for _ in 0..actions {
            let Some(action) = self.pending.pop_front() else {
                break;
            };
            self.kernel.act(action)?;
        }
        Ok(())
    }

    /// The shell looks at counts only when everything decided has been done.
    pub(super) fn settle(&mut self) -> Checked {
        if !self.pending.is_empty() || self.retry.is_some() {
            return Ok(());
        }
        for key in std::mem::take(&mut self.settling) {
            if self.kernel.outstanding(&key) <= 0 || self.kernel.fault == Fault::SettleEarly {
                let legal = self.endpoint.draining().contains(&key);
                self.command(legal, |endpoint| endpoint.settled(key))?;
                self.collect();
            }
        }
        self.settling = self.endpoint.draining();
        self.rest();
        Ok(())
    }

    /// Holds end only when both TAPs have been read empty since the last command was carried out.
    pub(super) fn sweep(&mut self) {
        if self.pending.is_empty() && self.kernel.tap.iter().all(VecDeque::is_empty) {
            self.endpoint.sweep(self.time);
            self.rest();
        }
    }

    pub(super) fn rest(&mut self) {
        if self.endpoint.is_idle() {
            self.kernel.set_active(false);
            self.muddled.clear();
        }
    }

    /// A count that stands still with nothing under way has lost packets.
    pub(super) fn reconcile(&mut self) -> Checked {
        for key in self.endpoint.draining() {
            let vanished: Vec<usize> = (0..self.ledger.next_serial())
                .filter(|at| self.ledger.packets()[*at].key == key)
                .filter(|at| self.ledger.is_in(*at, Place::Vanished))
                .collect();
            if vanished.len() as i64 == self.kernel.outstanding(&key) && !vanished.is_empty() {
                let packets = vanished.len() as u64;
                self.endpoint.lost(&key, packets, "never came back");
                self.kernel.forget(&key, packets);
                for serial in vanished {
                    self.ledger.moves(serial, &[Place::Vanished], Place::Lost)?;
                }
            }
        }
        Ok(())
    }

    /// The programs have failed open: wait until the kernel's queues are through, believe the
    /// counts, and throw away everything else.
    pub(super) fn discard(&mut self) -> Checked {
        for side in Side::ALL {
            self.second_pass(side, usize::MAX)?;
        }
        let thrown = self.kernel.tap.clone();
        self.retry = None;
        let counted = self
            .endpoint
            .discard(&self.kernel.all_outstanding(), "a test", self.time);
        let lost = self.ledger.undecided();
        if counted != lost.len() as u64 {
            return Err(format!(
                "a discard counted {counted} packets as lost, it was {}",
                lost.len()
            ));
        }
        for serial in lost {
            let anywhere = self.ledger.packets()[serial].place;
            self.ledger.moves(serial, &[anywhere], Place::Lost)?;
        }
        self.collect();
        self.act(usize::MAX)?;
        self.kernel.begin_epoch();
        if self.kernel.fault == Fault::ReplayAfterDiscard {
            self.kernel.tap = thrown;
        }
        self.discarded = true;
        self.rest();
        if self.endpoint.is_idle() {
            Ok(())
        } else {
            Err("not idle after a discard".to_owned())
        }
    }
}
