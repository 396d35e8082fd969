//! Being a member: a name in a hash, with a lease that is renewed three times in its length.
//!
//! Time is the server's, so the members' clocks need not agree. A member that stops renewing is gone
//! when its lease ends. Should it wake up later and find its name given to another, it is told so
//! at its next call.

use super::layout::Layout;
use super::script::{LEASE, LEAVE};
use super::server::{Server, script};
use crate::backend::Options;
use crate::error::Error;
use parking_lot::{Condvar, Mutex};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often a taken name is tried again, while its lease might be that of a crashed predecessor.
const RETRY: Duration = Duration::from_millis(50);

pub(super) struct Lease {
    held: Arc<Held>,
    renewing: Mutex<Option<JoinHandle<()>>>,
}

struct Held {
    server: Arc<Server>,
    members: String,
    node: String,
    cluster: String,
    incarnation: String,
    length: Duration,
    lost: AtomicBool,
    stopped: Mutex<bool>,
    stop: Condvar,
}

impl Lease {
    /// Takes the name. If another has it, waits for as long as a lease lasts: it may have crashed.
    pub fn take(server: Arc<Server>, layout: &Layout, options: &Options) -> Result<Self, Error> {
        let held = Arc::new(Held {
            server,
            members: layout.members(),
            node: options.node.clone(),
            cluster: options.cluster.clone(),
            incarnation: format!(
                "{:016x}",
                RandomState::new().hash_one(options.node.as_str())
            ),
            length: options.failure_after,
            lost: AtomicBool::new(false),
            stopped: Mutex::new(false),
            stop: Condvar::new(),
        });
        let until = Instant::now() + held.length + 2 * RETRY;
        while !held.ask("join")? {
            if Instant::now() >= until {
                return Err(held.taken());
            }
            std::thread::sleep(RETRY);
        }
        let renewing = held.clone();
        let thread = std::thread::Builder::new()
            .name("estate-lease".into())
            .spawn(move || renewing.renew())
            .map_err(|error| Error::Backend {
                url: held.server.url().to_owned(),
                what: format!("no thread can be started: {error}"),
                remedy: "raise the limit on threads",
            })?;
        Ok(Self {
            held,
            renewing: Mutex::new(Some(thread)),
        })
    }

    /// Whether the name is still ours, as far as we know.
    pub fn check(&self) -> Result<(), Error> {
        if self.held.lost.load(Ordering::Relaxed) {
            return Err(self.held.taken());
        }
        Ok(())
    }

    /// Stops being a member.
    pub fn give_up(&self) {
        *self.held.stopped.lock() = true;
        self.held.stop.notify_all();
        if let Some(thread) = self.renewing.lock().take() {
            let _ = thread.join();
        }
        let mut command = script(LEAVE, &[&self.held.members]);
        command.arg(&self.held.node).arg(&self.held.incarnation);
        // If the server is away, the lease ends by itself.
        let _: Result<u64, Error> = self.held.server.ask(&command);
    }
}

impl Held {
    fn ask(&self, what: &str) -> Result<bool, Error> {
        let mut command = script(LEASE, &[&self.members]);
        command
            .arg(&self.node)
            .arg(&self.incarnation)
            .arg(self.length.as_millis() as u64)
            .arg(what);
        self.server.ask::<u64>(&command).map(|answer| answer == 1)
    }

    fn renew(&self) {
        let mut stopped = self.stopped.lock();
        while !*stopped {
            self.stop.wait_for(&mut stopped, self.length / 3);
            if *stopped {
                return;
            }
            // Not while the lock is held: the server may take its time. An unreachable one is
            // asked again at the next turn, and calls meanwhile say that it is away.
            parking_lot::MutexGuard::unlocked(&mut stopped, || {
                if let Ok(ours) = self.ask("renew") {
                    self.lost.store(!ours, Ordering::Relaxed);
                }
            });
        }
    }

    fn taken(&self) -> Error {
        Error::NameTaken {
            node: self.node.clone(),
            cluster: self.cluster.clone(),
        }
    }
}
