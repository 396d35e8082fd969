//! Two instances, the switches in front of them, their streams, and the controller's frames.

use std::collections::{BTreeMap, VecDeque};

use flowferry_hsl::handover::{Action, Input, Settings};
use flowferry_hsl::key::Side;
use flowferry_hsl::model::Instance;
use flowferry_wire::{CONTROLLER, Message};

use crate::leader::Leader;
use crate::traffic::{FLOWS, Ledger};

pub const MILLISECOND: u64 = 1_000_000;
pub type Checked = Result<(), String>;

/// Instances by their place here.
pub const SOURCE: usize = 0;
pub const DESTINATION: usize = 1;

/// Number of an instance in control frames.
pub fn number(instance: usize) -> u32 {
    instance as u32 + 1
}

/// Where an instance listens for streams.
pub fn address(instance: usize) -> std::net::SocketAddr {
    ([192, 0, 2, number(instance) as u8], 7_700).into()
}

/// On the way from a switch to an instance.
enum Arriving {
    Packet(Vec<u8>),
    Control(Message),
    /// A flush frame through one CPU's queue.
    Flush(u64),
}

/// On a stream from one agent to the other.
enum Streamed {
    Packet(Side, Vec<u8>),
    Record(Vec<u8>),
}

/// Faults that the checks must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Markers are sent as soon as the entries have changed (a barrier as a fence).
    MarkerAtBarrier,
    /// A flush is over before what was captured has been read.
    FlushEarly,
    /// Records overtake strays on the stream.
    RecordsFirst,
}

pub struct World {
    pub instances: [Instance; 2],
    pub ledger: Ledger,
    pub leader: Leader,
    pub fault: Fault,
    pub now: u64,
    /// Paths from the switch of a side to an instance: the queues of two CPUs. A flow's packets
    /// are steered to one of them, control frames to the first.
    paths: BTreeMap<(usize, usize), [VecDeque<Arriving>; 2]>,
    streams: [VecDeque<Streamed>; 2],
    /// Records that wait for the strays before them.
    records: [VecDeque<(u64, Vec<u8>)>; 2],
    /// Flush frames under way, by instance and number.
    flushes: BTreeMap<(usize, u64), usize>,
    /// Frames to the controller.
    pub reports: VecDeque<(usize, Message)>,
    /// What the switches' entries say, and what each flow's cached decision still says.
    entry: [usize; 2],
    cache: BTreeMap<(u16, usize), usize>,
    sequence: u64,
    /// Lines that wait to be answered by the functions.
    lines: [VecDeque<String>; 2],
    /// What the functions were told, in order.
    pub told: [Vec<serde_json::Value>; 2],
    /// The functions do not answer.
    pub mute: bool,
    /// The controller is dead.
    pub leaderless: bool,
}

impl World {
    pub fn new(fault: Fault, functions: bool) -> World {
        let instance = |at: usize| {
            let settings = Settings {
                own: number(at),
                name: format!("i{}", number(at)),
                epoch: 1,
                quiet_ns: None,
            };
            Instance::new(settings, 1 << 20)
        };
        let mut world = World {
            instances: [instance(SOURCE), instance(DESTINATION)],
            ledger: Ledger::default(),
            leader: Leader::default(),
            fault,
            now: MILLISECOND,
            paths: BTreeMap::new(),
            streams: Default::default(),
            records: Default::default(),
            flushes: BTreeMap::new(),
            reports: VecDeque::new(),
            entry: [SOURCE; 2],
            cache: BTreeMap::new(),
            sequence: 0,
            lines: Default::default(),
            told: Default::default(),
            mute: false,
            leaderless: false,
        };
        if functions {
            for at in [SOURCE, DESTINATION] {
                let hello = r#"{"hello": "test", "new_flows": true}"#;
                world.function_says(at, hello);
            }
        }
        world
    }

    /// A host sends a packet: the switch of that side forwards it by what it has cached.
    pub fn send(&mut self, flow: u16, side: Side) {
        let at = side.index();
        let to = *self.cache.entry((flow, at)).or_insert(self.entry[at]);
        let frame = self.ledger.send(flow, side);
        let path = self.paths.entry((at, to)).or_default();
        path[usize::from(flow % 2)].push_back(Arriving::Packet(frame));
    }

    /// The switches' entries change; what is cached stays.
    pub fn turn(&mut self, to: usize) {
        self.entry = [to; 2];
    }

    /// A switch forgets what it has cached for a flow.
    pub fn revalidate(&mut self, flow: u16, side: Side) {
        self.cache.remove(&(flow, side.index()));
    }

    pub fn revalidate_all(&mut self) {
        self.cache.clear();
    }

