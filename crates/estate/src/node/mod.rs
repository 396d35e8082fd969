//! The node: an instance's store, the engine that speaks for it, and the fabric it speaks over.
//!
//! A thin shell: it has the threads, the clock and the sockets, and no opinion. Local operations go
//! to [`Node::store`] and never come near it. Three threads serve a node: one receives, one sends
//! heartbeats (both the fabric's), and one tells the time.

mod incarnation;
mod reply;
mod shell;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use crate::backend::{Backend, Inbox, Options, ReadHook, Statistics, Taken, Watch};
use crate::error::Error;
use crate::fabric::mesh::Scouting;
use crate::fabric::{Fabric, FabricError, Mesh, MeshOptions, NodeId};
use crate::pattern::Pattern;
use crate::protocol::{CachedView, Engine, Replicas, Settings, Write};
use crate::query::{Consistency, Query, View};
use crate::reduce::Reducer;
use crate::store::{Selection, Store, StoreOptions};
use crate::version::Stamp;
use incarnation::incarnation;
pub use reply::Then;
pub use shell::{MemberNews, StepHook};
use shell::{Shell, now_ms};

/// A member of a cluster.
pub struct Node {
    shell: Arc<Shell>,
    ticker: Mutex<Option<JoinHandle<()>>>,
    /// The process that opened it: threads do not survive a fork.
    process: u32,
    address: Option<std::net::SocketAddr>,
    replicas: Arc<Replicas>,
    timeout: Duration,
}

impl Node {
    /// Joins the cluster: returns when the peers that are there have answered.
    ///
    /// # Errors
    /// [`Error::NameTaken`] if a live member has this name, [`Error::Options`] and
    /// [`Error::Fabric`] for addresses, certificates and peers that will not do.
    pub fn open(options: &Options) -> Result<Self, Error> {
        let me = NodeId::new(&options.node, incarnation(now_ms()));
        let listen = match &options.listen[..] {
            // Only who is to be found by others listens to them without being told where.
            [] if options.scouting => "0.0.0.0:0".to_owned(),
            [] => "127.0.0.1:0".to_owned(),
            [one] => one.clone(),
            more => {
                return Err(Error::Options {
                    what: "listen",
                    given: more.join(", "),
                    why: "a node listens on one address; 0.0.0.0 stands for all of the host".into(),
                });
            }
        };
        let mesh = Mesh::bind(MeshOptions {
            cluster: options.cluster.clone(),
            node: me.clone(),
            listen,
            peers: options.peers.clone(),
            tls: options.tls.clone(),
            scouting: options.scouting.then(Scouting::default),
            relay: options.relay,
            failure_after: options.failure_after,
        })?;
        let address = mesh.address();
        let mut node = Self::over(options, me, Arc::new(mesh))?;
        node.address = Some(address);
        Ok(node)
    }

    /// Joins over a fabric of the caller's: tests, and programs that hold several nodes.
    ///
    /// # Errors
    /// As the fabric's [`Fabric::start`].
    pub fn over(options: &Options, me: NodeId, fabric: Arc<dyn Fabric>) -> Result<Self, Error> {
        let store = Arc::new(Store::new(StoreOptions {
            node: me.name.clone(),
            memory_limit: options.memory_limit,
        }));
        store.tick(now_ms());
        let mut settings = Settings::default();
        // Whoever is slow to be taken for failed is slow to answer.
        settings.move_timeout = settings.move_timeout.max(options.failure_after * 5);
        let engine = Engine::new(me, settings);
        let replicas = engine.replicas();
        let shell = Arc::new(Shell::new(store, fabric, engine));
        let writing = Arc::downgrade(&shell);
        shell.store.on_change(move || {
            // The ticker looks within 5 ms: a writer on the packet path wakes nobody.
            if let Some(shell) = writing.upgrade() {
                shell.changed.store(true, Ordering::Release);
            }
        });
        let ticking = shell.clone();
        let ticker = std::thread::Builder::new()
            .name("estate-tick".into())
            .spawn(move || ticking.tick())
            .map_err(|why| FabricError::System {
                node: options.node.clone(),
                what: "starting a thread",
                why: why.to_string(),
            })?;
        let node = Self {
            shell: shell.clone(),
            ticker: Mutex::new(Some(ticker)),
            process: std::process::id(),
            address: None,
            replicas,
            timeout: options.timeout,
        };
        match shell.fabric.start(shell.clone()) {
            Ok(()) => Ok(node),
            Err(FabricError::NameTaken { node, cluster, .. }) => {
                Err(Error::NameTaken { cluster, node })
            }
            Err(why) => Err(why.into()),
        }
    }

