//! What carries the engine's actions out: the one place where engine, store, fabric and clock meet.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Mutex, RwLock};

use super::reply::Then;
use crate::backend::{Event as Change, GlobalRead, Inbox, ReadHook};
use crate::error::Error;
use crate::fabric::{Fabric, FabricError, Listener, NodeId, Why};
use crate::protocol::take::table::Transition;
use crate::protocol::{Action, CallId, Engine, Event, Now, Taken};
use crate::query::View;
use crate::store::Store;
use crate::version::Stamp;

/// How often the store is told the time, and due work is done.
const TICK: Duration = Duration::from_millis(5);
/// Items with a time to live that are looked at per tick.
const SWEEP: usize = 256;

/// Member news that are kept until somebody asks.
const NEWS_MAX: usize = 1024;

/// A member has come or gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberNews {
    /// The member.
    pub member: NodeId,
    /// Why it has gone; none: it has come.
    pub gone: Option<Why>,
}

/// Called with a step of a move, before and after what is said because of it.
pub type StepHook = Box<dyn Fn(&Transition, bool) + Send + Sync>;

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// Who waits for what.
#[derive(Default)]
struct Waiting {
    views: HashMap<CallId, Then<View>>,
    takes: HashMap<CallId, Then<Taken>>,
    joints: HashMap<CallId, Then<Stamp>>,
    watches: HashMap<u64, Arc<Inbox>>,
    // Watches that have not begun everywhere.
    declared: HashMap<u64, Then<()>>,
    over: bool,
}

/// Things to call once no lock is held.
type Calls = Vec<Box<dyn FnOnce() + Send>>;

/// Engine, store and fabric of a node.
pub struct Shell {
    pub store: Arc<Store>,
    pub fabric: Arc<dyn Fabric>,
    /// What the engine asks to be sent while it is locked is sent before it is unlocked, so that
    /// members hear things in the order in which they happened.
    pub engine: Mutex<Engine>,
    waiting: Mutex<Waiting>,
    hook: RwLock<Option<ReadHook>>,
    step_hook: RwLock<Option<StepHook>>,
    /// Something was written that somebody is interested in.
    pub changed: AtomicBool,
    news: Mutex<VecDeque<MemberNews>>,
    begun: Instant,
    pub closed: AtomicBool,
    pub queries: AtomicU64,
    pub takes: AtomicU64,
    pub incomplete: AtomicU64,
    pub answered_others: AtomicU64,
    pub failures: AtomicU64,
    pub last_refusal: Mutex<Option<(String, FabricError)>>,
}

impl Shell {
    pub fn new(store: Arc<Store>, fabric: Arc<dyn Fabric>, engine: Engine) -> Self {
        Self {
            store,
            fabric,
            engine: Mutex::new(engine),
            waiting: Mutex::default(),
            hook: RwLock::new(None),
            step_hook: RwLock::new(None),
            changed: AtomicBool::new(false),
            news: Mutex::default(),
            begun: Instant::now(),
            closed: AtomicBool::new(false),
            queries: AtomicU64::new(0),
            takes: AtomicU64::new(0),
            incomplete: AtomicU64::new(0),
            answered_others: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            last_refusal: Mutex::new(None),
        }
    }

    pub fn now(&self) -> Now {
        self.begun.elapsed()
    }

    pub fn set_hook(&self, hook: ReadHook) {
        *self.hook.write() = Some(hook);
    }

    pub fn set_step_hook(&self, hook: StepHook) {
        *self.step_hook.write() = Some(hook);
    }

    /// Starts a global read; `then` is called when it is over.
    pub fn ask(&self, begin: impl FnOnce(&mut Engine) -> (CallId, Vec<Action>), then: Then<View>) {
        self.queries.fetch_add(1, Ordering::Relaxed);
        self.begin(begin, |waiting, call| {
            drop(waiting.views.insert(call, then))
        });
    }

    /// Starts a joint write.
    pub fn join(
        &self,
        begin: impl FnOnce(&mut Engine) -> (CallId, Vec<Action>),
        then: Then<Stamp>,
    ) {
        self.begin(begin, |waiting, call| {
            drop(waiting.joints.insert(call, then))
        });
    }

    /// Starts a watch; its events go to `inbox`, and `then` is called when it has begun.
    pub fn watch(
        &self,
        begin: impl FnOnce(&mut Engine) -> (u64, Vec<Action>),
        inbox: Arc<Inbox>,
        then: Then<()>,
    ) -> u64 {
        let mut number = 0;
        let begin = |engine: &mut Engine| {
            let (watch, actions) = begin(engine);
            number = watch;
            (CallId(watch), actions)
        };
        self.begin(begin, |waiting, call| {
            drop(waiting.watches.insert(call.0, inbox));
            drop(waiting.declared.insert(call.0, then));
        });
        number
    }

    /// Ends a watch.
    pub fn unwatch(&self, number: u64) {
        self.waiting.lock().watches.remove(&number);
        self.drive(|engine, store, now| engine.unwatch(store, number, now));
    }

    /// Who has come and gone since the last call, at most the last thousand.
    pub fn take_news(&self) -> Vec<MemberNews> {
        self.news.lock().drain(..).collect()
    }

    fn report(&self, member: &NodeId, gone: Option<Why>) {
        let mut news = self.news.lock();
        if news.len() == NEWS_MAX {
            news.pop_front();
        }
        news.push_back(MemberNews {
            member: member.clone(),
            gone,
        });
    }

    /// Starts a move.
    pub fn take(
        &self,
        begin: impl FnOnce(&mut Engine) -> (CallId, Vec<Action>),
        then: Then<Taken>,
    ) {
        self.takes.fetch_add(1, Ordering::Relaxed);
        self.begin(begin, |waiting, call| {
            drop(waiting.takes.insert(call, then))
        });
    }

