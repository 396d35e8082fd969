//! The endpoint: which packets are kept, in which order they go, and when a flow is free again.
//!
//! Pure: packets, commands and observations go in with the time; what the shell has to do comes
//! out as [`Action`]s, in order, and packets to be written or sent on are pulled one by one, so
//! that the shell sets the pace. The life of one flow on one side is the table in [`table`]; a
//! [`Hold`] is the set of flows that one command takes.
//!
//! Order of packets: a flow's queue is written strays first, then captured. While any packet of a
//! flow is outstanding, captured here or adopted, the kernel programs go on capturing it, so what
//! arrives during the release lands behind the queue here. The exchange of rules and the writing
//! need therefore not be atomic.
//!
//! What the shell owes in return stands at the head of tests/endpoint_model/main.rs.

mod commands;
mod frames;
mod hold;
mod output;
mod packets;
mod rules;
mod sides;
pub mod table;

use std::collections::{BTreeMap, HashMap, VecDeque};

pub use frames::{Budget, Part};
use hold::Awaited;
pub use hold::{Figures, Hold, HoldId, HoldState, Role, Spec};
pub use output::{Action, Disposition, Notice, Refusal, Stray, Treatment};
pub use table::{Duty, Event, State, Transition};

use crate::key::{Key, Parsed, Side};
use frames::Queue;

/// Rows of one side's rule table (FF_RULES).
pub const RULES_PER_SIDE: usize = 64;

/// Seeded at random, as flows are chosen by whoever sends; a fraction of the cost of the standard one.
type FlowHash = foldhash::quality::RandomState;

/// One flow on one side. Kept only while it is not `Passing`.
#[derive(Debug)]
struct FlowSide {
    state: State,
    /// Whose it is; 0 when it belongs to none.
    hold: HoldId,
    queue: Queue,
    /// In the list of flows that have something to write.
    listed: bool,
    /// Its last packet came from the key's high end. Matches have a direction, keys have none.
    swapped: bool,
    /// Its hold has been told that the flow is here.
    seen: bool,
}

impl FlowSide {
    /// All that is left of it to be released is with the kernel.
    fn drains(&self) -> bool {
        self.state == State::Releasing && self.queue.is_empty()
    }

    /// What a packet of the flow looks like.
    fn packet(&self, key: &Key) -> Parsed {
        Parsed::flow(*key, self.swapped)
    }
}

/// The upstream key of the flow that has `key` on its side; `aliased`: those whose headers differ.
fn upstream_of(aliased: &HashMap<Key, Parsed>, key: &Key) -> Key {
    let alias = aliased.get(key).map(|upstream| upstream.key);
    alias.unwrap_or(*key).on(Side::Upstream)
}

/// Called before each transition takes effect; failpoints hang here.
pub type Hook = Box<dyn FnMut(&Transition) + Send + Sync>;

/// How often each transition was made, by state and event.
type Tally = [[u64; Event::COUNT]; State::COUNT];

/// A transition is about to take effect.
fn note(hook: &mut Option<Hook>, tally: &mut Tally, row: &Transition) {
    if let Some(hook) = hook {
        hook(row);
    }
    tally[row.from as usize][row.event as usize] += 1;
}

/// See the module's head.
pub struct Endpoint {
    holds: BTreeMap<HoldId, Hold>,
    flows: HashMap<Key, FlowSide, FlowHash>,
    /// Flow sides with something to write, each once, the next one first.
    ready: VecDeque<Key>,
    /// Packets that the first of them has written in a row.
    turn: usize,
    strays: VecDeque<Stray>,
    /// How many were ever put there.
    strays_queued: u64,
    /// Bytes of `strays`, by hold.
    sending: HashMap<HoldId, usize>,
    budget: Budget,
    /// Flows whose treatment was set one by one, by hold; undone when it ends.
    treated: HashMap<HoldId, BTreeMap<Key, Treatment>>,
    /// Upstream key to the flow seen from downstream, where the headers differ; and the other way.
    aliases: HashMap<Key, Parsed>,
    aliased: HashMap<Key, Parsed>,
    actions: Vec<Action>,
    hook: Option<Hook>,
    tally: Tally,
}