    /// The items of this instance.
    pub fn store(&self) -> &Arc<Store> {
        &self.shell.store
    }

    /// Where other members can dial this one; none over a fabric of the caller's.
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        self.address
    }

    /// A global read. `then` gets the view, or [`Error::Incomplete`] with the partial one.
    pub fn query_then(&self, query: Query, then: Then<View>) {
        let shell = &self.shell;
        shell.ask(|engine| engine.ask(&shell.store, query, shell.now()), then);
    }

    /// A global read; waits for it.
    ///
    /// # Errors
    /// [`Error::Incomplete`] with the partial view if too few have answered in time.
    pub fn get_global(&self, query: Query) -> Result<View, Error> {
        if let Consistency::Cached { max_age } = query.consistency
            && let Some(cached) = self.cached(&query.pattern, query.reducer, max_age)
        {
            return Ok(cached.to_view());
        }
        reply::wait(&self.shell.fabric, |then| self.query_then(query, then))
    }

    /// The same, but a view that is not complete is an answer, too.
    ///
    /// # Errors
    /// [`Error::Reduce`] if the items do not go together, [`Error::Closed`].
    pub fn view_global(&self, query: Query) -> Result<View, Error> {
        match self.get_global(query) {
            Err(Error::Incomplete(view)) => Ok(*view),
            answer => answer,
        }
    }

    /// Moves items here from the member `source`, exactly once however often it is repeated.
    /// `pre_copy`: they are copied while they are still written there, and then the difference.
    pub fn take_then(
        &self,
        selection: Selection,
        source: &str,
        move_id: u64,
        pre_copy: bool,
        then: Then<crate::protocol::Taken>,
    ) {
        let shell = &self.shell;
        let begin = |engine: &mut Engine| {
            engine.take(
                &shell.store,
                selection,
                source,
                move_id,
                pre_copy,
                shell.now(),
            )
        };
        shell.take(begin, then);
    }

    /// The same; waits for it.
    ///
    /// # Errors
    /// [`Error::NoMember`], [`Error::Frozen`], [`Error::Aborted`], [`Error::Undecided`],
    /// [`Error::Closed`].
    pub fn take(
        &self,
        selection: Selection,
        source: &str,
        move_id: u64,
        pre_copy: bool,
    ) -> Result<crate::protocol::Taken, Error> {
        reply::wait(&self.shell.fabric, |then| {
            self.take_then(selection, source, move_id, pre_copy, then)
        })
    }

    /// Gives up a move to here that its source has not been asked to decide yet; returns whether
    /// there was one. Whoever waits for it gets [`Error::Aborted`].
    pub fn abort_take(&self, move_id: u64) -> bool {
        self.shell
            .with_engine(|engine, store, now| engine.abort_take(store, move_id, now))
    }

    /// The caller vouches that the process of a member that has gone has ended. Returns how many
    /// moves are decided by that.
    ///
    /// # Errors
    /// [`Error::Request`] if the member is live, [`Error::NoAbsentee`] if none of that name has gone.
    pub fn declare_dead(&self, name: &str) -> Result<u64, Error> {
        self.shell
            .with_engine(|engine, store, now| engine.declare_dead(store, name, now))
    }

    /// What a replica says that is no older than `max_age`, if one is kept here: neither the network
    /// nor the engine is asked. Any read with [`Consistency::Cached`] has one kept.
    pub fn cached(
        &self,
        pattern: &Pattern,
        reducer: Reducer,
        max_age: Duration,
    ) -> Option<CachedView> {
        self.replicas
            .read(pattern, reducer, max_age, self.shell.now())
    }

    /// Changes of matching items on all members: all that are made after this has returned, and
    /// possibly some that were made while it had not. It waits for the members to say that they
    /// watch; one that has not within the time-out of queries reports all that it has when it does.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn watch(&self, pattern: Pattern) -> Result<Watch, Error> {
        let shell = &self.shell;
        let inbox = Arc::new(Inbox::default());
        let mut number = 0;
        let begun = reply::wait(&shell.fabric, |then| {
            let begin = |engine: &mut Engine| {
                engine.watch(&shell.store, pattern, self.timeout, shell.now())
            };
            number = shell.watch(begin, inbox.clone(), then);
        });
        let watched = Arc::downgrade(shell);
        let watch = Watch::new(inbox, move || {
            if let Some(shell) = watched.upgrade() {
                shell.unwatch(number);
            }
        });
        begun.map(|()| watch)
    }

    /// Writes here, and has the members `with` write what they have announced under the same `id`,
    /// at one instant: a snapshot sees all of it or nothing. Every member taking part calls this.
    ///
    /// # Errors
    /// [`Error::NotJoined`] if not all of them did within `timeout`; then nothing is written anywhere.
    pub fn joint(
        &self,
        id: u64,
        with: &[&str],
        writes: Vec<Write>,
        timeout: Duration,
    ) -> Result<Stamp, Error> {
        let shell = &self.shell;
        reply::wait(&self.shell.fabric, |then| {
            let begin = |engine: &mut Engine| {
                engine.joint(&shell.store, id, with, writes, timeout, shell.now())
            };
            shell.join(begin, then);
        })
    }

    /// Has `hook` called at each step of moves to and from here, before what is said because of
    /// it, and after (`true`). It must neither wait nor call the node: it is there to let a member
    /// fail at a step, in tests.
    pub fn on_move_step(&self, hook: StepHook) {
        self.shell.set_step_hook(hook);
    }

    /// Who this is.
    pub fn id(&self) -> NodeId {
        self.shell.engine.lock().own().clone()
    }

    /// Who has come and gone since the last call, and why; at most the last thousand.
    pub fn member_news(&self) -> Vec<MemberNews> {
        self.shell.take_news()
    }

    /// The last peer that would not have this node after it had joined, and why: above all another
    /// node that took its name while it was cut off.
    pub fn last_refusal(&self) -> Option<(String, FabricError)> {
        self.shell.last_refusal.lock().clone()
    }

    /// Live members, this one included, by name.
    pub fn members(&self) -> Vec<String> {
        let members = self.shell.engine.lock().members();
        members
            .iter()
            .map(|member| member.name.to_string())
            .collect()
    }

    /// Leaves: whoever waits gets [`Error::Closed`]. In a forked child it does nothing, since the
    /// threads are the parent's.
    pub fn close(&self) {
        if std::process::id() != self.process || self.shell.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.shell.fabric.close();
        self.shell.end_calls();
        let ticker = self.ticker.lock().take();
        if let Some(ticker) = ticker {
            ticker.thread().unpark();
            if ticker.thread().id() != std::thread::current().id() {
                let _ = ticker.join();
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::process::id() != self.process {
            // A lock in there may be held by a thread that this process does not have.
            std::mem::forget(self.shell.clone());
        }
        self.close();
    }
}

impl Backend for Node {
    fn query(&self, query: &Query) -> Result<View, Error> {
        self.view_global(query.clone())
    }

    fn take(&self, selection: &Selection, source: &str, move_id: u64) -> Result<Taken, Error> {
        let taken = Self::take(self, selection.clone(), source, move_id, true)?;
        Ok(Taken {
            items: taken.items,
            frozen: taken.frozen,
        })
    }

    fn abort_take(&self, move_id: u64) -> Result<bool, Error> {
        Ok(Self::abort_take(self, move_id))
    }

    fn declare_dead(&self, node: &str) -> Result<u64, Error> {
        Self::declare_dead(self, node)
    }

    fn joint(
        &self,
        id: u64,
        with: &[&str],
        writes: Vec<Write>,
        timeout: Duration,
    ) -> Result<Stamp, Error> {
        Self::joint(self, id, with, writes, timeout)
    }

    fn watch(&self, pattern: Pattern) -> Result<Watch, Error> {
        Self::watch(self, pattern)
    }

    fn members(&self) -> Result<Vec<String>, Error> {
        Ok(Self::members(self))
    }

    fn statistics(&self) -> Statistics {
        let fabric = self.shell.fabric.statistics();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("queries", count(&self.shell.queries)),
            ("incomplete", count(&self.shell.incomplete)),
            ("takes", count(&self.shell.takes)),
            ("read_by_others", count(&self.shell.answered_others)),
            ("members_lost", count(&self.shell.failures)),
            ("links", fabric.links as u64),
            ("messages_sent", fabric.messages_sent),
            ("bytes_sent", fabric.bytes_sent),
            ("messages_received", fabric.messages_received),
            ("bytes_received", fabric.bytes_received),
            ("strangers_refused", fabric.refused),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
    }

    fn on_global_read(&self, hook: ReadHook) -> Result<(), Error> {
        self.shell.set_hook(hook);
        Ok(())
    }

    fn close(&self) {
        Self::close(self);
    }
}
