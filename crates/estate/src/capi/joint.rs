//! Writes at several members at one instant.

use super::input::{key, one, string, value};
use super::status::{Failure, Outcome, Result, run};
use super::types::{CEstate, CPart};
use crate::protocol::Write;
use std::ffi::{c_char, c_int};
use std::time::Duration;

/// # Safety
/// Key and value are of the sizes they say.
unsafe fn write(part: &CPart) -> std::result::Result<Write, Failure> {
    // SAFETY: the caller's.
    let key = unsafe { key(part.key.data, part.key.size) }?.to_owned();
    Ok(match part.op {
        // SAFETY: the caller's.
        CPart::SET => Write::Set(
            key,
            unsafe { value(&part.value, "part->value") }?.to_value(),
        ),
        CPart::ADD => Write::Add(key, part.value.integer),
        CPart::DELETE => Write::Delete(key),
        _ => return Err(Failure::Argument("part->op")),
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_joint(
    es: *const CEstate,
    id: u64,
    members: *const c_char,
    parts: *const CPart,
    count: usize,
    timeout_ms: u64,
) -> c_int {
    run(|| -> Result {
        // SAFETY: the caller gives an open estate and a text that ends with NUL.
        let (estate, members) = unsafe { (&one(es, "es")?.0, string(members, "members")?) };
        if parts.is_null() && count > 0 {
            return Err(Failure::Argument("parts"));
        }
        let members: Vec<&str> = members
            .unwrap_or_default()
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .collect();
        let part = |at: usize| {
            // SAFETY: the caller gives so many.
            unsafe { write(&*parts.add(at)) }
        };
        let writes: std::result::Result<_, _> = (0..count).map(part).collect();
        let timeout = match timeout_ms {
            0 => estate.timeout(),
            ms => Duration::from_millis(ms),
        };
        estate.joint(id, &members, writes?, timeout)?;
        Ok(Outcome::Ok)
    })
}
