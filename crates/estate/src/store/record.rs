//! An item as it lies in memory: one allocation with a header, the key and a small value.
//!
//! A record is shared by its shard's table and by the handles that resolved to it. Its reference
//! count and all its fields are plain cells: **whoever touches a record holds the lock of its
//! shard**, so none of them has to be atomic, and a counter costs one lock and nothing else.
//! Values above [`INLINE_MAX`], or that outgrow the room they found at first, lie in an
//! `Arc<[u8]>` of their own, so that reading a big one copies nothing.

use super::source::Source;
use crate::value::{Value, ValueRef};
use crate::version::Stamp;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;

/// The longest value that lies within its record, bytes.
pub(super) const INLINE_MAX: usize = 1024;

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Kind {
    Bytes,
    Str,
    Int,
    Float,
}

/// What is special about a record; none of it is, for most.
pub(super) mod flag {
    /// The value lies in an `Arc` of its own.
    pub const SPILLED: u8 = 1;
    /// It has a time to live, and a place in its shard's list of mortals.
    pub const MORTAL: u8 = 4;
    /// Its key is in its shard's set of changed keys.
    pub const CHANGED: u8 = 8;
    /// Its shard knows what its writers had seen of other nodes.
    pub const CONTEXT: u8 = 16;
    /// It is no longer in its table; handles resolve their key again.
    pub const GONE: u8 = 32;
}

// What every operation needs stands last, next to the key.
#[repr(C)]
struct Header {
    // Milliseconds since 1970; 0: never. Invariant: 0 unless MORTAL.
    expires: Cell<u64>,
    // Neighbours in the ring of the items of one flow; itself, if alone or of no flow.
    next: Cell<Link>,
    previous: Cell<Link>,
    // Low bits of the ms of the last use; kept for mortals only.
    touched: Cell<u32>,
    // Place in the shard's list of mortals, if MORTAL.
    place: Cell<u32>,
    references: Cell<u32>,
    // Bytes behind the key that a value may take.
    room: u32,
    value_len: Cell<u32>,
    key_len: u16,
    kind: Cell<Kind>,
    flags: Cell<u8>,
    stamp: Cell<Stamp>,
    // A number's bits, or the start of the spilled bytes.
    word: Cell<u64>,
    // The key and the room follow.
}

/// A record, without a part in keeping it alive.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Link(NonNull<Header>);

/// A counted reference to a record.
pub(super) struct Record(Link);

// SAFETY: a record is only touched by the thread that holds the lock of its shard.
unsafe impl Send for Link {}
// SAFETY: as above.
unsafe impl Send for Record {}

/// Rounded up so that header, key and room fill what the allocator would hand out anyway.
fn room_for(key_len: usize, source: &Source<'_>) -> usize {
    let least = match source {
        Source::Small(ValueRef::Bytes(bytes)) => bytes.len(),
        Source::Small(ValueRef::Str(text)) => text.len(),
        Source::Small(_) | Source::Big(..) => return 0,
    };
    let used = size_of::<Header>() + key_len + least;
    least + (used + 8).next_multiple_of(16) - 8 - used
}

fn layout(key_len: usize, room: usize) -> Layout {
    Layout::from_size_align(size_of::<Header>() + key_len + room, align_of::<Header>())
        .expect("a record is far smaller than memory")
}

impl Record {
    /// A record that nobody else knows.
    pub fn new(key: &str, source: Source<'_>) -> Self {
        let room = room_for(key.len(), &source);
        let layout = layout(key.len(), room);
        // SAFETY: the layout has at least the header's size.
        let Some(at) = NonNull::new(unsafe { alloc(layout) }) else {
            handle_alloc_error(layout)
        };
        let at = at.cast::<Header>();
        let header = Header {
            stamp: Cell::default(),
            expires: Cell::new(0),
            next: Cell::new(Link(at)),
            previous: Cell::new(Link(at)),
            word: Cell::new(0),
            value_len: Cell::new(0),
            room: room as u32,
            touched: Cell::new(0),
            place: Cell::new(0),
            references: Cell::new(1),
            key_len: u16::try_from(key.len()).expect("a key has at most 1,024 bytes"),
            kind: Cell::new(Kind::Int),
            flags: Cell::new(0),
        };
        // SAFETY: the allocation is aligned for a header, and has room for it and for the key.
        unsafe {
            at.write(header);
            at.add(1)
                .cast::<u8>()
                .copy_from_nonoverlapping(NonNull::from(key.as_bytes()).cast(), key.len());
        }
        let mut record = Self(Link(at));
        record.write(source);
        record
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: a counted reference keeps the allocation; its fields are cells, and the lock of
        // the shard is held.
        unsafe { self.0.0.as_ref() }
    }

    #[inline]
    fn tail(&self) -> *mut u8 {
        // SAFETY: key and room stand behind the header, in the same allocation.
        unsafe { self.0.0.add(1).cast::<u8>().as_ptr() }
    }

    /// One more reference.
    pub fn share(&self) -> Self {
        let references = &self.header().references;
        references.set(
            references
                .get()
                .checked_add(1)
                .expect("fewer than 2^32 handles"),
        );
        Self(self.0)
    }

