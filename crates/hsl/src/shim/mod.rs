//! Shims.
pub mod bpf;
pub mod control;
pub mod shared;
pub mod tap;