    fn begin(
        &self,
        begin: impl FnOnce(&mut Engine) -> (CallId, Vec<Action>),
        wait: impl FnOnce(&mut Waiting, CallId),
    ) {
        let mut calls = Calls::new();
        let mut engine = self.engine.lock();
        let (call, actions) = begin(&mut engine);
        let over = {
            let mut waiting = self.waiting.lock();
            wait(&mut waiting, call);
            waiting.over
        };
        // Whoever begins a call is not held to the order of other messages, so it sends unlocked:
        // the first answer would otherwise wait for the last question.
        drop(engine);
        self.perform(actions, &mut calls);
        if over {
            self.end_calls();
        }
        calls.into_iter().for_each(|call| call());
    }

    /// Lets the engine do something and carries out what comes of it.
    pub fn with_engine<R>(
        &self,
        work: impl FnOnce(&mut Engine, &Store, Now) -> (R, Vec<Action>),
    ) -> R {
        let mut calls = Calls::new();
        let mut engine = self.engine.lock();
        let (result, actions) = work(&mut engine, &self.store, self.now());
        self.perform(actions, &mut calls);
        drop(engine);
        calls.into_iter().for_each(|call| call());
        result
    }

    /// The same where nothing is to be told.
    fn drive(&self, work: impl FnOnce(&mut Engine, &Store, Now) -> Vec<Action>) {
        self.with_engine(|engine, store, now| ((), work(engine, store, now)));
    }

    fn perform(&self, actions: Vec<Action>, calls: &mut Calls) {
        for action in actions {
            match action {
                Action::Send { to, bytes, again } => match again {
                    false => self.fabric.send(&to, &bytes),
                    true => self.fabric.repeat(&to, &bytes),
                },
                Action::Done { call, result } => {
                    if matches!(result, Err(Error::Incomplete(_))) {
                        self.incomplete.fetch_add(1, Ordering::Relaxed);
                    }
                    if let Some(then) = self.waiting.lock().views.remove(&call) {
                        calls.push(Box::new(move || then(result)));
                    }
                }
                Action::Taken { call, result } => {
                    if let Some(then) = self.waiting.lock().takes.remove(&call) {
                        calls.push(Box::new(move || then(result)));
                    }
                }
                Action::GloballyRead { pattern, by } => self.globally_read(pattern, &by),
                Action::Joined { call, result } => {
                    if let Some(then) = self.waiting.lock().joints.remove(&call) {
                        calls.push(Box::new(move || then(result)));
                    }
                }
                Action::Watching { watch } => {
                    if let Some(then) = self.waiting.lock().declared.remove(&watch) {
                        calls.push(Box::new(move || then(Ok(()))));
                    }
                }
                Action::MoveStep { row, said } => {
                    if let Some(hook) = &*self.step_hook.read() {
                        hook(row, said);
                    }
                }
                Action::Event(event) => self.event(event),
            }
        }
    }

    fn globally_read(&self, pattern: String, by: &NodeId) {
        self.answered_others.fetch_add(1, Ordering::Relaxed);
        if let Some(hook) = &*self.hook.read() {
            hook(&GlobalRead {
                by: by.name.to_string(),
                pattern,
            });
        }
    }

    fn event(&self, event: Event) {
        // Members come and go by the fabric's word, see `Listener`.
        if let Event::Changed {
            watch,
            node,
            key,
            item,
        } = event
            && let Some(inbox) = self.waiting.lock().watches.get(&watch)
        {
            let node = node.name;
            inbox.put(Change { node, key, item });
        }
    }

    /// Tells the store the time and does what is due, until the node is closed.
    pub fn tick(&self) {
        while !self.closed.load(Ordering::Acquire) {
            self.store.tick(now_ms());
            self.store.sweep(SWEEP);
            if self.changed.swap(false, Ordering::AcqRel) {
                self.drive(Engine::changed);
            }
            let due = self.engine.lock().next_due();
            if due.is_some_and(|due| due <= self.now()) {
                self.drive(Engine::time);
            }
            std::thread::park_timeout(TICK);
        }
    }

    /// Answers everybody who waits with [`Error::Closed`], from now on.
    pub fn end_calls(&self) {
        let waiting = {
            let mut waiting = self.waiting.lock();
            let over = Waiting {
                over: true,
                ..Waiting::default()
            };
            std::mem::replace(&mut *waiting, over)
        };
        fn closed<T>(calls: impl IntoIterator<Item = Then<T>>) {
            calls.into_iter().for_each(|then| then(Err(Error::Closed)));
        }
        closed(waiting.views.into_values());
        closed(waiting.takes.into_values());
        closed(waiting.joints.into_values());
        closed(waiting.declared.into_values());
        waiting.watches.into_values().for_each(|inbox| inbox.end());
    }
}

impl Listener for Shell {
    fn message(&self, from: &NodeId, bytes: &[u8]) {
        self.drive(|engine, store, now| engine.message(store, from, bytes, now));
    }

    fn joined(&self, member: &NodeId) {
        self.report(member, None);
        self.drive(|engine, store, now| engine.joined(store, member, now));
    }

    fn left(&self, member: &NodeId, why: &Why) {
        if matches!(why, Why::Failed(_)) {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        self.report(member, Some(why.clone()));
        self.drive(|engine, store, now| match why {
            Why::Left => engine.died(store, member, now),
            Why::Failed(_) => engine.left(store, member, now),
        });
    }

    fn died(&self, member: &NodeId) {
        self.drive(|engine, store, now| engine.died(store, member, now));
    }

    fn refused(&self, address: &str, why: &FabricError) {
        *self.last_refusal.lock() = Some((address.to_owned(), why.clone()));
    }
}
