//! Memory for the caller: one `malloc` block, with structs in front and texts behind.
//!
//! Its size is known before it is filled, so pointers within it are right at once, and one
//! `estate_free` gives back the whole.

use super::types::{CEntry, CText, CValue};
use crate::item::Item;
use crate::value::{Value, ValueRef};
use std::ffi::{c_char, c_void};
use std::marker::PhantomData;
use std::ptr;

/// How much a block will hold.
#[derive(Clone, Copy, Default)]
pub struct Plan {
    structs: usize,
    texts: usize,
}

impl Plan {
    /// Room for `count` structs more. All of the header's have the alignment of a pointer.
    pub fn structs<T>(mut self, count: usize) -> Self {
        const { assert!(align_of::<T>() == align_of::<*const u8>()) };
        self.structs += count * size_of::<T>();
        self
    }

    /// Room for a text of `size` bytes and a NUL.
    pub fn text(mut self, size: usize) -> Self {
        self.texts += size + 1;
        self
    }

    /// Room for the text of a value, if it has one.
    pub fn value(self, value: &Value) -> Self {
        match value.borrow() {
            ValueRef::Int(_) | ValueRef::Float(_) => self,
            text => self.text(text.len()),
        }
    }

    /// Room for the texts of an item.
    pub fn item(self, item: &Item) -> Self {
        self.text(item.key.len())
            .text(item.node.len())
            .value(&item.value)
    }

    /// A block of that size.
    pub fn allocate(self) -> Block {
        let size = (self.structs + self.texts).max(1);
        // SAFETY: any size may be asked for.
        let base = unsafe { libc::malloc(size) }.cast::<u8>();
        if base.is_null() {
            std::alloc::handle_alloc_error(
                std::alloc::Layout::from_size_align(size, 1).expect("a size that was asked for"),
            );
        }
        Block {
            base,
            structs: 0,
            structs_end: self.structs,
            text: self.structs,
            end: self.structs + self.texts,
            _own: PhantomData,
        }
    }
}

/// A block that is being filled.
pub struct Block {
    base: *mut u8,
    // Invariant: structs <= structs_end <= text <= end, and the block has `end` bytes.
    structs: usize,
    structs_end: usize,
    text: usize,
    end: usize,
    _own: PhantomData<u8>,
}

impl Block {
    /// Places structs; they become the caller's with the block.
    pub fn place<T: Copy>(&mut self, values: &[T]) -> *const T {
        let size = size_of_val(values);
        assert!(self.structs + size <= self.structs_end, "the plan was kept");
        // SAFETY: the place lies within the block and is aligned, as all structs are alike.
        let at = unsafe { self.base.add(self.structs) }.cast::<T>();
        // SAFETY: as above; the values lie outside of it.
        unsafe { ptr::copy_nonoverlapping(values.as_ptr(), at, values.len()) };
        self.structs += size;
        at
    }

    /// Leaves room for one struct, to be placed when the others are.
    pub fn head<T>(&mut self) -> *mut T {
        let size = size_of::<T>();
        assert!(self.structs + size <= self.structs_end, "the plan was kept");
        // SAFETY: as in `place`.
        let at = unsafe { self.base.add(self.structs) }.cast::<T>();
        self.structs += size;
        at
    }

    pub fn text(&mut self, bytes: &[u8]) -> CText {
        assert!(self.text + bytes.len() < self.end, "the plan was kept");
        // SAFETY: bytes and NUL lie within the block.
        let at = unsafe { self.base.add(self.text) };
        // SAFETY: as above.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
            at.add(bytes.len()).write(0);
        }
        self.text += bytes.len() + 1;
        CText {
            data: at.cast::<c_char>(),
            size: bytes.len(),
        }
    }

    pub fn value(&mut self, value: &Value) -> CValue {
        let mut out = CValue::NONE;
        match value.borrow() {
            ValueRef::Bytes(bytes) => {
                (out.kind, out.bytes) = (CValue::BYTES, self.text(bytes));
            }
            ValueRef::Str(text) => {
                (out.kind, out.bytes) = (CValue::STR, self.text(text.as_bytes()));
            }
            ValueRef::Int(integer) => (out.kind, out.integer) = (CValue::INT, integer),
            ValueRef::Float(number) => (out.kind, out.number) = (CValue::FLOAT, number),
        }
        out
    }

    pub fn item(&mut self, item: &Item) -> CEntry {
        CEntry {
            key: self.text(item.key.as_bytes()),
            node: self.text(item.node.as_bytes()),
            value: self.value(&item.value),
            version: item.stamp.to_bits(),
            expires_ms: item.expires.unwrap_or(0),
        }
    }
}

/// A value in a block of its own.
pub fn value_block(value: &Value) -> *mut CValue {
    let mut block = Plan::default().structs::<CValue>(1).value(value).allocate();
    let head = block.head::<CValue>();
    let value = block.value(value);
    // SAFETY: the head was reserved for it.
    unsafe { head.write(value) };
    head
}

impl CText {
    pub const NONE: Self = Self {
        data: ptr::null(),
        size: 0,
    };
}

impl CValue {
    pub const BYTES: i32 = 0;
    pub const STR: i32 = 1;
    pub const INT: i32 = 2;
    pub const FLOAT: i32 = 3;
    /// The integer 0.
    pub const NONE: Self = Self {
        kind: Self::INT,
        integer: 0,
        number: 0.0,
        bytes: CText::NONE,
    };
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_free(block: *mut c_void) {
    // SAFETY: the caller gives back a block of `malloc`, or NULL.
    unsafe { libc::free(block) };
}
