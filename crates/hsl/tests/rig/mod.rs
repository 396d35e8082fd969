//! The programs of `bpf/hsl.bpf.c`, loaded but attached to nothing, and run on single frames.
//!
//! Maps are pinned by name, so each rig has a BPF file system of its own, in a mount namespace of
//! the test's thread: whatever happens, nothing stays behind.
#![allow(dead_code)] // each test takes what it needs

pub mod wire;

use std::io::Error;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray, PerCpuValues};
use aya::programs::{SchedClassifier, TestRun, TestRunOptions};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};
use flowferry_hsl::endpoint::Treatment;
use flowferry_hsl::key::{Key, Side};
use flowferry_hsl::matching::Match;
use flowferry_hsl::shim::control::ControlPage;
use flowferry_hsl::shim::shared::{
    Count, Counters, Flow, FlowMode, Mode, RULES_PER_SIDE, Recent, Rule,
};
use nix::sched::{CloneFlags, unshare};
use nix::time::{ClockId, clock_gettime};

/// By side.
static OBJECTS: [&[u8]; 2] = [
    include_bytes_aligned!(concat!(env!("OUT_DIR"), "/hsl0.bpf.o")),
    include_bytes_aligned!(concat!(env!("OUT_DIR"), "/hsl1.bpf.o")),
];

/// `struct __sk_buff` of linux/bpf.h, and where its `mark` is.
const CONTEXT: usize = 192;
const MARK: usize = 8;

pub struct Rig {
    sides: [Ebpf; 2],
    pub control: ControlPage,
    pub flows: HashMap<MapData, Key, Flow>,
    pub modes: HashMap<MapData, Key, FlowMode>,
    pub counts: HashMap<MapData, Key, Count>,
    rules: Array<MapData, Rule>,
    counters: PerCpuArray<MapData, Counters>,
    pub recent: PerCpuArray<MapData, Recent>,
    bank: usize,
    directory: PathBuf,
}

impl Rig {
    pub fn new() -> Rig {
        assert!(
            std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0),
            "BPF needs root; run this test as `make test` does"
        );
        let directory = own_bpf_file_system();
        let mut sides = Side::ALL.map(|side| load(side, &directory));
        let first = &mut sides[0];
        let Some(Map::Array(page)) = first.take_map("ff_control") else {
            panic!("maps.h declares the array ff_control")
        };
        Rig {
            control: ControlPage::map(page.fd().as_fd()).expect("the map can be mapped"),
            flows: take(first, "ff_flows"),
            modes: take(first, "ff_modes"),
            counts: take(first, "ff_counts"),
            rules: take(first, "ff_rules"),
            counters: take(first, "ff_counters"),
            recent: take(first, "ff_recent"),
            sides,
            bank: 0,
            directory,
        }
    }

    /// One of the maps once more.
    pub fn pinned(&self, name: &str) -> MapData {
        MapData::from_pin(self.directory.join(name)).expect("pinned by name")
    }

    /// Let a frame arrive on `side`; what `ff_ingress` returns.
    pub fn arrive(&self, side: Side, frame: &[u8]) -> Result<u32, Error> {
        self.run(side, "ff_ingress", frame, 0)
    }

    /// A wire to the upstream side.
    pub fn wire(&mut self) -> wire::Wire {
        wire::Wire::new(&mut self.sides[0], "ff_ingress")
    }

    /// Run one of a side's programs on a frame that wears `mark`.
    pub fn run(&self, side: Side, program: &str, frame: &[u8], mark: u32) -> Result<u32, Error> {
        let mut context = [0; CONTEXT];
        context[MARK..MARK + 4].copy_from_slice(&mark.to_ne_bytes());
        let program = self.sides[side.index()]
            .program(program)
            .expect("declared in hsl.bpf.c");
        let program: &SchedClassifier = program.try_into().expect("a classifier");
        let options = TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        match program.test_run(options) {
            Ok(result) => Ok(result.return_value),
            Err(aya::programs::ProgramError::SyscallError(error)) => Err(error.io_error),
            Err(error) => panic!("test run: {error}"),
        }
    }

    /// Have the programs try to capture everything, for [`Rig::keyed`].
    pub fn capture_all(&mut self) {
        for side in Side::ALL {
            self.set_rules(side, &[(Match::all(), Treatment::Capture)]);
        }
    }

    /// The flows of the packets that were to be captured since the last call: the programs begin
    /// a count of each.
    pub fn keyed(&mut self) -> Vec<Key> {
        let keys: Vec<Key> = self.counts.keys().flatten().collect();
        for key in &keys {
            self.counts.remove(key).expect("just seen");
        }
        keys
    }

    /// The flows accounted for since the last call.
    pub fn accounted(&mut self) -> Vec<Key> {
        let keys: Vec<Key> = self.flows.keys().flatten().collect();
        for key in &keys {
            self.flows.remove(key).expect("just seen");
            let at = Recent::slot(key);
            let slots = self.recent.get(&at, 0).expect("in the array");
            let empty = PerCpuValues::try_from(vec![Recent::EMPTY; slots.len()]);
            self.recent
                .set(at, empty.expect("one a CPU"), 0)
                .expect("in the array");
        }
        keys
    }

    /// An agent is alive, holds are in force, nothing has failed open.
    pub fn begin(&self) {
        self.control.set_active(true);
        self.control.begin_epoch(now(), 60_000_000_000, SETTLE_NS);
    }

    /// Put rules in force. As many as fit; their order is their priority. Each time in the other
    /// bank, with whatever is left in it from before.
    pub fn set_rules(&mut self, side: Side, rules: &[(Match, Treatment)]) {
        assert!(rules.len() <= RULES_PER_SIDE);
        self.bank ^= 1;
        let base = (side.index() * 2 + self.bank) * RULES_PER_SIDE;
        for (at, (matching, treatment)) in rules.iter().enumerate() {
            let (mask, value) = matching.on(side);
            let rule = Rule {
                mask,
                value,
                mode: mode(*treatment) as u32,
                zero: 0,
            };
            self.rules
                .set((base + at) as u32, rule, 0)
                .expect("there is room");
        }
        self.control
            .set_rules(side, (self.bank << 16 | rules.len()) as u32);
    }

    pub fn set_mode(&mut self, key: Key, treatment: Treatment) {
        let mode = FlowMode {
            mode: mode(treatment) as u32,
            zero: 0,
        };
        self.modes.insert(key, mode, 0).expect("there is room");
    }

    pub fn own(&mut self, key: Key) {
        self.flows
            .insert(key, Flow::default(), 0)
            .expect("there is room");
    }

    pub fn set_count(&mut self, key: Key, count: Count) {
        self.counts.insert(key, count, 0).expect("there is room");
    }

    /// No flow is treated, counted or owned.
    pub fn clear(&mut self) {
        self.accounted();
        for key in self.modes.keys().flatten().collect::<Vec<_>>() {
            self.modes.remove(&key).expect("just seen");
        }
        for key in self.counts.keys().flatten().collect::<Vec<_>>() {
            self.counts.remove(&key).expect("just seen");
        }
    }

    pub fn counters(&self, side: Side) -> Counters {
        let all = self
            .counters
            .get(&(side.index() as u32), 0)
            .expect("per side");
        all.iter()
            .fold(Counters::default(), |sum, one| sum.plus(one))
    }

    /// Whether a frame that arrives now is to be captured. There is no TAP, so the programs let it
    /// pass in the end and count that; this is what shows it.
    pub fn would_capture(&self, side: Side, frame: &[u8]) -> bool {
        self.begin();
        let before = self.counters(side).failed_open;
        self.arrive(side, frame).expect("a whole frame");
        let captured = self.counters(side).failed_open - before;
        assert_eq!(
            self.control.tripped(),
            captured == 1,
            "a packet that fails open trips"
        );
        captured == 1
    }
}

