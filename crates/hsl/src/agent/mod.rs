//! The agent: the thin shell around the endpoint. One thread, one loop: read what was captured,
//! write what may go, answer commands, keep the heart beating.
//!
//! A single thread is what makes failing open sound: the heartbeat is written by the same loop
//! that releases, so while it is fresh, no stale packet can be on its way out.

pub mod api;
mod commands;
pub mod config;
mod failpoint;
mod flush;
mod lines;
mod recovery;
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

use flowferry_wire::{Command, KeyRing, Opener, Sealer};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::endpoint::{Action, Disposition, Endpoint, HoldId, Notice, Part, State};
use crate::key::{ETHERTYPE_CONTROL, Key, Side};
use crate::shim::bpf::{BpfError, Programs};
use crate::shim::tap::{MAX_READ, VNET_HEADER};
use crate::shim::tc::{Clocks, TcShim};
use crate::shim::{Outcome, Shim, Write};
use config::Config;
use flush::{FlushId, Flushes};
use lines::Lines;

/// Frames read, and frames written, per side before the loop looks at anything else.
const BATCH: usize = 256;
/// Flows looked at in one turn for whether they have settled.
const SETTLING_BATCH: usize = 512;
/// A count that stands still for this long while nothing is queued has lost packets.
const AUDIT_NS: u64 = 50_000_000;
/// How often the agent looks whether its interfaces and its namespace are still there.
const INSPECTION_NS: u64 = 500_000_000;
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

/// The agent's ends of the stray streams.
struct Peers {
    listener: Option<TcpListener>,
    takers: Vec<strays::Taker>,
    senders: HashMap<String, strays::Sender>,
    of_hold: HashMap<HoldId, String>,
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
    /// Counts that stand still: (captured, released, since).
    still: HashMap<Key, (u64, u64, u64)>,
    buffer: Vec<u8>,
    /// Frames read from either TAP in this turn.
    busy: bool,
    last_beat: u64,
    started_ns: u64,
    captured: [u64; 2],
    lost: u64,
    took_over: Option<u64>,
    stopping: Option<bool>,
    stalled_at: u64,
    inspected_ns: u64,
    /// Device and inode of the network namespace's name.
    namespace: Option<(u64, u64)>,
}

