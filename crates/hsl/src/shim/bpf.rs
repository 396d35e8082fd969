//! The programs of `bpf/hsl.bpf.c`: loaded, attached, and their maps as typed values.
//!
//! Maps and the links of the instance's own interfaces are pinned below one directory, so that
//! they outlive the agent: the traffic goes on without it, and the next agent takes them over
//! with all counts.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::programs::{SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader, Pod, include_bytes_aligned};
use nix::net::if_::if_nametoindex;

use super::batch::read_all;
use super::control::ControlPage;
use super::error::BpfError;
use super::hook::{self, Attachment, hook};
use super::layout;
use super::shared::{Count, Counters, Flow, FlowMode, Mode, RULES_PER_SIDE, Recent, Rule};
use super::tap::Tap;
use crate::key::{Key, Parsed, Side};

/// By side.
static OBJECTS: [&[u8]; 2] = [
    include_bytes_aligned!(concat!(env!("OUT_DIR"), "/hsl0.bpf.o")),
    include_bytes_aligned!(concat!(env!("OUT_DIR"), "/hsl1.bpf.o")),
];

/// Insert only where there is no entry (`linux/bpf.h`).
const BPF_NOEXIST: u64 = 1;

/// One side's interfaces.
#[derive(Clone, Debug)]
pub struct Interfaces {
    /// The instance's own interface.
    pub outer: String,
    /// The HSL's end of the inner veth pair; `None` for functions the kernel itself forwards.
    pub inner: Option<String>,
    /// Name of the TAP to make.
    pub tap: String,
}

/// Another agent's programs and maps were taken away.
pub struct Replaced {
    /// Packets that it held, which are lost; `None` if its maps cannot be read.
    pub held: Option<u64>,
}

/// The loaded programs of both sides and their maps.
pub struct Programs {
    sides: [Ebpf; 2],
    interfaces: [Interfaces; 2],
    attachment: Attachment,
    pins: PathBuf,
    /// Pins of another version, or of tables of another size.
    replaced: Vec<PathBuf>,
    /// The page shared with the programs.
    pub control: ControlPage,
    flows: HashMap<MapData, Key, Flow>,
    modes: HashMap<MapData, Key, FlowMode>,
    counts: HashMap<MapData, Key, Count>,
    rules: Array<MapData, Rule>,
    counters: PerCpuArray<MapData, Counters>,
    recent: PerCpuArray<MapData, Recent>,
    bank: [u32; 2],
}

impl Programs {
    /// Load the programs, taking over pinned maps, and hook them into the interfaces. Nothing is
    /// captured before rules or modes say so.
    pub fn attach(
        interfaces: [Interfaces; 2],
        attachment: Attachment,
        pins: &Path,
        table_size: u32,
    ) -> Result<Programs, BpfError> {
        let own = layout::directory(pins, table_size);
        let (replaced, pins) = (layout::others(pins, &own), own);
        fs::create_dir_all(&pins).map_err(|source| BpfError::Pin {
            path: pins.clone(),
            source,
        })?;
        let mut sides = [
            load(Side::Upstream, &pins, table_size)?,
            load(Side::Downstream, &pins, table_size)?,
        ];
        let first = &mut sides[0];
        let control = first.take_map("ff_control").expect("declared in maps.h");
        let Map::Array(control) = control else {
            unreachable!("declared as an array")
        };
        let control = ControlPage::map(control.fd().as_fd()).map_err(|source| BpfError::Pin {
            path: pins.join("ff_control"),
            source,
        })?;
        let mut programs = Programs {
            flows: take(first, "ff_flows")?,
            modes: take(first, "ff_modes")?,
            counts: take(first, "ff_counts")?,
            rules: take(first, "ff_rules")?,
            counters: take(first, "ff_counters")?,
            recent: take(first, "ff_recent")?,
            sides,
            interfaces,
            attachment,
            pins,
            replaced,
            control,
            bank: [0; 2],
        };
        programs.hook_interfaces()?;
        Ok(programs)
    }

    fn hook_interfaces(&mut self) -> Result<(), BpfError> {
        for side in Side::ALL {
            let at = side.index();
            let Interfaces { outer, inner, .. } = self.interfaces[at].clone();
            let index = |name: &str| {
                if_nametoindex(name).map_err(|_| BpfError::NoInterface {
                    name: name.to_owned(),
                })
            };
            let (outer_index, inner_index) = (
                index(&outer)?,
                inner.as_deref().map(index).transpose()?.unwrap_or(0),
            );
            self.control.set_wiring(side, outer_index, inner_index);
            if let Some(inner) = &inner {
                let pin = self.pins.join(format!("link_inner_{side}"));
                hook(
                    &mut self.sides[at],
                    "ff_inner_ingress",
                    inner,
                    TcAttachType::Ingress,
                    Some(&pin),
                    self.attachment,
                )?;
            }
            let pin = self.pins.join(format!("link_{side}"));
            hook(
                &mut self.sides[at],
                "ff_ingress",
                &outer,
                TcAttachType::Ingress,
                Some(&pin),
                self.attachment,
            )?;
        }
        Ok(())
    }

