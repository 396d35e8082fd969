//! The endpoint between its shell and the model of the kernel, one step after the other.

use std::collections::{HashMap, HashSet, VecDeque};

use flowferry_hsl::endpoint::{Action, Endpoint, Figures, HoldId, Role};
use flowferry_hsl::key::{Key, Side};

use crate::checks::plus;
use crate::kernel::{Fault, Kernel};
use crate::ledger::Ledger;
use crate::steps::Step;
use crate::traffic::FLOWS;

/// A frame costs the budget so much beyond its bytes.
pub const OVERHEAD: usize = 64;
/// After so many turns of the shell's loop everything must be over.
const PATIENCE: usize = 100;

pub type Checked = Result<(), String>;

pub struct World {
    pub(super) endpoint: Endpoint,
    pub(super) kernel: Kernel,
    pub(super) ledger: Ledger,
    pub(super) limit: usize,
    /// Decided by the endpoint, not yet done by the shell.
    pub(super) pending: VecDeque<Action>,
    /// The kernel had no room for it; nothing else is read or written before it.
    pub(super) retry: Option<(Key, Vec<u8>)>,
    /// Flows the shell looks at next, by a list that may be old.
    pub(super) settling: Vec<Key>,
    /// Downstream key to the flow that has it.
    pub(super) aliases: HashMap<Key, usize>,
    /// Keys whose alias changed under a hold, or whose other side was let go alone: the promises
    /// about them begin with the next hold.
    pub(super) muddled: HashSet<Key>,
    /// Flow sides let go one by one.
    pub(super) freed: HashSet<(HoldId, Key)>,
    /// Holds that have had the role `Stray`.
    pub(super) sent_by: HashSet<HoldId>,
    /// Figures of holds that the endpoint has been told to forget.
    pub(super) archived: Figures,
    pub(super) discarded: bool,
    pub(super) time: u64,
}

impl World {
    pub fn new(limit: usize, fault: Fault) -> World {
        World {
            endpoint: Endpoint::new(limit),
            kernel: Kernel::new(fault),
            ledger: Ledger::default(),
            limit,
            pending: VecDeque::new(),
            retry: None,
            settling: Vec::new(),
            aliases: HashMap::new(),
            muddled: HashSet::new(),
            freed: HashSet::new(),
            sent_by: HashSet::new(),
            archived: Figures::default(),
            discarded: false,
            time: 1,
        }
    }

    pub fn step(&mut self, step: &Step) -> Checked {
        self.time += 1;
        match step {
            Step::Hold {
                id,
                role,
                matching,
                except,
                sides,
            } => {
                self.hold(*id, *role, *matching, except, sides)?;
            }
            Step::Release { id } => {
                let legal = self.is_holding(*id);
                let time = self.time;
                self.command(legal, |endpoint| endpoint.release(*id, time))?;
            }
            Step::Abort { id } => {
                let legal = self.is_holding(*id);
                let time = self.time;
                self.command(legal, |endpoint| endpoint.abort(*id, "a test", time))?;
            }
            Step::Turn { id, role } => {
                let legal = self.is_holding(*id);
                self.command(legal, |endpoint| endpoint.turn(*id, *role))?;
            }
            Step::ReleaseFlow { id, flow } => self.release_flow(*id, *flow)?,
            // Refused where there is no such hold.
            Step::Lead { id } => drop(self.endpoint.lead(*id)),
            Step::LetStraysGo { id } => drop(self.endpoint.let_strays_go(*id)),
            Step::ReleaseSide { id, flow, side } => self.release_side(*id, *flow, *side)?,
            Step::Alias { flow } => self.alias(*flow),
            Step::Unalias { flow } => self.unalias(*flow),
            Step::Disown { flow } => {
                Side::ALL
                    .iter()
                    .for_each(|side| self.kernel.disown(&FLOWS[*flow].key(*side)));
            }
            Step::Arrive { flow, side, length } => self.arrive(*flow, *side, *length)?,
            Step::Follow { flow, side, length } => self.follow(*flow, *side, *length)?,
            Step::Overflow { flow, side } => self.overflow(*flow, *side)?,
            Step::Act { actions } => self.act(*actions)?,
            Step::Read { side, frames } => self.read(*side, *frames)?,
            Step::Write { frames, refused } => self.write(*frames, *refused)?,
            Step::SecondPass { side, frames } => self.second_pass(*side, *frames)?,
            Step::Vanish { side } => self.vanish(*side)?,
            Step::SendOn { frames } => self.send_on(*frames)?,
            Step::Settle => self.settle()?,
            Step::Sweep => self.sweep(),
            Step::Discard => self.discard()?,
            Step::ForgetEnded => {
                self.send_on(usize::MAX)?; // they name their hold
                let ended = self.endpoint.holds().filter(|hold| !hold.is_live());
                self.archived = ended.fold(self.archived, |sum, hold| plus(sum, &hold.figures));
                self.endpoint.forget_ended();
                let live: HashSet<HoldId> = self.endpoint.holds().map(|hold| hold.id).collect();
                self.freed.retain(|(id, _)| live.contains(id));
            }
        }
        let strays = self
            .endpoint
            .holds()
            .filter(|hold| hold.spec.role == Role::Stray);
        self.sent_by.extend(strays.map(|hold| hold.id));
        self.collect();
        self.note_sent_on();
        self.check()
    }

    /// What the shell does without being asked, until nothing is left to do.
    pub fn finish(&mut self) -> Checked {
        for id in 1..=4 {
            if self.is_holding(id) {
                self.step(&Step::Release { id })?;
            }
        }
        for _ in 0..PATIENCE {
            if self.endpoint.is_idle() && self.pending.is_empty() && self.retry.is_none() {
                break;
            }
            self.step(&Step::Act {
                actions: usize::MAX,
            })?;
            for side in Side::ALL {
                self.step(&Step::Read {
                    side,
                    frames: usize::MAX,
                })?;
            }
            self.step(&Step::Write {
                frames: usize::MAX,
                refused: false,
            })?;
            for side in Side::ALL {
                self.step(&Step::SecondPass {
                    side,
                    frames: usize::MAX,
                })?;
            }
            self.step(&Step::SendOn { frames: usize::MAX })?;
            self.reconcile()?;
            self.step(&Step::Settle)?;
            self.step(&Step::Act {
                actions: usize::MAX,
            })?;
            self.step(&Step::Sweep)?;
        }
        self.step(&Step::SendOn { frames: usize::MAX })?;
        self.step(&Step::Act {
            actions: usize::MAX,
        })?;
        self.check_end()
    }
}
