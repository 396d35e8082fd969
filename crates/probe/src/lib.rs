//! Flowferry probe.
