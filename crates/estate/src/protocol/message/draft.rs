//! A `Cargo` message that is made without copying its items first.

use super::fields::{put_count, put_duration, put_texts};
use super::{CARGO, Link, Move, VERSION};
use crate::item::ItemRef;

/// A `Cargo` message under way: items go into it without being copied first.
#[derive(Debug)]
pub struct Draft {
    chain: Vec<Link>,
    count: u32,
    items: Vec<u8>,
}

impl Draft {
    /// No items, which came through `chain`.
    pub fn new(chain: Vec<Link>) -> Self {
        Self {
            chain,
            count: 0,
            items: Vec::new(),
        }
    }

    /// Adds an item.
    pub fn add(&mut self, item: ItemRef<'_>) {
        item.emit(&mut self.items);
        self.count += 1;
    }

    /// Bytes of items so far.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The message as it travels.
    pub fn finish(self, what: Move, index: u32, last: Option<u64>, gone: &[String]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.items.len() + 64);
        let out = &mut bytes;
        out.push(VERSION);
        out.push(CARGO);
        what.emit(out);
        out.extend_from_slice(&index.to_be_bytes());
        out.push(u8::from(last.is_some()));
        out.extend_from_slice(&last.unwrap_or(0).to_be_bytes());
        put_count(out, self.chain.len());
        for link in &self.chain {
            out.extend_from_slice(&link.move_id.to_be_bytes());
            link.source.emit(out);
            put_duration(out, link.left);
        }
        put_texts(out, gone);
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.items);
        bytes
    }
}
