//! One face for four ways to keep state: what C and Python hold.
//!
//! | backend | where items are | who reads globally |
//! |---|---|---|
//! | `local` | this process | nobody else: the papers' baseline |
//! | `p2p` | this process | all members, directly ([`Node`](crate::Node)) |
//! | `redis://` | one server (the paper's *centralmem*) | all, from the server |
//! | `redis+cluster://` | many servers (*clustermem*) | all, from the servers |
//!
//! docs/estate.md says what holds for all of them, and where they differ.

mod estate;
mod handle;
mod lifetime;
mod local;
mod options;
#[cfg(feature = "redis")]
mod redis;
mod seam;
mod watch;

pub use estate::Estate;
pub use handle::ItemHandle;
pub use options::{Options, Tls};
pub use seam::{Backend, GlobalRead, Items, ReadHook, Statistics, Taken};
pub use watch::{Event, Inbox, Watch};
