//! Network functions to test handovers with.
//!
//! [`forwarder`] stands for every function that reads and writes packet sockets, as libpcap programs
//! do. It can also add a delay, for kernels without netem, and make faults on purpose, so that tests
//! can tell whether a sink counts what really happened. [`fault`], [`frame`] and [`delay_line`] are
//! pure.

pub mod delay_line;
pub mod fault;
pub mod forwarder;
pub mod frame;
pub mod lane;
pub mod packet_socket;
pub mod seen;
