//! E-State: distributed state of elastic network functions (E-State §III, docs/design.md §3).
//!
//! Every instance keeps its own items in its own memory, at memory speed, and nobody else ever
//! writes them. A global read asks all instances, reduces what they hold, and says who answered.
//!
//! The crate has three layers, and each knows only the one before it:
//!
//! 1. [`Store`], the items of this instance: pure memory. It reads no clock; [`Store::tick`] tells
//!    it the time.
//! 2. The protocol engine: global reads, moves and subscriptions as messages in, actions out.
//! 3. The node: threads, clock, network.
//!
//! ```
//! use flowferry_estate::{Store, StoreOptions, Value};
//!
//! let store = Store::new(StoreOptions::named("nf1"));
//! store.set("name", "ids").unwrap();
//! store.add("packets", 2).unwrap();
//! assert_eq!(store.add("packets", 3).unwrap(), 5);
//! assert_eq!(store.get("packets"), Some(Value::Int(5)));
//! ```

mod backend;
mod capi;
mod codec;
mod error;
pub mod fabric;
mod flow;
mod item;
mod key;
mod node;
mod pattern;
pub mod protocol;
mod query;
pub mod reduce;
mod store;
mod value;
mod version;

pub use backend::{
    Backend, Estate, Event, GlobalRead, Inbox, ItemHandle, Items, Options, ReadHook, Statistics,
    Taken, Tls, Watch,
};
pub use codec::{Malformed, Reader};
pub use error::Error;
pub use flow::FlowKey;
pub use item::{Item, ItemRef};
pub use key::{KEY_MAX, Key};
pub use node::{MemberNews, Node, Then};
pub use pattern::{PATTERN_MAX, Pattern};
pub use query::{Consistency, Query, Require, View};
pub use store::{
    Change, Handle, Hold, Interest, Memory, Selection, SetOptions, Store, StoreOptions, Until,
    VALUE_MAX,
};
pub use value::{Value, ValueRef};
pub use version::{Causality, Hlc, Stamp, VectorClock};