/// How long the rig lets a flow keep to the CPU of its last release.
pub const SETTLE_NS: u64 = 10_000_000_000;

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("-l")
            .arg(&self.directory)
            .status();
        let _ = std::fs::remove_dir(&self.directory);
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("always there");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

fn own_bpf_file_system() -> PathBuf {
    unshare(CloneFlags::CLONE_NEWNS).expect("root may have a mount namespace of its own");
    static RIGS: AtomicU32 = AtomicU32::new(0);
    let number = RIGS.fetch_add(1, Ordering::Relaxed);
    let name = format!("flowferry-rig-{}-{number}", std::process::id());
    let directory = std::env::temp_dir().join(name);
    std::fs::create_dir(&directory).expect("the temporary directory is writable");
    let mount = |arguments: &[&str]| {
        let done = Command::new("mount")
            .args(arguments)
            .arg(&directory)
            .status();
        assert!(
            done.is_ok_and(|done| done.success()),
            "mount {arguments:?} {directory:?}"
        );
    };
    let private = Command::new("mount")
        .args(["--make-rprivate", "/"])
        .status();
    assert!(
        private.is_ok_and(|done| done.success()),
        "mounts of a namespace can be made private"
    );
    mount(&["-t", "bpf", "bpf"]);
    directory
}

fn load(side: Side, pins: &PathBuf) -> Ebpf {
    let mut loader = EbpfLoader::new();
    loader.default_map_pin_directory(pins);
    let mut ebpf = loader
        .load(OBJECTS[side.index()])
        .expect("the object loads");
    for (name, program) in ebpf.programs_mut() {
        let program: &mut SchedClassifier = program.try_into().expect("classifiers only");
        program
            .load()
            .unwrap_or_else(|error| panic!("the verifier refuses {name}: {error}"));
    }
    ebpf
}

fn take<T>(ebpf: &mut Ebpf, name: &str) -> T
where
    T: TryFrom<Map, Error = aya::maps::MapError>,
{
    let map = ebpf
        .take_map(name)
        .unwrap_or_else(|| panic!("maps.h declares {name}"));
    T::try_from(map).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn mode(treatment: Treatment) -> Mode {
    match treatment {
        Treatment::Pass => Mode::Pass,
        Treatment::Capture => Mode::Capture,
        Treatment::Arm => Mode::Arm,
    }
}
