//! Why an agent ended.

use std::io;

use crate::shim::BpfError;

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

pub(super) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> AgentError {
    let what = what.into();
    move |source| AgentError::System { what, source }
}
