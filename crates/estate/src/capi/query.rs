//! Queries, and reducers of the caller's: by pointer, or registered by name.

use super::input::{pattern, string};
use super::status::Failure;
use super::types::{CQuery, CReducer};
use crate::backend::Estate;
use crate::query::{Consistency, Query, Require};
use crate::reduce::Reducer;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_void};
use std::time::Duration;

/// A function of the caller's and what belongs to it.
#[derive(Clone, Copy)]
pub struct Custom {
    pub function: CReducer,
    pub context: *mut c_void,
}

// SAFETY: estate.h says that a registered reducer runs in whatever thread asks.
unsafe impl Send for Custom {}
// SAFETY: as above.
unsafe impl Sync for Custom {}

static REGISTERED: RwLock<BTreeMap<String, Custom>> = RwLock::new(BTreeMap::new());

/// # Safety
/// The query is as estate.h wants it.
pub unsafe fn query(
    estate: &Estate,
    given: &CQuery,
) -> std::result::Result<(Query, Option<Custom>), Failure> {
    if given.size < size_of::<CQuery>() {
        return Err(Failure::Argument("query->size"));
    }
    // SAFETY: the caller's.
    let (pattern, name) = unsafe {
        (
            pattern(given.pattern, given.pattern_size, given.kind)?,
            string(given.reduce, "query->reduce")?,
        )
    };
    let custom = match (given.reducer, name) {
        (Some(function), _) => Some(Custom {
            function,
            context: given.context,
        }),
        (None, Some(name)) => REGISTERED.read().get(name).copied(),
        (None, None) => return Err(Failure::Argument("query->reduce")),
    };
    let reducer = match (custom, name) {
        (None, Some(name)) => Reducer::named(name)?,
        _ => Reducer::Collect,
    };
    let consistency = match given.consistency {
        0 => Consistency::Live,
        1 => Consistency::Cached {
            max_age: Duration::from_millis(given.max_age_ms),
        },
        2 => Consistency::Snapshot,
        _ => return Err(Failure::Argument("query->consistency")),
    };
    let require = match given.require {
        0 => Require::All,
        -1 => Require::Quorum,
        least => Require::AtLeast(
            usize::try_from(least).map_err(|_| Failure::Argument("query->require"))?,
        ),
    };
    let timeout = match given.timeout_ms {
        0 => estate.options().timeout,
        ms => Duration::from_millis(ms),
    };
    let query = Query {
        consistency,
        timeout,
        require,
        ..Query::new(pattern, reducer)
    };
    Ok((query, custom))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn estate_register_reducer(
    name: *const c_char,
    reducer: Option<CReducer>,
    context: *mut c_void,
) -> c_int {
    super::status::run(|| {
        // SAFETY: the caller gives a text that ends with NUL.
        let name = unsafe { string(name, "name") }?.ok_or(Failure::Argument("name"))?;
        if Reducer::named(name).is_ok() {
            return Err(Failure::Argument(
                "name (the library has a reducer of that name)",
            ));
        }
        let mut registered = REGISTERED.write();
        match reducer {
            Some(function) => registered.insert(name.to_owned(), Custom { function, context }),
            None => registered.remove(name),
        };
        Ok(super::status::Outcome::Ok)
    })
}
