//! The `kernel` and `veth` shims: BPF programs at the ingress of the instance's own interfaces.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::bpf::{Interfaces, Programs, Replaced};
use super::error::BpfError;
use super::hook::Attachment;
use super::shared::{Count, Counters, Flow, Mode, Rule};
use super::tap::{Tap, VNET_HEADER};
use super::{Outcome, Shim, Write};
use crate::endpoint::Treatment;
use crate::key::{Key, Parsed, Side};
use crate::matching::Match;

/// Clocks of the programs, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// A heartbeat older than this means: no agent.
    pub timeout: u64,
    /// How long a flow keeps to the CPU of its last release.
    pub settle: u64,
}

/// Either BPF shim; which one, the interfaces say.
pub struct TcShim {
    programs: Programs,
    /// What stood here before, of another version or with tables of another size.
    pub replaced: Option<Replaced>,
    /// `None` only while one is being made anew.
    taps: [Option<Tap>; 2],
    /// Held for as long as this shim is: one agent an instance.
    _lock: Flock<File>,
    clocks: Clocks,
}

impl TcShim {
    /// Attach to the interfaces, taking over what an earlier agent pinned. The programs fail
    /// open until [`Shim::begin_epoch`].
    pub fn attach(
        interfaces: [Interfaces; 2],
        attachment: Attachment,
        pins: &Path,
        table_size: u32,
        clocks: Clocks,
        marks: (u32, u32),
    ) -> Result<TcShim, BpfError> {
        let lock = lock(pins)?;
        let mut programs = Programs::attach(interfaces, attachment, pins, table_size)?;
        let first = programs.control.epoch() == 0;
        programs.control.trip();
        programs.control.set_marks(marks.0, marks.1);
        let taps = Side::ALL.map(|side| programs.open_tap(side));
        let [Ok(upstream), Ok(downstream)] = taps else {
            if first {
                let _ = programs.withdraw(); // what failed is said below
            }
            return Err(taps.into_iter().find_map(Result::err).expect("one of them"));
        };
        let replaced = programs.replace().map_err(|source| BpfError::Pin {
            path: pins.to_owned(),
            source,
        })?;
        Ok(TcShim {
            programs,
            replaced,
            taps: [Some(upstream), Some(downstream)],
            clocks,
            _lock: lock,
        })
    }
}

/// Take hold of a directory of pins, or say who has it.
fn lock(pins: &Path) -> Result<Flock<File>, BpfError> {
    let failed = |source| BpfError::Pin {
        path: pins.to_owned(),
        source,
    };
    fs::create_dir_all(pins).map_err(failed)?;
    let directory = File::open(pins).map_err(failed)?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        nix::Error::EWOULDBLOCK => BpfError::Taken {
            path: pins.to_owned(),
        },
        error => failed(error.into()),
    })
}

impl TcShim {
    fn tap(&self, side: Side) -> &Tap {
        self.taps[side.index()]
            .as_ref()
            .expect("there but during a repair")
    }

    fn announce(&mut self, key: &Key, packets: u32, what: Write) -> io::Result<()> {
        let mut frame = vec![0; VNET_HEADER];
        frame.extend(key.to_frame());
        self.programs.control.announce(key.side(), what, packets);
        self.tap(key.side()).write(&frame)
    }
}

impl Shim for TcShim {
    fn readable(&self, side: Side) -> BorrowedFd<'_> {
        self.tap(side).as_fd()
    }

    fn read(&mut self, side: Side, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.tap(side).read(buffer)
    }

    fn write(&mut self, side: Side, frame: &[u8], what: Write) -> io::Result<Outcome> {
        self.programs.control.announce(side, what, 0);
        self.tap(side).write(frame)?;
        Ok(self.programs.control.outcome(side))
    }

    fn adopt(&mut self, key: &Key, packets: u32) -> io::Result<()> {
        self.announce(key, packets, Write::Adopt)?;
        match self.programs.control.outcome(key.side()) {
            Outcome::Taken => Ok(()),
            _ => Err(io::Error::other("the table of counts is full")),
        }
    }

    fn forget(&mut self, key: &Key, packets: u32) -> io::Result<()> {
        self.announce(key, packets, Write::Forget)
    }

    fn lose(&mut self, key: &Key, packets: u32) -> io::Result<()> {
        self.announce(key, packets, Write::Lose)
    }

    fn set_rules(&mut self, side: Side, rules: &[(Match, Treatment)]) -> Result<(), BpfError> {
        let rules: Vec<Rule> = rules
            .iter()
            .map(|(matching, treatment)| {
                let (mask, value) = matching.on(side);
                Rule {
                    mask,
                    value,
                    mode: mode(*treatment) as u32,
                    zero: 0,
                }
            })
            .collect();
        self.programs.set_rules(side, &rules)
    }

    fn set_flow(&mut self, key: &Key, treatment: Option<Treatment>) -> Result<(), BpfError> {
        self.programs.set_mode(key, treatment.map(mode))
    }

    fn set_active(&mut self, active: bool) {
        self.programs.control.set_active(active);
    }

    fn count(&self, key: &Key) -> Option<Count> {
        self.programs.count(key)
    }

    fn counts(&self) -> Vec<(Key, Count)> {
        self.programs.counts()
    }

    fn drop_count(&mut self, key: &Key) -> Result<(), BpfError> {
        self.programs.drop_count(key)
    }

    fn flows(&self) -> Vec<(Key, Flow)> {
        self.programs.flows()
    }

    fn served(&self) -> Vec<Parsed> {
        self.programs.served()
    }

    fn own(&mut self, flow: &Parsed, now: u64) -> Result<(), BpfError> {
        self.programs.own(flow, now)
    }

    fn disown(&mut self, key: &Key) -> Result<(), BpfError> {
        self.programs.disown(key)
    }

    fn counters(&self, side: Side) -> Result<Counters, BpfError> {
        self.programs.counters(side)
    }

    fn beat(&mut self, now: u64) {
        self.programs.control.beat(now);
    }

    fn tripped(&self) -> bool {
        self.programs.control.tripped()
    }

    fn trip(&mut self) {
        self.programs.control.trip();
    }

    fn epoch(&self) -> u32 {
        self.programs.control.epoch()
    }

    fn check(&self) -> Result<(), BpfError> {
        self.programs.check_interfaces()?;
        match self.taps.iter().flatten().find(|tap| !tap.is_alive()) {
            Some(tap) => Err(BpfError::NoInterface {
                name: tap.name.clone(),
            }),
            None => Ok(()),
        }
    }

    fn repair(&mut self) -> Result<(), BpfError> {
        self.programs.check_interfaces()?;
        for side in Side::ALL {
            let tap = &mut self.taps[side.index()];
            if !tap.as_ref().is_some_and(Tap::is_alive) {
                *tap = None; // first: the name must be free
                *tap = Some(self.programs.open_tap(side)?);
            }
        }
        Ok(())
    }

    fn begin_epoch(&mut self, now: u64) -> Result<(), BpfError> {
        for side in Side::ALL {
            self.programs.set_rules(side, &[])?;
        }
        self.programs.clear()?;
        self.programs.control.set_active(false);
        self.programs
            .control
            .begin_epoch(now, self.clocks.timeout, self.clocks.settle);
        Ok(())
    }
}

fn mode(treatment: Treatment) -> Mode {
    match treatment {
        Treatment::Pass => Mode::Pass,
        Treatment::Capture => Mode::Capture,
        Treatment::Arm => Mode::Arm,
    }
}