    /// Whether the instance's interfaces are the ones that were hooked.
    pub fn check_interfaces(&self) -> Result<(), BpfError> {
        for (at, each) in self.interfaces.iter().enumerate() {
            let wired = self.control.wiring(Side::ALL[at]);
            let inner = each.inner.as_ref().map(|name| (name, wired.1));
            for (name, index) in [Some((&each.outer, wired.0)), inner].into_iter().flatten() {
                if if_nametoindex(name.as_str()) != Ok(index) {
                    return Err(BpfError::NoInterface { name: name.clone() });
                }
            }
        }
        Ok(())
    }

    /// Make a side's TAP and guard both its directions, then tell the programs of it.
    pub fn open_tap(&mut self, side: Side) -> Result<Tap, BpfError> {
        let name = &self.interfaces[side.index()].tap;
        let tap = Tap::create(name).map_err(|source| BpfError::Tap {
            name: name.clone(),
            source,
        })?;
        let ebpf = &mut self.sides[side.index()];
        let how = self.attachment;
        hook(ebpf, "ff_tap_egress", name, TcAttachType::Egress, None, how)?;
        hook(
            ebpf,
            "ff_tap_ingress",
            name,
            TcAttachType::Ingress,
            None,
            how,
        )?;
        self.control.set_tap(side, tap.index);
        Ok(tap)
    }

    /// Take away what an agent of another version left, or one with tables of another size, if there
    /// was one. These programs have to be attached: those of the other, without an agent, let everything
    /// on, before these see it or instead of them, and so no packet is lost.
    pub fn replace(&mut self) -> io::Result<Option<Replaced>> {
        if self.replaced.is_empty() {
            return Ok(None);
        }
        let held = self.replaced.iter().map(|pins| layout::held(pins)).sum();
        for pins in std::mem::take(&mut self.replaced) {
            fs::remove_dir_all(pins)?;
        }
        Ok(Some(Replaced { held }))
    }

    /// Undo [`Programs::attach`] where there was nothing before; what another version left stays.
    pub fn withdraw(&self) -> io::Result<()> {
        if self.replaced.is_empty() {
            Programs::unhook(&self.interfaces);
        }
        fs::remove_dir_all(&self.pins)
    }

