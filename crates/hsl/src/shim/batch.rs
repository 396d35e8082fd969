//! Read a whole hash map in a few system calls (`BPF_MAP_LOOKUP_BATCH`).
//!
//! One look-up at a time, a table of a million flows takes seconds, in which the agent's heart
//! would not beat and the programs would fail open.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use aya::Pod;

/// `BPF_MAP_LOOKUP_BATCH` of `enum bpf_cmd`.
const LOOKUP_BATCH: libc::c_int = 24;
/// Entries asked for at a time; doubled when one bucket of the map alone holds more.
const AT_A_TIME: usize = 4096;

/// `union bpf_attr`, the member `batch`.
#[repr(C)]
struct Batch {
    from: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Every entry of a hash map whose keys and values are `K` and `V`. Entries that come or go
/// meanwhile may be missing or be there.
pub fn read_all<K: Pod, V: Pod>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
    let (mut all, mut from, mut size) = (Vec::new(), None::<u64>, AT_A_TIME);
    loop {
        let mut keys = Vec::<K>::with_capacity(size);
        let mut values = Vec::<V>::with_capacity(size);
        let mut next = 0u64;
        let mut batch = Batch {
            from: from.as_ref().map_or(0, |at| std::ptr::from_ref(at) as u64),
            next: std::ptr::from_mut(&mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: size as u32,
            map: map.as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: `batch` is what the kernel takes for this command; its pointers are to room for
        // `count` keys and values, and to cursors of eight bytes (it uses four).
        let done = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                LOOKUP_BATCH,
                std::ptr::from_mut(&mut batch),
                size_of::<Batch>(),
            )
        };
        let error = (done < 0).then(io::Error::last_os_error);
        let code = error.as_ref().and_then(io::Error::raw_os_error);
        match (error, code) {
            (Some(_), Some(libc::ENOSPC)) => {
                size *= 2;
                continue;
            }
            (None, _) | (Some(_), Some(libc::ENOENT)) => {}
            (Some(error), _) => return Err(error),
        }
        let count = (batch.count as usize).min(size);
        // SAFETY: the kernel has filled in so many of each; any bytes are a `Pod`.
        unsafe {
            keys.set_len(count);
            values.set_len(count);
        }
        all.extend(keys.into_iter().zip(values));
        if code.is_some() {
            return Ok(all); // that was the last of it
        }
        from = Some(next);
    }
}
