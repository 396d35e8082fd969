//! Flow-scoped items: their keys begin with the flow, and one shard holds all items of a flow.
//!
//! A key of flow state is `flow:` SCOPE `/` NAME. The scope is canonical and direction-free
//! (docs/design.md §1), so both directions of a conversation find the same items, on every
//! instance and in every language: `flow:6,10.0.0.1:1024,10.0.0.2:80/packets`.

use flowferry_wire::{Ends, Flow};
use std::fmt::Write;
use std::sync::Arc;

const PREFIX: &str = "flow:";

/// The part of a key that names the flow: `flow:` and the canonical 5-tuple.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowKey(Arc<str>);

impl FlowKey {
    /// The flow that `key` belongs to, as it stands in the key; none for other keys.
    #[inline]
    pub fn scope(key: &str) -> Option<&str> {
        if !key.starts_with(PREFIX) {
            return None;
        }
        key.find('/').map(|end| &key[..end])
    }

    /// From text, as [`FlowKey::as_str`] or [`FlowKey::scope`] gave it. Any name may stand for a
    /// flow, such as that of a session; it has no `/`.
    pub fn from_scope(text: &str) -> Option<Self> {
        (text.starts_with(PREFIX) && text.len() > PREFIX.len() && !text.contains('/'))
            .then(|| Self(text.into()))
    }

    /// The text, without the `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of the flow's item `name`.
    pub fn item(&self, name: &str) -> String {
        format!("{}/{name}", self.0)
    }
}

impl From<&Flow> for FlowKey {
    fn from(flow: &Flow) -> Self {
        let mut text = String::from(PREFIX);
        let written = match flow.ends() {
            Ends::Ip4 {
                protocol,
                low: (a, p),
                high: (b, q),
            } => write!(text, "{protocol},{a}:{p},{b}:{q}"),
            Ends::Ip6 {
                protocol,
                low: (a, p),
                high: (b, q),
            } => write!(text, "{protocol},[{a}]:{p},[{b}]:{q}"),
            Ends::Link {
                ethertype,
                low,
                high,
            } => {
                let mac = |m: [u8; 6]| m.map(|byte| format!("{byte:02x}")).join(":");
                write!(text, "{ethertype:#06x},{},{}", mac(low), mac(high))
            }
        };
        written.expect("writing to a string does not fail");
        for id in flow.vlans().ids() {
            write!(text, ",vlan={id}").expect("writing to a string does not fail");
        }
        Self(text.into())
    }
}