    /// Starts loading what an operation on it will need, all of it at once.
    #[inline]
    pub fn expect(&self) {
        #[cfg(target_arch = "x86_64")]
        for line in 0..3 {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch may be of any address.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(
                    self.0.0.as_ptr().cast::<i8>().wrapping_add(32 + 64 * line),
                )
            };
        }
    }

    /// The record as its neighbours know it.
    #[inline]
    pub fn link(&self) -> Link {
        self.0
    }

    #[inline]
    pub fn key(&self) -> &str {
        // SAFETY: the key was copied there from a `str`, and never changes.
        unsafe {
            let bytes = std::slice::from_raw_parts(self.tail(), usize::from(self.header().key_len));
            std::str::from_utf8_unchecked(bytes)
        }
    }

    #[inline]
    pub fn stamp(&self) -> Stamp {
        self.header().stamp.get()
    }

    #[inline]
    pub fn set_stamp(&mut self, stamp: Stamp) {
        self.header().stamp.set(stamp);
    }

    #[inline]
    pub fn flags(&self) -> u8 {
        self.header().flags.get()
    }

    #[inline]
    pub fn has(&self, flag: u8) -> bool {
        self.flags() & flag != 0
    }

    pub fn set_flag(&self, flag: u8, on: bool) {
        let flags = &self.header().flags;
        flags.set(if on {
            flags.get() | flag
        } else {
            flags.get() & !flag
        });
    }

    /// When it expires, ms since 1970.
    #[inline]
    pub fn expires(&self) -> Option<u64> {
        self.has(flag::MORTAL).then(|| self.header().expires.get())
    }

    pub fn set_expires(&mut self, ms: u64) {
        self.header().expires.set(ms);
    }

    /// Whether it may not be seen any more.
    #[inline]
    pub fn expired(&self, now_ms: u64) -> bool {
        self.has(flag::MORTAL) && self.header().expires.get() <= now_ms
    }

    /// Low bits of the ms of its last use.
    pub fn touched(&self) -> u32 {
        self.header().touched.get()
    }

    #[inline]
    pub fn touch(&self, now_ms: u64) {
        self.header().touched.set(now_ms as u32);
    }

    pub fn place(&self) -> usize {
        self.header().place.get() as usize
    }

    pub fn set_place(&self, place: usize) {
        let place = u32::try_from(place).expect("fewer than 2^32 items in a shard");
        self.header().place.set(place);
    }

    /// The number, if it is a whole one and nothing about the record is special.
    #[inline]
    pub fn plain_int(&self) -> Option<i64> {
        let header = self.header();
        (header.flags.get() == 0 && header.kind.get() == Kind::Int)
            .then(|| header.word.get() as i64)
    }

    /// Writes a whole number over a whole number.
    #[inline]
    pub fn set_int(&mut self, number: i64) {
        debug_assert!(self.header().kind.get() == Kind::Int);
        self.header().word.set(number as u64);
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        let header = self.header();
        let start = if self.has(flag::SPILLED) {
            header.word.get() as *const u8
        } else {
            // SAFETY: the room stands behind the key.
            unsafe { self.tail().add(usize::from(header.key_len)) }
        };
        // SAFETY: `write` left `value_len` bytes at either place; changing them takes `&mut self`
        // and the lock of the shard.
        unsafe { std::slice::from_raw_parts(start, header.value_len.get() as usize) }
    }

    #[inline]
    pub fn value(&self) -> ValueRef<'_> {
        let header = self.header();
        match header.kind.get() {
            Kind::Bytes => ValueRef::Bytes(self.bytes()),
            // SAFETY: the bytes came from a `str`.
            Kind::Str => ValueRef::Str(unsafe { std::str::from_utf8_unchecked(self.bytes()) }),
            Kind::Int => ValueRef::Int(header.word.get() as i64),
            Kind::Float => ValueRef::Float(f64::from_bits(header.word.get())),
        }
    }

    fn spilled(&self) -> Option<*const [u8]> {
        let header = self.header();
        let start = header.word.get() as *const u8;
        self.has(flag::SPILLED)
            .then(|| std::ptr::slice_from_raw_parts(start, header.value_len.get() as usize))
    }

    /// The value; a big one is shared, not copied.
    pub fn to_value(&self) -> Value {
        let Some(bytes) = self.spilled() else {
            return self.value().to_value();
        };
        // SAFETY: the pointer came from `Arc::into_raw`, and the record still owns its count.
        let shared = unsafe {
            Arc::increment_strong_count(bytes);
            Arc::from_raw(bytes)
        };
        match self.header().kind.get() {
            // SAFETY: the bytes came from a `str`, and `str` is laid out as its bytes.
            Kind::Str => Value::Str(unsafe { Arc::from_raw(Arc::into_raw(shared) as *const str) }),
            _ => Value::Bytes(shared),
        }
    }

    /// Replaces the value. What is returned is the old one, if it was big: drop it without the
    /// lock.
    pub fn write(&mut self, source: Source<'_>) -> Option<Arc<[u8]>> {
        // SAFETY: the pointer came from `Arc::into_raw`, and its count is taken over here once,
        // since the flag is cleared with it.
        let old = self.spilled().map(|bytes| unsafe { Arc::from_raw(bytes) });
        self.set_flag(flag::SPILLED, false);
        let header = self.header();
        let (kind, bytes) = match source {
            Source::Small(ValueRef::Int(number)) => {
                header.kind.set(Kind::Int);
                header.word.set(number as u64);
                return old;
            }
            Source::Small(ValueRef::Float(number)) => {
                header.kind.set(Kind::Float);
                header.word.set(number.to_bits());
                return old;
            }
            Source::Small(ValueRef::Bytes(bytes)) => (Kind::Bytes, bytes),
            Source::Small(ValueRef::Str(text)) => (Kind::Str, text.as_bytes()),
            Source::Big(kind, bytes) => {
                self.spill(kind, bytes);
                return old;
            }
        };
        if bytes.len() > header.room as usize {
            self.spill(kind, bytes.into());
            return old;
        }
        header.kind.set(kind);
        header.value_len.set(bytes.len() as u32);
        // SAFETY: the room was checked; `bytes` belong to the caller, not to this record.
        unsafe {
            let room = self.tail().add(usize::from(header.key_len));
            room.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        old
    }

    fn spill(&mut self, kind: Kind, bytes: Arc<[u8]>) {
        let header = self.header();
        header.kind.set(kind);
        header.value_len.set(bytes.len() as u32);
        header.word.set(Arc::into_raw(bytes).cast::<u8>() as u64);
        self.set_flag(flag::SPILLED, true);
    }

    /// Bytes it takes now.
    pub fn footprint(&self) -> usize {
        let header = self.header();
        let spilled = match self.spilled() {
            Some(bytes) => bytes.len() + SPILL_OVERHEAD,
            None => 0,
        };
        overhead() + usize::from(header.key_len) + header.room as usize + spilled
    }

    /// Bytes that it will take once `source` is written to it.
    pub fn footprint_with(&self, source: &Source<'_>) -> usize {
        let header = self.header();
        let spilled = match source {
            Source::Small(ValueRef::Int(_) | ValueRef::Float(_)) => 0,
            Source::Small(value) if value.len() <= header.room as usize => 0,
            other => other.len() + SPILL_OVERHEAD,
        };
        overhead() + usize::from(header.key_len) + header.room as usize + spilled
    }

    /// Puts it into the ring of `neighbour`'s flow.
    pub fn join_ring(&self, neighbour: &Self) {
        let after = neighbour.header().next.get();
        self.header().previous.set(neighbour.0);
        self.header().next.set(after);
        neighbour.header().next.set(self.0);
        // SAFETY: a record leaves its ring before it leaves its table, so neighbours are alive.
        unsafe { after.0.as_ref() }.previous.set(self.0);
    }

    /// Leaves its ring; returns a neighbour, if there was any.
    pub fn leave_ring(&self) -> Option<Link> {
        let (next, previous) = (self.header().next.get(), self.header().previous.get());
        if next == self.0 {
            return None;
        }
        // SAFETY: as in `join_ring`.
        unsafe {
            next.0.as_ref().previous.set(previous);
            previous.0.as_ref().next.set(next);
        }
        self.header().next.set(self.0);
        self.header().previous.set(self.0);
        Some(next)
    }

    /// The next record in its ring; itself, if it is alone.
    pub fn next_in_ring(&self) -> Link {
        self.header().next.get()
    }
}

