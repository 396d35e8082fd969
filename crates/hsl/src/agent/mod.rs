//! The agent: the thin shell around the endpoint. One thread, one loop: read what was captured,
//! write what may go, answer commands, keep the heart beating.
//!
//! A single thread is what makes failing open sound: the heartbeat is written by the same loop
//! that releases, so while it is fresh, no stale packet can be on its way out.

pub mod api;
mod commands;
mod conduct;
pub mod config;
mod dial;
mod failpoint;
mod flush;
mod function;
mod lines;
mod packets;
mod peers;
mod radio;
mod recovery;
mod settling;
mod strays;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flowferry_wire::{KeyRing, Opener, Sealer};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde_json::Value;

use crate::endpoint::{Action, Endpoint, HoldId, Notice};
use crate::handover::{self, Handovers, Settings, news};
use crate::key::{Key, Side};
use crate::shim::Shim;
use crate::shim::bpf::{BpfError, Programs};
use crate::shim::tap::MAX_READ;
use crate::shim::tc::{Clocks, TcShim};
use conduct::Conduct;
use config::{Config, Kind};
use failpoint::Failpoint;
use flush::{FlushId, Flushes};
use function::Channel;
use lines::Lines;
use peers::Peers;
use radio::Radio;

/// How often the agent looks whether its interfaces and its namespace are still there.
const INSPECTION_NS: u64 = 500_000_000;
/// While packets are only kept, nobody waits for them: let some gather, and others have the CPU.
const GATHER: Duration = Duration::from_micros(50);
/// How often a resting agent wakes up to beat its heart.
const REST_MS: u8 = 50;

/// Why the agent ended.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its configuration is not usable.
    #[error("{0}")]
    Config(String),
    /// The data plane failed.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// An operating-system call failed.
    #[error("{what}: {source}")]
    System {
        /// What was being done, and to what.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> AgentError {
    let what = what.into();
    move |source| AgentError::System { what, source }
}

/// CLOCK_MONOTONIC in nanoseconds, the clock of the programs.
fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("always there");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// Rises at every start: the wall clock in nanoseconds.
fn boot() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_REALTIME).expect("always there");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// What a client waits for.
enum Wait {
    Hold { id: HoldId, deadline: u64 },
    Flush { id: FlushId },
}

/// A marker whose fence is under way.
struct Marker {
    handover: u64,
    sequence: u64,
    seen_ns: u64,
    captured_when_seen: u64,
}

/// Frames written on a side, against those that came back to the programs.
#[derive(Clone, Copy, Default)]
struct Flight {
    written: u64,
    passed: u64,
    since_ns: u64,
}

/// Authentication of control frames and streams.
struct Trust {
    keys: KeyRing,
    frames: Opener,
    streams: Opener,
    sealer: Sealer,
}

/// See the module's head.
pub struct Agent {
    config: Config,
    shim: Box<dyn Shim>,
    endpoint: Endpoint,
    handovers: Handovers,
    conduct: Conduct,
    /// Control frames out; with keys only.
    radio: Option<Radio>,
    channel: Option<Channel>,
    flushes: Flushes,
    markers: BTreeMap<u64, Marker>,
    trust: Option<Trust>,
    peers: Peers,
    listener: UnixListener,
    clients: BTreeMap<u64, Lines>,
    next_client: u64,
    waits: Vec<(u64, Wait)>,
    /// Flows whose settling is looked at next.
    settling: VecDeque<Key>,
    /// The programs look at flows.
    active: bool,
    /// Overflow of flows that never got here, as far as it is counted.
    unseen: HashMap<Key, u64>,
    table_full: u64,
    /// Counts that stand still: (captured, released, since).
    still: HashMap<Key, (u64, u64, u64)>,
    buffer: Vec<u8>,
    /// Frames read from either TAP in this turn.
    busy: bool,
    last_beat: u64,
    started_ns: u64,
    captured: [u64; 2],
    flights: [Flight; 2],
    burst: u64,
    lost: u64,
    /// Markers that came in on another side than they were signed for.
    misplaced: u64,
    took_over: Option<u64>,
    stopping: Option<bool>,
    stalled_ns: u64,
    inspected_ns: u64,
    /// Device and inode of the network namespace's name.
    namespace: Option<(u64, u64)>,
    /// The CPUs it may run on, whether it moved to one of them for a flow's sake, and when.
    home: CpuSet,
    away: bool,
    moved_ns: u64,
}

/// Run an agent until `stop` becomes true or it is told to end; its last status. `ready` is called
/// once commands are taken.
pub fn run(
    config: Config,
    stop: Arc<AtomicBool>,
    ready: impl FnOnce(),
) -> Result<Value, AgentError> {
    let burst = packets::burst();
    if let Some(name) = &config.netns {
        enter(name)?;
    }
    prefer_this_thread();
    let mut agent = Agent::start(config, burst)?;
    keep_only_needed_rights()?;
    ready();
    agent.serve(&stop)?;
    Ok(agent.status())
}