    /// The controller sends a frame through the switch of a side.
    pub fn command(&mut self, to: usize, side: Side, mut message: Message) {
        self.sequence += 1;
        message.sequence = self.sequence;
        message.to = number(to);
        self.queue(to, side, message);
    }

    fn queue(&mut self, to: usize, side: Side, message: Message) {
        let path = self.paths.entry((side.index(), to)).or_default();
        path[0].push_back(Arriving::Control(message));
    }

    /// The next thing in a CPU's queue arrives; `lost`: unless it is a control frame, which gets lost;
    /// `twice`: a control frame arrives twice, under a new number as a repeated one has.
    pub fn arrive(
        &mut self,
        side: Side,
        to: usize,
        cpu: usize,
        (lost, twice): (bool, bool),
    ) -> Checked {
        let path = self.paths.entry((side.index(), to)).or_default();
        match path[cpu].pop_front() {
            Some(Arriving::Flush(flush)) => self.flush(to, side, flush),
            Some(Arriving::Packet(frame)) => {
                let passed = self.instances[to].ingress(side, &frame);
                return match passed {
                    true => self.ledger.reach(to, side, &frame),
                    false => Ok(()),
                };
            }
            Some(Arriving::Control(message)) if !lost => {
                self.control(to, side, message.clone());
                if twice {
                    let mut again = message;
                    self.sequence += 1;
                    again.sequence = self.sequence;
                    self.control(to, side, again);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn control(&mut self, to: usize, side: Side, message: Message) {
        // Captured before it, and therefore read before it.
        self.instances[to].read(side, usize::MAX, self.now);
        let now = self.now;
        self.instances[to].handle(Input::Control { side, message }, now);
        self.act(to);
    }

    fn act(&mut self, at: usize) {
        while let Some((action, flush)) = self.instances[at].next_action() {
            match action {
                Action::Send { side, message } => match message.to {
                    CONTROLLER => self.reports.push_back((at, message)),
                    // The other instance's, by the switch of that side.
                    _ => self.queue(1 - at, side, message),
                },
                Action::Record { behind, record, .. } => {
                    self.records[at].push_back((behind, record.write()));
                }
                Action::Connect(peer) => {
                    let now = self.now;
                    self.instances[at].handle(Input::Connected(peer), now);
                }
                Action::Flush { side, .. } => {
                    self.flushes.insert((at, flush), 2);
                    let path = self.paths.entry((side.index(), at)).or_default();
                    for queue in path {
                        queue.push_back(Arriving::Flush(flush));
                    }
                    if self.fault == Fault::FlushEarly {
                        self.flushes.insert((at, flush), 1);
                        self.flush(at, side, flush);
                    }
                }
                Action::Tell(line) => {
                    self.told[at].push(line.to_json());
                    self.lines[at].push_back(line.to_json().to_string());
                }
                Action::Strays { .. }
                | Action::Discard(_)
                | Action::HangUp(_)
                | Action::Step { .. } => {}
                Action::Survey { .. } | Action::Own(_) | Action::Disown(_) => {
                    unreachable!("done inside")
                }
            }
        }
    }

    pub fn read(&mut self, at: usize, side: Side, count: usize) {
        self.instances[at].read(side, count, self.now);
        self.act(at);
    }

    /// A flush frame comes through: all that this CPU captured before it is read before it.
    fn flush(&mut self, at: usize, side: Side, flush: u64) {
        self.instances[at].read(side, usize::MAX, self.now);
        self.act(at);
        let Some(left) = self.flushes.get_mut(&(at, flush)) else {
            return;
        };
        *left -= 1;
        if *left == 0 {
            self.flushes.remove(&(at, flush));
            self.instances[at].flushed(flush, false, self.now);
            self.act(at);
        }
    }

    pub fn write(&mut self, at: usize, count: usize) {
        self.instances[at].write(count, self.now);
        self.act(at);
    }

    pub fn second_pass(&mut self, at: usize, side: Side) -> Checked {
        match self.instances[at].second_pass(side) {
            Some(frame) => self.ledger.reach(at, side, &frame),
            None => Ok(()),
        }
    }

    /// The agent moves strays and records to its stream.
    pub fn pump(&mut self, at: usize) {
        loop {
            let taken = self.instances[at].core.endpoint.strays_taken();
            let early = self.fault == Fault::RecordsFirst;
            let due = |(behind, _): &(u64, Vec<u8>)| early || *behind <= taken;
            if self.records[at].front().is_some_and(due) {
                let (_, record) = self.records[at].pop_front().expect("just seen");
                self.streams[at].push_back(Streamed::Record(record));
                continue;
            }
            let Some(stray) = self.instances[at].next_stray() else {
                break;
            };
            let side = stray.key.side();
            self.streams[at].push_back(Streamed::Packet(side, stray.frame.into_vec()));
        }
    }

    /// The next thing on the stream of `from` arrives at the other one.
    pub fn stream(&mut self, from: usize) {
        let (to, now) = (1 - from, self.now);
        match self.streams[from].pop_front() {
            Some(Streamed::Packet(side, frame)) => {
                self.instances[to].follower(side, &frame, now);
            }
            Some(Streamed::Record(record)) => {
                let read = self.instances[to].record(number(from), &record, now);
                read.expect("written by the same code");
            }
            None => return,
        }
        self.act(to);
    }

    pub fn settle(&mut self, at: usize) {
        self.instances[at].settle(self.now);
        self.act(at);
    }

    pub fn pass_time(&mut self, ns: u64) {
        self.now += ns;
        for at in [SOURCE, DESTINATION] {
            let now = self.now;
            self.instances[at].handle(Input::Tick, now);
            self.act(at);
        }
    }

    /// The controller reads one report and does what it must.
    pub fn lead(&mut self) {
        let report = self.reports.pop_front();
        if self.leaderless {
            return;
        }
        if let Some((from, message)) = report {
            self.led(|leader, world| leader.hear(world, from, &message));
        }
    }

    /// The controller begins the handover.
    pub fn begin(&mut self, one_way: bool) {
        self.led(|leader, world| leader.begin(world, one_way));
    }

    /// Time has passed for the controller.
    pub fn hurry(&mut self) {
        self.led(Leader::hurry);
    }

    fn led(&mut self, does: impl FnOnce(&mut Leader, &mut World)) {
        let mut leader = std::mem::take(&mut self.leader);
        does(&mut leader, self);
        self.leader = leader;
    }

    /// The function of an instance answers one line.
    pub fn answer(&mut self, at: usize) {
        if self.mute {
            return;
        }
        let Some(line) = self.lines[at].pop_front() else {
            return;
        };
        let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let event = line["event"].as_str().expect("an event");
        if matches!(event, "export" | "import") {
            let answer =
                serde_json::json!({ "done": event, "handover": line["handover"], "bytes": 7 });
            self.function_says(at, &answer.to_string());
        }
    }

    pub fn function_says(&mut self, at: usize, line: &str) {
        let answer = flowferry_hsl::handover::function::Answer::read(line).expect("understood");
        let now = self.now;
        self.instances[at].handle(Input::Function(answer), now);
        self.act(at);
    }

    /// Everything that is under way arrives, in turns, but no time passes.
    pub fn run_dry(&mut self) -> Checked {
        for _ in 0..10_000 {
            for at in [SOURCE, DESTINATION] {
                for side in Side::ALL {
                    for cpu in [0, 1] {
                        self.arrive(side, at, cpu, (false, false))?;
                    }
                    self.read(at, side, usize::MAX);
                    self.write(at, usize::MAX);
                    while !self.instances[at].programs.backlog[side.index()].is_empty() {
                        self.second_pass(at, side)?;
                    }
                }
                self.pump(at);
                self.stream(at);
                self.answer(at);
                self.settle(at);
            }
            self.lead();
            if self.is_dry() {
                if !self.gathers() {
                    return Ok(());
                }
                self.pass_time(MILLISECOND);
            }
        }
        Err("frames go round for ever".to_owned())
    }

    /// Flows wait for a marker round to begin.
    fn gathers(&self) -> bool {
        let handovers = self.instances.iter().map(|it| &it.core.handovers);
        let due = handovers.filter_map(|it| it.next_due()).min();
        due.is_some_and(|due| due < self.now + MILLISECOND)
    }

    fn is_dry(&self) -> bool {
        self.paths.values().flatten().all(VecDeque::is_empty)
            && self.streams.iter().all(VecDeque::is_empty)
            && self.records.iter().all(VecDeque::is_empty)
            && (self.mute || self.lines.iter().all(VecDeque::is_empty))
            && self.reports.is_empty()
            && self.instances.iter().all(Instance::is_quiet)
    }

    /// Let everything come to its end: caches are revalidated, time passes, repeats are made.
    pub fn finish(&mut self) -> Checked {
        for _ in 0..200 {
            self.run_dry()?;
            for flow in 0..FLOWS {
                for side in Side::ALL {
                    self.revalidate(flow, side);
                }
            }
            if !self.leaderless {
                self.hurry();
            }
            self.run_dry()?;
            if self.instances.iter().all(|it| it.core.handovers.is_idle()) {
                break;
            }
            self.pass_time(25 * MILLISECOND);
        }
        for at in [SOURCE, DESTINATION] {
            let instance = &self.instances[at];
            if !instance.core.handovers.is_idle() || !instance.core.endpoint.is_idle() {
                return Err(format!(
                    "instance {} comes to no end: {}",
                    number(at),
                    instance.core.handovers.describe()
                ));
            }
        }
        self.ledger.check_complete()
    }
}
