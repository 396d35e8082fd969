//! The agent: the thin shell around the endpoint. One thread, one loop: read what was captured,
//! write what may go, answer commands, keep the heart beating.
//!
//! A single thread is what makes failing open sound: the heartbeat is written by the same loop
//! that releases, so while it is fresh, no stale packet can be on its way out.

mod accounts;
pub mod api;
mod audit;
mod commands;
mod conduct;
pub mod config;
mod error;
mod failpoint;
mod flush;
mod function;
mod lines;
mod pace;
mod packets;
mod peers;
mod place;
mod radio;
mod recovery;
mod rest;
mod settling;
mod start;
mod strays;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flowferry_wire::{KeyRing, Opener, Sealer};
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::endpoint::{Action, Endpoint, HoldId, Notice};
use crate::handover::{self, Handovers, news};
use crate::key::{Key, Side};
use crate::shim::Shim;
use crate::shim::bpf::Programs;
use audit::Audit;
use conduct::Conduct;
use config::Config;
pub use error::AgentError;
use error::system;
use flush::{FlushId, Flushes};
use function::Channel;
use lines::Lines;
use pace::Pace;
use peers::Peers;
use place::Place;
use radio::Radio;
use start::{enter, keep_only_needed_rights, prefer_this_thread};
pub use strays::certificate_name;

/// How often the agent looks whether its interfaces and its namespace are still there.
const INSPECTION_NS: u64 = 500_000_000;
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
    audit: Audit,
    buffer: Vec<u8>,
    /// Frames read from either TAP in this turn.
    busy: bool,
    last_beat: u64,
    started_ns: u64,
    captured: [u64; 2],
    flights: [Flight; 2],
    pace: Option<Pace>,
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
    place: Place,
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

/// Which file the namespace's name stands for; `None` when there is no such name.
fn identity(config: &Config) -> Option<(u64, u64)> {
    let found = fs::metadata(format!("/run/netns/{}", config.netns.as_ref()?)).ok()?;
    Some((found.dev(), found.ino()))
}

impl Agent {
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
    pub(super) fn is_late(&mut self) -> bool {
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
        self.account(usize::MAX)?; // for the agent that takes over
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
            Programs::detach(&wiring, &self.config.pins, self.config.table_size)
                .map_err(system("cannot take the programs off"))?;
        }
        Ok(())
    }
}