impl Endpoint {
    /// An endpoint that keeps at most `limit` bytes of packets.
    pub fn new(limit: usize) -> Endpoint {
        Endpoint {
            holds: BTreeMap::new(),
            flows: HashMap::default(),
            ready: VecDeque::new(),
            turn: 0,
            strays: VecDeque::new(),
            strays_queued: 0,
            sending: HashMap::new(),
            budget: Budget::new(limit),
            treated: HashMap::new(),
            aliases: HashMap::new(),
            aliased: HashMap::new(),
            actions: Vec::new(),
            hook: None,
            tally: [[0; Event::COUNT]; State::COUNT],
        }
    }

    /// Have `hook` called before each transition.
    pub fn set_hook(&mut self, hook: Hook) {
        self.hook = Some(hook);
    }

    /// How often each transition was made.
    pub fn tally(&self) -> impl Iterator<Item = (&'static Transition, u64)> {
        table::TRANSITIONS
            .iter()
            .map(|row| (row, self.tally[row.from as usize][row.event as usize]))
    }

    /// What the shell has to do now; empties the list.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// Every hold, the ended ones included, by id.
    pub fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.holds.values()
    }

    /// Forget holds that have ended.
    pub fn forget_ended(&mut self) {
        self.holds.retain(|_, hold| hold.is_live());
    }

    /// Nothing is held, armed or on its way: the programs may rest.
    pub fn is_idle(&self) -> bool {
        self.flows.is_empty() && !self.holds.values().any(Hold::is_live)
    }

    /// Whether packets are kept or sent on, and none is being let go.
    pub fn only_keeps(&self) -> bool {
        self.ready.is_empty()
            && self
                .holds
                .values()
                .all(|hold| hold.state != HoldState::Releasing)
    }

    /// How full the buffer is.
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// State of a flow on its key's side.
    pub fn state(&self, key: &Key) -> State {
        self.flows
            .get(key)
            .map_or(State::Passing, |flow| flow.state)
    }

    /// How many flow sides are in each state but `Passing`: held, straying, releasing.
    pub fn census(&self) -> [usize; 3] {
        let count = |state| {
            self.flows
                .values()
                .filter(|flow| flow.state == state)
                .count()
        };
        [
            count(State::Held),
            count(State::Straying),
            count(State::Releasing),
        ]
    }

    /// Flow sides that wait for the kernel to let their last packets through.
    pub fn draining(&self) -> Vec<Key> {
        let drains = |(key, flow): (&Key, &FlowSide)| flow.drains().then_some(*key);
        self.flows.iter().filter_map(drains).collect()
    }

    /// Whether a flow is one of these.
    pub fn is_draining(&self, key: &Key) -> bool {
        self.flows.get(key).is_some_and(FlowSide::drains)
    }

    /// Nothing of the flow is outstanding any more, and long enough. Refused while packets of it
    /// are kept, since a list of [`Endpoint::draining`] flows grows old.
    pub fn settled(&mut self, key: Key) -> Result<(), Refusal> {
        match self.flows.get(&key) {
            Some(flow) if !flow.queue.is_empty() => Err(Refusal::Illegal {
                flow: key,
                state: flow.state,
                event: Event::Settled,
            }),
            _ => self.step(key, Event::Settled),
        }
    }

    /// Packets of a flow will never come back from the kernel.
    pub fn lost(&mut self, key: &Key, packets: u64, why: &str) {
        let id = self.flows.get(key).map_or(0, |flow| flow.hold);
        self.lost_of(id, packets, why);
    }

    fn lost_of(&mut self, id: HoldId, packets: u64, why: &str) {
        if let Some(hold) = self.holds.get_mut(&id) {
            hold.figures.lost_packets += packets;
        }
        if packets > 0 {
            let notice = Notice::Lost {
                packets,
                hold: id,
                why: why.to_owned(),
            };
            self.actions.push(Action::Notice(notice));
        }
    }

    /// Let go of everything without releasing it: packets have overtaken what is kept.
    ///
    /// `outstanding` is what the programs say was captured or adopted and never let through, per
    /// flow. Holds end as aborted. Returns the packets lost, which are those.
    pub fn discard(&mut self, outstanding: &[(Key, u64)], why: &str, now: u64) -> u64 {
        let mut total = 0;
        for (key, packets) in outstanding {
            self.lost(key, *packets, why);
            total += packets;
        }
        self.ready.clear(); // at once; a search for each flow would take minutes
        for key in self.flows.keys().copied().collect::<Vec<_>>() {
            let flow = self.flows.get_mut(&key).expect("listed above");
            flow.listed = false;
            if self.step(key, Event::Discard).is_err() {
                self.remove(&key); // entered, but never taken
            }
        }
        let live: Vec<HoldId> = self
            .holds
            .values()
            .filter(|hold| hold.is_live())
            .map(|hold| hold.id)
            .collect();
        for id in live {
            let hold = self.holds.get_mut(&id).expect("listed above");
            hold.error.get_or_insert_with(|| why.to_owned());
            self.end(id, now);
        }
        while self.next_stray().is_some() {} // among the outstanding ones
        self.publish_rules();
        total
    }

    /// Whether a hold has no flow left and only waits for [`Endpoint::sweep`].
    pub fn is_ending(&self) -> bool {
        self.holds
            .values()
            .any(|hold| hold.state == HoldState::Releasing && hold.flows_left == 0)
    }

    /// Packets were lost of a flow that never got here: the hold that is ending over it is told.
    pub fn lost_unseen(&mut self, key: &Key, packets: u64, why: &str) {
        let releasing = |hold: &&Hold| {
            hold.state == HoldState::Releasing && hold.spec.sides.contains(&key.side())
        };
        let holds = self.holds.values().filter(releasing);
        let id = holds
            .clone()
            .find(|hold| hold.spec.names(key))
            .map_or(0, |hold| hold.id);
        self.lost_of(id, packets, why);
    }

    /// Let holds end whose flows are all free. To be called when both TAPs have been read empty
    /// since the last command, so that no captured packet is unknown here.
    pub fn sweep(&mut self, now: u64) {
        let over: Vec<HoldId> = self
            .holds
            .values()
            .filter(|hold| hold.state == HoldState::Releasing && hold.flows_left == 0)
            .map(|hold| hold.id)
            .collect();
        for id in over {
            self.end(id, now);
        }
    }

    fn end(&mut self, id: HoldId, now: u64) {
        let hold = self.holds.get_mut(&id).expect("the caller has it");
        hold.state = if hold.error.is_some() {
            HoldState::Aborted
        } else {
            HoldState::Done
        };
        hold.figures.ended_ns = now;
        self.untreat(id);
        self.notice_hold(id);
    }

    /// Apply `event` to a flow by the table, with the duties that need no packet.
    fn step(&mut self, key: Key, event: Event) -> Result<(), Refusal> {
        let state = self.state(&key);
        let illegal = || Refusal::Illegal {
            flow: key,
            state,
            event,
        };
        let row = table::transition(state, event).ok_or_else(illegal)?;
        note(&mut self.hook, &mut self.tally, row);
        self.insert(key, row.from).state = row.to;
        let flow = self.flows.get_mut(&key).expect("inserted above");
        match row.duty {
            Duty::WriteOut if !flow.queue.is_empty() && !flow.listed => {
                flow.listed = true;
                self.ready.push_back(key);
            }
            Duty::SendOn => self.send_on(key),
            Duty::Forget => {
                self.actions.push(Action::DropCount(key));
                self.remove(&key);
            }
            Duty::Lose => {
                let id = flow.hold;
                let bytes = flow.queue.bytes();
                flow.queue.clear(&mut self.budget);
                if let Some(hold) = self.holds.get_mut(&id) {
                    hold.figures.kept_bytes -= bytes;
                }
                self.remove(&key);
            }
            _ => {}
        }
        Ok(())
    }

    fn send_on(&mut self, key: Key) {
        let flow = self.flows.get_mut(&key).expect("the caller has it");
        let (id, bytes) = (flow.hold, flow.queue.bytes());
        let mut moved = Vec::new();
        while let Some((part, frame)) = flow.queue.pop(&mut self.budget) {
            moved.push((part, frame));
        }
        let sent = moved.len() as u64;
        for (part, frame) in moved {
            self.budget.take(&frame); // fits: it was just given back
            self.queue_stray(Stray {
                hold: id,
                key,
                part,
                frame,
            });
        }
        if let Some(hold) = self.holds.get_mut(&id) {
            hold.figures.kept_bytes -= bytes;
            hold.figures.stray_packets += sent;
        }
    }

    fn remove(&mut self, key: &Key) {
        let Some(flow) = self.flows.remove(key) else {
            return;
        };
        if flow.listed {
            self.ready.retain(|other| other != key);
        }
        if let Some(hold) = self.holds.get_mut(&flow.hold) {
            hold.flows_left -= 1;
        }
    }

    fn notice_hold(&mut self, id: HoldId) {
        if let Some(hold) = self.holds.get(&id) {
            let notice = Notice::Hold {
                hold: id,
                state: hold.state,
                error: hold.error.clone(),
            };
            self.actions.push(Action::Notice(notice));
        }
    }
}