    /// Take every program off and every pin away. Traffic of the veth shim stops with it.
    pub fn detach(interfaces: &[Interfaces; 2], pins: &Path, table_size: u32) -> io::Result<()> {
        Programs::unhook(interfaces);
        match fs::remove_dir_all(layout::directory(pins, table_size)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    fn unhook(interfaces: &[Interfaces; 2]) {
        for each in interfaces {
            for name in [Some(&each.outer), each.inner.as_ref()]
                .into_iter()
                .flatten()
            {
                hook::unhook(name);
            }
        }
    }

    /// Make `rules`, highest priority first, the ones in force on `side`; all at once.
    pub fn set_rules(&mut self, side: Side, rules: &[Rule]) -> Result<(), BpfError> {
        let bank = self.bank[side.index()] ^ 1;
        let base = (side.index() as u32 * 2 + bank) * RULES_PER_SIDE as u32;
        for (at, rule) in rules.iter().take(RULES_PER_SIDE).enumerate() {
            self.rules
                .set(base + at as u32, rule, 0)
                .map_err(in_map("ff_rules"))?;
        }
        self.bank[side.index()] = bank;
        self.control
            .set_rules(side, bank << 16 | rules.len() as u32);
        Ok(())
    }

    /// Say what happens to one flow whatever the rules say; `None` leaves it to them.
    pub fn set_mode(&mut self, key: &Key, mode: Option<Mode>) -> Result<(), BpfError> {
        match mode {
            Some(mode) => self.modes.insert(
                key,
                FlowMode {
                    mode: mode as u32,
                    zero: 0,
                },
                0,
            ),
            None => absent_is_fine(self.modes.remove(key)),
        }
        .map_err(in_map("ff_modes"))
    }

    /// The programs' counts of one flow.
    pub fn count(&self, key: &Key) -> Option<Count> {
        self.counts.get(key, 0).ok()
    }

    /// A map's entries, read in batches.
    fn all<V: Pod>(&self, map: &str) -> io::Result<Vec<(Key, V)>> {
        // The other side's programs have the same maps, and here they were left in place.
        match self.sides[1].map(map) {
            Some(Map::HashMap(data) | Map::LruHashMap(data)) => read_all(data.fd().as_fd()),
            _ => unreachable!("declared as a hash map"),
        }
    }

    /// All flows the programs hold counts of.
    pub fn counts(&self) -> Vec<(Key, Count)> {
        self.all("ff_counts")
            .unwrap_or_else(|_| self.counts.iter().flatten().collect())
    }

    /// Drop one flow's counts; only when nothing of it is outstanding.
    pub fn drop_count(&mut self, key: &Key) -> Result<(), BpfError> {
        absent_is_fine(self.counts.remove(key)).map_err(in_map("ff_counts"))
    }

    /// Drop all modes and counts; only while the programs fail open.
    pub fn clear(&mut self) -> Result<(), BpfError> {
        for key in self.modes.keys().flatten().collect::<Vec<_>>() {
            self.set_mode(&key, None)?;
        }
        for (key, _) in self.counts() {
            self.drop_count(&key)?;
        }
        Ok(())
    }

    fn accounted(&self) -> Vec<(Key, Flow)> {
        self.all("ff_flows")
            .unwrap_or_else(|_| self.flows.iter().flatten().collect())
    }

    /// What has gone on to the function, as the last packet of each flow side came.
    pub fn served(&self) -> Vec<Parsed> {
        let parsed = |(key, flow): (Key, Flow)| Parsed::flow(key, flow.swapped != 0);
        self.accounted().into_iter().map(parsed).collect()
    }

    /// Flow accounting: what has gone on to the function, by key.
    pub fn flows(&self) -> Vec<(Key, Flow)> {
        let mut flows: std::collections::HashMap<Key, Flow> =
            self.accounted().into_iter().collect();
        for slots in self.recent.iter().flatten() {
            for slot in slots.iter().filter(|slot| slot.packets > 0) {
                if let Some(flow) = flows.get_mut(&slot.key) {
                    flow.packets += u64::from(slot.packets);
                    flow.bytes += slot.bytes;
                }
            }
        }
        flows.into_iter().collect()
    }

    /// A flow is served here, before a packet of it has gone on; what is accounted already stays.
    pub fn own(&mut self, flow: &Parsed, now: u64) -> Result<(), BpfError> {
        let first = Flow {
            swapped: u64::from(flow.swapped),
            last_ns: now,
            ..Flow::default()
        };
        match self.flows.insert(flow.key, first, BPF_NOEXIST) {
            Err(MapError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::AlreadyExists =>
            {
                Ok(())
            }
            done => done.map_err(in_map("ff_flows")),
        }
    }

    /// Forget that a flow was served here; its next packet is its first again.
    pub fn disown(&mut self, key: &Key) -> Result<(), BpfError> {
        absent_is_fine(self.flows.remove(key)).map_err(in_map("ff_flows"))?;
        let at = Recent::slot(key);
        let slots = self.recent.get(&at, 0).map_err(in_map("ff_recent"))?;
        if slots.iter().all(|slot| slot.key != *key) {
            return Ok(());
        }
        let kept = slots.iter().map(|slot| {
            if slot.key == *key {
                Recent::EMPTY
            } else {
                *slot
            }
        });
        let kept = PerCpuValues::try_from(kept.collect::<Vec<_>>()).expect("as many as before");
        self.recent.set(at, kept, 0).map_err(in_map("ff_recent"))
    }

    /// A side's counters, summed over the CPUs.
    pub fn counters(&self, side: Side) -> Result<Counters, BpfError> {
        let all = self
            .counters
            .get(&(side.index() as u32), 0)
            .map_err(in_map("ff_counters"))?;
        Ok(all
            .iter()
            .fold(Counters::default(), |sum, one| sum.plus(one)))
    }

    /// The interfaces of a side.
    pub fn interfaces(&self, side: Side) -> &Interfaces {
        &self.interfaces[side.index()]
    }
}

fn load(side: Side, pins: &Path, table_size: u32) -> Result<Ebpf, BpfError> {
    let mut loader = EbpfLoader::new();
    loader.default_map_pin_directory(pins);
    for map in ["ff_flows", "ff_modes", "ff_counts"] {
        loader.map_max_entries(map, table_size);
    }
    let mut ebpf = loader.load(OBJECTS[side.index()])?;
    // All at once, while the maps that they name are still open here.
    for (name, program) in ebpf.programs_mut() {
        <&mut SchedClassifier>::try_from(program)
            .and_then(SchedClassifier::load)
            .map_err(|source| BpfError::Verify {
                name: name.to_owned(),
                source,
            })?;
    }
    Ok(ebpf)
}

fn take<T: TryFrom<Map, Error = MapError>>(
    ebpf: &mut Ebpf,
    name: &'static str,
) -> Result<T, BpfError> {
    ebpf.take_map(name)
        .expect("declared in maps.h")
        .try_into()
        .map_err(in_map(name))
}

fn in_map(map: &'static str) -> impl Fn(MapError) -> BpfError {
    move |source| BpfError::Map { map, source }
}

fn absent_is_fine(done: Result<(), MapError>) -> Result<(), MapError> {
    match done {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        done => done,
    }
}
