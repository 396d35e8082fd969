//! The handover support layer: holds packets of live flows in front of an unmodified function
//! and lets them go in order (docs/design.md §4, SHarP §3.2, §3.4, §3.6).

pub mod agent;
pub mod endpoint;
pub mod handover;
pub mod key;
pub mod matching;
pub mod model;
pub mod shim;
pub mod table;
