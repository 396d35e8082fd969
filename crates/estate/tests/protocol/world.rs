//! A cluster in one thread: engines and stores, a network that loses, doubles, delays, reorders and
//! is cut, members that die and come back without their memory, and a clock that only this moves.
//! The same seed gives the same run.

use flowferry_estate::protocol::{Action, CallId, Engine, Event, NodeId, Settings, Taken};
use flowferry_estate::{Error, Stamp, Store, StoreOptions, View};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub const MS: Duration = Duration::from_millis(1);

/// A member looks for due work every so often: its timers are late by up to this.
pub const TICK: Duration = Duration::from_millis(5);

/// splitmix64: small, seeded, the same everywhere.
#[derive(Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bf0_3635)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What the network does to messages.
#[derive(Clone, Copy)]
pub struct Weather {
    pub loss_percent: u64,
    pub double_percent: u64,
    pub least: Duration,
    pub most: Duration,
}

impl Weather {
    pub const FAIR: Self = Self {
        loss_percent: 0,
        double_percent: 0,
        least: Duration::from_micros(100),
        most: Duration::from_micros(100),
    };
    pub const FOUL: Self = Self {
        loss_percent: 10,
        double_percent: 10,
        least: Duration::from_micros(50),
        most: Duration::from_millis(20),
    };
}

pub struct Host {
    pub id: NodeId,
    pub store: Arc<Store>,
    pub engine: Engine,
    pub alive: bool,
    stirred: Arc<AtomicBool>,
    // Its wall clock is ahead by so much.
    skew_ms: u64,
    // By so much the next timer is late.
    late: Duration,
}

impl Host {
    fn due(&self) -> Option<Duration> {
        let due = self.engine.next_due().filter(|_| self.alive)?;
        Some(due + self.late)
    }
}

struct Packet {
    from: NodeId,
    to: NodeId,
    bytes: Vec<u8>,
}

enum Due {
    Packet(Packet),
    Joined { at: usize, who: NodeId },
    Left { at: usize, who: NodeId },
    Died { at: usize, who: NodeId },
}

pub struct World {
    pub hosts: Vec<Host>,
    pub now: Duration,
    pub rng: Rng,
    pub weather: Weather,
    pub settings: Settings,
    /// How long it takes to see that a member has failed.
    pub detection: Duration,
    /// How long it takes to prove that its process has ended, if it has.
    pub proof: Duration,
    queue: BTreeMap<(Duration, u64), Due>,
    sent: u64,
    cut: BTreeSet<(usize, usize)>,
    pub reads: BTreeMap<(NodeId, CallId), (Duration, Result<View, Error>)>,
    pub taken: BTreeMap<(NodeId, CallId), Result<Taken, Error>>,
    pub joined: BTreeMap<(NodeId, CallId), Result<Stamp, Error>>,
    pub events: Vec<(usize, Event)>,
    pub watching: Vec<(usize, u64)>,
    pub messages: u64,
    pub bytes: u64,
    /// Of these, those that were sent before.
    pub bytes_again: u64,
    pub biggest: usize,
    // Timers that have fired without the time going on.
    idle: u32,
}

const EPOCH_MS: u64 = 1_700_000_000_000;

impl World {
    pub fn new(names: &[&str], seed: u64, weather: Weather) -> Self {
        Self::with(names, seed, weather, Settings::default())
    }

    pub fn with(names: &[&str], seed: u64, weather: Weather, settings: Settings) -> Self {
        let mut rng = Rng::new(seed);
        let hosts = names
            .iter()
            .map(|name| host(name, 1, &settings, rng.below(5)))
            .collect();
        let mut world = Self {
            hosts,
            now: MS,
            rng,
            weather,
            settings,
            detection: 200 * MS,
            proof: Duration::from_secs(5),
            queue: BTreeMap::new(),
            sent: 0,
            cut: BTreeSet::new(),
            reads: BTreeMap::new(),
            taken: BTreeMap::new(),
            joined: BTreeMap::new(),
            events: Vec::new(),
            watching: Vec::new(),
            messages: 0,
            bytes: 0,
            bytes_again: 0,
            biggest: 0,
            idle: 0,
        };
        world.tick();
        for at in 0..names.len() {
            world.introduce(at, Duration::ZERO);
        }
        world.run_for(MS);
        world
    }

    fn introduce(&mut self, at: usize, after: Duration) {
        for other in 0..self.hosts.len() {
            if other != at && self.hosts[other].alive && self.is_linked(at, other) {
                let (mine, theirs) = (self.hosts[at].id.clone(), self.hosts[other].id.clone());
                self.plan(
                    after,
                    Due::Joined {
                        at: other,
                        who: mine,
                    },
                );
                self.plan(after, Due::Joined { at, who: theirs });
            }
        }
    }

