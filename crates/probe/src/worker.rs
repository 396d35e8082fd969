//! Where a job runs: in a thread of its own, so that entering a network namespace or a CPU never
//! changes the caller's thread.

use crate::error::{Error, Result};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns};
use nix::unistd::Pid;
use serde::Deserialize;
use std::fs::File;
use std::path::PathBuf;
use std::thread::JoinHandle;

/// Namespace and CPU of a job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Place {
    /// Network namespace: a name below `/run/netns`, or a path.
    pub netns: Option<String>,
    /// CPU to run on.
    pub cpu: Option<usize>,
}

impl Place {
    /// Bring the calling thread to this place, for good.
    pub fn enter(&self) -> Result<()> {
        if let Some(name) = &self.netns {
            enter_netns(name)?;
        }
        if let Some(cpu) = self.cpu {
            let mut set = CpuSet::new();
            set.set(cpu)
                .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
                .map_err(|e| {
                    Error::system(
                        format!("cannot run on CPU {cpu}"),
                        e,
                        "`nproc` tells how many there are",
                    )
                })?;
        }
        // Sleeps end on time instead of up to 50 µs late.
        // SAFETY: PR_SET_TIMERSLACK takes one integer and touches no memory of ours.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
        Ok(())
    }

    /// Run `job` at this place, in a new thread named `name`.
    pub fn spawn<T, F>(self, name: &str, job: F) -> Result<JoinHandle<Result<T>>>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                self.enter()?;
                job()
            })
            .map_err(|e| {
                Error::system(
                    "cannot start a thread",
                    e,
                    "raise the limit of processes (`ulimit -u`)",
                )
            })
    }
}

fn enter_netns(name: &str) -> Result<()> {
    let path = if name.contains('/') {
        PathBuf::from(name)
    } else {
        PathBuf::from("/run/netns").join(name)
    };
    let file = File::open(&path).map_err(|e| {
        let what = format!("no network namespace {name:?} ({})", path.display());
        Error::system(what, e, "`ip netns list` shows those there are")
    })?;
    setns(&file, CloneFlags::CLONE_NEWNET).map_err(|e| {
        Error::system(
            format!("cannot enter network namespace {name:?}"),
            e,
            "run as root",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_namespace_is_named() {
        let place = Place {
            netns: Some("ff-no-such".into()),
            cpu: None,
        };
        let error = place
            .spawn("test", || Ok(()))
            .unwrap()
            .join()
            .unwrap()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("ff-no-such") && error.contains("ip netns list"),
            "{error}"
        );
    }
}
