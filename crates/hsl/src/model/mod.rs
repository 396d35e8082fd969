//! An instance without kernel, sockets and clock: for simulations, and for tests of what several
//! agents do together. [`Programs`] is what `bpf/hsl.bpf.c` does, in a page; [`Instance`] is that
//! page and the agent's pure cores, with the agent's loop taken to pieces.

mod instance;
mod programs;

pub use instance::Instance;
pub use programs::Programs;
