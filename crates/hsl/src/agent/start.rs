//! From a configuration to an agent that runs: files read, sockets open, programs attached.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use flowferry_tls::Identity;
use flowferry_wire::{KeyRing, Opener, Sealer};
use nix::time::{ClockId, clock_gettime};

use super::audit::Audit;
use super::conduct::Conduct;
use super::config::{Config, Kind};
use super::error::{AgentError, system};
use super::failpoint::{self, Failpoint};
use super::flush::Flushes;
use super::pace::Pace;
use super::peers::{Peers, Refusals};
use super::place::Place;
use super::radio::Radio;
use super::{Agent, Flight, Trust, function, identity, now};
use crate::endpoint::Endpoint;
use crate::handover::{Handovers, Settings};
use crate::key::Side;
use crate::shim::tap::MAX_READ;
use crate::shim::tc::{Clocks, TcShim};

impl Agent {
    /// Attach, take over what an earlier agent left, and open the command socket.
    /// At most `burst` frames written on a side may wait for their second pass.
    pub fn start(config: Config, burst: u64) -> Result<Agent, AgentError> {
        let wiring = config.wiring().map_err(AgentError::Config)?;
        let mut endpoint = Endpoint::new(config.buffer_bytes);
        let mut handovers = Handovers::new(settings(&config));
        if let Some(text) = &config.failpoint {
            match failpoint::parse(text).map_err(AgentError::Config)? {
                Failpoint::Endpoint(hook) => endpoint.set_hook(hook),
                Failpoint::Handover(hook) => handovers.set_hook(hook),
            }
        }
        let keys = read_keys(&config)?;
        let peers = Peers {
            listener: listen_for_strays(&config, keys.is_some())?,
            identity: read_certificates(&config)?,
            takers: Vec::new(),
            senders: HashMap::new(),
            of_hold: HashMap::new(),
            refusals: Refusals::default(),
        };
        let radio = match keys {
            Some(_) => Some(open_radio(&config)?),
            None => None,
        };
        let started_ns = now();
        let trust = keys.map(|keys| Trust {
            keys,
            frames: Opener::new(config.instance.id),
            streams: Opener::new(config.instance.id),
            sealer: Sealer::new(config.instance.id, boot()),
        });
        let marks = u64::from_ne_bytes(random()?);
        let marks = ((marks as u32) | 1, ((marks >> 32) as u32 & !1) | 2);
        let clocks = Clocks {
            timeout: config.heartbeat_timeout_ms * 1_000_000,
            settle: config.settle_us * 1_000,
        };
        let mut shim = TcShim::attach(
            wiring,
            config.attach,
            &config.pins,
            config.table_size,
            clocks,
            marks,
        )?;
        let replaced = shim.replaced.take();
        let mut agent = Agent {
            shim: Box::new(shim),
            endpoint,
            handovers,
            conduct: Conduct::default(),
            radio,
            channel: function::listen(&config)?,
            flushes: Flushes::new(random()?).map_err(system("cannot tell which CPUs there are"))?,
            markers: BTreeMap::new(),
            trust,
            peers,
            listener: listen(&config.socket)?,
            clients: BTreeMap::new(),
            next_client: 1,
            waits: Vec::new(),
            settling: VecDeque::new(),
            active: false,
            unseen: HashMap::new(),
            table_full: 0,
            audit: Audit::default(),
            buffer: vec![0; MAX_READ],
            busy: false,
            last_beat: started_ns,
            started_ns,
            captured: [0; 2],
            flights: [Flight::default(); 2],
            pace: Pace::new(config.release_rate),
            burst,
            lost: 0,
            misplaced: 0,
            took_over: None,
            stopping: None,
            stalled_ns: 0,
            inspected_ns: started_ns,
            namespace: identity(&config),
            place: Place::here()
                .map_err(|error| system("cannot tell which CPUs to run on")(error.into()))?,
            config,
        };
        agent.take_over()?;
        if let Some(replaced) = replaced {
            agent.take_the_place_of(&replaced);
        }
        for side in Side::ALL {
            agent.table_full += agent.shim.counters(side)?.table_full;
        }
        Ok(agent)
    }
}

/// Rises at every start: the wall clock in nanoseconds.
fn boot() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_REALTIME).expect("always there");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// Run before others who want the CPU: an agent that waits for it loses packets, and an idle one
/// needs none. Niceness would count within its session or control group only. Without the right
/// to this (CAP_SYS_NICE) it goes on as it is.
pub(super) fn prefer_this_thread() {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: `lowest` outlives the call; 0 is the calling thread.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &lowest);
    }
}

