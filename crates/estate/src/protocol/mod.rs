//! The protocol between members: a pure engine. Messages, calls and the time go in, [`Action`]s
//! come out; it does no I/O, reads no clock and starts no thread. The [`Store`] is memory and is
//! passed in.
//!
//! What is said to whom, who owns what when, and what is guaranteed: docs/estate-protocol.md.
//!
//! - [`ask`](self) global reads, `answer`: the other side of them.
//! - `take`: moves of items between members, exactly once; `table` has its states.
//! - `replica`, `interest`: reads from a replica that owners keep fresh.
//! - `watch`: subscriptions. `joint`: writes at several members that a cut sees all or none of.

mod answer;
mod ask;
mod contribution;
mod engine;
mod interest;
mod joint;
mod member;
mod message;
mod moved;
mod parts;
mod presence;
mod receive;
mod replica;
pub mod take;
mod watch;

pub use contribution::{Contribution, Moving, Note, Role, combine};
pub use engine::{Action, CallId, Engine, Event, Now, Settings, Taken};
pub use joint::Write;
pub use member::NodeId;
pub use message::{Draft, Link, Message, Move, Refusal, VERSION};
pub use replica::{CachedView, Replicas};
