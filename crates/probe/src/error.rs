//! Errors that say what happened, to what, and what to do next.

use std::io;

/// Why a run could not be done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request itself is wrong.
    #[error("{0}")]
    Usage(String),
    /// The run failed for a reason of its own.
    #[error("{0}")]
    Failed(String),
    /// The system refused something.
    #[error("{what}: {source}; {remedy}")]
    System {
        /// What was tried, and on what.
        what: String,
        /// What the system said.
        source: io::Error,
        /// What to do.
        remedy: String,
    },
}

impl Error {
    /// A refusal of the system, with what to do about it.
    pub fn system(
        what: impl Into<String>,
        source: impl Into<io::Error>,
        remedy: impl Into<String>,
    ) -> Error {
        Error::System {
            what: what.into(),
            source: source.into(),
            remedy: remedy.into(),
        }
    }
}

/// Result of a run or a part of it.
pub type Result<T> = std::result::Result<T, Error>;