impl Link {
    /// A counted reference.
    ///
    /// # Safety
    /// The record is still in its table, and the lock of its shard is held.
    pub unsafe fn upgrade(self) -> Record {
        // The borrowed reference is not dropped: it was never counted.
        let borrowed = std::mem::ManuallyDrop::new(Record(self));
        borrowed.share()
    }
}

/// What an `Arc<[u8]>` takes beyond its bytes: two counts, and the allocator's own word.
const SPILL_OVERHEAD: usize = 24;

/// Bytes of a record beyond key and room: the header, the allocator's own word, the table's slot
/// and its control byte at a load of three quarters.
pub(super) const fn overhead() -> usize {
    size_of::<Header>() + 8 + 12
}

/// Bytes that a new record for `key` and `source` will take.
pub(super) fn footprint_of_new(key: &str, source: &Source<'_>) -> usize {
    let spilled = match source {
        Source::Big(_, bytes) => bytes.len() + SPILL_OVERHEAD,
        Source::Small(_) => 0,
    };
    overhead() + key.len() + room_for(key.len(), source) + spilled
}

impl Drop for Record {
    fn drop(&mut self) {
        let header = self.header();
        let left = header.references.get() - 1;
        header.references.set(left);
        if left > 0 {
            return;
        }
        let layout = layout(usize::from(header.key_len), header.room as usize);
        if let Some(bytes) = self.spilled() {
            // SAFETY: the pointer came from `Arc::into_raw`, and its count is the record's.
            drop(unsafe { Arc::from_raw(bytes) });
        }
        // SAFETY: this was the last reference, and the layout is that of `new`.
        unsafe { dealloc(self.0.0.cast().as_ptr(), layout) };
    }
}