/// Run before others who want the CPU: an agent that waits for it loses packets, and an idle one
/// needs none. Niceness would count within its session or control group only. Without the right
/// to this (CAP_SYS_NICE) it goes on as it is.
fn prefer_this_thread() {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: `lowest` outlives the call; 0 is the calling thread.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &lowest);
    }
}

/// Move the calling thread into a network namespace.
fn enter(name: &str) -> Result<(), AgentError> {
    let path = format!("/run/netns/{name}");
    let file = fs::File::open(&path).map_err(system(format!(
        "cannot open the network namespace {path}; `ip netns` lists them"
    )))?;
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)
        .map_err(|error| system(format!("cannot enter {path}; root is needed"))(error.into()))
}

/// Give up every capability but those that maps, links and a TAP made anew need.
fn keep_only_needed_rights() -> Result<(), AgentError> {
    use caps::{CapSet, Capability};
    let needed = [Capability::CAP_NET_ADMIN, Capability::CAP_BPF].into();
    for set in [CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &needed)
            .map_err(|error| system("cannot give up capabilities")(io::Error::other(error)))?;
    }
    Ok(())
}

/// Which file the namespace's name stands for; `None` when there is no such name.
fn identity(config: &Config) -> Option<(u64, u64)> {
    let found = fs::metadata(format!("/run/netns/{}", config.netns.as_ref()?)).ok()?;
    Some((found.dev(), found.ino()))
}

