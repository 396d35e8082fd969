//! Items: key, value, version, owner.

use crate::codec::{Malformed, Reader, put_bytes};
use crate::value::{Value, ValueRef};
use crate::version::{Stamp, VectorClock};
use std::sync::Arc;

/// An item, out of its store.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// Its key.
    pub key: String,
    /// What it holds.
    pub value: Value,
    /// When it was last written.
    pub stamp: Stamp,
    /// What its writers had seen of other nodes; the node's own entry is the stamp.
    pub clock: Option<VectorClock>,
    /// The node that holds it.
    pub node: Arc<str>,
    /// When it expires, milliseconds since 1970.
    pub expires: Option<u64>,
}

/// An item in its store, seen while the store holds it still.
#[derive(Clone, Copy, Debug)]
pub struct ItemRef<'a> {
    /// Its key.
    pub key: &'a str,
    /// What it holds.
    pub value: ValueRef<'a>,
    /// When it was last written.
    pub stamp: Stamp,
    /// What its writers had seen of other nodes; the node's own entry is the stamp.
    pub clock: Option<&'a VectorClock>,
    /// When it expires, milliseconds since 1970.
    pub expires: Option<u64>,
}

impl ItemRef<'_> {
    /// An item of one's own, which `node` holds.
    pub fn to_item(&self, node: Arc<str>) -> Item {
        Item {
            key: self.key.to_owned(),
            value: self.value.to_value(),
            stamp: self.stamp,
            clock: self.clock.cloned(),
            node,
            expires: self.expires,
        }
    }
}

impl Item {
    /// The whole history of the item: what its writers had seen, and its own last write.
    pub fn history(&self) -> VectorClock {
        let mut clock = self.clock.clone().unwrap_or_default();
        clock.record(self.node.clone(), self.stamp);
        clock
    }

    /// The item, borrowed.
    pub fn borrow(&self) -> ItemRef<'_> {
        ItemRef {
            key: &self.key,
            value: self.value.borrow(),
            stamp: self.stamp,
            clock: self.clock.as_ref(),
            expires: self.expires,
        }
    }

    /// Reads what [`ItemRef::emit`] wrote; `node` is who sent it.
    ///
    /// # Errors
    /// [`Malformed`] if it is cut short or no item.
    pub fn parse(reader: &mut Reader<'_>, node: Arc<str>) -> Result<Self, Malformed> {
        let start = reader.offset();
        let key = reader.str("an item's key")?;
        if crate::key::Key::new(key).is_err() {
            return Err(reader.fault(start, "an item's key", "its length is not 1 to 1,024"));
        }
        let stamp = Stamp::from_bits(reader.u64("an item's stamp")?);
        let expires = match reader.u64("an item's expiry")? {
            0 => None,
            ms => Some(ms),
        };
        let clock = VectorClock::parse(reader)?;
        Ok(Self {
            key: key.to_owned(),
            value: Value::parse(reader)?,
            stamp,
            clock: (!clock.is_empty()).then_some(clock),
            node,
            expires,
        })
    }
}

impl ItemRef<'_> {
    /// Appends the item as it travels: key, stamp, expiry (0: none), clock, value.
    pub fn emit(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.key.as_bytes());
        out.extend_from_slice(&self.stamp.to_bits().to_be_bytes());
        out.extend_from_slice(&self.expires.unwrap_or(0).to_be_bytes());
        match self.clock {
            Some(clock) => clock.emit(out),
            None => out.extend_from_slice(&0_u16.to_be_bytes()),
        }
        self.value.emit(out);
    }
}