/// Move the calling thread into a network namespace.
pub(super) fn enter(name: &str) -> Result<(), AgentError> {
    let path = format!("/run/netns/{name}");
    let file = fs::File::open(&path).map_err(system(format!(
        "cannot open the network namespace {path}; `ip netns` lists them"
    )))?;
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)
        .map_err(|error| system(format!("cannot enter {path}; root is needed"))(error.into()))
}

/// Give up every capability but those that maps, links and a TAP made anew need.
pub(super) fn keep_only_needed_rights() -> Result<(), AgentError> {
    use caps::{CapSet, Capability};
    let needed = [Capability::CAP_NET_ADMIN, Capability::CAP_BPF].into();
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &needed)
            .map_err(|error| system("cannot give up capabilities")(io::Error::other(error)))?;
    }
    Ok(())
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], AgentError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|error| system("no random numbers from the kernel")(io::Error::other(error)))?;
    Ok(bytes)
}

fn read_keys(config: &Config) -> Result<Option<KeyRing>, AgentError> {
    let mut ring: Option<KeyRing> = None;
    for file in &config.keys {
        let path = file.file.display();
        let unreadable = || system(format!("cannot read the key {path}"));
        refuse_if_shared(&file.file)?;
        let text = fs::read_to_string(&file.file).map_err(unreadable())?;
        let digits = text.trim();
        let bytes = (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(digits.get(at..at + 2).unwrap_or("x"), 16))
            .collect::<Result<Vec<u8>, _>>()
            .map_err(|_| AgentError::Config(format!("{path} holds no hexadecimal key")))?;
        let bad =
            |error: &dyn std::fmt::Display| AgentError::Config(format!("key {path}: {error}"));
        let key = flowferry_wire::Key::new(bytes).map_err(|error| bad(&error))?;
        match &mut ring {
            None => ring = Some(KeyRing::new(file.id, key)),
            Some(ring) => ring.add(file.id, key).map_err(|error| bad(&error))?,
        }
    }
    Ok(ring)
}

/// A secret belongs to its owner alone.
fn refuse_if_shared(file: &Path) -> Result<(), AgentError> {
    let path = file.display();
    let mode = fs::metadata(file)
        .map_err(system(format!("cannot read the key {path}")))?
        .mode();
    match mode & 0o077 {
        0 => Ok(()),
        _ => Err(AgentError::Config(format!(
            "others may use the key {path} (mode {:o}); `chmod 600 {path}`",
            mode & 0o777
        ))),
    }
}

/// Who we are to other agents, if streams go over TLS; all that they would refuse is said now.
fn read_certificates(config: &Config) -> Result<Option<Identity>, AgentError> {
    let Some(tls) = &config.tls else {
        return Ok(None);
    };
    refuse_if_shared(&tls.key)?;
    tls.identity(Some(config.instance.id))
        .map(Some)
        .map_err(|error| AgentError::Config(error.to_string()))
}

/// What the handovers are told; the epoch follows when it has begun.
fn settings(config: &Config) -> Settings {
    Settings {
        own: config.instance.id,
        name: config.instance.name.clone(),
        epoch: 0,
        quiet_ns: match config.shim {
            Kind::Kernel => None,
            Kind::Veth => Some(config.drain_quiet_us * 1_000),
        },
    }
}

fn open_radio(config: &Config) -> Result<Radio, AgentError> {
    let names = &config.interfaces;
    let interfaces = [names.upstream.as_str(), names.downstream.as_str()];
    Radio::open(config.instance.id, interfaces).map_err(system(format!(
        "cannot open packet sockets on {} and {} for control frames; root is needed",
        names.upstream, names.downstream
    )))
}

pub(super) fn listen(path: &Path) -> Result<UnixListener, AgentError> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(AgentError::Config(format!(
            "another agent answers on {}; stop it first, or choose another `socket`",
            path.display()
        )));
    }
    let _ = fs::remove_file(path);
    let refused = || system(format!("cannot listen on {}", path.display()));
    let listener = UnixListener::bind(path).map_err(refused())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(refused())?;
    listener.set_nonblocking(true).map_err(refused())?;
    Ok(listener)
}

fn listen_for_strays(config: &Config, keys: bool) -> Result<Option<TcpListener>, AgentError> {
    let Some(address) = &config.strays_listen else {
        return Ok(None);
    };
    if !keys {
        return Err(AgentError::Config(
            "`strays_listen` needs `keys`: packets are taken only from agents that have one"
                .to_owned(),
        ));
    }
    let refused = || system(format!("cannot listen for strays on {address}"));
    let listener = TcpListener::bind(address).map_err(refused())?;
    listener.set_nonblocking(true).map_err(refused())?;
    Ok(Some(listener))
}