fn random<const N: usize>() -> Result<[u8; N], AgentError> {
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
        let mode = fs::metadata(&file.file).map_err(unreadable())?.mode();
        if mode & 0o077 != 0 {
            return Err(AgentError::Config(format!(
                "others may use the key {path} (mode {:o}); `chmod 600 {path}`",
                mode & 0o777
            )));
        }
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
            takers: Vec::new(),
            senders: HashMap::new(),
            of_hold: HashMap::new(),
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
        let shim = TcShim::attach(
            wiring,
            config.attach,
            &config.pins,
            config.table_size,
            clocks,
            marks,
        )?;
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
            still: HashMap::new(),
            buffer: vec![0; MAX_READ],
            busy: false,
            last_beat: started_ns,
            started_ns,
            captured: [0; 2],
            flights: [Flight::default(); 2],
            burst,
            lost: 0,
            misplaced: 0,
            took_over: None,
            stopping: None,
            stalled_ns: 0,
            inspected_ns: started_ns,
            namespace: identity(&config),
            home: sched_getaffinity(Pid::from_raw(0))
                .map_err(|error| system("cannot tell which CPUs to run on")(error.into()))?,
            away: false,
            moved_ns: 0,
            config,
        };
        agent.take_over()?;
        for side in Side::ALL {
            agent.table_full += agent.shim.counters(side)?.table_full;
        }
        Ok(agent)
    }

    fn serve(&mut self, stop: &AtomicBool) -> Result<(), AgentError> {
        loop {
            if stop.load(Ordering::Relaxed) && self.stopping.is_none() {
                self.begin_stop(false);
            }
            self.beat()?;
            self.wait_for_work()?;
            self.beat()?;
            self.busy = false;
            for side in Side::ALL {
                self.read_captured(side)?;
            }
            self.act()?;
            self.write_released()?;
            self.send_strays()?;
            self.take_strays()?;
            self.hear_function()?;
            self.answer_clients()?;
            self.tick()?;
            self.act()?; // before counts are looked at: rules and treatments change them
            self.settle()?;
            self.act()?;
            if self.stopping.is_some() && self.endpoint.is_idle() {
                return self.end();
            }
        }
    }

    /// Beat the heart, unless we have been away too long: then what we hold is late.
    fn beat(&mut self) -> Result<(), AgentError> {
        let late = self.is_late();
        let time = now();
        self.last_beat = time;
        if time - self.inspected_ns > INSPECTION_NS {
            self.inspected_ns = time;
            self.inspect()?;
        }
        if late || self.shim.tripped() {
            let why =
                "packets had gone past what was held (the agent was stopped, starved or cut off)";
            return self.start_over(why);
        }
        self.shim.beat(time);
        Ok(())
    }

    /// Whether we have been away too long, or packets have gone past: then nothing of what is held
    /// may go out any more, not even in the round of work in which we were stopped. The next beat
    /// starts over and counts it.
    fn is_late(&mut self) -> bool {
        if now() - self.last_beat > self.config.heartbeat_timeout_ms * 1_000_000 {
            self.shim.trip();
        }
        self.shim.tripped()
    }

    /// The function may have been taken away under us.
    fn inspect(&mut self) -> Result<(), AgentError> {
        if self.namespace != identity(&self.config) {
            self.count_all_lost();
            let name = self.config.netns.as_deref().unwrap_or_default();
            return Err(AgentError::Config(format!(
                "network namespace {name} is gone, and the function with it; nothing is left to do here"
            )));
        }
        if self.shim.check().is_err() {
            self.shim.trip();
        }
        Ok(())
    }

    fn wait_for_work(&mut self) -> Result<(), AgentError> {
        if self.busy && self.flushes.is_empty() && self.endpoint.only_keeps() {
            std::thread::sleep(GATHER);
        }
        let pending = self.endpoint.has_writes()
            || self.busy
            || self.has_more_to_account()
            || self.clients.values().any(Lines::has_more);
        let rest = match self.handovers.next_due() {
            None => REST_MS,
            Some(due) => (due.saturating_sub(now()) / 1_000_000).min(u64::from(REST_MS)) as u8,
        };
        let timeout = match (pending, self.endpoint.is_idle() && self.flushes.is_empty()) {
            (true, _) => PollTimeout::ZERO,
            (false, true) => PollTimeout::from(rest),
            (false, false) => PollTimeout::from(rest.min(1)),
        };
        let wait = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut fds: Vec<PollFd<'_>> = Side::ALL.map(|side| wait(self.shim.readable(side))).into();
        fds.push(wait(self.listener.as_fd()));
        fds.extend(
            self.peers
                .listener
                .as_ref()
                .map(|listener| wait(listener.as_fd())),
        );
        fds.extend(self.peers.takers.iter().map(|taker| wait(taker.as_fd())));
        for client in self.clients.values() {
            let write = if client.unsent() {
                PollFlags::POLLOUT
            } else {
                PollFlags::empty()
            };
            fds.push(PollFd::new(client.as_fd(), PollFlags::POLLIN | write));
        }
        for sender in self.peers.senders.values() {
            let write = if sender.unsent() {
                PollFlags::POLLOUT
            } else {
                PollFlags::empty()
            };
            fds.push(PollFd::new(sender.as_fd(), PollFlags::POLLIN | write));
        }
        for (descriptor, writes) in self.channel.iter().flat_map(Channel::descriptors) {
            let write = if writes {
                PollFlags::POLLOUT
            } else {
                PollFlags::empty()
            };
            fds.push(PollFd::new(descriptor, PollFlags::POLLIN | write));
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(error) => Err(system("poll")(error.into())),
        }
    }

    /// Carry out what the endpoint decided.
    fn act(&mut self) -> Result<(), AgentError> {
        self.act_first(Vec::new())
    }

    /// Carry out what the endpoint decided, and then what its handovers did.
    fn act_first(&mut self, mut later: Vec<handover::Action>) -> Result<(), AgentError> {
        loop {
            let actions = self.endpoint.take_actions();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                if let Some(input) = news(&action) {
                    later.extend(self.handovers.handle(&mut self.endpoint, input, now()));
                }
                self.carry_out_action(action)?;
            }
        }
        later
            .into_iter()
            .try_for_each(|action| self.conduct(action))
    }

    fn carry_out_action(&mut self, action: Action) -> Result<(), AgentError> {
        match action {
            Action::Rules(side, rules) => {
                if !rules.is_empty() {
                    self.shim.set_active(true);
                    self.active = true;
                }
                self.shim.set_rules(side, &rules)?;
            }
            Action::Flow(key, treatment) => self.shim.set_flow(&key, treatment)?,
            Action::DropCount(key) => self.shim.drop_count(&key)?,
            Action::Seen(..) => {}
            Action::Notice(notice) => self.on_notice(&notice),
        }
        Ok(())
    }

    fn on_notice(&mut self, notice: &Notice) {
        self.publish(&serde_json::to_value(notice).expect("plain data"));
        let Notice::Hold { hold, .. } = notice else {
            return;
        };
        let Some(ended) = self
            .endpoint
            .holds()
            .find(|each| each.id == *hold && !each.is_live())
        else {
            return;
        };
        let answer = api::success(api::describe(ended));
        self.finish_waits(
            |wait| matches!(wait, Wait::Hold { id, .. } if id == hold),
            &answer,
        );
    }

    fn begin_stop(&mut self, detach: bool) {
        self.stopping = Some(detach);
        let holds: Vec<HoldId> = self.endpoint.holds().map(|hold| hold.id).collect();
        for id in holds {
            // Refused for those that are on their way out already.
            let _ = self.endpoint.abort(id, "the agent was told to end", now());
        }
    }

    fn end(&mut self) -> Result<(), AgentError> {
        self.shim.set_active(false);
        let _ = fs::remove_file(&self.config.socket);
        if let Some(path) = &self.config.function_socket {
            let _ = fs::remove_file(path);
        }
        for client in self.clients.values_mut() {
            client.flush();
        }
        if self.stopping == Some(true) {
            let wiring = self.config.wiring().map_err(AgentError::Config)?;
            Programs::detach(&wiring, &self.config.pins)
                .map_err(system("cannot take the programs off"))?;
        }
        Ok(())
    }
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

fn listen(path: &std::path::Path) -> Result<UnixListener, AgentError> {
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