/// Run an agent until `stop` becomes true or it is told to end; its last status. `ready` is called
/// once commands are taken.
pub fn run(
    config: Config,
    stop: Arc<AtomicBool>,
    ready: impl FnOnce(),
) -> Result<Value, AgentError> {
    if let Some(name) = &config.netns {
        enter(name)?;
    }
    let mut agent = Agent::start(config)?;
    ready();
    agent.serve(&stop)?;
    Ok(agent.status())
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

/// Which file the namespace's name stands for; `None` when there is no such name.
fn identity(config: &Config) -> Option<(u64, u64)> {
    let found = fs::metadata(format!("/run/netns/{}", config.netns.as_ref()?)).ok()?;
    Some((found.dev(), found.ino()))
}

fn random<const N: usize>() -> Result<[u8; N], AgentError> {
    let mut bytes = [0; N];
    io::Read::read_exact(
        &mut fs::File::open("/dev/urandom").map_err(system("cannot open /dev/urandom"))?,
        &mut bytes,
    )
    .map_err(system("cannot read /dev/urandom"))?;
    Ok(bytes)
}

fn read_keys(config: &Config) -> Result<Option<KeyRing>, AgentError> {
    let mut ring: Option<KeyRing> = None;
    for file in &config.keys {
        let path = file.file.display();
        let text = fs::read_to_string(&file.file)
            .map_err(system(format!("cannot read the key {path}")))?;
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
    pub fn start(config: Config) -> Result<Agent, AgentError> {
        let wiring = config.wiring().map_err(AgentError::Config)?;
        let mut endpoint = Endpoint::new(config.buffer_bytes);
        if let Some(text) = &config.failpoint {
            endpoint.set_hook(failpoint::parse(text).map_err(AgentError::Config)?);
        }
        let keys = read_keys(&config)?;
        let listener = listen(&config)?;
        let peers = Peers {
            listener: listen_for_strays(&config, keys.is_some())?,
            takers: Vec::new(),
            senders: HashMap::new(),
            of_hold: HashMap::new(),
        };
        let started_ns = now();
        let trust = keys.map(|keys| Trust {
            keys,
            frames: Opener::new(config.instance.id),
            streams: Opener::new(config.instance.id),
            sealer: Sealer::new(config.instance.id, started_ns),
        });
        let marks = u64::from_ne_bytes(random()?);
        let marks = ((marks as u32) | 1, ((marks >> 32) as u32 & !1) | 2);
        let clocks = Clocks {
            timeout: config.heartbeat_timeout_ms * 1_000_000,
            settle: config.settle_us * 1_000,
        };
        let shim = TcShim::attach(wiring, &config.pins, config.table_size, clocks, marks)?;
        let mut agent = Agent {
            shim: Box::new(shim),
            endpoint,
            flushes: Flushes::new(random()?).map_err(system("cannot tell which CPUs there are"))?,
            markers: BTreeMap::new(),
            trust,
            peers,
            listener,
            clients: BTreeMap::new(),
            next_client: 1,
            waits: Vec::new(),
            settling: VecDeque::new(),
            still: HashMap::new(),
            buffer: vec![0; MAX_READ],
            busy: false,
            last_beat: started_ns,
            started_ns,
            captured: [0; 2],
            lost: 0,
            took_over: None,
            stopping: None,
            stalled_at: 0,
            inspected_ns: started_ns,
            namespace: identity(&config),
            config,
        };
        agent.take_over()?;
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
            self.write_released()?;
            self.send_strays();
            self.take_strays()?;
            self.answer_clients()?;
            self.settle()?;
            self.act()?;
            if self.stopping.is_some() && self.endpoint.is_idle() {
                return self.end();
            }
        }
    }

    /// Beat the heart, unless we have been away too long: then what we hold is late.
    fn beat(&mut self) -> Result<(), AgentError> {
        let time = now();
        if time - self.last_beat > self.config.heartbeat_timeout_ms * 1_000_000 {
            self.shim.trip();
        }
        self.last_beat = time;
        if time - self.inspected_ns > INSPECTION_NS {
            self.inspected_ns = time;
            self.inspect()?;
        }
        if self.shim.tripped() {
            let why =
                "packets had gone past what was held (the agent was stopped, starved or cut off)";
            return self.start_over(why);
        }
        self.shim.beat(time);
        Ok(())
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
        let pending = self.endpoint.has_writes() || self.busy;
        let timeout = match (pending, self.endpoint.is_idle() && self.flushes.is_empty()) {
            (true, _) => PollTimeout::ZERO,
            (false, true) => PollTimeout::from(REST_MS),
            (false, false) => PollTimeout::from(1u8),
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
        for sender in self
            .peers
            .senders
            .values()
            .filter(|sender| sender.unsent() > 0)
        {
            fds.push(PollFd::new(sender.as_fd(), PollFlags::POLLOUT));
        }
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => Ok(()),
            Err(error) => Err(system("poll")(error.into())),
        }
    }

    /// Take captured frames off one TAP.
    fn read_captured(&mut self, side: Side) -> Result<(), AgentError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut result = Ok(());
        for _ in 0..BATCH {
            // Room first: what is not read yet waits in the TAP's own queue.
            if self.endpoint.budget().half_full() && self.endpoint.has_writes() {
                self.busy = true;
                break;
            }
            match self.shim.read(side, &mut buffer) {
                Ok(None) => break,
                Ok(Some(length)) => {
                    self.busy = true;
                    result = self.on_frame(side, &buffer[..length]);
                }
                // The device is gone: what waited in it is lost, and what follows has passed.
                Err(_) => {
                    self.shim.trip();
                    break;
                }
            }
            if result.is_err() {
                break;
            }
        }
        self.buffer = buffer;
        self.stall();
        result
    }

    /// For tests: fall asleep now and then, as a starved process would.
    fn stall(&mut self) {
        let captured: u64 = self.captured.iter().sum();
        if self.config.stall_ms > 0 && captured >= self.stalled_at + 100_000 {
            self.stalled_at = captured;
            std::thread::sleep(std::time::Duration::from_millis(self.config.stall_ms));
        }
    }

    fn on_frame(&mut self, side: Side, frame: &[u8]) -> Result<(), AgentError> {
        let Some(packet) = frame
            .get(VNET_HEADER..)
            .and_then(|bytes| Key::parse(bytes, side))
        else {
            return Ok(()); // the programs let nothing through that has no Ethernet header
        };
        if packet.ethertype == ETHERTYPE_CONTROL {
            return self.on_control(side, &frame[VNET_HEADER..]);
        }
        self.captured[side.index()] += 1;
        match self.endpoint.on_frame(&packet, frame, now()) {
            Disposition::Write => self.write_out(packet.key, frame, Write::Captured),
            Disposition::Lost => {
                self.lost += 1;
                self.shim
                    .forget(&packet.key, 1)
                    .map_err(system("writing to the TAP"))
            }
            Disposition::Kept | Disposition::SendOn => Ok(()),
        }
    }

    fn lose(&mut self, key: &Key, packets: u64, why: &str) {
        self.lost += packets;
        self.endpoint.lost(key, packets, why);
    }

    /// A packet that was captured will not return: tell the programs, and count it.
    fn give_up(&mut self, key: &Key, packets: u32, why: &str) -> Result<(), AgentError> {
        self.lost += u64::from(packets);
        self.endpoint.lost(key, u64::from(packets), why);
        self.shim
            .forget(key, packets)
            .map_err(system("writing to the TAP"))
    }

    fn write_released(&mut self) -> Result<(), AgentError> {
        for _ in 0..2 * BATCH {
            let Some((key, part, frame)) = self.endpoint.next_write() else {
                break;
            };
            let what = if part == Part::Stray {
                Write::Stray
            } else {
                Write::Captured
            };
            self.write_out(key, &frame, what)?;
        }
        Ok(())
    }

    /// Write one packet to the function, waiting for room in the kernel's queue.
    fn write_out(&mut self, key: Key, frame: &[u8], what: Write) -> Result<(), AgentError> {
        let mut deadline = None;
        loop {
            match self.shim.write(key.side(), frame, what) {
                Ok(Outcome::Taken) => return Ok(()),
                // Counted by the programs; the next beat starts over.
                Ok(Outcome::Discarded) => return Ok(()),
                Ok(Outcome::Refused) => {
                    let time = now();
                    let patience = self.config.heartbeat_timeout_ms * 250_000;
                    if time > *deadline.get_or_insert(time + patience) {
                        let why =
                            "the interface took no packets for a quarter of the heartbeat time-out";
                        let counted = u32::from(what == Write::Captured);
                        return self.give_up(&key, counted, why);
                    }
                    std::thread::yield_now();
                }
                Err(_) => {
                    self.shim.trip();
                    return Ok(());
                }
            }
        }
    }

    /// Control frames: our own flush frames, and what the controller sends.
    fn on_control(&mut self, side: Side, frame: &[u8]) -> Result<(), AgentError> {
        let time = now();
        if let Some(ours) = self.flushes.on_frame(frame, time) {
            if let Some(flushed) = ours {
                self.on_flushed(flushed, time);
            }
            return Ok(());
        }
        let Some(trust) = &mut self.trust else {
            return Ok(());
        };
        // Rejections are counted by the opener.
        let Ok(message) = trust.frames.open(&trust.keys, frame) else {
            return Ok(());
        };
        if message.command != Command::Marker {
            return Ok(());
        }
        let marker = Marker {
            handover: message.handover,
            sequence: message.sequence,
            seen_ns: time,
            captured_when_seen: self.captured[side.index()],
        };
        if self.config.trust_markers {
            self.fenced(side, &marker, time);
            return Ok(());
        }
        let id = self
            .flushes
            .begin(&mut *self.shim, side, time)
            .map_err(system("cannot flush"))?;
        self.markers.insert(id.0, marker);
        Ok(())
    }

    fn on_flushed(&mut self, flushed: flush::Flushed, time: u64) {
        if let Some(marker) = self.markers.remove(&flushed.id.0) {
            self.fenced(flushed.side, &marker, time);
        }
        let answer = api::success(json!({
            "side": flushed.side,
            "cpus": self.flushes.cpus(),
            "duration_us": flushed.duration_ns as f64 / 1e3,
        }));
        self.finish_waits(
            |wait| matches!(wait, Wait::Flush { id } if *id == flushed.id),
            &answer,
        );
    }

    /// No packet sent before the marker can arrive any more.
    fn fenced(&mut self, side: Side, marker: &Marker, time: u64) {
        self.publish(&json!({
            "event": "fenced",
            "side": side,
            "handover": marker.handover,
            "sequence": marker.sequence,
            "captured_when_seen": marker.captured_when_seen,
            "captured": self.captured[side.index()],
            "flush_us": (time - marker.seen_ns) as f64 / 1e3,
        }));
    }

    fn send_strays(&mut self) {
        while let Some((hold, side, frame)) = self.endpoint.next_stray() {
            let address = self.peers.of_hold.get(&hold);
            match address.and_then(|address| self.peers.senders.get_mut(address)) {
                Some(sender) => sender.push(side, &frame),
                None => self.lose_stray(hold, side, &frame),
            }
        }
        let broken: Vec<(String, String)> = self
            .peers
            .senders
            .iter_mut()
            .filter_map(|(address, sender)| {
                sender
                    .flush()
                    .err()
                    .map(|error| (address.clone(), error.to_string()))
            })
            .collect();
        for (address, error) in broken {
            self.peers.senders.remove(&address);
            self.publish(&json!({ "event": "peer_lost", "peer": address, "error": error }));
        }
    }

    fn lose_stray(&mut self, hold: HoldId, side: Side, frame: &[u8]) {
        self.lost += 1;
        let packet = frame
            .get(VNET_HEADER..)
            .and_then(|bytes| Key::parse(bytes, side));
        if let Some(packet) = packet {
            let why = format!("no stream to the instance that hold {hold} sends its strays to");
            self.endpoint.lost(&packet.key, 1, &why);
        }
    }

    fn take_strays(&mut self) -> Result<(), AgentError> {
        let Some(trust) = &mut self.trust else {
            return Ok(());
        };
        if let Some(listener) = &self.peers.listener {
            while let Ok((stream, _)) = listener.accept() {
                let number = u64::from_ne_bytes(random()?);
                if let Ok(taker) = strays::Taker::greet(stream, self.config.instance.id, number) {
                    self.peers.takers.push(taker);
                }
            }
        }
        let mut arrived = Vec::new();
        self.peers.takers.retain_mut(|taker| {
            match taker.receive(&trust.keys, &mut trust.streams) {
                Ok(packets) => {
                    arrived.extend(packets);
                    true
                }
                Err(_) => false,
            }
        });
        for (side, frame) in arrived {
            let Some(packet) = frame
                .get(VNET_HEADER..)
                .and_then(|bytes| Key::parse(bytes, side))
            else {
                continue;
            };
            match self.endpoint.on_follower(&packet, &frame, now()) {
                Disposition::Write => self.write_out(packet.key, &frame, Write::Stray)?,
                Disposition::Lost => self.lost += 1,
                Disposition::Kept | Disposition::SendOn => {}
            }
        }
        Ok(())
    }

    /// Find flows that are free again, and packets that will never be.
    fn settle(&mut self) -> Result<(), AgentError> {
        let time = now();
        let given_up = self
            .flushes
            .retry(&mut *self.shim, time)
            .map_err(system("cannot flush"))?;
        for id in given_up {
            self.markers.remove(&id.0);
            let answer = api::failure("a flush frame did not come back from every CPU's queue");
            self.finish_waits(
                |wait| matches!(wait, Wait::Flush { id: other } if *other == id),
                &answer,
            );
        }
        if self.settling.is_empty() {
            self.settling = self.endpoint.draining().into();
        }
        for _ in 0..SETTLING_BATCH.min(self.settling.len()) {
            let Some(key) = self.settling.pop_front() else {
                break;
            };
            let Some(count) = self.shim.count(&key) else {
                let _ = self.endpoint.settled(key);
                continue;
            };
            let quiet = time.saturating_sub(count.released_ns) > self.config.settle_us * 1_000;
            if count.outstanding <= 0 {
                self.still.remove(&key);
                // It may have been taken again since it was listed.
                if quiet && self.endpoint.state(&key) == State::Releasing {
                    self.lose(&key, count.overflowed, "the queue to the agent was full");
                    let _ = self.endpoint.settled(key);
                }
            } else if !self.busy && self.stands_still(key, count.captured, count.released, time) {
                let why = "captured packets never came back from the kernel";
                self.give_up(&key, count.outstanding as u32, why)?;
            }
        }
        if !self.busy {
            self.endpoint.sweep(time);
        }
        if self.endpoint.is_idle() {
            self.still.clear();
            self.shim.set_active(false);
        }
        Ok(())
    }

    fn stands_still(&mut self, key: Key, captured: u64, released: u64, time: u64) -> bool {
        let seen = self.still.entry(key).or_insert((captured, released, time));
        if (seen.0, seen.1) != (captured, released) {
            *seen = (captured, released, time);
        }
        let still = time - seen.2 > AUDIT_NS;
        if still {
            self.still.remove(&key);
        }
        still
    }

    /// Carry out what the endpoint decided.
    fn act(&mut self) -> Result<(), AgentError> {
        for action in self.endpoint.take_actions() {
            match action {
                Action::Rules(side, rules) => {
                    if !rules.is_empty() {
                        self.shim.set_active(true);
                    }
                    self.shim.set_rules(side, &rules)?;
                }
                Action::Flow(key, treatment) => self.shim.set_flow(&key, treatment)?,
                Action::DropCount(key) => self.shim.drop_count(&key)?,
                Action::Notice(notice) => self.on_notice(&notice),
            }
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

fn listen(config: &Config) -> Result<UnixListener, AgentError> {
    let path = &config.socket;
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
