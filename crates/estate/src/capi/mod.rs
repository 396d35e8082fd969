//! The C API: `include/estate.h`, which documents it, and nothing beyond conversion.
//!
//! Every function here is one of the header. Memory for the caller is one `malloc` block per call
//! ([`block`]), so that one `estate_free` gives back whatever there is. A panic never crosses into
//! C: it becomes `ESTATE_INTERNAL`.

mod block;
mod global;
mod handle;
mod input;
mod items;
mod join;
mod joint;
mod moves;
mod query;
mod status;
mod types;
mod watch;
