//! Traffic that proves what a path did to it.
//!
//! A *source* sends numbered, time-stamped UDP packets on many flows; a *sink* counts per flow what
//! was lost, reordered, duplicated and delayed. [`packet`], [`sequence`], [`delay`], [`account`],
//! [`schedule`] and [`layout`] are pure: no clock, no I/O. Everything else is the thin layer of
//! sockets around them.

pub mod account;
pub mod batch;
pub mod clock;
pub mod control;
pub mod delay;
pub mod emitter;
pub mod error;
pub mod inlet;
pub mod layout;
pub mod pace;
pub mod packet;
pub mod plan;
pub mod report;
pub mod schedule;
pub mod send;
pub mod sequence;
pub mod sink;
pub mod socket;
pub mod talk;
pub mod tally;
pub mod timeline;
pub mod worker;