    fn plan(&mut self, after: Duration, due: Due) {
        self.sent += 1;
        self.queue.insert((self.now + after, self.sent), due);
    }

    fn index(&self, id: &NodeId) -> Option<usize> {
        self.hosts.iter().position(|h| h.id == *id && h.alive)
    }

    pub fn store(&self, at: usize) -> Arc<Store> {
        self.hosts[at].store.clone()
    }

    fn is_linked(&self, a: usize, b: usize) -> bool {
        !self.cut.contains(&(a.min(b), a.max(b)))
    }

    /// Calls an engine and does what it says.
    pub fn with_engine<R>(
        &mut self,
        at: usize,
        call: impl FnOnce(&mut Engine, &Store, Duration) -> (R, Vec<Action>),
    ) -> R {
        let now = self.now;
        let host = &mut self.hosts[at];
        let (result, actions) = call(&mut host.engine, &host.store, now);
        self.act(at, actions);
        result
    }

    fn act(&mut self, at: usize, actions: Vec<Action>) {
        let me = self.hosts[at].id.clone();
        for action in actions {
            match action {
                Action::Send { to, bytes, again } => {
                    if again {
                        self.bytes_again += (bytes.len() * to.len()) as u64;
                    }
                    for to in to {
                        self.transmit(at, &me, to, &bytes);
                    }
                }
                Action::Done { call, result } => {
                    let before = self.reads.insert((me.clone(), call), (self.now, result));
                    assert!(before.is_none(), "{call:?} ended twice");
                }
                Action::Taken { call, result } => {
                    let before = self.taken.insert((me.clone(), call), result);
                    assert!(before.is_none(), "{call:?} ended twice");
                }
                Action::Joined { call, result } => {
                    let before = self.joined.insert((me.clone(), call), result);
                    assert!(before.is_none(), "{call:?} ended twice");
                }
                Action::Event(event) => self.events.push((at, event)),
                Action::Watching { watch } => self.watching.push((at, watch)),
                Action::GloballyRead { .. } | Action::MoveStep { .. } => {}
            }
        }
    }

    fn transmit(&mut self, at: usize, from: &NodeId, to: NodeId, bytes: &[u8]) {
        self.messages += 1;
        self.bytes += bytes.len() as u64;
        self.biggest = self.biggest.max(bytes.len());
        let Some(other) = self.index(&to) else { return };
        if !self.is_linked(at, other) || self.rng.chance(self.weather.loss_percent) {
            return;
        }
        let copies = 1 + u64::from(self.rng.chance(self.weather.double_percent));
        for _ in 0..copies {
            let span = self.weather.most - self.weather.least;
            let micros = u64::try_from(span.as_micros()).unwrap();
            let delay = self.weather.least + Duration::from_micros(self.rng.below(micros + 1));
            let packet = Packet {
                from: from.clone(),
                to: to.clone(),
                bytes: bytes.to_vec(),
            };
            self.plan(delay, Due::Packet(packet));
        }
    }

    fn tick(&self) {
        for host in &self.hosts {
            let ms = u64::try_from(self.now.as_millis()).unwrap();
            host.store.tick(EPOCH_MS + ms + host.skew_ms);
        }
    }

    /// When something happens next.
    pub fn next_due(&self) -> Option<Duration> {
        let packet = self.queue.keys().next().map(|(at, _)| *at);
        let timer = self.hosts.iter().filter_map(Host::due).min();
        packet.into_iter().chain(timer).min()
    }

    /// Lets the next thing happen.
    pub fn step(&mut self) {
        let Some(due) = self.next_due() else { return };
        if due > self.now {
            self.idle = 0;
            self.now = due;
            self.tick();
        }
        let first = self.queue.first_entry();
        if first
            .as_ref()
            .is_some_and(|entry| entry.key().0 <= self.now)
        {
            match first.unwrap().remove() {
                Due::Packet(packet) => self.deliver(&packet),
                Due::Joined { at, who } if self.hosts[at].alive => {
                    self.with_engine(at, |e, s, now| ((), e.joined(s, &who, now)));
                }
                Due::Died { at, who } if self.hosts[at].alive => {
                    self.with_engine(at, |e, s, now| ((), e.died(s, &who, now)));
                }
                Due::Left { at, who } if self.hosts[at].alive => {
                    self.with_engine(at, |e, s, now| ((), e.left(s, &who, now)));
                }
                _ => {}
            }
        } else {
            self.idle += 1;
            assert!(
                self.idle < 100,
                "an engine asks for the time again and again"
            );
            for at in 0..self.hosts.len() {
                if self.hosts[at].due().is_some_and(|due| due <= self.now) {
                    self.hosts[at].late = TICK * self.rng.below(100) as u32 / 100;
                    self.with_engine(at, |e, s, now| ((), e.time(s, now)));
                }
            }
        }
        self.look();
    }

    fn deliver(&mut self, packet: &Packet) {
        let Some(at) = self.index(&packet.to) else {
            return;
        };
        let linked = self
            .index(&packet.from)
            .is_none_or(|from| self.is_linked(at, from));
        if linked {
            self.with_engine(at, |engine, store, now| {
                ((), engine.message(store, &packet.from, &packet.bytes, now))
            });
        }
    }

    /// Tells the engines whose stores have changed.
    pub fn look(&mut self) {
        for at in 0..self.hosts.len() {
            if self.hosts[at].alive && self.hosts[at].stirred.swap(false, Ordering::Relaxed) {
                self.with_engine(at, |e, s, now| ((), e.changed(s, now)));
            }
        }
    }

    pub fn run_until(&mut self, end: Duration) {
        while self.next_due().is_some_and(|due| due <= end) {
            self.step();
        }
        self.now = self.now.max(end);
        self.tick();
    }

    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Nothing of it is left; others see that in time.
    pub fn kill(&mut self, at: usize) {
        self.hosts[at].alive = false;
        let who = self.hosts[at].id.clone();
        for other in 0..self.hosts.len() {
            if other != at && self.hosts[other].alive {
                let who = who.clone();
                let dead = who.clone();
                self.plan(self.detection, Due::Left { at: other, who });
                self.plan(
                    self.proof,
                    Due::Died {
                        at: other,
                        who: dead,
                    },
                );
            }
        }
    }

    /// The same name, without memory.
    pub fn restart(&mut self, at: usize) {
        assert!(!self.hosts[at].alive);
        let (name, incarnation) = (
            self.hosts[at].id.name.clone(),
            self.hosts[at].id.incarnation,
        );
        let skew = self.hosts[at].skew_ms;
        self.hosts[at] = host(&name, incarnation + 1, &self.settings, skew);
        self.tick();
        self.introduce(at, MS);
    }

    /// No message passes between both; each sees the other leave in time, if it lasts.
    pub fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert((a.min(b), a.max(b)));
        for (at, other) in [(a, b), (b, a)] {
            let who = self.hosts[other].id.clone();
            self.plan(self.detection, Due::Left { at, who });
        }
    }

    pub fn heal(&mut self, a: usize, b: usize) {
        self.cut.remove(&(a.min(b), a.max(b)));
        // What was planned about the cut would come too late now.
        let (one, other) = (self.hosts[a].id.clone(), self.hosts[b].id.clone());
        self.queue.retain(|_, due| {
            !matches!(due, Due::Left { at, who }
                if *at == a && *who == other || *at == b && *who == one)
        });
        if self.hosts[a].alive && self.hosts[b].alive {
            self.plan(MS, Due::Joined { at: a, who: other });
            self.plan(MS, Due::Joined { at: b, who: one });
        }
    }

    pub fn result_of_read(&self, at: usize, call: CallId) -> Option<&Result<View, Error>> {
        let key = (self.hosts[at].id.clone(), call);
        self.reads.get(&key).map(|(_, result)| result)
    }

    pub fn result_of_take(&self, at: usize, call: CallId) -> Option<&Result<Taken, Error>> {
        self.taken.get(&(self.hosts[at].id.clone(), call))
    }
}

fn host(name: &str, incarnation: u64, settings: &Settings, skew_ms: u64) -> Host {
    let id = NodeId::new(name, incarnation);
    let store = Arc::new(Store::new(StoreOptions::named(name)));
    let stirred = Arc::new(AtomicBool::new(false));
    let flag = stirred.clone();
    store.on_change(move || flag.store(true, Ordering::Relaxed));
    Host {
        engine: Engine::new(id.clone(), settings.clone()),
        id,
        store,
        alive: true,
        stirred,
        skew_ms,
        late: TICK / 2,
    }
}

/// How many seeds a test runs: `FLOWFERRY_SEEDS` for a soak.
pub fn seeds(usual: u64) -> std::ops::Range<u64> {
    let given = std::env::var("FLOWFERRY_SEEDS").ok();
    let count = given.map_or(usual, |text| {
        text.parse().expect("FLOWFERRY_SEEDS is a number")
    });
    0..count
}
